"""What a population is made of: how many people, at which institutions, with which overlap and which rates."""

import hashlib
import math
from typing import Literal, Self

import numpy as np
from pydantic import ConfigDict, model_validator

from federation.document import Document
from federation.errors import DocumentError

Kind = Literal["bank", "shop"]

KINDS: tuple[Kind, ...] = ("bank", "shop")
MOST_CUSTOMERS = 50_000_000

_SHARES = (
    "overlap",
    "across",
    "bank_share",
    "mix",
    "lacking",
    "consistency",
    "contacted",
    "bank_churn",
    "subscribed_bank",
    "subscribed_shop",
    "response",
)
_RANGES = {"skew": (0.0, 3.0), "base_spread": (0.0, 2.0), "drift": (-3.0, 3.0), "uplift": (-0.5, 0.5)}


class PopulationParameters(Document):
    """Parameters of a population; every default is a choice, and those that a public set decides are in `facts`.

    Attributes
    ----------
    customers:
        People in all; each is a customer of at least one institution.
    banks, shops:
        Institutions of each kind. With none of one kind, everybody is a customer of the other.
    overlap:
        Share of the banks' customer rows whose person is a customer of another bank too; the same for shops. Nobody has more
        than two of a kind. Without a second institution of the kind it counts as 0.
    across:
        Share of the people with a bank who are at a shop too.
    bank_share:
        Share of all people who have a bank, where there are both kinds.
    skew:
        How unequal institutions are in size: the k-th largest weighs k to the power of -skew.
    mix:
        How much region and affluence decide where somebody is a customer: 0 not at all, 1 strongly.
    base_spread:
        Standard deviation, between institutions, of the logit of a base rate; at shops, 0.4 of it goes into the logs of pace and loss.
    lacking:
        Share of each kind's institutions that lack one optional column.
    consistency:
        Correlation, between two institutions, of how the same person is engaged, attached and sensitive to prices there.
    contacted:
        Share of customers in the campaign's treated arm, drawn at random.
    bank_churn:
        Base rate of churn at banks. At shops the rate follows from the purchases.
    subscribed_bank, subscribed_shop:
        Base rates of taking the product.
    response:
        Share of the control arm that does what the campaign asks for.
    uplift:
        Average effect of the campaign on that share.
    drift:
        By how much the logit of `subscribed` moves from the first position to the last.
    """

    model_config = ConfigDict(allow_inf_nan=True)  # so that they are refused below, by the parameter's name

    customers: int = 10_000
    banks: int = 5
    shops: int = 4
    overlap: float = 0.15
    across: float = 0.30
    bank_share: float = 0.60
    skew: float = 0.6
    mix: float = 0.5
    base_spread: float = 0.25
    lacking: float = 0.25
    consistency: float = 0.7
    contacted: float = 0.5
    bank_churn: float = 0.12
    subscribed_bank: float = 0.117
    subscribed_shop: float = 0.08
    response: float = 0.106
    uplift: float = 0.061
    drift: float = 0.4

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.banks == self.shops == 0:
            raise DocumentError(
                "CSL-M201",
                f"A population with {self.banks} banks and {self.shops} shops has no institution to be a customer of.",
                "Ask for at least one bank or one shop.",
            )
        for kind, count in (("banks", self.banks), ("shops", self.shops)):
            _not_negative(kind, count)
        if not self.banks + self.shops <= self.customers <= MOST_CUSTOMERS:
            raise DocumentError(
                "CSL-M200",
                f"{self.customers} customers cannot be shared by {self.banks} banks and {self.shops} shops.",
                f"Ask for at least one customer for each institution, and for at most {MOST_CUSTOMERS:,}.",
            )
        for name in _SHARES:
            _within(name, getattr(self, name), 0.0, 1.0)
        for name, (low, high) in _RANGES.items():
            _within(name, getattr(self, name), low, high)
        _within("response + uplift", self.response + self.uplift, 0.0, 1.0)
        return self

    def count(self, kind: Kind) -> int:
        """Return how many institutions of a kind there are."""
        return self.banks if kind == "bank" else self.shops

    def subscribed(self, kind: Kind) -> float:
        """Return the base rate of taking the product at institutions of a kind."""
        return self.subscribed_bank if kind == "bank" else self.subscribed_shop


def _not_negative(kind: str, count: int) -> None:
    if count < 0:
        raise DocumentError(
            "CSL-M201", f"The number of {kind} is {count}; it cannot be negative.", "Ask for 0 or more of each kind."
        )


def _within(name: str, value: float, low: float, high: float) -> None:
    if not (math.isfinite(value) and low <= value <= high):
        raise DocumentError(
            "CSL-M203", f"{name} is {value:g}; it must lie between {low:g} and {high:g}.", "Correct the parameter."
        )


def stream(seed: int, part: str) -> np.random.Generator:
    """Return the generator of one part of a population: the same for the same seed, and apart from every other part's."""
    digest = hashlib.sha256(f"population/{seed}/{part}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest, "big"))
