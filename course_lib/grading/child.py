"""The answer child: loads answers' texts and serves calls of them, one frame in, one frame out, until it is ended.

Runs in a process of its own, forked by the fork server (or started cold where there is no fork). It holds no reference,
no mutant and no tolerance: it can only return what the answer returned. It must survive whatever an answer does in
Python; what it cannot survive, the judge sees as the end of the process.
"""

import importlib.abc
import linecache
import os
import socket
import sys
import types
import warnings
from contextlib import nullcontext, suppress
from dataclasses import asdict
from functools import partial
from typing import Any

import torch
from torch import Tensor

from course_lib import traffic
from course_lib.grading import wire
from course_lib.grading.arena import Arguments
from course_lib.grading.compiling import compiled
from course_lib.grading.contents import Account
from course_lib.grading.observe import settle, watched
from course_lib.grading.spec import Evidence
from course_lib.states import SoftmaxState

try:
    import triton  # noqa: F401  imported before the fork, so that children need not
except ImportError:
    triton = None

_FORBIDDEN = ("solutions", "course_lib.checks", "course_lib.oracles", "course_lib.grading")
_INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
_GPU_MEMORY = 8 << 30
_detach = Tensor.detach  # kept: the answer may replace torch's own, or give one tensor another
_WORDS_ENOUGH = 2000  # characters of a message, lines of a traceback


class Refused(Exception):
    """What came back cannot be taken; the message says what it is."""


class _NoMaterial(importlib.abc.MetaPathFinder):
    """Imports of the course's own answers and checks fail with a sentence."""

    def find_spec(self, name, path=None, target=None):
        if any(name == root or name.startswith(f"{root}.") for root in _FORBIDDEN):
            raise ImportError(
                f"an answer may not import {name}: it holds the course's own solutions and checks. Earlier exercises come by `from course_lib.earlier import NAME`."
            )
        return None


def run(channel: int, output: int, exercise: str) -> None:
    """Become the answer's process: only the channel, the output pipe and an empty stdin stay open."""
    os.dup2(output, 1)
    os.dup2(output, 2)
    top = os.sysconf("SC_OPEN_MAX")
    os.closerange(3, channel)
    os.closerange(channel + 1, min(top if top > 0 else 4096, 4096))
    sys.stdin, sys.stdout, sys.stderr = (
        open(fd, mode, buffering=buffering, closefd=False) for fd, mode, buffering in ((0, "r", -1), (1, "w", 1), (2, "w", 1))
    )
    serve(socket.socket(fileno=channel), exercise)


def serve(sock: socket.socket, exercise: str) -> None:
    """Answer frames until the judge hangs up."""
    os.environ.update(COURSE_GRADING=exercise, COURSE_EARLIER="solution")
    if _INTERPRETED:  # torch.compile runs what it is given as it stands: nothing to wait for, and what runs is seen
        os.environ["TORCHDYNAMO_DISABLE"] = "1"
    warnings.filterwarnings("ignore", message=".*deterministic.*")
    settle()
    sys.meta_path.insert(0, _NoMaterial())
    for name in [name for name in sys.modules if name.startswith(_FORBIDDEN)]:
        del sys.modules[name]  # imported already, by this file: an answer's import must reach the finder
    with suppress(AttributeError):
        del sys.modules["course_lib"].grading
    server = Server()
    wire.send(sock, {"ready": os.getpid()})
    while True:
        try:
            request = wire.receive(sock)
        except wire.WireError:
            return
        reply = {"load": server.load, "call": server.call, "compile": server.compile}[request["op"]](request)
        with suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        try:
            wire.send(sock, {"id": request["id"], **reply})
        except wire.WireError:
            return
        except Exception as error:  # a result that could not be sent, whatever the reason
            wire.send(
                sock,
                {
                    "id": request["id"],
                    "failure": {"kind": "type", "type": "", "message": f"something that cannot be sent ({_plain(str, error)})", "frames": []},
                },
            )


class Server:
    """The loaded answers by key, and the arguments of the last call (for `again`)."""

    def __init__(self):
        self.functions: dict[str, Any] = {}
        self.files: dict[str, str] = {}
        self.modules: dict[str, types.ModuleType] = {}
        self.arguments: Arguments | None = None
        self.account = Account()

    def load(self, request: dict) -> dict:
        """Execute a text as a fresh module and find its function."""
        key, text, name = request["key"], request["text"], request["name"]
        label = name if key == "answer" else f"{name}, {key}"
        if _INTERPRETED or not request.get("file"):
            filename = f"<{label}, your answer>" if key == "answer" else f"<{label}>"
        else:  # the compiler reads real files
            filename = os.path.join(os.getcwd(), f"{name}_{len(self.files)}.py")
            with open(filename, "w", encoding="utf-8") as file:
                file.write(text)
        linecache.cache[filename] = (len(text), None, text.splitlines(keepends=True), filename)
        module = types.ModuleType(f"answer_{name}_{len(self.files)}")
        module.__file__ = filename
        sys.modules[module.__name__] = module
        self.files[key] = filename
        try:
            with watched(Evidence(), self.account):  # what is made here may be used later
                exec(compile(text, filename, "exec"), module.__dict__)
        except BaseException as error:
            return {"failure": _failure(error, filename)}
        function = module.__dict__.get(name)
        if not callable(function):
            return {"failure": {"kind": "missing", "type": "", "message": f"after running your answer, {name} is not a function", "frames": []}}
        if request.get("harness"):
            harness = types.ModuleType("harness")
            exec(compile(request["harness"], "<harness>", "exec"), harness.__dict__)
            function = partial(harness.run, function)
        self.functions[key], self.modules[key] = function, module
        return {}

    def compile(self, request: dict) -> dict:
        """One kernel of a loaded answer compiled ahead of time, from the launch that another child saw."""
        try:
            return compiled(self.modules[request["key"]], request["launch"])
        except BaseException as error:
            return {"failure": {**_failure(error, self.files[request["key"]]), "kind": "untried"}}

    def call(self, request: dict) -> dict:
        """One call of a loaded answer, observed."""
        key, evidence, reply = request["key"], Evidence(), {"problems": []}
        tree = (request["args"], request["kwargs"])
        if request["device"] == "cuda" and self.arguments is None:
            total = torch.cuda.get_device_properties(0).total_memory
            torch.cuda.set_per_process_memory_fraction(min(1.0, _GPU_MEMORY / total))  # CUDA reserves address space: no rlimit here
        if not (request.get("again") and self.arguments and self.arguments.refill(tree)):
            self.arguments = Arguments(tree, request["layout"], request["device"])
        args, kwargs = self.arguments.fresh(evidence)
        self.account.made(arena.tensor for arena in self.arguments.arenas)
        counting = traffic.counted() if _INTERPRETED and triton is not None and request.get("triton") else nullcontext([])
        try:
            with counting as launches, watched(evidence, self.account) as watch:
                result = self.functions[key](*args, **kwargs)
            if request["device"] == "cuda":
                torch.cuda.synchronize()
            reply["result"] = self._taken(result, reply["problems"], 0)
            watch.returned(reply["result"])
        except Refused as refused:
            reply["failure"] = {"kind": "type", "type": "", "message": str(refused), "frames": []}
        except BaseException as error:
            reply["failure"] = _failure(error, self.files[key])
        try:
            changes = {change for arena in self.arguments.arenas for change in arena.changes()}
            reply["problems"] = [problem for problem in ("canary", "mutated-input") if problem in changes] + reply["problems"]
        except RuntimeError as error:  # the GPU no longer answers: the call that broke it says why, if it noticed
            reply.setdefault("failure", _failure(error, self.files[key]))
        for launch in launches:
            told = {name: getattr(launch, name) for name in ("kernel", "constexprs", "signature", "constants", "options", "working")}
            evidence.launches.append({**told, "grid": list(launch.grid)})
            evidence.bytes_loaded += launch.bytes_loaded
            evidence.bytes_stored += launch.bytes_stored
        return {**reply, "evidence": asdict(evidence)}

    def _taken(self, value: Any, problems: list[str], depth: int) -> Any:
        """What the answer returned, as far as it is plain: tensors detached, tuples of other kinds as tuples."""
        kind = type(value)
        if depth > 8:
            raise Refused("something nested more than 8 deep")
        if kind is Tensor or kind is torch.nn.Parameter:
            return self._tensor(_detach(value), problems)
        if kind is str and len(value) > 10_000:
            raise Refused(f"a text of {len(value):,} characters")
        if value is None or kind in (bool, int, float, str):
            return value
        if isinstance(value, tuple | list | dict) and len(value) > 1000:
            raise Refused(f"{len(value):,} things at once")
        if isinstance(value, Tensor):
            raise Refused(f"a {_plain(lambda k: k.__name__, kind)}, a subclass of Tensor")
        if isinstance(value, tuple) or kind is list:
            parts = [self._taken(part, problems, depth + 1) for part in value]
            if getattr(kind, "_fields", None) == SoftmaxState._fields and len(parts) == len(SoftmaxState._fields):
                return SoftmaxState(*parts)  # a class of the answer's own with the same fields does as well
            return parts if kind is list else tuple(parts)
        if kind is dict:
            return {self._taken(name, problems, depth + 1): self._taken(part, problems, depth + 1) for name, part in value.items()}
        name = _plain(lambda k: f"{k.__module__.split('.')[0]} {k.__name__}" if _foreign(k.__module__) else k.__name__, kind)
        raise Refused(f"{'an' if name[:1] in 'aeiou' else 'a'} {name}")

    def _tensor(self, x: Tensor, problems: list[str]) -> Tensor:
        if x.layout is not torch.strided:
            raise Refused(f"a tensor with the layout {x.layout}")
        if x.device.type == "meta":
            problems.append("device:meta")
            return torch.zeros(0)
        if x.device.type != self.arguments.device and f"device:{x.device.type}" not in problems:
            problems.append(f"device:{x.device.type}")
        if any(arena.holds(x) for arena in self.arguments.arenas) and "aliased" not in problems:
            problems.append("aliased")
        return x


def _foreign(module: str) -> bool:
    """Whether a class of this module is neither Python's nor the answer's own."""
    return module not in ("builtins", "__main__") and not module.startswith("answer_")


def _failure(error: BaseException, filename: str) -> dict:
    """An exception as plain data: its type, its words, and the frames that are the answer's own."""
    try:
        return _told(error, filename)
    except BaseException:  # an exception that fights being looked at
        return {"kind": "exception", "type": "an exception", "message": "(its words could not be read)", "frames": []}


def _told(error: BaseException, filename: str) -> dict:
    chain = [error]
    while _plain(lambda e: type(e).__name__, chain[-1]) == "InterpreterError" and chain[-1].__cause__ is not None and len(chain) < 8:
        chain.append(chain[-1].__cause__)
    innermost, message = chain[-1], _plain(str, chain[-1])
    kinds = (
        ("exit", SystemExit | GeneratorExit),
        ("interrupt", KeyboardInterrupt),
        ("out-of-range", traffic.OutOfRange),
        ("memory", MemoryError | torch.OutOfMemoryError),
    )
    kind = next((kind for kind, types in kinds if isinstance(innermost, types)), "exception")
    if "can't allocate memory" in message or "CUDA out of memory" in message:
        kind = "memory"
    frames = [frame for link in chain for frame in _frames(link, filename)]
    return {"kind": kind, "type": _plain(lambda e: type(e).__name__, innermost), "message": message, "frames": frames[-8:]}


def _frames(error: BaseException, filename: str) -> list[list]:
    found, step = [], getattr(error, "__traceback__", None)
    while step is not None:
        code = step.tb_frame.f_code
        if code.co_filename == filename:
            found.append([step.tb_lineno, code.co_name, linecache.getline(filename, step.tb_lineno).strip()[:200]])
        step = step.tb_next
    return found


def _plain(words, subject: Any) -> str:
    """words(subject) as a real, short str, whatever the subject's own methods do."""
    try:
        text = words(subject)
        return str.__str__(text)[:_WORDS_ENOUGH] if isinstance(text, str) else f"({type(text).__name__})"
    except BaseException:
        return "(its words could not be read)"


def cold(address: str, port: str, token: str, exercise: str) -> None:
    """Where there is no fork: connect to the judge that started this process, and serve."""
    sock = socket.create_connection((address, int(port)), timeout=30)
    sock.sendall(bytes.fromhex(token))
    torch.set_num_threads(1)
    serve(sock, exercise)


if __name__ == "__main__":
    cold(*sys.argv[1:])
