"""The input of a failing case comes back to the last bit from what the panel shows."""

import pytest
import torch

from course_lib.grading import reconstruct
from course_lib.grading.spec import Tiles
from course_lib.states import SoftmaxState

G = torch.Generator().manual_seed(3)


def rebuilt(arguments, layout="contiguous"):
    text = reconstruct.call("f", arguments, layout)
    assert text.splitlines()[-1] == f"f({', '.join(name for name, _ in arguments)})"
    seen = {}
    exec(text, {"torch": torch, "SoftmaxState": SoftmaxState, "f": lambda *a: seen.update(enumerate(a))})
    return list(seen.values())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int8, torch.bool])
def test_every_dtype(dtype):
    x = (torch.randn(3, 4, generator=G, dtype=torch.float64) * 3).to(dtype)
    (back,) = rebuilt([("x", x)])
    assert back.dtype == dtype and torch.equal(back, x)


def test_what_is_no_number_and_what_is_empty():
    x = torch.tensor([[1.0, -torch.inf], [torch.nan, torch.inf]])
    assert torch.equal(rebuilt([("x", x)])[0].nan_to_num(7.0), x.nan_to_num(7.0))
    (back,) = rebuilt([("x", torch.empty(2, 0))])
    assert back.shape == (2, 0)
    assert rebuilt([("x", torch.tensor(1.5))])[0].item() == 1.5


def test_tiles_states_and_scalars():
    x = torch.randn(2, 7, generator=G)
    state = SoftmaxState(x[:, 0], x[:, 1], x[:, 2:])
    tiles, back, tile, flag, pair = rebuilt([("tiles", Tiles(x, 3)), ("a", state), ("tile", 16), ("flag", None), ("pair", (1.5, [x]))])
    assert [tuple(part.shape) for part in tiles] == [(2, 3), (2, 3), (2, 1)]
    assert isinstance(back, SoftmaxState) and all(torch.equal(one, other) for one, other in zip(back, state, strict=True))
    assert (tile, flag, pair[0]) == (16, None, 1.5) and torch.equal(pair[1][0], x)


@pytest.mark.parametrize("layout", ["transposed", "expanded"])
def test_layouts(layout):
    x = torch.randn(3, 4, generator=G)
    x = x[:1].expand(3, 4) if layout == "expanded" else x
    (back,) = rebuilt([("x", x)], layout)
    assert torch.equal(back, x) and back.stride() == ((1, 3) if layout == "transposed" else (0, 1))


def test_lines_stay_short_and_too_much_is_not_shown():
    text = reconstruct.call("f", [("x", torch.randn(6, 8, generator=G))])
    assert max(map(len, text.splitlines())) <= 130 and len(text.splitlines()) == 7
    assert reconstruct.call("f", [("x", torch.randn(7, 7, generator=G))]) is None
    assert reconstruct.call("f", [("x", torch.ones(200, dtype=torch.int64))]) is None


def test_a_mixed_layout_transposes_every_second_tensor():
    x = torch.arange(12.0).reshape(3, 4)
    first, second, third = rebuilt([("x", x), ("y", x), ("z", x)], "mixed")
    assert all(torch.equal(back, x) for back in (first, second, third))
    assert [back.stride() for back in (first, second, third)] == [(4, 1), (1, 3), (4, 1)]
