"""Growing a decision tree from noisy tables: which question parts a group of customers best, and whether the noise lets that be believed.

A question is a condition on one column. Those who fulfil it go left; all others, those for whom the column is unknown with them, go right.
The gain of a question is the Gini index's (L. Breiman, J. Friedman, R. Olshen, C. Stone, Classification and Regression Trees, 1984): n_left
x n_right / n x (difference of the two rates)^2. Noise and chance make differences where there are none, and the largest of many is the one
that they made: so a question counts with the end of its difference's interval that is nearer to none, at a level shared among all questions
that were tried (Bonferroni), and is not asked where that is none.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from federation.contract import CategoricalColumn, FeatureContract, NumericColumn
from federation.measures import FLAG, BinsAxis, Condition, GroupsAxis, column_of

Floats = NDArray[np.float64]
Chosen = NDArray[np.bool_]

LEVEL = 0.05
"""How likely a tree grows one question out of nothing but noise and chance, at each place."""
MOST_CUTS = 16
_MOST_ORDERS = 20
_FEWEST = 3
_CLEAR = 3.0

Table = tuple[str, Floats, float]
"""A column's name, customers without and with the label in each of its bins [bins, 2], and the noise of each number."""


@dataclass(frozen=True)
class Question:
    """A condition, and how the rates of those who fulfil it and of the rest differ.

    Attributes
    ----------
    condition:
        Who goes left.
    weight:
        n_left x n_right / n, in customers.
    difference, sd:
        Of the rates, left less right; the standard deviation of noise and chance.
    """

    condition: Condition
    weight: float
    difference: float
    sd: float

    @property
    def strength(self) -> float:
        """How many standard deviations of noise and chance the difference is."""
        return abs(self.difference) / self.sd

    def gain(self, limit: float) -> float:
        """Return the Gini index's gain, in customers, of what the difference is at least, `limit` standard deviations nearer to none."""
        return self.weight * max(abs(self.difference) - limit * self.sd, 0.0) ** 2


def axis_of(name: str, contract: FeatureContract) -> BinsAxis | GroupsAxis:
    """Return a column's public bins: between the contract's inner knots, at most `MOST_CUTS` of them, or its groups."""
    column = column_of(name, contract)
    if not isinstance(column, NumericColumn):
        return GroupsAxis(column=name)
    inner = column.knots[1:-1] or ((column.low + column.high) / 2.0,)
    if len(inner) > MOST_CUTS:
        inner = tuple(inner[int(place)] for place in np.linspace(0, len(inner) - 1, MOST_CUTS).round())
    # a knot at a whole number opens its bin: what is counted from 1 is cut into 1, 2, 3 to 4 and so on
    return BinsAxis(column=name, cuts=tuple(float(cut) for cut in inner))


def questions(name: str, table: Floats, noise: float, contract: FeatureContract) -> Iterator[tuple[Condition, Chosen]]:
    """Yield each question about a column with who fulfils it: bool [bins].

    `table` is [bins, 2]: customers without and with the label in each bin, the unknown last; `noise` the standard deviation of each.
    """
    column, size = column_of(name, contract), len(table)
    if isinstance(column, NumericColumn):
        axis = axis_of(name, contract)
        assert isinstance(axis, BinsAxis)
        for place, cut in enumerate(axis.cuts, 1):
            below = np.arange(size) < place
            yield Condition(column=name, lt=cut), below
            yield Condition(column=name, ge=cut), ~below & (np.arange(size) < size - 1)
        yield Condition(column=name, missing=True), np.arange(size) == size - 1
        return
    groups = column.categories if isinstance(column, CategoricalColumn) else FLAG
    order = _by_rate(table[:-1], noise)
    for length in range(1, len(groups)):
        for chosen in (order[:length], order[length:]):
            fulfil = np.isin(np.arange(size), chosen)
            yield Condition(column=name, any_of=tuple(groups[place] for place in sorted(chosen))), fulfil
    yield Condition(column=name, missing=True), np.arange(size) == size - 1


def _by_rate(table: Floats, noise: float) -> list[int]:
    """Return groups by their rate, small ones drawn to the common rate."""
    counts = np.maximum(table, 0.0)
    size = counts.sum(axis=1)
    common = float(counts[:, 1].sum() / max(size.sum(), 1e-9))
    weight = 2.0 * noise + 1e-9
    return [int(place) for place in np.argsort((counts[:, 1] + weight * common) / (size + weight), kind="stable")]


def tried(name: str, contract: FeatureContract) -> int:
    """Return among how many questions a column's best is chosen; categories are put in order first, so every subset counts."""
    column = column_of(name, contract)
    if isinstance(column, NumericColumn):
        axis = axis_of(name, contract)
        assert isinstance(axis, BinsAxis)
        return 2 * len(axis.cuts) + 1
    groups = len(column.categories) if isinstance(column, CategoricalColumn) else len(FLAG)
    return int(2 ** min(groups, _MOST_ORDERS)) + 1


def judge(condition: Condition, fulfil: Chosen, table: Floats, noise: float, least: float) -> Question | None:
    """Return a question as its table shows it; None where a side is smaller than `least`, or cannot be told from being empty."""
    left, right = table[fulfil].sum(axis=0), table[~fulfil].sum(axis=0)
    n, m = float(left.sum()), float(right.sum())
    sides = (n, int(fulfil.sum())), (m, int((~fulfil).sum()))
    if any(size <= max(least, 3.0 * noise * math.sqrt(2 * bins)) for size, bins in sides):
        return None
    p, q = (min(max(float(side[1]) / size, 0.0), 1.0) for side, size in ((left, n), (right, m)))
    common = min(max(float(left[1] + right[1]) / (n + m), 1.0 / (n + m)), 1.0 - 1.0 / (n + m))
    variance = common * (1.0 - common) * (1.0 / n + 1.0 / m)
    for rate, (size, bins) in zip((p, q), sides, strict=True):
        variance += bins * noise**2 * ((1.0 - rate) ** 2 + rate**2) / size**2
    return Question(condition, n * m / (n + m), p - q, math.sqrt(variance))


def limit_of(name: str, columns: int, contract: FeatureContract) -> float:
    """Return beyond how many standard deviations a column's best question counts, where so many columns are tried."""
    return float(-ndtri(LEVEL / (2.0 * columns * tried(name, contract))))


def best(tables: Sequence[Table], least: float, contract: FeatureContract) -> Question | None:
    """Return the question with the largest gain that noise and chance do not explain; None if there is none."""
    found: Question | None = None
    largest = 0.0
    for name, table, noise in tables:
        limit = limit_of(name, len(tables), contract)
        for asked in _judged(name, table, noise, least, contract):
            if asked.gain(limit) > largest:
                found, largest = asked, asked.gain(limit)
    return found


def promising(leaves: Sequence[Sequence[Table]], least: float, contract: FeatureContract) -> tuple[str, ...]:
    """Return the columns to go on with: the half that stands out most in some leaf, and all that stand out clearly.

    `leaves` holds for each leaf that was looked at one table a column, in the same order. Fewer columns have more of a budget each.
    """
    names = [name for name, _, _ in leaves[0]]
    standing = {
        name: max(
            (asked.strength for tables in leaves for asked in _judged(*tables[place], least, contract)), default=0.0
        )
        - limit_of(name, len(names), contract)
        for place, name in enumerate(names)
    }
    ranked = sorted(names, key=lambda name: (-standing[name], names.index(name)))
    kept = ranked[: max(_FEWEST, math.ceil(len(names) / 2))]
    return tuple(name for name in names if name in kept or standing[name] > _CLEAR)


def _judged(name: str, table: Floats, noise: float, least: float, contract: FeatureContract) -> Iterator[Question]:
    for condition, fulfil in questions(name, table, noise, contract):
        asked = judge(condition, fulfil, table, noise, least)
        if asked is not None:
            yield asked
