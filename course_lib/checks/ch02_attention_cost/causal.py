"""Grading material: causal_mask."""

import torch
from torch import Tensor

from course_lib.grading.spec import Check, Mutant, Probe


def by_ranges(n_q: int, n_kv: int) -> Tensor:
    return torch.arange(n_kv)[None, :] - torch.arange(n_q)[:, None] <= n_kv - n_q


def by_triangle(n_q: int, n_kv: int) -> Tensor:
    return torch.ones(n_q, n_kv, dtype=torch.bool).tril(n_kv - n_q)


def by_rows(n_q: int, n_kv: int) -> Tensor:
    """Row by row, from the last query back."""
    rows = [torch.arange(n_kv) < n_kv - back for back in range(n_q)]
    return torch.stack(rows[::-1])


def _probes(g: torch.Generator) -> list[Probe]:
    axes = ("query", "key")
    draw = [int(n) for n in torch.randint(8, 40, (2,), generator=g)]
    return [
        Probe("2 queries, 3 keys", (2, 3), axes=axes),
        Probe("5 queries, 5 keys", (5, 5), axes=axes),
        Probe("3 queries, 8 keys", (3, 8), axes=axes),
        Probe("7 queries, 4 keys", (7, 4), axes=axes),
        Probe("1 query, 6 keys", (1, 6), axes=axes),
        Probe("6 queries, 1 key", (6, 1), axes=axes),
        Probe("more keys than queries", (draw[0], draw[0] + draw[1]), axes=axes, diagnose=False),
        Probe("more queries than keys", (draw[0] + draw[1], draw[1]), axes=axes, diagnose=False),
    ]


def _mutant(id: str, message: str, line: str, rule: str | None = None) -> Mutant:
    return Mutant(
        id, message, body=f"def causal_mask(n_q, n_kv):\n    i, j = torch.arange(n_q)[:, None], torch.arange(n_kv)\n    {line}\n", rule=rule
    )


CAUSAL_MASK = Check(
    exercise="causal_mask",
    probes=_probes,
    reference=by_triangle,
    baselines=(by_ranges, by_triangle, by_rows),
    returns="a bool tensor",
    mutants=(
        _mutant(
            "top-left",
            (
                "Right while there are as many queries as keys. Otherwise the first query was taken for the first token: the mask is aligned "
                "to the top left corner, as SDPA's is_causal is. Here it is the last query and the last key that belong together."
            ),
            "return j <= i",
        ),
        _mutant(
            "inverted", "Every entry is the opposite of what it should be: True means keep, and here it means hide.", "return j > i + n_kv - n_q"
        ),
        _mutant(
            "inverted-top-left",
            (
                "True stands for hide here, and the first query was taken for the first token (triu with diagonal=1 does both). True means keep, "
                "and the last query and the last key belong together."
            ),
            "return j > i",
        ),
        _mutant(
            "not-itself",
            "Every query misses one key: the one at its own position. A token sees itself and everything before it.",
            "return j < i + n_kv - n_q",
        ),
        _mutant(
            "not-itself-top-left",
            (
                "Every query misses the key at its own position (a token sees itself), and the first query was taken for the first token: "
                "the last query is the last token."
            ),
            "return j < i",
        ),
        _mutant(
            "one-ahead",
            "Every query sees one key too many: the token after its own. Check the last query: it is the last token.",
            "return j <= i + n_kv - n_q + 1",
        ),
        _mutant(
            "one-ahead-top-left",
            (
                "Every query sees the token after its own, and the first query was taken for the first token. Start from the last query: "
                "it is the last token, and sees every key."
            ),
            "return j <= i + 1",
        ),
        _mutant(
            "shift-backwards",
            (
                "The shift has the wrong sign: with more keys than queries the first queries see too little, not too much. Query 0 is "
                "token n_kv - n_q of the text."
            ),
            "return j <= i - (n_kv - n_q)",
        ),
        _mutant(
            "shift-clamped",
            (
                "Right while there are at least as many keys as queries. With more queries than keys the first ones stand before every key and see "
                "none: the shift n_kv - n_q is negative there, and must stay so."
            ),
            "return j <= i + max(n_kv - n_q, 0)",
        ),
        _mutant(
            "shift-absolute",
            (
                "Right while there are at least as many keys as queries. With more queries than keys the shift n_kv - n_q is negative: the first queries "
                "stand before every key and see none."
            ),
            "return j <= i + abs(n_kv - n_q)",
        ),
        _mutant(
            "future",
            "The triangle is the other one: each query sees its own token and everything after it. It must see what came before.",
            "return j >= i + n_kv - n_q",
        ),
        _mutant(
            "future-top-left",
            (
                "The triangle is the other one (triu): each query sees its own token and everything after it. It must see what came before; and the "
                "last query belongs to the last key."
            ),
            "return j >= i",
        ),
        Mutant(
            "slice-wraps",
            (
                "Right while there are at least as many keys as queries. With more queries the first ones see nothing, and `mask[i, :end]` does not do that "
                "where `end` is negative: Python counts it from the back."
            ),
            body=(
                "def causal_mask(n_q, n_kv):\n    mask = torch.zeros(n_q, n_kv, dtype=torch.bool)\n    for i in range(n_q):\n"
                "        mask[i, : n_kv - n_q + i + 1] = True\n    return mask\n"
            ),
        ),
        Mutant(
            "square",
            "One row a query, one entry a key: the two numbers need not be equal.",
            body="def causal_mask(n_q, n_kv):\n    return torch.ones(n_q, n_q, dtype=torch.bool).tril()\n",
            rule="shape",
        ),
        _mutant(
            "not-bool",
            "The course's masks are bool, True = keep; `.bool()` turns ones and zeros into that. (A mask of 0 and -inf is another convention.)",
            "return (j <= i + n_kv - n_q).float()",
            rule="dtype",
        ),
    ),
    right=(
        "def causal_mask(n_q, n_kv):\n    return torch.ones(n_q, n_kv).tril(diagonal=n_kv - n_q).bool()\n",
        """\
def causal_mask(n_q, n_kv):
    out = torch.zeros((n_q, n_kv), dtype=torch.bool)
    for i in range(n_q):
        seen = n_kv - (n_q - 1 - i)
        if seen > 0:
            out[i, :seen] = True
    return out
""",
        "def causal_mask(n_q, n_kv):\n    return ~torch.triu(torch.ones(n_q, n_kv, dtype=torch.bool), n_kv - n_q + 1)\n",
        "def causal_mask(n_q, n_kv):\n    return torch.tensor([[j - n_kv <= i - n_q for j in range(n_kv)] for i in range(n_q)])\n",
        "def causal_mask(n_q, n_kv):\n    n = max(n_q, n_kv)\n    return torch.ones(n, n, dtype=torch.bool).tril()[n - n_q:, n - n_kv:]\n",
    ),
)
