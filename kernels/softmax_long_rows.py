"""Softmax of rows of any length: online, so that two reads and one write of each number are enough.

Notebook   04 Triton from zero
Reference  torch.softmax(x, dim=-1)
Paper      Milakov and Gimelshein 2018, section 3
Shapes     x, out [M, N], any strides
Grid       (M,): one row a program

    row_max, row_sum = -inf, 0                   a running pair for each of the BLOCK_N lanes
    for each tile of the row:                    first read
        new_max = max(row_max, tile)
        row_sum = row_sum * exp(row_max - new_max) + exp(tile - new_max)
    merge the lanes into one row_max and row_sum
    for each tile:                               second read: the first has left the chip
        out[tile] = exp(tile - row_max) / row_sum
"""

import torch
import triton
import triton.language as tl

from kernels.launching import require, require_floats

DEFAULT_CONFIG = {"BLOCK_N": 8192, "num_warps": 16}
TARGETS = (75, 80, 86, 89, 90, 100, 120)


@triton.jit
def softmax_long_rows_kernel(x_ptr, out_ptr, x_strides, N, BLOCK_N: tl.constexpr):
    # 1. who am I
    row = tl.program_id(0).to(tl.int64)
    # 2. where is my data
    lanes = tl.arange(0, BLOCK_N).to(tl.int64)  # [BLOCK_N]
    x_row = x_ptr + row * x_strides[0]
    out_row = out_ptr + row * N
    # 3. initialise
    lane_max = tl.full([BLOCK_N], float("-inf"), tl.float32)
    lane_sum = tl.zeros([BLOCK_N], tl.float32)
    # 4. loop: each lane keeps its own state, so that nothing crosses lanes until the row has ended
    for start in range(0, N, BLOCK_N):
        columns = start + lanes
        x = tl.load(x_row + columns * x_strides[1], mask=columns < N, other=float("-inf")).to(tl.float32)
        new_max = tl.maximum(lane_max, x)
        base = tl.where(new_max == float("-inf"), 0.0, new_max)  # -inf - -inf is NaN: an empty lane stays 0
        lane_sum = lane_sum * tl.exp(lane_max - base) + tl.exp(x - base)
        lane_max = new_max
    row_max = tl.max(lane_max, 0)
    base = tl.where(row_max == float("-inf"), 0.0, row_max)
    row_sum = tl.sum(lane_sum * tl.exp(lane_max - base), 0)
    # 5. write
    one_over = 1.0 / tl.where(row_sum == 0.0, 1.0, row_sum)
    for start in range(0, N, BLOCK_N):
        columns = start + lanes
        x = tl.load(x_row + columns * x_strides[1], mask=columns < N, other=float("-inf")).to(tl.float32)
        tl.store(out_row + columns, (tl.exp(x - base) * one_over).to(out_ptr.dtype.element_ty), mask=columns < N)


def softmax_long_rows(x: torch.Tensor, config: dict = DEFAULT_CONFIG) -> torch.Tensor:
    """Softmax along the last dimension, any length.

    x        [M, N] float16, bfloat16 or float32, any strides
    returns  [M, N], same dtype, contiguous; a row of -inf alone gives zeros
    """
    require_floats("softmax_long_rows", x=x)
    require(x.dim() == 2, "softmax_long_rows", "x must have two dimensions", x=x)
    M, N = x.shape
    out = torch.empty((M, N), dtype=x.dtype, device=x.device)
    if out.numel():
        softmax_long_rows_kernel[(M,)](x, out, x.stride(), N, **config)
    return out
