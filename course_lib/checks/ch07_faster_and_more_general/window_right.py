"""flash_forward_window in other styles: each must pass."""

RIGHT = (
    """\
@triton.jit
def unaligned(q_ptr, k_ptr, v_ptr, o_ptr, H, M, N, W, D, scale, qb, qh, qn, qd, kb, kh, kn, kd, vb, vh, vn, vd, ob, oh, on, od,
        BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr):
    tiles = tl.cdiv(M, BLOCK_M)
    pid = tl.program_id(0)
    tile, bh = pid % tiles, pid // tiles
    b, h = bh // H, bh % H
    m = tile * BLOCK_M + tl.arange(0, BLOCK_M)[:, None]
    place = m + (N - M)
    n = tl.arange(0, BLOCK_N)
    d = tl.arange(0, BLOCK_D)[None, :]
    q = tl.load(q_ptr + b * qb + h * qh + m * qn + d * qd, mask=(m < M) & (d < D), other=0.0)
    top = tl.full([BLOCK_M, 1], float("-inf"), tl.float32)
    total = tl.zeros([BLOCK_M, 1], tl.float32)
    acc = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)
    first = tl.maximum(0, tile * BLOCK_M + N - M - W + 1)
    last = tl.minimum(N, tile * BLOCK_M + BLOCK_M + N - M)
    for start in range(first, last, BLOCK_N):
        key = start + n[:, None]
        k = tl.load(k_ptr + b * kb + h * kh + key * kn + d * kd, mask=(key < N) & (d < D), other=0.0)
        s = tl.dot(q, tl.trans(k), input_precision="ieee") * scale
        back = place - (start + n[None, :])
        s = tl.where((back >= 0) & (back < W), s, float("-inf"))
        new = tl.maximum(top, tl.max(s, 1, keep_dims=True))
        new = tl.where(new == float("-inf"), -1e30, new)
        p = tl.exp2(s - new)
        a = tl.exp2(top - new)
        v = tl.load(v_ptr + b * vb + h * vh + key * vn + d * vd, mask=(key < N) & (d < D), other=0.0)
        total = total * a + tl.sum(p, 1, keep_dims=True)
        acc = tl.dot(p.to(v.dtype), v, acc * a, input_precision="ieee")
        top = new
    tl.store(o_ptr + b * ob + h * oh + m * on + d * od, acc / tl.where(total > 0, total, 1.0), mask=(m < M) & (d < D))

def flash_forward_window(q, k, v, window, scale=None):
    B, H, M, D = q.shape
    out = torch.empty(q.shape, dtype=q.dtype, device=q.device)
    scale = (D ** -0.5 if scale is None else scale) * 1.4426950408889634
    unaligned[(triton.cdiv(M, 32) * B * H,)](q, k, v, out, H, M, k.shape[2], window, D, scale, *q.stride(), *k.stride(), *v.stride(), *out.stride(),
        BLOCK_M=32, BLOCK_N=32, BLOCK_D=max(16, triton.next_power_of_2(D)))
    return out
""",
    """\
@triton.jit
def backwards(q_ptr, k_ptr, v_ptr, o_ptr, M, N, W, scale, qb, qh, qn, qd, kb, kh, kn, kd, vb, vh, vn, vd, ob, oh, on, od, D: tl.constexpr,
        PAD: tl.constexpr, TM: tl.constexpr, TN: tl.constexpr):
    b, h = tl.program_id(2), tl.program_id(1)
    m = tl.program_id(0) * TM + tl.arange(0, TM)
    n = tl.arange(0, TN)
    d = tl.arange(0, PAD)
    q = tl.load(q_ptr + b * qb + h * qh + m[:, None] * qn + d[None, :] * qd, mask=(m < M)[:, None] & (d < D)[None, :], other=0.0)
    q = (q * scale).to(q.dtype)
    top = tl.full([TM], -1e30, tl.float32)
    total = tl.zeros([TM], tl.float32)
    acc = tl.zeros([TM, PAD], tl.float32)
    shift = N - M
    low = max(0, tl.program_id(0) * TM + shift - W + 1) // TN
    high = tl.cdiv(max(0, min(N, (tl.program_id(0) + 1) * TM + shift)), TN)
    for t in range(high - 1, low - 1, -1):
        j = t * TN + n
        kt = tl.load(k_ptr + b * kb + h * kh + j[None, :] * kn + d[:, None] * kd, mask=(j < N)[None, :] & (d < D)[:, None], other=0.0)
        v = tl.load(v_ptr + b * vb + h * vh + j[:, None] * vn + d[None, :] * vd, mask=(j < N)[:, None] & (d < D)[None, :], other=0.0)
        s = tl.dot(q, kt, input_precision="ieee")
        ahead = j[None, :] - m[:, None] - shift
        s = tl.where((ahead <= 0) & (ahead > -W), s, float("-inf"))
        new = tl.maximum(top, tl.max(s, axis=1))
        a = tl.exp(top - new)
        p = tl.exp(s - new[:, None])
        acc = acc * a[:, None]
        acc += tl.dot(p.to(v.dtype), v, input_precision="ieee")
        total = total * a + tl.sum(p, axis=1)
        top = new
    tl.store(o_ptr + b * ob + h * oh + m[:, None] * on + d[None, :] * od, acc / tl.maximum(total, 1e-37)[:, None], mask=(m < M)[:,
            None] & (d < D)[None, :])

def flash_forward_window(q, k, v, window, scale=None):
    (B, H, M, D), N = q.shape, k.shape[-2]
    if scale is None:
        scale = 1.0 / D ** 0.5
    out = torch.zeros((B, H, M, D), dtype=q.dtype, device=q.device)
    grid = lambda meta: (triton.cdiv(M, meta["TM"]), H, B)
    backwards[grid](q, k, v, out, M, N, window, scale, *q.stride(), *k.stride(), *v.stride(), *out.stride(), D=D, PAD=max(16, triton.next_power_of_2(D)),
            TM=16, TN=16)
    return out
""",
    """\
@triton.jit
def fold(q, k_ptr, v_ptr, m, n, d, start, top, total, acc, M, N, W, D, scale, kn, kd, vn, vd, MASK: tl.constexpr):
    j = start + n
    inside = (j < N)[:, None] & (d < D)[None, :]
    k = tl.load(k_ptr + j[:, None] * kn + d[None, :] * kd, mask=inside, other=0.0)
    v = tl.load(v_ptr + j[:, None] * vn + d[None, :] * vd, mask=inside, other=0.0)
    s = tl.dot(q, tl.trans(k), input_precision="ieee") * scale
    if MASK:
        s = tl.where((j[None, :] <= m[:, None] + (N - M)) & (j[None, :] > m[:, None] + (N - M - W)), s, -float("inf"))
    new = tl.maximum(top, tl.max(s, 1))
    safe = tl.where(new > -float("inf"), new, 0.0)
    p = tl.exp(s - safe[:, None])
    a = tl.exp(top - safe)
    return new, total * a + tl.sum(p, 1), acc * a[:, None] + tl.dot(p.to(v.dtype), v, input_precision="ieee")

@triton.jit
def three_loops(q_ptr, k_ptr, v_ptr, o_ptr, M, N, W, D, scale, qb, qh, qn, qd, kb, kh, kn, kd, vb, vh, vn, vd, ob, oh, on, od,
        BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr):
    b, h = tl.program_id(0), tl.program_id(1)
    row = tl.program_id(2) * BLOCK_M
    m = row + tl.arange(0, BLOCK_M)
    n, d = tl.arange(0, BLOCK_N), tl.arange(0, BLOCK_D)
    mine = (m < M)[:, None] & (d < D)[None, :]
    q = tl.load(q_ptr + b * qb + h * qh + m[:, None] * qn + d[None, :] * qd, mask=mine, other=0.0)
    top, total, acc = tl.full([BLOCK_M], -float("inf"), tl.float32), tl.zeros([BLOCK_M], tl.float32), tl.zeros([BLOCK_M, BLOCK_D], tl.float32)
    place = row + N - M
    begin = max(0, place - W + 1) // BLOCK_N * BLOCK_N
    last = max(0, min(N, place + BLOCK_M))
    whole = max(begin, max(0, min(N, place + 1)) // BLOCK_N * BLOCK_N)
    inner = min(whole, tl.cdiv(max(0, place + BLOCK_M - W), BLOCK_N) * BLOCK_N)
    inner = max(begin, inner)
    ks, vs = k_ptr + b * kb + h * kh, v_ptr + b * vb + h * vh
    for start in range(begin, inner, BLOCK_N):
        top, total, acc = fold(q, ks, vs, m, n, d, start, top, total, acc, M, N, W, D, scale, kn, kd, vn, vd, True)
    for start in range(inner, whole, BLOCK_N):
        top, total, acc = fold(q, ks, vs, m, n, d, start, top, total, acc, M, N, W, D, scale, kn, kd, vn, vd, False)
    for start in range(whole, last, BLOCK_N):
        top, total, acc = fold(q, ks, vs, m, n, d, start, top, total, acc, M, N, W, D, scale, kn, kd, vn, vd, True)
    out = acc / tl.where(total == 0, 1.0, total)[:, None]
    tl.store(o_ptr + b * ob + h * oh + m[:, None] * on + d[None, :] * od, out, mask=mine)

def flash_forward_window(q, k, v, window, scale=None):
    B, H, M, D = q.shape
    out = torch.empty(q.shape, dtype=q.dtype, device=q.device)
    scale = D ** -0.5 if scale is None else scale
    three_loops[(B, H, triton.cdiv(M, 32))](q, k, v, out, M, k.shape[2], window, D, scale, *q.stride(), *k.stride(), *v.stride(), *out.stride(),
            BLOCK_M=32, BLOCK_N=16, BLOCK_D=max(16, triton.next_power_of_2(D)))
    return out
""",
)
