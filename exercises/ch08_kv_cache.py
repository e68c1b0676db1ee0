"""Chapter 08: The KV cache.

Generated from solutions/ch08_kv_cache.py by `make sync`: the exercises as nobody has touched them yet.
You may edit this file. `course check NAME` takes an edited exercise over into answers/, where your work is kept.
"""

from collections.abc import Callable

import torch
from torch import Tensor


# %% exercise rope_cos_sin | more | 10 minutes | 2 points | torch
def rope_cos_sin(positions: Tensor, head_dim: int, theta: float = 10_000.0) -> tuple[Tensor, Tensor]:
    """Cosine and sine of the angles by which RoPE turns the pairs of a head, for any positions.

    positions   [..., N] int64: where the tokens stand in their text; they need not begin at 0
    head_dim    D, even; pair i (of D / 2) turns by theta ** (-2 i / D) radians a position
    returns     (cos, sin), each [..., N, D] float32: entries i and i + D / 2 belong to pair i and are equal

    Example: rope_cos_sin(torch.tensor([1]), 4) has the angles 1, 0.01, 1, 0.01.
    Source: Su et al. 2021, RoFormer, section 3.2.2, equation 15; pairs as Llama's checkpoints store them.
    """
    raise NotImplementedError("rope_cos_sin (chapter 08) is not written yet")


# %% exercise apply_rope | core | 15 minutes | 3 points | torch
def apply_rope(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn every pair of every query or key by the angle of its token's position.

    x         [B, H, N, D], D even; the pairs are (x[..., i], x[..., i + D / 2]), i from 0 to D / 2 - 1
    cos, sin  [N, D], or [B, 1, N, D] where each sequence has positions of its own; dtype of x, both halves equal
    returns   [B, H, N, D], dtype of x: pair (a, b) becomes (a cos - b sin, b cos + a sin)

    Example: D = 2, x = [1, 0], an angle of 90 degrees: [0, 1].
    Source: Su et al. 2021, RoFormer, equation 34, with the halves of D as pairs, as Llama's checkpoints have them.
    """
    raise NotImplementedError("apply_rope (chapter 08) is not written yet")


# %% exercise attend_with_cache | core | 30 minutes | 5 points | torch
def attend_with_cache(
    q: Tensor, k_new: Tensor, v_new: Tensor, k_cache: Tensor, v_cache: Tensor, lengths: Tensor
) -> Tensor:
    """Store the keys and values of N new tokens behind those that the cache holds, and attend from the new tokens.

    q                 [B, H, N, D]: the new tokens' queries, RoPE applied; N = 1 while decoding
    k_new, v_new      [B, H_KV, N, D]: theirs; H is a multiple of H_KV, head h reads K/V head h // (H / H_KV)
    k_cache, v_cache  [B, H_KV, N_MAX, D]: written in place; what lies behind is stale, any finite numbers
    lengths           [B] int32: tokens that each sequence holds already, 0 or more; not changed here
    returns           [B, H, N, D], dtype of q: softmax(q @ k.mT / sqrt(D)) @ v, where token i of sequence b
                      sees the tokens 0 to lengths[b] + i

    Written: slots lengths[b] to lengths[b] + N - 1 of sequence b, and nothing else.
    Where lengths[b] + N > N_MAX for some b: ValueError, before anything is written.
    Source: Shazeer 2019, Fast Transformer Decoding, section 2.4 (incremental attention).
    """
    raise NotImplementedError("attend_with_cache (chapter 08) is not written yet")


# %% exercise kv_cache_bytes | core | 5 minutes | 1 point | model
def kv_cache_bytes(
    tokens: int, layers: int, kv_heads: int, head_dim: int, batch: int = 1, bytes_each: int = 2
) -> int:
    """Bytes that the keys and values of `batch` sequences of `tokens` tokens take.

    kv_heads    K/V heads a layer: as many as query heads for MHA, 1 for MQA, in between for GQA
    bytes_each  bytes an element: 2 for fp16 and bf16
    returns     bytes, an int

    Example: kv_cache_bytes(4096, 32, 32, 128) is 2 GiB: Llama-2-7B's cache of 4,096 tokens.
    Source: Ainslie et al. 2023, GQA, section 2 (what grouping saves); the model card's config.json for the sizes.
    """
    raise NotImplementedError("kv_cache_bytes (chapter 08) is not written yet")


# %% exercise max_batch_size | more | 5 minutes | 1 point | model
def max_batch_size(
    memory_bytes: int, weight_bytes: int, tokens: int, layers: int, kv_heads: int, head_dim: int,
    bytes_each: int = 2, reserve: int = 0,
) -> int:  # fmt: skip
    """How many sequences of `tokens` tokens each fit a GPU beside the weights.

    memory_bytes   of the GPU; weight_bytes: of the model
    tokens         room that each sequence may need: prompt and answer together
    layers, kv_heads, head_dim, bytes_each   as in kv_cache_bytes
    reserve        bytes kept free for activations and the framework
    returns        an int; 0 where not even one fits, or the weights do not

    Example: memory 1,000, weights 400, a token of 2 bytes (1 layer, 1 head, D = 1, 1 byte each), 100 tokens: 3.
    Source: Kwon et al. 2023, PagedAttention, section 1 (what a server's memory holds), without paging.
    """
    raise NotImplementedError("max_batch_size (chapter 08) is not written yet")


# %% exercise decode_step_time | more | 15 minutes | 3 points | model
def decode_step_time(
    batch: int, tokens: int, params: int, layers: int, heads: int, kv_heads: int, head_dim: int,
    bandwidth: float, rate: float, bytes_each: int = 2,
) -> float:  # fmt: skip
    """The least seconds of one decoding step: `batch` sequences, each with `tokens` tokens in its cache, write a token each.

    Two parts, one after the other, each as long as the larger of (bytes / bandwidth, FLOPs / rate):
    matrices    all `params` weights are read once for the whole batch; 2 FLOPs a weight and sequence
    attention   every sequence's cache is read once (kv_heads heads); 4 FLOPs (a product and a sum for the
                score, the same for the weighted value) for each of its tokens, query head (heads), feature and layer
    bandwidth   bytes/s; rate: FLOP/s; bytes_each: of a weight, and of an element of the cache
    returns     seconds, a float

    Example: batch 1, no tokens, 1,000 weights, 100 bytes/s, a fast chip: 20 s.
    Source: Pope et al. 2022, Efficiently Scaling Transformer Inference, section 2, without what it says about several chips.
    """
    raise NotImplementedError("decode_step_time (chapter 08) is not written yet")


# %% exercise sample_token | more | 25 minutes | 4 points | torch
def sample_token(
    logits: Tensor, u: Tensor, temperature: float = 1.0, top_k: int | None = None, top_p: float = 1.0
) -> Tensor:
    """Draw a token for each row of logits. The random numbers are an argument, so the law of the draw can be enumerated.

    logits       [B, V] float32; -inf marks a token that must not come
    u            [B] float32, uniform in [0, 1): where in a row's distribution the draw falls
    temperature  divides the logits; 0 means the largest logit (of equal ones the first), whatever u is
    top_k        None, or keep the top_k largest logits, and any that equal the smallest of these
    top_p        then keep the fewest tokens, most probable first, whose probabilities (after temperature and
                 top_k) sum to top_p or more: the token that crosses top_p is kept, and there is always one
    returns      [B] int64. As u runs evenly through [0, 1), every kept token comes as often as its
                 probability among the kept ones says; no other token comes. In which order is yours.

    Example: probabilities 0.5, 0.3, 0.2 and top_p 0.6: the first comes for 5/8 of all u, the second for 3/8.
    Not allowed: torch.multinomial and its like; they draw numbers of their own.
    Source: Fan et al. 2018 (top-k), section 5.4; Holtzman et al. 2020 (top-p), section 3.1.
    """
    raise NotImplementedError("sample_token (chapter 08) is not written yet")


# %% exercise generate | core | 15 minutes | 3 points | torch
def generate(
    model: Callable, tokens: Tensor, cache: object, max_new_tokens: int,
    eos: int | None = None, choose: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:  # fmt: skip
    """Write on from a prompt, a token a step, every token through the model at most once.

    model     model(tokens [1, n], cache=cache) -> logits [1, n, V], float32: reads n new tokens that follow what
              the cache holds, and stores their keys and values there
    tokens    [1, N] int64, N at least 1: the prompt, none of it read yet
    cache     empty, with room for N + max_new_tokens tokens; hand it to the model at every call
    eos       the end-of-text token: once it is chosen it is kept as the last token, and the writing stops
    choose    choose(logits [1, V]) -> token [1] int64, called once for every token written; None means the largest logit
    returns   [1, N + written] int64: the prompt and what was written, at most max_new_tokens (0 or more)

    Graded besides the tokens: the prompt is read in one call, every later call reads one token, none is read twice.
    Source: the loop of every decoder; in transformers it is `_sample` in generation/utils.py.
    """
    raise NotImplementedError("generate (chapter 08) is not written yet")


# as generated: top 3f41a861d08f, rope_cos_sin ca115485fae8, apply_rope 5ffc311f1e1a, attend_with_cache 371a52afc24e, kv_cache_bytes 8d3225ea9dcb, max_batch_size 1a623fc02c78, decode_step_time ab6f779a4574, sample_token 2b1d6847a910, generate 0aa8b472592f
