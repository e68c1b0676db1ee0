"""Counts what an interpreted Triton kernel loads and stores, and stops an access outside its tensors with a sentence.

    with traffic.counted() as launches:      # in a process where kernels are interpreted
        copy(x)
    launches[0].bytes_loaded

    traffic.count(copy, x)                   # anywhere, on a GPU machine in a process of its own

Knows nothing of exercises. Works on the interpreter (TRITON_INTERPRET=1) by wrapping the functions it calls for every
load, store, dot and launch; tensor descriptors, block pointers, gathers and scatters end in the same loads and stores.
The bytes are *requested* ones: what programs ask for, before any cache. Lanes that a mask turns off are not counted.
Without the guard an access out of range reads a neighbour's memory, or ends the process. The guard knows addresses, not which
pointer they came from: a wrong one that hits another tensor of the same launch shows in the values only.
"""

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from course_lib.launches import Argument, Launch, Touch, signature
from course_lib.regions import OutOfRange, Region, nearest

__all__ = ["Argument", "Launch", "OutOfRange", "Touch", "count", "counted"]

_BY_DESCRIPTOR = "Are the shape and strides of the tensor descriptor those of the tensor?"


def count(fn: Callable, *args, **kwargs):
    """Call fn(*args, **kwargs) with interpreted kernels and return what they asked for: a `course_lib.counting.Traffic`.

    It shows itself as a table; `.bytes`, `.bytes_loaded`, `.flops`, `.tensors`, `.launches`, `.result` are in it. fn gets copies:
    arguments stay as they are. Where kernels are compiled (a GPU machine) a child process counts, since one process cannot do both.
    """
    from course_lib import counting

    return counting.count(fn, args, kwargs)


@contextmanager
def counted(trace: bool = False) -> Iterator[list[Launch]]:
    """Count inside the block. Yields the launches, in order; it grows while kernels run.

    trace=True also keeps every single access (`Launch.trace`): which rows and columns of which tensor, by which program.
    A kernel under @triton.autotune runs with the first of its configurations: there is no time to compare here.
    """
    from triton.runtime import interpreter
    from triton.runtime.autotuner import Autotuner

    launches: list[Launch] = []
    watch = _Watch(launches, trace)
    builder, executor = type(interpreter.interpreter_builder), interpreter.GridExecutor
    wrappers = [(builder, name, wrapper) for name, wrapper in watch.builder().items() if hasattr(builder, name)]
    wrappers += [(executor, name, wrapper) for name, wrapper in watch.executor().items()]
    wrappers.append((Autotuner, "run", _first_config))
    if hasattr(interpreter, "_patch_lang_tensor"):
        wrappers.append((interpreter, "_patch_lang_tensor", _scalars_as_numbers))
    kept = [(owner, name, vars(owner)[name]) for owner, name, _ in wrappers]
    for (owner, name, wrapper), (_, _, original) in zip(wrappers, kept, strict=True):
        setattr(owner, name, wrapper(original))
    try:
        yield launches
    finally:
        for owner, name, original in kept:
            setattr(owner, name, original)


def _scalars_as_numbers(original):
    """`range(0, N)` in a kernel asks a scalar for its number. Triton up to 3.6 takes it from an array of one element, which numpy 2.4 refuses."""

    def _patch_lang_tensor(tensor, *scope):
        original(tensor, *scope)

        def number(scalar):
            return int(np.asarray(scalar.handle.data).reshape(-1)[0])

        scope[0].set_attr(tensor, "__index__", number) if scope else setattr(tensor, "__index__", number)

    return _patch_lang_tensor


def _anything(ptrs):
    """What lanes hold that a mask turned off, where the kernel gave no `other`: on a GPU anything; here NaN, so that its use is seen.

    None (the interpreter's zeros) for integers and for bfloat16, whose bits the interpreter keeps as integers.
    """
    from triton.runtime import interpreter

    kind = interpreter._get_np_dtype(ptrs.get_element_ty())
    if kind.kind != "f":
        return None
    return interpreter.TensorHandle(np.full(np.shape(ptrs.data), np.nan, dtype=kind), ptrs.get_element_ty())


class _Watch:
    """The wrappers around Triton's functions, and what they write to. Each takes the original and gives its replacement."""

    def __init__(self, launches: list[Launch], trace: bool):
        self.launches, self.trace = launches, trace
        self.regions: list[_Counted] = []
        self.by_descriptor = False
        self.working: set[tuple] = set()  # programs of this launch that moved something
        self.tile: tuple[tuple[int, ...], np.ndarray | None] = ((), None)  # of the access at hand: its shape, and which lanes are on

    def builder(self) -> dict[str, Callable]:
        def load(original):
            def create_masked_load(builder, ptrs, mask, other, *rest, **more):
                self.touched(builder, ptrs, mask, "load")
                if other is None and not self.by_descriptor:
                    other = _anything(ptrs)
                return original(builder, ptrs, mask, other, *rest, **more)

            return create_masked_load

        def store(original):
            def create_masked_store(builder, ptrs, value, mask, *rest, **more):
                self.touched(builder, ptrs, mask, "store")
                return original(builder, ptrs, value, mask, *rest, **more)

            return create_masked_store

        def rmw(original):
            def create_atomic_rmw(builder, op, ptrs, value, mask, *rest, **more):
                self.touched(builder, ptrs, mask, "atomic")
                return original(builder, op, ptrs, value, mask, *rest, **more)

            return create_atomic_rmw

        def cas(original):
            def create_atomic_cas(builder, ptrs, *rest, **more):
                self.touched(builder, ptrs, None, "atomic")
                return original(builder, ptrs, *rest, **more)

            return create_atomic_cas

        def described(original):
            def through_descriptor(builder, *rest, **more):
                self.by_descriptor = True
                try:
                    return original(builder, *rest, **more)
                finally:
                    self.by_descriptor = False

            return through_descriptor

        def dot(original):
            def create_dot(builder, a, b, *rest, **more):
                self.launches[-1].dots += 1
                self.launches[-1].flops += 2 * a.data.size * b.data.shape[-1]
                return original(builder, a, b, *rest, **more)

            return create_dot

        def dot_scaled(original):
            def create_dot_scaled(builder, *operands, **more):
                result = original(builder, *operands, **more)
                lhs = operands[0]
                self.launches[-1].dots += 1
                self.launches[-1].flops += 2 * result.data.size * lhs.data.shape[-1] * (2 if str(lhs.dtype) == "uint8" else 1)  # two fp4 a byte
                return result

            return create_dot_scaled

        def grid(original):
            def set_grid_dim(builder, *sizes):
                self.launches[-1].grid = tuple(int(size) for size in sizes)
                return original(builder, *sizes)

            return set_grid_dim

        return {
            "create_masked_load": load,
            "create_masked_store": store,
            "create_atomic_rmw": rmw,
            "create_atomic_cas": cas,
            "create_descriptor_load": described,
            "create_descriptor_store": described,
            "create_dot": dot,
            "create_dot_scaled": dot_scaled,
            "set_grid_dim": grid,
        }

    def executor(self) -> dict[str, Callable]:
        def call(original):
            def __call__(executor, *args, **kwargs):
                self.launches.append(_described(executor, args, kwargs))
                try:
                    return original(executor, *args, **kwargs)
                finally:
                    self.settle()

            return __call__

        def hosted(original):
            def _init_args_hst(executor, args_dev, kwargs):
                args, kwargs = original(executor, args_dev, kwargs)
                self.regions = [_Counted(name, x) for name, x in _tensors([*zip(executor.arg_names, args, strict=False), *kwargs.items()])]
                self.launches[-1].tensors = {region.name: region.argument for region in self.regions}
                return args, kwargs

            return _init_args_hst

        return {"__call__": call, "_init_args_hst": hosted}  # kernels see the host's copies of CUDA tensors: theirs are the addresses

    def settle(self) -> None:
        """The launch is over: count the elements that were touched at all."""
        for region in self.regions:
            region.settle()
        self.regions = []
        self.launches[-1].working, self.working = len(self.working), set()

    def touched(self, builder, ptrs, mask, what: str) -> None:
        """Note what the lanes that are on touch. OutOfRange names the first that touches none of the launch's tensors."""
        launch = self.launches[-1]
        size = max(1, ptrs.get_element_ty().primitive_bitwidth // 8)
        addresses = np.asarray(ptrs.data).astype(np.int64, copy=False)
        launch.lanes += addresses.size
        self.tile = addresses.shape, None
        if mask is not None:
            on = np.asarray(mask if isinstance(mask, np.ndarray) else mask.data, dtype=bool)
            if on.shape != addresses.shape:
                on = np.broadcast_to(on, addresses.shape)
            if not on.all():
                addresses, self.tile = addresses[on], (on.shape, on)
        addresses = addresses.reshape(-1)
        launch.lanes_on += addresses.size
        launch.loads += what == "load"
        launch.stores += what == "store"
        launch.atomics += what == "atomic"
        launch.bytes_loaded += addresses.size * size * (what != "store")
        launch.bytes_stored += addresses.size * size * (what != "load")
        if addresses.size:
            self.working.add(tuple(builder.grid_idx))
            self.attribute(builder, addresses, size, what)

    def attribute(self, builder, addresses: np.ndarray, size: int, what: str) -> None:
        low, high = int(addresses.min()), int(addresses.max())
        for region in self.regions:
            if region.own is None and region.start <= low and high + size <= region.stop:  # nearly always
                return self.note(builder, region, addresses, size, what)
        left = addresses
        for region in self.regions:
            mine = region.holds(left, size)
            if mine.any():
                self.note(builder, region, left[mine], size, what)
                left = left[~mine]
        if left.size:
            first = int(np.argmax(addresses == left[0]))  # of the lanes that are on, the first that touches no tensor
            self.refuse(builder, int(left[0]), size, left.size, what, first)

    def note(self, builder, region: "_Counted", addresses: np.ndarray, size: int, what: str) -> None:
        offsets = region.note(addresses, size, what)
        if self.trace:
            box = tuple((int(i.min()), int(i.max()) + 1) for i in region.index(offsets))
            self.launches[-1].trace.append(Touch(tuple(int(i) for i in builder.grid_idx), what, region.name, box))

    def refuse(self, builder, address: int, size: int, lanes: int, what: str, first: int) -> None:
        launch = self.launches[-1]
        what = {"atomic": "atomic operation"}.get(what, what) + (" through a tensor descriptor" if self.by_descriptor else "")
        where = f"in program {tuple(int(i) for i in builder.grid_idx)} of the grid {launch.grid}"
        region = nearest(self.regions, address)
        if region is None:
            raise OutOfRange(f"kernel {launch.kernel}: a {what} far outside every tensor of the launch, {where}. Look at the pointer arithmetic.")
        if region.holds(np.array([address]), 1)[0]:
            address += size - 1  # a wide access that begins inside
        advice = _BY_DESCRIPTOR if self.by_descriptor else region.advice(address)
        count = f"{lanes} lane{'s' if lanes > 1 else ''} of this tile{self.lane(first)}"
        what = f"{'an' if what.startswith('a') else 'a'} {what}"
        raise OutOfRange(f"kernel {launch.kernel}: {what} {region.place(address)}, {where} ({count}). {advice}")


    def lane(self, first: int) -> str:
        """`, the first is lane [20, 0] of [32, 32]`: where in its tile a lane lies, which says what its mask missed. Nothing for a single lane."""
        shape, on = self.tile
        if not shape or np.prod(shape) == 1:
            return ""
        place = np.unravel_index(first if on is None else int(np.flatnonzero(on)[first]), shape)
        at, sides = [int(i) for i in place], list(shape)
        return f", the first is lane {at if len(at) > 1 else at[0]} of {sides if len(at) > 1 else sides[0]}"


class _Counted(Region):
    """A tensor's memory while a launch runs, with a mark on every element that was touched."""

    def __init__(self, name: str, x: torch.Tensor):
        super().__init__(name, x)
        if x.dtype == torch.bfloat16:
            raise TypeError(
                f"`{name}` is bfloat16: Triton's interpreter computes bf16 dot products wrongly and says nothing. Use float32 here, bf16 on a GPU."
            )
        self.argument = Argument(self.shape, self.strides, str(x.dtype).removeprefix("torch."), self.distinct * self.element)
        self.marks: dict[str, np.ndarray] = {}

    def note(self, addresses: np.ndarray, size: int, what: str) -> np.ndarray:
        """Count and mark these accesses; returns the offsets of their elements."""
        offsets = self.offsets(addresses)
        if what != "store":
            self.argument.loaded += addresses.size * size
            self.mark("loaded", offsets, size)
        if what != "load":
            self.argument.stored += addresses.size * size
            self.mark("stored", offsets, size)
        return offsets

    def mark(self, what: str, offsets: np.ndarray, size: int) -> None:
        if what not in self.marks:
            self.marks[what] = np.zeros(self.span, dtype=bool)
        for i in range(max(1, size // self.element)):  # a load wider than an element touches several
            self.marks[what][offsets + i if i else offsets] = True

    def settle(self) -> None:
        once = {what: int(np.count_nonzero(marks)) * self.element for what, marks in self.marks.items()}
        self.argument.loaded_once, self.argument.stored_once = once.get("loaded", 0), once.get("stored", 0)
        self.marks = {}


def _first_config(original):
    def run(tuner, *args, **kwargs):
        configs, tuner.configs = tuner.configs, tuner.configs[:1]
        try:
            return original(tuner, *args, **kwargs)
        finally:
            tuner.configs = configs

    return run


def _described(executor, args: tuple, kwargs: dict) -> Launch:
    """The launch as far as it is known before it runs."""
    values = {name: parameter.default for name, parameter in inspect.signature(executor.fn).parameters.items()}
    values |= dict(zip(executor.arg_names, args, strict=False)) | kwargs
    types, constants = signature(executor.arg_names, executor.constexprs, values)
    return Launch(
        executor.fn.__name__,
        constexprs={name: values[name] for name in executor.constexprs if isinstance(values.get(name), int | float | bool | str)},
        signature=types,
        constants=constants,
        options={name: value for name, value in kwargs.items() if name not in executor.arg_names and type(value) is int},
    )


def _tensors(named: list[tuple[str, Any]]) -> Iterator[tuple[str, torch.Tensor]]:
    """Every tensor among these arguments: those in tuples as `name[0]`, a tensor descriptor's as its own name."""
    for name, value in named:
        value = getattr(value, "base", value) if not isinstance(value, torch.Tensor) else value
        if isinstance(value, torch.Tensor):
            yield name, value
        elif isinstance(value, tuple):
            yield from _tensors([(f"{name}[{i}]", part) for i, part in enumerate(value)])
