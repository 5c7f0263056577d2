"""The smallest epsilon that reaches a target, from runs at a few epsilons with the same seeds; and an interval for it.

A margin is a run's metric less its bound, so turned that a target is reached where it is not negative. Margins' means over seeds are made
monotone in epsilon (isotonic least squares: Barlow, Bartholomew, Bremner, Brunk 1972), and between epsilons that were run the curve is
straight in their logarithm.

The interval is a bootstrap over seeds (Efron 1979): seeds are drawn with replacement, whole, since runs of one seed share their customers
and draws at every epsilon; the means' deviations from the observed means are widened by sqrt(n / (n - 1)) t / z, t and z the 97.5%
points of Student's t with n - 1 degrees of freedom and of the normal distribution; the curve is fitted anew; and the middle 95% of the
epsilons found is the interval. Without the widening intervals from few seeds are too narrow (Hesterberg 2015, section 3), the more so
as no mean of drawn seeds lies outside the seeds' range.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, stats

from simulations.sweeps.estimates import CONFIDENCE

Floats = NDArray[np.float64]
BELOW, BEYOND = 0.0, math.inf
"""An epsilon smaller, or larger, than all that were run."""

DRAWS = 4000


@dataclass(frozen=True)
class Crossing:
    """Where a target is reached.

    Attributes
    ----------
    epsilon:
        The smallest that reaches it; BELOW where the smallest that was run does, BEYOND where none does.
    low, high:
        The 95% interval, with the same meaning of its ends; None with fewer than two seeds.
    bracket:
        The neighbouring epsilons that were run between which it lies; None at either end.
    """

    epsilon: float
    low: float | None
    high: float | None
    bracket: tuple[float, float] | None


def fitted(margins: Floats, weights: Floats | None = None) -> Floats:
    """Return margins made rising by least squares, float64 [G].

    Parameters
    ----------
    weights:
        Seeds in each mean; equal where None.
    """
    found: Floats = optimize.isotonic_regression(margins, weights=weights).x
    return found


def first_reached(epsilons: Floats, curve: Floats) -> float:
    """Return the smallest epsilon at which a rising curve is not negative, or BELOW or BEYOND."""
    if curve[0] >= 0:
        return BELOW
    if curve[-1] < 0:
        return BEYOND
    after = int(np.argmax(curve >= 0))
    left, right = curve[after - 1], curve[after]
    share = -left / (right - left)
    low, high = math.log(epsilons[after - 1]), math.log(epsilons[after])
    return math.exp(low + share * (high - low))


def crossing(margins: Mapping[float, Mapping[int, float]], seed: int = 0, confidence: float = CONFIDENCE) -> Crossing:
    """Return where a target is reached.

    Parameters
    ----------
    margins:
        By epsilon, by seed; at least one epsilon. Seeds that are missing at some epsilon are left out of that mean; an epsilon without
        any is left out.
    seed:
        Of the bootstrap's draws.
    """
    epsilons, table = _table(margins)
    there = ~np.isnan(table)
    counts, values = there.astype(np.float64), np.where(there, table, 0.0)
    means = values.sum(axis=0) / counts.sum(axis=0)
    found = first_reached(epsilons, fitted(means, counts.sum(axis=0)))
    bracket = None
    if 0.0 < found < BEYOND:
        after = int(np.searchsorted(epsilons, found))
        bracket = (float(epsilons[max(after - 1, 0)]), float(epsilons[max(after, 1)]))
    if len(table) < 2:
        return Crossing(found, None, None, bracket)
    low, high = _interval(epsilons, values, counts, means, seed, confidence)
    return Crossing(found, low, high, bracket)


def _table(margins: Mapping[float, Mapping[int, float]]) -> tuple[Floats, Floats]:
    """Return the epsilons, rising, float64 [G], and margins float64 [seeds, G] with NaN where a seed is missing."""
    known = {epsilon: by_seed for epsilon, by_seed in margins.items() if by_seed}
    seeds = sorted({seed for by_seed in known.values() for seed in by_seed})
    epsilons = sorted(known)
    table = np.array([[known[epsilon].get(seed, math.nan) for epsilon in epsilons] for seed in seeds], dtype=np.float64)
    return np.array(epsilons), table


def _interval(
    epsilons: Floats, values: Floats, counts: Floats, means: Floats, seed: int, confidence: float
) -> tuple[float, float]:
    number = len(values)
    half = 0.5 + confidence / 2
    widened = math.sqrt(number / (number - 1)) * float(stats.t.ppf(half, number - 1) / stats.norm.ppf(half))
    drawn = np.random.default_rng(seed).multinomial(number, np.full(number, 1.0 / number), DRAWS)
    distinct, times = np.unique(drawn, axis=0, return_counts=True)
    found = []
    for weights in distinct.astype(np.float64):
        here = weights @ counts
        known = here > 0
        mean = (weights @ values)[known] / here[known]
        moved = means[known] + widened * (mean - means[known])
        found.append(first_reached(epsilons[known], fitted(moved, here[known])))
    return _quantile(np.array(found), times, 1.0 - half), _quantile(np.array(found), times, half)


def _quantile(values: Floats, times: NDArray[np.int64], share: float) -> float:
    """Return the smallest value with at least a share of the draws at or below it; values may be infinite."""
    order = np.argsort(values, kind="stable")
    below = np.cumsum(times[order]) / times.sum()
    return float(values[order][int(np.searchsorted(below, share))])
