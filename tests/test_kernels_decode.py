"""Decode over a contiguous cache, its merge and RoPE, interpreted, against float64: lengths, groups, splits, strides, bytes, refusals."""

import math

import pytest
import torch

from course_lib import hardware

if not hardware.has_triton() or hardware.tier() != "interpreter":  # asked before triton is imported: it turns the interpreter on
    pytest.skip("interpreted kernels only: benchmarks/verify_decode.py does this on a GPU", allow_module_level=True)

from benchmarks import cache_trials as caches  # noqa: E402
from benchmarks import kernel_trials as trials  # noqa: E402
from course_lib import traffic  # noqa: E402
from kernels import decoding  # noqa: E402
from kernels.decode_split import decode_split  # noqa: E402
from kernels.merge_splits import merge_splits  # noqa: E402
from kernels.rope import apply_rope  # noqa: E402

TINY = {"BLOCK_N": 16, "num_warps": 4, "num_stages": 1}
DTYPES = [pytest.param(torch.float32, id="fp32"), pytest.param(torch.float16, id="fp16", marks=pytest.mark.slow)]


@pytest.fixture(autouse=True)
def launches():
    """Every test runs under the guard: an access outside the tensors of a launch is an error."""
    with traffic.counted() as launches:
        yield launches


def int32(*numbers: int) -> torch.Tensor:
    return torch.tensor(numbers, dtype=torch.int32)


def drawn(B, H, H_KV, N, D, dtype=torch.float32, seed=0):
    g = torch.Generator().manual_seed(seed)
    q, k, v = torch.randn(B, H, D, generator=g), *(torch.randn(B, H_KV, N, D, generator=g) for _ in "kv")
    v += torch.arange(H_KV)[:, None, None]  # a wrong K/V head shows
    return [x.to(dtype) for x in (q, k, v)]


def assert_right(q, k, v, lengths, scale=None, layouts=("contiguous",) * 3, **options):
    true = [min(max(n, 0), k.shape[2]) for n in lengths]
    wanted = caches.decode_trial(q, k, v, true, scale)
    tensors = [q, caches.dense_cache(k, true), caches.dense_cache(v, true)]
    tensors = [trials.laid_out(x, layout) for x, layout in zip(tensors, layouts, strict=True)]
    before = [x.clone() for x in tensors]
    out, lse = decode_split(*tensors, int32(*lengths), scale, **options)
    assert all(torch.equal(x.nan_to_num(), y.nan_to_num()) for x, y in zip(tensors, before, strict=True)), "an input was changed"
    wrong, _ = trials.verdict((out, lse), *wanted)
    assert not wrong, wrong
    assert out.is_contiguous() and out.dtype == q.dtype and lse.dtype == torch.float32
    return out, lse


SHAPES = {  # H, H_KV, N_MAX, D, lengths, splits, config
    "grouped heads, D no power of two": (6, 2, 70, 40, (70, 33), 3, TINY),
    "one head a group": (3, 3, 50, 24, (17, 50), 2, TINY),
    "all heads one group": (5, 1, 50, 17, (50, 1), 4, TINY),
    "a group of 20, two rows of a tile of 32": (20, 1, 40, 16, (40, 39), 2, TINY),
    "a group of 70: two tiles": (70, 1, 20, 16, (20,), 1, TINY),
    "one split": (4, 2, 40, 32, (40, 16), 1, TINY),
    "an empty request": (4, 2, 40, 32, (0, 20, 0), 2, TINY),
    "more splits than tiles": (4, 2, 40, 16, (40, 3), 7, TINY),
    "D = 1": (2, 1, 20, 1, (20, 7), 2, TINY),
    "the file's own tiles": (4, 2, 200, 64, (200, 129), None, None),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_values_and_log_sum_exp(launches, shape, dtype):
    H, H_KV, N, D, lengths, splits, config = SHAPES[shape]
    out, lse = assert_right(*drawn(len(lengths), H, H_KV, N, D, dtype), lengths, num_splits=splits, config=config)
    if splits:
        assert len(launches) == (1 if splits == 1 else 2)
    for b, length in enumerate(lengths):
        if length == 0:
            assert (out[b] == 0).all() and (lse[b] == -math.inf).all()


@pytest.mark.parametrize("splits", [1, 3])
def test_lengths_around_the_ends_of_tiles(splits):
    """One batch of them, each side of each end."""
    lengths = [0, 1, 2, 15, 16, 17, 31, 32, 33, 50]
    assert_right(*drawn(len(lengths), 2, 1, 50, 16), lengths, num_splits=splits, config=TINY)


@pytest.mark.slow
@pytest.mark.parametrize("splits", [1, 2, 5])
@pytest.mark.parametrize("D", [2, 3, 8, 15, 31, 48, 63, 65, 80, 96, 100, 127, 128, 129, 160, 192, 200, 255, 256])
def test_any_head_size(D, splits):
    assert_right(*drawn(2, 4, 2, 52, D, torch.float16 if D % 2 else torch.float32, seed=D), (52, 19), num_splits=splits, config=TINY)


def test_lengths_that_are_none():
    """Below 0 counts as 0, above the capacity as the capacity; nothing past the cache is read."""
    out, lse = assert_right(*drawn(3, 2, 1, 20, 16), (-5, 21, 2**31 - 1), num_splits=2, config=TINY)
    assert (out[0] == 0).all() and (lse[0] == -math.inf).all()


def test_the_grid_does_not_depend_on_lengths(launches):
    """Nothing on the device decides what is launched: a CUDA graph recorded once serves every length."""
    q, k, v = drawn(2, 2, 1, 60, 16)
    for lengths in ((0, 0), (1, 60), (60, 60)):
        decode_split(q, k, v, int32(*lengths), config=TINY)
    assert len({launch.programs for launch in launches[::2]}) == 1 and len(launches) == 6


@pytest.mark.parametrize("layout", [pytest.param(x, marks=[] if x in ("transposed", "expanded") else pytest.mark.slow) for x in trials.LAYOUTS[1:]])
def test_any_strides(layout):
    """NaN lies wherever a view leaves gaps; q, k and v differ in layout."""
    q, k, v = drawn(2, 4, 2, 36, 24)
    if layout == "expanded":  # the first request's, repeated
        q, k, v = (x[:1].expand(x.shape) for x in (q, k, v))
    assert_right(q, k, v, (36, 36), layouts=(layout, layout, "sliced"), num_splits=2, config=TINY)
    assert_right(q, k, v, (36, 36), layouts=("sliced", "every other", layout), num_splits=1, config=TINY)


def test_a_cache_with_its_heads_after_its_tokens_and_lengths_with_a_stride():
    q, k, v = drawn(3, 4, 2, 40, 16)
    wanted = caches.decode_trial(q, k, v, [40, 5, 17])
    heads_last = [x.transpose(1, 2).contiguous().transpose(1, 2) for x in (k, v)]
    got = decode_split(q, *heads_last, torch.tensor([[40, 9], [5, 9], [17, 9]], dtype=torch.int32)[:, 0], num_splits=3, config=TINY)
    assert not trials.verdict(got, *wanted)[0]


INPUTS = {
    "rising maximum": lambda q, k, v: (q.abs(), k.abs() * torch.linspace(0.1, 8, k.shape[2])[:, None], v),
    "falling maximum": lambda q, k, v: (q.abs(), k.abs() * torch.linspace(8, 0.1, k.shape[2])[:, None], v),
    "hot last key": lambda q, k, v: (q.abs(), torch.cat([k[:, :, :-1], 9 * k[:, :, -1:].abs()], 2), v),
    "a tile 90 below the running maximum": lambda q, k, v: (torch.ones_like(q), torch.cat([k[:, :, :16], k[:, :, 16:] - 22.5], 2), v),
    "very negative logits": lambda q, k, v: (q.abs() * 20 + 1, -k.abs() * 20 - 1, v),
    "very large logits": lambda q, k, v: (q.abs() * 20 + 1, k.abs() * 20 + 1, v),
    "products past fp16": lambda q, k, v: (q * 90, k * 90, v),
    "all keys alike": lambda q, k, v: (q, k[:, :, :1].expand(k.shape), v),
    "V of one": lambda q, k, v: (q, k, torch.ones_like(v)),
    "large V": lambda q, k, v: (q, k, v * 1000 + 5000),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("what", INPUTS)
def test_hard_values(what, dtype):
    q, k, v = (x.to(dtype) for x in INPUTS[what](*drawn(1, 2, 1, 50, 16, seed=3)))
    out, _ = assert_right(q, k, v, (50,), num_splits=2, config=TINY)
    assert out.isfinite().all()
    if what == "V of one":
        assert (out - 1).abs().max() <= 2 * torch.finfo(dtype).eps


@pytest.mark.parametrize("scale", [1e-3, 3.0])
def test_scale(scale):
    assert_right(*drawn(1, 2, 1, 33, 16), (33,), scale=scale, num_splits=2, config=TINY)


def test_nothing_to_read_or_to_write():
    for B, H, H_KV, N in ((0, 2, 1, 5), (1, 0, 1, 5), (2, 2, 2, 0)):
        q, k, v = drawn(B, H, H_KV, N, 16)
        out, lse = decode_split(q, k, v, torch.full((B,), 5, dtype=torch.int32))
        assert out.shape == q.shape and lse.shape == q.shape[:2] and (out == 0).all() and (lse == -math.inf).all()


def test_splits_agree_with_each_other():
    q, k, v = drawn(2, 2, 1, 70, 16)
    whole, lse = decode_split(q, k, v, int32(70, 31), num_splits=1, config=TINY)
    for splits in (2, 3, 9):
        out, lse_again = decode_split(q, k, v, int32(70, 31), num_splits=splits, config=TINY)
        assert torch.allclose(out, whole, atol=3e-6) and torch.allclose(lse, lse_again, atol=3e-6)


# ---------------------------------------------------------------- bytes


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("H", "H_KV"), [(4, 2), pytest.param(4, 4, marks=pytest.mark.slow), (70, 1)])
@pytest.mark.parametrize("splits", [1, 3])
def test_requested_bytes_are_the_closed_form(launches, H, H_KV, splits, dtype):
    """K and V once a group of up to 64 heads, whatever the splits; q and its length once a program; partial results in float32."""
    lengths, D, B = (40, 0, 61), 24, 3
    q, k, v = drawn(B, H, H_KV, 64, D, dtype)
    decode_split(q, k, v, int32(*lengths), num_splits=splits, config=TINY)
    e, groups = q.element_size(), H_KV * math.ceil(H // H_KV / 64)
    assert launches[0].bytes_loaded == 2 * sum(lengths) * groups * D * e + splits * (B * H * D * e + B * groups * 4)
    assert launches[0].bytes_stored == splits * B * H * (D * (e if splits == 1 else 4) + 4)
    if splits > 1:  # the merge reads what the splits with keys wrote: request 0 has 3 tiles, request 2 has 4, request 1 none
        rows = 3 + 3
        assert launches[1].bytes_loaded == H * (rows * D * 4 + splits * B * 4) and launches[1].bytes_stored == B * H * (D * e + 4)


def test_the_tiles_of_a_request_are_dealt_out_evenly():
    """What a split reads differs by one tile at most: the longest decides the time."""
    with traffic.counted(trace=True) as launches:
        q, k, v = drawn(1, 1, 1, 16 * 11, 16)
        decode_split(q, k, v, int32(16 * 11), num_splits=4, config=TINY)
    tiles: dict = {}
    for touch in launches[0].trace:
        if touch.tensor == "k_ptr":
            tiles[touch.program] = tiles.get(touch.program, 0) + 1
    assert sorted(tiles.values()) == [2, 3, 3, 3]


# ---------------------------------------------------------------- how many splits


def test_splits_fill_the_gpu():
    assert decoding.choose_splits(512, 64, 264) == 1  # two rounds of programs already
    assert decoding.choose_splits(8, 1024, 264) in (32, 33)  # a request alone: every place taken
    assert decoding.choose_splits(128, 16, 264) == 2
    assert decoding.choose_splits(8, 1, 264) == 1 and decoding.choose_splits(0, 0, 264) == 1
    for programs, tiles, places in ((8, 3, 264), (1, 5, 100), (3, 50, 16), (100, 7, 132)):
        splits = decoding.choose_splits(programs, tiles, places)
        rounds, longest = -(-programs * splits // places), -(-tiles // splits)
        assert 1 <= splits <= tiles and rounds * longest <= -(-programs // places) * tiles


# ---------------------------------------------------------------- the merge alone


@pytest.mark.parametrize(("S", "D"), [(1, 16), (2, 40), (5, 1), (64, 8), (65, 128), (130, 33), (3, 256)])
def test_merge(S, D):
    g = torch.Generator().manual_seed(S)
    outs, lses = torch.randn(S, 2, 3, D, generator=g), torch.randn(S, 2, 3, generator=g) * 5
    lses[0, 1, 2] = -math.inf
    outs[0, 1, 2] = torch.nan  # a part without keys is not read
    lses[:, 0, 1] = -math.inf  # and a row without any is 0
    out, lse = merge_splits(outs, lses)
    exact = torch.logsumexp(lses.double(), 0)
    weights = torch.where(lses == -math.inf, 0.0, (lses.double() - exact).exp())
    wanted = (weights[..., None] * outs.double().nan_to_num()).sum(0)
    assert (out - wanted.nan_to_num()).abs().max() < 2e-6 and (lse[0, 1] == -math.inf) and (out[0, 1] == 0).all()
    assert torch.allclose(lse.double(), exact, atol=2e-6)


def test_merge_takes_any_strides_and_gives_any_dtype():
    g = torch.Generator().manual_seed(1)
    outs, lses = torch.randn(2, 3, 16, 5, generator=g).permute(3, 0, 1, 2), torch.randn(3, 2, 5, generator=g).permute(2, 1, 0)
    out, lse = merge_splits(outs, lses)
    again, lse_again = merge_splits(outs.contiguous(), lses.contiguous(), torch.float16)
    assert torch.equal(lse, lse_again) and again.dtype == torch.float16 and torch.equal(out.half(), again)
    assert merge_splits(outs[:, :0], lses[:, :0])[0].shape == (0, 3, 16)


@pytest.mark.parametrize(
    ("outs", "lses", "sentence"),
    [
        (torch.zeros(2, 1, 3, 4), torch.zeros(2, 1, 4), "outs must be [S, B, H, D] and lses [S, B, H]"),
        (torch.zeros(0, 1, 3, 4), torch.zeros(0, 1, 3), "with one split or more"),
        (torch.zeros(2, 1, 3, 4).half(), torch.zeros(2, 1, 3), "must be float32, on one device"),
        (torch.zeros(2, 1, 3, 4), torch.zeros(2, 1, 3, device="meta"), "must be float32, on one device"),
        (torch.zeros(2, 1, 3, 257), torch.zeros(2, 1, 3), "the head size D must be 1 to 256"),
    ],
)
def test_what_merge_refuses(outs, lses, sentence):
    with pytest.raises(ValueError, match="merge_splits: ") as error:
        merge_splits(outs, lses)
    assert sentence in str(error.value)


# ---------------------------------------------------------------- refusals

GOOD = {"q": (2, 4, 16), "k_cache": (2, 2, 7, 16), "v_cache": (2, 2, 7, 16), "lengths": (2,)}
REFUSED = {
    "dtype mix": ({}, {"k_cache": torch.float16}, {}, "the tensors must have one dtype; convert them first"),
    "float64": ({}, dict.fromkeys(("q", "k_cache", "v_cache"), torch.float64), {}, "must be float16, bfloat16 or float32"),
    "bfloat16 on a CPU": ({}, dict.fromkeys(("q", "k_cache", "v_cache"), torch.bfloat16), {}, "interpreter computes bfloat16 wrongly"),
    "q of four dimensions": ({"q": (2, 4, 1, 16)}, {}, {}, "q must be [B, H, D] and k_cache, v_cache [B, H_KV, N_MAX, D]"),
    "v is longer": ({"v_cache": (2, 2, 8, 16)}, {}, {}, "q must be [B, H, D]"),
    "other batch": ({"q": (3, 4, 16)}, {}, {}, "q must be [B, H, D]"),
    "other D": ({"q": (2, 4, 8)}, {}, {}, "q must be [B, H, D]"),
    "heads": ({"q": (2, 5, 16)}, {}, {}, "5 query heads are not a multiple of 2 K/V heads"),
    "no K/V heads": ({"k_cache": (2, 0, 7, 16), "v_cache": (2, 0, 7, 16)}, {}, {}, "4 query heads are not a multiple of 0 K/V heads"),
    "D = 257": ({"q": (2, 4, 257), "k_cache": (2, 2, 7, 257), "v_cache": (2, 2, 7, 257)}, {}, {}, "the head size D must be 1 to 256"),
    "D = 0": ({"q": (2, 4, 0), "k_cache": (2, 2, 7, 0), "v_cache": (2, 2, 7, 0)}, {}, {}, "the head size D must be 1 to 256"),
    "lengths of another batch": ({"lengths": (3,)}, {}, {}, "lengths must be [B]"),
    "lengths of int64": ({}, {"lengths": torch.int64}, {}, "lengths must be int32"),
    "no splits": ({}, {}, {"num_splits": 0}, "num_splits must be 1 to 1024; it is 0"),
    "half a split": ({}, {}, {"num_splits": 1.5}, "num_splits must be 1 to 1024; it is 1.5"),
    **{f"scale {s}": ({}, {}, {"scale": s}, f"scale must be above 0 and finite; it is {s}") for s in (0.0, -0.5, math.nan, math.inf)},
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused(launches, case):
    shapes, dtypes, options, sentence = REFUSED[case]
    usual = {"lengths": torch.int32}
    tensors = {name: torch.zeros(shapes.get(name, shape), dtype=(usual | dtypes).get(name, torch.float32)) for name, shape in GOOD.items()}
    with pytest.raises(ValueError, match="decode_split: ") as error:
        decode_split(*tensors.values(), **options)
    assert sentence in str(error.value) and str(list(tensors["q"].shape)) in str(error.value) or "lengths" in case
    assert sentence in str(error.value) and not launches


def test_a_wrong_result_would_be_seen():
    """What the tests above rely on: small mistakes, each outside the tolerance."""
    q, k, v = drawn(2, 2, 1, 50, 16, torch.float16)
    wanted = caches.decode_trial(q, k, v, [50, 31])
    out, lse = decode_split(q, k, v, int32(50, 31), num_splits=2, config=TINY)
    short, _ = decode_split(q, k, v, int32(50, 30), num_splits=2, config=TINY)
    for got in ((out * 1.004, lse), (out, lse + 1e-5), (short, lse), (out.float(), lse)):
        assert trials.verdict(got, *wanted)[0]
    assert not trials.verdict((out, lse), *wanted)[0]


# ---------------------------------------------------------------- RoPE


def angles(N, D, dtype=torch.float32, B=None):
    """cos, sin of made-up angles whose two halves differ, so that a swapped half shows."""
    shape = (N, D) if B is None else (B, 1, N, D)
    turn = torch.rand(shape, generator=torch.Generator().manual_seed(N + D)) * 6
    return turn.cos().to(dtype), turn.sin().to(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("B", "H", "N", "D"), [(2, 3, 19, 40), (1, 1, 1, 2), (2, 9, 33, 128), (1, 40, 1, 64), (1, 2, 70, 6), (3, 2, 5, 256), (1, 1, 3, 512)]
)
def test_rope(launches, B, H, N, D, dtype):
    x = torch.randn(B, H, N, D, generator=torch.Generator().manual_seed(D)).to(dtype)
    for cos, sin in (angles(N, D), angles(N, D, dtype, B)):
        before = x.clone()
        out = apply_rope(x, cos, sin)
        wrong, _ = trials.verdict(out, *caches.rope_trial(x, cos, sin))
        assert not wrong, wrong
        assert torch.equal(x, before) and out.stride() == x.stride()
    read_once = launches[0].tensors["x_ptr"], launches[0].tensors["out_ptr"]
    assert read_once[0].loaded == x.nbytes and read_once[1].stored == read_once[1].stored_once == x.nbytes


def test_rope_requests_its_angles_once_for_the_heads_of_a_program(launches):
    x, (cos, sin) = torch.randn(2, 6, 40, 32), angles(40, 32)
    apply_rope(x, cos, sin, config={"HEADS": 4, "ROWS": 8, "HALF": 16, "num_warps": 4})
    assert launches[0].bytes_loaded == x.nbytes + 2 * 2 * (cos.nbytes + sin.nbytes)  # two programs of heads, two sequences
    assert launches[0].bytes_stored == x.nbytes


@pytest.mark.parametrize("layout", trials.LAYOUTS[1:])
def test_rope_takes_any_strides(layout):
    x, (cos, sin) = torch.randn(2, 3, 11, 24, generator=torch.Generator().manual_seed(1)), angles(11, 24)
    x = x[:1].expand(x.shape) if layout == "expanded" else x
    got = apply_rope(trials.laid_out(x, layout), trials.laid_out(cos, "sliced"), trials.laid_out(sin, "transposed"))
    assert not trials.verdict(got, *caches.rope_trial(x, cos, sin))[0]


def test_rope_turns_back():
    x, (cos, sin) = torch.randn(1, 2, 7, 16), angles(7, 8)
    cos, sin = torch.cat((cos, cos), -1), torch.cat((sin, sin), -1)
    assert torch.allclose(apply_rope(apply_rope(x, cos, sin), cos, -sin), x, atol=1e-6)
    assert apply_rope(torch.zeros(2, 3, 0, 8), *angles(0, 8)).shape == (2, 3, 0, 8)


@pytest.mark.parametrize(
    ("x", "cos", "sin", "sentence"),
    [
        (torch.zeros(2, 5, 8), torch.zeros(5, 8), torch.zeros(5, 8), "x must be [B, H, N, D], D even, 2 to 512"),
        (torch.zeros(1, 2, 5, 7), torch.zeros(5, 7), torch.zeros(5, 7), "x must be [B, H, N, D], D even, 2 to 512"),
        (torch.zeros(1, 2, 5, 8), torch.zeros(5, 4), torch.zeros(5, 4), "cos and sin must be [N, D] or [B, 1, N, D]"),
        (torch.zeros(1, 2, 5, 8), torch.zeros(5, 8), torch.zeros(1, 1, 5, 8), "cos and sin must be [N, D] or [B, 1, N, D]"),
        (torch.zeros(1, 2, 5, 8), torch.zeros(5, 8).half(), torch.zeros(5, 8).half(), "must be float32 or x's dtype, on x's device"),
        (torch.zeros(1, 2, 5, 8).bfloat16(), torch.zeros(5, 8), torch.zeros(5, 8), "interpreter computes bfloat16 wrongly"),
        (torch.zeros(1, 2, 5, 8), torch.zeros(5, 8, device="meta"), torch.zeros(5, 8, device="meta"), "on x's device"),
    ],
)
def test_what_rope_refuses(launches, x, cos, sin, sentence):
    with pytest.raises(ValueError, match="apply_rope: ") as error:
        apply_rope(x, cos, sin)
    assert sentence in str(error.value) and not launches
