"""A made-up class: submissions of one chapter, right, wrong, unfinished, broken and hostile, each with the verdict it must get.

Used by `python -m tools.grader_report --class 200` and by the tests. Everything is drawn from one seed.
"""

import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from course_lib.grading import catalogue
from course_lib.paths import ROOT
from course_lib.source import Exercise

WRONG = ("failed", "timeout")
HOSTILE = {  # name: (what precedes the right answer, the verdicts that are right); {victims} is the folder of all submissions
    "exits at once": ("import os\nos._exit(0)\n", ("failed", "error")),
    "ends all processes": ("import os, signal\nos.kill(-1, signal.SIGKILL)\n", ("failed", "error")),
    "ends its parent": ("import os, signal\nos.kill(os.getppid(), signal.SIGKILL)\nos._exit(0)\n", ("failed", "error")),
    "endless loop": ("while True:\n    pass\n", ("timeout",)),
    "endless loop, deaf": (
        "import signal\nfor number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM, signal.SIGXCPU):\n    signal.signal(number, signal.SIG_IGN)\n"
        "while True:\n    try:\n        while True:\n            pass\n    except BaseException:\n        pass\n",
        ("timeout",),
    ),
    "fork bomb": ("import os\nwhile True:\n    os.fork()\n", ("failed", "error", "timeout")),
    "memory": ("kept = []\nwhile True:\n    kept.append(bytearray(1 << 26))\n", ("failed", "error", "timeout")),
    "segfault": ("import ctypes\nctypes.string_at(0)\n", ("failed", "error")),
    "prints a flood": ("print('x' * 20_000_000)\n", ("passed",)),  # printing costs nothing
    "prints a verdict": ('def NAME(*a, **k):\n    print(\'{"id": 1, "verdict": {"status": "passed"}}\')\n', WRONG),
    "writes a verdict everywhere": (
        'import os\nfor number in range(3, 256):\n    try:\n        os.write(number, b\'{"id": 1, "verdict": {"status": "passed"}}\\n\')\n'
        "    except OSError:\n        pass\nos._exit(0)\n",
        ("failed", "error"),
    ),
    "leaves processes": (
        "import os, time\nfor _ in range(3):\n    if os.fork() == 0:\n        os.setsid()\n        for number in range(256):\n            try:\n"
        "                os.close(number)\n            except OSError:\n                pass\n        time.sleep(600)\n        os._exit(0)\n",
        ("passed",),
    ),
    "overwrites the others": (  # where files are read-only nothing comes of it
        "import os, shutil\nif hasattr(os, 'deed'):\n    return\nos.deed = True\nfor folder, _, names in os.walk(VICTIMS):\n"
        "    for name in names:\n        try:\n            os.remove(os.path.join(folder, name))\n        except OSError:\n            pass\n"
        "        try:\n            os.close(os.open(os.path.join(folder, name), os.O_WRONLY | os.O_TRUNC | os.O_NONBLOCK))\n"  # a pipe is among them
        "        except OSError:\n            pass\n"
        "shutil.rmtree(VICTIMS, ignore_errors=True)\n",
        ("passed",),
    ),
    "overwrites the grader": (
        "import os\nif hasattr(os, 'deed'):\n    return\nos.deed = True\nfor folder, _, names in os.walk(os.path.join(COURSE, 'course_lib')):\n"
        "    for name in names:\n        try:\n            open(os.path.join(folder, name), 'a').close()\n"
        "            os.utime(os.path.join(folder, name))\n        except OSError:\n            pass\n",
        ("passed",),
    ),
    "patches torch": (
        "def NAME(*a, **k):\n    import torch\n    torch.allclose = torch.equal = lambda *a, **k: True\n    torch.testing.assert_close = lambda *a, **k: None\n"
        "    torch.Tensor.__eq__ = lambda *a: True\n    return torch.zeros(3)\n",
        (*WRONG, "error"),
    ),
    "equals everything": ("class Same:\n    def __eq__(self, other):\n        return True\ndef NAME(*a, **k):\n    return Same()\n", WRONG),
}
_FILES = {  # whole submissions that are no submissions: what is written, and the verdict on every exercise
    "empty folder": (lambda folder: None, "not_attempted", "no-answer"),
    "not UTF-8": (lambda folder: (folder / "FILE").write_bytes("# é\n".encode("latin-1") * 50), "error", "not-text"),
    "binary": (lambda folder: (folder / "FILE").write_bytes(random.Random(1).randbytes(4000)), "error", "not-text"),
    "zero bytes": (lambda folder: (folder / "FILE").write_bytes(b"\0" * 4000), "error", "syntax"),
    "huge": (lambda folder: (folder / "FILE").write_text("x = 1\n" * 400_000), "error", "unreadable"),
    "link outside": (lambda folder: (folder / "FILE").symlink_to(ROOT / "README.md"), "error", "unreadable"),
    "named pipe": (lambda folder: os.mkfifo(folder / "FILE"), "error", "unreadable"),
    "broken notebook": (lambda folder: (folder / "BOOK").write_text("[" * 5000), "error", "not-a-notebook"),
}


@dataclass
class Expected:
    """The right verdict on one exercise of one submission: any of these statuses; `names`: the diagnosis, where it is known."""

    kind: str
    statuses: tuple[str, ...]
    names: str | None = None


@dataclass
class MadeUp:
    """A class: what each student must get, and a hash of every file as it was handed in."""

    folder: Path
    expected: dict[str, dict[str, Expected]] = field(default_factory=dict)
    before: str = ""


def make(folder: Path, size: int, chapter: int = 3, seed: int = 0) -> MadeUp:
    """`size` submissions in `folder`."""
    draw = random.Random(seed)
    exercises = catalogue.of_chapter(chapter)
    folder.mkdir(parents=True)
    made = MadeUp(folder)
    hostile, files = list(HOSTILE), list(_FILES)
    for number in range(size):
        student = f"student {number:03d}"
        turn = number % 20
        if turn < 3:
            kind = hostile[(number // 20 * 3 + turn) % len(hostile)]
            made.expected[student] = _hostile(folder / student, exercises, kind, folder, draw)
        elif turn == 3:
            made.expected[student] = _unreadable(folder / student, exercises, files[number // 20 % len(files)])
        else:
            made.expected[student] = _honest(folder, student, exercises, turn, draw)
    made.before = hashes(folder)
    return made


def _honest(folder: Path, student: str, exercises: list[Exercise], turn: int, draw: random.Random) -> dict[str, Expected]:
    """Solutions, other styles, mistakes and stubs mixed; as an answer file in a folder, a single file, or a notebook."""
    texts, expected = {}, {}
    for exercise in exercises:
        texts[exercise.name], expected[exercise.name] = _one(exercise, draw.choices(("solution", "right", "mutant", "stub"), (3, 3, 4, 1))[0], draw)
    if turn == 4:
        name = draw.choice(exercises).name
        texts[name], expected[name] = f"def {name}(x:\n    return x\n", Expected("syntax error", ("error",), "syntax")
    if turn == 5:
        cells = [cell(text) for text in texts.values()]
        _write(folder / student / "notebook.ipynb", json.dumps({"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}))
    else:
        name = catalogue.file_of(exercises[0].chapter)
        _write(folder / f"{student}.py" if turn == 6 else folder / student / name, sections(texts))
    return expected


def _one(exercise: Exercise, kind: str, draw: random.Random) -> tuple[str, Expected]:
    material = catalogue.checks(exercise.chapter)[exercise.name]
    if kind == "stub":
        return catalogue.stub_text(exercise), Expected(kind, ("not_attempted",), "stub")
    if kind == "mutant":
        mutant = draw.choice(material.mutants)
        return f"{exercise.preamble}\n\n{mutant.text(exercise.solution)}", Expected(kind, WRONG, mutant.id)
    text = draw.choice(material.right) if kind == "right" else exercise.solution
    return f"{exercise.preamble}\n\n{text}", Expected(kind, ("passed",))


def _hostile(folder: Path, exercises: list[Exercise], kind: str, victims: Path, draw: random.Random) -> dict[str, Expected]:
    """One hostile answer among right ones. What is hostile happens inside the function, so that it is part of the answer."""
    chosen = draw.choice(exercises).name
    texts = {exercise.name: catalogue.solution_text(exercise) for exercise in exercises}
    expected = {exercise.name: Expected("beside a hostile one", ("passed",)) for exercise in exercises}
    before, statuses = HOSTILE[kind]
    before = before.replace("VICTIMS", repr(str(victims))).replace("COURSE", repr(str(ROOT)))
    if "def NAME" in before:
        texts[chosen] = before.replace("NAME", chosen)
    else:
        deed = "def deed():\n" + "".join(f"    {line}\n" for line in before.splitlines())
        inner = texts[chosen].replace(f"def {chosen}(", f"def inner_{chosen}(")
        texts[chosen] = f"{inner}\n\n{deed}\n\ndef {chosen}(*args, **more):\n    deed()\n    return inner_{chosen}(*args, **more)\n"
    expected[chosen] = Expected(f"hostile: {kind}", statuses)
    _write(folder / catalogue.file_of(exercises[0].chapter), sections(texts))
    return expected


def _unreadable(folder: Path, exercises: list[Exercise], kind: str) -> dict[str, Expected]:
    write, status, names = _FILES[kind]
    folder.mkdir()
    write(folder)
    file = catalogue.file_of(exercises[0].chapter)
    for given, name in (("FILE", file), ("BOOK", f"{file[2:-3]}.ipynb")):
        if os.path.lexists(folder / given):
            (folder / given).rename(folder / name)
    return {exercise.name: Expected(f"file: {kind}", (status,), names) for exercise in exercises}


def cell(text: str) -> dict:
    return {
        "cell_type": "code",
        "id": hashlib.sha256(text.encode()).hexdigest()[:8],
        "metadata": {},
        "outputs": [],
        "execution_count": None,
        "source": text,
    }


def sections(texts: dict[str, str]) -> str:
    return "\n".join(f"# ==== {name} ====\n{text}\n" for name, text in texts.items())


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, encoding="utf-8")


def hashes(folder: Path) -> str:
    """One hash of every name, content and time of change under a folder."""
    found = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if "__pycache__" in path.parts:
            continue
        state = path.lstat()
        found.update(f"{path.relative_to(folder)} {state.st_mode} {state.st_size} {state.st_mtime_ns if path.is_file() else ''}".encode())
        if path.is_file() and not path.is_symlink():
            found.update(path.read_bytes())
    return found.hexdigest()


def graded(made: MadeUp, output: Path, jobs: int, seed: int) -> dict[str, list[dict]]:
    """`course grade` as a process of its own: {student: results}."""
    command = [
        sys.executable,
        "-m",
        "course_lib.commands",
        "grade",
        str(made.folder),
        "--output",
        str(output),
        "--jobs",
        str(jobs),
        "--seed",
        str(seed),
    ]
    chapters = sorted({catalogue.find(name).chapter for one in made.expected.values() for name in one})
    subprocess.run([*command, *(f"--chapter={number}" for number in chapters)], cwd=ROOT, check=True)
    lines = [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()[1:]]
    return {line["student"]: line["results"] for line in lines}


def compared(made: MadeUp, found: dict[str, list[dict]]) -> dict:
    """How many verdicts are right, and those that are not."""
    checks = wrong_count = named = nameable = 0
    wrong, by_kind = [], {}
    for student, exercises in made.expected.items():
        results = {result["exercise"]: result for result in found.get(student, [])}
        for exercise, expected in exercises.items():
            result = results.get(exercise)
            checks += 1
            row = by_kind.setdefault(expected.kind, {"answers": 0, "right": 0})
            row["answers"] += 1
            name = result["diagnosis"]["id"] if result and result["diagnosis"] else None
            if result is None or result["status"] not in expected.statuses:
                wrong_count += 1
                wrong.append(f"{student}, {exercise} ({expected.kind}): {result and result['status']} ({name})")
                continue
            row["right"] += 1
            nameable += expected.names is not None
            named += expected.names is not None and name == expected.names
    return {"submissions": len(made.expected), "answers": checks, "wrong": wrong, "named": named, "nameable": nameable, "by_kind": by_kind}


def alone(made: MadeUp, students: list[str], found: dict[str, list[dict]], folder: Path, seed: int) -> int:
    """How many of these submissions get the same verdicts when each is graded by itself."""
    same = 0
    for number, student in enumerate(students):
        entry = next(path for path in made.folder.iterdir() if path.stem == student)
        place = folder / f"alone {number}"
        place.mkdir()
        (shutil.copytree if entry.is_dir() else shutil.copy)(entry, place / entry.name)
        one = MadeUp(place, {student: made.expected[student]})
        same += told(graded(one, folder / f"alone {number}.jsonl", 1, seed)[student]) == told(found[student])
    return same


def told(results: list[dict]) -> list[tuple]:
    """What must be the same: status and diagnosis of every exercise."""
    return [(one["exercise"], one["status"], one["diagnosis"] and one["diagnosis"]["id"]) for one in results]
