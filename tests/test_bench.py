"""The peak-memory meter against closed forms: what is alive at once, views, frees, nesting, errors; and the tables of times."""

import pytest
import torch

from course_lib import bench, oracles
from course_lib.bench import peak_bytes

GPU = pytest.param("cuda", marks=pytest.mark.gpu)
KIB = 1024


@pytest.fixture(params=["cpu", GPU])
def device(request):
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("no GPU here")
    return request.param


def empty(kib: int, device: str) -> torch.Tensor:
    return torch.ones(kib * KIB // 4, device=device)


def test_one_tensor_and_none(device):
    assert peak_bytes(lambda: empty(64, device), device) == 64 * KIB
    assert peak_bytes(lambda: None, device) == 0


def test_what_is_freed_makes_room(device):
    def one_after_the_other():
        for _ in range(5):
            empty(64, device)

    def all_together():
        return [empty(64, device) for _ in range(5)]

    assert peak_bytes(one_after_the_other, device) == 64 * KIB
    assert peak_bytes(all_together, device) == 5 * 64 * KIB


def test_a_chain_holds_two_at_once(device):
    x = empty(64, device)

    def chain():
        y = x + 1
        for _ in range(4):
            y = y * 2
        return y

    assert peak_bytes(chain, device) == 2 * 64 * KIB  # the old y lives until the new one is there


def test_what_was_there_before_does_not_count(device):
    x = empty(64, device)
    assert peak_bytes(lambda: x.add_(1), device) == 0
    assert peak_bytes(lambda: x.view(-1, 4)[::2].t(), device) == 0


def test_a_small_view_keeps_all_of_its_tensor(device):
    def slices():
        return [empty(64, device)[:1] for _ in range(3)]

    assert peak_bytes(slices, device) == 3 * 64 * KIB
    assert peak_bytes(lambda: [part.clone() for part in slices()], device) >= 3 * 64 * KIB


def test_what_was_there_and_goes_makes_room(device):
    kept = [empty(64, device)]

    def swap():
        y = kept[0] + 1
        kept.clear()
        return y, empty(32, device)

    assert peak_bytes(swap, device) == 64 * KIB  # 64 more, then 64 less and 32 more
    assert peak_bytes(lambda: kept.append(empty(16, device)), device) == 16 * KIB


def test_a_result_that_grows_in_place(device):
    out = torch.empty(0, device=device)
    x = empty(64, device)
    assert peak_bytes(lambda: torch.add(x, 1, out=out), device) == 64 * KIB
    assert peak_bytes(lambda: torch.add(x, 1, out=out), device) == 0


def naive(q, k, v):
    scores = q @ k.mT
    weights = torch.softmax(scores, -1)
    del scores
    return weights @ v


def test_naive_attention_holds_two_score_matrices(device):
    n, d = 256, 32
    q, k, v = torch.randn(3, n, d, device=device)
    if device == "cuda":
        naive(q, k, v)  # cuBLAS takes its workspace once
    assert peak_bytes(lambda: naive(q, k, v), device) == 2 * n * n * 4
    q, k, v = q.double(), k.double(), v.double()
    if device == "cuda":
        naive(q, k, v)
    assert peak_bytes(lambda: naive(q, k, v), device) == 2 * n * n * 8


def test_tiles_hold_one_tile(device):
    n, d, tile = 256, 32, 32
    q, k = torch.randn(2, n, d, device=device)
    if device == "cuda":
        q @ k[:tile].mT

    def tiles():
        best = torch.full((n,), float("-inf"), device=device)
        for start in range(0, n, tile):
            scores = q @ k[start : start + tile].mT
            best = torch.maximum(best, scores.amax(-1))
            del scores
        return best

    rows = n * 4
    assert peak_bytes(tiles, device) == n * tile * 4 + 3 * rows  # a tile, its maxima, the old and the new best


def test_nested_calls_each_count_from_their_own_beginning(device):
    inner = []

    def outer():
        first = empty(128, device)
        del first
        kept = empty(64, device)
        inner.append(peak_bytes(lambda: empty(32, device) + 1, device))
        return kept

    assert peak_bytes(outer, device) == 128 * KIB and inner == [64 * KIB]

    def largest_inside():
        kept = empty(64, device)
        inner.append(peak_bytes(lambda: empty(256, device), device))
        return kept

    assert peak_bytes(largest_inside, device) == (64 + 256) * KIB and inner[-1] == 256 * KIB


def test_an_error_passes_and_leaves_nothing_behind(device):
    def fails():
        empty(64, device)
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        peak_bytes(fails, device)
    assert peak_bytes(lambda: empty(16, device), device) == 16 * KIB
    assert not bench._Allocator._open


def test_gradients_count(device):
    w = torch.ones(64 * KIB // 4, device=device, requires_grad=True)

    def step():
        product = w * 2
        product.sum().backward()

    scalars = 2 * (512 if device == "cuda" else 4)  # the sum, and the one that backward begins with
    assert peak_bytes(step, device) == 2 * 64 * KIB + scalars  # the product and w's gradient


def test_a_new_tensor_at_an_old_address_is_seen():
    """The key is an address: a storage that is gone must not hide the next one at the same place."""

    def many():
        for _ in range(200):
            x = torch.ones(16)
            del x
        return torch.ones(1024)

    assert peak_bytes(many) == 4096
    x = torch.ones(8)

    def replaced():
        nonlocal x
        for _ in range(50):
            x = x + 1
        return torch.ones(1024), torch.ones(1024)

    assert peak_bytes(replaced) == 2 * 4096  # the first x made room for the last


def test_the_oracle_grows_with_the_square():
    def peak(n):
        q, k, v = torch.randn(3, n, 16)
        return peak_bytes(lambda: oracles.attention(q, k, v))

    assert 3.5 < peak(512) / peak(256) < 4.5


def test_too_few_repeats_are_refused():
    with pytest.raises(ValueError, match="use at least 3"):
        bench.time_call(lambda: None, 2)
