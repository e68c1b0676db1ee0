"""Checkpoints in Hugging Face layout, from the course's own two, a folder, or the hub.

model = load_model("target")                         # or "draft": shipped with the course
model = load_model("path/to/checkpoint", "cuda")     # config.json, *.safetensors
model = load_model("Qwen/Qwen3-0.6B", "cuda")        # fetched, where the hub can be reached
tokenizer = load_tokenizer("target")
"""

import json
from pathlib import Path

import torch
from torch import Tensor

from course_lib.llm.config import ModelConfig
from course_lib.llm.model import Llama
from course_lib.llm.tokenizer import Tokenizer

CHECKPOINTS = Path(__file__).resolve().parent / "checkpoints"
OWN = ("target", "draft")
DTYPES = (torch.float32, torch.float16, torch.bfloat16)
FETCHED = ["config.json", "generation_config.json", "*.safetensors", "model.safetensors.index.json", "tokenizer*.json"]


def load_model(source: str | Path = "target", device: torch.device | str = "cpu", dtype: torch.dtype | None = None) -> Llama:
    """A Llama, Qwen2 or Qwen3 checkpoint, ready to run (eval mode, no gradients).

    source   "target", "draft", a folder, or a name on the Hugging Face hub
    dtype    float32, float16 or bfloat16; default: float32 on a CPU, on a GPU the file's own where the GPU computes in it
    """
    if dtype is not None and dtype not in DTYPES:
        raise ValueError(f"load_model: dtype is {dtype}; choose torch.float32, torch.float16 or torch.bfloat16 (quantising is chapter 12's)")
    folder = checkpoint_folder(source)
    config = ModelConfig.from_hf(folder)
    dtype = dtype or _default_dtype(config, torch.device(device))
    weights = read_weights(folder)
    with torch.device("meta"):
        model = Llama(config)
    return fill(model, weights, device, dtype, str(folder))


def load_tokenizer(source: str | Path = "target") -> Tokenizer:
    """The tokenizer of a checkpoint: the same names as load_model."""
    return Tokenizer(checkpoint_folder(source))


def checkpoint_folder(source: str | Path = "target") -> Path:
    """Where a checkpoint's files are; fetches it where `source` is a name on the hub."""
    if str(source) in OWN:
        return CHECKPOINTS / str(source)
    path = Path(source).expanduser()
    if path.is_dir():
        return path
    if path.is_file():
        raise ValueError(f"{path} is a file; name the folder that holds config.json and the weights")
    if isinstance(source, Path) or str(source).count("/") != 1 or str(source).startswith((".", "/", "~")):
        raise FileNotFoundError(f"there is no folder {source}; name a folder, 'target' or 'draft', or a model of the hub such as Qwen/Qwen3-0.6B")
    return _from_hub(str(source))


def _from_hub(name: str) -> Path:
    """Fetch a model's files, or say why not in a sentence."""
    try:
        from huggingface_hub import errors, snapshot_download
    except ImportError:
        raise RuntimeError(
            f"{name} is not a folder here, and huggingface_hub, which would fetch it, is not installed: pip install huggingface_hub"
        ) from None
    try:
        return Path(snapshot_download(name, allow_patterns=FETCHED))
    except errors.GatedRepoError:
        raise RuntimeError(f"{name} asks for its licence to be accepted: do that on its page of the hub, then `hf auth login`") from None
    except errors.RepositoryNotFoundError:
        raise FileNotFoundError(f"the hub has no model {name} (or it is private), and there is no folder of that name here") from None
    except Exception as error:  # no route, no name, a proxy's refusal: each library below has its own
        raise RuntimeError(
            f"{name} could not be fetched from the hub ({type(error).__name__}); without a network use 'target' or 'draft', "
            "or the folder of a checkpoint that you already have"
        ) from error


def read_weights(folder: Path) -> dict[str, Tensor]:
    """Every tensor of model.safetensors, or of the files that model.safetensors.index.json lists."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    whole, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if index.is_file():
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    elif whole.is_file():
        names = [whole.name]
    else:
        raise FileNotFoundError(_no_weights(folder))
    weights: dict[str, Tensor] = {}
    for name in names:
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{folder} lists {name} in {index.name}, but the file is not there; the download is incomplete")
        try:
            weights |= load_file(folder / name)
        except SafetensorError as error:
            raise ValueError(f"{folder / name} is damaged or half downloaded ({error})") from None
    return weights


def _no_weights(folder: Path) -> str:
    old = sorted(path.name for path in folder.glob("*.bin")) if folder.is_dir() else []
    if old:
        return f"{folder} has {old[0]}, a pickle, which the course does not open; convert it to model.safetensors with save_pretrained"
    return f"{folder} has neither model.safetensors nor model.safetensors.index.json; is the checkpoint there?"


def fill(model: Llama, weights: dict[str, Tensor], device: torch.device | str, dtype: torch.dtype, where: str = "the checkpoint") -> Llama:
    """Give a model (on the meta device) its weights, by Hugging Face's names; a missing, unknown or misshapen one is an error in a sentence."""
    tied = model.config.tie_embeddings
    named = {name.removeprefix("model."): weight for name, weight in weights.items() if not name.endswith("rotary_emb.inv_freq")}
    if tied:
        named.pop("lm_head.weight", None)  # some files hold it twice
        named["lm_head.weight"] = named.get("embed_tokens.weight", torch.empty(0))
    expected = model.state_dict()
    if missing := sorted(set(expected) - set(named)):
        raise ValueError(f"{where} has no weight {missing[0]} ({len(missing)} missing); its config.json does not fit its weights")
    if unknown := sorted(set(named) - set(expected)):
        raise ValueError(f"{where} has a weight {unknown[0]} ({len(unknown)} unknown) that the course's model has no place for")
    for name, weight in named.items():
        if weight.shape != expected[name].shape:
            raise ValueError(f"{where}: {name} is {list(weight.shape)}, and config.json asks for {list(expected[name].shape)}")
        if not weight.is_floating_point() or weight.element_size() < 2:
            raise ValueError(f"{where}: {name} is stored as {weight.dtype}; the course loads float32, float16 and bfloat16 weights")
    placed = {name: weight.to(device=device, dtype=dtype) for name, weight in named.items()}
    model.load_state_dict(placed, assign=True)
    if tied:
        model.lm_head.weight = model.embed_tokens.weight
    return model.eval().requires_grad_(False)


def _default_dtype(config: ModelConfig, device: torch.device) -> torch.dtype:
    if device.type != "cuda":
        return torch.float32
    stored = getattr(torch, config.dtype.removeprefix("torch."), torch.float16)
    if stored == torch.bfloat16 and torch.cuda.get_device_capability(device) < (8, 0):
        return torch.float16  # before Ampere bfloat16 is emulated
    return stored if stored in DTYPES else torch.float16
