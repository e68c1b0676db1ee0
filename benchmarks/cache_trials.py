"""What the kernels over a cache must give: caches filled as an engine leaves them, float64 references, plain orders of the same sums.

Used by tests/test_kernels_decode.py and tests/test_kernels_paged.py (in the interpreter) and by benchmarks/verify_decode.py (on a GPU);
the verdict is `benchmarks.kernel_trials.verdict`. Whatever no kernel may read holds NaN, and table entries past a length hold nonsense.
"""

import torch
from torch import Tensor

from benchmarks.kernel_trials import attention_trial

NONSENSE = (-1, 2**31 - 1, -(2**31), 10**6)


def dense_cache(x: Tensor, lengths: list[int]) -> Tensor:
    """x [B, H_KV, N_MAX, D] with NaN past each length."""
    x = x.clone()
    for b, length in enumerate(lengths):
        x[b, :, length:] = torch.nan
    return x


def paged_cache(k: Tensor, v: Tensor, lengths: list[int], block: int, spare: int = 3, seed: int = 0, wide: int = 2) -> tuple[Tensor, Tensor, Tensor]:
    """(k_cache, v_cache [NUM_BLOCKS, BLOCK, H_KV, D], block_tables [B, MAX] int32) of k, v [B, H_KV, N, D]: blocks in random order, `spare` of
    them free, `wide` columns of the table more than any request needs."""
    B, H_KV, _, D = k.shape
    counts = [-(-length // block) for length in lengths]
    order = torch.randperm(sum(counts) + spare, generator=torch.Generator().manual_seed(seed)).tolist()
    caches = [torch.full((len(order), block, H_KV, D), torch.nan, dtype=k.dtype, device=k.device) for _ in "kv"]
    rows = [[NONSENSE[(b + i) % len(NONSENSE)] for i in range(max(counts, default=0) + wide)] for b in range(B)]
    for b, length in enumerate(lengths):
        for i in range(counts[b]):
            rows[b][i] = order.pop()
            part = slice(i * block, min(length, (i + 1) * block))
            for cache, x in zip(caches, (k, v), strict=True):
                cache[rows[b][i], : part.stop - part.start] = x[b, :, part].transpose(0, 1)
    return *caches, torch.tensor(rows, dtype=torch.int32, device=k.device).reshape(B, -1)


def decode_trial(q: Tensor, k: Tensor, v: Tensor, lengths: list[int], scale: float | None = None) -> tuple[tuple, list[tuple]]:
    """(the float64 reference (out [B, H, D], lse [B, H]), plain orders of it) of q [B, H, D] over the first lengths[b] keys of k, v."""
    parts = _trials([(q[b : b + 1, :, None], k[b : b + 1, :, :length], v[b : b + 1, :, :length]) for b, length in enumerate(lengths)], False, scale)

    def joined(pairs) -> tuple[Tensor, Tensor]:
        return torch.cat([out[:, :, 0] for out, _ in pairs]), torch.cat([lse[:, :, 0] for _, lse in pairs])

    return joined([reference for reference, _ in parts]), [joined(one) for one in zip(*(orders for _, orders in parts), strict=True)]


def prefill_trial(q: Tensor, k: Tensor, v: Tensor, counts: list[int], lengths: list[int], scale: float | None = None) -> tuple[Tensor, list[Tensor]]:
    """(the float64 reference [T, H, D], plain orders of it) of packed q [T, H, D], counts[b] rows a request, causal bottom-right."""
    rows = [part.transpose(0, 1)[None] for part in q.split(counts)]
    keys = [(k[b : b + 1, :, :length], v[b : b + 1, :, :length]) for b, length in enumerate(lengths)]
    parts = _trials([(queries, *pair) for queries, pair in zip(rows, keys, strict=True)], True, scale)

    def packed(pairs) -> Tensor:
        return torch.cat([out[0].transpose(0, 1) for out, _ in pairs])

    return packed([reference for reference, _ in parts]), [packed(one) for one in zip(*(orders for _, orders in parts), strict=True)]


def _trials(requests: list[tuple[Tensor, Tensor, Tensor]], causal: bool, scale: float | None) -> list[tuple[tuple, list[tuple]]]:
    """`attention_trial` of each (q, k, v); one without queries or keys gets out 0 and lse -inf from every order, and no product is asked for."""
    asked = [attention_trial(*request, causal, scale) if request[0].numel() and request[1].numel() else None for request in requests]
    orders = max((len(one[1]) for one in asked if one), default=3)
    return [one or _empty(q, orders) for one, (q, _, _) in zip(asked, requests, strict=True)]


def _empty(q: Tensor, orders: int) -> tuple[tuple, list[tuple]]:
    def made(dtype: torch.dtype, wide: torch.dtype) -> tuple[Tensor, Tensor]:
        return torch.zeros_like(q, dtype=dtype), torch.full(q.shape[:3], -torch.inf, dtype=wide, device=q.device)

    return made(torch.float64, torch.float64), [made(q.dtype, torch.float32)] * orders


def rope_trial(x: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, list[Tensor]]:
    """(the float64 reference, plain orders of it) of x [B, H, N, D] turned by cos, sin [N, D] or [B, 1, N, D]."""

    def turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        half = x.shape[-1] // 2
        return x * cos + torch.cat((-x[..., half:], x[..., :half]), -1) * sin

    def by_halves(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        (x1, x2), (c1, c2), (s1, s2) = (y.chunk(2, -1) for y in (x, cos, sin))
        return torch.cat((x1 * c1 - x2 * s1, torch.addcmul(x2 * c2, x1, s2)), -1)

    wide = [y.float() for y in (x, cos, sin)]
    orders = [turned(*wide).to(x.dtype), by_halves(*wide).to(x.dtype), turned(*(y.to(x.dtype) for y in (x, cos, sin)))]
    return turned(*(y.double() for y in (x, cos, sin))), orders
