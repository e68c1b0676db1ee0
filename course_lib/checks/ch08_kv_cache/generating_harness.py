"""What is called in the place of `generate` in the answer's process: a toy model whose next token depends on all that its cache holds.

Its text goes there whole; it imports nothing of the course.
"""

import torch


class Cache:
    """The tokens read so far, in order. It would take more than its room: what was read too often is said in words."""

    def __init__(self, capacity):
        self.capacity, self.tokens = capacity, []


class Model:
    """model(tokens [1, n], cache=cache) -> logits [1, n, V]; notes how many tokens each call had."""

    def __init__(self, table):
        self.table, self.calls = table, []  # table [2, V, V]

    def __call__(self, tokens, cache=None, **_):
        if not isinstance(tokens, torch.Tensor) or tokens.dim() != 2 or tokens.shape[0] != 1 or tokens.shape[1] < 1 or tokens.is_floating_point():
            said = f"{tokens.dtype} {list(tokens.shape)}" if isinstance(tokens, torch.Tensor) else type(tokens).__name__
            raise ValueError(f"model(tokens, cache=cache) takes whole numbers [1, n], n at least 1, and got {said}")
        held = cache.tokens if isinstance(cache, Cache) else []
        self.calls.append((tokens.shape[1], isinstance(cache, Cache)))
        rows = []
        for token in tokens[0].tolist():
            held.append(token)
            mixed = sum((place + 1) * (one + 3) for place, one in enumerate(held)) % self.table.shape[-1]
            rows.append(self.table[0, token] + self.table[1, mixed])
        return torch.stack(rows)[None]


class Choice:
    """choose(logits [1, V]) -> [1]: the token of that rank, another one at every call."""

    def __init__(self, rank, size):
        self.rank, self.size, self.calls, self.wrong = rank, size, 0, ""

    def __call__(self, logits):
        if not isinstance(logits, torch.Tensor) or list(logits.shape) != [1, self.size]:
            self.wrong = f"choose got logits {list(getattr(logits, 'shape', []))}, not [1, {self.size}]"
        self.calls += 1
        flat = torch.as_tensor(logits).reshape(-1, self.size)[-1]
        return flat.argsort(descending=True)[(self.rank + self.calls) % 3][None]


def run(subject, model, tokens, cache, max_new_tokens, eos=None, choose=None):
    """(form, tokens, work), the tokens in a row of fixed length. model: the table; cache: its room; choose: None or a rank."""
    made, room = Model(model), Cache(cache)
    given = {} if eos is None else {"eos": eos}
    choice = None if choose is None else Choice(choose, model.shape[-1])
    if choice is not None:
        given["choose"] = choice
    out = subject(made, tokens, room, max_new_tokens, **given)
    if not isinstance(out, torch.Tensor):
        return out
    return told(out, cache, work(made.calls, tokens.shape[1], out.numel() - tokens.shape[1], choice))


def told(out, room, work):
    """dtype and shape, the tokens padded with -1 to a length that does not depend on how many there are, and `work`."""
    row = torch.full((room + 2,), -1, device=out.device)
    row[: out.numel()] = out.reshape(-1)[: len(row)]
    return f"{str(out.dtype).removeprefix('torch.')} {list(out.shape)}", row, work


def work(calls, prompt, written, choice):
    """What the model was asked to read, in words."""
    counts = [count for count, _ in calls]
    if not all(cached for _, cached in calls):
        return "the model was called without the cache"
    if counts and counts[0] != prompt:
        return "the first call did not read the whole prompt"
    if any(count != 1 for count in counts[1:]):
        return "a later call read more than one token"
    if sum(counts) > prompt + written:
        return "the model read on after the end"
    if choice is not None and choice.wrong:
        return choice.wrong
    if choice is not None and choice.calls != written:
        return f"choose was called {choice.calls} times for {written} tokens"
    return "each token once"
