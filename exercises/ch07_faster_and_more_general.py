"""Chapter 07: Faster and more general.

Generated from solutions/ch07_faster_and_more_general.py by `make sync`: the exercises as nobody has touched them yet.
You may edit this file. `course check NAME` takes an edited exercise over into answers/, where your work is kept.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor


# %% exercise wave_efficiency | core | 5 minutes | 2 points | model
def wave_efficiency(programs: int, multiprocessors: int, per_multiprocessor: int = 1) -> float:
    """The share of a GPU's places that do work while a grid of equal programs runs.

    Programs start in waves: as many at once as there are places. A wave lasts as long as a
    program does, and the last one lasts no less for being half empty.
    programs             of the grid, all with the same work; at least 1
    multiprocessors      of the GPU
    per_multiprocessor   programs that fit on one multiprocessor at the same time
    returns              programs / (waves * places), above 0, at most 1

    Example: wave_efficiency(5, 2) is 5 / 6 = 0.833: three waves, the last with 1 program of 2.
    Source: NVIDIA, Matrix Multiplication Background, section "Wave quantization".
    """
    raise NotImplementedError("wave_efficiency (chapter 07) is not written yet")


# %% exercise flash_forward_varlen | core | 35 minutes | 5 points | triton
@triton.jit
def flash_forward_varlen_kernel(
    q_ptr, k_ptr, v_ptr, out_ptr, cu_q_ptr, cu_k_ptr, D, scale,
    q_st, q_sh, q_sd, k_st, k_sh, k_sd, v_st, v_sh, v_sd, out_st, out_sh, out_sd,
    CAUSAL: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    # 1. who am I: one tile of queries, of head h of sequence b
    h = tl.program_id(1).to(tl.int64)
    b = tl.program_id(2)
    rows = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)  # [BLOCK_M], counted from the sequence's first query
    keys = tl.arange(0, BLOCK_N)  # [BLOCK_N], of the sequence's first tile
    dims = tl.arange(0, BLOCK_D)  # [BLOCK_D], of which D exist
    # 2. where is my data, and how much of it
    # yours: N_Q and N_KV, the lengths of sequence b; the pointers q_ptrs, k_ptrs, v_ptrs, out_ptrs;
    # shift: what a query's row lacks to its place among the keys; end: where this program's loop stops
    # 3. initialise
    mine = (rows[:, None] < N_Q) & (dims[None, :] < D)
    q = tl.load(q_ptrs, mask=mine, other=0.0)  # [BLOCK_M, BLOCK_D]
    row_max = tl.full([BLOCK_M], -float("inf"), tl.float32)
    row_sum = tl.zeros([BLOCK_M], tl.float32)
    acc = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)
    # 4. loop
    for start in range(0, end, BLOCK_N):
        inside = (start + keys[:, None] < N_KV) & (dims[None, :] < D)
        k = tl.load(k_ptrs + start * k_st, mask=inside, other=0.0)  # [BLOCK_N, BLOCK_D]
        scores = tl.dot(q, k.T, input_precision="ieee") * scale  # [BLOCK_M, BLOCK_N]
        visible = start + keys[None, :] < N_KV
        if CAUSAL:
            visible = visible & (start + keys[None, :] <= rows[:, None] + shift)
        scores = tl.where(visible, scores, -float("inf"))
        new_max = tl.maximum(row_max, tl.max(scores, axis=1))
        base = tl.where(new_max == -float("inf"), 0.0, new_max)  # no key yet: exp(-inf - 0) is 0, not NaN
        p = tl.exp(scores - base[:, None])
        rescale = tl.exp(row_max - base)
        row_sum = row_sum * rescale + tl.sum(p, axis=1)
        v = tl.load(v_ptrs + start * v_st, mask=inside, other=0.0)  # [BLOCK_N, BLOCK_D]
        acc = acc * rescale[:, None] + tl.dot(p.to(v.dtype), v, input_precision="ieee")
        row_max = new_max
    # 5. write
    row_sum = tl.where(row_sum == 0.0, 1.0, row_sum)  # a row without keys gives 0
    tl.store(out_ptrs, acc / row_sum[:, None], mask=mine)


def flash_forward_varlen(
    q: Tensor, k: Tensor, v: Tensor, cu_q: Tensor, cu_k: Tensor, max_q: int,
    scale: float | None = None, causal: bool = False,
) -> Tensor:  # fmt: skip
    """Attention inside each of B sequences that lie one behind the other in one tensor, without padding.

    q        [T_Q, H, D] float32, any strides: the queries of all sequences; k, v [T_K, H, D]
    cu_q     [B + 1] int32, starts at 0, never falls: sequence b owns the queries cu_q[b] to cu_q[b + 1] - 1
    cu_k     [B + 1] int32: the same for its keys. A sequence may have no queries, no keys, or more of one than of the other
    max_q    at least the longest sequence's number of queries, at least 1
    scale    above 0; None means 1 / sqrt(D)
    causal   in each sequence query i sees key j where j <= i + N_KV - N_Q (its own lengths: bottom right)
    returns  [T_Q, H, D], same dtype; a query that sees no key gives zeros

    Graded besides the values: a program whose sequence has no query for it reads no tile; others read the tiles that a
    query of theirs sees, once. One launch, each result stored once, no copies, no TF32.
    Source: FlashAttention's flash_attn_varlen_func.
    """
    raise NotImplementedError("flash_forward_varlen (chapter 07) is not written yet")
    (_, H, D), B = q.shape, cu_q.shape[0] - 1
    scale = D**-0.5 if scale is None else scale
    out = torch.empty(q.shape, dtype=q.dtype, device=q.device)
    BLOCK_M = 64
    BLOCK_N = 32
    grid = ...  # yours: tall enough for the longest sequence
    flash_forward_varlen_kernel[grid](
        q, k, v, out, cu_q, cu_k, D, scale,
        *q.stride(), *k.stride(), *v.stride(), *out.stride(),
        CAUSAL=causal, BLOCK_M=BLOCK_M, BLOCK_N=BLOCK_N, BLOCK_D=max(16, triton.next_power_of_2(D)),
    )  # fmt: skip
    return out


# %% exercise flash_forward_window | core | 25 minutes | 5 points | triton
@triton.jit
def flash_forward_window_kernel(
    q_ptr, k_ptr, v_ptr, out_ptr, N_Q, N_KV, D, window, scale,
    q_sb, q_sh, q_sn, q_sd, k_sb, k_sh, k_sn, k_sd,
    v_sb, v_sh, v_sn, v_sd, out_sb, out_sh, out_sn, out_sd,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    # 1. who am I: one tile of queries, of head h of sequence b
    h = tl.program_id(1).to(tl.int64)
    b = tl.program_id(2).to(tl.int64)
    rows = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)  # [BLOCK_M]
    keys = tl.arange(0, BLOCK_N)  # [BLOCK_N]; a tile's keys are start + keys
    dims = tl.arange(0, BLOCK_D)  # [BLOCK_D], of which D exist
    # 2. where is my data
    q_ptrs = q_ptr + b * q_sb + h * q_sh + rows[:, None] * q_sn + dims[None, :] * q_sd
    k_ptrs = k_ptr + b * k_sb + h * k_sh + keys[:, None] * k_sn + dims[None, :] * k_sd
    v_ptrs = v_ptr + b * v_sb + h * v_sh + keys[:, None] * v_sn + dims[None, :] * v_sd
    out_ptrs = out_ptr + b * out_sb + h * out_sh + rows[:, None] * out_sn + dims[None, :] * out_sd
    # 3. initialise
    mine = (rows[:, None] < N_Q) & (dims[None, :] < D)
    q = tl.load(q_ptrs, mask=mine, other=0.0)  # [BLOCK_M, BLOCK_D]
    row_max = tl.full([BLOCK_M], -float("inf"), tl.float32)
    row_sum = tl.zeros([BLOCK_M], tl.float32)
    acc = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)
    # 4. loop
    shift = N_KV - N_Q
    # yours: begin and end, so that the loop reads the tiles that a query of mine sees, and no others
    for start in range(begin, end, BLOCK_N):
        inside = (start + keys[:, None] < N_KV) & (dims[None, :] < D)
        k = tl.load(k_ptrs + start * k_sn, mask=inside, other=0.0)  # [BLOCK_N, BLOCK_D]
        scores = tl.dot(q, k.T, input_precision="ieee") * scale  # [BLOCK_M, BLOCK_N]
        # yours: hide the scores that do not count; new_max; and base, what is subtracted from the scores
        p = tl.exp(scores - base[:, None])
        rescale = tl.exp(row_max - base)
        row_sum = row_sum * rescale + tl.sum(p, axis=1)
        v = tl.load(v_ptrs + start * v_sn, mask=inside, other=0.0)  # [BLOCK_N, BLOCK_D]
        acc = acc * rescale[:, None] + tl.dot(p.to(v.dtype), v, input_precision="ieee")
        row_max = new_max
    # 5. write
    row_sum = tl.where(row_sum == 0.0, 1.0, row_sum)  # a row without keys gives 0
    tl.store(out_ptrs, acc / row_sum[:, None], mask=mine)


def flash_forward_window(
    q: Tensor, k: Tensor, v: Tensor, window: int, scale: float | None = None
) -> Tensor:
    """Causal attention in which a query sees `window` keys: its own position and the window - 1 before it.

    q        [B, H, N_Q, D] float32, any strides; k, v [B, H, N_KV, D]; either may be longer
    window   at least 1; query i sees the keys i + N_KV - N_Q - window + 1 to i + N_KV - N_Q that exist
    scale    above 0; None means 1 / sqrt(D)
    returns  [B, H, N_Q, D], same dtype; a query that sees no key gives zeros

    Graded besides the values: tiles of K and V that no query of a tile sees are not read, on either side.
    One launch, each result stored once, no copies, no TF32.
    Source: Beltagy et al. 2020 (Longformer), section 3.1; Mistral 7B, section 2 (sliding window attention).
    """
    raise NotImplementedError("flash_forward_window (chapter 07) is not written yet")
    (B, H, N_Q, D), N_KV = q.shape, k.shape[2]
    scale = D**-0.5 if scale is None else scale
    out = torch.empty((B, H, N_Q, D), dtype=q.dtype, device=q.device)
    BLOCK_M = 64
    BLOCK_N = 32
    flash_forward_window_kernel[(triton.cdiv(N_Q, BLOCK_M), H, B)](
        q, k, v, out, N_Q, N_KV, D, window, scale,
        *q.stride(), *k.stride(), *v.stride(), *out.stride(),
        BLOCK_M=BLOCK_M, BLOCK_N=BLOCK_N, BLOCK_D=max(16, triton.next_power_of_2(D)),
    )  # fmt: skip
    return out


# %% exercise alibi_score_mod | core | 10 minutes | 2 points | torch
def alibi_score_mod(
    score: Tensor, b: Tensor, h: Tensor, q_idx: Tensor, kv_idx: Tensor, slopes: Tensor, offset: int = 0
) -> Tensor:
    """ALiBi as a score modification: the further a key is from the query, the more its score loses.

    score    scaled scores: one number, or any shape that the indices broadcast to
    b, h     which sequence and which head, int64; q_idx, kv_idx: which query and which key, int64
    slopes   [H] one slope for each head
    offset   N_KV - N_Q: query i stands at position i + offset among the keys
    returns  score - slopes[h] * distance between the positions of query and key; shape of score

    Written without loops over the indices: FlexAttention calls it for one score at a time, others with whole
    index tensors, for example b [B, 1, 1, 1], h [H, 1, 1], q_idx [N_Q, 1], kv_idx [N_KV].
    Example: score 5.0, query 7, key 4, the head's slope 0.5, offset 0: 5.0 - 0.5 * 3 = 3.5.
    Source: Press et al. 2021 (ALiBi), section 3; the distance as flash-attn's alibi_slopes takes it.
    """
    raise NotImplementedError("alibi_score_mod (chapter 07) is not written yet")


# %% exercise document_block_mask | more | 30 minutes | 4 points | torch
def document_block_mask(documents: Tensor, block_m: int, block_n: int) -> Tensor:
    """What each tile of scores is under a causal document mask: empty, partial or full.

    Query i sees key j where j <= i and documents[j] == documents[i]. Tile (r, c) holds the queries
    r * block_m to r * block_m + block_m - 1 and the keys c * block_n to c * block_n + block_n - 1.
    documents   [N] int64, the document that each packed token belongs to; never falls
    block_m     queries a tile, block_n: keys a tile; N need not be a multiple
    returns     [ceil(N / block_m), ceil(N / block_n)] int64: 0 empty (nothing visible: skip it),
                2 full (all of it visible: no mask needed), 1 partial. Queries past the end do not
                count; keys past the end are not visible

    Graded besides the values: no intermediate tensor has more than 4 * max(N, number of tiles)
    elements. An N x N mask has too many.
    Example: documents [0, 0, 0, 0, 1, 1], tiles of 2 x 2: [[1, 0, 0], [2, 1, 0], [0, 0, 1]].
    Source: FlexAttention's BlockMask, kv_num_blocks and full_kv_num_blocks.
    """
    raise NotImplementedError("document_block_mask (chapter 07) is not written yet")


# as generated: top cb5ec4b24c3d, wave_efficiency fc4c51cdf292, flash_forward_varlen c332fb049f7c, flash_forward_window 1a95b04d4ec7, alibi_score_mod ac14f60bf0c9, document_block_mask 3c20dcb03315
