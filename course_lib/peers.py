"""Other people's functions, for races: torch's own, torch.compile, SDPA by backend, FlexAttention, FlashAttention-3.

Each is made by a function that raises `NotHere`, or the library's own error, where it cannot run. Attention takes q, k, v
[B, H, N, D] with as many K/V heads as query heads and N_Q = N_KV. Knows nothing of the course's kernels.
"""

import ctypes
import os
import warnings
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from course_lib.races import NotHere

FA3_LIBRARY, FA3_CUDART = "COURSE_FA3_LIBRARY", "COURSE_FA3_CUDART"
LONGEST_NAIVE = 4096  # beyond, the score matrices alone are tens of GB


def fresh_compiler() -> None:
    """Forget what torch.compile has made: after eight shapes of one function it gives up, and FlexAttention then runs as plain torch."""
    import torch._dynamo  # some seconds, so not with the module

    torch._dynamo.reset()


def compiled(function: Callable) -> Callable:
    """torch.compile for these shapes alone."""
    return torch.compile(function, dynamic=False)


def naive(N: int, causal: bool, device: str) -> Callable:
    """Three operations of torch with the N x N scores in memory."""
    if N > LONGEST_NAIVE:
        raise NotHere(f"N is above {LONGEST_NAIVE:,}, and its N x N scores would fill the memory")
    hidden = torch.ones(N, N, dtype=torch.bool, device=device).triu(1) if causal else None

    def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        s = q @ k.mT * q.shape[-1] ** -0.5
        return torch.softmax(s if hidden is None else s.masked_fill_(hidden, -torch.inf), -1) @ v

    return attention


def sdpa(backend: str, causal: bool) -> Callable:
    """F.scaled_dot_product_attention by one backend alone: FLASH_ATTENTION (FlashAttention-2), CUDNN_ATTENTION, EFFICIENT_ATTENTION."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    if not hasattr(SDPBackend, backend):
        raise NotHere(f"torch {torch.__version__} has no backend {backend}")
    chosen = getattr(SDPBackend, backend)

    def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        with sdpa_kernel(chosen):
            return F.scaled_dot_product_attention(q, k, v, is_causal=causal)

    return attention


def explained(function: Callable) -> Callable:
    """SDPA warns why a backend refuses, then raises a sentence without the reason: this one puts the reason in."""

    def attention(*inputs):
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            try:
                return function(*inputs)
            except RuntimeError as error:
                if "No available kernel" not in str(error):
                    raise
                reasons = [str(one.message).split(" (Triggered")[0].strip() for one in said]
                reasons = [text for text in reasons if not text.endswith("because:")]
                raise NotHere(reasons[0] if reasons else "this backend does not run here") from None

    return attention


def sdpa_by_backend(backend: str, causal: bool) -> Callable:
    """As `sdpa`; a refusal is explained at the first call, later ones run without the watching."""
    plain, first = sdpa(backend, causal), True

    def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        nonlocal first
        if first:
            out, first = explained(plain)(q, k, v), False
            return out
        return plain(q, k, v)

    return attention


def flex(N: int, causal: bool, device: str) -> Callable:
    """FlexAttention, compiled; causal by a block mask, so that hidden tiles are skipped."""
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    if device != "cuda":
        raise NotHere("FlexAttention is compiled for a GPU")
    attention = compiled(flex_attention)
    mask = create_block_mask(lambda b, h, i, j: i >= j, None, None, N, N, device=device) if causal else None
    return lambda q, k, v: attention(q, k, v, block_mask=mask)


def flash_attention_3(causal: bool) -> Callable:
    """FlashAttention-3's forward, (out, ...) in layout [B, N, H, D], from the library that COURSE_FA3_LIBRARY names."""
    library = os.environ.get(FA3_LIBRARY)
    if not library:
        raise NotHere(f"set {FA3_LIBRARY} to its library (flash_attn_3/_C.so of the xformers 0.0.34 wheel), {FA3_CUDART} to libcudart.so.12")
    if not os.path.exists(library):
        raise NotHere(f"{FA3_LIBRARY} names a file that does not exist")
    if cudart := os.environ.get(FA3_CUDART):
        ctypes.CDLL(cudart, mode=ctypes.RTLD_GLOBAL)
    torch.ops.load_library(library)
    forward = torch.ops.flash_attn_3.fwd
    return lambda q, k, v: forward(q, k, v, softmax_scale=q.shape[-1] ** -0.5, is_causal=causal)


def rows_of_tokens(*tensors: Tensor) -> tuple[Tensor, ...]:
    """[B, H, N, D] -> [B, N, H, D], each a contiguous copy."""
    return tuple(x.transpose(1, 2).contiguous() for x in tensors)
