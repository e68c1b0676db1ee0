"""From single verdicts to the figures of the grader's report, and to the page that shows them. Pure functions."""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from course_lib.source import Exercise

KILLED = ("failed", "timeout")
LEVEL = 0.95


def upper_bound(hits: int, trials: int, level: float = LEVEL) -> float:
    """The Clopper-Pearson upper bound of a rate, one-sided: 0 of n gives about 3/n at 95 %."""
    if trials == 0 or hits >= trials:
        return 1.0
    low, high = hits / trials, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        if _at_most(hits, trials, middle) > 1 - level:
            low = middle
        else:
            high = middle
    return high


def _at_most(hits: int, trials: int, rate: float) -> float:
    """P(X <= hits) of a binomial, by logarithms."""
    if rate <= 0:
        return 1.0
    if rate >= 1:
        return 0.0
    terms = (
        math.lgamma(trials + 1) - math.lgamma(k + 1) - math.lgamma(trials - k + 1) + k * math.log(rate) + (trials - k) * math.log1p(-rate)
        for k in range(hits + 1)
    )
    return math.fsum(map(math.exp, terms))


def rate(hits: int, trials: int) -> dict:
    """A rate with its upper bound."""
    return {"count": hits, "of": trials, "rate": round(hits / trials, 6) if trials else None, "upper 95 %": round(upper_bound(hits, trials), 6)}


def quantile(values: Sequence[float], share: float) -> float:
    """The nearest-rank quantile."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def seconds(values: Sequence[float]) -> dict:
    return {"checks": len(values), "p50": round(quantile(values, 0.5), 3), "p95": round(quantile(values, 0.95), 3), "max": round(max(values), 3)}


# ---------------------------------------------------------------- figures


def summary(exercises: list[Exercise], lines: list[dict]) -> dict:
    """The figures of each chapter and of all, from the lines of the journal."""
    chapter_of, kind_of = {e.name: e.chapter for e in exercises}, {e.name: e.kind for e in exercises}
    rows = [(*line["unit"][:3], *row) for line in lines for row in line["rows"]]
    chapters = sorted(set(chapter_of.values()))
    return {
        "total": figures(rows, kind_of),
        "chapters": {f"{number:02d}": figures([row for row in rows if chapter_of[row[0]] == number], kind_of) for number in chapters},
    }


def figures(rows: list[tuple], kind_of: dict[str, str]) -> dict:
    """rows: (exercise, phase, number, what, name, status, diagnosis, own sentence, seconds)."""
    seeded = [row for row in rows if row[1] == "seeds"]
    mutants, honest = [row for row in seeded if row[3] == "mutant"], [row for row in seeded if row[3] != "mutant"]
    killed = [row for row in mutants if row[5] in KILLED]
    names = {(row[0], row[4]) for row in mutants}
    wrong_named = [row for row in killed if not row[7] and (row[0], row[6]) in names]
    unknown = [row for row in killed if not row[7] and (row[0], row[6]) not in names]
    refused = [row for row in honest if row[5] != "passed"]
    return {
        "exercises": len({row[0] for row in rows}),
        "mutants": {
            "texts": len(names),
            "killed": rate(len(killed), len(mutants)),
            "survived": rate(len(mutants) - len(killed), len(mutants)),
            "own sentence": rate(sum(row[7] for row in mutants), len(mutants)),
            "wrong name": {**rate(len(wrong_named), len(mutants)), "texts": rate(len(_texts(wrong_named)), len(names))},
            "unknown": rate(len(unknown), len(mutants)),
            "not own": _listed([row for row in mutants if not row[7]]),
        },
        "right answers": {
            "texts": len(_texts(honest)),
            "refused": {**rate(len(refused), len(honest)), "texts": rate(len(_texts(refused)), len(_texts(honest)))},
            "which": _listed(refused),
        },
        "repeats": stability([row for row in rows if row[1] == "repeats"]),
        "seconds": {
            "all": seconds([row[8] for row in rows]),
            "by kind": _seconds(rows, lambda row: kind_of[row[0]]),
            "by status": _seconds(rows, lambda row: row[5]),
        },
    }


def stability(rows: list[tuple]) -> dict:
    """How many texts got two different verdicts (status or diagnosis) under one seed; a text graded once says nothing of it."""
    seen = defaultdict(Counter)
    for row in rows:
        seen[row[0], row[4]][row[5], row[6]] += 1
    seen = {key: found for key, found in seen.items() if sum(found.values()) > 1}
    changing = {
        f"{exercise}, {name}": [[*verdict, count] for verdict, count in found.items()] for (exercise, name), found in seen.items() if len(found) > 1
    }
    status = [key for key, found in seen.items() if len({verdict[0] for verdict in found}) > 1]
    return {"checks": len(rows), "changed": rate(len(changing), len(seen)), "changed status": len(status), "which": changing}


def _texts(rows: Iterable[tuple]) -> set[tuple]:
    return {(row[0], row[4]) for row in rows}


def _listed(rows: list[tuple]) -> dict[str, dict[str, int]]:
    found: dict[str, Counter] = defaultdict(Counter)
    for row in rows:
        found[f"{row[0]}, {row[4]}"][f"{row[5]}: {row[6]}"] += 1
    return {key: dict(counts) for key, counts in sorted(found.items())}


def _seconds(rows: list[tuple], key) -> dict:
    groups = defaultdict(list)
    for row in rows:
        groups[key(row)].append(row[8])
    return {name: seconds(values) for name, values in sorted(groups.items())}


# ---------------------------------------------------------------- the page


def page(report: dict) -> str:
    """docs/grader-report.md, from the JSON and nothing else."""
    parts = ["# The grader, measured", "", "Made by `make grader-report` from `benchmarks/results/grader_report.json`; do not edit it by hand.", ""]
    if "total" in report:
        parts += _measured(report)
    if "held out" in report:
        parts += _held_out(report["held out"])
    if report.get("adversaries"):
        parts += _adversaries(report["adversaries"])
    if "class" in report:
        parts += _class(report["class"])
    return "\n".join(parts).rstrip("\n") + "\n"


def _where(report: dict) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in report["versions"].items())
    return f"{report['machine']}, {report['date']}, {versions}. {report['containment'][0].upper()}{report['containment'][1:]}"


def _times(count: int, word: str) -> str:
    return f"{count} {word}{'s' * (count != 1)}"


def _load(report: dict) -> str:
    load = report["load"]
    return f"other work to do (load {load:.0f})" if load > 3 else "little else to do"


def _measured(report: dict) -> list[str]:
    columns = {f"chapter {number}": one for number, one in report["chapters"].items()} | {"all": report["total"]}
    table = [
        ("exercises", lambda c: f"{c['exercises']}"),
        ("mutants (named wrong solutions)", lambda c: f"{c['mutants']['texts']}"),
        ("killed", lambda c: _share(c["mutants"]["killed"])),
        ("came back with their own sentence", lambda c: _share(c["mutants"]["own sentence"])),
        ("came back with another mutant's name", lambda c: _count(c["mutants"]["wrong name"])),
        ("came back with no name", lambda c: _count(c["mutants"]["unknown"])),
        ("right answers (solutions and other styles)", lambda c: f"{c['right answers']['texts']}"),
        ("refused, though right", lambda c: _count(c["right answers"]["refused"])),
        ("texts whose verdict changed in the repeats", lambda c: _count(c["repeats"]["changed"])),
        ("seconds a check: median, p95, longest", lambda c: _seconds_words(c["seconds"]["all"])),
    ]
    out = [
        f"{_where(report)} `{report['command']}` repeats it. Right answers under "
        f"{_times(report['seeds'], 'seed')}, and {_times(report['repeats'], 'time')} under one more seed; mutants under "
        f"{_times(report['mutant seeds'], 'seed')}, and {_times(report['mutant repeats'], 'time')} under that one more. While it was measured the machine had {_load(report)}.",
        "",
        "In brackets: the upper end of the 95 % interval (Clopper-Pearson, one-sided), each check counted as a trial.",
        "",
        "| | " + " | ".join(columns) + " |",
        "|---" * (len(columns) + 1) + "|",
    ]
    out += [f"| {name} | " + " | ".join(show(one) for one in columns.values()) + " |" for name, show in table]
    total = report["total"]
    wrong, refused = total["mutants"]["wrong name"]["texts"], total["right answers"]["refused"]["texts"]
    out += [
        "",
        "Seeds change an answer's inputs, not its text, so checks of one text are no independent trials. Counted by texts, wrongly named at least "
        f"once: {_count(wrong)}; refused at least once, though right: {_count(refused)}. The mutants are the course's own: the rates say what the "
        "grader does with the mistakes that it knows, not with those that nobody has thought of.",
        "",
    ]
    out += _lists(total)
    out += ["## Seconds a check", "", "| | checks | median | p95 | longest |", "|---|---|---|---|---|"]
    for group in ("by kind", "by status"):
        rows = total["seconds"][group].items()
        out += [f"| {name.replace('_', ' ')} | {one['checks']:,} | {one['p50']:.2f} | {one['p95']:.2f} | {one['max']:.2f} |" for name, one in rows]
    return [*out, ""]


def _lists(total: dict) -> list[str]:
    """What is not as it should be, one by one."""
    out = []
    for title, found in (
        ("Mutants without their own sentence", total["mutants"]["not own"]),
        ("Right answers that were refused", total["right answers"]["which"]),
    ):
        if found:
            out += [f"{title}:", ""]
            out += [f"- {name}: {', '.join(f'{said} ({count} times)' for said, count in counts.items())}" for name, counts in found.items()]
            out += [""]
    if total["repeats"]["which"]:
        out += ["Verdicts that changed in the repeats:", ""]
        for name, found in total["repeats"]["which"].items():
            out += [f"- {name}: {', '.join(f'{status}, {said} ({count} times)' for status, said, count in found)}"]
        out += [""]
    return out


def _held_out(found: dict) -> list[str]:
    out = [
        "## Mistakes that the grader does not know",
        "",
        f"Each of the {found['mutants']} mutants, graded by a judge from whose list it was taken out (one seed): {found['no name']} came back with what was seen "
        f"and no name, {found['named as another']} with the name of another mutant, {len(found['passed'])} passed."
        + (" Such a name may fit: two entries of a list may be one mistake in two spellings." if found["which"] else ""),
        "",
    ]
    if found["which"]:
        out += ["| mutant | was taken for |", "|---|---|", *(f"| {name} | {other} |" for name, other in found["which"].items()), ""]
    return out


def _adversaries(found: dict) -> list[str]:
    cases, held = (sum(row[key] for row in found["tests"].values()) for key in ("cases", "held"))
    out = [
        "## Adversaries",
        "",
        f"`tests/test_adversaries*.py`: {held} of {cases} cases held.",
        "",
        "| test | cases | held | not run here |",
        "|---|---|---|---|",
    ]
    out += [f"| {name} | {row['cases']} | {row['held']} | {row['skipped']} |" for name, row in found["tests"].items()]
    return [*out, "", *(["Not held:", "", *(f"- `{name}`" for name in found["not held"]), ""] if found["not held"] else [])]


def _class(found: dict) -> list[str]:
    right = found["answers"] - len(found["wrong"])
    safe = (
        "No submission and no file of the course was changed"
        if found["submissions unchanged"] and found["course unchanged"]
        else "FILES WERE CHANGED"
    )
    out = [
        f"## A class of {found['submissions']}",
        "",
        f"{_where(found)} `python -m tools.grader_report --class {found['submissions']}` repeats it.",
        "",
        f"{found['submissions']} made-up submissions of chapter {found['chapter']:02d}, {found['answers']:,} answers, graded in {found['minutes']:.1f} minutes by "
        f"{found['workers']} workers. {right:,} of {found['answers']:,} verdicts are right; {found['named']:,} of {found['nameable']:,} diagnoses are the expected one. "
        f"{safe}. {found['same alone']} of {found['graded alone']} submissions that were graded again by themselves got the same verdicts.",
        "",
        *[f"- not right: {one}" for one in found["wrong"]],
        *([""] if found["wrong"] else []),
        "| submissions | answers | right |",
        "|---|---|---|",
    ]
    return [*out, *(f"| {kind} | {one['answers']} | {one['right']} |" for kind, one in sorted(found["by_kind"].items())), ""]


def _share(found: dict) -> str:
    if not found["of"]:
        return "-"
    return "100 %" if found["count"] == found["of"] else f"{100 * found['rate']:.2f} % ({found['of'] - found['count']} of {found['of']:,} not)"


def _count(found: dict) -> str:
    return f"{found['count']} of {found['of']:,} (< {100 * found['upper 95 %']:.2g} %)" if found["of"] else "-"


def _seconds_words(found: dict) -> str:
    return f"{found['p50']:.2f}, {found['p95']:.2f}, {found['max']:.2f}"
