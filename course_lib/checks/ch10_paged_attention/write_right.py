"""write_kv in other styles, each of which must pass."""

RIGHT = (
    """\
@triton.jit
def one_row(k_ptr, v_ptr, kc_ptr, vc_ptr, s_ptr, kt, kh, kd, vt, vh, vd, kb, kn, kch, kcd, vb, vn, vch, vcd, SIZE, D: tl.constexpr, P: tl.constexpr):
    t, h = tl.program_id(0), tl.program_id(1)
    slot = tl.load(s_ptr + t)
    if slot >= 0:
        d = tl.arange(0, P)
        k = tl.load(k_ptr + t * kt + h * kh + d * kd, mask=d < D)
        v = tl.load(v_ptr + t * vt + h * vh + d * vd, mask=d < D)
        block, place = slot // SIZE, slot % SIZE
        tl.store(kc_ptr + block * kb + place * kn + h * kch + d * kcd, k, mask=d < D)
        tl.store(vc_ptr + block * vb + place * vn + h * vch + d * vcd, v, mask=d < D)

def write_kv(k, v, k_cache, v_cache, slots):
    T, H_KV, D = k.shape
    one_row[(T, H_KV)](k, v, k_cache, v_cache, slots, *k.stride(), *v.stride(), *k_cache.stride(), *v_cache.stride(), k_cache.shape[1], D,
        triton.next_power_of_2(D))
""",
    """\
@triton.jit
def whole_token(src_k, src_v, dst_k, dst_v, slots, HEADS, D, SIZE, a0, a1, a2, b0, b1, b2, c0, c1, c2, c3, e0, e1, e2, e3, PH: tl.constexpr, PD: tl.constexpr):
    t = tl.program_id(0)
    slot = tl.load(slots + t)
    h, d = tl.arange(0, PH)[:, None], tl.arange(0, PD)[None, :]
    keep = (h < HEADS) & (d < D) & (slot >= 0)
    x = tl.load(src_k + t * a0 + h * a1 + d * a2, mask=keep, other=0.0)
    y = tl.load(src_v + t * b0 + h * b1 + d * b2, mask=keep, other=0.0)
    tl.store(dst_k + slot // SIZE * c0 + slot % SIZE * c1 + h * c2 + d * c3, x, mask=keep)
    tl.store(dst_v + slot // SIZE * e0 + slot % SIZE * e1 + h * e2 + d * e3, y, mask=keep)

def write_kv(k, v, k_cache, v_cache, slots):
    (T, H_KV, D), SIZE = k.shape, k_cache.shape[1]
    whole_token[(T,)](k, v, k_cache, v_cache, slots, H_KV, D, SIZE, *k.stride(), *v.stride(), *k_cache.stride(), *v_cache.stride(),
        PH=triton.next_power_of_2(H_KV), PD=triton.next_power_of_2(D))
""",
    """\
@triton.jit
def k_or_v(k_ptr, v_ptr, kc_ptr, vc_ptr, slots_ptr, T, SIZE, D, kt, kh, kd, vt, vh, vd, kb, kn, kch, kcd, vb, vn, vch, vcd, TOKENS: tl.constexpr, P: tl.constexpr):
    h = tl.program_id(1)
    t = tl.program_id(0) * TOKENS + tl.arange(0, TOKENS)
    slot = tl.load(slots_ptr + t, mask=t < T, other=-1)
    d = tl.arange(0, P)
    on = (slot > -1)[:, None] & (d < D)[None, :]
    block = slot // SIZE
    place = slot - block * SIZE
    if tl.program_id(2) == 0:
        x = tl.load(k_ptr + t[:, None] * kt + h * kh + d[None, :] * kd, mask=on)
        tl.store(kc_ptr + (block * kb + place * kn)[:, None] + h * kch + d[None, :] * kcd, x, mask=on)
    else:
        x = tl.load(v_ptr + t[:, None] * vt + h * vh + d[None, :] * vd, mask=on)
        tl.store(vc_ptr + (block * vb + place * vn)[:, None] + h * vch + d[None, :] * vcd, x, mask=on)

def write_kv(k, v, k_cache, v_cache, slots):
    T, H_KV, D = k.shape
    k_or_v[(triton.cdiv(T, 8), H_KV, 2)](k, v, k_cache, v_cache, slots, T, k_cache.shape[1], D, *k.stride(), *v.stride(), *k_cache.stride(),
        *v_cache.stride(), TOKENS=8, P=triton.next_power_of_2(D))
""",
)
