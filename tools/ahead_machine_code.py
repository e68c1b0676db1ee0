"""Reads the machine code that the assembler made: does it use a register that nothing ever wrote?

The assembler of CUDA 12.8 (in Triton 3.6 and 3.7) can do that on sm_90: given a product whose left operand is partly a constant 0, it took the
address of the right one from a uniform register that it never set, and flash_backward_dkdv gave wrong gradients for one query. The interpreter
cannot show it, and a GPU shows it only on such a length. Knows nothing of kernels.
"""

import re
import subprocess
import tempfile
from pathlib import Path

UNIFORM = re.compile(r"\bUR(\d+)\b")


def unwritten(machine_code: str) -> list[str]:
    """The uniform registers that some instruction of nvdisasm's text reads and none writes, as "UR9"."""
    written, read = set(), set()
    for line in machine_code.splitlines():
        found = re.match(r"\s*/\*[0-9a-f]{4,}\*/\s*(?:@!?U?P\w+ )?\s*([A-Z][\w.]*)\s*([^;]*);", line)
        if not found:
            continue
        operation, operands = found[1], [part.strip() for part in found[2].split(",")]
        target = UNIFORM.fullmatch(operands[0])
        if target:
            wide = 4 if ".128" in operation else 2 if ".64" in operation or ".WIDE" in operation else 1
            written |= set(range(int(target[1]), int(target[1]) + wide))
        read |= {n for part in operands[1 if target else 0 :] for n in _read(part, operands)}
    return [f"UR{n}" for n in sorted(read - written)]


def _read(part: str, operands: list[str]) -> set[int]:
    """The uniform registers of one operand. A product's gdesc[UR4] is four: left operand's address in UR4 and UR5, unless it comes in registers; right's."""
    if product := re.match(r"gdesc\[UR(\d+)\]", part):
        first = int(product[1])
        in_registers = operands.index(part) > 1  # HGMMA R88, R24, gdesc[UR16], ...: the left operand is R24
        return set(range(first + 2 if in_registers else first, first + 4))
    return {int(n) for n in UNIFORM.findall(part)}


def unwritten_in(cubin: bytes) -> list[str]:
    """The same of a compiled kernel, by the disassembler that Triton carries."""
    from triton import knobs

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "kernel.cubin"
        file.write_bytes(cubin)
        text = subprocess.run([knobs.nvidia.nvdisasm.path, "-c", str(file)], capture_output=True, text=True, check=True, timeout=60).stdout
    return unwritten(text)
