"""How the language model was made: the corpus, the recipe, the measurements, and the card that is written from them. Nothing is trained for long."""

import copy
import json
import math

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer

from course_lib.figures import core
from course_lib.figures.training import training_curves
from course_lib.llm import Llama, ModelConfig, load_model, load_tokenizer
from course_lib.llm.loading import CHECKPOINTS
from tools.train_llm import card, corpus, measure, recipe
from tools.train_llm.files import write_checkpoint

TINY = ModelConfig(
    vocab_size=16, hidden_size=16, num_layers=1, num_heads=2, num_kv_heads=1, head_dim=8, intermediate_size=16, max_positions=1024, bos_token=0
)


def made(seed=0, config=TINY):
    model = recipe.initialise(Llama(config), seed)
    for weight in model.parameters():
        weight.data *= 12 if weight.dim() == 2 else 1
    return model.eval()


# ---- corpus ----


def test_a_file_keeps_its_split():
    assert [corpus.split_of(path) for path in ("ast.py", "locale.py", "heapq.py", "json/decoder.py")] == ["test", "test", "train", "train"]
    count = {name: sum(corpus.split_of(f"{i}.py") == name for i in range(4000)) / 40 for name in ("train", "valid", "test")}
    assert all(abs(count[name] - share) < 1 for name, share in corpus.SHARES.items()), count


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        ("def f(x):\n    return x\n" * 20, True),
        ("x = 1\n", False),  # too short to be worth a document
        ("x = '" + "ab" * 300 + "'\n" * 3, False),
        ("TABLE = [0x1234, 0x5678, 0x9999]\n" * 20, False),
        ("# gr\N{LATIN SMALL LETTER U WITH DIAERESIS}n\n" * 40, False),
    ],
)
def test_what_reads_as_python(text, fits):
    assert corpus.usable(text) == fits


@pytest.fixture
def stdlib(tmp_path):
    """A small library: enough text for a small vocabulary, and files that are left out."""
    for i in range(200):
        (tmp_path / f"module_{i}.py").write_text(f"def function_{i}(value):\n    '''Return it.'''\n    return value + {i}   \n" * 8, encoding="utf-8")
    for name in ("encodings/cp037.py", "pydoc_data/topics.py", "site-packages/six.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("def left_out():\n    pass\n" * 20, encoding="utf-8")
    (tmp_path / "latin.py").write_bytes(b"# \xfc\n" * 100)
    return tmp_path


def test_documents_start_with_their_path(stdlib):
    found = corpus.documents(stdlib)
    assert [name for name, _ in found] == sorted(f"module_{i}.py" for i in range(200))
    assert found[0][1].startswith("# module_0.py\ndef function_0(value):\n") and "   \n" not in found[0][1]
    with pytest.raises(SystemExit, match="name the folder that holds heapq.py"):
        corpus.documents(stdlib / "site-packages" / "none")
    with pytest.raises(SystemExit, match="1 files under .* leave none for"):
        corpus.prepare(stdlib / "site-packages", stdlib / "out")


def test_prepare_writes_tokens_that_decode_to_the_text(stdlib, tmp_path):
    out = tmp_path / "out"
    said = corpus.prepare(stdlib, out, vocab=300)
    tokenizer = Tokenizer.from_file(str(out / "tokenizer.json"))
    with np.load(out / "tokens.npz") as arrays:
        sizes = {name: len(arrays[name]) for name in arrays.files}
        text = tokenizer.decode(arrays["train"].tolist(), skip_special_tokens=False)
    assert sizes == {name: split["tokens"] for name, split in said["splits"].items()} and tokenizer.get_vocab_size() <= 300
    first = next(text for name, text in corpus.documents(stdlib) if corpus.split_of(name) == "train")
    assert text.startswith(corpus.END + first + corpus.END)
    assert corpus.prepare(stdlib, tmp_path / "again", vocab=300) == said


def test_strings_and_runs_of_spaces_stay_whole():
    """A quote and a name are not cut as if it were English; an indentation is one token, a number one token a digit."""
    tokenizer = load_tokenizer()
    pieces = [tokenizer.decode([token]) for token in tokenizer.encode("        return {'self': 1024}", special=False)]
    assert "".join(pieces) == "        return {'self': 1024}" and {"1", "0", "2", "4"} <= set(pieces)
    assert pieces[0].isspace() and "self" in "".join(pieces[1:5]) and "'s" not in pieces


# ---- recipe ----


def test_batches_cover_the_text_and_are_shifted_by_one():
    ids = np.arange(10 * recipe.CONTEXT + 700, dtype=np.uint16)
    source = recipe.batches(ids, 2, seed=0)
    rows = np.concatenate([next(source) for _ in range(4)])
    assert rows.shape == (8, recipe.CONTEXT + 1) and rows.dtype == np.int64
    assert (np.diff(rows, axis=1) == 1).all() and len(set(rows[:, 0] // recipe.CONTEXT)) == 8


def test_the_rate_rises_holds_and_falls_to_nothing():
    one = recipe.Recipe("r", epochs=1, seconds=1, rate=2.0, warm_up=0.1, flat=0.5)
    rates = [recipe.scheduled(step, 100, one) for step in range(101)]
    assert rates[0] < rates[5] < 2.0 and set(rates[10:51]) == {2.0} and rates[75] == pytest.approx(1.0) and rates[100] == 0


def test_training_learns_and_keeps_its_best_weights(capsys):
    """A text that repeats itself: a few steps must halve the loss; the hooks that drop out are gone afterwards."""
    ids = np.tile(np.arange(16, dtype=np.uint16), 600)
    model = recipe.initialise(Llama(TINY), 0)
    before = recipe.held_out_loss(model.eval(), ids[:2100], "cpu", torch.float32)
    one = recipe.Recipe("tiny", epochs=4, seconds=30, dropout=0.1, rate=4e-2, batch=2, evaluations=3)
    log = recipe.train(model, one, {"train": ids, "valid": ids[:2100]}, "cpu")
    assert before == pytest.approx(math.log(16), rel=0.05) and log["valid"] < before / 2
    assert recipe.held_out_loss(model, ids[:2100], "cpu", torch.float32) == pytest.approx(min(p["valid"] for p in log["curve"]))
    assert not any(module._forward_hooks for module in model.modules()) and not model.training


def test_a_student_comes_closer_to_its_teacher(capsys):
    teacher, student = made(0), recipe.initialise(Llama(TINY), 1)
    rows = torch.randint(0, 16, (4, 64), generator=torch.Generator().manual_seed(0))

    def away():
        with torch.no_grad():
            a, b = (m.eval()(rows).log_softmax(-1) for m in (teacher, student))
        return (a.exp() * (a - b)).sum(-1).mean().item()

    first = away()
    ids = np.random.default_rng(0).integers(0, 16, 5000).astype(np.uint16)
    one = recipe.Recipe("student", epochs=8, seconds=30, dropout=0.0, rate=2e-2, batch=1, evaluations=2)
    recipe.train(student, one, {"train": ids, "valid": ids[:2100]}, "cpu", teacher=teacher)
    assert away() < first / 2


# ---- measurements ----


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_perfect_draft_is_always_accepted(temperature):
    prompts = torch.randint(0, 16, (3, 5))
    found = measure.acceptance(made(), made(), prompts, 12, 3, temperature)
    assert found["accepted of judged"] == 1 and found["tokens a round"] == 4


def test_acceptance_is_what_the_two_distributions_share():
    """With one drafted token the chance is the sum of min(p, q), here known: both models ignore what they read."""
    target, draft = made(0), made(1)
    for model, logits in ((target, [2.0, 0.0]), (draft, [0.0, 0.0])):
        for layer in model.layers:
            layer.self_attn.o_proj.weight.data.zero_()
            layer.mlp.down_proj.weight.data.zero_()
        model.embed_tokens.weight.data.zero_()
        model.embed_tokens.weight.data[:, 0] = 1.0  # every token looks the same
        model.lm_head.weight = torch.nn.Parameter(torch.full((16, 16), 0.0))
        model.lm_head.weight.data[:, 0] = torch.tensor(logits + [-20.0] * 14) / 4.0  # the norm makes the hidden state 4 in the first place
    p, q = torch.tensor([[2.0, 0.0], [0.0, 0.0]]).softmax(-1)
    found = measure.acceptance(target, draft, torch.zeros(64, 2, dtype=torch.long), 60, 1, 1.0)
    assert found["accepted of judged"] == pytest.approx(torch.minimum(p, q).sum().item(), abs=0.03)


def test_writing_continues_the_prompt():
    prompts = torch.randint(0, 16, (2, 4))
    text = measure.write(made(), prompts, 6, 0.0)
    assert text.shape == (2, 10) and torch.equal(text[:, :4], prompts)
    assert torch.equal(text, measure.write(made(), prompts, 6, 0.0, seed=9))


def test_a_written_checkpoint_is_read_again(tmp_path):
    config = TINY.replace(vocab_size=2048, eos_tokens=(0,))
    model = made(config=config)
    write_checkpoint(model, CHECKPOINTS / "target" / "tokenizer.json", tmp_path / "new")
    again = load_model(tmp_path / "new")
    assert again.config == config.replace(dtype="bfloat16")
    assert torch.equal(again.embed_tokens.weight, model.embed_tokens.weight.bfloat16().float())
    assert load_tokenizer(tmp_path / "new").encode("x = 1")[0] == 0


# ---- what is committed ----


def test_the_card_is_the_one_of_the_training():
    training = card.said()
    written = (CHECKPOINTS / "README.md").read_text(encoding="utf-8")
    assert written == card.card(training), "run python -m tools.train_llm card"
    changed = copy.deepcopy(training)
    changed["held out"]["target"]["perplexity"] = 99.5
    assert "99.50" in card.card(changed) and "99.50" not in written
    assert card.PICTURE.is_file() and (CHECKPOINTS / "LICENSE-PYTHON.txt").read_text(encoding="utf-8").count("Python Software Foundation") > 3


def test_the_training_that_is_told_is_the_one_that_is_shipped():
    training = json.loads((CHECKPOINTS / "training.json").read_text(encoding="utf-8"))
    for name, run in (("target", training["chosen"]), ("draft", "draft")):
        assert sum(weight.numel() for weight in load_model(name).parameters()) == training["runs"][run]["parameters"]
    low = [row["accepted of judged"] for row in training["acceptance"] if row["temperature"] > 0]
    assert all(0.5 < rate < 0.9 for rate in low)
    prompt, kind = card.SHOWN
    tokens = load_tokenizer().encode(prompt)
    greedy = measure.write(load_model("target"), torch.tensor([tokens]), 12, 0.0)
    assert training["samples"]["target"][prompt]["temperature 0.0"].startswith(load_tokenizer().decode(greedy[0]))


def test_the_curve_holds_its_words():
    picture = card.curves(card.said())
    assert core.crowding(picture.figure) == [] and "ends at" in picture.title and "held-out" in picture.alt
    short = {"tokens": [1e6, 2e6], "held out": [3.0, 2.0]}
    assert core.crowding(training_curves({"one": short, "two": {**short, "training": [2.0, 1.0]}}).figure) == []


@pytest.mark.parametrize(
    "runs",
    [
        {},
        {"a": {"tokens": [1], "held out": [2.0]}},
        {"a": {"tokens": [1, 2], "held out": [2.0]}},
        {"a": {"tokens": [1, 2], "held out": [2.0, math.nan]}},
    ],
)
def test_curves_that_cannot_be_drawn(runs):
    with pytest.raises(ValueError, match="training_curves"):
        training_curves(runs)
