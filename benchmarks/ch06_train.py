"""A small transformer trained twice, with the course's flash_attention and with plain attention; and the memory of a training step against N.

Run: python benchmarks/ch06_train.py [FOLDER]    (a CUDA GPU: writes ch06_train.json and ch06_memory.json)
     python benchmarks/ch06_train.py --tiny      a CPU, kernels interpreted: a few steps of a tiny model; writes nothing

The task needs attention: a line of random tokens comes twice, and the second half can be told from the first only by looking back.
Both runs start from the same weights and see the same batches in the same order.
"""

import argparse
import math
import os
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402
from torch import Tensor, nn  # noqa: E402
from torch.utils.checkpoint import checkpoint  # noqa: E402

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"

from course_lib import bench, recorded  # noqa: E402

TOKENS = 64  # different ones


def plain(q: Tensor, k: Tensor, v: Tensor, causal: bool = True) -> Tensor:
    """Attention by three operations, the N x N matrices in memory. q [B, H, N, D]; k, v [B, H_KV, N, D]; causal."""
    k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], 1) for x in (k, v))
    s = q @ k.mT * q.shape[-1] ** -0.5
    s = s.masked_fill(torch.ones(s.shape[-2:], dtype=torch.bool, device=s.device).triu(1), -torch.inf)
    return torch.softmax(s, -1) @ v


def checkpointed(q: Tensor, k: Tensor, v: Tensor, causal: bool = True) -> Tensor:
    """The same; its N x N matrices are not kept for the backward pass but computed again, one layer at a time."""
    return checkpoint(plain, q, k, v, use_reentrant=False)


def flash(q: Tensor, k: Tensor, v: Tensor, causal: bool = True) -> Tensor:
    from kernels.flash_attention import flash_attention

    return flash_attention(q, k, v, causal)


class Layer(nn.Module):
    """Attention and a two-layer perceptron, each on a normalised input and added to it."""

    def __init__(self, width: int, H: int, H_KV: int, attention: Callable):
        super().__init__()
        self.H, self.H_KV, self.D, self.attention = H, H_KV, width // H, attention
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, (H + 2 * H_KV) * self.D, bias=False), nn.Linear(width, width, bias=False)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        heads = self.qkv(self.norm1(x)).unflatten(-1, (-1, self.D)).transpose(1, 2)  # [B, H + 2 H_KV, N, D]
        q, k, v = heads.split((self.H, self.H_KV, self.H_KV), 1)
        x = x + self.out(self.attention(q, k, v, causal=True).transpose(1, 2).flatten(2))
        return x + self.mlp(self.norm2(x))


class Transformer(nn.Module):
    def __init__(self, layers: int, width: int, H: int, H_KV: int, N: int, attention: Callable):
        super().__init__()
        self.tokens, self.places = nn.Embedding(TOKENS, width), nn.Embedding(N, width)
        self.layers = nn.ModuleList(Layer(width, H, H_KV, attention) for _ in range(layers))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, TOKENS, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.tokens(tokens) + self.places.weight[: tokens.shape[1]]
        for layer in self.layers:
            x = layer(x)
        return self.head(self.norm(x))


def train(attention: Callable, steps: int, sizes: dict, batch: int, device: str, dtype: torch.dtype, rate: float = 1e-3) -> list[float]:
    """The loss of every step, over the second halves. sizes: layers, width, H, H_KV, N."""
    torch.manual_seed(0)
    model = Transformer(**sizes, attention=attention).to(device)
    optimizer, g = torch.optim.AdamW(model.parameters(), lr=rate), torch.Generator().manual_seed(1)
    half, losses = sizes["N"] // 2, []
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1.0, (step + 1) / 20)
        line = torch.randint(TOKENS, (batch, half), generator=g).repeat(1, 2).to(device)
        with torch.autocast(device, dtype, enabled=dtype != torch.float32):
            logits = model(line[:, :-1])
            loss = F.cross_entropy(logits[:, half - 1 :].flatten(0, 1).float(), line[:, half:].flatten())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
    return losses


def curves(steps: int, sizes: dict, batch: int, device: str, dtype: torch.dtype) -> tuple[list[dict], list[dict], str]:
    """(every tenth of the steps, all steps, what was trained in words)."""
    found, seconds = {}, {}
    for name, attention in {"plain attention": plain, "flash_attention": flash}.items():
        began = time.perf_counter()
        found[name] = train(attention, steps, sizes, batch, device, dtype)
        seconds[name] = time.perf_counter() - began
    rows = [
        {
            "step": i + 1,
            **{f"loss, {name}": losses[i] for name, losses in found.items()},
            "difference": found["flash_attention"][i] - found["plain attention"][i],
        }
        for i in range(steps)
    ]
    words = ", ".join(f"{name} {value}" for name, value in sizes.items())
    took = ", ".join(f"{name} {value:.0f} s" for name, value in seconds.items())
    title = f"Loss of a small transformer ({words}, batch {batch}, {str(dtype).removeprefix('torch.')}) on repeated lines; ln {TOKENS} = {math.log(TOKENS):.2f}; {took}"
    return [row for row in rows if row["step"] == 1 or row["step"] % max(1, steps // 15) == 0], rows, title


# ---------------------------------------------------------------- memory


def step_of(attention: Callable, N: int, layers: int, H: int, D: int, device: str, dtype: torch.dtype) -> Callable[[], None]:
    """A forward and a backward pass through layers of attention alone, on one sequence."""
    x = torch.randn(1, H, N, D, device=device, dtype=dtype)

    def step() -> None:
        q = x.detach().requires_grad_()
        out = q
        for _ in range(layers):
            out = attention(out, out, out, causal=True)
        out.sum().backward()

    return step


def memory(lengths: tuple[int, ...], longest_plain: int, layers: int, H: int, D: int, device: str, dtype: torch.dtype) -> list[dict]:
    """Peak MiB of a step for each way, '-' where a way was not tried; the last row holds the exponents of N fitted to the longer half."""
    ways, rows = {"plain": plain, "checkpointed": checkpointed, "flash_attention": flash}, []
    for N in lengths:
        row: dict = {"N": f"{N:,}"}
        for name, attention in ways.items():
            small = N <= longest_plain or name == "flash_attention"
            row[f"{name} (MiB)"] = bench.peak_bytes(step_of(attention, N, layers, H, D, device, dtype), device) / 2**20 if small else "-"
        rows.append(row)
        print(row, flush=True)
    fitted = {f"{name} (MiB)": exponent(lengths, [row[f"{name} (MiB)"] for row in rows]) for name in ways}
    return [*rows, {"N": "exponent of N", **fitted}]


def exponent(lengths: tuple[int, ...], values: list) -> float:
    """The slope of log(value) over log(N) by least squares, over the longer half of the lengths that have a value."""
    points = [(math.log(n), math.log(value)) for n, value in zip(lengths, values, strict=True) if value != "-"]
    points = points[len(points) // 2 :] if len(points) > 3 else points
    x, y = (torch.tensor(side, dtype=torch.float64) for side in zip(*points, strict=True))
    return float(((x - x.mean()) * (y - y.mean())).sum() / (x - x.mean()).square().sum())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", help="where the records go; the committed results by default")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--tiny", action="store_true", help="a few steps of a tiny model, on any machine; writes nothing")
    arguments = parser.parse_args()
    if not (arguments.tiny or torch.cuda.is_available()):
        print("ch06_train: this run needs a CUDA GPU; --tiny trains a tiny model here, in Triton's interpreter.")
        return 2
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = torch.bfloat16 if device == "cuda" and torch.cuda.get_device_capability() >= (8, 0) else torch.float32
    if arguments.tiny:
        rows, every, title = curves(min(arguments.steps, 12), {"layers": 1, "width": 32, "H": 2, "H_KV": 1, "N": 32}, 2, device, torch.float32)
        print(title, *rows, sep="\n")
        memory((64, 128, 256), 256, 2, 2, 16, device, torch.float32)
        return 0 if max(abs(row["difference"]) for row in every) < 1e-3 else 1
    folder = Path(arguments.folder) if arguments.folder else recorded.RESULTS
    write = partial(recorded.write, folder=folder, command="python benchmarks/ch06_train.py")
    rows, every, title = curves(arguments.steps, {"layers": 2, "width": 256, "H": 4, "H_KV": 2, "N": 256}, 32, device, dtype)
    print(write("ch06_train", title, rows, details=every), rows[-1])
    layers, H, D = 4, 8, 64
    found = memory(tuple(2**i for i in range(10, 18)), 16384, layers, H, D, device, dtype)
    title = f"Peak memory of a training step through {layers} layers of attention alone: one sequence, {H} heads, D = {D}, {str(dtype).removeprefix('torch.')}, causal"
    print(write("ch06_memory", title, found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
