"""Chapter 03: Online softmax.

Generated from solutions/ch03_online_softmax.py by `make sync`: the exercises as nobody has touched them yet.
You may edit this file. `course check NAME` takes an edited exercise over into answers/, where your work is kept.
"""

from collections.abc import Iterable

import torch
from torch import Tensor

from course_lib.states import SoftmaxState


# %% exercise safe_softmax | core | 10 minutes | 2 points | torch
def safe_softmax(x: Tensor) -> Tensor:
    """Softmax over the last dimension that cannot overflow.

    x        [..., N]  scores, any floating dtype; -inf marks a key that must not be seen
    returns  [..., N]  weights, same dtype: each row sums to 1; a row of nothing but -inf becomes zeros

    Not allowed: torch's own softmax, log_softmax and logsumexp.
    Source: Milakov and Gimelshein 2018, Algorithm 2 (safe softmax).
    """
    raise NotImplementedError("safe_softmax (chapter 03) is not written yet")


# %% exercise online_normalizer | core | 15 minutes | 3 points | torch
def online_normalizer(tiles: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
    """The maximum of every row, and the sum of exp(score - maximum), in one pass over the scores.

    tiles    yields tensors [..., n] of scores, one after another; n may differ; -inf marks a hidden key.
             Each tile comes once. Together they are one matrix [..., N].
    returns  (row_max [...], row_sum [...]), same dtype; (-inf, 0) for a row of nothing but -inf

    Graded besides the values: no tile is kept, and nothing you compute is wider than a tile.
    Source: Milakov and Gimelshein 2018, Algorithm 3 (online softmax), tiles in place of single scores.
    """
    raise NotImplementedError("online_normalizer (chapter 03) is not written yet")


# %% exercise merge_states | core | 15 minutes | 3 points | torch
def merge_states(a: SoftmaxState, b: SoftmaxState) -> SoftmaxState:
    """The state of two sets of keys taken together, from the states of each.

    a, b     SoftmaxState(row_max [...], row_sum [...], acc [..., D]); acc is not divided by row_sum.
             The empty state is (-inf, 0, 0): merging with it changes nothing.
    returns  SoftmaxState(row_max, row_sum, acc), same shapes and dtype; row_max is the larger of the two

    Example (one row, D = 1): (0, 1, [5]) and (0, 3, [1]) give (0, 4, [6]).
    Source: FlashAttention, section 3.1 (decomposition of softmax), with acc kept unnormalised.
    """
    raise NotImplementedError("merge_states (chapter 03) is not written yet")


# %% exercise softmax_over_tiles | more | 15 minutes | 3 points | torch
def softmax_over_tiles(x: Tensor, tile: int) -> Tensor:
    """Softmax over the last dimension that never holds more than a tile of a row: two passes, not three.

    x        [..., N]  scores, any floating dtype; -inf marks a hidden key
    tile     columns held at a time; N need not be a multiple
    returns  [..., N]  as `safe_softmax`: a row of nothing but -inf becomes zeros

    Graded besides the values: nothing you compute is wider than a tile. (The output is; write it tile by tile.)
    Not allowed: torch's own softmax, log_softmax and logsumexp.
    Source: Milakov and Gimelshein 2018, Algorithm 3.
    """
    raise NotImplementedError("softmax_over_tiles (chapter 03) is not written yet")


# %% exercise tiled_attention | core | 20 minutes | 4 points | torch
def tiled_attention(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, scale: float | None = None, tile: int = 64
) -> Tensor:
    """Exact attention that looks at one tile of keys and values at a time.

    q        [..., N_Q, D]
    k, v     [..., N_KV, D], same leading dimensions as q
    mask     [..., N_Q, N_KV] bool or None, True = keep; a row with nothing kept gives zeros
    scale    what the scores are multiplied by; None means 1 / sqrt(D)
    tile     keys held at a time; N_KV need not be a multiple
    returns  [..., N_Q, D], same dtype

    Graded besides the values: no scores wider than a tile of keys.
    Not allowed: torch's softmax, logsumexp and scaled_dot_product_attention.
    Source: FlashAttention-2, Algorithm 1, without the loop over tiles of queries.
    """
    raise NotImplementedError("tiled_attention (chapter 03) is not written yet")


# %% exercise mend_tiled_attention | more | 15 minutes | 3 points | torch
def mend_tiled_attention(q: Tensor, k: Tensor, v: Tensor, tile: int = 64) -> Tensor:
    """A bug hunt: this loop is exact for one tile of keys and wrong from the second on. Mend it.

    q        [..., N_Q, D]
    k, v     [..., N_KV, D], same leading dimensions as q
    tile     keys held at a time; N_KV need not be a multiple
    returns  [..., N_Q, D] = softmax(q @ k.mT / sqrt(D)) @ v, same dtype

    Graded besides the values: still a loop over tiles, no scores wider than a tile.
    Source: FlashAttention, Algorithm 1, lines 10 to 13.
    """
    raise NotImplementedError("mend_tiled_attention (chapter 03) is not written yet")
    row_max = q.new_full(q.shape[:-1], -torch.inf)
    row_sum = q.new_zeros(q.shape[:-1])
    out = torch.zeros_like(q)
    for start in range(0, k.shape[-2], tile):
        k_tile, v_tile = k[..., start : start + tile, :], v[..., start : start + tile, :]
        scores = q @ k_tile.mT / q.shape[-1] ** 0.5
        new_max = torch.maximum(row_max, scores.amax(dim=-1))
        rescale = torch.exp(row_max - new_max)
        weights = torch.exp(scores - new_max[..., None])
        new_sum = rescale * row_sum + weights.sum(dim=-1)
        out = (rescale[..., None] * out + weights @ v_tile) / new_sum[..., None]
        row_max, row_sum = new_max, new_sum
    return out


# %% exercise logsumexp_over_tiles | more | 10 minutes | 2 points | torch
def logsumexp_over_tiles(tiles: Iterable[Tensor]) -> Tensor:
    """log(sum(exp(score))) of every row, natural logarithm, in one pass over tiles.

    tiles    yields tensors [..., n] of scores, each once; n may differ; -inf marks a hidden key
    returns  [...], same dtype; -inf for a row of nothing but -inf

    Graded besides the values: no tile is kept, and nothing you compute is wider than a tile.
    Not allowed: torch's own softmax, log_softmax, logsumexp and logaddexp.
    Source: the log-sum-exp that FlashAttention-2 stores instead of the maximum and the sum, section 3.1.
    """
    raise NotImplementedError("logsumexp_over_tiles (chapter 03) is not written yet")


# as generated: top 9d35760215af, safe_softmax c549ad0ab567, online_normalizer 6dd3ecc645f0, merge_states 7c83fa69e93c, softmax_over_tiles 22105a5c73b5, tiled_attention 8c1f4cc7e8b1, mend_tiled_attention f7e422575283, logsumexp_over_tiles 0e117732db7d
