"""Other people's backward passes, for races: through autograd, and FlashAttention-3's own.

The forward pass runs untimed, once for each copy of the inputs; what is timed is the backward pass alone, with the graph kept.
Knows nothing of the course's kernels.
"""

import functools
from collections.abc import Callable

import torch
from torch import Tensor

from course_lib import peers
from course_lib.races import Contestant


def one_tensor(gradients: tuple) -> Tensor:
    """(dq, dk, dv, ...) [B, H, N, D] each -> [B, H, 3 N, D], so that one comparison sees all three."""
    return torch.cat(tuple(gradients)[:3], 2)


def by_autograd(name: str, make: Callable[[], Callable], arranged: Callable = lambda *inputs: inputs) -> Contestant:
    """The backward pass of make()(q, k, v) through autograd; `arranged` turns the inputs into its layout first."""
    attention = functools.cache(make)

    def forward(*inputs: Tensor) -> tuple:
        q, k, v, dout = arranged(*inputs)
        leaves = [x.detach().requires_grad_() for x in (q, k, v)]
        with torch.enable_grad():
            return attention()(*leaves), leaves, dout

    def prepare() -> Callable:
        attention()
        return lambda out, leaves, dout: torch.autograd.grad(out, leaves, dout, retain_graph=True)

    return Contestant(name, prepare, arrange=forward, output=one_tensor)


def flash_attention_3(causal: bool) -> Contestant:
    """FlashAttention-3's backward, from the library that COURSE_FA3_LIBRARY names; layout [B, N, H, D]."""
    forward = functools.cache(lambda: peers.flash_attention_3(causal))

    def arrange(*inputs: Tensor) -> tuple:
        q, k, v, dout = peers.rows_of_tokens(*inputs)
        out, lse, *_ = forward()(q, k, v)
        return dout, q, k, v, out, lse

    def prepare() -> Callable:
        forward()
        backward = torch.ops.flash_attn_3.bwd
        return lambda dout, q, k, v, out, lse: backward(dout, q, k, v, out, lse, softmax_scale=q.shape[-1] ** -0.5, is_causal=causal)

    return Contestant("FA3", prepare, arrange=arrange, output=lambda returned: one_tensor([x.transpose(1, 2) for x in returned[:3]]))


def usual(N: int, causal: bool, device: str) -> tuple[Contestant, ...]:
    """Everybody whose backward pass takes q, k, v, dout [B, H, N, D] with as many K/V heads as query heads."""
    naive = by_autograd("naive", lambda: peers.naive(N, causal, device))
    if device == "cpu":
        return naive, by_autograd("SDPA", lambda: peers.sdpa("FLASH_ATTENTION", causal))
    backends = {"FA2": "FLASH_ATTENTION", "cuDNN": "CUDNN_ATTENTION", "efficient": "EFFICIENT_ATTENTION"}
    return (
        naive,
        *(by_autograd(name, lambda backend=backend: peers.sdpa_by_backend(backend, causal)) for name, backend in backends.items()),
        flash_attention_3(causal),
        by_autograd("FlexAttention", lambda: peers.flex(N, causal, device)),
    )
