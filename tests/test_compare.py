"""The tolerance rule and the sentences about where a result is wrong."""

import math

import pytest
import torch

from course_lib.grading import compare, excerpt, where, wire
from course_lib.grading.spec import Tiles
from course_lib.states import SoftmaxState

INF, NAN = torch.inf, torch.nan


def found(got, reference, *plain, returns="a tensor"):
    reference = compare.in_float64(reference)
    return compare.judge(got, reference, compare.targets(reference, list(plain), returns), returns)


def softmaxes(x):
    return x.softmax(-1), (x - x.logsumexp(-1, True)).exp(), x.exp() / x.exp().sum(-1, True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_another_rounding_is_right_and_a_real_error_is_not(dtype):
    x = torch.randn(7, 33, generator=torch.Generator().manual_seed(0)).to(dtype)
    reference, plain = x.double().softmax(-1), softmaxes(x)
    assert not found(torch.exp(x - x.amax(-1, True)) / torch.exp(x - x.amax(-1, True)).sum(-1, True), reference, *plain)
    off = plain[0].clone()
    off[3, 4] *= 1 + 200 * torch.finfo(dtype).eps
    off[3, 4] += 40 * torch.finfo(dtype).eps
    (finding,) = found(off, reference, *plain)
    assert finding.kind == "values" and finding.wrong.nonzero().tolist() == [[3, 4]]


def test_many_small_errors_are_caught_by_their_mean():
    x = torch.randn(50, 200, generator=torch.Generator().manual_seed(1))
    plain = softmaxes(x)
    target = compare.targets(x.double().softmax(-1), list(plain))[0]
    everywhere = (target.reference + 0.9 * target.limit).float()
    assert found(everywhere, target.reference, *plain)[0].kind == "values"


def test_a_mean_is_no_attention():
    q, k, v = (torch.rand(64, 32, generator=torch.Generator().manual_seed(i)) for i in range(3))
    scores = q @ k.T / 32**0.5
    plain = [scores.softmax(-1) @ v, (scores.exp() / scores.exp().sum(-1, True)) @ v, scores.exp() @ v / scores.exp().sum(-1, True)]
    reference = (q.double() @ k.double().T / 32**0.5).softmax(-1) @ v.double()
    assert found(v.mean(0).expand(64, 32), reference, *plain)


def test_nan_and_infinities_must_stand_where_the_reference_has_them():
    reference = torch.tensor([1.0, -INF, NAN, 2.0])
    assert not found(reference.clone(), reference, reference.clone())
    for i, value in ((0, NAN), (1, INF), (1, -1e30), (2, 0.0), (3, INF)):
        got = reference.clone()
        got[i] = value
        (finding,) = found(got, reference, reference.clone())
        assert finding.wrong.tolist() == [j == i for j in range(4)]


def test_form_comes_before_values():
    one = torch.ones(2, 3)
    assert found(one[0], one, one)[0].kind == "shape"
    assert found(one.half(), one, one)[0].sentence == "the result has the dtype float16; expected float32."
    assert found([one], one, one)[0].sentence == "expected a tensor, got a list of 1 tensor."
    assert found(None, one, one)[0].kind == "type"
    assert found(None, one, one)[0].sentence == "expected a tensor, got None. Is a `return` missing?"
    state = SoftmaxState(one[0], one[0], one)
    assert not found(state, state, state) and not found((state, one), (state, one), (state, one))
    for plain in (tuple(state), list(state)):
        (finding,) = found(plain, state, state)
        kind = type(plain).__name__
        assert finding.kind == "type" and finding.sentence == (
            f"Return a SoftmaxState(row_max, row_sum, acc): what came back is a plain {kind} of three."
        )
        assert found((plain, one), (state, one), (state, one))[0].kind == "type"
    assert found((one[0], one[0]), state, state)[0].kind == "type"
    assert "`acc` has the shape" in found(SoftmaxState(one[0], one[0], one[0]), state, state)[0].sentence


def test_numbers_and_empty_tensors():
    assert not found(3.0, 3.0, 3.0) and not found(3, 3.0, 3.0) and not found(NAN, NAN, NAN)
    assert found(3.1, 3.0)[0].sentence == "expected 3.0, got 3.1."
    assert found(True, 1)[0].kind == "type" and found("a", "b")[0].kind == "values" and found(10**400, 2.0)[0].kind == "values"
    assert not found(torch.empty(0, 3), torch.empty(0, 3), torch.empty(0, 3))
    assert not found(torch.tensor(2), torch.tensor(2), torch.tensor(2)) and found(torch.tensor(3), torch.tensor(2), torch.tensor(2))


def test_names_of_the_leaves():
    pair = (torch.ones(1), torch.ones(1))
    assert compare.names(pair, "a pair (row_max, row_sum)") == ["row_max", "row_sum"]
    assert compare.names(pair) == ["item 0", "item 1"] and compare.names(pair[0]) == [""]
    assert compare.names(SoftmaxState(*pair, pair[0])) == ["row_max", "row_sum", "acc"]


REFERENCE = 1 + torch.rand(2, 3, 10, 4, generator=torch.Generator().manual_seed(4))
AXES = ("batch", "head", "row", "column")


def wrong_at(index, value=9.0):
    got = REFERENCE.clone()
    got[index] = value
    return compare.describe(got, REFERENCE, AXES, ("row", 4))


@pytest.mark.parametrize(
    "index, value, words",
    [
        (
            (slice(None), slice(None), slice(8, 10)),
            9.0,
            "Wrong only in places 8-9: the last, partial tile (batch 0, head 0, row 8, column 0: expected",
        ),
        ((slice(None), slice(None), slice(4, 10)), 9.0, "Wrong from the second tile on"),
        ((slice(None), slice(None), slice(0, 3)), NAN, "NaN only in the first tile"),
        ((slice(None), 1), 9.0, "Wrong only in head 1"),
        ((slice(None), slice(None), slice(None), slice(1, 3)), 9.0, "Wrong only in columns 1-2"),
        ((slice(None),), NAN, "NaN everywhere"),
        ((slice(None),), 9.0, "Wrong everywhere"),
    ],
)
def test_where_it_is_wrong(index, value, words):
    assert wrong_at(index, value).startswith(words)


def test_a_constant_factor_is_named():
    assert "Every number is 0.5000 times what it should be." in compare.describe(REFERENCE / 2, REFERENCE, AXES)
    assert "times" not in compare.describe(REFERENCE + 1, REFERENCE, AXES)


def test_describe_takes_anything():
    for got, ref in (
        (torch.tensor(1.0), torch.tensor(2.0)),
        (torch.tensor([1, 2]), torch.tensor([1, 3])),
        (3, 4.0),
        (torch.tensor([True]), torch.tensor([False])),
    ):
        assert "xpected" in compare.describe(got, ref)


def test_alike_means_the_same_mistake():
    wanted = compare.targets(REFERENCE.double(), [REFERENCE])
    assert compare.close(REFERENCE * 1.0001, REFERENCE, wanted) and not compare.close(REFERENCE * 1.1, REFERENCE, wanted)
    assert not compare.close(REFERENCE, (REFERENCE, REFERENCE), wanted) and not compare.close(REFERENCE.half(), REFERENCE, wanted)


TREES = [
    (torch.randn(2, 3).bfloat16(), None, True, -3, 2.5, "text", {"mask": torch.ones(2, 2).bool(), "list": [torch.tensor(1), ()]}),
    SoftmaxState(torch.full((2,), -INF), torch.zeros(0, 3), torch.arange(4).mT if False else torch.arange(4)),
    [Tiles(torch.randn(2, 7).half(), 3), INF, -INF, 10**30],
]


@pytest.mark.parametrize("tree", TREES)
def test_frames_carry_trees_bit_by_bit(tree):
    frame = wire.pack(tree)
    header, body = wire._LENGTHS.unpack(frame[:8])
    back = wire.unpack(frame[8 : 8 + header], frame[8 + header :])
    assert len(frame) == 8 + header + body and wire.pack(back) == frame and type(back) is type(tree)


@pytest.mark.parametrize(
    "header",
    [
        b"", b"[]", b"{}", b"nonsense", b"\xff\xfe", b'{"value": 1}', b'{"value": [1], "tensors": []}', b'{"value": {"odd": 1}, "tensors": []}',
        b'{"value": {"tensor": 0}, "tensors": []}', b'{"value": {"tensor": -1}, "tensors": [["float32", [1], 0, 4]]}',
        b'{"value": 1, "tensors": [["float32", [1], 0, 8]]}', b'{"value": 1, "tensors": [["float32", [1], 2, 4]]}',
        b'{"value": 1, "tensors": [["float32", [-1], 0, -4]]}', b'{"value": 1, "tensors": [["object", [1], 0, 4]]}',
        b'{"value": 1, "tensors": [["float32", [1099511627776, 1099511627776], 0, 4]]}', b'{"value": {"state": [1]}, "tensors": []}',
        b'{"value": {"dict": [[{"list": []}, 1]]}, "tensors": []}', b'{"value": {"tiles": [1, 0]}, "tensors": []}',
        b'{"value": ' + b'{"list": [' * 60 + b"]}" * 60 + b', "tensors": []}', b"[" * 200_000,
    ],
)  # fmt: skip
def test_nonsense_is_a_wire_error(header):
    with pytest.raises(wire.WireError):
        wire.unpack(header, b"abcd")


# ---------------------------------------------------------------- numbers that can be read


@pytest.mark.parametrize(
    ("expected", "got", "said"),
    [
        (0.4127, 0.8809, "expected 0.4127, got 0.8809"),
        (0.6352412, 0.6352458, "expected 0.63524, got 0.63525; they differ in the fifth digit: rounding, more than plain PyTorch's"),
        (1.0, 1.0000001, "expected 1.0000000, got 1.0000001; they differ in the 8th digit: rounding, more than plain PyTorch's"),
        (1.0, 1.00000000001, "expected 1.00000000, got 1.00000000; they differ by 1.0e-11: rounding, more than plain PyTorch's"),
        (0.0, math.nan, "expected 0.0000, got NaN"),
        (-math.inf, 3.0, "expected -inf, got 3.0000"),
        (12345.6, 12345.9, "expected 12345.6, got 12345.9; they differ in the 6th digit: rounding, more than plain PyTorch's"),
        (1234567.0, 123456.0, "expected 1.235e+06, got 123456"),
        (0.00335, 0.00344, "expected 0.003350, got 0.003440"),
        (3, 4, "expected 3, got 4"),
    ],
)
def test_enough_digits_to_see_the_difference(expected, got, said):
    assert where.expected_and_got(expected, got) == said


def test_beside_nan_no_multiple_is_said():
    reference = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    (finding,) = found(torch.tensor([[torch.nan, 2.0], [3.0, 4.0001]]), reference, reference + 1e-3)
    assert finding.multiple == 0
    (finding,) = found(torch.tensor([[1.5, 2.0], [3.0, 4.0]]), reference, reference + 1e-3)
    assert finding.multiple == pytest.approx(500, rel=0.01)


@pytest.mark.parametrize(
    ("axes", "said"),
    [(("query", "place"), "Wrong only in queries 0 and 2"), (("batch", "place"), "in batches"), ((), "only at 0 and 2 of dimension 0")],
)
def test_plurals_of_axes(axes, said):
    reference = torch.zeros(4, 3)
    got = reference.clone()
    got[0] = got[2] = 1
    assert said in compare.describe(got, reference, axes)


def test_rows_show_the_digits_that_differ_and_fit_a_line():
    expected = torch.rand(2, 12, dtype=torch.float64) + 0.5
    got = expected.clone()
    got[1, 9] += 3e-8
    at = (1, 9)
    rows = excerpt._rows(expected, got, got != expected, at)
    assert len(rows[0]) == len(rows[1]) and sum(map(len, rows[0])) + 2 * len(rows[0]) <= 78
    assert sum(one != other for one, other in zip(*rows, strict=True)) == 1
    rows = excerpt._rows(expected, expected + 1, expected == expected, at)
    assert len(rows[0]) == 8 and all(len(word) == 6 for word in rows[0])


def test_numbers_say_the_same_whatever_their_type_but_ints_exactly():
    wanted = compare.targets(12, [12, 12, 12])
    assert compare.close(24.0, 24, wanted) and compare.close(24, 24, wanted) and compare.close(0.1 + 0.2, 0.3, wanted)
    assert not compare.close(24.5, 24, wanted) and not compare.close(10_000_001, 10_000_000, wanted)
    assert not compare.close(True, 1, wanted) and not compare.close(10**400, 1.0, wanted) and not compare.close("a", 1, wanted)


# ---------------------------------------------------------------- the root mean square


def test_the_rms_rule_binds_only_where_there_are_enough_elements():
    """Every error is half the limit of a single element: over many that is systematic, over two it is two roundings."""
    for count, refused in ((2, False), (compare.RMS_ELEMENTS - 1, False), (compare.RMS_ELEMENTS, True)):
        reference = torch.ones(count, dtype=torch.float64)
        plain = reference.clone()
        plain[0] += 1e-6  # the plain way is off in one place: max 1e-6, RMS far below
        got = reference + 1.5e-6
        assert bool(found(got, reference, plain)) == refused, count


def test_few_elements_still_have_their_single_limits():
    reference = torch.ones(2, dtype=torch.float64)
    assert found(reference + 4e-6, reference, reference + 1e-6)
