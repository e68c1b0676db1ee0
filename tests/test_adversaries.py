"""The 48 adversaries: each is refused in words that fit, and touches nothing: not the judge, not the disk, not another answer.

The answers are in adversaries.py (the process), adversaries_faked.py (faked results), adversaries_honest.py (honest mistakes).
"""

import hashlib
import json
import tempfile
import time
from pathlib import Path

import pytest
from adversaries import HOST, KERNEL, KERNEL_HEAD, LAUNCH, PROCESS, SHARES, Adversary, kernel, shares, softmax
from adversaries_faked import FAKED
from adversaries_honest import HONEST

from course_lib.grading import catalogue, contain
from course_lib.grading.client import Judge
from course_lib.paths import ROOT

ALL = (*PROCESS, *FAKED, *HONEST)
OUT_OF_SCOPE = {
    22: "batches all timed calls into the first: nothing is graded by time here, so there is no timed call to batch",
    25: "a window of the L2 cache that persists between calls: it changes speed only, on a GPU, and no value",
    28: "replays a CUDA graph over stale inputs: needs a GPU; the call on changed data (number 21) is what catches it there",
}
PARTLY = {  # tested as far as it shows without a GPU
    3: "an illegal address on a GPU: the same process boundary, another message",
    10: "cuda.Event and synchronize: patched here, and nothing is graded by them",
    24: "a second CUDA stream: a thread stands for it",
    48: "a race between programs is invisible in the interpreter, and the panel says so; slowness is graded nowhere without a GPU",
}
SEED = 3
LEFT_BEHIND = ("results.json", "result.json", "verdict.json")
WATCHED = ("tests/mini_course", "answers")  # of the repository: what no editor has open while the tests run

needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for left-over processes in /proc")


def listing(*folders: Path) -> dict[str, str]:
    """Every file below the folders, with a hash of what is in it."""
    files = [path for folder in folders for path in sorted(folder.rglob("*")) if path.is_file() and "__pycache__" not in path.parts]
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def left_behind(home: Path) -> list[Path]:
    folders = (ROOT, ROOT.parent, home, Path.home(), Path.cwd(), Path(tempfile.gettempdir()))
    return [folder / name for folder in folders for name in LEFT_BEHIND if (folder / name).exists()]


def processes_of(judge: Judge) -> list[str]:
    """Command lines of what descends from this judge's fork servers: they share the servers' own, with another process number."""
    lines, parents = {}, {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                lines[int(folder.name)] = (folder / "cmdline").read_bytes().decode()
                parents[int(folder.name)] = int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1])
            except (OSError, IndexError):
                continue
    servers = [pid for pid, line in lines.items() if parents.get(pid) == judge._process.pid and "forkserver" in line]
    assert servers, "the judge has a fork server"
    return [line for pid, line in lines.items() if pid not in servers and line in {lines[server] for server in servers}]


@pytest.fixture(scope="module")
def bystanders(course_home):
    """What no answer may touch: compared when every test of this file has run."""
    kept = course_home / "answers" / "ch90_mini.py"
    kept.parent.mkdir(exist_ok=True)
    kept.write_text("# somebody's answer\n")
    folders = [course_home, *(ROOT / name for name in WATCHED)]
    before, there = listing(*folders), left_behind(course_home)
    yield
    assert listing(*folders) == before
    assert left_behind(course_home) == there


def id_of(adversary: Adversary) -> str:
    return f"{adversary.number:02d}-{adversary.name.replace(' ', '_')}"


def cases(adversaries: tuple[Adversary, ...]) -> list:
    return [pytest.param(a, id=id_of(a), marks=pytest.mark.slow if a.slow else ()) for a in adversaries]


def refused(judge: Judge, adversary: Adversary) -> None:
    pid = judge._process.pid
    verdict = judge.check(adversary.exercise, adversary.text, seed=SEED)
    said = verdict.diagnosis.message if verdict.diagnosis else ""
    assert verdict.status == adversary.status and verdict.points == 0, (verdict.status, said)
    assert adversary.words and all(word in said for word in adversary.words), said
    assert verdict.diagnosis.id != "internal" and "cheat" not in said.lower()
    assert json.loads(json.dumps(verdict.contract()))["status"] == adversary.status
    assert judge._process.pid == pid and judge._process.poll() is None, "the judge was lost"


def accepted(judge: Judge, exercise: str, text: str) -> None:
    verdict = judge.check(exercise, text, seed=SEED)
    assert verdict.status == "passed" and verdict.points == verdict.max_points, (exercise, verdict.diagnosis, verdict.details)


# ---------------------------------------------------------------- the list


def test_every_number_is_tested_or_out_of_scope():
    tested = {adversary.number for adversary in ALL}
    assert not tested & set(OUT_OF_SCOPE) and set(PARTLY) <= tested
    assert sorted(tested | set(OUT_OF_SCOPE)) == list(range(1, 49))
    assert len({(adversary.number, adversary.name) for adversary in ALL}) == len(ALL)


@needs_proc
@pytest.mark.parametrize("adversary", cases(PROCESS))
def test_a_harmful_process(judge, bystanders, adversary):
    if adversary.name.startswith("a verdict file") and not contain.containment()["read_only"]:
        pytest.skip("this machine has no mount namespaces: the files would be written")
    refused(judge, adversary)
    accepted(judge, "row_shares", shares(SHARES))
    deadline = time.monotonic() + 3
    while processes_of(judge) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not processes_of(judge), "a process of the answer is left"


@pytest.mark.parametrize("adversary", cases(FAKED))
def test_a_faked_result(judge, bystanders, adversary):
    refused(judge, adversary)


@pytest.mark.parametrize("adversary", cases(HONEST))
def test_an_honest_mistake(judge, bystanders, adversary):
    refused(judge, adversary)


def test_the_judge_still_knows_what_is_right(judge, bystanders):
    accepted(judge, "row_shares", shares(SHARES))
    accepted(judge, "double_and_mask", kernel(*HOST))
    for name in ("attention", "safe_softmax", "tiled_attention", "expand_kv_heads"):
        accepted(judge, name, catalogue.solution_text(catalogue.find(name)))


def test_the_listing_sees_a_change(tmp_path):
    before = listing(tmp_path)
    (tmp_path / "results.json").write_text("{}")
    assert listing(tmp_path) != before


# ---------------------------------------------------------------- honest answers: none is flagged

STEPS = ("m = x.amax(-1, True)", "e = (x - m.masked_fill(m.isneginf(), 0)).exp()", "s = e.sum(-1, True)", "return e / s.masked_fill(s == 0, 1)")
HABITS = {
    "prints": softmax("print(x, x.shape, x.tolist(), x.numpy())", *STEPS),
    "prints by the number": softmax("for row in x.reshape(-1, x.shape[-1]): print(f'{row[0].item():.2f}', float(row.sum()))", *STEPS),
    "warns": softmax("warnings.warn('careful')", "print('to stderr', file=sys.stderr)", *STEPS, head="import sys, warnings\n"),
    "NumPy imported, and not used": softmax(*STEPS, head="import numpy as np\n"),
    "NumPy for a shape": softmax("n = x.numpy().shape[-1]", "assert n == np.asarray(x).shape[-1]", *STEPS, head="import numpy as np\n"),
    "NumPy for a constant": softmax("one = torch.from_numpy(np.ones(x.shape[-1]))", "x = x * one.to(x.dtype)", *STEPS, head="import numpy as np\n"),
    "a list for a constant": softmax("one = torch.tensor([1.0] * x.shape[-1], dtype=x.dtype)", "x = x * one", *STEPS),
    "the old constructor": softmax("one = torch.Tensor([1.0] * x.shape[-1]).to(x.dtype)", "x = x * one", *STEPS),
    "a constant of the module": softmax("x = x * ONE.to(x.dtype)", *STEPS, head="ONE = torch.ones(1)\n"),
    "a table built at import": softmax("x = x + TABLE[: x.shape[-1]].to(x.dtype)", *STEPS, head="TABLE = torch.Tensor([0.0] * 64)\n"),
    "a cached scale": softmax("x = x * scale(x.shape[-1])", *STEPS, head="import functools\n@functools.lru_cache\ndef scale(n): return 1.0\n"),
    "a cached mask": softmax(
        "keep = mask(x.shape[-1])",
        "x = x.masked_fill(~keep, -torch.inf)",
        *STEPS,
        head="import functools\n@functools.lru_cache\ndef mask(n): return torch.ones(n, dtype=torch.bool)\n",
    ),
    "try and except around a print": softmax("try: print(x.nothing)", "except AttributeError: pass", *STEPS),
    "try and except around an import": softmax(*STEPS, head="try:\n    import einops_that_is_not_there\nexcept ImportError:\n    pass\n"),
    "seeds and threads": softmax("torch.manual_seed(0)", "torch.set_num_threads(2)", *STEPS),
    "torch.compile": softmax(*STEPS).replace("def safe_softmax", "@torch.compile\ndef safe_softmax"),
    "no_grad": softmax(*STEPS).replace("def safe_softmax", "@torch.no_grad()\ndef safe_softmax"),
    "inference_mode": softmax("with torch.inference_mode():", *(f"    {line}" for line in STEPS)),
    "gradients on": softmax("x = x.clone().requires_grad_()", *STEPS),
    "vmap": softmax("return torch.vmap(one)(x)", head="def one(x):\n" + "".join(f"    {line}\n" for line in STEPS)),
    "a scripted helper": softmax(
        *STEPS[:1],
        "e = shifted(x, m)",
        *STEPS[2:],
        head="@torch.jit.script\ndef shifted(x: Tensor, m: Tensor) -> Tensor:\n    return (x - m.masked_fill(m.isneginf(), 0)).exp()\n",
    ),
    "a function of autograd": softmax(
        *STEPS[:1],
        "e = Exp.apply(x - m.masked_fill(m.isneginf(), 0))",
        *STEPS[2:],
        head="class Exp(torch.autograd.Function):\n    @staticmethod\n    def forward(ctx, x): return x.exp()\n",
    ),
    "a module": softmax(
        "return Soft()(x)", head="class Soft(torch.nn.Module):\n    def forward(self, x):\n" + "".join(f"        {s}\n" for s in STEPS)
    ),
    "threads of its own": softmax(
        "with concurrent.futures.ThreadPoolExecutor(2) as pool: return torch.stack(list(pool.map(one, x)))",
        head="import concurrent.futures\ndef one(x):\n" + "".join(f"    {line}\n" for line in STEPS),
    ),
    "empty rows set to 0 afterwards": softmax(
        *STEPS[:1], "out = (x - m).exp()", "out = out / out.sum(-1, True)", "out[m.isneginf().expand_as(out)] = 0", "return out"
    ),
    "a row of constants written in": softmax(
        *STEPS[:3],
        "out = e / s.masked_fill(s == 0, 1)",
        "for i in range(len(x)):",
        "    if x[i].isneginf().all(): out[i] = torch.tensor([0.0] * x.shape[-1])",
        "return out",
    ),
    "row by row": softmax(
        "out = torch.empty_like(x)",
        "for i in range(x.shape[0]): out[i] = one(x[i])",
        "return out",
        head="def one(x):\n" + "".join(f"    {line}\n" for line in STEPS),
    ),
    "a running maximum as a number": softmax("top = float(x[x.isfinite()].max())", "assert top == top", *STEPS),
    "out= and in place": softmax(
        "m = x.amax(-1, True)",
        "e = torch.empty_like(x)",
        "torch.sub(x, m.masked_fill(m.isneginf(), 0), out=e)",
        "e.exp_()",
        "s = e.sum(-1, True)",
        "return e.div_(s.masked_fill_(s == 0, 1))",
    ),
    "a deep copy": softmax("x = copy.deepcopy(x)", *STEPS, head="import copy\n"),
    "a name of torch's own": softmax("return softmax(x)", head="def softmax(x):\n" + "".join(f"    {line}\n" for line in STEPS)),
    "a timer": softmax("began = time.perf_counter()", *STEPS[:3], "print(time.perf_counter() - began)", STEPS[3], head="import time\n"),
}
PAD = "F.pad(%s, (0, n - x.numel()))"
HOSTS = {
    "torch.empty": kernel(*HOST),
    "torch.zeros": kernel("out = torch.zeros(x.shape)", LAUNCH, "return out"),
    "new_empty and contiguous": kernel("x, keep = x.contiguous(), keep.contiguous()", "out = x.new_empty(x.shape)", LAUNCH, "return out"),
    "a view": kernel("out = torch.empty(1, x.numel())", LAUNCH.replace("out,", "out.view(-1),"), "return out.reshape(x.shape)"),
    "a clone": kernel(*HOST[:2], "return out.clone().to(x.dtype)"),
    "padding": kernel(
        "n = triton.cdiv(x.numel(), 16) * 16",
        f"xs, ks, out = {PAD % 'x'}, {PAD % 'keep'}, torch.empty(n)",
        "keep_kernel[(n // 16,)](xs, ks, out, n, BLOCK=16)",
        "return out[: x.numel()].contiguous()",
        head="import torch.nn.functional as F\n",
    ),
    "another type of the mask": kernel("keep = keep.to(torch.uint8)", *HOST),
    "checks and prints": kernel(
        "assert x.shape == keep.shape and x.dtype == torch.float32", "print(x, keep.tolist(), x.numpy())", *HOST[:2], "print(out)", "return out"
    ),
    "only what is not 0": kernel(
        "out = torch.zeros_like(x)",
        LAUNCH,
        "return out",
        jit=KERNEL.replace("tl.where(keep != 0, x * 2.0, 0.0), mask=inside", "x * 2.0, mask=inside & (keep != 0)"),
    ),
    "two launches": kernel(
        "out = torch.empty_like(x)",
        "half = 16",
        "keep_kernel[(1,)](x[:half], keep[:half], out[:half], half, BLOCK=16)",
        "if x.numel() > half: keep_kernel[(triton.cdiv(x.numel() - half, 16),)](x[half:], keep[half:], out[half:], x.numel() - half, BLOCK=16)",
        "return out",
    ),
    "imports that are not used": kernel(*HOST, head="import numpy as np\nimport torch.nn.functional as F\n"),
}


@pytest.mark.parametrize("habit", HABITS)
def test_a_harmless_habit_passes(judge, habit):
    accepted(judge, "safe_softmax", HABITS[habit])


@pytest.mark.parametrize("host", HOSTS)
def test_an_honest_host_passes(judge, host):
    assert HOSTS[host].startswith(KERNEL_HEAD)
    accepted(judge, "double_and_mask", HOSTS[host])


@pytest.mark.slow
@pytest.mark.parametrize("exercise", list(catalogue.exercises().values()), ids=lambda exercise: exercise.name)
def test_no_right_answer_is_flagged(judge, exercise):
    texts = [exercise.solution, *catalogue.checks(exercise.chapter)[exercise.name].right]
    for text in texts:
        verdict = judge.check(exercise.name, f"{exercise.preamble}\n\n{text}", seed=29)
        assert verdict.status == "passed", (verdict.diagnosis, text)


# ---------------------------------------------------------------- the same verdict every time

REPEATS = 20
SAMPLE = [a for a in ALL if not a.slow and a.status != "timeout"][:: len(ALL) // 15]


def repeated(judge: Judge, exercise: str, text: str) -> set[tuple[str, str]]:
    verdicts = [judge.check(exercise, text, seed=SEED) for _ in range(REPEATS)]
    return {(verdict.status, verdict.diagnosis.id if verdict.diagnosis else "") for verdict in verdicts}


@pytest.mark.slow
@pytest.mark.parametrize("adversary", SAMPLE, ids=id_of)
def test_an_adversary_gets_the_same_verdict_every_time(judge, adversary):
    found = repeated(judge, adversary.exercise, adversary.text)
    assert len(found) == 1, found


@pytest.mark.slow
@pytest.mark.parametrize("name", ["attention", "safe_softmax", "tiled_attention", "merge_states", "causal_mask"])
def test_a_mutant_gets_the_same_verdict_every_time(judge, name):
    exercise = catalogue.find(name)
    for mutant in catalogue.checks(exercise.chapter)[name].mutants[::5]:
        found = repeated(judge, name, f"{exercise.preamble}\n\n{mutant.text(exercise.solution)}")
        assert found == {("failed", mutant.id)}, found
