"""A pytest plugin for the tests of the reader's side: a home of their own, and a judge that decides by a word in the text."""

import sys
import types

import pytest

from course_lib.grading import api, book
from course_lib.grading.verdict import Case, Diagnosis, Verdict

RIGHT = "import torch\n\n\ndef {name}(*a, **k):\n    return 'RIGHT'\n"
WRONG = "def {name}(*a, **k):\n    return 'wrong'\n"


class FakeJudge:
    """`check` as the real client has it. RIGHT in the text passes, CRASH is a judge that cannot work, anything else fails."""

    def __init__(self):
        self.asked = []

    def check(self, exercise, text, seed):
        from course_lib.grading import catalogue

        self.asked.append((exercise, text, seed))
        found = catalogue.find(exercise)
        if "CRASH" in text:
            raise RuntimeError("the judge did not start")
        details = {"seed": 7 if seed is None else seed, "printed": "hello\n" if "print" in text else ""}
        if "RIGHT" in text:
            cases = [Case("one tile", "passed", "", 0.01), Case("2 tiles of 4 keys", "passed", "", 0.02)]
            return Verdict(exercise, found.chapter, "passed", found.points, found.points, None, cases, "interpreter", 0.1, details)
        cases = [Case("one tile", "passed", "", 0.01), Case("2 tiles of 4 keys", "failed", "row 0: expected 0.41, got 0.88", 0.02)]
        details |= {"probe": "2 tiles of 4 keys", "shapes": ["a [3, 5] float32"], "place": [0, 2], "expected": "0.41", "got": "0.88", "multiple": 4.2}
        diagnosis = Diagnosis("not_rescaled", "Wrong from the second tile on. Look at what happens to the old `acc`.")
        return Verdict(exercise, found.chapter, "failed", 0, found.points, diagnosis, cases, "interpreter", 0.2, details)


@pytest.fixture
def home(tmp_path, monkeypatch):
    """The reader's folder, empty; exercises/ is a copy in it."""
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.setenv("COURSE_HOME", str(folder))
    monkeypatch.delenv("COURSE_EARLIER", raising=False)
    monkeypatch.delenv("COURSE_GRADING", raising=False)
    monkeypatch.setattr(book, "exercise_file", lambda exercise: folder / "exercises" / book.catalogue.file_of(exercise.chapter))
    api._asked.clear()
    api._seen.clear()
    monkeypatch.setattr(api, "last_verdict", None)
    return folder


@pytest.fixture
def fake_judge(monkeypatch):
    fake = FakeJudge()
    client = types.ModuleType("course_lib.grading.client")
    client.get_judge = lambda: fake
    monkeypatch.setitem(sys.modules, "course_lib.grading.client", client)
    return fake
