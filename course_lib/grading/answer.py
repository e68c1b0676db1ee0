"""What the answer is: from the cells that ran, or from one file, to one self-contained text. Pure functions on text.

The answer is the exercise's last executed top-level definition and, transitively, the last executed top-level def, class,
import or assignment that binds each name it uses. Other statements are dropped. A name bound in any other way (a loop,
`+=`, `from x import *`, a % command) cannot be followed: `AnswerError` asks for it in a plain statement.

Knows nothing of IPython, files or grading.
"""

import __future__

import ast
import builtins
import dis
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import CodeType

from course_lib.source import SECTION, normalised

# IPython puts these into builtins; the process that runs the answer does not have them.
_BUILTINS = frozenset(dir(builtins)) - {"get_ipython", "display", "__IPYTHON__"}
_MODULE_NAMES = frozenset(
    {"__name__", "__file__", "__doc__", "__spec__", "__loader__", "__package__", "__builtins__", "__annotations__", "__module__"}
)
_DISPLAY = "def display(*objects, **_):  # there is no notebook where answers are graded\n    print(*objects)"


class AnswerError(ValueError):
    """The text of the answer cannot be put together; the message says what to write where. `id`: syntax, name or missing."""

    def __init__(self, id: str, message: str):
        super().__init__(message)
        self.id = id


@dataclass(frozen=True)
class Cell:
    """One executed text. stopped_at: the line of the first statement that did not complete; None where all of it ran."""

    text: str
    stopped_at: int | None = None


@dataclass(frozen=True)
class _Statement:
    """One top-level statement that ran."""

    order: int
    node: ast.stmt
    text: str
    binds: tuple[str, ...]
    how: str  # "def", "import", "assign": can be followed; anything else says in words how the names got bound

    @property
    def followed(self) -> bool:
        return self.how in ("def", "import", "assign")


def build(name: str, cells: Sequence[Cell], namespace: Iterable[str] = (), stubs: Mapping[str, str] | None = None, place: str = "this cell") -> str:
    """The answer text of exercise `name`.

    namespace: the names that exist where the cells ran, to tell a name that came another way from one that is missing.
    stubs: {exercise: its stub}: a helper that is still another exercise's stub is taken from course_lib.earlier instead.
    place: where the reader should write a name that cannot be followed.
    """
    statements = list(_executed(cells))
    flags = _future_flags(statements)
    last = _last_bindings(statements)
    own = _definition(name, statements)
    if own is None:
        raise AnswerError("missing", _missing(name, last.get(name), place))
    last[name] = own
    needed, texts = _needed(name, own, statements, last, frozenset(namespace), stubs or {}, place, flags)
    return _text(_ordered(needed, last, flags), texts, [s.text for s in statements if _is_future(s.node)])


def from_file(name: str, text: str, where: str, stubs: Mapping[str, str] | None = None) -> str:
    """The answer text of exercise `name` out of one file's text. `where` names the file in messages."""
    require_python(text, where)
    return build(name, [Cell(text)], stubs=stubs, place=where)


def require_python(text: str, where: str) -> None:
    """AnswerError with the line shown, where the text is no Python."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an odd escape in a string is no reason to speak here
            compile(ast.parse(text), where, "exec", dont_inherit=True)  # the parser lets a `return` outside a function pass
    except SyntaxError as error:
        raise AnswerError("syntax", syntax_sentence(error, text, where)) from None
    except ValueError:  # a NUL byte
        raise AnswerError("syntax", f"{where} is not Python text: it holds a zero byte.") from None
    except (RecursionError, MemoryError):
        raise AnswerError("syntax", f"{where} is nested too deeply for Python to read.") from None


def syntax_sentence(error: SyntaxError, text: str, where: str) -> str:
    """Where the text stops being Python, with the line and a mark under the place."""
    lines = _lines(text)
    number = error.lineno or 1
    line = lines[number - 1] if 0 < number <= len(lines) else ""
    mark = " " * max(0, (error.offset or 1) - 1 - (len(line) - len(line.lstrip()))) + "^"
    return f"{where}, line {number} is not valid Python: {error.msg}.\n    {line.strip()}\n    {mark}"


def defines(name: str, cells: Iterable[Cell]) -> bool:
    """Whether an executed top-level statement of these cells defines the exercise (an import does not count)."""
    return _definition(name, list(_executed(cells))) is not None


def is_stub(name: str, text: str, stub: str) -> bool:
    """Whether every definition of the stub stands in the text as it was given: nothing has been written yet."""
    given, written = _definitions(stub), _definitions(text)
    return name in written and all(written.get(key, value) == value for key, value in given.items())


def _definitions(text: str) -> dict[str, str]:
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError):
        return {}
    return {node.name: normalised(ast.unparse(node)) for node in tree.body if isinstance(node, _DEFS)}


# ---------------------------------------------------------------- statements

_DEFS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
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


def _lines(text: str) -> list[str]:
    """The lines as Python counts them (str.splitlines also splits at form feeds)."""
    return text.replace("\r\n", "\n").replace("\r", "\n").split("\n")


def _executed(cells: Iterable[Cell]) -> Iterator[_Statement]:
    order = 0
    for cell in cells:
        try:
            body = ast.parse(cell.text).body
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            continue  # it cannot have run
        lines = _lines(cell.text)
        for at, node in enumerate(body):
            if cell.stopped_at is not None and node.end_lineno >= cell.stopped_at:
                break
            binds, how = _binding(node)
            yield _Statement(order, node, _source(cell.text, lines, body, at), binds, how)
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
    if isinstance(node, _DEFS):
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
    if isinstance(node, _DEFS):
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


def _is_future(node: ast.stmt) -> bool:
    return isinstance(node, ast.ImportFrom) and node.module == "__future__"


def _future_flags(statements: list[_Statement]) -> int:
    names = [alias.name for s in statements if _is_future(s.node) for alias in s.node.names]
    flags = 0
    for name in names:
        flags |= getattr(getattr(__future__, name, None), "compiler_flag", 0)
    return flags


def _last_bindings(statements: list[_Statement]) -> dict[str, _Statement]:
    return {name: statement for statement in statements for name in statement.binds}


def _definition(name: str, statements: list[_Statement]) -> _Statement | None:
    """The last def or class of that name; where there is none, the last assignment (a lambda is an answer too)."""
    for kind in ("def", "assign"):
        found = [s for s in statements if s.how == kind and name in s.binds]
        if found:
            return found[-1]
    return None


# ---------------------------------------------------------------- names


def _names(statement: _Statement, flags: int) -> tuple[set[str], set[str]]:
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


def _needed(
    name: str,
    own: _Statement,
    statements: list[_Statement],
    last: dict[str, _Statement],
    namespace: frozenset[str],
    stubs: Mapping[str, str],
    place: str,
    flags: int,
) -> tuple[list[_Statement], dict[int, str]]:
    """Every statement of the answer, and the texts that replace a statement's own (by its order)."""
    stars = [s.how for s in statements if s.how.endswith("import *")]
    plain_imports = [s for s in statements if isinstance(s.node, ast.Import)]
    found: dict[int, _Statement] = {own.order: own}
    texts: dict[int, str] = {}
    queue = [own]
    while queue:
        for used in sorted(set().union(*_names(queue.pop(0), flags))):
            for statement in _binders(used, last, plain_imports, lambda used=used: _unbound(name, used, namespace, stars, place), name, place):
                if statement.order in found:
                    continue
                found[statement.order] = statement
                if statement.how == "def" and used in stubs and used != name and is_stub(used, statement.text, stubs[used]):
                    texts[statement.order] = f"from course_lib.earlier import {used}"
                else:
                    queue.append(statement)
    if "display" not in last and any("display" in set().union(*_names(s, flags)) for s in found.values()):
        texts[-1] = _DISPLAY
    return list(found.values()), texts


def _binders(
    used: str, last: dict[str, _Statement], plain_imports: list[_Statement], unbound: Callable[[], None], name: str, place: str
) -> list[_Statement]:
    """The statements that bind a name: one, or for `import a.b` every import of a module below `a`."""
    statement = last.get(used)
    if used == "get_ipython":
        raise AnswerError(
            "name", f"{name} uses a % or ! command of the notebook, and the grader runs plain Python. Write that line without it and check again."
        )
    if statement is None or statement.how == "deleted":
        unbound()
        return []
    if not statement.followed:
        raise AnswerError("name", f"{name} uses {used}, which {statement.how}. {_put(used, place)}")
    if isinstance(statement.node, ast.Import):
        return [s for s in plain_imports if used in s.binds and (s is statement or _is_dotted(s.node, used))]
    return [statement]


def _is_dotted(node: ast.Import, used: str) -> bool:
    return any(not alias.asname and alias.name.startswith(f"{used}.") for alias in node.names)


def _unbound(name: str, used: str, namespace: frozenset[str], stars: list[str], place: str) -> None:
    """A name that no statement binds: builtins and names found nowhere are left as they are."""
    if used in _BUILTINS or used == "display" or (used not in namespace and not stars):
        return
    if stars:
        raise AnswerError("name", f"{name} uses {used}, which may come from `{stars[-1]}`. Import {used} by its name in {place} and check again.")
    raise AnswerError(
        "name", f"{name} uses {used}, and the grader cannot see where it was made (a % command, or another function). {_put(used, place)}"
    )


def _put(used: str, place: str) -> str:
    return f"Put {used} in {place}, as a plain assignment, def or import, and check again."


def _missing(name: str, bound: _Statement | None, place: str) -> str:
    if bound is not None and bound.how == "import":
        return f"{name} comes by an import here: the answer is your own `def {name}(...)`. Write it in {place} and check again."
    if bound is not None and not bound.followed:
        return f"{name} {bound.how}: the answer is a top-level `def {name}(...)`. Write it so in {place} and check again."
    return f"there is no top-level `def {name}(...)` in {place}."


# ---------------------------------------------------------------- order and text


def _ordered(needed: list[_Statement], last: dict[str, _Statement], flags: int) -> list[_Statement]:
    """Imports first, then the order of execution, with whatever a statement needs while it runs moved before it."""
    by_order = {s.order: s for s in needed}

    def bound_by(names: set[str]) -> set[int]:
        return {last[n].order for n in names if n in last and last[n].order in by_order}

    now, both = {}, {}
    for s in needed:
        at_once, later = _names(s, flags)
        now[s.order], both[s.order] = bound_by(at_once), bound_by(at_once | later)
    for s in needed:  # `a, b = 1, 2` and further down `b = 3`: the later one stays the later one
        for order in bound_by(set(s.binds)) - {s.order}:
            now[order].add(s.order)
            both[order].add(s.order)
    done: list[int] = []

    def emit(order: int, open_: frozenset[int]) -> None:
        if order in done or order in open_:
            return
        for first in sorted(_closure(now[order], both)):
            emit(first, open_ | {order})
        done.append(order)

    for s in sorted(needed, key=lambda s: (s.how != "import", s.order)):
        emit(s.order, frozenset())
    return [by_order[order] for order in done]


def _closure(start: set[int], edges: dict[int, set[int]]) -> set[int]:
    found, queue = set(), list(start)
    while queue:
        order = queue.pop()
        if order not in found:
            found.add(order)
            queue.extend(edges[order])
    return found


def _text(ordered: list[_Statement], texts: dict[int, str], futures: list[str]) -> str:
    """The statements as one text: imports and constants close together, definitions set apart."""
    parts = [(text, False) for text in dict.fromkeys(futures)]
    parts += [(texts[-1], True)] if -1 in texts else []
    parts += [(texts.get(s.order, s.text), s.how == "def" and s.order not in texts) for s in ordered if not _is_future(s.node)]
    out = ""
    was_definition = False
    for text, is_definition in parts:
        gap = "" if not out else "\n\n\n" if is_definition or was_definition else "\n"
        out += gap + text.strip("\n")
        was_definition = is_definition
    return out + "\n"
