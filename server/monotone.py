"""Curves that a study wants monotone: the released weights are projected onto those whose curves are, at no cost in budget.

Post-processing of what was released already (Dwork and Roth 2014, Proposition 2.1). Of all weights whose curve rises (or
falls) from knot to knot, those nearest to the released ones are taken. Near is measured in the weights, where the noise
of a descent without curvature is the same in every direction. A projection onto a convex set brings its argument nearer
to every point of the set: where the noiseless curve is monotone, what is removed was noise. This is isotonic regression
in the metric of the noise (Barlow, Bartholomew, Bremner, Brunk 1972), solved by least distance programming (Lawson and
Hanson 1974, chapter 23). The intercept makes up for it, so that the average customer's score stays.

It holds exactly for the published float32 weights, at every knot. Between knots a curve is a straight line, up to the
rounding of float32.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from federation.basis import Basis, model_problems
from federation.contract import FeatureContract
from federation.errors import FederationError
from federation.study import AdditiveModel, Model
from server.descent import BIAS, WEIGHT

Floats = NDArray[np.float64]
Tensors32 = dict[str, NDArray[np.float32]]

# Rises from knot to knot, in the logit, that are asked for in turn until rounding to float32 leaves none below zero.
_MARGINS = (0.0, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3)


@dataclass(frozen=True, eq=False)
class Cone:
    """What one column's weights must satisfy: `rises @ weights[place] >= 0`; float64 [2 (knots - 1), d], in both precisions."""

    column: str
    place: slice
    rises: Floats


def cones_of(model: Model, contract: FeatureContract) -> tuple[Cone, ...]:
    """Return what a study's `monotone` asks of the weights; nothing for other models.

    Raises
    ------
    FederationError
        CSL-S707 for a column that is not a number of the contract.
    """
    if not isinstance(model, AdditiveModel) or not model.monotone:
        return ()
    if problems := model_problems(contract, model):
        raise FederationError(
            "CSL-S707", f"The study's model does not fit its contract: {'; '.join(problems)}.", "Correct the draft."
        )
    basis = Basis.of_model(contract, model)
    return tuple(
        _cone(basis, name, 1.0 if way == "increasing" else -1.0) for name, way in sorted(model.monotone.items())
    )


def held(tensors: Mapping[str, NDArray[np.float32]], cones: Sequence[Cone], mean: Floats | None) -> Tensors32:
    """Return a linear model's tensors with every cone satisfied; what satisfies them already is not touched.

    Parameters
    ----------
    tensors:
        `linear.weight` [1, d] and `linear.bias` [1].
    mean:
        Mean encoded row, float64 [d], whose logit stays; None where it is not known: then the bias stays.
    """
    weights = tensors[WEIGHT][0].copy()
    for cone in cones:
        weights[cone.place] = _nearest(weights[cone.place], cone.rises)
    moved = weights.astype(np.float64) - tensors[WEIGHT][0].astype(np.float64)
    shift = 0.0 if mean is None else float(mean @ moved)
    bias = (tensors[BIAS].astype(np.float64) - shift).astype(np.float32)
    return {**tensors, WEIGHT: weights[None, :], BIAS: bias}


def _nearest(weights: NDArray[np.float32], rises: Floats) -> NDArray[np.float32]:
    """Return the nearest float32 weights with no fall."""
    own = weights.astype(np.float64)
    if (rises @ own).min() >= 0.0:
        return weights
    for margin in _MARGINS:
        found = (own + _least_move(rises, margin - rises @ own)).astype(np.float32)
        if (rises @ found.astype(np.float64)).min() >= 0.0:
            return found
    return np.zeros_like(weights)  # a curve that no rounding spares is flat


def _least_move(rises: Floats, wanted: Floats) -> Floats:
    """Return the shortest u with rises @ u >= wanted: least distance programming by non-negative least squares."""
    target = np.append(np.zeros(rises.shape[1]), 1.0)
    system = np.vstack([rises.T, wanted])
    found, _ = nnls(system, target, maxiter=100 * len(rises))
    rest = system @ found - target
    return np.asarray(-rest[:-1] / rest[-1])


def _cone(basis: Basis, column: str, sign: float) -> Cone:
    table = basis.table(column)
    rounded = table.astype(np.float32).astype(np.float64)
    rises = sign * np.vstack([np.diff(table, axis=0), np.diff(rounded, axis=0)])
    return Cone(column, basis.blocks[column], rises)
