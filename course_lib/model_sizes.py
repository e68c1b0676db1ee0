"""Sizes of well-known decoders, from the config.json of each, and what follows from them: parameters, cache, work. Measures nothing, loads nothing.

Bytes are exact for weights and cache; `prefill_activations` is an estimate and says what it counts.
"""

import difflib
from dataclasses import dataclass

from course_lib.roofline import Work

BYTES_EACH = {"fp32": 4, "bf16": 2, "fp16": 2, "fp8": 1, "int8": 1, "int4": 0.5}  # int4: without the scales of its groups


@dataclass(frozen=True)
class ModelSize:
    """One Llama-shaped decoder. `source` names the file that the sizes were read from."""

    name: str
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocab: int
    context: int  # positions the model was trained for, or its config's limit
    source: str
    tied: bool = False  # the head is the embedding
    qkv_bias: bool = False
    qk_norm: bool = False

    @property
    def layer_params(self) -> int:
        """Weights of one layer: the four attention matrices, the three of the MLP, the norms."""
        wide = (self.heads + 2 * self.kv_heads) * self.head_dim
        attention = self.hidden * wide + self.heads * self.head_dim * self.hidden + (wide if self.qkv_bias else 0)
        return attention + 3 * self.hidden * self.intermediate + 2 * self.hidden + (2 * self.head_dim if self.qk_norm else 0)

    @property
    def params(self) -> int:
        """All weights, as the checkpoint holds them."""
        return self.layers * self.layer_params + self.vocab * self.hidden * (1 if self.tied else 2) + self.hidden

    @property
    def streamed_params(self) -> int:
        """Weights that a decoding step reads: all but the embedding, of which it reads a row a token."""
        return self.params - (0 if self.tied else self.vocab * self.hidden)

    def cache_bytes(self, tokens: int, batch: int = 1, bytes_each: float = 2) -> float:
        """Keys and values of `batch` sequences of `tokens` tokens."""
        return 2 * self.layers * self.kv_heads * self.head_dim * tokens * batch * bytes_each

    def prefill_activations(self, tokens: int, bytes_each: float = 2) -> float:
        """An estimate: the most that one prompt's prefill holds besides weights and cache, if attention stores no scores.

        The MLP is the widest place: residual stream, its normalised copy, gate, up and their product, for every token; one row of logits in float32.
        """
        return tokens * (2 * self.hidden + 3 * self.intermediate) * max(bytes_each, 2) + 4 * self.vocab

    def decode_work(self, batch: int, tokens: int, weight_bytes: float = 2, cache_bytes: float = 2) -> Work:
        """One decoding step of `batch` sequences with `tokens` tokens each in their caches."""
        flops = 2 * self.streamed_params * batch + 4 * self.layers * self.heads * self.head_dim * tokens * batch
        return Work(flops, self.streamed_params * weight_bytes + self.cache_bytes(tokens, batch, cache_bytes))

    def prefill_work(self, tokens: int, batch: int = 1, weight_bytes: float = 2, cache_bytes: float = 2) -> Work:
        """The prefill of `batch` prompts of `tokens` tokens: causal attention, logits of the last token only; activations are not counted."""
        matrices = 2 * (self.layers * self.layer_params * tokens + self.vocab * self.hidden) * batch
        attention = 2 * self.layers * self.heads * self.head_dim * tokens * tokens * batch  # 4, halved by the causal mask
        return Work(matrices + attention, self.streamed_params * weight_bytes + self.cache_bytes(tokens, batch, cache_bytes))


def _hub(name: str) -> str:
    return f"config.json of {name} on the Hugging Face hub"


_ALL = (
    ModelSize("Llama-2-7B", 32, 4096, 32, 32, 128, 11008, 32000, 4096, _hub("meta-llama/Llama-2-7b-hf")),
    ModelSize("Llama-2-70B", 80, 8192, 64, 8, 128, 28672, 32000, 4096, _hub("meta-llama/Llama-2-70b-hf")),
    ModelSize("Llama-3-8B", 32, 4096, 32, 8, 128, 14336, 128256, 8192, _hub("meta-llama/Meta-Llama-3-8B")),
    ModelSize("Llama-3-70B", 80, 8192, 64, 8, 128, 28672, 128256, 8192, _hub("meta-llama/Meta-Llama-3-70B")),
    ModelSize("CodeLlama-34B", 48, 8192, 64, 8, 128, 22016, 32000, 16384, _hub("codellama/CodeLlama-34b-hf")),
    ModelSize("Mistral-7B", 32, 4096, 32, 8, 128, 14336, 32000, 32768, _hub("mistralai/Mistral-7B-v0.1")),
    ModelSize("Qwen2.5-7B", 28, 3584, 28, 4, 128, 18944, 152064, 131072, _hub("Qwen/Qwen2.5-7B"), qkv_bias=True),
    ModelSize("Qwen3-8B", 36, 4096, 32, 8, 128, 12288, 151936, 40960, _hub("Qwen/Qwen3-8B"), qk_norm=True),
    ModelSize("the course's model", 5, 384, 6, 2, 64, 896, 2048, 1024, "course_lib/llm/checkpoints/target/config.json", tied=True),
)
SIZES: dict[str, ModelSize] = {one.name: one for one in _ALL}


def size(name: str) -> ModelSize:
    """A model by name; ValueError with the nearest name where the course has none."""
    if name in SIZES:
        return SIZES[name]
    near = difflib.get_close_matches(str(name), SIZES, 1, cutoff=0.4)
    raise ValueError(f"there are no sizes for {name!r} (there are: {', '.join(SIZES)})" + (f"; did you mean {near[0]!r}?" if near else ""))
