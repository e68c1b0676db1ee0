"""What the kernels of chapter 07 may ask memory for: the tiles that a query sees, counted from a probe's shapes and the launch's own tile.

As in chapter 05, how many rows a program owns follows from the grid; the keys of a tile from the launch's BLOCK_N.
"""

from course_lib.checks.ch05_flash_forward.rules import SHORTCUT, WITH_STRIDES, result_size, tile_of
from course_lib.checks.ch07_faster_and_more_general.plain import spans
from course_lib.grading.kernel_rules import launches, no_copies, programs, size, stores
from course_lib.grading.spec import Evidence, Probe, Rule

MARKS = 64  # bytes that a program may read of cu_q and cu_k


def _range_read(first: int, end: int, n_kv: int, block_n: int) -> int:
    """Keys read by a loop over the keys first..end-1, from a whole tile's edge or from `first` itself: the more of the two."""
    if end <= first:
        return 0
    aligned = min(n_kv, -(-end // block_n) * block_n) - first // block_n * block_n
    return max(aligned, min(n_kv, first + -(-(end - first) // block_n) * block_n) - first)


def _said(probe: Probe, evidence: Evidence, block_m: int, block_n: int, limit: int, what: str) -> str:
    return (
        f"the loads of your kernel ask for {evidence.bytes_loaded:,} bytes ({probe.name}). With tiles of {block_m} queries and {block_n} keys, "
        f"{what} takes {limit:,}."
    )


# ---------------------------------------------------------------- packed sequences


def _packed_limit(probe: Probe, evidence: Evidence) -> tuple[int, int, int] | None:
    """(bytes that may be loaded, BLOCK_M, BLOCK_N), where the launch can be read."""
    q, k, v, cu_q, cu_k, max_q = probe.args[:6]
    if len(evidence.launches) != 1:
        return None
    launch, causal = evidence.launches[0], probe.kwargs.get("causal", False)
    count, heads = cu_q.numel() - 1, q.shape[1]
    block_m, block_n = tile_of(launch, count * heads, max_q)
    if block_m is None:
        return None
    keys = 0
    for (q_first, q_end), (k_first, k_end) in zip(spans(cu_q), spans(cu_k), strict=True):
        n_q, n_kv = q_end - q_first, k_end - k_first
        for first in range(0, n_q, block_m):
            end = min(n_kv, min(first + block_m, n_q) + n_kv - n_q) if causal else n_kv
            keys += _range_read(0, end, n_kv, block_n)
    row = (k.shape[2] * k.element_size() + v.shape[2] * v.element_size()) * heads
    return size(q) + keys * row + MARKS * count * heads * -(-max_q // block_m), block_m, block_n


def _too_much(id: str, causal: bool, what: str) -> Rule:
    def broken(probe: Probe, evidence: Evidence) -> str | None:
        if probe.kwargs.get("causal", False) is not causal:
            return None
        found = _packed_limit(probe, evidence)
        if found is None or evidence.bytes_loaded <= found[0]:
            return None
        limit, block_m, block_n = found
        return _said(probe, evidence, block_m, block_n, limit, what)

    return Rule(id, broken)


def packed() -> tuple[Rule, ...]:
    def most(probe: Probe) -> int:
        q, cu_q, max_q = probe.args[0], probe.args[3], probe.args[5]
        return (cu_q.numel() - 1) * q.shape[1] * -(-max_q // 16)

    return (
        SHORTCUT,
        launches(1),
        programs(most, "a tile of 16 queries of the longest sequence, for each head and each sequence, takes fewer."),
        stores(result_size),
        _too_much("idle", False, "reading Q once, and a sequence's K and V once for each of its own tiles of queries,"),
        _too_much("tiles", True, "reading only the tiles of keys that some query of a program sees"),
        no_copies(WITH_STRIDES),
    )


# ---------------------------------------------------------------- a window


def _window_limit(probe: Probe, launch: dict) -> tuple[int, int, int, int, int] | None:
    """(bytes that may be loaded, tiles that are seen, all tiles, BLOCK_M, BLOCK_N), where the launch can be read."""
    q, k, v, window = probe.args[:4]
    (b, h, n_q, _), n_kv = q.shape, k.shape[2]
    block_m, block_n = tile_of(launch, b * h, n_q)
    if block_m is None:
        return None
    keys = seen = 0
    for top in range(0, n_q, block_m):
        place = top + n_kv - n_q
        first, end = max(0, place - window + 1), min(n_kv, min(top + block_m, n_q) + n_kv - n_q)
        keys += _range_read(first, end, n_kv, block_n)
        seen += -(-end // block_n) - first // block_n if end > first else 0
    each = size(k, v) // n_kv  # bytes of a row of K and a row of V, in all heads
    return size(q) + keys * each, seen, -(-n_q // block_m) * -(-n_kv // block_n), block_m, block_n


def _tiles(id: str, wide: bool) -> Rule:
    """wide: speaks where the window covers all keys, so that only the tiles after the diagonal can be left out; else everywhere."""

    def broken(probe: Probe, evidence: Evidence) -> str | None:
        if len(evidence.launches) != 1 or (wide and probe.args[3] < probe.args[1].shape[2]):
            return None
        found = _window_limit(probe, evidence.launches[0])
        if found is None or evidence.bytes_loaded <= found[0]:
            return None
        limit, seen, every, block_m, block_n = found
        return _said(probe, evidence, block_m, block_n, limit, f"reading the {seen} of {every} tiles of a head that hold a key that is seen")

    return Rule(id, broken)


def window() -> tuple[Rule, ...]:
    return (SHORTCUT, launches(1), stores(result_size), _tiles("tiles-after", True), _tiles("tiles-before", False), no_copies(WITH_STRIDES))
