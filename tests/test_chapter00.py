"""Chapter 00: every mistake gets its own sentence, right answers pass, the demonstration leaves no trace, the figures hold together."""

import dataclasses
import re
import sys

import pytest

from course_lib import ceilings, door, paths
from course_lib.figures import core, start_here
from course_lib.grading import catalogue
from course_lib.widgets.start_here import try_check

EXERCISE = catalogue.find("copy_bandwidth")
MATERIAL = catalogue.checks(0)["copy_bandwidth"]


def text(body: str) -> str:
    return f"{EXERCISE.preamble}\n\n{body}"


def test_the_solution_and_other_styles_pass(judge):
    for body in (EXERCISE.solution, *MATERIAL.right):
        assert judge.check("copy_bandwidth", text(body)).status == "passed", body


@pytest.mark.parametrize("mutant", MATERIAL.mutants, ids=lambda m: m.id)
def test_every_mistake_is_named(judge, mutant):
    verdict = judge.check("copy_bandwidth", text(mutant.text(EXERCISE.solution)), seed=11)
    assert verdict.status == "failed" and verdict.diagnosis.id == mutant.id and mutant.message in verdict.diagnosis.message


@pytest.mark.parametrize(
    "line, id",
    [
        ("return 20.0", "unknown"),
        ("return None", "type"),
        ("return 3 * elements * bytes_each / seconds / 1e9", "unknown"),
        ("return elements / second", "exception"),
    ],
)
def test_what_is_no_known_mistake_is_not_given_a_name(judge, line, id):
    verdict = judge.check("copy_bandwidth", f"def copy_bandwidth(elements, bytes_each, seconds):\n    {line}\n", seed=3)
    assert verdict.status == "failed" and verdict.diagnosis.id == id


def test_the_demonstration_shows_a_failed_check_and_saves_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("COURSE_HOME", str(tmp_path))
    card = try_check("copy_bandwidth", "def copy_bandwidth(elements, bytes_each, seconds):\n    return elements * bytes_each * 8 / seconds / 1e9\n")
    assert "Expected 20.0, got 80.0" in card.text and "nothing was saved" in card.text and "not right yet" in card.html
    assert not list(tmp_path.rglob("*.py")) and not paths.answers().exists() and not (paths.records() / "progress.json").exists()


def test_other_ceilings_or_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(door.recorded, "RESULTS", tmp_path)
    assert "python benchmarks/ceilings.py" in repr(door.ceilings_elsewhere())
    door.recorded.write("ceilings", "What it reaches", [{"ceiling": "copy", "GB/s": 4200.0}], tmp_path)
    assert "4,200" in repr(door.ceilings_elsewhere())


def _ceilings(device: str, copy: float, **rates: float) -> ceilings.Ceilings:
    one = ceilings.Ceiling(copy, copy, copy, "how")
    return ceilings.Ceilings("x", device, "2026-11-21", {}, one, one, {name: dataclasses.replace(one, median=rate) for name, rate in rates.items()})


MACHINES = {
    "laptop": _ceilings("cpu", 3e10, fp32=2e11, bf16=4e9, fp16=2.5e9),
    "fast CPU": _ceilings("cpu", 2e11, fp32=2e12, bf16=2e13, fp16=1e12),
    "T4": _ceilings("cuda", 2.4e11, fp32=4.1e12, fp16=2.4e13),
    "H200": _ceilings("cuda", 4.2e12, fp32=5e13, tf32=4e14, bf16=7.5e14, fp16=7.4e14),
    "level": _ceilings("cpu", 3e10, fp32=2e11, bf16=2e11, fp16=2e11),
}


@pytest.mark.parametrize("mine", MACHINES.values(), ids=MACHINES)
def test_the_ceilings_figures_hold_their_words(mine):
    for picture in (start_here.bandwidths(mine), start_here.matmul_rates(mine)):
        assert core.crowding(picture.figure) == [] and "B200" in picture.alt and len(picture.alt) > 60


def test_the_map_and_the_repeats():
    assert core.crowding(start_here.course_map().figure) == []
    slow = start_here.repeats([0.037] + [0.007, 0.0071, 0.009] * 9)
    even = start_here.repeats([0.007] * 12 + [0.0075])
    assert "the first took 5.2 times as long" in slow.title and "the slowest took 1.1 times as long" in even.title
    assert core.crowding(slow.figure) == [] and core.crowding(even.figure) == []
    with pytest.raises(ValueError, match="at least 5 times"):
        start_here.repeats([1.0, 2.0])


# ---- the first cell ----


def test_the_model_writes_and_the_sentence_says_how_fast():
    said, text = door.writing(words=12, seed=3)
    assert re.search(r"12 tokens \(pieces of words\) in \d+\.\d\d seconds, \d+ a second\. It has 8 million parameters", said)
    assert text.startswith(door.PROMPT) and len(text) > len(door.PROMPT) + 12


def test_the_text_is_made_now_and_not_kept():
    """The same seed, the same text; another seed or none, another text."""
    texts = [door.writing(words=30, seed=seed)[1] for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]
    assert len({door.writing(words=30)[1] for _ in range(4)}) > 1


def test_the_first_card_shows_all_of_it():
    card = door.welcome(n=256, words=8, seed=1)
    assert "<pre" in card.html and "&quot;&quot;&quot;" in card.html and door.PROMPT in card.text
    for words in ("A language model writes, here and now", "This machine.", "Measured now. Attention over 256 keys", "chapter 05"):
        assert words in card.text, words


def test_a_missing_package_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    said, text = door.writing()
    assert "`pip install tokenizers`, then run this cell again" in said and text == ""
    assert "<pre" not in door.welcome(n=256).html
