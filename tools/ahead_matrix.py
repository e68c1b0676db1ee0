"""Every kernel compiled ahead of time for every GPU it is meant for, without a GPU: does it compile, does it fit, does it spill?

    python -m tools.ahead_matrix                 all cells; writes docs/ahead-of-time.md
    python -m tools.ahead_matrix --check         a sample of the cells (as CI does); they must be as docs/ahead-of-time.md says
    python -m tools.ahead_matrix --only matmul   these kernels alone; writes nothing

A cell is one kernel of kernels/, or one Triton exercise's solution, for one GPU, dtype and shape, with the tiles that this GPU's shared
memory chooses. It passes when the kernel compiles, its shared memory is within what one block may have, and no register is
spilled to memory. Exit code 1 where a cell fails. Compiling is `tools.ahead_child`'s business.
"""

import argparse
import ast
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field

from tools.ahead_spills import KEPT
from tools.sync import ROOT, sources

PAGE = ROOT / "docs" / "ahead-of-time.md"
LIMITS = {75: 64, 80: 163, 86: 99, 89: 99, 90: 227, 100: 227, 120: 99}  # KiB of shared memory that one block may have
NAMES = {75: "T4", 80: "A100", 86: "A10, RTX 30", 89: "L4, RTX 40", 90: "H100, H200", 100: "B200", 120: "RTX 50"}
SECONDS = 240  # the most that one cell may take
OVER_CACHE = ("decode_split", "paged_decode", "paged_prefill")
SHAPES = {
    "vector_add": [{"N": 1 << 24}],
    "softmax_rows": [{"M": 8192, "N": 4096}, {"M": 1024, "N": "MAX_WIDTH"}],
    "softmax_long_rows": [{"M": 1024, "N": 1 << 17}],
    "rms_norm": [{"M": 8192, "N": 4096}, {"M": 1024, "N": "MAX_WIDTH"}],
    "swiglu": [{"M": 8192, "N": 4096, "dense": True}, {"M": 8192, "N": 4096, "dense": False}],
    "matmul": [{"M": 4096, "N": 4096, "K": 4096}],
    "read_again": [{"N": 1 << 24}],
    **dict.fromkeys(OVER_CACHE, [{"D": D} for D in (64, 128, 256)]),
    **dict.fromkeys(("merge_splits", "write_kv", "rope"), [{"D": 128}]),
    "attention_delta": [{"D": 128}],
}
ATTENTION = [{"D": D, "causal": causal} for D in (40, 64, 128, 256) for causal in (False, True)]
SPILLS = {
    (kernel, target, dtype, said): most
    for kernel, targets, dtypes, shapes, most, _ in KEPT
    for target in targets
    for dtype in dtypes
    for said in shapes
}


@dataclass(frozen=True)
class Cell:
    """One compilation. A kernel's name is its file's, an exercise's is `exercise NAME`."""

    kernel: str
    target: int
    dtype: str
    shape: dict = field(default_factory=dict, hash=False)

    @property
    def shared_kib(self) -> int:
        return LIMITS[self.target]

    @property
    def said(self) -> str:
        return (
            ", ".join(name if value is True else f"{name} {value}" for name, value in self.shape.items() if value is not False) or "its largest probe"
        )

    @property
    def in_ci(self) -> bool:
        """The sample that CI compiles: the dtype that matters on that GPU, causal attention of D = 64, 128 and 256.

        Of the exercises, the backward passes, the variants and the kernels over a cache, three GPUs and D = 64 and 128: they take longest.
        """
        if not self.shape:
            return self.target in (75, 80, 90)
        usual = self.shape.get("causal", True) and self.shape.get("D") != 40
        if self.kernel in OVER_CACHE or (self.kernel.startswith("flash_") and not self.kernel.startswith("flash_forward")):
            usual = usual and self.target in (75, 80, 90) and self.shape.get("D") != 256
        return self.kernel == "read_again" or (usual and self.dtype == ("fp16" if self.target < 80 else "bf16"))


def cells() -> list[Cell]:
    """Every cell, in the order of the page."""
    found = []
    for path in sorted((ROOT / "kernels").glob("*.py")):
        text = path.read_text(encoding="utf-8")
        if "@triton.jit" in text:
            found += [
                cell for target in literal(text, "TARGETS", tuple(LIMITS)) for cell in _of_kernel(path.stem, target, literal(text, "MAX_WIDTH", 0))
            ]
    exercises = [exercise.name for group in sources(ROOT).values() for exercise in group if "@triton.jit" in exercise.solution]
    return found + [Cell(f"exercise {name}", target, "fp32") for name in exercises for target in LIMITS]


def literal(text: str, name: str, otherwise):
    """The literal that a module assigns to a name at its top level; `otherwise` where it assigns none."""
    for node in ast.parse(text).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name:
            return ast.literal_eval(node.value)
    return otherwise


def _of_kernel(name: str, target: int, width: int) -> list[Cell]:
    """All dtypes for the usual shapes; head sizes 40 and 256 in one 2-byte dtype, float32 once for each head size but 40."""
    dtypes = ("fp32",) if name == "read_again" else ("fp16", "fp32") if target < 80 else ("fp16", "bf16", "fp32")
    if name == "attention_delta" or not name.startswith("flash_"):
        shapes = [{key: width if value == "MAX_WIDTH" else value for key, value in shape.items()} for shape in SHAPES.get(name, [{}])]
        found = [Cell(name, target, dtype, shape) for dtype in dtypes for shape in shapes]
        half = "fp16" if target < 80 else "bf16"
        return [c for c in found if c.dtype == half or c.shape["D"] == 128] if name in OVER_CACHE else found
    found = [Cell(name, target, dtype, shape) for dtype in dtypes for shape in ATTENTION]
    half = "fp16" if target < 80 else "bf16"
    if not name.startswith("flash_forward"):  # variants and backward passes: their causal form, or the only one they have
        found = [c for c in found if c.shape["causal"]]
        return [c for c in found if c.dtype == half or (c.dtype == "fp32" and c.shape["D"] == 64)]
    return [c for c in found if (c.shape["causal"] and c.shape["D"] != 40 if c.dtype == "fp32" else c.dtype == half or c.shape["D"] in (64, 128))]


# ---------------------------------------------------------------- compiling


class Child:
    """A process that compiles cells; a new one takes over where it has ended."""

    def __init__(self, cache: str):
        self.environment = {**os.environ, "TRITON_CACHE_DIR": cache, "TRITON_ALWAYS_COMPILE": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        self.environment.pop("TRITON_INTERPRET", None)
        self.process: subprocess.Popen | None = None

    def ask(self, cell: Cell) -> dict:
        if self.process is None or self.process.poll() is not None:
            command = [sys.executable, "-m", "tools.ahead_child"]
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=self.environment, cwd=ROOT
            )
        timer = threading.Timer(SECONDS, self.process.kill)
        timer.start()
        try:
            self.process.stdin.write(json.dumps({**asdict(cell), "shared_kib": cell.shared_kib}) + "\n")
            self.process.stdin.flush()
            answer = self.process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        finally:
            timer.cancel()
        return json.loads(answer) if answer else {"error": f"the compiler ended its process (exit code {self.process.wait()})"}

    def close(self) -> None:
        if self.process is not None:
            self.process.stdin.close()
            self.process.wait(timeout=30)


def compile_all(wanted: list[Cell], processes: int = 2, say=None) -> dict[Cell, dict]:
    """What each cell takes. Cells are handed out one by one, so that a slow one holds up nothing else."""
    local, children, found = threading.local(), [], {}
    with tempfile.TemporaryDirectory() as cache, ThreadPoolExecutor(processes) as pool:

        def one(cell: Cell) -> None:
            if not hasattr(local, "child"):
                local.child = Child(cache)
                children.append(local.child)
            found[cell] = local.child.ask(cell)
            if say:
                say(len(found), cell, found[cell])

        try:
            list(pool.map(one, wanted))
        finally:
            for child in children:
                child.close()
    return found


def fault(cell: Cell, took: dict) -> str:
    """What is wrong with a cell, in words; empty where it passes."""
    if "error" in took:
        return took["error"]
    if took["shared"] > cell.shared_kib * 1024:
        return f"{took['shared']:,} bytes of shared memory; one block may have {cell.shared_kib * 1024:,}"
    allowed = SPILLS.get((cell.kernel, cell.target, cell.dtype, cell.said), 0)
    return f"{took['spilled']:,} bytes spilled" + (f", {allowed} allowed" if allowed else "") if took["spilled"] > allowed else ""


# ---------------------------------------------------------------- the page

HEAD = "| kernel | GPU | dtype | shape | warps | stages | registers | spilled (bytes) | shared (KiB) | of (KiB) |\n|---|---|---|---|--:|--:|--:|--:|--:|--:|"


def line(cell: Cell, took: dict) -> str:
    """One row of the page's table."""
    start = f"| {cell.kernel} | sm_{cell.target} ({NAMES[cell.target]}) | {cell.dtype} | {cell.said} | "
    if "error" in took:
        return start + f"{took['error'].replace('|', '/')} ||||||"
    shared = f"{took['shared'] / 1024:.1f}"
    return start + f"{took['warps']} | {took['stages']} | {took['registers']} | {took['spilled']} | {shared} | {cell.shared_kib} |"


def page(found: dict[Cell, dict]) -> str:
    """docs/ahead-of-time.md."""
    failed = [
        f"- {cell.kernel}, sm_{cell.target}, {cell.dtype}, {cell.said}: {words}" for cell, took in found.items() if (words := fault(cell, took))
    ]
    excused = [
        f"- {kernel}, {', '.join(f'sm_{target}' for target in targets)}, {', '.join(dtypes)}, {'; '.join(shapes)}: up to {most} bytes. {why}"
        for kernel, targets, dtypes, shapes, most, why in KEPT
        if any(cell.kernel == kernel for cell in found)
    ]
    parts = [
        "# Compiled ahead of time",
        "Made by `python -m tools.ahead_matrix`, which compiles every kernel of `kernels/` and every Triton exercise's solution without a GPU, from the"
        "\nlaunch that the host function itself makes, with the tiles that the GPU's shared memory chooses. A cell passes when the kernel compiles,\n"
        "fits into the shared memory that one block may have, and spills no register, but for the cells listed. It says nothing of speed or of values.",
        f"Triton {_triton()}, {len(found)} cells, {len(failed)} failed.",
        *(["Failed:", "\n".join(failed)] if failed else []),
        *(["Spills that stay:", "\n".join(excused)] if excused else []),
        "\n".join([HEAD, *(line(cell, took) for cell, took in found.items())]),
    ]
    return "\n\n".join(parts) + "\n"


def differences(found: dict[Cell, dict], text: str) -> list[str]:
    """Where a fresh compilation and the page disagree; another Triton may well take other registers, so then only the verdicts count."""
    lines = set(text.splitlines())
    if f"Triton {_triton()}," not in text:
        return []
    return [
        f"{cell.kernel}, sm_{cell.target}, {cell.dtype}, {cell.said}: now `{line(cell, took)}`"
        for cell, took in found.items()
        if line(cell, took) not in lines
    ]


def _triton() -> str:
    from importlib.metadata import version

    return version("triton")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.ahead_matrix", description="every kernel compiled for every GPU, without one")
    parser.add_argument("--check", action="store_true", help="compile the sample that CI compiles, and compare it with the page")
    parser.add_argument("--only", nargs="*", help="these kernels alone (`matmul`, `exercise softmax_rows`); writes nothing")
    parser.add_argument("--targets", nargs="*", type=int, help="these compute capabilities alone; writes nothing")
    parser.add_argument("--processes", type=int, default=2)
    arguments = parser.parse_args(argv)
    wanted = [cell for cell in cells() if not arguments.only or cell.kernel in arguments.only]
    wanted = [cell for cell in wanted if (not arguments.targets or cell.target in arguments.targets) and (not arguments.check or cell.in_ci)]
    began = time.monotonic()

    def say(count: int, cell: Cell, took: dict) -> None:
        print(f"{count:4}/{len(wanted)} {took.get('seconds', 0):5.1f} s  {line(cell, took)} {fault(cell, took)}", flush=True)

    unordered = compile_all(wanted, arguments.processes, say)
    found = {cell: unordered[cell] for cell in wanted}
    failed = [f"{cell.kernel}, sm_{cell.target}, {cell.dtype}, {cell.said}: {words}" for cell, took in found.items() if (words := fault(cell, took))]
    drifted = differences(found, PAGE.read_text(encoding="utf-8") if PAGE.exists() else "") if arguments.check else []
    if not (arguments.check or arguments.only or arguments.targets):
        PAGE.write_text(page(found), encoding="utf-8")
        print(f"wrote {PAGE.relative_to(ROOT)}")
    for words in failed:
        print(f"FAILED {words}")
    for words in drifted:
        print(f"DRIFTED {words}; run python -m tools.ahead_matrix")
    print(f"{len(found)} cells in {time.monotonic() - began:.0f} s, {len(failed)} failed")
    return 1 if failed or drifted else 0


if __name__ == "__main__":
    sys.exit(main())
