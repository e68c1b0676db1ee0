"""What autograd keeps between the forward and the backward pass: counted, on any device, by watching what is saved and let go.

A tensor counts by its whole storage, once, as long as the graph holds it (`torch.autograd.graph.saved_tensors_hooks`). What a
function keeps by other means (an attribute, a closure) is not seen. Knows nothing of attention, checkpoints or figures.
"""

import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Saved:
    """One storage that the graph holds, as the first tensor saved of it looked."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    bytes: int


class _Holder:
    """What stands in the graph in a tensor's place: when the graph lets it go, it tells."""

    def __init__(self, tensor: Tensor):
        self.tensor = tensor


class _Ledger:
    """The storages that are held, how often, and the sum of bytes after each change."""

    def __init__(self, ignore: Iterable[Tensor]):
        self.ignored = {x.untyped_storage().data_ptr() for x in ignore}
        self.held: dict[int, int] = {}
        self.saved: list[Saved] = []
        self.trace = [0]

    def pack(self, tensor: Tensor) -> _Holder:
        holder = _Holder(tensor.detach())  # not `tensor`: an output that holds itself would never be let go
        storage = tensor.untyped_storage()
        key, size = storage.data_ptr(), storage.nbytes()
        if size and key not in self.ignored:
            if not self.held.get(key):
                self.saved.append(Saved(tuple(tensor.shape), tensor.dtype, size))
                self.trace.append(self.trace[-1] + size)
            self.held[key] = self.held.get(key, 0) + 1
            weakref.finalize(holder, self._gone, key, size).atexit = False
        return holder

    def _gone(self, key: int, size: int) -> None:
        self.held[key] -= 1
        if not self.held[key]:
            del self.held[key]
            self.trace.append(self.trace[-1] - size)


def _unpack(holder: _Holder) -> Tensor:
    return holder.tensor


def kept(forward: Callable[[], Tensor], ignore: Iterable[Tensor] = ()) -> list[Saved]:
    """Run `forward()` and list what its graph holds afterwards, in the order in which it was saved. ignore: tensors that do not count, such as weights."""
    ledger = _Ledger(ignore)
    with torch.autograd.graph.saved_tensors_hooks(ledger.pack, _unpack):
        out = forward()
    found = list(ledger.saved)
    del out
    return found


def along_a_step(forward: Callable[[], Tensor], ignore: Iterable[Tensor] = ()) -> list[int]:
    """Bytes held after each change, while `forward()` makes a loss and its backward pass runs: one number a tensor kept or let go."""
    ledger = _Ledger(ignore)
    with torch.autograd.graph.saved_tensors_hooks(ledger.pack, _unpack):
        forward().sum().backward()
    return ledger.trace
