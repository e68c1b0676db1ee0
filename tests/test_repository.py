"""The repository as a whole: nothing of one machine in it, no outputs, every file says what it is, in the house's words."""

import ast
import io
import json
import re
import subprocess
import tokenize
from pathlib import Path

import pytest

from course_lib.source import comments, parse_exercises
from tools.voice import slips

ROOT = Path(__file__).resolve().parent.parent
KINDS = (ast.Module, ast.FunctionDef, ast.ClassDef, ast.AsyncFunctionDef)
TEXT = {".py", ".md", ".ipynb", ".toml", ".txt", ".yml", ".sh", ".json", ".mplstyle", ""}
MACHINE_PATH = re.compile(r"(?<![\w./~}-])/(?:" + "|".join(("work", "root", "opt", "tmp", "home")) + r")/\w")
HOSTS = tuple(".".join(parts) for parts in (("pypi", "org"), ("pythonhosted", "org"), ("download.pytorch", "org"), ("anaconda", "org")))
OPTIONS = tuple(f"--{name}" for name in ("index-url", "extra-index-url", "find-links", "trusted-host"))


def committed() -> list[Path]:
    """The files that git knows or would take; where there is no git, every file outside hidden and learner's folders."""
    run = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True)
    if run.returncode == 0:
        return sorted({ROOT / name for name in run.stdout.splitlines() if (ROOT / name).is_file()})
    left_out = re.compile(r"(^|/)(\.[a-z_]+|answers|__pycache__|[\w.]+egg-info)/")
    return [path for path in sorted(ROOT.rglob("*")) if path.is_file() and not left_out.search(str(path.relative_to(ROOT)))]


FILES = committed()
TEXTS = [path for path in FILES if path.suffix in TEXT]
MODULES = [path for path in FILES if path.suffix == ".py"]
NOTEBOOKS = [path for path in FILES if path.suffix == ".ipynb"]
PAGES = [path for path in FILES if path.suffix == ".md"]


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def code_lines(text: str) -> int:
    """The lines of a module that are code: no blank lines, no comments, no docstrings."""
    layout = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)
    tokens = [token for token in tokenize.generate_tokens(io.StringIO(text).readline) if token.type not in layout]
    lines = {line for token in tokens for line in range(token.start[0], token.end[0] + 1)}
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, KINDS) and ast.get_docstring(node) is not None:
            lines -= set(range(node.body[0].lineno, node.body[0].end_lineno + 1))
    return len(lines)


def test_the_lists_are_not_empty():
    assert MODULES and PAGES and {"README.md", "CONTRIBUTING.md", "LICENSE", "LICENSE-TEXT", "Makefile"} <= {name(path) for path in FILES}


@pytest.mark.parametrize("path", TEXTS, ids=name)
def test_no_path_of_one_machine_and_no_package_host(path):
    text = path.read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if MACHINE_PATH.search(line)]
    assert not lines, f"{name(path)} names a path of one machine: {lines[0][:120]!r}"
    found = [word for word in (*HOSTS, *OPTIONS) if word in text]
    assert not found, f"{name(path)} names a package host: {found}"


SAMPLES = [("open('/ro" + "ot/x')", True), ("a/tm" + "p/x", False), ("https://x.org/ho" + "me/a", False), ("'/tm" + "p/a'", True)]


@pytest.mark.parametrize(("text", "seen"), SAMPLES)
def test_the_search_for_machine_paths(text, seen):
    assert bool(MACHINE_PATH.search(text)) == seen


@pytest.mark.parametrize("path", NOTEBOOKS, ids=name)
def test_notebooks_are_committed_without_outputs(path):
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    assert not [cell["id"] for cell in cells if cell.get("outputs") or cell.get("execution_count") is not None]


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_every_module_says_what_it_is(path):
    assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))), f"{name(path)} has no docstring"


@pytest.mark.parametrize("path", [path for path in MODULES if not name(path).startswith("tests/")], ids=name)
def test_modules_are_short(path):
    lines = code_lines(path.read_text(encoding="utf-8"))
    assert lines < 400, f"{name(path)} has {lines} lines of code; a module with one job stays under 400"


def test_counting_code_lines():
    assert code_lines('"""Doc.\n\nMore.\n"""\n\n# why\ndef f():\n    """What."""\n    return """a\nb"""\n') == 3


@pytest.mark.parametrize("path", PAGES, ids=name)
def test_pages_are_in_the_house_s_words(path):
    assert slips(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("path", [path for path in MODULES if not name(path).startswith("tests/")], ids=name)
def test_comments_and_docstrings_are_in_the_house_s_words(path):
    text = path.read_text(encoding="utf-8")
    words = [ast.get_docstring(node) or "" for node in ast.walk(ast.parse(text)) if isinstance(node, KINDS)] + comments(text)
    assert [slip for part in words for slip in slips(part)] == []


@pytest.mark.parametrize("path", [path for path in MODULES if name(path).startswith("solutions/")], ids=name)
def test_statements_and_hints_are_in_the_house_s_words(path):
    for exercise in parse_exercises(path.read_text(encoding="utf-8"), int(path.name[2:4]), path.name):
        assert [slip for part in (exercise.statement, *exercise.hints) for slip in slips(part)] == [], exercise.name


@pytest.mark.parametrize("path", [path for path in TEXTS if path.suffix != ".json"], ids=name)
def test_nothing_is_left_to_do(path):
    marks = "|".join(("TO" + "DO", "FIX" + "ME", "XX" + "X"))
    assert not re.search(rf"\b({marks})\b", path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", PAGES, ids=name)
def test_links_and_pictures_of_pages_lead_somewhere(path):
    text = path.read_text(encoding="utf-8")
    for alt, target in re.findall(r"(!?\[[^\]]*\])\(([^)\s]+)\)", text):
        assert alt not in ("[]", "![]"), f"{name(path)}: {target} has no text"
        if not re.match(r"[a-z]+:|#", target):
            assert (path.parent / target.split("#")[0]).exists(), f"{name(path)} leads to {target}, which is not there"


@pytest.mark.parametrize("path", [path for path in FILES if path.suffix == ".sh" or name(path) == ".ci/run"], ids=name)
def test_scripts_can_be_run_and_stop_at_the_first_failure(path):
    assert path.stat().st_mode & 0o111, f"{name(path)} is not executable"
    assert "set -euo pipefail" in path.read_text(encoding="utf-8")
    assert subprocess.run(["bash", "-n", str(path)], capture_output=True).returncode == 0
