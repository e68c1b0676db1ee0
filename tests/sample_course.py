"""A course of one exercise and one notebook that breaks no rule, for the tests of the tools."""

from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from tools import sync
from tools.notebook_rules import COLAB

SOURCE = '''\
"""Chapter 03: A sample.

What only solutions/ says.
"""

import torch
from torch import Tensor

# %% exercise double | core | 5 minutes | 2 points | torch
# hint: What is two times x?
# hint: Add it to itself.
# hint: return x + ...
def double(x: Tensor) -> Tensor:
    """Twice the input.

    x        [..., N]
    returns  [..., N]

    Source: arithmetic.
    """
    # solution
    return x + x  # the taught line
    # end


# %% exercise mend_half | more | 5 minutes | 1 point | torch
# hint: What is half of x?
# hint: Divide.
# hint: x / ...
def mend_half(x: Tensor) -> Tensor:
    """Half the input.

    x        [..., N]
    returns  [..., N]

    Source: arithmetic.
    """
    whole = torch.as_tensor(x)
    # solution
    return whole / 2
    # instead
    #| return whole / 3
    # end
'''
BADGE = "[![Open In Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://example.org/notebooks/03_sample.ipynb)"
ENDING = "## Recap\n\nFive lines.\n\n" + "<details><summary>Why?</summary>Because.</details>\n\n" * 3 + "## Further reading\n\nThe paper, section 2."


def good_notebook() -> nbformat.NotebookNode:
    """A notebook without a failure; its house numbers are small, so it draws warnings."""
    notebook = new_notebook(metadata={**COLAB, "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}})
    notebook.cells = [
        new_markdown_cell(BADGE),
        new_markdown_cell("# Can one pass do?"),
        new_code_cell("from course_lib import check, claim, figures, predict"),
        new_markdown_cell("A sentence."),
        new_code_cell('predict("bytes", "How many?")\nfigures.bars()'),
        new_code_cell('claim("said", source="a paper, section 1")'),
    ]
    for name in ("double", "mend_half"):
        notebook.cells.append(new_markdown_cell("", metadata={"tags": [f"statement:{name}"]}))
        notebook.cells[-1]["source"] = "Compute it.\n\nA second paragraph."
        notebook.cells.append(new_code_cell("", metadata={"tags": [f"exercise:{name}"]}))
    notebook.cells.append(new_markdown_cell(ENDING))
    for position, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{position}"
    return notebook


def write(root: Path, synced: bool = True) -> Path:
    """Write the sample course under `root`; returns the notebook's path."""
    (root / "solutions").mkdir(parents=True)
    (root / "notebooks").mkdir()
    (root / "solutions" / "ch03_sample.py").write_text(SOURCE, encoding="utf-8")
    path = root / "notebooks" / "03_sample.ipynb"
    save(good_notebook(), path)
    if synced:
        assert sync.main([], root) == 0
    return path


def load(path: Path) -> nbformat.NotebookNode:
    return nbformat.v4.reads(path.read_text(encoding="utf-8"))


def save(notebook: nbformat.NotebookNode, path: Path) -> None:
    path.write_text(nbformat.v4.writes(notebook) + "\n", encoding="utf-8")


def cell_of(notebook: nbformat.NotebookNode, tag: str) -> nbformat.NotebookNode:
    return next(cell for cell in notebook.cells if tag in cell["metadata"].get("tags", []))
