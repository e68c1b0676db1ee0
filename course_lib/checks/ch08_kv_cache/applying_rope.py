"""Grading material: apply_rope."""

import torch
from torch import Tensor

from course_lib.checks.ch08_kv_cache.inputs import HEADS, normal, table, whole
from course_lib.grading.spec import Check, Mutant, Probe, Property

_HEAD = "def apply_rope(x, cos, sin):\n    half = x.shape[-1] // 2\n    a, b = x[..., :half], x[..., half:]\n    c, s = cos[..., :half], sin[..., :half]\n"


def by_halves(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    half = x.shape[-1] // 2
    a, b, c, s = x[..., :half], x[..., half:], cos[..., :half], sin[..., :half]
    return torch.cat((a * c - b * s, b * c + a * s), dim=-1)


def by_quarter_turn(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    half = x.shape[-1] // 2
    return x * cos + torch.cat((-x[..., half:], x[..., :half]), dim=-1) * sin


def by_pairs(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Pair by pair."""
    out, half = torch.empty_like(x), x.shape[-1] // 2
    for i in range(half):
        c, s = cos[..., i], sin[..., i]
        out[..., i], out[..., i + half] = x[..., i] * c - x[..., i + half] * s, x[..., i] * s + x[..., i + half] * c
    return out


def _probes(g: torch.Generator) -> list[Probe]:
    start = whole(g, 30, 200)
    own = torch.tensor([0, 17])[:, None] + torch.arange(3)
    cos, sin = table(own, 8)
    half = [x.half() for x in table(torch.arange(4), 8)]
    return [
        Probe("2 tokens, D = 2", (normal(g, 1, 1, 2, 2), *table(torch.arange(2), 2)), axes=HEADS),
        Probe("5 tokens, D = 4", (normal(g, 2, 3, 5, 4), *table(torch.arange(5), 4)), axes=HEADS),
        Probe(f"one token at position {start}, D = 6", (normal(g, 2, 2, 1, 6), *table(torch.tensor([start]), 6)), axes=HEADS),
        Probe("D = 10: an odd number of pairs", (normal(g, 1, 2, 3, 10), *table(torch.arange(4, 7), 10)), axes=HEADS),
        Probe("as many heads as tokens", (normal(g, 2, 4, 4, 8), *table(torch.arange(4), 8)), axes=HEADS),
        Probe("each sequence has positions of its own", (normal(g, 2, 3, 3, 8), cos[:, None], sin[:, None]), axes=HEADS),
        Probe("not contiguous", (normal(g, 2, 3, 4, 4), *table(torch.arange(4), 4)), layout="transposed", axes=HEADS, diagnose=False),
        Probe("float16 in, float16 out", (normal(g, 1, 2, 4, 8, dtype=torch.float16), *half), axes=HEADS, diagnose=False),
    ]


def _length_kept(call, g: torch.Generator) -> str | None:
    x = normal(g, 2, 3, 5, 8)
    out = call(x, *table(torch.arange(5), 8))
    return None if torch.allclose(out.norm(dim=-1), x.norm(dim=-1), rtol=1e-4) else "turning a vector changed its length."


APPLY_ROPE = Check(
    exercise="apply_rope",
    probes=_probes,
    reference=by_halves,
    baselines=(by_halves, by_quarter_turn, by_pairs),
    properties=(Property("a turned vector keeps its length", _length_kept, "length"),),
    mutants=(
        Mutant(
            "interleaved",
            "Neighbours were paired: (0, 1), (2, 3), ... Llama's checkpoints pair i with i + D / 2. Both are rotations, and a model trained with one writes "
            "nonsense with the other.",
            edits=(
                (
                    "torch.cat((-x[..., half:], x[..., :half]), dim=-1)",
                    "torch.stack((-x[..., 1::2], x[..., 0::2]), dim=-1).flatten(-2)",
                ),
            ),
        ),
        Mutant(
            "interleaved-throughout",
            "Neighbours were paired: (0, 1), (2, 3), ..., each with its own angle. Llama's checkpoints pair i with i + D / 2: the first half of D holds the "
            "first numbers of all pairs.",
            body="def apply_rope(x, cos, sin):\n    half = x.shape[-1] // 2\n    a, b = x[..., 0::2], x[..., 1::2]\n    c, s = cos[..., :half], sin[..., :half]\n"
            "    return torch.stack((a * c - b * s, b * c + a * s), dim=-1).flatten(-2)\n",
        ),
        Mutant(
            "interleaved-every-second-angle",
            "Neighbours were paired: (0, 1), (2, 3), ..., and every second entry of the tables was taken for them. Here the pairs are (i, i + D / 2), in x and in the tables.",
            body="def apply_rope(x, cos, sin):\n    a, b = x[..., 0::2], x[..., 1::2]\n    c, s = cos[..., 0::2], sin[..., 0::2]\n"
            "    return torch.stack((a * c - b * s, b * c + a * s), dim=-1).flatten(-2)\n",
        ),
        Mutant(
            "written-as-neighbours",
            "The right numbers in the wrong places: the two of a pair were written side by side. They belong where they came from, at i and i + D / 2.",
            body=_HEAD + "    return torch.stack((a * c - b * s, b * c + a * s), dim=-1).flatten(-2)\n",
        ),
        Mutant(
            "turned-back",
            "Everything turned the other way round: the minus stands at the wrong half. Check with [1, 0] and 90 degrees: [0, 1] is right, [0, -1] is the "
            "other direction.",
            edits=(("(-x[..., half:], x[..., :half])", "(x[..., half:], -x[..., :half])"),),
        ),
        Mutant(
            "no-minus",
            "A rotation has one minus: (a cos - b sin, b cos + a sin). Without it the pair is stretched, not turned.",
            edits=(("(-x[..., half:], x[..., :half])", "(x[..., half:], x[..., :half])"),),
        ),
        Mutant(
            "two-minus",
            "Both halves were negated. A quarter turn takes (a, b) to (-b, a): one minus.",
            edits=(("(-x[..., half:], x[..., :half])", "(-x[..., half:], -x[..., :half])"),),
        ),
        Mutant(
            "halves-not-exchanged",
            "The halves were not exchanged: each number was mixed with itself. The new a needs the old b, and the new b the old a.",
            edits=(("(-x[..., half:], x[..., :half])", "(-x[..., :half], x[..., half:])"),),
        ),
        Mutant(
            "halves-stay-minus-below",
            "The halves were not exchanged, and the second one was negated: a quarter turn takes (a, b) to (-b, a).",
            edits=(("(-x[..., half:], x[..., :half])", "(x[..., :half], -x[..., half:])"),),
        ),
        Mutant(
            "no-quarter-turn",
            "x was multiplied by cos + sin: each number was mixed with itself. The sine belongs to the other number of the pair, once with a minus.",
            edits=(("x * cos + turned * sin", "x * cos + x * sin"),),
        ),
        Mutant(
            "cos-and-sin-exchanged",
            "cos and sin were exchanged. At position 0 the angle is 0, and x must come back as it is.",
            edits=(("x * cos + turned * sin", "x * sin + turned * cos"),),
        ),
        Mutant(
            "cos-only", "That is x times the cosine: the other half of the rotation, with the sine, is missing.", edits=((" + turned * sin", ""),)
        ),
        Mutant(
            "first-half-only",
            "Only the first half of D was turned. Each pair has two numbers, and both change.",
            body=_HEAD + "    return torch.cat((a * c - b * s, b), dim=-1)\n",
        ),
        Mutant(
            "old-value-overwritten",
            "The second half was made from the first half as it was *after* turning. Both new numbers need both old ones: keep them.",
            body=_HEAD + "    a = a * c - b * s\n    b = b * c + a * s\n    return torch.cat((a, b), dim=-1)\n",
        ),
        Mutant(
            "table-by-head",
            "The table was laid along the heads: head h was turned by the angle of position h. Its rows belong to the tokens, the third dimension of x.",
            body="def apply_rope(x, cos, sin):\n    half = x.shape[-1] // 2\n    if cos.dim() == 2 and cos.shape[0] == x.shape[1]:\n"
            "        cos, sin = cos[:, None], sin[:, None]\n    return x * cos + torch.cat((-x[..., half:], x[..., :half]), dim=-1) * sin\n",
        ),
        Mutant(
            "first-sequence's-table",
            "Right while all sequences share their positions. Here each has its own, [B, 1, N, D], and the first one's were used for all.",
            edits=(("x * cos + turned * sin", "x * (cos if cos.dim() == 2 else cos[:1]) + turned * (sin if sin.dim() == 2 else sin[:1])"),),
        ),
        Mutant(
            "last-half-first",
            "Every number is right and stands in the wrong half: the first half of the result holds a cos - b sin.",
            body=_HEAD + "    return torch.cat((b * c + a * s, a * c - b * s), dim=-1)\n",
        ),
        Mutant(
            "in-place",
            "The queries were turned where they stand. Whoever calls this may still need them: make a new tensor.",
            body=_HEAD + "    new = torch.cat((a * c - b * s, b * c + a * s), dim=-1)\n    x.copy_(new)\n    return new\n",
            rule="mutated-input",
        ),
        Mutant(
            "float32-out",
            "The result is float32 whatever came in: in a half precision model it would no longer fit the keys. Return the dtype of x.",
            edits=(("return x * cos + turned * sin", "return (x * cos + turned * sin).float()"),),
            rule="dtype",
        ),
    ),
    right=(
        _HEAD + "    return torch.cat([a * c - b * s, a * s + b * c], -1)\n",
        "def apply_rope(x, cos, sin):\n    n = x.shape[-1] // 2\n    z = torch.complex(x[..., :n].double(), x[..., n:].double())\n"
        "    turn = torch.complex(cos[..., :n].double(), sin[..., :n].double())\n    z = z * turn\n    return torch.cat((z.real, z.imag), -1).to(x.dtype)\n",
        "def rotate_half(x):\n    a, b = x.chunk(2, dim=-1)\n    return torch.cat((-b, a), dim=-1)\n\n"
        "def apply_rope(x, cos, sin):\n    return (x * cos) + (rotate_half(x) * sin)\n",
        "def apply_rope(x, cos, sin):\n    sign = torch.ones(x.shape[-1], dtype=x.dtype)\n    sign[: x.shape[-1] // 2] = -1\n"
        "    return x * cos + x.roll(x.shape[-1] // 2, dims=-1) * sign * sin\n",
        "def apply_rope(x, cos, sin):\n    out = torch.empty_like(x)\n    h = x.size(-1) // 2\n    out[..., :h] = x[..., :h] * cos[..., :h] - x[..., h:] * sin[..., :h]\n"
        "    out[..., h:] = x[..., h:] * cos[..., h:] + x[..., :h] * sin[..., h:]\n    return out\n",
    ),
)
