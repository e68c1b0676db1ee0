"""A kernel that passes interpreted is compiled too, however it is launched; where that cannot be tried, the case says so."""

import importlib
import subprocess

import pytest

from course_lib.grading import catalogue

KERNEL = (catalogue.paths.ROOT / "tests/mini_course/solutions/ch90_mini.py").read_text().split("# %% exercise double_and_mask")[1].split("\n", 4)[4]
KERNEL = "import torch\nimport triton\nimport triton.language as tl\nfrom torch import Tensor\n\n\n" + KERNEL
CALL = "double_and_mask_kernel[(triton.cdiv(x.numel(), BLOCK),)](x, keep, out, x.numel(), BLOCK=BLOCK)"
HEURISTICS = KERNEL.replace("@triton.jit", '@triton.heuristics({"BLOCK": lambda args: 16, "num_warps": lambda args: 2})\n@triton.jit', 1)
HEURISTICS = HEURISTICS.replace(CALL, CALL.replace(", BLOCK=BLOCK", ""))
TUNED = KERNEL.replace(
    "@triton.jit",
    '@triton.autotune([triton.Config({"BLOCK": 16}, num_warps=2), triton.Config({"BLOCK": 32})], key=["N"])\n@triton.jit',
    1,
).replace(CALL, 'double_and_mask_kernel[lambda meta: (triton.cdiv(x.numel(), meta["BLOCK"]),)](x, keep, out, x.numel())')
DESCRIBED = KERNEL.replace(
    "    x = tl.load(x_ptr + offsets, mask=inside, other=0.0)\n",
    "    x = tl.make_tensor_descriptor(x_ptr, [N], [1], [BLOCK]).load([tl.program_id(0) * BLOCK])\n",
)
BY_HOST = DESCRIBED.replace("tl.make_tensor_descriptor(x_ptr, [N], [1], [BLOCK])", "x_ptr").replace(
    CALL, CALL.replace("(x, ", "(TensorDescriptor.from_tensor(x, [BLOCK]), ")
)
BY_HOST = "from triton.tools.tensor_descriptor import TensorDescriptor\n" + BY_HOST
TUPLE = (
    KERNEL.replace("def double_and_mask_kernel(x_ptr, keep_ptr,", "def double_and_mask_kernel(inputs,")
    .replace("x_ptr + offsets", "inputs[0] + offsets")
    .replace("keep_ptr + offsets", "inputs[1] + offsets")
    .replace("(x, keep, out,", "((x, keep), out,")
)
# strides in a tuple, one of them 1 (which is compiled in), the others nested
STRIDES = (
    KERNEL.replace("def double_and_mask_kernel(x_ptr, keep_ptr, out_ptr, N,", "def double_and_mask_kernel(x_ptr, keep_ptr, out_ptr, N, strides,")
    .replace("x_ptr + offsets", "x_ptr + offsets * strides[0]")
    .replace("out_ptr + offsets", "out_ptr + offsets * strides[1][1] + strides[1][0]")
    .replace("x.numel(), BLOCK=BLOCK)", "x.numel(), (x.stride(0), (0, 1)), BLOCK=BLOCK)")
)
CONSTANT = (
    KERNEL.replace("N, BLOCK: tl.constexpr", "N, SIZES: tl.constexpr")
    .replace("BLOCK + tl", "SIZES[0] + tl")
    .replace("tl.arange(0, BLOCK)", "tl.arange(0, SIZES[0])")
    .replace("x.numel(), BLOCK=BLOCK)", "x.numel(), SIZES=(BLOCK, BLOCK))")
)
LOCAL = """import torch
import triton
import triton.language as tl


def double_and_mask(x, keep):
    @triton.jit
    def local_kernel(x_ptr, keep_ptr, out_ptr, N, BLOCK: tl.constexpr):
        offsets = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
        x = tl.load(x_ptr + offsets, mask=offsets < N, other=0.0)
        keep = tl.load(keep_ptr + offsets, mask=offsets < N, other=0)
        tl.store(out_ptr + offsets, tl.where(keep != 0, x * 2.0, 0.0), mask=offsets < N)

    out = torch.empty_like(x)
    local_kernel[(triton.cdiv(x.numel(), 16),)](x, keep, out, x.numel(), BLOCK=16)
    return out
"""


def compiled(judge, text: str):
    verdict = judge.check("double_and_mask", text)
    assert verdict.status == "passed", verdict
    return verdict.cases[-1]


@pytest.mark.parametrize(
    "text, target",
    [(HEURISTICS, 80), (TUNED, 80), (DESCRIBED, 90), (BY_HOST, 90), (TUPLE, 80), (STRIDES, 80)],
    ids=["heuristics", "autotune", "made", "host", "tuple", "strides"],
)
def test_every_usual_launch_is_compiled(judge, text, target):
    case = compiled(judge, text)
    assert (case.name, case.status, case.message) == (f"compiles for a GPU (sm_{target})", "passed", "")


@pytest.mark.parametrize("text", [HEURISTICS, TUNED, DESCRIBED, TUPLE, STRIDES], ids=["heuristics", "autotune", "made", "tuple", "strides"])
def test_and_refused_where_it_does_not_compile(judge, text):
    wrong = text.replace("x * 2.0", "x * torch.tensor(2.0).item()")
    verdict = judge.check("double_and_mask", wrong)
    assert verdict.status == "failed" and verdict.diagnosis.id == "will-not-compile", verdict
    assert "`torch.tensor` cannot be called in a kernel" in verdict.diagnosis.message


@pytest.mark.parametrize(
    "text, words", [(CONSTANT, "cannot be told here of one of its arguments"), (LOCAL, "is defined inside a function")], ids=["constant", "local"]
)
def test_what_could_not_be_tried_is_said(judge, text, words):
    case = compiled(judge, text)
    assert case.status == "blocked" and words in case.message, case


MATMUL = catalogue.solution_text(catalogue.find("matmul"))
IEEE = ', input_precision="ieee"'


@pytest.mark.parametrize(
    "precision", ["", ', input_precision="tf32"', ", allow_tf32=True"], ids=["nothing said", "tf32 asked for", "allowed the old way"]
)
def test_float32_products_that_a_gpu_rounds_are_refused(judge, precision):
    verdict = judge.check("matmul", MATMUL.replace(IEEE, precision), seed=3)
    assert verdict.status == "failed" and verdict.points == 0 and verdict.diagnosis.id == "tf32", verdict
    assert "line " in verdict.diagnosis.message and "tl.dot(a, b, acc" in verdict.diagnosis.message and verdict.cases[-1].status == "failed"


@pytest.mark.parametrize("precision", [', input_precision="tf32x3"', ", allow_tf32=False"])
def test_other_ways_to_keep_float32_products_pass(judge, precision):
    verdict = judge.check("matmul", MATMUL.replace(IEEE, precision), seed=3)
    assert verdict.status == "passed", verdict


def test_every_kernel_with_a_product_promises_float32():
    """An exercise whose solution asks for exact products is one whose check sees that they are."""
    for exercise in catalogue.exercises().values():
        if exercise.kind == "triton" and IEEE in exercise.solution:
            check = catalogue.checks(exercise.chapter)[exercise.name]
            assert check.exact_float32 and any(mutant.rule == "tf32" for mutant in check.mutants), exercise.name


@pytest.mark.parametrize("trouble", [OSError(28, "No space left on device"), MemoryError(), subprocess.CalledProcessError(-9, "ptxas")], ids=type)
def test_the_machines_trouble_is_not_the_answers(monkeypatch, tmp_path, trouble):
    """No room on the disk, no memory, an assembler that was killed: nothing is known of the answer then, and nothing is held against it."""
    triton = pytest.importorskip("triton")
    from course_lib.grading.compiling import compiled

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    (tmp_path / "answer_of_mine.py").write_text("def kernel(x_ptr):\n    pass\n", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    module = importlib.import_module("answer_of_mine")
    monkeypatch.setattr(module, "kernel", triton.JITFunction(module.kernel))
    launch = {"kernel": "kernel", "signature": {"x_ptr": "*fp32"}, "constants": {}, "options": {}}

    def refuse(error):
        monkeypatch.setattr(triton, "compile", lambda *args, **kwargs: (_ for _ in ()).throw(error))
        return compiled(module, launch)["failure"]

    assert refuse(trouble)["kind"] == "untried"
    assert refuse(ValueError("a mistake of the kernel's"))["kind"] == "compile"
