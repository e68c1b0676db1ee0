"""Softmax of rows that fit on chip: each number is read once and written once, whatever happens between.

Notebook   04 Triton from zero
Reference  torch.softmax(x, dim=-1)
Shapes     x, out [M, N], any strides
Grid       (ceil(M / ROWS),): a program owns ROWS whole rows; rows of 2,048 and more come one a program

    x = X[rows]                          one read; past the end of a row stands -inf
    e = exp(x - max(x))                  the row stays in registers
    out[rows] = e / sum(e)               one write
"""

import torch
import triton
import triton.language as tl

from kernels.launching import require, require_floats

TARGETS = (75, 80, 86, 89, 90, 100, 120)
MAX_WIDTH = 32768  # a row of float32 in the registers of 32 warps; kernels/softmax_long_rows.py takes any width


def config_for(N: int) -> dict:
    """About 2,048 elements a program, and 512 elements a warp."""
    BLOCK_N = max(16, triton.next_power_of_2(N))
    return {"ROWS": max(1, 2048 // BLOCK_N), "BLOCK_N": BLOCK_N, "num_warps": min(32, max(4, BLOCK_N // 512))}


@triton.jit
def softmax_rows_kernel(x_ptr, out_ptr, x_strides, M, N, ROWS: tl.constexpr, BLOCK_N: tl.constexpr):
    # 1. who am I
    rows = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)  # [ROWS]
    # 2. where is my data
    columns = tl.arange(0, BLOCK_N).to(tl.int64)  # [BLOCK_N]
    inside = (rows[:, None] < M) & (columns[None, :] < N)
    # 3. load: -inf adds nothing to a maximum, and exp makes it 0
    x = tl.load(x_ptr + rows[:, None] * x_strides[0] + columns[None, :] * x_strides[1], mask=inside, other=float("-inf"))
    # 4. compute
    x = x.to(tl.float32)  # [ROWS, BLOCK_N]
    row_max = tl.max(x, 1)  # [ROWS]
    e = tl.exp(x - tl.where(row_max == float("-inf"), 0.0, row_max)[:, None])  # -inf - -inf is NaN: an empty row stays 0
    row_sum = tl.sum(e, 1)
    out = e / tl.where(row_sum == 0.0, 1.0, row_sum)[:, None]
    # 5. write
    tl.store(out_ptr + rows[:, None] * N + columns[None, :], out.to(out_ptr.dtype.element_ty), mask=inside)


def softmax_rows(x: torch.Tensor, config: dict | None = None) -> torch.Tensor:
    """Softmax along the last dimension.

    x        [M, N] float16, bfloat16 or float32, any strides, N at most 32,768
    returns  [M, N], same dtype, contiguous; a row of -inf alone gives zeros
    """
    require_floats("softmax_rows", x=x)
    require(x.dim() == 2, "softmax_rows", "x must have two dimensions", x=x)
    M, N = x.shape
    require(N <= MAX_WIDTH, "softmax_rows", f"a row of {N} does not fit on chip; use softmax_long_rows", x=x)
    out = torch.empty((M, N), dtype=x.dtype, device=x.device)
    if out.numel():
        config = config or config_for(N)
        softmax_rows_kernel[(triton.cdiv(M, config["ROWS"]),)](x, out, x.stride(), M, N, **config)
    return out
