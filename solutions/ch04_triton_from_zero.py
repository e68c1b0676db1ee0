"""Chapter 04: Triton from zero.

The source of the chapter's exercises: statements, solutions, hints. `make sync` writes the stubs from it.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor


# %% exercise vector_add | core | 15 minutes | 2 points | triton
# hint: Program 3 of a launch with BLOCK = 128: which 128 elements are its own?
# hint: A program's elements start at its number times BLOCK. Turn off the lanes that lie past the end, on both loads and on the store. And the last, partial tile needs a program too.
# hint: offsets = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK); inside = offsets < N; tl.load(x_ptr + offsets, mask=...). Rounding up is triton.cdiv(N, BLOCK).
@triton.jit
def vector_add_kernel(x_ptr, y_ptr, out_ptr, N, BLOCK: tl.constexpr):
    # solution
    offsets = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = offsets < N
    x = tl.load(x_ptr + offsets, mask=inside)
    y = tl.load(y_ptr + offsets, mask=inside)
    tl.store(out_ptr + offsets, x + y, mask=inside)
    # end


def vector_add(x: Tensor, y: Tensor) -> Tensor:
    """The sum of two vectors, by a kernel of which each program adds one tile of BLOCK elements.

    x, y     [N] float32, contiguous; N need not be a multiple of BLOCK
    returns  [N] float32

    Graded besides the values: each element loaded once and stored once, no program without work,
    at most a program for 32 elements (a launch of eight or fewer may do as it likes).
    Source: Triton's tutorial 01, Vector Addition.
    """
    BLOCK = 128
    out = torch.empty_like(x)
    # solution
    programs = triton.cdiv(x.numel(), BLOCK)
    # instead
    #| programs = ...  # yours: how many tiles of BLOCK cover x?
    # end
    vector_add_kernel[(programs,)](x, y, out, x.numel(), BLOCK=BLOCK)
    return out


# %% exercise softmax_rows | core | 20 minutes | 4 points | triton
# hint: The tile is a little wider than the row. What do the lanes past the end hold, and what do they do to the maximum and to the sum?
# hint: One program, one row: load it once, with -inf past its end, so that exp turns those lanes into 0. Then maximum, exponentials, sum, division, all on the chip, and one store.
# hint: x = tl.load(x_ptr + row * x_stride_m + cols * x_stride_n, mask=cols < N, other=-float("inf")); row_max = tl.max(x, axis=0); ... The host: BLOCK_N = triton.next_power_of_2(N), grid (M,). A row of nothing but -inf subtracts 0 and divides by 1.
@triton.jit
def softmax_rows_kernel(
    x_ptr, out_ptr, N, x_stride_m, x_stride_n, out_stride_m, out_stride_n, BLOCK_N: tl.constexpr
):
    # solution
    row = tl.program_id(0)
    cols = tl.arange(0, BLOCK_N)
    inside = cols < N
    x = tl.load(x_ptr + row * x_stride_m + cols * x_stride_n, mask=inside, other=-float("inf"))
    row_max = tl.max(x, axis=0)
    shift = tl.where(row_max == -float("inf"), 0.0, row_max)  # -inf - -inf is NaN: an empty row subtracts 0
    weights = tl.exp(x - shift)
    row_sum = tl.sum(weights, axis=0)
    weights = weights / tl.where(row_sum == 0.0, 1.0, row_sum)
    tl.store(out_ptr + row * out_stride_m + cols * out_stride_n, weights, mask=inside)
    # end


def softmax_rows(x: Tensor) -> Tensor:
    """Softmax over each row, by a kernel of which one program holds one whole row on the chip.

    x        [M, N] float32, any strides; -inf marks a hidden score; N is at most a few thousand
    returns  [M, N] float32: each row sums to 1; a row of nothing but -inf becomes zeros

    Graded besides the values: one launch, each score loaded once, each weight stored once,
    no copy of x made first.
    Source: Triton's tutorial 02, Fused Softmax; the arithmetic is chapter 03's safe_softmax.
    """
    M, N = x.shape
    out = torch.empty((M, N), dtype=x.dtype, device=x.device)
    # solution
    softmax_rows_kernel[(M,)](x, out, N, *x.stride(), *out.stride(), BLOCK_N=triton.next_power_of_2(N))
    # end
    return out


# %% exercise softmax_long_rows | core | 20 minutes | 4 points | triton
# hint: Which two numbers does every weight of the row need, and how did chapter 03 get both in one walk?
# hint: First loop over tiles of the row: keep row_max and row_sum, and rescale row_sum by exp(row_max - new_max) when a tile raises the maximum. Second loop: load each tile again, and store its weights.
# hint: for start in range(0, N, BLOCK_N): cols = start + lanes; x = tl.load(..., mask=cols < N, other=-float("inf")); new_max = tl.maximum(row_max, tl.max(x, axis=0)); row_sum = row_sum * tl.exp(row_max - ...) + tl.sum(...). Guard -inf - -inf as before.
@triton.jit
def softmax_long_rows_kernel(
    x_ptr, out_ptr, N, x_stride_m, x_stride_n, out_stride_m, out_stride_n, BLOCK_N: tl.constexpr
):
    # solution
    row = tl.program_id(0)
    lanes = tl.arange(0, BLOCK_N)
    row_max = -float("inf")
    row_sum = 0.0
    for start in range(0, N, BLOCK_N):  # first read
        cols = start + lanes
        x = tl.load(x_ptr + row * x_stride_m + cols * x_stride_n, mask=cols < N, other=-float("inf"))
        new_max = tl.maximum(row_max, tl.max(x, axis=0))
        shift = tl.where(new_max == -float("inf"), 0.0, new_max)  # nothing seen yet: exp(-inf - 0) is 0, not NaN
        row_sum = row_sum * tl.exp(row_max - shift) + tl.sum(tl.exp(x - shift), axis=0)
        row_max = new_max
    final = tl.where(row_max == -float("inf"), 0.0, row_max)
    divisor = tl.where(row_sum == 0.0, 1.0, row_sum)
    for start in range(0, N, BLOCK_N):  # second read, and the write
        cols = start + lanes
        x = tl.load(x_ptr + row * x_stride_m + cols * x_stride_n, mask=cols < N, other=-float("inf"))
        tl.store(out_ptr + row * out_stride_m + cols * out_stride_n, tl.exp(x - final) / divisor, mask=cols < N)
    # end


def softmax_long_rows(x: Tensor) -> Tensor:
    """Softmax over rows of any width, by a kernel that holds one tile of a row at a time.

    x        [M, N] float32, any strides; -inf marks a hidden score; N may be 70,000 and more
    returns  [M, N] float32: each row sums to 1; a row of nothing but -inf becomes zeros

    Graded besides the values: one launch, each score loaded twice and each weight stored once,
    no row held whole, no copy of x made first.
    Source: Milakov and Gimelshein 2018, Algorithm 3 (online softmax), a tile in place of a score.
    """
    M, N = x.shape
    out = torch.empty((M, N), dtype=x.dtype, device=x.device)
    # solution
    softmax_long_rows_kernel[(M,)](x, out, N, *x.stride(), *out.stride(), BLOCK_N=1024)
    # end
    return out


# %% exercise rms_norm | more | 15 minutes | 3 points | triton
# hint: The tile is wider than the row. Over how many numbers is the mean taken?
# hint: Load the row as float32, with 0 past its end. The sum of squares divided by N, plus eps, is what the root is taken of. Each column has its own weight, the same for every row.
# hint: x = tl.load(...).to(tl.float32); scale = tl.rsqrt(tl.sum(x * x, axis=0) / N + eps); weight = tl.load(weight_ptr + cols * weight_stride, ...); store x * scale * weight.
@triton.jit
def rms_norm_kernel(
    x_ptr, weight_ptr, out_ptr, N, eps,
    x_stride_m, x_stride_n, weight_stride, out_stride_m, out_stride_n, BLOCK_N: tl.constexpr,
):  # fmt: skip
    # solution
    row = tl.program_id(0)
    cols = tl.arange(0, BLOCK_N)
    inside = cols < N
    x = tl.load(x_ptr + row * x_stride_m + cols * x_stride_n, mask=inside, other=0.0).to(tl.float32)
    weight = tl.load(weight_ptr + cols * weight_stride, mask=inside, other=0.0).to(tl.float32)
    mean_square = tl.sum(x * x, axis=0) / N
    normed = x * tl.rsqrt(mean_square + eps) * weight
    tl.store(out_ptr + row * out_stride_m + cols * out_stride_n, normed, mask=inside)
    # end


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
    M, N = x.shape
    out = torch.empty((M, N), dtype=x.dtype, device=x.device)
    # solution
    rms_norm_kernel[(M,)](
        x, weight, out, N, eps, *x.stride(), weight.stride(0), *out.stride(), BLOCK_N=triton.next_power_of_2(N)
    )
    # end
    return out


# %% exercise swiglu | more | 15 minutes | 3 points | triton
# hint: No element needs its neighbours. What is then the least that has to be read and written?
# hint: Any cut into tiles will do: load a tile of gate and the same tile of up, compute in float32, store. silu(g) is g * sigmoid(g).
# hint: gate = tl.load(...).to(tl.float32); up likewise; tl.store(..., gate * tl.sigmoid(gate) * up, mask=inside). One program a row and tile: grid (M, triton.cdiv(N, BLOCK)).
# solution
@triton.jit
def swiglu_kernel(
    gate_ptr, up_ptr, out_ptr, N,
    gate_stride_m, gate_stride_n, up_stride_m, up_stride_n, out_stride_m, out_stride_n, BLOCK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0)
    cols = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = cols < N
    gate = tl.load(gate_ptr + row * gate_stride_m + cols * gate_stride_n, mask=inside).to(tl.float32)
    up = tl.load(up_ptr + row * up_stride_m + cols * up_stride_n, mask=inside).to(tl.float32)
    tl.store(out_ptr + row * out_stride_m + cols * out_stride_n, gate * tl.sigmoid(gate) * up, mask=inside)
# instead
#| # your kernel, with the arguments that you want it to have
# end


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """silu(gate) * up, element by element, in one pass, where silu(g) = g / (1 + exp(-g)).

    gate, up  [M, N] float32 or float16, any strides
    returns   [M, N], same dtype; computed in float32 in between

    Graded besides the values: one launch, each element of gate and up loaded once, each result
    stored once, no copy made first.
    Source: Shazeer 2020, GLU Variants Improve Transformer, equation 6 (Swish with beta 1).
    """
    # solution
    BLOCK = 128
    M, N = gate.shape
    out = torch.empty((M, N), dtype=gate.dtype, device=gate.device)
    swiglu_kernel[(M, triton.cdiv(N, BLOCK))](gate, up, out, N, *gate.stride(), *up.stride(), *out.stride(), BLOCK=BLOCK)
    return out
    # end


# %% exercise matmul | core | 30 minutes | 5 points | triton
# hint: One program computes one tile of the result. Which rows of a and which columns of b does it need, and can it hold them all at once?
# hint: Walk along K, BLOCK_K at a time: load a tile of a and a tile of b, both with 0 where a lane lies outside, and add their product to a float32 accumulator that is made before the loop. Store once, after it.
# hint: rows = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M); a tile of pointers is rows[:, None] * a_stride_m + ks[None, :] * a_stride_k; acc = tl.dot(a, b, acc, input_precision="ieee"). The grid is (cdiv(M, BLOCK_M), cdiv(N, BLOCK_N)).
@triton.jit
def matmul_kernel(
    a_ptr, b_ptr, out_ptr, M, N, K,
    a_stride_m, a_stride_k, b_stride_k, b_stride_n, out_stride_m, out_stride_n,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    # solution
    rows = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    cols = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    acc = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
    for start in range(0, K, BLOCK_K):
        ks = start + tl.arange(0, BLOCK_K)
        a_inside = (rows[:, None] < M) & (ks[None, :] < K)
        b_inside = (ks[:, None] < K) & (cols[None, :] < N)
        a = tl.load(a_ptr + rows[:, None] * a_stride_m + ks[None, :] * a_stride_k, mask=a_inside, other=0.0)
        b = tl.load(b_ptr + ks[:, None] * b_stride_k + cols[None, :] * b_stride_n, mask=b_inside, other=0.0)
        acc = tl.dot(a, b, acc, input_precision="ieee")  # by default a GPU rounds float32 inputs to TF32
    inside = (rows[:, None] < M) & (cols[None, :] < N)
    tl.store(out_ptr + rows[:, None] * out_stride_m + cols[None, :] * out_stride_n, acc, mask=inside)
    # end


def matmul(a: Tensor, b: Tensor) -> Tensor:
    """a @ b, by a kernel of which each program computes one tile of the result.

    a        [M, K] float32 or float16, any strides; M, N and K need not be multiples of anything
    b        [K, N], same dtype as a, any strides
    returns  [M, N], same dtype as a; accumulated in float32

    Graded besides the values: one launch, each result stored once, no more loads than tiles of
    16 x 16 need, no copy made first, float32 products not rounded to TF32 (input_precision="ieee").
    Source: Triton's tutorial 03, Matrix Multiplication.
    """
    (M, K), N = a.shape, b.shape[1]
    out = torch.empty((M, N), dtype=a.dtype, device=a.device)
    # solution
    BLOCK_M, BLOCK_N, BLOCK_K = 32, 32, 32
    grid = (triton.cdiv(M, BLOCK_M), triton.cdiv(N, BLOCK_N))
    matmul_kernel[grid](
        a, b, out, M, N, K, *a.stride(), *b.stride(), *out.stride(), BLOCK_M=BLOCK_M, BLOCK_N=BLOCK_N, BLOCK_K=BLOCK_K
    )
    # end
    return out
