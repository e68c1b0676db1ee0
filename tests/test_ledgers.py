"""Three ledgers, never mixed; and the tables that show them and the timings."""

import re

import pytest
import torch

from course_lib import bench
from course_lib.bench import Row, Timing
from course_lib.ledgers import compulsory_bytes, ledgers, requested_bytes, size
from course_lib.tables import Table
from course_lib.traffic import Launch

TIMING = Timing(0.002, 0.0018, 0.0025, 7)


def test_each_tensor_once():
    x, y = torch.zeros(10, 4), torch.zeros(6, dtype=torch.float16)
    assert compulsory_bytes([x, y]) == 160 + 12
    assert compulsory_bytes([x, x, y]) == 172  # the same tensor twice is one tensor
    assert compulsory_bytes([x[:1].expand(100, 4)]) == 16  # the same memory a hundred times
    assert compulsory_bytes(x) == 160 and compulsory_bytes([torch.zeros(0, 3)]) == 0
    assert compulsory_bytes([x[:, 0]]) == 40  # what is touched, not what lies between
    with pytest.raises(ValueError, match="it takes tensors, and one of them is 'x'"):
        compulsory_bytes(["x"])


def test_requests_are_loads_and_stores_of_all_launches():
    one, two = Launch("a", bytes_loaded=30, bytes_stored=10), Launch("b", bytes_loaded=5)
    assert requested_bytes([one, two]) == 45 and requested_bytes(one) == 40
    with pytest.raises(ValueError, match="no launch was counted"):
        requested_bytes([])


def test_three_ledgers_and_their_ratio():
    books = ledgers("copy", [torch.zeros(256), torch.ones(256)], [Launch("copy", bytes_loaded=4096, bytes_stored=1024)])
    assert (books.compulsory, books.requested, books.dram, books.excess) == (2048, 5120, None, 2.5)
    lines = [[word for word in re.split(r"  +", line) if word] for line in repr(books).splitlines()]
    assert lines == [
        ["copy"],
        ["ledger", "what it counts", "bytes", "of compulsory"],
        ["compulsory", "every tensor once", "2 KiB"],
        ["requested", "what loads and stores ask for", "5 KiB", "2.5 x"],
        ["DRAM", "what left the chip", "not measured"],
        ["DRAM: only a profiler on a GPU can tell; requests are no stand-in for it."],
    ]
    assert "2.5 x" in books._repr_html_() and "profiler" in books._repr_html_()


def test_a_ledger_that_was_not_kept_is_not_made_up():
    books = ledgers("x", 1000)
    assert books.requested is None and books.dram is None and books.excess is None
    assert repr(books).count("not measured") == 2
    assert "profiler" not in repr(ledgers("x", 1000, dram=900))


@pytest.mark.parametrize(
    "arguments, words",
    [((0,), "compulsory is 0 bytes"), ((10, -1), "requested is -1"), ((10, float("nan")), "requested is nan"), ((10, 10, True), "dram is True")],
)
def test_amounts_are_bytes(arguments, words):
    with pytest.raises(ValueError, match=words):
        ledgers("x", *arguments)


def test_sizes_in_words():
    assert [size(n) for n in (1, 512, 1024, 1536, 5 * 2**20, 3 * 2**40)] == ["1 byte", "512 bytes", "1 KiB", "1.5 KiB", "5 MiB", "3 TiB"]


def test_the_bench_table():
    rows = [Row("copy", TIMING, bytes=2e8, ceiling=2e11), Row("matmul", TIMING, flops=4e9, ceiling=1e13), Row("launch", TIMING)]
    lines = repr(bench.table(rows, "Times", "a note")).splitlines()
    assert [[word for word in re.split(r"  +", line) if word] for line in lines] == [
        ["Times"],
        ["median", "middle half", "rate", "of this machine's ceiling"],
        ["copy", "2 ms", "1.8 to 2.5", "100 GB/s", "50 %"],
        ["matmul", "2 ms", "1.8 to 2.5", "2 TFLOP/s", "20 %"],
        ["launch", "2 ms", "1.8 to 2.5"],
        ["a note"],
    ]
    assert bench.table(rows[2:]).columns == ("", "median", "middle half")


def test_a_row_is_bytes_or_flops():
    with pytest.raises(ValueError, match="give bytes or flops, not both"):
        Row("both", TIMING, bytes=1, flops=1)
    with pytest.raises(ValueError, match="a ceiling needs bytes or flops"):
        Row("none", TIMING, ceiling=1e9)
    with pytest.raises(ValueError, match="no row"):
        bench.table([])


def test_a_table_escapes_and_refuses_ragged_rows():
    assert "&lt;b&gt;" in Table(("a", "b"), (("<b>", "1"),))._repr_html_()
    with pytest.raises(ValueError, match=r"table of 2 columns \(a, b\) got a row of 1"):
        Table(("a", "b"), (("x",),))
