"""Consistency: noisy tables made to add up and to be possible, which costs no privacy.

Sources: M. Hay et al., Proceedings of the VLDB Endowment 3 (2010) 1021-1032 (least squares over nested counts); W. Qardaji, W. Yang and
N. Li, Proceedings of the VLDB Endowment 6 (2013) 1954-1965 (how many branches); R. L. Dykstra, Journal of the American Statistical
Association 78 (1983) 837-842 (the nearest point of an intersection of convex sets).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression

Floats = NDArray[np.float64]
STEPS = 500
CLOSE = 1e-7


def non_negative(values: Floats, total: float) -> Floats:
    """Return the nearest non-negative numbers that add up to `total` (not below 0), in the shape of `values`."""
    flat = np.asarray(values, dtype=np.float64).ravel()
    if not len(flat):
        return np.asarray(values, dtype=np.float64)
    if total <= 0:
        return np.zeros_like(values, dtype=np.float64)
    ordered = np.sort(flat)[::-1]
    excess = (np.cumsum(ordered) - total) / np.arange(1, len(flat) + 1)
    last = int(np.flatnonzero(ordered > excess)[-1]) if np.any(ordered > excess) else 0
    shifted: Floats = np.maximum(flat - excess[last], 0.0)
    return shifted.reshape(np.shape(values))


def counts(values: Floats) -> Floats:
    """Return non-negative counts that add up to the sum of the noisy ones, or to 0 if that is below."""
    return non_negative(values, max(float(np.sum(values)), 0.0))


def table(values: Floats) -> Floats:
    """Return the non-negative table [rows, columns] nearest to a noisy one among those with its own margins, made non-negative first.

    Margins carry less noise in proportion than cells, so they are kept: only cells below zero are made up for, within row and column.
    By Dykstra's alternating projections; the result's own margins are what to publish, so they add up whatever is left of the error.
    """
    noisy = np.asarray(values, dtype=np.float64)
    total = max(float(noisy.sum()), 0.0)
    rows, columns = non_negative(noisy.sum(axis=1), total), non_negative(noisy.sum(axis=0), total)
    if total <= 0:
        return np.zeros_like(noisy)
    current, correction = noisy.copy(), np.zeros_like(noisy)
    for _ in range(STEPS):
        current = _with_margins(current, rows, columns)
        cut = np.maximum(current + correction, 0.0)
        correction = current + correction - cut
        gap = float(np.abs(cut - current).max())
        current = cut
        if gap <= CLOSE * total:
            break
    return current


def _with_margins(values: Floats, rows: Floats, columns: Floats) -> Floats:
    """Return the nearest table with these margins, of which the sums agree."""
    by_row, by_column = rows - values.sum(axis=1), columns - values.sum(axis=0)
    height, width = values.shape
    shift = by_row[:, None] / width + by_column[None, :] / height - by_row.sum() / (height * width)
    return np.asarray(values + shift)


def increasing(values: Floats) -> Floats:
    """Return the nearest numbers that never decrease, by pooling neighbours that do."""
    return np.asarray(isotonic_regression(np.asarray(values, dtype=np.float64)).x, dtype=np.float64)


@dataclass(frozen=True, eq=False)
class Nested:
    """Least squares over counts of the same customers in finer and finer bins.

    Attributes
    ----------
    levels:
        Bins of each level, each a multiple of the one before.
    solve:
        From the counts of all levels, coarsest first, to the best estimate of the finest bins, float64 [finest, all].
    covariance:
        Of that estimate, float64 [finest, finest].
    """

    levels: tuple[int, ...]
    solve: Floats
    covariance: Floats

    @classmethod
    def of(cls, levels: Sequence[int], variances: Sequence[float]) -> "Nested":
        """Prepare for noise of these variances on each level's counts, each above 0."""
        finest = levels[-1]
        rows = [np.kron(np.eye(size), np.ones(finest // size)) for size in levels]
        weights = np.concatenate([np.full(size, 1.0 / v) for size, v in zip(levels, variances, strict=True)])
        design = np.vstack(rows)
        covariance = np.linalg.inv((design * weights[:, None]).T @ design)
        return cls(tuple(levels), covariance @ design.T * weights, covariance)
