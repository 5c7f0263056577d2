"""A first look at some columns: how each is spread, and how any two go together; and a public sample that stands in for the customers.

Everything here follows from noisy sums and public numbers. The sample is a Gaussian copula's (R. B. Nelsen, Introduction to Copulas, 2006)
at the points of Halton's sequence, so it has no randomness of its own. It only places centres and bounds: no answer is read off it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri
from scipy.stats import qmc

from federation.contract import FeatureContract, NumericColumn
from federation.measures import FLAG, BinsAxis, Cells, Condition, Factor, GroupsAxis, Term, Where, column_of
from server.statistics.asking import Sum, split_caps

Floats = NDArray[np.float64]

BINS = 32
"""Bins of each column, equally wide on its scale."""
TAIL = 0.01
"""What lies further out on either side of a column counts as its bound, so that a few extreme customers do not decide its unit."""
SAMPLE = 4096
_MOST_CORRELATED = 0.95
_MOST_CONDITIONS = 32
_LEAST_WIDTH = 2 / BINS


def known(names: Sequence[str], where: Where, contract: FeatureContract) -> Where:
    """Return `where` with the conditions that these columns are known, as far as there is room for them."""
    more: list[Condition] = []
    for name in names:
        if isinstance(column_of(name, contract), NumericColumn):
            more.append(Condition(column=name, ge=-1e300))
        else:
            more.append(Condition(column=name, any_of=FLAG))
    return (*where, *more)[: max(_MOST_CONDITIONS, len(where))]


def factor_of(name: str, contract: FeatureContract) -> Factor:
    """Return a numeric column or flag as a factor within the contract's bounds, on the contract's scale."""
    column = column_of(name, contract)
    if isinstance(column, NumericColumn):
        return Factor(column=name, low=column.low, high=column.high, scale=column.scale)
    return Factor(column=name, low=0.0, high=1.0)


def scaled(values: Floats, factor: Factor) -> Floats:
    """Return raw values in the factor's [-1, 1]."""
    inside = np.clip(values, factor.low, factor.high) - factor.low
    if factor.scale == "log":
        return np.asarray(2.0 * np.log1p(inside) / math.log1p(factor.high - factor.low) - 1.0)
    return np.asarray(2.0 * inside / (factor.high - factor.low) - 1.0)


def raw(values: Floats, factor: Factor) -> Floats:
    """Return values in the factor's [-1, 1] in the column's own unit."""
    share = (np.clip(values, -1.0, 1.0) + 1.0) / 2.0
    if factor.scale == "log":
        return np.asarray(np.expm1(share * math.log1p(factor.high - factor.low)) + factor.low)
    return np.asarray(share * (factor.high - factor.low) + factor.low)


def measures(factors: Sequence[Factor], where: Where, contract: FeatureContract, budget: float) -> tuple[Cells, ...]:
    """Return a histogram of each factor, and the sums of the products of any two; half the squared budget each.

    Raises
    ------
    ValueError
        When the budget is below one grid unit for each term.
    """
    pairs = _pairs(len(factors))
    caps = split_caps(budget, [1.0 / len(factors)] * len(factors) + [1.0 / max(len(pairs), 1)] * len(pairs))
    caps = tuple(min(cap, 1_000_000) for cap in caps)
    who = known([factor.column for factor in factors], where, contract)
    found = [
        Cells(axes=(_axis(factor, contract),), where=who, terms=(Term(cap=cap),))
        for factor, cap in zip(factors, caps, strict=False)
    ]
    terms = tuple(
        Term(factors=(factors[i], factors[j]), cap=cap) for (i, j), cap in zip(pairs, caps[len(factors) :], strict=True)
    )
    return (*found, Cells(where=who, terms=terms)) if terms else tuple(found)


def _pairs(size: int) -> list[tuple[int, int]]:
    return [(i, j) for i in range(size) for j in range(i + 1, size)]


def _axis(factor: Factor, contract: FeatureContract) -> BinsAxis | GroupsAxis:
    if isinstance(column_of(factor.column, contract), NumericColumn):
        cuts = raw(np.arange(1, BINS) / BINS * 2.0 - 1.0, factor)
        return BinsAxis(column=factor.column, cuts=tuple(float(cut) for cut in cuts))
    return GroupsAxis(column=factor.column)


@dataclass(frozen=True, eq=False)
class Look:
    """What was seen.

    Attributes
    ----------
    factors:
        The columns with bounds that hold all but the outermost customers; flags as they are.
    sample:
        float64 [SAMPLE, factors]: points in the factors' [-1, 1] that are spread roughly as the customers are.
    spread:
        float64 [factors]: standard deviation of each factor over the customers, above 0.
    """

    factors: tuple[Factor, ...]
    sample: Floats
    spread: Floats


def look(factors: Sequence[Factor], sums: Sequence[Sum]) -> Look:
    """Return what the sums of `measures(factors, ...)` show."""
    shares = [_shares(item) for item in sums[: len(factors)]]
    narrow = tuple(_narrowed(factor, share) for factor, share in zip(factors, shares, strict=True))
    columns = [_quantiles(share) for share in shares]
    places = qmc.Halton(len(factors), scramble=False).random(SAMPLE + 1)[1:]
    if len(factors) > 1:
        half = correlation(factors, shares, sums)
        places = ndtr(ndtri(places) @ half.T)
    points = np.empty_like(places)
    for j, (factor, to) in enumerate(zip(factors, narrow, strict=True)):
        whole = np.interp(places[:, j], *columns[j]) * 2.0 - 1.0
        # a flag's sample is of its two values
        points[:, j] = np.where(whole > 0, 1.0, -1.0) if len(shares[j]) == 2 else scaled(raw(whole, factor), to)
    return Look(narrow, points, np.maximum(points.std(axis=0), 0.02))


def _shares(item: Sum) -> Floats:
    """Return the shares of a histogram's bins; what the noise may have put there alone counts as none."""
    counts = item.values[0, :-1]
    counts = np.where(counts > 2.0 * item.sd, counts, 0.0)
    total = float(counts.sum())
    return counts / total if total > 0 else np.full(len(counts), 1.0 / len(counts))


def _quantiles(shares: Floats) -> tuple[Floats, Floats]:
    """Return increasing levels and the places in [0, 1] on the column's scale that belong to them."""
    below = np.concatenate([[0.0], np.cumsum(shares)])
    # places without anybody are stepped over: the last of equal levels counts from the left, the first from the right
    return below + np.arange(len(below)) * 1e-12, np.arange(len(below)) / len(shares)


def _narrowed(factor: Factor, shares: Floats) -> Factor:
    """Return the factor with bounds at the tails of its distribution; the lower one of a logarithm stays, as it is the scale's origin."""
    if len(shares) == 2:
        return factor
    below = np.cumsum(shares)
    low = 0.0 if factor.scale == "log" else int(np.searchsorted(below, TAIL, side="right")) / len(shares)
    high = (int(np.searchsorted(below, 1.0 - TAIL, side="left")) + 1) / len(shares)
    high = min(max(high, low + _LEAST_WIDTH), 1.0)
    low = max(min(low, high - _LEAST_WIDTH), 0.0)
    ends = raw(np.array([low, high]) * 2.0 - 1.0, factor)
    return Factor(column=factor.column, low=float(ends[0]), high=float(ends[1]), scale=factor.scale)


def correlation(factors: Sequence[Factor], shares: Sequence[Floats], sums: Sequence[Sum]) -> Floats:
    """Return a square root, float64 [d, d] with rows of norm 1, of the factors' correlations, each shrunk by what its noise explains."""
    middles = [(np.arange(len(share)) + 0.5) / len(share) * 2.0 - 1.0 for share in shares]
    middles = [np.array([-1.0, 1.0]) if len(middle) == 2 else middle for middle in middles]
    mean = np.array([share @ middle for share, middle in zip(shares, middles, strict=True)])
    square = np.array([share @ middle**2 for share, middle in zip(shares, middles, strict=True)])
    spread = np.sqrt(np.maximum(square - mean**2, 1e-4))
    caps = [item.measure.terms[0].cap for item in sums[: len(factors)] if isinstance(item.measure, Cells)]
    total = max(float(np.mean([item.values[0, :-1].sum() / cap for item, cap in zip(sums, caps, strict=False)])), 1.0)
    result = np.eye(len(factors))
    products = sums[len(factors)]
    assert isinstance(products.measure, Cells)
    for place, (i, j) in enumerate(_pairs(len(factors))):
        cap = products.measure.terms[place].cap
        noise = products.sd / cap / total / (spread[i] * spread[j])
        found = (products.values[place] / cap / total - mean[i] * mean[j]) / (spread[i] * spread[j])
        shrunk = float(found) * max(0.0, 1.0 - (noise / found) ** 2) if found else 0.0
        result[i, j] = result[j, i] = min(max(shrunk, -_MOST_CORRELATED), _MOST_CORRELATED)
    values, vectors = np.linalg.eigh(result)
    half = vectors * np.sqrt(np.maximum(values, 1e-3))
    return np.asarray(half / np.linalg.norm(half, axis=1, keepdims=True))
