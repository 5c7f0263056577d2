"""Statistics studies as documents: drafts, plans and specs read back, digests cover every field, terms of sums agree."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from federation.statistics import MOST_ROUNDS, StatisticsDraft, StatisticsPlan, StatisticsSpec
from federation.study import SecurePlan
from tests.federation.query_drafts import EVERY_KIND, draft_tree, queries

SHARE = 16_384.0
SECURE = {"aggregation": "secure", "noise": "shared", "n_min": 4, "c": 1}


def draft(*given_queries: dict[str, Any], **changes: Any) -> StatisticsDraft:
    tree = draft_tree(*(given_queries or ({"kind": "count"},)), **changes)
    return StatisticsDraft.model_validate_json(json.dumps(tree))


def spec(asked: StatisticsDraft, secure: SecurePlan | None = None, **changes: Any) -> StatisticsSpec:
    fields: dict[str, Any] = {
        "draft": asked,
        "federation": "town",
        "charter": "a" * 64,
        "contract_digest": "b" * 64,
        "plan": StatisticsPlan(rounds=3, dimension=1000, share=SHARE),
        "nonce": "0" * 32,
        "secure": secure,
    }
    return StatisticsSpec(**(fields | changes))


def plan(**changes: Any) -> SecurePlan:
    return SecurePlan(**({"noise": "shared", "n_min": 4, "c": 1, "share": SHARE} | changes))


@settings(max_examples=50)
@given(trees=st.lists(queries(), min_size=1, max_size=5), epsilon=st.none() | st.floats(0.01, 10.0))
def test_a_draft_reads_back_and_its_digest_is_its_own(trees, epsilon):
    first, second = draft(*trees, epsilon=epsilon), draft(*trees, epsilon=epsilon)
    assert StatisticsDraft.from_canonical(first.canonical()) == first == second
    assert first.digest() == second.digest()
    assert first.columns == frozenset().union(*(query.columns for query in first.queries))


@settings(max_examples=50)
@given(trees=st.lists(queries(), min_size=1, max_size=4))
def test_a_spec_reads_back_and_its_digest_covers_draft_and_plan(trees):
    asked = spec(draft(*trees))
    assert StatisticsSpec.from_canonical(asked.canonical()) == asked
    changes: list[dict[str, Any]] = [
        {"draft": draft(*trees, title="Another")},
        {"federation": "city"},
        {"charter": "c" * 64},
        {"contract_digest": "c" * 64},
        {"plan": StatisticsPlan(rounds=4, dimension=1000, share=SHARE)},
        {"nonce": "1" * 32},
    ]
    digests = {spec(**({"asked": asked.draft} | _named(change))).digest() for change in changes}
    assert len(digests | {asked.digest()}) == len(changes) + 1


def _named(change: dict[str, Any]) -> dict[str, Any]:
    return {("asked" if key == "draft" else key): value for key, value in change.items()}


def test_the_order_of_queries_is_part_of_a_study():
    one, other = {"id": "a", "kind": "count"}, {"id": "b", "kind": "count"}
    assert draft(one, other).digest() != draft(other, one).digest()


def test_what_is_not_given_leaves_no_trace_in_the_encoding():
    for word in (b'"aggregation"', b'"noise"', b'"n_min"', b'"c":'):
        assert word not in draft().canonical() and word in draft(**SECURE).canonical()
    assert b'"secure":' not in spec(draft()).canonical()


def test_ids_stand_once():
    with pytest.raises(ValidationError, match="more than once: q0"):
        draft({"kind": "count"}, {"id": "q0", "kind": "count"})


@pytest.mark.parametrize(
    "changes",
    [
        {"kind": "training"},
        {"queries": []},
        {"queries": [{"id": f"q{n}", "kind": "count"} for n in range(101)]},
        {"confidence": 0.4},
        {"confidence": 1.0},
        {"epsilon": 0.0},
        {"name": "No Name"},
        {"rounds": 5},
        {"min_partners": 0},
        {"noise": "shared"},
        {"n_min": 4},
        {"aggregation": "secure"},
        {"aggregation": "secure", "noise": "shared", "n_min": 3, "c": 1},
    ],
)
def test_what_is_no_draft_is_refused(changes):
    with pytest.raises(ValidationError):
        draft(**changes)


@pytest.mark.parametrize(
    "changes",
    [{"rounds": 0}, {"rounds": MOST_ROUNDS + 1}, {"dimension": 0}, {"share": 100.0}, {"share": 1e6}],
)
def test_impossible_plans(changes):
    with pytest.raises(ValidationError):
        StatisticsPlan(**({"rounds": 1, "dimension": 10, "share": SHARE} | changes))


def test_draft_and_plan_agree_on_how_sums_are_opened():
    assert spec(draft(**SECURE), plan()).secure == plan()
    assert spec(draft(**SECURE | {"noise": "local"}), plan(noise="local")).secure is not None
    for asked, secure in (
        (draft(), plan()),
        (draft(**SECURE), None),
        (draft(**SECURE), plan(noise="local")),
        (draft(**SECURE), plan(n_min=5)),
        (draft(**SECURE), plan(c=0)),
        (draft(**SECURE), plan(share=SHARE / 2)),
    ):
        with pytest.raises(ValidationError, match="another aggregation"):
            spec(asked, secure)


def test_every_kind_of_query_stands_in_one_draft():
    asked = draft(*EVERY_KIND)
    assert [query.kind for query in asked.queries] == [tree["kind"] for tree in EVERY_KIND]
    assert ("tenure", "end") in asked.columns
