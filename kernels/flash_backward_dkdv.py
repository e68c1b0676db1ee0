"""The gradients of K and V: a program keeps one tile of keys, and all queries that see it pass by.

Notebook   06 FlashAttention, backward
Reference  torch.autograd through course_lib.oracles.attention
Paper      Dao 2023 (FlashAttention-2), algorithm 2: K and V outside, Q inside; scores are computed again from lse
Shapes     q, dout [B, H, N_Q, D]; k, v, dk, dv [B, H_KV, N_KV, D]; lse, delta [B, H, N_Q] float32; any strides
Grid       (tiles of keys * B * H_KV,); causal: the tile with the most work starts first

    dk, dv = 0, 0
    for each head that shares these keys, for each tile of queries:
        p.T = exp(k @ q.T * scale - lse)         [BLOCK_N, BLOCK_M]; transposed, it is an operand of the next product as it lies
        dv += p.T @ dout
        ds.T = p.T * (v @ dout.T - delta)
        dk += ds.T @ q
    dk *= scale                                  every number is written once: no atomics, the same bits each time
"""

import torch
import triton
import triton.language as tl

from kernels.launching import choose, not_compiled_in, power_of_two, require_attention, require_backward

# head size -> KiB of shared memory a block needs -> tiles; chosen by sweeps on an H200 (course_lib.tune), compiled for the others
CONFIGS = {
    64: {
        72: {"BLOCK_M": 32, "BLOCK_N": 64, "num_warps": 4, "num_stages": 3},
        0: {"BLOCK_M": 16, "BLOCK_N": 32, "num_warps": 8, "num_stages": 1},
    },
    128: {
        164: {"BLOCK_M": 32, "BLOCK_N": 64, "num_warps": 4, "num_stages": 3},
        73: {"BLOCK_M": 64, "BLOCK_N": 64, "num_warps": 8, "num_stages": 2},
        0: {"BLOCK_M": 16, "BLOCK_N": 16, "num_warps": 8, "num_stages": 1},
    },
    256: {
        97: {"BLOCK_M": 16, "BLOCK_N": 64, "num_warps": 8, "num_stages": 2},
        0: {"BLOCK_M": 16, "BLOCK_N": 16, "num_warps": 8, "num_stages": 1},
    },
}
TARGETS = (75, 80, 86, 89, 90, 100, 120)


@triton.jit
def flash_backward_dkdv_kernel(
    q_ptr, k_ptr, v_ptr, dout_ptr, lse_ptr, delta_ptr, dk_ptr, dv_ptr,
    q_strides, k_strides, v_strides, dout_strides, dk_strides, dv_strides, H_KV, GROUP, N_Q, N_KV, scale, scale_log2,
    D: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, CAUSAL: tl.constexpr,
):  # fmt: skip
    # 1. who am I
    tiles = tl.cdiv(N_KV, BLOCK_N)
    first = tl.program_id(0) % tiles * BLOCK_N
    b = (tl.program_id(0) // tiles // H_KV).to(tl.int64)  # int64: b * stride may pass 2**31
    h_kv = (tl.program_id(0) // tiles % H_KV).to(tl.int64)
    # 2. where is my data
    keys = first + tl.arange(0, BLOCK_N)  # [BLOCK_N]
    rows = tl.arange(0, BLOCK_M)  # [BLOCK_M], of the first tile
    columns = tl.arange(0, BLOCK_D)  # [BLOCK_D]
    in_head = (columns < D)[None, :]
    mine = (keys < N_KV)[:, None] & in_head
    k_ptrs = k_ptr + b * k_strides[0] + h_kv * k_strides[1] + keys[:, None] * k_strides[2] + columns[None, :] * k_strides[3]
    v_ptrs = v_ptr + b * v_strides[0] + h_kv * v_strides[1] + keys[:, None] * v_strides[2] + columns[None, :] * v_strides[3]
    in_q = rows[:, None] * q_strides[2] + columns[None, :] * q_strides[3]  # offsets inside a tile, the same for all of them
    in_dout = rows[:, None] * dout_strides[2] + columns[None, :] * dout_strides[3]
    # 3. initialise: tiles of queries begin .. end see these keys; those from whole_begin up to whole_end need no mask
    k = tl.load(k_ptrs, mask=mine, other=0.0)  # [BLOCK_N, BLOCK_D]
    v = tl.load(v_ptrs, mask=mine, other=0.0)
    dk = tl.zeros([BLOCK_N, BLOCK_D], tl.float32)
    dv = tl.zeros([BLOCK_N, BLOCK_D], tl.float32)
    shift = N_KV - N_Q
    end = tl.cdiv(N_Q, BLOCK_M)
    begin, whole_begin, whole_end = 0, 0, N_Q // BLOCK_M
    if CAUSAL:
        begin = min(end, max(0, first - shift) // BLOCK_M)
        whole_begin = min(end, tl.cdiv(max(0, first + BLOCK_N - 1 - shift), BLOCK_M))
        whole_end = max(whole_begin, whole_end)
    # 4. loop
    for head in range(GROUP):  # every head of queries that shares these keys
        h = h_kv * GROUP + head
        q_head = q_ptr + b * q_strides[0] + h * q_strides[1]
        dout_head = dout_ptr + b * dout_strides[0] + h * dout_strides[1]
        lse_head = lse_ptr + (b * H_KV * GROUP + h) * N_Q
        delta_head = delta_ptr + (b * H_KV * GROUP + h) * N_Q
        for MASKED in tl.static_range(2):  # compiled twice: whole tiles first, then those on either side of them
            for i in range(begin if MASKED else whole_begin, end - (whole_end - whole_begin) if MASKED else whole_end):
                start = i * BLOCK_M
                inside, in_rows = in_head, tl.full([BLOCK_M], True, tl.int1)  # a whole tile lies inside q and dout
                if MASKED:
                    start = tl.where(i < whole_begin, i, i + whole_end - whole_begin) * BLOCK_M
                    in_rows = start + rows < N_Q
                    inside = in_head & in_rows[:, None]
                q = tl.load(q_head + start * q_strides[2] + in_q, mask=inside, other=0.0)  # [BLOCK_M, BLOCK_D]
                lse = tl.load(lse_head + start + rows, mask=in_rows, other=0.0) * 1.4426950408889634  # [BLOCK_M], in units of log2
                s = tl.dot(k, q.T, input_precision="ieee")  # [BLOCK_N, BLOCK_M]
                p = tl.exp2(s * scale_log2 - lse[None, :])  # [BLOCK_N, BLOCK_M]
                if MASKED:  # rows past the end have no lse; a row without keys has lse -inf and is seen by no key
                    visible = in_rows[None, :]
                    if CAUSAL:  # bottom-right: the last query sees every key
                        visible = visible & (keys[:, None] <= start + rows[None, :] + shift)
                    p = tl.where(visible, p, 0.0)
                dout = tl.load(dout_head + start * dout_strides[2] + in_dout, mask=inside, other=0.0)  # [BLOCK_M, BLOCK_D]
                dv = tl.dot(p.to(dout.dtype), dout, dv, input_precision="ieee")  # [BLOCK_N, BLOCK_D]
                delta = tl.load(delta_head + start + rows, mask=in_rows, other=0.0)  # [BLOCK_M]
                dp = tl.dot(v, dout.T, input_precision="ieee")  # [BLOCK_N, BLOCK_M]
                ds = p * (dp - delta[None, :])
                dk = tl.dot(ds.to(q.dtype), q, dk, input_precision="ieee")  # [BLOCK_N, BLOCK_D]
    # 5. write
    dk_ptrs = dk_ptr + b * dk_strides[0] + h_kv * dk_strides[1] + keys[:, None] * dk_strides[2] + columns[None, :] * dk_strides[3]
    dv_ptrs = dv_ptr + b * dv_strides[0] + h_kv * dv_strides[1] + keys[:, None] * dv_strides[2] + columns[None, :] * dv_strides[3]
    tl.store(dk_ptrs, (dk * scale).to(dk_ptr.dtype.element_ty), mask=mine)
    tl.store(dv_ptrs, dv.to(dv_ptr.dtype.element_ty), mask=mine)


length_one = not_compiled_in(flash_backward_dkdv_kernel, "N_Q", "N_KV")  # 1 as a constant is compiled wrongly


def flash_backward_dkdv(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, dout: torch.Tensor, lse: torch.Tensor, delta: torch.Tensor,
    causal: bool = False, scale: float | None = None, config: dict | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
    """The gradients of k and v, given the gradient of the output.

    q, k, v, causal, scale   as the forward pass had them (kernels.flash_forward)
    dout                     [B, H, N_Q, D], dtype of q, any strides: the gradient of its output
    lse, delta               [B, H, N_Q] float32: its log-sum-exp, and kernels.attention_delta of its output and dout
    returns                  (dk, dv) as k and v, summed over the heads of queries that share them
    """
    scale = require_attention("flash_backward_dkdv", q, k, v, scale)
    lse, delta = require_backward("flash_backward_dkdv", q, dout, lse, delta)
    (B, H, N_Q, D), (H_KV, N_KV) = q.shape, k.shape[1:3]
    dk, dv = torch.empty_like(k), torch.empty_like(v)
    if dk.numel():
        BLOCK_D = power_of_two(D)
        config = config or choose(CONFIGS[max(64, BLOCK_D)], q.device, q.element_size())
        kernel = flash_backward_dkdv_kernel if min(N_Q, N_KV) > 1 else length_one
        kernel[(triton.cdiv(N_KV, config["BLOCK_N"]) * B * H_KV,)](
            q, k, v, dout, lse, delta, dk, dv, q.stride(), k.stride(), v.stride(), dout.stride(), dk.stride(), dv.stride(),
            H_KV, H // H_KV, N_Q, N_KV, scale, scale * 1.4426950408889634, D=D, BLOCK_D=BLOCK_D, CAUSAL=causal, **config,
        )  # fmt: skip
    return dk, dv
