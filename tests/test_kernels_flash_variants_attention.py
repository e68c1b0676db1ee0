"""flash_window_attention and flash_varlen_attention as operators of PyTorch, interpreted: gradients, torch.compile, autocast, torch.library's own checks."""

import functools

import pytest
import torch

from course_lib import hardware

if not hardware.has_triton() or hardware.tier() != "interpreter":  # asked before triton is imported: it turns the interpreter on
    pytest.skip("interpreted kernels only", allow_module_level=True)

from benchmarks import gradient_trials as gradients  # noqa: E402
from benchmarks import kernel_trials as trials  # noqa: E402
from benchmarks import variant_trials as variants  # noqa: E402
from course_lib import traffic  # noqa: E402
from kernels import flash_varlen_attention as packed_module  # noqa: E402
from kernels import flash_window_attention as window_module  # noqa: E402
from kernels.flash_attention import flash_attention  # noqa: E402
from kernels.flash_varlen_attention import flash_varlen_attention  # noqa: E402
from kernels.flash_window_attention import flash_window_attention  # noqa: E402

WINDOW, LENGTHS = 7, [9, 0, 13]
CU = variants.beginnings(LENGTHS)


def windowed(q, k, v):
    return flash_window_attention(q, k, v, WINDOW)


def packed(q, k, v):
    return flash_varlen_attention(q, k, v, CU, CU, 13, 14, causal=True)


def drawn(*shapes, dtype=torch.float32):
    g = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=g).to(dtype).requires_grad_() for shape in shapes]


def inputs(way, n=22):
    """q, k, v for either function; two heads of queries share the one of K and V."""
    return drawn((1, 2, n, 16), (1, 1, n + 4, 16), (1, 1, n + 4, 16)) if way is windowed else drawn((22, 2, 16), (22, 1, 16), (22, 1, 16))


BOTH = pytest.mark.parametrize("way", [windowed, packed])


# ---------------------------------------------------------------- gradients


@pytest.mark.parametrize(
    ("sizes", "window"), [((2, 4, 2, 41, 41, 40), 1), ((2, 4, 2, 41, 41, 40), 17), ((1, 2, 1, 70, 33, 16), 20), ((1, 2, 2, 33, 70, 64), 1000)]
)
def test_gradients_of_a_window(sizes, window):
    B, H, H_KV, N_Q, N_KV, D = sizes
    q, k, v, dout = (x.detach() for x in drawn((B, H, N_Q, D), (B, H_KV, N_KV, D), (B, H_KV, N_KV, D), (B, H, N_Q, D)))
    mask = variants.window_mask(N_Q, N_KV, window)
    with traffic.counted() as launches:
        got = gradients.trained(flash_window_attention, q, k, v, dout, window=window)
    wrong, _ = trials.verdict(got, *gradients.training_trial(q, k, v, dout, mask=mask))
    assert not wrong and len(launches) == 4, wrong


@pytest.mark.parametrize("causal", [False, True], ids=["full", "causal"])
@pytest.mark.parametrize(("lengths_q", "lengths_k"), [([5, 0, 33, 1], [5, 0, 33, 1]), ([20, 33, 7], [40, 0, 30]), ([20, 0, 3], [10, 25, 1])])
def test_gradients_of_packed_sequences(lengths_q, lengths_k, causal):
    tensors = [x.detach() for x in drawn((sum(lengths_q), 4, 24), (sum(lengths_k), 2, 24), (sum(lengths_k), 2, 24), (sum(lengths_q), 4, 24))]
    more = dict(cu_q=variants.beginnings(lengths_q), cu_k=variants.beginnings(lengths_k), max_q=max(lengths_q), max_k=max(lengths_k), scale=0.3)
    with traffic.counted() as launches:
        got = gradients.trained(flash_varlen_attention, *tensors, causal=causal, **more)

    wrong, _ = trials.verdict(got, *variants.packed_training_trial(*tensors, lengths_q, lengths_k, causal, 0.3))
    assert not wrong and len(launches) == 4, wrong


def test_a_gradient_of_one_document_moves_no_other():
    q, k, v = inputs(packed)
    grads = torch.autograd.grad(packed(q, k, v)[:9].sum(), (q, k, v))
    assert all((x[9:] == 0).all() and (x[:9] != 0).any() for x in grads)


def test_a_wide_window_and_one_sequence_are_plain_attention():
    q, k, v = inputs(windowed)
    plain = flash_attention(q, k, v, causal=True)
    grads = torch.autograd.grad(plain, (q, k, v), torch.ones_like(plain))
    wide = flash_window_attention(q, k, v, 100)
    cu = torch.tensor([0, 22], dtype=torch.int32), torch.tensor([0, 26], dtype=torch.int32)
    one = flash_varlen_attention(*(x[0].transpose(0, 1) for x in (q, k, v)), *cu, 22, 26, causal=True).transpose(0, 1)[None]
    for out in (wide, one):
        assert torch.allclose(out, plain, atol=1e-6)
        for got, wanted in zip(torch.autograd.grad(out, (q, k, v), torch.ones_like(out)), grads, strict=True):
            assert torch.allclose(got, wanted, atol=1e-5)


@BOTH
def test_autograd_asks_once_and_for_what_is_needed_only(way):
    q, k, v = (x.detach() for x in inputs(way))
    q.requires_grad_()
    out = way(q, k, v)
    (dq,) = torch.autograd.grad(out, q, torch.ones_like(out), create_graph=True)
    assert dq.shape == q.shape and k.grad is None
    with pytest.raises(RuntimeError):  # differentiable once: better an error than a second derivative of 0
        torch.autograd.grad(dq.sum(), q)
    assert not way(q.detach(), k, v).requires_grad


# ---------------------------------------------------------------- an operator of PyTorch


def assert_same(compiled, function, tensors):
    """Values and gradients of a compiled function are those of the plain one."""
    dout = torch.randn(tensors[0].shape, generator=torch.Generator().manual_seed(1))
    for got, wanted in zip(*((f(*tensors), *torch.autograd.grad(f(*tensors), tensors, dout)) for f in (compiled, function)), strict=True):
        assert torch.allclose(got, wanted, atol=1e-6) and got.stride() == wanted.stride()


def around(way):
    """Something for the compiler to do before and after, and strides that are not the usual ones."""
    return lambda q, k, v: way((q * 2).mT.contiguous().mT, k, v).sin()


@BOTH
def test_torch_compile_sees_one_graph(way):
    function = around(way)
    assert_same(torch.compile(function, fullgraph=True, backend="aot_eager"), function, inputs(way))  # fullgraph: a break is an error


def test_torch_compile_with_changing_sizes():
    """Windows, lengths and their marks are arguments: one graph all the same."""
    window = torch.compile(lambda q, k, v, w: flash_window_attention(q, k, v, w).sin(), fullgraph=True, backend="aot_eager", dynamic=True)
    for n, w in ((22, 7), (33, 12)):
        q, k, v = inputs(windowed, n)
        assert torch.allclose(window(q, k, v, w), flash_window_attention(q, k, v, w).sin(), atol=1e-6)

    def varlen(q, k, v, cu, most):
        return flash_varlen_attention(q, k, v, cu, cu, most, most, causal=True).sin()

    compiled = torch.compile(varlen, fullgraph=True, backend="aot_eager", dynamic=True)
    for lengths in ([9, 13], [4, 20, 7]):
        n, cu = sum(lengths), variants.beginnings(lengths)
        tensors = drawn((n, 2, 16), (n, 1, 16), (n, 1, 16))
        assert_same(*(functools.partial(f, cu=cu, most=max(lengths)) for f in (compiled, varlen)), tensors)


@pytest.mark.slow
@BOTH
def test_torch_compile_with_generated_code(way):
    function = around(way)
    assert_same(torch.compile(function, fullgraph=True), function, inputs(way))


def test_the_fake_kernels_say_what_the_real_ones_give():
    q, k, v = inputs(windowed)
    torch.library.opcheck(window_module._forward, (q, k, v, WINDOW, 0.25))
    q, k, v = (x.detach() for x in (q, k, v))
    for one in (q, q.mT.contiguous().mT, q[..., :1].expand(q.shape)):
        out, lse = window_module._forward(one, k, v, WINDOW, 0.25)
        torch.library.opcheck(window_module._backward, (torch.ones_like(out), one, k, v, out, lse, WINDOW, 0.25))
    q, k, v = inputs(packed)
    for scale in (None, 0.25):
        torch.library.opcheck(packed_module._forward, (q, k, v, CU, CU, 13, 13, True, scale))
    q, k, v = (x.detach() for x in (q, k, v))
    for one in (q, q.mT.contiguous().mT, q[..., :1].expand(q.shape)):
        out, lse = packed_module._forward(one, k, v, CU, CU, 13, 13, True, None)
        torch.library.opcheck(packed_module._backward, (torch.ones_like(out), one, k, v, CU, CU, out, lse, 13, 13, True, None))


@BOTH
def test_autocast_computes_in_its_dtype_and_gives_gradients_in_the_inputs_own(way):
    q, k, v = inputs(way)
    plain = way(*(x.half() for x in (q, k, v)))

    def mixed(q, k, v):
        with torch.autocast("cpu", dtype=torch.float16):
            return way(q, k, v.half())

    for function in (mixed, torch.compile(mixed, fullgraph=True, backend="aot_eager")):
        out = function(q, k, v)
        assert out.dtype == torch.float16 and torch.equal(out, plain)
        assert all(x.dtype == torch.float32 for x in torch.autograd.grad(out.float().sum(), (q, k, v)))
    with torch.autocast("cpu", dtype=torch.bfloat16), pytest.raises(ValueError, match="interpreter computes bfloat16 wrongly"):
        way(q, k, v)
    assert way(q, k, v).dtype == torch.float32


def test_what_is_refused():
    q, k, v = inputs(windowed)
    with pytest.raises(ValueError, match="window is the number of keys a query sees"):
        flash_window_attention(q, k, v, 0)
    with pytest.raises(ValueError, match="flash_window_attention: 2 query heads are not a multiple of 3"):
        flash_window_attention(q, *(x.expand(1, 3, 26, 16) for x in (k, v)), 3)
    q, k, v = inputs(packed)
    with pytest.raises(ValueError, match="max_q is 12, and a sequence has 13 tokens"):
        flash_varlen_attention(q, k, v, CU, CU, 12, 13)
    with pytest.raises(ValueError, match="q must be packed"):
        flash_varlen_attention(q[None], k, v, CU, CU, 13, 13)
