"""A transformer small enough to train in an interpreter, on a task that only attention can learn. The attention is an argument.

The task: say again what was said `delay` tokens ago. The answer is at no position but that one, so a model whose attention
does not work stays at the loss of a guess, log(vocabulary). Knows nothing of kernels.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Attention = Callable[[Tensor, Tensor, Tensor], Tensor]  # q, k, v [B, H, N, D] -> [B, H, N, D], causal


def plain_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Causal attention with the whole score matrix in memory, for as many queries as keys."""
    scores = q @ k.mT * q.shape[-1] ** -0.5
    hidden = torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device).triu(1)
    return torch.softmax(scores.masked_fill(hidden, -torch.inf), dim=-1) @ v


class Block(nn.Module):
    """Attention and a feed-forward layer, each on a normalised copy of x and added to it. x [B, N, width]."""

    def __init__(self, width: int, heads: int, attention: Attention):
        super().__init__()
        self.heads, self.attention = heads, attention
        self.norm_1, self.norm_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        B, N, width = x.shape
        q, k, v = self.qkv(self.norm_1(x)).view(B, N, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        x = x + self.out(self.attention(q, k, v).transpose(1, 2).reshape(B, N, width))
        return x + self.down(F.gelu(self.up(self.norm_2(x))))


class Tiny(nn.Module):
    """Embeddings of tokens and positions, some blocks, scores for the next token. tokens [B, N] -> [B, N, vocabulary]."""

    def __init__(self, attention: Attention, vocabulary: int = 8, length: int = 32, width: int = 64, heads: int = 1, layers: int = 1, seed: int = 0):
        super().__init__()
        if width % heads:
            raise ValueError(f"Tiny: a width of {width} cannot be cut into {heads} heads; take a multiple")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.tokens, self.positions = nn.Embedding(vocabulary, width), nn.Embedding(length, width)
            self.blocks = nn.ModuleList(Block(width, heads, attention) for _ in range(layers))
            self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, vocabulary)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.tokens(tokens) + self.positions.weight[: tokens.shape[1]]
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


def batch(g: torch.Generator, size: int, length: int, vocabulary: int = 8, delay: int = 3) -> tuple[Tensor, Tensor]:
    """(tokens, answers), both [size, length]: answer i is token i - delay, and -100 (not counted) where there is none."""
    tokens = torch.randint(vocabulary, (size, length), generator=g)
    answers = torch.full_like(tokens, -100)
    answers[:, delay:] = tokens[:, : length - delay]
    return tokens, answers


def train(
    attention: Attention, steps: int, device: str = "cpu", rate: float = 2e-2, size: int = 4, delay: int = 3, seed: int = 0, dtype=None, **shape
) -> list[float]:
    """The loss of each training step of a new Tiny, in nats a token: the same weights and batches for the same seed, whatever the attention.

    dtype: what torch.autocast computes in; None for float32 throughout.
    """
    if steps < 1:
        raise ValueError(f"train: {steps} steps; at least 1 is needed")
    model = Tiny(attention, seed=seed, **shape).to(device)
    adam = torch.optim.Adam(model.parameters(), lr=rate)
    g, found = torch.Generator().manual_seed(seed), []
    length, vocabulary = model.positions.num_embeddings, model.tokens.num_embeddings
    for _ in range(steps):
        tokens, answers = (x.to(device) for x in batch(g, size, length, vocabulary, delay))
        with torch.autocast(torch.device(device).type, dtype=dtype, enabled=dtype is not None):
            loss = F.cross_entropy(model(tokens).float().flatten(0, 1), answers.flatten())
        adam.zero_grad()
        loss.backward()
        adam.step()
        found.append(loss.item())
    return found
