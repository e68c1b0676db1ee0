"""An access outside its tensors is a sentence that names tensor, element and program; what stays inside is left alone."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from course_lib import regions

pytest.importorskip("triton")

ROOT = Path(__file__).resolve().parent.parent
SAID = {
    "load past the end": "a load outside `x_ptr`: element 50 of 50, in program (3, 0, 0) of the grid (4, 1, 1) (3 lanes of this tile, "
    "the first is lane 2 of 16). Does the mask cover every lane past the end?",
    "load before the start": "a load outside `x_ptr`: element -3 of 50, before its first, in program (0, 0, 0) of the grid (1, 1, 1) (3 lanes "
    "of this tile, the first is lane 0 of 16). The offset is",
    "load far away": "a load far outside every tensor of the launch, in program (0, 0, 0)",
    "store past the end": "a store outside `out_ptr`: element 50 of 50, in program (3, 0, 0) of the grid (4, 1, 1) (1 lane of this tile, the first is lane 2 of 16)",
    "store before the start": "a store outside `out_ptr`: element -1 of 50, before its first",
    "atomic past the end": "an atomic operation outside `out_ptr`: element 20 of 20, in program (1, 0, 0) of the grid (2, 1, 1) (12 lanes",
    "swap before the start": "an atomic operation outside `flag_ptr`: element -2 of 4, before its first",
    "descriptor too long": "a load through a tensor descriptor outside `x_ptr`: element 1056 of 1056 (shape [33, 32], strides [32, 1]), in program (2, 0, 0)",
    "row past the end": "a load outside `x_ptr`: element 210 of 210 (shape [3, 70], strides [70, 1]), in program (3, 0, 0)",
    "last row too wide": "a load outside `x_ptr`: element 210 of 210 (shape [3, 70], strides [70, 1]), in program (2, 0, 0) of the grid (3, 1, 1) (2 lanes "
    "of this tile, the first is lane 70 of 128). Does the mask cover every lane past the end, in each dimension?",
    "transposed, past the end": "a load outside `x_ptr`: element 30 of 30 (shape [5, 6], strides [1, 5])",
    "three dimensions": "a load outside `x_ptr`: element 48 of 48 (shape [2, 3, 8], strides [24, 8, 1]), in program (3, 0, 0)",
    "gap beside a slice": "a load between the elements of the view `x_ptr`: offset 70, shape [3, 70], strides [128, 1], in program (0, 0, 0) of the grid "
    "(3, 1, 1) (2 lanes of this tile, the first is lane 70 of 128). That memory belongs to the tensor which `x_ptr` is cut from.",
    "gap between every other column": "between the elements of the view `x_ptr`: offset 1, shape [32], strides [2]",
    "gap in a transposed slice": "between the elements of the view `x_ptr`: offset 1, shape [3, 70], strides [2, 5], in program (1, 0, 0)",
    "behind a slice": "outside `x_ptr`: offset 384, and its last element lies at 325 (shape [3, 70], strides [128, 1])",
    "before a slice that starts later": "outside `x_ptr`: element -8 of 32, before its first",
    "empty tensor": "outside `x_ptr`: element 0 of 0",
    "wide load over the end": "outside `x_ptr`: element 7 of 7, in program (0, 0, 0) of the grid (1, 1, 1) (1 lane of this tile, the first is lane 3 of 16). Does the",
    "in a tuple": "outside `tensors[0]`: element 10 of 10",
    "bf16": "`x_ptr` is bfloat16: Triton's interpreter computes bf16 dot products wrongly",
}


@pytest.fixture(scope="module")
def said():
    script = ROOT / "tests" / "kernels_for_counting" / "trespassing.py"
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, env=environment, timeout=200)
    assert done.returncode == 0, f"a trespasser ended the process: {done.stderr[-2000:]}"
    return json.loads(done.stdout)


@pytest.mark.parametrize("case", SAID)
def test_every_way_out_is_refused(said, case):
    found = said["trespassing"][case]
    assert SAID[case] in found and found.startswith("TypeError" if case == "bf16" else "OutOfRange: kernel "), found


def test_every_case_is_looked_at_and_nothing_inside_is_refused(said):
    assert set(said["trespassing"]) == set(SAID)
    assert len(said["allowed"]) > 10 and not [f"{case}: {words}" for case, words in said["allowed"].items() if words]


# ---------------------------------------------------------------- the arithmetic of a tensor's memory

VIEWS = {
    "contiguous": lambda: torch.zeros(4, 5),
    "transposed": lambda: torch.zeros(4, 5).t(),
    "slice": lambda: torch.zeros(6, 8)[1:5, 2:7],
    "every other": lambda: torch.zeros(6, 8)[::2, ::3],
    "three dimensions permuted": lambda: torch.zeros(3, 4, 5).permute(2, 0, 1),
    "heads of a projection": lambda: torch.zeros(2, 7, 3, 4)[:, :, 1].transpose(0, 1),
    "expanded": lambda: torch.zeros(1, 5).expand(4, 5),
    "one row": lambda: torch.zeros(9, 5)[3:4],
    "scalar": lambda: torch.tensor(0.0),
    "empty": lambda: torch.zeros(0, 5),
    "int64": lambda: torch.zeros(3, 4, dtype=torch.int64)[:, 1:],
}


@pytest.mark.parametrize("view", VIEWS)
def test_a_view_holds_its_elements_and_no_other(view):
    x = VIEWS[view]()
    region = regions.Region("x", x)
    own = {}
    for index in np.ndindex(*x.shape):
        own.setdefault(x.data_ptr() + sum(i * s for i, s in zip(index, x.stride(), strict=True)) * x.element_size(), index)
    around = np.arange(x.data_ptr() - 40 * x.element_size(), x.data_ptr() + 200 * x.element_size(), x.element_size())
    assert {int(a) for a in around[region.holds(around, x.element_size())]} == set(own)
    assert region.distinct == len(own)
    for address, index in own.items():
        found = region.index(region.offsets(np.array([address])))
        assert tuple(int(i[0]) for i in found) == tuple(i if x.stride(d) else 0 for d, i in enumerate(index))


def test_overlapping_windows_hold_what_they_cover():
    x = torch.zeros(40).unfold(0, 4, 6)  # windows of 4, 6 apart: gaps of 2
    region = regions.Region("x", x)
    addresses = x.data_ptr() + 4 * np.arange(-2, 44)
    assert region.holds(addresses, 4).tolist() == [0 <= i < 40 and i % 6 < 4 for i in range(-2, 44)]
    windows = torch.zeros(40).unfold(0, 8, 3)
    assert regions.Region("x", windows).distinct == 38  # the last window ends at 38


def test_the_nearest_tensor_is_named():
    x = torch.zeros(1000)
    low, high = regions.Region("low", x[:10]), regions.Region("high", x[500:510])
    assert regions.nearest([low, high], x[400].data_ptr()) is high and regions.nearest([low, high], x[20].data_ptr()) is low
    assert regions.nearest([low, high], x.data_ptr() + (1 << 22)) is None and regions.nearest([], 0) is None


TRACE = """
import sys
sys.path.insert(0, "tests/kernels_for_counting")
import torch
import counted_kernels as k
from course_lib import traffic
a, b = torch.ones(20, 16), torch.ones(16, 40)
with traffic.counted(trace=True) as launches:
    k.matmul(a, b, 16, 32, 16)
trace = launches[0].trace
assert len(trace) == 4 * 3 and {touch.program for touch in trace} == {(i, j, 0) for i in (0, 1) for j in (0, 1)}
one = [(t.what, t.tensor, t.box) for t in trace if t.program == (1, 1, 0)]
assert one == [("load", "a_ptr", ((16, 20), (0, 16))), ("load", "b_ptr", ((0, 16), (32, 40))), ("store", "c_ptr", ((16, 20), (32, 40)))], one
with traffic.counted(trace=True) as launches:
    k.softmax(torch.zeros(3, 100)[:, 10:50], k.softmax_online_kernel, 32)
assert [t.box for t in launches[0].trace if t.program == (2, 0, 0)][:2] == [((2, 3), (0, 32)), ((2, 3), (32, 40))]
with traffic.counted() as outer, traffic.counted() as inner:
    k.copy(torch.zeros(5), 16)
assert not inner[0].trace and outer[0].bytes_loaded == inner[0].bytes_loaded == 20
from triton.runtime import interpreter
names = {vars(type(interpreter.interpreter_builder))[n].__qualname__ for n in ("create_masked_load", "create_dot")}
assert names == {"InterpreterBuilder.create_masked_load", "InterpreterBuilder.create_dot"}, names  # everything is put back
x = torch.zeros(8)
with traffic.counted() as launches:
    k.copy_kernel[(1,)](x, x, 8, BLOCK=8)
assert launches[0].tensors["x_ptr"].loaded == launches[0].tensors["x_ptr"].stored == 32 and not launches[0].tensors["out_ptr"].stored
"""


def test_the_trace_tells_which_tile_each_program_touched():
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", TRACE], capture_output=True, text=True, env=environment, cwd=ROOT, timeout=200)
    assert done.returncode == 0, done.stderr[-3000:]
