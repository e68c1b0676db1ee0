"""Committed measurements: `benchmarks/results/NAME.json`, written by `benchmarks/NAME.py` or by a command on the machine it names.

Knows how a record is written and shown; nothing of what was measured.
"""

import datetime
import html
import json
import platform
from dataclasses import dataclass, field
from pathlib import Path

import torch

from course_lib.cards import rich
from course_lib.paths import ROOT
from course_lib.tables import Table
from course_lib.words import number

RESULTS = ROOT / "benchmarks" / "results"


@dataclass(frozen=True)
class Record:
    """One committed run: what was measured, where, when, with which versions, and the command that repeats it."""

    name: str
    title: str
    machine: str
    date: str
    versions: dict[str, str]
    command: str
    rows: list[dict]
    details: list[dict] = field(default_factory=list, repr=False)  # more than is shown; older records have none

    @property
    def source(self) -> str:
        """`NVIDIA H200, 2026-11, torch 2.11.0, triton 3.6.0; python benchmarks/NAME.py repeats it`"""
        versions = ", ".join(f"{package} {version}" for package, version in self.versions.items())
        return f"{self.machine}, {self.date}, {versions}; `{self.command}` repeats it"

    def _repr_html_(self) -> str:
        head = "".join(f'<th style="text-align:right;padding:2px 12px">{html.escape(key)}</th>' for key in self.rows[0])
        cell = '<td style="text-align:right;padding:2px 12px">{}</td>'
        body = "".join("<tr>" + "".join(cell.format(html.escape(_shown(value))) for value in row.values()) + "</tr>" for row in self.rows)
        return (
            '<div style="background:#ffffff;color:#1B1F24;border-radius:6px;padding:10px 14px;display:inline-block">'
            f'<b>{html.escape(self.title)}</b><table style="margin:6px 0;background:#ffffff;color:#1B1F24"><thead><tr>{head}</tr></thead>'
            f"<tbody>{body}</tbody></table><small>{rich(self.source)}</small></div>"
        )

    def __repr__(self) -> str:
        keys = list(self.rows[0])
        lines = [[*keys], *([_shown(row[key]) for key in keys] for row in self.rows)]
        widths = [max(len(line[i]) for line in lines) for i in range(len(keys))]
        table = "\n".join("  ".join(word.rjust(width) for word, width in zip(line, widths, strict=True)) for line in lines)
        return f"{self.title}\n{table}\n{self.source}"


def table(name: str) -> Record:
    """The committed record of that name. FileNotFoundError in a sentence where there is none."""
    path = RESULTS / f"{name}.json"
    if not path.exists():
        have = ", ".join(sorted(p.stem for p in RESULTS.glob("*.json"))) or "none yet"
        raise FileNotFoundError(f"there is no committed measurement {name!r} (there are: {have}); `python benchmarks/{name}.py` makes one")
    return Record(**json.loads(path.read_text(encoding="utf-8")))


def parts(name: str) -> dict[str, list[dict]]:
    """The details of a record by their "part"; empty where there is no such record yet, or one without parts."""
    try:
        details = table(name).details
    except FileNotFoundError:
        return {}
    found: dict[str, list[dict]] = {}
    for row in details:
        if "part" in row:
            found.setdefault(row["part"], []).append({key: value for key, value in row.items() if key != "part"})
    return found


def part(name: str, which: str, title: str) -> Table:
    """One part of a record as a table; a table without rows that says how to make it where there is none yet."""
    rows = parts(name).get(which, [])
    if not rows:
        return Table(("no record yet",), (), title, f"`python benchmarks/{name}.py` on a CUDA GPU makes it.")
    return Table(tuple(rows[0]), tuple(tuple(_shown(row.get(column, "-")) for column in rows[0]) for row in rows), title, table(name).source)


def write(name: str, title: str, rows: list[dict], folder: Path = RESULTS, command: str | None = None, details: list[dict] | None = None) -> Path:
    """Write a record of this machine, today; returns its path. `rows` share their keys, units in the keys; `details` are kept, not shown.

    command: what repeats it; None means the script of that name.
    """
    record = Record(
        name, title, machine(), datetime.date.today().strftime("%Y-%m"), versions(), command or f"python benchmarks/{name}.py", rows, details or []
    )
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    fields = {key: value for key, value in record.__dict__.items() if key != "details" or value}
    path.write_text(json.dumps(fields, indent=1) + "\n", encoding="utf-8")
    return path


def versions() -> dict[str, str]:
    """torch and triton, and on a GPU CUDA and cuDNN as torch uses them."""
    found = {"torch": torch.__version__}
    try:
        import triton

        found["triton"] = triton.__version__
    except ImportError:
        pass
    if torch.cuda.is_available():
        cudnn = torch.backends.cudnn.version()
        found |= {"CUDA": str(torch.version.cuda), **({"cuDNN": str(cudnn)} if cudnn else {})}
    return found


def machine() -> str:
    """`NVIDIA H200`, or the CPU's architecture and its number of threads as torch uses them."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU ({platform.machine()}, {torch.get_num_threads()} threads)"


def _shown(value) -> str:
    if isinstance(value, float):
        return number(value, 3)
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
