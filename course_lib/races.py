"""A race: several functions with one job, on one problem, timed in turns and then checked.

    a round is one timing of every contestant (A B C, A B C, ...), so that a clock that drifts hits all alike
    each contestant goes round copies of the inputs, and keeps as many outputs, so that no cache holds the next one
    after the timing, the timed outputs and one call on new inputs are compared with float64

Who cannot run here is said with the reason; who is wrong is said to be wrong, and gets no time. Knows nothing of any kernel,
of clocks (`races_clocks`) or of tables (`races_report`).
"""

import statistics
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from course_lib.bench import Timing
from course_lib.races_resources import Resources, resources

ROUNDS, SECONDS = 11, 4.0  # timed rounds, and about what they may take together
SAMPLE = 0.01  # seconds that one timing takes at least


class NotHere(Exception):
    """This contestant cannot run on this machine; the message says why."""


@dataclass(frozen=True)
class Contestant:
    """`prepare()` gives the function, or raises; `arrange` turns the inputs into its own layout, untimed; `output` finds the tensor to compare.

    judged=False is for who computes something else, and is timed for the ratio only.
    """

    name: str
    prepare: Callable[[], Callable]
    ours: bool = False
    arrange: Callable[..., tuple] = lambda *inputs: inputs
    output: Callable[..., Tensor] = lambda returned: returned
    judged: bool = True


@dataclass(frozen=True)
class Race:
    """One problem. Amounts count one call: compulsory bytes, bytes that the course's kernel requests, FLOPs of matrix products, exponentials.

    exact    inputs -> float64 values of the part of the output that `pick` cuts out
    plain    the same part by plain torch in the inputs' dtype, one function or more: their errors make the tolerance
    ceiling  "copy", or the dtype whose matmul rate is the ceiling
    """

    kernel: str
    size: dict
    draw: Callable[[torch.Generator], tuple[Tensor, ...]]
    contestants: tuple[Contestant, ...]
    exact: Callable[..., Tensor]
    plain: tuple[Callable[..., Tensor], ...]
    bytes: int
    ceiling: str = "copy"
    flops: int = 0
    requested: int = 0
    exponentials: int = 0
    pick: Callable[[Tensor], Tensor] = lambda out: out

    @property
    def title(self) -> str:
        return f"{self.kernel} {self.size_words}"

    @property
    def size_words(self) -> str:
        """`D 64, causal, B 4, H 32, N 4,096`."""
        words = [("" if value else "not ") + key if isinstance(value, bool) else f"{key} {value:,}" for key, value in self.size.items()]
        return ", ".join(words)

    @property
    def amount(self) -> int:
        """What a rate counts: FLOPs where products are the ceiling, else compulsory bytes."""
        return self.bytes if self.ceiling == "copy" else self.flops


@dataclass(frozen=True)
class Result:
    """One contestant of one race. `problem` starts with "not here", "failed" or "wrong"; then there is no timing."""

    race: Race
    who: str
    ours: bool
    timing: Timing | None = None
    problem: str = ""
    how: str = ""  # how it was timed
    error: float | None = None  # the largest error, as a multiple of plain torch's
    resources: Resources | None = None

    @property
    def rate(self) -> float | None:
        """Bytes/s or FLOP/s at the median time."""
        return self.race.amount / self.timing.median if self.timing else None


@dataclass
class Lane:
    """A contestant at work: its copies of the inputs, its outputs, and what one turn (a call on every copy) does."""

    contestant: Contestant
    function: Callable
    inputs: list[tuple]
    outputs: list = field(default_factory=list)
    how: str = "queued launches"
    replay: Callable | None = None
    turns: int = 1
    seconds: list[float] = field(default_factory=list)

    def __post_init__(self):
        self.outputs = [None] * len(self.inputs)

    def calls(self) -> None:
        for i, inputs in enumerate(self.inputs):
            self.outputs[i] = self.function(*inputs)

    def turn(self) -> None:
        (self.replay or self.calls)()


def run(race: Race, clock, rounds: int = ROUNDS, seconds: float = SECONDS, seed: int = 0) -> list[Result]:
    """Race all contestants; results in their order. `clock` as in `races_clocks`."""
    generator = clock.generator(seed)
    sets = [race.draw(generator) for _ in range(clock.sets(race.bytes))]
    lanes, out = {}, {}
    for contestant in race.contestants:
        try:
            lanes[contestant.name] = _warm(contestant, sets, clock)
        except Exception as error:
            out[contestant.name] = _absent(race, contestant, error)
            clock.recover()
    if any(clock.launch_bound(lane) for lane in lanes.values()):
        for lane in lanes.values():
            _graphed(lane, clock)
    _rounds(list(lanes.values()), clock, rounds, seconds)
    judge = _Judge(race, [sets[0], race.draw(generator)])
    for contestant in race.contestants:
        if contestant.name in lanes:
            lane = lanes.pop(contestant.name)  # its copies go before the next one is checked
            out[contestant.name] = _result(race, lane, judge)
    return [out[contestant.name] for contestant in race.contestants]


def first_line(error: BaseException) -> str:
    """What an exception says, in one line of at most 160 characters."""
    if isinstance(error, NotHere):
        return str(error)
    text = (str(error).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {text}"[:160].rstrip(": ")


def _absent(race: Race, contestant: Contestant, error: Exception) -> Result:
    word = "failed" if contestant.ours and not isinstance(error, NotHere) else "not here"
    return Result(race, contestant.name, contestant.ours, problem=f"{word}: {first_line(error)}")


def _warm(contestant: Contestant, sets: list[tuple], clock) -> Lane:
    """Compile, choose, allocate: two turns that nobody times."""
    lane = Lane(contestant, contestant.prepare(), [contestant.arrange(*inputs) for inputs in sets])
    for _ in range(2):
        lane.turn()
        clock.wait()
    return lane


def _graphed(lane: Lane, clock) -> None:
    try:
        lane.replay, lane.how = clock.graph(lane.calls), "CUDA graph"
    except Exception as error:  # a library that allocates or waits cannot be recorded: it is timed as it is, and that is said
        lane.replay, lane.how = None, f"queued launches, its launch included (no CUDA graph: {first_line(error)})"
        clock.recover()


def _rounds(lanes: list[Lane], clock, rounds: int, seconds: float) -> None:
    """The timed rounds, after one that does not count; fewer where they would take too long, never below 3."""
    each = []
    for lane in lanes:
        one = clock.seconds(lane.turn, 1)
        lane.turns = max(1, min(500, round(SAMPLE / max(one, 1e-9))))
        each.append(one * (lane.turns + 1))
    rounds = max(3, min(rounds, int(seconds / max(sum(each), 1e-9))))
    for number in range(rounds + 1):
        for lane in lanes:
            taken = clock.seconds(lane.turn, lane.turns) / (lane.turns * len(lane.inputs))
            if number:
                lane.seconds.append(taken)


def timing(seconds: list[float]) -> Timing:
    low, median, high = statistics.quantiles(seconds, n=4, method="inclusive")
    return Timing(median, low, high, len(seconds))


def _result(race: Race, lane: Lane, judge: "_Judge") -> Result:
    who = lane.contestant
    try:
        error, wrong = judge(lane) if who.judged else (None, "")
        used = resources(lane.function, lane.inputs[0]) if who.ours else None
    except Exception as failure:
        return _absent(race, who, failure)
    if wrong:
        return Result(race, who.name, who.ours, problem=f"wrong: {wrong}", how=lane.how, error=error, resources=used)
    return Result(race, who.name, who.ours, timing(lane.seconds), "", lane.how, error, used)


# ---------------------------------------------------------------- right or wrong


@dataclass(frozen=True)
class Truth:
    """The exact part of an output, and the error that plain torch makes there. Errors are shares of the largest value of their row."""

    exact: Tensor
    plain_error: float
    step: float  # one unit in the last place

    @property
    def tolerance(self) -> float:
        return 3 * self.plain_error + 2 * self.step


def row_error(part: Tensor, exact: Tensor) -> float:
    """The largest error of any element, each as a share of the largest exact value of its row; nan where a nan stands in `part`."""
    scale = exact.abs().amax(-1, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)
    return ((part.double() - exact).abs() / scale).max().item()


def truth(race: Race, inputs: tuple) -> Truth:
    exact = race.exact(*inputs)
    return Truth(exact, max(row_error(plain(*inputs), exact) for plain in race.plain), torch.finfo(inputs[0].dtype).eps)


def verdict(race: Race, out: Tensor, known: Truth, dtype: torch.dtype) -> tuple[float, str]:
    """(largest error as a multiple of plain torch's, what is wrong or ""). Every element must be finite, the picked part close."""
    if out.dtype != dtype:
        return float("inf"), f"the output is {str(out.dtype).removeprefix('torch.')}"
    if not bool(torch.isfinite(out).all()):
        return float("inf"), "the output holds infinities or nan"
    part = race.pick(out)
    if part.shape != known.exact.shape:
        return float("inf"), f"the output is {list(out.shape)}"
    error = row_error(part, known.exact)
    ratio = error / max(known.plain_error, known.step)
    return ratio, "" if error <= known.tolerance else f"its largest error is {ratio:.3g} times that of plain torch ({error:.2g} of its row's maximum)"


class _Judge:
    """Compares a lane with the truth: the outputs of its timed runs, then a call on inputs that no run has seen."""

    def __init__(self, race: Race, sets: list[tuple]):
        self.race, self.sets = race, sets
        self.known = [truth(race, inputs) for inputs in sets]

    def __call__(self, lane: Lane) -> tuple[float, str]:
        who, dtype = lane.contestant, self.sets[0][0].dtype
        timed = lane.outputs[0]
        new = lane.function(*who.arrange(*self.sets[1]))
        worst, wrong = 0.0, ""
        for returned, known in zip((timed, new), self.known, strict=True):
            ratio, sentence = verdict(self.race, who.output(returned), known, dtype)
            worst, wrong = max(worst, ratio), wrong or sentence
        return worst, wrong
