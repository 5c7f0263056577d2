"""Queries of every kind, drawn and written out, for tests of documents."""

from typing import Any

from hypothesis import strategies as st

NAMES = ("age", "spent", "job", "member")
EVERY_KIND: tuple[dict[str, Any], ...] = (
    {"kind": "count"},
    {"kind": "sum", "of": "spent"},
    {"kind": "mean", "of": "age", "clip": {"low": 20.0, "high": 60.0}},
    {"kind": "histogram", "of": "age", "cuts": [30.0, 50.0]},
    {"kind": "quantiles", "of": "spent", "levels": [0.1, 0.9], "by": [{"column": "job"}]},
    {"kind": "crosstab", "rows": {"column": "job"}, "across": {"column": "age", "cuts": [40.0]}},
    {"kind": "correlation", "of": ["age", "spent"]},
    {"kind": "rfm", "recency": "recency", "frequency": "frequency", "monetary": "monetary"},
    {"kind": "lifetime", "frequency": "frequency", "recency": "recency", "tenure": "tenure", "monetary": "monetary"},
    {"kind": "lifecycle", "stages": [{"name": "new", "where": [{"column": "tenure", "lt": 0.25}]}]},
    {"kind": "clusters", "of": ["age", "spent"], "k": 4},
    {"kind": "tree", "of": ["age", "job"], "label": "bought"},
    {"kind": "campaign", "arm": "arm", "outcomes": ["bought"], "segment": "job"},
)


def draft_tree(*queries: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """A draft of statistics as a person writes it; queries without an id are numbered."""
    tree: dict[str, Any] = {
        "kind": "statistics",
        "name": "people",
        "title": "Who they are",
        "purpose": "marketing.analytics",
        "contract": "shoppers",
        "queries": [{"id": f"q{place}"} | query for place, query in enumerate(queries)],
    }
    return tree | changes


@st.composite
def conditions(draw: st.DrawFn) -> dict[str, Any]:
    """A condition of each of the three kinds."""
    found: dict[str, Any] = {"column": draw(st.sampled_from(NAMES))}
    if draw(st.booleans()):
        found["at"] = "end"
    low, high = sorted(draw(st.tuples(*[st.floats(-1e6, 1e6)] * 2)))
    kinds = [{"missing": True}, {"any_of": ["yes", "no"]}, {"ge": low}, {"lt": high}]
    if low < high:
        kinds.append({"ge": low, "lt": high})
    return found | draw(st.sampled_from(kinds))


@st.composite
def queries(draw: st.DrawFn) -> dict[str, Any]:
    """A query of any kind, with conditions, a weight, and an accuracy or none."""
    found = dict(draw(st.sampled_from(EVERY_KIND)))
    found["where"] = draw(st.lists(conditions(), max_size=3))
    found["weight"] = draw(st.floats(0.001, 1000.0))
    if draw(st.booleans()):
        found["accuracy"] = {"within": draw(st.floats(1e-6, 1e6)), "confidence": draw(st.floats(0.5, 0.999))}
    if draw(st.booleans()):
        found["title"] = "A title"
    return found
