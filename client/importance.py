"""How much each term of an additive model matters over all customers: the mean distance between what it adds and what it adds on average.

Either under the contract's public reference, which every member finds alike: all intervals between knots and all categories, "unknown"
among them, equally likely (for a pair its own knots, and the values that are listed). Or over an institution's own customers, which stays
at the institution.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from federation.basis import Basis, Columns
from federation.contract import CategoricalColumn, FeatureContract, NumericColumn

Floats = NDArray[np.float64]

_PLACES = 8  # points within an interval at which a surface is read: midpoints, so that errors are of second order


def reference_importance(basis: Basis, contract: FeatureContract, weights: NDArray[np.floating]) -> dict[str, float]:
    """Return term -> mean absolute contribution to the logit under the public reference, each centred on its mean there."""
    found = {}
    for column in contract.columns:
        _, effect = basis.shape(weights, column.name)
        if isinstance(column, NumericColumn):
            found[column.name] = _along(effect - 0.5 * float(np.mean(effect[1:] + effect[:-1])))
        elif isinstance(column, CategoricalColumn):
            found[column.name] = _spread(np.append(effect, basis.absent(weights, column.name)))
        else:
            found[column.name] = _spread(effect)
    for term, pair in basis.pairs.items():
        surface = basis.surface(weights, term)[2]
        for axis, name in enumerate(pair):
            if isinstance(contract.column(name), NumericColumn):
                surface = _between(surface, axis)
        found[term] = _spread(surface)
    return found


def own_importance(basis: Basis, weights: NDArray[np.floating], customers: Columns) -> dict[str, float]:
    """Return term -> mean absolute contribution over these customers, each centred on its mean over them; 0 without customers."""
    terms = basis.contributions(basis.encode(customers), weights)
    if not len(terms):
        return dict.fromkeys(basis.blocks, 0.0)
    mean = np.abs(terms - terms.mean(axis=0)).mean(axis=0)
    return dict(zip(basis.blocks, mean.tolist(), strict=True))


def in_order(importance: Mapping[str, float]) -> list[str]:
    """Return the terms, the most important first; ties by name."""
    return sorted(importance, key=lambda term: (-importance[term], term))


def _spread(values: Floats) -> float:
    return float(np.abs(values - values.mean()).mean())


def _along(effect: Floats) -> float:
    """Mean of |f| for a curve that is straight between these values, all intervals equally likely; exact."""
    left, right = effect[:-1], effect[1:]
    total = np.abs(left) + np.abs(right)
    same = 0.5 * np.abs(left + right)
    crossing = 0.5 * (left**2 + right**2) / np.where(total > 0.0, total, 1.0)
    return float(np.where(left * right >= 0.0, same, crossing).mean())


def _between(surface: Floats, axis: int) -> Floats:
    """Read a surface at midpoints within the intervals along one axis."""
    share = (np.arange(_PLACES) + 0.5) / _PLACES
    rows = np.moveaxis(surface, axis, 0)
    inner = rows[:-1, None] * (1.0 - share)[None, :, None] + rows[1:, None] * share[None, :, None]
    return np.asarray(np.moveaxis(inner.reshape(-1, rows.shape[1]), 0, axis))
