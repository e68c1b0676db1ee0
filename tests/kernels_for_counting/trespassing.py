"""Kernels that leave their tensors, each in its own way, and kernels that come close and do not. One JSON object: {case: what was said}.

Run in a process where kernels are interpreted: TRITON_INTERPRET=1 python tests/kernels_for_counting/trespassing.py
"""

import json
import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parents[2])]

import counted_kernels as k  # noqa: E402
import torch  # noqa: E402
import triton  # noqa: E402
import triton.language as tl  # noqa: E402

from course_lib import traffic  # noqa: E402


@triton.jit
def load_kernel(x_ptr, out_ptr, n, first, BLOCK: tl.constexpr):
    lanes = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(out_ptr + tl.arange(0, BLOCK), tl.load(x_ptr + first + lanes, mask=lanes < n))


@triton.jit
def store_kernel(out_ptr, n, first, BLOCK: tl.constexpr):
    lanes = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(out_ptr + first + lanes, 1.0, mask=lanes < n)


@triton.jit
def add_kernel(out_ptr, n, BLOCK: tl.constexpr):
    lanes = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.atomic_add(out_ptr + lanes, 1, mask=lanes < n)


@triton.jit
def swap_kernel(flag_ptr, place):
    tl.atomic_cas(flag_ptr + place, 0, 1)


@triton.jit
def rows_kernel(x_ptr, out_ptr, columns, stride_row, stride_column, BLOCK: tl.constexpr):
    row, lanes = tl.program_id(0), tl.arange(0, BLOCK)
    x = tl.load(x_ptr + row * stride_row + lanes * stride_column, mask=lanes < columns, other=0.0)
    tl.store(out_ptr + row, tl.sum(x, 0))


@triton.jit
def bytes_kernel(x_ptr, out_ptr, n, BLOCK: tl.constexpr):
    lanes = tl.arange(0, BLOCK)
    tl.store(out_ptr + lanes, tl.load(x_ptr.to(tl.pointer_type(tl.int8)) + lanes, mask=lanes < n, other=0))


@triton.jit
def wide_kernel(x_ptr, out_ptr, n, BLOCK: tl.constexpr):
    lanes = tl.arange(0, BLOCK)
    tl.store(out_ptr + lanes, tl.load(x_ptr.to(tl.pointer_type(tl.int64)) + lanes, mask=lanes < n, other=0), mask=lanes < n)


@triton.jit
def tuple_kernel(tensors, n, BLOCK: tl.constexpr):
    lanes = tl.arange(0, BLOCK)
    tl.store(tensors[1] + lanes, tl.load(tensors[0] + lanes, mask=lanes < n), mask=lanes < n)


def rows(x, columns=None):
    rows_kernel[(x.shape[0],)](x, torch.empty(x.shape[0]), columns or x.shape[1], *x.stride(), BLOCK=128)


def trespassing():
    x, out = torch.zeros(50), torch.zeros(16)
    yield "load past the end", lambda: load_kernel[(4,)](x, out, 53, 0, BLOCK=16)
    yield "load before the start", lambda: load_kernel[(1,)](x, out, 16, -3, BLOCK=16)
    yield "load far away", lambda: load_kernel[(1,)](x, out, 16, 10**9, BLOCK=16)
    yield "store past the end", lambda: store_kernel[(4,)](torch.zeros(50), 51, 0, BLOCK=16)
    yield "store before the start", lambda: store_kernel[(1,)](torch.zeros(50), 1, -1, BLOCK=16)
    yield "atomic past the end", lambda: add_kernel[(2,)](torch.zeros(20, dtype=torch.int32), 32, BLOCK=16)
    yield "swap before the start", lambda: swap_kernel[(1,)](torch.zeros(4, dtype=torch.int32), -2)
    yield "descriptor too long", lambda: k.described_inside(torch.zeros(33, 32), 16, 32, rows=40)
    yield "row past the end", lambda: rows_kernel[(4,)](torch.zeros(3, 70), torch.zeros(4), 70, 70, 1, BLOCK=128)
    yield "last row too wide", lambda: rows(torch.zeros(3, 70), 72)
    yield "transposed, past the end", lambda: rows(torch.zeros(6, 5).t(), 7)
    yield "three dimensions", lambda: load_kernel[(4,)](torch.zeros(2, 3, 8), out, 49, 0, BLOCK=16)
    yield "gap beside a slice", lambda: rows(torch.zeros(3, 128)[:, :70], 72)
    yield "gap between every other column", lambda: load_kernel[(1,)](torch.zeros(64)[::2], out, 16, 0, BLOCK=16)
    yield "gap in a transposed slice", lambda: rows_kernel[(3,)](torch.zeros(128, 5)[:70, ::2].t(), out, 70, 1, 5, BLOCK=128)
    yield "behind a slice", lambda: rows_kernel[(4,)](torch.zeros(4, 128)[:3, :70], torch.zeros(4), 70, 128, 1, BLOCK=128)
    yield "before a slice that starts later", lambda: load_kernel[(1,)](torch.zeros(64)[32:], out, 16, -8, BLOCK=16)
    yield "empty tensor", lambda: load_kernel[(1,)](torch.zeros(0), out, 1, 0, BLOCK=16)
    yield "wide load over the end", lambda: wide_kernel[(1,)](torch.zeros(7), torch.zeros(16, dtype=torch.int64), 4, BLOCK=16)
    yield "in a tuple", lambda: tuple_kernel[(1,)]((torch.zeros(10), torch.zeros(16)), 16, BLOCK=16)
    yield "bf16", lambda: load_kernel[(1,)](torch.zeros(16, dtype=torch.bfloat16), out, 16, 0, BLOCK=16)


def allowed():
    out = torch.zeros(16)
    yield "all of it", lambda: load_kernel[(1,)](torch.zeros(16), out, 16, 0, BLOCK=16)
    yield "a slice", lambda: rows(torch.zeros(3, 128)[:, 5:75])
    yield "a transposed slice", lambda: rows(torch.zeros(128, 5)[:70, ::2].t())
    yield "expanded rows", lambda: rows(torch.zeros(1, 70).expand(6, 70))
    yield "one number expanded", lambda: rows(torch.zeros(1).expand(6, 70))
    yield "overlapping windows", lambda: rows(torch.zeros(40).unfold(0, 8, 3))
    yield "a scalar tensor", lambda: load_kernel[(1,)](torch.tensor(1.0), out, 1, 0, BLOCK=16)
    yield "an empty tensor, nothing loaded", lambda: load_kernel[(1,)](torch.zeros(0, 5), out, 0, 0, BLOCK=16)
    yield "bytes of floats", lambda: bytes_kernel[(1,)](torch.zeros(4), torch.zeros(16, dtype=torch.int8), 16, BLOCK=16)
    yield "two floats at once", lambda: wide_kernel[(1,)](torch.zeros(8), torch.zeros(16, dtype=torch.int64), 4, BLOCK=16)
    yield "masked lanes may point anywhere", lambda: load_kernel[(4,)](torch.zeros(50), out, 50, 0, BLOCK=16)
    yield "in a tuple", lambda: tuple_kernel[(1,)]((torch.zeros(10), torch.zeros(16)), 10, BLOCK=16)


def said(call) -> str:
    try:
        with traffic.counted():
            call()
    except Exception as error:
        while error.__cause__ is not None:
            error = error.__cause__
        return f"{type(error).__name__}: {error}"
    return ""


if __name__ == "__main__":
    print(json.dumps({"trespassing": {name: said(call) for name, call in trespassing()}, "allowed": {name: said(call) for name, call in allowed()}}))
