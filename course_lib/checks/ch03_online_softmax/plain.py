"""Plain PyTorch ways to the same results: the float64 references, and the baselines that the tolerance is measured on."""

import torch
from torch import Tensor

from course_lib.checks.ch03_online_softmax.inputs import INF
from course_lib.states import SoftmaxState


def _guarded(weights: Tensor) -> Tensor:
    return torch.nan_to_num(weights, nan=0.0)


def softmax(x: Tensor) -> Tensor:
    return _guarded(torch.softmax(x, dim=-1))


def softmax_by_lse(x: Tensor) -> Tensor:
    return _guarded(torch.exp(x - torch.logsumexp(x, dim=-1, keepdim=True)))


def softmax_by_hand(x: Tensor) -> Tensor:
    weights = torch.exp(x - x.amax(dim=-1, keepdim=True))
    return _guarded(weights / weights.sum(dim=-1, keepdim=True))


def softmax_times_inverse(x: Tensor) -> Tensor:
    row_max, row_sum = _online(x.split(1, dim=-1))
    return torch.exp(x - _finite(row_max)[..., None]) * (1 / torch.where(row_sum == 0, 1.0, row_sum))[..., None]


def _finite(row_max: Tensor) -> Tensor:
    return torch.where(row_max == -INF, 0.0, row_max)


def _online(tiles) -> tuple[Tensor, Tensor]:
    """(row_max, row_sum) in one pass. Each row [...]."""
    row_max = row_sum = None
    for tile in tiles:
        if row_max is None:
            row_max, row_sum = torch.full_like(tile[..., 0], -INF), torch.zeros_like(tile[..., 0])
        new_max = torch.maximum(row_max, tile.amax(dim=-1))
        row_sum = row_sum * torch.exp(row_max - _finite(new_max)) + torch.exp(tile - _finite(new_max)[..., None]).sum(dim=-1)
        row_max = new_max
    return row_max, row_sum


def softmax_by_running_lse(x: Tensor) -> Tensor:
    lse = torch.full_like(x[..., :1], -INF)
    for score in x.split(1, dim=-1):
        lse = torch.logaddexp(lse, score)
    return torch.exp(x - _finite(lse))


def _whole(tiles) -> Tensor:
    return torch.cat(list(tiles), dim=-1)


def normalizer(tiles) -> tuple[Tensor, Tensor]:
    x = _whole(tiles)
    row_max = x.amax(dim=-1)
    return row_max, torch.exp(x - _finite(row_max)[..., None]).sum(dim=-1)


def normalizer_backwards(tiles) -> tuple[Tensor, Tensor]:
    return normalizer([_whole(tiles).flip(-1)])


def normalizer_by_single_scores(tiles) -> tuple[Tensor, Tensor]:
    return _online(_whole(tiles).split(1, dim=-1))


def lse(tiles) -> Tensor:
    return torch.logsumexp(_whole(tiles), dim=-1)


def lse_by_hand(tiles) -> Tensor:
    row_max, row_sum = normalizer(tiles)
    return row_max + torch.log(row_sum)


def lse_by_single_scores(tiles) -> Tensor:
    row_max, row_sum = _online(_whole(tiles).split(1, dim=-1))
    return row_max + torch.log(row_sum)


def merged(a: SoftmaxState, b: SoftmaxState) -> SoftmaxState:
    new_max = torch.maximum(a.row_max, b.row_max)
    a_scale, b_scale = torch.exp(a.row_max - _finite(new_max)), torch.exp(b.row_max - _finite(new_max))
    return SoftmaxState(new_max, a.row_sum * a_scale + b.row_sum * b_scale, a.acc * a_scale[..., None] + b.acc * b_scale[..., None])


def merged_by_one_difference(a: SoftmaxState, b: SoftmaxState) -> SoftmaxState:
    """Only the smaller state is scaled, by exp(-|difference|)."""
    apart = torch.nan_to_num(torch.exp(-(a.row_max - b.row_max).abs()), nan=0.0)
    a_scale, b_scale = torch.where(a.row_max >= b.row_max, 1.0, apart), torch.where(b.row_max >= a.row_max, 1.0, apart)
    return SoftmaxState(
        torch.maximum(a.row_max, b.row_max),
        torch.addcmul(b.row_sum * b_scale, a.row_sum, a_scale),
        b.acc * b_scale[..., None] + a.acc * a_scale[..., None],
    )


def merged_by_exp2(a: SoftmaxState, b: SoftmaxState) -> SoftmaxState:
    log2_e = 1.4426950408889634
    new_max = torch.maximum(a.row_max, b.row_max)
    a_scale, b_scale = torch.exp2((a.row_max - _finite(new_max)) * log2_e), torch.exp2((b.row_max - _finite(new_max)) * log2_e)
    return SoftmaxState(new_max, a.row_sum * a_scale + b.row_sum * b_scale, a.acc * a_scale[..., None] + b.acc * b_scale[..., None])


def _scores(q: Tensor, k: Tensor, mask: Tensor | None, scale: float | None) -> Tensor:
    scores = q @ k.mT * (q.shape[-1] ** -0.5 if scale is None else scale)
    return scores if mask is None else scores.masked_fill(~mask, -INF)


def attention(q, k, v, mask=None, scale=None, tile=64) -> Tensor:
    return softmax(_scores(q, k, mask, scale)) @ v


def attention_divided_late(q, k, v, mask=None, scale=None, tile=64) -> Tensor:
    scores = _scores(q, k, mask, scale)
    weights = torch.exp(scores - _finite(scores.amax(dim=-1, keepdim=True)))
    row_sum = weights.sum(dim=-1, keepdim=True)
    return (weights @ v) / torch.where(row_sum == 0, 1.0, row_sum)


def attention_scaled_first(q, k, v, mask=None, scale=None, tile=64) -> Tensor:
    return softmax_by_lse(_scores(q * (q.shape[-1] ** -0.5 if scale is None else scale), k, mask, 1.0)) @ v


def attention_by_exp2(q, k, v, mask=None, scale=None, tile=64) -> Tensor:
    """As GPU kernels do it: the scale and log2(e) go into q, and exp2 takes the place of exp."""
    scores = _scores(q * ((q.shape[-1] ** -0.5 if scale is None else scale) * 1.4426950408889634), k, mask, 1.0)
    weights = torch.exp2(scores - _finite(scores.amax(dim=-1, keepdim=True)))
    row_sum = weights.sum(dim=-1, keepdim=True)
    return (weights @ v) / torch.where(row_sum == 0, 1.0, row_sum)


def attention_key_by_key(q, k, v, mask=None, scale=None, tile=64) -> Tensor:
    scores = _scores(q, k, mask, scale)
    state = SoftmaxState(torch.full_like(q[..., 0], -INF), torch.zeros_like(q[..., 0]), torch.zeros_like(q))
    for n in range(k.shape[-2]):
        seen = (scores[..., n] > -INF).to(q.dtype)
        state = merged(state, SoftmaxState(scores[..., n], seen, seen[..., None] * v[..., n : n + 1, :]))
    return state.acc / torch.where(state.row_sum == 0, 1.0, state.row_sum)[..., None]


def attention_old_order(q, k, v, tile=64) -> Tensor:
    """Version 1's form: the average is kept, and un-normalised at every tile."""
    row_max, row_sum, out = torch.full_like(q[..., 0], -INF), torch.zeros_like(q[..., 0]), torch.zeros_like(q)
    for k_tile, v_tile in zip(k.split(tile, dim=-2), v.split(tile, dim=-2), strict=True):
        scores = q @ k_tile.mT / q.shape[-1] ** 0.5
        new_max = torch.maximum(row_max, scores.amax(dim=-1))
        rescale, weights = torch.exp(row_max - new_max), torch.exp(scores - new_max[..., None])
        new_sum = rescale * row_sum + weights.sum(dim=-1)
        out = ((rescale * row_sum)[..., None] * out + weights @ v_tile) / new_sum[..., None]
        row_max, row_sum = new_max, new_sum
    return out


def state_of(scores: Tensor, values: Tensor) -> SoftmaxState:
    """The state after seeing these keys. scores [..., N], values [..., N, D]."""
    row_max = scores.amax(dim=-1)
    weights = torch.exp(scores - _finite(row_max)[..., None])
    return SoftmaxState(row_max, weights.sum(dim=-1), (weights[..., None, :] @ values)[..., 0, :])
