"""The data sheet table: sources for every field, and numbers that agree with each other."""

import dataclasses

import pytest

from course_lib import datasheets
from course_lib.datasheets import KIB, SHEETS, sheet

FLOPS_PER_CLOCK = {(7, 5): 1024, (8, 0): 2048, (8, 9): 1024, (9, 0): 4096, (10, 0): 8192}  # fp16 matrix FLOPs of one SM, dense


@pytest.mark.parametrize("one", SHEETS.values(), ids=SHEETS)
def test_every_field_has_a_document(one):
    fields = {field.name for field in dataclasses.fields(one)} - {"name", "full_name", "source"} | {"shared_bandwidth"}
    assert set(one.source) == fields
    assert all(len(words) > 20 for words in one.source.values())


@pytest.mark.parametrize("one", SHEETS.values(), ids=SHEETS)
def test_rates_are_dense_and_agree_with_the_clock(one):
    assert one.rates["fp16"] == pytest.approx(one.sms * FLOPS_PER_CLOCK[one.capability] * one.clock_ghz * 1e9, rel=0.01)
    assert one.rates.get("bf16", one.rates["fp16"]) == one.rates["fp16"] < 0.9e15 * (3 if one.capability[0] == 10 else 1.2)
    assert one.rates["int8"] == pytest.approx(2 * one.rates["fp16"], rel=0.01)
    if "fp8" in one.rates:
        assert one.rates["fp8"] == one.rates["int8"] and one.capability >= (8, 9)
    if "tf32" in one.rates:
        assert one.rates["tf32"] == pytest.approx(one.rates["fp16"] / 2, rel=0.03) and one.capability >= (8, 0)


def test_what_one_thread_block_may_have():
    assert {name: one.shared_per_block // KIB for name, one in SHEETS.items()} == {
        "T4": 64,
        "L4": 99,
        "A100": 163,
        "H100": 227,
        "H200": 227,
        "B200": 227,
    }
    for one in SHEETS.values():
        assert one.shared_per_block <= one.shared_per_sm < one.registers_per_sm == 256 * KIB
        assert one.shared_bandwidth > 3 * one.bandwidth and one.link < one.bandwidth


def test_on_chip_bandwidth_is_the_formula():
    assert sheet("A100").shared_bandwidth == pytest.approx(108 * 128 * 1.41e9)
    assert sheet("H100").shared_bandwidth == pytest.approx(31e12, rel=0.01)  # FlashAttention-3, table 1, rounds to 31 TB/s


@pytest.mark.parametrize(
    "name, found",
    [("h100", "H100"), ("NVIDIA H200", "H200"), ("Tesla T4", "T4"), ("NVIDIA A100-SXM4-80GB", "A100"), ("NVIDIA H100 80GB HBM3", "H100")],
)
def test_found_by_the_drivers_name(name, found):
    assert sheet(name).name == found


def test_an_unknown_gpu_is_said_with_the_nearest():
    with pytest.raises(ValueError, match="no data sheet for 'H10' .there are: T4, .*; did you mean 'H100'"):
        sheet("H10")
    with pytest.raises(ValueError, match=r"B200\)$"):
        sheet("Radeon")
    with pytest.raises(ValueError, match="T4 has no rate for 'bf16'; its data sheet gives fp32, fp16, int8"):
        datasheets.sheet("T4").rate("bf16")
