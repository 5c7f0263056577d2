"""Metrics from noisy histograms: exact without noise, honest intervals with it."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.stats import ks_2samp, norm
from sklearn.metrics import roc_auc_score

from server.evaluation import TOP_SHARE, Histogram, add, area, measure, share_interval

BINS = 12
EDGES = np.linspace(-4.0, 3.0, BINS - 1)
Z = norm.ppf(0.975)


def customers(generator: np.random.Generator, count: int, rate: float) -> tuple[np.ndarray, np.ndarray]:
    labels = generator.random(count) < rate
    scores = generator.normal(np.where(labels, 0.8, -0.2), 1.0) + math.log(rate / (1 - rate))
    return scores, labels


def binned(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    counts = np.zeros((2, BINS))
    np.add.at(counts, (labels.astype(int), np.searchsorted(EDGES, scores, side="right")), 1)
    return counts


@pytest.mark.parametrize("rate", [0.05, 0.3])
def test_without_noise_every_figure_is_exact_on_binned_scores(rate: float) -> None:
    scores, labels = customers(np.random.default_rng(5), 4000, rate)
    bins = np.searchsorted(EDGES, scores, side="right")
    metrics = measure(Histogram(binned(scores, labels), 0.0), EDGES)
    assert metrics.auc.value == pytest.approx(roc_auc_score(labels, bins), abs=1e-6)
    assert metrics.auc.noise == (metrics.auc.value, metrics.auc.value)
    assert metrics.ks.value == pytest.approx(ks_2samp(bins[labels], bins[~labels]).statistic, abs=1e-6)
    assert metrics.lift.value == pytest.approx(_expected_lift(bins, labels), abs=1e-6)
    assert (metrics.customers, metrics.positives) == (4000, int(labels.sum()))
    for place, item in enumerate(metrics.calibration):
        inside = bins == place
        if item.observed is not None:
            assert item.observed == pytest.approx(labels[inside].mean(), abs=1e-6)
            assert item.interval[0] <= item.observed <= item.interval[1]


def _expected_lift(bins: np.ndarray, labels: np.ndarray) -> float:
    """Draw the top tenth with ties by lot, in expectation."""
    wanted, found = TOP_SHARE * len(bins), 0.0
    for place in reversed(range(BINS)):
        inside = bins == place
        share = min(1.0, wanted / max(inside.sum(), 1))
        found += share * labels[inside].sum()
        wanted -= share * inside.sum()
    return found / (TOP_SHARE * labels.sum())


@pytest.mark.parametrize(
    ("count", "rate", "sigma"), [(1400, 0.12, 4.0), (1400, 0.3, 10.0), (1400, 0.05, 4.0), (9000, 0.12, 12.0)]
)
def test_intervals_cover_at_least_as_often_as_they_say(count: int, rate: float, sigma: float) -> None:
    generator = np.random.default_rng(11)
    population = binned(*customers(generator, 400_000, rate))
    truth = measure(Histogram(population, 0.0), EDGES)
    runs, hits = 300, np.zeros((3, 2))
    calibrated, shown = 0, 0
    right_rates = population[1] / np.maximum(population.sum(axis=0), 1.0)
    for _ in range(runs):
        counts = generator.multinomial(count, population.ravel() / population.sum()).reshape(2, BINS).astype(float)
        exact = measure(Histogram(counts, 0.0), EDGES)
        noisy = measure(Histogram(counts + np.round(generator.normal(0, sigma, (2, BINS))), sigma), EDGES)
        for row, name in enumerate(("auc", "ks", "lift")):
            found, on_these, on_all = getattr(noisy, name), getattr(exact, name).value, getattr(truth, name).value
            hits[row, 0] += found.noise is None or found.noise[0] - 1e-6 <= on_these <= found.noise[1] + 1e-6
            hits[row, 1] += found.population is None or found.population[0] <= on_all <= found.population[1]
        for item, right in zip(noisy.calibration, right_rates, strict=True):
            shown += item.interval is not None
            calibrated += item.interval is not None and item.interval[0] <= right <= item.interval[1]
    # 95% of 300, less 2.6 standard errors.
    assert (hits / runs >= 0.917).all()
    assert calibrated / shown >= 0.93


def test_an_interval_that_leaves_the_noise_out_does_not_cover() -> None:
    """The coverage test can fail: believing in a third of the noise is caught."""
    generator = np.random.default_rng(3)
    counts = binned(*customers(generator, 1400, 0.12))
    exact = measure(Histogram(counts, 0.0), EDGES).auc.value
    hits = 0
    for _ in range(200):
        found = measure(Histogram(counts + np.round(generator.normal(0, 6.0, (2, BINS))), 2.0), EDGES).auc
        hits += found.noise is not None and found.noise[0] <= exact <= found.noise[1]
    assert hits / 200 < 0.8


@pytest.mark.parametrize(
    "counts", [np.zeros((2, BINS)), np.stack([np.full(BINS, 100.0), np.full(BINS, 0.5)]), np.full((2, BINS), -3.0)]
)
@pytest.mark.parametrize("sigma", [0.0, 5.0])
def test_next_to_no_positives_is_uninformative(counts: np.ndarray, sigma: float) -> None:
    metrics = measure(Histogram(counts, sigma), EDGES)
    assert not metrics.informative
    assert metrics.auc.value is None and metrics.ks.noise is None and metrics.lift.population is None


@settings(max_examples=150)
@given(
    counts=hnp.arrays(np.int64, (2, 8), elements=st.integers(-(10**6), 10**6)),
    sigma=st.sampled_from([0.0, 0.5, 20.0, 5000.0]),
)
def test_any_histogram_gives_figures_inside_their_ranges(counts: np.ndarray, sigma: float) -> None:
    metrics = measure(Histogram(counts.astype(float), sigma), np.linspace(-2, 2, 7))
    for estimate, top in ((metrics.auc, 1.0), (metrics.ks, 1.0), (metrics.lift, 10.0)):
        for interval in (estimate.noise, estimate.population):
            assert interval is None or 0.0 <= interval[0] <= interval[1] <= top
    metrics.canonical()


@settings(max_examples=100)
@given(
    part=st.integers(0, 500),
    rest=st.integers(0, 500),
    sigma=st.floats(0, 30),
    cells=st.tuples(st.integers(1, 9), st.integers(1, 9)),
)
def test_share_interval_grows_with_noise_and_is_wilsons_without(
    part: int, rest: int, sigma: float, cells: tuple[int, int]
) -> None:
    low, high = share_interval(part, rest, cells, sigma, Z, sampled=True)
    calm_low, calm_high = share_interval(part, rest, cells, 0.0, Z, sampled=True)
    assert low <= calm_low + 1e-9 and calm_high <= high + 1e-9
    n = part + rest
    if n:
        p = part / n
        centre, half = (p + Z**2 / (2 * n)), Z * math.sqrt(p * (1 - p) / n + Z**2 / (4 * n**2))
        assert calm_low == pytest.approx(max((centre - half) / (1 + Z**2 / n), 0.0), abs=1e-9)
        assert calm_high == pytest.approx(min((centre + half) / (1 + Z**2 / n), 1.0), abs=1e-9)


def test_the_auc_set_is_the_one_that_the_formula_describes() -> None:
    """Check the interval's ends by T^2 = z^2 V written out with matrices."""
    histogram = Histogram(binned(*customers(np.random.default_rng(8), 1400, 0.12)), 5.0)
    a, c, variance = histogram.positives, histogram.negatives, 25.0
    kernel = np.tril(np.ones((BINS, BINS)), -1) + 0.5 * np.eye(BINS)
    for theta in area(histogram, Z).noise:
        m = kernel - theta
        frobenius = variance**2 * (m**2).sum()
        v = variance * (((m @ c) ** 2).sum() + ((m.T @ a) ** 2).sum()) - frobenius
        assert (a @ m @ c) ** 2 == pytest.approx(Z**2 * max(v, frobenius), rel=1e-3)


def test_institutions_add_up() -> None:
    total = add([Histogram(np.full((2, 4), 3.0), 3.0), Histogram(np.full((2, 4), 5.0), 4.0)])
    assert total.sigma == pytest.approx(5.0)
    assert (total.counts == 8.0).all()


def test_a_histogram_says_something_once_both_kinds_stand_above_the_noise_of_all_their_bins() -> None:
    least = Z * 5.0 * math.sqrt(BINS)
    for total, says in ((least - 1.0, False), (least + 1.0, True)):
        assert Histogram(np.full((2, BINS), total / BINS), 5.0).informative(Z) == says


def test_the_population_interval_is_delongs_over_all_pairs() -> None:
    scores, labels = customers(np.random.default_rng(4), 300, 0.3)
    bins = np.searchsorted(EDGES, scores, side="right")
    pairs = np.sign(bins[labels][:, None] - bins[~labels][None, :]) / 2 + 0.5
    variance = pairs.mean(axis=1).var(ddof=1) / labels.sum() + pairs.mean(axis=0).var(ddof=1) / (~labels).sum()
    found, half = area(Histogram(binned(scores, labels), 0.0), Z), Z * math.sqrt(variance)
    assert found.population == pytest.approx((found.value - half, found.value + half), abs=2e-6)


@pytest.mark.parametrize("sampled", [False, True])
def test_the_ends_of_a_share_solve_its_equation_cell_by_cell(sampled: bool) -> None:
    part, rest, cells, sigma = 90.0, 210.0, (2, 7), 6.0
    for share in share_interval(part, rest, cells, sigma, Z, sampled=sampled):
        assert 0.0 < share < 1.0
        variance = sigma**2 * (cells[0] * (1 - share) ** 2 + cells[1] * share**2)
        variance += 300.0 * share * (1 - share) if sampled else 0.0
        assert (part - 300.0 * share) ** 2 == pytest.approx(Z**2 * variance, rel=1e-6)


def test_the_ks_band_holds_at_all_thresholds_at_once() -> None:
    counts, sigma = binned(*customers(np.random.default_rng(9), 1400, 0.3)), 4.0
    strict = norm.ppf(1 - 0.025 / (BINS - 1))
    lows, highs = [], []
    for place in range(1, BINS):
        (q, q_low, q_high), (p, p_low, p_high) = (
            (
                row[place:].sum() / row.sum(),
                *share_interval(
                    row[place:].sum(), row[:place].sum(), (BINS - place, place), sigma, strict, sampled=False
                ),
            )
            for row in counts
        )
        lows.append(p - q - math.hypot(p - p_low, q_high - q))
        highs.append(p - q + math.hypot(p_high - p, q - q_low))
    assert measure(Histogram(counts, sigma), EDGES).ks.noise == pytest.approx((max(lows), max(highs)), abs=1e-6)
