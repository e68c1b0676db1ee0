"""The gradient of Q for packed sequences: the walk of flash_varlen over the keys once more.

Notebook   07 Faster and more general
Reference  kernels/flash_backward_dq.py on each sequence alone; the difference between the two files is where a program finds its rows
Paper      Dao 2023 (FlashAttention-2), algorithm 2
Shapes     q, dout, dq [T_Q, H, D]; k, v [T_K, H_KV, D]; cu_q, cu_k [B + 1] int32; lse, delta [H, T_Q] float32; any strides
Grid       (tiles of the longest sequence's queries * B * H,); a program whose sequence is shorter ends at once

    begin, N_Q = cu_q[b], cu_q[b + 1] - cu_q[b]  the same for the keys
    the steps of flash_backward_dq on those rows
"""

import torch
import triton
import triton.language as tl

from kernels.launching import choose, power_of_two, require_packed, require_packed_backward

# head size -> KiB of shared memory a block needs -> tiles; chosen by sweeps on an H200 (course_lib.tune), compiled for the others
CONFIGS = {
    64: {
        81: {"BLOCK_M": 128, "BLOCK_N": 64, "num_warps": 8, "num_stages": 3},
        0: {"BLOCK_M": 32, "BLOCK_N": 32, "num_warps": 8, "num_stages": 1},
    },
    128: {
        164: {"BLOCK_M": 128, "BLOCK_N": 64, "num_warps": 8, "num_stages": 3},
        81: {"BLOCK_M": 128, "BLOCK_N": 32, "num_warps": 8, "num_stages": 2},
        0: {"BLOCK_M": 16, "BLOCK_N": 16, "num_warps": 8, "num_stages": 1},
    },
    256: {
        128: {"BLOCK_M": 64, "BLOCK_N": 32, "num_warps": 8, "num_stages": 2},
        82: {"BLOCK_M": 64, "BLOCK_N": 16, "num_warps": 8, "num_stages": 2},
        0: {"BLOCK_M": 16, "BLOCK_N": 16, "num_warps": 8, "num_stages": 1},
    },
}
TARGETS = (75, 80, 86, 89, 90, 100, 120)


@triton.jit
def flash_varlen_dq_kernel(
    q_ptr, k_ptr, v_ptr, dout_ptr, lse_ptr, delta_ptr, dq_ptr, cu_q_ptr, cu_k_ptr,
    q_strides, k_strides, v_strides, dout_strides, dq_strides, H, GROUP, T_Q, MAX_Q, scale, scale_log2,
    D: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, CAUSAL: tl.constexpr,
):  # fmt: skip
    # 1. who am I
    tiles = tl.cdiv(MAX_Q, BLOCK_M)
    first = (tiles - 1 - tl.program_id(0) % tiles) * BLOCK_M
    b = tl.program_id(0) // tiles // H
    h = (tl.program_id(0) // tiles % H).to(tl.int64)
    q_begin = tl.load(cu_q_ptr + b).to(tl.int64)  # int64: begin * stride may pass 2**31
    k_begin = tl.load(cu_k_ptr + b).to(tl.int64)
    N_Q = (tl.load(cu_q_ptr + b + 1) - q_begin).to(tl.int32)
    N_KV = (tl.load(cu_k_ptr + b + 1) - k_begin).to(tl.int32)
    if first >= N_Q:
        return
    # 2. where is my data
    rows = first + tl.arange(0, BLOCK_M)  # [BLOCK_M], inside the sequence
    keys = tl.arange(0, BLOCK_N)  # [BLOCK_N], of the first tile
    columns = tl.arange(0, BLOCK_D)  # [BLOCK_D]
    in_head = (columns < D)[None, :]
    mine = (rows < N_Q)[:, None] & in_head
    q_ptrs = q_ptr + q_begin * q_strides[0] + h * q_strides[1] + rows[:, None] * q_strides[0] + columns[None, :] * q_strides[2]
    dout_ptrs = dout_ptr + q_begin * dout_strides[0] + h * dout_strides[1] + rows[:, None] * dout_strides[0] + columns[None, :] * dout_strides[2]
    k_head = k_ptr + k_begin * k_strides[0] + h // GROUP * k_strides[1]
    in_k = keys[:, None] * k_strides[0] + columns[None, :] * k_strides[2]  # offsets inside a tile, the same for all of them
    v_head = v_ptr + k_begin * v_strides[0] + h // GROUP * v_strides[1]
    in_v = keys[:, None] * v_strides[0] + columns[None, :] * v_strides[2]
    # 3. initialise
    q = tl.load(q_ptrs, mask=mine, other=0.0)  # [BLOCK_M, BLOCK_D]
    dout = tl.load(dout_ptrs, mask=mine, other=0.0)
    lse = tl.load(lse_ptr + h * T_Q + q_begin + rows, mask=rows < N_Q, other=0.0) * 1.4426950408889634  # [BLOCK_M], in units of log2
    delta = tl.load(delta_ptr + h * T_Q + q_begin + rows, mask=rows < N_Q, other=0.0)
    dq = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)
    # 4. loop: keys below `full` need no mask; keys from `last` on are seen by no row of this tile
    shift = N_KV - N_Q
    full, last = N_KV, N_KV
    if CAUSAL:
        full = min(N_KV, max(0, first + shift + 1))
        last = min(N_KV, max(0, first + BLOCK_M + shift))
    full = full // BLOCK_N * BLOCK_N
    for MASKED in tl.static_range(2):  # compiled twice: whole tiles first, then those that need the mask
        for start in range(full if MASKED else 0, last if MASKED else full, BLOCK_N):
            inside = in_head  # a whole tile lies inside K and V
            if MASKED:
                inside = in_head & (start + keys < N_KV)[:, None]
            k = tl.load(k_head + start * k_strides[0] + in_k, mask=inside, other=0.0)  # [BLOCK_N, BLOCK_D]
            s = tl.dot(q, k.T, input_precision="ieee")  # [BLOCK_M, BLOCK_N]
            p = tl.exp2(s * scale_log2 - lse[:, None])
            if MASKED:
                visible = (start + keys < N_KV)[None, :]
                if CAUSAL:  # bottom-right: the last query sees every key
                    visible = visible & (start + keys[None, :] <= rows[:, None] + shift)
                p = tl.where(visible, p, 0.0)  # also where lse is -inf: such a row sees no key
            v = tl.load(v_head + start * v_strides[0] + in_v, mask=inside, other=0.0)  # [BLOCK_N, BLOCK_D]
            dp = tl.dot(dout, v.T, input_precision="ieee")  # [BLOCK_M, BLOCK_N]
            ds = p * (dp - delta[:, None])
            dq = tl.dot(ds.to(k.dtype), k, dq, input_precision="ieee")  # [BLOCK_M, BLOCK_D]
    # 5. write
    dq_ptrs = dq_ptr + q_begin * dq_strides[0] + h * dq_strides[1] + rows[:, None] * dq_strides[0] + columns[None, :] * dq_strides[2]
    tl.store(dq_ptrs, (dq * scale).to(dq_ptr.dtype.element_ty), mask=mine)


def flash_varlen_backward_dq(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, dout: torch.Tensor, lse: torch.Tensor, delta: torch.Tensor,
    cu_q: torch.Tensor, cu_k: torch.Tensor, max_q: int, max_k: int, causal: bool = False, scale: float | None = None, config: dict | None = None,
) -> torch.Tensor:  # fmt: skip
    """The gradient of q alone: the arguments of kernels.flash_varlen_backward, dq as q; 0 in a row without keys."""
    scale = require_packed("flash_varlen_backward_dq", q, k, v, cu_q, cu_k, max_q, max_k, scale)
    lse, delta = require_packed_backward("flash_varlen_backward_dq", q, dout, lse, delta)
    (T_Q, H, D), H_KV, B = q.shape, k.shape[1], len(cu_q) - 1
    dq = torch.empty_like(q)
    if dq.numel():
        BLOCK_D = power_of_two(D)
        config = config or choose(CONFIGS[max(64, BLOCK_D)], q.device, q.element_size())
        flash_varlen_dq_kernel[(triton.cdiv(max_q, config["BLOCK_M"]) * B * H,)](
            q, k, v, dout, lse, delta, dq, cu_q.contiguous(), cu_k.contiguous(), q.stride(), k.stride(), v.stride(), dout.stride(), dq.stride(),
            H, H // H_KV, T_Q, max_q, scale, scale * 1.4426950408889634, D=D, BLOCK_D=BLOCK_D, CAUSAL=causal, **config,
        )  # fmt: skip
    return dq
