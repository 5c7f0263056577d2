"""Queries as documents: they read back as they were, name every column that they look at, and say one thing."""

import json
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from federation.queries import Query
from tests.federation.query_drafts import EVERY_KIND, queries

ADAPTER: TypeAdapter[Query] = TypeAdapter(Query)


def read(tree: dict[str, object]) -> Query:
    return ADAPTER.validate_json(json.dumps({"id": "a"} | tree))


def test_the_examples_are_of_every_kind():
    known = {kind.model_fields["kind"].annotation.__args__[0] for kind in get_args(get_args(Query)[0])}  # type: ignore[union-attr]
    assert {tree["kind"] for tree in EVERY_KIND} == known


@given(tree=queries())
def test_a_query_reads_back_from_its_canonical_form(tree):
    query = read(tree)
    assert type(query).from_canonical(query.canonical()) == query
    assert read(json.loads(query.canonical())) == query
    assert read(json.loads(query.canonical())).digest() == query.digest()


@given(tree=queries())
def test_the_columns_are_those_that_the_query_names(tree):
    """Vaults let a study look at these and no others: a name anywhere in the query must be among them."""
    query = read(tree)
    names = {name for name, _ in query.columns}
    assert {item["column"] for item in tree["where"]} <= names
    assert {(item["column"], item.get("at", "start")) for item in tree["where"]} <= query.columns
    assert _named(tree) <= names
    assert names <= _named(tree)


def _named(tree: object) -> set[str]:
    """Every column that stands in a query as written."""
    singles = ("column", "of", "label", "recency", "frequency", "monetary", "tenure", "arm", "segment")
    found: set[str] = set()
    if isinstance(tree, dict):
        for key, value in tree.items():
            if key in (*singles, "outcomes"):
                found |= {value} if isinstance(value, str) else set(value)
            else:
                found |= _named(value)
    elif isinstance(tree, list | tuple):
        found = set().union(*(_named(item) for item in tree)) if tree else set()
    return found


def test_stages_are_looked_at_at_both_times():
    query = read({"kind": "lifecycle", "stages": [{"name": "new", "where": [{"column": "tenure", "lt": 0.25}]}]})
    assert query.columns == {("tenure", "start"), ("tenure", "end")}


def test_every_column_of_a_campaign_counts():
    named = {"segment": "job", "chosen_by": "how", "spend": "spent", "cost": "cost", "score": "risk"}
    query = read({"kind": "campaign", "arm": "arm", "outcomes": ["bought"], "score_cuts": [0.5]} | named)
    assert query.columns == {(name, "start") for name in ("arm", "bought", "job", "how", "spent", "cost", "risk")}


@pytest.mark.parametrize(
    ("tree", "words"),
    [
        ({"kind": "guess"}, "guess"),
        ({}, "kind"),
        ({"kind": "mean"}, "of"),
        ({"kind": "count", "of": "age"}, "of"),
        ({"kind": "count", "weight": 0.0}, "greater than 0"),
        ({"kind": "count", "weight": 1e4}, "less than or equal to 1000"),
        ({"kind": "count", "accuracy": {"within": 0.0}}, "greater than 0"),
        ({"kind": "count", "accuracy": {"within": 1.0, "confidence": 1.0}}, "0.999"),
        ({"kind": "count", "id": "No Name"}, "id"),
        ({"kind": "count", "by": [{"column": "job"}] * 5}, "at most 4"),
        ({"kind": "mean", "of": "age", "clip": {"low": 2.0, "high": 2.0}}, "must be below"),
        ({"kind": "quantiles", "of": "age", "levels": [0.0]}, "greater than 0"),
        ({"kind": "quantiles", "of": "age", "levels": []}, "at least 1"),
        ({"kind": "correlation", "of": ["age"]}, "at least 2"),
        ({"kind": "clusters", "of": ["age", "spent"], "k": 1}, "greater than or equal to 2"),
        ({"kind": "clusters", "of": ["age", "spent"], "steps": 21}, "less than or equal to 20"),
        ({"kind": "tree", "of": ["age"], "label": "bought", "depth": 6}, "less than or equal to 5"),
        ({"kind": "campaign", "arm": "arm", "outcomes": ["bought"], "score": "risk"}, "stand together"),
        ({"kind": "lifecycle", "stages": []}, "at least 1"),
        ({"kind": "count", "where": [{"column": "age"}]}, "says one thing"),
        ({"kind": "count", "where": [{"column": "age", "ge": 2.0, "lt": 1.0}]}, "no value is at least 2"),
    ],
)
def test_what_is_no_query_is_refused(tree, words):
    with pytest.raises(ValidationError) as caught:
        read(tree)
    assert words in str(caught.value)


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=5), lambda x: st.lists(x, max_size=3)))
def test_no_value_in_the_place_of_a_query_crashes(value):
    with pytest.raises(ValidationError):
        ADAPTER.validate_json(json.dumps(value))
