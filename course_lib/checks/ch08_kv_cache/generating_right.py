"""generate in other styles: each must pass."""

RIGHT = (
    """\
def generate(model, tokens, cache, max_new_tokens, eos=None, choose=None):
    choose = choose or (lambda x: x.argmax(-1))
    new = []
    logits = model(tokens, cache=cache)[:, -1] if max_new_tokens > 0 else None
    while len(new) < max_new_tokens:
        token = choose(logits)
        new.append(token)
        if token.item() == eos or len(new) == max_new_tokens:
            break
        logits = model(token.view(1, 1), cache=cache)[:, -1]
    return torch.cat((tokens, *[t.view(1, 1) for t in new]), dim=1)
""",
    """\
def generate(model, tokens, cache, max_new_tokens, eos=None, choose=None):
    out = tokens.tolist()[0]
    fresh = tokens
    for _ in range(max_new_tokens):
        logits = model(fresh, cache=cache)[:, -1, :]
        token = int(torch.argmax(logits)) if choose is None else int(choose(logits))
        out.append(token)
        if token == eos:
            break
        fresh = torch.tensor([[token]])
    return torch.tensor([out])
""",
    """\
def generate(model, tokens, cache, max_new_tokens, eos=None, choose=None):
    if choose is None:
        choose = lambda logits: logits.max(-1).indices
    n = tokens.shape[1]
    out = torch.zeros(1, n + max_new_tokens, dtype=torch.int64)
    out[:, :n] = tokens
    done, end = 0, n
    while end < n + max_new_tokens:
        logits = model(out[:, done:end], cache=cache)
        done = end
        out[:, end] = choose(logits[:, -1])
        end += 1
        if eos is not None and out[0, end - 1] == eos:
            break
    return out[:, :end].clone()
""",
    """\
def generate(model, tokens, cache, max_new_tokens, eos=None, choose=None):
    def pick(logits):
        return logits.argmax(-1) if choose is None else choose(logits)

    def write(step, left):
        if left == 0:
            return []
        token = pick(model(step, cache=cache)[:, -1])[:, None]
        return [token] if eos is not None and bool(token == eos) else [token, *write(token, left - 1)]

    return torch.cat([tokens, *write(tokens, max_new_tokens)], 1)
""",
    """\
def generate(model, tokens, cache, max_new_tokens, eos=None, choose=None):
    # reads the last token as well: a cache that holds the whole text can be written on from
    out = tokens.clone()
    if not max_new_tokens:
        return out
    logits = model(tokens, cache=cache)
    for n in range(max_new_tokens):
        token = (choose or torch.Tensor.argmax)(logits[:, -1]).reshape(1, 1)
        out = torch.cat((out, token), dim=-1)
        logits = model(token, cache=cache)
        if eos is not None and token.item() == eos:
            return out
    return out
""",
)
