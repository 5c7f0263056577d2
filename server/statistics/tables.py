"""What askers of tables share: public groupings, one round of measures, rows of answers, and the words that stand under them."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from federation.answers import Answer, AnswerTable, Row
from federation.contract import CategoricalColumn, FeatureContract, NumericColumn
from federation.errors import FederationError
from federation.measures import LARGEST_CAP, BinsAxis, Cells, Centres, GroupsAxis, cells_on, column_of, groups_of
from federation.queries import Base, Group
from server.statistics.asking import Expected, Setting, Sum, split_caps
from server.statistics.intervals import Span

Floats = NDArray[np.float64]
Q = TypeVar("Q", bound=Base)
MOST_CELLS = 20_000
"""Cells that one query may fill: a study's queries share the integers of a round."""
LEAST_CAP = 16
"""Grid units for a customer's full value where values between count: with fewer, what is added up would be rounded too coarsely."""
UNKNOWN = "unknown"
NOISE_ALONE = "Intervals hold the noise alone: they say how far it may have moved the figures of these very customers."
POPULATION = "Intervals whose title says population hold the noise and the chance of who became a customer; others hold the noise alone."
_DIGITS = 9


@dataclass(frozen=True)
class Grouping:
    """A public grouping of customers: its axis, and the label of each cell, the unknown last."""

    column: str
    axis: BinsAxis | GroupsAxis
    labels: tuple[str, ...]

    @property
    def known(self) -> int:
        """How many cells there are without the unknown."""
        return len(self.labels) - 1


def grouping(group: Group, contract: FeatureContract) -> Grouping:
    """Return a query's grouping. Raises ValueError as `group_problems` words it."""
    problems = group_problems(group, contract)
    if problems:
        raise ValueError("; ".join(problems))
    if group.cuts is not None:
        return Grouping(group.column, BinsAxis(column=group.column, cuts=group.cuts), (*between(group.cuts), UNKNOWN))
    labels = (*groups_of(group.column, contract), UNKNOWN)
    return Grouping(group.column, GroupsAxis(column=group.column), labels)


def groupings(groups: Sequence[Group], contract: FeatureContract) -> tuple[Grouping, ...]:
    """Return all groupings of a query, in order."""
    return tuple(grouping(group, contract) for group in groups)


def between(cuts: Sequence[float]) -> tuple[str, ...]:
    """Name the bins that cuts make."""
    words = [number(cut) for cut in cuts]
    inner = (f"{a} to below {b}" for a, b in zip(words, words[1:], strict=False))
    return (f"below {words[0]}", *inner, f"{words[-1]} and more")


def number(value: float) -> str:
    """Write a number as people do."""
    return format(value, ".10g")


def group_problems(group: Group, contract: FeatureContract) -> list[str]:
    """Return why a grouping is not public, in words; empty when it is."""
    try:
        column = column_of(group.column, contract)
    except ValueError as error:
        return [str(error)]
    numeric = isinstance(column, NumericColumn)
    if group.cuts is None:
        return [f"{group.column} is numeric: its values are no public groups; give cuts"] if numeric else []
    if not numeric:
        return [f"{group.column} is not numeric: it has groups of its own and cannot be cut"]
    return cut_problems(group.column, group.cuts)


def cut_problems(name: str, cuts: Sequence[float]) -> list[str]:
    """Return what is wrong with cuts, in words."""
    if not all(math.isfinite(cut) for cut in cuts):
        return [f"the cuts of {name} must be finite numbers"]
    if any(a >= b for a, b in zip(cuts, cuts[1:], strict=False)):
        return [f"the cuts of {name} must increase"]
    return []


def grouping_problems(groups: Sequence[Group], contract: FeatureContract, others: int = 1) -> list[str]:
    """Return what is wrong with groupings that stand side by side, each `others` times; empty when nothing is."""
    found = [problem for group in groups for problem in group_problems(group, contract)]
    names = [group.column for group in groups]
    found += [
        f"{name} stands twice among the groups" for name in sorted({name for name in names if names.count(name) > 1})
    ]
    if not found:
        cells = others * math.prod(cells_on(grouping(group, contract).axis, contract) for group in groups)
        if cells > MOST_CELLS:
            found.append(
                f"a table of {cells} cells is too large; at most {MOST_CELLS}: take coarser cuts or fewer groupings"
            )
    return found


def value_problems(
    name: str, contract: FeatureContract, low: float | None = None, high: float | None = None
) -> list[str]:
    """Return why a column cannot be added up within these bounds, in words; empty when it can."""
    try:
        column = column_of(name, contract)
    except ValueError as error:
        return [str(error)]
    if isinstance(column, CategoricalColumn):
        return [f"{name} is not numeric: its categories cannot be added up"]
    if low is None or high is None:
        return []
    least, most = bounds_of(name, contract)
    if low < least or high > most:
        return [f"{name} is bounded by {number(least)} and {number(most)}; {number(low)} to {number(high)} goes beyond"]
    return []


def bounds_of(name: str, contract: FeatureContract) -> tuple[float, float]:
    """Return a column's public bounds; 0 and 1 of a flag or the label."""
    column = column_of(name, contract)
    return (column.low, column.high) if isinstance(column, NumericColumn) else (0.0, 1.0)


def unit_of(name: str, contract: FeatureContract) -> str:
    """Return the unit of a column's mean."""
    column = column_of(name, contract)
    return column.unit if isinstance(column, NumericColumn) else "share of customers"


def keys(labels: Sequence[Sequence[str]]) -> Iterator[tuple[str, ...]]:
    """Return the rows' labels of a table, the last axis changing fastest."""
    return product(*labels)


def row(key: Sequence[str], span: Span) -> Row:
    """Return one line of an answer."""
    return Row(key=tuple(key), value=_short(span.value), low=_short(span.low), high=_short(span.high))


def _short(value: float | None) -> float | None:
    """Cut off the digits that differ from one machine to another."""
    return None if value is None else float(format(value, f".{_DIGITS}g")) + 0.0


def answer_table(name: str, title: str, unit: str, key: Sequence[str], rows: Sequence[Row]) -> AnswerTable:
    """Return a table of an answer."""
    return AnswerTable(name=name, title=title[:400], unit=unit, key=tuple(key), rows=tuple(rows))


def hidden(what: str, spans: Sequence[Span], half: float, unit: str) -> str:
    """Say which figures cannot be told from zero. `half` is the half width of the noise's interval."""
    few = sum(1 for span in spans if span.value is not None and abs(span.value) <= half)
    least = f"The noise moves {what} by up to {number(_rounded(half))} {unit}"
    if not few:
        return f"{least}: all of them can be told from 0."
    return f"{least}: {few} of {len(spans)} lie within that and cannot be told from 0."


def _rounded(value: float) -> float:
    return float(format(value, ".3g"))


@dataclass(frozen=True)
class Spread:
    """The noise of one kind of figure, were the budget one grid unit: its standard deviation falls as one over the budget."""

    what: str
    sd: float
    unit: str


class OneRound(Generic[Q]):
    """An asker that asks once. Its own part: `_shares`, `_measures`, `_spreads` (the first is what `accuracy` is about) and `answer`."""

    def __init__(self, query: Q, setting: Setting) -> None:
        self.query = query
        self.setting = setting
        self._sums: tuple[Sum, ...] = ()

    @property
    def rounds(self) -> int:
        """In how many rounds it asks."""
        return 1

    def weight(self, number: int) -> float:
        """Return the query's own weight."""
        return self.query.weight

    def needed(self, number: int) -> float | None:
        """Return the least sensitivity with which the accuracy asked for is reached."""
        accuracy = self.query.accuracy
        if accuracy is None:
            return None
        z = float(ndtri(0.5 + accuracy.confidence / 2.0))
        least = z * self._spreads()[0].sd / accuracy.within
        shares = self._shares()
        part = math.sqrt(min(shares) / sum(shares))
        # Caps are whole numbers below their part of the budget: one grid unit more for the smallest of them makes up for that.
        return max(math.ceil(least) + math.ceil(1.0 / part), self._least())

    def expected(self, budgets: Mapping[int, float]) -> tuple[Expected, ...]:
        """Say beforehand how far the noise may move figures."""
        return tuple(Expected(item.what, self.setting.z * item.sd / budgets[1], item.unit) for item in self._spreads())

    def ask(self, number: int, budget: float) -> tuple[Cells | Centres, ...]:
        """Return the measures of the only round."""
        least = self._least()
        if budget < least:
            raise FederationError(
                "CSL-S710",
                f"The query {self.query.id} has a budget of {budget:.3g} grid units and needs {least:g} to ask anything.",
                "Give it more weight, ask fewer queries, or ask the members for a larger epsilon.",
            )
        return self._measures(self._caps(budget))

    def told(self, number: int, sums: Sequence[Sum]) -> None:
        """Take the sums of the only round."""
        self._sums = tuple(sums)

    def _caps(self, budget: float) -> tuple[int, ...]:
        return split_caps(min(budget, float(LARGEST_CAP)), self._shares())

    def _least(self) -> float:
        """Return the smallest budget that asks anything sensible, in grid units."""
        shares = self._shares()
        return math.ceil((LEAST_CAP + 1) * math.sqrt(sum(shares) / min(shares)))

    def _shares(self) -> tuple[float, ...]:
        """Return how the squared budget is shared out, one number for each term asked for."""
        raise NotImplementedError

    def _measures(self, caps: tuple[int, ...]) -> tuple[Cells | Centres, ...]:
        raise NotImplementedError

    def _spreads(self) -> tuple[Spread, ...]:
        raise NotImplementedError

    def _answer(self, title: str, tables: Sequence[AnswerTable], notes: Sequence[str]) -> Answer:
        kind = str(getattr(self.query, "kind", "query"))
        return Answer(
            id=self.query.id,
            kind=kind,
            title=self.query.title or title[:400],
            tables=tuple(tables),
            notes=tuple(note[:2000] for note in notes),
        )


def customers_in(found: Sum, term: int = 0) -> tuple[Floats, float]:
    """Return a term's values in full customers [cells of each axis ...], and the standard deviation of their noise."""
    assert isinstance(found.measure, Cells)
    cap = found.measure.terms[term].cap
    return np.asarray(found.values[term] / cap, dtype=np.float64), found.sd / cap
