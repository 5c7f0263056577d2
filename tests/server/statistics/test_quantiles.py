"""Quantiles: read off nested histograms, near the truth, with intervals that hold it."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from federation.contract import NumericColumn
from federation.queries import Accuracy, Group, Quantiles
from server.statistics.consistency import Nested
from server.statistics.quantiles import QuantileAsker, check, crossing, edges_of, invert, levels_for
from tests.server.statistics.town import CONTRACT, Exact, coverage, setting, tolerance, town

TOWN = town(np.random.default_rng(8))
LEVELS = (0.1, 0.25, 0.5, 0.75, 0.9)


def _truth(name: str) -> dict[tuple[str, ...], float]:
    low, high = {"income": (0, 1000), "age": (18, 98), "score": (0, 1)}[name]
    values = TOWN.frame[name].clip(low, high)
    return {(f"{level:g}",): float(values.quantile(level)) for level in LEVELS}


@pytest.mark.parametrize("name", ["income", "age", "score"])
def test_without_noise_the_quantiles_are_those_of_pandas_within_a_bin(name: str) -> None:
    asker = QuantileAsker(Quantiles(id="q", kind="quantiles", of=name, levels=LEVELS), setting(sd=1.0))
    answer = Exact.of(asker, TOWN, 5000.0).answer(np.random.default_rng(1), 0.0)
    column = CONTRACT.column(name)
    assert isinstance(column, NumericColumn)
    edges = edges_of(column, 256)
    for key, truth in _truth(name).items():
        place = int(np.clip(np.searchsorted(edges, truth) - 1, 0, 255))
        assert answer.table("quantiles").value(*key) == pytest.approx(truth, abs=edges[place + 1] - edges[place])


@pytest.mark.parametrize(("name", "budget", "finest"), [("income", 4000.0, 256), ("age", 1500.0, 64)])
def test_intervals_hold_the_truth_as_often_as_they_say(name: str, budget: float, finest: int) -> None:
    asker = QuantileAsker(Quantiles(id="q", kind="quantiles", of=name, levels=LEVELS), setting())
    exact = Exact.of(asker, TOWN, budget)
    assert exact.sums[-1].shape == (1, finest + 1)
    draws = 400
    found = coverage(exact, "quantiles", _truth(name), 36_000.0, draws)
    assert len(found) == len(LEVELS)
    # Smoothing to a distribution function that never falls takes away some noise, which the intervals do not count on.
    assert all(0.95 - tolerance(draws, 5) <= share <= 0.985 for share in found.values())


def test_nested_bins_are_better_than_one_histogram_and_than_other_branchings() -> None:
    """The figures that the module's docstring names."""

    def mean_noise(levels: tuple[int, ...]) -> float:
        nested, found = Nested.of(levels, [float(len(levels))] * len(levels)), []
        for level in LEVELS:
            rows = np.tril(np.ones((256, 256))) - level
            around = slice(int((level - 0.04) * 256), int((level + 0.04) * 256))
            found.append(np.sqrt(((rows @ nested.covariance) * rows).sum(axis=1))[around].mean())
        return float(np.mean(found))

    figures = {levels: mean_noise(levels) for levels in ((256,), (16, 256), (16, 64, 256), (4, 16, 64, 256))}
    assert [round(value, 1) for value in figures.values()] == [6.3, 3.1, 2.9, 2.6]
    assert round(mean_noise((2, 4, 8, 16, 32, 64, 128, 256)), 1) == 2.6


def test_bins_are_as_fine_as_noise_and_room_allow() -> None:
    assert levels_for(1, 0.0) == (4, 16, 64, 256)
    assert levels_for(1, 0.01) == (4, 16, 64)
    assert levels_for(1, 0.1) == (4, 16)
    assert levels_for(100, 0.0) == (4, 16, 64)
    assert levels_for(500, 0.0) == (4, 16)


def test_what_accuracy_needs_is_enough_with_the_coarser_bins_that_it_bears() -> None:
    column = CONTRACT.column("income").model_copy(
        update={"high": 2067.0, "scale": "log", "knots": (0.0, 1.0, 2.0, 2067.0)}
    )
    others = tuple(item for item in CONTRACT.columns if item.name != "income")
    skewed = replace(
        setting(sd=50_000.0), contract=CONTRACT.model_copy(update={"columns": (*others, column)}), customers=5000
    )
    accuracy = Accuracy(within=41.0)
    asker = QuantileAsker(Quantiles(id="q", kind="quantiles", of="income", accuracy=accuracy), skewed)
    needed = asker.needed(1)
    assert needed is not None
    assert len(asker.ask(1, needed)) == 2
    assert 40.0 < asker.expected({1: needed})[0].within <= 41.0


def test_bins_are_even_between_knots() -> None:
    column = CONTRACT.column("income")
    assert isinstance(column, NumericColumn)
    edges = edges_of(column, 50)
    assert edges[0] == 0.0 and edges[-1] == 1000.0 and np.all(np.diff(edges) > 0)
    assert np.allclose(edges[::10], column.knots)


NOISY = arrays.arrays(np.float64, 16, elements=st.floats(-100, 1000))


@settings(max_examples=80)
@given(NOISY, st.floats(0.01, 0.99), st.floats(0, 100))
def test_the_inverse_stays_within_the_bounds(bins: np.ndarray, level: float, sd: float) -> None:
    span = invert(bins, np.full(17, sd), level, 1.96)
    assert span.low is not None and span.high is not None and span.value is not None
    assert 0.0 <= span.low <= span.value <= span.high <= 16.0


def test_crossings_of_a_level_stretch() -> None:
    values = np.array([-1.0, 0.0, 0.0, 1.0])
    assert crossing(values, last=False) == 1.0 and crossing(values, last=True) == 2.0
    assert crossing(np.array([-2.0, 2.0]), last=False) == 0.5


def test_quantiles_increase_and_tiny_groups_say_nothing() -> None:
    query = Quantiles(
        id="q", kind="quantiles", of="income", levels=(0.4, 0.45, 0.5, 0.55), by=(Group(column="region"),)
    )
    answer = Exact.of(QuantileAsker(query, setting()), TOWN, 300.0).answer(np.random.default_rng(4), 36_000.0)
    rows = {row.key: row.value for row in answer.table("quantiles").rows}
    north = [rows["north", level] for level in ("0.4", "0.45", "0.5", "0.55")]
    assert all(value is not None for value in north) and north == sorted(value or 0.0 for value in north)
    assert rows["unknown", "0.5"] is None and any("none is given" in note for note in answer.notes)


def test_what_is_needed_is_enough_for_customers_like_the_knots() -> None:
    query = Quantiles(id="q", kind="quantiles", of="score", accuracy=Accuracy(within=0.01))
    asker = QuantileAsker(query, setting())
    needed = asker.needed(1)
    assert needed is not None and asker.expected({1: needed})[0].within <= 0.01
    exact, generator, truth = Exact.of(asker, TOWN, needed), np.random.default_rng(4), _truth("score")
    rows = [row for _ in range(200) for row in exact.answer(generator, 36_000.0).table("quantiles").rows]
    near = [abs((row.value or 0.0) - truth[row.key]) <= 0.01 for row in rows if row.key in truth]
    assert len(near) == 600 and np.mean(near) >= 0.95 - tolerance(200)


def test_problems_are_named() -> None:
    assert check(Quantiles(id="q", kind="quantiles", of="income"), CONTRACT) == []
    assert "not numeric" in check(Quantiles(id="q", kind="quantiles", of="region"), CONTRACT)[0]
    assert "must increase" in check(Quantiles(id="q", kind="quantiles", of="age", levels=(0.5, 0.1)), CONTRACT)[0]
    assert "no column" in check(Quantiles(id="q", kind="quantiles", of="shoe"), CONTRACT)[0]
