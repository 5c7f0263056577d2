"""Quantiles of a numeric column, in each group: read off a noisy distribution function, in one round.

Customers are counted in 4, 16, 64 and 256 bins, each level with a quarter of the squared budget, and least squares makes of all levels one
estimate of the finest bins (`consistency.Nested`). For the quantile at level p, D(x) = A(x) - p T compares the customers below x with p
times all; where |D(x)| is within the noise, x may be the quantile. In units of the noise that one histogram with the whole budget has in
each bin, the standard deviation of D at the quantile is 2.6 on average over p = 0.1 to 0.9, against 6.3 with 256 bins alone, 3.1 with 16
and 256, 2.9 with 16, 64 and 256 and 2.6 with every power of two (tests/server/statistics/test_quantiles.py). A second round that looks
closer at the bins around the quantile would have the same noise, and half the budget each: bins that nobody asks about cost nothing.

Bins are of the same share of the contract's knots, so as fine as people thought they should be; within a bin, customers are taken to lie
evenly on the column's own scale.
"""

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np

from federation.answers import Answer
from federation.blocks import on_scale
from federation.contract import FeatureContract, NumericColumn
from federation.measures import BinsAxis, Cells, Centres, Term, column_of
from federation.queries import Quantiles
from server.statistics.asking import Expected, Setting, Sum
from server.statistics.consistency import Nested, increasing
from server.statistics.intervals import NOTHING, Span
from server.statistics.tables import (
    MOST_CELLS,
    NOISE_ALONE,
    Floats,
    Grouping,
    OneRound,
    Spread,
    answer_table,
    customers_in,
    grouping_problems,
    groupings,
    keys,
    number,
    row,
)

LEVELS = (4, 16, 64, 256)
_RANK_NOISE = {64: 1.95, 256: 2.6}
"""Standard deviation of D with so many finest bins, in the noise of one histogram's bins."""


_NEAR = 0.04  # share of the bins around a quantile over which the most noise is taken: where it lies is not known beforehand


def check(query: Quantiles, contract: FeatureContract) -> list[str]:
    """Return all problems of quantiles, in words."""
    try:
        column = column_of(query.of, contract)
    except ValueError as error:
        return [str(error), *grouping_problems(query.by, contract)]
    found = [] if isinstance(column, NumericColumn) else [f"{query.of} is not numeric: it has no quantiles"]
    if any(a >= b for a, b in zip(query.levels, query.levels[1:], strict=False)):
        found.append("the levels of quantiles must increase")
    return found + grouping_problems(query.by, contract, sum(LEVELS[:2]) + 4)


def levels_for(groups: int, doubt: float) -> tuple[int, ...]:
    """Return the bins of each level: what the cells of so many groups leave room for, and no finer than the noise lets one see.

    `doubt` is the noise that one histogram with the whole budget would have in each bin, as a share of a group's customers. Bins with less
    than half of what the noise of a rank comes to would add noise, and show nothing.
    """
    for count in (4, 3):
        bins = LEVELS[count - 1]
        fits = groups * (sum(LEVELS[:count]) + 2 * count) <= MOST_CELLS
        if fits and _RANK_NOISE[bins] * doubt < 2.0 / bins:
            return LEVELS[:count]
    return LEVELS[:2]


def edges_of(column: NumericColumn, bins: int) -> Floats:
    """Return the edges of `bins` bins between the contract's bounds, float64 [bins + 1]; as many between any two knots."""
    knots = on_scale(column, np.asarray(column.knots, dtype=np.float64))
    points = np.interp(np.linspace(0.0, len(knots) - 1.0, bins + 1), np.arange(len(knots)), knots)
    edges = np.expm1(points) + column.low if column.scale == "log" else points
    edges[0], edges[-1] = column.low, column.high
    return np.asarray(edges, dtype=np.float64)


class QuantileAsker(OneRound[Quantiles]):
    """Asks for nested histograms, and inverts the distribution function."""

    def __init__(self, query: Quantiles, setting: Setting) -> None:
        super().__init__(query, setting)
        self._by = groupings(query.by, setting.contract)
        column = column_of(query.of, setting.contract)
        assert isinstance(column, NumericColumn)
        self._column = column
        self._levels: tuple[int, ...] = LEVELS
        self._choose(math.inf)

    @property
    def _edges(self) -> Floats:
        return edges_of(self._column, self._levels[-1])

    def _choose(self, budget: float) -> None:
        """Choose the levels for a budget."""
        groups = int(np.prod([len(item.labels) for item in self._by]))
        size = max(self.setting.customers, 1) / int(np.prod([item.known for item in self._by]))
        self._levels = levels_for(groups, self.setting.sd / budget / size)

    def ask(self, number: int, budget: float) -> tuple[Cells | Centres, ...]:
        """Return the nested histograms, as fine as the budget bears."""
        self._choose(budget)
        return super().ask(number, budget)

    def needed(self, number: int) -> float | None:
        """Return the sensitivity with which the accuracy asked for is reached, with the bins that it then bears.

        The finest bins say where to begin. What they need may bear coarser ones only, which may need more.
        """
        self._choose(math.inf)
        needed = super().needed(number)
        while needed is not None:
            self._choose(needed)
            here = super().needed(number)
            if here is None or here <= needed:
                break
            needed = here
        return needed

    def expected(self, budgets: Mapping[int, float]) -> tuple[Expected, ...]:
        """Say beforehand how far the noise may move quantiles."""
        self._choose(budgets[1])
        return super().expected(budgets)

    def _shares(self) -> tuple[float, ...]:
        return (1.0,) * len(self._levels)

    def _least(self) -> float:
        return 2.0 * len(self._levels)

    def _measures(self, caps: tuple[int, ...]) -> tuple[Cells | Centres, ...]:
        measures = []
        for bins, cap in zip(self._levels, caps, strict=True):
            cuts = self._edges[:: self._levels[-1] // bins][1:-1]
            axis = BinsAxis(column=self.query.of, cuts=tuple(cuts.tolist()))
            axes = (*(item.axis for item in self._by), axis)
            measures.append(Cells(axes=axes, where=self.query.where, terms=(Term(cap=cap),)))
        return tuple(measures)

    def _spreads(self) -> tuple[Spread, ...]:
        """Predict for customers spread as the contract's knots: in the column's unit, the widest of the levels asked for."""
        nested = _nested(self._levels, (float(len(self._levels)),) * len(self._levels))
        groups = int(np.prod([item.known for item in self._by]))
        size, bins, edges = max(self.setting.customers, 1) / groups, self._levels[-1], self._edges
        ranks, units = [], []
        for level in self.query.levels:
            near = slice(max(int((level - _NEAR) * bins), 0), int((level + _NEAR) * bins) + 2)
            deviation = _noise(nested, level)[near].max() * self.setting.sd / size
            place = min(int(level * bins), bins - 1)
            ranks.append(float(deviation))
            units.append(float(deviation) * bins * float(edges[place + 1] - edges[place]))
        where = f" in each of {groups} groups of like size" if self._by else ""
        return (
            Spread(
                f"quantiles of {self.query.of}{where}, were customers spread as the knots are",
                max(units),
                self._column.unit,
            ),
            Spread(f"the rank of quantiles of {self.query.of}{where}", max(ranks), "share of customers"),
        )

    def answer(self) -> Answer:
        """Return the quantiles, and how many customers they are of."""
        nested, values = estimate(self._sums)
        labels = [*(item.labels for item in self._by), tuple(number(level) for level in self.query.levels)]
        noise = [_noise(nested, level) for level in self.query.levels]
        whole = float(np.sqrt(nested.covariance.sum()))
        spans: list[Span] = []
        for bins in values.reshape(-1, values.shape[-1]):
            if float(bins.sum()) <= self.setting.z * whole:
                spans += [NOTHING] * len(noise)
                continue
            found = [
                invert(bins, sd, level, self.setting.z) for sd, level in zip(noise, self.query.levels, strict=True)
            ]
            spans += ordered([self._unscaled(span) for span in found])
        names = [*(item.column for item in self._by), "level"]
        rows = [row(key, span) for key, span in zip(keys(labels), spans, strict=True)]
        title = f"Quantiles of {self.query.of}"
        table = answer_table("quantiles", title + _within(self._by), self._column.unit, names, rows)
        return self._answer(title, [table], self._notes(spans))

    def _unscaled(self, span: Span) -> Span:
        """Turn places, in finest bins from the left, into the column's unit."""
        edges = self._edges
        places = np.arange(len(edges), dtype=np.float64)
        scaled = on_scale(self._column, edges)
        points = np.interp([item or 0.0 for item in (span.value, span.low, span.high)], places, scaled)
        values = np.expm1(points) + self._column.low if self._column.scale == "log" else points
        return Span(*np.clip(values, self._column.low, self._column.high).tolist())

    def _notes(self, spans: Sequence[Span]) -> list[str]:
        notes = [
            NOISE_ALONE,
            f"Read off {self._levels[-1]} public bins between the contract's bounds: within a bin, customers are taken to lie evenly.",
        ]
        silent = sum(not span.known for span in spans)
        if silent:
            notes.append(
                f"{silent} of {len(spans)} quantiles are of groups whose size cannot be told from 0: none is given."
            )
        wide = sum(span.low == self._column.low and span.high == self._column.high for span in spans if span.known)
        if wide:
            notes.append(
                f"The intervals of {wide} quantiles hold all that the contract's bounds allow: they say nothing."
            )
        return notes


def estimate(sums: Sequence[Sum]) -> tuple[Nested, Floats]:
    """Return the least squares over all levels' counts: the solution, and the finest bins, float64 [groups ..., finest]."""
    parts = [customers_in(item) for item in sums]
    counts = [values[..., :-1] for values, _ in parts]
    variances = np.array([sd**2 for _, sd in parts])
    scale = float(variances.max()) or 1.0
    relative = np.maximum(variances / scale, 1e-12) if variances.max() > 0 else np.ones(len(parts))
    nested = _nested(tuple(values.shape[-1] for values in counts), tuple(relative.tolist()))
    noise = Nested(nested.levels, nested.solve, nested.covariance * (scale if variances.max() > 0 else 0.0))
    return noise, np.concatenate(counts, axis=-1) @ nested.solve.T


@lru_cache(maxsize=16)
def _nested(levels: tuple[int, ...], variances: tuple[float, ...]) -> Nested:
    return Nested.of(levels, variances)


def _noise(nested: Nested, level: float) -> Floats:
    """Return the standard deviation of D at each edge of the finest bins, float64 [bins + 1]."""
    below = np.append(0.0, np.diag(nested.covariance.cumsum(axis=0).cumsum(axis=1)))
    beside = np.append(0.0, nested.covariance.sum(axis=1).cumsum())
    variances: Floats = np.maximum(below - 2.0 * level * beside + level**2 * beside[-1], 0.0)
    return np.asarray(np.sqrt(variances))


def invert(bins: Floats, noise: Floats, level: float, z: float) -> Span:
    """Return where a noisy distribution function crosses a level, in bins from the left, and what the noise allows.

    Parameters
    ----------
    bins, noise:
        Noisy counts, float64 [n], and the standard deviation of D at each edge, float64 [n + 1].
    """
    below = np.concatenate([[0.0], np.cumsum(bins)]) - level * bins.sum()
    rising = increasing(below)
    rising = np.clip(rising, -level * bins.sum(), (1.0 - level) * bins.sum())
    low = crossing(increasing(below + z * noise), last=False)
    high = crossing(increasing(below - z * noise), last=True)
    value = 0.5 * (crossing(rising, last=False) + crossing(rising, last=True))
    return Span(value, min(low, value), max(high, value))


def crossing(values: Floats, *, last: bool) -> float:
    """Return where numbers that never decrease pass 0, between places of an array: the first place, or the last."""
    if last:
        return len(values) - 1 - crossing(-values[::-1], last=False)
    place = int(np.searchsorted(values, 0.0, side="left"))
    if place == 0:
        return 0.0
    if place == len(values):
        return float(place - 1)
    before, after = float(values[place - 1]), float(values[place])
    return place - 1 + before / (before - after)


def ordered(spans: Sequence[Span]) -> list[Span]:
    """Return quantiles at increasing levels so that none lies below the one before."""
    if any(span.value is None for span in spans):
        return list(spans)
    values = increasing(np.array([span.value for span in spans], dtype=np.float64)).tolist()
    return [span.with_value(value) for span, value in zip(spans, values, strict=True)]


def _within(by: Sequence[Grouping]) -> str:
    return f" by {' and '.join(item.column for item in by)}" if by else ""
