"""Resource rules of chapter 03: nothing wider than a tile, and no ready-made softmax."""

from course_lib.grading.spec import Evidence, Mutant, Probe, Rule

SOFTMAX_OPS = ("softmax", "softmax", "_safe_softmax", "log_softmax", "_log_softmax", "logsumexp")
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


ONE_TILE = held(_tile_of_tiles, "a tile")


def wide(body: str) -> Mutant:
    return Mutant(
        "wide",
        "That is what happens when the tiles are put together again, or collected first. A kernel cannot: the row does not fit "
        "on the chip. Keep two numbers a row and let each tile go.",
        body=body,
        rule="wide",
    )
