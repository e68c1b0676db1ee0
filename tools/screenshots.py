"""Make the README's two pictures from the notebook itself, in a real browser.

    python -m tools.screenshots docs/images

chapter03.png: the top of chapter 03. diagnosis.png: what a wrong merge_states is told, under the lines that are wrong.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from course_lib.commands.notebook_cells import source_of
from course_lib.grading import catalogue
from tools.drive_lab import LabProblem, Session, lab

NOTEBOOK, EXERCISE, MISTAKE = "03_online_softmax.ipynb", "merge_states", "acc-not-rescaled"
SIZE, SCALE = (1000, 715), 1.28  # 1280 pixels wide, and as high as the title with the opening figure needs
TALL = {"width": 1000, "height": 1200}  # an answer and its panel in one view
PANEL = ".jp-OutputArea-output [role=status]"
_CORNER = "(e, [y, x]) => [e.getBoundingClientRect()[y], e.closest('.jp-Cell').getBoundingClientRect()[x]]"
LINES = 8  # of the answer, above `check(...)`


def chapter(session: Session, path: Path) -> Path:
    """The chapter's title and its opening figure, from the title's cell on: the badge above it needs the network."""
    title = next(place for place, cell in enumerate(session.cells()) if source_of(cell).startswith("# "))
    session.bring(session.node(title))
    return session.picture(path)


def diagnosis(session: Session, path: Path) -> Path:
    """A wrong answer's last lines and its panel."""
    place = session.tagged(f"exercise:{EXERCISE}")
    imports = [at for at, cell in enumerate(session.cells()[:place]) if cell["cell_type"] == "code" and "import" in source_of(cell)]
    for at in imports:
        session.run(at)
    (mutant,) = [mutant for mutant in catalogue.checks(3)[EXERCISE].mutants if mutant.id == MISTAKE]
    session.write(place, f"{mutant.text(catalogue.find(EXERCISE).solution).rstrip()}\n\ncheck({EXERCISE})")
    session.run(place)
    panel = session.node(place, PANEL)
    lines = session.node(place).query_selector_all(".cm-line")[-LINES - 2 :]
    session.page.set_viewport_size(TALL)
    session.bring(panel, "center")
    session.settle()
    (top, left), (bottom, right) = lines[0].evaluate(_CORNER, ["top", "left"]), panel.evaluate(_CORNER, ["bottom", "right"])
    path.parent.mkdir(parents=True, exist_ok=True)
    session.page.screenshot(path=path, clip={"x": left, "y": top - 6, "width": right - left - 6, "height": bottom - top + 14})
    return path


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.screenshots", description="make the README's pictures")
    parser.add_argument("folder", type=Path, help="where to write chapter03.png and diagnosis.png")
    folder = parser.parse_args(argv).folder
    try:
        with tempfile.TemporaryDirectory(prefix="course-pictures-") as scratch, lab(Path(scratch), SIZE, SCALE) as session:
            session.open(NOTEBOOK)
            session.alone()
            for path in (chapter(session, folder / "chapter03.png"), diagnosis(session, folder / "diagnosis.png")):
                print(path)
    except LabProblem as problem:
        print(f"screenshots: {problem}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
