"""flash_backward_dkdv in other styles: each must pass."""

RIGHT = (
    """\
@triton.jit
def moving(q_ptr, k_ptr, v_ptr, g_ptr, l_ptr, d_ptr, dk_ptr, dv_ptr, H, M, N, D, scale, CAUSAL: tl.constexpr, qb, qh, qn, qd, kb, kh, kn, kd,
        vb, vh, vn, vd, gb, gh, gn, gd, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr):
    tiles = tl.cdiv(N, BLOCK_N)
    pid = tl.program_id(0)
    tile, bh = pid % tiles, pid // tiles
    b, h = bh // H, bh % H
    n = tile * BLOCK_N + tl.arange(0, BLOCK_N)[:, None]
    m = tl.arange(0, BLOCK_M)
    d = tl.arange(0, BLOCK_D)[None, :]
    k = tl.load(k_ptr + b * kb + h * kh + n * kn + d * kd, mask=(n < N) & (d < D), other=0.0)
    v = tl.load(v_ptr + b * vb + h * vh + n * vn + d * vd, mask=(n < N) & (d < D), other=0.0)
    begin = 0
    if CAUSAL:
        begin = tl.maximum(0, tile * BLOCK_N - (N - M)) // BLOCK_M
    q_at = q_ptr + b * qb + h * qh + (begin * BLOCK_M + m)[:, None] * qn + d * qd
    g_at = g_ptr + b * gb + h * gh + (begin * BLOCK_M + m)[:, None] * gn + d * gd
    dk = tl.zeros([BLOCK_N, BLOCK_D], tl.float32)
    dv = tl.zeros([BLOCK_N, BLOCK_D], tl.float32)
    for i in range(begin, tl.cdiv(M, BLOCK_M)):
        rows = i * BLOCK_M + m
        keep = (rows < M)[:, None] & (d < D)
        q = tl.load(q_at, mask=keep, other=0.0)
        g = tl.load(g_at, mask=keep, other=0.0)
        lse = tl.load(l_ptr + bh * M + rows, mask=rows < M, other=float("inf"))
        delta = tl.load(d_ptr + bh * M + rows, mask=rows < M, other=0.0)
        st = tl.dot(k, tl.trans(q), input_precision="ieee") * (scale * 1.4426950408889634)  # keys by queries
        pt = tl.exp2(st - (lse * 1.4426950408889634)[None, :])
        if CAUSAL:
            pt = tl.where(n <= rows[None, :] + (N - M), pt, 0.0)
        dv = tl.dot(pt.to(g.dtype), g, dv, input_precision="ieee")
        dst = pt * (tl.dot(v, tl.trans(g), input_precision="ieee") - delta[None, :]) * scale
        dk = tl.dot(dst.to(q.dtype), q, dk, input_precision="ieee")
        q_at += BLOCK_M * qn
        g_at += BLOCK_M * gn
    at = (bh * N + n) * D + d
    tl.store(dk_ptr + at, dk, mask=(n < N) & (d < D))
    tl.store(dv_ptr + at, dv, mask=(n < N) & (d < D))

def flash_backward_dkdv(q, k, v, dout, lse, delta, scale=None, causal=False):
    B, H, M, D = q.shape
    N = k.shape[2]
    dk, dv = torch.empty(k.shape, device=k.device, dtype=k.dtype), torch.empty(k.shape, device=k.device, dtype=v.dtype)
    moving[(triton.cdiv(N, 32) * B * H,)](q, k, v, dout, lse, delta, dk, dv, H, M, N, D, D**-0.5 if scale is None else scale, causal,
        *q.stride(), *k.stride(), *v.stride(), *dout.stride(), BLOCK_M=32, BLOCK_N=32, BLOCK_D=max(16, triton.next_power_of_2(D)))
    return dk, dv
""",
    """\
@triton.jit
def upwards(q_ptr, k_ptr, v_ptr, g_ptr, l_ptr, d_ptr, dk_ptr, dv_ptr, M, N, scale, qb, qh, qn, qd, kb, kh, kn, kd, vb, vh, vn, vd, gb, gh, gn, gd,
        ob, oh, on, od, D: tl.constexpr, PAD: tl.constexpr, TM: tl.constexpr, TN: tl.constexpr, CAUSAL: tl.constexpr):
    b, h = tl.program_id(2), tl.program_id(1)
    j = tl.program_id(0) * TN + tl.arange(0, TN)
    d = tl.arange(0, PAD)
    mine = (j < N)[:, None] & (d < D)[None, :]
    k = tl.load(k_ptr + b * kb + h * kh + j[:, None] * kn + d[None, :] * kd, mask=mine, other=0.0)
    vt = tl.load(v_ptr + b * vb + h * vh + j[None, :] * vn + d[:, None] * vd, mask=(j < N)[None, :] & (d < D)[:, None], other=0.0)
    k = (k * scale).to(k.dtype)
    dk = tl.zeros([TN, PAD], tl.float32)
    dv = tl.zeros([TN, PAD], tl.float32)
    shift = N - M
    if not CAUSAL:
        shift = N
    lowest = max(0, tl.program_id(0) * TN - shift) // TM * TM
    for start in range((M + TM - 1) // TM * TM - TM, lowest - 1, -TM):  # from the last queries down
        i = start + tl.arange(0, TM)
        there = (i < M)[:, None] & (d < D)[None, :]
        q = tl.load(q_ptr + b * qb + h * qh + i[:, None] * qn + d[None, :] * qd, mask=there, other=0.0)
        g = tl.load(g_ptr + b * gb + h * gh + i[:, None] * gn + d[None, :] * gd, mask=there, other=0.0)
        row = (b * tl.num_programs(1) + h) * M + i
        lse = tl.load(l_ptr + row, mask=i < M, other=0.0)
        lse = tl.where(lse == -float("inf"), 0.0, lse)
        s = tl.dot(q, tl.trans(k), input_precision="ieee")
        s = tl.where((j[None, :] - i[:, None] <= shift) & (i < M)[:, None], s, -float("inf"))
        p = tl.exp(s - lse[:, None])
        dp = tl.dot(g, vt, input_precision="ieee") - tl.load(d_ptr + row, mask=i < M, other=0.0)[:, None]
        dv += tl.dot(tl.trans(p).to(g.dtype), g, input_precision="ieee")
        dk += tl.dot(tl.trans(p * dp).to(q.dtype), q, input_precision="ieee")
    at = b * ob + h * oh + j[:, None] * on + d[None, :] * od
    tl.store(dk_ptr + at, dk * scale, mask=mine)
    tl.store(dv_ptr + at, dv, mask=mine)

def flash_backward_dkdv(q, k, v, dout, lse, delta, scale=None, causal=False):
    (B, H, M, D), N = q.shape, k.shape[-2]
    if scale is None:
        scale = 1.0 / D ** 0.5
    dk = torch.zeros((B, H, N, D), dtype=k.dtype, device=k.device)
    dv = torch.zeros_like(dk)
    grid = lambda meta: (triton.cdiv(N, meta["TN"]), H, B)
    upwards[grid](q, k, v, dout, lse, delta, dk, dv, M, N, scale, *q.stride(), *k.stride(), *v.stride(), *dout.stride(), *dk.stride(), D=D,
        PAD=max(16, triton.next_power_of_2(D)), TM=16, TN=16, CAUSAL=bool(causal))
    return dk, dv
""",
    """\
@triton.jit
def weights(q, k, lse, i, j, M, N, scale, CAUSAL: tl.constexpr):
    p = tl.exp(tl.dot(q, tl.trans(k), input_precision="ieee") * scale - lse[:, None])
    keep = (i < M)[:, None] & (j < N)[None, :]
    if CAUSAL:
        keep &= j[None, :] <= i[:, None] + (N - M)
    return tl.where(keep, p, 0.0)

@triton.jit
def with_helper(q_ptr, k_ptr, v_ptr, g_ptr, l_ptr, d_ptr, dk_ptr, dv_ptr, CAUSAL: tl.constexpr, M, N, D, scale, qb, qh, qn, qd, kb, kh, kn, kd,
        vb, vh, vn, vd, gb, gh, gn, gd, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr):
    b, h = tl.program_id(0), tl.program_id(1)
    j = tl.program_id(2) * BLOCK_N + tl.arange(0, BLOCK_N)
    d = tl.arange(0, BLOCK_D)
    mine = (j < N)[:, None] & (d < D)[None, :]
    k = tl.load(k_ptr + b * kb + h * kh + j[:, None] * kn + d[None, :] * kd, mask=mine, other=0.0)
    v = tl.load(v_ptr + b * vb + h * vh + j[:, None] * vn + d[None, :] * vd, mask=mine, other=0.0)
    dk, dv = tl.zeros([BLOCK_N, BLOCK_D], tl.float32), tl.zeros([BLOCK_N, BLOCK_D], tl.float32)
    bh = b * tl.num_programs(1) + h
    for start in range(0, M, BLOCK_M):
        i = start + tl.arange(0, BLOCK_M)
        if (not CAUSAL) or (tl.program_id(2) * BLOCK_N <= start + BLOCK_M - 1 + N - M):  # else no query of this tile sees a key of mine
            there = (i < M)[:, None] & (d < D)[None, :]
            q = tl.load(q_ptr + b * qb + h * qh + i[:, None] * qn + d[None, :] * qd, mask=there, other=0.0)
            g = tl.load(g_ptr + b * gb + h * gh + i[:, None] * gn + d[None, :] * gd, mask=there, other=0.0)
            lse = tl.load(l_ptr + bh * M + i, mask=i < M, other=0.0)
            delta = tl.load(d_ptr + bh * M + i, mask=i < M, other=0.0)
            p = weights(q, k, lse, i, j, M, N, scale, CAUSAL)
            dp = tl.dot(g, tl.trans(v), input_precision="ieee")
            ds = (p * dp - p * delta[:, None]) * scale
            dv += tl.dot(tl.trans(p.to(g.dtype)), g, input_precision="ieee")
            dk += tl.dot(tl.trans(ds.to(q.dtype)), q, input_precision="ieee")
    at = (bh * N + j[:, None]) * D + d[None, :]
    tl.store(dk_ptr + at, dk, mask=mine)
    tl.store(dv_ptr + at, dv, mask=mine)

def flash_backward_dkdv(q, k, v, dout, lse, delta, scale=None, causal=False):
    B, H, M, D = q.shape
    N = k.shape[2]
    dk = torch.empty((B, H, N, D), dtype=torch.float32, device=q.device)
    dv = torch.empty((B, H, N, D), dtype=torch.float32, device=q.device)
    scale = D ** -0.5 if scale is None else scale
    with_helper[(B, H, triton.cdiv(N, 64))](q, k, v, dout, lse, delta, dk, dv, causal, M, N, D, scale, *q.stride(), *k.stride(), *v.stride(),
        *dout.stride(), BLOCK_M=64, BLOCK_N=64, BLOCK_D=max(16, triton.next_power_of_2(D)))
    return dk, dv
""",
)
