"""Claim cards: said, got, verdict; a claim without a source or a computed value is refused."""

import pytest
import torch

from course_lib.claims import VERDICTS, claim, claim_card

GIVEN = {
    "said": "N = 64K takes 16 GB in fp16",
    "source": "note 004, section 1.1",
    "got": f"{65536**2 * 2 / 2**30:g} GiB a head",
    "verdict": "off by two",
}


def test_the_three_lines(capsys):
    claim(**GIVEN, why="16 GiB is the fp32 figure")
    assert capsys.readouterr().out.splitlines() == [
        "Said: N = 64K takes 16 GB in fp16 (note 004, section 1.1)",
        "We get: 8 GiB a head",
        "Verdict: Off by two; 16 GiB is the fp32 figure.",
    ]


@pytest.mark.parametrize(
    ("got", "words"),
    [(0.4812345, "0.4812"), (torch.tensor(0.5), "0.5"), (8 * 2**30, "8,589,934,592"), (True, "yes"), (float("inf"), "inf"), ("a text", "a text")],
)
def test_values_as_words(got, words):
    assert f"We get: {words}" in claim_card(**{**GIVEN, "got": got}).text


def test_unit_and_escaping():
    card = claim_card("a < b", "x & y", 3, "right", unit="MiB")
    assert "We get: 3 MiB" in card.text and "a &lt; b (x &amp; y)" in card.html


@pytest.mark.parametrize("verdict", [*VERDICTS, "Wrong: it is quadratic", "off by a factor of 2"])
def test_verdicts(verdict):
    assert claim_card(**{**GIVEN, "verdict": verdict}).text.lower().endswith(verdict.lower() + ".")


def test_colour_follows_the_longest_verdict():
    assert VERDICTS["right with a condition"] in claim_card(**{**GIVEN, "verdict": "right with a condition: D <= M"}).html


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"source": ""}, "source is missing"),
        ({"source": None}, "source must be text"),
        ({"said": "  "}, "said is empty"),
        ({"verdict": "maybe"}, "begin it with one of"),
        ({"got": ""}, "what this cell computed"),
        ({"got": None}, "what this cell computed"),
        ({"got": float("nan")}, "got is nan"),
        ({"got": [1, 2]}, "what this cell computed"),
        ({"got": torch.ones(3)}, "what this cell computed"),
    ],
)
def test_refused_in_a_sentence(change, words):
    with pytest.raises(ValueError, match=words):
        claim_card(**{**GIVEN, **change})
