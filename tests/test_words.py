"""Numbers and counted things read as a person would write them."""

import pytest

from course_lib import bench, words


@pytest.mark.parametrize(("noun", "many"), [("key", "keys"), ("query", "queries"), ("row", "rows"), ("batch", "batches"), ("place", "places")])
def test_plural(noun, many):
    assert words.plural(noun, 3) == many and words.plural(noun, 1) == noun


@pytest.mark.parametrize(
    ("unit", "one"),
    [
        ("units", "unit"),
        ("reads per score", "read per score"),
        ("queries", "query"),
        ("passes", "pass"),
        ("MiB", "MiB"),
        ("ms", "ms"),
        ("GB/s", "GB/s"),
        ("FLOPs", "FLOPs"),
        ("loss", "loss"),
        ("", ""),
    ],
)
def test_the_unit_of_one(unit, one):
    assert words.unit_of(1, unit) == one and words.unit_of(1.0, unit) == one
    assert words.unit_of(2, unit) == unit and words.unit_of("1", unit) == unit and words.unit_of(True, unit) == unit


@pytest.mark.parametrize(
    ("x", "said"),
    [
        (1850.0, "1,850"),
        (1850.4, "1,850"),
        (0.00123456, "0.001235"),
        (0.5, "0.5"),
        (999.96, "1,000"),
        (123456.7, "123,457"),
        (1.5e-5, "1.5e-05"),
        (2.5e7, "25,000,000"),
        (25000000.3, "2.5e+07"),
        (-12.5, "-12.5"),
        (0, "0"),
        (float("nan"), "nan"),
    ],
)
def test_number(x, said):
    assert words.number(x) == said


@pytest.mark.parametrize(
    ("seconds", "said"), [(1.8503, "1.85 s"), (0.0123456, "12.35 ms"), (0.9999, "999.9 ms"), (0.0000456, "0.0456 ms"), (1850.2, "1,850 s")]
)
def test_a_timing_has_no_exponent(seconds, said):
    text = str(bench.Timing(seconds, seconds * 0.9, seconds * 1.1, 7))
    assert text.startswith(f"{said} (middle half of 7: ") and "e+" not in text and "e-" not in text
