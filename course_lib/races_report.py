"""Results of races as rows of numbers, as tables for a terminal, and in sentences. Times nothing."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from rich.table import Table

from course_lib import datasheets
from course_lib.ceilings import Ceilings
from course_lib.races import Race, Result
from course_lib.words import number

NOTHING = "-"
FOLLOWS = ("B", "H")  # sizes that follow from the others
BESIDE = ("naive", "efficient", "FlexAttention")  # peers whose ratio a record leaves to the reader
EXP_EACH_CLOCK = 16  # exponentials of a multiprocessor in a clock, capability 7.5 to 10.0: CUDA C++ Programming Guide, arithmetic instructions
NO_CLAIM = "This GPU has no bf16 and Triton multiplies without its tensor cores: fp16 is raced, and no speed claim is made against SDPA."


@dataclass(frozen=True)
class Scale:
    """The ceilings that rates are shares of, and the units they are shown in."""

    ceilings: Ceilings

    def ceiling(self, race: Race) -> float:
        return self.ceilings.bandwidth if race.ceiling == "copy" else self.ceilings.rates[race.ceiling]

    def unit(self, race: Race) -> tuple[float, str]:
        if race.ceiling == "copy":
            return 1e9, "GB/s"
        return (1e12, "TFLOP/s") if self.ceilings.device == "cuda" else (1e9, "GFLOP/s")

    def percent(self, result: Result) -> float | None:
        return None if result.rate is None else 100 * result.rate / self.ceiling(result.race)

    def exponentials_seconds(self, race: Race) -> float | None:
        """Seconds that the exponentials alone take on all multiprocessors at the data sheet's clock; None where there is no sheet."""
        try:
            sheet = datasheets.sheet(self.ceilings.name)
        except ValueError:
            return None
        return race.exponentials / (sheet.sms * EXP_EACH_CLOCK * sheet.clock_ghz * 1e9)


def best(results: Iterable[Result]) -> Result | None:
    """The fastest right one of the course's kernels."""
    mine = [one for one in results if one.ours and one.timing]
    return min(mine, key=lambda one: one.timing.median, default=None)


def ratio(mine: Result | None, other: Result) -> float | None:
    """How many times as fast as the other the course's kernel is; None where one of them has no time."""
    return other.timing.median / mine.timing.median if mine and mine.timing and other.timing else None


def limit(result: Result, scale: Scale) -> str:
    """What holds a kernel of the course back, from what was measured and what its compiler says."""
    return "; ".join([*_shares(result, scale), *([result.resources.sentence] if result.resources else [])])


def _shares(result: Result, scale: Scale) -> list[str]:
    """How much of each ceiling a kernel uses."""
    race, parts = result.race, []
    percent = scale.percent(result)
    if percent is not None and race.ceiling == "copy":
        parts.append(f"{percent:.0f} % of the copy bandwidth")
        if race.requested > race.bytes:
            times = race.requested / race.bytes
            parts.append(f"requests {times:.3g}x the compulsory bytes, so {100 / times:.0f} % would be all without a cache")
    elif percent is not None:
        parts.append(f"products at {percent:.0f} % of the matmul rate")
        if race.exponentials and (seconds := scale.exponentials_seconds(race)):
            parts.append(f"exponentials alone take {100 * seconds / result.timing.median:.0f} % of the time")
    return parts


# ---------------------------------------------------------------- rows of numbers


def _round(value: float | None) -> float | None:
    """Five digits; None for what JSON has no number for."""
    return None if value is None or not math.isfinite(value) else float(f"{value:.5g}")


def detail(result: Result, scale: Scale) -> dict:
    """Everything about one contestant, flat; None where there is nothing."""
    size, unit = scale.unit(result.race)
    timing, used = result.timing, result.resources
    row = {"kernel": result.race.kernel, **result.race.size, "who": result.who, "course": result.ours}
    row |= {
        "median (us)": _round(timing.median * 1e6) if timing else None,
        "low (us)": _round(timing.low * 1e6) if timing else None,
        "high (us)": _round(timing.high * 1e6) if timing else None,
        "repeats": timing.repeats if timing else None,
        "rate": _round(result.rate / size) if timing else None,
        "unit": unit,
        "of the ceiling (%)": _round(scale.percent(result)),
        "timed by": result.how,
        "error (times plain torch's)": _round(result.error),
        "problem": result.problem,
    }
    if result.ours:
        row |= {
            "registers": used and used.registers,
            "spills": used and used.spills,
            "shared (KiB)": used and used.shared / 1024,
            "warps": used and used.warps,
            "programs on a multiprocessor": used and used.fit,
            "limit": limit(result, scale) if timing else "",
        }
    return row


def wide(results: list[Result], names: list[str], peers: list[str], scale: Scale) -> dict:
    """One problem as one row: its size, everybody's rate, the best course kernel's share of the ceiling and its ratio to each peer."""
    race, by_name, mine = results[0].race, {one.who: one for one in results}, best(results)
    size, unit = scale.unit(race)
    row = {"kernel": race.kernel} | {key: _word(value) for key, value in race.size.items() if key not in FOLLOWS}
    for name in names:
        row[f"{name} ({unit})"] = _cell(by_name.get(name), size)
    row["of the ceiling (%)"] = _round(scale.percent(mine)) if mine else NOTHING
    for name in [name for name in peers if name not in BESIDE]:
        times = ratio(mine, by_name[name]) if name in by_name else None
        row[f"course / {name}"] = NOTHING if times is None else _round(times)
    return row


def _word(value):
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else value


def _cell(result: Result | None, size: float):
    if result is None or not result.timing:
        return result.problem.split(":")[0] if result and not result.problem.startswith("not here") else NOTHING
    return _round(result.rate / size)


def who_ran(races: list[list[Result]]) -> tuple[list[str], list[str]]:
    """(everybody's name, the peers' names), in order."""
    names = list(dict.fromkeys(one.who for results in races for one in results))
    mine = {one.who for results in races for one in results if one.ours}
    return names, [name for name in names if name not in mine]


def wide_rows(races: list[list[Result]], scale: Scale) -> list[dict]:
    names, peers = who_ran(races)
    return [wide(results, names, peers, scale) for results in races]


def kernel_rows(races: list[list[Result]], scale: Scale) -> list[dict]:
    """The rows that chapter 04 shows: one line a kernel and size, against torch and torch.compile, with what limits it."""
    out = []
    for results in races:
        mine, race = best(results), results[0].race
        size, unit = scale.unit(race)
        by_name = {one.who: one for one in results}
        torch_, compiled = by_name.get("torch") or by_name.get("cuBLAS"), by_name.get("torch.compile")
        out.append(
            {
                "kernel": race.kernel,
                "size": " x ".join(f"{value:,}" for value in race.size.values() if value != 1),
                "time (us)": _round(mine.timing.median * 1e6) if mine else next(one.problem for one in results if one.ours),
                "rate": _round(mine.rate / size) if mine else NOTHING,
                "unit": unit,
                "of the ceiling (%)": _round(scale.percent(mine)) if mine else NOTHING,
                "torch / course": _times(mine, torch_),
                "torch.compile / course": _times(mine, compiled),
                "what limits it": limit(mine, scale) if mine else NOTHING,
            }
        )
    return out


def _times(mine: Result | None, other: Result | None):
    times = other and ratio(mine, other)
    return _round(times) if times else NOTHING


# ---------------------------------------------------------------- for a terminal


def rates_table(races: list[list[Result]], scale: Scale, title: str) -> Table:
    """Everybody's rate, in brackets half the width of its middle half; and the best course kernel's share of the ceiling."""
    names, _ = who_ran(races)
    unit = scale.unit(races[0][0].race)[1]
    ceilings = {number(scale.ceiling(results[0].race) / scale.unit(results[0].race)[0], 4) for results in races}
    table = _table(f"{title}. {unit} (half the middle half); 100 % is {' or '.join(sorted(ceilings))} {unit}, measured here")
    _columns(table, [*_head(races), *names, "of ceiling"])
    for results in races:
        by_name, mine = {one.who: one for one in results}, best(results)
        table.add_row(
            *_problem(races, results), *(_rate(by_name.get(name), scale) for name in names), f"{scale.percent(mine):.1f} %" if mine else NOTHING
        )
    return table


def ratios_table(races: list[list[Result]]) -> Table:
    """How many times as fast as each peer the fastest of the course's kernels is, and which one that is where there are several."""
    names, peers = who_ran(races)
    several = len(names) - len(peers) > 1
    table = _table("The course's kernel is so many times as fast as")
    _columns(table, [*_head(races), *peers, *(["by"] if several else [])])
    for results in races:
        by_name, mine = {one.who: one for one in results}, best(results)
        times = [ratio(mine, by_name[name]) if name in by_name else None for name in peers]
        words = [NOTHING if one is None else f"{one:.2f}x" for one in times] + ([mine.who if mine else NOTHING] if several else [])
        table.add_row(*_problem(races, results), *words)
    return table


def _columns(table: Table, names: list[str]) -> None:
    for name in names:
        table.add_column(name, justify="left" if name in ("kernel", "by", "held by", "shares") else "right", no_wrap=True)


def _head(races: list[list[Result]]) -> list[str]:
    """The columns that say which problem: the kernel's name where there are several, and the sizes that do not follow from others."""
    kernels = {results[0].race.kernel for results in races}
    return [*(["kernel"] if len(kernels) > 1 else []), *(key for key in races[0][0].race.size if key not in FOLLOWS)]


def _problem(races: list[list[Result]], results: list[Result]) -> list[str]:
    race = results[0].race
    values = [race.kernel if key == "kernel" else _word(race.size.get(key, "")) for key in _head(races)]
    return [f"{value:,}" if isinstance(value, int) else str(value) for value in values]


def _rate(result: Result | None, scale: Scale) -> str:
    if result is None:
        return ""
    if not result.timing:
        return {"not here": NOTHING}.get(result.problem.split(":")[0], result.problem.split(":")[0])
    size = scale.unit(result.race)[0]
    half = (result.race.amount / result.timing.low - result.race.amount / result.timing.high) / 2 / size
    return f"{number(result.rate / size, 4 if result.rate / size >= 1000 else 3)} ({number(half, 1)})"


def kernels_table(races: list[list[Result]], scale: Scale) -> Table | None:
    """What each compiled kernel takes and what limits it; sizes that compile to the same kernel are shown once, at their last size."""
    table = _table("What the course's kernels take of a multiprocessor: registers a thread, shared memory and warps a program, programs at once")
    _columns(table, ["kernel", "registers", "spills", "shared", "warps", "programs", "held by", "shares"])
    lines: dict[tuple, tuple[str, ...]] = {}
    for one in (result for results in races for result in results if result.ours and result.resources):
        used, race = one.resources, one.race
        label = f"{one.who if one.who != 'course' else race.kernel} {_size_words(race.size)}"
        taken = (str(used.registers), str(used.spills), f"{used.shared / 1024:.0f} KiB", str(used.warps), str(used.fit), used.held_by)
        shares = "; ".join([*_shares(one, scale), *used.remarks])
        lines[(race.kernel, one.who, race.size.get("D"), race.size.get("causal"), used.registers, used.shared, used.warps)] = (label, *taken, shares)
    for words in lines.values():
        table.add_row(*words)
    return table if lines else None


def _size_words(size: Mapping) -> str:
    if "D" in size:
        return f"D={size['D']} {'causal' if size['causal'] else 'full'}"
    return " x ".join(f"{value:,}" for value in size.values() if value != 1)


def _table(title: str) -> Table:
    return Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, padding=(0, 1))


def notes(races: list[list[Result]]) -> list[str]:
    """Sentences on what the tables leave out: who is wrong, who failed, who is not here, who was timed with the launch or by a graph."""
    out: dict[str, list[str]] = {}
    for one in (result for results in races for result in results):
        if one.problem:
            out.setdefault(f"{one.who}: {one.problem}", []).append(one.race.title)
        elif "included" in one.how:
            out.setdefault(f"{one.who}: {one.how}", []).append(one.race.title)
    everywhere = len(races)
    lines = [text if len(where) == everywhere else f"{text} [{_several(where)}]" for text, where in out.items()]
    graphed = [results[0].race.title for results in races if any(one.how == "CUDA graph" for one in results)]
    if graphed:
        lines.append(f"timed as a CUDA graph, since launching takes longer than running: {'; '.join(graphed)}")
    return lines


def _several(where: list[str]) -> str:
    return "; ".join(where) if len(where) <= 2 else f"{where[0]} and {len(where) - 1} more"
