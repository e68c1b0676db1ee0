"""Grading material: prefix_block_hashes. The bytes are part of the contract, so right answers agree to the last character."""

import hashlib
import struct

import torch

from course_lib.grading.spec import Check, Mutant, Probe, Property

_LINE = 'parent = hashlib.sha256(parent + b"".join(token.to_bytes(8, "little") for token in block)).digest()'
# Runs in the answer's process: one place more than there are full blocks, so that a name too many or too few is a wrong name.
HARNESS = """
def run(function, tokens, block_size):
    names = function(tokens, block_size)
    if isinstance(names, (list, tuple)) and any(isinstance(name, bytes) for name in names):
        raise TypeError("a name is bytes; the names are hexadecimal text: digest.hex()")
    if not isinstance(names, (list, tuple)) or not all(isinstance(name, str) for name in names):
        return names
    return [names[i] if i < len(names) else "no name" for i in range(max(len(tokens) // block_size + 1, len(names)))][: len(tokens) // block_size + 1]
"""
_HEAD = "def prefix_block_hashes(tokens, block_size):\n    names = []\n"


def _ended(names: list[str]) -> list[str]:
    return [*names, "no name"]


def chained(tokens: list[int], block_size: int) -> list[str]:
    names, parent = [], b""
    for i in range(len(tokens) // block_size):
        parent = hashlib.sha256(parent + struct.pack(f"<{block_size}q", *tokens[i * block_size : (i + 1) * block_size])).digest()
        names.append(parent.hex())
    return _ended(names)


def by_update(tokens: list[int], block_size: int) -> list[str]:
    names: list[str] = []
    for end in range(block_size, len(tokens) + 1, block_size):
        hasher = hashlib.sha256(bytes.fromhex(names[-1]) if names else b"")
        for token in tokens[end - block_size : end]:
            hasher.update(token.to_bytes(8, "little"))
        names.append(hasher.hexdigest())
    return _ended(names)


def recursive(tokens: list[int], block_size: int, parent: bytes = b"") -> list[str]:
    if len(tokens) < block_size:
        return _ended([])
    digest = hashlib.sha256(parent + torch.tensor(tokens[:block_size]).numpy().tobytes()).digest()
    return [digest.hex(), *recursive(tokens[block_size:], block_size, digest)]


def _tokens(g: torch.Generator, count: int, high: int = 50_000) -> list[int]:
    return torch.randint(0, high, (count,), generator=g).tolist()


def _probes(g: torch.Generator) -> list[Probe]:
    return [
        Probe("the example", ([1, 2, 3, 4, 5], 2)),
        Probe("one block, just full", (_tokens(g, 4), 4)),
        Probe("37 tokens in blocks of 16", (_tokens(g, 37), 16)),
        Probe("fewer tokens than a block", (_tokens(g, 3), 4)),
        Probe("the same block three times", (_tokens(g, 4) * 3 + [7], 4)),
        Probe("blocks of 1, a token of 2**40", ([5, 2**40, 5], 1)),
        Probe("no token", ([], 16), diagnose=False),
        Probe("1,000 tokens in blocks of 16", (_tokens(g, 1000), 16), diagnose=False),
    ]


def _named_apart(call, g: torch.Generator) -> str | None:
    """Two texts that differ in their first token: no block of one may be taken for a block of the other."""
    first, rest = _tokens(g, 1)[0], _tokens(g, 11)
    one, other = call([first, *rest], 4), call([first + 1, *rest], 4)
    same = [i for i, (a, b) in enumerate(zip(one[:-1], other[:-1], strict=False)) if a == b]
    if same:
        return (
            f"two texts of 12 tokens that differ in the first one alone have the same name for block {same[0]} (counted from 0, blocks of 4): a prefix "
            "cache would give one of them the other's keys, which were computed behind another beginning."
        )
    return None


PREFIX_BLOCK_HASHES = Check(
    exercise="prefix_block_hashes",
    probes=_probes,
    reference=chained,
    harness=HARNESS,
    baselines=(chained, by_update, recursive),
    returns="a list of strings",
    properties=(Property("another beginning", _named_apart, "same-name", speaks=True),),
    mutants=(
        Mutant(
            "not-chained",
            "Each block was named by its own tokens alone. The keys of its tokens depend on everything before them: the digest of the block before belongs into the hash.",
            edits=((_LINE, _LINE.replace("parent + ", "")),),
        ),
        Mutant(
            "part-named",
            "The last block was named although it is not full. Its content will change with the next token, its name would not.",
            edits=(("len(tokens) - block_size + 1", "len(tokens)"),),
        ),
        Mutant(
            "last-missed",
            "The last block is full and has no name: a text of exactly n blocks has n names.",
            edits=(("len(tokens) - block_size + 1", "len(tokens) - block_size"),),
        ),
        Mutant(
            "hex-chained",
            "The block before came in as 64 characters of hexadecimal. It is its digest that belongs there, 32 bytes.",
            edits=((_LINE, _LINE.replace("sha256(parent + ", "sha256(parent.hex().encode() + ")),),
        ),
        Mutant(
            "first-padded",
            "The first block has no block before it, and 32 bytes of zero were put in its place: nothing belongs there.",
            edits=(('parent = [], b""', "parent = [], bytes(32)"),),
        ),
        Mutant(
            "big-endian",
            "The bytes of a token stand the other way round: little-endian, the smallest first.",
            edits=(('"little"', '"big"'),),
        ),
        Mutant(
            "four-bytes",
            "Each token was written as 4 bytes. The contract says 8.",
            edits=((_LINE, _LINE.replace('token.to_bytes(8, "little")', '(token % 2**32).to_bytes(4, "little")')),),
        ),
        Mutant(
            "own-tokens-first",
            "The digest of the block before and the block's tokens were hashed in the other order: the digest comes first.",
            edits=((_LINE, 'parent = hashlib.sha256(b"".join(token.to_bytes(8, "little") for token in block) + parent).digest()'),),
        ),
        Mutant(
            "as-text",
            "Tokens were hashed as text. Then 1, 23 and 12, 3 are the same, if nothing stands between them; here each token is 8 bytes.",
            edits=((_LINE, 'parent = hashlib.sha256(parent + "".join(str(token) for token in block).encode()).digest()'),),
        ),
        Mutant(
            "as-list",
            "Tokens were hashed as Python writes a list, commas and all. Another server may write it otherwise; here each token is 8 bytes.",
            edits=((_LINE, "parent = hashlib.sha256(parent + str(block).encode()).digest()"),),
        ),
        Mutant(
            "whole-prefix",
            "Each block was named by all tokens up to its end. That tells texts apart as well, but it is another name, and a text of n blocks hashes n^2 / 2 of them: "
            "hash the digest of the block before and the block's own tokens.",
            body=f'{_HEAD}    for end in range(block_size, len(tokens) + 1, block_size):\n        data = b"".join(token.to_bytes(8, "little") for token in tokens[:end])\n'
            "        names.append(hashlib.sha256(data).hexdigest())\n    return names\n",
        ),
        Mutant(
            "first-as-parent",
            "Every block was chained to the first one: what stands between them does not count. It is the block just before.",
            body=f'{_HEAD}    first = b""\n    for start in range(0, len(tokens) - block_size + 1, block_size):\n        block = tokens[start : start + block_size]\n'
            '        digest = hashlib.sha256(first + b"".join(token.to_bytes(8, "little") for token in block)).digest()\n        first = first or digest\n'
            "        names.append(digest.hex())\n    return names\n",
        ),
        Mutant(
            "shortened",
            "The names were cut short: 64 characters each, as the contract says. Half a hash makes collisions that much easier to find.",
            edits=(("parent.hex()", "parent.hex()[:16]"),),
        ),
        Mutant(
            "python-hash",
            "Python's hash() was used. It is made to be fast, not to tell texts apart: hash(-1) == hash(-2), and whoever knows it can write a text that gets your blocks. "
            "Use hashlib.sha256.",
            body=f"{_HEAD}    parent = 0\n    for start in range(0, len(tokens) - block_size + 1, block_size):\n"
            "        parent = hash((parent, *tokens[start : start + block_size]))\n        names.append(str(parent))\n    return names\n",
        ),
        Mutant(
            "python-hash-of-a-tuple",
            "Python's hash() was used. It is made to be fast, not to tell texts apart: hash(-1) == hash(-2), and whoever knows it can write a text that gets your blocks. "
            "Use hashlib.sha256.",
            body=f"{_HEAD}    parent = 0\n    for start in range(0, len(tokens) - block_size + 1, block_size):\n"
            "        parent = hash((parent, tuple(tokens[start : start + block_size])))\n        names.append(str(parent))\n    return names\n",
        ),
    ),
    right=(
        """\
import struct

def prefix_block_hashes(tokens, block_size):
    out, previous = [], b""
    for n in range(len(tokens) // block_size):
        hasher = hashlib.sha256(previous)
        for token in tokens[n * block_size:(n + 1) * block_size]:
            hasher.update(struct.pack("<Q", token))
        previous = hasher.digest()
        out.append(hasher.hexdigest())
    return out
""",
        """\
def prefix_block_hashes(tokens, block_size):
    names = []
    end = block_size
    while end <= len(tokens):
        data = bytes.fromhex(names[-1]) if names else b""
        for token in tokens[end - block_size:end]:
            data = data + int(token).to_bytes(8, byteorder="little")
        names.append(hashlib.sha256(data).hexdigest())
        end += block_size
    return names
""",
        """\
import array, itertools, sys

def prefix_block_hashes(tokens, block_size):
    full = len(tokens) // block_size
    packed = array.array("q", tokens[:full * block_size])
    if sys.byteorder == "big":
        packed.byteswap()
    raw, step = packed.tobytes(), 8 * block_size
    blocks = [raw[i:i + step] for i in range(0, len(raw), step)]
    chain = itertools.accumulate(blocks, lambda before, own: hashlib.sha256(before + own).digest(), initial=b"")
    return [digest.hex() for digest in itertools.islice(chain, 1, None)]
""",
    ),
)
