"""Which exercises there are, and where their text and grading material come from. Runs no answer."""

import importlib
import importlib.util
import os
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from course_lib import exercise_list, paths
from course_lib.source import Exercise

if TYPE_CHECKING:  # spec imports torch, and the commands that only list or show exercises need not wait for it
    from course_lib.grading.spec import Check


class UnknownExercise(ValueError):
    """No exercise of that name; the message offers the nearest ones."""


@cache
def _files() -> dict[int, Path]:
    return {int(path.name[2:4]): path for path in paths.solution_files()}


@cache
def exercises() -> dict[str, Exercise]:
    """Every exercise of the course by name, in the order in which the course teaches them."""
    return {name: exercise for name, (exercise, _) in exercise_list.known().items()}


def find(name: str) -> Exercise:
    """The exercise of that name. UnknownExercise offers the nearest names."""
    if name in exercises():
        return exercises()[name]
    raise UnknownExercise(f"there is no exercise {name!r}. {exercise_list.offer(name)}")


def of_chapter(number: int) -> list[Exercise]:
    """The exercises of a chapter, in order; an empty list where it has none (yet)."""
    return [exercise for exercise in exercises().values() if exercise.chapter == number]


def file_of(chapter: int) -> str:
    """`ch03_online_softmax.py`: the name shared by solutions/, exercises/ and answers/."""
    return _files()[chapter].name


def solution_text(exercise: Exercise) -> str:
    """A complete answer: the chapter's imports and the solution."""
    return f"{exercise.preamble}\n\n{exercise.solution}"


def stub_text(exercise: Exercise) -> str:
    """What the learner starts from: the chapter's imports and the stub."""
    return f"{exercise.preamble}\n\n{exercise.stub}"


@cache
def checks(chapter: int) -> dict[str, "Check"]:
    """The grading material of a chapter, by exercise name."""
    return {check.exercise: check for check in _material(chapter).CHECKS}


def _material(chapter: int) -> ModuleType:
    stem = _files()[chapter].stem
    extra = os.environ.get("COURSE_EXTRA")
    path = Path(extra) / "checks" / f"{stem}.py" if extra else None
    if path is None or not path.exists():
        return importlib.import_module(f"course_lib.checks.{stem}")
    spec = importlib.util.spec_from_file_location(f"course_extra_checks_{stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
