"""The open mode: what a run costs when later runs may depend on earlier answers.

A token says: whatever this run discloses, a Gaussian mechanism with parameter mu, replaced by full disclosure with
probability delta0, discloses at least as much. Tokens add up under full adaptivity (Smith and Thakurta 2022, arXiv
2210.17520; Koskela, Tobaben and Honkela 2022, arXiv 2209.15596): give run t a Brownian increment of length mu_t^2;
while the sum of mu^2 stays below B on every path, the transcript is sqrt(B)-GDP, and the delta0s add.

Shares of delta: `DISCLOSURE_SHARE` of a budget's delta is set aside for the delta0s. A run takes as large a part of it
as of the budget's mu^2 (`disclosure_share`), so that neither runs out before the other.
"""

import math
from collections.abc import Iterable, Sequence
from fractions import Fraction
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from federation.errors import PolicyError
from privacy.accounting import MAX_EPSILON, check_delta, check_epsilon
from privacy.cost import FEMTO, NANO, Bound, Cost
from privacy.digits import fifty_digits
from privacy.distributions import composed_distribution, numerical_delta
from privacy.events import PrivacyEvent

DISCLOSURE_SHARE = 10  # one part in so many of delta is for the delta0s
MIN_FEMTO = 10**4  # 1e-11
MAX_FEMTO = 10**13  # 1e-2: more than a tenth of any delta
MAX_MU = 100.0


def delta_budget(delta: float) -> int:
    """Return E, the part of `delta` for the delta0s of all runs, in units of 1e-15: a tenth, rounded down.

    Raises
    ------
    PolicyError
        CSL-P104 for a bad `delta`.
    """
    check_delta(delta)
    return math.floor(_decimal(delta) * FEMTO / DISCLOSURE_SHARE)


def token_bound(epsilon: float, delta: float) -> Bound:
    """Return a budget as tokens enforce it. Raises PolicyError (CSL-P104, CSL-P105) as `capacity`."""
    disclosed = delta_budget(delta)
    return Bound(epsilon=epsilon, delta=delta, capacity=Cost(nano=capacity(epsilon, delta, disclosed), femto=disclosed))


def disclosure_share(nano_ref: int, bounds: Iterable[Bound]) -> int:
    """Return delta0 of a run in units of 1e-15: of the deltas set aside, the part that `nano_ref` takes of the capacity.

    At every bound the run gets floor(`nano_ref` E / M), at most E, and of these the least. So the delta0s of runs that fit add up to
    at most E, but for those at the floor of 1e-11. Rounded down to two significant digits.
    """
    capacities = [bound.capacity for bound in bounds]
    tightest = min(nano_ref * capacity.femto // max(capacity.nano, 1) for capacity in capacities)
    share = max(min(tightest, *(capacity.femto for capacity in capacities)), MIN_FEMTO)
    unit: int = 10 ** max(len(str(share)) - 2, 0)
    return share // unit * unit


def token_price(events: Sequence[PrivacyEvent], bounds: Iterable[Bound]) -> Cost:
    """Return the token of one run of `events`, at the delta0 that its own size gives it under `bounds`.

    The size is first taken at the largest delta0 that it may get, where it is least.

    Raises
    ------
    PolicyError
        CSL-P106, CSL-P109, CSL-P110 as `price`.
    """
    whole = list(bounds)
    first = token_nano(events, max(min(bound.capacity.femto for bound in whole), MIN_FEMTO))
    femto = max(disclosure_share(first, whole), _least_femto(events))
    return Cost(nano=token_nano(events, femto), femto=femto)


def price(events: Sequence[PrivacyEvent], delta0: float = 1e-9) -> Cost:
    """Return the token of one run that consists of `events`.

    The events are composed as one run: their parameters are fixed before it starts.

    Parameters
    ----------
    events:
        At least one event.
    delta0:
        The run's chance of full disclosure, 1e-11 to 1e-2.

    Raises
    ------
    PolicyError
        CSL-P109 for a bad `delta0` or no event; CSL-P110 when no mu up to 100 dominates.
    """
    if not MIN_FEMTO <= delta0 * FEMTO <= MAX_FEMTO:
        raise _bad_run(delta0)
    femto = math.ceil(_decimal(delta0) * FEMTO)
    return Cost(nano=token_nano(events, femto), femto=femto)


def token_nano(events: Sequence[PrivacyEvent], femto: int) -> int:
    """Return mu^2 of one run of `events`, in units of 1e-9, at delta0 = `femto` x 1e-15. Raises as `price`."""
    if not events or not MIN_FEMTO <= femto <= MAX_FEMTO:
        raise _bad_run(femto / FEMTO)
    delta0 = femto / FEMTO
    mu = max(smallest_mu(pi, alpha, delta0) for pi, alpha in thresholds(events))
    if not mu <= MAX_MU:
        raise PolicyError(
            "CSL-P110", "The run discloses too much for the open mode to price.", "Use more noise or fewer steps."
        )
    return math.ceil(mu * mu * NANO)


def _bad_run(delta0: float) -> PolicyError:
    return PolicyError(
        "CSL-P109",
        f"A run needs at least one event and a delta0 from {MIN_FEMTO / FEMTO:g} to {MAX_FEMTO / FEMTO:g}, not {delta0}.",
        "Price it at the share that the policy's delta gives.",
    )


def _least_femto(events: Sequence[PrivacyEvent]) -> int:
    """Twice what rounding alone takes, in two digits rounded up: below, no mu would dominate."""
    needed = math.ceil(2.0 * numerical_delta(events) * FEMTO)
    unit: int = 10 ** max(len(str(needed)) - 2, 0)
    return -(-needed // unit) * unit


def _decimal(value: float) -> Fraction:
    """The number that documents show for a float: its shortest decimal, as canonical JSON writes it."""
    return Fraction(repr(float(value)))


def thresholds(events: Sequence[PrivacyEvent]) -> list[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Return what tests on the privacy loss achieve, for both directions: (remove), (add).

    For every threshold l >= 0 on the grid, and for infinity, pi = P(L >= l) is the power and alpha = E[e^-L; L >= l]
    the false alarms; pi is raised by `numerical_delta` (1e-12 and a little for each release). Thresholds below 0
    belong to the other direction, and would be wrong here: composition moves truncated mass there.

    Returns
    -------
    Two pairs (pi, alpha), each float64, shape (thresholds,).
    """
    whole = composed_distribution(events)
    rounding = numerical_delta(events)
    return [_direction(whole._pmf_remove, rounding), _direction(whole._pmf_add, rounding)]


def _direction(
    pmf: Any,  # noqa: ANN401 - dp-accounting has no types
    rounding: float,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Read one direction of dp-accounting 0.6; its public methods give only differences of pi and e^l alpha."""
    dense = pmf.to_dense_pmf()
    first = max(0, -dense._lower_loss)
    mass = np.maximum(dense._probs[first:], 0.0)
    loss = (np.arange(first, first + mass.size) + dense._lower_loss) * dense._discretization
    power = np.cumsum(mass[::-1])
    false_alarms = np.cumsum((mass * np.exp(-loss))[::-1])
    return np.append(0.0, power) + (dense._infinity_mass + rounding), np.append(0.0, false_alarms)


def smallest_mu(pi: NDArray[np.float64], alpha: NDArray[np.float64], delta0: float) -> float:
    """Return the smallest mu with pi <= delta0 + (1 - delta0) Phi(mu + Phi^-1(alpha / (1 - delta0))) everywhere.

    Infinity when there is none. Rounded up by 1e-12, more than the error of the float functions.
    """
    binding = (pi > delta0) & (alpha < 1.0 - delta0)
    if not binding.any():
        return 0.0
    needed = ndtri(np.minimum((pi[binding] - delta0) / (1.0 - delta0), 1.0)) - ndtri(alpha[binding] / (1.0 - delta0))
    largest = float(needed.max())
    return max(0.0, largest * (1.0 + 1e-12) + 1e-12)


@lru_cache(maxsize=64)
def capacity(epsilon: float, delta: float, delta_femto_budget: int) -> int:
    """Return M, the most that `mu_squared_nano` may add up to under (epsilon, delta) beside this budget of
    `delta_femto`.

    M is the largest integer with E' + (1 - E') H <= delta, where E' = budget / 1e15, mu^2 = M / 1e9 and H =
    Phi(-epsilon/mu + mu/2) - e^epsilon Phi(-epsilon/mu - mu/2), in 50 digits; epsilon and delta are the exact values
    of the floats.

    Raises
    ------
    PolicyError
        CSL-P104, CSL-P105 for a bad budget; CSL-P111 when `delta_femto_budget` is not below delta.
    """
    check_epsilon(epsilon)
    check_delta(delta)
    fits = _Decision(epsilon, delta, delta_femto_budget, fifty_digits())
    low, high = 0, 1
    while fits(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def token_epsilon(sum_m: int, sum_e: int, delta: float) -> float:
    """Return the epsilon that tokens adding up to (`sum_m`, `sum_e`) enforce at `delta`, rounded up by less than 1e-9.

    Raises
    ------
    PolicyError
        CSL-P104 for a bad `delta`; CSL-P111 when `sum_e` is not below delta; CSL-P106 when epsilon is above 100.
    """
    check_delta(delta)
    context = fifty_digits()
    if not _Decision(MAX_EPSILON, delta, sum_e, context)(sum_m):
        raise PolicyError(
            "CSL-P106", f"No epsilon up to {MAX_EPSILON:.0f} describes these tokens at delta {delta}.", "Spend less."
        )
    low, high = 0.0, MAX_EPSILON
    while high - low > 1e-9 * max(high, 1e-3):
        middle = (low + high) / 2.0
        low, high = (low, middle) if _Decision(middle, delta, sum_e, context)(sum_m) else (middle, high)
    return 0.0 if _Decision(0.0, delta, sum_e, context)(sum_m) else high


class _Decision:
    """Whether mu^2 = m / 1e9 fits into (epsilon, delta) beside a chance E' of full disclosure, in 50 digits."""

    def __init__(self, epsilon: float, delta: float, delta_femto: int, context: Any) -> None:  # noqa: ANN401 - mpmath has no types
        self._context = context
        self._epsilon = self._context.mpf(epsilon)
        self._disclosed = self._context.mpf(delta_femto) / FEMTO
        self._left = (self._context.mpf(delta) - self._disclosed) / (1 - self._disclosed)
        if delta_femto < 0 or self._left <= 0:
            raise PolicyError(
                "CSL-P111",
                f"The shares for full disclosure, {delta_femto} x 1e-15, must be at least 0 and below delta {delta}.",
                "Spend less, or look at a larger delta.",
            )

    def __call__(self, mu_squared_nano: int) -> bool:
        if mu_squared_nano == 0:
            return True
        context, epsilon = self._context, self._epsilon
        mu = context.sqrt(context.mpf(mu_squared_nano) / NANO)
        gain = context.ncdf(mu / 2 - epsilon / mu) - context.exp(epsilon) * context.ncdf(-mu / 2 - epsilon / mu)
        return bool(gain <= self._left)
