"""Changed scores: a tanh that caps them and a penalty on distance (ALiBi), between the first product and the softmax.

Notebook   07 Faster and more general
Reference  kernels/flash_forward.py; the difference between the two files is what happens to s
Paper      Press et al. 2021 (ALiBi), section 3; Gemma Team 2024 (Gemma 2), section 2, for the cap
Shapes     q, out [B, H, N_Q, D]; k, v [B, H_KV, N_KV, D]; slopes [H] float32; lse [B, H, N_Q] float32; any strides
Grid       (tiles of queries * B * H,); causal: the tile with the most work starts first

    s = q @ k.T * scale
    s = soft_cap * tanh(s / soft_cap)            scores stay between -soft_cap and soft_cap
    s = s - slope * distance                     of query and key, both counted from the end
    the other steps of flash_forward
"""

import torch
import triton
import triton.language as tl

from kernels.launching import choose, power_of_two, require, require_attention

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
def flash_score_mod_kernel(
    q_ptr, k_ptr, v_ptr, out_ptr, lse_ptr, slopes_ptr, q_strides, k_strides, v_strides, out_strides, H, GROUP, N_Q, N_KV, scale, cap,
    D: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, CAUSAL: tl.constexpr,
    CAPPED: tl.constexpr, ALIBI: tl.constexpr,
):  # fmt: skip
    # 1. who am I
    tiles = tl.cdiv(N_Q, BLOCK_M)
    tile = tiles - 1 - tl.program_id(0) % tiles
    b = (tl.program_id(0) // tiles // H).to(tl.int64)  # int64: b * stride may pass 2**31
    h = (tl.program_id(0) // tiles % H).to(tl.int64)
    # 2. where is my data
    rows = tile * BLOCK_M + tl.arange(0, BLOCK_M)  # [BLOCK_M]
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
    if ALIBI:
        slope = tl.load(slopes_ptr + h) * 1.4426950408889634  # in units of log2, as the scores are
    # 4. loop: keys below `full` need no mask; keys from `last` on are seen by no row of this tile
    shift = N_KV - N_Q
    full, last = N_KV, N_KV
    if CAUSAL:
        full = min(N_KV, max(0, tile * BLOCK_M + shift + 1))
        last = min(N_KV, max(0, tile * BLOCK_M + BLOCK_M + shift))
    full = full // BLOCK_N * BLOCK_N
    for MASKED in tl.static_range(2):  # compiled twice: whole tiles first, then those that need the mask
        # 32-bit offsets inside a head: 64-bit ones in this loop make the compiler wait for every product (the host checks the range)
        for start in range(full if MASKED else 0, last if MASKED else full, BLOCK_N):
            inside = in_head[None, :]  # a whole tile lies inside K and V
            if MASKED:
                inside = inside & (start + keys < N_KV)[:, None]
            k = tl.load(k_head + start * k_strides[2] + in_k, mask=inside, other=0.0)  # [BLOCK_N, BLOCK_D]
            s = tl.dot(q, k.T, input_precision="ieee")  # [BLOCK_M, BLOCK_N]
            s = s * scale  # in units of log2: exp2 is the instruction there is
            if CAPPED:
                s = cap - 2 * cap / (1 + tl.exp2(s * (2.8853900817779268 / cap)))  # tanh by exp2: 2 / ln 2, as cap is in units of log2 too
            if ALIBI:
                s = s - slope * tl.abs(rows[:, None] + shift - start - keys[None, :]).to(tl.float32)
            if MASKED:
                visible = (start + keys < N_KV)[None, :]
                if CAUSAL:  # bottom-right: the last query sees every key
                    visible = visible & (start + keys[None, :] <= rows[:, None] + shift)
                s = tl.where(visible, s, float("-inf"))
            new_max = tl.maximum(row_max, tl.max(s, 1))
            base = new_max
            if MASKED:
                base = tl.where(new_max == float("-inf"), 0.0, new_max)  # -inf - -inf is NaN: a row without keys stays 0
            p = tl.exp2(s - base[:, None])  # [BLOCK_M, BLOCK_N]
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


def flash_score_mod_forward(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, slopes: torch.Tensor | None = None, soft_cap: float | None = None,
    causal: bool = True, scale: float | None = None, config: dict | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
    """Attention whose scaled scores are capped, then lowered by the distance of query and key; and the log-sum-exp of what comes of them.

    q         [B, H, N_Q, D] float16, bfloat16 or float32, D at most 256, any strides
    k, v      [B, H_KV, N_KV, D], same dtype, any strides; H is a multiple of H_KV
    slopes    [H] float32 or None: slopes[h] * |i + N_KV - N_Q - j| is subtracted from the score of query i and key j
    soft_cap  above 0 or None: soft_cap * tanh(score / soft_cap) takes the score's place, before any slope
    causal    query i sees key j where j <= i + N_KV - N_Q (bottom-right)
    scale     above 0; 1 / sqrt(D) where None
    returns   (out, lse): out as q, lse [B, H, N_Q] float32, natural; a row without keys has out 0 and lse -inf
    """
    scale = require_attention("flash_score_mod_forward", q, k, v, scale)
    (B, H, N_Q, D), (H_KV, N_KV) = q.shape, k.shape[1:3]
    if slopes is not None:
        fits = slopes.shape == (H,) and slopes.dtype == torch.float32 and slopes.device == q.device
        require(fits, "flash_score_mod_forward", f"slopes must be float32 [{H}], one for each head of q, on its device", q=q, slopes=slopes)
    capped = soft_cap is None or 0 < soft_cap < float("inf")
    require(capped, "flash_score_mod_forward", f"soft_cap must be above 0 and finite, or None; it is {soft_cap}", q=q)
    out, lse = torch.empty_like(q), torch.empty((B, H, N_Q), dtype=torch.float32, device=q.device)
    if lse.numel():
        BLOCK_D = power_of_two(D)
        config = config or choose(CONFIGS[max(64, BLOCK_D)], q.device, q.element_size())
        flash_score_mod_kernel[(triton.cdiv(N_Q, config["BLOCK_M"]) * B * H,)](
            q, k, v, out, lse, None if slopes is None else slopes.contiguous(), q.stride(), k.stride(), v.stride(), out.stride(),
            H, H // H_KV, N_Q, N_KV, scale * 1.4426950408889634, (soft_cap or 1.0) * 1.4426950408889634,
            D=D, BLOCK_D=BLOCK_D, CAUSAL=causal, CAPPED=soft_cap is not None, ALIBI=slopes is not None, **config,
        )  # fmt: skip
    return out, lse
