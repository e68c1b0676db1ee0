"""The book of predictions, `.course/predictions.json`: read, changed by one process at a time, replaced in one move.

A file that makes no sense is moved aside; what cannot be written is kept for the session. Every trouble becomes a notice, a
sentence for the reader. Knows nothing of how guesses are asked for or judged.
"""

import json
import numbers
import os
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path

from course_lib import disk, paths

unsaved: dict[str, dict] = {}  # guesses that could not be written
_UNANSWERED = {"guess": None, "at": None, "measured": None, "measured_at": None}


def now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def blank() -> dict:
    return {"question": "", "unit": "", "choices": None, "least": 0, **_UNANSWERED, "history": []}


def retire(entry: dict) -> None:
    """Move what is there to the entry's history."""
    if entry["guess"] is not None:
        entry["history"].append({name: entry[name] for name in ("unit", "guess", "at", "measured", "measured_at")})
    entry.update(_UNANSWERED)


def entry_of(key: str) -> tuple[dict, list[str]]:
    """What is known of a question (all of it blank for one never asked), and notices."""
    with changing(write=False) as (book, notices):
        return dict(book.get(key) or blank()), notices


def _file() -> Path:
    return paths.records() / "predictions.json"


@contextmanager
def changing(write: bool = True):
    """The book of predictions and the notices of reading it; written back at the end, one process at a time."""
    notices: list[str] = []
    with _locked(write):
        stored, readable = _read(notices)
        book = {**stored, **unsaved}
        yield book, notices
        if write and readable:
            _write(book, notices)
        elif write:  # never over a file that could not be read
            unsaved.update(book)


@contextmanager
def _locked(write: bool):
    """Two notebooks may answer at once: the second waits. Without file locks, or without a folder, it goes on."""
    handle = None
    if write:
        try:
            import fcntl

            paths.records().mkdir(parents=True, exist_ok=True)
            handle = open(paths.records() / "predictions.lock", "w")
            fcntl.flock(handle, fcntl.LOCK_EX)
        except (ImportError, OSError):
            pass
    try:
        yield
    finally:
        if handle:
            handle.close()


def _read(notices: list[str]) -> tuple[dict[str, dict], bool]:
    """(the stored book, whether it may be replaced); a file that makes no sense is moved aside, and a notice says where."""
    try:
        data = json.loads(_file().read_text(encoding="utf-8"))
        return {key: _sound(entry) for key, entry in data["predictions"].items()}, True
    except FileNotFoundError:
        return {}, True
    except OSError as problem:
        notices.append(f"Your predictions cannot be read ({problem.strerror}: {_file()}); what you answer now is kept until the kernel stops.")
        return {}, False
    except (ValueError, KeyError, TypeError, AttributeError):
        aside = _file().with_name(f"predictions.broken-{datetime.now(timezone.utc):%Y%m%dT%H%M%S%f}.json")
        try:
            os.replace(_file(), aside)
            notices.append(f"The file of your predictions could not be understood. It was moved to {aside.name}, and a new one begins.")
        except OSError as problem:
            notices.append(f"The file of your predictions could not be understood, nor moved aside ({problem.strerror}: {_file()}).")
            return {}, False
        return {}, True


def _sound(entry) -> dict:
    """One entry with every field there and of the right kind; ValueError otherwise."""
    whole = {**blank(), **entry}
    values = (whole["guess"], whole["measured"])
    if (
        not isinstance(whole["history"], list)
        or not isinstance(whole["unit"], str)
        or any(not isinstance(v, numbers.Real | str | None) for v in values)
        or not isinstance(whole["least"], numbers.Real | None)
        or not isinstance(whole["question"], str)
        or not (whole["choices"] is None or (isinstance(whole["choices"], list) and all(isinstance(c, str) for c in whole["choices"])))
    ):
        raise ValueError("an entry of another form")
    return whole


def _write(book: dict[str, dict], notices: list[str]) -> None:
    """Replace the file in one move; a guess that cannot be written is kept for this session."""
    try:
        disk.replace(_file(), json.dumps({"version": 1, "predictions": book}, indent=1, ensure_ascii=False))
        unsaved.clear()
    except OSError as problem:
        unsaved.update(book)
        notices.append(f"It could not be saved ({problem.strerror}: {_file()}); it is kept until the kernel stops.")
