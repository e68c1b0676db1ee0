"""The table of speeds in README.md, from the committed records of `course bench`: what an H200 measured, beside the peers of the same run."""

import json
from pathlib import Path

START, END = "<!-- speeds: made by `make sync` from benchmarks/results -->", "<!-- end of speeds -->"
HEAD = "| kernel | problem, bf16 | measured | beside the peers of the same run |\n|---|---|--:|---|"
FORWARD = ("flash_forward", "two_tiles", "descriptors")
# what it is called, record, which row, the problem in words, the course's columns (the best one counts), peers
LINES = (
    ("row softmax", "rows", {"kernel": "softmax_rows", "N": 8192}, "8,192 x 8,192", ("course",), ("torch", "torch.compile")),
    ("RMSNorm", "rows", {"kernel": "rms_norm", "N": 8192}, "8,192 x 8,192", ("course",), ("F.rms_norm", "torch.compile")),
    ("matmul", "matmul", {"N": 8192}, "8,192^3", ("course",), ("cuBLAS",)),
    ("FlashAttention forward", "flash_forward", {"D": 64, "causal": "no", "N": 16384}, "16K tokens, D = 64", FORWARD, ("FA2", "cuDNN", "FA3")),
    ("FlashAttention forward", "flash_forward", {"D": 128, "causal": "no", "N": 16384}, "16K tokens, D = 128", FORWARD, ("FA2", "cuDNN", "FA3")),
    ("FlashAttention forward", "flash_forward", {"D": 128, "causal": "yes", "N": 16384}, "the same, causal", FORWARD, ("FA2", "cuDNN", "FA3")),
    (
        "FlashAttention backward", "flash_backward", {"kernel": "flash_backward", "D": 128, "causal": "no", "N": 16384}, "16K tokens, D = 128",
        ("course",), ("FA2", "cuDNN", "FA3"),
    ),
    ("decode", "decode", {"requests": 64}, "64 requests of 8K, GQA 32/8", ("course",), ("cuDNN", "FA3")),
    ("decode", "decode", {"requests": 1}, "1 request of 128K", ("course",), ("cuDNN", "FA3")),
    ("paged decode", "paged_decode", {"requests": 64}, "64 requests of 8K, blocks of 16", ("course",), ("FlashInfer", "FA3")),
    ("paged prefill", "paged_prefill", {"queries": 512}, "8 requests of 8K, the last 512 new", ("course",), ("dense", "FlashInfer", "FA3")),
    ("RoPE", "rope", {"N": 4096}, "2 x 32 heads of 4K, D = 128", ("course",), ("torch", "torch.compile")),
)  # fmt: skip


def table(results: Path) -> str:
    """The Markdown table and the line that says where it was measured; a sentence where a record is not there."""
    records = {}
    for name in dict.fromkeys(line[1] for line in LINES):
        path = results / f"{name}.json"
        if not path.exists():
            return f"There is no {path.name} in benchmarks/results yet: `course bench {name}` makes it."
        records[name] = json.loads(path.read_text(encoding="utf-8"))
    rows = [_row(title, records[name]["rows"], which, problem, course, peers) for title, name, which, problem, course, peers in LINES]
    first = records[LINES[0][1]]
    versions = ", ".join(f"{name} {first['versions'][name]}" for name in ("torch", "triton"))
    return "\n".join([HEAD, *rows, "", f"{first['machine']}, {first['date']}, {versions}; `course bench` repeats it."])


def _row(title: str, rows: list[dict], which: dict, problem: str, course: tuple[str, ...], peers: tuple[str, ...]) -> str:
    row = next(row for row in rows if all(row.get(key) == value for key, value in which.items()))
    unit = next(key for key in row if key.startswith(f"{course[0]} (")).partition("(")[2].rstrip(")")
    best = max(row[f"{name} ({unit})"] for name in course)
    beside = [f"{best / row[f'{name} ({unit})']:.2f}x {name}" for name in peers]
    if unit == "GB/s":
        return f"| {title} | {problem} | {best / 1000:.2f} TB/s | {', '.join(beside)}; {_of_a_copy(row, best, course[0], unit):.0%} of a copy |"
    return f"| {title} | {problem} | {best:,.0f} {unit} | {', '.join(beside)} |"


def _of_a_copy(row: dict, best: float, name: str, unit: str) -> float:
    return row["of the ceiling (%)"] / 100 * best / row[f"{name} ({unit})"]
