"""Grading material of chapter 05, FlashAttention, forward: one module an exercise. Read by the judge only.

Mutants are edits of the solution, or whole bodies where learners write it differently; their messages follow the
ladder of the course's voice: the mistake, then where to look.
"""

from course_lib.checks.ch05_flash_forward.blocks import FLASH_BLOCKS
from course_lib.checks.ch05_flash_forward.causal import FLASH_FORWARD_CAUSAL
from course_lib.checks.ch05_flash_forward.forward import FLASH_FORWARD
from course_lib.checks.ch05_flash_forward.gqa import FLASH_FORWARD_GQA
from course_lib.checks.ch05_flash_forward.io_bytes import FLASH_IO_BYTES
from course_lib.checks.ch05_flash_forward.lse import FLASH_FORWARD_LSE

CHECKS = (FLASH_BLOCKS, FLASH_FORWARD, FLASH_FORWARD_CAUSAL, FLASH_FORWARD_LSE, FLASH_FORWARD_GQA, FLASH_IO_BYTES)
