"""The source viewer: the right lines, highlighted, with the text as fallback."""

import builtins

import pytest

from course_lib import claims, hardware, oracles, show
from course_lib.paths import ROOT
from course_lib.show import diff_card, read_source, source_card


class Kernel:
    """Stands for Triton's JITFunction: it keeps its Python function as .fn."""

    def __init__(self, fn):
        self.fn = fn


def test_a_function_with_its_place():
    code, where, first = read_source(oracles.softmax)
    lines = (ROOT / "course_lib" / "oracles.py").read_text().splitlines()
    assert lines[first - 1].startswith("def softmax(") and code.splitlines() == lines[first - 1 : first - 1 + len(code.splitlines())]
    assert where == f"course_lib/oracles.py, lines {first}-{first + code.count(chr(10))}"


def test_a_kernel_a_module_a_class_a_method_and_a_path():
    assert read_source(Kernel(Kernel(oracles.softmax)))[0] == read_source(oracles.softmax)[0]
    assert read_source(claims)[0] == (ROOT / "course_lib" / "claims.py").read_text().rstrip()
    assert read_source("course_lib/claims.py") == read_source(ROOT / "course_lib" / "claims.py")
    assert read_source(show.Card)[0].startswith("@dataclass")
    assert read_source(show.Card.bundle)[0].startswith("def bundle(self)")
    assert read_source("course_lib/oracles.py", "softmax") == read_source(oracles.softmax)


def test_a_triton_kernel():
    hardware.tier()  # before triton is imported
    triton = pytest.importorskip("triton")

    @triton.jit
    def copy_kernel(x_ptr):
        pass

    assert "def copy_kernel(x_ptr):" in read_source(copy_kernel)[0]


def test_the_card():
    card = source_card("course_lib/oracles.py", "softmax")
    assert card.text.startswith("# course_lib/oracles.py, lines ") and "def softmax(" in card.text
    assert 'tabindex="0"' in card.html and "<span style=" in card.html and ">def<" in card.html and "background:#ffffff" in card.html


def test_without_pygments(monkeypatch):
    real = builtins.__import__
    monkeypatch.setattr(
        builtins, "__import__", lambda name, *a, **k: (_ for _ in ()).throw(ImportError()) if name.startswith("pygments") else real(name, *a, **k)
    )
    card = source_card("course_lib/oracles.py", "softmax")
    assert "def softmax(x: Tensor) -&gt; Tensor:" in card.html


def test_diff():
    card = diff_card("a = 1\nb = 2\n", "a = 1\nb = 3\n", ("simple", "tiled"))
    assert card.text.splitlines()[0] == "simple \u2192 tiled: 1 line removed, 1 added" and "-b = 2" in card.text and "+b = 3" in card.text
    assert card.html.count("#dafbe1") == 1 and card.html.count("#ffebe9") == 1
    assert "no difference" in diff_card("a\n", "a\n").text
    assert "- " not in diff_card(oracles.softmax, oracles.softmax).text
    assert "course_lib/oracles.py, lines" in diff_card(oracles.softmax, oracles.logsumexp).text


def test_shown_outside_a_notebook_it_is_printed(capsys):
    show.show_source("course_lib/oracles.py", "softmax")
    show.show_diff("a\n", "b\n")
    out = capsys.readouterr().out
    assert "def softmax(" in out and "+b" in out


@pytest.mark.parametrize(
    ("thing", "name", "words"),
    [
        ("kernels/no_such_file.py", None, "cannot be read"),
        ("course_lib/oracles.py", "softmx", "did you mean 'softmax'"),
        ("course_lib/style.mplstyle", "x", "does not parse|defines no"),
        (len, None, "no Python source"),
        (3, None, "no Python source"),
        ("course_lib", None, "cannot be read"),
    ],
)
def test_bad_input_gets_a_sentence(thing, name, words):
    with pytest.raises(ValueError, match=words):
        source_card(thing, name)
