"""Chapter 07: Faster and more general.

The source of the chapter's exercises: statements, solutions, hints. `make sync` writes the stubs from it.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor


# %% exercise wave_efficiency | core | 5 minutes | 2 points | model
# hint: How many programs can run at the same moment on the whole GPU?
# hint: places = multiprocessors * per_multiprocessor run at once: one wave. The last wave takes as long as a full one, however few programs it has.
# hint: waves = ceil(programs / places); of the waves * places that were paid for, `programs` were used.
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
    # solution
    places = multiprocessors * per_multiprocessor
    waves = -(-programs // places)
    return programs / (waves * places)
    # end


# %% exercise flash_forward_varlen | core | 35 minutes | 5 points | triton
# hint: A program knows b. Which two numbers of cu_q say where the queries of sequence b begin and end in the packed tensor, and which of cu_k say it for its keys?
# hint: Load cu_q[b] and cu_q[b + 1]: the first is where the sequence begins, their difference is N_Q; the same with cu_k for N_KV. Rows and keys count from the sequence's own beginning, so every pointer gets first * stride. The grid has to be tall enough for the longest sequence, so in shorter ones some programs have no query: their loop must not run.
# hint: q_first = tl.load(cu_q_ptr + b).to(tl.int64); N_Q = (tl.load(cu_q_ptr + b + 1) - q_first).to(tl.int32); q_ptrs = q_ptr + (q_first + rows[:, None]) * q_st + ...; shift = N_KV - N_Q; end = N_KV, under CAUSAL min(N_KV, (tl.program_id(0) + 1) * BLOCK_M + shift), and 0 where tl.program_id(0) * BLOCK_M >= N_Q. grid = (triton.cdiv(max_q, BLOCK_M), H, B).
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
    # solution
    q_first = tl.load(cu_q_ptr + b).to(tl.int64)
    k_first = tl.load(cu_k_ptr + b).to(tl.int64)
    N_Q = (tl.load(cu_q_ptr + b + 1) - q_first).to(tl.int32)
    N_KV = (tl.load(cu_k_ptr + b + 1) - k_first).to(tl.int32)
    q_ptrs = q_ptr + (q_first + rows[:, None]) * q_st + h * q_sh + dims[None, :] * q_sd
    k_ptrs = k_ptr + (k_first + keys[:, None]) * k_st + h * k_sh + dims[None, :] * k_sd
    v_ptrs = v_ptr + (k_first + keys[:, None]) * v_st + h * v_sh + dims[None, :] * v_sd
    out_ptrs = out_ptr + (q_first + rows[:, None]) * out_st + h * out_sh + dims[None, :] * out_sd
    shift = N_KV - N_Q
    last = (tl.program_id(0) + 1) * BLOCK_M + shift  # the first key that no query of this tile sees, where causal
    end = min(N_KV, last) if CAUSAL else N_KV
    if tl.program_id(0) * BLOCK_M >= N_Q:
        end = 0  # this sequence is too short to have queries for me
    # instead
    #| # yours: N_Q and N_KV, the lengths of sequence b; the pointers q_ptrs, k_ptrs, v_ptrs, out_ptrs;
    #| # shift: what a query's row lacks to its place among the keys; end: where this program's loop stops
    # end
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
    (_, H, D), B = q.shape, cu_q.shape[0] - 1
    scale = D**-0.5 if scale is None else scale
    out = torch.empty(q.shape, dtype=q.dtype, device=q.device)
    BLOCK_M = 64
    BLOCK_N = 32
    # solution
    grid = (triton.cdiv(max_q, BLOCK_M), H, B)
    # instead
    #| grid = ...  # yours: tall enough for the longest sequence
    # end
    flash_forward_varlen_kernel[grid](
        q, k, v, out, cu_q, cu_k, D, scale,
        *q.stride(), *k.stride(), *v.stride(), *out.stride(),
        CAUSAL=causal, BLOCK_M=BLOCK_M, BLOCK_N=BLOCK_N, BLOCK_D=max(16, triton.next_power_of_2(D)),
    )  # fmt: skip
    return out


# %% exercise flash_forward_window | core | 25 minutes | 5 points | triton
# hint: Which is the first key that the first query of this tile sees? Does any query of the tile see a key before it?
# hint: Query i sees the keys i + shift - window + 1 to i + shift. The tile's first query reaches furthest back, its last one furthest forward: the loop runs from the first one's first key to the last one's last. In the tiles between, hide on both sides. A query may see nothing of the first tile that is read: its maximum is still -inf there, and -inf - -inf is NaN.
# hint: begin = max(0, tl.program_id(0) * BLOCK_M + shift - window + 1), rounded down to a whole tile if you like; end as in flash_forward_causal; last_seen = rows[:, None] + shift; visible = (key <= last_seen) & (key > last_seen - window) & (key < N_KV), where key = start + keys[None, :]; base = tl.where(new_max == -float("inf"), 0.0, new_max).
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
    # solution
    first_seen = tl.program_id(0) * BLOCK_M + shift - window + 1  # by the tile's first query
    begin = max(0, first_seen) // BLOCK_N * BLOCK_N
    end = min(N_KV, (tl.program_id(0) + 1) * BLOCK_M + shift)
    # instead
    #| # yours: begin and end, so that the loop reads the tiles that a query of mine sees, and no others
    # end
    for start in range(begin, end, BLOCK_N):
        inside = (start + keys[:, None] < N_KV) & (dims[None, :] < D)
        k = tl.load(k_ptrs + start * k_sn, mask=inside, other=0.0)  # [BLOCK_N, BLOCK_D]
        scores = tl.dot(q, k.T, input_precision="ieee") * scale  # [BLOCK_M, BLOCK_N]
        # solution
        last_seen = rows[:, None] + shift  # [BLOCK_M, 1], each query's own position among the keys
        visible = (start + keys[None, :] <= last_seen) & (start + keys[None, :] > last_seen - window)
        scores = tl.where(visible & (start + keys[None, :] < N_KV), scores, -float("inf"))
        new_max = tl.maximum(row_max, tl.max(scores, axis=1))
        base = tl.where(new_max == -float("inf"), 0.0, new_max)  # no key yet: exp(-inf - 0) is 0, not NaN
        # instead
        #| # yours: hide the scores that do not count; new_max; and base, what is subtracted from the scores
        # end
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
# hint: How far apart are query q_idx and key kv_idx, when the queries are the last of the tokens?
# hint: The query's place among the keys is q_idx + offset. The score loses its head's slope for every token between the two, on either side.
# hint: distance = (q_idx + offset - kv_idx).abs(); and slopes is indexed with h.
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
    # solution
    distance = (q_idx + offset - kv_idx).abs()
    return score - slopes[h] * distance
    # end


# %% exercise document_block_mask | more | 30 minutes | 4 points | torch
# hint: Documents never come back. What do the first and the last document number of a tile say about all that lie between?
# hint: A tile of queries a..b and keys c..d. Something is visible if some key is not after the last query (c <= b) and the last key's document is not before the first query's. Everything is visible if no key is after the first query (d <= a) and first key and last query lie in one document.
# hint: first_q = torch.arange(0, N, block_m); last_q = (first_q + block_m).clamp(max=N) - 1; the same for keys, unclamped for `full`; some = (first_k[None, :] <= last_q[:, None]) & (documents[last_k][None, :] >= documents[first_q][:, None]); the answer is some.long() + full.long().
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
    # solution
    N = documents.shape[0]
    first_q, first_k = (torch.arange(0, N, block, device=documents.device) for block in (block_m, block_n))
    last_q = (first_q + block_m).clamp(max=N) - 1
    last_k = first_k + block_n - 1  # past the end in the last tile, which is then after every query
    early = documents[first_q][:, None] <= documents[last_k.clamp(max=N - 1)][None, :]
    some = early & (first_k[None, :] <= last_q[:, None])
    one_document = documents[first_k][None, :] == documents[last_q][:, None]
    full = one_document & (last_k[None, :] <= first_q[:, None])
    return some.long() + full.long()
    # end
