"""Who may import whom (one way): kernels < base < solutions < engine < grading and checks < widgets and commands.

Imports are read, not run, wherever they stand in a file, `import_module("a literal name")` included. The package's own
`__init__` resolves its public names on first use, from a table of strings: that is the one way round, and it is meant.
"""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tools import pins

ROOT = Path(__file__).resolve().parent.parent
LAYERS = ("kernels", "base", "solutions", "engine", "grading", "front")
OWN = {"kernels", "course_lib", "solutions", "exercises", "tests", "tools", "notebooks", "benchmarks", "answers"}
FOLDERS = {"engine": "engine", "grading": "grading", "checks": "grading", "widgets": "front", "commands": "front"}
IMPORT_NAMES = {"ipython": "IPython", "huggingface-hub": "huggingface_hub"}
GIVEN_BY_THE_HOST = {"flashinfer", "google", "pip", "tomllib"}  # google.colab on Colab; a TOML reader: Python's from 3.11 on, before that pip's


def layer(module: str) -> str | None:
    """The layer of a dotted module name of ours; None for what lies outside the layers."""
    parts = module.split(".")
    if parts[0] in ("kernels", "solutions"):
        return parts[0]
    if parts[0] == "course_lib":
        return FOLDERS.get(parts[1], "base") if len(parts) > 1 else "base"
    return None


def module_name(path: Path, root: Path = ROOT) -> str:
    parts = list(path.relative_to(root).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(text: str, module: str = "", package: bool = False) -> set[str]:
    """The dotted names that a text imports: `from a import b` counts as a.b, since b may be a module."""
    found = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = module.split(".")[: len(module.split(".")) - node.level + package]
                base = ".".join([*above, *([base] if base else [])])
            found |= {f"{base}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", "")) in ("import_module", "__import__"):
            found |= {a.value for a in node.args[:1] if isinstance(a, ast.Constant) and isinstance(a.value, str)}
    return found


def files(*folders: str) -> list[Path]:
    return [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]


def wrong_way(module: str, imported: set[str]) -> list[str]:
    """The imports that a module of a layer must not have."""
    mine = layer(module)
    found = []
    for name in sorted(imported):
        theirs, top = layer(name), name.split(".")[0]
        if theirs is None and top in OWN:
            found.append(f"{module} imports {name}: nothing imports {top}/")
        elif theirs is not None and LAYERS.index(theirs) > LAYERS.index(mine):
            found.append(f"{module} ({mine}) imports {name} ({theirs})")
        elif mine == "kernels" and theirs is None and top not in ("torch", "triton") and top not in sys.stdlib_module_names:
            found.append(f"{module} imports {top}: a kernel file imports torch and triton only")
    return found


def read(path: Path) -> set[str]:
    return imports(path.read_text(encoding="utf-8"), module_name(path), path.name == "__init__.py")


@pytest.mark.parametrize("path", files("kernels", "course_lib", "solutions"), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_one_way(path):
    assert wrong_way(module_name(path), read(path)) == []


@pytest.mark.parametrize("path", files("exercises"), ids=lambda path: path.name)
def test_stubs_import_what_solutions_import(path):
    assert read(path) == read(ROOT / "solutions" / path.name)


def test_tools_do_not_need_the_tests():
    for path in files("tools"):
        assert not {name for name in read(path) if name.split(".")[0] in ("tests", "exercises", "solutions")}, path


@pytest.mark.parametrize("path", files("kernels", "course_lib", "solutions"), ids=lambda path: str(path.relative_to(ROOT)))
def test_what_is_imported_is_a_declared_dependency(path):
    declared = {Requirement(text).name for text in pins.pyproject()["project"]["dependencies"]}
    allowed = {IMPORT_NAMES.get(name, name) for name in declared} | OWN | GIVEN_BY_THE_HOST | set(sys.stdlib_module_names)
    assert {name.split(".")[0] for name in read(path)} - allowed == set()


def test_every_layer_is_known():
    folders = {path.name for path in (ROOT / "course_lib").iterdir() if path.is_dir() and not path.name.startswith((".", "_"))}
    unknown = folders - set(FOLDERS) - {"figures", "llm"}
    assert not unknown, f"course_lib/{unknown}: say in this test which layer it belongs to"


def test_importing_the_library_loads_neither_torch_nor_grading():
    code = "import sys, course_lib; print([m for m in sys.modules if re.match(r'torch|triton|matplotlib|course_lib\\.', m)])"
    run = subprocess.run([sys.executable, "-c", "import re; " + code], cwd=ROOT, capture_output=True, text=True)
    assert run.stdout.strip() == "[]", run.stdout + run.stderr


@pytest.mark.parametrize(
    ("module", "text", "finding"),
    [
        ("course_lib.oracles", "from course_lib.grading import spec", "course_lib.oracles (base) imports course_lib.grading.spec (grading)"),
        ("course_lib.oracles", "def f():\n    import course_lib.widgets.shell", "(front)"),
        ("course_lib.oracles", "from .grading import spec", "course_lib.grading.spec (grading)"),
        ("course_lib.oracles", "from . import grading", "course_lib.grading (grading)"),
        ("course_lib.oracles", "from course_lib import widgets", "course_lib.widgets (front)"),
        ("course_lib.oracles", "import importlib\nimportlib.import_module('course_lib.commands.cli')", "(front)"),
        ("course_lib.grading.judge", "from course_lib.widgets import shell", "(front)"),
        ("course_lib.grading.judge", "import tests.helper", "nothing imports tests/"),
        ("course_lib.commands.check", "from tools.sync import plan", "nothing imports tools/"),
        ("solutions.ch03_online_softmax", "from exercises import ch02", "nothing imports exercises/"),
        ("kernels.softmax", "from course_lib import roofline", "kernels.softmax (kernels) imports course_lib.roofline (base)"),
        ("kernels.softmax", "import numpy", "a kernel file imports torch and triton only"),
    ],
)
def test_a_wrong_import_is_found(module, text, finding):
    found = wrong_way(module, imports(text, module))
    assert len(found) == 1 and re.search(re.escape(finding), found[0]), found


@pytest.mark.parametrize(
    ("module", "text"),
    [
        ("course_lib.grading.judge", "from course_lib import oracles\nfrom course_lib.checks import ch03"),
        ("course_lib.commands.check", "from course_lib.widgets import shell\nimport course_lib.grading.api"),
        ("course_lib.oracles", "import kernels.softmax, torch, math"),
        ("kernels.softmax", "import math\nimport torch\nimport triton.language as tl"),
    ],
)
def test_a_right_import_is_left_alone(module, text):
    assert wrong_way(module, imports(text, module)) == []
