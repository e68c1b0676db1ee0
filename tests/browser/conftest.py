"""One JupyterLab with a browser page for a module's tests; COURSE_NO_BROWSER=1 skips them, a missing browser does not."""

import os
from pathlib import Path

import pytest

from tools.drive_lab import LabProblem, browser_path, lab


def no_browser() -> str:
    """Why there is no browser; empty where there is one."""
    try:
        browser_path()
    except LabProblem as problem:
        return str(problem)
    return ""


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    if os.environ.get("COURSE_NO_BROWSER") == "1":
        pytest.skip("COURSE_NO_BROWSER=1 was set")
    problem = no_browser()
    if problem:
        pytest.fail(f"the browser test cannot run: {problem} (COURSE_NO_BROWSER=1 leaves these tests out)", pytrace=False)
    with lab(tmp_path_factory.mktemp("lab")) as session:
        yield session


@pytest.fixture(scope="module")
def shots(session, tmp_path_factory):
    """shots("name", element) keeps what the page shows there, in both themes, in the folder that COURSE_SHOTS names."""
    folder = Path(os.environ.get("COURSE_SHOTS") or tmp_path_factory.mktemp("shots"))

    def keep(name: str, element, where: str = "start") -> None:
        for theme in ("dark", "light"):  # light is what the next test expects
            session.theme(theme)
            session.bring(element, where)
            session.picture(folder / f"{name}_{theme}.png")

    return keep
