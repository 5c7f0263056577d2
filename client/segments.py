"""Where an institution's own customers stand by a delivered report: scores, segment, life-cycle stage. It never leaves.

The report's answers of kind `rfm` and `lifecycle` hold thresholds and rules; nothing else of the study is needed. Customers are placed by
the thresholds as they were released, so own customers and the federation's are counted alike.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from client.cohort import Cohort
from client.statistics.measuring import cell_of
from client.statistics.people import People
from federation.answers import Answer, StatisticsReport
from federation.contract import FeatureContract, NumericColumn
from federation.measures import Rule, RulesAxis
from federation.segments import (
    OTHER,
    RULES,
    THRESHOLDS,
    Scores,
    check_fit,
    names_of,
    place_of,
    rules_from,
    score,
    thresholds_from,
)

NOWHERE = ""
KINDS = ("rfm", "lifecycle")
Beside = tuple[float | None, float | None, float | None]


@dataclass(frozen=True, eq=False)
class Placed:
    """Customers in the cohort's order.

    `ids`, `segment` and `stage` are texts [n], the last two empty where no report has such an answer; `r`, `f`, `m` int64 [n] from 1 to 5,
    0 unknown; `worth` float64 [n] is the monetary column within the contract's bounds, NaN unknown.
    """

    ids: NDArray[np.object_]
    r: Scores
    f: Scores
    m: Scores
    segment: NDArray[np.object_]
    stage: NDArray[np.object_]
    worth: NDArray[np.float64]

    def __len__(self) -> int:
        """Return the number of customers."""
        return len(self.ids)

    def take(self, chosen: NDArray[np.bool_]) -> "Placed":
        """Return the customers of a boolean array [n]."""
        scores = (self.r[chosen], self.f[chosen], self.m[chosen])
        return Placed(self.ids[chosen], *scores, self.segment[chosen], self.stage[chosen], self.worth[chosen])


@dataclass(frozen=True)
class Group:
    """The own customers of one segment or stage beside the federation's.

    `share` is of all own customers; `worth` is the mean of theirs, None where nobody's is known, and `total` the sum. `elsewhere` is the
    federation's share with the interval `low` to `high`, own customers among it; None where the report does not say.
    """

    name: str
    customers: int
    share: float
    worth: float | None
    total: float
    elsewhere: float | None
    low: float | None
    high: float | None


def answer_of(kind: str, reports: Iterable[StatisticsReport]) -> Answer | None:
    """Return the first answer of a kind in the reports, in their order."""
    return next((answer for report in reports for answer in report.answers if answer.kind == kind), None)


def place(cohort: Cohort, contract: FeatureContract, *reports: StatisticsReport) -> Placed:
    """Score every customer and say her segment, and her stage now.

    Parameters
    ----------
    cohort:
        The institution's customers with their newest features (`want="score"`).
    reports:
        The first answers of kind `rfm` and `lifecycle` in them count; without one of a kind, nobody is placed in that way.

    Raises
    ------
    DocumentError
        CSL-F430 to F432 when an answer holds no rules or thresholds, or they do not fit the contract.
    """
    people = People.of(contract, {"start": cohort})
    nobody = np.zeros(len(cohort), dtype=np.int64)
    r = f = m = nobody
    segment = stage = np.full(len(cohort), NOWHERE, dtype=object)
    worth = np.full(len(cohort), np.nan)
    rfm, lifecycle = (answer_of(kind, reports) for kind in KINDS)
    if rfm is not None:
        thresholds, rules = thresholds_from(rfm.table(THRESHOLDS)), rules_from(rfm.table(RULES))
        check_fit(contract, columns=thresholds.columns)
        values = [people.number(name, "start") for name in thresholds.columns]
        r, f, m = (
            score(values[0], thresholds.cuts[0], "r"),
            score(values[1], thresholds.cuts[1], "f"),
            score(values[2], thresholds.cuts[2], "m"),
        )
        segment = np.array(names_of(rules), dtype=object)[place_of(rules, r, f, m)]
        worth = _bounded(values[2], thresholds.columns[2], contract)
    if lifecycle is not None:
        rules = rules_from(lifecycle.table(RULES))
        check_fit(contract, rules=rules)
        stage = np.array([*(rule.name for rule in rules), OTHER], dtype=object)[_first_of(rules, people, contract)]
    return Placed(cohort.ids, r, f, m, segment, stage, worth)


def segments(placed: Placed, *reports: StatisticsReport) -> list[Group]:
    """Return the own customers of each segment beside the federation's share, in the rules' order; empty without such an answer."""
    answer = answer_of("rfm", reports)
    if answer is None:
        return []
    rows = answer.table("shares").rows
    return _groups(placed, placed.segment, {row.key[0]: (row.value, row.low, row.high) for row in rows})


def stages(placed: Placed, *reports: StatisticsReport) -> list[Group]:
    """Return the own customers of each stage beside the federation's share at the end of the horizon; empty without such an answer."""
    answer = answer_of("lifecycle", reports)
    if answer is None:
        return []
    rows = [row for row in answer.table("shares").rows if row.key[1] == "end"]
    return _groups(placed, placed.stage, {row.key[0]: (row.value, row.low, row.high) for row in rows})


def _groups(placed: Placed, names: NDArray[np.object_], shares: Mapping[str, Beside]) -> list[Group]:
    found = []
    listed = [*shares, *sorted({str(name) for name in names} - set(shares))]
    for name in listed:
        mine = names == name
        worth = placed.worth[mine]
        known = worth[~np.isnan(worth)]
        count = int(np.count_nonzero(mine))
        found.append(
            Group(
                name,
                count,
                count / max(len(placed), 1),
                float(known.mean()) if len(known) else None,
                float(known.sum()),
                *shares.get(name, (None, None, None)),
            )
        )
    return found


def _bounded(values: NDArray[np.float64], name: str, contract: FeatureContract) -> NDArray[np.float64]:
    column = contract.column(name)
    assert isinstance(column, NumericColumn)
    return np.clip(values, column.low, column.high)


def _first_of(rules: Sequence[Rule], people: People, contract: FeatureContract) -> NDArray[np.int64]:
    """Return the first rule that each customer fulfils now, whatever time it was asked for, int64 [n]; their number where none does."""
    now = tuple(
        Rule(name=rule.name, where=tuple(item.model_copy(update={"at": "start"}) for item in rule.where))
        for rule in rules
    )
    return cell_of(RulesAxis(rules=now), people, contract)
