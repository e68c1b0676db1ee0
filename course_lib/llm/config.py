"""The shape of a Llama-style model: one frozen dataclass, read from and written to Hugging Face's config.json.

Knows the families it can read (Llama, Qwen2, Qwen3) and says in a sentence why it cannot read another. Knows nothing of tensors.
"""

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

FAMILIES = {"llama": "Llama", "qwen2": "Qwen2", "qwen3": "Qwen3"}  # model_type in config.json: the name people use
ROPE_KINDS = {  # what each kind of scaling has to say
    "default": (),
    "linear": ("factor",),
    "dynamic": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"),
}


@dataclass(frozen=True)
class ModelConfig:
    """Sizes and switches of one decoder. The defaults are a model small enough for a unit test."""

    vocab_size: int = 256
    hidden_size: int = 64
    num_layers: int = 2
    num_heads: int = 4  # H
    num_kv_heads: int = 2  # H_KV
    head_dim: int = 16  # D
    intermediate_size: int = 128
    max_positions: int = 512
    norm_eps: float = 1e-6
    rope_theta: float = 10_000.0
    rope_scaling: dict | None = None  # {"rope_type": "linear" | "dynamic" | "llama3", "factor": ..., ...}
    tie_embeddings: bool = True  # the head is the embedding, transposed
    qkv_bias: bool = False  # Qwen2
    output_bias: bool = False  # the bias of o_proj
    mlp_bias: bool = False
    qk_norm: bool = False  # Qwen3: RMSNorm over D on every query and key, before RoPE
    bos_token: int | None = None
    eos_tokens: tuple[int, ...] = ()
    family: str = "llama"
    dtype: str = "float32"  # of the file; load_model(dtype=...) converts

    def __post_init__(self) -> None:
        for name in ("vocab_size", "hidden_size", "num_layers", "num_heads", "num_kv_heads", "head_dim", "intermediate_size", "max_positions"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"ModelConfig: {name} must be a whole number from 1 up, not {value!r}")
        if self.num_heads % self.num_kv_heads:
            raise ValueError(
                f"ModelConfig: {self.num_heads} query heads cannot share {self.num_kv_heads} K/V heads; "
                "the number of query heads must be a multiple of K/V heads"
            )
        if self.head_dim % 2:
            raise ValueError(f"ModelConfig: head_dim is {self.head_dim}; RoPE rotates pairs, so it must be even")
        if self.family not in FAMILIES:
            raise ValueError(f"ModelConfig: family {self.family!r} is not one of {', '.join(FAMILIES)}")

    @property
    def longest_text(self) -> int:
        """Positions that generation may use: what the model was trained on, or what "dynamic" scaling stretches that to."""
        scaling = self.rope_scaling or {}
        return int(self.max_positions * scaling["factor"]) if scaling.get("rope_type") == "dynamic" else self.max_positions

    @classmethod
    def from_hf(cls, source: dict[str, Any] | str | Path) -> "ModelConfig":
        """From the contents of config.json, or the path of that file or its folder."""
        return from_hf(source)

    def to_hf(self) -> dict[str, Any]:
        """What config.json says, in the keys that `transformers` reads (its versions 4 and 5)."""
        return to_hf(self)

    def replace(self, **changes: Any) -> "ModelConfig":
        """The same configuration with some fields changed; an unknown field is an error."""
        known = {field.name for field in fields(self)}
        if unknown := sorted(set(changes) - known):
            raise ValueError(f"ModelConfig has no field {unknown[0]!r}; it has {', '.join(sorted(known))}")
        return ModelConfig(**{**asdict(self), "eos_tokens": self.eos_tokens, **changes})


def to_hf(config: ModelConfig) -> dict[str, Any]:
    """config.json as a dictionary."""
    rope = {"rope_theta": config.rope_theta, "rope_type": "default", **(config.rope_scaling or {})}
    said = {
        "architectures": [f"{FAMILIES[config.family]}ForCausalLM"],
        "model_type": config.family,
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_kv_heads,
        "head_dim": config.head_dim,
        "intermediate_size": config.intermediate_size,
        "hidden_act": "silu",
        "max_position_embeddings": config.max_positions,
        "rms_norm_eps": config.norm_eps,
        "rope_theta": config.rope_theta,
        "rope_scaling": config.rope_scaling,
        "rope_parameters": rope,  # where version 5 of transformers looks
        "tie_word_embeddings": config.tie_embeddings,
        "bos_token_id": config.bos_token,
        "eos_token_id": config.eos_tokens[0] if len(config.eos_tokens) == 1 else list(config.eos_tokens) or None,
        "torch_dtype": config.dtype,
        "initializer_range": 0.02,
        "use_cache": True,
    }
    if config.family != "qwen2":
        said["attention_bias"] = config.qkv_bias
    if config.family == "llama":
        said["mlp_bias"] = config.mlp_bias
    return said


def from_hf(source: dict[str, Any] | str | Path) -> ModelConfig:
    """ModelConfig from a dictionary, a path of config.json, or the folder that holds one."""
    said, where = _said(source)
    family = said.get("model_type")
    if family not in FAMILIES:
        names = ", ".join(said.get("architectures") or []) or "no architecture"
        raise ValueError(
            f"{where} is a model of type {family!r} ({names}). The course reads {', '.join(FAMILIES.values())}; "
            "choose a checkpoint whose config.json says model_type " + ", ".join(FAMILIES)
        )
    _refuse_what_is_missing(said, where)
    heads = said["num_attention_heads"]
    theta, scaling = _rope(said, where)
    eos = said.get("eos_token_id")
    bias = bool(said.get("attention_bias", False))
    return ModelConfig(
        vocab_size=said["vocab_size"],
        hidden_size=said["hidden_size"],
        num_layers=said["num_hidden_layers"],
        num_heads=heads,
        num_kv_heads=said.get("num_key_value_heads") or heads,
        head_dim=said.get("head_dim") or said["hidden_size"] // heads,
        intermediate_size=said["intermediate_size"],
        max_positions=said.get("max_position_embeddings", 2048),
        norm_eps=said.get("rms_norm_eps", 1e-6),
        rope_theta=theta,
        rope_scaling=scaling,
        tie_embeddings=bool(said.get("tie_word_embeddings", False)),
        qkv_bias=family == "qwen2" or bias,
        output_bias=bias and family != "qwen2",
        mlp_bias=bool(said.get("mlp_bias", False)) and family == "llama",
        qk_norm=family == "qwen3",
        bos_token=said.get("bos_token_id"),
        eos_tokens=tuple(eos) if isinstance(eos, list) else () if eos is None else (eos,),
        family=family,
        dtype=str(said.get("dtype") or said.get("torch_dtype") or "float32"),
    )


def _said(source: dict[str, Any] | str | Path) -> tuple[dict[str, Any], str]:
    """The dictionary, and what to call it in a message."""
    if isinstance(source, dict):
        return source, "this config.json"
    path = Path(source)
    path = path / "config.json" if path.is_dir() else path
    try:
        return json.loads(path.read_text(encoding="utf-8")), str(path)
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} is not there; a checkpoint in Hugging Face layout has config.json beside its weights") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not JSON ({error}); the file may be half downloaded") from None


def _refuse_what_is_missing(said: dict[str, Any], where: str) -> None:
    """A sentence for a key that is missing or a switch that the course's model does not have."""
    for key in ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size"):
        if key not in said:
            raise ValueError(f"{where} does not say {key}; is it the config.json of a language model?")
    if said.get("hidden_act", "silu") != "silu":
        raise ValueError(f"{where} uses the activation {said['hidden_act']!r}; the course's MLP is SwiGLU, with silu")
    if said.get("use_sliding_window") and any(kind == "sliding_attention" for kind in said.get("layer_types") or ["sliding_attention"]):
        raise ValueError(f"{where} uses sliding-window attention; the course's model attends to everything before a token")
    if said.get("quantization_config"):
        raise ValueError(f"{where} is a quantised checkpoint; choose the unquantised one, and quantise it yourself in chapter 12")
    if said.get("pretraining_tp", 1) != 1:
        raise ValueError(f"{where} says pretraining_tp = {said['pretraining_tp']}, another order of sums; set it to 1 in config.json")


def _rope(said: dict[str, Any], where: str) -> tuple[float, dict | None]:
    """(theta, scaling or None) from either version's keys."""
    new, old = said.get("rope_parameters") or {}, said.get("rope_scaling") or {}
    theta = float(new.get("rope_theta") or said.get("rope_theta") or 10_000.0)
    scaling = {**old, **new}
    scaling.pop("rope_theta", None)
    kind = scaling.pop("rope_type", None) or scaling.pop("type", None) or "default"
    scaling.pop("type", None)
    if float(said.get("partial_rotary_factor", scaling.get("partial_rotary_factor", 1.0)) or 1.0) != 1.0:
        raise ValueError(f"{where} rotates only a part of each head (partial_rotary_factor); the course's RoPE rotates all of it")
    if kind not in ROPE_KINDS:
        raise ValueError(f"{where} scales RoPE by {kind!r}; the course reads {', '.join(ROPE_KINDS)}")
    for key in ROPE_KINDS[kind]:
        if key not in scaling:
            raise ValueError(f"{where} scales RoPE by {kind!r} and does not say {key}")
    return theta, None if kind == "default" else {"rope_type": kind, **scaling}
