"""The smallest epsilon that reaches a target on average, with an interval, and the smallest at which most single studies reach it.

A margin is a run's metric less its bound, so turned that a target is reached where it is not negative. Margins' means over seeds are made
monotone in epsilon (isotonic least squares: Barlow, Bartholomew, Bremner, Brunk 1972), and between epsilons that were run the curve is
straight in their logarithm.

Where the mean reaches a target, a single study misses it about every second time. The second answer is where the curve is z residual
standard deviations above the target, z the 80% point of the normal distribution: there 80% of single studies reach it, if their
margins are normal around the curve. More budget means less noise: the variances of the margins at each epsilon are made falling in
epsilon, weighed by their degrees of freedom (seeds less one), so that loud noise at a small one does not count at a large one.

Of n seeds, mean and standard deviation both err. The second answer's interval is where the curve is k deviations above the target, k the
2.5% and the 97.5% point of noncentral t with n - 1 degrees of freedom and noncentrality z sqrt(n), over sqrt(n): normal tolerance limits
(Owen 1968, A survey of properties and applications of the noncentral t-distribution). Few seeds put its upper end far above the answer: of
five, k is 3.1 where z is 0.84.

The average's interval is a bootstrap over seeds (Efron 1979): seeds are drawn with replacement, whole, since runs of one seed share their
customers and draws at every epsilon; the means' deviations from the observed means are widened by sqrt(n / (n - 1)) t / z, t and z the
97.5% points of Student's t with n - 1 degrees of freedom and of the normal distribution; the curve is fitted anew; and the middle 95% of
the epsilons found is the interval. Without the widening intervals from few seeds are too narrow (Hesterberg 2015, section 3), the more so
as no mean of drawn seeds lies outside the seeds' range. Of two seeds it would be too narrow all the same: it needs three, which are there
at both epsilons between which the target is reached.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, stats

from simulations.sweeps.estimates import CONFIDENCE, LEAST_SEEDS

Floats = NDArray[np.float64]
BELOW, BEYOND = 0.0, math.inf
"""An epsilon smaller, or larger, than all that were run."""

DRAWS = 4000

MOST_STUDIES = 0.8
"""The share of single studies that the second answer is for."""

NORMAL = float(stats.norm.ppf(MOST_STUDIES))


@dataclass(frozen=True)
class Crossing:
    """Where a target is reached.

    Attributes
    ----------
    epsilon:
        The smallest that reaches it on average; BELOW where the smallest that was run does, BEYOND where none does.
    low, high:
        The 95% interval, with the same meaning of its ends; None with fewer than three seeds at the epsilons beside it.
    bracket:
        The neighbouring epsilons that were run between which it lies; None at either end.
    most:
        The smallest at which 80% of single studies reach it, with the same meaning of BELOW and BEYOND; None with fewer than three seeds.
    most_bracket:
        As `bracket`, for `most`.
    most_low, most_high:
        The 95% interval of `most`; its upper end is never below `high`. None where `low` and `high` are.
    """

    epsilon: float
    low: float | None
    high: float | None
    bracket: tuple[float, float] | None
    most: float | None = None
    most_bracket: tuple[float, float] | None = None
    most_low: float | None = None
    most_high: float | None = None


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


def level(epsilons: Floats, curve: Floats, epsilon: float) -> float:
    """Return a curve's value at an epsilon, straight in the logarithm between those that were run, level beyond them."""
    return float(np.interp(math.log(epsilon), np.log(epsilons), curve))


def crossing(margins: Mapping[float, Mapping[int, float]], seed: int = 0, confidence: float = CONFIDENCE) -> Crossing:
    """Return where a target is reached.

    Parameters
    ----------
    margins:
        By epsilon, by seed; at least one epsilon. Seeds that are missing at some epsilon are left out of that mean; an epsilon without
        any is left out. Where three seeds or more are there at both epsilons beside the answer, these alone are used.
    seed:
        Of the bootstrap's draws.
    """
    epsilons, table = _table(margins)
    found = _where(epsilons, table)
    paired = table[~np.isnan(table[:, _beside(epsilons, found)]).any(axis=1)]
    enough = len(paired) >= LEAST_SEEDS
    if enough:
        epsilons, table = _known(epsilons, paired)
        found = _where(epsilons, table)
        enough = bool((~np.isnan(table[:, _beside(epsilons, found)])).all())
    low, high = _interval(epsilons, table, seed, confidence) if enough else (None, None)
    most = _where(epsilons, table - NORMAL * _spread(table)) if len(table) >= LEAST_SEEDS else None
    answers = found, low, high, _bracket(epsilons, found), most, _bracket(epsilons, most)
    if most is None or high is None:
        return Crossing(*answers)
    most_low, most_high = _interval_of_most(epsilons, table, confidence)
    return Crossing(*answers, min(most_low, most), max(most_high, most, high))


def _where(epsilons: Floats, table: Floats) -> float:
    counts = (~np.isnan(table)).sum(axis=0).astype(np.float64)
    return first_reached(epsilons, fitted(np.nanmean(table, axis=0), counts))


def _spread(table: Floats) -> Floats:
    """Return the standard deviation of single studies, float64 [G], falling in epsilon."""
    freedom = (~np.isnan(table)).sum(axis=0) - 1.0
    told = np.flatnonzero(freedom > 0)
    if not len(told):
        return np.zeros(table.shape[1])
    variances = np.nanvar(table[:, told], axis=0, ddof=1)
    falling = -fitted(-variances, freedom[told])
    return np.sqrt(np.interp(np.arange(table.shape[1]), told, falling))


def _interval_of_most(epsilons: Floats, table: Floats, confidence: float) -> tuple[float, float]:
    """Return the tolerance limits' crossings, from the epsilons that have three seeds or more; at least one has."""
    counts = (~np.isnan(table)).sum(axis=0)
    told = counts >= LEAST_SEEDS
    seeds, spread, table = counts[told].astype(np.float64), _spread(table)[told], table[:, told]

    def end(share: float) -> float:
        limit = stats.nct.ppf(share, seeds - 1.0, NORMAL * np.sqrt(seeds)) / np.sqrt(seeds)
        return _where(epsilons[told], table - limit * spread)

    half = 0.5 + confidence / 2
    return end(1.0 - half), end(half)


def _known(epsilons: Floats, table: Floats) -> tuple[Floats, Floats]:
    """Leave out epsilons without any seed."""
    there = ~np.isnan(table).all(axis=0)
    return epsilons[there], table[:, there]


def _after(epsilons: Floats, found: float) -> int:
    """Return the place of the first epsilon that was run and is not below an answer between two of them, at least 1."""
    return max(int(np.searchsorted(epsilons, found)), 1)


def _beside(epsilons: Floats, found: float) -> list[int]:
    """Return the places of the epsilons that an answer hangs on: the two around it, or the first or last."""
    if found == BELOW:
        return [0]
    if found == BEYOND:
        return [len(epsilons) - 1]
    after = _after(epsilons, found)
    return [after - 1, after]


def _bracket(epsilons: Floats, found: float | None) -> tuple[float, float] | None:
    if found is None or found in (BELOW, BEYOND):
        return None
    after = _after(epsilons, found)
    return float(epsilons[after - 1]), float(epsilons[after])


def _table(margins: Mapping[float, Mapping[int, float]]) -> tuple[Floats, Floats]:
    """Return the epsilons, rising, float64 [G], and margins float64 [seeds, G] with NaN where a seed is missing."""
    known = {epsilon: by_seed for epsilon, by_seed in margins.items() if by_seed}
    seeds = sorted({seed for by_seed in known.values() for seed in by_seed})
    epsilons = sorted(known)
    table = np.array([[known[epsilon].get(seed, math.nan) for epsilon in epsilons] for seed in seeds], dtype=np.float64)
    return np.array(epsilons), table


def _interval(epsilons: Floats, table: Floats, seed: int, confidence: float) -> tuple[float, float]:
    there = ~np.isnan(table)
    counts, values = there.astype(np.float64), np.where(there, table, 0.0)
    means, number = np.nanmean(table, axis=0), len(table)
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
