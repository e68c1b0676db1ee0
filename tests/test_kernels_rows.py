"""The row kernels and the matrix product of kernels/, interpreted, against float64: any strides, any sizes, exact bytes, refusals."""

import math

import pytest
import torch

from course_lib import hardware

if not hardware.has_triton() or hardware.tier() != "interpreter":  # asked before triton is imported: it turns the interpreter on
    pytest.skip("interpreted kernels only: benchmarks/verify_kernels.py does this on a GPU", allow_module_level=True)

from benchmarks import kernel_trials as trials  # noqa: E402
from course_lib import traffic  # noqa: E402
from kernels import matmul as matmul_file  # noqa: E402
from kernels import rms_norm as rms_norm_file  # noqa: E402
from kernels import softmax_rows as softmax_rows_file  # noqa: E402
from kernels.matmul import matmul  # noqa: E402
from kernels.rms_norm import rms_norm  # noqa: E402
from kernels.softmax_long_rows import softmax_long_rows  # noqa: E402
from kernels.softmax_rows import softmax_rows  # noqa: E402
from kernels.swiglu import swiglu  # noqa: E402
from kernels.vector_add import vector_add  # noqa: E402

DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=["fp32", "fp16"])
SHAPES = [(1, 1), (3, 70), (5, 16), (37, 129), (2, 5000), (65, 1), (70, 24)]
SHORT = {"BLOCK_N": 64, "num_warps": 4}
TILES = {"BLOCK_M": 32, "BLOCK_N": 16, "BLOCK_K": 16, "GROUP": 2, "num_warps": 4, "num_stages": 1}


@pytest.fixture(autouse=True)
def launches():
    """Every test runs under the guard: an access outside the tensors of a launch is an error."""
    with traffic.counted() as launches:
        yield launches


def drawn(*shape, dtype=torch.float32, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def assert_right(fn, trial, *tensors, launched=1, **options):
    before = [x.clone() for x in tensors]
    with traffic.counted() as seen:
        got = fn(*tensors, **options)
    assert len(seen) == launched and got.is_contiguous()
    assert all(torch.equal(x, y) for x, y in zip(tensors, before, strict=True)), "an input was changed"
    options.pop("config", None)
    wrong, _ = trials.verdict(got, *trial(*tensors, **options))
    assert not wrong, wrong
    return got


SOFTMAXES = {
    "softmax_rows": (softmax_rows, {}),
    "softmax_long_rows": (softmax_long_rows, {}),
    "long, short tiles": (softmax_long_rows, {"config": SHORT}),
}


@pytest.fixture(params=SOFTMAXES)
def softmax(request):
    fn, options = SOFTMAXES[request.param]
    return lambda x, **more: assert_right(fn, trials.softmax_trial, x, **options, **more)


# ---------------------------------------------------------------- values, any sizes and strides


@DTYPES
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_softmax(softmax, shape, dtype):
    softmax(drawn(*shape, dtype=dtype))


@DTYPES
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_rms_norm(shape, dtype):
    assert_right(rms_norm, trials.rms_norm_trial, drawn(*shape, dtype=dtype), drawn(shape[1], dtype=dtype, seed=1))


@DTYPES
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_swiglu(shape, dtype):
    assert_right(swiglu, trials.swiglu_trial, drawn(*shape, dtype=dtype), drawn(*shape, dtype=dtype, seed=1))


@DTYPES
@pytest.mark.parametrize("n", [1, 15, 4096, 4097, 10_000])
def test_vector_add(n, dtype):
    assert_right(vector_add, trials.vector_add_trial, drawn(n, dtype=dtype), drawn(n, dtype=dtype, seed=1))


@DTYPES
@pytest.mark.parametrize("config", [TILES, None], ids=["small tiles", "the file's own"])
@pytest.mark.parametrize("sizes", [(1, 1, 1), (70, 37, 50), (16, 64, 32), (33, 100, 7), (5, 3, 200), (150, 20, 17)], ids=str)
def test_matmul(sizes, config, dtype):
    M, N, K = sizes
    assert_right(matmul, trials.matmul_trial, drawn(M, K, dtype=dtype), drawn(K, N, dtype=dtype, seed=1), config=config)


@pytest.mark.parametrize("layout", trials.LAYOUTS[1:])
def test_any_strides(layout):
    """NaN lies wherever a view leaves gaps; two arguments differ in layout, and each has each once."""
    other = trials.LAYOUTS[trials.LAYOUTS.index(layout) - 1]
    for first, second in ((layout, other), (other, layout)):
        x, y = trials.laid_out(drawn(13, 37), first), trials.laid_out(drawn(13, 37, seed=1), second)
        assert_right(softmax_rows, trials.softmax_trial, x)
        assert_right(softmax_long_rows, trials.softmax_trial, x, config=SHORT)
        assert_right(swiglu, trials.swiglu_trial, x, y, config={"BLOCK": 64, "num_warps": 4})
        weight = trials.laid_out(drawn(37, seed=2), "every other" if second == "contiguous" else second)
        assert_right(rms_norm, trials.rms_norm_trial, x, weight)
        assert_right(matmul, trials.matmul_trial, x, y.mT, config=TILES)
        line, column = trials.laid_out(drawn(200), first), drawn(200, 3)[:, 1]
        assert_right(vector_add, trials.vector_add_trial, line, column, config={"BLOCK": 64, "num_warps": 4})


def test_groups_of_tiles_cover_every_tile():
    """GROUP of 1, of fewer rows of tiles than there are, of more, and one that does not divide their number."""
    a, b = drawn(70, 16), drawn(16, 40, seed=1)
    for group in (1, 2, 4, 5, 6):
        assert_right(matmul, trials.matmul_trial, a, b, config={**TILES, "BLOCK_M": 16, "GROUP": group})


# ---------------------------------------------------------------- hard values


@DTYPES
def test_softmax_of_hard_rows(softmax, dtype):
    x = drawn(8, 150, dtype=dtype, seed=4)
    x[0] = -math.inf  # nothing to see: zeros
    x[1, 1:] = -math.inf
    x[2, :70] = -math.inf  # the first tile is empty
    x[3] = x[3] * 3000 - 30000
    x[4] = 60000.0
    x[5] = torch.linspace(-100, 100, 150)
    x[6] = torch.linspace(100, -100, 150)
    x[7, 149] = 90
    got = softmax(x)
    assert (got[0] == 0).all() and got[1, 0] == 1 and (got[4] - 1 / 150).abs().max() < 1e-5


@DTYPES
def test_rms_norm_of_hard_rows(dtype):
    x = drawn(5, 70, dtype=dtype, seed=5)
    x[0] = 0
    x[1] = (x[1].float() / x[1].abs().max() * (60000 if dtype == torch.float16 else 1e18)).to(dtype)  # squares past fp16
    x[2] = x[2] * 1e-4
    x[3, 1:] = 0
    for eps in (1e-6, 1e-2):
        got = assert_right(rms_norm, trials.rms_norm_trial, x, drawn(70, dtype=dtype, seed=6), eps=eps)
        assert got.isfinite().all() and (got[0] == 0).all()


@DTYPES
def test_swiglu_of_hard_gates(dtype):
    gate = torch.tensor([[0.0, -0.0, 1e-4, -20.0, -100.0, -1000.0, 100.0, 1000.0, -65000.0, 65000.0]]).to(dtype)
    got = assert_right(swiglu, trials.swiglu_trial, gate, torch.full_like(gate, 0.5))
    assert got.isfinite().all()


def test_matmul_sums_in_float32():
    """fp16: 4,096 products of 1 would stop at 2,048 in fp16; values past fp16 on the way cancel."""
    assert torch.equal(matmul(torch.ones(3, 4096).half(), torch.ones(4096, 2).half()), torch.full((3, 2), 4096.0).half())
    a = torch.tensor([[300.0, 300.0, 1.0]]).half()
    assert matmul(a, torch.tensor([[300.0], [-300.0], [7.0]]).half()).item() == 7
    one = torch.tensor([[1 + 2**-12]])  # tf32 would drop the last bit
    assert matmul(one, one).item() == (one * one).item()


# ---------------------------------------------------------------- nothing to do


def test_empty_tensors(launches):
    empty = [softmax_rows(drawn(0, 5)), softmax_rows(drawn(5, 0)), softmax_long_rows(drawn(0, 5)), softmax_long_rows(drawn(5, 0))]
    empty += [rms_norm(drawn(0, 5), drawn(5)), rms_norm(drawn(5, 0), drawn(0)), swiglu(drawn(0, 5), drawn(0, 5)), vector_add(drawn(0), drawn(0))]
    empty += [matmul(drawn(0, 3), drawn(3, 4)), matmul(drawn(4, 3), drawn(3, 0))]
    shapes = [(0, 5), (5, 0), (0, 5), (5, 0), (0, 5), (5, 0), (0, 5), (0,), (0, 4), (4, 0)]
    assert [tuple(x.shape) for x in empty] == shapes and not launches


def test_a_product_over_nothing_is_zero():
    assert torch.equal(matmul(drawn(4, 0), drawn(0, 3)), torch.zeros(4, 3))


# ---------------------------------------------------------------- bytes


@DTYPES
def test_requested_bytes_are_the_closed_form(launches, dtype):
    M, N, K, e = 37, 70, 53, torch.finfo(dtype).bits // 8
    x, y, w, b = drawn(M, N, dtype=dtype), drawn(M, N, dtype=dtype, seed=1), drawn(N, dtype=dtype), drawn(N, K, dtype=dtype)
    softmax_rows(x), softmax_long_rows(x), softmax_long_rows(x, config=SHORT), swiglu(x, y), swiglu(x, y.t().contiguous().t()), vector_add(w, w)
    programs, owners = (-(-M // file.config_for(N)["ROWS"]) for file in (softmax_rows_file, rms_norm_file))
    rms_norm(x, w)
    matmul(x, b, config=TILES)
    tiles_m, tiles_n = -(-M // TILES["BLOCK_M"]), -(-K // TILES["BLOCK_N"])
    loaded = [M * N, 2 * M * N, 2 * M * N, 2 * M * N, 2 * M * N, 2 * N, M * N + owners * N, M * N * tiles_n + N * K * tiles_m]
    stored = [M * N, M * N, M * N, M * N, M * N, N, M * N, M * K]
    assert [launch.bytes_loaded for launch in launches] == [n * e for n in loaded]
    assert [launch.bytes_stored for launch in launches] == [n * e for n in stored]
    assert launches[-1].programs == tiles_m * tiles_n and launches[0].programs == programs
    assert rms_norm_file.MAX_WIDTH == softmax_rows_file.MAX_WIDTH


def test_the_file_s_own_tiles_of_the_product(launches):
    config = matmul_file.CONFIGS[max(matmul_file.CONFIGS)]
    M, N, K = config["BLOCK_M"] + 5, config["BLOCK_N"] + 7, 40
    matmul(drawn(M, K, dtype=torch.float16), drawn(K, N, dtype=torch.float16))
    assert launches[0].bytes_loaded == 2 * (M * K * 2 + K * N * 2) and launches[0].bytes_stored == 2 * M * N


# ---------------------------------------------------------------- refusals

TOO_WIDE = softmax_rows_file.MAX_WIDTH + 1
REFUSED = {
    "softmax_rows: x must have two dimensions (x is [3] float32 on cpu)": lambda: softmax_rows(torch.zeros(3)),
    f"softmax_rows: a row of {TOO_WIDE} does not fit on chip; use softmax_long_rows (x is [1, {TOO_WIDE}]": lambda: softmax_rows(
        torch.zeros(1, TOO_WIDE)
    ),
    "softmax_rows: the tensors must be float16, bfloat16 or float32 (x is [2, 3] int64": lambda: softmax_rows(torch.zeros(2, 3).long()),
    "softmax_rows: Triton's interpreter computes bfloat16 wrongly, so it is refused on a CPU; use float32": lambda: softmax_rows(
        torch.zeros(2, 3).bfloat16()
    ),
    "softmax_long_rows: x must have two dimensions (x is [2, 3, 4]": lambda: softmax_long_rows(torch.zeros(2, 3, 4)),
    "softmax_long_rows: the tensors must be float16, bfloat16 or float32 (x is [2, 3] float64": lambda: softmax_long_rows(torch.zeros(2, 3).double()),
    "rms_norm: x must be [M, N] and weight [N] (x is [2, 3] float32 on cpu, weight is [4]": lambda: rms_norm(torch.zeros(2, 3), torch.zeros(4)),
    "rms_norm: x must be [M, N] and weight [N] (x is [3]": lambda: rms_norm(torch.zeros(3), torch.zeros(3)),
    "rms_norm: the tensors must have one dtype; convert them first": lambda: rms_norm(torch.zeros(2, 3), torch.zeros(3).half()),
    f"rms_norm: a row of {TOO_WIDE} does not fit on chip": lambda: rms_norm(torch.zeros(1, TOO_WIDE), torch.zeros(TOO_WIDE)),
    "rms_norm: the tensors must be on one device": lambda: rms_norm(torch.zeros(2, 3), torch.zeros(3, device="meta")),
    "swiglu: gate and up must be [M, N], both the same (gate is [2, 3] float32 on cpu, up is [3, 2]": lambda: swiglu(
        torch.zeros(2, 3), torch.zeros(3, 2)
    ),
    "swiglu: gate and up must be [M, N]": lambda: swiglu(torch.zeros(3), torch.zeros(3)),
    "swiglu: the tensors must have one dtype": lambda: swiglu(torch.zeros(2, 3), torch.zeros(2, 3).half()),
    "swiglu: the tensors must be on one device": lambda: swiglu(torch.zeros(2, 3, device="meta"), torch.zeros(2, 3)),
    "vector_add: x and y must be vectors of one length (x is [3] float32 on cpu, y is [4]": lambda: vector_add(torch.zeros(3), torch.zeros(4)),
    "vector_add: x and y must be vectors of one length (x is [2, 2]": lambda: vector_add(torch.zeros(2, 2), torch.zeros(2, 2)),
    "vector_add: the tensors must be float16, bfloat16 or float32": lambda: vector_add(torch.zeros(3).int(), torch.zeros(3).int()),
    "matmul: a must be [M, K] and b [K, N] (a is [2, 3] float32 on cpu, b is [2, 3]": lambda: matmul(torch.zeros(2, 3), torch.zeros(2, 3)),
    "matmul: a must be [M, K] and b [K, N] (a is [1, 2, 3]": lambda: matmul(torch.zeros(1, 2, 3), torch.zeros(3, 2)),
    "matmul: the tensors must have one dtype; convert them first": lambda: matmul(torch.zeros(2, 3).half(), torch.zeros(3, 2)),
    "matmul: the tensors must be on one device": lambda: matmul(torch.zeros(2, 3), torch.zeros(3, 2, device="meta")),
}


@pytest.mark.parametrize("sentence", REFUSED)
def test_what_is_refused(launches, sentence):
    with pytest.raises(ValueError) as error:
        REFUSED[sentence]()
    assert str(error.value).startswith(sentence) and not launches


@pytest.mark.slow
@DTYPES
@pytest.mark.parametrize(
    "N", [2**p + d for p in (4, 8, 10, 12, 14) for d in (-1, 0, 1)] + [softmax_rows_file.MAX_WIDTH - 1, softmax_rows_file.MAX_WIDTH]
)
def test_every_width(N, dtype):
    x = drawn(3, N, dtype=dtype, seed=N)
    assert_right(softmax_rows, trials.softmax_trial, x)
    assert_right(softmax_long_rows, trials.softmax_trial, x)
    assert_right(rms_norm, trials.rms_norm_trial, x, drawn(N, dtype=dtype, seed=1))
    assert_right(swiglu, trials.swiglu_trial, x, x.flip(0))


@pytest.mark.slow
@DTYPES
@pytest.mark.parametrize("seed", range(30))
def test_matmul_of_any_size(seed, dtype):
    g = torch.Generator().manual_seed(seed)
    M, N, K = (int(torch.randint(1, 120, (), generator=g)) for _ in range(3))
    how = [trials.LAYOUTS[int(torch.randint(len(trials.LAYOUTS), (), generator=g))] for _ in range(2)]
    a, b = trials.laid_out(drawn(M, K, dtype=dtype, seed=seed), how[0]), trials.laid_out(drawn(K, N, dtype=dtype, seed=seed + 1), how[1])
    assert_right(matmul, trials.matmul_trial, a, b, config=TILES)


def test_a_wrong_result_would_be_seen():
    """What the tests above rely on: small mistakes, each outside the tolerance."""
    x = drawn(5, 70)
    wanted = trials.softmax_trial(x)
    got = softmax_rows(x)
    assert not trials.verdict(got, *wanted)[0]
    for wrong in (got * 1.00001, got.flip(0), got[:, :-1], got.half(), torch.where(torch.arange(70) == 69, torch.nan, got)):
        assert trials.verdict(wrong, *wanted)[0]
    assert trials.verdict(matmul(x.half(), x.half().t()).float().half() * 1.01, *trials.matmul_trial(x.half(), x.half().t()))[0]
