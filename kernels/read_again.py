"""Reads a buffer again and again: how fast it arrives depends only on which memory can hold it.

Notebook   01 The memory hierarchy (cache steps)
Reference  sums of x, tile by tile
Shapes     x [n_tiles * TILE] float32; out [programs] float32
Grid       (programs,): a few per multiprocessor, so that every one of them keeps loads in flight

    for step in range(steps):                      each program, all at once
        tile = (program + step * stride) % n_tiles   stride is odd and n_tiles a power of two: every tile comes up
        acc += x[tile]
    out[program] = sum(acc)                        stored, so that no compiler can drop the loads
"""

import torch
import triton
import triton.language as tl

DEFAULT_CONFIG = {"TILE": 4096, "num_warps": 8}


@triton.jit
def read_again_kernel(x_ptr, out_ptr, n_tiles, steps, stride, TILE: tl.constexpr):
    # 1. who am I
    program = tl.program_id(0)
    # 2. where is my data
    lanes = tl.arange(0, TILE)
    # 3. initialise
    acc = tl.zeros([TILE], tl.float32)
    # 4. loop
    for step in range(steps):
        tile = (program + step * stride) % n_tiles
        acc += tl.load(x_ptr + tile * TILE + lanes)
    # 5. write
    tl.store(out_ptr + program, tl.sum(acc))


def read_again(x: torch.Tensor, steps: int, programs: int, config: dict = DEFAULT_CONFIG) -> torch.Tensor:
    """Sum `steps` tiles of x in each of `programs` programs, going round x as often as that takes.

    x        [n] float32, contiguous; n is TILE times a power of two
    returns  [programs] float32; requests 4 * TILE * steps * programs bytes
    """
    tiles, rest = divmod(x.numel(), config["TILE"])
    if x.dtype != torch.float32 or not x.is_contiguous() or rest or tiles & (tiles - 1) or not tiles:
        raise ValueError(
            f"read_again: x must be contiguous float32 of {config['TILE']} times a power of two elements; it is {list(x.shape)} {x.dtype}"
        )
    out = torch.empty(programs, device=x.device)
    stride = (programs | 1) % tiles or 1  # one tile alone has stride 1; the kernel's product stays far below 2**31
    read_again_kernel[(programs,)](x, out, tiles, steps, stride, **config)
    return out
