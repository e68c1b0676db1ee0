"""The tier: decided from facts, once, before triton is imported, without touching torch or CUDA."""

import os
import subprocess
import sys

import pytest

from course_lib import hardware
from course_lib.hardware import Gpu, decide, parse_gpus
from course_lib.paths import ROOT

LINES = """NVIDIA H200, 9.0, 143771, GPU-aaaa-1
Tesla T4, 7.5, 15360, GPU-bbbb-2
NVIDIA GB10, 12.1, [N/A], GPU-cccc-3
a line of something else
"""
H200, T4, GB10 = parse_gpus(LINES)
P100 = Gpu("Tesla P100", (6, 0), 16384)


def test_parsing():
    assert (H200.name, H200.capability, H200.memory_mib) == ("NVIDIA H200", (9, 0), 143771)
    assert GB10.capability == (12, 1) and GB10.memory_mib == 0
    assert parse_gpus("NVIDIA-SMI has failed because it couldn't communicate") == []
    assert str(T4) == "Tesla T4 (compute capability 7.5, 15 GiB)"


@pytest.mark.parametrize(
    ("environ", "gpus", "cuda", "tier", "words"),
    [
        ({}, [H200], "12.8", "hopper", "H200"),
        ({}, [T4], "12.8", "compiled", "T4"),
        ({}, [GB10], "13.0", "compiled", "GB10"),
        ({}, [P100], "12.8", "interpreter", "older than capability 7.5"),
        ({}, [], "12.8", "interpreter", "No CUDA GPU"),
        ({}, [H200], None, "interpreter", "without CUDA"),
        ({"TRITON_INTERPRET": "1"}, [H200], "12.8", "interpreter", "TRITON_INTERPRET is set"),
        ({"TRITON_INTERPRET": "0"}, [H200], "12.8", "hopper", "H200"),
    ],
)
def test_the_rule(environ, gpus, cuda, tier, words):
    made = decide(environ, gpus, cuda, triton_imported=False)
    assert made.tier == tier and words in made.why and not made.warning


def test_too_late_is_said():
    assert "restart the kernel" in decide({}, [], None, triton_imported=True).warning


@pytest.mark.parametrize(
    ("visible", "names"),
    [
        (None, ["NVIDIA H200", "Tesla T4", "NVIDIA GB10"]),
        ("1", ["Tesla T4"]),
        ("2,0", ["NVIDIA GB10", "NVIDIA H200"]),
        ("", []),
        ("-1", []),
        ("0,-1,1", ["NVIDIA H200"]),
        ("GPU-bbbb", ["Tesla T4"]),
        ("7", []),
    ],
)
def test_visible_devices(visible, names):
    assert [gpu.name for gpu in hardware._chosen([H200, T4, GB10], visible)] == names


def run(code: str, **env) -> str:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("TRITON", "CUDA_VIS"))}
    done = subprocess.run([sys.executable, "-c", code], env={**clean, "PYTHONPATH": str(ROOT), **env}, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


FAKE = "#!/bin/sh\nprintf '%s' \"$FAKE_GPUS\"\nexit ${FAKE_RC:-0}\n"


@pytest.fixture
def fake_smi(tmp_path):
    script = tmp_path / "nvidia-smi"
    script.write_text(FAKE)
    script.chmod(0o755)
    return {"PATH": f"{tmp_path}:/usr/bin:/bin"}


SAY = """
import os, sys
from course_lib import hardware as h
h.torch_cuda_version = lambda: '12.8'
print(h.tier(), os.environ.get('TRITON_INTERPRET'), 'torch' in sys.modules, 'triton' in sys.modules)
"""


def test_a_fresh_process_without_a_gpu(fake_smi):
    assert run(SAY, **fake_smi, FAKE_GPUS="") == "interpreter 1 False False"
    assert run(SAY, **fake_smi, FAKE_GPUS="broken", FAKE_RC="9") == "interpreter 1 False False"


def test_a_fresh_process_with_a_gpu(fake_smi):
    assert run(SAY, **fake_smi, FAKE_GPUS=LINES) == "hopper None False False"
    assert run(SAY, **fake_smi, FAKE_GPUS=LINES, CUDA_VISIBLE_DEVICES="1") == "compiled None False False"
    assert run(SAY, **fake_smi, FAKE_GPUS=LINES, CUDA_VISIBLE_DEVICES="") == "interpreter 1 False False"


def test_it_stays_decided_and_describes_itself(fake_smi):
    code = """
import os
from course_lib import hardware as h
h.torch_cuda_version = lambda: '12.8'
first = h.tier()
os.environ['CUDA_VISIBLE_DEVICES'] = ''
print(first == h.tier(), h.describe(), h.blocked('gpu'), h.blocked('hopper'))
"""
    said = run(code, **fake_smi, FAKE_GPUS=LINES.splitlines()[1])
    assert (
        said.startswith("True Tier: compiled. Found a Tesla T4 (compute capability 7.5, 15 GiB).") and "None This exercise is blocked here." in said
    )


def test_blocked_sentences(monkeypatch):
    monkeypatch.setattr(hardware, "tier", lambda: "interpreter")
    assert "Runtime > Change runtime type > T4" in hardware.blocked("gpu") and "H200" in hardware.blocked("hopper")
    monkeypatch.setattr(hardware, "tier", lambda: "hopper")
    assert hardware.blocked("gpu") is None and hardware.blocked("hopper") is None
    monkeypatch.setattr(hardware, "has_triton", lambda: False)
    assert "WSL" in hardware.blocked("triton", "softmax_rows") and hardware.blocked("triton", "softmax_rows").startswith("softmax_rows is blocked")
    with pytest.raises(ValueError, match="choose one of triton, gpu, hopper"):
        hardware.blocked("tpu")


def test_torchs_cuda_version_is_read_from_its_file(tmp_path, monkeypatch):
    import torch

    assert hardware.torch_cuda_version() == torch.version.cuda
    package = tmp_path / "torch"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "version.py").write_text("cuda: Optional[str] = '12.8'\n")

    class Spec:
        origin = str(package / "__init__.py")

    monkeypatch.setattr(hardware.importlib.util, "find_spec", lambda name: Spec)
    assert hardware.torch_cuda_version() == "12.8"
    (package / "version.py").unlink()
    assert hardware.torch_cuda_version() is None
