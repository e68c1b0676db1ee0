"""Grading material: sample_token. What is compared is the law: how often each token comes as u runs through an even grid."""

from pathlib import Path

import torch
from torch import Tensor

from course_lib.checks.ch08_kv_cache.inputs import normal
from course_lib.checks.ch08_kv_cache.sampling_right import RIGHT
from course_lib.grading.spec import Check, Mutant, Probe, Property, forbid

HARNESS = Path(__file__).with_name("sampling_harness.py").read_text(encoding="utf-8")
GRID = 160
U = ((torch.arange(GRID) + 0.5) / GRID).roll(-int(0.7 * GRID))  # begins in the middle: whoever uses one u for all shows
_OWN = (
    "multinomial",
    "rand",
    "rand_like",
    "randn",
    "randn_like",
    "bernoulli",
    "exponential",
    "uniform",
    "geometric",
    "randint",
    "randperm",
    "normal",
)


def exact_law(logits: Tensor, temperature: float = 1.0, top_k: int | None = None, top_p: float = 1.0) -> Tensor:
    """[R, V]: the definition, a row at a time."""
    law = torch.zeros_like(logits)
    for row, scores in zip(law, logits, strict=True):
        if temperature == 0:
            row[scores.argmax()] = 1
            continue
        scores = scores / temperature
        if top_k is not None and top_k < len(scores):
            scores = scores.masked_fill(scores < scores.sort(descending=True).values[top_k - 1], -torch.inf)
        probs, total = torch.softmax(scores, dim=0), 0.0
        for token in probs.argsort(descending=True, stable=True).tolist():
            if probs[token] == 0 or (total >= top_p and total > 0):
                break
            row[token] = probs[token]
            total += float(probs[token])
        row /= row.sum()
    return law


def law(logits: Tensor, u: Tensor, temperature: float = 1.0, top_k: int | None = None, top_p: float = 1.0, edges: bool = False):
    return f"int64 [{len(logits) * len(u)}]", exact_law(logits, temperature, top_k, top_p)


def _drawn(order):
    """The law of drawing in that order, on the grid: order(probs [V]) -> ids."""

    def way(logits: Tensor, u: Tensor, temperature: float = 1.0, top_k: int | None = None, top_p: float = 1.0, edges: bool = False):
        form, laws = law(logits.float(), u, temperature, top_k, top_p)
        out = torch.zeros_like(laws)
        for row, probs in zip(out, laws, strict=True):
            ids = order(probs)
            running = probs[ids].cumsum(0)
            place = torch.searchsorted(running / running[-1], u.float(), right=True).clamp(max=len(ids) - 1)
            row += torch.bincount(ids[place], minlength=len(probs)) / len(u)
        return form, out

    return way


def one_more_or_less(logits: Tensor, u: Tensor, temperature: float = 1.0, top_k: int | None = None, top_p: float = 1.0, edges: bool = False):
    """Where a token's share of the grid begins decides whether it comes once more: any order is right."""
    form, laws = law(logits.float(), u, temperature, top_k, top_p)
    return form, torch.where((laws > 0) & (laws < 1), laws + 1 / len(u), laws)


def _logits(*probabilities: float) -> Tensor:
    return torch.tensor(probabilities).log()[None]


def _shuffled(g: torch.Generator, *rows: tuple[float, ...]) -> Tensor:
    """Logits of rows of weights, each row in an order of its own, shifted by a number of its own."""
    out = torch.stack([torch.tensor(row).log()[torch.randperm(len(row), generator=g)] for row in rows])
    return out + 3 * normal(g, len(rows), 1)


_TEN = (0.30, 0.22, 0.15, 0.11, 0.08, 0.055, 0.04, 0.025, 0.013, 0.007)
_STEEP, _FLAT = (0.62, 0.17, 0.09, 0.05, 0.03, 0.02, 0.012, 0.008), (0.21, 0.18, 0.15, 0.13, 0.11, 0.09, 0.07, 0.06)


def _probes(g: torch.Generator) -> list[Probe]:
    tied = torch.tensor([[0.5, 2.0, 1.0, 2.0, 1.0, -1.0, 1.0]])
    hidden = _shuffled(g, _FLAT)
    hidden[0, :2] = -torch.inf
    axes = ("row", "token")
    return [
        Probe("the statement's example", (_logits(0.5, 0.3, 0.2), U), {"top_p": 0.6}, axes=axes),
        Probe("no cuts, two rows, temperature 1", (_shuffled(g, _STEEP, _FLAT), U), axes=axes),
        Probe(
            "temperature 0.6, top_k 4, top_p 0.75, two rows",
            (_shuffled(g, _STEEP, _FLAT), U),
            {"temperature": 0.6, "top_k": 4, "top_p": 0.75},
            axes=axes,
        ),
        Probe("temperature 2, top_k 5, two rows", (_shuffled(g, _STEEP, _FLAT), U), {"temperature": 2.0, "top_k": 5}, axes=axes),
        Probe("temperature 0: the largest logit, two of them equal", (tied, U), {"temperature": 0.0}, axes=axes),
        Probe("top_k 3, three logits equal the third", (tied, U), {"top_k": 3}, axes=axes),
        Probe("top_k 1", (_shuffled(g, _FLAT, _FLAT), U), {"top_k": 1}, axes=axes, diagnose=False),
        Probe("top_p smaller than the largest probability", (_shuffled(g, _STEEP), U), {"top_p": 0.1}, axes=axes, diagnose=False),
        Probe("top_k above the vocabulary", (_shuffled(g, _TEN), U), {"top_k": 50}, axes=axes, diagnose=False),
        Probe("hidden tokens", (hidden, U), {"temperature": 1.3}, axes=axes, diagnose=False),
        Probe("temperature 0.25, three rows", (_shuffled(g, _TEN, _TEN, _TEN), U), {"temperature": 0.25}, axes=axes, diagnose=False),
        Probe(
            "temperature 5 on large logits, top_p 0.9",
            (400 + 10 * _shuffled(g, _STEEP), U),
            {"temperature": 5.0, "top_p": 0.9},
            axes=axes,
            diagnose=False,
        ),
    ]


def _kept_at(u: float, name: str) -> Property:
    """For this u every row gives a token that may come."""

    def holds(call, g: torch.Generator) -> str | None:
        logits = normal(g, 64, 50)
        logits[:, [0, -1]] = -torch.inf
        for given in ({}, {"top_k": 40}, {"top_p": 0.8, "temperature": 0.7}):
            chosen = call(logits, torch.tensor([u]), edges=True, **given).view(64)
            allowed = exact_law(logits.double(), **given) > 0
            wrong = (chosen < 0) | (chosen >= 50) | ~allowed.gather(1, chosen.clamp(0, 49)[:, None])[:, 0]
            if bool(wrong.any()):
                settings = ", ".join(f"{key} {value}" for key, value in given.items()) or "no cuts"
                return f"for u = {name} the token {int(chosen[wrong][0])} came, which has probability 0 ({settings})."
        return None

    return Property(f"u = {name} gives a token that may come", holds, "edges")


def _by_id(cuts: str, place: str = "(running <= u[:, None] * running[:, -1:])") -> str:
    """A sampler in the order of ids, out of its parts."""
    return (
        "def sample_token(logits, u, temperature=1.0, top_k=None, top_p=1.0):\n    if temperature == 0:\n        return logits.argmax(-1)\n"
        f"{cuts}    running = probs.cumsum(-1)\n    return {place}.sum(-1).clamp(max=logits.shape[-1] - 1)\n"
    )


_TOP_K = (
    "    scores = {scores}\n    if top_k is not None and top_k < scores.shape[-1]:\n"
    "        scores = scores.masked_fill(scores < scores.topk(top_k).values[:, -1:], -torch.inf)\n"
)
_TOP_P = (
    "    probs = {probs}\n    down, ids = probs.sort(-1, descending=True)\n    before = down.cumsum(-1) - down\n"
    "    probs = {target}.masked_fill(torch.zeros_like(before, dtype=torch.bool).scatter(-1, ids, (before >= top_p) & (before > 0)), 0.0)\n"
)
_CROSSING = "(before >= top_p) & (before > 0)"

SAMPLE_TOKEN = Check(
    exercise="sample_token",
    probes=_probes,
    reference=law,
    baselines=(
        _drawn(lambda probs: torch.arange(len(probs))),
        _drawn(lambda probs: probs.argsort(descending=True)),
        _drawn(lambda probs: probs.argsort()),
        one_more_or_less,
    ),
    properties=(_kept_at(0.0, "0"), _kept_at(1 - 2**-24, "the largest number below 1")),
    rules=(forbid(_OWN, "The random number is the argument u: turn it into a token."),),
    harness=HARNESS,
    returns="a tensor of token ids; how often each comes is (form, law)",
    mutants=(
        Mutant(
            "crossing-dropped",
            "The token that crosses top_p was dropped: what is kept sums to less than top_p. Keep a token while the sum *before* it is below top_p.",
            edits=((_CROSSING, "(before + probs > top_p) & (before > 0)"),),
        ),
        Mutant(
            "crossing-dropped-all",
            "Only tokens whose running sum stays within top_p were kept: the one that crosses it is missing, and where the first alone crosses it nothing is "
            "left. Keep a token while the sum *before* it is below top_p.",
            edits=((_CROSSING, "before + probs > top_p"),),
        ),
        Mutant(
            "sorted-upwards",
            "The tokens were sorted upwards: top_p kept the least probable first, and so nearly all of them. Most probable first: descending=True.",
            edits=((".sort(dim=-1, descending=True)", ".sort(dim=-1)"),),
        ),
        Mutant(
            "one-too-many",
            "One token too many was kept: the one after the token that crosses top_p. Once the sum has reached top_p, stop.",
            edits=((_CROSSING, "(before - probs.roll(1, -1) >= top_p) & (torch.arange(probs.shape[-1]) > 1)"),),
        ),
        Mutant(
            "not-renormalised",
            "What is left after the cut does not sum to 1, and u was compared with it as if it did: the rest of the draws all fell on the last token. Divide by "
            "what is left, or stretch u.",
            edits=(("u[:, None] * running[:, -1:]", "u[:, None]"),),
        ),
        Mutant(
            "top-p-before-temperature",
            "top_p was applied to the probabilities at temperature 1, and the temperature after it. The order is temperature, then top_k, then top_p: each looks at "
            "what the one before has left.",
            body=_by_id(
                _TOP_K.format(scores="logits / temperature")
                + _TOP_P.format(probs="torch.where(scores.isinf(), -torch.inf, logits).softmax(-1)", target="scores.softmax(-1)")
            ),
        ),
        Mutant(
            "top-p-before-top-k",
            "top_p looked at the probabilities of all tokens, those that top_k had thrown out included. After top_k the rest is a distribution again: renormalise "
            "it, then cut at top_p.",
            body=_by_id(
                _TOP_K.format(scores="logits / temperature") + _TOP_P.format(probs="(logits / temperature).softmax(-1)", target="scores.softmax(-1)")
            ),
        ),
        Mutant(
            "top-p-then-exactly-k",
            "top_p looked at the probabilities of all tokens, and top_k then cut the sorted list. First top_k, with all that equal the k-th largest; what it "
            "leaves is renormalised; top_p cuts that.",
            body="def sample_token(logits, u, temperature=1.0, top_k=None, top_p=1.0):\n    if temperature == 0:\n        return logits.argmax(-1)\n"
            "    probs, ids = (logits / temperature).softmax(-1).sort(-1, descending=True)\n    before = probs.cumsum(-1) - probs\n"
            "    probs = probs.masked_fill((before >= top_p) & (before > 0), 0.0)\n    if top_k is not None:\n        probs[:, top_k:] = 0.0\n"
            "    running = probs.cumsum(-1)\n    place = (running <= u[:, None] * running[:, -1:]).sum(-1)\n"
            "    return ids.gather(-1, torch.minimum(place, (probs > 0).sum(-1) - 1)[:, None])[:, 0]\n",
        ),
        Mutant(
            "logits-changed",
            "`logits` was changed in place (`/=` does that): whoever calls this may still need it. Make a new tensor.",
            edits=(("scores = logits / temperature", "scores = logits.div_(temperature)"),),
        ),
        Mutant(
            "int32",
            "Token ids are int64 in torch: that is what an embedding and `gather` take.",
            edits=(("torch.minimum(place, last))[:, 0]", "torch.minimum(place, last))[:, 0].int()"),),
        ),
        Mutant(
            "temperature-multiplied",
            "The logits were multiplied by the temperature. They are divided: a temperature above 1 makes the distribution flatter.",
            edits=(("logits / temperature", "logits * temperature"),),
        ),
        Mutant(
            "temperature-on-probabilities",
            "The probabilities were divided by the temperature, which changes nothing once they are renormalised. Divide the logits, before the softmax.",
            edits=(("logits / temperature", "logits"),),
        ),
        Mutant(
            "temperature-0-is-1",
            "Right but for temperature 0: it means the largest logit, always, and was taken for no temperature at all.",
            edits=(("        return logits.argmax(dim=-1)", "        temperature = 1.0"),),
        ),
        Mutant(
            "temperature-0-last-of-equals",
            "Of equal largest logits the last was chosen at temperature 0. The first is asked for, as argmax does.",
            edits=(("return logits.argmax(dim=-1)", "return logits.shape[-1] - 1 - logits.flip(-1).argmax(dim=-1)"),),
        ),
        Mutant(
            "always-greedy",
            "The most probable token came, whatever u was: that is greedy decoding, temperature 0.",
            edits=(("if temperature == 0:", "if True:"),),
        ),
        Mutant(
            "top-k-ignored",
            "Right without top_k; with it, tokens beyond the k largest came.",
            edits=(("if top_k is not None and top_k <", "if False and top_k <"),),
        ),
        Mutant(
            "top-p-ignored",
            "Right without top_p; with it, the tail still came.",
            edits=(("probs = probs.masked_fill(" + _CROSSING + ", 0.0)", "pass"),),
        ),
        Mutant(
            "cuts-ignored",
            "Neither top_k nor top_p cut anything: the temperature works, and then every token can still come.",
            edits=(
                ("if top_k is not None and top_k <", "if False and top_k <"),
                ("probs = probs.masked_fill(" + _CROSSING + ", 0.0)", "pass"),
            ),
        ),
        Mutant(
            "top-k-one-too-many",
            "One token more than top_k was kept: the boundary is the k-th largest, counted from 1.",
            edits=(("scores.topk(top_k, dim=-1)", "scores.topk(min(top_k + 1, scores.shape[-1]), dim=-1)"),),
        ),
        Mutant(
            "top-k-one-too-few",
            "One token fewer than top_k was kept: the k-th largest stays as well (compare with <, not <=).",
            edits=(("scores < least", "(scores <= least) & (scores < scores.amax(-1, keepdim=True))"),),
        ),
        Mutant(
            "top-k-cuts-ties",
            "Right but for equals: logits that equal the k-th largest stay too, and exactly k were kept.",
            edits=(
                (
                    "scores.masked_fill(scores < least, -torch.inf)",
                    "torch.full_like(scores, -torch.inf).scatter(-1, *scores.topk(top_k, dim=-1)[::-1])",
                ),
            ),
        ),
        Mutant(
            "top-k-zeroed",
            "The logits beyond top_k were set to 0, and exp(0) is 1: they still come. Only -inf never comes.",
            edits=(("scores < least, -torch.inf", "scores < least, 0.0"),),
        ),
        Mutant(
            "top-k-of-the-batch",
            "One smallest kept logit was used for all rows. Each row has its own k largest.",
            edits=((".values[:, -1:]", ".values[:, -1:].amin(0, keepdim=True)"),),
        ),
        Mutant(
            "places-for-ids",
            "What came back is a place in the sorted order, not a token: 0 is the most probable one, whichever that is. Look up which id stands there.",
            edits=(("ids.gather(-1, torch.minimum(place, last))[:, 0]", "torch.minimum(place, last)[:, 0]"),),
        ),
        Mutant(
            "one-u-for-all",
            "The first u was used for every row. Each row has a draw of its own.",
            edits=(("u[:, None] *", "u[:1, None] *"),),
        ),
        Mutant(
            "uniform-among-the-kept",
            "Every kept token came equally often. u has to be compared with running sums of probabilities, not with counts.",
            edits=(("running = probs.cumsum(dim=-1)", "running = (probs > 0).float().cumsum(dim=-1)"),),
        ),
        Mutant(
            "no-softmax",
            "Logits were taken for probabilities. The softmax turns differences of logits into ratios of probabilities.",
            edits=(("scores.softmax(dim=-1).sort", "scores.exp().clamp(max=1.0).sort"),),
        ),
        Mutant(
            "own-draws",
            "Asked twice with the same u, it gave different tokens: it draws numbers of its own. The random number is an argument here.",
            edits=(("place = (running <= u[:, None] * running[:, -1:])", "place = (running <= torch.rand_like(u)[:, None] * running[:, -1:])"),),
        ),
        Mutant(
            "a-column",
            "One token a row is asked for, [B]: gather with a column of places gives a column.",
            edits=(("torch.minimum(place, last))[:, 0]", "torch.minimum(place, last))"),),
        ),
        Mutant(
            "u-of-zero",
            "Tokens with probability 0 in front of the first real one come for u = 0: a running sum of 0 is not *below* 0. Count the sums that are <= u, not < u.",
            body=_by_id(
                _TOP_K.format(scores="logits / temperature") + _TOP_P.format(probs="scores.softmax(-1)", target="probs"),
                "(running < u[:, None] * running[:, -1:])",
            ),
        ),
        Mutant(
            "u-near-one",
            "Rounding: the last running sum can be a little below 1, and a u above it walks past every token that may come. Compare with u times the last running "
            "sum, or stop at the last kept token.",
            body=_by_id(
                _TOP_K.format(scores="logits / temperature")
                + _TOP_P.format(probs="scores.softmax(-1)", target="probs")
                + "    probs = probs / probs.sum(-1, keepdim=True)\n",
                "(running <= u[:, None])",
            ),
        ),
    ),
    right=RIGHT,
    seconds=12.0,
)
