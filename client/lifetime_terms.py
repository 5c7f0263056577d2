"""An institution's own terms for what its customers are worth: `tiers.yaml` in the vault's home. Nothing of it leaves."""

import math
from dataclasses import dataclass
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from client.config import TransactionMapping
from federation.contract import Name
from federation.document import Document
from federation.lifetime import LifetimeModel

DAYS_OF_YEAR = 365.25


class Quantiles(Document):
    """Tiers by rank: `high` 0.8 is the fifth with the highest values, `middle` begins at the given share."""

    kind: Literal["quantiles"]
    high: Annotated[float, Field(gt=0, lt=1)]
    middle: Annotated[float, Field(gt=0, lt=1)]

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        _check_order(self.middle, self.high)
        return self


class Money(Document):
    """Tiers by value, in the institution's money: from `high` on, from `middle` on, below."""

    kind: Literal["money"]
    high: float
    middle: float

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        _check_order(self.middle, self.high)
        return self


def _check_order(middle: float, high: float) -> None:
    if not middle < high:
        raise ValueError(f"middle ({middle:g}) must be below high ({high:g})")


class Columns(Document):
    """Which of the contract's columns the model's four numbers are, as the federation's query named them."""

    frequency: Name = "frequency"
    recency: Name = "recency"
    tenure: Name = "tenure"
    monetary: Name = "monetary"


class TierTerms(Document):
    """`tiers.yaml`: what a customer is worth to this institution; every number is its own.

    Attributes
    ----------
    contract:
        The feature contract whose customers are meant.
    margin:
        What is left of an amount after its own costs, as a share.
    yearly_discount:
        By how much less a year from now counts: 0.1 means 1 / 1.1.
    acquisition_cost:
        What it costs to win a customer, in the money of node.yaml's typical basket.
    horizon_years:
        How far to look ahead; None takes the query's horizon.
    yearly_retention:
        The institution's own share of customers who are still there after a year; None takes the model's drop-out.
    cuts:
        Where the tiers begin.
    columns:
        Of the contract.
    """

    contract: Name
    margin: Annotated[float, Field(gt=0, le=1)]
    yearly_discount: Annotated[float, Field(ge=0, le=1)]
    acquisition_cost: Annotated[float, Field(ge=0)]
    horizon_years: Annotated[float | None, Field(gt=0, le=20)] = None
    yearly_retention: Annotated[float | None, Field(gt=0, le=1)] = None
    cuts: Annotated[Quantiles | Money, Field(discriminator="kind")]
    columns: Columns = Columns()


@dataclass(frozen=True)
class Terms:
    """The institution's terms with its own scales: the days of its window, and its typical purchase in its own money."""

    tiers: TierTerms
    window_days: int
    basket: float
    unit: str

    @classmethod
    def of(cls, tiers: TierTerms, mapping: TransactionMapping, window_days: int) -> Self:
        """Take the scales from node.yaml's mapping and the declared window."""
        return cls(tiers, window_days, mapping.typical_basket.amount, mapping.typical_basket.unit)

    @property
    def windows_of_year(self) -> float:
        """How many windows a year has."""
        return DAYS_OF_YEAR / self.window_days

    @property
    def discount(self) -> float:
        """The continuous rate of discount for each window."""
        return math.log1p(self.tiers.yearly_discount) / self.windows_of_year

    def horizon(self, model: LifetimeModel) -> float:
        """Return how far to look ahead, in windows."""
        years = self.tiers.horizon_years
        return model.horizon if years is None else years * self.windows_of_year
