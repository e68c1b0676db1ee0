"""Paged prefill: several queries a request over its part-filled paged cache, their own keys already written there.

Notebook   10 Paged attention
Reference  course_lib.oracles.attention, causal bottom-right, request by request
Paper      Kwon et al. 2023 (PagedAttention); the packed rows of a group are Flash-Decoding's, for more than one query
Shapes     q, out [T, H, D] packed; k_cache, v_cache [NUM_BLOCKS, BLOCK, H_KV, D]; block_tables [B, MAX], cu_q [B + 1], lengths [B] int32
Grid       (tiles of max_q * GROUP rows * H_KV * B,): depends on no length; a tile past its request ends at once

    row r of a tile is query r // GROUP, head r % GROUP of the group     K and V are read once for all of them
    query i of n sees the keys 0 .. i + length - n                       chunked prefill, a prefix hit, verification: all are this
    for each tile of keys up to the last that a row sees:                whole tiles first, then those that need the mask: all of them do
                                                                         where an entry of the table names no block
        block = table[at // BLOCK];  k, v = cache[block, at % BLOCK]
        fold as in flash_forward
"""

import torch
import triton
import triton.language as tl

from kernels.decoding import require_decode, require_group, require_paged
from kernels.launching import choose, power_of_two, require

# head size -> KiB of shared memory a block needs -> tiles; by a sweep on an H200, compiled for the others. Deep pipelines: the table delays every load
CONFIGS = {
    64: {
        66: {"BLOCK_M": 64, "BLOCK_N": 64, "num_warps": 4, "num_stages": 5},
        24: {"BLOCK_M": 64, "BLOCK_N": 32, "num_warps": 8, "num_stages": 1},
        0: {"BLOCK_M": 32, "BLOCK_N": 32, "num_warps": 4, "num_stages": 1},
    },
    128: {
        164: {"BLOCK_M": 128, "BLOCK_N": 64, "num_warps": 8, "num_stages": 7},
        96: {"BLOCK_M": 64, "BLOCK_N": 64, "num_warps": 8, "num_stages": 4},
        0: {"BLOCK_M": 16, "BLOCK_N": 16, "num_warps": 8, "num_stages": 1},
    },
    256: {
        164: {"BLOCK_M": 128, "BLOCK_N": 32, "num_warps": 8, "num_stages": 5},
        96: {"BLOCK_M": 16, "BLOCK_N": 32, "num_warps": 4, "num_stages": 3},
        0: {"BLOCK_M": 16, "BLOCK_N": 16, "num_warps": 4, "num_stages": 1},
    },
}
FEW = {"BLOCK_M": 16, "BLOCK_N": 64, "num_warps": 4, "num_stages": 5}  # rows of a step that verifies or prefills a few tokens
ENTRIES = tl.constexpr(256)  # of a table, looked at in one step
TARGETS = (75, 80, 86, 89, 90, 100, 120)


@triton.jit(do_not_specialize=["T", "NUM_BLOCKS", "MAX", "max_q"])  # a step of 1 or 16 tokens needs no other code
def paged_prefill_kernel(
    q_ptr, k_ptr, v_ptr, tables_ptr, cu_ptr, lengths_ptr, out_ptr, q_strides, k_strides, v_strides, tables_strides, cu_stride, lengths_stride,
    T, H, NUM_BLOCKS, MAX, max_q, scale, GROUP: tl.constexpr, D: tl.constexpr, BLOCK: tl.constexpr, OFFSET: tl.constexpr,
    BLOCK_D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    # 1. who am I
    tiles = tl.cdiv(max_q * GROUP, BLOCK_M)
    tile = tiles - 1 - tl.program_id(0) % tiles  # the tile with the most keys starts first
    h_kv = (tl.program_id(0) // tiles % (H // GROUP)).to(tl.int64)
    b = (tl.program_id(0) // tiles // (H // GROUP)).to(tl.int64)
    # 2. where is my data
    begin = min(max(tl.load(cu_ptr + b * cu_stride), 0), T)
    n = min(min(max(tl.load(cu_ptr + (b + 1) * cu_stride), 0), T) - begin, max_q)  # queries of this request
    length = min(max(tl.load(lengths_ptr + b * lengths_stride), 0), MAX * BLOCK)
    rows = tile * BLOCK_M + tl.arange(0, BLOCK_M)  # [BLOCK_M]
    queries, heads = rows // GROUP, h_kv * GROUP + rows % GROUP
    keys = tl.arange(0, BLOCK_N)  # [BLOCK_N], of the first tile
    columns = tl.arange(0, BLOCK_D)  # [BLOCK_D]
    in_head = columns < D
    mine = (queries < n)[:, None] & in_head[None, :]
    token = (begin + queries).to(tl.int64)
    k_head = k_ptr + h_kv * k_strides[2] + columns[None, :] * k_strides[3]
    v_head = v_ptr + h_kv * v_strides[2] + columns[None, :] * v_strides[3]
    table = tables_ptr + b * tables_strides[0]
    # 3. initialise
    q_ptrs = q_ptr + token[:, None] * q_strides[0] + heads[:, None] * q_strides[1] + columns[None, :] * q_strides[2]
    q = tl.load(q_ptrs, mask=mine, other=0.0)  # [BLOCK_M, BLOCK_D]
    row_max = tl.full([BLOCK_M], float("-inf"), tl.float32)
    row_sum = tl.zeros([BLOCK_M], tl.float32)
    acc = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)
    # 4. loop: keys below `full` are seen by every row, keys from `last` on by none
    shift = length - n
    full = min(length, max(0, tile * BLOCK_M // GROUP + shift + 1)) // BLOCK_N * BLOCK_N
    last = min(length, max(0, (tile * BLOCK_M + BLOCK_M - 1) // GROUP + shift + 1))
    last = tl.where(tile * BLOCK_M < n * GROUP, last, 0)
    full = min(full, last)
    sound = tl.full([ENTRIES], 1, tl.int1)  # whether every entry behind the whole tiles names a block: then they need no mask at all
    for entry in range(0, tl.cdiv(full, BLOCK), ENTRIES):
        entries = entry + tl.arange(0, ENTRIES)
        block = tl.load(table + entries * tables_strides[1], mask=entries < tl.cdiv(full, BLOCK), other=0)  # [ENTRIES]
        sound = sound & (block >= 0) & (block < NUM_BLOCKS)
    full = tl.where(tl.min(sound.to(tl.int32), 0) == 1, full, 0)
    for MASKED in tl.static_range(2):  # compiled twice: whole tiles first, then those that need the mask
        for start in range(full if MASKED else 0, last if MASKED else full, BLOCK_N):
            at = start + keys
            inside = in_head[None, :]  # the keys of a whole tile are all there
            if MASKED:
                block = tl.load(table + at // BLOCK * tables_strides[1], mask=at < last, other=-1).to(OFFSET)  # [BLOCK_N]
                visible = (block >= 0) & (block < NUM_BLOCKS)
                inside = inside & visible[:, None]
            else:
                block = tl.load(table + at // BLOCK * tables_strides[1]).to(OFFSET)
            k = tl.load(k_head + (block * k_strides[0] + at % BLOCK * k_strides[1])[:, None], mask=inside, other=0.0)  # [BLOCK_N, BLOCK_D]
            s = tl.dot(q, k.T, input_precision="ieee")  # [BLOCK_M, BLOCK_N]
            if MASKED:
                s = tl.where(visible[None, :] & (at[None, :] <= queries[:, None] + shift), s, float("-inf"))
            new_max = tl.maximum(row_max, tl.max(s, 1) * scale)  # in units of log2: exp2 is the instruction there is
            base = new_max
            if MASKED:
                base = tl.where(new_max == float("-inf"), 0.0, new_max)  # -inf - -inf is NaN: a row without keys stays 0
            p = tl.exp2(s * scale - base[:, None])  # [BLOCK_M, BLOCK_N]
            shrink = tl.exp2(row_max - base)
            row_max = new_max
            row_sum = row_sum * shrink + tl.sum(p, 1)
            v = tl.load(v_head + (block * v_strides[0] + at % BLOCK * v_strides[1])[:, None], mask=inside, other=0.0)  # [BLOCK_N, BLOCK_D]
            acc = tl.dot(p.to(v.dtype), v, acc * shrink[:, None], input_precision="ieee")  # [BLOCK_M, BLOCK_D]
    # 5. write
    row_sum = tl.where(row_sum == 0.0, 1.0, row_sum)  # a row without keys: out 0
    out_ptrs = out_ptr + (token[:, None] * H + heads[:, None]) * D + columns[None, :]
    tl.store(out_ptrs, (acc / row_sum[:, None]).to(out_ptr.dtype.element_ty), mask=mine)


def paged_prefill(
    q: torch.Tensor, k_cache: torch.Tensor, v_cache: torch.Tensor, block_tables: torch.Tensor, cu_q: torch.Tensor, lengths: torch.Tensor,
    max_q: int, scale: float | None = None, config: dict | None = None,
) -> torch.Tensor:  # fmt: skip
    """Causal attention of packed queries over paged caches that already hold their keys.

    q        [T, H, D] float16, bfloat16 or float32, D at most 256, any strides: request b has rows cu_q[b] .. cu_q[b + 1] - 1
    k_cache, v_cache  [NUM_BLOCKS, BLOCK, H_KV, D], same dtype, any strides; BLOCK a power of two, 1 to 256; H is a multiple of H_KV
    block_tables  [B, MAX] int32; entries past a length are never read, keys behind one that names no block are hidden
    cu_q, lengths  [B + 1], [B] int32, on the device; lengths count all keys of a request, those of its queries included
    max_q    queries of a request at most; the rows of `out` past it, and those of no request, are not written
    returns  [T, H, D] as q, contiguous; a row that sees no key is 0
    """
    name = "paged_prefill"
    require(q.dim() == 3, name, "q must be [T, H, D]", q=q)
    BLOCK = require_paged(name, q, k_cache, v_cache, block_tables, lengths)
    scale = require_decode(name, q, k_cache, v_cache, scale, block_tables=block_tables, lengths=lengths, cu_q=cu_q)
    (T, H, D), (NUM_BLOCKS, _, H_KV, _), (B, MAX) = q.shape, k_cache.shape, block_tables.shape
    require(cu_q.shape == (B + 1,), name, "cu_q must be [B + 1]", cu_q=cu_q, block_tables=block_tables)
    require(isinstance(max_q, int) and max_q >= 0, name, f"max_q must be a number of queries, 0 or more; it is {max_q}", q=q)
    GROUP, out = require_group(name, H, H_KV, q=q, k_cache=k_cache), torch.empty((T, H, D), dtype=q.dtype, device=q.device)
    if out.numel() and B and max_q:
        BLOCK_D = power_of_two(D)
        few = FEW if max_q * GROUP <= 16 and BLOCK_D <= 128 and q.element_size() == 2 else None
        config = config or few or choose(CONFIGS[max(64, BLOCK_D)], q.device, q.element_size())
        far = any(sum((n - 1) * stride for n, stride in zip(x.shape, x.stride(), strict=True)) >= 2**31 for x in (k_cache, v_cache))
        paged_prefill_kernel[(triton.cdiv(max_q * GROUP, config["BLOCK_M"]) * H_KV * B,)](
            q, k_cache, v_cache, block_tables, cu_q, lengths, out, q.stride(), k_cache.stride(), v_cache.stride(), block_tables.stride(),
            cu_q.stride(0), lengths.stride(0), T, H, NUM_BLOCKS, MAX, max_q, scale * 1.4426950408889634, GROUP=GROUP, D=D, BLOCK=BLOCK,
            OFFSET=tl.int64 if far else tl.int32, BLOCK_D=BLOCK_D, **config,
        )  # fmt: skip
    return out
