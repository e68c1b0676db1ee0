"""What a learner typed as a guess, as a number: `12`, `1,024`, `1e6`, or a little arithmetic such as `4096*64*4/2**20`.

Nothing that is typed is executed: the tree of the expression is walked, and only numbers, + - * / **, exp, log, sqrt, pi and
e have a meaning. Knows nothing of questions or files.
"""

import ast
import math
import operator
import re
from collections.abc import Sequence

from course_lib.words import number

_OPERATIONS = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
    ast.UAdd: operator.pos,
    ast.USub: operator.neg,
}
_FUNCTIONS = {"exp": math.exp, "log": math.log, "log2": math.log2, "log10": math.log10, "sqrt": math.sqrt}
_CONSTANTS = {"pi": math.pi, "e": math.e}
_LONGEST, _MOST_PARTS = 200, 60


class BadGuess(ValueError):
    """A guess that is none; the message says what to give instead."""


def read_guess(guess, choices: Sequence[str] | None = None, unit: str = "", least: float | None = 0):
    """A guess as a number (or as one of the choices); BadGuess in a sentence otherwise."""
    if choices:
        match = [choice for choice in choices if str(guess).strip().lower() == choice.lower()]
        if not match:
            raise BadGuess(
                f"Choose one of: {'; '.join(choices)}."
                if str(guess).strip() in ("", "None")
                else f"{str(guess)[:40]!r} is not one of the choices: {'; '.join(choices)}."
            )
        return match[0]
    text = _as_typed(guess)
    text = text[: -len(unit)].strip() if unit and text.lower().endswith(unit.lower()) else text
    if not text:
        raise BadGuess("The box is empty: type a number, then press Save. A rough guess is worth more than none.")
    value = _number(text, unit)
    if isinstance(guess, bool) or not math.isfinite(value):
        raise BadGuess(f"{text[:40]!r} cannot be compared with a measurement: type a finite number such as 12, 0.5 or 1e6.")
    if least is not None and value < least:
        raise BadGuess(f"{number(value)} cannot be: the answer is at least {number(least)}.")
    return int(value) if value == int(value) and abs(value) < 2**53 else value


def _as_typed(guess: object) -> str:
    """The text of a guess with the signs that keyboards and phones put in place of Python's."""
    text = str(guess).strip()
    for sign, meant in (("\u2212", "-"), ("\u00d7", "*"), ("\u00b7", "*"), ("\u00f7", "/"), ("^", "**")):
        text = text.replace(sign, meant)
    return text


def _number(text: str, unit: str) -> float:
    """A plain number with any separators, else arithmetic; BadGuess."""
    try:
        return float(text.replace(",", "").replace("_", "").replace(" ", ""))
    except ValueError:
        pass
    try:
        return arithmetic(re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", text))
    except OverflowError:
        raise BadGuess(f"{text[:40]!r} is too large to be compared with a measurement.") from None
    except ZeroDivisionError:
        raise BadGuess(f"{text[:40]!r} divides by 0.") from None
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        wanted = f"type one such as 12, 0.5 or 1e6, or arithmetic such as 2**7 or exp(-2){f', in {unit}' if unit else ''}"
        raise BadGuess(f"{text[:40]!r} is not a number: {wanted}.") from None


def arithmetic(text: str) -> float:
    """The value of a small expression. ValueError (or SyntaxError) for anything else; OverflowError, ZeroDivisionError as in Python."""
    if len(text) > _LONGEST:
        raise ValueError("too long")
    tree = ast.parse(text.strip(), mode="eval").body
    if sum(1 for _ in ast.walk(tree)) > _MOST_PARTS:
        raise ValueError("too many parts")
    return _value(tree)


def _value(node: ast.expr) -> float:
    """Floats throughout: a power cannot grow past what a float holds."""
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        return float(node.value)
    if isinstance(node, ast.Name) and node.id in _CONSTANTS:
        return _CONSTANTS[node.id]
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATIONS:
        value = _OPERATIONS[type(node.op)](_value(node.left), _value(node.right))
    elif isinstance(node, ast.UnaryOp) and type(node.op) in _OPERATIONS:
        value = _OPERATIONS[type(node.op)](_value(node.operand))
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name | ast.Attribute) and not node.keywords:
        value = _FUNCTIONS[_function(node.func)](*map(_value, node.args))
    else:
        raise ValueError("not arithmetic")
    if isinstance(value, complex):
        raise ValueError("not a real number")
    return value


def _function(node: ast.Name | ast.Attribute) -> str:
    """`exp`, and `math.exp` too. ValueError for a function that has no meaning here."""
    name = node.id if isinstance(node, ast.Name) else node.attr if getattr(node.value, "id", "") in ("math", "torch", "np", "numpy") else ""
    if name not in _FUNCTIONS:
        raise ValueError("an unknown function")
    return name
