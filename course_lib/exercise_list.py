"""Every exercise of the course by name, in the order in which the course teaches them, and what to offer for a name that is none.

Read from the solution files; runs nothing of them. Knows nothing of checks.
"""

import difflib
from functools import cache
from pathlib import Path

from course_lib import paths
from course_lib.source import Exercise, parse_exercises


def known() -> dict[str, tuple[Exercise, Path]]:
    """{name: (the exercise, the file of its solution)}. ValueError where two exercises have one name."""
    return _parsed(tuple(paths.solution_files()))


def offer(name: object) -> str:
    """`Did you mean merge_states?`, or the list of them all."""
    near = difflib.get_close_matches(str(name), known(), n=2, cutoff=0.5)
    return f"Did you mean {' or '.join(near)}?" if near else f"The course has: {', '.join(known())}."


@cache
def _parsed(files: tuple[Path, ...]) -> dict[str, tuple[Exercise, Path]]:
    found: dict[str, tuple[Exercise, Path]] = {}
    for path in files:
        for exercise in parse_exercises(path.read_text(encoding="utf-8"), int(path.name[2:4]), path.name):
            if exercise.name in found:
                raise ValueError(f"{path.name}: an exercise named {exercise.name} already exists in chapter {found[exercise.name][0].chapter:02d}")
            found[exercise.name] = (exercise, path)
    return found
