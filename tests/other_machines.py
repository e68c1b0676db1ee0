"""The machines that people use besides their own, by their versions; and whether pip reaches a package index from here."""

import subprocess
import sys

import pytest

COLAB_STACK = {
    "ipython": "7.34.0",
    "ipykernel": "6.17.1",
    "ipywidgets": "7.7.1",
    "matplotlib": "3.10.0",
    "numpy": "2.1.3",
}  # as in its image of 2026-08
COLAB = {"torch": "2.11.0", "triton": "3.6.0", **COLAB_STACK}
H200 = {"torch": "2.11.0", "triton": "3.6.0", "numpy": "2.5.0", "safetensors": "0.8.0", "tokenizers": "0.23.2", "huggingface-hub": "1.33.0"}


def pip(*arguments: str, python: str = sys.executable) -> subprocess.CompletedProcess:
    return subprocess.run([python, "-m", "pip", *arguments], capture_output=True, text=True, timeout=280)


def need_index() -> None:
    """Skip, with the reason in a sentence, where pip reaches no package index."""
    if pip("index", "versions", "packaging", "--retries", "0", "--timeout", "15").returncode:
        pytest.skip("pip reaches no package index from here, so nothing can be resolved or installed")
