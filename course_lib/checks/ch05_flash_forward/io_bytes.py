"""Grading material: flash_io_bytes."""

import torch

from course_lib.grading.spec import Check, Mutant, Probe

_HEAD = "def flash_io_bytes(n_q, n_kv, d, block_m, heads=1, bytes_each=2):\n"


def by_product(n_q, n_kv, d, block_m, heads=1, bytes_each=2):
    tiles = (n_q + block_m - 1) // block_m
    return heads * (2 * n_q * d * bytes_each + 2 * tiles * n_kv * d * bytes_each + 4 * n_q)


def tile_by_tile(n_q, n_kv, d, block_m, heads=1, bytes_each=2):
    total = 0
    for first in range(0, n_q, block_m):
        rows = min(block_m, n_q - first)
        total += 2 * rows * d * bytes_each + 2 * n_kv * d * bytes_each + 4 * rows
    return total * heads


def head_by_head(n_q, n_kv, d, block_m, heads=1, bytes_each=2):
    return sum(tile_by_tile(n_q, n_kv, d, block_m, 1, bytes_each) for _ in range(heads))


def _draw(g: torch.Generator, low: int, high: int) -> int:
    return int(torch.randint(low, high, (1,), generator=g))


def _probes(g: torch.Generator) -> list[Probe]:
    return [
        Probe("the example", (100, 50, 8, 64)),
        Probe("one tile", (_draw(g, 3, 16), _draw(g, 50, 90), 24, 16)),
        Probe("several tiles, the last one partial", (_draw(g, 129, 190), _draw(g, 300, 500), 40, 64)),
        Probe("whole tiles", (256, _draw(g, 100, 200), 64, 32)),
        Probe("several heads", (_draw(g, 65, 120), _draw(g, 130, 190), 80, 64, _draw(g, 3, 9))),
        Probe("4 bytes each, several heads", (_draw(g, 65, 120), _draw(g, 130, 190), 48, 64), {"bytes_each": 4, "heads": _draw(g, 2, 7)}),
        Probe("16,384 tokens", (16384, 16384, 128, 128), diagnose=False),
    ]


def _mutant(id: str, message: str, line: str) -> Mutant:
    return Mutant(id, message, body=f"{_HEAD}    tiles = -(-n_q // block_m)\n    return {line}\n")


FLASH_IO_BYTES = Check(
    exercise="flash_io_bytes",
    probes=_probes,
    reference=by_product,
    baselines=(by_product, tile_by_tile, head_by_head),
    returns="a number of bytes",
    mutants=(
        _mutant(
            "compulsory",
            "That is every tensor once. K and V are read again by every tile of queries.",
            "heads * ((2 * n_q + 2 * n_kv) * d * bytes_each + 4 * n_q)",
        ),
        Mutant(
            "tiles-rounded-down",
            "The last, partial tile of queries was left out: it too reads all of K and V. Round the number of tiles up.",
            body=f"{_HEAD}    tiles = n_q // block_m\n    return heads * ((2 * n_q + 2 * tiles * n_kv) * d * bytes_each + 4 * n_q)\n",
        ),
        Mutant(
            "tiles-as-fraction",
            "A partial tile was counted as a part of a read. It reads all of K and V like the others: the number of tiles is whole.",
            body=f"{_HEAD}    return round(heads * ((2 * n_q + 2 * n_q / block_m * n_kv) * d * bytes_each + 4 * n_q))\n",
        ),
        _mutant(
            "k-only",
            "One of K and V was forgotten: every tile of queries reads both.",
            "heads * ((2 * n_q + tiles * n_kv) * d * bytes_each + 4 * n_q)",
        ),
        _mutant("no-output", "The output is missing: n_q * d elements are stored.", "heads * ((n_q + 2 * tiles * n_kv) * d * bytes_each + 4 * n_q)"),
        _mutant(
            "no-q",
            "Q is missing from the loads, or the output from the stores: both are n_q * d elements.",
            "heads * (2 * tiles * n_kv * d * bytes_each + 4 * n_q)",
        ),
        _mutant("no-lse", "The log-sum-exp is missing: 4 bytes for each query.", "heads * (2 * n_q + 2 * tiles * n_kv) * d * bytes_each"),
        _mutant(
            "lse-in-half",
            "The log-sum-exp is float32 whatever the tensors are: 4 bytes for each query.",
            "heads * ((2 * n_q + 2 * tiles * n_kv) * d + n_q) * bytes_each",
        ),
        _mutant(
            "one-head",
            "Right for one head. Each head has Q, K, V and an output of its own.",
            "(2 * n_q + 2 * tiles * n_kv) * d * bytes_each + 4 * n_q",
        ),
        _mutant(
            "lse-of-one-head",
            "The log-sum-exp of one head was counted; every head has one.",
            "heads * (2 * n_q + 2 * tiles * n_kv) * d * bytes_each + 4 * n_q",
        ),
        _mutant("always-fp16", "Right for 2 bytes each: `bytes_each` is not used.", "heads * ((2 * n_q + 2 * tiles * n_kv) * d * 2 + 4 * n_q)"),
        _mutant("elements", "That is a number of elements. Each takes `bytes_each` bytes.", "heads * ((2 * n_q + 2 * tiles * n_kv) * d + n_q)"),
        _mutant(
            "q-read-again",
            "Q was read again as well. In version 2's order a program keeps its tile of Q, and reads K and V past it.",
            "heads * ((n_q + tiles * n_q + 2 * tiles * n_kv) * d * bytes_each + 4 * n_q)",
        ),
        Mutant(
            "version-1",
            "K and V were counted once, and Q and the output once for every tile: that is version 1's order, with K and V in the outer loop. In version 2's "
            "it is K and V that are read again.",
            body=f"{_HEAD}    tiles = -(-n_kv // block_m)\n    return heads * ((2 * n_kv + 2 * tiles * n_q) * d * bytes_each + 4 * n_q)\n",
        ),
        _mutant(
            "square",
            "The keys were taken to be as many as the queries: K and V have n_kv rows.",
            "heads * ((2 * n_q + 2 * tiles * n_q) * d * bytes_each + 4 * n_q)",
        ),
    ),
    right=(
        "import math\n\ndef flash_io_bytes(n_q, n_kv, d, block_m, heads=1, bytes_each=2):\n    reads = math.ceil(n_q / block_m)\n"
        "    per_head = bytes_each * d * (n_q + 2 * reads * n_kv + n_q) + n_q * 4\n    return per_head * heads\n",
        f"{_HEAD}    total = 0\n    for start in range(0, n_q, block_m):\n        rows = min(start + block_m, n_q) - start\n"
        "        total += (rows * d + n_kv * d * 2 + rows * d) * bytes_each + rows * 4\n    return total * heads\n",
        f"{_HEAD}    q = out = torch.Size((heads, n_q, d)).numel() * bytes_each\n    kv = 2 * heads * n_kv * d * bytes_each\n"
        "    return q + out + kv * ((n_q - 1) // block_m + 1) + heads * n_q * 4\n",
    ),
)
