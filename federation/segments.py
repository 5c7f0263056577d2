"""RFM scores and named segments: shared by the coordinator, who counts them, and the institutions, who place their own customers.

A score goes from 1 to 5, 5 the best. Four thresholds cut a column, and each belongs to the cell above it, as on `measures.BinsAxis`: the
column's place is the number of thresholds at or below the value. Frequency and monetary value score 1 + place, recency 5 - place, since a
short time since the last purchase is the good one. Customers with the same value always have the same score. Where two thresholds are
equal, nobody has the score between them.

Rules over the scores r, f, m stand in order, and the first that fits decides. Who fits none is `other`; who lacks one of the three values
is `unscored`.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Annotated, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from federation.answers import AnswerTable, Row
from federation.contract import FeatureContract, Name, Text
from federation.document import Document
from federation.errors import DocumentError
from federation.measures import Axis, BinsAxis, Cells, Condition, Rule, RulesAxis, Term, problems_of

BEST = 5
SCORES = ("r", "f", "m")
LEVELS = (0.2, 0.4, 0.6, 0.8)
OTHER = "other"
UNSCORED = "unscored"
RULES = "rules"
THRESHOLDS = "thresholds"
_KNOWN = -1e300  # what every known value is at least
_KEY = ("name", "column", "kind", "group")
_NAME = re.compile(r"[a-z][a-z0-9_]{0,47}", re.ASCII)  # as a strategy map can name it
_PLACE = ("score", "column", "level")

Combination = tuple[int, int, int]
Scores = NDArray[np.int64]
Four = tuple[float, float, float, float]


@dataclass(frozen=True)
class Thresholds:
    """The contract columns for r, f and m, and their four thresholds each, not falling, in the column's own unit."""

    columns: tuple[str, str, str]
    cuts: tuple[Four, Four, Four]

    def conditions(self, place: int, low: int, high: int) -> list[Condition] | None:
        """Return which values of the column at `place` (0 to 2) score from `low` to `high`; None where no value does."""
        cuts, column = self.cuts[place], self.columns[place]
        if place == 0:
            least = None if high >= BEST else cuts[BEST - 1 - high]
            below = None if low <= 1 else cuts[BEST - low]
        else:
            least = None if low <= 1 else cuts[low - 2]
            below = None if high >= BEST else cuts[high - 1]
        if least is None and below is None:
            return [Condition(column=column, ge=_KNOWN)]
        if least is not None and below is not None and least >= below:
            return None
        return [Condition(column=column, ge=least, lt=below)]


class SegmentRules(Document):
    """A file of segments over the scores r, f, m; `segments` is written into a query of kind `rfm` as it is."""

    title: Text
    segments: Annotated[tuple[Rule, ...], Field(min_length=1, max_length=40)]

    @model_validator(mode="after")
    def _sound(self) -> Self:
        _refuse(problems_of_segments(self.segments))
        return self


class StageRules(Document):
    """A file of life-cycle stages over a contract's columns; `stages` is written into a query of kind `lifecycle` as it is."""

    title: Text
    contract: Name
    stages: Annotated[tuple[Rule, ...], Field(min_length=1, max_length=20)]

    @model_validator(mode="after")
    def _sound(self) -> Self:
        _refuse(problems_of_stages(self.stages))
        return self


def score(values: NDArray[np.float64], cuts: Sequence[float], which: Literal["r", "f", "m"]) -> Scores:
    """Return the scores of a column's values [n], NaN unknown: int64 [n] from 1 to 5, 0 where the value is not known."""
    places = np.searchsorted(np.asarray(cuts, dtype=np.float64), values, side="right")
    found = BEST - places if which == "r" else 1 + places
    return np.where(np.isnan(values), 0, found).astype(np.int64)


def place_of(rules: Sequence[Rule], r: Scores, f: Scores, m: Scores) -> Scores:
    """Return each customer's segment as `names_of(rules)` numbers them, from her scores int64 [n] (0 unknown)."""
    table = np.full((BEST + 1,) * 3, len(rules) + 1, dtype=np.int64)
    table[1:, 1:, 1:] = len(rules)
    for place in range(len(rules) - 1, -1, -1):
        spans = spans_of(rules[place])
        if all(low <= high for low, high in spans):
            table[tuple(slice(low, high + 1) for low, high in spans)] = place
    return np.asarray(table[r, f, m])


def names_of(rules: Sequence[Rule]) -> tuple[str, ...]:
    """Return the segments' names, in the rules' order, with `other` and `unscored` at the end."""
    return (*(rule.name for rule in rules), OTHER, UNSCORED)


def spans_of(rule: Rule) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int]]:
    """Return the lowest and highest r, f and m that fulfil a rule; low above high where none does.

    Raises
    ------
    ValueError
        When a condition is not of scores.
    """
    spans = {name: (1, BEST) for name in SCORES}
    for condition in rule.where:
        if condition.column not in spans:
            raise ValueError(f"{rule.name}: {condition.column} is no score; there are {', '.join(SCORES)}")
        if condition.missing or condition.any_of is not None or condition.at != "start":
            raise ValueError(f"{rule.name}: a score has bounds alone: give ge and/or lt, from 1 to {BEST}")
        low, high = spans[condition.column]
        least = 1.0 if condition.ge is None else max(1.0, condition.ge)
        below = BEST + 1.0 if condition.lt is None else min(BEST + 1.0, condition.lt)
        spans[condition.column] = max(low, math.ceil(least)), min(high, math.ceil(below) - 1)
    return spans["r"], spans["f"], spans["m"]


def problems_of_segments(rules: Sequence[Rule]) -> list[str]:
    """Return what is wrong with rules over scores, in words: no score, bounds that no score has, a rule that others leave nobody."""
    found = _names(rules, (OTHER, UNSCORED))
    taken: set[tuple[int, ...]] = set()
    for rule in rules:
        try:
            mine = set(product(*(range(low, high + 1) for low, high in spans_of(rule))))
        except ValueError as error:
            found.append(str(error))
            continue
        if not mine:
            found.append(f"{rule.name}: no score fulfils its conditions")
        elif mine <= taken:
            found.append(f"{rule.name}: the rules before it take all whom it would take")
        taken |= mine
    return found


def left_over(rules: Sequence[Rule]) -> tuple[Combination, ...]:
    """Return the combinations (r, f, m) that no rule takes: they are `other`. Rules as `problems_of_segments` passes them."""
    r, f, m = (axis.ravel() for axis in np.meshgrid(*[np.arange(1, BEST + 1)] * 3, indexing="ij"))
    places = place_of(rules, r, f, m)
    return tuple((int(a), int(b), int(c)) for a, b, c in np.stack([r, f, m], axis=1)[places == len(rules)])


def problems_of_stages(rules: Sequence[Rule]) -> list[str]:
    """Return what is wrong with stage rules whatever the contract: a name twice, a time of its own, nobody left for a rule."""
    found = _names(rules, (OTHER,))
    for place, rule in enumerate(rules):
        if any(condition.at != "start" for condition in rule.where):
            found.append(f"{rule.name}: stages are looked at at both times; leave `at` out")
        chosen = [condition.column for condition in rule.where if condition.any_of is not None]
        if len(set(chosen)) < len(chosen):
            found.append(f"{rule.name}: name the groups of a column in one any_of")
        if not rule.where and place < len(rules) - 1:
            found.append(f"{rule.name}: it takes everybody, so the rules after it take nobody")
    return found


def on_columns(rule: Rule, thresholds: Thresholds) -> Rule | None:
    """Return a rule on scores as one on the contract's columns, all three of them known; None where no value fulfils it."""
    where: list[Condition] = []
    for place, (low, high) in enumerate(spans_of(rule)):
        part = thresholds.conditions(place, low, high) if low <= high else None
        if part is None:
            return None
        where += part
    return Rule(name=rule.name, where=tuple(where))


def rules_table(rules: Sequence[Rule], title: str) -> AnswerTable:
    """Return rules as a table of an answer, one row a condition, from which `rules_from` reads them again at an institution.

    A row's `low` is reached, its `high` is not; its value says nothing.
    """
    rows: list[Row] = []
    for rule in rules:
        if not rule.where:
            rows.append(Row(key=(rule.name, "", "all", ""), value=None))
        for item in rule.where:
            if item.any_of is not None:
                rows += [Row(key=(rule.name, item.column, "group", name), value=None) for name in item.any_of]
            elif item.missing:
                rows.append(Row(key=(rule.name, item.column, "unknown", ""), value=None))
            else:
                rows.append(Row(key=(rule.name, item.column, "range", ""), value=None, low=item.ge, high=item.lt))
    return AnswerTable(name=RULES, title=title, unit="in the column's own unit", key=_KEY, rows=tuple(rows))


def rules_from(table: AnswerTable) -> tuple[Rule, ...]:
    """Read the rules that `rules_table` wrote.

    Raises
    ------
    DocumentError
        CSL-F430 when the table holds no rules.
    """
    where: dict[str, list[Condition]] = {}
    groups: dict[tuple[str, str], list[str]] = {}
    try:
        for row in table.rows:
            name, column, kind, group = row.key
            mine = where.setdefault(name, [])
            if kind == "group":
                listed = groups.setdefault((name, column), [])
                listed.append(group)
                mine[:] = [item for item in mine if item.any_of is None or item.column != column]
                mine.append(Condition(column=column, any_of=tuple(listed)))
            elif kind == "unknown":
                mine.append(Condition(column=column, missing=True))
            elif kind == "range":
                mine.append(Condition(column=column, ge=row.low, lt=row.high))
            elif kind != "all":
                raise ValueError(f"{kind} is no kind of condition")
        return tuple(Rule(name=name, where=tuple(conditions)) for name, conditions in where.items())
    except ValueError as error:
        raise DocumentError(
            "CSL-F430", f"The table {table.name} holds no rules: {error}.", "Ask the coordinator for the report again."
        ) from error


def thresholds_table(thresholds: Thresholds, low: Sequence[Four], high: Sequence[Four], title: str) -> AnswerTable:
    """Return thresholds with their intervals, in the columns' own units, from which `thresholds_from` reads them at an institution."""
    rows = [
        Row(key=(name, column, f"{level:g}"), value=cuts[place], low=lows[place], high=highs[place])
        for name, column, cuts, lows, highs in zip(SCORES, thresholds.columns, thresholds.cuts, low, high, strict=True)
        for place, level in enumerate(LEVELS)
    ]
    return AnswerTable(name=THRESHOLDS, title=title, unit="in the column's own unit", key=_PLACE, rows=tuple(rows))


def thresholds_from(table: AnswerTable) -> Thresholds:
    """Read the thresholds that `thresholds_table` wrote.

    Raises
    ------
    DocumentError
        CSL-F431 when the table does not hold four rising thresholds of one column for each score.
    """
    found: dict[str, list[float]] = {name: [] for name in SCORES}
    columns: dict[str, str] = {}
    for row in table.rows:
        if len(row.key) == len(_PLACE) and row.key[0] in found and row.value is not None:
            found[row.key[0]].append(row.value)
            columns.setdefault(row.key[0], row.key[1])
    cuts = [found[name] for name in SCORES]
    if any(len(four) != len(LEVELS) or four != sorted(four) for four in cuts) or len(table.rows) != 3 * len(LEVELS):
        raise DocumentError(
            "CSL-F431",
            f"The table {table.name} does not hold four rising thresholds for each of r, f and m.",
            "Ask the coordinator for the report again.",
        )
    r, f, m = ((four[0], four[1], four[2], four[3]) for four in cuts)
    return Thresholds((columns["r"], columns["f"], columns["m"]), (r, f, m))


def check_fit(contract: FeatureContract, columns: Sequence[str] = (), rules: Sequence[Rule] = ()) -> None:
    """Check that a contract has the numeric columns of thresholds, and what rules on columns ask for.

    Raises
    ------
    DocumentError
        CSL-F432 with everything that does not fit.
    """
    axes: list[Axis] = [BinsAxis(column=name, cuts=(0.0,)) for name in columns]
    axes += [RulesAxis(rules=(rule,)) for rule in rules]
    found = [problem for axis in axes for problem in problems_of([Cells(axes=(axis,), terms=(Term(cap=1),))], contract)]
    if found:
        raise DocumentError(
            "CSL-F432",
            f"The report is of another version of the contract {contract.name}: {'; '.join(dict.fromkeys(found))}.",
            "Ask the coordinator for a new study on the contract in force.",
        )


def _refuse(problems: Sequence[str]) -> None:
    if problems:
        raise ValueError("; ".join(problems))


def _names(rules: Sequence[Rule], reserved: Sequence[str]) -> list[str]:
    """Return what is wrong with rules' names."""
    names = [rule.name for rule in rules]
    found = [f"{name}: the name stands twice" for name in dict.fromkeys(names) if names.count(name) > 1]
    found += [
        f"{name}: a name has small letters, digits and underscores, and begins with a letter"
        for name in names
        if _NAME.fullmatch(name) is None
    ]
    return found + [f"{name}: the name is kept for those whom no rule takes" for name in reserved if name in names]


def _rule(name: str, **spans: tuple[int, int]) -> Rule:
    conditions = (
        Condition(column=score, ge=None if low <= 1 else float(low), lt=None if high >= BEST else float(high + 1))
        for score, (low, high) in spans.items()
    )
    return Rule(name=name, where=tuple(conditions))


TRADE = (
    _rule("champions", r=(4, 5), f=(4, 5), m=(4, 5)),
    _rule("loyal", r=(3, 5), f=(4, 5)),
    _rule("sleeping_high_value", r=(1, 2), f=(4, 5), m=(4, 5)),
    _rule("at_risk", r=(1, 2), f=(3, 5)),
    _rule("new", r=(5, 5), f=(1, 1)),
    _rule("promising", r=(4, 4), f=(1, 1)),
    _rule("potential_loyal", r=(4, 5)),
    _rule("need_attention", r=(3, 3), m=(3, 5)),
    _rule("about_to_sleep", r=(3, 3)),
    _rule("hibernating", r=(2, 2)),
    _rule("lost", r=(1, 1)),
)
"""The segments that the trade usually names; the same stand in configs/segments/trade.yaml, to be edited. No combination is left over."""
