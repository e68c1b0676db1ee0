"""The language model's layers, caches and slots, on random weights: no file, no tokenizer."""

import math

import pytest
import torch
from torch.nn import functional as F

from course_lib import oracles
from course_lib.llm import (
    KVCache,
    Llama,
    ModelConfig,
    PagedCache,
    apply_rope,
    generate,
    generate_uncached,
    probabilities,
    rope_table,
    sampler,
    stream,
)
from course_lib.llm.cache import attend_ragged, attend_same, store

CONFIG = ModelConfig(vocab_size=50, hidden_size=48, num_layers=3, num_heads=6, num_kv_heads=2, head_dim=8, intermediate_size=40, max_positions=64)


def made(config: ModelConfig = CONFIG, seed: int = 0) -> Llama:
    torch.manual_seed(seed)
    model = Llama(config)
    for weight in model.parameters():
        weight.data.normal_(1.0 if weight.dim() == 1 else 0.0, 0.3)
    return model.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def model():
    return made()


def some_tokens(B=2, N=9, seed=1):
    return torch.randint(2, CONFIG.vocab_size, (B, N), generator=torch.Generator().manual_seed(seed))


def by_hand(model: Llama, tokens):
    """The same model in float64, written out again, with the course's oracle for attention."""
    c, w = model.config, {name: weight.double() for name, weight in model.state_dict().items()}
    norm = lambda x, name: x / (x.pow(2).mean(-1, keepdim=True) + c.norm_eps).sqrt() * w[name]  # noqa: E731
    x = w["embed_tokens.weight"][tokens]
    B, N = tokens.shape
    angles = torch.arange(N).double()[:, None] / c.rope_theta ** (torch.arange(0, c.head_dim, 2).double() / c.head_dim)
    turn = torch.polar(torch.ones_like(angles), angles)  # [N, D / 2] complex

    def rotated(x):  # pairs (i, i + D / 2) as complex numbers
        half = c.head_dim // 2
        z = torch.complex(x[..., :half], x[..., half:]) * turn
        return torch.cat((z.real, z.imag), dim=-1)

    keep = torch.ones(N, N, dtype=torch.bool).tril()
    for i in range(c.num_layers):
        p = f"layers.{i}."
        y = norm(x, p + "input_layernorm.weight")
        q, k, v = ((y @ w[f"{p}self_attn.{n}_proj.weight"].T).view(B, N, -1, c.head_dim).transpose(1, 2) for n in "qkv")
        k, v = (z.repeat_interleave(c.num_heads // c.num_kv_heads, dim=1) for z in (rotated(k), v))
        out = oracles.attention(rotated(q), k, v, mask=keep)
        x = x + out.transpose(1, 2).reshape(B, N, -1) @ w[p + "self_attn.o_proj.weight"].T
        y = norm(x, p + "post_attention_layernorm.weight")
        gate, up = y @ w[p + "mlp.gate_proj.weight"].T, y @ w[p + "mlp.up_proj.weight"].T
        x = x + (gate / (1 + (-gate).exp()) * up) @ w[p + "mlp.down_proj.weight"].T
    return norm(x, "norm.weight") @ w["lm_head.weight"].T


def close(a, b, share=2e-5):
    assert (a - b).abs().max() <= share * b.abs().max(), f"largest difference {(a - b).abs().max():.2e} of {b.abs().max():.2e}"


def test_logits_are_those_of_the_formulas(model):
    tokens = some_tokens()
    close(model(tokens).double(), by_hand(model, tokens))
    close(model(tokens, last=True), model(tokens)[:, -1:])


def test_a_token_does_not_see_what_follows(model):
    tokens = some_tokens()
    changed = tokens.clone()
    changed[:, -1] = 3
    close(model(changed)[:, :-1], model(tokens)[:, :-1])
    assert not torch.allclose(model(changed)[:, -1], model(tokens)[:, -1])


CACHES = {
    "contiguous": lambda **more: KVCache(CONFIG, 2, 20, **more),
    "paged": lambda **more: PagedCache(CONFIG, 12, 4, batch=2, **more),
    "paged, blocks of 1": lambda **more: PagedCache(CONFIG, 40, 1, batch=2, **more),
}


@pytest.mark.parametrize("parts", [(9,), (1,) * 9, (5, 1, 3), (4, 5)])
@pytest.mark.parametrize("kind", CACHES)
def test_a_cache_gives_the_logits_of_the_whole_text(model, kind, parts):
    tokens = some_tokens()
    cache = CACHES[kind]()
    rows = [model(part, cache=cache) for part in tokens.split(parts, dim=1)]
    close(torch.cat(rows, dim=1), model(tokens))
    assert cache.lengths.tolist() == [9, 9]


def test_a_padded_batch_counts_each_prompt(model):
    """Prompts of 9 and 4 tokens, padded at the end; after the prefill the cache forgets the padding."""
    tokens = some_tokens()
    cache = KVCache(CONFIG, 2, 20)
    model(tokens, cache=cache)
    cache.rewind(torch.tensor([9, 4], dtype=torch.int32))
    more = some_tokens(N=3, seed=2)
    rows = torch.cat([model(more[:, :2], cache=cache), model(more[:, 2:], cache=cache)], dim=1)
    for i, n in enumerate((9, 4)):
        whole = torch.cat((tokens[i, :n], more[i]))[None]
        close(rows[i], model(whole)[0, -3:])
    assert cache.lengths.tolist() == [12, 7]


def test_rewinding_forgets(model):
    tokens = some_tokens()
    cache = KVCache(CONFIG, 2, 20)
    model(tokens, cache=cache)
    cache.rewind(5)
    close(model(tokens[:, 5:], cache=cache), model(tokens)[:, 5:])


def test_the_slot_of_the_contiguous_cache_is_called_for_everything(model):
    """A learner's attend_with_cache: it stores, it attends, and it sees the lengths before the new tokens."""
    seen = []

    def attend_with_cache(q, k_new, v_new, k_cache, v_cache, lengths):
        seen.append((q.shape[2], lengths.tolist()))
        store(k_new, v_new, k_cache, v_cache, lengths)
        return attend_ragged(q, k_cache, v_cache, lengths)

    tokens = some_tokens()
    cache = KVCache(CONFIG, 2, 20, attend_with_cache=attend_with_cache)
    rows = [model(part, cache=cache) for part in tokens.split((8, 1), dim=1)]
    close(torch.cat(rows, dim=1), model(tokens))
    assert seen == [(8, [0, 0])] * 3 + [(1, [8, 8])] * 3


def test_the_decode_slot_is_called_for_one_token_and_counts_it(model):
    seen = []

    def decode(q, k_cache, v_cache, lengths):
        seen.append((tuple(q.shape), lengths.tolist()))
        return attend_ragged(q[:, :, None], k_cache, v_cache, lengths - 1)[:, :, 0]

    tokens = some_tokens()
    cache = KVCache(CONFIG, 2, 20, decode=decode)
    rows = [model(part, cache=cache) for part in tokens.split((8, 1), dim=1)]
    close(torch.cat(rows, dim=1), model(tokens))
    assert seen == [((2, 6, 8), [9, 9])] * 3


def test_the_slots_of_the_paged_cache(model):
    """Every slot replaced: blocks handed out backwards, slots and tables as the kernels get them."""
    seen = []

    def write_kv(k, v, k_cache, v_cache, slots):
        assert k.shape == v.shape == (len(slots), 2, 8) and slots.dtype == torch.int64
        for t, slot in enumerate(slots.tolist()):
            k_cache[slot // 4, slot % 4], v_cache[slot // 4, slot % 4] = k[t], v[t]

    def one(q, k_cache, v_cache, table, length):
        """q [H, n, D] of the last n tokens of one sequence."""
        blocks = table[: math.ceil(length / 4)].long()
        k, v = (cache[blocks].flatten(0, 1)[:length].transpose(0, 1)[None] for cache in (k_cache, v_cache))
        return attend_same(q[None], k, v)[0]

    def paged_decode(q, k_cache, v_cache, block_tables, lengths):
        seen.append("decode")
        assert block_tables.dtype == lengths.dtype == torch.int32
        return torch.stack([one(q[b, :, None], k_cache, v_cache, block_tables[b], int(lengths[b]))[:, 0] for b in range(len(q))])

    def paged_prefill(q, k_cache, v_cache, block_tables, cu_q, lengths, max_q):
        seen.append("prefill")
        ends = cu_q.tolist()
        assert max_q == 8 and ends == [0, 8, 16]
        parts = [
            one(q[a:b].transpose(0, 1), k_cache, v_cache, block_tables[i], int(lengths[i]))
            for i, (a, b) in enumerate(zip(ends, ends[1:], strict=False))
        ]
        return torch.cat([part.transpose(0, 1) for part in parts])

    free = list(range(12))
    cache = CACHES["paged"](allocate=free.pop, write_kv=write_kv, paged_decode=paged_decode, paged_prefill=paged_prefill)
    tokens = some_tokens()
    rows = [model(part, cache=cache) for part in tokens.split((8, 1), dim=1)]
    close(torch.cat(rows, dim=1), model(tokens))
    assert seen == ["prefill"] * 3 + ["decode"] * 3
    assert cache.tables == [[11, 10, 7], [9, 8, 6]] and cache.block_tables.tolist() == cache.tables


def test_the_engine_can_pass_everything_by_hand(model):
    """Two texts packed into one row, with positions and an attention that keeps them apart."""
    a, b = some_tokens(1, 5), some_tokens(1, 3, seed=3)
    owner = torch.tensor([0] * 5 + [1] * 3)
    keep = (owner[:, None] == owner) & torch.ones(8, 8, dtype=torch.bool).tril()
    attend = lambda layer, q, k, v: F.scaled_dot_product_attention(q, k, v, attn_mask=keep, enable_gqa=True)  # noqa: E731
    hidden = model.hidden(torch.cat((a, b), dim=1), torch.tensor([[0, 1, 2, 3, 4, 0, 1, 2]]), attend)
    close(model.lm_head(hidden[:, 5:]), model(b))
    close(model(torch.cat((a, b), dim=1), positions=torch.tensor([0, 1, 2, 3, 4, 0, 1, 2]), attend=attend)[:, :5], model(a))


def test_rope_is_a_slot():
    model = made()
    tokens, shapes = some_tokens(), []

    def rope(x, cos, sin):
        shapes.append((tuple(x.shape), tuple(cos.shape)))
        return apply_rope(x, cos, sin)

    wanted = model(tokens)
    model.rope = rope
    assert torch.equal(model(tokens), wanted)
    assert shapes == [((2, 6, 9, 8), (9, 8)), ((2, 2, 9, 8), (9, 8))] * 3


def test_rope_turns_by_distance_only():
    """The product of a turned query and a turned key depends on how far apart they are."""
    cos, sin = rope_table(CONFIG, 64)
    q, k = torch.randn(2, 1, 1, 1, 8, generator=torch.Generator().manual_seed(0))
    at = lambda x, p: apply_rope(x, cos[p : p + 1], sin[p : p + 1]).flatten()  # noqa: E731
    assert at(q, 20) @ at(k, 17) == pytest.approx((at(q, 60) @ at(k, 57)).item(), rel=1e-4)
    assert at(q, 20) @ at(k, 17) != pytest.approx((at(q, 20) @ at(k, 12)).item(), rel=1e-2)
    assert torch.equal(at(q, 0), q.flatten())


def test_positions_of_each_sequence(model):
    """[B, N] positions give the rows that [N] gives, sequence by sequence."""
    cos, sin = model.angles(3, torch.tensor([[4, 5, 6], [0, 1, 2]]))
    assert cos.shape == (2, 1, 3, 8)
    assert torch.equal(cos[0, 0], model.angles(3, torch.tensor([4, 5, 6]))[0]) and torch.equal(sin[1, 0], model.angles(3, None)[1])


@pytest.mark.parametrize(("H", "H_KV", "N", "N_KV"), [(6, 2, 1, 7), (6, 2, 7, 7), (6, 6, 3, 7), (4, 1, 5, 6)])
def test_attention_over_a_cache_is_bottom_right(H, H_KV, N, N_KV):
    g = torch.Generator().manual_seed(0)
    q, k, v = torch.randn(2, H, N, 8, generator=g), torch.randn(2, H_KV, N_KV, 8, generator=g), torch.randn(2, H_KV, N_KV, 8, generator=g)
    keep = torch.ones(N, N_KV, dtype=torch.bool).tril(N_KV - N)
    wanted = oracles.attention(q.double(), *(x.double().repeat_interleave(H // H_KV, dim=1) for x in (k, v)), mask=keep)
    close(attend_same(q, k, v).double(), wanted)
    pad = lambda x: F.pad(x, (0, 0, 0, 4), value=9.0)  # noqa: E731  (what lies behind the tokens must not be seen)
    close(attend_ragged(q, pad(k), pad(v), torch.tensor([N_KV - N] * 2, dtype=torch.int32)).double(), wanted)


# ---- generation ----


def test_cached_and_uncached_write_the_same(model):
    tokens = some_tokens()
    wanted = generate_uncached(model, tokens, 20)
    assert wanted.shape == (2, 29)
    for cache in (None, *(make() for make in (lambda: KVCache(CONFIG, 2, 40), lambda: PagedCache(CONFIG, 30, 4, batch=2)))):
        assert torch.equal(generate(model, tokens, 20, cache=cache), wanted)


def test_generation_stops_when_every_sequence_has_ended():
    model = made(CONFIG.replace(eos_tokens=(7, 8)))
    tokens = some_tokens()
    script = iter([[3, 8], [4, 5], [7, 6], [1, 1]])
    out = generate(model, tokens, 10, choose=lambda logits: torch.tensor(next(script)))
    assert out[:, 9:].tolist() == [[3, 4, 7], [8, 7, 7]], "what has ended repeats an end token; then nothing more is asked"
    script = iter([[8, 8]] * 4)
    assert generate(model, tokens, 4, choose=lambda logits: torch.tensor(next(script)), stop=False).shape == (2, 13)


def test_stream_yields_what_generate_returns(model):
    tokens = some_tokens()
    got = torch.stack(list(stream(model, tokens, 6, sampler(1.0, seed=4))), dim=1)
    assert torch.equal(got, generate(model, tokens, 6, sampler(1.0, seed=4))[:, 9:])
    assert not torch.equal(got, generate(model, tokens, 6, sampler(1.0, seed=5))[:, 9:])


def test_probabilities_cut_the_tail():
    logits = torch.tensor([[2.0, 1.0, 0.0, -1.0]])
    p = logits.softmax(-1)[0]
    assert torch.allclose(probabilities(logits)[0], p)
    assert torch.allclose(probabilities(logits, 0.5)[0], (2 * logits).softmax(-1)[0])
    assert torch.allclose(probabilities(logits, top_k=2)[0], torch.tensor([p[0], p[1], 0, 0]) / (p[0] + p[1]))
    assert torch.allclose(probabilities(logits, top_p=0.7)[0], torch.tensor([p[0], p[1], 0, 0]) / (p[0] + p[1])), "the crossing token is kept"
    assert probabilities(logits, top_p=0.1)[0].tolist() == [1, 0, 0, 0]
    assert torch.allclose(probabilities(logits, top_k=9, top_p=1.0)[0], p)


def test_samples_follow_the_probabilities():
    logits = torch.tensor([[1.0, 0.0, -1.0]]).expand(20_000, 3)
    share = torch.bincount(sampler(0.7, seed=0)(logits), minlength=3) / 20_000
    assert torch.allclose(share, probabilities(logits[:1], 0.7)[0], atol=0.015)
    assert sampler()(logits[:2]).tolist() == [0, 0]


# ---- bad input ----


def ragged(model):
    cache = KVCache(CONFIG, 2, 9)
    cache.rewind(torch.tensor([7, 2], dtype=torch.int32))
    return model(some_tokens(N=3), cache=cache)


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (lambda m: m(torch.zeros(2, 3)), "tokens must be whole numbers"),
        (lambda m: m(torch.zeros(3, dtype=torch.long)), "tokens must be whole numbers"),
        (lambda m: m(some_tokens(), cache=KVCache(CONFIG, 2), positions=torch.arange(9)), "either the cache, or positions"),
        (lambda m: m(some_tokens(), cache=KVCache(CONFIG, 2, 8)), "9 more do not fit into 8"),
        (lambda m: m(some_tokens(), cache=PagedCache(CONFIG, 5, 2, batch=2)), "all 5 blocks of 2 tokens are in use"),
        (lambda m: m(some_tokens(), cache=KVCache(CONFIG, 1)), "it holds 1 sequences and the tokens are of 2; make it with batch=2"),
        (lambda m: m(some_tokens(B=1), cache=KVCache(CONFIG, 2)), "it holds 2 sequences and the tokens are of 1"),
        (lambda m: m(some_tokens(B=1), cache=PagedCache(CONFIG, 9, batch=2)), "PagedCache: it holds 2 sequences"),
        (
            lambda m: m(some_tokens(), cache=KVCache(CONFIG, 2, dtype=torch.float16)),
            "it is torch.float16 on cpu and the model's keys are torch.float32",
        ),
        (lambda m: ragged(m), "7 tokens are stored and 3 more do not fit into 9"),
        (lambda m: KVCache(CONFIG).rewind(-1), "cannot go back to -1 tokens"),
        (lambda m: KVCache(CONFIG, 0), "must both be at least 1"),
        (lambda m: PagedCache(CONFIG, 0), "each must be at least 1"),
        (lambda m: generate(m, some_tokens(), 56), "more than the 64 positions"),
        (lambda m: generate(m, some_tokens(), 0), "ask for at least 1"),
        (lambda m: generate(m, some_tokens()[0], 4), "must be whole numbers [B, N]"),
        (lambda m: generate_uncached(m, some_tokens().float(), 4), "must be whole numbers [B, N]"),
        (lambda m: sampler(-1), "0 is greedy"),
        (lambda m: sampler(1.0, top_k=0), "at least 1 token"),
        (lambda m: sampler(1.0, top_p=1.5), "share of the probability"),
    ],
)
def test_bad_input_is_refused_in_a_sentence(model, wrong, sentence):
    with pytest.raises(ValueError) as caught:
        wrong(model)
    assert sentence in str(caught.value)
