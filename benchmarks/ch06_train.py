"""A tiny transformer trained through the chapter's kernels, and the peak memory of a training step: plain, checkpointed, flash.

Run: python benchmarks/ch06_train.py [FOLDER]   (a CUDA GPU; or the CPU, for fewer steps and shorter lengths)
Writes ch06_train.json (losses, the same weights and batches for every column) and ch06_memory.json.
"""

import os
import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
os.environ["COURSE_EARLIER"] = "solution"  # measure the course's own function, not a learner's

import torch  # noqa: E402

from course_lib import bench, hardware, recorded, tiny_transformer  # noqa: E402

hardware.tier()  # before the kernels import triton: without a GPU they are interpreted

from torch.utils.checkpoint import checkpoint  # noqa: E402

from course_lib.earlier import FlashAttention  # noqa: E402
from kernels.flash_attention import flash_attention  # noqa: E402

HEADS, D, LAYERS = 16, 128, 4


def mine(q, k, v):
    """The chapter's own autograd function, causal."""
    return FlashAttention.apply(q, k, v, None, True)


flash = partial(flash_attention, causal=True)


def losses(device: str) -> list[dict]:
    """Rows of losses. Small model, float32: plain attention beside the exercises' kernels. Larger, bf16 under autocast: plain beside the tuned ones."""
    on_gpu = device == "cuda"
    steps = 300 if on_gpu else 20
    small = {"steps": steps, "device": device, "rate": 5e-3}
    large = {**small, "dtype": torch.bfloat16, "rate": 1e-3, "width": 512, "heads": 8, "layers": 4, "length": 512, "vocabulary": 64, "size": 16}
    columns = {
        "plain, float32": tiny_transformer.train(tiny_transformer.plain_attention, **small),
        "exercises, float32": tiny_transformer.train(mine, **small),
    }
    if on_gpu:
        columns |= {
            "larger, plain, bf16": tiny_transformer.train(tiny_transformer.plain_attention, **large),
            "larger, flash_attention, bf16": tiny_transformer.train(flash, **large),
        }
    shown = sorted({1, *range(steps // 12, steps + 1, steps // 12), steps})
    return [{"step": i, **{name: round(line[i - 1], 5) for name, line in columns.items()}} for i in shown]


def stack(attention, x: torch.Tensor, checkpointed: bool) -> None:
    """Forward and backward through some layers of attention and nothing else."""
    y = x
    for _ in range(LAYERS):
        y = y + (checkpoint(attention, y, y, y, use_reentrant=False) if checkpointed else attention(y, y, y))
    y.sum().backward()


def memory(device: str) -> list[dict]:
    """Peak memory and time of a step for growing N; a way that does not fit the device's memory is left out from there on."""
    on_gpu = device == "cuda"
    lengths = (1024, 2048, 4096, 8192, 16384, 32768) if on_gpu else (128, 256)
    heads, dtype = (HEADS, torch.bfloat16) if on_gpu else (1, torch.float32)
    ways = {"naive": (tiny_transformer.plain_attention, False), "checkpointed": (tiny_transformer.plain_attention, True), "flash": (flash, False)}
    rows, gone = [], set()
    for n in lengths:
        row: dict = {"N": n}
        for name, (attention, checkpointed) in ways.items():
            peak = took = "-"
            if name not in gone:
                try:
                    x = torch.randn(1, heads, n, D, device=device, dtype=dtype, requires_grad=True)
                    step = partial(stack, attention, x, checkpointed)
                    step()  # compiles, and makes x.grad, which is no part of the peak
                    peak = bench.peak_bytes(step, device) / 2**20
                    took = bench.time_call(step, repeats=5, warm_up=1, device=device).median * 1e3
                except torch.OutOfMemoryError:
                    gone.add(name)
                finally:
                    x = step = None
                    if on_gpu:
                        torch.cuda.empty_cache()
            row |= {f"{name} (MiB)": peak, f"{name} (ms)": took}
        rows.append(row)
        print(row, flush=True)
    return rows


def main() -> None:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else recorded.RESULTS
    rows = losses(device)
    print(*rows, sep="\n", flush=True)
    title = "Loss of a tiny transformer that learns to repeat what was said 3 tokens ago, in nats a token; same weights and batches in each pair"
    print(recorded.write("ch06_train", title, rows, folder))
    size = f"{LAYERS} layers of causal attention and nothing else, {HEADS if device == 'cuda' else 1} heads, D = {D}"
    print(
        recorded.write("ch06_memory", f"Peak memory and time of a training step, {size}", memory(device), folder, "python benchmarks/ch06_train.py")
    )


if __name__ == "__main__":
    main()
