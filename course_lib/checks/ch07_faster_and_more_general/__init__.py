"""Grading material of chapter 07, Faster and more general: one module an exercise. Read by the judge only.

The kernels share mistakes with chapter 05's (`sentences`), and draw scores as they do (`inputs`).
"""

from course_lib.checks.ch07_faster_and_more_general.alibi import ALIBI_SCORE_MOD
from course_lib.checks.ch07_faster_and_more_general.documents import DOCUMENT_BLOCK_MASK
from course_lib.checks.ch07_faster_and_more_general.varlen import FLASH_FORWARD_VARLEN
from course_lib.checks.ch07_faster_and_more_general.waves import WAVE_EFFICIENCY
from course_lib.checks.ch07_faster_and_more_general.window import FLASH_FORWARD_WINDOW

CHECKS = (WAVE_EFFICIENCY, FLASH_FORWARD_VARLEN, FLASH_FORWARD_WINDOW, ALIBI_SCORE_MOD, DOCUMENT_BLOCK_MASK)
