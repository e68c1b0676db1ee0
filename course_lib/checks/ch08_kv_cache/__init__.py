"""Grading material of chapter 08, The KV cache: one module an exercise. Read by the judge only."""

from course_lib.checks.ch08_kv_cache.applying_rope import APPLY_ROPE
from course_lib.checks.ch08_kv_cache.attending import ATTEND_WITH_CACHE
from course_lib.checks.ch08_kv_cache.batch import MAX_BATCH_SIZE
from course_lib.checks.ch08_kv_cache.cache_bytes import KV_CACHE_BYTES
from course_lib.checks.ch08_kv_cache.generating import GENERATE
from course_lib.checks.ch08_kv_cache.rope_angles import ROPE_COS_SIN
from course_lib.checks.ch08_kv_cache.sampling import SAMPLE_TOKEN
from course_lib.checks.ch08_kv_cache.step_time import DECODE_STEP_TIME

CHECKS = (ROPE_COS_SIN, APPLY_ROPE, ATTEND_WITH_CACHE, KV_CACHE_BYTES, MAX_BATCH_SIZE, DECODE_STEP_TIME, SAMPLE_TOKEN, GENERATE)
