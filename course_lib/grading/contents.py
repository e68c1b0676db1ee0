"""Where the numbers in an answer's tensors came from: an account of every content that was seen to be given, made or stored.

Knows nothing of exercises or verdicts. A content is the bytes of a whole storage. What an operation reads must be known;
what it makes becomes known. Bytes that nothing known has made were made elsewhere: outside torch, in a process of their
own, or with torch's hooks switched off. The account is evidence from the answer's own process, and stops no forger.
"""

import ctypes
import zlib
from collections.abc import Iterable

import torch
from torch import Tensor

_LARGEST = 32 << 20  # bytes of a storage that is still looked at
_storage_of, _bytes_of, _address_of = (
    Tensor.untyped_storage,
    torch.UntypedStorage.nbytes,
    torch.UntypedStorage.data_ptr,
)  # the answer may replace them


def content(x: Tensor) -> tuple[int, int] | None:
    """(bytes, checksum) of the storage under `x`; None where there is nothing to look at (meta, sparse, GPU, very large)."""
    try:
        if x.device.type != "cpu" or x.layout is not torch.strided:
            return None
        storage = _storage_of(x)
        size, address = _bytes_of(storage), _address_of(storage)
    except (RuntimeError, NotImplementedError, AttributeError):
        return None
    if not size or not address or size > _LARGEST:
        return None
    return size, zlib.crc32((ctypes.c_char * size).from_address(address))


class Account:
    """Every content seen so far, and those that entered torch from Python or NumPy."""

    def __init__(self):
        self._known: set[tuple[int, int]] = set()
        self._entered: set[tuple[int, int]] = set()

    def made(self, tensors: Iterable[Tensor], entered: bool = False) -> None:
        """These contents are now accounted for; entered: their numbers came from outside torch, or were only moved since."""
        for x in tensors:
            found = content(x)
            if found:
                self._known.add(found)
                (self._entered.add if entered else self._entered.discard)(found)

    def look(self, x: Tensor) -> tuple[bool, bool]:
        """(whether the content is accounted for, whether it came from outside torch)."""
        found = content(x)
        return found is None or found in self._known, found in self._entered
