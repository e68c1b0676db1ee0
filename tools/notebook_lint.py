"""Lint the notebooks: structure fails, house numbers warn. The rules are in tools/notebook_rules.py.

python -m tools.notebook_lint [NOTEBOOK ...]     exit 0: no failure, 1: failures, 2: a path that cannot be read
"""

import argparse
import sys
from pathlib import Path

from course_lib.source import Exercise, SourceError
from tools.notebook_rules import FAIL, WARN, Book
from tools.sync import ROOT, read_notebook, sources

Row = tuple[str, str, str, str]  # notebook, "fail" or "warn", rule, sentence


def lint(path: Path, exercises: tuple[Exercise, ...] = ()) -> list[Row]:
    """Every finding of one notebook."""
    book = Book(path, read_notebook(path), exercises)
    rows = [(path.name, "fail", rule.__name__, sentence) for rule in FAIL for sentence in rule(book)]
    return rows + [(path.name, "warn", rule.__name__, sentence) for rule in WARN for sentence in rule(book)]


def exercises_of(root: Path = ROOT) -> dict[str, tuple[Exercise, ...]]:
    """The exercises by the two digits of their chapter."""
    return {path.name[2:4]: tuple(exercises) for path, exercises in sources(root).items()}


def table(rows: list[Row]) -> str:
    """The findings in columns."""
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return "\n".join("  ".join([*(row[column].ljust(widths[column]) for column in range(3)), row[3]]) for row in rows)


def main(argv: list[str] | None = None, root: Path = ROOT) -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.notebook_lint", description="lint the notebooks")
    parser.add_argument("notebooks", nargs="*", type=Path, help="default: all of notebooks/")
    paths = parser.parse_args(argv).notebooks or sorted((root / "notebooks").glob("*.ipynb"))
    try:
        known = exercises_of(root)
        rows = [row for path in paths for row in lint(path, known.get(path.name[:2], ()))]
    except SourceError as error:
        print(f"notebook_lint: {error}", file=sys.stderr)
        return 2
    failures = sum(row[1] == "fail" for row in rows)
    if rows:
        print(table(rows))
    print(f"notebook_lint: {len(paths)} notebooks, {failures} failures, {len(rows) - failures} warnings")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
