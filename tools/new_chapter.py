"""The empty files of a new chapter: its source, its grading material, its notebook. Overwrites nothing.

    make new N=04      or      python -m tools.new_chapter 4

The chapter must stand in course_lib/chapters.py. Badge, set-up cell and metadata are taken from the notebooks that exist, so
that all chapters start alike. The new notebook fails the lint until it is written: the lint is its list of what is missing.
"""

import argparse
import sys
from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from course_lib.chapters import Chapter, chapter
from course_lib.source import SourceError
from tools.notebook_rules import COLAB
from tools.sync import ROOT, cell_id, read_notebook

SOURCE = '''\
"""Chapter {number:02d}: {title}.

The source of the chapter's exercises: statements, solutions, hints. `make sync` writes the stubs from it.
"""

import torch
from torch import Tensor
'''
CHECKS = '''\
"""Grading material of chapter {number:02d}, {title}: probes, references, rules and mutants, one `Check` an exercise."""

from course_lib.grading.spec import Check

CHECKS: tuple[Check, ...] = ()  # one an exercise, in the order of the chapter
'''
BADGE = (
    "[![Open In Colab](https://colab.research.google.com/assets/colab-badge.svg)]"
    "(https://colab.research.google.com/github/OWNER/REPOSITORY/blob/main/notebooks/{notebook})"
)
IMPORTS = "from torch import Tensor  # what the stubs below name"
NEXT = """\
new_chapter: next (CONTRIBUTING.md has the formats and an example of each):
  1. an exercise in solutions/{stem}.py, and two empty cells for it in the notebook, tagged statement:NAME and exercise:NAME
  2. make sync
  3. its Check in course_lib/checks/{stem}.py, and .venv/bin/python -m pytest tests/test_chapters.py -m "" -k NAME
  4. make notebooks: the lint lists what the notebook is missing"""
SETUP = "from course_lib import check, claim, hint, predict, progress, solution"
SECTIONS = (
    "{promise_capital}.\n\n**Minutes:** **You need:** chapter {before:02d}. **You will be able to:**\n\n- \n- \n- \n\n**A GPU adds:** ",
    "## The first idea",
    "## The kernel",
    "## Predicted and measured",
    "## What others say",
    "## Recap",
    "## Three questions",
    "## Further reading",
)


def notebook_text(new: Chapter, model: nbformat.NotebookNode | None) -> str:
    """The new notebook: badge, title, set-up cell, and the headings in their fixed order."""
    cells = [("markdown", _badge(new, model)), ("markdown", f"# {new.title}")]
    cells += [("markdown", SECTIONS[0].format(promise_capital=new.promise[0].upper() + new.promise[1:], before=max(new.number - 1, 0)))]
    cells += [("code", _setup(model)), ("code", IMPORTS)] + [("markdown", text) for text in SECTIONS[1:]]
    notebook = new_notebook(metadata={**COLAB, "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}})
    for position, (kind, text) in enumerate(cells):
        cell = new_code_cell(text) if kind == "code" else new_markdown_cell(text)
        cell["id"] = cell_id(new.stem, str(position))
        notebook.cells.append(cell)
    return nbformat.v4.writes(notebook) + "\n"


def _badge(new: Chapter, model: nbformat.NotebookNode | None) -> str:
    first = model.cells[0]["source"] if model and model.cells else ""
    name = model.metadata.get("course_name", "") if model else ""
    return first.replace(name, f"{new.stem}.ipynb") if name and "colab-badge" in first else BADGE.format(notebook=f"{new.stem}.ipynb")


def _setup(model: nbformat.NotebookNode | None) -> str:
    return next((cell["source"] for cell in model.cells if cell["cell_type"] == "code"), SETUP) if model else SETUP


def _model(root: Path) -> nbformat.NotebookNode | None:
    """The last notebook that is a chapter, to take badge and set-up from."""
    paths = sorted(path for path in (root / "notebooks").glob("[0-9][0-9]_*.ipynb") if not path.name.startswith("00_"))
    if not paths:
        return None
    model = read_notebook(paths[-1])
    model.metadata["course_name"] = paths[-1].name
    return model


def files(new: Chapter, root: Path) -> dict[Path, str]:
    """The texts of the chapter's files by path."""
    stem = f"ch{new.stem}"
    return {
        root / "solutions" / f"{stem}.py": SOURCE.format(number=new.number, title=new.title),
        root / "course_lib" / "checks" / f"{stem}.py": CHECKS.format(number=new.number, title=new.title),
        root / "notebooks" / f"{new.stem}.ipynb": notebook_text(new, _model(root)),
    }


def main(argv: list[str] | None = None, root: Path = ROOT) -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.new_chapter", description="the empty files of a new chapter")
    parser.add_argument("number", nargs="?", help="its number, such as 04")
    text = parser.parse_args(argv).number
    if text is None or not text.isdecimal():
        print(f"new_chapter: say which chapter, by its number: make new N=04{'' if text is None else f' (not {text!r})'}", file=sys.stderr)
        return 2
    try:
        wanted = files(chapter(int(text)), root)
    except (ValueError, SourceError) as error:
        print(f"new_chapter: {error}", file=sys.stderr)
        return 2
    for path, content in wanted.items():
        checks_package = path.with_suffix("")
        if path.exists() or checks_package.is_dir():
            print(f"kept     {path.relative_to(root)}")
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
        print(f"written  {path.relative_to(root)}")
    print(NEXT.format(stem=f"ch{chapter(int(text)).stem}"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
