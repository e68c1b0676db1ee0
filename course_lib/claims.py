"""Claim cells: what a source says, what this machine gets, and the verdict, on one card.

`got` is what the cell computed: a number, or an f-string with numbers in it. A claim without a source is refused.
"""

import math
import numbers

from course_lib.cards import Card, framed, plain, rich, show

VERDICTS = {"right": "#0B7A45", "right with a condition": "#2F86D6", "off by": "#D55E00", "wrong": "#D55E00"}


def claim(said: str, source: str, got, verdict: str, why: str = "", unit: str = "") -> None:
    """Show a claim card. verdict: "right", "right with a condition", "wrong" or "off by ..."; more words go after a colon or in `why`.

    claim(said="64K tokens take 16 GB in fp16", source="note 004, section 1.1", got=f"{65536 ** 2 * 2 / 2 ** 30:g} GiB a head",
          verdict="off by two", why="16 GiB is the fp32 figure")
    """
    show(claim_card(said, source, got, verdict, why, unit))


def claim_card(said: str, source: str, got, verdict: str, why: str = "", unit: str = "") -> Card:
    """The card itself; ValueError in a sentence where a part is missing."""
    said, source, verdict, why = (_words(name, text) for name, text in (("said", said), ("source", source), ("verdict", verdict), ("why", why)))
    if not said:
        raise ValueError("claim: said is empty; quote the claim, in the words of its source")
    if not source:
        raise ValueError("claim: source is missing; say where the claim stands, for example source='note 004, section 2.1'")
    kind = next((kind for kind in sorted(VERDICTS, key=len, reverse=True) if verdict.lower().startswith(kind)), None)
    if kind is None:
        raise ValueError(f"claim: the verdict is {verdict!r}; begin it with one of {', '.join(repr(v) for v in VERDICTS)}")
    got = _result(got, unit)
    full = f"{verdict.rstrip('.')}{f'; {why}' if why else ''}".rstrip(".") + "."
    lines = (("Said", f"{said} ({source})"), ("We get", got), ("Verdict", full[0].upper() + full[1:]))
    body = "".join(f"<div><b>{label}:</b> {rich(words)}</div>" for label, words in lines)
    return Card(framed(body, VERDICTS[kind]), "\n".join(f"{label}: {plain(words)}" for label, words in lines))


def _words(name: str, text) -> str:
    if not isinstance(text, str):
        raise ValueError(f"claim: {name} must be text, and {text!r:.60} is not")
    return text.strip()


def _result(got, unit: str) -> str:
    """A computed value as words: numbers with at most 4 digits, text as it is; empty text and nan are refused."""
    if hasattr(got, "item") and getattr(got, "ndim", 0) == 0:
        got = got.item()
    if isinstance(got, bool):
        return "yes" if got else "no"
    if isinstance(got, numbers.Real):
        if math.isnan(got):
            raise ValueError("claim: got is nan; mend the computation in this cell before drawing a verdict from it")
        words = f"{int(got):,}" if math.isfinite(got) and got == int(got) and abs(got) < 1e15 else f"{got:.4g}"
        return f"{words} {unit}".strip()
    if isinstance(got, str) and got.strip():
        return f"{got.strip()} {unit}".strip()
    raise ValueError(
        "claim: got must be what this cell computed, a number or an f-string with it; it is "
        + ("empty" if got is None or got == "" else f"{got!r:.60}")
    )
