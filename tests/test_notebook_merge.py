"""The merge of notebooks: what goes where, and that nothing the learner typed is lost."""

import ast
import copy
import json
from pathlib import Path

import nbformat
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from course_lib.commands.notebook_merge import (
    NotANotebook,
    check_notebook,
    exercise_of,
    merge,
    same_work,
    signature,
    source_of,
)
from course_lib.commands.stub_files import KEPT, merge_stub_files
from course_lib.source import digest

ROOT = Path(__file__).resolve().parent.parent
STUB = 'def f(a, b):\n    """What f does."""\n    raise NotImplementedError("f (chapter 03) is not written yet")\n\ncheck(f)'
ANSWER = 'def f(a, b):\n    """What f does."""\n    return a + b\n\ncheck(f)'


def cell(source, kind="code", id=None, tags=(), outputs=()):
    made = {"cell_type": kind, "metadata": {"tags": list(tags)} if tags else {}, "source": source}
    if id:
        made["id"] = id
    return made | ({"outputs": list(outputs), "execution_count": 1 if outputs else None} if kind == "code" else {})


def exercise(name, source, id=None):
    return cell(source, id=id or f"exercise-{name}", tags=[f"exercise:{name}"])


def notebook(*cells):
    return {"nbformat": 4, "nbformat_minor": 5, "metadata": {"kernelspec": {"name": "python3", "display_name": "Python 3"}}, "cells": list(cells)}


def sources(book):
    return [source_of(one) for one in book["cells"]]


OUTPUT = {"output_type": "stream", "name": "stdout", "text": "hello"}


def test_answer_goes_back_by_tag_and_never_by_id():
    base = notebook(cell("# Why?", "markdown", "a"), exercise("f", STUB, "x1"), cell("f(1, 2)", id="x2"))
    mine = notebook(cell("# Why?", "markdown", "a"), exercise("f", ANSWER, "x1"), cell("f(1, 2)", id="x2"))
    # upstream gave the exercise's id to another cell, and moved the exercise
    upstream = notebook(exercise("f", STUB, "x9"), cell("# Why, then?", "markdown", "a"), cell("print(1)", id="x1"))
    done = merge(base, upstream, mine)
    assert sources(done.notebook) == [ANSWER, "# Why, then?", "print(1)"]
    assert done.notebook["cells"][0]["id"] == "x9"
    assert [entry.name for entry in done.report.placed] == ["f"]
    assert not done.report.not_placed and not done.report.edited


def test_untouched_stub_takes_the_new_one():
    new = STUB.replace("What f does", "What f does, said better")
    done = merge(notebook(exercise("f", STUB)), notebook(exercise("f", new)), notebook(exercise("f", STUB + "\n")))
    assert sources(done.notebook) == [new]
    assert not any(vars(done.report).values())


def test_placed_answer_says_when_the_statement_changed():
    new = STUB.replace("What f does", "What f does, said better")
    done = merge(notebook(exercise("f", STUB)), notebook(exercise("f", new)), notebook(exercise("f", ANSWER)))
    assert sources(done.notebook) == [ANSWER]
    assert "read the new statement" in done.report.placed[0].why


@pytest.mark.parametrize("new_header, placed", [
    ("def f(a, b):", True),
    ("def f(a: int, b: 'Tensor') -> int:", True),
    ("def f(a, b, c=None):", False),
    ("def f(b, a):", False),
    ("def f(a, b=0):", False),
    ("def f(a, *, b):", False),
])  # fmt: skip
def test_signature_decides(new_header, placed):
    new = STUB.replace("def f(a, b):", new_header)
    done = merge(notebook(exercise("f", STUB)), notebook(exercise("f", new)), notebook(exercise("f", ANSWER)))
    if placed:
        assert sources(done.notebook) == [ANSWER]
        return
    stub, note, old = done.notebook["cells"]
    assert source_of(stub) == new and "exercise:f" in stub["metadata"]["tags"]
    assert note["cell_type"] == "markdown" and "`f(a, b)`" in source_of(note) and "is now" in source_of(note)
    assert old["cell_type"] == "raw" and source_of(old) == ANSWER, "kept word for word, and it does not run"
    assert [entry.name for entry in done.report.not_placed] == ["f"]


def test_broken_answer_is_placed_when_the_header_is_the_same():
    broken = "def f(a,  # first\n      b):\n    return a +\n%time f(1, 2)\ncheck(f)"
    done = merge(None, notebook(exercise("f", STUB)), notebook(exercise("f", broken)))
    assert sources(done.notebook) == [broken]


def test_answer_spread_over_cells_stays_where_it_was_if_the_exercise_did_not_change():
    base = notebook(exercise("f", STUB))
    mine = notebook(cell("def f(a, b):\n    return a", id="own"), exercise("f", "check(f)"))
    done = merge(base, notebook(cell("# New", "markdown", "n"), exercise("f", STUB)), mine)
    assert sources(done.notebook) == ["def f(a, b):\n    return a", "# New", "check(f)"]


def test_split_exercise_cell():
    base = notebook(cell("# A", "markdown", "a"), exercise("f", STUB))
    mine = notebook(
        cell("# A", "markdown", "a"), exercise("f", "W = 3"), exercise("f", "def f(a, b):\n    return W", "s1"), exercise("f", "check(f)", "s2")
    )
    done = merge(base, base, mine)
    assert sources(done.notebook) == ["# A", "W = 3", "def f(a, b):\n    return W", "check(f)"]
    tagged = [source_of(one) for one in done.notebook["cells"] if "exercise:f" in one["metadata"].get("tags", [])]
    assert tagged == ["def f(a, b):\n    return W"]


def test_vanished_exercise_stays_as_a_cell_of_ones_own():
    base = notebook(cell("# A", "markdown", "a"), exercise("f", STUB))
    done = merge(base, notebook(cell("# A", "markdown", "a")), notebook(cell("# A", "markdown", "a"), exercise("f", ANSWER)))
    assert sources(done.notebook)[0] == "# A" and sources(done.notebook)[-1] == ANSWER
    assert "exercise:f" not in done.notebook["cells"][-1]["metadata"].get("tags", [])
    assert [entry.name for entry in done.report.not_placed] == ["f"]
    gone = merge(base, notebook(cell("# A", "markdown", "a")), base)
    assert sources(gone.notebook) == ["# A"], "a stub that nobody touched goes away in silence"


def test_own_cells_stay_behind_their_predecessor():
    base = notebook(*(cell(text, "markdown", text) for text in "ABCD"))
    a, b, c, d = base["cells"]
    mine = notebook(cell("top"), a, cell("after A", outputs=[OUTPUT]), b, cell("after B 1"), cell("after B 2", "markdown"), c, d, cell("end"))
    upstream = notebook(d, c, cell("N", "markdown", "N"), a)  # B is gone, the order turned round
    done = merge(base, upstream, mine)
    assert sources(done.notebook) == ["top", "D", "end", "C", "N", "A", "after A", "after B 1", "after B 2"]
    assert done.notebook["cells"][6]["outputs"] == [OUTPUT], "outputs of the learner's own cells stay"
    assert len(done.report.own) == 5


def test_edited_course_cells_stand_below_the_course_version():
    base = notebook(cell("N = 64", id="n"), cell("Prose.", "markdown", "p"), cell("gone = 1", id="g"))
    mine = notebook(cell("N = 4096", id="n", outputs=[OUTPUT]), cell("Prose. My note.", "markdown", "p"), cell("gone = 2", id="g"))
    done = merge(base, notebook(cell("N = 128", id="n", outputs=[OUTPUT]), cell("Prose. My note.", "markdown", "p")), mine)
    texts = sources(done.notebook)
    assert texts[0] == "N = 128" and texts[2] == "N = 4096" and "Your version" in texts[1]
    assert done.notebook["cells"][0]["outputs"] == [] and done.notebook["cells"][2]["outputs"] == [OUTPUT]
    assert texts[3] == "Prose. My note." and texts.count("Prose. My note.") == 1, "the same edit on both sides is no edit"
    assert texts[-1] == "gone = 2" and "no longer has" in texts[-2]
    assert len(done.report.edited) == 2


def test_prediction_keeps_its_guess_while_the_question_stands():
    asked, guessed = 'predict("mib", None, unit="MiB")', 'predict("mib", 16, unit="MiB")'
    done = merge(notebook(cell(asked, id="p")), notebook(cell(asked, id="p")), notebook(cell(guessed, id="p")))
    assert sources(done.notebook) == [guessed]
    other = 'predict("gib", None, unit="GiB")'
    done = merge(notebook(cell(asked, id="p")), notebook(cell(other, id="p")), notebook(cell(guessed, id="p")))
    assert sources(done.notebook)[0] == other and guessed in sources(done.notebook)


def test_deleted_cells_come_back():
    base = notebook(cell("A", "markdown", "a"), cell("B", "markdown", "b"), cell("C", "markdown", "c"))
    mine = notebook(cell("A", "markdown", "a"), cell(" \n", "markdown", "c"))
    done = merge(base, base, mine)
    assert sources(done.notebook) == ["A", "B", "C"]
    assert [entry.name for entry in done.report.came_back] == ["B", "C"]


def test_renumbered_ids_match_by_text():
    base = notebook(cell("A", "markdown", "1"), cell("B", "markdown", "2"))
    mine = notebook(cell("A", "markdown", "1"), cell("own", id="own"), cell("B", "markdown", "2"))
    done = merge(base, notebook(cell("A", "markdown", "8"), cell("B", "markdown", "9")), mine)
    assert sources(done.notebook) == ["A", "own", "B"]


def test_without_a_base_tags_alone_decide():
    upstream = notebook(cell("New prose", "markdown", "p"), exercise("f", STUB), exercise("g", STUB.replace("f", "g")))
    mine = notebook(cell("Old prose", "markdown", "p"), exercise("f", ANSWER), cell("mine = 1", id="m"), exercise("h", "def h(): pass"))
    done = merge(None, upstream, mine)
    assert sources(done.notebook) == ["New prose", ANSWER, "mine = 1", "def h(): pass", STUB.replace("f", "g")]
    assert [entry.text for entry in done.report.only_saved] == ["Old prose"]
    assert [entry.name for entry in done.report.not_placed] == ["h"]


def test_without_a_base_a_generated_stub_is_known_by_its_hash():
    old = exercise("f", STUB)
    old["metadata"]["course"] = {"stub": digest(STUB)}
    new = STUB.replace("def f(a, b):", "def f(a, b, c):")
    done = merge(None, notebook(exercise("f", new)), notebook(old))
    assert sources(done.notebook) == [new] and not done.report.not_placed


def test_the_hash_in_files_that_learners_have_stays_the_same():
    assert digest("a  \n\n b\n") == digest("\na\n\n b") == "60716cb75d02"
    assert digest("a\n\nb") != digest("a\n\n b") and len(digest("half a pair: \ud83d")) == 12


@pytest.mark.parametrize("code, expected", [
    ("def f(a: int, *rest: str, b: float = 1e-3, **more) -> None: ...", {"f": "f(a, *rest, b=0.001, **more)"}),
    ("async def f(): ...", {"f": "f()"}),
    ("def g(): ...", {}),
    ("def f(a): ...\ndef f(b): ...", {"f": "f(b)"}),
    ("!pip list\ndef f(a, b='#:'):\n  return (", {"f": "f(a, b='#:')"}),
    ("class f:\n  def __init__(self, n: int): ...\n  def run(self, x=1): ...", {"f.__init__": "f.__init__(self, n)", "f.run": "f.run(self, x=1)"}),
    ("\x00", {}),
    ("((((", {}),
])  # fmt: skip
def test_signature(code, expected):
    assert signature(code, "f") == expected


def test_class_may_have_further_methods():
    stub = "class C:\n    def __init__(self, n):\n        ...\n    def step(self, x):\n        ..."
    answer = stub.replace("...", "pass") + "\n    def helper(self):\n        pass"
    done = merge(None, notebook(exercise("C", stub)), notebook(exercise("C", answer)))
    assert sources(done.notebook) == [answer]
    done = merge(notebook(exercise("C", stub)), notebook(exercise("C", stub.replace("(self, x)", "(self, x, y)"))), notebook(exercise("C", answer)))
    assert done.report.not_placed[0].name == "C"


@pytest.mark.parametrize("data, said", [
    ([], "not a Jupyter notebook"),
    ({"nbformat": 3, "worksheets": []}, "format is 3"),
    ({"nbformat": 4, "cells": {}}, "no list of cells"),
    ({"nbformat": 4, "cells": [{"cell_type": "heading"}]}, "cell 1"),
    ({"nbformat": 4, "cells": [{"cell_type": "code", "source": 7}]}, "source of its cell 1"),
])  # fmt: skip
def test_what_is_no_notebook_is_said(data, said):
    with pytest.raises(NotANotebook, match=said):
        check_notebook(data)


# ---- properties

NAMES = ("f", "g", "h")
HEADERS = ("(a, b)", "(a, b, c=1)", "(x)")


def stub_of(name, header):
    return f'def {name}{header}:\n    raise NotImplementedError("{name} (chapter 03) is not written yet")\n\ncheck({name})'


@st.composite
def course(draw):
    """A course notebook: prose and exercises, each with its own id."""
    letters = draw(st.lists(st.sampled_from("ABCDEFGH"), unique=True, max_size=6))
    cells = [cell(f"{letter} {draw(st.integers(0, 1))}", draw(st.sampled_from(["markdown", "code"])), f"id-{letter}") for letter in letters]
    for name in draw(st.lists(st.sampled_from(NAMES), unique=True)):
        cells.insert(draw(st.integers(0, len(cells))), exercise(name, stub_of(name, draw(st.sampled_from(HEADERS)))))
    return notebook(*cells)


@st.composite
def learner(draw, base):
    """What a learner may make of it: cells typed over, added, deleted, copied, moved; ids and tags lost."""
    cells = copy.deepcopy(base["cells"])
    for number in range(draw(st.integers(0, 6))):
        what = draw(st.sampled_from(["edit", "answer", "add", "delete", "copy", "swap", "retype", "no id", "no tags", "garbage"]))
        at = draw(st.integers(0, max(0, len(cells) - 1)))
        if what == "add" or not cells:
            cells.insert(
                at,
                cell(
                    draw(st.sampled_from(["own", "own\n\n", "A 0", "  ", "def f(a, b): pass"])) + f" # {number}",
                    id=draw(st.sampled_from([None, f"new{number}", "id-A"])),
                ),
            )
        elif what == "edit":
            cells[at]["source"] = f"edited {number} {draw(st.text(max_size=5))}"
        elif what == "answer":
            cells[at]["source"] = source_of(cells[at]).replace("raise NotImplementedError", f"return {number}, repr")
        elif what == "delete":
            del cells[at]
        elif what == "copy":
            cells.insert(at, copy.deepcopy(cells[at]))
        elif what == "swap":
            cells.append(cells.pop(at))
        elif what == "retype":
            cells[at]["cell_type"] = draw(st.sampled_from(["code", "markdown", "raw"]))
        elif what == "no id":
            cells[at].pop("id", None)
        elif what == "no tags":
            cells[at]["metadata"] = draw(st.sampled_from([{}, {"tags": None}, {"tags": ["x", 1]}]))
        else:
            cells[at]["source"] = draw(st.lists(st.text(max_size=4), max_size=3))
    return {**copy.deepcopy(base), "cells": cells}


@st.composite
def three(draw):
    base = draw(course())
    return draw(st.sampled_from([base, None])), draw(course()), draw(learner(base))


def text_of(one):
    return source_of(one).rstrip()


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(three())
@example((None, notebook(), notebook(cell("own"))))
def test_nothing_is_lost_and_upstream_is_whole(versions):
    base, upstream, mine = versions
    before = copy.deepcopy(versions)
    done = merge(base, upstream, mine)
    assert versions == before, "a pure function"

    known = {text_of(one) for book in (base, upstream) if book for one in book["cells"]}
    there = {text_of(one) for one in done.notebook["cells"]} | {entry.text.rstrip() for entry in done.report.only_saved}
    typed = {text_of(one) for one in mine["cells"]} - known
    assert {text for text in typed if text.strip()} <= there

    ids = [one["id"] for one in done.notebook["cells"] if "id" in one]
    assert len(set(ids)) == len(ids) == len(done.notebook["cells"])
    order = [one["id"] for one in done.notebook["cells"] if one["id"] in {new["id"] for new in upstream["cells"]}]
    assert order == [new["id"] for new in upstream["cells"]]
    answers = {entry.text for entry in done.report.placed}
    by_id = {one["id"]: one for one in done.notebook["cells"]}
    for new in upstream["cells"]:
        merged = by_id[new["id"]]
        assert source_of(merged) == source_of(new) or source_of(merged) in answers
        assert merged["metadata"] == new["metadata"]
    nbformat.validate(nbformat.from_dict(copy.deepcopy(done.notebook)))


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(three())
def test_merging_again_changes_nothing(versions):
    base, upstream, mine = versions
    once = merge(base, upstream, mine).notebook
    assert once == merge(base, upstream, mine).notebook
    assert same_work(merge(base, upstream, once).notebook, once), "an interrupted update is repeated"
    assert same_work(merge(upstream, upstream, once).notebook, once), "so is a finished one"


# ---- files of stubs

TOP = '"""Chapter 03."""\n\nimport torch'


def stub_text(*pairs, top=TOP):
    return "\n\n".join(
        part.strip("\n") + "\n" for part in [top, *(f"# %% exercise {name} | core | 10 minutes | 2 points | torch\n{code}" for name, code in pairs)]
    )


def test_stub_files_by_section():
    base = stub_text(("f", "def f(a):\n    raise E"), ("g", "def g(a):\n    raise E"), ("h", "def h(a):\n    raise E"))
    mine = stub_text(
        ("f", "def f(a):\n    return helper(a)\n\n\ndef helper(a):\n    return a"), ("g", "def g(a):\n    return 2"), ("h", "def h(a):\n    raise E")
    )
    mine = mine.replace("import torch", "import torch\nimport math") + "\n\n# %% scratch\nprint(math.pi)\n"
    upstream = stub_text(
        ("h", "def h(a):\n    raise Better"),
        ("g", "def g(a, b):\n    raise E"),
        ("f", "def f(a):\n    raise E"),
        top=TOP + "\nfrom torch import Tensor",
    )
    text, report = merge_stub_files(base, upstream, mine)
    assert "import torch\nfrom torch import Tensor\n\nimport math" in text
    assert "return helper(a)" in text and "def helper(a)" in text and "raise Better" in text
    assert "def g(a, b):\n    raise E" in text and "# def g(a):\n#     return 2" in text
    assert text.index("def h") < text.index("def g(a, b)") < text.index("def f") and "print(math.pi)" in text
    assert [entry.name for entry in report.placed] == ["f"] and [entry.name for entry in report.not_placed] == ["g"]
    ast.parse(text)
    assert merge_stub_files(upstream, upstream, text)[0] == text
    assert merge_stub_files(base, upstream, text)[0] == text


@pytest.mark.parametrize("base", [None, TOP, "with sections"])
def test_a_stub_file_without_sections(base):
    """A chapter that has no exercise yet, or a file that the learner emptied: what was typed stays."""
    filled = stub_text(("f", "def f(a):\n    raise E"))
    base = filled if base == "with sections" else base
    assert merge_stub_files(base, TOP, TOP)[0].strip() == TOP.strip()
    assert merge_stub_files(base, filled, TOP)[0] == filled
    text, report = merge_stub_files(base, TOP, stub_text(("f", "def f(a):\n    return 1")))
    assert "return 1" in text and TOP.strip() in text and [entry.name for entry in report.not_placed] == ["f"]
    for nothing in ("", "\n"):
        assert merge_stub_files(base, filled, nothing)[0] == filled


def test_stub_file_nobody_touched_is_upstreams_own():
    base, upstream = stub_text(("f", "def f(a):\n    raise E")), stub_text(("f", "def f(a, b):\n    raise E"), top=TOP + "\nimport math")
    assert merge_stub_files(base, upstream, base) == (upstream, merge_stub_files(base, upstream, base)[1])
    assert not any(vars(merge_stub_files(base, upstream, base)[1]).values())


def test_real_stub_file_is_known_by_its_record():
    sync = pytest.importorskip("tools.sync")
    path = sync.ROOT / "solutions" / "ch03_online_softmax.py"
    if not path.exists():
        pytest.skip("chapter 03 is not here")
    old = sync.exercises_text(path, 3)
    new = old.replace("def merge_states(a: SoftmaxState, b: SoftmaxState)", "def merge_states(a: SoftmaxState, b: SoftmaxState, eps: float = 0.0)")
    assert new != old
    assert merge_stub_files(None, new, old)[0] == new
    mine = old.replace('raise NotImplementedError("safe_softmax (chapter 03) is not written yet")', "return x.softmax(-1)")
    assert mine != old
    text, report = merge_stub_files(None, new, mine)
    assert [entry.name for entry in report.placed] == ["safe_softmax"] and not report.not_placed and not report.own
    assert text == new.replace('raise NotImplementedError("safe_softmax (chapter 03) is not written yet")', "return x.softmax(-1)")


def test_removed_exercise_stays_in_a_stub_file_without_its_header():
    base = stub_text(("f", "def f(a):\n    raise E"), ("g", "def g(a):\n    raise E"))
    text, report = merge_stub_files(
        base, stub_text(("f", "def f(a):\n    raise E")), base.replace("def g(a):\n    raise E", "def g(a):\n    return 1")
    )
    assert "exercise g" not in text and KEPT in text and "def g(a):\n    return 1" in text
    assert [entry.name for entry in report.not_placed] == ["g"]


def test_preamble_that_no_longer_fits_is_kept_as_comments():
    base = stub_text(("f", "def f(a):\n    raise E"), top="import torch")
    mine = stub_text(("f", "def f(a):\n    raise E"), top="from math import (\n    pi,\n")
    text, report = merge_stub_files(base, stub_text(("f", "def f(a):\n    raise E"), top="import numpy"), mine)
    assert "# from math import (" in text and report.not_placed
    ast.parse(text)


def test_real_notebook_with_every_exercise_answered():
    path = ROOT / "notebooks" / "03_online_softmax.ipynb"
    if not path.exists():
        pytest.skip("chapter 03 is not here")
    upstream = check_notebook(json.loads(path.read_text(encoding="utf-8")))
    mine = copy.deepcopy(upstream)
    names = [exercise_of(one) for one in mine["cells"] if exercise_of(one)]
    for one in mine["cells"]:
        one.pop("id")  # as some editors leave it
        if exercise_of(one):
            one["source"] = source_of(one).replace("raise NotImplementedError(", "return (")
    done = merge(None, upstream, mine)
    assert [entry.name for entry in done.report.placed] == names and not done.report.not_placed and not done.report.own
    assert same_work(done.notebook, mine) and [one["id"] for one in done.notebook["cells"]] == [one["id"] for one in upstream["cells"]]
