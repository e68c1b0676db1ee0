"""The plain orders that sum as the hardware does, and the script that asks where a log-sum-exp's last digits come from."""

import pytest
import torch

from benchmarks import kernel_trials, lse_cases


def test_cutting_off_makes_sums_of_one_sign_too_small_and_the_more_the_longer_they_are():
    a, b = torch.rand(30, 256).half(), torch.rand(256, 30).half()
    short, long = ((lse_cases.cut_off(a[:, :d], b[:d]) / (a[:, :d].double() @ b[:d].double()) - 1).mean().item() for d in (64, 256))
    assert -2e-6 < long < 2 * short < 0
    assert (lse_cases.cut_off(a, b, 256) - a.double() @ b.double()).abs().max() < 256 * 2**-23, "one step, one rounding"


def test_the_tensor_cores_get_whole_tiles_and_give_back_what_was_asked(monkeypatch):
    seen = []

    def product(a, b):
        seen.append((a.shape[-2], b.shape[-1]))
        return a.float() @ b.float()

    monkeypatch.setattr(kernel_trials, "product", product)
    for m, n in ((1, 39), (21, 1), (128, 256), (130, 7)):
        a, b = torch.randn(2, 3, m, 40).half(), torch.randn(2, 3, 40, n).half()
        got = kernel_trials.by_tensor_cores(a, b)
        assert got.shape == (2, 3, m, n) and (got - a.float() @ b.float()).abs().max() < 1e-5
    assert set(seen) == {(128, 128), (128, 256), (256, 128)}


def test_an_explanation_fits_where_its_error_is_the_kernels():
    rows = [{"kernel's lse": -1.0, "a": -0.8, "b": 0.0}, {"kernel's lse": 0.05, "a": -0.8, "b": 0.0}, {"kernel's lse": -1.0, "a": "-", "b": -2.0}]
    assert lse_cases.explained(rows, "a") == 1 and lse_cases.explained(rows, "b") == 1


@pytest.mark.parametrize("case", lse_cases.CASES, ids=lambda case: f"{case['kernel']}-{case['seed']}")
def test_every_case_has_one_query_or_one_key(case):
    """What the seven have in common: cuBLAS has products of its own for a single row or column."""
    assert 1 in (case["N_Q"], case["N_KV"]) and case["dtype"] == "fp16" and case["values"] in ("very negative", "rising maximum", "hot key")
