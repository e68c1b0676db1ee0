"""RMSNorm in one pass: a row is read, scaled to unit root mean square, multiplied by the weights and written.

Notebook   04 Triton from zero
Reference  torch.nn.functional.rms_norm
Paper      Zhang and Sennrich 2019, equation 4
Shapes     x, out [M, N], any strides; weight [N]
Grid       (ceil(M / ROWS),): a program owns ROWS whole rows

    x = X[rows]                                  one read, kept in registers
    scale = 1 / sqrt(mean(x * x) + eps)          in float32, over the N true columns
    out[rows] = x * scale * weight               one write
"""

import torch
import triton
import triton.language as tl

from kernels.launching import require, require_floats

TARGETS = (75, 80, 86, 89, 90, 100, 120)
MAX_WIDTH = 32768


def config_for(N: int) -> dict:
    """About 4,096 elements a program, and 512 elements or more a warp."""
    BLOCK_N = max(16, triton.next_power_of_2(N))
    return {"ROWS": max(1, 4096 // BLOCK_N), "BLOCK_N": BLOCK_N, "num_warps": min(32, max(4, BLOCK_N // 1024))}


@triton.jit
def rms_norm_kernel(x_ptr, weight_ptr, out_ptr, x_strides, weight_stride, M, N, eps, ROWS: tl.constexpr, BLOCK_N: tl.constexpr):
    # 1. who am I
    rows = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)  # [ROWS]
    # 2. where is my data
    columns = tl.arange(0, BLOCK_N).to(tl.int64)  # [BLOCK_N]
    inside = (rows[:, None] < M) & (columns[None, :] < N)
    # 3. load: what lies past the end counts 0 in the sum of squares
    x = tl.load(x_ptr + rows[:, None] * x_strides[0] + columns[None, :] * x_strides[1], mask=inside, other=0.0).to(tl.float32)
    weight = tl.load(weight_ptr + columns * weight_stride, mask=columns < N, other=0.0).to(tl.float32)
    # 4. compute
    scale = 1.0 / tl.sqrt(tl.sum(x * x, 1) / N + eps)  # [ROWS]
    out = x * scale[:, None] * weight[None, :]  # [ROWS, BLOCK_N]
    # 5. write
    tl.store(out_ptr + rows[:, None] * N + columns[None, :], out.to(out_ptr.dtype.element_ty), mask=inside)


def rms_norm(x: torch.Tensor, weight: torch.Tensor, eps: float = 1e-6, config: dict | None = None) -> torch.Tensor:
    """x / sqrt(mean(x^2) + eps) * weight, row by row.

    x        [M, N] float16, bfloat16 or float32, any strides, N at most 32,768
    weight   [N], same dtype, any stride
    returns  [M, N], same dtype, contiguous
    """
    require_floats("rms_norm", x=x, weight=weight)
    require(x.dim() == 2 and weight.shape == x.shape[1:], "rms_norm", "x must be [M, N] and weight [N]", x=x, weight=weight)
    M, N = x.shape
    require(N <= MAX_WIDTH, "rms_norm", f"a row of {N} does not fit on chip", x=x)
    out = torch.empty((M, N), dtype=x.dtype, device=x.device)
    if out.numel():
        config = config or config_for(N)
        rms_norm_kernel[(triton.cdiv(M, config["ROWS"]),)](x, weight, out, x.stride(), weight.stride(0), M, N, eps, **config)
    return out
