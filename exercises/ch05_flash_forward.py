"""Chapter 05: FlashAttention, forward.

Generated from solutions/ch05_flash_forward.py by `make sync`: the exercises as nobody has touched them yet.
You may edit this file. `course check NAME` takes an edited exercise over into answers/, where your work is kept.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor


# %% exercise flash_blocks | more | 15 minutes | 3 points | model
def flash_blocks(
    head_dim: int, shared_bytes: int, stages: int = 2, bytes_each: int = 2
) -> tuple[int, int]:
    """The tile heights of a flash kernel that fit the shared memory one thread block may have.

    In shared memory lie one tile of Q, [BLOCK_M, BLOCK_D], and `stages` tiles each of K and V,
    [BLOCK_N, BLOCK_D]: while one is used, the next ones are on their way. Scores and `acc` live
    in registers. BLOCK_D is head_dim rounded up to a power of two, at least 16.

    head_dim       D, width of a head
    shared_bytes   bytes of shared memory that one block may have
    stages         tiles of K, and of V, held at a time
    bytes_each     2 for fp16 and bf16
    returns        (BLOCK_M, BLOCK_N), each one of 16, 32, 64, 128: the largest BLOCK_M that fits
                   beside any BLOCK_N, then the largest BLOCK_N beside it; (0, 0) where none fits

    Example: flash_blocks(128, 65536) is (128, 32), exactly full (a T4: 32 KiB of Q, 32 of K and V).
    Source: FlashAttention, Algorithm 1, line 1 (block sizes from the size of SRAM), as Triton fills it.
    """
    raise NotImplementedError("flash_blocks (chapter 05) is not written yet")


# %% exercise flash_forward | core | 35 minutes | 6 points | triton
@triton.jit
def flash_forward_kernel(
    q_ptr, k_ptr, v_ptr, out_ptr, N_Q, N_KV, D, scale,
    q_sb, q_sh, q_sn, q_sd, k_sb, k_sh, k_sn, k_sd,
    v_sb, v_sh, v_sn, v_sd, out_sb, out_sh, out_sn, out_sd,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    # 1. who am I: one tile of queries, of head h of sequence b
    h = tl.program_id(1).to(tl.int64)
    b = tl.program_id(2).to(tl.int64)
    rows = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)  # [BLOCK_M]
    keys = tl.arange(0, BLOCK_N)  # [BLOCK_N], those of the first tile
    dims = tl.arange(0, BLOCK_D)  # [BLOCK_D], of which D exist
    # 2. where is my data
    q_ptrs = q_ptr + b * q_sb + h * q_sh + rows[:, None] * q_sn + dims[None, :] * q_sd
    k_ptrs = k_ptr + b * k_sb + h * k_sh + keys[:, None] * k_sn + dims[None, :] * k_sd
    v_ptrs = v_ptr + b * v_sb + h * v_sh + keys[:, None] * v_sn + dims[None, :] * v_sd
    out_ptrs = out_ptr + b * out_sb + h * out_sh + rows[:, None] * out_sn + dims[None, :] * out_sd
    # yours: 3. initialise, 4. loop, 5. write


def flash_forward(q: Tensor, k: Tensor, v: Tensor, scale: float | None = None) -> Tensor:
    """softmax(q @ k.T * scale) @ v in one kernel that never stores a score.

    q        [B, H, N_Q, D] float32 or float16, any strides
    k, v     [B, H, N_KV, D], same dtype, any strides; N_KV at least 1
    scale    above 0; None means 1 / sqrt(D)
    returns  [B, H, N_Q, D], same dtype; row_max, row_sum and acc are float32 in between

    N_Q, N_KV and D need not be multiples of anything.
    Graded besides the values: one launch, each result stored once, K and V read at most once per
    tile of 16 queries, at most 512 keys held at a time, no copy made first, float32 products not
    rounded to TF32.
    Source: FlashAttention-2, Algorithm 1, without the log-sum-exp.
    """
    raise NotImplementedError("flash_forward (chapter 05) is not written yet")
    (B, H, N_Q, D), N_KV = q.shape, k.shape[2]
    scale = D**-0.5 if scale is None else scale
    out = torch.empty((B, H, N_Q, D), dtype=q.dtype, device=q.device)
    BLOCK_M = 64
    BLOCK_N = 32
    grid = ...  # yours: how many programs along each of its three axes?
    flash_forward_kernel[grid](
        q, k, v, out, N_Q, N_KV, D, scale,
        *q.stride(), *k.stride(), *v.stride(), *out.stride(),
        BLOCK_M=BLOCK_M, BLOCK_N=BLOCK_N, BLOCK_D=max(16, triton.next_power_of_2(D)),
    )  # fmt: skip
    return out


# %% exercise flash_forward_causal | core | 20 minutes | 4 points | triton
@triton.jit
def flash_forward_causal_kernel(
    q_ptr, k_ptr, v_ptr, out_ptr, N_Q, N_KV, D, scale,
    q_sb, q_sh, q_sn, q_sd, k_sb, k_sh, k_sn, k_sd,
    v_sb, v_sh, v_sn, v_sd, out_sb, out_sh, out_sn, out_sd,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    # 1. who am I: one tile of queries, of head h of sequence b
    h = tl.program_id(1).to(tl.int64)
    b = tl.program_id(2).to(tl.int64)
    rows = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)  # [BLOCK_M]
    keys = tl.arange(0, BLOCK_N)  # [BLOCK_N], those of the first tile
    dims = tl.arange(0, BLOCK_D)  # [BLOCK_D], of which D exist
    # 2. where is my data
    q_ptrs = q_ptr + b * q_sb + h * q_sh + rows[:, None] * q_sn + dims[None, :] * q_sd
    k_ptrs = k_ptr + b * k_sb + h * k_sh + keys[:, None] * k_sn + dims[None, :] * k_sd
    v_ptrs = v_ptr + b * v_sb + h * v_sh + keys[:, None] * v_sn + dims[None, :] * v_sd
    out_ptrs = out_ptr + b * out_sb + h * out_sh + rows[:, None] * out_sn + dims[None, :] * out_sd
    # yours: 3. initialise, 4. loop, 5. write


def flash_forward_causal(
    q: Tensor, k: Tensor, v: Tensor, scale: float | None = None
) -> Tensor:
    """flash_forward under a causal mask, aligned bottom right: query i sees key j where
    j <= i + N_KV - N_Q. A query that sees no key gives zeros.

    q        [B, H, N_Q, D] float32, any strides; k, v [B, H, N_KV, D]; either may be longer
    scale    above 0; None means 1 / sqrt(D)
    returns  [B, H, N_Q, D], same dtype

    Graded besides the values: tiles of K and V that no query of a tile sees are not read.
    Otherwise as flash_forward: one launch, each result stored once, no copies, nothing rounded.
    Source: FlashAttention-2, section 3.1 (causal masking); chapter 02's causal_mask.
    """
    raise NotImplementedError("flash_forward_causal (chapter 05) is not written yet")
    (B, H, N_Q, D), N_KV = q.shape, k.shape[2]
    scale = D**-0.5 if scale is None else scale
    out = torch.empty((B, H, N_Q, D), dtype=q.dtype, device=q.device)
    BLOCK_M = 64
    BLOCK_N = 32
    flash_forward_causal_kernel[(triton.cdiv(N_Q, BLOCK_M), H, B)](
        q, k, v, out, N_Q, N_KV, D, scale,
        *q.stride(), *k.stride(), *v.stride(), *out.stride(),
        BLOCK_M=BLOCK_M, BLOCK_N=BLOCK_N, BLOCK_D=max(16, triton.next_power_of_2(D)),
    )  # fmt: skip
    return out


# %% exercise flash_forward_lse | core | 15 minutes | 3 points | triton
@triton.jit
def flash_forward_lse_kernel(
    q_ptr, k_ptr, v_ptr, out_ptr, lse_ptr, N_Q, N_KV, D, scale,
    q_sb, q_sh, q_sn, q_sd, k_sb, k_sh, k_sn, k_sd,
    v_sb, v_sh, v_sn, v_sd, out_sb, out_sh, out_sn, out_sd,
    CAUSAL: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    # 1. who am I: one tile of queries, of head h of sequence b
    h = tl.program_id(1).to(tl.int64)
    b = tl.program_id(2).to(tl.int64)
    rows = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)  # [BLOCK_M]
    keys = tl.arange(0, BLOCK_N)  # [BLOCK_N], those of the first tile
    dims = tl.arange(0, BLOCK_D)  # [BLOCK_D], of which D exist
    # 2. where is my data
    q_ptrs = q_ptr + b * q_sb + h * q_sh + rows[:, None] * q_sn + dims[None, :] * q_sd
    k_ptrs = k_ptr + b * k_sb + h * k_sh + keys[:, None] * k_sn + dims[None, :] * k_sd
    v_ptrs = v_ptr + b * v_sb + h * v_sh + keys[:, None] * v_sn + dims[None, :] * v_sd
    out_ptrs = out_ptr + b * out_sb + h * out_sh + rows[:, None] * out_sn + dims[None, :] * out_sd
    lse_ptrs = lse_ptr + (b * tl.num_programs(1) + h) * N_Q + rows  # [B, H, N_Q], contiguous
    # yours: 3. initialise, 4. loop, 5. write


def flash_forward_lse(
    q: Tensor, k: Tensor, v: Tensor, scale: float | None = None, causal: bool = False
) -> tuple[Tensor, Tensor]:
    """Attention and the log-sum-exp of every row of scaled scores, from one kernel.

    q        [B, H, N_Q, D] float32, any strides; k, v [B, H, N_KV, D]; N_KV may be 0
    scale    above 0; None means 1 / sqrt(D)
    causal   mask as in flash_forward_causal (bottom right), or none
    returns  (out, lse): out [B, H, N_Q, D], same dtype; lse [B, H, N_Q] float32, natural logarithm.
             A row without keys has out 0 and lse -inf.

    Graded besides the values: as flash_forward, and under `causal` as flash_forward_causal.
    Source: FlashAttention-2, Algorithm 1, line 13; the course's convention for lse.
    """
    raise NotImplementedError("flash_forward_lse (chapter 05) is not written yet")
    (B, H, N_Q, D), N_KV = q.shape, k.shape[2]
    scale = D**-0.5 if scale is None else scale
    out = torch.empty((B, H, N_Q, D), dtype=q.dtype, device=q.device)
    lse = torch.empty((B, H, N_Q), dtype=torch.float32, device=q.device)
    BLOCK_M = 64
    BLOCK_N = 32
    flash_forward_lse_kernel[(triton.cdiv(N_Q, BLOCK_M), H, B)](
        q, k, v, out, lse, N_Q, N_KV, D, scale,
        *q.stride(), *k.stride(), *v.stride(), *out.stride(), CAUSAL=causal,
        BLOCK_M=BLOCK_M, BLOCK_N=BLOCK_N, BLOCK_D=max(16, triton.next_power_of_2(D)),
    )  # fmt: skip
    return out, lse


# %% exercise flash_forward_gqa | more | 25 minutes | 4 points | triton
@triton.jit
def flash_forward_gqa_kernel(
    q_ptr, k_ptr, v_ptr, out_ptr, GROUP, N_Q, N_KV, D, scale,
    q_sb, q_sh, q_sn, q_sd, k_sb, k_sh, k_sn, k_sd,
    v_sb, v_sh, v_sn, v_sd, out_sb, out_sh, out_sn, out_sd,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    # 1. who am I: some of the queries that share K/V head h of sequence b
    h = tl.program_id(1).to(tl.int64)
    b = tl.program_id(2).to(tl.int64)
    keys = tl.arange(0, BLOCK_N)  # [BLOCK_N], those of the first tile
    dims = tl.arange(0, BLOCK_D)  # [BLOCK_D], of which D exist
    # yours: which of the group's queries are mine, in which heads do they live, where is my data?
    # then 3. to 5. as in flash_forward


def flash_forward_gqa(q: Tensor, k: Tensor, v: Tensor, scale: float | None = None) -> Tensor:
    """Grouped-query attention: H query heads share H_KV heads of K and V, which are read once a group.

    q        [B, H, N_Q, D] float32, any strides
    k, v     [B, H_KV, N_KV, D]; H is a multiple of H_KV: query head h reads K/V head h // GROUP,
             where GROUP = H // H_KV. N_KV at least 1
    scale    above 0; None means 1 / sqrt(D)
    returns  [B, H, N_Q, D], same dtype

    Graded besides the values: K and V are read once for every 16 queries of a group at most, all
    its heads taken together. One launch, each result stored once, no copies, no TF32.
    Source: Ainslie et al. 2023 (GQA), section 2.2; PackGQA in FlashAttention-3.
    """
    raise NotImplementedError("flash_forward_gqa (chapter 05) is not written yet")
    (B, H, N_Q, D), (H_KV, N_KV) = q.shape, k.shape[1:3]
    GROUP = H // H_KV
    scale = D**-0.5 if scale is None else scale
    out = torch.empty((B, H, N_Q, D), dtype=q.dtype, device=q.device)
    BLOCK_M = 64
    BLOCK_N = 32
    grid = ...  # yours
    flash_forward_gqa_kernel[grid](
        q, k, v, out, GROUP, N_Q, N_KV, D, scale,
        *q.stride(), *k.stride(), *v.stride(), *out.stride(),
        BLOCK_M=BLOCK_M, BLOCK_N=BLOCK_N, BLOCK_D=max(16, triton.next_power_of_2(D)),
    )  # fmt: skip
    return out


# %% exercise flash_io_bytes | core | 15 minutes | 3 points | model
def flash_io_bytes(
    n_q: int, n_kv: int, d: int, block_m: int, heads: int = 1, bytes_each: int = 2
) -> int:
    """The bytes that a flash forward (version 2's loop order, no mask) asks memory for.

    Every program owns a tile of block_m queries of one head: it loads them once, loads all of K
    and V, stores its rows of the output once, and its rows of the log-sum-exp (4 bytes each).
    n_q, n_kv    queries and keys; d: width of a head; heads: each has K and V of its own
    block_m      queries a tile; n_q need not be a multiple
    bytes_each   bytes an element of Q, K, V and the output
    returns      bytes loaded and stored, all heads together

    Example: flash_io_bytes(100, 50, 8, 64) is 6,800: 1,600 of Q, 3,200 of K and V, 1,600 of the
    output, 400 of the log-sum-exp.
    Source: FlashAttention, Theorem 2, with the constants, for FlashAttention-2's loop order.
    """
    raise NotImplementedError("flash_io_bytes (chapter 05) is not written yet")


# as generated: top 7dd07cd37a72, flash_blocks 2d610cce806d, flash_forward 0389b00c33a8, flash_forward_causal cfe0de4e23bb, flash_forward_lse 31a1e7d3e6c6, flash_forward_gqa 49152833e528, flash_io_bytes b680dbe94c08
