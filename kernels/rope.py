"""RoPE in one pass: every pair of features is turned by its position's angle, read once and written once.

Notebook   08 The KV cache
Reference  x * cos + cat(-x2, x1) * sin, where x1 and x2 are the two halves of a head
Paper      Su et al. 2021 (RoFormer), section 3.4.2; pairs are (i, i + D/2), as Llama's checkpoints and GPT-NeoX have it
Shapes     x, out [B, H, N, D], any strides; cos, sin [N, D] or [B, 1, N, D]
Grid       (ceil(N / ROWS), ceil(H / HEADS), B)

    cos, sin = the angles of ROWS positions      once for HEADS heads: the angles are the same for all of them
    x1, x2 = the halves of x[b, heads, rows]
    out1 = x1 * cos1 - x2 * sin1;  out2 = x2 * cos2 + x1 * sin2          in float32
"""

import torch
import triton
import triton.language as tl

from kernels.launching import require, require_floats

TARGETS = (75, 80, 86, 89, 90, 100, 120)


def config_for(N: int, H: int, D: int) -> dict:
    """8 pairs for each of 128 threads: two heads of 8 positions where half a head is 64 features (swept on an H200), more heads where positions are few."""
    HALF = max(8, triton.next_power_of_2(D // 2))
    ROWS = min(max(1, 512 // HALF), triton.next_power_of_2(N))
    return {"HEADS": min(triton.next_power_of_2(H), max(1, 1024 // (HALF * ROWS))), "ROWS": ROWS, "HALF": HALF, "num_warps": 4}


@triton.jit(do_not_specialize=["N"])  # a step of 1 or 16 tokens needs no other code
def rope_kernel(
    x_ptr, cos_ptr, sin_ptr, out_ptr, x_strides, cos_strides, sin_strides, out_strides, H, N,
    D: tl.constexpr, HEADS: tl.constexpr, ROWS: tl.constexpr, HALF: tl.constexpr,
):  # fmt: skip
    # 1. who am I
    b = tl.program_id(2).to(tl.int64)
    heads = (tl.program_id(1) * HEADS + tl.arange(0, HEADS)).to(tl.int64)[:, None, None]
    rows = (tl.program_id(0) * ROWS + tl.arange(0, ROWS)).to(tl.int64)  # [ROWS]
    # 2. where is my data
    columns = tl.arange(0, HALF).to(tl.int64)  # [HALF], of the first half
    half = tl.cast(D // 2, tl.int64)
    known = (rows < N)[:, None] & (columns < D // 2)[None, :]  # [ROWS, HALF]
    inside = (heads < H) & known[None, :, :]  # [HEADS, ROWS, HALF]
    x_ptrs = x_ptr + b * x_strides[0] + heads * x_strides[1] + (rows[:, None] * x_strides[2] + columns[None, :] * x_strides[3])[None, :, :]
    out_ptrs = (
        out_ptr + b * out_strides[0] + heads * out_strides[1] + (rows[:, None] * out_strides[2] + columns[None, :] * out_strides[3])[None, :, :]
    )
    cos_ptrs = cos_ptr + b * cos_strides[0] + rows[:, None] * cos_strides[1] + columns[None, :] * cos_strides[2]
    sin_ptrs = sin_ptr + b * sin_strides[0] + rows[:, None] * sin_strides[1] + columns[None, :] * sin_strides[2]
    # 3. load
    x1 = tl.load(x_ptrs, mask=inside, other=0.0).to(tl.float32)  # [HEADS, ROWS, HALF]
    x2 = tl.load(x_ptrs + half * x_strides[3], mask=inside, other=0.0).to(tl.float32)
    cos1 = tl.load(cos_ptrs, mask=known, other=0.0).to(tl.float32)[None, :, :]  # [1, ROWS, HALF]
    cos2 = tl.load(cos_ptrs + half * cos_strides[2], mask=known, other=0.0).to(tl.float32)[None, :, :]
    sin1 = tl.load(sin_ptrs, mask=known, other=0.0).to(tl.float32)[None, :, :]
    sin2 = tl.load(sin_ptrs + half * sin_strides[2], mask=known, other=0.0).to(tl.float32)[None, :, :]
    # 4. compute and write
    tl.store(out_ptrs, (x1 * cos1 - x2 * sin1).to(out_ptr.dtype.element_ty), mask=inside)
    tl.store(out_ptrs + half * out_strides[3], (x2 * cos2 + x1 * sin2).to(out_ptr.dtype.element_ty), mask=inside)


def apply_rope(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, config: dict | None = None) -> torch.Tensor:
    """Turns every pair (x[..., i], x[..., i + D/2]) by the angle of its position.

    x        [B, H, N, D] float16, bfloat16 or float32, D even, at most 512, any strides
    cos, sin [N, D], or [B, 1, N, D] where each sequence has its own positions; of x's dtype or float32, any strides
    returns  [B, H, N, D], dtype and layout of memory as x
    """
    require_floats("apply_rope", x=x)
    require(x.dim() == 4 and x.shape[3] % 2 == 0 and 0 < x.shape[3] <= 512, "apply_rope", "x must be [B, H, N, D], D even, 2 to 512", x=x)
    B, H, N, D = x.shape
    fits = cos.shape == sin.shape and cos.shape in ((N, D), (B, 1, N, D))
    require(fits, "apply_rope", "cos and sin must be [N, D] or [B, 1, N, D]", x=x, cos=cos, sin=sin)
    floats = cos.dtype == sin.dtype and cos.dtype in (x.dtype, torch.float32) and cos.device == sin.device == x.device
    require(floats, "apply_rope", "cos and sin must be float32 or x's dtype, on x's device", x=x, cos=cos, sin=sin)
    out = torch.empty_like(x)
    if out.numel():
        config = config or config_for(N, H, D)
        cos, sin = (y.expand(B, N, D) if y.dim() == 2 else y[:, 0] for y in (cos, sin))
        rope_kernel[(triton.cdiv(N, config["ROWS"]), triton.cdiv(H, config["HEADS"]), B)](
            x, cos, sin, out, x.stride(), cos.stride(), sin.stride(), out.stride(), H, N, D=D, **config
        )  # fmt: skip
    return out
