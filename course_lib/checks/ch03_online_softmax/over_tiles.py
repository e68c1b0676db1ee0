"""Grading material: softmax_over_tiles."""

import torch
from torch import Tensor

from course_lib.checks.ch03_online_softmax.inputs import far_below, hot_last, normal, rising, with_hidden
from course_lib.checks.ch03_online_softmax.plain import softmax, softmax_by_hand, softmax_by_lse, softmax_by_running_lse, softmax_times_inverse
from course_lib.checks.ch03_online_softmax.rules import SOFTMAX_OPS, held, tile_of_softmax
from course_lib.grading.spec import Check, Mutant, Probe, forbid


def _softmax_over_tiles_probes(g: torch.Generator) -> list[Probe]:
    def probe(name: str, x: Tensor, width: int, **more) -> Probe:
        return Probe(
            name, (x, width), axes=("row", "column")[-x.dim() :] if x.dim() <= 2 else ("batch", "row", "column"), tile=("column", width), **more
        )

    return [
        probe("2 tiles of 3 scores", normal(g, 2, 6), 3),
        probe("one tile wider than the row", normal(g, 3, 5), 8),
        probe("a rising maximum, 22 scores in tiles of 5", rising(g, 3, 22), 5),
        probe("a second tile 95 below the first", far_below(g, 4, 14, 4), 4),
        probe("hidden keys, a row without any key", with_hidden(g, 6, 19, 5), 5),
        probe("a hot last key in a tile of its own", hot_last(g, 3, 17), 4),
        probe("scores around -200 and +200", normal(g, 48, 15) + torch.tensor([[-200.0], [200.0]]).repeat(24, 1), 4, diagnose=False),
        probe("not contiguous, [2, 3, 14]", normal(g, 2, 3, 14), 4, layout="transposed", diagnose=False),
        probe("float64 in, float64 out", normal(g, 2, 12, dtype=torch.float64), 5, diagnose=False),
    ]


_OVER_TILES = """def softmax_over_tiles(x, tile):
    row_max = x.new_full(x.shape[:-1], -torch.inf)
    row_sum = x.new_zeros(x.shape[:-1])
    for s in x.split(tile, dim=-1):
        new_max = torch.maximum(row_max, s.amax(-1))
        row_sum = row_sum * torch.exp(row_max - new_max) + torch.exp(s - new_max[..., None]).sum(-1)
        row_max = new_max
    out = torch.empty_like(x)
    for start in range(0, x.shape[-1], tile):
        out[..., start:start + tile] = torch.exp(x[..., start:start + tile] - row_max[..., None]) / row_sum[..., None]
    return out
"""

_SOFTMAX_FROM_NORMALIZER = """\
from course_lib.earlier import online_normalizer

"""

SOFTMAX_OVER_TILES = Check(
    exercise="softmax_over_tiles",
    probes=_softmax_over_tiles_probes,
    reference=lambda x, tile: softmax(x),
    baselines=tuple(
        lambda x, tile, way=way: way(x) for way in (softmax, softmax_by_hand, softmax_by_lse, softmax_times_inverse, softmax_by_running_lse)
    ),
    rules=(held(tile_of_softmax, "a tile"), forbid(SOFTMAX_OPS, "The exercise is to build it from amax, exp and sum, a tile at a time.")),
    mutants=(
        Mutant(
            "tile-by-tile",
            (
                "Each tile sums to 1 on its own: every tile was divided by its own sum. The weights of a row share one maximum and one "
                "sum, which you know only after the last tile."
            ),
            body="""\
def softmax_over_tiles(x, tile):
    parts = []
    for s in x.split(tile, dim=-1):
        m = s.amax(-1, keepdim=True)
        e = torch.exp(s - torch.where(m == -torch.inf, 0.0, m))
        z = e.sum(-1, keepdim=True)
        parts.append(e / torch.where(z == 0, 1.0, z))
    return torch.cat(parts, dim=-1)
""",
        ),
        Mutant(
            "stale-max",
            (
                "The weights of early tiles are too large: they were written relative to the maximum known at that time, and never "
                "corrected. Write the weights in a second pass, when the final maximum is known."
            ),
            body="""\
def softmax_over_tiles(x, tile):
    m = x.new_full(x.shape[:-1], -torch.inf)
    z = x.new_zeros(x.shape[:-1])
    parts = []
    for s in x.split(tile, dim=-1):
        new = torch.maximum(m, s.amax(-1))
        ref = torch.where(new == -torch.inf, 0.0, new)
        e = torch.exp(s - ref[..., None])
        parts.append(e)
        z = z * torch.exp(m - ref) + e.sum(-1)
        m = new
    d = torch.where(z == 0, 1.0, z)[..., None]
    return torch.cat([e / d for e in parts], dim=-1)
""",
        ),
        Mutant(
            "no-rescale",
            (
                "Every row sums to less than 1: row_sum is too large, because the old sum was not rescaled when the maximum rose. Look "
                "at the line where `row_max` changes."
            ),
            edits=(("row_sum = row_sum * torch.exp(row_max - shift) + torch", "row_sum = row_sum + torch"),),
        ),
        Mutant(
            "no-rescale-no-guard",
            (
                "Every row sums to less than 1: row_sum is too large, because the old sum was not rescaled when the maximum rose. Look "
                "at the line where `row_max` changes."
            ),
            body=_OVER_TILES.replace("row_sum * torch.exp(row_max - new_max)", "row_sum"),
        ),
        Mutant(
            "last-tile-max",
            ("This is what comes out when the maximum is the current tile's own, and not the running one. Look at how the new maximum is made."),
            edits=(("new_max = torch.maximum(row_max, scores.amax(dim=-1))", "new_max = scores.amax(dim=-1)"),),
        ),
        Mutant(
            "tail-dropped",
            ("Only the last, partial tile is wrong: it was never written. N need not be a multiple of the tile: how far does your second loop go?"),
            edits=(("for start in range(0, x.shape[-1], tile):", "out.zero_()\n    for start in range(0, x.shape[-1] // tile * tile, tile):"),),
        ),
        Mutant(
            "empty-row",
            ("Right, except where a row has seen no key yet: -inf - -inf is NaN, and 0 / 0 is NaN too. A row of nothing but -inf must give zeros."),
            body=_OVER_TILES,
        ),
        Mutant(
            "empty-row-divide",
            "Only empty rows are wrong: their weights are all 0, and 0 / 0 is NaN. What should a sum of 0 be divided by?",
            edits=(("torch.where(row_sum == 0, 1.0, row_sum)[..., None]", "row_sum[..., None]"),),
        ),
        Mutant(
            "no-divide",
            "The weights are right up to a factor a row: they were never divided by row_sum.",
            edits=((" - shift) / divisor", " - shift)"),),
        ),
        Mutant(
            "wide",
            ("That is the whole row at once. On the chip there is room for a tile: keep row_max and row_sum, and write the output a tile at a time."),
            body="""\
def softmax_over_tiles(x, tile):
    m = x.amax(-1, keepdim=True)
    e = torch.exp(x - torch.where(m == -torch.inf, 0.0, m))
    z = e.sum(-1, keepdim=True)
    return e / torch.where(z == 0, 1.0, z)
""",
            rule="wide",
        ),
    ),
    right=(
        _SOFTMAX_FROM_NORMALIZER
        + """\
def softmax_over_tiles(x, tile):
    m, z = online_normalizer(x.split(tile, -1))
    m, z = m.nan_to_num(neginf=0.0)[..., None], z.masked_fill(z == 0, 1.0)[..., None]
    return torch.cat([torch.exp(s - m) / z for s in x.split(tile, -1)], dim=-1)
""",
        """\
def softmax_over_tiles(x, tile):
    n = x.shape[-1]
    lse = torch.full_like(x[..., :1], float('-inf'))
    for i in range(0, n, tile):
        t = x[..., i:min(i + tile, n)]
        m = torch.maximum(lse, t.max(-1, keepdim=True).values)
        safe = m.masked_fill(m == float('-inf'), 0)
        lse = safe + torch.log(torch.exp(lse - safe) + torch.exp(t - safe).sum(-1, keepdim=True))
    lse = lse.nan_to_num(neginf=0.0)
    out = x.new_zeros(x.shape)
    for i in range(0, n, tile):
        out[..., i:i + tile] = torch.exp(x[..., i:i + tile] - lse)
    return out
""",
        """\
def softmax_over_tiles(x, tile):
    pieces = torch.split(x, tile, dim=-1)
    m = pieces[0].amax(-1, keepdim=True)
    for p in pieces[1:]:
        m = torch.maximum(m, p.amax(-1, keepdim=True))
    m = torch.where(torch.isinf(m), torch.zeros_like(m), m)
    z = sum(torch.exp(p - m).sum(-1, keepdim=True) for p in pieces)
    z = torch.where(z > 0, z, torch.ones_like(z))
    return torch.cat([torch.exp(p - m).div_(z) for p in pieces], -1)
""",
    ),
)
