"""Paged decode: the keys of a request lie in blocks anywhere in one large cache, and a table says where.

Notebook   10 Paged attention
Reference  kernels/decode_split.py: the same loop; where a tile of keys comes from is the difference
Paper      Kwon et al. 2023 (PagedAttention), sections 4.1 and 5.1
Shapes     q, out [B, H, D]; k_cache, v_cache [NUM_BLOCKS, BLOCK, H_KV, D]; block_tables [B, MAX] int32; lengths [B] int32; any strides
Grid       (B * H_KV * tiles of a group, splits): depends on no length

    for each tile of keys of this split:
        at = start + arange(BLOCK_N)
        block = table[at // BLOCK]               a tile may gather from several blocks, or lie inside one
        k = k_cache[block, at % BLOCK]           block * stride in 64 bits: a cache may pass 2**31 elements
        fold as in decode_split
"""

import torch
import triton
import triton.language as tl

from kernels.decoding import choose_splits, heads_tile, places, require_decode, require_group, require_paged, require_splits
from kernels.launching import choose, power_of_two, require
from kernels.merge_splits import merge_splits

# head size -> KiB of shared memory a block needs -> tiles; by sweeps on an H200 (benchmarks/decode_sweep.py), compiled for the others
# (64 KiB get the last). Small tiles: the table delays every load, and many small programs on a multiprocessor hide that best
CONFIGS = {
    64: {
        69: {"BLOCK_N": 64, "num_warps": 2, "num_stages": 5},
        0: {"BLOCK_N": 32, "num_warps": 4, "num_stages": 1},
    },
    128: {
        69: {"BLOCK_N": 32, "num_warps": 2, "num_stages": 5},
        0: {"BLOCK_N": 16, "num_warps": 4, "num_stages": 1},
    },
    256: {
        66: {"BLOCK_N": 32, "num_warps": 4, "num_stages": 2},
        0: {"BLOCK_N": 16, "num_warps": 4, "num_stages": 1},
    },
}
TARGETS = (75, 80, 86, 89, 90, 100, 120)


@triton.jit(do_not_specialize=["B", "NUM_BLOCKS", "MAX"])  # a batch of 1 or 16 needs no other code
def paged_decode_kernel(
    q_ptr, k_ptr, v_ptr, tables_ptr, lengths_ptr, out_ptr, lse_ptr, q_strides, k_strides, v_strides, tables_strides, lengths_stride,
    B, H, GROUP, NUM_BLOCKS, MAX, scale,
    D: tl.constexpr, BLOCK: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    # 1. who am I
    tiles = tl.cdiv(GROUP, BLOCK_M)  # of the heads of a group: 1, unless it is very large
    h_kv = (tl.program_id(0) // tiles % (H // GROUP)).to(tl.int64)
    b = (tl.program_id(0) // tiles // (H // GROUP)).to(tl.int64)
    split, splits = tl.program_id(1), tl.num_programs(1)
    # 2. where is my data
    in_group = tl.program_id(0) % tiles * BLOCK_M + tl.arange(0, BLOCK_M)  # [BLOCK_M]
    heads = h_kv * GROUP + in_group
    keys = tl.arange(0, BLOCK_N)  # [BLOCK_N], of the first tile
    columns = tl.arange(0, BLOCK_D)  # [BLOCK_D]
    in_head = columns < D
    mine = (in_group < GROUP)[:, None] & in_head[None, :]
    k_head = k_ptr + h_kv * k_strides[2] + columns[None, :] * k_strides[3]
    v_head = v_ptr + h_kv * v_strides[2] + columns[None, :] * v_strides[3]
    table = tables_ptr + b * tables_strides[0]
    length = min(max(tl.load(lengths_ptr + b * lengths_stride), 0), MAX * BLOCK)
    parts = tl.cdiv(length, BLOCK_N)
    first, stop = parts * split // splits * BLOCK_N, min(length, parts * (split + 1) // splits * BLOCK_N)
    # 3. initialise
    q = tl.load(q_ptr + b * q_strides[0] + heads[:, None] * q_strides[1] + columns[None, :] * q_strides[2], mask=mine, other=0.0)
    row_max = tl.full([BLOCK_M], float("-inf"), tl.float32)
    row_sum = tl.zeros([BLOCK_M], tl.float32)
    acc = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)
    # 4. loop
    for start in range(first, stop, BLOCK_N):
        at = start + keys
        block = tl.load(table + at // BLOCK * tables_strides[1], mask=at < stop, other=-1).to(tl.int64)  # [BLOCK_N]
        visible = (block >= 0) & (block < NUM_BLOCKS)
        inside = visible[:, None] & in_head[None, :]
        k = tl.load(k_head + (block * k_strides[0] + at % BLOCK * k_strides[1])[:, None], mask=inside, other=0.0)  # [BLOCK_N, BLOCK_D]
        s = tl.dot(q, k.T, input_precision="ieee")  # [BLOCK_M, BLOCK_N]
        s = tl.where(visible[None, :], s, float("-inf"))
        new_max = tl.maximum(row_max, tl.max(s, 1) * scale)  # in units of log2: exp2 is the instruction there is
        base = tl.where(new_max == float("-inf"), 0.0, new_max)
        p = tl.exp2(s * scale - base[:, None])  # [BLOCK_M, BLOCK_N]
        shrink = tl.exp2(row_max - base)
        row_max = new_max
        row_sum = row_sum * shrink + tl.sum(p, 1)
        v = tl.load(v_head + (block * v_strides[0] + at % BLOCK * v_strides[1])[:, None], mask=inside, other=0.0)  # [BLOCK_N, BLOCK_D]
        acc = tl.dot(p.to(v.dtype), v, acc * shrink[:, None], input_precision="ieee")  # [BLOCK_M, BLOCK_D]
    # 5. write
    row_sum = tl.where(row_sum == 0.0, 1.0, row_sum)  # a split without keys: out 0, lse -inf
    rows = (tl.cast(split, tl.int64) * B + b) * H + heads
    tl.store(out_ptr + rows[:, None] * D + columns[None, :], (acc / row_sum[:, None]).to(out_ptr.dtype.element_ty), mask=mine)
    tl.store(lse_ptr + rows, (row_max + tl.log2(row_sum)) * 0.6931471805599453, mask=in_group < GROUP)  # ln 2: from log2 to natural


def paged_decode(
    q: torch.Tensor, k_cache: torch.Tensor, v_cache: torch.Tensor, block_tables: torch.Tensor, lengths: torch.Tensor,
    scale: float | None = None, num_splits: int | None = None, config: dict | None = None,
) -> torch.Tensor:  # fmt: skip
    """Attention of one query a request over its first `lengths[b]` keys, which its row of the table finds.

    q        [B, H, D] float16, bfloat16 or float32, D at most 256, any strides
    k_cache, v_cache  [NUM_BLOCKS, BLOCK, H_KV, D], same dtype, any strides; BLOCK a power of two, 1 to 256; H is a multiple of H_KV
    block_tables  [B, MAX] int32: block i of request b; entries past its length are never read, keys behind one that names no block are hidden
    lengths  [B] int32, on the device: 0 gives 0; below 0 counts as 0, above MAX * BLOCK as that
    num_splits  parts that the keys are cut into; None fills the GPU (by MAX, since the lengths are on the device)
    returns  [B, H, D] as q, contiguous
    """
    name = "paged_decode"
    require(
        q.dim() == 3 and q.shape[0] == block_tables.shape[0], name, "q must be [B, H, D] and block_tables [B, MAX]", q=q, block_tables=block_tables
    )
    BLOCK = require_paged(name, q, k_cache, v_cache, block_tables, lengths)
    scale = require_decode(name, q, k_cache, v_cache, scale, block_tables=block_tables, lengths=lengths)
    (B, H, D), (NUM_BLOCKS, _, H_KV, _), MAX = q.shape, k_cache.shape, block_tables.shape[1]
    GROUP = require_group(name, H, H_KV, q=q, k_cache=k_cache)
    require_splits(name, num_splits, q=q)
    BLOCK_D, BLOCK_M = power_of_two(D), heads_tile(GROUP or 1)
    config = config or choose(CONFIGS[max(64, BLOCK_D)], q.device, q.element_size())
    programs = B * H_KV * triton.cdiv(GROUP, BLOCK_M)
    at_once = places(config, BLOCK_D * q.element_size(), q.device, paged=True)
    splits = num_splits or choose_splits(programs, triton.cdiv(MAX * BLOCK, config["BLOCK_N"]), at_once)
    out = torch.empty((splits, B, H, D), dtype=q.dtype if splits == 1 else torch.float32, device=q.device)
    lse = torch.empty((splits, B, H), dtype=torch.float32, device=q.device)
    if lse.numel():
        paged_decode_kernel[(programs, splits)](
            q, k_cache, v_cache, block_tables, lengths, out, lse, q.stride(), k_cache.stride(), v_cache.stride(), block_tables.stride(),
            lengths.stride(0), B, H, GROUP, NUM_BLOCKS, MAX, scale * 1.4426950408889634,
            D=D, BLOCK=BLOCK, BLOCK_D=BLOCK_D, BLOCK_M=BLOCK_M, **config,
        )  # fmt: skip
    return out[0] if splits == 1 else merge_splits(out, lse, q.dtype)[0]
