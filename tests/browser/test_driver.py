"""What the driver says when it cannot drive. No browser is started here."""

import pytest

from tools import drive_lab


def test_without_a_browser_it_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(drive_lab.LabProblem, match="apt-get install chromium"), drive_lab.lab(tmp_path / "lab"):
        pass
    assert not (tmp_path / "lab").exists(), "nothing may be started or copied before the browser is found"


@pytest.mark.parametrize("name", drive_lab.BROWSERS)
def test_any_of_the_browsers_will_do(monkeypatch, tmp_path, name):
    (tmp_path / name).write_text("")
    (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert drive_lab.browser_path() == str(tmp_path / name)


def test_a_server_that_does_not_start_shows_its_log(monkeypatch, tmp_path):
    monkeypatch.setattr(drive_lab.sys, "executable", "/bin/echo")
    checkout = tmp_path / "checkout"
    checkout.mkdir()
    with pytest.raises(drive_lab.LabProblem, match="did not start.*\n-m jupyterlab"), drive_lab._server(tmp_path, checkout, tmp_path / "home"):
        pass
