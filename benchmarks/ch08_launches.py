"""Chapter 08: how many kernels one decoding step of ch08_decode's model starts, and how long they keep the GPU busy. Needs about 40 GB.

python benchmarks/ch08_launches.py [FOLDER]
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.ch08_decode import TOKENS, measured, random_llama
from course_lib import recorded
from course_lib.llm import KVCache


@torch.inference_mode()
def step(model, batch: int) -> dict:
    """A row: the step's time by the clock, and what the profiler saw of one such step on the GPU."""
    by_the_clock = measured(model, batch)
    cache = KVCache(model.config, batch, TOKENS + 1, "cuda", torch.bfloat16)
    cache.rewind(TOKENS)
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as seen:
        model(torch.zeros(batch, 1, dtype=torch.int64, device="cuda"), cache=cache, last=True)
        torch.cuda.synchronize()
    kernels = [event for event in seen.key_averages() if event.self_device_time_total > 0]
    busy = sum(event.self_device_time_total for event in kernels) / 1e3
    return {"sequences": batch, "kernels a step": sum(event.count for event in kernels), "GPU busy (ms)": busy, "step (ms)": 1e3 * by_the_clock}


def main() -> None:
    model = random_llama(32)
    rows = [step(model, batch) for batch in (1, 64)]
    title = f"Llama-3-8B's shape, bf16, plain torch: what one decoding step behind {TOKENS:,} tokens starts on the GPU"
    print(*rows, recorded.write("ch08_launches", title, rows, Path(sys.argv[1]) if sys.argv[1:] else recorded.RESULTS), sep="\n")


if __name__ == "__main__":
    main()
