"""Run cells in a real IPython shell with a judge that decides by a word in the text; print what the panels said, as JSON.

    python notebook_session.py CELLS.json        a process of its own: any IPython from 7.34 on

CELLS.json holds the cells' texts; each is run with its history kept, as a notebook does. Printed is a list, one entry a cell:
{"text": what was displayed, "html": the same, "error": the exception's type or null, "status": that of the last verdict}.
"""

import contextlib
import io
import json
import sys
import types
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parent.parent))


def main() -> None:
    from IPython.core.displaypub import CapturingDisplayPublisher
    from IPython.core.interactiveshell import InteractiveShell

    cells = json.loads(Path(sys.argv[1]).read_text())
    shell = InteractiveShell.instance()
    published = shell.display_pub = CapturingDisplayPublisher(parent=shell)
    judge = types.ModuleType("course_lib.grading.client")
    judge.get_judge = lambda: Judge()
    sys.modules["course_lib.grading.client"] = judge
    seen = []
    for cell in cells:
        published.outputs.clear()
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            result = shell.run_cell(cell, store_history=True)
        error = result.error_before_exec or result.error_in_exec
        panels = [output["data"] for output in published.outputs if "text/html" in output["data"]]
        seen.append(
            {
                "text": "\n".join(panel["text/plain"] for panel in panels),
                "html": "\n".join(panel["text/html"] for panel in panels),
                "error": type(error).__name__ if error else None,
                "result": repr(result.result),
            }
        )
    print(json.dumps(seen))


class Judge:
    """Passes what holds the word RIGHT; the text it got is what was `printed`."""

    def check(self, exercise, text, seed):
        from course_lib.grading.verdict import Verdict

        status = "passed" if "RIGHT" in text else "failed"
        return Verdict(exercise, 3, status, 3 * (status == "passed"), 3, details={"seed": seed, "printed": text})


if __name__ == "__main__":
    main()
