"""The figures of chapter 03: a softmax computed tile by tile, what it reads, and how wrong it can be.

One place to import them from; each is drawn in the module named for what it shows.
"""

from course_lib.figures.measured import bug_hunt_error, error_vs_float64, peak_memory
from course_lib.figures.one_row import overflow_cliff, passes, rescaling, tile_walk
from course_lib.figures.rows import exp_limits, merge_orders, softmax_passes, walk
from course_lib.figures.states import draw_state, merge_tree, state_boxes
from course_lib.figures.tile_map import tiled_attention_map

__all__ = [
    "bug_hunt_error",
    "draw_state",
    "error_vs_float64",
    "exp_limits",
    "merge_orders",
    "merge_tree",
    "overflow_cliff",
    "passes",
    "peak_memory",
    "rescaling",
    "softmax_passes",
    "state_boxes",
    "tile_walk",
    "tiled_attention_map",
    "walk",
]
