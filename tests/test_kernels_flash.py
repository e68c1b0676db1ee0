"""The three forward passes of attention in kernels/, interpreted, against float64: any strides, any lengths, exact bytes, refusals."""

import math

import pytest
import torch

from course_lib import hardware

if not hardware.has_triton() or hardware.tier() != "interpreter":  # asked before triton is imported: it turns the interpreter on
    pytest.skip("interpreted kernels only: benchmarks/verify_kernels.py does this on a GPU", allow_module_level=True)

from benchmarks import kernel_trials as trials  # noqa: E402
from course_lib import traffic  # noqa: E402
from kernels import flash_forward, flash_forward_descriptors, flash_forward_two_tiles  # noqa: E402

FILES = {"flash_forward": flash_forward, "two_tiles": flash_forward_two_tiles, "descriptors": flash_forward_descriptors}
ROWS = {"flash_forward": 1, "two_tiles": 2, "descriptors": 1}  # tiles of queries a program
TINY = {"BLOCK_M": 16, "BLOCK_N": 16, "num_warps": 4, "num_stages": 1}
UNEVEN = {"BLOCK_M": 32, "BLOCK_N": 16, "num_warps": 4, "num_stages": 1}
DTYPES = [pytest.param(torch.float32, id="fp32"), pytest.param(torch.float16, id="fp16", marks=pytest.mark.slow)]
TALL = {"BLOCK_M": 16, "BLOCK_N": 64, "num_warps": 4, "num_stages": 1}


@pytest.fixture(params=FILES)
def name(request):
    return request.param


@pytest.fixture
def forward(name):
    return FILES[name].flash_attention_forward


@pytest.fixture(autouse=True)
def launches():
    """Every test runs under the guard: an access outside q, k, v, out and lse is an error."""
    with traffic.counted() as launches:
        yield launches


def drawn(B, H, H_KV, N_Q, N_KV, D, dtype=torch.float32, seed=0):
    g = torch.Generator().manual_seed(seed)
    q, k, v = (torch.randn(B, heads, n, D, generator=g) for heads, n in ((H, N_Q), (H_KV, N_KV), (H_KV, N_KV)))
    v += torch.arange(H_KV)[:, None, None]  # a wrong K/V head shows
    return [x.to(dtype) for x in (q, k, v)]


def assert_right(forward, q, k, v, **options):
    before = [x.clone() for x in (q, k, v)]
    out, lse = forward(q, k, v, **options)
    assert all(torch.equal(x, y) for x, y in zip((q, k, v), before, strict=True)), "an input was changed"
    options.pop("config", None)
    wrong, _ = trials.verdict((out, lse), *trials.attention_trial(q, k, v, **options))
    assert not wrong, wrong
    return out, lse


SHAPES = {  # B, H, H_KV, N_Q, N_KV, D, config
    "grouped heads, D no power of two": (2, 4, 2, 41, 41, 40, UNEVEN),
    "more keys than queries": (1, 2, 1, 37, 101, 24, TINY),
    "more queries than keys": (1, 3, 1, 101, 37, 17, TINY),
    "aligned": (1, 2, 2, 64, 128, 32, UNEVEN),
    "one query": (2, 2, 2, 1, 50, 128, TINY),
    "one key": (1, 2, 1, 50, 1, 16, TINY),
    "D = 1": (1, 2, 1, 20, 19, 1, TINY),
    "wide tiles of keys": (1, 2, 2, 33, 150, 80, TALL),
    "the file's own tiles, D = 256": (1, 2, 1, 150, 139, 256, None),
    "the file's own tiles, D = 96": (1, 2, 1, 139, 300, 96, None),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("causal", [False, True], ids=["full", "causal"])
@pytest.mark.parametrize("shape", SHAPES)
def test_values_and_log_sum_exp(forward, launches, shape, causal, dtype):
    *sizes, config = SHAPES[shape]
    assert_right(forward, *drawn(*sizes, dtype), causal=causal, config=config)
    assert len(launches) == 1


@pytest.mark.slow
@pytest.mark.parametrize("causal", [False, True], ids=["full", "causal"])
@pytest.mark.parametrize("D", [2, 3, 8, 15, 31, 48, 63, 65, 100, 127, 129, 160, 192, 200, 255])
def test_any_head_size(forward, D, causal):
    assert_right(forward, *drawn(1, 2, 1, 35, 52, D, torch.float16 if D % 2 else torch.float32, seed=D), causal=causal, config=TINY)


@pytest.mark.slow
@pytest.mark.parametrize("causal", [False, True], ids=["full", "causal"])
@pytest.mark.parametrize("n_kv", [1, 15, 16, 17, 31, 32, 33, 47, 48, 49])
@pytest.mark.parametrize("n_q", [1, 15, 16, 17, 31, 32, 33])
def test_lengths_around_the_ends_of_tiles(forward, n_q, n_kv, causal):
    assert_right(forward, *drawn(1, 1, 1, n_q, n_kv, 16, seed=n_q * n_kv), causal=causal, config=TINY)


@pytest.mark.parametrize("layout", trials.LAYOUTS[1:])
def test_any_strides(forward, layout):
    """NaN lies wherever a view leaves gaps; q, k and v differ in layout, and each has each once."""
    q, k, v = drawn(2, 2, 1, 19, 36, 24)
    others = trials.LAYOUTS[trials.LAYOUTS.index(layout) - 1], "sliced" if layout != "sliced" else "every other"
    for layouts in ((layout, *others), (others[0], layout, layout)):
        assert_right(forward, *(trials.laid_out(x, how) for x, how in zip((q, k, v), layouts, strict=True)), causal=True, config=TINY)


def test_an_offset_into_one_projection(forward):
    """q, k and v cut from one tensor [B, N, 3, H, D], as a fused projection gives them; every head of K the same (stride 0)."""
    fused = torch.randn(2, 41, 3, 3, 20, generator=torch.Generator().manual_seed(1))
    q, k, v = (fused[:, :, i].transpose(1, 2) for i in range(3))
    assert_right(forward, q, k, v, config=TINY)
    assert_right(forward, q, k[:, :1].expand(-1, 3, -1, -1), v, causal=True, config=TINY)
    assert_right(forward, q[:, :, :1].expand(-1, -1, 41, -1), k, v[..., :1].expand(-1, -1, -1, 20), causal=True, config=TINY)
    assert_right(forward, q, k[:, :, 7:], v[:, :, 7:], causal=True, config=UNEVEN)


def test_rows_without_keys_are_zero(forward):
    """Causal with N_Q > N_KV: the first rows see nothing. Out 0 and lse -inf, whole tiles of them and a part of one."""
    out, lse = assert_right(forward, *drawn(1, 2, 1, 75, 22, 16), causal=True, config=TINY)
    assert (out[:, :, :53] == 0).all() and (lse[:, :, :53] == -math.inf).all() and lse[:, :, 53:].isfinite().all()


@pytest.mark.parametrize("causal", [False, True], ids=["full", "causal"])
def test_nothing_to_read_or_to_write(forward, causal):
    for N_Q, N_KV, B, H, H_KV in ((7, 0, 1, 2, 2), (0, 7, 1, 2, 2), (0, 0, 1, 2, 2), (5, 5, 0, 2, 1), (5, 5, 1, 0, 1)):
        q, k, v = drawn(B, H, H_KV, N_Q, N_KV, 16)
        out, lse = forward(q, k, v, causal=causal)
        assert out.shape == q.shape and lse.shape == q.shape[:3] and lse.dtype == torch.float32
        assert (out == 0).all() and (lse == -math.inf).all()


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
    "zeros": lambda q, k, v: (q * 0, k * 0, v),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("what", INPUTS)
def test_hard_values(forward, what, dtype):
    q, k, v = (x.to(dtype) for x in INPUTS[what](*drawn(1, 2, 1, 37, 50, 16, seed=3)))
    if what == "products past fp16":
        assert (q.float() @ k.float().mT).abs().max() > 65504
    out, _ = assert_right(forward, q, k, v, causal=what != "V of one", config=TINY)
    assert out.isfinite().all()
    if what == "V of one":
        assert (out - 1).abs().max() <= 2 * torch.finfo(dtype).eps


@pytest.mark.parametrize("scale", [1e-3, 0.5, 3.0])
def test_scale(forward, scale):
    assert_right(forward, *drawn(1, 2, 1, 20, 33, 16), scale=scale, config=TINY)


def test_any_order_of_keys_and_any_shift_of_logits(forward):
    q, k, v = drawn(1, 2, 2, 20, 45, 16)
    order = torch.randperm(45, generator=torch.Generator().manual_seed(2))
    out, lse = forward(q, k, v, config=TINY)
    again, lse_again = forward(q, k[:, :, order], v[:, :, order], config=TINY)
    assert torch.allclose(out, again, atol=3e-6) and torch.allclose(lse, lse_again, atol=3e-6)
    q[..., 0], k[..., 0] = 1.0, k[..., 0] * 0  # the first feature adds the same to every logit
    out, lse = forward(q, k, v, config=TINY)
    k[..., 0] = 4.0
    shifted, lse_shifted = forward(q, k, v, config=TINY)
    assert torch.allclose(out, shifted, atol=3e-6) and torch.allclose(lse + 4.0 / 4.0, lse_shifted, atol=3e-6)


def test_two_halves_of_the_keys_merge(forward):
    q, k, v = drawn(1, 2, 2, 20, 50, 16)
    (a, lse_a), (b, lse_b), (whole, lse) = (forward(q, k[:, :, s], v[:, :, s], config=TINY) for s in (slice(0, 23), slice(23, 50), slice(0, 50)))
    merged = torch.logaddexp(lse_a, lse_b)
    assert torch.allclose(merged, lse, atol=3e-6)
    assert torch.allclose(a * (lse_a - merged).exp()[..., None] + b * (lse_b - merged).exp()[..., None], whole, atol=3e-6)


# ---------------------------------------------------------------- bytes


def keys_seen(n_q: int, n_kv: int, rows: int, block_n: int, causal: bool) -> int:
    """Keys loaded by all programs of a head: each reads whole tiles up to the last key that one of its rows sees."""
    total = 0
    for start in range(0, n_q, rows):
        last = min(n_kv, max(0, start + rows + n_kv - n_q)) if causal else n_kv
        total += min(n_kv, -(-last // block_n) * block_n)
    return total


@pytest.mark.parametrize("causal", [False, True], ids=["full", "causal"])
@pytest.mark.parametrize(
    ("sizes", "config", "dtype"),
    [
        ((1, 2, 1, 70, 70, 40), UNEVEN, torch.float32),
        ((1, 2, 1, 37, 101, 16), TINY, torch.float16),
        ((2, 1, 1, 101, 37, 24), TALL, torch.float16),
        ((1, 1, 1, 64, 64, 32), TINY, torch.float32),
        ((1, 1, 1, 200, 200, 64), None, torch.float16),
    ],
    ids=["grouped heads", "more keys", "more queries", "aligned", "the file's own tiles"],
)
def test_requested_bytes_are_the_closed_form(name, forward, launches, sizes, config, dtype, causal):
    B, H, _, N_Q, N_KV, D = sizes
    q, k, v = drawn(*sizes, dtype)
    forward(q, k, v, causal=causal, config=config)
    (launch,) = launches
    config = config or FILES[name].CONFIGS[64][max(FILES[name].CONFIGS[64])]
    e, rows = q.element_size(), config["BLOCK_M"] * ROWS[name]
    seen = keys_seen(N_Q, N_KV, rows, config["BLOCK_N"], causal)
    assert launch.bytes_loaded == B * H * (N_Q * D * e + 2 * seen * D * e)
    assert launch.bytes_stored == B * H * (N_Q * D * e + 4 * N_Q)
    if not causal and N_Q == N_KV:
        assert launch.bytes_loaded + launch.bytes_stored == B * H * (N_Q * D * e * (2 + 2 * math.ceil(N_Q / rows)) + 4 * N_Q)
    assert launch.programs == math.ceil(N_Q / rows) * B * H


def test_each_result_is_written_once(forward, launches):
    forward(*drawn(1, 2, 1, 37, 50, 24), config=TINY)
    for argument in ("out_ptr", "lse_ptr"):
        x = launches[0].tensors[argument]
        assert x.stored == x.stored_once == x.nbytes and x.loaded == 0


# ---------------------------------------------------------------- refusals

GOOD = ((1, 4, 5, 16), (1, 2, 7, 16), (1, 2, 7, 16))
REFUSED = {
    "dtype mix": (GOOD, {"k": torch.float16}, {}, "the tensors must have one dtype; convert them first"),
    "integers": (GOOD, {"q": torch.int32, "k": torch.int32, "v": torch.int32}, {}, "must be float16, bfloat16 or float32"),
    "float64": (GOOD, {"q": torch.float64, "k": torch.float64, "v": torch.float64}, {}, "must be float16, bfloat16 or float32"),
    "bfloat16 on a CPU": (GOOD, {"q": torch.bfloat16, "k": torch.bfloat16, "v": torch.bfloat16}, {}, "interpreter computes bfloat16 wrongly"),
    "three dimensions": ((GOOD[0][1:], *GOOD[1:]), {}, {}, "q must be [B, H, N_Q, D] and k, v [B, H_KV, N_KV, D]"),
    "k of three dimensions": ((GOOD[0], GOOD[1][1:], GOOD[2]), {}, {}, "q must be [B, H, N_Q, D]"),
    "v is longer": ((GOOD[0], GOOD[1], (1, 2, 8, 16)), {}, {}, "q must be [B, H, N_Q, D]"),
    "other batch": ((GOOD[0], (2, 2, 7, 16), (2, 2, 7, 16)), {}, {}, "q must be [B, H, N_Q, D]"),
    "other D": ((GOOD[0], (1, 2, 7, 32), (1, 2, 7, 32)), {}, {}, "q must be [B, H, N_Q, D]"),
    "heads": ((GOOD[0], (1, 3, 7, 16), (1, 3, 7, 16)), {}, {}, "4 query heads are not a multiple of 3 K/V heads"),
    "fewer heads than K/V": ((GOOD[0], (1, 8, 7, 16), (1, 8, 7, 16)), {}, {}, "4 query heads are not a multiple of 8 K/V heads"),
    "no K/V heads": ((GOOD[0], (1, 0, 7, 16), (1, 0, 7, 16)), {}, {}, "4 query heads are not a multiple of 0 K/V heads"),
    "D = 0": (((1, 4, 5, 0), (1, 2, 7, 0), (1, 2, 7, 0)), {}, {}, "the head size D must be 1 to 256"),
    "D = 257": (((1, 4, 5, 257), (1, 2, 7, 257), (1, 2, 7, 257)), {}, {}, "the head size D must be 1 to 256"),
    **{
        f"scale {scale}": (GOOD, {}, {"scale": scale}, f"scale must be above 0 and finite; it is {scale}")
        for scale in (0.0, -0.5, math.nan, math.inf, -math.inf)
    },
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused(forward, launches, case):
    shapes, dtypes, options, sentence = REFUSED[case]
    tensors = [torch.zeros(shape, dtype=dtypes.get(x, torch.float32)) for shape, x in zip(shapes, "qkv", strict=True)]
    with pytest.raises(ValueError, match="flash_attention_forward: ") as error:
        forward(*tensors, **options)
    assert sentence in str(error.value) and str(list(shapes[0])) in str(error.value)
    assert not launches


def test_tensors_on_two_devices_are_refused(forward):
    q, k, v = (torch.zeros(shape) for shape in GOOD)
    with pytest.raises(ValueError, match="the tensors must be on one device .*k is .* on meta"):
        forward(q, k.to("meta"), v)


def test_a_wrong_result_would_be_seen(forward):
    """What the tests above rely on: three small mistakes, each outside the tolerance."""
    q, k, v = drawn(1, 2, 1, 37, 50, 16, torch.float16)
    wanted = trials.attention_trial(q, k, v, causal=True)
    out, lse = forward(q, k, v, causal=True, config=TINY)
    for got in ((out * 1.004, lse), (out, lse + 1e-5), (forward(q, k, v, causal=True, scale=0.26)[0], lse), (out.float(), lse), (out, lse.double())):
        assert trials.verdict(got, *wanted)[0]
    assert not trials.verdict((out, lse), *wanted)[0]
