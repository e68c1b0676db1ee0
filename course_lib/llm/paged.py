"""A paged KV cache with the same three methods as KVCache, and slots for everything that chapter 10 teaches.

Keys and values live in blocks, [NUM_BLOCKS, BLOCK, H_KV, D] a layer; a block table says which blocks a sequence uses, in order.
The defaults are plain torch. Knows nothing of scheduling, sharing or eviction: that is the engine's.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from course_lib.llm.cache import attend_ragged, refuse_another
from course_lib.llm.config import ModelConfig


class PagedCache:
    """Room for num_blocks x block_size tokens, shared by `batch` sequences.

    allocate       () -> a free block's number; default: 0, 1, 2, ... A BlockAllocator's method fits: allocate=allocator.allocate
    write_kv       (k, v [T, H_KV, D], k_cache, v_cache [NUM_BLOCKS, BLOCK, H_KV, D], slots [T] int64), in place
    paged_decode   (q [B, H, D], k_cache, v_cache, block_tables [B, MAX] int32, lengths [B] int32) -> [B, H, D], the new token counted
    paged_prefill  (q [T, H, D], k_cache, v_cache, block_tables, cu_q [B + 1] int32, lengths, max_q) -> [T, H, D], the new tokens counted
    """

    def __init__(
        self,
        config: ModelConfig,
        num_blocks: int,
        block_size: int = 16,
        batch: int = 1,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        allocate: Callable[[], int] | None = None,
        write_kv: Callable[..., None] | None = None,
        paged_decode: Callable[..., Tensor] | None = None,
        paged_prefill: Callable[..., Tensor] | None = None,
    ):
        if min(num_blocks, block_size, batch) < 1:
            raise ValueError(f"PagedCache: {num_blocks} blocks of {block_size} tokens for {batch} sequences; each must be at least 1")
        shape = (num_blocks, block_size, config.num_kv_heads, config.head_dim)
        self.config, self.batch, self.block_size, self.num_blocks = config, batch, block_size, num_blocks
        self.capacity = num_blocks * block_size
        self.k = [torch.zeros(shape, device=device, dtype=dtype) for _ in range(config.num_layers)]
        self.v = [torch.zeros(shape, device=device, dtype=dtype) for _ in range(config.num_layers)]
        self.tables: list[list[int]] = [[] for _ in range(batch)]  # block numbers of each sequence
        self.lengths = torch.zeros(batch, device=device, dtype=torch.int32)
        self._held = [0] * batch  # lengths, on the host
        fresh = iter(range(num_blocks))
        self._allocate = allocate or (lambda: next(fresh, -1))
        self._write, self._decode, self._prefill = write_kv or write_to_slots, paged_decode, paged_prefill
        self.block_tables, self._slots, self._after = torch.zeros(batch, 1, device=device, dtype=torch.int32), None, self.lengths

    def positions(self, n: int) -> Tensor:
        """[B, n]; allocates the blocks that n more tokens of each sequence need."""
        for table, held in zip(self.tables, self._held, strict=True):
            while len(table) * self.block_size < held + n:
                block = self._allocate()
                if not 0 <= block < self.num_blocks:
                    raise ValueError(
                        f"PagedCache: all {self.num_blocks} blocks of {self.block_size} tokens are in use; make it with more, or free some"
                    )
                table.append(block)
        device = self.lengths.device
        longest = max(map(len, self.tables))
        self.block_tables = torch.tensor([table + [0] * (longest - len(table)) for table in self.tables], device=device, dtype=torch.int32)
        places = self.lengths[:, None].long() + torch.arange(n, device=device)  # [B, n]
        self._slots = (self.block_tables.long().gather(1, places // self.block_size) * self.block_size + places % self.block_size).flatten()
        self._after = self.lengths + n
        return places

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Write k and v of the new tokens to their slots and attend."""
        B, H, N, D = q.shape
        k_cache, v_cache = self.k[layer], self.v[layer]
        refuse_another("PagedCache", v, self.batch, k_cache)
        self._write(_packed(k), _packed(v), k_cache, v_cache, self._slots)
        if N == 1 and self._decode is not None:
            return self._decode(q[:, :, 0], k_cache, v_cache, self.block_tables, self._after)[:, :, None]
        if N > 1 and self._prefill is not None:
            cu_q = torch.arange(0, B * N + 1, N, device=q.device, dtype=torch.int32)
            out = self._prefill(_packed(q), k_cache, v_cache, self.block_tables, cu_q, self._after, N)
            return out.view(B, N, H, D).transpose(1, 2)
        return attend_ragged(q, gathered(k_cache, self.block_tables), gathered(v_cache, self.block_tables), self.lengths)

    def advance(self, n: int) -> None:
        """n more tokens of every sequence count."""
        self.lengths += n
        self._held = [held + n for held in self._held]


def _packed(x: Tensor) -> Tensor:
    """[B, H, N, D] -> [B * N, H, D], contiguous."""
    return x.transpose(1, 2).flatten(0, 1).contiguous()


def write_to_slots(k: Tensor, v: Tensor, k_cache: Tensor, v_cache: Tensor, slots: Tensor) -> None:
    """k, v [T, H_KV, D] to the rows `slots` [T] of the caches, counted over all blocks; in place."""
    k_cache.view(-1, *k.shape[1:])[slots] = k
    v_cache.view(-1, *v.shape[1:])[slots] = v


def gathered(cache: Tensor, block_tables: Tensor) -> Tensor:
    """A cache [NUM_BLOCKS, BLOCK, H_KV, D] as each sequence sees it: [B, H_KV, MAX * BLOCK, D]."""
    return cache[block_tables.long()].flatten(1, 2).transpose(1, 2)
