"""The block-table view of chapter 10: requests arrive, grow, fork, share a prefix and finish, step by step."""

from functools import lru_cache

from course_lib.block_tables import BlockTables
from course_lib.earlier import BlockAllocator, copy_on_write, fork_sequence, prefix_block_hashes
from course_lib.figures import paged_attention as figures
from course_lib.figures.core import Picture
from course_lib.figures.rows import whole
from course_lib.widgets.shell import Shell, controls_available, without_controls

MEMORY, SIZES = 32, (4, 8)  # tokens that all blocks hold together; tokens a block
_PROMPT = tuple(range(10, 20))  # tokens are numbers
# (what to do, arguments, title); what it led to depends on the size of a block, and is said by `_said`
STORY = (
    ("add", ("A", _PROMPT), "A arrives with 10 tokens"),
    ("append", ("A", 20), "A writes its first token"),
    ("fork", ("A", "B"), "B is forked from A: the same text, a table of its own"),
    ("append", ("B", 50), "B writes a token that differs from A's"),
    ("append", ("A", 21), "A writes"),
    ("append", ("A", 22), "A writes once more"),
    ("add", ("C", (*_PROMPT[:8], 70, 71, 72)), "C arrives; its first 8 tokens are A's"),
    ("end", ("A",), "A ends"),
    ("end", ("B",), "B ends"),
    ("add", ("D", (*_PROMPT, 20, 21, 22)), "D arrives with what A had read and written"),
    ("end", ("C",), "C ends"),
    ("end", ("D",), "D ends"),
    ("add", ("E", tuple(range(60, 60 + 26))), "E arrives with 26 tokens of its own"),
)


@lru_cache(maxsize=32)
def _played(step: int, block_size: int) -> tuple[BlockTables, str, str]:
    blocks = MEMORY // block_size
    state = BlockTables(BlockAllocator(blocks), blocks, block_size, fork_sequence, copy_on_write, prefix_block_hashes)
    title, words = "Nothing is stored: all blocks are free", "Choose the next step."
    for verb, arguments, title in STORY[:step]:  # noqa: B007 - the last one is shown
        before, evicted = state.allocator.num_free, len(state.allocator.evicted)
        try:
            came = getattr(state, verb)(*arguments)
        except RuntimeError:
            words = "There is no block for it: it has to wait. Nothing has changed."
            continue
        words = _said(state, verb, arguments, came, before, state.allocator.evicted[evicted:])
    return state, title, words


def _said(state: BlockTables, verb: str, arguments: tuple, came, before: int, evicted: list[int]) -> str:
    taken = before - state.allocator.num_free + len(evicted)
    blocks = f"{taken} block{'s' * (taken != 1)}"
    gone = f" The prefix cache gave up block{'s' * (len(evicted) != 1)} {', '.join(map(str, evicted))}." if evicted else ""
    if verb == "add":
        found = f"{came} of its {len(arguments[1])} tokens were found in the prefix cache and are not computed again. " if came else ""
        return f"{found}It took {blocks}.{gone}"
    if verb == "fork":
        return f"Every block of {arguments[0]} has one more holder. No block was taken, nothing was copied."
    if verb == "end":
        back = state.allocator.num_free - before
        return f"Its holds were given back: {back} block{'s are' if back != 1 else ' is'} free again. Full blocks stay in the prefix cache while there is room."
    if came:
        return f"Block {came[0]} had another holder: it was copied to block {came[1]}, and the token was written there.{gone}"
    return f"The place is its own alone: nothing is copied. It took {blocks}.{gone}"


def state(step: int = 4, block_size: int = 4) -> Picture:
    """The tables and blocks after `step` steps of the story, with blocks of that many tokens. A step past the end counts as the last."""
    step, block_size = whole(step, "step", least=0), whole(block_size, "block_size")
    if block_size not in SIZES:
        raise ValueError(f"block_size is {block_size}; blocks of {' or '.join(map(str, SIZES))} tokens are drawn")
    step = min(step, len(STORY))
    played, title, words = _played(step, block_size)
    return figures.tables(played, f"Step {step} of {len(STORY)}: {title}" if step else title, words)


def stepper():
    """The widget: a step and a block size."""
    if not controls_available():
        return without_controls(state())
    import ipywidgets as widgets

    step = widgets.IntSlider(value=4, min=0, max=len(STORY), description="step", continuous_update=False)
    size = widgets.Dropdown(options=list(SIZES), value=4, description="block")
    return Shell(state, {"step": step, "block_size": size}, [[step, size]])
