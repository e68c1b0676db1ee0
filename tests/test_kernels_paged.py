"""The kernels over a paged cache, interpreted, against float64: block sizes, tables, lengths, strides, bytes, refusals."""

import itertools
import math

import pytest
import torch

from course_lib import hardware

if not hardware.has_triton() or hardware.tier() != "interpreter":  # asked before triton is imported: it turns the interpreter on
    pytest.skip("interpreted kernels only: benchmarks/verify_decode.py does this on a GPU", allow_module_level=True)

from benchmarks import cache_trials as caches  # noqa: E402
from benchmarks import kernel_trials as trials  # noqa: E402
from course_lib import traffic  # noqa: E402
from kernels.paged_decode import paged_decode  # noqa: E402
from kernels.paged_prefill import paged_prefill  # noqa: E402
from kernels.write_kv import write_kv  # noqa: E402

TINY = {"BLOCK_N": 16, "num_warps": 4, "num_stages": 1}
ROWS = {"BLOCK_M": 16, **TINY}
DTYPES = [pytest.param(torch.float32, id="fp32"), pytest.param(torch.float16, id="fp16", marks=pytest.mark.slow)]


@pytest.fixture(autouse=True)
def launches():
    """Every test runs under the guard: an access outside the tensors of a launch is an error."""
    with traffic.counted() as launches:
        yield launches


def int32(*numbers: int) -> torch.Tensor:
    return torch.tensor(numbers, dtype=torch.int32)


def drawn(rows, B, H, H_KV, N, D, dtype=torch.float32, seed=0):
    """q [rows, H, D]; k, v [B, H_KV, N, D]."""
    g = torch.Generator().manual_seed(seed)
    q, k, v = torch.randn(rows, H, D, generator=g), *(torch.randn(B, H_KV, N, D, generator=g) for _ in "kv")
    v += torch.arange(H_KV)[:, None, None]  # a wrong K/V head shows
    return [x.to(dtype) for x in (q, k, v)]


def decoded(q, k, v, lengths, block, layouts=("contiguous",) * 3, said=None, **options):
    wanted, orders = caches.decode_trial(q, k, v, lengths, options.get("scale"))
    *pages, tables = caches.paged_cache(k, v, lengths, block)
    tensors = [trials.laid_out(x, layout) for x, layout in zip((q, *pages), layouts, strict=True)]
    before = [x.clone() for x in tensors]
    out = paged_decode(*tensors, tables, int32(*(said or lengths)), config=TINY, **options)
    assert all(torch.equal(x.nan_to_num(), y.nan_to_num()) for x, y in zip(tensors, before, strict=True)), "an input was changed"
    wrong, _ = trials.verdict(out, wanted[0], [order[0] for order in orders])
    assert not wrong, wrong
    assert out.is_contiguous()
    return out


SHAPES = {  # H, H_KV, D, lengths, block, splits
    "grouped heads, D no power of two": (6, 2, 40, (70, 33, 0), 16, 3),
    "one head a group": (3, 3, 24, (17, 50), 8, 2),
    "a group of 70: two tiles": (70, 1, 16, (20,), 4, 1),
    "one split": (4, 2, 32, (40, 16), 32, 1),
    "more splits than tiles": (4, 2, 16, (40, 3), 16, 7),
    "D = 1": (2, 1, 1, (20, 7), 2, 2),
    "as many splits as the file chooses": (2, 1, 32, (100, 65), 16, None),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_paged_decode(launches, shape, dtype):
    H, H_KV, D, lengths, block, splits = SHAPES[shape]
    out = decoded(*drawn(len(lengths), len(lengths), H, H_KV, max(lengths), D, dtype), lengths, block, num_splits=splits)
    assert all((out[b] == 0).all() for b, length in enumerate(lengths) if length == 0)
    assert splits is None or len(launches) == (1 if splits == 1 else 2)


@pytest.mark.parametrize("block", [pytest.param(n, marks=[] if n in (1, 16, 256) else pytest.mark.slow) for n in (1, 2, 4, 8, 16, 32, 64, 128, 256)])
def test_any_block_size(block):
    """Lengths at both sides of the ends of a block and of a tile of 16 keys, an empty one, in one batch."""
    lengths = sorted({0, 1, 15, 16, 17, 33, *(n for n in (block - 1, block, block + 1) if n <= 70)})
    q, k, v = drawn(len(lengths), len(lengths), 2, 1, max(lengths), 16, seed=block)
    decoded(q, k, v, lengths, block, num_splits=2)


@pytest.mark.slow
@pytest.mark.parametrize("block", [1, 16, 128])
@pytest.mark.parametrize("D", [2, 3, 15, 31, 48, 63, 65, 80, 96, 100, 127, 128, 129, 160, 192, 255, 256])
def test_any_head_size(D, block):
    dtype = torch.float16 if D % 2 else torch.float32
    decoded(*drawn(2, 2, 4, 2, 52, D, dtype, seed=D), (52, 19), block, num_splits=2)
    prefilled(*drawn(21, 2, 4, 2, 52, D, dtype, seed=D), (19, 2), (52, 19), block)


@pytest.mark.parametrize("layout", ["sliced", "every other", "heads last"])
def test_any_strides(layout):
    q, k, v = drawn(2, 2, 4, 2, 36, 24)
    decoded(q, k, v, (36, 21), 8, ("sliced", layout, "every other"), num_splits=2)
    decoded(q, k, v, (36, 21), 8, ("every other", "sliced", layout), num_splits=1)


def test_lengths_past_the_table():
    """A length above what the table has blocks for counts as that much; one below 0 as none."""
    q, k, v = drawn(2, 2, 2, 1, 32, 16)
    *pages, tables = caches.paged_cache(k, v, [32, 32], 16, wide=0)
    out = paged_decode(q, *pages, tables, int32(2**31 - 1, -7), num_splits=2, config=TINY)
    wanted, orders = caches.decode_trial(q, k, v, [32, 0])
    assert not trials.verdict(out, wanted[0], [order[0] for order in orders])[0] and (out[1] == 0).all()


def test_a_table_that_names_no_block_reads_nothing():
    """The memory of others is safe from a wrong table: the keys behind the entry are hidden, the rest are attended to."""
    q, k, v = drawn(1, 1, 2, 1, 48, 16)
    *pages, tables = caches.paged_cache(k, v, [48], 16)
    tables[0, 1] = pages[0].shape[0]
    out = paged_decode(q, *pages, tables, int32(48), num_splits=1, config=TINY)
    kept = [*range(16), *range(32, 48)]
    wanted, orders = caches.decode_trial(q, k[:, :, kept], v[:, :, kept], [32])
    assert not trials.verdict(out, wanted[0], [order[0] for order in orders])[0]
    prefill = paged_prefill(q, *pages, tables, int32(0, 1), int32(48), 1, config=ROWS)
    assert not trials.verdict(prefill, wanted[0], [order[0] for order in orders])[0]


def test_requests_may_share_blocks():
    """A prefix that two requests have in common lies in the cache once."""
    q, k, v = drawn(2, 1, 2, 1, 32, 16)
    *pages, tables = caches.paged_cache(k, v, [32], 8)
    out = paged_decode(q, *pages, tables.expand(2, -1), int32(32, 20), num_splits=2, config=TINY)
    wanted, orders = caches.decode_trial(q, k.expand(2, -1, -1, -1), v.expand(2, -1, -1, -1), [32, 20])
    assert not trials.verdict(out, wanted[0], [order[0] for order in orders])[0]


def test_the_grid_does_not_depend_on_lengths(launches):
    q, k, v = drawn(2, 2, 2, 1, 60, 16)
    *pages, tables = caches.paged_cache(k, v, [60, 60], 16)
    for lengths in ((0, 0), (1, 60), (60, 60)):
        paged_decode(q, *pages, tables, int32(*lengths), config=TINY)
    assert len({launch.programs for launch in launches[::2]}) == 1 and len(launches) == 6


@pytest.mark.parametrize("scale", [1e-3, 3.0])
def test_scale(scale):
    decoded(*drawn(1, 1, 2, 1, 33, 16), (33,), 16, num_splits=2, scale=scale)


# ---------------------------------------------------------------- prefill


def prefilled(q, k, v, counts, lengths, block, layouts=("contiguous",) * 3, config=ROWS, scale=None, max_q=None):
    wanted = caches.prefill_trial(q, k, v, counts, lengths, scale)
    *pages, tables = caches.paged_cache(k, v, lengths, block)
    tensors = [trials.laid_out(x, layout) for x, layout in zip((q, *pages), layouts, strict=True)]
    before = [x.clone() for x in tensors]
    cu_q = int32(0, *itertools.accumulate(counts))
    out = paged_prefill(*tensors, tables, cu_q, int32(*lengths), max_q or max(counts, default=0), scale, config)
    assert all(torch.equal(x.nan_to_num(), y.nan_to_num()) for x, y in zip(tensors, before, strict=True)), "an input was changed"
    wrong, _ = trials.verdict(out, *wanted)
    assert not wrong, wrong
    return out


PREFILL = {  # H, H_KV, D, counts, lengths, block
    "from nothing": (4, 2, 24, (19, 33), (19, 33), 16),
    "chunks behind a prefix": (6, 2, 40, (19, 1, 7), (60, 33, 7), 8),
    "one token each: a decode": (4, 1, 16, (1, 1, 1), (40, 1, 17), 4),
    "requests without queries or keys": (2, 2, 16, (0, 5, 0), (9, 21, 0), 16),
    "more queries than keys": (2, 1, 16, (30,), (11,), 2),
    "a group of 5": (5, 1, 17, (13, 20), (40, 20), 32),
    "a group of 20": (20, 1, 16, (5, 3), (30, 3), 16),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", PREFILL)
def test_paged_prefill(launches, shape, dtype):
    H, H_KV, D, counts, lengths, block = PREFILL[shape]
    prefilled(*drawn(sum(counts), len(counts), H, H_KV, max(lengths), D, dtype), counts, lengths, block)
    assert len(launches) == 1


@pytest.mark.parametrize("block", [1, 4, 64, 256])
def test_prefill_with_any_block_size(block):
    prefilled(*drawn(41, 3, 2, 1, 70, 16, seed=block), (17, 16, 8), (70, 16, 33), block)


@pytest.mark.parametrize("config", [{"BLOCK_M": 32, "BLOCK_N": 16}, {"BLOCK_M": 16, "BLOCK_N": 64}, None], ids=["tall", "wide", "the file's own"])
def test_prefill_with_other_tiles(config):
    q, k, v = drawn(60, 2, 4, 2, 90, 32, torch.float16)
    prefilled(q, k, v, (50, 10), (90, 35), 16, config=config and config | {"num_warps": 4, "num_stages": 1})


def test_prefill_takes_any_strides_and_a_bound_that_is_too_large():
    q, k, v = drawn(20, 2, 4, 2, 36, 24)
    prefilled(q, k, v, (13, 7), (36, 21), 8, ("sliced", "every other", "heads last"), max_q=40, scale=0.3)
    prefilled(q, k, v, (13, 7), (36, 21), 8, ("every other", "sliced", "sliced"), max_q=13)


def test_prefill_of_rows_without_keys_is_zero_and_others_are_not_written():
    q, k, v = drawn(9, 1, 2, 1, 4, 16)
    *pages, tables = caches.paged_cache(k, v, [4], 2)
    out = paged_prefill(q, *pages, tables, int32(0, 7), int32(4), 7, config=ROWS)
    assert (out[:3] == 0).all() and (out[3:7] != 0).any(-1).all()


def test_prefill_keeps_to_its_memory_whatever_the_offsets_say():
    """Offsets outside of q are cut to it, a request past max_q is cut to max_q."""
    q, k, v = drawn(9, 1, 2, 1, 20, 16)
    *pages, tables = caches.paged_cache(k, v, [20], 16)
    for cu_q in ((0, 2**31 - 1), (-4, 9), (9, 3), (7, 9)):
        paged_prefill(q, *pages, tables, int32(*cu_q), int32(20), 9, config=ROWS)
    paged_prefill(q, *pages, tables, int32(0, 9), int32(2**31 - 1), 3, config=ROWS)


@pytest.mark.parametrize("bad", [-1, 99, 2**31 - 1])
@pytest.mark.parametrize("entry", [0, 2, 5])
def test_prefill_hides_the_keys_behind_an_entry_that_names_no_block(entry, bad):
    """Also amid tiles of keys that every query sees, which are otherwise read without a mask."""
    q, k, v = drawn(9, 1, 2, 1, 90, 16)
    *pages, tables = caches.paged_cache(k, v, [90], 16)
    tables[0, entry] = bad
    out = paged_prefill(q, *pages, tables, int32(0, 9), int32(90), 9, config=ROWS)
    at = torch.arange(90)
    seen = (at[None, :] <= torch.arange(9)[:, None] + 81) & (at // 16 != entry)[None, :]
    wanted = torch.nn.functional.scaled_dot_product_attention(
        *(x.double() for x in (q.transpose(0, 1), *(x[0].expand(2, -1, -1) for x in (k, v)))), seen
    )
    assert torch.allclose(out.double(), wanted.transpose(0, 1), atol=3e-6)


def test_decode_is_prefill_of_one_query():
    q, k, v = drawn(3, 3, 4, 2, 50, 16)
    lengths = [50, 1, 33]
    *pages, tables = caches.paged_cache(k, v, lengths, 16)
    one = paged_prefill(q, *pages, tables, int32(0, 1, 2, 3), int32(*lengths), 1, config=ROWS)
    assert torch.allclose(one, paged_decode(q, *pages, tables, int32(*lengths), num_splits=3, config=TINY), atol=3e-6)


# ---------------------------------------------------------------- bytes


@pytest.mark.parametrize("block", [1, 16, 64])
@pytest.mark.parametrize("splits", [1, 3])
def test_decode_requests_the_closed_form(launches, block, splits):
    """K and V once a group, an entry of the table for every key of a tile; nothing past a length."""
    lengths, H, H_KV, D, B = (40, 0, 61), 4, 2, 24, 3
    decoded(*drawn(B, B, H, H_KV, 61, D), lengths, block, num_splits=splits)
    K_V, tables = 2 * sum(lengths) * H_KV * D * 4, sum(lengths) * H_KV * 4
    assert launches[0].bytes_loaded == K_V + tables + splits * (B * H * D * 4 + B * H_KV * 4)
    assert launches[0].bytes_stored == splits * B * H * (D + 1) * 4


def test_prefill_requests_the_closed_form(launches):
    """Each tile of rows reads the keys up to the last that one of its rows sees, once for a whole group; the table behind its whole tiles twice."""
    H, H_KV, D, counts, lengths, block = 4, 2, 24, (19, 5), (60, 21), 16
    prefilled(*drawn(24, 2, H, H_KV, 60, D), counts, lengths, block)
    keys = programs = looked_at = 0
    for count, length in zip(counts, lengths, strict=True):
        for first in range(0, count * 2, 16):  # 16 rows are 8 queries of 2 heads
            keys += min(length, (first + 15) // 2 + length - count + 1)
            looked_at += min(length, first // 2 + length - count + 1) // 16  # a block of 16 is a tile
    programs = math.ceil(19 * 2 / 16) * H_KV * 2  # the grid is the same for both requests
    assert launches[0].programs == programs
    assert launches[0].bytes_loaded == H_KV * (keys * (2 * D * 4 + 4) + looked_at * 4) + 24 * H * D * 4 + programs * 3 * 4
    assert launches[0].bytes_stored == 24 * H * D * 4


# ---------------------------------------------------------------- writing


def written(T, H_KV, D, blocks, block, slots, dtype=torch.float32, layouts=("contiguous",) * 4, config=None):
    g = torch.Generator().manual_seed(T)
    k, v = (torch.randn(T, H_KV, D, generator=g).to(dtype) for _ in "kv")
    pages = [torch.randn(blocks, block, H_KV, D, generator=g).to(dtype) for _ in "kv"]
    wanted = [page.clone() for page in pages]
    for page, x in zip(wanted, (k, v), strict=True):
        for token, slot in enumerate(slots):
            if 0 <= slot < blocks * block:
                page[slot // block, slot % block] = x[token]
    k, v, *laid = (trials.laid_out(x, layout) for x, layout in zip((k, v, *pages), layouts, strict=True))
    assert write_kv(k, v, *laid, torch.tensor(slots, dtype=torch.int64), config=config) is None
    for page, x in zip(laid, wanted, strict=True):
        assert torch.equal(page, x)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=["fp32", "fp16"])
@pytest.mark.parametrize(
    ("T", "H_KV", "D", "blocks", "block"), [(7, 2, 40, 4, 4), (1, 8, 128, 3, 16), (50, 1, 1, 60, 1), (33, 3, 24, 1, 256), (5, 2, 257, 9, 2)]
)
def test_write_kv(launches, T, H_KV, D, blocks, block, dtype):
    slots = torch.randperm(blocks * block, generator=torch.Generator().manual_seed(T))[:T].tolist()
    written(T, H_KV, D, blocks, block, slots, dtype)
    e = dtype.itemsize
    assert launches[0].bytes_stored == 2 * T * H_KV * D * e and launches[0].bytes_loaded == 2 * T * H_KV * D * e + T * H_KV * 8


def test_slots_that_are_not_in_the_cache_are_skipped(launches):
    written(6, 2, 16, 3, 4, [-1, 5, 12, 2**62, -(2**63), 11])
    assert launches[0].bytes_stored == 2 * 2 * 2 * 16 * 4  # K and V of two tokens


@pytest.mark.parametrize("layout", ["sliced", "every other", "transposed"])
def test_write_kv_takes_any_strides(layout):
    written(5, 3, 24, 2, 8, [3, 15, 0, 9, 4], layouts=(layout, "sliced", "every other", layout), config={"ROWS": 4, "BLOCK_D": 32, "num_warps": 4})


def test_nothing_to_write_or_to_read(launches):
    written(0, 2, 16, 3, 4, [])
    written(2, 2, 16, 0, 4, [0, 1])
    for B, H, blocks, MAX in ((0, 2, 3, 2), (1, 0, 3, 2), (2, 2, 0, 2), (2, 2, 3, 0)):
        pages, tables, lengths = torch.zeros(blocks, 4, 1, 16), torch.zeros(B, MAX, dtype=torch.int32), torch.full((B,), 5, dtype=torch.int32)
        assert paged_decode(torch.ones(B, H, 16), pages, pages, tables, lengths).shape == (B, H, 16)
        out = paged_prefill(torch.ones(B, H, 16), pages, pages, tables, torch.arange(B + 1, dtype=torch.int32), lengths, 1)
        assert out.shape == (B, H, 16) and (out == 0).all()


# ---------------------------------------------------------------- refusals

GOOD = {"q": (2, 4, 16), "k_cache": (5, 8, 2, 16), "v_cache": (5, 8, 2, 16), "block_tables": (2, 3), "lengths": (2,)}
INTEGERS = {"block_tables": torch.int32, "lengths": torch.int32, "cu_q": torch.int32, "slots": torch.int64}
REFUSED = {
    "dtype mix": ({}, {"k_cache": torch.float16}, {}, "the tensors must have one dtype; convert them first"),
    "bfloat16 on a CPU": ({}, dict.fromkeys(("q", "k_cache", "v_cache"), torch.bfloat16), {}, "interpreter computes bfloat16 wrongly"),
    "integers": ({}, dict.fromkeys(("q", "k_cache", "v_cache"), torch.int32), {}, "must be float16, bfloat16 or float32"),
    "q of four dimensions": ({"q": (2, 4, 1, 16)}, {}, {}, "q must be ["),
    "a cache of three dimensions": ({"k_cache": (5, 8, 16)}, {}, {}, "k_cache and v_cache must be [NUM_BLOCKS, BLOCK, H_KV, D]"),
    "v is larger": ({"v_cache": (6, 8, 2, 16)}, {}, {}, "k_cache and v_cache must be [NUM_BLOCKS, BLOCK, H_KV, D]"),
    "other D": ({"q": (2, 4, 8)}, {}, {}, "with q's D"),
    "heads": ({"q": (2, 5, 16)}, {}, {}, "5 query heads are not a multiple of 2 K/V heads"),
    "blocks of 12": ({"k_cache": (5, 12, 2, 16), "v_cache": (5, 12, 2, 16)}, {}, {}, "BLOCK must be a power of two, 1 to 256; it is 12"),
    "blocks of 512": ({"k_cache": (5, 512, 2, 16), "v_cache": (5, 512, 2, 16)}, {}, {}, "BLOCK must be a power of two, 1 to 256; it is 512"),
    "blocks of 0": ({"k_cache": (5, 0, 2, 16), "v_cache": (5, 0, 2, 16)}, {}, {}, "BLOCK must be a power of two, 1 to 256; it is 0"),
    "D = 257": ({"q": (2, 4, 257), "k_cache": (5, 8, 2, 257), "v_cache": (5, 8, 2, 257)}, {}, {}, "the head size D must be 1 to 256"),
    "a table of one dimension": ({"block_tables": (2,)}, {}, {}, "block_tables must be [B, MAX] and lengths [B]"),
    "lengths of another batch": ({"lengths": (3,)}, {}, {}, "block_tables must be [B, MAX] and lengths [B]"),
    "a table of int64": ({}, {"block_tables": torch.int64}, {}, "block_tables must be int32"),
    "lengths of int64": ({}, {"lengths": torch.int64}, {}, "lengths must be int32"),
    "scale 0": ({}, {}, {"scale": 0.0}, "scale must be above 0 and finite; it is 0.0"),
}


def made(good, shapes, dtypes) -> list[torch.Tensor]:
    return [torch.zeros(shapes.get(name, shape), dtype=(INTEGERS | dtypes).get(name, torch.float32)) for name, shape in good.items()]


@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.parametrize("which", ["paged_decode", "paged_prefill"])
def test_what_is_refused(launches, which, case):
    shapes, dtypes, options, sentence = REFUSED[case]
    q, k, v, tables, lengths = made(GOOD, shapes, dtypes)
    with pytest.raises(ValueError, match=f"{which}: ") as error:
        if which == "paged_decode":
            paged_decode(q, k, v, tables, lengths, **options)
        else:
            paged_prefill(q, k, v, tables, torch.zeros(3, dtype=torch.int32), lengths, 2, **options)
    assert sentence in str(error.value) and not launches


def test_what_else_is_refused(launches):
    q, k, v, tables, lengths = made(GOOD, {}, {})
    for sentence, call in {
        "num_splits must be 1 to 1024; it is 2000": lambda: paged_decode(q, k, v, tables, lengths, num_splits=2000),
        "q must be [B, H, D] and block_tables [B, MAX]": lambda: paged_decode(q[:1], k, v, tables, lengths),
        "cu_q must be [B + 1]": lambda: paged_prefill(q, k, v, tables, int32(0, 1), lengths, 1),
        "cu_q must be int32": lambda: paged_prefill(q, k, v, tables, int32(0, 1, 2).long(), lengths, 1),
        "max_q must be a number of queries, 0 or more; it is -1": lambda: paged_prefill(q, k, v, tables, int32(0, 1, 2), lengths, -1),
    }.items():
        with pytest.raises(ValueError) as error:
            call()
        assert sentence in str(error.value)
    assert not launches


WRITE = {"k": (3, 2, 16), "v": (3, 2, 16), "k_cache": (5, 8, 2, 16), "v_cache": (5, 8, 2, 16), "slots": (3,)}
WRITE_REFUSED = {
    "dtype mix": ({}, {"k_cache": torch.float16}, "the tensors must have one dtype; convert them first"),
    "bfloat16 on a CPU": ({}, dict.fromkeys(("k", "v", "k_cache", "v_cache"), torch.bfloat16), "interpreter computes bfloat16 wrongly"),
    "v of another length": ({"v": (4, 2, 16)}, {}, "k, v must be [T, H_KV, D] and the caches [NUM_BLOCKS, BLOCK, H_KV, D]"),
    "heads": ({"k": (3, 1, 16), "v": (3, 1, 16)}, {}, "k, v must be [T, H_KV, D]"),
    "caches that differ": ({"v_cache": (6, 8, 2, 16)}, {}, "k, v must be [T, H_KV, D]"),
    "slots of int32": ({}, {"slots": torch.int32}, "slots must be [T] int64"),
    "slots of another length": ({"slots": (2,)}, {}, "slots must be [T] int64"),
}


@pytest.mark.parametrize("case", WRITE_REFUSED)
def test_what_write_kv_refuses(launches, case):
    shapes, dtypes, sentence = WRITE_REFUSED[case]
    with pytest.raises(ValueError, match="write_kv: ") as error:
        write_kv(*made(WRITE, shapes, dtypes))
    assert sentence in str(error.value) and not launches


def test_no_product_is_asked_of_a_request_without_queries_or_keys(monkeypatch):
    """On a GPU a plain order multiplies by cuBLAS, which takes no empty matrix."""

    def strict(q, k, v, causal, scale):
        assert q.numel() and k.numel()
        return trials.attention_trial(q, k, v, causal, scale)

    monkeypatch.setattr(caches, "attention_trial", strict)
    q, k, v = drawn(4, 4, 2, 1, 9, 16, torch.float16)
    (out, lse), orders = caches.decode_trial(q, k, v, [9, 0, 3, 0])
    assert out.shape == (4, 2, 16) and (out[[1, 3]] == 0).all() and (lse[[1, 3]] == -math.inf).all() and len(orders) >= 5
    assert out.dtype == torch.float64 and all(order[0].dtype == torch.float16 and order[0].shape == out.shape for order in orders)
    out, orders = caches.prefill_trial(q, k, v, [3, 0, 1, 0], [9, 5, 0, 0])
    assert out.shape == (4, 2, 16) and (out[3] == 0).all() and (out[:3] != 0).all() and len(orders) >= 5
    assert all((order == 0).all() for order in caches.prefill_trial(q[:0], k, v, [0] * 4, [9, 0, 0, 0])[1])


def test_a_wrong_result_would_be_seen():
    """What the tests above rely on: small mistakes, each outside the tolerance."""
    q, k, v = drawn(2, 2, 2, 1, 50, 16, torch.float16)
    (wanted, _), orders = caches.decode_trial(q, k, v, [50, 31])
    *pages, tables = caches.paged_cache(k, v, [50, 31], 16)
    out = paged_decode(q, *pages, tables, int32(50, 31), num_splits=2, config=TINY)
    short = paged_decode(q, *pages, tables, int32(49, 31), num_splits=2, config=TINY)
    for got in (out * 1.004, short, out.roll(1, 0)):
        assert trials.verdict(got, wanted, [order[0] for order in orders])[0]
    assert not trials.verdict(out, wanted, [order[0] for order in orders])[0]
