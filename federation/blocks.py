"""The tables that a linear model's encoding looks up: for each contract column the row of every value, for a pair all their products.

`federation.basis` says why the rows are what they are, and puts them side by side.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from federation.contract import CategoricalColumn, FlagColumn, NumericColumn

Kind = Literal["additive", "logistic"]
AnyColumn = NumericColumn | CategoricalColumn | FlagColumn
Floats = NDArray[np.float64]
Raw = NDArray[np.float64] | NDArray[np.int64]

COARSE = 5
"""Knots of a number in a pair, at most: some of the contract's own, the first and the last among them."""

_LENGTH = 0.5  # correlation length of a curve, as a share of the column's knots
_LINE = 0.5  # share of the straight line in a curve's prior variance


@dataclass(frozen=True, eq=False)
class Block:
    """The encoded columns of one contract column: a table of rows to look up, or to interpolate between.

    `table` is float64 [k, d]: for numeric columns the encoded row at each knot; for categories and flags the row of
    each value. `absent` is float64 [d]: the row of a missing value.
    """

    column: AnyColumn
    names: tuple[str, ...]
    table: Floats
    absent: Floats

    @property
    def name(self) -> str:
        """The contract column."""
        return self.column.name

    def encode(self, raw: Raw) -> NDArray[np.float32]:
        """Encode n values, float32 [n, d]."""
        if isinstance(self.column, NumericColumn):
            return self._interpolate(self.column, np.asarray(raw, dtype=np.float64))
        rows = np.vstack([self.table, self.absent]).astype(np.float32)
        last = len(self.table)
        if isinstance(self.column, CategoricalColumn):
            codes = np.asarray(raw, dtype=np.int64)
            return rows[np.where((codes < 0) | (codes >= last), last, codes)]
        values = np.asarray(raw, dtype=np.float64)
        return rows[np.where(np.isnan(values), last, (values > 0.5).astype(np.int64))]

    def _interpolate(self, column: NumericColumn, values: Floats) -> NDArray[np.float32]:
        missing = np.isnan(values)
        points = on_scale(column, np.asarray(column.knots))
        place = on_scale(column, np.where(missing, column.low, values))
        left = np.clip(np.searchsorted(points, place, side="right") - 1, 0, len(points) - 2)
        share = ((place - points[left]) / np.diff(points)[left]).astype(np.float32)[:, None]
        table = self.table.astype(np.float32)
        encoded = table[left] * (np.float32(1.0) - share) + table[left + 1] * share
        encoded[missing] = self.absent
        return np.asarray(encoded, dtype=np.float32)


@dataclass(frozen=True, eq=False)
class PairBlock:
    """The encoded columns of a pair: the products of its two sides' rows, times `scale`.

    A side is a column's own block at unit scale, a number's on at most COARSE knots and without its indicator of a missing value: where
    either value is missing, all of the pair's columns are 0. Sides have rows of norm up to 1, hence so have their products.
    """

    first: Block
    second: Block
    scale: float

    @property
    def name(self) -> str:
        """Both contract columns, as `age*balance`."""
        return f"{self.first.name}*{self.second.name}"

    @property
    def names(self) -> tuple[str, ...]:
        """One name for each encoded column, as `age@30*housing`."""
        return tuple(f"{a}*{b}" for a in _kept(self.first) for b in _kept(self.second))

    @property
    def table(self) -> Floats:
        """The row of each cell, float64 [points of the first * points of the second, d]."""
        first, second = _known(self.first), _known(self.second)
        return np.asarray(self.scale * np.kron(first, second), dtype=np.float64)

    @property
    def absent(self) -> Floats:
        """The row where either value is missing: zeros, float64 [d]."""
        return np.zeros(len(self.names))

    def encode(self, first: Raw | None, second: Raw | None, count: int) -> NDArray[np.float32]:
        """Encode `count` customers by both columns, float32 [n, d]; None for a column that the institution lacks."""
        if first is None or second is None:
            return np.zeros((count, len(self.names)), dtype=np.float32)
        one, other = (
            side.encode(raw)[:, : len(_kept(side))] for side, raw in ((self.first, first), (self.second, second))
        )
        products = one[:, :, None] * (np.float32(self.scale) * other)[:, None, :]
        return np.asarray(products.reshape(count, len(self.names)), dtype=np.float32)


def points_of(column: AnyColumn) -> Floats | tuple[str, ...]:
    """Return the values of which a block's table has rows: knots in the column's own unit, or categories, or no / yes."""
    if isinstance(column, NumericColumn):
        return np.asarray(column.knots, dtype=np.float64)
    return tuple(column.categories) if isinstance(column, CategoricalColumn) else ("no", "yes")


def side_of(column: AnyColumn) -> Block:
    """Return a column's part in a pair: its block at unit scale, a number's on coarser knots."""
    if isinstance(column, NumericColumn):
        last = len(column.knots) - 1
        chosen = sorted({round(place) for place in np.linspace(0, last, min(COARSE, last + 1)).tolist()})
        column = column.model_copy(update={"knots": tuple(column.knots[place] for place in chosen)})
    return block_of(column, "additive", 1.0)


def _kept(side: Block) -> tuple[str, ...]:
    """Names of a side's encoded columns, without the indicator of a missing value."""
    return side.names if isinstance(side.column, CategoricalColumn) else side.names[:-1]


def _known(side: Block) -> Floats:
    return side.table[:, : len(_kept(side))]


def on_scale(column: NumericColumn, values: Floats) -> Floats:
    """Clip to the public bounds and go to the scale on which the basis is straight.

    Ln(1 + x - low) for `log`, else x itself.
    """
    inside = np.clip(values, column.low, column.high)
    return np.log1p(inside - column.low) if column.scale == "log" else inside


def block_of(column: AnyColumn, kind: Kind, scale: float) -> Block:
    """Return a column's block for one kind of model, with rows of norm up to `scale` (`additive`)."""
    name = column.name
    if isinstance(column, CategoricalColumn):
        size = len(column.categories) + 1
        rows = scale * (np.eye(size) - 1.0 / size) / np.sqrt(1.0 - 1.0 / size)
        names = (*(f"{name}={category}" for category in column.categories), f"{name}=unknown")
        return Block(column, names, rows[:-1], rows[-1])
    if isinstance(column, FlagColumn):
        return _with_absent(column, (name,), np.array([[-scale], [scale]]), scale)
    at_knots = on_scale(column, np.asarray(column.knots))
    line = _line(at_knots)
    if kind == "logistic":
        return _with_absent(column, (name,), scale * line[:, None], scale)
    names = tuple(f"{name}@{knot:g}" for knot in column.knots)
    return _with_absent(column, names, scale * _root(_curve_kernel(line)), scale)


def _with_absent(column: NumericColumn | FlagColumn, names: tuple[str, ...], values: Floats, scale: float) -> Block:
    """Add the indicator of a missing value; where it is 1, all other columns of the block are 0."""
    table = np.hstack([values, np.zeros((len(values), 1))])
    return Block(column, (*names, f"{column.name}?missing"), table, np.append(np.zeros(len(names)), scale))


def _line(points: Floats) -> Floats:
    """The straight line through the knots with mean 0 and variance 1 under the public reference, float64 [k]."""
    share = (points - points[0]) / (points[-1] - points[0])
    centred = share - reference_mean(len(points)) @ share
    return np.asarray(centred / np.sqrt(_reference_power(np.outer(centred, centred))))


def _curve_kernel(line: Floats) -> Floats:
    """Prior covariance of a curve's values at the knots, centred under the reference, largest variance 1.

    Float64 [k, k].
    """
    size = len(line)
    place = np.arange(size) / (size - 1)
    rough = np.exp(-np.abs(place[:, None] - place[None, :]) / _LENGTH)
    centring = np.eye(size) - np.outer(np.ones(size), reference_mean(size))
    rough = centring @ rough @ centring.T
    kernel = (1.0 - _LINE) * rough / _reference_power(rough) + _LINE * np.outer(line, line)
    return np.asarray(kernel / np.diag(kernel).max())


def reference_mean(size: int) -> Floats:
    """Mean of the hats when all intervals between knots are equally likely: half weight at both ends."""
    mean = np.ones(size)
    mean[[0, -1]] = 0.5
    return mean / (size - 1)


def _reference_power(kernel: Floats) -> float:
    """Mean over the reference of h(x)' K h(x): on one interval the mean of hat products is 1/3, 1/6 and 1/3."""
    diagonal, beside = np.diag(kernel), np.diag(kernel, 1)
    return float(np.mean((diagonal[1:] + diagonal[:-1] + beside) / 3.0))


def _root(kernel: Floats) -> Floats:
    """Return the symmetric square root of a positive semidefinite matrix."""
    values, vectors = np.linalg.eigh(kernel)
    return np.asarray((vectors * np.sqrt(np.clip(values, 0.0, None))) @ vectors.T)
