"""Uplift: every formula against a slower one or a published table, every interval against how often it holds the truth."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.optimize import brentq

from client.campaign.uplift import (
    Cell,
    Interval,
    Rate,
    Sample,
    advantage,
    cost_per_extra,
    difference,
    fieller,
    mean_difference,
    qini,
    smallest_seen,
    wilson,
)

Z = float(stats.norm.ppf(0.975))
RATES = st.integers(1, 400).flatmap(lambda n: st.builds(Rate, st.integers(0, n), st.just(n)))
# With 4,000 runs a coverage of 95% is found within 94% to 96% but for a chance of about 0.4%; the bounds below are wider, as
# intervals for counts are not exact.
RUNS = 4_000
LEAST, MOST = 0.93, 0.97


@pytest.mark.parametrize(
    ("first", "second", "low", "high"),
    [
        # Newcombe 1998, table II, method 10
        ((56, 70), (48, 80), 0.0524, 0.3339),
        ((9, 10), (3, 10), 0.1705, 0.8090),
        ((6, 7), (2, 7), 0.0582, 0.8062),
        ((5, 56), (0, 29), -0.0381, 0.1926),
        ((0, 10), (0, 20), -0.1611, 0.2775),
        ((0, 10), (0, 10), -0.2775, 0.2775),
        ((10, 10), (0, 20), 0.6791, 1.0000),
        ((10, 10), (0, 10), 0.6075, 1.0000),
    ],
)
def test_the_published_examples(first, second, low, high):
    found = difference(Rate(*first), Rate(*second))
    assert (found.low, found.high) == (pytest.approx(low, abs=6e-5), pytest.approx(high, abs=6e-5))


@given(RATES)
def test_wilsons_limits_are_where_the_score_test_just_rejects(rate):
    found = wilson(rate)
    for end in (found.low, found.high):
        if 0 < end < 1:
            assert abs(rate.share - end) == pytest.approx(Z * math.sqrt(end * (1 - end) / rate.n), rel=1e-9)
    assert 0 <= found.low <= rate.share <= found.high <= 1


@given(RATES, RATES)
def test_a_difference_lies_in_its_interval_and_turns_round(first, second):
    found, turned = difference(first, second), difference(second, first)
    assert -1 - 1e-12 <= found.low <= found.estimate <= found.high <= 1 + 1e-12
    assert (turned.low, turned.high) == (pytest.approx(-found.high), pytest.approx(-found.low))


def miettinen_nurminen(first: Rate, second: Rate) -> tuple[float, float]:
    """The score interval of Miettinen and Nurminen (1985), by search: an independent interval of the same difference."""

    def distance(gap: float) -> float:
        def minus_likelihood(p: float) -> float:
            parts = ((first, p + gap), (second, p))
            return -sum(
                rate.hits * math.log(max(q, 1e-300)) + (rate.n - rate.hits) * math.log(max(1 - q, 1e-300))
                for rate, q in parts
            )

        grid = np.linspace(max(0, -gap) + 1e-9, min(1, 1 - gap) - 1e-9, 4001)
        p = float(grid[int(np.argmin([minus_likelihood(value) for value in grid]))])
        n = first.n + second.n
        variance = ((p + gap) * (1 - p - gap) / first.n + p * (1 - p) / second.n) * n / (n - 1)
        return (first.share - second.share - gap) / math.sqrt(variance)

    gap = first.share - second.share
    return (
        brentq(lambda value: distance(value) - Z, -0.999, gap - 1e-6, xtol=1e-4),
        brentq(lambda value: distance(value) + Z, gap + 1e-6, 0.999, xtol=1e-4),
    )


@pytest.mark.parametrize(("first", "second"), [((60, 400), (20, 200)), ((30, 1000), (9, 400)), ((250, 500), (90, 300))])
def test_another_good_interval_says_nearly_the_same(first, second):
    ours, theirs = difference(Rate(*first), Rate(*second)), miettinen_nurminen(Rate(*first), Rate(*second))
    assert (ours.low, ours.high) == (pytest.approx(theirs[0], abs=0.005), pytest.approx(theirs[1], abs=0.005))


@pytest.mark.parametrize(("p", "n", "q", "m"), [(0.15, 800, 0.10, 400), (0.012, 4000, 0.006, 2000), (0.5, 60, 0.4, 40)])
def test_newcombe_holds_the_truth_as_often_as_it_says(p, n, q, m):
    generator = np.random.default_rng(7)
    hits = zip(generator.binomial(n, p, RUNS), generator.binomial(m, q, RUNS), strict=True)
    held = [(found := difference(Rate(int(x), n), Rate(int(y), m))).low <= p - q <= found.high for x, y in hits]
    assert LEAST <= np.mean(held) <= MOST


@given(st.lists(st.floats(-50, 50), min_size=2, max_size=40), st.lists(st.floats(-50, 50), min_size=2, max_size=40))
@settings(max_examples=60)
def test_welch_is_the_library_s(first, second):
    a, b = np.array(first), np.array(second)
    found = mean_difference(Sample.of(a), Sample.of(b))
    if min(a.var(), b.var()) < 1e-6:
        assert found.low <= found.estimate <= found.high
        return
    theirs = stats.ttest_ind(a, b, equal_var=False).confidence_interval(0.95)
    assert (found.low, found.high) == (pytest.approx(theirs.low, abs=1e-6), pytest.approx(theirs.high, abs=1e-6))


def test_welch_holds_the_truth_for_spending_that_is_mostly_nothing():
    generator = np.random.default_rng(8)

    def spend(n, rate):
        return generator.binomial(1, rate, n) * generator.gamma(2.0, 30.0, n)

    held = []
    for _ in range(2_000):
        found = mean_difference(Sample.of(spend(3000, 0.06)), Sample.of(spend(1500, 0.04)))
        held.append(found.low <= 60 * 0.02 <= found.high)
    assert LEAST <= np.mean(held) <= MOST


@given(st.floats(-5, 5), st.floats(0.01, 3), st.floats(-5, 5), st.floats(0.01, 3))
def test_of_symmetrical_intervals_the_advantage_is_the_usual_one(first, half, second, other):
    found = advantage(Interval(first, first - half, first + half), Interval(second, second - other, second + other))
    assert found.high - found.estimate == pytest.approx(math.hypot(half, other))
    assert found.estimate - found.low == pytest.approx(math.hypot(half, other))


def test_the_advantage_holds_the_truth_as_often_as_it_says():
    generator = np.random.default_rng(9)
    rates, sizes = (0.14, 0.10, 0.08, 0.07), (600, 300, 500, 200)
    drawn = np.stack([generator.binomial(n, p, RUNS) for p, n in zip(rates, sizes, strict=True)], axis=1)
    truth = (rates[0] - rates[1]) - (rates[2] - rates[3])
    held = []
    for hits in drawn:
        a, b, c, d = (Rate(int(x), n) for x, n in zip(hits, sizes, strict=True))
        found = advantage(difference(a, b), difference(c, d))
        held.append(found.low <= truth <= found.high)
    assert LEAST <= np.mean(held) <= MOST


@given(
    st.floats(-10, 10), st.floats(-5, 5), st.floats(0, 2), st.floats(0.001, 2), st.floats(-0.9, 0.9), st.floats(-20, 20)
)
@settings(max_examples=300)
def test_fieller_is_every_ratio_that_is_not_rejected(numerator, denominator, vn, vd, correlation, ratio):
    covariance = correlation * math.sqrt(vn * vd)
    found = fieller(numerator, denominator, (vn, vd), covariance)
    if found is None:
        assert abs(denominator) <= Z * math.sqrt(vd) + 1e-9  # the denominator may be zero
        return
    spread = vn - 2 * ratio * covariance + ratio**2 * vd
    rejected = (numerator - ratio * denominator) ** 2 > Z**2 * spread
    near = min(abs(ratio - found.low), abs(ratio - found.high)) < 1e-6 * max(1, abs(ratio), found.high - found.low)
    assert near or rejected == (not found.low <= ratio <= found.high)


def test_the_cost_of_an_extra_conversion_holds_the_truth_as_often_as_it_says():
    generator, n, m = np.random.default_rng(10), 3000, 1500
    hits = zip(generator.binomial(n, 0.16, RUNS), generator.binomial(m, 0.10, RUNS), strict=True)
    held = []
    for x, y in hits:
        found = cost_per_extra(2.0, Rate(int(x), n), Rate(int(y), m))
        assert found.low is not None and found.high is not None
        held.append(found.low <= 2.0 / 0.06 <= found.high)
    assert LEAST <= np.mean(held) <= MOST


def test_no_price_is_put_on_what_may_be_nothing():
    unsure = cost_per_extra(2.0, Rate(11, 100), Rate(10, 100))
    assert (unsure.verdict, unsure.low, unsure.high) == ("not better than control", None, None)
    assert unsure.estimate == pytest.approx(200.0)
    assert cost_per_extra(2.0, Rate(0, 100), Rate(0, 100)).verdict == "not better than control"
    assert cost_per_extra(2.0, Rate(0, 100), Rate(0, 100)).estimate is None
    worse = cost_per_extra(2.0, Rate(100, 1000), Rate(200, 1000))
    assert (worse.verdict, worse.estimate) == ("worse than control", None)
    better = cost_per_extra(2.0, Rate(200, 1000), Rate(100, 1000))
    assert better.verdict == "better than control" and better.estimate == pytest.approx(20.0)
    assert better.low is not None and better.high is not None and better.low < 20 < better.high


def test_the_smallest_difference_shows_as_often_as_it_says():
    generator, n, m, p = np.random.default_rng(11), 4000, 2000, 0.1
    gap = smallest_seen(n, Rate(200, m))
    hits = zip(generator.binomial(n, p + gap, RUNS), generator.binomial(m, p, RUNS), strict=True)
    shown = [difference(Rate(int(x), n), Rate(int(y), m)).above_zero for x, y in hits]
    assert 0.76 <= np.mean(shown) <= 0.84


def cells(uplifts: dict[int, float], n: int = 400, population: float = 1000.0) -> list[Cell]:
    return [
        Cell(decile, population, Rate(round(n * (0.1 + gap)), n), Rate(round(n * 0.1), n))
        for decile, gap in uplifts.items()
    ]


def test_the_curve_by_hand():
    found = qini(cells({1: 0.10, 2: 0.05}), np.random.default_rng(1), draws=500)
    assert found is not None
    assert found.deciles == (1, 2) and found.share == pytest.approx((0, 0.5, 1))
    assert found.gain == pytest.approx((0, 0.05, 0.075))
    assert found.auuc.estimate == pytest.approx(0.5 * 0.025 + 0.5 * (0.05 + 0.075) / 2)
    assert found.coefficient.estimate == pytest.approx(found.auuc.estimate - 0.0375)
    assert found.covered == 1.0
    assert all(low <= gain <= high for low, gain, high in zip(found.low, found.gain, found.high, strict=True))


def slow_curve(people: list[tuple[int, bool, bool, float]], total: float) -> list[float]:
    """Radcliffe's curve person by person: (decile, approached, converted, how many customers she stands for)."""
    gains = [0.0]
    for decile in range(1, 11):
        mine = [person for person in people if person[0] == decile]
        weight = sum(w for _, approached, _, w in mine if approached)
        against = sum(w for _, approached, _, w in mine if not approached)
        if weight and against:
            hits = sum(w for _, approached, hit, w in mine if approached and hit) / weight
            without = sum(w for _, approached, hit, w in mine if not approached and hit) / against
            gains.append(gains[-1] + weight * (hits - without) / total)
    return gains


@given(
    st.dictionaries(
        st.tuples(st.integers(1, 10), st.booleans()),
        st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(0, 9), st.integers(0, 9), st.integers(10, 500)),
        min_size=1,
        max_size=12,
    )
)
@settings(max_examples=60)
def test_the_curve_person_by_person(found):
    made, people = [], []
    for (decile, _), (n, m, most, least, population) in found.items():
        x, y = min(most, n), min(least, m)
        made.append(Cell(decile, population, Rate(x, n), Rate(y, m)))
        people += [(decile, True, place < x, population / n) for place in range(n)]
        people += [(decile, False, place < y, population / m) for place in range(m)]
    curve = qini(made, np.random.default_rng(0), draws=10)
    assert curve is not None
    assert curve.gain == pytest.approx(slow_curve(people, sum(cell.population for cell in made)), abs=1e-9)


def test_an_order_that_knows_stands_above_one_that_is_upside_down():
    good = qini(cells({k: 0.11 - 0.01 * k for k in range(1, 11)}), np.random.default_rng(2), draws=200)
    bad = qini(cells({k: 0.01 * k for k in range(1, 11)}), np.random.default_rng(2), draws=200)
    assert good is not None and bad is not None
    assert good.coefficient.estimate > 0 > bad.coefficient.estimate
    assert good.gain[-1] == pytest.approx(bad.gain[-1])


def test_cells_without_a_counterpart_are_left_out_and_said():
    lone = Cell(3, 1000.0, Rate(5, 100), Rate(0, 0))
    found = qini([*cells({1: 0.1}), lone], np.random.default_rng(3), draws=50)
    assert found is not None and found.deciles == (1,) and found.covered == 0.5
    assert qini([lone], np.random.default_rng(3)) is None and qini([], np.random.default_rng(3)) is None


def test_the_bootstrap_of_the_area_holds_the_truth_as_often_as_it_says():
    generator = np.random.default_rng(12)
    rates = [(0.10 + 0.012 * (6 - decile), 0.10) for decile in range(1, 6)]
    shares = np.arange(0, 1.01, 0.2)
    gains = np.concatenate([[0], np.cumsum([0.2 * (p - q) for p, q in rates])])
    truth = float(np.sum((gains[1:] + gains[:-1]) / 2 * np.diff(shares)))
    held = {"auuc": [], "coefficient": []}
    for _ in range(1_200):
        drawn = [
            Cell(k, 1.0, Rate(int(generator.binomial(600, p)), 600), Rate(int(generator.binomial(300, q)), 300))
            for k, (p, q) in enumerate(rates, start=1)
        ]
        found = qini(drawn, generator, draws=300)
        assert found is not None
        held["auuc"].append(found.auuc.low <= truth <= found.auuc.high)
        held["coefficient"].append(found.coefficient.low <= truth - gains[-1] / 2 <= found.coefficient.high)
    assert 0.925 <= np.mean(held["auuc"]) <= 0.97 and 0.925 <= np.mean(held["coefficient"]) <= 0.97
