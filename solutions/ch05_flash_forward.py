"""Chapter 05: FlashAttention, forward.

The source of the chapter's exercises: statements, solutions, hints. `make sync` writes the stubs from it.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor


# %% exercise flash_blocks | more | 15 minutes | 3 points | model
# hint: Which tiles lie in shared memory at the same time, and of which are there several?
# hint: One tile of Q; `stages` tiles of K and as many of V. Each has BLOCK_D columns: head_dim rounded up to a power of two. Try the heights 128, 64, 32, 16, the tallest first.
# hint: bytes = (block_m + 2 * stages * block_n) * block_d * bytes_each. For block_m from 128 down: is there a block_n, from 128 down, with which it fits? The first pair found is the answer.
def flash_blocks(
    head_dim: int, shared_bytes: int, stages: int = 2, bytes_each: int = 2
) -> tuple[int, int]:
    """The tile heights of a flash kernel that fit the shared memory one thread block may have.

    In shared memory lie one tile of Q, [BLOCK_M, BLOCK_D], and `stages` tiles each of K and V,
    [BLOCK_N, BLOCK_D]: while one is used, the next ones are on their way. Scores and `acc` live
    in registers. BLOCK_D is head_dim rounded up to a power of two, at least 16.

    head_dim       D, width of a head
    shared_bytes   bytes of shared memory that one block may have
    stages         tiles of K, and of V, held at a time
    bytes_each     2 for fp16 and bf16
    returns        (BLOCK_M, BLOCK_N), each one of 16, 32, 64, 128: the largest BLOCK_M that fits
                   beside any BLOCK_N, then the largest BLOCK_N beside it; (0, 0) where none fits

    Example: flash_blocks(128, 65536) is (128, 32), exactly full (a T4: 32 KiB of Q, 32 of K and V).
    Source: FlashAttention, Algorithm 1, line 1 (block sizes from the size of SRAM), as Triton fills it.
    """
    # solution
    block_d = 16
    while block_d < head_dim:
        block_d *= 2
    for block_m in (128, 64, 32, 16):
        for block_n in (128, 64, 32, 16):
            if (block_m + 2 * stages * block_n) * block_d * bytes_each <= shared_bytes:
                return block_m, block_n
    return 0, 0
    # end


# %% exercise flash_forward | core | 35 minutes | 6 points | triton
# hint: Version 1 has to write O, row_max and row_sum back after every tile. Which loop must be outside, so that a program never has to put them down?
# hint: The program already has its tile of queries. Load it once; start row_max, row_sum and acc; then walk over the tiles of K and V as tiled_attention did. Keys past N_KV need a score of -inf: a score of 0 counts. Divide after the loop, store once.
# hint: for start in range(0, N_KV, BLOCK_N): k = tl.load(k_ptrs + start * k_sn, mask=..., other=0.0); scores = tl.dot(q, k.T, input_precision="ieee") * scale; the five lines of chapter 03 with tl.maximum, tl.max(..., axis=1), tl.exp, tl.sum; acc needs p.to(v.dtype). The grid is (triton.cdiv(N_Q, BLOCK_M), H, B).
@triton.jit
def flash_forward_kernel(
    q_ptr, k_ptr, v_ptr, out_ptr, N_Q, N_KV, D, scale,
    q_sb, q_sh, q_sn, q_sd, k_sb, k_sh, k_sn, k_sd,
    v_sb, v_sh, v_sn, v_sd, out_sb, out_sh, out_sn, out_sd,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    # 1. who am I: one tile of queries, of head h of sequence b
    h = tl.program_id(1).to(tl.int64)
    b = tl.program_id(2).to(tl.int64)
    rows = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)  # [BLOCK_M]
    keys = tl.arange(0, BLOCK_N)  # [BLOCK_N], those of the first tile
    dims = tl.arange(0, BLOCK_D)  # [BLOCK_D], of which D exist
    # 2. where is my data
    q_ptrs = q_ptr + b * q_sb + h * q_sh + rows[:, None] * q_sn + dims[None, :] * q_sd
    k_ptrs = k_ptr + b * k_sb + h * k_sh + keys[:, None] * k_sn + dims[None, :] * k_sd
    v_ptrs = v_ptr + b * v_sb + h * v_sh + keys[:, None] * v_sn + dims[None, :] * v_sd
    out_ptrs = out_ptr + b * out_sb + h * out_sh + rows[:, None] * out_sn + dims[None, :] * out_sd
    # solution
    # 3. initialise
    mine = (rows[:, None] < N_Q) & (dims[None, :] < D)
    q = tl.load(q_ptrs, mask=mine, other=0.0)  # [BLOCK_M, BLOCK_D]
    row_max = tl.full([BLOCK_M], -float("inf"), tl.float32)
    row_sum = tl.zeros([BLOCK_M], tl.float32)
    acc = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)
    # 4. loop
    for start in range(0, N_KV, BLOCK_N):
        inside = (start + keys[:, None] < N_KV) & (dims[None, :] < D)
        k = tl.load(k_ptrs + start * k_sn, mask=inside, other=0.0)  # [BLOCK_N, BLOCK_D]
        scores = tl.dot(q, k.T, input_precision="ieee") * scale  # [BLOCK_M, BLOCK_N]
        scores = tl.where(start + keys[None, :] < N_KV, scores, -float("inf"))
        new_max = tl.maximum(row_max, tl.max(scores, axis=1))
        p = tl.exp(scores - new_max[:, None])
        rescale = tl.exp(row_max - new_max)
        row_sum = row_sum * rescale + tl.sum(p, axis=1)
        v = tl.load(v_ptrs + start * v_sn, mask=inside, other=0.0)  # [BLOCK_N, BLOCK_D]
        acc = acc * rescale[:, None] + tl.dot(p.to(v.dtype), v, input_precision="ieee")
        row_max = new_max
    # 5. write
    tl.store(out_ptrs, acc / row_sum[:, None], mask=mine)
    # instead
    #| # yours: 3. initialise, 4. loop, 5. write
    # end


def flash_forward(q: Tensor, k: Tensor, v: Tensor, scale: float | None = None) -> Tensor:
    """softmax(q @ k.T * scale) @ v in one kernel that never stores a score.

    q        [B, H, N_Q, D] float32 or float16, any strides
    k, v     [B, H, N_KV, D], same dtype, any strides; N_KV at least 1
    scale    above 0; None means 1 / sqrt(D)
    returns  [B, H, N_Q, D], same dtype; row_max, row_sum and acc are float32 in between

    N_Q, N_KV and D need not be multiples of anything.
    Graded besides the values: one launch, each result stored once, K and V read at most once per
    tile of 16 queries, at most 512 keys held at a time, no copy made first, float32 products not
    rounded to TF32.
    Source: FlashAttention-2, Algorithm 1, without the log-sum-exp.
    """
    (B, H, N_Q, D), N_KV = q.shape, k.shape[2]
    scale = D**-0.5 if scale is None else scale
    out = torch.empty((B, H, N_Q, D), dtype=q.dtype, device=q.device)
    BLOCK_M = 64
    BLOCK_N = 32
    # solution
    grid = (triton.cdiv(N_Q, BLOCK_M), H, B)
    # instead
    #| grid = ...  # yours: how many programs along each of its three axes?
    # end
    flash_forward_kernel[grid](
        q, k, v, out, N_Q, N_KV, D, scale,
        *q.stride(), *k.stride(), *v.stride(), *out.stride(),
        BLOCK_M=BLOCK_M, BLOCK_N=BLOCK_N, BLOCK_D=max(16, triton.next_power_of_2(D)),
    )  # fmt: skip
    return out


# %% exercise flash_forward_causal | core | 20 minutes | 4 points | triton
# hint: Which is the last key that the last query of this tile may see, when the last query of all sees every key?
# hint: Query i sees key j where j <= i + N_KV - N_Q. So the loop ends early: behind the last key of the tile's last query. In the tiles that are left, hide what lies above the diagonal. With more queries than keys the first rows see nothing: guard -inf - -inf, and a division by 0.
# hint: shift = N_KV - N_Q; end = min(N_KV, (tl.program_id(0) + 1) * BLOCK_M + shift), possibly below 0; visible = (start + keys[None, :] <= rows[:, None] + shift) & (start + keys[None, :] < N_KV); scores = tl.where(visible, scores, -float("inf")).
@triton.jit
def flash_forward_causal_kernel(
    q_ptr, k_ptr, v_ptr, out_ptr, N_Q, N_KV, D, scale,
    q_sb, q_sh, q_sn, q_sd, k_sb, k_sh, k_sn, k_sd,
    v_sb, v_sh, v_sn, v_sd, out_sb, out_sh, out_sn, out_sd,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    # 1. who am I: one tile of queries, of head h of sequence b
    h = tl.program_id(1).to(tl.int64)
    b = tl.program_id(2).to(tl.int64)
    rows = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)  # [BLOCK_M]
    keys = tl.arange(0, BLOCK_N)  # [BLOCK_N], those of the first tile
    dims = tl.arange(0, BLOCK_D)  # [BLOCK_D], of which D exist
    # 2. where is my data
    q_ptrs = q_ptr + b * q_sb + h * q_sh + rows[:, None] * q_sn + dims[None, :] * q_sd
    k_ptrs = k_ptr + b * k_sb + h * k_sh + keys[:, None] * k_sn + dims[None, :] * k_sd
    v_ptrs = v_ptr + b * v_sb + h * v_sh + keys[:, None] * v_sn + dims[None, :] * v_sd
    out_ptrs = out_ptr + b * out_sb + h * out_sh + rows[:, None] * out_sn + dims[None, :] * out_sd
    # solution
    # 3. initialise
    mine = (rows[:, None] < N_Q) & (dims[None, :] < D)
    q = tl.load(q_ptrs, mask=mine, other=0.0)  # [BLOCK_M, BLOCK_D]
    row_max = tl.full([BLOCK_M], -float("inf"), tl.float32)
    row_sum = tl.zeros([BLOCK_M], tl.float32)
    acc = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)
    # 4. loop: keys from `end` on are seen by no query of this tile
    shift = N_KV - N_Q
    end = min(N_KV, (tl.program_id(0) + 1) * BLOCK_M + shift)
    for start in range(0, end, BLOCK_N):
        inside = (start + keys[:, None] < N_KV) & (dims[None, :] < D)
        k = tl.load(k_ptrs + start * k_sn, mask=inside, other=0.0)  # [BLOCK_N, BLOCK_D]
        scores = tl.dot(q, k.T, input_precision="ieee") * scale  # [BLOCK_M, BLOCK_N]
        visible = (start + keys[None, :] <= rows[:, None] + shift) & (start + keys[None, :] < N_KV)
        scores = tl.where(visible, scores, -float("inf"))
        new_max = tl.maximum(row_max, tl.max(scores, axis=1))
        base = tl.where(new_max == -float("inf"), 0.0, new_max)  # no key yet: exp(-inf - 0) is 0, not NaN
        p = tl.exp(scores - base[:, None])
        rescale = tl.exp(row_max - base)
        row_sum = row_sum * rescale + tl.sum(p, axis=1)
        v = tl.load(v_ptrs + start * v_sn, mask=inside, other=0.0)  # [BLOCK_N, BLOCK_D]
        acc = acc * rescale[:, None] + tl.dot(p.to(v.dtype), v, input_precision="ieee")
        row_max = new_max
    # 5. write
    row_sum = tl.where(row_sum == 0.0, 1.0, row_sum)  # a row without keys gives 0
    tl.store(out_ptrs, acc / row_sum[:, None], mask=mine)
    # instead
    #| # yours: 3. initialise, 4. loop, 5. write
    # end


def flash_forward_causal(
    q: Tensor, k: Tensor, v: Tensor, scale: float | None = None
) -> Tensor:
    """flash_forward under a causal mask, aligned bottom right: query i sees key j where
    j <= i + N_KV - N_Q. A query that sees no key gives zeros.

    q        [B, H, N_Q, D] float32, any strides; k, v [B, H, N_KV, D]; either may be longer
    scale    above 0; None means 1 / sqrt(D)
    returns  [B, H, N_Q, D], same dtype

    Graded besides the values: tiles of K and V that no query of a tile sees are not read.
    Otherwise as flash_forward: one launch, each result stored once, no copies, nothing rounded.
    Source: FlashAttention-2, section 3.1 (causal masking); chapter 02's causal_mask.
    """
    (B, H, N_Q, D), N_KV = q.shape, k.shape[2]
    scale = D**-0.5 if scale is None else scale
    out = torch.empty((B, H, N_Q, D), dtype=q.dtype, device=q.device)
    BLOCK_M = 64
    BLOCK_N = 32
    flash_forward_causal_kernel[(triton.cdiv(N_Q, BLOCK_M), H, B)](
        q, k, v, out, N_Q, N_KV, D, scale,
        *q.stride(), *k.stride(), *v.stride(), *out.stride(),
        BLOCK_M=BLOCK_M, BLOCK_N=BLOCK_N, BLOCK_D=max(16, triton.next_power_of_2(D)),
    )  # fmt: skip
    return out


# %% exercise flash_forward_lse | core | 15 minutes | 3 points | triton
# hint: log(sum(exp(s))) is what, in terms of the two numbers that a row has at the end of the loop?
# hint: lse = row_max + log(row_sum). Scores are already scaled, tl.log is the natural logarithm. A row without keys has row_max -inf, and row_sum 0, or 1 once it is guarded for the division: its lse is -inf either way.
# hint: the loop of flash_forward_causal, its mask and its early end under `if CAUSAL:`; then tl.store(lse_ptrs, row_max + tl.log(row_sum), mask=rows < N_Q). If you count in log2, lse needs a factor ln 2.
@triton.jit
def flash_forward_lse_kernel(
    q_ptr, k_ptr, v_ptr, out_ptr, lse_ptr, N_Q, N_KV, D, scale,
    q_sb, q_sh, q_sn, q_sd, k_sb, k_sh, k_sn, k_sd,
    v_sb, v_sh, v_sn, v_sd, out_sb, out_sh, out_sn, out_sd,
    CAUSAL: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    # 1. who am I: one tile of queries, of head h of sequence b
    h = tl.program_id(1).to(tl.int64)
    b = tl.program_id(2).to(tl.int64)
    rows = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)  # [BLOCK_M]
    keys = tl.arange(0, BLOCK_N)  # [BLOCK_N], those of the first tile
    dims = tl.arange(0, BLOCK_D)  # [BLOCK_D], of which D exist
    # 2. where is my data
    q_ptrs = q_ptr + b * q_sb + h * q_sh + rows[:, None] * q_sn + dims[None, :] * q_sd
    k_ptrs = k_ptr + b * k_sb + h * k_sh + keys[:, None] * k_sn + dims[None, :] * k_sd
    v_ptrs = v_ptr + b * v_sb + h * v_sh + keys[:, None] * v_sn + dims[None, :] * v_sd
    out_ptrs = out_ptr + b * out_sb + h * out_sh + rows[:, None] * out_sn + dims[None, :] * out_sd
    lse_ptrs = lse_ptr + (b * tl.num_programs(1) + h) * N_Q + rows  # [B, H, N_Q], contiguous
    # solution
    # 3. initialise
    mine = (rows[:, None] < N_Q) & (dims[None, :] < D)
    q = tl.load(q_ptrs, mask=mine, other=0.0)  # [BLOCK_M, BLOCK_D]
    row_max = tl.full([BLOCK_M], -float("inf"), tl.float32)
    row_sum = tl.zeros([BLOCK_M], tl.float32)
    acc = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)
    # 4. loop
    shift = N_KV - N_Q
    end = N_KV
    if CAUSAL:
        end = min(N_KV, (tl.program_id(0) + 1) * BLOCK_M + shift)
    for start in range(0, end, BLOCK_N):
        inside = (start + keys[:, None] < N_KV) & (dims[None, :] < D)
        k = tl.load(k_ptrs + start * k_sn, mask=inside, other=0.0)  # [BLOCK_N, BLOCK_D]
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
        v = tl.load(v_ptrs + start * v_sn, mask=inside, other=0.0)  # [BLOCK_N, BLOCK_D]
        acc = acc * rescale[:, None] + tl.dot(p.to(v.dtype), v, input_precision="ieee")
        row_max = new_max
    # 5. write
    row_sum = tl.where(row_sum == 0.0, 1.0, row_sum)  # a row without keys: out 0, lse -inf + log(1)
    tl.store(out_ptrs, acc / row_sum[:, None], mask=mine)
    tl.store(lse_ptrs, row_max + tl.log(row_sum), mask=rows < N_Q)
    # instead
    #| # yours: 3. initialise, 4. loop, 5. write
    # end


def flash_forward_lse(
    q: Tensor, k: Tensor, v: Tensor, scale: float | None = None, causal: bool = False
) -> tuple[Tensor, Tensor]:
    """Attention and the log-sum-exp of every row of scaled scores, from one kernel.

    q        [B, H, N_Q, D] float32, any strides; k, v [B, H, N_KV, D]; N_KV may be 0
    scale    above 0; None means 1 / sqrt(D)
    causal   mask as in flash_forward_causal (bottom right), or none
    returns  (out, lse): out [B, H, N_Q, D], same dtype; lse [B, H, N_Q] float32, natural logarithm.
             A row without keys has out 0 and lse -inf.

    Graded besides the values: as flash_forward, and under `causal` as flash_forward_causal.
    Source: FlashAttention-2, Algorithm 1, line 13; the course's convention for lse.
    """
    (B, H, N_Q, D), N_KV = q.shape, k.shape[2]
    scale = D**-0.5 if scale is None else scale
    out = torch.empty((B, H, N_Q, D), dtype=q.dtype, device=q.device)
    lse = torch.empty((B, H, N_Q), dtype=torch.float32, device=q.device)
    BLOCK_M = 64
    BLOCK_N = 32
    flash_forward_lse_kernel[(triton.cdiv(N_Q, BLOCK_M), H, B)](
        q, k, v, out, lse, N_Q, N_KV, D, scale,
        *q.stride(), *k.stride(), *v.stride(), *out.stride(), CAUSAL=causal,
        BLOCK_M=BLOCK_M, BLOCK_N=BLOCK_N, BLOCK_D=max(16, triton.next_power_of_2(D)),
    )  # fmt: skip
    return out, lse


# %% exercise flash_forward_gqa | more | 25 minutes | 4 points | triton
# hint: Which queries want the same K and V? Could they be rows of one tile?
# hint: The GROUP heads of a K/V head have GROUP * N_Q queries: number them 0 to GROUP * N_Q - 1, and let a program take BLOCK_M of those. Row r is query r // GROUP of the group's head r % GROUP (or the other way round). After that the loop is flash_forward's.
# hint: r = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M); head = h_kv * GROUP + r % GROUP; rows = r // GROUP; q_ptrs = q_ptr + b * q_sb + head[:, None] * q_sh + rows[:, None] * q_sn + ...; the grid is (triton.cdiv(GROUP * N_Q, BLOCK_M), H_KV, B).
@triton.jit
def flash_forward_gqa_kernel(
    q_ptr, k_ptr, v_ptr, out_ptr, GROUP, N_Q, N_KV, D, scale,
    q_sb, q_sh, q_sn, q_sd, k_sb, k_sh, k_sn, k_sd,
    v_sb, v_sh, v_sn, v_sd, out_sb, out_sh, out_sn, out_sd,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    # 1. who am I: some of the queries that share K/V head h of sequence b
    h = tl.program_id(1).to(tl.int64)
    b = tl.program_id(2).to(tl.int64)
    keys = tl.arange(0, BLOCK_N)  # [BLOCK_N], those of the first tile
    dims = tl.arange(0, BLOCK_D)  # [BLOCK_D], of which D exist
    # solution
    packed = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)  # [BLOCK_M], of GROUP * N_Q
    rows = packed // GROUP  # neighbours in the tile are the same query of different heads
    heads = h * GROUP + packed % GROUP
    # 2. where is my data
    q_ptrs = q_ptr + b * q_sb + heads[:, None] * q_sh + rows[:, None] * q_sn + dims[None, :] * q_sd
    k_ptrs = k_ptr + b * k_sb + h * k_sh + keys[:, None] * k_sn + dims[None, :] * k_sd
    v_ptrs = v_ptr + b * v_sb + h * v_sh + keys[:, None] * v_sn + dims[None, :] * v_sd
    out_ptrs = out_ptr + b * out_sb + heads[:, None] * out_sh + rows[:, None] * out_sn + dims[None, :] * out_sd
    # 3. initialise
    mine = (rows[:, None] < N_Q) & (dims[None, :] < D)
    q = tl.load(q_ptrs, mask=mine, other=0.0)  # [BLOCK_M, BLOCK_D]
    row_max = tl.full([BLOCK_M], -float("inf"), tl.float32)
    row_sum = tl.zeros([BLOCK_M], tl.float32)
    acc = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)
    # 4. loop
    for start in range(0, N_KV, BLOCK_N):
        inside = (start + keys[:, None] < N_KV) & (dims[None, :] < D)
        k = tl.load(k_ptrs + start * k_sn, mask=inside, other=0.0)  # [BLOCK_N, BLOCK_D]
        scores = tl.dot(q, k.T, input_precision="ieee") * scale  # [BLOCK_M, BLOCK_N]
        scores = tl.where(start + keys[None, :] < N_KV, scores, -float("inf"))
        new_max = tl.maximum(row_max, tl.max(scores, axis=1))
        p = tl.exp(scores - new_max[:, None])
        rescale = tl.exp(row_max - new_max)
        row_sum = row_sum * rescale + tl.sum(p, axis=1)
        v = tl.load(v_ptrs + start * v_sn, mask=inside, other=0.0)  # [BLOCK_N, BLOCK_D]
        acc = acc * rescale[:, None] + tl.dot(p.to(v.dtype), v, input_precision="ieee")
        row_max = new_max
    # 5. write
    tl.store(out_ptrs, acc / row_sum[:, None], mask=mine)
    # instead
    #| # yours: which of the group's queries are mine, in which heads do they live, where is my data?
    #| # then 3. to 5. as in flash_forward
    # end


def flash_forward_gqa(q: Tensor, k: Tensor, v: Tensor, scale: float | None = None) -> Tensor:
    """Grouped-query attention: H query heads share H_KV heads of K and V, which are read once a group.

    q        [B, H, N_Q, D] float32, any strides
    k, v     [B, H_KV, N_KV, D]; H is a multiple of H_KV: query head h reads K/V head h // GROUP,
             where GROUP = H // H_KV. N_KV at least 1
    scale    above 0; None means 1 / sqrt(D)
    returns  [B, H, N_Q, D], same dtype

    Graded besides the values: K and V are read once for every 16 queries of a group at most, all
    its heads taken together. One launch, each result stored once, no copies, no TF32.
    Source: Ainslie et al. 2023 (GQA), section 2.2; PackGQA in FlashAttention-3.
    """
    (B, H, N_Q, D), (H_KV, N_KV) = q.shape, k.shape[1:3]
    GROUP = H // H_KV
    scale = D**-0.5 if scale is None else scale
    out = torch.empty((B, H, N_Q, D), dtype=q.dtype, device=q.device)
    BLOCK_M = 64
    BLOCK_N = 32
    # solution
    grid = (triton.cdiv(GROUP * N_Q, BLOCK_M), H_KV, B)
    # instead
    #| grid = ...  # yours
    # end
    flash_forward_gqa_kernel[grid](
        q, k, v, out, GROUP, N_Q, N_KV, D, scale,
        *q.stride(), *k.stride(), *v.stride(), *out.stride(),
        BLOCK_M=BLOCK_M, BLOCK_N=BLOCK_N, BLOCK_D=max(16, triton.next_power_of_2(D)),
    )  # fmt: skip
    return out


# %% exercise flash_io_bytes | core | 15 minutes | 3 points | model
# hint: Which of Q, K, V and the output does a program touch once, and which does every program of a head touch whole?
# hint: Each tile of queries reads its own rows of Q, all of K and all of V, and writes its own rows of the output and of the log-sum-exp. A last, partial tile reads all of K and V as well.
# hint: tiles = ceil(n_q / block_m); a head: n_q * d for Q and as much for the output, tiles * 2 * n_kv * d for K and V, all times bytes_each; and 4 bytes a query for the log-sum-exp.
def flash_io_bytes(
    n_q: int, n_kv: int, d: int, block_m: int, heads: int = 1, bytes_each: int = 2
) -> int:
    """The bytes that a flash forward (version 2's loop order, no mask) asks memory for.

    Every program owns a tile of block_m queries of one head: it loads them once, loads all of K
    and V, stores its rows of the output once, and its rows of the log-sum-exp (4 bytes each).
    n_q, n_kv    queries and keys; d: width of a head; heads: each has K and V of its own
    block_m      queries a tile; n_q need not be a multiple
    bytes_each   bytes an element of Q, K, V and the output
    returns      bytes loaded and stored, all heads together

    Example: flash_io_bytes(100, 50, 8, 64) is 6,800: 1,600 of Q, 3,200 of K and V, 1,600 of the
    output, 400 of the log-sum-exp.
    Source: FlashAttention, Theorem 2, with the constants, for FlashAttention-2's loop order.
    """
    # solution
    tiles = -(-n_q // block_m)
    elements = n_q * d + tiles * 2 * n_kv * d + n_q * d  # Q, K and V once a tile, the output
    return heads * (elements * bytes_each + 4 * n_q)
    # end
