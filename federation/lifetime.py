"""Customer lifetime value: how often a customer will buy (BG/NBD) and for how much (Gamma-Gamma), shared by coordinator and institutions.

BG/NBD: while alive, a customer buys at rate lambda ~ Gamma(r, rate alpha); after every repeat purchase she drops out with probability
p ~ Beta(a, b). Of one customer it needs x (repeat days of purchase), t_x (from the first to the last), T (from the first until now).
Gamma-Gamma: each day of purchase is worth Gamma(p, rate nu) with nu ~ Gamma(q, rate v); of one customer it needs n days of purchase and
their mean. Here n = x + 1: the first day counts, as the contract's mean does.

All times are in observation windows, all money in typical purchases. Fader, Hardie & Lee (2005), "Counting your customers" the easy way;
Fader & Hardie (2013), The Gamma-Gamma model of monetary value.
"""

import math
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import Field, ValidationError, model_validator
from scipy.special import betainc, betaln, expit, gammaln, hyp2f1, log1p

from federation.answers import Answer, StatisticsReport
from federation.contract import Name
from federation.document import Document
from federation.errors import DocumentError
from federation.signing import Hex32

Floats = NDArray[np.float64]
NAMES = ("r", "alpha", "a", "b", "p", "q", "v")
"""The parameters, in the order of a covariance's rows."""
_NODES = 24
_AT_ONCE = 20_000
_NUDGE = 1e-5


@dataclass(frozen=True)
class Purchasing:
    """BG/NBD's parameters, all above 0; `alpha` is in windows."""

    r: float
    alpha: float
    a: float
    b: float


@dataclass(frozen=True)
class Spending:
    """Gamma-Gamma's parameters, above 0, and q above 1, without which no mean exists; `v` is in typical purchases."""

    p: float
    q: float
    v: float

    @property
    def mean(self) -> float:
        """What a day of purchase is worth on average, in typical purchases."""
        return self.p * self.v / (self.q - 1.0)


def log_likelihood(model: Purchasing, x: ArrayLike, t_x: ArrayLike, tenure: ArrayLike) -> Floats:
    """Return each customer's log-likelihood of (x, t_x) given her tenure, float64 [n]; 0 <= t_x <= tenure, t_x = 0 where x = 0."""
    x, t_x, tenure = np.broadcast_arrays(*(np.asarray(item, dtype=np.float64) for item in (x, t_x, tenure)))
    rate = (
        gammaln(model.r + x)
        - gammaln(model.r)
        + model.r * math.log(model.alpha)
        - (model.r + x) * np.log(model.alpha + tenure)
    )
    stays = betaln(model.a, model.b + x) - betaln(model.a, model.b)
    result: Floats = rate + stays + np.logaddexp(0.0, _log_odds_gone(model, x, t_x, tenure))
    return result


def alive(model: Purchasing, x: ArrayLike, t_x: ArrayLike, tenure: ArrayLike) -> Floats:
    """Return the probability that a customer has not dropped out, float64 [n]; 1 for x = 0, as the model has it."""
    x, t_x, tenure = np.broadcast_arrays(*(np.asarray(item, dtype=np.float64) for item in (x, t_x, tenure)))
    result: Floats = expit(-_log_odds_gone(model, x, t_x, tenure))
    return result


def _log_odds_gone(model: Purchasing, x: Floats, t_x: Floats, tenure: Floats) -> Floats:
    """Return log(P(gone) / P(alive)); minus infinity without a repeat purchase, after which alone anybody drops out."""
    some = x > 0
    before = np.where(some, model.b + x - 1.0, 1.0)
    odds = math.log(model.a) - np.log(before)
    odds = odds + (model.r + x) * (np.log(model.alpha + tenure) - np.log(model.alpha + t_x))
    result: Floats = np.where(some, odds, -np.inf)
    return result


def expected_purchases(
    model: Purchasing,
    x: ArrayLike,
    t_x: ArrayLike,
    tenure: ArrayLike,
    horizon: float,
    discount: float = 0.0,
) -> Floats:
    """Return the days of purchase that are expected in the `horizon` windows from now, float64 [n].

    A purchase at time s from now counts exp(-discount s): `discount` is a continuous rate for each window. A customer who was just won
    has x = t_x = tenure = 0.

    While alive, E[lambda exp(-lambda p s)] at time s is (r+x)/(alpha+T) 2F1(r+x+1, a; a+b+x; -s/(alpha+T)), and its integral over s is
    what is returned: the same number as the paper's closed form, which has a pole to cancel at a = 1 and overflows for large x.
    """
    x, t_x, tenure = np.broadcast_arrays(*(np.asarray(item, dtype=np.float64) for item in (x, t_x, tenure)))
    count, held = x.ravel(), tenure.ravel()
    parts = [
        _while_alive(model, count[start : start + _AT_ONCE], held[start : start + _AT_ONCE], horizon, discount)
        for start in range(0, x.size, _AT_ONCE)
    ]
    coming = np.concatenate(parts).reshape(x.shape) if parts else np.zeros(x.shape)
    return alive(model, x, t_x, tenure) * coming


def _while_alive(model: Purchasing, x: Floats, tenure: Floats, horizon: float, discount: float) -> Floats:
    # The rate falls like (alpha + T + s)^-(a+1) at worst: even steps of log(alpha + T + s) follow it over any horizon.
    points, weights = np.polynomial.legendre.leggauss(_NODES)
    base = model.alpha + tenure
    reach = log1p(horizon / base)
    result = np.zeros(x.shape)
    for point, weight in zip(points, weights, strict=True):
        grown = np.exp(reach * (0.5 + 0.5 * float(point)))
        later = base * (grown - 1.0)
        rate = purchase_rate(model, x, tenure, later)
        result += 0.5 * float(weight) * reach * base * grown * rate * np.exp(-discount * later)
    return result


def purchase_rate(model: Purchasing, x: Floats, tenure: Floats, later: ArrayLike) -> Floats:
    """Return the purchases per window that are expected at time `later` from now of a customer who is alive now, float64 [n]."""
    base = model.alpha + tenure
    result: Floats = (model.r + x) / base * _stays(model, x, np.asarray(later, dtype=np.float64) / base)
    return result


def _stays(model: Purchasing, x: Floats, share: Floats) -> Floats:
    """Return 2F1(r+x+1, a; a+b+x; -share) = E[(1 + p share)^-(r+x+1)], float64 [n], by Pfaff's change of variable.

    scipy's function overflows where r + 1 - a is a whole number and share is large; next to one it does not, and the value is smooth.
    """
    value = _hypergeometric(model.r, model.a, model.b, x, share)
    wrong = ~((value > 0.0) & (value <= 1.0 + 1e-9))
    if np.any(wrong):
        value = np.where(wrong, _hypergeometric(model.r * (1.0 + _NUDGE), model.a, model.b, x, share), value)
    return value


def _hypergeometric(r: float, a: float, b: float, x: Floats, share: Floats) -> Floats:
    moved = share / (1.0 + share)
    with np.errstate(over="ignore", invalid="ignore"):
        value: Floats = np.exp(-a * log1p(share)) * hyp2f1(a + b - r - 1.0, a, a + b + x, moved)
    return value


def log_likelihood_of_mean(model: Spending, n: ArrayLike, mean: ArrayLike) -> Floats:
    """Return the log-density of the mean (above 0) of n days of purchase, float64 [n]."""
    n, mean = np.broadcast_arrays(np.asarray(n, dtype=np.float64), np.asarray(mean, dtype=np.float64))
    shape = model.p * n
    result: Floats = (
        -betaln(shape, model.q)
        + model.q * math.log(model.v)
        + (shape - 1.0) * np.log(mean)
        + shape * np.log(n)
        - (shape + model.q) * np.log(model.v + n * mean)
    )
    return result


def chance_below(model: Spending, n: ArrayLike, mean: ArrayLike) -> Floats:
    """Return the probability that the mean of n days of purchase lies below `mean`: their sum over (sum + v) is Beta(p n, q)."""
    n, mean = np.broadcast_arrays(np.asarray(n, dtype=np.float64), np.asarray(mean, dtype=np.float64))
    with np.errstate(invalid="ignore"):
        share = np.where(np.isinf(mean), 1.0, n * mean / (model.v + n * mean))
    result: Floats = betainc(model.p * n, model.q, share)
    return result


def expected_spend(model: Spending, n: ArrayLike, mean: ArrayLike) -> Floats:
    """Return what a customer's coming days of purchase are worth on average: her own mean, pulled towards everybody's the less n."""
    n, mean = np.asarray(n, dtype=np.float64), np.asarray(mean, dtype=np.float64)
    result: Floats = model.p * (model.v + n * mean) / (model.p * n + model.q - 1.0)
    return result


def chances(model: Purchasing, x: ArrayLike, early: ArrayLike, late: ArrayLike, tenure: ArrayLike) -> Floats:
    """Return the probability of x repeat days of purchase of which the last falls in (early, late], given the tenure; float64.

    Arguments broadcast; x >= 1, 0 <= early <= late <= tenure. The x-1 purchases before the last lie anywhere before it, which weighs
    t_x by t_x^(x-1) / (x-1)!. Alive: E[(1-p)^x] P(x purchases in T) ((late/T)^x - (early/T)^x). Gone at the last: E[p (1-p)^(x-1)] times
    the probability that the x-th purchase falls in the interval, whose time t has t/(alpha+t) ~ Beta(x, r).
    """
    x = np.asarray(x, dtype=np.float64)
    early, late, tenure = (np.asarray(item, dtype=np.float64) for item in (early, late, tenure))
    bought = gammaln(model.r + x) - gammaln(model.r) - gammaln(x + 1.0)
    bought = (
        bought + model.r * np.log(model.alpha / (model.alpha + tenure)) + x * np.log(tenure / (model.alpha + tenure))
    )
    stays = betaln(model.a, model.b + x) - betaln(model.a, model.b)
    goes = betaln(model.a + 1.0, model.b + x - 1.0) - betaln(model.a, model.b)
    between = np.power(late / tenure, x) - np.power(early / tenure, x)
    arrives = betainc(x, model.r, late / (model.alpha + late)) - betainc(x, model.r, early / (model.alpha + early))
    result: Floats = np.exp(bought + stays) * between + np.exp(goes) * arrives
    return result


def chance_of_none(model: Purchasing, tenure: ArrayLike) -> Floats:
    """Return the probability of no repeat purchase within a tenure."""
    result: Floats = np.exp(-model.r * log1p(np.asarray(tenure, dtype=np.float64) / model.alpha))
    return result


class Interval(Document):
    """Where a parameter lies, noise and chance counted, at the study's confidence."""

    low: Annotated[float, Field(gt=0)]
    high: Annotated[float, Field(gt=0)]


Positive = Annotated[float, Field(gt=0)]


class LifetimeModel(Document):
    """What a lifetime study released of customers' value.

    Attributes
    ----------
    r, alpha, a, b, p, q, v:
        The parameters; alpha in `unit`, v in typical purchases.
    intervals:
        One for each parameter, in the order of `NAMES`.
    covariance:
        Of log r, log alpha, log a, log b, log p, log(q - 1), log v, [7][7]: noise and chance.
    confidence, horizon:
        Of the intervals; how far the query looked ahead, in windows.
    study, contract:
        Where it comes from: the study's digest and its feature contract.
    """

    kind: Literal["lifetime_model"] = "lifetime_model"
    r: Positive
    alpha: Positive
    a: Positive
    b: Positive
    p: Positive
    q: Annotated[float, Field(gt=1)]
    v: Positive
    unit: Literal["windows"] = "windows"
    intervals: Annotated[tuple[Interval, ...], Field(min_length=len(NAMES), max_length=len(NAMES))]
    covariance: Annotated[tuple[tuple[float, ...], ...], Field(min_length=len(NAMES), max_length=len(NAMES))]
    confidence: Annotated[float, Field(ge=0.5, le=0.999)]
    horizon: Positive
    study: Hex32
    contract: Name

    @model_validator(mode="after")
    def _whole(self) -> Self:
        matrix = self.covariance
        if any(len(row) != len(NAMES) for row in matrix):
            raise ValueError(f"covariance has {len(NAMES)} rows of {len(NAMES)} numbers")
        if any(matrix[i][j] != matrix[j][i] for i in range(len(NAMES)) for j in range(i)) or any(
            matrix[i][i] < 0 for i in range(len(NAMES))
        ):
            raise ValueError("covariance is symmetric, and no variance is negative")
        return self

    @property
    def purchasing(self) -> Purchasing:
        """The part that says how often."""
        return Purchasing(self.r, self.alpha, self.a, self.b)

    @property
    def spending(self) -> Spending:
        """The part that says for how much."""
        return Spending(self.p, self.q, self.v)

    @classmethod
    def of(cls, report: StatisticsReport, query: str | None = None) -> Self:
        """Read the model off a report: the answer to `query`, or its only lifetime answer.

        Raises
        ------
        DocumentError
            CSL-F435 when the report has no such answer, or several and none is named; CSL-F436 when the answer holds no whole model,
            as where the noise left nothing to fit.
        """
        answers = [item for item in report.answers if item.kind == "lifetime" and query in (None, item.id)]
        if len(answers) != 1:
            raise DocumentError(
                "CSL-F435",
                f"The report {report.name} has {len(answers)} lifetime answers"
                + ("." if query is None else f" by the name of {query}."),
                "Name one of its queries of kind lifetime.",
            )
        try:
            return cls(**_read(answers[0]), confidence=report.confidence, study=report.study, contract=report.contract)
        except (KeyError, ValidationError) as error:
            raise DocumentError(
                "CSL-F436",
                f"The answer {answers[0].id} of the report {report.name} holds no whole model of lifetime value.",
                "Read the answer's notes: more budget, or more customers, may be needed.",
            ) from error


def _read(answer: Answer) -> dict[str, Any]:
    """Return a model's fields as an answer's tables have them; KeyError for a row that is not there, None for what could not be said."""
    rows = {row.key: row for row in answer.table("parameters").rows}
    matrix = {row.key: row.value for row in answer.table("covariance").rows}
    fields: dict[str, Any] = {name: rows[(name,)].value for name in NAMES}
    fields["intervals"] = tuple(
        Interval.model_validate({"low": rows[(name,)].low, "high": rows[(name,)].high}) for name in NAMES
    )
    fields["covariance"] = tuple(tuple(matrix[row, column] for column in NAMES) for row in NAMES)
    fields["horizon"] = answer.table("horizon").value()
    return fields
