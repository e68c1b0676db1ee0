"""Which line a learner means: counted from their own `def`, not from the top of the text that is put together for grading.

Knows nothing of answers, calls or verdicts.
"""

import ast
import re
from functools import lru_cache

_HEADER = re.compile(r"(?:async\s+)?(?:def|class)\s+(\w+)")


def place(text: str, number: int) -> str:
    """`line 3 of merge_states` for a line of the text; "" outside every top-level definition. The `def` is line 1; decorators do not count."""
    for name, first, last in _definitions(text):
        if first <= number <= last:
            return f"line {number - first + 1} of {name}"
    return ""


@lru_cache(maxsize=64)
def _definitions(text: str) -> tuple[tuple[str, int, int], ...]:
    try:
        body = ast.parse(text).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return tuple(_headers(text))
    kinds = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
    return tuple((node.name, node.lineno, node.end_lineno) for node in body if isinstance(node, kinds))


def _headers(text: str) -> list[tuple[str, int, int]]:
    """The same for a text that is no Python: from a header at the left margin to the line before the next statement there."""
    found: list[tuple[str, int, int]] = []
    lines = text.split("\n")
    for number, line in enumerate(lines, 1):
        if found and line[:1] not in ("", " ", "\t", ")", "]", "}", "#") and found[-1][2] == len(lines):
            found[-1] = (*found[-1][:2], number - 1)
        if header := _HEADER.match(line):
            found.append((header[1], number, len(lines)))
    return found
