"""A checkpoint in Hugging Face layout, so that transformers loads what the course trained."""

import json
from pathlib import Path

import torch

from course_lib.llm.model import Llama
from tools.train_llm.corpus import END


def write_checkpoint(model: Llama, tokenizer: Path, folder: Path, dtype: torch.dtype = torch.bfloat16) -> None:
    """config.json, generation_config.json, model.safetensors (bfloat16), tokenizer.json, tokenizer_config.json."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    config = model.config.replace(dtype=str(dtype).removeprefix("torch."))
    weights = {}
    for name, weight in model.state_dict().items():
        if name == "lm_head.weight":
            if config.tie_embeddings:
                continue
        else:
            name = f"model.{name}"
        weights[name] = weight.detach().to("cpu", dtype).contiguous()
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    end = config.eos_tokens[0]
    _write(folder / "config.json", config.to_hf())
    _write(folder / "generation_config.json", {"bos_token_id": config.bos_token, "eos_token_id": end, "pad_token_id": end})
    _write(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": config.max_positions,
            "bos_token": END,
            "eos_token": END,
            "pad_token": END,
            "clean_up_tokenization_spaces": False,
        },
    )
    with_start(tokenizer, folder / "tokenizer.json")


def with_start(source: Path, place: Path) -> None:
    """The tokenizer, told to put END in front of every text: in training every file began with it."""
    from tokenizers import Tokenizer, processors

    tokenizer = Tokenizer.from_file(str(source))
    start = (END, tokenizer.token_to_id(END))
    tokenizer.post_processor = processors.TemplateProcessing(single=f"{END} $A", pair=f"{END} $A $B", special_tokens=[start])
    tokenizer.save(str(place))


def _write(path: Path, said: dict) -> None:
    path.write_text(json.dumps(said, indent=1) + "\n", encoding="utf-8")
