"""Predictions: a guess asked for before the number can be seen, kept in `.course/predictions.json`, shown beside the result.

    predict("ch03-passes", "How many times is each score read?", unit="reads")     a box and a Save button
    compare("ch03-passes", measured, unit="reads")                                 You said 2. It is 3.
    predictions()                                                                  how good the guesses are

Nothing here stops a notebook: no answer is an answer, and a file that cannot be read or written costs a sentence.
Knows nothing of chapters or exercises.
"""

import difflib
import math
import numbers
from collections.abc import Sequence

from course_lib.cards import Card, framed, plain, rich, show
from course_lib.guess import BadGuess, read_guess
from course_lib.prediction_book import blank, changing, entry_of, now, retire
from course_lib.words import number, unit_of

BLUE, GREEN, ORANGE, GREY = "#2F86D6", "#0B7A45", "#D55E00", "#8B9198"
_asked: dict[str, str] = {}  # the questions of this session, to notice one key used for two


def predict(key: str, question: str | None = None, unit: str = "", choices: Sequence[str] | None = None, guess=None, least: float | None = 0) -> None:
    """Ask for a guess: a number box, or buttons where `choices` are given. guess=3 stores it without widgets.

    least: the smallest number that is possible (None: any). A stored guess is shown, and can be changed until `compare` has measured.
    Without a question, the one that was asked under this key: `predict("ch03-passes", guess=3)` answers it.
    """
    if question is None or question is ...:
        show(_known_card(key, guess))
    else:
        show(question_card(key, question, unit, choices, guess, least))


def compare(key: str, measured, unit: str | None = None, note: str = "") -> None:
    """Show the guess beside what was measured (a number, or one of the choices), and keep both."""
    show(comparison_card(key, measured, unit, note))


def predictions() -> None:
    """Show all guesses beside what was measured, and how far off they are on average."""
    show(summary_card())


def forget(key: str) -> None:
    """Make room for a new guess; the old one moves to the history."""
    with changing() as (book, notices):
        entry = book.get(key)
        if entry:
            retire(entry)
    show(Card(framed(rich(" ".join(notices) or "The question is open again.")), " ".join(notices) or "The question is open again."))


def _known_card(key: str, guess) -> Card:
    """The card of a question that was asked before, now or in an earlier session; a sentence where there is none."""
    with changing(write=False) as (book, notices):
        asked = {name: entry for name, entry in book.items() if entry["question"]}
    if isinstance(key, str) and key in asked:
        entry = asked[key]
        return question_card(key, entry["question"], entry["unit"], entry["choices"], guess, entry["least"])
    near = difflib.get_close_matches(str(key), asked, n=1)
    offer = f"Did you mean {near[0]!r}?" if near else "Run the cell that asks it first."
    words = " ".join([f"predict: no question with the key {key!r} has been asked. {offer}", *notices])
    return Card(framed(rich(words), ORANGE, status=True), words)


def question_card(key: str, question: str, unit: str = "", choices: Sequence[str] | None = None, guess=None, least: float | None = 0) -> Card:
    """The card of `predict`: question, what is stored, and controls where there is a notebook."""
    choices = _checked(key, question, choices)
    notices = []
    if _asked.setdefault(key, question) != question:
        notices.append(f"The key {key!r} was used for another question in this notebook ({_asked[key]!r}). Give each question its own key.")
    notices += _opened(key, question, unit, choices, least)
    if guess is not None:
        notices.append(save_guess(key, guess, choices, unit, least))
    entry, _ = entry_of(key)
    status = _status(entry, unit)
    say = [*notices, *([] if guess is not None and notices and status in notices[-1] else [status])]
    head = f"**Predict:** {question}{f' ({unit})' if unit and not choices else ''}"
    example = f'"{choices[0]}"' if choices else "12"
    how = f'To answer without a box: `predict("{key}", guess={example})`'
    lines = [head, *([f"Choices: {'; '.join(choices)}"] if choices else []), *say]
    lines += [] if entry.get("guess") is not None else [how]
    body = "".join(f"<div>{rich(line)}</div>" for line in lines)
    extra = {} if entry.get("measured") is not None else _controls(key, head, unit, choices, least, say, entry.get("guess"))
    return Card(framed(body, BLUE), "\n".join(plain(line) for line in lines), extra)


def save_guess(key: str, guess, choices: Sequence[str] | None = None, unit: str = "", least: float | None = 0) -> str:
    """Store one guess. Returns the sentence to show: what was kept, or why nothing was."""
    try:
        value = read_guess(guess, choices, unit, least)
    except BadGuess as problem:
        return str(problem)
    with changing() as (book, notices):
        entry = book.setdefault(key, blank())
        if entry["measured"] is not None and entry["guess"] is not None:
            same = entry["guess"] == value
            return (
                _status(entry, unit)
                if same
                else f"{_status(entry, unit)} The guess made before the measurement stays; forget({key!r}) opens the question again."
            )
        entry.update(guess=value, at=now(), unit=unit or entry["unit"])
        entry["measured"] = entry["measured_at"] = None
    return " ".join([_status(book[key], unit), *notices])


def comparison_card(key: str, measured, unit: str | None = None, note: str = "") -> Card:
    """The card of `compare`. A guess that was made is kept together with the measurement."""
    measured = _plain_value(measured)
    with changing(write=False) as (book, notices):
        entry = dict(book.get(key) or blank())
    unit = entry["unit"] if unit is None else unit
    it_is = _with_unit(measured, unit)
    if entry["guess"] is None:
        colour, sentence = GREY, f"You made no prediction; it is {it_is}."
    else:
        with changing() as (book, more):
            if key in book:
                book[key].update(measured=_storable(measured), measured_at=now())
        notices = notices + more
        right, verdict = _judged(entry["guess"], measured)
        colour, sentence = (GREEN if right else ORANGE), f"You said {_words(entry['guess'])}. It is {it_is}{verdict}."
    lines = [f"**{sentence}**", *([note] if note else []), *notices]
    return Card(framed("".join(f"<div>{rich(line)}</div>" for line in lines), colour, status=True), "\n".join(plain(line) for line in lines))


def summary_card() -> Card:
    """The card of `predictions`: every question with guess, measurement and ratio, and the geometric mean of how far off they are."""
    with changing(write=False) as (book, notices):
        made = {key: entry for key, entry in book.items() if entry["guess"] is not None}
    if not made:
        words = " ".join(["No predictions yet: answer one of the boxes in a chapter, then run on.", *notices])
        return Card(framed(rich(words)), words)
    rows = []
    for key, entry in made.items():
        ratio = _ratio(entry["guess"], entry["measured"])
        result = "not measured yet" if entry["measured"] is None else _words(entry["measured"])
        off = f"{ratio:.2f}" if ratio else ("" if entry["measured"] is None else ("right" if entry["guess"] == entry["measured"] else "wrong"))
        rows.append((entry["question"] or key, _words(entry["guess"]), result, unit_of(entry["measured"], entry["unit"]), off))
    lines = [calibration(made), *notices]
    cells = "".join(
        "<tr>"
        + "".join(f'<td style="text-align:{"left" if i in (0, 3) else "right"};padding:2px 10px">{rich(c)}</td>' for i, c in enumerate(r))
        + "</tr>"
        for r in rows
    )
    head = "".join(
        f'<th scope="col" style="text-align:left;padding:2px 10px">{word}</th>' for word in ("Question", "You said", "It is", "Unit", "It / you")
    )
    table = f'<table style="border-collapse:collapse"><thead><tr>{head}</tr></thead><tbody>{cells}</tbody></table>'
    text = "\n".join([*(f"{q}: you said {g}, it is {m} {u}{f' (it / you = {o})' if o else ''}" for q, g, m, u, o in rows), *lines])
    return Card(framed("".join(f"<div><b>{rich(line)}</b></div>" for line in lines) + table, BLUE), text)


def calibration(book: dict[str, dict]) -> str:
    """One sentence on how good the guesses are: the geometric mean of the factors by which they are off, and to which side."""
    ratios = [r for e in book.values() if (r := _ratio(e["guess"], e["measured"]))]
    chosen = [e["guess"] == e["measured"] for e in book.values() if isinstance(e["guess"], str) and e["measured"] is not None]
    parts = []
    if ratios:
        logs = [math.log(r) for r in ratios]
        off = math.exp(sum(abs(x) for x in logs) / len(logs))
        lean = math.exp(sum(logs) / len(logs))
        side = "neither high nor low" if 0.8 < lean < 1.25 else "too low" if lean > 1 else "too high"
        parts.append(
            f"{len(ratios)} number{'s' * (len(ratios) != 1)} guessed: off by a factor of {off:.2f} on average (geometric mean), on the whole {side}."
        )
    if chosen:
        parts.append(f"{sum(chosen)} of {len(chosen)} choices right.")
    return " ".join(parts) or "Nothing measured yet."


def _checked(key: str, question: str, choices) -> tuple[str, ...] | None:
    """The author's side: key, question and choices make sense."""
    if not isinstance(key, str) or not key.strip() or not isinstance(question, str) or not question.strip():
        raise ValueError("predict needs a key and a question: predict('ch03-passes', 'How many times is each score read?', unit='reads')")
    if choices is None:
        return None
    if isinstance(choices, str) or len(set(choices)) != len(list(choices)) or len(list(choices)) < 2:
        raise ValueError(f"predict {key!r}: choices must be a list of at least two different answers")
    return tuple(str(choice) for choice in choices)


def _opened(key: str, question: str, unit: str, choices, least) -> list[str]:
    """Note the question; a guess given in another unit or from other choices moves to the history."""
    with changing(write=False) as (book, notices):
        entry = book.get(key)
    wanted = {"question": question, "unit": unit, "choices": list(choices) if choices else None, "least": least}
    if entry is None or all(entry[name] == value for name, value in wanted.items()):
        known = entry is not None
    else:
        known = False
    if known:
        return notices
    with changing() as (book, more):
        entry = book.setdefault(key, blank())
        if entry["guess"] is not None and (entry["unit"], entry["choices"]) != (unit, wanted["choices"]):
            retire(entry)
            more.append("This question has changed since you answered it: your earlier guess is kept in the history.")
        entry.update(wanted)
    return notices + more


def _status(entry: dict, unit: str) -> str:
    """Where the question stands, as a sentence."""
    guess, measured, unit = entry.get("guess"), entry.get("measured"), "" if entry.get("choices") else unit
    if guess is None:
        return "Not answered yet. Running on without an answer is fine."
    if measured is None:
        return f"You said {_with_unit(guess, unit)}. It can be changed until it is measured."
    return f"You said {_with_unit(guess, unit)}; it was measured as {_with_unit(measured, unit)}."


def _with_unit(value, unit: str) -> str:
    """`2 reads`, `1 read`."""
    return f"{_words(value)} {unit_of(value, unit)}".strip()


def _judged(guess, measured) -> tuple[bool, str]:
    """(whether it counts as right, what to add after the number)."""
    ratio = _ratio(guess, measured)
    if isinstance(guess, str) or ratio is None:
        return guess == measured, "" if guess != measured else ": right"
    if guess == measured:
        return True, ": exactly"
    if 0.9 <= ratio <= 1.1:
        return True, f", within {max(1, round(abs(ratio - 1) * 100))} %"
    return False, f": {_words(ratio, 2)} times your guess" if ratio > 1 else f": your guess is {_words(1 / ratio, 2)} times that"


def _ratio(guess, measured) -> float | None:
    """measured / guess, where both are positive numbers."""
    if any(isinstance(x, str | bool) or x is None for x in (guess, measured)) or not (guess > 0 and measured > 0 and math.isfinite(measured)):
        return None
    return measured / guess


def _plain_value(measured):
    """A measurement as a Python number, bool or text."""
    if hasattr(measured, "item"):
        if getattr(measured, "size", 1) not in (0, 1) and not callable(getattr(measured, "size", None)):
            raise ValueError(f"compare needs one number, and this is an array of {measured.size}")
        try:
            measured = measured.item()
        except (RuntimeError, ValueError) as problem:
            raise ValueError("compare needs one number; this tensor holds several") from problem
    if not isinstance(measured, numbers.Real | str):
        raise ValueError(f"compare needs a number or one of the choices, and {measured!r:.60} is neither")
    return measured


def _words(value, digits: int = 4) -> str:
    """A value as the cards write it."""
    if isinstance(value, str | bool) or value is None:
        return str(value)
    return number(value, digits)


def _storable(value):
    """JSON has no nan and no infinity: they are kept as text."""
    return value if isinstance(value, str | bool | int) else float(value) if math.isfinite(value) else str(value)


def _controls(key: str, head: str, unit: str, choices, least, say: list[str], guess) -> dict:
    """The live form of the card: a box (or buttons) and Save. {} where ipywidgets is missing."""
    try:
        import ipywidgets as widgets
    except ImportError:
        return {}
    if choices:
        box = widgets.RadioButtons(options=list(choices), value=guess if guess in choices else None, layout=widgets.Layout(width="auto"))
    else:
        hint = f"your guess, in {unit}" if unit else "your guess"
        box = widgets.Text(value="" if guess is None else _words(guess, 15), placeholder=hint, layout=widgets.Layout(width="260px"))
    save = widgets.Button(description="Save", tooltip="Keep this guess")
    said = widgets.HTML(_said(say))
    box.add_class("k-guess")
    save.add_class("k-save")

    def keep(_) -> None:
        said.value = _said([save_guess(key, box.value, choices, unit, least)])

    save.on_click(keep)
    whole = widgets.VBox(
        [widgets.HTML(f'<div style="line-height:1.5">{rich(head)}</div>'), (widgets.VBox if choices else widgets.HBox)([box, save]), said],
        layout=widgets.Layout(margin="4px 0 16px 0"),  # two questions in one cell stay apart
    )
    whole.add_class("k-predict")
    return {"application/vnd.jupyter.widget-view+json": {"version_major": 2, "version_minor": 0, "model_id": whole.model_id}}


def _said(lines: list[str]) -> str:
    return f'<div role="status" aria-live="polite" style="line-height:1.5">{"<br>".join(rich(line) for line in lines)}</div>'
