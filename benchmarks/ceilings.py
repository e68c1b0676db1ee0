"""The ceilings of a machine: copy and read bandwidth, matmul rate per dtype, each beside its data sheet's number where there is one.

Run: python benchmarks/ceilings.py [FOLDER]   (a CUDA GPU, or the CPU; less than a minute)
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from course_lib import ceilings, datasheets, recorded  # noqa: E402


def rows(found: ceilings.Ceilings) -> list[dict]:
    """One row a ceiling, keys with their units; the data sheet's columns are there for the GPUs that the course has sheets of."""
    try:
        sheet = datasheets.sheet(found.name)
    except ValueError:
        sheet = None
    lines = [
        ("copy, read + written", "GB/s", 1e9, found.copy, sheet and sheet.bandwidth),
        ("read", "GB/s", 1e9, found.read, sheet and sheet.bandwidth),
    ]
    lines += [(f"matmul, {dtype}", "TFLOP/s", 1e12, one, sheet and sheet.rates.get(dtype)) for dtype, one in found.matmul.items()]
    return [_row(name, unit, scale, ceiling, printed) for name, unit, scale, ceiling, printed in lines]


def _row(name: str, unit: str, scale: float, ceiling: ceilings.Ceiling, printed: float | None) -> dict:
    row: dict = {"ceiling": name, "unit": unit, "median": ceiling.median / scale, "low": ceiling.low / scale, "high": ceiling.high / scale}
    row["spread (%)"] = 100 * ceiling.spread
    if printed:
        row |= {"data sheet": printed / scale, "of it (%)": 100 * ceiling.median / printed}
    return row | {"what ran": ceiling.how}


def main() -> None:
    lines = rows(ceilings.measure())
    for line in lines:
        print(line, flush=True)
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else recorded.RESULTS
    print(recorded.write("ceilings", "What the machine reaches, on random data", lines, folder))


if __name__ == "__main__":
    main()
