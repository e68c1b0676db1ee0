"""What chapter 00 shows of the grader: the panel of a check, on a text that is nobody's answer. Nothing is saved or counted."""

from course_lib.cards import Card
from course_lib.grading import catalogue, client, feedback


def try_check(name: str, text: str, seed: int = 0) -> Card:
    """Grade `text` as an answer to the exercise `name`, and return the panel. Progress, history and answers stay as they are."""
    exercise = catalogue.find(name)
    verdict = client.get_judge().check(exercise.name, f"{exercise.preamble}\n\n{text}", seed)
    panel = feedback.verdict_panel(verdict, exercise, feedback.Extra(notes=("A demonstration: nothing was saved, no attempt was counted.",)))
    return Card(feedback.as_html(panel), feedback.as_text(panel))
