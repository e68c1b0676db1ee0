"""Flash-Decoding: one query a request against a long cache, the keys cut into splits so that every multiprocessor has some.

Notebook   09 Flash-Decoding
Reference  course_lib.oracles.attention
Paper      Dao et al. 2023, Flash-Decoding; the tile of heads is its grouped-query form
Shapes     q, out [B, H, D]; k_cache, v_cache [B, H_KV, N_MAX, D]; lengths [B] int32; lse [B, H] float32; any strides
Grid       (B * H_KV * tiles of a group, splits): depends on no length

    q = the query heads that share this K/V head, padded to 16 rows      K and V are read once for all of them
    for each tile of keys of this split:         the tiles of a request are dealt out evenly
        s = q @ k.T * scale                      [BLOCK_M, BLOCK_N]
        fold s and v into row_max, row_sum, acc  as in flash_forward
    outs[split], lses[split] = acc / row_sum, row_max + log(row_sum)
    merge_splits(outs, lses)                     where there is more than one split
"""

import torch
import triton
import triton.language as tl

from kernels.decoding import choose_splits, heads_tile, places, require_decode, require_group, require_near, require_splits
from kernels.launching import choose, power_of_two, require
from kernels.merge_splits import merge_splits

# head size -> KiB of shared memory a block needs -> tiles; by sweeps on an H200 (benchmarks/decode_sweep.py), compiled for the others (64 KiB get the last)
CONFIGS = {
    64: {
        100: {"BLOCK_N": 128, "num_warps": 4, "num_stages": 4},
        66: {"BLOCK_N": 64, "num_warps": 4, "num_stages": 3},
        0: {"BLOCK_N": 32, "num_warps": 4, "num_stages": 1},
    },
    128: {
        137: {"BLOCK_N": 128, "num_warps": 4, "num_stages": 3},
        70: {"BLOCK_N": 64, "num_warps": 4, "num_stages": 3},
        0: {"BLOCK_N": 32, "num_warps": 4, "num_stages": 1},
    },
    256: {
        140: {"BLOCK_N": 32, "num_warps": 4, "num_stages": 5},
        70: {"BLOCK_N": 32, "num_warps": 4, "num_stages": 3},
        0: {"BLOCK_N": 16, "num_warps": 4, "num_stages": 1},
    },
}
TARGETS = (75, 80, 86, 89, 90, 100, 120)


@triton.jit(do_not_specialize=["B", "N_MAX"])  # a batch of 1 or 16 needs no other code
def decode_split_kernel(
    q_ptr, k_ptr, v_ptr, lengths_ptr, out_ptr, lse_ptr, q_strides, k_strides, v_strides, lengths_stride, B, H, GROUP, N_MAX, scale,
    D: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
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
    k_head = k_ptr + b * k_strides[0] + h_kv * k_strides[1]
    v_head = v_ptr + b * v_strides[0] + h_kv * v_strides[1]
    in_k = keys[:, None] * k_strides[2] + columns[None, :] * k_strides[3]  # offsets inside a tile, in 32 bits
    in_v = keys[:, None] * v_strides[2] + columns[None, :] * v_strides[3]
    length = min(max(tl.load(lengths_ptr + b * lengths_stride), 0), N_MAX)
    parts = tl.cdiv(length, BLOCK_N)
    first, stop = parts * split // splits * BLOCK_N, min(length, parts * (split + 1) // splits * BLOCK_N)
    # 3. initialise
    q = tl.load(q_ptr + b * q_strides[0] + heads[:, None] * q_strides[1] + columns[None, :] * q_strides[2], mask=mine, other=0.0)
    row_max = tl.full([BLOCK_M], float("-inf"), tl.float32)
    row_sum = tl.zeros([BLOCK_M], tl.float32)
    acc = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)
    # 4. loop: one body with the mask always on; arithmetic is idle here, and a second loop would empty the pipeline of loads
    for start in range(first, stop, BLOCK_N):
        visible = start + keys < stop
        inside = visible[:, None] & in_head[None, :]
        wide = tl.cast(start, tl.int64)
        k = tl.load(k_head + wide * k_strides[2] + in_k, mask=inside, other=0.0)  # [BLOCK_N, BLOCK_D]
        s = tl.dot(q, k.T, input_precision="ieee")  # [BLOCK_M, BLOCK_N]
        s = tl.where(visible[None, :], s, float("-inf"))
        new_max = tl.maximum(row_max, tl.max(s, 1) * scale)  # in units of log2: exp2 is the instruction there is
        base = tl.where(new_max == float("-inf"), 0.0, new_max)
        p = tl.exp2(s * scale - base[:, None])  # [BLOCK_M, BLOCK_N]
        shrink = tl.exp2(row_max - base)
        row_max = new_max
        row_sum = row_sum * shrink + tl.sum(p, 1)
        v = tl.load(v_head + wide * v_strides[2] + in_v, mask=inside, other=0.0)  # [BLOCK_N, BLOCK_D]
        acc = tl.dot(p.to(v.dtype), v, acc * shrink[:, None], input_precision="ieee")  # [BLOCK_M, BLOCK_D]
    # 5. write
    row_sum = tl.where(row_sum == 0.0, 1.0, row_sum)  # a split without keys: out 0, lse -inf
    rows = (tl.cast(split, tl.int64) * B + b) * H + heads
    tl.store(out_ptr + rows[:, None] * D + columns[None, :], (acc / row_sum[:, None]).to(out_ptr.dtype.element_ty), mask=mine)
    tl.store(lse_ptr + rows, (row_max + tl.log2(row_sum)) * 0.6931471805599453, mask=in_group < GROUP)  # ln 2: from log2 to natural


def decode_split(
    q: torch.Tensor, k_cache: torch.Tensor, v_cache: torch.Tensor, lengths: torch.Tensor, scale: float | None = None,
    num_splits: int | None = None, config: dict | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
    """Attention of one query a request over the first `lengths[b]` keys of its cache.

    q        [B, H, D] float16, bfloat16 or float32, D at most 256, any strides
    k_cache, v_cache  [B, H_KV, N_MAX, D], same dtype, any strides; H is a multiple of H_KV; what lies past a length is never read
    lengths  [B] int32, on the device: 0 gives out 0 and lse -inf; below 0 counts as 0, above N_MAX as N_MAX
    scale    above 0; 1 / sqrt(D) where None
    num_splits  parts that the keys are cut into; None fills the GPU (by N_MAX, since the lengths are on the device)
    returns  (out [B, H, D] as q, contiguous; lse [B, H] float32, natural)
    """
    name = "decode_split"
    fits = (
        q.dim() == 3 and k_cache.dim() == 4 and k_cache.shape == v_cache.shape and q.shape[0] == k_cache.shape[0] and q.shape[2] == k_cache.shape[3]
    )
    require(fits, name, "q must be [B, H, D] and k_cache, v_cache [B, H_KV, N_MAX, D]", q=q, k_cache=k_cache, v_cache=v_cache)
    scale = require_decode(name, q, k_cache, v_cache, scale, lengths=lengths)
    (B, H, D), (H_KV, N_MAX) = q.shape, k_cache.shape[1:3]
    GROUP = require_group(name, H, H_KV, q=q, k_cache=k_cache)
    require(lengths.shape == (B,), name, "lengths must be [B]", q=q, lengths=lengths)
    require_splits(name, num_splits, q=q)
    BLOCK_D, BLOCK_M = power_of_two(D), heads_tile(GROUP or 1)
    config = config or choose(CONFIGS[max(64, BLOCK_D)], q.device, q.element_size())
    require_near(name, config["BLOCK_N"], k_cache=k_cache, v_cache=v_cache)
    programs = B * H_KV * triton.cdiv(GROUP, BLOCK_M)
    at_once = places(config, BLOCK_D * q.element_size(), q.device)
    splits = num_splits or choose_splits(programs, triton.cdiv(N_MAX, config["BLOCK_N"]), at_once)
    out = torch.empty((splits, B, H, D), dtype=q.dtype if splits == 1 else torch.float32, device=q.device)
    lse = torch.empty((splits, B, H), dtype=torch.float32, device=q.device)
    if lse.numel():
        decode_split_kernel[(programs, splits)](
            q, k_cache, v_cache, lengths, out, lse, q.stride(), k_cache.stride(), v_cache.stride(), lengths.stride(0), B, H, GROUP, N_MAX,
            scale * 1.4426950408889634, D=D, BLOCK_D=BLOCK_D, BLOCK_M=BLOCK_M, **config,
        )  # fmt: skip
    return (out[0], lse[0]) if splits == 1 else merge_splits(out, lse, q.dtype)
