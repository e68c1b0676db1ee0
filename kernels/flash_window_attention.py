"""A sliding window with its gradient: kernels/flash_window.py and its backward pass as one function that PyTorch can differentiate, compile and autocast.

Notebook   07 Faster and more general
Reference  kernels/flash_attention.py; the difference between the two files is the window in place of `causal`
Paper      Beltagy et al. 2020 (Longformer), section 3.1; Dao 2023 (FlashAttention-2), algorithms 1 and 2
Shapes     q, out [B, H, N_Q, D]; k, v [B, H_KV, N_KV, D]; any strides

    forward     out, lse = flash_window_forward(q, k, v, window)   saved: q, k, v, out, lse, all linear in N
    backward    delta = sum(out * dout)
                dq, dk, dv = flash_window_backward(...)            two launches, each over the tiles that the window touches
"""

import torch

from kernels.attention_delta import attention_delta
from kernels.flash_window import flash_window_forward
from kernels.flash_window_backward import flash_window_backward
from kernels.launching import autocast, require_attention


@torch.library.custom_op("attention_tile_by_tile::flash_window_attention", mutates_args=())
def _forward(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, window: int, scale: float) -> tuple[torch.Tensor, torch.Tensor]:
    return flash_window_forward(q, k, v, window, scale)


@_forward.register_fake
def _(q, k, v, window, scale):
    return torch.empty_like(q), q.new_empty(q.shape[:3], dtype=torch.float32)


@torch.library.custom_op("attention_tile_by_tile::flash_window_attention_backward", mutates_args=())
def _backward(
    dout: torch.Tensor, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, out: torch.Tensor, lse: torch.Tensor, window: int, scale: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return flash_window_backward(q, k, v, dout, lse, attention_delta(out, dout), window, scale)


@_backward.register_fake
def _(dout, q, k, v, out, lse, window, scale):
    return torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)


def _keep(ctx, inputs, output) -> None:
    q, k, v, ctx.window, ctx.scale = inputs
    ctx.save_for_backward(q, k, v, *output)
    ctx.mark_non_differentiable(output[1])


def _differentiate(ctx, dout, _):
    return *_backward(dout, *ctx.saved_tensors, ctx.window, ctx.scale), None, None


_forward.register_autograd(_differentiate, setup_context=_keep)


def flash_window_attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, window: int, scale: float | None = None) -> torch.Tensor:
    """Causal attention over the last `window` keys of each query, differentiable once; work grows with N * window, memory with N.

    q        [B, H, N_Q, D] float16, bfloat16 or float32, D at most 256, any strides
    k, v     [B, H_KV, N_KV, D], same dtype, any strides; H is a multiple of H_KV
    window   1 or more: query i sees keys i + N_KV - N_Q - window + 1 up to i + N_KV - N_Q; a row without keys is 0 and has gradient 0
    scale    above 0; 1 / sqrt(D) where None
    returns  out as q; inside torch.autocast, in its dtype
    """
    q, k, v = autocast(q, k, v)
    scale = require_attention("flash_window_attention", q, k, v, scale)
    return _forward(q, k, v, window, scale)[0]
