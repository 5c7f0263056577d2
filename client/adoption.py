"""The local check before a released model is adopted: finite weights, and no clear harm on the own hold-out.

The result stays local. It depends on private data and is not paid for from the budget, so nobody may be told of it,
and whether an institution adopts a model must not be visible to the coordinator.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri
from scipy.stats import rankdata

from client.calibration import Floats, check_outcomes
from federation.document import Document

# DeLong's variance is a large-sample formula; below this many customers of either outcome it is not worth its name.
MIN_EACH = 10
# A new model may rank worse than the one in use by this much before it is refused: freshness is worth something.
MARGIN = 0.005
CONFIDENCE = 0.95


class Adoption(Document):
    """Whether the institution adopts a model, and why: `reasons` names every fault, or what was found in order.

    AUCs are those on the institution's own hold-out, None where they cannot be told; intervals are 95%, two-sided.
    """

    adopted: bool
    reasons: tuple[str, ...]
    customers: int
    events: int
    auc: float | None = None
    auc_interval: tuple[float, float] | None = None
    auc_current: float | None = None
    difference_interval: tuple[float, float] | None = None


@dataclass(frozen=True)
class DeLong:
    """AUCs [k] of k scores on the same customers and their covariance [k, k]."""

    auc: Floats
    covariance: Floats


def delong(scores: NDArray[np.floating], labels: NDArray[np.floating]) -> DeLong:
    """Return the AUC of each row of `scores` [k, n] and their covariance; needs two customers of either outcome.

    DeLong, DeLong and Clarke-Pearson 1988, equations 3-5, computed from midranks (Sun and Xu 2014, algorithm 2); ties
    count one half.
    """
    s = np.atleast_2d(np.asarray(scores, dtype=np.float64))
    yes = np.asarray(labels) == 1.0
    m, n = int(yes.sum()), int((~yes).sum())
    pooled = rankdata(s, axis=1)
    v10 = (pooled[:, yes] - rankdata(s[:, yes], axis=1)) / n
    v01 = 1.0 - (pooled[:, ~yes] - rankdata(s[:, ~yes], axis=1)) / m
    return DeLong(auc=v10.mean(axis=1), covariance=_covariance(v10) / m + _covariance(v01) / n)


def _covariance(rows: Floats) -> Floats:
    centred = rows - rows.mean(axis=1, keepdims=True)
    result: Floats = centred @ centred.T / (rows.shape[1] - 1)
    return result


def check_model(
    weights: Mapping[str, NDArray[np.generic]],
    logits: NDArray[np.floating],
    labels: NDArray[np.floating],
    current: NDArray[np.floating] | None = None,
) -> Adoption:
    """Decide whether to adopt a model from its scores of the institution's own held-out customers.

    It is refused when a weight or a score is not finite, when it gives every customer the same score, when its AUC is
    clearly below 0.5, or clearly below that of the model in use by more than 0.005: "clearly" by one-sided tests at
    5% (DeLong, paired for the model in use). With fewer than 10 customers of either outcome nothing can be told from
    the hold-out, and the reasons say so.

    Parameters
    ----------
    weights:
        Tensors by name.
    logits, current:
        [n] scores under the new model and, where there is one, under the model in use; the same customers in the same
        order.
    labels:
        [n], 0 or 1.

    Raises
    ------
    DataError
        CSL-C701 when lengths differ, or a label or a score of the model in use is not valid.
    """
    count, events = len(labels), int(np.asarray(labels).sum()) if np.isfinite(labels).all() else 0
    broken = [
        f"Tensor {name} holds NaN or infinity." for name in sorted(weights) if not np.isfinite(weights[name]).all()
    ]
    if not broken and not np.isfinite(logits).all():
        broken = ["The model gives scores that are not numbers."]
    if broken:
        return Adoption(adopted=False, reasons=tuple(broken), customers=count, events=events)
    z, y = check_outcomes(logits, labels)
    rows = [z] if current is None else [z, check_outcomes(current, labels)[0]]
    if len(z) > 1 and np.ptp(z) == 0.0:
        return Adoption(
            adopted=False, reasons=("It gives every customer the same score.",), customers=count, events=events
        )
    if min(events, count - events) < MIN_EACH:
        found = f"{count}, of whom {events} had the outcome; {MIN_EACH} of either kind are needed"
        reasons = (f"Too few held-out customers to judge it: {found}.",)
        return Adoption(adopted=True, reasons=reasons, customers=count, events=events)
    return _judge(delong(np.stack(rows), y), count, events)


def _judge(found: DeLong, count: int, events: int) -> Adoption:
    two_sided, one_sided = float(ndtri(0.5 + CONFIDENCE / 2)), float(ndtri(CONFIDENCE))
    auc, spread = float(found.auc[0]), float(np.sqrt(found.covariance[0, 0]))
    faults: list[str] = []
    if auc + one_sided * spread < 0.5:
        faults.append(f"AUC {auc:.3f} on own held-out customers: clearly below 0.5, it ranks them the wrong way round.")
    auc_current = between = None
    if len(found.auc) > 1:
        auc_current = float(found.auc[1])
        gain = auc - auc_current
        # A floating point variance of two equal scores may be a hair below zero.
        error = float(np.sqrt(max(0.0, np.array([1.0, -1.0]) @ found.covariance @ np.array([1.0, -1.0]))))
        between = (gain - two_sided * error, gain + two_sided * error)
        if gain + one_sided * error < -MARGIN:
            faults.append(
                f"AUC {auc:.3f} on own held-out customers: clearly below the model in use ({auc_current:.3f})."
            )
    return Adoption(
        adopted=not faults,
        reasons=tuple(faults) or (_in_order(auc, auc_current),),
        customers=count,
        events=events,
        auc=auc,
        auc_interval=(max(0.0, auc - two_sided * spread), min(1.0, auc + two_sided * spread)),
        auc_current=auc_current,
        difference_interval=between,
    )


def _in_order(auc: float, auc_current: float | None) -> str:
    against = "" if auc_current is None else f", not clearly below the model in use ({auc_current:.3f})"
    return f"AUC {auc:.3f} on own held-out customers: not clearly below 0.5{against}."
