"""Measures: what one round of a statistics study counts and adds up, in a closed language that every member can check.

A measure turns each customer into a short vector of integers, in *grid units*, whose L2 norm is at most `sensitivity(measure)` whatever
her record says; a vault adds these up over its customers and adds noise. Everything in a measure is public: cuts, categories, rules and
centres come from the feature contract, or from answers that were released before. Neighbours: one customer more or less.

`Cells` puts each customer who passes `where` into one cell of a table, and adds one integer to it for each of its `terms`: rint(cap x p),
where p in [-1, 1] is 1 (a count), a factor, or the product of two. A factor is a column clipped to [low, high] and moved there:
(2 x - low - high) / (high - low), or, on a log scale, 2 ln(1 + x - low) / ln(1 + high - low) - 1, and cut to [-1, 1] once more against
rounding. Centring halves what one customer can add, against [0, 1]. Sensitivity: sqrt(sum of cap^2), since |rint(cap p)| <= cap for an
integer cap.

`Centres` finds the nearest of some public centres, adds `cap` to its count, and trunc(reach x (u - centre) / radius), cut to norm 1 before,
to its shift, u the vector of factors. Sensitivity: sqrt(cap^2 + reach^2), since truncation towards zero makes no coordinate larger.

A customer for whom a column of a measure's terms or factors is unknown adds nothing to that measure; on an axis an unknown value has a
cell of its own, the last. A measure that looks at columns at both times counts whoever is there at either; one who is not there at a
time has unknown values then.
"""

import math
from collections.abc import Iterable, Iterator
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from federation.contract import CategoricalColumn, Category, FeatureContract, FlagColumn, Name, NumericColumn
from federation.document import Document

MOST_CELLS = 100_000
MOST_MEASURES = 200
LARGEST_CAP = 1_000_000
FLAG = ("no", "yes")
At = Literal["start", "end"]
"""When a column is looked at: at the declared as-of date, or at the end of the horizon after it (transaction contracts alone)."""
Cap = Annotated[int, Field(ge=1, le=LARGEST_CAP)]
Bound = Annotated[float, Field(ge=-1e300, le=1e300)]
"""Far from what float64 holds, so that no difference of two bounds overflows."""
Coordinate = Annotated[float, Field(ge=-1.0, le=1.0)]
Radius = Annotated[float, Field(ge=1e-6, le=100.0)]
"""Far from 0: a way over a radius that is all but 0 is no number any more, and one customer would show in a sum that is none."""
Cuts = Annotated[tuple[float, ...], Field(min_length=1, max_length=4096)]


class Condition(Document):
    """What a customer must fulfil in one column: `ge` <= x < `lt`, or one of `any_of` (categories; a flag's `yes`, `no`), or it is unknown.

    An unknown value fulfils `missing: true` alone.
    """

    column: Name
    at: Annotated[At, Field(exclude_if=lambda value: value == "start")] = "start"
    ge: Annotated[float | None, Field(exclude_if=lambda value: value is None)] = None
    lt: Annotated[float | None, Field(exclude_if=lambda value: value is None)] = None
    any_of: Annotated[
        tuple[Category, ...] | None, Field(min_length=1, max_length=1000, exclude_if=lambda value: value is None)
    ] = None
    missing: Annotated[bool, Field(exclude_if=lambda value: not value)] = False

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        numeric = self.ge is not None or self.lt is not None
        if numeric + (self.any_of is not None) + self.missing != 1:
            raise ValueError("a condition says one thing: ge and/or lt, any_of, or missing: true")
        if self.ge is not None and self.lt is not None and not self.ge < self.lt:
            raise ValueError(f"no value is at least {self.ge:g} and below {self.lt:g}")
        return self


Where = Annotated[tuple[Condition, ...], Field(max_length=32)]


class BinsAxis(Document):
    """A numeric column cut at increasing points: below the first, between (left edge included), from the last on; then the unknown."""

    kind: Literal["bins"] = "bins"
    column: Name
    at: Annotated[At, Field(exclude_if=lambda value: value == "start")] = "start"
    cuts: Cuts

    @model_validator(mode="after")
    def _increasing(self) -> Self:
        if any(a >= b for a, b in zip(self.cuts, self.cuts[1:], strict=False)):
            raise ValueError("cuts must increase")
        return self


class GroupsAxis(Document):
    """The categories of a categorical column, or no and yes of a flag or of the label; then the unknown."""

    kind: Literal["groups"] = "groups"
    column: Name
    at: Annotated[At, Field(exclude_if=lambda value: value == "start")] = "start"


class Rule(Document):
    """A named group of customers: those who fulfil every condition."""

    name: Annotated[str, Field(min_length=1, max_length=64)]
    where: Where


class RulesAxis(Document):
    """Named groups by rules, tried in order; the last cell holds those whom no rule takes."""

    kind: Literal["rules"] = "rules"
    rules: Annotated[tuple[Rule, ...], Field(min_length=1, max_length=512)]


Axis = Annotated[BinsAxis | GroupsAxis | RulesAxis, Field(discriminator="kind")]


class Factor(Document):
    """A numeric column, clipped to [low, high] and moved to [-1, 1]; a flag or the label has low 0 and high 1.

    `scale: log` moves ln(1 + x - low) instead of x.
    """

    column: Name
    at: Annotated[At, Field(exclude_if=lambda value: value == "start")] = "start"
    low: Bound
    high: Bound
    scale: Annotated[Literal["linear", "log"], Field(exclude_if=lambda value: value == "linear")] = "linear"

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not self.low < self.high:
            raise ValueError(f"low ({self.low:g}) must be below high ({self.high:g})")
        return self


class Term(Document):
    """What is added up in each cell: the product of up to two factors, 1 for none, times `cap`."""

    factors: Annotated[tuple[Factor, ...], Field(max_length=2)] = ()
    cap: Cap


class Cells(Document):
    """Counts and sums in the cells of a table."""

    kind: Literal["cells"] = "cells"
    axes: Annotated[tuple[Axis, ...], Field(max_length=6)] = ()
    where: Where = ()
    terms: Annotated[tuple[Term, ...], Field(min_length=1, max_length=600)]


class Centres(Document):
    """Counts of the customers nearest to each centre, and the sums of what leads from the centre to them.

    `centres` are points in the factors' [-1, 1]; `radius` is in the same unit.
    """

    kind: Literal["centres"] = "centres"
    factors: Annotated[tuple[Factor, ...], Field(min_length=1, max_length=64)]
    where: Where = ()
    centres: Annotated[tuple[tuple[Coordinate, ...], ...], Field(min_length=1, max_length=64)]
    radius: Radius
    cap: Cap
    reach: Cap

    @model_validator(mode="after")
    def _same_length(self) -> Self:
        if any(len(centre) != len(self.factors) for centre in self.centres):
            raise ValueError("each centre has one coordinate for each factor")
        return self


Measure = Annotated[Cells | Centres, Field(discriminator="kind")]


def sensitivity(measures: Iterable[Cells | Centres]) -> float:
    """Return by how much one customer changes the vector of all measures together, L2 norm in grid units, rounded up."""
    square = 0
    for measure in measures:
        if isinstance(measure, Cells):
            square += sum(term.cap**2 for term in measure.terms)
        else:
            square += measure.cap**2 + measure.reach**2
    return math.nextafter(math.sqrt(square), math.inf)


def shape_of(measure: Cells | Centres, contract: FeatureContract) -> tuple[int, ...]:
    """Return the shape of a measure's integers: `Cells` [terms, cells of each axis ...], `Centres` [centres, 1 + factors], count first.

    Raises
    ------
    ValueError
        As `problems_of`, for a column that is no axis.
    """
    if isinstance(measure, Centres):
        return len(measure.centres), 1 + len(measure.factors)
    return len(measure.terms), *(cells_on(axis, contract) for axis in measure.axes)


def dimension_of(measures: Iterable[Cells | Centres], contract: FeatureContract) -> int:
    """Return how many integers all measures have together."""
    return sum(math.prod(shape_of(measure, contract)) for measure in measures)


def cells_on(axis: BinsAxis | GroupsAxis | RulesAxis, contract: FeatureContract) -> int:
    """Return the number of cells on an axis, that of the unknown (or of those whom no rule takes) included."""
    if isinstance(axis, BinsAxis):
        return len(axis.cuts) + 2
    if isinstance(axis, RulesAxis):
        return len(axis.rules) + 1
    return len(groups_of(axis.column, contract)) + 1


def groups_of(name: str, contract: FeatureContract) -> tuple[str, ...]:
    """Return the public groups of a column: categories, or no and yes. Raises ValueError for a numeric or unknown one."""
    column = column_of(name, contract)
    if isinstance(column, CategoricalColumn):
        return column.categories
    if isinstance(column, NumericColumn):
        raise ValueError(f"{name} is numeric: its values are no public groups; give cuts")
    return FLAG


def column_of(name: str, contract: FeatureContract) -> NumericColumn | CategoricalColumn | FlagColumn:
    """Return a column by name; the label as a flag. Raises ValueError naming the columns that there are."""
    if name == contract.label.name:
        return FlagColumn(kind="flag", name=name, meaning=contract.label.meaning)
    try:
        return contract.column(name)
    except KeyError:
        known = ", ".join(column.name for column in contract.columns)
        raise ValueError(f"{name} is no column of the contract {contract.name}; it has {known}") from None


def columns_of(measures: Iterable[Cells | Centres]) -> frozenset[tuple[str, At]]:
    """Return the columns that measures look at, and when."""
    return frozenset((item.column, item.at) for measure in measures for item in _parts(measure))


def problems_of(measures: Iterable[Cells | Centres], contract: FeatureContract) -> list[str]:
    """Return everything that does not fit the contract, in words; empty when all does."""
    found: list[str] = []
    for measure in measures:
        for item in _parts(measure):
            try:
                _check(item, contract)
            except ValueError as error:
                found.append(str(error))
        if not found and math.prod(shape_of(measure, contract)) > MOST_CELLS:
            found.append(
                f"a table of {math.prod(shape_of(measure, contract))} numbers is too large; at most {MOST_CELLS}"
            )
    return list(dict.fromkeys(found))


Part = Condition | BinsAxis | GroupsAxis | Factor


def _parts(measure: Cells | Centres) -> Iterator[Part]:
    yield from measure.where
    if isinstance(measure, Centres):
        yield from measure.factors
        return
    for axis in measure.axes:
        if isinstance(axis, RulesAxis):
            yield from (condition for rule in axis.rules for condition in rule.where)
        else:
            yield axis
    for term in measure.terms:
        yield from term.factors


def _check(item: Part, contract: FeatureContract) -> None:
    column = column_of(item.column, contract)
    if item.at == "end" and (contract.source != "transactions" or item.column == contract.label.name):
        raise ValueError(f"{item.column} has no value at the end: only features of a transaction contract have one")
    if isinstance(item, Condition):
        _check_condition(item, column, contract)
    elif isinstance(item, GroupsAxis):
        groups_of(item.column, contract)
    elif isinstance(item, BinsAxis) and not isinstance(column, NumericColumn):
        raise ValueError(f"{item.column} is not numeric: it cannot be cut")
    elif isinstance(item, Factor) and isinstance(column, CategoricalColumn):
        raise ValueError(f"{item.column} has categories: they cannot be added up")


def _check_condition(
    item: Condition, column: NumericColumn | CategoricalColumn | FlagColumn, contract: FeatureContract
) -> None:
    if item.column == contract.label.name:
        raise ValueError(
            f"{item.column} is the label: customers are not chosen by what became of them; take it as a group or as a value"
        )
    if item.any_of is not None:
        unknown = [name for name in item.any_of if name not in groups_of(item.column, contract)]
        if unknown:
            raise ValueError(f"{item.column} has no group {', '.join(unknown)}")
    elif not item.missing and not isinstance(column, NumericColumn):
        raise ValueError(f"{item.column} is not numeric: choose by any_of")
