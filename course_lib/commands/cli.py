"""The command `course`: which subcommand is meant, its arguments, its exit code. What a command does lies elsewhere.

Exit codes: 0 done (for check: all passed), 1 not (for check: not all passed), 2 the command cannot be understood or
its files cannot be read or written; 130 after Ctrl-C. What went wrong with the command goes to stderr.
"""

import argparse
import difflib
import os
import subprocess
import sys
from collections.abc import Callable, Sequence

from course_lib import paths
from course_lib.chapters import chapter

_COMMANDS: dict[str, tuple[str, Callable[[list[str]], int]]] = {}


class UsageError(Exception):
    """The command cannot be done as it was given; the message says what to give instead. Exit code 2."""


def command(name: str, summary: str):
    def register(function: Callable[[list[str]], int]):
        _COMMANDS[name] = (summary, function)
        return function

    return register


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    argv = list(sys.argv[1:] if argv is None else argv)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a terminal that knows only ASCII still shows the rest
    try:
        code = _dispatch(argv)
        sys.stdout.flush()
        return code
    except UsageError as error:
        print(f"course: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\ncourse: stopped.", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `course progress | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141


def _dispatch(argv: list[str]) -> int:
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(_help())
        return 0 if argv else 2
    name, rest = argv[0], argv[1:]
    if name not in _COMMANDS:
        near = difflib.get_close_matches(name, _COMMANDS, n=1, cutoff=0.5)
        raise UsageError(f"there is no command {name!r}. {f'Did you mean `course {near[0]}`?' if near else 'See `course --help`.'}")
    return _COMMANDS[name][1](rest)


def _help() -> str:
    wide = max(map(len, _COMMANDS))
    lines = ["course COMMAND [...]   the commands of Attention, Tile by Tile", ""]
    lines += [f"  {name:<{wide}}  {summary}" for name, (summary, _) in _COMMANDS.items()]
    return "\n".join([*lines, "", "course COMMAND --help says more about one of them."])


class Parser(argparse.ArgumentParser):
    """Errors become the one sentence that `main` prints."""

    def error(self, message: str):
        raise UsageError(f"{self.prog.removeprefix('course ')}: {message}. See `{self.prog} --help`.")


def _parser(name: str, **options) -> Parser:
    options.setdefault("description", _COMMANDS[name][0] if name in _COMMANDS else None)
    return Parser(prog=f"course {name}", formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False, **options)


def _parse(parser: Parser, argv: list[str]) -> argparse.Namespace | None:
    """The arguments; None after --help."""
    try:
        return parser.parse_args(argv)
    except SystemExit:
        return None


def find_exercise(name: str):
    from course_lib.grading import catalogue

    try:
        return catalogue.find(name)
    except catalogue.UnknownExercise as error:
        raise UsageError(str(error)) from None


# ---------------------------------------------------------------- check


@command("check", "grade one exercise, several, a chapter or everything")
def _check(argv: list[str]) -> int:
    from course_lib.commands import check

    return check.main(argv)


@command("hint", "show the next hint of an exercise")
def _hint(argv: list[str]) -> int:
    return _panel_of("hint", argv)


@command("solution", "show the solution of an exercise (asks once before)")
def _solution(argv: list[str]) -> int:
    return _panel_of("solution", argv)


def _panel_of(name: str, argv: list[str]) -> int:
    parser = _parser(name)
    parser.add_argument("name", metavar="NAME", help="an exercise")
    arguments = _parse(parser, argv)
    if arguments is None:
        return 0
    exercise = find_exercise(arguments.name)
    from course_lib.grading import api, feedback

    panel = api.next_hint(exercise, shell=True) if name == "hint" else api.next_solution(exercise, shell=True)
    feedback.print_panel(panel, sys.stdout)
    return 0


@command("progress", "show where you are and what comes next")
def _progress(argv: list[str]) -> int:
    if _parse(_parser("progress"), argv) is None:
        return 0
    from course_lib.grading import feedback, progress

    print(feedback.overview_text(progress.overview()), end="")
    return 0


@command("reset", "put the stub of an exercise back (your text is saved first)")
def _reset(argv: list[str]) -> int:
    parser = _parser("reset")
    parser.add_argument("name", metavar="NAME", help="an exercise")
    arguments = _parse(parser, argv)
    if arguments is None:
        return 0
    exercise = find_exercise(arguments.name)
    from course_lib.grading import book, progress

    try:
        done = book.reset(exercise)
        notes = progress.forget(exercise) if done else []
    except book.BookError as error:
        raise UsageError(f"reset: {error}") from None
    if not done:
        print(f"There was nothing to reset: {exercise.name} has no text of yours in answers/ or exercises/.")
    else:
        print("\n".join([*done, *notes, "A notebook keeps its cells as they are: `course update` or your own hands change those."]))
    return 0


@command("doctor", "look for what would stop the course from working here")
def _doctor(argv: list[str]) -> int:
    from course_lib.commands import doctor

    if _parse(_parser("doctor"), argv) is None:
        return 0
    return doctor.main()


@command("lab", "open JupyterLab on the first notebook; further arguments go to it")
def _lab(argv: list[str]) -> int:
    if argv[:1] in (["-h"], ["--help"]):
        print("course lab [ARGUMENTS FOR JUPYTERLAB]\n\nStarts JupyterLab on notebooks/00_start_here.ipynb.")
        return 0
    import importlib.util

    if importlib.util.find_spec("jupyterlab") is None:
        print("course: JupyterLab is not installed here. `make lab` installs and starts it, or run: pip install jupyterlab", file=sys.stderr)
        return 1
    first = chapter(0).notebook
    if not first.exists():
        raise UsageError(f"lab: notebooks/{first.name} is missing from this checkout. `git status` shows what was removed.")
    as_root = ["--allow-root"] if hasattr(os, "geteuid") and os.geteuid() == 0 and "--allow-root" not in argv else []
    page = f"--LabApp.default_url=/lab/tree/notebooks/{first.name}"  # not the file itself: its folder would become the root, and hide answers/
    return subprocess.call([sys.executable, "-m", "jupyterlab", *as_root, page, *argv], cwd=paths.ROOT)


@command("update", "take a new version of the course without losing your work")
def _update(argv: list[str]) -> int:
    try:
        from course_lib.commands import update
    except ImportError as error:
        raise UsageError(f"update cannot start here: {error}") from None
    return update.main(argv)


@command("grade", "grade files of answers or a class of submissions, and write a report (CSV, JSON, Gradescope, JUnit, Classroom 50)")
def _grade(argv: list[str]) -> int:
    from course_lib.commands import grade

    return grade.main(argv)


@command("bench", "race the course's kernels against their peers on this machine")
def _bench(argv: list[str]) -> int:
    from course_lib.commands import bench

    return bench.main(argv)


@command("review", "look at the graded answers that need a person, and decide")
def _review(argv: list[str]) -> int:
    from course_lib.commands import grade_review

    return grade_review.main(argv)


if __name__ == "__main__":
    from course_lib.commands.cli import main as course  # the module the commands import, not this second copy of it

    sys.exit(course())
