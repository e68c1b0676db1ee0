"""Chapter 03 as a reader has it: in JupyterLab, in a real browser. Opened, run, stepped through, answered wrongly and rightly.

Set COURSE_SHOTS=FOLDER to keep pictures of every state in both themes.
"""

import json
import re
from dataclasses import dataclass

import pytest

from course_lib.commands.notebook_cells import source_of
from course_lib.grading import catalogue
from course_lib.grading.feedback import ACCENT
from course_lib.source import parse_answers
from tools.drive_lab import ROOT, Session
from tools.run_notebooks import statuses
from tools.sync import exercise_cell

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]

NAME = "03_online_softmax.ipynb"
LIMIT = 90.0  # seconds for Run All in a browser; tests/test_notebooks_run.py is stricter, without one
EXERCISE = catalogue.find("merge_states")
MISTAKE = "acc-not-rescaled"
PANEL = ".jp-OutputArea-output [role=status]"
FROM_OUTSIDE = (  # complaints that do not come from the course's outputs: (text of the console, why it is there)
    ("colab-badge.svg", "the badge comes from the network, which a test machine may not have"),
    ("attachment:", "JupyterLab puts a picture's attachment in after the page has asked for it"),
)
READABLE = """() => {
  const rgba = text => { const n = text.match(/[\\d.]+/g).map(Number); return n.length > 3 ? n : [...n, 1] };
  const light = c => { const l = c.map(v => v / 255).map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
                       return 0.2126 * l[0] + 0.7152 * l[1] + 0.0722 * l[2] };
  const over = (top, below) => [0, 1, 2].map(i => top[i] * top[3] + below[i] * (1 - top[3]));
  const behind = element => { const layers = [];
    for (let e = element; e; e = e.parentElement) { const c = rgba(getComputedStyle(e).backgroundColor); layers.push(c); if (c[3] === 1) break }
    return layers.reverse().reduce((below, top) => over(top, below), [255, 255, 255]) };
  const found = [], texts = [];
  for (const root of document.querySelectorAll('.jp-OutputArea-output [role=status], .jp-OutputArea-output .course-card, .k-widget, .k-predict')) {
    for (let walk = document.createTreeWalker(root, NodeFilter.SHOW_TEXT); walk.nextNode();) {
      const element = walk.currentNode.parentElement, words = walk.currentNode.textContent.trim();
      if (!words || element.closest('option, style, script, button:disabled')) continue;
      const style = getComputedStyle(element), below = behind(element), ink = over(rgba(style.color), below);
      const [a, b] = [light(ink), light(below)].sort((x, y) => y - x), ratio = (a + 0.05) / (b + 0.05);
      texts.push(words);
      if (ratio < 4.5) found.push(`${ratio.toFixed(2)}:1 ${style.color} on ${below.map(Math.round)}: ${words.slice(0, 60)}`);
    }
  }
  return [texts.length, [...new Set(found)]];
}"""


@dataclass
class Chapter:
    """The notebook, opened and run from top to bottom with no exercise solved."""

    session: Session
    opened: float
    ran: float

    @property
    def exercise(self) -> int:
        return self.session.tagged(f"exercise:{EXERCISE.name}")

    def answer(self, text: str):
        """Put an answer into the exercise's cell, run it, and wait for its panel."""
        self.session.write(self.exercise, text)
        self.session.run(self.exercise)
        return self.session.node(self.exercise, PANEL)


@pytest.fixture(scope="module")
def chapter(session):
    before = learners_files()
    yield Chapter(session, session.open(NAME), session.run_all())
    assert learners_files() == before, "the test wrote into the checkout it was started from"


@pytest.fixture(scope="module")
def passed_panel(chapter):
    return chapter.answer(exercise_cell(EXERCISE, solved=True))


def learners_files() -> dict[str, float]:
    """What a test must leave alone: the work of whoever runs it."""
    found = [path for folder in ("answers", ".course") for path in (ROOT / folder).rglob("*")]
    return {str(path.relative_to(ROOT)): path.stat().st_mtime for path in found if path.is_file()}


def words_of(element) -> str:
    return re.sub(r"\s+", " ", element.text_content())


def border(element) -> str:
    red, green, blue = re.findall(r"\d+", element.evaluate("e => getComputedStyle(e).borderLeftColor"))[:3]
    return f"#{int(red):02x}{int(green):02x}{int(blue):02x}"


def test_it_opens_and_runs_to_the_end(chapter, shots):
    assert chapter.session.errors() == []
    counts = [cell["execution_count"] for cell in chapter.session.cells() if cell["cell_type"] == "code"]
    assert None not in counts, "Run All left cells out"
    assert chapter.ran < LIMIT, f"Run All took {chapter.ran:.0f} s"
    print(f"opened in {chapter.opened:.1f} s, Run All in {chapter.ran:.1f} s")
    shots("top", chapter.session.node(0))


def test_every_picture_is_there(chapter):
    """Each <img> of the page has an alt text and, unless it comes from the network, pixels."""
    for place in range(len(chapter.session.cells())):
        chapter.session.show(place)  # pictures far away from the view may not be decoded yet
    chapter.session.settle()
    pictures = chapter.session.page.evaluate(
        "[...document.querySelectorAll('.jp-Notebook img')].map(i => [i.src.slice(0, 80), i.alt, i.naturalWidth])"
    )
    assert len(pictures) > 5
    for source, alt, width in pictures:
        assert alt.strip(), f"a picture without alt text: {source}"
        assert width or source.startswith("https:"), f"a picture that is not shown: {source}, {alt[:80]}"


def test_a_key_on_the_slider_changes_the_figure(chapter, shots):
    session = chapter.session
    place = session.holding(r"^stepper\(")
    handle = session.node(place, ".k-step .noUi-handle")
    image = session.node(place, ".k-widget img")
    source, alt = image.get_attribute("src"), image.get_attribute("alt")
    assert alt.startswith("Step 2 of ")
    handle.focus()
    session.page.keyboard.press("ArrowRight")
    image = session.node(place, ".k-widget img", f"e => e.alt !== {json.dumps(alt)}")
    assert image.get_attribute("src") != source
    assert image.get_attribute("alt").startswith("Step 3 of "), image.get_attribute("alt")
    shots("stepper", session.node(place))
    session.node(place, ".k-back").click()
    assert session.node(place, ".k-widget img", f"e => e.alt === {json.dumps(alt)}").get_attribute("src") == source


def test_a_guess_is_kept(chapter, shots):
    session = chapter.session
    place = next(i for i, c in enumerate(session.cells()) if re.match(r"predict\([^\n]*\)\s*\Z", source_of(c)) and "choices=" not in source_of(c))
    key = re.search(r'predict\("([^"]+)"', session.source(place))[1]
    session.node(place, ".k-guess input").click()
    session.page.keyboard.type("16")
    session.node(place, ".k-save").click()
    session.node(place, ".k-predict", "e => e.textContent.includes('You said 16')")
    book = json.loads((session.home / ".course" / "predictions.json").read_text(encoding="utf-8"))
    assert book["predictions"][key]["guess"] == 16
    shots("prediction", session.node(place))
    compared = session.holding(rf'compare\("{key}"')
    session.run(compared)
    assert "You said 16. It is " in words_of(session.node(compared, PANEL))


def test_a_wrong_answer_is_told_its_mistake(chapter, shots):
    (mutant,) = [mutant for mutant in catalogue.checks(EXERCISE.chapter)[EXERCISE.name].mutants if mutant.id == MISTAKE]
    panel = chapter.answer(f"{mutant.text(EXERCISE.solution).rstrip()}\n\ncheck({EXERCISE.name})")
    assert mutant.message.replace("`", "") in words_of(panel)
    assert panel.get_attribute("role") == "status" and panel.get_attribute("aria-label") == f"{EXERCISE.name} is not right yet"
    assert border(panel) == ACCENT["failed"]
    assert panel.evaluate("e => e.scrollWidth <= e.clientWidth"), "the panel is wider than its frame"
    shots("wrong", panel, "end")
    assert chapter.session.errors() == []


def test_a_right_answer_turns_green_and_is_saved(chapter, passed_panel, shots):
    assert words_of(passed_panel).startswith(f"{EXERCISE.name} passed: {EXERCISE.points} of {EXERCISE.points} points")
    assert border(passed_panel) == ACCENT["passed"]
    shots("right", passed_panel, "end")
    book = chapter.session.home / "answers" / catalogue.file_of(EXERCISE.chapter)
    sections = parse_answers(book.read_text(encoding="utf-8"))
    assert "a.acc * a_scale[..., None]" in sections[EXERCISE.name]
    assert statuses(chapter.session.home)[EXERCISE.name] == "passed"


def test_progress_knows_it(chapter, passed_panel, shots):
    place = chapter.session.holding(r"^progress\(\)")
    chapter.session.run(place)
    panel = chapter.session.node(place, PANEL)
    row = panel.evaluate(
        "(panel, name) => { const cell = [...panel.querySelectorAll('div')].find(e => e.childElementCount === 0 && e.textContent === name);"
        " const all = [...cell.parentElement.children], at = all.indexOf(cell); return all.slice(at, at + 5).map(e => e.textContent) }",
        EXERCISE.name,
    )
    assert f"{EXERCISE.points} / {EXERCISE.points}" in row and any("passed" in words for words in row), row
    shots("progress", panel, "end")


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_every_word_can_be_read(chapter, passed_panel, theme):
    """All text of panels, cards and widgets has a contrast of 4.5:1 with what is behind it."""
    chapter.session.theme(theme)
    try:
        count, faint = chapter.session.page.evaluate(READABLE)
    finally:
        chapter.session.theme("light")
    assert count > 50, "hardly any text was looked at"
    assert faint == []


def test_the_browser_has_no_complaint_about_our_outputs(chapter, passed_panel):
    ours = [said for said in chapter.session.complaints if not any(text in said for text, _ in FROM_OUTSIDE)]
    assert ours == []
