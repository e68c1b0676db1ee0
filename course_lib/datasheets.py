"""What vendors say their GPUs can do: one frozen table with the document behind every field. Measures nothing.

Rates are dense ones: data sheets since 2020 print matrix rates "with sparsity", which doubles them for matrices that are
half zeros in a fixed pattern. Where such a figure is the printed one, the source says "halved". Sizes on the chip are in
powers of two (KiB, MiB); memory capacities and bandwidths are in powers of ten, as vendors print them.
"""

import difflib
from dataclasses import dataclass, field

KIB, MIB, GB, TERA = 2**10, 2**20, 10**9, 10**12
BYTES_PER_CLOCK = 128  # what one SM's shared memory delivers in a clock: 32 banks of 4 bytes, from Volta to Blackwell


@dataclass(frozen=True)
class Sheet:
    """One GPU. Units stand behind the fields; `source[field]` names the document, and what another document says."""

    name: str
    full_name: str
    year: int
    capability: tuple[int, int]
    sms: int
    clock_ghz: float  # the clock at which the fp16 matrix rate below is reached
    memory_gb: int  # 10**9 bytes
    bandwidth: float  # bytes/s between the GPU's memory and the chip
    l2_bytes: int
    shared_per_block: int  # bytes one thread block may have
    shared_per_sm: int  # bytes
    link: float  # bytes/s over PCIe, one way
    rates: dict[str, float]  # dense FLOP/s by dtype (int8: operations/s)
    registers_per_sm: int = 256 * KIB  # bytes
    source: dict[str, str] = field(default_factory=dict, repr=False)

    @property
    def shared_bytes(self) -> int:
        """Bytes of shared memory on the whole chip."""
        return self.sms * self.shared_per_sm

    @property
    def register_bytes(self) -> int:
        """Bytes of registers on the whole chip."""
        return self.sms * self.registers_per_sm

    @property
    def shared_bandwidth(self) -> float:
        """Bytes/s out of shared memory, all SMs together: SMs x 128 bytes x clock."""
        return self.sms * BYTES_PER_CLOCK * self.clock_ghz * 1e9

    def rate(self, dtype: str) -> float:
        """Dense FLOP/s for a dtype; ValueError with the dtypes this chip has."""
        if dtype not in self.rates:
            raise ValueError(f"{self.name} has no rate for {dtype!r}; its data sheet gives {', '.join(self.rates)}")
        return self.rates[dtype]


_GUIDE = "CUDA C++ Programming Guide, section Compute Capabilities, table Technical Specifications per Compute Capability"
_HOPPER = "NVIDIA H100 Tensor Core GPU Architecture (white paper), table H100 SXM5 in the appendix"
_FORMULA = "computed: SMs x 128 bytes per clock x clock"
_LINK = "one way; data sheets print both ways together, twice as much"


def _source(paper: str, sheet: str, **more: str) -> dict[str, str]:
    """The documents of one GPU: the same ones for most fields, with exceptions by name."""
    same = {"year": sheet, "capability": "CUDA GPUs, developer.nvidia.com/cuda-gpus", "sms": paper, "clock_ghz": paper, "memory_gb": sheet}
    same |= {"bandwidth": sheet, "l2_bytes": paper, "shared_per_block": _GUIDE, "shared_per_sm": _GUIDE, "registers_per_sm": _GUIDE}
    return same | {"link": f"{sheet}; {_LINK}", "rates": sheet, "shared_bandwidth": _FORMULA} | more


_T4 = Sheet(
    "T4", "NVIDIA T4", 2018, (7, 5), 40, 1.59, 16, 320 * GB, 4 * MIB, 64 * KIB, 64 * KIB, 16 * GB,
    {"fp32": 8.1 * TERA, "fp16": 65 * TERA, "int8": 130 * TERA},
    source=_source(
        "NVIDIA Turing GPU Architecture (white paper), appendix A, table Tesla T4",
        "NVIDIA T4 Tensor Core GPU data sheet, table Specifications",
        bandwidth="NVIDIA T4 data sheet: 320+ GB/s; later prints of the same sheet say 300 GB/s",
    ),
)  # fmt: skip
_L4 = Sheet(
    "L4", "NVIDIA L4", 2023, (8, 9), 58, 2.04, 24, 300 * GB, 48 * MIB, 99 * KIB, 100 * KIB, 32 * GB,
    {"fp32": 30.3 * TERA, "tf32": 60 * TERA, "bf16": 121 * TERA, "fp16": 121 * TERA, "fp8": 242.5 * TERA, "int8": 242.5 * TERA},
    source=_source(
        "NVIDIA Ada GPU Architecture (white paper), the AD104 chip; 58 of its 60 SMs are switched on",
        "NVIDIA L4 Tensor Core GPU data sheet, table Specifications",
        sms="NVIDIA L4 data sheet: 7,424 CUDA cores, 128 an SM; tables that say 60 SMs count the whole AD104",
        rates="NVIDIA L4 data sheet, table Specifications; matrix rates are printed with sparsity (120, 242, 485) and halved here",
    ),
)  # fmt: skip
_A100 = Sheet(
    "A100", "NVIDIA A100 80GB SXM", 2020, (8, 0), 108, 1.41, 80, 2039 * GB, 40 * MIB, 163 * KIB, 164 * KIB, 32 * GB,
    {"fp32": 19.5 * TERA, "tf32": 156 * TERA, "bf16": 312 * TERA, "fp16": 312 * TERA, "int8": 624 * TERA},
    source=_source(
        "NVIDIA A100 Tensor Core GPU Architecture (white paper), table Comparison of NVIDIA Data Center GPUs",
        "NVIDIA A100 Tensor Core GPU data sheet, table Specifications, column A100 80GB SXM",
        bandwidth="NVIDIA A100 data sheet, column 80GB SXM; the white paper describes the 40GB card, 1,555 GB/s",
    ),
)  # fmt: skip
_HOPPER_RATES = {"fp32": 66.9, "tf32": 494.7, "bf16": 989.4, "fp16": 989.4, "fp8": 1978.9, "int8": 1978.9}
_H100 = Sheet(
    "H100", "NVIDIA H100 SXM", 2022, (9, 0), 132, 1.83, 80, 3350 * GB, 50 * MIB, 227 * KIB, 228 * KIB, 64 * GB,
    {dtype: rate * TERA for dtype, rate in _HOPPER_RATES.items()},
    source=_source(
        _HOPPER,
        "NVIDIA H100 Tensor Core GPU data sheet, table Specifications, column H100 SXM",
        clock_ghz="from the white paper's 989.4 TFLOP/s: 132 SMs x 4,096 FLOPs a clock; the fp32 rate of 66.9 belongs to 1.98 GHz",
        bandwidth="NVIDIA H100 data sheet: 3.35 TB/s; the white paper's table says 3,352 GB/s, its first edition 3,000",
        rates=f"{_HOPPER}, dense columns; the data sheet prints them with sparsity (1,979 bf16)",
    ),
)  # fmt: skip
_H200 = Sheet(
    "H200", "NVIDIA H200 SXM", 2024, (9, 0), 132, 1.83, 141, 4800 * GB, 50 * MIB, 227 * KIB, 228 * KIB, 64 * GB,
    {dtype: rate * TERA for dtype, rate in _HOPPER_RATES.items()},
    source=_source(
        _HOPPER,
        "NVIDIA H200 Tensor Core GPU data sheet, table Specifications, column H200 SXM",
        clock_ghz="as H100: the same chip, the same printed matrix rates",
        l2_bytes=f"{_HOPPER}: 50 MB, the same chip; the CUDA driver may report more on an H200 (the full GH100 has 60 MB)",
        rates="NVIDIA H200 data sheet; matrix rates are printed with sparsity (1,979 bf16) and halved here, digits as in the H100 white paper",
    ),
)  # fmt: skip
_B200 = Sheet(
    "B200", "NVIDIA B200 (HGX)", 2024, (10, 0), 148, 1.86, 180, 8000 * GB, 126 * MIB, 227 * KIB, 228 * KIB, 64 * GB,
    {"fp32": 75 * TERA, "tf32": 1100 * TERA, "bf16": 2250 * TERA, "fp16": 2250 * TERA, "fp8": 4500 * TERA, "int8": 4500 * TERA},
    source=_source(
        "NVIDIA Blackwell Architecture Technical Brief, table HGX B200",
        "NVIDIA HGX B200 data sheet, per GPU",
        sms="reported by the CUDA driver (148); NVIDIA's documents do not print it",
        clock_ghz="from 2,250 TFLOP/s: 148 SMs x 8,192 FLOPs a clock",
        memory_gb="NVIDIA HGX B200 data sheet: 1.4 TB for eight, 180 GB each; the technical brief says up to 192 GB",
        bandwidth="NVIDIA Blackwell Architecture Technical Brief: up to 8 TB/s; the HGX data sheet's total for eight gives 7.7",
        l2_bytes="reported by the CUDA driver (126 MB); NVIDIA's documents do not print it",
        link=f"PCIe 5.0 x16, NVIDIA HGX B200 data sheet; {_LINK}; the technical brief announced PCIe 6.0",
        rates="NVIDIA Blackwell Architecture Technical Brief, table HGX B200, sparse figures halved; its fp32 is 80, the HGX data sheet's 75",
    ),
)  # fmt: skip

SHEETS: dict[str, Sheet] = {sheet.name: sheet for sheet in (_T4, _L4, _A100, _H100, _H200, _B200)}


def sheet(name: str) -> Sheet:
    """The sheet of a GPU by its short name, `H100`, or by what the driver calls it, `NVIDIA H100 80GB HBM3`.

    ValueError in a sentence, with the nearest name, where the course has none.
    """
    words = name.upper().replace("-", " ").replace("_", " ").split()
    for word in words:
        if word in SHEETS:
            return SHEETS[word]
    near = difflib.get_close_matches(name.upper(), SHEETS, 1, cutoff=0.4)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"there is no data sheet for {name!r} (there are: {', '.join(SHEETS)}){hint}")
