"""Grading material: BlockAllocator, by histories of operations against an oracle that knows who holds what."""

import re

import torch

from course_lib.checks.ch10_paged_attention.allocator_right import COUNTER, RIGHT, SHARED_STATE
from course_lib.checks.ch10_paged_attention.histories import Move, draw, holds
from course_lib.grading.spec import Check, Mutant, Probe, Property

VERBS = {"allocate": 6, "share": 4, "free": 7, "holders": 1, "free again": 1, "share a free one": 1, "a block that is none": 1}

# Runs in the answer's process. Each step comes to a text in which no number of a block stands: any free block will do.
HARNESS = """
import operator, re

def run(subject, num_blocks, steps):
    if not isinstance(subject, type):
        raise TypeError("BlockAllocator must be a class")
    subject(num_blocks).allocate()  # an allocator of somebody else
    allocator, names, held, told = subject(num_blocks), {}, {}, []
    for step in steps:
        who, verb, what = re.fullmatch(r"(?:(\\w+) = )?(\\w+)\\((.*)\\)", step).groups()
        if what.isalnum() and not what.isdigit() and what not in names:
            told.append(f"no such block was given out, {count(allocator)} free")
            continue
        block = names[what] if what in names else int(what) if what else None
        try:
            if verb == "allocate":
                got = allocator.allocate()
                said = judged(got, num_blocks, held, names)
                if said == "a free block":
                    got = operator.index(got)
                    names[who], held[got] = got, 1
            elif verb == "holders":
                said = f"holders {allocator.holders(block)}"
            else:
                getattr(allocator, verb)(block)
                held[block] = held.get(block, 0) + (1 if verb == "share" else -1)
                said = f"holders {allocator.holders(block)}"
        except (ValueError, RuntimeError) as error:
            if isinstance(error, NotImplementedError):
                raise
            said = "ValueError" + left_by_refusal(allocator, block, num_blocks, held) if isinstance(error, ValueError) else "RuntimeError"
        except Exception as error:
            said = type(error).__name__
        told.append(f"{said}, {count(allocator)} free")
    return told

def left_by_refusal(allocator, block, num_blocks, held):
    if block is None or not 0 <= block < num_blocks:
        return ""
    try:
        now = allocator.holders(block)
    except Exception:
        return ""
    return "" if now == held.get(block, 0) else f" and then holders {now}"

def judged(got, num_blocks, held, names):
    try:
        got = operator.index(got)
    except TypeError:
        return f"{got!r} instead of a number"
    if not 0 <= got < num_blocks:
        return f"block {got}, which does not exist"
    if held.get(got, 0) > 0:
        return f"block {[name for name, block in names.items() if block == got][-1]}, which is in use"
    return "a free block"

def count(allocator):
    free = allocator.num_free
    return "num_free is a method, so ?" if callable(free) else free
"""


def letter(number: int) -> str:
    """A, B, .. Z, A1, B1, ..."""
    return chr(65 + number % 26) + (str(number // 26) if number >= 26 else "")


def play(num_blocks: int, moves: list[Move]) -> tuple[list[str], list[str]]:
    """What the moves mean, and what each comes to. A block that was given out again may be any: only surely free ones are freed twice."""
    held: dict[str, int] = {}
    surely_free: list[str] = []
    steps, wanted, made = [], [], 0

    def note(step: str, outcome: str) -> None:
        steps.append(step)
        wanted.append(f"{outcome}, {num_blocks - len(held)} free")

    for verb, number in moves:
        live = list(held)
        if verb == "allocate":
            name = letter(made)
            if len(held) == num_blocks:
                note("allocate()", "RuntimeError")
            else:
                held[name], made, surely_free = 1, made + 1, []
                note(f"{name} = allocate()", "a free block")
        elif verb in ("free again", "share a free one"):
            if surely_free:
                note(f"{'free' if verb == 'free again' else 'share'}({surely_free[number % len(surely_free)]})", "ValueError")
        elif verb == "a block that is none":
            wrong = (-1, num_blocks, -num_blocks, num_blocks + 5)[number % 4]
            note(f"{('free', 'share', 'holders')[number // 4 % 3]}({wrong})", "ValueError")
        elif live:
            name = live[number % len(live)]
            if verb == "share":
                held[name] += 1
            elif verb == "free":
                held[name] -= 1
            note(f"{verb}({name})", f"holders {held[name]}")
            if held[name] == 0:
                del held[name]
                surely_free.append(name)
                wanted[-1] = f"holders 0, {num_blocks - len(held)} free"
    return steps, wanted


def by_sets(num_blocks: int, steps: list[str]) -> list[str]:
    """The same outcomes, read from the steps alone: one entry in a list for every hold."""
    holds_of: list[str] = []
    told = []
    for step in steps:
        who, verb, what = re.fullmatch(r"(?:(\w+) = )?(\w+)\((.*)\)", step).groups()
        if verb == "allocate":
            fits = len(set(holds_of)) < num_blocks
            holds_of += [who] * fits
            said = "a free block" if fits else "RuntimeError"
        elif what not in holds_of:
            said = "ValueError"
        else:
            if verb == "share":
                holds_of.append(what)
            elif verb == "free":
                holds_of.remove(what)
            said = f"holders {holds_of.count(what)}"
        told.append(f"{said}, {num_blocks - len(set(holds_of))} free")
    return told


def _probe(name: str, num_blocks: int, moves: list[Move]) -> Probe:
    return Probe(name, (num_blocks, play(num_blocks, moves)[0]))


def _probes(g: torch.Generator) -> list[Probe]:
    a, s, f = ("allocate", 0), ("share", 0), ("free", 0)
    return [
        _probe("the example, 2 blocks", 2, [a, s, f, f, ("free again", 0), a, a]),
        _probe("3 blocks, one more than there are", 3, [a, a, a, a, ("free", 1), a, a, f, f, f, a]),
        _probe("blocks that do not exist", 4, [a, a, *(("a block that is none", n) for n in range(12)), ("holders", 1)]),
        _probe("a free block shared", 3, [a, s, s, f, f, f, ("share a free one", 0), ("free again", 0), a, a, a]),
        _probe("60 random steps, 5 blocks", 5, draw(g, VERBS, 60)),
        _probe("120 random steps, 9 blocks", 9, draw(g, VERBS, 120)),
    ]


BLOCK_ALLOCATOR = Check(
    exercise="BlockAllocator",
    probes=_probes,
    reference=by_sets,
    baselines=(by_sets, by_sets, by_sets),
    returns="what each step came to",
    harness=HARNESS,
    properties=(Property("random histories", holds(play, VERBS, (2, 4, 9), (40,) * 8, "of {size} blocks"), "history", speaks=True),),
    mutants=(
        Mutant(
            "leaked",
            "A block that lost its last holder never became free again: put it back among the free ones when its count reaches 0.",
            edits=(("            self._free.append(block)", "            pass"),),
        ),
        Mutant(
            "freed-too-early",
            "A block became free while somebody still held it: each free takes one holder away, and only the last one makes the block free.",
            edits=(("        if self._holders[block] == 0:\n            self._free.append(block)", "        self._free.append(block)"),),
        ),
        Mutant(
            "free-takes-all",
            "One free took all holders away at once: the count falls by one.",
            edits=(("self._holders[block] -= 1", "self._holders[block] = 0"),),
        ),
        Mutant(
            "share-not-counted",
            "share left no trace: the block was free after one free, although two held it.",
            edits=(("self._holders[block] += 1", "pass"),),
        ),
        Mutant(
            "freed-twice",
            "A block that was free already went to the free ones a second time: two requests will be given the same block. Refuse with ValueError.",
            edits=(
                ('raise ValueError(f"block {block} is free already")', "pass"),
                ("        if self._holders[block] == 0:\n            self._free", "        if self._holders[block] <= 0:\n            self._free"),
            ),
        ),
        Mutant(
            "freed-twice-silently",
            "Freeing a block that is free already did no harm and said nothing. Whoever does it has lost count somewhere: raise ValueError.",
            edits=(('raise ValueError(f"block {block} is free already")', "return"),),
        ),
        Mutant(
            "counted-without-a-check",
            "A free block was freed once more, and its count went below 0: nothing stopped it. Refuse with ValueError before you count.",
            edits=(
                (
                    '        if self.holders(block) == 0:\n            raise ValueError(f"block {block} is free already")\n        self._holders[block] -= 1',
                    "        self.holders(block)\n        self._holders[block] -= 1",
                ),
            ),
        ),
        Mutant(
            "refused-too-late",
            "The call was refused, and the count had changed by then. A refused call changes nothing: check first, count afterwards.",
            edits=(
                (
                    '        if self.holders(block) == 0:\n            raise ValueError(f"block {block} is free already")\n        self._holders[block] -= 1\n',
                    "        self.holders(block)\n        self._holders[block] -= 1\n        if self._holders[block] < 0:\n"
                    '            raise ValueError(f"block {block} is free already")\n',
                ),
            ),
        ),
        Mutant(
            "shared-while-free",
            "A free block was shared: its content may be overwritten at any moment by whoever is given it. Refuse with ValueError.",
            edits=(('raise ValueError(f"block {block} is free: nobody holds it, so nobody can share it")', "pass"),),
        ),
        Mutant(
            "negative-accepted",
            "Block -1 was accepted. It does not exist, though a Python list has an element of that index: the last. Check 0 <= block as well.",
            edits=(("if not 0 <= block < len(self._holders):", "if block >= len(self._holders):"),),
        ),
        Mutant(
            "no-range-check",
            "A number that names no block was not refused with ValueError: check it before you look it up.",
            edits=(("if not 0 <= block < len(self._holders):", "if False:"),),
        ),
        Mutant(
            "no-first-holder",
            "A block that was just given out has no holder: whoever allocates it holds it. Start the count at 1.",
            edits=(("self._holders[block] = 1", "self._holders[block] = 0"),),
        ),
        Mutant(
            "not-taken",
            "allocate looked at a free block and left it among the free ones: the next caller is given it too.",
            edits=(("block = self._free.pop()", "block = self._free[-1]"),),
        ),
        Mutant(
            "minus-one",
            "With no block free, -1 came back. Whoever does not look writes to the last block: raise RuntimeError.",
            edits=(('raise RuntimeError(f"all {len(self._holders)} blocks are in use")', "return -1"),),
        ),
        Mutant(
            "runs-empty",
            "With no block free, Python's own error came out of the list. Callers wait for RuntimeError: look before you take.",
            edits=(("if not self._free:", "if False:"),),
        ),
        Mutant(
            "one-too-few",
            "There is one block fewer than asked for: num_blocks blocks are 0 to num_blocks - 1.",
            edits=(("list(range(num_blocks))", "list(range(num_blocks - 1))"),),
        ),
        Mutant(
            "counts-used",
            "num_free says how many blocks are in use.",
            edits=(("return len(self._free)", "return len(self._holders) - len(self._free)"),),
        ),
        Mutant(
            "never-reused",
            "num_free is right, but a block that was freed is never given out again: after a while allocate says that there is none.",
            body=COUNTER,
        ),
        Mutant(
            "common-state",
            "Two allocators share their lists: what one gives out is missing in the other. Lists made in the class body belong to the class; make them in __init__.",
            body=SHARED_STATE,
        ),
    ),
    right=RIGHT,
    seconds=9.0,
)
