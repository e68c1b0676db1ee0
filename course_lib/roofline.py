"""The roofline: how long an operator must take at least, given its FLOPs and bytes and a machine's two ceilings.

Knows nothing of any chapter. A time from here is a bound by bytes and by FLOPs, never a measurement.
"""

import difflib
from dataclasses import dataclass

from course_lib import datasheets


@dataclass(frozen=True)
class Machine:
    """Two kinds of ceiling: bandwidth in bytes/s, and FLOP/s by dtype. `source` says where they come from."""

    name: str
    bandwidth: float
    rates: dict[str, float]
    source: str = ""

    def rate(self, dtype: str) -> float:
        """FLOP/s for a dtype; ValueError naming the dtypes that this machine has."""
        if dtype not in self.rates:
            near = difflib.get_close_matches(dtype, self.rates, 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"{self.name} has no rate for {dtype!r} (it has {', '.join(self.rates)}){hint}")
        return self.rates[dtype]


@dataclass(frozen=True)
class Work:
    """What an operator does: floating-point operations, and bytes moved to and from memory."""

    flops: float
    bytes: float

    @property
    def intensity(self) -> float:
        """FLOPs per byte; 0 for a copy."""
        if self.bytes <= 0:
            raise ValueError(f"intensity: the work moves {self.bytes:g} bytes; it needs at least one")
        return self.flops / self.bytes

    def __add__(self, other: "Work") -> "Work":
        return Work(self.flops + other.flops, self.bytes + other.bytes)


def machine(name: str = "this", device: str | None = None) -> Machine:
    """A GPU by name, `machine("H100")`, from its data sheet; or `machine("this")`, from ceilings measured here.

    device: "cpu" or "cuda", for `this` alone; by default the GPU where there is one. ValueError for an unknown name.
    """
    if name != "this":
        sheet = datasheets.sheet(name)
        return Machine(sheet.name, sheet.bandwidth, dict(sheet.rates), "data sheet, dense rates")
    from course_lib import ceilings

    found = ceilings.measured(device)
    return Machine(found.name, found.bandwidth, dict(found.rates), f"measured here, {found.date}")


def matmul_work(m: int, n: int, k: int, bytes_each: float = 2) -> Work:
    """[m, k] @ [k, n]: 2 m n k FLOPs; each matrix is moved once, `bytes_each` bytes an element."""
    _positive("matmul_work", m=m, n=n, k=k, bytes_each=bytes_each)
    return Work(2 * m * n * k, (m * k + k * n + m * n) * bytes_each)


def elementwise_work(n: int, reads: int = 1, writes: int = 1, flops_each: float = 1, bytes_each: float = 4) -> Work:
    """n elements: each reads `reads` inputs and writes `writes` outputs of `bytes_each` bytes, with `flops_each` FLOPs."""
    _positive("elementwise_work", n=n, bytes_each=bytes_each)
    if min(reads, writes, flops_each) < 0 or reads + writes == 0:
        raise ValueError(f"elementwise_work: reads={reads}, writes={writes}, flops_each={flops_each}; none below 0, and some bytes must move")
    return Work(n * flops_each, n * (reads + writes) * bytes_each)


def softmax_work(rows: int, columns: int, bytes_each: float = 4, reads: int = 1) -> Work:
    """Softmax over each row of [rows, columns]: 5 FLOPs an element (max, subtract, exp, add, divide), `reads` reads and one write."""
    _positive("softmax_work", rows=rows, columns=columns, bytes_each=bytes_each, reads=reads)
    return elementwise_work(rows * columns, reads, 1, 5, bytes_each)


def attention_work(n: int, d: int, heads: int = 1, how: str = "naive", bytes_each: float = 2) -> Work:
    """Self-attention over n tokens, `heads` heads of width d, not causal, every step's tensors moved once.

    FLOPs: 4 n n d a head for the two products, 5 n n for the softmax, n n for the scale. Bytes a head: "flash" reads Q, K, V
    and writes the output, 4 n d elements (compulsory); "naive" adds the n x n matrices: S written and read, P written and read.
    """
    _positive("attention_work", n=n, d=d, heads=heads, bytes_each=bytes_each)
    if how not in ("naive", "flash"):
        raise ValueError(f"attention_work: how={how!r}; choose 'naive' or 'flash'")
    elements = 4 * n * d + (4 * n * n if how == "naive" else 0)
    return Work(heads * (4 * n * n * d + 6 * n * n), heads * elements * bytes_each)


def seconds(work: Work, machine: Machine, dtype: str = "fp16") -> float:
    """The least time: the larger of bytes / bandwidth and FLOPs / rate (both at once, perfectly overlapped)."""
    return max(work.bytes / machine.bandwidth, work.flops / machine.rate(dtype))


def attainable(work: Work, machine: Machine, dtype: str = "fp16") -> float:
    """The most FLOP/s this work can reach: min(rate, intensity x bandwidth)."""
    return min(machine.rate(dtype), work.intensity * machine.bandwidth)


def ridge(machine: Machine, dtype: str = "fp16") -> float:
    """FLOPs per byte from which on the arithmetic is the limit: rate / bandwidth."""
    return machine.rate(dtype) / machine.bandwidth


def bound(work: Work, machine: Machine, dtype: str = "fp16") -> str:
    """ "memory" where bytes take longer than FLOPs, else "compute" (at the ridge itself: compute)."""
    return "memory" if work.intensity < ridge(machine, dtype) else "compute"


def _positive(who: str, **values: float) -> None:
    for name, value in values.items():
        if not value > 0:
            raise ValueError(f"{who}: {name} is {value}; it must be above 0")
