"""One matrix product, [M, 4096] @ [4096, 4096], over M: time, rate, and the share of what the data sheet's roofline allows.

Run: python benchmarks/ch01_same_matmul.py [FOLDER]   (a CUDA GPU of the data sheets, bf16; fp16 on a T4)
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch  # noqa: E402

from course_lib import bench, recorded, roofline  # noqa: E402

SIDE = 4096


def microseconds(m: int, weights: list[torch.Tensor], dtype: torch.dtype) -> float:
    """Median time of one product. The weights rotate, so that the L2 cache never holds the next ones; launches are queued."""
    x, out = torch.randn(m, SIDE, device="cuda").to(dtype), torch.empty(m, SIDE, device="cuda", dtype=dtype)
    graph = torch.cuda.CUDAGraph()  # one launch for all of them: below 30 us the launches would be measured
    torch.mm(x, weights[0], out=out)
    torch.cuda.synchronize()
    with torch.cuda.graph(graph):
        for w in weights:
            torch.mm(x, w, out=out)
    return bench.time_call(graph.replay, 15, 3, "cuda").median / len(weights) * 1e6


def main() -> None:
    machine = roofline.machine(torch.cuda.get_device_name())
    name = "bf16" if "bf16" in machine.rates else "fp16"
    dtype = torch.bfloat16 if name == "bf16" else torch.float16
    weights = [torch.randn(SIDE, SIDE, device="cuda").to(dtype) for _ in range(16)]  # 512 MiB in all
    rows = []
    for m in (1, 4, 16, 64, 128, 256, 512, 1024, 4096, 8192):
        work, us = roofline.matmul_work(m, SIDE, SIDE, 2), microseconds(m, weights, dtype)
        rows.append(
            {
                "M": m,
                "FLOPs per byte": work.intensity,
                "time (us)": us,
                "TFLOP/s": work.flops / us / 1e6,
                "TB/s": work.bytes / us / 1e6,
                "waits for": roofline.bound(work, machine, name),
                "share of the roofline (%)": 100 * roofline.seconds(work, machine, name) * 1e6 / us,
            }
        )
        print(rows[-1], flush=True)
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else recorded.RESULTS
    print(recorded.write("ch01_same_matmul", f"[M, {SIDE:,}] @ [{SIDE:,}, {SIDE:,}] in {name}, against the data sheet's roofline", rows, folder))


if __name__ == "__main__":
    main()
