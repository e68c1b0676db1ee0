"""`course grade FOLDER` and `course review`: what a submission is, what happens to odd ones, resuming, lost workers, decisions."""

import csv
import json
import os
import signal
import subprocess
import sys
import threading
import time

import jsonschema
import pytest
from fake_judge import FakeJudge

from course_lib.commands import cli, grade_batch, grade_report, grade_submissions, grade_worker
from course_lib.grading import catalogue
from course_lib.grading.verdict import Case, Diagnosis, Verdict
from course_lib.paths import ROOT

pytest_plugins = ["fake_judge"]
CHAPTER = [exercise.name for exercise in catalogue.of_chapter(3)]
FILE = "ch03_online_softmax.py"
RIGHT = "def merge_states(a, b):\n    return 'RIGHT'\n"
WRONG = "def merge_states(a, b):\n    return 'wrong'\n"
LOOKED_AT = "def merge_states(a, b):\n    return 'LOOK'\n"
SCHEMAS = ROOT / "course_lib" / "grading" / "schemas"


class Judge(FakeJudge):
    """The tests' judge, which also knows answers that need a person and answers that take too long."""

    def check(self, exercise, text, seed):
        verdict = super().check(exercise, text, seed)
        if "LOOK" in text:
            verdict = Verdict(exercise, verdict.chapter, "needs_review", 0, verdict.max_points, Diagnosis("outside-torch", "Look at it.\nPlease."))
            verdict.cases = [Case("resources", "needs_review", "seen")]
        return verdict


class Here:
    """A worker without a process. A text with LOST in it takes the worker along, one with ONCE only the first time, SLOW is late beside others."""

    made: list = []
    once: set = set()
    lock = threading.Lock()  # `ast` of Python 3.11 cannot parse in two threads at once; real workers are processes

    def __init__(self):
        self.judge, self.closed = Judge(), False
        Here.made.append(self)

    def grade(self, submission, exercises, seed):
        with Here.lock:
            return self.graded(submission, exercises, seed)

    def graded(self, submission, exercises, seed):
        found = grade_worker.grade(self.judge, grade_batch.request(submission, exercises, seed), self.at)
        for text in [one.text for one in grade_submissions.read(submission.files, submission.root)]:
            if "LOST" in text and "merge_states" in exercises or ("ONCE" in text and submission.student not in Here.once):
                Here.once.add(submission.student)
                raise grade_batch.WorkerLost("merge_states")
            if "BUG" in text:
                raise ZeroDivisionError("a mistake of the course's own")
            if "SLOW" in text and any(not other.closed for other in Here.made if other is not self):
                found["results"][CHAPTER.index("merge_states")] |= {"status": "timeout", "points": 0}
        return [Verdict.from_json(one) for one in found["results"]], found["answers"]

    def at(self, name):
        pass

    def kill(self):
        self.closed = True

    close = kill


@pytest.fixture
def course(home, capsys, monkeypatch):
    monkeypatch.setattr(grade_batch, "Worker", Here)
    monkeypatch.setattr(Here, "made", [])
    monkeypatch.setattr(Here, "once", set())

    def run(*argv):
        code = cli.main([str(word) for word in argv])
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def hand_in(tmp_path):
    folder = tmp_path / "class"
    folder.mkdir()

    def write(name, text=RIGHT):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        (path.write_bytes if isinstance(text, bytes) else path.write_text)(text)
        return folder

    return write


def notebook(*cells, **more):
    made = [{"cell_type": "code", "metadata": {}, "outputs": [], "execution_count": None, "source": text} for text in cells]
    return json.dumps(
        {"cells": [{"cell_type": "markdown", "metadata": {}, "source": "# Mine"}, *made], "metadata": {}, "nbformat": 4, "nbformat_minor": 5, **more}
    )


def graded(path):
    """{student: {exercise: result}} of a report, each line held against the schema."""
    schema = jsonschema.Draft202012Validator(json.loads((SCHEMAS / "grades.json").read_text()))
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for line in lines:
        schema.validate(line)
    return {line["student"]: {result["exercise"]: result for result in line["results"]} for line in lines[1:]}


def status(path, student, exercise="merge_states"):
    result = graded(path)[student][exercise]
    return result["status"], result["diagnosis"] and result["diagnosis"]["id"]


# ---------------------------------------------------------------- what a submission is


def test_a_class_of_folders_files_and_notebooks(course, hand_in, tmp_path):
    hand_in(f"ada/{FILE}"), hand_in(f"bob/answers/{FILE}", WRONG), hand_in("cy.py", RIGHT), hand_in(f"dee/submission_7/dee/{FILE}")
    hand_in(
        "eve/03_online_softmax.ipynb",
        notebook("%matplotlib inline\nX = 'RIGHT'", "%%time\ndef merge_states(a, b):\n    return X", "check(merge_states)"),
    )
    hand_in("fay.ipynb", notebook(RIGHT, catalogue.stub_text(catalogue.find("merge_states"))))  # a copied cell with the stub costs nothing
    hand_in("gil/mine.ipynb", notebook(catalogue.stub_text(catalogue.find("merge_states"))))
    hand_in(f"hal/{FILE}", f"# ==== safe_softmax ====\ndef safe_softmax(:\n\n# ==== merge_states ====\n{RIGHT}")
    folder = hand_in("readme.txt", "x")
    out = tmp_path / "out.jsonl"
    code, printed, said = course("grade", folder, "--output", out, "--seed", 5)
    assert code == 0 and not printed and "8 submissions" in said and "readme.txt" in said and "Seed 5." in said
    assert [status(out, name) for name in ("ada", "cy", "dee", "eve", "fay", "hal")] == [("passed", None)] * 6
    assert status(out, "bob")[0] == "failed" and status(out, "gil") == ("not_attempted", "stub")
    assert status(out, "hal", "safe_softmax") == ("error", "syntax") and status(out, "ada", "safe_softmax") == ("not_attempted", "no_answer")
    assert {asked[2] for worker in Here.made for asked in worker.judge.asked} == {5}, "everybody has the same seed"
    assert all(list(results) == CHAPTER for results in graded(out).values())


def test_odd_submissions_are_their_own_verdict(course, hand_in, tmp_path):
    folder = hand_in(f"zoe/{FILE}")
    hand_in(f"latin/{FILE}", "# é\n".encode("latin-1")), hand_in(f"bytes/{FILE}", bytes(range(256))), hand_in(f"zero/{FILE}", "\0" * 9)
    hand_in(f"huge/{FILE}", "x = 1\n" * 400_000), hand_in("twice.py"), hand_in(f"twice/{FILE}"), hand_in("nothing/notes.txt", "x")
    hand_in("broken/03_online_softmax.ipynb", "[" * 100_000), hand_in("old/a.ipynb", notebook(nbformat=3)), hand_in("list/a.ipynb", "[]")
    (
        hand_in(f"deep/{FILE}", "def merge_states(a, b):\n    return " + "(" * 300 + ")" * 300),
        hand_in(f"minus/{FILE}", "merge_states = " + "-" * 20_000 + "1"),
    )
    (
        hand_in(f"two/{FILE}", RIGHT),
        hand_in("two/ch03_other.py", WRONG),
        hand_in(f"same/{FILE}", RIGHT),
        hand_in("same/ch03_copy.py", "# a copy\n" + RIGHT),
    )
    hand_in(f"book/{FILE}", RIGHT), hand_in("book/03_online_softmax.ipynb", notebook(WRONG))
    hand_in("cell.ipynb", notebook("def merge_states(a, b:\n    return a"))
    (folder / "empty").mkdir(), (folder / "pipe").mkdir(), (folder / "link").mkdir(), (folder / "inner").mkdir()
    os.mkfifo(folder / "pipe" / FILE)
    (folder / "link" / FILE).symlink_to(folder / "zoe" / FILE)
    (folder / "whole").symlink_to(tmp_path), (folder / "round.py").symlink_to(folder / "round.py"), (folder / "gone.py").symlink_to("nowhere.py")
    (folder / "inner" / "real.py").write_text(RIGHT), (folder / "inner" / FILE).symlink_to("real.py")
    os.symlink("x", os.fsencode(folder) + b"/\xff\xfe.py")
    out = tmp_path / "out.jsonl"
    code, _, said = course("grade", folder, "--output", out, "--jobs", 3)
    assert code == 0 and "Traceback" not in said, said
    expected = {
        "zoe": ("passed", None),
        "latin": ("error", "not-text"),
        "bytes": ("error", "not-text"),
        "zero": ("error", "syntax"),
        "huge": ("error", "unreadable"),
        "twice": ("error", "duplicate-name"),
        "nothing": ("not_attempted", "no-answer"),
        "empty": ("not_attempted", "no-answer"),
        "broken": ("error", "not-a-notebook"),
        "old": ("error", "not-a-notebook"),
        "list": ("error", "not-a-notebook"),
        "deep": ("error", "syntax"),
        "minus": ("error", "syntax"),
        "two": ("error", "ambiguous"),
        "same": ("passed", None),
        "book": ("passed", None),
        "cell": ("error", "syntax"),
        "pipe": ("error", "unreadable"),
        "link": ("error", "unreadable"),
        "whole": ("error", "link"),
        "round": ("error", "link"),
        "gone": ("error", "unreadable"),
        "inner": ("passed", None),
        "\ufffd\ufffd": ("error", "unreadable"),
    }
    found = graded(out)
    told = {name: (one["merge_states"]["status"], (one["merge_states"]["diagnosis"] or {"id": None})["id"]) for name, one in found.items()}
    assert told == expected
    assert "twice and twice.py" in found["twice"]["merge_states"]["diagnosis"]["message"]


def test_names_of_one_student_in_two_spellings(hand_in):
    hand_in(f"e\u0301va/{FILE}")
    folder = hand_in("\u00e9va.py")
    (found,) = grade_submissions.find(folder)[0]
    assert found.student == "\u00e9va" and found.trouble[0] == "duplicate-name"


def test_the_chapters_are_those_handed_in(course, hand_in, tmp_path):
    names = lambda out: {name for results in graded(out).values() for name in results}  # noqa: E731
    hand_in(f"ada/{FILE}", "x = 1")
    folder = hand_in("01_bob.py", RIGHT)  # a number of the student's, not of a chapter
    course("grade", folder, "--output", tmp_path / "a")
    assert names(tmp_path / "a") == set(CHAPTER)
    course("grade", folder, "--output", tmp_path / "b", "--chapter", 0, "--chapter", 3)
    assert names(tmp_path / "b") == {*CHAPTER, *(exercise.name for exercise in catalogue.of_chapter(0))}
    before = checks()
    said = course("grade", folder, "--output", tmp_path / "b", "--chapter", 0)[2]
    assert checks() == before and f"{2 * len(catalogue.of_chapter(0))} not attempted" in said, "fewer chapters than graded: nothing is graded again"


# ---------------------------------------------------------------- formats


def test_csv(course, hand_in, tmp_path):
    hand_in(f"=HYPERLINK(1)/{FILE}"), hand_in(f"Zoë, 漢/{FILE}", LOOKED_AT)
    folder = hand_in(f"bob/{FILE}", WRONG)
    out = tmp_path / "grades.csv"
    code, printed, said = course("grade", folder, "--format", "csv", "--output", out)
    assert code == 0 and not printed and "1 answer needs a person" in said and f"course review {out}.jsonl" in said
    rows = list(csv.DictReader(out.open(encoding="utf-8", newline="")))
    assert len(rows) == 3 * len(CHAPTER) and {row["student"] for row in rows} == {"'=HYPERLINK(1)", "Zoë, 漢", "bob"}
    totals = {row["student"]: row for row in csv.DictReader((tmp_path / "grades-totals.csv").open(encoding="utf-8", newline=""))}
    assert totals["'=HYPERLINK(1)"]["points"] == "3" and totals["Zoë, 漢"]["needs_review"] == "1"
    course("grade", folder, "--format", "csv", "--output", out, "--bom")
    assert out.read_bytes().startswith(b"\xef\xbb\xbfstudent,")
    assert course("grade", folder, "--format", "csv")[1].startswith("student,exercise,")


@pytest.mark.parametrize("format", ["gradescope", "classroom50"])
def test_a_file_a_student(course, hand_in, tmp_path, format):
    hand_in(f"ada/{FILE}")
    folder = hand_in(f"bob/{FILE}", WRONG)
    out = tmp_path / "reports"
    assert course("grade", folder, "--format", format, "--output", out)[0] == 0
    schema = json.loads((SCHEMAS / f"{format}.json").read_text())
    for name, score in (("ada", 3), ("bob", 0)):
        report = json.loads((out / f"{name}.json").read_text())
        jsonschema.validate(report, schema)
        assert report["score"] == score
    assert set(graded(out / "grades.jsonl")) == {"ada", "bob"}
    assert course("grade", folder, "--format", format)[0] == 2


def test_junit_and_json_on_standard_output(course, hand_in):
    folder = hand_in(f"ada/{FILE}")
    assert course("grade", folder, "--format", "junit")[1].count("<testcase") == len(CHAPTER)
    lines = [json.loads(line) for line in course("grade", folder)[1].splitlines()]
    assert lines[0]["format"] == "course/grades/v1" and lines[1]["student"] == "ada" and len(lines) == 2


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--jobs", "0"], "--jobs"),
        (["--seed", "-1"], "--seed"),
        (["--chapter", "77"], "chapter 77"),
        (["--output", "/no/such/folder/x"], "cannot be written"),
        (["--output", "/"], "is a folder"),
        (["--format", "gradescope", "--output", "/no/such/folder/x"], "cannot be made"),
    ],
)
def test_bad_use_is_a_sentence(course, hand_in, more, words):
    code, out, err = course("grade", hand_in(f"ada/{FILE}"), *more)
    assert code == 2 and words in err and "Traceback" not in err and not out


def test_folders_without_answers(course, tmp_path, hand_in):
    (tmp_path / "bare").mkdir()
    assert "holds no submission" in course("grade", tmp_path / "bare")[2]
    folder = hand_in("ada.py", "x = 1")
    assert "--chapter" in course("grade", folder)[2]
    assert "one folder" in course("grade", folder, folder / "ada.py")[2]
    (folder / FILE).write_text(RIGHT)
    assert "work of one student" in course("grade", folder)[2]
    (folder / FILE).unlink()
    assert "for a folder" in course("grade", folder / "ada.py", "--jobs", 2)[2]


# ---------------------------------------------------------------- going on where it stopped


def checks() -> int:
    return sum(len(worker.judge.asked) for worker in Here.made)


def test_a_second_run_grades_what_is_new_or_changed(course, hand_in, tmp_path):
    folder, out = hand_in(f"ada/{FILE}"), tmp_path / "out.jsonl"
    hand_in(f"bob/{FILE}", WRONG)
    course("grade", folder, "--output", out)
    seed = json.loads(out.read_text().splitlines()[0])["seed"]
    assert checks() == 2
    assert "2 graded before" in course("grade", folder, "--output", out)[2] and checks() == 2
    hand_in(f"bob/{FILE}"), hand_in(f"cy/{FILE}")
    course("grade", folder, "--output", out)
    assert checks() == 4 and status(out, "bob")[0] == "passed" and {v["seed"] for one in graded(out).values() for v in one.values()} == {seed}
    assert course("grade", folder, "--output", out, "--seed", seed + 1)[0] == 2
    course("grade", folder, "--output", out, "--again", "--seed", seed + 1)
    assert checks() == 7 and len(out.read_text().splitlines()) == 4
    course("grade", folder, "--output", out, "--format", "csv")  # another report, beside
    assert checks() == 10 and (tmp_path / "out.jsonl.jsonl").exists()


def test_a_run_that_was_cut_off(course, hand_in, tmp_path):
    folder, out = hand_in(f"ada/{FILE}"), tmp_path / "out.jsonl"
    hand_in(f"bob/{FILE}", WRONG)
    course("grade", folder, "--output", out, "--jobs", 1)
    whole = out.read_text()
    for cut in (len(whole) - 1, len(whole) - 40, len(whole.splitlines()[0]) + 1):
        out.write_text(whole[:cut])
        assert course("grade", folder, "--output", out)[0] == 0
        lines = [json.loads(line) for line in out.read_text().splitlines() if line.endswith("}") and line.startswith("{")]
        assert {line.get("student") for line in lines} == {None, "ada", "bob"}
        assert set(grade_report.load(out).lines) == {"ada", "bob"}


def test_a_file_that_is_no_report_is_not_overwritten(course, hand_in, tmp_path):
    out = tmp_path / "thesis.txt"
    for text in ("my only copy", '{"format": "other"}\n', "[]\n"):
        out.write_text(text)
        code, _, err = course("grade", hand_in(f"ada/{FILE}"), "--output", out)
        assert code == 2 and "no report" in err and out.read_text() == text
        assert course("grade", tmp_path / "class", "--output", out, "--again")[0] == 2 and out.read_text() == text


def test_an_interrupted_run_keeps_what_is_graded(course, hand_in, tmp_path, monkeypatch):
    folder, out = hand_in(f"ada/{FILE}"), tmp_path / "out.jsonl"
    hand_in(f"bob/{FILE}", "def merge_states(a, b):\n    return 'STOP'\n")
    monkeypatch.setattr(Here, "at", lambda self, name: None)
    add = grade_report.Report.add

    def interrupted(self, one):
        add(self, one)
        raise KeyboardInterrupt

    monkeypatch.setattr(grade_report.Report, "add", interrupted)
    assert course("grade", folder, "--output", out, "--jobs", 1)[0] == 130
    monkeypatch.setattr(grade_report.Report, "add", add)
    assert list(graded(out)) == ["ada"] and all(worker.closed for worker in Here.made)
    course("grade", folder, "--output", out)
    assert list(graded(out)) == ["ada", "bob"]


# ---------------------------------------------------------------- workers that are lost, and late answers


def test_a_lost_worker_costs_its_submission_at_most(course, hand_in, tmp_path):
    for name, word in (("ada", ""), ("bob", "LOST"), ("cy", "ONCE"), ("dee", "")):
        hand_in(f"{name}/{FILE}", RIGHT + f"# {word}\n\ndef safe_softmax(x):\n    return 'RIGHT'\n")
    out = tmp_path / "out.jsonl"
    assert course("grade", tmp_path / "class", "--output", out, "--jobs", 2)[0] == 0
    assert [status(out, name)[0] for name in ("ada", "bob", "cy", "dee")] == ["passed", "error", "passed", "passed"]
    assert "twice" in graded(out)["bob"]["merge_states"]["diagnosis"]["message"]
    assert status(out, "bob", "safe_softmax") == ("passed", None), "what does not take the worker along is graded all the same"


def test_an_answer_late_beside_others_is_graded_once_more_alone(course, hand_in, tmp_path):
    hand_in(f"ada/{FILE}", RIGHT + "# SLOW\n"), hand_in(f"bob/{FILE}")
    out = tmp_path / "out.jsonl"
    course("grade", tmp_path / "class", "--output", out, "--jobs", 2)
    assert status(out, "ada")[0] == "passed"


def test_a_mistake_of_the_course_is_not_hidden(course, hand_in, tmp_path):
    with pytest.raises(ZeroDivisionError):
        course("grade", hand_in(f"ada/{FILE}", RIGHT + "# BUG\n"), "--output", tmp_path / "out.jsonl")


def test_where_answers_could_write_files_it_is_said(course, hand_in, monkeypatch):
    from course_lib.grading import contain

    folder = hand_in(f"ada/{FILE}")
    for read_only in (True, False):
        monkeypatch.setattr(contain, "containment", lambda read_only=read_only: {"read_only": read_only, "sentence": "answers run."})
        assert ("in a container" in course("grade", folder)[2]) == (not read_only)


# ---------------------------------------------------------------- review


def test_review(course, hand_in, tmp_path):
    hand_in(f"ada/{FILE}", LOOKED_AT), hand_in(f"cy/{FILE}", LOOKED_AT + "\n\nx = 1\n")
    folder, out = hand_in(f"bob/{FILE}", LOOKED_AT), tmp_path / "grades.csv"
    again = ("grade", folder, "--format", "csv", "--output", out)
    course(*again)
    report = tmp_path / "grades.csv.jsonl"
    code, listed, _ = course("review", report)
    assert code == 1 and listed.count("waits") == 3 and "Look at it." in listed and "3 of them without a decision" in listed
    shown = course("review", report, "ada", "merge_states")[1]
    assert "return 'LOOK'" in shown and "Please." in shown and "seen" in shown
    assert course("review", report, "ada", "merge_states", "--accept")[0] == 0
    assert course("review", report, "bob", "merge_states", "--refuse", "--note", "=Calls SDPA.")[0] == 0
    assert course("review", report)[1].count("waits") == 1
    jsonschema.validate(json.loads((tmp_path / "grades.csv.review.json").read_text()), json.loads((SCHEMAS / "review.json").read_text()))
    before = checks()
    course(*again)
    rows = {row["student"]: row for row in csv.DictReader(out.open(newline="")) if row["exercise"] == "merge_states"}
    assert checks() == before and [rows[name]["status"] for name in ("ada", "bob", "cy")] == ["passed", "failed", "needs_review"]
    assert rows["ada"]["points"] == "3" and rows["bob"]["message"] == "'=Calls SDPA." and rows["bob"]["points"] == "0"
    assert course("review", report, "bob", "merge_states", "--accept")[0] == 0  # a person may think again
    assert course("review", report, "cy", "merge_states", "--accept")[0] == 0
    assert course("review", report)[0] == 0
    hand_in(f"ada/{FILE}", LOOKED_AT.replace("LOOK", "LOOK again"))  # another answer: the decision was about the first
    course(*again)
    assert status(report, "ada")[0] == "needs_review" and course("review", report)[0] == 1


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ([], "comes with chapter"),
        (["/no/such/file"], "cannot be read"),
        (["REPORT", "ada"], "STUDENT EXERCISE"),
        (["REPORT", "ada", "safe_softmax"], "no answer to safe_softmax"),
        (["REPORT", "nobody", "merge_states", "--accept"], "nobody has no answer"),
        (["REPORT", "--accept"], "about one answer"),
        (["REPORT", "ada", "merge_states", "--note", "x"], "goes with"),
        (["REPORT", "ada", "merge_states", "--accept", "--refuse"], "not allowed"),
    ],
)
def test_bad_reviews_are_a_sentence(course, hand_in, tmp_path, argv, words):
    course("grade", hand_in(f"ada/{FILE}", LOOKED_AT), "--output", tmp_path / "r.jsonl")
    code, _, err = course("review", *(str(tmp_path / "r.jsonl") if word == "REPORT" else word for word in argv))
    assert code == 2 and words in err and "Traceback" not in err


def test_decisions_that_cannot_be_read(course, hand_in, tmp_path):
    folder, out = hand_in(f"ada/{FILE}", LOOKED_AT), tmp_path / "r.jsonl"
    course("grade", folder, "--output", out)
    for text in ("", "[]", '{"format": "course/review/v1", "decisions": [{}]}'):
        (tmp_path / "r.review.json").write_text(text)
        assert course("review", out)[0] == 2


# ---------------------------------------------------------------- with real workers


@pytest.mark.slow
def test_workers_are_processes_that_may_be_killed(hand_in, tmp_path):
    """A worker killed in the middle is replaced; every submission has the verdict it would have alone."""
    exercise = catalogue.of_chapter(0)[0]
    for number in range(12):
        hand_in(f"s{number}/{catalogue.file_of(0)}", catalogue.solution_text(exercise) + f"# {number}\n")
    submissions, _ = grade_submissions.find(tmp_path / "class")
    workers, found = [], []

    def worker():
        workers.append(grade_batch.Worker())
        return workers[-1]

    def done(one):
        found.append(one)
        if len(found) == 2:
            os.kill(workers[0]._process.pid, signal.SIGKILL)

    grade_batch.grade_all(submissions, [exercise.name], 3, 2, done, worker)
    assert sorted(one.submission.student for one in found) == sorted(one.student for one in submissions)
    assert {one.verdicts[0].status for one in found} == {"passed"}
    assert all(one._process is None for one in workers)


@pytest.mark.slow
def test_ctrl_c_ends_every_process(hand_in, tmp_path):
    loop = "def merge_states(a, b):\n    while True:\n        pass\n"
    hand_in(f"ada/{FILE}", loop), hand_in(f"bob/{FILE}", loop)
    command = [sys.executable, "-m", "course_lib.commands", "grade", str(tmp_path / "class"), "--output", str(tmp_path / "out.jsonl"), "--jobs", "2"]
    run = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    threading.Timer(8, lambda: run.send_signal(signal.SIGINT)).start()
    said = run.communicate(timeout=60)[1]
    assert run.returncode == 130 and "stopped" in said and "Traceback" not in said
    time.sleep(1)
    left = subprocess.run(["ps", "-eo", "ppid,args"], capture_output=True, text=True).stdout
    assert not [line for line in left.splitlines() if line.split()[0] == str(run.pid)]
