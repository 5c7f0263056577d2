"""Answers and reports as documents: they read back, are found by name, and no two answers share an id."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from federation.answers import Answer, AnswerTable, MemberTerms, Row, StatisticsReport

LABELS = st.text(st.characters(codec="utf-8"), max_size=30)
NUMBERS = st.floats(allow_nan=False, allow_infinity=False)


@st.composite
def rows(draw: st.DrawFn) -> Row:
    value = draw(st.none() | NUMBERS)
    low, high = (None, None) if value is None else draw(st.tuples(NUMBERS, NUMBERS))
    return Row(key=tuple(draw(st.lists(LABELS, max_size=3))), value=value, low=low, high=high)


@st.composite
def tables(draw: st.DrawFn) -> AnswerTable:
    found = tuple(draw(st.lists(rows(), max_size=5)))
    return AnswerTable(name=draw(st.sampled_from(("customers", "share"))), title="T", unit="customers", rows=found)


@st.composite
def reports(draw: st.DrawFn) -> StatisticsReport:
    answers = [
        answer(f"a{place}", tables=tuple(draw(st.lists(tables(), min_size=1, max_size=3)))) for place in range(3)
    ]
    return report(answers=tuple(answers[: draw(st.integers(0, 3))]), title="Who they are")


def table(name: str = "customers", *found: Row) -> AnswerTable:
    return AnswerTable(name=name, title="T", unit="customers", key=("job",), rows=found)


def answer(name: str = "a", **changes: object) -> Answer:
    fields: dict[str, object] = {"id": name, "kind": "count", "title": "How many", "tables": (table(),)}
    return Answer(**(fields | changes))  # type: ignore[arg-type]


def report(**changes: object) -> StatisticsReport:
    fields: dict[str, object] = {
        "study": "ab" * 32,
        "name": "people",
        "title": "Who they are",
        "purpose": "marketing.analytics",
        "contract": "shop",
        "aggregation": "plain",
        "noise": "local",
        "confidence": 0.95,
        "rounds": 1,
        "members": (MemberTerms(member="alder", declared_size=400, epsilon=1.0, delta=1e-5, rounds=1),),
        "answers": (answer(),),
    }
    return StatisticsReport(**(fields | changes))  # type: ignore[arg-type]


@settings(max_examples=60)
@given(said=reports())
def test_a_report_reads_back_and_its_digest_is_its_own(said):
    again = StatisticsReport.from_canonical(said.canonical())
    assert again == said and again.digest() == said.digest()
    assert said.model_copy(update={"rounds": 2}).digest() != said.digest()


def test_ids_stand_once():
    with pytest.raises(ValidationError, match="an id of its own"):
        report(answers=(answer("a"), answer("b"), answer("a")))


def test_what_is_asked_for_by_name_is_found():
    first, second = Row(key=("clerk",), value=1.0), Row(key=("cook",), value=None)
    said = report(answers=(answer("a", tables=(table("customers", first, second), table("share"))), answer("b")))
    found = said.answer("a").table("customers")
    assert (found.value("clerk"), found.value("cook")) == (1.0, None)
    assert said.answer("a").table("share").rows == ()
    for missing in (
        lambda: said.answer("c"),
        lambda: said.answer("a").table("other"),
        lambda: found.value("nurse"),
        found.value,
    ):
        with pytest.raises(KeyError):
            missing()


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_what_is_no_number_stands_in_no_answer(number):
    with pytest.raises(ValidationError):
        Row(key=(), value=number)
    with pytest.raises(ValidationError):
        Row(key=(), value=1.0, low=number)


@pytest.mark.parametrize(
    "changes",
    [
        {"study": "ab"},
        {"rounds": 0},
        {"confidence": 1.0},
        {"aggregation": "mixed"},
        {"name": "No Name"},
        {"surprise": 1},
        {"answers": (answer(tables=(table(),)).model_copy(update={"tables": ()}).model_dump(),)},
    ],
)
def test_what_is_no_report_is_refused(changes):
    with pytest.raises(ValidationError):
        report(**changes)
