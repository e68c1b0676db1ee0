"""Chapter 10: Paged attention.

Generated from solutions/ch10_paged_attention.py by `make sync`: the exercises as nobody has touched them yet.
You may edit this file. `course check NAME` takes an edited exercise over into answers/, where your work is kept.
"""

import hashlib

import torch
import triton
import triton.language as tl
from torch import Tensor


# %% exercise fragmentation_waste | more | 12 minutes | 2 points | model
def fragmentation_waste(now: list[int], final: list[int], unit: int) -> tuple[float, float, float]:
    """What the slots that a server has given out are good for: used, used later, never used.

    A slot is room for K and V of one token. Memory is given out in units of `unit` slots: a request
    holds as many whole units as its tokens of this moment need. With unit = the longest context it is
    a static reservation (every request holds one unit); with unit = 16 it is blocks of 16.

    now      tokens that each request has stored at this moment, each at least 1
    final    tokens that each will have stored when it ends, each at least `now`; nobody knows them yet
    unit     slots a unit, at least 1; at least one request
    returns  (used, reserved, never), shares of all slots held; they add up to 1:
             used: a token is there; reserved: the request will use it before it ends;
             never: it is held and no token will come (internal fragmentation)

    Example: fragmentation_waste([10], [30], 100) is (0.1, 0.2, 0.7); with unit 16, (0.625, 0.375, 0.0).
    Source: PagedAttention, section 3.1 and figure 3.
    """
    raise NotImplementedError("fragmentation_waste (chapter 10) is not written yet")


# %% exercise BlockAllocator | core | 20 minutes | 5 points | python
class BlockAllocator:
    """Hands out the blocks of a paged cache, and counts who holds each of them.

    num_blocks        how many there are, at least 1: blocks 0 .. num_blocks - 1, all free
    returns           an allocator with these members:
    num_free          property: how many blocks nobody holds
    allocate()        -> any free block, an int; it has one holder now. RuntimeError where none is free
    share(block)      one more holder
    free(block)       one holder less; a block that nobody holds any more is free again
    holders(block)    -> how many hold it; 0: it is free

    share and free raise ValueError for a block that is free, all three for one that does not exist;
    nothing has changed then. Blocks are not copied and tokens are not known here: only numbers.

    Example, of 2 blocks: a = allocate(); share(a); free(a) leaves num_free == 1, a second free(a)
    leaves 2, a third raises ValueError.
    Graded on thousands of operations in random order: no block lost, none given to two, none freed twice.
    Source: PagedAttention, sections 4.2 (KV cache manager) and 4.4 (reference counts).
    """

    def __init__(self, num_blocks: int):
        raise NotImplementedError("BlockAllocator (chapter 10) is not written yet")

    @property
    def num_free(self) -> int:
        raise NotImplementedError("BlockAllocator (chapter 10) is not written yet")

    def allocate(self) -> int:
        raise NotImplementedError("BlockAllocator (chapter 10) is not written yet")

    def share(self, block: int) -> None:
        raise NotImplementedError("BlockAllocator (chapter 10) is not written yet")

    def free(self, block: int) -> None:
        raise NotImplementedError("BlockAllocator (chapter 10) is not written yet")

    def holders(self, block: int) -> int:
        raise NotImplementedError("BlockAllocator (chapter 10) is not written yet")


# %% exercise append_slots | core | 15 minutes | 3 points | torch
def append_slots(block_tables: Tensor, positions: Tensor, block_size: int) -> Tensor:
    """Where in the cache the K and V of new tokens go: positions in a text to slots in memory.

    block_tables  [B, MAX] int32: entry i of row b is the block that holds the positions
                  i * block_size .. (i + 1) * block_size - 1 of request b; unused entries hold anything
    positions     [B, N] int64: of the new tokens of each request; -1 where it has fewer than N
    block_size    tokens a block, any number of at least 1
    returns       [B, N] int64: slot = block * block_size + place in the block; -1 where positions is -1

    A cache may have more than 2**31 slots: the multiplication must not happen in int32.

    Example: with blocks of 4 and the table row [7, 2], position 5 is slot 2 * 4 + 1 = 9.
    Graded besides the values: no loop over tokens in Python (no number leaves torch).
    Source: PagedAttention, section 4.2 (the block table); vLLM calls the result the slot mapping.
    """
    raise NotImplementedError("append_slots (chapter 10) is not written yet")


# %% exercise write_kv | more | 20 minutes | 3 points | triton
@triton.jit
def write_kv_kernel(
    k_ptr, v_ptr, kc_ptr, vc_ptr, slots_ptr, T, H_KV, BLOCK, D,
    k_st, k_sh, k_sd, v_st, v_sh, v_sd, kc_sblock, kc_sn, kc_sh, kc_sd, vc_sblock, vc_sn, vc_sh, vc_sd,
    ROWS: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    # 1. who am I: ROWS rows of D numbers, of K and of V
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)  # [ROWS], of T * H_KV
    dims = tl.arange(0, BLOCK_D)  # [BLOCK_D], of which D exist
    # yours: which token and head is each row, where does it come from, where does it go?


def write_kv(k: Tensor, v: Tensor, k_cache: Tensor, v_cache: Tensor, slots: Tensor) -> None:
    """K and V of new tokens into their slots of the caches, in place.

    k, v              [T, H_KV, D], float32 or float16, any strides; T at least 1
    k_cache, v_cache  [NUM_BLOCKS, BLOCK, H_KV, D], same dtype, any strides: changed in place
    slots             [T] int64, contiguous: block * BLOCK + place, all different; -1: write nothing
    returns           None

    Example: with BLOCK = 4, slot 9 is place 1 of block 2: k_cache[2, 1] = k[t].
    Graded besides the values: one launch, no program without a row; K and V of tokens that have a slot are
    read once, and stored once; nothing else in the caches changes.
    Source: PagedAttention, section 5.1 (fused reshape and block write).
    """
    raise NotImplementedError("write_kv (chapter 10) is not written yet")
    (T, H_KV, D), BLOCK = k.shape, k_cache.shape[1]
    ROWS = 16
    grid = ...  # yours: how many programs?
    write_kv_kernel[grid](
        k, v, k_cache, v_cache, slots, T, H_KV, BLOCK, D,
        *k.stride(), *v.stride(), *k_cache.stride(), *v_cache.stride(), ROWS=ROWS, BLOCK_D=triton.next_power_of_2(D),
    )  # fmt: skip


# %% exercise paged_gather | more | 8 minutes | 2 points | torch
def paged_gather(cache: Tensor, block_table: Tensor, length: int) -> Tensor:
    """The keys (or values) of one request, in the order of its text: the slow way to read a paged cache.

    cache        [NUM_BLOCKS, BLOCK, H_KV, D], any dtype
    block_table  [MAX] int32: the blocks of the request in order; entries past its tokens hold anything,
                 numbers too that name no block
    length       tokens of the request, 1 to MAX * BLOCK
    returns      [length, H_KV, D], same dtype

    Example: with BLOCK = 4, table [7, 2, ...] and length 5: the four rows of block 7, the first of block 2.
    Source: PagedAttention, section 4.1, as a copy: what the paged kernel saves.
    """
    raise NotImplementedError("paged_gather (chapter 10) is not written yet")


# %% exercise paged_decode | core | 35 minutes | 6 points | triton
@triton.jit
def paged_decode_kernel(
    q_ptr, k_ptr, v_ptr, tables_ptr, lengths_ptr, out_ptr, GROUP, BLOCK, D, scale,
    q_sb, q_sh, q_sd, k_sblock, k_sn, k_sh, k_sd, v_sblock, v_sn, v_sh, v_sd, tables_sb, tables_sn, out_sb, out_sh, out_sd,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    # 1. who am I: the GROUP query heads that share K/V head h_kv of request b
    h_kv = tl.program_id(0).to(tl.int64)
    b = tl.program_id(1).to(tl.int64)
    rows = tl.arange(0, BLOCK_M)  # [BLOCK_M], of which GROUP exist
    heads = h_kv * GROUP + rows
    keys = tl.arange(0, BLOCK_N)  # [BLOCK_N], those of the first tile
    dims = tl.arange(0, BLOCK_D)  # [BLOCK_D], of which D exist
    # 2. where is my data
    q_ptrs = q_ptr + b * q_sb + heads[:, None] * q_sh + dims[None, :] * q_sd
    out_ptrs = out_ptr + b * out_sb + heads[:, None] * out_sh + dims[None, :] * out_sd
    k_head = k_ptr + h_kv * k_sh + dims[None, :] * k_sd  # [1, BLOCK_D]: this head's numbers at place 0 of block 0
    v_head = v_ptr + h_kv * v_sh + dims[None, :] * v_sd
    table = tables_ptr + b * tables_sb  # this request's row of the table
    length = tl.load(lengths_ptr + b)
    # yours: 3. initialise, 4. loop: find each key's block in the table, 5. write


def paged_decode(
    q: Tensor, k_cache: Tensor, v_cache: Tensor, block_tables: Tensor, lengths: Tensor, scale: float | None = None
) -> Tensor:
    """Attention of one new query a request over a paged cache, through the block table.

    q                 [B, H, D] float32, any strides: the newest token of each request
    k_cache, v_cache  [NUM_BLOCKS, BLOCK, H_KV, D], any strides, BLOCK a power of two; H is a multiple of H_KV:
                      query head h reads K/V head h // GROUP, GROUP = H // H_KV, at most 16 (BLOCK_M rows)
    block_tables      [B, MAX] int32: entry i of row b is the block with its keys i * BLOCK and on;
                      entries past the length hold anything. Requests may share blocks
    lengths           [B] int32, contiguous: keys of each request, the newest token's included; 0 gives 0
    scale             above 0; None means 1 / sqrt(D)
    returns           [B, H, D], same dtype

    Graded besides the values: one launch; each key and value of a request is read once a group of
    heads, and none that is not its own; beside them 8 bytes a key for the table; each result stored once; no copies, no TF32.
    Source: PagedAttention, sections 4.1 and 5.1 (fused block read and attention), with the packed group of chapter 09.
    """
    raise NotImplementedError("paged_decode (chapter 10) is not written yet")
    (B, H, D), (BLOCK, H_KV) = q.shape, k_cache.shape[1:3]
    GROUP = H // H_KV
    scale = D**-0.5 if scale is None else scale
    out = torch.empty((B, H, D), dtype=q.dtype, device=q.device)
    BLOCK_M = 16
    BLOCK_N = 32
    grid = ...  # yours
    paged_decode_kernel[grid](
        q, k_cache, v_cache, block_tables, lengths, out, GROUP, BLOCK, D, scale,
        *q.stride(), *k_cache.stride(), *v_cache.stride(), *block_tables.stride(), *out.stride(),
        BLOCK_M=BLOCK_M, BLOCK_N=BLOCK_N, BLOCK_D=max(16, triton.next_power_of_2(D)),
    )  # fmt: skip
    return out


# %% exercise fork_sequence | more | 5 minutes | 1 point | python
def fork_sequence(table: list[int], allocator) -> list[int]:
    """A second request with the same text so far: it shares every block, and no key is copied.

    table      the blocks of the request in order; it stays as it is
    allocator  a BlockAllocator that holds them
    returns    the block table of the new request, a list of its own with the same blocks

    Every block has one holder more afterwards. No block is taken: what must be copied is copied when
    one of the two writes (copy_on_write, the next exercise).

    Example: fork_sequence([7, 2], allocator) returns [7, 2], and holders(7) is 2.
    Source: PagedAttention, section 4.4 (parallel sampling).
    """
    raise NotImplementedError("fork_sequence (chapter 10) is not written yet")


# %% exercise copy_on_write | more | 20 minutes | 4 points | python
def copy_on_write(table: list[int], length: int, block_size: int, allocator) -> tuple[int, int] | None:
    """Make the place of the next token safe to write, before its K and V are written.

    table       the blocks of a request in order: exactly those its `length` tokens need; changed in place
    length      tokens stored so far: the next one is number `length`, counted from 0
    block_size  tokens a block
    allocator   a BlockAllocator: allocate(), share(block), free(block), holders(block), num_free
    returns     (old, fresh): the caller must copy block old to block fresh before it writes; else None

    - All blocks are full: the table gets a fresh one at its end. None.
    - The token's block is held by this request alone: nothing to do. None.
    - Others hold it too: a fresh block takes its place in this table, and the request's hold of the old
      one is given back. (old, fresh).
    Where no block is free the allocator's RuntimeError passes on, and neither table nor counts have changed.

    Example: blocks of 4, table [7, 2], length 6: the place is the third of block 2. If holders(2) is 2,
    block 5 is free and nothing else, the table becomes [7, 5] and (2, 5) is returned.
    Graded on random histories of growing, forking and ending requests.
    Source: PagedAttention, section 4.4 (copy-on-write).
    """
    raise NotImplementedError("copy_on_write (chapter 10) is not written yet")


# %% exercise prefix_block_hashes | core | 15 minutes | 3 points | python
def prefix_block_hashes(tokens: list[int], block_size: int) -> list[str]:
    """A name for each full block of a text, such that equal names mean equal K and V.

    tokens      token ids, each 0 or more and below 2**63
    block_size  tokens a block, at least 1
    returns     one string for each full block, in order: the SHA-256, in hexadecimal (64 characters), of
                    the digest (32 bytes) of the block before; nothing for the first block
                    followed by the block's tokens, each as 8 bytes, little-endian
                a block that is not full has none

    Two servers must agree on the names, so the bytes are part of the contract. Python's hash() is no
    name: hash(-1) == hash(-2), that of text changes from process to process, and anybody can make collisions.

    Example: prefix_block_hashes([1, 2, 3, 4, 5], 2) has 2 names; the first starts with
    "0c730b69", the second with "ae484e87".
    Source: SGLang (prefix reuse); vLLM, "Automatic prefix caching": hashes chained block by block.
    """
    raise NotImplementedError("prefix_block_hashes (chapter 10) is not written yet")


# %% exercise paged_prefill | more | 40 minutes | 5 points | triton
@triton.jit
def paged_prefill_kernel(
    q_ptr, k_ptr, v_ptr, tables_ptr, cu_ptr, lengths_ptr, out_ptr, GROUP, BLOCK, D, scale,
    q_st, q_sh, q_sd, k_sblock, k_sn, k_sh, k_sd, v_sblock, v_sn, v_sh, v_sd, tables_sb, tables_sn, out_st, out_sh, out_sd,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    # 1. who am I: some of the queries of request b that share K/V head h_kv
    h_kv = tl.program_id(1).to(tl.int64)
    b = tl.program_id(2).to(tl.int64)
    begin = tl.load(cu_ptr + b)  # the request's first query in q
    n = tl.load(cu_ptr + b + 1) - begin  # how many it has
    length = tl.load(lengths_ptr + b)  # its keys, those of these queries included
    keys = tl.arange(0, BLOCK_N)  # [BLOCK_N], those of the first tile
    dims = tl.arange(0, BLOCK_D)  # [BLOCK_D], of which D exist
    # 2. where is my data
    k_head = k_ptr + h_kv * k_sh + dims[None, :] * k_sd  # [1, BLOCK_D]: this head's numbers at place 0 of block 0
    v_head = v_ptr + h_kv * v_sh + dims[None, :] * v_sd
    table = tables_ptr + b * tables_sb  # this request's row of the table
    # yours: which queries and heads are my rows, where do they lie; then 3. to 5. as in paged_decode


def paged_prefill(
    q: Tensor, k_cache: Tensor, v_cache: Tensor, block_tables: Tensor, cu_q: Tensor, lengths: Tensor, max_q: int,
    scale: float | None = None,
) -> Tensor:  # fmt: skip
    """Causal attention of several new queries a request over a paged cache that holds their keys already.

    q                 [T, H, D] float32, any strides: the queries of all requests one after the other;
                      request b has the rows cu_q[b] .. cu_q[b + 1] - 1
    k_cache, v_cache  [NUM_BLOCKS, BLOCK, H_KV, D], any strides, BLOCK a power of two; H is a multiple of H_KV
    block_tables      [B, MAX] int32; entries past the length hold anything. Requests may share blocks
    cu_q              [B + 1] int32, contiguous: 0, then the running sum of queries; a request may have none
    lengths           [B] int32, contiguous: keys of each request, those of its new queries included
    max_q             the most queries that a request has
    scale             above 0; None means 1 / sqrt(D)
    returns           [T, H, D], same dtype: query i of n sees the keys 0 .. length - n + i (bottom right)

    Graded besides the values: one launch; K and V are read at most once for every 16 rows (a row is a
    query of one head of the group), and no key is read that none of a tile's rows sees; each result
    stored once; no copies, no TF32.
    Source: PagedAttention, section 4.4 (shared prefix: only the rest of a prompt is computed); chunked prefill and drafts need it too.
    """
    raise NotImplementedError("paged_prefill (chapter 10) is not written yet")
    (T, H, D), (BLOCK, H_KV), B = q.shape, k_cache.shape[1:3], lengths.shape[0]
    GROUP = H // H_KV
    scale = D**-0.5 if scale is None else scale
    out = torch.empty((T, H, D), dtype=q.dtype, device=q.device)
    BLOCK_M = 32
    BLOCK_N = 32
    grid = ...  # yours
    paged_prefill_kernel[grid](
        q, k_cache, v_cache, block_tables, cu_q, lengths, out, GROUP, BLOCK, D, scale,
        *q.stride(), *k_cache.stride(), *v_cache.stride(), *block_tables.stride(), *out.stride(),
        BLOCK_M=BLOCK_M, BLOCK_N=BLOCK_N, BLOCK_D=max(16, triton.next_power_of_2(D)),
    )  # fmt: skip
    return out


# as generated: top 6e5e1dc1ac40, fragmentation_waste 2af3ade85b59, BlockAllocator fb95e5299cc3, append_slots bf7ded5ac8ac, write_kv 7e61dcc0ce3b, paged_gather 85baf3ef7d23, paged_decode ab13f6d3bcc4, fork_sequence 31458919fb82, copy_on_write cb99076f5d06, prefix_block_hashes 53254dcc9611, paged_prefill ac54feda79ae
