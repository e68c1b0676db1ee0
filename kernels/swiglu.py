"""SwiGLU's elementwise part in one pass: silu(gate) * up, each number read once, the product written once.

Notebook   04 Triton from zero
Reference  torch.nn.functional.silu(gate) * up
Paper      Shazeer 2020, section 2
Shapes     gate, up, out [M, N], any strides
Grid       (ceil(M * N / BLOCK),): BLOCK neighbours a program, across the ends of rows

    gate, up = GATE[mine], UP[mine]              torch's two operations would also write silu(gate) and read it again
    out[mine] = gate / (1 + exp(-gate)) * up     in float32
"""

import torch
import triton
import triton.language as tl

from kernels.launching import require, require_floats

DEFAULT_CONFIG = {"BLOCK": 4096, "num_warps": 8}
TARGETS = (75, 80, 86, 89, 90, 100, 120)


@triton.jit
def swiglu_kernel(gate_ptr, up_ptr, out_ptr, gate_strides, up_strides, total, N, BLOCK: tl.constexpr, DENSE: tl.constexpr):
    # 1. who am I
    program = tl.program_id(0).to(tl.int64)
    # 2. where is my data
    mine = program * BLOCK + tl.arange(0, BLOCK)  # [BLOCK]
    inside = mine < total
    gate_at, up_at = mine, mine
    if not DENSE:  # a division an element, only where the rows do not follow each other in memory
        row, column = mine // N, mine % N
        gate_at = row * gate_strides[0] + column * gate_strides[1]
        up_at = row * up_strides[0] + column * up_strides[1]
    # 3. load
    gate = tl.load(gate_ptr + gate_at, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(up_ptr + up_at, mask=inside, other=0.0).to(tl.float32)
    # 4. compute, 5. write
    tl.store(out_ptr + mine, (gate / (1.0 + tl.exp(-gate)) * up).to(out_ptr.dtype.element_ty), mask=inside)


def swiglu(gate: torch.Tensor, up: torch.Tensor, config: dict = DEFAULT_CONFIG) -> torch.Tensor:
    """silu(gate) * up.

    gate, up  [M, N] float16, bfloat16 or float32, any strides
    returns   [M, N], same dtype, contiguous
    """
    require_floats("swiglu", gate=gate, up=up)
    require(gate.dim() == 2 and gate.shape == up.shape, "swiglu", "gate and up must be [M, N], both the same", gate=gate, up=up)
    M, N = gate.shape
    out = torch.empty((M, N), dtype=gate.dtype, device=gate.device)
    dense = gate.is_contiguous() and up.is_contiguous()
    if out.numel():
        grid = (triton.cdiv(M * N, config["BLOCK"]),)
        swiglu_kernel[grid](gate, up, out, gate.stride(), up.stride(), M * N, N, DENSE=dense, **config)
    return out
