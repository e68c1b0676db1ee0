"""`course update`: take the newer course, and keep the learner's work in it.

    course update              fetch the course's branch and move forward to it
    course update --dry-run    say what would happen; changes no file
    course update --from PATH  from a newer copy of the course: another clone, or an unpacked archive

Exit code 0: done, or nothing new. 1: done, but something of the learner's could not be placed. 2: refused, nothing was changed.

Everything the learner changed is copied to `.course/history` before any file is touched. While files are being
exchanged, a journal in `.course/update` says from where to where; whoever is interrupted runs `course update` again.
`answers/` and the rest of `.course/` are never touched.
"""

import argparse
import contextlib
import hashlib
import json
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from course_lib import paths
from course_lib.commands import update_archive
from course_lib.commands.update_git import FROM_ARCHIVE, Clone, GitFailed, Refused, is_clone
from course_lib.commands.update_report import describe, say, say_works
from course_lib.commands.update_work import Work, is_work, merged, read, readable, same, save, sweep, write


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = argparse.ArgumentParser(prog="course update", description="take the newer course and keep your work in it")
    parser.add_argument("--from", dest="source", metavar="PATH", help="a newer copy of the course: another clone, or an unpacked archive")
    parser.add_argument("--dry-run", action="store_true", help="say what would happen, and change no file")
    try:
        arguments = parser.parse_args(argv)
    except SystemExit as stop:
        return int(stop.code or 0)
    try:
        return _update(paths.ROOT, arguments.source, arguments.dry_run)
    except Refused as why:
        return _stop(str(why))
    except KeyboardInterrupt:
        return _stop("interrupted. Nothing is lost; run course update again to finish.")
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return _stop(f"{where}{error.strerror or error}. Nothing is lost; when that is mended, run course update again.")


def _stop(why: str) -> int:
    say(f"course update: {why}", to=sys.stderr)
    return 2


def _update(root: Path, source: str | None, dry: bool) -> int:
    given = Path(source).expanduser().resolve() if source else None
    if given:
        update_archive.check(root, given)
    if is_clone(root):
        clone = Clone(root)
        clone.check()
        if given and not is_clone(given):
            raise Refused(f"{root} is a git clone, and {given} is not. Run course update without --from, or with the path of a newer clone.")
        with _alone(dry):
            return _update_clone(clone, given, dry)
    with _alone(dry):
        given = given or update_archive.interrupted(_folder(root))
        if not given:
            raise Refused(f"{root} is not a git clone, so there is nowhere to fetch from. {FROM_ARCHIVE}")
        return update_archive.update(root, given, _folder(root), dry)


def _folder(root: Path) -> Path:
    """Where this checkout's journal is: several checkouts may share one COURSE_HOME."""
    return paths.records() / "update" / hashlib.sha256(str(root.resolve()).encode()).hexdigest()[:8]


@contextlib.contextmanager
def _alone(dry: bool) -> Iterator[None]:
    """Two updates that write to one learner's folder must not run at once. The lock goes away with the process.

    Whoever holds it is the only writer of the saved copies, so temporary files found there are of a process that was killed.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        fcntl = None
    if dry or fcntl is None:
        yield
        return
    with _lock_file().open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Refused("another course update is running for this folder. Wait until it has ended.") from None
        sweep()
        yield


def _lock_file() -> Path:
    """Several checkouts may share one COURSE_HOME, and with it the history."""
    path = paths.records() / "update" / "lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


# ---- the journal


@dataclass(frozen=True)
class File:
    """One file that an update takes aside: where it is, where upstream has it, and the saved copy (from the history folder)."""

    path: str
    target: str
    saved: str | None


@dataclass(frozen=True)
class Journal:
    """An update under way, from one commit to another."""

    old: str
    new: str
    began: float
    files: list[File]


def _journal_path(clone: Clone) -> Path:
    return _folder(clone.root) / "journal.json"


def _read_journal(clone: Clone) -> Journal | None:
    path = _journal_path(clone)
    data = read(path)
    if data is None:
        return None
    try:
        fields = json.loads(data)
        return Journal(fields["old"], fields["new"], float(fields["began"]), [File(**file) for file in fields["files"]])
    except (ValueError, TypeError, KeyError):
        raise Refused(
            f"{path} cannot be read. It belongs to an interrupted update; your notebooks are saved in {paths.history()}. "
            "Delete it, then run course update again."
        ) from None


def _write_journal(clone: Clone, journal: Journal) -> None:
    write(_journal_path(clone), json.dumps(asdict(journal), indent=1).encode())


# ---- a git clone


def _update_clone(clone: Clone, given: Path | None, dry: bool) -> int:
    journal = _read_journal(clone)
    if journal and dry:
        say("An update was interrupted. course update will finish it first; nothing else is planned before that.")
        return 0
    finished = _finish(clone, journal) if journal else []
    _refuse_other_changes(clone)
    remote, branch = (str(given), "HEAD") if given else clone.source()
    old, new = clone.head(), clone.fetch(remote, branch)
    if clone.contains(new, old):
        return _nothing_new(clone, old, new, finished)
    if not clone.contains(old, new):
        raise Refused(_diverged(clone, old, new, remote, branch))
    incoming = clone.incoming(old, new)
    in_the_way = _in_the_way(clone, incoming, new)
    works, mine, untouched = _plan(clone, old, new, incoming)
    if not dry:
        for work in works:
            work.saved = save(work.path, mine[work.path]) if mine[work.path] is not None else None
        for path in [*untouched, *mine]:
            _save_also(clone, path, old)
        _take(clone, old, new, works, in_the_way)
    describe(clone.subjects(old, new), old, new, incoming, works, untouched, dry)
    return 0 if all(work.placed for work in [*works, *finished]) else 1


def _refuse_other_changes(clone: Clone) -> None:
    others = [path for path in clone.changed_here() if not is_work(path)]
    if others:
        listed = "".join(f"\n  {path}" for path in others)
        raise Refused(
            f"these files of the course differ from the version you started from:{listed}\n"
            "An update would mix them with the new ones, so nothing was changed. To set them aside, run git stash push -- FILE...; "
            "after course update, git stash pop brings them back. To give a change up, run git checkout HEAD -- FILE."
        )


def _nothing_new(clone: Clone, old: str, new: str, finished: list[Work]) -> int:
    say(f"Nothing new: you have the newest version of the course ({new[:7]}).")
    ahead = len(clone.subjects(new, old))
    if ahead:
        say(f"This clone has {ahead} commit{'s' if ahead > 1 else ''} of its own on top of it.")
    return 0 if all(work.placed for work in finished) else 1


def _diverged(clone: Clone, old: str, new: str, remote: str, branch: str) -> str:
    common = clone.ask("merge-base", old, new)
    if not common:
        return (
            f"this clone shares no history with {remote}/{branch}, so it cannot move forward to it. "
            "Clone the course afresh, and copy your answers/ and .course/ folders into it."
        )
    own, theirs = clone.subjects(common, old), clone.subjects(common, new)
    commits = "".join(f"\n  {subject}" for subject in own[:10])
    return (
        f"this clone has {len(own)} commit{'s' if len(own) != 1 else ''} of its own, and the course has {len(theirs)} new ones, "
        f"so nothing was changed:{commits}\n"
        "To have your work placed in the new notebooks, keep the commits under a name and turn them back into changed files:\n"
        f"  git branch my-commits\n  git reset --soft {common[:12]}\n  git reset -q\n  course update"
    )


def _in_the_way(clone: Clone, incoming: dict[str, str], new: str) -> list[str]:
    """Files of the learner's where the course now has new ones: those with the same content. Any other is a reason to refuse."""
    there = [path for path, state in incoming.items() if state == "A" and os.path.lexists(clone.root / path)]
    different = [path for path in there if not (clone.root / path).is_file() or read(clone.root / path) != clone.blob(new, path)]
    if different:
        listed = "".join(f"\n  {path}" for path in different)
        raise Refused(
            f"the course now has files of its own under names that you use; nothing was changed. Rename yours, then run course update again:{listed}"
        )
    return there


def _plan(clone: Clone, old: str, new: str, incoming: dict[str, str]) -> tuple[list[Work], dict[str, bytes | None], list[str]]:
    """What is to be done: the files that learner and course both changed, their content, and the files that only the learner changed."""
    changed = clone.changed_here()
    renames = clone.renames(old, new)
    works, mine, untouched = [], {}, []
    for path in changed:
        base, own = clone.blob(old, path), read(clone.root / path)
        if path not in incoming:
            untouched += [path] if own is not None and not same(path, own, base) else []
            continue
        mine[path] = own
        target = renames.get(path, path)
        if same(path, own, base):  # run, but not edited
            works.append(Work(path, target))
        else:
            works.append(merged(path, target, base, clone.blob(new, target), own))
    return works, mine, untouched


def _save_also(clone: Clone, path: str, old: str) -> None:
    """A copy of what the learner changed, in the folder and (where it differs) in git's index."""
    own, staged = read(clone.root / path), clone.staged(path)
    if own is not None:
        save(path, own)
    if staged is not None and staged not in (own, clone.blob(old, path)):
        save(path, staged)


def _take(clone: Clone, old: str, new: str, works: list[Work], in_the_way: list[str]) -> None:
    """Exchange the files. From the journal on, every state can be finished or undone."""
    files = [File(work.path, work.target, work.saved.relative_to(paths.history()).as_posix() if work.saved else None) for work in works]
    journal = Journal(old, new, time.time(), files)
    _write_journal(clone, journal)
    try:
        clone.restore([work.path for work in works])
        for path in in_the_way:
            (clone.root / path).unlink()
        clone.forward(new)
    except (GitFailed, OSError) as why:
        _back(clone, journal)
        _journal_path(clone).unlink()
        raise Refused(f"the course's files could not be exchanged; everything is as it was. {why}") from None
    for work in works:
        if work.result is not None:
            write(clone.root / work.target, work.result)
    _journal_path(clone).unlink()


# ---- an update that was interrupted


def _finish(clone: Clone, journal: Journal) -> list[Work]:
    """Finish an interrupted update if the branch had moved, else undo it."""
    clone.wait_for_lock(journal.began)
    head = clone.head()
    works: list[Work] = []
    if clone.contains(journal.new, head):
        say("An update was interrupted; finishing it.")
        works = [work for file in journal.files for work in _forward(clone, journal, file, head)]
        say_works(works)
    elif head == journal.old:
        say("An update was interrupted before the new files were in place; starting it again.")
        _back(clone, journal)
    else:
        say(f"An update was interrupted, and the branch has been moved since. Your notebooks from before it are in {paths.history() / 'notebooks'}.")
    _journal_path(clone).unlink()
    return works


def _saved(file: File) -> bytes | None:
    return None if file.saved is None else read(paths.history() / file.saved)


def _forward(clone: Clone, journal: Journal, file: File, head: str) -> list[Work]:
    """Put the learner's work into one file of the new version, and what was typed since the interruption too."""
    mine, base, new = _saved(file), clone.blob(journal.old, file.path), clone.blob(head, file.target)
    if mine is None or same(file.path, mine, base):
        return []
    work = merged(file.path, file.target, base, new, mine)
    work.saved = paths.history() / file.saved
    wanted = new if work.result is None else work.result
    here = clone.root / file.target
    now = read(here)
    works = [work]
    if wanted is not None and now != wanted:
        if not (now is None or not readable(file.target, now) or any(same(file.target, now, known) for known in (new, mine, base, wanted))):
            later = merged(file.target, file.target, new, wanted, now, outputs=True)
            later.saved = save(file.target, now)
            wanted = wanted if later.result is None else later.result
            works.append(later)
        write(here, wanted)
    return works


def _back(clone: Clone, journal: Journal) -> None:
    """Everything as it was before the update, and what was typed since the interruption kept."""
    clone.wait_for_lock(journal.began)
    clone.run("reset", "-q")
    incoming = clone.incoming(journal.old, journal.new)
    taken = {file.path for file in journal.files}
    half_done = [path for path in clone.changed_here() if path in incoming and path not in taken]
    for path in half_done:
        now = read(clone.root / path)
        if now is not None and not (clone.blob(journal.new, path) or b"").startswith(now):
            save(path, now)
    clone.restore(half_done)
    for path, state in incoming.items():
        now = read(clone.root / path) if state == "A" else None
        if now is not None and (clone.blob(journal.new, path) or b"").startswith(now):  # whole, or cut off while git wrote it
            (clone.root / path).unlink()
    for file in journal.files:
        _put_back(clone, journal, file)


def _put_back(clone: Clone, journal: Journal, file: File) -> None:
    mine, here = _saved(file), clone.root / file.path
    now = read(here)
    if mine is None or now == mine:
        return
    base = clone.blob(journal.old, file.path)
    known = (base, clone.blob(journal.new, file.path), mine)
    if now is None or not readable(file.path, now) or any(same(file.path, now, one) for one in known):
        write(here, mine)
        return
    save(file.path, now)
    later = merged(file.path, file.path, base, mine, now, outputs=True)
    write(here, mine if later.result is None else later.result)
