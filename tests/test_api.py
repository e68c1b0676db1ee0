"""check, hint, solution and progress in real notebook sessions, with a judge that decides by a word in the text."""

import json
import os
import subprocess
import sys
from pathlib import Path

import course_lib
from course_lib.grading import api, book, catalogue, progress

pytest_plugins = ["fake_judge"]
SESSION = Path(__file__).with_name("notebook_session.py")
SETUP = "from course_lib import check, hint, solution, progress"


def session(home, *cells):
    """What each cell showed, run one after another in a fresh IPython."""
    path = home / "cells.json"
    path.write_text(json.dumps(cells))
    python = os.environ.get("COURSE_TEST_PYTHON", sys.executable)  # another environment, with another IPython
    run = subprocess.run([python, str(SESSION), str(path)], capture_output=True, text=True, env={**os.environ, "IPYTHONDIR": str(home / "ip")})
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout.splitlines()[-1])


def stub(name="merge_states"):
    return catalogue.find(name).stub


def test_a_stub_a_wrong_answer_and_a_right_one(home):
    before, empty, wrong, right = session(
        home,
        SETUP + "\nfrom course_lib.states import SoftmaxState",
        stub() + "\n\ncheck(merge_states)",
        "def merge_states(a: SoftmaxState, b):\n    # my comment\n    return 'no'\n\ncheck(merge_states)",
        "def merge_states(a, b):\n    return 'RIGHT', BLOCK\n\nBLOCK = 3\ncheck(merge_states, seed=4)",
    )
    assert before["error"] is None and empty["text"].startswith("merge_states is not written yet")
    assert wrong["text"].startswith("merge_states is not right yet") and wrong["error"] is None and wrong["result"] == "None"
    assert "from course_lib.states import SoftmaxState" in wrong["text"] and "# my comment" in wrong["text"] and "check(" not in wrong["text"]
    assert right["text"].startswith("merge_states passed: 3 of 3 points") and "answers/ch03_online_softmax.py" in right["text"]
    assert "Seed: 4" in right["text"] and 'role="status"' in right["html"]
    assert "BLOCK = 3" in book.read_section(catalogue.find("merge_states"))


def test_statements_that_did_not_run_do_not_count(home):
    shown = session(
        home,
        SETUP,
        "SIZE = 1\nraise ValueError\nSIZE = 2",
        "def merge_states(a, b):\n    return SIZE\ncheck(merge_states)\nSIZE = 3\ndef merge_states(a, b):\n    return 'RIGHT'",
    )
    assert shown[1]["error"] == "ValueError" and "SIZE = 1" in shown[2]["text"]
    assert "SIZE = 3" not in shown[2]["text"] and "not right yet" in shown[2]["text"]


def test_a_cell_that_stops_in_a_function_of_another_cell(home):
    shown = session(
        home, SETUP, "def boom():\n    pass\n\n\n    1 / 0", "A = 1\nboom()\nA = 2", "def merge_states(a, b):\n    return A", "check('merge_states')"
    )
    assert shown[2]["error"] == "ZeroDivisionError" and "A = 1" in shown[4]["text"]


def test_cells_from_before_the_import_count(home):
    shown = session(home, "W = 5", "def merge_states(a, b):\n    return 'RIGHT', W", SETUP + "\ncheck(merge_states)")
    assert "passed" in shown[2]["text"] and "W = 5" in shown[2]["text"]


def test_magics_and_shell_lines_are_left_out(home):
    shown = session(
        home,
        SETUP + "\n%matplotlib --list\n!true",
        "%%time\nK = 2",
        "%%capture\ndef merge_states(a, b):\n    return 'RIGHT', K",
        "check(merge_states)",
        "def merge_states(a, b):\n    !ls\n    return 'RIGHT'\ncheck(merge_states)",
        "x = !echo 1\ndef merge_states(a, b):\n    return x\ncheck(merge_states)",
    )
    assert "passed" in shown[3]["text"]
    assert "% or ! command" in shown[4]["text"] and "% or ! command" in shown[5]["text"]


def test_names_that_cannot_be_followed_are_asked_for(home):
    shown = session(
        home,
        SETUP,
        "for K in range(3):\n    pass",
        "def merge_states(a, b):\n    return K\ncheck(merge_states)",
        "exec('HIDDEN = 1')",
        "def merge_states(a, b):\n    return HIDDEN\ncheck(merge_states)",
        "def merge_states(a, b):\n    return UNKNOWN_NAME\ncheck(merge_states)",
    )
    assert "bound by a for loop" in shown[2]["text"] and "Put K in this cell" in shown[2]["text"]
    assert "Put HIDDEN in this cell" in shown[4]["text"]
    assert "UNKNOWN_NAME" in shown[5]["text"] and "Put UNKNOWN_NAME" not in shown[5]["text"]


def test_the_answer_is_never_an_import(home):
    shown = session(home, SETUP, "from course_lib.earlier import merge_states\ncheck(merge_states)")
    assert "comes by an import" in shown[1]["text"] and "not written yet" in shown[1]["text"]


def test_a_name_that_was_never_defined_is_graded_from_the_answer_book(home):
    missing = session(home, SETUP, "check('merge_states')")[1]
    assert "No cell of this session" in missing["text"]
    book.write_section(catalogue.find("merge_states"), "def merge_states(a, b):\n    return 'RIGHT'\n")
    shown = session(home, SETUP, "check('merge_states')")[1]
    assert "passed" in shown["text"] and "Graded was the text in answers/" in shown["text"]


BAD_INPUT = (
    ("check('merge_state')", "Did you mean merge_states"),
    ("check(3)", "type int"),
    ("check(None)", "type NoneType"),
    ("import math\ncheck(math)", "type module"),
    ("def mine(): ...\ncheck(mine)", "There is no exercise 'mine'"),
    ("check('')", "There is no exercise"),
    ("check(len)", "There is no exercise 'len'"),
    ("check('merge_states', seed='x')", "whole number"),
    ("check('merge_states', seed=-1)", "whole number"),
    ("hint('nothing like it')", "no exercise of that name"),
    ("hint(3)", "type int"),
    ("hint()", "needs the name"),
    ("solution('x')", "no exercise of that name"),
    ("solution([])", "type list"),
)


def test_bad_input_is_a_panel_and_no_exception(home):
    shown = session(home, SETUP, *(cell for cell, _ in BAD_INPUT))[1:]
    for (cell, words), one in zip(BAD_INPUT, shown, strict=True):
        assert one["error"] is None and words in one["text"], cell


def test_hints_and_the_solution_over_two_sessions(home):
    one = session(home, SETUP, "hint('merge_states')", "hint('merge_states')")
    assert one[1]["text"].startswith("Hint 1 of 3") and one[2]["text"].startswith("Hint 2 of 3")
    two = session(home, SETUP, "hint('merge_states')", "hint('merge_states')", "solution('merge_states')", "solution('merge_states')")
    assert two[1]["text"].startswith("Hint 3 of 3") and "no more hints" in two[2]["text"]
    assert "again to see it" in two[3]["text"] and "torch.maximum" not in two[3]["text"] and "torch.maximum" in two[4]["text"]
    entry = progress.entries()[0]["merge_states"]
    assert entry["hints_shown"] == 3 and entry["solution_shown"] is True


def test_hint_without_a_name_is_for_the_last_check(home):
    shown = session(home, SETUP, "def merge_states(a, b):\n    return 1\ncheck(merge_states)", "hint()", "progress()")
    assert shown[2]["text"].startswith("Hint 1 of 3 for merge_states") and "not right yet, 1 attempt" in shown[3]["text"]


def test_hints_where_nothing_can_be_written(home, monkeypatch, capsys):
    def full(*_):
        raise book.BookError("the disk is full")

    monkeypatch.setattr(book, "replace", full)
    for number in (1, 2, 3):
        api.hint("merge_states")
        assert capsys.readouterr().out.startswith(f"Hint {number} of 3")
    api.solution("merge_states")
    api.solution("merge_states")
    assert "torch.maximum" in capsys.readouterr().out


def test_in_a_script_the_answer_is_the_scripts_text(home, tmp_path):
    script = tmp_path / "mine.py"
    lines = (
        "import sys",
        f"sys.path[:0] = [{str(SESSION.parent)!r}, {str(SESSION.parent.parent)!r}]",
        "import notebook_session, types",
        "sys.modules['course_lib.grading.client'] = types.SimpleNamespace(get_judge=notebook_session.Judge)",
        "from course_lib import check",
        "K = 2",
        "def merge_states(a, b):\n    return 'RIGHT', K",
        "check(merge_states)",
        "check('merge_states')",
        "for L in range(2):\n    pass",
        "def safe_softmax(x):\n    return L",
        "check(safe_softmax)",
        "check('online_normalizer')",
    )
    script.write_text("\n".join(lines))
    out = subprocess.run([sys.executable, str(script)], capture_output=True, text=True)
    assert out.returncode == 0, out.stderr
    assert out.stdout.count("merge_states passed") == 2 and "Put L in mine.py" in out.stdout and "online_normalizer is not written yet" in out.stdout


def test_last_verdict_is_kept(home, fake_judge, capsys):
    book.write_section(catalogue.find("merge_states"), "def merge_states(a, b):\n    return 'RIGHT'\n")
    assert course_lib.check("merge_states") is None and api.last_verdict.status == "passed"
    course_lib.check("no such exercise")
    assert api.last_verdict is None
    points = sum(exercise.points for exercise in catalogue.exercises().values())
    assert course_lib.progress() is None and f"3 of {points} points" in capsys.readouterr().out


def test_a_judge_that_does_not_start_is_a_panel(home, fake_judge, capsys):
    book.write_section(catalogue.find("merge_states"), "def merge_states(a, b):\n    return 'CRASH'\n")
    course_lib.check("merge_states")
    assert "The grader itself could not run" in capsys.readouterr().out


# ---------------------------------------------------------------- without an argument, and one chapter


def test_without_a_name_they_say_what_to_give(home, fake_judge, capsys):
    for call, name in ((course_lib.check, "check"), (course_lib.solution, "solution"), (course_lib.hint, "hint")):
        assert call() is None
        out = capsys.readouterr().out
        assert out.startswith(f"{name} needs the name of an exercise") and f'{name}("' in out
    assert not fake_judge.asked


def test_after_a_check_the_name_offered_is_that_of_the_last(home, fake_judge, capsys):
    course_lib.check("merge_states")
    course_lib.check()
    assert 'check("merge_states")' in capsys.readouterr().out and api.last_verdict.exercise == "merge_states"


def test_progress_of_one_chapter(home, capsys):
    for number in (3, "3", "03", " 03 "):
        assert course_lib.progress(number) is None
        out = capsys.readouterr().out
        assert "merge_states" in out and f"of {sum(e.points for e in catalogue.of_chapter(3))} points" in out
    for wrong in (99, "three", 3.0, True, None.__class__, "-3"):
        course_lib.progress(wrong)
        out = capsys.readouterr().out
        assert out.startswith("progress takes the number of a chapter") and 'progress("' in out


# ---------------------------------------------------------------- the judge is warm before the first check


def test_the_judge_is_started_in_the_background_of_a_kernel_only(home):
    client = (
        "import sys, types\nclient = types.ModuleType('course_lib.grading.client')\nstarted = []\nclass J:\n    def start(self): started.append(1)\n"
    )
    client += "client.get_judge = J\nsys.modules['course_lib.grading.client'] = client\n"
    show = "import time; time.sleep(0.3)\nfrom IPython.display import display, HTML\ndisplay(HTML(str(started)))"
    fresh = "sys.modules.pop('course_lib.grading.api', None)\n"
    kernel = "from IPython import get_ipython\nget_ipython().kernel = object()\n"
    in_terminal, in_kernel, broken = (
        session(home, client + extra + fresh + "import course_lib.grading.api", show) for extra in ("", kernel, kernel + "client.get_judge = None\n")
    )
    assert "[]" in in_terminal[-1]["html"] and "[1]" in in_kernel[-1]["html"]
    assert broken[0]["error"] is None and "[]" in broken[-1]["html"]
