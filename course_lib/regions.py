"""The memory of one tensor: which addresses are its own, which element lies at each, and what to say of one that is not.

Knows nothing of Triton or of counting. A view owns its elements only: the bytes between the rows of a slice belong to the
tensor it is cut from, and an access there is as wrong as one past the end.
"""

from collections.abc import Iterable

import numpy as np
import torch


class OutOfRange(IndexError):
    """A kernel touched memory outside the tensors that it was launched with."""


class Region:
    """Where a CPU tensor's elements lie. Addresses and their differences are bytes, offsets are elements from the first one."""

    def __init__(self, name: str, x: torch.Tensor):
        self.name, self.shape, self.strides, self.element = name, tuple(x.shape), x.stride(), x.element_size()
        self.span = 1 + sum((n - 1) * stride for n, stride in zip(x.shape, x.stride(), strict=True)) if x.numel() else 0
        self.start = x.data_ptr()
        self.stop = self.start + self.span * self.element
        sizes = [n for n, stride in zip(x.shape, x.stride(), strict=True) if stride or not n]
        self.distinct = int(np.prod(sizes, dtype=np.int64))  # elements, where an expanded dimension counts once
        self.own = None  # [span] bool, of a tensor with gaps
        if self.distinct != self.span:
            own = torch.zeros(self.span, dtype=torch.bool)
            own.as_strided(self.shape, self.strides).fill_(True)
            self.own, self.distinct = own.numpy(), int(own.sum())

    def offsets(self, addresses: np.ndarray) -> np.ndarray:
        """The element at each address, counted in memory from the first."""
        return (addresses - self.start) >> (self.element.bit_length() - 1)  # a shift: element sizes are powers of two

    def holds(self, addresses: np.ndarray, size: int) -> np.ndarray:
        """Which accesses of `size` bytes touch this tensor's elements and nothing else."""
        inside = (addresses >= self.start) & (addresses + size <= self.stop)
        if self.own is not None and inside.any():
            for edge in (0, size - 1):
                inside[inside] = self.own[self.offsets(addresses[inside] + edge)]
        return inside

    def index(self, offsets: np.ndarray) -> list[np.ndarray]:
        """The index in each dimension of the elements at these offsets, as far as strides tell: large strides first."""
        found, rest = [np.zeros_like(offsets) for _ in self.shape], offsets
        real = [d for d, n in enumerate(self.shape) if n > 1 and self.strides[d]]
        for d in sorted(real, key=lambda d: -self.strides[d]):
            found[d], rest = np.divmod(rest, self.strides[d])
        return found

    def distance(self, address: int) -> int:
        """Bytes from the nearest end; 0 within."""
        return max(self.start - address, address - self.stop + 1, 0)

    def place(self, address: int) -> str:
        """`element 50 of 48, shape [6, 8]`; or which gap of a view. Which index was meant cannot be told from an address, so none is named."""
        offset = int(self.offsets(np.int64(address)))
        if offset < 0:
            return f"outside `{self.name}`: element {offset} of {self.span}, before its first"
        form = f"shape {list(self.shape)}, strides {list(self.strides)}"
        if self.own is not None and offset < self.span:
            return f"between the elements of the view `{self.name}`: offset {offset}, {form}"
        many = f"element {offset} of {self.span}" if self.own is None else f"offset {offset}, and its last element lies at {self.span - 1}"
        return f"outside `{self.name}`: {many}" + (f" ({form})" if len(self.shape) > 1 else "")

    def advice(self, address: int) -> str:
        if address < self.start:
            return "The offset is negative: look at the pointer arithmetic."
        if address < self.stop:
            return f"That memory belongs to the tensor which `{self.name}` is cut from. Does the mask cover every lane past the end{self._each()}?"
        return f"Does the mask cover every lane past the end{self._each()}?"

    def _each(self) -> str:
        return ", in each dimension" if len(self.shape) > 1 else ""


def nearest(regions: Iterable[Region], address: int, within: int = 1 << 20) -> Region | None:
    """The tensor whose memory lies nearest to an address, at most `within` bytes away."""
    found = min(regions, key=lambda region: region.distance(address), default=None)
    return found if found is not None and found.distance(address) <= within else None
