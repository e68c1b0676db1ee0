"""Earlier exercises' functions: the reader's accepted answer, else the solution; refused while the exercise itself is graded."""

import inspect
import subprocess
import sys
import warnings

import pytest
import torch

from course_lib import earlier, paths
from course_lib.grading import attempt, book, catalogue, progress
from course_lib.states import SoftmaxState

pytest_plugins = ["fake_judge"]
OWN = "import torch\n\nPI = 3\n\n\ndef merge_states(a, b):\n    return 'RIGHT', PI\n"


@pytest.fixture(autouse=True)
def fresh(home):
    earlier._warned.clear()
    return home


def accept(text=OWN):
    exercise = catalogue.find("merge_states")
    return attempt.grade(exercise, text)


def test_without_an_answer_it_is_the_solution():
    from course_lib.earlier import merge_states

    one = SoftmaxState(torch.tensor([0.0]), torch.tensor([1.0]), torch.tensor([[5.0]]))
    three = SoftmaxState(torch.tensor([0.0]), torch.tensor([3.0]), torch.tensor([[1.0]]))
    assert merge_states(one, three).acc.item() == 6 and earlier.where("merge_states") == "the course's"
    assert merge_states.__module__.startswith("course_earlier_") and "torch.maximum" in inspect.getsource(merge_states)


def test_an_accepted_answer_is_yours(fake_judge):
    accept()
    from course_lib.earlier import merge_states

    assert merge_states(1, 2) == ("RIGHT", 3) and earlier.where("merge_states") == "yours"
    assert merge_states.__code__.co_filename == str(paths.answers() / "ch03_online_softmax.py")
    assert inspect.getsource(merge_states).startswith("def merge_states(a, b):\n    return 'RIGHT', PI")  # as Triton reads it


def test_a_new_answer_is_seen_at_once(fake_judge):
    accept()
    accept(OWN.replace("PI = 3", "PI = 4"))
    assert earlier.merge_states(1, 2) == ("RIGHT", 4)


def test_comments_do_not_change_the_fingerprint(fake_judge, fresh):
    accept()
    path = fresh / "answers/ch03_online_softmax.py"
    path.write_text(path.read_text().replace("PI = 3", "# about pi\nPI = 3"))
    assert earlier.where("merge_states") == "yours"


def test_an_edited_answer_warns_once_and_uses_the_solution(fake_judge, fresh):
    accept()
    path = fresh / "answers/ch03_online_softmax.py"
    path.write_text(path.read_text().replace("PI = 3", "PI = 5"))
    with pytest.warns(UserWarning, match="course check merge_states"):
        assert earlier.merge_states.__module__.endswith(tuple("0123456789")) and "solution" not in earlier.where("merge_states")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert earlier.where("merge_states") == "the course's"


@pytest.mark.parametrize("damage", ["gone", "section", "bytes", "folder"])
def test_an_answer_book_that_is_damaged_warns_and_uses_the_solution(fake_judge, fresh, damage):
    accept()
    path = fresh / "answers/ch03_online_softmax.py"
    if damage == "section":
        path.write_text("# nothing\n")
    elif damage == "bytes":
        path.write_bytes(b"\xff\xff")
    else:
        path.unlink()
        if damage == "folder":
            path.mkdir()
    with pytest.warns(UserWarning, match="course's solution is used"):
        assert earlier.where("merge_states") == "the course's"


def test_an_answer_that_cannot_be_loaded_warns(fake_judge):
    accept("def merge_states(a, b): return 'RIGHT'\n")
    exercise = catalogue.find("merge_states")
    text = "raise SystemError('odd { } <b>')\n\ndef merge_states(a, b): return 'RIGHT'\n"
    book.write_section(exercise, text)
    progress.update("merge_states", lambda entry: entry.update(accepted=book.fingerprint(text)))
    with pytest.warns(UserWarning, match="could not be loaded"):
        assert earlier.merge_states.__module__.startswith("course_earlier_ch03")


@pytest.mark.parametrize("text", ["{", "[]", '{"exercises": {"merge_states": []}}', '{"exercises": {"merge_states": {"accepted": 3}}}'])
def test_a_damaged_progress_file_means_the_solution(fake_judge, fresh, text):
    accept()
    (fresh / ".course/progress.json").write_text(text)
    assert earlier.where("merge_states") == "the course's"


def test_unknown_names_are_a_sentence():
    with pytest.raises(ImportError, match="Did you mean merge_states"):
        from course_lib.earlier import merge_state  # noqa: F401
    with pytest.raises(ValueError, match="no exercise"):
        earlier.where(3)
    with pytest.raises(AttributeError):
        earlier._repr_html_  # noqa: B018
    assert getattr(earlier, "torch", None) is None, "a compiler asks every module for it"


def test_forced_to_the_solution(fake_judge, monkeypatch):
    accept()
    monkeypatch.setenv("COURSE_EARLIER", "solution")
    assert earlier.where("merge_states") == "the course's"


def test_while_graded_the_exercise_and_later_ones_are_refused(fake_judge, monkeypatch):
    accept()
    monkeypatch.setenv("COURSE_GRADING", "merge_states")
    with pytest.raises(ImportError, match="asks you to write"):
        earlier.merge_states  # noqa: B018
    with pytest.raises(ImportError, match="comes after merge_states"):
        earlier.tiled_attention  # noqa: B018
    assert earlier.safe_softmax is not None
    monkeypatch.setenv("COURSE_GRADING", "tiled_attention")
    assert earlier.merge_states.__module__.startswith("course_earlier_ch03")  # the solution, though an answer was accepted


def test_importing_it_needs_neither_torch_nor_the_grader():
    code = "import sys, course_lib.earlier; print([m for m in ('torch', 'triton', 'course_lib.grading') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=paths.ROOT).stdout.strip() == "[]"
