"""The statements of executed cells: which ran, what text each has, which names it binds and which it needs. Pure functions on text.

Knows nothing of exercises, IPython or files.
"""

import __future__

import ast
import dis
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from types import CodeType

from course_lib.source import SECTION

_MODULE_NAMES = frozenset(
    {"__name__", "__file__", "__doc__", "__spec__", "__loader__", "__package__", "__builtins__", "__annotations__", "__module__"}
)


@dataclass(frozen=True)
class Cell:
    """One executed text. stopped_at: the line of the first statement that did not complete; None where all of it ran."""

    text: str
    stopped_at: int | None = None


@dataclass(frozen=True)
class Statement:
    """One top-level statement that ran."""

    order: int
    node: ast.stmt
    text: str
    binds: tuple[str, ...]
    how: str  # "def", "import", "assign": can be followed; anything else says in words how the names got bound

    @property
    def followed(self) -> bool:
        return self.how in ("def", "import", "assign")


DEFS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
_ASSIGNS = (ast.Assign, ast.AnnAssign, *([ast.TypeAlias] if hasattr(ast, "TypeAlias") else []))
_WORDS = {
    ast.For: "is bound by a for loop",
    ast.AsyncFor: "is bound by a for loop",
    ast.While: "is bound inside a while loop",
    ast.With: "is bound by a with statement",
    ast.AsyncWith: "is bound by a with statement",
    ast.AugAssign: "is changed in place (an assignment such as +=)",
    ast.If: "is bound inside an if",
    ast.Try: "is bound inside a try",
}


def lines_of(text: str) -> list[str]:
    """The lines as Python counts them (str.splitlines also splits at form feeds)."""
    return text.replace("\r\n", "\n").replace("\r", "\n").split("\n")


def executed(cells: Iterable[Cell]) -> Iterator[Statement]:
    order = 0
    for cell in cells:
        try:
            body = ast.parse(cell.text).body
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            continue  # it cannot have run
        lines = lines_of(cell.text)
        for at, node in enumerate(body):
            if cell.stopped_at is not None and node.end_lineno >= cell.stopped_at:
                break
            binds, how = _binding(node)
            yield Statement(order, node, _source(cell.text, lines, body, at), binds, how)
            order += 1


def _source(text: str, lines: list[str], body: list[ast.stmt], at: int) -> str:
    """The statement as written, with its decorators, the comments right above it and those that end its body."""
    node = body[at]
    first = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", []))])
    end = node.end_lineno
    shares_above = at > 0 and body[at - 1].end_lineno >= first
    shares_below = at + 1 < len(body) and body[at + 1].lineno <= end
    if shares_above or shares_below:  # a = 1; b = 2
        return ast.get_source_segment(text, node) or ast.unparse(node)
    while first > 1 and _is_comment(lines[first - 2]):
        first -= 1
    while end < len(lines) and lines[end].startswith((" ", "\t")) and lines[end].strip().startswith("#"):
        end += 1
    return "\n".join(lines[first - 1 : end])


def _is_comment(line: str) -> bool:
    return line.startswith("#") and not line.startswith(("# %%", "#!", "# -*-", "# hint:")) and not SECTION.match(line)


def _binding(node: ast.stmt) -> tuple[tuple[str, ...], str]:
    """The names a top-level statement binds in its module, and how."""
    if isinstance(node, DEFS):
        return (node.name,), "def"
    if isinstance(node, ast.Import):
        return tuple(alias.asname or alias.name.split(".")[0] for alias in node.names), "import"
    if isinstance(node, ast.ImportFrom):
        if any(alias.name == "*" for alias in node.names):
            return (), f"from {'.' * node.level}{node.module or ''} import *"
        return tuple(alias.asname or alias.name for alias in node.names), "import"
    if isinstance(node, ast.Delete):
        return tuple(t.id for t in node.targets if isinstance(t, ast.Name)), "deleted"
    names = tuple(dict.fromkeys(_stores(node)))
    if isinstance(node, _ASSIGNS):
        if isinstance(node, ast.AnnAssign) and node.value is None:
            return (), "assign"
        if any(isinstance(n, ast.Await) for n in ast.walk(node)):
            return names, "needs a notebook to be computed (await)"
        if _uses_ipython(node):
            return names, "is made by a % or ! command of the notebook"
        if not any(isinstance(n, ast.NamedExpr) for n in ast.walk(node)):
            return names, "assign"
    return names, next((words for kind, words in _WORDS.items() if isinstance(node, kind)), "is not bound by a plain statement")


def _uses_ipython(node: ast.AST) -> bool:
    return any(isinstance(n, ast.Name) and n.id == "get_ipython" for n in ast.walk(node))


def _stores(node: ast.AST) -> Iterator[str]:
    """The names that the statement binds at module level, however deep it nests (functions have names of their own)."""
    if isinstance(node, DEFS):
        yield node.name
        return
    if isinstance(node, ast.Lambda):
        return
    if isinstance(node, ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp):
        yield from (n.target.id for n in ast.walk(node) if isinstance(n, ast.NamedExpr))
        return
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
        yield node.id
    elif isinstance(node, ast.alias) and node.name != "*":
        yield node.asname or node.name.split(".")[0]
    elif isinstance(node, ast.MatchAs | ast.MatchStar) and node.name:
        yield node.name
    elif isinstance(node, ast.MatchMapping) and node.rest:
        yield node.rest
    for child in ast.iter_child_nodes(node):
        yield from _stores(child)


def is_future(node: ast.stmt) -> bool:
    return isinstance(node, ast.ImportFrom) and node.module == "__future__"


def future_flags(statements: list[Statement]) -> int:
    names = [alias.name for s in statements if is_future(s.node) for alias in s.node.names]
    flags = 0
    for name in names:
        flags |= getattr(getattr(__future__, name, None), "compiler_flag", 0)
    return flags


def last_bindings(statements: list[Statement]) -> dict[str, Statement]:
    return {name: statement for statement in statements for name in statement.binds}


def definition(name: str, statements: list[Statement]) -> Statement | None:
    """The last def or class of that name; where there is none, the last assignment (a lambda is an answer too)."""
    for kind in ("def", "assign"):
        found = [s for s in statements if s.how == kind and name in s.binds]
        if found:
            return found[-1]
    return None


def names(statement: Statement, flags: int) -> tuple[set[str], set[str]]:
    """(names needed when the statement runs, names needed later, when the function is called), from the code object."""
    try:
        code = compile(ast.Module([statement.node], []), "<answer>", "exec", flags=flags, dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError):
        return set(), set()
    now, later = set(), set()
    is_function = isinstance(statement.node, ast.FunctionDef | ast.AsyncFunctionDef)
    for depth, name in _loads(code):
        (later if is_function and depth else now).add(name)
    ignored = _MODULE_NAMES | (set(statement.binds) if statement.how == "def" else set())
    return now - ignored, later - now - ignored


def _loads(code: CodeType, depth: int = 0) -> Iterator[tuple[int, str]]:
    """Every global name read by a code object and those nested in it. A name a class body has already bound is its own."""
    stored: set[str] = set()
    for instruction in dis.get_instructions(code):
        if instruction.opname == "STORE_NAME":
            stored.add(instruction.argval)
        elif instruction.opname in ("LOAD_GLOBAL", "LOAD_FROM_DICT_OR_GLOBALS", "DELETE_GLOBAL"):
            yield depth, instruction.argval
        elif instruction.opname == "LOAD_NAME" and (depth == 0 or instruction.argval not in stored):
            yield depth, instruction.argval
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _loads(constant, depth + 1)
