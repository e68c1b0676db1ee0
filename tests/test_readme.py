"""The README: its chapter table follows course_lib/chapters.py, and the commands it names exist."""

import re
from pathlib import Path

import pytest

from course_lib.chapters import CHAPTERS
from course_lib.source import parse_exercises
from tests.sample_course import SOURCE
from tools import readme_speeds, readme_table
from tools.readme_table import END, START

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


def test_the_table_is_in_step(capsys):
    assert readme_table.main(["--check"]) == 0, capsys.readouterr().err


def test_the_table_has_every_chapter_once_and_marks_what_is_coming():
    exercises = {3: parse_exercises(SOURCE, 3, "sample")}
    rows = [line for line in readme_table.table(CHAPTERS, exercises).splitlines() if re.match(r"\| \d\d \|", line)]
    assert [int(row[2:4]) for row in rows] == [chapter.number for chapter in CHAPTERS]
    for chapter, row in zip(CHAPTERS, rows, strict=True):
        assert ("*coming*" in row) != chapter.ready, row
        assert (f"(notebooks/{chapter.stem}.ipynb)" in row) == chapter.ready, row


def test_drift_is_found_and_mended(tmp_path, capsys):
    (tmp_path / "solutions").mkdir()
    speeds = f"{readme_speeds.START}\nolder\n{readme_speeds.END}"
    (tmp_path / "README.md").write_text(f"before\n{START}\nold\n{END}\n{speeds}\nafter\n", encoding="utf-8")
    assert readme_table.main(["--check"], tmp_path) == 1
    assert "make sync" in capsys.readouterr().err
    assert "old" in (tmp_path / "README.md").read_text(encoding="utf-8")
    assert readme_table.main([], tmp_path) == 0
    assert readme_table.main(["--check"], tmp_path) == 0
    text = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert text.startswith("before\n") and text.endswith("\nafter\n") and "old" not in text
    assert "`course bench rows` makes it" in text  # no records in this folder


def test_the_speeds_are_those_of_the_records():
    import json

    table = readme_speeds.table(ROOT / "benchmarks" / "results")
    rows = json.loads((ROOT / "benchmarks" / "results" / "matmul.json").read_text(encoding="utf-8"))["rows"]
    wanted = next(row for row in rows if row["N"] == 8192)
    line = next(line for line in table.splitlines() if line.startswith("| matmul"))
    assert f"{wanted['course (TFLOP/s)']:,.0f} TFLOP/s" in line and f"{wanted['course / cuBLAS']:.2f}x cuBLAS" in line
    assert table.count("\n| ") == len(readme_speeds.LINES) and "NVIDIA H200, 2026-" in table
    assert table in README


@pytest.mark.parametrize("text", ["no markers", f"{START}", f"{END}\n{START}", f"{START}{START}{END}"])
def test_a_readme_without_its_markers(tmp_path, capsys, text):
    (tmp_path / "solutions").mkdir()
    (tmp_path / "README.md").write_text(text, encoding="utf-8")
    assert readme_table.main([], tmp_path) == 1
    assert "marker lines once each" in capsys.readouterr().err
    assert (tmp_path / "README.md").read_text(encoding="utf-8") == text


def test_no_readme(tmp_path, capsys):
    assert readme_table.main([], tmp_path) == 1
    assert "README.md" in capsys.readouterr().err


@pytest.mark.parametrize("page", [README, CONTRIBUTING], ids=["README", "CONTRIBUTING"])
def test_every_make_target_that_is_named_exists(page):
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = set(re.findall(r"\bmake ([a-z]+)\b(?=[` \n])", "\n".join(re.findall(r"`[^`]+`|```.*?```", page, re.DOTALL))))
    assert named and named <= targets, named - targets


@pytest.mark.parametrize("page", [README, CONTRIBUTING], ids=["README", "CONTRIBUTING"])
def test_every_course_command_that_is_named_exists(page, capsys):
    from course_lib.commands.cli import main

    named = set(re.findall(r"\bcourse ([a-z]+)\b", "\n".join(re.findall(r"`[^`]+`|```.*?```", page, re.DOTALL))))
    for command in sorted(named):
        with pytest.raises(SystemExit) as ended:
            main([command, "--help"])
            raise SystemExit(0)  # a command line that prints its help and returns is as good
        assert ended.value.code == 0, f"`course {command} --help` ended with {ended.value.code}"


def test_the_two_commands_come_before_the_chapters():
    assert 0 < README.index("make lab") < README.index(START) < README.index("## How grading works")
