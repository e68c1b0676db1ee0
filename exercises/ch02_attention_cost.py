"""Chapter 02: Attention and what it costs.

Generated from solutions/ch02_attention_cost.py by `make sync`: the exercises as nobody has touched them yet.
You may edit this file. `course check NAME` takes an edited exercise over into answers/, where your work is kept.
"""

import torch
from torch import Tensor


# %% exercise attention | core | 15 minutes | 3 points | torch
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
    raise NotImplementedError("attention (chapter 02) is not written yet")


# %% exercise causal_mask | core | 10 minutes | 2 points | torch
def causal_mask(n_q: int, n_kv: int) -> Tensor:
    """Which keys each query may see, when the queries are the last n_q of n_kv tokens.

    n_q      queries; n_kv: keys. Either may be the larger.
    returns  [n_q, n_kv] bool, True = keep. The last query sees every key, each query before it
             one key fewer than the one after it, down to none.

    Source: flash-attn since version 2.1, whose causal mask is aligned to the bottom right corner.
    """
    raise NotImplementedError("causal_mask (chapter 02) is not written yet")


# %% exercise expand_kv_heads | more | 10 minutes | 2 points | torch
def expand_kv_heads(x: Tensor, heads: int) -> Tensor:
    """Give every query head a K/V head of its own, by copying: grouped-query attention written out.

    x        [B, H_KV, N, D]  keys or values; heads is a multiple of H_KV
    heads    H, the number of query heads; H / H_KV neighbours form a group and share a K/V head
    returns  [B, H, N, D], same dtype: head h is a copy of K/V head h // (H / H_KV)

    Source: Ainslie et al. 2023 (GQA), section 2.2; repeat_kv in transformers.
    """
    raise NotImplementedError("expand_kv_heads (chapter 02) is not written yet")


# %% exercise score_matrix_bytes | core | 5 minutes | 1 point | model
def score_matrix_bytes(
    n_q: int, n_kv: int, heads: int = 1, batch: int = 1, bytes_each: int = 2
) -> int:
    """The bytes of the score matrix S, all heads and sequences together. (P, as large again, is not counted.)

    n_q, n_kv    queries and keys; heads: query heads; batch: sequences
    bytes_each   2 for fp16 and bf16, 4 for fp32
    returns      bytes

    Source: the shape [B, H, N_Q, N_KV] of S.
    """
    raise NotImplementedError("score_matrix_bytes (chapter 02) is not written yet")


# %% exercise naive_attention_bytes | core | 10 minutes | 3 points | model
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
    raise NotImplementedError("naive_attention_bytes (chapter 02) is not written yet")


# as generated: top 5f43997c652a, attention 5c87b8002944, causal_mask 463c4b2d0e89, expand_kv_heads ce52bae70e6f, score_matrix_bytes 91efd5212e9b, naive_attention_bytes 947fcff3c4dc
