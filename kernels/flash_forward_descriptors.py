"""The forward pass with tensor descriptors: Hopper's copy engine (TMA) fetches whole tiles, so that no thread computes addresses.

Notebook   05 FlashAttention, forward
Reference  kernels/flash_forward.py: the same shapes, the same results; the difference between the two files is the idea
Paper      Shah et al. 2024 (FlashAttention-3), section 3 (producer and copy engine)
Shapes     q, out [B, H, N_Q, D]; k, v [B, H_KV, N_KV, D]; lse [B, H, N_Q] float32; any strides
Grid       (tiles of queries * B * H,); causal: the tile with the most work starts first

    descriptor = (pointer, shape, strides, tile)     made once on the host; what lies outside the shape reads as 0
    for each tile of keys:                           one loop: a branch asks whether this tile needs the mask
        the steps of flash_forward, on descriptor.load([b, h, start, 0])
"""

import torch
import triton
import triton.language as tl
from triton.tools.tensor_descriptor import TensorDescriptor

from kernels.launching import choose, power_of_two, require_attention

# head size -> KiB of shared memory a block needs -> tiles; chosen by sweeps on an H200 (course_lib.tune), compiled for the others
CONFIGS = {
    64: {
        72: {"BLOCK_M": 64, "BLOCK_N": 128, "num_warps": 4, "num_stages": 2},
        0: {"BLOCK_M": 32, "BLOCK_N": 32, "num_warps": 8, "num_stages": 1},
    },
    128: {
        225: {"BLOCK_M": 128, "BLOCK_N": 128, "num_warps": 8, "num_stages": 3},
        81: {"BLOCK_M": 64, "BLOCK_N": 64, "num_warps": 8, "num_stages": 2},
        0: {"BLOCK_M": 16, "BLOCK_N": 16, "num_warps": 8, "num_stages": 1},
    },
    256: {
        194: {"BLOCK_M": 128, "BLOCK_N": 64, "num_warps": 8, "num_stages": 2},
        97: {"BLOCK_M": 64, "BLOCK_N": 32, "num_warps": 8, "num_stages": 2},
        0: {"BLOCK_M": 8, "BLOCK_N": 16, "num_warps": 8, "num_stages": 1},
    },
}
TARGETS = (90, 100, 120)


@triton.jit
def flash_forward_descriptors_kernel(
    q_tiles, k_tiles, v_tiles, out_ptr, lse_ptr, out_strides, H, GROUP, N_Q, N_KV, scale,
    D: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, CAUSAL: tl.constexpr,
):  # fmt: skip
    # 1. who am I
    tiles = tl.cdiv(N_Q, BLOCK_M)
    first = (tiles - 1 - tl.program_id(0) % tiles) * BLOCK_M
    b, h = tl.program_id(0) // tiles // H, tl.program_id(0) // tiles % H
    # 2. where is my data: the descriptors know
    rows = first + tl.arange(0, BLOCK_M)  # [BLOCK_M]
    keys = tl.arange(0, BLOCK_N)  # [BLOCK_N], of the first tile
    # 3. initialise
    q = q_tiles.load([b, h, first, 0]).reshape(BLOCK_M, BLOCK_D)
    row_max = tl.full([BLOCK_M], float("-inf"), tl.float32)
    row_sum = tl.zeros([BLOCK_M], tl.float32)
    acc = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)
    # 4. loop: keys below `full` need no mask; keys from `last` on are seen by no row of this tile
    shift = N_KV - N_Q
    full, last = N_KV, N_KV
    if CAUSAL:
        full = min(N_KV, max(0, first + shift + 1))
        last = min(N_KV, max(0, first + BLOCK_M + shift))
    full = full // BLOCK_N * BLOCK_N
    for start in range(0, last, BLOCK_N):
        k = k_tiles.load([b, h // GROUP, start, 0]).reshape(BLOCK_N, BLOCK_D)
        s = tl.dot(q, k.T, input_precision="ieee")  # [BLOCK_M, BLOCK_N]
        if start >= full:
            visible = (start + keys < N_KV)[None, :]
            if CAUSAL:  # bottom-right: the last query sees every key
                visible = visible & (start + keys[None, :] <= rows[:, None] + shift)
            s = tl.where(visible, s, float("-inf"))
        new_max = tl.maximum(row_max, tl.max(s, 1) * scale)
        base = tl.where(new_max == float("-inf"), 0.0, new_max)  # -inf - -inf is NaN: a row without keys stays 0
        p = tl.exp2(s * scale - base[:, None])  # [BLOCK_M, BLOCK_N]
        shrink = tl.exp2(row_max - base)
        row_max = new_max
        row_sum = row_sum * shrink + tl.sum(p, 1)
        v = v_tiles.load([b, h // GROUP, start, 0]).reshape(BLOCK_N, BLOCK_D)
        acc = tl.dot(p.to(v.dtype), v, acc * shrink[:, None], input_precision="ieee")  # [BLOCK_M, BLOCK_D]
    # 5. write
    columns = tl.arange(0, BLOCK_D)[None, :]
    row_sum = tl.where(row_sum == 0.0, 1.0, row_sum)  # a row without keys: out 0, lse -inf
    out_ptrs = out_ptr + b.to(tl.int64) * out_strides[0] + h.to(tl.int64) * out_strides[1] + rows.to(tl.int64)[:, None] * out_strides[2]
    mine = (rows < N_Q)[:, None] & (columns < D)
    tl.store(out_ptrs + columns * out_strides[3], (acc / row_sum[:, None]).to(out_ptr.dtype.element_ty), mask=mine)
    lse = (row_max + tl.log2(row_sum)) * 0.6931471805599453  # ln 2: from log2 to the natural logarithm
    tl.store(lse_ptr + (b * H + h).to(tl.int64) * N_Q + rows, lse, mask=rows < N_Q)


def describable(x: torch.Tensor) -> torch.Tensor:
    """x, or a copy of it with padded rows: the copy engine wants neighbours in the last dimension and other strides of 16 bytes."""
    step = 16 // x.element_size()
    strides_fit = x.stride(-1) == 1 and all(stride > 0 and stride % step == 0 for stride in x.stride()[:-1])
    if strides_fit and x.data_ptr() % 16 == 0:
        return x
    padded = torch.empty((*x.shape[:-1], triton.cdiv(x.shape[-1], step) * step), dtype=x.dtype, device=x.device)[..., : x.shape[-1]]
    return padded.copy_(x)


def flash_attention_forward(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, causal: bool = False, scale: float | None = None, config: dict | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """softmax(q @ k.T * scale) @ v, and the log-sum-exp: the contract of kernels.flash_forward.flash_attention_forward."""
    scale = require_attention("flash_attention_forward", q, k, v, scale)
    (B, H, N_Q, D), (H_KV, N_KV) = q.shape, k.shape[1:3]
    out, lse = torch.empty_like(q), torch.empty((B, H, N_Q), dtype=torch.float32, device=q.device)
    if N_KV == 0:  # a descriptor cannot be empty
        return out.zero_(), lse.fill_(float("-inf"))
    if lse.numel():
        BLOCK_D = power_of_two(D)
        config = config or choose(CONFIGS[max(64, BLOCK_D)], q.device, q.element_size())
        sides = ((q, config["BLOCK_M"]), (k, config["BLOCK_N"]), (v, config["BLOCK_N"]))
        q_tiles, k_tiles, v_tiles = (TensorDescriptor.from_tensor(describable(x), [1, 1, rows, BLOCK_D]) for x, rows in sides)
        flash_forward_descriptors_kernel[(triton.cdiv(N_Q, config["BLOCK_M"]) * B * H,)](
            q_tiles, k_tiles, v_tiles, out, lse, out.stride(), H, H // H_KV, N_Q, N_KV, scale * 1.4426950408889634,
            D=D, BLOCK_D=BLOCK_D, CAUSAL=causal, **config,
        )  # fmt: skip
    return out, lse
