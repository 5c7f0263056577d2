"""Askers: each query of a statistics study asks for measures, round by round, within the budget that it is given, and makes its answer.

An asker is deterministic: the same sums told in the same order lead to the same questions and the same answer, so that a checkpoint need
only keep the sums. It never sees anything but noisy sums.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from federation.answers import Answer
from federation.contract import FeatureContract
from federation.measures import Cells, Centres, shape_of


@dataclass(frozen=True)
class Setting:
    """Public numbers that all askers share.

    Attributes
    ----------
    contract:
        The study's feature contract.
    customers:
        Declared customers of all members that take part: a public estimate, never the true number.
    sd:
        Standard deviation of the noise of each integer of a round's sum, in grid units, as far as it is known beforehand.
    confidence:
        Of all intervals.
    """

    contract: FeatureContract
    customers: int
    sd: float
    confidence: float

    @property
    def z(self) -> float:
        """The normal quantile of the two-sided confidence."""
        return float(ndtri(0.5 + self.confidence / 2.0))


@dataclass(frozen=True)
class Sum:
    """What a measure came to over all members in the sum.

    Attributes
    ----------
    measure:
        What was asked.
    values:
        float64 of `federation.measures.shape_of(measure, contract)`, in grid units: divide a count by its cap to get customers.
    sd:
        Standard deviation of the (normal, independent) noise of each value, in grid units.
    """

    measure: Cells | Centres
    values: NDArray[np.float64]
    sd: float


@dataclass(frozen=True)
class Expected:
    """How far the noise alone may move one number of an answer, at the setting's confidence: +- `within`, in `unit`."""

    what: str
    within: float
    unit: str


class Asker(Protocol):
    """One query on its way to an answer."""

    @property
    def rounds(self) -> int:
        """In how many rounds it asks, one after another."""

    def weight(self, number: int) -> float:
        """Return what it wants of round `number` (from 1) against other askers, as a share of the squared sensitivity; above 0."""

    def needed(self, number: int) -> float | None:
        """Return the least sensitivity (L2, grid units) with which it reaches the accuracy asked for in round `number`; None if none is."""

    def ask(self, number: int, budget: float) -> tuple[Cells | Centres, ...]:
        """Return the measures of round `number`: their `sensitivity` together is at most `budget` (L2, grid units) and uses it well.

        Raises
        ------
        FederationError
            When the budget is too small to ask anything sensible.
        """

    def told(self, number: int, sums: Sequence[Sum]) -> None:
        """Take the sums of round `number`, in the order of its measures."""

    def expected(self, budgets: Mapping[int, float]) -> tuple[Expected, ...]:
        """Say beforehand how exact the answer will be, from the budgets by round number and declared sizes alone."""

    def answer(self) -> Answer:
        """Return the answer, once told of every round."""


def sums_of(
    measures: Sequence[Cells | Centres], contract: FeatureContract, total: NDArray[np.float64], sd: float
) -> list[Sum]:
    """Cut a round's integers, float64 [d], into the sums of its measures, which stand in it one after another.

    Raises
    ------
    ValueError
        When there are more or fewer integers than the measures have.
    """
    shapes = [shape_of(measure, contract) for measure in measures]
    ends = np.cumsum([math.prod(shape) for shape in shapes], dtype=np.int64)
    if len(total) != (ends[-1] if len(ends) else 0):
        raise ValueError(f"{len(total)} integers are not those of the measures")
    parts = np.split(total, ends[:-1])
    return [Sum(measure, part.reshape(shape), sd) for measure, part, shape in zip(measures, parts, shapes, strict=True)]


def split_caps(budget: float, shares: Sequence[float]) -> tuple[int, ...]:
    """Return integer caps as the square roots of `shares`, the root of whose squared sum is at most `budget`, each at least 1.

    Raises
    ------
    ValueError
        When the budget is below sqrt(len(shares)).
    """
    parts = np.sqrt(np.asarray(shares, dtype=np.float64) / float(np.sum(shares)))
    caps = np.maximum(np.floor(parts * budget * (1.0 - 1e-12)), 1.0).astype(np.int64)
    while float(np.sqrt(np.sum(caps.astype(np.float64) ** 2))) > budget:
        place = int(np.argmax(caps))
        if caps[place] <= 1:
            raise ValueError("the budget is smaller than one grid unit for each term")
        caps[place] -= 1
    return tuple(int(cap) for cap in caps)
