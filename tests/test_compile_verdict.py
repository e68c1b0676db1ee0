"""A kernel that passes interpreted is compiled too, however it is launched; where that cannot be tried, the case says so."""

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
    "text, target", [(HEURISTICS, 80), (TUNED, 80), (DESCRIBED, 90), (BY_HOST, 90)], ids=["heuristics", "autotune", "made", "host"]
)
def test_every_usual_launch_is_compiled(judge, text, target):
    case = compiled(judge, text)
    assert (case.name, case.status, case.message) == (f"compiles for a GPU (sm_{target})", "passed", "")


@pytest.mark.parametrize("text", [HEURISTICS, TUNED, DESCRIBED], ids=["heuristics", "autotune", "made"])
def test_and_refused_where_it_does_not_compile(judge, text):
    wrong = text.replace("x * 2.0", "x * torch.tensor(2.0).item()")
    verdict = judge.check("double_and_mask", wrong)
    assert verdict.status == "failed" and verdict.diagnosis.id == "will-not-compile", verdict
    assert "`torch.tensor` cannot be called in a kernel" in verdict.diagnosis.message


@pytest.mark.parametrize(
    "text, words", [(TUPLE, "cannot be told here of one of its arguments"), (LOCAL, "is defined inside a function")], ids=["tuple", "local"]
)
def test_what_could_not_be_tried_is_said(judge, text, words):
    case = compiled(judge, text)
    assert case.status == "blocked" and words in case.message, case
