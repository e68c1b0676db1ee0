"""Reads the machine code that the assembler made: does it use a register before anything has written it?

The assembler of CUDA 12.8 (in Triton 3.6 and 3.7) can do that on sm_90: given a product whose left operand is partly a constant 0, it took the
address of the right one from a uniform register that it had not set yet, or never set, and the backward kernels gave wrong gradients for one query or
one key. The interpreter cannot show it, and a GPU shows it only on such a length. What no way reaches is not looked at. Knows nothing of kernels.
"""

import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

UNIFORM = re.compile(r"\bUR(\d+)\b")
LINE = re.compile(r"\s*/\*([0-9a-f]{4,})\*/\s*(@!?U?P\w+ )?\s*([A-Z][\w.]*)\s*([^;]*);")
LABEL = re.compile(r"\s*(\.\w+):")


@dataclass
class Instruction:
    """One instruction: the uniform registers that it reads and writes, and where it may go on."""

    reads: set[int]
    writes: set[int]
    goes_on: bool  # to the next one
    jumps: list[str]  # to these labels


def unwritten(machine_code: str) -> list[str]:
    """The uniform registers that some instruction of nvdisasm's text reads where a way to it has not written them, as "UR9".

    A write under a condition counts as one: which conditions go together is not followed.
    """
    instructions, labels, starts = _parsed(machine_code)
    before: list[set[int] | None] = [None] * len(instructions)  # what every way to an instruction has written; None: not reached yet
    waiting = [(start, set()) for start in starts]
    while waiting:
        at, written = waiting.pop()
        if at >= len(instructions) or (before[at] is not None and before[at] <= written):
            continue
        before[at] = written if before[at] is None else written & before[at]
        one = instructions[at]
        after = before[at] | one.writes
        waiting += [(labels[name], after) for name in one.jumps if name in labels]
        waiting += [(at + 1, after)] if one.goes_on else []
    return [f"UR{n}" for n in sorted({n for one, known in zip(instructions, before, strict=True) if known is not None for n in one.reads - known})]


def _parsed(machine_code: str) -> tuple[list[Instruction], dict[str, int], list[int]]:
    """(the instructions, {label: number of its first one}, the first ones of all functions)."""
    instructions: list[Instruction] = []
    labels: dict[str, int] = {}
    starts, last = [], 1 << 60
    for line in machine_code.splitlines():
        if label := LABEL.match(line):
            labels[label[1]] = len(instructions)
        if found := LINE.match(line):
            if int(found[1], 16) <= last:  # addresses begin anew
                starts.append(len(instructions))
            last = int(found[1], 16)
            instructions.append(_instruction(bool(found[2]), found[3], found[4]))
    return instructions, labels, starts


def _instruction(conditional: bool, operation: str, text: str) -> Instruction:
    operands = [part.strip() for part in text.split(",")]
    target = UNIFORM.fullmatch(operands[0])
    wide = 4 if ".128" in operation else 2 if ".64" in operation or ".WIDE" in operation else 1
    writes = set(range(int(target[1]), int(target[1]) + wide)) if target else set()
    reads = {n for part in operands[1 if target else 0 :] for n in _read(part, operands)}
    ends = operation.split(".")[0] in ("BRA", "EXIT", "RET", "BRX", "JMP", "KILL") and not (
        conditional or operands[0].startswith(("P", "!P", "UP", "!UP"))
    )
    return Instruction(reads, writes, not ends, re.findall(r"\.L\w+", text))


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
