"""Measures configurations of a kernel against each other and prints a table: how the CONFIGS of `kernels/` were chosen.

    from course_lib import tune
    tune.sweep(matmul, (a, b), tune.grid(BLOCK_M=(64, 128), BLOCK_N=(64, 128), BLOCK_K=(64,), GROUP=(8,), num_warps=(4, 8), num_stages=(3,)))

    python -m course_lib.tune matmul M=8192             # a kernel of the course, on the sizes of `course bench`
    python -m course_lib.tune flash_forward D=128 causal=no N=4096

Nothing is tuned by importing this or any kernel. Tuned once, on one machine, written into the file: that is what a reader can check.
"""

import itertools
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from course_lib import hardware, races_decode
from course_lib.races import Contestant, Race, Result, run
from course_lib.tables import Table
from course_lib.words import number

NEEDS_A_GPU = (
    "tune: configurations differ in time, and here kernels are interpreted, where time says nothing. "
    "It needs a CUDA GPU; on Colab choose Runtime > Change runtime type > T4."
)
_ROW_WARPS = (4, 8, 16, 32)


def grid(**choices: Iterable) -> list[dict]:
    """Every combination: grid(BLOCK_M=(64, 128), num_warps=(4, 8)) is four configurations."""
    return [dict(zip(choices, values, strict=True)) for values in itertools.product(*choices.values())]


def sweep(
    host: Callable, args: Sequence[Tensor], configs: Sequence[dict], *, bytes: int = 0, flops: int = 0, options: dict | None = None,
    exact: Callable[..., Tensor] | None = None, output: Callable[..., Tensor] = lambda returned: returned, clock=None,
) -> Table | None:  # fmt: skip
    """Time host(*args, config=config, **options) for every configuration, print the table, fastest first, and return it.

    bytes, flops  what a call moves or computes: the rate's column; flops win
    exact         args -> the right result; without it the host's own choice of a configuration is what others are compared with
    output        finds the tensor to compare in what the host returns
    Without a GPU it prints why not and returns None.
    """  # fmt: skip
    if clock is None and hardware.tier() == "interpreter":
        print(NEEDS_A_GPU)
        return None
    if not configs:
        raise ValueError("tune.sweep: there is no configuration to try; give it a list of dicts, as tune.grid(...) makes")
    args, function = tuple(args), partial(host, **(options or {}))
    right = exact or (lambda *inputs: output(function(*inputs)))
    race = Race(
        getattr(host, "__name__", "kernel"), {}, lambda g: args, (),
        exact=lambda *inputs: right(*inputs).double(), plain=(lambda *inputs: output(function(*inputs)),),
        bytes=bytes or sum(x.nbytes for x in args), flops=flops, ceiling="matmul" if flops else "copy",
    )  # fmt: skip
    return of_race(race, Contestant(race.kernel, lambda: function, True, output=output), configs, clock)


def of_race(race: Race, contestant: Contestant, configs: Sequence[dict], clock=None) -> Table:
    """The same for one contestant of a race, whose inputs, reference and amounts it takes."""
    function = contestant.prepare()
    tries = {words(config): replace(contestant, name=words(config), prepare=partial(partial, function, config=config)) for config in configs}
    with torch.no_grad():
        results = run(replace(race, contestants=tuple(tries.values())), clock or _clock())
    found = table(race, results)
    print(found)
    return found


def words(config: dict) -> str:
    return ", ".join(f"{key.removeprefix('num_')} {value}" for key, value in config.items())


def table(race: Race, results: list[Result]) -> Table:
    """Fastest first; then those without a time, with the reason."""
    scale, unit = (1e9, "GB/s") if race.ceiling == "copy" else (1e12, "TFLOP/s")
    rows = []
    for one in sorted(results, key=lambda one: one.timing.median if one.timing else float("inf")):
        used = one.resources
        taken = (str(used.registers), str(used.spills), f"{used.shared / 1024:.0f} KiB", str(used.fit)) if used else ("-",) * 4
        if not one.timing:
            rows.append((one.who, "-", "-", *taken, one.problem))
            continue
        low, high = number(one.timing.low * 1e6, 4), number(one.timing.high * 1e6, 4)
        rows.append((one.who, f"{number(one.timing.median * 1e6, 4)} us", number(one.rate / scale, 4), *taken, f"middle half {low} to {high} us"))
    columns = ("configuration", "median", unit, "registers", "spills", "shared", "fit", "")
    return Table(columns, tuple(rows), f"{race.title}: {len(results)} configurations".replace(" :", ":"), "fit: programs on a multiprocessor at once")


def _clock():
    from course_lib.races_clocks import GpuClock

    return GpuClock()


# ---------------------------------------------------------------- the course's own kernels

FLASH = {"flash_forward": "flash_forward", "flash_forward_two_tiles": "two_tiles", "flash_forward_descriptors": "descriptors"}


NOT_ONE_KERNEL = ("flash_backward", "flash_varlen_backward", "flash_window_backward")  # of two launches, each with its own tiles


def candidates(name: str, race: Race) -> list[dict]:
    """What is worth a try for a kernel of the course on this problem."""
    if name in races_decode.KERNELS:
        return races_decode.candidates(name)
    if name in (*FLASH, "flash_varlen", "flash_window", "flash_score_mod"):
        return grid(BLOCK_M=(64, 128), BLOCK_N=(32, 64, 128), num_warps=(4, 8), num_stages=(2, 3, 4))
    if name == "flash_backward_dkdv":
        return grid(BLOCK_M=(32, 64, 128), BLOCK_N=(64, 128), num_warps=(4, 8), num_stages=(1, 2, 3))
    if name == "flash_backward_dq":
        return grid(BLOCK_M=(64, 128), BLOCK_N=(32, 64, 128), num_warps=(4, 8), num_stages=(1, 2, 3))
    if name == "matmul":
        tiles = ((64, 128), (128, 128), (128, 256))
        rest = grid(BLOCK_K=(32, 64), GROUP=(8,), num_warps=(4, 8), num_stages=(3, 4))
        return [{"BLOCK_M": m, "BLOCK_N": n, **more} for m, n in tiles for more in rest]
    if name in ("softmax_rows", "rms_norm"):
        block = max(16, 1 << (race.size["N"] - 1).bit_length())
        return grid(ROWS=tuple(rows for rows in (1, 2, 4) if rows * block <= 16384) or (1,), BLOCK_N=(block,), num_warps=_ROW_WARPS)
    tile = "BLOCK_N" if name == "softmax_long_rows" else "BLOCK"
    return grid(**{tile: (1024, 2048, 4096, 8192), "num_warps": (4, 8, 16)})


def main(argv: list[str]) -> int:
    from course_lib import races_problems

    known = [*(name for name in races_problems.KERNELS if name not in (*FLASH, *NOT_ONE_KERNEL)), *FLASH]
    if not argv or argv[0] not in known or any("=" not in word for word in argv[1:]):
        print(f"python -m course_lib.tune NAME [KEY=VALUE ...]   NAME: {', '.join(known)}; KEY=VALUE picks sizes, as in N=4096", file=sys.stderr)
        return 2
    if hardware.tier() == "interpreter":
        print(NEEDS_A_GPU)
        return 0
    name, asked = argv[0], dict(word.split("=", 1) for word in argv[1:])
    dtype = torch.bfloat16 if torch.cuda.get_device_capability() >= (8, 0) else torch.float16
    races = races_problems.KERNELS["flash_forward" if name in FLASH else name](races_problems.Setting("cuda", dtype))
    meant = [race for race in races if all(_said(race.size.get(key)) == value.lower() for key, value in asked.items())]
    if not meant:
        print(f"tune: no size of {name} is {' '.join(argv[1:])}; there are: {'; '.join(race.size_words for race in races)}", file=sys.stderr)
        return 2
    for race in meant:
        contestant = next(one for one in race.contestants if one.name == FLASH.get(name, "course"))
        of_race(race, contestant, candidates(name, race))
    return 0


def _said(value) -> str:
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
