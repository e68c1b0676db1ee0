"""The whole story of a newcomer, in a clone of their own: three wrong answers, told why, mended, saved, and kept through an update.

Knows nothing of how grading or updating work inside: it edits notebooks as JupyterLab would, and runs the commands of the README.

Run: python -m pytest tests/test_newcomer.py -m slow
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from course_lib.grading import catalogue
from course_lib.source import parse_answers
from tools.sync import ROOT, tagged

pytestmark = pytest.mark.slow
NOTEBOOK = "notebooks/03_online_softmax.ipynb"
ANSWERS = "answers/ch03_online_softmax.py"
WRONG = {"safe_softmax": "empty-row", "merge_states": "acc-not-rescaled", "tiled_attention": "divides-every-tile"}
OWN_CELL = "my_note = 'the factor is exp(old - new)'"


def git(folder: Path, *words: str) -> str:
    who = ["-c", "user.name=someone", "-c", "user.email=someone@example.org", "-c", "commit.gpgsign=false"]
    return subprocess.run(["git", *who, *words], cwd=folder, check=True, capture_output=True, text=True).stdout


def course(clone: Path, *words: str) -> subprocess.CompletedProcess:
    environment = {key: value for key, value in os.environ.items() if key not in ("COURSE_HOME", "COURSE_EXTRA", "COURSE_EARLIER")}
    command = [sys.executable, "-m", "course_lib.commands", *words]
    return subprocess.run(command, cwd=clone, capture_output=True, text=True, env={**environment, "PYTHONPATH": str(clone)}, timeout=120)


def cell_of(notebook, name: str):
    return next(cell for cell in notebook.cells if tagged(cell, "exercise") == name)


def answered(name: str, mutant: str | None = None) -> str:
    """What the learner types into the cell of an exercise: the solution, or one of its known mistakes."""
    exercise = catalogue.find(name)
    known = {m.id: m for m in catalogue.checks(3)[name].mutants}
    return f"{known[mutant].text(exercise.solution) if mutant else exercise.solution}\n\ncheck({name})"


def run_until(clone: Path, notebook, last: str, monkeypatch) -> None:
    """Run the notebook's cells, in its own folder, up to the exercise `last`; exercises are not expected to raise."""
    monkeypatch.setenv("PYTHONPATH", str(clone))
    monkeypatch.delenv("COURSE_HOME", raising=False)
    stop = notebook.cells.index(cell_of(notebook, last)) + 1
    part = nbformat.v4.new_notebook(cells=notebook.cells[:stop], metadata=notebook.metadata)
    NotebookClient(part, timeout=120, kernel_name="python3", resources={"metadata": {"path": str(clone / "notebooks")}}).execute()


def panel(notebook, name: str) -> str:
    return "\n".join(output["data"]["text/plain"] for output in cell_of(notebook, name).outputs if "text/plain" in output.get("data", {}))


def words(text: str) -> str:
    """The text without its line breaks and code marks, for comparing sentences that a panel has wrapped."""
    return " ".join(text.replace("`", "").split())


@pytest.fixture
def clones(tmp_path):
    """(the authors' clone, the learner's clone) of this checkout's committed state, around one bare upstream."""
    snapshot = tmp_path / "snapshot"
    git(tmp_path, "clone", "--quiet", "--no-hardlinks", str(ROOT), str(snapshot))
    for name in git(ROOT, "ls-files", "--modified", "--others", "--exclude-standard").split("\n"):  # work that is not committed yet counts too
        if name and (ROOT / name).is_file():
            (snapshot / name).parent.mkdir(parents=True, exist_ok=True)
            (snapshot / name).write_bytes((ROOT / name).read_bytes())
    git(snapshot, "add", "--all")
    git(snapshot, "commit", "--quiet", "--allow-empty", "-m", "as it stands")
    git(tmp_path, "clone", "--quiet", "--bare", str(snapshot), "upstream.git")
    for who in ("author", "learner"):
        git(tmp_path, "clone", "--quiet", "upstream.git", who)
    return tmp_path / "author", tmp_path / "learner"


def test_a_newcomers_work_is_diagnosed_saved_and_kept(clones, monkeypatch):
    author, learner = clones
    path = learner / NOTEBOOK
    notebook = nbformat.read(path, as_version=4)

    # three wrong answers, and each is told why
    for name, mutant in WRONG.items():
        cell_of(notebook, name).source = answered(name, mutant)
    run_until(learner, notebook, "tiled_attention", monkeypatch)
    for name, mutant in WRONG.items():
        known = {m.id: m for m in catalogue.checks(3)[name].mutants}
        assert words(known[mutant].message) in words(panel(notebook, name)), name
    assert not (learner / ANSWERS).exists() or not set(WRONG) & set(parse_answers((learner / ANSWERS).read_text()))

    # mended: saved in the answer book; a cell of the learner's own stands after merge_states
    for name in WRONG:
        cell_of(notebook, name).source = answered(name)
    own = nbformat.v4.new_code_cell(OWN_CELL)
    notebook.cells.insert(notebook.cells.index(cell_of(notebook, "merge_states")) + 1, own)
    run_until(learner, notebook, "tiled_attention", monkeypatch)
    nbformat.write(notebook, path)
    assert set(parse_answers((learner / ANSWERS).read_text())) >= set(WRONG)
    assert len(list((learner / ".course/history/merge_states").iterdir())) >= 2

    # upstream changes prose, the order of two sections' cells, and the signature of one exercise
    theirs = nbformat.read(author / NOTEBOOK, as_version=4)
    prose = next(cell for cell in theirs.cells if cell.cell_type == "markdown" and "## 5." in cell.source)
    prose.source += "\n\nA new sentence from upstream."
    recap = next(i for i, cell in enumerate(theirs.cells) if cell.source.startswith("## Recap"))
    theirs.cells.insert(recap - 3, theirs.cells.pop(recap))
    stub = cell_of(theirs, "safe_softmax")
    stub.source = stub.source.replace("def safe_softmax(x: Tensor)", "def safe_softmax(x: Tensor, dim: int = -1)")
    nbformat.write(theirs, author / NOTEBOOK)
    git(author, "commit", "--quiet", "--all", "-m", "chapter 03: prose, order, a signature")
    git(author, "push", "--quiet")

    done = course(learner, "update")
    assert done.returncode in (0, 1), done.stdout + done.stderr
    merged = nbformat.read(path, as_version=4)
    text = "\n".join(cell.source for cell in merged.cells)
    assert "A new sentence from upstream." in text and OWN_CELL in text
    for name in ("merge_states", "tiled_attention"):
        assert cell_of(merged, name).source == answered(name)
    assert "dim: int = -1" in cell_of(merged, "safe_softmax").source  # the new stub, and the old answer beside it
    assert "safe_softmax" in done.stdout and done.returncode == 1  # it could not be placed, and the report says so
    assert answered("safe_softmax").splitlines()[-3].strip() in text

    # everything is still there for the shell
    checked = course(learner, "check", *WRONG, "--json", "-")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert {result["exercise"]: result["status"] for result in json.loads(checked.stdout)} == dict.fromkeys(WRONG, "passed")
    assert "safe_softmax" in course(learner, "progress").stdout
