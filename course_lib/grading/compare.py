"""When is a result right? The tolerance rule. Runs no answer.

The rule, a result's leaf at a time: the reference is computed in float64; several plain PyTorch ways at the answer's own
precision show what rounding costs on exactly this input; a result is right when its largest error is at most 3 times the
worst of theirs (plus 2 units in the last place of the largest value), and its root mean square error at most 1.5 times
(plus 1 unit; only from RMS_ELEMENTS elements on). NaN and infinities must stand exactly where the reference has them.
"""

import math
import re
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from course_lib.grading.spec import Tiles
from course_lib.grading.where import describe, digits_apart, misplaced, number
from course_lib.states import SoftmaxState
from course_lib.words import plural

__all__ = ["Finding", "Target", "close", "describe", "in_float64", "judge", "leaves", "mapped", "names", "number", "said", "targets", "ulp"]

BARE_STATE = "Return a SoftmaxState(row_max, row_sum, acc): what came back is a plain {kind} of three."
MAX_FACTOR, MAX_ULPS, RMS_FACTOR, RMS_ULPS = 3.0, 2.0, 1.5, 1.0
RMS_ELEMENTS = 32  # over fewer, the root mean square is one or two roundings, and luck: 1 right float64 answer in 100 failed by it


@dataclass(frozen=True)
class Target:
    """What one leaf must be. For numbers, bools and text `reference` is the value itself and nothing else is used."""

    name: str  # "" for a lone result, else "acc", "item 1"
    reference: Any
    dtype: torch.dtype | None = None
    shape: tuple[int, ...] = ()
    worst: float = 0.0  # largest error of the plain ways
    limit: float = 0.0
    rms_limit: float = 0.0


@dataclass(frozen=True)
class Finding:
    """Why a result is not right. kind: type, shape, dtype, values."""

    kind: str
    sentence: str
    leaf: int = 0
    wrong: Tensor | None = None  # bool mask of the wrong elements
    multiple: float = 0.0  # of plain PyTorch's error
    got: str = ""
    expected: str = ""


# ---------------------------------------------------------------- trees


def leaves(tree: Any) -> list[Any]:
    """The leaves of a result, in order; dicts by sorted key."""
    if isinstance(tree, dict):
        return [leaf for key in sorted(tree, key=str) for leaf in leaves(tree[key])]
    if isinstance(tree, list | tuple):
        return [leaf for part in tree for leaf in leaves(part)]
    return [tree]


def names(tree: Any, returns: str = "") -> list[str]:
    """What the learner calls the leaves: the fields of a SoftmaxState, the names in "a pair (row_max, row_sum)", or "item 1"."""
    count = len(leaves(tree))
    if isinstance(tree, SoftmaxState):
        return list(SoftmaxState._fields)
    listed = re.search(r"\(([\w\s,]+)\)", returns)
    if listed and len(listed[1].split(",")) == count > 1:
        return [name.strip() for name in listed[1].split(",")]
    return [""] if count == 1 and not isinstance(tree, list | tuple | dict) else [f"item {i}" for i in range(count)]


def mapped(tree: Any, change) -> Any:
    """The same tree of arguments with `change` applied to its tensors."""
    if isinstance(tree, Tensor):
        return change(tree)
    if isinstance(tree, SoftmaxState):
        return SoftmaxState(*(mapped(part, change) for part in tree))
    if isinstance(tree, Tiles):
        return Tiles(mapped(tree.x, change), tree.width)
    if isinstance(tree, list | tuple):
        return type(tree)(mapped(part, change) for part in tree)
    if isinstance(tree, dict):
        return {key: mapped(part, change) for key, part in tree.items()}
    return tree


def in_float64(tree: Any) -> Any:
    return mapped(tree, lambda x: x.double() if x.is_floating_point() else x.clone())


def _bare_state(got: Any, expected: Any) -> bool:
    """Whether a plain tuple or list stands where a SoftmaxState belongs: whoever reads `.row_max` of it stops. The forms are the same."""
    if isinstance(expected, SoftmaxState):
        return not isinstance(got, SoftmaxState)
    if isinstance(expected, dict):
        return any(_bare_state(got[key], expected[key]) for key in expected)
    return isinstance(expected, list | tuple) and any(map(_bare_state, got, expected))


def _same_form(got: Any, expected: Any) -> bool:
    """Tuples of any kind and lists stand for each other; a list in place of a tensor does not."""
    if isinstance(expected, dict):
        return isinstance(got, dict) and got.keys() == expected.keys() and all(_same_form(got[key], expected[key]) for key in expected)
    if isinstance(expected, list | tuple):
        return isinstance(got, list | tuple) and len(got) == len(expected) and all(map(_same_form, got, expected))
    if isinstance(expected, Tensor):
        return isinstance(got, Tensor)
    if isinstance(expected, int | float) and not isinstance(expected, bool):
        return isinstance(got, int | float) and not isinstance(got, bool)
    return type(got) is type(expected)


# ---------------------------------------------------------------- the rule


def targets(reference: Any, baselines: list[Any], returns: str = "") -> list[Target]:
    """What each leaf must be, from the float64 reference and the plain ways' results."""
    columns = [leaves(baseline) for baseline in baselines]
    return [
        _target(name, ref, [column[i] for column in columns])
        for i, (name, ref) in enumerate(zip(names(reference, returns), leaves(reference), strict=True))
    ]


def _target(name: str, ref: Any, plain: list[Any]) -> Target:
    if not isinstance(ref, Tensor):
        return Target(name, ref)
    dtype = plain[0].dtype if plain else ref.dtype
    if not dtype.is_floating_point:
        return Target(name, ref.to(dtype), dtype, tuple(ref.shape))
    ref = ref.double()
    errors = [_errors(way, ref) for way in plain]
    worst = max((float(error.max()) for error in errors if error.numel()), default=0.0)
    rms = max((_rms(error) for error in errors), default=0.0)
    finite = ref[ref.isfinite()]
    unit = ulp(float(finite.abs().max()) if finite.numel() else 0.0, dtype)
    limit = MAX_FACTOR * worst + MAX_ULPS * unit
    rms_limit = RMS_FACTOR * rms + RMS_ULPS * unit if ref.numel() >= RMS_ELEMENTS else limit
    return Target(name, ref, dtype, tuple(ref.shape), worst, limit, rms_limit)


def ulp(value: float, dtype: torch.dtype) -> float:
    """The distance between neighbouring numbers of this dtype at `value`."""
    info = torch.finfo(dtype)
    return info.eps * 2.0 ** math.floor(math.log2(max(abs(value), info.tiny)))


def _errors(got: Tensor, ref: Tensor) -> Tensor:
    """|got - ref| where both are finite, 0 elsewhere."""
    return torch.where(got.double().isfinite() & ref.isfinite(), (got.double() - ref).abs(), 0.0)


def _rms(error: Tensor) -> float:
    return float(error.square().mean().sqrt()) if error.numel() else 0.0


def judge(got: Any, reference: Any, wanted: list[Target], returns: str = "a tensor") -> list[Finding]:
    """Everything that is wrong with a result; an empty list where it is right. Form first, then shape and dtype, then values."""
    if not _same_form(got, reference):
        missing = " Is a `return` missing?" if got is None else ""
        return [Finding("type", f"expected {returns}, got {said(got)}.{missing}")]
    if _bare_state(got, reference):
        return [Finding("type", BARE_STATE.format(kind="list" if isinstance(got, list) else "tuple"))]
    pairs = list(zip(leaves(got), wanted, strict=True))
    contract = [finding for i, (leaf, target) in enumerate(pairs) if (finding := _contract(i, leaf, target))]
    return contract or [finding for i, (leaf, target) in enumerate(pairs) if (finding := _values(i, leaf, target))]


def _contract(i: int, got: Any, target: Target) -> Finding | None:
    if target.dtype is None:
        return None
    whose = f"`{target.name}`" if target.name else "the result"
    if tuple(got.shape) != target.shape:
        return Finding("shape", f"{whose} has the shape {list(got.shape)}; expected {list(target.shape)}.", i)
    if got.dtype != target.dtype:
        return Finding("dtype", f"{whose} has the dtype {_short(got.dtype)}; expected {_short(target.dtype)}.", i)
    return None


def _values(i: int, got: Any, target: Target) -> Finding | None:
    if target.dtype is None:
        return _number(i, got, target)
    ref = target.reference
    if not target.dtype.is_floating_point:
        wrong = got != ref
        return _finding(i, got, target, wrong, 0.0) if bool(wrong.any()) else None
    got = got.double()
    elsewhere, error = misplaced(got, ref), _errors(got, ref)
    largest = float(error.max()) if error.numel() else 0.0
    multiple = largest / target.worst if target.worst > 0 and not bool(elsewhere.any()) else 0.0  # beside NaN it says nothing
    if not bool(elsewhere.any()) and largest <= target.limit and _rms(error) <= target.rms_limit:
        return None
    wrong = elsewhere | (error > target.limit)
    if not bool(wrong.any()):  # every element is within its limit, together they are not: rounding that plain PyTorch avoids
        wrong = error > target.rms_limit if bool((error > target.rms_limit).any()) else error > 0
    return _finding(i, got, target, wrong, multiple)


def _number(i: int, got: Any, target: Target) -> Finding | None:
    want = target.reference
    right = got == want
    if isinstance(want, float) or isinstance(got, float):
        try:
            right = math.isclose(got, want, rel_tol=1e-9) or (math.isnan(got) and math.isnan(want))
        except OverflowError:  # an int too large for a float
            right = False
    whose = f"`{target.name}`: " if target.name else ""
    return None if right else Finding("values", f"{whose}expected {want!r}, got {got!r}.", i, None, 0.0, repr(got), repr(want))


def _finding(i: int, got: Tensor, target: Target, wrong: Tensor, multiple: float) -> Finding:
    at = tuple(int(n) for n in wrong.nonzero()[0])
    want, have = target.reference[at].item(), got[at].item()
    digits = digits_apart(want, have)
    said = f"{int(wrong.sum()):,} of {wrong.numel():,} numbers are wrong."
    return Finding("values", said, i, wrong, multiple, number(have, digits), number(want, digits))


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def said(value: Any) -> str:
    """What a value is, in words: "a tensor", "a tuple of 2 tensors", "None"."""
    if value is None or isinstance(value, bool):
        return str(value)
    if isinstance(value, Tensor):
        return f"a tensor of shape {list(value.shape)}"
    if isinstance(value, list | tuple):
        kinds = {"tensor" if isinstance(part, Tensor) else type(part).__name__ for part in value}
        return f"a {'list' if isinstance(value, list) else 'tuple'} of {len(value)} {plural(kinds.pop() if len(kinds) == 1 else 'thing', len(value))}"
    return f"{'an' if type(value).__name__[0] in 'aeiou' else 'a'} {type(value).__name__}"


def close(one: Any, other: Any, wanted: list[Target]) -> bool:
    """Whether two results say the same, wrong or right: within the tolerance, or a thousandth of the value (a hundredth in half precision)."""
    a, b = leaves(one), leaves(other)
    if len(a) != len(b) or len(a) != len(wanted):
        return False
    return all(_alike(x, y, target) for x, y, target in zip(a, b, wanted, strict=True))


def _same_value(x: Any, y: Any) -> bool:
    """Ints exactly; a float beside any number to a millionth; everything else by type and equality."""
    if any(isinstance(v, bool) or not isinstance(v, int | float) for v in (x, y)) or (isinstance(x, int) and isinstance(y, int)):
        return type(x) is type(y) and x == y
    try:
        return x == y or math.isclose(x, y, rel_tol=1e-6)
    except OverflowError:  # an int too large for a float
        return False


def _alike(x: Any, y: Any, target: Target) -> bool:
    if not (isinstance(x, Tensor) and isinstance(y, Tensor)):
        return _same_value(x, y)
    if x.shape != y.shape or x.dtype != y.dtype:
        return False
    if not x.dtype.is_floating_point:
        return bool((x == y).all())
    x, y = x.double(), y.double()
    share = 1e-2 if target.dtype in (torch.float16, torch.bfloat16) else 1e-3
    return not bool(misplaced(x, y).any()) and bool((_errors(x, y) <= target.limit + share * torch.where(y.isfinite(), y.abs(), 0.0)).all())
