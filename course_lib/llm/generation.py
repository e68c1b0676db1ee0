"""Writing text with a model and a cache: prefill once, then one token a step. Knows nothing of files or text."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from course_lib.llm.cache import Cache, KVCache
from course_lib.llm.model import Llama

Choose = Callable[[Tensor], Tensor]  # choose(logits [B, vocab_size]) -> [B] int64


def sampler(temperature: float = 0.0, top_k: int | None = None, top_p: float | None = None, seed: int | None = None) -> Choose:
    """A function from logits [B, V] to tokens [B]. Temperature 0 is greedy; top_k, then top_p (the token that crosses it is kept) cut the tail."""
    if temperature < 0:
        raise ValueError(f"temperature is {temperature}; 0 is greedy, 1 the model's own distribution, more is bolder")
    if top_k is not None and top_k < 1:
        raise ValueError(f"top_k is {top_k}; keep at least 1 token, or leave it out")
    if top_p is not None and not 0 < top_p <= 1:
        raise ValueError(f"top_p is {top_p}; it is a share of the probability, above 0 and up to 1")
    if temperature == 0:
        return lambda logits: logits.argmax(-1)
    generators: dict[torch.device, torch.Generator] = {}

    def choose(logits: Tensor) -> Tensor:
        generator = None
        if seed is not None:
            if logits.device not in generators:
                generators[logits.device] = torch.Generator(logits.device).manual_seed(seed)
            generator = generators[logits.device]
        return torch.multinomial(probabilities(logits, temperature, top_k, top_p), 1, generator=generator)[:, 0]

    return choose


def probabilities(logits: Tensor, temperature: float = 1.0, top_k: int | None = None, top_p: float | None = None) -> Tensor:
    """The distribution that sampling draws from, float32 [..., V]."""
    scores = logits.float() / temperature
    if top_k is not None and top_k < scores.shape[-1]:
        least = scores.topk(top_k, dim=-1).values[..., -1:]
        scores = scores.masked_fill(scores < least, -torch.inf)
    p = scores.softmax(-1)
    if top_p is not None and top_p < 1:
        ordered, order = p.sort(dim=-1, descending=True)
        before = ordered.cumsum(-1) - ordered  # the probability in front of each token
        p = torch.zeros_like(p).scatter(-1, order, ordered.masked_fill(before >= top_p, 0.0))
        p = p / p.sum(-1, keepdim=True)
    return p


@torch.inference_mode()
def stream(
    model: Llama,
    tokens: Tensor,
    max_new_tokens: int,
    choose: Choose | None = None,
    cache: Cache | None = None,
    stop: bool = True,
) -> Iterator[Tensor]:
    """Yield [B] int64, a token for each sequence, step by step: the first after the prefill.

    tokens   [B, N] int64: prompts of one length
    cache    default: a KVCache of exactly the room that is needed
    stop     end once every sequence has written an end-of-text token (whoever has, keeps repeating it)
    """
    _refuse(model, tokens, max_new_tokens)
    choose = choose or sampler()
    weight = model.embed_tokens.weight
    tokens = tokens.to(weight.device)
    B, N = tokens.shape
    if cache is None:
        cache = KVCache(model.config, B, N + max_new_tokens, weight.device, weight.dtype)
    ends = torch.tensor(model.config.eos_tokens, device=weight.device) if stop and model.config.eos_tokens else None
    ended = torch.zeros(B, dtype=torch.bool, device=weight.device)
    step = tokens
    for _ in range(max_new_tokens):
        chosen = choose(model(step, cache=cache, last=True)[:, -1])
        if ends is not None:
            chosen = torch.where(ended, ends[0], chosen)
            ended |= torch.isin(chosen, ends)
        yield chosen
        if ends is not None and bool(ended.all()):
            return
        step = chosen[:, None]


def generate(
    model: Llama, tokens: Tensor, max_new_tokens: int, choose: Choose | None = None, cache: Cache | None = None, stop: bool = True
) -> Tensor:
    """Prompts and what the model wrote after them: [B, N] -> [B, N + written]. See `stream` for the arguments, `sampler` for `choose`."""
    written = list(stream(model, tokens, max_new_tokens, choose, cache, stop))
    return torch.cat((tokens.to(written[0].device), torch.stack(written, dim=1)), dim=1)


@torch.inference_mode()
def generate_uncached(model: Llama, tokens: Tensor, max_new_tokens: int, choose: Choose | None = None) -> Tensor:
    """The same without a cache: every step reads the whole text again. For chapter 08's comparison; it does not stop early."""
    _refuse(model, tokens, max_new_tokens)
    choose = choose or sampler()
    tokens = tokens.to(model.embed_tokens.weight.device)
    for _ in range(max_new_tokens):
        tokens = torch.cat((tokens, choose(model(tokens, last=True)[:, -1])[:, None]), dim=1)
    return tokens


def _refuse(model: Llama, tokens: Tensor, max_new_tokens: int) -> None:
    if tokens.dim() != 2 or tokens.shape[1] < 1 or tokens.dtype not in (torch.int64, torch.int32):
        raise ValueError(f"generate: tokens must be whole numbers [B, N], N >= 1, not {tokens.dtype} {list(tokens.shape)}")
    if max_new_tokens < 1:
        raise ValueError(f"generate: max_new_tokens is {max_new_tokens}; ask for at least 1")
    limit = model.config.longest_text
    if tokens.shape[1] + max_new_tokens > limit:
        raise ValueError(
            f"generate: {tokens.shape[1]} tokens of prompt and {max_new_tokens} new ones are more than the {limit} positions this model knows"
        )
