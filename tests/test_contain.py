"""Answers that harm: each is refused in words that fit, quickly, and leaves no process behind."""

import os
import threading
import time
from pathlib import Path

import pytest

from course_lib.grading import contain
from course_lib.grading.client import Judge

RIGHT = "    return torch.nan_to_num(x.abs() / x.abs().sum(-1, True))\n"
HEAD = "import torch\n"

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for left-over processes in /proc")


def processes(judge: Judge) -> list[str]:
    """Every process that descends, or once descended, from this judge's fork servers (they share its command line); not the servers."""
    lines = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                lines[int(folder.name)] = (
                    (folder / "cmdline").read_bytes().decode(),
                    int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1]),
                )
            except (OSError, IndexError):
                continue
    servers = {pid: line for pid, (line, parent) in lines.items() if parent == judge._process.pid and "forkserver" in line}
    assert servers, "the judge has a fork server"
    return [line for pid, (line, _) in lines.items() if line in servers.values() and pid not in servers]


def refused(judge: Judge, text: str, name: str = "row_shares"):
    """The verdict on an answer that must not pass; afterwards only the fork servers are left."""
    verdict = judge.check(name, text, seed=3)
    assert verdict.status != "passed" and verdict.points == 0
    assert verdict.diagnosis is not None and verdict.diagnosis.id != "internal", verdict.diagnosis
    deadline = time.monotonic() + 3
    while processes(judge) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not processes(judge), "a process of the answer is left"
    return verdict


def passes(judge: Judge, text: str):
    verdict = judge.check("row_shares", text, seed=3)
    assert verdict.status == "passed", (verdict.diagnosis, verdict.details)
    assert not processes(judge)
    return verdict


def body(*lines: str, head: str = "") -> str:
    return HEAD + head + "def row_shares(x):\n" + "".join(f"    {line}\n" for line in lines)


def test_endless_loop(judge):
    verdict = refused(judge, body("while True: pass"))
    assert verdict.status == "timeout" and verdict.seconds < 8
    assert "No result after 3 s" in verdict.diagnosis.message and "2 rows of 3 numbers" in verdict.diagnosis.message


def test_endless_loop_that_ignores_signals(judge):
    ignore = "for n in range(1, 65):\n    try: signal.signal(n, signal.SIG_IGN)\n    except (OSError, ValueError): pass\n"
    loop = ["while True:", "    try: time.sleep(1)", "    except BaseException: pass"]
    assert refused(judge, body(*loop, head=f"import signal, time\n{ignore}")).status == "timeout"


def test_endless_loop_at_import(judge):
    assert refused(judge, HEAD + "while True: pass\ndef row_shares(x): return x\n").status == "timeout"


def test_exit_0_is_no_pass(judge):
    verdict = refused(judge, body("os._exit(0)", head="import os\n"))
    assert verdict.diagnosis.id == "exited" and "exit code 0" in verdict.diagnosis.message


@pytest.mark.parametrize("line", ["sys.exit(0)", "raise SystemExit", "raise GeneratorExit", "raise KeyboardInterrupt"])
def test_leaving_by_exception(judge, line):
    verdict = refused(judge, body(line, head="import sys\n"))
    assert verdict.diagnosis.id in ("exit", "interrupt") and line in verdict.diagnosis.message


def test_segfault(judge):
    verdict = refused(judge, body("ctypes.string_at(0)", head="import ctypes\n"))
    assert verdict.diagnosis.id == "crashed" and "memory fault" in verdict.diagnosis.message.lower()


def test_abort(judge):
    assert refused(judge, body("os.abort()", head="import os\n")).diagnosis.id == "crashed"


def test_fork_bomb_with_setsid(judge):
    bomb = ["while True:", "    try:", "        if os.fork() == 0: os.setsid()", "    except OSError: pass"]
    verdict = refused(judge, body(*bomb, head="import os\n"))
    assert verdict.diagnosis.id in ("too-many-processes", "timeout")
    assert verdict.seconds < 15


def test_children_that_escape(judge):
    twice = [
        "    if os.fork() == 0:",
        "        os.setsid()",
        "        if os.fork() == 0:",
        "            while True: time.sleep(1)",
        "        os._exit(0)",
    ]
    escape = ["for _ in range(3):", *twice]
    passes(judge, body(*escape, RIGHT.strip(), head="import os, time\n"))


def test_thread_left_running(judge):
    passes(judge, body("threading.Thread(target=time.sleep, args=(1000,)).start()", RIGHT.strip(), head="import threading, time\n"))


def test_200_gb(judge):
    verdict = refused(judge, body("return torch.ones(50_000_000_000)"))
    assert verdict.diagnosis.id == "memory" and "200 GB" in verdict.diagnosis.message


def test_memory_in_small_pieces(judge):
    verdict = refused(judge, body("kept = []", "while True: kept.append(numpy.zeros(1 << 26))", head="import numpy\n"))
    assert verdict.diagnosis.id == "memory"


def test_output_of_12_mb_from_a_right_answer(judge):
    verdict = passes(judge, body("print('x' * 3_000_000)", "print('the end')", RIGHT.strip()))
    assert len(verdict.details["printed"]) < 12_000 and "left out" in verdict.details["printed"] and "the end" in verdict.details["printed"]


def test_endless_output(judge):
    verdict = refused(judge, body("while True: print('y' * 10_000)"))
    assert verdict.status == "timeout" and len(verdict.details["printed"]) < 12_000


def test_garbage_on_every_descriptor(judge):
    write = ["for fd in range(3, 256):", "    try: os.write(fd, b'\\xff' * 4096)", "    except OSError: pass", RIGHT.strip()]
    assert refused(judge, body(*write, head="import os\n")).diagnosis.id in ("garbled", "closed")


def test_closing_every_descriptor(judge):
    assert refused(judge, body("os.closerange(0, 256)", "time.sleep(60)", head="import os, time\n")).diagnosis.id in ("closed", "garbled", "timeout")


def test_forged_frame(judge):
    forge = [
        "header = json.dumps({'value': {'dict': [['id', 2], ['result', {'tensor': 0}]]}, 'tensors': [['float32', [2 ** 39], 0, 4]]}).encode()",
        "for fd in range(3, 256):",
        "    try: os.write(fd, struct.pack('<II', len(header), 4) + header + b'abcd')",
        "    except OSError: pass",
        "return x",
    ]
    assert refused(judge, body(*forge, head="import json, os, struct\n")).diagnosis.id in ("garbled", "closed")


def test_killing_its_parents(judge):
    kill = ["for pid in (os.getppid(), 1, 0, -1):", "    try: os.kill(pid, 9)", "    except OSError: pass", "time.sleep(60)"]
    refused(judge, body(*kill, head="import os, time\n"))
    passes(judge, body(RIGHT.strip()))


def test_files_are_the_answers_own(judge, tmp_path):
    target = tmp_path / "kept.txt"
    target.write_text("kept")
    if not contain.containment()["read_only"]:
        pytest.skip("this machine has no mount namespaces")
    refused(judge, body(f"open({str(target)!r}, 'w').write('gone')"))
    assert target.read_text() == "kept"
    passes(judge, body("open('mine.txt', 'w').write('x')", "open(tempfile.mkstemp()[1], 'w').write('y')", RIGHT.strip(), head="import tempfile\n"))


def test_the_judge_ends_with_its_client():
    judge = Judge()
    judge.check("safe_softmax", "def safe_softmax(x): return x", seed=1)
    process = judge._process
    judge.close()
    assert process.poll() is not None


def test_ctrl_c_ends_the_check(judge):
    """KeyboardInterrupt in the client while it waits: the judge and the answer are gone, the next check works."""
    own = Judge()
    own.check("safe_softmax", "def safe_softmax(x): return x", seed=1)
    process = own._process
    main = threading.main_thread().ident
    import ctypes

    threading.Timer(0.7, lambda: ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(main), ctypes.py_object(KeyboardInterrupt))).start()
    with pytest.raises(KeyboardInterrupt):
        own.check("safe_softmax", "def safe_softmax(x):\n    while True: pass", seed=1)
    assert process.poll() is not None
    assert own.check("safe_softmax", "def safe_softmax(x): return x", seed=1).status == "failed"
    own.close()


def test_a_dead_judge_is_replaced():
    own = Judge()
    own.check("safe_softmax", "def safe_softmax(x): return x", seed=1)
    own._process.kill()
    own._process.wait()
    assert own.check("safe_softmax", "def safe_softmax(x): return x", seed=1).status == "failed"
    own.close()


def test_a_judge_that_gives_no_verdict(judge):
    own = Judge(deadline=1.0)
    verdict = own.check("safe_softmax", "def safe_softmax(x):\n    while True: pass", seed=1)
    assert verdict.status == "timeout" and verdict.max_points == 2 and "No verdict after 1 s" in verdict.diagnosis.message
    assert own._process is None
    own.close()


def test_two_judges_at_once(judge):
    own, verdicts = Judge(), []
    text = body("time.sleep(0.3)", RIGHT.strip(), head="import time\n")
    softmax = HEAD + "def safe_softmax(x):\n    return x\n"
    asked = ((judge, "row_shares", text), (own, "safe_softmax", softmax))
    threads = [threading.Thread(target=lambda j=j, name=name, text=text: verdicts.append(j.check(name, text, 1).status)) for j, name, text in asked]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(verdicts) == ["failed", "passed"]
    own.close()


def test_containment_says_what_works():
    found = contain.containment()
    assert found["method"] in ("pid-namespace", "user-and-pid-namespace", "subreaper") and found["sentence"].endswith(".")


def test_without_namespaces_the_subreaper_sweeps(tmp_path, monkeypatch):
    """The fallback, forced: children that left the session are ended too."""
    marker = tmp_path / "pids"

    def escape() -> None:
        for _ in range(5):
            if os.fork() == 0:
                os.setsid()
                with open(marker, "a") as file:
                    file.write(f"{os.getpid()}\n")
                time.sleep(60)
        time.sleep(60)

    lifeline, ours = os.pipe()
    status_read, status = os.pipe()
    warden = os.fork()
    if warden == 0:
        os.close(ours)
        contain.keep(escape, (), lifeline, status, str(tmp_path), "subreaper", 30.0, None)
    os.close(lifeline)
    os.close(status)
    deadline = time.monotonic() + 5
    while (not marker.exists() or len(marker.read_text().split()) < 5) and time.monotonic() < deadline:
        time.sleep(0.02)
    pids = [int(pid) for pid in marker.read_text().split()]
    assert len(pids) == 5 and all(Path(f"/proc/{pid}").exists() for pid in pids)
    os.close(ours)
    os.waitpid(warden, 0)
    assert b'"lifeline"' in os.read(status_read, 4096)
    os.close(status_read)
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


def test_a_cold_process_where_there_is_no_fork(monkeypatch):
    """macOS and Windows: no fork server, no namespaces; the same verdicts, an answer that hangs is still ended."""
    from course_lib.grading import catalogue, servers
    from course_lib.grading.judge import Judge as InProcess

    monkeypatch.setattr(servers, "FORKS", False)
    judge = InProcess()
    assert judge.check("safe_softmax", catalogue.solution_text(catalogue.find("safe_softmax")), 1).status == "passed"
    verdict = judge.check("safe_softmax", "import os\ndef safe_softmax(x): os._exit(0)", 1)
    assert verdict.diagnosis.id == "exited"
    verdict = judge.check("safe_softmax", "import ctypes\ndef safe_softmax(x): ctypes.string_at(0)", 1)
    assert verdict.diagnosis.id == "crashed"
    judge.close()
