"""Prices against exact small cases, the analytic Gaussian, Renyi accounting, and an independent computation."""

import importlib.util
import math
from pathlib import Path

import numpy as np
import pytest
from dp_accounting import dp_event
from dp_accounting.pld import privacy_loss_distribution as pld
from dp_accounting.rdp import RdpAccountant
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from federation.errors import DocumentError, PolicyError
from privacy import distributions
from privacy.accounting import (
    calibrate_histogram,
    calibrate_laplace,
    calibrate_noise,
    calibrate_secure_sum,
    delta,
    epsilon,
    gaussian_log_delta,
    gaussian_mu,
)
from privacy.distributions import composed_distribution, expected_disclosure, numerical_delta, sum_distance
from privacy.events import (
    DiscreteGaussianHistogram,
    DiscreteLaplaceHistogram,
    PrivacyEvent,
    SecureSum,
    SubsampledGaussian,
)
from tests.privacy.random_events import MIXES

_SPEC = importlib.util.spec_from_file_location(
    "accounting_reference", Path(__file__).parents[2] / "benchmarks" / "accounting_reference.py"
)
assert _SPEC is not None and _SPEC.loader is not None
_REFERENCE = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(_REFERENCE)
reference_epsilon = _REFERENCE.reference_epsilon


def gaussian(noise_multiplier: float, sampling_rate: float = 1.0, steps: int = 1) -> SubsampledGaussian:
    return SubsampledGaussian(noise_multiplier=noise_multiplier, sampling_rate=sampling_rate, steps=steps)


def one_step_delta(sigma: float, rate: float, eps: float) -> float:
    """Hockey-stick divergence of (1-q) N(0, s^2) + q N(1, s^2) and N(0, s^2), the worse direction, by its one threshold."""
    ratio = (math.exp(eps) - 1 + rate) / rate
    at = 0.5 + sigma**2 * math.log(ratio)  # the mixture exceeds e^eps times the plain law above here
    remove = rate * norm.sf((at - 1) / sigma) + (1 - rate - math.exp(eps)) * norm.sf(at / sigma)
    add = 0.0
    if math.exp(-eps) > 1 - rate:
        at = 0.5 + sigma**2 * math.log((math.exp(-eps) - 1 + rate) / rate)  # and falls below e^-eps times it here
        lower = (1 - rate) * norm.cdf(at / sigma) + rate * norm.cdf((at - 1) / sigma)
        add = norm.cdf(at / sigma) - math.exp(eps) * lower
    return max(remove, add)


@pytest.mark.parametrize(("sigma", "rate"), [(0.6, 0.1), (1.0, 0.01), (1.0, 0.4), (3.0, 0.9), (2.0, 1.0)])
@pytest.mark.parametrize("eps", [0.05, 0.4, 1.0])
def test_one_step_is_the_exact_value_rounded_up(sigma: float, rate: float, eps: float) -> None:
    exact = one_step_delta(sigma, rate, eps)
    mine = delta([gaussian(sigma, rate)], eps)
    assert exact <= mine <= exact * 1.01 + 2e-9


def test_one_step_by_numerical_integration() -> None:
    x = np.linspace(-15, 16, 2_000_001)
    plain, mixture = norm.pdf(x), 0.8 * norm.pdf(x) + 0.2 * norm.pdf(x - 1)
    remove = np.trapezoid(np.maximum(mixture - math.exp(0.2) * plain, 0), x)
    add = np.trapezoid(np.maximum(plain - math.exp(0.2) * mixture, 0), x)
    assert max(remove, add) == pytest.approx(one_step_delta(1.0, 0.2, 0.2), rel=1e-6)


@pytest.mark.parametrize(("sigma", "steps"), [(1.0, 1), (4.0, 1), (5.0, 20), (50.0, 400)])
@pytest.mark.parametrize("target", [1e-5, 1e-7])
def test_without_sampling_it_is_the_analytic_gaussian(sigma: float, steps: int, target: float) -> None:
    mine = epsilon([gaussian(sigma, 1.0, steps)], target)
    mu = math.sqrt(steps) / sigma
    assert gaussian_log_delta(mu, mine) <= math.log(target)
    assert gaussian_log_delta(mu, mine * 0.998 - 0.001) > math.log(target)
    assert gaussian_mu(mine, target) == pytest.approx(mu, rel=3e-3)


def histogram_delta(sigma: float, scale: int, eps: float, count: int) -> float:
    """Exact divergence of one or two shifted discrete Gaussians, by enumeration."""
    x = np.arange(-400, 401)
    law = np.exp(-(x.astype(float) ** 2) / (2 * sigma**2))
    law /= law.sum()
    moved = np.roll(law, scale)
    if count == 2:
        law, moved = np.outer(law, law).ravel(), np.outer(moved, moved).ravel()
    return float(np.maximum(law - math.exp(eps) * moved, 0.0).sum())


@pytest.mark.parametrize(
    ("sigma", "scale", "count"), [(0.5, 1, 1), (1.3, 1, 2), (10.0, 1, 1), (10.0, 4, 2), (30.0, 7, 1)]
)
@pytest.mark.parametrize("eps", [0.01, 0.3, 1.5])
def test_histograms_are_the_exact_value_rounded_up(sigma: float, scale: int, count: int, eps: float) -> None:
    exact = histogram_delta(sigma, scale, eps, count)
    mine = delta([DiscreteGaussianHistogram(sigma=sigma, count=count, scale=scale)], eps)
    assert exact <= mine <= exact * 1.02 + 1e-8


def laplace(scale: float, count: int = 1) -> DiscreteLaplaceHistogram:
    return DiscreteLaplaceHistogram(scale=scale, count=count)


def shared(sigma: float, sensitivity: float, rate: float = 1.0, steps: int = 1, dimension: int = 1) -> SecureSum:
    return SecureSum(
        sigma=sigma, members=4, sensitivity=sensitivity, sampling_rate=rate, steps=steps, dimension=dimension
    )


@pytest.mark.parametrize(("scale", "count"), [(0.5, 1), (2.0, 1), (2.0, 2), (20.0, 2), (7.3, 2)])
@pytest.mark.parametrize("eps", [0.01, 0.1, 0.6])
def test_laplace_counts_are_the_exact_value_rounded_up(scale: float, count: int, eps: float) -> None:
    x = np.arange(-1500, 1501)
    law = np.exp(-np.abs(x) / scale)
    law /= law.sum()
    moved = np.roll(law, 1)
    if count == 2:
        law, moved = np.outer(law, law).ravel(), np.outer(moved, moved).ravel()
    exact = float(np.maximum(law - math.exp(eps) * moved, 0.0).sum())
    assert exact - 1e-15 <= delta([laplace(scale, count)], eps) <= exact * 1.01 + 1e-6


def test_a_laplace_count_is_pure() -> None:
    assert epsilon([laplace(19.3)], 1e-9) == pytest.approx(1 / 19.3, rel=2e-4)
    assert epsilon([laplace(10.0)], 1e-9) == pytest.approx(0.1, abs=1e-6)
    assert calibrate_laplace(0.1, 1e-9, 1) == pytest.approx(10.0, rel=1.5e-3)


@pytest.mark.parametrize(
    ("sigma", "sensitivity", "rate"), [(200.0, 200.0, 0.1), (200.0, 70.0, 0.5), (300.0, 100.0, 1.0)]
)
@pytest.mark.parametrize("eps", [0.02, 0.3, 1.0])
def test_a_secure_sum_of_four_members_is_below_its_price(
    sigma: float, sensitivity: float, rate: float, eps: float
) -> None:
    """The law of four members' discrete Gaussians, added up exactly, with and without a customer that may be drawn."""
    x = np.arange(-4096, 4096)
    one = np.exp(-(x.astype(float) ** 2) / (2.0 * sigma**2 / 4.0))
    spectrum = np.fft.fft(np.fft.ifftshift(one / one.sum())) ** 4
    plain = np.maximum(np.fft.fftshift(np.fft.ifft(spectrum).real), 0.0)
    mixture = (1.0 - rate) * plain + rate * np.roll(plain, int(sensitivity))
    exact = max(
        float(np.maximum(mixture - math.exp(eps) * plain, 0.0).sum()),
        float(np.maximum(plain - math.exp(eps) * mixture, 0.0).sum()),
    )
    assert exact <= delta([shared(sigma, sensitivity, rate)], eps) <= exact * 1.02 + 2e-9


def test_the_continuous_gaussian_of_the_same_sigma_is_no_bound() -> None:
    """Why 4 is taken off the variance: total variation of neighbouring discrete Gaussians of sigma = 4, eight apart each
    way, lies above that of the continuous ones."""
    x = np.arange(-200, 201)
    law = np.exp(-(x.astype(float) ** 2) / 32.0)
    law /= law.sum()
    shifts = range(1, 40)
    discrete = [float(np.maximum(law - np.roll(law, shift), 0.0).sum()) for shift in shifts]
    continuous = [2.0 * norm.cdf(shift / 8.0) - 1.0 for shift in shifts]
    smoothed = [2.0 * norm.cdf(shift / (2.0 * math.sqrt(12.0))) - 1.0 for shift in shifts]
    assert any(mine > other for mine, other in zip(discrete, continuous, strict=True))
    assert all(mine <= other for mine, other in zip(discrete, smoothed, strict=True))


def test_what_secure_sums_lack_to_the_continuous_gaussian_is_charged() -> None:
    event = shared(1e4, 100.0, 0.1, 1000, 10_000)
    assert 1e7 * 2.1e-34 < sum_distance(event) < 1e-25
    assert numerical_delta([event]) == pytest.approx(1e-12 + 2e-13 + (1 + math.exp(30)) * sum_distance(event))
    assert sum_distance(shared(1e4, 100.0, 0.1, 1000, 20_000)) == pytest.approx(2 * sum_distance(event))


REFERENCES: list[list[PrivacyEvent]] = [
    [gaussian(2.0, 0.1, 150)],
    [gaussian(8.0, 0.01, 1000)],
    [gaussian(2.0, 0.001, 10_000)],
    [gaussian(0.7, 0.01, 300)],
    [gaussian(50.0, 0.1, 150)],
    [laplace(19.3)],
    [laplace(19.3), laplace(7.7)],
    [laplace(200.0, 60), DiscreteGaussianHistogram(sigma=30.0, count=20)],
    [
        gaussian(4.0, 0.1, 150),
        laplace(20.0, 10),
        DiscreteGaussianHistogram(sigma=16.0, count=2),
        shared(1000, 200, 0.1, 60),
    ],
]


@pytest.mark.parametrize("events", REFERENCES, ids=range(len(REFERENCES)))
def test_agrees_with_an_independent_computation_and_lies_above_it(events: list[PrivacyEvent]) -> None:
    exact = reference_epsilon(events, 1e-6, step=2e-5, reach=10.0)
    assert exact * (1 - 1e-4) - 2e-5 <= epsilon(events, 1e-6) <= exact * 1.002


def test_the_independent_computation_finds_the_analytic_gaussian() -> None:
    exact = reference_epsilon([gaussian(4.0, 1.0, 10)], 1e-6)
    assert gaussian_log_delta(math.sqrt(10) / 4.0, exact) == pytest.approx(math.log(1e-6), abs=1e-4)


@pytest.mark.parametrize("events", REFERENCES, ids=range(len(REFERENCES)))
def test_agrees_with_a_finer_grid(events: list[PrivacyEvent], monkeypatch: pytest.MonkeyPatch) -> None:
    usual = epsilon(events, 1e-6)
    caches = (distributions._event_distribution, distributions._composed)
    monkeypatch.setattr(distributions, "GRID", 1e-4)
    monkeypatch.setattr(distributions, "_FINENESS", 0.01)
    monkeypatch.setattr(distributions, "_FINENESS_AT_BOUND", 3e-5)
    for cache in caches:
        cache.cache_clear()
    finer = epsilon(events, 1e-6)
    for cache in caches:
        cache.cache_clear()
    assert finer * (1 - 3e-5) <= usual <= finer * 1.002  # the grids are not parts of one another


@given(MIXES)
@settings(max_examples=10)
def test_a_coarser_grid_dominates(events: list[PrivacyEvent]) -> None:
    fine = composed_distribution(events)
    coarse = distributions._coarsened(fine, 3)
    points = np.linspace(0.0, 3.0, 31)
    rounding = 1e-13  # of sums of thousands of masses: on points of both grids the two are equal
    assert np.all(coarse.get_delta_for_epsilon(points) >= fine.get_delta_for_epsilon(points) - rounding)
    for one, other in ((fine._pmf_remove, coarse._pmf_remove), (fine._pmf_add, coarse._pmf_add)):
        first, second = one.to_dense_pmf(), other.to_dense_pmf()
        assert second._discretization == pytest.approx(8 * first._discretization)
        for power in (0.0, 1.0):  # the masses p, and p e^-loss, both stay
            sums = [
                float(np.sum(item._probs * np.exp(-power * item._discretization * np.arange(item._probs.size))))
                * math.exp(-power * item._discretization * item._lower_loss)
                for item in (first, second)
            ]
            assert sums[0] == pytest.approx(sums[1], rel=1e-9)


@pytest.mark.parametrize(
    ("sigma", "rate", "steps"), [(1.0, 0.1, 100), (2.0, 0.05, 500), (0.8, 0.01, 1000), (5.0, 0.3, 30)]
)
def test_between_the_optimistic_distribution_and_renyi(sigma: float, rate: float, steps: int) -> None:
    mine = epsilon([gaussian(sigma, rate, steps)], 1e-6)
    renyi = RdpAccountant().compose(
        dp_event.SelfComposedDpEvent(dp_event.PoissonSampledDpEvent(rate, dp_event.GaussianDpEvent(sigma)), steps)
    )
    below = pld.from_gaussian_mechanism(
        sigma,
        pessimistic_estimate=False,
        value_discretization_interval=2e-4,
        sampling_prob=rate,
        use_connect_dots=False,
    ).self_compose(steps)
    assert below.get_epsilon_for_delta(1e-6) <= mine <= renyi.get_epsilon(1e-6)


@given(MIXES, st.randoms())
@settings(max_examples=10)
def test_order_does_not_matter_and_more_never_costs_less(events: list[PrivacyEvent], random: object) -> None:
    whole = epsilon(events, 1e-6)
    random.shuffle(shuffled := list(events))  # type: ignore[attr-defined]
    assert epsilon(shuffled, 1e-6) == whole
    assert epsilon(events[1:], 1e-6) <= whole * 1.0005 + 1e-4
    assert epsilon(events, 1e-7) >= whole >= epsilon(events, 1e-5)
    if 0.0 < whole <= 100.0:
        assert delta(events, whole) == pytest.approx(1e-6, rel=1e-4)


def test_splitting_an_event_changes_nothing_much() -> None:
    together = epsilon([gaussian(1.0, 0.1, 100)], 1e-6)
    assert epsilon([gaussian(1.0, 0.1, 50)] * 2, 1e-6) == pytest.approx(together, rel=1e-4)
    assert epsilon([gaussian(1.0, 0.1, 30), gaussian(1.0, 0.1, 70)], 1e-6) == pytest.approx(together, rel=1e-4)


def test_nothing_costs_nothing() -> None:
    assert epsilon([], 1e-6) == 0.0
    assert delta([], 1.0) == 0.0
    assert composed_distribution([]).get_delta_for_epsilon(0.0) == 0.0
    assert epsilon([gaussian(1e6)], 1e-3) == 0.0
    assert numerical_delta([gaussian(1.0, 0.1, 1000), DiscreteGaussianHistogram(sigma=1.0, count=500)]) == 1e-12 + 3e-13


@given(st.floats(0.05, 8.0), st.sampled_from([1e-5, 1e-8]), st.sampled_from([0.01, 0.1, 0.4, 1.0]), st.integers(1, 500))
@settings(max_examples=7)
def test_calibrated_noise_is_enough_and_hardly_more(target: float, at: float, rate: float, steps: int) -> None:
    sigma = calibrate_noise(target, at, rate, steps)
    assert epsilon([gaussian(sigma, rate, steps)], at) <= target
    if sigma > 0.1015:
        assert epsilon([gaussian(sigma / 1.0015, rate, steps)], at) > target


@given(st.floats(0.05, 10.0), st.sampled_from([1e-5, 1e-7]), st.integers(1, 20))
@settings(max_examples=7)
def test_calibrated_histograms_are_enough_and_hardly_more(target: float, at: float, count: int) -> None:
    sigma = calibrate_histogram(target, at, count)
    assert epsilon([DiscreteGaussianHistogram(sigma=sigma, count=count)], at) <= target
    assert epsilon([DiscreteGaussianHistogram(sigma=sigma / 1.0015, count=count)], at) > target


@given(st.floats(0.05, 10.0), st.sampled_from([1e-5, 1e-7]), st.integers(1, 20))
@settings(max_examples=10)
def test_calibrated_laplace_counts_are_enough_and_hardly_more(target: float, at: float, count: int) -> None:
    scale = calibrate_laplace(target, at, count)
    assert epsilon([laplace(scale, count)], at) <= target
    if scale > 0.0508:
        assert epsilon([laplace(scale / 1.0015, count)], at) > target


@given(st.floats(0.05, 8.0), st.sampled_from([1e-5, 1e-8]), st.sampled_from([0.01, 0.1, 1.0]), st.integers(1, 500))
@settings(max_examples=5)
def test_calibrated_secure_sums_are_enough_and_hardly_more(target: float, at: float, rate: float, steps: int) -> None:
    def sums(sigma: float) -> list[PrivacyEvent]:
        return [SecureSum(sigma=sigma, members=9, sensitivity=900, sampling_rate=rate, steps=steps, dimension=200)]

    sigma = calibrate_secure_sum(target, at, rate, steps, sensitivity=900.0, dimension=200, members=9)
    assert sigma >= 200.0
    assert epsilon(sums(sigma), at) <= target
    if sigma > 201.0:
        assert epsilon(sums(sigma / 1.0015), at) > target


def test_secure_sums_never_get_less_noise_than_the_theorem_needs() -> None:
    assert calibrate_secure_sum(50.0, 1e-5, 0.1, 10, sensitivity=10.0, dimension=10, members=4) == pytest.approx(200.0)


@pytest.mark.parametrize(
    ("sensitivity", "dimension", "members"),
    [(0.0, 1, 1), (-1.0, 1, 1), (math.nan, 1, 1), (math.inf, 1, 1), (1.0, 0, 1), (1.0, 1, 0), (1.0, 1, 1001)],
)
def test_bad_secure_sums(sensitivity: float, dimension: int, members: int) -> None:
    with pytest.raises(DocumentError) as caught:
        calibrate_secure_sum(1.0, 1e-6, 0.1, 10, sensitivity=sensitivity, dimension=dimension, members=members)
    assert caught.value.code == "CSL-P108"


@pytest.mark.parametrize("sensitivity", [1e-6, 1e6])
def test_secure_sums_out_of_reach(sensitivity: float) -> None:
    with pytest.raises(PolicyError) as caught:
        calibrate_secure_sum(0.01, 1e-6, 1.0, 1000, sensitivity=sensitivity, dimension=10, members=4)
    assert caught.value.code == "CSL-P107"


def test_calibrating_a_gaussian_finds_the_analytic_sigma() -> None:
    assert calibrate_noise(1.0, 1e-5, 1.0, 1) == pytest.approx(3.730632, rel=1.5e-3)  # Balle and Wang 2018


def test_the_least_noise_there_is() -> None:
    assert calibrate_noise(100.0, 0.1, 0.001, 1) == pytest.approx(0.1, rel=2e-3)


@pytest.mark.parametrize("bad", [0.0, -1.0, 1.0, 1e-11, math.nan, math.inf])
def test_bad_delta(bad: float) -> None:
    for call in (
        lambda: epsilon([], bad),
        lambda: calibrate_noise(1.0, bad, 0.1, 1),
        lambda: calibrate_histogram(1.0, bad, 1),
        lambda: calibrate_laplace(1.0, bad, 1),
        lambda: calibrate_secure_sum(1.0, bad, 0.1, 1, sensitivity=100.0, dimension=1, members=1),
    ):
        with pytest.raises(PolicyError) as caught:
            call()
        assert caught.value.code == "CSL-P104"


@pytest.mark.parametrize("bad", [0.0, -1.0, 101.0, math.nan, math.inf])
def test_bad_epsilon_and_no_privacy_at_all(bad: float) -> None:
    for call in (
        lambda: delta([], bad),
        lambda: calibrate_noise(bad, 1e-6, 0.1, 1),
        lambda: calibrate_histogram(bad, 1e-6, 1),
        lambda: calibrate_laplace(bad, 1e-6, 1),
        lambda: calibrate_secure_sum(bad, 1e-6, 0.1, 1, sensitivity=100.0, dimension=1, members=1),
    ):
        with pytest.raises(PolicyError) as caught:
            call()
        assert caught.value.code == "CSL-P105"


@pytest.mark.parametrize(("rate", "steps"), [(0.0, 10), (1.5, 10), (math.nan, 10), (0.5, 0), (0.5, 10**7)])
def test_bad_plan(rate: float, steps: int) -> None:
    with pytest.raises(DocumentError) as caught:
        calibrate_noise(1.0, 1e-6, rate, steps)
    assert caught.value.code == "CSL-P108"


def test_a_trial_that_discloses_everything_is_passed_over() -> None:
    sigma = calibrate_noise(60.0, 0.1, 0.001, 10**5)
    assert (
        epsilon([gaussian(sigma, 0.001, 10**5)], 0.1) <= 60.0 < epsilon([gaussian(sigma / 1.0015, 0.001, 10**5)], 0.1)
    )


def test_out_of_reach() -> None:
    with pytest.raises(PolicyError) as caught:
        calibrate_noise(1e-5, 1e-9, 1.0, 10**6)
    assert caught.value.code == "CSL-P107"


@pytest.mark.parametrize(
    "events",
    [
        [gaussian(1e4, 0.1, 10**6)],  # rounding alone takes all of delta
        [gaussian(0.1, 1.0, 10**6)],
        [gaussian(0.5, 0.1, 6000)] * 2,
        [DiscreteGaussianHistogram(sigma=0.1, count=1, scale=10**6)],
    ],
)
def test_too_much_for_any_number_is_refused_without_computing(events: list[PrivacyEvent]) -> None:
    with pytest.raises(PolicyError) as caught:
        epsilon(events, 1e-10)
    assert caught.value.code == "CSL-P106"


def kl(first: np.ndarray, second: np.ndarray, width: float) -> float:
    return float((first * np.log(first / second)).sum() * width)


@pytest.mark.parametrize(("sigma", "rate"), [(0.4, 0.01), (1.0, 0.1), (3.0, 0.5), (2.0, 1.0)])
def test_expected_disclosure_bounds_both_directions(sigma: float, rate: float) -> None:
    x, width = np.linspace(-12 * sigma, 12 * sigma + 1, 200_001, retstep=True)
    plain = norm.pdf(x / sigma) / sigma
    mixture = (1 - rate) * plain + rate * norm.pdf((x - 1) / sigma) / sigma
    bound = expected_disclosure(gaussian(sigma, rate, 7))
    assert 7 * kl(mixture, plain, width) <= bound * (1 + 1e-9)
    assert 7 * kl(plain, mixture, width) <= bound * (1 + 1e-9)
    assert expected_disclosure(DiscreteGaussianHistogram(sigma=4.0, count=2, scale=4)) == 1.0
    p = 1.0 / (1.0 + math.exp(-0.5))
    assert expected_disclosure(laplace(2.0, 3)) == pytest.approx(3 * 0.5 * (2 * p - 1))
