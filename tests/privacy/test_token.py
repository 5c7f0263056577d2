"""Tokens: each dominates its run, sums dominate mixes, shares of delta never run out before the rest."""

import math

import mpmath
import numpy as np
import pytest
from dp_accounting.pld import privacy_loss_distribution as pld
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import ndtr, ndtri
from scipy.stats import norm

from federation.errors import PolicyError
from privacy.accounting import epsilon
from privacy.cost import FEMTO, NANO, Bound, Cost, total
from privacy.distributions import composed_distribution
from privacy.events import DiscreteGaussianHistogram, DiscreteLaplaceHistogram, PrivacyEvent, SubsampledGaussian
from privacy.token import (
    MIN_FEMTO,
    capacity,
    delta_budget,
    disclosure_share,
    price,
    smallest_mu,
    thresholds,
    token_bound,
    token_epsilon,
    token_nano,
    token_price,
)
from tests.privacy.random_events import MIXES, RUNS


def gaussian(noise_multiplier: float, sampling_rate: float = 1.0, steps: int = 1) -> SubsampledGaussian:
    return SubsampledGaussian(noise_multiplier=noise_multiplier, sampling_rate=sampling_rate, steps=steps)


def enforced(m: int, e: int, eps: float) -> float:
    """delta(eps) of sqrt(m / 1e9)-GDP beside a chance e / 1e15 of full disclosure, in plain floats."""
    mu, disclosed = math.sqrt(m / NANO), e / FEMTO
    if mu == 0.0:
        return disclosed
    return disclosed + (1 - disclosed) * (norm.cdf(mu / 2 - eps / mu) - math.exp(eps + norm.logcdf(-mu / 2 - eps / mu)))


@given(RUNS, st.floats(0.0, 6.0), st.sampled_from([1e-7, 1e-9, 1e-10]))
@settings(max_examples=40)
def test_the_token_dominates_its_run_at_every_epsilon(run: PrivacyEvent, eps: float, delta0: float) -> None:
    token = price([run], delta0)
    distribution = composed_distribution([run])
    for direction in (distribution._pmf_remove, distribution._pmf_add):
        assert direction.get_delta_for_epsilon(eps) <= enforced(token.nano, token.femto, eps) + 1e-15


@pytest.mark.parametrize(("sigma", "rate"), [(0.8, 0.1), (1.0, 0.02), (2.0, 0.5), (1.5, 1.0)])
def test_the_token_dominates_exact_tests_at_random_thresholds(sigma: float, rate: float) -> None:
    """Power and false alarms of real tests on one step, integrated by Phi, with no distribution on a grid in between."""
    delta0 = 1e-9
    token = price([gaussian(sigma, rate)], delta0)
    mu = math.sqrt(token.nano / NANO)
    x = np.random.default_rng(1).uniform(-8 * sigma, 8 * sigma + 1, 4000)

    def mixture(z: np.ndarray) -> np.ndarray:
        return (1 - rate) * ndtr(z / sigma) + rate * ndtr((z - 1) / sigma)

    reflected = (1 - rate) * ndtr(-x / sigma) + rate * ndtr((1 - x) / sigma)
    for power, alarms in ((reflected, ndtr(-x / sigma)), (ndtr(x / sigma), mixture(x))):
        below = ndtri(np.minimum(alarms / (1 - delta0), 1.0))
        assert np.all(power <= delta0 + (1 - delta0) * ndtr(mu + below) + 1e-14)


@pytest.mark.parametrize("sampling_rate", [0.01, 0.2])
def test_the_token_is_as_small_as_it_can_be(sampling_rate: float) -> None:
    run, delta0 = [gaussian(1.0, sampling_rate, 100)], 1e-8
    mu = math.sqrt(price(run, delta0).nano / NANO)

    def dominated(by: float) -> bool:
        return all(
            np.all(pi <= delta0 + (1 - delta0) * ndtr(by + ndtri(np.minimum(alpha / (1 - delta0), 1.0))))
            for pi, alpha in thresholds(run)
        )

    assert dominated(mu)
    assert not dominated(mu * 0.9999)


@pytest.mark.parametrize(("sigma", "steps"), [(0.5, 1), (1.0, 1), (3.0, 4), (40.0, 100)])
def test_a_gaussian_costs_its_own_mu(sigma: float, steps: int) -> None:
    exact = steps / sigma**2 * NANO
    token = price([gaussian(sigma, 1.0, steps)])
    assert exact * (1 - 1e-6) <= token.nano <= exact * 1.005
    assert token.femto == 10**6


@given(MIXES, st.sampled_from([1e-5, 1e-6, 1e-7]), st.floats(0.5, 30.0))
@settings(max_examples=15)
def test_the_enforced_epsilon_of_any_mix_is_at_least_its_composition(
    runs: list[PrivacyEvent], delta: float, budget: float
) -> None:
    bounds = [token_bound(budget, delta)]
    spent = total(token_price([run], bounds) for run in runs)
    if spent.femto < delta * FEMTO:
        assert token_epsilon(spent.nano, spent.femto, delta) >= epsilon(runs, delta) * (1 - 1e-9) - 1e-9
    together = token_nano(runs, max(spent.femto, MIN_FEMTO))
    assert together <= spent.nano * 1.01 + 10


@pytest.mark.parametrize(
    ("sigma", "rate", "steps", "least", "most"),
    [
        (4.0, 0.1, 150, 0.001, 0.014),
        (2.0, 0.1, 150, 0.001, 0.014),
        (1.0, 0.01, 1000, 0.02, 0.03),
        (0.7, 0.01, 1000, 0.06, 0.08),
    ],
)
def test_overhead(sigma: float, rate: float, steps: int, least: float, most: float) -> None:
    """What the open mode costs one run: 0.1-1.4% from sigma 2, 2.5% at 1, 7% at 0.7, at delta0 = 1e-7 and delta = 1e-5."""
    run = [gaussian(sigma, rate, steps)]
    token = price(run, 1e-7)
    overhead = token_epsilon(token.nano, token.femto, 1e-5) / epsilon(run, 1e-5) - 1
    assert least <= overhead <= most


def test_several_events_are_one_run() -> None:
    study = [gaussian(2.0, 0.1, 100), DiscreteGaussianHistogram(sigma=20.0, count=2)]
    alone = total(price([event]) for event in study)
    together = price(study)
    assert together.femto == 10**6 and alone.femto == 2 * 10**6
    assert together.nano <= alone.nano * 1.01


def test_thresholds_are_power_and_false_alarms_of_the_gaussian() -> None:
    (pi, alpha), (pi_add, _) = thresholds([gaussian(1.0)])
    assert np.array_equal(pi, pi_add)
    assert np.all(np.diff(pi) >= 0) and np.all(np.diff(alpha) >= 0)
    assert 1e-12 <= pi[0] < 2e-12 and alpha[0] == 0.0
    assert pi[-1] == pytest.approx(norm.cdf(0.5), abs=1e-3)  # the loss is N(1/2, 1), or N(-1/2, 1) without the customer
    assert alpha[-1] == pytest.approx(norm.cdf(-0.5), abs=1e-3)


def test_smallest_mu_by_hand() -> None:
    alpha = np.array([0.01, 0.1, 0.3])
    assert smallest_mu(ndtr(0.7 + ndtri(alpha)), alpha, 1e-11) == pytest.approx(0.7, abs=1e-8)
    assert smallest_mu(np.array([5e-8]), np.array([0.0]), 1e-7) == 0.0
    assert smallest_mu(np.array([2e-7]), np.array([0.0]), 1e-7) == math.inf
    assert smallest_mu(np.array([0.3]), np.array([0.4]), 1e-7) == 0.0


@given(st.floats(0.01, 20.0), st.sampled_from([1e-5, 1e-6, 1e-7]))
@settings(max_examples=15)
def test_capacity_is_the_largest_integer(eps: float, delta: float) -> None:
    budget = delta_budget(delta)
    most = capacity(eps, delta, budget)
    with mpmath.workdps(70):

        def spent(m: int) -> mpmath.mpf:
            mu, disclosed = mpmath.sqrt(mpmath.mpf(m) / NANO), mpmath.mpf(budget) / FEMTO
            e = mpmath.mpf(eps)
            half = mpmath.erfc((e / mu - mu / 2) / mpmath.sqrt(2)) / 2
            other = mpmath.erfc((e / mu + mu / 2) / mpmath.sqrt(2)) / 2
            return disclosed + (1 - disclosed) * (half - mpmath.exp(e) * other)

        assert spent(most) <= mpmath.mpf(delta) < spent(most + 1)
    assert token_epsilon(most, budget, delta) - 1e-9 * max(eps, 1.0) <= eps < token_epsilon(most + 1, budget, delta)


def test_capacity_without_disclosure_is_the_analytic_gaussian() -> None:
    assert capacity(1.0, 1e-5, 0) == pytest.approx(NANO / 3.730632**2, rel=1e-6)  # Balle and Wang 2018


@given(st.integers(1, 10**9), st.integers(0, 10**8), st.sampled_from([1e-5, 1e-6]))
@settings(max_examples=40)
def test_token_epsilon_is_rounded_up(m: int, e: int, delta: float) -> None:
    shown = token_epsilon(m, e, delta)
    assert enforced(m, e, shown) <= delta * (1 + 1e-9)
    if shown > 0.0:
        assert enforced(m, e, shown * (1 - 1e-6)) > delta * (1 - 1e-9)
    assert token_epsilon(m + 1000, e, delta) >= shown


def test_nothing_spent_is_nothing() -> None:
    assert token_epsilon(0, 0, 1e-6) == 0.0
    assert token_epsilon(0, 10**8, 1e-6) == 0.0
    assert total([]) == Cost(nano=0, femto=0)


BOUNDS = st.builds(
    token_bound,
    st.sampled_from([0.3, 1.0, 3.0, 10.0]),
    st.sampled_from([1e-5, 1e-6, 1e-7]),
)


@given(st.lists(BOUNDS, min_size=1, max_size=3), st.lists(st.integers(0, 10**9), min_size=1, max_size=40))
@settings(max_examples=60)
def test_shares_of_delta_last_as_long_as_the_rest(bounds: list[Bound], sizes: list[int]) -> None:
    shares = [disclosure_share(size, bounds) for size in sizes]
    assert min(shares) >= MIN_FEMTO
    for bound in bounds:
        above = [(size, share) for size, share in zip(sizes, shares, strict=True) if share > MIN_FEMTO]
        spent_m, spent_e = sum(size for size, _ in above), sum(share for _, share in above)
        assert spent_e * bound.capacity.nano <= bound.capacity.femto * spent_m
        if spent_m <= bound.capacity.nano:
            assert spent_e <= bound.capacity.femto


def test_a_share_has_two_digits_and_grows_with_the_run() -> None:
    bound = Bound(epsilon=1.0, delta=1e-5, capacity=Cost(nano=10**9, femto=10**9))
    looser = Bound(epsilon=3.0, delta=1e-5, capacity=Cost(nano=10**10, femto=10**9))
    assert disclosure_share(123_456_789, [bound]) == 120_000_000
    assert disclosure_share(123_456_789, [bound, looser]) == 12_000_000
    assert disclosure_share(0, [bound]) == disclosure_share(9_000, [bound]) == MIN_FEMTO
    assert disclosure_share(99_999, [bound]) == 99_000
    assert disclosure_share(10**15, [bound]) == 10**9


@given(RUNS, st.sampled_from([0.5, 3.0]), st.sampled_from([1e-5, 1e-7]))
@settings(max_examples=20)
def test_a_run_takes_as_much_of_delta_as_of_the_rest(run: PrivacyEvent, eps: float, delta: float) -> None:
    bound = token_bound(eps, delta)
    cost = token_price([run], [bound])
    assert cost.nano == token_nano([run], cost.femto)
    assert MIN_FEMTO <= cost.femto <= max(bound.capacity.femto, 20_000)
    if cost.nano <= bound.capacity.nano:
        share = cost.femto / max(cost.nano * bound.capacity.femto / bound.capacity.nano, 20_000)
        assert share <= 1.0
        if isinstance(run, SubsampledGaussian) and run.sampling_rate == 1.0:
            assert share >= 0.85


def test_hundreds_of_small_studies_fit() -> None:
    """A hundred thousand counts of sigma = 500 into (1, 1e-5): there is no cap on their number but mu^2."""
    bound = token_bound(1.0, 1e-5)
    cost = token_price([DiscreteGaussianHistogram(sigma=500.0, count=1)], [bound])
    number = min(bound.capacity.nano // cost.nano, bound.capacity.femto // cost.femto)
    assert number > 0.9 * bound.capacity.nano / (NANO / 500.0**2)


def test_where_tokens_are_loose() -> None:
    """One Laplace count at a time costs pi/2 of its loss's variance; sixty counts as one run, hardly more than it."""
    one = token_nano([DiscreteLaplaceHistogram(scale=20.0, count=1)], 10**7)
    sixty = token_nano([DiscreteLaplaceHistogram(scale=20.0, count=60)], 10**8)
    assert one == pytest.approx(math.pi / 2 / 400 * NANO, rel=2e-3)
    assert sixty == pytest.approx(60 / 400 * NANO, rel=0.03)


def test_rounding_alone_never_takes_all_of_a_share() -> None:
    cost = token_price([gaussian(1e5, 0.1, 10**6)], [token_bound(1.0, 1e-5)])
    assert cost.femto == 410_000  # twice 1e-12 + 2e-10, in two digits


def test_grid_is_read_as_the_library_means_it() -> None:
    """Guards the private attributes of dp-accounting that `thresholds` reads."""
    distribution = pld.from_gaussian_mechanism(1.0, value_discretization_interval=1e-3, sampling_prob=0.3)
    pi, alpha = thresholds([gaussian(1.0, 0.3)])[0]
    for index in (0, 40, 500):  # from the largest loss down to 0: the last but k is the loss k / 1000
        expected = distribution.get_delta_for_epsilon(index * 1e-3)
        assert pi[-1 - index] - math.exp(index * 1e-3) * alpha[-1 - index] == pytest.approx(expected, abs=1e-11)


@pytest.mark.parametrize(
    ("call", "code"),
    [
        (lambda: price([], 1e-9), "CSL-P109"),
        (lambda: price([gaussian(1.0)], 0.0), "CSL-P109"),
        (lambda: price([gaussian(1.0)], 2e-2), "CSL-P109"),
        (lambda: price([gaussian(1.0)], math.nan), "CSL-P109"),
        (lambda: price([gaussian(0.1, 1.0, 5)], 1e-9), "CSL-P110"),
        (lambda: price([gaussian(0.1, 1.0, 100)], 1e-9), "CSL-P106"),
        (lambda: capacity(1.0, 1e-6, 10**9), "CSL-P111"),
        (lambda: capacity(1.0, 1e-6, -1), "CSL-P111"),
        (lambda: capacity(math.inf, 1e-6, 0), "CSL-P105"),
        (lambda: capacity(1.0, 0.0, 0), "CSL-P104"),
        (lambda: token_epsilon(1, 10**10, 1e-6), "CSL-P111"),
        (lambda: token_epsilon(10**13, 0, 1e-6), "CSL-P106"),
        (lambda: token_epsilon(1, 1, 1.0), "CSL-P104"),
        (lambda: delta_budget(math.nan), "CSL-P104"),
    ],
)
def test_refusals(call: object, code: str) -> None:
    with pytest.raises(PolicyError) as caught:
        call()  # type: ignore[operator]
    assert caught.value.code == code
