"""Lines are counted from the learner's own `def`."""

import pytest

from course_lib.grading.lines import place

TEXT = """import math
SIZE = 4

@decorated
@twice
def f(x):
    # a comment
    def inner(y):
        return y
    return inner(x)


class Box:
    pass
print(f(1))
"""
BROKEN = "import math\n\ndef helper(x):\n    return x\n\ndef f(\n    x,\n):\n    y = (1\n    return x\n\nprint(f(2)\n"


@pytest.mark.parametrize(
    ("number", "said"),
    [(1, ""), (2, ""), (4, ""), (6, "line 1 of f"), (9, "line 4 of f"), (10, "line 5 of f"), (14, "line 2 of Box"), (15, ""), (0, ""), (99, "")],
)
def test_the_place_of_a_line(number, said):
    assert place(TEXT, number) == said


@pytest.mark.parametrize(
    ("number", "said"), [(1, ""), (4, "line 2 of helper"), (7, "line 2 of f"), (9, "line 4 of f"), (10, "line 5 of f"), (12, "")]
)
def test_the_place_in_a_text_that_is_no_python(number, said):
    assert place(BROKEN, number) == said


def test_texts_that_nobody_can_parse():
    assert place("\0", 1) == "" and place("(" * 500, 1) == ""
