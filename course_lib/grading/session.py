"""What ran in this notebook: the texts of the executed cells, and how far each of them got. Works on IPython 7.34 and 9.

Cells that ran before the course was imported are taken from IPython's history and believed to have run whole; from then on
a hook sees where a cell stopped. Knows nothing of exercises.
"""

import sys
import threading
from collections.abc import Callable
from types import FrameType, TracebackType

from course_lib.grading.answer import Cell

_recorders: dict[int, "Recorder"] = {}


def shell():
    """The IPython shell this code runs in; None in a plain Python or a script."""
    if "IPython" not in sys.modules:
        return None
    from IPython import get_ipython

    return get_ipython()


def in_kernel() -> bool:
    """Whether a notebook kernel runs this code (not IPython in a terminal, not a script)."""
    return hasattr(shell(), "kernel")


def in_background(action: Callable[[], None]) -> None:
    """Do something while the reader reads; it ends with the process."""
    threading.Thread(target=action, daemon=True).start()


def recorder() -> "Recorder | None":
    """The recorder of this session, listening from the first call on; None where there is no notebook."""
    ip = shell()
    if ip is None:
        return None
    if id(ip) not in _recorders:
        _recorders[id(ip)] = Recorder(ip)
    return _recorders[id(ip)]


class Recorder:
    """Remembers every cell of one shell, in the order in which they ran."""

    def __init__(self, ip):
        self.ip = ip
        self._texts: list[tuple[str, int | None]] = []
        for text in list(getattr(ip.history_manager, "input_hist_parsed", []))[1:]:
            self._texts.append((text, None))
        self._running = self._is_last_cell_running()
        ip.events.register("pre_run_cell", self._begin)
        ip.events.register("post_run_cell", self._end)

    def _is_last_cell_running(self) -> bool:
        return bool(self._texts) and self._line_now() is not None

    def _begin(self, info=None) -> None:
        self._texts.append((self._plain(getattr(info, "raw_cell", "") or ""), None))
        self._running = True

    def _end(self, result=None) -> None:
        if self._running and self._texts:
            text, _ = self._texts[-1]
            self._texts[-1] = (text, self._stopped_at(result))
        self._running = False

    def _plain(self, raw: str) -> str:
        """The cell as Python: magics and shell lines become calls of get_ipython()."""
        try:
            return self.ip.transform_cell(raw)
        except Exception:  # a cell that cannot be read does not run
            return raw

    def _stopped_at(self, result) -> int | None:
        if getattr(result, "error_before_exec", None) is not None:
            return 0
        error = getattr(result, "error_in_exec", None)
        return None if error is None else (self._line_of(error.__traceback__) or 0)

    def _line_of(self, tb: TracebackType | None) -> int | None:
        line = None
        while tb is not None:
            if self._is_cell(tb.tb_frame):
                line = tb.tb_lineno
            tb = tb.tb_next
        return line

    def _line_now(self) -> int | None:
        """The line of the running cell that is being executed; None when no cell is."""
        frame = sys._getframe()
        while frame is not None:
            if self._is_cell(frame):
                return frame.f_lineno
            frame = frame.f_back
        return None

    def _is_cell(self, frame: FrameType) -> bool:
        name = frame.f_code.co_name
        return (frame.f_globals is self.ip.user_ns or frame.f_globals is self.ip.user_global_ns) and (
            name == "<module>" or name.startswith("<cell line")
        )

    def cells(self) -> list[Cell]:
        """Every cell that ran, the running one up to the line that is asking."""
        found = []
        for number, (text, stopped_at) in enumerate(self._texts):
            if self._running and number == len(self._texts) - 1:
                stopped_at = self._line_now()
            found.append(Cell(self._inside(text), stopped_at))
        return found

    def _inside(self, text: str) -> str:
        """The body of a `%%time` or `%%capture` cell, which runs among the notebook's names; any other text as it is."""
        import ast

        if "run_cell_magic" not in text:
            return text
        try:
            call = ast.parse(text.strip()).body[0].value
            magic, _, body = (argument.value for argument in call.args)
        except (SyntaxError, ValueError, AttributeError, IndexError):
            return text
        return self._plain(body) if magic in ("time", "capture") else text
