"""Calibration of a released model on the institution's own held-out customers: local, private, never sent.

A federated model ranks customers; its probabilities are those of everybody's customers together, and noise and drift
shift them further. Two numbers put that right for one institution: `probability = sigmoid(intercept + slope *
logit)`. The slope is kept above zero, so calibration never changes who comes before whom.
"""

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit, ndtri

from federation.document import Document
from federation.errors import DataError

Floats = NDArray[np.float64]

# A slope is a second number to learn: below this many customers of either outcome it would mostly follow chance.
MIN_EACH_FOR_SLOPE = 30
# Priors of the two numbers: standard deviations around "the model is right as it is"; they weigh like a few customers.
SLOPE_SPREAD = 0.5
INTERCEPT_SPREAD = 3.0
SLOPE_RANGE = (0.05, 20.0)
FOLDS = 5
CONFIDENCE = 0.95


class Calibration(Document):
    """How one institution turns a model's logit into a probability; `note` says in words how far to trust it."""

    intercept: float
    slope: float
    method: Literal["slope and intercept", "intercept only", "none"]
    note: str

    def probability(self, logits: NDArray[np.floating]) -> Floats:
        """Return `sigmoid(intercept + slope * logits)`, float64, of the shape of `logits`."""
        result: Floats = expit(self.intercept + self.slope * np.asarray(logits, dtype=np.float64))
        return result


class ReliabilityBin(Document):
    """One point of the reliability curve: customers with about the same probability, and how many had the outcome.

    `low` and `high` are Wilson's 95% interval for the observed rate (Wilson 1927).
    """

    customers: int
    predicted: float
    observed: float
    low: float
    high: float


class Reliability(Document):
    """How well probabilities fit outcomes.

    `calibration_error` is the mean over customers of |predicted - observed| by bin (ECE with bins of equal counts;
    chance alone keeps it above zero), `brier` the mean squared error, `log_loss` in nats, `bias` mean predicted minus
    observed rate.
    """

    calibration_error: float
    brier: float
    log_loss: float
    bias: float
    curve: tuple[ReliabilityBin, ...]


class CalibrationReport(Document):
    """Reliability before and after; `after` is cross-fitted: a customer's calibration has not seen her."""

    customers: int
    events: int
    before: Reliability
    after: Reliability


def calibrate(logits: NDArray[np.floating], labels: NDArray[np.floating]) -> Calibration:
    """Fit intercept and slope on held-out customers.

    Logistic recalibration of the logit (Cox 1958; Platt 1999) as the mode of a posterior: slope ~ N(1, 0.5^2),
    intercept ~ N(0, 3^2), slope within [0.05, 20]. With fewer than 30 customers of either outcome the slope stays 1;
    with one outcome only, or nobody, the note says that the probabilities are hardly the institution's own.

    Parameters
    ----------
    logits, labels:
        [n] floats; labels 0 or 1.

    Raises
    ------
    DataError
        CSL-C701 when lengths differ, a logit is not finite or a label is not 0 or 1.
    """
    z, y = check_outcomes(logits, labels)
    events = int(y.sum())
    fewest = min(events, len(y) - events)
    if not len(y):
        return Calibration(intercept=0.0, slope=1.0, method="none", note="Not calibrated: nobody is held out.")
    if fewest >= MIN_EACH_FOR_SLOPE:
        intercept, slope = _fit(z, y, with_slope=True)
        note = f"Calibrated on {len(y)} held-out customers, {events} with the outcome."
        return Calibration(intercept=intercept, slope=slope, method="slope and intercept", note=note)
    intercept, slope = _fit(z, y, with_slope=False)
    return Calibration(intercept=intercept, slope=slope, method="intercept only", note=_few(len(y), events))


def _few(customers: int, events: int) -> str:
    start = f"Calibrated by the intercept only: of {customers} held-out customers {events} had the outcome"
    if events in (0, customers):
        return f"{start}, so the level of the probabilities is the model's, hardly the institution's own."
    return f"{start}; a slope needs {MIN_EACH_FOR_SLOPE} of either kind. Trust the order more than the probabilities."


def _fit(z: Floats, y: Floats, *, with_slope: bool) -> tuple[float, float]:
    """Minimise the convex penalised log loss; divided by n so that tolerances hold for any n."""
    n = len(y)

    def objective(theta: Floats) -> tuple[float, Floats]:
        a, b = theta
        eta = a + b * z
        loss = np.sum(np.logaddexp(0.0, eta) - y * eta)
        penalty = 0.5 * (a / INTERCEPT_SPREAD) ** 2 + 0.5 * ((b - 1.0) / SLOPE_SPREAD) ** 2
        residual = expit(eta) - y
        gradient = np.array(
            [residual.sum() + a / INTERCEPT_SPREAD**2, residual @ z + (b - 1.0) / SLOPE_SPREAD**2], dtype=np.float64
        )
        return float(loss + penalty) / n, gradient / n

    slopes = SLOPE_RANGE if with_slope else (1.0, 1.0)
    found = minimize(
        objective,
        np.array([0.0, 1.0]),
        jac=True,
        method="L-BFGS-B",
        bounds=[(-50.0, 50.0), slopes],
        options={"ftol": 1e-14, "gtol": 1e-10, "maxiter": 500},
    )
    return float(found.x[0]), float(found.x[1])


def check_outcomes(logits: NDArray[np.floating], labels: NDArray[np.floating]) -> tuple[Floats, Floats]:
    """Return logits and labels as float64 [n]; raises DataError CSL-C701 when they do not fit together."""
    z = np.asarray(logits, dtype=np.float64)
    y = np.asarray(labels, dtype=np.float64)
    if z.ndim != 1 or z.shape != y.shape or not np.isfinite(z).all() or not np.isin(y, (0.0, 1.0)).all():
        raise DataError(
            "CSL-C701",
            "Scores and outcomes of the held-out customers do not fit: scores must be finite, outcomes 0 or 1.",
            "Run `consilience node check` and look at the label; if that is in order, fetch the model again.",
        )
    return z, y


def calibration_report(
    logits: NDArray[np.floating], labels: NDArray[np.floating], bins: int = 10
) -> CalibrationReport | None:
    """Return reliability before and after calibration, or None with fewer than two customers of either outcome.

    `after` uses 5 folds. They are dealt by rank of the score within each outcome, so the report is the same at every call. Raises as
    `calibrate`.
    """
    z, y = check_outcomes(logits, labels)
    events = int(y.sum())
    if min(events, len(y) - events) < 2:
        return None
    order = np.lexsort((z, y))
    fold = np.empty(len(y), dtype=np.int64)
    fold[order] = np.arange(len(y)) % FOLDS
    after = np.empty_like(z)
    for number in range(FOLDS):
        judged = fold == number
        after[judged] = calibrate(z[~judged], y[~judged]).probability(z[judged])
    return CalibrationReport(
        customers=len(y), events=events, before=reliability(expit(z), y, bins), after=reliability(after, y, bins)
    )


def reliability(probability: Floats, labels: Floats, bins: int = 10) -> Reliability:
    """Compare probabilities [n > 0] with outcomes [n] in bins of equal counts, at least 10 customers in each of several."""
    count = max(1, min(bins, len(labels) // 10))
    parts = np.array_split(np.argsort(probability, kind="stable"), count)
    curve = tuple(_bin(probability[part], labels[part]) for part in parts)
    error = sum(item.customers * abs(item.predicted - item.observed) for item in curve) / len(labels)
    inside = np.clip(probability, 1e-15, 1 - 1e-15)
    log_loss = -np.mean(labels * np.log(inside) + (1 - labels) * np.log1p(-inside))
    return Reliability(
        calibration_error=float(error),
        brier=float(np.mean((probability - labels) ** 2)),
        log_loss=float(log_loss),
        bias=float(probability.mean() - labels.mean()),
        curve=curve,
    )


def _bin(probability: Floats, labels: Floats) -> ReliabilityBin:
    n, rate = len(labels), float(labels.mean())
    z2 = float(ndtri(0.5 + CONFIDENCE / 2)) ** 2
    centre = (rate + z2 / (2 * n)) / (1 + z2 / n)
    half = np.sqrt(z2 * (rate * (1 - rate) / n + z2 / (4 * n * n))) / (1 + z2 / n)
    return ReliabilityBin(
        customers=n,
        predicted=float(probability.mean()),
        observed=rate,
        low=max(0.0, float(centre - half)),
        high=min(1.0, float(centre + half)),
    )
