"""Exact figures that only a simulation can compute: it plays every party at once.

None of this is part of a federation. A report that shows these figures says that no party would see them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score, roc_curve

from client.calibration import calibrate
from client.cohort import Cohort, load_cohort, split
from client.config import NodeConfig
from federation.basis import Basis
from federation.charter import Declaration
from federation.contract import FeatureContract
from federation.study import HashHoldout, PositionHoldout
from simulations.results import Curve

Floats = NDArray[np.float64]

TOP_SHARE = 0.1
_CURVE_POINTS = 81
_LIFT_POINTS = 50
_BINS = 10
_MAX_ITERATIONS = 100
_STRENGTHS = (0.01, 0.1, 1.0)
_FOLDS = 3
_ENOUGH = 20_000


@dataclass(frozen=True)
class Truth:
    """One institution's consenting customers, encoded: float32 [n, width] and labels [n], to train on and held out."""

    training: NDArray[np.float32]
    training_labels: Floats
    heldout: NDArray[np.float32]
    heldout_labels: Floats
    cohort: Cohort


def truth_of(
    node: NodeConfig,
    contract: FeatureContract,
    declaration: Declaration,
    consent: str,
    holdout: HashHoldout | PositionHoldout,
    key: bytes,
    kind: Literal["additive", "logistic"],
) -> Truth:
    """Read one institution's data as its vault does; `kind` names the encoding, additive or logistic."""
    cohort, _ = load_cohort(node, contract, declaration, consent, "learn")
    learning, heldout = split(cohort, holdout, key)
    basis = Basis.of(contract, kind)
    assert learning.label is not None and heldout.label is not None
    return Truth(basis.encode(learning.columns), learning.label, basis.encode(heldout.columns), heldout.label, heldout)


def fit(parts: Sequence[Truth]) -> LogisticRegression:
    """Fit scikit-learn's logistic regression (C = 1) without privacy on all these institutions' records together."""
    return fit_rows(
        np.concatenate([part.training for part in parts]), np.concatenate([part.training_labels for part in parts])
    )


def fit_rows(x: NDArray[np.float32], y: Floats, strength: float = 1.0) -> LogisticRegression:
    """Fit the same on rows [n, width] with labels [n] of both classes; `strength` is scikit-learn's C, one over the penalty."""
    model = LogisticRegression(C=strength, solver="newton-cholesky", max_iter=_MAX_ITERATIONS)
    return model.fit(x.astype(np.float64), y)


def choose_strength(x: NDArray[np.float32], y: Floats, draw: np.random.Generator) -> float:
    """Return the C of .01, .1 and 1 with the least log loss in threefold cross-validation.

    Of more than 20,000 rows as many are drawn: what penalty is best hardly depends on how many rows there are beyond. Where rows are so few
    that somebody would learn from one class alone, the strongest penalty is taken.

    Parameters
    ----------
    x, y:
        Rows [n, width] and labels [n], 0 or 1.
    """
    order = draw.permutation(len(y))[:_ENOUGH]
    folds = np.array_split(order, _FOLDS)
    losses = np.zeros(len(_STRENGTHS))
    for fold, judged in enumerate(folds):
        learned = np.concatenate(folds[:fold] + folds[fold + 1 :])
        if min(len(set(y[part].tolist())) for part in (learned, judged)) < 2:
            return _STRENGTHS[0]
        signs = 1.0 - 2.0 * y[judged]
        for place, strength in enumerate(_STRENGTHS):
            found = logits(fit_rows(x[learned], y[learned], strength), x[judged])
            losses[place] += float(np.logaddexp(0.0, signs * found).sum())
    return _STRENGTHS[int(losses.argmin())]


def logits(model: LogisticRegression, encoded: NDArray[np.float32]) -> Floats:
    """Return a fitted regression's logits, float64 [n]."""
    return np.asarray(model.decision_function(encoded), dtype=np.float64)


def auc(labels: Floats, scores: Floats) -> float:
    """Return the exact area under the ROC curve, ties counting one half."""
    return float(roc_auc_score(labels, scores))


def lift(labels: Floats, scores: Floats, share: float = TOP_SHARE) -> float:
    """Return the share of positives among the best-scored `share` of customers, over that among all.

    Of customers with the same score any may be chosen: the mean over all such choices counts.
    """
    count = max(1, round(share * len(scores)))
    return float(_hits(labels, scores)[count - 1] / count / labels.mean())


def _hits(labels: Floats, scores: Floats) -> Floats:
    """Return how many positives the best-scored 1, 2, ... n customers hold, float64 [n]: among equals each counts their mean."""
    order = np.argsort(-scores, kind="stable")
    _, group = np.unique(-scores[order], return_inverse=True)
    mean = np.bincount(group, labels[order]) / np.bincount(group)
    return np.cumsum(mean[group])


def roc(role: str, labels: Floats, scores: Floats) -> Curve:
    """Return the ROC curve, thinned to a grid."""
    false, true, _ = roc_curve(labels, scores)
    grid = np.linspace(0.0, 1.0, _CURVE_POINTS)
    return _curve(role, np.append(0.0, grid), np.append(0.0, np.interp(grid, false, true)))


def lift_curve(role: str, labels: Floats, scores: Floats) -> Curve:
    """Return the lift of the best-scored share of customers, for shares from 2% to all."""
    hits = _hits(labels, scores)
    shares = np.arange(1, _LIFT_POINTS + 1) / _LIFT_POINTS
    counts = np.maximum(1, np.round(shares * len(labels)).astype(np.int64))
    return _curve(role, counts / len(labels), hits[counts - 1] / counts / labels.mean())


def calibration_curve(role: str, labels: Floats, probabilities: Floats) -> Curve:
    """Return mean predicted and observed in ten bins of equal counts."""
    parts = [part for part in np.array_split(np.argsort(probabilities, kind="stable"), _BINS) if len(part)]
    return _curve(role, np.array([probabilities[p].mean() for p in parts]), np.array([labels[p].mean() for p in parts]))


def probability(logit: Floats) -> Floats:
    """Return the logistic function."""
    result: Floats = expit(logit)
    return result


def calibrated_at_home(logit: Floats, labels: Floats) -> Floats:
    """Return probabilities as an institution calibrates them: each half by what was fitted on the other."""
    result = np.empty_like(logit)
    half = np.arange(len(logit)) % 2 == 0
    for judged in (half, ~half):
        result[judged] = calibrate(logit[~judged], labels[~judged]).probability(logit[judged])
    return result


def _curve(role: str, x: Floats, y: Floats) -> Curve:
    return Curve(role, tuple(float(v) for v in x), tuple(float(v) for v in y))
