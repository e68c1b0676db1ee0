"""What a lane holds that a mask turned off, where the kernel gave no `other`: no number, so that a kernel which counts it is seen."""

import pytest
import torch

from course_lib import hardware

if not hardware.has_triton() or hardware.tier() != "interpreter":  # asked before triton is imported: it turns the interpreter on
    pytest.skip("interpreted kernels only: a GPU leaves anything in such lanes", allow_module_level=True)

import triton  # noqa: E402
import triton.language as tl  # noqa: E402

from course_lib import traffic  # noqa: E402


@triton.jit
def sum_without_other(x_ptr, out_ptr, N, BLOCK: tl.constexpr):
    lanes = tl.arange(0, BLOCK)
    x = tl.load(x_ptr + lanes, mask=lanes < N)
    tl.store(out_ptr, tl.sum(x))


@triton.jit
def copy_without_other(x_ptr, out_ptr, N, BLOCK: tl.constexpr):
    lanes = tl.arange(0, BLOCK)
    x = tl.load(x_ptr + lanes, mask=lanes < N)
    tl.store(out_ptr + lanes, x, mask=lanes < N)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_masked_lanes_without_other_hold_no_number(dtype):
    """A GPU leaves anything there; the interpreter's own zero would let a kernel pass that counts them."""
    x, out, total = torch.ones(5, dtype=dtype), torch.empty(5, dtype=dtype), torch.empty(1, dtype=dtype)
    with traffic.counted():
        copy_without_other[(1,)](x, out, 5, BLOCK=8)
        sum_without_other[(1,)](x, total, 5, BLOCK=8)
    assert torch.equal(out, x) and total.isnan().all()
    whole = torch.ones(8, dtype=dtype)
    with traffic.counted():
        sum_without_other[(1,)](whole, total, 8, BLOCK=8)
    assert total.item() == 8
