"""Sums and means of a column, in each group.

A numeric value is added up as p in [-1, 1] beside a count of 1. With N the count and S the sum of p over a group, the column's sum is
mid N + half S, and its mean mid + half S / N, where mid is the middle of the bounds and half is half their distance. A flag is counted by
its groups instead, no and yes, which says the same with no more noise.
"""

from typing import TypeVar

import numpy as np

from federation.answers import Answer, AnswerTable, Row
from federation.contract import FeatureContract, NumericColumn
from federation.measures import Cells, Centres, Factor, GroupsAxis, Term, column_of
from federation.queries import Mean, Sum
from server.statistics import consistency
from server.statistics.asking import Setting
from server.statistics.intervals import NOTHING, Ratio, Span, amount, around, share
from server.statistics.tables import (
    NOISE_ALONE,
    Floats,
    OneRound,
    Spread,
    answer_table,
    bounds_of,
    customers_in,
    grouping_problems,
    groupings,
    hidden,
    keys,
    number,
    row,
    unit_of,
    value_problems,
)

V = TypeVar("V", bound=Sum | Mean)
_LEAST_SHARE = 0.01  # of the count against the value or the other way round, where one of them hardly matters


def check(query: Sum | Mean, contract: FeatureContract) -> list[str]:
    """Return all problems of a sum or mean, in words."""
    low, high = (None, None) if query.clip is None else (query.clip.low, query.clip.high)
    found = value_problems(query.of, contract, low, high)
    numeric = not found and isinstance(column_of(query.of, contract), NumericColumn)
    if not found and query.clip is not None and not numeric:
        found.append(f"{query.of} is yes or no: it is not clipped")
    if not numeric and query.of in [group.column for group in query.by]:
        found.append(f"{query.of} is both what is added up and a grouping")
    return found + grouping_problems(query.by, contract, 1 if numeric else 3)


class _Valued(OneRound[V]):
    """What sums and means share: the groups, the bounds, and one table of counts and values."""

    def __init__(self, query: V, setting: Setting) -> None:
        super().__init__(query, setting)
        contract = setting.contract
        self._by = groupings(query.by, contract)
        self._numeric = isinstance(column_of(query.of, contract), NumericColumn)
        low, high = bounds_of(query.of, contract) if query.clip is None else (query.clip.low, query.clip.high)
        self._low, self._high = low, high
        self._mid, self._half = (low + high) / 2.0, (high - low) / 2.0

    @property
    def _names(self) -> list[str]:
        return [item.column for item in self._by]

    @property
    def _in_groups(self) -> str:
        return f" by {' and '.join(self._names)}" if self._by else ""

    def _flag_cells(self, cap: int) -> Cells:
        axes = (*(item.axis for item in self._by), GroupsAxis(column=self.query.of))
        return Cells(axes=axes, where=self.query.where, terms=(Term(cap=cap),))

    def _value_cells(self, caps: tuple[int, ...]) -> Cells:
        factor = Factor(column=self.query.of, low=self._low, high=self._high)
        terms = (*(Term(cap=cap) for cap in caps[:-1]), Term(factors=(factor,), cap=caps[-1]))
        return Cells(axes=tuple(item.axis for item in self._by), where=self.query.where, terms=terms)

    def _no_and_yes(self) -> tuple[Floats, Floats, float]:
        """Return both counts of a flag [cells of each axis ...] and the standard deviation of their noise."""
        values, sd = customers_in(self._sums[0])
        return values[..., 0], values[..., 1], sd

    def _rows(self, spans: list[Span]) -> list[Row]:
        labels = keys([item.labels for item in self._by])
        return [row(key, span) for key, span in zip(labels, spans, strict=True)]

    def _clip_note(self) -> str:
        low, high, of = number(self._low), number(self._high), self.query.of
        cap = self._sums[0].measure.terms[-1].cap if isinstance(self._sums[0].measure, Cells) else 1
        return (
            f"Values of {of} below {low} count as {low} and those above {high} as {high}: were there any, the figures are pulled inwards. "
            f"Each value is rounded by up to {format(self._half / (2 * cap), '.2g')}. Customers for whom {of} is unknown do not count."
        )


class SumAsker(_Valued[Sum]):
    """Asks for what makes up a sum, with the least noise that the bounds allow."""

    def _shares(self) -> tuple[float, ...]:
        if not self._numeric or self._mid == 0:
            return (1.0,)
        least = _LEAST_SHARE * max(abs(self._mid), self._half)
        return max(abs(self._mid), least), max(self._half, least)

    def _least(self) -> float:
        if not self._numeric:
            return 2.0
        shares = self._shares()
        return float(np.ceil(17.0 * np.sqrt(sum(shares) / shares[-1])))

    def _measures(self, caps: tuple[int, ...]) -> tuple[Cells | Centres, ...]:
        return (self._value_cells(caps) if self._numeric else self._flag_cells(caps[0]),)

    def _spreads(self) -> tuple[Spread, ...]:
        what = f"the sum of {self.query.of}{self._in_groups and ' in each group'}"
        if not self._numeric:
            return (Spread(what, self.setting.sd, "customers"),)
        shares = self._shares()
        weights = (self._half,) if len(shares) == 1 else (self._mid, self._half)
        square = sum(weight**2 * sum(shares) / part for weight, part in zip(weights, shares, strict=True))
        return (Spread(what, self.setting.sd * float(np.sqrt(square)), self._unit),)

    @property
    def _unit(self) -> str:
        return unit_of(self.query.of, self.setting.contract) if self._numeric else "customers"

    def _sums_of(self) -> tuple[Floats, float]:
        """Return the noisy sums [cells of each axis ...] and the standard deviation of their noise."""
        if not self._numeric:
            _, yes, sd = self._no_and_yes()
            return yes, sd
        part, sd = customers_in(self._sums[0], -1)
        total, square = self._half * part, (self._half * sd) ** 2
        if len(self._sums[0].values) > 1:
            count, wide = customers_in(self._sums[0], 0)
            total, square = total + self._mid * count, square + (self._mid * wide) ** 2
        return total, float(np.sqrt(square))

    def answer(self) -> Answer:
        """Return the sums, and the total over all groups."""
        (values, sd), z = self._sums_of(), self.setting.z
        positive = self._low >= 0
        shown = consistency.counts(values) if positive else values
        spans = [self._span(a, sd, b) for a, b in zip(np.ravel(values).tolist(), np.ravel(shown).tolist(), strict=True)]
        title = f"Sum of {self.query.of}"
        tables = [answer_table("sums", title + self._in_groups, self._unit, self._names, self._rows(spans))]
        if self._by:
            wide = sd * float(np.sqrt(values.size))
            total = self._span(float(values.sum()), wide, float(shown.sum()))
            tables.append(answer_table("total", title, self._unit, (), [row((), total)]))
        notes = [hidden("the sums", spans, z * sd, self._unit), NOISE_ALONE]
        return self._answer(title, tables, [*notes, self._clip_note()] if self._numeric else notes)

    def _span(self, value: float, sd: float, shown: float) -> Span:
        z = self.setting.z
        return amount(value, sd, z, shown) if self._low >= 0 else around(value, sd, z)


class MeanAsker(_Valued[Mean]):
    """Asks for a count and a sum in each group, and divides."""

    def _shares(self) -> tuple[float, ...]:
        return (1.0, 1.0) if self._numeric else (1.0,)

    def _least(self) -> float:
        return super()._least() if self._numeric else 2.0

    def _measures(self, caps: tuple[int, ...]) -> tuple[Cells | Centres, ...]:
        return (self._value_cells(caps) if self._numeric else self._flag_cells(caps[0]),)

    @property
    def _unit(self) -> str:
        return unit_of(self.query.of, self.setting.contract)

    def _spreads(self) -> tuple[Spread, ...]:
        # (S - q N) / N has the variance sd^2 (1 + q^2) 2 / (budget N)^2 <= (2 sd / budget N)^2; of a flag's share it is at most a quarter.
        groups = int(np.prod([item.known for item in self._by]))
        size = max(self.setting.customers, 1)
        spread = (self._high - self._low) * self.setting.sd / size
        found = [Spread(f"the mean of {self.query.of} over all {size} customers", spread, self._unit)]
        if self._by:
            what = f"the mean of {self.query.of} in each of {groups} groups of like size"
            found.insert(0, Spread(what, spread * groups, self._unit))
        return tuple(found)

    def _mean(self, first: float, second: float, one: float, other: float) -> Span:
        """Return a mean and its interval from no and yes, or from N and S; `one` and `other` are the variances of their noise."""
        z = self.setting.z
        if not self._numeric:
            return share(second, first, other, one, z)
        return Ratio(second, first, other, 0.0, one).span(z).clipped(-1.0, 1.0).times(self._half, self._mid)

    def _parts(self) -> tuple[Floats, Floats, float, float]:
        if not self._numeric:
            no, yes, sd = self._no_and_yes()
            return no, yes, sd**2, sd**2
        (count, wide), (part, sd) = customers_in(self._sums[0], 0), customers_in(self._sums[0], 1)
        return count, part, wide**2, sd**2

    def answer(self) -> Answer:
        """Return the means, the mean over all groups, and how many customers they are of."""
        first, second, one, other = self._parts()
        spans = [
            self._mean(a, b, one, other)
            for a, b in zip(np.ravel(first).tolist(), np.ravel(second).tolist(), strict=True)
        ]
        title = f"Mean of {self.query.of}" if self._numeric else f"Share of {self.query.of}"
        tables = [answer_table("means", title + self._in_groups, self._unit, self._names, self._rows(spans))]
        if self._by:
            overall = self._mean(float(first.sum()), float(second.sum()), one * first.size, other * first.size)
            tables.append(answer_table("overall", title, self._unit, (), [row((), overall)]))
        tables.append(
            self._customers(first if self._numeric else first + second, one if self._numeric else one + other)
        )
        notes = [NOISE_ALONE]
        empty = sum(span == NOTHING for span in spans)
        if empty:
            notes.append(
                f"In {empty} of {len(spans)} groups the number of customers cannot be told from 0: no mean is given."
            )
        return self._answer(title, tables, [*notes, self._clip_note()] if self._numeric else notes)

    def _customers(self, values: Floats, variance: float) -> AnswerTable:
        shown, sd = consistency.counts(values), float(np.sqrt(variance))
        spans = [
            amount(a, sd, self.setting.z, b)
            for a, b in zip(np.ravel(values).tolist(), np.ravel(shown).tolist(), strict=True)
        ]
        title = f"Customers for whom {self.query.of} is known{self._in_groups}"
        return answer_table("customers", title, "customers", self._names, self._rows(spans))
