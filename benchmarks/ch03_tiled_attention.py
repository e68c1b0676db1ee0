"""Naive against tiled attention, both in plain torch: peak memory and time over N. One head, D = 64, float32.

Run: python benchmarks/ch03_tiled_attention.py [FOLDER]   (a CUDA GPU, or the CPU for the shorter lengths)
"""

import os
import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
os.environ["COURSE_EARLIER"] = "solution"  # measure the course's own function, not a learner's

import torch  # noqa: E402

from course_lib import bench, oracles, recorded  # noqa: E402
from course_lib.earlier import tiled_attention  # noqa: E402


def main() -> None:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    lengths = (1024, 2048, 4096, 8192, 16384, 32768) if device == "cuda" else (512, 1024, 2048, 4096)
    ways = {
        "naive": oracles.attention,
        "tiled": tiled_attention,
        "SDPA": torch.nn.functional.scaled_dot_product_attention,
    }
    rows = []
    for n in lengths:
        q, k, v = torch.randn(3, 1, 1, n, 64, device=device)
        row: dict = {"N": n}
        for name, way in ways.items():
            call = partial(way, q, k, v)
            row[f"{name} peak (MiB)"] = bench.peak_bytes(call, device) / 2**20
            row[f"{name} (ms)"] = bench.time_call(call, repeats=9, warm_up=2, device=device).median * 1e3
        rows.append(row)
        print(row, flush=True)
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else recorded.RESULTS
    print(recorded.write("ch03_tiled_attention", "Naive and tiled attention in plain torch: one head, D = 64, float32", rows, folder))


if __name__ == "__main__":
    main()
