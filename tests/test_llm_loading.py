"""Checkpoints: read as Hugging Face lays them out, or refused in a sentence."""

import json
import math
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from course_lib.llm import KVCache, Llama, ModelConfig, generate, inverse_frequencies, load_model, load_tokenizer, loading
from course_lib.llm.loading import CHECKPOINTS, OWN, checkpoint_folder

SMALL = ModelConfig(vocab_size=40, num_layers=2, eos_tokens=(1,), bos_token=0)
SHAPES = {
    "llama": SMALL,
    "llama, not tied, all biases": SMALL.replace(tie_embeddings=False, qkv_bias=True, output_bias=True, mlp_bias=True),
    "qwen2": SMALL.replace(family="qwen2", qkv_bias=True, rope_theta=1e6),
    "qwen3": SMALL.replace(family="qwen3", qk_norm=True, head_dim=32, tie_embeddings=False, eos_tokens=(1, 2)),
    "llama3 rope": SMALL.replace(
        rope_scaling={"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64}
    ),
}


def written(folder, config=SMALL, shards=1, dtype=torch.float32, **said):
    """A random checkpoint in a folder: (the model, the folder). `said` changes config.json."""
    torch.manual_seed(0)
    model = Llama(config)
    for weight in model.parameters():
        weight.data.normal_(0.5 if weight.dim() == 1 else 0.0, 0.3)
        weight.data = weight.data.to(dtype).float()
    weights = {name if name == "lm_head.weight" else f"model.{name}": w.detach().to(dtype) for name, w in model.state_dict().items()}
    if config.tie_embeddings:
        del weights["lm_head.weight"]
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps({**config.to_hf(), **said}), encoding="utf-8")
    if shards == 1:
        save_file(weights, folder / "model.safetensors")
    else:
        names = sorted(weights)
        where = {name: f"model-{i % shards + 1:05d}-of-{shards:05d}.safetensors" for i, name in enumerate(names)}
        for file in set(where.values()):
            save_file({name: weights[name] for name in names if where[name] == file}, folder / file)
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}), encoding="utf-8")
    return model.eval(), folder


@pytest.mark.parametrize("name", SHAPES)
def test_a_checkpoint_comes_back(name, tmp_path):
    made, folder = written(tmp_path / "model", SHAPES[name])
    model = load_model(folder)
    assert model.config == SHAPES[name]
    tokens = torch.arange(2, 12)[None]
    with torch.no_grad():
        assert torch.equal(model(tokens), made(tokens))
    assert not model.training and not any(weight.requires_grad for weight in model.parameters())
    assert (model.lm_head.weight is model.embed_tokens.weight) == SHAPES[name].tie_embeddings


def test_shards_dtypes_and_both_spellings_of_the_path(tmp_path):
    made, folder = written(tmp_path / "model", shards=3, dtype=torch.bfloat16)
    tokens = torch.arange(2, 12)[None]
    for model in (load_model(folder), load_model(str(folder), "cpu", torch.float32)):
        with torch.no_grad():
            assert torch.equal(model(tokens), made(tokens))
    half = load_model(folder, dtype=torch.bfloat16)
    assert half(tokens).dtype == torch.bfloat16
    cache = KVCache(half.config, 1, 20, dtype=torch.bfloat16)
    assert torch.allclose(half(tokens, cache=cache).float(), made(tokens), atol=0.3)


def test_a_tied_head_that_is_stored_twice_is_read_once(tmp_path):
    _, folder = written(tmp_path / "model")
    weights = load_file(folder / "model.safetensors")
    save_file({**weights, "lm_head.weight": weights["model.embed_tokens.weight"].clone()}, folder / "model.safetensors")
    assert load_model(folder).lm_head.weight.shape == (40, 64)


def changed(folder, **weights):
    """Rewrite weights of a checkpoint: a function of the old tensor, or None to drop it."""
    stored = load_file(folder / "model.safetensors")
    for name, change in weights.items():
        name = f"model.{name}"
        if change is None:
            del stored[name]
        else:
            stored[name] = change(stored.get(name)).contiguous()
    save_file(stored, folder / "model.safetensors")


def without(name):
    return lambda folder: (folder / name).unlink()


def says(**changes):
    def change(folder):
        said = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        kept = {key: value for key, value in {**said, **changes}.items() if value != "dropped"}
        (folder / "config.json").write_text(json.dumps(kept), encoding="utf-8")

    return change


@pytest.mark.parametrize(
    ("damage", "kind", "sentence"),
    [
        (without("config.json"), FileNotFoundError, "config.json is not there"),
        (without("model.safetensors"), FileNotFoundError, "neither model.safetensors nor"),
        (lambda f: [(f / "model.safetensors").rename(f / "pytorch_model.bin")], FileNotFoundError, "a pickle, which the course does not open"),
        (lambda f: (f / "model.safetensors").write_bytes(b"12345678{}"), ValueError, "damaged or half downloaded"),
        (lambda f: (f / "config.json").write_text("{"), ValueError, "is not JSON"),
        (
            says(model_type="mamba", architectures=["MambaForCausalLM"]),
            ValueError,
            "model of type 'mamba' (MambaForCausalLM). The course reads Llama, Qwen2",
        ),
        (says(model_type="dropped"), ValueError, "model of type None"),
        (says(hidden_size="dropped"), ValueError, "does not say hidden_size"),
        (says(hidden_act="gelu"), ValueError, "activation 'gelu'"),
        (says(rope_parameters={"rope_type": "yarn", "factor": 4.0}), ValueError, "scales RoPE by 'yarn'"),
        (says(rope_parameters=None, rope_scaling={"type": "longrope"}), ValueError, "scales RoPE by 'longrope'"),
        (says(rope_parameters={"rope_type": "linear"}), ValueError, "does not say factor"),
        (says(partial_rotary_factor=0.5), ValueError, "rotates only a part"),
        (says(use_sliding_window=True), ValueError, "sliding-window"),
        (says(quantization_config={"bits": 4}), ValueError, "quantised checkpoint"),
        (says(pretraining_tp=2), ValueError, "pretraining_tp"),
        (says(num_key_value_heads=3), ValueError, "must be a multiple of K/V heads"),
        (says(vocab_size=41), ValueError, "embed_tokens.weight is [40, 64], and config.json asks for [41, 64]"),
        (says(num_hidden_layers=3), ValueError, "has no weight layers.2."),
        (says(num_hidden_layers=1), ValueError, "has a weight layers.1."),
        (lambda f: changed(f, **{"norm.weight": None}), ValueError, "has no weight norm.weight (1 missing)"),
        (lambda f: changed(f, **{"extra.weight": lambda _: torch.ones(2)}), ValueError, "has a weight extra.weight (1 unknown)"),
        (lambda f: changed(f, **{"norm.weight": lambda w: w.to(torch.int8)}), ValueError, "norm.weight is stored as torch.int8"),
        (lambda f: changed(f, **{"norm.weight": lambda w: w.to(torch.float8_e4m3fn)}), ValueError, "is stored as torch.float8_e4m3fn"),
    ],
)
def test_what_cannot_be_read_is_said(damage, kind, sentence, tmp_path):
    _, folder = written(tmp_path / "model")
    damage(folder)
    with pytest.raises(kind) as caught:
        load_model(folder)
    assert sentence in str(caught.value) and str(caught.value).count("\n") == 0


def test_a_missing_shard_is_named(tmp_path):
    _, folder = written(tmp_path / "model", shards=2)
    (folder / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="lists model-00002-of-00002.safetensors .* the download is incomplete"):
        load_model(folder)


@pytest.mark.parametrize(
    ("call", "kind", "sentence"),
    [
        (lambda f: load_model(f, dtype=torch.int8), ValueError, "choose torch.float32"),
        (lambda f: load_model(f / "config.json"), ValueError, "is a file; name the folder"),
        (lambda f: load_model("targets"), FileNotFoundError, "there is no folder targets"),
        (lambda f: load_model("./no/where"), FileNotFoundError, "there is no folder ./no/where"),
        (lambda f: load_tokenizer(f), FileNotFoundError, "tokenizer.json is not there"),
    ],
)
def test_wrong_calls(call, kind, sentence, tmp_path):
    _, folder = written(tmp_path / "model")
    with pytest.raises(kind) as caught:
        call(folder)
    assert sentence in str(caught.value)


def raised(kind):
    """An error of the hub's without the answer of a server that its constructor asks for (which library that is differs by version)."""
    return type(kind.__name__, (kind,), {"__init__": lambda self: None})()


@pytest.mark.parametrize(
    ("problem", "kind", "sentence"),
    [
        (lambda errors: OSError("no route"), RuntimeError, r"could not be fetched from the hub \(OSError\); without a network use 'target'"),
        (lambda errors: raised(errors.LocalEntryNotFoundError), RuntimeError, "without a network"),
        (lambda errors: raised(errors.GatedRepoError), RuntimeError, "licence to be accepted"),
        (lambda errors: raised(errors.RepositoryNotFoundError), FileNotFoundError, "the hub has no model nobody/nothing"),
    ],
)
def test_the_hub_says_no(problem, kind, sentence, monkeypatch):
    import huggingface_hub

    def refuse(*arguments, **more):
        raise problem(huggingface_hub.errors)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    with pytest.raises(kind, match=sentence):
        load_model("nobody/nothing")


def test_a_model_of_the_hub_is_read_from_where_it_was_put(monkeypatch, tmp_path):
    import huggingface_hub

    _, folder = written(tmp_path / "model")
    asked = []
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda name, allow_patterns: asked.append((name, allow_patterns)) or str(folder))
    assert load_model("some/model").config == SMALL
    assert asked[0][0] == "some/model" and not any("bin" in pattern for pattern in asked[0][1])


def test_the_default_dtype_is_one_the_device_computes_in(monkeypatch):
    bfloat = SMALL.replace(dtype="bfloat16")
    assert loading._default_dtype(bfloat, torch.device("cpu")) == torch.float32
    for capability, wanted in (((7, 5), torch.float16), ((9, 0), torch.bfloat16)):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device, c=capability: c)
        assert loading._default_dtype(bfloat, torch.device("cuda")) == wanted
        assert loading._default_dtype(SMALL.replace(dtype="float16"), torch.device("cuda")) == torch.float16


# ---- config.json ----


@pytest.mark.parametrize("name", SHAPES)
def test_a_config_survives_the_way_there_and_back(name):
    said = SHAPES[name].to_hf()
    assert ModelConfig.from_hf(said) == SHAPES[name]
    old = {key: value for key, value in said.items() if key != "rope_parameters"}  # as version 4 of transformers wrote it
    new = {key: value for key, value in said.items() if key not in ("rope_theta", "rope_scaling")}
    assert ModelConfig.from_hf(old) == ModelConfig.from_hf(new) == SHAPES[name]


def test_what_a_config_leaves_out():
    """Keys that real checkpoints omit: K/V heads (as many as query heads), head_dim, and the families' own habits."""
    least = {"vocab_size": 9, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 8}
    llama = ModelConfig.from_hf({**least, "model_type": "llama", "head_dim": None, "eos_token_id": [5, 6]})
    assert (llama.num_kv_heads, llama.head_dim, llama.rope_theta, llama.eos_tokens) == (4, 8, 10_000.0, (5, 6))
    assert not (llama.tie_embeddings or llama.qkv_bias or llama.qk_norm)
    assert ModelConfig.from_hf({**least, "model_type": "qwen2"}).qkv_bias and ModelConfig.from_hf({**least, "model_type": "qwen3"}).qk_norm
    assert not ModelConfig.from_hf({**least, "model_type": "qwen2", "attention_bias": True}).output_bias


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"head_dim": 5}, "must be even"),
        ({"num_layers": 0}, "num_layers must be a whole number from 1 up"),
        ({"num_heads": 3}, "must be a multiple of K/V heads"),
        ({"family": "gpt2"}, "is not one of llama"),
        ({"layers": 3}, "has no field 'layers'"),
    ],
)
def test_impossible_configs(changes, sentence):
    with pytest.raises(ValueError, match=sentence):
        SMALL.replace(**changes)


def test_rope_scalings():
    """Against the definitions, at the frequencies where each does something else."""
    plain = inverse_frequencies(SMALL)
    linear = inverse_frequencies(SMALL.replace(rope_scaling={"rope_type": "linear", "factor": 4.0}))
    assert torch.allclose(linear, plain / 4)
    dynamic = SMALL.replace(rope_scaling={"rope_type": "dynamic", "factor": 2.0})
    assert torch.equal(inverse_frequencies(dynamic, 512), plain) and torch.equal(inverse_frequencies(dynamic, 100), plain)
    longer = inverse_frequencies(dynamic, 1024)
    assert longer[0] == plain[0] and longer[-1] == pytest.approx(plain[-1].item() / 3, rel=1e-5)  # 2 x 1024 / 512 - 1 = 3
    assert dynamic.longest_text == 1024 and SMALL.longest_text == 512
    llama3 = inverse_frequencies(SHAPES["llama3 rope"])
    waves = 2 * math.pi / plain
    assert torch.equal(llama3[waves < 64 / 4], plain[waves < 64 / 4]) and torch.allclose(llama3[waves > 64], plain[waves > 64] / 8)
    between = (waves > 16) & (waves < 64)
    assert between.any() and ((llama3 < plain) & (llama3 > plain / 8))[between].all()


# ---- the course's own ----


@pytest.fixture(scope="module")
def target():
    return load_model("target")


@pytest.mark.parametrize("name", OWN)
def test_the_checkpoints_are_there_and_small(name):
    files = {path.name: path.stat().st_size for path in (CHECKPOINTS / name).iterdir()}
    assert set(files) == {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
    model = load_model(name)
    assert {weight.dtype for weight in load_file(CHECKPOINTS / name / "model.safetensors").values()} == {torch.bfloat16}
    count = sum(weight.numel() for weight in model.parameters())
    low, high = {"target": (5e6, 15e6), "draft": (5e5, 1.5e6)}[name]
    assert low < count < high
    assert load_tokenizer(name).vocab_size == model.config.vocab_size == 2048


def test_both_share_a_tokenizer_and_fit_into_forty_megabytes():
    assert (CHECKPOINTS / "target" / "tokenizer.json").read_bytes() == (CHECKPOINTS / "draft" / "tokenizer.json").read_bytes()
    assert sum(path.stat().st_size for path in CHECKPOINTS.rglob("*") if path.is_file()) < 40e6


def test_the_tokenizer():
    tokenizer = load_tokenizer()
    text = "def naïve(x):\n\treturn {'a': 1024, \"ß\": x}  # 漢字 \U0001f600\n"
    ids = tokenizer.encode(text)
    assert ids[0] == 0 and tokenizer.encode(text, special=False) == ids[1:]
    assert tokenizer.decode(ids) == text and tokenizer.decode(torch.tensor(ids)) == text
    assert tokenizer.decode(ids, special=True) == "<|endoftext|>" + text
    pieces = list(tokenizer.pieces(ids[1:]))
    assert len(pieces) == len(ids) - 1 and "".join(pieces) == text
    with pytest.raises(TypeError, match="encode takes a text, not list"):
        tokenizer.encode([text])


def test_the_target_writes_python(target):
    """Greedy: after `for i in range(` comes an argument and the colon; the idioms that every module has."""
    tokenizer = load_tokenizer()

    def continued(text, n=12):
        ids = torch.tensor([tokenizer.encode(text)])
        return tokenizer.decode(generate(target, ids, n)[0])

    first = continued("def total(items):\n    count = 0\n    for i in range(").splitlines()[2]
    compile(f"def f():\n{first}\n        pass\n", "model", "exec")
    assert continued("if __name__ ==", 8).startswith('if __name__ == "__main__":')
    assert continued("try:\n    import threading\nexcept Import", 4).startswith("try:\n    import threading\nexcept ImportError:")


def nats(model, tokens):
    logits = model(tokens[:, :-1]).float()
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten()).item()


HELD_OUT = "class Reader:\n    def __init__(self, path):\n        self.path = path\n\n    def read(self):\n        with open(self.path) as f:\n            return f.read()\n"


def test_perplexity_tells_good_weights_from_badly_quantised_ones(target):
    """Rounded to four bits a tensor, the target loses clearly; to eight, hardly. The draft is worse than the target."""
    tokens = torch.tensor([load_tokenizer().encode(HELD_OUT * 2)])
    losses = {"as it is": nats(target, tokens), "draft": nats(load_model("draft"), tokens)}
    for bits in (8, 4):
        rounded = load_model("target")
        for layer in rounded.layers:
            for weight in (w for w in layer.parameters() if w.dim() == 2):
                step = weight.abs().max() / (2 ** (bits - 1) - 1)
                weight.data = (weight / step).round() * step
        losses[bits] = nats(rounded, tokens)
    assert losses[8] < losses["as it is"] + 0.05 and losses[4] > losses["as it is"] + 0.1, losses
    assert losses["draft"] > losses["as it is"], losses


def test_folders_are_found(tmp_path):
    assert checkpoint_folder("draft") == CHECKPOINTS / "draft"
    shutil.copytree(CHECKPOINTS / "draft", tmp_path / "copy")
    assert load_model(tmp_path / "copy").config == load_model("draft").config
