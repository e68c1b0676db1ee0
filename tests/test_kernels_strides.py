"""Strides so large that an offset passes 2**31 elements, for every kernel of kernels/, interpreted.

The memory is reserved and never filled, so that it costs nothing. Without the byte counter's guard, which would mark each byte of it.
"""

import mmap

import pytest
import torch

from course_lib import hardware

if not hardware.has_triton() or hardware.tier() != "interpreter":  # asked before triton is imported: it turns the interpreter on
    pytest.skip("interpreted kernels only", allow_module_level=True)

from kernels import flash_forward, flash_forward_descriptors, flash_forward_two_tiles  # noqa: E402
from kernels.decode_split import decode_split  # noqa: E402
from kernels.matmul import matmul  # noqa: E402
from kernels.paged_decode import paged_decode  # noqa: E402
from kernels.paged_prefill import paged_prefill  # noqa: E402
from kernels.rms_norm import rms_norm  # noqa: E402
from kernels.rope import apply_rope  # noqa: E402
from kernels.softmax_long_rows import softmax_long_rows  # noqa: E402
from kernels.softmax_rows import softmax_rows  # noqa: E402
from kernels.swiglu import swiglu  # noqa: E402
from kernels.vector_add import vector_add  # noqa: E402
from kernels.write_kv import write_kv  # noqa: E402

TILES = {"BLOCK_M": 32, "BLOCK_N": 16, "BLOCK_K": 16, "GROUP": 2, "num_warps": 4, "num_stages": 1}
TINY = {"BLOCK_M": 16, "BLOCK_N": 16, "num_warps": 4, "num_stages": 1}
FAR = 2**27 + 2**24  # elements: the 16th of such strides is past 2**31
WIDE = {
    "softmax_rows, columns": (softmax_rows, [((3, 20), (1, FAR))]),
    "softmax_rows, rows": (softmax_rows, [((20, 3), (FAR, 1))]),
    "softmax_long_rows, columns": (softmax_long_rows, [((3, 20), (1, FAR))]),
    "softmax_long_rows, rows": (softmax_long_rows, [((20, 3), (FAR, 1))]),
    "rms_norm, columns": (rms_norm, [((3, 20), (1, FAR)), ((20,), (1,))]),
    "rms_norm, weight": (rms_norm, [((3, 20), (20, 1)), ((20,), (FAR,))]),
    "swiglu, columns": (swiglu, [((3, 20), (1, FAR)), ((3, 20), (20, 1))]),
    "swiglu, rows of up": (swiglu, [((20, 3), (3, 1)), ((20, 3), (FAR, 1))]),
    "vector_add": (vector_add, [((20,), (1,)), ((20,), (FAR,))]),
    "matmul, rows of a": (matmul, [((20, 3), (FAR, 1)), ((3, 4), (4, 1))]),
    "matmul, columns of a": (matmul, [((3, 20), (1, FAR)), ((20, 4), (4, 1))]),
    "matmul, rows of b": (matmul, [((3, 20), (20, 1)), ((20, 4), (FAR, 1))]),
    "matmul, columns of b": (matmul, [((3, 4), (4, 1)), ((4, 20), (1, FAR))]),
}


FLASH = {"flash_forward": flash_forward, "two_tiles": flash_forward_two_tiles, "descriptors": flash_forward_descriptors}
HEADS = {"rows": (64, FAR, 1), "columns": (64, 1, FAR), "heads": (2**31 + 64, 64, 1)}  # strides of H, N, D


def sparse() -> tuple[torch.Tensor, int]:
    """(float16 memory that takes none until it is touched, its middle). An offset computed in 32 bits lands inside it, and reads zeros."""
    elements, reserve = 2**33 + 2**32, getattr(mmap, "MAP_NORESERVE", 0x4000)
    return torch.frombuffer(mmap.mmap(-1, 2 * elements, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | reserve), dtype=torch.float16), 2**32


def spread(x: torch.Tensor, strides: tuple[int, ...], memory: torch.Tensor, at: int) -> torch.Tensor:
    return torch.as_strided(memory, x.shape, strides, at).copy_(x)


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).half()


@pytest.mark.parametrize("case", WIDE)
def test_row_kernels_and_the_product(case):
    fn, arguments = WIDE[case]
    memory, middle = sparse()
    dense = [drawn(*shape, seed=i) for i, (shape, _) in enumerate(arguments)]
    wide = [spread(x, strides, memory, middle + i * 2**20) for i, (x, (_, strides)) in enumerate(zip(dense, arguments, strict=True))]
    options = {"config": TILES} if fn is matmul else {}
    assert torch.equal(fn(*wide, **options), fn(*dense, **options))


@pytest.mark.parametrize("which", ["q", "k and v"])
@pytest.mark.parametrize("where", HEADS)
@pytest.mark.parametrize("name", FLASH)
def test_attention(name, where, which):
    forward = FLASH[name].flash_attention_forward
    memory, middle = sparse()
    dense = [drawn(1, 2, 20, 16, seed=i) for i in range(3)]
    wide = [spread(x, (0, *HEADS[where]), memory, middle + i * 2**20) for i, x in enumerate(dense)]
    mixed = (wide[0], *dense[1:]) if which == "q" else (dense[0], *wide[1:])
    if where != "heads":  # the kernels count offsets inside a head in 32 bits, and their host says so
        with pytest.raises(ValueError, match=r"a head of [qkv] spans 2\^31 elements or more: .* pass [qkv].contiguous()"):
            forward(*mixed, config=TINY)
        return
    (out, lse), (exact, lse_exact) = forward(*mixed, config=TINY), forward(*dense, config=TINY)
    assert torch.equal(out, exact) and torch.equal(lse, lse_exact)


@pytest.mark.parametrize("which", ["decode", "prefill", "write"])
def test_blocks_of_a_cache_that_lie_far_apart(which):
    """The number of a block times its stride passes 2**31; so does a head's offset in a dense cache."""
    lengths, tables = torch.tensor([40], dtype=torch.int32), torch.tensor([[19, 3, 16]], dtype=torch.int32)
    memory, middle = sparse()
    dense = [drawn(20, 16, 2, 16, seed=i) for i in range(2)]
    wide = [spread(x, (FAR, 32, 16, 1), memory, middle + i * 2**20) for i, x in enumerate(dense)]
    q = drawn(5, 4, 16, seed=2)
    if which == "decode":
        one = {"num_splits": 2, "config": {"BLOCK_N": 16, "num_warps": 4, "num_stages": 1}}
        assert torch.equal(paged_decode(q[:1], *wide, tables, lengths, **one), paged_decode(q[:1], *dense, tables, lengths, **one))
    elif which == "prefill":
        rest = tables, torch.tensor([0, 5], dtype=torch.int32), lengths, 5
        assert torch.equal(paged_prefill(q, *wide, *rest, config=TINY), paged_prefill(q, *dense, *rest, config=TINY))
    else:
        new, slots = [drawn(3, 2, 16, seed=i + 3) for i in range(2)], torch.tensor([19 * 16 + 5, 3, 16 * 16])
        for caches in (dense, wide):
            write_kv(*new, *caches, slots)
        assert all(torch.equal(x, y) for x, y in zip(wide, dense, strict=True)) and torch.equal(wide[0][19, 5], new[0][0])


@pytest.mark.parametrize("where", ["heads", "rows"])
def test_a_dense_cache_whose_heads_or_rows_lie_far_apart(where):
    memory, middle = sparse()
    q, dense = drawn(1, 2, 16), [drawn(1, 2, 40, 16, seed=i + 1) for i in range(2)]
    strides = (0, 2**31 + 64, 16, 1) if where == "heads" else (0, 64, 2**26 + 2**23, 1)  # 39 rows further: past 2**31
    wide = [spread(x, strides, memory, middle + i * 2**20) for i, x in enumerate(dense)]
    rest = {"num_splits": 2, "config": {"BLOCK_N": 16, "num_warps": 4, "num_stages": 1}}
    lengths = torch.tensor([40], dtype=torch.int32)
    for got, wanted in zip(decode_split(q, *wide, lengths, **rest), decode_split(q, *dense, lengths, **rest), strict=True):
        assert torch.equal(got, wanted)


@pytest.mark.parametrize("strides", [(0, 2**31 + 64, 16, 1), (0, 64, FAR, 1), (0, 64, 1, FAR)], ids=["heads", "rows", "columns"])
def test_rope(strides):
    memory, middle = sparse()
    x, turn = drawn(1, 2, 20, 16), drawn(20, 16, seed=1).float()
    assert torch.equal(apply_rope(spread(x, strides, memory, middle), turn.cos(), turn.sin()), apply_rope(x, turn.cos(), turn.sin()))


def test_a_tile_or_a_block_that_spans_too_much_is_refused():
    memory, middle = sparse()
    q, lengths, tables = drawn(1, 2, 16), torch.tensor([20], dtype=torch.int32), torch.tensor([[1, 0]], dtype=torch.int32)
    rows = [spread(drawn(1, 2, 20, 16), (0, 64, FAR, 1), memory, middle) for _ in "kv"]
    with pytest.raises(ValueError, match=r"a tile of k_cache spans 2\^31 elements or more: .* pass k_cache.contiguous()"):
        decode_split(q, *rows, lengths)
    blocks = [spread(drawn(2, 16, 2, 16), (64, FAR, 16, 1), memory, middle) for _ in "kv"]
    with pytest.raises(ValueError, match=r"a block of k_cache spans 2\^31 elements or more: .* pass k_cache.contiguous()"):
        paged_decode(q, *blocks, tables, lengths)
