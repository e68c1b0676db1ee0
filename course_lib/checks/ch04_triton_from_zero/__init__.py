"""Grading material of chapter 04, Triton from zero: one module an exercise. Read by the judge only.

Mutants are edits of the solution, or whole bodies where learners write it differently; their messages follow the
ladder of the course's voice: the mistake, then where to look.
"""

from course_lib.checks.ch04_triton_from_zero.matmul import MATMUL
from course_lib.checks.ch04_triton_from_zero.rms_norm import RMS_NORM
from course_lib.checks.ch04_triton_from_zero.softmax_long_rows import SOFTMAX_LONG_ROWS
from course_lib.checks.ch04_triton_from_zero.softmax_rows import SOFTMAX_ROWS
from course_lib.checks.ch04_triton_from_zero.swiglu import SWIGLU
from course_lib.checks.ch04_triton_from_zero.vector_add import VECTOR_ADD

CHECKS = (VECTOR_ADD, SOFTMAX_ROWS, SOFTMAX_LONG_ROWS, RMS_NORM, SWIGLU, MATMUL)
