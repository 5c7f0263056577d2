"""What a campaign changed, from noisy counts: rates, their differences, cost of an extra success, and the Qini curve.

Counts of an outcome by arm are asked for once as they are and once for each way to split the arms up (segments, score bands). Each split
adds up to the same arms, so all of them tell of the arms, and the arms of them: least squares (M. Hay et al., Proceedings of the VLDB
Endowment 3 (2010) 1021-1032), by `combine`. The Qini curve is N. J. Radcliffe's, Direct Marketing Analytics Journal 1 (2007) 14-21, per
customer of the arm: (Y - Y_c N / N_c) over the arm's customers, where N, Y and N_c, Y_c are the customers and successes with the best
scores in the arm and in the control. Its noise is carried over to first order, with derivatives by complex steps, which are exact.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from server.statistics.intervals import NOTHING, Population, Ratio, Span, around, difference, share

Floats = NDArray[np.float64]
_STEP = 1e-30
_CLEAR = 3.0  # standard deviations of noise that a band's customers must exceed to be a point of the curve


@dataclass(frozen=True, eq=False)
class Split:
    """Counts of no and yes by arm and part, float64 [arms, parts, 2], consistent with those of the arms.

    The noise of the parts of one arm and answer has the covariance own^2 (I - 1 1'/parts) + shared 1 1'/parts^2, `own` the standard
    deviation of each count as it was asked for and `shared` the variance of the arm's count; arms and answers are independent.
    """

    counts: Floats
    own: float
    shared: float

    @property
    def parts(self) -> int:
        """How many parts an arm is split into."""
        return int(self.counts.shape[1])

    @property
    def variance(self) -> float:
        """Noise variance of each count."""
        return self.own**2 * (1.0 - 1.0 / self.parts) + self.shared / self.parts**2

    def moved(self, gradient: Floats) -> float:
        """Return the noise variance of a number that moves with the parts of one arm and answer by `gradient`, float64 [parts]."""
        total = float(gradient.sum())
        return (
            self.own**2 * (float(gradient @ gradient) - total**2 / self.parts) + self.shared * (total / self.parts) ** 2
        )


def combine(tables: Sequence[Floats], deviations: Sequence[float]) -> tuple[Floats, float, list[Split]]:
    """Return the arms' counts float64 [arms, 2], the variance of their noise, and every table made to add up to them.

    Parameters
    ----------
    tables, deviations:
        Noisy counts of the same customers, float64 [arms, parts, 2], and the standard deviation of the noise of each table's counts.
    """
    widths = [table.shape[1] * sd**2 for table, sd in zip(tables, deviations, strict=True)]
    if min(widths) == 0:
        weights, variance = np.array([float(width == 0) for width in widths]), 0.0
    else:
        weights = 1.0 / np.array(widths)
        variance = 1.0 / float(weights.sum())
    weights = weights / weights.sum()
    arms = np.sum([weight * table.sum(axis=1) for weight, table in zip(weights, tables, strict=True)], axis=0)
    splits = []
    for table, sd in zip(tables, deviations, strict=True):
        moved = table + ((arms - table.sum(axis=1)) / table.shape[1])[:, None, :]
        splits.append(Split(moved, sd, variance))
    return np.asarray(arms, dtype=np.float64), variance, splits


def rate(counts: Floats, variance: float, z: float, population: Population) -> Span:
    """Return the share of yes of noisy counts [no, yes], the noise of each with this variance."""
    return share(float(counts[1]), float(counts[0]), variance, variance, z, population)


def gain(arm: Floats, control: Floats, variance: float, z: float, population: Population) -> Span:
    """Return the rate of an arm less that of the control, each from noisy counts [no, yes]."""
    found = difference(rate(arm, variance, z, population), rate(control, variance, z, population))
    return found.clipped(-1.0, 1.0)


@dataclass(frozen=True)
class Amount:
    """A column's sums over one arm: count, p and p^2 in [-1, 1], their noise's variances, and what p stands for: mid + half p."""

    count: float
    first: float
    second: float
    variances: tuple[float, float, float]
    mid: float
    half: float

    def mean(self, z: float, population: bool) -> Span:
        """Return the mean and its interval; `population` adds the variance of the values, estimated with its noise."""
        one, other = self.variances[0], self.variances[1]
        drawn = self._drawn() if population else 0.0
        found = Ratio(self.first, self.count, other + drawn, 0.0, one).span(z)
        return found.clipped(-1.0, 1.0).times(self.half, self.mid)

    def variance(self) -> float:
        """Return the variance of the mean, noise and population, in the column's unit squared; the count must be clear."""
        q = self.first / self.count
        return self.half**2 * (self.variances[1] + q * q * self.variances[0] + self._drawn()) / self.count**2

    def _drawn(self) -> float:
        q = self.first / self.count if self.count > 0 else 0.0
        return min(max(self.second - q * self.first, 0.0), max(self.count, 0.0))


def cost_per_extra(costs: tuple[Amount, Amount], rates: tuple[Floats, Floats], variance: float, z: float) -> Span:
    """Return what one more success cost, arm first and control second; NOTHING where the gain cannot be told from zero or is below it.

    Noise and population. That dear customers may succeed more often is left out: cost and success of a customer are taken for independent.
    """
    means = [cost.mean(z, True) for cost in costs]
    spans = [rate(counts, variance, z, "share") for counts in rates]
    if any(item.value is None for item in (*means, *spans)):
        return NOTHING
    value = (means[0].value or 0.0) - (means[1].value or 0.0)
    extra = (spans[0].value or 0.0) - (spans[1].value or 0.0)
    spread = 0.0
    for counts, span in zip(rates, spans, strict=True):
        q, size = span.value or 0.0, float(counts.sum())
        spread += (variance * ((1 - q) ** 2 + q * q) + size * q * (1 - q)) / size**2
    return Ratio(value, extra, costs[0].variance() + costs[1].variance(), 0.0, spread).span(z)


def upside_down(split: Split) -> Split:
    """Return the split with its score bands from high to low, the unknown still last: where a low score is the best."""
    turned = np.concatenate([split.counts[:, -2::-1], split.counts[:, -1:]], axis=1)
    return Split(turned, split.own, split.shared)


@dataclass(frozen=True)
class Curve:
    """The Qini curve at each band's lower end, best first, its area, and the area less that under the straight line to its end."""

    points: tuple[Span, ...]
    area: Span
    coefficient: Span


def curve(split: Split, arm: int, control: int, z: float) -> Curve:
    """Return the Qini curve of one arm, noise and population; the split's parts are score bands from low to high, then the unknown.

    Bands at the top are taken together until the noise no longer hides their customers; the curve runs straight until then.
    """
    bands = split.parts - 1
    best = split.counts[:, bands - 1 :: -1] if bands > 1 else split.counts[:, :1]
    cells = np.stack([best[arm, :, 1], best[arm, :, 0], best[control, :, 1], best[control, :, 0]])
    sizes = np.stack([np.cumsum(cells[0] + cells[1]), np.cumsum(cells[2] + cells[3])])
    least = _CLEAR * math.sqrt(2.0) * split.own * np.sqrt(np.arange(1, bands + 1))
    clear = np.all(sizes > np.maximum(least, 0.5), axis=0)
    if not clear[-1]:
        return Curve((NOTHING,) * bands, NOTHING, NOTHING)
    start = int(np.flatnonzero(~clear)[-1]) + 1 if not clear.all() else 0
    values, jacobian = _with_gradient(cells, start)
    noise = [sum(split.moved(np.append(part, 0.0)) for part in gradient) for gradient in jacobian]
    population = (np.maximum(cells, 0.0)[None] * jacobian**2).sum(axis=(1, 2))
    spans = [
        around(value, math.sqrt(one + other), z)
        for value, one, other in zip(values.tolist(), noise, population.tolist(), strict=True)
    ]
    points = (*(NOTHING,) * start, *(span.clipped(-1.0, 1.0) for span in spans[:-2]))
    return Curve(points, spans[-2].clipped(-1.0, 1.0), spans[-1].clipped(-1.0, 1.0))


def _with_gradient(cells: Floats, start: int) -> tuple[Floats, Floats]:
    """Return points from band `start` on, area and coefficient, float64 [k], and their derivatives, float64 [k, 4, bands]."""
    size = cells.size
    steps = np.zeros((size + 1, *cells.shape), dtype=np.complex128)
    steps[:] = cells
    steps[1:].reshape(size, size)[np.arange(size), np.arange(size)] += 1j * _STEP
    found = _points(steps, start)
    return found[0].real, (found[1:].imag / _STEP).T.reshape(-1, *cells.shape)


def _points(cells: NDArray[np.complex128], start: int) -> NDArray[np.complex128]:
    """Return the curve, its area and coefficient, of counts [batch, 4, bands]: yes and no of the arm, yes and no of the control."""
    yes, size = np.cumsum(cells[:, 0], axis=1), np.cumsum(cells[:, 0] + cells[:, 1], axis=1)
    other, others = np.cumsum(cells[:, 2], axis=1), np.cumsum(cells[:, 2] + cells[:, 3], axis=1)
    whole = size[:, -1:]
    points = ((yes - other * size / others) / whole)[:, start:]
    shares = (size / whole)[:, start:]
    zero = np.zeros_like(points[:, :1])
    before, left = np.hstack([zero, points[:, :-1]]), np.hstack([zero, shares[:, :-1]])
    area = ((points + before) / 2.0 * (shares - left)).sum(axis=1, keepdims=True)
    return np.hstack([points, area, area - points[:, -1:] / 2.0])
