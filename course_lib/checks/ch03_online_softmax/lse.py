"""Grading material: logsumexp_over_tiles."""

from course_lib.checks.ch03_online_softmax.loops import loop, loop_mutants, tile_probes, two_walks
from course_lib.checks.ch03_online_softmax.plain import lse, lse_by_hand, lse_by_single_scores
from course_lib.checks.ch03_online_softmax.rules import ONE_TILE, SOFTMAX_OPS, TILES_LET_GO
from course_lib.grading.spec import Check, Mutant, forbid

_LSE_LOOP = "row_max + torch.log(row_sum)"


def _lse_body(result: str) -> str:
    return loop("logsumexp_over_tiles", result)


LOGSUMEXP_OVER_TILES = Check(
    exercise="logsumexp_over_tiles",
    probes=tile_probes,
    reference=lse,
    baselines=(lse, lse_by_hand, lse_by_single_scores),
    rules=(ONE_TILE, TILES_LET_GO, forbid((*SOFTMAX_OPS, "logaddexp", "logcumsumexp"), "The exercise is to build it from amax, exp, sum and log.")),
    mutants=(
        Mutant(
            "max-not-added",
            (
                "The maximum was not added back: this is log(sum(exp(score - row_max))). What does subtracting row_max inside the "
                "exponential do to the logarithm of the sum?"
            ),
            body=_lse_body("torch.log(row_sum)"),
        ),
        Mutant(
            "base-two",
            "The logarithm has base 2. The course stores natural logarithms: log2(x) = log(x) / log(2).",
            body=_lse_body("row_max + torch.log2(row_sum)"),
        ),
        Mutant(
            "log1p",
            "This is row_max + log(1 + row_sum): `log1p` adds a 1 that is already in the sum, since the largest score contributes exp(0).",
            body=_lse_body("row_max + torch.log1p(row_sum)"),
        ),
        Mutant(
            "log-of-all",
            "This is log(row_max + row_sum). The maximum belongs outside: log(exp(row_max) * row_sum) = row_max + log(row_sum).",
            body=_lse_body("torch.log(row_max + row_sum)"),
        ),
        Mutant(
            "sum-of-logs",
            (
                "This is the sum of the tiles' log-sum-exps. Logarithms of sums do not add: the sums do. Keep (row_max, row_sum) "
                "across tiles and take the logarithm once."
            ),
            body="""\
def logsumexp_over_tiles(tiles):
    total = 0
    for tile in tiles:
        row_max = tile.amax(-1)
        shift = torch.where(row_max == -torch.inf, 0.0, row_max)
        total = total + shift + torch.log(torch.exp(tile - shift[..., None]).sum(-1))
    return total
""",
        ),
        Mutant(
            "no-max",
            (
                "This is what comes out when `exp` gets the scores as they are: it overflows for large scores and loses small ones "
                "entirely. Carry the running maximum along."
            ),
            body="""\
def logsumexp_over_tiles(tiles):
    row_sum = 0
    for tile in tiles:
        row_sum = row_sum + torch.exp(tile).sum(-1)
    return torch.log(row_sum)
""",
        ),
        *loop_mutants(
            "logsumexp_over_tiles",
            _LSE_LOOP,
            """\
def logsumexp_over_tiles(tiles):
    x = torch.cat(list(tiles), dim=-1)
    row_max = x.amax(-1)
    shift = torch.where(row_max == -torch.inf, 0.0, row_max)
    return row_max + torch.log(torch.exp(x - shift[..., None]).sum(-1))
""",
            two_walks("logsumexp_over_tiles", _LSE_LOOP),
        ),
    ),
    right=(
        """\
def logsumexp_over_tiles(tiles):
    out = None
    for t in tiles:
        m = t.max(-1).values.nan_to_num(neginf=0.0)
        lse = m + (t - m.unsqueeze(-1)).exp().sum(-1).log()
        if out is None:
            out = lse
        else:
            hi, lo = torch.maximum(out, lse), torch.minimum(out, lse)
            out = torch.where(hi.isneginf(), hi, hi + torch.log1p(torch.exp(lo - hi)))
    return out
""",
        """\
from course_lib.earlier import online_normalizer

def logsumexp_over_tiles(tiles):
    row_max, row_sum = online_normalizer(tiles)
    return row_max + row_sum.log()
""",
        """\
def logsumexp_over_tiles(tiles):
    m = s = None
    for t in tiles:
        tm = t.amax(-1)
        new = tm if m is None else torch.maximum(m, tm)
        ref = new.masked_fill(new == -torch.inf, 0.0)
        part = torch.exp(t - ref[..., None]).sum(-1)
        s = part if m is None else s * torch.exp(m - ref) + part
        m = new
    return torch.where(s > 0, m + torch.log(s.clamp_min(1e-38)), torch.full_like(s, float('-inf')))
""",
    ),
)
