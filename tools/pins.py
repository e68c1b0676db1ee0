"""Write constraints.txt: one pinned version of every package, for every Python the course runs on.

    .venv/bin/python -m tools.pins python3.10 python3.11 python3.12 python3.13

Each interpreter resolves the requirements of pyproject.toml in a dry run; where they agree, one line comes out, where not,
one line a group of Pythons. torch is not resolved (its wheel is large): its version is TORCH, its small dependencies are listed here.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TORCH = "2.13.0"
TRITON = "3.7.1"  # the version that torch's own build for GPUs asks for
HELD = ("numpy<2.5",)  # one numpy for Python 3.11 to 3.13: the one the course is tested with
TORCH_NEEDS = ("filelock", "typing-extensions", "setuptools", "sympy", "networkx", "jinja2", "fsspec")
HEADER = """\
# The versions that `make` and CI install. Written by `python -m tools.pins` (see CONTRIBUTING.md); by hand: change, then make test.
# pyproject.toml has the ranges; tests/test_environment.py checks that these pins lie within them, for Python 3.10 to 3.13.
"""


def pyproject() -> dict:
    """pyproject.toml as a dictionary; on Python 3.10, which has no TOML reader of its own, pip's is used."""
    try:
        import tomllib
    except ModuleNotFoundError:
        from pip._vendor import tomli as tomllib
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def requirements() -> list[str]:
    """Every direct requirement of the course: runtime, lab and dev."""
    project = pyproject()["project"]
    return [*project["dependencies"], *project["optional-dependencies"]["lab"], *project["optional-dependencies"]["dev"]]


def resolve(python: str) -> tuple[str, dict[str, str]]:
    """Ask one interpreter's pip: ("3.11", {package: version}). SystemExit in a sentence where it cannot."""
    wanted = [r for r in requirements() if not r.startswith(("torch", "triton"))] + [f"triton=={TRITON}", *HELD, *TORCH_NEEDS]
    try:
        version = subprocess.run([python, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"], capture_output=True, text=True, check=True)
        run = subprocess.run(
            [python, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--quiet", "--only-binary=:all:", "--report", "-", *wanted],
            capture_output=True,
            text=True,
            check=True,
        )
    except FileNotFoundError:
        raise SystemExit(f"pins: there is no interpreter {python!r}; name those that exist") from None
    except subprocess.CalledProcessError as error:
        raise SystemExit(f"pins: {python} could not resolve the requirements:\n{error.stderr.strip()}") from None
    found = json.loads(run.stdout)["install"]
    pins = {item["metadata"]["name"].lower().replace("_", "-"): item["metadata"]["version"] for item in found}
    return version.stdout.strip(), {**pins, "torch": TORCH}


def merged(resolved: dict[str, dict[str, str]]) -> str:
    """The text of constraints.txt from {"3.10": {package: version}, ...}."""
    pythons = sorted(resolved, key=lambda v: tuple(map(int, v.split("."))))
    lines = []
    for package in sorted({package for pins in resolved.values() for package in pins}):
        groups: dict[str, list[str]] = {}
        for python in pythons:
            if package in resolved[python]:
                groups.setdefault(resolved[python][package], []).append(python)
        lines += [f"{package}=={version}{_marker(group, pythons)}" for version, group in groups.items()]
    return HEADER + "\n".join(lines) + "\n"


def _marker(group: list[str], pythons: list[str]) -> str:
    if group == pythons:
        return ""
    first, last = pythons.index(group[0]), pythons.index(group[-1])
    if group != pythons[first : last + 1]:
        return "; " + " or ".join(f'python_version == "{python}"' for python in group)
    if len(group) == 1:
        return f'; python_version == "{group[0]}"'
    parts = [f'python_version >= "{group[0]}"'] if first else []
    parts += [f'python_version <= "{group[-1]}"'] if last < len(pythons) - 1 else []
    return "; " + " and ".join(parts)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.pins", description="write constraints.txt")
    parser.add_argument("pythons", nargs="+", metavar="PYTHON", help="interpreters to resolve for, such as python3.10 python3.13")
    arguments = parser.parse_args(argv)
    resolved = dict(resolve(python) for python in arguments.pythons)
    (ROOT / "constraints.txt").write_text(merged(resolved), encoding="utf-8")
    print(f"constraints.txt: {len(set().union(*resolved.values()))} packages for Python {', '.join(sorted(resolved))}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
