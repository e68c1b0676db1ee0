"""Adds two vectors: the smallest whole kernel. Each program owns BLOCK neighbouring elements.

Notebook   04 Triton from zero
Reference  x + y
Shapes     x, y, out [N], any strides
Grid       (ceil(N / BLOCK),)

    mine = program * BLOCK + 0 .. BLOCK-1        the last program's tail lies past the end: masked
    out[mine] = x[mine] + y[mine]                2 reads and 1 write an element: bound by memory
"""

import torch
import triton
import triton.language as tl

from kernels.launching import require, require_floats

DEFAULT_CONFIG = {"BLOCK": 4096, "num_warps": 8}
TARGETS = (75, 80, 86, 89, 90, 100, 120)


@triton.jit
def vector_add_kernel(x_ptr, y_ptr, out_ptr, x_stride, y_stride, N, BLOCK: tl.constexpr):
    # 1. who am I
    program = tl.program_id(0).to(tl.int64)  # int64: N * stride may pass 2**31
    # 2. where is my data
    mine = program * BLOCK + tl.arange(0, BLOCK)  # [BLOCK]
    inside = mine < N
    # 3. load
    x = tl.load(x_ptr + mine * x_stride, mask=inside)
    y = tl.load(y_ptr + mine * y_stride, mask=inside)
    # 4. compute, 5. write
    tl.store(out_ptr + mine, x + y, mask=inside)


def vector_add(x: torch.Tensor, y: torch.Tensor, config: dict = DEFAULT_CONFIG) -> torch.Tensor:
    """x + y by one kernel.

    x, y     [N] float16, bfloat16 or float32, any stride
    returns  [N], same dtype, contiguous
    """
    require_floats("vector_add", x=x, y=y)
    require(x.dim() == 1 and x.shape == y.shape, "vector_add", "x and y must be vectors of one length", x=x, y=y)
    out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    N = x.numel()
    if N:
        vector_add_kernel[(triton.cdiv(N, config["BLOCK"]),)](x, y, out, x.stride(0), y.stride(0), N, **config)
    return out
