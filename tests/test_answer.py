"""What the answer is: names followed across cells, order, comments kept, and what cannot be followed said in a sentence."""

import subprocess
import sys

import pytest

from course_lib.grading.answer import AnswerError, Cell, build, defines, from_file, is_stub, require_python


def cells(*texts):
    return [Cell(text) for text in texts]


def run(text, name="f"):
    """The answer's text run as a module of its own."""
    names = {"__name__": "answer"}
    exec(compile(text, "<answer>", "exec"), names)
    return names[name]


def test_a_kernel_its_host_and_a_constant_in_three_cells():
    text = build(
        "f",
        cells(
            "import triton\nimport triton.language as tl\nimport torch",
            "BLOCK = 32",
            "@triton.jit\ndef kernel(x, n: tl.constexpr):\n    tl.load(x)",
            "def f(x):\n    kernel[(1,)](x, n=BLOCK)",
        ),
    )
    assert "BLOCK = 32" in text and "@triton.jit\ndef kernel" in text and "import triton.language as tl" in text
    assert "import torch" not in text  # nothing uses it
    assert text.index("import triton") < text.index("@triton.jit") < text.index("def f")


def test_the_last_executed_binding_wins_and_other_statements_are_dropped():
    text = build("f", cells("K = 1", "def f():\n    return K", "K = 2", "print(f())", "def g(): ..."))
    assert run(text)() == 2
    assert "print" not in text and "def g" not in text


def test_a_definition_run_again_earlier_in_the_notebook():
    text = build("f", cells("B = 1", "def f(b=B):\n    return b", "B = 7"))  # the reader re-ran the first cell
    assert run(text)() == 7


def test_what_a_value_needs_while_it_is_computed_comes_first():
    text = build("f", cells("def f():\n    return TABLE", "def half(x):\n    return x // D", "D = 2", "TABLE = half(10)"))
    assert run(text)() == 5


def test_two_functions_that_call_each_other():
    text = build("f", cells("def f(n):\n    return n if n == 0 else g(n - 1)\n", "def g(n):\n    return f(n)"))
    assert run(text)(4) == 0


def test_later_binding_of_one_of_two_names_stays_later():
    text = build("f", cells("a, b = 1, 2", "b = 3", "def f(x=b):\n    return a, x, b"))
    assert run(text)() == (1, 3, 3)


def test_comments_decorators_and_defaults_are_kept():
    source = "# about the maximum\n@wrap\ndef f(x, y=Y, *, z: T = None):\n    # inside\n    return x\n    # at the end"
    text = build("f", cells("def wrap(g):\n    return g", "Y = 1", "from typing import Any as T", source))
    assert source in text and "Y = 1" in text and "Any as T" in text and run(text)(5) == 5


def test_annotated_assignments_lambdas_and_nested_scopes():
    text = build(
        "f",
        cells(
            "N: int = 4",
            "only: int",
            "pick = lambda x: x + N",
            "class C:\n    M = N\n    def get(self):\n        return [pick(i) for i in range(self.M)]",
            "def f():\n    def inner():\n        return C().get()\n    return inner()",
        ),
    )
    assert run(text)() == [4, 5, 6, 7]
    assert "only" not in text


def test_a_class_body_that_reads_a_global_before_binding_it():
    text = build("f", cells("SIZE = 3", "class C:\n    SIZE = SIZE + 1", "def f():\n    return C.SIZE"))
    assert run(text)() == 4


def test_names_on_one_line_are_taken_apart():
    text = build("f", cells("import os; K = 5; L = 6", "def f(): return K"))
    assert run(text)() == 5 and "L = 6" not in text


def test_every_dotted_import_of_a_package_is_kept():
    text = build("f", cells("import xml.dom\nimport xml.sax", "def f():\n    return xml.dom.__name__ + xml.sax.__name__"))
    assert run(text)() == "xml.domxml.sax"


def test_future_annotations_are_kept_and_first():
    text = build("f", cells("from __future__ import annotations", "def f(x: Nowhere) -> Nothing:\n    return x"))
    assert text.startswith("from __future__ import annotations") and run(text)(1) == 1


def test_names_found_nowhere_are_left_for_the_answers_own_error():
    assert "undefined_name" in build("f", cells("def f():\n    return undefined_name + len([])"))


def test_display_prints_where_answers_are_graded():
    assert run(build("f", cells("def f():\n    display(1)\n    return 2"), namespace=["display"]))() == 2


@pytest.mark.parametrize(
    ("before", "words"),
    [
        ("for X in range(3):\n    pass", "for loop"),
        ("with open(__file__) as X:\n    pass", "with statement"),
        ("X = 1\nX += 1", "changed in place"),
        ("if True:\n    X = 1", "inside an if"),
        ("try:\n    import torch as X\nexcept ImportError:\n    X = None", "inside a try"),
        ("while False:\n    X = 2", "while loop"),
        ("print(X := 3)", "plain statement"),
        ("X = get_ipython().getoutput('ls')", "% or ! command"),
        ("X = await thing()", "await"),
        ("from math import *", "Import X by its name"),
    ],
)
def test_a_name_bound_any_other_way_is_asked_for(before, words):
    with pytest.raises(AnswerError, match=words) as error:
        build("f", cells(before, "def f():\n    return X"))
    assert error.value.id == "name" and "X" in str(error.value) and "this cell" in str(error.value)


def test_a_name_that_only_exists_in_the_session_is_asked_for():
    with pytest.raises(AnswerError, match="Put X in this cell"):
        build("f", cells("def f():\n    return X"), namespace=["X", "f"])


def test_a_plain_binding_after_another_kind_is_followed():
    assert run(build("f", cells("for X in range(3): pass", "X = 9", "def f():\n    return X")))() == 9


def test_magics_inside_the_answer_are_named():
    with pytest.raises(AnswerError, match="% or ! command"):
        build("f", cells("def f():\n    get_ipython().system('ls')"), namespace=["get_ipython"])


def test_statements_after_the_failing_line_did_not_run():
    assert run(build("f", [Cell("K = 1\n1 / 0\nK = 2", stopped_at=2), Cell("def f():\n    return K")]))() == 1
    assert run(build("f", [Cell("def f():\n    return 1"), Cell("def f(x=1/0):\n    return 2", stopped_at=1)]))() == 1
    assert not defines("f", [Cell("x = 1\ndef f(): ...", stopped_at=0)])


def test_cells_that_are_no_python_did_not_run():
    assert run(build("f", cells("def f():\n    return 3", "def f(:\n", "\0")))() == 3


def test_the_answer_is_never_an_import():
    with pytest.raises(AnswerError, match="comes by an import") as error:
        build("f", cells("from somewhere import f"))
    assert error.value.id == "missing"
    assert run(build("f", cells("def f():\n    return 1", "from somewhere import f")))() == 1


def test_a_lambda_is_an_answer_where_there_is_no_def():
    assert run(build("f", cells("f = lambda x: x + 1")))(1) == 2


def test_no_definition_at_all():
    with pytest.raises(AnswerError, match=r"no top-level `def f"):
        build("f", cells("x = 1"))
    with pytest.raises(AnswerError):
        build("f", [])


def test_a_helper_that_is_still_another_exercises_stub_comes_from_the_course():
    stub = 'def helper(x):\n    """What it does."""\n    raise NotImplementedError("helper")\n'
    text = build("f", cells(stub, "def f(x):\n    return helper(x)"), stubs={"helper": stub, "f": "def f(x): ..."})
    assert "from course_lib.earlier import helper" in text and "NotImplementedError" not in text
    own = build("f", cells("def helper(x):\n    return x", "def f(x):\n    return helper(x)"), stubs={"helper": stub})
    assert run(own)(3) == 3


def test_a_file_with_a_syntax_error_shows_the_line():
    with pytest.raises(AnswerError, match="line 2") as error:
        from_file("f", "x = 1\ndef f(:\n    pass\n", "mine.py")
    assert error.value.id == "syntax" and "def f(:" in str(error.value) and "mine.py" in str(error.value)


@pytest.mark.parametrize("text", ["a\0b", "(" * 3000 + ")" * 3000, "x = '''", "\tx = 1\n y = 2", "print 'old'"])
def test_texts_that_are_no_python_are_refused_in_a_sentence(text):
    with pytest.raises(AnswerError) as error:
        require_python(text, "mine.py")
    assert "mine.py" in str(error.value)


def test_a_file_is_read_like_one_cell():
    text = from_file("f", "import math\r\n\r\nK = 2\r\ndef f():\r\n    return K\r\n\r\nif __name__ == '__main__':\r\n    f()\r\n", "mine.py")
    assert run(text)() == 2 and "__main__" not in text and "\r" not in text
    with pytest.raises(AnswerError, match="mine.py"):
        from_file("f", "for K in range(3): pass\ndef f(): return K", "mine.py")


def test_section_headers_and_markers_are_not_taken_along():
    text = from_file("f", "# ==== f ==== written by check\ndef f():\n    return 1\n", "mine.py")
    assert "====" not in text


def test_stubs_are_recognised_whatever_the_comments():
    stub = 'def f(x):\n    """Doc."""\n    raise NotImplementedError("f")\n'
    assert is_stub("f", "import torch\n\n# mine\ndef f(x):\n    raise NotImplementedError('f')  # later\n", stub)
    assert not is_stub("f", "def f(x):\n    return x\n", stub)
    assert not is_stub("f", "x = 1", stub)
    assert not is_stub("f", "def f(:", stub)


def test_a_kernel_written_while_its_host_is_a_stub_is_an_attempt():
    stub = "def kernel():\n    ...\n\ndef f():\n    raise NotImplementedError\n"
    assert not is_stub("f", "def kernel():\n    return 1\n\ndef f():\n    raise NotImplementedError\n", stub)


def test_the_text_runs_in_a_fresh_process(tmp_path):
    path = tmp_path / "answer.py"
    path.write_text(build("f", cells("import math", "W = math.pi", "def f():\n    return W")) + "\nprint(f())\n")
    assert subprocess.run([sys.executable, str(path)], capture_output=True, text=True).stdout.startswith("3.14")


@pytest.mark.parametrize("text", ["x = 1\nreturn x\n", "def f():\n    break\n", "def f(x):\n    global x\n"])
def test_what_only_the_compiler_refuses_is_said_with_the_files_own_line(text):
    with pytest.raises(AnswerError, match="mine.py, line 2 is not valid Python"):
        from_file("f", text, "mine.py")


def test_an_odd_escape_in_a_string_is_no_reason_to_speak(recwarn):
    require_python("x = '\\d'\nassert (x, 'always true')\n", "mine.py")
    assert not recwarn.list


def test_a_helper_that_stands_nowhere_is_taken_from_earlier():
    stubs = {"helper": "def helper(x):\n    raise NotImplementedError\n", "f": "def f(x):\n    raise NotImplementedError\n"}
    text = from_file("f", "def f(x):\n    return helper(x) + other(x)\n", "mine.py", stubs)
    assert text.startswith("from course_lib.earlier import helper\n") and "import other" not in text
    assert "earlier" not in from_file("f", "helper = abs\ndef f(x):\n    return helper(x)\n", "mine.py", stubs)
    assert "earlier" not in from_file("f", "def f(x):\n    return f(x - 1)\n", "mine.py", stubs)
    with pytest.raises(AnswerError, match="import"):  # it may come from there
        from_file("f", "from math import *\ndef f(x):\n    return helper(x)\n", "mine.py", stubs)
