"""Three ledgers of bytes, kept apart: what must be moved, what was asked for, what left the chip.

    compulsory   every tensor once: no program can do with less
    requested    what the loads and stores of kernels ask for, counted (`traffic.counted`) or computed; caches serve part of it
    DRAM         what crossed to the slow memory, from a profiler on a GPU; None where nobody measured it

A ratio across ledgers says what it compares ("requested / compulsory"). Knows nothing of any kernel.
"""

import numbers
from collections.abc import Iterable
from dataclasses import dataclass

import torch

from course_lib.tables import Table
from course_lib.traffic import Launch
from course_lib.words import number

_UNITS = ((2**40, "TiB"), (2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"))


@dataclass(frozen=True)
class Ledgers:
    """The bytes of one operation in each ledger; None where a ledger was not kept."""

    what: str
    compulsory: int
    requested: int | None = None
    dram: int | None = None

    @property
    def excess(self) -> float | None:
        """requested / compulsory: how often each necessary byte was asked for; None where requests were not counted."""
        return None if self.requested is None else self.requested / self.compulsory

    def table(self) -> Table:
        rows = [
            _row("compulsory", "every tensor once", self.compulsory, None),
            _row("requested", "what loads and stores ask for", self.requested, self.compulsory),
            _row("DRAM", "what left the chip", self.dram, self.compulsory),
        ]
        note = "" if self.dram is not None else "DRAM: only a profiler on a GPU can tell; requests are no stand-in for it."
        return Table(("ledger", "what it counts", "bytes", "of compulsory"), tuple(rows), self.what, note)

    def _repr_html_(self) -> str:
        return self.table()._repr_html_()

    def __repr__(self) -> str:
        return repr(self.table())


def ledgers(what: str, compulsory, requested=None, dram: int | None = None) -> Ledgers:
    """Fill the ledgers of one operation, named `what`.

    compulsory: a number of bytes, or the tensors that must be read and written. requested: a number, the launches that
    `traffic.counted()` yields, or None. dram: a number from a profiler, or None. ValueError in a sentence for anything else.
    """
    compulsory = _amount("compulsory", compulsory) if isinstance(compulsory, numbers.Real) else compulsory_bytes(compulsory)
    if compulsory <= 0:
        raise ValueError("ledgers: compulsory is 0 bytes; give the tensors that are read and written, or their bytes")
    if requested is not None:
        requested = _amount("requested", requested) if isinstance(requested, numbers.Real) else requested_bytes(requested)
    return Ledgers(what, compulsory, requested, None if dram is None else _amount("dram", dram))


def compulsory_bytes(tensors: Iterable[torch.Tensor]) -> int:
    """Every distinct tensor once. An expanded dimension (stride 0) repeats the same memory and counts once."""
    seen = {}
    for tensor in [tensors] if isinstance(tensors, torch.Tensor) else tensors:
        if not isinstance(tensor, torch.Tensor):
            raise ValueError(f"compulsory_bytes: it takes tensors, and one of them is {tensor!r:.40}")
        distinct = 1
        for size, stride in zip(tensor.shape, tensor.stride(), strict=True):
            distinct *= size if stride or not size else 1
        key = tensor.data_ptr() or id(tensor), tuple(tensor.shape), tensor.stride(), tensor.dtype
        seen[key] = distinct * tensor.element_size()
    return sum(seen.values())


def requested_bytes(launches: Iterable[Launch] | Launch) -> int:
    """Bytes loaded and stored by counted launches, together."""
    launches = [launches] if isinstance(launches, Launch) else list(launches)
    if not launches:
        raise ValueError("requested_bytes: no launch was counted; did the kernel run inside `with traffic.counted() as launches:`?")
    return sum(launch.bytes_loaded + launch.bytes_stored for launch in launches)


def size(count: float) -> str:
    """Bytes as words: 512 bytes, 64 KiB, 2.5 GiB."""
    for unit, name in _UNITS:
        if count >= unit:
            return f"{number(count / unit, 3)} {name}"
    return f"{number(count)} byte{'s' * (count != 1)}"


def _amount(name: str, value) -> int:
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or not value >= 0 or value == float("inf"):
        raise ValueError(f"ledgers: {name} is {value!r}; it must be a number of bytes, 0 or more")
    return int(value)


def _row(name: str, what: str, count: int | None, base: int | None) -> tuple[str, ...]:
    if count is None:
        return name, what, "not measured", ""
    return name, what, size(count), "" if base is None else f"{number(count / base, 3)} x"
