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

*Pairs.* Two columns whose curves depend on each other get a surface beside them: all products of their rows, a number's
on at most COARSE of its knots. The product of two kernels is a kernel, and the product of centred rows is centred in
either column, so that under the public reference a surface repeats neither curve.

*Row norms.* Each contract column and each pair adds at most 1 to the squared norm of a row (`additive`), all rows are
multiplied by ROW_NORM / sqrt(columns + pairs): so ||x|| <= ROW_NORM whatever the contract's length, and one rule for
steps and clips fits all (`server.recipe`). An intercept of 1 beside rows of norm 4 takes 1/17 of what clipping leaves for the
features.

Nothing here is learned: two institutions with the same contract encode a customer to the same bits.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from federation.blocks import COARSE, Block, Floats, Kind, PairBlock, Raw, block_of, on_scale, points_of, side_of
from federation.contract import FeatureContract
from federation.errors import DocumentError
from federation.study import AdditiveModel, LogisticModel, Model

__all__ = [
    "MOST_CELLS",
    "ROW_NORM",
    "Basis",
    "Columns",
    "Kind",
    "Pair",
    "Points",
    "model_problems",
    "on_scale",
    "pair_problems",
]

Columns = Mapping[str, NDArray[np.float64] | NDArray[np.int64]]
Points = Floats | tuple[str, ...]
Pair = tuple[str, str]

ROW_NORM = 4.0
MOST_CELLS = 64
"""Cells of a pair's surface, at most: a surface with more would be noise."""


@dataclass(frozen=True, eq=False)
class Basis:
    """A contract's encoding for one kind of linear model; build it with `Basis.of`, or with `Basis.of_model` for what a study names.

    A *term* is what one contract column or one pair adds to the logit; terms are named by the column, or as `age*balance`.
    """

    kind: Kind
    _parts: tuple[Block, ...]
    _pairs: tuple[PairBlock, ...] = ()

    @classmethod
    def of(cls, contract: FeatureContract, kind: Kind, pairs: tuple[Pair, ...] = ()) -> "Basis":
        """Return the encoding of `contract` for `additive` or `logistic` models, with these pairs of columns beside them.

        Raises
        ------
        DocumentError
            CSL-F401 for another kind of model; CSL-F420 for a pair of columns that the contract does not have; CSL-F421 for one with too
            many cells; CSL-F422 for pairs in a logistic model.
        """
        if kind not in ("additive", "logistic"):
            raise DocumentError(
                "CSL-F401", f'There is no basis for a model of kind "{kind}".', "Use additive or logistic."
            )
        if pairs and kind != "additive":
            raise DocumentError("CSL-F422", "Only additive models have pairs.", "Use additive, or leave out the pairs.")
        scale = float(ROW_NORM / np.sqrt(len(contract.columns) + len(pairs)))
        found = tuple(_pair(contract, pair, scale) for pair in pairs)
        return cls(kind, tuple(block_of(column, kind, scale) for column in contract.columns), found)

    @classmethod
    def of_model(cls, contract: FeatureContract, model: AdditiveModel | LogisticModel) -> "Basis":
        """Return the encoding that a study's linear model reads; raises as `of`."""
        return cls.of(contract, model.kind, model.pairs if isinstance(model, AdditiveModel) else ())

    @cached_property
    def names(self) -> tuple[str, ...]:
        """One name for each encoded column: `age@30`, `job=admin.`, `housing`, `age?missing`, `age@30*housing`."""
        return tuple(name for part in self._terms.values() for name in part.names)

    @cached_property
    def blocks(self) -> Mapping[str, slice]:
        """Term -> where its encoded columns are: contract columns in their order, then pairs in the study's."""
        ends = np.cumsum([0, *(len(part.names) for part in self._terms.values())]).tolist()
        return {name: slice(ends[i], ends[i + 1]) for i, name in enumerate(self._terms)}

    @cached_property
    def pairs(self) -> Mapping[str, Pair]:
        """Term of a pair -> its two contract columns."""
        return {part.name: (part.first.name, part.second.name) for part in self._pairs}

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
        for pair in self._pairs:
            both = columns.get(pair.first.name), columns.get(pair.second.name)
            encoded[:, self.blocks[pair.name]] = pair.encode(*both, n)
        return encoded

    def points(self, column: str) -> Points:
        """Return the values at which a column's curve is told: knots in its own unit, or categories, or no / yes."""
        return points_of(self._columns[column].column)

    def table(self, term: str) -> Floats:
        """Return the encoded row at each point of a column, float64 [points, d], or at each cell of a pair, the second's points fastest."""
        return self._terms[term].table

    def absent_row(self, term: str) -> Floats:
        """Return the encoded row of a missing or unknown value, float64 [d]; for a pair that of one missing number or flag: zeros."""
        return self._terms[term].absent

    def shape(self, weights: NDArray[np.floating], column: str) -> tuple[Points, Floats]:
        """Return what one column adds to the logit: (points, contributions), exact.

        Points are the knots in the column's own unit (between them the contribution is a straight line on the
        column's scale, see `on_scale`), or the categories, or no / yes; the missing or unknown value is not among
        them: see `absent`. What pairs add is not in it: see `surface`. KeyError for a name that is not in the contract.
        """
        return self.points(column), self.table(column) @ self._own(weights, column)

    def surface(self, weights: NDArray[np.floating], term: str) -> tuple[Points, Points, Floats]:
        """Return what a pair adds to the logit beside its two curves: (points of the first, of the second, float64 [first, second]), exact.

        Between a number's points it is a straight line on the column's scale; where a number or a flag is missing it is 0. KeyError for a
        term that is no pair.
        """
        pair = {part.name: part for part in self._pairs}[term]
        points, others = points_of(pair.first.column), points_of(pair.second.column)
        return points, others, (pair.table @ self._own(weights, term)).reshape(len(points), len(others))

    def absent(self, weights: NDArray[np.floating], column: str) -> float:
        """Return what a missing or unknown value of one column adds to the logit.

        KeyError for a name that is not in the contract.
        """
        return float(self._columns[column].absent @ self._own(weights, column))

    def contributions(self, encoded: NDArray[np.float32], weights: NDArray[np.floating]) -> Floats:
        """Return each term's part of the logit, float64 [n, contract columns + pairs]; with the intercept they add up to it.

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

    def by_column(self, terms: Floats) -> Floats:
        """Return `contributions` with half of each pair's term given to either of its columns, float64 [n, contract columns].

        They add up to the same logit. Halves are the Shapley values of a game of two in which neither alone brings anything (Shapley 1953):
        a pair's term is what the two columns do together.
        """
        names = list(self._columns)
        shared = terms[:, : len(names)].copy()
        for place, pair in enumerate(self.pairs.values(), start=len(names)):
            for name in pair:
                shared[:, names.index(name)] += 0.5 * terms[:, place]
        return shared

    def contribution(self, column: str, raw: Raw, weights: NDArray[np.floating]) -> Floats:
        """Return what n values of one column, as `encode` takes them, add to the logit without its pairs.

        Float64 [n]; KeyError for an unknown name.
        """
        return np.asarray(self._columns[column].encode(raw).astype(np.float64) @ self._own(weights, column))

    def _own(self, weights: NDArray[np.floating], term: str) -> Floats:
        return np.asarray(weights, dtype=np.float64).reshape(-1)[self.blocks[term]]

    @cached_property
    def _columns(self) -> Mapping[str, Block]:
        return {part.name: part for part in self._parts}

    @cached_property
    def _terms(self) -> Mapping[str, Block | PairBlock]:
        found: dict[str, Block | PairBlock] = {part.name: part for part in self._parts}
        return found | {part.name: part for part in self._pairs}


def pair_problems(contract: FeatureContract, pairs: tuple[Pair, ...]) -> Iterator[DocumentError]:
    """Yield what keeps these pairs from being surfaces, as the errors that `Basis.of` would raise."""
    known = [column.name for column in contract.columns]
    for pair in pairs:
        if unknown := [name for name in pair if name not in known]:
            yield DocumentError(
                "CSL-F420",
                f"The contract has no column {' or '.join(unknown)} for a pair; it has {', '.join(known)}.",
                "Name other columns in the study's pairs.",
            )
            continue
        cells = [len(side_of(contract.column(name)).table) for name in pair]
        if cells[0] * cells[1] > MOST_CELLS:
            yield DocumentError(
                "CSL-F421",
                f"The pair {pair[0]} and {pair[1]} has {cells[0]} x {cells[1]} cells; {MOST_CELLS} are allowed "
                f"(numbers count with at most {COARSE} of their knots).",
                "Name a pair with fewer categories in the study.",
            )


def model_problems(contract: FeatureContract, model: Model) -> list[str]:
    """Return what keeps a study's model from fitting its contract, in words: `monotone` and `pairs` name columns."""
    if not isinstance(model, AdditiveModel):
        return []
    known = [column.name for column in contract.columns]
    numeric = [column.name for column in contract.columns if column.kind == "numeric"]
    problems = []
    for name in sorted(model.monotone):
        if name not in known:
            problems.append(f"model.monotone: the contract has no column {name}; it has {', '.join(known)}")
        elif name not in numeric:
            listed = ", ".join(numeric) or "there is none"
            problems.append(f"model.monotone: {name} is no number, and only numbers rise or fall: {listed}")
    return problems + [f"model.pairs: {problem.cause}" for problem in pair_problems(contract, model.pairs)]


def _pair(contract: FeatureContract, pair: Pair, scale: float) -> PairBlock:
    for problem in pair_problems(contract, (pair,)):
        raise problem
    return PairBlock(side_of(contract.column(pair[0])), side_of(contract.column(pair[1])), scale)
