"""The arguments of a call as Python that a learner can paste: `x = torch.tensor([[0.5, 1.0]])`. Knows nothing of verdicts.

Values are written with as many digits as their dtype needs to come back to the last bit.
"""

import itertools
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from course_lib.grading.spec import Tiles
from course_lib.states import SoftmaxState

MOST_NUMBERS = 48
_WIDE = 100  # characters a line, where the rows of a tensor allow it


def call(name: str, arguments: list[tuple[str, Any]], layout: str = "contiguous") -> str | None:
    """One line (or more) an argument, then the call. None where there are too many numbers to look at."""
    tensors = [x for _, value in arguments for x in _tensors(value)]
    floating = sum(_stored(x, layout).numel() for x in tensors if x.is_floating_point())
    if floating > MOST_NUMBERS or sum(_stored(x, layout).numel() for x in tensors) > 2 * MOST_NUMBERS:
        return None
    layouts = _in_turn(layout)
    lines = [_assigned(title.replace(" ", "_"), value, layouts) for title, value in arguments]
    return "\n".join([*lines, f"{name}({', '.join(title.replace(' ', '_') for title, _ in arguments)})"])


def _in_turn(layout: str) -> Iterator[str]:
    """The layout of each tensor, as the arena gives it."""
    return itertools.cycle(("contiguous", "transposed")) if layout == "mixed" else itertools.repeat(layout)


def _assigned(title: str, value: Any, layouts: Iterator[str]) -> str:
    text = f"{title} = {written(value, layouts)}"
    lines = text.split("\n")
    return "\n".join([lines[0], *(" " * (len(title) + 3) + line for line in lines[1:])])


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, Tiles):
        return [value.x]
    if isinstance(value, dict):
        return [x for part in value.values() for x in _tensors(part)]
    return [x for part in value for x in _tensors(part)] if isinstance(value, list | tuple) else []


def written(value: Any, layouts: Iterator[str] | None = None) -> str:
    """An argument as an expression; `layouts` gives the layout of one tensor after the other, contiguous without it."""
    layouts = layouts or _in_turn("contiguous")
    if isinstance(value, Tensor):
        return _tensor(value, next(layouts))
    if isinstance(value, Tiles):
        return f"iter({_tensor(value.x, next(layouts))}.split({value.width}, dim=-1))"
    if isinstance(value, SoftmaxState):
        return _listed([written(part, layouts) for part in value], "SoftmaxState(", ")")
    if isinstance(value, list | tuple):
        open_, close = "[]" if isinstance(value, list) else "()"
        return _listed([written(part, layouts) for part in value], open_, ",)" if close == ")" and len(value) == 1 else close)
    if isinstance(value, dict):
        return _listed([f"{key!r}: {written(part, layouts)}" for key, part in value.items()], "{", "}")
    return _number(value, torch.float64) if isinstance(value, float) else repr(value)


def _listed(parts: list[str], open_: str, close: str) -> str:
    """In one line where that is short, else a line each under the bracket."""
    line = open_ + ", ".join(parts) + close
    if len(line) <= _WIDE and "\n" not in line:
        return line
    indent = " " * len(open_)
    return open_ + f",\n{indent}".join(part.replace("\n", f"\n{indent}") for part in parts) + close


def _stored(x: Tensor, layout: str) -> Tensor:
    return x[:1] if layout == "expanded" and x.dim() else x


def _tensor(x: Tensor, layout: str) -> str:
    stored = _stored(x, layout)
    usual = x.dtype in (torch.float32, torch.int64, torch.bool)
    kind = "" if usual else f", dtype={x.dtype}"
    if not stored.numel():
        text = f"torch.empty({list(x.shape)}{', dtype=torch.int64' if x.dtype == torch.int64 else kind})"
    else:
        text = f"torch.tensor({_nested(stored.tolist(), x.dtype)}{kind})".replace("\n", "\n" + " " * len("torch.tensor("))
    if layout == "expanded" and x.dim() and stored.numel():
        return f"{text}.expand({list(x.shape)})"
    return f"{text}.mT.contiguous().mT" if layout == "transposed" and x.dim() >= 2 else text


def _nested(values: Any, dtype: torch.dtype) -> str:
    if not isinstance(values, list):
        return _number(values, dtype)
    return _listed([_nested(part, dtype) for part in values], "[", "]")


def _number(x: Any, dtype: torch.dtype) -> str:
    if not isinstance(x, float):
        return repr(x)
    if not math.isfinite(x):
        return "torch.nan" if math.isnan(x) else "torch.inf" if x > 0 else "-torch.inf"
    kinds = {torch.float32: np.float32, torch.float16: np.float16}
    return str(kinds[dtype](x)) if dtype in kinds else f"{x:.6g}" if dtype == torch.bfloat16 else repr(x)
