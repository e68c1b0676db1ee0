"""Matrix product by tiles: a program owns one tile of C and walks along K; sums stay in float32 registers.

Notebook   04 Triton from zero
Reference  a @ b
Shapes     a [M, K], b [K, N], c [M, N], any M, N, K, any strides
Grid       (tiles of C,): in groups of GROUP rows of tiles, so that programs running together share tiles of a and b in L2

    acc = 0
    for each tile of K:
        acc += A[my rows, tile] @ B[tile, my columns]      each number of a is requested ceil(N / BLOCK_N) times in all
    C[my rows, my columns] = acc
"""

import torch
import triton
import triton.language as tl

from kernels.launching import choose, require, require_floats

CONFIGS = {
    192: {"BLOCK_M": 128, "BLOCK_N": 256, "BLOCK_K": 64, "GROUP": 8, "num_warps": 8, "num_stages": 4},
    96: {"BLOCK_M": 128, "BLOCK_N": 128, "BLOCK_K": 64, "GROUP": 8, "num_warps": 8, "num_stages": 3},
    16: {"BLOCK_M": 64, "BLOCK_N": 64, "BLOCK_K": 32, "GROUP": 8, "num_warps": 8, "num_stages": 1},
}
TARGETS = (75, 80, 86, 89, 90, 100, 120)


@triton.jit
def matmul_kernel(
    a_ptr, b_ptr, c_ptr, a_strides, b_strides, M, N, K,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, GROUP: tl.constexpr,
):  # fmt: skip
    # 1. who am I: tile (m, n) of C, numbered down the columns of a group of GROUP rows
    tiles_m, tiles_n = tl.cdiv(M, BLOCK_M), tl.cdiv(N, BLOCK_N)
    program = tl.program_id(0)
    group = program // (GROUP * tiles_n)
    group_rows = min(tiles_m - group * GROUP, GROUP)
    m = group * GROUP + program % (GROUP * tiles_n) % group_rows
    n = program % (GROUP * tiles_n) // group_rows
    # 2. where is my data
    rows = m.to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)  # [BLOCK_M]
    columns = n.to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)  # [BLOCK_N]
    inner = tl.arange(0, BLOCK_K).to(tl.int64)  # [BLOCK_K]
    a_ptrs = a_ptr + rows[:, None] * a_strides[0] + inner[None, :] * a_strides[1]  # [BLOCK_M, BLOCK_K]
    b_ptrs = b_ptr + inner[:, None] * b_strides[0] + columns[None, :] * b_strides[1]  # [BLOCK_K, BLOCK_N]
    # 3. initialise
    acc = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
    # 4. loop
    for start in range(0, K, BLOCK_K):
        a = tl.load(a_ptrs, mask=(rows[:, None] < M) & (inner[None, :] < K - start), other=0.0)
        b = tl.load(b_ptrs, mask=(inner[:, None] < K - start) & (columns[None, :] < N), other=0.0)
        acc = tl.dot(a, b, acc, input_precision="ieee")  # "ieee": float32 inputs are not rounded to tf32
        a_ptrs += tl.cast(BLOCK_K, tl.int64) * a_strides[1]
        b_ptrs += tl.cast(BLOCK_K, tl.int64) * b_strides[0]
    # 5. write
    c_ptrs = c_ptr + rows[:, None] * N + columns[None, :]
    tl.store(c_ptrs, acc.to(c_ptr.dtype.element_ty), mask=(rows[:, None] < M) & (columns[None, :] < N))


def matmul(a: torch.Tensor, b: torch.Tensor, config: dict | None = None) -> torch.Tensor:
    """a @ b with float32 sums.

    a        [M, K] float16, bfloat16 or float32, any strides
    b        [K, N], same dtype, any strides
    returns  [M, N], same dtype, contiguous
    """
    require_floats("matmul", a=a, b=b)
    require(a.dim() == b.dim() == 2 and a.shape[1] == b.shape[0], "matmul", "a must be [M, K] and b [K, N]", a=a, b=b)
    (M, K), N = a.shape, b.shape[1]
    c = torch.empty((M, N), dtype=a.dtype, device=a.device)
    if c.numel():
        config = config or choose(CONFIGS, a.device, a.element_size())
        grid = (triton.cdiv(M, config["BLOCK_M"]) * triton.cdiv(N, config["BLOCK_N"]),)
        matmul_kernel[grid](a, b, c, a.stride(), b.stride(), M, N, K, **config)
    return c
