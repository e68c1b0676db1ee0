"""What the panel shows of a failed call: shapes, seed, expected and got beside each other, the answer's own traceback."""

import ast
from typing import Any

import torch

from course_lib.grading import compare, reconstruct, where
from course_lib.grading.sentences import Outcome
from course_lib.source import Exercise

_NUMBERS, _WIDE = 8, 76  # numbers of a row, characters of a line of them


def of(outcome: Outcome, exercise: Exercise, seed: int, harness: str = "") -> dict:
    """Details of one outcome, all plain data. place: the index of the first wrong number; the rows are those around it."""
    arguments = named(exercise, outcome.probe.args, outcome.probe.kwargs, harness)
    details: dict[str, Any] = {"probe": outcome.name, "shapes": shapes(arguments)}
    details["input"] = the_input(exercise, arguments, outcome.probe.layout, seed)
    if outcome.reply is not None and outcome.reply.failure:
        details["traceback"] = traceback(outcome.reply.failure)
    if outcome.wrong_values:
        finding, target = outcome.findings[0], outcome.targets[outcome.findings[0].leaf]
        details.update(leaf=target.name, multiple=finding.multiple, expected=finding.expected, got=finding.got)
        if finding.wrong is not None:
            at = tuple(int(n) for n in finding.wrong.nonzero()[0])
            got = compare.leaves(outcome.reply.result)[finding.leaf]
            expected_row, got_row = _rows(target.reference, got, finding.wrong, at)
            details.update(place=list(at), expected_row=expected_row, got_row=got_row)
    return details


def traceback(failure: dict) -> str:
    """The answer's own frames, as Python prints them."""
    lines = [part for place, source in failure["frames"] for part in (f"  {place or 'outside every definition'}", f"    {source}")]
    return "\n".join([*lines, f"{failure['type']}: {failure['message']}"])


def _rows(expected: torch.Tensor, got: torch.Tensor, wrong: torch.Tensor, at: tuple[int, ...]) -> tuple[list[str], list[str]]:
    """Up to eight numbers of the row in which the first wrong place lies, expected and got, with the digits that tell them apart."""
    pairs = [_row(x, at) for x in (expected, got)]
    digits = max((where.digits_apart(*pair) for pair, bad in zip(zip(*pairs, strict=True), _row(wrong, at), strict=True) if bad), default=0)
    shown = [[compare.number(value, digits) for value in row] for row in pairs]
    room = max(1, _WIDE // (2 + max(len(word) for row in shown for word in row)))
    here = min(at[-1] - _start(expected, at), len(shown[0]) - 1) if at else 0
    first = max(0, min(here - room // 2, len(shown[0]) - room))
    return shown[0][first : first + room], shown[1][first : first + room]


def _start(x: torch.Tensor, at: tuple[int, ...]) -> int:
    return max(0, min(at[-1] - 3, x.shape[-1] - _NUMBERS)) if at else 0


def _row(x: torch.Tensor, at: tuple[int, ...]) -> list:
    row = x[at[:-1]] if at else x.reshape(1)
    return row[_start(x, at) :][:_NUMBERS].tolist()


def shapes(arguments: list[tuple[str, Any]]) -> list[str]:
    """The arguments of a call in words: "x [2, 3] float32"."""
    return [f"{name} {_shape(value)}" for name, value in arguments]


def the_input(exercise: Exercise, arguments: list[tuple[str, Any]], layout: str, seed: int) -> str:
    """The call as Python to paste, where it is small; else where the numbers come from."""
    text = reconstruct.call(exercise.name, arguments, layout)
    if text is not None:
        return text
    return f"Too many numbers to show here: {', '.join(shapes(arguments))}.\n`check({exercise.name}, seed={seed})` draws the very same ones again."


def named(exercise: Exercise, args: tuple, kwargs: dict, harness: str = "") -> list[tuple[str, Any]]:
    """The arguments with the names that the exercise gives them; a class is called by its check's harness, whose names these are."""
    names = _parameters(exercise.solution, exercise.name) or _parameters(harness, "run")[1:]  # the first one is the class
    names += [f"argument {i}" for i in range(len(names), len(args))]
    return [*zip(names, args, strict=False), *kwargs.items()]


def _parameters(text: str, name: str) -> list[str]:
    """The names of the parameters of a top-level function; none where there is no such function."""
    node = next((n for n in ast.parse(text).body if isinstance(n, ast.FunctionDef) and n.name == name), None)
    return [arg.arg for arg in node.args.args] if node else []


def _shape(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        return f"{list(value.shape)} {str(value.dtype).removeprefix('torch.')}"
    if hasattr(value, "_fields"):
        return f"{type(value).__name__}({', '.join(f'{name} {list(part.shape)}' for name, part in zip(value._fields, value, strict=True))})"
    if hasattr(value, "width"):
        return f"{list(value.x.shape)} in tiles of {value.width}"
    return str(value)[:60]
