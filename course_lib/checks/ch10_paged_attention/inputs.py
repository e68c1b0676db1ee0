"""Paged caches that separate right from nearly right: blocks in no order, strangers' blocks between them, garbage behind the last entry."""

from collections.abc import Sequence

import torch
from torch import Tensor

FAR = 2**31 - 1  # an entry that names no block
# Runs in the answer's process. v_apart: the first places of all blocks of V lie side by side, then the
# second ones: the strides of K are wrong for V, and no address shows it.
HARNESS = """
import torch

def run(function, q, k_cache, v_cache, *given, v_apart=False, **more):
    if v_apart:
        blocks, places, *row = v_cache.shape
        v_cache = torch.empty((places, blocks, *row), dtype=v_cache.dtype, device=v_cache.device).transpose(0, 1).copy_(v_cache)
    return function(q, k_cache, v_cache, *given, **more)
"""


def tables(g: torch.Generator, lengths: Sequence[int], block: int, spare: int = 2, garbage: int | None = None, common: int = 0) -> tuple[Tensor, int]:
    """(block_tables [B, MAX] int32, number of blocks): every request its own blocks, but for the first `common`, which all share.

    Entries behind the last used one: `garbage`, or other requests' blocks where None. One column more than the longest needs.
    """
    needs = [-(-n // block) for n in lengths]
    total = sum(max(0, n - common) for n in needs) + common + spare
    order = torch.randperm(total, generator=g).tolist()
    shared, rest = order[:common], order[common:]
    most = max(needs) + 1
    table = torch.randint(0, total, (len(lengths), most), generator=g, dtype=torch.int32)
    if garbage is not None:
        table[:] = garbage
    for b, n in enumerate(needs):
        mine = (shared + [rest.pop() for _ in range(max(0, n - common))])[:n]
        table[b, :n] = torch.tensor(mine, dtype=torch.int32)
    return table, total


def caches(g: torch.Generator, blocks: int, block: int, h_kv: int, d: int) -> tuple[Tensor, Tensor]:
    """Random k_cache and v_cache [blocks, block, h_kv, d]; every block and head of V has its own offset, so that a wrong one shows."""
    k, v = (torch.randn(blocks, block, h_kv, d, generator=g) for _ in range(2))
    return k, v + torch.arange(blocks).reshape(-1, 1, 1, 1) * 0.3 + torch.arange(h_kv).reshape(1, 1, -1, 1) * 0.75


def strangers_are_nan(cache: Tensor, table: Tensor, lengths: Sequence[int]) -> Tensor:
    """NaN in every place that belongs to no request."""
    flat, block = torch.full_like(cache.flatten(0, 1), torch.nan), cache.shape[1]
    for row, n in zip(table.tolist(), lengths, strict=True):
        for at in range(n):
            slot = row[at // block] * block + at % block
            flat[slot] = cache.flatten(0, 1)[slot]
    return flat.reshape(cache.shape)


def paged(
    g: torch.Generator, lengths: Sequence[int], block: int, h: int, h_kv: int, d: int, queries: Sequence[int] | None = None,
    garbage: int | None = None, common: int = 0, nan: bool = False, rising: bool = False,
) -> tuple:  # fmt: skip
    """The arguments of paged_decode, or with `queries` (a number for each request) those of paged_prefill."""
    table, total = tables(g, lengths, block, garbage=garbage, common=common)
    k, v = caches(g, total, block, h_kv, d)
    q = torch.randn(len(lengths) if queries is None else sum(queries), h, d, generator=g)
    if rising:  # scores rise along every request: each tile brings a larger maximum
        q[..., 0] = 1
        flat = k.flatten(0, 1)
        for row, n in zip(table.tolist(), lengths, strict=True):
            for at in range(n):
                flat[row[at // block] * block + at % block, :, 0] = (14 * at / max(n - 1, 1) - 7) * d**0.5
    if nan:
        k, v = strangers_are_nan(k, table, lengths), strangers_are_nan(v, table, lengths)
    count = torch.tensor(lengths, dtype=torch.int32)
    if queries is None:
        return q, k, v, table, count
    cu = torch.tensor([0, *queries]).cumsum(0).to(torch.int32)
    return q, k, v, table, cu, count, max(queries)
