"""What it is worth that Triton knows which lengths are multiples of 16: flash_backward_dkdv's kernel beside the one that is not told (its `length_one`).

python benchmarks/dkdv_lengths.py [FOLDER]
"""

import sys
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from triton.testing import do_bench_cudagraph

from course_lib import recorded
from kernels import flash_backward_dkdv as file

HEADS = 16


def measured(D: int, kv_heads: int, causal: bool, N: int) -> dict:
    """Microseconds of both kernels, in turns, the fastest of three."""
    B = max(1, 16384 // N)
    q, k, v, dout = (torch.randn(B, h, N, D, device="cuda", dtype=torch.bfloat16) for h in (HEADS, kv_heads, kv_heads, HEADS))
    rows, took = torch.randn(B, HEADS, N, device="cuda"), {"told": [], "not told": []}
    for _ in range(3):
        for name, kernel in (("told", file.flash_backward_dkdv_kernel), ("not told", file.length_one)):
            with mock.patch.object(file, "flash_backward_dkdv_kernel", kernel):
                took[name].append(1e3 * do_bench_cudagraph(lambda: file.flash_backward_dkdv(q, k, v, dout, rows, rows, causal=causal), rep=15))
    told, untold = (min(times) for times in took.values())
    return {"D": D, "K/V heads": kv_heads, "causal": causal, "N": N, "told (us)": told, "not told (us)": untold, "not told / told": untold / told}


def main() -> None:
    rows = [measured(D, heads, causal, N) for D, heads in ((128, 16), (128, 4), (64, 16)) for causal in (False, True) for N in (4096, 16384)]
    for row in rows:
        print(row)
    title = f"flash_backward_dkdv, bf16, {HEADS} heads, 16K tokens: told that N is a multiple of 16, and not told"
    print(recorded.write("dkdv_lengths", title, rows, Path(sys.argv[1]) if sys.argv[1:] else recorded.RESULTS))


if __name__ == "__main__":
    main()
