"""Attention, Tile by Tile: the course's library.

`from course_lib import check, hint, solution, progress, predict` is all that a notebook needs. The names are
resolved on first use, so that importing the library stays fast and imports neither torch nor triton.
"""

_WHERE = {
    "check": "course_lib.grading.api",
    "hint": "course_lib.grading.api",
    "solution": "course_lib.grading.api",
    "progress": "course_lib.grading.api",
    "predict": "course_lib.predictions",
    "compare": "course_lib.predictions",
    "claim": "course_lib.claims",
}

__all__ = sorted(_WHERE)


def __getattr__(name: str):
    if name not in _WHERE:
        raise AttributeError(f"course_lib has no {name!r}; it offers {', '.join(__all__)}")
    from importlib import import_module

    return getattr(import_module(_WHERE[name]), name)
