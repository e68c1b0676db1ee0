"""The grading material of every chapter, whichever there are: complete, its mistakes caught and named, its right answers accepted.

A new chapter needs no line here: its exercises come from solutions/, its material from course_lib/checks.
"""

import pytest

from course_lib.grading import catalogue
from course_lib.grading.spec import Check, Mutant
from course_lib.source import Exercise, fingerprint

SEEDS = (11, pytest.param(2027, marks=pytest.mark.slow))  # `make test` takes the first, `.ci/run` both
EXERCISES = list(catalogue.exercises().values())
CHAPTERS = sorted({exercise.chapter for exercise in EXERCISES})


def material(exercise: Exercise) -> Check:
    return catalogue.checks(exercise.chapter)[exercise.name]


def checked(exercise: Exercise) -> Check | None:
    """Its material, if it has any: the lists below are made before the test that asks for it runs."""
    return catalogue.checks(exercise.chapter).get(exercise.name)


MUTANTS = [(exercise, mutant) for exercise in EXERCISES if checked(exercise) for mutant in material(exercise).mutants]
RIGHT = [(exercise, number) for exercise in EXERCISES if checked(exercise) for number in range(len(material(exercise).right))]
each_exercise = pytest.mark.parametrize("exercise", EXERCISES, ids=lambda exercise: exercise.name)
each_seed = pytest.mark.parametrize("seed", SEEDS)


def seeded(cases: list[tuple], ids: list[str], every: int) -> list:
    """Cases with their seeds: of an exercise with a kernel the second seed takes one in `every`, so that CI stays under an hour.
    `make test` takes the first seed, and of kernels every fourth case. `make grader-report` takes all, on as many seeds as it is asked."""
    found = []
    for position, ((exercise, case), id) in enumerate(zip(cases, ids, strict=True)):
        kernel = exercise.kind == "triton"
        late = kernel and position % 4 != 0
        found.append(pytest.param(exercise, case, 11, id=f"{id}-11", marks=pytest.mark.slow if late else ()))
        if not kernel or position % every == 0:
            found.append(pytest.param(exercise, case, 2027, id=f"{id}-2027", marks=pytest.mark.slow))
    return found


def complete(exercise: Exercise, text: str) -> str:
    return f"{exercise.preamble}\n\n{text}"


def test_there_are_exercises():
    assert EXERCISES and MUTANTS and RIGHT


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_material_and_exercises_belong_together(chapter):
    assert sorted(catalogue.checks(chapter)) == sorted(exercise.name for exercise in catalogue.of_chapter(chapter))


@each_exercise
def test_material_is_complete(exercise):
    check = material(exercise)
    assert len(exercise.hints) == 3 and all(exercise.hints), "a ladder has three hints"
    assert len(check.mutants) >= 4 and len(check.baselines) >= 3 and len(check.right) >= 3
    assert len({mutant.id for mutant in check.mutants}) == len(check.mutants), "two mutants have one id"


@each_exercise
def test_mutants_and_right_answers_are_texts_of_their_own(exercise):
    check = material(exercise)
    texts = [exercise.solution, *(mutant.text(exercise.solution) for mutant in check.mutants), *check.right]
    for text in texts:
        compile(complete(exercise, text), exercise.name, "exec")
    assert len({fingerprint(text) for text in texts}) == len(texts), "two of them are the same code"


def accepted(judge, exercise: Exercise, text: str, seed: int) -> None:
    verdict = judge.check(exercise.name, text, seed=seed)
    assert verdict.status == "passed" and verdict.points == exercise.points, (verdict.diagnosis, verdict.details)


@each_seed
@each_exercise
def test_the_solution_passes(judge, exercise, seed):
    accepted(judge, exercise, catalogue.solution_text(exercise), seed)


@pytest.mark.parametrize(("exercise", "number", "seed"), seeded(RIGHT, [f"{exercise.name}-{number}" for exercise, number in RIGHT], 3))
def test_right_answers_in_other_styles_pass(judge, exercise, number, seed):
    accepted(judge, exercise, complete(exercise, material(exercise).right[number]), seed)


@pytest.mark.parametrize(("exercise", "mutant", "seed"), seeded(MUTANTS, [f"{exercise.name}-{mutant.id}" for exercise, mutant in MUTANTS], 6))
def test_every_mutant_comes_back_with_its_own_sentence(judge, exercise: Exercise, mutant: Mutant, seed):
    verdict = judge.check(exercise.name, complete(exercise, mutant.text(exercise.solution)), seed=seed)
    assert verdict.status in ("failed", "timeout") and verdict.points == 0, f"{mutant.id} survives"
    assert verdict.diagnosis.id == mutant.id, f"{mutant.id} is taken for {verdict.diagnosis}"
    assert mutant.message in verdict.diagnosis.message
