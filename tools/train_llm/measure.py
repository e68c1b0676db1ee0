"""What the two trained models are worth: text they write, and how many of the draft's tokens the target accepts. No cache: short and plain."""

import torch
from torch import Tensor

from course_lib.llm.model import Llama

PROMPTS = (
    "# json/decoder.py\n",
    "import os\nimport sys\n\n\ndef main():\n",
    "class Stack:\n    def __init__(self):\n        self.items = []\n\n    def push(self, item):\n",
    'def read_lines(path):\n    """Return the lines of a file."""\n    with open(',
    "    def test_add(self):\n        self.assert",
    "try:\n    value = int(text)\nexcept ",
)


def distribution(logits: Tensor, temperature: float) -> Tensor:
    """Probabilities in float32; temperature 0 puts everything on the largest logit."""
    if temperature:
        return (logits.float() / temperature).softmax(-1)
    return torch.zeros_like(logits, dtype=torch.float32).scatter_(-1, logits.argmax(-1, keepdim=True), 1.0)


@torch.no_grad()
def write(model: Llama, prompts: Tensor, tokens: int, temperature: float, seed: int = 0) -> Tensor:
    """Continue prompts [B, N] by `tokens` tokens: [B, N + tokens]. The context is the last max_positions tokens."""
    generator = torch.Generator(prompts.device).manual_seed(seed)
    text = prompts
    for _ in range(tokens):
        p = distribution(model(text[:, -model.config.max_positions :])[:, -1], temperature)
        text = torch.cat((text, torch.multinomial(p, 1, generator=generator)), dim=1)
    return text


@torch.no_grad()
def acceptance(target: Llama, draft: Llama, prompts: Tensor, tokens: int, length: int, temperature: float, seed: int = 0) -> dict:
    """Speculative decoding itself, on prompts [B, N], until each has `tokens` more: the share accepted, and tokens a round.

    Each round the draft proposes `length` tokens, x from q; the target accepts x with probability min(1, p(x) / q(x)), stops at the first refusal.
    """
    B, N = prompts.shape
    device = prompts.device
    generator = torch.Generator(device).manual_seed(seed)
    text = torch.cat((prompts, prompts.new_zeros(B, tokens + 2 * length + 2)), dim=1)
    at = torch.full((B,), N, device=device)  # where the next token goes
    rows = torch.arange(B, device=device)
    proposed = accepted = rounds = 0
    while True:
        live = at < N + tokens
        if not live.any():
            break
        start, q_all = at.clone(), []
        for i in range(length):
            q = distribution(draft(text[:, : int(at.max()) + i])[rows, at + i - 1], temperature)
            q_all.append(q)
            text[rows, at + i] = torch.multinomial(q, 1, generator=generator)[:, 0]
        places = start[:, None] + torch.arange(-1, length, device=device)  # the rows that judge each proposal, and one more
        p_all = distribution(target(text[:, : int(start.max()) + length])[rows[:, None], places], temperature)  # [B, length + 1, V]
        q_all = torch.stack(q_all, dim=1)
        guesses = text.gather(1, start[:, None] + torch.arange(length, device=device))
        p, q = p_all[:, :-1].gather(2, guesses[..., None])[..., 0], q_all.gather(2, guesses[..., None])[..., 0]
        ok = torch.rand(p.shape, device=device, generator=generator) * q < p
        run = ok.long().cumprod(dim=1).sum(dim=1)  # accepted before the first refusal
        refused = run < length
        left = (p_all[rows, run] - torch.where(refused[:, None], q_all[rows, run.clamp(max=length - 1)], 0.0)).clamp(min=0)
        left = torch.where(left.sum(-1, keepdim=True) > 0, left, p_all[rows, run])
        own = torch.multinomial(left, 1, generator=generator)[:, 0]
        text[rows[live], (start + run)[live]] = own[live]
        at = torch.where(live, start + run + 1, at)
        tried = torch.where(refused, run + 1, run)
        proposed, accepted, rounds = proposed + int(tried[live].sum()), accepted + int(run[live].sum()), rounds + int(live.sum())
    return {
        "length": length,
        "temperature": temperature,
        "accepted of judged": accepted / proposed,  # the chance that a proposal passes, once those before it have
        "accepted of proposed": accepted / (rounds * length),
        "tokens a round": (accepted + rounds) / rounds,
    }
