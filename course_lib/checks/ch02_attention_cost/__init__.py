"""Grading material of chapter 02, Attention and what it costs: one module an exercise, the two byte counts together. Read by the judge only."""

from course_lib.checks.ch02_attention_cost.attending import ATTENTION
from course_lib.checks.ch02_attention_cost.causal import CAUSAL_MASK
from course_lib.checks.ch02_attention_cost.counting import NAIVE_ATTENTION_BYTES, SCORE_MATRIX_BYTES
from course_lib.checks.ch02_attention_cost.grouping import EXPAND_KV_HEADS

CHECKS = (ATTENTION, CAUSAL_MASK, EXPAND_KV_HEADS, SCORE_MATRIX_BYTES, NAIVE_ATTENTION_BYTES)
