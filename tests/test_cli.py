"""The command `course`: what it prints, its exit codes, and that bad input is one sentence on stderr."""

import json
import os
import signal
import subprocess
import sys
import time

import jsonschema
import pytest

from course_lib import paths
from course_lib.commands import cli, doctor
from course_lib.grading import book, catalogue, export, progress

pytest_plugins = ["fake_judge"]
RIGHT = "def merge_states(a, b):\n    return 'RIGHT'\n"
WRONG = "def merge_states(a, b):\n    return 'wrong'\n"
STATUS = {"enum": ["passed", "failed", "not_attempted", "error", "timeout", "blocked", "needs_review"]}
CASE = {
    "type": "object",
    "required": ["name", "status", "message", "seconds"],
    "additionalProperties": False,
    "properties": {"name": {}, "status": STATUS, "message": {"type": "string"}, "seconds": {"type": "number"}},
}
CONTRACT = {
    "type": "object",
    "required": ["exercise", "chapter", "status", "points", "max_points", "diagnosis", "cases", "tier", "seconds"],
    "additionalProperties": False,
    "properties": {
        "exercise": {"type": "string"},
        "chapter": {"type": "integer"},
        "status": STATUS,
        "points": {"type": "integer"},
        "max_points": {"type": "integer"},
        "diagnosis": {
            "anyOf": [
                {"type": "null"},
                {"type": "object", "required": ["id", "message"], "additionalProperties": False, "properties": {"id": {}, "message": {}}},
            ]
        },
        "cases": {"type": "array", "items": CASE},
        "tier": {"enum": ["interpreter", "compiled", "hopper"]},
        "seconds": {"type": "number"},
    },
}


@pytest.fixture
def course(home, fake_judge, capsys):
    """Run one command in this process: (exit code, stdout, stderr)."""

    def run(*argv):
        code = cli.main([str(word) for word in argv])
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def answer_file(tmp_path):
    def write(text, name="mine.py"):
        path = tmp_path / name
        path.write_text(text)
        return path

    return write


def test_check_exit_codes(course, answer_file):
    code, out, _ = course("check", "merge_states", "--file", answer_file(RIGHT))
    assert code == 0 and "3 of 3 points" in out and "answers/ch03_online_softmax.py" in out
    code, out, _ = course("check", "merge_states", "--file", answer_file(WRONG))
    assert code == 1 and "second tile on" in out and "course hint merge_states" in out
    assert "RIGHT" in book.read_section(catalogue.find("merge_states"))


def test_check_without_a_file_grades_the_answer_book(course):
    code, out, _ = course("check", "merge_states")
    assert code == 1 and "not written yet" in out
    book.write_section(catalogue.find("merge_states"), RIGHT)
    assert course("check", "merge_states")[0] == 0
    code, out, _ = course("check", "merge_states", "safe_softmax", "merge_states")
    assert code == 1 and "1 of 2 passed, 3 of 5 points." in out
    code, out, _ = course("check", "--chapter", 3)
    assert code == 1 and f"1 of {len(catalogue.of_chapter(3))} passed" in out
    assert course("check", "--all")[1].count("not written yet") == len(catalogue.exercises()) - 1


def test_json_is_the_contract_and_nothing_else(course, answer_file, tmp_path):
    for text, status in ((RIGHT, "passed"), (WRONG, "failed"), ("x = 1", "not_attempted"), ("def merge_states(:", "error")):
        code, out, err = course("check", "merge_states", "--file", answer_file(text), "--json", "-")
        found = json.loads(out)
        jsonschema.validate(found, CONTRACT)
        assert found["status"] == status and code == (0 if status == "passed" else 1) and not err
    code, out, _ = course("check", "merge_states", "safe_softmax", "--json", tmp_path / "out.json")
    several = json.loads((tmp_path / "out.json").read_text())
    jsonschema.validate(several, {"type": "array", "items": CONTRACT, "minItems": 2, "maxItems": 2})
    assert "merge_states" in out and [one["exercise"] for one in several] == ["merge_states", "safe_softmax"]
    assert len(json.loads(course("check", "--chapter", 3, "--json", "-")[1])) == 7


def test_the_seed_reaches_the_judge(course, answer_file, fake_judge):
    course("check", "merge_states", "--file", answer_file(RIGHT), "--seed", 12)
    assert fake_judge.asked[-1][2] == 12


def test_a_syntax_error_in_the_file_shows_the_line(course, answer_file):
    code, out, _ = course("check", "merge_states", "--file", answer_file("x = 1\ndef merge_states(a, b:\n    return a\n"))
    assert code == 1 and "line 2" in out and "def merge_states(a, b:" in out


def test_a_file_with_sections_is_read_by_section(course, answer_file):
    text = "# ==== safe_softmax ====\ndef safe_softmax(:\n\n# ==== merge_states ====\n" + RIGHT
    assert course("check", "merge_states", "--file", answer_file(text))[0] == 0
    code, out, _ = course("check", "safe_softmax", "--file", answer_file(text))
    assert code == 1 and "line 2" in out


def test_an_edited_exercises_file_is_graded(course, home):
    path = home / "exercises/ch03_online_softmax.py"
    path.parent.mkdir()
    path.write_text("# %% exercise merge_states | core | 15 minutes | 3 points | torch\n" + RIGHT)
    code, out, _ = course("check", "merge_states")
    assert code == 0 and "is now also in answers/" in " ".join(out.split())
    path.write_text("# %% exercise merge_states | core | 15 minutes | 3 points | torch\ndef merge_states(:\n")
    code, out, _ = course("check", "merge_states")
    assert code == 1 and "exercises/ch03_online_softmax.py, line 2" in out


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["check"], "--chapter N"),
        (["check", "merge_state"], "Did you mean merge_states"),
        (["check", "merge_states", "nope"], "no exercise 'nope'"),
        (["check", "merge_states", "--all"], "or --all"),
        (["check", "--chapter", "99"], "no chapter 99"),
        (["check", "--chapter", "21"], "no exercises yet"),
        (["check", "--chapter", "x"], "invalid int"),
        (["check", "merge_states", "--file", "/no/such/file.py"], "no file"),
        (["check", "merge_states", "--file", "/"], "is a folder"),
        (["check", "merge_states", "--file", "a\0b"], "cannot be read"),
        (["check", "merge_states", "--file", "x" * 5000], "cannot be read"),
        (["check", "merge_states", "--json", "/"], "is a folder"),
        (["check", "merge_states", "--json", "/no/such/folder/x.json"], "no folder"),
        (["check", "merge_states", "--seed", "-3"], "--seed"),
        (["check", "merge_states", "--seed", "x"], "invalid int"),
        (["check", "--bogus"], "--bogus"),
        (["chek"], "Did you mean `course check`"),
        (["zzzzzz"], "course --help"),
        (["hint"], "NAME"),
        (["hint", "merge_stat"], "Did you mean merge_states"),
        (["solution", "what"], "no exercise"),
        (["reset", "what"], "no exercise"),
        (["reset"], "NAME"),
        (["bench", "softmax"], "no kernel or group"),
        (["review"], "comes with chapter"),
        (["grade"], "PATH"),
        (["grade", "/no/such/file.py"], "no file"),
        (["grade", __file__, "--format", "pdf"], "invalid choice"),
        (["progress", "extra"], "extra"),
        (["doctor", "--what"], "--what"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(course, argv, words):
    code, out, err = course(*argv)
    assert code == 2 and words in err and err.startswith("course: ") and "Traceback" not in err and not out


def test_a_file_that_cannot_be_read(course, answer_file, tmp_path):
    path = tmp_path / "bytes.py"
    path.write_bytes(b"\xff\xff\xff")
    code, _, err = course("check", "merge_states", "--file", path)
    assert code == 2 and "not UTF-8" in err
    secret = answer_file(RIGHT, "secret.py")
    secret.chmod(0)
    if not os.access(secret, os.R_OK):  # root reads everything
        assert course("check", "merge_states", "--file", secret)[0] == 2


@pytest.mark.parametrize(
    "argv", [["--help"], ["check", "--help"], ["hint", "-h"], ["progress", "-h"], ["lab", "--help"], ["grade", "-h"], ["doctor", "-h"]]
)
def test_help_is_no_error(course, argv):
    code, out, err = course(*argv)
    assert code == 0 and "course" in out and not err


def test_every_command_of_the_design_is_there(course):
    out = course("--help")[1]
    for word in ("check", "hint", "solution", "progress", "reset", "doctor", "lab", "update", "grade", "bench", "review"):
        assert f"\n  {word} " in out


def test_hint_and_solution(course):
    assert course("hint", "merge_states")[1].startswith("Hint 1 of 3")
    assert course("hint", "merge_states")[1].startswith("Hint 2 of 3")
    assert "Run `course solution merge_states` again" in course("solution", "merge_states")[1]
    assert "torch.maximum" in course("solution", "merge_states")[1]


def test_reset_says_where_the_text_is_kept(course, answer_file, home):
    assert "nothing to reset" in course("reset", "merge_states")[1]
    course("check", "merge_states", "--file", answer_file(RIGHT))
    code, out, _ = course("reset", "merge_states")
    assert code == 0 and ".course/history/merge_states/" in out
    assert progress.entries()[0]["merge_states"]["accepted"] is None and course("check", "merge_states")[0] == 1
    assert any("RIGHT" in path.read_text() for path in (home / ".course/history/merge_states").glob("*-reset.py"))


def test_reset_on_a_full_disk_is_said(course, answer_file, monkeypatch):
    course("check", "merge_states", "--file", answer_file(RIGHT))

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("course_lib.disk.write_bytes", full)
    code, _, err = course("reset", "merge_states")
    assert code == 2 and "disk is full" in err and "RIGHT" in book.read_section(catalogue.find("merge_states"))


def test_progress(course, answer_file):
    course("check", "merge_states", "--file", answer_file(RIGHT))
    code, out, _ = course("progress")
    points = sum(exercise.points for exercise in catalogue.exercises().values())
    assert (
        code == 0 and out.startswith(f"3 of {points} points") and "passed, 1 attempt" in out and f"Next: {next(iter(catalogue.exercises()))}" in out
    )


def test_doctor_reports_every_line(course, home):
    code, out, _ = course("doctor")
    for word in ("python", "torch", "triton", "tier", "containment", "jupyterlab", "your work", "disk"):
        assert word in out
    assert code in (0, 1) and ("problem" in out) == (code == 1)


def test_doctor_names_problems(course, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("COURSE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr(doctor, "requirements", lambda: ["torch>=99", "nosuchpackage"])
    monkeypatch.setattr(doctor, "FREE_MIB", 1e12)
    monkeypatch.setattr(doctor, "_triton", lambda: 1 / 0)
    code, out, _ = course("doctor")
    assert code == 1 and "torch>=99" in out.replace(" ", "") and "nosuchpackage" in out and "cannot be written" in out
    assert "COURSE_HOME" in out and "could not be examined" in out and "free some space" in out


def test_lab_starts_jupyterlab_on_the_first_notebook(course, monkeypatch):
    started = []
    monkeypatch.setattr(cli.subprocess, "call", lambda command, cwd: started.append((command, cwd)) or 0)
    monkeypatch.setattr(cli.chapter(0).__class__, "ready", True)
    monkeypatch.setattr("pathlib.Path.exists", lambda path: True)
    assert course("lab", "--port", "9999")[0] == 0
    ((command, folder),) = started
    assert command[:3] == [sys.executable, "-m", "jupyterlab"] and command[-2:] == ["--port", "9999"]
    assert command[-3] == "--LabApp.default_url=/lab/tree/notebooks/00_start_here.ipynb"
    files = [word for word in command if word.endswith(".ipynb") and not word.startswith("--")]
    assert folder == cli.paths.ROOT and not files, "a file would make its folder the root, and answers/ would be out of sight"


def test_lab_without_jupyterlab(course, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    code, _, err = course("lab")
    assert code == 1 and "make lab" in err


# ---------------------------------------------------------------- grade, on single files


@pytest.mark.parametrize("format", export.FORMATS)
def test_grade_writes_a_report_and_touches_no_answer_book(course, answer_file, home, tmp_path, format):
    code, out, _ = course("grade", answer_file(RIGHT), "--format", format)
    assert code == 0 and "merge_states" in out and not (home / "answers").exists() and not (home / ".course/progress.json").exists()
    target = tmp_path / "report"
    assert course("grade", answer_file(WRONG), "--format", format, "--output", target)[0] == 0
    assert "merge_states" in target.read_text()
    assert course("grade", answer_file(WRONG), "--output", "/no/such/folder/x")[0] == 2


def test_grade_of_a_chapter_file_counts_what_is_missing(course, answer_file):
    found = json.loads(course("grade", answer_file(RIGHT, "ch03_online_softmax.py"))[1])
    jsonschema.validate(found, {"type": "array", "items": CONTRACT})
    assert [one["status"] for one in found].count("not_attempted") == 6
    code, out, _ = course("grade", answer_file("def f(:\n", "ch03_online_softmax.py"))
    assert code == 0 and {one["status"] for one in json.loads(out)} == {"error"}


def test_grade_of_a_file_without_exercises(course, answer_file):
    assert "defines no exercise" in course("grade", answer_file("x = 1"))[2]
    assert "line 1" in course("grade", answer_file("def f(:"))[2]


# ---------------------------------------------------------------- as processes


def command(*argv, **options):
    return subprocess.Popen([sys.executable, "-m", "course_lib.commands", *argv], stdout=-1, stderr=-1, text=True, cwd=paths.ROOT, **options)


def test_a_closed_pipe_is_no_traceback(home):
    run = subprocess.run(f"{sys.executable} -m course_lib.commands progress | head -c 1", shell=True, capture_output=True, text=True, cwd=paths.ROOT)
    assert run.stderr == "" and len(run.stdout) == 1


@pytest.mark.parametrize("module", ["course_lib.commands", "course_lib.commands.cli"])
def test_both_ways_to_start_it_end_with_the_exit_code(home, module):
    run = subprocess.run([sys.executable, "-m", module, "check", "merge_stat"], capture_output=True, text=True, cwd=paths.ROOT)
    assert run.returncode == 2 and "Did you mean merge_states" in run.stderr and "Traceback" not in run.stderr


def test_ctrl_c_is_a_word(home, tmp_path):
    slow = tmp_path / "slow.py"
    slow.write_text(
        "import signal, sys, time\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a shell's background jobs, and so some CI runners', ignore it
        "def wait():\n    print('here', flush=True)\n    time.sleep(30)\n"
        "from course_lib.commands import cli\n"
        "cli._COMMANDS['progress'] = ('', lambda argv: wait())\n"
        "sys.exit(cli.main(['progress']))\n"
    )
    process = subprocess.Popen([sys.executable, str(slow)], stdout=-1, stderr=-1, text=True, env={**os.environ, "PYTHONPATH": str(paths.ROOT)})
    assert process.stdout.readline() == "here\n"
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=10)
    assert process.returncode == 130 and err.strip() == "course: stopped."


def test_help_is_quick_and_imports_no_torch():
    began = time.monotonic()
    code = "import sys; from course_lib.commands.cli import main; main(['hint', 'merge_stat']); print('torch' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=paths.ROOT)
    assert run.stdout.strip() == "False" and time.monotonic() - began < 20


def test_the_real_judge_passes_the_solution_and_fails_the_stub(home, tmp_path):
    exercise = catalogue.find("merge_states")
    (tmp_path / "right.py").write_text(catalogue.solution_text(exercise))
    (tmp_path / "wrong.py").write_text(catalogue.solution_text(exercise).replace("a.acc * a_scale[..., None]", "a.acc"))
    right = command("check", "merge_states", "--file", str(tmp_path / "right.py"), "--json", "-")
    found = json.loads(right.communicate(timeout=120)[0])
    jsonschema.validate(found, CONTRACT)
    assert right.returncode == 0 and found["status"] == "passed" and found["points"] == 3
    wrong = command("check", "merge_states", "--file", str(tmp_path / "wrong.py"))
    out = wrong.communicate(timeout=120)[0]
    assert wrong.returncode == 1 and "merge_states is not right yet" in out and "Expected" in out and "`row_sum`" in out
    assert progress.entries()[0]["merge_states"]["attempts"] == 2


def test_the_courses_helper_stands_in_where_a_file_has_none(home, tmp_path):
    (tmp_path / "mine.py").write_text(
        "def classify_bound(m, n, k, bytes_each, peak_flops, bandwidth):\n"
        "    ridge = peak_flops / bandwidth\n"
        '    return "memory" if arithmetic_intensity(m, n, k, bytes_each) < ridge else "compute"\n'
    )
    run = command("check", "classify_bound", "--file", str(tmp_path / "mine.py"))
    out = run.communicate(timeout=120)[0]
    assert run.returncode == 0 and "2 of 2 points" in out
    assert "from course_lib.earlier import arithmetic_intensity" in book.read_section(catalogue.find("classify_bound"))
