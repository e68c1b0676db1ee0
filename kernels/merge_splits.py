"""Merging splits: partial results of attention over parts of the keys become one, by their log-sum-exps.

Notebook   09 Flash-Decoding
Reference  course_lib.oracles.attention over all the keys
Paper      Dao et al. 2023, Flash-Decoding, step 3; the rule is FlashAttention's for two tiles
Shapes     outs [S, B, H, D] float32, lses [S, B, H] float32, any strides; out [B, H, D], lse [B, H] float32
Grid       (B * H,): a program merges one row of all splits

    row_max = max(lses)                          of the splits that saw a key
    weights = exp(lses - row_max)
    out = sum(weights * outs) / sum(weights)
    lse = row_max + log(sum(weights))

Why a second kernel: the splits of a row are written by programs that may run in any order, and the end of a kernel is where all of
them have written. Reading them back costs S rows of float32, little beside the keys. The other way, in which the last program to arrive
merges, saves a launch of some microseconds and needs a counter in memory that every call must find at zero.
"""

import torch
import triton
import triton.language as tl

from kernels.launching import require

TARGETS = (75, 80, 86, 89, 90, 100, 120)


@triton.jit(do_not_specialize=["S"])  # 2 or 16 splits need no other code
def merge_splits_kernel(
    outs_ptr, lses_ptr, out_ptr, lse_ptr, outs_strides, lses_strides, S, H,
    D: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_S: tl.constexpr,
):  # fmt: skip
    # 1. who am I
    row = tl.program_id(0).to(tl.int64)
    b, h = row // H, row % H
    # 2. where is my data
    splits = tl.arange(0, BLOCK_S)  # [BLOCK_S]
    columns = tl.arange(0, BLOCK_D)  # [BLOCK_D]
    outs_row = outs_ptr + b * outs_strides[1] + h * outs_strides[2]
    lses_row = lses_ptr + b * lses_strides[1] + h * lses_strides[2]
    # 3. initialise
    row_max = float("-inf")
    row_sum = 0.0
    acc = tl.zeros([BLOCK_D], tl.float32)
    # 4. loop: one turn for 64 splits or fewer
    for start in range(0, S, BLOCK_S):
        at = (start + splits).to(tl.int64)
        part = tl.load(lses_row + at * lses_strides[0], mask=at < S, other=float("-inf"))  # [BLOCK_S]
        saw_keys = part > float("-inf")  # the others have weight 0, and their rows are not read
        inside = saw_keys[:, None] & (columns < D)[None, :]
        outs = tl.load(outs_row + at[:, None] * outs_strides[0] + columns[None, :] * outs_strides[3], mask=inside, other=0.0)  # [BLOCK_S, BLOCK_D]
        new_max = tl.maximum(row_max, tl.max(part, 0))
        base = tl.where(new_max == float("-inf"), 0.0, new_max)  # -inf - -inf is NaN: a row without keys stays 0
        weights = tl.exp(part - base)
        shrink = tl.exp(row_max - base)
        row_sum = row_sum * shrink + tl.sum(weights, 0)
        acc = acc * shrink + tl.sum(weights[:, None] * outs, 0)
        row_max = new_max
    # 5. write
    row_sum = tl.where(row_sum == 0.0, 1.0, row_sum)  # a row without keys: out 0, lse -inf
    tl.store(out_ptr + row * D + columns, (acc / row_sum).to(out_ptr.dtype.element_ty), mask=columns < D)
    tl.store(lse_ptr + row, row_max + tl.log(row_sum))


def merge_splits(outs: torch.Tensor, lses: torch.Tensor, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor]:
    """The attention over all keys, from that over parts of them.

    outs     [S, B, H, D] float32, each normalised over its own keys; D at most 256
    lses     [S, B, H] float32, natural; -inf for a part without keys, whose row of outs is not read
    dtype    of out
    returns  (out, lse): out [B, H, D], lse [B, H] float32; a row without keys has out 0 and lse -inf
    """
    fits = outs.dim() == 4 and lses.shape == outs.shape[:3] and outs.shape[0] > 0
    require(fits, "merge_splits", "outs must be [S, B, H, D] and lses [S, B, H], with one split or more", outs=outs, lses=lses)
    floats = outs.dtype == lses.dtype == torch.float32 and outs.device == lses.device
    require(floats, "merge_splits", "outs and lses must be float32, on one device", outs=outs, lses=lses)
    S, B, H, D = outs.shape
    require(0 < D <= 256, "merge_splits", "the head size D must be 1 to 256", outs=outs)
    out, lse = torch.empty((B, H, D), dtype=dtype, device=outs.device), torch.empty((B, H), dtype=torch.float32, device=outs.device)
    if lse.numel():
        BLOCK_D, BLOCK_S = triton.next_power_of_2(D), min(64, triton.next_power_of_2(S))
        num_warps = 2 if BLOCK_D * BLOCK_S <= 2048 else 4 if BLOCK_D * BLOCK_S <= 8192 else 8
        merge_splits_kernel[(B * H,)](
            outs, lses, out, lse, outs.stride(), lses.stride(), S, H, D=D, BLOCK_D=BLOCK_D, BLOCK_S=BLOCK_S, num_warps=num_warps
        )  # fmt: skip
    return out, lse
