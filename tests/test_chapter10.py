"""Chapter 10: the course's allocator, forks, copy-on-write and prefix cache as state machines; the simulation, figures, widget, histories."""

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from course_lib import earlier, hardware, oracles, reservations

hardware.tier()  # before the kernels below import triton: without a GPU they are interpreted

from course_lib.block_tables import BlockTables  # noqa: E402
from course_lib.checks.ch10_paged_attention import allocator as allocator_check  # noqa: E402
from course_lib.checks.ch10_paged_attention import histories, rules, sharing  # noqa: E402
from course_lib.checks.ch10_paged_attention.inputs import paged  # noqa: E402
from course_lib.checks.ch10_paged_attention.plain import DECODES, PREFILLS  # noqa: E402
from course_lib.earlier import (  # noqa: E402
    BlockAllocator,
    append_slots,
    copy_on_write,
    fork_sequence,
    fragmentation_waste,
    paged_decode,
    paged_gather,
    paged_prefill,
    prefix_block_hashes,
    write_kv,
)
from course_lib.figures import core  # noqa: E402
from course_lib.figures import paged_attention as figures  # noqa: E402
from course_lib.grading.spec import Evidence, Probe  # noqa: E402
from course_lib.llm import loading  # noqa: E402
from course_lib.widgets import block_tables as view  # noqa: E402
from tools.sync import ROOT, read_notebook  # noqa: E402

QUICK = settings(max_examples=40, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck))


# ---------------------------------------------------------------- state machines


class Allocator(RuleBasedStateMachine):
    """BlockAllocator against a list with one entry for every hold."""

    def __init__(self):
        super().__init__()
        self.blocks, self.subject, self.holds = 4, BlockAllocator(4), []

    @rule()
    def allocate(self):
        if len(set(self.holds)) == self.blocks:
            with pytest.raises(RuntimeError):
                self.subject.allocate()
            return
        block = self.subject.allocate()
        assert block in range(self.blocks) and block not in self.holds, "given to two"
        self.holds.append(block)

    @rule(block=st.integers(-2, 6))
    def share(self, block):
        if block not in self.holds:
            with pytest.raises(ValueError):
                self.subject.share(block)
            return
        self.subject.share(block)
        self.holds.append(block)

    @rule(block=st.integers(-2, 6))
    def free(self, block):
        if block not in self.holds:
            with pytest.raises(ValueError):
                self.subject.free(block)
            return
        self.subject.free(block)
        self.holds.remove(block)

    @invariant()
    def nothing_is_lost(self):
        assert self.subject.num_free == self.blocks - len(set(self.holds))
        assert [self.subject.holders(b) for b in range(self.blocks)] == [self.holds.count(b) for b in range(self.blocks)]


class Requests(RuleBasedStateMachine):
    """BlockTables over the course's functions: texts that begin alike, forks, ends, a pool that is too small, prefixes found and evicted."""

    FORK, COPY, NAMES = staticmethod(fork_sequence), staticmethod(copy_on_write), staticmethod(prefix_block_hashes)

    def __init__(self):
        super().__init__()
        self.allocator = BlockAllocator(9)
        self.tables = BlockTables(self.allocator, 9, 2, self.FORK, self.COPY, self.NAMES)
        self.texts, self.made = {}, 0

    def new_name(self) -> str:
        self.made += 1
        return f"r{self.made}"

    @rule(tokens=st.lists(st.integers(0, 2), min_size=1, max_size=9))
    def add(self, tokens):
        name = self.new_name()
        try:
            hit = self.tables.add(name, tokens)
        except RuntimeError:
            return
        assert hit < len(tokens) and hit % 2 == 0
        self.texts[name] = list(tokens)

    @precondition(lambda self: self.texts)
    @rule(which=st.integers(0, 99), token=st.integers(0, 2))
    def append(self, which, token):
        name = sorted(self.texts)[which % len(self.texts)]
        try:
            self.tables.append(name, token)
        except RuntimeError:
            return
        self.texts[name].append(token)

    @precondition(lambda self: 0 < len(self.texts) < 6)
    @rule(which=st.integers(0, 99))
    def fork(self, which):
        name, child = sorted(self.texts)[which % len(self.texts)], self.new_name()
        free = self.allocator.num_free
        self.tables.fork(name, child)
        assert self.allocator.num_free == free, "a fork takes no block"
        self.texts[child] = list(self.texts[name])

    @precondition(lambda self: self.texts)
    @rule(which=st.integers(0, 99))
    def end(self, which):
        name = sorted(self.texts)[which % len(self.texts)]
        self.tables.end(name)
        del self.texts[name]

    @invariant()
    def every_text_reads_as_written(self):  # a block shared while written, or matched after reuse, shows here
        assert {name: self.tables.read(name) for name in self.texts} == self.texts
        assert self.tables.texts == self.texts

    @invariant()
    def holders_are_those_that_name_the_block(self):  # a leak, or a block freed twice, shows here
        kept = list(self.tables.named.values())
        named = [block for table in self.tables.tables.values() for block in table] + kept
        assert len(kept) == len(set(kept))
        for block in range(9):
            assert self.allocator.holders(block) == named.count(block)
        assert self.allocator.num_free == 9 - len(set(named))

    @invariant()
    def a_name_says_what_is_in_the_block(self):
        for name, block in self.tables.named.items():
            assert None not in self.tables.memory[block]
            assert len(name) == 64


class RequestsWithoutNames(Requests):
    """The same without a prefix cache: when all have ended, every block is free."""

    NAMES = None

    @precondition(lambda self: self.texts)
    @rule()
    def end_all(self):
        for name in list(self.texts):
            self.tables.end(name)
        self.texts.clear()
        assert self.allocator.num_free == 9


for machine in (Allocator, Requests, RequestsWithoutNames):
    machine.TestCase.settings = QUICK
TestAllocator, TestRequests, TestRequestsWithoutNames = Allocator.TestCase, Requests.TestCase, RequestsWithoutNames.TestCase


class FoundByItsOldName(Requests):
    """The prefix cache gives a block up and keeps its name: a reused block is matched."""

    def __init__(self):
        super().__init__()
        inner, named = self.allocator, self.tables.named

        def allocate() -> int:
            block = next((block for block in named.values() if inner.holders(block) == 1), None)
            if not inner.num_free and block is not None:
                inner.free(block)
            return inner.allocate()

        self.tables.allocator.allocate = allocate


class WrittenWhileShared(Requests):
    @staticmethod
    def COPY(table, length, block_size, allocator):
        if length == len(table) * block_size:
            table.append(allocator.allocate())


class ForkNotCounted(Requests):
    @staticmethod
    def FORK(table, allocator):
        return list(table)


class Leaks(Requests):
    @staticmethod
    def COPY(table, length, block_size, allocator):
        pair = copy_on_write(table, length, block_size, allocator)
        if pair is not None:
            allocator.share(pair[0])
        return pair


@pytest.mark.parametrize("broken", [FoundByItsOldName, WrittenWhileShared, ForkNotCounted, Leaks])
def test_the_machines_can_fail(broken):
    with pytest.raises((AssertionError, ValueError)):
        limits = settings(QUICK, max_examples=300, report_multiple_bugs=False, print_blob=False, database=None, phases=[Phase.generate])
        run_state_machine_as_test(broken, settings=limits)


def test_of_a_text_the_last_block_is_evicted_first():
    tables = BlockTables(BlockAllocator(4), 4, 2, fork_sequence, copy_on_write, prefix_block_hashes)
    tables.add("A", [1, 2, 3, 4, 5, 6])
    tables.end("A")
    tables.add("B", [9, 9, 9])  # the free block, and one of A's three
    tables.end("B")
    assert tables.add("C", [1, 2, 3, 4, 5, 6, 7]) == 4, "without its first block a text is not found at all"


def test_block_tables_refuse_in_sentences():
    tables = BlockTables(BlockAllocator(2), 2, 2, fork_sequence, copy_on_write)
    tables.add("a", [1, 2, 3])
    with pytest.raises(ValueError, match="already"):
        tables.add("a", [1])
    with pytest.raises(ValueError, match="needs a token"):
        tables.add("b", [])
    with pytest.raises(ValueError, match="no request 'x'; there are a"):
        tables.append("x", 1)
    with pytest.raises(ValueError, match="already"):
        tables.fork("a", "a")
    with pytest.raises(RuntimeError):
        tables.add("c", [9])
    assert tables.texts == {"a": [1, 2, 3]} and tables.allocator.num_free == 0
    with pytest.raises(ValueError, match="at least 1"):
        BlockTables(BlockAllocator(2), 0, 2, fork_sequence, copy_on_write)


# ---------------------------------------------------------------- how histories are judged


def calls(subject, harness: str):
    space: dict = {}
    exec(harness, space)
    return lambda size, steps: space["run"](subject, size, steps)


class Leaking(BlockAllocator):
    def free(self, block):
        super().free(block)
        if self.holders(block) == 0:
            self._free.remove(block)


def test_a_failing_history_is_made_short():
    g = torch.Generator().manual_seed(3)
    found = histories.shortest(calls(Leaking, allocator_check.HARNESS), allocator_check.play, 4, histories.draw(g, allocator_check.VERBS, 80))
    assert found is not None
    steps, wanted, got = found
    assert steps == ["A = allocate()", "free(A)"] and wanted == "holders 0, 4 free" and got == "holders 0, 3 free"
    assert "A = allocate(); free(A)" in histories.told(found, "of 4 blocks")


def test_right_answers_have_no_failing_history():
    g = torch.Generator().manual_seed(4)
    for _ in range(20):
        moves = histories.draw(g, allocator_check.VERBS, 60)
        assert histories.shortest(calls(BlockAllocator, allocator_check.HARNESS), allocator_check.play, 5, moves) is None
        moves = histories.draw(g, sharing.VERBS, 60)
        assert histories.shortest(calls(fork_sequence, sharing.FORK_HARNESS), sharing.play, 6, moves) is None
        assert histories.shortest(calls(copy_on_write, sharing.COPY_HARNESS), sharing.play, 6, moves) is None


def test_the_two_oracles_of_the_allocator_agree():
    g = torch.Generator().manual_seed(5)
    for size in (1, 3, 8):
        steps, wanted = allocator_check.play(size, histories.draw(g, allocator_check.VERBS, 200))
        assert allocator_check.by_sets(size, steps) == wanted


def test_a_block_written_while_shared_shows_in_the_other_text():
    g = torch.Generator().manual_seed(0)

    def careless(table, length, block_size, allocator):
        if length == len(table) * block_size:
            table.append(allocator.allocate())

    steps, wanted, got = histories.shortest(calls(careless, sharing.COPY_HARNESS), sharing.play, 6, histories.draw(g, sharing.VERBS, 80))
    assert len(steps) <= 4 and "copied" in wanted and "copied" not in got


# ---------------------------------------------------------------- kernels and slots, beside the tuned ones


@pytest.mark.parametrize("block", [1, 4, 16])
def test_written_through_slots_and_read_back(block):
    g = torch.Generator().manual_seed(block)
    lengths, d, h_kv = [5, 23, 1], 12, 2
    allocator = BlockAllocator(40)
    most = -(-max(lengths) // block)
    tables = torch.tensor([([allocator.allocate() for _ in range(-(-n // block))] + [10**6] * most)[:most] for n in lengths], dtype=torch.int32)
    positions = torch.stack([torch.where(torch.arange(23) < n, torch.arange(23), -1) for n in lengths])
    k, v = torch.randn(2, 3, 23, h_kv, d, generator=g)
    k_cache, v_cache = torch.zeros(2, 40, block, h_kv, d)
    write_kv(k.flatten(0, 1), v.flatten(0, 1), k_cache, v_cache, append_slots(tables.where(tables < 40, 0), positions, block).flatten())
    for b, n in enumerate(lengths):
        assert torch.equal(paged_gather(k_cache, tables[b], n), k[b, :n]) and torch.equal(paged_gather(v_cache, tables[b], n), v[b, :n])
    assert int((k_cache != 0).any(-1).any(-1).sum()) == sum(lengths)


def test_the_simple_kernels_and_the_tuned_ones_agree():
    from kernels.paged_decode import paged_decode as tuned_decode
    from kernels.paged_prefill import paged_prefill as tuned_prefill

    g = torch.Generator().manual_seed(8)
    given = paged(g, (19, 50, 0), 16, 4, 2, 20)
    assert oracles.max_error(paged_decode(*given), tuned_decode(*given)) < 1e-5
    assert oracles.max_error(paged_decode(*given), DECODES[0](*given)) < 1e-5
    given = paged(g, (19, 50), 4, 4, 2, 20, queries=(7, 20))
    assert oracles.max_error(paged_prefill(*given), tuned_prefill(*given)) < 1e-5
    assert oracles.max_error(paged_prefill(*given), PREFILLS[0](*given)) < 1e-5


def test_the_byte_rules_can_fail():
    g = torch.Generator().manual_seed(9)
    probe = Probe("p", paged(g, (40,), 4, 4, 2, 16))
    limit = rules.decode_bytes(probe)
    broken = rules.DECODE[-1].broken
    assert broken(probe, Evidence(bytes_loaded=limit)) is None and "asks for" in broken(probe, Evidence(bytes_loaded=limit + 1)).replace(
        "ask for", "asks for"
    )
    assert rules.no_gather().broken(probe, Evidence(ops={"index.Tensor": 1})) and rules.no_gather().broken(probe, Evidence(ops={"view": 1})) is None
    probe = Probe("p", paged(g, (64,), 4, 2, 1, 16, queries=(60,)))
    launch = {"grid": [4, 1, 1], "constexprs": {"BLOCK_N": 32}}
    tiles = rules.prefill_tiles().broken
    assert tiles(probe, Evidence(launches=[launch], bytes_loaded=10_000)) is None
    assert "takes" in tiles(probe, Evidence(launches=[launch], bytes_loaded=10**6))


# ---------------------------------------------------------------- the simulation

REQUESTS = reservations.lognormal_requests(3000, 60, 120, seed=1, longest=512)


@pytest.mark.parametrize("policy", [*reservations.POLICIES, "blocks"])
def test_a_run_accounts_for_every_slot(policy):
    run = reservations.simulate(policy, REQUESTS, 4096, longest=512, steps=300, warm_up=100)
    assert np.allclose(run.shares.sum(axis=1), 1) and (run.shares >= 0).all()
    assert run.finished > 0 and run.running.min() > 0
    pieces = sorted((p.start, p.size) for p in run.last if p.start >= 0)
    assert all(a + n <= b for (a, n), (b, _) in zip(pieces, pieces[1:], strict=False)), "two requests hold one slot"
    if policy == "exact length, foreseen":
        assert run.mean["never"] == 0
    now, final = [p.now for p in run.last], [p.request.final for p in run.last]
    if policy == "blocks":
        held = sum(p.size for p in run.last)
        assert fragmentation_waste(now, final, 16)[0] >= sum(now) / held - 1e-9


def test_blocks_use_the_memory_and_reservations_do_not():
    used = {p: reservations.simulate(p, REQUESTS, 4096, longest=512, steps=300, warm_up=100).mean["used"] for p in [*reservations.POLICIES, "blocks"]}
    assert used["longest context"] < used["power of two"] < used["exact length, foreseen"] < used["blocks"] and used["blocks"] > 0.9


def test_lengths_have_the_means_that_are_asked_for():
    drawn = reservations.lognormal_requests(20_000, 50, 80, sigma=0.5, longest=10_000, seed=2)
    assert abs(np.mean([r.prompt for r in drawn]) - 50) < 1 and abs(np.mean([r.output for r in drawn]) - 80) < 1
    assert reservations.lognormal_requests(5, 50, 80, seed=2) == reservations.lognormal_requests(5, 50, 80, seed=2)


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (lambda: reservations.simulate("none", REQUESTS, 4096, 512), "choose one of longest context"),
        (lambda: reservations.simulate("blocks", REQUESTS, 100, 512), "must hold at least the longest"),
        (lambda: reservations.simulate("blocks", REQUESTS[:5], 4096, 512), "give it more than 5 requests"),
        (lambda: reservations.lognormal_requests(0, 5, 5), "too small"),
        (lambda: figures.strips([]), "at least one run"),
        (lambda: figures.shares([]), "at least one run"),
        (lambda: figures.block_sizes({1: 1.0}, {2: 1}), "the same block sizes"),
        (lambda: figures.samples([1], [2], []), "as many numbers"),
        (lambda: figures.prompts([5], [4]), "at most its length"),
        (lambda: figures.decode_bytes({"a": {"W": 1}}), "tensors among"),
        (lambda: figures.who_sees({"a": (5, 4)}), "over at most 24"),
        (lambda: figures.tables(view._played(1, 4)[0], " "), "needs a title"),
        (lambda: view.state(1, 3), "blocks of 4 or 8"),
    ],
)
def test_bad_data_gets_a_sentence(bad, words):
    with pytest.raises(ValueError, match=words):
        bad()


# ---------------------------------------------------------------- figures and the widget

RUNS = [reservations.simulate(p, REQUESTS, 4096, longest=512, steps=50, warm_up=100) for p in [*reservations.POLICIES, "blocks"]]
DRAWINGS = {
    "opening": figures.opening,
    "strips": lambda: figures.strips(RUNS),
    "shares": lambda: figures.shares(RUNS, {"blocks": ("another server", (90, 4, 3, 3))}),
    "block sizes": lambda: figures.block_sizes({1: 1.0, 16: 0.98, 256: 0.7}, {1: 2048, 16: 128, 256: 8}),
    "samples": lambda: figures.samples([1, 2, 8], [35, 70, 280], [35, 39, 63]),
    "prompts": lambda: figures.prompts([0, 96], [120, 130]),
    "bytes": lambda: figures.decode_bytes({"contiguous": {"K": 4096, "V": 4096}, "paged": {"K": 4096, "V": 4096, "table": 100}}),
    "who sees": lambda: figures.who_sees({"a chunk": (4, 10), "decode": (1, 12)}),
    **{f"view {step}, blocks of {size}": (lambda step=step, size=size: view.state(step, size)) for size in view.SIZES for step in (0, 4, 7, 13)},
}


@pytest.mark.parametrize("name", DRAWINGS)
def test_every_figure_is_uncrowded_and_says_numbers(name):
    picture = DRAWINGS[name]()
    assert core.crowding(picture.figure) == []
    assert len(picture.alt) > 40 and picture.width <= 900 and any(c.isdigit() for c in picture.alt)


def test_the_story_shows_what_it_is_for():
    said = [view._played(step, 4)[2] for step in range(len(view.STORY) + 1)]
    assert any("copied to block" in words for words in said) and any("found in the prefix cache" in words for words in said)
    assert any("gave up block" in words for words in said) and not any("wait" in words for words in said)
    for size in view.SIZES:
        for step in range(len(view.STORY) + 1):
            played = view._played(step, size)[0]
            assert all(played.read(who) == text for who, text in played.texts.items())
    assert view.state(99).title == view.state(len(view.STORY)).title


def test_the_widget_has_its_controls():
    shell = view.stepper()
    shell.controls["step"].value = 7
    assert "C arrives" in shell.shown.title
    shell.controls["block_size"].value = 8
    assert "found in the prefix cache" in shell.shown.alt


# ---------------------------------------------------------------- inside the model


def test_the_chapters_functions_give_the_models_tokens():
    from course_lib.llm import KVCache, Llama, ModelConfig, PagedCache, generate

    torch.manual_seed(1)
    config = ModelConfig(
        vocab_size=60, hidden_size=48, num_layers=2, num_heads=6, num_kv_heads=2, head_dim=16, intermediate_size=40, max_positions=64
    )
    model = Llama(config).eval().requires_grad_(False)
    tokens = torch.randint(1, 60, (2, 9))
    allocator = BlockAllocator(8)
    cache = PagedCache(config, 8, 4, batch=2, allocate=allocator.allocate, write_kv=write_kv, paged_decode=paged_decode, paged_prefill=paged_prefill)
    through = generate(model, tokens, 4, cache=cache, stop=False)
    assert torch.equal(through, generate(model, tokens, 4, cache=KVCache(config, 2, 20), stop=False))
    assert allocator.num_free == 2  # 12 tokens stored in each of two texts


def test_the_notebooks_model_gives_the_same_tokens_where_bf16_is_usual(monkeypatch, capsys):
    """On a GPU load_model gives bf16 unless it is asked; both caches are float32, and tokens are compared one by one."""
    monkeypatch.setattr(loading, "_default_dtype", lambda *_: torch.bfloat16)
    cells = read_notebook(ROOT / "notebooks" / "10_paged_attention.ipynb").cells
    cell = next(cell.source for cell in cells if cell.cell_type == "code" and "load_model" in cell.source)
    cell = cell.replace("tokens, 20,", "tokens, 2,")  # the interpreter is slow
    functions = (BlockAllocator, write_kv, paged_decode, paged_prefill)
    exec(cell, {"torch": torch, "earlier": earlier, "device": "cpu", **{function.__name__: function for function in functions}})
    assert "the same tokens: True" in capsys.readouterr().out
