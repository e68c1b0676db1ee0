"""Chapter 06's figures, widgets, instruments and grading material: what they say is computed, bad data gets a sentence, the count is exact."""

import numpy as np
import pytest
import torch

from course_lib import hardware, kept, oracles, recorded, tiny_transformer, traffic

hardware.tier()  # before the kernels below import triton: without a GPU they are interpreted

from course_lib.checks.ch05_flash_forward.inputs import far_below, qkv  # noqa: E402
from course_lib.checks.ch06_flash_backward import autograd, memory, rules  # noqa: E402
from course_lib.checks.ch06_flash_backward.inputs import APART, backward_args, own_strides, with_dout  # noqa: E402
from course_lib.checks.ch06_flash_backward.plain import DELTAS, DKDV, DQ, PAIRS, STEPS, WHOLE  # noqa: E402
from course_lib.earlier import (  # noqa: E402
    FlashAttention,
    attention_delta,
    attention_grads,
    checkpointed_memory,
    flash_backward_dkdv,
    flash_backward_dq,
    flash_forward_lse,
)
from course_lib.figures import core  # noqa: E402
from course_lib.figures import flash_backward as figures  # noqa: E402
from course_lib.figures import flash_forward as forward_figures  # noqa: E402
from course_lib.grading import catalogue, excerpt  # noqa: E402
from course_lib.grading.mutants import by_rule  # noqa: E402
from course_lib.grading.spec import Evidence, Probe  # noqa: E402
from course_lib.widgets import backward_walk, training_memory  # noqa: E402

INTERPRETED = hardware.tier() == "interpreter"
P = np.array([[0.5, 0.3, 0.2], [0.1, 0.1, 0.8]])
DP = np.array([[1.0, -2.0, 0.5], [0.0, 3.0, -1.0]])
DS = P * (DP - (P * DP).sum(axis=1, keepdims=True))
KIB = 1024
DRAWINGS = {
    "store_or_recompute": figures.store_or_recompute,
    "products": figures.products,
    "stacked": lambda: figures.stacked({"naive": {"Q": 4 * KIB, "N x N": 300 * KIB}, "flash": {"Q": 4 * KIB, "lse, delta": 16}}, "kept bytes"),
    "stacked, one": lambda: figures.stacked({"dK and dV": {"Q": 10, "gradients": 20}}, "requested bytes"),
    "score_gradients": lambda: figures.score_gradients(P, DP, DS),
    "score_gradients, largest": lambda: figures.score_gradients(*(np.ones((6, 6)) * x for x in (0.125, -3, 0))),
    "gradient_errors": lambda: figures.gradient_errors({"autograd, float32": {"dq": 3e-7, "dk": 1e-6, "dv": 2e-7}}),
    "over_a_step": lambda: figures.over_a_step({"kept": [0, 1e6, 2e6, 0], "checkpointed": [0, 1e5, 4e5, 0]}),
    "memory_powers": lambda: figures.memory_powers((64, 128), {"naive": (1e5, 4e5), "flash": (1e4, 2e4)}, {"naive": 2.0, "flash": 1.0}),
    "losses": lambda: figures.losses({"plain": [3.0, 1.0, 0.5], "yours": [3.0, 1.0, 0.5], "no attention": [3.0, 3.0, 2.9]}),
    "backward_walk": backward_walk.state,
    "backward_walk, dQ": lambda: backward_walk.state(backward_walk.DQ, 320, 128, 64, 32, True, 0, 0),
    "backward_walk, largest": lambda: backward_walk.state(backward_walk.DKDV, 512, 512, 16, 16, True, 31, 99),
    "training_memory": training_memory.state,
    "training_memory, small": lambda: training_memory.state(512, 1, 1, 64, 1),
    "training_memory, too much": lambda: training_memory.state(131072, 96, 96, 256, 64),
}


@pytest.mark.parametrize("name", DRAWINGS)
def test_every_figure_is_uncrowded_and_says_numbers(name):
    picture = DRAWINGS[name]()
    assert core.crowding(picture.figure) == []
    assert len(picture.alt) > 40 and picture.width <= 900
    assert name in ("store_or_recompute", "products") or any(c.isdigit() for c in picture.alt)


def test_titles_are_computed():
    assert DRAWINGS["stacked"]().title == "Naive: 304 KiB, 76 times as much as flash"
    assert DRAWINGS["stacked, one"]().title == "dK and dV: 30 B"
    assert "to 0" in DRAWINGS["score_gradients"]().title and "\u22121.00, \u22121.00" not in DRAWINGS["score_gradients"]().alt
    assert "2.00 (naive), 1.00 (flash)" in DRAWINGS["memory_powers"]().title
    assert backward_walk.state(step=0).title == "dK and dV, program 1 of 4: 0 of its 6 tiles done, 2 skipped"
    assert (
        "all of them fit" in training_memory.state(512, 1, 1, 64, 1).title
        and "none of them fits" in training_memory.state(131072, 96, 96, 256, 64).title
    )


def test_the_backward_pass_is_shown_as_recorded():
    """Of the record, the rows of the whole pass; the finding in the title is computed from them."""
    rows = [row for row in recorded.table("flash_backward").rows if row["kernel"] == "flash_backward"]
    picture = forward_figures.speeds(rows, what="Backward, ")
    (row,) = [row for row in rows if (row["D"], row["causal"], row["N"]) == (128, "no", 16384)]
    assert picture.title.startswith(f"Backward, full, N = 16,384: the course's kernels reach {row['course (TFLOP/s)']:.0f} TFLOP/s")
    assert f"{row['course / FA3']:.2f}x FA3" in picture.title and core.crowding(picture.figure) == []
    assert all(name in picture.alt for name in ("the course's", "FA2", "cuDNN", "FA3", "FlexAttention"))
    with pytest.raises(ValueError, match="a case has two rows"):
        forward_figures.speeds(recorded.table("flash_backward").rows)


@pytest.mark.parametrize(
    ("draw", "words"),
    [
        (lambda: figures.stacked({}, "bytes"), "at least one way"),
        (lambda: figures.stacked({"a": {"W": 3}}, "bytes"), "tensors among"),
        (lambda: figures.score_gradients(P, DP, DS[:1]), "one shape"),
        (lambda: figures.gradient_errors({"a": {"dq": 1.0}}), '"dv"'),
        (lambda: figures.over_a_step({"a": [1]}), "at least two"),
        (lambda: figures.losses({"a": [1.0, 2.0], "b": [1.0]}), "the same number"),
        (lambda: figures.memory_powers((1, 2), {"a": (1, 2)}, {}), "a power for every way"),
        (lambda: backward_walk.state("dR"), "no kernel 'dR'"),
        (lambda: backward_walk.state(n_q=1024), "at most 512"),
        (lambda: backward_walk.state(block_m=24), "its sides are"),
        (lambda: backward_walk.walk(backward_walk.DQ, 64, 64, 16, 16, True, 9), "there are 4"),
        (lambda: tiny_transformer.train(tiny_transformer.plain_attention, 0), "at least 1"),
        (lambda: tiny_transformer.Tiny(tiny_transformer.plain_attention, width=30, heads=4), "take a multiple"),
    ],
)
def test_bad_data_gets_a_sentence(draw, words):
    with pytest.raises(ValueError, match=words):
        draw()


def test_widgets_have_their_controls():
    shell = backward_walk.stepper()
    shell.controls["kernel"].value = backward_walk.DQ
    assert shell.shown.title.startswith("dQ, program 1")
    shell.controls["causal"].value = False
    assert "0 skipped" in shell.shown.title
    shell = training_memory.explorer()
    shell.controls["n"].value = 65536
    assert shell.shown.title.startswith("N = 65,536")


def test_the_explorer_counts_what_autograd_keeps():
    """Naive: Q, K, V and P; flash: Q, K, V, the output and lse. In float32 here, two bytes a number there."""
    q, k, v = (torch.randn(1, 2, 96, 16, requires_grad=True) for _ in range(3))
    ways = training_memory.kept(96, 1, 2, 16, 1)
    naive = sum(x.bytes for x in kept.kept(lambda: torch.softmax(q @ k.mT * 0.25, dim=-1) @ v))
    assert ways["naive"] == naive // 2 + 96 * 32 * 2
    flash = sum(x.bytes for x in kept.kept(lambda: FlashAttention.apply(q, k, v)))
    lse = 4 * 2 * 96
    assert ways["flash"] == (flash - lse) // 2 + lse + 96 * 32 * 2


# ---------------------------------------------------------------- what is kept


def test_kept_counts_storages_once_and_not_what_is_ignored():
    w, x = torch.randn(4, 8, requires_grad=True), torch.randn(3, 8, requires_grad=True)
    found = kept.kept(lambda: (x @ w.mT).exp())
    assert sorted(s.bytes for s in found) == [48, 96, 128]  # the result of exp, x, w
    assert sorted(s.bytes for s in kept.kept(lambda: (x @ w.mT).exp(), ignore=[w])) == [48, 96]
    assert [s.bytes for s in kept.kept(lambda: x * x)] == [96]
    assert kept.kept(lambda: x + 1) == []


def test_along_a_step_ends_where_it_began():
    x = torch.randn(3, 8, requires_grad=True)
    trace = kept.along_a_step(lambda: x.exp().exp())
    assert trace == [0, 96, 192, 96, 0] and x.grad is not None


@pytest.mark.parametrize("segment", [1, 2, 3, 5, 9])
def test_the_formula_of_checkpoints_is_what_a_stack_does(segment):
    from torch.utils.checkpoint import checkpoint

    blocks = torch.nn.Sequential(*(tiny_transformer.Block(16, 2, tiny_transformer.plain_attention) for _ in range(5)))
    weights = list(blocks.parameters())
    x = torch.randn(1, 24, 16, requires_grad=True)

    def run():
        y = x
        for start in range(0, 5, segment):
            part = blocks[start : start + segment]
            y = checkpoint(part, y, use_reentrant=True) if segment < 5 else part(y)
        return y

    block = sum(s.bytes for s in kept.kept(lambda: blocks[0](x), weights))
    size = x.numel() * 4
    assert max(kept.along_a_step(run, weights)) == checkpointed_memory(5, segment, size, block - size)
    assert checkpointed_memory(5, segment, size, block - size) == memory.simulated(5, segment, size, block - size)


# ---------------------------------------------------------------- the kernels


def test_the_whole_step_against_autograd_in_float64():
    g = torch.Generator().manual_seed(3)
    q, k, v, dout = with_dout(g, qkv(g, 2, 2, 30, 40, 20))
    mask = torch.ones(30, 40, dtype=torch.bool).tril(10)  # every row has a key: autograd through the oracle gives NaN in others
    for causal, kept_keys in ((False, None), (True, mask)):
        wide = [x.double().requires_grad_() for x in (q, k, v)]
        exact = torch.autograd.grad(oracles.attention(*wide, kept_keys), wide, dout.double())
        leaves = [x.clone().requires_grad_() for x in (q, k, v)]
        mine = torch.autograd.grad(FlashAttention.apply(*leaves, None, causal), leaves, dout)
        assert all(oracles.max_error(a, b) < 5e-6 for a, b in zip(mine, exact, strict=True)), causal


def test_gradients_agree_with_finite_differences():
    args = [torch.randn(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(i)) for i in range(4)]
    q, k, v, dout = args
    nudge = torch.zeros_like(q)
    nudge[1, 2] = 1e-6

    def loss(q):
        return (oracles.attention(q, k, v) * dout).sum()

    slope = (loss(q + nudge) - loss(q - nudge)) / 2e-6
    assert abs(attention_grads(*args)[0][1, 2] - slope) < 1e-8


def test_the_tuned_kernels_give_the_same():
    from kernels import attention_delta as tuned_delta
    from kernels import flash_backward_dkdv as tuned_dkdv
    from kernels import flash_backward_dq as tuned_dq

    if not INTERPRETED:
        pytest.skip("on a GPU the tuned kernels are tested against float64, not against the exercises'")
    g = torch.Generator().manual_seed(4)
    q, k, v, dout, lse, delta = backward_args(g, qkv(g, 1, 2, 50, 70, 24), None, True)
    mine, tuned = (way(q, k, v, dout, lse, delta, causal=True) for way in (flash_backward_dkdv, tuned_dkdv.flash_backward_dkdv))
    assert all(oracles.max_error(a, b) < 5e-6 for a, b in zip(mine, tuned, strict=True))
    assert (
        oracles.max_error(flash_backward_dq(q, k, v, dout, lse, delta, causal=True), tuned_dq.flash_backward_dq(q, k, v, dout, lse, delta, True))
        < 5e-6
    )
    assert oracles.max_error(attention_delta(q, dout), tuned_delta.attention_delta(q, dout)) < 5e-6


@pytest.mark.parametrize(("n_q", "n_kv"), [(150, 100), (100, 150), (90, 21)])
def test_the_walk_that_is_drawn_is_the_walk_that_is_made(n_q, n_kv):
    if not INTERPRETED:
        pytest.skip("the trace of a kernel needs the interpreter")
    g = torch.Generator().manual_seed(8)
    args = backward_args(g, qkv(g, 1, 1, n_q, n_kv, 16), None, True)
    for kernel, function, tensor, owned in (
        (backward_walk.DKDV, flash_backward_dkdv, "q_ptr", n_kv),
        (backward_walk.DQ, flash_backward_dq, "k_ptr", n_q),
    ):
        with traffic.counted(trace=True) as launches:
            function(*args, causal=True)
        for program in range(-(-owned // 32)):
            touched = [touch.box[2][0] // 32 for touch in launches[0].trace if touch.tensor == tensor and touch.program[0] == program]
            assert touched == backward_walk.walk(kernel, n_q, n_kv, 32, 32, True, program), (kernel, program)


def test_seven_products_and_nothing_n_by_n_is_stored():
    if not INTERPRETED:
        pytest.skip("counts in this process need the interpreter")
    g = torch.Generator().manual_seed(9)
    q, k, v, dout, lse, delta = backward_args(g, qkv(g, 1, 1, 128, 128, 32))
    with traffic.counted() as launches:
        flash_forward_lse(q, k, v)
        flash_backward_dkdv(q, k, v, dout, lse, delta)
        flash_backward_dq(q, k, v, dout, lse, delta)
    forward, dkdv, dq = launches
    assert (dkdv.flops + dq.flops) / forward.flops == 3.5
    assert dkdv.bytes_stored == 2 * k.numel() * 4 and dq.bytes_stored == q.numel() * 4


# ---------------------------------------------------------------- the grading material


def test_the_plain_ways_agree_in_float64():
    g = torch.Generator().manual_seed(5)
    q, k, v, dout = (x.double() for x in with_dout(g, far_below(qkv(g, 2, 2, 30, 20, 18), 9)))
    wanted = WHOLE[2](q, k, v, dout)
    assert all(oracles.max_error(a, b) < 1e-10 for way in WHOLE for a, b in zip(way(q, k, v, dout), wanted, strict=True))
    out, lse = oracles.attention(q, k, v), oracles.attention_lse(q, k)
    for way in PAIRS:
        found = way(q, k, v, dout, lse, (out * dout).sum(-1))
        assert all(oracles.max_error(a, b) < 1e-10 for a, b in zip(found, wanted, strict=True))
    assert all(oracles.max_error(way(out, dout), (out * dout).sum(-1)) < 1e-12 for way in DELTAS)
    assert all(x is None for x in STEPS[0](q, k, v, dout, wanted="q")[2:])


def _seen(probe: Probe, loaded: int, grid: tuple[int, ...], **constexprs: int) -> Evidence:
    return Evidence(launches=[{"kernel": "k", "grid": list(grid), "constexprs": constexprs}], bytes_loaded=loaded)


def test_the_tile_rule_knows_what_may_be_read():
    g = torch.Generator().manual_seed(6)
    probe = Probe("p", backward_args(g, qkv(g, 1, 1, 200, 200, 16), None, True), {"causal": True})
    row, once = 2 * 16 * 4 + 8, 2 * 200 * 16 * 4  # a row of Q, dout, lse, delta; all of K and V
    seen = 200 + (200 - 64) + (200 - 128) + (200 - 192)  # queries walked over by four tiles of 64 keys, in tiles of 32
    rule = rules.tiles_skipped("keys")
    assert rule.broken(probe, _seen(probe, once + seen * row, (4, 1, 1), BLOCK_M=32)) is None
    said = rule.broken(probe, _seen(probe, once + seen * row + 1, (4, 1, 1), BLOCK_M=32))
    assert "owns 64 keys" in said and "16 of 28" in said
    assert rules.tiles_skipped("queries").broken(probe, _seen(probe, 10**9, (4, 1, 1), BLOCK_N=32))
    assert rule.broken(Probe("p", probe.args), _seen(probe, 10**9, (4, 1, 1))) is None


def test_a_whole_long_axis_is_noticed():
    g = torch.Generator().manual_seed(7)
    probe = Probe("p", backward_args(g, qkv(g, 1, 1, 600, 3, 20)))
    assert "1,024" in rules.few_at_a_time("keys").broken(probe, _seen(probe, 0, (1,), ANY=1024))
    assert rules.few_at_a_time("keys").broken(probe, _seen(probe, 0, (1,), BLOCK=128)) is None


def _harness(function, *args, text=autograd.HARNESS, **kwargs):
    names: dict = {}
    exec(text, names)
    return names["run"](function, *args, **kwargs)


@pytest.mark.parametrize(("plain", "name", "place", "other"), [(DKDV[0], "q", 0, 3), (DQ[0], "k", 1, 2)], ids=["dkdv", "dq"])
def test_a_tensor_with_strides_of_its_own_is_tried(plain, name, place, other):
    item = own_strides(plain, name, place)

    def right(*given):
        assert given[place].stride()[2:] == (1, 40) and given[other].stride()[2:] == (20, 1)
        return plain(*given)

    def mistaken(*given):  # the other tensor of this shape is read with the strides of the first
        return plain(*(x.as_strided(x.shape, given[place].stride()) if i == other else x for i, x in enumerate(given)))

    def said(answer):
        return item.holds(lambda *given, **options: _harness(answer, *given, text=APART, **options), torch.Generator().manual_seed(5))

    assert said(right) is None
    assert f"{name} alone lies transposed" in said(mistaken)


def test_a_class_is_shown_with_the_names_of_its_arguments():
    exercise, check = catalogue.find("FlashAttention"), catalogue.checks(6)["FlashAttention"]
    probe = check.probes(torch.Generator().manual_seed(1))[1]
    shown = excerpt.shapes(excerpt.named(exercise, probe.args, probe.kwargs, check.harness))
    assert [line.split()[0] for line in shown] == ["q", "k", "v", "dout", "causal"] and shown[3] == "dout [2, 2, 20, 20] float32"
    function, kernel = catalogue.find("attention_delta"), catalogue.checks(6)["attention_delta"]
    assert [name for name, _ in excerpt.named(function, (1, 2, 3), {}, kernel.harness)] == ["out", "dout", "argument 2"]
    assert exercise.opening == "class FlashAttention(torch.autograd.Function)" and function.opening == "def attention_delta(...)"


def test_an_exception_gets_only_the_sentence_that_fits_it():
    def id_of(words):
        mutant = by_rule(catalogue.checks(6)["FlashAttention"], "exception", words)
        return mutant and mutant.id

    assert id_of("RuntimeError: function FlashAttentionBackward returned an incorrect number of gradients (expected 5, got 3)") == "too-few"
    assert id_of("RuntimeError: Function FlashAttentionBackward returned an invalid gradient at index 0 - got [1, 1]") == "other-order"
    assert id_of("RuntimeError: got 2 tensors and 1 gradients") == "lse-returned"
    assert id_of("ValueError: not enough values to unpack (expected 5, got 0)") is None


def test_the_harness_sees_what_is_kept_and_what_is_changed():
    g = torch.Generator().manual_seed(10)
    q, k, v, dout = with_dout(g, qkv(g, 1, 1, 12, 14, 16))
    report = _harness(FlashAttention, q, k, v, report=True)
    assert report["bytes"] == 4 * (2 * q.numel() + 2 * k.numel() + 12)
    assert _harness(FlashAttention, q, k, v, dout, meddle=True) == "refused"
    assert _harness(FlashAttention, q, k, v, dout, wanted="k")[1] is None
    with pytest.raises(TypeError, match="must be a class"):
        _harness(lambda q, k, v: q, q, k, v)


# ---------------------------------------------------------------- training


def test_only_attention_learns_the_task_and_kernels_train_as_plain_attention_does():
    shape = {"size": 2, "length": 16}
    plain = tiny_transformer.train(tiny_transformer.plain_attention, 3, **shape)
    mine = tiny_transformer.train(lambda q, k, v: FlashAttention.apply(q, k, v, None, True), 3, **shape)
    assert max(abs(a - b) for a, b in zip(plain, mine, strict=True)) < 1e-5
    long = tiny_transformer.train(tiny_transformer.plain_attention, 40)
    assert long[-1] < 0.3 < 1.8 < tiny_transformer.train(lambda q, k, v: v, 40)[-1]
