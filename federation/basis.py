"""The encoding of the linear models: public knots and categories in, centred and scaled columns out.

A `logistic` model gives each numeric column one weight. An `additive` model gives it a curve that bends at the
contract's knots and nowhere else: the row is first written in the hat basis h_1 .. h_k (piecewise linear, h_j is 1
at knot j and 0 at the others), then multiplied by a public k x k matrix S. The fitted curve has the value (S w)_j
at knot j and is a straight line between knots, on the column's own scale: it can be plotted and explained exactly.

Why S, and not plain hats: clipped noisy gradients reach every coordinate with the same noise, so what can be
learned is decided by the kernel K = S S'. Plain hats (K = I) spend the same budget on every jagged curve as on a
plain trend. K is half a straight line and half the exponential (Ornstein-Uhlenbeck) covariance exp(-2|i - j| / (k -
1)) of values at knots i and j; both are centred, so that a constant, which the intercept already holds, costs
nothing. Rasmussen and Williams 2006, sections 2.2 and 4.2.1, have the kernels; that the straight line is inside
makes `additive` contain `logistic`. S is the symmetric square root of K, so coordinate j still belongs to knot j.

*Public reference.* Centring and scaling need a distribution, and the data's own would have to be paid for: instead
all intervals between knots are taken to be equally likely, and values uniform within. A contract whose knots are
closer where customers are more frequent thus scales itself.

*Row norms.* Each contract column adds at most 1 to the squared norm of a row (`additive`), all rows are multiplied
by ROW_NORM / sqrt(columns): so ||x|| <= ROW_NORM whatever the contract's length, and one rule for steps and clips
fits all (`server.recipe`). An intercept of 1 beside rows of norm 4 takes 1/17 of what clipping leaves for the
features.

Nothing here is learned: two institutions with the same contract encode a customer to the same bits.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from federation.contract import CategoricalColumn, FeatureContract, FlagColumn, NumericColumn
from federation.errors import DocumentError

Kind = Literal["additive", "logistic"]
Columns = Mapping[str, NDArray[np.float64] | NDArray[np.int64]]
Floats = NDArray[np.float64]

ROW_NORM = 4.0
_LENGTH = 0.5  # correlation length of a curve, as a share of the column's knots
_LINE = 0.5  # share of the straight line in a curve's prior variance


@dataclass(frozen=True, eq=False)
class _Block:
    """The encoded columns of one contract column: a table of rows to look up, or to interpolate between.

    `table` is float64 [k, d]: for numeric columns the encoded row at each knot; for categories and flags the row of
    each value. `absent` is float64 [d]: the row of a missing value.
    """

    column: NumericColumn | CategoricalColumn | FlagColumn
    names: tuple[str, ...]
    table: Floats
    absent: Floats

    def encode(self, raw: NDArray[np.float64] | NDArray[np.int64]) -> NDArray[np.float32]:
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
class Basis:
    """A contract's encoding for one kind of linear model; build it with `Basis.of`."""

    kind: Kind
    _parts: tuple[_Block, ...]

    @classmethod
    def of(cls, contract: FeatureContract, kind: Kind) -> "Basis":
        """Return the encoding of `contract` for `additive` or `logistic` models.

        Raises
        ------
        DocumentError
            CSL-F401 for another kind of model.
        """
        if kind not in ("additive", "logistic"):
            raise DocumentError(
                "CSL-F401", f'There is no basis for a model of kind "{kind}".', "Use additive or logistic."
            )
        scale = ROW_NORM / np.sqrt(len(contract.columns))
        return cls(kind, tuple(_block(column, kind, float(scale)) for column in contract.columns))

    @cached_property
    def names(self) -> tuple[str, ...]:
        """One name for each encoded column: `age@30`, `job=admin.`, `housing`, `age?missing`."""
        return tuple(name for part in self._parts for name in part.names)

    @cached_property
    def blocks(self) -> Mapping[str, slice]:
        """Contract column -> where its encoded columns are."""
        ends = np.cumsum([0, *(len(part.names) for part in self._parts)]).tolist()
        return {part.column.name: slice(ends[i], ends[i + 1]) for i, part in enumerate(self._parts)}

    @property
    def width(self) -> int:
        """Number of encoded columns; the intercept is not among them."""
        return len(self.names)

    def encode(self, columns: Columns) -> NDArray[np.float32]:
        """Encode n customers, float32 [n, width].

        Parameters
        ----------
        columns:
            By contract column name, all of length n: numeric float64 in the column's own unit with NaN for missing
            (values outside the bounds count as the nearest bound), categorical int64 with -1 for unknown, flag
            float64 0 / 1 / NaN. An optional column may be absent.

        Raises
        ------
        DocumentError
            CSL-F402 when a required column is absent, CSL-F403 when the columns differ in length.
        """
        lengths = {len(values) for values in columns.values()}
        if len(lengths) > 1:
            raise DocumentError(
                "CSL-F403", "The columns differ in length.", "Pass one value a customer for every column."
            )
        n = lengths.pop() if lengths else 0
        encoded = np.empty((n, self.width), dtype=np.float32)
        for part in self._parts:
            name = part.column.name
            if name in columns:
                encoded[:, self.blocks[name]] = part.encode(columns[name])
            elif part.column.required:
                raise DocumentError(
                    "CSL-F402", f"The contract requires column {name}.", "Map it in the node's configuration."
                )
            else:
                encoded[:, self.blocks[name]] = part.absent
        return encoded

    def shape(self, weights: NDArray[np.floating], column: str) -> tuple[Floats | tuple[str, ...], Floats]:
        """Return what one column adds to the logit: (points, contributions), exact.

        Points are the knots in the column's own unit (between them the contribution is a straight line on the
        column's scale, see `on_scale`), or the categories, or no / yes; the missing or unknown value is not among
        them: see `absent`. KeyError for a name that is not in the contract.
        """
        part = self._by_name[column]
        contribution = part.table @ np.asarray(weights, dtype=np.float64).reshape(-1)[self.blocks[column]]
        if isinstance(part.column, NumericColumn):
            return np.asarray(part.column.knots, dtype=np.float64), contribution
        names = part.column.categories if isinstance(part.column, CategoricalColumn) else ("no", "yes")
        return tuple(names), contribution

    def absent(self, weights: NDArray[np.floating], column: str) -> float:
        """Return what a missing or unknown value of one column adds to the logit.

        KeyError for a name that is not in the contract.
        """
        return float(
            self._by_name[column].absent @ np.asarray(weights, dtype=np.float64).reshape(-1)[self.blocks[column]]
        )

    def contributions(self, encoded: NDArray[np.float32], weights: NDArray[np.floating]) -> Floats:
        """Return each contract column's part of the logit, float64 [n, contract columns]; with the intercept they
        add up to it.

        Parameters
        ----------
        encoded:
            float32 [n, width], from `encode`.
        weights:
            [width] without the intercept.
        """
        own = np.asarray(weights, dtype=np.float64).reshape(-1)
        terms = [encoded[:, place].astype(np.float64) @ own[place] for place in self.blocks.values()]
        return np.stack(terms, axis=1)

    def contribution(
        self, column: str, raw: NDArray[np.float64] | NDArray[np.int64], weights: NDArray[np.floating]
    ) -> Floats:
        """Return what n values of one column, as `encode` takes them, add to the logit.

        Float64 [n]; KeyError for an unknown name.
        """
        own = np.asarray(weights, dtype=np.float64).reshape(-1)[self.blocks[column]]
        return np.asarray(self._by_name[column].encode(raw).astype(np.float64) @ own)

    @cached_property
    def _by_name(self) -> Mapping[str, _Block]:
        return {part.column.name: part for part in self._parts}


def on_scale(column: NumericColumn, values: Floats) -> Floats:
    """Clip to the public bounds and go to the scale on which the basis is straight.

    Ln(1 + x - low) for `log`, else x itself.
    """
    inside = np.clip(values, column.low, column.high)
    return np.log1p(inside - column.low) if column.scale == "log" else inside


def _block(column: NumericColumn | CategoricalColumn | FlagColumn, kind: Kind, scale: float) -> _Block:
    name = column.name
    if isinstance(column, CategoricalColumn):
        size = len(column.categories) + 1
        rows = scale * (np.eye(size) - 1.0 / size) / np.sqrt(1.0 - 1.0 / size)
        names = (*(f"{name}={category}" for category in column.categories), f"{name}=unknown")
        return _Block(column, names, rows[:-1], rows[-1])
    if isinstance(column, FlagColumn):
        return _with_absent(column, (name,), np.array([[-scale], [scale]]), scale)
    at_knots = on_scale(column, np.asarray(column.knots))
    line = _line(at_knots)
    if kind == "logistic":
        return _with_absent(column, (name,), scale * line[:, None], scale)
    names = tuple(f"{name}@{knot:g}" for knot in column.knots)
    return _with_absent(column, names, scale * _root(_curve_kernel(line)), scale)


def _with_absent(column: NumericColumn | FlagColumn, names: tuple[str, ...], values: Floats, scale: float) -> _Block:
    """Add the indicator of a missing value; where it is 1, all other columns of the block are 0."""
    table = np.hstack([values, np.zeros((len(values), 1))])
    return _Block(column, (*names, f"{column.name}?missing"), table, np.append(np.zeros(len(names)), scale))


def _line(points: Floats) -> Floats:
    """The straight line through the knots with mean 0 and variance 1 under the public reference, float64 [k]."""
    share = (points - points[0]) / (points[-1] - points[0])
    centred = share - _reference_mean(len(points)) @ share
    return np.asarray(centred / np.sqrt(_reference_power(np.outer(centred, centred))))


def _curve_kernel(line: Floats) -> Floats:
    """Prior covariance of a curve's values at the knots, centred under the reference, largest variance 1.

    Float64 [k, k].
    """
    size = len(line)
    place = np.arange(size) / (size - 1)
    rough = np.exp(-np.abs(place[:, None] - place[None, :]) / _LENGTH)
    centring = np.eye(size) - np.outer(np.ones(size), _reference_mean(size))
    rough = centring @ rough @ centring.T
    kernel = (1.0 - _LINE) * rough / _reference_power(rough) + _LINE * np.outer(line, line)
    return np.asarray(kernel / np.diag(kernel).max())


def _reference_mean(size: int) -> Floats:
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
