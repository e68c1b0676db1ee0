"""Drive JupyterLab in headless Chromium: start it, open a notebook, run cells, read what is shown, take pictures.

    with lab(folder) as session:
        session.open("03_online_softmax.ipynb")
        session.run_all()

Everything is written below `folder`: Jupyter's settings, a copy of notebooks/, the learner's home. The checkout is only read.
Cells are found by tag or by a piece of their text, never by position. Knows nothing of exercises or grading.
"""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from playwright.sync_api import ElementHandle, Page, sync_playwright
from playwright.sync_api import TimeoutError as PageTimeout

from course_lib.commands.notebook_cells import source_of

ROOT = Path(__file__).resolve().parent.parent
PATIENCE = 120.0  # seconds; a shared machine of two cores may be busy with other things
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run", "--disable-component-update", "--disable-sync")
THEMES = {"light": "JupyterLab Light", "dark": "JupyterLab Dark"}
NOTEBOOK = "window.jupyterapp.shell.currentWidget"


class LabProblem(RuntimeError):
    """JupyterLab or the browser did not do what was asked; the message says what to look at."""


def browser_path() -> str:
    """The first Chromium on PATH."""
    for name in BROWSERS:
        if found := shutil.which(name):
            return found
    raise LabProblem(f"no browser was found (looked for {', '.join(BROWSERS)} on PATH). On Debian and Ubuntu: apt-get install chromium")


@contextmanager
def lab(folder: Path, size: tuple[int, int] = (1280, 800), scale: float = 1.0) -> Iterator["Session"]:
    """A JupyterLab server with a checkout of its own below `folder`, and a browser page of that size."""
    executable = browser_path()  # before anything is started
    checkout, home = _checkout(folder / "checkout"), folder / "home"
    with _server(folder, checkout, home) as (url, token), sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=list(FLAGS))
        try:
            page = browser.new_page(viewport={"width": size[0], "height": size[1]}, device_scale_factor=scale)
            page.set_default_timeout(1000 * PATIENCE)
            yield Session(page, url, token, checkout, home)
        finally:
            browser.close()


def _checkout(folder: Path) -> Path:
    """What a learner's clone has, as far as a notebook sees it: a copy of the notebooks beside the library."""
    shutil.copytree(ROOT / "notebooks", folder / "notebooks", ignore=shutil.ignore_patterns(".ipynb_checkpoints"))
    (folder / "course_lib").symlink_to(ROOT / "course_lib", target_is_directory=True)
    return folder


@contextmanager
def _server(folder: Path, checkout: Path, home: Path) -> Iterator[tuple[str, str]]:
    """(address, token) of a JupyterLab that knows nothing of the settings of whoever runs this."""
    places = {name: folder / "jupyter" / name for name in ("config", "data", "runtime", "settings", "workspaces", "user", "ipython")}
    for place in (*places.values(), home):
        place.mkdir(parents=True)
    shutil.copy(ROOT / "tools" / "lab_settings.json", places["settings"] / "overrides.json")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = {
        "ServerApp.port": port,
        "ServerApp.root_dir": checkout,
        "LabApp.app_settings_dir": places["settings"],
        "LabApp.user_settings_dir": places["user"],
        "LabApp.workspaces_dir": places["workspaces"],
        "LabApp.expose_app_in_browser": True,
    }
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", *(f"--{name}={value}" for name, value in options.items())]
    environment = {
        **os.environ,
        "COURSE_HOME": str(home),
        "JUPYTER_CONFIG_DIR": str(places["config"]),
        "JUPYTER_DATA_DIR": str(places["data"]),
        "JUPYTER_RUNTIME_DIR": str(places["runtime"]),
        "IPYTHONDIR": str(places["ipython"]),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    log = folder / "jupyter" / "log.txt"
    with log.open("w") as out:
        server = subprocess.Popen(command, cwd=checkout, env=environment, stdout=out, stderr=subprocess.STDOUT, start_new_session=True)
    try:
        yield _address(server, places["runtime"], log)
    finally:
        server.terminate()  # it ends its kernels first
        try:
            server.wait(30)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def _address(server: subprocess.Popen, runtime: Path, log: Path) -> tuple[str, str]:
    """Where the server listens, once it says so."""
    said = runtime / f"jpserver-{server.pid}.json"
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if server.poll() is not None:
            break
        try:
            info = json.loads(said.read_text())
            return info["url"], info["token"]
        except (OSError, ValueError):
            time.sleep(0.1)
    raise LabProblem(f"JupyterLab did not start. The end of its log:\n{log.read_text()[-2000:]}")


@dataclass
class Session:
    """One page with JupyterLab in it, and the notebook that was opened last."""

    page: Page
    url: str
    token: str
    checkout: Path
    home: Path
    complaints: list[str] = field(default_factory=list)  # what the browser's console called an error, and the address it came from

    def __post_init__(self) -> None:
        self.page.on("console", lambda said: self._heard(f"{said.text} ({said.location['url']})") if said.type == "error" else None)
        self.page.on("pageerror", lambda error: self._heard(str(error)))

    def open(self, name: str) -> float:
        """Open notebooks/NAME and wait for its kernel; the seconds it took."""
        start = time.perf_counter()
        self.page.goto(f"{self.url}lab/tree/notebooks/{name}?reset&token={self.token}")
        self._until(
            f"(() => {{ const w = window.jupyterapp && {NOTEBOOK};"
            " return w && w.content && w.content.widgets && w.content.widgets.length && w.context.isReady && w.sessionContext.isReady"
            " && w.sessionContext.session && w.sessionContext.session.kernel && w.sessionContext.session.kernel.status === 'idle' })()",
            f"{name} was not open with an idle kernel",
        )
        return time.perf_counter() - start

    def _heard(self, text: str) -> None:
        self.complaints.append(text.replace(self.token, "TOKEN"))

    def _until(self, condition: str, otherwise: str, seconds: float = PATIENCE) -> None:
        try:
            self.page.wait_for_function(condition, timeout=1000 * seconds, polling=100)
        except PageTimeout:
            raise LabProblem(f"{otherwise} after {seconds:.0f} s") from None

    def command(self, name: str, arguments: dict | None = None, seconds: float = PATIENCE) -> float:
        """Have JupyterLab do one of its commands, and wait for its end; the seconds it took."""
        start = time.perf_counter()
        self.page.evaluate(
            "([name, args]) => { window.commandEnded = ''; window.jupyterapp.commands.execute(name, args || {})"
            ".then(() => { window.commandEnded = 'well' }, error => { window.commandEnded = 'badly: ' + error }) }",
            [name, arguments],
        )
        self._until("window.commandEnded", f"{name} had not ended", seconds)
        ended = self.page.evaluate("window.commandEnded")
        if ended != "well":
            raise LabProblem(f"{name} ended {ended}")
        return time.perf_counter() - start

    # ---------------------------------------------------------------- cells

    def cells(self) -> list[dict]:
        """Every cell as it stands in the browser: source, metadata, outputs, as the notebook format has them."""
        return self.page.evaluate(f"{NOTEBOOK}.content.model.cells.length ? {NOTEBOOK}.content.model.toJSON().cells : []")

    def tagged(self, tag: str) -> int:
        """The place of the one cell with that tag."""
        return self._only(f"the tag {tag!r}", lambda cell: tag in cell["metadata"].get("tags", []))

    def holding(self, pattern: str) -> int:
        """The place of the one code cell whose text matches the pattern."""
        return self._only(f"text like {pattern!r}", lambda cell: cell["cell_type"] == "code" and re.search(pattern, source_of(cell), re.M))

    def _only(self, words: str, wanted) -> int:
        found = [place for place, cell in enumerate(self.cells()) if wanted(cell)]
        if len(found) != 1:
            raise LabProblem(f"{len(found)} cells have {words}; there should be one")
        return found[0]

    def source(self, place: int) -> str:
        return source_of(self.cells()[place])

    def write(self, place: int, text: str) -> None:
        """Replace a cell's text, as typing it would."""
        self.page.evaluate(f"([place, text]) => {NOTEBOOK}.content.model.cells.get(place).sharedModel.setSource(text)", [place, text])

    def run(self, place: int) -> float:
        """Run one cell to its end; the seconds it took."""
        self.page.evaluate(f"place => {{ const book = {NOTEBOOK}.content; book.deselectAll(); book.activeCellIndex = place }}", place)
        return self.command("notebook:run-cell")

    def run_all(self) -> float:
        """Run every cell; the seconds it took."""
        return self.command("notebook:run-all-cells", seconds=2 * PATIENCE)

    def errors(self) -> list[str]:
        """The exceptions that stand in the notebook's outputs."""
        outputs = [output for cell in self.cells() for output in cell.get("outputs", [])]
        return [f"{output['ename']}: {output['evalue']}" for output in outputs if output["output_type"] == "error"]

    def node(self, place: int, selector: str = "", when: str = "e => true") -> ElementHandle:
        """The element of a cell, or the first in it that matches the selector, as soon as `when` (JavaScript) is true of it.

        Outputs are drawn after a cell has run, and widgets change after a click: this waits for both.
        """
        self.show(place)
        inside = f".querySelector({json.dumps(selector)})" if selector else ""
        find = f"place => {{ const e = {NOTEBOOK}.content.widgets[place].node{inside}; return e && ({when})(e) ? e : null }}"
        try:
            return self.page.wait_for_function(find, arg=place, polling=100).as_element()
        except PageTimeout:
            shown = self.page.evaluate(f"place => {NOTEBOOK}.content.widgets[place].node.textContent", place)
            raise LabProblem(
                f"the cell shows no {selector or 'element'} for which {when} after {PATIENCE:.0f} s. It shows: {shown[-500:]!r}"
            ) from None

    def show(self, place: int, where: str = "start") -> None:
        """Scroll to a cell."""
        self.page.evaluate(f"([place, where]) => {NOTEBOOK}.content.scrollToItem(place, where)", [place, where])

    def bring(self, element: ElementHandle, where: str = "start") -> None:
        """Scroll until the element stays where it is: cells above it get their height only when they come into view."""
        before = None
        for _ in range(20):
            now = element.evaluate("(e, where) => { e.scrollIntoView({block: where}); return e.getBoundingClientRect().top }", where)
            if now == before:
                return
            before = now
            self.page.wait_for_timeout(200)
        raise LabProblem("the page keeps moving")

    # ---------------------------------------------------------------- looks

    def theme(self, name: str) -> None:
        """Show "light" or "dark"."""
        self.command("apputils:change-theme", {"theme": THEMES[name]})
        self._until(f"document.body.dataset.jpThemeName === {json.dumps(THEMES[name])}", f"the {name} theme was not shown")

    def alone(self) -> None:
        """Leave the notebook alone on the page: no side panels, no status bar."""
        self.command("application:set-mode", {"mode": "single-document"})
        self.page.evaluate("() => { const shell = window.jupyterapp.shell; shell.collapseLeft(); shell.collapseRight() }")
        for side in ("left", "right"):
            self.command("application:toggle-side-tabbar", {"side": side})
        self.command("statusbar:toggle")

    def settle(self) -> None:
        """Wait until pictures are decoded and nothing moves any more."""
        self.page.evaluate("Promise.all([...document.images].filter(i => i.isConnected && i.src).map(i => i.decode().catch(() => null)))")
        self.page.wait_for_timeout(400)

    def picture(self, path: Path, element: ElementHandle | None = None) -> Path:
        """What the page (or one element of it) looks like now, as a PNG."""
        self.settle()
        path.parent.mkdir(parents=True, exist_ok=True)
        (element or self.page).screenshot(path=path)
        return path
