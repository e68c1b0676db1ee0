"""fork_sequence and copy_on_write in other styles, each of which must pass; and one that copies a block that nobody writes."""

FORK_RIGHT = (
    """\
def fork_sequence(table, allocator):
    child = table.copy()
    [allocator.share(block) for block in child]
    return child
""",
    """\
def fork_sequence(parent, blocks):
    child = []
    for i in range(len(parent)):
        blocks.share(parent[i])
        child.append(parent[i])
    return child
""",
    """\
def fork_sequence(table: list, allocator):
    if not table:
        return []
    allocator.share(table[0])
    return [table[0], *fork_sequence(table[1:], allocator)]
""",
)

COPY_RIGHT = (
    """\
def copy_on_write(table, length, block_size, allocator):
    if length == len(table) * block_size:
        table += [allocator.allocate()]
    elif allocator.holders(table[-1]) > 1:
        source = table.pop()
        try:
            table.append(allocator.allocate())
        except RuntimeError:
            table.append(source)
            raise
        allocator.free(source)
        return source, table[-1]
""",
    """\
def copy_on_write(table, length, block_size, allocator):
    index, place = divmod(length, block_size)
    if place == 0:
        fresh = allocator.allocate()
        table.append(fresh)
        return None
    shared = allocator.holders(table[index]) >= 2
    if not shared:
        return None
    pair = (table[index], allocator.allocate())
    table[index] = pair[1]
    allocator.free(pair[0])
    return pair
""",
    """\
def copy_on_write(table, length, block_size, allocator):
    needs_block = length % block_size == 0
    is_shared = not needs_block and allocator.holders(table[length // block_size]) != 1
    if not needs_block and not is_shared:
        return
    if allocator.num_free == 0:
        raise RuntimeError("nothing is free")
    new = allocator.allocate()
    if needs_block:
        table.append(new)
        return
    old, table[length // block_size] = table[length // block_size], new
    allocator.free(old)
    return [old, new]
""",
)

COPY = """\
def copy_on_write(table, length, block_size, allocator):
    pair = None
    if table and allocator.holders(table[-1]) > 1:
        old, fresh = table[-1], allocator.allocate()
        allocator.free(old)
        table[-1] = fresh
        pair = old, fresh
    if length // block_size == len(table):
        table.append(allocator.allocate())
    return pair
"""
