"""Thresholds of a column by its quantiles over the federation, from one noisy histogram over public cells.

Cells lie evenly between the contract's knots, which say where members expect values. More cells cut more finely and add up more noise:
with noise of sd s in each cell, B cells and n customers, a threshold's rank is off by about s sqrt(B) / 2 customers by noise and n / 2B
by cutting, so B^(3/2) = 2 n / s is best.

Customers with equal values cannot be parted, so more than a fifth may lie between two thresholds, and fewer between the next. Where a
column counts something (whole knots, far apart), a threshold is the whole number whose rank is nearest to the level, above the smallest.
Else it is interpolated within a cell; but a cell with more than a hundredth of all may hold one value that many have, so its nearer edge is
the threshold: wherever that value lies, the rank is off by half of the cell's customers at most.
"""

import math
from dataclasses import dataclass

import numpy as np

from federation.contract import NumericColumn
from federation.segments import LEVELS, Four
from server.statistics.consistency import Floats, increasing

FEWEST, MOST = 16, 256
_COUNTING_SPAN = 20.0
_TIED = 0.01  # share of all customers in one cell, above which it may hold a value that many have
_TIED_EVEN = 1.5  # and as many times as if all cells were even
_DIGITS = 6


@dataclass(frozen=True)
class Cut:
    """The thresholds of one column, and between which they may lie as far as the noise goes (at least at the confidence)."""

    at: Four
    low: Four
    high: Four


def cells_for(customers: int, sd: float) -> int:
    """Return how many cells to count, for noise of `sd` customers in each."""
    if sd <= 0.0:
        return MOST
    return int(min(max(round((2.0 * customers / sd) ** (2.0 / 3.0)), FEWEST), MOST))


def rank_sd(cells: int, sd: float) -> float:
    """Return the standard deviation, in customers, of a threshold's rank: at the middle, where it is largest."""
    return sd * math.sqrt(cells) / 2.0


def counts_things(column: NumericColumn) -> bool:
    """Say whether a column's values are taken for whole numbers: its knots are whole, and far apart."""
    return column.high - column.low >= _COUNTING_SPAN and all(float(knot).is_integer() for knot in column.knots)


def public_cuts(column: NumericColumn, cells: int) -> tuple[float, ...]:
    """Return the points between at most so many cells, increasing, between the column's bounds: the contract alone decides them."""
    knots = np.asarray(column.knots, dtype=np.float64)
    places = np.linspace(0.0, len(knots) - 1.0, cells + 1)[1:-1]
    points = np.interp(places, np.arange(len(knots)), knots)
    points = np.ceil(points) if counts_things(column) else np.array([_rounded(point) for point in points])
    inside = np.unique(points[(points > column.low) & (points < column.high)])
    return tuple(float(point) for point in inside)


def find(column: NumericColumn, cuts: tuple[float, ...], counts: Floats, sd: float, z: float) -> Cut:
    """Return the thresholds at `federation.segments.LEVELS`.

    Parameters
    ----------
    counts:
        Noisy customers in each cell, float64 [cuts + 1]; those whose value is unknown are not among them.
    sd:
        Of the noise of each, in customers.
    z:
        The normal quantile of the intervals' confidence.
    """
    edges = np.array([column.low, *cuts, column.high])
    below = np.concatenate([[0.0], np.cumsum(counts)])
    smooth = np.maximum(increasing(below), 0.0)
    parts = [_one(column, edges, below, smooth, level, sd, z) for level in LEVELS]
    at, low, high = (_four([part[place] for part in parts]) for place in range(3))
    return Cut(at, low, high)


def _one(
    column: NumericColumn, edges: Floats, below: Floats, smooth: Floats, level: float, sd: float, z: float
) -> tuple[float, float, float]:
    """Return a threshold, and the ends between which neither noise nor the level refutes it."""
    cells = len(edges) - 1
    used = np.arange(cells + 1)
    if not counts_things(column):
        spread = z * sd * np.sqrt(used * (1.0 - level) ** 2 + (cells - used) * level**2)
        first, last = _not_refuted(below - level * below[-1], spread)
        # Whole cells: within one, equal values may lie anywhere, and ends that were interpolated would miss them too often.
        low, high = float(edges[first]), float(edges[last + 1])
        return min(max(_between(edges, smooth, level), low), high), low, high
    # The nearest rank changes from one whole number to the next where the level passes the middle of the cell between them.
    middles = (below[:-1] + below[1:]) / 2.0
    before = used[:-1]
    spread = z * sd * np.sqrt(before * (1.0 - level) ** 2 + (0.5 - level) ** 2 + (cells - 1 - before) * level**2)
    first, last = _not_refuted(middles - level * below[-1], spread)
    place = int(np.count_nonzero((smooth[:-1] + smooth[1:]) / 2.0 < level * smooth[-1]))
    low, at, high = (float(edges[min(max(item, 1), cells - 1)]) for item in (first + 1, place, last + 1))
    return min(max(at, low), high), low, high


def _not_refuted(off: Floats, spread: Floats) -> tuple[int, int]:
    """Return the first and last place whose own number may be below zero and whose next one may be above, by noise of this half width."""
    may_rise = off[1:] >= -spread[1:]
    may_lie_below = off[:-1] < spread[:-1]
    first = int(np.argmax(may_rise)) if may_rise.any() else len(may_rise) - 1
    last = int(np.flatnonzero(may_lie_below).max()) if may_lie_below.any() else 0
    return min(first, last), max(first, last)


def _between(edges: Floats, smooth: Floats, level: float) -> float:
    """Return where the level falls, by interpolation within a cell, or at the nearer edge of one that is taken for one value."""
    total = float(smooth[-1])
    if total <= 0.0:  # nobody can be told from the noise: the public cells decide
        return float(edges[max(1, round(level * (len(edges) - 1)))])
    right = max(1, int(np.searchsorted(smooth, level * total, side="left")))
    mass = float(smooth[right] - smooth[right - 1])
    share = (level * total - float(smooth[right - 1])) / mass if mass > 0.0 else 1.0
    if mass > _tied_mass(smooth):
        share = 0.0 if share < 0.5 and right > 1 else 1.0
    return _rounded(float(edges[right - 1] + share * (edges[right] - edges[right - 1])))


def _tied_mass(smooth: Floats) -> float:
    """Return how many customers in one cell are taken for one value that they have."""
    return max(_TIED, _TIED_EVEN / (len(smooth) - 1)) * float(smooth[-1])


def _rounded(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")


def _four(values: list[float]) -> Four:
    a, b, c, d = np.maximum.accumulate(values).tolist()
    return a, b, c, d
