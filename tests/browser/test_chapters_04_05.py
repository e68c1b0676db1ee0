"""Chapters 04 and 05 in JupyterLab, in a real browser: their explorers answer to the keyboard, a wrong kernel is told why, a right one turns green.

Only the cells that this needs are run; tests/test_notebooks_run.py runs them all, without a browser.
"""

import json

import pytest

from course_lib.grading import catalogue
from course_lib.grading.feedback import ACCENT
from tests.browser.test_chapter03 import PANEL, border, words_of
from tools.run_notebooks import statuses
from tools.sync import exercise_cell

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]

SET_UP = (r"^import os, sys", r"^print\(hardware\.describe\(\)\)")
BOOKS = {
    "04_triton_from_zero.ipynb": {
        r"^grid_explorer\.explorer\(\)": (".k-elements .noUi-handle", "ArrowRight"),
        r"^tile_explorer\.explorer\(\)": (".k-block-m .noUi-handle", "ArrowRight"),
    },
    "05_flash_forward.ipynb": {
        r"^tile_walk\.stepper\(\)": (".k-walk-step .noUi-handle", "ArrowRight"),
        r"block_sizes\.explorer\(\)": (".k-blocks-stages .noUi-handle", "ArrowRight"),
    },
}
ANSWERS = {"04_triton_from_zero.ipynb": ("vector_add", "x-twice"), "05_flash_forward.ipynb": ("flash_io_bytes", "compulsory")}


@pytest.fixture(scope="module", params=BOOKS)
def book(request, session):
    """A notebook that is open, with its set-up cells run."""
    session.open(request.param)
    for pattern in SET_UP:
        session.run(session.holding(pattern))
    return request.param


def test_a_key_on_a_slider_moves_each_figure(book, session, shots):
    for pattern, (handle, key) in BOOKS[book].items():
        place = session.holding(pattern)
        session.run(place)
        image = session.node(place, ".k-widget img")
        source, alt = image.get_attribute("src"), image.get_attribute("alt")
        session.node(place, handle).focus()
        session.page.keyboard.press(key)
        image = session.node(place, ".k-widget img", f"e => e.alt !== {json.dumps(alt)}")
        assert image.get_attribute("src") != source and len(image.get_attribute("alt")) > 40, pattern
        shots(f"{book[:2]}_{handle.split()[0][1:]}", session.node(place))
    assert session.errors() == []


def test_a_wrong_answer_is_told_its_mistake_and_a_right_one_turns_green(book, session, shots):
    name, mistake = ANSWERS[book]
    exercise = catalogue.find(name)
    (mutant,) = [mutant for mutant in catalogue.checks(exercise.chapter)[name].mutants if mutant.id == mistake]
    place = session.tagged(f"exercise:{name}")

    def answered(text: str, when: str):
        session.write(place, text)
        session.run(place)
        return session.node(place, PANEL, when)

    panel = answered(f"{mutant.text(exercise.solution).rstrip()}\n\ncheck({name})", "e => e.textContent.includes('not right yet')")
    assert mutant.message.replace("`", "") in words_of(panel) and border(panel) == ACCENT["failed"]
    shots(f"{book[:2]}_wrong", panel, "end")
    panel = answered(exercise_cell(exercise, solved=True), "e => e.textContent.includes(' passed')")
    assert words_of(panel).startswith(f"{name} passed: {exercise.points} of {exercise.points} points") and border(panel) == ACCENT["passed"]
    assert statuses(session.home)[name] == "passed" and session.errors() == []
