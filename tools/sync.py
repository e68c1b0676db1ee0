"""solutions/ -> exercises/ and the notebooks' exercise cells: one source, everything else generated from it.

    python -m tools.sync                  write what has drifted
    python -m tools.sync --check          write nothing; list the drift and exit 1
    python -m tools.sync --solved FOLDER  copies of the notebooks with the solutions in their cells

What a learner edited is never overwritten: every generated text is recorded by its hash where it stands (a comment at the
end of an exercises file, `metadata.course.stub` of a cell), and a text that is neither the recorded one nor the new one is theirs.
"""

import argparse
import ast
import hashlib
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path

import nbformat

from course_lib import disk
from course_lib.source import RECORD, Exercise, SourceError, digest, parse_exercises, recorded, stub_file
from tools.source_lint import all_problems

ROOT = Path(__file__).resolve().parent.parent
NEXT = re.compile(r"^# %% exercise (\w+) ")
_KINDS = {"statement": "Markdown", "exercise": "code"}
META = re.compile(r"^(core|more) · ")
TOP = '''\
"""{title}

Generated from solutions/{name} by `make sync`: the exercises as nobody has touched them yet.
You may edit this file. `course check NAME` takes an edited exercise over into answers/, where your work is kept.
"""'''


@dataclass
class Plan:
    """What a sync would do: whole new texts by path, and why; or why it must not."""

    files: dict[Path, str] = field(default_factory=dict)
    drift: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)


def sources(root: Path) -> dict[Path, list[Exercise]]:
    """The exercises of every solutions file. SourceError where one cannot be read, or breaks a rule of the format."""
    files = sorted((root / "solutions").glob("ch[0-9][0-9]_*.py"))
    found = {path: _read_source(path) for path in files}
    wrong = all_problems([exercise for exercises in found.values() for exercise in exercises])
    if wrong:
        raise SourceError("\n".join(wrong))
    return found


def _read_source(path: Path) -> list[Exercise]:
    text = path.read_text(encoding="utf-8")
    try:
        ast.parse(text)
    except SyntaxError as error:
        raise SourceError(f"solutions/{path.name}, line {error.lineno}: {error.msg}: {(error.text or '').strip()}") from None
    return parse_exercises(text, int(path.name[2:4]), f"solutions/{path.name}")


# ---- exercises/ ----


def exercises_text(source: Path, number: int) -> str:
    """The pristine exercises file of one solutions file, its record included."""
    text = source.read_text(encoding="utf-8")
    node = ast.parse(text).body[0]
    lines = text.splitlines()
    title = (ast.get_docstring(ast.parse(text)) or source.stem).splitlines()[0]
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        lines[node.lineno - 1 : node.end_lineno] = TOP.format(title=title, name=source.name).splitlines()
    body = stub_file("\n".join(lines) + "\n", number, f"solutions/{source.name}").rstrip("\n") + "\n"
    record = ", ".join(f"{name} {digest(section)}" for name, section in sections(body).items())
    return f"{body}\n\n{RECORD} {record}\n"


def sections(text: str) -> dict[str, str]:
    """An exercises file cut at its exercise headers; what comes before the first is named `top`."""
    found: dict[str, list[str]] = {"top": []}
    current = "top"
    for line in text.splitlines():
        if line.startswith(RECORD):
            continue
        header = NEXT.match(line)
        if header:
            current = header[1]
        found.setdefault(current, []).append(line)
    return {name: "\n".join(lines).strip("\n") + "\n" for name, lines in found.items()}


def edited_sections(old: str, new: str) -> list[str]:
    """The sections of an exercises file that somebody changed by hand: neither as recorded nor as they would be written now."""
    known, fresh = recorded(old), sections(new)
    return [name for name, text in sections(old).items() if digest(text) not in (known.get(name), digest(fresh.get(name, "")))]


def _plan_exercises(root: Path, source: Path, exercises: list[Exercise], plan: Plan) -> None:
    path = root / "exercises" / source.name
    new = exercises_text(source, int(source.name[2:4]))
    old = path.read_text(encoding="utf-8") if path.exists() else ""
    if old == new:
        return
    for name in edited_sections(old, new) if old else []:
        plan.refused.append(
            f"exercises/{source.name}: {name} was edited by hand; it would be lost. "
            f"`course check {name}` takes it over into answers/; then delete the file."
        )
    before, after = sections(old), sections(new)
    changed = [name for name in {**after, **before} if digest(before.get(name, "")) != digest(after.get(name, ""))]
    plan.drift.append(f"exercises/{source.name}: {', '.join(changed) or 'its record'}")
    plan.files[path] = new


# ---- notebooks ----


def cell_id(stem: str, place: str) -> str:
    """A cell id that depends on nothing but where the cell stands, so that generating twice changes nothing."""
    return hashlib.sha1(f"{stem}/{place}".encode()).hexdigest()[:12]


def tagged(cell: dict, kind: str) -> str | None:
    """The NAME of a tag `kind:NAME`, or None."""
    tags = cell.get("metadata", {}).get("tags", [])
    return next((tag.split(":", 1)[1] for tag in tags if tag.startswith(f"{kind}:")), None)


def exercise_cell(exercise: Exercise, solved: bool = False) -> str:
    """The text of an exercise's code cell."""
    return f"{(exercise.solution if solved else exercise.stub).rstrip()}\n\ncheck({exercise.name})"


def statement_head(exercise: Exercise) -> list[str]:
    """The first two lines of an exercise's statement cell."""
    points = "1 point" if exercise.points == 1 else f"{exercise.points} points"
    return [f"### Exercise: {exercise.name}", f"{exercise.level} · {exercise.minutes} minutes · {points}"]


def with_head(text: str, exercise: Exercise) -> str:
    """A statement cell with its first two lines set, and everything below them as it was."""
    lines = text.splitlines()
    rest = lines[1:] if lines and lines[0].startswith("#") else lines
    rest = rest[1:] if rest and META.match(rest[0]) else rest
    gap = [""] if rest and rest[0].strip() else []
    return "\n".join([*statement_head(exercise), *gap, *rest])


def edited_cell(cell: dict, fresh: str) -> bool:
    """Whether an exercise cell holds something that sync did not write."""
    recorded = cell["metadata"].get("course", {}).get("stub")
    lines, fresh_lines = ([line.rstrip() for line in text.splitlines() if line.strip()] for text in (cell["source"], fresh))
    return bool(lines) and lines != fresh_lines and digest(cell["source"]) != recorded


def _sync_cell(cell: dict, exercise: Exercise, where: str, plan: Plan) -> bool:
    """Bring one exercise or statement cell up to date; True when something changed."""
    kind = "exercise" if tagged(cell, "exercise") else "statement"
    if (cell["cell_type"] == "code") != (kind == "exercise"):
        plan.refused.append(f"{where}: the cell tagged {kind}:{exercise.name} must be a {'code' if kind == 'exercise' else 'markdown'} cell")
        return False
    before = (cell["source"], dict(cell["metadata"].get("course", {})), cell.get("id"))
    cell["id"] = f"{kind}-{exercise.name}"[:64]
    if kind == "statement":
        cell["source"] = with_head(cell["source"], exercise)
    else:
        fresh = exercise_cell(exercise)
        if edited_cell(cell, fresh):
            plan.refused.append(
                f"{where}: the cell of {exercise.name} was edited by hand; it would be lost. "
                "An answer that passed stands in answers/. Empty the cell to get the stub back."
            )
        cell["source"] = fresh
        cell["metadata"]["course"] = {"stub": digest(fresh)}
    return before != (cell["source"], dict(cell["metadata"].get("course", {})), cell["id"])


def read_notebook(path: Path) -> nbformat.NotebookNode:
    """A notebook; SourceError in a sentence where the file is none."""
    try:
        notebook = nbformat.v4.reads(path.read_text(encoding="utf-8"))  # not nbformat.reads: it repairs ids as it goes
    except OSError as error:
        raise SourceError(f"{path.name}: it cannot be read ({error.strerror})") from None
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        raise SourceError(f"{path.name}: it is not a notebook ({str(error).splitlines()[0][:120]})") from None
    if notebook.get("nbformat") != 4 or not isinstance(notebook.get("cells"), list):
        raise SourceError(f"{path.name}: it is not a notebook of format 4")
    return notebook


def notebook_of(root: Path, chapter: int) -> Path | None:
    """The chapter's notebook, or None while it has none."""
    return next(iter(sorted((root / "notebooks").glob(f"{chapter:02d}_*.ipynb"))), None)


def _plan_notebook(path: Path, exercises: list[Exercise], plan: Plan) -> None:
    notebook = read_notebook(path)
    where = f"notebooks/{path.name}"
    by_name = {exercise.name: exercise for exercise in exercises}
    seen: set[tuple[str, str]] = set()
    changed = []
    for position, cell in enumerate(notebook.cells):
        kind = "exercise" if tagged(cell, "exercise") else "statement"
        name = tagged(cell, kind)
        if name is None:
            if not cell.get("id"):
                cell["id"] = cell_id(path.stem, str(position))
                changed.append(f"the id of cell {position + 1}")
            continue
        if name not in by_name:
            plan.refused.append(f"{where}: cell {position + 1} is tagged {kind}:{name}, and solutions/ has no such exercise in this chapter")
        elif (kind, name) in seen:
            plan.refused.append(f"{where}: two cells are tagged {kind}:{name}")
        elif _sync_cell(cell, by_name[name], where, plan):
            changed.append(f"{kind}:{name}")
        seen.add((kind, name))
    missing = [f"{kind}:{name}" for name in by_name for kind in ("statement", "exercise") if (kind, name) not in seen]
    plan.refused += [
        f"{where}: no cell is tagged {tag}; put an empty {_KINDS[tag.split(':')[0]]} cell with that tag where it belongs" for tag in missing
    ]
    if changed:
        plan.drift.append(f"{where}: {', '.join(changed)}")
        plan.files[path] = nbformat.v4.writes(notebook) + "\n"


# ---- the whole ----


def plan(root: Path = ROOT) -> Plan:
    """What has drifted under this root, and what must not be touched. Reads only."""
    result = Plan()
    found = sources(root)
    for source, exercises in found.items():
        _plan_exercises(root, source, exercises, result)
        path = notebook_of(root, int(source.name[2:4]))
        if path and exercises:
            _plan_notebook(path, exercises, result)
    names = {source.name for source in found}
    strays = [path.name for path in sorted((root / "exercises").glob("*.py")) if path.name not in names]
    result.refused += [f"exercises/{name}: there is no solutions/{name}; delete it" for name in strays]
    return result


def write(result: Plan) -> None:
    """Write what a plan holds; each file whole or not at all."""
    for path, text in result.files.items():
        disk.replace(path, text)


def solved(root: Path, folder: Path) -> list[Path]:
    """Write copies of all notebooks with the solutions in their exercise cells; returns their paths."""
    by_name = {exercise.name: exercise for exercises in sources(root).values() for exercise in exercises}
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for path in sorted((root / "notebooks").glob("*.ipynb")):
        notebook = read_notebook(path)
        for cell in notebook.cells:
            name = tagged(cell, "exercise")
            if name in by_name:
                cell["source"] = exercise_cell(by_name[name], solved=True)
        target = folder / path.name
        target.write_text(nbformat.v4.writes(notebook) + "\n", encoding="utf-8")
        written.append(target)
    return written


def main(argv: list[str] | None = None, root: Path = ROOT) -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.sync", description="solutions/ -> exercises/ and notebook cells")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when something has drifted")
    parser.add_argument("--solved", type=Path, metavar="FOLDER", help="write copies of the notebooks with solutions in their cells")
    arguments = parser.parse_args(argv)
    try:
        if arguments.solved:
            for path in solved(root, arguments.solved):
                print(path)
            return 0
        result = plan(root)
        if not (result.refused or arguments.check):
            write(result)
    except (SourceError, UnicodeDecodeError) as error:
        print(f"sync: nothing was written.\n{error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"sync: {error.filename}: {error.strerror}", file=sys.stderr)
        return 1
    return _report(result, arguments.check)


def _report(result: Plan, check: bool) -> int:
    for line in result.refused:
        print(f"refused   {line}", file=sys.stderr)
    for line in result.drift:
        print(f"{'drifted' if check or result.refused else 'written':9} {line}")
    if result.refused:
        print("sync: nothing was written; mend what is listed as refused first.", file=sys.stderr)
        return 1
    if check and result.drift:
        print("sync: run `make sync`; the source is solutions/.", file=sys.stderr)
        return 1
    print("sync: everything is in step with solutions/." if not result.drift else f"sync: {len(result.files)} files written.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
