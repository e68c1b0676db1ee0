"""Chapter 09: one long request decoded with 1 to 128 splits: the tuned kernel's time beside the rule of choose_num_splits.

python benchmarks/ch09_splits.py [--context 131072]
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch

from course_lib import bench, recorded
from course_lib.widgets import split_counts
from kernels.decode_split import decode_split

HEADS, KV_HEADS, D = 32, 8, 128
SPLITS = (1, 2, 4, 8, 12, 15, 16, 17, 20, 24, 32, 33, 34, 48, 64, 128)


def measured(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, lengths: torch.Tensor, splits: int) -> float:
    """Seconds of one call out of many in a CUDA graph: launches cost nothing there, and the cache is larger than any L2."""
    calls, graph = 20, torch.cuda.CUDAGraph()
    decode_split(q, k, v, lengths, num_splits=splits)
    torch.cuda.synchronize()
    with torch.cuda.graph(graph):
        for _ in range(calls):
            decode_split(q, k, v, lengths, num_splits=splits)
    return bench.time_call(graph.replay, 15, 3, "cuda").median / calls


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--context", type=int, default=131_072)
    context = parser.parse_args().context
    q = torch.randn(1, HEADS, D, device="cuda", dtype=torch.bfloat16)
    k, v = (torch.randn(1, KV_HEADS, context, D, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    lengths = torch.full((1,), context, dtype=torch.int32, device="cuda")
    sms = torch.cuda.get_device_properties(0).multi_processor_count
    took = {splits: measured(q, k, v, lengths, splits) for splits in SPLITS}
    counted = {splits: split_counts.counts(1, KV_HEADS, context, sms, splits).time for splits in SPLITS}
    rows = [
        {
            "splits": splits,
            "programs": KV_HEADS * splits,
            "time (us)": 1e6 * took[splits],
            "K and V (GB/s)": 1e-9 * 2 * k.nbytes / took[splits],
            "times as fast as 1 split": took[1] / took[splits],
            "by the rule": counted[1] / counted[splits],
        }
        for splits in SPLITS
    ]
    for row in rows:
        print(row)
    title = f"One request of {context:,} keys, bf16, GQA {HEADS}/{KV_HEADS}, D = {D}: decode_split over the number of splits, {sms} multiprocessors"
    print(recorded.write("ch09_splits", title, rows))


if __name__ == "__main__":
    main()
