"""Chapter 07's figures, widgets, grading material and instruments: what they say is computed, bad data gets a sentence."""

import itertools
import shutil
import warnings

import numpy as np
import pytest
import torch

from course_lib import hardware, oracles, recorded, traffic

hardware.tier()  # before the kernels below import triton: without a GPU they are interpreted

from course_lib.checks.ch05_flash_forward.inputs import qkv  # noqa: E402
from course_lib.checks.ch07_faster_and_more_general import alibi, documents, plain, rules, varlen  # noqa: E402
from course_lib.earlier import (  # noqa: E402
    alibi_score_mod,
    document_block_mask,
    flash_forward_causal,
    flash_forward_varlen,
    flash_forward_window,
    wave_efficiency,
)
from course_lib.figures import core, masks, versions  # noqa: E402
from course_lib.generated import generated  # noqa: E402
from course_lib.grading.spec import Evidence, Probe  # noqa: E402
from course_lib.widgets import mask_designer, wave_explorer  # noqa: E402

interpreted = pytest.mark.skipif(hardware.tier() != "interpreter", reason="counts in this process need the interpreter")
UNITS = {"H200, D = 128": {"products": 0.52, "exponentials": 0.26}, "B200, D = 64": {"products": 0.11, "exponentials": 0.23}}
LINES = {"BLOCK_M = 64": [(100, 0.2), (200, 1.0)], "BLOCK_M = 128": [(100, 0.1), (200, 0.5)]}
NEAR = np.tril(np.ones((96, 96), dtype=bool)) & ~np.tril(np.ones((96, 96), dtype=bool), -20)
DRAWINGS = {
    "versions": lambda: versions.versions({"FA2": 337.0, "plain Triton": 496.0}, {"FA2": "one", "plain Triton": "two"}, 989.4),
    "units": lambda: versions.units(UNITS),
    "schedule": lambda: versions.schedule(1.0, 0.5),
    "schedule, slow exponentials": lambda: versions.schedule(1.0, 2.0, tiles=2),
    "saw": lambda: versions.saw(LINES, "A title", "N"),
    "saw, measured": lambda: versions.saw(LINES, "A title", "N", [(150, 0.7)]),
    "errors": lambda: versions.errors({"e4m3, a scale a tensor": 0.09, "fp16": 0.0004}),
    "padding": lambda: masks.padding([900, 120, 64, 310, 700, 33, 250, 512]),
    "padding, two": lambda: masks.padding([5, 9]),
    "padding, many": lambda: masks.padding(list(range(1, 20))),
    "tile mask": lambda: masks.tile_mask(NEAR, 32, 16),
    "waves": wave_explorer.state,
    "waves, one program": lambda: wave_explorer.state(128, 1, 256, 1, "B200"),
    "waves, many": lambda: wave_explorer.state(16384, 128, 32, 8, "T4"),
    "designer": mask_designer.state,
    "designer, everything": lambda: mask_designer.state(512, 16, 16, True, 64, 5, 8),
    "designer, no mask": lambda: mask_designer.state(64, 128, 16, False, 0, 1, 0),
}


@pytest.mark.parametrize("name", DRAWINGS)
def test_every_figure_is_uncrowded_and_says_numbers(name):
    picture = DRAWINGS[name]()
    assert core.crowding(picture.figure) == []
    assert len(picture.alt) > 40 and picture.width <= 900 and any(c.isdigit() for c in picture.alt)


def test_titles_are_computed():
    assert "1.5x apart: FA2 reaches 337 TFLOP/s" in DRAWINGS["versions"]().title
    assert DRAWINGS["units"]().title.startswith("Exponentials take 0.5 of the products' time (H200, D = 128) to 2.1")
    assert "6 tiles are done 1.5x sooner" in DRAWINGS["schedule"]().title
    assert wave_explorer.state().title == "160 programs on 132 places: 2 waves, the last with 28; 61 % of the places work"
    assert "225x less" in DRAWINGS["errors"]().title
    assert masks.padding([10, 5]).title == "Padded, 25 % of the tokens and 38 % of the scores are filler"
    assert masks.tile_mask(np.tril(np.ones((4, 4), dtype=bool)), 2, 2, name="Causal").title.startswith("Causal: 3 of 4 tiles read, 75 %; 83 %")


@pytest.mark.parametrize(
    ("draw", "words"),
    [
        (lambda: versions.versions({"a": 1000.0}, {"a": "x"}, 989.0), "at most the peak"),
        (lambda: versions.versions({"a": 10.0}, {}, 989.0), "words for each"),
        (lambda: versions.units({"a": {"products": 1.0}}), "picoseconds"),
        (lambda: versions.turns(2, 2, 0.0, 1.0), "take time"),
        (lambda: versions.turns(0, 2, 1.0, 1.0), "groups must be a whole number"),
        (lambda: versions.saw({"a": [(1, 2.0), (2, 0.5)]}, "t", "x"), "each share from 0 to 1"),
        (lambda: versions.errors({"a": 0.0}), "above 0"),
        (lambda: versions.waves(0, 132), "programs must be a whole number"),
        (lambda: masks.padding([]), "at least one length"),
        (lambda: wave_explorer.state(block_m=48), "choose one of 32"),
        (lambda: wave_explorer.state(gpu="H300"), "choose one of T4"),
        (lambda: mask_designer.state(1024), "at most 512"),
        (lambda: mask_designer.state(block_m=24), "its sides are"),
        (lambda: mask_designer.document_lengths(3, 4), "cannot hold 4 documents"),
        (lambda: generated(lambda x: x, torch.empty(2, device="meta")), "device meta"),
    ],
)
def test_bad_data_gets_a_sentence(draw, words):
    with pytest.raises(ValueError, match=words):
        draw()


# ---------------------------------------------------------------- what the figures compute


@pytest.mark.parametrize(("groups", "tiles", "products", "exponentials"), [(1, 4, 1.0, 0.5), (2, 3, 1.0, 0.5), (2, 3, 1.0, 2.0), (3, 2, 0.7, 0.9)])
def test_turns_are_possible(groups, tiles, products, exponentials):
    tasks = versions.turns(groups, tiles, products, exponentials)
    for unit in ("products", "exponentials"):
        spans = sorted((start, end) for _, name, start, end in tasks if name == unit)
        assert all(a[1] <= b[0] + 1e-9 for a, b in itertools.pairwise(spans)), "two at once on a unit"
    for g in range(groups):
        mine = [(start, end) for group, _, start, end in tasks if group == g]
        assert len(mine) == 3 * tiles and all(a[1] <= b[0] + 1e-9 for a, b in itertools.pairwise(mine)), "a group does its steps in order"
    end = max(end for *_, end in tasks)
    assert end >= groups * tiles * max(products, exponentials) - 1e-9
    assert groups > 1 or end == pytest.approx(tiles * (products + exponentials))


def _visible(n: int, causal: bool, window: int, lengths: list[int], prefix: int) -> np.ndarray:
    owner = [b for b, length in enumerate(lengths) for _ in range(length)]
    place = [p for length in lengths for p in range(length)]
    seen = np.zeros((n, n), dtype=bool)
    for i in range(n):
        for j in range(n):
            ok = (not causal or j <= i) and (not window or abs(i - j) < window)
            seen[i, j] = owner[i] == owner[j] and (ok or place[j] < prefix)
    return seen


@pytest.mark.parametrize(
    ("causal", "window", "count", "prefix"), [(True, 0, 1, 0), (True, 7, 3, 0), (False, 5, 2, 3), (True, 4, 4, 2), (False, 0, 1, 0)]
)
def test_masks_are_what_the_controls_say(causal, window, count, prefix):
    lengths = mask_designer.document_lengths(41, count)
    assert sum(lengths) == 41 and min(lengths) >= 1 and len(lengths) == count
    assert np.array_equal(mask_designer.mask(41, causal, window, count, prefix), _visible(41, causal, window, lengths, prefix))


@pytest.mark.parametrize(("n", "documents_"), [(12, 12), (13, 12), (64, 1), (500, 7)])
def test_documents_fill_the_text(n, documents_):
    lengths = mask_designer.document_lengths(n, documents_)
    assert sum(lengths) == n and min(lengths) >= 1 and len(lengths) == documents_


def test_kinds_of_tiles_by_looking_at_every_pair():
    seen = mask_designer.mask(50, True, 9, 3, 2)
    kinds = masks.tile_kinds(seen, 8, 16)
    for r, c in np.ndindex(kinds.shape):
        pairs = [j < 50 and seen[i, j] for i in range(8 * r, min(8 * r + 8, 50)) for j in range(16 * c, 16 * c + 16)]
        assert kinds[r, c] == (masks.FULL if all(pairs) else masks.PARTIAL if any(pairs) else masks.EMPTY)


def test_widgets_have_their_controls():
    shell = wave_explorer.explorer()
    shell.controls["heads"].value = 33
    assert shell.shown.title.startswith("264 programs on 132 places: 2 waves, the last with 132")
    shell = mask_designer.designer()
    shell.controls["documents"].value = 1
    shell.controls["window"].value = 64
    assert shell.shown.title.startswith("Causal, window 64:")
    shell.controls["n"].value = 64
    assert "4 tiles" in shell.shown.title


def test_the_explorer_and_the_exercise_agree():
    for programs, sms, each in ((160, 132, 1), (300, 132, 2), (7, 40, 3)):
        assert f"{100 * wave_efficiency(programs, sms, each):.0f} % of the places work" in versions.waves(programs, sms, each).title


# ---------------------------------------------------------------- the code of a graph compiler


def _naive(q, k, v):
    return torch.softmax(q @ k.transpose(-1, -2) * 0.125, dim=-1) @ v


def _capped(q, k, v):
    return torch.softmax(20 * torch.tanh(q @ k.transpose(-1, -2) * 0.125 / 20), dim=-1) @ v


@pytest.mark.slow
def test_the_compiler_recognises_one_spelling_and_fuses_around_the_products_of_the_other(monkeypatch, tmp_path):
    (tmp_path / "true").symlink_to(shutil.which("true"))
    monkeypatch.setenv("PATH", str(tmp_path))  # a machine without any compiler
    x = torch.randn(1, 2, 64, 32)
    known, capped = generated(_naive, x, x, x), generated(_capped, x, x, x)
    assert not known.kernels and any("scaled_dot_product" in name for name in known.library)
    assert capped.library == ("bmm", "bmm") and len(capped.kernels) == 1
    assert any(shape[-2:] == (64, 64) for shape in capped.buffers), "the scores are allocated"
    assert (
        "tanh" in capped.kernels[0] and capped.excerpt("def call", 2).count("\n") == 1 and "(no such line)" in capped.excerpt("nowhere to be found")
    )


@pytest.mark.slow
def test_what_cannot_be_written_is_said():
    def breaks(x):
        print(x.sum().item())
        raise RuntimeError("on purpose")

    with pytest.raises(RuntimeError, match="the compiler wrote nothing for breaks"):
        generated(breaks, torch.ones(3))


def test_parts_of_a_record(tmp_path, monkeypatch):
    monkeypatch.setattr(recorded, "RESULTS", tmp_path)
    assert recorded.parts("ch07_versions") == {}
    recorded.write("ch07_versions", "t", [{"N": 1}], tmp_path, details=[{"part": "waves", "N": 2}, {"part": "waves", "N": 3}, {"other": 4}])
    assert recorded.parts("ch07_versions") == {"waves": [{"N": 2}, {"N": 3}]}
    assert recorded.part("ch07_versions", "waves", "Waves").rows == (("2",), ("3",))
    missing = recorded.part("ch07_versions", "fp8", "FP8")
    assert missing.rows == () and "no record yet" in repr(missing) and "benchmarks/ch07_versions.py" in missing._repr_html_()


def test_the_record_has_what_the_notebook_reads():
    parts = recorded.parts("ch07_versions")
    if not parts:
        pytest.skip("there is no record of this chapter yet: python benchmarks/ch07_versions.py on a GPU makes it")
    assert all(0 < row["share of the best"] <= 1 and row["N"] > 0 for row in parts["waves"])
    assert all({"case", "course (TFLOP/s)", "FlexAttention (TFLOP/s)", "course / FlexAttention"} <= set(row) for row in parts["flex"])


# ---------------------------------------------------------------- the kernels


def test_one_sequence_packed_is_the_dense_kernel():
    q, k, v = qkv(torch.Generator().manual_seed(1), 1, 2, 70, 90, 20)
    packed = (x[0].transpose(0, 1) for x in (q, k, v))
    out = flash_forward_varlen(*packed, varlen.cu([70]), varlen.cu([90]), 70, causal=True)
    assert oracles.max_error(out.transpose(0, 1)[None], flash_forward_causal(q, k, v)) < 1e-6


def test_a_wide_window_is_causal_and_a_window_of_one_copies_v():
    q, k, v = qkv(torch.Generator().manual_seed(2), 1, 2, 50, 70, 20)
    assert oracles.max_error(flash_forward_window(q, k, v, 70), flash_forward_causal(q, k, v)) < 1e-6
    assert torch.equal(flash_forward_window(q, k, v, 1), v[:, :, 20:])


def test_the_tuned_kernels_agree_with_the_simple_ones():
    from kernels import flash_score_mod, flash_varlen, flash_window

    q, k, v = qkv(torch.Generator().manual_seed(3), 1, 2, 60, 100, 32)
    assert oracles.max_error(flash_window.flash_window_forward(q, k, v, 33)[0], flash_forward_window(q, k, v, 33)) < 2e-6
    args = varlen.sequences(torch.Generator().manual_seed(4), [20, 0, 33, 5], [9, 4, 60, 0], 2, 32)
    simple = flash_forward_varlen(*args, causal=True)
    assert oracles.max_error(flash_varlen.flash_varlen_forward(*args, 60, causal=True)[0], simple) < 5e-6
    slopes = alibi.slopes_of(2)
    index = (torch.arange(1)[:, None, None, None], torch.arange(2)[:, None, None], torch.arange(60)[:, None], torch.arange(100))
    scores = alibi_score_mod(q.double() @ k.double().mT * 32**-0.5, *index, slopes, 40)
    seen = torch.ones(60, 100, dtype=torch.bool).tril(40)
    exact = torch.softmax(scores.masked_fill(~seen, -torch.inf), -1) @ v.double()
    assert oracles.max_error(flash_score_mod.flash_score_mod_forward(q, k, v, slopes=slopes)[0], exact) < 2e-6


def test_alibi_is_a_score_mod_and_the_classes_are_those_of_a_block_mask():
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    q, k, v = qkv(torch.Generator().manual_seed(5), 1, 2, 64, 64, 16)
    slopes = alibi.slopes_of(2)
    owner = documents.packed([20, 30, 14])

    def mask(b, h, i, j):
        return (i >= j) & (owner[i] == owner[j])

    block_mask = create_block_mask(mask, None, None, 64, 64, device="cpu", BLOCK_SIZE=16)
    kinds = document_block_mask(owner, 16, 16)
    assert block_mask.full_kv_num_blocks[0, 0].tolist() == (kinds == 2).sum(1).tolist()
    assert block_mask.kv_num_blocks[0, 0].tolist() == (kinds == 1).sum(1).tolist()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        out = flex_attention(q, k, v, score_mod=lambda s, b, h, i, j: alibi_score_mod(s, b, h, i, j, slopes), block_mask=block_mask)
    index = (torch.arange(1)[:, None, None, None], torch.arange(2)[:, None, None], torch.arange(64)[:, None], torch.arange(64))
    scores = alibi_score_mod(q.double() @ k.double().mT / 4, *index, slopes)
    seen = documents.visible(owner, torch.arange(64), torch.arange(64))
    assert oracles.max_error(out, torch.softmax(scores.masked_fill(~seen, -torch.inf), -1) @ v.double()) < 2e-6


def test_the_classes_are_made_on_the_device_of_the_documents():
    """The device "meta" refuses to meet a CPU's tensors, as a GPU does."""
    assert document_block_mask(torch.zeros(20, dtype=torch.int64, device="meta"), 8, 4).device.type == "meta"


# ---------------------------------------------------------------- the grading material


def test_the_plain_ways_agree():
    q, k, v = (x.double() for x in qkv(torch.Generator().manual_seed(6), 1, 2, 30, 20, 18))
    for way in plain.WINDOWED:
        exact = oracles.attention(q, k, v, plain.in_window(q, k, 7))
        assert oracles.max_error(way(q, k, v, 7), exact) < 1e-12
    args = varlen.sequences(torch.Generator().manual_seed(7), [5, 0, 9], [9, 3, 0], 2, 16)
    args = (*(x.double() for x in args[:3]), *args[3:])
    outs = [way(*args, causal=causal) for causal in (False, True) for way in plain.PACKED]
    assert all(oracles.max_error(out, outs[0]) < 1e-12 for out in outs[:4]) and all(oracles.max_error(out, outs[4]) < 1e-12 for out in outs[4:])
    assert not outs[0][5:].any() and oracles.max_error(outs[0], outs[4]) > 1e-3
    for lengths, m, n in (([17], 4, 4), ([8, 3, 13], 4, 8), ([1] * 9, 2, 4), ([70, 130], 16, 16)):
        ways = [way(documents.packed(lengths), m, n) for way in (documents.tile_by_tile, documents.dense, documents.pair_by_pair)]
        assert all(torch.equal(ways[0], way) for way in ways)


def _seen(loaded: int, grid: tuple[int, ...], **constexprs: int) -> Evidence:
    return Evidence(launches=[{"kernel": "k", "grid": list(grid), "constexprs": constexprs}], bytes_loaded=loaded)


def _broken(which, probe: Probe, evidence: Evidence) -> dict[str, str]:
    return {rule.id: said for rule in which if (said := rule.broken(probe, evidence))}


@interpreted
def test_the_window_rule_allows_what_the_solution_reads_and_no_tile_more():
    probe = Probe("p", (*qkv(torch.Generator().manual_seed(8), 1, 1, 128, 128, 16), 20))
    with traffic.counted() as launches:
        flash_forward_window(*probe.args)
    read, tile = launches[0].bytes_loaded, 32 * 2 * 16 * 4
    evidence = {"grid": (2, 1, 1), "BLOCK_M": 64, "BLOCK_N": 32}
    judged = [rule for rule in rules.window() if rule.id.startswith("tiles")]
    assert not _broken(judged, probe, _seen(read, **evidence))
    assert "5 of 8 tiles" in _broken(judged, probe, _seen(read + tile, **evidence))["tiles-before"]
    wide = Probe("p", (*probe.args[:3], 200))
    assert set(_broken(judged, wide, _seen(10**9, **evidence))) == {"tiles-before", "tiles-after"}


@interpreted
def test_the_packed_rule_knows_what_idle_programs_may_read():
    args = varlen.sequences(torch.Generator().manual_seed(9), [70, 7], [70, 40], 1, 16)
    for causal, id in ((False, "idle"), (True, "tiles")):
        probe = Probe("p", args, {"causal": causal})
        with traffic.counted() as launches:
            flash_forward_varlen(*args, causal=causal)
        judged = [rule for rule in rules.packed() if rule.id in ("idle", "tiles", "programs")]
        at = {"grid": (2, 1, 2), "BLOCK_M": 64, "BLOCK_N": 32}
        assert not _broken(judged, probe, _seen(launches[0].bytes_loaded, **at))
        assert set(_broken(judged, probe, _seen(launches[0].bytes_loaded + 40 * 2 * 16 * 4, **at))) == {id}
        assert "12 programs" in _broken(judged, probe, _seen(0, (6, 1, 2), BLOCK_M=64))["programs"]


def test_a_leak_has_a_name():
    prop, g = varlen.FLASH_FORWARD_VARLEN.properties[0], torch.Generator()
    assert prop.holds(flash_forward_varlen, g.manual_seed(1)) is None

    def leaks(q, k, v, cu_q, cu_k, max_q, scale=None, causal=False):
        return flash_forward_varlen(q, k, v, cu_q, torch.cat([cu_k[:-1] * 0, cu_k[-1:]]), max_q, scale, causal)

    assert "another document" in prop.holds(leaks, g.manual_seed(1))
