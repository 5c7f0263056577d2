"""Renyi prices against numerical integration, enumeration, dp-accounting, and the distributions that they bound."""

import math

import mpmath
import numpy as np
import pytest
from dp_accounting.rdp.rdp_privacy_accountant import _compute_rdp_poisson_subsampled_gaussian
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from federation.errors import PolicyError
from privacy.accounting import epsilon
from privacy.cost import NANO, Cost, total
from privacy.events import (
    DiscreteGaussianHistogram,
    DiscreteLaplaceHistogram,
    PrivacyEvent,
    SecureSum,
    SubsampledGaussian,
)
from privacy.rdp import best_order, rdp_bound, rdp_epsilon, rdp_price, uncovered_budget
from tests.privacy.random_events import MIXES


def gaussian(noise_multiplier: float, sampling_rate: float = 1.0, steps: int = 1) -> SubsampledGaussian:
    return SubsampledGaussian(noise_multiplier=noise_multiplier, sampling_rate=sampling_rate, steps=steps)


def divergence(p: np.ndarray, q: np.ndarray, order: int) -> float:
    held = p > 0.0
    return math.log(float(np.sum(p[held] * np.exp((order - 1) * np.log(p[held] / q[held]))))) / (order - 1)


@pytest.mark.parametrize(("sigma", "rate"), [(1.0, 0.1), (2.0, 0.01), (4.0, 0.5), (1.5, 1.0)])
@pytest.mark.parametrize("order", [2, 5, 16])
def test_a_step_is_the_integral_rounded_up_and_the_worse_direction(sigma: float, rate: float, order: int) -> None:
    x, width = np.linspace(-14 * sigma, 14 * sigma + order, 400_001, retstep=True)
    plain = norm.pdf(x / sigma) / sigma * width
    mixture = (1 - rate) * plain + rate * norm.pdf((x - 1) / sigma) / sigma * width
    nano = rdp_price([gaussian(sigma, rate)], order).nano
    remove, add = divergence(mixture, plain, order), divergence(plain, mixture, order)
    assert add <= remove * (1 + 1e-9)
    assert remove * NANO * (1 - 1e-7) - 1 <= nano <= remove * NANO * (1 + 1e-6) + 1


@given(st.floats(0.5, 20.0), st.floats(1e-4, 1.0), st.integers(2, 256), st.integers(1, 1000))
@settings(max_examples=30)
def test_steps_agree_with_the_library(sigma: float, rate: float, order: int, steps: int) -> None:
    theirs = steps * float(_compute_rdp_poisson_subsampled_gaussian(rate, sigma, [order])[0])
    if theirs < 1e4:
        nano = rdp_price([gaussian(sigma, rate, steps)], order).nano
        assert theirs * NANO * (1 - 1e-9) - steps * 1e-3 <= nano <= theirs * NANO * (1 + 1e-9) + steps * 1e-3 + 1


@pytest.mark.parametrize(("scale", "order"), [(1.0, 2), (5.0, 8), (20.0, 32)])
def test_laplace_counts_by_enumeration(scale: float, order: int) -> None:
    reach = math.ceil(200 * scale)
    x = np.arange(-reach, reach + 1)
    law = np.exp(-np.abs(x) / scale)
    law /= law.sum()
    inside = slice(1, -1)
    exact = divergence(law[inside], np.roll(law, 1)[inside], order)
    nano = rdp_price([DiscreteLaplaceHistogram(scale=scale, count=3)], order).nano
    assert nano == pytest.approx(3 * exact * NANO, rel=1e-6, abs=2)


@pytest.mark.parametrize(("sigma", "scale", "order"), [(1.0, 1, 2), (5.0, 2, 8), (20.0, 1, 32)])
def test_discrete_gaussian_counts_by_enumeration(sigma: float, scale: int, order: int) -> None:
    x = np.arange(-700, 701)
    with mpmath.workdps(40):
        law = [mpmath.exp(-mpmath.mpf(int(v) ** 2) / (2 * mpmath.mpf(sigma) ** 2)) for v in x]
        moved = [mpmath.exp(-mpmath.mpf((int(v) - scale) ** 2) / (2 * mpmath.mpf(sigma) ** 2)) for v in x]
        mass = mpmath.fsum(law)
        moment = mpmath.fsum(q**order * p ** (1 - order) for p, q in zip(law, moved, strict=True)) / mass
        exact = float(mpmath.log(moment) / (order - 1))
    nano = rdp_price([DiscreteGaussianHistogram(sigma=sigma, count=2, scale=scale)], order).nano
    assert 2 * exact * NANO * (1 - 1e-9) <= nano <= 2 * exact * NANO * (1 + 1e-6) + 1


def test_secure_sums_cost_the_gaussian_that_dominates_them() -> None:
    event = SecureSum(sigma=400.0, members=4, sensitivity=100.0, sampling_rate=0.1, steps=10, dimension=1000)
    alone = rdp_price([gaussian(event.noise_multiplier, 0.1, 10)], 8)
    assert rdp_price([event], 8) == Cost(nano=alone.nano, femto=1)
    assert alone.femto == 0
    assert rdp_price([DiscreteLaplaceHistogram(scale=4.0, count=7)], 8).femto == 7


@given(MIXES, st.sampled_from([1e-5, 1e-6, 1e-7]), st.sampled_from([2, 4, 8, 16, 64]))
@settings(max_examples=15)
def test_the_enforced_epsilon_of_any_mix_is_at_least_its_composition(
    runs: list[PrivacyEvent], delta: float, order: int
) -> None:
    spent = total(rdp_price([run], order) for run in runs)
    if spent.nano <= 60 * NANO:
        assert rdp_epsilon(spent, order, delta) >= epsilon(runs, delta) * (1 - 1e-3)


@given(st.floats(0.5, 20.0), st.sampled_from([1e-5, 1e-6, 1e-7]), st.integers(2, 256))
@settings(max_examples=40)
def test_capacity_is_the_largest_integer(eps: float, delta: float, order: int) -> None:
    with mpmath.workdps(70):
        left = mpmath.mpf(delta) - mpmath.mpf(uncovered_budget(delta)) / 10**15
        alpha = mpmath.mpf(order)
        room = mpmath.mpf(eps) + (mpmath.log(left) + mpmath.log(alpha)) / (alpha - 1) - mpmath.log((alpha - 1) / alpha)
        exact = int(mpmath.floor(room * NANO))
    if exact <= 0:
        with pytest.raises(PolicyError, match="CSL-P112"):
            rdp_bound(eps, delta, order)
        return
    bound = rdp_bound(eps, delta, order)
    assert bound.capacity == Cost(nano=exact, femto=uncovered_budget(delta))
    assert rdp_epsilon(bound.capacity, order, delta) <= eps * (1 + 1e-12)
    more = Cost(nano=exact + 1, femto=bound.capacity.femto)
    assert rdp_epsilon(more, order, delta) > eps * (1 - 1e-12)


@pytest.mark.parametrize(("eps", "delta"), [(0.5, 1e-5), (2.0, 1e-6), (8.0, 1e-7)])
def test_the_best_order_is_named_and_is_the_best(eps: float, delta: float) -> None:
    best = best_order(eps, delta)
    assert best is not None
    room = rdp_bound(eps, delta, best).capacity.nano / best
    for order in (best - 1, best + 1, 2 * best):
        assert rdp_bound(eps, delta, order).capacity.nano / order <= room
    with pytest.raises(PolicyError, match=rf"CSL-P112.*order {best}"):
        rdp_bound(eps, delta, 2)


def test_a_budget_that_no_order_holds() -> None:
    assert best_order(0.001, 1e-9) is None
    with pytest.raises(PolicyError, match="Use tokens"):
        rdp_bound(0.001, 1e-9, 256)


def test_a_gaussian_is_within_13_percent_at_a_good_order() -> None:
    for target, delta in ((1.0, 1e-6), (3.0, 1e-6), (3.0, 1e-5)):
        order = best_order(target, delta)
        assert order is not None
        run: list[PrivacyEvent] = [
            gaussian(math.sqrt(order / (2 * rdp_bound(target, delta, order).capacity.nano / NANO)))
        ]
        overhead = target / epsilon(run, delta)
        assert 1.0 <= overhead <= 1.13


def test_nothing_spent_is_nothing() -> None:
    assert rdp_epsilon(Cost(), 8, 1e-6) == 0.0
    assert rdp_epsilon(Cost(femto=10**8), 8, 1e-6) == 0.0


@pytest.mark.parametrize(
    ("call", "code"),
    [
        (lambda: rdp_price([], 8), "CSL-P109"),
        (lambda: rdp_price([gaussian(1.0)], 1), "CSL-P113"),
        (lambda: rdp_price([gaussian(1.0)], 257), "CSL-P113"),
        (lambda: rdp_price([gaussian(0.1, 1.0, 1000)], 8), "CSL-P110"),
        (lambda: rdp_bound(math.nan, 1e-6, 8), "CSL-P105"),
        (lambda: rdp_bound(-1.0, 1e-6, 8), "CSL-P105"),
        (lambda: rdp_bound(1.0, 1.0, 8), "CSL-P104"),
        (lambda: rdp_epsilon(Cost(nano=1, femto=10**10), 8, 1e-6), "CSL-P111"),
        (lambda: rdp_epsilon(Cost(nano=101 * NANO), 8, 1e-6), "CSL-P106"),
        (lambda: rdp_epsilon(Cost(nano=1), 8, math.nan), "CSL-P104"),
    ],
)
def test_refusals(call: object, code: str) -> None:
    with pytest.raises(PolicyError) as caught:
        call()  # type: ignore[operator]
    assert caught.value.code == code
