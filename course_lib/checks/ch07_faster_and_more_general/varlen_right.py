"""flash_forward_varlen in other styles: each must pass."""

RIGHT = (
    """\
@triton.jit
def flat(q_ptr, k_ptr, v_ptr, o_ptr, cu_q, cu_k, tiles, H, D, scale, qt, qh, qd, kt, kh, kd, vt, vh, vd, ot, oh, od, CAUSAL: tl.constexpr,
        BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr):
    pid = tl.program_id(0)
    tile, h, b = pid % tiles, pid // tiles % H, pid // tiles // H
    q0, q1 = tl.load(cu_q + b), tl.load(cu_q + b + 1)
    if q0 + tile * BLOCK_M >= q1:
        return
    k0, k1 = tl.load(cu_k + b), tl.load(cu_k + b + 1)
    row = q0 + tile * BLOCK_M + tl.arange(0, BLOCK_M)[:, None]
    n, d = tl.arange(0, BLOCK_N), tl.arange(0, BLOCK_D)[None, :]
    q = tl.load(q_ptr + row * qt + h * qh + d * qd, mask=(row < q1) & (d < D), other=0.0)
    top = tl.full([BLOCK_M, 1], float("-inf"), tl.float32)
    total = tl.zeros([BLOCK_M, 1], tl.float32)
    acc = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)
    stop = k1
    if CAUSAL:
        stop = tl.minimum(k1, q0 + tile * BLOCK_M + BLOCK_M + k1 - q1)
    for start in range(k0, stop, BLOCK_N):
        key = start + n[:, None]
        k = tl.load(k_ptr + key * kt + h * kh + d * kd, mask=(key < k1) & (d < D), other=0.0)
        s = tl.dot(q, tl.trans(k), input_precision="ieee") * scale
        s = tl.where(start + n[None, :] < k1, s, float("-inf"))
        if CAUSAL:
            s = tl.where(start + n[None, :] - k1 <= row - q1, s, float("-inf"))
        new = tl.maximum(top, tl.max(s, 1, keep_dims=True))
        new = tl.where(new == float("-inf"), -1e30, new)
        p = tl.exp2(s - new)
        a = tl.exp2(top - new)
        v = tl.load(v_ptr + key * vt + h * vh + d * vd, mask=(key < k1) & (d < D), other=0.0)
        total = total * a + tl.sum(p, 1, keep_dims=True)
        acc = tl.dot(p.to(v.dtype), v, acc * a, input_precision="ieee")
        top = new
    tl.store(o_ptr + row * ot + h * oh + d * od, acc / tl.where(total > 0, total, 1.0), mask=(row < q1) & (d < D))

def flash_forward_varlen(q, k, v, cu_q, cu_k, max_q, scale=None, causal=False):
    _, H, D = q.shape
    out = torch.empty(q.shape, dtype=q.dtype, device=q.device)
    tiles = triton.cdiv(max_q, 32)
    scale = (D ** -0.5 if scale is None else scale) * 1.4426950408889634
    flat[(tiles * H * (len(cu_q) - 1),)](q, k, v, out, cu_q, cu_k, tiles, H, D, scale, *q.stride(), *k.stride(), *v.stride(), *out.stride(),
        CAUSAL=causal, BLOCK_M=32, BLOCK_N=32, BLOCK_D=max(16, triton.next_power_of_2(D)))
    return out
""",
    """\
@triton.jit
def moved_bases(q_ptr, k_ptr, v_ptr, o_ptr, cu_q, cu_k, scale, qt, qh, qd, kt, kh, kd, vt, vh, vd, ot, oh, od, D: tl.constexpr, PAD: tl.constexpr,
        CAUSAL: tl.constexpr, TM: tl.constexpr, TN: tl.constexpr):
    b, h = tl.program_id(0), tl.program_id(1)
    first = tl.program_id(2) * TM
    begin_q, begin_k = tl.load(cu_q + b), tl.load(cu_k + b)
    M, N = tl.load(cu_q + b + 1) - begin_q, tl.load(cu_k + b + 1) - begin_k
    q_ptr += begin_q.to(tl.int64) * qt + h * qh
    k_ptr += begin_k.to(tl.int64) * kt + h * kh
    v_ptr += begin_k.to(tl.int64) * vt + h * vh
    o_ptr += begin_q.to(tl.int64) * ot + h * oh
    m, n, d = first + tl.arange(0, TM), tl.arange(0, TN), tl.arange(0, PAD)
    mine = (m < M)[:, None] & (d < D)[None, :]
    q = tl.load(q_ptr + m[:, None] * qt + d[None, :] * qd, mask=mine, other=0.0) * scale
    top = tl.full([TM], -1e30, tl.float32)
    total = tl.zeros([TM], tl.float32)
    acc = tl.zeros([TM, PAD], tl.float32)
    seen = N
    if CAUSAL:
        seen = max(0, min(N, first + TM + N - M))
    turns = tl.cdiv(seen, TN) * (first < M).to(tl.int32)
    for turn in range(turns):
        j = turn * TN + n
        there = (j < N)[:, None] & (d < D)[None, :]
        k = tl.load(k_ptr + j[:, None] * kt + d[None, :] * kd, mask=there, other=0.0)
        v = tl.load(v_ptr + j[:, None] * vt + d[None, :] * vd, mask=there, other=0.0)
        s = tl.dot(q, k.T, input_precision="ieee")
        ok = (j < N)[None, :] & (m < M)[:, None]
        if CAUSAL:
            ok = ok & (m[:, None] - j[None, :] >= M - N)
        s = tl.where(ok, s, float("-inf"))
        new = tl.maximum(top, tl.max(s, 1))
        a = tl.exp(top - new)
        p = tl.exp(s - new[:, None])
        acc = acc * a[:, None] + tl.dot(p, v, input_precision="ieee")
        total = total * a + tl.sum(p, 1)
        top = new
    tl.store(o_ptr + m[:, None] * ot + d[None, :] * od, acc / tl.maximum(total, 1e-37)[:, None], mask=mine)

def flash_forward_varlen(q, k, v, cu_q, cu_k, max_q, scale=None, causal=False):
    H, D = q.shape[1:]
    scale = 1 / D ** 0.5 if scale is None else scale
    out = torch.zeros_like(q)
    moved_bases[(cu_q.numel() - 1, H, -(-max_q // 16))](q, k, v, out, cu_q, cu_k, scale, *q.stride(), *k.stride(), *v.stride(), *out.stride(), D=D,
        PAD=max(16, triton.next_power_of_2(D)), CAUSAL=causal, TM=16, TN=64)
    return out
""",
    """\
@triton.jit
def lengths_of(cu_ptr, b):
    first = tl.load(cu_ptr + b)
    return first, tl.load(cu_ptr + b + 1) - first

@triton.jit
def backwards(q_ptr, k_ptr, v_ptr, o_ptr, cu_q, cu_k, D, scale, q_st, q_sh, q_sd, k_st, k_sh, k_sd, v_st, v_sh, v_sd, o_st, o_sh, o_sd,
        CAUSAL: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr):
    h, b = tl.program_id(1), tl.program_id(2)
    q_first, n_q = lengths_of(cu_q, b)
    k_first, n_kv = lengths_of(cu_k, b)
    rows = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    dims = tl.arange(0, BLOCK_D)
    mine = (rows[:, None] < n_q) & (dims[None, :] < D)
    q = tl.load(q_ptr + (q_first + rows)[:, None] * q_st + h * q_sh + dims[None, :] * q_sd, mask=mine, other=0.0)
    row_max = tl.full([BLOCK_M], float("-inf"), tl.float32)
    row_sum = tl.zeros([BLOCK_M], tl.float32)
    acc = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)
    whole = n_kv
    if CAUSAL:
        whole = min(n_kv, tl.program_id(0) * BLOCK_M + BLOCK_M + n_kv - n_q)
    whole = tl.where(tl.program_id(0) * BLOCK_M < n_q, whole, 0)
    for start in range((whole + BLOCK_N - 1) // BLOCK_N * BLOCK_N - BLOCK_N, -1, -BLOCK_N):
        keys = start + tl.arange(0, BLOCK_N)
        inside = (keys[:, None] < n_kv) & (dims[None, :] < D)
        k = tl.load(k_ptr + (k_first + keys)[:, None] * k_st + h * k_sh + dims[None, :] * k_sd, mask=inside, other=0.0)
        s = tl.dot(q, k.T, input_precision="ieee") * scale
        s = tl.where((keys < n_kv)[None, :], s, float("-inf"))
        if CAUSAL:
            s = tl.where(keys[None, :] <= rows[:, None] + n_kv - n_q, s, float("-inf"))
        new_max = tl.maximum(row_max, tl.max(s, 1))
        base = tl.where(new_max == float("-inf"), 0.0, new_max)
        p = tl.exp(s - base[:, None])
        shrink = tl.exp(row_max - base)
        row_sum = row_sum * shrink + tl.sum(p, 1)
        v = tl.load(v_ptr + (k_first + keys)[:, None] * v_st + h * v_sh + dims[None, :] * v_sd, mask=inside, other=0.0)
        acc = acc * shrink[:, None] + tl.dot(p.to(v.dtype), v, input_precision="ieee")
        row_max = new_max
    acc = acc / tl.where(row_sum == 0, 1.0, row_sum)[:, None]
    tl.store(o_ptr + (q_first + rows)[:, None] * o_st + h * o_sh + dims[None, :] * o_sd, acc, mask=mine)

def flash_forward_varlen(q, k, v, cu_q, cu_k, max_q, scale=None, causal=False):
    tokens, H, D = q.shape
    out = q.new_empty(tokens, H, D)
    grid = lambda meta: (triton.cdiv(max_q, meta["BLOCK_M"]), H, cu_q.shape[0] - 1)
    backwards[grid](q, k, v, out, cu_q, cu_k, D, D ** -0.5 if scale is None else scale, *q.stride(), *k.stride(), *v.stride(), *out.stride(),
        CAUSAL=causal, BLOCK_M=64, BLOCK_N=16, BLOCK_D=max(16, triton.next_power_of_2(D)))
    return out
""",
)
