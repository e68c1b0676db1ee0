"""Grading material: append_slots and paged_gather, in torch."""

import torch
from torch import Tensor

from course_lib.grading.spec import Check, Evidence, Mutant, Probe, Rule, forbid

SLOT_AXES = ("request", "token")
ROW_AXES = ("key", "head", "feature")


# ---------------------------------------------------------------- append_slots


def by_gather(block_tables: Tensor, positions: Tensor, block_size: int) -> Tensor:
    entry = positions.clamp(min=0) // block_size
    slots = block_tables.long().gather(1, entry) * block_size + positions % block_size
    return slots.masked_fill(positions < 0, -1)


def one_by_one(block_tables: Tensor, positions: Tensor, block_size: int) -> Tensor:
    rows = []
    for table, row in zip(block_tables.tolist(), positions.tolist(), strict=True):
        rows.append([-1 if p < 0 else table[p // block_size] * block_size + p % block_size for p in row])
    return torch.tensor(rows, dtype=torch.int64).reshape(positions.shape)


def by_indexing(block_tables: Tensor, positions: Tensor, block_size: int) -> Tensor:
    rows = torch.arange(positions.shape[0])[:, None]
    block = block_tables[rows, positions.clamp(min=0).div(block_size, rounding_mode="floor")].to(torch.int64)
    return torch.where(positions >= 0, block * block_size + positions.remainder(block_size), -1)


def _tables(g: torch.Generator, b: int, most: int, blocks: int = 900) -> Tensor:
    return torch.randint(1, blocks, (b, most), generator=g, dtype=torch.int32)


def _slot_probes(g: torch.Generator) -> list[Probe]:
    tables = _tables(g, 3, 6)
    ends = torch.tensor([[17], [5], [40]])
    run = ends + torch.arange(4)
    padded = run.clone()
    padded[0, 2:] = -1
    padded[2] = -1
    garbage = tables.clone()
    garbage[0, 5:], garbage[1, 1:] = 2**31 - 1, -7
    return [
        Probe("the example", (torch.tensor([[7, 2]], dtype=torch.int32), torch.tensor([[5]]), 4), axes=SLOT_AXES),
        Probe("3 requests, one token each, blocks of 16", (tables, ends, 16), axes=SLOT_AXES),
        Probe("3 requests, 4 tokens each, blocks of 8", (tables, run, 8), axes=SLOT_AXES),
        Probe("some with fewer tokens: -1", (tables, padded, 8), axes=SLOT_AXES),
        Probe("blocks of 5, unused entries hold anything", (garbage, torch.tensor([[3, 9, 24], [0, 2, 4], [28, -1, -1]]), 5), axes=SLOT_AXES),
        Probe("block 200,000,000: more than 2**31 slots", (_tables(g, 2, 3) + 200_000_000, torch.tensor([[1, 33], [20, -1]]), 16), axes=SLOT_AXES),
        Probe(
            "transposed in memory, blocks of 1",
            (tables, torch.tensor([[0, 5], [2, 3], [1, -1]]), 1),
            layout="transposed",
            axes=SLOT_AXES,
            diagnose=False,
        ),
    ]


def _no_loop(probe: Probe, evidence: Evidence) -> str | None:
    if evidence.taken < 2:
        return None
    return (
        f"{evidence.taken:,} numbers left torch on this input ({probe.name}): a loop over tokens in Python, which on a GPU waits for every one of them. "
        "gather or an index tensor looks all of them up at once."
    )


_BLOCK = "block = block_tables.long().gather(1, entry)"
_SLOTS = "slots = block * block_size + positions % block_size"

APPEND_SLOTS = Check(
    exercise="append_slots",
    probes=_slot_probes,
    reference=by_gather,
    baselines=(by_gather, one_by_one, by_indexing),
    rules=(Rule("loop", _no_loop),),
    mutants=(
        Mutant(
            "int32",
            "Right until block * block_size passes 2**31: then it wraps around. The table is int32; convert before you multiply.",
            edits=(
                (_BLOCK, "block = block_tables.gather(1, entry)"),
                (_SLOTS, "slots = (block * block_size + (positions % block_size).int()).long()"),
            ),
        ),
        Mutant(
            "padding-not-kept",
            "Where positions is -1 a slot came out, some place of a block that may be anybody's: what is written there is lost keys. Put -1.",
            edits=(("    return torch.where(positions < 0, -1, slots)", "    return slots"),),
        ),
        Mutant(
            "padding-as-position-0",
            "Where positions is -1 the slot of position 0 came out: a padded row would overwrite the text's first key. Put -1 there at the end.",
            edits=(
                (_SLOTS, "slots = block * block_size + positions.clamp(min=0) % block_size"),
                ("    return torch.where(positions < 0, -1, slots)", "    return slots"),
            ),
        ),
        Mutant(
            "contiguous",
            "The text was placed in one piece behind its first block: from the second block on the table says where it goes on.",
            edits=((_SLOTS, "slots = block_tables[:, :1].long() * block_size + positions"),),
        ),
        Mutant(
            "block-not-scaled",
            "The number of the block was used as a slot: block b begins at slot b * block_size.",
            edits=((_SLOTS, "slots = block + positions % block_size"),),
        ),
        Mutant(
            "position-not-reduced",
            "The whole position was added to the start of the block: inside it the place is position % block_size.",
            edits=((_SLOTS, "slots = block * block_size + positions"),),
        ),
        Mutant(
            "exchanged",
            "Quotient and remainder are exchanged: the entry of the table is position // block_size, the place position % block_size.",
            edits=(
                (
                    "entry = positions.clamp(min=0) // block_size",
                    "entry = (positions.clamp(min=0) % block_size).clamp(max=block_tables.shape[1] - 1)",
                ),
                (_SLOTS, "slots = block * block_size + positions.clamp(min=0) // block_size"),
            ),
        ),
        Mutant(
            "first-table",
            "Right for the first request, wrong for the others: all were looked up in the first row of block_tables.",
            edits=((_BLOCK, "block = block_tables[0].long()[entry]"),),
        ),
        Mutant(
            "position-for-slot",
            "The position in the text came back. A slot is a place in memory: look up the position's block in the table first.",
            edits=((_SLOTS, "slots = positions"),),
        ),
        Mutant(
            "factor-exchanged",
            "Block and place changed parts: a block holds block_size slots, so the block's number is what is multiplied.",
            edits=((_SLOTS, "slots = block + positions % block_size * block_size"),),
        ),
        Mutant(
            "block-only",
            "Every token of a block got the block's first slot: its place in the block is missing.",
            edits=((_SLOTS, "slots = block * block_size"),),
        ),
        Mutant(
            "next-block",
            "From one block to the next the entry is off by one: a block holds the positions from i * block_size up to the one before (i + 1) * block_size.",
            edits=(("entry = positions.clamp(min=0) // block_size", "entry = (positions.clamp(min=0) + 1) // block_size"),),
        ),
        Mutant(
            "loop",
            "Right, and one by one.",
            body="def append_slots(block_tables, positions, block_size):\n    slots = torch.full_like(positions, -1)\n    for b in range(positions.shape[0]):\n"
            "        for n in range(positions.shape[1]):\n            p = int(positions[b, n])\n            if p >= 0:\n"
            "                slots[b, n] = int(block_tables[b, p // block_size]) * block_size + p % block_size\n    return slots\n",
            rule="loop",
        ),
    ),
    right=(
        """\
def append_slots(block_tables, positions, block_size):
    rows = torch.arange(len(positions), device=positions.device).unsqueeze(1)
    valid = positions >= 0
    safe = positions * valid
    starts = block_tables[rows, safe // block_size].to(torch.int64) * block_size
    return (starts + safe % block_size) * valid - (~valid).long()
""",
        """\
def append_slots(block_tables, positions, block_size):
    every = block_tables.long()[:, :, None] * block_size + torch.arange(block_size, device=block_tables.device)
    slots = every.flatten(1).gather(1, positions.clamp(min=0))
    slots[positions < 0] = -1
    return slots
""",
        """\
def append_slots(block_tables, positions, block_size):
    result = torch.full(positions.shape, -1, dtype=torch.long, device=positions.device)
    b, n = torch.where(positions != -1)
    p = positions[b, n]
    result[b, n] = block_tables[b, torch.div(p, block_size, rounding_mode="trunc")].long().mul(block_size).add(p.fmod(block_size))
    return result
""",
    ),
)


# ---------------------------------------------------------------- paged_gather


def gathered(cache: Tensor, block_table: Tensor, length: int) -> Tensor:
    return cache[block_table[: -(-length // cache.shape[1])].long()].flatten(0, 1)[:length]


def by_slots(cache: Tensor, block_table: Tensor, length: int) -> Tensor:
    at = torch.arange(length)
    return cache.flatten(0, 1)[block_table[at // cache.shape[1]].long() * cache.shape[1] + at % cache.shape[1]]


def block_by_block(cache: Tensor, block_table: Tensor, length: int) -> Tensor:
    size = cache.shape[1]
    return torch.cat([cache[int(block_table[i])][: length - i * size] for i in range(-(-length // size))])


def _cache(g: torch.Generator, blocks: int, block: int, h_kv: int, d: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(blocks, block, h_kv, d, generator=g).to(dtype)


def _gather_probes(g: torch.Generator) -> list[Probe]:
    def table(*entries: int) -> Tensor:
        return torch.tensor(entries, dtype=torch.int32)

    return [
        Probe("the example", (_cache(g, 9, 4, 2, 3), table(7, 2, 900), 5), axes=ROW_AXES),
        Probe("three whole blocks", (_cache(g, 8, 4, 3, 5), table(6, 0, 3, 900), 12), axes=ROW_AXES),
        Probe("less than a block", (_cache(g, 6, 16, 1, 4), table(5, 1, 2), 3), axes=ROW_AXES),
        Probe("blocks of 1", (_cache(g, 7, 1, 2, 4), table(3, 6, 0, 5, 2), 4), axes=ROW_AXES),
        Probe("blocks of 16, 37 keys, float16", (_cache(g, 12, 16, 2, 8, torch.float16), table(11, 4, 9, 10**6), 37), axes=ROW_AXES),
        Probe("transposed in memory", (_cache(g, 6, 4, 3, 5), table(4, 1), 7), layout="transposed", axes=ROW_AXES),
    ]


PAGED_GATHER = Check(
    exercise="paged_gather",
    probes=_gather_probes,
    reference=gathered,
    baselines=(gathered, by_slots, block_by_block),
    rules=(forbid(("scaled_dot_product_attention",), "Only rows are to be copied."),),
    mutants=(
        Mutant(
            "all-entries",
            "Entries of the table past the request's tokens were looked at. They hold anything, numbers too that name no block: use the first ceil(length / BLOCK).",
            edits=(("block_table[:used]", "block_table"),),
            rule="exception",
        ),
        Mutant(
            "rows",
            "There is one row for each of the `length` keys. What usually goes wrong: length // BLOCK rounds down and misses the last, partial block; "
            "the last block came whole, cut it; blocks and places are still two dimensions.",
            edits=((".flatten(0, 1)[:length]", ""),),
            rule="shape",
        ),
        Mutant(
            "in-a-row",
            "The blocks were taken as they lie in memory, from the first one on: the table says which follows which.",
            edits=(("blocks = block_table[:used].long()", "blocks = block_table[:1].long().clamp(max=cache.shape[0] - used) + torch.arange(used)"),),
        ),
        Mutant(
            "table-not-read",
            "The blocks were taken as they lie in memory, from block 0 on: the table says which block comes first and which follows which.",
            edits=(("blocks = block_table[:used].long()", "blocks = torch.arange(used)"),),
        ),
        Mutant(
            "sorted",
            "The blocks came in the order of their numbers. The order of the table is the order of the text.",
            edits=(("block_table[:used].long()", "block_table[:used].long().sort().values"),),
        ),
        Mutant(
            "slots-for-blocks",
            "The entries were used as slots: an entry names a block, which is BLOCK rows.",
            edits=(("cache[blocks].flatten(0, 1)[:length]", "cache.flatten(0, 1)[blocks.repeat_interleave(cache.shape[1])][:length]"),),
        ),
        Mutant(
            "place-first",
            "Places and blocks are exchanged: all first places came first. Flatten [blocks, BLOCK], in this order.",
            edits=(("cache[blocks].flatten(0, 1)", "cache[blocks].transpose(0, 1).flatten(0, 1)"),),
        ),
    ),
    right=(
        """\
def paged_gather(cache, block_table, length):
    block = cache.shape[1]
    position = torch.arange(length, device=cache.device)
    entry = block_table.long()[position // block]
    return cache[entry, position % block]
""",
        """\
def paged_gather(cache, block_table, length):
    pieces, left = [], length
    for number in block_table.tolist():
        if left <= 0:
            break
        pieces.append(cache[number, :left])
        left -= cache.shape[1]
    return torch.cat(pieces, dim=0)
""",
        """\
def paged_gather(cache, block_table, length):
    N, BLOCK, H_KV, D = cache.shape
    out = torch.empty(length, H_KV, D, dtype=cache.dtype, device=cache.device)
    for start in range(0, length, BLOCK):
        stop = min(start + BLOCK, length)
        out[start:stop] = cache[int(block_table[start // BLOCK]), : stop - start]
    return out
""",
    ),
)
