"""Grading material of chapter 01, The memory hierarchy: one module an exercise. Read by the judge only.

All five exercises are models: numbers in, numbers out. So the reference is exact, the baselines are other ways to write the
same formula, and what tells mistakes apart is the choice of shapes and machines in the probes.
"""

from course_lib.checks.ch01_memory_hierarchy.bound import CLASSIFY_BOUND
from course_lib.checks.ch01_memory_hierarchy.fusion import FUSION_BYTES
from course_lib.checks.ch01_memory_hierarchy.intensity import ARITHMETIC_INTENSITY
from course_lib.checks.ch01_memory_hierarchy.square_tile import LARGEST_SQUARE_TILE
from course_lib.checks.ch01_memory_hierarchy.time import ROOFLINE_TIME

CHECKS = (ARITHMETIC_INTENSITY, ROOFLINE_TIME, CLASSIFY_BOUND, FUSION_BYTES, LARGEST_SQUARE_TILE)
