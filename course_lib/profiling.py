"""Which kernels a call runs on this GPU, and how long each takes: Triton's profiler Proton, or torch's where Proton cannot.

    profile({"naive": lambda: naive(q, k, v), "flash": lambda: flash(q, k, v)})

Both ask CUPTI, the driver's own record of every kernel's start and end: no clock of the host is involved, and kernels by any compiler show.
Knows nothing of any one kernel. Without a GPU there is nothing to see, and `profile` says so in a sentence.
"""

import json
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch

from course_lib import hardware
from course_lib.cards import Card, framed, plain, rich
from course_lib.tables import Table
from course_lib.words import number

SHORT = 44  # letters of a kernel's name that are shown; cuBLAS has names of 200
_SCOPE = "profiled: "  # what Proton is told to call a way, so that no kernel's name is taken for one


@dataclass(frozen=True)
class Seen:
    """One kernel of one way. microseconds: of all its launches in one call."""

    way: str
    kernel: str
    launches: float  # a call
    microseconds: float


@dataclass(frozen=True)
class Profile:
    """What ran, the longest first within each way."""

    kernels: tuple[Seen, ...]
    tool: str
    calls: int = field(default=1, repr=False)

    def total(self, way: str) -> float:
        """Microseconds a call of all kernels of one way. ValueError in a sentence where no such way was profiled."""
        found = [one.microseconds for one in self.kernels if one.way == way]
        if not found:
            raise ValueError(f"profile: there is no way {way!r}; there are {', '.join(dict.fromkeys(one.way for one in self.kernels)) or 'none'}")
        return sum(found)

    def rows(self) -> list[dict]:
        """As a record keeps them (`course_lib.recorded`)."""
        return [
            {
                "way": one.way,
                "kernel": short(one.kernel),
                "launches a call": round(one.launches, 2),
                "µs a call": round(one.microseconds, 1),
                "share of its way (%)": round(100 * one.microseconds / self.total(one.way), 1),
            }
            for one in self.kernels
        ]

    def table(self) -> Table:
        keys = list(self.rows()[0])
        rows = tuple(tuple(value if isinstance(value, str) else number(value, 3) for value in row.values()) for row in self.rows())
        return Table(tuple(keys), rows, "Kernels that ran, by the GPU's own record", f"{self.tool}; {self.calls} calls each.")

    def _repr_html_(self) -> str:
        return self.table()._repr_html_()

    def __repr__(self) -> str:
        return repr(self.table())


def short(name: str) -> str:
    """A kernel's name without its template arguments, at most SHORT letters."""
    plain = name.removeprefix("void ").split("<")[0].split("(")[0].strip() or name
    return plain if len(plain) <= SHORT else f"{plain[: SHORT - 3]}..."


def profile(ways: dict[str, Callable[[], object]], calls: int = 20, tool: str | None = None) -> Profile:
    """Run each way `calls` times under a profiler. tool: "Proton" or "torch.profiler"; None takes the first that works.

    RuntimeError in a sentence where there is no GPU, or where neither can see its kernels.
    """
    if not isinstance(ways, dict) or not ways or not all(callable(call) for call in ways.values()):
        raise ValueError("profile: give it a dict of functions without arguments, as {'mine': lambda: flash_forward(q, k, v)}")
    if calls < 1 or tool not in (None, *_TOOLS):
        raise ValueError(f"profile: calls is {calls} and tool {tool!r}; at least one call, and one of {', '.join(_TOOLS)} (or None)")
    if sentence := hardware.blocked("gpu", "Profiling"):
        raise RuntimeError(sentence)
    for call in ways.values():  # compile, warm up
        call()
    torch.cuda.synchronize()
    troubles = []
    for name, run in _TOOLS.items():
        if tool in (None, name):
            try:
                kernels = _in_order(run(ways, calls))
            except Exception as error:  # a profiler that is missing, forbidden or of another version: the next one
                troubles.append(f"{name}: {type(error).__name__}: {' '.join(str(error).split())[:200]}")
                continue
            if {one.way for one in kernels} == set(ways):
                return Profile(kernels, name, calls)
            troubles.append(f"{name} saw no kernel of {', '.join(sorted(set(ways) - {one.way for one in kernels}))}")
    raise RuntimeError(f"No profiler could see the kernels on this machine ({'; '.join(troubles)}). Some hosts forbid it; times by events still work.")


def tried(ways: dict[str, Callable[[], object]], calls: int = 20) -> Profile | Card:
    """profile(ways, calls), or where that cannot be done the sentence that says why, to be shown in its place."""
    try:
        return profile(ways, calls)
    except RuntimeError as error:
        said = str(error)
        return Card(framed(rich(said)), plain(said))


def _in_order(kernels: list[Seen]) -> tuple[Seen, ...]:
    """The ways as they first come, each with its longest kernel first."""
    ways = list(dict.fromkeys(one.way for one in kernels))
    return tuple(sorted(kernels, key=lambda one: (ways.index(one.way), -one.microseconds)))


# ---------------------------------------------------------------- Proton


def _by_proton(ways: dict, calls: int) -> list[Seen]:
    import triton.profiler as proton

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "seen"
        proton.start(str(path), context="shadow", data="tree")
        try:
            for way, call in ways.items():
                with proton.scope(_SCOPE + way):
                    for _ in range(calls):
                        call()
            torch.cuda.synchronize()
        finally:
            proton.finalize()
        return read_tree(json.loads(path.with_suffix(".hatchet").read_text(encoding="utf-8")), calls)


def read_tree(tree: list, calls: int) -> list[Seen]:
    """The kernels in a file that Proton wrote: a tree of scopes, kernels at the ends, each with its count and its nanoseconds."""
    found: dict[tuple[str, str], list[float]] = {}
    for way, kernel, metrics in _ends(tree, None):
        total = found.setdefault((way, kernel), [0.0, 0.0])
        total[0] += metrics["count"] / calls
        total[1] += metrics["time (ns)"] / calls / 1000
    return [Seen(way, kernel, *total) for (way, kernel), total in found.items()]


def _ends(nodes: list, way: str | None) -> Iterator[tuple[str, str, dict]]:
    for node in nodes:
        name = (node.get("frame") or {}).get("name", "")
        below = name.removeprefix(_SCOPE) if name.startswith(_SCOPE) else way
        if node.get("children"):
            yield from _ends(node["children"], below)
        elif below is not None and (node.get("metrics") or {}).get("count") and "time (ns)" in node["metrics"]:
            yield below, name, node["metrics"]


# ---------------------------------------------------------------- torch.profiler


def _by_torch(ways: dict, calls: int) -> list[Seen]:
    found = []
    for way, call in ways.items():
        activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
        with torch.profiler.profile(activities=activities) as session:
            for _ in range(calls):
                call()
            torch.cuda.synchronize()
        found += [Seen(way, name, count / calls, micro / calls) for name, count, micro in read_averages(session.key_averages())]
    return found


def read_averages(averages) -> list[tuple[str, int, float]]:
    """(name, launches, microseconds) of what ran on the GPU; copies and fills of memory are kernels like the others."""
    on_gpu = [event for event in averages if str(getattr(event, "device_type", "")).endswith("CUDA")]
    return [(event.key, event.count, float(event.self_device_time_total)) for event in on_gpu if event.self_device_time_total > 0]


_TOOLS = {"Proton": _by_proton, "torch.profiler": _by_torch}
