"""Every kind of query: problems in words, measures within any budget, answers whatever the noise."""

from collections.abc import Sequence
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from federation.contract import FeatureContract
from federation.errors import FederationError
from federation.measures import Cells, Centres, columns_of, sensitivity, shape_of
from federation.measures import problems_of as measure_problems
from federation.queries import Query
from server.statistics import askers
from server.statistics.asking import Setting, Sum
from tests.server.statistics.town import CONTRACT, setting

READ: TypeAdapter[Any] = TypeAdapter(Query)
KINDS = ("count", "sum", "mean", "histogram", "quantiles", "crosstab", "correlation", "campaign")
NUMERIC = ("first", "second", "third")


def _read(**values: object) -> Any:
    return READ.validate_python({"id": "q", **values})


def test_every_kind_has_an_asker_and_a_check() -> None:
    kinds = {get_args(cls.model_fields["kind"].annotation)[0] for cls in get_args(get_args(Query)[0])}
    assert set(askers._ASKERS) == set(askers._CHECKS) == kinds


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ({"kind": "count", "by": ({"column": "shoe"},)}, "shoe is no column of the contract town"),
        ({"kind": "count", "where": ({"column": "bought", "any_of": ("yes",)},)}, "bought is the label"),
        ({"kind": "count", "where": ({"column": "region", "any_of": ("east",)},)}, "region has no group east"),
        ({"kind": "count", "where": ({"column": "age", "at": "end", "ge": 3.0},)}, "has no value at the end"),
        ({"kind": "mean", "of": "age", "where": ({"column": "kept", "ge": 1.0},)}, "choose by any_of"),
        ({"kind": "mean", "of": "region"}, "is not numeric"),
    ],
)
def test_problems_are_told_in_words(query: dict[str, object], words: str) -> None:
    assert words in " ".join(askers.problems_of(_read(**query), CONTRACT))
    assert askers.problems_of(_read(kind="count"), CONTRACT) == []


@st.composite
def contracts(draw: st.DrawFn) -> FeatureContract:
    """Draw contracts with three numeric columns of any bounds, two categorical ones and two flags."""
    columns: list[dict[str, object]] = []
    for name in NUMERIC:
        low = draw(st.floats(-1e4, 1e4).map(lambda x: round(x, 2)))
        steps = draw(st.lists(st.floats(0.5, 1e4).map(lambda x: round(x, 1)), min_size=1, max_size=6))
        knots = tuple(np.cumsum([low, *steps]).tolist())
        scale = draw(st.sampled_from(["linear", "log"]))
        columns.append(
            {
                "kind": "numeric",
                "name": name,
                "meaning": "x",
                "unit": "u",
                "low": low,
                "high": knots[-1],
                "scale": scale,
                "knots": knots,
            }
        )
    for name in ("group", "arm"):
        many = draw(st.integers(2, 5))
        columns.append({"kind": "categorical", "name": name, "meaning": "x", "categories": ("control", *"abcd")[:many]})
    columns += [{"kind": "flag", "name": name, "meaning": "x"} for name in ("one", "other")]
    return FeatureContract.model_validate(
        {
            "name": "any",
            "version": 1,
            "title": "Any",
            "source": "table",
            "columns": tuple(columns),
            "label": {"name": "became", "meaning": "x"},
        }
    )


def _groups(contract: FeatureContract) -> st.SearchStrategy[dict[str, object]]:
    first: Any = contract.column("first")
    cut = {"column": "first", "cuts": tuple(first.knots[:2])}
    return st.sampled_from([{"column": "group"}, {"column": "other"}, {"column": "became"}, cut])


@st.composite
def queries(draw: st.DrawFn, contract: FeatureContract) -> Any:
    """Draw a query of any kind of table in which nothing is wrong."""
    kind = draw(st.sampled_from(KINDS))
    by = tuple(draw(st.lists(_groups(contract), max_size=2, unique_by=lambda group: str(group["column"]))))
    where = ({"column": "one", "any_of": ("yes",)},) if draw(st.booleans()) else ()
    accuracy = {"within": draw(st.floats(0.01, 100))} if draw(st.booleans()) else None
    shared = {"kind": kind, "where": where, "accuracy": accuracy}
    if kind == "count":
        return _read(**shared, by=by)
    if kind in ("sum", "mean"):
        return _read(**shared, by=by, of=draw(st.sampled_from([*NUMERIC[1:], "one"])))
    if kind == "histogram":
        return _read(**shared, by=by, of=draw(st.sampled_from([*NUMERIC[1:], "one", "arm"])))
    if kind == "quantiles":
        return _read(**shared, by=by, of="second")
    if kind == "crosstab":
        return _read(**shared, rows={"column": "arm"}, across=draw(_groups(contract)))
    if kind == "correlation":
        return _read(**shared, of=NUMERIC[: draw(st.integers(2, 3))])
    score = {"score": "second", "score_cuts": contract.column("second").knots[:2]} if draw(st.booleans()) else {}  # type: ignore[union-attr]
    return _read(**shared, arm="arm", outcomes=("one", "became"), segment="group", spend="third", cost="first", **score)


def _told(measures: Sequence[Cells | Centres], contract: FeatureContract, seed: int, size: float) -> list[Sum]:
    """Return sums that any customers and noise may come to."""
    generator = np.random.default_rng(seed)
    return [Sum(item, generator.normal(size / 4, size, shape_of(item, contract)), 1000.0) for item in measures]


@settings(max_examples=150)
@given(st.data(), st.floats(1, 1e7), st.integers(0, 10_000), st.floats(0, 1e7))
def test_measures_stay_within_any_budget_and_any_sums_get_an_answer(
    data: st.DataObject, budget: float, seed: int, size: float
) -> None:
    contract = data.draw(contracts())
    query = data.draw(queries(contract))
    assert askers.problems_of(query, contract) == []
    asker = askers.make_asker(query, Setting(contract, 5000, 1000.0, 0.9))
    assert asker.rounds == 1 and asker.weight(1) > 0
    needed = asker.needed(1)
    assert (needed is None) == (query.accuracy is None)
    try:
        measures = asker.ask(1, budget)
    except FederationError as error:
        assert error.code == "CSL-S710" and budget < 500
        return
    assert measure_problems(measures, contract) == []
    # Each cap is whole: at worst a little less than 1 of each term's part is left unused. Beyond the largest cap, all is.
    assert 0.5 * min(budget, 1e6) - 20 <= sensitivity(measures) <= budget
    assert columns_of(measures) <= query.columns
    assert all(item.within >= 0 for item in asker.expected({1: budget}))
    asker.told(1, _told(measures, contract, seed, size))
    answer = asker.answer()
    assert answer.kind == query.kind and answer.notes
    for table in answer.tables:
        for row in table.rows:
            assert (row.value is None) == (row.low is None) == (row.high is None)
            if row.value is not None and row.low is not None and row.high is not None:
                assert row.low <= row.value <= row.high


@settings(max_examples=60)
@given(st.data(), st.floats(0.5, 500))
def test_what_is_needed_is_expected_to_be_enough(data: st.DataObject, within: float) -> None:
    contract = data.draw(contracts())
    query = data.draw(queries(contract)).model_copy(update={"accuracy": None})
    query = query.model_copy(update={"accuracy": _read(kind="count", accuracy={"within": within}).accuracy})
    asker = askers.make_asker(query, Setting(contract, 5000, 50_000.0, 0.95))
    needed = asker.needed(1)
    assert needed is not None
    assert asker.expected({1: needed})[0].within <= within * (1 + 1e-9)


def test_the_same_sums_lead_to_the_same_answer() -> None:
    query = _read(kind="quantiles", of="income", by=({"column": "region"},))
    one, other = (askers.make_asker(query, setting()) for _ in range(2))
    sums = _told(one.ask(1, 3000.0), CONTRACT, 1, 1e6)
    assert one.ask(1, 3000.0) == other.ask(1, 3000.0)
    one.told(1, sums)
    other.told(1, sums)
    assert one.answer() == other.answer()
