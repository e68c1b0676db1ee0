"""What the backward kernels of kernels/ must give: the gradients of attention in float64, and plain orders of the same sums.

Used as `benchmarks.kernel_trials` is, and under its rule. The plain orders round where a kernel must and nowhere else: the weights and
the gradients of the scores before their products, and the results. Any mask [N_Q, N_KV] will do, so that windows and documents come the same way.
"""

import torch
from torch import Tensor

from benchmarks.kernel_trials import LOG2_E, as_the_hardware, attention_trial_masked, in_slices, mask_of, one_by_one
from course_lib import oracles


def delta_trial(out: Tensor, dout: Tensor) -> tuple[Tensor, list[Tensor]]:
    a, b = out.float(), dout.float()
    row, column = a[..., None, :], b[..., None]
    orders = [(a * b).sum(-1), (a * b).flip(-1).sum(-1), in_slices(row, column)[..., 0, 0], one_by_one(row, column)[..., 0, 0]]
    return (out.double() * dout.double()).sum(-1), orders


def gradients(q: Tensor, k: Tensor, v: Tensor, dout: Tensor, lse: Tensor, delta: Tensor, mask: Tensor | None, scale: float) -> tuple[Tensor, ...]:
    """(dq, dk, dv) by their formulas, in the dtype of the inputs. q, dout [B, H, N_Q, D]; k, v [B, H_KV, N_KV, D]."""
    group = q.shape[1] // max(1, k.shape[1])
    wide_k, wide_v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
    p = torch.exp(q @ wide_k.mT * scale - lse[..., None])
    p = p if mask is None else torch.where(mask, p, 0.0)
    ds = p * (dout @ wide_v.mT - delta[..., None])
    return ds @ wide_k * scale, _shared(ds.mT @ q * scale, group), _shared(p.mT @ dout, group)


def _shared(x: Tensor, group: int) -> Tensor:
    """The sum over the heads of queries that share a K/V head: [B, H, ...] -> [B, H_KV, ...]."""
    return x.unflatten(1, (x.shape[1] // group, group)).sum(2) if x.shape[1] else x


def backward_trial(
    q: Tensor, k: Tensor, v: Tensor, dout: Tensor, lse: Tensor, delta: Tensor, causal: bool = False, scale: float | None = None,
    mask: Tensor | None = None,
) -> tuple[tuple[Tensor, ...], list[tuple[Tensor, ...]]]:  # fmt: skip
    """(the float64 reference (dq, dk, dv) for this lse and delta, five or more plain orders of it)."""
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    mask = mask_of(q.shape[2], k.shape[2], causal, q.device) if mask is None else mask
    reference = gradients(*(x.double() for x in (q, k, v, dout, lse, delta)), mask, scale)
    return reference, plain_gradients(q, k, v, dout, lse, delta, mask, scale)


def plain_gradients(q, k, v, dout, lse, delta, mask, scale, only: int | None = None) -> list[tuple[Tensor, ...]]:
    """The plain orders, or one of them alone."""
    group = q.shape[1] // max(1, k.shape[1])
    wide_k, wide_v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
    orders, ways = [], 5 + (q.dtype != torch.float32 and q.device.type == "cuda")
    for i in range(ways) if only is None else [only]:
        raw, dp = _scores(i, q, wide_k.mT), _scores(i, dout, wide_v.mT)
        p = torch.exp(raw * scale - lse[..., None]) if i == 0 else torch.exp2(raw * (scale * LOG2_E) - (lse * LOG2_E)[..., None])
        p = p if mask is None else torch.where(mask, p, 0.0)
        ds = (p * (dp - delta[..., None])).to(q.dtype).float()
        product = _product(i, q.dtype)
        dq = product(ds, wide_k.float()) * scale
        tall = [_stacked(x, group) for x in (ds, p.to(q.dtype).float(), q.float(), dout.float())]  # the heads of a group one below the other
        dk, dv = product(tall[0].mT, tall[2]) * scale, product(tall[1].mT, tall[3])
        orders.append((dq.to(q.dtype), dk.to(q.dtype), dv.to(q.dtype)))
    return orders


def _scores(i: int, a: Tensor, b: Tensor) -> Tensor:
    """a @ b in the order of way `i`: a row with one hot key subtracts nearly equal sums, so that what rounding leaves depends on the order."""
    x, y = a.float(), b.float()
    if i == 1:
        return x.flip(-1) @ y.flip(-2)
    if i in (2, 3):
        return in_slices(x, y) if i == 2 else in_slices(x.flip(-1), y.flip(-2), 16)
    return (x @ y) if i == 0 else one_by_one(x, y) if i == 4 else as_the_hardware(a, b)[0]


def _product(i: int, dtype: torch.dtype):
    """The order in which way `i` adds up over rows or keys."""
    if i == 1:
        return lambda a, b: a.flip(-1) @ b.flip(-2)
    if i == 2:
        return lambda a, b: in_slices(a, b, 32)
    return one_by_one if i == 4 and dtype == torch.float32 else torch.matmul


def _stacked(x: Tensor, group: int) -> Tensor:
    """[B, H, N, ...] -> [B, H_KV, group * N, ...]."""
    return x.unflatten(1, (x.shape[1] // group, group)).flatten(2, 3) if x.shape[1] else x


def training_trial(
    q: Tensor, k: Tensor, v: Tensor, dout: Tensor, causal: bool = False, scale: float | None = None, mask: Tensor | None = None
) -> tuple[tuple[Tensor, ...], list[tuple[Tensor, ...]]]:
    """(float64 (out, dq, dk, dv), plain orders): a forward pass whose out and lse the backward pass then uses, as a kernel's does."""
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    mask = mask_of(q.shape[2], k.shape[2], causal, q.device) if mask is None else mask
    (out, lse), forwards = attention_trial_masked(q, k, v, mask, scale)
    exact = [x.double() for x in (q, k, v, dout)]
    reference = (out, *gradients(*exact, lse, (out * exact[3]).sum(-1), mask, scale))
    orders = []
    for one, (out, lse) in enumerate([*forwards[:3], forwards[-1]]):  # the last one adds up key by key: V far from 0 leaves more of its rounding in delta
        delta = delta_trial(out, dout)[1][one]
        ways = plain_gradients(q, k, v, dout, lse, delta, mask, scale, only=None if one == 0 else one + one // 3)
        orders += [(out, *way) for way in ways]
    return reference, orders


# ---------------------------------------------------------------- cases of benchmarks/verify_kernels.py


def saved_rows(q, k, v, dout, mask, scale) -> tuple[Tensor, Tensor]:
    """(lse, delta) float32 as a forward pass would have left them, by plain operations in float64."""
    group = q.shape[1] // max(1, k.shape[1])
    q, k, v, dout = (x.double() for x in (q, k.repeat_interleave(group, 1), v.repeat_interleave(group, 1), dout))
    return oracles.attention_lse(q, k, mask, scale).float(), (oracles.attention(q, k, v, mask, scale) * dout).sum(-1).float()


def prepared(case: dict, module, tensors: list[Tensor], config: dict):
    """(the call, its tensors, (reference, plain orders)) of a backward kernel on drawn q, k, v, dout."""
    kernel, causal, scale = case["kernel"], case["causal"], case["scale"]
    q, k, v, dout = tensors
    if kernel == "attention_delta":
        return lambda: module.attention_delta(q, dout), [q, dout], delta_trial(q, dout)
    if kernel == "flash_attention":
        return (
            lambda: trained(module.flash_attention, q, k, v, dout, causal=causal, scale=scale),
            tensors,
            training_trial(q, k, v, dout, causal, scale),
        )
    mask = mask_of(q.shape[2], k.shape[2], causal, q.device)
    lse, delta = saved_rows(q, k, v, dout, mask, q.shape[-1] ** -0.5 if scale is None else scale)
    reference, orders = backward_trial(q, k, v, dout, lse, delta, causal, scale)
    host, mine = getattr(module, kernel), (lambda both: both[1:]) if kernel.endswith("dkdv") else (lambda both: both[0])

    def call():
        return host(q, k, v, dout, lse, delta, causal=causal, scale=scale, **config)

    return call, [*tensors, lse, delta], (mine(reference), [mine(order) for order in orders])


def trained(attention, q: Tensor, k: Tensor, v: Tensor, dout: Tensor, **options) -> tuple[Tensor, ...]:
    """(out, dq, dk, dv) through autograd."""
    inputs = [x.detach().requires_grad_() for x in (q, k, v)]
    with torch.enable_grad():
        out = attention(*inputs, **options)
    return (out.detach(), *torch.autograd.grad(out, inputs, dout))
