"""RFM: thresholds over the federation, scores, and named segments with their sizes and worth.

Round 1 counts each of the three columns in public cells; its quantiles are the thresholds (`server.statistics.thresholds`). Round 2 counts
the segments that rules over the scores make, adds up the monetary value in each, and counts each score. Segments and scores are counted by
the thresholds as they were released, so that every institution places its own customers in exactly the segments that were counted.
Intervals hold the noise alone.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from federation.answers import Answer, AnswerTable, Row
from federation.contract import FeatureContract, NumericColumn
from federation.errors import FederationError
from federation.measures import (
    LARGEST_CAP,
    BinsAxis,
    Cells,
    Centres,
    Condition,
    Factor,
    Rule,
    RulesAxis,
    Term,
    column_of,
    problems_of,
)
from federation.queries import Rfm
from federation.segments import (
    BEST,
    LEVELS,
    OTHER,
    SCORES,
    TRADE,
    UNSCORED,
    Thresholds,
    left_over,
    on_columns,
    problems_of_segments,
    rules_table,
    thresholds_table,
)
from server.statistics import consistency
from server.statistics.asking import Expected, Setting, Sum, split_caps
from server.statistics.consistency import Floats
from server.statistics.histograms import shares_of
from server.statistics.intervals import Ratio, Span, amount, around
from server.statistics.tables import answer_table, hidden, row
from server.statistics.thresholds import Cut, cells_for, find, public_cuts, rank_sd

ROUNDS = 2
_ALL = "all"
_FIRST = (1.0, 1.0, 1.0)
_SECOND = (4.0, 3.0, 1.0, 1.0, 1.0)  # segments, their worth, and each score
_WORST = 0.2  # of all customers: thresholds off by more than a whole score say nothing


def check(query: Rfm, contract: FeatureContract) -> list[str]:
    """Return what keeps a query from being asked of a contract, in words; empty when nothing does."""
    found = problems_of([Cells(where=query.where, terms=(Term(cap=1),))], contract)
    names = _names(query)
    if len(set(names)) < len(names):
        found.append("recency, frequency and monetary are three columns, and each stands once")
    for name in names:
        try:
            numeric = isinstance(column_of(name, contract), NumericColumn)
        except ValueError as error:
            found.append(str(error))
            continue
        if not numeric:
            found.append(f"{name} is not numeric: it cannot be cut into scores")
    return [*dict.fromkeys(found), *problems_of_segments(query.segments)]


class RfmAsker:
    """Asks for one `federation.queries.Rfm`."""

    def __init__(self, query: Rfm, setting: Setting) -> None:
        self._query, self._setting = query, setting
        self._rules = query.segments or TRADE
        self._columns = [_numeric(name, setting.contract) for name in _names(query)]
        self._cuts: list[Cut] = []
        self._taken: tuple[str, ...] = ()
        self._second: tuple[Sum, ...] = ()

    @property
    def rounds(self) -> int:
        """Two: thresholds, then what lies between them."""
        return ROUNDS

    def weight(self, number: int) -> float:
        """Return the query's own weight."""
        return self._query.weight

    def needed(self, number: int) -> float | None:
        """Return the least sensitivity at which `accuracy.within` customers bound a threshold's rank (round 1) or a segment (round 2)."""
        accuracy = self._query.accuracy
        if accuracy is None:
            return None
        z = replace(self._setting, confidence=accuracy.confidence).z
        return self._least(number, z, accuracy.within)

    def ask(self, number: int, budget: float) -> tuple[Cells | Centres, ...]:
        """Return the histograms of round 1, or the segments and scores of round 2.

        Raises
        ------
        FederationError
            CSL-S730 when thresholds or segments could be off by more than a fifth of all customers.
        """
        least = self._least(number, self._setting.z, _WORST * self._setting.customers)
        if budget < least:
            raise FederationError(
                "CSL-S730",
                f"The query {self._query.id} has a budget of {budget:.4g} grid units in round {number}, by which segments could be "
                f"off by more than a fifth of all customers; it needs {least:.4g}.",
                "Give it more weight, ask fewer queries, or ask the members for a larger epsilon.",
            )
        if number == 1:
            return self._histograms(_caps(budget, _FIRST))
        return self._segments(_caps(budget, _SECOND))

    def told(self, number: int, sums: Sequence[Sum]) -> None:
        """Take a round's sums; after the first the thresholds are known."""
        if number == ROUNDS:
            self._second = tuple(sums)
            axis = _cells_of(sums[0]).axes[0]
            assert isinstance(axis, RulesAxis)
            self._taken = tuple(rule.name for rule in axis.rules)
            return
        self._cuts = []
        for column, item in zip(self._columns, sums, strict=True):
            counts, sd = _customers(item)
            self._cuts.append(find(column, _bins(item).cuts, counts[:-1], sd, self._setting.z))

    def expected(self, budgets: Mapping[int, float]) -> tuple[Expected, ...]:
        """Say how far noise moves a threshold's rank, a segment's size and a segment's mean worth."""
        z, customers = self._setting.z, self._setting.customers
        rank = 100.0 * z * self._rank(budgets[1]) / customers
        counts, worth, *_ = self._spread(2, budgets[2])
        money = self._columns[-1]
        half = (money.high - money.low) / 2.0
        return (
            Expected("rank of a threshold", rank, "percentile points"),
            Expected("customers in a segment", z * counts, "customers"),
            Expected(
                f"mean {money.name} in a segment of a tenth of all", z * half * worth / (0.1 * customers), money.unit
            ),
        )

    def answer(self) -> Answer:
        """Return thresholds, the share below each, segments with sizes, shares and worth, scores, and the rules."""
        names, counts, sd = self._counted()
        shown = consistency.counts(counts)
        spans = [
            amount(float(raw), sd, self._setting.z, float(value)) for raw, value in zip(counts, shown, strict=True)
        ]
        sizes = self._by_segment(dict(zip(names, spans, strict=True)))
        shares = self._by_segment(dict(zip(names, shares_of(counts, sd, self._setting.z), strict=True)))
        lows, highs = [cut.low for cut in self._cuts], [cut.high for cut in self._cuts]
        title = "Thresholds between scores, from the value upwards, with where noise leaves them"
        tables = (
            thresholds_table(self._thresholds, lows, highs, title),
            answer_table("segments", "Customers in each segment", "customers", ("segment",), sizes),
            answer_table("shares", "Share of all customers in each segment", "share", ("segment",), shares),
            self._worth(names, counts, sd),
            *self._scores(),
            rules_table(self._rules, "Rules of the segments over the scores, in order: the first that fits decides"),
        )
        return Answer(
            id=self._query.id,
            kind="rfm",
            title=self._query.title or "Recency, frequency and monetary value: scores and segments",
            tables=tables,
            notes=tuple(self._notes(spans, sd)),
        )

    def _histograms(self, caps: Sequence[int]) -> tuple[Cells, ...]:
        return tuple(
            Cells(
                axes=(BinsAxis(column=column.name, cuts=self._cells(column, cap)),),
                where=self._query.where,
                terms=(Term(cap=cap),),
            )
            for column, cap in zip(self._columns, caps, strict=True)
        )

    def _cells(self, column: NumericColumn, cap: int) -> tuple[float, ...]:
        return public_cuts(column, cells_for(self._setting.customers, self._setting.sd / cap))

    def _segments(self, caps: Sequence[int]) -> tuple[Cells, ...]:
        rules = [found for rule in self._rules if (found := on_columns(rule, self._thresholds)) is not None]
        if left_over(self._rules):
            known = tuple(Condition(column=column.name, ge=-1e300) for column in self._columns)
            rules.append(Rule(name=OTHER, where=known))
        axis, money, where = RulesAxis(rules=tuple(rules)), self._columns[-1], self._query.where
        worth = Factor(column=money.name, low=money.low, high=money.high)
        return (
            Cells(axes=(axis,), where=where, terms=(Term(cap=caps[0]),)),
            Cells(axes=(axis,), where=where, terms=(Term(factors=(worth,), cap=caps[1]),)),
            *(
                Cells(
                    axes=(BinsAxis(column=column.name, cuts=tuple(sorted(set(cut.at)))),),
                    where=where,
                    terms=(Term(cap=cap),),
                )
                for column, cut, cap in zip(self._columns, self._cuts, caps[2:], strict=True)
            ),
        )

    @property
    def _thresholds(self) -> Thresholds:
        r, f, m = (column.name for column in self._columns)
        first, second, third = (cut.at for cut in self._cuts)
        return Thresholds((r, f, m), (first, second, third))

    def _counted(self) -> tuple[tuple[str, ...], Floats, float]:
        """Return the names of the cells that were counted, noisy customers in each, and the noise's standard deviation."""
        counts, sd = _customers(self._second[0])
        return (*self._taken, UNSCORED), counts, sd

    def _by_segment(self, spans: Mapping[str, Span]) -> list[Row]:
        """Return a row for each segment, also those that no customer can be in with these thresholds."""
        names = [*(rule.name for rule in self._rules), *([OTHER] if OTHER in self._taken else []), UNSCORED]
        return [row((name,), spans.get(name, Span(0.0, 0.0, 0.0))) for name in names]

    def _worth(self, names: Sequence[str], counts: Floats, sd: float) -> AnswerTable:
        """Return the mean and the total of the monetary column in each segment, and in all of them."""
        worth, worth_sd = _customers(self._second[1])
        rows: list[Row] = []
        for name, centred, size in zip(names[:-1], worth.tolist(), counts.tolist(), strict=False):
            rows += self._worth_of(name, centred, size, worth_sd, sd)
        many = math.sqrt(len(names) - 1)
        rows += self._worth_of(_ALL, float(worth[:-1].sum()), float(counts[:-1].sum()), worth_sd * many, sd * many)
        money = self._columns[-1]
        title = f"{money.name} in each segment: its mean over the customers, and its sum"
        return answer_table("value", title, money.unit, ("segment", "figure"), rows)

    def _worth_of(self, name: str, centred: float, size: float, worth_sd: float, size_sd: float) -> list[Row]:
        money, z = self._columns[-1], self._setting.z
        half, middle = (money.high - money.low) / 2.0, (money.high + money.low) / 2.0
        mean = Ratio(centred, size, worth_sd**2, 0.0, size_sd**2).span(z).times(half, middle)
        total = around(half * centred + middle * size, math.hypot(half * worth_sd, middle * size_sd), z)
        least = 0.0 if money.low >= 0.0 else -math.inf
        return [
            row((name, "mean"), mean.clipped(money.low, money.high)),
            row((name, "total"), total.clipped(low=least)),
        ]

    def _scores(self) -> tuple[AnswerTable, AnswerTable]:
        """Return how customers are spread over each score, and the share below each threshold."""
        spread: list[Row] = []
        below: list[Row] = []
        for place, (name, item) in enumerate(zip(SCORES, self._second[2:], strict=True)):
            counts, sd = _customers(item)
            known, at = counts[:-1], self._cuts[place].at
            places = np.searchsorted(np.asarray(_bins(item).cuts), np.asarray(at), side="right")
            shares = dict(zip(_scored(name, at), shares_of(known, sd, self._setting.z), strict=True))
            spread += [row((name, str(score)), shares.get(score, Span(0.0, 0.0, 0.0))) for score in range(1, BEST + 1)]
            for level, count in zip(LEVELS, places.tolist(), strict=True):
                part, rest = float(known[:count].sum()), float(known[count:].sum())
                ratio = Ratio.of_part(part, rest, count * sd**2, (len(known) - count) * sd**2)
                below.append(row((name, f"{level:g}"), ratio.span(self._setting.z).clipped(0.0, 1.0)))
        scores = answer_table(
            "scores", "Share of customers with each score, of those who have it", "share", ("score", "points"), spread
        )
        ranks = answer_table("ranks", "Share of customers below each threshold", "share", ("score", "level"), below)
        return scores, ranks

    def _notes(self, spans: Sequence[Span], sd: float) -> list[str]:
        z = self._setting.z
        notes = [
            "Intervals hold the noise alone, not who happened to become a customer. Those of thresholds hold at least at the confidence.",
            "Customers with equal values have equal scores, so a score may hold more or fewer than a fifth: the table ranks says how "
            "many lie below each threshold. Segments are counted by the thresholds as they stand here.",
            hidden("a segment's size", spans, z * sd, "customers"),
        ]
        lost = [rule.name for rule in self._rules if rule.name not in self._taken]
        if lost:
            notes.append(f"With these thresholds no customer can be in {', '.join(lost)}.")
        rest = left_over(self._rules)
        if rest:
            some = ", ".join(f"{r}{f}{m}" for r, f, m in rest[:10])
            notes.append(f"{OTHER} are {len(rest)} of 125 combinations of scores, which no rule takes: {some}.")
        return notes

    def _rank(self, budget: float) -> float:
        """Return the standard deviation of a threshold's rank in customers."""
        sd = self._spread(1, budget)[0]
        return rank_sd(cells_for(self._setting.customers, sd), sd)

    def _spread(self, number: int, budget: float) -> list[float]:
        """Return the noise's standard deviation in each measure of a round, in customers."""
        shares = _FIRST if number == 1 else _SECOND
        return [self._setting.sd / max(1.0, budget * math.sqrt(share / sum(shares)) - 1.0) for share in shares]

    def _least(self, number: int, z: float, within: float) -> float:
        """Return the least whole budget at which noise of z standard deviations stays within so many customers."""
        shares = _FIRST if number == 1 else _SECOND
        high = math.ceil(2.0 * math.sqrt(sum(shares) / min(shares)))  # two grid units for the smallest cap
        if z * self._off(number, high) <= within:
            return float(high)
        while z * self._off(number, high) > within:
            high *= 2
        low = high // 2
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if z * self._off(number, middle) <= within else (middle, high)
        return float(high)

    def _off(self, number: int, budget: float) -> float:
        return self._rank(budget) if number == 1 else self._spread(2, budget)[0]


def _names(query: Rfm) -> tuple[str, str, str]:
    return query.recency, query.frequency, query.monetary


def _numeric(name: str, contract: FeatureContract) -> NumericColumn:
    column = column_of(name, contract)
    assert isinstance(column, NumericColumn), f"{name} is not numeric; check() says so"
    return column


def _caps(budget: float, shares: Sequence[float]) -> tuple[int, ...]:
    return split_caps(min(budget, float(LARGEST_CAP)), shares)


def _customers(item: Sum) -> tuple[Floats, float]:
    cap = _cells_of(item).terms[0].cap
    return np.asarray(item.values[0] / cap, dtype=np.float64), item.sd / cap


def _cells_of(item: Sum) -> Cells:
    assert isinstance(item.measure, Cells)
    return item.measure


def _bins(item: Sum) -> BinsAxis:
    (axis,) = _cells_of(item).axes
    assert isinstance(axis, BinsAxis)
    return axis


def _scored(name: str, cuts: Sequence[float]) -> list[int]:
    """Return the scores of the cells between the distinct thresholds, from the smallest value up."""
    places = [0, *(sum(cut <= point for cut in cuts) for point in sorted(set(cuts)))]
    return [BEST - place if name == "r" else 1 + place for place in places]
