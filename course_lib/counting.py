"""What `traffic.count` gives back: the launches of one call, added up, with a table. Knows nothing of exercises or figures.

It counts in this process where kernels are interpreted, else in a child (`course_lib.counting_child`).
"""

import copy
import functools
import inspect
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.utils._pytree import tree_map

from course_lib import hardware, traffic
from course_lib.launches import Argument, Launch
from course_lib.ledgers import size
from course_lib.tables import Table
from course_lib.words import number


@dataclass(frozen=True)
class Traffic:
    """What the launches of one call asked for, all together. Bytes are requested ones, counted over all programs.

    Going through it gives the launches, so `ledgers(what, tensors, traffic)` takes it as the requested bytes.
    """

    what: str
    launches: tuple[Launch, ...]
    result: Any = field(repr=False, default=None)  # what the function returned

    def __iter__(self) -> Iterator[Launch]:
        return iter(self.launches)

    def _sum(self, name: str) -> int:
        return sum(getattr(launch, name) for launch in self.launches)

    @property
    def bytes_loaded(self) -> int:
        return self._sum("bytes_loaded")

    @property
    def bytes_stored(self) -> int:
        return self._sum("bytes_stored")

    @property
    def bytes(self) -> int:
        """Loaded and stored."""
        return self.bytes_loaded + self.bytes_stored

    @property
    def bytes_once(self) -> int:
        """Each launch asking for every element that it touches once: what `bytes` would be without asking again."""
        return self._sum("bytes_once")

    @property
    def flops(self) -> int:
        """Of tl.dot alone: 2 * M * N * K each."""
        return self._sum("flops")

    @property
    def loads(self) -> int:
        """Calls of tl.load, in all programs."""
        return self._sum("loads")

    @property
    def stores(self) -> int:
        return self._sum("stores")

    @property
    def atomics(self) -> int:
        return self._sum("atomics")

    @property
    def programs(self) -> int:
        return self._sum("programs")

    @property
    def mask_efficiency(self) -> float:
        """The share of lanes that moved something, 1 = all."""
        lanes = self._sum("lanes")
        return self._sum("lanes_on") / lanes if lanes else 1.0

    @property
    def tensors(self) -> dict[str, Argument]:
        """Each argument over all launches, by its name in the kernel; `kernel.name` where there are several kernels.

        Launches of one kernel are added up where their arguments are alike, else numbered: `kernel 1.name`, `kernel 2.name`.
        """
        found: dict[str, Argument] = {}
        for launch, label in zip(self.launches, self._labels(), strict=True):
            for name, one in launch.tensors.items():
                key = f"{label}.{name}" if label else name
                total = found.setdefault(key, Argument(one.shape, one.strides, one.dtype, one.nbytes))
                for amount in ("loaded", "stored", "loaded_once", "stored_once"):
                    setattr(total, amount, getattr(total, amount) + getattr(one, amount))
        return found

    def _labels(self) -> list[str]:
        """What tells each launch's arguments from those of the others; "" where nothing has to."""
        kernels = [launch.kernel for launch in self.launches]
        forms = {kernel: set() for kernel in kernels}
        for launch in self.launches:
            forms[launch.kernel].add(tuple((name, one.shape, one.dtype) for name, one in launch.tensors.items()))
        labels = []
        for i, kernel in enumerate(kernels):
            number = f" {kernels[: i + 1].count(kernel)}" if len(forms[kernel]) > 1 else ""
            labels.append(f"{kernel}{number}" if number or len(forms) > 1 else "")
        return labels

    def table(self) -> Table:
        rows = [_row(name, one) for name, one in self.tensors.items()]
        rows.append(("together", "", size(self.bytes_loaded), "", size(self.bytes_stored), ""))
        launched = f"{len(self.launches)} launch{'es' * (len(self.launches) > 1)}, {self.programs:,} program{'s' * (self.programs > 1)}"
        note = f"{launched}; {number(100 * self.mask_efficiency, 3)} % of the lanes moved something"
        note += f"; {self.flops:,} FLOPs in tl.dot." if self.flops else "."
        return Table(("tensor", "shape", "loaded", "times each", "stored", "times each"), tuple(rows), f"What {self.what} asks memory for", note)

    def _repr_html_(self) -> str:
        return self.table()._repr_html_()

    def __repr__(self) -> str:
        return repr(self.table())


def _row(name: str, one: Argument) -> tuple[str, ...]:
    loaded = (size(one.loaded), number(one.times_loaded, 3)) if one.loaded else ("", "")
    stored = (size(one.stored), number(one.times_stored, 3)) if one.stored else ("", "")
    return name, f"{list(one.shape)} {one.dtype}", *loaded, *stored


# ---------------------------------------------------------------- counting


def count(fn: Callable, args: tuple, kwargs: dict) -> Traffic:
    """See `traffic.count`."""
    while isinstance(fn, functools.partial):
        fn, args, kwargs = fn.func, fn.args + args, fn.keywords | kwargs
    if not inspect.isfunction(fn) or fn.__name__ == "<lambda>" or fn.__closure__:
        raise ValueError(
            "traffic.count: give it a function that is defined by `def` at the top level of a cell or a module, and its arguments: "
            "traffic.count(copy, x). A lambda, a method or a function inside a function cannot be sent to the process that counts."
        )
    if sentence := hardware.blocked("triton", "Counting a kernel's bytes"):
        raise ValueError(sentence)
    hardware.tier()
    here = os.environ.get("TRITON_INTERPRET", "").lower() in ("1", "true", "yes", "on")
    launches, result = (_here if here else _in_a_child)(fn, args, kwargs)
    if not launches:
        raise ValueError(f"traffic.count: {fn.__name__} launched no Triton kernel; only kernels' loads and stores are counted")
    return Traffic(fn.__name__, tuple(launches), result)


def _here(fn: Callable, args: tuple, kwargs: dict) -> tuple[list[Launch], Any]:
    memo: dict = {}
    args, kwargs = tree_map(lambda x: copy.deepcopy(x.detach(), memo) if isinstance(x, torch.Tensor) else x, (args, kwargs))
    with traffic.counted() as launches:
        result = fn(*args, **kwargs)
    return launches, result


def _in_a_child(fn: Callable, args: tuple, kwargs: dict) -> tuple[list[Launch], Any]:
    """The result comes back to the device of the first tensor."""
    from course_lib import counting_child

    devices = []
    args, kwargs = tree_map(lambda x: (devices.append(x.device), x.detach().cpu())[1] if isinstance(x, torch.Tensor) else x, (args, kwargs))
    launches, result = counting_child.call(fn, args, kwargs)
    device = devices[0] if devices else torch.device("cpu")
    return launches, tree_map(lambda x: x.to(device) if isinstance(x, torch.Tensor) else x, result)
