"""Chapter 90: a course of two exercises, for the tests of the grader."""

import torch
import triton
import triton.language as tl
from torch import Tensor


# %% exercise row_shares | core | 5 minutes | 2 points | torch
# hint: What do the shares of a row sum to?
# hint: Take sizes first, then divide by their sum.
# hint: x.abs() / x.abs().sum(dim=-1, keepdim=True), guarded where the sum is 0.
def row_shares(x: Tensor) -> Tensor:
    """What share of its row's total size each number has.

    x        [..., N]
    returns  [..., N], same dtype: |x| divided by the row's sum of |x|; zeros for a row of zeros
    """
    # solution
    sizes = x.abs()
    total = sizes.sum(dim=-1, keepdim=True)
    return sizes / torch.where(total == 0, 1.0, total)
    # end


# %% exercise double_and_mask | more | 10 minutes | 3 points | triton
# hint: Which numbers does program 2 own?
# hint: Lanes past the end load nothing and store nothing.
# hint: offsets = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK); mask = offsets < N.
@triton.jit
def double_and_mask_kernel(x_ptr, keep_ptr, out_ptr, N, BLOCK: tl.constexpr):
    # solution
    offsets = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = offsets < N
    x = tl.load(x_ptr + offsets, mask=inside, other=0.0)
    keep = tl.load(keep_ptr + offsets, mask=inside, other=0)
    tl.store(out_ptr + offsets, tl.where(keep != 0, x * 2.0, 0.0), mask=inside)
    # end


def double_and_mask(x: Tensor, keep: Tensor) -> Tensor:
    """Twice every kept number, 0 for the others, by a Triton kernel that reads each number once.

    x        [N] float32
    keep     [N] int8, 0 or 1
    returns  [N] float32
    """
    # solution
    BLOCK = 16
    out = torch.empty_like(x)
    double_and_mask_kernel[(triton.cdiv(x.numel(), BLOCK),)](x, keep, out, x.numel(), BLOCK=BLOCK)
    return out
    # end
