"""The verdict: what the judge decides, and the JSON object of the contract."""

from dataclasses import asdict, dataclass, field

STATUSES = ("passed", "failed", "not_attempted", "error", "timeout", "blocked", "needs_review")


@dataclass(frozen=True)
class Diagnosis:
    id: str
    message: str


@dataclass(frozen=True)
class Case:
    name: str
    status: str  # passed | failed | error | timeout | blocked | needs_review
    message: str = ""
    seconds: float = 0.0


@dataclass
class Verdict:
    """The judge's decision on one answer. `details` feeds the panel only; everything else is the contract."""

    exercise: str
    chapter: int
    status: str
    points: int
    max_points: int
    diagnosis: Diagnosis | None = None
    cases: list[Case] = field(default_factory=list)
    tier: str = "interpreter"
    seconds: float = 0.0
    details: dict = field(default_factory=dict)  # seed, printed, expected/got excerpts, traceback

    def contract(self) -> dict:
        """The JSON object of DESIGN section 4, and nothing else."""
        whole = asdict(self)
        whole.pop("details")
        whole["seconds"] = round(self.seconds, 3)
        return whole

    @classmethod
    def from_json(cls, data: dict) -> "Verdict":
        data = dict(data)
        data["diagnosis"] = Diagnosis(**data["diagnosis"]) if data.get("diagnosis") else None
        data["cases"] = [Case(**case) for case in data.get("cases", [])]
        return cls(**data)
