"""What a campaign changed: least squares over splits, gains, costs and Qini curves, against the truth that was drawn from."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.statistics import uplift
from server.statistics.intervals import Span
from tests.server.statistics.town import tolerance

Z = 1.959963984540054
SIZE = 3000
SCORE_RATES = np.array([[0.05, 0.06], [0.08, 0.11], [0.12, 0.18], [0.15, 0.27]])
"""Chance of success by score band, low to high: of the control and of the arm."""


def _drawn(generator: np.random.Generator, population: bool) -> np.ndarray:
    """Return counts [arms, bands + unknown, 2] of no and yes; control first."""
    sizes = np.full(4, SIZE // 4)
    counts = np.zeros((2, 5, 2))
    for arm in (0, 1):
        many = generator.multinomial(SIZE, np.full(4, 0.25)) if population else sizes
        yes = generator.binomial(many, SCORE_RATES[:, arm]) if population else np.rint(many * SCORE_RATES[:, arm])
        counts[arm, :4] = np.stack([many - yes, yes], axis=1)
    return counts


def _noisy(generator: np.random.Generator, counts: np.ndarray, sd: float) -> list[np.ndarray]:
    parts = [counts.sum(axis=1, keepdims=True), counts]
    return [part + generator.normal(0.0, sd, part.shape) for part in parts]


def _holds(span: Span, truth: float) -> bool:
    assert span.value is not None and span.low is not None and span.high is not None
    assert span.low <= span.value <= span.high
    return span.low <= truth <= span.high


@settings(max_examples=50)
@given(st.lists(st.integers(1, 6), min_size=1, max_size=4), st.floats(0.1, 100), st.integers(0, 1000))
def test_all_splits_add_up_to_the_arms(parts: list[int], sd: float, seed: int) -> None:
    generator = np.random.default_rng(seed)
    tables = [generator.normal(100.0, 50.0, (3, part, 2)) for part in parts]
    arms, variance, splits = uplift.combine(tables, [sd * (1 + place) for place in range(len(parts))])
    for split in splits:
        assert np.allclose(split.counts.sum(axis=1), arms)
        assert split.moved(np.ones(split.parts)) == pytest.approx(variance)
        assert split.moved(np.eye(split.parts)[0]) == pytest.approx(split.variance)
        assert split.variance <= split.own**2 * (1 + 1e-9)


def test_combined_counts_have_the_noise_that_they_say() -> None:
    generator, exact, draws = np.random.default_rng(1), _drawn(np.random.default_rng(1), False), 4000
    arms, parts = [], []
    for _ in range(draws):
        found, variance, splits = uplift.combine(_noisy(generator, exact, 10.0), [10.0, 10.0])
        arms.append(found - exact.sum(axis=1))
        parts.append(splits[1].counts - exact)
    # The standard error of a variance is sqrt(2 / draws) of it, 2.2%; over 4 and 20 independent counts less.
    assert np.var(arms) == pytest.approx(variance, rel=0.05) and np.var(parts) == pytest.approx(
        splits[1].variance, rel=0.05
    )
    assert variance == pytest.approx(1 / (1 / 100 + 1 / 500))


def test_without_noise_nothing_moves() -> None:
    exact = _drawn(np.random.default_rng(1), True)
    arms, variance, splits = uplift.combine([exact.sum(axis=1, keepdims=True), exact], [0.0, 0.0])
    assert variance == 0 and np.allclose(arms, exact.sum(axis=1)) and np.allclose(splits[1].counts, exact)


@pytest.mark.parametrize("sd", [0.0, 6.0, 20.0])
def test_gains_hold_the_truth_of_the_population(sd: float) -> None:
    generator, draws, held, inside = np.random.default_rng(2), 1000, [], []
    truth = float(np.diff(SCORE_RATES.mean(axis=0))[0])
    for _ in range(draws):
        tables = _noisy(generator, _drawn(generator, True), sd)
        arms, variance, splits = uplift.combine(tables, [sd, sd])
        held.append(_holds(uplift.gain(arms[1], arms[0], variance, Z, "share"), truth))
        part = splits[1].counts[:, 3]
        inside.append(_holds(uplift.gain(part[1], part[0], splits[1].variance, Z, "share"), 0.12))
    assert abs(np.mean(held) - 0.95) <= tolerance(draws, 6)
    assert abs(np.mean(inside) - 0.95) <= tolerance(draws, 6)


def _true_curve() -> tuple[np.ndarray, float, float]:
    best = SCORE_RATES[::-1]
    points = np.cumsum((best[:, 1] - best[:, 0]) * 0.25)
    area = float(np.sum((points + np.append(0.0, points[:-1])) / 2 * 0.25))
    return points, area, area - float(points[-1]) / 2


@pytest.mark.parametrize("sd", [0.0, 6.0, 20.0])
def test_qini_curves_hold_the_truth_of_the_population(sd: float) -> None:
    generator, draws = np.random.default_rng(3), 1000
    points, area, coefficient = _true_curve()
    held = []
    for _ in range(draws):
        _, _, splits = uplift.combine(_noisy(generator, _drawn(generator, True), sd), [sd, sd])
        found = uplift.curve(splits[1], 1, 0, Z)
        held.append(
            [_holds(found.points[1], points[1]), _holds(found.area, area), _holds(found.coefficient, coefficient)]
        )
    assert np.abs(np.mean(held, axis=0) - 0.95).max() <= tolerance(draws, 9)


def test_the_curve_by_hand() -> None:
    counts = np.array([[[90.0, 10.0], [80.0, 20.0], [0.0, 0.0]], [[180.0, 20.0], [120.0, 80.0], [0.0, 0.0]]])
    found = uplift.curve(uplift.Split(counts, 0.0, 0.0), 1, 0, Z)
    # The better band: 80 of 200 against 20 of 100, 40 more among the arm's 400; the other: 100 against 30 x 2, again 40.
    assert [point.value for point in found.points] == pytest.approx([0.1, 0.1])
    assert found.area.value == pytest.approx(0.5 * 0.1 / 2 + 0.5 * 0.1)
    assert found.coefficient.value == pytest.approx(0.075 - 0.05)


def test_where_a_low_score_is_the_best_the_curve_begins_there() -> None:
    counts = np.array([[[90.0, 10.0], [80.0, 20.0], [7.0, 1.0]], [[180.0, 20.0], [120.0, 80.0], [5.0, 2.0]]])
    split = uplift.Split(counts, 0.0, 0.0)
    turned = uplift.Split(counts[:, [1, 0, 2]], 0.0, 0.0)
    assert uplift.curve(uplift.upside_down(split), 1, 0, Z) == uplift.curve(turned, 1, 0, Z)
    assert np.array_equal(uplift.upside_down(uplift.upside_down(split)).counts, counts)


def test_bands_that_the_noise_hides_are_taken_together() -> None:
    counts = _drawn(np.random.default_rng(4), False)
    counts[:, 3] = [3.0, 0.0]
    found = uplift.curve(uplift.Split(counts, 10.0, 100.0), 1, 0, Z)
    assert found.points[0].value is None and found.points[1].value is not None and found.area.value is not None
    nothing = uplift.curve(uplift.Split(counts * 0.0, 10.0, 100.0), 1, 0, Z)
    assert nothing.area.value is None and all(point.value is None for point in nothing.points)


def _amount(values: np.ndarray, noise: np.ndarray, sd: float) -> uplift.Amount:
    return uplift.Amount(
        len(values) + noise[0], values.sum() + noise[1], (values**2).sum() + noise[2], (sd**2,) * 3, 5.0, 5.0
    )


@pytest.mark.parametrize("sd", [0.0, 8.0])
def test_means_and_cost_of_an_extra_success_hold_the_truth(sd: float) -> None:
    generator, draws, held = np.random.default_rng(5), 1000, []
    for _ in range(draws):
        values = [generator.uniform(low, low + 0.2, SIZE) for low in (-0.9, -0.5)]
        yes = generator.binomial(SIZE, [0.10, 0.16])
        noise = generator.normal(0.0, sd, (4, 3)) if sd else np.zeros((4, 3))
        costs = [_amount(values[i], noise[i], sd) for i in (0, 1)]
        rates = [np.array([SIZE - yes[i] + noise[2 + i, 0], yes[i] + noise[2 + i, 1]]) for i in (0, 1)]
        span = uplift.cost_per_extra((costs[1], costs[0]), (rates[1], rates[0]), sd**2, Z)
        # 5 + 5 p: means of 1 and 3, so 2 for 0.06 more successes.
        held.append([_holds(costs[1].mean(Z, True), 3.0), _holds(span, 2.0 / 0.06)])
    assert np.abs(np.mean(held, axis=0) - 0.95).max() <= tolerance(draws, 4)


def test_no_cost_where_nothing_is_gained() -> None:
    values = np.full(SIZE, 0.1)
    cost = _amount(values, np.zeros(3), 4.0)
    rates = np.array([2700.0, 300.0])
    assert uplift.cost_per_extra((cost, cost), (rates, rates), 16.0, Z).value is None
    assert uplift.cost_per_extra((cost, cost), (np.array([2900.0, 100.0]), rates), 16.0, Z).value is None
