"""Packed sequences with their gradient: kernels/flash_varlen.py and its backward pass as one function that PyTorch can differentiate, compile and autocast.

Notebook   07 Faster and more general
Reference  kernels/flash_attention.py on each sequence alone; the difference between the two files is cu_q and cu_k, which have no gradient
Paper      Dao 2023 (FlashAttention-2), algorithms 1 and 2; packing as in Krell et al. 2021 (Efficient sequence packing)
Shapes     q, out [T_Q, H, D]; k, v [T_K, H_KV, D]; cu_q, cu_k [B + 1] int32; any strides

    forward     out, lse = flash_varlen_forward(q, k, v, cu_q, cu_k, ...)   saved: q, k, v, cu_q, cu_k, out, lse, all linear in T_Q and T_K
    backward    delta = sum(out * dout)                                     a row knows no sequence: all tokens as one
                dq, dk, dv = flash_varlen_backward(...)

What lies in cu_q and cu_k is looked at inside the operator (on a CPU only): torch.compile never sees a value of theirs.
"""

import torch

from kernels.attention_delta import attention_delta
from kernels.flash_varlen import flash_varlen_forward
from kernels.flash_varlen_backward import flash_varlen_backward
from kernels.launching import autocast


@torch.library.custom_op("attention_tile_by_tile::flash_varlen_attention", mutates_args=())
def _forward(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, cu_q: torch.Tensor, cu_k: torch.Tensor,
    max_q: int, max_k: int, causal: bool, scale: float | None,
) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
    return flash_varlen_forward(q, k, v, cu_q, cu_k, max_q, max_k, causal, scale)


@_forward.register_fake
def _(q, k, v, cu_q, cu_k, max_q, max_k, causal, scale):
    return torch.empty_like(q), q.new_empty((q.shape[1], q.shape[0]), dtype=torch.float32)


@torch.library.custom_op("attention_tile_by_tile::flash_varlen_attention_backward", mutates_args=())
def _backward(
    dout: torch.Tensor, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, cu_q: torch.Tensor, cu_k: torch.Tensor,
    out: torch.Tensor, lse: torch.Tensor, max_q: int, max_k: int, causal: bool, scale: float | None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:  # fmt: skip
    delta = attention_delta(*(x.transpose(0, 1)[None] for x in (out, dout)))[0]  # [H, T_Q]
    return flash_varlen_backward(q, k, v, dout, lse, delta, cu_q, cu_k, max_q, max_k, causal, scale)


@_backward.register_fake
def _(dout, q, k, v, cu_q, cu_k, out, lse, max_q, max_k, causal, scale):
    return torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)


def _keep(ctx, inputs, output) -> None:
    *tensors, ctx.max_q, ctx.max_k, ctx.causal, ctx.scale = inputs
    ctx.save_for_backward(*tensors, *output)
    ctx.mark_non_differentiable(output[1])


def _differentiate(ctx, dout, _):
    return *_backward(dout, *ctx.saved_tensors, ctx.max_q, ctx.max_k, ctx.causal, ctx.scale), *[None] * 6


_forward.register_autograd(_differentiate, setup_context=_keep)


def flash_varlen_attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, cu_q: torch.Tensor, cu_k: torch.Tensor, max_q: int, max_k: int,
    causal: bool = False, scale: float | None = None,
) -> torch.Tensor:  # fmt: skip
    """Attention inside each of B packed sequences, differentiable once; nothing is padded, memory grows with the tokens.

    q             [T_Q, H, D] float16, bfloat16 or float32, D at most 256, any strides; T_Q rows of it span less than 2^31 elements
    k, v          [T_K, H_KV, D], same dtype, any strides; H is a multiple of H_KV
    cu_q, cu_k    [B + 1] int32: sequence b has queries cu_q[b] .. cu_q[b + 1] - 1; from 0, never falling, up to T_Q (T_K)
    max_q, max_k  the longest sequence's queries and keys, or more: numbers, so that no launch waits for the GPU
    causal        query i of a sequence sees its key j where j <= i + N_KV - N_Q, by its own lengths; a row without keys is 0, with gradient 0
    scale         above 0; 1 / sqrt(D) where None
    returns       out as q; inside torch.autocast, in its dtype
    """
    q, k, v = autocast(q, k, v)
    return _forward(q, k, v, cu_q, cu_k, max_q, max_k, causal, scale)[0]
