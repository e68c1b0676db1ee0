"""Predictions: asked, kept, compared; nothing blocks, and nothing is lost."""

import json
import os
import stat
import subprocess
import sys

import numpy as np
import pytest
import torch

from course_lib import prediction_book, predictions
from course_lib.paths import ROOT, records
from course_lib.predictions import compare, comparison_card, predict, question_card, save_guess, summary_card

WIDGET = "application/vnd.jupyter.widget-view+json"


@pytest.fixture(autouse=True)
def own_home(tmp_path, monkeypatch):
    monkeypatch.setenv("COURSE_HOME", str(tmp_path))
    predictions._asked.clear()
    prediction_book.unsaved.clear()
    yield tmp_path
    prediction_book.unsaved.clear()


def stored() -> dict:
    return json.loads((records() / "predictions.json").read_text())["predictions"]


def test_no_answer_goes_on():
    card = question_card("k", "How many?", "reads")
    assert "Predict: How many? (reads)" in card.text and "Not answered yet" in card.text and "guess=12" in card.text
    assert comparison_card("k", 32, "reads").text == "You made no prediction; it is 32 reads."
    assert "Not answered yet" in question_card("k", "How many?", "reads").text, "measuring does not close an open question"


def test_a_guess_is_kept_and_compared(capsys):
    predict("k", "How many?", unit="MiB", guess=16)
    compare("k", 32, note="Most people forget that both sides grow.")
    out = capsys.readouterr().out
    assert "You said 16. It is 32 MiB: 2 times your guess." in out and "both sides grow" in out
    entry = stored()["k"]
    assert (
        (entry["guess"], entry["measured"], entry["unit"], entry["question"]) == (16, 32, "MiB", "How many?") and entry["at"] and entry["measured_at"]
    )


def test_it_can_be_changed_until_measured_and_then_stays():
    question_card("k", "How many?", guess=16)
    assert "You said 20" in save_guess("k", 20)
    comparison_card("k", 32)
    assert "stays" in save_guess("k", 32) and stored()["k"]["guess"] == 20
    card = question_card("k", "How many?")
    assert "You said 20; it was measured as 32." in card.text and card.extra == {}
    assert "stays" not in question_card("k", "How many?", guess=20).text, "running the same cell again is no change"


def test_forget_opens_it_again_and_keeps_history(capsys):
    question_card("k", "How many?", guess=16)
    comparison_card("k", 32)
    predictions.forget("k")
    assert "Not answered" in question_card("k", "How many?").text
    assert stored()["k"]["history"][0]["guess"] == 16 and stored()["k"]["history"][0]["measured"] == 32
    assert "open again" in capsys.readouterr().out


def test_a_question_that_changed_keeps_the_old_guess_in_history():
    question_card("k", "How many?", "MiB", guess=16)
    predictions._asked.clear()  # a new session, after an update of the course
    card = question_card("k", "How many bytes?", "bytes")
    assert "has changed since" in card.text and stored()["k"]["guess"] is None and stored()["k"]["history"][0]["guess"] == 16
    predictions._asked.clear()
    save_guess("k", 5, unit="bytes")
    assert "You said 5 bytes" in question_card("k", "How many bytes, better worded?", "bytes").text


@pytest.mark.parametrize(
    ("measured", "words"),
    [
        (16, "exactly"),
        (16.5, "within 3 %"),
        (4, "your guess is 4 times that"),
        (0, "It is 0."),
        (torch.tensor(32.0), "2 times"),
        (np.float32(32), "2 times"),
        (float("nan"), "It is nan"),
    ],
)
def test_verdicts(measured, words):
    save_guess("k", 16)
    assert words in comparison_card("k", measured).text
    json.loads((records() / "predictions.json").read_text(), parse_constant=lambda text: pytest.fail(text))


def test_choices():
    question_card("k", "Which?", choices=["two passes", "one pass"], guess="ONE PASS ")
    assert stored()["k"]["guess"] == "one pass"
    assert comparison_card("k", "one pass").text == "You said one pass. It is one pass: right."
    assert "1 of 1 choices right" in summary_card().text
    assert "not one of the choices" in save_guess("j", "three", ["a", "b"]) and "j" not in stored()


@pytest.mark.parametrize(
    ("guess", "words"),
    [
        ("abc", "is not a number"),
        ("", "box is empty"),
        ("nan", "finite"),
        ("inf", "finite"),
        ("-1", "at least 0"),
        (True, "not a number"),
        ("1" * 400, "finite"),
        ("12 bananas", "not a number"),
        ([1], "not a number"),
    ],
)
def test_bad_guesses_get_a_sentence_and_store_nothing(guess, words):
    assert words in save_guess("k", guess, unit="MiB")
    assert not (records() / "predictions.json").exists()
    assert words in question_card("k", "How many?", "MiB", guess=guess).text


@pytest.mark.parametrize(
    ("guess", "value"), [("1,024", 1024), ("1e6", 10**6), ("3.5 MiB", 3.5), (" 7 ", 7), ("16mib", 16), ("1_000", 1000), (np.float64(2.5), 2.5)]
)
def test_ways_to_write_a_number(guess, value):
    save_guess("k", guess, unit="MiB")
    assert stored()["k"]["guess"] == value


def test_negative_numbers_where_they_are_possible():
    assert "You said -3" in save_guess("k", "\u22123", least=None)


def test_one_key_for_two_questions_is_noticed():
    question_card("k", "How many?")
    assert "used for another question" in question_card("k", "How long?").text


@pytest.mark.parametrize("given", [("", "Q?"), ("k", " "), (3, "Q?"), ("k", "Q?", "", "abc"), ("k", "Q?", "", ["a"]), ("k", "Q?", "", ["a", "a"])])
def test_a_question_that_is_none(given):
    with pytest.raises(ValueError, match="predict"):
        predict(*given)


@pytest.mark.parametrize("measured", [None, [1, 2], torch.ones(2), np.ones(3)])
def test_a_measurement_that_is_none(measured):
    with pytest.raises(ValueError, match="compare needs"):
        compare("k", measured)


@pytest.mark.parametrize(
    "text", ["{", "[]", "null", '{"predictions": 3}', '{"predictions": {"k": 5}}', '{"predictions": {"k": {"guess": [1]}}}', "\x00\xff"]
)
def test_a_broken_file_is_moved_aside(text):
    records().mkdir()
    (records() / "predictions.json").write_bytes(text.encode("latin-1"))
    assert "moved to predictions.broken-" in question_card("k", "How many?", guess=3).text
    aside = list(records().glob("predictions.broken-*.json"))
    assert len(aside) == 1 and aside[0].read_bytes() == text.encode("latin-1")
    assert stored()["k"]["guess"] == 3


def test_a_folder_that_cannot_be_made_costs_a_sentence(own_home, monkeypatch):
    (own_home / ".course").write_text("a file in the way")
    said = question_card("k", "How many?", guess=3).text
    assert "You said 3" in said and "could not be saved" in said or "cannot be read" in said
    assert "2 times" in comparison_card("k", 6).text, "it is kept for this session"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder(own_home):
    records().mkdir()
    records().chmod(stat.S_IRUSR | stat.S_IXUSR)
    assert "could not be saved" in question_card("k", "How many?", guess=3).text
    records().chmod(0o700)


def test_an_unreadable_file_is_not_overwritten(monkeypatch):
    save_guess("old", 1)
    before = (records() / "predictions.json").read_bytes()
    monkeypatch.setattr(type(records()), "read_text", lambda *a, **k: (_ for _ in ()).throw(PermissionError(13, "Permission denied")))
    assert "cannot be read" in question_card("k", "How many?", guess=3).text
    assert (records() / "predictions.json").read_bytes() == before


def test_a_full_disk_keeps_the_old_file(monkeypatch):
    save_guess("old", 1)

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(prediction_book.os, "replace", full)
    assert "No space left on device" in question_card("k", "How many?", guess=3).text
    assert stored()["old"]["guess"] == 1 and "k" not in stored()
    assert not list(records().glob(".*.tmp"))
    monkeypatch.undo()
    monkeypatch.setenv("COURSE_HOME", str(records().parent))


def test_two_processes_lose_nothing(own_home):
    code = "import sys\nfrom course_lib.predictions import save_guess\nfor i in range(15): save_guess(f'{sys.argv[1]}{i}', i)"
    env = {**os.environ, "COURSE_HOME": str(own_home), "PYTHONPATH": str(ROOT)}
    both = [subprocess.Popen([sys.executable, "-c", code, name], env=env) for name in "ab"]
    assert [process.wait(60) for process in both] == [0, 0]
    assert len(stored()) == 30


def test_summary_and_calibration():
    assert "No predictions yet" in summary_card().text
    for key, guess, measured in (("a", 10, 20), ("b", 40, 5), ("c", 3, None)):
        question_card(key, f"Question {key}?", "MiB", guess=guess)
        if measured:
            comparison_card(key, measured)
    text = summary_card().text
    assert "Question a?: you said 10, it is 20 MiB (it / you = 2.00)" in text and "not measured yet" in text
    assert "2 numbers guessed: off by a factor of 4.00 on average" in text and "too high" in text  # sqrt(2 * 8), and 2 / 8 < 1
    assert "<table" in summary_card().html


def test_the_box_saves(monkeypatch):
    import ipywidgets

    made = []
    keep = ipywidgets.VBox.__init__
    # The outermost box is made last.
    monkeypatch.setattr(ipywidgets.VBox, "__init__", lambda self, *a, **k: (made.append(self), keep(self, *a, **k))[1])
    card = question_card("k", "How many?", "reads")
    head, row, said = made[-1].children
    box, save = row.children
    assert card.bundle()[WIDGET]["model_id"] == made[-1].model_id and "How many?" in head.value
    box.value = "lots"
    save.click()
    assert "is not a number" in said.value and "k" in stored() and stored()["k"]["guess"] is None
    box.value = "3"
    save.click()
    assert "You said 3 reads" in said.value and stored()["k"]["guess"] == 3
    question_card("k", "How many?", "reads")
    assert made[-1].children[1].children[0].value == "3"
    question_card("c", "Which?", choices=["a", "b"])
    buttons, save = made[-1].children[1].children
    assert buttons.value is None
    save.click()
    assert "Choose one of" in made[-1].children[2].value
    buttons.value = "b"
    save.click()
    assert stored()["c"]["guess"] == "b"


def test_words_of_the_learner_are_escaped():
    assert "<script>" not in question_card("k", "1 < 2 <script>?", guess="<script>").html


# ---------------------------------------------------------------- answering by key, and arithmetic


@pytest.mark.parametrize("question", [..., None])
def test_a_guess_typed_by_key_alone_is_stored(question):
    question_card("k", "How many?", "MiB", least=None)
    predictions._asked.clear()  # a new session
    predict("k", question, guess=-12)
    assert stored()["k"]["guess"] == -12 and stored()["k"]["question"] == "How many?" and stored()["k"]["unit"] == "MiB"


def test_the_hint_that_is_shown_is_the_form_that_works(capsys):
    shown = question_card("ch03-overflow", "From where on?").text
    call = shown[shown.index("predict(") : shown.rindex(")") + 1]
    assert call == 'predict("ch03-overflow", guess=12)'
    eval(call, {"predict": predict})
    assert "You said 12" in capsys.readouterr().out and stored()["ch03-overflow"]["guess"] == 12
    shown = question_card("c", "Which?", choices=["a bit", "a lot"]).text
    eval(shown[shown.index("predict(") : shown.rindex(")") + 1], {"predict": predict})
    assert stored()["c"]["guess"] == "a bit"


def test_a_key_that_was_never_asked_is_said_in_a_sentence(capsys):
    question_card("ch03-overflow", "From where on?")
    predict("ch03-overfow", guess=12)
    assert "Did you mean 'ch03-overflow'?" in capsys.readouterr().out and "ch03-overfow" not in stored()
    predict("else", ..., guess=12)
    assert "Run the cell that asks it first" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("typed", "value"),
    [
        ("exp(-2)", 0.1353352832366127),
        ("2**7", 128),
        ("2^7", 128),
        ("4096*64*4/2**20", 1),
        ("4,096*64", 262144),
        ("4096 \u00d7 64", 262144),
        ("log(8, 2)", 3),
        ("math.sqrt(2) + pi - e", 1.8375230246832428),
        ("-(3 + 1) * -1", 4),
        ("1 024", 1024),
        ("2**7 MiB", 128),
    ],
)
def test_a_guess_may_be_arithmetic(typed, value):
    save_guess("k", typed, unit="MiB")
    assert stored()["k"]["guess"] == pytest.approx(value)


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ("9**9**9**9", "too large"),
        ("1/0", "divides by 0"),
        ("__import__('os').getcwd()", "not a number"),
        ("exp", "not a number"),
        ("(-2)**0.5", "not a number"),
        ("x + 1", "not a number"),
        ("log(0)", "not a number"),
        ("exp(1, 2)", "not a number"),
        ("exp(x=1)", "not a number"),
        ("'a'*9", "not a number"),
        ("1+" * 90 + "1", "not a number"),
        ("(" * 150, "not a number"),
        ("2j", "not a number"),
        ("torch.nn.exp(1)", "not a number"),
        ("1e400*0", "finite"),
    ],
)
def test_arithmetic_that_is_none_stores_nothing(typed, words):
    assert words in save_guess("k", typed) and not (records() / "predictions.json").exists()


def test_one_of_a_unit_is_singular():
    question_card("k", "How often?", "reads", guess=1)
    assert "You said 1 read. It can" in question_card("k", "How often?", "reads").text
    assert "It is 1 read: exactly" in comparison_card("k", 1).text
    assert "It is 3 reads: 3 times" in comparison_card("k", 3).text


def test_measured_numbers_have_no_exponent():
    question_card("k", "How long?", "ms", guess=2000)
    assert "It is 1,850 ms" in comparison_card("k", 1850.4).text and "it was measured as 1,850 ms" in question_card("k", "How long?", "ms").text


def test_two_questions_in_one_cell_do_not_touch():
    widgets = pytest.importorskip("ipywidgets")
    card = question_card("k", "How many?")
    view = widgets.Widget._all_widgets if hasattr(widgets.Widget, "_all_widgets") else None
    from ipywidgets.widgets import widget

    known = getattr(widget, "_instances", None) or view or widgets.Widget.widgets
    outer = known[card.extra[WIDGET]["model_id"]]
    assert outer.layout.margin.split()[2] != "0"
