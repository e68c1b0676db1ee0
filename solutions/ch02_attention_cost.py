"""Chapter 02: Attention and what it costs.

The source of the chapter's exercises: statements, solutions, hints. `make sync` writes the stubs from it.
"""

import torch
from torch import Tensor


# %% exercise attention | core | 15 minutes | 3 points | torch
# hint: Which of the three steps must know about hidden keys, so that the weights that are left still sum to 1?
# hint: Scores, then the mask, then softmax over the keys, then the weighted sum of the values. A hidden score becomes -inf, which weighs nothing. Softmax of a row of nothing but -inf is NaN: such a row needs care of its own.
# hint: scores = q @ k.mT * scale; scores.masked_fill(~mask, ...); torch.softmax(scores, dim=...); then weights @ v. NaN can only come from an empty row, and there the weights have to be 0.
def attention(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, scale: float | None = None
) -> Tensor:
    """Every query's weighted average of the values: softmax(q @ k^T * scale) @ v.

    q        [..., N_Q, D]
    k, v     [..., N_KV, D], same leading dimensions as q (none, a batch, a batch and heads)
    mask     bool, True = keep, or None; broadcasts to [..., N_Q, N_KV]; a row with nothing kept gives zeros
    scale    what the scores are multiplied by; None means 1 / sqrt(D)
    returns  [..., N_Q, D], same dtype

    Allowed: torch.softmax (chapter 03 takes it apart). Not allowed: scaled_dot_product_attention.
    Source: Vaswani et al. 2017, equation 1.
    """
    # solution
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    scores = q @ k.mT * scale  # [..., N_Q, N_KV]
    if mask is None:
        return torch.softmax(scores, dim=-1) @ v
    weights = torch.softmax(scores.masked_fill(~mask, -torch.inf), dim=-1)
    empty = ~mask.any(dim=-1, keepdim=True)  # softmax of nothing but -inf is NaN: these rows are 0
    return weights.masked_fill(empty, 0.0) @ v
    # end


# %% exercise causal_mask | core | 10 minutes | 2 points | torch
# hint: Number the tokens from the start of the whole text. Which number has the first of the queries?
# hint: The queries are the last n_q tokens of the n_kv. So query i is token i + n_kv - n_q, and it sees that token and all before it.
# hint: Two ranges, one of them as a column: keys <= queries + ... (or torch.ones(...).tril with a diagonal that is not 0).
def causal_mask(n_q: int, n_kv: int) -> Tensor:
    """Which keys each query may see, when the queries are the last n_q of n_kv tokens.

    n_q      queries; n_kv: keys. Either may be the larger.
    returns  [n_q, n_kv] bool, True = keep. The last query sees every key, each query before it
             one key fewer than the one after it, down to none.

    Source: flash-attn since version 2.1, whose causal mask is aligned to the bottom right corner.
    """
    # solution
    queries = torch.arange(n_q)[:, None]
    keys = torch.arange(n_kv)
    return keys <= queries + n_kv - n_q
    # end


# %% exercise expand_kv_heads | more | 10 minutes | 2 points | torch
# hint: With 6 query heads and 2 K/V heads, which three query heads share the first K/V head?
# hint: Neighbours share: heads 0, 1, 2 read K/V head 0. Each K/V head stands in the result `group` times in a row, before the next one comes.
# hint: repeat_interleave does that along one dimension, and so does an index made of arange(heads) // group. `repeat` does not.
def expand_kv_heads(x: Tensor, heads: int) -> Tensor:
    """Give every query head a K/V head of its own, by copying: grouped-query attention written out.

    x        [B, H_KV, N, D]  keys or values; heads is a multiple of H_KV
    heads    H, the number of query heads; H / H_KV neighbours form a group and share a K/V head
    returns  [B, H, N, D], same dtype: head h is a copy of K/V head h // (H / H_KV)

    Source: Ainslie et al. 2023 (GQA), section 2.2; repeat_kv in transformers.
    """
    # solution
    group = heads // x.shape[1]
    return x.repeat_interleave(group, dim=1)
    # end


# %% exercise score_matrix_bytes | core | 5 minutes | 1 point | model
# hint: How many scores does one head of one sequence have, and does it matter how long a query is?
# hint: One score for every pair of a query and a key, in every head, for every sequence of the batch.
# hint: A product of five numbers.
def score_matrix_bytes(
    n_q: int, n_kv: int, heads: int = 1, batch: int = 1, bytes_each: int = 2
) -> int:
    """The bytes of the score matrix S, all heads and sequences together. (P, as large again, is not counted.)

    n_q, n_kv    queries and keys; heads: query heads; batch: sequences
    bytes_each   2 for fp16 and bf16, 4 for fp32
    returns      bytes

    Source: the shape [B, H, N_Q, N_KV] of S.
    """
    # solution
    return batch * heads * n_q * n_kv * bytes_each
    # end


# %% exercise naive_attention_bytes | core | 10 minutes | 3 points | model
# hint: Write down for each of the three steps which matrices go in and which comes out. Which of them have N_Q x N_KV elements?
# hint: S is written by the first step and read by the second, P is written by the second and read by the third. Nothing else is that large. Every head has its own of everything.
# hint: scores: n_q * d + n_kv * d in, n_q * n_kv out. Do the same for the other two, then multiply by heads and bytes_each.
def naive_attention_bytes(
    n_q: int, n_kv: int, d: int, heads: int = 1, bytes_each: int = 2
) -> tuple[int, int, int]:
    """The bytes that each of naive attention's three steps moves: its inputs read once, its output written once.

    Steps: S = Q K^T, P = softmax(S), O = P V. Each reads from memory and leaves its result in memory.
    n_q, n_kv    queries and keys; d: width of a head; heads: each has K and V of its own
    bytes_each   bytes an element, of all matrices
    returns      (scores, softmax, output): bytes read and written by each step, all heads together

    Source: FlashAttention, Algorithm 0 (standard attention).
    """
    # solution
    q, kv, s = n_q * d, n_kv * d, n_q * n_kv  # elements a head
    scores = q + kv + s  # reads Q and K, writes S
    softmax = s + s  # reads S, writes P
    output = s + kv + q  # reads P and V, writes the output
    return tuple(heads * bytes_each * elements for elements in (scores, softmax, output))
    # end
