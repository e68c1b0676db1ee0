"""Run every notebook from top to bottom, as a reader would: once with no exercise solved, once with all of them.

    python -m tools.run_notebooks [--unsolved | --solved] [--slowest N] [NOTEBOOK ...]

Each run has a learner's folder of its own (COURSE_HOME). It fails on an error in a cell, over LIMIT seconds, or when an
exercise did not end as it should: "is not written yet" in the unsolved run, `passed` in the solved one (as progress.json says).
"""

import argparse
import json
import os
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

from course_lib.source import SourceError
from tools.sync import ROOT, read_notebook, solved, tagged

LIMIT = 60.0
CELL_LIMIT = 120


@dataclass
class Run:
    """What one run of one notebook came to. `problems` is empty when it is as it should be; `cells` are those of the run, with outputs."""

    name: str
    mode: str
    seconds: float
    problems: list[str] = field(default_factory=list)
    cells: list[dict] = field(default_factory=list, repr=False)


@contextmanager
def environment(**changed: str):
    """Environment variables for the kernel that is about to start; put back afterwards."""
    before = {key: os.environ.get(key) for key in changed}
    os.environ.update(changed)
    try:
        yield
    finally:
        for key, value in before.items():
            if value is None:
                del os.environ[key]
            else:
                os.environ[key] = value


def run(path: Path, mode: str, home: Path, root: Path = ROOT, limit: float = LIMIT, kernel: str = "python3") -> Run:
    """Execute one notebook with its learner's folder at `home`; the notebook's file is not written. `kernel`: a name that Jupyter knows."""
    notebook = read_notebook(path)
    result = Run(path.name, mode, 0.0, cells=notebook.cells)
    client = NotebookClient(
        notebook,
        timeout=CELL_LIMIT,
        kernel_name=kernel,
        resources={"metadata": {"path": str(root / "notebooks")}},
        extra_arguments=["--Application.log_level=40"],  # ipykernel 7 warns of its own defaults at every start
    )
    python_path = os.pathsep.join(part for part in (str(root), os.environ.get("PYTHONPATH", "")) if part)
    start = time.perf_counter()
    with environment(COURSE_HOME=str(home), PYTHONPATH=python_path):
        try:
            client.execute()
        except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
            result.problems.append(_what_failed(notebook, error))
    result.seconds = time.perf_counter() - start
    if result.problems:
        return result  # how the exercises ended says nothing after that
    if result.seconds > limit:
        result.problems.append(f"it took {result.seconds:.0f} s; at most {limit:.0f}")
    cells = {name: cell for cell in notebook.cells if (name := tagged(cell, "exercise"))}
    found = statuses(home)
    result.problems += [problem for name, cell in cells.items() for problem in wrong_ending(name, cell, found.get(name), mode)]
    return result


def _what_failed(notebook, error: Exception) -> str:
    for number, cell in enumerate(notebook.cells, start=1):
        failed = [output for output in cell.get("outputs", []) if output["output_type"] == "error"]
        if failed:
            return f"cell {number}: {failed[0]['ename']}: {failed[0]['evalue'].strip().splitlines()[0] if failed[0]['evalue'].strip() else ''}"
    done = sum(cell.get("execution_count") is not None for cell in notebook.cells if cell["cell_type"] == "code")
    return f"{type(error).__name__} after {done} code cells"


def statuses(home: Path) -> dict[str, str]:
    """{exercise: status} as the learner's progress.json has it; empty where there is none."""
    path = home / ".course" / "progress.json"
    if not path.exists():
        return {}
    return {name: entry.get("status", "") for name, entry in json.loads(path.read_text(encoding="utf-8")).get("exercises", {}).items()}


def wrong_ending(name: str, cell: dict, status: str | None, mode: str) -> list[str]:
    """How an exercise did not end as it should. A stub leaves no trace in the progress; there the panel must have said so."""
    if mode == "solved":
        return [] if status == "passed" else [f"{name}: its solution ended {status or 'without a verdict'}, not passed"]
    if status not in (None, "not_attempted"):
        return [f"{name}: its stub ended {status}, not not_attempted"]
    shown = "".join(str(text) for output in cell.get("outputs", []) for text in [output.get("text", ""), *output.get("data", {}).values()])
    return [] if f"{name} is not written yet" in shown else [f"{name}: check did not say that {name} is not written yet"]


def slowest(cells: list[dict], count: int) -> list[tuple[float, str]]:
    """(seconds, its tagged exercise or else its last line) of the cells that took longest, as nbclient has noted it."""
    took = []
    for cell in cells:
        times = cell.get("metadata", {}).get("execution", {})
        if {"iopub.execute_input", "shell.execute_reply"} <= times.keys():
            began, ended = (datetime.fromisoformat(times[name].replace("Z", "+00:00")) for name in ("iopub.execute_input", "shell.execute_reply"))
            what = tagged(cell, "exercise") or next(iter(reversed(cell["source"].strip().splitlines())), "")
            took.append(((ended - began).total_seconds(), what))
    return sorted(took, reverse=True)[:count]


def run_all(modes: list[str], only: list[str] | None = None, root: Path = ROOT, show: int = 0) -> list[Run]:
    """Run the notebooks in the modes asked for, printing a line after each, and its `show` slowest cells."""
    runs = []
    with tempfile.TemporaryDirectory(prefix="course-notebooks-") as folder:
        for mode in modes:
            paths = solved(root, Path(folder) / "solved") if mode == "solved" else sorted((root / "notebooks").glob("*.ipynb"))
            for path in paths:
                if only and path.name not in only:
                    continue
                runs.append(run(path, mode, Path(folder) / f"{mode}-{path.stem}", root))
                print(f"{runs[-1].seconds:6.1f} s  {mode:8}  {'FAIL' if runs[-1].problems else 'ok':4}  {path.name}", flush=True)
                for problem in runs[-1].problems:
                    print(f"            {problem}", flush=True)
                for seconds, what in slowest(runs[-1].cells, show):
                    print(f"    {seconds:6.1f} s  {what[:100]}", flush=True)
    return runs


def main(argv: list[str] | None = None, root: Path = ROOT) -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.run_notebooks", description="run the notebooks, unsolved and solved")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--unsolved", action="store_true", help="only as the reader first finds them")
    which.add_argument("--solved", action="store_true", help="only with every exercise solved")
    parser.add_argument("--slowest", type=int, default=0, metavar="N", help="name the N slowest cells of each")
    parser.add_argument("notebooks", nargs="*", type=Path, help="default: all of notebooks/")
    arguments = parser.parse_args(argv)
    only = [path.name for path in arguments.notebooks]
    missing = [name for name in only if not (root / "notebooks" / name).exists()]
    if missing:
        print(f"run_notebooks: there is no notebooks/{missing[0]}", file=sys.stderr)
        return 2
    modes = ["unsolved"] if arguments.unsolved else ["solved"] if arguments.solved else ["unsolved", "solved"]
    try:
        runs = run_all(modes, only, root, arguments.slowest)
    except SourceError as error:
        print(f"run_notebooks: {error}", file=sys.stderr)
        return 1
    failed = sum(bool(run.problems) for run in runs)
    print(f"run_notebooks: {len(runs)} runs, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
