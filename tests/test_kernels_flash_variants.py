"""Windows, packed sequences and changed scores in kernels/, interpreted, against float64: any strides, any lengths, exact bytes, refusals."""

import math

import pytest
import torch

from course_lib import hardware

if not hardware.has_triton() or hardware.tier() != "interpreter":  # asked before triton is imported: it turns the interpreter on
    pytest.skip("interpreted kernels only: benchmarks/verify_kernels.py does this on a GPU", allow_module_level=True)

from benchmarks import gradient_trials as gradients  # noqa: E402
from benchmarks import kernel_trials as trials  # noqa: E402
from benchmarks import variant_trials as variants  # noqa: E402
from course_lib import traffic  # noqa: E402
from kernels.flash_forward import flash_attention_forward  # noqa: E402
from kernels.flash_score_mod import flash_score_mod_forward  # noqa: E402
from kernels.flash_varlen import flash_varlen_forward  # noqa: E402
from kernels.flash_varlen_backward import flash_varlen_backward  # noqa: E402
from kernels.flash_window import flash_window_forward  # noqa: E402
from kernels.flash_window_backward import flash_window_backward  # noqa: E402

TINY = {"BLOCK_M": 16, "BLOCK_N": 16, "num_warps": 4, "num_stages": 1}
UNEVEN = {"BLOCK_M": 32, "BLOCK_N": 16, "num_warps": 4, "num_stages": 1}
TALL = {"BLOCK_M": 16, "BLOCK_N": 64, "num_warps": 4, "num_stages": 1}
CAUSAL = pytest.mark.parametrize("causal", [False, True], ids=["full", "causal"])


@pytest.fixture(autouse=True)
def launches():
    """Every test runs under the guard: an access outside the tensors of a launch is an error."""
    with traffic.counted() as launches:
        yield launches


def drawn(B, H, H_KV, N_Q, N_KV, D, dtype=torch.float32, seed=0):
    g = torch.Generator().manual_seed(seed)
    q, k, v, dout = (torch.randn(B, heads, n, D, generator=g) for heads, n in ((H, N_Q), (H_KV, N_KV), (H_KV, N_KV), (H, N_Q)))
    v += torch.arange(H_KV)[:, None, None]  # a wrong K/V head shows
    return [x.to(dtype) for x in (q, k, v, dout)]


def right(got, trial):
    wrong, _ = trials.verdict(got, *trial)
    assert not wrong, wrong
    return got


# ---------------------------------------------------------------- windows


def window_right(q, k, v, dout, window, config=None, scale=None):
    mask, used = variants.window_mask(q.shape[2], k.shape[2], window), q.shape[-1] ** -0.5 if scale is None else scale
    lse, delta = gradients.saved_rows(q, k, v, dout, mask, used)
    forward = right(flash_window_forward(q, k, v, window, scale, config), trials.attention_trial_masked(q, k, v, mask, used))
    backward = flash_window_backward(q, k, v, dout, lse, delta, window, scale, config)
    return forward, right(backward, gradients.backward_trial(q, k, v, dout, lse, delta, scale=scale, mask=mask))


WINDOWS = {  # B, H, H_KV, N_Q, N_KV, D, window, config
    "one key": (1, 2, 1, 40, 40, 16, 1, TINY),
    "as long as a tile": (1, 2, 1, 70, 70, 16, 16, TINY),
    "a key more": (1, 1, 1, 70, 70, 16, 17, UNEVEN),
    "several tiles, D no power of two": (2, 4, 2, 101, 101, 40, 37, UNEVEN),
    "more keys than queries": (1, 2, 1, 37, 101, 24, 30, TINY),
    "more queries than keys": (1, 3, 1, 101, 37, 17, 20, TINY),
    "longer than the keys": (1, 2, 2, 50, 50, 16, 1000, TINY),
    "as long as the keys": (1, 1, 1, 48, 48, 16, 48, TALL),
    "the files' own tiles": (1, 2, 1, 300, 300, 64, 100, None),
}


@pytest.mark.parametrize("case", WINDOWS)
def test_windows(launches, case):
    *sizes, window, config = WINDOWS[case]
    window_right(*drawn(*sizes), window, config)
    assert len(launches) == 3


@pytest.mark.slow
@pytest.mark.parametrize("config", [TINY, UNEVEN, TALL], ids=["16 x 16", "32 x 16", "16 x 64"])
@pytest.mark.parametrize("window", [1, 2, 15, 16, 17, 31, 32, 33, 48, 64])
@pytest.mark.parametrize(("n_q", "n_kv"), [(64, 64), (65, 65), (33, 80), (80, 33), (1, 50), (50, 1), (16, 17)])
def test_windows_around_the_ends_of_tiles(n_q, n_kv, window, config):
    window_right(*drawn(1, 1, 1, n_q, n_kv, 16, seed=n_q * n_kv), window, config)


def test_a_window_in_half_precision_and_any_strides():
    tensors = drawn(2, 2, 1, 40, 51, 24, torch.float16)
    window_right(*(trials.laid_out(x, how) for x, how in zip(tensors, ("sliced", "heads last", "transposed", "every other"), strict=True)), 19, TINY)


def test_a_wide_window_is_causal_attention():
    q, k, v, _ = drawn(1, 2, 1, 50, 70, 16)
    for got, plain in zip(flash_window_forward(q, k, v, 2**40, config=TINY), flash_attention_forward(q, k, v, True, config=TINY), strict=True):
        assert torch.equal(got, plain)


def test_a_window_visits_only_the_tiles_it_needs(launches):
    """Requested bytes: each program loads its own rows and the tiles of the other side that its window touches, and no other."""
    N, D, window = 160, 16, 40
    q, k, v, dout = drawn(1, 1, 1, N, N, D)
    window_right(q, k, v, dout, window, TINY)
    seen = sum(min(N, first + 16) - max(0, first - window + 1) // 16 * 16 for first in range(0, N, 16))
    assert launches[0].bytes_loaded == 4 * (N * D + 2 * seen * D)
    assert launches[0].bytes_stored == 4 * (N * D + N)
    met = sum(min(N, -(-(first + 15 + window) // 16) * 16) - first for first in range(0, N, 16))
    dkdv, dq = launches[1:]
    assert dkdv.bytes_loaded == 4 * (2 * N * D + met * (2 * D + 2)) and dkdv.bytes_stored == 4 * 2 * N * D
    assert dq.bytes_loaded == 4 * (N * (2 * D + 2) + 2 * seen * D) and dq.bytes_stored == 4 * N * D
    assert seen < N * N / 16 / 2 and met < N * N / 16 / 2  # full causal attention would load more than twice as much


def test_rows_without_keys_in_a_window():
    (out, lse), (dq, _, _) = window_right(*drawn(1, 2, 1, 75, 22, 16), 10, TINY)
    assert (out[:, :, :53] == 0).all() and (lse[:, :, :53] == -math.inf).all() and (dq[:, :, :53] == 0).all() and lse[:, :, 53:].isfinite().all()


@pytest.mark.parametrize("window", [0, -3, 2.0, True, None, "8"])
def test_what_window_is_refused(launches, window):
    q, k, v, dout = drawn(1, 2, 1, 5, 5, 16)
    rows = torch.zeros(1, 2, 5)
    with pytest.raises(ValueError, match="flash_window_forward: window is the number of keys a query sees, its own included: a whole number from 1"):
        flash_window_forward(q, k, v, window)
    with pytest.raises(ValueError, match="flash_window_backward: window is .* it is"):
        flash_window_backward(q, k, v, dout, rows, rows, window)
    with pytest.raises(ValueError, match="flash_window_backward: lse and delta must be float32"):
        flash_window_backward(q, k, v, dout, rows[:, :1], rows, 3)
    assert not launches


# ---------------------------------------------------------------- packed sequences


def packed_drawn(lengths_q, lengths_k, H, H_KV, D, dtype=torch.float32, seed=0):
    return [x[0].transpose(0, 1).contiguous() for x in drawn(1, H, H_KV, sum(lengths_q), sum(lengths_k), D, dtype, seed)]


def packed_right(q, k, v, dout, lengths_q, lengths_k, causal=False, scale=None, config=None, slack=0):
    used = q.shape[-1] ** -0.5 if scale is None else scale
    more = (variants.beginnings(lengths_q), variants.beginnings(lengths_k), max(lengths_q) + slack, max(lengths_k) + slack, causal, scale, config)
    forward = right(flash_varlen_forward(q, k, v, *more), variants.packed_trial(q, k, v, lengths_q, lengths_k, causal, used))
    lse, delta = variants.packed_rows(q, k, v, dout, lengths_q, lengths_k, causal, used)
    trial = variants.packed_backward_trial(q, k, v, dout, lse, delta, lengths_q, lengths_k, causal, used)
    return forward, right(flash_varlen_backward(q, k, v, dout, lse, delta, *more), trial)


PACKED = {  # lengths_q, lengths_k, H, H_KV, D, config
    "one sequence": ([37], [37], 2, 1, 16, TINY),
    "several, one of them empty": ([5, 0, 33, 1, 16], [5, 0, 33, 1, 16], 4, 2, 24, TINY),
    "other lengths of keys, none for some": ([20, 33, 7, 1], [40, 0, 30, 17], 2, 1, 40, UNEVEN),
    "no queries for some": ([20, 0, 3], [10, 25, 1], 2, 2, 16, TALL),
    "the files' own tiles": ([150, 30], [140, 200], 2, 1, 64, None),
}


@CAUSAL
@pytest.mark.parametrize("case", PACKED)
def test_packed_sequences(launches, case, causal):
    lengths_q, lengths_k, *sizes, config = PACKED[case]
    packed_right(*packed_drawn(lengths_q, lengths_k, *sizes), lengths_q, lengths_k, causal, config=config, slack=3 * causal)
    assert len(launches) == 3


def test_packed_sequences_in_any_strides_and_half_precision():
    lengths = [19, 36]
    tensors = packed_drawn(lengths, lengths, 2, 1, 24, torch.float16)
    for layouts in (("sliced", "every other", "contiguous", "transposed"), ("transposed", "sliced", "every other", "expanded")):
        packed_right(*(trials.laid_out(x, how) for x, how in zip(tensors, layouts, strict=True)), lengths, lengths, True, 0.3, TINY)
    fused = torch.randn(55, 3, 2, 24)  # as a projection leaves it: [T, 3, H, D]
    packed_right(*fused.unbind(1), torch.ones(()).expand(55, 2, 24), lengths, lengths, config=TINY)


@CAUSAL
def test_packing_gives_the_bits_of_each_sequence_alone(causal):
    lengths = [33, 16, 50]
    q, k, v, _ = packed_drawn(lengths, lengths, 2, 1, 16)
    cu = variants.beginnings(lengths)
    out, lse = flash_varlen_forward(q, k, v, cu, cu, 50, 50, causal, config=TINY)
    for begin, n in zip(cu.tolist(), lengths, strict=False):
        one = [x[begin : begin + n].transpose(0, 1)[None] for x in (q, k, v)]
        alone, lse_alone = flash_attention_forward(*one, causal, config=TINY)
        assert torch.equal(out[begin : begin + n], alone[0].transpose(0, 1)) and torch.equal(lse[:, begin : begin + n], lse_alone[0])


def test_packed_bytes(launches):
    """A sequence asks for what it would ask for alone, and 16 bytes a program to find itself; a program past its end asks for those only."""
    lengths, D, e = [40, 10], 16, 4
    packed_right(*packed_drawn(lengths, lengths, 1, 1, D), lengths, lengths, config=TINY)
    programs = 2 * 3
    assert launches[0].programs == programs
    alone = sum(n * D * e + 2 * -(-n // 16) * n * D * e for n in lengths)
    assert launches[0].bytes_loaded == alone + 16 * programs and launches[0].bytes_stored == sum(lengths) * (D * e + 4)
    back = sum(2 * n * D * e + -(-n // 16) * n * (2 * D * e + 8) for n in lengths)
    assert launches[1].bytes_loaded == back + 16 * programs and launches[1].bytes_stored == 2 * sum(lengths) * D * e


def test_no_sequences_and_no_tokens():
    nothing, cu = torch.zeros(0, 2, 16), torch.zeros(1, dtype=torch.int32)
    out, lse = flash_varlen_forward(nothing, nothing, nothing, cu, cu, 0, 0)
    assert out.shape == (0, 2, 16) and lse.shape == (2, 0)
    rows = torch.zeros(2, 0)
    assert all(x.shape == (0, 2, 16) for x in flash_varlen_backward(nothing, nothing, nothing, nothing, rows, rows, cu, cu, 0, 0))


def packed_good() -> dict:
    cu = torch.tensor([0, 3, 5], dtype=torch.int32)
    x = torch.zeros(5, 2, 16)
    return {"q": x, "k": x, "v": x, "cu_q": cu, "cu_k": cu, "max_q": 3, "max_k": 3}


PACKED_REFUSED = {
    "four dimensions": ({"q": torch.zeros(1, 2, 5, 16)}, "q must be packed, [T_Q, H, D]"),
    "v is longer": ({"v": torch.zeros(6, 2, 16)}, "k and v must have one shape"),
    "heads": ({"k": torch.zeros(5, 3, 16), "v": torch.zeros(5, 3, 16)}, "2 query heads are not a multiple of 3 K/V heads"),
    "float64": ({name: torch.zeros(5, 2, 16).double() for name in "qkv"}, "must be float16, bfloat16 or float32"),
    "int64": ({"cu_q": torch.tensor([0, 3, 5])}, "cu_q and cu_k must be int32 [B + 1], both as long"),
    "other B": ({"cu_k": torch.tensor([0, 5], dtype=torch.int32)}, "both as long"),
    "does not begin with 0": ({"cu_q": torch.tensor([1, 3, 5], dtype=torch.int32)}, "cu_q must begin with 0, never fall, and end with the 5 tokens"),
    "falls": ({"cu_k": torch.tensor([0, 6, 5], dtype=torch.int32)}, "cu_k must begin with 0, never fall"),
    "ends early": ({"cu_q": torch.tensor([0, 3, 4], dtype=torch.int32)}, "end with the 5 tokens; it is [0, 3, 4]"),
    "max_q": ({"max_q": 2}, "max_q is 2, and a sequence has 3 tokens"),
    "max_k": ({"max_k": 2}, "max_k is 2, and a sequence has 3 tokens"),
    "scale": ({"scale": 0.0}, "scale must be above 0 and finite"),
}


@pytest.mark.parametrize("case", PACKED_REFUSED)
def test_what_packed_kernels_refuse(launches, case):
    changed, sentence = PACKED_REFUSED[case]
    arguments = packed_good() | changed
    with pytest.raises(ValueError, match="flash_varlen_forward: ") as error:
        flash_varlen_forward(**arguments)
    assert sentence in str(error.value)
    rows = {"dout": arguments["q"], "lse": torch.zeros(2, 5), "delta": torch.zeros(2, 5)}
    with pytest.raises(ValueError, match="flash_varlen_backward: ") as error:
        flash_varlen_backward(**arguments | rows)
    assert sentence in str(error.value)
    good = packed_good() | rows
    for name, wrong in (
        ("dout", torch.zeros(4, 2, 16)),
        ("lse", torch.zeros(5, 2)),
        ("delta", torch.zeros(1, 2, 5)),
        ("lse", torch.zeros(2, 5).half()),
    ):
        with pytest.raises(ValueError, match="flash_varlen_backward: "):
            flash_varlen_backward(**good | {name: wrong})
    assert not launches


# ---------------------------------------------------------------- changed scores


@CAUSAL
@pytest.mark.parametrize("soft_cap", [None, 2.0, 30.0])
@pytest.mark.parametrize("alibi", [False, True], ids=["no slopes", "slopes"])
def test_changed_scores(alibi, soft_cap, causal):
    for sizes, config in (((1, 4, 2, 41, 60, 24), TINY), ((2, 2, 1, 60, 33, 16), UNEVEN)):
        q, k, v, _ = drawn(*sizes)
        q = q * 4
        slopes = torch.linspace(0.5, 0.01, sizes[1]) if alibi else None
        trial = trials.attention_trial_masked(
            q, k, v, trials.mask_of(sizes[3], sizes[4], causal), sizes[5] ** -0.5, variants.changes(slopes, soft_cap, sizes[3], sizes[4])
        )
        right(flash_score_mod_forward(q, k, v, slopes, soft_cap, causal, config=config), trial)


def test_no_change_is_plain_attention_and_a_cap_bounds_what_is_left():
    q, k, v, _ = drawn(1, 2, 1, 40, 50, 16)
    trial = trials.attention_trial(q, k, v, True)
    right(flash_score_mod_forward(q, k, v, config=TINY), trial)
    _, lse = flash_score_mod_forward(q * 1000, k * 1000, v, soft_cap=3.0, causal=False, config=TINY)
    assert (lse <= 3.0 + math.log(50) + 1e-5).all() and (lse >= -3.0 + math.log(50) - 1e-5).all()
    assert trials.verdict(flash_score_mod_forward(q, k, v, soft_cap=5.0, config=TINY), *trial)[0]  # and it is seen where it is not wanted
    out, lse = flash_score_mod_forward(*drawn(1, 2, 1, 60, 20, 16)[:3], torch.ones(2), 5.0, config=TINY)
    assert (out[:, :, :40] == 0).all() and (lse[:, :, :40] == -math.inf).all()


def test_what_a_change_of_scores_refuses(launches):
    q, k, v, _ = drawn(1, 2, 1, 5, 5, 16)
    for slopes in (torch.ones(3), torch.ones(2, dtype=torch.float16), torch.ones(2, 1), torch.ones(2, device="meta")):
        with pytest.raises(ValueError, match=r"flash_score_mod_forward: slopes must be float32 \[2\], one for each head of q"):
            flash_score_mod_forward(q, k, v, slopes)
    for cap in (0.0, -2.0, math.inf, math.nan):
        with pytest.raises(ValueError, match="flash_score_mod_forward: soft_cap must be above 0 and finite, or None; it is"):
            flash_score_mod_forward(q, k, v, soft_cap=cap)
    assert not launches
