"""`traffic.count` in the process that interprets, and in the child of a process that compiles: the same numbers."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

pytest.importorskip("triton")

ROOT = Path(__file__).resolve().parent.parent
CELLS = '''
import linecache
import sys
from dataclasses import replace

import torch

from course_lib import hardware

if GPU:  # a machine with a GPU, as far as the course can tell: kernels of this process are compiled
    hardware.decision = lambda: hardware.Decision("compiled", "a test says so")
hardware.tier()
import triton
import triton.language as tl

from course_lib import ledgers, traffic

WIDTH = 16


def cell(text):  # as IPython does it
    name = f"<cell {hash(text)}>"
    linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)
    exec(compile(text, name, "exec"), globals())


cell("""
@triton.jit
def twice(x):
    return x + x

@triton.jit
def double_kernel(x_ptr, out_ptr, n, BLOCK: tl.constexpr):
    lanes = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(out_ptr + lanes, twice(tl.load(x_ptr + lanes, mask=lanes < n)), mask=lanes < n)
""")
cell("""
def grid(n: int) -> tuple:
    return (triton.cdiv(n, WIDTH),)

def double(x, times=1, out=None):
    for _ in range(times):
        out = torch.empty_like(x)
        double_kernel[grid(x.numel())](x, out, x.numel(), BLOCK=WIDTH)
        x = out
    print("doubled")
    return out

def unmasked(x):
    out = torch.empty_like(x)
    double_kernel[grid(x.numel())](x, out, x.numel() + 3, BLOCK=WIDTH)

def raises(x):
    raise KeyError("my own")

def returns_a_class(x):
    double(x)
    return Mine()

def no_kernel(x):
    return x + 1

def lacks(x):
    return not_defined_anywhere(x)

def by_lock(x):
    return LOCK

""")
import threading
LOCK = threading.Lock()


class Mine:
    pass


'''
HEAD = "GPU = {gpu}\n"


def run(code: str, gpu: bool, tmp_path: Path) -> str:
    """The code after CELLS, as a script, on a CPU machine or on one that says it has a GPU."""
    script = tmp_path / "notebook.py"
    script.write_text(HEAD.format(gpu=gpu) + CELLS + code)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    environment.pop("TRITON_INTERPRET", None)
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, env=environment, cwd=ROOT, timeout=200)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


SAME = """
x = torch.arange(70, dtype=torch.float32)
found = traffic.count(double, x, times=3)
assert ("course_lib.counting_child" in sys.modules) == GPU
print(found, found.bytes_loaded, found.bytes_stored, found.bytes, found.bytes_once, found.programs, found.loads, len(list(found)))
assert torch.equal(found.result, 8 * x) and torch.equal(x, torch.arange(70.0))
print(ledgers.ledgers("three doublings", [x, found.result], found).excess)

from kernels.read_again import read_again
y = torch.ones(4 * 64)
again = traffic.count(read_again, y, steps=8, programs=6, config={"TILE": 64, "num_warps": 4})
print(again.bytes_loaded, again.tensors["x_ptr"].times_loaded, again.result.sum().item())

from course_lib.earlier import softmax_long_rows, vector_add  # the course's, or the reader's own: modules under names made here
print(traffic.count(vector_add, x, x).bytes, traffic.count(softmax_long_rows, torch.randn(3, 1500)).bytes)

view = torch.zeros(20, 8)[:, :5]
for bad, what in ((lambda: traffic.count(unmasked, x), None), (lambda: traffic.count(no_kernel, x), None),
                  (lambda: traffic.count(lambda: double(x)), None), (lambda: traffic.count(double, x.bfloat16()), None)):
    try:
        bad()
    except Exception as error:
        while type(error).__name__ == "InterpreterError":
            error = error.__cause__
        print(type(error).__name__, error)
    else:
        raise AssertionError("nothing was raised")
print(traffic.count(double, x[:16]).bytes)
"""


@pytest.mark.slow
def test_a_child_counts_what_this_process_counts(tmp_path):
    here, child = run(SAME, False, tmp_path), run(SAME, True, tmp_path)
    assert here == child
    assert "840 840 1680 1680 15 15 3" in here and "3.0\n" in here and f"{6 * 8 * 64 * 4} 12.0" in here
    assert here.count("doubled") == 2
    assert f"{3 * 70 * 4} {3 * 3 * 1500 * 4}" in here
    for said in ("OutOfRange kernel double_kernel: a load outside `x_ptr`: element 70 of 70", "launched no Triton kernel", "A lambda", "is bfloat16"):
        assert said in here


ONLY_CHILD = """
x = torch.ones(8)
from course_lib import counting_child as child
for fn, words in ((raises, "raises raised KeyError: 'my own' (at `raise KeyError"), (returns_a_class, "cannot come back"),
                  (lacks, "uses `not_defined_anywhere`, which is defined nowhere"), (by_lock, "cannot be sent")):
    try:
        traffic.count(fn, x)
    except (ValueError, RuntimeError) as error:
        assert words in str(error), error
    else:
        raise AssertionError(fn)
assert traffic.count(double, x).bytes == 64
first = child._process.pid
assert traffic.count(double, x).bytes == 64 and child._process.pid == first  # one child for many counts
child._process.kill()
child._process.wait()
assert traffic.count(double, x).bytes == 64 and child._process.pid != first  # a dead one is replaced
cell('''
def dies(x):
    import os
    os._exit(3)
''')
try:
    traffic.count(dies, x)
except RuntimeError as error:
    assert "has ended" in str(error)
else:
    raise AssertionError
assert traffic.count(double, x).bytes == 64
WIDTH = 4  # the cell was run again with another value
assert traffic.count(double, x).programs == 2
"""


@pytest.mark.slow
def test_what_the_child_says_when_it_cannot(tmp_path):
    run(ONLY_CHILD, True, tmp_path)


@pytest.mark.slow
def test_the_child_ends_with_its_parent(tmp_path):
    code = "traffic.count(double, torch.ones(4))\nimport course_lib.counting_child as c\nprint('pid', c._process.pid)\nimport os; sys.stdout.flush(); os._exit(0)"
    pid = int(run(code, True, tmp_path).split("pid")[1])
    for _ in range(100):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
        except FileNotFoundError:
            return
        if state == "Z":
            return
        time.sleep(0.1)
    raise AssertionError(f"process {pid} is still alive")


ON_A_GPU = """
x = torch.arange(70, dtype=torch.float32, device="cuda")
assert torch.equal(double(x), 2 * x)  # compiled, in this process
found = traffic.count(double, x, times=3)
assert "course_lib.counting_child" in sys.modules
assert (found.bytes_loaded, found.bytes_stored, found.programs) == (840, 840, 15)
assert found.result.device.type == "cuda" and torch.equal(found.result, 8 * x)
"""


@pytest.mark.gpu
def test_beside_compiled_kernels(tmp_path):
    run(ON_A_GPU, False, tmp_path)


def test_two_launches_of_one_kernel_on_other_shapes_are_kept_apart():
    from course_lib.counting import Traffic
    from course_lib.launches import Argument, Launch

    def launch(kernel: str, rows: int) -> Launch:
        return Launch(kernel, tensors={"a_ptr": Argument((rows, 4), (4, 1), "float32", 16 * rows, loaded=16 * rows, loaded_once=16 * rows)})

    alike = Traffic("alike", (launch("matmul", 2), launch("matmul", 2)))
    assert list(alike.tensors) == ["a_ptr"] and alike.tensors["a_ptr"].loaded == 64
    apart = Traffic("apart", (launch("matmul", 2), launch("softmax", 9), launch("matmul", 3)))
    assert {name: one.loaded for name, one in apart.tensors.items()} == {"matmul 1.a_ptr": 32, "softmax.a_ptr": 144, "matmul 2.a_ptr": 48}
    assert [list(one.shape) for one in apart.tensors.values()] == [[2, 4], [9, 4], [3, 4]] and "matmul 2.a_ptr" in repr(apart)


def test_a_tensor_of_a_gpu_that_a_text_uses_comes_to_the_cpu(monkeypatch):
    """Arguments are brought to the CPU by whoever counts; other tensors that the text names travel as they are, and the child sees no GPU."""
    from course_lib import counting_child

    monkeypatch.setattr(torch.serialization, "location_tag", lambda storage: "cuda:0")
    parts = {"weight": {"value": torch.arange(3.0)}, "own": {"text": "def own():\n    return weight + 1"}}
    reply = counting_child._answered(counting_child._packed({"function": {"name": "own", "parts": parts}, "args": (), "kwargs": {}}, "own"))
    assert reply["result"].device.type == "cpu" and reply["result"].tolist() == [1, 2, 3]
