"""Chapter 08: figures, memory calculator and roofline say what is computed; sizes are the published ones; the solutions run in the model."""

import pytest
import torch

from course_lib import datasheets, llm, model_sizes, roofline
from course_lib.checks.ch08_kv_cache import generating_harness, sampling_harness
from course_lib.figures import core
from course_lib.figures import kv_cache as figures
from course_lib.llm import KVCache, Llama, ModelConfig
from course_lib.widgets import decode_roofline, memory_calculator
from solutions import ch08_kv_cache as solutions

STEPS = {"without a cache": [0.004 + 0.0003 * n for n in range(160)], "with a cache": [0.005] * 160}
TIMES = {"prompt of 16": [0.006] + [0.005] * 15, "prompt of 512": [0.12] + [0.006] * 15}
CACHES = {"Llama-2-7B": (524288, "MHA, 32 K/V heads"), "Llama-3-8B": (131072, "GQA, 8 for 32 heads")}
DRAWINGS = {
    "opening": lambda: figures.opening(),
    "opening, 8": lambda: figures.opening(8),
    "rope_scores": lambda: figures.rope_scores([0, 1, 2, 3], {"key at 0": [1, 2, 1, 0], "key at 100": [1, 2, 1, 0.5]}),
    "total_time": lambda: figures.total_time(STEPS),
    "token_times": lambda: figures.token_times(TIMES),
    "batching": lambda: figures.batching([1, 2, 4, 8], [100, 190, 300, 400], [200, 400, 800, 1000], named="bound by copy and matmul"),
    "cache_a_token": lambda: figures.cache_a_token(CACHES),
    "laws": lambda: figures.laws({"temperature 1": [0.5, 0.3, 0.2], "top_k 2": [0.625, 0.375, 0]}, [" os", " sys", "\\n"]),
    "memory_bar": lambda: figures.memory_bar({"weights": 13e9, "cache": 34e9, "activations": 1e9}, 80e9, "It fits"),
    "memory_bar, too much": lambda: figures.memory_bar({"weights": 140e9, "cache": 34e9}, 80e9, "It does not fit"),
}


@pytest.mark.parametrize("name", DRAWINGS)
def test_every_figure_is_uncrowded_and_says_numbers(name):
    picture = DRAWINGS[name]()
    assert core.crowding(picture.figure) == []
    assert len(picture.alt) > 40 and any(c.isdigit() for c in picture.alt) and picture.width <= 900


def test_titles_are_computed():
    assert "21 keys and values computed without a cache, 6 with one" in DRAWINGS["opening"]().title
    assert "by 0.5 at most" in DRAWINGS["rope_scores"]().title
    assert "160 tokens: 4.5 s without a cache, 0.8 s with a cache; the last 40 took 4.7 and 1 times as long" in DRAWINGS["total_time"]().title
    assert "Prompt of 512: 120 ms to the first token, 6 ms to each" in DRAWINGS["token_times"]().title
    assert "8 sequences at a time write 4 times" in DRAWINGS["batching"]().title
    assert "512 KiB" in DRAWINGS["cache_a_token"]().title
    assert "3 (temperature 1), 2 (top_k 2)" in DRAWINGS["laws"]().title
    assert "too much" in [t.get_text().split(" 9")[0] for t in DRAWINGS["memory_bar, too much"]().figure.texts]


def test_last_over_first():
    assert figures.last_over_first([2.0] * 12) == pytest.approx(1)
    assert figures.last_over_first(range(1, 9)) == pytest.approx(15 / 3)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: figures.opening(1), "steps"),
        (lambda: figures.opening(9), "at most 8"),
        (lambda: figures.rope_scores([0, 1], {"a": [1]}), "one score a distance"),
        (lambda: figures.last_over_first([1, 2, 3]), "eight steps"),
        (lambda: figures.total_time({"a": [1, 2]}), "two ways"),
        (lambda: figures.token_times({"a": [1, 2]}), "three times"),
        (lambda: figures.batching([1, 2], [1, 2], [1, 2]), "three batches"),
        (lambda: figures.cache_a_token({"a": (1, "MHA")}), "two to ten"),
        (lambda: figures.memory_bar({"ghosts": 1}, 10, "t"), "the parts are"),
        (lambda: figures.laws({"a": [1.0], "b": [0.5, 0.5]}, ["x"]), "one share"),
        (lambda: model_sizes.size("Llama-3-9B"), "did you mean 'Llama-3-8B'"),
        (lambda: memory_calculator.state(weights="fp12"), "weights is 'fp12'"),
        (lambda: memory_calculator.state(tokens=0), "tokens"),
        (lambda: memory_calculator.state(gpu="A1000"), "no data sheet"),
        (lambda: decode_roofline.state(batch=0), "batch"),
        (lambda: decode_roofline.state(gpu="T4", dtype="bf16"), "no rate"),
    ],
)
def test_bad_data_gets_a_sentence(call, words):
    with pytest.raises(ValueError, match=words):
        call()


# ---------------------------------------------------------------- sizes


def test_parameters_are_the_published_ones():
    published = {
        "Llama-2-7B": 6_738_415_616, "Llama-2-70B": 68_976_648_192, "Llama-3-8B": 8_030_261_248, "Llama-3-70B": 70_553_706_496,
        "CodeLlama-34B": 33_743_970_304, "Mistral-7B": 7_241_732_096, "Qwen2.5-7B": 7_615_616_512, "Qwen3-8B": 8_190_735_360,
    }  # fmt: skip
    assert {name: model_sizes.size(name).params for name in published} == published


def test_the_course_model_is_the_one_that_is_shipped():
    config, size = ModelConfig.from_hf(llm.checkpoint_folder("target")), model_sizes.size("the course's model")
    assert (size.layers, size.hidden, size.heads, size.kv_heads) == (config.num_layers, config.hidden_size, config.num_heads, config.num_kv_heads)
    assert (size.head_dim, size.intermediate, size.vocab, size.context) == (
        config.head_dim, config.intermediate_size, config.vocab_size, config.max_positions,
    )  # fmt: skip
    with torch.device("meta"):
        assert sum(weight.numel() for weight in Llama(config).parameters()) == size.params


def test_sizes_and_exercises_agree():
    for one in model_sizes.SIZES.values():
        shape = (one.layers, one.kv_heads, one.head_dim)
        assert one.cache_bytes(777, 3) == solutions.kv_cache_bytes(777, *shape, batch=3)
        least = solutions.decode_step_time(4, 900, one.streamed_params, one.layers, one.heads, *shape[1:], 1e12, 1e30)
        assert least == pytest.approx(one.decode_work(4, 900).bytes / 1e12)
        busy = solutions.decode_step_time(4, 900, one.streamed_params, one.layers, one.heads, *shape[1:], 1e30, 1e12)
        assert busy == pytest.approx(one.decode_work(4, 900).flops / 1e12)


def test_the_claims_figures():
    assert solutions.kv_cache_bytes(4096, 32, 32, 128) == 2 * 2**30
    eight = model_sizes.size("Llama-3-8B")
    assert eight.cache_bytes(1) == 128 * 1024 and solutions.kv_cache_bytes(1, 32, eight.heads, 128) == 512 * 1024
    assert 2 * model_sizes.size("CodeLlama-34B").params / 1e9 == pytest.approx(67.5, abs=0.05)
    assert model_sizes.size("Llama-2-70B").cache_bytes(100_000) / 1e9 == pytest.approx(32.8, abs=0.05)


# ---------------------------------------------------------------- widgets


def test_the_calculator_counts_what_fits():
    for model, gpu, tokens in (("Llama-2-7B", "A100", 4096), ("Llama-3-8B", "L4", 512), ("Qwen3-8B", "H200", 32768)):
        one = model_sizes.size(model)
        reserve = int(one.prefill_activations(tokens))
        memory = datasheets.sheet(gpu).memory_gb * 10**9
        by_exercise = solutions.max_batch_size(memory, 2 * one.params, tokens, one.layers, one.kv_heads, one.head_dim, reserve=reserve)
        assert memory_calculator.fits(model, gpu, tokens) == by_exercise
    assert "at most 30" in memory_calculator.state().title
    assert "do not fit" in memory_calculator.state(batch=64).title
    assert "does not fit" in memory_calculator.state("Llama-3-70B", "A100").title
    assert "memory is not quality" in memory_calculator.state("Llama-2-70B", "A100", 131072, 1, gpus=8).alt


def test_states_are_uncrowded():
    crowded = []
    for model in memory_calculator.MODELS:
        for given in (("T4", 512, 1), ("B200", 131072, 1024), ("A100", 8192, 32)):
            crowded += core.crowding(memory_calculator.state(model, *given).figure)
    for model in ("Llama-3-8B", "the course's model"):
        for gpu in ("T4", "H200"):
            for tokens in (128, 131072):
                for batch in (1, 64, 1024):
                    crowded += core.crowding(decode_roofline.state(model, gpu, tokens, batch).figure)
    assert crowded == []


def test_the_roofline_says_who_waits():
    assert "waits for arithmetic, 1 sequence decoding waits for memory" in decode_roofline.state().title
    assert "256 sequences decoding wait for memory" in decode_roofline.state(batch=256).title
    cpu = roofline.Machine("a CPU", 2e10, {"fp32": 1e11})
    assert "decoding wait for arithmetic" in decode_roofline.state("the course's model", cpu, 128, 64, "fp32").title


def test_the_controls_move_the_pictures():
    made = memory_calculator.explorer()
    made.controls["model"].value = "Llama-3-8B"
    assert "Llama-3-8B on A100" in made.shown.title
    made.controls["gpus"].value = 8
    assert "8 A100" in made.shown.title
    other = decode_roofline.explorer(own=roofline.Machine("this CPU", 2e10, {"fp32": 1e11}))
    other.controls["gpu"].value = "this machine"
    assert "this CPU" in other.shown.title
    assert set(other._repr_mimebundle_()) == {"application/vnd.jupyter.widget-view+json", "text/html", "text/plain"}


def test_without_ipywidgets_there_is_a_picture(monkeypatch):
    for module in (memory_calculator, decode_roofline):
        monkeypatch.setattr(module, "controls_available", lambda: False)
        assert "pip install ipywidgets" in repr(module.explorer())


# ---------------------------------------------------------------- the solutions, inside a model


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(3)
    return Llama(ModelConfig(num_layers=3, num_heads=6, num_kv_heads=2)).eval().requires_grad_(False)


@torch.inference_mode()
def test_the_cache_and_rope_give_the_models_own_tokens(model):
    tokens = torch.randint(0, 256, (1, 9))
    usual = llm.generate(model, tokens, 20, stop=False)
    cache = KVCache(model.config, 1, 29, attend_with_cache=solutions.attend_with_cache)
    before, model.rope = model.rope, solutions.apply_rope
    try:
        mine = llm.generate(model, tokens, 20, cache=cache, stop=False)
    finally:
        model.rope = before
    assert torch.equal(mine, usual) and cache.lengths.tolist() == [28]


@torch.inference_mode()
def test_ragged_prompts_give_each_its_own_tokens(model):
    """Two prompts padded at the end, rewound to their lengths: each goes on as it would alone."""
    prompts = [torch.randint(0, 256, (1, n)) for n in (5, 8)]
    batch = torch.zeros(2, 8, dtype=torch.int64)
    for row, prompt in zip(batch, prompts, strict=True):
        row[: prompt.shape[1]] = prompt
    cache = KVCache(model.config, 2, 16, attend_with_cache=solutions.attend_with_cache)
    logits = model(batch, cache=cache)
    cache.rewind(torch.tensor([5, 8], dtype=torch.int32))
    step = torch.stack([logits[0, 4], logits[1, 7]]).argmax(-1, keepdim=True)
    written = [step]
    for _ in range(5):
        written.append(model(written[-1], cache=cache)[:, -1].argmax(-1, keepdim=True))
    for i, prompt in enumerate(prompts):
        assert torch.cat(written, dim=1)[i].tolist() == llm.generate(model, prompt, 6, stop=False)[0, prompt.shape[1] :].tolist()


@torch.inference_mode()
def test_generate_is_the_librarys(model):
    tokens = torch.randint(0, 256, (1, 7))
    usual = llm.generate(model, tokens, 15, stop=False)
    assert torch.equal(solutions.generate(model, tokens, KVCache(model.config, 1, 22), 15), usual)
    stop = int(usual[0, 10])
    early = solutions.generate(model, tokens, KVCache(model.config, 1, 22), 15, eos=stop)
    assert early[0, -1] == stop and early.shape[1] <= 11 and torch.equal(early, usual[:, : early.shape[1]])


def test_sampling_follows_the_librarys_law():
    logits = torch.randn(1, 20, generator=torch.Generator().manual_seed(4)) * 2
    u = (torch.arange(4000) + 0.5) / 4000
    for given in ({}, {"temperature": 0.7, "top_k": 6}, {"top_p": 0.7}, {"temperature": 1.5, "top_k": 10, "top_p": 0.5}):
        drawn = solutions.sample_token(logits.expand(4000, -1), u, **given)
        law = llm.probabilities(logits, **given)[0]
        assert (drawn.bincount(minlength=20) / 4000 - law).abs().max() < 2 / 4000


def test_rope_is_the_librarys():
    config = ModelConfig(head_dim=32)
    for ours, theirs in zip(solutions.rope_cos_sin(torch.arange(200), 32), llm.rope_table(config, 200), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-4)


def test_tensors_are_made_on_the_device_of_the_inputs():
    """The device "meta" has shapes and no numbers, and refuses to meet a CPU's tensors as a GPU does."""
    where = torch.device("meta")
    assert {x.device for x in solutions.rope_cos_sin(torch.arange(9, device=where), 8)} == {where}
    assert generating_harness.told(torch.zeros(1, 3, dtype=torch.int64, device=where), 5, "")[1].device == where
    logits, u = torch.zeros(2, 6, device=where), torch.zeros(3, device=where)
    assert sampling_harness.run(lambda rows, draws: rows, logits, u)[1].device == where
