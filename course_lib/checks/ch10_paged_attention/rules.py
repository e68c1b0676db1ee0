"""What a kernel over a paged cache may ask memory for: closed forms of a probe's shapes, read against the bytes that were counted."""

from course_lib.checks.ch05_flash_forward.rules import SHORTCUT, SMALLEST, WITH_STRIDES
from course_lib.grading.kernel_rules import launches, loads, no_copies, size, stores
from course_lib.grading.spec import Evidence, Probe, Rule

TABLE = 8  # bytes for the table that are granted a key: a kernel may look its block up once for K and once for V
SPARE = 64  # keys past the end whose entry may be looked up all the same
LOOKUPS = ("index", "index_select", "gather", "take", "embedding", "take_along_dim")


def no_gather() -> Rule:
    """The host may not put the blocks in order: that copies the cache in every step."""

    def broken(probe: Probe, evidence: Evidence) -> str | None:
        used = sorted(op for op in evidence.ops if op.split(".")[0] in LOOKUPS)
        if not used:
            return None
        return f"torch looked blocks up beside your kernel ({', '.join(used)}; {probe.name}): that copies every key once a step. The kernel reads the table itself."

    return Rule("gathered", broken)


def _sizes(probe: Probe) -> tuple[int, int, int]:
    """(bytes of a row of K and a row of V of one head, K/V heads, query heads a group)"""
    q, k = probe.args[:2]
    return 2 * k.shape[3] * k.element_size(), k.shape[2], q.shape[1] // k.shape[2]


def decode_bytes(probe: Probe) -> int:
    """q once; K and V of each request's own keys once a group of up to 16 heads; its entries of the table."""
    q, lengths = probe.args[0], probe.args[4].tolist()
    row, h_kv, group = _sizes(probe)
    tiles = h_kv * -(-group // SMALLEST)
    return size(q) + tiles * sum(n * (row + TABLE) + SPARE * TABLE + 8 for n in lengths)


def prefill_tiles() -> Rule:
    """q once; for each tile of rows K and V up to the last key that one of them sees; no tile where a request has no query."""

    def broken(probe: Probe, evidence: Evidence) -> str | None:
        if len(evidence.launches) != 1:
            return None
        q, _, _, _, cu, lengths, max_q = probe.args[:7]
        row, h_kv, group = _sizes(probe)
        height, block_n = _tile(evidence.launches[0], h_kv * len(lengths), max_q * group)
        total, read = size(q), 0
        for n, length in zip(cu.diff().tolist(), lengths.tolist(), strict=True):
            for first in range(0, n * group, height):
                end = min(length, length - n + (first + height - 1) // group + 1)
                read += min(length, -(-end // block_n) * block_n)
        limit = total + h_kv * (read * (row + TABLE) + (SPARE * TABLE + 32) * len(lengths) * -(-max_q * group // height))
        if evidence.bytes_loaded <= limit:
            return None
        return (
            f"the loads of your kernel ask for {evidence.bytes_loaded:,} bytes ({probe.name}). With tiles of {height} rows, reading K and V up to the last key that a "
            f"row of the tile sees takes {limit:,} at most, the table included."
        )

    return Rule("tiles", broken)


def _tile(launch: dict, heads: int, rows: int) -> tuple[int, int]:
    """(rows a program owns, from the grid; keys a tile, from the launch's BLOCK_N, else the most that is usual)."""
    programs = 1
    for n in launch.get("grid") or ():
        programs *= n if type(n) is int else 0
    each = programs // heads if heads else 0
    height = next((m for m in (256, 128, 64, 32, 16) if each and -(-rows // m) == each), SMALLEST)
    constexprs = launch.get("constexprs") or {}
    return height, constexprs["BLOCK_N"] if type(constexprs.get("BLOCK_N")) is int else 128


def result_size(probe: Probe) -> int:
    return size(probe.args[0])


COMMON = (SHORTCUT, launches(1), stores(result_size), no_gather(), no_copies(WITH_STRIDES))
DECODE = (*COMMON, loads(decode_bytes, "reading q once, and each request's own keys, values and table entries once a group of heads"))
PREFILL = (*COMMON, prefill_tiles())
