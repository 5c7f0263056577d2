"""Clusters: differentially private k-means, in few noisy steps from a start that a first look at the columns gives.

Round 1 looks at each column and each pair of them (`first_look`): the unit of each column and a public sample follow, on which k-means is
run for a start. Every later round asks for the customers nearest to each centre and for the way from the centre to them, and moves each
centre as far as the noise lets a move be believed (`kmeans.follow`). Steps before the last count a way no longer than a radius, which
shrinks, so that the noise does; the last round's radius holds every customer, so that its means have no bias, and moves nothing: the
segments are the customers nearest to the centres that it asked about, and its sums are their sizes and means.

Where k is not given, the first half of the steps has as many centres as allowed; Ward's rule merges them, and Calinski and Harabasz's
ratio says how many to keep, with the distances inside the segments taken at the upper end of their noise (`Segments.inside`).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from federation.answers import Answer
from federation.contract import CategoricalColumn, FeatureContract
from federation.errors import FederationError
from federation.measures import LARGEST_CAP, Cells, Centres, Term, column_of, problems_of
from federation.queries import Clusters
from server.statistics import first_look, kmeans
from server.statistics.asking import Expected, Setting, Sum, split_caps
from server.statistics.cards import Segments, answer_of
from server.statistics.first_look import Look, factor_of

Floats = NDArray[np.float64]

COUNT_SHARE = 0.2
"""Share of a step's squared budget that goes into sizes; the rest goes into the ways to the customers."""
SQUARES_SHARE = 0.2
"""Share of the squared budget of the step after which k is chosen that goes into how spread out customers are."""
_SHRINK = 0.6
_NARROWEST = 0.35
_EMPTY = 3.0
"""A centre whose customers are fewer than so many standard deviations of the noise is put elsewhere."""
_DECIMALS = 6


def check(query: Clusters, contract: FeatureContract) -> list[str]:
    """Return everything that is wrong with a query, in words; empty when nothing is."""
    found: list[str] = []
    if len(set(query.of)) != len(query.of):
        found.append("a column is named twice in of")
    for name in query.of:
        try:
            column = column_of(name, contract)
        except ValueError as error:
            found.append(str(error))
            continue
        if name == contract.label.name:
            found.append(
                f"{name} is the label: a segment that depends on what becomes of customers cannot be known beforehand"
            )
        elif isinstance(column, CategoricalColumn):
            found.append(f"{name} is not numeric: categories have no distance; leave it out, or use where")
    if query.between[0] > query.between[1]:
        found.append(f"between is from {query.between[0]} to {query.between[1]}; the smaller number stands first")
    if query.k is None and query.steps < 2:
        found.append("to choose k takes 2 steps at least; give k, or more steps")
    return found + problems_of([Cells(where=query.where, terms=(Term(cap=1),))], contract)


class ClustersAsker:
    """One `clusters` query on its way to an answer.

    Attributes
    ----------
    centres:
        float64 [k, columns]: where the centres are now, in the factors' [-1, 1]; after the last round, the segments' points.
    factors:
        The columns with the bounds that count as -1 and 1, once they are known.
    """

    def __init__(self, query: Clusters, setting: Setting) -> None:
        self._query, self._setting = query, setting
        self._wide = tuple(factor_of(name, setting.contract) for name in query.of)
        self._look: Look | None = None
        self._segments: Segments | None = None
        self._chosen_after = 1 + query.steps // 2 if query.k is None else 0
        self.centres: Floats = np.zeros((0, len(query.of)))
        self.factors = self._wide

    @property
    def rounds(self) -> int:
        """One to look, and one for each step."""
        return 1 + self._query.steps

    def weight(self, number: int) -> float:
        """Return the same for every round."""
        return self._query.weight

    def needed(self, number: int) -> float | None:
        """Return the sensitivity that makes the segments' sizes as exact as asked for; they are counted in the last round."""
        asked = self._query.accuracy
        if asked is None or number != self.rounds:
            return None
        z = replace(self._setting, confidence=asked.confidence).z
        return z * self._setting.sd / asked.within / math.sqrt(COUNT_SHARE)

    def ask(self, number: int, budget: float) -> tuple[Cells | Centres, ...]:
        """Return the first look's histograms and products, or the step's sizes and ways."""
        try:
            if number == 1:
                return first_look.measures(self._wide, self._query.where, self._setting.contract, budget)
            caps = split_caps(budget, self._shares(number))
        except ValueError as error:
            raise FederationError(
                "CSL-S750",
                f"Round {number} of {self._query.id} has a budget of {budget:.3g} grid units: too small to ask anything. It needs "
                f"{math.sqrt(self._terms(number)):.3g} at least.",
                "Ask fewer queries or columns in the study, or give this query more weight.",
            ) from error
        cap, reach, *squares = (min(item, LARGEST_CAP) for item in caps)
        points = tuple(tuple(float(value) for value in centre) for centre in self.centres)
        where = self._query.where
        step = Centres(
            factors=self.factors, where=where, centres=points, radius=self._radius(number), cap=cap, reach=reach
        )
        if not squares:
            return (step,)
        pairs = zip(self.factors, squares, strict=True)
        return step, Cells(where=where, terms=tuple(Term(factors=(item, item), cap=square) for item, square in pairs))

    def _shares(self, number: int) -> tuple[float, ...]:
        """Return the shares of a step's squared budget: of sizes, of ways, and, where k is chosen, of each column's sum of squares."""
        if number != self._chosen_after:
            return COUNT_SHARE, 1.0 - COUNT_SHARE
        left = 1.0 - SQUARES_SHARE
        each = SQUARES_SHARE / len(self.factors)
        return COUNT_SHARE * left, (1.0 - COUNT_SHARE) * left, *([each] * len(self.factors))

    def told(self, number: int, sums: Sequence[Sum]) -> None:
        """Place the centres, move them, or, last, keep what the segments are."""
        if number == 1:
            self._look = first_look.look(self._wide, sums)
            self.factors = self._look.factors
            self._place(kmeans.start(self._look.sample, self._query.k or self._query.between[1]))
            return
        found = Segments.of(self._query.of, self.factors, sums[0])
        if number == self.rounds:
            self._segments = found
        else:
            self._step(found, sums[1:])

    def _step(self, found: Segments, squares: Sequence[Sum]) -> None:
        assert self._look is not None
        empty = found.sizes < _EMPTY * found.size_sd
        sizes = np.where(empty, 1.0, found.sizes)
        move = kmeans.follow(found.ways / sizes[:, None], (found.way_sd / sizes) ** 2)
        centres = np.where(empty[:, None], self.centres, self.centres + move)
        if squares and not empty.all():
            inside = found.inside(squares[0], self._setting.z)
            least, most = self._query.between
            centres = kmeans.choose(sizes[~empty], centres[~empty], inside, (least, most))
            empty = np.zeros(len(centres), dtype=bool)
        self._place(kmeans.reseed(centres, empty, self._look.sample))

    def _place(self, centres: Floats) -> None:
        self.centres = np.asarray(np.round(np.clip(centres, -1.0, 1.0), _DECIMALS), dtype=np.float64)

    def _radius(self, number: int) -> float:
        """Return how far a way is counted: in the last round the way to every point that there can be."""
        width = len(self.factors)
        if number < self.rounds:
            return math.sqrt(width) * max(_SHRINK ** (number - 2), _NARROWEST)
        farthest = np.sqrt(((1.0 + np.abs(self.centres)) ** 2).sum(axis=1))
        return float(farthest.min()) * (1.0 + 1e-12)

    def _terms(self, number: int) -> int:
        width = len(self._wide)
        return width * (width + 1) // 2 if number == 1 else 2 + width * (number == self._chosen_after)

    def expected(self, budgets: Mapping[int, float]) -> tuple[Expected, ...]:
        """Say how exact sizes and means will be; the mean's for a segment of average size, in hundredths of its column's range."""
        budget, setting, k = budgets[self.rounds], self._setting, self._query.k or self._query.between[1]
        size = setting.z * setting.sd / (budget * math.sqrt(COUNT_SHARE))
        way = setting.z * setting.sd / (budget * math.sqrt(1.0 - COUNT_SHARE)) * math.sqrt(len(self._wide))
        percent = 50.0 * way * k / max(setting.customers, 1)
        return (
            Expected("size of a segment", size, "customers"),
            Expected(f"mean of a segment of a {k}th of all customers", percent, "hundredths of the column's range"),
        )

    def answer(self) -> Answer:
        """Return the segments and their cards."""
        assert self._segments is not None and self._look is not None
        return answer_of(self._query, self._segments, self._look.spread, self._setting)
