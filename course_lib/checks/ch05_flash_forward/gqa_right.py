"""flash_forward_gqa in other styles, each of which must pass; and the one that reads K and V once a head."""

RIGHT = (
    """\
@triton.jit
def moving(q_ptr, k_ptr, v_ptr, o_ptr, H, GROUP, M, N, D, scale, qb, qh, qn, qd, kb, kh, kn, kd, vb, vh, vn, vd, ob, oh, on, od,
        BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr):
    tiles = tl.cdiv(M * GROUP, BLOCK_M)
    pid = tl.program_id(0)
    tile, bh = pid % tiles, pid // tiles
    b, h = bh // H, bh % H
    r = tile * BLOCK_M + tl.arange(0, BLOCK_M)[:, None]
    m = r % M
    hq = h * GROUP + r // M
    ok = r < M * GROUP
    n = tl.arange(0, BLOCK_N)
    d = tl.arange(0, BLOCK_D)[None, :]
    q = tl.load(q_ptr + b * qb + hq * qh + m * qn + d * qd, mask=ok & (d < D), other=0.0)
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
    tl.store(o_ptr + b * ob + hq * oh + m * on + d * od, (acc / total).to(o_ptr.dtype.element_ty), mask=ok & (d < D))

def flash_forward_gqa(q, k, v, scale=None):
    B, H, M, D = q.shape
    out = torch.empty(q.shape, dtype=q.dtype, device=q.device)
    scale = (D ** -0.5 if scale is None else scale) * 1.4426950408889634
    moving[(triton.cdiv(H // k.shape[1] * M, 32) * B * k.shape[1],)](q, k, v, out, k.shape[1], H // k.shape[1], M, k.shape[2], D, scale,
            *q.stride(), *k.stride(), *v.stride(), *out.stride(),
        BLOCK_M=32, BLOCK_N=64, BLOCK_D=max(16, triton.next_power_of_2(D)))
    return out
""",
    """\
@triton.jit
def backwards(q_ptr, k_ptr, v_ptr, o_ptr, M, N, GROUP: tl.constexpr, scale, qb, qh, qn, qd, kb, kh, kn, kd, vb, vh, vn, vd, ob, oh, on, od,
        D: tl.constexpr, PAD: tl.constexpr, TM: tl.constexpr, TN: tl.constexpr):
    b, h = tl.program_id(2), tl.program_id(1)
    row = tl.program_id(0) * TM + tl.arange(0, TM)
    m, mine = row // GROUP, h * GROUP + row % GROUP
    n = tl.arange(0, TN)
    d = tl.arange(0, PAD)
    q = tl.load(q_ptr + b * qb + mine[:, None] * qh + m[:, None] * qn + d[None, :] * qd, mask=(m < M)[:, None] & (d < D)[None, :], other=0.0)
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
    tl.store(o_ptr + b * ob + mine[:, None] * oh + m[:, None] * on + d[None, :] * od, acc / total[:, None], mask=(m < M)[:, None] & (d < D)[None,
            :])

def flash_forward_gqa(q, k, v, scale=None):
    (B, H, M, D), N = q.shape, k.shape[-2]
    G = H // k.shape[1]
    if scale is None:
        scale = 1.0 / D ** 0.5
    out = torch.zeros((B, H, M, D), dtype=q.dtype, device=q.device)
    grid = lambda meta: (triton.cdiv(M * G, meta["TM"]), H // G, B)
    backwards[grid](q, k, v, out, M, N, G, scale, *q.stride(), *k.stride(), *v.stride(), *out.stride(), D=D, PAD=max(16,
            triton.next_power_of_2(D)), TM=16, TN=16)
    return out
""",
    """\
@triton.jit
def inner(q_ptr, k_ptr, v_ptr, o_ptr, M, N, D, scale, qb, qg, qh, qn, qd, kb, kh, kn, kd, vb, vh, vn, vd, ob, og, oh, on, od,
          G: tl.constexpr, PAD_G: tl.constexpr, QUERIES: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr):
    b, h = tl.program_id(2), tl.program_id(1)
    lane = tl.arange(0, PAD_G * QUERIES)
    g = lane // QUERIES
    m = tl.program_id(0) * QUERIES + lane % QUERIES
    n, d = tl.arange(0, BLOCK_N), tl.arange(0, BLOCK_D)
    mine = ((m < M) & (g < G))[:, None] & (d < D)[None, :]
    q = tl.load(q_ptr + b * qb + h * qg + g[:, None] * qh + m[:, None] * qn + d[None, :] * qd, mask=mine, other=0.0)
    top = tl.full([PAD_G * QUERIES], -float("inf"), tl.float32)
    total = tl.zeros([PAD_G * QUERIES], tl.float32)
    acc = tl.zeros([PAD_G * QUERIES, BLOCK_D], tl.float32)
    for start in range(0, N, BLOCK_N):
        j = start + n
        inside = (j < N)[:, None] & (d < D)[None, :]
        k = tl.load(k_ptr + b * kb + h * kh + j[:, None] * kn + d[None, :] * kd, mask=inside, other=0.0)
        v = tl.load(v_ptr + b * vb + h * vh + j[:, None] * vn + d[None, :] * vd, mask=inside, other=0.0)
        s = tl.where((j < N)[None, :], tl.dot(q, k.T, input_precision="ieee") * scale, -float("inf"))
        new = tl.maximum(top, tl.max(s, 1))
        p, a = tl.exp(s - new[:, None]), tl.exp(top - new)
        total = total * a + tl.sum(p, 1)
        acc = acc * a[:, None] + tl.dot(p.to(v.dtype), v, input_precision="ieee")
        top = new
    tl.store(o_ptr + b * ob + h * og + g[:, None] * oh + m[:, None] * on + d[None, :] * od, acc / total[:, None], mask=mine)

def flash_forward_gqa(q, k, v, scale=None):
    (B, H, M, D), (H_KV, N) = q.shape, k.shape[1:3]
    G = H // H_KV
    out = torch.empty((B, H, M, D), dtype=q.dtype, device=q.device)
    qs, os = q.unflatten(1, (H_KV, G)), out.unflatten(1, (H_KV, G))
    pad = triton.next_power_of_2(G)
    inner[(triton.cdiv(M, max(16, 64 // pad)), H_KV, B)](qs, k, v, os, M, N, D, D ** -0.5 if scale is None else scale,
        *qs.stride(), *k.stride(), *v.stride(), *os.stride(), G=G, PAD_G=pad, QUERIES=max(16, 64 // pad), BLOCK_N=32, BLOCK_D=max(16,
                triton.next_power_of_2(D)))
    return out
""",
)

PER_HEAD = """\
@triton.jit
def finished(q_ptr, k_ptr, v_ptr, o_ptr, H, GROUP, N_Q, N_KV, scale, qb, qh, qn, qd, kb, kh, kn, kd, vb, vh, vn, vd, ob, oh, on, od,
        D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr):
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
        k = tl.load(k_ptr + off_b * kb + off_h // GROUP * kh + offs_n[:, None] * kn + offs_d[None, :] * kd, mask=mask_k, other=0.0)
        v = tl.load(v_ptr + off_b * vb + off_h // GROUP * vh + offs_n[:, None] * vn + offs_d[None, :] * vd, mask=mask_k, other=0.0)
        qk = tl.dot(q, k.T, input_precision="ieee") * scale
        qk = tl.where(offs_n[None, :] < N_KV, qk, -float("inf"))
        top = tl.maximum(lse, tl.max(qk, 1))
        p = tl.exp(qk - top[:, None])
        old = tl.exp(lse - top)
        total = old + tl.sum(p, 1)
        out = (out * old[:, None] + tl.dot(p.to(v.dtype), v, input_precision="ieee")) / total[:, None]
        lse = top + tl.log(total)
    tl.store(o_ptr + off_b * ob + off_h * oh + offs_m[:, None] * on + offs_d[None, :] * od, out, mask=mask_q)

def flash_forward_gqa(q, k, v, scale=None):
    B, H, N_Q, D = q.shape
    out = torch.empty_like(q, memory_format=torch.contiguous_format)
    finished[(triton.cdiv(N_Q, 64), B * H)](q, k, v, out, H, H // k.shape[1], N_Q, k.shape[2], scale or D ** -0.5, *q.stride(), *k.stride(),
            *v.stride(), *out.stride(),
        D=D, BLOCK_M=64, BLOCK_N=32, BLOCK_D=triton.next_power_of_2(max(D, 16)))
    return out
"""
