"""split_kv_decode in other styles, each of which must pass; and the one that reads K and V once a head."""

RIGHT = (
    """\
@triton.jit
def one_axis(q_ptr, k_ptr, v_ptr, n_ptr, o_ptr, l_ptr, B, H_KV, G, D, scale, qb, qh, qd, kb, kh, kn, kd, vb, vh, vn, vd,
             TM: tl.constexpr, TN: tl.constexpr, TD: tl.constexpr, S: tl.constexpr):
    pid = tl.program_id(0)
    s, rest = pid % S, pid // S
    h, b = rest % H_KV, rest // H_KV
    total = tl.load(n_ptr + b)
    chunk = (total + S - 1) // S
    at, stop = s * chunk, min(total, s * chunk + chunk)
    r = tl.arange(0, TM)[:, None]
    d = tl.arange(0, TD)[None, :]
    n = tl.arange(0, TN)[:, None]
    q = tl.load(q_ptr + b * qb + (h * G + r) * qh + d * qd, mask=(r < G) & (d < D), other=0.0)
    top = tl.full([TM, 1], float("-inf"), tl.float32)
    weight = tl.zeros([TM, 1], tl.float32)
    acc = tl.zeros([TM, TD], tl.float32)
    while at < stop:
        ok = (at + n < stop) & (d < D)
        k = tl.load(k_ptr + b * kb + h * kh + (at + n) * kn + d * kd, mask=ok, other=0.0)
        v = tl.load(v_ptr + b * vb + h * vh + (at + n) * vn + d * vd, mask=ok, other=0.0)
        x = tl.dot(q, tl.trans(k), input_precision="ieee") * (scale * 1.4426950408889634)
        x = tl.where(tl.trans(at + n < stop), x, float("-inf"))
        new = tl.maximum(top, tl.max(x, 1, keep_dims=True))
        p = tl.exp2(x - new)
        a = tl.exp2(top - new)
        weight = weight * a + tl.sum(p, 1, keep_dims=True)
        acc = tl.dot(p.to(v.dtype), v, acc * a, input_precision="ieee")
        top = new
        at += TN
    row = (s * B + b) * H_KV * G + h * G + r
    safe = tl.where(weight > 0, weight, 1.0)
    tl.store(o_ptr + row * D + d, acc / safe, mask=(r < G) & (d < D))
    tl.store(l_ptr + row, (top + tl.log2(safe)) * 0.6931471805599453, mask=r < G)

def split_kv_decode(q, k_cache, v_cache, lengths, num_splits, scale=None):
    B, H, D = q.shape
    H_KV = k_cache.shape[1]
    outs = torch.empty(num_splits, B, H, D, dtype=torch.float32, device=q.device)
    lses = torch.empty(num_splits, B, H, dtype=torch.float32, device=q.device)
    one_axis[(num_splits * B * H_KV,)](q, k_cache, v_cache, lengths, outs, lses, B, H_KV, H // H_KV, D, D ** -0.5 if scale is None else scale,
        *q.stride(), *k_cache.stride(), *v_cache.stride(), TM=max(16, triton.next_power_of_2(H // H_KV)), TN=16,
        TD=max(16, triton.next_power_of_2(D)), S=num_splits)
    return outs, lses
""",
    """\
@triton.jit
def pieces(q_ptr, k_ptr, v_ptr, n_ptr, o_ptr, l_ptr, H, scale, qb, qh, qd, kb, kh, kn, kd, vb, vh, vn, vd, os, ob, oh,
           G: tl.constexpr, D: tl.constexpr, PG: tl.constexpr, PD: tl.constexpr, TN: tl.constexpr):
    b, h, s = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    g, d, n = tl.arange(0, PG), tl.arange(0, PD), tl.arange(0, TN)
    q = tl.load(q_ptr + b * qb + (h * G + g)[:, None] * qh + d[None, :] * qd, mask=(g < G)[:, None] & (d < D)[None, :], other=0.0)
    length = tl.load(n_ptr + b)
    chunk = tl.cdiv(length, tl.num_programs(2))
    left = tl.maximum(0, tl.minimum(chunk, length - s * chunk))
    k_ptr += b * kb + h * kh + s * chunk * kn
    v_ptr += b * vb + h * vh + s * chunk * vn
    top = tl.full([PG], -1e38, tl.float32)
    total = tl.zeros([PG], tl.float32)
    acc = tl.zeros([PG, PD], tl.float32)
    for i in range(0, tl.cdiv(left, TN)):
        j = i * TN + n
        kt = tl.load(k_ptr + j[None, :] * kn + d[:, None] * kd, mask=(j < left)[None, :] & (d < D)[:, None], other=0.0)
        x = tl.dot((q * scale).to(q.dtype), kt, input_precision="ieee")
        x = tl.where((j < left)[None, :], x, -float("inf"))
        new = tl.maximum(top, tl.max(x, 1))
        p, a = tl.exp(x - new[:, None]), tl.exp(top - new)
        v = tl.load(v_ptr + j[:, None] * vn + d[None, :] * vd, mask=(j < left)[:, None] & (d < D)[None, :], other=0.0)
        acc = acc * a[:, None] + tl.dot(p.to(v.dtype), v, input_precision="ieee")
        total = total * a + tl.sum(p, 1)
        top = new
    out = tl.where(left > 0, acc / tl.where(total == 0, 1.0, total)[:, None], 0.0)
    lse = tl.where(left > 0, top + tl.log(tl.where(total == 0, 1.0, total)), -float("inf"))
    tl.store(o_ptr + s * os + b * ob + (h * G + g)[:, None] * oh + d[None, :], out, mask=(g < G)[:, None] & (d < D)[None, :])
    tl.store(l_ptr + (s * tl.num_programs(0) + b) * H + h * G + g, lse, mask=g < G)

def split_kv_decode(q, k_cache, v_cache, lengths, num_splits, scale=None):
    (B, H, D), H_KV = q.shape, k_cache.shape[1]
    if scale is None:
        scale = 1 / D ** 0.5
    outs = torch.zeros((num_splits, B, H, D), dtype=torch.float32, device=q.device)
    lses = torch.full((num_splits, B, H), -float("inf"), dtype=torch.float32, device=q.device)
    G = H // H_KV
    pieces[(B, H_KV, num_splits)](q, k_cache, v_cache, lengths, outs, lses, H, scale, *q.stride(), *k_cache.stride(), *v_cache.stride(),
        *outs.stride()[:3], G=G, D=D, PG=max(16, triton.next_power_of_2(G)), PD=max(16, triton.next_power_of_2(D)), TN=64)
    return outs, lses
""",
    """\
@triton.jit
def grouped(q_ptr, k_ptr, v_ptr, lengths_ptr, out_ptr, lse_ptr, D, scale, qb, qg, qh, qd, kb, kh, kn, kd, vb, vh, vn, vd, os, ob, og, oh,
            GROUP: tl.constexpr, ROWS: tl.constexpr, KEYS: tl.constexpr, DIMS: tl.constexpr):
    part = tl.program_id(0)
    group = tl.program_id(1)
    batch = tl.program_id(2)
    n = tl.load(lengths_ptr + batch)
    per = tl.cdiv(n, tl.num_programs(0))
    lo = tl.minimum(part * per, n)
    hi = tl.minimum(lo + per, n)
    row = tl.arange(0, ROWS)
    dim = tl.arange(0, DIMS)
    key = tl.arange(0, KEYS)
    valid = (row < GROUP)[:, None] & (dim < D)[None, :]
    q = tl.load(q_ptr + batch * qb + group * qg + row[:, None] * qh + dim[None, :] * qd, mask=valid, other=0.0)
    lse = tl.full([ROWS], -float("inf"), tl.float32)
    out = tl.zeros([ROWS, DIMS], tl.float32)
    for start in tl.range(lo, hi, KEYS):
        j = start + key
        inside = (j < hi)[:, None] & (dim < D)[None, :]
        k = tl.load(k_ptr + batch * kb + group * kh + j[:, None] * kn + dim[None, :] * kd, mask=inside, other=0.0)
        v = tl.load(v_ptr + batch * vb + group * vh + j[:, None] * vn + dim[None, :] * vd, mask=inside, other=0.0)
        qk = tl.where((j < hi)[None, :], tl.dot(q, k.T, input_precision="ieee") * scale, -float("inf"))
        top = tl.maximum(lse, tl.max(qk, 1))
        p = tl.exp(qk - top[:, None])
        old = tl.exp(lse - top)
        total = old + tl.sum(p, 1)
        out = (out * old[:, None] + tl.dot(p.to(v.dtype), v, input_precision="ieee")) / total[:, None]
        lse = top + tl.log(total)
    base = part * os + batch * ob + group * og
    tl.store(out_ptr + base + row[:, None] * oh + dim[None, :], out, mask=valid)
    tl.store(lse_ptr + (base + row * oh) // D, lse, mask=row < GROUP)

def split_kv_decode(q, k_cache, v_cache, lengths, num_splits, scale=None):
    B, H, D = q.shape
    H_KV = k_cache.shape[1]
    GROUP = H // H_KV
    outs = torch.empty((num_splits, B, H_KV, GROUP, D), dtype=torch.float32, device=q.device)
    lses = torch.empty((num_splits, B, H), dtype=torch.float32, device=q.device)
    qs = q.unflatten(1, (H_KV, GROUP))
    grouped[num_splits, H_KV, B](qs, k_cache, v_cache, lengths, outs, lses, D, scale or D ** -0.5, *qs.stride(), *k_cache.stride(),
        *v_cache.stride(), *outs.stride()[:4], GROUP=GROUP, ROWS=max(16, triton.next_power_of_2(GROUP)), KEYS=32,
        DIMS=max(16, triton.next_power_of_2(D)))
    return outs.view(num_splits, B, H, D), lses
""",
)

PER_HEAD = """\
@triton.jit
def per_head(q_ptr, k_ptr, v_ptr, n_ptr, o_ptr, l_ptr, H, G, D, scale, qb, qh, qd, kb, kh, kn, kd, vb, vh, vn, vd,
             TN: tl.constexpr, TD: tl.constexpr):
    s, h, b = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    d, n = tl.arange(0, TD), tl.arange(0, TN)
    q = tl.load(q_ptr + b * qb + h * qh + d * qd, mask=d < D, other=0.0)
    length = tl.load(n_ptr + b)
    chunk = tl.cdiv(length, tl.num_programs(0))
    first = s * chunk
    last = min(length, first + chunk)
    top = -float("inf")
    total = 0.0
    acc = tl.zeros([TD], tl.float32)
    for start in range(first, last, TN):
        inside = (start + n < last)[:, None] & (d < D)[None, :]
        k = tl.load(k_ptr + b * kb + h // G * kh + (start + n)[:, None] * kn + d[None, :] * kd, mask=inside, other=0.0)
        v = tl.load(v_ptr + b * vb + h // G * vh + (start + n)[:, None] * vn + d[None, :] * vd, mask=inside, other=0.0)
        x = tl.where(start + n < last, tl.sum(k.to(tl.float32) * q.to(tl.float32)[None, :], 1) * scale, -float("inf"))
        new = tl.maximum(top, tl.max(x, 0))
        p = tl.exp(x - new)
        acc = acc * tl.exp(top - new) + tl.sum(p[:, None] * v.to(tl.float32), 0)
        total = total * tl.exp(top - new) + tl.sum(p, 0)
        top = new
    safe = tl.where(total == 0.0, 1.0, total)
    row = (s * tl.num_programs(2) + b) * H + h
    tl.store(o_ptr + row * D + d, acc / safe, mask=d < D)
    tl.store(l_ptr + row, top + tl.log(safe))

def split_kv_decode(q, k_cache, v_cache, lengths, num_splits, scale=None):
    B, H, D = q.shape
    outs = torch.empty((num_splits, B, H, D), dtype=torch.float32, device=q.device)
    lses = torch.empty((num_splits, B, H), dtype=torch.float32, device=q.device)
    per_head[(num_splits, H, B)](q, k_cache, v_cache, lengths, outs, lses, H, H // k_cache.shape[1], D, D ** -0.5 if scale is None else scale,
        *q.stride(), *k_cache.stride(), *v_cache.stride(), TN=32, TD=max(16, triton.next_power_of_2(D)))
    return outs, lses
"""
