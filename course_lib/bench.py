"""Time and memory of one call, on this machine. Knows nothing of attention, figures or grading.

Times are medians over repeats with their spread. Memory is the peak of what the call itself allocates: counted by
the allocator on a GPU, and by following every new storage on a CPU (what torch asks for, not what the system maps).
"""

import statistics
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from course_lib.words import number


@dataclass(frozen=True)
class Timing:
    """Seconds of one call: the median, and the range of the middle half of the repeats."""

    median: float
    low: float
    high: float
    repeats: int

    def __str__(self) -> str:
        scale, unit = (1, "s") if self.median >= 1 else (1e3, "ms")
        median, low, high = (number(seconds * scale) for seconds in (self.median, self.low, self.high))
        return f"{median} {unit} (middle half of {self.repeats}: {low} to {high})"


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
    """The most bytes that were alive at once during `call()`, beyond what was alive before it; the result is included."""
    if device == "cuda":
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        call()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    with _Storages() as meter:
        call()
    return meter.peak


class _Storages(TorchDispatchMode):
    """Follows every storage that appears while it is active; `peak` is the most bytes alive at once."""

    def __init__(self):
        super().__init__()
        self.alive, self.peak, self._seen = 0, 0, set()

    def _watch(self, func, types, args=(), kwargs=None):
        for leaf in tree_leaves((args, kwargs)):  # storages that were there before
            if isinstance(leaf, torch.Tensor):
                self._seen.add(leaf.untyped_storage()._cdata)
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor) and leaf.untyped_storage()._cdata not in self._seen:
                self._follow(leaf)
        return result

    def _follow(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        size, key = storage.nbytes(), storage._cdata
        self._seen.add(key)
        self.alive += size
        self.peak = max(self.peak, self.alive)
        weakref.finalize(storage, self._gone, key, size)

    def _gone(self, key: int, size: int) -> None:
        self._seen.discard(key)
        self.alive -= size


# Set afterwards: a `__torch_dispatch__` in the class body is wrapped so that its first use imports the compiler (0.9 s).
_Storages.__torch_dispatch__ = _Storages._watch
