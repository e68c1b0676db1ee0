"""Small kernels whose every load and store can be counted on paper."""

import torch
import triton
import triton.language as tl
from triton.tools.tensor_descriptor import TensorDescriptor


@triton.jit
def copy_kernel(x_ptr, out_ptr, n, BLOCK: tl.constexpr):
    lanes = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = lanes < n
    tl.store(out_ptr + lanes, tl.load(x_ptr + lanes, mask=inside), mask=inside)


def copy(x, block):
    out = torch.empty_like(x)
    copy_kernel[(triton.cdiv(x.numel(), block),)](x, out, x.numel(), BLOCK=block)
    return out


@triton.jit
def softmax_one_pass_kernel(x_ptr, out_ptr, n, stride, BLOCK: tl.constexpr):
    row, columns = tl.program_id(0), tl.arange(0, BLOCK)
    x = tl.load(x_ptr + row * stride + columns, mask=columns < n, other=float("-inf"))
    weights = tl.exp(x - tl.max(x, 0))
    tl.store(out_ptr + row * n + columns, weights / tl.sum(weights, 0), mask=columns < n)


@triton.jit
def softmax_online_kernel(x_ptr, out_ptr, n, stride, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    row_max, row_sum = float("-inf"), 0.0
    for start in range(0, n, BLOCK):
        columns = start + tl.arange(0, BLOCK)
        x = tl.load(x_ptr + row * stride + columns, mask=columns < n, other=float("-inf"))
        new_max = tl.maximum(row_max, tl.max(x, 0))
        row_sum = row_sum * tl.exp(row_max - new_max) + tl.sum(tl.exp(x - new_max), 0)
        row_max = new_max
    for start in range(0, n, BLOCK):
        columns = start + tl.arange(0, BLOCK)
        x = tl.load(x_ptr + row * stride + columns, mask=columns < n, other=float("-inf"))
        tl.store(out_ptr + row * n + columns, tl.exp(x - row_max) / row_sum, mask=columns < n)


@triton.jit
def softmax_three_passes_kernel(x_ptr, out_ptr, n, stride, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    row_max, row_sum = float("-inf"), 0.0
    for start in range(0, n, BLOCK):
        columns = start + tl.arange(0, BLOCK)
        x = tl.load(x_ptr + row * stride + columns, mask=columns < n, other=float("-inf"))
        row_max = tl.maximum(row_max, tl.max(x, 0))
    for start in range(0, n, BLOCK):
        columns = start + tl.arange(0, BLOCK)
        x = tl.load(x_ptr + row * stride + columns, mask=columns < n, other=float("-inf"))
        row_sum += tl.sum(tl.exp(x - row_max), 0)
    for start in range(0, n, BLOCK):
        columns = start + tl.arange(0, BLOCK)
        x = tl.load(x_ptr + row * stride + columns, mask=columns < n, other=float("-inf"))
        tl.store(out_ptr + row * n + columns, tl.exp(x - row_max) / row_sum, mask=columns < n)


def softmax(x, kernel, block):
    out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    kernel[(x.shape[0],)](x, out, x.shape[1], x.stride(0), BLOCK=block)
    return out


@triton.jit
def matmul_kernel(a_ptr, b_ptr, c_ptr, M, N, K, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr):
    rows = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    columns = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    acc = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
    for start in range(0, K, BLOCK_K):
        inner = start + tl.arange(0, BLOCK_K)
        a = tl.load(a_ptr + rows[:, None] * K + inner[None, :], mask=(rows[:, None] < M) & (inner[None, :] < K), other=0.0)
        b = tl.load(b_ptr + inner[:, None] * N + columns[None, :], mask=(inner[:, None] < K) & (columns[None, :] < N), other=0.0)
        acc += tl.dot(a, b, input_precision="ieee")
    tl.store(c_ptr + rows[:, None] * N + columns[None, :], acc, mask=(rows[:, None] < M) & (columns[None, :] < N))


def matmul(a, b, block_m, block_n, block_k):
    (m, k), n = a.shape, b.shape[1]
    c = torch.empty(m, n)
    matmul_kernel[(triton.cdiv(m, block_m), triton.cdiv(n, block_n))](a, b, c, m, n, k, BLOCK_M=block_m, BLOCK_N=block_n, BLOCK_K=block_k)
    return c


@triton.jit
def flash_kernel(q_ptr, k_ptr, v_ptr, out_ptr, lse_ptr, scale, N, D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr):
    rows, head = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M), tl.program_id(1) * N * D
    columns = tl.arange(0, D)
    q = tl.load(q_ptr + head + rows[:, None] * D + columns[None, :], mask=rows[:, None] < N, other=0.0)
    row_max, row_sum = tl.full([BLOCK_M], float("-inf"), tl.float32), tl.zeros([BLOCK_M], tl.float32)
    acc = tl.zeros([BLOCK_M, D], tl.float32)
    for start in range(0, N, BLOCK_N):
        keys = start + tl.arange(0, BLOCK_N)
        k = tl.load(k_ptr + head + keys[:, None] * D + columns[None, :], mask=keys[:, None] < N, other=0.0)
        v = tl.load(v_ptr + head + keys[:, None] * D + columns[None, :], mask=keys[:, None] < N, other=0.0)
        scores = tl.where(keys[None, :] < N, tl.dot(q, tl.trans(k), input_precision="ieee") * scale, float("-inf"))
        new_max = tl.maximum(row_max, tl.max(scores, 1))
        weights, rescale = tl.exp(scores - new_max[:, None]), tl.exp(row_max - new_max)
        row_sum = row_sum * rescale + tl.sum(weights, 1)
        acc = acc * rescale[:, None] + tl.dot(weights.to(v.dtype), v, input_precision="ieee")
        row_max = new_max
    tl.store(out_ptr + head + rows[:, None] * D + columns[None, :], acc / row_sum[:, None], mask=rows[:, None] < N)
    tl.store(lse_ptr + tl.program_id(1) * N + rows, row_max + tl.log(row_sum), mask=rows < N)


def flash(q, k, v, block_m, block_n):
    heads, n, d = q.shape
    out, lse = torch.empty_like(q), torch.empty(heads, n)
    flash_kernel[(triton.cdiv(n, block_m), heads)](q, k, v, out, lse, d**-0.5, n, D=d, BLOCK_M=block_m, BLOCK_N=block_n)
    return out


@triton.jit
def described_copy_kernel(x_desc, out_desc, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr):
    row, column = tl.program_id(0) * BLOCK_M, tl.program_id(1) * BLOCK_N
    out_desc.store([row, column], x_desc.load([row, column]))


def described_copy(x, block_m, block_n):
    out = torch.empty_like(x)
    descriptors = [TensorDescriptor.from_tensor(y, [block_m, block_n]) for y in (x, out)]
    grid = (triton.cdiv(x.shape[0], block_m), triton.cdiv(x.shape[1], block_n))
    described_copy_kernel[grid](*descriptors, BLOCK_M=block_m, BLOCK_N=block_n)
    return out


@triton.jit
def described_inside_kernel(x_ptr, out_ptr, M, N, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr):
    x_desc = tl.make_tensor_descriptor(x_ptr, shape=[M, N], strides=[N, 1], block_shape=[BLOCK_M, BLOCK_N])
    out_desc = tl.make_tensor_descriptor(out_ptr, shape=[M, N], strides=[N, 1], block_shape=[BLOCK_M, BLOCK_N])
    row, column = tl.program_id(0) * BLOCK_M, tl.program_id(1) * BLOCK_N
    out_desc.store([row, column], x_desc.load([row, column]))


def described_inside(x, block_m, block_n, rows=None):
    out = torch.empty_like(x)
    grid = (triton.cdiv(x.shape[0], block_m), triton.cdiv(x.shape[1], block_n))
    described_inside_kernel[grid](x, out, rows or x.shape[0], x.shape[1], BLOCK_M=block_m, BLOCK_N=block_n)
    return out


@triton.jit
def gather_rows_kernel(table_ptr, ids_ptr, out_ptr, D, BLOCK_D: tl.constexpr):
    token, columns = tl.program_id(0), tl.arange(0, BLOCK_D)
    row = tl.load(ids_ptr + token)
    x = tl.load(table_ptr + row * D + columns, mask=columns < D)
    tl.store(out_ptr + token * D + columns, x, mask=columns < D)


def gather_rows(table, ids, block_d):
    out = torch.empty(len(ids), table.shape[1])
    gather_rows_kernel[(len(ids),)](table, ids, out, table.shape[1], BLOCK_D=block_d)
    return out


@triton.jit
def gather_scatter_kernel(x_desc, out_desc, ids_ptr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr):
    ids = tl.load(ids_ptr + tl.arange(0, BLOCK_M))
    for column in range(0, 2 * BLOCK_N, BLOCK_N):
        out_desc.scatter(x_desc.gather(ids, column), ids, column)


def gather_scatter(x, ids, block_n):
    """Rows `ids` of x [R, 2 * block_n] copied to the same places of the result, by descriptors of one row."""
    out = torch.zeros_like(x)
    descriptors = [TensorDescriptor.from_tensor(y, [1, block_n]) for y in (x, out)]
    gather_scatter_kernel[(1,)](*descriptors, ids, BLOCK_M=len(ids), BLOCK_N=block_n)
    return out


@triton.jit
def histogram_kernel(x_ptr, bins_ptr, n, BLOCK: tl.constexpr):
    lanes = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_ptr + lanes, mask=lanes < n, other=0)
    tl.atomic_add(bins_ptr + x, 1, mask=lanes < n)


def histogram(x, bins, block):
    out = torch.zeros(bins, dtype=torch.int32)
    histogram_kernel[(triton.cdiv(x.numel(), block),)](x, out, x.numel(), BLOCK=block)
    return out


@triton.jit
def first_kernel(flag_ptr):
    tl.atomic_cas(flag_ptr, 0, tl.program_id(0) + 1)


def first(programs):
    flag = torch.zeros(1, dtype=torch.int32)
    first_kernel[(programs,)](flag)
    return flag


@triton.jit
def shuffled_kernel(x_ptr, ids_ptr, out_ptr, BLOCK: tl.constexpr):
    lanes = tl.arange(0, BLOCK)
    x, ids = tl.load(x_ptr + lanes), tl.load(ids_ptr + lanes)
    tl.store(out_ptr + lanes, tl.gather(x, ids, 0))


def shuffled(x, ids):
    out = torch.empty_like(x)
    shuffled_kernel[(1,)](x, ids, out, BLOCK=x.numel())
    return out
