"""Every notebook runs from top to bottom, unsolved and solved; and the runner notices when one does not."""

import json
import os

import pytest
from nbformat.v4 import new_code_cell, new_notebook

from tests.sample_course import save
from tools import run_notebooks
from tools.sync import ROOT, solved

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
PANEL = 'print("double is not written yet")'
PROGRESS = """\
import json, os, pathlib
folder = pathlib.Path(os.environ["COURSE_HOME"]) / ".course"
folder.mkdir(parents=True)
(folder / "progress.json").write_text(json.dumps({"exercises": {"double": {"status": "%s"}}}))"""


def test_there_are_notebooks():
    assert NOTEBOOKS, "notebooks/ is empty: nothing would be run below"


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_unsolved(path, tmp_path):
    run = run_notebooks.run(path, "unsolved", tmp_path)
    assert not run.problems, run


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_solved(path, tmp_path):
    (copy,) = [copy for copy in solved(ROOT, tmp_path / "solved") if copy.name == path.name]
    run = run_notebooks.run(copy, "solved", tmp_path / "home")
    assert not run.problems, run


@pytest.fixture
def course(tmp_path):
    (tmp_path / "notebooks").mkdir()

    def with_cells(*texts, exercise=False):
        notebook = new_notebook(cells=[new_code_cell(text) for text in texts])
        if exercise:
            notebook.cells[-1]["metadata"]["tags"] = ["exercise:double"]
        save(notebook, tmp_path / "notebooks" / "03_sample.ipynb")
        return tmp_path

    return with_cells


def problems(root, mode="unsolved", **kwargs):
    return run_notebooks.run(root / "notebooks" / "03_sample.ipynb", mode, root / "home", root, **kwargs).problems


def test_a_clean_notebook_has_no_problems(course, capsys):
    root = course("x = 1", PANEL, exercise=True)
    before = (root / "notebooks" / "03_sample.ipynb").read_bytes()
    assert run_notebooks.main(["--unsolved"], root) == 0
    assert "1 runs, 0 failed" in capsys.readouterr().out
    assert (root / "notebooks" / "03_sample.ipynb").read_bytes() == before, "running a notebook must not write it"


def test_an_error_is_named_with_its_cell(course, capsys):
    root = course("x = 1", "raise ValueError('no such tile')")
    assert run_notebooks.main(["--unsolved"], root) == 1
    assert "cell 2: ValueError: no such tile" in capsys.readouterr().out


def test_too_slow(course):
    (problem,) = problems(course("x = 1"), limit=0.0)
    assert problem.startswith("it took ") and problem.endswith(" s; at most 0")


def test_a_slow_run_still_says_how_its_exercises_ended(course):
    slow, ended = problems(course("x = 1", exercise=True), limit=0.0)
    assert slow.startswith("it took ") and "is not written yet" in ended


def test_a_dead_kernel_is_a_problem_and_not_the_end_of_the_runner(course):
    assert "DeadKernelError" in problems(course("import os; os._exit(0)"))[0]


@pytest.mark.parametrize(
    ("mode", "cell", "found"),
    [
        ("unsolved", PANEL, []),
        ("unsolved", "x = 1", ["double: check did not say that double is not written yet"]),
        ("unsolved", PROGRESS % "failed", ["double: its stub ended failed, not not_attempted"]),
        ("unsolved", PROGRESS % "passed", ["double: its stub ended passed, not not_attempted"]),
        ("solved", PROGRESS % "passed", []),
        ("solved", PROGRESS % "failed", ["double: its solution ended failed, not passed"]),
        ("solved", PANEL, ["double: its solution ended without a verdict, not passed"]),
    ],
)
def test_how_exercises_must_end(course, mode, cell, found):
    assert problems(course(cell, exercise=True), mode) == found


def test_the_environment_is_put_back(monkeypatch):
    monkeypatch.setenv("COURSE_HOME", "before")
    monkeypatch.delenv("COURSE_NEW", raising=False)
    with run_notebooks.environment(COURSE_HOME="inside", COURSE_NEW="inside"):
        pass
    assert os.environ["COURSE_HOME"] == "before" and "COURSE_NEW" not in os.environ


def test_the_slowest_cells_are_named():
    def cell(seconds: str, source: str, *tags: str) -> dict:
        times = {"iopub.execute_input": "2026-12-01T10:00:00.000000Z", "shell.execute_reply": f"2026-12-01T10:00:{seconds}Z"}
        return {"source": source, "metadata": {"tags": list(tags), "execution": times}}

    cells = [cell("02.500000", "x = 1\ncheck(x)\n"), cell("09.000000", "def f(): ...", "exercise:f"), cell("01.000000", ""), {"source": "# words"}]
    assert run_notebooks.slowest(cells, 2) == [(9.0, "f"), (2.5, "check(x)")]
    assert run_notebooks.slowest(cells, 9)[2:] == [(1.0, "")] and run_notebooks.slowest([], 3) == []


def test_statuses_of_a_learner_without_progress(tmp_path):
    assert run_notebooks.statuses(tmp_path) == {}
    (tmp_path / ".course").mkdir()
    (tmp_path / ".course" / "progress.json").write_text(json.dumps({"exercises": {"a": {"status": "passed"}, "b": {}}}), encoding="utf-8")
    assert run_notebooks.statuses(tmp_path) == {"a": "passed", "b": ""}


def test_a_notebook_that_does_not_exist(capsys):
    assert run_notebooks.main(["notebooks/77_none.ipynb"]) == 2
    assert "there is no notebooks/77_none.ipynb" in capsys.readouterr().err
