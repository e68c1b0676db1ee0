"""Grading material: wave_efficiency."""

import math

import torch

from course_lib.grading.spec import Check, Mutant, Probe

_HEAD = "def wave_efficiency(programs, multiprocessors, per_multiprocessor=1):\n    places = multiprocessors * per_multiprocessor\n"


def by_waves(programs, multiprocessors, per_multiprocessor=1):
    places = multiprocessors * per_multiprocessor
    return programs / (math.ceil(programs / places) * places)


def by_filling(programs, multiprocessors, per_multiprocessor=1):
    places, left, paid = multiprocessors * per_multiprocessor, programs, 0
    while left > 0:
        left, paid = left - places, paid + places
    return programs / paid


def by_waste(programs, multiprocessors, per_multiprocessor=1):
    places = multiprocessors * per_multiprocessor
    idle = -programs % places
    return 1 - idle / (programs + idle)


def _draw(g: torch.Generator, low: int, high: int) -> int:
    return int(torch.randint(low, high, (1,), generator=g))


def _probes(g: torch.Generator) -> list[Probe]:
    return [
        Probe("the example", (5, 2)),
        Probe("fewer programs than multiprocessors", (_draw(g, 20, 60), 132)),
        Probe("exactly full", (264, 132)),
        Probe("one program too many, 2 on a multiprocessor", (265, 132, 2)),
        Probe("an A100, 3 on a multiprocessor", (_draw(g, 340, 600), 108), {"per_multiprocessor": 3}),
        Probe("many waves", (_draw(g, 5000, 5200), 40, 2)),
        Probe("28 programs in the second wave", (160, 132), diagnose=False),
        Probe("one program", (1, 132), diagnose=False),
        Probe("one place", (_draw(g, 3, 9), 1), diagnose=False),
        Probe("fewer programs than multiprocessors, and room for 4 on each", (100, 132, 4), diagnose=False),
    ]


def _mutant(id: str, message: str, line: str) -> Mutant:
    return Mutant(id, message, body=f"{_HEAD}    return {line}\n")


WAVE_EFFICIENCY = Check(
    exercise="wave_efficiency",
    probes=_probes,
    reference=by_waves,
    baselines=(by_waves, by_filling, by_waste),
    returns="a share between 0 and 1",
    mutants=(
        _mutant(
            "unbounded", "A share of the places cannot be above 1: more than one wave is needed, and each has to be paid for.", "programs / places"
        ),
        _mutant(
            "capped",
            "Right for a single wave. With more programs than places there are several waves, and the last one is full only by chance.",
            "min(1.0, programs / places)",
        ),
        _mutant(
            "waves-rounded-down",
            "The waves were rounded down: the programs that are left over need a wave as well, however few they are.",
            "programs / (max(1, programs // places) * places)",
        ),
        _mutant(
            "no-wave",
            "The waves were rounded down: the programs that are left over need a wave as well, however few they are, and fewer programs than places need one.",
            "programs / (programs // places * places)",
        ),
        _mutant(
            "one-wave-more",
            "A wave too many where the programs fill the waves exactly: programs // places + 1 is not the number rounded up.",
            "programs / ((programs // places + 1) * places)",
        ),
        _mutant(
            "last-wave",
            "That is how full the last wave is. The question is about all of them together: many full waves make up for a poor last one.",
            "(programs - (-(-programs // places) - 1) * places) / places",
        ),
        Mutant(
            "one-each",
            "Right for one program on a multiprocessor: `per_multiprocessor` is not used. Programs that share a multiprocessor run in the same wave.",
            edits=(("places = multiprocessors * per_multiprocessor", "places = multiprocessors"),),
        ),
        _mutant(
            "paid-for-one-each",
            "The waves were counted with all places, and then only one place was paid for on each multiprocessor. A wave has "
            "multiprocessors * per_multiprocessor of them, below the line too.",
            "programs / (-(-programs // places) * multiprocessors)",
        ),
        _mutant(
            "idle-share",
            "That is the share of places that stays empty. Asked for is the share that works.",
            "1 - programs / (-(-programs // places) * places)",
        ),
        _mutant("waves", "That is the number of waves. The efficiency is what they hold, over what they could hold.", "-(-programs // places)"),
        _mutant(
            "inverted",
            "The fraction stands on its head: what is paid for is at least what is used, so an efficiency is at most 1.",
            "-(-programs // places) * places / programs",
        ),
        _mutant(
            "percent", "That is the share in percent. Asked for is the share itself, at most 1.", "100 * programs / (-(-programs // places) * places)"
        ),
    ),
    right=(
        "import math\n\ndef wave_efficiency(programs, multiprocessors, per_multiprocessor=1):\n    at_once = per_multiprocessor * multiprocessors\n"
        "    return programs / (at_once * math.ceil(programs / at_once))\n",
        f"{_HEAD}    full, rest = divmod(programs, places)\n    waves = full + (1 if rest else 0)\n    return (programs / places) / waves\n",
        f"{_HEAD}    left, waves = programs, 0\n    while left > 0:\n        left -= places\n        waves += 1\n    return programs / waves / places\n",
    ),
)
