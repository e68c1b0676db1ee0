"""tiled_attention in other styles: each must pass."""

RIGHT = (
    """\
from course_lib.earlier import merge_states

def tiled_attention(q, k, v, mask=None, scale=None, tile=64):
    scale = scale if scale is not None else q.shape[-1] ** -0.5
    state = SoftmaxState(torch.full_like(q[..., 0], -torch.inf), torch.zeros_like(q[..., 0]), torch.zeros_like(q))
    for i in range(0, k.shape[-2], tile):
        s = (q * scale) @ k[..., i:i + tile, :].transpose(-1, -2)
        if mask is not None:
            s = torch.where(mask[..., i:i + tile], s, -torch.inf)
        m = s.amax(-1)
        p = torch.exp(s - m.nan_to_num(neginf=0.0)[..., None])
        state = merge_states(state, SoftmaxState(m, p.sum(-1), p @ v[..., i:i + tile, :]))
    return state.acc / state.row_sum.masked_fill(state.row_sum == 0, 1)[..., None]
""",
    """\
import math

def tiled_attention(q, k, v, mask=None, scale=None, tile=64):
    if scale is None:
        scale = 1 / math.sqrt(q.size(-1))
    m = torch.full(q.shape[:-1] + (1,), float('-inf'), dtype=q.dtype)
    l = torch.zeros_like(m)
    o = torch.zeros(q.shape, dtype=q.dtype)
    n = k.size(-2)
    for i in range(math.ceil(n / tile)):
        lo, hi = i * tile, min((i + 1) * tile, n)
        s = torch.einsum('...qd,...kd->...qk', q, k[..., lo:hi, :]) * scale
        if mask is not None:
            s = s.masked_fill(mask[..., lo:hi].logical_not(), float('-inf'))
        new = torch.max(m, s.max(-1, keepdim=True).values)
        safe = torch.where(new == float('-inf'), torch.zeros_like(new), new)
        alpha = (m - safe).exp()
        p = (s - safe).exp()
        l = alpha * l + p.sum(-1, keepdim=True)
        o = alpha * o + torch.einsum('...qk,...kd->...qd', p, v[..., lo:hi, :])
        m = new
    return torch.nan_to_num(o / l)
""",
    """\
def tiled_attention(q, k, v, mask=None, scale=None, tile=64):
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    q = q * (scale * 1.4426950408889634)
    m = q.new_full(q.shape[:-1], -1e30)
    l = q.new_zeros(q.shape[:-1])
    o = torch.zeros_like(q)
    masks = [None] * 10**4 if mask is None else mask.split(tile, -1)
    for kt, vt, mt in zip(k.split(tile, -2), v.split(tile, -2), masks):
        s = q @ kt.mT
        if mt is not None:
            s = s.masked_fill(~mt, -torch.inf)
        new = torch.maximum(m, s.amax(-1))
        p = torch.exp2(s - new[..., None])
        a = torch.exp2(m - new)
        l = l * a + p.sum(-1)
        o = o * a[..., None] + p @ vt
        m = new
    return o / l.clamp_min(1e-37)[..., None]
""",
    """\
def tiled_attention(q, k, v, mask=None, scale=None, tile=64):
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    out = torch.zeros_like(q)
    lse = torch.full(q.shape[:-1], -torch.inf, dtype=q.dtype)
    for i in range(0, k.shape[-2], tile):
        s = (q @ k[..., i:i + tile, :].mT).mul_(scale)
        if mask is not None:
            s[~mask[..., i:i + tile].expand_as(s)] = -torch.inf
        m = torch.maximum(lse, s.amax(-1)).nan_to_num(neginf=0.0)
        p = torch.exp(s - m[..., None])
        total = torch.exp(lse - m) + p.sum(-1)
        safe = torch.where(total == 0, 1.0, total)
        out = (out * torch.exp(lse - m)[..., None] + p @ v[..., i:i + tile, :]) / safe[..., None]
        lse = m + torch.log(total)
    return out
""",
)
