"""What each own customer is worth over a horizon, by the federation's model of lifetime value and the institution's own terms.

All of this stays at home: the report is the federation's, the customers and the terms are the institution's.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from client.cohort import Cohort
from client.lifetime_terms import Columns, Money, Quantiles, Terms
from federation.answers import StatisticsReport
from federation.errors import DataError
from federation.lifetime import (
    NAMES,
    LifetimeModel,
    Purchasing,
    Spending,
    alive,
    expected_purchases,
    expected_spend,
    purchase_rate,
)

Floats = NDArray[np.float64]
TIERS = ("high", "middle", "low", "unknown")
_PIECES, _POINTS = 16, 3
_AT_ONCE = 20_000
_STEP = 1e-4


@dataclass(frozen=True)
class Newcomer:
    """What a customer is worth on the day when she is won: value and net with her first purchase; years until she has paid for it."""

    purchases: float
    value: float
    net: float
    payback: float | None


@dataclass(frozen=True)
class Tier:
    """One tier's customers, their share, what they are worth together with its interval (the model's noise and chance), and one's mean.

    `payback` is how long their coming purchases take, on average, to earn what winning one customer costs; None beyond the horizon.
    """

    name: str
    customers: int
    share: float
    value: float
    low: float
    high: float
    mean: float
    alive: float
    purchases: float
    payback: float | None


@dataclass(frozen=True, eq=False)
class Values:
    """Own customers, in the cohort's order: ids, float64 arrays [n] (NaN where a feature is unknown), and tier [n] text.

    `alive` is a probability; `purchases` are days of purchase in the horizon, not discounted; `value` is discounted margin in the
    institution's money, `net` the same less the cost of winning a customer, `payback` the years until `value` has earned that cost
    (NaN beyond the horizon).
    """

    ids: NDArray[np.object_]
    alive: Floats
    purchases: Floats
    value: Floats
    net: Floats
    payback: Floats
    tier: NDArray[np.object_]
    tiers: tuple[Tier, ...]
    newcomer: Newcomer
    horizon_years: float
    unit: str
    model: LifetimeModel

    def __len__(self) -> int:
        """Return the number of customers."""
        return len(self.ids)


@dataclass(frozen=True)
class _People:
    """Known customers' repeat days x, t_x, tenure T (windows) and mean amount (typical purchases), float64 [n]."""

    x: Floats
    last: Floats
    tenure: Floats
    amount: Floats

    def take(self, start: int) -> "_People":
        part = slice(start, start + _AT_ONCE)
        return _People(self.x[part], self.last[part], self.tenure[part], self.amount[part])

    @classmethod
    def newcomer(cls) -> "_People":
        """Return a customer who was just won, of whom nothing is known yet."""
        zero = np.zeros(1)
        return cls(zero, zero, zero, zero)


def lifetime_values(cohort: Cohort, report: StatisticsReport, terms: Terms, query: str | None = None) -> Values:
    """Value every customer of a cohort by a report's lifetime answer (`query` names it where it has several).

    Raises
    ------
    DocumentError
        CSL-F435, CSL-F436 when the report holds no whole model.
    DataError
        CSL-C812 when the cohort lacks a column.
    """
    model = LifetimeModel.of(report, query)
    known, people = _people(cohort, terms.tiers.columns)
    horizon = terms.horizon(model)
    money = terms.tiers.margin * terms.basket
    parts = [_valued(model, people.take(start), terms, horizon) for start in range(0, len(people.x), _AT_ONCE)]
    columns = np.concatenate(parts, axis=1) if parts else np.zeros((3, 0))
    here, purchases, value, payback = (np.full(len(cohort), np.nan) for _ in range(4))
    here[known] = alive(model.purchasing, people.x, people.last, people.tenure)
    purchases[known], value[known], payback[known] = columns[0], money * columns[1], columns[2]
    tier = _tiers(value, terms.tiers.cuts)
    return Values(
        ids=cohort.ids,
        alive=here,
        purchases=purchases,
        value=value,
        net=value - terms.tiers.acquisition_cost,
        payback=payback,
        tier=tier,
        tiers=_summaries(model, people, terms, horizon, tier, known, (here, purchases, value)),
        newcomer=_newcomer(model, terms, horizon),
        horizon_years=horizon / terms.windows_of_year,
        unit=terms.unit,
        model=model,
    )


def _people(cohort: Cohort, columns: Columns) -> tuple[NDArray[np.bool_], _People]:
    """Return who has all four numbers, and those, held to what the model can take (a day never before the first, none before now)."""
    names = (columns.frequency, columns.recency, columns.tenure, columns.monetary)
    lacking = [name for name in names if name not in cohort.columns]
    if lacking:
        raise DataError(
            "CSL-C812",
            f"The customers have no column {', '.join(lacking)}.",
            "Let tiers.yaml name the contract's columns that the federation's query looked at.",
        )
    frequency, recency, tenure, amount = (np.asarray(cohort.columns[name], dtype=np.float64) for name in names)
    known = np.isfinite(frequency) & np.isfinite(recency) & np.isfinite(tenure) & np.isfinite(amount)
    x = np.maximum(frequency[known] - 1.0, 0.0)
    held = np.clip(tenure[known], 0.0, 1.0)
    last = np.where(x > 0, np.clip(held - recency[known], 0.0, held), 0.0)
    return known, _People(x, last, held, np.maximum(amount[known], 0.0))


def _coming(
    purchasing: Purchasing, people: _People, terms: Terms, horizon: float, discount: float, share: float = 1.0
) -> Floats:
    """Return expected purchases in the first `share` of the horizon, discounted, [n].

    With an own yearly retention, customers buy at their expected rate for as long as they are there, and leave at that rate.
    """
    retention, until = terms.tiers.yearly_retention, share * horizon
    if retention is None:
        return expected_purchases(purchasing, people.x, people.last, people.tenure, until, discount)
    rate = (purchasing.r + people.x) / (purchasing.alpha + people.tenure)
    leaving = discount - math.log(retention) / terms.windows_of_year
    spread = until if leaving * until < 1e-12 else -math.expm1(-leaving * until) / leaving
    result: Floats = alive(purchasing, people.x, people.last, people.tenure) * rate * spread
    return result


def _worth(purchasing: Purchasing, spending: Spending, people: _People, terms: Terms, horizon: float) -> Floats:
    """Return the discounted value in typical purchases, before margin, [n]."""
    amount = expected_spend(spending, people.x + 1.0, people.amount)
    return amount * _coming(purchasing, people, terms, horizon, terms.discount)


def _valued(model: LifetimeModel, people: _People, terms: Terms, horizon: float) -> Floats:
    """Return purchases, value (typical purchases, before margin) and years to pay back, [3, n]."""
    purchases = _coming(model.purchasing, people, terms, horizon, 0.0)
    value = _worth(model.purchasing, model.spending, people, terms, horizon)
    cost = terms.tiers.acquisition_cost / (terms.tiers.margin * terms.basket)
    amount = expected_spend(model.spending, people.x + 1.0, people.amount)
    times, grown = _grown(model.purchasing, people, terms, horizon)
    years = _reaches(times, grown * amount, cost) / terms.windows_of_year
    return np.stack([purchases, value, years])


def _grown(purchasing: Purchasing, people: _People, terms: Terms, horizon: float) -> tuple[Floats, Floats]:
    """Return times [k] and the discounted purchases until each of them, [k, n]; the first time is 0."""
    even = np.arange(_PIECES + 1) / _PIECES
    times = purchasing.alpha * np.expm1(even * math.log1p(horizon / purchasing.alpha))
    result = np.zeros((len(times), len(people.x)))
    if terms.tiers.yearly_retention is not None:
        for place, time in enumerate(times):
            result[place] = _coming(purchasing, people, terms, horizon, terms.discount, float(time) / horizon)
        return times, result
    points, weights = np.polynomial.legendre.leggauss(_POINTS)
    for place, (start, end) in enumerate(zip(times, times[1:], strict=False)):
        later = start + (end - start) * (0.5 + 0.5 * points)
        parts = [
            0.5
            * weight
            * (end - start)
            * math.exp(-terms.discount * at)
            * purchase_rate(purchasing, people.x, people.tenure, at)
            for at, weight in zip(later, weights, strict=True)
        ]
        result[place + 1] = result[place] + np.sum(parts, axis=0)
    return times, result * alive(purchasing, people.x, people.last, people.tenure)


def _reaches(times: Floats, grown: Floats, cost: float) -> Floats:
    """Return when rising sums [k, n] reach a cost, linear between times; 0 for no cost, NaN when they do not."""
    reached = grown >= cost
    place = np.argmax(reached, axis=0)
    before = np.maximum(place - 1, 0)
    each = np.arange(grown.shape[1])
    low, high = grown[before, each], grown[place, each]
    with np.errstate(invalid="ignore", divide="ignore"):
        part = np.where(high > low, (cost - low) / (high - low), 0.0)
    found = times[before] + part * (times[place] - times[before])
    return np.where(reached.any(axis=0), found, np.nan)


def _tiers(value: Floats, cuts: Quantiles | Money) -> NDArray[np.object_]:
    known = ~np.isnan(value)
    result = np.full(len(value), "unknown", dtype=object)
    if not known.any():
        return result
    if isinstance(cuts, Quantiles):
        middle, high = (float(item) for item in np.quantile(value[known], [cuts.middle, cuts.high]))
    else:
        middle, high = cuts.middle, cuts.high
    result[known] = np.where(value[known] >= high, "high", np.where(value[known] >= middle, "middle", "low"))
    return result


def _summaries(
    model: LifetimeModel,
    people: _People,
    terms: Terms,
    horizon: float,
    tier: NDArray[np.object_],
    known: NDArray[np.bool_],
    columns: tuple[Floats, Floats, Floats],
) -> tuple[Tier, ...]:
    """Return the tiers that hold somebody; intervals by the delta method on the logarithm of a tier's value."""
    half = _halves(model, _sums_by_tier(model, people, terms, horizon, tier[known]))
    result = []
    for place, name in enumerate(TIERS):
        chosen = tier == name
        size = int(np.count_nonzero(chosen))
        if not size:
            continue
        if name == "unknown":
            result.append(Tier(name, size, size / len(tier), 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, None))
            continue
        here, purchases, value = (float(np.mean(item[chosen])) for item in columns)
        total, wide = value * size, math.exp(float(half[place]))
        payback = _tier_payback(model, people, terms, horizon, tier[known] == name)
        shown = (total, total / wide, total * wide, value, here, purchases)
        result.append(Tier(name, size, size / len(tier), *shown, payback))
    return tuple(result)


def _parameters(model: LifetimeModel, moved: int | None) -> tuple[Purchasing, Spending]:
    """Return the model's parameters, with the logarithm at one place moved by a small step."""
    logs = np.log([model.r, model.alpha, model.a, model.b, model.p, model.q - 1.0, model.v])
    if moved is not None:
        logs[moved] += _STEP
    r, alpha, a, b, p, above, v = (float(item) for item in np.exp(logs))
    return Purchasing(r, alpha, a, b), Spending(p, 1.0 + above, v)


def _sums_by_tier(
    model: LifetimeModel, people: _People, terms: Terms, horizon: float, tier: NDArray[np.object_]
) -> Floats:
    """Return each tier's value with the parameters as they are and with each of them moved, [1 + parameters, tiers]."""
    result = np.zeros((1 + len(NAMES), len(TIERS)))
    for start in range(0, len(people.x), _AT_ONCE):
        part, names = people.take(start), tier[start : start + _AT_ONCE]
        for row, moved in enumerate((None, *range(len(NAMES)))):
            worth = _worth(*_parameters(model, moved), part, terms, horizon)
            result[row] += [float(np.sum(worth[names == name])) for name in TIERS]
    return result


def _halves(model: LifetimeModel, sums: Floats) -> Floats:
    """Return the half width of the logarithm of each tier's value, by the model's covariance and confidence."""
    z = float(ndtri(0.5 + model.confidence / 2.0))
    with np.errstate(invalid="ignore", divide="ignore"):
        slopes = np.where(sums[0] > 0, (sums[1:] / sums[0] - 1.0) / _STEP, 0.0)
    covariance = np.array(model.covariance)
    result: Floats = z * np.sqrt(np.maximum(np.einsum("it,ij,jt->t", slopes, covariance, slopes), 0.0))
    return result


def _tier_payback(
    model: LifetimeModel, people: _People, terms: Terms, horizon: float, chosen: NDArray[np.bool_]
) -> float | None:
    places = np.flatnonzero(chosen)
    cost = terms.tiers.acquisition_cost / (terms.tiers.margin * terms.basket)
    total: Floats = np.zeros((_PIECES + 1, 1))
    for start in range(0, len(places), _AT_ONCE):
        rows = places[start : start + _AT_ONCE]
        part = _People(people.x[rows], people.last[rows], people.tenure[rows], people.amount[rows])
        times, grown = _grown(model.purchasing, part, terms, horizon)
        total += (grown @ expected_spend(model.spending, part.x + 1.0, part.amount))[:, None]
    years = _reaches(times, total / len(places), cost)[0] / terms.windows_of_year
    return None if np.isnan(years) else float(years)


def _newcomer(model: LifetimeModel, terms: Terms, horizon: float) -> Newcomer:
    nobody = _People.newcomer()
    money, cost = terms.tiers.margin * terms.basket, terms.tiers.acquisition_cost
    amount = model.spending.mean
    coming = float(_coming(model.purchasing, nobody, terms, horizon, terms.discount)[0])
    value = money * amount * (1.0 + coming)
    times, grown = _grown(model.purchasing, nobody, terms, horizon)
    # The first purchase is made on the day when she is won.
    years = float(_reaches(times, amount * (1.0 + grown), cost / money)[0]) / terms.windows_of_year
    purchases = float(_coming(model.purchasing, nobody, terms, horizon, 0.0)[0])
    return Newcomer(1.0 + purchases, value, value - cost, None if math.isnan(years) else years)
