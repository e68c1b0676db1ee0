"""What runs while an answer runs: fills `spec.Evidence` by watching torch, not by searching the text.

Evidence comes from the answer's own process: good against honest mistakes and lazy shortcuts, not against forgery.
"""

import time
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from course_lib.grading.spec import Evidence

_FRIENDLY = {"_softmax": "softmax", "_log_softmax": "log_softmax"}
_WAYS_OUT = {"numpy": "numpy", "__array__": "numpy", "tolist": "tolist"}
# What moves or makes elements without arithmetic on them does not count as something computed.
_MOVES = frozenset(
    "cat stack copy_ clone _to_copy copy fill fill_ zero_ index index_select gather flip roll repeat constant_pad_nd embedding "
    "lift_fresh lift_fresh_copy detach alias slice_scatter select_scatter index_put_ index_copy_ set_ resize_ masked_select".split()
)
_MAKES = ("empty", "zeros", "ones", "full", "new_", "arange", "scalar_tensor", "rand", "eye", "_efficientzerotensor", "linspace")


class _Operations(TorchDispatchMode):
    """Counts aten operations and keeps the largest and the widest result of arithmetic."""

    def __init__(self, evidence: Evidence):
        super().__init__()
        self.evidence = evidence

    def _watch(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        name = func._schema.name.split("::")[-1]
        name = _FRIENDLY.get(name, name)
        self.evidence.ops[name] = self.evidence.ops.get(name, 0) + 1
        if name not in _MOVES and not name.startswith(_MAKES):
            inputs = {id(part) for part in args if isinstance(part, Tensor)}
            storages = {_storage(part) for part in args if isinstance(part, Tensor)}
            for part in out if isinstance(out, list | tuple) else (out,):
                if isinstance(part, Tensor) and (id(part) in inputs or _storage(part) not in storages):
                    self._measure(part, name)
        return out

    def _measure(self, made: Tensor, op: str) -> None:
        if made.numel() > self.evidence.largest:
            self.evidence.largest, self.evidence.largest_op = made.numel(), op
        if made.dim() > 1 and made.shape[-1] > self.evidence.widest:
            self.evidence.widest, self.evidence.widest_op = made.shape[-1], op


# Set afterwards: a `__torch_dispatch__` in the class body is wrapped so that its first use imports torch._dynamo (0.9 s a child).
_Operations.__torch_dispatch__ = _Operations._watch


def _storage(x: Tensor) -> int:
    try:
        return x.untyped_storage()._cdata
    except (RuntimeError, NotImplementedError):  # sparse tensors have none
        return -id(x)


class _Detours(TorchFunctionMode):
    """Notices the ways out of torch, and the composite operations that the dispatcher takes apart."""

    def __init__(self, evidence: Evidence):
        super().__init__()
        self.evidence = evidence

    def __torch_function__(self, func, types, args=(), kwargs=None):
        name = getattr(func, "__name__", "")
        if name in _WAYS_OUT and _WAYS_OUT[name] not in self.evidence.detours:
            self.evidence.detours.append(_WAYS_OUT[name])
        if name == "scaled_dot_product_attention":
            self.evidence.ops[name] = self.evidence.ops.get(name, 0) + 1
        return func(*args, **(kwargs or {}))


@contextmanager
def watched(evidence: Evidence):
    """Fill `evidence` while the block runs."""
    started = time.perf_counter()
    try:
        with _Detours(evidence), _Operations(evidence):
            yield
    finally:
        evidence.seconds = time.perf_counter() - started


def settle() -> None:
    """Make empties NaN, without a torch operation. (`torch.use_deterministic_algorithms` imports the compiler first: 0.9 s.)"""
    if hasattr(torch._C, "_set_deterministic_algorithms"):
        torch._C._set_deterministic_algorithms(True, warn_only=True)
    else:
        torch.use_deterministic_algorithms(True, warn_only=True)
