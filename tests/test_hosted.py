"""The set-up of a hosted notebook installs what is missing, and never what the host's own packages depend on. Installs nothing here."""

import importlib.metadata
import importlib.util
import re
import subprocess
import sys
import types

import pytest
from other_machines import COLAB
from packaging.requirements import Requirement

from tools import hosted
from tools.pins import TRITON, pyproject

UNTOUCHED = {"torch", "numpy", "ipython", "ipykernel", "ipywidgets", "matplotlib"}


@pytest.fixture
def host(monkeypatch):
    """A machine without the packages named, with that torch; returns pip's command lines as they would have run."""
    ran = []
    find, version = importlib.util.find_spec, importlib.metadata.version

    def without(*names, torch=COLAB["torch"], code=0):
        monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name in names else find(name, *rest) or True)
        monkeypatch.setattr(importlib.metadata, "version", lambda name: torch if name == "torch" else version(name))
        monkeypatch.setattr(subprocess, "run", lambda command, **_: ran.append(command) or types.SimpleNamespace(returncode=code))
        return ran

    return without


def test_a_host_with_everything_installs_nothing(host, capsys):
    ran = host()
    assert hosted.main() == 0 and ran == []
    assert "nothing to install" in capsys.readouterr().out


@pytest.mark.parametrize("torch", [COLAB["torch"], "2.11.0+cu128", "2.11.0+cpu"])
def test_colab_without_triton_gets_the_one_of_its_torch(host, torch, capsys):
    ran = host("triton", torch=torch)
    assert hosted.main() == 0
    assert ran == [[sys.executable, "-m", "pip", "install", "-q", f"triton=={COLAB['triton']}"]]
    assert f"installing triton=={COLAB['triton']}" in capsys.readouterr().out


def test_a_torch_that_nobody_knows_yet(host):
    host("triton", torch="2.99.1")
    assert hosted.missing() == ["triton"]


def test_only_what_is_missing_is_asked_for(host):
    host("rich", "triton")
    assert hosted.missing() == ["rich", f"triton=={COLAB['triton']}"]


def test_what_a_host_has_is_not_upgraded(host):
    host("triton", "rich", "tqdm")
    assert not UNTOUCHED & {re.split(r"[^\w-]", text)[0] for text in hosted.missing()}


def test_a_failed_installation_says_what_to_look_at(host, capsys):
    host("triton", code=1)
    assert hosted.main() == 1
    assert "Check that the notebook may use the internet" in capsys.readouterr().out


def test_the_pairs_lie_within_the_ranges_and_hold_the_pinned_one():
    ranges = {Requirement(text).name: Requirement(text).specifier for text in pyproject()["project"]["dependencies"]}
    for torch, triton in hosted.TRITON_FOR_TORCH.items():
        if ranges["torch"].contains(f"{torch}.0"):
            assert ranges["triton"].contains(triton), f"torch {torch} would get triton {triton}, which pyproject.toml refuses"
    assert TRITON in hosted.TRITON_FOR_TORCH.values()
