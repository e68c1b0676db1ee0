"""Grading material: flash_blocks."""

import torch

from course_lib.grading.spec import Check, Mutant, Probe

_HEAD = "def flash_blocks(head_dim, shared_bytes, stages=2, bytes_each=2):\n"
SIDES = (128, 64, 32, 16)


def _padded(head_dim: int) -> int:
    return max(16, 1 << (head_dim - 1).bit_length())


def by_search(head_dim, shared_bytes, stages=2, bytes_each=2):
    for block_m in SIDES:
        for block_n in SIDES:
            if (block_m + 2 * stages * block_n) * _padded(head_dim) * bytes_each <= shared_bytes:
                return block_m, block_n
    return 0, 0


def by_sorting(head_dim, shared_bytes, stages=2, bytes_each=2):
    row = _padded(head_dim) * bytes_each
    fitting = [(m, n) for m in SIDES for n in SIDES if m * row + stages * n * row + stages * n * row <= shared_bytes]
    return max(fitting, default=(0, 0))


def by_solving(head_dim, shared_bytes, stages=2, bytes_each=2):
    rows = shared_bytes // (_padded(head_dim) * bytes_each)
    block_m = next((m for m in SIDES if m + 2 * stages * 16 <= rows), 0)
    return (block_m, next(n for n in SIDES if block_m + 2 * stages * n <= rows)) if block_m else (0, 0)


def _draw(g: torch.Generator, low: int, high: int) -> int:
    return int(torch.randint(low, high, (1,), generator=g))


def _probes(g: torch.Generator) -> list[Probe]:
    kib = 1024
    return [
        Probe("a T4, D = 128: exactly full", (128, 64 * kib)),
        Probe("99 KiB, D = 128", (128, 99 * kib)),
        Probe("163 KiB, D = 80", (_draw(g, 70, 100), 163 * kib)),
        Probe("112 KiB, D = 128, 3 stages", (128, 112 * kib, 3)),
        Probe("64 KiB, D = 256: not even a tile of 128 queries", (256, 64 * kib + _draw(g, 0, 9))),
        Probe("99 KiB, D = 64, 4 bytes each", (64, 99 * kib), {"bytes_each": 4}),
        Probe("one byte short", (128, 64 * kib - 1), diagnose=False),
        Probe("227 KiB, D = 128, 3 stages", (128, 227 * kib, 3), diagnose=False),
        Probe("48 KiB, D = 96, 1 stage", (96, 48 * kib, 1), diagnose=False),
        Probe("too little", (256, _draw(g, 2, 30) * kib), diagnose=False),
        Probe("D = 8", (8, 5 * kib), diagnose=False),
        Probe("D = 40, 30 KiB", (40, 30 * kib), diagnose=False),
        Probe("D = 64, 20 KiB, 3 stages", (64, 20 * kib, 3), diagnose=False),
    ]


_FITS = "if (block_m + 2 * stages * block_n) * block_d * bytes_each <= shared_bytes:"


def _other(id: str, message: str, condition: str) -> Mutant:
    return Mutant(id, message, edits=((_FITS, f"if {condition}:"),))


FLASH_BLOCKS = Check(
    exercise="flash_blocks",
    probes=_probes,
    reference=by_search,
    baselines=(by_search, by_sorting, by_solving),
    returns="a pair (BLOCK_M, BLOCK_N)",
    mutants=(
        _other(
            "k-or-v",
            "K and V each have `stages` tiles in shared memory: one of the two was left out.",
            "(block_m + stages * block_n) * block_d * bytes_each <= shared_bytes",
        ),
        _other(
            "one-stage",
            "Right for one stage: there are `stages` tiles of K, and of V, at a time.",
            "(block_m + 2 * block_n) * block_d * bytes_each <= shared_bytes",
        ),
        _other("q-forgotten", "The tile of Q lies in shared memory too.", "2 * stages * block_n * block_d * bytes_each <= shared_bytes"),
        _other(
            "q-staged",
            "Q was counted `stages` times: it is loaded once, before the loop.",
            "stages * (block_m + 2 * block_n) * block_d * bytes_each <= shared_bytes",
        ),
        _other(
            "elements", "Elements were compared with bytes: each takes `bytes_each`.", "(block_m + 2 * stages * block_n) * block_d <= shared_bytes"
        ),
        _other("always-fp16", "Right for 2 bytes each: `bytes_each` is not used.", "(block_m + 2 * stages * block_n) * block_d * 2 <= shared_bytes"),
        _other("strict", "Exactly full is a fit: compare with <=.", "(block_m + 2 * stages * block_n) * block_d * bytes_each < shared_bytes"),
        _other(
            "not-padded",
            "Right where head_dim is a power of two. tl.arange makes power-of-two ranges only, so a tile is as wide as the next power of two, at least 16.",
            "(block_m + 2 * stages * block_n) * head_dim * bytes_each <= shared_bytes",
        ),
        _other(
            "scores-counted",
            "Scores were counted as well: here they live in registers, and so does acc. (Chapter 01's largest_square_tile kept them in shared memory.)",
            "(block_m + 2 * stages * block_n) * block_d * bytes_each + 4 * block_m * block_n <= shared_bytes",
        ),
        Mutant(
            "n-first",
            "BLOCK_N was made as large as possible first. It is BLOCK_M that decides how often K and V are read: give it the room.",
            body=f"""\
{_HEAD}    block_d = 16
    while block_d < head_dim:
        block_d *= 2
    for block_n in (128, 64, 32, 16):
        for block_m in (128, 64, 32, 16):
            if (block_m + 2 * stages * block_n) * block_d * bytes_each <= shared_bytes:
                return block_m, block_n
    return 0, 0
""",
        ),
        Mutant(
            "square",
            "Only square tiles were tried: BLOCK_M and BLOCK_N may differ.",
            body=f"""\
{_HEAD}    block_d = 16
    while block_d < head_dim:
        block_d *= 2
    for block in (128, 64, 32, 16):
        if (block + 2 * stages * block) * block_d * bytes_each <= shared_bytes:
            return block, block
    return 0, 0
""",
        ),
        Mutant(
            "exchanged", "The pair is exchanged: BLOCK_M, the queries, comes first.", edits=(("return block_m, block_n", "return block_n, block_m"),)
        ),
        Mutant(
            "unlimited",
            "Sides above 128 were tried: the state of the rows lives in registers, and more than 128 rows of it do not fit there.",
            edits=(("for block_m in (128, 64, 32, 16):", "for block_m in (512, 256, 128, 64, 32, 16):"),),
        ),
    ),
    right=(
        """\
import math

def flash_blocks(head_dim, shared_bytes, stages=2, bytes_each=2):
    width = max(16, 2 ** math.ceil(math.log2(head_dim))) * bytes_each
    best = (0, 0)
    for m in [16, 32, 64, 128]:
        for n in [16, 32, 64, 128]:
            if m * width + 2 * stages * n * width <= shared_bytes and (m, n) > best:
                best = (m, n)
    return best
""",
        """\
def flash_blocks(head_dim, shared_bytes, stages=2, bytes_each=2):
    width = max(16, triton.next_power_of_2(head_dim))
    m = 128
    while m >= 16 and (m + 32 * stages) * width * bytes_each > shared_bytes:
        m //= 2
    if m < 16:
        return (0, 0)
    n = 128
    while (m + 2 * stages * n) * width * bytes_each > shared_bytes:
        n //= 2
    return (m, n)
""",
        """\
def flash_blocks(head_dim, shared_bytes, stages=2, bytes_each=2):
    rows = shared_bytes // (bytes_each * max(16, 1 << (head_dim - 1).bit_length()))
    sizes = [128, 64, 32, 16]
    pairs = [(m, n) for m in sizes for n in sizes if m + 2 * stages * n <= rows]
    return list(pairs[0]) if pairs else [0, 0]
""",
    ),
)
