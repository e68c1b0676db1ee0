"""What a notebook calls: check, hint, solution, progress. Each shows a panel and returns None; none raises on a wrong answer.

`last_verdict` holds the verdict of the latest check, for those who want to look at it in code.
"""

import inspect
import linecache
import os
import sys
from collections.abc import Callable
from pathlib import Path

from course_lib.grading import answer, attempt, book, catalogue, feedback, session
from course_lib.grading import progress as records
from course_lib.grading.verdict import Verdict
from course_lib.source import Exercise

last_verdict: Verdict | None = None
_NOTHING = object()  # None is what a function without a return gives: that is another mistake
session.recorder()  # from here on it is known how far each cell got
if session.in_kernel():
    session.in_background(attempt.warm_up)  # the judge's start takes seconds, the reading before the first check longer


def check(fn_or_name: Callable | str = _NOTHING, seed: int | None = None) -> None:
    """Grade an exercise and show what came of it. Takes the function or its name; `seed` repeats the values of an earlier check."""
    global last_verdict
    if fn_or_name is _NOTHING:
        _ask_for_a_name("check")
        return
    last_verdict = None
    exercise = _exercise(fn_or_name, "check")
    if exercise is None or _bad_seed(seed):
        return
    outcome = _outcome(exercise, fn_or_name, seed)
    last_verdict = outcome.verdict
    _show(feedback.verdict_panel(outcome.verdict, exercise, outcome.extra()))


def hint(name: Callable | str | None = None) -> None:
    """Show the next hint of an exercise; without a name, of the exercise checked last."""
    if name is None:
        name = last_verdict.exercise if last_verdict else None
    if name is None:
        _ask_for_a_name("hint")
        return
    exercise = _exercise(name, "hint")
    if exercise is not None:
        _show(next_hint(exercise))


def _ask_for_a_name(caller: str) -> None:
    name = last_verdict.exercise if last_verdict else next(iter(catalogue.exercises()))
    _show(feedback.message_panel(f"{caller} needs the name of an exercise", f'For example `{caller}("{name}")`. `progress()` lists them all.'))


_seen: dict[str, int] = {}  # hints shown in this session, for where the progress file cannot be written


def next_hint(exercise: Exercise, shell: bool = False) -> feedback.Panel:
    """One hint more than last time, remembered; at the end the last one again."""
    seen = max(records.entries()[0][exercise.name]["hints_shown"], _seen.get(exercise.name, 0))
    number = min(seen + 1, len(exercise.hints))
    _seen[exercise.name] = number
    if number > seen:
        _remember(exercise, lambda entry: entry.update(hints_shown=number))
    return feedback.hint_panel(exercise, number, fresh=number > seen, shell=shell)


def solution(name: Callable | str | None = None) -> None:
    """Show the course's solution of an exercise. It asks once before."""
    if name is None:
        _ask_for_a_name("solution")
        return
    exercise = _exercise(name, "solution")
    if exercise is not None:
        _show(next_solution(exercise))


_asked: set[str] = set()


def next_solution(exercise: Exercise, shell: bool = False) -> feedback.Panel:
    """The question the first time, the solution from then on. The reader's own text is not touched."""
    if exercise.name in _asked or records.entries()[0][exercise.name].get("solution_asked") is True:
        _remember(exercise, lambda entry: entry.update(solution_shown=True))
        return feedback.solution_panel(exercise)
    _asked.add(exercise.name)
    remembered = _remember(exercise, lambda entry: entry.update(solution_asked=True))
    if shell and not remembered:  # the next command is another process and would ask again for ever
        return feedback.solution_panel(exercise)
    return feedback.solution_question(exercise, shell)


def progress(chapter: int | str | None = None) -> None:
    """Draw where you are: chapters, exercises, points, what comes next. With a number, one chapter: progress(3) or progress("03")."""
    number = None if chapter is None else _chapter(chapter)
    if chapter is not None and (number is None or not catalogue.of_chapter(number)):
        numbers = ", ".join(f"{n:02d}" for n in sorted({exercise.chapter for exercise in catalogue.exercises().values()}))
        text = f'It got {chapter!r:.60}. Exercises are in {numbers}: `progress("{numbers[:2]}")`; without a number it shows them all.'
        _show(feedback.message_panel("progress takes the number of a chapter with exercises", text, status="error"))
        return
    overview = records.overview(number)
    _display(feedback.overview_html(overview), feedback.overview_text(overview))


def _chapter(value: object) -> int | None:
    """3, "3", "03" -> 3."""
    digits = str(value).strip() if isinstance(value, int | str) and not isinstance(value, bool) else ""
    return int(digits) if digits.isascii() and digits.isdigit() and len(digits) <= 3 else None


# ---------------------------------------------------------------- which exercise, which text


def _exercise(fn_or_name: object, caller: str) -> Exercise | None:
    """The exercise that is meant; None after a panel that says what is wrong."""
    name = fn_or_name if isinstance(fn_or_name, str) else getattr(fn_or_name, "__name__", None)
    if not isinstance(name, str) or inspect.ismodule(fn_or_name):
        kind = type(fn_or_name).__name__
        example = next(iter(catalogue.exercises()))
        text = f'It got something of type {kind}. Give it the function itself or its name: `{caller}({example})` or `{caller}("{example}")`.'
        _show(feedback.message_panel(f"{caller} takes an exercise", text, status="error"))
        return None
    try:
        return catalogue.find(name.strip())
    except catalogue.UnknownExercise as error:
        sentence = str(error)
        _show(feedback.message_panel(f"{caller}: no exercise of that name", sentence[0].upper() + sentence[1:], status="error"))
        return None


def _bad_seed(seed: object) -> bool:
    if seed is None or (isinstance(seed, int) and not isinstance(seed, bool) and 0 <= seed < 2**63):
        return False
    _show(
        feedback.message_panel(
            "check takes a seed that is a whole number", f"It got {seed!r}. Leave it out, or give a number from 0 on: `seed=7`.", status="error"
        )
    )
    return True


def _outcome(exercise: Exercise, fn_or_name: object, seed: int | None) -> attempt.Outcome:
    """Grade the definition in this session; else, for a name, what stands in the answer book."""
    place, cells, namespace = _written(exercise, fn_or_name)
    if not answer.defines(exercise.name, cells):
        return _without_definition(exercise, cells, place, namespace, seed)
    try:
        text = answer.build(exercise.name, cells, namespace, book.stubs_by_name(), place)
    except answer.AnswerError as error:
        return attempt.refused(exercise, error)
    return attempt.grade(exercise, text, seed)


def _without_definition(exercise: Exercise, cells: list[answer.Cell], place: str, namespace: set[str], seed: int | None) -> attempt.Outcome:
    """No definition here: grade the answer book's text, or say what to do."""
    outcome = attempt.from_book(exercise, seed)
    if outcome.verdict.diagnosis is None or outcome.verdict.diagnosis.id not in ("no_answer", "answer_book"):
        outcome.graded = f"Graded was the text in {book.short(book.path_of(exercise))}: this session has no definition of {exercise.name}."
    elif outcome.verdict.diagnosis.id == "no_answer":
        message = _why_missing(exercise, cells, place)
        outcome.verdict = attempt.plain_verdict(exercise, "not_attempted", "no_answer", message)
    return outcome


def _why_missing(exercise: Exercise, cells: list[answer.Cell], place: str) -> str:
    try:
        answer.build(exercise.name, cells, place=place)
    except answer.AnswerError as error:
        if "no top-level" not in str(error):
            return str(error)
    return f"No cell of this session that ran defines {exercise.name}. Write `{exercise.opening}` at the start of a line, run that cell, and check again."


def _written(exercise: Exercise, fn_or_name: object) -> tuple[str, list[answer.Cell], set[str]]:
    """(where the reader writes, the texts that ran, the names that exist): cells of a notebook, or the file of a script."""
    recorder = session.recorder()
    if recorder is not None:
        return "this cell", recorder.cells(), {name for name in recorder.ip.user_ns if not name.startswith("__")}
    path = _source_file(fn_or_name)
    if path is None:
        return "a cell or a file", [], set()
    return os.path.basename(path), [answer.Cell("".join(linecache.getlines(path)))], set()


def _source_file(fn_or_name: object) -> str | None:
    """Outside notebooks: the script in which the function stands."""
    if isinstance(fn_or_name, str):
        path = getattr(sys.modules.get("__main__"), "__file__", None)
    else:
        try:
            path = inspect.getsourcefile(inspect.unwrap(getattr(fn_or_name, "fn", fn_or_name)))
        except TypeError:
            path = None
    return path if path and os.path.exists(path) and not book.short(Path(path)).startswith("solutions/") else None


def _remember(exercise: Exercise, change: Callable[[dict], None]) -> bool:
    """Note it in the progress file; what cannot be written is shown all the same. Returns whether it was written."""
    try:
        records.update(exercise.name, change)
    except book.BookError:
        return False
    return True


# ---------------------------------------------------------------- showing


def _show(panel: feedback.Panel) -> None:
    if session.shell() is None:
        feedback.print_panel(panel, sys.stdout)
        return
    _display(feedback.as_html(panel), feedback.as_text(panel))


def _display(html: str, text: str) -> None:
    if session.shell() is None:
        print(text)
        return
    from IPython.display import display

    display({"text/html": html, "text/plain": text}, raw=True)
