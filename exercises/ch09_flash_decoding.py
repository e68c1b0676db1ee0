"""Chapter 09: Flash-Decoding.

Generated from solutions/ch09_flash_decoding.py by `make sync`: the exercises as nobody has touched them yet.
You may edit this file. `course check NAME` takes an edited exercise over into answers/, where your work is kept.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor


# %% exercise merge_partial_attention | core | 15 minutes | 3 points | torch
def merge_partial_attention(outs: Tensor, lses: Tensor) -> tuple[Tensor, Tensor]:
    """The attention over all keys, from that over S parts of them.

    outs     [S, B, H, D], each part's output, normalised over its own keys
    lses     [S, B, H], each part's log-sum-exp (natural); -inf for a part without keys, whose row of outs may hold anything, NaN too
    returns  (out [B, H, D], lse [B, H]), same dtype; a row that no part has keys for has out 0 and lse -inf

    Log-sum-exps may be hundreds apart, and far from 0.
    Example: two parts with lse log(1) and log(3), outputs 0 and 4: out = (1 * 0 + 3 * 4) / 4 = 3, lse = log(4).
    Source: Flash-Decoding, step 3. It is chapter 03's merge_states with row_max = lse, row_sum = 1, acc = out.
    """
    raise NotImplementedError("merge_partial_attention (chapter 09) is not written yet")


# %% exercise split_kv_decode | core | 35 minutes | 6 points | triton
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
    # yours: the group's heads, this split's keys, 3. initialise, 4. loop, 5. write


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
    raise NotImplementedError("split_kv_decode (chapter 09) is not written yet")
    (B, H, D), H_KV = q.shape, k_cache.shape[1]
    scale = D**-0.5 if scale is None else scale
    outs = torch.empty((num_splits, B, H, D), dtype=torch.float32, device=q.device)
    lses = torch.empty((num_splits, B, H), dtype=torch.float32, device=q.device)
    GROUP = H // H_KV
    grid = ...  # yours: how many programs along each of its three axes?
    split_kv_decode_kernel[grid](
        q, k_cache, v_cache, lengths, outs, lses, GROUP, D, scale,
        *q.stride(), *k_cache.stride(), *v_cache.stride(), *outs.stride(), *lses.stride(),
        BLOCK_M=max(16, triton.next_power_of_2(GROUP)), BLOCK_N=32, BLOCK_D=max(16, triton.next_power_of_2(D)),
    )  # fmt: skip
    return outs, lses


# %% exercise choose_num_splits | core | 10 minutes | 3 points | model
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
    raise NotImplementedError("choose_num_splits (chapter 09) is not written yet")


# as generated: top cce30cc42400, merge_partial_attention 823d7b9ab273, split_kv_decode bfabd4eb4ec2, choose_num_splits c00b6adbf284
