"""Writing K and V of new tokens to their slots: the one place where a paged cache is filled.

Notebook   10 Paged attention
Reference  k_cache.flatten(0, 1)[slots] = k
Paper      Kwon et al. 2023 (PagedAttention), section 5.1 (the first of its kernels)
Shapes     k, v [T, H_KV, D]; k_cache, v_cache [NUM_BLOCKS, BLOCK, H_KV, D]; slots [T] int64; any strides
Grid       (ceil(T * H_KV / ROWS),): a program copies ROWS rows of D elements, of K and of V

    slot = slots[token]                          block * BLOCK + place in the block
    k_cache[slot // BLOCK, slot % BLOCK, head] = k[token, head];  the same for v
    a slot that is not in the cache is skipped   -1 pads a step to the size that a CUDA graph was recorded with
"""

import torch
import triton
import triton.language as tl

from kernels.launching import power_of_two, require, require_floats

TARGETS = (75, 80, 86, 89, 90, 100, 120)


def config_for(D: int) -> dict:
    """About 4,096 elements of K, and as many of V, a program."""
    BLOCK_D = power_of_two(D)
    return {"ROWS": max(1, 4096 // BLOCK_D), "BLOCK_D": BLOCK_D, "num_warps": 4}


@triton.jit(do_not_specialize=["T", "NUM_SLOTS"])  # a step of 1 or 16 tokens needs no other code
def write_kv_kernel(
    k_ptr, v_ptr, k_cache_ptr, v_cache_ptr, slots_ptr, k_strides, v_strides, k_cache_strides, v_cache_strides, slots_stride, T, H_KV,
    NUM_SLOTS, BLOCK, D: tl.constexpr, ROWS: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    # 1. who am I
    rows = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)  # [ROWS]
    # 2. where is my data
    token, head = (rows // H_KV)[:, None], (rows % H_KV)[:, None]
    columns = tl.arange(0, BLOCK_D).to(tl.int64)[None, :]
    slot = tl.load(slots_ptr + token * slots_stride, mask=token < T, other=-1)  # [ROWS, 1]
    inside = (slot >= 0) & (slot < NUM_SLOTS) & (columns < D)
    block, place = slot // BLOCK, slot % BLOCK
    # 3. load
    k = tl.load(k_ptr + token * k_strides[0] + head * k_strides[1] + columns * k_strides[2], mask=inside)  # [ROWS, BLOCK_D]
    v = tl.load(v_ptr + token * v_strides[0] + head * v_strides[1] + columns * v_strides[2], mask=inside)
    # 4. write
    k_at = block * k_cache_strides[0] + place * k_cache_strides[1] + head * k_cache_strides[2] + columns * k_cache_strides[3]
    v_at = block * v_cache_strides[0] + place * v_cache_strides[1] + head * v_cache_strides[2] + columns * v_cache_strides[3]
    tl.store(k_cache_ptr + k_at, k, mask=inside)
    tl.store(v_cache_ptr + v_at, v, mask=inside)


def write_kv(k: torch.Tensor, v: torch.Tensor, k_cache: torch.Tensor, v_cache: torch.Tensor, slots: torch.Tensor, config: dict | None = None) -> None:
    """k and v of new tokens into the caches, in place.

    k, v     [T, H_KV, D] float16, bfloat16 or float32, any strides
    k_cache, v_cache  [NUM_BLOCKS, BLOCK, H_KV, D], same dtype, any strides
    slots    [T] int64, on the device: block * BLOCK + place; different ones (of two alike, either token may be the one that stays).
             One that is negative or past the cache is skipped
    """
    require_floats("write_kv", k=k, v=v, k_cache=k_cache, v_cache=v_cache)
    fits = k.dim() == 3 and k.shape == v.shape and k_cache.dim() == 4 and k_cache.shape == v_cache.shape and k.shape[1:] == k_cache.shape[2:]
    require(fits, "write_kv", "k, v must be [T, H_KV, D] and the caches [NUM_BLOCKS, BLOCK, H_KV, D]", k=k, v=v, k_cache=k_cache, v_cache=v_cache)
    indices = slots.shape == k.shape[:1] and slots.dtype == torch.int64 and slots.device == k.device
    require(indices, "write_kv", "slots must be [T] int64, on the device of k", k=k, slots=slots)
    (T, H_KV, D), (NUM_BLOCKS, BLOCK) = k.shape, k_cache.shape[:2]
    require(D <= 1024, "write_kv", "the head size D must be at most 1,024", k=k)
    if k.numel() and NUM_BLOCKS * BLOCK:
        config = config or config_for(D)
        write_kv_kernel[(triton.cdiv(T * H_KV, config["ROWS"]),)](
            k, v, k_cache, v_cache, slots, k.stride(), v.stride(), k_cache.stride(), v_cache.stride(), slots.stride(0), T, H_KV,
            NUM_BLOCKS * BLOCK, BLOCK, D=D, **config,
        )  # fmt: skip
