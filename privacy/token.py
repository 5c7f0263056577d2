"""The open mode: what a run costs when later runs may depend on earlier answers.

A token says: whatever this run discloses, a Gaussian mechanism with parameter mu, replaced by full disclosure with
probability delta0, discloses at least as much. Tokens add up under full adaptivity (Smith and Thakurta 2022, arXiv
2210.17520; Koskela, Tobaben and Honkela 2022, arXiv 2209.15596): give run t a Brownian increment of length mu_t^2;
while the sum of mu^2 stays below B on every path, the transcript is sqrt(B)-GDP, and the delta0s add.

The public rule for shares, a function of the policy's delta and of nothing else: a tenth of delta is set aside for
the delta0s, in equal shares for `MAX_RUNS` runs. So a policy at delta = 1e-6 prices its runs at delta0 = 1e-9 and
admits 100 of them.
"""

import math
from collections.abc import Iterable, Sequence
from fractions import Fraction
from functools import lru_cache
from typing import Any

import mpmath
import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy.special import ndtri

from federation.document import Document
from federation.errors import PolicyError
from privacy.accounting import (
    GRID,
    MAX_EPSILON,
    check_delta,
    check_epsilon,
    composed_distribution,
    numerical_delta,
)
from privacy.events import PrivacyEvent

NANO = 10**9
FEMTO = 10**15
MAX_RUNS = 100
DISCLOSURE_SHARE = 10  # one part in so many of delta is for the delta0s
MIN_DELTA0 = 1e-11
MAX_DELTA0 = 1e-7
MAX_MU = 100.0
_DIGITS = 50
_MAX_INTEGER = (1 << 53) - 1  # of canonical JSON


class Token(Document):
    """The price of one run, or the sum of many.

    Attributes
    ----------
    mu_squared_nano:
        mu^2 in units of 1e-9, rounded up.
    delta_femto:
        delta0 in units of 1e-15, rounded up.
    """

    mu_squared_nano: int = Field(ge=0, le=_MAX_INTEGER)
    delta_femto: int = Field(ge=0, le=_MAX_INTEGER)


def total(tokens: Iterable[Token]) -> Token:
    """Return the sum of `tokens`, exact."""
    items = list(tokens)
    return Token(
        mu_squared_nano=sum(item.mu_squared_nano for item in items), delta_femto=sum(item.delta_femto for item in items)
    )


def delta_budget(delta: float) -> int:
    """Return E, the part of `delta` for the delta0s of all runs, in units of 1e-15: a tenth, rounded down.

    Raises
    ------
    PolicyError
        CSL-P104 for a bad `delta`.
    """
    check_delta(delta)
    return math.floor(_decimal(delta) * FEMTO / DISCLOSURE_SHARE)


def run_delta(delta: float) -> float:
    """Return delta0, at which each run of a policy with this `delta` is priced: `delta` / 1000, at most 1e-7.

    `MAX_RUNS` runs at this price fit into `delta_budget(delta)`.

    Raises
    ------
    PolicyError
        CSL-P104 for a bad `delta`; CSL-P109 below 1e-8, where the rounding of the distributions would eat the shares.
    """
    share = float(Fraction(delta_budget(delta) // MAX_RUNS, FEMTO))
    if share < MIN_DELTA0:
        raise PolicyError(
            "CSL-P109",
            f"The open mode needs a delta of at least {MIN_DELTA0 * DISCLOSURE_SHARE * MAX_RUNS}, not {delta}.",
            "Raise delta, or use a plan.",
        )
    return min(share, MAX_DELTA0)


def _decimal(value: float) -> Fraction:
    """The number that documents show for a float: its shortest decimal, as canonical JSON writes it."""
    return Fraction(repr(float(value)))


def price(events: Sequence[PrivacyEvent], delta0: float = 1e-9) -> Token:
    """Return the token of one run that consists of `events`.

    The events are composed as one run: their parameters are fixed before it starts.

    Parameters
    ----------
    events:
        At least one event.
    delta0:
        The run's chance of full disclosure, 1e-11 to 1e-7: `run_delta` of the policy's delta.

    Raises
    ------
    PolicyError
        CSL-P109 for a bad `delta0` or no event; CSL-P110 when no mu up to 100 dominates.
    """
    if not events or not MIN_DELTA0 <= delta0 <= MAX_DELTA0:
        raise PolicyError(
            "CSL-P109",
            f"A run needs at least one event and a delta0 from {MIN_DELTA0} to {MAX_DELTA0}, not {delta0}.",
            "Price it at the share that the policy's delta gives.",
        )
    mu = max(smallest_mu(pi, alpha, delta0) for pi, alpha in thresholds(events))
    if not mu <= MAX_MU:
        raise PolicyError(
            "CSL-P110", "The run discloses too much for the open mode to price.", "Use more noise or fewer steps."
        )
    return Token(mu_squared_nano=math.ceil(mu * mu * NANO), delta_femto=math.ceil(_decimal(delta0) * FEMTO))


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
    loss = (np.arange(first, first + mass.size) + dense._lower_loss) * GRID
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
    fits = _Decision(epsilon, delta, delta_femto_budget)
    low, high = 0, 1
    while fits(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def admits(spent: Token, cost: Token, capacity: int, delta_femto_budget: int) -> bool:
    """Return whether a run that costs `cost` may start after runs that cost `spent`: integers only."""
    return (
        spent.mu_squared_nano + cost.mu_squared_nano <= capacity
        and spent.delta_femto + cost.delta_femto <= delta_femto_budget
    )


def token_epsilon(sum_m: int, sum_e: int, delta: float) -> float:
    """Return the epsilon that tokens adding up to (`sum_m`, `sum_e`) enforce at `delta`, rounded up by less than 1e-9.

    Raises
    ------
    PolicyError
        CSL-P104 for a bad `delta`; CSL-P111 when `sum_e` is not below delta; CSL-P106 when epsilon is above 100.
    """
    check_delta(delta)
    if not _Decision(MAX_EPSILON, delta, sum_e)(sum_m):
        raise PolicyError(
            "CSL-P106", f"No epsilon up to {MAX_EPSILON:.0f} describes these tokens at delta {delta}.", "Spend less."
        )
    low, high = 0.0, MAX_EPSILON
    while high - low > 1e-9 * max(high, 1e-3):
        middle = (low + high) / 2.0
        low, high = (low, middle) if _Decision(middle, delta, sum_e)(sum_m) else (middle, high)
    return 0.0 if _Decision(0.0, delta, sum_e)(sum_m) else high


class _Decision:
    """Whether mu^2 = m / 1e9 fits into (epsilon, delta) beside a chance E' of full disclosure, in 50 digits."""

    def __init__(self, epsilon: float, delta: float, delta_femto: int) -> None:
        self._context = mpmath.MPContext()
        self._context.dps = _DIGITS
        self._epsilon = self._context.mpf(epsilon)
        self._disclosed = self._context.mpf(delta_femto) / FEMTO
        self._left = (self._context.mpf(delta) - self._disclosed) / (1 - self._disclosed)
        if delta_femto < 0 or self._left <= 0:
            raise PolicyError(
                "CSL-P111",
                f"The shares for full disclosure, {delta_femto} x 1e-15, must be at least 0 and below delta {delta}.",
                "Set aside a tenth of delta.",
            )

    def __call__(self, mu_squared_nano: int) -> bool:
        if mu_squared_nano == 0:
            return True
        context, epsilon = self._context, self._epsilon
        mu = context.sqrt(context.mpf(mu_squared_nano) / NANO)
        gain = context.ncdf(mu / 2 - epsilon / mu) - context.exp(epsilon) * context.ncdf(-mu / 2 - epsilon / mu)
        return bool(gain <= self._left)
