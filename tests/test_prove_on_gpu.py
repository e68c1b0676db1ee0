"""tools.prove_on_gpu: what it runs, that a failure is one, and that each result is on disk before the next begins.

Run: pytest tests/test_prove_on_gpu.py
"""

import json
import sys

from tools import prove_on_gpu
from tools.prove_on_gpu import STEPS, Proof, commands


def report(folder) -> list[dict]:
    return json.loads((folder / "gpu_proof.json").read_text(encoding="utf-8"))["results"]


def test_results_are_kept_one_by_one(tmp_path, capsys):
    proof = Proof(tmp_path / "new")
    assert proof.run("fine", [sys.executable, "-c", "print('one'); print('two')"])
    assert [(r["name"], r["passed"], r["last"]) for r in report(tmp_path / "new")] == [("fine", True, ["one", "two"])]
    assert not proof.run("wrong", [sys.executable, "-c", "print('why'); raise SystemExit(3)"])
    assert not proof.run("late", [sys.executable, "-c", "import time; print('begun', flush=True); time.sleep(60)"], seconds=3)
    assert not proof.run("absent", ["no-such-program-anywhere"])
    assert [(r["name"], r["code"]) for r in report(tmp_path / "new")][1:] == [("wrong", 3), ("late", 124), ("absent", 127)]
    log = (tmp_path / "new" / "gpu_proof.log").read_text(encoding="utf-8")
    assert "==== wrong" in log and "why" in log and "begun" in log
    shown = capsys.readouterr().out
    assert "ok" in shown and "FAIL" in shown and "no-such-program-anywhere is not installed here" in shown


def test_every_step_has_commands(tmp_path):
    for step in STEPS:
        assert commands(step, tmp_path, []), step
    names = [name for name, _ in commands("notebooks", tmp_path, ["04", "10"])]
    assert names == ["04_triton_from_zero unsolved", "04_triton_from_zero solved", "10_paged_attention unsolved", "10_paged_attention solved"]
    assert all(command[1:3] == ["-m", "tools.run_notebooks"] for _, command in commands("notebooks", tmp_path, []))


def test_only_files_with_a_gpu_test_are_collected(tmp_path):
    (_, command), *_ = commands("tests", tmp_path, [])
    assert {"tests/test_gpu.py", "tests/test_profiling.py"} <= set(command) and "tests/test_widgets.py" not in command


def test_the_exit_code_is_that_of_the_worst(tmp_path, monkeypatch):
    monkeypatch.setattr(
        prove_on_gpu, "commands", lambda step, folder, chapters: [(step, [sys.executable, "-c", f"raise SystemExit({step == 'parity'})"])]
    )
    assert prove_on_gpu.main([str(tmp_path), "--only", "tests"]) == 0
    assert prove_on_gpu.main([str(tmp_path), "--only", "tests", "parity"]) == 1
