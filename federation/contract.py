"""Feature contracts: the columns that a study may use, with bounds and categories that are public knowledge."""

import math
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from federation.document import Document

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,47}$")]
Text = Annotated[str, Field(min_length=1, max_length=400)]
Category = Annotated[str, Field(min_length=1, max_length=64)]

MAX_KNOTS = 64


class NumericColumn(Document):
    """A number with public bounds (values outside are clipped) and public knots, in the column's own unit."""

    kind: Literal["numeric"]
    name: Name
    meaning: Text
    unit: Text
    low: float
    high: float
    scale: Literal["linear", "log"] = "linear"
    knots: Annotated[tuple[float, ...], Field(min_length=2, max_length=MAX_KNOTS)]
    required: bool = True

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not self.low < self.high:
            raise ValueError(f"low ({self.low:g}) must be below high ({self.high:g})")
        if any(left >= right for left, right in zip(self.knots, self.knots[1:], strict=False)):
            raise ValueError("knots must increase")
        if not (math.isclose(self.knots[0], self.low) and math.isclose(self.knots[-1], self.high)):
            raise ValueError("the first knot must be low and the last must be high")
        return self


class CategoricalColumn(Document):
    """One of a public list of categories; anything else counts as unknown."""

    kind: Literal["categorical"]
    name: Name
    meaning: Text
    categories: Annotated[tuple[Category, ...], Field(min_length=1, max_length=1000)]
    required: bool = True

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        if len(set(self.categories)) != len(self.categories):
            raise ValueError("categories must be distinct")
        return self


class FlagColumn(Document):
    """Yes or no."""

    kind: Literal["flag"]
    name: Name
    meaning: Text
    required: bool = True


Column = Annotated[NumericColumn | CategoricalColumn | FlagColumn, Field(discriminator="kind")]


class Label(Document):
    """What is predicted: a flag that becomes known after the as-of date."""

    name: Name
    meaning: Text


class FeatureContract(Document):
    """Columns, label and where they come from; members pin its digest in the charter.

    `source: table` means one row a customer; `source: transactions` means that the columns are computed from a log of
    purchases before the as-of date, and the label from those after it.
    """

    name: Name
    version: Annotated[int, Field(ge=1)]
    title: Text
    source: Literal["table", "transactions"]
    columns: Annotated[tuple[Column, ...], Field(min_length=1, max_length=500)]
    label: Label

    @model_validator(mode="after")
    def _names_distinct(self) -> Self:
        names = [column.name for column in self.columns] + [self.label.name]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"names must be distinct; more than once: {', '.join(twice)}")
        return self

    def column(self, name: str) -> NumericColumn | CategoricalColumn | FlagColumn:
        """Return the column called `name`; KeyError if the contract has none."""
        for column in self.columns:
            if column.name == name:
                return column
        raise KeyError(name)
