"""What this machine reaches: bytes/s when it copies and reads, FLOP/s when it multiplies matrices. Measured, never looked up.

Random data (zeros and repeated values run faster on some chips), medians over repeats with the middle half beside them.
Results are kept in `.course/ceilings.json` and reused until the machine, torch or the number of threads changes, or
until somebody asks for a new measurement. Knows nothing of chapters or figures.
"""

import contextlib
import dataclasses
import datetime
import json
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from course_lib import bench, disk, hardware, paths
from course_lib.tables import Table
from course_lib.words import number

KIB, MIB = 2**10, 2**20
DTYPES = {"fp32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_REPEATS = 7
# On a GPU clocks follow load, temperature and power: seconds of the same work before timing, and of timing.
_WARM_UP, _TIMED, _EACH = 0.3, 0.6, 0.01
_NOISY = 0.05  # a GPU's matmul whose middle half is wider than this share of the median is measured again, then passed over


@dataclass(frozen=True)
class Ceiling:
    """A rate per second (bytes or FLOPs): median, and the middle half of the repeats. `how` says what ran."""

    median: float
    low: float
    high: float
    how: str

    @property
    def spread(self) -> float:
        """Width of the middle half as a share of the median."""
        return (self.high - self.low) / self.median


@dataclass(frozen=True)
class Ceilings:
    """The ceilings of one device, with date and versions. `bandwidth` and `rates` are what a roofline needs."""

    name: str
    device: str
    date: str
    versions: dict[str, str]
    copy: Ceiling  # bytes/s, read and written
    read: Ceiling  # bytes/s, read
    matmul: dict[str, Ceiling]  # FLOP/s by dtype

    @property
    def bandwidth(self) -> float:
        """Bytes/s of a copy, read and written both counted."""
        return self.copy.median

    @property
    def rates(self) -> dict[str, float]:
        """FLOP/s by dtype."""
        return {dtype: ceiling.median for dtype, ceiling in self.matmul.items()}

    def table(self) -> Table:
        lines = [_line("copy", self.copy, 1e9, "GB/s"), _line("read", self.read, 1e9, "GB/s")]
        lines += [_line(f"matmul, {dtype}", ceiling, 1e9, "GFLOP/s") for dtype, ceiling in self.matmul.items()]
        if max(self.rates.values()) >= 1e13:
            lines[2:] = [_line(f"matmul, {dtype}", ceiling, 1e12, "TFLOP/s") for dtype, ceiling in self.matmul.items()]
        versions = ", ".join(f"{package} {version}" for package, version in self.versions.items())
        return Table(("ceiling", "median", "middle half", "what ran"), tuple(lines), f"Ceilings of {self.name}", f"measured {self.date}, {versions}")

    def _repr_html_(self) -> str:
        return self.table()._repr_html_()

    def __repr__(self) -> str:
        return repr(self.table())


def _line(name: str, ceiling: Ceiling, scale: float, unit: str) -> tuple[str, ...]:
    median, low, high = (number(value / scale, 3) for value in (ceiling.median, ceiling.low, ceiling.high))
    return name, f"{median} {unit}", f"{low} to {high}", ceiling.how


def measured(device: str | None = None, again: bool = False) -> Ceilings:
    """The ceilings of this machine: the kept ones where they still hold, else measured now (some seconds) and kept.

    device: "cpu" or "cuda"; by default the GPU where kernels are compiled for one (`hardware.tier()`). again=True measures in any case.
    """
    device = _device(device)
    kept = None if again else _kept(device)
    if kept is None:
        kept = measure(device)
        _keep(kept)
    return kept


def measure(device: str | None = None) -> Ceilings:
    """Measure now, keep nothing. About 4 s on a laptop CPU, 15 s on a GPU."""
    device = _device(device)
    g = torch.Generator(device).manual_seed(0)
    copied, read = _memory(device, g)
    matmul = {dtype: _matmul(device, dtype, g) for dtype in _dtypes(device)}
    if device == "cuda":
        torch.cuda.empty_cache()
    return Ceilings(_name(device), device, datetime.date.today().isoformat(), _versions(device), copied, read, matmul)


def _memory(device: str, g: torch.Generator) -> tuple[Ceiling, Ceiling]:
    """Copy and read, on a buffer that no cache holds."""
    size = 256 * MIB if device == "cpu" else min(1024 * MIB, torch.cuda.mem_get_info()[0] // 8)
    x = torch.empty(size // 4, device=device).uniform_(generator=g)
    y = torch.empty_like(x)
    copied = _rate(lambda: y.copy_(x), 2 * x.nbytes, device, f"copy of {x.nbytes // MIB} MiB, read + written")
    return copied, _rate(lambda: x.sum(), x.nbytes, device, f"sum of {x.nbytes // MIB} MiB")


def _matmul(device: str, dtype: str, g: torch.Generator) -> Ceiling:
    """The best of several sizes, until a product takes over a tenth of a second: small matrices do not fill a machine.

    The next size is tried, not predicted: libraries change their way with the size, and the rate with it, a hundredfold at times.
    """
    tries = []
    with _precision(dtype):
        for n in (256, 512, 1024) if device == "cpu" else (2048, 4096, 8192):
            a, b = (torch.empty(n, n, device=device).normal_(generator=g).to(DTYPES[dtype]) for _ in range(2))
            out = torch.empty_like(a)
            tries.append(_steady(lambda a=a, b=b, out=out: torch.mm(a, b, out=out), 2 * n**3, device, f"[{n:,}, {n:,}] @ [{n:,}, {n:,}]"))
            if 2 * n**3 / tries[-1].median > 0.1:
                break
    return _best(tries, device)


def _steady(call: Callable[[], object], amount: float, device: str, how: str) -> Ceiling:
    """As `_rate`; on a GPU what is noisy is measured again, twice at most, and the quietest counts."""
    found = _rate(call, amount, device, how)
    for _ in range(2 if device == "cuda" else 0):
        if found.spread > _NOISY:
            found = min(found, _rate(call, amount, device, how), key=lambda one: one.spread)
    return found


def _best(tries: list[Ceiling], device: str) -> Ceiling:
    """The highest rate; on a GPU, of the quiet ones where there are any. (A CPU that is shared is never quiet.)"""
    quiet = [one for one in tries if one.spread <= _NOISY] if device == "cuda" else tries
    if quiet:
        return max(quiet, key=lambda one: one.median)
    best = max(tries, key=lambda one: one.median)
    return dataclasses.replace(best, how=f"{best.how}, noisy at every size tried")


def _rate(call: Callable[[], object], amount: float, device: str, how: str) -> Ceiling:
    """amount per second. On a GPU several calls are queued for each timing, so that launching does not count."""
    bench.time_call(call, 3, 1, device)  # first touch of the pages, kernels chosen
    calls, repeats = 1, _REPEATS
    if device == "cuda":
        began = time.monotonic()
        while time.monotonic() - began < _WARM_UP:
            one = bench.time_call(call, 3, 0, device).median
        calls = max(1, min(1000, round(_EACH / one)))
        repeats = max(_REPEATS, min(200, round(_TIMED / (one * calls))))
    timing = bench.time_call(lambda: [call() for _ in range(calls)], repeats, 0, device)
    return Ceiling(*(amount * calls / seconds for seconds in (timing.median, timing.high, timing.low)), how)


def _dtypes(device: str) -> tuple[str, ...]:
    """What has a matrix rate worth measuring: before capability 8.0 there is neither tf32 nor bf16, whatever is emulated."""
    if device == "cpu":
        return "fp32", "bf16", "fp16"
    return ("fp32", "tf32", "bf16", "fp16") if torch.cuda.get_device_capability() >= (8, 0) else ("fp32", "fp16")


@contextlib.contextmanager
def _precision(dtype: str):
    """float32 products on a GPU: as tf32, or in full; the setting found is put back."""
    backend = torch.backends.cuda.matmul
    before = backend.fp32_precision
    backend.fp32_precision = "tf32" if dtype == "tf32" else "ieee"
    try:
        yield
    finally:
        backend.fp32_precision = before


# ---------------------------------------------------------------- cache steps


def cache_steps(device: str | None = None, most: int | None = None) -> list[tuple[int, float]]:
    """Read working sets of growing size again and again: [(bytes, bytes/s)], sizes doubling.

    On a CPU one core sums 16 KiB to 256 MiB; on a GPU every multiprocessor reads 64 KiB to 512 MiB. `most` ends it earlier.
    Where the rate drops, a memory level has become too small for the set.
    """
    device = _device(device)
    if device == "cuda" and hardware.tier() == "interpreter":
        raise ValueError("cache_steps: kernels are interpreted here (TRITON_INTERPRET is set), so the GPU cannot be timed; use device='cpu'")
    smallest, largest = (16 * KIB, 256 * MIB) if device == "cpu" else (64 * KIB, 512 * MIB)
    most = largest if most is None else most
    if most < smallest:
        raise ValueError(f"cache_steps: most is {most} bytes; the smallest working set is {smallest}")
    sizes = [smallest << i for i in range((most // smallest).bit_length())]
    x = torch.empty(sizes[-1] // 4, device=device).uniform_(generator=torch.Generator(device).manual_seed(0))
    return [(size, (_read_on_one_core if device == "cpu" else _read_on_gpu)(x[: size // 4])) for size in sizes]


def _read_on_one_core(x: torch.Tensor) -> float:
    """Bytes/s of summing x over and over inside one call: a call's own cost would hide the small caches."""
    rounds = max(1, 32 * MIB // x.nbytes)
    again = x.expand(rounds, -1)  # stride 0: the same memory each round
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        timing = bench.time_call(again.sum, 5, 2)
    finally:
        torch.set_num_threads(threads)
    return rounds * x.nbytes / timing.median


def _read_on_gpu(x: torch.Tensor) -> float:
    """Bytes/s of all multiprocessors reading x over and over inside one kernel."""
    from kernels.read_again import DEFAULT_CONFIG, read_again

    programs = 4 * torch.cuda.get_device_properties(x.device).multi_processor_count
    each = programs * DEFAULT_CONFIG["TILE"] * 4
    steps = max(64, -(-4 * x.nbytes // each))
    timing = bench.time_call(lambda: [read_again(x, steps, programs) for _ in range(8)], 5, 2, "cuda")
    return 8 * each * steps / timing.median


# ---------------------------------------------------------------- kept


def _device(device: str | None) -> str:
    if device not in (None, "cpu", "cuda"):
        raise ValueError(f"ceilings: the device is {device!r}; choose 'cpu' or 'cuda'")
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("ceilings: torch sees no CUDA GPU here; use device='cpu', or on Colab choose Runtime > Change runtime type > T4")
    return device or ("cuda" if hardware.tier() != "interpreter" and torch.cuda.is_available() else "cpu")


def _name(device: str) -> str:
    return torch.cuda.get_device_name() if device == "cuda" else f"CPU ({platform.machine()}, {torch.get_num_threads()} threads)"


def _versions(device: str) -> dict[str, str]:
    cuda = {"CUDA": str(torch.version.cuda)} if device == "cuda" else {}
    return {"torch": torch.__version__, **cuda}


def _file() -> Path:
    return paths.records() / "ceilings.json"


def _book() -> dict:
    """The file as it stands; {} where it is missing or damaged: everything in it can be measured again."""
    try:
        book = json.loads(_file().read_text(encoding="utf-8"))
        return book if isinstance(book, dict) else {}
    except (OSError, ValueError):
        return {}


def _kept(device: str) -> Ceilings | None:
    """The kept measurement of this device, if it was made on this machine with these versions."""
    try:
        found = from_dict(_book()[device])
    except (KeyError, TypeError, ValueError):
        return None
    return found if (found.name, found.versions) == (_name(device), _versions(device)) else None


def from_dict(entry: dict) -> Ceilings:
    """A measurement from what `dataclasses.asdict` made of it."""
    parts = {"copy": Ceiling(**entry["copy"]), "read": Ceiling(**entry["read"])}
    return Ceilings(**{**entry, **parts, "matmul": {dtype: Ceiling(**one) for dtype, one in entry["matmul"].items()}})


def _keep(found: Ceilings) -> None:
    """Written in one move; where it cannot be written, the next session measures again."""
    with contextlib.suppress(OSError):
        disk.replace(_file(), json.dumps({**_book(), found.device: dataclasses.asdict(found)}, indent=1))
