"""Sequences of many lengths in one launch: tokens lie packed one after the other, and cu_q, cu_k say where each sequence begins.

Notebook   07 Faster and more general
Reference  kernels/flash_forward.py on each sequence alone; the difference between the two files is where a program finds its rows
Paper      Dao 2023 (FlashAttention-2), algorithm 1; packing as in Krell et al. 2021 (Efficient sequence packing)
Shapes     q, out [T_Q, H, D]; k, v [T_K, H_KV, D]; cu_q, cu_k [B + 1] int32; lse [H, T_Q] float32; any strides
Grid       (tiles of the longest sequence's queries * B * H,); a program whose sequence is shorter ends at once

    begin, N_Q = cu_q[b], cu_q[b + 1] - cu_q[b]  the same for the keys
    the steps of flash_forward on those rows     nothing is padded, and no mask between sequences is needed
"""

import torch
import triton
import triton.language as tl

from kernels.launching import choose, power_of_two, require_packed

# head size -> KiB of shared memory a block needs -> tiles; chosen by sweeps on an H200 (course_lib.tune), compiled for the others
CONFIGS = {
    64: {
        96: {"BLOCK_M": 128, "BLOCK_N": 64, "num_warps": 8, "num_stages": 5},
        72: {"BLOCK_M": 128, "BLOCK_N": 64, "num_warps": 8, "num_stages": 3},
        24: {"BLOCK_M": 64, "BLOCK_N": 32, "num_warps": 8, "num_stages": 1},
        0: {"BLOCK_M": 32, "BLOCK_N": 32, "num_warps": 4, "num_stages": 1},
    },
    128: {
        225: {"BLOCK_M": 128, "BLOCK_N": 128, "num_warps": 8, "num_stages": 3},
        96: {"BLOCK_M": 128, "BLOCK_N": 64, "num_warps": 8, "num_stages": 2},
        0: {"BLOCK_M": 16, "BLOCK_N": 32, "num_warps": 4, "num_stages": 1},
    },
    256: {
        192: {"BLOCK_M": 128, "BLOCK_N": 64, "num_warps": 8, "num_stages": 2},
        96: {"BLOCK_M": 64, "BLOCK_N": 32, "num_warps": 8, "num_stages": 2},
        0: {"BLOCK_M": 16, "BLOCK_N": 16, "num_warps": 4, "num_stages": 1},
    },
}
TARGETS = (75, 80, 86, 89, 90, 100, 120)


@triton.jit
def flash_varlen_kernel(
    q_ptr, k_ptr, v_ptr, out_ptr, lse_ptr, cu_q_ptr, cu_k_ptr, q_strides, k_strides, v_strides, out_strides, H, GROUP, T_Q, MAX_Q, scale,
    D: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, CAUSAL: tl.constexpr,
):  # fmt: skip
    # 1. who am I
    tiles = tl.cdiv(MAX_Q, BLOCK_M)
    tile = tiles - 1 - tl.program_id(0) % tiles
    b = tl.program_id(0) // tiles // H
    h = (tl.program_id(0) // tiles % H).to(tl.int64)
    q_begin = tl.load(cu_q_ptr + b).to(tl.int64)  # int64: begin * stride may pass 2**31
    k_begin = tl.load(cu_k_ptr + b).to(tl.int64)
    N_Q = (tl.load(cu_q_ptr + b + 1) - q_begin).to(tl.int32)
    N_KV = (tl.load(cu_k_ptr + b + 1) - k_begin).to(tl.int32)
    if tile * BLOCK_M >= N_Q:
        return
    # 2. where is my data
    rows = tile * BLOCK_M + tl.arange(0, BLOCK_M)  # [BLOCK_M], inside the sequence
    keys = tl.arange(0, BLOCK_N)  # [BLOCK_N], of the first tile
    columns = tl.arange(0, BLOCK_D)  # [BLOCK_D]
    in_head = columns < D
    mine = (rows < N_Q)[:, None] & in_head[None, :]
    q_ptrs = q_ptr + q_begin * q_strides[0] + h * q_strides[1] + rows[:, None] * q_strides[0] + columns[None, :] * q_strides[2]
    k_head = k_ptr + k_begin * k_strides[0] + h // GROUP * k_strides[1]
    in_k = keys[:, None] * k_strides[0] + columns[None, :] * k_strides[2]  # offsets inside a tile, the same for all of them
    v_head = v_ptr + k_begin * v_strides[0] + h // GROUP * v_strides[1]
    in_v = keys[:, None] * v_strides[0] + columns[None, :] * v_strides[2]
    # 3. initialise
    q = tl.load(q_ptrs, mask=mine, other=0.0)  # [BLOCK_M, BLOCK_D]
    row_max = tl.full([BLOCK_M], float("-inf"), tl.float32)
    row_sum = tl.zeros([BLOCK_M], tl.float32)
    acc = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)
    # 4. loop: keys below `full` need no mask; keys from `last` on are seen by no row of this tile
    shift = N_KV - N_Q
    full, last = N_KV, N_KV
    if CAUSAL:
        full = min(N_KV, max(0, tile * BLOCK_M + shift + 1))
        last = min(N_KV, max(0, tile * BLOCK_M + BLOCK_M + shift))
    full = full // BLOCK_N * BLOCK_N
    for MASKED in tl.static_range(2):  # compiled twice: whole tiles first, then those that need the mask
        # 32-bit offsets inside a sequence: 64-bit ones in this loop make the compiler wait for every product (the host checks the range)
        for start in range(full if MASKED else 0, last if MASKED else full, BLOCK_N):
            inside = in_head[None, :]  # a whole tile lies inside K and V
            if MASKED:
                inside = inside & (start + keys < N_KV)[:, None]
            k = tl.load(k_head + start * k_strides[0] + in_k, mask=inside, other=0.0)  # [BLOCK_N, BLOCK_D]
            s = tl.dot(q, k.T, input_precision="ieee")  # [BLOCK_M, BLOCK_N]
            if MASKED:
                visible = (start + keys < N_KV)[None, :]
                if CAUSAL:  # bottom-right: the last query sees every key
                    visible = visible & (start + keys[None, :] <= rows[:, None] + shift)
                s = tl.where(visible, s, float("-inf"))
            new_max = tl.maximum(row_max, tl.max(s, 1) * scale)  # in units of log2: exp2 is the instruction there is
            base = new_max
            if MASKED:
                base = tl.where(new_max == float("-inf"), 0.0, new_max)  # -inf - -inf is NaN: a row without keys stays 0
            p = tl.exp2(s * scale - base[:, None])  # [BLOCK_M, BLOCK_N]
            shrink = tl.exp2(row_max - base)
            row_max = new_max
            row_sum = row_sum * shrink + tl.sum(p, 1)
            v = tl.load(v_head + start * v_strides[0] + in_v, mask=inside, other=0.0)  # [BLOCK_N, BLOCK_D]
            acc = tl.dot(p.to(v.dtype), v, acc * shrink[:, None], input_precision="ieee")  # [BLOCK_M, BLOCK_D]
    # 5. write
    row_sum = tl.where(row_sum == 0.0, 1.0, row_sum)  # a row without keys: out 0, lse -inf
    out_ptrs = out_ptr + q_begin * out_strides[0] + h * out_strides[1] + rows[:, None] * out_strides[0] + columns[None, :] * out_strides[2]
    tl.store(out_ptrs, (acc / row_sum[:, None]).to(out_ptr.dtype.element_ty), mask=mine)
    lse = (row_max + tl.log2(row_sum)) * 0.6931471805599453  # ln 2: from log2 to the natural logarithm
    tl.store(lse_ptr + h * T_Q + q_begin + rows, lse, mask=rows < N_Q)


def flash_varlen_forward(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, cu_q: torch.Tensor, cu_k: torch.Tensor, max_q: int, max_k: int,
    causal: bool = False, scale: float | None = None, config: dict | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
    """Attention inside each of B packed sequences, and the log-sum-exp of the scaled scores.

    q             [T_Q, H, D] float16, bfloat16 or float32, D at most 256, any strides
    k, v          [T_K, H_KV, D], same dtype, any strides; H is a multiple of H_KV
    cu_q, cu_k    [B + 1] int32: sequence b has queries cu_q[b] .. cu_q[b + 1] - 1; from 0, never falling, up to T_Q (T_K)
    max_q, max_k  the longest sequence's queries and keys, or more: numbers, so that no launch waits for the GPU
    causal        query i of a sequence sees its key j where j <= i + N_KV - N_Q, by its own lengths (bottom-right)
    scale         above 0; 1 / sqrt(D) where None
    returns       (out, lse): out as q, lse [H, T_Q] float32, natural; a row without keys has out 0 and lse -inf
    """
    scale = require_packed("flash_varlen_forward", q, k, v, cu_q, cu_k, max_q, max_k, scale)
    (T_Q, H, D), H_KV, B = q.shape, k.shape[1], len(cu_q) - 1
    out, lse = torch.empty_like(q), torch.empty((H, T_Q), dtype=torch.float32, device=q.device)
    if lse.numel():
        BLOCK_D = power_of_two(D)
        config = config or choose(CONFIGS[max(64, BLOCK_D)], q.device, q.element_size())
        flash_varlen_kernel[(triton.cdiv(max_q, config["BLOCK_M"]) * B * H,)](
            q, k, v, out, lse, cu_q.contiguous(), cu_k.contiguous(), q.stride(), k.stride(), v.stride(), out.stride(), H, H // H_KV, T_Q, max_q,
            scale * 1.4426950408889634, D=D, BLOCK_D=BLOCK_D, CAUSAL=causal, **config,
        )  # fmt: skip
    return out, lse
