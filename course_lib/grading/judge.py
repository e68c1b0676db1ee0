"""The judge: draws inputs, holds references and mutants, compares raw results, decides. The answer runs elsewhere.

A process of its own (`python -m course_lib.grading.judge`): one JSON line in, {"id", "exercise", "text", "seed"}, one JSON
line out, {"id", "verdict"}. It ends with its client, or after ten idle minutes. Nothing an answer does can reach it: what
comes back is raw bytes, and everything that goes wrong becomes a verdict.
"""

import ast
import json
import os
import queue
import random
import sys
import threading
import time
import traceback
from dataclasses import asdict
from typing import Any

import torch

from course_lib import hardware
from course_lib.grading import catalogue, compare, diagnose
from course_lib.grading.diagnose import Mutants, Outcome
from course_lib.grading.probing import AnswerProcess, Ended, Servers
from course_lib.grading.spec import Check, Probe
from course_lib.grading.verdict import Case, Diagnosis, Verdict
from course_lib.source import Exercise, fingerprint

IDLE = 600.0
_FRESH_STARTS = 3  # answer processes a check may use up
_TRITON = hardware.has_triton()


class _CallFailed(Exception):
    """A property's call of the answer brought no result; carries the outcome."""

    def __init__(self, outcome: Outcome):
        super().__init__("the answer failed")
        self.outcome = outcome


class Judge:
    """Checks one answer at a time; keeps the fork servers warm."""

    def __init__(self):
        self.servers = Servers()
        self.servers.start("interpret")
        self.memo: dict = {}

    def check(self, name: str, text: str, seed: int | None = None) -> Verdict:
        """The verdict on `text` as the answer to exercise `name`. Never raises on an answer."""
        started = time.monotonic()
        seed = random.SystemRandom().randrange(10_000) if seed is None else int(seed)
        try:
            exercise = catalogue.find(name)
        except catalogue.UnknownExercise as error:
            return Verdict(name, 0, "error", 0, 0, Diagnosis("unknown-exercise", str(error)))
        verdict = Verdict(name, exercise.chapter, "error", 0, exercise.points, tier="interpreter", details={"seed": seed})
        try:
            verdict.tier = hardware.tier()
            if len(self.memo) > 3000:
                self.memo.clear()
            _decide(verdict, exercise, text, seed, self)
        except Exception as error:
            verdict.status, verdict.points = "error", 0
            verdict.diagnosis = Diagnosis(
                "internal",
                f"The grader itself failed ({type(error).__name__}: {str(error)[:200]}). This is the course's fault, not yours. "
                f"Please report it with the exercise ({name}), the seed ({seed}) and the details below.",
            )
            verdict.details["traceback"] = traceback.format_exc()[-4000:]
        verdict.seconds = time.monotonic() - started
        return verdict

    def close(self) -> None:
        self.servers.close()


# ---------------------------------------------------------------- before anything runs


def _decide(verdict: Verdict, exercise: Exercise, text: str, seed: int, judge: Judge) -> None:
    material = catalogue.checks(exercise.chapter).get(exercise.name)
    if material is None:
        raise LookupError(f"{exercise.name} has no grading material")
    problem = _unreadable(text, exercise.name)
    if problem is None and _is_stub(text, exercise):
        verdict.status = "not_attempted"
        verdict.diagnosis = Diagnosis("not-attempted", f"{exercise.name} is still the stub. Write it, then check again; hint({exercise.name!r}) gives the first hint.")
        return
    if problem:
        verdict.status, verdict.diagnosis = "error", problem
        return
    if exercise.kind == "triton" and not _TRITON:
        verdict.status, verdict.diagnosis = "blocked", Diagnosis("needs-triton", hardware.blocked("triton") or "")
        return
    _Round(verdict, exercise, material, text, seed, judge).run()


def _unreadable(text: str, name: str) -> Diagnosis | None:
    """A diagnosis where the text is not Python, or does not define the exercise."""
    try:
        compile(text, "answer", "exec", dont_inherit=True)
        tree = ast.parse(text)
    except SyntaxError as error:
        line = (error.text or "").strip()
        shown = f": `{line[:120]}`" if line else ""
        return Diagnosis("syntax", f"Your answer is not Python yet: {error.msg}, line {error.lineno}{shown}.")
    except (ValueError, RecursionError, MemoryError, OverflowError) as error:
        return Diagnosis("syntax", f"Your answer cannot be read as Python ({type(error).__name__}: {error}).")
    bound = {getattr(node, "name", None) for node in tree.body}
    bound |= {target.id for node in tree.body if isinstance(node, ast.Assign) for target in node.targets if isinstance(target, ast.Name)}
    bound |= {alias.asname or alias.name for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    if name not in bound:
        return Diagnosis("missing", f"Your answer defines no function {name}. Keep the name that the stub gave it.")
    return None


def _is_stub(text: str, exercise: Exercise) -> bool:
    own, given = _definition(text, exercise.name), _definition(exercise.stub, exercise.name)
    return own is not None and given is not None and fingerprint(own) == fingerprint(given)


def _definition(text: str, name: str) -> str | None:
    """The source of the last top-level definition of that name, without decorators."""
    found = [node for node in ast.parse(text).body if getattr(node, "name", None) == name]
    return "\n".join(text.splitlines()[found[-1].lineno - 1 : found[-1].end_lineno]) if found else None


# ---------------------------------------------------------------- one check


class _Round:
    """One check of one answer, from the first probe to the verdict."""

    def __init__(self, verdict: Verdict, exercise: Exercise, material: Check, text: str, seed: int, judge: Judge, flavour: str = "interpret"):
        self.verdict, self.exercise, self.material, self.text, self.seed, self.judge = verdict, exercise, material, text, seed, judge
        self.flavour = flavour
        self.limit = material.seconds if flavour == "interpret" else material.seconds + 10  # compiling takes its time
        self.process: AnswerProcess | None = None
        self.starts = 0
        self.load_failure: dict | None = None
        self.deadline = 0.0

    def run(self) -> None:
        probes = self.material.probes(torch.Generator().manual_seed(self.seed))
        try:
            outcomes = self._probe_all(probes)
            cases = [self._case(outcome) for outcome in outcomes]
            more, broken, late = [], [], None
            if all(outcome.reply is not None for outcome in outcomes):
                again = self._again(outcomes)
                late = again if not again.ok else None
                more.append(self._case(again))
            if self.load_failure is None and not any(outcome.ended for outcome in outcomes):
                broken = self._properties(cases := cases + more)
                more = []
            cases += more
            rules = self._rules(outcomes, cases)
            if self.flavour == "interpret" and self.exercise.kind == "triton" and self.verdict.tier != "interpreter" and all(c.status == "passed" for c in cases):
                self._close()
                if not self._compiled(cases):
                    return
            self._conclude(outcomes, late, broken, rules, cases)
        finally:
            self._close()

    # -- calling the answer

    def _alive(self) -> AnswerProcess:
        """A process with the answer loaded; Ended when there have been too many, or loading ended it."""
        if self.process is None:
            if self.starts >= _FRESH_STARTS:
                raise Ended("closed")
            self.starts += 1
            began = time.monotonic()
            self.process = self._start()
            if self.deadline:
                self.deadline += time.monotonic() - began
            else:
                self.deadline = time.monotonic() + self.limit
            self.load_failure = self.process.load("answer", self.text, self.exercise.name, self.deadline)
        return self.process

    def _start(self) -> AnswerProcess:
        device = "cuda" if self.flavour == "compiled" else "cpu"
        return AnswerProcess(self.judge.servers, self.exercise.name, self.limit + 15, self.flavour, device, self.exercise.kind == "triton")

    def _close(self) -> None:
        if self.process is not None:
            self.process.close()
            self.verdict.details["printed"] = self.process.output.text()
            self.process = None

    def _outcome(self, name: str, probe: Probe, again: bool = False) -> Outcome:
        """Call the answer on a probe and compare."""
        outcome, began = Outcome(name, probe), time.monotonic()
        try:
            process = self._alive()
            if self.load_failure is None:
                outcome.reply = process.call("answer", probe.args, probe.kwargs, probe.layout, self.deadline, again)
        except Ended as ended:
            outcome.ended = ended
            self._close()
        outcome.seconds = time.monotonic() - began
        if outcome.reply is not None and not outcome.reply.failure and not any(p.startswith("device:") for p in outcome.reply.problems):
            self._compare(outcome)
        return outcome

    def _compare(self, outcome: Outcome) -> None:
        outcome.reference, outcome.targets = self._wanted(outcome.probe)
        outcome.findings = compare.judge(outcome.reply.result, outcome.reference, outcome.targets, self.material.returns)

    def _wanted(self, probe: Probe) -> tuple[Any, list[compare.Target]]:
        """The float64 reference and what each leaf must be, from the inputs as the answer got them."""
        args, kwargs = (_as_laid_out(tree, probe.layout) for tree in (probe.args, probe.kwargs))
        reference = self.material.reference(*compare.in_float64(args), **compare.in_float64(kwargs))
        copies = [compare.mapped((args, kwargs), lambda x: x.clone()) for _ in self.material.baselines]
        baselines = [way(*a, **k) for way, (a, k) in zip(self.material.baselines, copies, strict=True)]
        return reference, compare.targets(reference, baselines, self.material.returns)

    # -- the parts of a check

    def _probe_all(self, probes: list[Probe]) -> list[Outcome]:
        outcomes: list[Outcome] = []
        for probe in probes:
            outcomes.append(self._outcome(probe.name, probe))
            if self.load_failure or (outcomes[-1].ended and (outcomes[-1].ended.kind != "crashed" or self.starts >= _FRESH_STARTS)):
                break
        return outcomes

    def _again(self, outcomes: list[Outcome]) -> Outcome:
        """The first probe once more, then other numbers in the same memory: a remembered result shows."""
        other = self.material.probes(torch.Generator().manual_seed(self.seed + 1))
        first, second = outcomes[0].probe, other[0]
        before = self._outcome(first.name, first)
        outcome = self._outcome("the same call on changed data", second, again=True)
        outcome.stale = bool(before.reply and outcome.reply and _same_bits(before.reply.result, outcome.reply.result) and outcome.findings)
        return outcome

    def _properties(self, cases: list[Case]) -> list[tuple[Any, str]]:
        """Adds a case a property; returns the broken ones with what was said."""
        broken = []
        for i, item in enumerate(self.material.properties):
            began = time.monotonic()
            try:
                said = item.holds(self._call, torch.Generator().manual_seed(self.seed + 2 + i))
                status = "failed" if said else "passed"
            except _CallFailed as failed:
                said = diagnose.sentence(failed.outcome, self.limit, self.material.returns)
                status = "timeout" if failed.outcome.ended and failed.outcome.ended.kind == "timeout" else "failed"
            except (TypeError, ValueError, IndexError, AttributeError, RuntimeError) as error:
                said, status = f"what came back cannot be used ({type(error).__name__}: {str(error)[:120]}).", "failed"
            cases.append(Case(item.name, status, said or "", time.monotonic() - began))
            if said:
                broken.append((item, said))
        return broken

    def _call(self, *args: Any, layout: str = "contiguous", **kwargs: Any) -> Any:
        probe = Probe("a property", args, kwargs, layout)
        outcome = Outcome(probe.name, probe)
        try:
            process = self._alive()
            outcome.reply = process.call("answer", args, kwargs, layout, self.deadline)
        except Ended as ended:
            outcome.ended = ended
            self._close()
        if outcome.ended or outcome.reply.failure:
            raise _CallFailed(outcome)
        return outcome.reply.result

    def _rules(self, outcomes: list[Outcome], cases: list[Case]) -> list[tuple[Any, str]]:
        """Adds a case a rule; returns the broken ones with what was said."""
        broken = []
        for rule in self.material.rules:
            said = next((s for o in outcomes if o.reply is not None and (s := rule.broken(o.probe, o.reply.evidence))), None)
            status = ("needs_review" if rule.review else "failed") if said else "passed"
            cases.append(Case(f"resources: {rule.id.replace('-', ' ')}", status, diagnose._upper(said or "")))
            if said:
                broken.append((rule, diagnose._upper(said)))
        return broken

    def _compiled(self, cases: list[Case]) -> bool:
        """On a GPU the same probes once more, compiled. False where they failed and the verdict is made."""
        other = _Round(self.verdict, self.exercise, self.material, self.text, self.seed, self.judge, "compiled")
        try:
            outcomes = other._probe_all(self.material.probes(torch.Generator().manual_seed(self.seed)))
        finally:
            other._close()
        mine = [Case(f"{case.name} (compiled)", case.status, case.message, case.seconds) for case in map(other._case, outcomes)]
        cases += mine
        if other.load_failure is None and all(outcome.ok for outcome in outcomes):
            return True
        other._conclude(outcomes, None, [], [], cases)
        said = self.verdict.diagnosis
        self.verdict.diagnosis = Diagnosis(said.id, f"Right in the interpreter, wrong when compiled for the GPU. {said.message}")
        return False

    # -- the verdict

    def _case(self, outcome: Outcome) -> Case:
        if outcome.ok:
            return Case(outcome.name, "passed", "", outcome.seconds)
        if self.load_failure:
            return Case(outcome.name, "error", "the answer could not be loaded", outcome.seconds)
        timed_out = outcome.ended is not None and outcome.ended.kind == "timeout"
        return Case(outcome.name, "timeout" if timed_out else "failed", diagnose.sentence(outcome, self.limit, self.material.returns), outcome.seconds)

    def _conclude(self, outcomes, late, broken, rules, cases) -> None:
        verdict = self.verdict
        verdict.cases = cases
        if self.load_failure:
            verdict.status, verdict.diagnosis = "error", self._not_loaded()
            return
        failing = [outcome for outcome in outcomes if not outcome.ok]
        hard = [(rule, said) for rule, said in rules if not rule.review]
        if not failing and late is None and not broken and not hard:
            verdict.status, verdict.points = ("needs_review", 0) if rules else ("passed", self.exercise.points)
            if rules:
                verdict.diagnosis = Diagnosis(rules[0][0].id, f"{rules[0][1]} The values are right; a person needs to look at it.")
            return
        verdict.status = "timeout" if any(case.status == "timeout" for case in cases) else "failed"
        shown = (failing or ([late] if late else []) or [None])[0]
        self._excerpt(shown)
        if failing and (first := _unfit(failing)) is not None:
            self._excerpt(first)
            verdict.diagnosis = self._by_contract(first.id, diagnose.sentence(first, self.limit, self.material.returns), first)
        elif any(outcome.wrong_values for outcome in failing):
            verdict.diagnosis = self._wrong_values(outcomes, [o for o in failing if o.wrong_values])
        elif failing:
            verdict.diagnosis = self._by_contract(failing[0].id, diagnose.sentence(failing[0], self.limit, self.material.returns), failing[0])
        elif late is not None:
            verdict.diagnosis = self._late(late)
        elif broken:
            verdict.diagnosis = self._property(outcomes, *broken[0])
        else:
            verdict.diagnosis = self._by_contract(hard[0][0].id, hard[0][1])

    def _not_loaded(self) -> Diagnosis:
        failure = self.load_failure
        self.verdict.details["traceback"] = _traceback(failure)
        line = f" (line {failure['frames'][-1][0]}: `{failure['frames'][-1][2]}`)" if failure["frames"] else ""
        if failure["kind"] == "missing":
            return Diagnosis("missing", f"{diagnose._upper(failure['message'])}.")
        return Diagnosis("load", f"Your answer could not be loaded: {failure['type']}: {failure['message'][:300]}{line}. Each answer must run on its own, imports included.")

    def _by_contract(self, id: str, said: str, outcome: Outcome | None = None) -> Diagnosis:
        """A broken rule or contract: what was seen, then the teacher's sentence where the exercise has one."""
        mutant = diagnose.by_rule(self.material, id)
        if outcome is not None and outcome.reply is not None and outcome.reply.failure:
            self.verdict.details["traceback"] = _traceback(outcome.reply.failure)
        where = f" {self._where(outcome)}" if outcome is not None else ""
        return Diagnosis(mutant.id if mutant else id, f"{said} {mutant.message}{where}" if mutant else f"{said}{where}")

    def _where(self, outcome: Outcome) -> str:
        return f"Smallest failing input: {outcome.name}, seed {self.seed}."

    def _wrong_values(self, outcomes: list[Outcome], wrong: list[Outcome]) -> Diagnosis:
        first, where = wrong[0], self._where(wrong[0])
        mutant = self._mutants(outcomes).explaining(outcomes)
        if mutant:
            return Diagnosis(mutant.id, f"{diagnose.values(first, whole=False)} {mutant.message} {where}")
        if self._says_the_same(first):
            return Diagnosis("stale", f"Your function gave the same numbers for two different inputs of the same shape. A result must be computed from the arguments of this call. {where}")
        problems = [problem for outcome in outcomes if outcome.reply for problem in outcome.reply.problems]
        if problems:
            return self._by_contract(problems[0], f"{diagnose.values(first)} {diagnose.contract(problems)}", first)
        special = diagnose.not_finite(first)
        if special:
            return Diagnosis(special.id, f"{special.message} {where}")
        multiple = first.findings[0].multiple
        error = f" The largest error is {multiple:,.0f} times that of plain PyTorch." if 3 < multiple < 1e4 else ""
        return Diagnosis("unknown", f"{diagnose.values(first)}{error} None of the common mistakes explains it. {where}")

    def _mutants(self, outcomes: list[Outcome]) -> Mutants:
        launches = [launch for o in outcomes if o.reply for launch in o.reply.evidence.launches]
        constexprs = launches[0]["constexprs"] if launches else {}
        sizes = {k: v for k, v in constexprs.items() if isinstance(k, str) and k.startswith("BLOCK") and type(v) is int}
        return Mutants(self.exercise, self.material, self._start, self.judge.memo, self.seed, sizes)

    def _says_the_same(self, outcome: Outcome) -> bool:
        """Whether other numbers in the same shapes bring the very same result, though they should not."""
        if self.deadline < time.monotonic():
            return False
        probes = self.material.probes(torch.Generator().manual_seed(self.seed + 1))
        other = next((probe for probe in probes if probe.name == outcome.name), None)
        if other is None:
            return False
        second = self._outcome(other.name, other)
        finite = all(bool(leaf.isfinite().all()) for leaf in compare.leaves(outcome.reply.result) if isinstance(leaf, torch.Tensor))
        return bool(finite and second.reply and second.findings and _same_bits(outcome.reply.result, second.reply.result) and not _same_bits(outcome.reference, second.reference))

    def _late(self, late: Outcome) -> Diagnosis:
        if getattr(late, "stale", False):
            return Diagnosis("stale", "Called again with other numbers in the same tensors, your function returned the first call's result. Nothing may be remembered by a tensor's identity, address or shape.")
        if late.wrong_values:
            return Diagnosis("depends-on-earlier-calls", f"Right on the first call, wrong on the second: {diagnose.values(late)} What does your function keep between calls?")
        return self._by_contract(late.id, diagnose.sentence(late, self.limit, self.material.returns), late)

    def _property(self, outcomes: list[Outcome], item: Any, said: str) -> Diagnosis:
        generator_seed = self.seed + 2 + self.material.properties.index(item)

        def breaks(call) -> bool:
            try:
                return item.holds(call, torch.Generator().manual_seed(generator_seed)) is not None
            except Exception:  # a mutant that fails otherwise does not break this property
                return False

        self._close()
        mutant = self._mutants(outcomes).breaking(outcomes, breaks)
        text = f"{diagnose._upper(said)} ({item.name})"
        return Diagnosis(mutant.id, f"{text} {mutant.message}") if mutant else Diagnosis(item.diagnosis, text)

    def _excerpt(self, outcome: Outcome | None) -> None:
        """What the panel shows about the first failed probe."""
        if outcome is None:
            return
        details = self.verdict.details
        details.update(probe=outcome.name, shapes=_shapes(self.exercise, outcome.probe))
        if outcome.wrong_values:
            finding, target = outcome.findings[0], outcome.targets[outcome.findings[0].leaf]
            details.update(leaf=target.name, multiple=finding.multiple, expected=finding.expected, got=finding.got)
            if finding.wrong is not None:
                at = tuple(int(n) for n in finding.wrong.nonzero()[0])
                got = compare.leaves(outcome.reply.result)[finding.leaf]
                details.update(place=list(at), expected_row=_row(target.reference, at), got_row=_row(got, at))


def _unfit(failing: list[Outcome]) -> Outcome | None:
    """The first outcome that values cannot be asked about: no result, or one of the wrong form."""
    if failing[0].wrong_values or failing[0].right:
        ended = [o for o in failing if o.ended and o.ended.kind == "timeout"]
        return ended[0] if ended else None
    return failing[0]


def _as_laid_out(tree: Any, layout: str) -> Any:
    return compare.mapped(tree, lambda x: x[:1].expand_as(x) if x.dim() else x) if layout == "expanded" else tree


def _same_bits(one: Any, other: Any) -> bool:
    a, b = compare.leaves(one), compare.leaves(other)
    return len(a) == len(b) and all(torch.equal(x, y) if isinstance(x, torch.Tensor) and isinstance(y, torch.Tensor) else type(x) is type(y) and x == y for x, y in zip(a, b, strict=True))


def _traceback(failure: dict) -> str:
    """The answer's own frames, as Python prints them."""
    lines = [part for number, where, source in failure["frames"] for part in (f"  line {number}, in {where}", f"    {source}")]
    return "\n".join([*lines, f"{failure['type']}: {failure['message']}"])


def _row(x: torch.Tensor, at: tuple[int, ...]) -> list[str]:
    """Up to eight numbers of the row in which the first wrong place lies."""
    row = x[at[:-1]] if at else x.reshape(1)
    start = max(0, min(at[-1] - 3, row.shape[0] - 8)) if at else 0
    return [compare.number(value) for value in row[start : start + 8].tolist()]


def _shapes(exercise: Exercise, probe: Probe) -> list[str]:
    """The arguments of a probe in words: "x [2, 3] float32"."""
    node = next((n for n in ast.parse(exercise.solution).body if getattr(n, "name", None) == exercise.name), None)
    named = [arg.arg for arg in node.args.args] if isinstance(node, ast.FunctionDef) else []
    pairs = [*zip([*named, *[f"argument {i}" for i in range(len(named), len(probe.args))]], probe.args, strict=False), *probe.kwargs.items()]
    return [f"{name} {_shape(value)}" for name, value in pairs]


def _shape(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        return f"{list(value.shape)} {str(value.dtype).removeprefix('torch.')}"
    if hasattr(value, "_fields"):
        return f"{type(value).__name__}({', '.join(f'{name} {list(part.shape)}' for name, part in zip(value._fields, value, strict=True))})"
    if hasattr(value, "width"):
        return f"{list(value.x.shape)} in tiles of {value.width}"
    return str(value)[:60]


# ---------------------------------------------------------------- the process


def main() -> None:
    """Serve the client that started this process."""
    out = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")
    os.dup2(2, 1)  # whatever prints here must not end up among the verdicts
    requests: queue.Queue = queue.Queue()
    threading.Thread(target=_listen, args=(requests,), daemon=True).start()
    torch.set_num_threads(1)
    judge = Judge()
    out.write(json.dumps({"ready": True}) + "\n")
    while True:
        try:
            request = requests.get(timeout=IDLE)
        except queue.Empty:
            break
        verdict = judge.check(str(request.get("exercise")), str(request.get("text")), request.get("seed"))
        out.write(json.dumps({"id": request.get("id"), "verdict": asdict(verdict)}) + "\n")
    judge.close()


def _listen(requests: queue.Queue) -> None:
    for line in sys.stdin:
        requests.put(json.loads(line))
    os._exit(0)  # the client is gone; the fork server and every answer end with this process


if __name__ == "__main__":
    main()
