"""Grading material: rope_cos_sin."""

import torch
from torch import Tensor

from course_lib.checks.ch08_kv_cache.inputs import whole
from course_lib.grading.spec import Check, Mutant, Probe

_HEAD = "def rope_cos_sin(positions, head_dim, theta=10_000.0):\n"
_AXES = ("token", "feature")


def exact(positions: Tensor, head_dim: int, theta: float = 10_000.0) -> tuple[Tensor, Tensor]:
    """In float64 whatever comes in."""
    angles = positions[..., None].double() * theta ** (-torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim)
    angles = torch.cat((angles, angles), dim=-1)
    return angles.cos(), angles.sin()


def _pair(angles: Tensor) -> tuple[Tensor, Tensor]:
    angles = torch.cat((angles, angles), dim=-1)
    return angles.cos(), angles.sin()


def by_power(positions: Tensor, head_dim: int, theta: float = 10_000.0) -> tuple[Tensor, Tensor]:
    return _pair(positions[..., None].float() * theta ** (-torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim))


def by_division(positions: Tensor, head_dim: int, theta: float = 10_000.0) -> tuple[Tensor, Tensor]:
    return _pair(positions[..., None].float() / theta ** (torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim))


def by_exponential(positions: Tensor, head_dim: int, theta: float = 10_000.0) -> tuple[Tensor, Tensor]:
    speeds = torch.exp(-torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim * torch.log(torch.tensor(float(theta))))
    return _pair(positions[..., None].float() * speeds)


def _probes(g: torch.Generator) -> list[Probe]:
    start = whole(g, 20, 90)
    return [
        Probe("positions 0, 1, 2, D = 4", (torch.arange(3), 4), axes=_AXES),
        Probe("one token at position 1, D = 4", (torch.tensor([1]), 4), axes=_AXES),
        Probe(f"five tokens from position {start} on, D = 8", (torch.arange(start, start + 5), 8), axes=_AXES),
        Probe("positions out of order, D = 6", (torch.tensor([7, 0, 3, 3]), 6), axes=_AXES),
        Probe("theta = 500, D = 16", (torch.arange(2, 9), 16, 500.0), axes=_AXES),
        Probe("two sequences with positions of their own", (torch.tensor([[0, 1, 2], [40, 41, 42]]), 8), axes=("batch", *_AXES)),
        Probe("D = 64, up to position 1,000", (torch.arange(0, 1001, 125), 64), axes=_AXES, diagnose=False),
        Probe("theta by name", (torch.arange(4), 10), {"theta": 1_000_000.0}, axes=_AXES, diagnose=False),
    ]


def _mutant(id: str, message: str, body: str, rule: str | None = None) -> Mutant:
    return Mutant(id, message, body=_HEAD + body, rule=rule)


_SPEEDS = "theta ** (-torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim)"

ROPE_COS_SIN = Check(
    exercise="rope_cos_sin",
    probes=_probes,
    reference=exact,
    baselines=(by_power, by_division, by_exponential),
    returns="a pair of tensors (cos, sin)",
    mutants=(
        Mutant(
            "interleaved",
            "The angles stand as 0, 0, 1, 1, ...: neighbours are paired. In this layout pair i is (i, i + D / 2), so the list of angles is written twice, one "
            "after the other.",
            edits=(("torch.cat((angles, angles), dim=-1)", "angles.repeat_interleave(2, dim=-1)"),),
        ),
        Mutant(
            "swapped",
            "cos and sin came back in the other order. At position 0 nothing turns: the cosine is 1.",
            edits=(("return angles.cos(), angles.sin()", "return angles.sin(), angles.cos()"),),
        ),
        _mutant(
            "counted-from-0",
            "The positions were replaced by 0, 1, 2, ...: right for a prompt, wrong for every later token. While decoding the one token that comes stands at "
            "the end of its text, and `positions` says where.",
            f"    n = torch.arange(positions.shape[-1]).expand(positions.shape)\n    a = n[..., None].float() * {_SPEEDS}\n    a = torch.cat((a, a), dim=-1)\n"
            "    return a.cos(), a.sin()\n",
        ),
        _mutant(
            "counted-from-0-in-one-row",
            "The positions were not looked at: 0, 1, 2, ... stood in their place, one list for all sequences. While decoding the one token that comes stands at "
            "the end of its text, and `positions` says where.",
            f"    n = torch.arange(positions.shape[-1]).float()\n    a = n[:, None] * {_SPEEDS}\n    a = torch.cat((a, a), dim=-1)\n    return a.cos(), a.sin()\n",
        ),
        _mutant(
            "pairs-from-1",
            "The pairs were counted from 1. i runs from 0 to D / 2 - 1: pair 0 turns by theta ** 0, which is 1 radian a position.",
            f"    a = positions[..., None].float() * {_SPEEDS} * theta ** (-2 / head_dim)\n    a = torch.cat((a, a), dim=-1)\n    return a.cos(), a.sin()\n",
        ),
        _mutant(
            "pairs-to-D",
            "i ran up to D - 1, so each of the D features has a speed of its own. There are D / 2 pairs: i stops at D / 2 - 1, and the list is written twice.",
            "    i = torch.arange(head_dim, dtype=torch.float32)\n    a = positions[..., None].float() * theta ** (-2 * i / head_dim)\n    return a.cos(), a.sin()\n",
        ),
        _mutant(
            "counted-from-1",
            "Every token was turned one position too far: positions begin at 0, and `positions` already says where each stands.",
            f"    a = (positions + 1)[..., None].float() * {_SPEEDS}\n    a = torch.cat((a, a), dim=-1)\n    return a.cos(), a.sin()\n",
        ),
        Mutant(
            "step-one",
            "The exponents run 0, 1, 2, ... over D where 0, 2, 4, ... was meant: pair i has -2 i / D, so the speeds fall from 1 almost to 1 / theta.",
            edits=(("torch.arange(0, head_dim, 2,", "torch.arange(head_dim // 2,"),),
        ),
        Mutant(
            "over-half",
            "The exponents were divided by D / 2, so the speeds fall twice as fast as they should. Pair i turns by theta ** (-2 i / D).",
            edits=((" / head_dim)  # [D / 2]", " / (head_dim // 2))  # [D / 2]"),),
        ),
        Mutant(
            "rising",
            "The speeds rise with i: the exponent has the wrong sign. The first pair turns by 1 radian a position, the last one hardly.",
            edits=(("theta ** (-torch", "theta ** (torch"),),
        ),
        _mutant(
            "every-feature-its-own",
            "D different speeds were made, one a feature. There are D / 2 pairs, and both entries of a pair turn by the same angle.",
            "    a = positions[..., None].float() * theta ** (-torch.arange(head_dim, dtype=torch.float32) / head_dim)\n    return a.cos(), a.sin()\n",
        ),
        Mutant(
            "theta-ignored",
            "Right for theta = 10,000 and for nothing else: newer models use 500,000 or 1,000,000. Use the argument.",
            edits=(("theta ** (-torch", "10_000.0 ** (-torch"),),
        ),
        Mutant(
            "degrees",
            "The angles were taken for degrees. They are radians already; torch's cos and sin expect radians.",
            edits=(("angles = torch.cat((angles, angles), dim=-1)", "angles = torch.cat((angles, angles), dim=-1).deg2rad()"),),
        ),
        _mutant(
            "half-wide",
            "That is one entry a pair. The tables are D wide: the D / 2 angles twice, one after the other, so that they fit x.",
            f"    a = positions[..., None].float() * {_SPEEDS}\n    return a.cos(), a.sin()\n",
            rule="shape",
        ),
    ),
    right=(
        _HEAD
        + "    i = torch.arange(head_dim // 2)\n    angle = positions.unsqueeze(-1) / theta ** (2 * i / head_dim)\n    angle = torch.cat([angle] * 2, -1)\n"
        "    return torch.cos(angle), torch.sin(angle)\n",
        "import math\n\n"
        + _HEAD
        + "    speeds = torch.tensor([math.exp(-math.log(theta) * 2 * (i % (head_dim // 2)) / head_dim) for i in range(head_dim)])\n"
        "    angles = torch.einsum('...n,d->...nd', positions.to(torch.float32), speeds)\n    return angles.cos(), angles.sin()\n",
        _HEAD + "    inv = 1.0 / (theta ** (torch.arange(0, head_dim, 2).float() / head_dim))\n"
        "    turned = torch.polar(torch.ones(()), positions[..., None].float() * inv)\n"
        "    return turned.real.repeat(*[1] * (positions.dim()), 2), turned.imag.repeat(*[1] * (positions.dim()), 2)\n",
        _HEAD + "    d = torch.arange(0, head_dim, 2, dtype=torch.float64)\n    angles = positions.double()[..., None] * theta ** (-d / head_dim)\n"
        "    both = lambda x: torch.cat((x, x), dim=-1).float()\n    return both(angles.cos()), both(angles.sin())\n",
    ),
)
