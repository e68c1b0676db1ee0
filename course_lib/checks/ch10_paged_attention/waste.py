"""Grading material: fragmentation_waste."""

import torch

from course_lib.grading.spec import Check, Mutant, Probe

_HELD = "held = -(-tokens // unit) * unit"
_RETURN = "return used / slots, reserved / slots, never / slots"


# Runs in the answer's process: 1 - a - b may come out as -4e-17 where 0 is meant.
HARNESS = """
def run(function, now, final, unit):
    shares = function(now, final, unit)
    return tuple(round(float(x), 9) + 0.0 for x in shares) if isinstance(shares, (tuple, list)) else shares
"""


def _rounded(*shares: float) -> tuple[float, ...]:
    return tuple(round(x, 9) for x in shares)


def by_sums(now, final, unit):
    held = [(tokens + unit - 1) // unit * unit for tokens in now]
    later = sum(max(min(h, end) - tokens, 0) for h, tokens, end in zip(held, now, final, strict=True))
    slots = sum(held)
    return _rounded(sum(now) / slots, later / slots, (slots - sum(now) - later) / slots)


def slot_by_slot(now, final, unit):
    kinds = [0, 0, 0]
    for tokens, end in zip(now, final, strict=True):
        held = unit
        while held < tokens:
            held += unit
        for slot in range(held):
            kinds[0 if slot < tokens else 1 if slot < end else 2] += 1
    return _rounded(*(kind / sum(kinds) for kind in kinds))


def by_tensors(now, final, unit):
    a, b = torch.tensor(now), torch.tensor(final)
    held = (a + unit - 1).div(unit, rounding_mode="floor") * unit
    later = torch.minimum(held, b) - a
    return _rounded(*(x.sum().item() / held.sum().item() for x in (a, later, held - a - later)))


def _draw(g: torch.Generator, count: int, low: int, high: int) -> list[int]:
    return torch.randint(low, high, (count,), generator=g).tolist()


def _texts(g: torch.Generator, count: int, high: int) -> tuple[list[int], list[int]]:
    now = _draw(g, count, 1, high)
    return now, [a + b for a, b in zip(now, _draw(g, count, 0, high), strict=True)]


def _probes(g: torch.Generator) -> list[Probe]:
    return [
        Probe("the example", ([10], [30], 100)),
        Probe("the example in blocks of 16", ([10], [30], 16)),
        Probe("3 requests, one unit each", (*_texts(g, 3, 60), 150)),
        Probe("7 requests in blocks of 16", (*_texts(g, 7, 90), 16)),
        Probe("5 requests in units of 7, some at their end", (*(2 * [_draw(g, 5, 1, 60)]), 7)),
        Probe("units of 1: nothing is wasted", (*_texts(g, 4, 50), 1)),
        Probe("whole blocks, just full", ([32, 64, 16], [33, 64, 100], 16), diagnose=False),
        Probe("200 requests", (*_texts(g, 200, 700), 2048), diagnose=False),
    ]


FRAGMENTATION_WASTE = Check(
    exercise="fragmentation_waste",
    probes=_probes,
    reference=by_sums,
    baselines=(by_sums, slot_by_slot, by_tensors),
    harness=HARNESS,
    returns="three shares (used, reserved, never)",
    mutants=(
        Mutant(
            "one-unit",
            "Every request was given one unit. It holds as many as its tokens of now need.",
            edits=((_HELD, "held = max(unit, tokens)"),),
        ),
        Mutant(
            "one-too-many",
            "A request whose tokens fill its units exactly was given one more: round up, do not add one.",
            edits=((_HELD, "held = (tokens // unit + 1) * unit"),),
        ),
        Mutant(
            "rounded-down",
            "The last, partial unit was not counted: a request holds whole units, rounded up.",
            edits=((_HELD, "held = max(1, tokens // unit) * unit"),),
        ),
        Mutant(
            "held-for-the-end",
            "Units were given out for the tokens that a request will have in the end. Nobody knows that number: it holds what its tokens of now need.",
            edits=((_HELD, "held = -(-end // unit) * unit"),),
        ),
        Mutant(
            "reserved-outside",
            "Tokens to come were counted as reserved although the request does not hold their slots yet: only what lies inside its units is reserved.",
            edits=(("reserved += min(held, end) - tokens", "reserved += end - tokens"),),
        ),
        Mutant(
            "reserved-outside-rest",
            "Tokens to come were counted as reserved although the request does not hold their slots yet: only what lies inside its units is reserved. (The third "
            "share, what is left of 1, fell below 0.)",
            edits=(("reserved += min(held, end) - tokens", "reserved += end - tokens"), ("never += max(0, held - end)", "never += held - end")),
        ),
        Mutant(
            "percent",
            "These are per cent; shares of 1 were asked for.",
            edits=((_RETURN, "return 100 * used / slots, 100 * reserved / slots, 100 * never / slots"),),
        ),
        Mutant(
            "all-reserved",
            "Everything that is held and not used was called reserved. What lies past the request's end will never be used.",
            edits=(("reserved += min(held, end) - tokens", "reserved += held - tokens"), ("never += max(0, held - end)", "pass")),
        ),
        Mutant(
            "all-never",
            "Everything that is held and not used was called lost. Some of it the request will still use.",
            edits=(("reserved += min(held, end) - tokens", "pass"), ("never += max(0, held - end)", "never += held - tokens")),
        ),
        Mutant(
            "mean-of-shares",
            "The shares were computed for each request and averaged: a small request then weighs as much as a large one. Add the slots, divide once.",
            body="def fragmentation_waste(now, final, unit):\n    rows = []\n    for tokens, end in zip(now, final):\n        held = -(-tokens // unit) * unit\n"
            "        rows.append((tokens / held, (min(held, end) - tokens) / held, max(0, held - end) / held))\n"
            "    return tuple(sum(column) / len(rows) for column in zip(*rows))\n",
        ),
        Mutant(
            "slots-not-shares",
            "These are numbers of slots; shares of all slots held were asked for.",
            edits=((_RETURN, "return float(used), float(reserved), float(never)"),),
        ),
        Mutant(
            "order",
            "The three shares stand in another order: used, reserved, never.",
            edits=((_RETURN, "return used / slots, never / slots, reserved / slots"),),
        ),
    ),
    right=(
        """\
import math

def fragmentation_waste(now, final, unit):
    held = [math.ceil(n / unit) * unit for n in now]
    total = sum(held)
    later = sum(min(h, f) for h, f in zip(held, final)) - sum(now)
    return sum(now) / total, later / total, 1 - sum(now) / total - later / total
""",
        """\
def fragmentation_waste(now, final, unit):
    slots = [0, 0, 0]
    for n, f in zip(now, final):
        h = n + (-n) % unit
        slots[0] += n
        slots[1] += (f if f < h else h) - n
        slots[2] += h - f if h > f else 0
    return tuple(s / sum(slots) for s in slots)
""",
        """\
def fragmentation_waste(now, final, unit):
    a = torch.tensor(now, dtype=torch.float64)
    b = torch.tensor(final, dtype=torch.float64)
    h = torch.ceil(a / unit) * unit
    used, never = a.sum(), (h - b).clamp(min=0).sum()
    return (used / h.sum()).item(), ((h.sum() - used - never) / h.sum()).item(), (never / h.sum()).item()
""",
    ),
)
