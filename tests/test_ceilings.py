"""Ceilings are measured, kept, reused while they hold, and never make a notebook fail."""

import dataclasses
import json
import os
import subprocess
import sys

import pytest
import torch

from benchmarks import ceilings as benchmark
from course_lib import ceilings, paths
from course_lib.ceilings import Ceiling, Ceilings

ROOT = paths.ROOT


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("COURSE_HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def quick(monkeypatch):
    """Measuring in no time: every call of `measure` is counted and gives another number."""
    made = []

    def measure(device=None):
        made.append(device)
        one = Ceiling(1e9 * len(made), 0.9e9, 1.1e9, "copy of 1 MiB")
        name, versions = ceilings._name("cpu"), ceilings._versions("cpu")
        return Ceilings(name, "cpu", "2026-11-21", versions, one, one, {"fp32": Ceiling(1e11, 0.9e11, 1.1e11, "mm")})

    monkeypatch.setattr(ceilings, "measure", measure)
    return made


def test_measured_for_real_in_seconds(home):
    start = torch.get_rng_state()
    found = ceilings.measure("cpu")
    assert torch.equal(torch.get_rng_state(), start)  # nobody's random numbers change
    assert set(found.rates) == {"fp32", "bf16", "fp16"} and all(rate > 1e7 for rate in found.rates.values())
    assert 1e8 < found.bandwidth < 1e13 and 1e8 < found.read.median < 1e13
    for one in (found.copy, found.read, *found.matmul.values()):
        assert one.low <= one.median <= one.high and one.spread >= 0 and one.how
    assert "middle half" in repr(found) and "<table" in found._repr_html_()


def test_kept_and_reused(home, quick):
    first = ceilings.measured("cpu")
    assert ceilings.measured("cpu") == first and len(quick) == 1
    assert json.loads((home / ".course" / "ceilings.json").read_text())["cpu"]["date"] == first.date
    assert ceilings.measured("cpu", again=True) != first and len(quick) == 2
    assert ceilings.measured("cpu").bandwidth == 2e9 and len(quick) == 2


@pytest.mark.parametrize("change", [{"name": "another machine"}, {"versions": {"torch": "1.0"}}])
def test_another_machine_or_torch_is_measured_anew(home, quick, change):
    ceilings._keep(dataclasses.replace(ceilings.measure("cpu"), **change))
    ceilings.measured("cpu")
    assert len(quick) == 2


@pytest.mark.parametrize("text", ["", "[]", "{", '{"cpu": 3}', '{"cpu": {"name": "x"}}', '{"cpu": {"copy": [1], "read": {}}}'])
def test_a_damaged_file_is_measured_over(home, quick, text):
    (home / ".course").mkdir()
    (home / ".course" / "ceilings.json").write_text(text)
    assert ceilings.measured("cpu").bandwidth == 1e9 and ceilings.measured("cpu").bandwidth == 1e9 and len(quick) == 1


def test_a_home_that_cannot_be_written_costs_only_the_record(home, quick, monkeypatch):
    (home / ".course").write_text("a file where a folder belongs")
    assert ceilings.measured("cpu").bandwidth == 1e9


def test_the_other_device_stays(home, quick):
    ceilings._keep(dataclasses.replace(ceilings.measure("cpu"), device="cuda", name="H200"))
    ceilings.measured("cpu")
    assert set(json.loads((home / ".course" / "ceilings.json").read_text())) == {"cpu", "cuda"}


def test_devices_that_are_not_there():
    with pytest.raises(ValueError, match="choose 'cpu' or 'cuda'"):
        ceilings.measured("tpu")
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="sees no CUDA GPU"):
            ceilings.measured("cuda")


def test_the_precision_found_is_put_back():
    before = torch.backends.cuda.matmul.fp32_precision
    with ceilings._precision("tf32"):
        assert torch.backends.cuda.matmul.fp32_precision == "tf32"
    with pytest.raises(KeyError), ceilings._precision("fp32"):
        raise KeyError
    assert torch.backends.cuda.matmul.fp32_precision == before


class Gpu:
    """A clock and timings as a GPU of a given rate would give them: `slow` calls at half the rate first, then `spreads` one after the other."""

    def __init__(self, monkeypatch, each=0.001, slow=0, spreads=(0.01,)):
        self.now, self.calls, self.each, self.slow, self.spreads, self.timed = 0.0, 0, each, slow, list(spreads), []
        monkeypatch.setattr(ceilings.bench, "time_call", self.time_call)
        monkeypatch.setattr(ceilings.time, "monotonic", lambda: self.now)

    def call(self):
        self.calls += 1
        self.now += self.each * (2 if self.calls <= self.slow else 1)

    def time_call(self, call, repeats=7, warm_up=1, device="cpu"):
        assert device == "cuda"
        seconds = []
        for _ in range(warm_up + repeats):
            before = self.now
            call()
            seconds.append(self.now - before)
        self.timed.append((repeats, seconds[-1]))
        spread = self.spreads.pop(0) if repeats > 3 and len(self.spreads) > 1 else self.spreads[0]
        middle = sorted(seconds[warm_up:])[repeats // 2]
        return ceilings.bench.Timing(middle, middle * (1 - spread / 2), middle * (1 + spread / 2), repeats)


def test_a_gpu_is_warm_before_it_is_timed_and_timed_for_long_enough(monkeypatch):
    gpu = Gpu(monkeypatch, slow=120)
    found = ceilings._rate(gpu.call, 1e9, "cuda", "mm")
    assert found.median == pytest.approx(1e12, rel=1e-6)  # the slow quarter of a second is over
    repeats, each = gpu.timed[-1]
    assert each == pytest.approx(0.01) and repeats * each >= 0.59 and gpu.calls < 1100
    small = Gpu(monkeypatch, each=1e-6)
    ceilings._rate(small.call, 1e6, "cuda", "mm")
    assert small.timed[-1][1] <= 0.0011 and small.timed[-1][0] == 200  # a thousand queued calls at most, 200 repeats at most
    large = Gpu(monkeypatch, each=0.3)
    ceilings._rate(large.call, 1e12, "cuda", "mm")
    assert large.timed[-1] == (7, pytest.approx(0.3))


def test_a_noisy_size_is_measured_again_and_then_passed_over(monkeypatch):
    again = Gpu(monkeypatch, spreads=(0.2, 0.02, 0.5))
    assert ceilings._steady(again.call, 1e9, "cuda", "mm").spread == pytest.approx(0.02, rel=0.02) and again.spreads == [0.5]
    never = Gpu(monkeypatch, spreads=(0.2, 0.3, 0.15, 0.01))
    assert ceilings._steady(never.call, 1e9, "cuda", "mm").spread == pytest.approx(0.15, rel=0.03) and never.spreads == [0.01]
    quiet, noisy, slow = Ceiling(7.0, 6.9, 7.1, "4096"), Ceiling(8.0, 7.0, 9.0, "2048"), Ceiling(5.0, 4.0, 6.0, "8192")
    assert ceilings._best([quiet, noisy, slow], "cuda") is quiet
    assert ceilings._best([quiet, noisy, slow], "cpu") is noisy
    assert ceilings._best([noisy, slow], "cuda").how == "2048, noisy at every size tried"


def test_cache_steps_grow_and_leave_the_threads_alone():
    threads = torch.get_num_threads()
    steps = ceilings.cache_steps("cpu", most=64 * 1024)
    assert [size for size, _ in steps] == [16384, 32768, 65536] and all(rate > 1e7 for _, rate in steps)
    assert torch.get_num_threads() == threads
    with pytest.raises(ValueError, match="the smallest working set is 16384"):
        ceilings.cache_steps("cpu", most=100)


def test_an_interpreted_kernel_is_not_timed_on_a_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(ceilings.hardware, "tier", lambda: "interpreter")
    assert ceilings._device(None) == "cpu"
    with pytest.raises(ValueError, match="kernels are interpreted here"):
        ceilings.cache_steps("cuda")
    monkeypatch.setattr(ceilings.hardware, "tier", lambda: "compiled")
    assert ceilings._device(None) == "cuda"


def test_the_committed_rows_stand_beside_the_data_sheet():
    one = Ceiling(4.2e12, 4.1e12, 4.3e12, "copy")
    found = Ceilings("NVIDIA H200", "cuda", "2026-11-21", {}, one, one, {"bf16": Ceiling(7e14, 6.9e14, 7.1e14, "mm")})
    rows = benchmark.rows(found)
    assert rows[0]["median"] == pytest.approx(4200) and rows[0]["of it (%)"] == pytest.approx(87.5)
    assert rows[2]["data sheet"] == pytest.approx(989.4) and len({tuple(row) for row in rows}) == 1
    assert "data sheet" not in benchmark.rows(dataclasses.replace(found, name="CPU (x86_64, 2 threads)"))[0]


INTERPRETED = """
import torch
from course_lib import traffic
from kernels.read_again import read_again
x = torch.arange(4 * 64, dtype=torch.float32)
with traffic.counted() as launches:
    out = read_again(x, steps=8, programs=6, config={"TILE": 64, "num_warps": 4})
assert launches[0].bytes_loaded == 6 * 8 * 64 * 4, launches
tiles = x.view(4, 64).sum(1)
assert all(len({(p + s * 3) % 4 for s in range(8)}) == 4 for p in range(6))  # 6 | 1 = 7, 3 modulo 4 tiles
expected = torch.stack([sum(tiles[(p + s * 3) % 4] for s in range(8)) for p in range(6)])
assert torch.equal(out, expected), (out, expected)
for bad in (torch.zeros(100), torch.zeros(192), torch.zeros(256).double(), torch.zeros(2, 512)[:, ::2]):
    try:
        read_again(bad, 1, 1, config={"TILE": 64, "num_warps": 4})
    except ValueError as error:
        assert "power of two" in str(error)
    else:
        raise AssertionError(bad.shape)
"""
COMPILED = """
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from kernels.read_again import DEFAULT_CONFIG, read_again_kernel
signature = {"x_ptr": "*fp32", "out_ptr": "*fp32", "n_tiles": "i32", "steps": "i32", "stride": "i32", "TILE": "constexpr"}
for capability in (75, 80, 89, 90, 100):
    source = ASTSource(read_again_kernel, signature, {"TILE": DEFAULT_CONFIG["TILE"]}, {(0,): [["tt.divisibility", 16]]})
    made = triton.compile(source, target=GPUTarget("cuda", capability, 32), options={"num_warps": DEFAULT_CONFIG["num_warps"]})
    ptx = made.asm["ptx"]
    assert "ld.global.v4" in ptx, capability  # whole vectors of 16 bytes
    assert "st.local" not in ptx
"""


@pytest.mark.parametrize("text, interpret", [(INTERPRETED, "1"), (COMPILED, "0")], ids=["interpreted, bytes counted", "compiled ahead of time"])
def test_the_reading_kernel(text, interpret, tmp_path):
    environment = {**os.environ, "TRITON_INTERPRET": interpret, "PYTHONPATH": str(ROOT), "TRITON_CACHE_DIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, env=environment, cwd=ROOT, timeout=120)
    assert done.returncode == 0, done.stderr
