"""Chapter 02's figures, mask explorer and ledger: what they say is computed, nothing overlaps, bad data gets a sentence."""

import numpy as np
import pytest
import torch

from course_lib import oracles, roofline
from course_lib.earlier import attention, causal_mask, expand_kv_heads, naive_attention_bytes, score_matrix_bytes
from course_lib.figures import attention_cost as figures
from course_lib.figures import core
from course_lib.widgets import mask_alignment
from course_lib.widgets.mask_alignment import ALIGNMENTS, MOST, explorer, mask, state

torch.manual_seed(0)
SCORES = torch.randn(3, 5)
HIDDEN = SCORES.masked_fill(torch.tensor([[1, 1, 1, 0, 0], [1] * 5, [0] * 5]) == 0, -torch.inf)
VALUES = torch.randn(5, 4)
N, D = 16384, 128
STEPS = {
    "S = Q K^T": roofline.matmul_work(N, N, D),
    "P = softmax(S)": roofline.softmax_work(N, N, 2),
    "O = P V": roofline.matmul_work(N, D, N),
    "all in one": roofline.attention_work(N, D, how="flash"),
}
CPU = roofline.Machine("a CPU", 2e10, {"fp32": 1e11})
DRAWINGS = {
    "three_steps": lambda: figures.three_steps(SCORES, SCORES.softmax(-1), SCORES.softmax(-1) @ VALUES),
    "three_steps, hidden": lambda: figures.three_steps(HIDDEN, oracles.softmax(HIDDEN), oracles.softmax(HIDDEN) @ VALUES),
    "masks": lambda: figures.masks({"SDPA, is_causal=True": torch.ones(3, 8).tril().bool(), "causal_mask(3, 8)": causal_mask(3, 8)}),
    "masks, one, tall": lambda: figures.masks({"7 queries, 4 keys": causal_mask(7, 4)}),
    "masks, three, large": lambda: figures.masks({str(i): causal_mask(16, 16) for i in range(3)}),
    "head_groups": lambda: figures.head_groups(8, (8, 2, 1)),
    "head_groups, 16": lambda: figures.head_groups(16, (4,)),
    "step_ledger": lambda: figures.step_ledger(N, N, D),
    "step_ledger, short": lambda: figures.step_ledger(256, 1024, 128, 4, 4),
    "step_ledger, decoding": lambda: figures.step_ledger(1, 8192, 128),
    "requested_by_tile": lambda: figures.requested_by_tile([1, 4, 16, 64, 256], [33816576, 8650752, 2359296, 786432, 393216], 393216, 262144),
    "growth": lambda: figures.growth([512, 1024, 2048, 4096], {"peak memory (MiB)": {"one call": [2.1, 8.2, 32.5, 129], "S": [1, 4, 16, 64]}}),
    "growth, two panels": lambda: figures.growth([512, 1024], {"peak memory (MiB)": {"one call": [2, 8]}, "time (ms)": {"one call": [1.5, 6.5]}}),
    "on_the_roofline, A100": lambda: figures.on_the_roofline(roofline.machine("A100"), STEPS),
    "on_the_roofline, CPU": lambda: figures.on_the_roofline(CPU, STEPS, "fp32"),
}


@pytest.mark.parametrize("name", DRAWINGS)
def test_every_figure_is_uncrowded_and_says_numbers(name):
    picture = DRAWINGS[name]()
    assert core.crowding(picture.figure) == []
    assert len(picture.alt) > 40 and any(c.isdigit() for c in picture.alt) and picture.width <= 900


def test_titles_are_computed():
    assert "2.02 GiB where Q, K, V and O are 16 MiB: 99 %" in figures.step_ledger(N, N, D).title
    assert "a row without any is 0" in DRAWINGS["three_steps, hidden"]().title
    assert "without any" not in DRAWINGS["three_steps"]().title
    assert DRAWINGS["masks"]().title == "SDPA, is_causal=True: 6 of 24 scores seen; causal_mask(3, 8): 21 of 24 scores seen"
    assert "up to 8 times" in DRAWINGS["head_groups"]().title
    assert "86 times less" in DRAWINGS["requested_by_tile"]().title
    assert "3 of 4 lie left of 153" in DRAWINGS["on_the_roofline, A100"]().title
    assert "1 of 4 lie left of 5" in DRAWINGS["on_the_roofline, CPU"]().title
    assert "grows 4 times" in DRAWINGS["growth"]().title


@pytest.mark.parametrize("given", [(7, 11, 5), (16384, 16384, 128, 3, 4), (1, 900, 64, 2, 1)])
def test_the_ledger_drawn_is_the_ledger_taught(given):
    steps = figures.step_bytes(*given)
    drawn = [sum(count for _, _, count in parts) for parts in steps.values()]
    assert tuple(drawn[:3]) == naive_attention_bytes(*given)
    n_q, n_kv, d, heads, each = (*given, *(1, 2)[len(given) - 3 :])
    assert drawn[3] == heads * each * d * 2 * (n_q + n_kv)
    assert dict((name, count) for name, _, count in steps["P = softmax(S)"])["S"] == score_matrix_bytes(n_q, n_kv, heads, 1, each)


def test_the_ratio_that_the_chapter_states():
    for n, d in ((4096, 128), (16384, 128), (1024, 64)):
        assert sum(naive_attention_bytes(n, n, d)) / (8 * n * d) == 1 + n / d
        whole = roofline.attention_work(n, d)
        assert whole.bytes == sum(naive_attention_bytes(n, n, d)), "the roofline's naive attention moves the same bytes"
    assert sum(naive_attention_bytes(1, 8192, 128)) / (4 * 128 * 8193) == pytest.approx(1.016, abs=5e-4)


def test_every_gpu_of_the_table_waits_for_memory_in_every_step():
    from course_lib.datasheets import SHEETS

    for name in SHEETS:
        machine = roofline.machine(name)
        assert [roofline.bound(work, machine) for work in STEPS.values()] == ["memory"] * 3 + ["compute"], name


def test_exponent():
    assert figures.exponent([1, 2, 4, 8], [100, 4, 16, 64]) == pytest.approx(2)
    with pytest.raises(ValueError, match="two points"):
        figures.exponent([1], [1])


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: figures.three_steps(SCORES, SCORES, VALUES), "do not belong together"),
        (lambda: figures.three_steps(SCORES[0], SCORES, VALUES), "must be a matrix"),
        (lambda: figures.masks({}), "one to three"),
        (lambda: figures.masks({"a": causal_mask(17, 3)}), "at most 16"),
        (lambda: figures.head_groups(8, (3,)), "divisors"),
        (lambda: figures.step_ledger(0, 4, 4), "n_q"),
        (lambda: figures.requested_by_tile([1], [1], 1, 1), "two tile sizes"),
        (lambda: figures.requested_by_tile([1, 2], [4, 2], 1, 2), "part of what is compulsory"),
        (lambda: figures.growth([1, 2], {"time": {"a": [1, 0]}}), "above 0"),
        (lambda: figures.growth([1, 2], {}), "one or two panels"),
        (lambda: figures.on_the_roofline(CPU, {}, "fp32"), "one to six"),
    ],
)
def test_bad_data_gets_a_sentence(call, words):
    with pytest.raises(ValueError, match=words):
        call()


# ---------------------------------------------------------------- the mask explorer


def test_the_explorer_and_the_exercise_agree():
    for n_q in range(1, MOST + 1):
        for n_kv in range(1, MOST + 1):
            assert (mask(n_q, n_kv) == causal_mask(n_q, n_kv).numpy()).all()
            assert (mask(n_q, n_kv, "top left") == np.tril(np.ones((n_q, n_kv), dtype=bool))).all()


def test_sdpa_is_top_left():
    q, k, identity = torch.randn(1, 1, 3, 8), torch.randn(1, 1, 8, 8), torch.eye(8)[None, None]
    seen = torch.nn.functional.scaled_dot_product_attention(q, k, identity, is_causal=True)[0, 0] > 0
    assert (seen.numpy() == mask(3, 8, "top left")).all()


def test_states_are_uncrowded_and_of_one_size():
    given = [(q, k, a, p) for q in (1, 4, 10) for k in (1, 7, 10) for a in ALIGNMENTS for p in (0, 3)]
    pictures = [state(*one) for one in given]
    assert [one for one, picture in zip(given, pictures, strict=True) if core.crowding(picture.figure)] == []
    assert {(p.width, p.height) for p in pictures} == {(pictures[0].width, pictures[0].height)}, "it must not jump"


def test_words_name_what_is_seen():
    assert "query 0 is token 5" in state(3, 8).alt and state(3, 8).title.endswith("the first query sees 6")
    assert "3 queries see nothing" in state(7, 4).alt
    assert "misses 5 of the keys" in state(3, 8, "top left").alt
    assert "both alignments are one" in state(5, 5, "top left").alt
    assert "1 padded key at the end is hidden" in state(5, 5, padding=1).alt and "9 padded" not in state(5, 5, padding=9).alt


@pytest.mark.parametrize(
    ("given", "words"), [((0, 3), "n_q"), ((3, 11), "at most 10"), ((3, 3, "middle"), "bottom right"), ((3, 3, "top left", -1), "padding")]
)
def test_bad_states_get_a_sentence(given, words):
    with pytest.raises(ValueError, match=words):
        state(*given)
    with pytest.raises(ValueError, match=words):
        explorer(*given)


def test_the_controls_move_the_picture():
    made = explorer()
    before = made.holder.value
    made.controls["n_q"].value = 7
    assert made.holder.value != before and "7 queries, 8 keys" in made.shown.title
    made.controls["align"].value = "top left"
    assert "top left" in made.shown.title
    assert set(made._repr_mimebundle_()) == {"application/vnd.jupyter.widget-view+json", "text/html", "text/plain"}


def test_without_ipywidgets_there_is_a_picture(monkeypatch):
    monkeypatch.setattr(mask_alignment, "controls_available", lambda: False)
    assert "pip install ipywidgets" in repr(explorer())


# ---------------------------------------------------------------- the solutions, beyond what the grader asks


def test_attention_with_shared_heads_is_grouped_query_attention():
    q, k, v = torch.randn(2, 6, 4, 8), torch.randn(2, 2, 7, 8), torch.randn(2, 2, 7, 8)
    ours = attention(q, expand_kv_heads(k, 6), expand_kv_heads(v, 6), causal_mask(4, 7))
    theirs = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=causal_mask(4, 7), enable_gqa=True)
    assert torch.allclose(ours, theirs, atol=1e-5)


def test_gradients_of_a_row_with_nothing_kept_are_zero_and_the_others_right():
    from solutions.ch02_attention_cost import attention

    q, k, v = (torch.randn(2, 4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(i), requires_grad=True) for i in range(3))
    mask = torch.ones(4, 4, dtype=torch.bool).tril(-1)  # the first query sees nothing
    assert torch.autograd.gradcheck(lambda q, k, v: attention(q, k, v, mask), (q, k, v))
    attention(q, k, v, mask).sum().backward()
    assert (q.grad[:, 0] == 0).all() and all(x.grad.isfinite().all() for x in (q, k, v))
