"""Privacy loss distributions (PLD) of events: pessimistic, and on a grid that is fine beside each release.

dp-accounting builds and composes them (Meiser and Mohammadi 2018; Koskela, Jaelkoe, Honkela 2020; discretised by "connect
the dots", Doroshenko et al. 2022, arXiv 2207.04380), so that every figure is an upper bound.

The grid: connecting the dots on a grid of h adds about h^2 / 6 to the variance of a loss. Where a thousand steps each
disclose little, a grid of 1e-3 would so add more than is there (29% to epsilon at sigma = 2, q = 0.001, 10^4 steps). So a step
is built on a grid of at most 0.07 of its loss's standard deviation, composed there, and brought to a coarser grid afterwards.
"""

import math
from collections import Counter
from collections.abc import Sequence
from functools import cache, lru_cache, reduce
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np

from federation.errors import PolicyError
from privacy.events import (
    DiscreteGaussianHistogram,
    DiscreteLaplaceHistogram,
    PrivacyEvent,
    SecureSum,
    SubsampledGaussian,
    releases,
)

if TYPE_CHECKING:
    from dp_accounting.pld import pld_pmf
    from dp_accounting.pld import privacy_loss_distribution as pld

GRID = 1e-3
MAX_DISCLOSURE = 2000.0
_FINENESS = 0.07  # of the grid, beside the standard deviation of what it holds: 0.04% in epsilon
_FINENESS_AT_BOUND = 2e-4
_MOST_HALVINGS = 10
_MOST_POINTS = 1e5
_ROUNDING = 1e-12
_ROUNDING_PER_RELEASE = 2e-16
_KERNEL = 2.1e-34
_SAMPLER_EPSILON = 30.0


def numerical_delta(events: Sequence[PrivacyEvent]) -> float:
    """Return what is added to every delta of `events`: 1e-12, 2e-16 for each release that is composed, and what secure
    sums lack to the continuous Gaussian.

    It covers the rounding of the Fourier transforms, which grows with the number of releases (against sums in 80-bit
    floats: 4e-14 at 2^10 steps, 4e-12 at 2^17), and samplers that are exact up to 1e-30.
    """
    steps = sum(releases(event) for event in events)
    return _ROUNDING + _ROUNDING_PER_RELEASE * steps + shared_delta(events)


def shared_delta(events: Sequence[PrivacyEvent]) -> float:
    """Return what secure sums among `events` add to delta: (1 + e^30) times their `sum_distance`."""
    distance = sum(sum_distance(event) for event in events if isinstance(event, SecureSum))
    return (1.0 + math.exp(_SAMPLER_EPSILON)) * distance


def sum_distance(event: SecureSum) -> float:
    """Return a bound of the total variation distance of a secure sum's transcript from one that the continuous Gaussian
    dominates.

    For each integer that is released: 2.1e-34 for the kernel that rounds N(mu, sigma^2 - 4) to N_Z(mu, sigma^2) and
    for the sum of several discrete Gaussians against one, and for each honest member the sampler's table: 2^-128 for
    each of its 2 ceil(13.38 sigma_i) + 2 entries, with the sum of the sigma_i at most sqrt(members) sigma. A distance
    t adds (1 + e^epsilon) t to delta(epsilon); it is charged at epsilon = 30.
    """
    table = 26.8 * math.sqrt(event.members) * event.sigma + 4.0 * event.members
    return float(event.steps) * event.dimension * (_KERNEL + math.ldexp(table, -128))


def expected_disclosure(event: PrivacyEvent) -> float:
    """Return an upper bound of the expected privacy loss (Kullback-Leibler divergence, nats) of one event.

    For a step with sampling rate q it is the lesser of q / (2 sigma^2), by convexity, and the chi-square divergence
    q^2 (e^(1/sigma^2) - 1); for discrete Laplace noise, tanh(1 / 2b) / b. The size of a distribution grows with it, so
    that it is looked at first.
    """
    if isinstance(event, DiscreteGaussianHistogram):
        return event.count * (event.scale / event.sigma) ** 2 / 2.0
    if isinstance(event, DiscreteLaplaceHistogram):
        return event.count * math.tanh(0.5 / event.scale) / event.scale
    rate, inverse = event.sampling_rate, 1.0 / (event.noise_multiplier * event.noise_multiplier)
    return event.steps * min(rate * inverse / 2.0, rate**2 * math.expm1(inverse))


def _spread(event: PrivacyEvent) -> float:
    """About the variance of one event's privacy loss, from below: it only chooses grids."""
    if isinstance(event, DiscreteGaussianHistogram):
        return event.count * (event.scale / event.sigma) ** 2
    if isinstance(event, DiscreteLaplaceHistogram):
        return event.count * math.tanh(0.5 / event.scale) ** 2
    return event.steps * (event.sampling_rate / event.noise_multiplier) ** 2


def _halvings(variance: float, number: int, reach: float, bound: float) -> int:
    """How often `GRID` is halved for `number` parts that add up to `variance`, with losses up to about `reach` and never above
    `bound`: there the distribution ends at once, and epsilon may lie a whole cell too high.
    """
    wanted = min(_FINENESS * math.sqrt(variance / number), _FINENESS_AT_BOUND * bound)
    wanted = max(wanted, reach / _MOST_POINTS, GRID * 2.0**-_MOST_HALVINGS)
    return max(math.ceil(math.log2(GRID / wanted)), 0)


def _own_halvings(event: PrivacyEvent) -> int:
    """`_halvings` for the grid on which one release of an event is built and composed."""
    reach = _largest_loss(event) + expected_disclosure(event)
    return _halvings(_spread(event), releases(event), reach, _bound(event))


def _bound(event: PrivacyEvent) -> float:
    """The largest loss of an event that has one."""
    return event.count / event.scale if isinstance(event, DiscreteLaplaceHistogram) else math.inf


def _largest_loss(event: PrivacyEvent) -> float:
    """About the largest loss of one release that matters, 8 standard deviations out."""
    if isinstance(event, DiscreteLaplaceHistogram):
        return 1.0 / event.scale
    if isinstance(event, DiscreteGaussianHistogram):
        mu, rate = event.scale / event.sigma, 1.0
    else:
        mu, rate = 1.0 / event.noise_multiplier, event.sampling_rate
    whole = mu * mu / 2.0 + 8.0 * mu
    return whole + math.log(rate - (rate - 1.0) * math.exp(-whole))


@cache
def _pld() -> Any:  # noqa: ANN401 - dp-accounting has no types
    """Import dp-accounting when it is first needed: that takes a second, and most commands price nothing."""
    return import_module("dp_accounting.pld.privacy_loss_distribution")


@cache
def _pmf() -> Any:  # noqa: ANN401
    return import_module("dp_accounting.pld.pld_pmf")


@lru_cache(maxsize=256)
def _event_distribution(event: PrivacyEvent, halvings: int) -> "pld.PrivacyLossDistribution":
    """One event, both directions (remove, add) of the neighbouring relation, on the grid that is asked for.

    It is built on that grid or the event's own, whichever is finer, and composed there. A secure sum's is that of the
    continuous Gaussian mechanism that dominates it (`SecureSum.noise_multiplier`) but for `sum_distance`.
    """
    fine = max(halvings, _own_halvings(event))
    return _coarsened(_one_release(event, math.ldexp(GRID, -fine)).self_compose(releases(event)), fine - halvings)


def _one_release(event: PrivacyEvent, grid: float) -> "pld.PrivacyLossDistribution":
    if isinstance(event, SubsampledGaussian | SecureSum):
        return _pld().from_gaussian_mechanism(
            event.noise_multiplier, value_discretization_interval=grid, sampling_prob=event.sampling_rate
        )
    if isinstance(event, DiscreteGaussianHistogram):
        return _pld().from_discrete_gaussian_mechanism(
            event.sigma, sensitivity=event.scale, value_discretization_interval=grid, use_connect_dots=True
        )
    return _pld().from_discrete_laplace_mechanism(
        1.0 / event.scale, value_discretization_interval=grid, use_connect_dots=True
    )


def _coarsened(fine: "pld.PrivacyLossDistribution", halvings: int) -> "pld.PrivacyLossDistribution":
    if halvings == 0:
        return fine
    return _pld().PrivacyLossDistribution(
        _coarsened_direction(fine._pmf_remove, halvings), _coarsened_direction(fine._pmf_add, halvings)
    )


def _coarsened_direction(
    pmf: Any,  # noqa: ANN401 - dp-accounting has no types
    halvings: int,
) -> "pld_pmf.DensePLDPmf":
    """Split each mass p at loss l between the coarse points beside it, so that p and p e^-l both stay.

    Merging the two parts gives back the test that was there: the result dominates. It is "connect the dots" for a loss on a
    grid.
    """
    dense, factor = pmf.to_dense_pmf(), 1 << halvings
    place = dense._lower_loss + np.arange(dense._probs.size)
    lower = place // factor
    beyond = (place - lower * factor) * dense._discretization
    upper_part = dense._probs * (np.expm1(-beyond) / math.expm1(-factor * dense._discretization))
    first = int(lower[0])
    size = int(lower[-1]) - first + 2
    probs = np.bincount(lower - first, dense._probs - upper_part, size)
    probs += np.bincount(lower - first + 1, upper_part, size)
    return _pmf().DensePLDPmf(factor * dense._discretization, first, probs, dense._infinity_mass, True)


def composed_distribution(events: Sequence[PrivacyEvent]) -> "pld.PrivacyLossDistribution":
    """Return the privacy loss distribution of all `events` together; their order does not matter.

    Raises
    ------
    PolicyError
        CSL-P106 when `events` disclose more than 2000 nats: no epsilon of use describes them, and the answer would take
        more memory than there is.
    """
    if not events:
        return _pld().identity(GRID)
    if sum(expected_disclosure(event) for event in events) > MAX_DISCLOSURE:
        raise too_much("any delta")
    return _composed(tuple(sorted(Counter(events).items(), key=lambda item: item[0].digest())))


@lru_cache(maxsize=8)
def _composed(counts: tuple[tuple[PrivacyEvent, int], ...]) -> "pld.PrivacyLossDistribution":
    variance = sum(_spread(event) * count for event, count in counts)
    disclosed = sum(expected_disclosure(event) * count for event, count in counts)
    bound = sum(_bound(event) * count for event, count in counts)
    halvings = _halvings(variance, sum(count for _, count in counts), disclosed, bound)
    return reduce(
        lambda one, other: one.compose(other),
        (_event_distribution(event, halvings).self_compose(count) for event, count in counts),
    )


def too_much(where: str) -> PolicyError:
    """Return the refusal of releases that no epsilon describes at `where`."""
    return PolicyError(
        "CSL-P106",
        f"No epsilon describes these releases at {where}.",
        "Use more noise or fewer steps, or a larger delta.",
    )
