"""One launch of an interpreted kernel as plain data: what it asked of memory, and what a compiler is to be told of it.

Knows nothing of how launches are watched (`course_lib.traffic`). Everything is counted over all programs of the launch.
"""

from dataclasses import dataclass, field

import torch


@dataclass
class Argument:
    """One tensor argument of a launch. Amounts are bytes; an atomic operation loads and stores.

    Requested bytes count every lane that was switched on, each time it asked. `loaded_once` and `stored_once` count each
    element once, however often it was asked for. Where two arguments share memory, the first of them gets the bytes.
    """

    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: str
    nbytes: int  # of the tensor's own elements; an expanded dimension counts once
    loaded: int = 0
    stored: int = 0
    loaded_once: int = 0
    stored_once: int = 0

    @property
    def times_loaded(self) -> float:
        """How often each element that was loaded at all was asked for, on average; 0 where none was."""
        return self.loaded / self.loaded_once if self.loaded_once else 0.0

    @property
    def times_stored(self) -> float:
        return self.stored / self.stored_once if self.stored_once else 0.0


@dataclass(frozen=True)
class Touch:
    """One load, store or atomic operation of one program on one tensor. `box`: (first, one past the last) index in each dimension."""

    program: tuple[int, int, int]
    what: str  # "load", "store", "atomic"
    tensor: str
    box: tuple[tuple[int, int], ...]


@dataclass
class Launch:
    """One launch. Bytes are *requested* ones: what programs ask for, before any cache, lanes that a mask turns off left out."""

    kernel: str
    grid: tuple[int, ...] = ()
    constexprs: dict = field(default_factory=dict)
    tensors: dict[str, Argument] = field(default_factory=dict)  # by the argument's name; `name[0]` within a tuple
    bytes_loaded: int = 0
    bytes_stored: int = 0
    loads: int = 0  # calls of tl.load (or of a descriptor's), in all programs
    stores: int = 0
    atomics: int = 0
    lanes: int = 0  # lanes of all those calls
    lanes_on: int = 0  # of them, those that no mask turned off
    working: int = 0  # programs that loaded or stored anything
    flops: int = 0  # of tl.dot alone: 2 * M * N * K each
    dots: int = 0
    trace: list[Touch] = field(default_factory=list)  # in order; filled by counted(trace=True) only
    signature: dict = field(default_factory=dict)  # what the compiler is told of each argument, a tuple for a tuple; empty where it cannot be said
    constants: dict = field(default_factory=dict)  # the values of those that are "constexpr" there; `name[0]` within a tuple
    options: dict = field(default_factory=dict)  # num_warps and the like

    @property
    def programs(self) -> int:
        count = 1
        for n in self.grid:
            count *= n
        return count

    @property
    def mask_efficiency(self) -> float:
        """The share of lanes that moved something, 1 = all; 1 where nothing was asked for."""
        return self.lanes_on / self.lanes if self.lanes else 1.0

    @property
    def bytes_once(self) -> int:
        """Every element that was loaded once, and every element that was stored once: the least this launch could have asked for."""
        return sum(x.loaded_once + x.stored_once for x in self.tensors.values())


# ---------------------------------------------------------------- what a compiler is told


_POINTERS = {"float64": "fp64", "float32": "fp32", "float16": "fp16", "bfloat16": "bf16", "uint8": "u8", "bool": "i1"}


def signature(names: list[str], constexprs: list[str], values: dict) -> tuple[dict, dict]:
    """(type of each argument, values of the constant ones) as the compiler gets them for this launch; ({}, {}) where one has no such form.

    A tuple's type is the tuple of its parts' types, and the constant ones among them are named `name[0]`, `name[1]`.
    """
    constants: dict = {}
    types = {name: _told(name, values.get(name), name in constexprs, constants) for name in names}
    return (types, constants) if all(types.values()) else ({}, {})


def _told(name: str, value, constant: bool, constants: dict):
    """The type of one argument, or of a part of one; "" where it has none. Adds to `constants`."""
    if type(value) is tuple and not constant:
        parts = tuple(_told(f"{name}[{i}]", part, False, constants) for i, part in enumerate(value))
        return parts if all(parts) else ""
    kind = "constexpr" if constant or value is None else _type(value)
    if kind == "constexpr":
        value = _dtype(value) if type(value).__name__ == "dtype" else value
        if not (value is None or isinstance(value, int | float | str)):
            return ""
        constants[name] = value
    return kind


def _dtype(value) -> str:
    """A Triton dtype by the name it has in triton.language."""
    return "tl." + {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32", "fp64": "float64"}.get(str(value), str(value))


def _type(value) -> str:
    if isinstance(value, torch.Tensor):
        name = _pointer(value)
        return name and "*" + name
    if type(value).__name__ == "TensorDescriptor" and isinstance(value.base, torch.Tensor) and _pointer(value.base):
        return f"tensordesc<{_pointer(value.base)}{list(value.block_shape)}>"
    if isinstance(value, bool):
        return "i1"
    if isinstance(value, int):
        return "constexpr" if value == 1 else "i32" if -(2**31) <= value < 2**31 else "i64"  # 1 is compiled in, as at a real launch
    return "fp32" if isinstance(value, float) else ""


def _pointer(x: torch.Tensor) -> str:
    name = str(x.dtype).removeprefix("torch.")
    return _POINTERS.get(name, name.replace("int", "i")) if name in _POINTERS or name.startswith("int") else ""
