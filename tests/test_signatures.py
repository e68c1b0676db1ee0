"""What the compiler is told of a launch that the interpreter ran."""

import pytest
import torch

from course_lib import launches
from course_lib.grading import ahead


def said(**values):
    return launches.signature(list(values), ["B"], values)


def test_every_kind_of_argument():
    x = torch.zeros(3)
    types, constants = said(x=x, half=x.half(), bits=x.bool(), ids=x.long(), n=70, far=2**40, one=1, flag=True, scale=0.5, none=None, B=16)
    assert types == {
        "x": "*fp32",
        "half": "*fp16",
        "bits": "*i1",
        "ids": "*i64",
        "n": "i32",
        "far": "i64",
        "one": "constexpr",
        "flag": "i1",
        "scale": "fp32",
        "none": "constexpr",
        "B": "constexpr",
    }
    assert constants == {"one": 1, "none": None, "B": 16}
    assert ahead._sound({"kernel": "k", "signature": types, "constants": constants, "options": {"num_warps": 4}})


def test_dtypes_as_constants():
    tl = pytest.importorskip("triton.language")
    for dtype in (tl.float32, tl.float16, tl.bfloat16, tl.int32):
        _, constants = said(B=dtype)
        assert getattr(tl, constants["B"].removeprefix("tl.")) == dtype


@pytest.mark.parametrize("values", [{"x": object()}, {"B": [1]}, {"x": torch.zeros(2, dtype=torch.complex64)}, {"x": (1, object())}])
def test_what_cannot_be_said_is_not_compiled(values):
    assert said(**values) == ({}, {})
    assert not ahead._sound({"kernel": "k", "signature": {}, "constants": {}, "options": {}})


def test_a_tuple_is_said_part_by_part():
    """Strides are handed over so: what is 1 is compiled in, as for a number of its own."""
    assert said(x=(1, 2)) == ({"x": ("constexpr", "i32")}, {"x[0]": 1})
    assert said(x=(70, (2, 2**40))) == ({"x": ("i32", ("i32", "i64"))}, {})


@pytest.mark.parametrize(
    "launch",
    [
        {"kernel": 3, "signature": {"x": "*fp32"}, "constants": {}, "options": {}},
        {"kernel": "k", "signature": {"x": "*fp32; drop"}, "constants": {}, "options": {}},
        {"kernel": "k", "signature": None, "constants": {}, "options": {}},
        {"kernel": "k", "signature": {"x": ["*fp32"]}, "constants": {}, "options": {}},
    ],
)
def test_a_launch_of_another_form_is_left_out(launch):
    assert not ahead._sound(launch)
