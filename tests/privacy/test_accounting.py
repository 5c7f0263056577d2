"""Prices against exact small cases, the analytic Gaussian, and Renyi accounting."""

import math

import numpy as np
import pytest
from dp_accounting import dp_event
from dp_accounting.pld import privacy_loss_distribution as pld
from dp_accounting.rdp import RdpAccountant
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from federation.errors import DocumentError, PolicyError
from privacy.accounting import (
    calibrate_histogram,
    calibrate_noise,
    composed_distribution,
    delta,
    epsilon,
    expected_disclosure,
    gaussian_log_delta,
    gaussian_mu,
    numerical_delta,
)
from privacy.events import DiscreteGaussianHistogram, PrivacyEvent, SubsampledGaussian

GAUSSIANS = st.builds(
    SubsampledGaussian,
    noise_multiplier=st.floats(0.7, 8.0),
    sampling_rate=st.sampled_from([0.01, 0.1, 0.5, 1.0]),
    steps=st.integers(1, 40),
)
HISTOGRAMS = st.builds(
    DiscreteGaussianHistogram, sigma=st.floats(1.0, 50.0), count=st.integers(1, 5), scale=st.sampled_from([1, 3])
)
MIXES = st.lists(GAUSSIANS | HISTOGRAMS, min_size=1, max_size=4)


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
@settings(max_examples=15, deadline=None)
def test_order_does_not_matter_and_more_never_costs_less(events: list[PrivacyEvent], random: object) -> None:
    whole = epsilon(events, 1e-6)
    random.shuffle(shuffled := list(events))  # type: ignore[attr-defined]
    assert epsilon(shuffled, 1e-6) == whole
    assert epsilon(events[1:], 1e-6) <= whole + 1e-9
    assert epsilon(events, 1e-7) >= whole >= epsilon(events, 1e-5)
    if 0.0 < whole <= 100.0:
        assert delta(events, whole) == pytest.approx(1e-6, rel=1e-4)


def test_splitting_an_event_changes_nothing_much() -> None:
    together = epsilon([gaussian(1.0, 0.1, 100)], 1e-6)
    assert epsilon([gaussian(1.0, 0.1, 50)] * 2, 1e-6) == pytest.approx(together, abs=1e-6)
    assert epsilon([gaussian(1.0, 0.1, 30), gaussian(1.0, 0.1, 70)], 1e-6) == pytest.approx(together, abs=1e-6)


def test_nothing_costs_nothing() -> None:
    assert epsilon([], 1e-6) == 0.0
    assert delta([], 1.0) == 0.0
    assert composed_distribution([]).get_delta_for_epsilon(0.0) == 0.0
    assert epsilon([gaussian(1e6)], 1e-3) == 0.0
    assert numerical_delta([gaussian(1.0, 0.1, 1000), DiscreteGaussianHistogram(sigma=1.0, count=500)]) == 1e-12 + 3e-13


@given(st.floats(0.05, 8.0), st.sampled_from([1e-5, 1e-8]), st.sampled_from([0.01, 0.1, 0.4, 1.0]), st.integers(1, 500))
@settings(max_examples=12, deadline=None)
def test_calibrated_noise_is_enough_and_hardly_more(target: float, at: float, rate: float, steps: int) -> None:
    sigma = calibrate_noise(target, at, rate, steps)
    assert epsilon([gaussian(sigma, rate, steps)], at) <= target
    if sigma > 0.1015:
        assert epsilon([gaussian(sigma / 1.0015, rate, steps)], at) > target


@given(st.floats(0.05, 10.0), st.sampled_from([1e-5, 1e-7]), st.integers(1, 20))
@settings(max_examples=12, deadline=None)
def test_calibrated_histograms_are_enough_and_hardly_more(target: float, at: float, count: int) -> None:
    sigma = calibrate_histogram(target, at, count)
    assert epsilon([DiscreteGaussianHistogram(sigma=sigma, count=count)], at) <= target
    assert epsilon([DiscreteGaussianHistogram(sigma=sigma / 1.0015, count=count)], at) > target


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
