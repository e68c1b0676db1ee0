"""Our model against transformers': tests/llm_parity.py, run in an environment that has transformers beside the course's own packages.

transformers is no dependency of the course. Its environment is kept in pytest's cache, named by what is in it, and made again when that changes.
The same run shows that `kernels`, which is also the name of a package that transformers looks for, does not stand in its way.
"""

import hashlib
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import llm_parity
import pytest
from other_machines import need_index, pip

WANTED = "transformers>=5,<6"
SCRIPT = Path(llm_parity.__file__)


@pytest.fixture(scope="module")
def python(request) -> Path:
    """An interpreter that finds the packages of the one running this test, and transformers."""
    key = hashlib.sha256("\n".join([sys.version, sys.prefix, WANTED]).encode()).hexdigest()[:12]
    cache = request.config.cache.mkdir("transformers")
    folder = cache / key
    if not (folder / "ready").exists():
        need_index()
        for old in cache.iterdir():
            shutil.rmtree(old, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        own = next(folder.glob("lib/python*/site-packages"))
        (own / "course.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
        run = pip("install", "-q", "--disable-pip-version-check", WANTED, python=str(folder / "bin" / "python"))
        assert run.returncode == 0, run.stderr[-2000:]
        (folder / "ready").touch()
    return folder / "bin" / "python"


def asked(python: Path, *arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([str(python), str(SCRIPT), *arguments], capture_output=True, text=True, timeout=800)


@pytest.mark.network
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_logits_and_two_hundred_greedy_tokens_are_those_of_transformers(python):
    run = asked(python)
    lines = run.stdout.splitlines()
    assert run.returncode == 0, run.stdout + run.stderr[-2000:]
    assert {line.split(":")[0].split(maxsplit=1)[1] for line in lines[:-1]} == {"target", "draft", *llm_parity.RANDOM}
    assert re.search(rf"{len(lines) - 1} checkpoints, 0 differ", lines[-1])


@pytest.mark.network
@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("spoil", ["theta", "norm"])
def test_a_difference_is_noticed(python, spoil):
    """The comparison itself can fail: another theta, or a forgotten norm of the keys."""
    run = asked(python, "--only", "qwen3", "--spoil", spoil)
    assert run.returncode == 1 and run.stdout.startswith("DIFFERS qwen3"), run.stdout + run.stderr[-2000:]
