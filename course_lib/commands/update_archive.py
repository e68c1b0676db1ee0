"""`course update --from PATH` for a course that was unpacked from an archive: no git, so the new files are copied over.

What the learner started from is not known the first time (the stubs carry their own hashes); from then on a pristine copy of the
notebooks and exercises is kept beside the journal. Files are replaced one by one, each whole; running it again is harmless.
"""

import os
import subprocess
from pathlib import Path, PurePosixPath

from course_lib.commands.update_git import Refused, is_clone
from course_lib.commands.update_report import describe, say
from course_lib.commands.update_work import Work, is_work, merged, read, same, save, write

_NEVER = {".git", ".course", "answers", "__pycache__", ".ipynb_checkpoints", ".pytest_cache", ".ruff_cache", ".hypothesis", "build", "dist"}
_LARGEST_COPY = 5_000_000  # bytes; larger files are weights, which nobody edits


def check(root: Path, source: Path) -> None:
    """Refused, unless `source` is another copy of the course."""
    if not source.is_dir():
        raise Refused(f"{source} is not a folder. Unpack the newer archive, and give the folder that has notebooks/ and course_lib/ in it.")
    if not ((source / "course_lib").is_dir() and (source / "notebooks").is_dir()):
        raise Refused(f"{source} is not a copy of the course: it has no notebooks/ and course_lib/. Give the folder that has them.")
    if source == root.resolve():
        raise Refused(f"{source} is this very course. --from takes a newer copy of it, unpacked in another folder.")


def interrupted(folder: Path) -> Path | None:
    """Where an interrupted update was copying from, if that is still there."""
    data = read(folder / "from")
    source = Path(data.decode()) if data else None
    return source if source and source.is_dir() else None


def update(root: Path, source: Path, folder: Path, dry: bool) -> int:
    """Bring the files of `source` into `root`; `folder` holds the marker and the pristine copies."""
    new = {path: (source / path).read_bytes() for path in _files(source)}
    differing = {path: "A" if read(root / path) is None else "M" for path, data in new.items() if read(root / path) != data}
    works = {path: _work(root, folder, path, new[path]) for path, state in differing.items() if state == "M" and is_work(path)}
    differing = {path: state for path, state in differing.items() if path not in works or not _is_done(root, works[path], new[path])}
    if not dry:
        _exchange(root, source, folder, new, differing, works)
    shown = [works[path] for path in differing if path in works]
    if differing:
        describe([], "", "", differing, shown, [], dry)
    else:
        say(f"Nothing new: your course has all that {source} has.")
    return 0 if all(work.placed for work in shown) else 1


def _exchange(root: Path, source: Path, folder: Path, new: dict[str, bytes], differing: dict[str, str], works: dict[str, Work]) -> None:
    for path in differing:  # every copy first
        own = read(root / path)
        if own is not None and path in works:
            works[path].saved = save(path, own)
        elif own is not None and len(own) <= _LARGEST_COPY:
            save(path, own)
    write(folder / "from", str(source).encode())
    for path in sorted(differing, key=is_work):
        work = works.get(path)
        write(root / path, new[path] if work is None or work.result is None else work.result)
    for path in filter(is_work, new):  # after the notebooks: a repeated merge against the older base changes nothing
        write(folder / "base" / path, new[path])
    (folder / "from").unlink()


def _work(root: Path, folder: Path, path: str, new: bytes) -> Work:
    base, mine = read(folder / "base" / path), read(root / path)
    return Work(path, path) if same(path, mine, base) else merged(path, path, base, new, mine)


def _is_done(root: Path, work: Work, new: bytes) -> bool:
    """Whether the file already is what the update would make of it."""
    return same(work.path, read(root / work.path), new if work.result is None else work.result)


def _files(source: Path) -> list[str]:
    """The course's own files in a copy of it, with forward slashes; a clone is asked for what it tracks."""
    if is_clone(source):
        try:
            done = subprocess.run(["git", "ls-files", "-z"], cwd=source, capture_output=True, check=True, timeout=60)
            tracked = [path for path in done.stdout.decode(errors="surrogateescape").split("\0") if path]
            return [path for path in tracked if (source / path).is_file() and _is_course(path)]
        except (OSError, subprocess.SubprocessError):
            pass  # no git here: look at the folder instead
    found = []
    for folder, names, files in os.walk(source):
        names[:] = sorted(name for name in names if not _skipped(name))
        found += [(Path(folder) / name).relative_to(source).as_posix() for name in sorted(files)]
    return [path for path in found if _is_course(path)]


def _is_course(path: str) -> bool:
    pure = PurePosixPath(path)
    return not any(_skipped(part) for part in pure.parts) and pure.suffix not in (".pyc", ".tmp")


def _skipped(name: str) -> bool:
    return name in _NEVER or name.startswith(".venv") or name.endswith(".egg-info")
