"""Grading material of chapter 10, Paged attention: one module an exercise, or a pair of them. Read by the judge only.

Answers that have state are judged by random histories of operations against an oracle (`histories`); kernels by values and bytes.
"""

from course_lib.checks.ch10_paged_attention.allocator import BLOCK_ALLOCATOR
from course_lib.checks.ch10_paged_attention.decode import PAGED_DECODE
from course_lib.checks.ch10_paged_attention.hashes import PREFIX_BLOCK_HASHES
from course_lib.checks.ch10_paged_attention.prefill import PAGED_PREFILL
from course_lib.checks.ch10_paged_attention.sharing import COPY_ON_WRITE, FORK_SEQUENCE
from course_lib.checks.ch10_paged_attention.slots import APPEND_SLOTS, PAGED_GATHER
from course_lib.checks.ch10_paged_attention.waste import FRAGMENTATION_WASTE
from course_lib.checks.ch10_paged_attention.write import WRITE_KV

CHECKS = (
    FRAGMENTATION_WASTE,
    BLOCK_ALLOCATOR,
    APPEND_SLOTS,
    WRITE_KV,
    PAGED_GATHER,
    PAGED_DECODE,
    FORK_SEQUENCE,
    COPY_ON_WRITE,
    PREFIX_BLOCK_HASHES,
    PAGED_PREFILL,
)
