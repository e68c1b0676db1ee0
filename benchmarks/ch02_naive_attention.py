"""Naive attention, step by step: peak memory, time, and how close each step comes to the copy bandwidth. 16 heads, D = 128.

Run: python benchmarks/ch02_naive_attention.py [FOLDER]   (a CUDA GPU, in bf16; or the CPU, in float32, for the shorter lengths)
"""

import os
import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
os.environ["COURSE_EARLIER"] = "solution"  # measure the course's own function, not a learner's

import torch  # noqa: E402

from course_lib import bench, ceilings, recorded  # noqa: E402
from course_lib.earlier import attention, naive_attention_bytes  # noqa: E402

HEADS, D = 16, 128


def main() -> None:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    lengths = (1024, 2048, 4096, 8192, 16384, 32768) if device == "cuda" else (512, 1024)
    copy = ceilings.measured(device).bandwidth
    rows = []
    for n in lengths:
        rows.append(measured(n, device, dtype, copy))
        print(rows[-1], flush=True)
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else recorded.RESULTS
    title = f"Naive attention by its steps, {HEADS} heads, D = {D}, {str(dtype).removeprefix('torch.')}; shares are of the copy bandwidth, {copy / 1e12:.3g} TB/s"
    print(recorded.write("ch02_naive_attention", title, rows, folder))


def measured(n: int, device: str, dtype: torch.dtype, copy: float) -> dict:
    """One row: peak memory of the whole call, the three steps into buffers that exist, the whole call, and SDPA."""
    q, k, v = torch.randn(3, 1, HEADS, n, D, device=device, dtype=dtype)
    whole = partial(attention, q, k, v)
    peak = bench.peak_bytes(whole, device)
    s, p, o = (torch.empty(1, HEADS, n, wide, device=device, dtype=dtype) for wide in (n, n, D))
    steps = {
        "S = Q K^T": partial(torch.matmul, q, k.mT, out=s),
        "softmax": partial(torch.softmax, s, -1, out=p),
        "O = P V": partial(torch.matmul, p, v, out=o),
    }
    row: dict = {"N": n, "peak (MiB)": peak / 2**20}
    for (name, step), moved in zip(steps.items(), naive_attention_bytes(n, n, D, HEADS, q.element_size()), strict=True):
        seconds = bench.time_call(step, repeats=9, warm_up=2, device=device).median
        row[f"{name} (ms)"] = seconds * 1e3
        row[f"{name} (% of copy)"] = 100 * moved / seconds / copy
    del s, p, o, steps, step
    row["whole call (ms)"] = bench.time_call(whole, repeats=9, warm_up=2, device=device).median * 1e3
    fused = partial(torch.nn.functional.scaled_dot_product_attention, q, k, v)
    row["SDPA peak (MiB)"] = bench.peak_bytes(fused, device) / 2**20
    row["SDPA (ms)"] = bench.time_call(fused, repeats=9, warm_up=2, device=device).median * 1e3
    return row


if __name__ == "__main__":
    main()
