"""The panels: what they say and in which order, the same in HTML and in text, and nothing of an answer unescaped."""

import html.parser
import io
import re

import pytest

from course_lib.grading import catalogue, feedback, progress
from course_lib.grading.verdict import STATUSES, Case, Diagnosis, Verdict

pytest_plugins = ["fake_judge"]
EXERCISE = catalogue.find("merge_states")
ODD = "<script>alert(1)</script> & \"q\" 'a' \x1b[31mred\x1b[0m \x00 {0} %s \ud800 \u202eabc"


class Check(html.parser.HTMLParser):
    """Collects the tags, and that each is closed."""

    def __init__(self):
        super().__init__()
        self.open, self.tags, self.attributes, self.text = [], set(), set(), ""

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attributes}
        if tag != "br":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def parsed(text):
    check = Check()
    check.feed(text)
    assert not check.open
    return check


def verdict(status="failed", **changes):
    base = {
        "exercise": "merge_states",
        "chapter": 3,
        "status": status,
        "points": 3 if status == "passed" else 0,
        "max_points": 3,
        "diagnosis": None if status == "passed" else Diagnosis("x", "Wrong from the second tile on.\n    acc = acc + p @ v\nLook at `acc`."),
        "cases": [Case("one tile", "passed"), Case("2 tiles of 4 keys", "passed" if status == "passed" else "failed", "row 0 differs", 0.1)],
        "seconds": 0.4,
        "details": {
            "seed": 7,
            "printed": "hello from the answer\n",
            "traceback": "" if status != "error" else 'File "this cell", line 3\nZeroDivisionError',
            "probe": "2 tiles of 4 keys",
            "shapes": ["a SoftmaxState(acc [3, 5])", "b SoftmaxState(acc [3, 5])"],
            "leaf": "acc",
            "place": [0, 2],
            "expected": "0.4127",
            "got": "0.8809",
            "multiple": 4.2,
        },
    }
    return Verdict(**{**base, **changes})


@pytest.mark.parametrize("status", STATUSES)
def test_every_status_has_a_panel_in_both_forms(status):
    extra = feedback.Extra(saved="answers/x.py" if status == "passed" else None, next="Next: tiled_attention.", notes=("A note.",))
    page, text = feedback.panel_html(verdict(status), EXERCISE, extra), feedback.panel_text(verdict(status), EXERCISE, extra)
    check = parsed(page)
    assert page.startswith('<div role="status" aria-live="polite"') and "script" not in check.tags
    assert check.attributes <= {"role", "aria-live", "aria-label", "style", "open"}
    assert feedback.ACCENT[status] in page and "background:#fcfcfa" in page
    headline = text.splitlines()[0]
    assert "merge_states" in headline and headline in check.text and "A note." in text and "A note." in check.text


def test_a_failure_shows_the_diagnosis_first_then_the_evidence_then_what_to_try_then_the_cases():
    for shown in (feedback.panel_html(verdict(), EXERCISE), feedback.panel_text(verdict(), EXERCISE)):
        order = "not right yet, second tile on, Input, 2 tiles, Shapes, acc at, Expected, 0.4127, Got, 0.8809, 4.2 times, Seed, hint, row 0 differs"
        positions = []
        for word in order.split(", "):
            positions.append(shown.index(word, positions[-1] if positions else 0))
        assert positions == sorted(positions)
    assert 'hint("merge_states")' in feedback.panel_text(verdict(), EXERCISE)
    assert "course hint merge_states" in feedback.panel_text(verdict(), EXERCISE, feedback.Extra(shell=True))


def test_a_pass_shows_points_what_was_checked_where_it_is_saved_and_what_comes_next():
    text = feedback.panel_text(verdict("passed"), EXERCISE, feedback.Extra(saved="answers/x.py", next="Next: tiled_attention."))
    assert "3 of 3 points" in text and "2 cases: one tile" in text and "answers/x.py" in text and "Next: tiled_attention." in text
    assert "hint" not in text and "Expected" not in text


def test_one_point_is_a_point():
    assert "1 of 1 point\n" in feedback.panel_text(verdict("passed", points=1, max_points=1), EXERCISE)


def test_everything_is_escaped_and_cleaned():
    odd = verdict(
        "error",
        diagnosis=Diagnosis("x", ODD),
        cases=[Case(ODD, "failed", ODD)],
        details={"printed": ODD, "traceback": ODD, "probe": ODD, "got": ODD, "shapes": [ODD], "place": ODD, "seed": ODD},
    )
    page, text = feedback.panel_html(odd, EXERCISE, feedback.Extra(notes=(ODD,), graded=ODD)), feedback.panel_text(odd, EXERCISE)
    check = parsed(page)
    assert "script" not in check.tags and "<script>" in check.text
    for shown in (page, text):
        assert not re.search(r"[\x00-\x08\x1b\ud800\u202e]", shown)
        shown.encode("utf-8")


def test_code_in_a_message_is_set_as_code():
    page = feedback.panel_html(verdict(), EXERCISE)
    assert re.search(r"<pre[^>]*>    acc = acc \+ p @ v</pre>", page) and re.search(r"<code[^>]*>acc</code>", page)


@pytest.mark.parametrize(
    "details",
    [
        {},
        {"probe": None, "shapes": None},
        {"shapes": "odd", "multiple": "4", "place": 3},
        {"printed": None, "seed": None},
        {"multiple": float("nan")},
    ],
)
def test_details_may_be_missing(details):
    assert "not right yet" in feedback.panel_text(verdict(details=details), EXERCISE)


def test_a_verdict_without_cases_and_an_unknown_status():
    assert "later_status" in feedback.panel_text(verdict("later_status", cases=[], diagnosis=None), None)
    assert parsed(feedback.panel_html(verdict("later_status", cases=[], diagnosis=None), None))


def test_text_is_at_most_as_wide_as_it_says():
    long = verdict(diagnosis=Diagnosis("x", "word " * 200))
    assert max(map(len, feedback.panel_text(long, EXERCISE).splitlines())) <= feedback.WIDTH


def test_a_terminal_that_knows_only_ascii():
    class Ascii(io.TextIOWrapper):
        pass

    file = Ascii(io.BytesIO(), encoding="ascii")
    feedback.print_panel(feedback.message_panel("über \u03b1"), file)
    file.flush()
    assert b"?ber" in file.buffer.getvalue()


def test_a_terminal_gets_a_frame():
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    file = Terminal()
    feedback.print_panel(feedback.verdict_panel(verdict(diagnosis=Diagnosis("x", "see [bold]a[0][/bold]")), EXERCISE, feedback.Extra()), file)
    assert "[bold]a[0][/bold]" in file.getvalue() and "merge_states is not right yet" in file.getvalue() and "─" in file.getvalue()


def test_hints_one_more_each_time_then_none():
    texts = [feedback.as_text(feedback.hint_panel(EXERCISE, n, fresh=True)) for n in (1, 2, 3)]
    assert texts[0].startswith("Hint 1 of 3") and "2 more hints" in texts[0] and "1 more hint after" in texts[1]
    assert EXERCISE.hints[0] in re.sub(r"\s+", " ", texts[2]) and 'solution("merge_states")' in texts[2]
    assert "no more hints" in feedback.as_text(feedback.hint_panel(EXERCISE, 3, fresh=False))


def test_the_solution_is_shown_whole():
    assert parsed(feedback.as_html(feedback.solution_panel(EXERCISE))).text.count("torch.maximum") == 1


def test_the_overview_in_both_forms(home):
    overview = progress.overview()
    page, text = feedback.overview_html(overview), feedback.overview_text(overview)
    exercises = catalogue.exercises()
    for words in (f"0 of {sum(e.points for e in exercises.values())} points", "merge_states", "not started", f"Next: {next(iter(exercises))}"):
        assert words in parsed(page).text and words in text


@pytest.mark.parametrize(
    ("value", "words"), [(4.2, "4.2 times"), (250, "250 times"), (float("inf"), "more than 10,000"), (float("nan"), ""), (None, "")]
)
def test_the_error_is_a_multiple_of_plain_pytorchs(value, words):
    text = feedback.panel_text(verdict(details={"multiple": value}), EXERCISE)
    assert (words in text) if words else ("Largest error" not in text)


def test_an_input_that_the_diagnosis_names_is_not_named_twice():
    said = verdict(diagnosis=Diagnosis("x", "Wrong. Smallest failing input: 2 tiles of 4 keys, seed 7."), cases=[])
    assert feedback.panel_text(said, EXERCISE).count("2 tiles of 4 keys") == 1


# ---------------------------------------------------------------- evidence that can be read


def test_the_seed_stands_in_one_place():
    said = verdict(diagnosis=Diagnosis("x", "Wrong. Smallest failing input: 2 tiles of 4 keys, seed 7."))
    assert feedback.panel_text(said, EXERCISE).count("seed") + feedback.panel_text(said, EXERCISE).count("Seed") == 1
    assert "Seed" in feedback.panel_text(verdict(), EXERCISE)


def test_a_sign_does_not_shift_the_columns():
    details = {"expected_row": ["0.4127", "1.5000", "0.0000"], "got_row": ["-0.4127", "-11.5000", "NaN"]}
    lines = feedback.panel_text(verdict(details=details), EXERCISE).splitlines()
    expected, got = (next(line for line in lines if line.startswith(label)) for label in ("Expected:", "Got:"))
    assert len(expected) == len(got) and [m.end() for m in re.finditer(r"\S+", expected)][1:] == [m.end() for m in re.finditer(r"\S+", got)][1:]


@pytest.mark.parametrize(
    ("multiple", "said"), [(0.0057, None), (0.0, None), (float("nan"), None), (1.0, "1 times"), (9.97, "10 times"), (4.2, "4.2 times")]
)
def test_a_multiple_below_one_is_not_said(multiple, said):
    text = feedback.panel_text(verdict(details={"multiple": multiple}), EXERCISE)
    assert (f"Largest error: {said} the error of plain PyTorch" in text) if said else "Largest error" not in text


def test_the_input_of_the_case_is_folded_and_can_be_copied():
    source = "x = torch.tensor([[0.5, -1.0],\n                  [2.0, 1.0]])\nrow_shares(x)"
    page = feedback.panel_html(verdict(details={"input": source}), EXERCISE)
    assert "The input of this case</summary>" in page and feedback.escape(source) in page
    assert "The input of this case" not in feedback.panel_html(verdict("passed", details={"input": source}), EXERCISE)
