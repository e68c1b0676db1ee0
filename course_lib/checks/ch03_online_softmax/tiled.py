"""Grading material: tiled_attention."""

import torch
from torch import Tensor

from course_lib.checks.ch03_online_softmax.inputs import normal
from course_lib.checks.ch03_online_softmax.plain import (
    attention,
    attention_by_exp2,
    attention_divided_late,
    attention_key_by_key,
    attention_scaled_first,
)
from course_lib.checks.ch03_online_softmax.rules import ATTENTION_OPS, NARROW_SCORES, held, tile_of_attention
from course_lib.checks.ch03_online_softmax.tiled_right import RIGHT
from course_lib.grading.spec import Check, Mutant, Probe, Property, forbid


def _qkv(g: torch.Generator, *lead: int, n_q: int, n_kv: int, d: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    """q, k, v with an offset a head in V, so that heads cannot be confused."""
    q, k, v = (normal(g, *lead, n, d, dtype=dtype) for n in (n_q, n_kv, n_kv))
    return q * 1.5, k, v + torch.arange(lead[-1], dtype=dtype)[:, None, None] if lead else v


def _rising_keys(g: torch.Generator, n_q: int, n_kv: int, d: int, span: float, middle: float = 0.0) -> tuple[Tensor, Tensor, Tensor]:
    """Keys along the queries' common direction, so that scores rise by `span` (fall, if negative) from the first key to the last."""
    q = torch.ones(n_q, d) + 0.1 * normal(g, n_q, d)
    k = (middle + torch.linspace(-0.5, 0.5, n_kv)[:, None] * span) / d**0.5 + 0.05 * normal(g, n_kv, d)
    return q, k, normal(g, n_kv, d)


def attention_probes(g: torch.Generator, masks: bool = True) -> list[Probe]:
    two, four = ("query", "feature"), ("batch", "head", "query", "feature")
    causal = torch.ones(7, 12, dtype=torch.bool).tril(5)
    hidden = torch.rand(6, 14, generator=g) < 0.6
    hidden[:, 0] = hidden[:, -1] = True
    hidden[0] = False
    hidden[1, :4] = False
    hidden[2, 8:] = False
    hidden[:, 4:8] = False
    probes = [
        Probe("2 tiles of 3 keys", _qkv(g, n_q=2, n_kv=6, d=4), {"tile": 3}, axes=two),
        Probe("one tile", _qkv(g, n_q=3, n_kv=5, d=4), {"tile": 8}, axes=two),
        Probe("2 batches, 3 heads, 11 keys in tiles of 4", _qkv(g, 2, 3, n_q=5, n_kv=11, d=6), {"tile": 4}, axes=four),
        Probe("scores that fall from -140 to -330 over three tiles", _rising_keys(g, 5, 15, 8, -190.0, -235.0), {"tile": 5}, axes=two),
    ]
    if masks:
        probes += [
            Probe("a mask with an empty row and an empty second tile", _qkv(g, n_q=6, n_kv=14, d=4), {"mask": hidden, "tile": 4}, axes=two),
            Probe(
                "a causal mask and a scale of 0.3",
                _qkv(g, 2, n_q=7, n_kv=12, d=5),
                {"mask": causal.repeat(2, 1, 1), "scale": 0.3, "tile": 5},
                axes=("head", "query", "feature"),
            ),
        ]
    return probes + [
        Probe("scores that rise by 40 over four tiles", _rising_keys(g, 6, 16, 8, 40.0), {"tile": 4}, axes=two, diagnose=not masks),
        Probe("4 queries, 60 keys in tiles of 8", _qkv(g, n_q=4, n_kv=60, d=4), {"tile": 8}, axes=two, diagnose=not masks),
        Probe("not contiguous", _qkv(g, 2, n_q=5, n_kv=9, d=4), {"tile": 4}, layout="transposed", axes=("head", "query", "feature"), diagnose=False),
        Probe("the default tile of 64, 70 keys", _qkv(g, n_q=12, n_kv=70, d=8), {}, axes=two, diagnose=False),
        Probe("float64 in, float64 out", _qkv(g, n_q=3, n_kv=10, d=4, dtype=torch.float64), {"tile": 4}, axes=two, diagnose=False),
    ]


def _ones_stay_ones(call, g: torch.Generator) -> str | None:
    q, k, v = _qkv(g, n_q=4, n_kv=10, d=3)
    out = call(q, k, torch.ones_like(v), tile=4)
    apart = (out - 1).abs().max().item()
    return (
        None
        if apart < 1e-5
        else (
            f"with V = 1 everywhere the output must be 1: it is a weighted average. Yours is off by up to {apart:.2g}: the weights do not sum to 1."
        )
    )


def _keys_in_any_order(call, g: torch.Generator) -> str | None:
    q, k, v = _qkv(g, n_q=4, n_kv=11, d=3)
    order = torch.randperm(11, generator=g)
    apart = (call(q, k, v, tile=4) - call(q, k[order], v[order], tile=4)).abs().max().item()
    return (
        None
        if apart < 1e-5
        else (
            f"putting the keys (with their values) in another order changed the output by up to {apart:.2g}; attention is a sum "
            f"over keys, in any order."
        )
    )


ATTENTION_PROPERTIES = (
    Property("values of 1 give outputs of 1", _ones_stay_ones, "weights-do-not-sum-to-one"),
    Property("the order of the keys does not matter", _keys_in_any_order, "depends-on-order"),
)
WHOLE_MATRIX = (
    "That is the matrix of scores, N_Q x N_KV: what tiling is there to avoid. Slice k and v, and let each tile's scores go before the next."
)

_TILED = """def tiled_attention(q, k, v, mask=None, scale=None, tile=64):
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    row_max = q.new_full(q.shape[:-1], -torch.inf)
    row_sum = q.new_zeros(q.shape[:-1])
    acc = torch.zeros_like(q)
    for start in range(0, k.shape[-2], tile):
        scores = q @ k[..., start:start + tile, :].mT * scale
        if mask is not None:
            scores = scores.masked_fill(~mask[..., start:start + tile], -torch.inf)
        new_max = torch.maximum(row_max, scores.amax(-1))
        rescale = torch.exp(row_max - new_max)
        weights = torch.exp(scores - new_max[..., None])
        row_sum = row_sum * rescale + weights.sum(-1)
        acc = acc * rescale[..., None] + weights @ v[..., start:start + tile, :]
        row_max = new_max
    return acc / row_sum[..., None]
"""


def _tiled_pair(id: str, message: str, solution_edit: tuple[str, str], plain_edit: tuple[str, str] | None = None) -> tuple[Mutant, Mutant]:
    """The same mistake with and without the guards for empty rows."""
    old, new = plain_edit or solution_edit
    assert _TILED.count(old) == 1, old
    return Mutant(id, message, edits=(solution_edit,)), Mutant(
        f"{id}-no-guard", message + " (Empty rows are not right yet either.)", body=_TILED.replace(old, new)
    )


TILED_ATTENTION = Check(
    exercise="tiled_attention",
    probes=attention_probes,
    reference=attention,
    baselines=(attention, attention_divided_late, attention_scaled_first, attention_by_exp2, attention_key_by_key),
    properties=ATTENTION_PROPERTIES,
    rules=(
        held(tile_of_attention, "a tile of scores (or of keys)"),
        NARROW_SCORES,
        forbid(ATTENTION_OPS, "The exercise is to build it from matmul, amax, exp and sum, a tile at a time."),
    ),
    mutants=(
        *_tiled_pair(
            "acc-not-rescaled",
            (
                "This is what comes out when `acc` is not rescaled as the maximum grows. Look at what happens to the old `acc` on the "
                "line where `row_max` changes."
            ),
            ("acc = acc * rescale[..., None] + ", "acc = acc + "),
        ),
        *_tiled_pair(
            "sum-not-rescaled",
            "This is what comes out when `row_sum` is not rescaled as the maximum grows, while `acc` is. Both count the same exponentials.",
            ("row_sum = row_sum * rescale + ", "row_sum = row_sum + "),
        ),
        *_tiled_pair(
            "inverted",
            ("The old `acc` and `row_sum` were multiplied by exp(new - old) where exp(old - new) was meant: they grow when they should shrink."),
            ("rescale = torch.exp(row_max - shift)", "rescale = torch.where(row_max == -torch.inf, 0.0, torch.exp(shift - row_max))"),
            ("rescale = torch.exp(row_max - new_max)", "rescale = torch.where(row_max == -torch.inf, 0.0, torch.exp(new_max - row_max))"),
        ),
        Mutant(
            "nothing-rescaled",
            (
                "Neither `row_sum` nor `acc` was rescaled as the maximum grew: they hold terms relative to different maxima. Multiply "
                "both by exp(old maximum - new maximum) before adding."
            ),
            edits=(("acc = acc * rescale[..., None] + ", "acc = acc + "), ("row_sum = row_sum * rescale + ", "row_sum = row_sum + ")),
        ),
        Mutant(
            "nothing-rescaled-no-guard",
            (
                "Neither `row_sum` nor `acc` was rescaled as the maximum grew: they hold terms relative to different maxima. Multiply "
                "both by exp(old maximum - new maximum) before adding. (Empty rows are not right yet either.)"
            ),
            body=_TILED.replace("acc * rescale[..., None] + ", "acc + ").replace("row_sum * rescale + ", "row_sum + "),
        ),
        *_tiled_pair(
            "last-tile-max",
            (
                "This is what comes out when the maximum is the current tile's own, and not the running one: as soon as a tile lies "
                "far below an earlier one, exp(old - new) overflows. Look at how `new_max` is made."
            ),
            ("new_max = torch.maximum(row_max, scores.amax(dim=-1))", "new_max = scores.amax(dim=-1)"),
            ("new_max = torch.maximum(row_max, scores.amax(-1))", "new_max = scores.amax(-1)"),
        ),
        *_tiled_pair(
            "starts-at-zero",
            (
                "The running maximum seems to start at 0: where every score is far below 0, all weights underflow to nothing. Before the first "
                "tile nothing was seen, and the maximum of nothing is -inf."
            ),
            ("row_max = q.new_full(q.shape[:-1], -torch.inf)", "row_max = q.new_zeros(q.shape[:-1])"),
        ),
        Mutant(
            "divides-every-tile",
            (
                "`acc` was divided by row_sum inside the loop, and then added to undivided terms in the next turn. Either divide once "
                "after the last tile, or undo the division first."
            ),
            edits=(
                (
                    "acc = acc * rescale[..., None] + weights @ v[..., keys, :]",
                    ("acc = (acc * rescale[..., None] + weights @ v[..., keys, :]) / torch.where(row_sum == 0, 1.0, row_sum)[..., None]"),
                ),
                ("return acc / torch.where(row_sum == 0, 1.0, row_sum)[..., None]", "return acc"),
            ),
        ),
        Mutant(
            "divides-every-tile-no-guard",
            (
                "`acc` was divided by row_sum inside the loop, and then added to undivided terms in the next turn. Either divide once "
                "after the last tile, or undo the division first. (Empty rows are not right yet either.)"
            ),
            body=_TILED.replace(
                "acc = acc * rescale[..., None] + weights @ v[..., start:start + tile, :]",
                ("acc = (acc * rescale[..., None] + weights @ v[..., start:start + tile, :]) / row_sum[..., None]"),
            ).replace("return acc / row_sum[..., None]", "return acc"),
        ),
        Mutant(
            "averages-tiles",
            (
                "Each tile was turned into attention of its own, and the tiles were averaged. Tiles do not weigh the same: one with "
                "larger scores weighs more. Carry row_max and row_sum across tiles."
            ),
            body="""\
def tiled_attention(q, k, v, mask=None, scale=None, tile=64):
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    parts = []
    for start in range(0, k.shape[-2], tile):
        s = q @ k[..., start:start + tile, :].mT * scale
        if mask is not None:
            s = s.masked_fill(~mask[..., start:start + tile], -torch.inf)
        m = s.amax(-1, keepdim=True)
        e = torch.exp(s - torch.where(m == -torch.inf, 0.0, m))
        z = e.sum(-1, keepdim=True)
        parts.append((e / torch.where(z == 0, 1.0, z)) @ v[..., start:start + tile, :])
    return sum(parts) / len(parts)
""",
        ),
        Mutant(
            "no-divide",
            "The output is a sum, not an average: `acc` was never divided by row_sum. Once, after the last tile.",
            edits=(("return acc / torch.where(row_sum == 0, 1.0, row_sum)[..., None]", "return acc"),),
        ),
        *_tiled_pair(
            "no-scale",
            "The scores were not scaled: with scale=None they are multiplied by 1 / sqrt(D).",
            ("k[..., keys, :].mT * scale", "k[..., keys, :].mT"),
            ("k[..., start:start + tile, :].mT * scale", "k[..., start:start + tile, :].mT"),
        ),
        *_tiled_pair(
            "scale-not-rooted",
            "The scores were divided by D, not by sqrt(D).",
            ("q.shape[-1] ** -0.5 if scale is None", "q.shape[-1] ** -1.0 if scale is None"),
        ),
        *_tiled_pair(
            "scale-ignored",
            "Right with the default scale, wrong with scale=0.3: the argument is not used.",
            ("q.shape[-1] ** -0.5 if scale is None else scale", "q.shape[-1] ** -0.5"),
        ),
        Mutant(
            "mask-ignored",
            "Right without a mask, wrong with one: the mask is not used. A hidden score becomes -inf before the maximum is taken.",
            edits=(("if mask is not None:", "if False:"),),
        ),
        Mutant(
            "mask-by-tiles",
            (
                "Tiles that are hidden as a whole were left out, and in every other tile nothing was hidden. The first saves time; the second is what the "
                "mask asks for: in a tile that is partly hidden, each hidden score becomes -inf."
            ),
            edits=(("scores = scores.masked_fill(~mask[..., keys], -torch.inf)", "if not mask[..., keys].any():\n                continue"),),
        ),
        *_tiled_pair(
            "mask-inverted",
            "The mask was read the wrong way round: True means keep.",
            ("masked_fill(~mask[..., keys], -torch.inf)", "masked_fill(mask[..., keys], -torch.inf)"),
            ("masked_fill(~mask[..., start:start + tile], -torch.inf)", "masked_fill(mask[..., start:start + tile], -torch.inf)"),
        ),
        Mutant(
            "mask-zero",
            "Hidden scores were set to 0. A score of 0 still weighs exp(0 - row_max): only -inf weighs nothing.",
            edits=(("masked_fill(~mask[..., keys], -torch.inf)", "masked_fill(~mask[..., keys], 0.0)"),),
        ),
        Mutant(
            "mask-large-negative",
            (
                "Right, except for rows where every key is hidden: there a large negative number looks like a score shared by all "
                "keys, and the row becomes the mean of V. With -inf it can be told apart, and must give zeros."
            ),
            edits=(("masked_fill(~mask[..., keys], -torch.inf)", "masked_fill(~mask[..., keys], -1e9)"),),
        ),
        *_tiled_pair(
            "tail-dropped",
            (
                "The last, partial tile of keys was never read: the loop stops at the last full tile. N_KV need not be a multiple of "
                "the tile; slices past the end are shorter by themselves."
            ),
            ("for start in range(0, k.shape[-2], tile):", "for start in range(0, max(k.shape[-2] // tile, 1) * tile, tile):"),
        ),
        Mutant(
            "empty-row",
            (
                "Right, except where a row has seen no key: -inf - -inf is NaN while it waits for its first key, and 0 / 0 is NaN at "
                "the end. Guard both: subtract 0 instead of -inf, divide by 1 instead of 0."
            ),
            body=_TILED,
        ),
        Mutant(
            "empty-row-divide",
            "Only rows where every key is hidden are wrong: acc is 0 there, and so is row_sum. What should a sum of 0 be divided by?",
            edits=(("return acc / torch.where(row_sum == 0, 1.0, row_sum)[..., None]", "return acc / row_sum[..., None]"),),
        ),
        Mutant(
            "repaired-at-the-end",
            (
                "Rows that see no key in their first tile are wrong: a NaN arose there (-inf - -inf) and was replaced at the end, together with all "
                "that the row had summed. Keep it from arising: such a row subtracts 0 instead of -inf."
            ),
            body=_TILED.replace("return acc / row_sum[..., None]", "return torch.nan_to_num(acc / row_sum[..., None])"),
        ),
        Mutant(
            "counts-queries",
            "The loop runs over the queries' length instead of the keys': with N_Q and N_KV different, keys are missed.",
            edits=(("range(0, k.shape[-2], tile)", "range(0, q.shape[-2], tile)"),),
        ),
        Mutant(
            "tiles-of-queries",
            (
                "The tiles run over the queries, and each row of scores is still whole. It is the keys that have to come tile by tile: a row is what does "
                "not fit."
            ),
            body="""\
def tiled_attention(q, k, v, mask=None, scale=None, tile=64):
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    out = torch.zeros_like(q)
    for start in range(0, q.shape[-2], tile):
        s = q[..., start:start + tile, :] @ k.mT * scale
        if mask is not None:
            s = s.masked_fill(~mask[..., start:start + tile, :], -torch.inf)
        m = s.amax(-1, keepdim=True)
        e = torch.exp(s - torch.where(m == -torch.inf, 0.0, m))
        z = e.sum(-1, keepdim=True)
        out[..., start:start + tile, :] = (e / torch.where(z == 0, 1.0, z)) @ v
    return out
""",
            rule="whole-rows",
        ),
        Mutant(
            "wide",
            WHOLE_MATRIX,
            body="""\
def tiled_attention(q, k, v, mask=None, scale=None, tile=64):
    s = q @ k.mT * (q.shape[-1] ** -0.5 if scale is None else scale)
    if mask is not None:
        s = s.masked_fill(~mask, -torch.inf)
    m = s.amax(-1, keepdim=True)
    e = torch.exp(s - torch.where(m == -torch.inf, 0.0, m))
    z = e.sum(-1, keepdim=True)
    return (e / torch.where(z == 0, 1.0, z)) @ v
""",
            rule="wide",
        ),
    ),
    right=RIGHT,
)
