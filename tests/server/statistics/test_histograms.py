"""Histograms: bins that are public, shares that add up."""

import numpy as np
import pytest

from federation.contract import NumericColumn
from federation.queries import Group, Histogram
from server.statistics.histograms import HistogramAsker, check, even_cuts, own_group, shares_of
from simulations.asker_play import play
from tests.server.statistics.town import CONTRACT, Exact, coverage, setting, tolerance, town

TOWN = town(np.random.default_rng(7), 3000)
QUERY = Histogram(id="h", kind="histogram", of="age", by=(Group(column="chosen"),))


def test_bins_are_the_knots_or_even_on_the_columns_scale() -> None:
    assert own_group(QUERY, CONTRACT).cuts == (30.0, 45.0, 60.0)
    assert own_group(Histogram(id="h", kind="histogram", of="score"), CONTRACT).cuts == tuple(
        x / 8 for x in range(1, 8)
    )
    column = CONTRACT.column("income")
    assert isinstance(column, NumericColumn)
    assert np.allclose(np.diff(np.log1p([0.0, *even_cuts(column, 4), 1000.0])), np.log(1001) / 4)
    assert own_group(Histogram(id="h", kind="histogram", of="region"), CONTRACT).cuts is None


def test_without_noise_the_answer_is_that_of_pandas() -> None:
    answer = play(
        HistogramAsker(QUERY, setting()),
        CONTRACT,
        TOWN.cohorts,
        budget=100.0,
        sd=0.0,
        generator=np.random.default_rng(1),
    )
    chosen = TOWN.frame[TOWN.frame["chosen"] == 1]
    inside = ((chosen["age"] >= 30) & (chosen["age"] < 45)).sum()
    assert answer.table("counts").value("yes", "30 to below 45") == inside
    assert answer.table("shares").value("yes", "30 to below 45") == pytest.approx(inside / len(chosen))


def test_unknown_values_count_but_have_no_share() -> None:
    asker = HistogramAsker(Histogram(id="h", kind="histogram", of="income"), setting())
    answer = play(asker, CONTRACT, TOWN.cohorts, budget=100.0, sd=0.0, generator=np.random.default_rng(1))
    assert answer.table("counts").value("unknown") == TOWN.frame["income"].isna().sum()
    with pytest.raises(KeyError):
        answer.table("shares").value("unknown")


def test_intervals_of_shares_hold_as_often_as_they_say() -> None:
    exact = Exact.of(HistogramAsker(QUERY, setting()), TOWN, 5000.0)
    truth = {}
    bins = np.searchsorted((30, 45, 60), TOWN.frame["age"], side="right")
    labels = ("below 30", "30 to below 45", "45 to below 60", "60 and more")
    for flag, name in ((0, "no"), (1, "yes")):
        inside = bins[TOWN.frame["chosen"] == flag]
        truth.update({(name, label): float(np.mean(inside == place)) for place, label in enumerate(labels)})
    draws = 800
    found = coverage(exact, "shares", truth, 36_000.0, draws)
    assert len(found) == 8
    assert max(abs(share - 0.95) for share in found.values()) <= tolerance(draws, 8)


def test_shares_add_up_where_they_say_anything() -> None:
    spans = shares_of(np.array([-3.0, 50.0, 70.0]), 4.0, 1.96)
    assert sum(span.value or 0.0 for span in spans) == pytest.approx(1.0)
    assert all((span.low or 0.0) <= (span.value or 0.0) <= (span.high or 0.0) for span in spans)
    assert all(not span.known for span in shares_of(np.array([-3.0, 5.0]), 40.0, 1.96))


def test_problems_are_named() -> None:
    assert check(QUERY, CONTRACT) == []
    assert "cannot be cut" in check(Histogram(id="h", kind="histogram", of="region", cuts=(1.0,)), CONTRACT)[0]
    assert (
        "stands twice"
        in check(Histogram(id="h", kind="histogram", of="age", by=(Group(column="age", cuts=(30.0,)),)), CONTRACT)[0]
    )
    assert "no column" in check(Histogram(id="h", kind="histogram", of="shoe"), CONTRACT)[0]
