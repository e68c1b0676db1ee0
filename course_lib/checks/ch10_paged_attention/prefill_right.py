"""paged_prefill in other styles, each of which must pass."""

RIGHT = (
    """\
@triton.jit
def head_major(q_ptr, k_ptr, v_ptr, t_ptr, cu_ptr, n_ptr, o_ptr, G, SIZE, D, scale, qt, qh, qd, kb, kn, kh, kd, vb, vn, vh, vd, tb, tn, ot, oh, od,
        QUERIES: tl.constexpr, PAD_G: tl.constexpr, KEYS: tl.constexpr, WIDE: tl.constexpr):
    b, h = tl.program_id(2), tl.program_id(1)
    begin, stop = tl.load(cu_ptr + b), tl.load(cu_ptr + b + 1)
    first = tl.program_id(0) * QUERIES
    if begin + first < stop:
        length = tl.load(n_ptr + b)
        lane = tl.arange(0, PAD_G * QUERIES)
        g, i = lane // QUERIES, first + lane % QUERIES
        d, j = tl.arange(0, WIDE), tl.arange(0, KEYS)
        ok = ((g < G) & (begin + i < stop))[:, None] & (d < D)[None, :]
        q = tl.load(q_ptr + (begin + i)[:, None] * qt + (h * G + g)[:, None] * qh + d[None, :] * qd, mask=ok, other=0.0)
        sees = length - (stop - begin) + i
        end = min(length, length - (stop - begin) + first + QUERIES)
        m = tl.full([PAD_G * QUERIES], -float("inf"), tl.float32)
        l = tl.zeros([PAD_G * QUERIES], tl.float32)
        acc = tl.zeros([PAD_G * QUERIES, WIDE], tl.float32)
        for start in range(0, end, KEYS):
            at = start + j
            block = tl.load(t_ptr + b * tb + at // SIZE * tn, mask=at < end, other=0).to(tl.int64)
            inside = (at < end)[:, None] & (d < D)[None, :]
            k = tl.load(k_ptr + (block * kb + at % SIZE * kn + h * kh)[:, None] + d[None, :] * kd, mask=inside, other=0.0)
            v = tl.load(v_ptr + (block * vb + at % SIZE * vn + h * vh)[:, None] + d[None, :] * vd, mask=inside, other=0.0)
            s = tl.dot(q, k.T, input_precision="ieee") * scale
            s = tl.where(at[None, :] > sees[:, None], -float("inf"), s)
            s = tl.where((at < end)[None, :], s, -float("inf"))
            new = tl.maximum(m, tl.max(s, 1))
            p, a = tl.exp(s - new[:, None]), tl.exp(m - new)
            l = l * a + tl.sum(p, 1)
            acc = acc * a[:, None] + tl.dot(p, v, input_precision="ieee")
            m = new
        tl.store(o_ptr + (begin + i)[:, None] * ot + (h * G + g)[:, None] * oh + d[None, :] * od, acc / l[:, None], mask=ok)

def paged_prefill(q, k_cache, v_cache, block_tables, cu_q, lengths, max_q, scale=None):
    (T, H, D), (SIZE, H_KV) = q.shape, k_cache.shape[1:3]
    G = H // H_KV
    out = torch.empty((T, H, D), dtype=q.dtype, device=q.device)
    pad = triton.next_power_of_2(G)
    queries = max(1, 32 // pad)
    head_major[(triton.cdiv(max_q, queries), H_KV, len(lengths))](q, k_cache, v_cache, block_tables, cu_q, lengths, out, G, SIZE, D,
        D ** -0.5 if scale is None else scale, *q.stride(), *k_cache.stride(), *v_cache.stride(), *block_tables.stride(), *out.stride(),
        QUERIES=queries, PAD_G=pad, KEYS=16, WIDE=max(16, triton.next_power_of_2(D)))
    return out
""",
    """\
@triton.jit
def one_axis(q_ptr, k_ptr, v_ptr, t_ptr, cu_ptr, n_ptr, o_ptr, H_KV, TILES, SIZE, D, scale, qt, qh, qd, kb, kn, kh, kd, vb, vn, vh, vd, tb, tn,
        G: tl.constexpr, M: tl.constexpr, N: tl.constexpr, P: tl.constexpr):
    pid = tl.program_id(0)
    tile, h, b = pid % TILES, pid // TILES % H_KV, pid // (TILES * H_KV)
    begin = tl.load(cu_ptr + b)
    n = tl.load(cu_ptr + b + 1) - begin
    past = tl.load(n_ptr + b) - n
    r = tile * M + tl.arange(0, M)[:, None]
    i, head = r // G, h * G + r % G
    d, j = tl.arange(0, P)[None, :], tl.arange(0, N)
    mine = (r < n * G) & (d < D)
    q = tl.load(q_ptr + (begin + i) * qt + head * qh + d * qd, mask=mine, other=0.0) * (scale * 1.4426950408889634)
    top = tl.full([M, 1], -1e30, tl.float32)
    total = tl.zeros([M, 1], tl.float32)
    acc = tl.zeros([M, P], tl.float32)
    last = tl.minimum((tile * M + M - 1) // G, n - 1) + past
    start = tl.where(tile * M < n * G, 0, last + 1)
    while start <= last:
        at = start + j
        there = at <= last
        block = tl.load(t_ptr + b * tb + at // SIZE * tn, mask=there, other=0).to(tl.int64)[:, None]
        k = tl.load(k_ptr + block * kb + (at % SIZE)[:, None] * kn + h * kh + d * kd, mask=there[:, None] & (d < D), other=0.0)
        v = tl.load(v_ptr + block * vb + (at % SIZE)[:, None] * vn + h * vh + d * vd, mask=there[:, None] & (d < D), other=0.0)
        s = tl.dot(q, tl.trans(k), input_precision="ieee")
        seen = there[None, :] & (at[None, :] - past <= i)
        new = tl.maximum(top, tl.max(tl.where(seen, s, -1e30), 1, keep_dims=True))
        p = tl.where(seen, tl.exp2(s - new), 0.0)
        old = tl.exp2(top - new)
        total = total * old + tl.sum(p, 1, keep_dims=True)
        acc = tl.dot(p, v, acc * old, input_precision="ieee")
        top = new
        start += N
    tl.store(o_ptr + ((begin + i) * H_KV * G + head) * D + d, acc / tl.where(total == 0.0, 1.0, total), mask=mine)

def paged_prefill(q, k_cache, v_cache, block_tables, cu_q, lengths, max_q, scale=None):
    T, H, D = q.shape
    _, SIZE, H_KV, _ = k_cache.shape
    out = torch.zeros(T, H, D, dtype=q.dtype, device=q.device)
    tiles = triton.cdiv(max_q * (H // H_KV), 16)
    one_axis[(tiles * H_KV * lengths.shape[0],)](q, k_cache, v_cache, block_tables, cu_q, lengths, out, H_KV, tiles, SIZE, D, scale or D ** -0.5,
        *q.stride(), *k_cache.stride(), *v_cache.stride(), *block_tables.stride(), G=H // H_KV, M=16, N=64, P=max(16, triton.next_power_of_2(D)))
    return out
""",
    """\
@triton.jit
def backwards(q_ptr, k_ptr, v_ptr, t_ptr, cu_ptr, n_ptr, o_ptr, GROUP, BLOCK: tl.constexpr, D: tl.constexpr, scale, qt, qh, qd, kb, kn, kh, kd,
        vb, vn, vh, vd, tb, tn, ot, oh, od, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr):
    b = tl.program_id(1)
    h = tl.program_id(2)
    begin = tl.load(cu_ptr + b)
    n = tl.load(cu_ptr + b + 1) - begin
    length = tl.load(n_ptr + b)
    packed = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    queries, heads = packed // GROUP, h * GROUP + packed % GROUP
    dims, keys = tl.arange(0, BLOCK_D), tl.arange(0, BLOCK_N)
    mine = (queries < n)[:, None] & (dims < D)[None, :]
    q = tl.load(q_ptr + (begin + queries)[:, None] * qt + heads[:, None] * qh + dims[None, :] * qd, mask=mine, other=0.0)
    end = length - n + (tl.program_id(0) * BLOCK_M + BLOCK_M - 1) // GROUP + 1
    end = tl.minimum(end, length)
    end = tl.where(tl.program_id(0) * BLOCK_M < n * GROUP, end, 0)
    row_max = tl.full([BLOCK_M], -float("inf"), tl.float32)
    row_sum = tl.zeros([BLOCK_M], tl.float32)
    acc = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)
    for tile in range(tl.cdiv(end, BLOCK_N) - 1, -1, -1):
        at = tile * BLOCK_N + keys
        block = tl.load(t_ptr + b * tb + at // BLOCK * tn, mask=at < end, other=0).to(tl.int64)
        where = (at < end)[:, None] & (dims < D)[None, :]
        k = tl.load(k_ptr + (block * kb + at % BLOCK * kn)[:, None] + h * kh + dims[None, :] * kd, mask=where, other=0.0)
        v = tl.load(v_ptr + (block * vb + at % BLOCK * vn)[:, None] + h * vh + dims[None, :] * vd, mask=where, other=0.0)
        visible = (at[None, :] <= length - n + queries[:, None]) & (at < end)[None, :]
        s = tl.where(visible, tl.dot(q, k.T, input_precision="ieee") * scale, -float("inf"))
        new_max = tl.maximum(row_max, tl.max(s, axis=1))
        base = tl.where(new_max == -float("inf"), 0.0, new_max)
        p = tl.exp(s - base[:, None])
        rescale = tl.exp(row_max - base)
        row_sum = row_sum * rescale + tl.sum(p, axis=1)
        acc = acc * rescale[:, None] + tl.dot(p, v, input_precision="ieee")
        row_max = new_max
    out = acc / tl.where(row_sum > 0, row_sum, 1.0)[:, None]
    tl.store(o_ptr + (begin + queries)[:, None] * ot + heads[:, None] * oh + dims[None, :] * od, out, mask=mine)

def paged_prefill(q, k_cache, v_cache, block_tables, cu_q, lengths, max_q, scale=None):
    T, H, D = q.shape
    H_KV = k_cache.shape[2]
    out = q.new_empty(T, H, D)
    grid = (triton.cdiv(max_q * H // H_KV, 64), lengths.shape[0], H_KV)
    backwards[grid](q, k_cache, v_cache, block_tables, cu_q, lengths, out, H // H_KV, k_cache.shape[1], D, D ** -0.5 if scale is None else scale,
        *q.stride(), *k_cache.stride(), *v_cache.stride(), *block_tables.stride(), *out.stride(), BLOCK_M=64, BLOCK_N=16,
        BLOCK_D=max(16, triton.next_power_of_2(D)))
    return out
""",
)
