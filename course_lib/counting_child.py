"""Counts a call in a process of its own, where kernels are interpreted while this process compiles them for a GPU.

A process does one or the other. The function travels by import where it stands in a module, else as its source text with the
texts and values of the names it uses. The child serves many calls, starts anew when a file of the course has changed, and ends
with this process. Knows nothing of exercises or figures.
"""

import ast
import atexit
import builtins
import contextlib
import importlib
import importlib.util
import inspect
import io
import itertools
import linecache
import os
import subprocess
import symtable
import sys
import textwrap
import types
from collections.abc import Callable
from typing import Any

import torch

from course_lib import paths, traffic
from course_lib.earlier import FRESH
from course_lib.launches import Launch


def call(fn: Callable, args: tuple, kwargs: dict) -> tuple[list[Launch], Any]:
    """(launches, what fn returned) from the child. An error there is raised here, with the line of the function's own."""
    reply = _ask(_packed({"function": _reference(fn), "args": args, "kwargs": kwargs}, fn.__name__))
    print(reply["printed"], end="")
    if "error" in reply:
        kind, message, line = reply["error"]
        error = {"OutOfRange": traffic.OutOfRange, "TypeError": TypeError, "ValueError": ValueError}.get(kind, RuntimeError)
        raise error(message if error.__name__ == kind else f"traffic.count: {fn.__name__} raised {kind}: {message}{line}")
    return reply["launches"], reply["result"]


def _packed(thing: Any, name: str) -> bytes:
    buffer = io.BytesIO()
    try:
        torch.save(thing, buffer)
    except Exception as error:  # whatever pickle meets
        raise ValueError(f"traffic.count: something that {name} is called with or uses cannot be sent to the process that counts: {error}") from None
    return buffer.getvalue()


# ---------------------------------------------------------------- a function on its way


def _reference(fn: Callable) -> dict:
    """How the child gets the function: by import, or as text with what the text needs."""
    if _importable(fn.__module__, fn.__name__, fn):
        return {"module": fn.__module__, "name": fn.__name__}
    parts: dict[str, dict] = {}
    _gather(fn, fn.__name__, parts, {})
    return {"name": fn.__name__, "parts": parts}


def _gather(thing: Any, name: str, parts: dict[str, dict], seen: dict[str, Any]) -> None:
    """Into `parts`: how the name is bound in the child, and before it everything that its text uses."""
    if name in seen:
        if seen[name] is not thing:
            raise ValueError(f"traffic.count: two different things are called `{name}` here, in two modules; give one of them another name")
        return
    seen[name] = thing
    plain = _function(thing)
    owner = getattr(plain if plain is not None else thing, "__module__", None)
    original = getattr(plain if plain is not None else thing, "__name__", None)
    if isinstance(thing, types.ModuleType):
        parts[name] = {"import": thing.__name__}
    elif isinstance(owner, str) and isinstance(original, str) and _importable(owner, original, thing):
        parts[name] = {"import": owner, "name": original}
    elif plain is not None or isinstance(thing, type):
        text, names = _text(plain if plain is not None else thing, name)
        if original != name:
            raise ValueError(f"traffic.count: `{name}` is another name of `{original}`; use `{original}` in the function that is counted")
        namespace = plain.__globals__ if plain is not None else vars(sys.modules[thing.__module__])
        for used in sorted(names - {name}):
            if used in namespace:
                _gather(namespace[used], used, parts, seen)
            elif not hasattr(builtins, used):
                raise ValueError(f"traffic.count: {name} uses `{used}`, which is defined nowhere; run the cell that defines it first")
        parts[name] = {"text": text}
    else:
        parts[name] = {"value": thing}


def _function(thing: Any) -> Callable | None:
    """The Python function under @triton.jit, @triton.autotune and @triton.heuristics; None where there is none."""
    for _ in range(8):
        if inspect.isfunction(thing):
            return thing
        if not type(thing).__module__.startswith("triton."):
            return None
        thing = getattr(thing, "fn", None)
    return None


def _importable(module: str, name: str, thing: Any) -> bool:
    """Whether `from module import name` in another process gives the same thing: not where a module was made here under a name of its own."""
    loaded = sys.modules.get(module)
    if module in ("__main__", "builtins") or module.startswith(FRESH) or loaded is None or getattr(loaded, name, None) is not thing:
        return False
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError, AttributeError):
        return False


def _text(thing: Any, name: str) -> tuple[str, set[str]]:
    """(the source, the global names it uses)."""
    try:
        text = textwrap.dedent(inspect.getsource(thing))
    except (OSError, TypeError):
        raise ValueError(f"traffic.count: the source of `{name}` cannot be read; define it in a cell or a file") from None
    used: set[str] = set()
    tables = [symtable.symtable(text, name, "exec")]
    while tables:
        table = tables.pop()
        tables += table.get_children()
        top = table.get_type() == "module"
        used |= {s.get_name() for s in table.get_symbols() if s.is_referenced() and (s.is_global() or (top and not s.is_assigned()))}
    annotations = {
        n.id
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.arg) and node.annotation
        for n in ast.walk(node.annotation)
        if isinstance(n, ast.Name)
    }
    return text, used | annotations


# ---------------------------------------------------------------- the child

_process: subprocess.Popen | None = None
_stamp: tuple | None = None


def _ask(request: bytes) -> dict:
    """One request to the child, which is started when there is none or when a course file has changed since."""
    global _process, _stamp
    stamp = tuple(
        sorted((str(p), p.stat().st_mtime_ns) for folder in ("kernels", "solutions", "course_lib") for p in (paths.ROOT / folder).glob("*.py"))
    )
    if _process is None or _process.poll() is not None or stamp != _stamp:
        _end()
        environment = {
            **os.environ,
            "TRITON_INTERPRET": "1",
            "CUDA_VISIBLE_DEVICES": "",
            "PYTHONPATH": os.pathsep.join([str(paths.ROOT), *filter(None, sys.path)]),
        }
        _process = subprocess.Popen(
            [sys.executable, "-m", "course_lib.counting_child"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
        )
        _stamp = stamp
    try:
        _process.stdin.write(len(request).to_bytes(8, "little") + request)
        _process.stdin.flush()
        reply = _read(_process.stdout)
    except BaseException as error:  # Ctrl-C as well: a child in the middle of an answer is of no use
        _end()
        if isinstance(error, OSError | EOFError):
            raise RuntimeError(
                "traffic.count: the process that counts has ended; is there memory enough for these tensors? Try smaller ones."
            ) from None
        raise
    try:
        return torch.load(io.BytesIO(reply), weights_only=False)
    except Exception as error:
        raise ValueError(f"traffic.count: what the function returned cannot come back ({error}); return tensors, numbers, lists or tuples") from None


@atexit.register
def _end() -> None:
    global _process
    if _process is not None:
        _process.kill()
        _process.wait()
        _process.stdin.close()
        _process.stdout.close()
        _process = None


def _read(stream) -> bytes:
    length = stream.read(8)
    message = stream.read(int.from_bytes(length, "little")) if len(length) == 8 else b""
    if len(length) < 8 or len(message) < int.from_bytes(length, "little"):
        raise EOFError
    return message


_fresh = itertools.count(1)


def _loaded(reference: dict) -> Callable:
    """The function in this process."""
    if "module" in reference:
        return getattr(importlib.import_module(reference["module"]), reference["name"])
    module = types.ModuleType(f"counted_{next(_fresh)}")
    sys.modules[module.__name__] = module
    names = vars(module)
    for name, part in reference["parts"].items():
        if "import" in part:
            importlib.import_module(part["import"])
            names[name] = getattr(sys.modules[part["import"]], part["name"]) if "name" in part else sys.modules[part["import"]]
        elif "value" in part:
            names[name] = part["value"]
    for name, part in reference["parts"].items():
        if "text" in part:
            file = f"<{name}, counted {module.__name__}>"
            linecache.cache[file] = (len(part["text"]), None, part["text"].splitlines(keepends=True), file)
            exec(compile(part["text"], file, "exec", dont_inherit=True), names)
    return names[reference["name"]]


def _answered(message: bytes) -> dict:
    """Serve one request. Whatever the function raises travels back as words."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        try:
            request = torch.load(io.BytesIO(message), weights_only=False, map_location="cpu")  # a GPU's tensor among the names a text uses
            with traffic.counted() as launches:
                result = _loaded(request["function"])(*request["args"], **request["kwargs"])
            reply = {"launches": launches, "result": result}
        except Exception as error:
            reply = {"error": _told(error)}
    return {**reply, "printed": printed.getvalue()}


def _told(error: BaseException) -> tuple[str, str, str]:
    """(type, words, the last line of the function's own that ran); the innermost cause of an error in a kernel."""
    while type(error).__name__ == "InterpreterError" and error.__cause__ is not None:
        error = error.__cause__
    step, line = error.__traceback__, ""
    while step is not None:
        if step.tb_frame.f_code.co_filename.startswith("<") and (source := linecache.getline(step.tb_frame.f_code.co_filename, step.tb_lineno)):
            line = f" (at `{source.strip()}`)"
        step = step.tb_next
    return type(error).__name__, str(error), line


def main() -> None:
    """Serve requests until the parent is gone."""
    channel = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever else writes to stdout must not end up in an answer
    torch.set_num_threads(max(1, torch.get_num_threads() // 2))
    with contextlib.suppress(EOFError, KeyboardInterrupt):
        while True:
            reply = _answered(_read(sys.stdin.buffer))
            try:
                packed = _packed(reply, "the function")
            except ValueError as error:
                packed = _packed({"printed": "", "error": ("ValueError", str(error), "")}, "")
            channel.write(len(packed).to_bytes(8, "little") + packed)
            channel.flush()


if __name__ == "__main__":
    main()
