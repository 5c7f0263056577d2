"""The lifetime query: from noisy counts to parameters, with intervals that keep what they promise."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from client.cohort import Cohort
from federation.answers import Answer
from federation.contract import FeatureContract
from federation.document import load_yaml
from federation.errors import FederationError
from federation.lifetime import NAMES, LifetimeModel, Purchasing, Spending, expected_purchases
from federation.measures import sensitivity
from federation.queries import Accuracy, Lifetime
from server.statistics.asking import Setting
from server.statistics.lifetime import FREQUENCY, RECENCY, SHARES, TENURE, LifetimeAsker, check, grid_of
from server.statistics.lifetime_answer import Counts, Fits, answer_of, fit, total_slope
from server.statistics.lifetime_fit import (
    START,
    Grid,
    fit_purchasing,
    foreseen,
    purchase_chances,
    purchasing_of,
    shares_within,
    spend_chances,
)
from simulations.asker_play import play
from simulations.lifetime_play import made_customers
from tests.federation.lifetime_report import report

CONTRACT = load_yaml(Path(__file__).parents[3] / "configs" / "contracts" / "rfm.yaml", FeatureContract)
TRUTH, WORTH = Purchasing(0.25, 0.12, 0.75, 2.3), Spending(6.0, 3.5, 0.45)
CUSTOMERS = 20_000
SD = 16_384.0
EVEN = np.diff(np.array([0.0, *TENURE, 1.0]))


def query(**changes: Any) -> Lifetime:
    names = {"frequency": "frequency", "recency": "recency", "tenure": "tenure", "monetary": "monetary"}
    return Lifetime(**({"id": "worth", "kind": "lifetime"} | names | changes))


def asker(sd: float = SD, **changes: Any) -> LifetimeAsker:
    return LifetimeAsker(query(**changes), Setting(CONTRACT, CUSTOMERS, sd, 0.95))


def population(size: int = CUSTOMERS, seed: int = 3) -> Cohort:
    """Customers who buy, drop out and pay as the models say, first seen evenly over the window."""
    rng = np.random.default_rng(seed)
    return made_customers(rng.uniform(0.0, 1.0, size), TRUTH, WORTH, rng)


COHORT = population()


def played(budget: float, sd: float, seed: int = 0, **changes: Any) -> Answer:
    half = np.arange(len(COHORT)) < len(COHORT) // 2
    cohorts = [{"start": COHORT.take(half)}, {"start": COHORT.take(~half)}]
    generator = np.random.default_rng(seed)
    return play(asker(sd, **changes), CONTRACT, cohorts, budget=budget, sd=sd, generator=generator)  # type: ignore[arg-type]


def test_without_noise_the_parameters_are_those_by_which_the_customers_were_made() -> None:
    answer = played(1e5, 0.0)
    # One population, seeded: a 95% interval could miss, but these do not, and the point estimates are close.
    for name, true in zip(NAMES, (0.25, 0.12, 0.75, 2.3, 6.0, 3.5, 0.45), strict=True):
        row = next(item for item in answer.table("parameters").rows if item.key == (name,))
        assert row.value is not None and row.low is not None and row.high is not None
        assert row.low < row.value < row.high and row.low / 1.1 < true < row.high * 1.1, name
    x, tenure = COHORT.columns["frequency"] - 1, COHORT.columns["tenure"]
    exact = expected_purchases(TRUTH, x, tenure - COHORT.columns["recency"], tenure, 1.0).sum()
    assert answer.table("total").value() == pytest.approx(float(exact), rel=0.05)
    assert not any("misses" in note for note in answer.notes)


def test_with_the_noise_of_a_study_purchases_are_predicted_nearly_as_well() -> None:
    found = LifetimeModel.of(report(played(0.22 * SD, SD)))
    x, tenure = COHORT.columns["frequency"] - 1, COHORT.columns["tenure"]
    last = tenure - COHORT.columns["recency"]
    true, says = (expected_purchases(model, x, last, tenure, 1.0) for model in (TRUTH, found.purchasing))
    assert np.corrcoef(true, says)[0, 1] > 0.999
    assert says.sum() == pytest.approx(true.sum(), rel=0.1)


def test_the_answer_is_whole_and_says_what_its_intervals_hold() -> None:
    answer = played(0.22 * SD, SD)
    names = [table.name for table in answer.tables]
    assert names == ["parameters", "covariance", "horizon", "total", "purchases", "value", "fit", "fit_spend"]
    assert "population" in answer.table("parameters").title and "noise alone" in answer.table("fit").title
    for name in ("purchases", "value"):
        for row in answer.table(name).rows:
            if row.value is not None:
                assert row.low is not None and row.high is not None and 0 < row.low <= row.value <= row.high
    for row in answer.table("fit").rows:
        if row.key[1] == "counted":
            assert row.low is not None and row.high is not None and 0.0 <= row.low <= row.high
            assert row.value is not None and row.low <= row.value <= row.high
    days = [row.value for row in answer.table("fit").rows if row.key[1] == "model"]
    assert sum(item for item in days if item is not None) == pytest.approx(CUSTOMERS, rel=0.03)
    assert any("cannot be told from none" in note for note in answer.notes)
    assert played(0.22 * SD, SD) == answer, "the same sums, the same answer"


@pytest.mark.parametrize("ratio", [0.22, 0.06])
def test_intervals_hold_the_truth_as_often_as_they_say(ratio: float) -> None:
    """80 federations of `CUSTOMERS`: 95% of 80 is 76 with sd 1.95, and 69 is 3.6 sd below it; 8 intervals, 2 ratios (errs below 1%)."""
    rng, grid = (
        np.random.default_rng(11),
        Grid((2, 3, 5, 10, 20), RECENCY, (0.2, 0.4, 0.6, 0.8), (0.5, 1.0, 2.0, 5.0), 60),
    )
    even = np.full(5, 0.2)
    logs = np.log([TRUTH.r, TRUTH.alpha, TRUTH.a, TRUTH.b, WORTH.p, WORTH.q - 1, WORTH.v])
    sds = tuple(1 / (ratio * np.sqrt(share)) for share in SHARES)
    true = sum(_wide(at) * weight for at, weight in zip(grid.times[0].mean(axis=1), even, strict=True)) * CUSTOMERS
    held = np.zeros(8)
    for _ in range(80):
        found = fit(grid, _drawn(grid, even, rng, sds))
        assert found.settled
        inside = np.abs(found.theta - logs) < 1.96 * np.sqrt(np.diag(found.covariance()))
        total, slope = total_slope(found.purchasing, grid, 1.0)
        wide = 1.96 * np.sqrt(slope @ found.purchasing.joint @ slope)
        held += [*inside, abs(np.log(total / true)) < wide]
    assert held.min() >= 69, held


def _wide(at: float) -> float:
    later, now = (float(expected_purchases(TRUTH, 0, 0, 0, end)) for end in (at + 1.0, at))
    return later - now


def _drawn(grid: Grid, even: np.ndarray[Any, Any], rng: np.random.Generator, sds: Any) -> Counts:
    chance = purchase_chances(TRUTH, grid)
    counts = rng.poisson(chance * even * CUSTOMERS)
    spread = spend_chances(WORTH, grid, shares_within(TRUTH, grid, even))
    amounts = np.array(
        [rng.multinomial(int(size), row / row.sum()) for size, row in zip(counts.sum(axis=(1, 2)), spread, strict=True)]
    )
    tables = (counts.sum(axis=2), counts.sum(axis=(0, 1)), amounts)
    noisy = [table + rng.normal(0.0, sd, table.shape) for table, sd in zip(tables, sds, strict=True)]
    return Counts(noisy[0], noisy[1], noisy[2], sds)


def test_negative_and_empty_counts_still_make_an_answer() -> None:
    grid = grid_of(query(), CONTRACT)
    shapes = (len(FREQUENCY) + 1, len(RECENCY) + 1, len(TENURE) + 1, len(grid.monetary) + 1)
    rng = np.random.default_rng(8)
    for size in (0.0, 300.0):
        counts = Counts(
            rng.normal(0, size, (shapes[0], shapes[1])),
            rng.normal(0, size, shapes[2]),
            rng.normal(0, size, (shapes[0], shapes[3])),
            (size, size, size),
        )
        answer = answer_of(query(), grid, counts, Setting(CONTRACT, 100, SD, 0.95))
        assert answer.notes and answer.canonical()


def test_what_a_budget_buys_is_said_beforehand_and_asked_for() -> None:
    small, large = (asker().expected({1: ratio * SD}) for ratio in (0.05, 0.2))
    assert small[0].within == pytest.approx(4 * large[0].within, rel=0.01)
    assert small[1].within > large[1].within > 0 and small[1].unit == "percent"
    exact = asker(accuracy=Accuracy(within=5.0))
    needed = exact.needed(1)
    assert needed is not None and exact.expected({1: needed})[1].within == pytest.approx(5.0, rel=0.02)
    assert asker().needed(1) is None and asker().rounds == 1 and asker(weight=3.0).weight(1) == 3.0
    easy = asker(accuracy=Accuracy(within=1e6)).needed(1)
    assert easy is not None and asker().ask(1, easy)


def test_what_was_foreseen_is_what_the_noise_does() -> None:
    """The half width of the noise, foreseen for a usual shop, against 40 fits to that shop's own exact counts with noise added."""
    rng, grid, sds = np.random.default_rng(4), grid_of(query(), CONTRACT), (20.0, 40.0)
    chance = purchase_chances(purchasing_of(np.array(START)), grid) * EVEN * CUSTOMERS
    table, tenure = chance.sum(axis=2), chance.sum(axis=(0, 1))
    said = np.sqrt(np.diag(foreseen(grid, CUSTOMERS, sds).noise))
    found = [
        fit_purchasing(
            grid, table + rng.normal(0, sds[0], table.shape), tenure + rng.normal(0, sds[1], tenure.shape), sds
        )
        for _ in range(40)
    ]
    # The sd of 40 draws has a relative error of 11%: three of them.
    assert np.std([item.theta for item in found], axis=0) / said == pytest.approx(np.ones(4), abs=0.34)


@settings(max_examples=30)
@given(budget=st.floats(200.0, 1e6))
def test_the_budget_is_kept(budget: float) -> None:
    measures = asker(sd=0.0).ask(1, budget)
    assert 0.97 * budget <= sensitivity(measures) <= budget * (1 + 1e-9)


def test_a_budget_that_tells_nothing_is_refused() -> None:
    with pytest.raises(FederationError, match="CSL-S740") as caught:
        asker().ask(1, 100.0)
    assert "it needs" in caught.value.cause
    needed = asker(accuracy=Accuracy(within=1e6)).needed(1)
    assert needed is not None and len(asker().ask(1, needed)) == 3
    with pytest.raises(FederationError, match="CSL-S740"):
        asker().ask(1, 0.99 * needed)


def test_what_does_not_fit_the_contract_is_said_in_words() -> None:
    assert check(query(), CONTRACT) == []
    assert "no column" in check(query(tenure="age"), CONTRACT)[0]
    assert "four columns" in check(query(tenure="recency"), CONTRACT)[0]
    assert "share of the window" in check(query(recency="overdue"), CONTRACT)[0]
    assert "days of purchase" in check(query(frequency="trend"), CONTRACT)[0]
    assert "amount" in check(query(monetary="trend"), CONTRACT)[0]
    assert "not numeric" in check(query(monetary="lapsed"), CONTRACT)[0]
    assert any("label" in item for item in check(query(where=({"column": "lapsed", "any_of": ("yes",)},)), CONTRACT))
    table = CONTRACT.model_copy(update={"source": "table"})
    assert "not of transactions" in check(query(), table)[0]


def test_cells_are_cut_where_the_contract_alone_says() -> None:
    grid = grid_of(query(), CONTRACT)
    assert grid.frequency == FREQUENCY and grid.most == 365
    assert grid.monetary == (0.25, 0.5, 0.7071, 1.0, 1.414, 2.0, 3.162, 5.0, 10.0)
    column = CONTRACT.column("monetary").model_copy(update={"knots": (0.0, 20.0)})
    columns = tuple(column if item.name == "monetary" else item for item in CONTRACT.columns)
    plain = grid_of(query(), CONTRACT.model_copy(update={"columns": columns}))
    assert all(0 < one < two < 20 for one, two in zip(plain.monetary, plain.monetary[1:], strict=False))


def test_whole_numbers_stand_for_all_in_a_long_cell() -> None:
    for numbers, stands_for in Grid(FREQUENCY, RECENCY, TENURE, (1.0,), 365).repeats:
        low, high = int(numbers[0]), int(numbers[-1])
        assert stands_for.sum() == pytest.approx(high - low + 1)
        each = np.arange(low, high + 1)
        assert stands_for @ (1 / (numbers + 1)) == pytest.approx((1 / (each + 1)).sum(), rel=0.01)


def test_frequent_shops_are_fitted_too() -> None:
    """A grocer's customers come many times a window, and their days of purchase lie in the long cells."""
    truth = Purchasing(2.0, 0.05, 0.3, 6.0)
    grid = grid_of(query(), CONTRACT)
    exact = purchase_chances(truth, grid) * EVEN * 3000
    amounts = exact.sum(axis=(1, 2))[:, None] * spend_chances(WORTH, grid, shares_within(truth, grid, EVEN))
    found: Fits = fit(grid, Counts(exact.sum(axis=2), exact.sum(axis=(0, 1)), amounts, (0.1, 0.1, 0.1)))
    assert found.settled
    assert np.exp(found.theta[:4]) == pytest.approx([2.0, 0.05, 0.3, 6.0], rel=0.05)
