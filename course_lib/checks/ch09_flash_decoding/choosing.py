"""Grading material: choose_num_splits."""

import torch

from course_lib.grading.spec import Check, Mutant, Probe

_TIME = "time = waves * (-(-tiles // splits) + 1) + (merge if splits > 1 else 0)"
_WAVES = "waves = -(-programs * splits // places)"
_ONE_WAVE = (
    "The splits were chosen to fill the places once. That is right while one wave is best; where the last wave of a few splits would be half empty, or the "
    "merge costs more than it saves, another number ends sooner. Count the time of every number of splits."
)
_HEAD = "def choose_num_splits(programs, tiles, places, merge=2):\n    "


def _cost(programs: int, tiles: int, places: int, merge: int, splits: int) -> int:
    return -(-programs * splits // places) * (-(-tiles // splits) + 1) + merge * (splits > 1)


def by_search(programs: int, tiles: int, places: int, merge: int = 2) -> int:
    best, fastest = 1, None
    for splits in range(1, max(1, tiles) + 1):
        time = _cost(programs, tiles, places, merge, splits)
        if fastest is None or time < fastest:
            best, fastest = splits, time
    return best


def by_min(programs: int, tiles: int, places: int, merge: int = 2) -> int:
    return min(range(1, max(1, tiles) + 1), key=lambda splits: (_cost(programs, tiles, places, merge, splits), splits))


def by_sorting(programs: int, tiles: int, places: int, merge: int = 2) -> int:
    return sorted((_cost(programs, tiles, places, merge, splits), splits) for splits in range(1, max(1, tiles) + 1))[0][1]


def _draw(g: torch.Generator, low: int, high: int) -> int:
    return int(torch.randint(low, high, (1,), generator=g))


def _probes(g: torch.Generator) -> list[Probe]:
    return [
        Probe("8 programs, 64 tiles, 132 places", (8, 64, 132)),
        Probe("512 programs fill 264 places twice", (512, 64, 264)),
        Probe("100 programs, 40 tiles, 132 places", (100, 40, 132)),
        Probe("2 programs, 6 tiles, 132 places: the most splits there are", (2, 6, 132)),
        Probe("20 programs, 7 tiles, 66 places, merging costs 5", (20, 7, 66), {"merge": 5}),
        Probe("10 programs, 3 tiles, 264 places", (10, 3, 264)),
        Probe("48 programs, 17 tiles, 132 places", (48, 17, 132), diagnose=False),
        Probe("a long request alone", (8, 1000, 264), diagnose=False),
        Probe("one tile", (3, 1, 132), diagnose=False),
        Probe("no tile", (3, 0, 132), diagnose=False),
        Probe("merging costs nothing", (12, 30, 100), {"merge": 0}, diagnose=False),
        Probe("merging costs much", (12, 30, 100), {"merge": 60}, diagnose=False),
        *(
            Probe(f"drawn {i}", (_draw(g, 1, 200), _draw(g, 1, 90), _draw(g, 10, 300)), {"merge": _draw(g, 0, 8)}, diagnose=False)
            for i in range(4)
        ),
    ]  # fmt: skip


CHOOSE_NUM_SPLITS = Check(
    exercise="choose_num_splits",
    probes=_probes,
    reference=by_search,
    baselines=(by_search, by_min, by_sorting),
    returns="a whole number",
    mutants=(
        Mutant("one-wave", _ONE_WAVE, body=f"{_HEAD}return max(1, min(tiles, places // programs))\n"),
        Mutant(
            "one-wave-past-the-tiles", f"{_ONE_WAVE} (And there are no more parts than tiles.)", body=f"{_HEAD}return max(1, places // programs)\n"
        ),
        Mutant(
            "one-wave-and-more",
            "`places / programs`, rounded up, is one split too many as soon as it does not come out even: the programs past the last place wait for a "
            "second wave. Count the time of every number of splits.",
            body=f"{_HEAD}return max(1, min(tiles, -(-places // programs)))\n",
        ),
        Mutant(
            "wave-of-the-rest-missing",
            "A last wave that is only partly full was not counted: it takes as long as a full one. Round up.",
            edits=((_WAVES, "waves = max(1, programs * splits // places)"),),
        ),
        Mutant(
            "waves-not-whole",
            "The number of waves was not rounded up: half a wave of programs takes as long as a whole one.",
            edits=((_WAVES, "waves = programs * splits / places"),),
        ),
        Mutant(
            "part-rounds-down",
            "The longest part has ceil(tiles / splits) tiles: rounding down forgets the tiles that are left over.",
            edits=((_TIME, "time = waves * (tiles // splits + 1) + (merge if splits > 1 else 0)"),),
        ),
        Mutant(
            "part-not-whole",
            "The longest part was counted in fractions of a tile. A program takes whole tiles: round up.",
            edits=((_TIME, "time = waves * (tiles / splits + 1) + (merge if splits > 1 else 0)"),),
        ),
        Mutant(
            "free-start",
            "The tile that each wave takes to begin is missing.",
            edits=((_TIME, "time = waves * -(-tiles // splits) + (merge if splits > 1 else 0)"),),
        ),
        Mutant(
            "merge-forgotten",
            "The merge makes no difference: it is paid where there is more than one split, and one split does without.",
            edits=((_TIME, "time = waves * (-(-tiles // splits) + 1)"),),
        ),
        Mutant(
            "merge-is-2",
            "The merge was counted as 2: that is only what it costs where the caller says nothing. Use `merge`.",
            edits=((_TIME, _TIME.replace("(merge if", "(2 if")),),
        ),
        Mutant(
            "merge-each",
            "The merge was paid once a split: it is one kernel, paid once where there is more than one split.",
            edits=((_TIME, "time = waves * (-(-tiles // splits) + 1) + merge * (splits - 1)"),),
        ),
        Mutant("last-of-several", "Of several numbers with the same time, take the smallest.", edits=(("time < fastest", "time <= fastest"),)),
        Mutant(
            "last-never-tried",
            "As many splits as tiles were never tried: `range(1, tiles)` ends one before.",
            edits=(("range(1, max(1, tiles) + 1)", "range(1, max(2, tiles))"),),
        ),
        Mutant(
            "time-returned",
            "What came back is the shortest time; asked for is the number of splits that has it.",
            edits=(("return best", "return fastest"),),
        ),
        Mutant(
            "as-many-as-tiles",
            "As many splits as tiles were taken. Once the places are taken, more programs wait for another wave, and each wave costs a start.",
            edits=(("return best", "return max(1, tiles)"),),
        ),
    ),
    right=(
        """\
def choose_num_splits(programs, tiles, places, merge=2):
    def time(s):
        waves = (programs * s + places - 1) // places
        longest = (tiles + s - 1) // s
        return waves * (longest + 1) + (merge if s > 1 else 0)
    return min(range(1, max(tiles, 1) + 1), key=time)
""",
        """\
import math

def choose_num_splits(programs, tiles, places, merge=2):
    options = [(math.ceil(programs / places) * (tiles + 1), 1)]
    for s in range(2, tiles + 1):
        options.append((math.ceil(programs * s / places) * (math.ceil(tiles / s) + 1) + merge, s))
    return min(options)[1]
""",
        """\
def choose_num_splits(programs, tiles, places, merge=2):
    counts = torch.arange(1, max(1, tiles) + 1)
    waves = (programs * counts + places - 1).div(places, rounding_mode="floor")
    time = waves * ((tiles + counts - 1).div(counts, rounding_mode="floor") + 1) + merge * (counts > 1)
    return int((time == time.min()).nonzero()[0]) + 1
""",
    ),
)
