"""Make a hosted notebook (Colab, Kaggle) ready for the course: install what the host lacks, upgrade nothing it has.

Never touches torch, numpy, IPython or ipywidgets: the host's own versions work together, others may not.

Run: python tools/hosted.py   (the set-up cell of every notebook does, and only on such a host)
"""

import importlib.metadata
import importlib.util
import subprocess
import sys

TRITON_FOR_TORCH = {"2.9": "3.5.1", "2.10": "3.6.0", "2.11": "3.6.0", "2.12": "3.7.0", "2.13": "3.7.1"}  # the pairs that torch's own wheels require
NEEDED = ("rich", "tqdm", "matplotlib", "ipywidgets", "safetensors", "tokenizers")


def missing() -> list[str]:
    """Requirements for pip: only packages that are not there."""
    wanted = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if importlib.util.find_spec("triton") is None:
        torch = ".".join(importlib.metadata.version("torch").split(".")[:2])
        wanted.append(f"triton=={TRITON_FOR_TORCH[torch]}" if torch in TRITON_FOR_TORCH else "triton")
    return wanted


def main() -> int:
    wanted = missing()
    if not wanted:
        print("course: nothing to install, this machine has everything")
        return 0
    print(f"course: installing {', '.join(wanted)}")
    result = subprocess.run([sys.executable, "-m", "pip", "install", "-q", *wanted])
    if result.returncode:
        print(
            "course: the installation failed. Check that the notebook may use the internet (on Kaggle: Settings > Internet), then run this cell again."
        )
    return result.returncode


if __name__ == "__main__":
    sys.exit(main())
