"""Grading material: attend_with_cache. The harness keeps the caches it hands over, so that what was written is compared slot by slot."""

from dataclasses import replace

import torch
from torch import Tensor

from course_lib.checks.ch08_kv_cache.attending_right import RIGHT
from course_lib.checks.ch08_kv_cache.inputs import HEADS, normal, stale_cache
from course_lib.grading.spec import Check, Mutant, Probe

HARNESS = '''\
import torch

def run(subject, q, k_new, v_new, k_cache, v_cache, lengths):
    """(raised, out, k_cache, v_cache): the caches as the answer left them; where it raised, out is zeros.

    Where the tokens do not fit, any error is told by its name; elsewhere only a ValueError is, and others come through.
    """
    k, v = k_cache.clone(), v_cache.clone()
    try:
        out = subject(q, k_new, v_new, k, v, lengths)
    except Exception as error:
        if not isinstance(error, ValueError) and int(lengths.max()) + q.shape[2] <= k.shape[2]:
            raise
        return "ValueError" if isinstance(error, ValueError) else type(error).__name__, torch.zeros_like(q), k, v
    return ("nothing", out, k, v) if isinstance(out, torch.Tensor) else out
'''

Seen = tuple[str, Tensor, Tensor, Tensor]


def one_sequence_at_a_time(q: Tensor, k_new: Tensor, v_new: Tensor, k_cache: Tensor, v_cache: Tensor, lengths: Tensor) -> Seen:
    """The definition: every sequence, head and token by itself."""
    (B, H, N, D), (H_KV, N_MAX) = q.shape, k_cache.shape[1:3]
    k, v, out = k_cache.clone(), v_cache.clone(), torch.zeros_like(q)
    if int(lengths.max()) + N > N_MAX:
        return "ValueError", out, k, v
    for b in range(B):
        held = int(lengths[b])
        k[b, :, held : held + N], v[b, :, held : held + N] = k_new[b], v_new[b]
        for h in range(H):
            source = h // (H // H_KV)
            for i in range(N):
                seen = held + i + 1
                weights = torch.softmax(k[b, source, :seen] @ q[b, h, i] / D**0.5, dim=-1)
                out[b, h, i] = weights @ v[b, source, :seen]
    return "nothing", out, k, v


def _written(k_new: Tensor, v_new: Tensor, k_cache: Tensor, v_cache: Tensor, lengths: Tensor) -> tuple[str, Tensor, Tensor]:
    k, v, N = k_cache.clone(), v_cache.clone(), k_new.shape[2]
    if int(lengths.max()) + N > k.shape[2]:
        return "ValueError", k, v
    for b, held in enumerate(lengths.tolist()):
        k[b, :, held : held + N], v[b, :, held : held + N] = k_new[b], v_new[b]
    return "nothing", k, v


def masked_at_once(q: Tensor, k_new: Tensor, v_new: Tensor, k_cache: Tensor, v_cache: Tensor, lengths: Tensor) -> Seen:
    raised, k, v = _written(k_new, v_new, k_cache, v_cache, lengths)
    if raised != "nothing":
        return raised, torch.zeros_like(q), k, v
    group, (N, D), N_MAX = q.shape[1] // k.shape[1], q.shape[2:], k.shape[2]
    keep = torch.arange(N_MAX) <= (lengths[:, None] + torch.arange(N))[:, None, :, None]
    scores = (q @ k.repeat_interleave(group, 1).mT) * D**-0.5
    return "nothing", torch.softmax(scores.masked_fill(~keep, -torch.inf), dim=-1) @ v.repeat_interleave(group, 1), k, v


def by_exponentials(q: Tensor, k_new: Tensor, v_new: Tensor, k_cache: Tensor, v_cache: Tensor, lengths: Tensor) -> Seen:
    """Scale first, exponentials by hand, divide last, a sequence at a time."""
    raised, k, v = _written(k_new, v_new, k_cache, v_cache, lengths)
    if raised != "nothing":
        return raised, torch.zeros_like(q), k, v
    outs, group, (N, D) = [], q.shape[1] // k.shape[1], q.shape[2:]
    for b, held in enumerate(lengths.tolist()):
        seen = held + N
        scores = (q[b] * D**-0.5) @ k[b, :, :seen].repeat_interleave(group, 0).mT
        scores = scores.masked_fill(torch.ones(N, seen, dtype=torch.bool).triu(held + 1), -torch.inf)
        weights = torch.exp(scores - scores.amax(dim=-1, keepdim=True))
        outs.append(weights @ v[b, :, :seen].repeat_interleave(group, 0) / weights.sum(dim=-1, keepdim=True))
    return "nothing", torch.stack(outs), k, v


def _call(g: torch.Generator, heads: int, kv: int, n: int, d: int, n_max: int, lengths: list[int], dtype: torch.dtype = torch.float32) -> tuple:
    held = torch.tensor(lengths, dtype=torch.int32)
    k, v = stale_cache(g, held, kv, n_max, d, dtype)
    v_new = normal(g, len(lengths), kv, n, d) + 4 * torch.arange(kv)[:, None, None]
    return 2 * normal(g, len(lengths), heads, n, d, dtype=dtype), normal(g, len(lengths), kv, n, d, dtype=dtype), v_new.to(dtype), k, v, held


def _probes(g: torch.Generator) -> list[Probe]:
    probes = [
        Probe("one head, one new token behind 3", _call(g, 1, 1, 1, 4, 6, [3])),
        Probe("prefill: 4 tokens into an empty cache", _call(g, 2, 2, 4, 4, 9, [0])),
        Probe("one token each; 6 query heads on 2 K/V heads; lengths 5, 0, 8", _call(g, 6, 2, 1, 8, 11, [5, 0, 8])),
        Probe("3 tokens behind lengths 2 and 6; 4 query heads on 2; D = 5", _call(g, 4, 2, 3, 5, 13, [2, 6])),
        Probe("the last slot is filled", _call(g, 4, 4, 2, 4, 8, [1, 6])),
        Probe("one token too many for sequence 1", _call(g, 2, 1, 2, 4, 7, [1, 6]), diagnose=False),
        Probe("4 query heads on 1 K/V head, lengths 9, 1, 4, 0", _call(g, 4, 1, 2, 8, 12, [9, 1, 4, 0]), diagnose=False),
        Probe("a whole prompt fills the cache", _call(g, 2, 2, 5, 4, 5, [0, 0]), diagnose=False),
        Probe("not contiguous", _call(g, 4, 2, 2, 4, 9, [3, 5]), layout="transposed", diagnose=False),
        Probe("float16, lengths 3 and 4", _call(g, 4, 2, 1, 16, 8, [3, 4], torch.float16), diagnose=False),
        Probe("long: 120 tokens held", _call(g, 8, 2, 1, 32, 160, [120, 77]), diagnose=False),
    ]
    return [replace(probe, axes=HEADS) for probe in probes]


_STORE_K, _STORE_V = "k_cache[rows, :, slots] = k_new.transpose(1, 2)", "v_cache[rows, :, slots] = v_new.transpose(1, 2)"
_KEEP = "<= slots[:, None, None, :, None]"
_REFUSE = "if int(slots.max()) >= N_MAX:"
_SEEN = "scores.masked_fill(~keep, -torch.inf)"

_UNMASKED = """\
def attend_with_cache(q, k_new, v_new, k_cache, v_cache, lengths):
    end = int(lengths[0]) + q.shape[2]
    if int(lengths.max()) + q.shape[2] > k_cache.shape[2]:
        raise ValueError("full")
    k_cache[:, :, int(lengths[0]) : end], v_cache[:, :, int(lengths[0]) : end] = k_new, v_new
    group = q.shape[1] // k_cache.shape[1]
    scores = q @ k_cache[:, :, :end].repeat_interleave(group, 1).mT / q.shape[-1] ** 0.5
    return scores.softmax(-1) @ v_cache[:, :, :end].repeat_interleave(group, 1)
"""

# The plainest way to write it: a loop over sequences, slices of the cache, one mask. The holes are where the mistakes go.
_BY_SLICES = """\
def attend_with_cache(q, k_new, v_new, k_cache, v_cache, lengths):
    N, N_MAX, group = q.shape[2], k_cache.shape[2], q.shape[1] // k_cache.shape[1]
{refuse}    for b in range(len(lengths)):
        at = {at}
        k_cache[b, :, at : at + N] = k_new[b]
        v_cache[b, :, at : at + N] = v_new[b]
    keep = torch.arange(N_MAX) <= (lengths[:, None] + torch.arange(N))[:, None, :, None]
    scores = q @ k_cache.repeat_interleave(group, 1).mT / q.shape[-1] ** 0.5
    return scores.masked_fill(~keep, -torch.inf).softmax(-1) @ v_cache.repeat_interleave(group, 1)
"""
_CHECKED = "    if int(lengths.max()) + N > N_MAX:\n        raise ValueError('full')\n"

ATTEND_WITH_CACHE = Check(
    exercise="attend_with_cache",
    probes=_probes,
    reference=one_sequence_at_a_time,
    baselines=(one_sequence_at_a_time, masked_at_once, by_exponentials),
    harness=HARNESS,
    returns="a tensor, beside the caches as they are then (raised, out, k_cache, v_cache)",
    mutants=(
        Mutant(
            "one-slot-too-far",
            "The new tokens were written one slot too far. With lengths[b] tokens in slots 0 to lengths[b] - 1, the next free slot is lengths[b].",
            edits=(
                ("k_cache[rows, :, slots] =", "k_cache[rows, :, (slots + 1).clamp(max=N_MAX - 1)] ="),
                ("v_cache[rows, :, slots] =", "v_cache[rows, :, (slots + 1).clamp(max=N_MAX - 1)] ="),
            ),
        ),
        Mutant(
            "slices-one-slot-too-far",
            "The slices begin one slot too far. With lengths[b] tokens in slots 0 to lengths[b] - 1, the next free slot is lengths[b] itself.",
            body=_BY_SLICES.format(refuse=_CHECKED, at="int(lengths[b]) + 1"),
        ),
        Mutant(
            "written-at-the-first-length",
            "Every sequence's new tokens were written behind sequence 0's length; the mask has each one's own. `lengths` holds one number a sequence, for "
            "writing as for reading.",
            body=_BY_SLICES.format(refuse=_CHECKED, at="int(lengths[0])"),
        ),
        Mutant(
            "one-slot-too-early",
            "The last token that was there has been overwritten: the new ones begin one slot too early. Slots 0 to lengths[b] - 1 are taken.",
            edits=(
                (
                    "slots = lengths[:, None].long() + torch.arange(N, device=q.device)",
                    "slots = (lengths[:, None].long() - 1).clamp(min=0) + torch.arange(N, device=q.device)",
                ),
            ),
        ),
        Mutant(
            "all-at-the-longest",
            "Every sequence's new tokens were written behind the longest one. Lengths differ: each sequence has its own next slot.",
            edits=(
                (
                    "k_cache[rows, :, slots] = k",
                    "at = lengths.max().long() + torch.arange(N)\n    k_cache[:, :, at] = k_new\n    k_cache[rows, :, slots] = k",
                ),
            ),
        ),
        Mutant(
            "first-length-for-all",
            "Sequence 0's length was used for all. Right for a batch of one; `lengths` holds one number a sequence.",
            edits=(
                ("slots = lengths[:, None].long() +", "slots = lengths[:1, None].expand(B, 1).long() +"),
                (_REFUSE, "if int(lengths.max()) + N > N_MAX:"),
            ),
        ),
        Mutant(
            "not-written",
            "The output is right, and the new keys and values were never written to the cache: the next step will not find them. Assign into `k_cache` and "
            "`v_cache` themselves; torch.cat makes a new tensor that nobody sees.",
            edits=((_STORE_K, "k_cache, v_cache = k_cache.clone(), v_cache.clone()\n    k_cache[rows, :, slots] = k_new.transpose(1, 2)"),),
        ),
        Mutant(
            "first-length-no-mask",
            "Sequence 0's length was used for all, and there is no mask: several new tokens saw one another, those that come later included. `lengths` "
            "holds one number a sequence; token i of sequence b sees the slots 0 to lengths[b] + i.",
            body=_UNMASKED,
        ),
        Mutant(
            "only-k-written",
            "The keys were written, the values were not: what is weighted is stale. Both belong to the cache.",
            edits=((_STORE_V, "pass"),),
        ),
        Mutant(
            "only-v-written",
            "The values were written, the keys were not: the new token is found by a stale key. Both belong to the cache.",
            edits=((_STORE_K, "pass"),),
        ),
        Mutant(
            "keys-into-both",
            "The keys were written into both caches. The second one takes v_new.",
            edits=((_STORE_V, "v_cache[rows, :, slots] = k_new.transpose(1, 2)"),),
        ),
        Mutant(
            "does-not-see-itself",
            "A new token does not see its own key: with an empty cache there is nothing left to see. Token i sees the slots 0 to lengths[b] + i, its own included.",
            edits=((_KEEP, "< slots[:, None, None, :, None]"),),
        ),
        Mutant(
            "does-not-see-itself-guarded",
            "A new token does not see its own key (and rows that see nothing were set to 0). Token i sees the slots 0 to lengths[b] + i, its own included.",
            edits=((_KEEP, "< slots[:, None, None, :, None]"), ("dim=-1)\n    return", "dim=-1).nan_to_num()\n    return")),
        ),
        Mutant(
            "sees-the-new-ones-all",
            "Right for one new token. Of several, each saw all of them, also those that come after it: token i may see the slots up to lengths[b] + i.",
            edits=((_KEEP, "<= slots[:, None, None, -1:, None]"),),
        ),
        Mutant(
            "sees-one-more",
            "Every token saw one slot too many: the one behind its own, where the next token or a stale number stands.",
            edits=((_KEEP, "<= slots[:, None, None, :, None] + 1"),),
        ),
        Mutant(
            "sees-the-stale",
            "The whole cache was attended to, N_MAX slots: behind a sequence's tokens lie stale numbers. Only the slots 0 to lengths[b] + i count.",
            edits=((_SEEN, "scores"),),
        ),
        Mutant(
            "stale-zeroed-only",
            "Hidden scores were set to 0, which still weighs exp(0). Only -inf weighs nothing.",
            edits=((_SEEN, "scores.masked_fill(~keep, 0.0)"),),
        ),
        Mutant(
            "sees-the-longest",
            "Every sequence saw as many slots as the longest one: in the shorter ones stale numbers were counted. The mask needs each one's own length.",
            edits=((_KEEP, "<= slots.amax(0)[None, None, None, :, None]"),),
        ),
        Mutant(
            "causal-from-the-top",
            "The new tokens were masked as if they were the whole text: token 0 saw one key, although lengths[b] stand before it. (SDPA's is_causal does "
            "that.) The last query belongs to the last key.",
            edits=((_KEEP, "<= torch.arange(N)[None, None, None, :, None]"),),
        ),
        Mutant(
            "only-the-new",
            "The new tokens saw one another and nothing of the cache: what had been stored was not read.",
            edits=(
                (
                    "keep = torch.arange(N_MAX, device=q.device) <=",
                    "keep = (torch.arange(N_MAX) >= slots[:, None, None, :1, None]) & (torch.arange(N_MAX) <=",
                ),
                ("slots[:, None, None, :, None]  #", "slots[:, None, None, :, None])  #"),
            ),
        ),
        Mutant(
            "only-the-old",
            "The new tokens saw what was stored before, and none of themselves. A token sees its own key and those of the new tokens before it.",
            edits=((_KEEP, "<= (slots[:, None, None, :1, None] - 1).clamp(min=0)"),),
        ),
        Mutant(
            "heads-dealt-round",
            "The K/V heads were dealt out in turn: head h read K/V head h % H_KV. Neighbours share: head h reads K/V head h // (H / H_KV).",
            edits=(
                ("q.reshape(B, H_KV, -1, D)", "q.view(B, H // H_KV, H_KV, N, D).transpose(1, 2).reshape(B, H_KV, -1, D)"),
                (".view(B, H, N, D)\n", ".view(B, H_KV, H // H_KV, N, D).transpose(1, 2).reshape(B, H, N, D)\n"),
            ),
        ),
        Mutant(
            "first-kv-head",
            "Every query head read the first K/V head. That is multi-query attention; here each group of H / H_KV heads has its own.",
            edits=(("@ k_cache.mT", "@ k_cache[:, :1].mT"), ("@ v_cache)", "@ v_cache[:, :1])")),
        ),
        Mutant("no-scale", "The scores were not scaled: they are divided by sqrt(D).", edits=((" * D**-0.5", ""),)),
        Mutant("scale-not-rooted", "The scores were divided by D, not by sqrt(D).", edits=(("D**-0.5", "D**-1.0"),)),
        Mutant(
            "no-refusal",
            "Where the new tokens do not fit, a ValueError was asked for, and none came: tokens were lost or written elsewhere without a word. Compare "
            "lengths[b] + N with N_MAX for every sequence.",
            edits=((_REFUSE, "slots = slots.clamp(max=N_MAX - 1)\n    if False:"),),
        ),
        Mutant(
            "another-error",
            "Where the new tokens do not fit, torch's error came out of the assignment. Compare lengths[b] + N with N_MAX for every sequence, before "
            "anything is written, and raise a ValueError that says so.",
            body=_BY_SLICES.format(refuse="", at="int(lengths[b])"),
        ),
        Mutant(
            "asserts",
            "An assert says no as well, but `python -O` leaves asserts out, and whoever calls this waits for a ValueError: raise one.",
            body=_BY_SLICES.format(refuse="    assert int(lengths.max()) + N <= N_MAX\n", at="int(lengths[b])"),
        ),
        Mutant(
            "refuses-too-early",
            "A cache that becomes exactly full is no error: slot N_MAX - 1 is a slot.",
            edits=((_REFUSE, "if int(lengths.max()) + N >= N_MAX:"),),
        ),
        Mutant(
            "written-before-refusing",
            "The ValueError came, and by then something had been written. Look at all sequences first, and write after that.",
            edits=(
                (
                    _REFUSE,
                    "for b in range(B):\n        if int(slots[b, -1]) < N_MAX:\n            k_cache[b, :, slots[b]], v_cache[b, :, slots[b]] = k_new[b], v_new[b]\n    "
                    + _REFUSE,
                ),
            ),
        ),
        Mutant(
            "clears-behind",
            "The slots behind the new tokens were cleared. Nothing else may be written: they may be another request's tomorrow, and clearing costs as much as "
            "writing.",
            edits=(
                (
                    "    rows_of_group =",
                    "    gone = (torch.arange(N_MAX) > slots[:, -1:])[:, None, :, None].expand_as(k_cache)\n    k_cache[gone] = 0\n    v_cache[gone] = 0\n    rows_of_group =",
                ),
            ),
        ),
        Mutant(
            "lengths-changed",
            "`lengths` was changed. Every layer of the model calls this with the same lengths: whoever owns the cache counts, once, after the last layer.",
            edits=(("    rows_of_group =", "    lengths += N\n    rows_of_group ="),),
            rule="mutated-input",
        ),
    ),
    right=RIGHT,
)
