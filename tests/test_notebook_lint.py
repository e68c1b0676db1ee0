"""The lint of the notebooks: a good notebook passes, and each way of being bad is found and named."""

import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_output

from tests.sample_course import cell_of, load, save, write
from tools import new_chapter, notebook_lint
from tools.notebook_rules import Book, code_lines, pictures
from tools.voice import slips, word_count


@pytest.fixture
def sample(tmp_path):
    return write(tmp_path)


def failures(path):
    exercises = notebook_lint.exercises_of(path.parent.parent)["03"]
    return [f"{rule}: {sentence}" for _, level, rule, sentence in notebook_lint.lint(path, exercises) if level == "fail"]


def test_the_sample_passes(sample, capsys):
    assert failures(sample) == []
    assert notebook_lint.main([], sample.parent.parent) == 0
    assert "0 failures" in capsys.readouterr().out


def test_the_notebooks_of_the_course_pass(capsys):
    assert notebook_lint.main([]) == 0, capsys.readouterr().out


def no_badge(notebook):
    del notebook.cells[0]


def badge_of_another(notebook):
    notebook.cells[0]["source"] = notebook.cells[0]["source"].replace("03_sample", "02_other")


def title_no_question(notebook):
    notebook.cells[1]["source"] = "# Online softmax"


def no_title(notebook):
    notebook.cells[1]["source"] = "Online softmax?"


def two_titles(notebook):
    notebook.cells[3]["source"] = "# Another?"


def long_setup(notebook):
    notebook.cells[2]["source"] += "\nx = 1" * 6


def output(notebook):
    notebook.cells[4]["outputs"] = [new_output("stream", text="hello")]


def execution_count(notebook):
    notebook.cells[4]["execution_count"] = 3


def hidden_source(notebook):
    notebook.cells[4]["metadata"]["jupyter"] = {"source_hidden": True}


def colab_form(notebook):
    notebook.cells[4]["metadata"]["cellView"] = "form"


def hidden_tag(notebook):
    notebook.cells[4]["metadata"]["tags"] = ["hide-input"]


def no_accelerator(notebook):
    del notebook.metadata["accelerator"]


def other_kernel(notebook):
    notebook.metadata["kernelspec"]["name"] = "my-venv"


def widget_state(notebook):
    notebook.metadata["widgets"] = {}


def twin_ids(notebook):
    notebook.cells[3]["id"] = notebook.cells[4]["id"]


def no_id(notebook):
    del notebook.cells[3]["id"]


def exercise_without_check(notebook):
    cell = cell_of(notebook, "exercise:double")
    cell["source"] = cell["source"].removesuffix("check(double)")


def exercise_apart_from_statement(notebook):
    place = notebook.cells.index(cell_of(notebook, "exercise:double"))
    notebook.cells.insert(place, new_markdown_cell("Something between."))


def exercise_missing(notebook):
    notebook.cells.remove(cell_of(notebook, "exercise:double"))


def no_prediction(notebook):
    notebook.cells[4]["source"] = "figures.bars()"


def no_claim(notebook):
    notebook.cells[5]["source"] = "x = 1"


def claim_only_in_a_comment(notebook):
    notebook.cells[5]["source"] = "# claim('said', source='x')"


def claim_without_source(notebook):
    notebook.cells[5]["source"] = 'claim("said")'


def claim_with_empty_source(notebook):
    notebook.cells[5]["source"] = 'claim("said", source=" ")'


def no_recap(notebook):
    notebook.cells[-1]["source"] = notebook.cells[-1]["source"].replace("Recap", "End")


def two_questions(notebook):
    notebook.cells[-1]["source"] = notebook.cells[-1]["source"].replace("<details>", "", 1)


def own_plot(notebook):
    notebook.cells[4]["source"] += "\nimport matplotlib.pyplot as plt\nfig, ax = plt.subplots()\nax.plot([1, 2])"


def ipython_image(notebook):
    notebook.cells[4]["source"] += '\nImage("a.png", alt="an a")'


def picture_without_alt(notebook):
    notebook.cells[3]["source"] = "![](a.png)"


def img_without_alt(notebook):
    notebook.cells[3]["source"] = '<img src="a.png">'


def img_with_empty_alt(notebook):
    notebook.cells[3]["source"] = '<img src="a.png" alt="">'


def empty_link(notebook):
    notebook.cells[3]["source"] = "As [shown]() there."


def banned_word(notebook):
    notebook.cells[3]["source"] = "Just add them."


def exclamation(notebook):
    notebook.cells[3]["source"] = "Add them!"


def emoji(notebook):
    notebook.cells[3]["source"] = "Add them \U0001f680"


def broken_code(notebook):
    notebook.cells.insert(4, new_code_cell("x = = 1"))


BAD = {
    no_badge: "badge: the first cell must be the Colab badge",
    badge_of_another: "badge: the first cell",
    title_no_question: "title: the title is not a question",
    no_title: "title: it has no title",
    two_titles: "title: a second title",
    long_setup: "setup: cell 3: the set-up cell has 7 lines",
    output: "clean: cell 5: it holds outputs",
    execution_count: "clean: cell 5: it holds an execution count",
    hidden_source: "hidden: cell 5",
    colab_form: "hidden: cell 5",
    hidden_tag: "hidden: cell 5",
    no_accelerator: "metadata: metadata: accelerator",
    other_kernel: "metadata: metadata: the kernel",
    widget_state: "metadata: metadata: it holds saved widget state",
    twin_ids: "ids: two cells have the id",
    no_id: "ids: cell 4: it has no id",
    exercise_without_check: "exercise_pairs: double: its cell must end in check(double)",
    exercise_apart_from_statement: "exercise_pairs: double: the cell before its code",
    exercise_missing: "exercise_pairs: double: 0 cells carry the tag",
    no_prediction: "teaching: no cell calls predict",
    no_claim: "teaching: no cell calls claim",
    claim_only_in_a_comment: "teaching: no cell calls claim",
    claim_without_source: "sources: cell 6: claim(...) without a source",
    claim_with_empty_source: "sources: cell 6: claim(...) without a source",
    no_recap: "teaching: no heading has the words 'recap'",
    two_questions: "teaching: 2 folded answers",
    own_plot: "alt_text: cell 5: a plot of its own",
    ipython_image: "alt_text: cell 5: IPython's Image",
    picture_without_alt: "alt_text: cell 4: the picture a.png",
    img_without_alt: "alt_text: cell 4: an <img>",
    img_with_empty_alt: "alt_text: cell 4: an <img>",
    empty_link: "sources: cell 4: an empty link",
    banned_word: "voice: cell 4: the word 'just'",
    exclamation: "voice: cell 4: an exclamation mark",
    emoji: "voice: cell 4: the emoji",
    broken_code: "parses: cell 5: line 1 is not Python",
}


@pytest.mark.parametrize("spoil", BAD, ids=lambda spoil: spoil.__name__)
def test_each_fault_is_found_and_named(sample, capsys, spoil):
    notebook = load(sample)
    spoil(notebook)
    save(notebook, sample)
    found = failures(sample)
    assert any(line.startswith(BAD[spoil]) for line in found), found
    assert notebook_lint.main([], sample.parent.parent) == 1
    assert "fail" in capsys.readouterr().out


def test_house_numbers_warn_and_do_not_fail(sample, capsys):
    notebook = load(sample)
    notebook.cells.insert(4, new_code_cell("\n".join(f"x{i} = {i}" for i in range(26))))
    notebook.cells[4]["id"] = "long"
    save(notebook, sample)
    assert notebook_lint.main([], sample.parent.parent) == 0
    out = capsys.readouterr().out
    assert "cell 5: 26 lines of code, the house number is at most 25" in out
    assert "the house number is 1,200 to 2,500" in out


def test_a_kernel_cell_may_be_longer(sample):
    notebook = load(sample)
    notebook.cells.insert(4, new_code_cell("@triton.jit\ndef kernel():\n" + "\n".join(f"    x{i} = {i}" for i in range(50))))
    notebook.cells[4]["id"] = "kernel"
    save(notebook, sample)
    assert not any("lines of code" in row[3] for row in notebook_lint.lint(sample))


def test_shell_and_magic_lines_are_no_syntax_errors(sample):
    notebook = load(sample)
    notebook.cells[4]["source"] = "%time x = 1\nif x:\n    !ls\n" + notebook.cells[4]["source"]
    save(notebook, sample)
    assert failures(sample) == []


def test_exercise_cells_are_outside_the_counts(sample):
    book = Book(sample, load(sample))
    assert len(book.counted) == len(book.cells) - 4


def test_the_door_needs_no_chapter_order(tmp_path):
    path = write(tmp_path)
    notebook = load(path)
    door = path.with_name("00_start_here.ipynb")
    notebook.cells = notebook.cells[:3]
    notebook.cells[0]["source"] = notebook.cells[0]["source"].replace(path.name, door.name)
    save(notebook, door)
    assert notebook_lint.lint(door) == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("It is simply so, Obviously.", ["the word 'simply'", "the word 'obviously'"]),
        ("Adjust the justice of `just`.", []),
        ("```\njust code!\n```", []),
        ("$n!$ ways, and $$m!$$", []),
        ("![alt](a.png) and a != b", []),
        ("Done!", ["an exclamation mark"]),
        ('"Done!"', ["an exclamation mark"]),
        ("a \u2192 b, 3 \u00d7 4, \u2264", []),
        ("ok \u2705", ["the emoji '\u2705'"]),
    ],
)
def test_voice(text, found):
    assert slips(text) == found


def test_counting():
    assert word_count("Two words `not code` $not math$") == 2
    assert code_lines("a\n\nb\n") == 2


def test_pictures_are_calls_into_figures_and_markdown_pictures(sample):
    assert pictures(Book(sample, load(sample))) == 1


def test_a_path_that_does_not_exist(capsys):
    assert notebook_lint.main(["no/such.ipynb"]) == 2
    assert "such.ipynb: it cannot be read" in capsys.readouterr().err


def test_a_new_chapter_is_written_once_and_is_in_step(tmp_path, capsys, monkeypatch):
    from tools import sync

    write(tmp_path)
    assert new_chapter.main(["04"], tmp_path) == 0
    notebook = tmp_path / "notebooks" / "04_triton_from_zero.ipynb"
    assert load(notebook).cells[2]["source"].startswith("Write GPU kernels") and "04_triton_from_zero.ipynb" in load(notebook).cells[0]["source"]
    assert load(notebook).cells[3]["source"] == load(notebook.with_name("03_sample.ipynb")).cells[2]["source"]
    said = capsys.readouterr().out
    assert "solutions/ch04_triton_from_zero.py" in said and "tests/test_chapters.py" in said and "make notebooks" in said
    assert sync.main([], tmp_path) == 0
    assert sync.main(["--check"], tmp_path) == 0
    rules = {row[2] for row in notebook_lint.lint(notebook) if row[1] == "fail"}
    assert rules == {"title", "teaching"}, "an unwritten chapter fails for what is not written, and for nothing else"
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert new_chapter.main(["04"], tmp_path) == 0
    assert capsys.readouterr().out.count("kept") == 3
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


WRONG_NUMBERS = [("99", "there is no chapter 99"), ("four", "(not 'four')"), ("-1", "(not '-1')"), (None, "make new N=04")]


@pytest.mark.parametrize(("number", "sentence"), WRONG_NUMBERS)
def test_a_new_chapter_of_a_wrong_number(tmp_path, capsys, number, sentence):
    argv = [] if number is None else ["--", number]
    assert new_chapter.main(argv, tmp_path) == 2
    assert sentence in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
