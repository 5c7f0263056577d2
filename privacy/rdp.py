"""Renyi divergence at one order that a policy fixes for the budget's life.

A run that is (alpha, rho)-RDP (Mironov 2017, arXiv 1702.07476) costs rho. Under full adaptivity, as long as the sum of rho
on every path stays within a budget fixed beforehand, the whole transcript is (alpha, budget)-RDP (Feldman and Zrnic 2021,
arXiv 2008.11193, Theorem 3.1). The order must be the same for all runs: to choose the best afterwards is not covered.

rho is computed in 50 digits from closed forms and rounded up, so that two machines agree.
"""

import math
from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache
from typing import Any

from federation.errors import PolicyError
from privacy.accounting import MAX_EPSILON, check_delta, check_epsilon
from privacy.cost import FEMTO, NANO, Bound, Cost
from privacy.digits import fifty_digits
from privacy.distributions import shared_delta
from privacy.events import (
    DiscreteGaussianHistogram,
    DiscreteLaplaceHistogram,
    PrivacyEvent,
    SecureSum,
    SubsampledGaussian,
    releases,
)

SMALLEST_ORDER = 2
LARGEST_ORDER = 256
UNCOVERED_SHARE = 100  # one part in so many of delta is for what the divergence does not cover


def rdp_price(events: Sequence[PrivacyEvent], order: int) -> Cost:
    """Return what one run of `events` costs at `order`: rho in 1e-9, and in 1e-15 the part of delta beside it.

    Beside the divergence stands what samplers of discrete noise lack to their law: 1e-15 for each histogram (up to 18,000
    cells, at epsilon up to 30), and `privacy.accounting.shared_delta` for secure sums.

    Parameters
    ----------
    events:
        At least one event.
    order:
        The policy's alpha, 2 to 256.

    Raises
    ------
    PolicyError
        CSL-P109 for no event; CSL-P110 when rho is above 10^5; CSL-P113 for a bad order.
    """
    _check_order(order)
    if not events:
        raise PolicyError("CSL-P109", "A run needs at least one event.", "Price what the run releases.")
    context = fifty_digits()
    rho = context.fsum(_rho(context, event, order) for event in events)
    if not rho <= 10**5:
        raise PolicyError(
            "CSL-P110", "The run discloses too much for the open mode to price.", "Use more noise or fewer steps."
        )
    nano = int(context.ceil(rho * NANO))
    counts = sum(releases(event) for event in events if not isinstance(event, SubsampledGaussian | SecureSum))
    return Cost(nano=nano, femto=math.ceil(shared_delta(events) * FEMTO) + counts)


def _rho(context: Any, event: PrivacyEvent, order: int) -> Any:  # noqa: ANN401 - mpmath has no types
    """rho of one event, the larger of both directions."""
    count = releases(event)
    if isinstance(event, DiscreteGaussianHistogram):
        # Canonne, Kamath and Steinke 2020 (arXiv 2004.00010), Proposition 5
        return count * order * (context.mpf(event.scale) / context.mpf(event.sigma)) ** 2 / 2
    if isinstance(event, DiscreteLaplaceHistogram):
        return count * _randomised_response(context, 1 / context.mpf(event.scale), order)
    return count * _subsampled_gaussian(context, event.noise_multiplier, event.sampling_rate, order)


def _randomised_response(context: Any, epsilon: Any, order: int) -> Any:  # noqa: ANN401 - mpmath has no types
    """Mironov 2017, Proposition 5: 1/(alpha-1) ln(p^alpha (1-p)^(1-alpha) + (1-p)^alpha p^(1-alpha)), p = 1/(1+e^-epsilon)."""
    p = 1 / (1 + context.exp(-epsilon))
    rest = 1 / (1 + context.exp(epsilon))
    return context.log(p**order * rest ** (1 - order) + rest**order * p ** (1 - order)) / (order - 1)


def _subsampled_gaussian(context: Any, sigma: float, rate: float, order: int) -> Any:  # noqa: ANN401 - mpmath has no types
    """Mironov, Talwar and Zhang 2019 (arXiv 1908.10530), Section 3.3, for integer alpha:
    ln(sum_k binomial(alpha, k) (1-q)^(alpha-k) q^k e^((k^2-k) / (2 sigma^2))) / (alpha-1).

    It bounds both directions (their Theorem 5).
    """
    q, half = context.mpf(rate), 1 / (2 * context.mpf(sigma) ** 2)
    if rate == 1.0:
        return order * half
    terms = (
        math.comb(order, k) * (1 - q) ** (order - k) * q**k * context.exp((k * k - k) * half) for k in range(order + 1)
    )
    return context.log(context.fsum(terms)) / (order - 1)


def uncovered_budget(delta: float) -> int:
    """Return the part of `delta` for what the divergence does not cover, in units of 1e-15: a hundredth, rounded down."""
    check_delta(delta)
    return math.floor(Fraction(repr(float(delta))) * FEMTO / UNCOVERED_SHARE)


def rdp_bound(epsilon: float, delta: float, order: int) -> Bound:
    """Return a budget as one order enforces it.

    Raises
    ------
    PolicyError
        CSL-P104, CSL-P105 for a bad budget; CSL-P112 when nothing fits under it at this order; CSL-P113 for a bad order.
    """
    _check_order(order)
    disclosed = uncovered_budget(delta)
    most = _capacity(epsilon, delta, order, fifty_digits())
    if most <= 0:
        best = best_order(epsilon, delta)
        raise PolicyError(
            "CSL-P112",
            f"At order {order} no study fits into epsilon {epsilon:g} at delta {delta:g}.",
            f"Choose order {best} in the policy, the best for this budget."
            if best
            else "Use tokens, or raise the budget.",
        )
    return Bound(epsilon=epsilon, delta=delta, capacity=Cost(nano=most, femto=disclosed))


def _capacity(epsilon: float, delta: float, order: int, context: Any) -> int:  # noqa: ANN401 - mpmath has no types
    """floor(1e9 (epsilon - `_overhead`)); at most 0 when nothing fits."""
    check_epsilon(epsilon)
    disclosed = context.mpf(uncovered_budget(delta)) / FEMTO
    capacity: int = int(
        context.floor(NANO * (context.mpf(epsilon) - _overhead(context, context.mpf(delta) - disclosed, order)))
    )
    return capacity


def _overhead(context: Any, delta: Any, order: int) -> Any:  # noqa: ANN401 - mpmath has no types
    """epsilon - rho at `delta`: ln((alpha-1)/alpha) - (ln delta + ln alpha) / (alpha-1) (Canonne, Kamath and Steinke 2020,
    Proposition 12; Asoodeh et al. 2020)."""
    alpha = context.mpf(order)
    return context.log((alpha - 1) / alpha) - (context.log(delta) + context.log(alpha)) / (alpha - 1)


@lru_cache(maxsize=64)
def best_order(epsilon: float, delta: float) -> int | None:
    """Return the order at which most fits into a budget (capacity / alpha, as Gaussian noise spends it); None when nothing
    fits at any.

    Raises
    ------
    PolicyError
        CSL-P104, CSL-P105 for a bad budget.
    """
    context, orders = fifty_digits(), range(SMALLEST_ORDER, LARGEST_ORDER + 1)
    room = {order: _capacity(epsilon, delta, order, context) / order for order in orders}
    best = max(room, key=lambda order: room[order])
    return best if room[best] > 0 else None


def rdp_epsilon(cost: Cost, order: int, delta: float) -> float:
    """Return the epsilon that costs adding up to `cost` enforce at `delta`, rounded up; 0 when nothing was spent.

    Raises
    ------
    PolicyError
        CSL-P104 for a bad `delta`; CSL-P106 when epsilon is above 100; CSL-P111 when `cost.femto` is not below delta.
    """
    _check_order(order)
    check_delta(delta)
    context = fifty_digits()
    left = context.mpf(delta) - context.mpf(cost.femto) / FEMTO
    if left <= 0:
        raise PolicyError(
            "CSL-P111",
            f"The shares beside the divergence, {cost.femto} x 1e-15, must be below delta {delta}.",
            "Spend less, or look at a larger delta.",
        )
    if cost.nano == 0:
        return 0.0
    value = context.mpf(cost.nano) / NANO + _overhead(context, left, order)
    if value > MAX_EPSILON:
        raise PolicyError(
            "CSL-P106", f"No epsilon up to {MAX_EPSILON:.0f} describes these costs at delta {delta}.", "Spend less."
        )
    return max(0.0, math.nextafter(float(value), math.inf))


def _check_order(order: int) -> None:
    if not SMALLEST_ORDER <= order <= LARGEST_ORDER:
        raise PolicyError(
            "CSL-P113",
            f"The order must be from {SMALLEST_ORDER} to {LARGEST_ORDER}, not {order}.",
            "Correct the policy.",
        )
