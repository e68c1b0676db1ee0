"""Grading material of chapter 06, FlashAttention, backward: one module an exercise. Read by the judge only."""

from course_lib.checks.ch06_flash_backward.autograd import FLASH_ATTENTION
from course_lib.checks.ch06_flash_backward.delta import ATTENTION_DELTA
from course_lib.checks.ch06_flash_backward.dkdv import FLASH_BACKWARD_DKDV
from course_lib.checks.ch06_flash_backward.dq import FLASH_BACKWARD_DQ
from course_lib.checks.ch06_flash_backward.grads import ATTENTION_GRADS
from course_lib.checks.ch06_flash_backward.memory import CHECKPOINTED_MEMORY

CHECKS = (ATTENTION_GRADS, ATTENTION_DELTA, FLASH_BACKWARD_DKDV, FLASH_BACKWARD_DQ, FLASH_ATTENTION, CHECKPOINTED_MEMORY)
