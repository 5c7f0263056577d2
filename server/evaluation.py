"""What noisy score histograms say: AUC, KS, lift and calibration, each with the uncertainty that the noise adds.

A histogram is int64 [2, bins]: row 0 counts held-out customers without the label, row 1 those with it, bins from the lowest score to
the highest; every cell carries noise of variance sigma^2. Customers of one bin count as tied. Two kinds of interval are given: `noise`
says where the figure on exactly these customers lies, `population` adds what another draw of customers would change.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, ndtri

from federation.document import Document

Counts = NDArray[np.float64]
Interval = tuple[float, float]

CONFIDENCE = 0.95
TOP_SHARE = 0.1
# Normal approximations say nothing for fewer customers of one kind than this.
MIN_EACH = 10.0
_DIGITS = 6


class Estimate(Document):
    """A figure with its two intervals; all None where the histogram says nothing about it."""

    value: float | None
    noise: Interval | None
    population: Interval | None


UNINFORMATIVE = Estimate(value=None, noise=None, population=None)


class CalibrationBin(Document):
    """One bin of scores: predicted probabilities from `low` to `high`, and the observed rate with its interval (population).

    `customers` is the noisy count; `observed` is None where it is too small to say anything.
    """

    low: float
    high: float
    customers: int
    observed: float | None
    interval: Interval | None


class Metrics(Document):
    """What one histogram says; counts are noisy, and may be negative."""

    customers: int
    positives: int
    informative: bool
    auc: Estimate
    ks: Estimate
    lift: Estimate
    calibration: tuple[CalibrationBin, ...]


@dataclass(frozen=True)
class Histogram:
    """Noisy counts, float64 [2, bins], and the standard deviation of each cell's noise."""

    counts: Counts
    sigma: float

    @property
    def positives(self) -> Counts:
        """Counts with the label, [bins]."""
        row: Counts = self.counts[1]
        return row

    @property
    def negatives(self) -> Counts:
        """Counts without the label, [bins]."""
        row: Counts = self.counts[0]
        return row

    def informative(self, z: float) -> bool:
        """Return whether there are clearly more than next to no customers of either kind: above noise, and at least ten."""
        least = max(MIN_EACH, z * self.sigma * math.sqrt(self.counts.shape[1]))
        return bool(self.counts.sum(axis=1).min() > least)


def add(histograms: Sequence[Histogram]) -> Histogram:
    """Return the federation's histogram: counts add, and so do variances."""
    counts = np.sum([histogram.counts for histogram in histograms], axis=0)
    return Histogram(counts=counts, sigma=math.sqrt(sum(histogram.sigma**2 for histogram in histograms)))


def measure(histogram: Histogram, edges: Sequence[float], confidence: float = CONFIDENCE) -> Metrics:
    """Return all metrics of a histogram; `edges` are the interior bin edges on the logit scale, [bins - 1]."""
    z = _z(confidence)
    informative = histogram.informative(z)
    return Metrics(
        customers=round(histogram.counts.sum()),
        positives=round(histogram.positives.sum()),
        informative=informative,
        auc=area(histogram, z) if informative else UNINFORMATIVE,
        ks=kolmogorov_smirnov(histogram, confidence) if informative else UNINFORMATIVE,
        lift=top_lift(histogram, z) if informative else UNINFORMATIVE,
        calibration=calibration(histogram, edges, z),
    )


def area(histogram: Histogram, z: float) -> Estimate:
    """Return the area under the ROC curve, ties counting one half.

    With a, c the noisy counts with and without the label, K = 1 for b > b' and 1/2 on the diagonal, M = K - theta 11^T and T = a^T M c, the
    noise's variance of T is estimated without bias by V = sigma^2 (|M c|^2 + |M^T a|^2) - sigma^4 |M|_F^2, floored at sigma^4 |M|_F^2. The
    interval holds every theta with T^2 <= z^2 V; for the population, DeLong's variance (DeLong, DeLong and Clarke-Pearson 1988), scaled
    to T, is added to V. `UNINFORMATIVE` when that set is not one interval inside [0, 1].
    """
    a, c = histogram.positives, histogram.negatives
    pairs = a.sum() * c.sum()
    value = float(a @ _kernel(len(a)) @ c / pairs)
    noise = _auc_interval(histogram, z, 0.0)
    population = _auc_interval(histogram, z, _delong(a, c) * pairs**2)
    if noise is None or population is None:
        return UNINFORMATIVE
    return _estimate(min(max(value, 0.0), 1.0), noise, population)


def _auc_interval(histogram: Histogram, z: float, extra: float) -> Interval | None:
    """Return {theta: T^2 <= z^2 (max(V, floor) + extra)}: T is linear and V, floor are quadratic in theta, so roots give it exactly."""
    a, c, variance = histogram.positives, histogram.negatives, histogram.sigma**2
    bins = len(a)
    kernel = _kernel(bins)
    constant, slope = float(a @ kernel @ c), -float(a.sum() * c.sum())
    t = np.array([constant**2, 2 * constant * slope, slope**2])
    frobenius = variance**2 * _squares(kernel, np.ones((bins, bins)))
    spread = variance * (_squares(kernel @ c, np.full(bins, c.sum())) + _squares(kernel.T @ a, np.full(bins, a.sum())))
    more = np.array([extra, 0.0, 0.0])
    candidates = [_below(*(t - z**2 * (v + more)).tolist()) for v in (spread - frobenius, frobenius)]
    found = [interval for interval in candidates if interval is not None]
    if not found or any(math.isinf(bound) for interval in found for bound in interval):
        return None
    # Both sets hold theta with T = 0, or are empty, so their union is one interval.
    low, high = min(low for low, _ in found), max(high for _, high in found)
    return None if low > 1.0 or high < 0.0 else _clip((low, high))


def _squares(constant: Counts, slope: Counts) -> Counts:
    """Return the coefficients of |constant - theta slope|^2 in theta, lowest first, [3]."""
    return np.array([(constant**2).sum(), -2.0 * (constant * slope).sum(), (slope**2).sum()])


def _below(constant: float, slope: float, square: float) -> Interval | None:
    """Return {x: constant + slope x + square x^2 <= 0}: None when empty; infinite bounds for what is not one bounded interval."""
    if square <= 0:
        return -math.inf, math.inf
    discriminant = slope**2 - 4 * square * constant
    if discriminant < 0:
        # Without noise the set is the one point where T = 0, and rounding may hide it.
        return None if discriminant < -1e-9 * slope**2 else (-slope / (2 * square),) * 2
    root = math.sqrt(discriminant)
    return (-slope - root) / (2 * square), (-slope + root) / (2 * square)


def _kernel(bins: int) -> Counts:
    return np.tril(np.ones((bins, bins)), -1) + 0.5 * np.eye(bins)


def _delong(positives: Counts, negatives: Counts) -> float:
    """Return DeLong's variance of the AUC from binned scores; noisy counts below zero count as none."""
    a, c = np.maximum(positives, 0.0), np.maximum(negatives, 0.0)
    kernel = _kernel(len(a))
    return _spread(kernel @ c / c.sum(), a) + _spread(kernel.T @ a / a.sum(), c)


def _spread(values: Counts, counts: Counts) -> float:
    n = counts.sum()
    mean = counts @ values / n
    return float(counts @ (values - mean) ** 2 / max(n - 1.0, 1.0) / n)


def kolmogorov_smirnov(histogram: Histogram, confidence: float) -> Estimate:
    """Return KS = max over thresholds of (share of positives above - share of negatives above).

    The intervals come from a band that holds at all bins - 1 thresholds at once (Bonferroni), each difference by the square-and-add
    method of Newcombe 1998 from the two shares' intervals; the maximum of a band is a valid interval for the maximum.
    """
    bins = histogram.counts.shape[1]
    z = _z(1.0 - (1.0 - confidence) / (bins - 1))
    points = [_difference(histogram, threshold, z) for threshold in range(1, bins)]
    value = max(point[0] for point in points)
    noise = max(point[1][0] for point in points), max(point[1][1] for point in points)
    population = max(point[2][0] for point in points), max(point[2][1] for point in points)
    return _estimate(min(max(value, 0.0), 1.0), _clip(noise), _clip(population))


def _difference(histogram: Histogram, threshold: int, z: float) -> tuple[float, Interval, Interval]:
    bins = histogram.counts.shape[1]
    shares, noises, populations = [], [], []
    for row in (histogram.positives, histogram.negatives):
        above, below = float(row[threshold:].sum()), float(row[:threshold].sum())
        shares.append(above / (above + below))
        cells = bins - threshold, threshold
        noises.append(share_interval(above, below, cells, histogram.sigma, z, sampled=False))
        populations.append(share_interval(above, below, cells, histogram.sigma, z, sampled=True))
    value = shares[0] - shares[1]
    return value, _square_and_add(shares, noises), _square_and_add(shares, populations)


def _square_and_add(shares: Sequence[float], intervals: Sequence[Interval]) -> Interval:
    (p, q), ((p_low, p_high), (q_low, q_high)) = shares, intervals
    value = p - q
    return value - math.hypot(p - p_low, q_high - q), value + math.hypot(p_high - p, q - q_low)


def share_interval(part: float, rest: float, cells: tuple[int, int], sigma: float, z: float, sampled: bool) -> Interval:
    """Return the interval for the share part / (part + rest) of two noisy sums.

    With T = part - R (part + rest) the noise's variance of T is exactly sigma^2 (cells[0] (1 - R)^2 + cells[1] R^2) (Fieller 1954);
    `sampled` adds (part + rest) R (1 - R), which alone gives Wilson's interval (1927). (0, 1) when the noise hides the whole.

    Parameters
    ----------
    part, rest:
        Sums of noisy counts.
    cells:
        How many cells each of them adds up.
    """
    whole, first, second = part + rest, sigma**2 * cells[0], sigma**2 * cells[1]
    drawn = max(whole, 0.0) if sampled else 0.0
    square = z * z
    interval = _below(
        part * part - square * first,
        -2.0 * part * whole - square * (drawn - 2.0 * first),
        whole * whole - square * (first + second - drawn),
    )
    if interval is None or whole <= 0 or math.isinf(interval[0]):
        return 0.0, 1.0
    return _clip(interval)


def top_lift(histogram: Histogram, z: float) -> Estimate:
    """Return the lift of the top decile: how many times more often than overall the label occurs among the 10% with the best scores.

    The bin that the cut runs through is shared out in proportion, which is what choosing among tied customers by lot gives. Intervals by
    the delta method, noise and multinomial sampling; `UNINFORMATIVE` where fewer customers than noise lie above the cut.
    """
    a, c = histogram.positives, histogram.negatives
    both = a + c
    total, wanted = both.sum(), TOP_SHARE * both.sum()
    above = total - np.cumsum(both)
    through = np.flatnonzero((above < wanted) & (above + both >= wanted))
    if not len(through) or wanted <= z * histogram.sigma * math.sqrt(2 * len(a)):
        return UNINFORMATIVE
    cut = int(through[-1])
    share = (wanted - above[cut]) / both[cut]
    captured = a[cut + 1 :].sum() + share * a[cut]
    value = float(captured / (TOP_SHARE * a.sum()))
    higher = (np.arange(len(a)) > cut) + share * (np.arange(len(a)) == cut)
    by_share = (TOP_SHARE - higher) * a[cut] / both[cut]
    gradient = np.stack([by_share, by_share + higher - captured / a.sum()]) / (TOP_SHARE * a.sum())
    noise = histogram.sigma**2 * float((gradient**2).sum())
    counts = np.maximum(histogram.counts, 0.0)
    sampling = float((counts * gradient**2).sum() - (counts * gradient).sum() ** 2 / counts.sum())
    return _estimate(value, _lift_interval(value, z, noise), _lift_interval(value, z, noise + max(sampling, 0.0)))


def _lift_interval(value: float, z: float, variance: float) -> Interval:
    half, most = z * math.sqrt(variance), 1.0 / TOP_SHARE
    return min(max(value - half, 0.0), most), min(max(value + half, 0.0), most)


def calibration(histogram: Histogram, edges: Sequence[float], z: float) -> tuple[CalibrationBin, ...]:
    """Return the observed rate of each bin beside the range of probabilities that the model predicted there."""
    bounds = [0.0, *(float(chance) for chance in expit(np.asarray(edges))), 1.0]
    result = []
    for place, (no, yes) in enumerate(histogram.counts.T):
        both = float(no + yes)
        clear = both > max(1.0, z * histogram.sigma * math.sqrt(2.0))
        interval = share_interval(float(yes), float(no), (1, 1), histogram.sigma, z, sampled=True) if clear else None
        result.append(
            CalibrationBin(
                low=round(bounds[place], _DIGITS),
                high=round(bounds[place + 1], _DIGITS),
                customers=round(both),
                observed=round(min(max(float(yes) / both, 0.0), 1.0), _DIGITS) if clear else None,
                interval=None if interval is None else _rounded(interval),
            )
        )
    return tuple(result)


def _z(confidence: float) -> float:
    return float(ndtri(0.5 + confidence / 2.0))


def _clip(interval: Interval) -> Interval:
    return min(max(interval[0], 0.0), 1.0), min(max(interval[1], 0.0), 1.0)


def _rounded(interval: Interval) -> Interval:
    return round(float(interval[0]), _DIGITS), round(float(interval[1]), _DIGITS)


def _estimate(value: float, noise: Interval, population: Interval) -> Estimate:
    return Estimate(value=round(float(value), _DIGITS), noise=_rounded(noise), population=_rounded(population))
