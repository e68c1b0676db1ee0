"""Requests over a paged cache, on paper: block tables, the tokens in each block, forks, copy-on-write, a prefix cache. No tensors.

The operations are slots, so that a learner's own stand in it: the allocator, fork_sequence, copy_on_write and prefix_block_hashes of
chapter 10. In place of K and V a block holds the tokens themselves: a wrong share shows as a wrong text. Knows nothing of models.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Protocol


class Allocator(Protocol):
    """What a BlockAllocator does."""

    @property
    def num_free(self) -> int: ...

    def allocate(self) -> int: ...

    def share(self, block: int) -> None: ...

    def free(self, block: int) -> None: ...

    def holders(self, block: int) -> int: ...


class _Evicting:
    """The allocator as requests see it: where no block is free, the prefix cache gives up its least recently used one that nobody else holds."""

    def __init__(self, allocator: Allocator, named: "OrderedDict[str, int]"):
        self.inner, self.named = allocator, named
        self.share, self.free, self.holders = allocator.share, allocator.free, allocator.holders
        self.evicted: list[int] = []

    @property
    def num_free(self) -> int:
        return self.inner.num_free

    def allocate(self) -> int:
        if not self.inner.num_free:
            name = next((name for name, block in self.named.items() if self.inner.holders(block) == 1), None)
            if name is not None:
                self.evicted.append(self.named[name])
                self.inner.free(self.named.pop(name))  # name and block go together: a reused block must not be found by its old name
        return self.inner.allocate()


class BlockTables:
    """Requests by name, each with its text and its table.

    allocator  a BlockAllocator of num_blocks blocks;  fork, copy_on_write, names   the functions of chapter 10
    names      None: no prefix cache
    memory     tokens of each block, None where nothing was written
    copied     (old, fresh) of every copy so far;  changed   blocks that the last operation wrote or copied
    """

    def __init__(
        self,
        allocator: Allocator,
        num_blocks: int,
        block_size: int,
        fork: Callable[[list[int], Allocator], list[int]],
        copy_on_write: Callable[[list[int], int, int, Allocator], tuple[int, int] | None],
        names: Callable[[list[int], int], list[str]] | None = None,
    ):
        if num_blocks < 1 or block_size < 1:
            raise ValueError(f"BlockTables: {num_blocks} blocks of {block_size} tokens; both must be at least 1")
        self.num_blocks, self.block_size = num_blocks, block_size
        self.named: OrderedDict[str, int] = OrderedDict()  # a full block's name -> the block; the cache holds each of them once
        self.allocator = _Evicting(allocator, self.named)
        self._fork, self._copy_on_write, self._names = fork, copy_on_write, names
        self.texts: dict[str, list[int]] = {}
        self.tables: dict[str, list[int]] = {}
        self.memory: list[list[int | None]] = [[None] * block_size for _ in range(num_blocks)]
        self.copied: list[tuple[int, int]] = []
        self.changed: set[int] = set()

    def add(self, who: str, tokens: Sequence[int]) -> int:
        """A new request with this prompt. Returns how many of its tokens were found in the prefix cache. Where blocks run out, nothing has happened."""
        if who in self.texts or not tokens:
            raise ValueError(f"BlockTables: {'there is a request ' + repr(who) + ' already' if who in self.texts else 'a prompt needs a token'}")
        tokens, table = list(tokens), []
        for name in self._names(tokens[:-1], self.block_size) if self._names else ():  # the last token is always computed: its logits are wanted
            if name not in self.named:
                break
            self.named.move_to_end(name)
            self.allocator.share(self.named[name])
            table.append(self.named[name])
        hit = len(table) * self.block_size
        self.texts[who], self.tables[who], self.changed = tokens[:hit], table, set()
        try:
            for token in tokens[hit:]:
                self._write(who, token)
        except RuntimeError:
            self.end(who)
            raise
        return hit

    def append(self, who: str, token: int) -> tuple[int, int] | None:
        """One more token. Returns the (old, fresh) that was copied, if any."""
        self.changed, before = set(), len(self.copied)
        self._write(self._known(who), token)
        return self.copied[-1] if len(self.copied) > before else None

    def fork(self, who: str, child: str) -> None:
        """A second request with the same text so far."""
        if child in self.texts:
            raise ValueError(f"BlockTables: there is a request {child!r} already")
        self.tables[child] = self._fork(self.tables[self._known(who)], self.allocator)
        self.texts[child], self.changed = list(self.texts[who]), set()

    def end(self, who: str) -> None:
        """The request is done: its holds are given back. What the prefix cache holds stays, and of this text the last block will go first."""
        for block in self.tables.pop(self._known(who)):
            self.allocator.free(block)
        text = self.texts.pop(who)
        for name in reversed(self._names(text, self.block_size) if self._names else []):  # a block is found only through those before it
            if name in self.named:
                self.named.move_to_end(name)
        self.changed = set()

    def read(self, who: str) -> list[int | None]:
        """The request's text, read through its table: equal to texts[who], or something is wrong."""
        table = self.tables[self._known(who)]
        return [self.memory[table[i // self.block_size]][i % self.block_size] for i in range(len(self.texts[who]))]

    def held_by(self, block: int) -> list[str]:
        """The requests whose tables name the block."""
        return [who for who, table in self.tables.items() if block in table]

    def _known(self, who: str) -> str:
        if who not in self.texts:
            raise ValueError(f"BlockTables: there is no request {who!r}; there are {', '.join(self.texts) or 'none'}")
        return who

    def _write(self, who: str, token: int) -> None:
        text, table = self.texts[who], self.tables[who]
        pair = self._copy_on_write(table, len(text), self.block_size, self.allocator)
        if pair is not None:
            old, fresh = pair
            self.memory[fresh][:] = self.memory[old]
            self.copied.append((old, fresh))
        block, place = table[len(text) // self.block_size], len(text) % self.block_size
        if place == 0:
            self.memory[block][:] = [None] * self.block_size
        self.memory[block][place] = token
        self.changed.add(block)
        text.append(token)
        if self._names and len(text) % self.block_size == 0:  # full: it gets a name, and the cache a hold
            name = self._names(text, self.block_size)[-1]
            if name not in self.named:
                self.allocator.share(block)
                self.named[name] = block
            self.named.move_to_end(name)
