"""Name lists: nobody who did not agree, the right number, stable ties."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from client.cohort import Cohort
from client.names import TopCustomers, WorthWhile, choose
from client.scores import Scores
from federation.contract import FeatureContract, FlagColumn
from federation.errors import DataError

KEY = b"k" * 32
CONTRACT = FeatureContract(
    name="one",
    version=1,
    title="One column",
    source="table",
    columns=(FlagColumn(kind="flag", name="loan", meaning="Has a loan"),),
    label={"name": "lapsed", "meaning": "No purchase within the horizon"},
)


def scores(probability: list[float], ids: list[str] | None = None, value: list[float] | None = None) -> Scores:
    """Scored customers with the given probabilities."""
    count = len(probability)
    cohort = Cohort(
        ids=np.array(ids if ids is not None else [f"c{place}" for place in range(count)], dtype=object),
        columns={"loan": np.arange(count) % 2 * 1.0},
        label=None,
        position=None,
        value=None if value is None else np.array(value),
    )
    chances: NDArray[np.float64] = np.array(probability, dtype=np.float64)
    movement = np.where(np.arange(count) % 2 == 1, 0.3, 0.0).astype(np.float32)[:, None]
    return Scores(CONTRACT, cohort, chances, chances, movement, (0.0,), exact=True)


def agreed(found: Scores) -> set[str]:
    """Everybody who was scored."""
    return set(found.cohort.ids)


@settings(max_examples=60)
@given(probability=st.lists(st.sampled_from([0.1, 0.2, 0.5, 0.9]), max_size=60), k=st.integers(1, 70))
def test_the_top_k_are_the_k_most_probable_with_deciles_in_order(probability: list[float], k: int) -> None:
    found = scores(probability)
    listed = choose(found, TopCustomers(customers=k), agreed(found), KEY)
    assert [line.score for line in listed] == sorted(probability, reverse=True)[:k]
    assert [line.rank for line in listed] == list(range(1, len(listed) + 1))
    deciles = [line.decile for line in choose(found, TopCustomers(customers=100), agreed(found), KEY)]
    assert deciles == sorted(deciles) and all(1 <= decile <= 10 for decile in deciles)
    assert all(abs(deciles.count(decile) - len(probability) / 10) < 1 for decile in range(1, 11))


@settings(max_examples=40)
@given(seed=st.integers(0, 1000))
def test_the_order_of_rows_changes_nothing(seed: int) -> None:
    probability, ids = [0.5, 0.5, 0.5, 0.9, 0.1, 0.5], ["a", "b", "c", "d", "e", "f"]
    turned = np.random.default_rng(seed).permutation(6)
    first = choose(scores(probability, ids), TopCustomers(customers=4), ids, KEY)
    again = scores([probability[place] for place in turned], [ids[place] for place in turned])
    second = choose(again, TopCustomers(customers=4), ids, KEY)
    assert [line.customer for line in first] == [line.customer for line in second]


def test_ties_depend_on_the_key_not_on_the_identifier() -> None:
    found = scores([0.5] * 40)
    orders = {
        tuple(line.customer for line in choose(found, TopCustomers(customers=40), agreed(found), bytes([n]) * 32))
        for n in range(3)
    }
    assert len(orders) == 3 and tuple(found.cohort.ids) not in orders


def test_whoever_did_not_agree_to_be_contacted_stops_the_list() -> None:
    found = scores([0.2, 0.8, 0.5])
    with pytest.raises(DataError, match=r"CSL-C711  1 of the customers") as caught:
        choose(found, TopCustomers(customers=1), {"c1", "c2", "other"}, KEY)
    assert "c0" not in str(caught.value)


def test_a_customer_scored_twice_stops_the_list() -> None:
    found = scores([0.2, 0.8], ids=["c0", "c0"])
    with pytest.raises(DataError, match="CSL-C712"):
        choose(found, TopCustomers(customers=1), ["c0"], KEY)


def test_cost_and_benefit_lists_exactly_those_who_are_worth_it() -> None:
    found = scores([0.9, 0.5, 0.1, 0.8, 0.4], value=[10.0, 100.0, 1000.0, np.nan, 50.0])
    rule = WorthWhile(cost=5.0, success_rate=0.2)
    listed = choose(found, rule, agreed(found), KEY)
    assert [(line.customer, line.expected_gain) for line in listed] == [
        ("c2", pytest.approx(15.0)),
        ("c1", pytest.approx(5.0)),
    ]
    assert [line.expected_value for line in listed] == [pytest.approx(100.0), pytest.approx(50.0)]
    limited = choose(found, rule.model_copy(update={"at_most": 1}), agreed(found), KEY)
    assert [line.customer for line in limited] == ["c2"]


@settings(max_examples=40)
@given(
    rows=st.lists(st.tuples(st.floats(0, 1), st.floats(-100, 1000) | st.just(float("nan"))), max_size=30),
    cost=st.floats(0, 50),
    rate=st.floats(0.01, 1),
)
def test_cost_and_benefit_against_its_definition(rows: list[tuple[float, float]], cost: float, rate: float) -> None:
    found = scores([row[0] for row in rows], value=[row[1] for row in rows])
    listed = choose(found, WorthWhile(cost=cost, success_rate=rate), agreed(found), KEY)
    assert {line.customer for line in listed} == {
        f"c{place}" for place, (p, v) in enumerate(rows) if p * v * rate - cost > 0
    }
    gains = [line.expected_gain for line in listed]
    assert gains == sorted(gains, key=lambda gain: -(gain or 0.0))


def test_cost_and_benefit_need_money() -> None:
    found = scores([0.5])
    with pytest.raises(DataError, match="CSL-C713"):
        choose(found, WorthWhile(cost=1.0, success_rate=0.5), agreed(found), KEY)
