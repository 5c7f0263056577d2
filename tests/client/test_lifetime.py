"""Values at home: sums that add up, tiers cut where the terms say, times that pay back, and intervals that come from the report."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from client.cohort import Cohort
from client.lifetime import lifetime_values
from client.lifetime_terms import Money, Quantiles, Terms, TierTerms
from federation.document import load_yaml
from federation.errors import DataError
from federation.lifetime import LifetimeModel, alive, expected_purchases, expected_spend
from tests.federation.lifetime_report import VALUES, answer, report

BASIC = TierTerms(
    contract="rfm",
    margin=0.5,
    yearly_discount=0.0,
    acquisition_cost=20.0,
    cuts=Quantiles(kind="quantiles", high=0.8, middle=0.5),
)


def terms(**changes: Any) -> Terms:
    return Terms(BASIC.model_copy(update=changes), window_days=273, basket=30.0, unit="dollars")


def cohort(size: int = 200, seed: int = 1) -> Cohort:
    rng = np.random.default_rng(seed)
    frequency = rng.geometric(0.5, size).astype(float)
    tenure = rng.uniform(0.05, 1.0, size)
    recency = np.where(frequency > 1, rng.uniform(0, 1, size) * tenure, tenure)
    columns = {"frequency": frequency, "recency": recency, "tenure": tenure, "monetary": rng.gamma(2.0, 0.5, size)}
    return Cohort(np.array([f"c{number}" for number in range(size)], dtype=object), columns)


def test_a_customers_value_is_purchases_times_amount_times_margin() -> None:
    people = cohort()
    values, model = lifetime_values(people, report(), terms()), LifetimeModel.of(report())
    x, tenure = people.columns["frequency"] - 1, people.columns["tenure"]
    last = np.where(x > 0, tenure - people.columns["recency"], 0.0)
    coming = expected_purchases(model.purchasing, x, last, tenure, 1.0)
    assert values.purchases == pytest.approx(coming)
    assert values.alive == pytest.approx(alive(model.purchasing, x, last, tenure))
    amount = expected_spend(model.spending, x + 1, people.columns["monetary"])
    assert values.value == pytest.approx(0.5 * 30.0 * coming * amount)
    assert values.net == pytest.approx(values.value - 20.0) and values.horizon_years == pytest.approx(273 / 365.25)


def test_discount_horizon_and_margin_move_values_the_way_they_must() -> None:
    plain = lifetime_values(cohort(), report(), terms())
    discounted = lifetime_values(cohort(), report(), terms(yearly_discount=0.2))
    longer = lifetime_values(cohort(), report(), terms(horizon_years=3.0))
    assert np.all(discounted.value < plain.value) and np.all(discounted.purchases == plain.purchases)
    assert np.all(discounted.value > plain.value / 1.2)
    assert np.all(longer.value > plain.value) and longer.horizon_years == pytest.approx(3.0)
    assert lifetime_values(cohort(), report(), terms(margin=0.25)).value == pytest.approx(plain.value / 2)


def test_an_own_retention_takes_the_place_of_the_models_drop_out() -> None:
    people = cohort()
    always = lifetime_values(people, report(), terms(yearly_retention=1.0))
    half = lifetime_values(people, report(), terms(yearly_retention=0.5))
    plain = lifetime_values(people, report(), terms())
    rate = (VALUES["r"] + people.columns["frequency"] - 1) / (VALUES["alpha"] + people.columns["tenure"])
    assert always.purchases == pytest.approx(plain.alive * rate)
    years = 273 / 365.25
    assert half.purchases / always.purchases == pytest.approx((1 - 0.5**years) / (-math.log(0.5) * years))
    assert np.all(always.purchases >= plain.purchases)
    # The growth by which a cost is paid back ends at the same value.
    model = LifetimeModel.of(report())
    amount = expected_spend(model.spending, people.columns["frequency"], people.columns["monetary"])
    assert half.value == pytest.approx(15.0 * half.purchases * amount)


@pytest.mark.parametrize("retention", [None, 0.6])
def test_payback_is_when_the_value_has_earned_the_cost(retention: float | None) -> None:
    people = cohort()
    values = lifetime_values(people, report(), terms(yearly_retention=retention, yearly_discount=0.1))
    assert np.array_equal(np.isnan(values.payback), values.value < 20.0)
    paid = np.flatnonzero(~np.isnan(values.payback))
    assert len(paid) > 5
    for place in paid[:5]:
        until = float(values.payback[place])
        short = terms(yearly_retention=retention, yearly_discount=0.1, horizon_years=until)
        again = lifetime_values(people.take(np.array([place])), report(), short)
        assert float(again.value[0]) == pytest.approx(20.0, rel=0.01)


def test_a_newcomer_pays_with_her_first_purchase_or_later_or_never() -> None:
    model = LifetimeModel.of(report())
    first = 15.0 * model.spending.mean
    new = [
        lifetime_values(cohort(), report(), terms(acquisition_cost=cost)).newcomer
        for cost in (first * 0.9, first * 1.5, 1e6)
    ]
    assert new[0].payback == 0.0
    assert new[1].payback is not None and 0 < new[1].payback < 273 / 365.25
    assert new[2].payback is None and new[2].net < 0
    coming = float(expected_purchases(model.purchasing, 0, 0, 0, 1.0))
    assert new[0].purchases == pytest.approx(1 + coming) and new[0].value == pytest.approx(first * (1 + coming))


def test_tiers_by_quantiles_and_by_money() -> None:
    values = lifetime_values(cohort(), report(), terms())
    high, middle = np.quantile(values.value, [0.8, 0.5])
    assert set(values.tier) == {"high", "middle", "low"}
    assert values.value[values.tier == "high"].min() >= high > values.value[values.tier == "middle"].max() >= middle
    assert [tier.customers for tier in values.tiers] == [40, 60, 100]
    assert sum(tier.value for tier in values.tiers) == pytest.approx(values.value.sum())
    money = lifetime_values(cohort(), report(), terms(cuts=Money(kind="money", high=30.0, middle=10.0)))
    assert np.array_equal(money.tier == "high", money.value >= 30.0)
    assert np.array_equal(money.tier == "low", money.value < 10.0)


def test_a_tiers_interval_is_that_of_the_parameters() -> None:
    """Against 400 draws of all parameters from the report's covariance: sd of a tier's value within 15% (four sd of 400 draws' sd)."""
    people, wide = cohort(60), report(answer(spread=0.03))
    values = lifetime_values(people, wide, terms(cuts=Money(kind="money", high=1e-9, middle=-1.0)))
    (tier,) = values.tiers
    rng, logs = np.random.default_rng(2), np.log([*(VALUES[name] for name in ("r", "alpha", "a", "b", "p")), 2.74, 0.5])
    totals = []
    for _ in range(400):
        r, alpha, a, b, p, q, v = np.exp(logs + rng.normal(0, 0.03, 7))
        drawn = report(answer(r=r, alpha=alpha, a=a, b=b, p=p, q=1 + q, v=v))
        model = LifetimeModel.of(drawn)
        x, tenure = people.columns["frequency"] - 1, people.columns["tenure"]
        last = np.where(x > 0, tenure - people.columns["recency"], 0.0)
        amount = expected_spend(model.spending, x + 1, people.columns["monetary"])
        totals.append(15.0 * float(expected_purchases(model.purchasing, x, last, tenure, 1.0) @ amount))
    assert math.log(tier.high / tier.value) / 1.96 == pytest.approx(float(np.std(np.log(totals))), rel=0.15)
    assert tier.low < tier.value < tier.high


def test_unknown_features_have_no_value_and_lacking_columns_are_an_error() -> None:
    people = cohort()
    people.columns["monetary"][:3] = np.nan
    values = lifetime_values(people, report(), terms())
    assert np.all(np.isnan(values.value[:3])) and list(values.tier[:3]) == ["unknown"] * 3
    assert not np.isnan(values.value[3:]).any() and values.tiers[-1].customers == 3
    less = Cohort(people.ids, {name: item for name, item in people.columns.items() if name != "tenure"})
    with pytest.raises(DataError, match="CSL-C812"):
        lifetime_values(less, report(), terms())


def test_nobody_known_is_no_error() -> None:
    people = cohort(3)
    people.columns["recency"][:] = np.nan
    assert [tier.name for tier in lifetime_values(people, report(), terms()).tiers] == ["unknown"]


@settings(max_examples=40)
@given(
    frequency=st.floats(1, 365),
    recency=st.floats(0, 1),
    tenure=st.floats(0, 1),
    monetary=st.floats(0, 1e4),
)
def test_any_customer_within_bounds_has_a_finite_value(
    frequency: float, recency: float, tenure: float, monetary: float
) -> None:
    given_columns = {"frequency": frequency, "recency": recency, "tenure": tenure, "monetary": monetary}
    one = Cohort(np.array(["c"], dtype=object), {name: np.array([value]) for name, value in given_columns.items()})
    values = lifetime_values(one, report(), terms())
    assert np.isfinite(values.value[0]) and values.value[0] >= 0 and 0 <= values.alive[0] <= 1


def test_the_example_terms_are_read_and_wrong_ones_refused() -> None:
    path = Path(__file__).parents[2] / "configs" / "value" / "tiers.yaml"
    assert load_yaml(path, TierTerms).cuts == Quantiles(kind="quantiles", high=0.8, middle=0.5)
    for kind in (Quantiles, Money):
        with pytest.raises(ValidationError, match="must be below"):
            kind.model_validate({"kind": kind.model_fields["kind"].annotation.__args__[0], "high": 0.2, "middle": 0.5})
