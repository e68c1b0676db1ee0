"""One attempt from text to verdict: history, judge, answer book, progress. Shared by notebooks and the shell.

Nothing here draws anything, and no trouble with the disk stops a grade: it becomes a note beside the verdict.
"""

from dataclasses import dataclass, field

from course_lib import hardware, paths
from course_lib.grading import answer, book, progress
from course_lib.grading.feedback import Extra
from course_lib.grading.verdict import Case, Diagnosis, Verdict
from course_lib.source import Exercise, fingerprint


@dataclass
class Outcome:
    """What came of an attempt: the verdict, and what else the panel says."""

    exercise: Exercise
    verdict: Verdict
    saved: str | None = None
    notes: list[str] = field(default_factory=list)
    graded: str = ""

    def extra(self, shell: bool = False) -> Extra:
        following = progress.next_exercise(self.exercise) if self.verdict.status == "passed" else None
        words = progress.following_words(following) if self.verdict.status == "passed" else ""
        return Extra(saved=self.saved, next=words, notes=tuple(self.notes), graded=self.graded, shell=shell)


def plain_verdict(exercise: Exercise, status: str, id: str, message: str) -> Verdict:
    """A verdict that needs no judge: nothing written, or no text that could run."""
    cases = [] if status == "not_attempted" else [Case(name="reading the answer", status="error", message=message)]
    return Verdict(exercise.name, exercise.chapter, status, 0, exercise.points, Diagnosis(id, message), cases, hardware.tier())


def refused(exercise: Exercise, error: answer.AnswerError) -> Outcome:
    """The outcome for a text that cannot be put together."""
    status = "not_attempted" if error.id == "missing" else "error"
    return Outcome(exercise, plain_verdict(exercise, status, {"missing": "no_answer"}.get(error.id, error.id), str(error)))


def from_book(exercise: Exercise, seed: int | None = None) -> Outcome:
    """Grade what stands in the answer book, after taking over an edited exercises/ file."""
    notes = []
    try:
        adopted = book.adopt(exercise)
        notes += [adopted] if adopted else []
    except answer.AnswerError as error:
        return refused(exercise, error)
    except book.BookError as error:
        notes.append(str(error))
    where = book.short(book.path_of(exercise))
    try:
        section = book.read_in_place(exercise)
    except book.BookError as error:
        return Outcome(exercise, plain_verdict(exercise, "error", "answer_book", str(error)), notes=notes)
    if section is None or not section.strip():
        stubs = book.short(book.exercise_file(exercise))
        message = f"There is no text of {exercise.name} in {where} yet. Write it in the notebook, or in {stubs}, and check again."
        return Outcome(exercise, plain_verdict(exercise, "not_attempted", "no_answer", message), notes=notes)
    try:
        text = answer.from_file(exercise.name, section, where, book.stubs_by_name())
    except answer.AnswerError as error:
        outcome = refused(exercise, error)
    else:
        outcome = grade(exercise, text, seed, standing=section)
    outcome.notes[:0] = notes
    return outcome


def grade(exercise: Exercise, text: str, seed: int | None = None, standing: str | None = None) -> Outcome:
    """Grade one answer text, and keep it. standing: the section of the answer book that it was taken from, if it was."""
    if answer.is_stub(exercise.name, text, exercise.stub):
        return Outcome(exercise, plain_verdict(exercise, "not_attempted", "stub", "This is still the text you were given."))
    notes = _quietly(lambda: book.save_history(exercise.name, text, "attempt"))
    verdict = judged(exercise, text, seed)
    outcome = Outcome(exercise, verdict, notes=notes)
    if verdict.status == "passed":
        _keep(outcome, text, standing)
    accepted = fingerprint(standing or text) if verdict.status == "passed" and outcome.saved else None
    outcome.notes += _quietly(lambda: progress.record(exercise, verdict, accepted), "Your progress was not recorded: ")
    return outcome


def judged(exercise: Exercise, text: str, seed: int | None) -> Verdict:
    """The judge's verdict. Where the judge itself cannot work, that is said, and it is no verdict on the answer."""
    try:
        from course_lib.grading.client import get_judge

        return get_judge().check(exercise.name, text, seed)
    except Exception as error:
        message = (
            f"The grader itself could not run ({type(error).__name__}: {error}). This says nothing about your answer, which is kept in "
            f"{book.short(paths.history() / exercise.name)}. `course doctor` looks for the cause."
        )
        return plain_verdict(exercise, "error", "grader", message)


def warm_up() -> None:
    """Start the judge, so that the first check need not wait for it. Never raises."""
    try:
        from course_lib.grading.client import get_judge

        get_judge().start()
    except Exception:  # the first check says what is wrong
        pass


def _keep(outcome: Outcome, text: str, standing: str | None) -> None:
    """Write a passed answer into the answer book, unless it came from there."""
    exercise = outcome.exercise
    if standing is not None:
        outcome.saved = book.short(book.path_of(exercise))
        return
    try:
        written = book.write_section(exercise, text)
    except book.BookError as error:
        outcome.notes.append(f"Your answer passed but is not saved: {error}")
        return
    outcome.saved = book.short(written.path)
    outcome.notes += written.notes


def _quietly(action, before: str = "") -> list[str]:
    """Do something on disk; trouble becomes a note."""
    try:
        result = action()
    except book.BookError as error:
        return [before + str(error)]
    return list(result) if isinstance(result, list) else []
