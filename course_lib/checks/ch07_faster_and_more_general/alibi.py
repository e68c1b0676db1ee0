"""Grading material: alibi_score_mod."""

import torch
from torch import Tensor

from course_lib.grading.spec import Check, Mutant, Probe

_HEAD = "def alibi_score_mod(score, b, h, q_idx, kv_idx, slopes, offset=0):\n"


def by_distance(score, b, h, q_idx, kv_idx, slopes, offset=0) -> Tensor:
    return score - slopes[h] * (q_idx + offset - kv_idx).abs()


def by_sides(score, b, h, q_idx, kv_idx, slopes, offset=0) -> Tensor:
    ahead = kv_idx - (q_idx + offset)
    return score + slopes[h] * torch.where(ahead > 0, -ahead, ahead)


def by_maximum(score, b, h, q_idx, kv_idx, slopes, offset=0) -> Tensor:
    place = q_idx + offset
    return score - (torch.maximum(place, kv_idx) - torch.minimum(place, kv_idx)) * slopes[h]


def slopes_of(heads: int) -> Tensor:
    """The paper's slopes: 2^(-8 / H), its square, its cube ..."""
    return 2.0 ** (-8.0 * torch.arange(1, heads + 1) / heads)


def _grid(g: torch.Generator, b: int, h: int, n_q: int, n_kv: int, slopes: Tensor) -> tuple:
    """Scores of all heads with index tensors that broadcast to them."""
    score = torch.randn(b, h, n_q, n_kv, generator=g)
    return score, torch.arange(b)[:, None, None, None], torch.arange(h)[:, None, None], torch.arange(n_q)[:, None], torch.arange(n_kv), slopes


def _single(score: float, h: int, q: int, kv: int, slopes: Tensor) -> tuple:
    """One score, as FlexAttention hands it over."""
    return torch.tensor(score), torch.tensor(0), torch.tensor(h), torch.tensor(q), torch.tensor(kv), slopes


def _probes(g: torch.Generator) -> list[Probe]:
    axes = ("sequence", "head", "query", "key")
    return [
        Probe("one score: the example", _single(5.0, 0, 7, 4, torch.tensor([0.5]))),
        Probe("one score of head 2", _single(1.0, 2, 3, 0, torch.tensor([0.5, 0.25, 0.125]))),
        Probe("2 heads, 5 queries and keys", _grid(g, 1, 2, 5, 5, slopes_of(2)), axes=axes),
        Probe("2 sequences, 3 heads, 4 queries, 9 keys, offset 5", _grid(g, 2, 3, 4, 9, slopes_of(3)), {"offset": 5}, axes=axes),
        Probe("9 queries, 4 keys, offset -5", _grid(g, 1, 4, 9, 4, slopes_of(4)), {"offset": -5}, axes=axes),
        Probe("slopes in no order", _grid(g, 3, 5, 3, 7, torch.rand(5, generator=g)), axes=axes),
    ]


def _mutant(id: str, message: str, line: str) -> Mutant:
    return Mutant(id, message, body=f"{_HEAD}    return {line}\n")


ALIBI_SCORE_MOD = Check(
    exercise="alibi_score_mod",
    probes=_probes,
    reference=by_distance,
    baselines=(by_distance, by_sides, by_maximum),
    mutants=(
        _mutant(
            "added",
            "The distance was added: far keys gain. A key loses the more, the further it is.",
            "score + slopes[h] * (q_idx + offset - kv_idx).abs()",
        ),
        _mutant(
            "no-offset",
            "Right for offset 0: with more keys than queries, query i stands at position i + offset among them.",
            "score - slopes[h] * (q_idx - kv_idx).abs()",
        ),
        _mutant(
            "offset-on-keys",
            "The offset was added to the key. It belongs to the query: the keys are counted from the first of all tokens, the queries are the last of them.",
            "score - slopes[h] * (q_idx - kv_idx - offset).abs()",
        ),
        _mutant(
            "offset-outside",
            "Right for offset 0: it was added to the distance. It moves the query, so it belongs inside, before the sign is dropped.",
            "score - slopes[h] * ((q_idx - kv_idx).abs() + offset)",
        ),
        _mutant(
            "signed",
            "Right for keys up to the query: those after it gain instead of losing. A causal mask would hide them; this function does not know that there is "
            "one. A distance has no sign.",
            "score - slopes[h] * (q_idx + offset - kv_idx)",
        ),
        _mutant(
            "clamped",
            "Right for keys up to the query: those after it lose nothing. The distance counts on both sides.",
            "score - slopes[h] * (q_idx + offset - kv_idx).clamp(min=0)",
        ),
        _mutant("one-slope", "Every head got the first head's slope: index slopes with h.", "score - slopes[0] * (q_idx + offset - kv_idx).abs()"),
        _mutant(
            "slopes-by-sequence",
            "The slope was chosen by b, the sequence. It belongs to the head, h.",
            "score - slopes[b % slopes.shape[0]] * (q_idx + offset - kv_idx).abs()",
        ),
        _mutant("no-slope", "The bare distance was taken away: each head scales it with its own slope.", "score - (q_idx + offset - kv_idx).abs()"),
        _mutant("bias-only", "That is the bias alone. Return the score with it.", "-slopes[h] * (q_idx + offset - kv_idx).abs() + 0 * score"),
        _mutant("squared", "The distance was squared: ALiBi's penalty is linear.", "score - slopes[h] * (q_idx + offset - kv_idx) ** 2"),
        _mutant(
            "multiplied",
            "The score was multiplied: ALiBi subtracts, so that a bias means the same for a small score and a large one.",
            "score * (1 - slopes[h] * (q_idx + offset - kv_idx).abs())",
        ),
    ),
    right=(
        "def alibi_score_mod(score, b, h, q_idx, kv_idx, slopes, offset=0):\n    gap = kv_idx - q_idx - offset\n    return score - torch.abs(gap) * slopes[h]\n",
        "def alibi_score_mod(score, b, h, q_idx, kv_idx, slopes, offset=0):\n    gap = q_idx - kv_idx + offset\n"
        "    far = torch.where(gap < 0, -gap, gap)\n    return score + far * -slopes[h]\n",
        "def alibi_score_mod(score, b, h, q_idx, kv_idx, slopes, offset=0):\n    bias = torch.maximum(q_idx + offset, kv_idx) - torch.minimum(q_idx + offset, kv_idx)\n"
        "    return score.sub(slopes[h].mul(bias))\n",
    ),
)
