"""What the source of an exercise must be like before anything is generated from it. Reads text; writes nothing."""

import re

from course_lib.source import Exercise

_TRIVIAL = re.compile(r"^\W*$|^(else|try|finally|return|pass|continue|break)\b\W*$")


def regions(block: str) -> list[list[str]]:
    """The solution regions of a block: the lines between `# solution` and `# instead` or `# end`."""
    found: list[list[str]] = []
    inside = False
    for line in block.splitlines():
        word = line.strip()
        if word == "# solution":
            found.append([])
            inside = True
        elif word in ("# instead", "# end"):
            inside = False
        elif inside:
            found[-1].append(line)
    return found


def leaks(exercise: Exercise) -> list[str]:
    """Lines of a solution region that stand in the stub as well, and so would give the answer away."""
    given = {line.strip() for line in exercise.stub.splitlines()}
    taught = [line.strip() for region in regions(exercise.block) for line in region]
    return [line for line in taught if line in given and not _TRIVIAL.match(line)]


def problems(exercise: Exercise) -> list[str]:
    """Everything that is wrong with one exercise, as sentences; an empty list when nothing is."""
    name, statement = exercise.name, exercise.statement
    found = [f"{name}: the stub shows a line of its solution: {line!r}" for line in leaks(exercise)]
    if len(exercise.hints) != 3:
        found.append(f"{name}: it has {len(exercise.hints)} hints; a ladder has three")
    found += [f"{name}: hint {number} is empty" for number, hint in enumerate(exercise.hints, start=1) if not hint]
    if not regions(exercise.block):
        found.append(f"{name}: it has no '# solution' region")
    found += [f"{name}: its solution region {n} is empty" for n, region in enumerate(regions(exercise.block), start=1) if not "".join(region).strip()]
    if not statement:
        found.append(f"{name}: it has no docstring; the docstring is the statement")
        return found
    if not re.search(r"^\s*Source:\s*\S", statement, re.MULTILINE):
        found.append(f"{name}: its docstring has no 'Source:' line")
    if not re.search(r"^\s*(returns|yields)\b", statement, re.MULTILINE):
        found.append(f"{name}: its docstring has no 'returns' line")
    if exercise.kind in ("torch", "triton") and not re.search(r"\[[^\]]*\]", statement):
        found.append(f"{name}: its docstring names no shape, such as [..., N]")
    return found


def all_problems(exercises: list[Exercise]) -> list[str]:
    """The problems of all exercises together, a name used twice included."""
    seen: dict[str, int] = {}
    found = []
    for exercise in exercises:
        if exercise.name in seen:
            found.append(f"{exercise.name}: the name is used in chapter {seen[exercise.name]:02d} and in chapter {exercise.chapter:02d}")
        seen[exercise.name] = exercise.chapter
        found += problems(exercise)
    return found
