"""Plain PyTorch ways to the results of chapter 07: references in float64, and the baselines that the tolerance is measured on."""

import torch
from torch import Tensor

from course_lib.checks.ch05_flash_forward.plain import WAYS


def _packed(way):
    """A way of attention, sequence by sequence, on packed tensors."""

    def plain(q, k, v, cu_q, cu_k, max_q, scale=None, causal=False) -> Tensor:
        out = torch.zeros_like(q)
        for (q_first, q_end), (k_first, k_end) in zip(spans(cu_q), spans(cu_k), strict=True):
            if q_end > q_first:
                mine = (q[q_first:q_end], k[k_first:k_end], v[k_first:k_end])
                out[q_first:q_end] = way(*(x.transpose(0, 1)[None] for x in mine), scale, causal)[0][0].transpose(0, 1)
        return out

    return plain


def spans(cu: Tensor) -> list[tuple[int, int]]:
    """(first, end) of every sequence."""
    marks = cu.tolist()
    return list(zip(marks[:-1], marks[1:], strict=True))


def in_window(q: Tensor, k: Tensor, window: int) -> Tensor:
    """[N_Q, N_KV], True where a query sees a key."""
    n_q, n_kv = q.shape[2], k.shape[2]
    place, key = torch.arange(n_q)[:, None] + n_kv - n_q, torch.arange(n_kv)
    return (key <= place) & (key > place - window)


def windowed(q: Tensor, k: Tensor, v: Tensor, window: int, scale: float | None = None) -> Tensor:
    """Scores, mask, exponentials, product, division."""
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    s = (q @ k.mT * scale).masked_fill(~in_window(q, k, window), -torch.inf)
    p, row_sum = _weights(s)
    return p @ v / row_sum


def windowed_scaled_first(q: Tensor, k: Tensor, v: Tensor, window: int, scale: float | None = None) -> Tensor:
    """The scale folded into q, normalised before the second product."""
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    s = ((q * scale) @ k.mT).masked_fill(~in_window(q, k, window), -torch.inf)
    p, row_sum = _weights(s)
    return p / row_sum @ v


def windowed_row_by_row(q: Tensor, k: Tensor, v: Tensor, window: int, scale: float | None = None) -> Tensor:
    """Each query beside the keys it sees, and no others."""
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    out, shift = torch.zeros_like(q), k.shape[2] - q.shape[2]
    for i in range(max(0, -shift), q.shape[2]):
        near = slice(max(0, i + shift - window + 1), i + shift + 1)
        p, row_sum = _weights(q[:, :, i : i + 1] @ k[:, :, near].mT * scale)
        out[:, :, i : i + 1] = p @ v[:, :, near] / row_sum
    return out


def _weights(s: Tensor) -> tuple[Tensor, Tensor]:
    row_max = s.amax(dim=-1, keepdim=True)
    p = torch.exp(s - torch.where(row_max == -torch.inf, 0.0, row_max))
    row_sum = p.sum(dim=-1, keepdim=True)
    return p, torch.where(row_sum == 0, 1.0, row_sum)


PACKED = tuple(_packed(way) for way in WAYS)
WINDOWED = (windowed, windowed_scaled_first, windowed_row_by_row)
