"""Grading material: online_normalizer, and what every one-pass loop over tiles gets wrong."""

import torch

from course_lib.checks.ch03_online_softmax.inputs import far_below, hot_last, normal, rising, with_hidden
from course_lib.checks.ch03_online_softmax.plain import normalizer, normalizer_backwards, normalizer_by_single_scores
from course_lib.checks.ch03_online_softmax.rules import ONE_TILE, SOFTMAX_OPS, TILES_LET_GO, kept, wide
from course_lib.grading.spec import Check, Mutant, Probe, Property, Tiles, forbid


def tile_probes(g: torch.Generator) -> list[Probe]:
    axes = ("row",)
    return [
        Probe("2 tiles of 3 scores", (Tiles(normal(g, 2, 6), 3),), axes=axes),
        Probe("one tile", (Tiles(normal(g, 3, 5), 8),), axes=axes, diagnose=False),
        Probe("a maximum that rises with every tile, last tile narrower", (Tiles(rising(g, 3, 22), 5),), axes=axes),
        Probe("every score below -110", (Tiles(normal(g, 4, 13) - 120, 4),), axes=axes),
        Probe("a second tile 95 below the first", (Tiles(far_below(g, 4, 14, 4), 4),), axes=axes),
        Probe("hidden keys, a row without any key", (Tiles(with_hidden(g, 6, 19, 5), 5),), axes=axes),
        Probe("scores around +200", (Tiles(normal(g, 3, 17) + 200, 4),), axes=axes),
        Probe("tiles of one score, a hot last key", (Tiles(hot_last(g, 2, 9), 1),), axes=axes, diagnose=False),
        Probe(
            "three dimensions [2, 3, 14], not contiguous",
            (Tiles(normal(g, 2, 3, 14), 4),),
            layout="transposed",
            axes=("batch", "row"),
            diagnose=False,
        ),
        Probe("float64 in, float64 out", (Tiles(normal(g, 2, 12, dtype=torch.float64), 4),), axes=axes, diagnose=False),
    ]


_LOOP = """def {name}(tiles):
    row_max = row_sum = None
    for tile in tiles:
        if row_max is None:
            row_max = torch.full_like(tile[..., 0], {start})
            row_sum = torch.zeros_like(tile[..., 0])
        {step}
    return {result}
"""

_STEP = """new_max = torch.maximum(row_max, tile.amax(-1))
        row_sum = row_sum * torch.exp(row_max - new_max) + torch.exp(tile - new_max[..., None]).sum(-1)
        row_max = new_max"""

_GUARDED_STEP = """new_max = torch.maximum(row_max, tile.amax(-1))
        shift = torch.where(new_max == -torch.inf, 0.0, new_max)
        row_sum = row_sum * torch.exp(row_max - shift) + torch.exp(tile - shift[..., None]).sum(-1)
        row_max = new_max"""


def loop(name: str, result: str, step: str = _GUARDED_STEP, start: str = "-torch.inf") -> str:
    return _LOOP.format(name=name, step=step, result=result, start=start)


def _repaired(result: str) -> str:
    return ", ".join(f"torch.nan_to_num({part.strip()}, nan=0.0)" if part.strip() != "row_max" else part.strip() for part in result.split(","))


def loop_mutants(name: str, result: str, whole: str, two_walks: str) -> tuple[Mutant, ...]:
    """The mistakes that every one-pass loop over tiles invites. `result`: the returned expression; `whole`, `two_walks`: bodies that collect the row, or the tiles."""
    plain = "row_sum = row_sum * torch.exp(row_max - {s}) + torch.exp(tile - {s}[..., None]).sum(-1)"
    guarded, bare = plain.format(s="shift"), plain.format(s="new_max")
    no_rescale = (
        "The old sum was not rescaled when the maximum rose: its terms are still counted relative to the old maximum. Look at "
        "what happens to the old `row_sum` on the line where `row_max` changes."
    )
    return (
        Mutant(
            "no-rescale",
            no_rescale,
            body=loop(name, result, _GUARDED_STEP.replace(guarded, "row_sum = row_sum + torch.exp(tile - shift[..., None]).sum(-1)")),
        ),
        Mutant(
            "no-rescale-no-guard",
            no_rescale,
            body=loop(name, result, _STEP.replace(bare, "row_sum = row_sum + torch.exp(tile - new_max[..., None]).sum(-1)")),
        ),
        Mutant(
            "rescales-both",
            (
                "The new tile's terms were rescaled too. They are already counted relative to the new maximum: only what was summed "
                "before needs the factor."
            ),
            body=loop(
                name,
                result,
                _GUARDED_STEP.replace(guarded, ("row_sum = (row_sum + torch.exp(tile - shift[..., None]).sum(-1)) * torch.exp(row_max - shift)")),
            ),
        ),
        Mutant(
            "inverted",
            (
                "The old sum was multiplied by exp(new - old) where exp(old - new) was meant: it grows when it should shrink. Check it "
                "with two numbers: if the maximum rises by 1, what happens to old terms?"
            ),
            body=loop(
                name,
                result,
                _GUARDED_STEP.replace(
                    guarded,
                    ("row_sum = torch.where(row_sum == 0, 0.0, row_sum * torch.exp(shift - row_max)) + torch.exp(tile - shift[..., None]).sum(-1)"),
                ),
            ),
        ),
        Mutant(
            "inverted-no-guard",
            (
                "The old sum was multiplied by exp(new - old) where exp(old - new) was meant: it grows when it should shrink, and before the "
                "first tile it is exp(inf). Check it with two numbers: if the maximum rises by 1, what happens to old terms?"
            ),
            body=loop(name, result, _STEP.replace("torch.exp(row_max - new_max)", "torch.exp(new_max - row_max)")),
        ),
        Mutant(
            "own-maximum",
            (
                "The new tile's terms are counted relative to the tile's own maximum, the old sum relative to the running one. "
                "They can be added only when both are counted relative to the same number: the new running maximum."
            ),
            body=loop(
                name,
                result,
                "tile_max = tile.amax(-1)\n        new_max = torch.maximum(row_max, tile_max)\n        shift, own = _finite(new_max), _finite(tile_max)\n"
                "        row_sum = row_sum * torch.exp(row_max - shift) + torch.exp(tile - own[..., None]).sum(-1)\n        row_max = new_max",
            )
            + "\n\ndef _finite(x):\n    return torch.where(x == -torch.inf, 0.0, x)\n",
        ),
        Mutant(
            "repaired-at-the-end",
            (
                "A NaN was replaced at the end, and what the row had summed before went with it. It comes from -inf - -inf, in a row that has not seen "
                "a key yet: keep it from arising. Which number can such a row subtract instead of its maximum?"
            ),
            body=loop(name, _repaired(result), _STEP),
        ),
        Mutant(
            "last-tile-max",
            (
                "This is what comes out when the maximum is the current tile's own, and not the running one. When a later tile lies "
                "lower, the old sum is multiplied by exp of a large positive number. Look at how `new_max` is made."
            ),
            body=loop(name, result, _GUARDED_STEP.replace("torch.maximum(row_max, tile.amax(-1))", "tile.amax(-1)")),
        ),
        Mutant(
            "last-tile-max-no-guard",
            "This is what comes out when the maximum is the current tile's own, and not the running one. Look at how `new_max` is made.",
            body=loop(name, result, _STEP.replace("torch.maximum(row_max, tile.amax(-1))", "tile.amax(-1)")),
        ),
        Mutant(
            "starts-at-zero",
            (
                "The running maximum seems to start at 0: rows whose scores are all negative come out wrong. Before the first tile "
                "nothing was seen, and the maximum of nothing is -inf."
            ),
            body=loop(name, result, _STEP, start="0.0"),
        ),
        Mutant(
            "first-max",
            (
                "The maximum never moves after the first tile. Later, larger scores are then counted relative to too small a number. "
                "Update `row_max` at the end of each turn."
            ),
            body=loop(
                name,
                result,
                (
                    "if not row_sum.any():\n            row_max = tile.amax(-1)\n        shift = torch.where(row_max == -torch.inf, 0.0, "
                    "row_max)\n        row_sum = row_sum + torch.exp(tile - shift[..., None]).sum(-1)"
                ),
            ),
        ),
        Mutant(
            "empty-row",
            (
                "Right, except where a row has seen no key yet: -inf - -inf is NaN, and a NaN never leaves the sum again. Which number "
                "can such a row subtract instead of its maximum?"
            ),
            body=loop(name, result, _STEP),
        ),
        wide(whole),
        kept(two_walks),
    )


def two_walks(name: str, result: str) -> str:
    return f"""\
def {name}(tiles):
    tiles = list(tiles)
    row_max = torch.full_like(tiles[0][..., 0], -torch.inf)
    for tile in tiles:
        row_max = torch.maximum(row_max, tile.amax(-1))
    shift = torch.where(row_max == -torch.inf, 0.0, row_max)
    row_sum = sum(torch.exp(tile - shift[..., None]).sum(-1) for tile in tiles)
    return {result}
"""


def _two_numbers_from_any_tiles(call, g: torch.Generator) -> str | None:
    x = normal(g, 3, 12)
    first, second = call(Tiles(x, 12)), call(Tiles(x, 5))
    for name, one, other in zip(("row_max", "row_sum"), first, second, strict=True):
        if not torch.allclose(one, other, rtol=1e-5):
            return (
                f"the same 12 scores in one tile and in tiles of 5 give a different {name}: {one[0].item():.6g} and {other[0].item():.6g} in row 0."
            )
    return None


ONLINE_NORMALIZER = Check(
    exercise="online_normalizer",
    probes=tile_probes,
    reference=normalizer,
    baselines=(normalizer, normalizer_backwards, normalizer_by_single_scores),
    properties=(Property("the tile width does not matter", _two_numbers_from_any_tiles, "depends-on-tiles"),),
    rules=(ONE_TILE, TILES_LET_GO, forbid(SOFTMAX_OPS, "The exercise is to build it from amax, exp and sum.")),
    returns="a pair (row_max, row_sum)",
    mutants=loop_mutants(
        "online_normalizer",
        "row_max, row_sum",
        """\
def online_normalizer(tiles):
    x = torch.cat(list(tiles), dim=-1)
    row_max = x.amax(-1)
    shift = torch.where(row_max == -torch.inf, 0.0, row_max)
    return row_max, torch.exp(x - shift[..., None]).sum(-1)
""",
        two_walks("online_normalizer", "row_max, row_sum"),
    )
    + (
        Mutant(
            "starts-far-below",
            "Right, except that the maximum of a row without any key came out as a large negative number. The maximum of nothing is -inf.",
            body=loop("online_normalizer", "row_max, row_sum", _STEP, start="-1e9"),
        ),
    ),
    right=(
        """\
def online_normalizer(tiles):
    m = s = None
    for t in tiles:
        tm = t.max(dim=-1).values
        ts = torch.exp(t - tm.nan_to_num(neginf=0.0).unsqueeze(-1)).sum(dim=-1)
        if m is None:
            m, s = tm, ts
            continue
        new = torch.maximum(m, tm)
        safe = new.nan_to_num(neginf=0.0)
        s = s * (m - safe).exp() + ts * (tm - safe).exp()
        m = new
    return m, s
""",
        """\
def online_normalizer(tiles):
    m, s = float('-inf'), 0.0
    for t in tiles:
        new = torch.maximum(torch.as_tensor(m, dtype=t.dtype), t.amax(-1))
        ref = new.masked_fill(new.isneginf(), 0)
        s = s * torch.exp(m - ref) + torch.exp(t - ref[..., None]).sum(-1)
        m = new
    return m, s
""",
        """\
def online_normalizer(tiles):
    m = s = None
    for t in tiles:
        for j in range(t.shape[-1]):
            x = t[..., j]
            if m is None:
                m, s = torch.full_like(x, float('-inf')), torch.zeros_like(x)
            new = torch.maximum(m, x)
            s = torch.where(new.isneginf(), s, s * torch.exp(m - new) + torch.exp(x - new))
            m = new
    return m, s
""",
        """\
def step(state, tile):
    m, s = state
    new = torch.maximum(m, tile.amax(-1))
    a = torch.nan_to_num(torch.exp(m - new))
    b = torch.nan_to_num(torch.exp(tile - new[..., None])).sum(-1)
    return new, s * a + b

def online_normalizer(tiles):
    from functools import reduce
    tiles = iter(tiles)
    first = next(tiles)
    start = step((torch.full_like(first[..., 0], -torch.inf), torch.zeros_like(first[..., 0])), first)
    return reduce(step, tiles, start)
""",
    ),
)
