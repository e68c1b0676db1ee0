"""What the kernels of kernels/ must give: inputs in any layout, float64 references, plain orders of the same sums, and the verdict.

Used by the tests/test_kernels_*.py (in the interpreter) and by benchmarks/verify_kernels.py (on a GPU).
The rule is the course's (`course_lib.grading.compare`): the largest error is at most 3 times the worst of several plain PyTorch orders
at the same precision plus 2 units in the last place, and the root mean square at most 1.5 times. The plain orders are strict ones: they
keep scores and sums in float32, and round only where a kernel must, the weights before the second product and the result.

Among the orders are two that sum as the hardware does (`as_the_hardware`), and that widens what is allowed. Is it honest? Judged so: yes, for
what it may excuse is one thing only, the sum over the inner dimension as the unit makes it that every kernel on that GPU has to use. Plain PyTorch
sums there too (these orders are calls of torch), and in half precision it then rounds the scores, which is a thousand times worse and is not among
the orders. A kernel's own steps (scale, maximum, exponentials, rescaling, the order of tiles, the logarithm) are excused by nothing that the first
orders do not do as well. In float32 a chain of multiply-adds is what a thread does; leaving it out would judge the length of the chain, not the kernel.
What it cannot show: an error in the same direction as the tensor cores' own, of at most three times its size.
"""

from dataclasses import replace

import torch
from torch import Tensor

from course_lib import oracles
from course_lib.grading import compare

LOG2_E, LN_2 = 1.4426950408889634, 0.6931471805599453
LAYOUTS = ("contiguous", "transposed", "heads last", "sliced", "every other", "expanded")


def laid_out(x: Tensor, layout: str) -> Tensor:
    """x with these values in another layout of memory; where it has gaps, they hold NaN. "expanded" repeats the first index of dimension 0."""
    if layout == "contiguous" or x.dim() == 0:
        return x.contiguous()
    if layout == "expanded":
        return x[:1].expand(x.shape) if x.shape[0] else x
    if layout == "transposed" and x.dim() > 1:
        return x.mT.contiguous().mT
    if layout == "heads last" and x.dim() == 4:  # [B, N, H, D] in memory, as a projection leaves it
        return x.transpose(1, 2).contiguous().transpose(1, 2)
    if layout == "every other":
        wide = torch.full((*x.shape[:-1], 2 * x.shape[-1] + 1), torch.nan, dtype=x.dtype, device=x.device)
        return wide[..., 1::2].copy_(x)
    outer = [n + 3 for n in x.shape]  # "sliced", and the ones above where they do not apply
    wide = torch.full(outer, torch.nan, dtype=x.dtype, device=x.device)
    return wide[tuple(slice(1, 1 + n) for n in x.shape)].copy_(x)


def verdict(got, reference, orders, rms: bool = True) -> tuple[list[str], float]:
    """(what is wrong, in sentences; the largest error as a share of what is allowed). rms=False leaves out the rule on the mean."""
    wanted = compare.targets(reference, orders)
    if not rms:
        wanted = [replace(target, rms_limit=torch.inf) for target in wanted]
    found = compare.judge(got, reference, wanted)
    shares = []
    for leaf, target in zip(compare.leaves(got), wanted, strict=True):
        if isinstance(leaf, Tensor) and leaf.numel() and leaf.shape == target.reference.shape and target.limit > 0:
            shares.append(float(_errors(leaf, target.reference).max()) / target.limit)
    sentences = [
        f"{wanted[f.leaf].name or 'result'}: {f.sentence} expected {f.expected}, got {f.got}, {f.multiple:.2f}x plain PyTorch" for f in found
    ]
    return sentences, max(shares, default=0.0)


def mean_errors(got, reference, orders) -> float:
    """The root mean square error as a multiple of the worst plain order's; 0 where that is exact."""
    multiples = []
    for i, (leaf, exact) in enumerate(zip(compare.leaves(got), compare.leaves(reference), strict=True)):
        plain = max((float(_errors(compare.leaves(order)[i], exact).square().sum()) for order in orders), default=0.0)
        multiples.append((float(_errors(leaf, exact).square().sum()) / plain) ** 0.5 if plain else 0.0)
    return max(multiples, default=0.0)


def _errors(got: Tensor, exact: Tensor) -> Tensor:
    return torch.where(got.double() == exact, 0.0, (got.double() - exact).abs())


# ---------------------------------------------------------------- attention


def mask_of(n_q: int, n_kv: int, causal: bool, device="cpu") -> Tensor | None:
    """[N_Q, N_KV] bool, True = keep: the last query sees every key. None where nothing is hidden."""
    if not causal:
        return None
    return torch.arange(n_kv, device=device)[None, :] <= torch.arange(n_q, device=device)[:, None] + n_kv - n_q


def attention_trial(q: Tensor, k: Tensor, v: Tensor, causal: bool = False, scale: float | None = None) -> tuple[tuple, list[tuple]]:
    """(the float64 reference (out, lse), six or more plain orders of it)."""
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    return attention_trial_masked(q, k, v, mask_of(q.shape[2], k.shape[2], causal, q.device), scale)


def attention_trial_masked(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float, changes: tuple = ()
) -> tuple[tuple, list[tuple]]:
    """The same for any mask [N_Q, N_KV] (True = keep). `changes`: ways to compute one function of the scaled scores, the first one exact in float64."""
    group = q.shape[1] // max(1, k.shape[1])
    k, v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
    exact = [x.double() for x in (q, k, v)]
    scores = oracles.attention_scores(exact[0], exact[1], None if changes else mask, scale)
    if changes:
        scores = changes[0](scores)
        scores = scores if mask is None else scores.masked_fill(~mask, -torch.inf)
    reference = oracles.softmax(scores) @ exact[2], oracles.logsumexp(scores)
    q32, k32 = q.float(), k.float()
    raw = [q32 @ k32.mT, q32.flip(-1) @ k32.flip(-1).mT, in_slices(q32, k32.mT), *as_the_hardware(q, k.mT)]  # the sums over D in several orders
    if changes:
        raw, scale = [changes[i % len(changes)](one * scale) for i, one in enumerate(raw)], 1.0
    if mask is not None:
        raw = [one.masked_fill(~mask, -torch.inf) for one in raw]
    ways = ((_normalised, 0), (_by_exp2, 1), (_by_tiles, 2), (_by_exp2, 2), (_by_tiles, 0), *((_in_sequence, i) for i in range(3, len(raw))))
    return reference, [way(raw[i], v, scale, q.dtype) for way, i in ways]


def in_slices(a: Tensor, b: Tensor, width: int = 8) -> Tensor:
    """a @ b, summed in float32 over slices of the inner dimension, one after the other, as a loop over tiles does."""
    total = a.new_zeros(*a.shape[:-1], b.shape[-1])
    for start in range(0, a.shape[-1], width):
        total = total + a[..., start : start + width] @ b[..., start : start + width, :]
    return total


def one_by_one(a: Tensor, b: Tensor) -> Tensor:
    """a @ b in float32, one number of the inner dimension after the other: what a thread's chain of multiply-adds does."""
    total = a.new_zeros(*a.shape[:-1], b.shape[-1])
    for column, row in zip(a.split(1, -1), b.split(1, -2), strict=True) if a.shape[-1] else ():
        total.addcmul_(column, row)
    return total


def as_the_hardware(a: Tensor, b: Tensor) -> list[Tensor]:
    """a @ b, batched, with the sums of the unit that a kernel uses: float32 one by one; 16-bit inputs by the tensor cores, whose sums are
    kept in float32 and are not exact float32 additions (only a GPU has them)."""
    if a.dtype == torch.float32:
        return [one_by_one(a, b)]
    return [by_tensor_cores(a, b)] if a.device.type == "cuda" else []


def by_tensor_cores(a: Tensor, b: Tensor) -> Tensor:
    """a @ b, padded with zeros to whole tiles of 128: with a single row or column cuBLAS takes the ordinary units, and a kernel does not."""
    M, N = a.shape[-2], b.shape[-1]
    wide = torch.nn.functional.pad(a, (0, 0, 0, -M % 128)), torch.nn.functional.pad(b, (0, -N % 128))
    return product(*wide)[..., :M, :N]


def product(a: Tensor, b: Tensor) -> Tensor:
    """a @ b of 16-bit inputs, batched, with a float32 result, by whatever cuBLAS finds best for the shape."""
    flat = torch.bmm(*(x.flatten(0, -3).contiguous() for x in (a, b)), out_dtype=torch.float32)  # flatten: also where there are no rows or no keys
    return flat.reshape(*a.shape[:-1], b.shape[-1])


def _in_sequence(raw: Tensor, v: Tensor, scale: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """_by_exp2, with the second product one key after the other where it is in float32."""
    return _by_exp2(raw, v, scale, dtype, one_by_one if dtype == torch.float32 else torch.matmul)


def _normalised(raw: Tensor, v: Tensor, scale: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Softmax, then the product."""
    scores = raw * scale
    return (oracles.softmax(scores).to(dtype).float() @ v.float()).to(dtype), oracles.logsumexp(scores)


def _by_exp2(raw: Tensor, v: Tensor, scale: float, dtype: torch.dtype, product=torch.matmul) -> tuple[Tensor, Tensor]:
    """Powers of 2, the division last."""
    scores = raw * (scale * LOG2_E)
    row_max = scores.amax(-1) if scores.shape[-1] else scores.new_full(scores.shape[:-1], -torch.inf)
    weights = torch.exp2(scores - torch.where(row_max == -torch.inf, 0.0, row_max)[..., None])
    row_sum = weights.sum(-1)
    out = product(weights.to(dtype).float(), v.float()) / torch.where(row_sum == 0, 1.0, row_sum)[..., None]
    return out.to(dtype), (row_max + torch.log2(row_sum)) * LN_2


def _by_tiles(raw: Tensor, v: Tensor, scale: float, dtype: torch.dtype, tile: int = 32) -> tuple[Tensor, Tensor]:
    """Online, from the last tile of keys to the first."""
    scores = raw * (scale * LOG2_E)
    row_max = scores.new_full(scores.shape[:-1], -torch.inf)
    row_sum, acc = torch.zeros_like(row_max), scores.new_zeros(*scores.shape[:-1], v.shape[-1])
    for start in reversed(range(0, scores.shape[-1], tile)):
        part = scores[..., start : start + tile]
        new_max = torch.maximum(row_max, part.amax(-1))
        base = torch.where(new_max == -torch.inf, 0.0, new_max)
        weights, shrink = torch.exp2(part - base[..., None]), torch.exp2(row_max - base)
        row_sum = row_sum * shrink + weights.sum(-1)
        acc = acc * shrink[..., None] + weights.to(dtype).float() @ v[..., start : start + tile, :].float()
        row_max = new_max
    out = acc / torch.where(row_sum == 0, 1.0, row_sum)[..., None]
    return out.to(dtype), (row_max + torch.log2(row_sum)) * LN_2


# ---------------------------------------------------------------- rows and products


def softmax_trial(x: Tensor) -> tuple[Tensor, list[Tensor]]:
    exact, empty = x.float(), (x == -torch.inf).all(-1, keepdim=True)
    shifted = exact - torch.where(empty, 0.0, exact.amax(-1, keepdim=True))
    by_exp, by_exp2 = shifted.exp(), torch.exp2(shifted * LOG2_E)
    sums = [by_exp.sum(-1, keepdim=True), by_exp2.flip(-1).sum(-1, keepdim=True)]
    orders = [by_exp / torch.where(empty, 1.0, sums[0]), by_exp2 / torch.where(empty, 1.0, sums[1]), torch.softmax(exact, -1).masked_fill(empty, 0.0)]
    return oracles.softmax(x.double()), [order.to(x.dtype) for order in orders]


def rms_norm_trial(x: Tensor, weight: Tensor, eps: float = 1e-6) -> tuple[Tensor, list[Tensor]]:
    exact, w, wide, wide_w = x.double(), weight.double(), x.float(), weight.float()
    reference = exact / (exact.square().mean(-1, keepdim=True) + eps).sqrt() * w
    mean = wide.square().mean(-1, keepdim=True)
    flipped = wide.flip(-1).square().sum(-1, keepdim=True) / x.shape[-1]
    orders = [wide * torch.rsqrt(mean + eps) * wide_w, wide / torch.sqrt(mean + eps) * wide_w, wide * (1 / torch.sqrt(flipped + eps)) * wide_w]
    return reference, [order.to(x.dtype) for order in orders]


def swiglu_trial(gate: Tensor, up: Tensor) -> tuple[Tensor, list[Tensor]]:
    g, u = gate.float(), up.float()
    orders = [torch.nn.functional.silu(g) * u, g * torch.sigmoid(g) * u, g / (1 + torch.exp(-g)) * u]
    return torch.nn.functional.silu(gate.double()) * up.double(), [order.to(gate.dtype) for order in orders]


def vector_add_trial(x: Tensor, y: Tensor) -> tuple[Tensor, list[Tensor]]:
    return x.double() + y.double(), [x + y, (x.float() + y.float()).to(x.dtype), y.float().add(x.float()).to(x.dtype)]


def matmul_trial(a: Tensor, b: Tensor) -> tuple[Tensor, list[Tensor]]:
    x, y = a.float(), b.float()
    orders = [x @ y, x.flip(1) @ y.flip(0), in_slices(x, y), *([one_by_one(x, y)] if a.dtype == torch.float32 else [])]
    return a.double() @ b.double(), [order.to(a.dtype) for order in orders]
