"""The byte counter against closed forms, on the triton that is installed and, with the package index, on the oldest and the newest."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.version import Version

pytest.importorskip("triton")

ROOT = Path(__file__).resolve().parent.parent
CASES = ROOT / "tests" / "kernels_for_counting" / "cases.py"


def counted(*folders: Path) -> list[dict]:
    """Every case, counted by a fresh process that finds packages in these folders first."""
    path = os.pathsep.join(str(folder) for folder in (*folders, ROOT))
    environment = {**os.environ, "PYTHONPATH": path, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, str(CASES)], capture_output=True, text=True, env=environment, timeout=250)
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


def wrong(found: list[dict]) -> list[str]:
    """The cases that differ from the closed form in anything, or whose values are not right."""
    return [f"{one['case']}: {one['counted']}, not {one['closed']}" for one in found if one["counted"] != one["closed"] or not one["right"]]


def test_every_kernel_is_counted_exactly():
    found = counted()
    assert len(found) > 25 and wrong(found) == []


def test_a_difference_is_seen():
    exact = {"case": "copy", "counted": {"bytes_loaded": 280}, "closed": {"bytes_loaded": 280}, "right": True}
    assert wrong([exact]) == []
    assert len(wrong([{**exact, "counted": {"bytes_loaded": 284}}, {**exact, "right": False}])) == 2


NUMPY = {"3.6.0": ["numpy<2.4"]}  # triton up to 3.6 raises TypeError with newer ones


@pytest.mark.network
@pytest.mark.parametrize("version", ["3.6.0", "3.7.1", "newest"])
def test_on_other_versions_of_triton(version, tmp_path):
    """Only triton is installed anew (and numpy, for the oldest), before the packages that are here."""
    packages = ["triton" if version == "newest" else f"triton=={version}", *NUMPY.get(version, [])]
    options = ["install", "-q", "--no-deps", "--disable-pip-version-check", "--target", str(tmp_path)]
    done = subprocess.run([sys.executable, "-m", "pip", *options, *packages], capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr[-2000:]
    found = counted(tmp_path)
    ran = {one["triton"] for one in found}
    print(f"triton {', '.join(ran)}: {len(found)} cases")
    assert len(ran) == 1 and (ran == {version} or (version == "newest" and Version(ran.pop()) >= Version("3.9")))
    assert len(found) > 25 and wrong(found) == []
