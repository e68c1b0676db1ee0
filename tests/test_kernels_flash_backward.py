"""The backward pass of attention in kernels/, interpreted, against float64: any strides, any lengths, exact bytes, refusals, autograd."""

import math

import pytest
import torch

from course_lib import hardware

if not hardware.has_triton() or hardware.tier() != "interpreter":  # asked before triton is imported: it turns the interpreter on
    pytest.skip("interpreted kernels only: benchmarks/verify_kernels.py does this on a GPU", allow_module_level=True)

from benchmarks import gradient_trials as gradients  # noqa: E402
from benchmarks import kernel_trials as trials  # noqa: E402
from course_lib import traffic  # noqa: E402
from kernels.attention_delta import attention_delta  # noqa: E402
from kernels.flash_attention import flash_attention  # noqa: E402
from kernels.flash_backward_dkdv import CONFIGS as DKDV_CONFIGS  # noqa: E402
from kernels.flash_backward_dkdv import flash_backward_dkdv  # noqa: E402
from kernels.flash_backward_dq import CONFIGS as DQ_CONFIGS  # noqa: E402
from kernels.flash_backward_dq import flash_backward_dq  # noqa: E402

TINY = {"BLOCK_M": 16, "BLOCK_N": 16, "num_warps": 4, "num_stages": 1}
UNEVEN = {"BLOCK_M": 32, "BLOCK_N": 16, "num_warps": 4, "num_stages": 1}
TALL = {"BLOCK_M": 16, "BLOCK_N": 64, "num_warps": 4, "num_stages": 1}
DTYPES = [pytest.param(torch.float32, id="fp32"), pytest.param(torch.float16, id="fp16", marks=pytest.mark.slow)]
CAUSAL = pytest.mark.parametrize("causal", [False, True], ids=["full", "causal"])


@pytest.fixture(autouse=True)
def launches():
    """Every test runs under the guard: an access outside the tensors of a launch is an error."""
    with traffic.counted() as launches:
        yield launches


def drawn(B, H, H_KV, N_Q, N_KV, D, dtype=torch.float32, seed=0):
    g = torch.Generator().manual_seed(seed)
    sizes = ((H, N_Q), (H_KV, N_KV), (H_KV, N_KV), (H, N_Q))
    q, k, v, dout = (torch.randn(B, heads, n, D, generator=g) for heads, n in sizes)
    v += torch.arange(H_KV)[:, None, None]  # a wrong K/V head shows
    dout *= 1 + torch.arange(H)[:, None, None]  # and so does a wrong head of queries
    return [x.to(dtype) for x in (q, k, v, dout)]


def assert_right(q, k, v, dout, causal=False, scale=None, config=None):
    """Both kernels on the lse and delta of a float64 forward pass; returns (dq, dk, dv)."""
    lse, delta = gradients.saved_rows(q, k, v, dout, trials.mask_of(q.shape[2], k.shape[2], causal), q.shape[-1] ** -0.5 if scale is None else scale)
    before = [x.clone() for x in (q, k, v, dout, lse, delta)]
    dk, dv = flash_backward_dkdv(q, k, v, dout, lse, delta, causal, scale, config)
    dq = flash_backward_dq(q, k, v, dout, lse, delta, causal, scale, config)
    assert all(torch.equal(x, y) for x, y in zip((q, k, v, dout, lse, delta), before, strict=True)), "an input was changed"
    wrong, _ = trials.verdict((dq, dk, dv), *gradients.backward_trial(q, k, v, dout, lse, delta, causal, scale))
    assert not wrong, wrong
    return dq, dk, dv


SHAPES = {  # B, H, H_KV, N_Q, N_KV, D, config
    "grouped heads, D no power of two": (2, 4, 2, 41, 41, 40, UNEVEN),
    "more keys than queries": (1, 2, 1, 37, 101, 24, TINY),
    "more queries than keys": (1, 3, 1, 101, 37, 17, TINY),
    "aligned": (1, 2, 2, 64, 128, 32, UNEVEN),
    "one query": (2, 2, 2, 1, 50, 128, TINY),
    "one key": (1, 2, 1, 50, 1, 16, TINY),
    "D = 1": (1, 2, 1, 20, 19, 1, TINY),
    "wide tiles of keys": (1, 2, 2, 33, 150, 80, TALL),
    "the files' own tiles, D = 256": (1, 2, 1, 150, 139, 256, None),
    "the files' own tiles, D = 96": (1, 2, 1, 139, 300, 96, None),
}


@pytest.mark.parametrize("dtype", DTYPES)
@CAUSAL
@pytest.mark.parametrize("shape", SHAPES)
def test_gradients(launches, shape, causal, dtype):
    *sizes, config = SHAPES[shape]
    assert_right(*drawn(*sizes, dtype), causal=causal, config=config)
    assert len(launches) == 2


@pytest.mark.slow
@CAUSAL
@pytest.mark.parametrize("D", [2, 3, 8, 15, 31, 48, 63, 65, 100, 127, 129, 160, 192, 200, 255])
def test_any_head_size(D, causal):
    assert_right(*drawn(1, 2, 1, 35, 52, D, torch.float16 if D % 2 else torch.float32, seed=D), causal=causal, config=TINY)


@pytest.mark.slow
@CAUSAL
@pytest.mark.parametrize("config", [TINY, UNEVEN, TALL], ids=["16 x 16", "32 x 16", "16 x 64"])
@pytest.mark.parametrize("n_kv", [1, 15, 16, 17, 31, 32, 33, 47, 48, 49])
@pytest.mark.parametrize("n_q", [1, 15, 16, 17, 31, 32, 33, 63, 64, 65])
def test_lengths_around_the_ends_of_tiles(n_q, n_kv, config, causal):
    assert_right(*drawn(1, 1, 1, n_q, n_kv, 16, seed=n_q * n_kv), causal=causal, config=config)


@pytest.mark.parametrize("layout", trials.LAYOUTS[1:])
def test_any_strides(layout):
    """NaN lies wherever a view leaves gaps; the four tensors differ in layout, and each has each once."""
    tensors = drawn(2, 2, 1, 19, 36, 24)
    at = trials.LAYOUTS.index(layout)
    layouts = [trials.LAYOUTS[(at + step) % len(trials.LAYOUTS)] for step in (0, 1, 2, 4)]
    for turned in (layouts, layouts[2:] + layouts[:2]):
        assert_right(*(trials.laid_out(x, how) for x, how in zip(tensors, turned, strict=True)), causal=True, config=TINY)


def test_the_gradient_of_a_sum_and_of_one_projection():
    """A dout of ones comes with strides of 0; q, k and v are cut from one tensor [B, N, 3, H, D]."""
    fused = torch.randn(2, 41, 3, 3, 20, generator=torch.Generator().manual_seed(1))
    q, k, v = (fused[:, :, i].transpose(1, 2) for i in range(3))
    dout = torch.ones(()).expand(q.shape)
    assert_right(q, k, v, dout, config=TINY)
    assert_right(q, k[:, :1].expand(-1, 3, -1, -1), v, dout, causal=True, config=TINY)
    assert_right(q, k[:, :, 7:], v[:, :, 7:], dout, causal=True, config=UNEVEN)


def test_rows_without_keys_have_gradient_zero():
    """Causal with N_Q > N_KV: the first rows see nothing, whole tiles of them and a part of one. Their dout reaches nobody."""
    q, k, v, dout = drawn(1, 2, 1, 75, 22, 16)
    dq, dk, dv = assert_right(q, k, v, dout, causal=True, config=TINY)
    assert (dq[:, :, :53] == 0).all() and (dq[:, :, 54:] != 0).any(-1).all()
    dout[:, :, :53] = 1e4
    _, dk_again, dv_again = assert_right(q, k, v, dout, causal=True, config=TINY)
    assert torch.equal(dk, dk_again) and torch.equal(dv, dv_again)


@CAUSAL
def test_nothing_to_read_or_to_write(causal):
    for N_Q, N_KV, B, H, H_KV in ((7, 0, 1, 2, 2), (0, 7, 1, 2, 2), (0, 0, 1, 2, 2), (5, 5, 0, 2, 1), (5, 5, 1, 0, 1)):
        q, k, v, dout = drawn(B, H, H_KV, N_Q, N_KV, 16)
        lse = torch.full(q.shape[:3], -math.inf)
        delta = attention_delta(q, dout)
        dk, dv = flash_backward_dkdv(q, k, v, dout, lse, delta, causal=causal)
        dq = flash_backward_dq(q, k, v, dout, lse, delta, causal=causal)
        assert dq.shape == q.shape and dk.shape == dv.shape == k.shape
        assert all((x == 0).all() for x in (dq, dk, dv))


INPUTS = {
    "rising maximum": lambda q, k, v: (q.abs(), k.abs() * torch.linspace(0.1, 8, k.shape[2])[:, None], v),
    "hot last key": lambda q, k, v: (q.abs(), torch.cat([k[:, :, :-1], 9 * k[:, :, -1:].abs()], 2), v),
    "a tile 90 below the running maximum": lambda q, k, v: (torch.ones_like(q), torch.cat([k[:, :, :16], k[:, :, 16:] - 22.5], 2), v),
    "very negative logits": lambda q, k, v: (q.abs() * 20 + 1, -k.abs() * 20 - 1, v),
    "very large logits": lambda q, k, v: (q.abs() * 20 + 1, k.abs() * 20 + 1, v),
    "all keys alike": lambda q, k, v: (q, k[:, :, :1].expand(k.shape), v),
    "V of one": lambda q, k, v: (q, k, torch.ones_like(v)),
    "zeros": lambda q, k, v: (q * 0, k * 0, v),
}


@pytest.mark.filterwarnings("ignore:overflow encountered in exp2", "ignore:invalid value encountered")  # of rows past the end, never stored
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("what", INPUTS)
def test_hard_values(what, dtype):
    q, k, v, dout = drawn(1, 2, 1, 37, 50, 16, seed=3)
    q, k, v = INPUTS[what](q, k, v)
    found = assert_right(*(x.to(dtype) for x in (q, k, v, dout)), causal=what != "V of one", config=TINY)
    assert all(x.isfinite().all() for x in found)


@pytest.mark.parametrize("scale", [1e-3, 0.5, 3.0])
def test_scale(scale):
    assert_right(*drawn(1, 2, 1, 20, 33, 16), scale=scale, config=TINY)


@pytest.mark.parametrize("dtype", DTYPES)
def test_delta(launches, dtype):
    for shape, layouts in (
        ((2, 3, 70, 40), ("contiguous", "heads last")),
        ((1, 2, 65, 128), ("sliced", "every other")),
        ((1, 1, 1, 1), ("expanded", "transposed")),
    ):
        out, dout = (trials.laid_out(torch.randn(shape, generator=torch.Generator().manual_seed(i)).to(dtype), how) for i, how in enumerate(layouts))
        wrong, _ = trials.verdict(attention_delta(out, dout), *gradients.delta_trial(out, dout))
        assert not wrong, wrong
        B, H, N_Q, D = shape
        assert launches[-1].bytes_loaded == 2 * out.numel() * out.element_size() and launches[-1].bytes_stored == 4 * B * H * N_Q
    assert attention_delta(torch.zeros(1, 2, 0, 16), torch.zeros(1, 2, 0, 16)).shape == (1, 2, 0)


# ---------------------------------------------------------------- autograd


@CAUSAL
def test_autograd(launches, causal):
    for sizes in ((2, 4, 2, 41, 41, 40), (1, 2, 1, 70, 33, 16), (1, 2, 2, 33, 70, 64)):
        q, k, v, dout = drawn(*sizes)
        got = gradients.trained(flash_attention, q, k, v, dout, causal=causal)
        wrong, _ = trials.verdict(got, *gradients.training_trial(q, k, v, dout, causal))
        assert not wrong, wrong
    assert len(launches) == 3 * 4


def test_autograd_asks_for_what_is_needed_only_and_once():
    q, k, v, dout = drawn(1, 2, 1, 20, 20, 16)
    q.requires_grad_()
    out = flash_attention(q, k, v)
    (dq,) = torch.autograd.grad(out, q, dout, create_graph=True)
    assert dq.shape == q.shape and k.grad is None
    with pytest.raises(RuntimeError):  # differentiable once: better an error than a second derivative of 0
        torch.autograd.grad(dq.sum(), q)
    assert not flash_attention(k.new_zeros(1, 2, 3, 16), k, v).requires_grad


# ---------------------------------------------------------------- bytes


def rows_seen(n_q: int, n_kv: int, block_m: int, block_n: int, causal: bool) -> int:
    """Rows of queries loaded by all programs of a K/V head, for each head of queries: whole tiles from the first row that sees a key."""
    total = 0
    for first in range(0, n_kv, block_n):
        begin = min(n_q, max(0, first - (n_kv - n_q)) // block_m * block_m) if causal else 0
        total += n_q - begin
    return total


def keys_seen(n_q: int, n_kv: int, block_m: int, block_n: int, causal: bool) -> int:
    total = 0
    for start in range(0, n_q, block_m):
        last = min(n_kv, max(0, start + block_m + n_kv - n_q)) if causal else n_kv
        total += min(n_kv, -(-last // block_n) * block_n)
    return total


@CAUSAL
@pytest.mark.parametrize(
    ("sizes", "config", "dtype"),
    [
        ((1, 2, 1, 70, 70, 40), UNEVEN, torch.float32),
        ((1, 2, 1, 37, 101, 16), TINY, torch.float16),
        ((2, 1, 1, 101, 37, 24), TALL, torch.float16),
        ((1, 1, 1, 64, 64, 32), TINY, torch.float32),
        ((1, 1, 1, 200, 200, 64), None, torch.float16),
    ],
    ids=["grouped heads", "more keys", "more queries", "aligned", "the files' own tiles"],
)
def test_requested_bytes_are_the_closed_form(launches, sizes, config, dtype, causal):
    B, H, H_KV, N_Q, N_KV, D = sizes
    assert_right(*drawn(*sizes, dtype), causal=causal, config=config)
    e = dtype.itemsize
    of_dkdv, of_dq = (config or next(iter(configs[64].values())) for configs in (DKDV_CONFIGS, DQ_CONFIGS))
    dkdv, dq = launches
    seen = rows_seen(N_Q, N_KV, of_dkdv["BLOCK_M"], of_dkdv["BLOCK_N"], causal)
    assert dkdv.bytes_loaded == B * H_KV * 2 * N_KV * D * e + B * H * seen * (2 * D * e + 8)
    assert dkdv.bytes_stored == B * H_KV * 2 * N_KV * D * e
    assert dkdv.programs == math.ceil(N_KV / of_dkdv["BLOCK_N"]) * B * H_KV
    seen = keys_seen(N_Q, N_KV, of_dq["BLOCK_M"], of_dq["BLOCK_N"], causal)
    assert dq.bytes_loaded == B * H * (N_Q * (2 * D * e + 8) + 2 * seen * D * e)
    assert dq.bytes_stored == B * H * N_Q * D * e
    assert dq.programs == math.ceil(N_Q / of_dq["BLOCK_M"]) * B * H


def test_each_result_is_written_once(launches):
    assert_right(*drawn(1, 4, 2, 37, 50, 24), config=TINY)
    for launch, argument in ((launches[0], "dk_ptr"), (launches[0], "dv_ptr"), (launches[1], "dq_ptr")):
        x = launch.tensors[argument]
        assert x.stored == x.stored_once == x.nbytes and x.loaded == 0


# ---------------------------------------------------------------- refusals

HOSTS = {"flash_backward_dkdv": flash_backward_dkdv, "flash_backward_dq": flash_backward_dq}


def good() -> dict[str, torch.Tensor]:
    return {
        "q": torch.zeros(1, 4, 5, 16), "k": torch.zeros(1, 2, 7, 16), "v": torch.zeros(1, 2, 7, 16), "dout": torch.zeros(1, 4, 5, 16),
        "lse": torch.zeros(1, 4, 5), "delta": torch.zeros(1, 4, 5),
    }  # fmt: skip


REFUSED = {
    "dtype mix": ({"k": torch.zeros(1, 2, 7, 16).half()}, "the tensors must have one dtype; convert them first"),
    "dtype of dout": ({"dout": torch.zeros(1, 4, 5, 16).half()}, "the tensors must have one dtype; convert them first"),
    "float64": ({name: torch.zeros(1, 2, 7, 16).double() for name in "qkv"}, "must be float16, bfloat16 or float32"),
    "bfloat16 on a CPU": ({name: torch.zeros(1, 2, 7, 16).bfloat16() for name in "qkv"}, "interpreter computes bfloat16 wrongly"),
    "v is longer": ({"v": torch.zeros(1, 2, 8, 16)}, "q must be [B, H, N_Q, D]"),
    "heads": ({"k": torch.zeros(1, 3, 7, 16), "v": torch.zeros(1, 3, 7, 16)}, "4 query heads are not a multiple of 3 K/V heads"),
    "D = 257": ({"q": torch.zeros(1, 4, 5, 257), "k": torch.zeros(1, 2, 7, 257), "v": torch.zeros(1, 2, 7, 257)}, "the head size D must be 1 to 256"),
    "dout is longer": ({"dout": torch.zeros(1, 4, 6, 16)}, "dout must have the shape of q, [B, H, N_Q, D]"),
    "lse of other rows": ({"lse": torch.zeros(1, 4, 6)}, "lse and delta must be float32 [B, H, N_Q]"),
    "lse in half": ({"lse": torch.zeros(1, 4, 5).half()}, "lse and delta must be float32 [B, H, N_Q]"),
    "delta of K/V heads": ({"delta": torch.zeros(1, 2, 5)}, "lse and delta must be float32 [B, H, N_Q]"),
    "delta elsewhere": ({"delta": torch.zeros(1, 4, 5, device="meta")}, "on the device of q"),
}


@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.parametrize("name", HOSTS)
def test_what_is_refused(launches, name, case):
    changed, sentence = REFUSED[case]
    with pytest.raises(ValueError, match=f"{name}: ") as error:
        HOSTS[name](**good() | changed)
    assert sentence in str(error.value) and not launches


@pytest.mark.parametrize("scale", [0.0, -0.5, math.nan, math.inf])
@pytest.mark.parametrize("name", HOSTS)
def test_what_scale_is_refused(name, scale):
    with pytest.raises(ValueError, match=f"{name}: scale must be above 0 and finite; it is {scale}"):
        HOSTS[name](**good(), scale=scale)


def test_what_delta_and_autograd_refuse():
    x = torch.zeros(1, 2, 3, 16)
    for out, dout, sentence in (
        (x, x.half(), "one dtype"), (x, x[:, :1], "must both be"), (x[0], x[0], "must both be"), (x.double(), x.double(), "must be float16"),
        (torch.zeros(1, 1, 1, 257), torch.zeros(1, 1, 1, 257), "the head size D must be 1 to 256"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=f"attention_delta: .*{sentence}"):
            attention_delta(out, dout)
    with pytest.raises(ValueError, match="flash_attention: 2 query heads are not a multiple of 3"):
        flash_attention(x, torch.zeros(1, 3, 3, 16), torch.zeros(1, 3, 3, 16))


def test_a_wrong_gradient_would_be_seen():
    """What the tests above rely on: small mistakes, each outside the tolerance."""
    q, k, v, dout = drawn(1, 4, 2, 37, 50, 16, torch.float16)
    lse, delta = gradients.saved_rows(q, k, v, dout, trials.mask_of(37, 50, True), 0.25)
    wanted = gradients.backward_trial(q, k, v, dout, lse, delta, True)
    dq, dk, dv = assert_right(q, k, v, dout, causal=True, config=TINY)
    wrong_lse = flash_backward_dkdv(q, k, v, dout, lse + 0.01, delta, True, config=TINY)
    wrong_delta = flash_backward_dq(q, k, v, dout, lse, delta * 1.01, True, config=TINY)
    for got in (
        (dq * 1.01, dk, dv),
        (dq, dk * 1.01, dv),
        (dq, dk, dv * 1.01),
        (dq, *wrong_lse),
        (wrong_delta, dk, dv),
        (dq, dv, dk),
        (dq.float(), dk, dv),
    ):
        assert trials.verdict(got, *wanted)[0]
    assert not trials.verdict((dq, dk, dv), *wanted)[0]
