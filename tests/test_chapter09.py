"""Chapter 09: figures and the split-count explorer say what is computed; the solutions are the kernels', and run in the model."""

import pytest
import torch

from course_lib import earlier, llm, recorded
from course_lib.figures import core
from course_lib.figures import flash_decoding as figures
from course_lib.llm import KVCache, Llama, ModelConfig, loading
from course_lib.states import SoftmaxState
from course_lib.widgets import split_counts
from solutions import ch03_online_softmax
from solutions import ch09_flash_decoding as solutions
from tools.sync import ROOT, read_notebook

TIMES = {"1 request": [65, 35, 19, 11, 9, 10], "64 requests": [260, 300, 310, 340, 360, 400]}
DRAWINGS = {
    "opening": lambda: figures.opening(),
    "opening, 4": lambda: figures.opening(4, 10, 40),
    "part_weights": lambda: figures.part_weights([1.0, 2.0, -float("inf"), 4.0], [0.05, 0.15, 0.0, 0.8], [8, 8, 0, 8]),
    "requested": lambda: figures.requested(
        {"a program a head": {"Q": 2e3, "K": 4e5, "V": 4e5}, "a program a group": {"Q": 2e3, "K": 1e5, "V": 1e5, "parts and their lse": 9e3}}, 2.1e5
    ),
    "split_times": lambda: figures.split_times(TIMES),
    "splits_raced": lambda: figures.splits_raced(recorded.table("ch09_splits").rows, 132, note=recorded.table("ch09_splits").source),
    "rates": lambda: figures.rates(recorded.table("decode").rows, note=recorded.table("decode").source),
}


@pytest.mark.parametrize("name", DRAWINGS)
def test_every_figure_is_uncrowded_and_says_numbers(name):
    picture = DRAWINGS[name]()
    assert core.crowding(picture.figure) == []
    assert len(picture.alt) > 40 and any(c.isdigit() for c in picture.alt) and picture.width <= 900


def test_titles_are_computed():
    assert "8 of 132 multiprocessors work" in DRAWINGS["opening"]().title and "into 16, 128 do" in DRAWINGS["opening"]().title
    assert "Part 3 has 33% of the keys and 80% of the weight" in DRAWINGS["part_weights"]().title
    assert "3.82 times the compulsory" in DRAWINGS["requested"]().title
    assert "1 request: 5 splits, 7.2x" in DRAWINGS["split_times"]().title and "64 requests: 1 split is the fastest" in DRAWINGS["split_times"]().title
    fastest = max(recorded.table("ch09_splits").rows, key=lambda row: row["times as fast as 1 split"])
    assert (
        f"Measured: {fastest['splits']} splits" in DRAWINGS["splits_raced"]().title and "17 splits, 136 programs" in DRAWINGS["splits_raced"]().title
    )
    shares = [row["of the ceiling (%)"] for row in recorded.table("decode").rows]
    assert f"{min(shares):.0f} to {max(shares):.0f}\u00a0%" in DRAWINGS["rates"]().title


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: figures.opening(8, 32, 132), "one program on each"),
        (lambda: figures.part_weights([1.0, 2.0], [0.5, 0.6], [1, 1]), "add up to 1"),
        (lambda: figures.requested({"a": {"ghosts": 1}}, 10), "tensors among"),
        (lambda: figures.requested({"a": {"K": 1}}, 0), "above 0"),
        (lambda: figures.split_times({"a": [1.0]}), "two times"),
        (lambda: figures.splits_raced([{"splits": 1}], 132), "at least two rows"),
        (lambda: figures.rates([]), "one to four"),
        (lambda: figures.rates([{"course (GB/s)": "-", "of the ceiling (%)": 1}]), "a number"),
        (lambda: split_counts.state(requests=0), "requests"),
        (lambda: split_counts.state(splits=2.5), "splits"),
        (lambda: split_counts.state(multiprocessors=0), "multiprocessors"),
    ],
)
def test_bad_data_gets_a_sentence(call, words):
    with pytest.raises(ValueError, match=words):
        call()


# ---------------------------------------------------------------- the explorer


def test_the_explorer_counts_by_the_exercises_rule():
    for requests, context, sms in ((1, 32768, 132), (4, 8192, 108), (64, 2048, 132), (3, 1000, 40)):
        tiles = -(-context // split_counts.BLOCK_N)
        best = solutions.choose_num_splits(requests * 8, tiles, sms)
        times = [split_counts.counts(requests, 8, context, sms, splits).time for splits in range(1, tiles + 1)]
        assert times.index(min(times)) + 1 == best


def test_its_numbers_by_hand():
    one = split_counts.counts(1, 8, 32768, 132, 16)
    assert (one.programs, one.waves, one.tiles, one.time) == (128, 1, 16, 1 * 17 + 2)
    assert one.read == 2 * 2048 * 128 * 2 and one.merged == 2 * 128 * 4 * 129 * 4
    assert split_counts.counts(1, 8, 32768, 132, 1).merged == 0
    assert "no number is faster" in split_counts.state().title and "times the time of" in split_counts.state(splits=1).title


def test_states_are_uncrowded():
    crowded = []
    for requests, context, splits in ((1, 131072, 128), (256, 512, 1), (256, 131072, 128), (1, 512, 64)):
        crowded += core.crowding(split_counts.state(requests, 32, context, 160, splits).figure)
    assert crowded == []


def test_the_controls_move_the_picture():
    made = split_counts.explorer()
    made.controls["splits"].value = 4
    assert made.shown.title.startswith("4 splits: 32 programs")


def test_without_ipywidgets_there_is_a_picture(monkeypatch):
    monkeypatch.setattr(split_counts, "controls_available", lambda: False)
    assert "pip install ipywidgets" in repr(split_counts.explorer())


# ---------------------------------------------------------------- the solutions


def test_merging_is_merging_states():
    outs, lses = torch.randn(2, 1, 3, 4), torch.tensor([[[0.5, 90.0, -70.0]], [[1.5, -90.0, -torch.inf]]])
    merged = ch03_online_softmax.merge_states(*(SoftmaxState(lse, torch.ones_like(lse), out) for out, lse in zip(outs, lses, strict=True)))
    out, lse = solutions.merge_partial_attention(outs, lses)
    assert torch.allclose(out, merged.acc / merged.row_sum[..., None], atol=1e-6)
    assert torch.allclose(lse, merged.row_max + merged.row_sum.log())


@torch.inference_mode()
def test_the_split_kernel_gives_the_models_own_tokens():
    torch.manual_seed(3)
    model = Llama(ModelConfig(num_layers=2, num_heads=6, num_kv_heads=2)).eval().requires_grad_(False)
    tokens = torch.randint(0, 256, (1, 9))

    def decode(q, k_cache, v_cache, lengths):
        return solutions.merge_partial_attention(*solutions.split_kv_decode(q, k_cache, v_cache, lengths, 3))[0]

    mine = llm.generate(model, tokens, 6, cache=KVCache(model.config, 1, 15, decode=decode), stop=False)
    assert torch.equal(mine, llm.generate(model, tokens, 6, stop=False))


def test_the_notebooks_model_gives_the_same_tokens_where_bf16_is_usual(monkeypatch, capsys):
    """On a GPU load_model gives bf16 unless it is asked; the cache is float32, and tokens are compared one by one."""
    monkeypatch.setattr(loading, "_default_dtype", lambda *_: torch.bfloat16)
    cells = read_notebook(ROOT / "notebooks" / "09_flash_decoding.ipynb").cells
    cell = next(cell.source for cell in cells if cell.cell_type == "code" and "load_model" in cell.source)
    names = {name: getattr(solutions, name) for name in ("merge_partial_attention", "split_kv_decode")}
    cell = cell.replace("12", "2")  # tokens: the interpreter is slow
    exec(cell, {"torch": torch, "llm": llm, "earlier": earlier, "device": "cpu", **names})
    assert "same tokens: True" in capsys.readouterr().out
