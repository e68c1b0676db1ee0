"""A sliding window: each query sees the last `window` keys, and tiles that no row of a program sees are never visited.

Notebook   07 Faster and more general
Reference  kernels/flash_forward.py; the difference between the two files is where the loop begins, and which tiles need the mask
Paper      Beltagy et al. 2020 (Longformer), section 3.1; Jiang et al. 2023 (Mistral 7B), section 2
Shapes     q, out [B, H, N_Q, D]; k, v [B, H_KV, N_KV, D]; lse [B, H, N_Q] float32; any strides
Grid       (tiles of queries * B * H,)

    tiles of keys a program visits:  begin   ...   whole_begin   ...   whole_end   ...   end
                                     | window's edge |    no mask      | the diagonal |
    for each of the whole tiles, then for each of those on either side:
        the steps of flash_forward; at an edge, hidden scores become -inf
"""

import torch
import triton
import triton.language as tl

from kernels.launching import choose, power_of_two, require_attention, require_window

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
def flash_window_kernel(
    q_ptr, k_ptr, v_ptr, out_ptr, lse_ptr, q_strides, k_strides, v_strides, out_strides, H, GROUP, N_Q, N_KV, window, scale,
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
    in_head = columns < D
    mine = (rows < N_Q)[:, None] & in_head[None, :]
    wide = rows.to(tl.int64)[:, None]
    q_ptrs = q_ptr + b * q_strides[0] + h * q_strides[1] + wide * q_strides[2] + columns[None, :] * q_strides[3]
    k_head = k_ptr + b * k_strides[0] + h // GROUP * k_strides[1]
    in_k = keys[:, None] * k_strides[2] + columns[None, :] * k_strides[3]  # offsets inside a tile, the same for all of them
    v_head = v_ptr + b * v_strides[0] + h // GROUP * v_strides[1]
    in_v = keys[:, None] * v_strides[2] + columns[None, :] * v_strides[3]
    # 3. initialise
    q = tl.load(q_ptrs, mask=mine, other=0.0)  # [BLOCK_M, BLOCK_D]
    row_max = tl.full([BLOCK_M], float("-inf"), tl.float32)
    row_sum = tl.zeros([BLOCK_M], tl.float32)
    acc = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)
    # 4. loop over tiles begin .. end of keys; those from whole_begin up to whole_end are seen whole by every row
    shift = N_KV - N_Q
    begin = max(0, first + shift - window + 1) // BLOCK_N
    end = tl.cdiv(min(N_KV, max(0, first + BLOCK_M + shift)), BLOCK_N)
    whole_begin = min(end, tl.cdiv(max(0, first + BLOCK_M + shift - window), BLOCK_N))
    whole_end = max(whole_begin, max(0, first + shift + 1) // BLOCK_N)
    for MASKED in tl.static_range(2):  # compiled twice: whole tiles first, then those on either side of them
        # 32-bit offsets inside a head: 64-bit ones in this loop make the compiler wait for every product (the host checks the range)
        for i in range(begin if MASKED else whole_begin, end - (whole_end - whole_begin) if MASKED else whole_end):
            start = i * BLOCK_N
            inside = in_head[None, :]  # a whole tile lies inside K and V
            if MASKED:
                start = tl.where(i < whole_begin, i, i + whole_end - whole_begin) * BLOCK_N
                inside = inside & (start + keys < N_KV)[:, None]
            k = tl.load(k_head + start * k_strides[2] + in_k, mask=inside, other=0.0)  # [BLOCK_N, BLOCK_D]
            s = tl.dot(q, k.T, input_precision="ieee")  # [BLOCK_M, BLOCK_N]
            if MASKED:
                back = rows[:, None] + shift - start - keys[None, :]  # how far back a key lies; bottom-right: 0 for the last of both
                visible = (back >= 0) & (back < window)
                s = tl.where(visible, s, float("-inf"))
            new_max = tl.maximum(row_max, tl.max(s, 1) * scale)  # in units of log2: exp2 is the instruction there is
            base = new_max
            if MASKED:
                base = tl.where(new_max == float("-inf"), 0.0, new_max)  # -inf - -inf is NaN: a row without keys stays 0
            p = tl.exp2(s * scale - base[:, None])  # [BLOCK_M, BLOCK_N]
            shrink = tl.exp2(row_max - base)
            row_max = new_max
            row_sum = row_sum * shrink + tl.sum(p, 1)
            v = tl.load(v_head + start * v_strides[2] + in_v, mask=inside, other=0.0)  # [BLOCK_N, BLOCK_D]
            acc = tl.dot(p.to(v.dtype), v, acc * shrink[:, None], input_precision="ieee")  # [BLOCK_M, BLOCK_D]
    # 5. write
    row_sum = tl.where(row_sum == 0.0, 1.0, row_sum)  # a row without keys: out 0, lse -inf
    out_ptrs = out_ptr + b * out_strides[0] + h * out_strides[1] + wide * out_strides[2] + columns[None, :] * out_strides[3]
    tl.store(out_ptrs, (acc / row_sum[:, None]).to(out_ptr.dtype.element_ty), mask=mine)
    lse = (row_max + tl.log2(row_sum)) * 0.6931471805599453  # ln 2: from log2 to the natural logarithm
    tl.store(lse_ptr + (b * H + h) * N_Q + rows, lse, mask=rows < N_Q)


def flash_window_forward(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, window: int, scale: float | None = None, config: dict | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Causal attention over the last `window` keys of each query, and the log-sum-exp of the scaled scores that it sees.

    q        [B, H, N_Q, D] float16, bfloat16 or float32, D at most 256, any strides
    k, v     [B, H_KV, N_KV, D], same dtype, any strides; H is a multiple of H_KV
    window   1 or more: query i sees keys i + N_KV - N_Q - window + 1 up to i + N_KV - N_Q (bottom-right), its own position included
    scale    above 0; 1 / sqrt(D) where None
    returns  (out, lse): out as q, lse [B, H, N_Q] float32, natural; a row without keys has out 0 and lse -inf
    """
    scale = require_attention("flash_window_forward", q, k, v, scale)
    window = require_window("flash_window_forward", window)
    (B, H, N_Q, D), (H_KV, N_KV) = q.shape, k.shape[1:3]
    out, lse = torch.empty_like(q), torch.empty((B, H, N_Q), dtype=torch.float32, device=q.device)
    if lse.numel():
        BLOCK_D = power_of_two(D)
        config = config or choose(CONFIGS[max(64, BLOCK_D)], q.device, q.element_size())
        flash_window_kernel[(triton.cdiv(N_Q, config["BLOCK_M"]) * B * H,)](
            q, k, v, out, lse, q.stride(), k.stride(), v.stride(), out.stride(), H, H // H_KV, N_Q, N_KV, window, scale * 1.4426950408889634,
            D=D, BLOCK_D=BLOCK_D, **config,
        )  # fmt: skip
    return out, lse
