"""Grading material of chapter 09, Flash-Decoding: one module an exercise. Read by the judge only."""

from course_lib.checks.ch09_flash_decoding.choosing import CHOOSE_NUM_SPLITS
from course_lib.checks.ch09_flash_decoding.merging import MERGE_PARTIAL_ATTENTION
from course_lib.checks.ch09_flash_decoding.splitting import SPLIT_KV_DECODE

CHECKS = (MERGE_PARTIAL_ATTENTION, SPLIT_KV_DECODE, CHOOSE_NUM_SPLITS)
