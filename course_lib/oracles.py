"""Slow, obvious references: what softmax, log-sum-exp and attention are, written as their definitions say.

Every function works in the dtype it is given, so `oracle(x.double())` is the number to compare with. A row in
which every key is hidden has softmax 0, attention 0 and log-sum-exp -inf: the convention of the whole course.
Knows nothing of tiles, of grading, or of speed.
"""

import torch
from torch import Tensor

from course_lib.states import SoftmaxState


def softmax(x: Tensor) -> Tensor:
    """Softmax over the last dimension. x [..., N], -inf marks a hidden key; a row of nothing but -inf gives zeros."""
    row_max, _, terms = _terms(x)
    total = terms.sum(dim=-1, keepdim=True)
    return torch.where(row_max[..., None] == -torch.inf, 0.0, terms / torch.where(total == 0, 1.0, total))


def logsumexp(x: Tensor) -> Tensor:
    """log(sum(exp(x))) over the last dimension, natural logarithm: [..., N] -> [...]; -inf for an empty row."""
    _, shift, terms = _terms(x)
    return shift + torch.log(terms.sum(dim=-1))


def softmax_state(scores: Tensor, values: Tensor) -> SoftmaxState:
    """The state after all keys: scores [..., N], values [..., N, D] -> (row_max [...], row_sum [...], acc [..., D])."""
    row_max, _, terms = _terms(scores)
    if values.shape[-2] != scores.shape[-1]:
        raise ValueError(f"softmax_state: {scores.shape[-1]} scores a row need as many values, and there are {values.shape[-2]}")
    return SoftmaxState(row_max, terms.sum(dim=-1), (terms[..., None, :] @ values)[..., 0, :])


def attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, scale: float | None = None) -> Tensor:
    """softmax(q @ k^T * scale) @ v with the whole score matrix in memory.

    q [..., N_Q, D], k [..., N_KV, D], v [..., N_KV, D_V]; mask [..., N_Q, N_KV] bool, True = keep; scale None means 1 / sqrt(D).
    """
    return softmax(attention_scores(q, k, mask, scale)) @ v


def attention_lse(q: Tensor, k: Tensor, mask: Tensor | None = None, scale: float | None = None) -> Tensor:
    """The log-sum-exp of every row of scaled scores: [..., N_Q]; -inf for a row with nothing kept."""
    return logsumexp(attention_scores(q, k, mask, scale))


def attention_scores(q: Tensor, k: Tensor, mask: Tensor | None = None, scale: float | None = None) -> Tensor:
    """The scaled scores [..., N_Q, N_KV]; a hidden key's score is -inf."""
    if q.shape[-1] != k.shape[-1]:
        raise ValueError(f"attention: q has {q.shape[-1]} features and k has {k.shape[-1]} (q is {list(q.shape)}, k is {list(k.shape)})")
    scores = q @ k.mT * (q.shape[-1] ** -0.5 if scale is None else scale)
    if mask is None:
        return scores
    if mask.dtype != torch.bool:
        raise ValueError(f"attention: the mask holds {mask.dtype}; give a bool tensor, True = keep")
    return scores.masked_fill(~mask, -torch.inf)


def max_error(got: Tensor, exact: Tensor) -> float:
    """The largest absolute difference, taken in float64; nan if `got` holds a nan, inf if an infinity does not match."""
    if got.shape != exact.shape:
        raise ValueError(f"max_error: shapes {list(got.shape)} and {list(exact.shape)} differ")
    if got.numel() == 0:
        return 0.0
    a, b = got.double(), exact.double()
    return torch.where(a == b, 0.0, (a - b).abs()).max().item()  # inf - inf is nan, but equal is equal


def _terms(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(largest score, what is subtracted, exp(score - that)) of every row."""
    if not x.is_floating_point():
        raise ValueError(f"scores must be floating point, and these are {x.dtype}: call .double() first")
    if x.shape[-1] == 0:
        row_max = x.new_full(x.shape[:-1], -torch.inf)
    else:
        row_max = x.amax(dim=-1)
    shift = torch.where(row_max == -torch.inf, 0.0, row_max)  # -inf - -inf is NaN: an empty row subtracts 0
    return row_max, shift, torch.exp(x - shift[..., None])
