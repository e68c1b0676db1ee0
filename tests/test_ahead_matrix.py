"""The ahead-of-time matrix: its page is whole and passes, a fresh sample agrees with it, and every kind of failure is seen."""

import re

import pytest

from course_lib import datasheets
from tools import ahead_matrix
from tools.ahead_matrix import Cell

pytest.importorskip("triton")

D64 = {"D": 64, "causal": True}
TOOK = {"registers": 200, "spilled": 0, "shared": 1024, "warps": 4, "stages": 2, "seconds": 1.0}


def page() -> str:
    return ahead_matrix.PAGE.read_text(encoding="utf-8")


def test_the_page_has_every_cell_and_no_failure():
    lines = [line for line in page().splitlines() if re.match(r"\| [\w ]+ \| sm_", line)]
    wanted = [f"| {c.kernel} | sm_{c.target} ({ahead_matrix.NAMES[c.target]}) | {c.dtype} | {c.said} |" for c in ahead_matrix.cells()]
    assert len(lines) == len(wanted), "run python -m tools.ahead_matrix"
    assert all(line.startswith(start) for line, start in zip(lines, wanted, strict=True)), "run python -m tools.ahead_matrix"
    assert f" {len(wanted)} cells, 0 failed." in page()


def test_the_page_s_numbers_pass():
    for line in page().splitlines():
        if found := re.match(r"\| ([\w ]+) \| sm_(\d+) \([^)]*\) \| (\w+) \| ([^|]+) \| \d+ \| \d+ \| (\d+) \| (\d+) \| ([\d.]+) \| (\d+) \|", line):
            kernel, target, dtype, said, registers, spilled, shared, limit = found.groups()
            allowed = ahead_matrix.SPILLS.get((kernel, int(target), dtype, said), 0)
            assert int(spilled) <= allowed and float(shared) <= int(limit) == ahead_matrix.LIMITS[int(target)] and int(registers) <= 255, line


def test_every_kernel_file_has_cells():
    cells = ahead_matrix.cells()
    kernels = {path.stem for path in (ahead_matrix.ROOT / "kernels").glob("*.py") if "@triton.jit" in path.read_text(encoding="utf-8")}
    assert {cell.kernel for cell in cells if not cell.kernel.startswith("exercise ")} == kernels and len(set(cells)) == len(cells)
    assert {cell.target for cell in cells if cell.kernel == "flash_forward"} == set(ahead_matrix.LIMITS)
    assert {cell.dtype for cell in cells if cell.target == 75} <= {"fp16", "fp32"} and all(cell.shape or "exercise" in cell.kernel for cell in cells)


def test_every_exception_is_needed():
    """Each group of cells that may spill has one that does, and what it may spill is not much more than that."""
    for kernel, targets, dtypes, shapes, most, _ in ahead_matrix.KEPT:
        starts = [f"| {kernel} | sm_{t} ({ahead_matrix.NAMES[t]}) | {dtype} | {said} | " for t in targets for dtype in dtypes for said in shapes]
        spilled = [int(line.split(" | ")[7]) for line in page().splitlines() if line.startswith(tuple(starts))]
        assert spilled and 0 < max(spilled) <= most <= 2 * max(spilled), (kernel, targets, most, spilled)


def test_limits_are_those_of_the_data_sheets():
    for sheet in datasheets.SHEETS.values():
        assert ahead_matrix.LIMITS[sheet.capability[0] * 10 + sheet.capability[1]] * 1024 == sheet.shared_per_block


def test_faults_are_said():
    cell = Cell("flash_forward", 89, "bf16", D64)
    assert ahead_matrix.fault(cell, TOOK) == ""
    assert ahead_matrix.fault(cell, {**TOOK, "spilled": 8}) == "8 bytes spilled"
    assert "103,424 bytes of shared memory; one block may have 101,376" == ahead_matrix.fault(cell, {**TOOK, "shared": 101 * 1024})
    assert ahead_matrix.fault(cell, {"error": "CompilationError: at 3:4"}) == "CompilationError: at 3:4"
    kernel, (target, *_), (dtype, *_), (said, *_), most, _ = ahead_matrix.KEPT[0]
    excused = next(c for c in ahead_matrix.cells() if (c.kernel, c.target, c.dtype, c.said) == (kernel, target, dtype, said))
    assert ahead_matrix.fault(excused, {**TOOK, "spilled": most}) == ""
    assert ahead_matrix.fault(excused, {**TOOK, "spilled": most + 1}) == f"{most + 1} bytes spilled, {most} allowed"


def test_a_page_that_has_drifted_is_seen():
    cell = Cell("flash_forward", 89, "bf16", D64)
    text = ahead_matrix.page({cell: TOOK})
    assert ahead_matrix.differences({cell: TOOK}, text) == []
    assert len(ahead_matrix.differences({cell: {**TOOK, "registers": 201}}, text)) == 1
    failed = ahead_matrix.page({cell: {**TOOK, "spilled": 8}})
    assert "1 cells, 1 failed." in failed and "- flash_forward, sm_89, bf16, D 64, causal: 8 bytes spilled" in failed


@pytest.mark.slow
def test_a_kernel_that_does_not_fit_or_spills_or_crashes(tmp_path):
    """Real compilations: a kernel in the ranges of a bigger GPU, one with tiles that are too large, one that there is not."""
    child = ahead_matrix.Child(str(tmp_path))
    try:
        right = child.ask(Cell("vector_add", 80, "fp16", {"N": 4096}))
        assert right["registers"] > 8 and right["spilled"] == 0
        large = child.ask(Cell("matmul", 90, "bf16", {"M": 4096, "N": 4096, "K": 4096}))
        assert large["shared"] > 99 * 1024 and ahead_matrix.fault(Cell("matmul", 89, "bf16"), large)
        assert "does not know how to launch" in child.ask(Cell("launching", 80, "fp16"))["error"]
        child.process.kill()
        assert child.process.wait() and child.ask(Cell("vector_add", 75, "fp16", {"N": 4096}))["spilled"] == 0
    finally:
        child.close()


@pytest.mark.slow
def test_a_child_that_dies_fails_its_cell(tmp_path, monkeypatch):
    child = ahead_matrix.Child(str(tmp_path))
    child.environment["PYTHONPATH"] = str(tmp_path)  # there is no tools.ahead_child in there
    monkeypatch.setattr(ahead_matrix, "ROOT", tmp_path)
    assert "the compiler ended its process" in child.ask(Cell("vector_add", 80, "fp16", {"N": 4096}))["error"]
