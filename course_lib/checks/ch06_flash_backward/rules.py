"""What a backward kernel may ask memory for: closed forms of a probe's shapes, read against the bytes that were counted.

"Owner" is the axis whose tiles the programs own ("keys" for dK and dV, "queries" for dQ), "walked" the other one.
"""

from course_lib.grading.kernel_rules import launches, loads, no_copies, size, stores
from course_lib.grading.spec import Evidence, Probe, Rule, forbid

SMALLEST = 16  # rows of the smallest tile that `tl.dot` takes
MOST = 512  # rows of the walked axis that a program may hold at once


def _sides(probe: Probe, owner: str) -> tuple[int, int, int, int]:
    """(rows owned, rows walked, bytes read once for what is owned, bytes of what is walked, whole)."""
    q, k, v, dout, lse, delta = probe.args
    queries, keys = size(q, dout, lse, delta), size(k, v)
    return (k.shape[2], q.shape[2], keys, queries) if owner == "keys" else (q.shape[2], k.shape[2], queries, keys)


def read_once_a_tile(owner: str):
    """The owner's tensors once, the walked ones once for every 16 rows that are owned."""

    def allowed(probe: Probe) -> int:
        owned, _, once, walked = _sides(probe, owner)
        return once + -(-owned // SMALLEST) * walked

    return allowed


def dkdv_size(probe: Probe) -> int:
    return size(*probe.args[1:3])


def dq_size(probe: Probe) -> int:
    return size(probe.args[0])


def few_at_a_time(owner: str) -> Rule:
    """A program may not hold a long walked axis whole: a constexpr that is a power of two and covers it is such a tile."""
    name = "queries" if owner == "keys" else "keys"

    def broken(probe: Probe, evidence: Evidence) -> str | None:
        walked = _sides(probe, owner)[1]
        if walked <= MOST:
            return None
        for launch in evidence.launches:
            constexprs = launch.get("constexprs") or {}
            tiles = [n for n in constexprs.values() if type(n) is int and n >= walked and n & (n - 1) == 0]
            if tiles:
                return (
                    f"your kernel was launched with a tile of {min(tiles):,}, and this input has {walked:,} {name}: a program holds them all at once."
                )
        return None

    return Rule("whole-axis", broken)


def tiles_skipped(owner: str) -> Rule:
    """Under causal=True a program reads the walked tiles that see, or are seen by, one of its rows, and no others."""

    def broken(probe: Probe, evidence: Evidence) -> str | None:
        if not probe.kwargs.get("causal") or len(evidence.launches) != 1:
            return None
        (b, h), (owned, walked, once, whole) = probe.args[0].shape[:2], _sides(probe, owner)
        own, step = _tile(evidence.launches[0], b * h, owned, "BLOCK_M" if owner == "keys" else "BLOCK_N")
        if own is None or not walked:
            return None
        rows, tiles, every = seen_rows(owner, owned, walked, own, step)
        limit = once + rows * (whole // walked)
        if evidence.bytes_loaded <= limit or tiles == every:
            return None
        name = "queries see one of its keys" if owner == "keys" else "keys are seen by one of its queries"
        return (
            f"the loads of your kernel ask for {evidence.bytes_loaded:,} bytes ({probe.name}). A program owns {own} {owner}, and only some {name}: "
            f"{tiles} of {every} tiles of a head. Reading those takes {limit:,}."
        )

    return Rule("tiles", broken)


def seen_rows(owner: str, owned: int, walked: int, own: int, step: int) -> tuple[int, int, int]:
    """(walked rows read, tiles read, tiles there are), all programs of a head together, under a causal mask aligned bottom right."""
    rows = tiles = every = 0
    for first in range(0, owned, own):
        if owner == "keys":  # from the tile of the first query that sees the first key
            begin = max(0, first - (owned - walked)) // step * step
            read = max(0, walked - begin)
        else:  # up to the tile of the last key that the last query sees
            end = min(walked, max(0, min(first + own, owned) + walked - owned))
            read = min(walked, -(-end // step) * step)
        rows += read
        tiles += -(-read // step)
        every += -(-walked // step)
    return rows, tiles, every


def _tile(launch: dict, heads: int, owned: int, name: str) -> tuple[int | None, int]:
    """(rows a program owns, from the grid; rows of a walked tile, from the launch's constexpr of that name, else the most that is usual)."""
    programs = 1
    for n in launch.get("grid") or ():
        programs *= n if type(n) is int else 0
    each = programs // heads if heads else 0
    own = next((m for m in (256, 128, 64, 32, 16) if each and -(-owned // m) == each), None)
    constexprs = {key: n for key, n in (launch.get("constexprs") or {}).items() if type(n) is int and n > 0}
    if name in constexprs:
        return own, constexprs[name]
    return own, max((n for n in constexprs.values() if 16 <= n <= 128 and n & (n - 1) == 0), default=128)


SHORTCUT = forbid(("scaled_dot_product_attention", "softmax", "backward", "grad"), "The exercise is the kernel: it has to compute the result itself.")
WITH_STRIDES = "Give the kernel the strides: it can read any layout, and convert what it has loaded."


def backward(owner: str) -> tuple[Rule, ...]:
    """The rules of flash_backward_dkdv and flash_backward_dq."""
    result, what = (
        (dkdv_size, "reading K and V once, and Q, dout, lse and delta once for every 16 keys")
        if owner == "keys"
        else (dq_size, "reading Q, dout, lse and delta once, and K and V once for every 16 queries")
    )
    return (
        SHORTCUT,
        launches(1),
        stores(result),
        loads(read_once_a_tile(owner), what),
        few_at_a_time(owner),
        no_copies(WITH_STRIDES),
        tiles_skipped(owner),
    )
