"""The problems of `course bench`: which kernel, which sizes, against whom. Data and plain functions; nothing is timed here.

`GROUPS[name](setting)` lists the races of a group. Rates count compulsory bytes (each tensor read or written once) or the FLOPs of
the matrix products; what is compared is some rows of the output, drawn once, in float64.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from course_lib import peers, races_backward, races_variants
from course_lib.races import Contestant, Race

ROWS = ("vector_add", "softmax_rows", "softmax_long_rows", "rms_norm", "swiglu")
PICKED = 128  # rows of an output that are compared
EPS = 1e-6


@dataclass(frozen=True)
class Setting:
    """Where and how large. `sizes` replaces the sizes of a group: widths of rows, sides of matrices, lengths of sequences."""

    device: str
    dtype: torch.dtype
    quick: bool = False
    sizes: tuple[int, ...] = ()
    tiny: bool = False  # sizes for the interpreter, in float32

    @property
    def rate(self) -> str:
        """The key of this dtype's matmul ceiling."""
        return {torch.bfloat16: "bf16", torch.float16: "fp16", torch.float32: "fp32"}[self.dtype]

    def choose(self, full: tuple, quick: tuple, cpu: tuple, tiny: tuple) -> tuple:
        if self.tiny:
            return tiny
        return self.sizes or (cpu if self.device == "cpu" else quick if self.quick else full)

    @property
    def rows(self) -> int:
        return 100 if self.tiny else 512 if self.device == "cpu" else 8192

    def normal(self, g: torch.Generator, *shape: int) -> Tensor:
        return torch.empty(shape, device=self.device).normal_(generator=g).to(self.dtype)


def ours(function: Callable, name: str = "course") -> Contestant:
    return Contestant(name, lambda: function, ours=True)


def theirs(name: str, function: Callable) -> Contestant:
    return Contestant(name, lambda: function)


def by_compile(s: Setting, function: Callable) -> tuple[Contestant, ...]:
    """torch.compile on a GPU; on a CPU it would time a C++ compiler that a laptop may not have."""
    return (Contestant("torch.compile", lambda: peers.compiled(function)),) if s.device == "cuda" else ()


def picked(rows: int, most: int = PICKED) -> Tensor:
    """Numbers of the rows to compare: all of a few, else the first, the last and others drawn once."""
    if rows <= most:
        return torch.arange(rows)
    others = torch.randperm(rows - 2, generator=torch.Generator().manual_seed(0))[: most - 2] + 1
    return torch.cat([torch.tensor([0, rows - 1]), others]).sort().values


def row_race(s: Setting, kernel: str, M: int, N: int, tensors: int, function: Callable, eager: Callable, exact: Callable, *more: Contestant, **facts):
    """A race of functions of [M, N] tensors that are read and written once; `tensors` of them, and a weight [N] for rms_norm."""
    at = picked(M).to(s.device)
    with_weight = kernel == "rms_norm"

    def draw(g: torch.Generator) -> tuple[Tensor, ...]:
        shapes = [(M, N)] * (tensors - 1) + ([(N,)] if with_weight else [])
        return tuple(s.normal(g, *shape) for shape in shapes)

    def part(inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return tuple(x[at] if x.dim() == 2 else x for x in inputs)

    size = s.dtype.itemsize * (tensors * M * N + (N if with_weight else 0))
    return Race(
        kernel, {"M": M, "N": N}, draw,
        (ours(function), theirs("torch", eager), *by_compile(s, eager), *more),
        exact=lambda *inputs: exact(*(x.double() for x in part(inputs))),
        plain=tuple(lambda *inputs, plain=plain: plain(*part(inputs)) for plain in (eager, *(one.prepare() for one in more))),
        bytes=size, pick=lambda out: out[at], **facts,
    )  # fmt: skip


def vector_add(s: Setting) -> list[Race]:
    from kernels.vector_add import vector_add

    out = []
    for N in s.choose((2**20, 2**26), (2**26,), (2**22,), (10_000,)):
        at = picked(N).to(s.device)
        out.append(
            Race(
                "vector_add", {"M": 1, "N": N}, lambda g, N=N: (s.normal(g, N), s.normal(g, N)),
                (ours(vector_add), theirs("torch", torch.add), *by_compile(s, lambda x, y: x + y)),
                exact=lambda x, y, at=at: x[at].double() + y[at].double(), plain=(lambda x, y, at=at: x[at] + y[at],),
                bytes=3 * N * s.dtype.itemsize, pick=lambda out, at=at: out[at],
            )
        )  # fmt: skip
    return out


def softmax(x: Tensor) -> Tensor:
    return torch.softmax(x, -1)


def softmax_rows(s: Setting) -> list[Race]:
    from kernels.softmax_rows import softmax_rows

    widths = s.choose((1024, 4096, 8192, 32768), (8192,), (8192,), (1000,))
    return [row_race(s, "softmax_rows", s.rows, N, 2, softmax_rows, softmax, softmax) for N in widths]


def softmax_long_rows(s: Setting) -> list[Race]:
    from kernels.softmax_long_rows import softmax_long_rows

    M = 5 if s.tiny else 16 if s.device == "cpu" else 256
    out = []
    for N in s.choose((262_144,), (262_144,), (262_144,), (10_000,)):
        twice = 3 * M * N * s.dtype.itemsize  # a row is read twice: it does not fit on chip
        out.append(row_race(s, "softmax_long_rows", M, N, 2, softmax_long_rows, softmax, softmax, requested=twice))
    return out


def rms_norm_by_steps(x: Tensor, weight: Tensor) -> Tensor:
    """As models spell it: the row's mean square in float32, the product in the input's dtype."""
    wide = x if x.dtype == torch.float64 else x.float()
    return (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + EPS)).to(x.dtype) * weight


def rms_norm_of_torch(x: Tensor, weight: Tensor) -> Tensor:
    return F.rms_norm(x, x.shape[-1:], weight, EPS)


def rms_norm(s: Setting) -> list[Race]:
    from kernels.rms_norm import rms_norm

    fused = theirs("F.rms_norm", rms_norm_of_torch)
    return [
        row_race(s, "rms_norm", s.rows, N, 2, partial(rms_norm, eps=EPS), rms_norm_by_steps, rms_norm_by_steps, fused)
        for N in s.choose((4096, 8192), (8192,), (8192,), (1000,))
    ]


def swiglu_of_torch(gate: Tensor, up: Tensor) -> Tensor:
    return F.silu(gate) * up


def swiglu(s: Setting) -> list[Race]:
    from kernels.swiglu import swiglu

    return [row_race(s, "swiglu", s.rows, N, 3, swiglu, swiglu_of_torch, swiglu_of_torch) for N in s.choose((8192,), (8192,), (8192,), (1000,))]


def matmul(s: Setting) -> list[Race]:
    from kernels.matmul import matmul

    out = []
    for n in s.choose((4096, 8192), (4096,), (512,), (200,)):
        at = picked(n).to(s.device)
        out.append(
            Race(
                "matmul", {"M": n, "N": n, "K": n}, lambda g, n=n: (s.normal(g, n, n), s.normal(g, n, n)),
                (ours(matmul), theirs("cuBLAS" if s.device == "cuda" else "torch", torch.matmul)),
                exact=lambda a, b, at=at: a[at].double() @ b.double(), plain=(lambda a, b, at=at: a[at] @ b,),
                bytes=3 * n * n * s.dtype.itemsize, flops=2 * n**3, ceiling=s.rate, pick=lambda c, at=at: c[at],
            )
        )  # fmt: skip
    return out


# ---------------------------------------------------------------- attention


def flash_forward(s: Setting) -> list[Race]:
    """16K tokens of width 2,048 in all: B = 16,384 / N, H = 2,048 / D."""
    lengths = s.choose((4096, 16384), (4096,), (512,), (150,))
    heads = (64, 128) if not (s.device == "cpu" and s.quick) else (64,)
    tokens, width = (lengths[0], 128) if s.device == "cpu" else (16384, 2048)
    return [attention_race(s, max(1, tokens // N), max(1, width // D), N, D, causal) for D in heads for causal in (False, True) for N in lengths]


def attention_race(s: Setting, B: int, H: int, N: int, D: int, causal: bool) -> Race:
    at = picked(N, PICKED // 2).to(s.device)  # of each head
    masked = torch.arange(N, device=s.device)[None, :] > at[:, None] if causal else None  # [picked, N], True: hidden
    tensor, flops = B * H * N * D * s.dtype.itemsize, 4 * B * H * N * N * D // (2 if causal else 1)
    return Race(
        "flash_forward", {"D": D, "causal": causal, "B": B, "H": H, "N": N},
        lambda g: tuple(s.normal(g, B, H, N, D) for _ in range(3)),
        contestants=_attention(s, N, causal),
        exact=lambda q, k, v: attention_rows(q[:, :, at].double(), k.double(), v.double(), masked),
        plain=(lambda q, k, v: attention_rows(q[:, :, at], k, v, masked), lambda q, k, v: attention_rows(q[:, :, at], k, v, masked, late=True)),
        bytes=4 * tensor + 4 * B * H * N, flops=flops, ceiling=s.rate, pick=lambda out: out[:, :, at],
        exponentials=flops // (4 * D),
    )  # fmt: skip


def attention_rows(q: Tensor, k: Tensor, v: Tensor, hidden: Tensor | None, late: bool = False) -> Tensor:
    """Attention of some rows of queries; late=True divides by the row sums after the second product."""
    scores = q @ k.mT * q.shape[-1] ** -0.5
    if hidden is not None:
        scores = scores.masked_fill(hidden, -torch.inf)
    if not late:
        return torch.softmax(scores, -1) @ v
    p = torch.exp(scores - scores.amax(-1, keepdim=True))
    return (p @ v) / p.sum(-1, keepdim=True)


def _attention(s: Setting, N: int, causal: bool) -> tuple[Contestant, ...]:
    from kernels import flash_forward as plain
    from kernels import flash_forward_descriptors as descriptors
    from kernels import flash_forward_two_tiles as two_tiles

    modules = {"flash_forward": plain, "two_tiles": two_tiles, "descriptors": descriptors}
    mine = [
        Contestant(name, lambda module=module: partial(module.flash_attention_forward, causal=causal), True, output=lambda pair: pair[0])
        for name, module in modules.items()
    ]
    naive = Contestant("naive", lambda: peers.naive(N, causal, s.device))
    if s.device == "cpu":
        return *mine, naive, Contestant("SDPA", lambda: peers.sdpa("FLASH_ATTENTION", causal))
    backends = {"FA2": "FLASH_ATTENTION", "cuDNN": "CUDNN_ATTENTION", "efficient": "EFFICIENT_ATTENTION"}
    return (
        *mine, naive,
        *(Contestant(name, lambda backend=backend: peers.sdpa_by_backend(backend, causal)) for name, backend in backends.items()),
        Contestant(
            "FA3", lambda: peers.flash_attention_3(causal), arrange=peers.rows_of_tokens, output=lambda out: out[0].transpose(1, 2)
        ),
        Contestant("FlexAttention", lambda: peers.flex(N, causal, s.device)),
    )  # fmt: skip


BACKWARD = ("flash_backward", "flash_backward_dkdv", "flash_backward_dq")
VARIANTS = ("flash_varlen", "flash_varlen_backward", "flash_window", "flash_window_backward", "flash_score_mod")
KERNELS: dict[str, Callable[[Setting], list[Race]]] = {
    "vector_add": vector_add,
    "softmax_rows": softmax_rows,
    "softmax_long_rows": softmax_long_rows,
    "rms_norm": rms_norm,
    "swiglu": swiglu,
    "matmul": matmul,
    "flash_forward": flash_forward,
    "flash_backward": races_backward.flash_backward,
    "flash_backward_dkdv": races_backward.flash_backward_dkdv,
    "flash_backward_dq": races_backward.flash_backward_dq,
    **{name: getattr(races_variants, name) for name in VARIANTS},
}
GROUPS: dict[str, tuple[str, ...]] = {
    "rows": ROWS, "matmul": ("matmul",), "flash_forward": ("flash_forward",), "flash_backward": BACKWARD, "flash_variants": VARIANTS,
}  # fmt: skip

from course_lib import races_decode  # noqa: E402  (it takes Setting and others from here)

KERNELS |= races_decode.KERNELS
GROUPS |= {name: (name,) for name in races_decode.KERNELS}
