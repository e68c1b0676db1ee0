"""Our model against transformers': the same logits, the same 200 greedy tokens, for our checkpoints and for random ones of every family.

    python3 tests/llm_parity.py [--device cuda] [--only NAME]     prints a line a checkpoint and exits with 1 if any differs

A plain script, because transformers is no dependency of the course: tests/test_llm_parity.py runs it in an environment of its own.
Random checkpoints are written by transformers itself (save_pretrained), so the file layout is theirs. Both sides compute in float32.
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch

from course_lib.llm import KVCache, generate, load_model, load_tokenizer
from course_lib.llm.loading import CHECKPOINTS, OWN

SIZES = {
    "vocab_size": 320,
    "hidden_size": 96,
    "intermediate_size": 160,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 1,
    "initializer_range": 0.2,  # far from uniform: greedy choices are clear
}
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64}
# name: (family, changes)
RANDOM = {
    "llama": ("llama", {}),
    "llama, tied, biases": ("llama", {"tie_word_embeddings": True, "attention_bias": True, "mlp_bias": True}),
    "llama, head_dim 32, all heads": ("llama", {"head_dim": 32, "num_key_value_heads": 6}),
    "llama, llama3 rope, in two files": ("llama", {"rope": LLAMA3, "theta": 500000.0}),
    "llama, linear rope": ("llama", {"rope": {"rope_type": "linear", "factor": 4.0}}),
    "llama, dynamic rope, past its length": ("llama", {"rope": {"rope_type": "dynamic", "factor": 2.0}, "max_position_embeddings": 128}),
    "qwen2": ("qwen2", {}),
    "qwen2, tied": ("qwen2", {"tie_word_embeddings": True, "theta": 1e6}),
    "qwen3": ("qwen3", {"head_dim": 32}),
    "qwen3, tied, biases": ("qwen3", {"head_dim": 16, "tie_word_embeddings": True, "attention_bias": True, "theta": 1e6}),
}
CLASSES = {"llama": ("LlamaConfig", "LlamaForCausalLM"), "qwen2": ("Qwen2Config", "Qwen2ForCausalLM"), "qwen3": ("Qwen3Config", "Qwen3ForCausalLM")}


SPOILS = {  # ways to be wrong, for the test of this test
    "theta": lambda model: setattr(model, "config", model.config.replace(rope_theta=20_000.0)),
    "norm": lambda model: [setattr(layer.self_attn, "k_norm", torch.nn.Identity()) for layer in model.layers],
}


def make(folder: Path, family: str, changes: dict, files: int = 1) -> None:
    """A random checkpoint, written by transformers."""
    import transformers

    changes = dict(changes)
    theta, rope = changes.pop("theta", 10000.0), changes.pop("rope", {"rope_type": "default"})
    if int(transformers.__version__.split(".")[0]) >= 5:
        changes["rope_parameters"] = {"rope_theta": theta, **rope}
    else:
        changes |= {"rope_theta": theta, "rope_scaling": None if rope["rope_type"] == "default" else rope}
    config_class, model_class = (getattr(transformers, name) for name in CLASSES[family])
    torch.manual_seed(0)
    model = model_class(config_class(**{**SIZES, **changes})).float()
    for name, weight in model.named_parameters():  # norms and biases too, or a forgotten one would not show
        if weight.dim() == 1:
            weight.data.normal_(0.0 if name.endswith("bias") else 1.0, 0.2)
    size = sum(weight.numel() for weight in model.parameters()) * 4
    model.save_pretrained(folder, max_shard_size=f"{size // files // 1000 + 60}KB" if files > 1 else "5GB")


def differences(folder: Path, device: str, prompt: torch.Tensor, tokens: int = 200, spoil: str | None = None) -> dict:
    """The largest difference of logits, and where greedy texts part (None: nowhere). On a GPU the reference runs there too."""
    import transformers

    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").to(device).eval()
    ours = load_model(folder, device, torch.float32)
    if spoil:
        SPOILS[spoil](ours)
    prompt = prompt.to(device)
    with torch.no_grad():
        wanted = theirs(prompt).logits
        got = ours(prompt)
        cache = KVCache(ours.config, prompt.shape[0], prompt.shape[1], device)
        in_steps = torch.cat([ours(part, cache=cache) for part in (prompt[:, :7], prompt[:, 7:8], prompt[:, 8:])], dim=1)
        seen = torch.ones_like(prompt)  # said, not guessed: a prompt that starts with the padding token would lose it
        text = theirs.generate(prompt, attention_mask=seen, max_new_tokens=tokens, do_sample=False, eos_token_id=None)
        ours_text = generate(ours, prompt, tokens, stop=False)
    apart = (text != ours_text).any(dim=0).nonzero()
    return {
        "logits": (wanted - got).abs().max().item() / wanted.abs().max().item(),
        "cached": (wanted - in_steps).abs().max().item() / wanted.abs().max().item(),
        "parts at": int(apart[0]) - prompt.shape[1] if len(apart) else None,
        "tokens": text.shape[1] - prompt.shape[1],
    }


def cases(only: str | None, folder: Path):
    """(name, checkpoint, prompt) of everything that is asked for."""
    import transformers

    for name in OWN:
        if (only is None or only == name) and (CHECKPOINTS / name / "model.safetensors").is_file():
            text = "class Stack:\n    def __init__(self):\n        self.items = []\n\n    def push(self, item):\n"
            ids = load_tokenizer(name).encode(text)
            theirs = transformers.AutoTokenizer.from_pretrained(CHECKPOINTS / name)
            assert theirs(text)["input_ids"] == ids and theirs.decode(ids, skip_special_tokens=True) == load_tokenizer(name).decode(ids) == text
            yield name, CHECKPOINTS / name, torch.tensor([ids])
    for number, (name, (family, changes)) in enumerate(RANDOM.items()):
        if only is None or only == name:
            path = folder / str(number)
            make(path, family, changes, files=2 if "two files" in name else 1)
            generator = torch.Generator().manual_seed(number)
            yield name, path, torch.randint(2, SIZES["vocab_size"], (2, 40), generator=generator)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="our model against transformers'")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--only")
    parser.add_argument("--spoil", choices=SPOILS)
    arguments = parser.parse_args(argv)
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.backends.cuda.matmul.allow_tf32 = False
    wrong = seen = 0
    with tempfile.TemporaryDirectory() as folder:
        for name, path, prompt in cases(arguments.only, Path(folder)):
            found = differences(path, arguments.device, prompt, spoil=arguments.spoil)
            bad = max(found["logits"], found["cached"]) > 2e-5 or found["parts at"] is not None or found["tokens"] != 200
            wrong, seen = wrong + bad, seen + 1
            print(f"{'DIFFERS' if bad else 'same   '} {name}: {found}", flush=True)
    print(f"transformers {transformers.__version__}, torch {torch.__version__}, {arguments.device}: {seen} checkpoints, {wrong} differ")
    return 1 if wrong or not seen else 0


if __name__ == "__main__":
    sys.exit(main())
