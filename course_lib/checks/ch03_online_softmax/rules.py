"""Resource rules of chapter 03: nothing wider than a tile, and no ready-made softmax."""

from course_lib.grading.spec import Evidence, Mutant, Probe, Rule

SOFTMAX_OPS = ("softmax", "_softmax", "_safe_softmax", "log_softmax", "_log_softmax", "logsumexp")
ATTENTION_OPS = (*SOFTMAX_OPS, "scaled_dot_product_attention", "_scaled_dot_product_flash_attention_for_cpu", "_scaled_dot_product_attention_math")


def held(limit, what: str) -> Rule:
    """Nothing computed may be larger than `limit(probe)` elements (None: this probe does not say)."""

    def broken(probe: Probe, evidence: Evidence) -> str | None:
        allowed = limit(probe)
        if allowed is None or evidence.largest <= allowed:
            return None
        return f"the largest tensor you computed (by `{evidence.largest_op}`) has {evidence.largest:,} elements; {what} has {allowed:,}."

    return Rule("wide", broken)


def _tile_of_tiles(probe: Probe) -> int | None:
    tiles = probe.args[0]
    return tiles.x[..., : tiles.width].numel() if tiles.x.shape[-1] > tiles.width else None


def tile_of_softmax(probe: Probe) -> int | None:
    x, width = probe.args
    return x[..., :width].numel() if x.shape[-1] > width else None


def tile_of_attention(probe: Probe) -> int | None:
    q, k, tile = probe.args[0], probe.args[1], probe.kwargs.get("tile", 64)
    if probe.kwargs.get("mask") is not None or k.shape[-2] <= 2 * max(tile, q.shape[-1]):
        return None  # the mask itself is N_Q x N_KV; with few keys a tile and the matrix look alike
    return q[..., 0, 0].numel() * max(q.shape[-2], k.shape[-2]) * max(tile, q.shape[-1])


def _tiles_kept(probe: Probe, evidence: Evidence) -> str | None:
    """The tile in hand, the first one and one more name for either may be alive at once; a fourth was kept."""
    if evidence.tiles_held <= 3:
        return None
    return f"{evidence.tiles_held} tiles were alive at the same time: earlier tiles were kept while later ones came."


def _scores_too_wide(probe: Probe, evidence: Evidence) -> str | None:
    """Where there are fewer queries than a tile has keys, anything wider than a tile (and than D) is a row of scores."""
    q, k, tile = probe.args[0], probe.args[1], probe.kwargs.get("tile", 64)
    allowed = max(tile, q.shape[-1], q.shape[-2])
    if probe.kwargs.get("mask") is not None or k.shape[-2] <= allowed or evidence.widest <= allowed:
        return None
    return f"`{evidence.widest_op}` made a tensor {evidence.widest} wide; a tile has {tile} keys."


ONE_TILE = held(_tile_of_tiles, "a tile")
TILES_LET_GO = Rule("tiles-kept", _tiles_kept)
NARROW_SCORES = Rule("whole-rows", _scores_too_wide)


def wide(body: str) -> Mutant:
    return Mutant(
        "wide",
        "That is what happens when the tiles are put together again. A kernel cannot: the row does not fit on the chip. "
        "Keep two numbers a row and let each tile go.",
        body=body,
        rule="wide",
    )


def kept(body: str) -> Mutant:
    return Mutant(
        "tiles-kept",
        "That is what happens when the tiles are collected first, in a list for instance, to walk over them twice. One walk has to do: "
        "a kernel loads a tile, uses it, and its place is taken by the next.",
        body=body,
        rule="tiles-kept",
    )
