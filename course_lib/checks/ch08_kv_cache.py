"""Grading material of chapter 08, The KV cache: probes, references, rules and mutants, one `Check` an exercise."""

from course_lib.grading.spec import Check

CHECKS: tuple[Check, ...] = ()  # one an exercise, in the order of the chapter
