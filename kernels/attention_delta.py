"""What the backward pass needs of the output: delta, the sum of dout * out over each row.

Notebook   06 FlashAttention, backward
Reference  (dout * out).sum(-1)
Paper      Dao 2023 (FlashAttention-2), algorithm 2, line 4: D_i = rowsum(dO * O)
Shapes     out, dout [B, H, N_Q, D], any strides; delta [B, H, N_Q] float32
Grid       (tiles of rows * B * H,)

    softmax's gradient of row i:  ds = p * (dp - sum(p * dp))     dp = dout @ v.T
    sum(p * dp) = sum(p @ v * dout) = sum(out * dout)             known before any score is: one number a row
"""

import torch
import triton
import triton.language as tl

from kernels.launching import power_of_two, require, require_floats

DEFAULT_CONFIG = {"BLOCK_M": 64, "num_warps": 4}
TARGETS = (75, 80, 86, 89, 90, 100, 120)


@triton.jit
def attention_delta_kernel(
    out_ptr, dout_ptr, delta_ptr, out_strides, dout_strides, H, N_Q, D: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_M: tl.constexpr
):
    # 1. who am I
    tiles = tl.cdiv(N_Q, BLOCK_M)
    b = (tl.program_id(0) // tiles // H).to(tl.int64)  # int64: b * stride may pass 2**31
    h = (tl.program_id(0) // tiles % H).to(tl.int64)
    # 2. where is my data
    rows = tl.program_id(0) % tiles * BLOCK_M + tl.arange(0, BLOCK_M)  # [BLOCK_M]
    columns = tl.arange(0, BLOCK_D)[None, :]  # [1, BLOCK_D]
    mine = (rows < N_Q)[:, None] & (columns < D)
    out_ptrs = out_ptr + b * out_strides[0] + h * out_strides[1] + rows[:, None] * out_strides[2] + columns * out_strides[3]
    dout_ptrs = dout_ptr + b * dout_strides[0] + h * dout_strides[1] + rows[:, None] * dout_strides[2] + columns * dout_strides[3]
    # 3. and 4. nothing to initialise, no loop
    out = tl.load(out_ptrs, mask=mine, other=0.0).to(tl.float32)  # [BLOCK_M, BLOCK_D]
    dout = tl.load(dout_ptrs, mask=mine, other=0.0).to(tl.float32)
    # 5. write
    tl.store(delta_ptr + (b * H + h) * N_Q + rows, tl.sum(out * dout, 1), mask=rows < N_Q)


def attention_delta(out: torch.Tensor, dout: torch.Tensor, config: dict | None = None) -> torch.Tensor:
    """The sum of dout * out over the last dimension.

    out, dout  [B, H, N_Q, D] float16, bfloat16 or float32, one dtype, D at most 256, any strides
    returns    delta [B, H, N_Q] float32
    """
    require_floats("attention_delta", out=out, dout=dout)
    require(out.dim() == 4 and out.shape == dout.shape, "attention_delta", "out and dout must both be [B, H, N_Q, D]", out=out, dout=dout)
    B, H, N_Q, D = out.shape
    require(0 < D <= 256, "attention_delta", "the head size D must be 1 to 256", out=out)
    for name, x in {"out": out, "dout": dout}.items():  # the kernel counts offsets inside a head in 32 bits
        near = x.shape[2] * x.stride(2) + D * x.stride(3) < 2**31
        require(near, "attention_delta", f"a head of {name} spans 2^31 elements or more; pass {name}.contiguous()", **{name: x})
    delta = torch.empty((B, H, N_Q), dtype=torch.float32, device=out.device)
    if delta.numel():
        config = config or DEFAULT_CONFIG
        attention_delta_kernel[(triton.cdiv(N_Q, config["BLOCK_M"]) * B * H,)](
            out, dout, delta, out.stride(), dout.stride(), H, N_Q, D=D, BLOCK_D=power_of_two(D), **config
        )
    return delta
