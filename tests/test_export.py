"""Every export in full against its schema, for verdicts of every kind; the totals are the sums of what they total."""

import csv
import io
import json
import re
import xml.etree.ElementTree as ElementTree

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from course_lib.grading import export
from course_lib.grading.verdict import STATUSES, Case, Diagnosis, Verdict
from course_lib.paths import ROOT

SCHEMAS = ROOT / "course_lib" / "grading" / "schemas"
ODD = "Wrong <b>&amp;</b> \x00 \x1b[31m\r\nsecond line \ud800 \ufffe ]]> é 漢 \U0001f600 \u202e"


def schema(name: str) -> dict:
    found = json.loads((SCHEMAS / f"{name}.json").read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(found)
    return found


def valid(report: object, name: str) -> object:
    """The report as a reader gets it: through JSON that any parser takes, held against the schema."""
    read = json.loads(json.dumps(report, allow_nan=False).encode("utf-8"))
    jsonschema.validate(read, schema(name), cls=jsonschema.Draft202012Validator)
    return read


def of_every_status() -> list[Verdict]:
    made = [Verdict("a", 3, "passed", 2, 2, None, [Case("x", "passed")], "interpreter", 0.5)]
    for status in STATUSES[1:]:
        made.append(Verdict(status, 3, status, 0, 3, Diagnosis("x", ODD), [Case("y", "failed", ODD)], "interpreter", 0.1))
    return made


# ---------------------------------------------------------------- JUnit has no JSON schema: its structure, element by element

NUMBER, SECONDS = re.compile(r"\d+"), re.compile(r"\d+\.\d{3}")
TOTALS = {"tests": NUMBER, "failures": NUMBER, "errors": NUMBER, "skipped": NUMBER, "time": SECONDS}
ANY = re.compile(r"[^\n]*", re.DOTALL)
SHAPE = {  # element: (its attributes, what it may hold, most children of a kind)
    "testsuites": ({"name": ANY, **TOTALS}, ("testsuite",), None),
    "testsuite": ({"name": ANY, **TOTALS}, ("testcase",), None),
    "testcase": ({"classname": re.compile(r"chapter_\d\d+"), "name": ANY, "time": SECONDS}, ("failure", "error", "skipped"), 1),
    "failure": ({"message": ANY, "type": re.compile("failed|not_attempted")}, (), 0),
    "error": ({"message": ANY, "type": re.compile("error|timeout|needs_review")}, (), 0),
    "skipped": ({"message": ANY}, (), 0),
}


def shaped(element: ElementTree.Element) -> None:
    """AssertionError where the element, or one in it, is not as JUnit readers take it."""
    attributes, inside, most = SHAPE[element.tag]
    assert set(element.attrib) == set(attributes), (element.tag, element.attrib)
    for key, value in element.attrib.items():
        assert attributes[key].fullmatch(value), (element.tag, key, value)
    assert {child.tag for child in element} <= set(inside) and (most is None or len(element) <= most)
    if inside:
        assert not (element.text or "").strip(), f"{element.tag} holds text"
    for child in element:
        shaped(child)
    if element.tag in ("testsuites", "testsuite"):
        cases = list(element.iter("testcase"))
        kinds = [child.tag for case in cases for child in case]
        seconds = sum(float(case.get("time")) for case in cases)
        assert int(element.get("tests")) == len(cases) and abs(float(element.get("time")) - seconds) < 0.0006 * (len(cases) + 1)
        assert [int(element.get(k)) for k in ("failures", "errors", "skipped")] == [kinds.count(k) for k in ("failure", "error", "skipped")]


def read_junit(text: str) -> ElementTree.Element:
    root = ElementTree.fromstring(text.encode("utf-8"))
    assert root.tag == "testsuites"
    shaped(root)
    return root


@pytest.mark.parametrize("attribute", ["tests", "failures", "name", "time"])
def test_the_structure_check_sees_what_is_missing_or_wrong(attribute):
    root = read_junit(export.junit(of_every_status()))
    root[0].set(attribute, "99\n")
    with pytest.raises(AssertionError):
        shaped(root)
    del root[0].attrib[attribute]
    with pytest.raises(AssertionError):
        shaped(root)


# ---------------------------------------------------------------- one verdict of every kind


def test_plain():
    found = valid(export.plain(of_every_status()), "plain")
    assert [one["status"] for one in found] == list(STATUSES)


def test_gradescope():
    found = valid(export.gradescope(of_every_status()), "gradescope")
    tests = {test["tags"][0]: test for test in found["tests"]}
    assert found["score"] == 2 and tests["passed"]["status"] == "passed" and tests["passed"]["score"] == tests["passed"]["max_score"] == 2
    for status in ("failed", "not_attempted", "error", "timeout"):
        assert tests[status]["status"] == "failed" and (tests[status]["score"], tests[status]["max_score"]) == (0, 3)
    for status in ("blocked", "needs_review"):  # neither failed nor passed
        assert not {"score", "max_score", "status"} & set(tests[status])
    assert "hardware" in tests["blocked"]["output"] and "person" in tests["needs_review"]["output"]


def test_classroom50():
    found = valid(export.classroom50(of_every_status(), {"CLASSROOM": "c", "ASSIGNMENT": "a", "OWNER": "o"}), "classroom50")
    assert found["score"] == 2 and found["max-score"] == 2 + 3 * 5 and (found["classroom"], found["owner"]) == ("c", "o")
    assert [test["passed"] for test in found["tests"]] == [True] + [False] * 5
    assert "blocked" not in [test["status"] for test in found["tests"]]
    with pytest.raises(ValueError, match="whole points"):
        export.classroom50([Verdict("a", 3, "failed", 0.5, 1)])


def test_junit():
    suite = read_junit(export.junit(of_every_status()))[0]
    assert {k: suite.get(k) for k in ("tests", "failures", "errors", "skipped")} == {"tests": "7", "failures": "2", "errors": "3", "skipped": "1"}
    assert suite[1][0].get("message").startswith("Wrong <b>&amp;</b>") and "second line" in suite[1][0].text
    assert suite.find("testcase[@name='blocked']")[0].tag == "skipped" and len(suite[0]) == 0


def test_junit_of_a_class():
    root = read_junit(export.junit_class({"ada": of_every_status(), "b\x00o\ud800b": [], "é": of_every_status()[:1]}))
    assert [suite.get("tests") for suite in root] == ["7", "0", "1"] and root.get("tests") == "8"


def test_nothing_to_report():
    assert valid(export.plain([]), "plain") == []
    assert valid(export.gradescope([]), "gradescope")["score"] == 0
    assert valid(export.classroom50([]), "classroom50")["max-score"] == 0
    assert len(read_junit(export.junit([]))[0]) == 0
    assert export.csv_rows({}).splitlines() == [",".join(export.CSV_COLUMNS)]


def test_the_case_speaks_where_there_is_no_diagnosis():
    assert export.message(Verdict("a", 1, "failed", 0, 1, None, [Case("x", "passed", "fine"), Case("y", "failed", "row 0")])) == "row 0"
    assert export.message(Verdict("a", 1, "not_attempted", 0, 1)) == "not attempted"


# ---------------------------------------------------------------- CSV


def read_csv(text: str) -> list[dict]:
    return list(csv.DictReader(io.StringIO(text, newline=""), strict=True))


FORMULAS = ("=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", " =1", "＝1", "\x00=1", "\x1b[0m=1", "\n\n@x", "\ufeff=1", "\u00a0=1", "\u200b=1")


@pytest.mark.parametrize("name", FORMULAS)
def test_no_cell_is_a_formula(name):
    found = read_csv(export.csv_rows({name: [Verdict(name, 1, "failed", 0, 1, Diagnosis(name, name))]}))
    for key in ("student", "exercise", "diagnosis", "message"):
        assert found[0][key].startswith("'") and "\n" not in found[0][key]
    assert read_csv(export.csv_totals({name: []}))[0]["student"].startswith("'")


def test_csv_rows_and_totals():
    rows = read_csv(export.csv_rows({"Ödön, “the” 2nd": of_every_status(), "b": of_every_status()[:1]}))
    assert len(rows) == 8 and tuple(rows[0]) == export.CSV_COLUMNS and rows[0]["student"] == "Ödön, “the” 2nd"
    assert [row["status"] for row in rows[:7]] == list(STATUSES) and rows[0]["message"] == "" and rows[1]["message"].startswith("Wrong <b>")
    assert "second line" not in rows[1]["message"]
    first, second = read_csv(export.csv_totals({"a": of_every_status(), "b": of_every_status()[-2:-1]}))
    assert tuple(first) == export.TOTAL_COLUMNS and (first["points"], first["max_points"], first["blocked_points"]) == ("2", "17", "3")
    assert first["percent"] == "11.8" and all(first[status] == "1" for status in STATUSES)
    assert (second["max_points"], second["percent"], second["blocked_points"]) == ("0", "", "3")


# ---------------------------------------------------------------- any verdict at all

texts = st.text(st.characters(), max_size=12) | st.sampled_from([ODD, *FORMULAS])
seconds = st.floats(0, 1e4, allow_nan=False)
cases = st.builds(Case, texts, st.sampled_from([status for status in STATUSES if status != "not_attempted"]), texts, seconds)


@st.composite
def verdicts(draw) -> Verdict:
    status = draw(st.sampled_from(STATUSES))
    most = draw(st.integers(0, 50))
    diagnosis = draw(st.none() | st.builds(Diagnosis, texts, texts))
    tier = draw(st.sampled_from(("interpreter", "compiled", "hopper")))
    found = draw(st.lists(cases, max_size=3))
    details = draw(st.just({}) | st.fixed_dictionaries({"seed": st.integers(0, 2**62)}))
    return Verdict(
        draw(texts), draw(st.integers(0, 21)), status, most if status == "passed" else 0, most, diagnosis, found, tier, draw(seconds), details
    )


many = st.lists(verdicts(), max_size=4)


@settings(max_examples=40, deadline=None)
@given(many)
def test_any_verdicts_make_valid_reports(found):
    valid(export.plain(found), "plain")
    gradescope = valid(export.gradescope(found), "gradescope")
    assert gradescope["score"] == sum(test.get("score", 0) for test in gradescope["tests"])
    assert len(gradescope["tests"]) == len(found)
    assert [t.get("status") == "passed" for t in gradescope["tests"]] == [v.status == "passed" for v in found]
    classroom = valid(export.classroom50(found, {}), "classroom50")
    for key in ("score", "max-score"):
        assert classroom[key] == sum(test[key] for test in classroom["tests"])
    assert len(classroom["tests"]) == sum(v.status != "blocked" for v in found)
    assert len(read_junit(export.junit(found))[0]) == len(found)


@settings(max_examples=40, deadline=None)
@given(st.dictionaries(texts, many, max_size=3))
def test_any_class_makes_valid_tables(submissions):
    rows = read_csv(export.csv_rows(submissions).encode("utf-8").decode("utf-8"))
    everything = [verdict for found in submissions.values() for verdict in found]
    assert [(row["status"], row["points"], row["max_points"]) for row in rows] == [(v.status, str(v.points), str(v.max_points)) for v in everything]
    for row in rows:
        assert None not in row and all(not re.match(r"\s*[=+\-@]", value) for key, value in row.items() if key not in ("seconds",))
    totals = read_csv(export.csv_totals(submissions))
    assert sum(int(row["points"]) for row in totals) == sum(v.points for v in everything if v.status != "blocked")
    assert sum(int(row["max_points"]) + int(row["blocked_points"]) for row in totals) == sum(v.max_points for v in everything)
    assert len(read_junit(export.junit_class(submissions))) == len(submissions)


@pytest.mark.parametrize(
    ("name", "spoil"),
    [
        ("plain", lambda r: r[0].pop("tier")),
        ("plain", lambda r: r[0].update(details={})),
        ("plain", lambda r: r[0].update(status="maybe")),
        ("gradescope", lambda r: r["tests"][0].update(status="blocked")),
        ("gradescope", lambda r: r["tests"][0].pop("max_score")),
        ("gradescope", lambda r: r.update(scores=1)),
        ("gradescope", lambda r: r["tests"][0].update(output_format="markdown")),
        ("classroom50", lambda r: r.update(score=1.5)),
        ("classroom50", lambda r: r["tests"][0].pop("passed")),
        ("classroom50", lambda r: r.update(extra=1)),
        ("classroom50", lambda r: r.update({"datetime": "today"})),
    ],
)
def test_the_schemas_refuse_what_is_wrong(name, spoil):
    report = json.loads(json.dumps(getattr(export, name)(of_every_status())))
    spoil(report)
    with pytest.raises(jsonschema.ValidationError):
        valid(report, name)
