"""Queries: what people ask of a federation's customers, as they write it under `configs/queries`.

Each query names the columns it looks at; how it is turned into measures, round by round, is the coordinator's business
(`server.statistics`), and a vault only checks that what it is asked for stays within these columns.
"""

from collections.abc import Iterable
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from federation.contract import Name, Text
from federation.document import Document
from federation.measures import At, Cuts, Rule, Where

Columns = frozenset[tuple[str, At]]


class Accuracy(Document):
    """How wide an answer's noise may be: within plus or minus `within` (in the answer's own unit) at this confidence, DP noise alone."""

    within: Annotated[float, Field(gt=0)]
    confidence: Annotated[float, Field(ge=0.5, le=0.999)] = 0.95


class Group(Document):
    """A public grouping: a categorical column or flag by its groups, a numeric column by `cuts`."""

    column: Name
    cuts: Annotated[Cuts | None, Field(exclude_if=lambda value: value is None)] = None


class Bounds(Document):
    """Narrower bounds than the contract's, in the column's unit: what lies outside is clipped, which biases sums and means."""

    low: float
    high: float

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not self.low < self.high:
            raise ValueError(f"low ({self.low:g}) must be below high ({self.high:g})")
        return self


class Base(Document):
    """What every query has. `weight` is its share of the budget against other queries, where no accuracy is asked for."""

    id: Name
    title: Text | None = None
    where: Where = ()
    weight: Annotated[float, Field(gt=0, le=1000)] = 1.0
    accuracy: Accuracy | None = None

    @property
    def columns(self) -> Columns:
        """The columns that are looked at, and when."""
        asked = frozenset((condition.column, condition.at) for condition in self.where)
        return asked | {(name, at) for name in self._named() for at in self._times()}

    def _named(self) -> Iterable[str]:
        """Return the columns that the query itself looks at."""
        raise NotImplementedError

    def _times(self) -> tuple[At, ...]:
        return ("start",)


class Count(Base):
    """How many customers, in each group."""

    kind: Literal["count"]
    by: Annotated[tuple[Group, ...], Field(max_length=4)] = ()

    def _named(self) -> Iterable[str]:
        return _in(self.by)


class Sum(Base):
    """The sum of a column, in each group; a flag's or label's is how many say yes."""

    kind: Literal["sum"]
    of: Name
    clip: Bounds | None = None
    by: Annotated[tuple[Group, ...], Field(max_length=4)] = ()

    def _named(self) -> Iterable[str]:
        return (self.of, *_in(self.by))


class Mean(Base):
    """The mean of a column over the customers for whom it is known, in each group; a flag's or label's is the share of yes."""

    kind: Literal["mean"]
    of: Name
    clip: Bounds | None = None
    by: Annotated[tuple[Group, ...], Field(max_length=4)] = ()

    def _named(self) -> Iterable[str]:
        return (self.of, *_in(self.by))


class Histogram(Base):
    """How customers are distributed over a column: by its groups, by `cuts`, or by the contract's knots; in each group of `by`."""

    kind: Literal["histogram"]
    of: Name
    cuts: Cuts | None = None
    by: Annotated[tuple[Group, ...], Field(max_length=3)] = ()

    def _named(self) -> Iterable[str]:
        return (self.of, *_in(self.by))


class Quantiles(Base):
    """Quantiles of a numeric column, in each group."""

    kind: Literal["quantiles"]
    of: Name
    levels: Annotated[tuple[Annotated[float, Field(gt=0, lt=1)], ...], Field(min_length=1, max_length=19)] = (
        0.25,
        0.5,
        0.75,
    )
    by: Annotated[tuple[Group, ...], Field(max_length=2)] = ()

    def _named(self) -> Iterable[str]:
        return (self.of, *_in(self.by))


class Crosstab(Base):
    """A table of counts of two groupings with its margins, shares of rows, and Cramer's V."""

    kind: Literal["crosstab"]
    rows: Group
    across: Group

    def _named(self) -> Iterable[str]:
        return _in((self.rows, self.across))


class Correlation(Base):
    """Pearson's correlation of numeric columns, clipped to the contract's bounds."""

    kind: Literal["correlation"]
    of: Annotated[tuple[Name, ...], Field(min_length=2, max_length=12)]

    def _named(self) -> Iterable[str]:
        return self.of


class Rfm(Base):
    """Thresholds that cut recency, frequency and monetary value into fifths over the federation, scores 1 to 5, and segments by rules.

    A rule's conditions are on the scores: columns `r`, `f`, `m` from 1 to 5, 5 the best. Without `segments` the trade's usual ones.
    """

    kind: Literal["rfm"]
    recency: Name
    frequency: Name
    monetary: Name
    segments: Annotated[tuple[Rule, ...], Field(max_length=40)] = ()

    def _named(self) -> Iterable[str]:
        return (self.recency, self.frequency, self.monetary)


class Lifetime(Base):
    """Customer lifetime value: BG/NBD for purchases and Gamma-Gamma for their worth, fitted from noisy counts.

    `frequency` counts days of purchase, `recency` and `tenure` are shares of the observation window from last and first purchase to the
    as-of date, `monetary` is the mean amount of a purchase. `horizon` is how far to look ahead, in windows.
    """

    kind: Literal["lifetime"]
    frequency: Name
    recency: Name
    tenure: Name
    monetary: Name
    horizon: Annotated[float, Field(gt=0, le=20)] = 1.0

    def _named(self) -> Iterable[str]:
        return (self.frequency, self.recency, self.tenure, self.monetary)


class Lifecycle(Base):
    """Life-cycle stages by rules at the as-of date and at the end of the horizon, and how customers moved from one to another.

    A customer whom no rule takes, or who is not there, counts as `other`.
    """

    kind: Literal["lifecycle"]
    stages: Annotated[tuple[Rule, ...], Field(min_length=1, max_length=20)]

    def _named(self) -> Iterable[str]:
        return {condition.column for rule in self.stages for condition in rule.where}

    def _times(self) -> tuple[At, ...]:
        return ("start", "end")


class Clusters(Base):
    """Groups of alike customers by k-means; `k` is chosen between the two numbers where it is not given."""

    kind: Literal["clusters"]
    of: Annotated[tuple[Name, ...], Field(min_length=2, max_length=32)]
    k: Annotated[int, Field(ge=2, le=32)] | None = None
    between: Annotated[tuple[Annotated[int, Field(ge=2, le=32)], ...], Field(min_length=2, max_length=2)] = (3, 8)
    steps: Annotated[int, Field(ge=1, le=20)] = 5

    def _named(self) -> Iterable[str]:
        return self.of


class Tree(Base):
    """A shallow decision tree for the contract's label: an understandable split."""

    kind: Literal["tree"]
    of: Annotated[tuple[Name, ...], Field(min_length=1, max_length=40)]
    label: Name
    depth: Annotated[int, Field(ge=1, le=5)] = 3
    smallest_leaf: Annotated[int, Field(ge=1)] = 200

    def _named(self) -> Iterable[str]:
        return (*self.of, self.label)


class Campaign(Base):
    """Whether a campaign worked: outcomes by arm, against the arm `control`, in segments and score bands.

    `outcomes` are flags (or the label); `spend` and `cost` numeric columns; `chosen_by` a column that says whether the model or chance
    chose the customer; `score` a numeric column with `score_cuts`, for Qini curves, and `best` which end of it is approached first (a
    decile of 1 is the best: `low`).
    """

    kind: Literal["campaign"]
    arm: Name
    control: Annotated[str, Field(min_length=1, max_length=64)] = "control"
    outcomes: Annotated[tuple[Name, ...], Field(min_length=1, max_length=8)]
    segment: Name | None = None
    chosen_by: Name | None = None
    spend: Name | None = None
    cost: Name | None = None
    score: Name | None = None
    score_cuts: Cuts | None = None
    best: Annotated[Literal["high", "low"], Field(exclude_if=lambda value: value == "high")] = "high"

    @model_validator(mode="after")
    def _score_cut(self) -> Self:
        if (self.score is None) != (self.score_cuts is None):
            raise ValueError("score and score_cuts stand together or not at all")
        return self

    def _named(self) -> Iterable[str]:
        single = (self.segment, self.chosen_by, self.spend, self.cost, self.score)
        return (self.arm, *self.outcomes, *(name for name in single if name is not None))


Query = Annotated[
    Count
    | Sum
    | Mean
    | Histogram
    | Quantiles
    | Crosstab
    | Correlation
    | Rfm
    | Lifetime
    | Lifecycle
    | Clusters
    | Tree
    | Campaign,
    Field(discriminator="kind"),
]


def _in(groups: tuple[Group, ...]) -> tuple[str, ...]:
    return tuple(group.column for group in groups)
