"""Numbers and counted things as the course writes them: `1,850`, `0.0123`, `3 queries`, `1 read`. Knows nothing of who writes.

Figures have a `number` of their own (three digits, true minus signs).
"""

import math
import re

_UNCHANGED = re.compile(r"(?:[a-z]*[A-Z/%\d].*|.{0,2}|.*ss)$")  # MiB, FLOPs, GB/s, ms, loss: no plurals in -s


def plural(noun: str, count: float = 2) -> str:
    """`key` -> `keys`, `query` -> `queries`, `batch` -> `batches`; the noun itself for a count of 1."""
    if count == 1:
        return noun
    if re.search(r"[^aeiou]y$", noun):
        return noun[:-1] + "ies"
    return noun + ("es" if re.search(r"(s|x|z|ch|sh)$", noun) else "s")


def singular(unit: str) -> str:
    """`reads per score` -> `read per score`. A unit without a plural (MiB, ms, GB/s) stays as it is."""
    first, gap, rest = unit.partition(" ")
    if _UNCHANGED.match(first) or not first.endswith("s"):
        return unit
    if first.endswith("ies"):
        first = first[:-3] + "y"
    else:
        first = first[:-2] if re.search(r"(ss|x|z|ch|sh)es$", first) else first[:-1]
    return first + gap + rest


def unit_of(value: object, unit: str) -> str:
    """The unit as it stands behind this value: `1 unit`, `2 units`."""
    return singular(unit) if isinstance(value, int | float) and not isinstance(value, bool) and value == 1 else unit


def number(x: float, digits: int = 4) -> str:
    """At most `digits` significant digits behind the point, whole numbers in full; an exponent below 1e-3 and from 1e6 on."""
    if not math.isfinite(x):
        return str(float(x))
    if x == int(x) and abs(x) < 1e15:
        return f"{int(x):,}"
    if not 1e-3 <= abs(x) < 1e6:
        return f"{x:.{digits}g}"
    text = f"{x:,.{max(0, digits - 1 - math.floor(math.log10(abs(x))))}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
