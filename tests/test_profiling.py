"""A profiler's record, read: scopes and kernels, shares, the way from one tool to the next, and sentences where there is no GPU."""

from types import SimpleNamespace

import pytest
import torch

from course_lib import hardware, profiling
from course_lib.profiling import Seen


def node(name: str, children=(), **metrics) -> dict:
    return {"frame": {"name": name, "type": "function"}, "metrics": metrics, "children": list(children)}


def kernel(name: str, count: int, nanoseconds: int) -> dict:
    return node(name, **{"count": count, "time (ns)": nanoseconds, "device_id": "0"})


TREE = [
    node(
        "ROOT",
        [
            node("profiled: naive", [kernel("gemm", 40, 80_000), node("aten::softmax", [kernel("softmax", 20, 400_000)]), kernel("gemm", 20, 20_000)]),
            node("profiled: flash", [kernel("flash_forward_kernel", 20, 100_000)]),
            kernel("of nobody", 5, 7),
        ],
    ),
    {"CUDA": {"0": {"arch": "90"}}},
]


def test_a_tree_is_read_by_scope_and_kernel():
    found = profiling.read_tree(TREE, calls=20)
    assert found == [Seen("naive", "gemm", 3.0, 5.0), Seen("naive", "softmax", 1.0, 20.0), Seen("flash", "flash_forward_kernel", 1.0, 5.0)]
    seen = profiling.Profile(profiling._in_order(found), "Proton", 20)
    assert [one.kernel for one in seen.kernels] == ["softmax", "gemm", "flash_forward_kernel"] and seen.total("naive") == 25.0
    assert seen.rows()[0]["share of its way (%)"] == 80.0 and seen.rows()[2]["µs a call"] == 5.0
    assert "softmax" in repr(seen) and "Proton; 20 calls each" in seen._repr_html_()
    with pytest.raises(ValueError, match="no way 'other'; there are naive, flash"):
        seen.total("other")


def test_averages_are_read_where_the_gpu_worked():
    def event(key, kind, count, micro):
        return SimpleNamespace(key=key, device_type=f"DeviceType.{kind}", count=count, self_device_time_total=micro)

    averages = [event("kernel", "CUDA", 4, 8.0), event("aten::mm", "CPU", 4, 8.0), event("nothing", "CUDA", 1, 0.0)]
    assert profiling.read_averages(averages) == [("kernel", 4, 8.0)]


def test_names_are_short():
    assert profiling.short("void at::native::softmax<float, 4>(float*)") == "at::native::softmax"
    assert len(profiling.short("x" * 100)) == profiling.SHORT and profiling.short("<lambda>") == "<lambda>"


@pytest.mark.parametrize("ways", [{}, [abs], {"a": 3}, None])
def test_what_is_no_set_of_calls_is_refused(ways):
    with pytest.raises(ValueError, match="give it a dict of functions"):
        profiling.profile(ways)


@pytest.mark.parametrize("options", [{"calls": 0}, {"tool": "nsys"}])
def test_options_are_checked(options):
    with pytest.raises(ValueError, match="at least one call, and one of Proton, torch.profiler"):
        profiling.profile({"a": dict}, **options)


def test_without_a_gpu_a_sentence(monkeypatch):
    monkeypatch.setattr(hardware, "tier", lambda: "interpreter")
    with pytest.raises(RuntimeError, match="Profiling is blocked here"):
        profiling.profile({"a": dict})
    assert "Profiling is blocked here. It needs a CUDA GPU" in repr(profiling.tried({"a": dict}))
    with pytest.raises(ValueError, match="give it a dict"):  # a mistake is no missing GPU
        profiling.tried({})


@pytest.fixture
def gpu(monkeypatch):
    """A machine with a GPU, as far as this module can tell."""
    monkeypatch.setattr(hardware, "blocked", lambda need, what="": None)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)


def raising(ways, calls):
    raise OSError("CUPTI may not be used")


def test_the_next_tool_is_tried_where_one_cannot(gpu, monkeypatch):
    monkeypatch.setattr(profiling, "_TOOLS", {"Proton": raising, "torch.profiler": lambda ways, calls: [Seen(way, "k", 1, 2.0) for way in ways]})
    seen = profiling.profile({"a": dict, "b": dict})
    assert seen.tool == "torch.profiler" and seen.total("b") == 2.0
    with pytest.raises(RuntimeError, match="Proton: OSError: CUPTI may not be used"):
        profiling.profile({"a": dict}, tool="Proton")


def test_a_tool_that_sees_nothing_is_no_profile(gpu, monkeypatch):
    monkeypatch.setattr(profiling, "_TOOLS", {"Proton": lambda ways, calls: [Seen("a", "k", 1, 2.0)], "torch.profiler": raising})
    with pytest.raises(RuntimeError, match="Proton saw no kernel of b; torch.profiler: OSError"):
        profiling.profile({"a": dict, "b": dict})


@pytest.mark.gpu
@pytest.mark.skipif(hardware.tier() == "interpreter", reason="a profiler needs a GPU")
@pytest.mark.parametrize("tool", ["Proton", "torch.profiler"])
def test_on_a_gpu_both_tools_see_the_same_kernel(tool):
    x = torch.randn(4096, 4096, device="cuda")
    seen = profiling.profile({"add": lambda: x + 1, "sum": lambda: x.sum()}, calls=5, tool=tool)
    assert 10 < seen.total("add") < 1e5 and {one.way for one in seen.kernels} == {"add", "sum"}
