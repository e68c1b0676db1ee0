"""The races of the backward pass: all of it against its peers, and each of the two large kernels alone, for `course_lib.tune`.

FLOPs are 2.5 times the forward pass's for all of it, five products; dkdv alone computes four of them and dq three, since both compute
the scores and dP again. What is compared are some rows of dq, dk and dv in float64; not those rows of a causal pass that see few
others, whose gradients are differences of nearly equal numbers.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from course_lib import peers_backward
from course_lib.races import Contestant, Race

PICKED = 64  # rows of each gradient that are compared, of each head


def flash_backward(s) -> list[Race]:
    return [_race(s, "flash_backward", 5, slice(0, 3), _whole(causal), causal, *size) for causal, *size in sizes(s)]


def flash_backward_dkdv(s) -> list[Race]:
    return [_race(s, "flash_backward_dkdv", 4, slice(1, 3), _dkdv(causal), causal, *size) for causal, *size in sizes(s)]


def flash_backward_dq(s) -> list[Race]:
    return [_race(s, "flash_backward_dq", 3, slice(0, 1), _dq(causal), causal, *size) for causal, *size in sizes(s)]


def sizes(s) -> list[tuple]:
    """(causal, B, H, N, D): 16K tokens of width 2,048 in all, as for the forward pass."""
    lengths = s.choose((4096, 16384), (4096,), (512,), (150,))
    heads = (64, 128) if not (s.device == "cpu" and s.quick) else (64,)
    tokens, width = (lengths[0], 128) if s.device == "cpu" else (16384, 2048)
    return [(causal, max(1, tokens // N), max(1, width // D), N, D) for D in heads for causal in (False, True) for N in lengths]


def _race(s, kernel: str, products: int, mine: slice, course: Contestant, causal: bool, B: int, H: int, N: int, D: int) -> Race:
    """A race whose output is the gradients `mine` of (dq, dk, dv), one below the other."""
    at, few = _compared(s, N, causal)
    rows = [at + few, at, at][mine]
    tensor, pairs = B * H * N * D * s.dtype.itemsize, B * H * N * N // (2 if causal else 1)
    everybody = peers_backward.usual(N, causal, s.device) if kernel == "flash_backward" else ()
    return Race(
        kernel, {"D": D, "causal": causal, "B": B, "H": H, "N": N},
        lambda g: tuple(s.normal(g, B, H, N, D) for _ in range(4)),
        contestants=(course, *everybody),
        exact=lambda *inputs: torch.cat(gradient_rows(*inputs, at + few, at, causal, torch.float64)[mine], 2),
        plain=(lambda *inputs: torch.cat(gradient_rows(*inputs, at + few, at, causal, inputs[0].dtype)[mine], 2),),
        bytes=tensor * {5: 8, 4: 6, 3: 5}[products] + 4 * B * H * N * (1 if products == 5 else 2), flops=2 * products * pairs * D, ceiling=s.rate,
        pick=lambda out: torch.cat([part[:, :, row] for part, row in zip(out.split(N, 2), rows, strict=True)], 2),
        exponentials=pairs * (2 if products == 5 else 1),
    )  # fmt: skip


def _compared(s, N: int, causal: bool) -> tuple[Tensor, int]:
    """(keys whose gradients are compared, how much further on the queries lie): the last queries see most keys, most queries the first keys."""
    few = N // 2 if causal else 0
    return torch.randperm(N - few, generator=torch.Generator().manual_seed(0))[:PICKED].sort().values.to(s.device), few


def flash_race(
    s, kernel: str, backward: bool, causal: bool, B: int, H: int, N: int, D: int, window: int | None = None, changes: tuple = (None,)
) -> Race:
    """A race of a variant without its contestants: forward, or forward's gradients one below the other, of q, k, v (dout) [B, H, N, D].

    window   keys that a query sees, or None
    changes  functions of (scaled scores [N, N] of a head, its number), ways to compute one change of them, the first one exact in float64
    """
    at, few = _compared(s, N, causal)
    tensor = B * H * N * D * s.dtype.itemsize
    pairs = B * H * (N * N // (2 if causal else 1) if window is None else window * N - window * (window - 1) // 2)
    size = {"D": D, "causal": causal, "B": B, "H": H, "N": N} | ({"window": window} if window else {})

    def exact(dtype: torch.dtype, change: Callable | None, *inputs: Tensor) -> Tensor:
        if backward:
            return torch.cat(gradient_rows(*inputs, at + few, at, causal, dtype, window), 2)
        heads = [_out_of_head(*(x[b, h].to(dtype) for x in inputs[:3]), h, at, causal, window, change) for b in range(B) for h in range(H)]
        return torch.stack(heads).unflatten(0, (B, H))

    def picked(out: Tensor) -> Tensor:
        return torch.cat([part[:, :, row] for part, row in zip(out.split(N, 2), (at + few, at, at), strict=True)], 2) if backward else out[:, :, at]

    return Race(
        kernel, size, lambda g: tuple(s.normal(g, B, H, N, D) for _ in range(4 if backward else 3)), (),
        exact=partial(exact, torch.float64, changes[0]), plain=tuple(lambda *inputs, way=way: exact(inputs[0].dtype, way, *inputs) for way in changes),
        bytes=tensor * (8 if backward else 4) + 4 * B * H * N, flops=(10 if backward else 4) * pairs * D, ceiling=s.rate, pick=picked,
        exponentials=pairs * (2 if backward else 1),
    )  # fmt: skip


def with_contestants(race: Race, *contestants: Contestant) -> Race:
    return replace(race, contestants=contestants)


def _hidden(N: int, causal: bool, window: int | None, device) -> Tensor | None:
    """[N, N] bool, True = hidden."""
    if not causal:
        return None
    hidden = torch.ones(N, N, dtype=torch.bool, device=device).triu_(1)
    return hidden if window is None else hidden.logical_or_(torch.ones_like(hidden).tril_(-window))


def _out_of_head(q: Tensor, k: Tensor, v: Tensor, h: int, at: Tensor, causal: bool, window: int | None, change: Callable | None) -> Tensor:
    s = q @ k.mT * q.shape[-1] ** -0.5
    s = s if change is None else change(s, h)
    hidden = _hidden(len(q), causal, window, q.device)
    return torch.softmax(s if hidden is None else s.masked_fill_(hidden, -torch.inf), -1)[at] @ v


def gradient_rows(
    q: Tensor, k: Tensor, v: Tensor, dout: Tensor, queries: Tensor, keys: Tensor, causal: bool, dtype: torch.dtype, window: int | None = None
) -> list[Tensor]:
    """[dq of some queries, dk of some keys, dv of those keys], one head at a time by the formulas, in this dtype."""
    found = []
    for b in range(q.shape[0]):
        for h in range(q.shape[1]):
            found.append(_of_head(*(x[b, h].to(dtype) for x in (q, k, v, dout)), queries, keys, _hidden(q.shape[2], causal, window, q.device)))
    return [torch.stack(parts).unflatten(0, q.shape[:2]) for parts in zip(*found, strict=True)]


def _of_head(q: Tensor, k: Tensor, v: Tensor, dout: Tensor, queries: Tensor, keys: Tensor, hidden: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    scale = q.shape[-1] ** -0.5
    s = q @ k.mT * scale
    if hidden is not None:
        s = s.masked_fill_(hidden, -torch.inf)
    p = torch.softmax(s, -1)
    delta = (p @ v * dout).sum(-1, keepdim=True)
    of_queries = p[queries] * (dout[queries] @ v.mT - delta[queries])
    p = p[:, keys]
    of_keys = p * (dout @ v[keys].mT - delta)
    return of_queries @ k * scale, of_keys.mT @ q * scale, p.mT @ dout


# ---------------------------------------------------------------- the course's own


def _saved(causal: bool, q: Tensor, k: Tensor, v: Tensor, dout: Tensor) -> tuple:
    """What the forward pass leaves, untimed: q, k, v, dout, out, lse."""
    from kernels.flash_forward import flash_attention_forward

    return q, k, v, dout, *flash_attention_forward(q, k, v, causal)


def _with_delta(causal: bool, *inputs: Tensor) -> tuple:
    from kernels.attention_delta import attention_delta

    *tensors, out, lse = _saved(causal, *inputs)
    return *tensors, lse, attention_delta(out, tensors[3])


def backward(q: Tensor, k: Tensor, v: Tensor, dout: Tensor, out: Tensor, lse: Tensor, causal: bool) -> tuple[Tensor, Tensor, Tensor]:
    """delta, dk and dv, dq: three launches, as `kernels.flash_attention` makes them."""
    from kernels.attention_delta import attention_delta
    from kernels.flash_backward_dkdv import flash_backward_dkdv as dkdv
    from kernels.flash_backward_dq import flash_backward_dq as dq

    delta = attention_delta(out, dout)
    dk, dv = dkdv(q, k, v, dout, lse, delta, causal)
    return dq(q, k, v, dout, lse, delta, causal), dk, dv


def saved(causal: bool) -> Callable:
    return partial(_saved, causal)


def whole(causal: bool) -> Callable:
    return partial(backward, causal=causal)


def _whole(causal: bool) -> Contestant:
    return Contestant("course", lambda: whole(causal), True, arrange=saved(causal), output=peers_backward.one_tensor)


def _dkdv(causal: bool) -> Contestant:
    from kernels.flash_backward_dkdv import flash_backward_dkdv as dkdv

    return Contestant(
        "course", lambda: partial(dkdv, causal=causal), True, arrange=partial(_with_delta, causal), output=lambda pair: torch.cat(pair, 2)
    )


def _dq(causal: bool) -> Contestant:
    from kernels.flash_backward_dq import flash_backward_dq as dq

    return Contestant("course", lambda: partial(dq, causal=causal), True, arrange=partial(_with_delta, causal))
