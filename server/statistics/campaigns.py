"""Whether a campaign worked: rates by arm, what they gain on the control, in whom, at what cost, and how well a score finds those."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from federation.answers import Answer, AnswerTable
from federation.contract import FeatureContract, FlagColumn, NumericColumn
from federation.measures import Cells, Centres, Factor, GroupsAxis, Term, column_of
from federation.queries import Campaign, Group
from server.statistics import uplift
from server.statistics.asking import Setting
from server.statistics.intervals import Population, Span, amount, difference
from server.statistics.tables import (
    POPULATION,
    Floats,
    Grouping,
    OneRound,
    Spread,
    answer_table,
    bounds_of,
    customers_in,
    grouping,
    grouping_problems,
    row,
    unit_of,
    value_problems,
)

_AMOUNT_SHARES = (1.0, 1.0, 0.25)  # count, values, squares: the last only for the population's part of an interval
_SHARE = "share of customers"
MOST_BANDS = 100
"""Score bands of a Qini curve: its noise is carried over from each count to each point."""
_BY_CHANCE = (
    "A difference between arms is an effect of the campaign only where chance decided who came into which arm. "
    "Each interval holds on its own: of many, some miss. No figure is given where the noise hides how many customers are behind it."
)


def check(query: Campaign, contract: FeatureContract) -> list[str]:
    """Return all problems of a campaign, in words."""
    found = _arm_problems(query, contract)
    found += [problem for name in query.outcomes for problem in _outcome_problems(name, contract)]
    amounts = [name for name in (query.spend, query.cost) if name is not None]
    found += [problem for name in amounts for problem in _amount_problems(name, contract)]
    parts = [Group(column=name) for name in (query.segment, query.chosen_by) if name is not None]
    if query.score is not None:
        parts.append(Group(column=query.score, cuts=query.score_cuts))
    for part in parts:
        found += grouping_problems((Group(column=query.arm), part), contract, 3)
    if query.score_cuts is not None and len(query.score_cuts) > MOST_BANDS - 1:
        found.append(f"a Qini curve of {len(query.score_cuts) + 1} score bands is too fine; at most {MOST_BANDS}")
    single = (query.arm, *query.outcomes, query.segment, query.chosen_by, query.score)
    names = [name for name in single if name is not None]
    found += [f"{name} has more than one part in the campaign" for name in sorted(set(names)) if names.count(name) > 1]
    return list(dict.fromkeys(found))


def _arm_problems(query: Campaign, contract: FeatureContract) -> list[str]:
    found = grouping_problems((Group(column=query.arm),), contract)
    if found:
        return found
    arms = grouping(Group(column=query.arm), contract).labels[:-1]
    if query.control not in arms:
        return [f"{query.arm} has no arm {query.control}; it has {', '.join(arms)}"]
    return [f"{query.arm} has no arm beside {query.control}"] if len(arms) < 2 else []


def _outcome_problems(name: str, contract: FeatureContract) -> list[str]:
    found = value_problems(name, contract)
    if not found and not isinstance(column_of(name, contract), FlagColumn):
        found.append(f"{name} is no yes or no: an outcome is a flag or the label")
    return found


def _amount_problems(name: str, contract: FeatureContract) -> list[str]:
    found = value_problems(name, contract)
    if not found and not isinstance(column_of(name, contract), NumericColumn):
        found.append(f"{name} is not numeric: spend and cost are amounts")
    return found


@dataclass(frozen=True)
class _Table:
    """One table that is asked for: counts of an outcome by arm and part, or an amount by arm."""

    column: str
    kind: Literal["arms", "segment", "chosen", "score", "amount"]
    part: Grouping | None = None


@dataclass(frozen=True, eq=False)
class _Outcome:
    """What is known of one outcome: the arms' counts float64 [arms, 2], their noise's variance, and the splits."""

    name: str
    arms: Floats
    variance: float
    splits: dict[str, tuple[uplift.Split, Grouping]]


class CampaignAsker(OneRound[Campaign]):
    """Asks for counts of each outcome by arm, and by arm and each part; and for sums of spend and cost by arm."""

    def __init__(self, query: Campaign, setting: Setting) -> None:
        super().__init__(query, setting)
        contract = setting.contract
        self._arms = grouping(Group(column=query.arm), contract)
        self._control = self._arms.labels.index(query.control)
        self._others = [place for place in range(self._arms.known) if place != self._control]
        parts: list[tuple[Literal["segment", "chosen", "score"], Group]] = []
        if query.segment is not None:
            parts.append(("segment", Group(column=query.segment)))
        if query.chosen_by is not None:
            parts.append(("chosen", Group(column=query.chosen_by)))
        if query.score is not None:
            parts.append(("score", Group(column=query.score, cuts=query.score_cuts)))
        self._plan: list[_Table] = []
        for name in query.outcomes:
            self._plan.append(_Table(name, "arms"))
            self._plan += [_Table(name, kind, grouping(part, contract)) for kind, part in parts]
        self._plan += [_Table(name, "amount") for name in (query.spend, query.cost) if name is not None]

    def _shares(self) -> tuple[float, ...]:
        return tuple(x for item in self._plan for x in (_AMOUNT_SHARES if item.kind == "amount" else (1.0,)))

    def _measures(self, caps: tuple[int, ...]) -> tuple[Cells | Centres, ...]:
        measures, place = [], 0
        for item in self._plan:
            terms = 3 if item.kind == "amount" else 1
            measures.append(self._cells(item, caps[place : place + terms]))
            place += terms
        return tuple(measures)

    def _cells(self, item: _Table, caps: Sequence[int]) -> Cells:
        where, arm = self.query.where, self._arms.axis
        if item.kind == "amount":
            low, high = bounds_of(item.column, self.setting.contract)
            factor = Factor(column=item.column, low=low, high=high)
            terms = tuple(Term(factors=(factor,) * many, cap=cap) for many, cap in enumerate(caps))
            return Cells(axes=(arm,), where=where, terms=terms)
        parts = () if item.part is None else (item.part.axis,)
        return Cells(axes=(arm, *parts, GroupsAxis(column=item.column)), where=where, terms=(Term(cap=caps[0]),))

    def _spreads(self) -> tuple[Spread, ...]:
        # The share R of yes among n has the noise sd^2 ((1 - R)^2 + R^2) / n^2 <= sd^2 / n^2; two arms have twice that.
        shares = self._shares()
        size = max(self.setting.customers, 1) / self._arms.known
        sd = self.setting.sd * float(np.sqrt(sum(shares)))
        found = [Spread("the gain of an arm, were all arms of like size", float(np.sqrt(2.0)) * sd / size, _SHARE)]
        for name, word in ((self.query.spend, "spend"), (self.query.cost, "cost")):
            if name is not None:
                low, high = bounds_of(name, self.setting.contract)
                unit = unit_of(name, self.setting.contract)
                found.append(
                    Spread(f"the mean {word} of an arm", (high - low) / 2.0 * float(np.sqrt(2.0)) * sd / size, unit)
                )
        return tuple(found)

    def answer(self) -> Answer:
        """Return rates, gains, what they cost, and Qini curves."""
        outcomes = [self._outcome(name) for name in self.query.outcomes]
        tables = [self._customers(outcomes[0]), self._conversion(outcomes)]
        tables += [self._gains(outcomes, "uplift", "share"), self._gains(outcomes, "uplift_noise", "none")]
        for kind in ("segment", "chosen"):
            if kind in outcomes[0].splits:
                tables.append(self._gains_by(outcomes, kind))
        if "chosen" in outcomes[0].splits:
            tables.append(self._chosen_difference(outcomes))
        tables += self._money(outcomes)
        if "score" in outcomes[0].splits:
            tables += self._curves(outcomes)
        return self._answer(f"Campaign: {self.query.arm} against {self.query.control}", tables, self._notes(outcomes))

    def _outcome(self, name: str) -> _Outcome:
        """Combine all tables of one outcome: unknown arms and unknown outcomes left out, unknown parts kept."""
        known, tables, deviations, chosen = self._arms.known, [], [], []
        for item, found in zip(self._plan, self._sums, strict=True):
            if item.column == name and item.kind != "amount":
                values, sd = customers_in(found)
                tables.append(values[:known, ..., :2].reshape(known, -1, 2))
                deviations.append(sd)
                chosen.append(item)
        arms, variance, splits = uplift.combine(tables, deviations)
        named: dict[str, tuple[uplift.Split, Grouping]] = {
            item.kind: (split, item.part) for item, split in zip(chosen, splits, strict=True) if item.part is not None
        }
        return _Outcome(name, arms, variance, named)

    def _customers(self, first: _Outcome) -> AnswerTable:
        sd = float(np.sqrt(2.0 * first.variance))
        spans = [amount(value, sd, self.setting.z) for value in first.arms.sum(axis=1).tolist()]
        rows = [row((label,), span) for label, span in zip(self._arms.labels[:-1], spans, strict=True)]
        title = f"Customers for whom {first.name} is known, by {self.query.arm}"
        return answer_table("customers", title, "customers", (self.query.arm,), rows)

    def _conversion(self, outcomes: Sequence[_Outcome]) -> AnswerTable:
        rows = [
            row((item.name, label), uplift.rate(item.arms[place], item.variance, self.setting.z, "share"))
            for item in outcomes
            for place, label in enumerate(self._arms.labels[:-1])
        ]
        return answer_table(
            "conversion", "Rate of each outcome (population)", _SHARE, ("outcome", self.query.arm), rows
        )

    def _gain(self, item: _Outcome, place: int, population: Population) -> Span:
        return uplift.gain(item.arms[place], item.arms[self._control], item.variance, self.setting.z, population)

    def _gains(self, outcomes: Sequence[_Outcome], name: str, population: Population) -> AnswerTable:
        rows = [
            row((item.name, self._arms.labels[place]), self._gain(item, place, population))
            for item in outcomes
            for place in self._others
        ]
        holds = "population" if population == "share" else "noise alone: among these customers"
        title = f"Rate less that of {self.query.control} ({holds})"
        return answer_table(name, title, _SHARE, ("outcome", self.query.arm), rows)

    def _gain_in(self, split: uplift.Split, arm: int, part: int) -> Span:
        counts = split.counts
        return uplift.gain(counts[arm, part], counts[self._control, part], split.variance, self.setting.z, "share")

    def _gains_by(self, outcomes: Sequence[_Outcome], kind: str) -> AnswerTable:
        rows = []
        for item in outcomes:
            split, part = item.splits[kind]
            for arm in self._others:
                for place, label in enumerate(part.labels):
                    rows.append(row((item.name, self._arms.labels[arm], label), self._gain_in(split, arm, place)))
        column = outcomes[0].splits[kind][1].column
        title = f"Rate less that of {self.query.control}, by {column} (population)"
        return answer_table(f"uplift_by_{kind}", title, _SHARE, ("outcome", self.query.arm, column), rows)

    def _chosen_difference(self, outcomes: Sequence[_Outcome]) -> AnswerTable:
        """Compare the gain in each group of `chosen_by` with that in the first."""
        rows = []
        for item in outcomes:
            split, part = item.splits["chosen"]
            for arm in self._others:
                first = self._gain_in(split, arm, 0)
                for place in range(1, part.known):
                    key = (item.name, self._arms.labels[arm], part.labels[place])
                    rows.append(row(key, difference(self._gain_in(split, arm, place), first)))
        part = outcomes[0].splits["chosen"][1]
        title = f"Gain where {part.column} is as named, less that where it is {part.labels[0]} (population)"
        key = ("outcome", self.query.arm, part.column)
        return answer_table("chosen_difference", title, _SHARE, key, rows)

    def _amounts(self, name: str) -> list[uplift.Amount]:
        place = next(i for i, item in enumerate(self._plan) if item.column == name and item.kind == "amount")
        parts = [customers_in(self._sums[place], term) for term in range(3)]
        low, high = bounds_of(name, self.setting.contract)
        middle, half = (low + high) / 2.0, (high - low) / 2.0
        variances = (parts[0][1] ** 2, parts[1][1] ** 2, parts[2][1] ** 2)
        return [
            uplift.Amount(
                float(parts[0][0][arm]), float(parts[1][0][arm]), float(parts[2][0][arm]), variances, middle, half
            )
            for arm in range(self._arms.known)
        ]

    def _money(self, outcomes: Sequence[_Outcome]) -> list[AnswerTable]:
        tables = []
        for name, word in ((self.query.spend, "spend"), (self.query.cost, "cost")):
            if name is not None:
                tables += self._means(name, word)
        if self.query.cost is not None:
            tables.append(self._cost_per_extra(outcomes, self._amounts(self.query.cost)))
        return tables

    def _means(self, name: str, word: str) -> list[AnswerTable]:
        amounts, z, arm = self._amounts(name), self.setting.z, self.query.arm
        unit = unit_of(name, self.setting.contract)
        tables = []
        for population, end, holds in (
            (True, "", "population"),
            (False, "_noise", "noise alone: among these customers"),
        ):
            spans = [item.mean(z, population) for item in amounts]
            rows = [row((label,), span) for label, span in zip(self._arms.labels[:-1], spans, strict=True)]
            gains = [
                row((self._arms.labels[place],), difference(spans[place], spans[self._control]))
                for place in self._others
            ]
            if population:
                tables.append(answer_table(word, f"Mean of {name} (population)", unit, (arm,), rows))
            title = f"Mean of {name} less that of {self.query.control} ({holds})"
            tables.append(answer_table(f"{word}_uplift{end}", title, unit, (arm,), gains))
        return tables

    def _cost_per_extra(self, outcomes: Sequence[_Outcome], costs: Sequence[uplift.Amount]) -> AnswerTable:
        assert self.query.cost is not None
        rows, control = [], self._control
        for item in outcomes:
            for arm in self._others:
                span = uplift.cost_per_extra(
                    (costs[arm], costs[control]), (item.arms[arm], item.arms[control]), item.variance, self.setting.z
                )
                rows.append(row((item.name, self._arms.labels[arm]), span))
        unit = f"{unit_of(self.query.cost, self.setting.contract)} for each extra success"
        title = f"Cost of each success more than {self.query.control} would have had (population)"
        return answer_table("cost_per_extra", title, unit, ("outcome", self.query.arm), rows)

    def _curves(self, outcomes: Sequence[_Outcome]) -> list[AnswerTable]:
        points, areas, coefficients = [], [], []
        for item in outcomes:
            split, part = item.splits["score"]
            bands = part.labels[-2::-1]
            if self.query.best == "low":
                split, bands = uplift.upside_down(split), part.labels[:-1]
            for arm in self._others:
                key = (item.name, self._arms.labels[arm])
                found = uplift.curve(split, arm, self._control, self.setting.z)
                points += [row((*key, band), span) for band, span in zip(bands, found.points, strict=True)]
                areas.append(row(key, found.area))
                coefficients.append(row(key, found.coefficient))
        column, names = outcomes[0].splits["score"][1].column, ("outcome", self.query.arm)
        unit = "extra successes per customer of the arm"
        return [
            answer_table(
                "qini",
                f"Qini curve, from the {'highest' if self.query.best == 'high' else 'lowest'} {column} to each band (population)",
                unit,
                (*names, column),
                points,
            ),
            answer_table("auuc", "Area under the Qini curve (population)", unit, names, areas),
            answer_table(
                "qini_coefficient",
                "Area between the Qini curve and the straight line to its end (population)",
                unit,
                names,
                coefficients,
            ),
        ]

    def _notes(self, outcomes: Sequence[_Outcome]) -> list[str]:
        notes = [POPULATION, _BY_CHANCE]
        gains = [self._gain(item, place, "share") for item in outcomes for place in self._others]
        few = sum(not span.beside_zero for span in gains)
        notes.append(f"{few} of {len(gains)} gains cannot be told from 0.")
        if self.query.cost is not None:
            notes.append("No cost of an extra success is given where the gain is not shown to be above 0.")
        if self.query.spend is not None or self.query.cost is not None:
            notes.append("Amounts are clipped to the contract's bounds.")
        return notes
