"""Chapter 04: Triton from zero.

Generated from solutions/ch04_triton_from_zero.py by `make sync`: the exercises as nobody has touched them yet.
You may edit this file. `course check NAME` takes an edited exercise over into answers/, where your work is kept.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor


# %% exercise vector_add | core | 15 minutes | 2 points | triton
@triton.jit
def vector_add_kernel(x_ptr, y_ptr, out_ptr, N, BLOCK: tl.constexpr):
    ...  # yours


def vector_add(x: Tensor, y: Tensor) -> Tensor:
    """The sum of two vectors, by a kernel of which each program adds one tile of BLOCK elements.

    x, y     [N] float32, contiguous; N need not be a multiple of BLOCK
    returns  [N] float32

    Graded besides the values: each element loaded once and stored once, no program without work,
    at most a program for 32 elements (a launch of eight or fewer may do as it likes).
    Source: Triton's tutorial 01, Vector Addition.
    """
    raise NotImplementedError("vector_add (chapter 04) is not written yet")
    BLOCK = 128
    out = torch.empty_like(x)
    programs = ...  # yours: how many tiles of BLOCK cover x?
    vector_add_kernel[(programs,)](x, y, out, x.numel(), BLOCK=BLOCK)
    return out


# %% exercise softmax_rows | core | 20 minutes | 4 points | triton
@triton.jit
def softmax_rows_kernel(
    x_ptr, out_ptr, N, x_stride_m, x_stride_n, out_stride_m, out_stride_n, BLOCK_N: tl.constexpr
):
    ...  # yours


def softmax_rows(x: Tensor) -> Tensor:
    """Softmax over each row, by a kernel of which one program holds one whole row on the chip.

    x        [M, N] float32, any strides; -inf marks a hidden score; N is at most a few thousand
    returns  [M, N] float32: each row sums to 1; a row of nothing but -inf becomes zeros

    Graded besides the values: one launch, each score loaded once, each weight stored once,
    no copy of x made first.
    Source: Triton's tutorial 02, Fused Softmax; the arithmetic is chapter 03's safe_softmax.
    """
    raise NotImplementedError("softmax_rows (chapter 04) is not written yet")
    M, N = x.shape
    out = torch.empty((M, N), dtype=x.dtype, device=x.device)
    ...  # yours
    return out


# %% exercise softmax_long_rows | core | 20 minutes | 4 points | triton
@triton.jit
def softmax_long_rows_kernel(
    x_ptr, out_ptr, N, x_stride_m, x_stride_n, out_stride_m, out_stride_n, BLOCK_N: tl.constexpr
):
    ...  # yours


def softmax_long_rows(x: Tensor) -> Tensor:
    """Softmax over rows of any width, by a kernel that holds one tile of a row at a time.

    x        [M, N] float32, any strides; -inf marks a hidden score; N may be 70,000 and more
    returns  [M, N] float32: each row sums to 1; a row of nothing but -inf becomes zeros

    Graded besides the values: one launch, each score loaded twice and each weight stored once,
    no row held whole, no copy of x made first.
    Source: Milakov and Gimelshein 2018, Algorithm 3 (online softmax), a tile in place of a score.
    """
    raise NotImplementedError("softmax_long_rows (chapter 04) is not written yet")
    M, N = x.shape
    out = torch.empty((M, N), dtype=x.dtype, device=x.device)
    ...  # yours
    return out


# %% exercise rms_norm | more | 15 minutes | 3 points | triton
@triton.jit
def rms_norm_kernel(
    x_ptr, weight_ptr, out_ptr, N, eps,
    x_stride_m, x_stride_n, weight_stride, out_stride_m, out_stride_n, BLOCK_N: tl.constexpr,
):  # fmt: skip
    ...  # yours


def rms_norm(x: Tensor, weight: Tensor, eps: float = 1e-6) -> Tensor:
    """Every row divided by its root mean square, times a weight a column.

    In a formula: x / sqrt(mean(x * x) + eps) * weight, the mean taken over the row.

    x        [M, N] float32 or float16, any strides
    weight   [N], same dtype as x, any stride
    returns  [M, N], same dtype as x; computed in float32 in between

    Graded besides the values: one launch, each element of x loaded once, the weight at most once
    a row, each result stored once, no copy made first.
    Source: Zhang and Sennrich 2019, equation 4; eps as in Llama.
    """
    raise NotImplementedError("rms_norm (chapter 04) is not written yet")
    M, N = x.shape
    out = torch.empty((M, N), dtype=x.dtype, device=x.device)
    ...  # yours
    return out


# %% exercise swiglu | more | 15 minutes | 3 points | triton
# your kernel, with the arguments that you want it to have


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """silu(gate) * up, element by element, in one pass, where silu(g) = g / (1 + exp(-g)).

    gate, up  [M, N] float32 or float16, any strides
    returns   [M, N], same dtype; computed in float32 in between

    Graded besides the values: one launch, each element of gate and up loaded once, each result
    stored once, no copy made first.
    Source: Shazeer 2020, GLU Variants Improve Transformer, equation 6 (Swish with beta 1).
    """
    raise NotImplementedError("swiglu (chapter 04) is not written yet")


# %% exercise matmul | core | 30 minutes | 5 points | triton
@triton.jit
def matmul_kernel(
    a_ptr, b_ptr, out_ptr, M, N, K,
    a_stride_m, a_stride_k, b_stride_k, b_stride_n, out_stride_m, out_stride_n,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    ...  # yours


def matmul(a: Tensor, b: Tensor) -> Tensor:
    """a @ b, by a kernel of which each program computes one tile of the result.

    a        [M, K] float32 or float16, any strides; M, N and K need not be multiples of anything
    b        [K, N], same dtype as a, any strides
    returns  [M, N], same dtype as a; accumulated in float32

    Graded besides the values: one launch, each result stored once, no more loads than tiles of
    16 x 16 need, no copy made first, float32 products not rounded to TF32 (input_precision="ieee").
    Source: Triton's tutorial 03, Matrix Multiplication.
    """
    raise NotImplementedError("matmul (chapter 04) is not written yet")
    (M, K), N = a.shape, b.shape[1]
    out = torch.empty((M, N), dtype=a.dtype, device=a.device)
    ...  # yours
    return out


# as generated: top 32736b5e1265, vector_add 0eadf4bb55c9, softmax_rows 9198b34bdc49, softmax_long_rows 6edb5f31e969, rms_norm 4b6b0bd3f627, swiglu 1db35e77b1e6, matmul 6fbb9935e4c6
