"""Functions of earlier exercises: `from course_lib.earlier import merge_states`.

Gives the reader's own answer where it stands in the answer book as it was accepted, and the course's solution everywhere
else, so that an unsolved chapter breaks nothing later. Each text is loaded by path under a module name of its own.
COURSE_EARLIER=solution (set while answers are graded) always gives the solution; COURSE_GRADING=NAME refuses NAME and
whatever comes after it in the course. Knows nothing of checks or notebooks.
"""

import dis
import importlib.util
import itertools
import json
import os
import sys
import warnings
from functools import cache
from pathlib import Path
from types import FrameType, ModuleType

from course_lib import exercise_list, paths
from course_lib.source import fingerprint, parse_answers

FRESH = "course_earlier_"  # so begin the names of the modules made here; another process cannot import them
_fresh = itertools.count(1)
_own: dict[tuple, ModuleType] = {}
_warned: set[tuple] = set()


def __getattr__(name: str):
    if name.startswith("_"):  # what import machinery and notebooks ask every module for
        raise AttributeError(name)
    if sentence := _unknown(name):
        raise (ImportError if _in_an_import(sys._getframe(1)) else AttributeError)(sentence)
    if sentence := _refused(name):
        raise ImportError(sentence)
    module = _learners(name) or _solutions(exercise_list.known()[name][1])
    return getattr(module, name)


def _in_an_import(frame: FrameType) -> bool:
    """Whether the caller stands in `from course_lib.earlier import NAME`. Others (pickle, a compiler) ask every module for a name and expect
    an AttributeError; from an import, that would hide the sentence behind Python's own."""
    return dis.opname[frame.f_code.co_code[frame.f_lasti]] == "IMPORT_FROM" if frame.f_lasti >= 0 else False


def where(name: str) -> str:
    """Whose function `from course_lib.earlier import NAME` gives: "yours" or "the course's"."""
    name = name if isinstance(name, str) else getattr(name, "__name__", name)
    if _unknown(name):
        raise ValueError(_unknown(name))
    return "yours" if _learners(name) else "the course's"


def _unknown(name: object) -> str | None:
    return None if name in exercise_list.known() else f"course_lib.earlier: there is no exercise {name!r}. {exercise_list.offer(name)}"


def _refused(name: str) -> str | None:
    """While one exercise is graded, only what the course taught before it can be used."""
    graded = os.environ.get("COURSE_GRADING")
    order = list(exercise_list.known())
    if not graded or graded not in order or order.index(name) < order.index(graded):
        return None
    if name == graded:
        return f"{name} is what this exercise asks you to write: course_lib.earlier does not give it while it is graded."
    return f"{name} comes after {graded} in the course: an answer to {graded} can only use earlier exercises."


@cache
def _solutions(path: Path) -> ModuleType:
    """The solutions of one chapter, loaded from their file."""
    name = f"{FRESH}{path.stem}_{next(_fresh)}"
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickle look their module up by name
    spec.loader.exec_module(module)
    return module


def _learners(name: str) -> ModuleType | None:
    """The reader's accepted answer, loaded; None where the course's solution is to be used."""
    if os.environ.get("COURSE_EARLIER") == "solution" or os.environ.get("COURSE_GRADING"):
        return None
    accepted = _accepted(name)
    if not accepted:
        return None
    book = paths.answers() / exercise_list.known()[name][1].name
    try:
        whole = book.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return _instead(name, accepted, f"{_short(book)} cannot be read")
    section = parse_answers(whole).get(name)
    if section is None:
        return _instead(name, accepted, f"your answer to {name} is no longer in {_short(book)}")
    found = fingerprint(section)
    if found != accepted:
        return _instead(name, found, f"{name} in {_short(book)} is not the text that passed. Run `course check {name}` to have it graded")
    if (name, book, found) not in _own:
        try:
            _own[name, book, found] = _load(name, whole, book)
        except Exception as error:  # the reader's text: anything can happen
            return _instead(name, found, f"your answer to {name} in {_short(book)} could not be loaded ({type(error).__name__}: {error})")
    return _own[name, book, found]


def section_in_place(whole: str, name: str) -> str | None:
    """One section of an answer book with empty lines above it, so that its lines keep their numbers in the file."""
    text = parse_answers(whole).get(name)
    if text is None:
        return None
    lines = whole.splitlines()
    above = max(i for i, line in enumerate(lines) if line.startswith(f"# ==== {name} ====")) + 1
    while above < len(lines) and not lines[above].strip():
        above += 1
    return "\n" * above + text


def _load(name: str, whole: str, book: Path) -> ModuleType:
    """Run one section as a module. Tracebacks, and Triton's search for its source, find the answer book itself."""
    module = ModuleType(f"{FRESH}{name}_{next(_fresh)}")
    module.__file__ = str(book)
    sys.modules[module.__name__] = module
    exec(compile(section_in_place(whole, name), str(book), "exec", dont_inherit=True), module.__dict__)
    getattr(module, name)
    return module


def _accepted(name: str) -> str | None:
    """The fingerprint of the answer that passed, from the progress file; None where there is none to be read."""
    try:
        entry = json.loads((paths.records() / "progress.json").read_text(encoding="utf-8"))["exercises"][name]
        return entry["accepted"] if isinstance(entry["accepted"], str) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _instead(name: str, state: str, why: str) -> None:
    """Say once why the course's solution is used."""
    if (name, state, why) not in _warned:
        _warned.add((name, state, why))
        warnings.warn(
            f"{why}. Until then the course's solution is used." if "Run `course" in why else f"{why}: the course's solution is used.", stacklevel=4
        )


def _short(path: Path) -> str:
    return f"{path.parent.name}/{path.name}"
