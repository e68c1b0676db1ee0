"""flash_backward_dq in other styles: each must pass."""

RIGHT = (
    """\
@triton.jit
def moving_dq(q_ptr, k_ptr, v_ptr, g_ptr, l_ptr, d_ptr, o_ptr, H, M, N, D, scale, CAUSAL: tl.constexpr, qb, qh, qn, qd, kb, kh, kn, kd,
        vb, vh, vn, vd, gb, gh, gn, gd, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr):
    tiles = tl.cdiv(M, BLOCK_M)
    pid = tl.program_id(0)
    tile, bh = pid % tiles, pid // tiles
    b, h = bh // H, bh % H
    m = tile * BLOCK_M + tl.arange(0, BLOCK_M)
    n = tl.arange(0, BLOCK_N)
    d = tl.arange(0, BLOCK_D)[None, :]
    mine = (m < M)[:, None] & (d < D)
    q = tl.load(q_ptr + b * qb + h * qh + m[:, None] * qn + d * qd, mask=mine, other=0.0)
    g = tl.load(g_ptr + b * gb + h * gh + m[:, None] * gn + d * gd, mask=mine, other=0.0)
    lse = tl.load(l_ptr + bh * M + m, mask=m < M, other=0.0) * 1.4426950408889634
    delta = tl.load(d_ptr + bh * M + m, mask=m < M, other=0.0)
    k_at = k_ptr + b * kb + h * kh + n[:, None] * kn + d * kd
    v_at = v_ptr + b * vb + h * vh + n[:, None] * vn + d * vd
    acc = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)
    last = N
    if CAUSAL:
        last = tl.minimum(N, tile * BLOCK_M + BLOCK_M + N - M)
    for i in range(0, tl.cdiv(tl.maximum(last, 0), BLOCK_N)):
        left = N - i * BLOCK_N
        k = tl.load(k_at, mask=(n[:, None] < left) & (d < D), other=0.0)
        v = tl.load(v_at, mask=(n[:, None] < left) & (d < D), other=0.0)
        s = tl.dot(q, tl.trans(k), input_precision="ieee") * (scale * 1.4426950408889634)
        keep = n[None, :] < left
        if CAUSAL:
            keep = keep & (i * BLOCK_N + n[None, :] <= m[:, None] + N - M)
        p = tl.exp2(tl.where(keep, s - lse[:, None], -float("inf")))
        dp = tl.dot(g, tl.trans(v), input_precision="ieee")
        acc = tl.dot((p * (dp - delta[:, None]) * scale).to(k.dtype), k, acc, input_precision="ieee")
        k_at += BLOCK_N * kn
        v_at += BLOCK_N * vn
    tl.store(o_ptr + (bh * M + m[:, None]) * D + d, acc, mask=mine)

def flash_backward_dq(q, k, v, dout, lse, delta, scale=None, causal=False):
    B, H, M, D = q.shape
    dq = torch.empty(q.shape, device=q.device, dtype=q.dtype)
    moving_dq[(triton.cdiv(M, 32) * B * H,)](q, k, v, dout, lse, delta, dq, H, M, k.shape[2], D, D**-0.5 if scale is None else scale, causal,
        *q.stride(), *k.stride(), *v.stride(), *dout.stride(), BLOCK_M=32, BLOCK_N=64, BLOCK_D=max(16, triton.next_power_of_2(D)))
    return dq
""",
    """\
@triton.jit
def backwards_dq(q_ptr, k_ptr, v_ptr, g_ptr, l_ptr, d_ptr, o_ptr, M, N, scale, qb, qh, qn, qd, kb, kh, kn, kd, vb, vh, vn, vd, gb, gh, gn, gd,
        ob, oh, on, od, D: tl.constexpr, PAD: tl.constexpr, TM: tl.constexpr, TN: tl.constexpr, CAUSAL: tl.constexpr):
    b, h = tl.program_id(2), tl.program_id(1)
    i = tl.program_id(0) * TM + tl.arange(0, TM)
    d = tl.arange(0, PAD)
    mine = (i < M)[:, None] & (d < D)[None, :]
    q = tl.load(q_ptr + b * qb + h * qh + i[:, None] * qn + d[None, :] * qd, mask=mine, other=0.0)
    g = tl.load(g_ptr + b * gb + h * gh + i[:, None] * gn + d[None, :] * gd, mask=mine, other=0.0)
    row = (b * tl.num_programs(1) + h) * M + i
    lse = tl.load(l_ptr + row, mask=i < M, other=0.0)[:, None]
    delta = tl.load(d_ptr + row, mask=i < M, other=0.0)[:, None]
    lse = tl.where(lse == -float("inf"), 0.0, lse)
    dq = tl.zeros([TM, PAD], tl.float32)
    shift = N - M
    if not CAUSAL:
        shift = N
    end = min(N, (tl.program_id(0) + 1) * TM + shift)
    for start in range((end + TN - 1) // TN * TN - TN, -1, -TN):
        j = start + tl.arange(0, TN)
        k = tl.load(k_ptr + b * kb + h * kh + j[:, None] * kn + d[None, :] * kd, mask=(j < N)[:, None] & (d < D)[None, :], other=0.0)
        vt = tl.load(v_ptr + b * vb + h * vh + j[None, :] * vn + d[:, None] * vd, mask=(j < N)[None, :] & (d < D)[:, None], other=0.0)
        s = tl.dot((q * scale).to(q.dtype), tl.trans(k), input_precision="ieee")
        s = tl.where((j < N)[None, :] & (j[None, :] - i[:, None] <= shift), s, -float("inf"))
        ds = tl.exp(s - lse) * (tl.dot(g, vt, input_precision="ieee") - delta)
        dq += tl.dot(ds.to(k.dtype), k, input_precision="ieee")
    tl.store(o_ptr + b * ob + h * oh + i[:, None] * on + d[None, :] * od, dq * scale, mask=mine)

def flash_backward_dq(q, k, v, dout, lse, delta, scale=None, causal=False):
    (B, H, M, D), N = q.shape, k.shape[-2]
    if scale is None:
        scale = 1.0 / D ** 0.5
    dq = torch.zeros((B, H, M, D), dtype=q.dtype, device=q.device)
    grid = lambda meta: (triton.cdiv(M, meta["TM"]), H, B)
    backwards_dq[grid](q, k, v, dout, lse, delta, dq, M, N, scale, *q.stride(), *k.stride(), *v.stride(), *dout.stride(), *dq.stride(), D=D,
        PAD=max(16, triton.next_power_of_2(D)), TM=16, TN=16, CAUSAL=bool(causal))
    return dq
""",
    """\
@triton.jit
def score_gradient(q, k, v, g, lse, delta, i, j, M, N, scale, CAUSAL: tl.constexpr):
    p = tl.exp(tl.dot(q, tl.trans(k), input_precision="ieee") * scale - lse[:, None])
    keep = (i < M)[:, None] & (j < N)[None, :]
    if CAUSAL:
        keep &= j[None, :] <= i[:, None] + (N - M)
    p = tl.where(keep, p, 0.0)
    return p * tl.dot(g, tl.trans(v), input_precision="ieee") - p * delta[:, None]

@triton.jit
def dq_with_helper(q_ptr, k_ptr, v_ptr, g_ptr, l_ptr, d_ptr, o_ptr, CAUSAL: tl.constexpr, M, N, D, scale, qb, qh, qn, qd, kb, kh, kn, kd,
        vb, vh, vn, vd, gb, gh, gn, gd, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr):
    b, h = tl.program_id(0), tl.program_id(1)
    i = tl.program_id(2) * BLOCK_M + tl.arange(0, BLOCK_M)
    d = tl.arange(0, BLOCK_D)
    mine = (i < M)[:, None] & (d < D)[None, :]
    bh = b * tl.num_programs(1) + h
    q = tl.load(q_ptr + b * qb + h * qh + i[:, None] * qn + d[None, :] * qd, mask=mine, other=0.0)
    g = tl.load(g_ptr + b * gb + h * gh + i[:, None] * gn + d[None, :] * gd, mask=mine, other=0.0)
    lse = tl.load(l_ptr + bh * M + i, mask=i < M, other=0.0)
    delta = tl.load(d_ptr + bh * M + i, mask=i < M, other=0.0)
    dq = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)
    for start in range(0, N, BLOCK_N):
        j = start + tl.arange(0, BLOCK_N)
        if (not CAUSAL) or (start <= tl.program_id(2) * BLOCK_M + BLOCK_M - 1 + N - M):
            there = (j < N)[:, None] & (d < D)[None, :]
            k = tl.load(k_ptr + b * kb + h * kh + j[:, None] * kn + d[None, :] * kd, mask=there, other=0.0)
            v = tl.load(v_ptr + b * vb + h * vh + j[:, None] * vn + d[None, :] * vd, mask=there, other=0.0)
            ds = score_gradient(q, k, v, g, lse, delta, i, j, M, N, scale, CAUSAL)
            dq += tl.dot(ds.to(k.dtype), k, input_precision="ieee")
    tl.store(o_ptr + (bh * M + i[:, None]) * D + d[None, :], dq * scale, mask=mine)

def flash_backward_dq(q, k, v, dout, lse, delta, scale=None, causal=False):
    B, H, M, D = q.shape
    dq = torch.empty((B, H, M, D), dtype=torch.float32, device=q.device)
    scale = D ** -0.5 if scale is None else scale
    dq_with_helper[(B, H, triton.cdiv(M, 64))](q, k, v, dout, lse, delta, dq, causal, M, k.shape[2], D, scale, *q.stride(), *k.stride(),
        *v.stride(), *dout.stride(), BLOCK_M=64, BLOCK_N=64, BLOCK_D=max(16, triton.next_power_of_2(D)))
    return dq
""",
)
