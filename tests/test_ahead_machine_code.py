"""Registers that nothing has written: seen in machine code as the disassembler prints it, and not where there are none.

Run: pytest tests/test_ahead_machine_code.py
"""

import os
import subprocess
import sys

import pytest

from tools.ahead_machine_code import unwritten, unwritten_in

# as CUDA 12.8's assembler made it of flash_backward_dkdv for one query: UR9 is read twice and never set
WRONG = """
        /*14f0*/                   UMOV UR8, 0x400 ;
        /*2840*/                   USHF.R.U32.HI UR11, URZ, 0x4, UR8 ;
        /*2e90*/                   UIADD3 UR4, UP0, UR9, 0x2, URZ ;
        /*2ea0*/                   UIADD3.X UR5, UR9, -0x7fffffe0, URZ, UP0, !UPT ;
        /*3020*/                   FFMA R24, R24, UR4, R15.reuse ;
"""


def test_an_unset_register_is_seen():
    assert unwritten(WRONG) == ["UR9"]
    assert unwritten(WRONG.replace("UR9", "UR11")) == []


def test_what_writes_a_register():
    assert unwritten("        /*0050*/   ULDC.64 UR16, c[0x0][0x208] ;\n        /*0060*/   LDG.E R2, desc[UR16][R4.64] ;") == []
    assert unwritten("        /*0050*/   ULDC.64 UR16, c[0x0][0x208] ;\n        /*0060*/   UMOV UR4, UR17 ;") == []
    assert unwritten("        /*0050*/   ULDC UR16, c[0x0][0x208] ;\n        /*0060*/   UMOV UR4, UR17 ;") == ["UR17"]
    assert (
        unwritten("        /*0050*/   @UP0 UMOV UR3, URZ ;\n        /*0060*/   @!UP0 UMOV UR3, 0x1 ;\n        /*0070*/   IMAD R1, R2, UR3, RZ ;")
        == []
    )
    assert unwritten("        /*0050*/   @!P2 LDG.E R17, desc[UR16][R40.64] ;") == ["UR16"]
    assert unwritten("") == []


# as the same assembler made it of flash_backward_dq for one query and one key: UR10 is read, and set only afterwards
TOO_LATE = """
        /*3430*/                   USGXT.U32 UR52, UR8, 0xe ;
        /*3480*/                   UIADD3 UR54, UP0, UR10, 0x2, URZ ;
        /*3490*/                   UIADD3.X UR55, UR10, -0x7fffffe0, URZ, UP0, !UPT ;
        /*3730*/                   UIADD3.64 UR10, UR54, 0x7e, URZ ;
        /*3bd0*/                   EXIT ;
"""


def test_a_register_set_too_late_is_seen():
    set_before = TOO_LATE.replace("        /*3430*/", "        /*3410*/   UMOV UR8, URZ ;\n        /*3420*/   UMOV UR10, UR8 ;\n        /*3430*/")
    assert unwritten(TOO_LATE) == ["UR8", "UR10"] and unwritten(set_before) == []


def test_every_way_must_have_set_it():
    """A loop that sets it for its next turn has not set it for the first, and a condition sets it on one side alone."""
    loop = """
        /*0000*/   UMOV UR4, URZ ;
.L_x_1:
        /*0010*/   UIADD3 UR5, UR4, 0x1, URZ ;
        /*0020*/   UIADD3 UR4, UR5, 0x1, URZ ;
        /*0030*/   @P0 BRA `(.L_x_1) ;
        /*0040*/   @!P1 BRA `(.L_x_2) ;
        /*0050*/   UMOV UR6, UR4 ;
        /*0060*/   EXIT ;
.L_x_2:
        /*0070*/   UMOV UR7, UR6 ;
        /*0080*/   EXIT ;
"""
    assert unwritten(loop) == ["UR6"]  # set on the other side alone
    assert unwritten(loop.replace("UMOV UR4, URZ", "UMOV UR6, URZ")) == ["UR4"]  # before the loop's own
    assert unwritten(loop.replace("UMOV UR4, URZ", "UMOV.64 UR4, URZ").replace("UR6", "UR5")) == []


def test_another_function_begins_with_nothing_set():
    two = "        /*0000*/   UMOV UR4, URZ ;\n        /*0010*/   EXIT ;\n        /*0000*/   UMOV UR5, UR4 ;\n        /*0010*/   EXIT ;\n"
    assert unwritten(two) == ["UR4"]
    assert unwritten(two.replace("/*0010*/   EXIT", "/*0010*/   NOP", 1).replace("/*0000*/   UMOV UR5", "/*0020*/   UMOV UR5")) == []


def test_what_a_product_reads():
    """The address of a left operand that comes in registers is not read, that of the right one is two registers further."""
    right = "        /*0050*/   ULDC.64 UR18, c[0x0][0x208] ;\n        /*0060*/   UIADD3.64 UR22, UR18, 0x7e, URZ ;\n"
    assert unwritten(right + "        /*0070*/   HGMMA.64x64x16.F32.BF16 R24, R64, gdesc[UR20], R24 ;") == []
    assert unwritten(right + "        /*0070*/   HGMMA.64x64x16.F32.BF16 R24, gdesc[UR20].tnspB, R24 ;") == ["UR20", "UR21"]
    assert unwritten(right + "        /*0070*/   HGMMA.64x64x16.F32.BF16 R24, R64, gdesc[UR8].tnspB, R24 ;") == ["UR10", "UR11"]


@pytest.mark.slow
def test_the_disassembler_is_there(tmp_path):
    """Kernels really compiled, for one query or one key: no length is a constant of them; their machine code is read, and is whole."""
    pytest.importorskip("triton")

    program = """
import torch
from tools.ahead_child import absent_gpu
from tools.ahead_machine_code import unwritten_in
from kernels.flash_backward_dkdv import flash_backward_dkdv
from kernels.flash_backward_dq import flash_backward_dq
from kernels.flash_window_backward import flash_window_backward
from kernels.flash_window_backward_dq import flash_window_backward_dq
def empty(*shape):
    return torch.empty(*shape, dtype=torch.bfloat16, device="meta")
q, k, rows = empty(2, 4, 1, 128), empty(2, 4, 71, 128), torch.empty(2, 4, 1, device="meta")
one, v, row = empty(1, 4, 1, 256), empty(1, 4, 1, 513)[..., 1::2], torch.empty(1, 4, 1, device="meta")
many, of_many = empty(2, 4, 9, 256), torch.empty(2, 4, 9, device="meta")
with absent_gpu(90, 227) as found:
    flash_backward_dkdv(q, k, k, empty(2, 4, 1, 257)[..., 1::2], rows, rows)
    flash_backward_dq(many, one.expand(2, -1, -1, -1), v.expand(2, -1, -1, -1), many, of_many, of_many)
    flash_window_backward_dq(one, one, v, one, row, row, 5)
    flash_window_backward(q, k, k, q, rows, rows, 5)
for kernel in found:
    length = any(name in ("N_Q", "N_KV") and (i,) in kernel.src.constants for i, name in enumerate(kernel.src.fn.arg_names))
    print(kernel.src.fn.__name__, length, unwritten_in(kernel.asm["cubin"]), len(kernel.asm["cubin"]) > 10000)
"""

    environment = {**{name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}, "TRITON_CACHE_DIR": str(tmp_path)}
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment, timeout=300)
    kernels = ("flash_backward_dkdv", "flash_backward_dq", "flash_window_dq", "flash_window_dkdv", "flash_window_dq")
    assert ran.stdout.splitlines() == [f"{kernel}_kernel False [] True" for kernel in kernels], ran.stdout + ran.stderr[-2000:]


def test_what_is_no_machine_code_is_refused():
    pytest.importorskip("triton")
    with pytest.raises(Exception, match="nvdisasm|exit status"):
        unwritten_in(b"not a kernel")
