"""How many customers there are in each group."""

import numpy as np

from federation.answers import Answer, AnswerTable
from federation.contract import FeatureContract
from federation.measures import Cells, Centres, Term
from federation.queries import Count
from server.statistics import consistency
from server.statistics.asking import Setting
from server.statistics.intervals import Span, amount
from server.statistics.tables import (
    NOISE_ALONE,
    Floats,
    Grouping,
    OneRound,
    Spread,
    answer_table,
    customers_in,
    grouping_problems,
    groupings,
    hidden,
    keys,
    row,
)


def check(query: Count, contract: FeatureContract) -> list[str]:
    """Return all problems of a count, in words."""
    return grouping_problems(query.by, contract)


class CountAsker(OneRound[Count]):
    """Asks for one table of counts."""

    def __init__(self, query: Count, setting: Setting) -> None:
        super().__init__(query, setting)
        self._by = groupings(query.by, setting.contract)

    def _shares(self) -> tuple[float, ...]:
        return (1.0,)

    def _least(self) -> float:
        return 2.0

    def _measures(self, caps: tuple[int, ...]) -> tuple[Cells | Centres, ...]:
        axes = tuple(item.axis for item in self._by)
        return (Cells(axes=axes, where=self.query.where, terms=(Term(cap=caps[0]),)),)

    def _spreads(self) -> tuple[Spread, ...]:
        return (Spread("customers in each group" if self._by else "customers", self.setting.sd, "customers"),)

    def answer(self) -> Answer:
        """Return counts, margins of each grouping where there are several, and the total."""
        values, sd = customers_in(self._sums[0])
        tables, notes = count_tables(values, sd, self._by, self.setting.z)
        return self._answer("Customers", tables, [*notes, NOISE_ALONE])


def count_tables(values: Floats, sd: float, by: tuple[Grouping, ...], z: float) -> tuple[list[AnswerTable], list[str]]:
    """Return the tables `counts`, `by_<column>` where there are several groupings, and `total`, and a note on what can be told apart.

    Parameters
    ----------
    values, sd:
        Noisy counts [cells of each axis ...], and the standard deviation of the noise of each.
    """
    shown = consistency.counts(values)
    tables = [_margin("counts", values, shown, sd, by, tuple(range(len(by))), z)]
    if len(by) > 1:
        tables += [
            _margin(f"by_{item.column}"[:48], values, shown, sd, by, (place,), z) for place, item in enumerate(by)
        ]
    if by:
        tables.append(_margin("total", values, shown, sd, by, (), z))
    spans = [Span(line.value, line.low, line.high) for line in tables[0].rows]
    return tables, [hidden("the counts", spans, z * sd, "customers")]


def _margin(
    name: str, values: Floats, shown: Floats, sd: float, by: tuple[Grouping, ...], kept: tuple[int, ...], z: float
) -> AnswerTable:
    """Return the sums of a table over all groupings but those kept, each with the noise of the cells that it adds up."""
    others = tuple(place for place in range(len(by)) if place not in kept)
    noisy, made = np.sum(values, axis=others), np.sum(shown, axis=others)
    wide = sd * float(np.sqrt(values.size / max(np.size(noisy), 1)))
    labels = [by[place].labels for place in kept]
    names = [by[place].column for place in kept]
    spans = [amount(a, wide, z, b) for a, b in zip(np.ravel(noisy).tolist(), np.ravel(made).tolist(), strict=True)]
    title = f"Customers by {' and '.join(names)}" if names else "Customers"
    rows = [row(key, span) for key, span in zip(keys(labels), spans, strict=True)]
    return answer_table(name, title, "customers", names, rows)
