"""flash_forward in other styles, each of which must pass; and two whole wrong ones."""

_STRIDES = "qb, qh, qn, qd, kb, kh, kn, kd, vb, vh, vn, vd, ob, oh, on, od"

RIGHT = (
    # descriptors-free pointers that move, exp2 with log2(e) folded into the scale, another grid, other tiles
    f"""\
@triton.jit
def moving(q_ptr, k_ptr, v_ptr, o_ptr, H, M, N, D, scale, {_STRIDES}, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr):
    tiles = tl.cdiv(M, BLOCK_M)
    pid = tl.program_id(0)
    tile, bh = pid % tiles, pid // tiles
    b, h = bh // H, bh % H
    m = tile * BLOCK_M + tl.arange(0, BLOCK_M)[:, None]
    n = tl.arange(0, BLOCK_N)
    d = tl.arange(0, BLOCK_D)[None, :]
    q = tl.load(q_ptr + b * qb + h * qh + m * qn + d * qd, mask=(m < M) & (d < D), other=0.0)
    k_at = k_ptr + b * kb + h * kh + n[:, None] * kn + d * kd
    v_at = v_ptr + b * vb + h * vh + n[:, None] * vn + d * vd
    top = tl.full([BLOCK_M, 1], float("-inf"), tl.float32)
    total = tl.zeros([BLOCK_M, 1], tl.float32)
    acc = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)
    for i in range(0, tl.cdiv(N, BLOCK_N)):
        left = N - i * BLOCK_N
        k = tl.load(k_at, mask=(n[:, None] < left) & (d < D), other=0.0)
        s = tl.dot(q, tl.trans(k), input_precision="ieee") * scale
        s = tl.where(n[None, :] < left, s, float("-inf"))
        new = tl.maximum(top, tl.max(s, 1, keep_dims=True))
        p = tl.exp2(s - new)
        a = tl.exp2(top - new)
        v = tl.load(v_at, mask=(n[:, None] < left) & (d < D), other=0.0)
        total = total * a + tl.sum(p, 1, keep_dims=True)
        acc = tl.dot(p.to(v.dtype), v, acc * a, input_precision="ieee")
        top = new
        k_at += BLOCK_N * kn
        v_at += BLOCK_N * vn
    tl.store(o_ptr + b * ob + h * oh + m * on + d * od, (acc / total).to(o_ptr.dtype.element_ty), mask=(m < M) & (d < D))

def flash_forward(q, k, v, scale=None):
    B, H, M, D = q.shape
    out = torch.empty(q.shape, dtype=q.dtype, device=q.device)
    scale = (D ** -0.5 if scale is None else scale) * 1.4426950408889634
    moving[(triton.cdiv(M, 32) * B * H,)](q, k, v, out, H, M, k.shape[2], D, scale, *q.stride(), *k.stride(), *v.stride(), *out.stride(),
        BLOCK_M=32, BLOCK_N=64, BLOCK_D=max(16, triton.next_power_of_2(D)))
    return out
""",
    # K read already transposed, scale folded into q, tiles in reverse order, three grid axes, D as a constexpr
    f"""\
@triton.jit
def backwards(q_ptr, k_ptr, v_ptr, o_ptr, M, N, scale, {_STRIDES}, D: tl.constexpr, PAD: tl.constexpr, TM: tl.constexpr, TN: tl.constexpr):
    b, h = tl.program_id(2), tl.program_id(1)
    m = tl.program_id(0) * TM + tl.arange(0, TM)
    n = tl.arange(0, TN)
    d = tl.arange(0, PAD)
    q = tl.load(q_ptr + b * qb + h * qh + m[:, None] * qn + d[None, :] * qd, mask=(m < M)[:, None] & (d < D)[None, :], other=0.0)
    q = (q * scale).to(q.dtype)
    top = tl.full([TM], -1e30, tl.float32)
    total = tl.zeros([TM], tl.float32)
    acc = tl.zeros([TM, PAD], tl.float32)
    for start in range((N - 1) // TN * TN, -1, -TN):
        j = start + n
        kt = tl.load(k_ptr + b * kb + h * kh + j[None, :] * kn + d[:, None] * kd, mask=(j < N)[None, :] & (d < D)[:, None], other=0.0)
        v = tl.load(v_ptr + b * vb + h * vh + j[:, None] * vn + d[None, :] * vd, mask=(j < N)[:, None] & (d < D)[None, :], other=0.0)
        s = tl.dot(q, kt, input_precision="ieee")
        s = s + tl.where(j < N, 0.0, float("-inf"))[None, :]
        new = tl.maximum(top, tl.max(s, axis=1))
        a = tl.exp(top - new)
        p = tl.exp(s - new[:, None])
        acc = acc * a[:, None]
        acc += tl.dot(p.to(v.dtype), v, input_precision="ieee")
        total = total * a + tl.sum(p, axis=1)
        top = new
    tl.store(o_ptr + b * ob + h * oh + m[:, None] * on + d[None, :] * od, acc / total[:, None], mask=(m < M)[:, None] & (d < D)[None, :])

def flash_forward(q, k, v, scale=None):
    (B, H, M, D), N = q.shape, k.shape[-2]
    if scale is None:
        scale = 1.0 / D ** 0.5
    out = torch.zeros((B, H, M, D), dtype=q.dtype, device=q.device)
    grid = lambda meta: (triton.cdiv(M, meta["TM"]), H, B)
    backwards[grid](q, k, v, out, M, N, scale, *q.stride(), *k.stride(), *v.stride(), *out.stride(), D=D, PAD=max(16, triton.next_power_of_2(D)),
            TM=16, TN=16)
    return out
""",
    # version 1's arithmetic in version 2's order: a finished average after every tile, carried by (log-sum-exp, out)
    f"""\
@triton.jit
def finished(q_ptr, k_ptr, v_ptr, o_ptr, H, N_Q, N_KV, scale, {_STRIDES}, D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
        BLOCK_D: tl.constexpr):
    start_m = tl.program_id(0)
    off_b = tl.program_id(1) // H
    off_h = tl.program_id(1) % H
    offs_m = start_m * BLOCK_M + tl.arange(0, BLOCK_M)
    offs_d = tl.arange(0, BLOCK_D)
    mask_q = (offs_m[:, None] < N_Q) & (offs_d[None, :] < D)
    q = tl.load(q_ptr + off_b * qb + off_h * qh + offs_m[:, None] * qn + offs_d[None, :] * qd, mask=mask_q, other=0.0)
    lse = tl.full([BLOCK_M], -float("inf"), tl.float32)
    out = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)
    for start_n in tl.range(0, N_KV, BLOCK_N):
        offs_n = start_n + tl.arange(0, BLOCK_N)
        mask_k = (offs_n[:, None] < N_KV) & (offs_d[None, :] < D)
        k = tl.load(k_ptr + off_b * kb + off_h * kh + offs_n[:, None] * kn + offs_d[None, :] * kd, mask=mask_k, other=0.0)
        v = tl.load(v_ptr + off_b * vb + off_h * vh + offs_n[:, None] * vn + offs_d[None, :] * vd, mask=mask_k, other=0.0)
        qk = tl.dot(q, k.T, input_precision="ieee") * scale
        qk = tl.where(offs_n[None, :] < N_KV, qk, -float("inf"))
        top = tl.maximum(lse, tl.max(qk, 1))
        p = tl.exp(qk - top[:, None])
        old = tl.exp(lse - top)
        total = old + tl.sum(p, 1)
        out = (out * old[:, None] + tl.dot(p.to(v.dtype), v, input_precision="ieee")) / total[:, None]
        lse = top + tl.log(total)
    tl.store(o_ptr + off_b * ob + off_h * oh + offs_m[:, None] * on + offs_d[None, :] * od, out, mask=mask_q)

def flash_forward(q, k, v, scale=None):
    B, H, N_Q, D = q.shape
    out = torch.empty_like(q, memory_format=torch.contiguous_format)
    finished[(triton.cdiv(N_Q, 128), B * H)](q, k, v, out, H, N_Q, k.shape[2], scale or D ** -0.5, *q.stride(), *k.stride(), *v.stride(),
            *out.stride(),
        D=D, BLOCK_M=128, BLOCK_N=16, BLOCK_D=triton.next_power_of_2(max(D, 16)))
    return out
""",
)

SMALL_TILES = f"""\
@triton.jit
def flash_forward_kernel(q_ptr, k_ptr, v_ptr, o_ptr, M, N, D, scale, {_STRIDES}, ROWS: tl.constexpr, TILE_N: tl.constexpr, BLOCK_D: tl.constexpr):
    b, h = tl.program_id(2), tl.program_id(1)
    m, n, d = tl.program_id(0) * ROWS + tl.arange(0, ROWS), tl.arange(0, TILE_N), tl.arange(0, BLOCK_D)
    mine = (m < M)[:, None] & (d < D)[None, :]
    q = tl.load(q_ptr + b * qb + h * qh + m[:, None] * qn + d[None, :] * qd, mask=mine, other=0.0).to(tl.float32)
    top, total = tl.full([ROWS], -float("inf"), tl.float32), tl.zeros([ROWS], tl.float32)
    acc = tl.zeros([ROWS, BLOCK_D], tl.float32)
    for start in range(0, N, TILE_N):
        inside = (start + n < N)[:, None] & (d < D)[None, :]
        at = (start + n)[:, None]
        k = tl.load(k_ptr + b * kb + h * kh + at * kn + d[None, :] * kd, mask=inside, other=0.0).to(tl.float32)
        v = tl.load(v_ptr + b * vb + h * vh + at * vn + d[None, :] * vd, mask=inside, other=0.0).to(tl.float32)
        s = tl.where((start + n < N)[None, :], tl.sum(q[:, None, :] * k[None, :, :], axis=2) * scale, -float("inf"))
        new = tl.maximum(top, tl.max(s, axis=1))
        p, a = tl.exp(s - new[:, None]), tl.exp(top - new)
        total = total * a + tl.sum(p, axis=1)
        acc = acc * a[:, None] + tl.sum(p[:, :, None] * v[None, :, :], axis=1)
        top = new
    tl.store(o_ptr + b * ob + h * oh + m[:, None] * on + d[None, :] * od, acc / total[:, None], mask=mine)

def flash_forward(q, k, v, scale=None):
    B, H, M, D = q.shape
    out = torch.empty((B, H, M, D), dtype=q.dtype, device=q.device)
    flash_forward_kernel[(triton.cdiv(M, 8), H, B)](q, k, v, out, M, k.shape[2], D, D ** -0.5 if scale is None else scale, *q.stride(),
            *k.stride(), *v.stride(), *out.stride(),
        ROWS=8, TILE_N=64, BLOCK_D=triton.next_power_of_2(D))
    return out
"""

MATERIALISED = """\
@triton.jit
def scores_kernel(q_ptr, k_ptr, s_ptr, H, M, N, D, scale, qb, qh, qn, qd, kb, kh, kn, kd, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
        BLOCK_D: tl.constexpr):
    b, h = tl.program_id(2) // H, tl.program_id(2) % H
    m = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    n = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    d = tl.arange(0, BLOCK_D)
    q = tl.load(q_ptr + b * qb + h * qh + m[:, None] * qn + d[None, :] * qd, mask=(m < M)[:, None] & (d < D)[None, :], other=0.0)
    k = tl.load(k_ptr + b * kb + h * kh + n[:, None] * kn + d[None, :] * kd, mask=(n < N)[:, None] & (d < D)[None, :], other=0.0)
    s = tl.dot(q, k.T, input_precision="ieee") * scale
    tl.store(s_ptr + (tl.program_id(2) * M + m[:, None]) * N + n[None, :], s, mask=(m < M)[:, None] & (n < N)[None, :])

@triton.jit
def flash_forward_kernel(s_ptr, v_ptr, o_ptr, H, M, N, D, vb, vh, vn, vd, BLOCK_M: tl.constexpr, TILE_N: tl.constexpr, BLOCK_D: tl.constexpr):
    b, h = tl.program_id(1) // H, tl.program_id(1) % H
    m = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    n, d = tl.arange(0, TILE_N), tl.arange(0, BLOCK_D)
    s = tl.load(s_ptr + (tl.program_id(1) * M + m[:, None]) * N + n[None, :], mask=(m < M)[:, None] & (n < N)[None, :], other=-float("inf"))
    v = tl.load(v_ptr + b * vb + h * vh + n[:, None] * vn + d[None, :] * vd, mask=(n < N)[:, None] & (d < D)[None, :], other=0.0)
    p = tl.exp(s - tl.where(m < M, tl.max(s, axis=1), 0.0)[:, None])
    row_sum = tl.where(m < M, tl.sum(p, axis=1), 1.0)
    o = tl.dot(p.to(v.dtype), v, input_precision="ieee") / row_sum[:, None]
    tl.store(o_ptr + (tl.program_id(1) * M + m[:, None]) * D + d[None, :], o, mask=(m < M)[:, None] & (d < D)[None, :])

def flash_forward(q, k, v, scale=None):
    (B, H, M, D), N = q.shape, k.shape[2]
    out = torch.empty((B, H, M, D), dtype=q.dtype, device=q.device)
    s = torch.empty((B, H, M, N), dtype=torch.float32, device=q.device)
    pad, tiles = triton.next_power_of_2(max(D, 16)), triton.cdiv(M, 32)
    scores_kernel[(tiles, triton.cdiv(N, 32), B * H)](q, k, s, H, M, N, D, D ** -0.5 if scale is None else scale, *q.stride(), *k.stride(),
            BLOCK_M=32, BLOCK_N=32, BLOCK_D=pad)
    flash_forward_kernel[(tiles, B * H)](s, v, out, H, M, N, D, *v.stride(), BLOCK_M=32, TILE_N=triton.next_power_of_2(max(N, 16)), BLOCK_D=pad)
    return out
"""
