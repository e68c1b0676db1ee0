"""The races of the variants of attention: packed sequences against the dense kernel on as many tokens, a window against full causal attention,
changed scores against FlexAttention.

Who computes something else (full causal attention beside a window) is timed for the ratio, and not compared. FLOPs count the pairs of
query and key that a variant keeps.
"""

from functools import partial

import torch
from torch import Tensor

from course_lib import peers_variants, races_backward
from course_lib.races import Contestant, Race

WINDOW = 1024
SOFT_CAP = 30.0


def flash_varlen(s) -> list[Race]:
    return [_packed_race(s, False, *size) for size in _packed_sizes(s)]


def flash_varlen_backward(s) -> list[Race]:
    return [_packed_race(s, True, *size) for size in _packed_sizes(s)]


def flash_window(s) -> list[Race]:
    return [_window_race(s, False, *size) for size in _window_sizes(s)]


def flash_window_backward(s) -> list[Race]:
    return [_window_race(s, True, *size) for size in _window_sizes(s)]


def flash_score_mod(s) -> list[Race]:
    return [_score_race(s, max(1, 16384 // N) if s.device == "cuda" else 1, _heads(s, D), N, D) for D, N in _lengths(s, (4096,))]


def _heads(s, D: int) -> int:
    return (2048 if s.device == "cuda" else 128) // D


def _lengths(s, full: tuple[int, ...]) -> list[tuple[int, int]]:
    return [(D, N) for D in (64, 128) for N in s.choose(full, full, (512,), (150,))]


def _packed_sizes(s) -> list[tuple]:
    """(causal, the number of sequences, heads, N, D): 16K tokens of width 2,048."""
    tokens = {"cuda": 16384}.get(s.device, 1024)
    return [(causal, 2 if s.tiny else max(1, tokens // N), _heads(s, D), N, D) for D, N in _lengths(s, (1024, 4096)) for causal in (False, True)]


def _window_sizes(s) -> list[tuple]:
    """(heads, N, D, window)."""
    return [(_heads(s, D), N, D, WINDOW if s.device == "cuda" else N // 8) for D, N in _lengths(s, (16384,))]


def _packed_race(s, backward: bool, causal: bool, B: int, H: int, N: int, D: int) -> Race:
    """Sequences of one length, so that the dense kernel has as much to do; the course's kernel does not know that they are."""
    from kernels import attention_delta, flash_varlen, flash_varlen_backward

    cu = (torch.arange(B + 1, device=s.device) * N).to(torch.int32)
    dense = races_backward.flash_race(s, "flash_varlen_backward" if backward else "flash_varlen", backward, causal, B, H, N, D)

    def packed(x: Tensor) -> Tensor:
        return x.transpose(1, 2).reshape(B * N, H, D)

    def unpacked(x: Tensor) -> Tensor:
        return x.unflatten(0, (B, N)).transpose(1, 2)

    def arrange(*inputs: Tensor) -> tuple:
        q, k, v, *rest = (packed(x) for x in inputs)
        if not backward:
            return q, k, v
        out, lse = flash_varlen.flash_varlen_forward(q, k, v, cu, cu, N, N, causal)
        delta = attention_delta.attention_delta(out.transpose(0, 1)[None], rest[0].transpose(0, 1)[None])[0]
        return q, k, v, rest[0], lse, delta

    host = flash_varlen_backward.flash_varlen_backward if backward else flash_varlen.flash_varlen_forward
    function = partial(host, cu_q=cu, cu_k=cu, max_q=N, max_k=N, causal=causal)
    if backward:
        course = Contestant("course", lambda: function, True, arrange, lambda found: torch.cat([unpacked(x) for x in found], 2))
    else:
        course = Contestant("course", lambda: function, True, arrange, lambda found: unpacked(found[0]))
    return races_backward.with_contestants(dense, course, *peers_variants.packed(s.device, backward, causal, cu, N, packed, unpacked))


def _window_race(s, backward: bool, H: int, N: int, D: int, window: int) -> Race:
    from kernels import attention_delta, flash_window, flash_window_backward

    race = races_backward.flash_race(s, "flash_window_backward" if backward else "flash_window", backward, True, 1, H, N, D, window)

    def arrange(*inputs: Tensor) -> tuple:
        if not backward:
            return inputs
        out, lse = flash_window.flash_window_forward(*inputs[:3], window)
        return *inputs, lse, attention_delta.attention_delta(out, inputs[3])

    host = flash_window_backward.flash_window_backward if backward else flash_window.flash_window_forward
    output = (lambda found: torch.cat(found, 2)) if backward else (lambda found: found[0])
    course = Contestant("course", lambda: partial(host, window=window), True, arrange, output)
    return races_backward.with_contestants(race, course, *peers_variants.windowed(s.device, backward, N, window))


def _score_race(s, B: int, H: int, N: int, D: int) -> Race:
    """Causal, with slopes and a cap."""
    from kernels import flash_score_mod

    slopes = torch.exp2(-8 * torch.arange(1, H + 1, device=s.device) / H)
    race = races_backward.flash_race(s, "flash_score_mod", False, True, B, H, N, D, changes=tuple(partial(_changed, slopes, by_exp) for by_exp in (False, True)))
    course = Contestant(
        "course", lambda: partial(flash_score_mod.flash_score_mod_forward, slopes=slopes, soft_cap=SOFT_CAP), True, lambda *inputs: inputs[:3],
        lambda found: found[0],
    )  # fmt: skip
    return races_backward.with_contestants(race, course, *peers_variants.changed(s.device, N, slopes, SOFT_CAP))


def _changed(slopes: Tensor, by_exp: bool, scores: Tensor, h: int) -> Tensor:
    """Scaled scores [N, N] of head h -> changed ones, with torch's tanh or with one by exponentials."""
    at = torch.arange(scores.shape[0], device=scores.device)
    distance = (at[:, None] - at[None, :]).abs()
    capped = SOFT_CAP - 2 * SOFT_CAP / (1 + torch.exp(scores * (2 / SOFT_CAP))) if by_exp else SOFT_CAP * torch.tanh(scores / SOFT_CAP)
    return capped - slopes[h].to(scores.dtype) * distance
