"""Grading material of chapter 00, Start here: copy_bandwidth. Read by the judge only."""

import torch

from course_lib.grading.spec import Check, Mutant, Probe

_READ = "That is half of it: the bytes read, or the bytes written. A copy reads every byte and writes every byte, and memory has to do both."
_BYTES = "The elements were counted, not their bytes. An element is `bytes_each` bytes."
_UNIT = "The bytes and the time are right, the unit is not: that is bytes per second. A GB is 10**9 bytes."
_GIB = "The bytes and the time are right, the unit is not: 2**30 bytes are a GiB, 7 % more than a GB. Here, as on data sheets, 1 GB = 10**9 bytes."
_MB = "The bytes and the time are right, the unit is not: 10**6 bytes are a MB. A GB is 10**9 bytes."
_MIB = "The bytes and the time are right, the unit is not: 2**20 bytes are a MiB. Asked for are GB, 10**9 bytes."
_BITS = "Eight times too much: that is gigabits per second, as network cables are sold. Memory is counted in bytes."
_INVERTED = "Upside down: that is seconds per GB. A bandwidth is bytes over seconds."
_NO_TIME = "These are the bytes, in GB; how long they took is not in it. Divide by `seconds`."


def _probes(g: torch.Generator) -> list[Probe]:
    def times() -> float:  # drawn, so that a list of right answers cannot be learned
        return float(torch.rand((), generator=g, dtype=torch.float64) * 0.9 + 0.05)

    def count() -> int:
        return int(torch.randint(10**6, 10**9, (), generator=g))

    return [
        Probe("250,000,000 float32 elements in 0.1 s", (250_000_000, 4, 0.1)),
        Probe("some bfloat16 elements", (count(), 2, times())),
        Probe("some float64 elements", (count(), 8, times())),
        Probe("some int8 elements", (count(), 1, times())),
        Probe("a slow copy: several seconds", (count(), 4, 10 * times())),
        Probe("a fast copy: under a millisecond", (count(), 2, 1e-3 * times())),
        Probe("an H200's worth: 4 GiB in a few milliseconds", (2**31, 2, 2e-3), diagnose=False),
        Probe("one element", (1, 4, 3e-7), diagnose=False),
    ]


def _by_parts(elements, bytes_each, seconds):
    return (elements * bytes_each + elements * bytes_each) / (seconds * 10**9)


def _in_gigabytes(elements, bytes_each, seconds):
    return 2 * (elements * bytes_each / 1e9) / seconds


def _per_second(elements, bytes_each, seconds):
    return 2 * bytes_each * (elements / seconds) * 1e-9


def _edit(id: str, message: str, moved: str = "2 * elements * bytes_each", result: str = "moved / seconds / 1e9") -> Mutant:
    body = f"def copy_bandwidth(elements, bytes_each, seconds):\n    moved = {moved}\n    return {result}\n"
    return Mutant(id, message, body=body)


COPY_BANDWIDTH = Check(
    exercise="copy_bandwidth",
    probes=_probes,
    reference=_by_parts,
    baselines=(_by_parts, _in_gigabytes, _per_second),
    returns="a number (GB/s)",
    mutants=(
        _edit("read-only", _READ, moved="elements * bytes_each"),
        _edit("elements-not-bytes", _BYTES, moved="2 * elements"),
        _edit("elements-read-only", f"{_BYTES} And a copy both reads and writes them.", moved="elements"),
        _edit("bytes-per-second", _UNIT, result="moved / seconds"),
        _edit(
            "bytes-per-second-read-only", f"{_UNIT} And a copy both reads and writes them.", moved="elements * bytes_each", result="moved / seconds"
        ),
        _edit("gib", _GIB, result="moved / seconds / 2**30"),
        _edit("gib-read-only", f"Two things. {_READ} And 2**30 bytes are a GiB; a GB is 10**9.", "elements * bytes_each", "moved / seconds / 2**30"),
        _edit("mb", _MB, result="moved / seconds / 1e6"),
        _edit("mib", _MIB, result="moved / seconds / 2**20"),
        _edit("bits", _BITS, moved="2 * elements * bytes_each * 8"),
        _edit(
            "bits-read-only",
            "Bits, and half of them: memory is counted in bytes (8 bits each), and a copy reads every byte and writes every byte.",
            moved="elements * bytes_each * 8",
        ),
        _edit("inverted", _INVERTED, result="seconds / (moved / 1e9)"),
        _edit("inverted-read-only", f"{_INVERTED} And a copy both reads and writes.", "elements * bytes_each", "seconds / (moved / 1e9)"),
        _edit("inverted-bytes", f"{_INVERTED} And a GB is 10**9 bytes.", result="seconds / moved"),
        _edit("not-over-seconds", _NO_TIME, result="moved / 1e9"),
        _edit(
            "times-seconds",
            "Multiplied by the time where it must be divided: twice the time for the same bytes is half the bandwidth.",
            result="moved * seconds / 1e9",
        ),
        _edit(
            "milliseconds",
            "A thousand times too small: `seconds` was taken for milliseconds, or turned into them. It is in seconds already.",
            result="moved / (seconds * 1e3) / 1e9",
        ),
        _edit(
            "always-four-bytes",
            "Right for float32 only: 4 bytes were written in. An element takes `bytes_each` bytes, 2 for bfloat16 and 1 for int8.",
            moved="2 * elements * 4",
        ),
        _edit(
            "rounded-to-a-tenth",
            "Rounded to one decimal. The example's 20.0 comes out so by itself; return the quotient as it is, and round where it is printed.",
            result="round(moved / seconds / 1e9, 1)",
        ),
        *(
            _edit(f"rounded-{name}", "Rounded to whole GB/s: the rest was thrown away. Return the quotient as it is.", result=result)
            for name, result in (("down", "moved / seconds // 1e9"), ("to-nearest", "round(moved / seconds / 1e9)"))
        ),
    ),
    right=(
        "def copy_bandwidth(elements, bytes_each, seconds):\n    return 2 * elements * bytes_each / seconds / 10**9\n",
        "def copy_bandwidth(elements: int, bytes_each: int, seconds: float) -> float:\n"
        "    read = elements * bytes_each\n    written = read\n    return (read + written) / 1e9 / seconds\n",
        "def copy_bandwidth(elements, bytes_each, seconds):\n    gigabytes = elements * bytes_each * 1e-9\n    rate = gigabytes / seconds\n    return rate + rate\n",
        "GB = 1_000_000_000\ndef copy_bandwidth(elements, bytes_each, seconds):\n    return float((bytes_each << 1) * elements) / (GB * seconds)\n",
    ),
)

CHECKS = (COPY_BANDWIDTH,)
