"""`course doctor`: one line for everything the course needs here, and what to do where something is missing."""

import contextlib
import importlib.metadata
import importlib.util
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from course_lib import hardware, paths

FREE_MIB = 200


@dataclass(frozen=True)
class Finding:
    """One line of the report. ok False makes the exit code 1; `todo` says what to do then."""

    name: str
    ok: bool
    text: str
    todo: str = ""


def main() -> int:
    findings = list(examine())
    wide = max(len(finding.name) for finding in findings)
    for finding in findings:
        print(f"{'ok     ' if finding.ok else 'problem'}  {finding.name:<{wide}}  {finding.text}")
        if not finding.ok and finding.todo:
            print(f"{'':<{wide + 11}}{finding.todo}")
    problems = sum(not finding.ok for finding in findings)
    print(f"\n{'Everything the course needs is here.' if not problems else f'{problems} problem' + ('s.' if problems > 1 else '.')}")
    return 1 if problems else 0


def examine() -> Iterator[Finding]:
    """Every finding, in the order of the report. An examination that fails itself is a problem, not a crash."""
    for examination in (_python, _packages, _torch, _triton, _gpu, _containment, _jupyter, _folder, _space):
        try:
            yield from examination()
        except Exception as error:
            yield Finding(examination.__name__.strip("_"), False, f"could not be examined ({type(error).__name__}: {error})")


def _python() -> Iterator[Finding]:
    version = ".".join(map(str, sys.version_info[:3]))
    ok = (3, 10) <= sys.version_info[:2] <= (3, 13)
    yield Finding("python", ok, f"{version} ({sys.executable})", "The course runs on Python 3.10 to 3.13. Make an environment with one of these.")


def version_of(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _torch() -> Iterator[Finding]:
    version = version_of("torch")
    cuda = hardware.torch_cuda_version()
    yield Finding(
        "torch", version is not None, f"{version}, {f'CUDA {cuda}' if cuda else 'CPU build'}" if version else "not installed", "Run: make lab"
    )


def _triton() -> Iterator[Finding]:
    version = version_of("triton") or version_of("pytorch-triton")
    if version or hardware.has_triton():
        yield Finding("triton", True, str(version or "there"))
    elif sys.platform.startswith("linux"):
        yield Finding("triton", False, "not installed", "Run: make lab, or pip install triton. Exercises with a kernel are blocked until then.")
    else:
        yield Finding("triton", True, "has no package for this system: exercises with a kernel are blocked. Use Colab or WSL for those.")


def _gpu() -> Iterator[Finding]:
    made = hardware.decision()
    yield Finding("gpu", True, str(made.gpu) if made.gpu else "none (the course works without one)")
    yield Finding("tier", not made.warning, f"{made.tier}: {made.why}", made.warning)


def _containment() -> Iterator[Finding]:
    try:
        from course_lib.grading.contain import containment
    except ImportError as error:
        yield Finding("containment", False, f"the grader cannot be loaded ({error})", "Run: make lab")
        return
    yield Finding("containment", True, containment()["sentence"])


def _jupyter() -> Iterator[Finding]:
    lab, ipython, widgets = version_of("jupyterlab"), version_of("ipython"), version_of("ipywidgets")
    elsewhere = "google.colab" in sys.modules or "KAGGLE_KERNEL_RUN_TYPE" in os.environ
    yield Finding("jupyterlab", bool(lab) or elsewhere, str(lab or "not installed"), "Run: make lab. (VS Code, Colab and Kaggle work without it.)")
    yield Finding("ipython", bool(ipython and widgets), f"{ipython or 'not installed'}, ipywidgets {widgets or 'not installed'}", "Run: make lab")


def _folder() -> Iterator[Finding]:
    """Whether the learner's work can be written."""
    home = paths.home()
    where = f"{home} {'(from COURSE_HOME)' if os.environ.get('COURSE_HOME') else ''}".strip()
    todo = "Make the folder writable, or set COURSE_HOME to a folder of yours: your answers and progress go there."
    folder = next(parent for parent in (home, *home.absolute().parents) if parent.exists())
    for place in {paths.answers(), paths.records(), folder}:
        if not place.exists():
            continue
        try:
            with tempfile.TemporaryFile(dir=place):
                pass
        except OSError as error:
            yield Finding("your work", False, f"{place} cannot be written ({error.strerror or error})", todo)
            return
    yield Finding("your work", True, f"goes to {where}")


def _space() -> Iterator[Finding]:
    home = paths.home().absolute()
    folder = next(parent for parent in (home, *home.parents) if parent.exists())
    free = shutil.disk_usage(folder).free / 2**20
    text = f"{free / 1024:.1f} GiB free" if free > 1024 else f"{free:.0f} MiB free"
    yield Finding("disk", free > FREE_MIB, text, f"The course wants {FREE_MIB} MiB: free some space, or set COURSE_HOME to a folder on another disk.")


def _packages() -> Iterator[Finding]:
    """Installed versions against the ranges of pyproject.toml; the pins of constraints.txt are what the course was tested with."""
    from packaging.requirements import Requirement

    wrong, others = [], []
    pins = dict(_pins())
    for requirement in map(Requirement, requirements()):
        if requirement.marker and not requirement.marker.evaluate():
            continue
        version = version_of(requirement.name)
        if version is None or not requirement.specifier.contains(version, prereleases=True):
            wrong.append(f"{requirement.name} {requirement.specifier} (here: {version or 'none'})")
        elif pins.get(requirement.name.lower()) not in (None, version.partition("+")[0]):
            others.append(f"{requirement.name} {version} (tested: {pins[requirement.name.lower()]})")
    if wrong:
        yield Finding("packages", False, f"the course needs {', '.join(wrong)}", "Run: make lab, which installs the tested versions into .venv.")
    elif others:
        yield Finding("packages", True, f"in range; other versions than the tested ones: {', '.join(others)}")
    else:
        yield Finding("packages", True, "the versions the course is tested with")


def requirements() -> list[str]:
    """What the course itself depends on: from pyproject.toml in a checkout, else from the installed package."""
    try:
        import tomllib
    except ModuleNotFoundError:  # Python 3.10
        from pip._vendor import tomli as tomllib
    path = paths.ROOT / "pyproject.toml"
    if path.exists():
        return tomllib.loads(path.read_text(encoding="utf-8"))["project"]["dependencies"]
    return [text for text in importlib.metadata.requires("attention-tile-by-tile") or [] if "extra ==" not in text]


def _pins() -> Iterator[tuple[str, str]]:
    """The pins of constraints.txt that hold for this Python."""
    from packaging.requirements import InvalidRequirement, Requirement

    path = Path(paths.ROOT / "constraints.txt")
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        with contextlib.suppress(InvalidRequirement):
            requirement = Requirement(line.partition("#")[0].strip())
            pinned = re.search(r"==\s*([\w.]+)", str(requirement.specifier))
            if pinned and (not requirement.marker or requirement.marker.evaluate()):
                yield requirement.name.lower(), pinned[1]
