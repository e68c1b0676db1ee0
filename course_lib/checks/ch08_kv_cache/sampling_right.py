"""sample_token in other styles: each must pass. They draw in different orders; the law is the same."""

RIGHT = (
    """\
def sample_token(logits, u, temperature=1.0, top_k=None, top_p=1.0):
    if temperature == 0:
        return torch.argmax(logits, -1)
    scores = logits / temperature
    if top_k is not None:
        k = min(top_k, scores.shape[1])
        scores = torch.where(scores < torch.topk(scores, k).values.amin(-1, keepdim=True), -torch.inf, scores)
    out = []
    for p, draw in zip(torch.softmax(scores, -1).double().tolist(), u.tolist()):
        total, kept = 0.0, []
        for token in sorted(range(len(p)), key=lambda t: -p[t]):
            if (kept and total >= top_p) or p[token] == 0:
                break
            kept.append(token)
            total += p[token]
        walked, chosen = 0.0, kept[-1]
        for token in kept:
            walked += p[token] / total
            if draw < walked:
                chosen = token
                break
        out.append(chosen)
    return torch.tensor(out)
""",
    """\
def sample_token(logits, u, temperature=1.0, top_k=None, top_p=1.0):
    if temperature == 0:
        return logits.max(dim=-1).indices
    x = logits.double() / temperature
    if top_k is not None and top_k < x.size(-1):
        x = x.masked_fill(x < torch.sort(x, descending=True).values[:, top_k - 1, None], float('-inf'))
    p = torch.softmax(x, dim=-1)
    down, ids = torch.sort(p, dim=-1, descending=True, stable=True)
    crossed = torch.cumsum(down, -1) >= top_p
    crossed = torch.cat((torch.zeros_like(crossed[:, :1]), crossed[:, :-1]), -1)
    p = p * torch.zeros_like(p).scatter(-1, ids, (~crossed).double())
    cdf = torch.cumsum(p / p.sum(-1, keepdim=True), -1)
    cdf = cdf / cdf[:, -1:]
    return torch.searchsorted(cdf, u.double()[:, None], right=True)[:, 0]
""",
    """\
def sample_token(logits, u, temperature=1.0, top_k=None, top_p=1.0):
    if temperature == 0:
        return logits.argmax(-1)
    up, ids = (logits / temperature).sort(-1)  # ascending
    V = up.shape[-1]
    if top_k is not None and top_k < V:
        up = up.masked_fill(up < up[:, V - top_k, None], -torch.inf)
    p = up.softmax(-1)
    after = p.flip(-1).cumsum(-1).flip(-1) - p
    p = torch.where((after < top_p) | (torch.arange(V) == V - 1), p, 0.0)
    cdf = p.cumsum(-1)
    index = (cdf <= (u * cdf[:, -1])[:, None]).sum(-1).clamp(max=V - 1)
    return ids[torch.arange(len(ids)), index]
""",
)
