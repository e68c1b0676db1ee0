"""A file is replaced whole or not at all, and what a killed process left is removed by a later write."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from course_lib import disk

ROOT = Path(__file__).resolve().parent.parent


def test_new_and_old_files(tmp_path):
    path = tmp_path / "a" / "b.txt"
    disk.replace(path, "one")
    assert path.read_text() == "one" and path.stat().st_mode & 0o777 == 0o644 & ~_umask()
    path.chmod(0o640)
    disk.replace(path, b"two \xff")
    assert path.read_bytes() == b"two \xff" and path.stat().st_mode & 0o777 == 0o640
    disk.replace(path, "half a pair \ud800")
    assert path.read_bytes() == b"half a pair \\ud800"
    assert os.listdir(path.parent) == ["b.txt"]


def _umask() -> int:
    before = os.umask(0)
    os.umask(before)
    return before


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_trouble_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, error):
    path = tmp_path / "b.txt"
    disk.replace(path, "one")

    def trouble(descriptor, data):
        os.write(descriptor, data[:2])
        os.close(descriptor)
        raise error

    monkeypatch.setattr(disk, "write_bytes", trouble)
    with pytest.raises(type(error)):
        disk.replace(path, "two")
    assert path.read_text() == "one" and os.listdir(tmp_path) == ["b.txt"]


KILLED = """
import os, signal, sys
from pathlib import Path
from course_lib import disk
os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
disk.replace(Path(sys.argv[1]), "new")
"""


def test_what_a_killed_process_left_is_removed_later(tmp_path):
    path, other = tmp_path / "b.txt", tmp_path / ".c.txt.1-2.tmp"
    disk.replace(path, "old")
    other.write_text("of another file")
    done = subprocess.run([sys.executable, "-c", KILLED, str(path)], cwd=ROOT)
    assert done.returncode == -signal.SIGKILL and path.read_text() == "old"
    (half,) = tmp_path.glob(".b.txt.*.tmp")
    disk.replace(path, "newer")
    assert half.exists()  # another process may be writing it at this moment
    long_ago = time.time() - 700
    for left in (half, other):
        os.utime(left, (long_ago, long_ago))
    disk.replace(path, "newest")
    assert not half.exists() and other.exists() and path.read_text() == "newest"


def test_whoever_is_alone_takes_the_place_of_the_half_written_file_at_once(tmp_path):
    path = tmp_path / "b.txt"
    (tmp_path / ".b.txt.tmp").write_text("half")
    disk.replace(path, "whole", alone=True)
    assert path.read_text() == "whole" and os.listdir(tmp_path) == ["b.txt"]


def test_many_writers_at_once_leave_one_whole_text(tmp_path):
    path = tmp_path / "b.txt"
    texts = [str(i) * 100_000 for i in range(8)]
    threads = [threading.Thread(target=lambda text=text: [disk.replace(path, text) for _ in range(10)]) for text in texts]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        if path.exists():
            assert path.read_text() in texts
    assert path.read_text() in texts and os.listdir(tmp_path) == ["b.txt"]
