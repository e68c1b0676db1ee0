"""Attention with its gradient: the forward and backward kernels as one function that PyTorch can differentiate, compile and autocast.

Notebook   06 FlashAttention, backward
Reference  torch.autograd through course_lib.oracles.attention
Paper      Dao 2023 (FlashAttention-2), algorithms 1 and 2
Shapes     q, out [B, H, N_Q, D]; k, v [B, H_KV, N_KV, D]; any strides

    forward     out, lse = flash_forward(q, k, v)                  saved: q, k, v, out, lse, all linear in N
    backward    delta = sum(out * dout)
                dk, dv = flash_backward_dkdv(...)                  scores are computed again from lse: nothing N x N was kept
                dq = flash_backward_dq(...)

Two kernels compute seven products where one would need five: one kernel that adds dQ up with atomics was tried on an H200 and was
slower (benchmarks/results/backward_variants.json: 345 TFLOP/s at D = 128, N = 4,096; the two here 406), and its bits change.

As custom operators the two passes are opaque to torch.compile: it traces the shapes (`register_fake`) and never looks inside.
"""

import torch

from kernels.attention_delta import attention_delta
from kernels.flash_backward_dkdv import flash_backward_dkdv
from kernels.flash_backward_dq import flash_backward_dq
from kernels.flash_forward import flash_attention_forward
from kernels.launching import autocast, require_attention


@torch.library.custom_op("attention_tile_by_tile::flash_attention", mutates_args=())
def _forward(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, causal: bool, scale: float) -> tuple[torch.Tensor, torch.Tensor]:
    return flash_attention_forward(q, k, v, causal, scale)


@_forward.register_fake
def _(q, k, v, causal, scale):
    return torch.empty_like(q), q.new_empty(q.shape[:3], dtype=torch.float32)


@torch.library.custom_op("attention_tile_by_tile::flash_attention_backward", mutates_args=())
def _backward(
    dout: torch.Tensor, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, out: torch.Tensor, lse: torch.Tensor, causal: bool, scale: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    delta = attention_delta(out, dout)
    dk, dv = flash_backward_dkdv(q, k, v, dout, lse, delta, causal, scale)
    return flash_backward_dq(q, k, v, dout, lse, delta, causal, scale), dk, dv


@_backward.register_fake
def _(dout, q, k, v, out, lse, causal, scale):
    return torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)


def _keep(ctx, inputs, output) -> None:
    q, k, v, ctx.causal, ctx.scale = inputs
    ctx.save_for_backward(q, k, v, *output)
    ctx.mark_non_differentiable(output[1])


def _differentiate(ctx, dout, _):
    return *_backward(dout, *ctx.saved_tensors, ctx.causal, ctx.scale), None, None


_forward.register_autograd(_differentiate, setup_context=_keep)


def flash_attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, causal: bool = False, scale: float | None = None) -> torch.Tensor:
    """softmax(q @ k.T * scale) @ v, differentiable once; memory grows with N, not with N^2, in both passes.

    q        [B, H, N_Q, D] float16, bfloat16 or float32, D at most 256, any strides
    k, v     [B, H_KV, N_KV, D], same dtype, any strides; H is a multiple of H_KV
    causal   query i sees key j where j <= i + N_KV - N_Q (bottom-right); a row without keys is 0 and has gradient 0
    scale    above 0; 1 / sqrt(D) where None
    returns  out as q; inside torch.autocast, in its dtype
    """
    q, k, v = autocast(q, k, v)
    scale = require_attention("flash_attention", q, k, v, scale)
    return _forward(q, k, v, causal, scale)[0]
