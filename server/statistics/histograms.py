"""How customers are distributed over a column: counts of bins or groups, and their shares of the customers for whom it is known."""

import numpy as np

from federation.answers import Answer, AnswerTable
from federation.blocks import on_scale
from federation.contract import FeatureContract, NumericColumn
from federation.measures import Cells, Centres, Term, column_of
from federation.queries import Group, Histogram
from server.statistics.asking import Setting
from server.statistics.consistency import non_negative
from server.statistics.counts import count_tables
from server.statistics.intervals import Span, share
from server.statistics.tables import (
    NOISE_ALONE,
    Floats,
    Grouping,
    OneRound,
    Spread,
    answer_table,
    customers_in,
    group_problems,
    grouping,
    grouping_problems,
    groupings,
    keys,
    row,
)

_EVEN_BINS = 8


def check(query: Histogram, contract: FeatureContract) -> list[str]:
    """Return all problems of a histogram, in words."""
    own = Group(column=query.of, cuts=query.cuts)
    if query.cuts is None:
        try:
            own = own_group(query, contract)
        except ValueError as error:
            return [str(error), *grouping_problems(query.by, contract)]
    problems = group_problems(own, contract)
    return (
        problems + grouping_problems(query.by, contract) if problems else grouping_problems((*query.by, own), contract)
    )


def own_group(query: Histogram, contract: FeatureContract) -> Group:
    """Return the column's own grouping: its groups, or its bins. Raises ValueError for an unknown column."""
    column = column_of(query.of, contract)
    if query.cuts is not None or not isinstance(column, NumericColumn):
        return Group(column=query.of, cuts=query.cuts)
    return Group(column=query.of, cuts=column.knots[1:-1] or even_cuts(column, _EVEN_BINS))


def even_cuts(column: NumericColumn, bins: int) -> tuple[float, ...]:
    """Return cuts that make `bins` bins of the same width on the column's own scale."""
    low, high = on_scale(column, np.array([column.low, column.high])).tolist()
    points = np.linspace(low, high, bins + 1)[1:-1]
    values = np.expm1(points) + column.low if column.scale == "log" else points
    return tuple(float(value) for value in values)


class HistogramAsker(OneRound[Histogram]):
    """Asks for counts of each bin in each group."""

    def __init__(self, query: Histogram, setting: Setting) -> None:
        super().__init__(query, setting)
        self._by = groupings(query.by, setting.contract)
        self._own = grouping(own_group(query, setting.contract), setting.contract)

    @property
    def _all(self) -> tuple[Grouping, ...]:
        return (*self._by, self._own)

    def _shares(self) -> tuple[float, ...]:
        return (1.0,)

    def _least(self) -> float:
        return 2.0

    def _measures(self, caps: tuple[int, ...]) -> tuple[Cells | Centres, ...]:
        axes = tuple(item.axis for item in self._all)
        return (Cells(axes=axes, where=self.query.where, terms=(Term(cap=caps[0]),)),)

    def _spreads(self) -> tuple[Spread, ...]:
        groups = int(np.prod([item.known for item in self._by]))
        size = max(self.setting.customers, 1) / groups
        return (
            Spread("customers in each bin", self.setting.sd, "customers"),
            Spread("the share of each bin", self.setting.sd / size, "share of customers"),
        )

    def answer(self) -> Answer:
        """Return counts, and shares in each group."""
        values, sd = customers_in(self._sums[0])
        tables, notes = count_tables(values, sd, self._all, self.setting.z)
        title = f"Distribution of {self.query.of}"
        return self._answer(
            title, [tables[0], self._share_table(values, sd, title), *tables[1:]], [*notes, NOISE_ALONE]
        )

    def _share_table(self, values: Floats, sd: float, title: str) -> AnswerTable:
        known = values[..., :-1].reshape(-1, self._own.known)
        spans = [span for group in known for span in shares_of(group, sd, self.setting.z)]
        labels = [*(item.labels for item in self._by), self._own.labels[:-1]]
        names = [item.column for item in self._all]
        rows = [row(key, span) for key, span in zip(keys(labels), spans, strict=True)]
        inside = " within each group" if self._by else ""
        return answer_table("shares", f"{title}: shares{inside}, of known values", "share of customers", names, rows)


def shares_of(counts: Floats, sd: float, z: float) -> list[Span]:
    """Return the share of each of some noisy counts [n] in their sum; shares are made to add up to 1 where they say anything."""
    total = float(counts.sum())
    others = (len(counts) - 1) * sd**2
    spans = [share(part, total - part, sd**2, others, z) for part in counts.tolist()]
    if any(not span.known for span in spans):
        return spans
    shown = non_negative(counts / total, 1.0).tolist()
    return [span.with_value(value) for span, value in zip(spans, shown, strict=True)]
