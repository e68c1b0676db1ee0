"""The gradient of Q under a sliding window: the walk of flash_window over the keys once more.

Notebook   07 Faster and more general
Reference  kernels/flash_backward_dq.py; the difference between the two files is where the loop begins, and which tiles need the mask
Paper      Beltagy et al. 2020 (Longformer), section 3.1; Dao 2023 (FlashAttention-2), algorithm 2
Shapes     q, dout, dq [B, H, N_Q, D]; k, v [B, H_KV, N_KV, D]; lse, delta [B, H, N_Q] float32; any strides
Grid       (tiles of queries * B * H,)

    tiles of keys a program visits:  begin   ...   whole_begin   ...   whole_end   ...   end
                                     | window's edge |    no mask      | the diagonal |
    for each of the whole tiles, then for each of those on either side:
        the steps of flash_backward_dq; at an edge, hidden weights become 0
"""

import torch
import triton
import triton.language as tl

from kernels.launching import choose, not_compiled_in, power_of_two, require_attention, require_backward, require_window

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
def flash_window_dq_kernel(
    q_ptr, k_ptr, v_ptr, dout_ptr, lse_ptr, delta_ptr, dq_ptr,
    q_strides, k_strides, v_strides, dout_strides, dq_strides, H, GROUP, N_Q, N_KV, window, scale, scale_log2,
    D: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    # 1. who am I
    tiles = tl.cdiv(N_Q, BLOCK_M)
    first = (tiles - 1 - tl.program_id(0) % tiles) * BLOCK_M
    b = (tl.program_id(0) // tiles // H).to(tl.int64)  # int64: b * stride may pass 2**31
    h = (tl.program_id(0) // tiles % H).to(tl.int64)
    # 2. where is my data
    rows = first + tl.arange(0, BLOCK_M)  # [BLOCK_M]
    keys = tl.arange(0, BLOCK_N)  # [BLOCK_N], of the first tile
    columns = tl.arange(0, BLOCK_D)  # [BLOCK_D]
    in_head = (columns < D)[None, :]
    mine = (rows < N_Q)[:, None] & in_head
    q_ptrs = q_ptr + b * q_strides[0] + h * q_strides[1] + rows[:, None] * q_strides[2] + columns[None, :] * q_strides[3]
    dout_ptrs = dout_ptr + b * dout_strides[0] + h * dout_strides[1] + rows[:, None] * dout_strides[2] + columns[None, :] * dout_strides[3]
    k_head = k_ptr + b * k_strides[0] + h // GROUP * k_strides[1]
    in_k = keys[:, None] * k_strides[2] + columns[None, :] * k_strides[3]  # offsets inside a tile, the same for all of them
    v_head = v_ptr + b * v_strides[0] + h // GROUP * v_strides[1]
    in_v = keys[:, None] * v_strides[2] + columns[None, :] * v_strides[3]
    # 3. initialise
    q = tl.load(q_ptrs, mask=mine, other=0.0)  # [BLOCK_M, BLOCK_D]
    dout = tl.load(dout_ptrs, mask=mine, other=0.0)
    lse = tl.load(lse_ptr + (b * H + h) * N_Q + rows, mask=rows < N_Q, other=0.0) * 1.4426950408889634  # [BLOCK_M], in units of log2
    delta = tl.load(delta_ptr + (b * H + h) * N_Q + rows, mask=rows < N_Q, other=0.0)
    dq = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)
    # 4. loop over tiles begin .. end of keys; those from whole_begin up to whole_end are seen whole by every row
    shift = N_KV - N_Q
    begin = max(0, first + shift - window + 1) // BLOCK_N
    end = tl.cdiv(min(N_KV, max(0, first + BLOCK_M + shift)), BLOCK_N)
    whole_begin = min(end, tl.cdiv(max(0, first + BLOCK_M + shift - window), BLOCK_N))
    whole_end = max(whole_begin, max(0, first + shift + 1) // BLOCK_N)
    for MASKED in tl.static_range(2):  # compiled twice: whole tiles first, then those on either side of them
        for i in range(begin if MASKED else whole_begin, end - (whole_end - whole_begin) if MASKED else whole_end):
            start = i * BLOCK_N
            inside = in_head  # a whole tile lies inside K and V
            if MASKED:
                start = tl.where(i < whole_begin, i, i + whole_end - whole_begin) * BLOCK_N
                inside = in_head & (start + keys < N_KV)[:, None]
            k = tl.load(k_head + start * k_strides[2] + in_k, mask=inside, other=0.0)  # [BLOCK_N, BLOCK_D]
            s = tl.dot(q, k.T, input_precision="ieee")  # [BLOCK_M, BLOCK_N]
            p = tl.exp2(s * scale_log2 - lse[:, None])
            if MASKED:
                back = rows[:, None] + shift - start - keys[None, :]  # how far back a key lies; bottom-right: 0 for the last of both
                visible = (back >= 0) & (back < window)
                p = tl.where(visible, p, 0.0)  # also where lse is -inf: such a row sees no key
            v = tl.load(v_head + start * v_strides[2] + in_v, mask=inside, other=0.0)  # [BLOCK_N, BLOCK_D]
            dp = tl.dot(dout, v.T, input_precision="ieee")  # [BLOCK_M, BLOCK_N]
            ds = p * (dp - delta[:, None])
            dq = tl.dot(ds.to(k.dtype), k, dq, input_precision="ieee")  # [BLOCK_M, BLOCK_D]
    # 5. write
    dq_ptrs = dq_ptr + b * dq_strides[0] + h * dq_strides[1] + rows[:, None] * dq_strides[2] + columns[None, :] * dq_strides[3]
    tl.store(dq_ptrs, (dq * scale).to(dq_ptr.dtype.element_ty), mask=mine)


length_one = not_compiled_in(flash_window_dq_kernel, "N_Q", "N_KV")  # as in flash_backward_dq, whose loop this is


def flash_window_backward_dq(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, dout: torch.Tensor, lse: torch.Tensor, delta: torch.Tensor, window: int,
    scale: float | None = None, config: dict | None = None,
) -> torch.Tensor:  # fmt: skip
    """The gradient of q alone: the arguments of kernels.flash_window_backward, dq as q; 0 in a row without keys."""
    scale = require_attention("flash_window_backward_dq", q, k, v, scale)
    lse, delta = require_backward("flash_window_backward_dq", q, dout, lse, delta)
    window = require_window("flash_window_backward_dq", window)
    (B, H, N_Q, D), (H_KV, N_KV) = q.shape, k.shape[1:3]
    dq = torch.empty_like(q)
    if dq.numel():
        BLOCK_D = power_of_two(D)
        config = config or choose(CONFIGS[max(64, BLOCK_D)], q.device, q.element_size())
        kernel = flash_window_dq_kernel if min(N_Q, N_KV) > 1 else length_one
        kernel[(triton.cdiv(N_Q, config["BLOCK_M"]) * B * H,)](
            q, k, v, dout, lse, delta, dq, q.stride(), k.stride(), v.stride(), dout.stride(), dq.stride(),
            H, H // H_KV, N_Q, N_KV, window, scale, scale * 1.4426950408889634, D=D, BLOCK_D=BLOCK_D, **config,
        )  # fmt: skip
    return dq
