"""What runs while an answer runs: fills `spec.Evidence` by watching torch and Triton, not by searching the text.

Evidence comes from the answer's own process: good against honest mistakes and lazy shortcuts, not against forgery.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from course_lib.grading.contents import Account
from course_lib.grading.spec import Evidence

_FRIENDLY = {"_softmax": "softmax", "_log_softmax": "log_softmax"}
_WAYS_OUT = {"numpy": "numpy", "__array__": "numpy", "tolist": "tolist", "__dlpack__": "dlpack", "__reduce_ex__": "pickle"}
_SHOWING = frozenset({"__repr__", "__format__", "__str__"})
_WAYS_IN = ("from_numpy", "frombuffer", "from_dlpack", "as_tensor", "asarray", "tensor")
_MOST_CALLS = 300
_detach, _numpy = Tensor.detach, Tensor.numpy  # kept: the answer may replace torch's own
# What moves or makes elements without arithmetic on them does not count as something computed.
_MOVES = frozenset(
    "cat stack copy_ clone _to_copy copy fill fill_ zero_ index index_select gather flip roll repeat constant_pad_nd embedding "
    "lift_fresh lift_fresh_copy detach alias slice_scatter select_scatter index_put_ index_copy_ set_ resize_ masked_select".split()
)
_MAKES = ("empty", "zeros", "ones", "full", "new_", "arange", "scalar_tensor", "rand", "eye", "_efficientzerotensor", "linspace")
_LIBRARIES = frozenset({"aten", "prims", "prim"})  # what torch itself is made of; an operation from elsewhere may do anything


class _Operations(TorchDispatchMode):
    """Counts aten operations, keeps the largest and the widest result of arithmetic, and accounts for contents."""

    supports_higher_order_operators = True  # flex_attention, cond: else they raise under a mode

    def __init__(self, watch: "_Watch"):
        super().__init__()
        self.watch = watch

    def _watch(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        schema = getattr(func, "_schema", None)
        name = schema.name.split("::")[-1] if schema is not None else str(getattr(func, "_name", func))
        name = _FRIENDLY.get(name, name)
        given = list(_tensors((args, kwargs)))
        came_in = self.watch.read(given, name)
        out = func(*args, **kwargs)
        evidence, made = self.watch.evidence, list(_tensors(out))
        evidence.ops[name] = evidence.ops.get(name, 0) + 1
        if name == "_local_scalar_dense" and not self.watch.hidden:
            evidence.taken += 1
        moved = name in _MOVES
        inputs, storages = {id(part) for part in given}, {_storage(part) for part in given}
        if not moved and not name.startswith(_MAKES):
            for part in made:
                if id(part) in inputs or _storage(part) not in storages:
                    self._measure(part, name)
        if schema is not None and func.namespace in _LIBRARIES:
            written = [*made, *given] if schema.is_mutable else [part for part in made if _storage(part) not in storages]  # no views
            entered = came_in if moved or schema.is_mutable else 0
            for part in written:  # a few constants among many numbers do not make them all come from outside
                self.watch.account.made([part], entered=0 < _elements(part) < 2 * entered)
        return out

    def _measure(self, made: Tensor, op: str) -> None:
        evidence = self.watch.evidence
        if made.numel() > evidence.largest:
            evidence.largest, evidence.largest_op = made.numel(), op
        if made.dim() > 1 and made.shape[-1] > evidence.widest:
            evidence.widest, evidence.widest_op = made.shape[-1], op
        if made.dtype != torch.bool and made.numel() > evidence.made.get(op, 0) and not self.watch.in_kernel:
            evidence.made[op] = made.numel()


# Set afterwards: a `__torch_dispatch__` in the class body is wrapped so that its first use imports torch._dynamo (0.9 s a child).
_Operations.__torch_dispatch__ = _Operations._watch


def _storage(x: Tensor) -> int:
    try:
        return x.untyped_storage()._cdata
    except (RuntimeError, NotImplementedError):  # sparse tensors have none
        return -id(x)


def _elements(x: Tensor) -> int:
    """How many elements the whole storage under `x` holds."""
    try:
        return x.untyped_storage().nbytes() // x.element_size()
    except (RuntimeError, NotImplementedError):
        return 0


def _tensors(tree: Any, depth: int = 0) -> Iterator[Tensor]:
    if isinstance(tree, Tensor):
        yield tree
    elif isinstance(tree, list | tuple) and depth < 4:
        for part in tree:
            yield from _tensors(part, depth + 1)
    elif isinstance(tree, dict) and depth < 4:
        for part in tree.values():
            yield from _tensors(part, depth + 1)


class _Calls(TorchFunctionMode):
    """Notes torch's functions by the name they were called by, and the ways out of torch."""

    def __init__(self, watch: "_Watch"):
        super().__init__()
        self.watch = watch

    def __torch_function__(self, func, types, args=(), kwargs=None):
        evidence, watch = self.watch.evidence, self.watch
        name = str(getattr(func, "__name__", ""))
        if name in _WAYS_OUT and not watch.hidden:
            if _WAYS_OUT[name] not in evidence.detours:
                evidence.detours.append(_WAYS_OUT[name])
            evidence.taken += args[0].numel() if args and isinstance(args[0], Tensor) else 1
        if len(evidence.calls) < _MOST_CALLS:
            evidence.calls[name] = evidence.calls.get(name, 0) + 1
        if name not in _SHOWING:
            return func(*args, **(kwargs or {}))
        with watch.looking_away():
            return func(*args, **(kwargs or {}))


class _Watch:
    """What one observed stretch of an answer shares: its evidence, the account of contents, what is running."""

    def __init__(self, evidence: Evidence, account: Account):
        self.evidence, self.account = evidence, account
        self.hidden = self.in_kernel = self.launched = 0
        self.stores: list[np.ndarray] = []  # addresses that kernels stored to
        self._seen: set[int] = set()  # storages that already counted as having come in

    @contextmanager
    def looking_away(self):
        """Showing a tensor, and launching a kernel, take numbers out of torch and mean nothing by it."""
        self.hidden += 1
        try:
            yield
        finally:
            self.hidden -= 1

    def read(self, given: list[Tensor], op: str) -> int:
        """Before an operation: note what nobody was seen to make. How many of the numbers given had come in from outside torch."""
        came_in = 0
        for x in given:
            known, entered = self.account.look(x)
            if not known and op.startswith("lift_fresh"):
                self.came_in(x)
                entered = True
            elif not known:
                self._unseen(x)
            came_in += entered * x.numel()
        return came_in

    def came_in(self, x: Tensor) -> None:
        """A tensor made of Python's or NumPy's numbers."""
        self._count(x, "brought")
        self.account.made([x], entered=True)

    def _unseen(self, x: Tensor) -> None:
        self._count(x, "unseen")
        self.account.made([x])

    def _count(self, x: Tensor, kind: str) -> None:
        if x.is_floating_point() and _storage(x) not in self._seen:
            self._seen.add(_storage(x))
            setattr(self.evidence, kind, getattr(self.evidence, kind) + x.numel())

    def returned(self, result: Any) -> None:
        """After the call: how much came back, how much of it entered from outside, and what kernels stored of it."""
        evidence = self.evidence
        stored = np.unique(np.concatenate(self.stores)) if self.stores else np.empty(0, np.int64)
        for x in _tensors(result):
            evidence.returned += x.numel()
            evidence.largest_returned = max(evidence.largest_returned, x.numel())
            known, entered = self.account.look(x)
            if not known:
                self._unseen(x)
            elif entered and x.is_floating_point():
                evidence.carried += x.numel()
            if self.launched:
                there, blank = _covered(x, stored)
                if not there:  # not where a kernel stored: a copy, a slice, a cast of what it stored
                    there = min(len(stored), x.numel() - blank)
                evidence.stored += there
                evidence.blank += blank


def _covered(x: Tensor, stored: np.ndarray) -> tuple[int, int]:
    """(elements of `x` that were stored to, elements not stored to that are 0: what an allocation may leave)."""
    if not x.numel() or x.device.type != "cpu" or x.layout is not torch.strided:
        return 0, 0
    places = np.zeros(x.shape, np.int64)
    for axis, (size, stride) in enumerate(zip(x.shape, x.stride(), strict=True)):
        places += (np.arange(size) * stride).reshape([-1 if i == axis else 1 for i in range(x.dim())])
    hit = np.isin(places * x.element_size() + x.data_ptr(), stored)
    zero = _numpy(_detach(x)) == 0
    return int(hit.sum()), int((~hit & zero).sum())


@contextmanager
def watched(evidence: Evidence, account: Account | None = None) -> Iterator[_Watch]:
    """Fill `evidence` while the block runs; threads started inside are watched too."""
    watch = _Watch(evidence, account or Account())
    started = time.perf_counter()
    try:
        with _modes(watch), _threads(watch), _doors(watch), _launches(watch):
            yield watch
    finally:
        evidence.seconds = time.perf_counter() - started


@contextmanager
def _modes(watch: _Watch):
    with _Calls(watch), _Operations(watch):
        yield


@contextmanager
def _threads(watch: _Watch):
    """Modes belong to a thread: those started inside get their own."""
    begin = threading.Thread._bootstrap_inner  # calls `run`, whichever class has it

    def begin_watched(self):
        with _modes(watch):
            begin(self)

    threading.Thread._bootstrap_inner = begin_watched
    try:
        yield
    finally:
        threading.Thread._bootstrap_inner = begin


@contextmanager
def _doors(watch: _Watch):
    """The functions by which numbers enter torch: what they return is known to have come from outside."""
    kept = {name: getattr(torch, name) for name in _WAYS_IN}

    def door(function):
        def enter(*args, **kwargs):
            made = function(*args, **kwargs)
            if isinstance(made, Tensor) and not watch.account.look(made)[0]:
                watch.came_in(made)
            return made

        enter.__name__ = function.__name__
        return enter

    for name, function in kept.items():
        setattr(torch, name, door(function))
    try:
        yield
    finally:
        for name, function in kept.items():
            setattr(torch, name, function)


@contextmanager
def _launches(watch: _Watch):
    """Kernels read and store where torch does not look: note the addresses, and account for the tensors of each launch."""
    try:
        from triton.runtime import interpreter

        executor, builder = interpreter.GridExecutor, type(interpreter.interpreter_builder)
        call = executor.__call__
        kept = {name: vars(builder)[name] for name in ("create_masked_store", "create_atomic_rmw", "create_atomic_cas")}
    except (ImportError, AttributeError, KeyError):
        yield
        return

    def noted(function, mask_at: int | None):
        def store(self, *args, **kwargs):
            pointers = args[1] if mask_at == 3 else args[0]
            with suppress(Exception):
                addresses = np.asarray(pointers.data).astype(np.int64)
                if mask_at is not None:
                    addresses = addresses[np.broadcast_to(np.asarray(args[mask_at].data, dtype=bool), addresses.shape)]
                watch.stores.append(addresses.reshape(-1))
            return function(self, *args, **kwargs)

        return store

    def launch(self, *args, **kwargs):
        tensors = [getattr(x, "base", x) if not isinstance(x, Tensor) else x for x in (*args, *kwargs.values())]
        tensors = [x for x in tensors if isinstance(x, Tensor)]
        watch.read(tensors, "")
        watch.launched += 1
        watch.in_kernel += 1
        try:
            with watch.looking_away():
                return call(self, *args, **kwargs)
        finally:
            watch.in_kernel -= 1
            watch.account.made(tensors)

    for (name, function), mask_at in zip(kept.items(), (2, 3, None), strict=True):
        setattr(builder, name, noted(function, mask_at))
    executor.__call__ = launch
    try:
        yield
    finally:
        executor.__call__ = call
        for name, function in kept.items():
            setattr(builder, name, function)


def settle() -> None:
    """Make empties NaN, without a torch operation. (`torch.use_deterministic_algorithms` imports the compiler first: 0.9 s.)"""
    if hasattr(torch._C, "_set_deterministic_algorithms"):
        torch._C._set_deterministic_algorithms(True, warn_only=True)
    else:
        torch.use_deterministic_algorithms(True, warn_only=True)
