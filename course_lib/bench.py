"""Time and memory of one call, on this machine, and a table of such times. Knows nothing of attention, figures or grading.

Times are medians over repeats with their spread. Memory is the peak of what the call itself allocates: counted by
the allocator on a GPU, and by following every new storage on a CPU (what torch asks for, not what the system maps).
"""

import statistics
import time
import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from course_lib.tables import Table
from course_lib.words import number

_UNITS = {"bytes": ((1e12, "TB/s"), (1e9, "GB/s"), (1e6, "MB/s")), "flops": ((1e12, "TFLOP/s"), (1e9, "GFLOP/s"), (1e6, "MFLOP/s"))}


@dataclass(frozen=True)
class Timing:
    """Seconds of one call: the median, and the range of the middle half of the repeats."""

    median: float
    low: float
    high: float
    repeats: int

    def __str__(self) -> str:
        median, low, high, unit = self.words()
        return f"{median} {unit} (middle half of {self.repeats}: {low} to {high})"

    def words(self, digits: int = 4) -> tuple[str, str, str, str]:
        """Median, low and high as words, and their unit."""
        scale, unit = (1, "s") if self.median >= 1 else (1e3, "ms")
        return *(number(seconds * scale, digits) for seconds in (self.median, self.low, self.high)), unit


@dataclass(frozen=True)
class Row:
    """One line of `table`: what ran and its timing; what it moved (bytes) or computed (flops); the ceiling of that, per second."""

    name: str
    timing: Timing
    bytes: float | None = None
    flops: float | None = None
    ceiling: float | None = None

    def __post_init__(self):
        if self.bytes is not None and self.flops is not None:
            raise ValueError(f"bench.Row {self.name!r}: give bytes or flops, not both; a ceiling is one of the two")
        if self.ceiling is not None and (self.rate is None or not self.ceiling > 0):
            raise ValueError(f"bench.Row {self.name!r}: a ceiling needs bytes or flops beside it, and must be above 0")

    @property
    def rate(self) -> float | None:
        """Bytes/s or FLOP/s at the median time; None where no amount was given."""
        amount = self.flops if self.bytes is None else self.bytes
        return None if amount is None else amount / self.timing.median

    @property
    def share(self) -> float | None:
        """The rate as a share of the ceiling, 1 = 100 %."""
        return None if self.ceiling is None else self.rate / self.ceiling


def table(rows: Iterable[Row], title: str = "", note: str = "") -> Table:
    """Medians, the middle half of the repeats, rates, and percent of the ceiling; columns that no row fills are left out."""
    rows = list(rows)
    if not rows:
        raise ValueError("bench.table: there is no row; give it at least one bench.Row")
    columns, lines = ["", "median", "middle half"], [[row.name, *_timed(row.timing)] for row in rows]
    if any(row.rate is not None for row in rows):
        columns.append("rate")
        for line, row in zip(lines, rows, strict=True):
            line.append("" if row.rate is None else _rate(row))
    if any(row.share is not None for row in rows):
        columns.append("of this machine's ceiling")
        for line, row in zip(lines, rows, strict=True):
            line.append("" if row.share is None else f"{100 * row.share:.3g} %")
    return Table(tuple(columns), tuple(tuple(line) for line in lines), title, note)


def _timed(timing: Timing) -> tuple[str, str]:
    median, low, high, unit = timing.words(3)
    return f"{median} {unit}", f"{low} to {high}"


def _rate(row: Row) -> str:
    units = _UNITS["flops" if row.bytes is None else "bytes"]
    scale, unit = next(((scale, unit) for scale, unit in units if row.rate >= scale), units[-1])
    return f"{number(row.rate / scale, 3)} {unit}"


def time_call(call: Callable[[], object], repeats: int = 7, warm_up: int = 1, device: str = "cpu") -> Timing:
    """Time `call()`: `warm_up` untimed runs, then `repeats` timed ones; on "cuda" the device is waited for each time.

    Raises ValueError for fewer than 3 repeats: a median of two is no median.
    """
    if repeats < 3:
        raise ValueError(f"time_call: {repeats} repeats are too few for a median; use at least 3")
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    for _ in range(warm_up):
        call()
    seconds = []
    for _ in range(repeats):
        wait()
        start = time.perf_counter()
        call()
        wait()
        seconds.append(time.perf_counter() - start)
    low, _, high = statistics.quantiles(seconds, n=4)
    return Timing(statistics.median(seconds), low, high, repeats)


def peak_bytes(call: Callable[[], object], device: str = "cpu") -> int:
    """The most bytes that were alive at once during `call()`, beyond what was alive before it; the result is included.

    Calls may be nested: each counts from its own beginning. An error of `call` is not caught. A CPU counts every tensor that an
    operation takes or gives, whole storages (a slice keeps its tensor alive); what one operation needs within itself and frees
    again is not seen there. A GPU's allocator sees that too, and rounds each allocation up to 512 bytes.
    """
    meter = _Allocator() if device == "cuda" else _Storages()
    with meter:
        result = call()  # alive until the meter has been read
    del result
    return meter.peak


class _Allocator:
    """The peak of CUDA's allocator. Its counter is one for the process, so every open meter takes note before it is reset."""

    _open: "list[_Allocator]" = []

    def __enter__(self) -> "_Allocator":
        torch.cuda.synchronize()
        self._note()
        self.before = self.highest = torch.cuda.memory_allocated()
        self._open.append(self)
        return self

    def __exit__(self, *_) -> None:
        torch.cuda.synchronize()
        self._note()
        self._open.remove(self)

    @property
    def peak(self) -> int:
        return self.highest - self.before

    def _note(self) -> None:
        highest = torch.cuda.max_memory_allocated()
        for meter in self._open:
            meter.highest = max(meter.highest, highest)
        torch.cuda.reset_peak_memory_stats()


class _Storages(TorchDispatchMode):
    """Follows every storage that operations take or give while it is active; `peak` is the most bytes alive at once, beyond the first ones."""

    def __init__(self):
        super().__init__()
        self.alive, self.peak = 0, 0
        self._sizes: dict[int, int] = {}

    def _watch(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        taken = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        for leaf in taken:
            self._follow(leaf, new=False)
        result = func(*args, **kwargs)
        for leaf in taken:  # `out=` may have grown
            self._follow(leaf, new=False)
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor):
                self._follow(leaf, new=True)
        return result

    def _follow(self, tensor: torch.Tensor, new: bool) -> None:
        try:
            storage = tensor.untyped_storage()
        except (RuntimeError, NotImplementedError):  # sparse tensors have none
            return
        key, size = storage._cdata, storage.nbytes()
        if key in self._sizes:
            self.alive += size - self._sizes[key]
        else:
            self.alive += size if new else 0
            weakref.finalize(storage, self._gone, key).atexit = False
        self._sizes[key] = size
        self.peak = max(self.peak, self.alive)

    def _gone(self, key: int) -> None:
        self.alive -= self._sizes.pop(key)


# Set afterwards: a `__torch_dispatch__` in the class body is wrapped so that its first use imports the compiler (0.9 s).
_Storages.__torch_dispatch__ = _Storages._watch
