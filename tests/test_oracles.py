"""The references against torch's own functions, and on the rows that torch leaves undefined."""

import pytest
import torch

from course_lib import oracles

HIDDEN = -torch.inf


def scores(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(7), dtype=torch.float64) * 20


def test_softmax_and_logsumexp_agree_with_torch():
    x = scores(2, 3, 37)
    x[0, 0, 5:] = HIDDEN
    torch.testing.assert_close(oracles.softmax(x), torch.softmax(x, -1), rtol=1e-13, atol=0)
    torch.testing.assert_close(oracles.logsumexp(x), torch.logsumexp(x, -1), rtol=1e-13, atol=0)


def test_empty_rows():
    x = torch.full((2, 4), HIDDEN)
    x[1, 2] = -3.0
    assert oracles.softmax(x).tolist() == [[0, 0, 0, 0], [0, 0, 1, 0]]
    assert oracles.logsumexp(x).tolist() == [HIDDEN, -3.0]
    assert oracles.softmax(torch.ones(3, 0)).shape == (3, 0) and oracles.logsumexp(torch.ones(3, 0)).tolist() == [HIDDEN] * 3


def test_nothing_overflows():
    for dtype, big in ((torch.float16, 6e4), (torch.float32, 3e38), (torch.float64, 1e308)):
        weights = oracles.softmax(torch.tensor([big, big, -big], dtype=dtype))
        assert weights.dtype == dtype and weights.tolist() == [0.5, 0.5, 0]


def test_attention_agrees_with_torch():
    q, k, v = scores(2, 5, 8) / 20, scores(2, 11, 8) / 10, scores(2, 11, 3)
    mask = torch.rand(2, 5, 11, generator=torch.Generator().manual_seed(1)) > 0.4
    for m in (None, mask):
        for scale in (None, 0.3):
            torch.testing.assert_close(
                oracles.attention(q, k, v, m, scale), torch.nn.functional.scaled_dot_product_attention(q, k, v, m, scale=scale)
            )


def test_attention_of_a_fully_masked_row_is_zero():
    q, k, v = scores(4, 8), scores(6, 8), scores(6, 8)
    mask = torch.ones(4, 6, dtype=torch.bool)
    mask[2] = False
    assert oracles.attention(q, k, v, mask)[2].tolist() == [0.0] * 8
    assert oracles.attention_lse(q, k, mask)[2].item() == HIDDEN and torch.isfinite(oracles.attention_lse(q, k, mask)[[0, 1, 3]]).all()


def test_the_state_holds_the_output_and_the_lse():
    x, values = scores(2, 3, 9), scores(2, 9, 4)[:, None].expand(2, 3, 9, 4)
    state = oracles.softmax_state(x, values)
    torch.testing.assert_close(state.acc / state.row_sum[..., None], (torch.softmax(x, -1)[..., None, :] @ values)[..., 0, :])
    torch.testing.assert_close(state.row_max + state.row_sum.log(), torch.logsumexp(x, -1))
    empty = oracles.softmax_state(torch.full((9,), HIDDEN, dtype=torch.float64), scores(9, 4))
    assert (empty.row_max.item(), empty.row_sum.item(), empty.acc.tolist()) == (HIDDEN, 0, [0, 0, 0, 0])


def test_max_error():
    assert oracles.max_error(torch.tensor([1.0, HIDDEN]), torch.tensor([1.5, HIDDEN])) == 0.5
    assert oracles.max_error(torch.tensor([1.0]), torch.tensor([torch.inf])) == torch.inf
    assert oracles.max_error(torch.tensor([torch.nan]), torch.tensor([1.0])) != oracles.max_error(torch.tensor([1.0]), torch.tensor([1.0])) == 0


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: oracles.softmax(torch.ones(3, dtype=torch.int64)), "floating point"),
        (lambda: oracles.attention(torch.ones(2, 4), torch.ones(2, 5), torch.ones(2, 4)), "4 features and k has 5"),
        (lambda: oracles.attention(torch.ones(2, 4), torch.ones(2, 4), torch.ones(2, 4), torch.ones(2, 2)), "bool"),
        (lambda: oracles.softmax_state(torch.ones(3), torch.ones(4, 2)), "3 scores a row"),
        (lambda: oracles.max_error(torch.ones(2), torch.ones(3)), "differ"),
    ],
)
def test_bad_input_gets_a_sentence(call, words):
    with pytest.raises(ValueError, match=words):
        call()
