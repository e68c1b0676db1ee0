"""Write the chapter table of README.md, between its two markers, from course_lib/chapters.py, and the table of speeds from the committed records.

python -m tools.readme_table [--check]
"""

import argparse
import sys
from pathlib import Path

from course_lib.chapters import CHAPTERS, Chapter
from course_lib.source import Exercise
from tools import readme_speeds
from tools.sync import ROOT, sources

START, END = "<!-- chapters: made by `make sync` -->", "<!-- end of chapters -->"


def table(chapters: tuple[Chapter, ...], exercises: dict[int, list[Exercise]]) -> str:
    """The Markdown table, one heading row a part; a chapter without a notebook is marked as coming."""
    lines = []
    for part in dict.fromkeys(chapter.part for chapter in chapters):
        lines += ["", f"**Part {part}**", "", "| | Chapter | Afterwards you can | Exercises |", "|---|---|---|---|"]
        lines += [_row(chapter, exercises.get(chapter.number, [])) for chapter in chapters if chapter.part == part]
    return "\n".join(lines[1:])


def _row(chapter: Chapter, exercises: list[Exercise]) -> str:
    name = f"[{chapter.title}](notebooks/{chapter.notebook.name})" if chapter.ready else chapter.title
    if not chapter.ready:
        return f"| {chapter.number:02d} | {name} | {chapter.promise} | *coming* |"
    core = sum(exercise.level == "core" for exercise in exercises)
    minutes = sum(exercise.minutes for exercise in exercises if exercise.level == "core")
    summary = f"{len(exercises)}, of which {core} core ({minutes} minutes)" if exercises else "none"
    return f"| {chapter.number:02d} | {name} | {chapter.promise} | {summary} |"


def exercises_by_chapter(root: Path) -> dict[int, list[Exercise]]:
    return {int(path.name[2:4]): exercises for path, exercises in sources(root).items()}


def with_table(readme: str, new: str, start: str = START, end: str = END) -> str:
    """The README with the table between its markers replaced. ValueError where the markers are not there once each."""
    if readme.count(start) != 1 or readme.count(end) != 1 or readme.index(start) > readme.index(end):
        raise ValueError(f"README.md must hold the two marker lines once each, in this order: {start} and {end}")
    before, rest = readme.split(start)
    return f"{before}{start}\n\n{new}\n\n{end}{rest.split(end)[1]}"


def main(argv: list[str] | None = None, root: Path = ROOT) -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.readme_table", description="the tables of README.md")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when it has drifted")
    arguments = parser.parse_args(argv)
    path = root / "README.md"
    try:
        old = path.read_text(encoding="utf-8")
        new = with_table(old, table(CHAPTERS, exercises_by_chapter(root)))
        new = with_table(new, readme_speeds.table(root / "benchmarks" / "results"), readme_speeds.START, readme_speeds.END)
    except (OSError, ValueError) as error:
        print(f"readme_table: {error}", file=sys.stderr)
        return 1
    if arguments.check and old != new:
        print("readme_table: a table of README.md has drifted; run `make sync`.", file=sys.stderr)
        return 1
    if old != new:
        path.write_text(new, encoding="utf-8")
    print(f"readme_table: {'written' if old != new else 'in step'}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
