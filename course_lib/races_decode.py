"""The problems of `course bench` over a cache: decode, paged decode, paged prefill, writing K and V, RoPE. Data and plain functions.

Rates of the first two and the last two count compulsory bytes (K and V once), paged prefill the FLOPs of the pairs that attend.
Caches are full, so that peers without lengths do the same work; blocks lie in random order. `course_lib.races_problems` takes them in.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from course_lib import peers_decode
from course_lib.races import Contestant, Race

if TYPE_CHECKING:
    from course_lib.races_problems import Setting

BLOCK = 16
PICKED = 4  # requests that are compared


def _heads(s: Setting) -> tuple[int, int, int]:
    """H, H_KV, D: those of Llama-3-8B, or tiny ones."""
    return (4, 2, 16) if s.tiny else (8, 2, 64) if s.device == "cpu" else (32, 8, 128)


def _problems(s: Setting) -> list[tuple[int, int]]:
    """(requests, context): a full batch, one long request, a small batch of short ones."""
    if s.sizes and not s.tiny:
        return [(1 if s.device == "cpu" else 16, size) for size in s.sizes]
    return list(s.choose(((64, 8192), (1, 131_072), (16, 2048)), ((16, 2048),), ((4, 2048),), ((2, 70),)))


def _some(B: int, device: str) -> Tensor:
    from course_lib.races_problems import picked

    return picked(B, PICKED).to(device)


def _attend(q: Tensor, k: Tensor, v: Tensor, late: bool = False) -> Tensor:
    """q [B, H, D] over all of k, v [B, H_KV, N, D], by plain torch: [B, H, D]."""
    from course_lib.races_problems import attention_rows

    B, H, D = q.shape
    return attention_rows(q.view(B, k.shape[1], -1, D), k, v, None, late).reshape(B, H, D)


def _decode_race(s: Setting, name: str, size: dict, draw: Callable, gather: Callable, contestants: tuple, table_bytes: int = 0) -> Race:
    """What the two decodes share; `gather(inputs, at)` gives q, k, v of the requests `at`, dense."""
    (H, H_KV, D), B, N = _heads(s), size["requests"], size["context"]
    at = _some(B, s.device)
    return Race(
        name, size, draw, contestants,
        exact=lambda *inputs: _attend(*(x.double() for x in gather(inputs, at))),
        plain=(lambda *inputs: _attend(*gather(inputs, at)), lambda *inputs: _attend(*gather(inputs, at), late=True)),
        bytes=s.dtype.itemsize * (2 * B * H_KV * N * D + 2 * B * H * D) + 4 * B + table_bytes, pick=lambda out: out[at],
    )  # fmt: skip


def _lengths(s: Setting, B: int, N: int) -> Tensor:
    return torch.full((B,), N, dtype=torch.int32, device=s.device)


def decode(s: Setting) -> list[Race]:
    from kernels.decode_split import decode_split

    H, H_KV, D = _heads(s)

    def draw(g: torch.Generator, B: int, N: int) -> tuple[Tensor, ...]:
        return s.normal(g, B, H, D), s.normal(g, B, H_KV, N, D), s.normal(g, B, H_KV, N, D), _lengths(s, B, N)

    first = partial(_of_four, drop=2)
    backends = {"cuDNN": "CUDNN_ATTENTION", "FA2": "FLASH_ATTENTION", "math": "MATH"} if s.device == "cuda" else {"SDPA": None}
    theirs = [
        Contestant(name, partial(peers_decode.one_query, backend), arrange=peers_decode.whole_caches, output=first)
        for name, backend in backends.items()
    ]
    if s.device == "cuda":
        theirs.append(Contestant("FA3", peers_decode.flash_attention_3, arrange=peers_decode.tokens_first, output=partial(_of_four, drop=1)))
    mine = Contestant("course", lambda: decode_split, True, output=lambda pair: pair[0])
    return [
        _decode_race(
            s, "decode", {"requests": B, "context": N}, partial(draw, B=B, N=N), lambda inputs, at: [x[at] for x in inputs[:3]], (mine, *theirs)
        )
        for B, N in _problems(s)
    ]  # fmt: skip


def _of_four(out: Tensor, drop: int) -> Tensor:
    """[B, H, D] of a library's output with its one query in dimension `drop`."""
    return out.squeeze(drop)


def _paged(s: Setting, g: torch.Generator, B: int, N: int) -> tuple[Tensor, Tensor, Tensor]:
    """(k_cache, v_cache, block_tables) with room for B requests of N tokens, blocks in random order."""
    (_, H_KV, D), each = _heads(s), -(-N // BLOCK)
    order = torch.randperm(B * each, generator=g, device=s.device).int().reshape(B, each)
    return s.normal(g, B * each, BLOCK, H_KV, D), s.normal(g, B * each, BLOCK, H_KV, D), order


def _gathered(pages: Tensor, tables: Tensor, N: int) -> Tensor:
    """[B, H_KV, N, D] of pages [NUM_BLOCKS, BLOCK, H_KV, D]."""
    return pages[tables.long()].flatten(1, 2)[:, :N].transpose(1, 2)


def paged_decode(s: Setting) -> list[Race]:
    from kernels.paged_decode import paged_decode

    H, _, D = _heads(s)

    def draw(g: torch.Generator, B: int, N: int) -> tuple[Tensor, ...]:
        return s.normal(g, B, H, D), *_paged(s, g, B, N), _lengths(s, B, N)

    def gather(inputs: tuple, at: Tensor, N: int) -> list[Tensor]:
        q, k, v, tables, _ = inputs
        return [q[at], *(_gathered(pages, tables[at], N) for pages in (k, v))]

    theirs = (
        Contestant("FlashInfer", peers_decode.flashinfer_decode, arrange=peers_decode.plan_decode),
        Contestant("FA3", peers_decode.flash_attention_3, arrange=lambda q, k, v, tables, lengths: (q[:, None], k, v, lengths, tables),
                   output=partial(_of_four, drop=1)),
    )  # fmt: skip
    contestants = (Contestant("course", lambda: paged_decode, True), *(theirs if s.device == "cuda" else ()))
    return [
        _decode_race(
            s, "paged_decode", {"requests": B, "context": N, "block": BLOCK}, partial(draw, B=B, N=N), partial(gather, N=N), contestants,
            4 * B * -(-N // BLOCK),
        )
        for B, N in _problems(s)
    ]  # fmt: skip


# ---------------------------------------------------------------- prefill


def paged_prefill(s: Setting) -> list[Race]:
    """Whole prompts, then chunks of 512 tokens behind a long prefix, then a few tokens that are verified."""
    problems = ((4, 4096, 4096), (8, 512, 8192), (32, 5, 8192)) if s.device == "cuda" else ((2, 512, 512),)
    problems = [(4, size, size) for size in s.sizes] if s.sizes else problems[:1] if s.quick else problems
    return [_prefill_race(s, *sizes) for sizes in ([(2, 30, 50)] if s.tiny else problems)]


def _prefill_race(s: Setting, B: int, n: int, N: int) -> Race:
    from course_lib.races_problems import attention_rows, picked
    from kernels.flash_forward import flash_attention_forward
    from kernels.paged_prefill import paged_prefill

    H, H_KV, D = _heads(s)
    at = picked(n, 32).to(s.device)  # queries of the last request
    hidden = torch.arange(N, device=s.device)[None, :] > (at + N - n)[:, None]
    rows = (B - 1) * n + at

    def draw(g: torch.Generator) -> tuple[Tensor, ...]:
        cu_q = torch.arange(B + 1, dtype=torch.int32, device=s.device) * n
        return s.normal(g, B * n, H, D), *_paged(s, g, B, N), cu_q, _lengths(s, B, N)

    def some(inputs: tuple, dtype: torch.dtype | None = None, late: bool = False) -> Tensor:
        q, k, v, tables, _, _ = inputs
        dense = [_gathered(pages, tables[-1:], N).repeat_interleave(H // H_KV, 1) for pages in (k, v)]
        q, k, v = (x.to(dtype or x.dtype) for x in (q[rows].transpose(0, 1)[None], *dense))
        return attention_rows(q, k, v, hidden, late)[0].transpose(0, 1)

    def dense(q: Tensor, k: Tensor, v: Tensor, tables: Tensor, cu_q: Tensor, lengths: Tensor) -> tuple[Tensor, ...]:
        return q.view(B, n, H, D).transpose(1, 2).contiguous(), *(_gathered(pages, tables, N).contiguous() for pages in (k, v))

    def back(pair: tuple) -> Tensor:
        return pair[0].transpose(1, 2).reshape(B * n, H, D)

    theirs = [Contestant("dense", lambda: partial(flash_attention_forward, causal=True), arrange=dense, output=back)] if not s.tiny else []
    if s.device == "cuda":
        theirs += [
            Contestant("FlashInfer", peers_decode.flashinfer_decode, arrange=peers_decode.plan_prefill),
            Contestant("FA3", partial(peers_decode.flash_attention_3, n), arrange=lambda q, k, v, tables, cu_q, N_KV: (q, k, v, N_KV, tables, cu_q)),
        ]
    pairs = B * H * (n * (N - n) + n * (n + 1) // 2)
    size = s.dtype.itemsize * (2 * B * n * H * D + 2 * B * N * H_KV * D)
    return Race(
        "paged_prefill", {"requests": B, "queries": n, "context": N, "block": BLOCK}, draw,
        (Contestant("course", lambda: partial(paged_prefill, max_q=n), True), *theirs),
        exact=lambda *inputs: some(inputs, torch.float64), plain=(lambda *inputs: some(inputs), lambda *inputs: some(inputs, late=True)),
        bytes=size, flops=4 * D * pairs, ceiling=s.rate, pick=lambda out: out[rows], exponentials=pairs,
    )  # fmt: skip


# ---------------------------------------------------------------- rows


def to_slots(k: Tensor, v: Tensor, k_cache: Tensor, v_cache: Tensor, slots: Tensor, config: dict | None = None) -> tuple[Tensor, ...]:
    """The course's kernel; what it wrote can be read from the caches it returns."""
    from kernels.write_kv import write_kv

    write_kv(k, v, k_cache, v_cache, slots, config)
    return k_cache, v_cache, slots


to_slots.__module__ = "kernels.write_kv"  # where `races_resources` looks for the kernel


def by_index(k: Tensor, v: Tensor, k_cache: Tensor, v_cache: Tensor, slots: Tensor) -> tuple[Tensor, ...]:
    for cache, new in ((k_cache, k), (v_cache, v)):
        cache.flatten(0, 1).index_copy_(0, slots, new)
    return k_cache, v_cache, slots


def at_slots(returned: tuple) -> Tensor:
    """What stands at the slots: [2, T, H_KV, D]."""
    return torch.stack([cache.flatten(0, 1)[returned[2]] for cache in returned[:2]])


def write_kv(s: Setting) -> list[Race]:
    (_, H_KV, D), out = _heads(s), []
    for T in s.choose((8192, 64), (8192,), (2048,), (40,)):
        blocks = 2 * -(-T // BLOCK)

        def draw(g: torch.Generator, T: int = T, blocks: int = blocks) -> tuple[Tensor, ...]:
            slots = torch.randperm(blocks * BLOCK, generator=g, device=s.device)[:T]
            return *(s.normal(g, T, H_KV, D) for _ in "kv"), *(s.normal(g, blocks, BLOCK, H_KV, D) for _ in "kv"), slots

        contestants = (
            Contestant("course", lambda: to_slots, True, output=at_slots),
            Contestant("index_copy_", lambda: by_index, output=at_slots),
        )
        out.append(
            Race(
                "write_kv", {"tokens": T, "row": H_KV * D}, draw, contestants,
                exact=lambda k, v, *_: torch.stack([k, v]).double(), plain=(lambda k, v, *_: torch.stack([k, v]),),
                bytes=4 * T * H_KV * D * s.dtype.itemsize + 8 * T,
            )
        )  # fmt: skip
    return out


def rope_of_torch(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """As models spell it, in the dtype of x."""
    half = x.shape[-1] // 2
    return x * cos + torch.cat((-x[..., half:], x[..., :half]), -1) * sin


def rope(s: Setting) -> list[Race]:
    from course_lib.races_problems import by_compile, picked
    from kernels.rope import apply_rope

    (H, _, D), B, out = _heads(s), 2, []
    for N in s.choose((4096, 16384), (4096,), (1024,), (37,)):
        at = picked(N, 64).to(s.device)

        def draw(g: torch.Generator, N: int = N) -> tuple[Tensor, ...]:
            turn = torch.outer(torch.arange(N, device=s.device).float(), 10000 ** (-torch.arange(0, D, 2, device=s.device).float() / D))
            turn = torch.cat((turn, turn), -1)
            return s.normal(g, B, H, N, D), turn.cos().to(s.dtype), turn.sin().to(s.dtype)

        def part(x: Tensor, cos: Tensor, sin: Tensor, at: Tensor = at) -> tuple[Tensor, ...]:
            return x[:, :, at], cos[at], sin[at]

        out.append(
            Race(
                "rope", {"sequences": B, "heads": H, "N": N}, draw,
                (Contestant("course", lambda: apply_rope, True), Contestant("torch", lambda: rope_of_torch), *by_compile(s, rope_of_torch)),
                exact=lambda *inputs, part=part: rope_of_torch(*(x.double() for x in part(*inputs))),
                plain=(lambda *inputs, part=part: rope_of_torch(*part(*inputs)),),
                bytes=s.dtype.itemsize * (2 * B * H * N * D + 2 * N * D), pick=lambda out, at=at: out[:, :, at],
            )
        )  # fmt: skip
    return out


KERNELS: dict[str, Callable] = {
    "decode": decode,
    "paged_decode": paged_decode,
    "paged_prefill": paged_prefill,
    "rope": rope,
    "write_kv": write_kv,
}
FILES = {"decode": "decode_split"}  # where a kernel's file has another name


def candidates(name: str) -> list[dict]:
    """What is worth a try for these kernels, as for `course_lib.tune`."""
    from course_lib.tune import grid

    if name in ("decode", "paged_decode"):
        found = grid(BLOCK_N=(32, 64, 128), num_warps=(2, 4, 8), num_stages=(3, 4, 5, 7, 9))
        return [one for one in found if one["BLOCK_N"] * one["num_stages"] <= 640]
    if name == "paged_prefill":
        return grid(BLOCK_M=(64, 128), BLOCK_N=(64, 128), num_warps=(4, 8), num_stages=(3, 5, 7))
    if name == "write_kv":
        return grid(ROWS=(4, 8, 16, 32, 64), BLOCK_D=(128,), num_warps=(2, 4, 8))
    found = grid(HEADS=(1, 2, 4, 8, 16), ROWS=(4, 8, 16, 32), HALF=(64,), num_warps=(4, 8))
    return [one for one in found if 4 <= one["HEADS"] * one["ROWS"] <= 128]
