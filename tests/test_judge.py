"""The judge decides rightly: right answers pass in any style, wrong ones fail with the sentence that fits, cheats do not pay."""

import dataclasses
import importlib.util
import json

import jsonschema
import pytest
import torch
from conftest import MINI_COURSE

from course_lib.grading import defaults, feedback
from course_lib.grading import judge as judging
from course_lib.grading.diagnose import NOT_KNOWN
from course_lib.grading.judge import NOT_COMPILED, RACES
from course_lib.grading.servers import Servers
from course_lib.grading.spec import Evidence
from course_lib.grading.trial import Trial
from course_lib.grading.verdict import STATUSES, Case, Diagnosis, Verdict
from course_lib.source import parse_exercises

SOURCE = MINI_COURSE / "solutions" / "ch90_mini.py"
EXERCISES = {exercise.name: exercise for exercise in parse_exercises(SOURCE.read_text(), 90, SOURCE.name)}


def _checks() -> dict:
    spec = importlib.util.spec_from_file_location("mini_checks", MINI_COURSE / "checks" / "ch90_mini.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return {check.exercise: check for check in module.CHECKS}


CHECKS = _checks()
MUTANTS = [(name, mutant) for name, check in CHECKS.items() for mutant in check.mutants]
RIGHT = "return torch.nan_to_num(x.abs() / x.abs().sum(-1, True))"


def solution(name: str) -> str:
    return f"{EXERCISES[name].preamble}\n\n{EXERCISES[name].solution}"


def answer(*lines: str, head: str = "") -> str:
    return f"import torch\n{head}\ndef row_shares(x):\n" + "".join(f"    {line}\n" for line in lines)


def failed(judge, text: str, id: str, name: str = "row_shares", seed: int = 5) -> Verdict:
    verdict = judge.check(name, text, seed=seed)
    assert verdict.status == "failed" and verdict.points == 0, verdict
    assert verdict.diagnosis.id == id, verdict.diagnosis
    return verdict


def passed(judge, text: str, name: str = "row_shares") -> Verdict:
    verdict = judge.check(name, text)
    assert verdict.status == "passed" and verdict.points == verdict.max_points > 0, (verdict.diagnosis, verdict.details)
    assert all(case.status == "passed" for case in verdict.cases)
    return verdict


# ---------------------------------------------------------------- right answers


@pytest.mark.parametrize("name", list(EXERCISES))
def test_the_solution_passes(judge, name):
    assert passed(judge, solution(name), name).diagnosis is None


@pytest.mark.parametrize("name, right", [(name, text) for name, check in CHECKS.items() for text in check.right])
def test_other_styles_pass(judge, name, right):
    passed(judge, f"{EXERCISES[name].preamble}\n\n{right}", name)


@pytest.mark.parametrize(
    "lines",
    [
        ["print('loud')", "import warnings", "warnings.warn('careful')", RIGHT],
        ["import matplotlib.pyplot as plt", "plt.plot([1, 2])", "plt.close()", RIGHT],
        ["x = x.clone().requires_grad_()", RIGHT],
        ["return torch.nn.Parameter(torch.nan_to_num(x.abs() / x.abs().sum(-1, True)))"],
        ["torch.manual_seed(3)", "torch.set_num_threads(2)", "big = torch.rand(200_000).sort()", RIGHT],
        ["out = torch.empty_like(x)", "for i, row in enumerate(x): out[i] = torch.nan_to_num(row.abs() / row.abs().sum(-1, True))", "return out"],
    ],
    ids=["prints and warns", "matplotlib", "with a gradient", "a Parameter", "seeds and threads", "row by row"],
)
def test_harmless_habits_pass(judge, lines):
    passed(judge, answer(*lines))


def test_what_was_printed_is_kept(judge):
    assert "loud" in passed(judge, answer("print('loud')", RIGHT)).details["printed"]


def test_a_warm_check_is_fast(judge):
    passed(judge, solution("row_shares"))
    assert min(passed(judge, solution("row_shares")).seconds for _ in range(3)) < 1.0


# ---------------------------------------------------------------- before anything runs


def test_the_stub_is_not_attempted(judge):
    for name, exercise in EXERCISES.items():
        verdict = judge.check(name, f"{exercise.preamble}\n\n# my plan\n{exercise.stub}\nx = 1\n")
        assert verdict.status == "not_attempted" and name in verdict.diagnosis.message


def test_the_stubs_raise_left_in_place(judge):
    text = EXERCISES["row_shares"].preamble + "\n\n" + EXERCISES["row_shares"].stub.rstrip() + "\n    " + RIGHT + "\n"
    assert "stub's first line is still there" in failed(judge, text, "exception").diagnosis.message


def test_syntax_error_shows_the_line(judge):
    verdict = judge.check("row_shares", "def row_shares(x):\n    return x +\n")
    assert verdict.status == "error" and verdict.diagnosis.id == "syntax"
    assert "line 2 of row_shares: `return x +`" in verdict.diagnosis.message
    verdict = judge.check("row_shares", "import torch\n\n\ndef row_shares(x):\n    return x +\n\nrow_shares(2)\n")
    assert "line 2 of row_shares: `return x +`" in verdict.diagnosis.message


@pytest.mark.parametrize(
    "text, id",
    [("x = 1", "missing"), ("import nothing_of_that_name\ndef row_shares(x): return x", "load"), ("row_shares = 3", "missing"), ("\0", "syntax")],
)
def test_texts_that_cannot_be_graded(judge, text, id):
    verdict = judge.check("row_shares", text)
    assert verdict.status == "error" and verdict.diagnosis.id == id


def test_unknown_exercise(judge):
    verdict = judge.check("row_share", "x = 1")
    assert verdict.status == "error" and "row_shares" in verdict.diagnosis.message


# ---------------------------------------------------------------- wrong answers


@pytest.mark.parametrize("name, mutant", MUTANTS, ids=[f"{name}-{mutant.id}" for name, mutant in MUTANTS])
def test_every_mutant_comes_back_with_its_sentence(judge, name, mutant):
    text = f"{EXERCISES[name].preamble}\n\n{mutant.text(EXERCISES[name].solution)}"
    verdict = failed(judge, text, mutant.id, name)
    assert mutant.message in verdict.diagnosis.message


def test_a_kernels_mutants_take_its_tile_size(judge):
    mutant = next(m for m in CHECKS["double_and_mask"].mutants if m.id == "tile-reversed")
    text = mutant.text(solution("double_and_mask")).replace("BLOCK = 16", "BLOCK = 32")
    failed(judge, text, "tile-reversed", "double_and_mask")


def test_nothing_is_said_of_promises_where_nothing_ran(judge):
    verdict = judge.check("row_shares", "nowhere.to.be.found\n" + answer(RIGHT), seed=5)
    assert verdict.status == "error" and verdict.diagnosis.id == "load"
    assert [case.status for case in verdict.cases] == ["error"]


def test_the_evidence_is_in_the_sentence(judge):
    verdict = failed(judge, answer("return (x.abs() + 1) / x.abs().sum(-1, True)"), "unknown")
    message = verdict.diagnosis.message
    assert NOT_KNOWN in message and "Smallest failing input: 2 rows of 3 numbers, seed 5." in message
    assert verdict.details["expected"] in message and verdict.details["got"] in message
    assert verdict.details["shapes"] == ["x [2, 3] float32"] and verdict.details["seed"] == 5
    names = {"torch": torch}
    source, call = verdict.details["input"].rsplit("\n", 1)
    exec(source, names)
    assert call == "row_shares(x)" and torch.equal(names["x"], CHECKS["row_shares"].probes(torch.Generator().manual_seed(5))[0].args[0])


@pytest.mark.parametrize(
    "lines, id, words",
    [
        (["return x.sum(-1)"], "shape", "[2]"),
        (["return x.double()"], "dtype", "float64; expected float32"),
        (["return x.to('meta')"], "device", "meta"),
        (["return x.numpy()"], "type", "numpy"),
        (["return x.tolist()"], "type", "list"),
        (["return None"], "type", "None"),
        (["yield x"], "type", "generator"),
        (["class Mine(torch.Tensor): pass", "return x.abs().as_subclass(Mine)"], "type", "subclass"),
        (["return x.to_sparse()"], "type", "layout"),
        (["return torch.empty_like(x)"], "nan-everywhere", "NaN"),
        (["y = torch.nan_to_num(x.abs() / x.abs().sum(-1, True))", "x.zero_()", "return y"], "mutated-input", "in-place"),
        (
            ["y = torch.nan_to_num(x.abs() / x.abs().sum(-1, True))", "x.copy_(y) if False else x.set_(x)", "return x.copy_(y)"],
            "mutated-input",
            "argument",
        ),
        (["return torch.zeros_like(x) + 0.25"], "unknown", "Wrong everywhere"),
        (["return None"], "type", "Is a `return` missing?"),
        (["return 1 / 0"], "exception", "ZeroDivisionError"),
        (["return x @ x"], "exception", "line 2 of row_shares: `return x @ x`"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_broken_contracts_are_named(judge, lines, id, words):
    verdict = judge.check("row_shares", answer(*lines), seed=5)
    assert verdict.status == "failed"
    assert verdict.diagnosis.id in (id, "in-place") and words in verdict.diagnosis.message, verdict.diagnosis


def test_a_view_of_the_input_is_refused(judge):
    text = "import torch\ndef double_and_mask(x, keep):\n    x.mul_(2).mul_(keep)\n    return x[:]\n"
    assert judge.check("double_and_mask", text).diagnosis.id == "mutated-input"


def test_aliasing_alone_is_seen(judge):
    text = "import torch\ndef double_and_mask(x, keep):\n    if keep.any() or not keep.any():\n        x.data.set_(x.data)\n    y = x.view(-1)\n    return y\n"
    assert "argument itself" in judge.check("double_and_mask", text).diagnosis.message


def test_writing_outside_the_tensor_is_seen(judge):
    lines = ["whole = torch.empty(0).set_(x.untyped_storage())", "whole[0] = 7.0", RIGHT]
    assert "outside the tensors" in failed(judge, answer(*lines), "canary").diagnosis.message


def test_traceback_is_cut_to_the_answer(judge):
    verdict = failed(judge, "import torch\n\ndef helper(x):\n    return x.reshape(7)\n\ndef row_shares(x):\n    return helper(x)\n", "exception")
    assert verdict.details["traceback"].startswith(
        "  line 2 of row_shares\n    return helper(x)\n  line 2 of helper\n    return x.reshape(7)\nRuntimeError"
    )
    assert "(line 2 of helper: `return x.reshape(7)`)" in verdict.diagnosis.message
    assert "course_lib" not in verdict.details["traceback"]


def test_lines_are_counted_from_the_own_def(judge):
    head = "import math\n\n\nHALF = 0.5\n\n\n"
    text = head + "def my_helper(x):\n    return x.reshape(7)\n\n\n@torch.no_grad()\ndef row_shares(x):\n    y = 1\n    return my_helper(x)\n"
    assert "(line 2 of my_helper: `return x.reshape(7)`)" in failed(judge, "import torch\n" + text, "exception").diagnosis.message
    verdict = judge.check("row_shares", "import torch\nSIZE = 1 / 0\n" + answer(RIGHT))
    assert verdict.diagnosis.id == "load" and "(`SIZE = 1 / 0`)" in verdict.diagnosis.message


def test_an_access_outside_is_a_sentence_not_a_crash(judge):
    verdict = failed(judge, solution("double_and_mask").replace(", mask=inside, other=0)", ")"), "no-mask", "double_and_mask")
    assert "`keep_ptr`: element 21 of 21, in program (1, 0, 0)" in verdict.diagnosis.message


# ---------------------------------------------------------------- what passes interpreted must compile

KERNEL = solution("double_and_mask")


def test_a_right_kernel_is_also_compiled(judge):
    verdict = passed(judge, KERNEL, "double_and_mask")
    assert verdict.cases[-1].name == "compiles for a GPU (sm_80)" and verdict.cases[-1].status == "passed"
    assert not [case for case in passed(judge, solution("row_shares")).cases if "sm_80" in case.name]
    assert min(passed(judge, KERNEL, "double_and_mask").seconds for _ in range(2)) < 4.0


HELPER = KERNEL.replace("def double_and_mask(", "@triton.jit\ndef twice(x):\n    return x * torch.tensor(2.0).item()\n\n\ndef double_and_mask(")
REFUSED = {
    "torch": (
        KERNEL.replace("x * 2.0", "x * torch.tensor(2.0).item()"),
        "`torch.tensor` cannot be called in a kernel",
        "line 6 of double_and_mask_kernel: `tl.store(",
    ),
    "numpy": (
        "import numpy as np\n" + KERNEL.replace("x * 2.0", "np.add(x, x)"),
        "`np.add` cannot be called in a kernel",
        "line 6 of double_and_mask_kernel: `tl.store(",
    ),
    "torch in a helper": (HELPER.replace("x * 2.0", "twice(x)"), "`torch.tensor` cannot", "line 2 of twice: `return x * torch.tensor(2.0).item()`"),
    "a list loop": (
        KERNEL.replace("    keep = tl.load", "    for factor in [2.0]:\n        x = x * factor\n    keep = tl.load").replace("x * 2.0", "x"),
        "runs over `range`",
        "line 5 of double_and_mask_kernel: `for factor in [2.0]:`",
    ),
    "an 8-wide dot": (
        KERNEL.replace(
            "    keep = tl.load", "    s = tl.full((16, 8), 0.0, tl.float32)\n    x = x + tl.sum(tl.dot(s, tl.trans(s)), 1)\n    keep = tl.load"
        ),
        "K >= 16",
        "line 6 of double_and_mask_kernel: `x = x + tl.sum(",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_only_the_interpreter_runs_is_refused(judge, what):
    text, words, line = REFUSED[what]
    verdict = failed(judge, text, "will-not-compile", "double_and_mask")
    assert verdict.diagnosis.message.startswith("Right in the interpreter, will not compile: ") and words in verdict.diagnosis.message
    assert line in verdict.diagnosis.message, verdict.diagnosis.message
    assert [case.status for case in verdict.cases].count("failed") == 1 and verdict.cases[-1].status == "failed"


# ---------------------------------------------------------------- the rules of a kind, and what the panel says of them

BY_TORCH = KERNEL.replace("    return out", "    return torch.where(keep != 0, x * 2, 0.0)")


def _evidence(**seen) -> Evidence:
    return Evidence(**{"launches": [{"kernel": "k"}], "returned": 50, "largest_returned": 50, "stored": 50, **seen})


@pytest.mark.parametrize(
    "seen, words",
    [
        ({}, None),
        ({"made": {"mul": 49}}, None),
        ({"made": {"mul": 50}}, "torch's `mul` computed 50 numbers"),
        ({"made": {"div": 500}}, "torch's `div` computed 500 numbers"),
        ({"returned": 1, "largest_returned": 1, "stored": 1, "made": {"sum": 1}}, None),
        ({"launches": []}, "no kernel was launched"),
        ({"launches": [], "returned": 0}, None),
        ({"stored": 20}, "the kernel stored 20 of 50 elements of the result"),
        ({"stored": 20, "blank": 30}, None),
        ({"unseen": 50}, "without an operation that was seen"),
        ({"unseen": 3}, None),
        ({"taken": 50}, None),
        ({"brought": 50}, None),
        ({"taken": 50, "brought": 50, "detours": ["numpy"]}, "50 numbers left torch on this input (by `numpy`), and 50 came back"),
        ({"carried": 50}, "50 numbers came from Python or NumPy"),
    ],
)
def test_the_rules_of_a_triton_exercise(seen, words):
    evidence, probe = _evidence(**seen), CHECKS["double_and_mask"].probes(torch.Generator().manual_seed(1))[2]
    rules = defaults.rules_of(EXERCISES["double_and_mask"], dataclasses.replace(CHECKS["double_and_mask"], rules=()))
    said = [sentence for rule in rules if (sentence := rule.broken(probe, evidence))]
    assert (words in said[0] and len(said) == 1) if words else not said


@pytest.mark.parametrize("allow, refused", [((), True), (("where",), True), (("mul", "where"), False), (("all",), False)])
def test_what_a_host_may_compute_is_said_by_the_check(allow, refused):
    probe, evidence = CHECKS["double_and_mask"].probes(torch.Generator().manual_seed(1))[2], _evidence(made={"mul": 50, "where": 50})
    assert bool(defaults.torch_does_the_work(allow).broken(probe, evidence)) == refused


def test_only_a_torch_exercise_that_forbids_something_asks_where_numbers_came_from():
    exercise, check = EXERCISES["row_shares"], CHECKS["row_shares"]
    assert [rule.id for rule in defaults.rules_of(exercise, check)] == ["shortcut", "outside-torch"]
    assert defaults.rules_of(exercise, dataclasses.replace(check, rules=())) == ()


def test_the_second_time_around_torch_may_not_do_the_work_either():
    """The run that is compiled on a GPU, here interpreted: its one rule does not depend on the interpreter."""
    servers = Servers()
    try:
        for text, rules in ((KERNEL, []), (BY_TORCH, ["torch-does-the-work"])):
            with Trial(EXERCISES["double_and_mask"], CHECKS["double_and_mask"], text, 3, servers) as trial:
                found = trial.run_probes()
            assert [rule.id for rule, _ in found.rules] == rules and not found.failing
            assert found.cases[-1].name == "resources: torch does the work (compiled)"
    finally:
        servers.close()


@pytest.mark.parametrize(
    "text, status", [(KERNEL, "passed"), (BY_TORCH, "passed"), (KERNEL.replace("def double_and_mask(", "def double_and_mask(n, *, "), "failed")]
)
def test_trials_that_share_the_probes_find_what_one_finds(text, status):
    """As four processes do on a GPU, here interpreted: every probe once, in their order, whoever ran it; also where each call fails."""
    servers, seen = Servers(), []
    try:
        for many in (1, 4):
            trials = [Trial(EXERCISES["double_and_mask"], CHECKS["double_and_mask"], text, 3, servers) for _ in range(many)]
            found = trials[0].run_probes(trials[1:])
            seen.append([(case.name, case.status, case.message) for case in found.cases])
            for trial in trials:
                trial.close()
    finally:
        servers.close()
    assert {found for _, found, _ in seen[0][:-1]} == {status}
    assert seen[0] == seen[1] and len(seen[0]) == len(CHECKS["double_and_mask"].probes(torch.Generator().manual_seed(3))) + 1


def test_the_second_time_around_is_judged_with_what_the_compiler_says(monkeypatch):
    """The part of a check that needs a GPU, here with interpreted processes in the place of compiled ones."""
    verdict = Verdict("double_and_mask", 90, "passed", 3, 3, cases=[Case("interpreted", "passed")])
    exact = dataclasses.replace(CHECKS["double_and_mask"], exact_float32=True)
    tf32 = Diagnosis("tf32", "rounded")
    monkeypatch.setattr(judging, "Trial", lambda *given: Trial(*given[:5]))
    judge = judging.Judge()
    for refused, status, points in ((None, "passed", 3), (tf32, "failed", 0)):
        monkeypatch.setattr(judging.ahead, "compile_all", lambda trial, found, refused=refused: (Case("compiles", "passed"), refused))
        with Trial(EXERCISES["double_and_mask"], exact, KERNEL, 3, judge.servers) as trial:
            judging._run_compiled(verdict, trial, trial.run(), judge)
        assert (verdict.status, verdict.points, verdict.diagnosis) == (status, points, refused)
        assert verdict.cases[0].name == "interpreted" and all(case.status == "passed" for case in verdict.cases)
    judge.close()


def test_the_panel_says_what_the_interpreter_does_not_show(judge):
    said = feedback.panel_text(passed(judge, KERNEL, "double_and_mask"), EXERCISES["double_and_mask"])
    assert " ".join(said.split()).count(RACES) == 1 and NOT_COMPILED not in " ".join(said.split())
    assert "race" not in feedback.panel_text(passed(judge, solution("row_shares")), EXERCISES["row_shares"])
    assert "race" not in feedback.panel_text(judge.check("double_and_mask", BY_TORCH), EXERCISES["double_and_mask"])


@pytest.mark.parametrize("case", [None, Case("compiles for a GPU (sm_80)", "blocked", "not here")])
def test_the_panel_says_when_compiling_could_not_be_tried(monkeypatch, case):
    monkeypatch.setattr(judging.ahead, "compile_all", lambda trial, found: (case, None))
    verdict = Verdict("double_and_mask", 90, "passed", 3, 3)
    judging._compile(verdict, None, None)
    assert NOT_COMPILED in " ".join(feedback.panel_text(verdict).split()) and verdict.status == "passed"


# ---------------------------------------------------------------- cheats (the list of 48 is in test_adversaries.py)


def test_an_honest_constant_mistake_is_told_by_its_values(judge):
    """All zeros for short rows look like a remembered result, and are none."""
    verdict = failed(judge, answer("if x.shape[-1] < 6: return torch.zeros_like(x)", RIGHT), "unknown")
    assert "got 0.0000" in verdict.diagnosis.message and "same numbers" not in verdict.diagnosis.message


@pytest.mark.parametrize(
    "patch",
    [
        "torch.allclose = lambda *a, **k: True\ntorch.equal = torch.allclose\ntorch.testing.assert_close = lambda *a, **k: None\n",
        "torch.Tensor.__eq__ = lambda *a: True\ntorch.Tensor.__ne__ = lambda *a: False\n",
        "torch.Tensor.isnan = torch.Tensor.isfinite\ntorch.Tensor.abs = lambda x: x * 0\n",
        "import hashlib\nhashlib.blake2b = lambda *a: None\n",
        "import builtins\nbuiltins.len = lambda x: 0\n",
        "import json\njson.dumps = lambda *a, **k: '{}'\n",
        "import gc\nfor o in gc.get_objects():\n    if isinstance(o, dict) and 'reference' in o: o['reference'] = None\n",
    ],
    ids=["allclose", "eq", "methods", "hashes", "len", "json", "gc"],
)
def test_patching_the_library_does_not_help(judge, patch):
    verdict = judge.check("row_shares", answer("return x + 1.0", head=patch), seed=5)
    assert verdict.status in ("failed", "error") and verdict.diagnosis.id != "internal", verdict.diagnosis
    passed(judge, solution("row_shares"))


@pytest.mark.parametrize(
    "module", ["solutions.ch03_online_softmax", "course_lib.checks.ch03_online_softmax", "course_lib.grading.judge", "course_lib.grading"]
)
def test_the_courses_own_material_cannot_be_imported(judge, module):
    verdict = judge.check("row_shares", answer(f"import {module}", RIGHT))
    assert verdict.status == "failed" and "may not import" in verdict.diagnosis.message
    verdict = judge.check("row_shares", answer(f"importlib.import_module({module!r})", RIGHT, head="import importlib"))
    assert verdict.status == "failed" and "may not import" in verdict.diagnosis.message


@pytest.mark.parametrize(
    "head, line",
    [
        ("class Odd(Exception):\n    def __str__(self): raise SystemExit\n    __repr__ = __str__", "raise Odd()"),
        ("class Odd(Exception):\n    def __str__(self): return 'x' * 10**7", "raise Odd()"),
        ("class Odd(Exception):\n    def __str__(self): return 5", "raise Odd()"),
        ("class Meta(type):\n    @property\n    def __name__(cls): raise KeyboardInterrupt\nclass Odd(Exception, metaclass=Meta): pass", "raise Odd"),
        ("class Odd(Exception):\n    __cause__ = property(lambda s: 1/0)\n    __traceback__ = 3", "raise Odd"),
        (
            "class Odd(str):\n    def __getitem__(self, i): raise RuntimeError\nclass E(Exception):\n    def __str__(self): return Odd('\\ud800<script>')",
            "raise E",
        ),
        ("", "raise ValueError('\\x00\\x1b[31m<b>\\ud83d')"),
        ("", "raise ExceptionGroup('g', [ValueError(1)]) if 'ExceptionGroup' in dir(__builtins__) else ValueError(1)"),
        ("def deep(): deep()", "deep()"),
    ],
)
def test_exceptions_with_odd_messages(judge, head, line):
    verdict = judge.check("row_shares", answer(line, head=head))
    assert verdict.status == "failed" and verdict.diagnosis.id in ("exception", "exit", "interrupt"), verdict.diagnosis
    assert len(verdict.diagnosis.message) < 1000


def test_odd_results(judge):
    for line in (
        "return {1: x}",
        "return [[[[[[[[[[x]]]]]]]]]]",
        "return 10 ** 10_000",
        "return type",
        "return (x for x in ())",
        "return 'a' * 10**8",
        "return (x,) * 100_000",
    ):
        verdict = judge.check("row_shares", answer(line))
        assert verdict.status == "failed" and verdict.diagnosis.id == "type", (line[:40], verdict.diagnosis)


# ---------------------------------------------------------------- the verdict


SCHEMA = {
    "type": "object",
    "additionalProperties": False,
    "required": ["exercise", "chapter", "status", "points", "max_points", "diagnosis", "cases", "tier", "seconds"],
    "properties": {
        "exercise": {"type": "string"},
        "chapter": {"type": "integer"},
        "status": {"enum": list(STATUSES)},
        "points": {"type": "integer"},
        "max_points": {"type": "integer"},
        "diagnosis": {
            "oneOf": [
                {"type": "null"},
                {"type": "object", "required": ["id", "message"], "properties": {"id": {"type": "string"}, "message": {"type": "string"}}},
            ]
        },
        "cases": {
            "type": "array",
            "items": {"type": "object", "required": ["name", "status", "message", "seconds"], "properties": {"status": {"enum": list(STATUSES)}}},
        },
        "tier": {"enum": ["interpreter", "compiled", "hopper"]},
        "seconds": {"type": "number"},
    },
}


@pytest.mark.parametrize("text", [solution("row_shares"), answer("return x"), answer("return"), "x", "("])
def test_the_contracts_json(judge, text):
    verdict = judge.check("row_shares", text)
    jsonschema.validate(json.loads(json.dumps(verdict.contract())), SCHEMA)


def test_the_same_seed_gives_the_same_verdict(judge):
    one, other = (judge.check("row_shares", answer("return x.abs() / x.abs().sum(-1, True).sqrt()"), seed=11) for _ in range(2))
    assert one.diagnosis == other.diagnosis and one.details["expected_row"] == other.details["expected_row"]


def test_a_verdict_survives_json(judge):
    verdict = judge.check("row_shares", answer("return x"))
    from dataclasses import asdict

    assert Verdict.from_json(json.loads(json.dumps(asdict(verdict)))) == verdict


@pytest.mark.parametrize("load, seconds", [(0.1, 3.0), (2.0, 3.0), (4.0, 6.0), (40.0, 7.5)])
def test_mutants_get_more_time_on_a_busy_machine(monkeypatch, load, seconds):
    from course_lib.grading import load as machine
    from course_lib.grading import mutants, sentences

    monkeypatch.setattr(machine.os, "getloadavg", lambda: (load, 0.0, 0.0), raising=False)
    monkeypatch.setattr(machine.os, "cpu_count", lambda: 2)
    assert mutants.allowed_seconds() == seconds
    assert ("This machine is busy" in sentences._slow(True)) == (load >= 4) and "larger tiles" not in sentences._slow(False)
