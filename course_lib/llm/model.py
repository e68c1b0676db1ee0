"""A Llama-style decoder on one page: RMSNorm, RoPE, grouped-query attention, SwiGLU.

Parameter names are Hugging Face's, without the leading "model.". Attention itself is a slot: every layer hands its new queries, keys and values
to `attend(layer, q, k, v)`, so a plain forward, a contiguous cache, a paged cache and a learner's function all fit. Knows nothing of files or text.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from course_lib.llm.cache import Attend, Cache
from course_lib.llm.config import ModelConfig
from course_lib.llm.rope import apply_rope, rope_table

Rope = Callable[[Tensor, Tensor, Tensor], Tensor]  # rope(x [B, H, N, D], cos, sin) -> [B, H, N, D]


def causal_attention(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention among the tokens of one forward, without a cache: what training and scoring a text need."""
    return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=q.shape[1] != k.shape[1])


class RMSNorm(nn.Module):
    """x / sqrt(mean(x^2) + eps) * weight, computed in float32."""

    def __init__(self, size: int, eps: float):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x.float(), self.weight.shape, None, self.eps).to(x.dtype) * self.weight


class Attention(nn.Module):
    """Projections, RoPE, and the slot."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        hidden, D = config.hidden_size, config.head_dim
        self.head_dim = D
        self.q_proj = nn.Linear(hidden, config.num_heads * D, bias=config.qkv_bias)
        self.k_proj = nn.Linear(hidden, config.num_kv_heads * D, bias=config.qkv_bias)
        self.v_proj = nn.Linear(hidden, config.num_kv_heads * D, bias=config.qkv_bias)
        self.o_proj = nn.Linear(config.num_heads * D, hidden, bias=config.output_bias)
        self.q_norm = RMSNorm(D, config.norm_eps) if config.qk_norm else None
        self.k_norm = RMSNorm(D, config.norm_eps) if config.qk_norm else None

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, layer: int, attend: Attend, rope: Rope) -> Tensor:
        B, N, _ = x.shape
        q, k, v = (project(x).view(B, N, -1, self.head_dim) for project in (self.q_proj, self.k_proj, self.v_proj))
        if self.q_norm is not None:
            q, k = self.q_norm(q), self.k_norm(k)
        q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)  # [B, H, N, D]
        out = attend(layer, rope(q, cos, sin), rope(k, cos, sin), v)
        return self.o_proj(out.transpose(1, 2).reshape(B, N, -1))


class MLP(nn.Module):
    """SwiGLU: down(silu(gate(x)) * up(x))."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=config.mlp_bias)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=config.mlp_bias)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=config.mlp_bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Layer(nn.Module):
    """Attention, then the MLP, each added to what came in."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.input_layernorm = RMSNorm(config.hidden_size, config.norm_eps)
        self.self_attn = Attention(config)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.norm_eps)
        self.mlp = MLP(config)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, layer: int, attend: Attend, rope: Rope) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), cos, sin, layer, attend, rope)
        return x + self.mlp(self.post_attention_layernorm(x))


class Llama(nn.Module):
    """Tokens in, logits out.

    logits = model(tokens)                              # causal, no cache: [B, N] int64 -> [B, N, vocab_size]
    logits = model(tokens, cache=cache)                 # the tokens that follow what the cache holds; the cache grows by N
    logits = model(tokens, positions=p, attend=f)       # everything by hand: what the engine uses
    logits = model(tokens, cache=cache, last=True)      # [B, 1, vocab_size]: a prefill needs no other row
    """

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.num_layers))
        self.norm = RMSNorm(config.hidden_size, config.norm_eps)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        if config.tie_embeddings:
            self.lm_head.weight = self.embed_tokens.weight
        self.rope: Rope = apply_rope  # a slot too: the learner's own, or kernels.rope
        self._table: tuple[Tensor, Tensor] | None = None  # cos, sin [length, D]

    def forward(
        self, tokens: Tensor, cache: Cache | None = None, positions: Tensor | None = None, attend: Attend | None = None, last: bool = False
    ) -> Tensor:
        """Logits for the token after each of `tokens`; see the class for the ways to call it."""
        N = tokens.shape[-1]
        if cache is not None:
            if positions is not None or attend is not None:
                raise ValueError("Llama: a cache brings its own positions and attention; give either the cache, or positions and attend")
            self.reserve(cache.capacity)
            positions, attend = cache.positions(N), cache.attend
        hidden = self.hidden(tokens, positions, attend or causal_attention)
        if cache is not None:
            cache.advance(N)
        return self.lm_head(hidden[:, -1:] if last else hidden)

    def hidden(self, tokens: Tensor, positions: Tensor | None, attend: Attend) -> Tensor:
        """The last layer's normalised output, [B, N, hidden_size]; positions is [N] or [B, N], None means 0 to N - 1."""
        if tokens.dim() != 2 or tokens.dtype not in (torch.int64, torch.int32):
            raise ValueError(f"Llama: tokens must be whole numbers [B, N], not {tokens.dtype} {list(tokens.shape)}")
        cos, sin = self.angles(tokens.shape[1], positions)
        x = self.embed_tokens(tokens)
        for number, layer in enumerate(self.layers):
            x = layer(x, cos, sin, number, attend, self.rope)
        return self.norm(x)

    def angles(self, N: int, positions: Tensor | None) -> tuple[Tensor, Tensor]:
        """cos and sin of the positions, in the model's dtype: [N, D], or [B, 1, N, D] where positions is [B, N]."""
        if self.config.rope_scaling and self.config.rope_scaling["rope_type"] == "dynamic":  # the angles depend on how long the text is by now
            length = N if positions is None else int(positions.max()) + 1
            self._make_table(max(length, self.config.max_positions))
        elif positions is None:
            self.reserve(N)
        elif self._table is None:
            self.reserve(min(self.config.max_positions, 8192))
        cos, sin = self._table
        if positions is None:
            return cos[:N], sin[:N]
        cos, sin = cos[positions], sin[positions]
        return (cos[:, None], sin[:, None]) if positions.dim() == 2 else (cos, sin)

    def reserve(self, length: int) -> None:
        """Compute the angles of positions 0 to length - 1 now. Whoever passes `positions` beyond 8,192 without a cache calls this once before."""
        weight = self.embed_tokens.weight
        table = self._table
        if table is None or table[0].shape[0] < length or table[0].device != weight.device or table[0].dtype != weight.dtype:
            self._make_table(length)

    def _make_table(self, length: int) -> None:
        weight = self.embed_tokens.weight
        if self._table is None or self._table[0].shape[0] != length or self._table[0].dtype != weight.dtype or self._table[0].device != weight.device:
            cos, sin = rope_table(self.config, length, weight.device)
            self._table = cos.to(weight.dtype), sin.to(weight.dtype)
