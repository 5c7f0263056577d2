"""A table of two groupings: counts that add up to their margins, shares of rows, and Cramer's V.

Cramer's V is of these customers: V^2 = Q / min(rows - 1, columns - 1), Q = sum of n^2 / (r c) over the cells - 1, with the margins r and
c. Noise makes Q larger: that of n - r c / t, t the total, is to first order J e with J = (I - r 1'/t) x (I - c 1'/t), so that the mean of Q
grows by b = sd^2 tr(W J J'), W = 1 / (r c). That is taken off. For the interval, Q is taken for g times a non-central chi-square with b / g
degrees of freedom, which has the right mean, and the variance that the gradient of Q gives where Q is large: g = sd^2 |grad Q|^2 / (4 Q).
After F. E. Satterthwaite, Biometrics Bulletin 2 (1946) 110-114, and P. B. Patnaik, Biometrika 36 (1949) 202-232.
"""

import numpy as np
from scipy.optimize import brentq
from scipy.special import ndtr
from scipy.stats import ncx2

from federation.answers import Answer, AnswerTable
from federation.contract import FeatureContract
from federation.measures import Cells, Centres, Term
from federation.queries import Crosstab
from server.statistics import consistency
from server.statistics.asking import Setting
from server.statistics.histograms import shares_of
from server.statistics.intervals import NOTHING, Span, amount
from server.statistics.tables import (
    NOISE_ALONE,
    Floats,
    OneRound,
    Spread,
    answer_table,
    customers_in,
    grouping,
    grouping_problems,
    hidden,
    keys,
    row,
)

_MANY = 1e4  # from here on the root of a non-central chi-square is normal enough
_CLEAR = 3.0  # standard deviations of noise that a margin must exceed to count in Cramer's V


def check(query: Crosstab, contract: FeatureContract) -> list[str]:
    """Return all problems of a table of two groupings, in words."""
    return grouping_problems((query.rows, query.across), contract)


class CrosstabAsker(OneRound[Crosstab]):
    """Asks for one table of counts."""

    def __init__(self, query: Crosstab, setting: Setting) -> None:
        super().__init__(query, setting)
        self._rows = grouping(query.rows, setting.contract)
        self._across = grouping(query.across, setting.contract)

    def _shares(self) -> tuple[float, ...]:
        return (1.0,)

    def _least(self) -> float:
        return 2.0

    def _measures(self, caps: tuple[int, ...]) -> tuple[Cells | Centres, ...]:
        axes = (self._rows.axis, self._across.axis)
        return (Cells(axes=axes, where=self.query.where, terms=(Term(cap=caps[0]),)),)

    def _spreads(self) -> tuple[Spread, ...]:
        size = max(self.setting.customers, 1) / self._rows.known
        return (
            Spread("customers in each cell", self.setting.sd, "customers"),
            Spread("shares of rows of like size", self.setting.sd / size, "share of customers"),
        )

    def answer(self) -> Answer:
        """Return counts with their margins, shares of rows, and Cramer's V."""
        values, sd = customers_in(self._sums[0])
        tables, spans = self._counts(values, sd)
        notes = [hidden("the cells", spans, self.setting.z * sd, "customers"), NOISE_ALONE]
        tables.append(self._shares_of_rows(values, sd))
        strength, left = cramer(values[:-1, :-1], sd, self.setting.z)
        title = f"Cramer's V of {self._rows.column} and {self._across.column}: 0 none, 1 perfect"
        tables.append(answer_table("cramers_v", title, "correlation", (), [row((), strength)]))
        notes.append(
            "Cramer's V is of these customers and of known values; what the noise adds to it is taken off. "
            f"{left} rows or columns are left out of it, as their size cannot be told from 0."
        )
        return self._answer(f"{self._rows.column} against {self._across.column}", tables, notes)

    def _counts(self, values: Floats, sd: float) -> tuple[list[AnswerTable], list[Span]]:
        shown, z = consistency.table(values), self.setting.z
        a, b = self._rows, self._across
        tables: list[AnswerTable] = []
        spans: list[Span] = []
        for name, axes, labels in (
            ("counts", (), [a.labels, b.labels]),
            ("row_totals", (1,), [a.labels]),
            ("column_totals", (0,), [b.labels]),
            ("total", (0, 1), []),
        ):
            noisy, made = np.ravel(values.sum(axis=axes)), np.ravel(shown.sum(axis=axes))
            wide = sd * float(np.sqrt(values.size / noisy.size))
            found = [amount(x, wide, z, y) for x, y in zip(noisy.tolist(), made.tolist(), strict=True)]
            names = [(a.column, b.column)[place] for place in (0, 1) if place not in axes]
            title = f"Customers by {' and '.join(names)}" if names else "Customers"
            rows = [row(key, span) for key, span in zip(keys(labels), found, strict=True)]
            tables.append(answer_table(name, title, "customers", names, rows))
            spans = spans or found
        return tables, spans

    def _shares_of_rows(self, values: Floats, sd: float) -> AnswerTable:
        a, b = self._rows, self._across
        spans = [span for line in values[:, :-1] for span in shares_of(line, sd, self.setting.z)]
        rows = [row(key, span) for key, span in zip(keys([a.labels, b.labels[:-1]]), spans, strict=True)]
        title = f"Shares of {b.column} in each group of {a.column}, of known values"
        return answer_table("row_shares", title, "share of customers", (a.column, b.column), rows)


def _grown(margin: Floats) -> float:
    """Return one margin's part of tr(W J J')."""
    share = margin / margin.sum()
    return float(((1.0 - 2.0 * share + len(margin) * share**2) / margin).sum())


def cramer(values: Floats, sd: float, z: float) -> tuple[Span, int]:
    """Return Cramer's V of noisy counts [rows, columns], and how many rows and columns were left out since the noise hides their size."""
    height, width = values.shape
    rows = values.sum(axis=1) > _CLEAR * sd * np.sqrt(width)
    columns = values.sum(axis=0) > _CLEAR * sd * np.sqrt(height)
    left = int(height - rows.sum() + width - columns.sum())
    kept = values[rows][:, columns]
    if min(kept.shape) < 2:
        return NOTHING, left
    r, c, total = kept.sum(axis=1), kept.sum(axis=0), float(kept.sum())
    if total <= 0 or np.any(r <= 0) or np.any(c <= 0):
        return NOTHING, left
    q = max(float((kept**2 / np.outer(r, c)).sum()) - 1.0, 0.0)
    by_row, by_column = (kept**2 / c).sum(axis=1) / r**2, (kept**2 / r[:, None]).sum(axis=0) / c**2
    gradient = 2.0 * kept / np.outer(r, c) - by_row[:, None] - by_column[None, :]
    grown, most = sd**2 * _grown(r) * _grown(c), min(kept.shape) - 1
    unit = sd**2 * float((gradient**2).sum()) / (4.0 * q) if q > 0 else 0.0
    low, high = _behind(q, unit, grown, z) if unit > 0 else (q, q)
    ends = np.sqrt(np.clip(np.array([q - grown, low, high]) / most, 0.0, 1.0)).tolist()
    return Span(ends[0], min(ends[1], ends[0]), max(ends[2], ends[0])), left


def _behind(q: float, unit: float, grown: float, z: float) -> tuple[float, float]:
    """Return the interval of Q without noise, from Q with it: `unit` times a non-central chi-square, larger by `grown` on average."""
    tail, seen, freedom = float(ndtr(-z)), q / unit, grown / unit
    if seen > _MANY:
        root = float(np.sqrt(max(seen - freedom, 0.0)))
        return unit * max(root - z, 0.0) ** 2, unit * (root + z) ** 2
    most = 2.0 * seen + 100.0 + 20.0 * float(np.sqrt(seen + freedom))

    def end(share: float) -> float:
        def gap(away: float) -> float:
            return float(ncx2.cdf(seen, freedom, away)) - share

        if gap(0.0) <= 0:
            return 0.0
        return float(brentq(gap, 0.0, most)) if gap(most) < 0 else most

    return unit * end(1.0 - tail), unit * end(tail)
