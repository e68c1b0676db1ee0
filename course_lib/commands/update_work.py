"""One file of the learner's work in an update: three versions in, what will stand there out; and the saved copies.

Knows notebooks and files of stubs, and where copies are kept. Knows nothing of git or of where the versions come from.
"""

import json
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path, PurePosixPath

from course_lib import disk, paths
from course_lib.commands.notebook_merge import Entry, Report, check_notebook, merge, same_work
from course_lib.commands.stub_files import merge_stub_files, same_stub_file


class Unreadable(ValueError):
    """A file that is no notebook or no text; the message says why."""


@dataclass
class Work:
    """What an update does with one file. `result` is None where upstream's version stands as it is."""

    path: str  # as the learner has it, from the root, with forward slashes
    target: str  # where upstream has it
    result: bytes | None = None
    report: Report = field(default_factory=Report)
    trouble: str = ""  # why nothing could be merged
    remark: str = ""
    saved: Path | None = None

    @property
    def placed(self) -> bool:
        return not (self.trouble or self.report.not_placed)


def is_work(path: str) -> bool:
    """Whether learners write into this file of the course: notebooks and exercises/."""
    pure = PurePosixPath(path)
    return (pure.parts[0], pure.suffix) in (("notebooks", ".ipynb"), ("exercises", ".py"))


def merged(path: str, target: str, base: bytes | None, new: bytes | None, mine: bytes | None, outputs: bool = False) -> Work:
    """The learner's version brought into upstream's. `outputs`: upstream's are kept (it is the learner's earlier version)."""
    work = Work(path, target)
    if mine is None:
        work.remark = "you had deleted this file; it came back"
    elif new is None:
        work.result = mine
        work.report.not_placed.append(Entry(PurePosixPath(path).name, "the course no longer has this file; yours stays where it is", ""))
    else:
        _merge_into(work, base, new, mine, outputs)
    if target != path:
        work.remark = f"the course renamed this file to {target}"
    return work


def _merge_into(work: Work, base: bytes | None, new: bytes, mine: bytes, outputs: bool) -> None:
    try:
        own = _read(work.path, mine)
    except Unreadable as why:
        work.trouble = f"your version cannot be read ({why}); the course's version stands there now"
        return
    try:
        upstream = _read(work.target, new)
    except Unreadable as why:
        work.trouble = f"the course's new version cannot be read ({why}); your work is in the saved copy"
        return
    try:
        started = None if base is None else _read(work.path, base)
    except Unreadable:
        started = None
    if isinstance(own, str):
        text, work.report = merge_stub_files(started, upstream, own)
        work.result = text.encode("utf-8", "surrogatepass")
    else:
        done = merge(started, upstream, own, outputs=outputs)
        work.result, work.report = _notebook_bytes(done.notebook), done.report
    if same(work.target, work.result, new):
        work.result = None


def same(path: str, one: bytes | None, other: bytes | None) -> bool:
    """Whether two versions of a file say the same. A notebook that was only run says the same."""
    if one == other:
        return True
    if one is None or other is None:
        return False
    try:
        a, b = _read(path, one), _read(path, other)
    except Unreadable:
        return False
    return same_stub_file(a, b) if isinstance(a, str) else same_work(a, b)


def readable(path: str, data: bytes) -> bool:
    try:
        _read(path, data)
    except Unreadable:
        return False
    return True


def _read(path: str, data: bytes) -> dict | str:
    try:
        return check_notebook(json.loads(data)) if path.endswith(".ipynb") else data.decode("utf-8-sig")
    except json.JSONDecodeError as error:
        raise Unreadable(f"it is not valid JSON, line {error.lineno}: {error.msg}") from None
    except UnicodeDecodeError:
        raise Unreadable("it is not text in UTF-8") from None
    except (ValueError, RecursionError) as error:
        raise Unreadable(str(error)) from None


def _notebook_bytes(notebook: dict) -> bytes:
    """As nbformat writes it, so that a later save in JupyterLab changes nothing else."""
    try:
        return (json.dumps(notebook, indent=1, ensure_ascii=False, sort_keys=True) + "\n").encode()
    except UnicodeEncodeError:  # half a surrogate pair in a cell: legal in JSON, not in UTF-8
        return (json.dumps(notebook, indent=1, sort_keys=True) + "\n").encode()


def read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def write(path: Path, data: bytes) -> None:
    """Whole or not at all, also when the process is killed."""
    disk.replace(path, data, alone=True)


def save(path: str, data: bytes) -> Path:
    """Keep a copy of a file in the history; where it holds this very text already, that copy will do."""
    pure = PurePosixPath(path)
    folder = paths.history() / (pure.parts[0] if is_work(path) else "replaced") / pure.stem
    copies = sorted(folder.glob(f"*{pure.suffix}")) if folder.is_dir() else []
    for copy in copies:
        if copy.stat().st_size == len(data) and copy.read_bytes() == data:
            return copy
    now = datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%SZ")
    count = 1  # `sweep` finds what a killed process leaves: the next one saves under a later second's name
    while (folder / f"{now}-{count}{pure.suffix}").exists():
        count += 1
    copy = folder / f"{now}-{count}{pure.suffix}"
    write(copy, data)
    return copy


def sweep() -> None:
    """Remove what an update that was killed left half written among the saved copies. Only for whoever holds the lock of updates."""
    folders = [path for path in paths.history().glob("*/*") if path.parent.name in ("notebooks", "exercises", "replaced")]
    for half in [half for folder in [*folders, paths.records() / "update"] for half in folder.rglob(".*.tmp")]:
        half.unlink(missing_ok=True)
