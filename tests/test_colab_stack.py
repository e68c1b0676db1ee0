"""The notebooks on Colab's widget stack: IPython 7, ipywidgets 7 and its numpy, in an environment of their own.

torch and triton are borrowed from the environment that runs the tests: their own versions are for Colab's GPUs, and
large. The environment is kept in pytest's cache, named by its requirements, and made again when these change.
"""

import hashlib
import importlib.metadata
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from conftest import MINI_COURSE
from other_machines import COLAB_STACK, need_index, pip

from course_lib.grading.catalogue import solution_text
from course_lib.source import parse_exercises
from tools import run_notebooks
from tools.pins import TORCH_NEEDS, pyproject
from tools.sync import ROOT, solved

BORROWED = ("torch*", "functorch*", "triton*", "nvidia*", "cuda*")  # with the CUDA packages that torch's build for GPUs loads
NOTEBOOKS = ("00_start_here", "03_online_softmax")
KERNEL = "colab-stack"
LIMIT = 120.0  # seconds a notebook; the course's own limit is held by test_notebooks_run.py


def on_the_stack(test):
    """It installs packages, and a notebook on two stacks takes its time."""
    return pytest.mark.network(pytest.mark.slow(pytest.mark.timeout(600)(test)))


def wanted() -> list[str]:
    """The stack, then what else the course needs at run time, and torch's own small requirements; triton asks for none."""
    others = [text for text in pyproject()["project"]["dependencies"] if re.split(r"[^\w-]", text)[0] not in ("torch", "triton", *COLAB_STACK)]
    return [f"{name}=={version}" for name, version in COLAB_STACK.items()] + others + list(TORCH_NEEDS)


def make(folder: Path) -> None:
    """A virtual environment with these, and a path file that finds torch and triton after its own packages."""
    need_index()
    shutil.rmtree(folder, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    run = pip("install", "-q", "--disable-pip-version-check", "--upgrade", *wanted(), python=str(folder / "bin" / "python"))
    assert run.returncode == 0, run.stderr[-2000:]
    source = Path(importlib.util.find_spec("torch").origin).parent.parent
    (folder / "borrowed").mkdir()
    for path in {path for pattern in BORROWED for path in source.glob(pattern)}:
        (folder / "borrowed" / path.name).symlink_to(path)
    own = next(folder.glob("lib/python*/site-packages"))
    (own / "borrowed.pth").write_text(f"{folder / 'borrowed'}\n", encoding="utf-8")
    (folder / "ready").touch()


@pytest.fixture(scope="module")
def colab(request):
    """The environment's interpreter, and a Jupyter kernel of it under the name KERNEL."""
    versions = [importlib.metadata.version(name) for name in ("torch", "triton")]
    key = hashlib.sha256("\n".join([sys.version, sys.prefix, *versions, *wanted()]).encode()).hexdigest()[:12]
    cache = request.config.cache.mkdir("colab-stack")
    folder = cache / key
    if not (folder / "ready").exists():
        for old in cache.iterdir():
            shutil.rmtree(old, ignore_errors=True)
        make(folder)
    spec = folder / "share" / "jupyter" / "kernels" / KERNEL
    spec.mkdir(parents=True, exist_ok=True)
    argv = [str(folder / "bin" / "python"), "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    (spec / "kernel.json").write_text(json.dumps({"argv": argv, "display_name": KERNEL, "language": "python"}), encoding="utf-8")
    path = os.pathsep.join(part for part in (str(folder / "share" / "jupyter"), os.environ.get("JUPYTER_PATH", "")) if part)
    with run_notebooks.environment(JUPYTER_PATH=path):
        yield folder / "bin" / "python"


@pytest.fixture(scope="module")
def runs(tmp_path_factory, colab):
    """A function that runs a notebook on one of the two stacks, once."""
    done = {}
    copies = solved(ROOT, tmp_path_factory.mktemp("solved"))

    def run(stem: str, mode: str, kernel: str) -> run_notebooks.Run:
        if (stem, mode, kernel) not in done:
            (path,) = [path for path in (copies if mode == "solved" else (ROOT / "notebooks").glob("*.ipynb")) if path.stem == stem]
            home = tmp_path_factory.mktemp(f"{kernel}-{mode}-{stem}")
            done[stem, mode, kernel] = run_notebooks.run(path, mode, home, limit=LIMIT, kernel=kernel)
        return done[stem, mode, kernel]

    return run


@on_the_stack
def test_it_is_colab_s_stack(colab):
    """Its own packages come before what is borrowed, and the borrowed torch and triton work with its numpy."""
    code = (
        "import json, numpy, torch, triton, IPython, ipykernel, ipywidgets, matplotlib\n"
        "modules = dict(ipython=IPython, ipykernel=ipykernel, ipywidgets=ipywidgets, matplotlib=matplotlib, numpy=numpy)\n"
        "torch.from_numpy(numpy.ones(3)).sum().item()\n"
        "print(json.dumps({name: module.__version__ for name, module in modules.items()}))"
    )
    run = subprocess.run([colab, "-c", code], capture_output=True, text=True, cwd=colab.parent)
    assert run.returncode == 0, run.stderr[-1500:]
    assert json.loads(run.stdout) == COLAB_STACK


@on_the_stack
def test_an_interpreted_kernel_is_graded_there(colab, tmp_path):
    """triton's interpreter computes with numpy: a kernel's solution passes with Colab's."""
    source = MINI_COURSE / "solutions" / "ch90_mini.py"
    (kernel,) = [exercise for exercise in parse_exercises(source.read_text(encoding="utf-8"), 90, source.name) if exercise.kind == "triton"]
    (tmp_path / "answer.py").write_text(solution_text(kernel), encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COURSE_HOME": str(tmp_path / "home"), "COURSE_EXTRA": str(MINI_COURSE)}
    command = [colab, "-m", "course_lib.commands.cli", "check", kernel.name, "--file", str(tmp_path / "answer.py"), "--json", "-"]
    run = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment)
    assert run.returncode == 0, run.stdout[-1500:] + run.stderr[-1500:]


@on_the_stack
@pytest.mark.parametrize("mode", ["unsolved", "solved"])
@pytest.mark.parametrize("stem", NOTEBOOKS)
def test_a_notebook_runs_there(runs, stem, mode):
    """No error, and every exercise ends as it should: not written yet, or passed."""
    run = runs(stem, mode, KERNEL)
    assert not run.problems, run


@on_the_stack
@pytest.mark.parametrize("mode", ["unsolved", "solved"])
def test_panels_are_the_same_as_on_the_newest_stack(runs, mode):
    """What check, hint, predict and the stepper show: the same tags, attributes and words; only numbers may differ."""
    here, there = (runs("03_online_softmax", mode, kernel) for kernel in ("python3", KERNEL))
    assert not here.problems, here
    assert len(here.cells) == len(there.cells)
    graded = 0
    for one, other in zip(here.cells, there.cells, strict=True):
        panels = statuses(one)
        assert statuses(other) == panels, one["source"]
        graded += bool(panels) and "check(" in one["source"]
    assert graded == sum("exercise:" in str(cell["metadata"].get("tags")) for cell in here.cells) > 0


# ---- what is compared


class Skeleton(HTMLParser):
    """The tags, the names of their attributes, roles and words of a page; numbers, colours and pictures left out."""

    def __init__(self):
        super().__init__()
        self.parts: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.parts.append(f"<{tag} {' '.join(sorted(name + '=' + value if name in ('role', 'aria-live') else name for name, value in attrs))}>")

    def handle_endtag(self, tag):
        self.parts.append(f"</{tag}>")

    def handle_data(self, data):
        self.parts.append(re.sub(r"\d+(\.\d+)?(e[+-]?\d+)?", "#", " ".join(data.split())))


def skeleton(html: str) -> list[str]:
    reader = Skeleton()
    reader.feed(html)
    reader.close()
    return [part for part in reader.parts if part]


def statuses(cell: dict) -> list[tuple[list[str], bool]]:
    """For each panel that a cell shows: the skeleton of its HTML, and whether it has a text for where there is no HTML."""
    pages = [output.get("data", {}) for output in cell.get("outputs", [])]
    return [(skeleton(page["text/html"]), bool(page.get("text/plain"))) for page in pages if 'role="status"' in page.get("text/html", "")]


def test_a_difference_is_seen():
    def shown(html):
        return statuses({"outputs": [{"data": {"text/html": html, "text/plain": "x"}}]})

    panel = '<div role="status" style="color:red"><b>passed</b> in 0.12 s</div>'
    assert shown(panel) == shown(panel.replace("0.12", "3").replace("red", "blue")) != []
    assert shown(panel) != shown(panel.replace("passed", "failed")) and shown(panel) != shown(panel.replace("<b>", "<b><i>"))
    assert shown(panel) != shown(panel.replace("status", "region")) == []
