"""Pearson's correlation of columns, from noisy sums of their values and products.

Values are moved to p in [-1, 1] (`federation.measures.Factor`), which changes no correlation. One table asks for the count N, the sums S of
each p, and the sums of each product of two, over the customers for whom all columns are known. With C(x, y) = S(x y) - S(x) S(y) / N, the
correlation is C(x, y) / sqrt(C(x, x) C(y, y)): a quotient of noisy numbers, whose covariance follows from the noise to first order, and
whose interval is Fieller's.

How the squared budget is shared out: to keep the sum of g^2 / cap^2 small, where g is how much a correlation moves with a sum, cap^2 goes
as |g|; g at correlation 0.3 of columns that lie as the contract's knots do, root mean square over all pairs.
"""

from collections.abc import Sequence
from itertools import combinations

import numpy as np

from federation.answers import Answer
from federation.blocks import on_scale, reference_mean
from federation.contract import FeatureContract, NumericColumn
from federation.measures import Cells, Centres, Factor, Term, column_of
from federation.queries import Correlation
from server.statistics.asking import Setting
from server.statistics.intervals import NOTHING, Ratio, Span
from server.statistics.tables import (
    NOISE_ALONE,
    Floats,
    OneRound,
    Spread,
    answer_table,
    bounds_of,
    customers_in,
    row,
    value_problems,
)

_GUESS = 0.3
_LEAST_SHARE = 0.02  # of the largest share, for every sum
_CLEAR = 3.0
"""A column's spread must be so many standard deviations of its noise before correlations with it are given: of a spread that only luck
lifts above its noise, the correlation would nearly always be wrong, though such luck is within what the confidence allows."""


def check(query: Correlation, contract: FeatureContract) -> list[str]:
    """Return all problems of correlations, in words."""
    found = [problem for name in query.of for problem in value_problems(name, contract)]
    twice = sorted({name for name in query.of if query.of.count(name) > 1})
    return found + [f"{name} stands twice among the columns" for name in twice]


class CorrelationAsker(OneRound[Correlation]):
    """Asks for one table of sums of values and products."""

    def __init__(self, query: Correlation, setting: Setting) -> None:
        super().__init__(query, setting)
        bounds = [bounds_of(name, setting.contract) for name in query.of]
        self._factors = [
            Factor(column=name, low=low, high=high) for name, (low, high) in zip(query.of, bounds, strict=True)
        ]
        self._moments = Moments(len(query.of))
        self._guess = np.array([_reference(name, setting.contract) for name in query.of])

    def _shares(self) -> tuple[float, ...]:
        gradients = self._gradients()
        strength = np.sqrt(np.mean(gradients**2, axis=0))
        return tuple(np.maximum(strength, _LEAST_SHARE * strength.max()).tolist())

    def _gradients(self) -> Floats:
        """Return how each pair's correlation moves with each sum, for one customer and the guess, float64 [pairs, sums]."""
        sums = self._moments.of_guess(self._guess, _GUESS)
        pairs = [self._moments.pair(sums, i, j) for i, j in self._moments.pairs]
        return np.stack([(top - _GUESS * under) / scale for _, scale, top, under in pairs])

    def _measures(self, caps: tuple[int, ...]) -> tuple[Cells | Centres, ...]:
        chosen = [(), *((i,) for i in range(len(self._factors))), *self._moments.products]
        terms = tuple(
            Term(factors=tuple(self._factors[place] for place in places), cap=cap)
            for places, cap in zip(chosen, caps, strict=True)
        )
        return (Cells(where=self.query.where, terms=terms),)

    def _spreads(self) -> tuple[Spread, ...]:
        shares = np.array(self._shares())
        variances = (self._gradients() ** 2 * (shares.sum() / shares)).sum(axis=1)
        worst = float(np.sqrt(variances.max())) * self.setting.sd / max(self.setting.customers, 1)
        return (Spread("correlations, were customers spread as the knots are", worst, "correlation"),)

    def answer(self) -> Answer:
        """Return each pair's correlation."""
        parts = [customers_in(self._sums[0], term) for term in range(self._moments.size)]
        sums = np.array([float(values) for values, _ in parts])
        variances = np.array([sd**2 for _, sd in parts])
        spans = [self._correlation(sums, variances, i, j) for i, j in self._moments.pairs]
        rows = [
            row((self.query.of[i], self.query.of[j]), span)
            for (i, j), span in zip(self._moments.pairs, spans, strict=True)
        ]
        title = "Pearson's correlation"
        table = answer_table("correlations", title, "correlation", ("column", "other"), rows)
        return self._answer(f"Correlation of {', '.join(self.query.of)}", [table], _notes(spans))

    def _correlation(self, sums: Floats, variances: Floats, i: int, j: int) -> Span:
        z, count = self.setting.z, float(sums[0])
        clear = max(z, _CLEAR)
        if count <= 0 or count**2 <= z * z * variances[0]:
            return NOTHING
        for place in (i, j):
            spread, _, gradient, _ = self._moments.pair(sums, place, place)
            if spread <= 0 or spread**2 <= clear * clear * float(gradient**2 @ variances):
                return NOTHING
        top, under, by_top, by_under = self._moments.pair(sums, i, j)
        ratio = Ratio(
            top,
            under,
            float(by_top**2 @ variances),
            float((by_top * by_under) @ variances),
            float(by_under**2 @ variances),
        )
        return ratio.span(z).clipped(-1.0, 1.0)


class Moments:
    """The order of the sums: the count, each column, each product of two (squares included)."""

    def __init__(self, columns: int) -> None:
        self.columns = columns
        self.products = [(i, j) for i in range(columns) for j in range(i, columns)]
        self.pairs = list(combinations(range(columns), 2))
        self._place = {pair: 1 + columns + place for place, pair in enumerate(self.products)}

    @property
    def size(self) -> int:
        """How many sums there are."""
        return 1 + self.columns + len(self.products)

    def of_guess(self, moments: Floats, correlation: float) -> Floats:
        """Return the sums of one customer, from means and standard deviations [columns, 2] and one correlation for all."""
        mean, sd = moments[:, 0], moments[:, 1]
        products = [mean[i] * mean[j] + sd[i] * sd[j] * (1.0 if i == j else correlation) for i, j in self.products]
        return np.array([1.0, *mean.tolist(), *products])

    def centred(self, sums: Floats, i: int, j: int) -> tuple[float, Floats]:
        """Return C(x, y) and how it moves with each sum, float64 [size]."""
        count, x, y = float(sums[0]), float(sums[1 + i]), float(sums[1 + j])
        gradient = np.zeros(self.size)
        gradient[0] = x * y / count**2
        gradient[1 + i] -= y / count
        gradient[1 + j] -= x / count
        gradient[self._place[min(i, j), max(i, j)]] += 1.0
        return float(sums[self._place[min(i, j), max(i, j)]]) - x * y / count, gradient

    def pair(self, sums: Floats, i: int, j: int) -> tuple[float, float, Floats, Floats]:
        """Return C(x, y), sqrt(C(x, x) C(y, y)), and how both move with each sum, float64 [size] each."""
        top, by_top = self.centred(sums, i, j)
        (one, by_one), (other, by_other) = self.centred(sums, i, i), self.centred(sums, j, j)
        if one <= 0 or other <= 0:
            return top, 0.0, by_top, np.zeros(self.size)
        under = float(np.sqrt(one * other))
        return top, under, by_top, (other * by_one + one * by_other) / (2.0 * under)


def _reference(name: str, contract: FeatureContract) -> tuple[float, float]:
    """Return mean and standard deviation in [-1, 1] of a column that lies as its knots do; of a flag, half of them yes."""
    column = column_of(name, contract)
    if not isinstance(column, NumericColumn):
        return 0.0, 1.0
    fine = np.linspace(0.0, len(column.knots) - 1.0, 16 * (len(column.knots) - 1) + 1)
    scaled = np.interp(fine, np.arange(len(column.knots)), on_scale(column, np.asarray(column.knots)))
    values = np.expm1(scaled) + column.low if column.scale == "log" else scaled
    places = (2.0 * values - column.low - column.high) / (column.high - column.low)
    weights = reference_mean(len(places))
    mean = float(weights @ places)
    return mean, max(float(np.sqrt(weights @ (places - mean) ** 2)), 1e-3)


def _notes(spans: Sequence[Span]) -> list[str]:
    notes = [
        NOISE_ALONE,
        "Values are clipped to the contract's bounds. Customers for whom one of the columns is unknown do not count in any of these "
        "correlations.",
    ]
    silent = sum(not span.known for span in spans)
    if silent:
        notes.append(
            f"{silent} of {len(spans)} correlations are not given: the noise hides how far one of the columns varies."
        )
    open_ = sum(span.known and not span.beside_zero for span in spans)
    if open_:
        notes.append(f"{open_} of {len(spans)} correlations cannot be told from 0.")
    return notes
