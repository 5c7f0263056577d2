"""Uplift: what an approach changed, as the difference between those approached and a random control group. Figures alone, no files.

Every interval is two-sided. Rates are shares (0 to 1), money is in the campaign's unit. Sources:

- difference of two rates: R. G. Newcombe, Statistics in Medicine 17 (1998) 873-890, method 10 (Wilson's limits combined);
- difference of two means: B. L. Welch, Biometrika 34 (1947) 28-35;
- difference of two differences: G. Y. Zou and A. Donner, Statistics in Medicine 27 (2008) 1693-1702 (MOVER);
- ratio: E. C. Fieller, Journal of the Royal Statistical Society B 16 (1954) 175-185, with the variance of the difference at
  the rates of A. Agresti and B. Caffo, The American Statistician 54 (2000) 280-288, which is not zero where nobody converts;
- Qini curve: N. J. Radcliffe, Direct Marketing Analytics Journal 1 (2007) 14-21, here per customer of the population.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import stats

LEVEL = 0.95
DRAWS = 2000
Floats = NDArray[np.float64]
Verdict = Literal["better than control", "not better than control", "worse than control"]


@dataclass(frozen=True)
class Interval:
    """An estimate and the ends of its interval."""

    estimate: float
    low: float
    high: float

    @property
    def above_zero(self) -> bool:
        """Whether the whole interval lies above zero."""
        return self.low > 0

    @property
    def below_zero(self) -> bool:
        """Whether the whole interval lies below zero."""
        return self.high < 0


@dataclass(frozen=True)
class Rate:
    """So many of n."""

    hits: int
    n: int

    @property
    def share(self) -> float:
        """The rate itself; NaN of nobody."""
        return self.hits / self.n if self.n else math.nan


@dataclass(frozen=True)
class Sample:
    """n amounts by their mean and their variance (divisor n - 1)."""

    n: int
    mean: float
    variance: float

    @classmethod
    def of(cls, amounts: Floats) -> "Sample":
        """Return the moments of amounts [n], n at least 2."""
        return cls(len(amounts), float(np.mean(amounts)), float(np.var(amounts, ddof=1)))


@dataclass(frozen=True)
class CostPerExtra:
    """What one more conversion cost, with its interval; None for what has no end, or where the approach was not shown to help."""

    verdict: Verdict
    estimate: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Cell:
    """Customers of one score decile, chosen alike: how many there are to choose from, and what became of both groups."""

    decile: int
    population: float
    treated: Rate
    control: Rate


@dataclass(frozen=True)
class Qini:
    """Extra conversions per customer of the population, if those of the first deciles were approached.

    `share` [k + 1] is the part of the covered population that the first 0 to k deciles hold, `gain` [k + 1] what approaching them
    brings, `low` and `high` the ends of its interval at each point. `auuc` is the area under the curve; `coefficient` the area
    between it and the straight line to its end, which an order without knowledge would give. `covered` is the
    part of the population that lies in cells with customers of both groups.
    """

    deciles: tuple[int, ...]
    share: tuple[float, ...]
    gain: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    auuc: Interval
    coefficient: Interval
    covered: float


def wilson(rate: Rate, level: float = LEVEL) -> Interval:
    """Return Wilson's score interval of a rate (n at least 1)."""
    z, n, p = _z(level), rate.n, rate.share
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return Interval(p, max(0.0, middle - half) if rate.hits else 0.0, min(1.0, middle + half) if rate.hits < n else 1.0)


def difference(treated: Rate, control: Rate, level: float = LEVEL) -> Interval:
    """Return the difference of two rates with Newcombe's interval (method 10); n at least 1 in both."""
    first, second = wilson(treated, level), wilson(control, level)
    return _square_and_add(first, second)


def mean_difference(treated: Sample, control: Sample, level: float = LEVEL) -> Interval:
    """Return the difference of two means with Welch's interval; n at least 2 in both."""
    parts = (treated.variance / treated.n, control.variance / control.n)
    gap, spread = treated.mean - control.mean, sum(parts)
    if spread == 0:
        return Interval(gap, gap, gap)
    freedom = spread**2 / (parts[0] ** 2 / (treated.n - 1) + parts[1] ** 2 / (control.n - 1))
    half = float(stats.t.ppf((1 + level) / 2, freedom)) * math.sqrt(spread)
    return Interval(gap, gap - half, gap + half)


def advantage(first: Interval, second: Interval) -> Interval:
    """Return how much larger the first of two independent differences is, with an interval from theirs (MOVER)."""
    return _square_and_add(first, second)


def fieller(
    numerator: float,
    denominator: float,
    variances: tuple[float, float],
    covariance: float = 0.0,
    level: float = LEVEL,
) -> Interval | None:
    """Return numerator / denominator with Fieller's interval; None where it is no bounded one, as the denominator may be zero."""
    square = _z(level) ** 2
    a = denominator**2 - square * variances[1]
    if a <= 0:
        return None
    b = numerator * denominator - square * covariance
    c = numerator**2 - square * variances[0]
    root = math.sqrt(max(0.0, b * b - a * c))
    return Interval(numerator / denominator, (b - root) / a, (b + root) / a)


def cost_per_extra(cost: float, treated: Rate, control: Rate, level: float = LEVEL) -> CostPerExtra:
    """Return what one extra conversion cost: `cost` for each customer approached, over the difference of the rates.

    The cost of an approach is known, so that only the difference varies. Where the difference may be zero the interval has no end, and
    the verdict says so.
    """
    gap = treated.share - control.share
    variance = _spread(treated) + _spread(control)
    found = fieller(cost, gap, (0.0, variance), level=level)
    if found is None:
        return CostPerExtra("not better than control", cost / gap if gap > 0 else None, None, None)
    if gap < 0:
        return CostPerExtra("worse than control", None, None, None)
    return CostPerExtra("better than control", found.estimate, found.low, found.high)


def smallest_seen(treated: int, control: Rate, level: float = LEVEL, power: float = 0.8) -> float:
    """Return the smallest difference of rates that groups of this size show with this chance (normal approximation, the control's rate
    by Agresti and Caffo)."""
    p = (control.hits + 1) / (control.n + 2)
    return (_z(level) + NormalDist().inv_cdf(power)) * math.sqrt(p * (1 - p) * (1 / treated + 1 / control.n))


def qini(
    cells: Sequence[Cell], generator: np.random.Generator, level: float = LEVEL, draws: int = DRAWS
) -> Qini | None:
    """Return the Qini curve by score deciles, decile 1 first, with a bootstrap's percentile intervals; None without a usable cell.

    Within a decile the cells' uplifts are weighted by their population, so that a sample of another density distorts nothing. The
    bootstrap resamples customers within cell and group; of yes and no that is a binomial draw at the rate found. A
    group in which nobody or everybody converts does not vary under it: with few conversions the interval is too short.
    """
    used = [cell for cell in cells if cell.treated.n and cell.control.n]
    total = sum(cell.population for cell in used)
    if not used or total <= 0:
        return None
    deciles = sorted({cell.decile for cell in used})
    weights = np.array([[cell.population * (cell.decile == decile) for cell in used] for decile in deciles]) / total
    share = np.concatenate([[0.0], np.cumsum(weights.sum(axis=1))])
    found = _curve(weights, np.array([[cell.treated.share - cell.control.share for cell in used]]))
    again = _curve(weights, _resampled(used, generator, draws))
    tails = [(1 - level) / 2, (1 + level) / 2]
    low, high = np.quantile(again, tails, axis=0)
    return Qini(
        deciles=tuple(deciles),
        share=tuple(map(float, share)),
        gain=tuple(map(float, found[0])),
        low=tuple(map(float, low)),
        high=tuple(map(float, high)),
        auuc=_interval(_area(share, found)[0], _area(share, again), tails),
        coefficient=_interval(_excess(share, found)[0], _excess(share, again), tails),
        covered=total / sum(cell.population for cell in cells),
    )


def _curve(weights: Floats, uplift: Floats) -> Floats:
    """Return cumulated gains [draws, deciles + 1] of uplifts [draws, cells] under weights [deciles, cells]."""
    gains = np.cumsum(uplift @ weights.T, axis=1)
    return np.concatenate([np.zeros((len(gains), 1)), gains], axis=1)


def _resampled(cells: Sequence[Cell], generator: np.random.Generator, draws: int) -> Floats:
    drawn = [
        generator.binomial(cell.treated.n, cell.treated.share, draws) / cell.treated.n
        - generator.binomial(cell.control.n, cell.control.share, draws) / cell.control.n
        for cell in cells
    ]
    return np.stack(drawn, axis=1)


def _area(share: Floats, curves: Floats) -> Floats:
    return np.asarray((curves[:, 1:] + curves[:, :-1]) @ np.diff(share) / 2, dtype=np.float64)


def _excess(share: Floats, curves: Floats) -> Floats:
    return _area(share, curves) - curves[:, -1] / 2


def _interval(estimate: np.float64, drawn: Floats, tails: list[float]) -> Interval:
    low, high = np.quantile(drawn, tails)
    return Interval(float(estimate), float(low), float(high))


def _square_and_add(first: Interval, second: Interval) -> Interval:
    gap = first.estimate - second.estimate
    below = math.hypot(first.estimate - first.low, second.high - second.estimate)
    above = math.hypot(first.high - first.estimate, second.estimate - second.low)
    return Interval(gap, gap - below, gap + above)


def _spread(rate: Rate) -> float:
    """The variance of a rate, at one more yes and one more no."""
    p = (rate.hits + 1) / (rate.n + 2)
    return p * (1 - p) / (rate.n + 2)


def _z(level: float) -> float:
    return NormalDist().inv_cdf((1 + level) / 2)
