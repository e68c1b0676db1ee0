"""Rotary position embedding: the frequencies a model turns its queries and keys by, and the turning in plain torch.

Pairs are (i, i + D/2), the "half" layout of Llama's Hugging Face checkpoints. Knows nothing of layers or caches.
"""

import math

import torch
from torch import Tensor

from course_lib.llm.config import ModelConfig


def inverse_frequencies(config: ModelConfig, length: int | None = None) -> Tensor:
    """Radians a position, float32 [D / 2], scaled as the checkpoint asks.

    length   how many positions are in use: only the "dynamic" scaling looks at it
    """
    theta, scaling = config.rope_theta, config.rope_scaling or {"rope_type": "default"}
    kind, factor = scaling["rope_type"], float(scaling.get("factor", 1.0))
    if kind == "dynamic":  # a larger theta once the text is longer than what the model was trained on
        trained = config.max_positions
        used = max(length or trained, trained)
        theta *= (factor * used / trained - (factor - 1)) ** (config.head_dim / (config.head_dim - 2))
    powers = torch.arange(0, config.head_dim, 2, dtype=torch.int64).float() / config.head_dim
    frequencies = 1.0 / theta**powers
    if kind == "linear":
        return frequencies / factor
    return _llama3(frequencies, scaling) if kind == "llama3" else frequencies


def _llama3(frequencies: Tensor, scaling: dict) -> Tensor:
    """Long waves are stretched by `factor`, short ones stay, those between are blended."""
    factor, low, high = scaling["factor"], scaling["low_freq_factor"], scaling["high_freq_factor"]
    trained = scaling["original_max_position_embeddings"]
    wavelength = 2 * math.pi / frequencies
    share = (trained / wavelength - low) / (high - low)
    blended = (1 - share) * frequencies / factor + share * frequencies
    stretched = torch.where(wavelength > trained / low, frequencies / factor, frequencies)
    between = (wavelength <= trained / low) & (wavelength >= trained / high)
    return torch.where(between, blended, stretched)


def rope_table(config: ModelConfig, length: int, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
    """(cos, sin), float32 [length, D], for positions 0 to length - 1; both halves of D hold the same angles."""
    angles = torch.outer(torch.arange(length, dtype=torch.float32), inverse_frequencies(config, length))
    angles = torch.cat((angles, angles), dim=-1).to(device)
    return angles.cos(), angles.sin()


def apply_rope(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn every pair (x[i], x[i + D/2]) of x [B, H, N, D] by its angle.

    cos, sin   [N, D], or [B, 1, N, D] where each sequence has its own positions
    """
    half = x.shape[-1] // 2
    turned = torch.cat((-x[..., half:], x[..., :half]), dim=-1)
    return x * cos + turned * sin
