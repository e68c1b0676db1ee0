"""Grading material: largest_square_tile."""

import torch

from course_lib.checks.ch01_memory_hierarchy.drawing import whole
from course_lib.grading.spec import Check, Mutant, Probe

T4, A100, H100 = 64 * 1024, 163 * 1024, 227 * 1024  # bytes one block may have


def _probes(g: torch.Generator) -> list[Probe]:
    return [
        Probe("a T4, head_dim=128: exactly full", (128, T4)),
        Probe("an A100, head_dim=128", (128, A100)),
        Probe("an H100, head_dim=128", (128, H100)),
        Probe("an H100, head_dim=64, fp32 tiles", (64, H100, 4)),
        Probe("an A100, head_dim=128, scores in registers", (128, A100, 2, 0)),
        Probe("8 KiB, head_dim=128: not even 16 fits", (128, 8 * 1024)),
        Probe("an A100, head_dim=256", (256, A100), diagnose=False),
        Probe("an H100, head_dim=96, fp8 tiles, fp16 scores", (96, H100, 1, 2), diagnose=False),
        Probe("an A100, head_dim=80, by name", (80, A100), {"bytes_each": 4, "score_bytes": 0}, diagnose=False),
        Probe("some chip of tomorrow", (16 * whole(g, 3, 12), 1024 * whole(g, 300, 900)), diagnose=False),
        Probe("a tiny head", (16, 1024 * whole(g, 60, 240)), diagnose=False),
    ]


def _needed(b, head_dim, bytes_each, score_bytes):
    return 3 * b * head_dim * bytes_each + b * b * score_bytes


def _from_below(head_dim, shared_bytes, bytes_each=2, score_bytes=4):
    b = 0
    while _needed(b + 16, head_dim, bytes_each, score_bytes) <= shared_bytes:
        b += 16
    return b


def _from_above(head_dim, shared_bytes, bytes_each=2, score_bytes=4):
    b = shared_bytes // 16 * 16
    while _needed(b, head_dim, bytes_each, score_bytes) > shared_bytes:
        b -= 16
    return b


def _of_all(head_dim, shared_bytes, bytes_each=2, score_bytes=4):
    return max(b for b in range(0, shared_bytes, 16) if _needed(b, head_dim, bytes_each, score_bytes) <= shared_bytes)


_NEEDED, _STEP = "return 3 * b * head_dim * bytes_each + b * b * score_bytes", "while needed(b + 16) <= shared_bytes:\n        b += 16\n    return b"
_NOTE = """\
from math import sqrt

def largest_square_tile(head_dim, shared_bytes, bytes_each=2, score_bytes=4):
    b = int(sqrt(shared_bytes / (3 * head_dim * {bytes})))
    return b // 16 * 16
"""
_ROOT = (
    "A square root was taken of shared memory over three tiles. Three tiles of b rows take 3 * b * head_dim elements: that grows with b, not with its "
    "square. And the scores are missing, which do grow with the square."
)

LARGEST_SQUARE_TILE = Check(
    exercise="largest_square_tile",
    probes=_probes,
    reference=_from_below,
    baselines=(_from_below, _from_above, _of_all),
    returns="a whole number",
    mutants=(
        Mutant(
            "no-scores",
            "Too large: the scores S are missing. They take b * b * score_bytes, and at these sizes about as much as a tile.",
            edits=((" + b * b * score_bytes", ""),),
        ),
        Mutant(
            "scores-like-tiles",
            "S was counted with the tiles' `bytes_each`. Scores are kept in fp32: they have `score_bytes` of their own.",
            edits=(("b * b * score_bytes", "b * b * bytes_each"),),
        ),
        Mutant(
            "scores-always-fp32",
            "Right while S lives in shared memory. With score_bytes=0 it lives in registers and takes none of it: use the argument.",
            edits=(("b * b * score_bytes", "b * b * 4"),),
        ),
        Mutant(
            "scores-by-the-head",
            "S was counted as b rows of head_dim. It holds one number for each query and key of the tile: b by b.",
            edits=(("b * b * score_bytes", "b * head_dim * score_bytes"),),
        ),
        Mutant(
            "two-tiles",
            "Too large: only two tiles of head_dim columns were counted. Q, K and V must be there at the same time.",
            edits=(("3 * b * head_dim", "2 * b * head_dim"),),
        ),
        Mutant(
            "four-tiles",
            "Too small: a fourth tile of head_dim columns was counted. The output's accumulator lives in registers here: three tiles, and S.",
            edits=(("3 * b * head_dim", "4 * b * head_dim"),),
        ),
        Mutant(
            "always-two-bytes",
            "Right for fp16; tiles of another dtype have `bytes_each` bytes an element.",
            edits=(("head_dim * bytes_each", "head_dim * 2"),),
        ),
        Mutant(
            "fp32-tiles",
            "Too small: four bytes an element were counted for Q, K and V. Use `bytes_each`.",
            edits=(("head_dim * bytes_each", "head_dim * 4"),),
        ),
        Mutant(
            "elements",
            "Too large: elements of Q, K and V were counted where memory has bytes. Use `bytes_each`.",
            edits=(("head_dim * bytes_each", "head_dim"),),
        ),
        Mutant(
            "not-full",
            "Wrong only where the tiles fill the memory exactly: that is a fit. Compare with <=.",
            edits=(("<= shared_bytes", "< shared_bytes"),),
        ),
        Mutant(
            "one-too-far",
            "One step too far: the b that came back is the first that does not fit.",
            edits=((_STEP, "while needed(b) <= shared_bytes:\n        b += 16\n    return b"),),
        ),
        Mutant(
            "at-least-16",
            "Right, except where not even 16 fits: then the answer is 0, and not a tile that would not launch.",
            edits=(("b = 0\n", "b = 16\n"),),
        ),
        Mutant(
            "power-of-two",
            "Only powers of two were tried. Any multiple of 16 will do: 80, 112, 160.",
            edits=(
                ("b = 0\n", "b = 8\n"),
                (_STEP, "while needed(2 * b) <= shared_bytes:\n        b *= 2\n    return b if b >= 16 else 0"),
            ),
        ),
        Mutant(
            "any-number",
            "The largest whole number came back; asked is the largest multiple of 16, because matrix units work on 16 by 16.",
            edits=((_STEP, "while needed(b + 1) <= shared_bytes:\n        b += 1\n    return b"),),
        ),
        Mutant(
            "any-number-from-16",
            "The largest whole number from 16 on came back; asked is the largest multiple of 16, because matrix units work on 16 by 16.",
            edits=((_STEP, "while needed(b + 1) <= shared_bytes:\n        b += 1\n    return b if b >= 16 else 0"),),
        ),
        Mutant(
            "scores-as-a-fourth-tile",
            "S was counted as a fourth tile, with head_dim columns and `bytes_each`. It is b by b and has `score_bytes` an element; in the example both come "
            "to the same.",
            edits=((_NEEDED, "return 4 * b * head_dim * bytes_each"),),
        ),
        Mutant("square-root", _ROOT, body=_NOTE.format(bytes="bytes_each")),
        Mutant("square-root-fp32", _ROOT, body=_NOTE.format(bytes="4")),
    ),
    right=(
        """\
import math

def largest_square_tile(head_dim, shared_bytes, bytes_each=2, score_bytes=4):
    p = 3 * head_dim * bytes_each
    if score_bytes == 0:
        return shared_bytes // p // 16 * 16
    b = (math.isqrt(p * p + 4 * score_bytes * shared_bytes) - p) // (2 * score_bytes)
    return b // 16 * 16
""",
        """\
def largest_square_tile(head_dim, shared_bytes, bytes_each=2, score_bytes=4):
    best = 0
    for b in range(16, shared_bytes + 1, 16):
        if b * (3 * head_dim * bytes_each + b * score_bytes) <= shared_bytes:
            best = b
    return best
""",
        """\
from bisect import bisect_right

def largest_square_tile(head_dim, shared_bytes, bytes_each=2, score_bytes=4):
    def used(i):
        b = 16 * i
        return (b * head_dim * bytes_each) * 3 + (b ** 2) * score_bytes
    return 16 * (bisect_right(range(1, 100_000), shared_bytes, key=used))
""",
        """\
def largest_square_tile(head_dim: int, shared_bytes: int, bytes_each: int = 2, score_bytes: int = 4) -> int:
    tile = 16
    while tile * head_dim * bytes_each * 3 + tile * tile * score_bytes <= shared_bytes:
        tile += 16
    return tile - 16
""",
    ),
)
