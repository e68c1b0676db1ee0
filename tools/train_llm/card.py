"""The model card and the picture of the training, both made from training.json, so that no number in them was typed.

python -m tools.train_llm card        (after the checkpoints and training.json were put into course_lib/llm/checkpoints)
"""

import json
from pathlib import Path

from course_lib.figures.training import training_curves
from course_lib.llm.config import ModelConfig
from course_lib.llm.loading import CHECKPOINTS
from course_lib.paths import ROOT

PICTURE = ROOT / "docs" / "images" / "language-model.png"
SHOWN = ("class Stack:\n    def __init__(self):\n        self.items = []\n\n    def push(self, item):\n", "temperature 0.8")


def said() -> dict:
    """training.json of the committed checkpoints."""
    return json.loads((CHECKPOINTS / "training.json").read_text(encoding="utf-8"))


def curves(training: dict):
    """The picture: the chosen target with its training loss, and the draft."""

    def line(run: dict, both: bool) -> dict:
        each = run["tokens seen"] / run["steps"]
        points = {"tokens": [p["step"] * each for p in run["curve"]], "held out": [p["valid"] for p in run["curve"]]}
        return points | ({"training": [p["train"] for p in run["curve"]]} if both else {})

    return training_curves({"target": line(training["runs"][training["chosen"]], True), "draft": line(training["runs"]["draft"], False)})


def card(training: dict, folder: Path = CHECKPOINTS) -> str:
    """README.md of the checkpoints."""
    configs = {name: ModelConfig.from_hf(folder / name) for name in ("target", "draft")}
    chosen, draft = training["runs"][training["chosen"]], training["runs"]["draft"]
    splits, held = training["corpus"]["splits"], training["held out"]
    rows = [
        ("parameters", lambda n, c, r: f"{r['parameters']:,}"),
        ("layers, hidden size", lambda n, c, r: f"{c.num_layers}, {c.hidden_size}"),
        ("heads, K/V heads, D", lambda n, c, r: f"{c.num_heads}, {c.num_kv_heads}, {c.head_dim}"),
        ("MLP", lambda n, c, r: f"{c.intermediate_size}"),
        ("vocabulary, positions", lambda n, c, r: f"{c.vocab_size:,}, {c.max_positions:,}"),
        ("held-out perplexity, a token", lambda n, c, r: f"{held[n]['perplexity']:.2f}"),
        ("held-out bits a byte", lambda n, c, r: f"{held[n]['bits a byte']:.3f}"),
        ("tokens read in training", lambda n, c, r: f"{r['tokens seen'] / 1e6:,.0f} million"),
        ("seconds of training", lambda n, c, r: f"{r['seconds']:.0f}"),
    ]
    both = (("target", configs["target"], chosen), ("draft", configs["draft"], draft))
    table = "\n".join(f"| {what} | {show(*both[0])} | {show(*both[1])} |" for what, show in rows)
    lengths = sorted({row["length"] for row in training["acceptance"]})
    rates = {(row["temperature"], row["length"]): row for row in training["acceptance"]}
    head = "| temperature | " + " | ".join(f"{n} drafted" for n in lengths) + " |\n|---|" + "---|" * len(lengths)
    accepted = "\n".join(
        f"| {t:g} | " + " | ".join(f"{rates[t, n]['accepted of judged']:.0%}, {rates[t, n]['tokens a round']:.2f}" for n in lengths) + " |"
        for t in sorted({row["temperature"] for row in training["acceptance"]})
    )
    sample = training["samples"]["target"][SHOWN[0]][SHOWN[1]].rstrip()
    others = [f"{name}: {run['valid']:.3f}" for name, run in training["runs"].items() if name not in (training["chosen"], "draft")]
    return f"""# The course's language models: target and draft

<!-- Written by `python -m tools.train_llm card` from training.json; change tools/train_llm/card.py instead. -->

Two Llama-style decoders that have read {training["corpus"]["source"]} and write text that looks like it. They exist to be run, measured, quantised
and sped up; `load_model("target")` and `load_model("draft")` load them, and so does `transformers`.

| | target | draft |
|---|---|---|
{table}

Weights are stored in bfloat16 and compared with `transformers` in float32 (tests/llm_parity.py). Held-out numbers are those of the stored weights,
on {splits["test"]["files"]} files that took no part in training or in choosing between runs, in pieces of 1,024 tokens.

![{curves(training).alt}](../../../docs/images/{PICTURE.name})

## Data

{training["corpus"]["source"][0].upper() + training["corpus"]["source"][1:]}: {splits["train"]["files"]:,} files, {splits["train"]["bytes"] / 1e6:.1f} MB,
{splits["train"]["tokens"] / 1e6:.2f} million tokens for training; {splits["valid"]["files"]} files for choosing; {splits["test"]["files"]} for the numbers above. A hash of
its path decides where a file goes. Left out: tables of encodings, the texts of `pydoc`, files in other scripts or with broken source on purpose,
tables of numbers (tools/train_llm/corpus.py has the list). Every file begins with its path as a comment. SHA-256 of the text:
`{training["corpus"]["sha256"]}`.

The sources are under the {training["corpus"]["licence"]}: LICENSE-PYTHON.txt, beside this file, with its copyright notices. The weights are
the course's and under its MIT License; where a model repeats a passage of the library word for word, that passage is the library's.

## Training

`python -m tools.train_llm train`, on one {training["machine"]}, torch {training["torch"]}, {training["seconds"]:.0f} seconds for everything.
The target is the better of {len(training["runs"]) - 1} runs by its loss on the files for choosing ({training["chosen"]}: {chosen["valid"]:.3f} nats a token; {"; ".join(others)}):
AdamW, learning rate {chosen["recipe"]["rate"]:g} held, then brought down in a line, weight decay {chosen["recipe"]["decay"]:g},
dropout {chosen["recipe"]["dropout"]:g}, {chosen["recipe"]["batch"]} sequences of 1,024 tokens a step, {chosen["steps"]:,} steps, and the weights of the best evaluation.
The draft learnt to give the target's probabilities (Kullback-Leibler divergence, and a tenth of the usual cross entropy).
training.json holds both curves, samples of both, and every setting.

## What the target accepts of the draft

Speculative decoding from 64 prompts of 256 held-out tokens, 200 tokens each. Share of proposals accepted (of those the target got to judge), and tokens a round:

{head}
{accepted}

Greedy text of so small a model falls into repetition, which a draft guesses easily: the row of temperature 0 flatters it.

## A sample (temperature 0.8; the first {len(SHOWN[0].splitlines())} lines were given)

```python
{sample}
```

## Limits

It has seen one library, in one language, and {splits["train"]["tokens"] / 1e6:.0f} million tokens of it. It knows idioms, indentation and names,
not what code does: what it writes looks right and mostly does not run. It repeats itself, most of all when greedy. It knows nothing of the world,
follows no instruction, and is no help for writing code. Beyond {configs["target"].max_positions:,} tokens it was not trained, and `generate` refuses to go there.
"""


def write() -> list[Path]:
    """Write README.md and the picture; returns their paths."""
    training = said()
    place = CHECKPOINTS / "README.md"
    place.write_text(card(training), encoding="utf-8")
    return [place, curves(training).save(PICTURE)]
