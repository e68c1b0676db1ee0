"""The KV cache: what a model keeps of the tokens it has read, and the attention that reads it.

A cache is anything with three methods, and `Llama.forward(tokens, cache=...)` calls no others:

    positions(n)              positions of the next n tokens: [n], or [B, n] where sequences differ in length
    attend(layer, q, k, v)    store k, v of n new tokens, return the attention of q over everything stored up to each: [B, H, n, D]
    advance(n)                the n tokens are in: called once, after the last layer

KVCache is the contiguous one, [B, H_KV, N_MAX, D] a layer. Its own attention is a slot with the signature of chapter 08's `attend_with_cache`.
Knows nothing of models or text.
"""

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from course_lib.llm.config import ModelConfig

# attend(layer, q [B, H, N, D], k [B, H_KV, N, D], v [B, H_KV, N, D]) -> [B, H, N, D]: the model's slot; RoPE has turned q and k already
Attend = Callable[[int, Tensor, Tensor, Tensor], Tensor]
# attend_with_cache(q [B, H, N, D], k_new, v_new [B, H_KV, N, D], k_cache, v_cache [B, H_KV, N_MAX, D], lengths [B] int32) -> [B, H, N, D]
# writes the new keys and values behind the `lengths` that are there, then attends causally, aligned bottom-right
AttendWithCache = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]
# decode(q [B, H, D], k_cache, v_cache [B, H_KV, N_MAX, D], lengths [B] int32, the new token included) -> [B, H, D]
Decode = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


class Cache(Protocol):
    """What the model asks of a cache."""

    capacity: int  # no position reaches it

    def positions(self, n: int) -> Tensor: ...

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor: ...

    def advance(self, n: int) -> None: ...


class KVCache:
    """Room for `capacity` tokens of `batch` sequences, allocated once.

    k, v       one tensor a layer, [B, H_KV, capacity, D]
    lengths    int32 [B]: how many tokens each sequence holds
    attend_with_cache   replaces the cache's own attention, for prefill and decode alike
    decode     replaces it for steps of one token only; the new key and value are stored before it is called
    """

    def __init__(
        self,
        config: ModelConfig,
        batch: int = 1,
        capacity: int | None = None,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        attend_with_cache: AttendWithCache | None = None,
        decode: Decode | None = None,
    ):
        capacity = config.max_positions if capacity is None else capacity
        if batch < 1 or capacity < 1:
            raise ValueError(f"KVCache: batch {batch} and capacity {capacity} must both be at least 1")
        shape = (batch, config.num_kv_heads, capacity, config.head_dim)
        self.config, self.batch, self.capacity = config, batch, capacity
        self.k = [torch.zeros(shape, device=device, dtype=dtype) for _ in range(config.num_layers)]
        self.v = [torch.zeros(shape, device=device, dtype=dtype) for _ in range(config.num_layers)]
        self.lengths = torch.zeros(batch, device=device, dtype=torch.int32)
        self._same: int | None = 0  # the length they all have, known without asking the device; None once they differ
        self._attend, self._decode = attend_with_cache, decode

    @property
    def nbytes(self) -> int:
        """What k and v take, in bytes."""
        return sum(tensor.numel() * tensor.element_size() for tensor in (*self.k, *self.v))

    def positions(self, n: int) -> Tensor:
        """The next n positions: [n], or [B, n] once the sequences differ in length."""
        most = self._same
        if most is None and self.lengths.device.type == "cpu":  # on a GPU the question would make the host wait
            most = int(self.lengths.max())
        if most is not None and most + n > self.capacity:
            raise ValueError(f"KVCache: {most} tokens are stored and {n} more do not fit into {self.capacity}; make it with a larger capacity")
        if self._same is None:
            return self.lengths[:, None] + torch.arange(n, device=self.lengths.device)
        return torch.arange(self._same, self._same + n, device=self.lengths.device)

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Store k and v of the new tokens in this layer's cache and attend."""
        k_cache, v_cache = self.k[layer], self.v[layer]
        refuse_another("KVCache", v, self.batch, k_cache)
        if self._attend is not None:
            return self._attend(q, k, v, k_cache, v_cache, self.lengths)
        store(k, v, k_cache, v_cache, self.lengths, self._same)
        if self._decode is not None and q.shape[2] == 1:
            return self._decode(q[:, :, 0], k_cache, v_cache, self.lengths + 1).unsqueeze(2)
        if self._same is None:
            return attend_ragged(q, k_cache, v_cache, self.lengths)
        end = self._same + q.shape[2]
        return attend_same(q, k_cache[:, :, :end], v_cache[:, :, :end])

    def advance(self, n: int | Tensor) -> None:
        """n more tokens count: one number for all, or int [B] (a batch of prompts padded at the end counts each one's own)."""
        self.lengths += n
        self._same = self._same + n if self._same is not None and isinstance(n, int) else None

    def rewind(self, lengths: int | Tensor) -> None:
        """Forget all but the first `lengths` tokens (one number, or int [B]): what refused draft tokens need."""
        if isinstance(lengths, int):
            if not 0 <= lengths <= self.capacity:
                raise ValueError(f"KVCache: it cannot go back to {lengths} tokens; it holds between 0 and {self.capacity}")
            self.lengths.fill_(lengths)
            self._same = lengths
        else:
            self.lengths.copy_(lengths)
            self._same = None


def refuse_another(name: str, v: Tensor, batch: int, cache: Tensor) -> None:
    """A sentence where new values (or keys) do not belong to this cache; without it one sequence's keys would be copied to all, or torch speaks."""
    if v.shape[0] != batch:  # of v, which RoPE did not spread over the positions of several sequences
        raise ValueError(f"{name}: it holds {batch} sequences and the tokens are of {v.shape[0]}; make it with batch={v.shape[0]}")
    if v.dtype != cache.dtype or v.device != cache.device:
        raise ValueError(
            f"{name}: it is {cache.dtype} on {cache.device} and the model's keys are {v.dtype} on {v.device}; "
            "make it with the model's dtype and device"
        )


def store(k: Tensor, v: Tensor, k_cache: Tensor, v_cache: Tensor, lengths: Tensor, same: int | None = None) -> None:
    """Write k, v [B, H_KV, N, D] behind what each sequence holds; `same` is their common length where it is known."""
    N = k.shape[2]
    if same is not None:
        k_cache[:, :, same : same + N] = k
        v_cache[:, :, same : same + N] = v
        return
    rows = torch.arange(k.shape[0], device=k.device)[:, None]
    places = lengths[:, None].long() + torch.arange(N, device=k.device)  # [B, N]
    k_cache[rows, :, places] = k.transpose(1, 2)
    v_cache[rows, :, places] = v.transpose(1, 2)


def attend_same(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Causal attention of the last N of N_KV tokens, all sequences equally long: q [B, H, N, D], k, v [B, H_KV, N_KV, D]."""
    B, H, N, D = q.shape
    H_KV, N_KV = k.shape[1], k.shape[2]
    if N == 1:  # the group's query heads are rows of one small matrix: K and V are read once a group
        return F.scaled_dot_product_attention(q.reshape(B, H_KV, H // H_KV, D), k, v).reshape(B, H, 1, D)
    if N == N_KV:
        return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=H != H_KV)
    keep = torch.ones(N, N_KV, dtype=torch.bool, device=q.device).tril(N_KV - N)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=keep, enable_gqa=H != H_KV)


def attend_ragged(q: Tensor, k_cache: Tensor, v_cache: Tensor, lengths: Tensor) -> Tensor:
    """The same where lengths differ: token i of a sequence sees its lengths + i + 1 first keys."""
    H, N = q.shape[1], q.shape[2]
    last = lengths[:, None] + torch.arange(N, device=q.device)  # [B, N]
    keep = torch.arange(k_cache.shape[2], device=q.device) <= last[:, None, :, None]  # [B, 1, N, N_MAX]
    return F.scaled_dot_product_attention(q, k_cache, v_cache, attn_mask=keep, enable_gqa=H != k_cache.shape[1])
