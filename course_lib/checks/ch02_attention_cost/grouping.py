"""Grading material: expand_kv_heads."""

import torch
from torch import Tensor

from course_lib.checks.ch02_attention_cost.inputs import normal
from course_lib.grading.spec import Check, Mutant, Probe


def by_index(x: Tensor, heads: int) -> Tensor:
    return x[:, torch.arange(heads) // (heads // x.shape[1])]


def by_interleave(x: Tensor, heads: int) -> Tensor:
    return torch.repeat_interleave(x, heads // x.shape[1], dim=1)


def by_stack(x: Tensor, heads: int) -> Tensor:
    return torch.stack([x[:, h * x.shape[1] // heads] for h in range(heads)], dim=1)


def _kv(g: torch.Generator, b: int, h_kv: int, n: int, d: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """[b, h_kv, n, d] with an offset a head: heads cannot be confused."""
    return (normal(g, b, h_kv, n, d) + 10 * torch.arange(h_kv)[:, None, None]).to(dtype)


def _probes(g: torch.Generator) -> list[Probe]:
    axes = ("batch", "head", "key", "feature")
    return [
        Probe("2 K/V heads for 6 query heads", (_kv(g, 2, 2, 3, 4), 6), axes=axes),
        Probe("3 K/V heads for 6 query heads", (_kv(g, 2, 3, 5, 4), 6), axes=axes),
        Probe("2 K/V heads for 8 query heads", (_kv(g, 3, 2, 5, 2), 8), axes=axes),
        Probe("4 K/V heads for 8 query heads", (_kv(g, 1, 4, 3, 5), 8), axes=axes),
        Probe("not contiguous", (_kv(g, 2, 2, 5, 3), 4), layout="transposed", axes=axes, diagnose=False),
        Probe("float16 in, float16 out", (_kv(g, 2, 5, 4, 3, torch.float16), 10), axes=axes, diagnose=False),
    ]


def _mutant(id: str, message: str, line: str, rule: str | None = None) -> Mutant:
    head = "def expand_kv_heads(x, heads):\n    b, h_kv, n, d = x.shape\n    group = heads // h_kv\n"
    return Mutant(id, message, body=f"{head}    {line}\n", rule=rule)


EXPAND_KV_HEADS = Check(
    exercise="expand_kv_heads",
    probes=_probes,
    reference=by_index,
    baselines=(by_index, by_interleave, by_stack),
    mutants=(
        _mutant(
            "dealt-round",
            (
                "The K/V heads were dealt out in turn: head h reads K/V head h % H_KV. That is what `repeat` does. In a group neighbours share: "
                "0, 0, 0, 1, 1, 1 and not 0, 1, 0, 1, 0, 1."
            ),
            "return x.repeat(1, group, 1, 1)",
        ),
        _mutant(
            "first-head",
            "Every query head reads the first K/V head: the others were lost. That is multi-query attention only when there is no other.",
            "return x[:, :1].repeat(1, heads, 1, 1)",
        ),
        _mutant(
            "divided-by-heads",
            (
                "h was divided by the number of K/V heads where the size of a group was meant. Try 2 K/V heads for 6 query heads: "
                "a group has 3, and heads 0, 1, 2 belong to the first."
            ),
            "return x[:, (torch.arange(heads) // h_kv).clamp(max=h_kv - 1)]",
        ),
        _mutant(
            "divided-by-heads-unclamped",
            (
                "h was divided by the number of K/V heads where the size of a group was meant. Try 2 K/V heads for 6 query heads: "
                "a group has 3, and heads 0, 1, 2 belong to the first."
            ),
            "return x[:, [h // h_kv % h_kv for h in range(heads)]]",
        ),
        _mutant(
            "batch-mixed",
            (
                "The shape is right and the batches are mixed up: the copies were made along the batch dimension, then reshaped into heads. "
                "A reshape keeps the order of the numbers in memory: copy along the heads."
            ),
            "return x.repeat(group, 1, 1, 1).reshape(b, heads, n, d)",
        ),
        _mutant(
            "keys-repeated",
            (
                "The shape is right and the tokens are not: each key was copied in place and the result reshaped into heads. Each K/V head has to be "
                "copied whole."
            ),
            "return x.repeat_interleave(group, dim=2).reshape(b, heads, n, d)",
        ),
        _mutant(
            "backwards",
            "The heads are in reverse order: head 0 reads the last K/V head.",
            "return x.flip(1).repeat_interleave(group, dim=1)",
        ),
        _mutant(
            "wrong-dimension",
            "Only the heads grow, dimension 1: [B, H_KV, N, D] becomes [B, H, N, D]. The copies number H / H_KV, not H.",
            "return x.repeat_interleave(group, dim=2)",
            rule="shape",
        ),
    ),
    right=(
        """\
def expand_kv_heads(x, heads):
    b, h_kv, n, d = x.shape
    return x[:, :, None].expand(b, h_kv, heads // h_kv, n, d).reshape(b, heads, n, d)
""",
        """\
def expand_kv_heads(x, heads):
    group = heads // x.size(1)
    return torch.stack([x] * group, dim=2).flatten(1, 2)
""",
        """\
def expand_kv_heads(x, heads):
    group = heads // x.shape[1]
    return torch.cat([x[:, h // group][:, None] for h in range(heads)], dim=1)
""",
        """\
def expand_kv_heads(x, heads):
    b, h_kv, n, d = x.shape
    return x.repeat(1, 1, heads // h_kv, 1).reshape(b, heads, n, d)
""",
    ),
)
