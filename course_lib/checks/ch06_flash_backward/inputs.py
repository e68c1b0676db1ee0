"""Arguments of the backward kernels: q, k, v as in chapter 05, a gradient that tells features and rows apart, lse and delta that belong to them."""

from collections.abc import Callable

import torch
from torch import Tensor

from course_lib.checks.ch05_flash_forward.inputs import Qkv, qkv
from course_lib.checks.ch05_flash_forward.plain import attend
from course_lib.grading.spec import Property

# Runs in the answer's process, in the answer's place. A probe lays out all its tensors alike; `apart` turns one of them round in memory.
APART = """
def run(function, *given, apart=None, **options):
    return function(*(x.mT.contiguous().mT if i == apart else x for i, x in enumerate(given)), **options)
"""


def with_dout(g: torch.Generator, given: Qkv) -> tuple[Tensor, ...]:
    """(q, k, v, dout): dout has an offset of its own in every head."""
    q, k, v = given
    dout = torch.randn(*q.shape[:3], v.shape[3], generator=g, dtype=torch.float32).to(q.dtype)
    heads = torch.arange(q.shape[0] * q.shape[1], dtype=torch.float32).reshape(q.shape[0], q.shape[1], 1, 1)
    return q, k, v, dout + (0.5 * heads).to(q.dtype)


def backward_args(g: torch.Generator, given: Qkv, scale: float | None = None, causal: bool = False, layout: str = "contiguous") -> tuple[Tensor, ...]:
    """(q, k, v, dout, lse, delta), the last two computed in float64 from what the answer will see."""
    q, k, v, dout = with_dout(g, given)
    if layout == "expanded":  # every sequence is the first one
        q, k, v, dout = (x[:1].expand_as(x) for x in (q, k, v, dout))
    out, lse = attend(q.double(), k.double(), v.double(), scale, causal)
    delta = (out * dout.double()).sum(dim=-1)
    return q, k, v, dout, lse.float(), delta.float()


def own_strides(plain: Callable[..., Tensor | tuple[Tensor, ...]], name: str, place: int) -> Property:
    """Right although one tensor lies in memory otherwise than those of its shape. place: where it stands among the arguments."""

    def holds(call, g: torch.Generator) -> str | None:
        given = backward_args(g, qkv(g, 1, 1, 40, 40, 20))
        found, wanted = call(*given, apart=place), plain(*(x.double() for x in given))
        pairs = zip(found, wanted, strict=True) if isinstance(wanted, tuple) else [(found, wanted)]
        if all((a.double() - b).abs().max().item() < 1e-3 for a, b in pairs):
            return None
        return f"{name} alone lies transposed in memory (its strides are 1 and 40), and the result is wrong"

    return Property("strides of their own", holds, "own-strides")
