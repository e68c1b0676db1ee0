"""The environment: pyproject.toml, constraints.txt, environment.yml and the set-up agree, for every Python the course runs on."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from other_machines import COLAB, H200, need_index, pip
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from tools import pins

ROOT = Path(__file__).resolve().parent.parent
PYTHONS = ("3.10", "3.11", "3.12", "3.13")
CONDA_NAMES = {"torch": "pytorch", "matplotlib": "matplotlib-base", "huggingface-hub": "huggingface_hub"}
PIP_ONLY = {"triton", "playwright"}  # not on conda-forge for every platform, or under another name

PROJECT = pins.pyproject()["project"]
REQUIREMENTS = [Requirement(text) for text in pins.requirements()]


def target(python: str) -> dict[str, str]:
    return {"python_version": python, "python_full_version": f"{python}.0", "platform_system": "Linux", "sys_platform": "linux", "extra": ""}


def pinned(python: str) -> dict[str, str]:
    """{package: version} that constraints.txt gives this Python; a package pinned twice is an error."""
    found: dict[str, str] = {}
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate(target(python)):
            (specifier,) = requirement.specifier
            assert specifier.operator == "==", f"{line}: a constraint is a pin"
            assert requirement.name not in found, f"{requirement.name} is pinned twice for Python {python}"
            found[requirement.name] = specifier.version
    return found


def wanted_by_conda() -> dict[str, SpecifierSet]:
    """What environment.yml must say outside its pip list, from pyproject.toml."""
    return {CONDA_NAMES.get(r.name, r.name): r.specifier for r in REQUIREMENTS if r.name not in PIP_ONLY}


def conda_file() -> tuple[dict, list[str], list[str]]:
    data = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    nested = [entry["pip"] for entry in data["dependencies"] if isinstance(entry, dict)]
    return data, [entry for entry in data["dependencies"] if isinstance(entry, str)], nested[0] if nested else []


@pytest.mark.parametrize("python", PYTHONS)
def test_every_requirement_is_pinned_within_its_range(python):
    versions = pinned(python)
    for requirement in REQUIREMENTS:
        assert requirement.name in versions, f"{requirement.name} has no pin for Python {python}"
        assert requirement.specifier.contains(versions[requirement.name]), f"{requirement} does not admit its pin {versions[requirement.name]}"


def test_the_pins_that_the_course_counts_on():
    for python in PYTHONS:
        versions = pinned(python)
        assert versions["torch"] == "2.13.0" and versions["triton"].startswith("3.7.")
    assert Version(pinned("3.10")["numpy"]) < Version("2.3"), "numpy 2.3 and later need Python 3.11"
    assert Version(pinned("3.10")["ipython"]) < Version("9"), "IPython 9 needs Python 3.11"


@pytest.mark.parametrize(("where", "versions"), [("Colab", COLAB), ("the H200 machine", H200)])
def test_the_ranges_admit_the_machines_people_use(where, versions):
    by_name = {requirement.name: requirement.specifier for requirement in map(Requirement, PROJECT["dependencies"])}
    refused = [f"{name} {version}" for name, version in versions.items() if not by_name[name].contains(version)]
    assert not refused, f"installing the course on {where} would replace {refused}"
    assert set(COLAB) <= set(by_name)


def test_python_versions_agree():
    assert SpecifierSet(PROJECT["requires-python"]) == SpecifierSet(">=3.10,<3.14")
    assert "python>=3.10,<3.14" in conda_file()[1]


def test_triton_is_asked_for_on_linux_only():
    (triton,) = [r for r in REQUIREMENTS if r.name == "triton"]
    assert triton.marker.evaluate({"platform_system": "Linux"}) and not triton.marker.evaluate({"platform_system": "Darwin"})


def test_environment_yml_has_the_keys_conda_reads():
    data, conda, pip = conda_file()
    assert set(data) == {"name", "channels", "dependencies"} and data["channels"] == ["conda-forge", "nodefaults"]
    assert "pip" in conda, "conda asks for pip to be named before a pip: list"
    assert "-e ." in pip


def test_environment_yml_says_what_pyproject_says():
    _, conda, pip = conda_file()
    said = {Requirement(entry).name: Requirement(entry).specifier for entry in conda if entry != "pip" and not entry.startswith("python>")}
    assert said == wanted_by_conda()
    by_pip = {Requirement(entry).name: Requirement(entry) for entry in pip if entry != "-e ."}
    assert by_pip == {r.name: r for r in REQUIREMENTS if r.name in PIP_ONLY}


def strict_spec(text: str):
    rattler = pytest.importorskip("rattler", reason="py-rattler is not installed: conda specs cannot be parsed")
    return rattler.MatchSpec(text, strict=True)


def test_conda_reads_every_spec():
    for entry in conda_file()[1]:
        spec = strict_spec(entry)
        assert spec.name.normalized == Requirement(entry).name, entry


@pytest.mark.parametrize("wrong", ["numpy>>2", "numpy>=2,<", "numpy==2==3"])
def test_a_malformed_spec_is_noticed(wrong):
    pytest.importorskip("rattler", reason="py-rattler is not installed: conda specs cannot be parsed")
    with pytest.raises(Exception, match=r"."):
        strict_spec(wrong)


def test_pins_merge_into_markers():
    ten, eleven, twelve = {"a": "1", "b": "1", "d": "1"}, {"a": "1", "b": "2", "c": "5", "d": "2"}, {"a": "1", "b": "2", "d": "1"}
    text = pins.merged({"3.10": ten, "3.11": eleven, "3.12": twelve})
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    assert lines == [
        "a==1",
        'b==1; python_version == "3.10"',
        'b==2; python_version >= "3.11"',
        'c==5; python_version == "3.11"',
        'd==1; python_version == "3.10" or python_version == "3.12"',
        'd==2; python_version == "3.11"',
    ]


# ---- the package index ----


@pytest.fixture(scope="session")
def index():
    need_index()


@pytest.mark.network
@pytest.mark.parametrize("python", PYTHONS)
def test_the_pins_install_together(python, index, tmp_path):
    """Every pin exists as a wheel for this Python, and what each asks for is pinned, within its range."""
    versions = pinned(python)
    listed = pip("index", "versions", "torch", "--python-version", python, "--only-binary=:all:").stdout
    assert versions["torch"] in [version.strip() for version in listed.partition("Available versions:")[2].splitlines()[0].split(",")]
    texts = [f"{name}=={version}" for name, version in versions.items() if name != "torch"]  # its wheel is too large to open here
    # pip compares a wheel's requires-python with the Python it runs on, not with --python-version: it is compared below instead
    options = ["--dry-run", "--no-deps", "--ignore-installed", "--ignore-requires-python", "-qq", "--report", "-", "--target", str(tmp_path)]
    run = pip("install", *options, "--only-binary=:all:", "--python-version", python, *texts)
    assert run.returncode == 0, run.stderr[-2000:]
    for item in json.loads(run.stdout)["install"]:
        metadata = item["metadata"]
        assert SpecifierSet(metadata.get("requires_python") or "").contains(f"{python}.10"), f"{metadata['name']} does not run on Python {python}"
        for needed in map(Requirement, metadata.get("requires_dist", [])):
            if needed.marker is None or needed.marker.evaluate(target(python)):
                name = needed.name.lower().replace("_", "-").replace(".", "-")
                asks = f"{metadata['name']} asks for {needed}"
                assert name in versions, f"{asks}, which is not pinned for Python {python}"
                assert needed.specifier.contains(versions[name], prereleases=True), f"{asks}; the pin is {versions[name]}"


# ---- the set-up ----


@pytest.fixture
def checkout(tmp_path):
    """A folder with the files that the set-up reads, and an environment without the virtual environment of these tests."""
    (tmp_path / "tools").mkdir()
    for name in ("pyproject.toml", "constraints.txt", "tools/setup.sh", "tools/lab_settings.json", "Makefile"):
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def set_up(checkout: Path, **variables: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, **variables}
    return subprocess.run([str(checkout / "tools" / "setup.sh")], capture_output=True, text=True, env=environment, timeout=120)


def fake_python(folder: Path, answer: str) -> Path:
    """An interpreter that exits with 0 exactly when `answer` stands in the code it is given."""
    path = folder / "python3"
    path.write_text(f'#!/bin/sh\ncase "$2" in *"{answer}"*) exit 0;; esac\nexit 1\n', encoding="utf-8")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [("version_info", "apt install python3-venv"), ("never", "which is not a Python between 3.10 and 3.13")],
)
def test_set_up_says_which_python_it_misses(checkout, answer, sentence):
    run = set_up(checkout, COURSE_PYTHON=str(fake_python(checkout, answer)))
    assert run.returncode == 1 and sentence in run.stderr
    assert not (checkout / ".venv").exists()


def test_set_up_says_when_there_is_no_python_at_all(checkout):
    tools = checkout / "bin"
    tools.mkdir()
    for name in ("bash", "dirname", "env"):
        (tools / name).symlink_to(shutil.which(name))
    run = set_up(checkout, PATH=str(tools), COURSE_PYTHON="")
    assert run.returncode == 1 and "no Python between 3.10 and 3.13 was found" in run.stderr


def test_set_up_says_when_pip_finds_nothing_and_leaves_no_stamp(checkout):
    run = set_up(checkout, COURSE_PYTHON=sys.executable, PIP_NO_INDEX="1", PIP_FIND_LINKS=str(checkout), PIP_CONFIG_FILE=os.devnull)
    assert run.returncode == 1 and "Most often there is no network" in run.stderr
    assert not (checkout / ".venv" / "installed").exists(), "a set-up that failed must run again"


def test_make_installs_only_when_something_changed(checkout):
    make = shutil.which("make")
    if make is None:
        pytest.skip("make is not installed here")
    (checkout / ".venv").mkdir()
    (checkout / ".venv" / "installed").touch()
    dry = [make, "--dry-run", "test"]
    assert "setup.sh" not in subprocess.run(dry, cwd=checkout, capture_output=True, text=True).stdout
    os.utime(checkout / "constraints.txt", (2e9, 2e9))
    assert "tools/setup.sh" in subprocess.run(dry, cwd=checkout, capture_output=True, text=True).stdout


LATER = re.findall(r"^([a-z]+):.*## \(later\)", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)


@pytest.mark.parametrize("goal", LATER)
def test_targets_of_later_issues_say_so(checkout, goal):
    run = subprocess.run(["make", goal], cwd=checkout, capture_output=True, text=True)
    assert run.returncode == 2 and run.stderr.startswith(f"make {goal}: ")


# ---- the package ----


def test_the_package_works_uninstalled(tmp_path):
    code = "import course_lib, kernels; from course_lib.chapters import CHAPTERS; print(len(CHAPTERS))"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    run = subprocess.run([sys.executable, "-S", "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert int(run.stdout) == 22


def test_the_course_command_exists():
    module, _, function = PROJECT["scripts"]["course"].partition(":")
    assert callable(getattr(__import__(module, fromlist=[function]), function))


def test_transformers_still_imports_beside_this_repository():
    """Hugging Face's package `kernels` has the name of our folder; transformers looks for it when it is imported."""
    pytest.importorskip("transformers", reason="transformers is not installed here, so there is nothing to get in the way of")
    code = "import kernels, transformers; from transformers import LlamaConfig, LlamaForCausalLM; print(kernels.__file__)"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-1500:]
    assert Path(run.stdout.strip().splitlines()[-1]).is_relative_to(ROOT)
