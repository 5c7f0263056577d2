"""Customer lifetime value over a federation, from one round of noisy counts: see `server.statistics.lifetime_fit` for the estimate.

Three tables are asked for: frequency by recency, tenure alone, frequency by monetary. That is fewer cells than frequency by recency by
tenure, and with noise of a few customers in each cell fewer cells tell more: the model itself says how tenure goes with the rest.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from federation.answers import Answer
from federation.contract import FeatureContract, NumericColumn
from federation.errors import FederationError
from federation.measures import BinsAxis, Cells, Centres, Term, column_of, problems_of
from federation.queries import Lifetime
from server.statistics.asking import Expected, Setting, Sum, split_caps
from server.statistics.lifetime_answer import Counts, answer_of, total_slope
from server.statistics.lifetime_fit import Grid, foreseen

SHARES = (0.5, 0.1, 0.4)
"""Of the squared sensitivity: frequency by recency, tenure, frequency by monetary."""
FREQUENCY = (2.0, 3.0, 5.0, 10.0, 20.0, 50.0)
RECENCY = (0.1, 0.3, 0.6)
TENURE = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
LEAST_PART = 0.01
"""The noise of one cell may be this part of all customers at most; with more, expected purchases would be off by half and more."""
_MOST_CUTS = 24
_ASKED = "days of purchase that all customers together are expected to have in the horizon"


def check(query: Lifetime, contract: FeatureContract) -> list[str]:
    """Return everything that keeps this query from being asked, in words; empty when nothing does."""
    found = problems_of([Cells(where=query.where, terms=(Term(cap=1),))], contract)
    names = (query.frequency, query.recency, query.tenure, query.monetary)
    if len(set(names)) < len(names):
        found.append("frequency, recency, tenure and monetary are four columns")
    if contract.source != "transactions":
        found.append(f"the contract {contract.name} is not of transactions: lifetime value needs a log of purchases")
    for name in names:
        try:
            column = column_of(name, contract)
        except ValueError as error:
            found.append(str(error))
            continue
        if not isinstance(column, NumericColumn):
            found.append(f"{name} is not numeric")
        else:
            found += _bounds(query, column)
    return list(dict.fromkeys(found))


def _bounds(query: Lifetime, column: NumericColumn) -> list[str]:
    if column.name in (query.recency, query.tenure) and (column.low, column.high) != (0.0, 1.0):
        return [
            f"{column.name} lies between {column.low:g} and {column.high:g}: it must be a share of the window, 0 to 1"
        ]
    if column.name == query.frequency and not (column.low == 1.0 and column.high >= 3.0):
        return [f"{column.name} must count days of purchase: from 1, to 3 at least"]
    if column.name == query.monetary and not (column.low >= 0.0 and column.high > 0.0):
        return [f"{column.name} must be an amount: 0 or more"]
    return []


def grid_of(query: Lifetime, contract: FeatureContract) -> Grid:
    """Return the cells: all cuts are public, from the contract's bounds and knots alone."""
    most, amount = column_of(query.frequency, contract), column_of(query.monetary, contract)
    assert isinstance(most, NumericColumn) and isinstance(amount, NumericColumn)
    frequency = tuple(cut for cut in FREQUENCY if cut <= most.high)
    return Grid(frequency, RECENCY, TENURE, _amounts(amount), int(most.high))


def _amounts(column: NumericColumn) -> tuple[float, ...]:
    """Cut at the knots, once between two of them and once below and above, evenly in the logarithm."""
    inner = [knot for knot in column.knots if 0.0 < knot < column.high]
    if not inner:
        inner = [float(cut) for cut in column.high * np.geomspace(0.02, 0.5, 5)]
    edges = [inner[0] / 4.0, *inner, column.high]
    between = [float(np.sqrt(low * high)) for low, high in zip(edges, edges[1:], strict=False)]
    cuts = sorted({*inner, *between}) if len(inner) <= _MOST_CUTS // 2 else inner
    return tuple(float(f"{cut:.4g}") for cut in cuts if column.low < cut < column.high)[:_MOST_CUTS]


@dataclass
class LifetimeAsker:
    """One lifetime query on its way to an answer."""

    query: Lifetime
    setting: Setting
    counts: Counts | None = None

    @property
    def rounds(self) -> int:
        """All is counted in one round."""
        return 1

    @cached_property
    def grid(self) -> Grid:
        """The public cells."""
        return grid_of(self.query, self.setting.contract)

    def weight(self, number: int) -> float:
        """Return the query's own weight."""
        return self.query.weight

    def needed(self, number: int) -> float | None:
        """Return the sensitivity for which the noise moves the expected purchases by `accuracy.within` percent, for a usual shop.

        Not below what `ask` takes. None where no accuracy is asked for.
        """
        accuracy = self.query.accuracy
        if accuracy is None:
            return None
        setting = Setting(self.setting.contract, self.setting.customers, self.setting.sd, accuracy.confidence)
        low = high = self._least()
        while _percent(setting, self.grid, self.query.horizon, high) > accuracy.within:
            low, high = high, 2.0 * high
        while high > low * 1.01:
            middle = float(np.sqrt(low * high))
            if _percent(setting, self.grid, self.query.horizon, middle) > accuracy.within:
                low = middle
            else:
                high = middle
        return high

    def ask(self, number: int, budget: float) -> tuple[Cells | Centres, ...]:
        """Return the three tables.

        Raises
        ------
        FederationError
            CSL-S740 when the budget leaves more noise in a cell than `LEAST_PART` of all customers.
        """
        if budget < self._least():
            raise FederationError(
                "CSL-S740",
                f"The budget of the query {self.query.id} ({budget:.0f}) is too small to fit lifetime value over "
                f"{self.setting.customers} customers: it needs {self._least():.0f}.",
                "Ask for less beside it, raise its weight, or raise epsilon.",
            )
        caps = split_caps(budget, SHARES)
        axes = (
            (self._axis(self.query.frequency, self.grid.frequency), self._axis(self.query.recency, self.grid.recency)),
            (self._axis(self.query.tenure, self.grid.tenure),),
            (
                self._axis(self.query.frequency, self.grid.frequency),
                self._axis(self.query.monetary, self.grid.monetary),
            ),
        )
        return tuple(
            Cells(axes=item, where=self.query.where, terms=(Term(cap=cap),))
            for item, cap in zip(axes, caps, strict=True)
        )

    def _axis(self, column: str, cuts: tuple[float, ...]) -> BinsAxis:
        return BinsAxis(column=column, cuts=cuts)

    def _least(self) -> float:
        by_noise = self.setting.sd / (LEAST_PART * self.setting.customers) / np.sqrt(min(SHARES[0], SHARES[2]))
        return float(max(by_noise, 10.0))

    def told(self, number: int, sums: Sequence[Sum]) -> None:
        """Take the counts; the last cell of an axis, of those for whom the column is unknown, is left out."""
        first, second, third = (item.values[0] / _cap(item) for item in sums)
        sds = [item.sd / _cap(item) for item in sums]
        self.counts = Counts(first[:-1, :-1], second[:-1], third[:-1, :-1], (sds[0], sds[1], sds[2]))

    def expected(self, budgets: Mapping[int, float]) -> tuple[Expected, ...]:
        """Return the half width of a cell's noise, and that of the expected purchases of a usual shop of this size."""
        cap = split_caps(budgets[1], SHARES)[0]
        return (
            Expected(
                "customers in a cell of frequency by recency",
                float(self.setting.z * self.setting.sd / cap),
                "customers",
            ),
            Expected(
                f"{_ASKED}, for a usual shop",
                _percent(self.setting, self.grid, self.query.horizon, budgets[1]),
                "percent",
            ),
        )

    def answer(self) -> Answer:
        """Return the answer."""
        assert self.counts is not None
        return answer_of(self.query, self.grid, self.counts, self.setting)


def _cap(item: Sum) -> int:
    assert isinstance(item.measure, Cells)
    return item.measure.terms[0].cap


def _percent(setting: Setting, grid: Grid, horizon: float, budget: float) -> float:
    """Return the half width, in percent, of the total of expected purchases that the noise alone leaves."""
    caps = split_caps(budget, SHARES)
    fit = foreseen(grid, setting.customers, (setting.sd / caps[0], setting.sd / caps[1]))
    _, slope = total_slope(fit, grid, horizon)
    return 100.0 * setting.z * float(np.sqrt(slope @ fit.joint_noise @ slope))
