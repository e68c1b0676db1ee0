"""What only a CUDA GPU can show, in one command for a machine that is lent by the minute: every step leaves its result before the next begins.

    python -m tools.prove_on_gpu FOLDER [--only notebooks tests parity] [--notebooks 04 05] [--jobs 2]

notebooks   each one unsolved and solved, as `tools.run_notebooks` runs them (needs ipykernel, nbclient, ipywidgets)
tests       pytest -m gpu on the tests that need one            parity   the language model against transformers', on the GPU
random      thousands of random cases through every kernel      sanitize a few of them under compute-sanitizer
race        the kernels against their peers, group by group

FOLDER/gpu_proof.json says of each step how it ended and how long it took, FOLDER/gpu_proof.log what it printed. Knows nothing of kernels.
"""

import argparse
import json
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
STEPS = ("notebooks", "tests", "parity", "random", "sanitize", "race")
GROUPS = ("rows", "matmul", "flash_forward", "flash_backward", "flash_variants", "decode", "paged_decode", "paged_prefill", "rope", "write_kv")
SECONDS = 300  # no step may take longer


def commands(step: str, folder: Path, chapters: list[str]) -> list[tuple[str, list[str]]]:
    """(name, command) of everything that one step runs."""
    python = sys.executable
    if step == "notebooks":
        paths = sorted(path for path in (ROOT / "notebooks").glob("*.ipynb") if not chapters or path.name[:2] in chapters)
        runs = [(path, mode) for path in paths for mode in ("unsolved", "solved")]
        return [(f"{path.stem} {mode}", [python, "-m", "tools.run_notebooks", f"--{mode}", "--slowest", "6", path.name]) for path, mode in runs]
    if step == "sanitize":
        memcheck = ["compute-sanitizer", "--tool", "memcheck", python]
        return [(f"memcheck {name}", [*memcheck, f"benchmarks/{name}.py", "--sanitize"]) for name in ("verify_kernels", "verify_decode")]
    if step == "race":
        return [(f"race {group}", [python, "-m", "course_lib.commands", "bench", group, "--output", str(folder)]) for group in GROUPS]
    return {
        "tests": [("tests", [python, "-m", "pytest", "-q", "-m", "gpu", "-rs", *_marked()])],
        "parity": [("parity", [python, "tests/llm_parity.py", "--device", "cuda"])],
        "random": [(name, [python, f"benchmarks/{name}.py", str(folder), "--seconds", "15"]) for name in ("verify_kernels", "verify_decode")],
    }[step]


def _marked() -> list[str]:
    """The test files in which something is marked gpu: others may import what a lent machine lacks."""
    return [f"tests/{path.name}" for path in sorted((ROOT / "tests").glob("test_*.py")) if "mark.gpu" in path.read_text(encoding="utf-8")]


class Proof:
    """The results so far, written after every one of them."""

    def __init__(self, folder: Path):
        self.folder, self.results, self.lock = folder, [], threading.Lock()
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "gpu_proof.log").write_text("", encoding="utf-8")

    def run(self, name: str, command: list[str], seconds: float = SECONDS) -> bool:
        began = time.monotonic()
        environment = {**os.environ, "PYTHONUNBUFFERED": "1", "PYTORCH_NO_CUDA_MEMORY_CACHING": "1" if command[0] == "compute-sanitizer" else "0"}
        try:
            ran = subprocess.run(
                command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=seconds, errors="replace"
            )
            code, said = ran.returncode, ran.stdout
        except subprocess.TimeoutExpired as late:
            said = late.stdout or ""
            code, said = 124, said.decode(errors="replace") if isinstance(said, bytes) else said
        except FileNotFoundError:
            code, said = 127, f"{command[0]} is not installed here"
        self._keep(name, command, code, time.monotonic() - began, said)
        return code == 0

    def _keep(self, name: str, command: list[str], code: int, seconds: float, said: str) -> None:
        lines = [line for line in said.strip().splitlines() if line.strip()]
        result = {"name": name, "passed": code == 0, "code": code, "seconds": round(seconds, 1), "last": lines[-9:]}
        with self.lock:
            self.results.append(result)
            print(
                f"{'ok  ' if code == 0 else 'FAIL'} {seconds:6.1f} s  {name}",
                *([] if code == 0 else [f"      {line[:200]}" for line in lines[-6:]]),
                sep="\n",
            )
            with open(self.folder / "gpu_proof.log", "a", encoding="utf-8") as log:
                log.write(f"==== {name}: {' '.join(command)} (exit code {code}, {seconds:.1f} s)\n{said}\n")
            report = {"date": f"{datetime.now():%Y-%m-%d %H:%M}", "machine": _machine(), "results": self.results}
            (self.folder / "gpu_proof.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def _machine() -> str:
    try:
        ran = subprocess.run(["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"], capture_output=True, text=True, timeout=20)
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return "no NVIDIA GPU"
    return ran.stdout.strip() or "no NVIDIA GPU"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.prove_on_gpu", description="what only a CUDA GPU can show, step by step")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", nargs="*", choices=STEPS, default=["notebooks", "tests", "parity"])
    parser.add_argument("--notebooks", nargs="*", default=[], metavar="NN", help="chapters, by their two digits; all by default")
    parser.add_argument("--jobs", type=int, default=1, help="notebooks at a time; more than one makes each of them slower")
    arguments = parser.parse_args(argv)
    proof = Proof(arguments.folder)
    for step in arguments.only:
        wanted = commands(step, arguments.folder, arguments.notebooks)
        with ThreadPoolExecutor(arguments.jobs if step == "notebooks" else 1) as pool:
            list(pool.map(lambda one: proof.run(*one), wanted))
    failed = sum(not result["passed"] for result in proof.results)
    print(f"{len(proof.results)} runs, {failed} failed; {arguments.folder / 'gpu_proof.json'}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
