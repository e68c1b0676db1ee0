"""Chapter 03: Online softmax.

The source of the chapter's exercises: statements, solutions, hints. `make sync` writes the stubs from it.
"""

from collections.abc import Iterable

import torch
from torch import Tensor

from course_lib.states import SoftmaxState


# %% exercise safe_softmax | core | 10 minutes | 2 points | torch
# hint: What is the largest number that `exp` gets to see, and could it have been smaller?
# hint: Subtracting the same number from every score of a row leaves its softmax unchanged. Choose the one that makes the largest score 0. For an empty row that number would be -inf: use 0 there.
# hint: row_max = x.amax(...); a row whose maximum is -inf subtracts 0 instead; weights = (x - ...).exp(); divide by the sum, or by 1 where the sum is 0.
def safe_softmax(x: Tensor) -> Tensor:
    """Softmax over the last dimension that cannot overflow.

    x        [..., N]  scores, any floating dtype; -inf marks a key that must not be seen
    returns  [..., N]  weights, same dtype: each row sums to 1; a row of nothing but -inf becomes zeros

    Not allowed: torch's own softmax, log_softmax and logsumexp.
    Source: Milakov and Gimelshein 2018, Algorithm 2 (safe softmax).
    """
    # solution
    row_max = x.amax(dim=-1, keepdim=True)
    shift = torch.where(row_max == -torch.inf, 0.0, row_max)  # -inf - -inf is NaN: an empty row subtracts 0
    weights = torch.exp(x - shift)
    row_sum = weights.sum(dim=-1, keepdim=True)
    return weights / torch.where(row_sum == 0, 1.0, row_sum)
    # end


# %% exercise online_normalizer | core | 15 minutes | 3 points | torch
# hint: After two tiles you hold a sum of exponentials. Relative to which maximum was each of its terms counted?
# hint: When a tile raises the maximum, everything summed so far is too large by the same factor. Multiply the old sum once, then add the new terms.
# hint: For each tile: new_max = maximum(row_max, tile's maximum); row_sum = row_sum * exp(row_max - ...) + exp(tile - ...).sum(-1). Take care of -inf - -inf.
def online_normalizer(tiles: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
    """The maximum of every row, and the sum of exp(score - maximum), in one pass over the scores.

    tiles    yields tensors [..., n] of scores, one after another; n may differ; -inf marks a hidden key.
             Each tile comes once. Together they are one matrix [..., N].
    returns  (row_max [...], row_sum [...]), same dtype; (-inf, 0) for a row of nothing but -inf

    Graded besides the values: no tile is kept, and nothing you compute is wider than a tile.
    Source: Milakov and Gimelshein 2018, Algorithm 3 (online softmax), tiles in place of single scores.
    """
    # solution
    row_max, row_sum = None, None
    for tile in tiles:
        tile_max = tile.amax(dim=-1)
        if row_max is None:
            row_max, row_sum = torch.full_like(tile_max, -torch.inf), torch.zeros_like(tile_max)
        new_max = torch.maximum(row_max, tile_max)
        shift = torch.where(new_max == -torch.inf, 0.0, new_max)  # nothing seen yet: exp(-inf - 0) = 0, not NaN
        row_sum = row_sum * torch.exp(row_max - shift) + torch.exp(tile - shift[..., None]).sum(dim=-1)
        row_max = new_max
    return row_max, row_sum
    # end


# %% exercise merge_states | core | 15 minutes | 3 points | torch
# hint: Relative to which maximum are the two sums counted?
# hint: Bring both states to the larger of the two maxima, then add. `acc` is counted like `row_sum`, so it is scaled like `row_sum`. A state that has seen no key has row_max -inf: it must change nothing.
# hint: a.row_sum * exp(a.row_max - new_max) + b.row_sum * exp(b.row_max - new_max), and the same for acc with one more dimension: scale[..., None].
def merge_states(a: SoftmaxState, b: SoftmaxState) -> SoftmaxState:
    """The state of two sets of keys taken together, from the states of each.

    a, b     SoftmaxState(row_max [...], row_sum [...], acc [..., D]); acc is not divided by row_sum.
             The empty state is (-inf, 0, 0): merging with it changes nothing.
    returns  SoftmaxState(row_max, row_sum, acc), same shapes and dtype; row_max is the larger of the two

    Example (one row, D = 1): (0, 1, [5]) and (0, 3, [1]) give (0, 4, [6]).
    Source: FlashAttention, section 3.1 (decomposition of softmax), with acc kept unnormalised.
    """
    # solution
    new_max = torch.maximum(a.row_max, b.row_max)
    shift = torch.where(new_max == -torch.inf, 0.0, new_max)  # two empty states stay empty: exp(-inf - 0) = 0
    a_scale, b_scale = torch.exp(a.row_max - shift), torch.exp(b.row_max - shift)
    return SoftmaxState(
        row_max=new_max,
        row_sum=a.row_sum * a_scale + b.row_sum * b_scale,
        acc=a.acc * a_scale[..., None] + b.acc * b_scale[..., None],
    )
    # end


# %% exercise softmax_over_tiles | more | 15 minutes | 3 points | torch
# hint: Which two numbers does every weight of a row need, and when do you know them?
# hint: Not before the last tile. So go through the tiles once for row_max and row_sum, and a second time to write the weights.
# hint: First loop: `online_normalizer(x.split(tile, dim=-1))`. Second loop: out[..., start:start + tile] = exp(x[..., start:start + tile] - row_max) / row_sum, with the empty row guarded.
def softmax_over_tiles(x: Tensor, tile: int) -> Tensor:
    """Softmax over the last dimension that never holds more than a tile of a row: two passes, not three.

    x        [..., N]  scores, any floating dtype; -inf marks a hidden key
    tile     columns held at a time; N need not be a multiple
    returns  [..., N]  as `safe_softmax`: a row of nothing but -inf becomes zeros

    Graded besides the values: nothing you compute is wider than a tile. (The output is; write it tile by tile.)
    Not allowed: torch's own softmax, log_softmax and logsumexp.
    Source: Milakov and Gimelshein 2018, Algorithm 3.
    """
    # solution
    row_max = x.new_full(x.shape[:-1], -torch.inf)
    row_sum = x.new_zeros(x.shape[:-1])
    for scores in x.split(tile, dim=-1):  # pass 1: read
        new_max = torch.maximum(row_max, scores.amax(dim=-1))
        shift = torch.where(new_max == -torch.inf, 0.0, new_max)
        row_sum = row_sum * torch.exp(row_max - shift) + torch.exp(scores - shift[..., None]).sum(dim=-1)
        row_max = new_max
    shift = torch.where(row_max == -torch.inf, 0.0, row_max)[..., None]
    divisor = torch.where(row_sum == 0, 1.0, row_sum)[..., None]
    out = torch.empty_like(x)
    for start in range(0, x.shape[-1], tile):  # pass 2: read and write
        out[..., start : start + tile] = torch.exp(x[..., start : start + tile] - shift) / divisor
    return out
    # end


# %% exercise tiled_attention | core | 20 minutes | 4 points | torch
# hint: Which state would you have if the K/V tiles you have seen were all the keys there are?
# hint: Walk over the keys a tile at a time and keep (row_max, row_sum, acc). For each tile: scores, new maximum, rescale the old row_sum and acc, add the tile's share. Divide once, after the last tile.
# hint: s = q @ k_tile.mT * scale; hidden scores become -inf; p = exp(s - shift); acc = acc * rescale[..., None] + p @ v_tile; at the end acc / row_sum, guarded where row_sum is 0.
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
    # solution
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    row_max = q.new_full(q.shape[:-1], -torch.inf)  # [..., N_Q]
    row_sum = q.new_zeros(q.shape[:-1])  # [..., N_Q]
    acc = torch.zeros_like(q)  # [..., N_Q, D]
    for start in range(0, k.shape[-2], tile):
        keys = slice(start, start + tile)
        scores = q @ k[..., keys, :].mT * scale  # [..., N_Q, tile]
        if mask is not None:
            scores = scores.masked_fill(~mask[..., keys], -torch.inf)
        new_max = torch.maximum(row_max, scores.amax(dim=-1))
        shift = torch.where(new_max == -torch.inf, 0.0, new_max)
        rescale = torch.exp(row_max - shift)  # what was counted relative to the old maximum
        weights = torch.exp(scores - shift[..., None])
        row_sum = row_sum * rescale + weights.sum(dim=-1)
        acc = acc * rescale[..., None] + weights @ v[..., keys, :]
        row_max = new_max
    return acc / torch.where(row_sum == 0, 1.0, row_sum)[..., None]
    # end


# %% exercise mend_tiled_attention | more | 15 minutes | 3 points | torch
# hint: Run it with one tile, then with two. After the first turn of the loop, is `out` a sum or already an average?
# hint: At the end of each turn `out` has been divided by `row_sum`. The next turn adds undivided terms to it. Either undo the division first, or divide only once.
# hint: Before the old `out` is added to something new it must be multiplied by two numbers: `rescale`, and the sum it was divided by.
def mend_tiled_attention(q: Tensor, k: Tensor, v: Tensor, tile: int = 64) -> Tensor:
    """A bug hunt: this loop is exact for one tile of keys and wrong from the second on. Mend it.

    q        [..., N_Q, D]
    k, v     [..., N_KV, D], same leading dimensions as q
    tile     keys held at a time; N_KV need not be a multiple
    returns  [..., N_Q, D] = softmax(q @ k.mT / sqrt(D)) @ v, same dtype

    Graded besides the values: still a loop over tiles, no scores wider than a tile.
    Source: FlashAttention, Algorithm 1, lines 10 to 13.
    """
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
        # solution
        out = ((rescale * row_sum)[..., None] * out + weights @ v_tile) / new_sum[..., None]
        # instead
        #| out = (rescale[..., None] * out + weights @ v_tile) / new_sum[..., None]
        # end
        row_max, row_sum = new_max, new_sum
    return out


# %% exercise logsumexp_over_tiles | more | 10 minutes | 2 points | torch
# hint: log(sum(exp(x))) = row_max + log(of what?)
# hint: One pass gives row_max and row_sum. Their logarithm is row_max + log(row_sum), and nothing in it can overflow.
# hint: The empty row has row_max -inf and row_sum 0: -inf + log(0) is -inf, as it should be, if row_sum itself did not become NaN on the way.
def logsumexp_over_tiles(tiles: Iterable[Tensor]) -> Tensor:
    """log(sum(exp(score))) of every row, natural logarithm, in one pass over tiles.

    tiles    yields tensors [..., n] of scores, each once; n may differ; -inf marks a hidden key
    returns  [...], same dtype; -inf for a row of nothing but -inf

    Graded besides the values: no tile is kept, and nothing you compute is wider than a tile.
    Not allowed: torch's own softmax, log_softmax, logsumexp and logaddexp.
    Source: the log-sum-exp that FlashAttention-2 stores instead of the maximum and the sum, section 3.1.
    """
    # solution
    row_max, row_sum = None, None
    for tile in tiles:
        tile_max = tile.amax(dim=-1)
        if row_max is None:
            row_max, row_sum = torch.full_like(tile_max, -torch.inf), torch.zeros_like(tile_max)
        new_max = torch.maximum(row_max, tile_max)
        shift = torch.where(new_max == -torch.inf, 0.0, new_max)
        row_sum = row_sum * torch.exp(row_max - shift) + torch.exp(tile - shift[..., None]).sum(dim=-1)
        row_max = new_max
    return row_max + torch.log(row_sum)
    # end
