"""What `course update` prints: what came in, what became of the learner's work, where the saved copies are. Only words."""

import sys

from course_lib.commands.notebook_merge import Entry
from course_lib.commands.update_work import Work
from course_lib.grading.book import short

REQUIREMENTS = {"constraints.txt", "pyproject.toml", "environment.yml", "Makefile"}


def say(text: str = "", to=None) -> None:
    """Print, also where the terminal does not know a character."""
    to = to or sys.stdout
    try:
        print(text, file=to, flush=True)
    except UnicodeEncodeError:
        print(text.encode("ascii", "backslashreplace").decode(), file=to, flush=True)


def describe(subjects: list[str], old: str, new: str, incoming: dict[str, str], works: list[Work], untouched: list[str], dry: bool) -> None:
    """The report of an update, or of what it would do."""
    commits = f"{len(subjects)} change{'' if len(subjects) == 1 else 's'}" if subjects else "a newer version"
    step = f" ({old[:7]} to {new[:7]})" if old else ""
    say(f"{'Would take' if dry else 'Took'} {commits}{step}; {len(incoming)} file{'' if len(incoming) == 1 else 's'} of the course differ.")
    for subject in subjects[:15]:
        say(f"  - {subject}")
    if len(subjects) > 15:
        say(f"  and {len(subjects) - 15} more")
    say_works(works)
    if untouched:
        say(f"\nNot touched, because the course did not change them: {', '.join(untouched)}")
    _say_what_next(incoming, works, dry)


def say_works(works: list[Work]) -> None:
    for work in works:
        if work.trouble or work.remark or any(vars(work.report).values()):
            say(f"\n{work.path}")
            _say_work(work)


def _say_work(work: Work) -> None:
    report = work.report
    if work.trouble:
        say(f"  not placed: {work.trouble}")
    if work.remark:
        say(f"  {work.remark}")
    if report.placed:
        say(f"  your answers, put back: {', '.join(entry.name for entry in report.placed)}")
        for entry in report.placed:
            _say_if(f"    {entry.name}: ", entry.why)
    for entry in report.not_placed:
        say(f"  not placed: {entry.name}: {entry.why}")
    if report.own:
        say(f"  your own cells, kept: {len(report.own)}")
    _say_entries("your version of a course cell, kept", report.edited)
    _say_entries("came back", report.came_back)
    _say_entries("only in the saved copy", report.only_saved)
    if work.saved:
        say(f"  as it was before: {short(work.saved)}")


def _say_if(start: str, text: str) -> None:
    if text:
        say(start + text)


def _say_entries(what: str, entries: list[Entry]) -> None:
    for entry in entries[:10]:
        say(f"  {what}: {entry.name!r} ({entry.why})")
    if len(entries) > 10:
        say(f"  {what}: {len(entries) - 10} more")


def _say_what_next(incoming: dict[str, str], works: list[Work], dry: bool) -> None:
    if dry:
        say("\nThis was a dry run: no file was changed.")
        return
    if REQUIREMENTS & set(incoming):
        say("\nWhat the course needs installed may have changed: run make lab once.")
    if any(path.endswith(".ipynb") for path in incoming):
        say("\nIf a notebook is open in JupyterLab, choose File > Reload Notebook from Disk before you type into it.")
    unplaced = sum(bool(work.trouble) + len(work.report.not_placed) for work in works)
    if unplaced:
        say(f"\n{unplaced} of your texts could not be placed; the lines above say which. answers/ was not touched.")
