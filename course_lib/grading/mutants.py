"""The named wrong solutions: which of them makes the very mistake that an answer made? Runs mutants in children.

A mutant is named only when it gives the answer's own wrong results on at least 90 % of the failing probes and right ones
on the others. At most six probes and three seconds, more where other work keeps the machine busy; what a mutant gave is remembered.
"""

import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from course_lib.grading import compare
from course_lib.grading.load import busy
from course_lib.grading.probing import AnswerProcess, Ended, Reply
from course_lib.grading.sentences import Outcome
from course_lib.grading.spec import Check, Mutant
from course_lib.source import Exercise

MUTANT_PROBES, MUTANT_SECONDS, EXPLAINED = 6, 3.0, 0.9


def allowed_seconds() -> float:
    """Three seconds of a machine that has nothing else to do, more on a busy one."""
    return MUTANT_SECONDS * busy()


@dataclass
class Mutants:
    """The named wrong solutions of one exercise, run against what an answer did."""

    exercise: Exercise
    material: Check
    start: Callable[[], AnswerProcess]
    memo: dict
    seed: int
    sizes: dict = field(default_factory=dict)  # tile sizes of the answer's own launch

    def __post_init__(self):
        self._process: AnswerProcess | None = None
        self._loaded: set[str] = set()
        self.deadline = time.monotonic() + allowed_seconds()

    def explaining(self, outcomes: list[Outcome]) -> Mutant | None:
        """The first mutant that gives the answer's own wrong results on the failing probes, and right ones elsewhere."""
        chosen = sorted(_chosen(outcomes), key=_size)  # most mutants are ruled out by a small probe, and time is short
        return self._first(lambda mutant: self._explains(mutant, chosen))

    def breaking(self, outcomes: list[Outcome], breaks: Callable[[Callable], bool]) -> Mutant | None:
        """The first mutant that is right on the probes and breaks the same property."""
        chosen = _chosen(outcomes)
        return self._first(lambda mutant: all(self._is_right(mutant, o) for o in chosen) and breaks(lambda *a, **k: self.call(mutant, *a, **k)))

    def _first(self, fits: Callable[[Mutant], bool]) -> Mutant | None:
        try:
            for mutant in self.material.mutants:
                if time.monotonic() > self.deadline:
                    return None
                if mutant.rule is None and fits(mutant):
                    return mutant
            return None
        finally:
            self.close()

    def _explains(self, mutant: Mutant, chosen: list[Outcome]) -> bool:
        """Right where the answer is right, and its mistake on nearly all the other probes."""
        failing, misses = sum(not outcome.right for outcome in chosen), 0
        for outcome in chosen:
            if outcome.right and not self._is_right(mutant, outcome):
                return False
            misses += not outcome.right and not self._same_mistake(mutant, outcome)
            if misses > (1 - EXPLAINED) * failing:
                return False
        return failing > 0

    def _same_mistake(self, mutant: Mutant, outcome: Outcome) -> bool:
        reply = self._reply(mutant, outcome)
        if reply is None or outcome.reply is None:
            return False
        if reply.failure or outcome.reply.failure:
            return bool(reply.failure and outcome.reply.failure and reply.failure["type"] == outcome.reply.failure["type"])
        if not compare.judge(reply.result, outcome.reference, outcome.targets):
            return False
        return compare.close(outcome.reply.result, reply.result, outcome.targets)

    def _is_right(self, mutant: Mutant, outcome: Outcome) -> bool:
        reply = self._reply(mutant, outcome)
        return reply is not None and not reply.failure and not compare.judge(reply.result, outcome.reference, outcome.targets)

    def _reply(self, mutant: Mutant, outcome: Outcome) -> Reply | None:
        key = (self.exercise.name, self.seed, mutant.id, outcome.name, tuple(sorted(self.sizes.items())))
        if key not in self.memo:
            probe = outcome.probe
            try:
                self.memo[key] = self._call(mutant, probe.args, probe.kwargs, probe.layout)
            except Ended:
                self.close()
                self.memo[key] = None
        return self.memo[key]

    def call(self, mutant: Mutant, *args: Any, layout: str = "contiguous", **kwargs: Any) -> Any:
        reply = self._call(mutant, args, kwargs, layout)
        if reply.failure:
            raise ValueError(reply.failure["message"])
        return reply.result

    def _call(self, mutant: Mutant, args: tuple, kwargs: dict, layout: str) -> Reply:
        if self._process is None:
            began = time.monotonic()
            self._process, self._loaded = self.start(), set()
            self.deadline += time.monotonic() - began  # starting is not running: the first check of a session starts from cold
        if mutant.id not in self._loaded:
            failure = self._process.load(mutant.id, self._text(mutant), self.exercise.name, self.deadline + 1, self.material.harness)
            if failure:
                return Reply(failure=failure)
            self._loaded.add(mutant.id)
        return self._process.call(mutant.id, args, kwargs, layout, self.deadline + 1)

    def _text(self, mutant: Mutant) -> str:
        text = f"{self.exercise.preamble}\n\n{mutant.text(self.exercise.solution)}"
        for name, value in self.sizes.items():
            text = re.sub(rf"\b{re.escape(name)}(\s*=\s*)\d+", rf"{name}\g<1>{value}", text)
        return text

    def close(self) -> None:
        if self._process is not None:
            self._process.close()
            self._process = None


def _chosen(outcomes: list[Outcome]) -> list[Outcome]:
    """At most six probes: those meant for it; where none of these fails, the failing ones too."""
    usable = [o for o in outcomes if o.reply is not None]
    chosen = [o for o in usable if o.probe.diagnose][:MUTANT_PROBES]
    if all(o.right for o in chosen):
        chosen = [o for o in usable if not o.right][:2] + chosen[: MUTANT_PROBES - 2]
    return chosen


def _size(outcome: Outcome) -> int:
    """How many numbers the probe has: what a call on it costs, roughly."""
    return sum(x.numel() for x in compare.leaves([outcome.probe.args, outcome.probe.kwargs]) if isinstance(x, Tensor))


def by_rule(material: Check, id: str, said: str = "") -> Mutant | None:
    """The mutant that stands for this rule or contract diagnosis and fits what was seen, if the exercise has one."""
    return next((mutant for mutant in material.mutants if mutant.rule == id and mutant.said in said), None)
