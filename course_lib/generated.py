"""The code that torch's graph compiler writes for a function, without compiling or running it. Needs no C++ compiler and no GPU.

    written = generated(f, x, y)      # written.code: Python that calls kernels; written.kernels, written.library: which and how many

Inductor is stopped where it has written its output, before a C++ or Triton compiler is called. Knows nothing of attention.
"""

import re
import shutil
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch


class _Written(Exception):
    """Raised where the code is there, so that nothing after it runs."""


@dataclass(frozen=True)
class Generated:
    """What was written: the calls of `call`, in order, and the whole text."""

    kernels: tuple[str, ...]  # written by the compiler, one name a launch
    library: tuple[str, ...]  # handed to a library: "bmm", "mm", "_scaled_dot_product_..."
    buffers: tuple[tuple[int, ...], ...]  # shapes of what is allocated between them, results included
    code: str = field(repr=False)

    def excerpt(self, pattern: str, lines: int = 12) -> str:
        """The lines from the first one that matches on."""
        text = self.code.splitlines()
        first = next((i for i, line in enumerate(text) if re.search(pattern, line)), None)
        return "(no such line)" if first is None else "\n".join(text[first : first + lines])


def generated(function: Callable, *args: torch.Tensor) -> Generated:
    """Let torch.compile's default backend write the code for function(*args). RuntimeError in a sentence where it writes none."""
    if any(isinstance(x, torch.Tensor) and x.device.type == "meta" for x in args):
        raise ValueError("generated: the tensors lie on the device meta; give real ones (a few elements are enough)")
    caught: list[str] = []
    try:
        with _stopped(caught), torch.no_grad():
            torch.compile(function, dynamic=False, fullgraph=True)(*args)
    except Exception as error:  # dynamo wraps whatever its backend raises
        if not caught:
            raise RuntimeError(f"generated: the compiler wrote nothing for {function.__name__}: {str(error)[:300]}") from error
    finally:
        torch._dynamo.reset()
    if not caught:
        raise RuntimeError(f"generated: the compiler wrote nothing for {function.__name__}")
    return _read(caught[0])


@contextmanager
def _stopped(caught: list[str]):
    """Inductor, which notes the code it has written and then stops; plain loops on a CPU, since asking for vector units runs a compiler."""
    from torch._inductor import config
    from torch._inductor.graph import GraphLowering

    def noted(code: str) -> None:
        caught.append(code)
        raise _Written

    before = GraphLowering.save_output_code
    GraphLowering.save_output_code = staticmethod(noted)
    try:
        # inductor asks the C++ compiler for its version before it writes anything: where there is none, `true` says nothing, and that will do
        compilers = [name or "g++" for name in config.cpp.cxx if shutil.which(name or "g++")] or ["true"]
        with config.patch({"fx_graph_cache": False, "cpp.vec_isa_ok": False, "cpp.cxx": tuple(compilers)}):
            yield
    finally:
        GraphLowering.save_output_code = before


def _read(code: str) -> Generated:
    body = code[code.index("def call(") :]
    body = body[: body.index("\nrunner") if "\nrunner" in body else body.index("\ndef get_args") if "\ndef get_args" in body else len(body)]
    kernels = re.findall(r"^\s*(?:stream\d+ = .*\n\s*)?((?:cpp_fused|triton_)\w+)(?:\.run)?\(", body, flags=re.MULTILINE)
    library = [name or other for name, other in re.findall(r"(?:extern_kernels\.(\w+)\(|torch\.ops\.\w+\.(\w+)\.\w+\()", body)]
    shapes = [tuple(map(int, re.findall(r"\d+", shape))) for shape in re.findall(r"= empty_strided_\w+\(\(([^)]*)\)", body)]
    return Generated(tuple(kernels), tuple(library), tuple(shapes), code)
