"""Grading material: mend_tiled_attention."""

from course_lib.checks.ch03_online_softmax.plain import (
    attention,
    attention_by_exp2,
    attention_divided_late,
    attention_key_by_key,
    attention_old_order,
)
from course_lib.checks.ch03_online_softmax.rules import ATTENTION_OPS, NARROW_SCORES, held, tile_of_attention
from course_lib.checks.ch03_online_softmax.tiled import ATTENTION_PROPERTIES, WHOLE_MATRIX, attention_probes
from course_lib.grading.spec import Check, Mutant, forbid

_MENDED = "out = ((rescale * row_sum)[..., None] * out + weights @ v_tile) / new_sum[..., None]"


def _mend(id: str, message: str, line: str, ending: str | None = None) -> Mutant:
    return Mutant(id, message, edits=((_MENDED, line), *([("return out", ending)] if ending else [])))


MEND_TILED_ATTENTION = Check(
    exercise="mend_tiled_attention",
    probes=lambda g: attention_probes(g, masks=False),
    reference=attention,
    baselines=(attention, attention_divided_late, attention_old_order, attention_by_exp2, attention_key_by_key),
    properties=ATTENTION_PROPERTIES,
    rules=(
        held(tile_of_attention, "a tile of scores (or of keys)"),
        NARROW_SCORES,
        forbid(ATTENTION_OPS, "The exercise is to mend the loop, not to replace it."),
    ),
    mutants=(
        _mend(
            "not-mended",
            (
                "This is the loop as it was given: right for one tile, wrong from the second on. At the end of a turn, is `out` a sum "
                "or already an average? And at the start of the next, what is added to it?"
            ),
            "out = (rescale[..., None] * out + weights @ v_tile) / new_sum[..., None]",
        ),
        _mend(
            "never-divided",
            ("`out` is now a sum all along, and nobody divides it. Taking the division out of the loop was half of the mend: where does it go?"),
            "out = rescale[..., None] * out + weights @ v_tile",
        ),
        _mend(
            "divided-twice",
            "`out` is divided in every turn and once more at the end. One of the two is enough.",
            _MENDED,
            "return out / row_sum[..., None]",
        ),
        _mend(
            "undone-with-the-new-sum",
            (
                "The division was undone with the new sum. The old `out` was divided by the old one: `row_sum`, which the last line of "
                "the loop has not replaced yet."
            ),
            "out = ((rescale * new_sum)[..., None] * out + weights @ v_tile) / new_sum[..., None]",
        ),
        _mend(
            "rescale-lost",
            (
                "The division was undone, and the rescaling lost on the way: the old terms are still relative to the old maximum. The "
                "old `out` needs both factors."
            ),
            "out = (row_sum[..., None] * out + weights @ v_tile) / new_sum[..., None]",
        ),
        _mend(
            "rescales-new-terms",
            "The new tile's terms were rescaled as well. They are already relative to the new maximum.",
            "out = (rescale * row_sum)[..., None] * (out + weights @ v_tile) / new_sum[..., None]",
        ),
        _mend(
            "only-new-divided",
            "Only the new terms are divided, the old ones are not: the two no longer share a denominator.",
            "out = (rescale * row_sum)[..., None] * out + (weights @ v_tile) / new_sum[..., None]",
        ),
        Mutant(
            "wide",
            WHOLE_MATRIX,
            body="""\
def mend_tiled_attention(q, k, v, tile=64):
    s = q @ k.mT / q.shape[-1] ** 0.5
    e = torch.exp(s - s.amax(-1, keepdim=True))
    return (e / e.sum(-1, keepdim=True)) @ v
""",
            rule="wide",
        ),
    ),
    right=(
        """\
def mend_tiled_attention(q, k, v, tile=64):
    m = q.new_full(q.shape[:-1], -torch.inf)
    l = q.new_zeros(q.shape[:-1])
    out = torch.zeros_like(q)
    for start in range(0, k.shape[-2], tile):
        s = q @ k[..., start:start + tile, :].mT / q.shape[-1] ** 0.5
        new = torch.maximum(m, s.amax(-1))
        a, p = torch.exp(m - new), torch.exp(s - new[..., None])
        l = a * l + p.sum(-1)
        out = a[..., None] * out + p @ v[..., start:start + tile, :]
        m = new
    return out / l[..., None]
""",
        """\
def mend_tiled_attention(q, k, v, tile=64):
    m = q.new_full(q.shape[:-1], -torch.inf)
    l = q.new_zeros(q.shape[:-1])
    out = torch.zeros_like(q)
    for start in range(0, k.shape[-2], tile):
        s = q @ k[..., start:start + tile, :].mT / q.shape[-1] ** 0.5
        new = torch.maximum(m, s.amax(-1))
        a, p = torch.exp(m - new), torch.exp(s - new[..., None])
        total = a * l + p.sum(-1)
        share = (a * l / total)[..., None]
        out = share * out + (p / total[..., None]) @ v[..., start:start + tile, :]
        m, l = new, total
    return out
""",
        """\
from course_lib.earlier import tiled_attention

def mend_tiled_attention(q, k, v, tile=64):
    return tiled_attention(q, k, v, tile=tile)
""",
    ),
)
