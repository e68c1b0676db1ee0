"""Make the course's language model again.

    python -m tools.train_llm prepare --out .dev/corpus            (needs tokenizers; no GPU; 1-2 minutes)
    python -m tools.train_llm train --corpus .dev/corpus --out DIR (one GPU, about 5 minutes; `--tiny` tries it all on a CPU in one)
    python -m tools.train_llm card                                 (model card and picture, from the committed training.json)

`train` writes DIR/target and DIR/draft in Hugging Face layout, and DIR/training.json: curves, held-out perplexity, samples, acceptance.
"""

import argparse
import json
import math
import sys
import sysconfig
import time
from pathlib import Path

import numpy as np
import torch

from tools.train_llm import corpus, measure, recipe
from tools.train_llm.files import write_checkpoint

TRIALS = (
    recipe.Recipe("target, 10 epochs", epochs=10, seconds=60, dropout=0.1),
    recipe.Recipe("target, 24 epochs", epochs=24, seconds=120, dropout=0.2),
)
DRAFT = recipe.Recipe("draft", epochs=30, seconds=75, dropout=0.0, rate=4e-3)


def tiny(one: recipe.Recipe) -> recipe.Recipe:
    return recipe.Recipe(**{**vars(one), "epochs": 1, "seconds": 20, "batch": 2, "evaluations": 2})


def shrunk(config):
    return config.replace(hidden_size=64, num_layers=1, num_heads=2, num_kv_heads=1, head_dim=32, intermediate_size=64)


def train(arguments: argparse.Namespace) -> dict:
    """Everything after `prepare`: the trials, the draft, the measurements, the files."""
    started = time.perf_counter()
    device = arguments.device or ("cuda" if torch.cuda.is_available() else "cpu")
    compiled = device.startswith("cuda") and not arguments.eager
    torch.set_float32_matmul_precision("high")
    torch._dynamo.config.suppress_errors = True  # a model that does not compile trains all the same, slower
    with np.load(arguments.corpus / "tokens.npz") as stored:
        ids = {name: stored[name] for name in stored.files}
    trials, draft_recipe = TRIALS, DRAFT
    said = json.loads((arguments.corpus / "corpus.json").read_text(encoding="utf-8"))
    target_config, draft_config = recipe.target_config(said["vocab"]), recipe.draft_config(said["vocab"])
    if arguments.tiny:
        trials, draft_recipe = tuple(tiny(one) for one in TRIALS), tiny(DRAFT)
        target_config, draft_config = shrunk(target_config), shrunk(draft_config)
        ids = {name: some[:9000] for name, some in ids.items()}
    logs, target, chosen = {}, None, ""
    for one in trials:
        model = recipe.initialise(recipe.Llama(target_config), seed=0).to(device)
        logs[one.name] = recipe.train(model, one, ids, device, compiled=compiled)
        if target is None or logs[one.name]["valid"] < logs[chosen]["valid"]:
            target, chosen = model, one.name
    draft = recipe.initialise(recipe.Llama(draft_config), seed=1).to(device)
    logs["draft"] = recipe.train(draft, draft_recipe, ids, device, teacher=target, compiled=compiled)
    result = {
        "corpus": said,
        "chosen": chosen,
        "runs": logs,
        "machine": torch.cuda.get_device_name() if device.startswith("cuda") else "CPU",
        "torch": torch.__version__,
    }
    models = {"target": target, "draft": draft}
    for name, model in models.items():
        write_checkpoint(model, arguments.corpus / "tokenizer.json", arguments.out / name)
    _write(arguments.out, result)
    result |= evaluate(models, ids, arguments.corpus, device, arguments.tiny)
    result["seconds"] = time.perf_counter() - started
    _write(arguments.out, result)
    return result


def _write(out: Path, result: dict) -> None:
    (out / "training.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def evaluate(models: dict, ids: dict, folder: Path, device: str, small: bool) -> dict:
    """Held-out perplexity of the weights as they are stored (bfloat16), samples, acceptance."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    held_out, samples = {}, {}
    for name, model in models.items():
        for weight in model.parameters():
            weight.data = weight.data.bfloat16().float()
        loss = recipe.held_out_loss(model, ids["test"], device, torch.float32, batch=8)
        raw = len(tokenizer.decode(ids["test"].tolist()).encode())
        held_out[name] = {"nats a token": loss, "perplexity": math.exp(loss), "bits a byte": loss / math.log(2) * len(ids["test"]) / raw}
        samples[name] = {}
        for prompt in measure.PROMPTS:
            tokens = torch.tensor([[0, *tokenizer.encode(prompt).ids]], device=device)
            count = 8 if small else 200
            texts = {f"temperature {t}": tokenizer.decode(measure.write(model, tokens, count, t)[0].tolist()) for t in (0.0, 0.8)}
            samples[name][prompt] = texts
        print(f"{name}: held-out perplexity {held_out[name]['perplexity']:.3f}", flush=True)
    B, N, count = (2, 32, 16) if small else (64, 256, 200)
    starts = np.linspace(0, len(ids["test"]) - N - 1, B).astype(int)
    prompts = torch.from_numpy(np.stack([ids["test"][s : s + N] for s in starts]).astype(np.int64)).to(device)
    rates = [measure.acceptance(models["target"], models["draft"], prompts, count, g, t) for t in (0.0, 0.8, 1.0) for g in (1, 2, 4, 6, 8)]
    for row in rates:
        print("acceptance", {name: round(value, 3) for name, value in row.items()}, flush=True)
    return {"held out": held_out, "samples": samples, "acceptance": rates}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.train_llm", description="make the course's language model again")
    commands = parser.add_subparsers(dest="command", required=True)
    first = commands.add_parser("prepare", help="corpus and tokenizer, from this interpreter's standard library")
    first.add_argument("--stdlib", type=Path, default=Path(sysconfig.get_paths()["stdlib"]))
    first.add_argument("--out", type=Path, default=Path(".dev/corpus"))
    second = commands.add_parser("train", help="target, then draft, then measurements")
    second.add_argument("--corpus", type=Path, default=Path(".dev/corpus"))
    second.add_argument("--out", type=Path, required=True)
    second.add_argument("--device", help="default: the GPU where there is one")
    second.add_argument("--eager", action="store_true", help="without torch.compile")
    second.add_argument("--tiny", action="store_true", help="minute models on a scrap of the text: does it all run?")
    commands.add_parser("card", help="the model card and the picture of the training, from course_lib/llm/checkpoints/training.json")
    arguments = parser.parse_args(argv)
    if arguments.command == "card":
        from tools.train_llm.card import write

        print(*write(), sep="\n")
    elif arguments.command == "prepare":
        said = corpus.prepare(arguments.stdlib, arguments.out)
        print(json.dumps(said["splits"], indent=1))
    else:
        if not (arguments.corpus / "tokens.npz").is_file():
            raise SystemExit(
                f"train: {arguments.corpus}/tokens.npz is not there; run `python -m tools.train_llm prepare --out {arguments.corpus}` first"
            )
        result = train(arguments)
        print(f"done in {result['seconds']:.0f} s: {arguments.out}/target, {arguments.out}/draft, {arguments.out}/training.json")
    return 0


if __name__ == "__main__":
    sys.exit(main())
