"""Counts what an interpreted Triton kernel loads and stores, and stops an access outside its tensors with a sentence.

Knows nothing of exercises. Works on the interpreter (TRITON_INTERPRET=1) by wrapping the functions it calls for every
load, store and launch. The bytes are *requested* ones: what programs ask for, before any cache. Lanes that a mask turns
off are not counted. Without the guard an access out of range reads a neighbour's memory, or ends the process.
"""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch


class OutOfRange(IndexError):
    """A kernel touched memory outside the tensors that it was launched with."""


@dataclass
class Launch:
    """One launch: the tensors it may touch are kept by name as (first byte, one past the last byte, bytes an element)."""

    kernel: str
    grid: tuple[int, ...] = ()
    constexprs: dict = field(default_factory=dict)
    tensors: dict[str, tuple[int, int, int]] = field(default_factory=dict)
    bytes_loaded: int = 0
    bytes_stored: int = 0
    signature: dict[str, str] = field(default_factory=dict)  # what the compiler is told of each argument; empty where it cannot be said
    constants: dict = field(default_factory=dict)  # the values of those that are "constexpr" there
    options: dict = field(default_factory=dict)  # num_warps and the like


@contextmanager
def counted() -> Iterator[list[Launch]]:
    """Count inside the block. Yields the launches, in order; it grows while kernels run."""
    from triton.runtime import interpreter

    launches: list[Launch] = []
    builder, executor = interpreter.interpreter_builder, interpreter.GridExecutor
    load, store = type(builder).create_masked_load, type(builder).create_masked_store
    set_grid, call = type(builder).set_grid_dim, executor.__call__
    rmw, cas = type(builder).create_atomic_rmw, type(builder).create_atomic_cas

    def on_load(self, ptrs, mask, *rest, **more):
        launches[-1].bytes_loaded += _touched(self, launches[-1], ptrs, mask, "load")
        return load(self, ptrs, mask, *rest, **more)

    def on_store(self, ptrs, value, mask, *rest, **more):
        launches[-1].bytes_stored += _touched(self, launches[-1], ptrs, mask, "store")
        return store(self, ptrs, value, mask, *rest, **more)

    def on_rmw(self, op, ptrs, value, mask, *rest, **more):
        size = _touched(self, launches[-1], ptrs, mask, "atomic operation")
        launches[-1].bytes_loaded += size
        launches[-1].bytes_stored += size
        return rmw(self, op, ptrs, value, mask, *rest, **more)

    def on_cas(self, ptrs, *rest, **more):
        size = _touched(self, launches[-1], ptrs, None, "atomic operation")
        launches[-1].bytes_loaded += size
        launches[-1].bytes_stored += size
        return cas(self, ptrs, *rest, **more)

    def on_grid(self, *sizes):
        launches[-1].grid = tuple(int(size) for size in sizes)
        return set_grid(self, *sizes)

    def on_call(self, *args, **kwargs):
        names = [*self.arg_names[: len(args)], *kwargs]
        values = dict(zip(names, [*args, *kwargs.values()], strict=True))
        tensors = {name: getattr(x, "base", x) for name, x in values.items()}  # a tensor descriptor has its tensor as `base`
        launches.append(Launch(self.fn.__name__, tensors={name: _extent(name, x) for name, x in tensors.items() if isinstance(x, torch.Tensor)}))
        values = {name: parameter.default for name, parameter in inspect.signature(self.fn).parameters.items()} | values
        launches[-1].constexprs = {name: values[name] for name in self.constexprs if isinstance(values.get(name), int | float | bool | str)}
        launches[-1].signature, launches[-1].constants = _signature(self.arg_names, self.constexprs, values)
        launches[-1].options = {name: value for name, value in kwargs.items() if name not in self.arg_names and type(value) is int}
        return call(self, *args, **kwargs)

    wrapped = {
        "create_masked_load": on_load,
        "create_masked_store": on_store,
        "create_atomic_rmw": on_rmw,
        "create_atomic_cas": on_cas,
        "set_grid_dim": on_grid,
    }
    kept = {name: vars(type(builder))[name] for name in wrapped}
    for name, function in wrapped.items():
        setattr(type(builder), name, function)
    executor.__call__ = on_call
    try:
        yield launches
    finally:
        for name, function in kept.items():
            setattr(type(builder), name, function)
        executor.__call__ = call


_POINTERS = {"float64": "fp64", "float32": "fp32", "float16": "fp16", "bfloat16": "bf16", "uint8": "u8", "bool": "i1"}


def _signature(names: list[str], constexprs: list[str], values: dict) -> tuple[dict[str, str], dict]:
    """(type of each argument, values of the constant ones) as the compiler gets them for this launch; ({}, {}) where one has no such form."""
    types, constants = {}, {}
    for name in names:
        value = values.get(name)
        kind = "constexpr" if name in constexprs or value is None else _type(value)
        if kind == "constexpr":
            value = _dtype(value) if type(value).__name__ == "dtype" else value
            if not (value is None or isinstance(value, int | float | str)):
                return {}, {}
            constants[name] = value
        if not kind:
            return {}, {}
        types[name] = kind
    return types, constants


def _dtype(value) -> str:
    """A Triton dtype by the name it has in triton.language."""
    return "tl." + {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32", "fp64": "float64"}.get(str(value), str(value))


def _type(value) -> str:
    if isinstance(value, torch.Tensor):
        name = str(value.dtype).removeprefix("torch.")
        return "*" + _POINTERS.get(name, name.replace("int", "i")) if name in _POINTERS or name.startswith("int") else ""
    if isinstance(value, bool):
        return "i1"
    if isinstance(value, int):
        return "constexpr" if value == 1 else "i32" if -(2**31) <= value < 2**31 else "i64"  # 1 is compiled in, as at a real launch
    return "fp32" if isinstance(value, float) else ""


def _extent(name: str, x: torch.Tensor) -> tuple[int, int, int]:
    if x.dtype == torch.bfloat16:
        raise TypeError(
            f"`{name}` is bfloat16: Triton's interpreter computes bf16 dot products wrongly and says nothing. Use float32 here, bf16 on a GPU."
        )
    size = x.element_size()
    span = (1 + sum((n - 1) * stride for n, stride in zip(x.shape, x.stride(), strict=True))) * size if x.numel() else 0
    return x.data_ptr(), x.data_ptr() + span, size


def _touched(builder, launch: Launch, ptrs, mask, what: str) -> int:
    """Bytes that the lanes switched on touch. OutOfRange names the first that touches none of the launch's tensors."""
    size = max(1, ptrs.get_element_ty().primitive_bitwidth // 8)
    addresses = np.asarray(ptrs.data).astype(np.int64)
    if mask is not None:
        addresses = addresses[np.broadcast_to(np.asarray(mask.data, dtype=bool), addresses.shape)]
    addresses = addresses.reshape(-1)
    inside = np.zeros(addresses.shape, dtype=bool)
    for start, stop, _ in launch.tensors.values():
        inside |= (addresses >= start) & (addresses + size <= stop)
    if not inside.all():
        _refuse(builder, launch, int(addresses[~inside][0]), int((~inside).sum()), what)
    return int(addresses.size) * size


def _refuse(builder, launch: Launch, address: int, lanes: int, what: str) -> None:
    where = f"in program {tuple(int(i) for i in builder.grid_idx)} of the grid {launch.grid}"
    gaps = {name: max(start - address, address - stop, 0) for name, (start, stop, _) in launch.tensors.items()}
    nearest = min(gaps, key=gaps.get, default=None)
    if nearest is None or gaps[nearest] > 1 << 20:
        raise OutOfRange(f"kernel {launch.kernel}: a {what} far outside every tensor of the launch, {where}. Look at the pointer arithmetic.")
    start, stop, size = launch.tensors[nearest]
    raise OutOfRange(
        f"kernel {launch.kernel}: a {what} outside `{nearest}`: element {(address - start) // size} of {(stop - start) // size}, {where} "
        f"({lanes} lane{'s' if lanes > 1 else ''} of this tile). Does the mask cover every lane past the end?"
    )
