"""What the panel shows of a failed call: shapes, seed, expected and got beside each other, the answer's own traceback."""

import ast
from typing import Any

import torch

from course_lib.grading import compare
from course_lib.grading.sentences import Outcome
from course_lib.source import Exercise

_NUMBERS = 8


def of(outcome: Outcome, exercise: Exercise) -> dict:
    """Details of one outcome, all plain data. place: the index of the first wrong number; the rows are those around it."""
    details: dict[str, Any] = {"probe": outcome.name, "shapes": shapes(exercise, outcome.probe.args, outcome.probe.kwargs)}
    if outcome.reply is not None and outcome.reply.failure:
        details["traceback"] = traceback(outcome.reply.failure)
    if outcome.wrong_values:
        finding, target = outcome.findings[0], outcome.targets[outcome.findings[0].leaf]
        details.update(leaf=target.name, multiple=finding.multiple, expected=finding.expected, got=finding.got)
        if finding.wrong is not None:
            at = tuple(int(n) for n in finding.wrong.nonzero()[0])
            got = compare.leaves(outcome.reply.result)[finding.leaf]
            details.update(place=list(at), expected_row=_row(target.reference, at), got_row=_row(got, at))
    return details


def traceback(failure: dict) -> str:
    """The answer's own frames, as Python prints them."""
    lines = [part for where, source in failure["frames"] for part in (f"  {where or 'outside every definition'}", f"    {source}")]
    return "\n".join([*lines, f"{failure['type']}: {failure['message']}"])


def _row(x: torch.Tensor, at: tuple[int, ...]) -> list[str]:
    """Up to eight numbers of the row in which the first wrong place lies."""
    row = x[at[:-1]] if at else x.reshape(1)
    start = max(0, min(at[-1] - 3, row.shape[0] - _NUMBERS)) if at else 0
    return [compare.number(value) for value in row[start : start + _NUMBERS].tolist()]


def shapes(exercise: Exercise, args: tuple, kwargs: dict) -> list[str]:
    """The arguments of a call in words: "x [2, 3] float32"."""
    node = next((n for n in ast.parse(exercise.solution).body if getattr(n, "name", None) == exercise.name), None)
    named = [arg.arg for arg in node.args.args] if isinstance(node, ast.FunctionDef) else []
    named += [f"argument {i}" for i in range(len(named), len(args))]
    return [f"{name} {_shape(value)}" for name, value in [*zip(named, args, strict=False), *kwargs.items()]]


def _shape(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        return f"{list(value.shape)} {str(value.dtype).removeprefix('torch.')}"
    if hasattr(value, "_fields"):
        return f"{type(value).__name__}({', '.join(f'{name} {list(part.shape)}' for name, part in zip(value._fields, value, strict=True))})"
    if hasattr(value, "width"):
        return f"{list(value.x.shape)} in tiles of {value.width}"
    return str(value)[:60]
