"""The levels of a GPU's memory by growing working sets: bandwidth of all multiprocessors, latency of one dependent load.

Latency is a pointer chase: each load's address is what the load before it brought, along one random cycle, one stop in every
128 bytes. The chase goes on where it stopped, so that a large set is never met twice in a cache.

Run: python benchmarks/ch01_levels.py [FOLDER]   (a CUDA GPU)
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch  # noqa: E402
import triton  # noqa: E402
import triton.language as tl  # noqa: E402

from course_lib import bench, ceilings, recorded  # noqa: E402
from course_lib.figures.core import size as words  # noqa: E402

LINE = 32  # int32 elements in 128 bytes
STEPS = 20_000


@triton.jit
def chase_kernel(next_ptr, at_ptr, steps):
    at = tl.load(at_ptr)
    for _ in range(steps):
        at = tl.load(next_ptr + at)
    tl.store(at_ptr, at)


def latency(size: int) -> float:
    """Seconds of one load that waits for the one before it, in a working set of that many bytes."""
    stops = size // (LINE * 4)
    order = torch.randperm(stops, device="cuda") * LINE
    following = torch.zeros(stops * LINE, dtype=torch.int32, device="cuda")
    following[order] = order.roll(-1).int()
    at = torch.zeros(1, dtype=torch.int32, device="cuda")

    def once(steps: int) -> float:
        return bench.time_call(lambda: chase_kernel[(1,)](following, at, steps, num_warps=1), 7, 2, "cuda").median

    return (once(2 * STEPS) - once(STEPS)) / STEPS  # the launch cancels


def link() -> float:
    """Bytes/s from the host's pinned memory to the GPU."""
    host = torch.empty(2**28, dtype=torch.uint8).pin_memory()
    there = torch.empty_like(host, device="cuda")
    return host.nbytes / bench.time_call(lambda: there.copy_(host, non_blocking=True), 9, 2, "cuda").median


def main() -> None:
    rows = []
    for size, bandwidth in ceilings.cache_steps("cuda"):
        rows.append({"working set": words(size), "all SMs read (TB/s)": bandwidth / 1e12, "one load waits (ns)": latency(size) * 1e9})
        print(rows[-1], flush=True)
    rows.append({"working set": "the host's memory", "all SMs read (TB/s)": link() / 1e12, "one load waits (ns)": "-"})
    print(rows[-1], flush=True)
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else recorded.RESULTS
    print(recorded.write("ch01_levels", "Growing working sets: how fast they arrive, and how long one load waits", rows, folder))


if __name__ == "__main__":
    main()
