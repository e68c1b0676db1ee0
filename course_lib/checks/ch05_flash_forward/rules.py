"""What a flash kernel may ask memory for: closed forms of a probe's shapes, read against the bytes that were counted.

Nothing looks at names, unless a tile size can be had from nowhere else: how many rows a program owns follows from the grid.
"""

from course_lib.grading.kernel_rules import launches, loads, no_copies, size, stores
from course_lib.grading.spec import Evidence, Probe, Rule, forbid

SMALLEST = 16  # queries of the smallest tile that `tl.dot` takes
MOST_KEYS = 512  # keys that a program may hold at once


def read_once_a_tile(probe: Probe) -> int:
    """Q once, K and V once for every 16 queries of a head."""
    q, k, v = probe.args[:3]
    return size(q) + -(-q.shape[2] // SMALLEST) * size(k, v)


def read_once_a_group(probe: Probe) -> int:
    """Q once, K and V once for every 16 queries of a group, all its heads taken together."""
    q, k, v = probe.args[:3]
    return size(q) + -(-q.shape[1] // k.shape[1] * q.shape[2] // SMALLEST) * size(k, v)


def result_size(probe: Probe) -> int:
    return size(probe.args[0])


def result_and_lse_size(probe: Probe) -> int:
    q = probe.args[0]
    return size(q) + 4 * q.shape[0] * q.shape[1] * q.shape[2]


def few_keys_at_a_time() -> Rule:
    """A program may not hold a whole long row: a constexpr that is a power of two and covers all keys is such a tile."""

    def broken(probe: Probe, evidence: Evidence) -> str | None:
        n_kv = probe.args[1].shape[2]
        if n_kv <= MOST_KEYS:
            return None
        for launch in evidence.launches:
            constexprs = launch.get("constexprs") or {}
            tiles = [n for n in constexprs.values() if type(n) is int and n >= n_kv and n & (n - 1) == 0]
            if tiles:
                return f"your kernel was launched with a tile of {min(tiles):,}, and this input has {n_kv:,} keys: a program holds them all at once."
        return None

    return Rule("whole-row", broken)


def tiles_skipped(always: bool) -> Rule:
    """Under a causal mask (always, or where the probe asks for it) a program reads the tiles up to the last key that its last query sees."""

    def broken(probe: Probe, evidence: Evidence) -> str | None:
        if not probe.kwargs.get("causal", always) or len(evidence.launches) != 1:
            return None
        q, k, v = probe.args[:3]
        (b, h, n_q, _), n_kv = q.shape, k.shape[2]
        block_m, block_n = tile_of(evidence.launches[0], b * h, n_q)
        if block_m is None:
            return None
        read = tiles = full = 0
        for first in range(0, n_q, block_m):
            end = min(n_kv, max(0, min(first + block_m, n_q) + n_kv - n_q))
            read += min(n_kv, -(-end // block_n) * block_n)
            tiles += -(-end // block_n)
            full += -(-n_kv // block_n)
        one_row = size(k, v) // max(n_kv, 1)  # bytes of a row of K and a row of V, in all heads
        limit = size(q) + read * one_row
        if evidence.bytes_loaded <= limit or tiles == full:
            return None
        return (
            f"the loads of your kernel ask for {evidence.bytes_loaded:,} bytes ({probe.name}). With tiles of {block_m} queries and {block_n} keys, "
            f"{tiles} of {full} tiles of a head hold a key that is seen; reading those takes {limit:,}."
        )

    return Rule("tiles", broken)


def tile_of(launch: dict, heads: int, n_q: int) -> tuple[int | None, int]:
    """(queries a program owns, from the grid; keys a tile, from the launch's BLOCK_N, else the most that is usual)."""
    programs = 1
    for n in launch.get("grid") or ():
        programs *= n if type(n) is int else 0
    each = programs // heads if heads else 0
    block_m = next((m for m in (256, 128, 64, 32, 16) if each and -(-n_q // m) == each), None)
    constexprs = {name: n for name, n in (launch.get("constexprs") or {}).items() if type(n) is int and n > 0}
    if "BLOCK_N" in constexprs:
        return block_m, constexprs["BLOCK_N"]
    return block_m, max((n for n in constexprs.values() if 16 <= n <= 128 and n & (n - 1) == 0), default=128)


SHORTCUT = forbid(("scaled_dot_product_attention", "softmax"), "The exercise is the kernel: it has to compute the result itself.")
WITH_STRIDES = "Give the kernel the strides: it can read any layout, and convert what it has loaded."


def flash(result=result_size, reads=read_once_a_tile, what: str = "reading Q once, and K and V once for every 16 queries") -> tuple[Rule, ...]:
    """The rules that every kernel of the chapter has."""
    return (SHORTCUT, launches(1), stores(result), loads(reads, what), few_keys_at_a_time(), no_copies(WITH_STRIDES))
