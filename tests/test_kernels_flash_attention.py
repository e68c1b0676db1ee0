"""flash_attention as an operator of PyTorch, interpreted: torch.compile without a graph break, autocast, torch.library's own checks, training."""

import pytest
import torch

from course_lib import hardware

if not hardware.has_triton() or hardware.tier() != "interpreter":  # asked before triton is imported: it turns the interpreter on
    pytest.skip("interpreted kernels only", allow_module_level=True)

from benchmarks import ch06_train  # noqa: E402
from kernels import flash_attention as module  # noqa: E402
from kernels.flash_attention import flash_attention  # noqa: E402


def drawn(N_Q=20, N_KV=24, D=16, H=2, dtype=torch.float32):
    g = torch.Generator().manual_seed(0)
    return [torch.randn(1, heads, n, D, generator=g).to(dtype).requires_grad_() for heads, n in ((H, N_Q), (1, N_KV), (1, N_KV))]


def around(q, k, v):
    """Something for the compiler to do before and after, and strides that are not the usual ones."""
    return flash_attention((q * 2).mT.contiguous().mT, k, v, causal=True).sin()


def assert_same(compiled, inputs):
    """Values and gradients of a compiled function are those of the plain one."""
    dout = torch.randn(inputs[0].shape, generator=torch.Generator().manual_seed(1))
    for got, wanted in zip(*((f(*inputs), *torch.autograd.grad(f(*inputs), inputs, dout)) for f in (compiled, around)), strict=True):
        assert torch.allclose(got, wanted, atol=1e-6) and got.stride() == wanted.stride()


def test_torch_compile_sees_one_graph():
    assert_same(torch.compile(around, fullgraph=True, backend="aot_eager"), drawn())  # fullgraph: a break is an error
    dynamic = torch.compile(around, fullgraph=True, backend="aot_eager", dynamic=True)
    for n in (20, 33):
        assert_same(dynamic, drawn(N_Q=n))


@pytest.mark.slow
def test_torch_compile_with_generated_code():
    assert_same(torch.compile(around, fullgraph=True), drawn())


def test_the_fake_kernels_say_what_the_real_ones_give():
    q, k, v = drawn()
    torch.library.opcheck(module._forward, (q, k, v, True, 0.25))
    q, k, v = (x.detach() for x in (q, k, v))
    for one in (q, q.mT.contiguous().mT, q[..., :1].expand(q.shape)):
        out, lse = module._forward(one, k, v, True, 0.25)
        torch.library.opcheck(module._backward, (torch.ones_like(out), one, k, v, out, lse, True, 0.25))


def test_autocast_computes_in_its_dtype_and_gives_gradients_in_the_inputs_own():
    q, k, v = drawn()
    plain = flash_attention(*(x.half() for x in (q, k, v)))

    def mixed(q, k, v):
        with torch.autocast("cpu", dtype=torch.float16):
            return flash_attention(q, k, v.half())

    for function in (mixed, torch.compile(mixed, fullgraph=True, backend="aot_eager")):
        out = function(q, k, v)
        assert out.dtype == torch.float16 and torch.equal(out, plain)
        assert all(x.dtype == torch.float32 for x in torch.autograd.grad(out.float().sum(), (q, k, v)))
    with torch.autocast("cpu", dtype=torch.bfloat16), pytest.raises(ValueError, match="interpreter computes bfloat16 wrongly"):
        flash_attention(q, k, v)
    assert flash_attention(q, k, v).dtype == torch.float32


def test_a_transformer_trains_as_with_plain_attention():
    sizes = {"layers": 1, "width": 32, "H": 2, "H_KV": 1, "N": 24}
    plain, flash = (ch06_train.train(way, 6, sizes, 2, "cpu", torch.float32, 1e-2) for way in (ch06_train.plain, ch06_train.flash))
    assert max(abs(a - b) for a, b in zip(plain, flash, strict=True)) < 1e-4 and flash[-1] != flash[0]
    half = ch06_train.train(lambda q, k, v, causal: ch06_train.flash(q, k, v / 2), 6, sizes, 2, "cpu", torch.float32, 1e-2)
    assert max(abs(a - b) for a, b in zip(plain, half, strict=True)) > 1e-4  # a wrong attention would be seen


def test_what_a_step_keeps_grows_with_n():
    """Peak memory of a forward and backward pass: about linear with flash_attention, about quadratic without."""
    rows = ch06_train.memory((64, 128, 256), 256, 2, 1, 16, "cpu", torch.float32)
    grows = rows[-1]
    assert grows["flash_attention (MiB)"] < 1.1 and grows["plain (MiB)"] > 1.6 and grows["checkpointed (MiB)"] > 1.6
    assert rows[2]["flash_attention (MiB)"] < rows[2]["checkpointed (MiB)"] < rows[2]["plain (MiB)"]


def test_the_exponent_is_fitted_to_the_longer_half():
    assert ch06_train.exponent((1, 2, 4, 8), [5.0, 5.0, 7.0, 28.0]) == pytest.approx(2) and ch06_train.exponent(
        (1, 2, 4), [3.0, 6.0, "-"]
    ) == pytest.approx(1)
