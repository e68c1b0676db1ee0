"""BlockAllocator in other styles, each of which must pass; and two that go wrong in a way of their own."""

RIGHT = (
    """\
from collections import Counter, deque

class BlockAllocator:
    def __init__(self, num_blocks):
        self.total = num_blocks
        self.queue = deque(range(num_blocks))
        self.counts = Counter()

    @property
    def num_free(self):
        return self.total - sum(1 for n in self.counts.values() if n)

    def allocate(self):
        try:
            block = self.queue.popleft()
        except IndexError:
            raise RuntimeError("out of blocks") from None
        self.counts[block] += 1
        return block

    def _known(self, block):
        if block not in range(self.total):
            raise ValueError(block)

    def _used(self, block):
        self._known(block)
        if not self.counts[block]:
            raise ValueError("free")

    def share(self, block):
        self._used(block)
        self.counts[block] += 1

    def free(self, block):
        self._used(block)
        self.counts[block] -= 1
        if not self.counts[block]:
            self.queue.append(block)

    def holders(self, block):
        self._known(block)
        return self.counts[block]
""",
    """\
class BlockAllocator:
    def __init__(self, num_blocks):
        self.n = [0] * num_blocks

    num_free = property(lambda self: self.n.count(0))

    def allocate(self):
        if 0 not in self.n:
            raise RuntimeError("none is free")
        block = self.n.index(0)
        self.n[block] = 1
        return block

    def share(self, block):
        self._change(block, 1)

    def free(self, block):
        self._change(block, -1)

    def _change(self, block, by):
        if self.holders(block) < 1:
            raise ValueError("nobody holds it")
        self.n[block] += by

    def holders(self, block):
        if block < 0 or block >= len(self.n):
            raise ValueError("no such block")
        return self.n[block]
""",
    """\
class OutOfBlocks(RuntimeError):
    pass

class BlockAllocator:
    def __init__(self, num_blocks):
        self.count = torch.zeros(num_blocks, dtype=torch.int64)

    @property
    def num_free(self):
        return int((self.count == 0).sum())

    def allocate(self):
        free = (self.count == 0).nonzero().flatten()
        if len(free) == 0:
            raise OutOfBlocks()
        self.count[free[0]] = 1
        return int(free[0])

    def share(self, block):
        if not self.holders(block):
            raise ValueError(f"{block} is free")
        self.count[block] += 1

    def free(self, block):
        if not self.holders(block):
            raise ValueError(f"{block} is free")
        self.count[block] -= 1

    def holders(self, block):
        if block < 0 or block >= self.count.numel():
            raise ValueError(f"{block} is no block")
        return int(self.count[block])
""",
    """\
class BlockAllocator:
    def __init__(self, num_blocks):
        self.unused, self.owners, self.size = set(range(num_blocks)), {}, num_blocks

    @property
    def num_free(self):
        return len(self.unused)

    def allocate(self):
        if len(self.unused) == 0:
            raise RuntimeError("no block left")
        block = max(self.unused)
        self.unused.remove(block)
        self.owners[block] = 1
        return block

    def share(self, block):
        if block not in self.owners:
            raise ValueError("not in use")
        self.owners[block] = self.owners[block] + 1

    def free(self, block):
        if block not in self.owners:
            raise ValueError("not in use")
        left = self.owners.pop(block) - 1
        if left:
            self.owners[block] = left
        else:
            self.unused.add(block)

    def holders(self, block):
        if not (0 <= block < self.size):
            raise ValueError("unknown")
        return self.owners.get(block, 0)
""",
)

_REST = """\
    def share(self, block):
        if self.holders(block) == 0:
            raise ValueError("free")
        self._holders[block] += 1

    def holders(self, block):
        if not 0 <= block < len(self._holders):
            raise ValueError("none")
        return self._holders[block]
"""

COUNTER = f"""\
class BlockAllocator:
    def __init__(self, num_blocks):
        self._holders, self._next = [0] * num_blocks, 0

    @property
    def num_free(self):
        return self._holders.count(0)

    def allocate(self):
        if self._next == len(self._holders):
            raise RuntimeError("full")
        self._next += 1
        self._holders[self._next - 1] = 1
        return self._next - 1

    def free(self, block):
        if self.holders(block) == 0:
            raise ValueError("free")
        self._holders[block] -= 1

{_REST}"""

SHARED_STATE = f"""\
class BlockAllocator:
    _free, _holders = [], []

    def __init__(self, num_blocks):
        while len(self._holders) < num_blocks:
            self._free.append(len(self._holders))
            self._holders.append(0)

    @property
    def num_free(self):
        return len(self._free)

    def allocate(self):
        if not self._free:
            raise RuntimeError("full")
        block = self._free.pop()
        self._holders[block] = 1
        return block

    def free(self, block):
        if self.holders(block) == 0:
            raise ValueError("free")
        self._holders[block] -= 1
        if self._holders[block] == 0:
            self._free.append(block)

{_REST}"""
