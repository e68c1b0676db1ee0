"""The submissions of a class: which there are in a folder, what each holds, and the answer to an exercise in it.

A submission is a folder a student or a single file a student, of Python files and notebooks. Whatever is wrong with one
(a link that leads outside, a file that is no text, two different answers to one exercise) becomes a sentence about that
submission. Knows nothing of judges or reports. `read` and `answer_to` run in a process that may be lost: what students
hand in is parsed there and nowhere else.
"""

import hashlib
import json
import os
import re
import stat
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from course_lib.commands.notebook_cells import NotANotebook, check_notebook, source_of
from course_lib.source import Exercise, fingerprint

PYTHON_BYTES, NOTEBOOK_BYTES, TEXT_CHARS, MOST_FILES = 1 << 20, 64 << 20, 1 << 20, 100
SUFFIXES = (".py", ".ipynb")
_INSIDE = ("answers", "exercises", "notebooks")  # the folders of a learner's home that hold their own work


@dataclass
class Submission:
    """What one student handed in. `trouble`: why there is nothing to grade."""

    student: str
    root: Path = Path()  # links may not lead out of here
    files: list[Path] = field(default_factory=list)
    source: list[str] = field(default_factory=list)  # the entries of the folder that it came from
    trouble: tuple[str, str] | None = None  # the id of the diagnosis and its sentence
    notes: list[str] = field(default_factory=list)
    fingerprint: str = ""


@dataclass
class Text:
    """One file that was read. trouble: why it could not be; cells: the code of a notebook, None for a Python file."""

    name: str
    text: str = ""
    cells: list[str] | None = None
    trouble: tuple[str, str] | None = None


class Ambiguous(Exception):
    """Two files hold different answers to one exercise; the message names them."""


# ---------------------------------------------------------------- which submissions there are


def find(folder: Path) -> tuple[list[Submission], list[str]]:
    """The submissions of a folder by student, and the names of what is none. OSError where the folder cannot be listed."""
    found: dict[str, Submission] = {}
    left_out = []
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        if entry.name.startswith((".", "__")):
            continue
        path, is_folder = Path(entry.path), _is_folder(Path(entry.path))
        if not is_folder and path.suffix.lower() not in SUFFIXES:
            left_out.append(printable(entry.name))
            continue
        student = printable(entry.name if is_folder else path.stem)
        one = _submission(student, path, folder)
        before = found.get(student)
        if before is None:
            found[student] = one
        else:
            names = [*before.source, *one.source]
            said = f"{' and '.join(names)} are submissions of one name, {student}. Keep one of them, or give them different names."
            found[student] = Submission(student, folder, source=names, trouble=("duplicate-name", said))
    for one in found.values():
        one.fingerprint = _fingerprint(one)
    return list(found.values()), left_out


def printable(name: str) -> str:
    """A file name as text: bytes that are no UTF-8 replaced, composed and decomposed letters made one."""
    return unicodedata.normalize("NFC", os.fsencode(name).decode("utf-8", "replace"))


def _submission(student: str, path: Path, folder: Path) -> Submission:
    name = printable(path.name)
    one = Submission(student, path if _is_folder(path) else folder, source=[name])
    try:
        if _leads_outside(path, folder):
            one.trouble = ("link", f"{name} is a link that leads out of the folder of submissions. Hand in the file itself.")
        elif one.root == path:
            one.files = _files(path, one)
            if not one.files and one.trouble is None:
                one.trouble = ("no-answer", f"The folder {name} holds no .py file and no notebook.")
        else:
            one.files = [path]
    except OSError as error:
        one.trouble = ("unreadable", f"{name} cannot be read ({error.strerror or error}).")
    return one


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # links in a circle
        return False


def _leads_outside(path: Path, folder: Path) -> bool:
    try:
        return path.is_symlink() and not path.resolve(strict=False).is_relative_to(folder.resolve())
    except (OSError, RuntimeError):  # links in a circle
        return True


def _files(folder: Path, one: Submission) -> list[Path]:
    """The answer files of a student's folder: its own, and those of the folders where the course keeps a learner's work."""
    inside = folder
    for _ in range(3):  # an archive often unpacks to a folder in the folder
        entries = [path for path in sorted(inside.iterdir()) if not path.name.startswith((".", "__"))]
        if len(entries) != 1 or entries[0].is_symlink() or not entries[0].is_dir() or entries[0].name in _INSIDE:
            break
        inside = entries[0]
    places = [inside, *(inside / name for name in _INSIDE if (inside / name).is_dir() and not (inside / name).is_symlink())]
    found = [path for place in places for path in sorted(place.iterdir()) if path.suffix.lower() in SUFFIXES and not path.name.startswith(".")]
    if len(found) > MOST_FILES:
        one.trouble = ("too-many-files", f"The folder {printable(folder.name)} holds {len(found)} files of answers; {MOST_FILES} are the most.")
        return []
    return found


def _fingerprint(one: Submission) -> str:
    """A hash of everything that is graded: a submission that changes is graded again."""
    digest = hashlib.sha256(json.dumps([one.student, one.trouble, one.source]).encode())
    for path in one.files:
        why, data = _contents(path, one.root)
        digest.update(os.fsencode(path.name) + b"\0" + why.encode() + b"\0" + hashlib.sha256(data).digest())
    return digest.hexdigest()[:16]


# ---------------------------------------------------------------- what a submission holds


def _contents(path: Path, root: Path) -> tuple[str, bytes]:
    """The bytes of a file, and "" or why there are none: the sentence's end. Never waits on a pipe, never follows a link outside."""
    try:
        if _leads_outside(path, root):
            return "is a link that leads out of the submission. Hand in the file itself.", b""
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
        with os.fdopen(handle, "rb") as file:
            known = os.fstat(handle)
            most = NOTEBOOK_BYTES if path.suffix.lower() == ".ipynb" else PYTHON_BYTES
            if not stat.S_ISREG(known.st_mode):
                return "is no regular file. Hand in a .py file or a notebook.", b""
            if known.st_size > most:
                return f"has {known.st_size / 2**20:,.1f} MiB; {most >> 20} MiB are the most. Remove what is not an answer.", b""
            return "", file.read(most)
    except OSError as error:
        return f"cannot be read ({error.strerror or error}).", b""


def read(files: Iterable[Path], root: Path) -> list[Text]:
    """The texts of a submission's files, Python files first."""
    return [_read(path, root) for path in sorted(files, key=lambda path: (path.suffix.lower() != ".py", path.name))]


def _read(path: Path, root: Path) -> Text:
    found = Text(printable(path.name))
    why, data = _contents(path, root)
    if why:
        found.trouble = ("unreadable", f"{found.name} {why}")
        return found
    try:
        found.text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        found.trouble = ("not-text", f"{found.name} is not UTF-8 text. Save it as UTF-8 and hand it in again.")
        return found
    if path.suffix.lower() == ".ipynb":
        _open_notebook(found)
    return found


def _open_notebook(found: Text) -> None:
    try:
        cells = check_notebook(json.loads(found.text))["cells"]
        found.cells = [_plain_python(source_of(cell)) for cell in cells if cell["cell_type"] == "code"]
    except (ValueError, RecursionError) as error:
        why = str(error) if isinstance(error, NotANotebook) else "it is not a Jupyter notebook"
        found.trouble, found.cells = ("not-a-notebook", f"{found.name} cannot be read: {why}."), []
        return
    found.text = "\n\n".join(found.cells)
    if len(found.text) > TEXT_CHARS:
        found.trouble, found.cells = ("unreadable", f"{found.name} holds more than a million characters of code."), []


def _plain_python(source: str) -> str:
    """A cell as Python: % commands and ! lines become calls of get_ipython(), the body of a %%time cell stands by itself."""
    from IPython.core.inputtransformer2 import TransformerManager

    lines = source.split("\n")
    if re.match(r"%%(time|capture)\b", source):
        source = "\n".join(["", *lines[1:]])
    try:
        return TransformerManager().transform_cell(source)
    except Exception:  # a cell that cannot be read did not run
        return source


# ---------------------------------------------------------------- the answer to one exercise


def answer_to(exercise: Exercise, texts: list[Text], stubs: dict[str, str]) -> str:
    """The answer text of an exercise in these files. AnswerError where there is none, Ambiguous where there are two."""
    from course_lib.grading import answer

    built: dict[str, str] = {}  # file -> answer text
    refused: answer.AnswerError | None = None
    for text in texts:
        if text.trouble:
            if _may_hold(exercise, text) and (refused is None or refused.id == "missing"):
                refused = answer.AnswerError(*text.trouble)
            continue
        try:
            built[text.name] = _built(exercise, text, stubs)
        except answer.AnswerError as error:
            if refused is None or (refused.id == "missing" and error.id != "missing"):
                refused = error
    written = {name: text for name, text in built.items() if not answer.is_stub(exercise.name, text, exercise.stub)}
    if not written:
        if refused is not None and refused.id != "missing":
            raise refused
        if built:
            return next(iter(built.values()))
        raise refused or answer.AnswerError("missing", f"There is no {exercise.name} in this submission.")
    python = {name: text for name, text in written.items() if name.lower().endswith(".py")}
    chosen = python or written  # the answer book, or a file made from it, is what the student decided on
    if len({fingerprint(text) for text in chosen.values()}) > 1:
        names = " and ".join(chosen)
        raise Ambiguous(f"{names} hold different answers to {exercise.name}. Keep one of them.")
    return next(iter(chosen.values()))


def _built(exercise: Exercise, text: Text, stubs: dict[str, str]) -> str:
    from course_lib.commands.check import answer_in
    from course_lib.grading import answer

    if text.cells is not None:
        return answer.build(exercise.name, [answer.Cell(cell) for cell in _attempts(exercise, text.cells)], stubs=stubs, place=text.name)
    try:
        return answer_in(exercise, text.text, text.name)
    except answer.AnswerError as error:
        if error.id == "syntax" and not _may_hold(exercise, text):
            raise answer.AnswerError("missing", f"there is no top-level `def {exercise.name}(...)` in {text.name}.") from None
        raise


def _attempts(exercise: Exercise, cells: list[str]) -> list[str]:
    """The cells without those that hold the bare stub, where another one defines the exercise: a copied cell costs nothing."""
    from course_lib.grading import answer

    defining = {at for at, cell in enumerate(cells) if answer.defines(exercise.name, [answer.Cell(cell)])}
    bare = {at for at in defining if answer.is_stub(exercise.name, cells[at], exercise.stub)}
    if defining - bare:
        return [cell for at, cell in enumerate(cells) if at not in bare]
    for cell in cells:
        if _mentions(exercise.name, cell):
            answer.require_python(cell, f"the cell of {exercise.name}")
    return cells


def _may_hold(exercise: Exercise, text: Text) -> bool:
    """Whether a file that cannot be read as Python may have been meant for this exercise."""
    from course_lib.grading import catalogue

    if text.text:
        if _mentions(exercise.name, text.text):
            return True
        if any(_mentions(other.name, text.text) for other in catalogue.of_chapter(exercise.chapter)):
            return False
    chapter = chapter_of(text.name)
    return chapter is None or chapter == exercise.chapter


def _mentions(name: str, text: str) -> bool:
    found = rf"^(?:[ \t]*(?:async[ \t]+)?(?:def|class)[ \t]+{re.escape(name)}\b|# ==== {re.escape(name)} ====)"
    return re.search(found, text, re.MULTILINE) is not None


def chapter_of(name: str) -> int | None:
    """The chapter that a file's name tells: ch03_anything.py, or 03_online_softmax (2).ipynb (any other 03_ may be a number of students)."""
    from course_lib.grading import catalogue

    match = re.match(r"(ch)?(\d\d)_", name)
    if not match or not catalogue.of_chapter(int(match[2])):
        return None
    return int(match[2]) if match[1] or name.startswith(Path(catalogue.file_of(int(match[2]))).stem[2:]) else None


def chapters_of(submissions: Iterable[Submission]) -> set[int]:
    """The chapters that a class handed in answers to, by the names of files, else by what their text seems to define."""
    from course_lib.grading import catalogue

    names = {exercise.name: exercise.chapter for exercise in catalogue.exercises().values()}
    chapters: set[int] = set()
    for one in submissions:
        for path in one.files:
            told = chapter_of(path.name)
            if told is not None:
                chapters.add(told)
            else:
                text = _contents(path, one.root)[1].decode("utf-8", "replace")
                chapters |= {names[word] for word in re.findall(r"\b(?:def|class)[ \t]+(\w+)", text) if word in names}
    return chapters
