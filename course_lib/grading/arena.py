"""Argument tensors as the answer gets them: in buffers of their own, between sentinels, laid out as the probe says.

Knows nothing of exercises. What was written outside a tensor, or into it, shows in the buffer's bytes afterwards.
"""

import hashlib
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from course_lib.grading.spec import Evidence, Tiles
from course_lib.states import SoftmaxState

PAD = 64  # elements on either side
MIXED = ("contiguous", "transposed")  # the layouts of a mixed probe's tensors, in turn
_copy, _cpu = Tensor.copy_, Tensor.cpu  # kept: the answer may replace torch's own


def _sentinel(dtype: torch.dtype) -> Any:
    if dtype.is_floating_point:
        return float("nan")
    return True if dtype == torch.bool else torch.iinfo(dtype).max


def _stored(x: Tensor, layout: str) -> Tensor:
    """What of `x` lies in memory, in the order in which it lies there."""
    if layout == "transposed" and x.dim() >= 2:
        return x.mT
    return x[:1] if layout == "expanded" and x.dim() else x


class Arena:
    """One argument tensor and the buffer around it."""

    def __init__(self, x: Tensor, layout: str, device: str):
        stored = _stored(x, layout)
        self.flat = torch.full((stored.numel() + 2 * PAD,), _sentinel(x.dtype), dtype=x.dtype, device=device)
        self.inside = self._view(stored.shape, torch.empty(stored.shape, device="meta").stride())
        laid_out = self.inside.mT if layout == "transposed" and x.dim() >= 2 else self.inside.expand(x.shape)
        self.tensor = self._view(x.shape, laid_out.stride())  # a tensor in its own right: `_base` is None
        self.layout = layout
        self.fill(x)

    def _view(self, shape: torch.Size, stride: tuple[int, ...]) -> Tensor:
        return torch.empty(0, dtype=self.flat.dtype, device=self.flat.device).set_(self.flat.untyped_storage(), PAD, shape, stride)

    def fill(self, x: Tensor) -> None:
        """Other values of the same shape into the same memory."""
        _copy(self.inside, _stored(x, self.layout))
        self.before = self._digests()

    def _digests(self) -> tuple[bytes, bytes]:
        raw = _cpu(self.flat).view(torch.uint8).numpy()
        edge = PAD * self.flat.element_size()
        inner = raw[edge : len(raw) - edge]
        outer = hashlib.blake2b(raw[:edge].tobytes() + raw[len(raw) - edge :].tobytes()).digest()
        return hashlib.blake2b(inner.tobytes()).digest(), outer

    def changes(self) -> list[str]:
        """What has happened to the buffer since it was filled: "mutated-input", "canary"."""
        return [name for name, old, new in zip(("mutated-input", "canary"), self.before, self._digests(), strict=True) if old != new]

    def holds(self, x: Tensor) -> bool:
        """Whether `x` lives in this buffer."""
        return x.numel() > 0 and x.untyped_storage().data_ptr() == self.flat.untyped_storage().data_ptr()


class Arguments:
    """The arguments of one call: built once, refilled for a second call on the same memory."""

    def __init__(self, tree: Any, layout: str, device: str):
        self.arenas: list[Arena] = []
        self.device = device
        self.built = _mapped(tree, lambda x: self._place(x, layout, device))

    def _place(self, x: Tensor, layout: str, device: str) -> Tensor:
        if layout == "mixed":
            layout = MIXED[len(self.arenas) % 2]
        self.arenas.append(Arena(x, layout, device))
        return self.arenas[-1].tensor

    def refill(self, tree: Any) -> bool:
        """False where the new tree does not have the old one's tensors (number, shape, dtype)."""
        new: list[Tensor] = []
        _mapped(tree, lambda x: new.append(x) or x)
        same = [(x.shape, x.dtype) for x in new] == [(arena.tensor.shape, arena.tensor.dtype) for arena in self.arenas]
        if same:
            for arena, x in zip(self.arenas, new, strict=True):
                arena.fill(x)
            kept = iter(self.arenas)
            self.built = _mapped(tree, lambda _: next(kept).tensor)  # the same memory, and the new tree's numbers
        return same

    def fresh(self, evidence: Evidence) -> Any:
        """The tree for one call: Tiles become iterators, and `evidence` notes how many tiles are kept."""
        return _opened(self.built, evidence)


def _mapped(node: Any, place: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(node, Tensor):
        return place(node)
    if isinstance(node, SoftmaxState):
        return SoftmaxState(*(_mapped(part, place) for part in node))
    if isinstance(node, Tiles):
        return Tiles(_mapped(node.x, place), node.width)
    if isinstance(node, list | tuple):
        return type(node)(_mapped(part, place) for part in node)
    if isinstance(node, dict):
        return {key: _mapped(part, place) for key, part in node.items()}
    return node


def _opened(node: Any, evidence: Evidence) -> Any:
    if isinstance(node, Tiles):
        return _once(node, evidence)
    if isinstance(node, SoftmaxState):
        return SoftmaxState(*node)
    if isinstance(node, list | tuple):
        return type(node)(_opened(part, evidence) for part in node)
    if isinstance(node, dict):
        return {key: _opened(part, evidence) for key, part in node.items()}
    return node


def _once(tiles: Tiles, evidence: Evidence) -> Iterator[Tensor]:
    """Each tile once, in memory of its own: a tile that is still alive two turns later was kept."""
    given: list[weakref.ref] = []
    for tile in tiles:
        tile = tile.clone()
        given.append(weakref.ref(tile.untyped_storage()))
        yield tile
        del tile
        given = [kept for kept in given if kept() is not None]
        evidence.tiles_held = max(evidence.tiles_held, len(given))
