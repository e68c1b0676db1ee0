"""What the compiler made of a kernel: registers, spills, shared memory, instructions. Needs no GPU: it compiles ahead of time.

    look(flash_attention_forward, q, k, v, target=90)

The host function makes its launch in a child process, on meta tensors (shapes and strides, no memory); the launch stops where
the compiled kernel would be loaded. So the compiler is told what it is told at run time. A child, because a process either
interprets kernels or compiles them, and because some refusals of the compiler end the process. Knows nothing of any one kernel.
"""

import contextlib
import io
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import torch
from torch.utils._pytree import tree_map

from course_lib import counting_child, hardware, paths
from course_lib.ledgers import size
from course_lib.tables import Table

TARGETS = (75, 80, 86, 89, 90, 100, 120)
INSTRUCTIONS = {  # what to count in the PTX, with what it is
    "wgmma": (r"\bwgmma\.mma_async", "matrix product of a warp group (Hopper)"),
    "mma": (r"(?<!w)\bmma\.sync", "matrix product of a warp"),
    "cp.async": (r"\bcp\.async\.c[ag]\b", "copy to shared memory that nobody waits for"),
    "TMA": (r"\bcp\.async\.bulk\.tensor", "copy of a whole tile by the copy engine (Hopper)"),
    "ex2": (r"\bex2\.approx", "power of two"),
    "fma": (r"\bfma\.rn\.f32", "multiply and add, on the ordinary units"),
}


@dataclass(frozen=True)
class Inside:
    """One compiled kernel. Counts are of instructions in the PTX's text: a loop's body counts once, however often it runs."""

    kernel: str
    target: int
    registers: int  # a thread
    spilled: int  # bytes of stack a thread: what did not fit its registers
    shared: int  # bytes a block
    warps: int
    stages: int
    constexprs: dict
    counts: dict[str, int]
    ptx: str = field(repr=False, default="")

    def _repr_html_(self) -> str:
        return compared({"": self})._repr_html_()

    def __repr__(self) -> str:
        return repr(compared({"": self}))


def look(function: Callable, *args, target: int = 90, **kwargs) -> Inside:
    """Compile the kernel that function(*args, **kwargs) launches, for compute capability target / 10; the largest, if there are several.

    Tensors give their shapes, strides and dtypes; what is in them does not matter. ValueError in a sentence where that fails.
    """
    if target not in TARGETS:
        raise ValueError(f"inside.look: target is {target!r}; choose one of {', '.join(map(str, TARGETS))} (90 is an H100)")
    if sentence := hardware.blocked("triton", "Compiling a kernel"):
        raise ValueError(sentence)
    described = tree_map(lambda x: _Like(tuple(x.shape), x.stride(), x.dtype) if isinstance(x, torch.Tensor) else x, (args, kwargs))
    request = io.BytesIO()
    torch.save({"function": _reference(function), "call": described, "target": target}, request)
    environment = {name: value for name, value in os.environ.items() if name not in ("TRITON_INTERPRET", "CUDA_VISIBLE_DEVICES")}
    environment |= {"CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": os.pathsep.join([str(paths.ROOT), *filter(None, sys.path)])}
    child = subprocess.run([sys.executable, "-m", "course_lib.inside"], input=request.getvalue(), capture_output=True, env=environment, timeout=300)
    if child.returncode:
        raise ValueError(f"inside.look: the compiler ended the process: {child.stderr.decode(errors='replace').strip()[-500:]}")
    reply = torch.load(io.BytesIO(child.stdout), weights_only=False)
    if "error" in reply:
        raise ValueError(f"inside.look: {function.__name__} was refused: {reply['error']}")
    return Inside(**reply)


def looks(kernels: dict[str, tuple[Callable, int]], *args, **kwargs) -> dict[str, Inside]:
    """{name: (function, target)}, each as look(function, *args, target=target, **kwargs) takes it; the children work at the same time."""
    with ThreadPoolExecutor(max(1, min(len(kernels), os.cpu_count() or 1))) as pool:
        waiting = {name: pool.submit(look, function, *args, target=target, **kwargs) for name, (function, target) in kernels.items()}
        return {name: made.result() for name, made in waiting.items()}


def _reference(function: Callable) -> dict:
    """How the child gets the function: by import, from `course_lib.earlier`, or as text with what it uses."""
    name = function.__name__
    if str(function.__module__).startswith("course_earlier_"):
        return {"module": "course_lib.earlier", "name": name}
    return counting_child._reference(function)


def compared(kernels: dict[str, Inside]) -> Table:
    """Several compiled kernels side by side, a column each."""
    rows = [
        ("compiled for", *(f"sm_{x.target}" for x in kernels.values())),
        ("tile", *(_tile(x.constexprs) for x in kernels.values())),
        ("warps, stages", *(f"{x.warps}, {x.stages}" for x in kernels.values())),
        ("registers a thread", *(str(x.registers) for x in kernels.values())),
        ("spilled a thread", *(size(x.spilled) if x.spilled else "nothing" for x in kernels.values())),
        ("shared memory", *(size(x.shared) for x in kernels.values())),
    ]
    rows += [(name, *(str(x.counts[name]) for x in kernels.values())) for name in INSTRUCTIONS if any(x.counts[name] for x in kernels.values())]
    return Table(("", *kernels), tuple(rows), "What the compiler made of it", "Instructions are counted in the PTX's text, not as often as they run.")


def _tile(constexprs: dict) -> str:
    return " x ".join(str(constexprs[name]) for name in ("BLOCK_M", "BLOCK_N") if name in constexprs) or "-"


# ---------------------------------------------------------------- the child


@dataclass
class _Like:
    shape: tuple
    stride: tuple
    dtype: torch.dtype


class _Absent:
    """A driver for a GPU that is not there. Its device number is the target, under which Triton keeps what it has compiled."""

    def __init__(self, target: int):
        self.target = target

    def get_current_target(self):
        from triton.backends.compiler import GPUTarget

        return GPUTarget("cuda", self.target, 32)

    def get_current_device(self) -> int:
        return self.target

    def get_current_stream(self, device: int) -> int:
        return 0


def _compiled(request: dict) -> dict:
    """Launch on meta tensors; what the last stage before loading has made."""
    from triton.runtime import driver
    from triton.runtime.jit import JITFunction

    found, launch = [], JITFunction.run

    def stopped(kernel, *args, grid, warmup, **options):
        constexprs = {name: value for name, value in options.items() if name.isupper() and isinstance(value, int)}
        found.append((launch(kernel, *args, grid=grid, warmup=True, **options), constexprs))

    JITFunction.run = stopped
    driver.set_active(_Absent(request["target"]))
    args, kwargs = tree_map(
        lambda x: torch.empty_strided(x.shape, x.stride, dtype=x.dtype, device="meta") if isinstance(x, _Like) else x, request["call"]
    )
    counting_child._loaded(request["function"])(*args, **kwargs)
    if not found:
        raise ValueError("it launched no kernel")
    kernel, constexprs = max(found, key=lambda pair: pair[0].metadata.shared)
    ptx = kernel.asm["ptx"]
    registers, spilled = _assembled(kernel.asm["cubin"])
    return {
        "kernel": kernel.metadata.name,
        "target": request["target"],
        "registers": registers,
        "spilled": spilled,
        "shared": kernel.metadata.shared,
        "warps": kernel.metadata.num_warps,
        "stages": kernel.metadata.num_stages,
        "constexprs": constexprs,
        "counts": {name: len(re.findall(pattern, ptx)) for name, (pattern, _) in INSTRUCTIONS.items()},
        "ptx": ptx,
    }


def _assembled(cubin: bytes) -> tuple[int, int]:
    """(registers, bytes of stack) a thread, read from the assembled kernel. A kernel has a stack where registers did not suffice."""
    from triton.backends import nvidia

    tool = os.path.join(os.path.dirname(nvidia.__file__), "bin", "cuobjdump")
    with tempfile.TemporaryDirectory() as scratch:
        path = os.path.join(scratch, "kernel.cubin")
        with open(path, "wb") as file:
            file.write(cubin)
        said = subprocess.run([tool, "-res-usage", path], capture_output=True, text=True).stdout
    found = re.search(r"REG:(\d+) STACK:(\d+)", said)
    if not found:
        raise ValueError(f"cuobjdump said nothing of registers: {said.strip()[-300:]}")
    return int(found[1]), int(found[2])


def main() -> None:
    """Serve one request from stdin to stdout."""
    answer = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    with contextlib.redirect_stdout(sys.stderr):
        try:
            reply = _compiled(torch.load(io.BytesIO(sys.stdin.buffer.read()), weights_only=False))
        except Exception as error:
            reply = {"error": f"{type(error).__name__}: {' '.join(str(error).split())[-500:]}"}
    torch.save(reply, answer)
    answer.close()


if __name__ == "__main__":
    import course_lib.inside

    course_lib.inside.main()  # the module by its name: requests hold its classes
