"""The roofline's arithmetic, against numbers worked out by hand."""

import math

import pytest

from course_lib import roofline
from course_lib.roofline import Machine, Work, attention_work, elementwise_work, machine, matmul_work, softmax_work

TOY = Machine("toy", bandwidth=100.0, rates={"fp16": 1000.0, "fp32": 200.0})


def test_work_counted_by_hand():
    assert matmul_work(2, 3, 5, bytes_each=2) == Work(60, (10 + 15 + 6) * 2)
    assert elementwise_work(10, reads=2, writes=1, flops_each=1, bytes_each=4) == Work(10, 120)
    assert softmax_work(3, 4, bytes_each=4) == Work(60, 96)
    assert softmax_work(3, 4, bytes_each=4, reads=3) == Work(60, 192)
    assert attention_work(8, 4, heads=3, how="flash") == Work(3 * (4 * 64 * 4 + 6 * 64), 3 * 4 * 8 * 4 * 2)
    assert attention_work(8, 4, how="naive").bytes == (4 * 8 * 4 + 4 * 64) * 2
    assert Work(1, 2) + Work(3, 4) == Work(4, 6)


def test_time_rate_and_side_of_the_ridge():
    copy, square, edge = Work(0, 50), Work(5000, 50), Work(500, 50)
    assert roofline.ridge(TOY) == 10 and roofline.ridge(TOY, "fp32") == 2
    assert roofline.seconds(copy, TOY) == 0.5 and roofline.seconds(square, TOY) == 5
    assert roofline.attainable(square, TOY) == 1000 and roofline.attainable(Work(50, 50), TOY) == 100 and roofline.attainable(copy, TOY) == 0
    assert [roofline.bound(work, TOY) for work in (copy, edge, square)] == ["memory", "compute", "compute"]
    assert roofline.bound(Work(150, 50), TOY, "fp32") == "compute" and roofline.bound(Work(150, 50), TOY) == "memory"
    for work in (Work(70, 50), square):
        assert work.flops / roofline.seconds(work, TOY) == pytest.approx(roofline.attainable(work, TOY))


def test_machines_by_name():
    assert roofline.ridge(machine("H100"), "bf16") == pytest.approx(989.4e12 / 3.35e12)
    assert machine("NVIDIA A100-SXM4-80GB").name == "A100" and "dense" in machine("A100").source


def test_this_machine_comes_from_the_measured_ceilings(monkeypatch):
    from course_lib import ceilings

    one = ceilings.Ceiling(8e9, 7e9, 9e9, "how")
    found = ceilings.Ceilings("CPU (toy)", "cpu", "2026-11-21", {"torch": "0"}, one, one, {"fp32": ceilings.Ceiling(1e11, 1e11, 1e11, "mm")})
    monkeypatch.setattr(ceilings, "measured", lambda device: found if device == "cpu" else None)
    this = machine("this", "cpu")
    assert (this.name, this.bandwidth, this.rates) == ("CPU (toy)", 8e9, {"fp32": 1e11}) and "2026-11-21" in this.source


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: machine("H20O"), "no data sheet for 'H20O'"),
        (lambda: roofline.ridge(TOY, "fp15"), "toy has no rate for 'fp15' .it has fp16, fp32.; did you mean 'fp16'"),
        (lambda: Work(3, 0).intensity, "moves 0 bytes"),
        (lambda: matmul_work(0, 3, 3), "m is 0; it must be above 0"),
        (lambda: matmul_work(math.nan, 3, 3), "m is nan"),
        (lambda: elementwise_work(4, reads=0, writes=0), "some bytes must move"),
        (lambda: attention_work(4, 4, how="fast"), "choose 'naive' or 'flash'"),
    ],
)
def test_errors_are_sentences(call, words):
    with pytest.raises(ValueError, match=words):
        call()
