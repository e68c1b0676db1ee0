"""Mistakes that both kernels over a paged cache can make, as edits of their solutions, which are alike in these lines."""

from course_lib.checks.ch05_flash_forward import sentences
from course_lib.grading.spec import Mutant

LOOKUP = "block = tl.load(table + at // BLOCK * tables_sn, mask=at < {end}, other=0).to(tl.int64)"
PLACE = "place = at % BLOCK"
V_LOAD = "v = tl.load(v_head + (block * v_sblock + place * v_sn)[:, None], mask=inside, other=0.0)"
K_LOAD = V_LOAD.replace("v", "k")
HOST = f"    {sentences.HOST_SCALE}\n"


def looking_up(end: str) -> list[Mutant]:
    """The way from a position to a place. `end` is what the positions are compared with."""
    lookup = LOOKUP.format(end=end)
    return [
        Mutant(
            "table-not-read",
            "The blocks were taken as if they lay in order: block i of a text is where entry i of its table says.",
            edits=((lookup, "block = (at // BLOCK).to(tl.int64)"),),
        ),
        Mutant(
            "block-of-the-tile",
            "One block was looked up for the whole tile of keys. A tile may come out of many blocks: every key needs its own, entry at // BLOCK.",
            edits=((lookup, "block = tl.load(table + start // BLOCK * tables_sn).to(tl.int64) + (at // BLOCK - start // BLOCK) * 0"),),
        ),
        Mutant(
            "place-dropped",
            "Every key of a block was read from the block's first place: `at % BLOCK` times the stride of a place is missing.",
            edits=((PLACE, "place = at * 0"),),
        ),
        Mutant(
            "exchanged",
            "Quotient and remainder are exchanged: the entry of the table is at // BLOCK, the place in the block at % BLOCK.",
            edits=(
                (lookup, lookup.replace("at // BLOCK * tables_sn", "tl.minimum(at % BLOCK, at // BLOCK) * tables_sn")),
                (PLACE, "place = tl.minimum(at // BLOCK, BLOCK - 1)"),
            ),
        ),
        Mutant(
            "values-in-a-row",
            "K was read through the table, V was not: both lie in the same block at the same place.",
            edits=((V_LOAD, V_LOAD.replace("block * v_sblock", "at // BLOCK * v_sblock")),),
        ),
        Mutant(
            "place-in-the-tile",
            "The place in the block was counted from the tile's first key: right where tiles begin with a block, wrong for blocks longer than a tile. It is at % BLOCK.",
            edits=((PLACE, "place = keys % BLOCK"),),
        ),
        Mutant(
            "not-advanced",
            "Every turn of the loop read the first tile of keys again: positions begin at `start`.",
            edits=(("at = start + keys  # [BLOCK_N], positions in the text", f"at = tl.where(start + keys < {end}, keys, {end})"),),
        ),
        Mutant(
            "no-other",
            "Lanes that a mask turns off hold nothing that you chose: a load has a mask and no `other`. A GPU leaves anything there; this check puts NaN, so that "
            "it shows. A weight of 0 does not help, since 0 times NaN is NaN: let such lanes be 0.",
            edits=tuple((load, load.replace(", other=0.0", "")) for load in (K_LOAD, V_LOAD)),
        ),
    ]


def by_rules() -> list[Mutant]:
    """What values do not show."""
    return [
        Mutant(
            "no-mask",
            "On a GPU this reads or overwrites whatever lies there, or ends the program. The usual causes here: a table entry read past the request's keys, or used "
            "although it holds garbage; an entry or a place multiplied by the wrong stride; rows past the last query or head, or dims past D, not masked.",
            edits=(("mine = (", "mine = (dims >= 0)[None, :] & ("), ("& (dims < D)[None, :]\n    q = ", "\n    q = ")),
            rule="out-of-range",
        ),
        sentences.stored_every_turn(),
        sentences.second_product_rounded(),
        sentences.strides_of_k("h_kv * v_sh + dims[None, :] * v_sd"),
        Mutant(
            "v-blocks-by-strides-of-k",
            "The blocks of V were looked for with the strides of K. The two caches have the same shape and need not lie alike in memory: each has strides of its own.",
            edits=((V_LOAD, V_LOAD.replace("block * v_sblock + place * v_sn", "block * k_sblock + place * k_sn")),),
        ),
        Mutant(
            "copied",
            "That is what `.contiguous()`, `.float()` or `.to(...)` in the host function does, and here it copies the whole cache.",
            edits=((HOST, f"{HOST}    q, k_cache, v_cache = q.contiguous(), k_cache.contiguous(), v_cache.contiguous()\n"),),
            rule="copied",
        ),
        Mutant(
            "gathered",
            "That is paged_gather in disguise: the keys are written once more, in order, and then read. The table lookup belongs into the loop.",
            edits=(
                (
                    HOST,
                    f"{HOST}    named = block_tables.clamp(0, k_cache.shape[0] - 1).long().flatten()\n    k_cache, v_cache = k_cache[named], v_cache[named]\n"
                    "    block_tables = torch.arange(block_tables.numel(), dtype=torch.int32, device=q.device).view(block_tables.shape)\n",
                ),
            ),
            rule="gathered",
        ),
    ]
