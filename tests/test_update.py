"""`course update` on real clones: a learner who edited notebooks, added cells and has answers, and a course that moved on."""

import json
import os
import shutil
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from course_lib import paths
from course_lib.commands import update, update_archive, update_git, update_work
from course_lib.source import parse_answers

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="needs git")

NOTEBOOK, STUBS, OTHER = "notebooks/03_online_softmax.ipynb", "exercises/ch03_online_softmax.py", "notebooks/00_start_here.ipynb"


def code(source, id, tags=(), outputs=()):
    return {
        "cell_type": "code",
        "id": id,
        "metadata": {"tags": list(tags)} if tags else {},
        "source": source,
        "outputs": list(outputs),
        "execution_count": None,
    }


def prose(source, id):
    return {"cell_type": "markdown", "id": id, "metadata": {}, "source": source}


def stub(name, parameters):
    return f'def {name}({parameters}):\n    raise NotImplementedError("{name} (chapter 03) is not written yet")\n'


def exercise(name, parameters, body=None):
    text = stub(name, parameters)
    if body:
        text = text[: text.index("raise")] + body + "\n"
    return code(f"{text}\ncheck({name})", f"exercise-{name}", [f"exercise:{name}"])


def book(*cells):
    return json.dumps({"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": list(cells)}, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def stubs(*pairs):
    return "\n\n".join(
        ["import torch\n", *(f"# %% exercise {name} | core | 15 minutes | 3 points | torch\n{stub(name, parameters)}" for name, parameters in pairs)]
    )


FIRST = {
    NOTEBOOK: book(
        prose("# Why?", "t"), prose("Prose.", "p"), code("N = 64", "n"),
        exercise("safe", "x"), prose("Between.", "b"), exercise("merge", "a, b"), exercise("old", "x"), prose("End.", "e"),
    ),
    OTHER: book(prose("# Start", "s"), code("device()", "d")),
    STUBS: stubs(("safe", "x"), ("merge", "a, b")),
    "course_lib/thing.py": "A = 1\n", "README.md": "The course.\n", ".gitignore": "answers/\n.course/\n", "solutions/ch03.py": "# one\n",
}  # fmt: skip
SECOND = FIRST | {
    NOTEBOOK: book(
        prose("# Why, and how?", "t"), exercise("merge", "a, b, eps=0.0"), code("N = 128", "n"),
        exercise("safe", "x"), prose("New.", "new"), prose("Between.", "b"), prose("End.", "e"),
    ),
    STUBS: stubs(("merge", "a, b, eps=0.0"), ("safe", "x")),
    "course_lib/thing.py": "A = 2\n", "solutions/ch03.py": "# two\n", "solutions/ch04.py": "# new\n", "constraints.txt": "torch\n",
}  # fmt: skip
OUTPUT = {"output_type": "stream", "name": "stdout", "text": ["mine\n"]}
MINE = book(
    prose("# Why?", "t"), prose("Prose. My remark.", "p"), code("my_helper = 1", "own1", outputs=[OUTPUT]), code("N = 4096", "n"),
    exercise("safe", "x", "return x - x.max()"), prose("Between.", "b"), prose("my note: naïve", "own2"),
    exercise("merge", "a, b", "return a + b"), exercise("old", "x", "return 7"),
)  # fmt: skip
MY_STUBS = (
    FIRST[STUBS]
    .replace(stub("safe", "x"), "def safe(x):\n    return x * 2\n")
    .replace(stub("merge", "a, b"), "def merge(a, b):\n    return 'mine'\n")
)


def git(folder, *args):
    who = [
        "-c",
        "user.name=T",
        "-c",
        "user.email=t@example.org",
        "-c",
        "commit.gpgsign=false",
        "-c",
        "init.defaultBranch=main",
        "-c",
        "protocol.file.allow=always",
    ]
    return subprocess.run(["git", *who, *args], cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


def put(folder, files):
    for path, text in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text, encoding="utf-8")


def publish(world, files, message, gone=()):
    for path in gone:
        (world.author / path).unlink()
    put(world.author, files)
    git(world.author, "add", "-A")
    git(world.author, "commit", "-qm", message)
    git(world.author, "push", "-q", "origin", "main")


class World:
    def __init__(self, folder: Path):
        self.folder, self.author, self.root, self.bare = folder, folder / "author", folder / "clone", folder / "course.git"

    def text(self, path):
        return (self.root / path).read_text(encoding="utf-8")

    def sources(self, path=NOTEBOOK):
        return ["".join(cell["source"]) for cell in json.loads(self.text(path))["cells"]]

    def history(self):
        return [path.read_text(encoding="utf-8") for path in (self.root / ".course/history").rglob("*") if path.is_file()]

    def snapshot(self):
        """Every file of the learner's folder, and where the branch is."""
        files = {
            p.relative_to(self.root).as_posix(): p.read_bytes()
            for p in self.root.rglob("*")
            if p.is_file() and ".git" not in p.relative_to(self.root).parts
        }
        return files, git(self.root, "rev-parse", "HEAD"), git(self.root, "status", "--porcelain")


@pytest.fixture
def world(tmp_path, monkeypatch):
    """A course on a server, its author's clone, and a learner's clone of its first version."""
    for name in ("COURSE_HOME", "GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    monkeypatch.setenv("HOME", str(tmp_path))
    world = World(tmp_path)
    git(tmp_path, "init", "-q", "--bare", "course.git")
    git(tmp_path, "clone", "-q", str(world.bare), "author")
    git(world.author, "checkout", "-qB", "main")
    publish(world, FIRST, "First")
    git(tmp_path, "clone", "-q", "-b", "main", str(world.bare), "clone")
    monkeypatch.setattr(paths, "ROOT", world.root)
    return world


def learn(world):
    """What the learner did: edited a notebook and the stubs, ran another, and has answers."""
    put(world.root, {
        NOTEBOOK: MINE, STUBS: MY_STUBS, OTHER: book(prose("# Start", "s"), code("device()", "d", outputs=[OUTPUT])),
        "answers/ch03_online_softmax.py": "# ==== safe ====\ndef safe(x):\n    return 1\n", ".course/progress.json": "{}",
        "notebooks/my_own.ipynb": book(prose("Mine", "m")),
    })  # fmt: skip


def assert_updated(world):
    """The state that every path must end in: the new course, and all of the learner's work."""
    texts = world.sources()
    new = [text for text in texts if text in [cell["source"] for cell in json.loads(SECOND[NOTEBOOK])["cells"]]]
    assert [text.splitlines()[0] for text in new] == ["# Why, and how?", "def merge(a, b, eps=0.0):", "N = 128", "New.", "Between.", "End."]
    safe = next(text for text in texts if "def safe" in text)
    assert "return x - x.max()" in safe and texts.index(safe) == texts.index("New.") - 1
    cells = json.loads(world.text(NOTEBOOK))["cells"]
    by_text = dict(zip(texts, cells, strict=True))
    old = next(text for text in texts if "return a + b" in text)
    assert by_text[old]["cell_type"] == "raw"
    for kept in ("my_helper = 1", "N = 4096", "my note: naïve", "Prose. My remark."):
        assert texts.count(kept) == 1
    assert by_text["my_helper = 1"]["outputs"] == [OUTPUT]
    assert sum("return 7" in text for text in texts) == 1
    assert texts.index("my note: naïve") > texts.index("Between.")
    assert "return x * 2" in world.text(STUBS) and "# def merge(a, b):\n#     return 'mine'" in world.text(STUBS) and "eps=0.0" in world.text(STUBS)
    assert world.text("course_lib/thing.py") == "A = 2\n" and world.text("solutions/ch04.py") == "# new\n"
    assert parse_answers(world.text("answers/ch03_online_softmax.py")) == {"safe": "def safe(x):\n    return 1\n"}
    assert world.sources("notebooks/my_own.ipynb") == ["Mine"]
    assert MINE in world.history() and MY_STUBS in world.history()
    assert not list((world.root / ".course").rglob("journal.json"))
    assert not list(world.root.rglob("*.tmp"))
    assert git(world.root, "rev-parse", "HEAD") == git(world.author, "rev-parse", "HEAD")
    changed = git(world.root, "status", "--porcelain", "--untracked-files=no").split()[1::2]
    assert set(changed) <= {NOTEBOOK, STUBS, OTHER}, "nothing else differs from the course"


def test_learner_finds_the_work_again(world, capsys):
    learn(world)
    publish(world, SECOND, "Clearer prose; merge takes eps")
    assert update.main([]) == 1, "merge and old could not be placed"
    said = capsys.readouterr().out
    assert_updated(world)
    assert "Clearer prose; merge takes eps" in said and "put back: safe" in said
    assert "not placed: merge: its signature was `merge(a, b)` and is now `merge(a, b, eps=0.0)`" in said
    assert "not placed: old" in said and ".course/history/notebooks/03_online_softmax/" in said and "make lab" in said and "Reload" in said
    assert OTHER not in said, "a notebook that was only run is not edited"
    before = world.snapshot()
    assert update.main([]) == 0
    assert "Nothing new" in capsys.readouterr().out
    assert world.snapshot() == before


def test_updates_follow_each_other(world):
    learn(world)
    publish(world, SECOND, "Second")
    assert update.main([]) == 1
    texts = world.sources()
    publish(
        world,
        {NOTEBOOK: SECOND[NOTEBOOK].replace("New.", "Newer."), STUBS: SECOND[STUBS].replace("import torch", "import torch\nimport math")},
        "Third",
    )
    assert update.main([]) == 0, "what was placed beside its exercise is a cell of the learner's now"
    assert world.sources() == [text.replace("New.", "Newer.") for text in texts]
    assert "import math" in world.text(STUBS) and world.text(STUBS).count("return x * 2") == 1 and world.text(STUBS).count("'mine'") == 1


def test_dry_run_changes_no_file(world, capsys):
    learn(world)
    publish(world, SECOND, "Second")
    before = world.snapshot()
    assert update.main(["--dry-run"]) == 1
    said = capsys.readouterr().out
    assert "Would take" in said and "put back: safe" in said and "no file was changed" in said
    assert world.snapshot() == before


def test_without_work_it_is_a_plain_update(world):
    publish(world, SECOND, "Second")
    assert update.main([]) == 0
    assert world.text(NOTEBOOK) == SECOND[NOTEBOOK] and not world.history()
    assert git(world.root, "status", "--porcelain") == ""


def test_notebook_that_was_only_run_does_not_block(world):
    ran = json.loads(FIRST[NOTEBOOK])
    for cell in ran["cells"]:
        if cell["cell_type"] == "code":
            cell |= {"execution_count": 3, "outputs": [OUTPUT]}
    ran["metadata"] = {"widgets": {}}
    put(world.root, {NOTEBOOK: json.dumps(ran)})
    publish(world, SECOND, "Second")
    assert update.main([]) == 0
    assert world.text(NOTEBOOK) == SECOND[NOTEBOOK]


def test_edited_notebook_that_the_course_left_alone_stays(world, capsys):
    put(world.root, {NOTEBOOK: MINE})
    publish(world, {"README.md": "Better.\n"}, "Readme")
    assert update.main([]) == 0
    assert world.text(NOTEBOOK) == MINE and MINE in world.history() and "Not touched" in capsys.readouterr().out


@pytest.mark.parametrize(
    "damaged", [b"{ not json", b"", b"\xff\xfe\x00", b'{"nbformat": 3, "worksheets": []}', b"[" * 100_000, b'{"nbformat": 4, "cells": [1]}']
)
def test_unreadable_notebook_is_saved_and_replaced(world, capsys, damaged):
    (world.root / NOTEBOOK).write_bytes(damaged)
    publish(world, SECOND, "Second")
    assert update.main([]) == 1
    assert world.text(NOTEBOOK) == SECOND[NOTEBOOK]
    assert damaged in [path.read_bytes() for path in (world.root / ".course/history").rglob("*.ipynb")]
    assert "cannot be read" in capsys.readouterr().out


def test_deleted_renamed_and_removed_notebooks(world, capsys):
    (world.root / NOTEBOOK).unlink()
    put(world.root, {OTHER: FIRST[OTHER].replace("# Start", "# Start, my way")})
    second = {path: text for path, text in SECOND.items() if path != OTHER}
    publish(world, second | {"notebooks/00_begin.ipynb": FIRST[OTHER].replace("device()", "device(0)")}, "Renamed", gone=[OTHER])
    assert update.main([]) == 0
    assert world.text(NOTEBOOK) == SECOND[NOTEBOOK] and not (world.root / OTHER).exists()
    assert "# Start, my way" in world.sources("notebooks/00_begin.ipynb") and "device(0)" in world.sources("notebooks/00_begin.ipynb")
    assert "came back" in capsys.readouterr().out
    put(world.root, {NOTEBOOK: MINE})
    publish(world, {}, "Removed", gone=[NOTEBOOK])
    assert update.main([]) == 1
    assert world.text(NOTEBOOK) == MINE and "no longer has this file" in capsys.readouterr().out


def test_staged_version_is_saved_too(world):
    put(world.root, {NOTEBOOK: MINE.replace("return 7", "return 'staged'")})
    git(world.root, "add", NOTEBOOK)
    put(world.root, {NOTEBOOK: MINE})
    publish(world, SECOND, "Second")
    assert update.main([]) == 1
    assert any("return 'staged'" in text for text in world.history()) and sum("return 7" in text for text in world.sources()) == 1


def test_course_home_elsewhere(world, monkeypatch, tmp_path):
    monkeypatch.setenv("COURSE_HOME", str(tmp_path / "drive"))
    put(world.root, {NOTEBOOK: MINE})
    publish(world, SECOND, "Second")
    assert update.main([]) == 1
    assert not (world.root / ".course").exists()
    assert [p.read_text() for p in (tmp_path / "drive/.course/history/notebooks/03_online_softmax").glob("*.ipynb")] == [MINE]


# ---- refusals: a sentence, exit code 2, nothing changed


def refused(world, capsys, *args):
    before = world.snapshot()
    assert update.main(list(args)) == 2
    assert world.snapshot() == before or set(world.snapshot()[0]) - set(before[0]) <= {p for p in world.snapshot()[0] if p.endswith("/lock")}
    said = capsys.readouterr().err
    assert said.startswith("course update: ") and "Traceback" not in said
    return said


def test_other_changes_are_listed(world, capsys):
    learn(world)
    put(world.root, {"course_lib/thing.py": "A = 'mine'\n"})
    (world.root / "README.md").unlink()
    publish(world, SECOND, "Second")
    said = refused(world, capsys)
    assert "course_lib/thing.py" in said and "README.md" in said and "git stash" in said and NOTEBOOK not in said


def test_file_mode_alone_is_no_change(world):
    (world.root / "README.md").chmod(0o755)
    publish(world, SECOND, "Second")
    assert update.main([]) == 0


def test_own_commits_are_told_what_to_do(world, capsys):
    put(world.root, {NOTEBOOK: MINE, STUBS: MY_STUBS})
    git(world.root, "commit", "-qam", "my answers")
    learn(world)
    assert update.main([]) == 0, "nothing new yet"
    assert "1 commit of its own" in capsys.readouterr().out
    publish(world, SECOND, "Second")
    said = refused(world, capsys)
    assert "my answers" in said
    for line in [line.strip() for line in said.splitlines() if line.startswith("  git ")]:
        git(world.root, *line.split()[1:])
    assert update.main([]) == 1, "the advice works as it is printed"
    assert_updated(world)


def test_unrelated_history(world, capsys):
    git(world.author, "checkout", "-q", "--orphan", "other")
    git(world.author, "commit", "-qm", "Rewritten")
    git(world.author, "push", "-qf", "origin", "other:main")
    assert "shares no history" in refused(world, capsys)


def test_states_of_the_clone_that_are_refused(world, capsys):
    publish(world, SECOND, "Second")
    git(world.root, "checkout", "-q", "--detach")
    assert "detached HEAD" in refused(world, capsys)
    git(world.root, "checkout", "-q", "main")
    head = git(world.root, "rev-parse", "HEAD")
    for name in ("MERGE_HEAD", "CHERRY_PICK_HEAD"):
        (world.root / ".git" / name).write_text(head + "\n")
        assert "in progress" in refused(world, capsys)
        (world.root / ".git" / name).unlink()
    git(world.root, "checkout", "-qb", "mine")
    assert "no branch mine" in refused(world, capsys)
    git(world.root, "checkout", "-q", "main")
    git(world.root, "remote", "set-url", "origin", str(world.folder / "nowhere.git"))
    assert "could not be fetched" in refused(world, capsys)
    git(world.root, "remote", "remove", "origin")
    assert "no remote" in refused(world, capsys)


def test_not_a_clone_and_no_git(world, capsys, monkeypatch):
    monkeypatch.setattr(update_git.shutil, "which", lambda name: None)
    assert "git is not installed" in refused(world, capsys)
    monkeypatch.undo()
    monkeypatch.setattr(paths, "ROOT", world.root)
    shutil.rmtree(world.root / ".git")
    assert update.main([]) == 2
    assert "--from PATH" in capsys.readouterr().err
    assert update.main(["--nonsense"]) == 2
    assert update.main(["--from", str(world.folder / "missing")]) == 2
    assert "is not a folder" in capsys.readouterr().err
    assert update.main(["--from", str(world.folder)]) == 2
    assert "not a copy of the course" in capsys.readouterr().err
    assert update.main(["--from", str(world.root)]) == 2
    assert "this very course" in capsys.readouterr().err


def test_own_file_where_the_course_has_a_new_one(world, capsys):
    learn(world)
    put(world.root, {"solutions/ch04.py": "# my own\n"})
    publish(world, SECOND, "Second")
    assert "solutions/ch04.py" in refused(world, capsys)
    put(world.root, {"solutions/ch04.py": SECOND["solutions/ch04.py"]})
    assert update.main([]) == 1, "the very same content is not in the way"
    assert_updated(world)


def test_full_disk_and_read_only_history(world, capsys, monkeypatch):
    learn(world)
    publish(world, SECOND, "Second")

    def full(path, data):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(update_work, "write", full)
    assert "No space left" in refused(world, capsys)
    monkeypatch.undo()
    monkeypatch.setattr(paths, "ROOT", world.root)
    if os.geteuid():
        (world.root / ".course").chmod(stat.S_IRUSR | stat.S_IXUSR)
        assert "Permission denied" in refused(world, capsys)


def test_two_at_once(world, capsys):
    fcntl = pytest.importorskip("fcntl")
    publish(world, SECOND, "Second")
    with update._lock_file().open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert "another course update is running" in refused(world, capsys)
    assert update.main([]) == 0


# ---- interrupted


class Killed(BaseException):
    pass


def count_down(monkeypatch, steps, strike, after):
    """Let the learner's update die at its n-th change of anything: each git command that moves something, each write."""
    left = [steps]
    real_run, real_replace = update_git.Clone.run, os.replace

    def step(action):
        left[0] -= 1
        if left[0] == 0 and not after:
            strike()
        result = action()
        if left[0] == 0 and after:
            strike()
        return result

    def run(self, *args, **keywords):
        moves = args[0] in ("fetch", "checkout", "merge", "reset")
        return step(lambda: real_run(self, *args, **keywords)) if moves else real_run(self, *args, **keywords)

    monkeypatch.setattr(update_git.Clone, "run", run)
    monkeypatch.setattr(os, "replace", lambda *args: step(lambda: real_replace(*args)))
    return left


def kill():
    os.kill(os.getpid(), signal.SIGKILL)


def dies(world, steps, after, monkeypatch, args=()):
    """Run an update in a child that is killed with SIGKILL at its n-th step; True if it got that far."""
    child = os.fork()
    if child == 0:
        with monkeypatch.context() as patch:
            count_down(patch, steps, kill, after)
            code = 99
            try:
                sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115
                code = update.main(list(args))
            finally:
                os._exit(code)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_killed_at_every_step(world, monkeypatch, after, tmp_path):
    learn(world)
    publish(world, SECOND, "Second")
    shutil.copytree(world.root, tmp_path / "as learnt")
    for steps in range(1, 40):
        shutil.rmtree(world.root)
        shutil.copytree(tmp_path / "as learnt", world.root)
        got_there = dies(world, steps, after, monkeypatch)
        texts = "\n".join([*world.history(), world.text(NOTEBOOK), world.text(STUBS)])
        assert "return a + b" in texts and "return x * 2" in texts, f"step {steps}: the work must be somewhere"
        code = update.main([])
        assert_updated(world)
        if not got_there:
            break
        assert code in (0, 1), f"step {steps}"
    assert steps > 8, "the update has at least that many steps to die at"


def test_what_a_killed_update_left_half_written_is_removed_by_the_next(world):
    """Copies are named by the second: the next update does not write over the temporary file of one that was killed."""
    learn(world)
    publish(world, SECOND, "Second")
    halves = [world.root / ".course/history/notebooks/03_online_softmax/.20200101T000000Z-1.ipynb.tmp"]
    halves += [world.root / ".course/update/0123/.journal.json.tmp", world.root / ".course/history/replaced/thing/.20200101T000000Z-1.py.tmp"]
    mine = world.root / ".course/history/merge/.mine.tmp"
    for path in (*halves, mine):
        path.parent.mkdir(parents=True)
        path.write_text("half")
    assert update.main(["--dry-run"]) == 1
    assert all(path.exists() for path in halves), "a dry run changes nothing"
    assert update.main([]) == 1
    assert not [path for path in halves if path.exists()] and mine.exists()
    mine.unlink()
    assert_updated(world)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_killed_twice(world, monkeypatch, tmp_path):
    learn(world)
    publish(world, SECOND, "Second")
    shutil.copytree(world.root, tmp_path / "as learnt")
    for first in (6, 9):
        for second in range(1, 12, 2):
            shutil.rmtree(world.root)
            shutil.copytree(tmp_path / "as learnt", world.root)
            dies(world, first, True, monkeypatch)
            dies(world, second, False, monkeypatch)
            update.main([])
            assert_updated(world)


def until_journal(world, monkeypatch, moved):
    """Interrupt an update while its files are being exchanged: before or after the branch moved."""
    with monkeypatch.context() as patch:
        real = update_git.Clone.forward

        def forward(self, commit):
            if moved:
                real(self, commit)
            raise Killed

        patch.setattr(update_git.Clone, "forward", forward)
        with pytest.raises(Killed):
            update.main([])


@pytest.mark.parametrize("moved", [False, True])
def test_what_is_typed_after_an_interruption_is_kept(world, monkeypatch, moved, capsys):
    learn(world)
    publish(world, SECOND, "Second")
    until_journal(world, monkeypatch, moved)
    now = json.loads(world.text(NOTEBOOK))
    now["cells"].append(code("typed_later = 1", "later"))
    put(world.root, {NOTEBOOK: json.dumps(now)})
    assert update.main([]) == 1
    assert "interrupted" in capsys.readouterr().out
    assert_updated(world)
    assert world.sources().count("typed_later = 1") == 1


def test_git_died_in_the_middle_of_the_files(world, monkeypatch):
    learn(world)
    publish(world, SECOND, "Second")
    until_journal(world, monkeypatch, moved=False)
    put(
        world.root,
        {
            "course_lib/thing.py": SECOND["course_lib/thing.py"],
            "solutions/ch03.py": "# t",
            "solutions/ch04.py": "# ne",
            NOTEBOOK: SECOND[NOTEBOOK][:100],
        },
    )
    (world.root / ".git/index.lock").write_text("")
    monkeypatch.setattr(update_git.time, "sleep", lambda seconds: None)
    assert update.main([]) == 1
    assert_updated(world)


def test_git_died_between_index_and_branch(world, monkeypatch):
    learn(world)
    publish(world, SECOND, "Second")
    until_journal(world, monkeypatch, moved=False)
    git(world.root, "read-tree", "-u", "--reset", "FETCH_HEAD")
    assert update.main([]) == 1
    assert_updated(world)


def test_lock_of_somebody_else_is_respected(world, monkeypatch, capsys):
    learn(world)
    publish(world, SECOND, "Second")
    until_journal(world, monkeypatch, moved=True)
    lock = world.root / ".git/index.lock"
    lock.write_text("")
    os.utime(lock, (0, 0))
    monkeypatch.setattr(update_git.time, "sleep", lambda seconds: None)
    assert update.main([]) == 2
    assert "index.lock" in capsys.readouterr().err
    lock.unlink()
    assert update.main([]) == 1
    assert_updated(world)


def test_branch_moved_by_hand_after_an_interruption(world, monkeypatch, capsys):
    learn(world)
    publish(world, SECOND, "Second")
    until_journal(world, monkeypatch, moved=False)
    git(world.root, "commit", "-q", "--allow-empty", "-m", "by hand")
    assert update.main([]) == 2
    captured = capsys.readouterr()
    assert "moved since" in captured.out and "by hand" in captured.err
    assert MINE in world.history()


def test_failing_merge_puts_everything_back(world, monkeypatch, capsys):
    learn(world)
    publish(world, SECOND, "Second")

    def forward(self, commit):
        raise update_git.GitFailed("git merge failed: no space")

    monkeypatch.setattr(update_git.Clone, "forward", forward)
    assert update.main([]) == 2
    assert "no space" in capsys.readouterr().err
    assert world.text(NOTEBOOK) == MINE and world.text(STUBS) == MY_STUBS
    assert not list((world.root / ".course").rglob("journal.json"))


def test_unreadable_journal_is_said(world, capsys):
    folder = update._folder(world.root)
    put(folder, {"journal.json": "{"})
    assert "journal.json cannot be read" in refused(world, capsys)


# ---- from another folder


def unpacked(world, files, name):
    put(world.folder / name, files)
    (world.folder / name / ".venv").mkdir()
    put(world.folder / name, {".venv/x.py": "no", "answers/ch03_online_softmax.py": "no"})
    return world.folder / name


def test_from_another_clone(world):
    learn(world)
    publish(world, SECOND, "Second")
    git(world.root, "remote", "remove", "origin")
    assert update.main(["--from", str(world.author)]) == 1
    assert_updated(world)


def test_clone_from_an_archive_is_refused(world, capsys):
    newer = unpacked(world, SECOND, "newer")
    assert "is a git clone, and" in refused(world, capsys, "--from", str(newer))


def test_archive(world, capsys):
    learn(world)
    shutil.rmtree(world.root / ".git")
    newer = unpacked(world, SECOND, "newer")
    assert update.main(["--from", str(newer), "--dry-run"]) == 1
    assert world.text(NOTEBOOK) == MINE and not world.history()
    assert update.main(["--from", str(newer)]) == 1
    said = capsys.readouterr().out
    texts = world.sources()
    assert any("return x - x.max()" in text for text in texts) and "my_helper = 1" in texts and "N = 128" in texts
    assert "only in the saved copy: 'N = 4096'" in said and "not placed: merge" in said
    assert MINE in world.history() and "A = 1\n" in world.history()
    assert "return 1" in world.text("answers/ch03_online_softmax.py") and not (world.root / ".venv").exists()
    assert world.text("solutions/ch04.py") == "# new\n"
    assert update.main(["--from", str(newer)]) == 0
    assert "Nothing new" in capsys.readouterr().out and world.sources() == texts

    third = unpacked(world, SECOND | {NOTEBOOK: SECOND[NOTEBOOK].replace("N = 128", "N = 256")}, "third")
    assert update.main(["--from", str(third)]) == 0, "now the base is known"
    assert world.sources() == [text.replace("N = 128", "N = 256") for text in texts]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_archive_killed_at_every_step(world, monkeypatch, tmp_path):
    learn(world)
    shutil.rmtree(world.root / ".git")
    newer = unpacked(world, SECOND, "newer")
    shutil.copytree(world.root, tmp_path / "as learnt")
    assert update.main(["--from", str(newer)]) == 1
    wanted = world.sources(), world.text(STUBS)
    for steps in range(1, 40):
        shutil.rmtree(world.root)
        shutil.copytree(tmp_path / "as learnt", world.root)
        got_there = dies(world, steps, True, monkeypatch, ["--from", str(newer)])
        assert MINE in [*world.history(), world.text(NOTEBOOK)]
        marked = update_archive.interrupted(update._folder(world.root))
        assert update.main([] if marked else ["--from", str(newer)]) in (0, 1)
        assert (world.sources(), world.text(STUBS), world.text("course_lib/thing.py")) == (*wanted, "A = 2\n")
        if not got_there:
            break
    assert steps > 10
