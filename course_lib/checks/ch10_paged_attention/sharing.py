"""Grading material: fork_sequence and copy_on_write, by histories of requests that grow, fork and end.

After every step each request's text is read back through its table: a block that was written while another request shared it shows
as a wrong token in that other text.
"""

import re

import torch

from course_lib.checks.ch10_paged_attention.allocator import letter
from course_lib.checks.ch10_paged_attention.histories import Move, draw, holds
from course_lib.checks.ch10_paged_attention.sharing_right import COPY, COPY_RIGHT, FORK_RIGHT
from course_lib.grading.spec import Check, Mutant, Probe, Property

BLOCK = 3  # tokens a block in these histories
VERBS = {"new": 2, "grow": 12, "fork": 4, "end": 2}

# Runs in the answer's process: requests, tables and the memory of the blocks; `subject` is the answer, `part` says which of the two it is.
_HARNESS = """
import re

BLOCK = 3

class Allocator:
    def __init__(self, num_blocks):
        self._holders = [0] * num_blocks

    @property
    def num_free(self):
        return self._holders.count(0)

    def allocate(self):
        if not self.num_free:
            raise RuntimeError("no block is free")
        block = self._holders.index(0)
        self._holders[block] = 1
        return block

    def share(self, block):
        self.holders(block, 1)
        self._holders[block] += 1

    def free(self, block):
        self.holders(block, 1)
        self._holders[block] -= 1

    def holders(self, block, least=0):
        if not 0 <= block < len(self._holders) or self._holders[block] < least:
            raise ValueError(f"block {block} is not in use")
        return self._holders[block]

def usual_fork(table, allocator):
    for block in table:
        allocator.share(block)
    return list(table)

def usual_copy(table, length, block_size, allocator):
    entry = length // block_size
    if entry == len(table):
        table.append(allocator.allocate())
        return None
    old = table[entry]
    if allocator.holders(old) == 1:
        return None
    table[entry] = allocator.allocate()
    allocator.free(old)
    return old, table[entry]

def run(subject, num_blocks, steps):
    fork, copy = (subject, usual_copy) if PART == "fork" else (usual_fork, subject)
    allocator, tables, texts, told = Allocator(num_blocks), {}, {}, []
    memory = [[None] * BLOCK for _ in range(num_blocks)]
    for step in steps:
        who, verb, what = re.fullmatch(r"(\\w+)(?: = | \\+= | )(\\w+)\\(?(\\w*)\\)?", step).groups()
        said = "done"
        try:
            if verb == "new":
                tables[who], texts[who] = [], []
            elif verb == "ends":
                for block in tables.pop(who):
                    allocator.free(block)
                del texts[who]
            elif verb == "fork":
                made = fork(tables[what], allocator)
                if made is None:
                    raise TypeError("fork_sequence returned None")
                if made is tables[what]:
                    said = "the very same list came back"
                if not isinstance(made, list):
                    said = f"fork_sequence returned {made!r}"
                tables[who], texts[who] = list(made) if made is not tables[what] else made, list(texts[what])
            else:
                said = grown(copy, tables[who], texts[who], int(verb), allocator, memory)
        except RuntimeError as error:
            if isinstance(error, NotImplementedError):
                raise
            said = "RuntimeError"
        except Exception as error:
            said = f"{type(error).__name__}: {error}"
            if verb == "fork":
                tables[who], texts[who] = [], []
        shown = [f"{name} reads {read(tables[name], len(texts[name]), memory)}" for name in tables if texts[name]]
        told.append(", ".join([said, *shown, f"{allocator.num_free} free"]))
    return told

def grown(copy, table, text, token, allocator, memory):
    pair = copy(table, len(text), BLOCK, allocator)
    said = "done"
    if pair is not None:
        if not isinstance(pair, (tuple, list)) or len(pair) != 2 or None in pair:
            raise TypeError(f"copy_on_write returned {'one number' if isinstance(pair, int) else 'something else than None or (old, fresh)'}")
        old, fresh = pair
        memory[fresh][:] = memory[old]
        said = "a block copied"
    memory[table[len(text) // BLOCK]][len(text) % BLOCK] = token
    text.append(token)
    return said

def read(table, length, memory):
    places = [(table[i // BLOCK], i % BLOCK) if i // BLOCK < len(table) else None for i in range(length)]
    return " ".join("?" if at is None or memory[at[0]][at[1]] is None else str(memory[at[0]][at[1]]) for at in places)
"""
FORK_HARNESS, COPY_HARNESS = (f'PART = "{part}"\n{_HARNESS}' for part in ("fork", "copy"))


def play(num_blocks: int, moves: list[Move]) -> tuple[list[str], list[str]]:
    """What the moves mean, and what each comes to: the texts as they must read, and the free blocks."""
    steps, made = [], 0
    alive: dict[str, int] = {}  # tokens of each request; which requests are there depends on no answer
    for verb, number in moves:
        names = list(alive)
        if verb == "new" or not names:
            steps.append(f"{letter(made)} = new()")
            alive[letter(made)], made = 0, made + 1
            continue
        name = names[number % len(names)]
        if verb == "grow":
            steps.append(f"{name} += {10 + len(steps)}")
            alive[name] += 1
        elif verb == "fork" and len(names) < 5:
            steps.append(f"{letter(made)} = fork({name})")
            alive[letter(made)], made = alive[name], made + 1
        elif verb == "end":
            steps.append(f"{name} ends")
            del alive[name]
    return steps, by_groups(num_blocks, steps)


def by_groups(num_blocks: int, steps: list[str]) -> list[str]:
    """The outcomes from the steps alone. A block is an object that tables hold; how many different ones are held is how many are in use."""
    tables: dict[str, list[object]] = {}
    texts: dict[str, list[str]] = {}
    told = []
    for step in steps:
        who, verb, what = re.fullmatch(r"(\w+)(?: = | \+= | )(\w+)\(?(\w*)\)?", step).groups()
        said = "done"
        if verb == "new":
            tables[who], texts[who] = [], []
        elif verb == "ends":
            del tables[who], texts[who]
        elif verb == "fork":
            tables[who], texts[who] = list(tables[what]), list(texts[what])
        else:
            entry, used = len(texts[who]) // BLOCK, len({id(b) for table in tables.values() for b in table})
            missing = entry == len(tables[who])
            shared = not missing and sum(tables[who][entry] is b for table in tables.values() for b in table) > 1
            if (missing or shared) and used == num_blocks:
                said = "RuntimeError"
            else:
                if missing:
                    tables[who].append(object())
                elif shared:
                    tables[who][entry], said = object(), "a block copied"
                texts[who].append(verb)
        shown = [f"{name} reads {' '.join(text)}" for name, text in texts.items() if text]
        told.append(", ".join([said, *shown, f"{num_blocks - len({id(b) for table in tables.values() for b in table})} free"]))
    return told


def _probe(name: str, num_blocks: int, moves: list[Move]) -> Probe:
    return Probe(name, (num_blocks, play(num_blocks, moves)[0]))


def _probes(g: torch.Generator) -> list[Probe]:
    new, fork = ("new", 0), ("fork", 0)
    a, b, c = (("grow", n) for n in range(3))
    return [
        _probe("two texts fork and grow apart", 6, [new, a, a, fork, a, b, a, b, b]),
        _probe("a fork where the last block is full", 6, [new, a, a, a, fork, a, b, a, b]),
        _probe("three of one text, the first ends", 9, [new, a, a, a, a, fork, fork, ("end", 0), a, b, a, b, a, b]),
        _probe("too few blocks", 2, [new, a, a, fork, fork, a, b, c, ("end", 2), b, b, b, b, ("end", 0), a, a, a]),
        _probe("80 random steps, 7 blocks", 7, draw(g, VERBS, 80)),
        _probe("120 random steps, 14 blocks", 14, draw(g, VERBS, 120)),
    ]


def _property(name: str) -> Property:
    return Property(name, holds(play, VERBS, (2, 6, 14), (50,) * 6, f"with {{size}} blocks of {BLOCK}"), "history", speaks=True)


FORK_SEQUENCE = Check(
    exercise="fork_sequence",
    probes=_probes,
    reference=by_groups,
    baselines=(by_groups, by_groups, by_groups),
    returns="what each step came to",
    harness=FORK_HARNESS,
    properties=(_property("random histories"),),
    mutants=(
        Mutant(
            "same-list",
            "The new request got the old one's own list: from the next token on, whatever one appends stands in the other's table too. Return a copy.",
            edits=(("return list(table)", "return table"),),
        ),
        Mutant(
            "not-returned",
            "Nothing came back where the new request's table should. Is a `return` missing?",
            edits=(("    return list(table)", "    list(table)"),),
        ),
        Mutant(
            "not-shared",
            "The new table names the blocks, but nobody counted the second holder: when one of the two ends, the other's blocks are given away; and a write "
            "finds a block that looks unshared. Call share for each block.",
            edits=(("        allocator.share(block)", "        pass"),),
        ),
        Mutant(
            "only-the-last",
            "Only the last block got a second holder. The full ones are shared too: they stay in use until both requests have ended.",
            edits=(("for block in table:", "for block in table[-1:]:"),),
        ),
        Mutant(
            "only-the-full",
            "The last block got no second holder. It is the one that will be written: what protects it is its count.",
            edits=(("for block in table:", "for block in table[:-1]:"),),
        ),
        Mutant(
            "shared-twice",
            "Each block got two more holders, and the new request is one: after both have ended the blocks are still in use.",
            edits=(("allocator.share(block)", "allocator.share(block) or allocator.share(block)"),),
        ),
        Mutant(
            "fresh-blocks",
            "The new request was given blocks of its own. They take memory at once, and nothing is in them: sharing is naming the same blocks.",
            body="def fork_sequence(table, allocator):\n    return [allocator.allocate() for _ in table]\n",
        ),
    ),
    right=FORK_RIGHT,
)

COPY_ON_WRITE = Check(
    exercise="copy_on_write",
    probes=_probes,
    reference=by_groups,
    baselines=(by_groups, by_groups, by_groups),
    returns="what each step came to",
    harness=COPY_HARNESS,
    properties=(_property("random histories"),),
    mutants=(
        Mutant(
            "never-copied",
            "A shared block was written as it is: the token shows in the other request's text. Look at holders before you let it be written.",
            edits=(("if allocator.holders(old) == 1:", "if True:"),),
        ),
        Mutant(
            "always-copied",
            "Right, and a block was copied although this request was its only holder: a copy of every block for every token.",
            edits=(("if allocator.holders(old) == 1:", "if False:"),),
        ),
        Mutant(
            "two-are-none",
            "With two holders the block was written as it is; with three it was copied. One holder is the request itself: from two on it is shared.",
            edits=(("allocator.holders(old) == 1", "allocator.holders(old) <= 2"),),
        ),
        Mutant(
            "old-kept",
            "The request took a fresh block and kept its hold of the old one: the old one is never free again.",
            edits=(("    allocator.free(old)\n", ""),),
        ),
        Mutant(
            "table-not-changed",
            "A fresh block was taken and the copy announced, but the table still names the old block: the token was written into the shared one.",
            edits=(("    table[entry] = fresh\n", ""),),
        ),
        Mutant(
            "exchanged",
            "The pair is (old, fresh), what to copy and where to: the other way round the shared block is overwritten with what lay in the fresh one.",
            edits=(("return old, fresh", "return fresh, old"),),
        ),
        Mutant(
            "appended",
            "The fresh block was put behind the shared one: the table has one block too many, and the token was written into the shared one. Put the fresh block in its place.",
            edits=(("    table[entry] = fresh\n", "    table.append(fresh)\n"),),
        ),
        Mutant(
            "only-the-fresh",
            "Only the fresh block's number came back. Whoever copies needs both: (old, fresh).",
            edits=(("return old, fresh", "return fresh"),),
        ),
        Mutant(
            "told-without-a-copy",
            "A fresh block at the table's end has no old one: nothing is to be copied, return None.",
            edits=(
                (
                    "        table.append(allocator.allocate())\n        return None",
                    "        table.append(allocator.allocate())\n        return None, table[-1]",
                ),
            ),
        ),
        Mutant(
            "error-swallowed",
            "With no block free, the allocator's RuntimeError was caught and the shared block written as it is. Let the error pass: the caller decides who waits.",
            edits=(
                (
                    "    fresh = allocator.allocate()  # first: if there is none, nothing has changed\n",
                    "    try:\n        fresh = allocator.allocate()\n    except RuntimeError:\n        return None\n",
                ),
            ),
        ),
        Mutant(
            "copy-not-told",
            "The table was changed and nobody was told to copy: the fresh block holds whatever lay there. Return (old, fresh).",
            edits=(("return old, fresh", "return None"),),
        ),
        Mutant(
            "given-back-first",
            "The old block was given back before a fresh one was there. If none is free, the request has lost its hold of a block that its table still names. "
            "Allocate first.",
            edits=(
                (
                    "    fresh = allocator.allocate()  # first: if there is none, nothing has changed\n    allocator.free(old)\n",
                    "    allocator.free(old)\n    fresh = allocator.allocate()\n",
                ),
            ),
        ),
        Mutant(
            "no-new-block",
            "When all blocks are full the table needs one more: entry length // block_size does not exist yet.",
            edits=(("        table.append(allocator.allocate())\n        return None", "        entry -= 1"),),
        ),
        Mutant(
            "one-early",
            "The table grew one token too early: with `length` tokens stored, the next is number `length`, counted from 0, and `length % block_size == 0` means "
            "that all blocks are full.",
            edits=(("    if entry == len(table):", "    if (length + 1) // block_size == len(table):"),),
        ),
        Mutant(
            "full-block-copied",
            "At a full last block that is shared the full block was copied as well. Nobody writes to it any more: it can stay shared; the table needs a fresh one at its end.",
            body=COPY,
        ),
    ),
    right=COPY_RIGHT,
)
