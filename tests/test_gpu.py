"""What only a CUDA GPU can show: the compiled flavour of the grader, and that both flavours live side by side.

Run: make gpu
"""

import os
import subprocess

import pytest

from course_lib import hardware
from course_lib.grading import catalogue
from course_lib.grading.client import Judge
from tests.conftest import MINI_COURSE

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(hardware.tier() == "interpreter", reason="needs a CUDA GPU: make gpu runs these")]


@pytest.fixture(scope="module")
def mini(monkeypatch_module):
    monkeypatch_module.setenv("COURSE_EXTRA", str(MINI_COURSE))
    catalogue._files.cache_clear(), catalogue.exercises.cache_clear(), catalogue.checks.cache_clear()
    judge = Judge(environment={"COURSE_EXTRA": str(MINI_COURSE)})
    yield judge
    judge.close()
    catalogue._files.cache_clear(), catalogue.exercises.cache_clear(), catalogue.checks.cache_clear()


@pytest.fixture(scope="module")
def monkeypatch_module():
    with pytest.MonkeyPatch.context() as patch:
        yield patch


def test_a_right_kernel_passes_interpreted_and_compiled(mini):
    exercise = catalogue.find("double_and_mask")
    verdict = mini.check("double_and_mask", catalogue.solution_text(exercise), seed=1)
    assert (verdict.status, verdict.tier) == ("passed", hardware.tier())
    flavours = [case.name.endswith("(compiled)") for case in verdict.cases]
    assert any(flavours) and not all(flavours)


@pytest.mark.parametrize("mutant", ["not-doubled", "mask-inverted", "tile-reversed", "tail", "no-mask", "twice"])
def test_every_mutant_is_named_on_a_gpu_machine(mini, mutant):
    exercise, material = catalogue.find("double_and_mask"), catalogue.checks(90)["double_and_mask"]
    wanted = next(m for m in material.mutants if m.id == mutant)
    verdict = mini.check("double_and_mask", exercise.preamble + "\n\n" + wanted.text(exercise.solution), seed=2)
    assert verdict.status == "failed" and wanted.message in verdict.diagnosis.message


def test_what_only_the_compiler_sees_is_said(mini):
    """torch inside a kernel passes the interpreter and cannot be compiled."""
    exercise = catalogue.find("double_and_mask")
    text = catalogue.solution_text(exercise).replace("tl.where(keep != 0, x * 2.0, 0.0)", "tl.where(keep != 0, x * float(str(2.0)), 0.0)")
    assert text != catalogue.solution_text(exercise)
    verdict = mini.check("double_and_mask", text, seed=3)
    assert verdict.status in ("failed", "error") and "compiled" in verdict.diagnosis.message


def test_an_illegal_address_ends_the_child_only(mini):
    exercise = catalogue.find("double_and_mask")
    text = catalogue.solution_text(exercise)
    wild = text.replace("tl.store(out_ptr + offsets,", "tl.store(out_ptr + offsets + tl.where(N == 50, 1 << 40, 0),")
    assert wild != text and mini.check("double_and_mask", wild, seed=4).status != "passed"
    assert mini.check("double_and_mask", text, seed=4).status == "passed"


def test_torch_exercises_of_chapter_3_pass_here(mini):
    for exercise in catalogue.of_chapter(3):
        assert mini.check(exercise.name, catalogue.solution_text(exercise), seed=5).status == "passed", exercise.name


def test_nothing_is_left_on_the_gpu(mini):
    mini.close()
    listed = subprocess.run(["nvidia-smi", "--query-compute-apps=pid", "--format=csv,noheader"], capture_output=True, text=True).stdout
    ours = {int(line) for line in listed.split() if line.isdigit() and os.path.exists(f"/proc/{line}")}
    assert not {pid for pid in ours if "course_lib" in open(f"/proc/{pid}/cmdline").read()}
