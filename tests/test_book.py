"""The answer book, the history and the progress file: nothing is lost, and trouble with the disk is a sentence."""

import errno
import json
import multiprocessing
import os
from pathlib import Path

import pytest

from course_lib import source
from course_lib.grading import answer, attempt, book, catalogue, progress

pytest_plugins = ["fake_judge"]
RIGHT = "import torch\n\n\ndef {name}(*a, **k):\n    return 'RIGHT'\n"
CHAPTER = "ch03_online_softmax.py"


@pytest.fixture
def merge():
    return catalogue.find("merge_states")


@pytest.fixture
def softmax():
    return catalogue.find("safe_softmax")


def history(home, name="merge_states"):
    return {path.name.rsplit("-", 1)[1]: path.read_text() for path in sorted((home / ".course/history" / name).glob("*.py"))}


def full_disk(*_):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_sections_are_written_replaced_and_kept(home, merge, softmax):
    book.write_section(merge, "def merge_states(): return 1\n")
    book.write_section(softmax, "def safe_softmax(): return 1\n")
    book.write_section(merge, "def merge_states(): return 2\n")
    assert source.fingerprint(book.read_section(merge)) == source.fingerprint("def merge_states(): return 2")
    assert "return 1" in book.read_section(softmax)
    assert history(home) == {"overwritten.py": "def merge_states(): return 1\n"}
    assert (home / "answers" / CHAPTER).read_text().startswith("# Your answers to chapter 03")


def test_what_the_reader_wrote_around_the_sections_stays(home, merge):
    path = home / "answers" / CHAPTER
    path.parent.mkdir()
    path.write_text("# my notes\n# ==== merge_states ====\nold = 1\n\n# ==== mine ====\nkept = 1\n")
    book.write_section(merge, "new = 1\n")
    text = path.read_text()
    assert text.startswith("# my notes") and "kept = 1" in text and "new = 1" in text and "old = 1" not in text
    assert history(home)["overwritten.py"] == "old = 1\n"


def test_of_two_sections_with_one_name_the_last_counts_and_none_is_lost(home, merge):
    path = home / "answers" / CHAPTER
    path.parent.mkdir()
    path.write_text("# ==== merge_states ====\nfirst = 1\n# ==== merge_states ====\nsecond = 1\n")
    book.write_section(merge, "third = 1\n")
    assert book.read_section(merge) == "third = 1\n"
    assert sorted(p.read_text() for p in (home / ".course/history/merge_states").iterdir()) == ["first = 1\n", "second = 1\n"]


def test_a_line_like_a_header_does_not_split_a_section(home, merge):
    book.write_section(merge, "x = 1\n# ==== other ====\ny = 2\n")
    assert "y = 2" in book.read_section(merge)


def test_history_keeps_every_text_of_the_same_second(home):
    kept = {book.save_history("merge_states", f"x = {n}", "attempt") for n in range(20)}
    assert len(kept) == 20


def test_a_file_that_is_no_text_is_moved_aside_and_said(home, merge):
    path = home / "answers" / CHAPTER
    path.parent.mkdir()
    path.write_bytes(b"\xff\xfe\x00 what is this")
    with pytest.raises(book.BookError, match="not UTF-8"):
        book.read_section(merge)
    written = book.write_section(merge, "x = 1\n")
    assert book.read_section(merge) == "x = 1\n" and "lies in" in written.notes[0]
    aside = [p for p in path.parent.iterdir() if "unreadable" in p.name]
    assert aside[0].read_bytes() == b"\xff\xfe\x00 what is this"


def test_a_full_disk_leaves_the_old_text(home, merge, monkeypatch):
    book.write_section(merge, "x = 1\n")
    before = (home / "answers" / CHAPTER).read_text()
    monkeypatch.setattr("course_lib.disk.write_bytes", full_disk)
    with pytest.raises(book.BookError, match="disk is full"):
        book.write_section(merge, "x = 2\n")
    assert (home / "answers" / CHAPTER).read_text() == before
    assert not list(home.rglob("*.tmp"))


def test_a_full_disk_does_not_stop_a_grade(home, merge, fake_judge, monkeypatch):
    monkeypatch.setattr("course_lib.disk.write_bytes", full_disk)
    outcome = attempt.grade(merge, RIGHT.format(name="merge_states"))
    assert outcome.verdict.status == "passed" and outcome.saved is None
    assert any("passed but is not saved" in note and "disk is full" in note for note in outcome.notes)


@pytest.mark.parametrize("error", [errno.EACCES, errno.EROFS])
def test_a_read_only_folder_does_not_stop_a_grade(home, merge, fake_judge, monkeypatch, error):
    def refuse(*_, **__):
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(Path, "mkdir", refuse)
    outcome = attempt.grade(merge, RIGHT.format(name="merge_states"))
    assert outcome.verdict.status == "passed" and any("read-only" in note and "COURSE_HOME" in note for note in outcome.notes)


def test_a_home_that_is_a_file_does_not_stop_a_grade(tmp_path, merge, fake_judge, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("COURSE_HOME", str(tmp_path / "file"))
    outcome = attempt.grade(merge, RIGHT.format(name="merge_states"))
    assert outcome.verdict.status == "passed" and outcome.saved is None and outcome.notes
    assert attempt.from_book(merge).verdict.status in ("error", "not_attempted")


def _many(numbers, home, name):
    os.environ["COURSE_HOME"] = str(home)
    exercise = catalogue.find(name)
    for number in numbers:
        book.write_section(exercise, f"x = '{name}-{number}'\n")
        progress.update(name, lambda entry: entry.update(attempts=entry["attempts"] + 1))


def test_two_notebooks_at_once_lose_nothing(home, merge, softmax):
    context = multiprocessing.get_context("fork" if hasattr(os, "fork") else "spawn")
    names = ["merge_states", "merge_states", "safe_softmax"]
    workers = [context.Process(target=_many, args=(range(k * 100, k * 100 + 12), home, name)) for k, name in enumerate(names)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    known, notes = progress.entries()
    assert known["merge_states"]["attempts"] == 24 and known["safe_softmax"]["attempts"] == 12 and not notes
    texts = {p.read_text() for p in (home / ".course/history/merge_states").iterdir()} | {book.read_section(merge)}
    assert len(texts) == 24
    assert "safe_softmax-211" in book.read_section(softmax)


def test_a_lock_that_is_held_is_said(home, monkeypatch):
    fcntl = pytest.importorskip("fcntl")
    monkeypatch.setattr(book, "LOCK_SECONDS", 0.1)
    (home / ".course").mkdir()
    with open(home / ".course/lock", "w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(book.BookError, match="another check"), book.locked():
            pass


# ---------------------------------------------------------------- exercises/


def stub_file(home, edit=lambda text: text):
    path = home / "exercises" / CHAPTER
    path.parent.mkdir(exist_ok=True)
    solutions = (catalogue.paths.ROOT / "solutions" / CHAPTER).read_text()
    path.write_text(edit(source.stub_file(solutions, 3, CHAPTER)))
    return path


def written(text, name="merge_states", value="'RIGHT'"):
    """The stub file with one body written."""
    old = next(line for line in text.splitlines() if f'NotImplementedError("{name} ' in line)
    return text.replace(old, f"    return {value}")


def test_pristine_stubs_are_not_adopted(home, merge):
    stub_file(home)
    assert book.adopt(merge) is None and book.read_section(merge) is None


def test_an_edited_exercise_is_adopted_once(home, merge, softmax, fake_judge):
    stub_file(home, written)
    assert "is now also in answers/" in book.adopt(merge)
    assert "'RIGHT'" in book.read_section(merge) and "from course_lib.states import SoftmaxState" in book.read_section(merge)
    assert book.adopt(merge) is None and book.adopt(softmax) is None
    assert attempt.from_book(merge).verdict.status == "passed"


def test_adoption_keeps_what_stood_in_the_answer_book(home, merge):
    book.write_section(merge, "x = 1\n")
    stub_file(home, written)
    assert "older one" in book.adopt(merge)
    assert history(home)["overwritten.py"] == "x = 1\n" and "RIGHT" in history(home)["adopted.py"]
    book.write_section(merge, "later = 1\n")
    assert book.adopt(merge) is None and book.read_section(merge) == "later = 1\n"


def test_another_exercise_with_a_syntax_error_does_not_stop_adoption(home, merge, softmax):
    stub_file(home, lambda text: written(text).replace("def safe_softmax(", "def safe_softmax(("))
    assert book.adopt(merge) is not None
    with pytest.raises(answer.AnswerError, match="def safe_softmax"):
        book.adopt(softmax)


def test_an_exercise_that_uses_another_ones_stub_gets_it_from_the_course(home):
    stub_file(home, lambda text: written(text, "logsumexp_over_tiles", "online_normalizer(tiles)[0]"))
    exercise = catalogue.find("logsumexp_over_tiles")
    book.adopt(exercise)
    assert "from course_lib.earlier import online_normalizer" in book.read_section(exercise)


def test_a_stub_file_that_is_no_text_is_a_note(home, merge, fake_judge):
    stub_file(home).write_bytes(b"\xff\xff")
    outcome = attempt.from_book(merge)
    assert outcome.verdict.status == "not_attempted" and any("UTF-8" in note for note in outcome.notes)


# ---------------------------------------------------------------- reset


def test_reset_saves_first_and_says_where(home, merge):
    stub_file(home, written)
    book.adopt(merge)
    done = book.reset(merge)
    assert len(done) == 2 and all(".course/history/merge_states/" in sentence for sentence in done)
    assert answer.is_stub("merge_states", book.read_section(merge), merge.stub)
    assert "'RIGHT'" in history(home)["reset.py"]
    solutions = (catalogue.paths.ROOT / "solutions" / CHAPTER).read_text()
    assert (home / "exercises" / CHAPTER).read_text() == source.stub_file(solutions, 3, CHAPTER)
    assert book.reset(merge) == [] and book.adopt(merge) is None


def test_reset_of_the_last_exercise_keeps_the_files_record(home):
    last = catalogue.of_chapter(3)[-1]
    pristine = (catalogue.paths.ROOT / "exercises" / CHAPTER).read_text()
    path = stub_file(home, lambda _: written(pristine, last.name))
    assert source.recorded(pristine) and path.read_text() != pristine
    (done,) = book.reset(last)
    assert path.read_text() == pristine
    assert source.RECORD not in history(home, last.name)["reset.py"] and "'RIGHT'" in history(home, last.name)["reset.py"]
    assert book.reset(last) == []


def test_reset_leaves_a_file_alone_whose_header_is_gone(home, merge):
    path = stub_file(home, lambda text: written(text).replace("# %% exercise merge_states", "# merge_states"))
    before = path.read_text()
    assert "left alone" in book.reset(merge)[-1] and path.read_text() == before


def test_reset_that_cannot_save_changes_nothing(home, merge, monkeypatch):
    book.write_section(merge, "x = 1\n")
    monkeypatch.setattr("course_lib.disk.write_bytes", full_disk)
    with pytest.raises(book.BookError, match="disk is full"):
        book.reset(merge)
    assert book.read_section(merge) == "x = 1\n"


# ---------------------------------------------------------------- grading and progress


def test_a_pass_is_saved_with_its_fingerprint(home, merge, fake_judge):
    outcome = attempt.grade(merge, RIGHT.format(name="merge_states"))
    assert outcome.saved == f"answers/{CHAPTER}"
    entry = progress.entries()[0]["merge_states"]
    assert entry["status"] == "passed" and entry["points"] == 3 and entry["attempts"] == 1
    assert entry["accepted"] == source.fingerprint(book.read_section(merge))
    assert outcome.extra().next.startswith("Next: ")


def test_a_failed_attempt_after_a_pass_changes_neither_book_nor_points(home, merge, fake_judge):
    attempt.grade(merge, RIGHT.format(name="merge_states"))
    attempt.grade(merge, "def merge_states(): return 'wrong'\n")
    entry = progress.entries()[0]["merge_states"]
    assert entry["status"] == "passed" and entry["points"] == 3 and entry["diagnosis"] == "not_rescaled" and entry["attempts"] == 2
    assert "RIGHT" in book.read_section(merge)


def test_the_stub_is_not_an_attempt(home, merge, fake_judge):
    outcome = attempt.grade(merge, catalogue.stub_text(merge))
    assert outcome.verdict.status == "not_attempted" and not fake_judge.asked and not (home / ".course").exists()


def test_a_judge_that_cannot_work_is_said(home, merge, fake_judge):
    outcome = attempt.grade(merge, "def merge_states(): CRASH\n")
    assert outcome.verdict.status == "error" and "says nothing about your answer" in outcome.verdict.diagnosis.message


def test_an_answer_book_edited_into_nonsense_shows_its_line(home, merge, fake_judge):
    book.write_section(merge, "def merge_states(:\n    pass\n")
    outcome = attempt.from_book(merge)
    lines = (home / "answers" / CHAPTER).read_text().splitlines()
    assert outcome.verdict.status == "error" and f"line {lines.index('def merge_states(:') + 1}" in outcome.verdict.diagnosis.message


@pytest.mark.parametrize("text", ["", "{", "[]", '{"exercises": []}', '{"exercises": {"merge_states": 3}}', "null", "\x00", "[" * 100_000])
def test_a_corrupt_progress_file_is_moved_aside(home, merge, fake_judge, text):
    path = home / ".course/progress.json"
    path.parent.mkdir()
    path.write_text(text)
    outcome = attempt.grade(merge, RIGHT.format(name="merge_states"))
    assert any("begins anew" in note for note in outcome.notes)
    assert progress.entries()[0]["merge_states"]["points"] == 3
    aside = [p for p in path.parent.iterdir() if "unreadable" in p.name]
    assert [p.read_text() for p in aside] == [text]


def test_a_progress_file_with_odd_fields_still_counts(home, fake_judge):
    path = home / ".course/progress.json"
    path.parent.mkdir()
    path.write_text(json.dumps({"exercises": {"merge_states": {"attempts": "many", "points": 2, "accepted": 4, "mine": 1}, "gone": {}}}))
    entry = progress.entries()[0]["merge_states"]
    assert entry["attempts"] == 0 and entry["points"] == 2 and entry["accepted"] is None
    progress.update("merge_states", lambda entry: None)
    assert json.loads(path.read_text())["exercises"]["gone"] == {}


def test_what_comes_next_is_core_first(home, fake_judge, softmax):
    assert progress.next_exercise().name == next(e.name for e in catalogue.exercises().values() if e.level == "core")
    attempt.grade(softmax, RIGHT.format(name="safe_softmax"))
    assert progress.next_exercise(softmax).name == "online_normalizer"
    for exercise in catalogue.exercises().values():
        if exercise.level == "core":
            attempt.grade(exercise, RIGHT.format(name=exercise.name))
    assert progress.next_exercise().level == "more"
    assert "core exercises passed" not in progress.overview().next
