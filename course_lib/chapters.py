"""The chapters of the course: number, slug, title. The one list that the README table, progress and commands read."""

from dataclasses import dataclass
from pathlib import Path

from course_lib.paths import ROOT


@dataclass(frozen=True)
class Chapter:
    number: int
    slug: str
    title: str
    part: str
    promise: str  # what the reader can do afterwards, one line

    @property
    def stem(self) -> str:
        """`03_online_softmax`: the notebook's name without its ending."""
        return f"{self.number:02d}_{self.slug}"

    @property
    def notebook(self) -> Path:
        return ROOT / "notebooks" / f"{self.stem}.ipynb"

    @property
    def ready(self) -> bool:
        return self.notebook.exists()


_ONE, _TWO, _THREE = "I - one kernel", "II - inference", "III - beyond one GPU and one kernel"

CHAPTERS = (
    Chapter(0, "start_here", "Start here", _ONE, "see what you will build, and what this machine can do"),
    Chapter(1, "memory_hierarchy", "The memory hierarchy", _ONE, "say whether an operator waits for memory or arithmetic"),
    Chapter(2, "attention_cost", "Attention and what it costs", _ONE, "count the bytes that naive attention moves"),
    Chapter(3, "online_softmax", "Online softmax", _ONE, "compute exact attention one tile at a time"),
    Chapter(4, "triton_from_zero", "Triton from zero", _ONE, "write GPU kernels in Python, from vector add to matmul"),
    Chapter(5, "flash_forward", "FlashAttention, forward", _ONE, "write the forward kernel and count why it is fast"),
    Chapter(6, "flash_backward", "FlashAttention, backward", _ONE, "train through your own kernel"),
    Chapter(7, "faster_and_more_general", "Faster and more general", _ONE, "read what versions 2, 3 and 4 changed"),
    Chapter(8, "kv_cache", "The KV cache", _TWO, "generate text from a small model, and predict its speed"),
    Chapter(9, "flash_decoding", "Flash-Decoding", _TWO, "keep the whole GPU busy with one query"),
    Chapter(10, "paged_attention", "Paged attention", _TWO, "store the cache in blocks and attend through a table"),
    Chapter(11, "continuous_batching", "Continuous batching", _TWO, "schedule requests so that no slot waits"),
    Chapter(12, "quantization", "Quantization", _TWO, "shrink weights and caches, and measure what it costs"),
    Chapter(13, "quantized_kernels", "Quantized kernels", _TWO, "dequantise inside the kernel, where it pays"),
    Chapter(14, "speculative_decoding", "Speculative decoding", _TWO, "draft cheaply and verify exactly"),
    Chapter(15, "engine", "The engine", _TWO, "run it all as one engine made of your functions"),
    Chapter(16, "sparse_and_linear", "Sparse and linear attention", _THREE, "trade quality for cost, measured"),
    Chapter(17, "smaller_models", "Smaller models", _THREE, "prune, distil and adapt"),
    Chapter(18, "many_gpus_inference", "Many GPUs: inference", _THREE, "split one model over several processes"),
    Chapter(19, "many_gpus_training", "Many GPUs: training", _THREE, "shard a training step"),
    Chapter(20, "choosing", "Choosing", _THREE, "pick a technique for a workload with the roofline"),
    Chapter(21, "review", "Review", _THREE, "keep it: the course's questions as cards"),
)

_BY_NUMBER = {chapter.number: chapter for chapter in CHAPTERS}


def chapter(number: int) -> Chapter:
    """The chapter of that number; ValueError in a sentence where there is none."""
    if number not in _BY_NUMBER:
        raise ValueError(f"there is no chapter {number}: the course has chapters 00 to {CHAPTERS[-1].number:02d}")
    return _BY_NUMBER[number]
