"""Grading material: document_block_mask."""

import torch
from torch import Tensor

from course_lib.grading.spec import Check, Evidence, Mutant, Probe, Rule

EMPTY, PARTIAL, FULL = 0, 1, 2


def visible(documents: Tensor, rows: Tensor, keys: Tensor) -> Tensor:
    """[rows, keys], the mask itself: the dense definition of what the exercise classifies. Rows and keys past the end are False."""
    n = documents.shape[0]
    there = (rows < n)[:, None] & (keys < n)[None, :]
    one = documents[rows.clamp(max=n - 1)][:, None] == documents[keys.clamp(max=n - 1)][None, :]
    return there & one & (keys[None, :] <= rows[:, None])


def tile_by_tile(documents: Tensor, block_m: int, block_n: int) -> Tensor:
    n = documents.shape[0]
    kinds = torch.zeros(-(-n // block_m), -(-n // block_n), dtype=torch.int64)
    for r in range(kinds.shape[0]):
        rows = torch.arange(r * block_m, min((r + 1) * block_m, n))
        for c in range(kinds.shape[1]):
            seen = visible(documents, rows, torch.arange(c * block_n, (c + 1) * block_n))
            kinds[r, c] = FULL if seen.all() else PARTIAL if seen.any() else EMPTY
    return kinds


def dense(documents: Tensor, block_m: int, block_n: int) -> Tensor:
    n = documents.shape[0]
    down, across = -(-n // block_m), -(-n // block_n)
    seen = visible(documents, torch.arange(down * block_m), torch.arange(across * block_n)).reshape(down, block_m, across, block_n)
    rows = (n - block_m * torch.arange(down)).clamp(max=block_m)
    count = seen.sum(dim=(1, 3))
    return (count > 0).long() + (count == rows[:, None] * block_n).long()


def pair_by_pair(documents: Tensor, block_m: int, block_n: int) -> Tensor:
    marks, n = documents.tolist(), documents.shape[0]
    out = []
    for top in range(0, n, block_m):
        line = []
        for left in range(0, n, block_n):
            pairs = [j < n and j <= i and marks[i] == marks[j] for i in range(top, min(top + block_m, n)) for j in range(left, left + block_n)]
            line.append(FULL if all(pairs) else PARTIAL if any(pairs) else EMPTY)
        out.append(line)
    return torch.tensor(out)


def packed(lengths: list[int]) -> Tensor:
    return torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))


def _drawn(g: torch.Generator, n: int, mean: int) -> Tensor:
    """Documents of drawn lengths that fill n tokens, numbered with gaps."""
    lengths = []
    while sum(lengths) < n:
        lengths.append(int(torch.randint(1, 2 * mean, (1,), generator=g)))
    return packed(lengths)[:n] * 3 + 4


def _probes(g: torch.Generator) -> list[Probe]:
    axes = ("query tile", "key tile")
    return [
        Probe("the example", (torch.tensor([0, 0, 0, 0, 1, 1]), 2, 2), axes=axes),
        Probe("one document of 17 tokens, tiles of 4 x 4", (packed([17]), 4, 4), axes=axes),
        Probe("documents of 8, 3 and 13 tokens, tiles of 4 x 4", (packed([8, 3, 13]), 4, 4), axes=axes),
        Probe("drawn documents, 96 tokens, tiles of 16 x 8", (_drawn(g, 96, 30), 16, 8), axes=axes),
        Probe("drawn documents, 75 tokens, tiles of 8 x 16: the last tiles are partial", (_drawn(g, 75, 20), 8, 16), axes=axes),
        Probe("5 tokens in a tile of 8 x 8", (packed([3, 2]), 8, 8), axes=axes),
        Probe("a document for each of 20 tokens, tiles of 4 x 2", (packed([1] * 20), 4, 2), axes=axes, diagnose=False),
        Probe("two long documents, 200 tokens, tiles of 16 x 16", (packed([70, 130]), 16, 16), axes=axes, diagnose=False),
        Probe("documents of 11 and 9 tokens, tiles of 3 x 2", (packed([11, 9]), 3, 2), axes=axes, diagnose=False),
        Probe("numbers that skip, 60 tokens", (_drawn(g, 60, 9), 4, 8), axes=axes, diagnose=False),
    ]


def _too_large(probe: Probe, evidence: Evidence) -> str | None:
    documents, block_m, block_n = probe.args
    n = documents.shape[0]
    tiles = -(-n // block_m) * -(-n // block_n)
    limit = 4 * max(n, tiles)
    if evidence.largest <= limit:
        return None
    return (
        f"your function made a tensor of {evidence.largest:,} elements (`{evidence.largest_op.strip('_')}`; {probe.name}). "
        f"With {n} tokens and {tiles} tiles the allowed most is {limit:,}; an N x N mask has {n * n:,}."
    )


_SOME = "some = early & (first_k[None, :] <= last_q[:, None])"
_EARLY = "early = documents[first_q][:, None] <= documents[last_k.clamp(max=N - 1)][None, :]"
_ONE = "one_document = documents[first_k][None, :] == documents[last_q][:, None]"
_FULL = "full = one_document & (last_k[None, :] <= first_q[:, None])"

DOCUMENT_BLOCK_MASK = Check(
    exercise="document_block_mask",
    probes=_probes,
    reference=tile_by_tile,
    baselines=(tile_by_tile, dense, pair_by_pair),
    rules=(Rule("dense-mask", _too_large),),
    mutants=(
        Mutant(
            "causal-only",
            "Tiles of another document are not empty: only the causal half of the mask was looked at.",
            edits=((_EARLY, "early = torch.ones(first_q.numel(), first_k.numel(), dtype=torch.bool)"), (_ONE, "one_document = early")),
        ),
        Mutant(
            "other-document-partial",
            "A tile of queries and keys from different documents is called partial. Not one of its pairs counts: it is empty, and the kernel skips it.",
            edits=((_EARLY, "early = torch.ones(first_q.numel(), first_k.numel(), dtype=torch.bool)"),),
        ),
        Mutant(
            "documents-only",
            "Tiles above the diagonal are not empty: keys after the last query of a tile are hidden, whatever document they are of.",
            edits=(
                (_SOME, "some = early & (documents[first_k][None, :] <= documents[last_q][:, None])"),
                (_FULL, "full = (documents[first_q][:, None] == documents[last_k.clamp(max=N - 1)][None, :]) & one_document & some"),
            ),
        ),
        Mutant(
            "first-tokens",
            "Only the first token of each tile was compared. A document may end, and another begin, inside a tile: look at the last token too.",
            edits=((_EARLY, "early = documents[first_q][:, None] <= documents[first_k][None, :]"),),
        ),
        Mutant(
            "first-query-only",
            "Tiles that only the later queries of a tile see are called empty. Empty is a tile whose first key comes after the *last* query.",
            edits=((_SOME, "some = early & (first_k[None, :] <= first_q[:, None])"),),
        ),
        Mutant(
            "keys-past-the-end",
            "A tile that reaches past the end is called full. Keys past the end are not visible: full needs block_n keys that exist.",
            edits=((_FULL, "full = one_document & (last_k.clamp(max=N - 1)[None, :] <= first_q[:, None])"),),
        ),
        Mutant(
            "diagonal-full",
            "A tile on the diagonal is called full: it hides the keys after each of its queries but the last. Full means that even the *first* query sees the last key.",
            edits=((_FULL, "full = one_document & (last_k[None, :] <= last_q[:, None])"),),
        ),
        Mutant(
            "diagonal-of-one-document-full",
            "A tile on the diagonal is called full where one document fills it. It still hides the keys after each query but the last: full means that "
            "even the *first* query sees the last key.",
            edits=((_FULL, "full = one_document & (documents[first_q] == documents[last_q])[:, None] & (last_k[None, :] <= last_q[:, None])"),),
        ),
        Mutant(
            "full-strict",
            "A tile whose last key is its first query's own was called partial: a query sees its own key, so every pair counts.",
            edits=((_FULL, "full = one_document & (last_k[None, :] < first_q[:, None])"),),
        ),
        Mutant(
            "strict",
            "A query sees its own position: a tile is empty only where its first key comes *after* the last query.",
            edits=(
                (_SOME, "some = early & (first_k[None, :] < last_q[:, None])"),
                (_FULL, "full = one_document & (last_k[None, :] < first_q[:, None])"),
            ),
        ),
        Mutant(
            "never-full",
            "No tile is called full. Where all is visible the kernel needs no mask, and that is most of the work of a long document.",
            edits=((_FULL, "full = torch.zeros_like(some)"),),
        ),
        Mutant(
            "two-documents-full",
            "A tile with two documents in it is called full: the queries of the second do not see the keys of the first. First key and *last* query must lie in one document.",
            edits=((_ONE, "one_document = documents[first_k][None, :] == documents[first_q][:, None]"),),
        ),
        Mutant(
            "exchanged",
            "Partial and full are exchanged: 1 is partial, 2 is full.",
            edits=(("return some.long() + full.long()", "return 2 * some.long() - full.long()"),),
        ),
        Mutant(
            "transposed",
            "Rows and columns are exchanged: the first axis are the tiles of queries.",
            edits=(("return some.long() + full.long()", "return (some.long() + full.long()).T"),),
        ),
        Mutant(
            "queries-past-the-end",
            "Queries past the end were counted: the last tile of queries may have fewer than block_m, and it is full if those that exist see all.",
            edits=((_FULL, f"{_FULL} & (first_q[:, None] + block_m <= N)"),),
        ),
        Mutant(
            "skips-partial-tiles",
            "A tile where only some pairs are visible is called empty: a kernel would skip keys that count. Empty means that not one pair is visible.",
            edits=(("return some.long() + full.long()", "return (some & one_document).long() + full.long()"),),
        ),
        Mutant(
            "dense",
            "The mask of all pairs was made, and then cut into tiles. It is the N x N matrix again: at 128K tokens it takes 16 GiB of bools. The edges of a tile say enough.",
            body="""\
def document_block_mask(documents, block_m, block_n):
    n = documents.shape[0]
    down, across = -(-n // block_m), -(-n // block_n)
    place = torch.arange(n)
    seen = torch.zeros(down * block_m, across * block_n, dtype=torch.bool)
    seen[:n, :n] = (documents[:, None] == documents[None, :]) & (place[None, :] <= place[:, None])
    count = seen.reshape(down, block_m, across, block_n).sum(dim=(1, 3))
    rows = (n - block_m * torch.arange(down)).clamp(max=block_m)
    return (count > 0).long() + (count == rows[:, None] * block_n).long()
""",
            rule="dense-mask",
        ),
    ),
    right=(
        """\
def document_block_mask(documents, block_m, block_n):
    n = len(documents)
    kinds = torch.zeros((n + block_m - 1) // block_m, (n + block_n - 1) // block_n, dtype=torch.long)
    for r in range(kinds.shape[0]):
        a, b = r * block_m, min(n, (r + 1) * block_m) - 1
        for c in range(kinds.shape[1]):
            x, y = c * block_n, (c + 1) * block_n - 1
            if x > b or documents[min(y, n - 1)] < documents[a]:
                continue
            kinds[r, c] = 2 if y <= a and documents[x] == documents[b] else 1
    return kinds
""",
        """\
def document_block_mask(documents, block_m, block_n):
    n = documents.numel()
    begins = torch.searchsorted(documents, documents)  # where each token's document begins
    top = torch.arange(0, n, block_m)
    bottom = torch.minimum(top + block_m, torch.tensor(n)) - 1
    left = torch.arange(0, n, block_n)[None, :]
    right = left + block_n - 1
    some = (left <= bottom[:, None]) & (right >= begins[top][:, None])
    full = (right <= top[:, None]) & (left >= begins[bottom][:, None])
    return torch.where(full, 2, torch.where(some, 1, 0))
""",
        """\
def document_block_mask(documents, block_m, block_n):
    names = documents.tolist()
    n, out = len(names), []
    for top in range(0, n, block_m):
        last = min(top + block_m, n) - 1
        row = []
        for left in range(0, n, block_n):
            right = left + block_n - 1
            if left > last or names[min(right, n - 1)] < names[top]:
                row.append(0)
            elif right <= top and names[left] == names[last]:
                row.append(2)
            else:
                row.append(1)
        out.append(row)
    return torch.tensor(out, dtype=torch.int64)
""",
    ),
)
