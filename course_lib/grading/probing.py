"""The judge's side of an answer child: start one, send it texts and calls, say in a word how it ended.

Knows nothing of references, tolerances or verdicts. Every wait has a deadline; whatever the peer sends is data.
"""

import json
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass, field, fields
from typing import Any

from course_lib.grading import lines, wire
from course_lib.grading import servers as servers_module
from course_lib.grading.servers import Output, Servers, environment
from course_lib.grading.spec import Evidence

_COUNTS = tuple(field.name for field in fields(Evidence) if field.type in (int, "int"))
START = 90.0  # seconds a cold start may take on a slow machine; not counted as the answer's


class Ended(Exception):
    """The answer's process ended, or was ended, before it replied. kind: timeout, exited, crashed, closed, garbled, processes."""

    def __init__(self, kind: str, code: int | None = None):
        super().__init__(kind)
        self.kind, self.code = kind, code


@dataclass
class Reply:
    """What one call came to: a result or a failure, contract problems seen, and evidence."""

    result: Any = None
    failure: dict | None = None
    problems: list[str] = field(default_factory=list)
    evidence: Evidence = field(default_factory=Evidence)


def _text(said: Any, most: int) -> str:
    """What the child said, as text that can be shown and written anywhere."""
    text = said if isinstance(said, str) else type(said).__name__
    return "".join(c if c.isprintable() or c == "\n" else "?" for c in text[:most].encode("utf-8", "replace").decode())


def _failure(said: Any, text: str = "") -> dict | None:
    """A failure with the fields and types it should have, whatever the child sent. frames: [place in `text`, the line itself]."""
    if said is None or said == {}:
        return None
    said = said if isinstance(said, dict) else {}
    rows = said.get("frames") if isinstance(said.get("frames"), list) else []
    rows = [row for row in rows[-8:] if isinstance(row, list) and len(row) == 3 and type(row[0]) is int]
    frames = [[lines.place(text, row[0]), _text(row[2], 200)] for row in rows]
    return {"kind": _text(said.get("kind"), 20), "type": _text(said.get("type"), 80), "message": _text(said.get("message"), 2000), "frames": frames}


def _evidence(said: Any) -> Evidence:
    """Evidence with the fields and types it should have, whatever the child sent."""
    said = said if isinstance(said, dict) else {}
    evidence = Evidence()
    for name in _COUNTS:
        if type(said.get(name)) is int:
            setattr(evidence, name, said[name])
    for name in ("ops", "calls", "made"):
        if isinstance(said.get(name), dict):
            setattr(evidence, name, {_text(key, 80): n for key, n in said[name].items() if type(n) is int})
    if isinstance(said.get("detours"), list):
        evidence.detours = [_text(way, 40) for way in said["detours"]]
    if isinstance(said.get("launches"), list):
        evidence.launches = [launch for launch in said["launches"] if isinstance(launch, dict) and isinstance(launch.get("constexprs"), dict)]
    evidence.largest_op, evidence.widest_op = _text(said.get("largest_op", ""), 80), _text(said.get("widest_op", ""), 80)
    evidence.seconds = said["seconds"] if type(said.get("seconds")) is float else 0.0
    return evidence


class AnswerProcess:
    """One answer child. Use as a context manager: leaving it ends every process of the answer."""

    def __init__(self, servers: Servers, exercise: str, seconds: float, flavour: str = "interpret", device: str = "cpu", triton: bool = False):
        self.flavour, self.device, self.triton = flavour, device, triton
        self._calls = 0
        self._texts: dict[str, str] = {}
        self._end: dict = {}
        started = time.monotonic()
        if servers_module.FORKS:
            self._fork(servers, exercise, seconds)
        else:
            self._spawn(exercise)
        self._exchange(None, started + START)

    def _fork(self, servers: Servers, exercise: str, seconds: float) -> None:
        self._sock, channel = socket.socketpair()
        lifeline, self._lifeline = os.pipe()
        output_read, output = os.pipe()
        self._status, status = os.pipe()
        self._popen = None
        memory = None if self.device != "cpu" else 4 << 30
        fds = [channel.fileno(), lifeline, output, status]
        try:
            servers.fork(self.flavour, {"exercise": exercise, "seconds": seconds, "memory": memory}, fds)
        finally:
            channel.close()
            for fd in fds[1:]:
                os.close(fd)
        self.output = Output(output_read)

    def _spawn(self, exercise: str) -> None:
        """Without fork: a cold process that connects back over localhost. It is ended by kill; it has no namespace."""
        token = secrets.token_hex(16)
        with socket.create_server(("127.0.0.1", 0)) as listener:
            command = [sys.executable, "-m", "course_lib.grading.child", "127.0.0.1", str(listener.getsockname()[1]), token, exercise]
            streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
            self._popen = subprocess.Popen(command, env=environment(self.flavour), cwd=tempfile.gettempdir(), start_new_session=True, **streams)
            listener.settimeout(START)
            self._sock, _ = listener.accept()
        if not secrets.compare_digest(wire._exactly(self._sock, 16, time.monotonic() + 10), bytes.fromhex(token)):
            self._popen.kill()
            raise Ended("garbled")
        self.output = Output(os.dup(self._popen.stdout.fileno()))

    def load(self, key: str, text: str, name: str, deadline: float, harness: str = "") -> dict | None:
        """Execute a text in the child; None, or how that failed. harness: source of what is called in the answer's place (`spec.Check`)."""
        self._texts[key] = text
        request = {"op": "load", "key": key, "text": text, "name": name, "file": self.flavour == "compiled", "harness": harness}
        return _failure(self._exchange(request, deadline).get("failure"), text)

    def call(self, key: str, args: tuple, kwargs: dict, layout: str, deadline: float, again: bool = False) -> Reply:
        """Call a loaded answer. `again`: in the memory of the last call, refilled."""
        request = {
            "op": "call",
            "key": key,
            "args": args,
            "kwargs": kwargs,
            "layout": layout,
            "again": again,
            "device": self.device,
            "triton": self.triton,
        }
        data = self._exchange(request, deadline)
        evidence = _evidence(data.get("evidence"))
        evidence.printed = self.output.text()
        problems = data.get("problems")
        seen = [_text(p, 40) for p in problems] if isinstance(problems, list) else []
        return Reply(data.get("result"), _failure(data.get("failure"), self._texts.get(key, "")), seen, evidence)

    def compile(self, key: str, launch: dict, deadline: float) -> dict | None:
        """Compile a kernel of a loaded answer for a launch that was seen; None, or how that failed."""
        data = self._exchange({"op": "compile", "key": key, "launch": launch}, deadline)
        return _failure(data.get("failure"), self._texts.get(key, ""))

    def _exchange(self, request: dict | None, deadline: float) -> dict:
        if self._end:
            raise Ended("closed")
        try:
            if request is not None:
                self._calls += 1
                wire.send(self._sock, {**request, "id": self._calls}, deadline)
            data = wire.receive(self._sock, deadline)
        except wire.Late as error:
            raise self._ended("timeout") from error
        except wire.Closed as error:
            raise self._ended("closed") from error
        except wire.WireError as error:
            raise self._ended("garbled") from error
        if not isinstance(data, dict) or (request is not None and data.get("id") != self._calls):
            raise self._ended("garbled")
        return data

    def _ended(self, seen: str) -> Ended:
        """End the process, and say what ended it: what was seen on the channel, or what the warden knows better."""
        end = self.close(wait=1.0 if seen == "closed" else 0.0)
        if str(end.get("killed")).startswith("warden"):
            raise RuntimeError(f"an answer's process could not be started ({end['killed']})")
        if seen in ("timeout", "garbled") and end.get("killed") not in ("processes",):
            return Ended(seen)
        if end.get("killed") == "processes":
            return Ended("processes")
        if end.get("killed") == "deadline" or end.get("signal") == 24:  # SIGXCPU
            return Ended("timeout")
        if end.get("signal") is not None:
            return Ended("crashed", end["signal"])
        return Ended("exited" if end.get("exit") is not None else "closed", end.get("exit"))

    def close(self, wait: float = 0.0) -> dict:
        """End everything the answer started, and return how it ended ({"exit", "signal", "killed"})."""
        if not self._end:
            self._end = (self._close_forked if self._popen is None else self._close_spawned)(wait) or {"killed": "lost"}
            self.output.join()
            self._sock.close()
        return self._end

    def _close_forked(self, wait: float) -> dict:
        import select

        if wait:
            select.select([self._status], [], [], wait)
        os.close(self._lifeline)
        said = b""
        with os.fdopen(self._status, "rb", buffering=0) as status:
            while select.select([status], [], [], 8.0)[0] and (part := status.read(4096)):
                said += part
        with suppress(ValueError):
            end = json.loads(said)
            return end if isinstance(end, dict) else {}
        return {}

    def _close_spawned(self, wait: float) -> dict:
        with suppress(subprocess.TimeoutExpired):
            self._popen.wait(wait)
        code = self._popen.poll()
        self._popen.kill()
        self._popen.wait()
        self._popen.stdout.close()
        return {"exit": code if code is not None and code >= 0 else None, "signal": -code if code is not None and code < 0 else None, "killed": None}

    def __enter__(self) -> "AnswerProcess":
        return self

    def __exit__(self, *_) -> None:
        self.close()
