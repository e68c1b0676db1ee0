"""Chapter 05's figures, widgets, and instruments: what they say is computed, nothing overlaps, bad data gets a sentence."""

import json

import numpy as np
import pytest
import torch

from course_lib import hardware, minilm, oracles, traffic

hardware.tier()  # before the kernels below import triton: without a GPU they are interpreted

from course_lib.checks.ch05_flash_forward import rules  # noqa: E402
from course_lib.checks.ch05_flash_forward.inputs import far_below, qkv, rising  # noqa: E402
from course_lib.checks.ch05_flash_forward.plain import CAUSAL, FULL, WAYS  # noqa: E402
from course_lib.earlier import flash_blocks, flash_forward, flash_forward_causal, flash_forward_gqa, flash_forward_lse, flash_io_bytes  # noqa: E402
from course_lib.figures import core  # noqa: E402
from course_lib.figures import flash_forward as figures  # noqa: E402
from course_lib.grading.spec import Evidence, Probe  # noqa: E402
from course_lib.widgets import block_sizes, tile_walk  # noqa: E402

MIB, GIB = 2**20, 2**30
COUNTED = {n: {m: flash_io_bytes(n, n, 64, m) for m in (16, 32, 64, 128)} for n in (128, 256, 512)}
ROWS = [
    {
        "kernel": "flash_forward",
        "D": 128,
        "causal": causal,
        "N": n,
        "flash_forward (TFLOP/s)": 480.0,
        "two_tiles (TFLOP/s)": 570.0,
        "FA2 (TFLOP/s)": fa2,
    }
    for causal in ("no", "yes")
    for n, fa2 in ((4096, 340.0), (16384, "-"))
]
DRAWINGS = {
    "two_ways": figures.two_ways,
    "requested": lambda: figures.requested(
        {"naive": {"Q": GIB, "S and P": 2 * GIB}, "flash": {"K": MIB, "row_max, row_sum": 3}}, compulsory=16 * MIB
    ),
    "requested, one": lambda: figures.requested({"flash": {"K": 4096, "V": 4096}}),
    "io_sweep": lambda: figures.io_sweep(COUNTED, COUNTED),
    "speeds": lambda: figures.speeds(ROWS),
    "tile_walk": tile_walk.state,
    "tile_walk, no key": lambda: tile_walk.state(512, 16, 16, 16, True, 0, 0),
    "tile_walk, largest": lambda: tile_walk.state(512, 512, 16, 16, True, 31, 99),
    "block_sizes": block_sizes.state,
    "block_sizes, too much": lambda: block_sizes.state(256, 256, 256, 5),
    "block_sizes, small": lambda: block_sizes.state(16, 16, 64, 1),
}


@pytest.mark.parametrize("name", DRAWINGS)
def test_every_figure_is_uncrowded_and_says_numbers(name):
    picture = DRAWINGS[name]()
    assert core.crowding(picture.figure) == []
    assert len(picture.alt) > 40 and picture.width <= 900
    assert name == "two_ways" or any(c.isdigit() for c in picture.alt)


def test_titles_are_computed():
    assert "12 of 12 counts equal" in figures.io_sweep(COUNTED, COUNTED).title
    wrong = {n: {m: b + (n == 128) for m, b in points.items()} for n, points in COUNTED.items()}
    assert "8 of 12 counts equal" in figures.io_sweep(wrong, COUNTED).title
    assert DRAWINGS["requested"]().title == "Naive requests 3 GiB, 3,072 times as much as flash"
    assert "two tiles) reaches 570 TFLOP/s" in figures.speeds(ROWS).title and "FA2" not in figures.speeds(ROWS).title
    assert "1.68x FA2" in figures.speeds(ROWS[:1]).title
    assert tile_walk.state(320, 128, 64, 32, True, 0, 1).title == "Program 0 of 5: all skipped"
    assert "they fit on L4, A100, H100" in block_sizes.state().title


@pytest.mark.parametrize(
    ("draw", "words"),
    [
        (lambda: figures.requested({}), "at least one way"),
        (lambda: figures.requested({"a": {"W": 3}}), "tensors among"),
        (lambda: figures.io_sweep({1: {2: 3}}, {1: {4: 3}}), "the same places"),
        (lambda: figures.speeds(ROWS, head=64), "no row has D = 64"),
        (lambda: figures.speeds([*ROWS, ROWS[0]]), "a case has two rows"),
        (lambda: tile_walk.state(1024, 16), "at most 512"),
        (lambda: tile_walk.state(block_m=24), "its sides are"),
        (lambda: tile_walk.walk(64, 64, 16, 16, True, 9), "there are 4"),
        (lambda: block_sizes.state(block_m=48), "its sides are"),
    ],
)
def test_bad_data_gets_a_sentence(draw, words):
    with pytest.raises(ValueError, match=words):
        draw()


@pytest.mark.parametrize("shape", [(70, 100, 64, 32), (100, 70, 32, 16), (64, 64, 64, 64), (200, 21, 64, 32), (3, 90, 16, 32)])
@pytest.mark.parametrize("causal", [False, True])
def test_tiles_are_what_the_mask_says(shape, causal):
    n_q, n_kv, block_m, block_n = shape
    seen = np.zeros((-(-n_q // block_m) * block_m, -(-n_kv // block_n) * block_n), dtype=bool)
    seen[:n_q, :n_kv] = np.tril(np.ones((n_q, n_kv), dtype=bool), n_kv - n_q) if causal else True
    real = np.zeros_like(seen)
    real[:n_q] = True  # rows past the last query do not count, keys past the last one do
    tiles = figures.tiles_of(*shape, causal)
    for i, row in enumerate(tiles):
        for j, kind in enumerate(row):
            part = np.s_[i * block_m : (i + 1) * block_m, j * block_n : (j + 1) * block_n]
            kept, counted = seen[part], real[part]
            wanted = figures.SKIPPED if not kept.any() else figures.LOADED if kept[counted].all() else figures.MASKED_TILE
            assert kind == wanted, (i, j)


def test_widgets_have_their_controls():
    shell = tile_walk.stepper()
    shell.controls["causal"].value = False
    assert "0 skipped" in shell.shown.title
    shell = block_sizes.explorer()
    shell.controls["head_dim"].value = 256
    assert "on none" in shell.shown.title or "on A100, H100" in shell.shown.title or "on H100" in shell.shown.title


def test_the_explorer_and_the_exercise_agree():
    for name, limit in block_sizes.limits().items():
        for d in block_sizes.HEADS:
            m, n = flash_blocks(d, limit)
            assert m and sum(block_sizes.needs(m, n, d, 2).values()) <= limit, (name, d)
            assert m == 128 or sum(block_sizes.needs(2 * m, 16, d, 2).values()) > limit


# ---------------------------------------------------------------- the kernels in the ledger


def test_the_closed_form_is_what_the_kernels_request():
    if hardware.tier() != "interpreter":
        pytest.skip("counts in this process need the interpreter")
    q, k, v = qkv(torch.Generator().manual_seed(1), 1, 2, 100, 90, 24)
    with traffic.counted() as launches:
        flash_forward_lse(q, k, v)
        flash_forward(q, k, v)
        flash_forward_causal(q, k, v)
    whole = flash_io_bytes(100, 90, 24, 64, heads=2, bytes_each=4)
    assert launches[0].bytes_loaded + launches[0].bytes_stored == whole
    assert launches[1].bytes_loaded + launches[1].bytes_stored == whole - 4 * 2 * 100
    assert launches[2].bytes_loaded < launches[1].bytes_loaded


def test_two_calls_merge_by_their_lse():
    q, k, v = rising(qkv(torch.Generator().manual_seed(2), 1, 2, 20, 90, 20))
    (a, lse_a), (b, lse_b) = (flash_forward_lse(q, k[:, :, part], v[:, :, part]) for part in (slice(40), slice(40, None)))
    share = torch.sigmoid(lse_a - lse_b)[..., None]
    whole = torch.logaddexp(lse_a, lse_b)
    out, lse = flash_forward_lse(q, k, v)
    assert oracles.max_error(share * a + (1 - share) * b, out) < 2e-6 and oracles.max_error(whole, lse) < 2e-6


def test_a_group_of_one_is_no_group():
    q, k, v = qkv(torch.Generator().manual_seed(3), 1, 3, 17, 40, 20)
    assert torch.equal(flash_forward_gqa(q, k, v), flash_forward(q, k, v))


# ---------------------------------------------------------------- the grading material


def test_the_plain_ways_agree_with_the_oracle():
    g = torch.Generator().manual_seed(4)
    q, k, v = (x.double() for x in far_below(qkv(g, 2, 4, 30, 20, 18, h_kv=2), 9))
    wide_k, wide_v = (x.repeat_interleave(2, dim=1) for x in (k, v))
    mask = torch.ones(30, 20, dtype=torch.bool).tril(-10)
    for ways, kept in ((FULL, None), (CAUSAL, mask)):
        exact = oracles.attention(q, wide_k, wide_v, kept)
        assert all(oracles.max_error(way(q, k, v), exact) < 1e-12 for way in ways)
    for way in WAYS:
        assert oracles.max_error(way(q, k, v, None, True)[1], oracles.attention_lse(q, wide_k, mask)) < 1e-12
        out, lse = way(q, k[:, :, :0], v[:, :, :0])
        assert not out.any() and (lse == -torch.inf).all()


def _seen(probe: Probe, loaded: int, grid: tuple[int, ...], **constexprs: int) -> Evidence:
    return Evidence(
        launches=[{"kernel": "k", "grid": list(grid), "constexprs": constexprs}], bytes_loaded=loaded, bytes_stored=probe.args[0].numel() * 4
    )


def test_the_tile_rule_knows_what_may_be_read():
    probe = Probe("p", qkv(torch.Generator().manual_seed(5), 1, 1, 200, 200, 16))
    rule, row = rules.tiles_skipped(always=True), 2 * 16 * 4
    q = 200 * 16 * 4
    seen = 64 + 128 + 192 + 200  # keys of four tiles of 64 queries, in tiles of 32 keys
    assert rule.broken(probe, _seen(probe, q + seen * row, (4, 1, 1), BLOCK_M=64, BLOCK_N=32)) is None
    said = rule.broken(probe, _seen(probe, q + (seen + 1) * row, (4, 1, 1), BLOCK_M=64, BLOCK_N=32))
    assert "tiles of 64 queries and 32 keys" in said and "19 of 28" in said
    assert rule.broken(probe, _seen(probe, q + 800 * row, (4, 1, 1), A=64, B=32)), "names do not matter for the queries"
    assert rules.tiles_skipped(always=False).broken(probe, _seen(probe, 10**9, (4, 1, 1))) is None


def test_a_whole_long_row_is_noticed():
    probe = Probe("p", qkv(torch.Generator().manual_seed(6), 1, 1, 3, 600, 20))
    rule = rules.few_keys_at_a_time()
    assert "1,024" in rule.broken(probe, _seen(probe, 0, (1,), ANY=1024))
    assert rule.broken(probe, _seen(probe, 0, (1,), N_KV=600, BLOCK=128)) is None


# ---------------------------------------------------------------- a real model, and a look inside


def _small_model(folder):
    """The files of a MiniLM with random weights, 24 numbers wide."""
    g = torch.Generator().manual_seed(7)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "cat", "##s", "sleep", "."]
    tensors = {"embeddings.word_embeddings.weight": (len(words), 24), "embeddings.position_embeddings.weight": (16, 24)}
    tensors |= {"embeddings.token_type_embeddings.weight": (2, 24)}
    norms = ["embeddings.LayerNorm"]
    for layer in range(minilm.LAYERS):
        at = f"encoder.layer.{layer}"
        pairs = [(f"attention.self.{name}", 24, 24) for name in ("query", "key", "value")]
        for name, out, inner in (*pairs, ("attention.output.dense", 24, 24), ("intermediate.dense", 96, 24), ("output.dense", 24, 96)):
            tensors |= {f"{at}.{name}.weight": (out, inner), f"{at}.{name}.bias": (out,)}
        norms += [f"{at}.attention.output.LayerNorm", f"{at}.output.LayerNorm"]
    tensors |= {f"{name}.{part}": (24,) for name in norms for part in ("weight", "bias")}
    header, body = {}, b""
    for name, shape in tensors.items():
        raw = torch.randn(shape, generator=g).numpy().tobytes()
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [len(body), len(body) + len(raw)]}
        body += raw
    text = json.dumps(header).encode()
    (folder / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + body)
    (folder / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    return folder


def test_the_model_takes_an_attention_function(tmp_path):
    model = minilm.load(_small_model(tmp_path))
    assert model.encode("Cats sleep.") == [2, 4, 5, 6, 7, 3] and model.encode("dog") == [2, 1, 3]

    def plain(q, k, v):
        return oracles.attention(q, k, v)

    usual, mine = model.embed(["cats sleep."]), model.embed(["cats sleep."], plain)
    assert usual.shape == (1, 24) and oracles.max_error(mine, usual) < 1e-5
    assert oracles.max_error(model.embed(["cats sleep."], lambda q, k, v: v), usual) > 1e-3


def test_without_the_package_there_is_no_model(tmp_path, monkeypatch):
    monkeypatch.setattr(minilm, "folder", lambda: None)
    assert minilm.load() is None and minilm.load(tmp_path) is None and minilm.PACKAGE in minilm.HOW


@pytest.mark.slow
def test_the_real_model_with_a_kernel_of_ones_own():
    model = minilm.load()
    if model is None:
        pytest.skip(minilm.HOW)
    texts = ["A cat sleeps on the sofa.", "A kitten is napping on the couch."]
    usual, mine = model.embed(texts), model.embed(texts, flash_forward)
    assert oracles.max_error(mine, usual) < 1e-6 and (mine[0] @ mine[1]).item() > 0.6


@pytest.mark.slow
def test_a_look_inside_needs_no_gpu():
    from course_lib import inside
    from kernels.flash_forward_descriptors import flash_attention_forward

    x = torch.empty(1, 2, 256, 64, dtype=torch.float16, device="meta")
    kernels = inside.looks({"ours": (flash_forward, 80), "tma": (flash_attention_forward, 90)}, x, x, x)
    ours, tma = kernels.values()
    assert list(kernels) == ["ours", "tma"] and inside.looks({}) == {}
    assert ours.counts["mma"] and not ours.counts["wgmma"] and ours.counts["cp.async"] and ours.counts["ex2"]
    assert tma.counts["wgmma"] and tma.counts["TMA"] and 0 < tma.registers <= 255 and tma.shared > 0
    assert "sm_80" in repr(inside.compared({"a": ours, "b": tma}))
    with pytest.raises(ValueError, match="refused"):
        inside.look(flash_forward, x, x[..., :32], x, "no number", target=80)


def test_a_look_inside_refuses_a_target_that_is_none():
    from course_lib import inside

    with pytest.raises(ValueError, match="choose one of 75"):
        inside.look(flash_forward, target=70)


@pytest.mark.parametrize(("n_q", "n_kv"), [(150, 100), (100, 150)])
def test_the_walk_that_is_drawn_is_the_walk_that_is_made(n_q, n_kv):
    if hardware.tier() != "interpreter":
        pytest.skip("the trace of a kernel needs the interpreter")
    q, k, v = qkv(torch.Generator().manual_seed(8), 1, 1, n_q, n_kv, 16)
    with traffic.counted(trace=True) as launches:
        flash_forward_causal(q, k, v)
    for program in range(-(-n_q // 64)):
        touched = [touch.box[2][0] // 32 for touch in launches[0].trace if touch.tensor == "k_ptr" and touch.program[0] == program]
        assert touched == tile_walk.walk(n_q, n_kv, 64, 32, True, program)
