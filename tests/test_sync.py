"""sync: one source; what is generated follows it, what a learner wrote is never overwritten."""

import ast

import pytest
from nbformat.v4 import new_markdown_cell

from course_lib.source import parse_exercises
from tests.sample_course import SOURCE, cell_of, load, save, write
from tools import source_lint, sync


def edit(path, old, new):
    text = path.read_text(encoding="utf-8")
    assert text.count(old) == 1, f"{old!r} occurs {text.count(old)} times"
    path.write_text(text.replace(old, new), encoding="utf-8")


def snapshot(root):
    return {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_the_repository_is_in_step(capsys):
    assert sync.main(["--check"]) == 0, capsys.readouterr()


def test_stub_cell_and_statement_are_made_from_the_source(tmp_path):
    notebook = load(write(tmp_path))
    code = cell_of(notebook, "exercise:double")["source"]
    assert code.endswith("\n\ncheck(double)")
    assert 'raise NotImplementedError("double (chapter 03) is not written yet")' in code
    assert "x + x" not in code and "the taught line" not in code and "# solution" not in code
    assert "return whole / 3" in cell_of(notebook, "exercise:mend_half")["source"]
    statement = cell_of(notebook, "statement:double")["source"]
    assert statement == "### Exercise: double\ncore · 5 minutes · 2 points\n\nCompute it.\n\nA second paragraph."
    assert "more · 5 minutes · 1 point\n" in cell_of(notebook, "statement:mend_half")["source"]


def test_the_exercises_file_is_python_and_says_what_it_is(tmp_path):
    write(tmp_path)
    text = (tmp_path / "exercises" / "ch03_sample.py").read_text(encoding="utf-8")
    docstring = ast.get_docstring(ast.parse(text))
    assert docstring.startswith("Chapter 03: A sample.") and "answers/" in docstring
    assert "What only solutions/ says." not in text and "x + x" not in text and "# hint:" not in text
    assert [e.name for e in parse_exercises(SOURCE, 3, "sample")] == [n for n in sync.sections(text) if n != "top"]


def test_a_second_sync_changes_nothing(tmp_path, capsys):
    write(tmp_path)
    before = snapshot(tmp_path)
    assert sync.main([], tmp_path) == 0
    assert snapshot(tmp_path) == before
    assert sync.main(["--check"], tmp_path) == 0
    assert "in step" in capsys.readouterr().out


def test_two_syncs_of_the_same_course_are_equal(tmp_path):
    write(tmp_path / "a")
    write(tmp_path / "b")
    assert [*snapshot(tmp_path / "a").values()] == [*snapshot(tmp_path / "b").values()]


@pytest.mark.parametrize(
    ("old", "new", "places"),
    [
        ("Twice the input.", "Two times the input.", ["exercises/ch03_sample.py: double", "exercise:double"]),
        ("core | 5 minutes", "more | 7 minutes", ["statement:double"]),
        ("#| return whole / 3", "#| return whole / 4", ["exercises/ch03_sample.py: mend_half", "exercise:mend_half"]),
        ("import torch\n", "import math\n\nimport torch\n", ["exercises/ch03_sample.py: top"]),
    ],
)
def test_check_lists_the_drift_and_sync_mends_it(tmp_path, capsys, old, new, places):
    write(tmp_path)
    edit(tmp_path / "solutions" / "ch03_sample.py", old, new)
    before = snapshot(tmp_path)
    assert sync.main(["--check"], tmp_path) == 1
    out = capsys.readouterr().out
    assert all(place in out for place in places), out
    assert snapshot(tmp_path) == before, "--check wrote something"
    assert sync.main([], tmp_path) == 0
    assert sync.main(["--check"], tmp_path) == 0


def test_the_rest_of_the_notebook_is_untouched(tmp_path):
    path = write(tmp_path)
    notebook = load(path)
    notebook.cells.insert(3, new_markdown_cell("My own note.", id="mine", metadata={"x": 1}))
    save(notebook, path)
    edit(tmp_path / "solutions" / "ch03_sample.py", "Twice the input.", "Two times the input.")
    assert sync.main([], tmp_path) == 0
    after = load(path)
    changed = [a["id"] for a, b in zip(after.cells, notebook.cells, strict=True) if a != b]
    assert changed == ["exercise-double"]


def test_an_edited_exercises_file_is_refused_and_kept(tmp_path, capsys):
    write(tmp_path)
    path = tmp_path / "exercises" / "ch03_sample.py"
    edit(path, '    raise NotImplementedError("double (chapter 03) is not written yet")', "    return 2 * x")
    edit(tmp_path / "solutions" / "ch03_sample.py", "Half the input.", "The half of it.")
    before = snapshot(tmp_path)
    assert sync.main([], tmp_path) == 1
    message = capsys.readouterr().err
    assert "double was edited by hand" in message and "mend_half was" not in message
    assert snapshot(tmp_path) == before


def test_an_exercises_file_without_its_record_is_refused(tmp_path, capsys):
    write(tmp_path)
    path = tmp_path / "exercises" / "ch03_sample.py"
    path.write_text("def double(x):\n    return 2 * x\n", encoding="utf-8")
    assert sync.main([], tmp_path) == 1
    assert "top was edited by hand" in capsys.readouterr().err
    assert path.read_text(encoding="utf-8").startswith("def double")


def test_an_edited_cell_is_refused_and_kept(tmp_path, capsys):
    path = write(tmp_path)
    notebook = load(path)
    cell_of(notebook, "exercise:double")["source"] = "def double(x):\n    return x * 2\n\ncheck(double)"
    save(notebook, path)
    before = snapshot(tmp_path)
    assert sync.main([], tmp_path) == 1
    assert "the cell of double was edited by hand" in capsys.readouterr().err
    assert snapshot(tmp_path) == before


def test_a_first_sync_takes_a_stub_that_differs_in_blank_lines_only(tmp_path):
    path = write(tmp_path)
    notebook = load(path)
    cell = cell_of(notebook, "exercise:double")
    pristine = cell["source"]
    cell["source"], cell["metadata"]["course"] = pristine.replace("\n\ncheck", "\n\n\ncheck"), {}
    save(notebook, path)
    assert sync.main([], tmp_path) == 0
    assert cell_of(load(path), "exercise:double")["source"] == pristine


def tag_twice(notebook):
    notebook.cells[0]["metadata"]["tags"] = ["statement:double"]


def tag_unknown(notebook):
    notebook.cells[3]["metadata"]["tags"] = ["statement:triple"]


def tag_missing(notebook):
    cell_of(notebook, "exercise:double")["metadata"] = {}


def tag_on_markdown(notebook):
    cell_of(notebook, "exercise:double")["metadata"] = {}
    notebook.cells[3]["metadata"]["tags"] = ["exercise:double"]


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"nbformat": 3, "cells": []}', '{"nbformat": 3, "metadata": {}, "cells": []}'])
def test_a_file_that_is_no_notebook(tmp_path, capsys, text):
    path = write(tmp_path)
    path.write_text(text, encoding="utf-8")
    assert sync.main([], tmp_path) == 1
    assert "03_sample.ipynb: it is not a notebook" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (tag_twice, "two cells are tagged statement:double"),
        (tag_unknown, "no such exercise in this chapter"),
        (tag_missing, "no cell is tagged exercise:double"),
        (tag_on_markdown, "must be a code cell"),
    ],
)
def test_wrong_tags_are_said_and_nothing_is_written(tmp_path, capsys, spoil, sentence):
    path = write(tmp_path)
    notebook = load(path)
    spoil(notebook)
    save(notebook, path)
    before = snapshot(tmp_path)
    assert sync.main([], tmp_path) == 1
    assert sentence in capsys.readouterr().err
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("# hint: Add it to itself.\n", "", "double: it has 2 hints; a ladder has three"),
        ("# hint: Add it to itself.", "# hint:", "double: hint 2 is empty"),
        ("    return x + x  # the taught line\n", "", "double: its solution region 1 is empty"),
        ("#| return whole / 3", "#| return whole / 2", "mend_half: the stub shows a line of its solution"),
        ("    # solution\n    return x + x  # the taught line\n    # end\n", "    return x + x\n", "double: it has no '# solution' region"),
        ("exercise mend_half", "exercise double", "double"),
        ("# %% exercise double |", "# %% double |", "expected '# %% exercise"),
        ("    # end\n\n\n# %% exercise mend", "\n\n# %% exercise mend", "'# end' is missing"),
        ("def double(", "def doubled(", "defines no function or class of that name"),
        ("    return x + x", "    return x +* x", "solutions/ch03_sample.py, line 22: invalid syntax: return x +* x"),
    ],
)
def test_a_source_that_breaks_the_format_is_refused(tmp_path, capsys, old, new, sentence):
    write(tmp_path)
    edit(tmp_path / "solutions" / "ch03_sample.py", old, new)
    before = snapshot(tmp_path)
    assert sync.main([], tmp_path) == 1
    assert sentence in capsys.readouterr().err
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("    Source: arithmetic.\n", "", "no 'Source:' line"),
        ("returns  [..., N]", "gives    [..., N]", "no 'returns' line"),
        ("[..., N]", "a tensor", "names no shape"),
        ('    """Twice', '    comment = """Twice', "no docstring"),
    ],
)
def test_the_lint_of_statements(old, new, sentence):
    exercise = parse_exercises(SOURCE.replace(old, new), 3, "sample")[0]
    assert any(sentence in problem for problem in source_lint.problems(exercise))


def test_the_sample_and_the_course_have_no_problems():
    assert source_lint.all_problems(parse_exercises(SOURCE, 3, "sample")) == []
    assert sync.sources(sync.ROOT), "there are no solutions at all"


def test_a_name_used_in_two_chapters():
    twice = parse_exercises(SOURCE, 3, "a") + parse_exercises(SOURCE, 4, "b")
    assert any("used in chapter 03 and in chapter 04" in problem for problem in source_lint.all_problems(twice))


def test_solved_notebooks_hold_the_solution_and_nothing_else_differs(tmp_path):
    path = write(tmp_path)
    (copy,) = sync.solved(tmp_path, tmp_path / "out")
    before, after = load(path), load(copy)
    assert cell_of(after, "exercise:double")["source"].endswith("return x + x  # the taught line\n\ncheck(double)")
    assert "NotImplementedError" not in copy.read_text(encoding="utf-8")
    assert [a["id"] for a, b in zip(after.cells, before.cells, strict=True) if a != b] == ["exercise-double", "exercise-mend_half"]


def test_an_exercises_file_without_a_source(tmp_path, capsys):
    write(tmp_path)
    (tmp_path / "exercises" / "ch09_gone.py").write_text('"""Old."""\n', encoding="utf-8")
    assert sync.main(["--check"], tmp_path) == 1
    assert "there is no solutions/ch09_gone.py" in capsys.readouterr().err
