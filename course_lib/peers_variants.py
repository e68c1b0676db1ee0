"""Other people's packed, windowed and changed attention, for races, and the course's dense kernels beside them for the ratio.

Inputs come as q, k, v [B, H, N, D], and dout where it is the backward pass that is raced.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from course_lib import peers, peers_backward
from course_lib.races import Contestant, NotHere


def dense(name: str, backward: bool, causal: bool, judged: bool = True) -> Contestant:
    """The course's own kernel without the variant, as a peer."""
    from course_lib import races_backward

    if backward:
        arrange, function = races_backward.saved(causal), races_backward.whole(causal)
        return Contestant(name, lambda: function, arrange=arrange, output=peers_backward.one_tensor, judged=judged)

    def forward(q: Tensor, k: Tensor, v: Tensor) -> tuple:
        from kernels.flash_forward import flash_attention_forward

        return flash_attention_forward(q, k, v, causal)

    return Contestant(name, lambda: forward, arrange=lambda *inputs: inputs[:3], output=lambda found: found[0], judged=judged)


def packed(device: str, backward: bool, causal: bool, cu: Tensor, N: int, pack: Callable, unpack: Callable) -> tuple[Contestant, ...]:
    """The dense kernel on as many tokens, torch's varlen_attn, FlashAttention-3 with cu_seqlens."""

    def all_packed(*inputs: Tensor) -> tuple:
        return tuple(pack(x) for x in inputs)

    def of_torch() -> Callable:
        try:
            from torch.nn.attention.varlen import varlen_attn
        except ImportError:
            raise NotHere(f"torch {torch.__version__} has no torch.nn.attention.varlen") from None
        if device != "cuda":
            raise NotHere("varlen_attn needs a GPU")
        try:
            return lambda q, k, v: varlen_attn(q, k, v, cu, cu, N, N, **({"window_size": (-1, 0)} if causal else {}))
        except TypeError as error:
            raise NotHere(f"this torch's varlen_attn takes other arguments: {error}") from None

    def fa3() -> Callable:
        peers.flash_attention_3(causal)
        return lambda q, k, v: torch.ops.flash_attn_3.fwd(
            q, k, v, cu_seqlens_q=cu, cu_seqlens_k=cu, max_seqlen_q=N, max_seqlen_k=N, softmax_scale=q.shape[-1] ** -0.5, is_causal=causal
        )

    if device == "cpu":  # where the course's own kernels are interpreted, and have no speed
        sdpa = peers_backward.by_autograd("SDPA", lambda: peers.sdpa("FLASH_ATTENTION", causal))
        return (sdpa if backward else Contestant("SDPA", lambda: peers.sdpa("FLASH_ATTENTION", causal), arrange=lambda *inputs: inputs[:3]),)
    ours = dense("dense", backward, causal)
    if backward:
        by_torch = peers_backward.by_autograd("varlen_attn", of_torch, all_packed)
        gradients = lambda found: torch.cat([unpack(x) for x in found[:3]], 2)  # noqa: E731
        return ours, Contestant("varlen_attn", by_torch.prepare, arrange=by_torch.arrange, output=gradients)
    by_torch = Contestant("varlen_attn", of_torch, arrange=all_packed, output=unpack)
    return ours, by_torch, Contestant("FA3", fa3, arrange=all_packed, output=lambda found: unpack(found[0]))


def windowed(device: str, backward: bool, N: int, window: int) -> tuple[Contestant, ...]:
    """Full causal attention (timed only), FlashAttention-3 and FlexAttention with the same window."""
    if device == "cpu":
        return ()
    full = dense("full causal", backward, True, judged=False)

    def fa3() -> Callable:
        peers.flash_attention_3(True)
        return lambda q, k, v: torch.ops.flash_attn_3.fwd(
            q, k, v, softmax_scale=q.shape[-1] ** -0.5, is_causal=True, window_size_left=window - 1, window_size_right=0
        )

    def flex() -> Callable:
        from torch.nn.attention.flex_attention import create_block_mask, flex_attention

        mask = create_block_mask(lambda b, h, i, j: (i >= j) & (i - j < window), None, None, N, N, device=device)
        attention = peers.compiled(flex_attention)
        return lambda q, k, v: attention(q, k, v, block_mask=mask)

    if backward:
        return full, peers_backward.by_autograd("FlexAttention", flex)
    of_tokens = Contestant("FA3", fa3, arrange=peers.rows_of_tokens, output=lambda out: out[0].transpose(1, 2))
    return full, of_tokens, Contestant("FlexAttention", flex)


def changed(device: str, N: int, slopes: Tensor, soft_cap: float) -> tuple[Contestant, ...]:
    """Plain causal attention (timed only), and FlexAttention with the same change of scores."""
    if device == "cpu":
        return ()
    plain = dense("unchanged", False, True, judged=False)

    def flex() -> Callable:
        from torch.nn.attention.flex_attention import create_block_mask, flex_attention

        mask = create_block_mask(lambda b, h, i, j: i >= j, None, None, N, N, device=device)
        attention = peers.compiled(flex_attention)

        def change(score, b, h, i, j):
            return soft_cap * torch.tanh(score / soft_cap) - slopes[h] * (i - j)

        return lambda q, k, v: attention(q, k, v, score_mod=change, block_mask=mask)

    return plain, Contestant("FlexAttention", flex)
