"""The forward pass with two tiles of queries a program: while one waits for its exponentials, the other multiplies.

Notebook   05 FlashAttention, forward
Reference  kernels/flash_forward.py: the same shapes, the same results; the difference between the two files is the idea
Paper      Shah et al. 2024 (FlashAttention-3), section 3.1, where two warp groups take turns; here the compiler overlaps them
Shapes     q, out [B, H, N_Q, D]; k, v [B, H_KV, N_KV, D]; lse [B, H, N_Q] float32; any strides
Grid       (pairs of tiles of queries * B * H,); causal: the pair with the most work starts first

    for each tile of keys:
        s1, s2 = q1 @ k.T, q2 @ k.T              both products are under way
        state1 = fold(state1, s1, v)             exponentials of s1 while the tensor cores work on s2
        state2 = fold(state2, s2, v)             exponentials of s2 while they work on p1 @ v
"""

import torch
import triton
import triton.language as tl

from kernels.launching import choose, power_of_two, require_attention

# head size -> KiB of shared memory a block needs -> tiles; BLOCK_M counts the rows of one of the two tiles
CONFIGS = {
    64: {
        164: {"BLOCK_M": 64, "BLOCK_N": 64, "num_warps": 4, "num_stages": 3},
        80: {"BLOCK_M": 64, "BLOCK_N": 32, "num_warps": 4, "num_stages": 3},
        0: {"BLOCK_M": 16, "BLOCK_N": 32, "num_warps": 4, "num_stages": 1},
    },
    128: {
        164: {"BLOCK_M": 128, "BLOCK_N": 64, "num_warps": 8, "num_stages": 3},
        80: {"BLOCK_M": 32, "BLOCK_N": 64, "num_warps": 4, "num_stages": 2},
        0: {"BLOCK_M": 16, "BLOCK_N": 16, "num_warps": 4, "num_stages": 1},
    },
    256: {
        102: {"BLOCK_M": 32, "BLOCK_N": 64, "num_warps": 8, "num_stages": 2},
        96: {"BLOCK_M": 32, "BLOCK_N": 32, "num_warps": 8, "num_stages": 2},
        0: {"BLOCK_M": 8, "BLOCK_N": 16, "num_warps": 4, "num_stages": 1},
    },
}
TARGETS = (80, 86, 89, 90, 100, 120)


@triton.jit
def fold(s, v, row_max, row_sum, acc, rows, keys, N_KV, shift, scale, MASKED: tl.constexpr, CAUSAL: tl.constexpr):
    """One tile of scores s [BLOCK_M, BLOCK_N] into the state of its rows: the inside of flash_forward's loop."""
    if MASKED:
        visible = (keys < N_KV)[None, :]
        if CAUSAL:
            visible = visible & (keys[None, :] <= rows[:, None] + shift)
        s = tl.where(visible, s, float("-inf"))
    new_max = tl.maximum(row_max, tl.max(s, 1) * scale)
    base = new_max
    if MASKED:
        base = tl.where(new_max == float("-inf"), 0.0, new_max)
    p = tl.exp2(s * scale - base[:, None])  # [BLOCK_M, BLOCK_N]
    shrink = tl.exp2(row_max - base)
    acc = tl.dot(p.to(v.dtype), v, acc * shrink[:, None], input_precision="ieee")  # [BLOCK_M, BLOCK_D]
    return new_max, row_sum * shrink + tl.sum(p, 1), acc


@triton.jit
def flash_forward_two_tiles_kernel(
    q_ptr, k_ptr, v_ptr, out_ptr, lse_ptr, q_strides, k_strides, v_strides, out_strides, H, GROUP, N_Q, N_KV, scale,
    D: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, CAUSAL: tl.constexpr,
):  # fmt: skip
    # 1. who am I
    pairs = tl.cdiv(N_Q, 2 * BLOCK_M)
    first = (pairs - 1 - tl.program_id(0) % pairs) * 2 * BLOCK_M
    b = (tl.program_id(0) // pairs // H).to(tl.int64)
    h = (tl.program_id(0) // pairs % H).to(tl.int64)
    # 2. where is my data
    rows1 = first + tl.arange(0, BLOCK_M)  # [BLOCK_M]
    rows2 = rows1 + BLOCK_M
    keys = tl.arange(0, BLOCK_N)  # [BLOCK_N], of the first tile
    columns = tl.arange(0, BLOCK_D)  # [BLOCK_D]
    in_head = columns < D
    mine1, mine2 = (rows1 < N_Q)[:, None] & in_head[None, :], (rows2 < N_Q)[:, None] & in_head[None, :]
    q_ptrs = q_ptr + b * q_strides[0] + h * q_strides[1] + rows1.to(tl.int64)[:, None] * q_strides[2] + columns[None, :] * q_strides[3]
    k_head = k_ptr + b * k_strides[0] + h // GROUP * k_strides[1]
    in_k = keys[:, None] * k_strides[2] + columns[None, :] * k_strides[3]  # offsets inside a tile, the same for all of them
    v_head = v_ptr + b * v_strides[0] + h // GROUP * v_strides[1]
    in_v = keys[:, None] * v_strides[2] + columns[None, :] * v_strides[3]
    # 3. initialise
    q1 = tl.load(q_ptrs, mask=mine1, other=0.0)  # [BLOCK_M, BLOCK_D]
    q2 = tl.load(q_ptrs + BLOCK_M * q_strides[2], mask=mine2, other=0.0)
    max1 = tl.full([BLOCK_M], float("-inf"), tl.float32)
    sum1 = tl.zeros([BLOCK_M], tl.float32)
    acc1 = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)
    max2, sum2, acc2 = max1, sum1, acc1
    # 4. loop
    shift = N_KV - N_Q
    full, last = N_KV, N_KV
    if CAUSAL:
        full = min(N_KV, max(0, first + shift + 1))
        last = min(N_KV, max(0, first + 2 * BLOCK_M + shift))
    full = full // BLOCK_N * BLOCK_N
    for MASKED in tl.static_range(2):  # compiled twice: whole tiles first, then those that need the mask
        # 32-bit offsets inside a head: 64-bit ones in this loop make the compiler wait for every product (the host checks the range)
        for start in range(full if MASKED else 0, last if MASKED else full, BLOCK_N):
            inside = in_head[None, :]
            if MASKED:
                inside = inside & (start + keys < N_KV)[:, None]
            k = tl.load(k_head + start * k_strides[2] + in_k, mask=inside, other=0.0)  # [BLOCK_N, BLOCK_D]
            s1 = tl.dot(q1, k.T, input_precision="ieee")  # [BLOCK_M, BLOCK_N]
            s2 = tl.dot(q2, k.T, input_precision="ieee")
            v = tl.load(v_head + start * v_strides[2] + in_v, mask=inside, other=0.0)  # [BLOCK_N, BLOCK_D]
            max1, sum1, acc1 = fold(s1, v, max1, sum1, acc1, rows1, start + keys, N_KV, shift, scale, MASKED, CAUSAL)
            max2, sum2, acc2 = fold(s2, v, max2, sum2, acc2, rows2, start + keys, N_KV, shift, scale, MASKED, CAUSAL)
    # 5. write
    sum1, sum2 = tl.where(sum1 == 0.0, 1.0, sum1), tl.where(sum2 == 0.0, 1.0, sum2)  # a row without keys: out 0, lse -inf
    out_ptrs = out_ptr + b * out_strides[0] + h * out_strides[1] + rows1.to(tl.int64)[:, None] * out_strides[2] + columns[None, :] * out_strides[3]
    tl.store(out_ptrs, (acc1 / sum1[:, None]).to(out_ptr.dtype.element_ty), mask=mine1)
    tl.store(out_ptrs + BLOCK_M * out_strides[2], (acc2 / sum2[:, None]).to(out_ptr.dtype.element_ty), mask=mine2)
    lse_ptrs = lse_ptr + (b * H + h) * N_Q + rows1
    tl.store(lse_ptrs, (max1 + tl.log2(sum1)) * 0.6931471805599453, mask=rows1 < N_Q)
    tl.store(lse_ptrs + BLOCK_M, (max2 + tl.log2(sum2)) * 0.6931471805599453, mask=rows2 < N_Q)


def flash_attention_forward(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, causal: bool = False, scale: float | None = None, config: dict | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """softmax(q @ k.T * scale) @ v, and the log-sum-exp: the contract of kernels.flash_forward.flash_attention_forward."""
    scale = require_attention("flash_attention_forward", q, k, v, scale)
    (B, H, N_Q, D), (H_KV, N_KV) = q.shape, k.shape[1:3]
    out, lse = torch.empty_like(q), torch.empty((B, H, N_Q), dtype=torch.float32, device=q.device)
    if lse.numel():
        BLOCK_D = power_of_two(D)
        config = config or choose(CONFIGS[max(64, BLOCK_D)], q.device, q.element_size())
        flash_forward_two_tiles_kernel[(triton.cdiv(N_Q, 2 * config["BLOCK_M"]) * B * H,)](
            q, k, v, out, lse, q.stride(), k.stride(), v.stride(), out.stride(), H, H // H_KV, N_Q, N_KV, scale * 1.4426950408889634,
            D=D, BLOCK_D=BLOCK_D, CAUSAL=causal, **config,
        )  # fmt: skip
    return out, lse
