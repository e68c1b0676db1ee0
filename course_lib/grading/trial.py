"""One trial of one answer: every call that a check makes of it, and what each came to. Decides nothing.

Draws the probes, computes the float64 reference and the plain ways on each, sends the calls to the answer's process
(a fresh one after a crash), compares what comes back, runs the properties and the rules.
"""

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import torch

from course_lib.grading import compare, defaults
from course_lib.grading.probing import AnswerProcess, Ended
from course_lib.grading.sentences import Outcome, sentence, upper
from course_lib.grading.servers import Servers
from course_lib.grading.spec import Check, Probe, Property, Rule
from course_lib.grading.verdict import Case
from course_lib.source import Exercise

_FRESH_STARTS = 3  # answer processes a trial may use up
_COMPILING = 20.0  # seconds more where kernels are compiled: FlashAttention's probes need 22 variants of four kernels, 14 s of compiling


class _CallFailed(Exception):
    """A property's call of the answer brought no result; carries the outcome."""

    def __init__(self, outcome: Outcome):
        super().__init__("the answer failed")
        self.outcome = outcome


@dataclass
class Findings:
    """What a trial found. `late`: the second call on changed data, where it is not right."""

    outcomes: list[Outcome] = field(default_factory=list)
    cases: list[Case] = field(default_factory=list)
    late: Outcome | None = None
    properties: list[tuple[Property, str]] = field(default_factory=list)  # the broken ones, with what was said
    rules: list[tuple[Rule, str]] = field(default_factory=list)

    @property
    def failing(self) -> list[Outcome]:
        return [outcome for outcome in self.outcomes if not outcome.ok]


class Trial:
    """Calls of one answer. Use as a context manager: leaving it ends the answer's process."""

    def __init__(self, exercise: Exercise, material: Check, text: str, seed: int, servers: Servers, flavour: str = "interpret"):
        self.exercise, self.material, self.text, self.seed = exercise, material, text, seed
        self.servers, self.flavour = servers, flavour
        self.limit = material.seconds + (_COMPILING if flavour == "compiled" else 0.0)
        self.load_failure: dict | None = None
        self.printed = ""
        self.deadline = 0.0
        self._process: AnswerProcess | None = None
        self._starts = 0

    def run(self) -> Findings:
        """Probes, the call on changed data, properties, rules."""
        found = Findings(self.probe_all())
        found.cases = [self._case(outcome) for outcome in found.outcomes]
        if all(outcome.reply is not None for outcome in found.outcomes):
            again = self._again(found.outcomes[0].probe)
            found.late = None if again.ok else again
            found.cases.append(self._case(again))
        if self.load_failure is None and not any(outcome.ended for outcome in found.outcomes):
            found.properties = self._properties(found.cases)
        found.rules = self._rules(found.outcomes, found.cases, defaults.rules_of(self.exercise, self.material))
        return found

    def run_probes(self, others: Sequence["Trial"] = ()) -> Findings:
        """Only the probes, and the one rule that holds there too: the second time around, compiled. `others`: trials of the same answer that share them."""
        outcomes = self._shared([self, *others])
        cases = [self._case(outcome) for outcome in outcomes]
        found = Findings(outcomes, cases, rules=self._rules(outcomes, cases, (defaults.torch_does_the_work(self.material.allow),)))
        found.cases = [Case(f"{case.name} (compiled)", case.status, case.message, case.seconds) for case in cases]
        return found

    # -- calling the answer

    def start(self) -> AnswerProcess:
        """A process for this exercise's answers, nothing loaded."""
        device = "cuda" if self.flavour == "compiled" else "cpu"
        return AnswerProcess(self.servers, self.exercise.name, self.limit + 15, self.flavour, device, self.exercise.kind == "triton")

    def _alive(self) -> AnswerProcess:
        """A process with the answer loaded; Ended when there have been too many, or loading ended it."""
        if self._process is None:
            if self._starts >= _FRESH_STARTS:
                raise Ended("closed")
            self._starts += 1
            began = time.monotonic()
            self._process = self.start()
            self.deadline = (self.deadline or began + self.limit) + time.monotonic() - began  # starting is not the answer's time
            self.load_failure = self._process.load("answer", self.text, self.exercise.name, self.deadline, self.material.harness)
        return self._process

    def close(self) -> None:
        if self._process is not None:
            self._process.close()
            self.printed = self._process.output.text()
            self._process = None

    def __enter__(self) -> "Trial":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def outcome(self, name: str, probe: Probe, again: bool = False, compared: bool = True) -> Outcome:
        """Call the answer on a probe; compare what came back."""
        outcome, began = Outcome(name, probe, kernel=self.exercise.kind == "triton"), time.monotonic()
        try:
            process = self._alive()
            if self.load_failure is None:
                outcome.reply = process.call("answer", probe.args, probe.kwargs, probe.layout, self.deadline, again)
        except Ended as ended:
            outcome.ended = ended
            self.close()
        outcome.seconds = time.monotonic() - began
        if compared and outcome.reply is not None and not outcome.reply.failure and not outcome.devices:
            outcome.reference, outcome.targets = self._wanted(probe)
            outcome.findings = compare.judge(outcome.reply.result, outcome.reference, outcome.targets, self.material.returns)
        return outcome

    def _wanted(self, probe: Probe) -> tuple[Any, list[compare.Target]]:
        """The float64 reference and what each leaf must be, from the inputs as the answer got them."""
        args, kwargs = (_as_laid_out(tree, probe.layout) for tree in (probe.args, probe.kwargs))
        reference = self.material.reference(*compare.in_float64(args), **compare.in_float64(kwargs))
        copies = [compare.mapped((args, kwargs), lambda x: x.clone()) for _ in self.material.baselines]
        baselines = [way(*a, **k) for way, (a, k) in zip(self.material.baselines, copies, strict=True)]
        return reference, compare.targets(reference, baselines, self.material.returns)

    # -- the parts

    def probes(self, other: bool = False) -> list[Probe]:
        """The probes of this seed, or the same shapes with other numbers."""
        return self.material.probes(torch.Generator().manual_seed(self.seed + other))

    def _shared(self, trials: list["Trial"]) -> list[Outcome]:
        """The probes dealt out among trials that run at the same time; their outcomes in the probes' order."""
        probes, many = self.probes(), len(trials)
        with ThreadPoolExecutor(many) as pool:
            parts = list(pool.map(lambda trial, first: trial.probe_all(probes[first::many]), trials, range(many)))
        self.load_failure = next((trial.load_failure for trial in trials if trial.load_failure), None)
        dealt = {first + many * turn: outcome for first, part in enumerate(parts) for turn, outcome in enumerate(part)}
        return [dealt[number] for number in sorted(dealt)]

    def probe_all(self, probes: Sequence[Probe] | None = None) -> list[Outcome]:
        outcomes: list[Outcome] = []
        for probe in self.probes() if probes is None else probes:
            outcomes.append(self.outcome(probe.name, probe))
            ended = outcomes[-1].ended
            if self.load_failure or (ended and (ended.kind != "crashed" or self._starts >= _FRESH_STARTS)):
                break
        return outcomes

    def _again(self, first: Probe) -> Outcome:
        """The first probe once more, then other numbers in the same memory: a remembered result shows."""
        before = self.outcome("the same call again", first)
        if not before.ok:
            return before
        outcome = self.outcome("the same call on changed data", self.probes(other=True)[0], again=True)
        same = outcome.reply is not None and same_bits(before.reply.result, outcome.reply.result)
        outcome.stale = same and bool(outcome.findings)
        return outcome

    def property_generator(self, item: Property) -> torch.Generator:
        return torch.Generator().manual_seed(self.seed + 2 + self.material.properties.index(item))

    def _properties(self, cases: list[Case]) -> list[tuple[Property, str]]:
        """Adds a case a property; returns the broken ones with what was said."""
        broken = []
        for item in self.material.properties:
            began, status = time.monotonic(), "failed"
            try:
                said = item.holds(self._call, self.property_generator(item))
                status = "failed" if said else "passed"
            except _CallFailed as failed:
                said = sentence(failed.outcome, self.limit, self.material.returns)
                status = "timeout" if failed.outcome.timed_out else "failed"
            except (TypeError, ValueError, IndexError, AttributeError, RuntimeError) as error:  # the result has not the form it needs
                said = f"what came back cannot be used ({type(error).__name__}: {str(error)[:120]})."
            cases.append(Case(item.name, status, said or "", time.monotonic() - began))
            if said:
                broken.append((item, said))
        return broken

    def _call(self, *args: Any, layout: str = "contiguous", **kwargs: Any) -> Any:
        outcome = self.outcome("a property", Probe("a property", args, kwargs, layout), compared=False)
        if outcome.ended or outcome.reply.failure:
            raise _CallFailed(outcome)
        return outcome.reply.result

    def _rules(self, outcomes: list[Outcome], cases: list[Case], rules: tuple[Rule, ...]) -> list[tuple[Rule, str]]:
        """Adds a case a rule; returns the broken ones with what was said. Nothing was kept, and nothing broken, where nothing ran."""
        broken = []
        rules = rules if any(outcome.reply is not None for outcome in outcomes) else ()
        for rule in rules:
            said = next((s for o in outcomes if o.reply is not None and (s := rule.broken(o.probe, o.reply.evidence))), None)
            status = ("needs_review" if rule.review else "failed") if said else "passed"
            cases.append(Case(f"resources: {rule.id.replace('-', ' ')}", status, upper(said or "")))
            if said:
                broken.append((rule, upper(said)))
        return broken

    def _case(self, outcome: Outcome) -> Case:
        if outcome.ok:
            return Case(outcome.name, "passed", "", outcome.seconds)
        if self.load_failure:
            return Case(outcome.name, "error", "The answer could not be loaded.", outcome.seconds)
        return Case(outcome.name, "timeout" if outcome.timed_out else "failed", sentence(outcome, self.limit, self.material.returns), outcome.seconds)


def _as_laid_out(tree: Any, layout: str) -> Any:
    return compare.mapped(tree, lambda x: x[:1].expand_as(x) if x.dim() else x) if layout == "expanded" else tree


def same_bits(one: Any, other: Any) -> bool:
    """Whether two results are equal to the last bit."""
    a, b = compare.leaves(one), compare.leaves(other)
    return len(a) == len(b) and all(_same_leaf(x, y) for x, y in zip(a, b, strict=True))


def _same_leaf(x: Any, y: Any) -> bool:
    if isinstance(x, torch.Tensor) and isinstance(y, torch.Tensor):
        return torch.equal(x, y)
    return type(x) is type(y) and x == y
