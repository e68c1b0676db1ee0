"""What tests share: a home of their own for the learner's work, and one warm judge with the mini course."""

import os
from pathlib import Path

import pytest

from course_lib import hardware
from course_lib.grading.client import Judge

hardware.tier()  # before any test imports triton: without a GPU it turns the interpreter on, and that cannot be done later

MINI_COURSE = Path(__file__).parent / "mini_course"


@pytest.fixture(scope="session", autouse=True)
def course_home(tmp_path_factory):
    """No test may touch the answers of whoever runs the tests."""
    before = os.environ.get("COURSE_HOME")
    home = tmp_path_factory.mktemp("home")
    os.environ["COURSE_HOME"] = str(home)
    yield home
    if before is None:
        os.environ.pop("COURSE_HOME", None)
    else:
        os.environ["COURSE_HOME"] = before


@pytest.fixture(scope="session")
def judge(course_home):
    """A judge that also knows the exercises of tests/mini_course: row_shares (torch) and double_and_mask (triton)."""
    judge = Judge(environment={"COURSE_EXTRA": str(MINI_COURSE)})
    judge.start()
    yield judge
    judge.close()
