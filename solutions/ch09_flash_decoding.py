"""Chapter 09: Flash-Decoding.

The source of the chapter's exercises: statements, solutions, hints. `make sync` writes the stubs from it.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor


# %% exercise merge_partial_attention | core | 15 minutes | 3 points | torch
# hint: Two parts saw different keys. What does exp(lse) of a part count, and which share of the whole does the part have, then?
# hint: exp(lse) is the sum of the part's exponentials, relative to 0. Taken relative to the largest lse it cannot overflow: weights exp(lse - largest), which add up to the whole's row_sum. The output is the average of the parts' outputs with these weights. A part without keys has weight 0, and so has its output, whatever stands there.
# hint: largest = lses.amax(dim=0), with 0 in place of -inf; weights = torch.exp(lses - largest); total = weights.sum(dim=0); lse = largest + log(total); out = (weights[..., None] * outs).sum(dim=0) / total[..., None], and a total of 0 must not divide.
def merge_partial_attention(outs: Tensor, lses: Tensor) -> tuple[Tensor, Tensor]:
    """The attention over all keys, from that over S parts of them.

    outs     [S, B, H, D], each part's output, normalised over its own keys
    lses     [S, B, H], each part's log-sum-exp (natural); -inf for a part without keys, whose row of outs may hold anything, NaN too
    returns  (out [B, H, D], lse [B, H]), same dtype; a row that no part has keys for has out 0 and lse -inf

    Log-sum-exps may be hundreds apart, and far from 0.
    Example: two parts with lse log(1) and log(3), outputs 0 and 4: out = (1 * 0 + 3 * 4) / 4 = 3, lse = log(4).
    Source: Flash-Decoding, step 3. It is chapter 03's merge_states with row_max = lse, row_sum = 1, acc = out.
    """
    # solution
    empty = lses == -torch.inf
    largest = lses.amax(dim=0)
    base = torch.where(largest == -torch.inf, 0.0, largest)  # -inf - -inf is NaN
    weights = torch.exp(lses - base)  # [S, B, H], 0 for a part without keys
    total = weights.sum(dim=0)
    parts = torch.where(empty[..., None], 0.0, outs)  # 0 times NaN is NaN
    out = (weights[..., None] * parts).sum(dim=0) / torch.where(total == 0, 1.0, total)[..., None]
    return out, base + torch.log(total)
    # end


# %% exercise split_kv_decode | core | 35 minutes | 6 points | triton
# hint: One query leaves 15 of 16 rows of a tile empty, and one program a head leaves most of the GPU empty. Which rows share K and V, and what can be cut so that more programs have work?
# hint: A program is one split of one K/V head of one sequence. Its tile of queries is the group: row r is head h * GROUP + r, rows from GROUP on are masked. Its keys are split * chunk up to (split + 1) * chunk, and none from `length` on, with chunk = ceil(length / splits). The loop is chapter 05's. A split without keys ends with row_max = -inf and row_sum = 0: guard both.
# hint: length = tl.load(lengths_ptr + b); chunk = tl.cdiv(length, tl.num_programs(0)); first = split * chunk; last = min(length, first + chunk); for start in range(first, last, BLOCK_N): ... with start + keys < last in both masks; out = acc / (row_sum or 1), lse = row_max + tl.log(row_sum or 1). The grid is (num_splits, H_KV, B).
@triton.jit
def split_kv_decode_kernel(
    q_ptr, k_ptr, v_ptr, lengths_ptr, outs_ptr, lses_ptr, GROUP, D, scale,
    q_sb, q_sh, q_sd, k_sb, k_sh, k_sn, k_sd, v_sb, v_sh, v_sn, v_sd,
    outs_ss, outs_sb, outs_sh, outs_sd, lses_ss, lses_sb, lses_sh,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    # 1. who am I: one split of the keys, of K/V head h of sequence b
    split = tl.program_id(0)
    h = tl.program_id(1).to(tl.int64)
    b = tl.program_id(2).to(tl.int64)
    rows = tl.arange(0, BLOCK_M)  # [BLOCK_M], of which GROUP exist
    keys = tl.arange(0, BLOCK_N)  # [BLOCK_N]
    dims = tl.arange(0, BLOCK_D)  # [BLOCK_D], of which D exist
    # 2. where is my data
    k_ptrs = k_ptr + b * k_sb + h * k_sh + keys[:, None] * k_sn + dims[None, :] * k_sd
    v_ptrs = v_ptr + b * v_sb + h * v_sh + keys[:, None] * v_sn + dims[None, :] * v_sd
    outs_row = outs_ptr + split * outs_ss + b * outs_sb + dims[None, :] * outs_sd
    lses_row = lses_ptr + split * lses_ss + b * lses_sb
    # solution
    heads = h * GROUP + rows
    mine = (rows[:, None] < GROUP) & (dims[None, :] < D)
    length = tl.load(lengths_ptr + b)
    chunk = tl.cdiv(length, tl.num_programs(0))
    first = split * chunk
    last = min(length, first + chunk)
    # 3. initialise
    q = tl.load(q_ptr + b * q_sb + heads[:, None] * q_sh + dims[None, :] * q_sd, mask=mine, other=0.0)
    row_max = tl.full([BLOCK_M], -float("inf"), tl.float32)
    row_sum = tl.zeros([BLOCK_M], tl.float32)
    acc = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)
    # 4. loop
    for start in range(first, last, BLOCK_N):
        inside = (start + keys[:, None] < last) & (dims[None, :] < D)
        k = tl.load(k_ptrs + start * k_sn, mask=inside, other=0.0)  # [BLOCK_N, BLOCK_D]
        scores = tl.dot(q, k.T, input_precision="ieee") * scale  # [BLOCK_M, BLOCK_N]
        scores = tl.where(start + keys[None, :] < last, scores, -float("inf"))
        new_max = tl.maximum(row_max, tl.max(scores, axis=1))
        p = tl.exp(scores - new_max[:, None])
        rescale = tl.exp(row_max - new_max)
        row_sum = row_sum * rescale + tl.sum(p, axis=1)
        v = tl.load(v_ptrs + start * v_sn, mask=inside, other=0.0)  # [BLOCK_N, BLOCK_D]
        acc = acc * rescale[:, None] + tl.dot(p.to(v.dtype), v, input_precision="ieee")
        row_max = new_max
    # 5. write
    row_sum = tl.where(row_sum == 0.0, 1.0, row_sum)  # a split without keys: out 0, lse -inf
    tl.store(outs_row + heads[:, None] * outs_sh, acc / row_sum[:, None], mask=mine)
    tl.store(lses_row + heads * lses_sh, row_max + tl.log(row_sum), mask=rows < GROUP)
    # instead
    #| # yours: the group's heads, this split's keys, 3. initialise, 4. loop, 5. write
    # end


def split_kv_decode(
    q: Tensor, k_cache: Tensor, v_cache: Tensor, lengths: Tensor, num_splits: int, scale: float | None = None
) -> tuple[Tensor, Tensor]:
    """One new query a sequence against its cache, the keys cut into `num_splits` parts that run side by side.

    q        [B, H, D] float32 or float16, any strides
    k_cache, v_cache  [B, H_KV, N_MAX, D], same dtype, any strides; H = GROUP * H_KV, query head i reads K/V head i // GROUP
    lengths  [B] int32: sequence b has its first lengths[b] keys, 0 to N_MAX; nothing past them may be read
    num_splits  parts: with chunk = ceil(lengths[b] / num_splits), part s has the keys s * chunk to (s + 1) * chunk - 1, as far as there are any
    scale    above 0; None means 1 / sqrt(D)
    returns  (outs [num_splits, B, H, D] float32, each part normalised over its own keys; lses [num_splits, B, H] float32, natural);
             a part without keys has outs 0 and lses -inf

    merge_partial_attention(*split_kv_decode(...)) is the attention over all keys.
    Graded besides the values: one launch, K and V read once for a whole group, each result stored once, no copy made first, no TF32.
    Source: Flash-Decoding, steps 1 and 2.
    """
    (B, H, D), H_KV = q.shape, k_cache.shape[1]
    scale = D**-0.5 if scale is None else scale
    outs = torch.empty((num_splits, B, H, D), dtype=torch.float32, device=q.device)
    lses = torch.empty((num_splits, B, H), dtype=torch.float32, device=q.device)
    GROUP = H // H_KV
    # solution
    grid = (num_splits, H_KV, B)
    # instead
    #| grid = ...  # yours: how many programs along each of its three axes?
    # end
    split_kv_decode_kernel[grid](
        q, k_cache, v_cache, lengths, outs, lses, GROUP, D, scale,
        *q.stride(), *k_cache.stride(), *v_cache.stride(), *outs.stride(), *lses.stride(),
        BLOCK_M=max(16, triton.next_power_of_2(GROUP)), BLOCK_N=32, BLOCK_D=max(16, triton.next_power_of_2(D)),
    )  # fmt: skip
    return outs, lses


# %% exercise choose_num_splits | core | 10 minutes | 3 points | model
# hint: With 8 programs on a GPU that holds 264, what do more splits cost as long as every program finds a place, and what does one more cost after that?
# hint: programs * splits programs run in waves of `places`. A wave takes as long as its longest part: ceil(tiles / splits) tiles, and one tile's time to begin. More than one split also pays for the merge. Try every number of splits, and keep the first of the fastest.
# hint: time = -(-programs * splits // places) * (-(-tiles // splits) + 1) + (merge if splits > 1 else 0), for splits from 1 to `tiles`; min(..., key=...) over (time, splits).
def choose_num_splits(programs: int, tiles: int, places: int, merge: int = 2) -> int:
    """Into how many splits to cut the keys, so that a decode step ends soonest. Time is counted in tiles of keys.

    programs   pairs of a sequence and a K/V head
    tiles      tiles of keys of each
    places     programs that the GPU runs at once; more of them wait for the next wave
    merge      what merging costs where there is more than one split
    returns    1 to `tiles` (1 where there are none): the number with the least time, the smallest of several

    With s splits there are programs * s programs, in ceil(programs * s / places) waves. Each wave takes ceil(tiles / s) tiles,
    the longest of its parts, and 1 more to begin.
    Example: choose_num_splits(8, 64, 132) is 16: one wave of 128 programs, 4 + 1 tiles and the merge, 7 in all; 1 split takes 65.
    Source: the rule of kernels/decoding.py; FlashAttention's num_splits_heuristic asks only how full the waves are.
    """
    # solution
    best, fastest = 1, None
    for splits in range(1, max(1, tiles) + 1):
        waves = -(-programs * splits // places)
        time = waves * (-(-tiles // splits) + 1) + (merge if splits > 1 else 0)
        if fastest is None or time < fastest:
            best, fastest = splits, time
    return best
    # end
