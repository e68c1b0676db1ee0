"""Chapter 08: The KV cache.

The source of the chapter's exercises: statements, solutions, hints. `make sync` writes the stubs from it.
"""

from collections.abc import Callable

import torch
from torch import Tensor


# %% exercise rope_cos_sin | more | 10 minutes | 2 points | torch
# hint: A clock has several hands. How far does the hand of pair i turn while the position goes up by one?
# hint: Pair i turns by theta ** (-2 i / D) radians a position: the first pair fast, the last one hardly. Multiply every position with every one of the D / 2 speeds.
# hint: speeds = theta ** (-torch.arange(0, head_dim, 2) / head_dim); angles = positions[..., None] * speeds; both halves of D hold the same angles.
def rope_cos_sin(positions: Tensor, head_dim: int, theta: float = 10_000.0) -> tuple[Tensor, Tensor]:
    """Cosine and sine of the angles by which RoPE turns the pairs of a head, for any positions.

    positions   [..., N] int64: where the tokens stand in their text; they need not begin at 0
    head_dim    D, even; pair i (of D / 2) turns by theta ** (-2 i / D) radians a position
    returns     (cos, sin), each [..., N, D] float32: entries i and i + D / 2 belong to pair i and are equal

    Example: rope_cos_sin(torch.tensor([1]), 4) has the angles 1, 0.01, 1, 0.01.
    Source: Su et al. 2021, RoFormer, section 3.2.2, equation 15; pairs as Llama's checkpoints store them.
    """
    # solution
    speeds = theta ** (-torch.arange(0, head_dim, 2, dtype=torch.float32, device=positions.device) / head_dim)  # [D / 2], radians a position
    angles = positions[..., None].float() * speeds  # [..., N, D / 2]
    angles = torch.cat((angles, angles), dim=-1)
    return angles.cos(), angles.sin()
    # end


# %% exercise apply_rope | core | 15 minutes | 3 points | torch
# hint: Pair i is the point (x[i], x[i + D / 2]) of a plane. What are the two coordinates of a point after it is turned by an angle?
# hint: (a, b) turned by an angle is (a cos - b sin, b cos + a sin). With the first half of D as all the a, the second half as all the b, that is two lines.
# hint: x * cos + turned * sin, where `turned` is x with its halves exchanged and one of them negated. Which one?
def apply_rope(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn every pair of every query or key by the angle of its token's position.

    x         [B, H, N, D], D even; the pairs are (x[..., i], x[..., i + D / 2]), i from 0 to D / 2 - 1
    cos, sin  [N, D], or [B, 1, N, D] where each sequence has positions of its own; dtype of x, both halves equal
    returns   [B, H, N, D], dtype of x: pair (a, b) becomes (a cos - b sin, b cos + a sin)

    Example: D = 2, x = [1, 0], an angle of 90 degrees: [0, 1].
    Source: Su et al. 2021, RoFormer, equation 34, with the halves of D as pairs, as Llama's checkpoints have them.
    """
    # solution
    half = x.shape[-1] // 2
    turned = torch.cat((-x[..., half:], x[..., :half]), dim=-1)  # (a, b) -> (-b, a): a quarter turn
    return x * cos + turned * sin
    # end


# %% exercise attend_with_cache | core | 30 minutes | 5 points | torch
# hint: Where in the cache of sequence b does its first new key belong, and which keys may the new query i of sequence b see?
# hint: Write first: slots lengths[b] to lengths[b] + N - 1. Then attend over the cache with a mask: query i of sequence b sees the slots 0 to lengths[b] + i. A K/V head serves H / H_KV neighbouring query heads.
# hint: keep = torch.arange(N_MAX) <= (lengths[:, None] + torch.arange(N))[..., None], with a dimension more for the heads: [B, 1, N, N_MAX]. Softmax over what it keeps.
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
    # solution
    B, H, N, D = q.shape
    H_KV, N_MAX = k_cache.shape[1], k_cache.shape[2]
    slots = lengths[:, None].long() + torch.arange(N, device=q.device)  # [B, N]: where the new tokens stand
    if int(slots.max()) >= N_MAX:
        raise ValueError(f"{int(lengths.max())} tokens are stored and {N} more do not fit into {N_MAX} slots")
    rows = torch.arange(B, device=q.device)[:, None]
    k_cache[rows, :, slots] = k_new.transpose(1, 2)
    v_cache[rows, :, slots] = v_new.transpose(1, 2)
    rows_of_group = q.reshape(B, H_KV, -1, D)  # [B, H_KV, GROUP * N, D]: a group's queries read one K/V head together
    scores = (rows_of_group @ k_cache.mT * D**-0.5).view(B, H_KV, -1, N, N_MAX)
    keep = torch.arange(N_MAX, device=q.device) <= slots[:, None, None, :, None]  # [B, 1, 1, N, N_MAX]
    weights = torch.softmax(scores.masked_fill(~keep, -torch.inf), dim=-1)
    return (weights.flatten(2, 3) @ v_cache).view(B, H, N, D)
    # end


# %% exercise kv_cache_bytes | core | 5 minutes | 1 point | model
# hint: For one token and one layer, which vectors does a later token need, and how many heads of them are there?
# hint: K and V, kv_heads vectors of head_dim elements each; in every layer, for every token of every sequence.
# hint: 2 * layers * kv_heads * head_dim * ... Which three factors are missing?
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
    # solution
    return 2 * layers * kv_heads * head_dim * tokens * batch * bytes_each
    # end


# %% exercise max_batch_size | more | 5 minutes | 1 point | model
# hint: What does every further sequence cost, and what is there whether it comes or not?
# hint: The weights and the reserve are there once. What is left is shared out in whole caches of `tokens` tokens.
# hint: (memory - weights - reserve) // one cache, and never below 0.
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
    # solution
    one = 2 * layers * kv_heads * head_dim * tokens * bytes_each
    return max(0, (memory_bytes - weight_bytes - reserve) // one)
    # end


# %% exercise decode_step_time | more | 15 minutes | 3 points | model
# hint: One decoding step of a batch does two kinds of work. Which of them reads the same bytes for all sequences, and which reads other bytes for each?
# hint: The matrix products read the weights once and do 2 * params FLOPs a sequence. Attention reads each sequence's cache and does 4 * layers * heads * head_dim FLOPs a token in it. One runs after the other; each takes the larger of its two times.
# hint: max(weight bytes / bandwidth, matrix FLOPs / rate) + max(cache bytes / bandwidth, attention FLOPs / rate).
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
    # solution
    matrices = max(params * bytes_each / bandwidth, 2 * params * batch / rate)
    cache = 2 * layers * kv_heads * head_dim * tokens * batch * bytes_each
    attention = max(cache / bandwidth, 4 * layers * heads * head_dim * tokens * batch / rate)
    return matrices + attention
    # end


# %% exercise sample_token | more | 25 minutes | 4 points | torch
# hint: After each of the three cuts: do the probabilities that are left still add up to 1, and does the next step look at them?
# hint: Divide by the temperature; hide all but the k largest logits; softmax; sort downwards and keep a token while the sum *before* it is below top_p; divide by what is left. A running sum of that, and u says where to stop.
# hint: before = ordered.cumsum(-1) - ordered; keep = before < top_p. To draw: the token is the number of running sums that are <= u * (the last running sum).
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
    # solution
    if temperature == 0:
        return logits.argmax(dim=-1)
    scores = logits / temperature
    if top_k is not None and top_k < scores.shape[-1]:
        least = scores.topk(top_k, dim=-1).values[:, -1:]
        scores = scores.masked_fill(scores < least, -torch.inf)
    probs, ids = scores.softmax(dim=-1).sort(dim=-1, descending=True)
    before = probs.cumsum(dim=-1) - probs  # the probability in front of each token
    probs = probs.masked_fill((before >= top_p) & (before > 0), 0.0)
    running = probs.cumsum(dim=-1)
    place = (running <= u[:, None] * running[:, -1:]).sum(dim=-1, keepdim=True)
    last = (probs > 0).sum(dim=-1, keepdim=True) - 1
    return ids.gather(-1, torch.minimum(place, last))[:, 0]  # rounding never steps past the last kept token
    # end


# %% exercise generate | core | 15 minutes | 3 points | torch
# hint: How many tokens does the model have to read in the first call, and how many in every later one?
# hint: Prefill: the whole prompt in one call; the last row of logits is the first choice. Then each chosen token goes in alone, and the cache remembers the rest. The last token that you write need not go in.
# hint: logits = model(tokens, cache=cache)[:, -1]; loop: chosen = choose(logits); append; stop at eos or at max_new_tokens; logits = model(chosen[:, None], cache=cache)[:, -1].
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
    # solution
    if choose is None:
        choose = lambda logits: logits.argmax(dim=-1)  # noqa: E731
    step = tokens
    written = [tokens]
    for _ in range(max_new_tokens):
        chosen = choose(model(step, cache=cache)[:, -1])  # the last position's logits: the first call reads the whole prompt
        step = chosen[:, None]
        written.append(step)
        if eos is not None and int(chosen[0]) == eos:
            break
    return torch.cat(written, dim=1)
    # end
