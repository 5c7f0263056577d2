"""Counts by group: exact without noise, covered with it, adding up always."""

import numpy as np
import pytest

from federation.queries import Count, Group
from server.statistics.counts import CountAsker, check
from simulations.asker_play import play
from tests.server.statistics.town import CONTRACT, Exact, coverage, setting, tolerance, town, truth_of

TOWN = town(np.random.default_rng(5), 3000)
CUTS = (30.0, 50.0)
QUERY = Count(id="n", kind="count", by=(Group(column="region"), Group(column="age", cuts=CUTS)))


def test_without_noise_the_answer_is_that_of_pandas() -> None:
    asker = CountAsker(QUERY, setting())
    answer = play(asker, CONTRACT, TOWN.cohorts, budget=2000.0, sd=0.0, generator=np.random.default_rng(1))
    region, age = TOWN.frame["region"].fillna("unknown"), np.searchsorted(CUTS, TOWN.frame["age"], side="right")
    for (name, place), count in TOWN.frame.groupby([region, age]).size().items():
        label = ("below 30", "30 to below 50", "50 and more")[place]
        assert answer.table("counts").value(name, label) == count
    assert answer.table("by_region").value("north") == (region == "north").sum()
    assert answer.table("total").value() == len(TOWN.frame)


def test_intervals_hold_the_counts_as_often_as_they_say() -> None:
    exact = Exact.of(CountAsker(QUERY, setting()), TOWN, 3000.0)
    truth = truth_of(exact.answer(np.random.default_rng(1), 0.0), "counts")
    draws = 1000
    clear = {key: value for key, value in truth.items() if value > 60}
    found = coverage(exact, "counts", clear, 36_000.0, draws)
    assert len(found) >= 6
    assert max(abs(share - 0.95) for share in found.values()) <= tolerance(draws, len(found))
    zero = coverage(exact, "counts", {key: 0.0 for key, value in truth.items() if value == 0}, 36_000.0, draws)
    assert zero and all(share >= 0.95 for share in zero.values())


def test_noisy_counts_add_up() -> None:
    answer = Exact.of(CountAsker(QUERY, setting()), TOWN, 500.0).answer(np.random.default_rng(3), 36_000.0)
    total = answer.table("total").value()
    for name in ("counts", "by_region", "by_age"):
        assert sum(row.value or 0.0 for row in answer.table(name).rows) == pytest.approx(total, rel=1e-6, abs=1e-6)
    assert all((row.value or 0.0) >= 0 and (row.low or 0.0) >= 0 for row in answer.table("counts").rows)


def test_expected_is_the_noise_that_comes() -> None:
    asker = CountAsker(QUERY, setting())
    said = asker.expected({1: 3000.0})[0]
    row = Exact.of(asker, TOWN, 3000.0).answer(np.random.default_rng(3), 36_000.0).table("counts").rows[1]
    assert row.low is not None and row.high is not None
    assert said.unit == "customers" and said.within == pytest.approx(1.96 * 12.0, rel=1e-3)
    assert row.high - row.low <= 2 * said.within + 10.0


def test_problems_are_named() -> None:
    assert check(QUERY, CONTRACT) == []
    assert "give cuts" in check(Count(id="n", kind="count", by=(Group(column="age"),)), CONTRACT)[0]
