"""From what a trial found to what a good teacher would say: one `Diagnosis`, the observed evidence first.

The order: what kept a result from coming at all; wrong form; wrong numbers (a named mistake, else what can be seen);
broken promises about the arguments; results that are remembered; properties; rules.
"""

from collections.abc import Callable

from course_lib.grading.mutants import Mutants, by_rule
from course_lib.grading.sentences import Outcome, at_line, contract, not_finite, sentence, upper, values
from course_lib.grading.spec import Property
from course_lib.grading.trial import Findings, Trial
from course_lib.grading.verdict import Diagnosis

NOT_KNOWN = "It is none of the mistakes this check knows by name."
_REMEMBERED = (
    "Called again with other numbers in the same tensors, your function returned the first call's result. "
    "Nothing may be remembered by a tensor's identity, address or shape."
)


def not_loaded(failure: dict) -> Diagnosis:
    """The text is Python, and running it failed."""
    if failure["kind"] == "missing":
        return Diagnosis("missing", f"{upper(failure['message'])}.")
    line = f" ({at_line(failure)})" if failure["frames"] else ""
    said = f"{failure['type']}: {failure['message'][:300]}{line}"
    return Diagnosis("load", f"Your answer could not be loaded: {said}. Each answer must run on its own, imports included.")


def speaking(found: Findings) -> Outcome | None:
    """The outcome that the diagnosis and the panel are about; None where every call is right and something else is broken."""
    failing = found.failing
    if not failing:
        return found.late
    return _unfit(failing) or next((outcome for outcome in failing if outcome.wrong_values), failing[0])


def _unfit(failing: list[Outcome]) -> Outcome | None:
    """The first outcome that cannot be asked about its numbers: no result came, or one of the wrong form."""
    if failing[0].wrong_values or failing[0].right:
        return next((outcome for outcome in failing if outcome.timed_out), None)
    return failing[0]


def diagnosed(trial: Trial, found: Findings, memo: dict) -> Diagnosis:
    """The diagnosis of a trial that found something. `memo` keeps what mutants gave, across checks."""
    failing, outcome = found.failing, speaking(found)
    if failing and _unfit(failing) is None and outcome.wrong_values:
        return _wrong_values(trial, found, outcome, memo)
    if failing:
        return _by_contract(trial, outcome.id, sentence(outcome, trial.limit, trial.material.returns), outcome)
    if outcome is not None:
        return _late(trial, outcome)
    broken = sorted(((rule, said) for rule, said in found.rules if not rule.review), key=lambda pair: pair[0].id != "shortcut")
    if found.properties and not (broken and broken[0][0].id == "shortcut"):  # a shortcut explains whatever else is odd
        return _property(trial, found, memo, *found.properties[0])
    rule, said = broken[0]
    return _by_contract(trial, rule.id, said)


def _where(trial: Trial, outcome: Outcome) -> str:
    return f"Smallest failing input: {outcome.name}, seed {trial.seed}."


def _by_contract(trial: Trial, id: str, said: str, outcome: Outcome | None = None) -> Diagnosis:
    """A broken rule or contract: what was seen, then the teacher's sentence where the exercise has one."""
    mutant = by_rule(trial.material, id, said)
    parts = [said, mutant.message if mutant else "", _where(trial, outcome) if outcome is not None else ""]
    return Diagnosis(mutant.id if mutant else id, " ".join(part for part in parts if part))


def _wrong_values(trial: Trial, found: Findings, first: Outcome, memo: dict) -> Diagnosis:
    where = _where(trial, first)
    mutant = _mutants(trial, found, memo).explaining(found.outcomes)
    told = next((said for item, said in found.properties if item.speaks), "")
    if told:
        return Diagnosis(mutant.id if mutant else "history", f"{told} {mutant.message if mutant else NOT_KNOWN}")
    if mutant:
        return Diagnosis(mutant.id, f"{values(first, whole=False)} {mutant.message} {where}")
    problems = [problem for outcome in found.outcomes if outcome.reply for problem in outcome.reply.problems]
    if problems:
        return _by_contract(trial, problems[0], f"{values(first)} {contract(problems)}", first)
    special = not_finite(first)
    if special:
        return Diagnosis(special[0], f"{special[1]} {where}")
    multiple = first.findings[0].multiple
    error = f" The largest error is {multiple:,.0f} times that of plain PyTorch." if 3 < multiple < 1e4 else ""
    return Diagnosis("unknown", f"{values(first)}{error} {NOT_KNOWN} {where}")


def _late(trial: Trial, late: Outcome) -> Diagnosis:
    if late.stale:
        return Diagnosis("stale", _REMEMBERED)
    if late.wrong_values:
        said = f"Right on the first call, wrong on the second: {values(late)} What does your function keep between calls?"
        return Diagnosis("depends-on-earlier-calls", said)
    return _by_contract(trial, late.id, sentence(late, trial.limit, trial.material.returns), late)


def _property(trial: Trial, found: Findings, memo: dict, item: Property, said: str) -> Diagnosis:
    def breaks(call: Callable) -> bool:
        try:
            return item.holds(call, trial.property_generator(item)) is not None
        except Exception:  # a mutant that fails in another way does not break this property
            return False

    mutant = _mutants(trial, found, memo).breaking(found.outcomes, breaks)
    text = f"{upper(said)} ({upper(item.name)}.)"
    return Diagnosis(mutant.id, f"{text} {mutant.message}") if mutant else Diagnosis(item.diagnosis, text)


def _mutants(trial: Trial, found: Findings, memo: dict) -> Mutants:
    """The exercise's mutants, with the tile sizes of the answer's own launch where it launched a kernel."""
    launches = [launch for outcome in found.outcomes if outcome.reply for launch in outcome.reply.evidence.launches]
    constexprs = launches[0]["constexprs"] if launches else {}
    sizes = {name: n for name, n in constexprs.items() if isinstance(name, str) and name.startswith("BLOCK") and type(n) is int}
    return Mutants(trial.exercise, trial.material, trial.start, memo, trial.seed, sizes)
