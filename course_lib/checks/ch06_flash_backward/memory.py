"""Grading material: checkpointed_memory."""

import torch

from course_lib.grading.spec import Check, Mutant, Probe, Property


def simulated(layers: int, segment: int, input_bytes: int, kept_bytes: int) -> int:
    """Allocate and free, step by step, and note the most that was alive."""
    first = list(range(0, layers, segment))
    alive = {("input", start): input_bytes for start in first}
    most = sum(alive.values())
    for start in reversed(first):
        for layer in range(start, min(start + segment, layers)):
            alive["input", layer] = input_bytes
            alive["kept", layer] = kept_bytes
        most = max(most, sum(alive.values()))
        for layer in range(start, min(start + segment, layers)):
            del alive["input", layer], alive["kept", layer]
    return most


def in_closed_form(layers: int, segment: int, input_bytes: int, kept_bytes: int) -> int:
    """The full segments are the large ones, and the last of them is walked back while all earlier inputs are alive."""
    segment, segments = min(segment, layers), -(-layers // segment)
    last = layers - (segments - 1) * segment
    of_last = segments * input_bytes + (last - 1) * input_bytes + last * kept_bytes
    of_full = (segments - 1) * input_bytes + (segment - 1) * input_bytes + segment * kept_bytes if segments > 1 else 0
    return max(of_last, of_full)


def by_segments(layers: int, segment: int, input_bytes: int, kept_bytes: int) -> int:
    """The most over the segments, each with the inputs of those before it."""
    starts = range(0, layers, segment)
    sizes = [min(segment, layers - start) for start in starts]
    return max(i * input_bytes + size * (input_bytes + kept_bytes) for i, size in enumerate(sizes))


def by_events(layers: int, segment: int, input_bytes: int, kept_bytes: int) -> int:
    """A running sum of what is kept and let go, and its maximum."""
    sizes = [min(segment, layers - start) for start in range(0, layers, segment)]
    now = most = len(sizes) * input_bytes
    for size in reversed(sizes):
        now += size * (input_bytes + kept_bytes) - input_bytes  # its own input is there already
        most = max(most, now)
        now -= size * (input_bytes + kept_bytes)
    return most


def _probes(g: torch.Generator) -> list[Probe]:
    cases = [
        ("the example", (4, 2, 10, 100)),
        ("a checkpoint at every layer", (6, 1, 7, 50)),
        ("one segment: no checkpointing", (5, 5, 3, 40)),
        ("10 layers in segments of 4, the last has 2", (10, 4, 10, 1000)),
        ("7 layers in segments of 3, the last has 1, large inputs", (7, 3, 900, 5)),
        ("12 layers of a transformer in segments of 3", (12, 3, 8 * 2**20, 100 * 2**20)),
        ("one layer", (1, 1, 11, 13)),
        ("segments longer than the stack", (3, 8, 11, 13)),
        ("layers that keep nothing besides their input", (9, 2, 64, 0)),
    ]
    drawn = [int(n) for n in torch.randint(2, 40, (3,), generator=g)]
    return [Probe(name, args, diagnose=i < 6) for i, (name, args) in enumerate(cases)] + [
        Probe("other numbers", (drawn[0], 1 + drawn[1] % drawn[0], 4096 * drawn[2], 30 * 4096), diagnose=False)
    ]


def _no_worse_than_everything(call, g: torch.Generator) -> str | None:
    for segment in (1, 2, 3, 5, 16):
        some, every = call(16, segment, 10, 200), call(16, 16, 10, 200)
        if some > every:
            return f"with segments of {segment}, 16 layers take {some:,} bytes, more than without checkpoints ({every:,}): nothing is kept that was not kept then"
    return None


BODY = """\
def checkpointed_memory(layers, segment, input_bytes, kept_bytes):
    segments = -(-layers // segment)
    {setup}return {result}
"""


def _body(result: str, setup: str = "") -> str:
    return BODY.format(result=result, setup=f"{setup}\n    " if setup else "")


def _inside(id: str, message: str, of_n: str) -> list[Mutant]:
    """A mistake in what a segment of n layers holds: made once, with the segments taken for equal, and made at each of them."""
    each = f"max((i + 1) * input_bytes + {of_n} for i in range(segments) for n in [min(segment, layers - i * segment)])"
    once = _body(f"segments * input_bytes + {of_n}", "n = min(segment, layers)")
    return [Mutant(id, message, body=once), Mutant(f"{id}-in-each", message, body=_body(each))]


CHECKPOINTED_MEMORY = Check(
    exercise="checkpointed_memory",
    probes=_probes,
    reference=simulated,
    baselines=(in_closed_form, by_segments, by_events),
    returns="a number of bytes",
    properties=(Property("never more than without checkpoints", _no_worse_than_everything),),
    mutants=(
        Mutant(
            "only-checkpoints",
            "That is what is alive after the forward pass. The worst moment comes later: the backward pass makes a segment's layers again, and they keep everything.",
            body=_body("segments * input_bytes"),
        ),
        Mutant(
            "one-layer-at-a-time",
            "One layer's own bytes were counted for the segment in hand. All its layers were made again before the first of them is walked back.",
            body=_body("segments * input_bytes + kept_bytes"),
        ),
        *_inside(
            "inner-inputs-missing",
            "The inputs of the layers inside the segment are missing. They were freed in the forward pass, and are made again together with the rest: all but the "
            "first, which was kept.",
            "n * kept_bytes",
        ),
        *_inside(
            "first-input-twice",
            "The segment's own input was counted twice: it is the input of its first layer, kept once.",
            "n * (kept_bytes + input_bytes)",
        ),
        Mutant(
            "last-segment-only",
            "Only the last segment was looked at. It may be shorter than the others, and then the one before it is the worst moment.",
            body=_body(
                "segments * input_bytes + n * kept_bytes + (n - 1) * input_bytes",
                "n = layers - (segments - 1) * segment",
            ),
        ),
        Mutant(
            "last-taken-for-full",
            "The last segment was taken for a full one. Where it is shorter, the worst moment is the segment before it, when the last one's input has been freed.",
            body=_body("segments * input_bytes + min(segment, layers) * kept_bytes + (min(segment, layers) - 1) * input_bytes"),
        ),
        Mutant(
            "everything",
            "That is the memory without checkpoints: every layer's input and what it keeps. With checkpoints only one segment has them at a time.",
            body=_body("layers * (input_bytes + kept_bytes)"),
        ),
        Mutant(
            "layers-and-segments-exchanged",
            "`segment` is the number of layers in a segment, not the number of segments.",
            body="""\
def checkpointed_memory(layers, segment, input_bytes, kept_bytes):
    n = -(-layers // segment)
    return min(segment, layers) * input_bytes + n * kept_bytes + (n - 1) * input_bytes
""",
        ),
    ),
    right=(
        """\
def checkpointed_memory(layers, segment, input_bytes, kept_bytes):
    starts = range(0, layers, segment)
    sizes = [min(segment, layers - start) for start in starts]
    return max((i + n) * input_bytes + n * kept_bytes for i, n in enumerate(sizes))
""",
        """\
def checkpointed_memory(layers, segment, input_bytes, kept_bytes):
    if segment >= layers:
        return layers * (input_bytes + kept_bytes)
    full, rest = divmod(layers, segment)
    worst = full * input_bytes + segment * kept_bytes + (segment - 1) * input_bytes
    if rest:
        worst = max(worst, (full + 1) * input_bytes + rest * kept_bytes + (rest - 1) * input_bytes)
    return worst
""",
        """\
def checkpointed_memory(layers, segment, input_bytes, kept_bytes):
    kept, sizes = 0, []
    left = layers
    while left > 0:
        sizes.append(min(segment, left))
        left -= segment
        kept += input_bytes
    peak = kept
    while sizes:
        n = sizes.pop()
        peak = max(peak, kept + n * kept_bytes + (n - 1) * input_bytes)
        kept -= input_bytes
    return int(peak)
""",
    ),
)
