"""What the reader sees: a verdict as a panel, in HTML and in plain text. Pure functions from data to data.

Read from `verdict.details`, each where it is there: seed; printed; traceback; checked and notes (sentences); and of the smallest
failing input probe, shapes, input (Python to paste), leaf, place, expected, got, expected_row, got_row, multiple (of plain
PyTorch's error). How panels become HTML or text lies in `rendering`.
"""

import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from course_lib.grading.rendering import ACCENT, WIDTH, Panel, as_html, as_text, clean, escape, overview_html, overview_text, print_panel
from course_lib.grading.verdict import Verdict
from course_lib.source import Exercise

__all__ = [
    "ACCENT",
    "Extra",
    "Panel",
    "as_html",
    "as_text",
    "clean",
    "escape",
    "hint_panel",
    "message_panel",
    "overview_html",
    "overview_text",
    "panel_html",
    "panel_text",
    "print_panel",
    "solution_panel",
    "solution_question",
    "verdict_panel",
]

_HEADLINE = {
    "passed": "{name} passed: {points} of {max_points} {unit}",
    "failed": "{name} is not right yet",
    "error": "{name} stopped with an error",
    "timeout": "{name} took too long",
    "not_attempted": "{name} is not written yet",
    "blocked": "{name} needs hardware that is not here",
    "needs_review": "{name} needs a person to look at it",
}
_CASE_WORDS = {
    "passed": "passed",
    "failed": "wrong",
    "error": "error",
    "timeout": "too long",
    "blocked": "not run",
    "needs_review": "to be looked at",
}


@dataclass(frozen=True)
class Extra:
    """What the panel says besides the verdict. `shell`: commands are named as one types them in a terminal."""

    saved: str | None = None  # where the answer was saved, as a relative path
    next: str = ""  # the sentence about the next exercise
    notes: tuple[str, ...] = ()
    graded: str = ""  # which text was graded, where that is not plain from the cell
    shell: bool = False


def panel_html(verdict: Verdict, exercise: Exercise | None = None, extra: Extra | None = None) -> str:
    """The verdict as one piece of HTML."""
    return as_html(verdict_panel(verdict, exercise, extra or Extra()))


def panel_text(verdict: Verdict, exercise: Exercise | None = None, extra: Extra | None = None) -> str:
    """The verdict as plain text, the same content in the same order."""
    return as_text(verdict_panel(verdict, exercise, extra or Extra()))


def verdict_panel(verdict: Verdict, exercise: Exercise | None, extra: Extra) -> Panel:
    """What a verdict says: what happened; why; the evidence; what to try; then the cases."""
    details = verdict.details if isinstance(verdict.details, Mapping) else {}
    words = {
        "name": verdict.exercise,
        "points": verdict.points,
        "max_points": verdict.max_points,
        "unit": "point" if verdict.max_points == 1 else "points",
    }
    paragraphs = [verdict.diagnosis.message] if verdict.diagnosis else []
    if verdict.status == "passed":
        paragraphs = [*_checked(verdict, details), *([f"Your answer is saved in {extra.saved}."] if extra.saved else [])]
    elif not paragraphs:
        paragraphs = [_first_message(verdict)]
    return Panel(
        status=verdict.status,
        headline=_HEADLINE.get(verdict.status, "{name}: " + str(verdict.status)).format(**words),
        paragraphs=tuple(p for p in [*paragraphs, extra.graded] if p),
        facts=tuple(_facts(verdict, details)),
        after=tuple(
            p
            for p in [*_notes(verdict, details), *extra.notes, _try(verdict, exercise, extra), extra.next if verdict.status == "passed" else ""]
            if p
        ),
        folds=tuple(_folds(verdict, details)),
    )


def _checked(verdict: Verdict, details: Mapping) -> list[str]:
    given = details.get("checked")
    if given:
        return [given] if isinstance(given, str) else [str(sentence) for sentence in given]
    if not verdict.cases:
        return []
    names = "; ".join(case.name for case in verdict.cases[:4]) + ("; and more" if len(verdict.cases) > 4 else "")
    return [f"Checked on {len(verdict.cases)} {'case' if len(verdict.cases) == 1 else 'cases'}: {names}."]


def _notes(verdict: Verdict, details: Mapping) -> list[str]:
    """What a passing answer has not been checked for."""
    given = details.get("notes")
    return [str(sentence) for sentence in given] if verdict.status == "passed" and isinstance(given, list | tuple) else []


def _first_message(verdict: Verdict) -> str:
    return next((case.message for case in verdict.cases if case.status != "passed" and case.message), "")


def _facts(verdict: Verdict, details: Mapping) -> list[tuple[str, str]]:
    """The evidence in rows; whatever the judge did not say is left out."""
    facts, message = [], verdict.diagnosis.message if verdict.diagnosis else ""
    if verdict.status != "passed":
        place = " at ".join(str(details[key]) for key in ("leaf", "place") if details.get(key) not in (None, "", []))
        said = "Smallest failing input" in message
        expected, got = _aligned(details.get("expected_row"), details.get("got_row"))
        facts = [
            ("Input", "" if said else details.get("probe")),
            ("Shapes", _listed(details.get("shapes"), "\n")),
            ("First wrong place", place),
            ("Expected", expected or details.get("expected")),
            ("Got", got or details.get("got")),
            ("Largest error", _multiple(details.get("multiple"))),
        ]
    if verdict.status in ("passed", "failed", "error", "timeout", "needs_review"):
        facts.append(("Seed", None if f"seed {details.get('seed')}." in message else details.get("seed")))  # once is enough
    return [(label, str(value)) for label, value in facts if value is not None and value != ""]


def _aligned(expected: object, got: object) -> tuple[str, str]:
    """The two rows of numbers, one under the other: a minus sign shifts nothing."""
    rows = [[str(item) for item in row] if isinstance(row, list | tuple) else [] for row in (expected, got)]
    wide = max((len(word) for row in rows for word in row), default=0)
    return tuple("  ".join(word.rjust(wide) for word in row) for row in rows)


def _listed(value: object, between: str) -> str:
    return between.join(str(item) for item in value) if isinstance(value, list | tuple) else str(value or "")


def _multiple(value: object) -> str:
    """An error as a multiple of plain PyTorch's own, where it is one: below 1 it explains nothing."""
    if not isinstance(value, int | float) or not value >= 1:  # NaN too
        return ""
    if value >= 10_000:
        return "more than 10,000 times the error of plain PyTorch"
    return f"{value:.2g} times the error of plain PyTorch" if value < 9.95 else f"{value:,.0f} times the error of plain PyTorch"


def _try(verdict: Verdict, exercise: Exercise | None, extra: Extra) -> str:
    name = verdict.exercise
    command = f"`course hint {name}`" if extra.shell else f'`hint("{name}")`'
    if verdict.status == "not_attempted":
        where = f"`course check {name}`" if extra.shell else "the cell"
        return f"Write its body and run {where} again. {command} gives a first idea."
    if verdict.status in ("failed", "timeout", "error") and (exercise is None or exercise.hints):
        return f"To go on: mend it and check again. {command} gives the next hint."
    return ""


def _folds(verdict: Verdict, details: Mapping) -> list[tuple[str, str, bool]]:
    folds = []
    if details.get("input") and verdict.status != "passed":
        folds.append(("The input of this case", str(details["input"]), False))
    if details.get("traceback"):
        folds.append(("Where it stopped", str(details["traceback"]), verdict.status == "error"))
    if verdict.cases:
        folds.append((_case_summary(verdict), "\n".join(_case_lines(verdict)), False))
    if details.get("printed"):
        folds.append(("What your code printed", str(details["printed"]), False))
    return folds


def _case_summary(verdict: Verdict) -> str:
    counts: dict[str, int] = {}
    for case in verdict.cases:
        word = _CASE_WORDS.get(case.status, case.status)
        counts[word] = counts.get(word, 0) + 1
    head = f"{len(verdict.cases)} case{'' if len(verdict.cases) == 1 else 's'}"
    return f"{head}: {', '.join(f'{n} {word}' for word, n in counts.items())} ({verdict.seconds:.1f} s)"


def _case_lines(verdict: Verdict) -> Iterable[str]:
    wide = max(len(_CASE_WORDS.get(case.status, case.status)) for case in verdict.cases)
    before = None
    for case in verdict.cases:
        yield f"{_CASE_WORDS.get(case.status, case.status):<{wide}}  {case.name}"
        if case.message and case.status != "passed":
            if case.message == before:
                yield " " * (wide + 4) + "(the same)"
                continue
            before = case.message
            yield from textwrap.wrap(case.message, WIDTH - wide - 8, initial_indent=" " * (wide + 4), subsequent_indent=" " * (wide + 4))


# ---------------------------------------------------------------- other panels


def message_panel(headline: str, *paragraphs: str, status: str = "note") -> Panel:
    return Panel(status, headline, tuple(p for p in paragraphs if p))


def hint_panel(exercise: Exercise, shown: int, *, fresh: bool, shell: bool = False) -> Panel:
    """The hints up to number `shown`, the newest first; fresh: it had not been shown before."""
    if not exercise.hints:
        return message_panel(f"{exercise.name} has no hints", _solution_words(exercise, shell))
    older = "\n\n".join(f"{number}. {text}" for number, text in enumerate(exercise.hints[: shown - 1], 1))
    left = len(exercise.hints) - shown
    after = f"{left} more hint{'' if left == 1 else 's'} after this one." if left else "That was the last hint. " + _solution_words(exercise, shell)
    headline = f"Hint {shown} of {len(exercise.hints)} for {exercise.name}"
    if not fresh:
        headline = f"There are no more hints for {exercise.name}; this was the last"
        after = _solution_words(exercise, shell)
    return Panel("note", headline, (exercise.hints[shown - 1],), after=(after,), folds=(("Earlier hints", older, False),) if older else ())


def _solution_words(exercise: Exercise, shell: bool) -> str:
    return f"{f'`course solution {exercise.name}`' if shell else f'`solution({chr(34)}{exercise.name}{chr(34)})`'} shows the whole answer."


def solution_panel(exercise: Exercise) -> Panel:
    return Panel(
        "note",
        f"The course's solution of {exercise.name}",
        ("One way among several. Your own text is untouched.",),
        folds=(("Solution", exercise.solution, True),),
    )


def solution_question(exercise: Exercise, shell: bool) -> Panel:
    again = f"`course solution {exercise.name}`" if shell else f'`solution("{exercise.name}")`'
    return message_panel(f"The solution of {exercise.name}", f"This shows the whole answer. Run {again} again to see it.")
