"""Text in, text out: how an exercise is written down, and how the answer book is.

Knows nothing of files, grading or notebooks. All edits are textual (`ast.unparse` would drop the comments),
and every edit checks that it found what it expected.

The source of an exercise, in `solutions/chNN_topic.py`:

    # %% exercise merge_states | core | 15 minutes | 3 points | torch
    # hint: a question that points at the idea
    # hint: the idea in words
    # hint: the shape of the line
    def merge_states(a, b):
        \"\"\"The statement.\"\"\"
        # solution
        ...                      what the learner writes
        # instead                (only where the stub gives something in its place: a bug hunt, a scaffold)
        #| broken line
        # end

Everything before the first `# %%` is the chapter's preamble: its imports.
"""

import ast
import hashlib
import io
import re
import textwrap
import tokenize
from dataclasses import dataclass

HEADER = re.compile(
    r"^# %% exercise (?P<name>\w+) \| (?P<level>core|more) \| (?P<minutes>\d+) minutes \| (?P<points>\d+) points? \| (?P<kind>torch|triton|model|python)$"
)
RECORD = "# as generated:"  # the last line of a generated file of stubs: the digest of each section
SECTION = re.compile(r"^# ==== (?P<name>\w+) ====.*$")


class SourceError(ValueError):
    """A solutions file or an answer book that does not follow the format; the message says where."""


@dataclass(frozen=True)
class Exercise:
    """One exercise as written down. `kind`: torch, triton (a kernel with its host), model (a calculation), python."""

    name: str
    chapter: int
    level: str
    minutes: int
    points: int
    kind: str
    hints: tuple[str, ...]
    preamble: str
    block: str  # header, hints and code, markers included

    @property
    def solution(self) -> str:
        """The solved code, markers removed: what `solution()` shows."""
        return _without_comments_of_format(self.block, keep="solution")

    @property
    def opening(self) -> str:
        """How its answer begins: `def name(...)`, or `class name` with its bases."""
        node = next(n for n in ast.parse(self.solution).body if getattr(n, "name", None) == self.name)
        if not isinstance(node, ast.ClassDef):
            return f"def {self.name}(...)"
        return f"class {self.name}" + (f"({', '.join(map(ast.unparse, node.bases))})" if node.bases else "")

    @property
    def stub(self) -> str:
        """The code as the learner first sees it."""
        return _with_raises(_without_comments_of_format(self.block, keep="stub"), self)

    @property
    def statement(self) -> str:
        """The docstring of the function or class: the contract."""
        for node in ast.parse(self.solution).body:
            if getattr(node, "name", None) == self.name:
                return ast.get_docstring(node) or ""
        raise SourceError(f"exercise {self.name}: its block defines no function or class of that name")


def parse_exercises(text: str, chapter: int, where: str) -> list[Exercise]:
    """The exercises of one solutions file, in order. `where` names the file in error messages."""
    lines = text.splitlines()
    starts = [i for i, line in enumerate(lines) if line.startswith("# %%")]
    preamble = "\n".join(lines[: starts[0]] if starts else lines).strip() + "\n"
    exercises = []
    for start, stop in zip(starts, [*starts[1:], len(lines)], strict=False):
        header = HEADER.match(lines[start])
        if not header:
            raise SourceError(
                f"{where}, line {start + 1}: expected '# %% exercise NAME | core | 15 minutes | 3 points | torch', found {lines[start]!r}"
            )
        block = "\n".join(lines[start:stop]).strip() + "\n"
        hints = tuple(line.removeprefix("# hint:").strip() for line in block.splitlines() if line.startswith("# hint:"))
        exercises.append(
            Exercise(header["name"], chapter, header["level"], int(header["minutes"]), int(header["points"]), header["kind"], hints, preamble, block)
        )
    return exercises


def stub_file(text: str, chapter: int, where: str) -> str:
    """The file for `exercises/`: the preamble, then every stub under its header."""
    exercises = parse_exercises(text, chapter, where)
    if not exercises:
        return text
    parts = [exercises[0].preamble] + [f"{ex.block.splitlines()[0]}\n{ex.stub}" for ex in exercises]
    return "\n\n".join(part.strip("\n") + "\n" for part in parts)


def _without_comments_of_format(block: str, keep: str) -> str:
    """Resolve the regions of a block: keep="solution" keeps what is taught, keep="stub" what is given instead."""
    out: list[str] = []
    state = "given"
    for number, line in enumerate(block.splitlines()):
        word = line.strip()
        if line.startswith(("# %%", "# hint:")):
            continue
        if word in ("# solution", "# instead", "# end"):
            expected = {"# solution": ("given",), "# instead": ("solution",), "# end": ("solution", "instead")}[word]
            if state not in expected:
                raise SourceError(f"line {number + 1} of the block: {word!r} where {state!r} is open")
            if word == "# solution" and keep == "stub":
                out.append(line.replace("# solution", "...  # yours"))
            if word == "# instead" and keep == "stub":
                out.pop()
            state = {"# solution": "solution", "# instead": "instead", "# end": "given"}[word]
            continue
        if state == "instead":
            if not word.startswith("#|"):
                raise SourceError(f"line {number + 1} of the block: between '# instead' and '# end' every line starts with '#|'")
            if keep == "stub":
                out.append((line.replace("#| ", "", 1) if "#| " in line else line.replace("#|", "", 1)).rstrip())
        elif state == "given" or keep == "solution":
            out.append(line)
    if state != "given":
        raise SourceError(f"the block ends inside an open {state!r}: '# end' is missing")
    return "\n".join(out).strip("\n") + "\n"


def _with_raises(stub: str, exercise: Exercise) -> str:
    """Put the raise first in the host function (in every method to be written, where the exercise is a class).

    Inside a kernel `...` runs silently, and an exception means different things on CPU and GPU: so kernels keep `...`.
    """
    message = f'raise NotImplementedError("{exercise.name} (chapter {exercise.chapter:02d}) is not written yet")'
    lines = stub.splitlines()
    hosts = []
    for node in ast.parse(stub).body:
        if getattr(node, "name", None) == exercise.name:
            hosts = [n for n in node.body if isinstance(n, ast.FunctionDef)] if isinstance(node, ast.ClassDef) else [node]
    if not hosts:
        raise SourceError(f"exercise {exercise.name}: its block defines no function or class of that name")
    for host in sorted(hosts, key=lambda node: -node.lineno):
        first = host.body[1] if ast.get_docstring(host) is not None and len(host.body) > 1 else host.body[0]
        if ast.get_docstring(host) is not None and len(host.body) == 1:
            raise SourceError(f"exercise {exercise.name}: {host.name} has nothing to write")
        at = first.lineno - 1
        if lines[at].strip() == "...  # yours" and first is host.body[-1]:
            lines[at] = lines[at].replace("...  # yours", message)
        elif lines[at].strip() == "...  # yours" or first.lineno != host.lineno:
            while at > host.lineno and lines[at - 1].strip().startswith("#"):  # a comment belongs to the line below it
                at -= 1
            lines.insert(at, " " * (host.col_offset + 4) + message)
    return "\n".join(lines) + "\n"


def normalised(code: str) -> str:
    """Code with comments, blank lines and docstrings ignored: two texts that differ in nothing else are the same answer.

    A text that does not parse is compared as it stands.
    """
    try:
        tree = ast.parse(textwrap.dedent(code))
    except SyntaxError:
        return code.strip()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and ast.get_docstring(node) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return ast.unparse(tree)  # not ast.dump: its text differs between Python versions


def fingerprint(code: str) -> str:
    """A short stable hash of the normalised text."""
    return hashlib.sha256(normalised(code).encode()).hexdigest()[:16]


def digest(text: str) -> str:
    """The hash by which a generated text is recognised; blank space at line ends and at both ends does not count."""
    lines = [line.rstrip() for line in text.strip().splitlines()]
    return hashlib.sha256("\n".join(lines).encode("utf-8", "replace")).hexdigest()[:12]


def recorded(text: str) -> dict[str, str]:
    """The digests that a generated file of stubs was written with: {section: digest}; empty where it carries none."""
    line = next((line for line in reversed(text.splitlines()) if line.startswith(RECORD)), "")
    return dict(re.findall(r"(\w+) ([0-9a-f]{12})(?:,|$)", line))


def comments(code: str) -> list[str]:
    """The comments of a text, for the lints."""
    return [token.string for token in tokenize.generate_tokens(io.StringIO(code).readline) if token.type == tokenize.COMMENT]


def parse_answers(text: str) -> dict[str, str]:
    """The sections of an answer book file: {exercise name: its text}. Text outside the sections is ignored here and kept on writing."""
    sections: dict[str, list[str]] = {}
    current = None
    for line in text.splitlines():
        header = SECTION.match(line)
        if header:
            current = header["name"]
            sections[current] = []
        elif current:
            sections[current].append(line)
    return {name: "\n".join(body).strip("\n") + "\n" for name, body in sections.items()}


def with_answer(text: str, name: str, answer: str, note: str = "") -> str:
    """The answer book file with this section replaced, or added at the end; everything else stays as it was."""
    lines = text.splitlines()
    header = f"# ==== {name} ===={' ' + note if note else ''}"
    section = [header, *answer.strip("\n").splitlines(), ""]
    starts = [i for i, line in enumerate(lines) if SECTION.match(line)]
    for start, stop in zip(starts, [*starts[1:], len(lines)], strict=False):
        if SECTION.match(lines[start])["name"] == name:
            return "\n".join([*lines[:start], *section, *(["" for _ in range(1)] if stop < len(lines) else []), *lines[stop:]]) + "\n"
    return "\n".join([*lines, *([""] if lines and lines[-1] else []), *section]) + "\n"
