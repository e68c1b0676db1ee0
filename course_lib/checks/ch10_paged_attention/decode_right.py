"""paged_decode in other styles, each of which must pass."""

RIGHT = (
    """\
@triton.jit
def block_by_block(q_ptr, k_ptr, v_ptr, t_ptr, n_ptr, o_ptr, H_KV, D, scale, qb, qh, qd, kb, kn, kh, kd, vb, vn, vh, vd, tb, tn, ob, oh, od,
        GROUP: tl.constexpr, BLOCK: tl.constexpr, PAD_G: tl.constexpr, PAD_D: tl.constexpr):
    b, h = tl.program_id(0) // H_KV, tl.program_id(0) % H_KV
    length = tl.load(n_ptr + b)
    g = tl.arange(0, PAD_G)[:, None]
    d = tl.arange(0, PAD_D)[None, :]
    ok = (g < GROUP) & (d < D)
    q = tl.load(q_ptr + b * qb + (h * GROUP + g) * qh + d * qd, mask=ok, other=0.0) * scale
    top = tl.full([PAD_G], -float("inf"), tl.float32)
    total = tl.zeros([PAD_G], tl.float32)
    acc = tl.zeros([PAD_G, PAD_D], tl.float32)
    n = tl.arange(0, BLOCK)[:, None]
    for i in range(0, tl.cdiv(length, BLOCK)):
        block = tl.load(t_ptr + b * tb + i * tn).to(tl.int64)
        left = length - i * BLOCK
        inside = (n < left) & (d < D)
        k = tl.load(k_ptr + block * kb + n * kn + h * kh + d * kd, mask=inside, other=0.0)
        v = tl.load(v_ptr + block * vb + n * vn + h * vh + d * vd, mask=inside, other=0.0)
        s = tl.sum(q[:, None, :] * k[None, :, :], axis=2)
        s = tl.where(tl.arange(0, BLOCK)[None, :] < left, s, -float("inf"))
        new = tl.maximum(top, tl.max(s, axis=1))
        p, a = tl.exp(s - new[:, None]), tl.exp(top - new)
        acc = acc * a[:, None] + tl.sum(p[:, :, None] * v[None, :, :], axis=1)
        total = total * a + tl.sum(p, axis=1)
        top = new
    tl.store(o_ptr + b * ob + (h * GROUP + g) * oh + d * od, acc / tl.where(total > 0, total, 1.0)[:, None], mask=ok)

def paged_decode(q, k_cache, v_cache, block_tables, lengths, scale=None):
    B, H, D = q.shape
    BLOCK, H_KV = k_cache.shape[1], k_cache.shape[2]
    out = torch.empty(B, H, D, dtype=q.dtype, device=q.device)
    block_by_block[(B * H_KV,)](q, k_cache, v_cache, block_tables, lengths, out, H_KV, D, scale or 1 / D ** 0.5, *q.stride(), *k_cache.stride(),
        *v_cache.stride(), *block_tables.stride(), *out.stride(), GROUP=H // H_KV, BLOCK=BLOCK, PAD_G=triton.next_power_of_2(H // H_KV),
        PAD_D=triton.next_power_of_2(D))
    return out
""",
    """\
@triton.jit
def by_slots(q_ptr, k_ptr, v_ptr, t_ptr, n_ptr, o_ptr, G, SIZE, D, scale, qb, qh, qd, kb, kn, kh, kd, vb, vn, vh, vd, tb, tn,
        ROWS: tl.constexpr, KEYS: tl.constexpr, WIDE: tl.constexpr):
    request, head = tl.program_id(1), tl.program_id(0)
    count = tl.load(n_ptr + request)
    r, j, d = tl.arange(0, ROWS), tl.arange(0, KEYS), tl.arange(0, WIDE)
    keep = (r[:, None] < G) & (d[None, :] < D)
    q = tl.load(q_ptr + request * qb + (head * G + r)[:, None] * qh + d[None, :] * qd, mask=keep, other=0)
    m = tl.full([ROWS, 1], -1e30, tl.float32)
    l = tl.zeros([ROWS, 1], tl.float32)
    acc = tl.zeros([ROWS, WIDE], tl.float32)
    start = 0
    while start < count:
        pos = start + j
        there = pos < count
        entry = pos // SIZE
        named = tl.load(t_ptr + request * tb + entry * tn, mask=there, other=0)
        place = pos - entry * SIZE
        kt = tl.load(k_ptr + named[None, :].to(tl.int64) * kb + place[None, :] * kn + head * kh + d[:, None] * kd,
            mask=there[None, :] & (d[:, None] < D), other=0.0)
        v = tl.load(v_ptr + named[:, None].to(tl.int64) * vb + place[:, None] * vn + head * vh + d[None, :] * vd,
            mask=there[:, None] & (d[None, :] < D), other=0.0)
        s = tl.dot(q, kt, input_precision="ieee") * (scale * 1.4426950408889634)
        s += tl.where(there, 0.0, -1e30)[None, :]
        new = tl.maximum(m, tl.max(s, 1, keep_dims=True))
        p = tl.where(there[None, :], tl.exp2(s - new), 0.0)
        old = tl.exp2(m - new)
        l = l * old + tl.sum(p, 1, keep_dims=True)
        acc = tl.dot(p, v, acc * old, input_precision="ieee")
        m = new
        start += KEYS
    l = tl.where(l == 0, 1, l)
    tl.store(o_ptr + (request * tl.num_programs(0) * G + (head * G + r)[:, None]) * D + d[None, :], acc / l, mask=keep)

def paged_decode(q, k_cache, v_cache, block_tables, lengths, scale=None):
    (B, H, D), (_, SIZE, H_KV, _) = q.shape, k_cache.shape
    if scale is None:
        scale = D ** -0.5
    out = q.new_empty((B, H, D))
    grid = lambda meta: (H_KV, B)
    by_slots[grid](q, k_cache, v_cache, block_tables, lengths, out, H // H_KV, SIZE, D, scale, *q.stride(), *k_cache.stride(), *v_cache.stride(),
        *block_tables.stride(), ROWS=16, KEYS=16, WIDE=max(16, triton.next_power_of_2(D)))
    return out
""",
    """\
@triton.jit
def backwards(q_ptr, k_ptr, v_ptr, t_ptr, n_ptr, o_ptr, G: tl.constexpr, B_SIZE: tl.constexpr, D: tl.constexpr, scale, qb, qh, qd, kb, kn, kh, kd,
        vb, vh, vn, vd, tb, tn, ob, oh, od, M: tl.constexpr, N: tl.constexpr, P: tl.constexpr):
    b = tl.program_id(0)
    h = tl.program_id(1)
    rows, keys, dims = tl.arange(0, M), tl.arange(0, N), tl.arange(0, P)
    heads = h * G + rows
    mine = (rows < G)[:, None] & (dims < D)[None, :]
    q = tl.load(q_ptr + b * qb + heads[:, None] * qh + dims[None, :] * qd, mask=mine, other=0.0)
    length = tl.load(n_ptr + b)
    lse = tl.full([M], -float("inf"), tl.float32)
    out = tl.zeros([M, P], tl.float32)
    for tile in range(tl.cdiv(length, N) - 1, -1, -1):
        at = tile * N + keys
        inside = at < length
        block = tl.load(t_ptr + b * tb + (at // B_SIZE) * tn, mask=inside, other=0).to(tl.int64)
        k_at = block * kb + (at % B_SIZE) * kn + h * kh
        v_at = block * vb + (at % B_SIZE) * vn + h * vh
        k = tl.load(k_ptr + k_at[:, None] + dims[None, :] * kd, mask=inside[:, None] & (dims < D)[None, :], other=0.0)
        v = tl.load(v_ptr + v_at[:, None] + dims[None, :] * vd, mask=inside[:, None] & (dims < D)[None, :], other=0.0)
        s = tl.where(inside[None, :], tl.dot(q, tl.trans(k), input_precision="ieee") * scale, -float("inf"))
        top = tl.maximum(lse, tl.max(s, 1))
        p = tl.exp(s - top[:, None])
        old = tl.exp(lse - top)
        total = old + tl.sum(p, 1)
        out = (out * old[:, None] + tl.dot(p, v, input_precision="ieee")) / total[:, None]
        lse = top + tl.log(total)
    tl.store(o_ptr + b * ob + heads[:, None] * oh + dims[None, :] * od, out.to(o_ptr.dtype.element_ty), mask=mine)

def paged_decode(q, k_cache, v_cache, block_tables, lengths, scale=None):
    B, H, D = q.shape
    H_KV = k_cache.shape[2]
    out = torch.zeros((B, H, D), dtype=q.dtype, device=q.device)
    vb, vn, vh, vd = v_cache.stride()
    backwards[(B, H_KV)](q, k_cache, v_cache, block_tables, lengths, out, H // H_KV, k_cache.shape[1], D, D ** -0.5 if scale is None else scale,
        *q.stride(), *k_cache.stride(), vb, vh, vn, vd, *block_tables.stride(), *out.stride(), M=16, N=64, P=max(16, triton.next_power_of_2(D)))
    return out
""",
)
