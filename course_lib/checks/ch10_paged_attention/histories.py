"""Random histories of operations, and the shortest that an answer gets wrong. Used by the checks of answers that have state.

A history is a list of moves (verb, number): whatever it means is decided move by move from what is there, so that every part of
a history is a history too, and can be tried when a failing one is made shorter. Knows nothing of blocks.
"""

from collections.abc import Callable, Sequence

import torch

Move = tuple[str, int]
# play(size, moves) -> (steps as the answer's process reads them, what each must come to)
Play = Callable[[int, Sequence[Move]], tuple[list[str], list[str]]]
MOST_TRIES = 150  # calls that making one history shorter may take


def draw(g: torch.Generator, verbs: dict[str, int], length: int) -> list[Move]:
    """`length` random moves; verbs: how often each comes, in proportion."""
    names = [name for name, weight in verbs.items() for _ in range(weight)]
    numbers = torch.randint(0, 1 << 20, (length, 2), generator=g).tolist()
    return [(names[a % len(names)], b) for a, b in numbers]


def first_wrong(got: object, wanted: Sequence[str]) -> int | None:
    """The first step whose outcome is not as it must be; None where all are."""
    got = got if isinstance(got, list) else []
    return next((i for i, want in enumerate(wanted) if i >= len(got) or got[i] != want), None)


def shortest(call: Callable, play: Play, size: int, moves: Sequence[Move]) -> tuple[list[str], str, str] | None:
    """(steps, expected, got) of the shortest part of `moves` found that fails, at its last step; None where `moves` does not fail."""

    def tried(part: Sequence[Move]) -> tuple[list[Move], list[str], str, str] | None:
        steps, wanted = play(size, part)
        got = call(size, steps)
        at = first_wrong(got, wanted)
        if at is None:
            return None
        said = got[at] if isinstance(got, list) and at < len(got) else "nothing"
        needed = next(n for n in range(1, len(part) + 1) if len(play(size, part[:n])[0]) > at)  # some moves mean nothing, and make no step
        return list(part[:needed]), steps[: at + 1], wanted[at], str(said)

    best, tries = tried(moves), 1
    if best is None:
        return None
    width = max(1, len(best[0]) // 2)
    while tries < MOST_TRIES:
        shorter = None
        for start in range(len(best[0]) - 1, -1, -width):
            part = best[0][: max(0, start - width + 1)] + best[0][start + 1 :]
            shorter, tries = tried(part) if part else None, tries + 1
            if shorter is not None or tries >= MOST_TRIES:
                break
        if shorter is not None:
            best = shorter
            width = min(width, max(1, len(best[0]) // 2))
        elif width == 1:
            break
        else:
            width //= 2
    for one in range(len(best[0]) - 2, -1, -1):  # what came and went again has to be taken out as a pair
        for other in range(one - 1, -1, -1):
            if one < len(best[0]) - 1 and tries < MOST_TRIES:
                part, tries = [move for i, move in enumerate(best[0]) if i not in (one, other)], tries + 1
                best = tried(part) or best
    return best[1], best[2], best[3]


def told(found: tuple[list[str], str, str], where: str) -> str:
    """The sentence that the learner reads."""
    steps, wanted, got = found
    return f"The shortest history that fails, {where}: {'; '.join(steps)}. Its last step must come to: {wanted}. It came to: {got}."


def holds(play: Play, verbs: dict[str, int], sizes: Sequence[int], lengths: Sequence[int], where: str) -> Callable:
    """A `Property.holds`: many random histories, the first that fails made short. where: "{size} blocks" in words."""

    def broken(call: Callable, g: torch.Generator) -> str | None:
        for size in sizes:
            for length in lengths:
                found = shortest(call, play, size, draw(g, verbs, length))
                if found:
                    return told(found, where.format(size=size))
        return None

    return broken
