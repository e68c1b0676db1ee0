"""What this machine can run: one of three tiers, decided once, before triton is imported.

    interpreter   no usable GPU: Triton kernels run in Triton's interpreter, on the CPU, slowly and exactly
    compiled      a CUDA GPU of capability 7.5 or more
    hopper        a CUDA GPU of capability 9.x (wgmma exists on sm_90a only)

It asks nvidia-smi and reads torch's version file: no torch operation and no torch.cuda call happens here, so that
a process which forks after asking can still use the GPU in its children.
"""

import importlib.util
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

TIERS = ("interpreter", "compiled", "hopper")
_ON_COLAB = "On Colab choose Runtime > Change runtime type > T4, then run the notebook again."
_NEEDS = {
    "triton": "Triton has no package for this system. Use Colab, or WSL on Windows.",
    "gpu": f"It needs a CUDA GPU of compute capability 7.5 or more. {_ON_COLAB}",
    "hopper": "It needs a GPU of compute capability 9.x (H100, H200, H20).",
}


@dataclass(frozen=True)
class Gpu:
    name: str
    capability: tuple[int, int]
    memory_mib: int
    uuid: str = ""

    def __str__(self) -> str:
        return f"{self.name} (compute capability {self.capability[0]}.{self.capability[1]}, {self.memory_mib / 1024:.0f} GiB)"


@dataclass(frozen=True)
class Decision:
    tier: str
    why: str  # a sentence
    gpu: Gpu | None = None
    warning: str = ""  # what will go wrong, and how to mend it


def tier() -> str:
    """interpreter, compiled or hopper. Decided at the first call; without a GPU it sets TRITON_INTERPRET=1."""
    return decision().tier


@lru_cache(maxsize=1)
def decision() -> Decision:
    """The decision with its reason. The first call may set TRITON_INTERPRET, and later calls change nothing."""
    made = decide(os.environ, visible_gpus(), torch_cuda_version(), "triton" in sys.modules)
    if made.tier == "interpreter" and "triton" not in sys.modules:
        os.environ["TRITON_INTERPRET"] = "1"
    return made


def describe() -> str:
    """What was decided and why, in words."""
    made = decision()
    how = {
        "interpreter": "Triton kernels run in the interpreter, on the CPU: right values and byte counts, no speed.",
        "compiled": "Triton kernels are compiled for the GPU.",
        "hopper": "Triton kernels are compiled for the GPU, the Hopper files too.",
    }[made.tier]
    if not has_triton():
        how = f"Triton is not installed: exercises with a kernel are blocked. {_NEEDS['triton']}"
    return " ".join(part for part in (f"Tier: {made.tier}. {made.why}", how, made.warning) if part)


def blocked(need: str, what: str = "This exercise") -> str | None:
    """None where this machine has what is needed ("triton", "gpu" or "hopper"), else the sentence that says what to do."""
    if need not in _NEEDS:
        raise ValueError(f"blocked: {need!r} is not known; choose one of {', '.join(_NEEDS)}")
    have = {"triton": has_triton(), "gpu": tier() != "interpreter", "hopper": tier() == "hopper"}[need]
    if have:
        return None
    return f"{what} is blocked here. {_NEEDS[need]} Everything else in this chapter works without it."


def has_triton() -> bool:
    """Whether triton is installed; it is not imported."""
    return "triton" in sys.modules or importlib.util.find_spec("triton") is not None


def decide(environ, gpus: list[Gpu], cuda_of_torch: str | None, triton_imported: bool) -> Decision:
    """The rule, from facts alone: environment variables, the GPUs that can be seen, torch's CUDA version, and whether it is too late."""
    asked = environ.get("TRITON_INTERPRET", "").lower() in ("1", "true", "yes", "on")
    best = gpus[0] if gpus else None
    if asked:
        return Decision("interpreter", "TRITON_INTERPRET is set.", best)
    late = ""
    if triton_imported:
        late = "triton was imported before the tier was decided: restart the kernel and run the set-up cell first."
    if best is None:
        return Decision("interpreter", "No CUDA GPU was found (nvidia-smi lists none).", None, late)
    if cuda_of_torch is None:
        return Decision("interpreter", f"There is a {best}, but the installed torch is a build without CUDA.", best, late)
    if best.capability < (7, 5):
        return Decision("interpreter", f"The {best} is older than capability 7.5, the first that Triton compiles for.", best, late)
    return Decision("hopper" if best.capability[0] == 9 else "compiled", f"Found a {best}.", best)


def visible_gpus() -> list[Gpu]:
    """The GPUs this process may use, in CUDA's order: nvidia-smi's list, cut to CUDA_VISIBLE_DEVICES."""
    command = ["nvidia-smi", "--query-gpu=name,compute_cap,memory.total,uuid", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return _chosen(parse_gpus(answer.stdout), os.environ.get("CUDA_VISIBLE_DEVICES")) if answer.returncode == 0 else []


def parse_gpus(text: str) -> list[Gpu]:
    """nvidia-smi's lines as data; a line that does not look like a GPU is skipped."""
    gpus = []
    for line in text.splitlines():
        found = re.match(r"(.+), (\d+)\.(\d+), ([^,]*), (\S+)\s*$", line)
        if found:
            name, major, minor, memory, uuid = found.groups()
            memory_mib = int(float(memory)) if re.fullmatch(r"[\d.]+", memory) else 0  # a driver may answer [N/A]
            gpus.append(Gpu(name.strip(), (int(major), int(minor)), memory_mib, uuid))
    return gpus


def _chosen(gpus: list[Gpu], visible: str | None) -> list[Gpu]:
    """CUDA's rule: the listed indices or UUID prefixes, up to the first that does not exist."""
    if visible is None:
        return gpus
    out = []
    for word in (part.strip() for part in visible.split(",")):
        if word.startswith("MIG-"):
            return out or gpus  # slices are not in this list: the card that carries them is
        match = [gpus[int(word)]] if word.isdigit() and int(word) < len(gpus) else [g for g in gpus if word and g.uuid.startswith(word)]
        if len(match) != 1:
            break
        out += match
    return out


def torch_cuda_version() -> str | None:
    """The CUDA version torch was built with, None for a build without; read from its version file, torch stays unimported."""
    spec = importlib.util.find_spec("torch")
    if spec is None or not spec.origin:
        return None
    try:
        text = (Path(spec.origin).parent / "version.py").read_text()
    except OSError:
        return None
    found = re.search(r"^cuda(?:\s*:[^=]+)?\s*=\s*['\"]([^'\"]+)['\"]", text, re.MULTILINE)
    return found.group(1) if found else None
