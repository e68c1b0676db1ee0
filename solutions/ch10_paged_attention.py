"""Chapter 10: Paged attention.

The source of the chapter's exercises: statements, solutions, hints. `make sync` writes the stubs from it.
"""

import hashlib

import torch
import triton
import triton.language as tl
from torch import Tensor


# %% exercise fragmentation_waste | more | 12 minutes | 2 points | model
# hint: A request holds some slots. Which of them has a token now, which will have one before the request ends, and which never will?
# hint: It holds whole units: as many as its tokens of now need. Tokens of now are used. The places between them and what it will have in the end are reserved, but only those inside what it holds. Whatever it holds past its end is never used.
# hint: held = -(-now // unit) * unit; used += now; reserved += min(held, final) - now; never += max(0, held - final); then divide each by the sum of all held.
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
    # solution
    used = reserved = never = 0
    for tokens, end in zip(now, final, strict=True):
        held = -(-tokens // unit) * unit
        used += tokens
        reserved += min(held, end) - tokens
        never += max(0, held - end)
    slots = used + reserved + never
    return used / slots, reserved / slots, never / slots
    # end


# %% exercise BlockAllocator | core | 20 minutes | 5 points | python
# hint: Who holds a block? A number for each block answers that, and answers whether it is free.
# hint: Keep a list of the free blocks and a count of holders for each block. A block goes back to the list when its count falls to 0, not before. Every method but `allocate` refuses a block that nobody holds, and one that does not exist.
# hint: allocate: if not self._free: raise RuntimeError(...); block = self._free.pop(); self._holders[block] = 1. free: self._holders[block] -= 1, and if that made it 0: self._free.append(block). A check of its own for 0 <= block < num_blocks: Python's lists accept -1.
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
        # solution
        self._free = list(range(num_blocks))
        self._holders = [0] * num_blocks
        # end

    @property
    def num_free(self) -> int:
        # solution
        return len(self._free)
        # end

    def allocate(self) -> int:
        # solution
        if not self._free:
            raise RuntimeError(f"all {len(self._holders)} blocks are in use")
        block = self._free.pop()
        self._holders[block] = 1
        return block
        # end

    def share(self, block: int) -> None:
        # solution
        if self.holders(block) == 0:
            raise ValueError(f"block {block} is free: nobody holds it, so nobody can share it")
        self._holders[block] += 1
        # end

    def free(self, block: int) -> None:
        # solution
        if self.holders(block) == 0:
            raise ValueError(f"block {block} is free already")
        self._holders[block] -= 1
        if self._holders[block] == 0:
            self._free.append(block)
        # end

    def holders(self, block: int) -> int:
        # solution
        if not 0 <= block < len(self._holders):
            raise ValueError(f"there is no block {block}: they are 0 to {len(self._holders) - 1}")
        return self._holders[block]
        # end


# %% exercise append_slots | core | 15 minutes | 3 points | torch
# hint: In which entry of its request's table does position 37 stand, with blocks of 16? And at which place of that block?
# hint: Position p is place p % block_size of the block that entry p // block_size names. A slot counts all places of all blocks in a row. Look the entries up with gather along the last dimension, in int64; a position of -1 has no entry, so look up any, and put -1 at the end.
# hint: entry = positions.clamp(min=0) // block_size; block = block_tables.long().gather(1, entry); slots = block * block_size + ...; torch.where(positions < 0, ...)
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
    # solution
    entry = positions.clamp(min=0) // block_size
    block = block_tables.long().gather(1, entry)
    slots = block * block_size + positions % block_size
    return torch.where(positions < 0, -1, slots)
    # end


# %% exercise write_kv | more | 20 minutes | 3 points | triton
# hint: One row of K goes to one place, with all its D numbers. How many such rows are there, and what does each need to know?
# hint: Row r of T * H_KV is head r % H_KV of token r // H_KV. Load its token's slot; the block is slot // BLOCK, the place slot % BLOCK. A slot of -1 must switch off the loads and the stores of its row: put it into the mask.
# hint: slots = tl.load(slots_ptr + token, mask=rows < T * H_KV, other=-1); mine = (slots >= 0)[:, None] & (dims < D)[None, :]; at = (slots // BLOCK)[:, None] * kc_sblock + (slots % BLOCK)[:, None] * kc_sn + head[:, None] * kc_sh + dims[None, :] * kc_sd
@triton.jit
def write_kv_kernel(
    k_ptr, v_ptr, kc_ptr, vc_ptr, slots_ptr, T, H_KV, BLOCK, D,
    k_st, k_sh, k_sd, v_st, v_sh, v_sd, kc_sblock, kc_sn, kc_sh, kc_sd, vc_sblock, vc_sn, vc_sh, vc_sd,
    ROWS: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    # 1. who am I: ROWS rows of D numbers, of K and of V
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)  # [ROWS], of T * H_KV
    dims = tl.arange(0, BLOCK_D)  # [BLOCK_D], of which D exist
    # solution
    token, head = rows // H_KV, rows % H_KV
    slots = tl.load(slots_ptr + token, mask=rows < T * H_KV, other=-1)  # [ROWS], int64
    mine = (slots >= 0)[:, None] & (dims < D)[None, :]
    block, place = (slots // BLOCK)[:, None], (slots % BLOCK)[:, None]
    # 2. load
    k = tl.load(k_ptr + token[:, None] * k_st + head[:, None] * k_sh + dims[None, :] * k_sd, mask=mine)  # [ROWS, BLOCK_D]
    v = tl.load(v_ptr + token[:, None] * v_st + head[:, None] * v_sh + dims[None, :] * v_sd, mask=mine)
    # 3. store
    tl.store(kc_ptr + block * kc_sblock + place * kc_sn + head[:, None] * kc_sh + dims[None, :] * kc_sd, k, mask=mine)
    tl.store(vc_ptr + block * vc_sblock + place * vc_sn + head[:, None] * vc_sh + dims[None, :] * vc_sd, v, mask=mine)
    # instead
    #| # yours: which token and head is each row, where does it come from, where does it go?
    # end


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
    (T, H_KV, D), BLOCK = k.shape, k_cache.shape[1]
    ROWS = 16
    # solution
    grid = (triton.cdiv(T * H_KV, ROWS),)
    # instead
    #| grid = ...  # yours: how many programs?
    # end
    write_kv_kernel[grid](
        k, v, k_cache, v_cache, slots, T, H_KV, BLOCK, D,
        *k.stride(), *v.stride(), *k_cache.stride(), *v_cache.stride(), ROWS=ROWS, BLOCK_D=triton.next_power_of_2(D),
    )  # fmt: skip


# %% exercise paged_gather | more | 8 minutes | 2 points | torch
# hint: How many blocks does a request of `length` tokens use, and which entries of the table name them?
# hint: The first ceil(length / BLOCK) entries, no others. Indexing the cache with them gives [blocks, BLOCK, H_KV, D]; two of these dimensions are one in the text. The last block may hold more than is wanted.
# hint: blocks = block_table[: -(-length // BLOCK)].long(); cache[blocks].flatten(0, 1)[...]
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
    # solution
    used = -(-length // cache.shape[1])
    blocks = block_table[:used].long()
    return cache[blocks].flatten(0, 1)[:length]
    # end


# %% exercise paged_decode | core | 35 minutes | 6 points | triton
# hint: Chapter 05's loop reads key number `at` at k_ptrs + at * k_sn. Where does the same key lie now, and what must be read before that can be said?
# hint: A tile of keys has its positions: at = start + keys. One load from the table gives each key's block, table entry at // BLOCK; then each key lies at block * k_sblock + at % BLOCK * k_sn. Keys at or past `length` are masked in the load of the table already: what stands there may be any number. The loop itself is flash_forward_gqa's.
# hint: at = start + keys; block = tl.load(table + at // BLOCK * tables_sn, mask=at < length, other=0).to(tl.int64); place = at % BLOCK; k = tl.load(k_head + (block * k_sblock + place * k_sn)[:, None], mask=(at < length)[:, None] & (dims < D)[None, :], other=0.0). At the end a request of length 0 has row_sum 0: divide by 1 instead.
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
    # solution
    # 3. initialise
    mine = (rows < GROUP)[:, None] & (dims < D)[None, :]
    q = tl.load(q_ptrs, mask=mine, other=0.0)  # [BLOCK_M, BLOCK_D]
    row_max = tl.full([BLOCK_M], -float("inf"), tl.float32)
    row_sum = tl.zeros([BLOCK_M], tl.float32)
    acc = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)
    # 4. loop
    for start in range(0, length, BLOCK_N):
        at = start + keys  # [BLOCK_N], positions in the text
        block = tl.load(table + at // BLOCK * tables_sn, mask=at < length, other=0).to(tl.int64)
        place = at % BLOCK
        inside = (at < length)[:, None] & (dims < D)[None, :]
        k = tl.load(k_head + (block * k_sblock + place * k_sn)[:, None], mask=inside, other=0.0)  # [BLOCK_N, BLOCK_D]
        scores = tl.dot(q, k.T, input_precision="ieee") * scale  # [BLOCK_M, BLOCK_N]
        scores = tl.where((at < length)[None, :], scores, -float("inf"))
        new_max = tl.maximum(row_max, tl.max(scores, axis=1))
        p = tl.exp(scores - new_max[:, None])
        rescale = tl.exp(row_max - new_max)
        row_sum = row_sum * rescale + tl.sum(p, axis=1)
        v = tl.load(v_head + (block * v_sblock + place * v_sn)[:, None], mask=inside, other=0.0)  # [BLOCK_N, BLOCK_D]
        acc = acc * rescale[:, None] + tl.dot(p.to(v.dtype), v, input_precision="ieee")
        row_max = new_max
    # 5. write
    row_sum = tl.where(row_sum == 0.0, 1.0, row_sum)  # no keys: 0, not 0 / 0
    tl.store(out_ptrs, acc / row_sum[:, None], mask=mine)
    # instead
    #| # yours: 3. initialise, 4. loop: find each key's block in the table, 5. write
    # end


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
    (B, H, D), (BLOCK, H_KV) = q.shape, k_cache.shape[1:3]
    GROUP = H // H_KV
    scale = D**-0.5 if scale is None else scale
    out = torch.empty((B, H, D), dtype=q.dtype, device=q.device)
    BLOCK_M = 16
    BLOCK_N = 32
    # solution
    grid = (H_KV, B)
    # instead
    #| grid = ...  # yours
    # end
    paged_decode_kernel[grid](
        q, k_cache, v_cache, block_tables, lengths, out, GROUP, BLOCK, D, scale,
        *q.stride(), *k_cache.stride(), *v_cache.stride(), *block_tables.stride(), *out.stride(),
        BLOCK_M=BLOCK_M, BLOCK_N=BLOCK_N, BLOCK_D=max(16, triton.next_power_of_2(D)),
    )  # fmt: skip
    return out


# %% exercise fork_sequence | more | 5 minutes | 1 point | python
# hint: What do two requests with the same text so far need twice: the keys, the numbers in the table, or only the table itself?
# hint: Every block of the table gets one more holder. The new request needs a list of its own, because from now on the two grow apart.
# hint: for block in table: allocator.share(block); then return a new list with the same numbers.
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
    # solution
    for block in table:
        allocator.share(block)
    return list(table)
    # end


# %% exercise copy_on_write | more | 20 minutes | 4 points | python
# hint: The new token goes to one place of one block. Which three things can be the matter with that block?
# hint: It may not exist yet: the last one is full. It may be this request's alone: write. It may have other holders: then this request needs a block of its own with the same content. Take the new block before giving the old one back: if there is none, nothing may have changed.
# hint: entry = length // block_size; if entry == len(table): append allocator.allocate(). Otherwise look at allocator.holders(table[entry]): if it is above 1, fresh = allocator.allocate(), then allocator.free(old), then put fresh into the table and return (old, fresh).
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
    # solution
    entry = length // block_size
    if entry == len(table):
        table.append(allocator.allocate())
        return None
    old = table[entry]
    if allocator.holders(old) == 1:
        return None
    fresh = allocator.allocate()  # first: if there is none, nothing has changed
    allocator.free(old)
    table[entry] = fresh
    return old, fresh
    # end


# %% exercise prefix_block_hashes | core | 15 minutes | 3 points | python
# hint: Keys and values of a block depend on its tokens. On what else? (What does the second block's attention see?)
# hint: A block's name must change when anything before it changes: hash the digest of the block before together with its own tokens. A block that is not full will still change, so it has no name yet.
# hint: parent = b""; for each full block: data = parent + b"".join(token.to_bytes(8, "little") for token in block); parent = hashlib.sha256(data).digest(); collect parent.hex().
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
    # solution
    names, parent = [], b""
    for start in range(0, len(tokens) - block_size + 1, block_size):
        block = tokens[start : start + block_size]
        parent = hashlib.sha256(parent + b"".join(token.to_bytes(8, "little") for token in block)).digest()
        names.append(parent.hex())
    return names
    # end


# %% exercise paged_prefill | more | 40 minutes | 5 points | triton
# hint: It is paged_decode with more than one query: which of its lines know that there is only one? And what may query i of n see?
# hint: Pack queries and heads into the rows of a tile as flash_forward_gqa did: row r is query r // GROUP, head r % GROUP of the group. Query i of n stands at position length - n + i of its text and sees the keys up to that one. The program's last query says where the walk ends.
# hint: packed = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M); queries, heads = packed // GROUP, h_kv * GROUP + packed % GROUP; end = min(length, length - n + ((tl.program_id(0) + 1) * BLOCK_M - 1) // GROUP + 1); a tile that starts past n * GROUP has nothing to do: end = 0; in the loop visible = at[None, :] <= length - n + queries[:, None].
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
    # solution
    packed = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)  # [BLOCK_M], of n * GROUP
    queries, heads = packed // GROUP, h_kv * GROUP + packed % GROUP
    q_ptrs = q_ptr + (begin + queries)[:, None] * q_st + heads[:, None] * q_sh + dims[None, :] * q_sd
    out_ptrs = out_ptr + (begin + queries)[:, None] * out_st + heads[:, None] * out_sh + dims[None, :] * out_sd
    # 3. initialise
    mine = (queries < n)[:, None] & (dims < D)[None, :]
    q = tl.load(q_ptrs, mask=mine, other=0.0)  # [BLOCK_M, BLOCK_D]
    row_max = tl.full([BLOCK_M], -float("inf"), tl.float32)
    row_sum = tl.zeros([BLOCK_M], tl.float32)
    acc = tl.zeros([BLOCK_M, BLOCK_D], tl.float32)
    last = length - n + queries  # [BLOCK_M], the last key that each row sees: its own
    end = min(length, length - n + (tl.program_id(0) * BLOCK_M + BLOCK_M - 1) // GROUP + 1)
    if tl.program_id(0) * BLOCK_M >= n * GROUP:  # the grid is for the longest request: this tile has no query
        end = 0
    # 4. loop
    for start in range(0, end, BLOCK_N):
        at = start + keys  # [BLOCK_N], positions in the text
        block = tl.load(table + at // BLOCK * tables_sn, mask=at < end, other=0).to(tl.int64)
        place = at % BLOCK
        inside = (at < end)[:, None] & (dims < D)[None, :]
        k = tl.load(k_head + (block * k_sblock + place * k_sn)[:, None], mask=inside, other=0.0)  # [BLOCK_N, BLOCK_D]
        scores = tl.dot(q, k.T, input_precision="ieee") * scale  # [BLOCK_M, BLOCK_N]
        visible = (at[None, :] <= last[:, None]) & (at < end)[None, :]
        scores = tl.where(visible, scores, -float("inf"))
        new_max = tl.maximum(row_max, tl.max(scores, axis=1))
        p = tl.exp(scores - new_max[:, None])
        rescale = tl.exp(row_max - new_max)
        row_sum = row_sum * rescale + tl.sum(p, axis=1)
        v = tl.load(v_head + (block * v_sblock + place * v_sn)[:, None], mask=inside, other=0.0)  # [BLOCK_N, BLOCK_D]
        acc = acc * rescale[:, None] + tl.dot(p.to(v.dtype), v, input_precision="ieee")
        row_max = new_max
    # 5. write
    row_sum = tl.where(row_sum == 0.0, 1.0, row_sum)  # rows without a query: not 0 / 0
    tl.store(out_ptrs, acc / row_sum[:, None], mask=mine)
    # instead
    #| # yours: which queries and heads are my rows, where do they lie; then 3. to 5. as in paged_decode
    # end


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
    (T, H, D), (BLOCK, H_KV), B = q.shape, k_cache.shape[1:3], lengths.shape[0]
    GROUP = H // H_KV
    scale = D**-0.5 if scale is None else scale
    out = torch.empty((T, H, D), dtype=q.dtype, device=q.device)
    BLOCK_M = 32
    BLOCK_N = 32
    # solution
    grid = (triton.cdiv(max_q * GROUP, BLOCK_M), H_KV, B)
    # instead
    #| grid = ...  # yours
    # end
    paged_prefill_kernel[grid](
        q, k_cache, v_cache, block_tables, cu_q, lengths, out, GROUP, BLOCK, D, scale,
        *q.stride(), *k_cache.stride(), *v_cache.stride(), *block_tables.stride(), *out.stride(),
        BLOCK_M=BLOCK_M, BLOCK_N=BLOCK_N, BLOCK_D=max(16, triton.next_power_of_2(D)),
    )  # fmt: skip
    return out
