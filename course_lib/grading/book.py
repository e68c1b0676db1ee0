"""The reader's work on disk: the answer book, and the history of every text that was graded or about to be overwritten.

Everything that could be lost is saved first; files are replaced whole, under a lock, so that two notebooks and a full
disk leave either the old text or the new one. Trouble with the disk is a `BookError` with a sentence.
Knows nothing of verdicts or panels.
"""

import contextlib
import errno
import json
import os
import re
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from itertools import pairwise
from pathlib import Path

from course_lib import disk, paths
from course_lib.earlier import section_in_place
from course_lib.grading import answer, catalogue
from course_lib.source import RECORD, SECTION, Exercise, fingerprint, parse_answers, with_answer

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

LOCK_SECONDS = 10.0
_lock_in_process = threading.RLock()
_held = threading.local()

HEAD = """# Your answers to chapter {chapter:02d}. check() writes here what passed; you may edit the sections and run `course check`.
# Each section stands on its own. Everything that gets replaced is kept in .course/history/.
"""


class BookError(RuntimeError):
    """The answer book or the history cannot be read or written; the message says what to do."""


@dataclass(frozen=True)
class Written:
    """Where an answer was saved, and what the reader should know about it."""

    path: Path
    notes: tuple[str, ...] = ()


# ---------------------------------------------------------------- disk


def short(path: Path) -> str:
    """A path as the reader knows it: relative to the folder of their work or to the course, where it is inside."""
    for folder in (paths.home(), paths.ROOT):
        with contextlib.suppress(ValueError):
            return path.resolve().relative_to(folder.resolve()).as_posix()
    return str(path)


def trouble(error: OSError, path: Path) -> BookError:
    """A sentence for what the disk said."""
    place = short(path)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return BookError(
            f"{place} could not be written: the disk is full. Free some space, or set COURSE_HOME to a folder on another disk, and try again."
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return BookError(
            f"{place} could not be written: the folder is read-only. Make it writable, or set COURSE_HOME to a folder of yours, and try again."
        )
    return BookError(
        f"{place} could not be written or read ({error.strerror or error}). Look at what is there, or set COURSE_HOME to another folder."
    )


def replace(path: Path, text: str) -> None:
    """Write a whole file, or leave the old one as it is. BookError in a sentence."""
    try:
        disk.replace(path, text)
    except OSError as error:
        raise trouble(error, path) from error


def _read(path: Path) -> str | None:
    """The file's text, None where there is no file. BookError where it is no text."""
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except UnicodeDecodeError:
        raise BookError(
            f"{short(path)} is not UTF-8 text any more. Restore it from your editor or a backup; older texts are in .course/history/."
        ) from None
    except OSError as error:
        raise trouble(error, path) from error


@contextlib.contextmanager
def locked() -> Iterator[None]:
    """One writer at a time, across notebooks. Where locks do not work (some network drives) it goes on without."""
    with _lock_in_process:
        if fcntl is None or getattr(_held, "depth", 0):
            yield
            return
        path = paths.records() / "lock"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = open(path, "a")  # noqa: SIM115
        except OSError as error:
            raise trouble(error, path) from error
        _held.depth = 1
        try:
            _wait_for(file, path)
            yield
        finally:
            _held.depth = 0
            file.close()  # which also unlocks


def _wait_for(file, path: Path) -> None:
    until = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                return
            if time.monotonic() > until:
                raise BookError(
                    f"another check has held {short(path)} for {LOCK_SECONDS:.0f} s. Wait for it to end, or restart its kernel, and try again."
                ) from None
            time.sleep(0.02)


# ---------------------------------------------------------------- history


def save_history(name: str, text: str, reason: str) -> Path:
    """Keep a text for good. reason: attempt, overwritten, reset or adopted."""
    folder = paths.history() / name
    stamp = datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%SZ")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for number in range(1, 100_000):
            path = folder / f"{stamp}-{number}-{reason}.py"
            try:
                descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
            except FileExistsError:
                continue
            try:
                disk.write_bytes(descriptor, text.encode("utf-8", errors="backslashreplace"))
            except OSError:
                with contextlib.suppress(OSError):
                    path.unlink()
                raise
            return path
    except OSError as error:
        raise trouble(error, folder) from error
    raise BookError(f"{short(folder)} holds 100,000 texts of this very second. Move some away and try again.")


# ---------------------------------------------------------------- the answer book


def path_of(exercise: Exercise) -> Path:
    """The answer book file of the exercise's chapter."""
    return paths.answers() / catalogue.file_of(exercise.chapter)


def read_section(exercise: Exercise) -> str | None:
    """The exercise's section of the answer book; None where it has none. BookError where the file cannot be read."""
    text = _read(path_of(exercise))
    return None if text is None else parse_answers(text).get(exercise.name)


def read_in_place(exercise: Exercise) -> str | None:
    """The section with its lines where they are in the file, so that a message about line 40 means line 40."""
    text = _read(path_of(exercise))
    return None if text is None else section_in_place(text, exercise.name)


def write_section(exercise: Exercise, text: str, reason: str = "overwritten") -> Written:
    """Put this text into the exercise's section. What stood there goes to the history first."""
    path, notes = path_of(exercise), []
    with locked():
        try:
            whole = _read(path)
        except BookError:
            if not path.is_file():
                raise
            whole = None
            notes.append(_moved_aside(path))
        whole = HEAD.format(chapter=exercise.chapter) if whole is None else whole
        whole, removed = _one_section(whole, exercise.name)
        for old in removed:
            save_history(exercise.name, old, reason)
        old = parse_answers(whole).get(exercise.name)
        if old is not None and old.strip() and old.strip() != text.strip():
            save_history(exercise.name, old, reason)
        new = with_answer(whole, exercise.name, _without_headers(text))
        if new != whole or not path.exists():
            replace(path, new)
    return Written(path, tuple(notes))


def _moved_aside(path: Path) -> str:
    aside = path.with_name(f"{path.stem}.unreadable-{time.time_ns()}.txt")
    try:
        os.replace(path, aside)
    except OSError as error:
        raise trouble(error, path) from error
    return f"{short(path)} was not text any more: it now lies in {short(aside)}, and a new answer book was begun."


def _one_section(whole: str, name: str) -> tuple[str, list[str]]:
    """(the text with one section of that name: the last, which is the one that counts; the texts of the others)."""
    lines = whole.splitlines()
    starts = [i for i, line in enumerate(lines) if SECTION.match(line)]
    spans = [(a, b) for a, b in pairwise([*starts, len(lines)]) if SECTION.match(lines[a])["name"] == name]
    removed = []
    for start, stop in reversed(spans[:-1]):
        removed.append("\n".join(lines[start + 1 : stop]).strip("\n") + "\n")
        del lines[start:stop]
    return ("\n".join(lines) + "\n", removed) if removed else (whole, removed)


def _without_headers(text: str) -> str:
    """A line of the answer that looks like a section's header would split the section: indent its signs by one."""
    return "\n".join(line.replace("# ====", "#  ====", 1) if SECTION.match(line) else line for line in text.splitlines()) + "\n"


# ---------------------------------------------------------------- edited exercises/ files


def exercise_file(exercise: Exercise) -> Path:
    """The file of stubs beside the chapter's solutions."""
    name = catalogue.file_of(exercise.chapter)
    return next(path.parent.parent / "exercises" / name for path in paths.solution_files() if path.name == name)


def adopt(exercise: Exercise) -> str | None:
    """Take an edited exercises/ file into the answer book. Returns the sentence that says so, None where nothing is new.

    Taken is what differs from the pristine stub and was not taken before. BookError, AnswerError.
    """
    path = exercise_file(exercise)
    text = _read(path)
    if text is None or exercise.name not in text:
        return None
    written = _from_stub_file(exercise, text, short(path))
    if written is None or answer.is_stub(exercise.name, written, exercise.stub):
        return None
    print_, taken = fingerprint(written), _adopted()
    if taken.get(exercise.name) == print_:
        return None
    old = read_section(exercise)
    if old is None or fingerprint(old) != print_:
        save_history(exercise.name, written, "adopted")
        write_section(exercise, written)
    _set_adopted(exercise.name, print_)
    return f"Your text of {exercise.name} in {short(path)} is now also in {short(path_of(exercise))}" + (
        ", in place of an older one, which is kept in .course/history/." if old is not None and fingerprint(old) != print_ else "."
    )


def _from_stub_file(exercise: Exercise, text: str, where: str) -> str | None:
    """The exercise's answer in a file of stubs. Where another exercise of the file is no Python, it is read without that one."""
    stubs = stubs_by_name()
    try:
        return answer.from_file(exercise.name, text, where, stubs)
    except answer.AnswerError as error:
        if error.id == "missing":
            return None
        if error.id != "syntax":
            raise
        parts = re.split(r"(?m)^(?=# %%)", text)
        broken = [part for part in parts if not _is_python(part)]
        if any(re.search(rf"\b{exercise.name}\b", part.split("\n", 1)[0]) or f"def {exercise.name}" in part for part in broken):
            raise
        try:
            return answer.from_file(exercise.name, "".join(part for part in parts if part not in broken), where, stubs)
        except answer.AnswerError:
            raise error from None


def _is_python(text: str) -> bool:
    try:
        answer.require_python(text, "")
    except answer.AnswerError:
        return False
    return True


def stubs_by_name() -> dict[str, str]:
    """{exercise: its stub}, for `answer.build`."""
    return {name: exercise.stub for name, exercise in catalogue.exercises().items()}


def _adopted() -> dict[str, str]:
    try:
        data = json.loads((paths.records() / "adopted.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return data if isinstance(data, dict) else {}


def _set_adopted(name: str, print_: str | None) -> None:
    with locked():
        taken = _adopted()
        if print_ is None:
            if name not in taken:
                return
            taken.pop(name)
        else:
            taken[name] = print_
        replace(paths.records() / "adopted.json", json.dumps(taken, indent=1))


# ---------------------------------------------------------------- reset


def reset(exercise: Exercise) -> list[str]:
    """Put the stub back, in the answer book and in exercises/. Returns what was done, in sentences; saves first."""
    done = []
    with locked():
        old = read_section(exercise)
        if old is not None and not answer.is_stub(exercise.name, old, exercise.stub):
            kept = save_history(exercise.name, old, "reset")
            write_section(exercise, catalogue.stub_text(exercise))
            done.append(f"{short(path_of(exercise))} holds the stub of {exercise.name} again. Your text is kept in {short(kept)}.")
        restored = _reset_stub_file(exercise)
        if restored:
            done.append(restored)
        _set_adopted(exercise.name, None)
    return done


def _reset_stub_file(exercise: Exercise) -> str | None:
    path = exercise_file(exercise)
    text = _read(path)
    header = exercise.block.splitlines()[0]
    if text is None:
        return None
    parts = re.split(r"(?m)^(?=# %%)", text)
    ours = [i for i, part in enumerate(parts) if re.match(rf"# %% exercise {exercise.name}\b", part)]
    if len(ours) != 1:
        return f"{short(path)} was left alone: its line `{header}` is not there exactly once."
    part, record = _without_record(parts[ours[0]])
    if answer.normalised(part) == answer.normalised(exercise.stub):
        return None
    kept = save_history(exercise.name, part, "reset")
    parts[ours[0]] = f"{header}\n{exercise.stub}" + ("\n\n" if record or ours[0] + 1 < len(parts) else "") + record
    replace(path, "".join(parts))
    return f"{short(path)} holds the stub of {exercise.name} again. What stood there is kept in {short(kept)}."


def _without_record(part: str) -> tuple[str, str]:
    """(the last section of a file of stubs without the file's record of its digests; that record)."""
    lines = part.splitlines(keepends=True)
    record = [line for line in lines if line.startswith(RECORD)]
    return "".join(line for line in lines if line not in record), "".join(record)
