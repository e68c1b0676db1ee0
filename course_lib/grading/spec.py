"""What one exercise's grading material is made of. Plain data and plain functions; nothing here runs an answer.

`course_lib/checks/chNN_topic.py` builds one `Check` an exercise and lists them in `CHECKS`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Tiles:
    """An argument that reaches the answer as an iterator of tiles along the last dimension, each yielded once.

    x [..., N]; width: columns a tile (the last one may be narrower).
    """

    x: Tensor
    width: int

    def __iter__(self):
        return iter(self.x.split(self.width, dim=-1))


@dataclass(frozen=True)
class Probe:
    """One call of the answer. `name` is read by the learner ("2 tiles of 4 keys"): it says what is special about it.

    args: tensors, SoftmaxState, Tiles, numbers, bools, None, and lists, tuples or dicts of these.
    layout: "contiguous", "transposed" (last two dims swapped in memory), "expanded" (first dim of stride 0), "mixed" (every second tensor
    is transposed: with one layout for all, a tensor read with the strides of another goes unseen).
    axes: names of the output's dimensions, for messages; tile: (axis, size) when the answer works in tiles along it.
    diagnose: whether mutants are compared on it (at most 6 probes an exercise are used).
    """

    name: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any] = field(default_factory=dict)
    layout: str = "contiguous"
    axes: tuple[str, ...] = ()
    tile: tuple[str, int] | None = None
    diagnose: bool = True


@dataclass
class Evidence:
    """What the answer child saw while one call ran. It comes from the child: good against honest mistakes."""

    ops: dict[str, int] = field(default_factory=dict)  # aten op -> calls
    largest: int = 0  # elements of the largest tensor that arithmetic made (allocations, copies, cat, stack not counted)
    largest_op: str = ""
    widest: int = 0  # last dimension of the widest tensor that arithmetic made (two dimensions or more)
    widest_op: str = ""
    tiles_held: int = 0  # most tiles of a `Tiles` argument that were alive at once when the next one was asked for
    calls: dict[str, int] = field(default_factory=dict)  # torch's functions by the name they were called by -> calls
    detours: list[str] = field(default_factory=list)  # ways out of torch that ran: "numpy", "tolist"
    taken: int = 0  # numbers that left torch that way, or one by one
    brought: int = 0  # floating-point numbers that entered torch from Python or NumPy
    carried: int = 0  # of those returned: entered from outside, and only moved since
    unseen: int = 0  # floating-point numbers in torch that nothing seen has made
    made: dict[str, int] = field(default_factory=dict)  # aten op -> elements of the largest tensor its arithmetic made, outside kernels
    returned: int = 0  # elements of all tensors returned
    largest_returned: int = 0  # elements of the largest of them
    stored: int = 0  # of those returned: stored by a kernel
    blank: int = 0  # of those returned: not stored by a kernel, and 0 as an allocation may leave it
    launches: list[dict] = field(default_factory=list)  # Triton launches: kernel, grid, constexprs
    bytes_loaded: int = 0
    bytes_stored: int = 0
    printed: str = ""
    seconds: float = 0.0


@dataclass(frozen=True)
class Rule:
    """A resource rule. `broken(probe, evidence)` returns None, or the sentence that says what was seen and what is allowed."""

    id: str
    broken: Callable[[Probe, Evidence], str | None]
    review: bool = False  # True: a broken rule means `needs_review`, not `failed`


# Other names of the same thing: whoever forbids one means them all.
_FAMILIES = {
    "softmax": ("_softmax", "_safe_softmax", "_masked_softmax", "softmin", "_sparse_softmax", "log_softmax", "_log_softmax", "_sparse_log_softmax"),
    "scaled_dot_product_attention": (
        "_scaled_dot_product_attention_math",
        "_scaled_dot_product_flash_attention",
        "_scaled_dot_product_flash_attention_for_cpu",
        "_scaled_dot_product_efficient_attention",
        "_scaled_dot_product_cudnn_attention",
        "_scaled_dot_product_fused_attention_overrideable",
        "_flash_attention_forward",
        "_efficient_attention_forward",
        "_native_multi_head_attention",
        "multi_head_attention_forward",
        "flex_attention",
    ),
}


def forbid(ops: Sequence[str], instead: str) -> Rule:
    """The answer may not get its result from these aten ops (seen when they run, whatever they were called by)."""
    wanted = frozenset(ops).union(*(others for name, others in _FAMILIES.items() if name in ops))

    def broken(probe: Probe, evidence: Evidence) -> str | None:
        ran = {op.split(".")[0] for op in (*evidence.ops, *evidence.calls)}
        used = sorted({op.strip("_") for op in ran & wanted})
        return f"your function called torch's own {' and '.join(used)}. {instead}" if used else None

    return Rule("shortcut", broken)


@dataclass(frozen=True)
class Property:
    """A check without a reference value: `holds(call, generator)` calls the answer and returns None or a sentence.

    call(*args, layout=..., **kwargs) -> what the answer returned, rebuilt by the judge.
    speaks: where probes are wrong too, its sentence is the evidence (a shortest failing history says more than the first wrong item).
    """

    name: str
    holds: Callable[[Callable[..., Any], torch.Generator], str | None]
    diagnosis: str = "property"
    speaks: bool = False


@dataclass(frozen=True)
class Mutant:
    """A named wrong solution. Either `edits` of the solution's text (each must match exactly once) or a whole `body`.

    message: what a good teacher would say: the mistake, and where to look. Never the whole answer.
    rule: the id of the Rule or contract diagnosis that catches it, when values do not (a materialised matrix, a mutated input).
    said: with `rule`, a piece of what was seen without which the message would not be true (of an exception, its words).
    """

    id: str
    message: str
    edits: tuple[tuple[str, str], ...] = ()
    body: str | None = None
    rule: str | None = None
    said: str = ""

    def text(self, solution: str) -> str:
        """The mutant's full text. ValueError where an edit does not match exactly once."""
        if self.body is not None:
            return self.body
        for old, new in self.edits:
            if solution.count(old) != 1:
                raise ValueError(f"mutant {self.id}: {old!r} occurs {solution.count(old)} times in the solution, not once")
            solution = solution.replace(old, new)
        return solution


@dataclass(frozen=True)
class Check:
    """All the grading material of one exercise.

    probes(generator) -> probes, smallest first: shapes fixed, values drawn from the generator.
    reference(*args, **kwargs): the slow, obvious oracle; called with every floating tensor in float64.
    baselines: at least three plain ways at the answer's own precision; the tolerance is measured on them.
    rules: besides those that every exercise of its kind has (`course_lib.grading.defaults`).
    right: correct answers in other styles (full texts), used by the tests to prove that they pass.
    """

    exercise: str
    probes: Callable[[torch.Generator], list[Probe]]
    reference: Callable[..., Any]
    baselines: tuple[Callable[..., Any], ...]
    mutants: tuple[Mutant, ...]
    properties: tuple[Property, ...] = ()
    rules: tuple[Rule, ...] = ()
    right: tuple[str, ...] = ()
    returns: str = "a tensor"  # said when something else comes back
    allow: tuple[str, ...] = ()  # a Triton exercise's host: aten ops that may make tensors as large as the result ("all": any)
    seconds: float = 8.0  # time limit of one whole check
    exact_float32: bool = False  # a Triton exercise that promises float32 products: TF32 is refused when the answer is compiled (rule "tf32")
    harness: str = ""  # source of `run(subject, *args, **kwargs)`: called in the answer's process in the answer's place, where one call does not show it (a class)
