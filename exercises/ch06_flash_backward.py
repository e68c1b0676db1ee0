"""Chapter 06: FlashAttention, backward.

Generated from solutions/ch06_flash_backward.py by `make sync`: the exercises as nobody has touched them yet.
You may edit this file. `course check NAME` takes an edited exercise over into answers/, where your work is kept.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor


# %% exercise attention_grads | core | 20 minutes | 4 points | torch
def attention_grads(
    q: Tensor, k: Tensor, v: Tensor, dout: Tensor, scale: float | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of softmax(q @ k.T * scale) @ v, without autograd.

    q        [..., N_Q, D]; k [..., N_KV, D]; v [..., N_KV, D_V]: same leading dimensions
    dout     [..., N_Q, D_V], the gradient of the loss by the output
    scale    above 0; None means 1 / sqrt(D)
    returns  (dq, dk, dv): the gradients of the loss by q, k and v, each of its shape and dtype

    The N_Q x N_KV matrices may be made. torch.softmax may be used; autograd may not.
    Example: with one query and one key, dq and dk are 0 (the weight is 1 whatever the score),
    and dv is dout.
    Source: FlashAttention, appendix B.2.
    """
    raise NotImplementedError("attention_grads (chapter 06) is not written yet")
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    ...  # yours


# %% exercise attention_delta | core | 12 minutes | 2 points | triton
@triton.jit
def attention_delta_kernel(
    out_ptr, dout_ptr, delta_ptr, N, D,
    out_sb, out_sh, out_sn, out_sd, dout_sb, dout_sh, dout_sn, dout_sd,
    BLOCK_M: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    # 1. who am I: some rows of head h of sequence b
    h = tl.program_id(1).to(tl.int64)
    b = tl.program_id(2).to(tl.int64)
    rows = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)  # [BLOCK_M]
    dims = tl.arange(0, BLOCK_D)  # [BLOCK_D], of which D exist
    # 2. where is my data
    out_ptrs = out_ptr + b * out_sb + h * out_sh + rows[:, None] * out_sn + dims[None, :] * out_sd
    dout_ptrs = dout_ptr + b * dout_sb + h * dout_sh + rows[:, None] * dout_sn + dims[None, :] * dout_sd
    delta_ptrs = delta_ptr + (b * tl.num_programs(1) + h) * N + rows  # [B, H, N], contiguous
    # yours: load, multiply, add, store


def attention_delta(out: Tensor, dout: Tensor) -> Tensor:
    """The row sums of dout * out: what every score's gradient subtracts.

    out, dout  [B, H, N, D] float32 or float16, any strides, each its own
    returns    [B, H, N] float32; the products and sums are float32

    Example: out = [1, 2, 3], dout = [4, 0, 1] has delta = 4 + 0 + 3 = 7.
    Graded besides the values: one launch, out and dout read once, no copies.
    Source: FlashAttention-2, Algorithm 2, line 4 (there: D).
    """
    raise NotImplementedError("attention_delta (chapter 06) is not written yet")
    B, H, N, D = out.shape
    delta = torch.empty((B, H, N), dtype=torch.float32, device=out.device)
    BLOCK_M = 64
    attention_delta_kernel[(triton.cdiv(N, BLOCK_M), H, B)](
        out, dout, delta, N, D, *out.stride(), *dout.stride(),
        BLOCK_M=BLOCK_M, BLOCK_D=max(16, triton.next_power_of_2(D)),
    )  # fmt: skip
    return delta


# %% exercise flash_backward_dkdv | core | 40 minutes | 6 points | triton
@triton.jit
def flash_backward_dkdv_kernel(
    q_ptr, k_ptr, v_ptr, dout_ptr, lse_ptr, delta_ptr, dk_ptr, dv_ptr, N_Q, N_KV, D, scale,
    q_sb, q_sh, q_sn, q_sd, k_sb, k_sh, k_sn, k_sd,
    v_sb, v_sh, v_sn, v_sd, dout_sb, dout_sh, dout_sn, dout_sd,
    CAUSAL: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    # 1. who am I: one tile of keys, of head h of sequence b
    h = tl.program_id(1).to(tl.int64)
    b = tl.program_id(2).to(tl.int64)
    head = b * tl.num_programs(1) + h
    keys = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)  # [BLOCK_N]
    rows = tl.arange(0, BLOCK_M)  # [BLOCK_M], those of the first tile of queries
    dims = tl.arange(0, BLOCK_D)  # [BLOCK_D], of which D exist
    # 2. where is my data
    k_ptrs = k_ptr + b * k_sb + h * k_sh + keys[:, None] * k_sn + dims[None, :] * k_sd
    v_ptrs = v_ptr + b * v_sb + h * v_sh + keys[:, None] * v_sn + dims[None, :] * v_sd
    q_ptrs = q_ptr + b * q_sb + h * q_sh + rows[:, None] * q_sn + dims[None, :] * q_sd
    dout_ptrs = dout_ptr + b * dout_sb + h * dout_sh + rows[:, None] * dout_sn + dims[None, :] * dout_sd
    lse_ptrs = lse_ptr + head * N_Q + rows  # lse and delta [B, H, N_Q], contiguous
    delta_ptrs = delta_ptr + head * N_Q + rows
    dk_ptrs = dk_ptr + (head * N_KV + keys[:, None]) * D + dims[None, :]  # dk and dv [B, H, N_KV, D], contiguous
    dv_ptrs = dv_ptr + (head * N_KV + keys[:, None]) * D + dims[None, :]
    # yours: 3. initialise, 4. loop, 5. write


def flash_backward_dkdv(
    q: Tensor, k: Tensor, v: Tensor, dout: Tensor, lse: Tensor, delta: Tensor, scale: float | None = None, causal: bool = False
) -> tuple[Tensor, Tensor]:
    """The gradients of attention by k and v, from one kernel that makes P again and never stores it.

    q, dout     [B, H, N_Q, D] float32, any strides; k, v [B, H, N_KV, D], any strides
    lse, delta  [B, H, N_Q] float32, contiguous: as flash_forward_lse and attention_delta give them;
                lse is -inf for a query that sees no key
    scale       above 0; None means 1 / sqrt(D)
    causal      query i sees key j where j <= i + N_KV - N_Q (bottom right), or every key
    returns     (dk, dv), each [B, H, N_KV, D], the dtype of k

    Graded besides the values: one launch; a program reads its tile of K and V once; Q, dout, lse
    and delta are read at most once per tile of 16 keys; each result stored once; under causal, tiles
    of queries that see no key of a tile are not read; no copies, no TF32.
    Source: FlashAttention-2, Algorithm 2, the loop over the rows i.
    """
    raise NotImplementedError("flash_backward_dkdv (chapter 06) is not written yet")
    (B, H, N_Q, D), N_KV = q.shape, k.shape[2]
    scale = D**-0.5 if scale is None else scale
    dk = torch.empty((B, H, N_KV, D), dtype=k.dtype, device=k.device)
    dv = torch.empty((B, H, N_KV, D), dtype=v.dtype, device=v.device)
    BLOCK_M = 32
    BLOCK_N = 32
    grid = ...  # yours: how many programs along each of its three axes?
    flash_backward_dkdv_kernel[grid](
        q, k, v, dout, lse, delta, dk, dv, N_Q, N_KV, D, scale,
        *q.stride(), *k.stride(), *v.stride(), *dout.stride(), CAUSAL=causal,
        BLOCK_M=BLOCK_M, BLOCK_N=BLOCK_N, BLOCK_D=max(16, triton.next_power_of_2(D)),
    )  # fmt: skip
    return dk, dv


# %% exercise flash_backward_dq | more | 20 minutes | 4 points | triton
@triton.jit
def flash_backward_dq_kernel(
    q_ptr, k_ptr, v_ptr, dout_ptr, lse_ptr, delta_ptr, dq_ptr, N_Q, N_KV, D, scale,
    q_sb, q_sh, q_sn, q_sd, k_sb, k_sh, k_sn, k_sd,
    v_sb, v_sh, v_sn, v_sd, dout_sb, dout_sh, dout_sn, dout_sd,
    CAUSAL: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    # 1. who am I: one tile of queries, of head h of sequence b
    h = tl.program_id(1).to(tl.int64)
    b = tl.program_id(2).to(tl.int64)
    head = b * tl.num_programs(1) + h
    rows = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)  # [BLOCK_M]
    keys = tl.arange(0, BLOCK_N)  # [BLOCK_N], those of the first tile
    dims = tl.arange(0, BLOCK_D)  # [BLOCK_D], of which D exist
    # 2. where is my data
    q_ptrs = q_ptr + b * q_sb + h * q_sh + rows[:, None] * q_sn + dims[None, :] * q_sd
    dout_ptrs = dout_ptr + b * dout_sb + h * dout_sh + rows[:, None] * dout_sn + dims[None, :] * dout_sd
    k_ptrs = k_ptr + b * k_sb + h * k_sh + keys[:, None] * k_sn + dims[None, :] * k_sd
    v_ptrs = v_ptr + b * v_sb + h * v_sh + keys[:, None] * v_sn + dims[None, :] * v_sd
    lse_ptrs = lse_ptr + head * N_Q + rows  # lse and delta [B, H, N_Q], contiguous
    delta_ptrs = delta_ptr + head * N_Q + rows
    dq_ptrs = dq_ptr + (head * N_Q + rows[:, None]) * D + dims[None, :]  # dq [B, H, N_Q, D], contiguous
    # yours: 3. initialise, 4. loop, 5. write


def flash_backward_dq(
    q: Tensor, k: Tensor, v: Tensor, dout: Tensor, lse: Tensor, delta: Tensor, scale: float | None = None, causal: bool = False
) -> Tensor:
    """The gradient of attention by q, from one kernel that makes P again and never stores it.

    q, dout     [B, H, N_Q, D] float32, any strides; k, v [B, H, N_KV, D], any strides; N_KV may be 0
    lse, delta  [B, H, N_Q] float32, contiguous; lse is -inf for a query that sees no key
    scale       above 0; None means 1 / sqrt(D)
    causal      mask aligned bottom right, or none
    returns     dq [B, H, N_Q, D], the dtype of q; 0 for a query that sees no key

    Graded besides the values: one launch; Q, dout, lse and delta read once; K and V read at most
    once per tile of 16 queries; each result stored once; under causal, tiles of keys that no query
    of a tile sees are not read; no copies, no TF32.
    Source: FlashAttention-2, Algorithm 2, line 15, as a loop of its own.
    """
    raise NotImplementedError("flash_backward_dq (chapter 06) is not written yet")
    (B, H, N_Q, D), N_KV = q.shape, k.shape[2]
    scale = D**-0.5 if scale is None else scale
    dq = torch.empty((B, H, N_Q, D), dtype=q.dtype, device=q.device)
    BLOCK_M = 32
    BLOCK_N = 32
    grid = ...  # yours
    flash_backward_dq_kernel[grid](
        q, k, v, dout, lse, delta, dq, N_Q, N_KV, D, scale,
        *q.stride(), *k.stride(), *v.stride(), *dout.stride(), CAUSAL=causal,
        BLOCK_M=BLOCK_M, BLOCK_N=BLOCK_N, BLOCK_D=max(16, triton.next_power_of_2(D)),
    )  # fmt: skip
    return dq


# %% exercise FlashAttention | core | 15 minutes | 4 points | triton
class FlashAttention(torch.autograd.Function):
    """Attention that autograd can train through: your kernels, forward and backward.

    FlashAttention.apply(q, k, v, scale, causal) -> out; scale and causal may be left out
    q           [B, H, N_Q, D] float32, any strides; k, v [B, H, N_KV, D]
    scale       above 0; None means 1 / sqrt(D)
    causal      mask aligned bottom right, or none
    returns     out [B, H, N_Q, D]; its backward gives the gradients of q, k and v

    The incoming gradient dout may have any strides: that of out.sum() has stride 0 everywhere.
    Graded besides the values: between forward and backward only q, k, v, out and lse are kept, with
    ctx.save_for_backward; nothing as large as N_Q x N_KV is made; delta is computed once.
    Source: FlashAttention-2, Algorithms 1 and 2; torch.autograd.Function.
    """

    @staticmethod
    def forward(ctx, q: Tensor, k: Tensor, v: Tensor, scale: float | None = None, causal: bool = False) -> Tensor:
        raise NotImplementedError("FlashAttention (chapter 06) is not written yet")
        from course_lib.earlier import flash_forward_lse

        ...  # yours

    @staticmethod
    def backward(ctx, dout: Tensor):
        raise NotImplementedError("FlashAttention (chapter 06) is not written yet")
        from course_lib.earlier import attention_delta, flash_backward_dkdv, flash_backward_dq

        ...  # yours


# %% exercise checkpointed_memory | more | 15 minutes | 3 points | model
def checkpointed_memory(layers: int, segment: int, input_bytes: int, kept_bytes: int) -> int:
    """The most bytes of activations alive at once in a training step with checkpoints.

    A stack of equal layers. For its backward a layer needs its input (input_bytes) and what it kept
    besides (kept_bytes). The stack is cut into segments of `segment` layers, the last one perhaps
    shorter. The forward pass keeps each segment's input and nothing else. The backward pass takes
    segments from the last to the first: it runs the segment forward again from its input, now
    keeping everything its layers need, walks it back, and frees all of it, its input included.

    layers, segment  at least 1; segment may be layers or more: one segment is no checkpointing
    returns          bytes, an int. Gradients and the output of the stack are not counted.

    Example: checkpointed_memory(4, 2, 10, 100) is 230: 2 inputs of segments, 200 of two layers'
    own, 10 for the second layer's input. Without checkpoints: checkpointed_memory(4, 4, 10, 100) = 440.
    Source: Chen et al. 2016, Training Deep Nets with Sublinear Memory Cost, section 4.
    """
    raise NotImplementedError("checkpointed_memory (chapter 06) is not written yet")


# as generated: top 0aad717f5924, attention_grads bf6edc47e36e, attention_delta 525613b06d78, flash_backward_dkdv a132a68f509f, flash_backward_dq 5c6a3fa5c93f, FlashAttention 659cbce23ed7, checkpointed_memory b0a6788c2009
