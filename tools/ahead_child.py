"""Compiles one kernel for one GPU that need not be there, and reads what it takes: registers, spills, shared memory.

Runs as a child process of `tools.ahead_matrix` (some refusals of the compiler end the process), never in the interpreter. The host
function itself makes the launch, on meta tensors, which have shapes and strides and no memory; a stand-in for the driver answers
for the GPU, and every launch stops where the compiled kernel would be loaded. So the compiler is told what it is told at run time:
which strides are 1, which pointers and numbers are multiples of 16, what a tensor descriptor looks like. Knows nothing of tables or of limits.
"""

import contextlib
import importlib
import importlib.util
import io
import json
import os
import re
import sys
import time
from unittest import mock

from tools.ahead_machine_code import unwritten_in

DTYPES = {"fp16": "float16", "bf16": "bfloat16", "fp32": "float32"}
HEADS, KV_HEADS, TOKENS = 8, 2, 4096
CACHE_KERNELS = ("decode_split", "merge_splits", "paged_decode", "paged_prefill", "write_kv", "rope")


class Absent:
    """A driver for a GPU that is not there. Its device number is the capability, under which Triton keeps what it has compiled."""

    def __init__(self, target: int):
        self.target = target

    def get_current_target(self):
        from triton.backends.compiler import GPUTarget

        return GPUTarget("cuda", self.target, 32)

    def get_current_device(self) -> int:
        return self.target

    def get_current_stream(self, device: int) -> int:
        return 0


@contextlib.contextmanager
def absent_gpu(target: int, shared_kib: int):
    """Inside, launches compile for `target` and run nothing; yields the list of the compiled kernels."""
    from triton.runtime import driver
    from triton.runtime.jit import JITFunction

    from kernels import launching

    found, original = [], JITFunction.run

    def run(kernel, *args, grid, warmup, **options):
        kernel.device_caches.clear()  # two hosts may launch one kernel: compiled anew, so that the assembler speaks again
        found.append(original(kernel, *args, grid=grid, warmup=True, **options))

    driver.set_active(Absent(target))
    with mock.patch.object(JITFunction, "run", run), mock.patch.object(launching, "shared_memory", lambda device: shared_kib):
        yield found


def compile_cell(cell: dict) -> dict:
    """{"registers", "spilled", "shared", "config", "seconds"} of the largest kernel that the cell's call launches, or {"error"}."""
    from triton import knobs

    knobs.nvidia.dump_ptxas_log = True
    log, began = io.StringIO(), time.monotonic()
    try:
        with absent_gpu(cell["target"], cell["shared_kib"]) as found, contextlib.redirect_stdout(log):
            (of_exercise if cell["kernel"].startswith("exercise ") else of_kernel)(cell)
    except Exception as error:
        return {"error": f"{type(error).__name__}: {' '.join(str(error).split())[-400:]}"}
    if not found:
        return {"error": "nothing was launched"}
    said = log.getvalue()
    registers = [int(n) for n in re.findall(r"Used (\d+) registers", said)]
    spilled = [max(map(int, pair)) for pair in re.findall(r"(\d+) bytes spill stores, (\d+) bytes spill loads", said)]
    if not registers or not spilled:
        return {"error": "the assembler said nothing of registers"}
    unset = sorted({name for kernel in found for name in unwritten_in(kernel.asm["cubin"])}) if cell["target"] == 90 else []
    if unset:
        return {"error": f"the machine code reads {' and '.join(unset)}, which nothing has written (tools/ahead_machine_code.py)"}
    largest = max(found, key=lambda kernel: kernel.metadata.shared).metadata
    return {
        "registers": max(registers),
        "spilled": max(spilled),
        "shared": largest.shared,
        "warps": largest.num_warps,
        "stages": largest.num_stages,
        "seconds": round(time.monotonic() - began, 1),
    }


def of_kernel(cell: dict) -> None:
    """Launch the host function of kernels/NAME.py on tensors of a usual size."""
    import torch

    name, dtype, shape = cell["kernel"], getattr(torch, DTYPES[cell["dtype"]]), cell["shape"]
    module = importlib.import_module(f"kernels.{name}")

    def empty(*sizes: int):
        return torch.empty(sizes, dtype=dtype, device="meta")

    if name in CACHE_KERNELS:
        of_cache_kernel(module, name, empty, shape["D"])
    elif name.startswith("flash_forward"):
        D = shape["D"]
        q, k, v = empty(2, HEADS, TOKENS, D), empty(2, KV_HEADS, TOKENS, D), empty(2, KV_HEADS, TOKENS, D)
        module.flash_attention_forward(q, k, v, causal=shape["causal"])
    elif name == "attention_delta":
        module.attention_delta(empty(2, HEADS, TOKENS, shape["D"]), empty(2, HEADS, TOKENS, shape["D"]))
    elif name.startswith("flash_"):
        of_attention(name, module, shape, empty)
    elif name == "matmul":
        a, b = empty(shape["M"], shape["K"]), empty(shape["K"], shape["N"])
        module.matmul(a, b)
    elif name == "read_again":
        module.read_again(empty(shape["N"]), 16, 132)
    elif name == "vector_add":
        module.vector_add(empty(shape["N"]), empty(shape["N"]))
    elif name == "rms_norm":
        module.rms_norm(empty(shape["M"], shape["N"]), empty(shape["N"]))
    elif name == "swiglu":
        gate = empty(shape["M"], shape["N"])
        module.swiglu(gate, empty(shape["M"], shape["N"]) if shape["dense"] else empty(shape["N"], shape["M"]).t())
    elif name in ("softmax_rows", "softmax_long_rows"):
        getattr(module, name)(empty(shape["M"], shape["N"]))
    else:
        raise ValueError(f"tools/ahead_child.py does not know how to launch kernels/{name}.py; add it to of_kernel")


def of_cache_kernel(module, name: str, empty, D: int) -> None:
    """A step of 64 requests over caches of up to 8,192 tokens, in blocks of 16."""
    import torch

    B, TOKENS_EACH, BLOCK = 64, 8192, 16
    integers = [torch.empty(sizes, dtype=torch.int32, device="meta") for sizes in ((B, TOKENS_EACH // BLOCK), (B,), (B + 1,))]
    tables, lengths, cu_q = integers
    q, k, blocks = empty(B, HEADS, D), empty(B, KV_HEADS, TOKENS_EACH, D), empty(4096, BLOCK, KV_HEADS, D)
    if name == "decode_split":
        module.decode_split(q, k, k, lengths)
    elif name == "merge_splits":
        outs = torch.empty(32, B, HEADS, D, device="meta")
        module.merge_splits(outs, outs[..., 0], q.dtype)
    elif name == "paged_decode":
        module.paged_decode(q, blocks, blocks, tables, lengths)
    elif name == "paged_prefill":
        module.paged_prefill(empty(TOKENS, HEADS, D), blocks, blocks, tables, cu_q, lengths, TOKENS)
    elif name == "write_kv":
        new = empty(TOKENS, KV_HEADS, D)
        module.write_kv(new, new, blocks, blocks, torch.empty(TOKENS, dtype=torch.int64, device="meta"))
    else:
        angles = torch.empty(TOKENS, D, device="meta")
        module.apply_rope(empty(2, HEADS, TOKENS, D), angles, angles)


def of_attention(name: str, module, shape: dict, empty) -> None:
    """Backward passes and variants: on a batch of 2, or on 2 packed sequences; a backward pass may launch two kernels, of which `module` has one."""
    import torch

    D, causal, packed = shape["D"], shape["causal"], "varlen" in name

    def of(heads: int):
        return empty(2 * TOKENS, heads, D) if packed else empty(2, heads, TOKENS, D)

    q, k, v, dout = of(HEADS), of(KV_HEADS), of(KV_HEADS), of(HEADS)
    rows = torch.empty((HEADS, 2 * TOKENS) if packed else (2, HEADS, TOKENS), dtype=torch.float32, device="meta")
    backward = (dout, rows, rows) if "backward" in name else ()
    cu = torch.empty(3, dtype=torch.int32, device="meta")
    more = {"cu_q": cu, "cu_k": cu, "max_q": TOKENS, "max_k": TOKENS, "causal": causal} if packed else {"causal": causal}
    if "window" in name:
        more = {"window": 1024}
    if "score_mod" in name:
        more |= {"slopes": torch.empty(HEADS, dtype=torch.float32, device="meta"), "soft_cap": 30.0}
    host = name if backward else f"{name}_forward"
    getattr(module, host)(q, k, v, *backward, **more)


def of_exercise(cell: dict) -> None:
    """Launch an exercise's solution on the largest of its own probes."""
    import torch

    from course_lib.grading import catalogue
    from course_lib.grading.compare import leaves, mapped

    exercise = catalogue.find(cell["kernel"].removeprefix("exercise "))
    text = catalogue.solution_text(exercise)
    with open(os.path.join(os.environ["TRITON_CACHE_DIR"], f"{exercise.name}_{os.getpid()}.py"), "w", encoding="utf-8") as file:
        file.write(text)  # Triton reads the source of a kernel from its file
    spec = importlib.util.spec_from_file_location(exercise.name, file.name)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    probes = catalogue.checks(exercise.chapter)[exercise.name].probes(torch.Generator().manual_seed(0))
    probe = max(probes, key=lambda probe: sum(x.numel() for x in leaves([probe.args, probe.kwargs]) if isinstance(x, torch.Tensor)))
    args, kwargs = mapped((probe.args, probe.kwargs), lambda x: x.to("meta"))
    getattr(module, exercise.name)(*args, **kwargs)


def main() -> None:
    """Cells come in as JSON, one a line; what each takes goes out the same way."""
    os.environ.pop("TRITON_INTERPRET", None)
    answers, sys.stdout = sys.stdout, sys.stderr
    for line in sys.stdin:
        print(json.dumps(compile_cell(json.loads(line))), file=answers, flush=True)


if __name__ == "__main__":
    main()
