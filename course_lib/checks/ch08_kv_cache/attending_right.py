"""attend_with_cache in other styles: each must pass."""

RIGHT = (
    """\
def attend_with_cache(q, k_new, v_new, k_cache, v_cache, lengths):
    n = q.shape[2]
    for held in lengths.tolist():
        if held + n > k_cache.shape[2]:
            raise ValueError("the cache is full")
    out = torch.empty_like(q)
    for b, held in enumerate(lengths.tolist()):
        end = held + n
        k_cache[b, :, held:end] = k_new[b]
        v_cache[b, :, held:end] = v_new[b]
        keep = torch.ones(n, end, dtype=torch.bool).tril(held)
        out[b] = torch.nn.functional.scaled_dot_product_attention(
            q[b:b + 1], k_cache[b:b + 1, :, :end], v_cache[b:b + 1, :, :end], attn_mask=keep, enable_gqa=True)[0]
    return out
""",
    """\
from course_lib.earlier import attention, expand_kv_heads

def attend_with_cache(q, k_new, v_new, k_cache, v_cache, lengths):
    b, h, n, d = q.shape
    room = k_cache.shape[2]
    if (lengths + n > room).any():
        raise ValueError(f"{n} tokens do not fit behind {lengths.tolist()} in {room} slots")
    place = lengths[:, None].long() + torch.arange(n)
    index = place[:, None, :, None].expand_as(k_new)
    k_cache.scatter_(2, index, k_new)
    v_cache.scatter_(2, index, v_new)
    mask = torch.arange(room)[None, None, None, :] <= place[:, None, :, None]
    return attention(q, expand_kv_heads(k_cache, h), expand_kv_heads(v_cache, h), mask)
""",
    """\
import math

def attend_with_cache(q, k_new, v_new, k_cache, v_cache, lengths):
    B, H, N, D = q.shape
    group = H // k_cache.size(1)
    longest = int(lengths.max()) + N
    if longest > k_cache.size(2):
        raise ValueError("no room")
    for b in range(B):
        at = slice(int(lengths[b]), int(lengths[b]) + N)
        k_cache[b, :, at].copy_(k_new[b])
        v_cache[b, :, at].copy_(v_new[b])
    k = k_cache[:, :, :longest].repeat_interleave(group, dim=1)
    v = v_cache[:, :, :longest].repeat_interleave(group, dim=1)
    s = torch.einsum('bhqd,bhkd->bhqk', q, k) / math.sqrt(D)
    bias = torch.zeros(B, 1, N, longest, dtype=q.dtype)
    for b in range(B):
        for i in range(N):
            bias[b, 0, i, int(lengths[b]) + i + 1:] = -math.inf
    return torch.einsum('bhqk,bhkd->bhqd', (s + bias).softmax(-1), v)
""",
    """\
def attend_with_cache(q, k_new, v_new, k_cache, v_cache, lengths):
    if int(lengths.max()) + q.shape[2] > k_cache.shape[2]:
        raise ValueError("too long")
    rows = []
    for b in range(q.shape[0]):
        n = int(lengths[b])
        old_k, old_v = k_cache[b, :, :n].clone(), v_cache[b, :, :n].clone()
        k_cache[b, :, n:n + q.shape[2]] = k_new[b]
        v_cache[b, :, n:n + q.shape[2]] = v_new[b]
        heads = []
        for h in range(q.shape[1]):
            kv = h * k_cache.shape[1] // q.shape[1]
            k, v = torch.cat((old_k[kv], k_new[b, kv])), torch.cat((old_v[kv], v_new[b, kv]))
            s = q[b, h] @ k.T * q.shape[3] ** -0.5
            hidden = torch.arange(len(k))[None] > n + torch.arange(q.shape[2])[:, None]
            heads.append(s.masked_fill(hidden, float('-inf')).softmax(-1) @ v)
        rows.append(torch.stack(heads))
    return torch.stack(rows)
""",
)
