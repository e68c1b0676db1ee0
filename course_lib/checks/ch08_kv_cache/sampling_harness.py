"""What is called in the place of `sample_token` in the answer's process: every u of a grid at once, and the law that comes out.

Its text goes there whole; it imports nothing of the course.
"""

import torch


def run(subject, logits, u, temperature=1.0, top_k=None, top_p=1.0, edges=False):
    """(form, law): dtype and shape of what came back, and how often each token came, [R, V]. edges: the tokens themselves."""
    R, V = logits.shape
    G = len(u)
    rows, draws = logits.repeat_interleave(G, dim=0), u.repeat(R)
    kept = rows.clone()
    given = {
        name: value for name, value, usual in (("temperature", temperature, 1.0), ("top_k", top_k, None), ("top_p", top_p, 1.0)) if value != usual
    }
    tokens = subject(rows, draws, **given)
    if edges or not isinstance(tokens, torch.Tensor):
        return tokens
    law = torch.zeros(R, V, device=logits.device)
    form = f"{str(tokens.dtype).removeprefix('torch.')} {list(tokens.shape)}"
    if form != f"int64 [{R * G}]":
        return form, law
    if not torch.equal(rows, kept):
        return f"{form}, and the logits were changed", law
    if bool(((tokens < 0) | (tokens >= V)).any()):
        return f"{form}, with tokens outside 0 to {V - 1}", law
    few = slice(None, None, max(1, R * G // 60))
    if not torch.equal(tokens[few], subject(rows[few], draws[few], **given)):
        return f"{form}, and other tokens for the same u when asked again", law
    ones = torch.nn.functional.one_hot(tokens.view(R, G), V)
    return form, ones.float().mean(dim=1)
