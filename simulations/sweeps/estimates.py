"""Means over seeds with intervals, differences by seed, and how many of the seeds that were asked for are in them."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from scipy import stats

CONFIDENCE = 0.95
LEAST_SEEDS = 3
"""With fewer seeds no interval is given: Student's t of two is so wide that it says nothing, and of one there is none."""

Range = tuple[float, float]
ANYWHERE: Range = (-math.inf, math.inf)


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds.

    Attributes
    ----------
    value:
        The mean over the seeds that there are; NaN without any.
    low, high:
        Its 95% interval; NaN with fewer than three seeds.
    have, of:
        Seeds in it, and seeds that were asked for.
    """

    value: float
    low: float
    high: float
    have: int
    of: int

    @property
    def bounded(self) -> bool:
        """True where there is an interval."""
        return not math.isnan(self.low)

    @property
    def certain(self) -> int:
        """+1 where the whole interval is above zero, -1 where it is below, else 0."""
        if self.low > 0:
            return 1
        return -1 if self.high < 0 else 0

    @property
    def seeds(self) -> str:
        """Say how many seeds are in it: "5 seeds", or "4 of 5 seeds" where some failed or are missing."""
        whole = f"{self.of} seed{'' if self.of == 1 else 's'}"
        return whole if self.have == self.of else f"{self.have} of {whole}"


def mean(values: Iterable[float], of: int, confidence: float = CONFIDENCE, *, within: Range = ANYWHERE) -> Estimate:
    """Return the mean with Student's t interval (Student 1908); NaN values are left out and show in the count.

    A bootstrap is not used here: with the five or so seeds of a sweep its percentile interval is too narrow (Hesterberg 2015, What teachers
    should know about the bootstrap, section 3), while t holds for values that are near normal, as means over thousands of customers are.
    The interval speaks of other seeds (other draws, noise and deals of customers) of the same simulation, and of nothing else.

    Parameters
    ----------
    values:
        One a seed, each independent of the others.
    of:
        How many seeds were asked for.
    within:
        Least and largest value that there can be: the interval is cut there.
    """
    array = np.array([value for value in values if not math.isnan(value)], dtype=np.float64)
    if array.size == 0:
        return Estimate(math.nan, math.nan, math.nan, 0, of)
    middle = float(array.mean())
    if array.size < LEAST_SEEDS:
        return Estimate(middle, math.nan, math.nan, int(array.size), of)
    half = float(stats.t.ppf(0.5 + confidence / 2, array.size - 1) * array.std(ddof=1) / math.sqrt(array.size))
    return Estimate(middle, max(middle - half, within[0]), min(middle + half, within[1]), int(array.size), of)


def difference(
    values: Mapping[int, float], base: Mapping[int, float], of: int, confidence: float = CONFIDENCE
) -> Estimate:
    """Return the mean of `values` less `base`, paired by seed: what the seed does to both falls out of it."""
    return mean((values[seed] - base[seed] for seed in values.keys() & base.keys()), of, confidence)
