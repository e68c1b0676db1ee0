"""The chapter's tiny transformer trained through the exercises' own kernels, unchanged, beside plain attention: same weights, same batches.

Run: python benchmarks/ch06_exercises.py [FOLDER]   (a CUDA GPU; or the CPU, for fewer steps)
"""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
os.environ["COURSE_EARLIER"] = "solution"  # measure the course's own function, not a learner's

import torch  # noqa: E402

from course_lib import hardware, recorded, tiny_transformer  # noqa: E402

hardware.tier()  # before the kernels import triton: without a GPU they are interpreted

from course_lib.earlier import FlashAttention  # noqa: E402


def mine(q, k, v):
    """The chapter's own autograd function, causal."""
    return FlashAttention.apply(q, k, v, None, True)


def main() -> None:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else recorded.RESULTS
    steps = 300 if device == "cuda" else 20
    ways = {"plain attention": tiny_transformer.plain_attention, "the exercises' kernels": mine}
    lines = {name: tiny_transformer.train(attention, steps, device, rate=5e-3) for name, attention in ways.items()}
    rows = [{"step": i + 1, **{f"loss, {name}": line[i] for name, line in lines.items()}} for i in range(steps)]
    shown = [row for row in rows if row["step"] == 1 or row["step"] % max(1, steps // 12) == 0]
    title = "Loss of the notebook's tiny transformer in nats a token, float32: plain attention, and the solutions of the chapter's exercises"
    print(recorded.write("ch06_exercises", title, shown, folder, details=rows), shown[-1])


if __name__ == "__main__":
    main()
