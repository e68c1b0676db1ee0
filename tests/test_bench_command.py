"""`course bench`: the arithmetic of a race with fake timers, wrong and missing contestants, records, the command, the path without a GPU."""

import dataclasses
import json
import math
import re
import sys
import types
from functools import partial

import pytest
import torch

from course_lib import (
    bench,
    ceilings,
    hardware,
    paths,
    peers,
    peers_backward,
    peers_decode,
    races,
    races_clocks,
    races_decode,
    races_interpreted,
    races_problems,
    races_report,
    recorded,
    tune,
)
from course_lib.commands import bench as command
from course_lib.commands import cli
from course_lib.races import Contestant, NotHere, Race, run
from course_lib.races_resources import Device, Resources, resources

MICRO = 1e-6


class FakeClock(races_clocks.CpuClock):
    """Every call takes the seconds that the contestant's name has; `bound` are launched slower than they run; `stubborn` have no graph."""

    def __init__(self, seconds: dict[str, float], bound=(), stubborn=()):
        self.per_call, self.bound, self.stubborn, self.order = seconds, bound, stubborn, []

    def sets(self, size):
        return 2

    def seconds(self, turn, turns):
        lane = turn.__self__
        lane.calls()
        self.order.append(lane.contestant.name)
        jitter = 1 + 0.01 * (len(self.order) % 3)
        return self.per_call[lane.contestant.name] * turns * len(lane.inputs) * jitter

    def launch_bound(self, lane):
        return lane.contestant.name in self.bound

    def graph(self, calls):
        if calls.__self__.contestant.name in self.stubborn:
            raise RuntimeError("operation not permitted when stream is capturing\nmore lines")
        return calls


def contestant(name, function, ours=False):
    return Contestant(name, lambda: function, ours)


def doubling(*contestants, **facts) -> Race:
    """Races of 2 * x on [8, 16]."""
    return Race(
        "double", {"M": 8, "N": 16}, lambda g: (torch.empty(8, 16).normal_(generator=g),), contestants,
        exact=lambda x: 2 * x.double(), plain=(lambda x: x + x,), bytes=1024, **facts,
    )  # fmt: skip


def double(x):
    return 2 * x


@pytest.fixture
def scale():
    one = partial(ceilings.Ceiling, how="made up")
    rates = {name: one(1e15, 1e15, 1e15) for name in ("bf16", "fp16", "fp32")}
    return races_report.Scale(
        ceilings.Ceilings("NVIDIA H200", "cuda", "2026-12-01", {"torch": "0"}, one(4e12, 4e12, 4e12), one(4e12, 4e12, 4e12), rates)
    )


# ---------------------------------------------------------------- racing


def test_rounds_take_turns_and_the_median_is_of_one_call():
    race = doubling(contestant("course", double, True), contestant("torch", lambda x: x + x))
    clock = FakeClock({"course": 10 * MICRO, "torch": 20 * MICRO})
    mine, theirs = run(race, clock, rounds=5)
    assert clock.order[2:] == ["course", "torch"] * 6  # after one estimate each: an untimed round, then five
    assert mine.timing.repeats == 5 and mine.timing.median == pytest.approx(10 * MICRO, rel=0.03)
    assert mine.timing.low <= mine.timing.median <= mine.timing.high
    assert races_report.ratio(mine, theirs) == pytest.approx(2, rel=0.05) and mine.rate == pytest.approx(1024 / mine.timing.median)
    assert mine.how == "queued launches" and not mine.problem


def test_slow_races_have_fewer_rounds_but_three():
    race = doubling(contestant("course", double, True))
    assert run(race, FakeClock({"course": 5.0}), rounds=11)[0].timing.repeats == 3


def test_each_call_meets_its_own_inputs_and_keeps_its_output():
    seen = []

    def spy(x):
        seen.append(x.data_ptr())
        return 2 * x

    run(doubling(contestant("course", spy, True)), FakeClock({"course": MICRO}), rounds=3)
    timed = seen[:-2]  # the last two: the check's new inputs, and the look at resources
    assert len(set(timed)) == 2 and timed[0] != timed[1] and timed[::2] == timed[:1] * (len(timed) // 2)
    assert seen[-2] not in timed


def wrong_late():
    """Right until it has been timed: the check after the timing must see it."""
    calls = []

    def function(x):
        calls.append(1)
        return 2 * x if len(calls) < 8 else 2 * x + 0.01

    return function


def stale():
    """Computes once, then gives the same tensor back: right for the inputs of the timed runs, wrong for new ones."""
    kept = {}

    def function(x):
        if len(kept) < 2:
            kept[x.data_ptr()] = 2 * x
        return kept.get(x.data_ptr(), next(iter(kept.values())))

    return function


def one_row_nan(x):
    out = 2 * x
    out[3, 3] = math.nan
    return out


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (lambda x: 2 * x + 0.01, "times that of plain torch"),
        (wrong_late(), "times that of plain torch"),
        (stale(), "times that of plain torch"),
        (one_row_nan, "infinities or nan"),
        (lambda x: (2 * x).half(), "float16"),
        (lambda x: 2 * x[:4], r"\[4, 16\]"),
    ],
)
def test_a_wrong_output_is_reported_and_gets_no_time(function, words, scale):
    race = doubling(contestant("course", function, True), contestant("torch", double))
    wrong, right = run(race, FakeClock({"course": MICRO, "torch": 9 * MICRO}), rounds=3)
    assert wrong.problem.startswith("wrong: ") and re.search(words, wrong.problem) and wrong.timing is None
    assert not right.problem and right.timing
    assert races_report.best([wrong, right]) is None and races_report.ratio(wrong, right) is None
    row = races_report.wide_rows([[wrong, right]], scale)[0]
    assert row["course (GB/s)"] == "wrong" and row["course / torch"] == "-" and row["of the ceiling (%)"] == "-"
    assert races_report.detail(wrong, scale)["median (us)"] is None and "wrong" in races_report.notes([[wrong, right]])[0]
    assert races_report._rate(wrong, scale) == "wrong"
    json.dumps([races_report.detail(one, scale) for one in (wrong, right)], allow_nan=False)


def test_rows_of_small_values_are_held_to_their_own_size():
    """A row of attention far down is small; an error that hides behind another row's large values is still seen."""
    exact = torch.tensor([[100.0, 50.0], [0.01, 0.02]], dtype=torch.float64)
    assert races.row_error(exact + torch.tensor([[0.0, 0.0], [0.0, 0.01]]), exact) == pytest.approx(0.5)
    assert math.isnan(races.row_error(torch.full((2, 2), math.nan), exact))


def test_who_cannot_run_is_said_with_the_reason(scale):
    def refuse():
        raise NotHere("set COURSE_FA3_LIBRARY to its library")

    def full(x):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 4.00 GiB\nGPU 0 has ...")

    race = doubling(
        contestant("course", double, True), Contestant("FA3", refuse), contestant("naive", full), contestant("mine", full, True)
    )  # fmt: skip
    results = run(race, FakeClock({"course": MICRO}), rounds=3)
    problems = {one.who: one.problem for one in results}
    assert problems["FA3"] == "not here: set COURSE_FA3_LIBRARY to its library"
    assert problems["naive"] == "not here: OutOfMemoryError: CUDA out of memory. Tried to allocate 4.00 GiB"
    assert problems["mine"].startswith("failed: OutOfMemoryError") and not problems["course"]
    row = races_report.wide_rows([results], scale)[0]
    assert row["FA3 (GB/s)"] == "-" and row["mine (GB/s)"] == "failed" and isinstance(row["course (GB/s)"], float)
    assert any(note.startswith("FA3: not here: set COURSE_FA3") for note in races_report.notes([results]))


def test_launches_shorter_than_their_overhead_go_into_a_graph_and_that_is_said():
    race = doubling(contestant("course", double, True), contestant("torch", lambda x: x + x))
    clock = FakeClock({"course": MICRO, "torch": MICRO}, bound=("course",), stubborn=("torch",))
    mine, theirs = run(race, clock, rounds=3)
    assert mine.how == "CUDA graph" and theirs.how.startswith(
        "queued launches, its launch included (no CUDA graph: RuntimeError: operation not permitted"
    )
    notes = races_report.notes([[mine, theirs]])
    assert any("CUDA graph" in note and "double M 8, N 16" in note for note in notes) and any(note.startswith("torch: queued") for note in notes)


def test_a_cpu_is_timed_by_its_clock():
    clock = races_clocks.clock("cpu")
    assert clock.sets(1) == 64 and clock.sets(1 << 40) == 1 and not clock.launch_bound(None)
    mine = run(doubling(contestant("course", double, True)), clock, rounds=3)[0]
    assert 0 < mine.timing.median < 1 and mine.error <= 3


# ---------------------------------------------------------------- what limits a kernel


HOPPER = Device(132)


@pytest.mark.parametrize(
    ("registers", "shared", "warps", "fit", "held_by"),
    [
        (168, 0, 8, 1, "registers"),  # 168 * 32 = 5,376 a warp: 3 in a quarter of the registers, 12 in all
        (128, 0, 8, 2, "registers"),
        (64, 100 * 1024, 8, 2, "shared memory"),
        (32, 0, 8, 8, "registers and threads"),
        (16, 0, 1, 32, "slots"),
    ],
)
def test_programs_on_a_multiprocessor(registers, shared, warps, fit, held_by):
    used = Resources("k", registers, 0, shared, warps, 10_000, HOPPER)
    assert (used.fit, used.held_by) == (fit, held_by)


def test_the_sentence_names_spills_and_a_grid_that_is_too_small():
    used = Resources("k", 255, 12, 1024, 8, 100, HOPPER)
    assert used.sentence == (
        "1 program of 8 warps a multiprocessor, held by registers; spills 12 registers a thread to memory; "
        "the grid's 100 programs leave some of 132 places empty"
    )


class FakeKernel:
    """As a Triton kernel: kernel[grid](...) ends in kernel.run(..., grid=grid), which gives the compiled one."""

    def __init__(self):
        self.fn = None

    def __getitem__(self, grid):
        return lambda *args, **kwargs: self.run(*args, grid=grid, **kwargs)

    def run(self, *args, grid, **kwargs):
        return types.SimpleNamespace(n_regs=40, n_spills=0, metadata=types.SimpleNamespace(name="fake_kernel", shared=2048, num_warps=4))


def test_resources_come_from_the_launch(monkeypatch):
    module = types.ModuleType("a_module_with_a_kernel")
    module.kernel = FakeKernel()

    def host(x, config=None):
        module.kernel[(6, 2)](x)
        return x

    host.__module__ = module.__name__
    monkeypatch.setitem(sys.modules, module.__name__, module)
    used = resources(partial(host, config={}), (1,), HOPPER)
    assert (used.kernel, used.registers, used.shared, used.warps, used.programs) == ("fake_kernel", 40, 2048, 4, 12)
    assert "run" not in vars(module.kernel)
    host.__module__ = __name__
    assert resources(host, (1,), HOPPER) is None


def test_limits_are_computed(scale):
    race = doubling(contestant("course", double, True), requested=1536)
    used = Resources("k", 40, 0, 0, 4, 10_000, HOPPER)
    result = races.Result(race, "course", True, bench.Timing(1024 / 3.8e12, 1e-10, 1e-9, 5), resources=used)
    words = races_report.limit(result, scale)
    assert words.startswith("95 % of the copy bandwidth; requests 1.5x the compulsory bytes, so 67 % would be all without a cache; ")
    flops = dataclasses.replace(race, flops=int(1e12), ceiling="bf16", exponentials=int(4e9))
    words = races_report.limit(races.Result(flops, "course", True, bench.Timing(2e-3, 1e-3, 3e-3, 5)), scale)
    alone = 4e9 / (132 * 16 * 1.83e9) / 2e-3  # the H200's data sheet: 132 multiprocessors, 1.83 GHz
    assert words == f"products at 50 % of the matmul rate; exponentials alone take {100 * alone:.0f} % of the time"


# ---------------------------------------------------------------- rows, tables, records


@pytest.fixture
def outcome():
    race = doubling(contestant("course", double, True), contestant("torch", lambda x: x + x), contestant("torch.compile", double))
    return [run(race, FakeClock({"course": MICRO, "torch": 2 * MICRO, "torch.compile": MICRO / 2}), rounds=3)]


def test_rows_are_flat_and_share_their_keys(outcome, scale):
    for rows in (races_report.wide_rows(outcome * 2, scale), races_report.kernel_rows(outcome * 2, scale)):
        assert len({tuple(row) for row in rows}) == 1
        assert all(isinstance(value, str | int | float) for row in rows for value in row.values())
    row = races_report.wide_rows(outcome, scale)[0]
    assert row["course (GB/s)"] == pytest.approx(1.024, rel=0.03) and row["course / torch.compile"] == pytest.approx(0.5, rel=0.05)
    assert row["of the ceiling (%)"] == pytest.approx(100 * 1.024 / 4000, rel=0.03)
    row = races_report.kernel_rows(outcome, scale)[0]
    assert row["size"] == "8 x 16" and row["torch / course"] == pytest.approx(2, rel=0.05) and row["unit"] == "GB/s"


def test_a_record_round_trip(outcome, scale, tmp_path, monkeypatch):
    monkeypatch.setattr(recorded, "RESULTS", tmp_path)
    details = [races_report.detail(one, scale) for one in outcome[0]]
    recorded.write("rows", "A title", races_report.wide_rows(outcome, scale), tmp_path, "course bench rows", details)
    record = recorded.table("rows")
    assert record.details == details and record.command == "course bench rows" and "`course bench rows` repeats it" in record.source
    assert "course (GB/s)" in repr(record) and "course / torch" in record._repr_html_()
    recorded.write("plain", "A title", [{"N": 1}], tmp_path)
    plain = json.loads((tmp_path / "plain.json").read_text())
    assert "details" not in plain and plain["command"] == "python benchmarks/plain.py" and recorded.table("plain").details == []


def test_every_committed_record_can_be_read():
    for path in recorded.RESULTS.glob("*.json"):
        if path.stem != "grader_report":
            assert recorded.table(path.stem).rows


# ---------------------------------------------------------------- peers and problems


@pytest.mark.parametrize("causal", [False, True])
def test_peers_that_run_on_a_cpu_agree(causal):
    q, k, v = torch.randn(3, 1, 2, 40, 16, generator=torch.Generator().manual_seed(0))
    exact = torch.nn.functional.scaled_dot_product_attention(q.double(), k.double(), v.double(), is_causal=causal)
    for peer in (peers.naive(40, causal, "cpu"), peers.sdpa("FLASH_ATTENTION", causal), peers.sdpa_by_backend("FLASH_ATTENTION", causal)):
        assert (peer(q, k, v) - exact).abs().max() < 1e-5
        assert (peer(q, k, v) - exact).abs().max() < 1e-5  # the second call takes another path


def test_peers_that_are_not_here_say_why(monkeypatch, tmp_path):
    monkeypatch.delenv(peers.FA3_LIBRARY, raising=False)
    with pytest.raises(NotHere, match="set COURSE_FA3_LIBRARY"):
        peers.flash_attention_3(False)
    monkeypatch.setenv(peers.FA3_LIBRARY, str(tmp_path / "none.so"))
    with pytest.raises(NotHere, match="does not exist"):
        peers.flash_attention_3(False)
    (tmp_path / "none.so").write_text("no library")
    with pytest.raises(OSError):
        peers.flash_attention_3(False)
    with pytest.raises(NotHere, match="above 4,096"):
        peers.naive(8192, False, "cpu")
    with pytest.raises(NotHere, match="has no backend"):
        peers.sdpa("NO_SUCH", False)
    with pytest.raises(NotHere, match="for a GPU"):
        peers.flex(64, True, "cpu")


def test_flash_attention_3_is_called_in_its_layout(monkeypatch, tmp_path):
    library, loaded = tmp_path / "_C.so", []
    library.write_text("stub")
    monkeypatch.setenv(peers.FA3_LIBRARY, str(library))
    monkeypatch.setenv(peers.FA3_CUDART, "libcudart.so.12")
    monkeypatch.setattr(peers.ctypes, "CDLL", lambda name, mode: loaded.append((name, mode)))

    def fwd(q, k, v, softmax_scale, is_causal):
        out = torch.nn.functional.scaled_dot_product_attention(*(x.transpose(1, 2) for x in (q, k, v)), scale=softmax_scale, is_causal=is_causal)
        return out.transpose(1, 2), None, None, None

    ops = types.SimpleNamespace(load_library=loaded.append, flash_attn_3=types.SimpleNamespace(fwd=fwd))
    monkeypatch.setattr(peers, "torch", types.SimpleNamespace(ops=ops))
    setting = races_problems.Setting("cuda", torch.float32)
    who = next(one for one in races_problems._attention(setting, 40, True) if one.name == "FA3")
    q, k, v = torch.randn(3, 1, 2, 40, 16)
    out = who.output(who.prepare()(*who.arrange(q, k, v)))
    exact = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
    assert out.shape == q.shape and (out - exact).abs().max() < 1e-5
    assert loaded == [("libcudart.so.12", peers.ctypes.RTLD_GLOBAL), str(library)]


def test_a_backend_s_refusal_is_explained():
    import warnings

    def refuses(*_):
        warnings.warn("Flash attention kernel not used because: (Triggered internally at x.cpp:1)", stacklevel=1)
        warnings.warn("Flash attention only supports sm80 or newer. (Triggered internally at x.cpp:2)", stacklevel=1)
        raise RuntimeError("No available kernel. Aborting execution.")

    with pytest.raises(NotHere, match="^Flash attention only supports sm80 or newer.$"):
        peers.explained(refuses)()


def test_who_computes_something_else_is_timed_and_not_judged():
    race = doubling(contestant("course", double, True), dataclasses.replace(contestant("other", lambda x: 5 * x), judged=False))
    mine, other = run(race, FakeClock({"course": MICRO, "other": 3 * MICRO}))
    assert other.timing and not other.problem and other.error is None and races_report.ratio(mine, other) == pytest.approx(3, rel=0.05)


def test_the_rows_that_are_compared():
    assert races_problems.picked(5).tolist() == [0, 1, 2, 3, 4]
    some = races_problems.picked(10_000, 64).tolist()
    assert len(set(some)) == 64 and some == sorted(some) and some[0] == 0 and some[-1] == 9_999 and some == races_problems.picked(10_000, 64).tolist()


def test_problems_count_what_they_say():
    gpu = races_problems.Setting("cpu", torch.float32, sizes=(64,))
    by_kernel = {name: make(gpu) for name, make in races_problems.KERNELS.items()}
    assert by_kernel["softmax_rows"][0].bytes == 2 * 512 * 64 * 4 and by_kernel["swiglu"][0].bytes == 3 * 512 * 64 * 4
    assert by_kernel["rms_norm"][0].bytes == (2 * 512 * 64 + 64) * 4 and by_kernel["matmul"][0].flops == 2 * 64**3
    attention = {(race.size["D"], race.size["causal"]): race for race in by_kernel["flash_forward"]}
    assert set(attention) == {(64, False), (64, True), (128, False), (128, True)}
    assert attention[64, False].flops == 4 * 2 * 64 * 64 * 64 == 2 * attention[64, True].flops
    assert attention[64, False].exponentials == 2 * 64 * 64
    for name, products in (("flash_backward", 5), ("flash_backward_dkdv", 4), ("flash_backward_dq", 3)):
        backward = {(race.size["D"], race.size["causal"]): race for race in by_kernel[name]}
        assert set(backward) == set(attention) and all(2 * race.flops == products * attention[key].flops for key, race in backward.items())
        assert backward[64, True].ceiling == "fp32" and len(backward[64, True].contestants) == (3 if products == 5 else 1)
    assert by_kernel["flash_varlen"][0].flops == attention[64, False].flops * by_kernel["flash_varlen"][0].size["B"]
    (window, *_), kept = by_kernel["flash_window"], sum(min(i + 1, 8) for i in range(64))
    assert window.size["window"] == 8 and window.flops == 4 * 64 * 2 * kept and by_kernel["flash_window_backward"][0].flops == 2.5 * window.flops
    on_gpu = races_problems._attention(races_problems.Setting("cuda", torch.float32), 4096, True)
    assert [one.name for one in on_gpu] == [
        "flash_forward", "two_tiles", "descriptors", "naive", "FA2", "cuDNN", "efficient", "FA3", "FlexAttention"
    ]  # fmt: skip
    assert [one.name for one in peers_backward.usual(4096, True, "cuda")] == ["naive", "FA2", "cuDNN", "efficient", "FA3", "FlexAttention"]
    assert tuple(races_problems.GROUPS.items()) == tuple(command.GROUPS.items())


def test_problems_over_a_cache_count_what_they_say(monkeypatch):
    monkeypatch.setattr(torch.Tensor, "to", lambda x, *_: x)  # a description of a GPU's problems needs no GPU
    monkeypatch.setattr(torch, "arange", lambda *sizes, device=None, arange=torch.arange: arange(*sizes))
    gpu = races_problems.Setting("cuda", torch.bfloat16)
    by_kernel = {name: {tuple(race.size.values()): race for race in make(gpu)} for name, make in races_decode.KERNELS.items()}
    assert list(by_kernel["decode"]) == [(64, 8192), (1, 131_072), (16, 2048)]
    K_V = 2 * 64 * 8 * 8192 * 128 * 2  # GQA 32/8, D = 128
    assert by_kernel["decode"][64, 8192].bytes == K_V + 2 * 64 * 32 * 128 * 2 + 64 * 4
    assert by_kernel["paged_decode"][64, 8192, 16].bytes == K_V + 2 * 64 * 32 * 128 * 2 + 64 * 4 + 64 * 512 * 4
    assert by_kernel["paged_prefill"][4, 4096, 4096, 16].flops == 4 * 128 * 4 * 32 * 4096 * 4097 // 2
    assert by_kernel["paged_prefill"][8, 512, 8192, 16].flops == 4 * 128 * 8 * 32 * sum(range(8192 - 511, 8193))
    assert [one.name for one in by_kernel["decode"][16, 2048].contestants] == ["course", "cuDNN", "FA2", "math", "FA3"]
    assert [one.name for one in by_kernel["paged_decode"][16, 2048, 16].contestants] == ["course", "FlashInfer", "FA3"]
    assert [one.name for one in by_kernel["paged_prefill"][8, 512, 8192, 16].contestants] == ["course", "dense", "FlashInfer", "FA3"]
    assert by_kernel["rope"][2, 32, 4096].bytes == 2 * (2 * 2 * 32 * 4096 * 128 + 2 * 4096 * 128)
    assert by_kernel["write_kv"][64, 1024].bytes == 64 * (4 * 1024 * 2 + 8)


def test_peers_over_a_cache_say_why_they_are_not_here(monkeypatch):
    monkeypatch.delenv(peers.FA3_LIBRARY, raising=False)
    with pytest.raises(NotHere, match="set COURSE_FA3_LIBRARY"):
        peers_decode.flash_attention_3()
    monkeypatch.setitem(sys.modules, "flashinfer", None)
    with pytest.raises(NotHere, match="FlashInfer does not import here"):
        peers_decode.flashinfer_decode()


def test_flashinfer_is_told_the_pages_in_use():
    tables, lengths = torch.tensor([[4, 7, -1], [2, -1, -1]], dtype=torch.int32), torch.tensor([17, 16], dtype=torch.int32)
    indptr, pages, last = peers_decode._pages(tables, lengths, 16)
    assert indptr.tolist() == [0, 2, 3] and pages.tolist() == [4, 7, 2] and last.tolist() == [1, 16]


@pytest.mark.parametrize("name", [name for name in races_problems.KERNELS if name != "flash_forward"])
def test_interpreted_kernels_are_right_and_their_bytes_counted(name):
    race = races_problems.KERNELS[name](races_problems.Setting("cpu", torch.float32, tiny=True))[0]
    (look,) = races_interpreted.look(race, torch.Generator().manual_seed(0))
    assert look.problem == "" and look.requested >= race.bytes > 0
    assert look.requested == race.requested or not race.requested
    tenth_off = dataclasses.replace(race.contestants[0], output=lambda out: 1.1 * race.contestants[0].output(out))
    off = dataclasses.replace(race, contestants=(tenth_off, *race.contestants[1:]))
    assert races_interpreted.look(off, torch.Generator().manual_seed(0))[0].problem.startswith("wrong: ")


# ---------------------------------------------------------------- tuning


def test_a_sweep_times_right_configurations_only(capsys):
    def scaled(x, config=None):
        if config and config["BLOCK"] == 3:
            raise ValueError("out of resource: shared memory\nmore")
        return 2 * x + (0.1 if config and config["BLOCK"] == 2 else 0)

    clock = FakeClock({"BLOCK 1, warps 4": 3 * MICRO, "BLOCK 2, warps 4": MICRO, "BLOCK 4, warps 4": 2 * MICRO})
    configs = tune.grid(BLOCK=(1, 2, 3, 4), num_warps=(4,))
    table = tune.sweep(scaled, (torch.ones(4, 8),), configs, bytes=256, exact=lambda x: 2 * x, clock=clock)
    assert [row[0] for row in table.rows] == ["BLOCK 4, warps 4", "BLOCK 1, warps 4", "BLOCK 2, warps 4", "BLOCK 3, warps 4"]
    assert table.rows[2][-1].startswith("wrong") and table.rows[3][-1] == "failed: ValueError: out of resource: shared memory"
    assert "scaled: 4 configurations" in capsys.readouterr().out
    with pytest.raises(ValueError, match="no configuration"):
        tune.sweep(scaled, (torch.ones(4, 8),), [], clock=clock)


def test_tuning_without_a_gpu_is_a_sentence(capsys, monkeypatch):
    monkeypatch.setattr(hardware, "tier", lambda: "interpreter")
    assert tune.sweep(double, (torch.ones(2),), [{"BLOCK": 1}]) is None and "needs a CUDA GPU" in capsys.readouterr().out
    assert tune.main(["matmul"]) == 0 and "needs a CUDA GPU" in capsys.readouterr().out
    assert tune.main(["mat"]) == 2 and "flash_forward_descriptors" in capsys.readouterr().err
    assert tune.main([]) == 2


@pytest.mark.parametrize(
    "name",
    [
        *races_decode.KERNELS,
        *tune.FLASH,
        *races_problems.BACKWARD[1:],
        "flash_window",
        "flash_varlen",
        "flash_score_mod",
        "matmul",
        "softmax_rows",
        "rms_norm",
        "vector_add",
        "swiglu",
        "softmax_long_rows",
    ],
)
def test_candidates_have_the_keys_of_the_kernel_s_own_configuration(name):
    from importlib import import_module

    module = import_module(f"kernels.{races_decode.FILES.get(name, name)}")
    race = races_problems.KERNELS["flash_forward" if name in tune.FLASH else name](races_problems.Setting("cpu", torch.float32))[0]
    if hasattr(module, "config_for"):
        own = module.config_for(*(128,) * (3 if name == "rope" else 1))
    else:
        own = getattr(module, "DEFAULT_CONFIG", None) or next(iter(module.CONFIGS.values()))
        own = own if "num_warps" in own else next(iter(own.values()))
    found = tune.candidates(name, race)
    assert len(found) > 3 and all(set(config) == set(own) for config in found)


# ---------------------------------------------------------------- the command


@pytest.fixture
def course(capsys):
    def go(*argv):
        code = cli.main([str(word) for word in argv])
        return code, *capsys.readouterr()

    return go


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["softmax"], "no kernel or group 'softmax' to race. Choose from rows (vector_add, softmax_rows,"),
        (["--sizes", "a"], "--sizes takes whole numbers"),
        (["--sizes", "0"], "--sizes takes whole numbers"),
        (["--json", "/no/such/folder/x.json"], "folder that exists"),
        (["--json", "/"], "cannot be written"),
        (["softmax_rows", "--output", "x"], "--output writes whole groups. Ask for rows"),
        (["--output", __file__], "is a file"),
        (["--bogus"], "--bogus"),
    ],
)
def test_bad_input_is_one_sentence(course, argv, words):
    code, out, err = course("bench", *argv)
    assert code == 2 and words in err and err.startswith("course: ") and not out


def test_list_and_help(course):
    code, out, _ = course("bench", "--list")
    assert code == 0 and "rows           vector_add, softmax_rows, softmax_long_rows, rms_norm, swiglu" in out
    assert course("bench", "--help")[0] == 0
    assert command.chosen(["swiglu", "matmul", "vector_add"]) == {"rows": ("vector_add", "swiglu"), "matmul": ("matmul",)}


@pytest.fixture
def tiny_problems(monkeypatch, scale):
    """The command on problems of a moment: one race a kernel, with a peer that is missing."""

    def refuse():
        raise NotHere("no such library")

    def make(name):
        unit = {} if name in command.GROUPS["rows"] else {"flops": 4096, "ceiling": "bf16"}
        race = doubling(contestant("course", double, True), contestant("torch", lambda x: x + x), Contestant("FA3", refuse), **unit)
        return lambda setting: [dataclasses.replace(race, kernel=name)]

    monkeypatch.setattr(races_problems, "KERNELS", {name: make(name) for name in races_problems.KERNELS})
    monkeypatch.setattr(ceilings, "measured", lambda device=None, again=False: scale.ceilings)
    return races_problems.KERNELS


@pytest.fixture
def pretend_gpu(monkeypatch, tiny_problems):
    """The command's way with a GPU, on a CPU: the clock and the questions to CUDA are made up."""
    monkeypatch.setattr(hardware, "tier", lambda: "compiled")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: (9, 0))
    monkeypatch.setattr(races_clocks, "GpuClock", lambda: FakeClock({"course": MICRO, "torch": 2 * MICRO}))


def test_races_are_shown_and_recorded(course, pretend_gpu, tmp_path, monkeypatch):
    monkeypatch.setattr(recorded, "RESULTS", tmp_path / "results")
    code, out, err = course("bench", "--output", tmp_path / "results", "--json", tmp_path / "all.json")
    assert code == 0 and "FA3: not here: no such library" in out and "softmax_rows" in err and "2.00x" in out
    assert sorted(path.stem for path in (tmp_path / "results").iterdir()) == sorted(["ch04_rows", *command.GROUPS])
    record = recorded.table("ch04_rows")
    assert [row["kernel"] for row in record.rows] == [*command.GROUPS["rows"], "matmul"] and record.command == "course bench rows matmul"
    rows = recorded.table("rows")
    assert len(rows.rows) == 5 and len(rows.details) == 15 and "4 TB/s" in rows.title and repr(rows) and repr(record)
    everything = json.loads((tmp_path / "all.json").read_text())
    assert len(everything["results"]) == 3 * len(races_problems.KERNELS) and everything["versions"]["torch"] == torch.__version__
    assert {"machine", "date", "versions", "tier", "ceilings", "notes", "results"} == set(everything)
    assert max(map(len, out.splitlines())) < 240


def test_json_to_standard_output_stands_alone(course, pretend_gpu):
    code, out, err = course("bench", "matmul", "--quick", "--json", "-")
    assert code == 0 and json.loads(out)["results"][0]["unit"] == "TFLOP/s" and "TFLOP/s" in err


def test_a_wrong_kernel_ends_with_code_1(course, pretend_gpu, tiny_problems, tmp_path):
    race = tiny_problems["matmul"](None)[0]
    wrong = dataclasses.replace(race, contestants=(contestant("course", lambda x: 3 * x, True), *race.contestants[1:]))
    tiny_problems["matmul"] = lambda setting: [wrong]
    code, out, _ = course("bench", "matmul")
    assert code == 1 and "course: wrong: its largest error is" in out


def test_a_race_that_cannot_begin_does_not_stop_the_others(course, pretend_gpu, tiny_problems):
    def draw(g):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    race = tiny_problems["swiglu"](None)[0]
    tiny_problems["swiglu"] = lambda setting: [dataclasses.replace(race, draw=draw)]
    code, out, _ = course("bench", "swiglu", "rms_norm")
    assert code == 1 and "this race could not be run (OutOfMemoryError: CUDA out of memory.)" in out and "2.00x" in out


def test_a_gpu_without_bf16_races_fp16_and_claims_nothing(course, pretend_gpu, tiny_problems, monkeypatch):
    seen = []
    kept = tiny_problems["flash_forward"]
    tiny_problems["flash_forward"] = lambda setting: seen.append(setting.dtype) or kept(setting)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: (7, 5))
    code, out, _ = course("bench", "flash_forward")
    assert code == 0 and seen == [torch.float16] and "no speed claim is made against SDPA" in out


def test_without_a_gpu_it_says_what_it_measures(course, tiny_problems, monkeypatch, tmp_path):
    monkeypatch.setattr(hardware, "tier", lambda: "interpreter")
    cpu = dataclasses.replace(ceilings.measured().__class__(**vars(ceilings.measured())), device="cpu")
    monkeypatch.setattr(ceilings, "measured", lambda device=None, again=False: cpu)
    monkeypatch.setattr(races_interpreted, "look", lambda race, g: [races_interpreted.Look(race, "course", "", 1.0, 2048)])
    code, out, _ = course("bench", "rows", "--quick", "--output", tmp_path / "r", "--json", tmp_path / "x.json")
    assert code == 0 and "Not measured here: the kernels' speed" in out and "The peers of rows on this CPU" in out
    assert "FA3: not here: no such library" in out and "Nothing is written to --output" in out and not (tmp_path / "r").exists()
    result = json.loads((tmp_path / "x.json").read_text())
    assert result["tier"] == "interpreter" and result["interpreted"][0]["requested / compulsory"] == 2.0
    assert not [row for row in result["results"] if row["course"]]
    monkeypatch.setattr(races_interpreted, "look", lambda race, g: [races_interpreted.Look(race, "course", "wrong: far off", 9.0, 2048)])
    assert course("bench", "swiglu", "--quick")[0] == 1


def test_without_triton_it_is_a_sentence(course, monkeypatch):
    monkeypatch.setattr(hardware, "has_triton", lambda: False)
    code, out, _ = course("bench")
    assert code == 0 and "Use Colab, or WSL" in out


def test_the_scripts_call_the_command():
    for name, words in (("ch04_rows", '"rows", "matmul"'), ("flash_forward", '"flash_forward"')):
        assert f'cli.main(["bench", {words}, "--output", folder])' in (paths.ROOT / "benchmarks" / f"{name}.py").read_text()


@pytest.mark.slow
@pytest.mark.skipif(hardware.tier() != "interpreter", reason="what the command does without a GPU")
def test_the_whole_command_without_a_gpu(course):
    code, out, _ = course("bench", "--quick")
    assert code == 0 and "wrong" not in out and out.count("right") >= 12


# ---------------------------------------------------------------- with a GPU

needs_gpu = pytest.mark.skipif(hardware.tier() == "interpreter", reason="needs a CUDA GPU: make gpu runs these")


WITHOUT_A_PEER = {"flash_backward_dkdv", "flash_backward_dq", "paged_decode"}  # parts of a pass; libraries that need not be installed


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("name", list(races_problems.KERNELS))
def test_every_kernel_wins_a_right_race_on_a_gpu(name):
    bf16 = torch.cuda.get_device_capability() >= (8, 0)
    setting = races_problems.Setting("cuda", torch.bfloat16 if bf16 else torch.float16, quick=True, sizes=(1024,))
    race = races_problems.KERNELS[name](setting)[0]
    race = dataclasses.replace(race, contestants=tuple(one for one in race.contestants if one.name not in ("FlexAttention", "torch.compile")))
    with torch.no_grad():
        results = run(race, races_clocks.GpuClock(), rounds=3, seconds=0.5)
    for one in (one for one in results if one.ours):
        assert not one.problem and one.timing.median > 0, one
        if name != "flash_backward":  # three kernels, each raced by itself
            assert one.resources.registers > 0 and one.resources.fit >= 1, one
    assert name in WITHOUT_A_PEER or any(one.timing for one in results if not one.ours), results


@pytest.mark.gpu
@needs_gpu
def test_a_short_launch_is_timed_as_a_graph_on_a_gpu():
    setting = races_problems.Setting("cuda", torch.float16, sizes=(1024,))
    with torch.no_grad():
        mine = run(races_problems.vector_add(setting)[0], races_clocks.GpuClock(), rounds=3, seconds=0.5)[0]
    assert mine.how == "CUDA graph" and mine.timing.median < 50e-6


@pytest.mark.gpu
@needs_gpu
def test_a_sweep_on_a_gpu(capsys):
    from kernels.matmul import matmul

    a, b = torch.randn(2, 512, 512, device="cuda", dtype=torch.float16)
    configs = tune.grid(BLOCK_M=(32, 64), BLOCK_N=(32,), BLOCK_K=(32,), GROUP=(8,), num_warps=(4,), num_stages=(1,))
    table = tune.sweep(matmul, (a, b), configs, flops=2 * 512**3)
    assert len(table.rows) == 2 and all(row[1].endswith("us") for row in table.rows)


# ---------------------------------------------------------------- peers' libraries


def test_code_for_other_gpus_is_zeroed_and_nothing_else():
    import struct

    from tools import peer_libraries

    def entry(architecture: int, code: bytes) -> bytes:
        return struct.pack("<HHIQQI", 2, 257, 64, len(code), 0, 0) + struct.pack("<I", architecture) + bytes(32) + code

    inside = entry(80, b"A" * 40) + entry(90, b"B" * 24) + entry(86, b"C" * 8)
    library = b"head" + peer_libraries.MAGIC + struct.pack("<Q", len(inside)) + inside + b"tail A"
    data, zeroed = peer_libraries.pruned(library)
    assert zeroed == 48 and len(data) == len(library)
    assert bytes(data) == library.replace(b"A" * 40, bytes(40)).replace(b"C" * 8, bytes(8))
    assert peer_libraries.main([]) == peer_libraries.main(["vllm"]) == 2
