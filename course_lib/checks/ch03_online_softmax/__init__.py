"""Grading material of chapter 03, Online softmax: one module an exercise. Read by the judge only.

Mutants are edits of the solution, or whole bodies where learners write it differently; their messages follow the
ladder of the course's voice: the mistake, then where to look.
"""

from course_lib.checks.ch03_online_softmax.loops import ONLINE_NORMALIZER
from course_lib.checks.ch03_online_softmax.lse import LOGSUMEXP_OVER_TILES
from course_lib.checks.ch03_online_softmax.mending import MEND_TILED_ATTENTION
from course_lib.checks.ch03_online_softmax.merging import MERGE_STATES
from course_lib.checks.ch03_online_softmax.over_tiles import SOFTMAX_OVER_TILES
from course_lib.checks.ch03_online_softmax.safe_softmax import SAFE_SOFTMAX
from course_lib.checks.ch03_online_softmax.tiled import TILED_ATTENTION

CHECKS = (SAFE_SOFTMAX, ONLINE_NORMALIZER, MERGE_STATES, SOFTMAX_OVER_TILES, TILED_ATTENTION, MEND_TILED_ATTENTION, LOGSUMEXP_OVER_TILES)
