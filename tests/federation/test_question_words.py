"""Every query has a sentence that names every column it looks at."""

import json
import typing

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from federation.measures import Condition
from federation.queries import Count, Group, Query
from federation.question_words import condition_words, describe, group_words

PARSER: TypeAdapter[Query] = TypeAdapter(Query)
CASES = [
    ({"kind": "count"}, "How many customers there are."),
    (
        {
            "kind": "count",
            "by": [{"column": "job"}, {"column": "age", "cuts": [30, 50]}],
            "where": [{"column": "loan", "any_of": ["no"]}, {"column": "balance", "ge": 0}],
            "accuracy": {"within": 50},
        },
        "How many customers there are, in each group of job and age (cut at 30 and 50); only customers with loan no and balance from 0 on; "
        "the noise is to move it by 50 at most, in 95% of all cases.",
    ),
    (
        {"kind": "sum", "of": "monetary", "clip": {"low": 0, "high": 5}},
        "The sum of monetary (clipped to 0 to 5) over customers.",
    ),
    (
        {"kind": "mean", "of": "age", "by": [{"column": "job"}]},
        "The mean of age over the customers for whom it is known, in each group of job.",
    ),
    (
        {"kind": "histogram", "of": "age", "cuts": [20, 40, 60]},
        "How many customers have which age (cut at 20, 40 and 60).",
    ),
    (
        {"kind": "histogram", "of": "job"},
        "How many customers have which job (by its groups, or the contract's knots).",
    ),
    (
        {"kind": "quantiles", "of": "monetary", "levels": [0.5, 0.999]},
        "Below which monetary lie 50% and 99.9% of the customers.",
    ),
    (
        {"kind": "crosstab", "rows": {"column": "job"}, "across": {"column": "age", "cuts": [40]}},
        "How many customers there are in each combination of job with age (cut at 40), and how strongly the two go together.",
    ),
    (
        {"kind": "correlation", "of": ["recency", "frequency", "monetary"]},
        "How far recency, frequency and monetary rise and fall together (Pearson's correlation of each pair).",
    ),
    (
        {"kind": "clusters", "of": ["recency", "frequency"], "between": [2, 4], "steps": 1},
        "Which 2 to 4 groups of alike customers there are by recency and frequency: sizes and averages, found in 1 step.",
    ),
    (
        {"kind": "tree", "of": ["age", "job"], "label": "bought", "depth": 2},
        "By which splits of age and job customers with bought are told from those without: a tree of 2 questions in a row at most, 200 "
        "customers or more in each leaf.",
    ),
]
OTHERS = [
    {"kind": "rfm", "recency": "recency", "frequency": "frequency", "monetary": "monetary"},
    {
        "kind": "rfm",
        "recency": "recency",
        "frequency": "frequency",
        "monetary": "monetary",
        "segments": [{"name": "best", "where": [{"column": "r", "ge": 4}, {"column": "f", "ge": 4}]}],
    },
    {
        "kind": "lifetime",
        "frequency": "frequency",
        "recency": "recency",
        "tenure": "tenure",
        "monetary": "monetary",
        "horizon": 2.5,
    },
    {
        "kind": "lifecycle",
        "stages": [
            {"name": "new", "where": [{"column": "tenure", "lt": 0.1}]},
            {"name": "gone", "where": [{"column": "recency", "missing": True}]},
        ],
    },
    {"kind": "clusters", "of": ["recency", "trend"], "k": 5},
    {
        "kind": "campaign",
        "arm": "arm",
        "outcomes": ["bought", "came_back"],
        "segment": "segment",
        "chosen_by": "chosen",
        "spend": "spend",
        "cost": "cost",
        "score": "score",
        "score_cuts": [0.1, 0.5],
    },
    {"kind": "campaign", "arm": "arm", "control": "nobody", "outcomes": ["bought"]},
]


def query(fields):
    return PARSER.validate_json(json.dumps({"id": "one"} | fields))


@pytest.mark.parametrize(("fields", "sentence"), CASES, ids=lambda item: item["kind"] if isinstance(item, dict) else "")
def test_a_query_reads_as_a_sentence(fields, sentence):
    assert describe(query(fields)) == sentence


@pytest.mark.parametrize("fields", [fields for fields, _ in CASES] + OTHERS, ids=lambda fields: fields["kind"])
def test_every_column_that_a_query_looks_at_is_named(fields):
    asked = query(fields)
    sentence = describe(asked)
    assert all(name in sentence for name, _ in asked.columns)
    assert sentence[0].isupper() and sentence.endswith(".") and "\n" not in sentence and "None" not in sentence


def test_there_are_words_for_every_kind():
    kinds = {kind.model_fields["kind"].annotation for kind in typing.get_args(typing.get_args(Query)[0])}
    shown = {typing.Literal[fields["kind"]] for fields, _ in CASES} | {typing.Literal[item["kind"]] for item in OTHERS}
    assert shown == kinds


def test_rules_are_said_one_by_one_in_their_order():
    sentence = describe(query(OTHERS[3]))
    assert "new (tenure below 0.1); gone (recency unknown); else other" in sentence
    assert "best (r from 4 on and f from 4 on)" in describe(query(OTHERS[1]))
    assert "usual ones" in describe(query(OTHERS[0]))


def test_conditions_say_their_bounds_and_when():
    assert condition_words(Condition(column="age", ge=30, lt=40)) == "age from 30 to below 40"
    assert condition_words(Condition(column="age", lt=40, at="end")) == "age at the end of the horizon below 40"
    assert condition_words(Condition(column="job", any_of=("clerk", "farmer"))) == "job clerk or farmer"
    many = condition_words(Condition(column="job", any_of=tuple(f"job{number}" for number in range(20))))
    assert many.endswith("job11 or 8 more") and "job12" not in many


def test_many_cuts_are_counted_and_few_are_said():
    assert (
        group_words(Group(column="age", cuts=tuple(float(cut) for cut in range(100))))
        == "age (cut at 100 points from 0 to 99)"
    )


@given(st.floats(allow_nan=False, allow_infinity=False, width=32), st.integers(1, 5))
def test_a_bound_is_said_with_all_the_digits_that_tell_it_apart(bound, places):
    words = condition_words(Condition(column="age", lt=round(bound, places)))
    assert float(words.removeprefix("age below ")) == pytest.approx(round(bound, places), rel=1e-11)


@given(st.lists(st.sampled_from(["recency", "frequency", "trend"]), min_size=1, max_size=4, unique=True))
def test_groups_are_joined_so_that_none_is_lost(names):
    asked = Count(id="one", kind="count", by=tuple(Group(column=name) for name in names))
    text = describe(asked)
    assert all(name in text for name in names) and text.count(" and ") == (len(names) > 1)
