"""The grader's report: figures that count what they say, a page that says what the JSON says, runs that go on."""

import json

import pytest

from course_lib.grading import catalogue
from course_lib.grading.verdict import Diagnosis, Verdict
from tools import grader_numbers, grader_report
from tools.grader_numbers import upper_bound

EXERCISE = catalogue.of_chapter(0)[0]
WHERE = {"machine": "CPU", "date": "2026-11-21", "versions": {"torch": "2"}, "containment": "answers run.", "command": "x"}
WHERE |= {"seeds": 2, "repeats": 2, "mutant seeds": 2, "mutant repeats": 2, "load": 1.0}


def test_the_page_says_what_the_json_says():
    assert grader_report.main(["--check"]) == 0


def test_the_committed_report_is_whole():
    """All chapters that were ready, 20 seeds and 20 repeats, and a class of 200."""
    report = json.loads(grader_report.RESULT.read_text(encoding="utf-8"))
    assert report["seeds"] >= 20 and report["repeats"] >= 20 and report["class"]["submissions"] >= 200
    total = report["total"]
    assert total["right answers"]["refused"]["of"] == report["seeds"] * total["right answers"]["texts"]
    assert total["mutants"]["killed"]["of"] == report["mutant seeds"] * total["mutants"]["texts"]
    right, mutants = report["repeats"] * total["right answers"]["texts"], report["mutant repeats"] * total["mutants"]["texts"]
    assert total["repeats"]["checks"] == right + mutants and report["mutant seeds"] >= 1 and report["mutant repeats"] >= 1
    for key in ("exercises",):
        assert total[key] == sum(one[key] for one in report["chapters"].values())


@pytest.mark.parametrize(
    ("hits", "trials", "bound"),
    [(0, 1, 0.95), (0, 10, 0.258866), (0, 500, 0.005974), (1, 10, 0.394163), (3, 20, 0.343664), (10, 10, 1.0), (0, 0, 1.0), (2, 6000, 0.001049)],
)
def test_upper_bounds(hits, trials, bound):
    """Against the tables (beta quantiles): qbeta(0.95, hits + 1, trials - hits)."""
    assert upper_bound(hits, trials) == pytest.approx(bound, rel=2e-3)


def test_the_rule_of_three():
    for trials in (100, 1000, 5900):
        assert upper_bound(0, trials) == pytest.approx(3 / trials, rel=0.02)
        assert upper_bound(0, trials) == pytest.approx(1 - 0.05 ** (1 / trials), rel=1e-6)


def lines(**changed):
    """Two seeds and two repeats of one exercise: a solution, a right answer, three mutants; `changed` replaces rows."""
    rows = {
        "solution": ["solution", "solution", "passed", None, False, 0.1],
        "right": ["right", "right 0", "passed", None, False, 0.1],
        "a": ["mutant", "a", "failed", "a", True, 0.2],
        "b": ["mutant", "b", "timeout", "b", True, 8.0],
        "c": ["mutant", "c", "failed", "c", True, 0.2],
    }
    found = [
        {"unit": [EXERCISE.name, phase, n, "all"], "rows": [list(row) for row in rows.values()]} for phase in ("seeds", "repeats") for n in range(2)
    ]
    for key, row in changed.items():
        found[int(key[-1])]["rows"][list(rows).index(key[:-1])][2:5] = row
    return found


def total(**changed):
    return grader_numbers.summary([EXERCISE], lines(**changed))["total"]


def test_figures_of_a_perfect_grader():
    found = total()
    assert found["mutants"]["killed"]["count"] == found["mutants"]["own sentence"]["count"] == 6
    assert found["mutants"]["wrong name"]["count"] == found["mutants"]["unknown"]["count"] == found["right answers"]["refused"]["count"] == 0
    assert (
        found["repeats"]["changed"]["count"] == 0 and found["seconds"]["all"]["max"] == 8.0 and found["seconds"]["by status"]["failed"]["p50"] == 0.2
    )


def test_every_fault_is_counted_and_listed():
    survivor = total(a0=["passed", None, False])["mutants"]
    assert survivor["killed"]["count"] == 5 and survivor["survived"]["count"] == 1 and survivor["unknown"]["count"] == 0
    named = total(a0=["failed", "b", False])["mutants"]
    assert named["wrong name"]["count"] == 1 and named["wrong name"]["texts"]["count"] == 1 and named["own sentence"]["count"] == 5
    unknown = total(a0=["failed", "unknown", False], a1=["failed", "unknown", False])["mutants"]
    assert unknown["unknown"]["count"] == 2 and unknown["not own"] == {f"{EXERCISE.name}, a": {"failed: unknown": 2}}
    other = total(a0=["failed", "a", False])["mutants"]  # its own id without its sentence is not its own sentence
    assert other["own sentence"]["count"] == 5
    refused = total(solution1=["failed", "unknown", False])["right answers"]
    assert refused["refused"]["count"] == 1 and refused["refused"]["of"] == 4 and list(refused["which"]) == [f"{EXERCISE.name}, solution"]
    unstable = total(c2=["failed", "unknown", False])["repeats"]
    assert unstable["changed"]["count"] == 1 and unstable["changed status"] == 0
    assert total(c2=["timeout", "c", True])["repeats"]["changed status"] == 1
    page = grader_numbers.page(
        {
            **WHERE,
            **grader_numbers.summary([EXERCISE], lines(a0=["failed", "b", False], solution1=["failed", "unknown", False], c2=["error", "x", False])),
        }
    )
    assert all(f"- {EXERCISE.name}, {name}" in page for name in ("a", "solution", "c"))
    assert "chapter 00" in page


class FakeJudge:
    made = 0

    def __init__(self):
        FakeJudge.made += 1

    def check(self, name, text, seed):
        return Verdict(name, 0, "failed", 0, 1, Diagnosis("x", "y"), seconds=0.1)

    def close(self):
        pass


def test_a_run_goes_on_where_it_was_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr(grader_report, "Judge", FakeJudge)
    journal = tmp_path / "journal"
    units = [unit for phase in ("seeds", "repeats") for unit in grader_report.planned([EXERCISE], phase, 2, 2)]
    found = grader_report.measured(units, 1, journal)
    assert [line["unit"] for line in found] == [[EXERCISE.name, phase, n, "all"] for phase in ("seeds", "repeats") for n in range(2)]
    assert FakeJudge.made == 3, "one for the seeds, and a fresh one for each repeat"
    whole = journal.read_text().splitlines()
    assert len(whole) == 5
    journal.write_text("\n".join(whole[:3]) + "\n" + whole[3][:20])
    asked = []
    monkeypatch.setattr(grader_report, "graded", lambda unit, judge: asked.append(unit.key) or {"unit": unit.key, "rows": []})
    assert len(grader_report.measured(units, 1, journal)) == 4 and len(asked) == 2
    monkeypatch.setattr(grader_report, "fingerprint", lambda: "another grader")
    asked.clear()
    grader_report.measured(units, 1, journal)
    assert len(asked) == 4


def test_mutants_may_have_fewer_seeds():
    units = grader_report.planned([EXERCISE], "seeds", 3, 1)
    assert [unit.scope for unit in units] == ["all", "right", "right"] and len({tuple(unit.key) for unit in units}) == 3
    whole, right = (grader_report.graded(unit, FakeJudge())["rows"] for unit in units[:2])
    assert {row[0] for row in right} == {"solution", "right"} and {row[0] for row in whole} == {"solution", "right", "mutant"}


def test_the_whole_command(tmp_path, monkeypatch, capsys):
    """From judges to the page: every figure counts what was graded, and a class of an earlier run is kept."""
    monkeypatch.setattr(grader_report, "ROOT", tmp_path)
    for name, place in (("RESULT", "r.json"), ("PAGE", "docs/p.md"), ("JOURNAL", "j")):
        monkeypatch.setattr(grader_report, name, tmp_path / place)
    monkeypatch.setattr(grader_report, "Judge", Knowing)
    monkeypatch.setattr(grader_report, "held_out", lambda exercises: {"mutants": 0, "no name": 0, "named as another": 0, "passed": [], "which": {}})
    monkeypatch.setattr(grader_report.catalogue, "exercises", lambda: {EXERCISE.name: EXERCISE})
    (tmp_path / "r.json").write_text(json.dumps({"class": CLASS}))
    assert grader_report.main(["--seeds", "3", "--repeats", "4", "--mutant-seeds", "2", "--mutant-repeats", "1", "--workers", "2"]) == 0
    report = json.loads((tmp_path / "r.json").read_text())
    total, mutants, right = report["total"], len(WHOLE.mutants), 1 + len(WHOLE.right)
    assert (total["mutants"]["texts"], total["mutants"]["own sentence"]["count"], total["mutants"]["killed"]["of"]) == (
        mutants,
        2 * mutants,
        2 * mutants,
    )
    assert (total["right answers"]["texts"], total["right answers"]["refused"]["count"], total["right answers"]["refused"]["of"]) == (
        right,
        0,
        3 * right,
    )
    assert total["repeats"]["checks"] == mutants + 4 * right and total["repeats"]["changed"]["count"] == 0
    assert total["seconds"]["by status"]["passed"]["max"] == 0.25 and "--mutant-repeats 1" in report["command"] and report["class"] == CLASS
    assert grader_report.main(["--check"]) == 0 and not (tmp_path / "j").exists()
    page = (tmp_path / "docs" / "p.md").read_text()
    assert "| killed | 100 % | 100 % |" in page and f"| 0 of {3 * right} (" in page and "A class of 1" in page


class Knowing(FakeJudge):
    """A perfect judge of one exercise."""

    def check(self, name, text, seed):
        mutant = next((m for m in WHOLE.mutants if text == f"{EXERCISE.preamble}\n\n{m.text(EXERCISE.solution)}"), None)
        said = Diagnosis(mutant.id, f"Seen. {mutant.message}") if mutant else None
        return Verdict(name, 0, "failed" if mutant else "passed", 0 if mutant else 1, 1, said, seconds=0.25)


CLASS = {
    **WHERE,
    **{
        "submissions": 1,
        "answers": 1,
        "wrong": [],
        "named": 0,
        "nameable": 0,
        "by_kind": {"x": {"answers": 1, "right": 1}},
        "chapter": 3,
        "minutes": 1.0,
    },
    **{"workers": 2, "submissions unchanged": True, "course unchanged": True, "graded alone": 1, "same alone": 1},
}


class Listening(FakeJudge):
    """Names the first mutant that it still knows, unless the text is the second one's: that it lets pass."""

    def check(self, name, text, seed):
        known = catalogue.checks(0)[name].mutants
        second = WHOLE.mutants[1]
        assert len(known) == len(WHOLE.mutants) - 1
        if second not in known:
            return Verdict(name, 0, "passed", 1, 1)
        return Verdict(name, 0, "failed", 0, 1, Diagnosis(known[0].id if WHOLE.mutants[2] not in known else "unknown", ""))


WHOLE = catalogue.checks(0)[EXERCISE.name]


def test_each_mutant_is_held_out_in_turn():
    found = grader_report.held_out([EXERCISE], Listening())
    first, second, third = (f"{EXERCISE.name}, {mutant.id}" for mutant in WHOLE.mutants[:3])
    assert found["passed"] == [second] and found["which"] == {third: WHOLE.mutants[0].id}
    assert found["no name"] == len(WHOLE.mutants) - 2 and found["mutants"] == len(WHOLE.mutants)
    assert catalogue.checks(0)[EXERCISE.name] is WHOLE
    assert f"| {third} | {WHOLE.mutants[0].id} |" in grader_numbers.page({"held out": found})


def test_cases_of_adversaries_are_counted():
    import xml.etree.ElementTree as ElementTree

    xml = (
        '<testsuite><testcase name="test_a_cheat[1-x]"/><testcase name="test_a_cheat[2-y]"><failure/></testcase>'
        '<testcase name="test_b"><skipped/></testcase><testcase name="test_b"><error/></testcase></testsuite>'
    )
    found = grader_report._held(list(ElementTree.fromstring(xml).iter("testcase")))
    assert found == {
        "tests": {"a cheat": {"cases": 2, "held": 1, "skipped": 0}, "b": {"cases": 2, "held": 0, "skipped": 1}},
        "not held": ["test_a_cheat[2-y]", "test_b"],
    }
    page = grader_numbers.page({"adversaries": found})
    assert "1 of 4 cases held" in page and "| a cheat | 2 | 1 | 0 |" in page and "- `test_a_cheat[2-y]`" in page


def test_a_page_that_drifted_is_found(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(grader_report, "RESULT", tmp_path / "r.json")
    monkeypatch.setattr(grader_report, "PAGE", tmp_path / "p.md")
    assert grader_report.main(["--check"]) == 1
    report = {**WHERE, **grader_numbers.summary([EXERCISE], lines())}
    (tmp_path / "r.json").write_text(json.dumps(report))
    (tmp_path / "p.md").write_text(grader_numbers.page(report))
    assert grader_report.main(["--check"]) == 0
    (tmp_path / "p.md").write_text(grader_numbers.page(report) + "More.\n")
    assert grader_report.main(["--check"]) == 1 and "run `python" in capsys.readouterr().err
