"""How far the grader can be trusted, in numbers: `make grader-report` writes benchmarks/results/grader_report.json and docs/grader-report.md.

    python -m tools.grader_report [--seeds 20] [--repeats 20] [--mutant-seeds N] [--mutant-repeats N] [--chapter N] [--workers 2]
    python -m tools.grader_report --class 200      grade a made-up class and put its figures into the report
    python -m tools.grader_report --check          whether the page says what the JSON says

Every mutant, every right answer and every solution of the ready chapters is graded under each seed, and again and again
under one seed. A run that was stopped goes on where it was, as long as the grader and its material are the same.
"""

import argparse
import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path

from tqdm import tqdm

from course_lib.chapters import chapter
from course_lib.grading import catalogue
from course_lib.grading.client import Judge
from course_lib.paths import ROOT
from course_lib.source import Exercise
from tools import grader_class, grader_numbers

RESULT, PAGE = ROOT / "benchmarks" / "results" / "grader_report.json", ROOT / "docs" / "grader-report.md"
JOURNAL = RESULT.with_name("grader_report.jsonl.tmp")
FIRST_SEED, REPEATED = 1000, 424_242  # seeds 1000, 1001, ...; the repeats have one of their own


@dataclass(frozen=True)
class Unit:
    """All the texts of one exercise under one seed, graded by one judge: what a mutant gave is computed once."""

    exercise: str
    phase: str  # "seeds" or "repeats"
    number: int
    scope: str = "all"  # "right": without the mutants

    @property
    def seed(self) -> int:
        return FIRST_SEED + self.number if self.phase == "seeds" else REPEATED

    @property
    def key(self) -> list:
        return [self.exercise, self.phase, self.number, self.scope]


def texts(exercise: Exercise) -> Iterator[tuple[str, str, str, str]]:
    """(what it is, its name, its text, what a right diagnosis says) of everything that is graded."""
    material = catalogue.checks(exercise.chapter)[exercise.name]
    yield "solution", "solution", catalogue.solution_text(exercise), ""
    for number, text in enumerate(material.right):
        yield "right", f"right {number}", f"{exercise.preamble}\n\n{text}", ""
    for mutant in material.mutants:
        yield "mutant", mutant.id, f"{exercise.preamble}\n\n{mutant.text(exercise.solution)}", mutant.message


def graded(unit: Unit, judge: Judge) -> dict:
    """A line of the journal: [what, name, status, diagnosis, own sentence, seconds] of each text."""
    rows = []
    for what, name, text, sentence in texts(catalogue.find(unit.exercise)):
        if unit.scope == "right" and what == "mutant":
            continue
        verdict = judge.check(unit.exercise, text, unit.seed)
        said = verdict.diagnosis
        own = bool(said and said.id == name and sentence in said.message)
        rows.append([what, name, verdict.status, said.id if said else None, own, round(verdict.seconds, 4)])
    return {"unit": unit.key, "rows": rows}


# ---------------------------------------------------------------- running, and going on


def fingerprint() -> str:
    """A hash of the grader and all its material: results of two versions are not mixed."""
    found = hashlib.sha256()
    places = [ROOT / "course_lib" / "grading", ROOT / "course_lib" / "checks", ROOT / "solutions"]
    for path in sorted(path for place in places for path in place.rglob("*.py")):
        found.update(str(path.relative_to(ROOT)).encode() + path.read_bytes())
    return found.hexdigest()[:16]


def planned(exercises: list[Exercise], phase: str, count: int, with_mutants: int) -> list[Unit]:
    return [Unit(e.name, phase, n, "all" if n < with_mutants else "right") for n in range(count) for e in exercises]


def measured(units: list[Unit], workers: int, journal: Path) -> list[dict]:
    """The lines of all units, from the journal where they are there."""
    done = _journal(journal)
    waiting = [unit for unit in units if tuple(unit.key) not in done]
    judges = _Judges()
    try:
        with ThreadPoolExecutor(workers) as pool, journal.open("a", encoding="utf-8") as file:
            futures = [pool.submit(lambda unit: graded(unit, judges.of(unit)), unit) for unit in waiting]
            try:
                for future in tqdm(as_completed(futures), total=len(units), initial=len(units) - len(waiting), unit="unit"):
                    line = future.result()
                    done[tuple(line["unit"])] = line
                    file.write(json.dumps(line) + "\n")
                    file.flush()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
    finally:
        judges.close()
    return [done[tuple(unit.key)] for unit in units]


class _Judges:
    """A judge a thread. Each repeat of mutants has a fresh one: what a judge remembers of a seed must not make verdicts look stable."""

    def __init__(self):
        self._mine, self._all = threading.local(), []

    def of(self, unit: Unit) -> Judge:
        wanted = unit.number if unit.phase == "repeats" and unit.scope == "all" else -1
        if getattr(self._mine, "wanted", None) != wanted:
            if hasattr(self._mine, "judge"):
                self._mine.judge.close()
            self._mine.judge, self._mine.wanted = Judge(), wanted
            self._all.append(self._mine.judge)
        return self._mine.judge

    def close(self) -> None:
        for judge in self._all:
            judge.close()


def _journal(path: Path) -> dict[tuple, dict]:
    """What an earlier run of this very grader left; anything else is thrown away."""
    lines = []
    if path.exists():
        for text in path.read_text(encoding="utf-8").splitlines():
            try:
                lines.append(json.loads(text))
            except ValueError:  # the line in which the run was stopped
                continue
    if not lines or lines[0].get("grader") != fingerprint():
        lines = [{"grader": fingerprint()}]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return {tuple(line["unit"]): line for line in lines[1:]}


# ---------------------------------------------------------------- the other sections


def held_out(exercises: list[Exercise], judge=None) -> dict:
    """Each mutant graded by a judge that does not know it: does it get a name that belongs to another mistake?

    Two entries of a list may be one mistake in two spellings, so a name is not always a wrong one; each is listed.
    """
    from course_lib.grading.judge import Judge as InThisProcess

    judge = judge or InThisProcess()
    named, silent, passed = {}, 0, []
    try:
        for exercise in tqdm(exercises, unit="exercise"):
            checks = catalogue.checks(exercise.chapter)
            whole = checks[exercise.name]
            try:
                for mutant in whole.mutants:
                    checks[exercise.name] = replace(whole, mutants=tuple(other for other in whole.mutants if other is not mutant))
                    verdict = judge.check(exercise.name, f"{exercise.preamble}\n\n{mutant.text(exercise.solution)}", FIRST_SEED)
                    said = verdict.diagnosis.id if verdict.diagnosis else None
                    if verdict.status == "passed":
                        passed.append(f"{exercise.name}, {mutant.id}")
                    elif said in {other.id for other in whole.mutants} - {mutant.id}:
                        named[f"{exercise.name}, {mutant.id}"] = said
                    else:
                        silent += 1
            finally:
                checks[exercise.name] = whole
    finally:
        judge.close()
    return {"mutants": len(named) + silent + len(passed), "named as another": len(named), "no name": silent, "passed": passed, "which": named}


def adversaries() -> dict | None:
    """The cases of tests/test_adversaries*.py, run; None where there are none."""
    files = sorted(str(path) for path in (ROOT / "tests").glob("test_adversaries*.py"))
    if not files:
        return None
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        subprocess.run([sys.executable, "-m", "pytest", "-q", "-m", "", f"--junitxml={report}", *files], cwd=ROOT, stdout=subprocess.DEVNULL)
        return _held(list(ElementTree.parse(report).getroot().iter("testcase")))


def _held(cases: list[ElementTree.Element]) -> dict:
    """How many cases of each test function held."""
    tests: dict[str, dict[str, int]] = {}
    failed = []
    for case in cases:
        row = tests.setdefault(case.get("name").split("[")[0].removeprefix("test_").replace("_", " "), {"cases": 0, "held": 0, "skipped": 0})
        kinds = {child.tag for child in case}
        row["cases"] += 1
        row["skipped"] += "skipped" in kinds
        row["held"] += not kinds & {"failure", "error", "skipped"}
        failed += [case.get("name")] if kinds & {"failure", "error"} else []
    return {"tests": tests, "not held": failed}


def class_of(size: int, number: int, workers: int, seed: int = 7) -> dict:
    """A made-up class, graded; and a sample of it graded alone."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        before = grader_class.hashes(ROOT / "course_lib")
        made = grader_class.make(folder / "class", size, number)
        began = time.monotonic()
        found = grader_class.graded(made, folder / "report.jsonl", workers, seed)
        minutes = (time.monotonic() - began) / 60
        result = grader_class.compared(made, found)
        sample = [student for student in made.expected if student in found][::13]
        same = grader_class.alone(made, sample, found, folder, seed)
        return {
            "chapter": number,
            "workers": workers,
            "minutes": round(minutes, 2),
            "seed": seed,
            **result,
            "submissions unchanged": grader_class.hashes(made.folder) == made.before,
            "course unchanged": grader_class.hashes(ROOT / "course_lib") == before,
            "graded alone": len(sample),
            "same alone": same,
        }


def environment(workers: int) -> dict:
    """Where and when this was measured."""
    from course_lib.commands.grade_report import versions
    from course_lib.grading.contain import containment

    commit = subprocess.run(["git", "rev-parse", "--short=12", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout.strip()
    cpu = next((line.split(":")[1].strip() for line in _lines(Path("/proc/cpuinfo")) if line.startswith("model name")), "unknown")
    return {
        "date": time.strftime("%Y-%m-%d"),
        "machine": f"CPU ({cpu}, {len(os.sched_getaffinity(0))} cores)",
        "versions": versions(),
        "grader": fingerprint(),
        "commit": commit or None,
        "workers": workers,
        "containment": containment()["sentence"],
        "load": round(os.getloadavg()[2], 1),
    }


def _lines(path: Path) -> Iterable[str]:
    return path.read_text().splitlines() if path.exists() else ()


# ---------------------------------------------------------------- the command


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.grader_report", description="measure the grader")
    parser.add_argument("--seeds", type=int, default=20, metavar="N")
    parser.add_argument("--repeats", type=int, default=20, metavar="N")
    parser.add_argument("--mutant-seeds", type=int, metavar="N", help="mutants under fewer seeds; default: --seeds")
    parser.add_argument("--mutant-repeats", type=int, metavar="N", help="mutants in fewer repeats; default: --repeats")
    parser.add_argument("--chapter", type=int, action="append", metavar="C", help="only these chapters; then nothing is written but what is printed")
    parser.add_argument("--workers", type=int, default=2, metavar="N")
    parser.add_argument("--class", type=int, dest="size", metavar="SIZE", help="grade a made-up class of this size instead")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 where the page has drifted from the JSON")
    arguments = parser.parse_args(argv)
    if arguments.check:
        return _check()
    report = json.loads(RESULT.read_text(encoding="utf-8")) if RESULT.exists() else {}
    if arguments.size:
        number = (arguments.chapter or [3])[0]
        report["class"] = {**environment(arguments.workers), **class_of(arguments.size, number, arguments.workers)}
        return _write(report)
    ready = [e for e in catalogue.exercises().values() if chapter(e.chapter).ready and (not arguments.chapter or e.chapter in arguments.chapter)]
    began = time.monotonic()
    counts = {"seeds": arguments.seeds, "repeats": arguments.repeats}
    counts |= {"mutant seeds": _least(arguments.mutant_seeds, arguments.seeds), "mutant repeats": _least(arguments.mutant_repeats, arguments.repeats)}
    units = [unit for phase in ("seeds", "repeats") for unit in planned(ready, phase, counts[phase], counts[f"mutant {phase}"])]
    lines = measured(units, arguments.workers, JOURNAL)
    numbers = grader_numbers.summary(ready, lines)
    if arguments.chapter:
        print(json.dumps(numbers["total"], indent=1))
        return 0
    made = {**environment(arguments.workers), **counts, "minutes": round((time.monotonic() - began) / 60, 1)}
    kept = {"class": report["class"]} if "class" in report else {}
    report = {**made, "command": _command(arguments), **numbers, "held out": held_out(ready), "adversaries": adversaries(), **kept}
    code = _write(report)
    JOURNAL.unlink()
    return code


def _command(arguments: argparse.Namespace) -> str:
    fewer = [
        f" --{what} {n}" for what, n in (("mutant-seeds", arguments.mutant_seeds), ("mutant-repeats", arguments.mutant_repeats)) if n is not None
    ]
    return f"python -m tools.grader_report --seeds {arguments.seeds} --repeats {arguments.repeats}{''.join(fewer)} --workers {arguments.workers}"


def _least(wanted: int | None, most: int) -> int:
    return most if wanted is None else min(wanted, most)


def _write(report: dict) -> int:
    RESULT.write_text(json.dumps(report, indent=1, ensure_ascii=True) + "\n", encoding="utf-8")
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(grader_numbers.page(report), encoding="utf-8")
    print(f"Written: {RESULT.relative_to(ROOT)}, {PAGE.relative_to(ROOT)}.")
    return 0


def _check() -> int:
    try:
        report = json.loads(RESULT.read_text(encoding="utf-8"))
        same = PAGE.read_text(encoding="utf-8") == grader_numbers.page(report)
    except OSError as error:
        print(f"grader_report: {re.sub('.*: ', '', str(error))} is missing; `make grader-report` writes it.", file=sys.stderr)
        return 1
    if not same:
        print("grader_report: docs/grader-report.md does not say what the JSON says; run `python -m tools.grader_report` again.", file=sys.stderr)
    if report.get("grader") != fingerprint():
        print("grader_report: the figures are of an earlier version of the grader or its material; `make grader-report` measures this one.")
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
