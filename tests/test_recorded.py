"""Committed measurements: written, read again, and shown with the command that repeats them."""

import pytest

from course_lib import recorded


@pytest.fixture
def record(tmp_path, monkeypatch):
    monkeypatch.setattr(recorded, "RESULTS", tmp_path)
    recorded.write(
        "some_run", "Time <of> it", [{"N": 1024, "ms": 0.1586, "peak (MiB)": 999.96}, {"N": 2048, "ms": 1850.0, "peak (MiB)": 16.0}], tmp_path
    )
    return recorded.table("some_run")


def test_the_caption_shows_the_command_as_code(record):
    page = record._repr_html_()
    assert "<code>python benchmarks/some_run.py</code> repeats it" in page and "`" not in page
    assert "Time &lt;of&gt; it" in page
    assert "`python benchmarks/some_run.py` repeats it" in repr(record)


def test_numbers_are_shown_without_exponents(record):
    assert all(word in record._repr_html_() for word in (">1,024<", ">0.159<", ">1,000<", ">1,850<", ">16<"))
    assert "e+" not in repr(record)


def test_a_record_that_is_not_there_is_said_in_a_sentence(record):
    with pytest.raises(FileNotFoundError, match="no committed measurement 'other_run' .there are: some_run.; `python benchmarks/other_run.py`"):
        recorded.table("other_run")
