"""Where things are: the course's own files, and the learner's.

Knows nothing of exercises or grading. `ROOT` is the checkout; `home()` is where the learner's work lives:
the checkout itself, or the folder named by the environment variable COURSE_HOME (on Colab: a Drive folder).
"""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def home() -> Path:
    """The folder of the learner's work (`answers/`, `.course/`). Read afresh at each call, never created here."""
    return Path(os.environ.get("COURSE_HOME") or ROOT).expanduser()


def answers() -> Path:
    """The answer book: one plain Python file a chapter."""
    return home() / "answers"


def records() -> Path:
    """What the course remembers: history of attempts, progress, predictions."""
    return home() / ".course"


def history() -> Path:
    """Every text the learner ever had graded, and everything that was about to be overwritten."""
    return records() / "history"


def solution_files() -> list[Path]:
    """The source of every exercise, in chapter order; COURSE_EXTRA names one more folder (used by the tests)."""
    extra = os.environ.get("COURSE_EXTRA")
    folders = [ROOT / "solutions", *([Path(extra) / "solutions"] if extra else [])]
    return sorted((path for folder in folders for path in folder.glob("ch[0-9][0-9]_*.py")), key=lambda p: p.name)
