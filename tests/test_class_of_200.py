"""A class graded whole: every verdict as it must be, none able to touch another. Here some thirty; `tools.grader_report --class 200` does the rest."""

import pytest

from course_lib.grading import catalogue
from course_lib.paths import ROOT
from tools import grader_class

STUDENTS, CHAPTER, SEED = 32, 3, 7


def test_a_made_up_class_has_every_kind(tmp_path):
    """Each kind of submission occurs in a class of 200, and what is expected of it says something."""
    made = grader_class.make(tmp_path / "class", 200, CHAPTER)
    kinds = {one.kind for student in made.expected.values() for one in student.values()}
    assert {f"hostile: {name}" for name in grader_class.HOSTILE} <= kinds and len([kind for kind in kinds if kind.startswith("file: ")]) == 8
    assert {"solution", "right", "mutant", "stub", "syntax error", "beside a hostile one"} <= kinds
    assert len(made.expected) == 200 and all(len(one) == len(catalogue.of_chapter(CHAPTER)) for one in made.expected.values())
    assert made.before == grader_class.hashes(made.folder)
    again = grader_class.make(tmp_path / "again", 200, CHAPTER)
    assert again.expected == made.expected


def test_a_changed_file_is_seen(tmp_path):
    made = grader_class.make(tmp_path / "class", 5, CHAPTER)
    next(made.folder.rglob("ch03*.py")).write_text("")
    assert grader_class.hashes(made.folder) != made.before


def test_a_wrong_verdict_is_seen(tmp_path):
    made = grader_class.make(tmp_path / "class", 8, CHAPTER)
    right = {
        student: [{"exercise": name, "status": one.statuses[0], "diagnosis": {"id": one.names}} for name, one in expected.items()]
        for student, expected in made.expected.items()
    }
    assert grader_class.compared(made, right)["wrong"] == []
    student = next(iter(right))
    right[student][0]["status"] = "needs_review"
    assert len(grader_class.compared(made, right)["wrong"]) == 1
    del right[student]
    assert len(grader_class.compared(made, right)["wrong"]) == len(made.expected[student])


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_class_is_graded_rightly_and_nobody_touches_anybody(tmp_path):
    course_before = grader_class.hashes(ROOT / "course_lib")
    made = grader_class.make(tmp_path / "class", STUDENTS, CHAPTER)
    found = grader_class.graded(made, tmp_path / "report.jsonl", 2, SEED)
    result = grader_class.compared(made, found)
    assert result["wrong"] == [] and result["submissions"] == STUDENTS
    assert result["named"] >= 0.9 * result["nameable"]
    assert grader_class.hashes(made.folder) == made.before, "an answer changed the submissions"
    assert grader_class.hashes(ROOT / "course_lib") == course_before, "an answer changed the course"
    assert grader_class.alone(made, list(made.expected)[7::12], found, tmp_path, SEED) == 3, "a verdict depends on the others"
