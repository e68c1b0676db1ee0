"""Grading material: write_kv, which returns nothing: what it left in the caches is looked at."""

import torch
from torch import Tensor

from course_lib.checks.ch05_flash_forward.rules import WITH_STRIDES
from course_lib.checks.ch10_paged_attention.write_right import RIGHT
from course_lib.grading.kernel_rules import launches, loads, no_copies, no_idle, size, stores
from course_lib.grading.spec import Check, Mutant, Probe

AXES = ("token", "head", "feature")  # of the rows that have a slot
RETURNS = "the caches' rows at the slots, and how many other numbers of the caches changed (k, v, others)"

# Runs in the answer's process, in the answer's place: the caches are the answer's own, and nothing counts as an argument that was changed.
HARNESS = """
import torch

def laid(x):
    return torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device=x.device).copy_(x)

def turned(x):  # the first two dimensions the other way round in memory
    return torch.empty((x.shape[1], x.shape[0], *x.shape[2:]), dtype=x.dtype, device=x.device).transpose(0, 1).copy_(x)

def run(function, k, v, k_cache, v_cache, slots, one_buffer=False, v_apart=False):
    if v_apart:
        kc, v, vc = laid(k_cache), turned(v), turned(v_cache)
    elif one_buffer:
        both = torch.empty((k_cache.shape[0], 2, *k_cache.shape[1:]), dtype=k.dtype, device=k.device)
        kc, vc = both[:, 0], both[:, 1]
        kc.copy_(k_cache), vc.copy_(v_cache)
    else:
        kc, vc = laid(k_cache), laid(v_cache)
    returned = function(k, v, kc, vc, slots)
    if returned is not None:
        raise TypeError("write_kv must return None: it changes the caches in place")
    mine = slots[slots >= 0]
    block, place = mine // k_cache.shape[1], mine % k_cache.shape[1]
    others = 0
    for now, before in ((kc, k_cache), (vc, v_cache)):
        changed = now != before
        changed[block, place] = False
        others += int(changed.sum())
    return kc[block, place], vc[block, place], others
"""


def by_slots(
    k: Tensor, v: Tensor, k_cache: Tensor, v_cache: Tensor, slots: Tensor, one_buffer: bool = False, v_apart: bool = False
) -> tuple[Tensor, Tensor, int]:
    return k[slots >= 0], v[slots >= 0], 0


def by_writing(
    k: Tensor, v: Tensor, k_cache: Tensor, v_cache: Tensor, slots: Tensor, one_buffer: bool = False, v_apart: bool = False
) -> tuple[Tensor, Tensor, int]:
    mine = slots[slots >= 0]
    kc, vc = k_cache.clone().flatten(0, 1), v_cache.clone().flatten(0, 1)
    kc[mine], vc[mine] = k[slots >= 0], v[slots >= 0]
    return kc[mine], vc[mine], 0


def one_by_one(
    k: Tensor, v: Tensor, k_cache: Tensor, v_cache: Tensor, slots: Tensor, one_buffer: bool = False, v_apart: bool = False
) -> tuple[Tensor, Tensor, int]:
    rows = [t for t, slot in enumerate(slots.tolist()) if slot >= 0]
    return torch.stack([k[t] for t in rows]), torch.stack([v[t] for t in rows]), 0


def _given(
    g: torch.Generator, t: int, blocks: int, block: int, h_kv: int, d: int, off: tuple[int, ...] = (), dtype: torch.dtype = torch.float32
) -> tuple:
    k, v = (torch.randn(t, h_kv, d, generator=g) for _ in range(2))
    caches = (torch.randn(blocks, block, h_kv, d, generator=g) for _ in range(2))
    slots = torch.randperm(blocks * block, generator=g)[:t]
    slots[list(off)] = -1
    return (*(x.to(dtype) for x in (k, v + 3, *caches)), slots)


def _probes(g: torch.Generator) -> list[Probe]:
    return [
        Probe("1 token, blocks of 4", _given(g, 1, 3, 4, 2, 20), axes=AXES),
        Probe("5 tokens of 3 heads, blocks of 16", _given(g, 5, 4, 16, 3, 16), axes=AXES, diagnose=False),
        Probe("9 tokens of 4 heads, D = 20, blocks of 4", _given(g, 9, 5, 4, 4, 20), axes=AXES),
        Probe("7 tokens, blocks of 1, transposed in memory", _given(g, 7, 19, 1, 3, 12), axes=AXES, layout="transposed"),
        Probe("K and V in turn in one tensor, 6 tokens", _given(g, 6, 5, 4, 2, 24), {"one_buffer": True}, axes=AXES),
        Probe("V and its cache with other strides than K's, 5 tokens", _given(g, 5, 4, 4, 2, 20), {"v_apart": True}, axes=AXES),
        Probe("3 of 8 tokens have no slot", _given(g, 8, 5, 4, 2, 20, off=(1, 4, 7)), axes=AXES),
        Probe("float16, 20 tokens", _given(g, 20, 6, 16, 2, 32, dtype=torch.float16), axes=AXES, diagnose=False),
    ]


def _rows(probe: Probe) -> int:
    """Bytes of K and V of the tokens that have a slot."""
    k, slots = probe.args[0], probe.args[4]
    return 2 * int((slots >= 0).sum()) * size(k[:1])


_K_STORE = "tl.store(kc_ptr + block * kc_sblock + place * kc_sn + head[:, None] * kc_sh + dims[None, :] * kc_sd, k, mask=mine)"
_V_STORE = "tl.store(vc_ptr + block * vc_sblock + place * vc_sn + head[:, None] * vc_sh + dims[None, :] * vc_sd, v, mask=mine)"
_UNPACK = "token, head = rows // H_KV, rows % H_KV"
_GRID = "grid = (triton.cdiv(T * H_KV, ROWS),)"
_HOST = "    ROWS = 16\n"

WRITE_KV = Check(
    exercise="write_kv",
    probes=_probes,
    reference=by_slots,
    baselines=(by_slots, by_writing, one_by_one),
    returns=RETURNS,
    harness=HARNESS,
    rules=(
        launches(1),
        stores(_rows),
        loads(lambda probe: _rows(probe) + 16 * probe.args[0].shape[0] * probe.args[0].shape[1], "reading K, V and the slots once a row"),
        no_copies(WITH_STRIDES),
        no_idle(1, "there are T * H_KV rows, and each program takes ROWS of them."),
    ),
    mutants=(
        Mutant(
            "slots-not-used",
            "Token t went to place t of the cache: the slot says where it goes.",
            edits=(
                (
                    "block, place = (slots // BLOCK)[:, None], (slots % BLOCK)[:, None]",
                    "block, place = (token // BLOCK + slots * 0)[:, None], (token % BLOCK)[:, None]",
                ),
            ),
        ),
        Mutant(
            "place-dropped",
            "Every token went to the first place of its block: slot % BLOCK is missing.",
            edits=(("(slots % BLOCK)[:, None]", "(slots * 0)[:, None]"),),
        ),
        Mutant("v-is-k", "The cache of V got the rows of K.", edits=((_V_STORE, _V_STORE.replace(", v, mask", ", k, mask")),)),
        Mutant("v-forgotten", "The cache of V was not written.", edits=((f"    {_V_STORE}\n", ""),)),
        Mutant(
            "head-dropped",
            "Every head got the row of head 0: `head` times its stride is missing where k and v are read.",
            edits=(
                ("k_ptr + token[:, None] * k_st + head[:, None] * k_sh", "k_ptr + token[:, None] * k_st"),
                ("v_ptr + token[:, None] * v_st + head[:, None] * v_sh", "v_ptr + token[:, None] * v_st"),
            ),
        ),
        Mutant(
            "head-dropped-on-store",
            "All heads were stored on top of each other, as head 0: `head` times its stride is missing where the caches are written.",
            edits=((_K_STORE, _K_STORE.replace(" + head[:, None] * kc_sh", "")), (_V_STORE, _V_STORE.replace(" + head[:, None] * vc_sh", ""))),
        ),
        Mutant(
            "grid-per-token",
            "Programs are missing: there are T * H_KV rows, and each program takes ROWS of them.",
            edits=((_GRID, "grid = (triton.cdiv(T, ROWS),)"),),
        ),
        Mutant(
            "grid-per-row",
            "A program for each row was launched, and each takes ROWS of them: divide, and round up.",
            edits=((_GRID, "grid = (T * H_KV,)"),),
            rule="idle",
        ),
        Mutant(
            "one-buffer",
            "Right where the blocks of a cache lie one behind the other, wrong where something lies between them: the cache has a stride for each dimension, use kc_sblock.",
            edits=(
                (_K_STORE, _K_STORE.replace("block * kc_sblock", "block * BLOCK * kc_sn")),
                (_V_STORE, _V_STORE.replace("block * vc_sblock", "block * BLOCK * vc_sn")),
            ),
        ),
        Mutant(
            "v-by-strides-of-k",
            "V was read with the strides of K. They have the same shape and need not lie alike in memory: each tensor has strides of its own.",
            edits=(("v_ptr + token[:, None] * v_st + head[:, None] * v_sh", "v_ptr + token[:, None] * k_st + head[:, None] * k_sh"),),
        ),
        Mutant(
            "v-cache-by-strides-of-k",
            "The cache of V was written with the strides of the cache of K. Each tensor has strides of its own.",
            edits=((_V_STORE, _V_STORE.replace("block * vc_sblock + place * vc_sn", "block * kc_sblock + place * kc_sn")),),
        ),
        Mutant(
            "not-in-place",
            "The caches are as they were: what was written is a copy of them.",
            edits=((_HOST, f"{_HOST}    k_cache, v_cache = torch.empty_like(k_cache).copy_(k_cache), torch.empty_like(v_cache).copy_(v_cache)\n"),),
        ),
        Mutant(
            "no-mask",
            "On a GPU this reads or overwrites whatever lies there. The usual causes: a slot of -1 that is used all the same (its row must be masked in loads and stores), "
            "rows past T * H_KV, dims past D.",
            edits=(("mine = (slots >= 0)[:, None] & (dims < D)[None, :]", "mine = (rows < T * H_KV)[:, None] & (dims < D)[None, :]"),),
            rule="out-of-range",
        ),
        Mutant(
            "copied",
            "That is what `.contiguous()` or `.to(...)` in the host function does.",
            edits=((_HOST, f"{_HOST}    k, v = k.clone(), v.clone()\n"),),
            rule="copied",
        ),
    ),
    right=RIGHT,
    seconds=9.0,
)
