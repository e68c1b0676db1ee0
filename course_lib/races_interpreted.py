"""What can be said of the course's kernels without a GPU: whether they are right, and what they ask of memory. No times.

An interpreted kernel runs Triton's operations one by one in numpy; how long that takes says nothing of a GPU.
"""

import math
from dataclasses import dataclass

from course_lib import traffic
from course_lib.races import Race, first_line, truth, verdict


@dataclass(frozen=True)
class Look:
    """One kernel on one small problem, interpreted, in float32."""

    race: Race
    who: str
    problem: str  # "" where it is right
    error: float | None = None  # as a multiple of plain torch's
    requested: int | None = None  # bytes

    def row(self) -> dict:
        times = None if self.requested is None else round(self.requested / self.race.bytes, 3)
        return {
            "kernel": self.race.kernel if self.who == "course" else self.who,
            **self.race.size,
            "right": not self.problem,
            "problem": self.problem,
            "error (times plain torch's)": None if self.error is None or not math.isfinite(self.error) else float(f"{self.error:.3g}"),
            "requested (bytes)": self.requested,
            "compulsory (bytes)": self.race.bytes,
            "requested / compulsory": times,
        }


def look(race: Race, generator) -> list[Look]:
    """Each of the course's kernels of this race, once."""
    inputs = race.draw(generator)
    known = truth(race, inputs)
    return [_one(race, contestant, inputs, known) for contestant in race.contestants if contestant.ours]


def _one(race: Race, contestant, inputs: tuple, known) -> Look:
    try:
        counted = traffic.count(contestant.prepare(), *contestant.arrange(*inputs))
        ratio, wrong = verdict(race, contestant.output(counted.result), known, inputs[0].dtype)
    except Exception as error:
        return Look(race, contestant.name, f"failed: {first_line(error)}")
    return Look(race, contestant.name, wrong and f"wrong: {wrong}", ratio, counted.bytes)
