"""What the answer is: from the cells that ran, or from one file, to one self-contained text. Pure functions on text.

The answer is the exercise's last executed top-level definition and, transitively, the last executed top-level def, class,
import or assignment that binds each name it uses. Other statements are dropped. A name bound in any other way (a loop,
`+=`, `from x import *`, a % command) cannot be followed: `AnswerError` asks for it in a plain statement. A name that nothing
binds and that is another exercise's is taken from course_lib.earlier.

Knows nothing of IPython, files or grading.
"""

import ast
import builtins
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence

from course_lib.grading.statements import DEFS, Cell, Statement, definition, executed, future_flags, is_future, last_bindings, lines_of, names
from course_lib.source import normalised

__all__ = ["AnswerError", "Cell", "build", "defines", "from_file", "is_stub", "require_python", "syntax_sentence"]

# IPython puts these into builtins; the process that runs the answer does not have them.
_BUILTINS = frozenset(dir(builtins)) - {"get_ipython", "display", "__IPYTHON__"}
_DISPLAY = "def display(*objects, **_):  # there is no notebook where answers are graded\n    print(*objects)"


class AnswerError(ValueError):
    """The text of the answer cannot be put together; the message says what to write where. `id`: syntax, name or missing."""

    def __init__(self, id: str, message: str):
        super().__init__(message)
        self.id = id


def build(name: str, cells: Sequence[Cell], namespace: Iterable[str] = (), stubs: Mapping[str, str] | None = None, place: str = "this cell") -> str:
    """The answer text of exercise `name`.

    namespace: the names that exist where the cells ran, to tell a name that came another way from one that is missing.
    stubs: {exercise: its stub}: a helper that is still another exercise's stub, or stands nowhere, comes from course_lib.earlier instead.
    place: where the reader should write a name that cannot be followed.
    """
    statements = list(executed(cells))
    flags = future_flags(statements)
    last = last_bindings(statements)
    own = definition(name, statements)
    if own is None:
        raise AnswerError("missing", _missing(name, last.get(name), place))
    last[name] = own
    needed, texts = _needed(name, own, statements, last, frozenset(namespace), stubs or {}, place, flags)
    return _text(_ordered(needed, last, flags), texts, [s.text for s in statements if is_future(s.node)])


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
    rows = lines_of(text)
    number = error.lineno or 1
    line = rows[number - 1] if 0 < number <= len(rows) else ""
    mark = " " * max(0, (error.offset or 1) - 1 - (len(line) - len(line.lstrip()))) + "^"
    return f"{where}, line {number} is not valid Python: {error.msg}.\n    {line.strip()}\n    {mark}"


def defines(name: str, cells: Iterable[Cell]) -> bool:
    """Whether an executed top-level statement of these cells defines the exercise (an import does not count)."""
    return definition(name, list(executed(cells))) is not None


def is_stub(name: str, text: str, stub: str) -> bool:
    """Whether every definition of the stub stands in the text as it was given: nothing has been written yet."""
    given, written = _definitions(stub), _definitions(text)
    return name in written and all(written.get(key, value) == value for key, value in given.items())


def _definitions(text: str) -> dict[str, str]:
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError):
        return {}
    return {node.name: normalised(ast.unparse(node)) for node in tree.body if isinstance(node, DEFS)}


# ---------------------------------------------------------------- names


def _needed(
    name: str,
    own: Statement,
    statements: list[Statement],
    last: dict[str, Statement],
    namespace: frozenset[str],
    stubs: Mapping[str, str],
    place: str,
    flags: int,
) -> tuple[list[Statement], dict[int, str]]:
    """Every statement of the answer, and the texts that replace a statement's own (by its order; below 0: texts that come first)."""
    stars = [s.how for s in statements if s.how.endswith("import *")]
    plain_imports = [s for s in statements if isinstance(s.node, ast.Import)]
    found: dict[int, Statement] = {own.order: own}
    texts: dict[int, str] = {}
    borrowed: set[str] = set()
    queue = [own]
    while queue:
        for used in sorted(set().union(*names(queue.pop(0), flags))):
            if used in stubs and used != name and used not in last and used not in namespace and not stars:
                borrowed.add(used)
                continue
            for statement in _binders(used, last, plain_imports, lambda used=used: _unbound(name, used, namespace, stars, place), name, place):
                if statement.order in found:
                    continue
                found[statement.order] = statement
                if statement.how == "def" and used in stubs and used != name and is_stub(used, statement.text, stubs[used]):
                    texts[statement.order] = f"from course_lib.earlier import {used}"
                else:
                    queue.append(statement)
    if "display" not in last and any("display" in set().union(*names(s, flags)) for s in found.values()):
        texts[-1] = _DISPLAY
    if borrowed:
        texts[-2] = "\n".join(f"from course_lib.earlier import {used}" for used in sorted(borrowed))
    return list(found.values()), texts


def _binders(
    used: str, last: dict[str, Statement], plain_imports: list[Statement], unbound: Callable[[], None], name: str, place: str
) -> list[Statement]:
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


def _missing(name: str, bound: Statement | None, place: str) -> str:
    if bound is not None and bound.how == "import":
        return f"{name} comes by an import here: the answer is your own `def {name}(...)`. Write it in {place} and check again."
    if bound is not None and not bound.followed:
        return f"{name} {bound.how}: the answer is a top-level `def {name}(...)`. Write it so in {place} and check again."
    return f"there is no top-level `def {name}(...)` in {place}."


# ---------------------------------------------------------------- order and text


def _ordered(needed: list[Statement], last: dict[str, Statement], flags: int) -> list[Statement]:
    """Imports first, then the order of execution, with whatever a statement needs while it runs moved before it."""
    by_order = {s.order: s for s in needed}

    def bound_by(names: set[str]) -> set[int]:
        return {last[n].order for n in names if n in last and last[n].order in by_order}

    now, both = {}, {}
    for s in needed:
        at_once, later = names(s, flags)
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


def _text(ordered: list[Statement], texts: dict[int, str], futures: list[str]) -> str:
    """The statements as one text: imports and constants close together, definitions set apart."""
    parts = [(text, False) for text in dict.fromkeys(futures)]
    parts += [(texts[order], order == -1) for order in (-2, -1) if order in texts]
    parts += [(texts.get(s.order, s.text), s.how == "def" and s.order not in texts) for s in ordered if not is_future(s.node)]
    out = ""
    was_definition = False
    for text, is_definition in parts:
        gap = "" if not out else "\n\n\n" if is_definition or was_definition else "\n"
        out += gap + text.strip("\n")
        was_definition = is_definition
    return out + "\n"
