"""The answer of a lifetime query: parameters, how well they fit, and what customers of each kind are expected to buy."""

from dataclasses import dataclass

import numpy as np

from federation.answers import Answer, AnswerTable, Row
from federation.lifetime import NAMES, chance_of_none, chances, expected_purchases
from federation.queries import Lifetime
from server.statistics.asking import Setting
from server.statistics.lifetime_fit import (
    Fitted,
    Floats,
    Grid,
    fit_purchasing,
    fit_spending,
    purchase_chances,
    purchasing_of,
    shares_within,
    spend_chances,
    spending_of,
)

NEW = "new customer"
_MEANING = {
    "r": "how alike purchase rates are (larger: more alike)",
    "alpha": "windows",
    "a": "drop-out",
    "b": "staying",
    "p": "evenness of one customer's amounts",
    "q": "how alike customers' mean amounts are",
    "v": "typical purchases",
}
_UNCLEAR = 1.0
"""A standard error of a logarithm above this: the parameter may be a third or three times as large."""
_STEP = 1e-4
_TINY = 0.5
_WIDEST = 5.0
"""An interval of exp(-5) to exp(5) times the value says nothing."""


@dataclass(frozen=True)
class Counts:
    """Noisy customers: `table` by frequency x recency, `tenure`, `amounts` by frequency x monetary, and the noise's sds."""

    table: Floats
    tenure: Floats
    amounts: Floats
    sds: tuple[float, float, float]


@dataclass(frozen=True)
class Fits:
    """Both fits: seven logarithms and their covariances; spending's are independent of purchases', as the model has it."""

    purchasing: Fitted
    spending: Fitted

    @property
    def theta(self) -> Floats:
        """log r, alpha, a, b, p, q - 1, v."""
        return np.concatenate([self.purchasing.theta, self.spending.theta])

    @property
    def settled(self) -> bool:
        """Whether both searches came to rest."""
        return self.purchasing.settled and self.spending.settled

    def covariance(self) -> Floats:
        """Return the covariance of `theta`, [7, 7]."""
        result = np.zeros((len(NAMES), len(NAMES)))
        for fit, start in ((self.purchasing, 0), (self.spending, len(self.purchasing.theta))):
            part = fit.covariance
            result[start : start + len(part), start : start + len(part)] = (part + part.T) / 2.0
        return result


def fit(grid: Grid, counts: Counts) -> Fits:
    """Fit both models."""
    purchasing = fit_purchasing(grid, counts.table, counts.tenure, counts.sds[:2])
    shares = shares_within(purchasing_of(purchasing.theta), grid, np.maximum(purchasing.phi, 0.0))
    return Fits(purchasing, fit_spending(grid, counts.amounts, counts.sds[2], shares))


def answer_of(query: Lifetime, grid: Grid, counts: Counts, setting: Setting) -> Answer:
    """Return the answer."""
    found = fit(grid, counts)
    frequency, amounts = _fit_table(grid, counts, found, setting), _spend_table(grid, counts, found, setting)
    notes = _notes(found, counts, (frequency, amounts), setting, query.horizon, grid)
    coming = Row(key=(), value=query.horizon)
    return Answer(
        id=query.id,
        kind=query.kind,
        title=query.title or "Customer lifetime value",
        tables=(
            _parameters(found, setting),
            _covariance(found),
            AnswerTable(name="horizon", title="How far is looked ahead", unit="windows", rows=(coming,)),
            _total(grid, found, setting, query.horizon),
            *_values(grid, found, setting, query.horizon),
            frequency,
            amounts,
        ),
        notes=notes,
    )


def _parameters(found: Fits, setting: Setting) -> AnswerTable:
    rows = []
    for name, middle, sd in zip(NAMES, found.theta, np.sqrt(np.diag(found.covariance())), strict=True):
        above = 1.0 if name == "q" else 0.0
        value, low, high = (above + float(np.exp(middle + move * setting.z * sd)) for move in (0.0, -1.0, 1.0))
        said = found.settled and np.isfinite([value, low, high]).all() and low > above and setting.z * sd < _WIDEST
        rows.append(
            Row(key=(name,), value=value if said else None, low=low if said else None, high=high if said else None)
        )
    return AnswerTable(
        name="parameters",
        title="Parameters of BG/NBD (r, alpha, a, b) and Gamma-Gamma (p, q, v); intervals hold noise and population",
        unit="; ".join(f"{name}: {_MEANING[name]}" for name in NAMES),
        key=("parameter",),
        rows=tuple(rows),
    )


def _covariance(found: Fits) -> AnswerTable:
    matrix = found.covariance()
    rows = [
        Row(key=(one, two), value=float(matrix[i, j])) for i, one in enumerate(NAMES) for j, two in enumerate(NAMES)
    ]
    return AnswerTable(
        name="covariance",
        title="Covariance of the parameters' logarithms (of log(q - 1) for q): noise and population",
        unit="squared logarithms",
        key=("parameter", "parameter"),
        rows=tuple(rows),
    )


def _total(grid: Grid, found: Fits, setting: Setting, horizon: float) -> AnswerTable:
    fitted = found.purchasing
    value, slope = total_slope(fitted, grid, horizon)
    half = setting.z * float(np.sqrt(slope @ fitted.joint @ slope))
    return AnswerTable(
        name="total",
        title="Days of purchase that all customers together are expected to have in the horizon; the interval holds noise and population",
        unit="days of purchase",
        rows=(_interval((), value, half, said=found.settled),),
    )


def _each(grid: Grid, horizon: float, theta: Floats) -> Floats:
    """Return the days of purchase that one customer is expected to have in the horizon, by cell of tenure."""
    model, middle = purchasing_of(theta), grid.times[0].mean(axis=1)
    # What everybody buys in (T, T + h] is what newcomers buy in T + h, less what they buy in T.
    grown = [
        float(expected_purchases(model, 0, 0, 0, at + horizon)) - float(expected_purchases(model, 0, 0, 0, at))
        for at in middle
    ]
    return np.array(grown)


def total_slope(fitted: Fitted, grid: Grid, horizon: float) -> tuple[float, Floats]:
    """Return the days of purchase expected of all customers together, and its logarithm's derivative by theta and phi."""
    each = _each(grid, horizon, fitted.theta)
    total = max(float(fitted.phi @ each), 1e-9)
    moved = [_each(grid, horizon, fitted.theta + _STEP * row) for row in np.eye(len(fitted.theta))]
    by_theta = np.array([float(fitted.phi @ (item - each)) / _STEP for item in moved])
    return total, np.concatenate([by_theta, each]) / total


def _values(grid: Grid, found: Fits, setting: Setting, horizon: float) -> tuple[AnswerTable, AnswerTable]:
    """Return expected purchases and value of one customer in each cell of frequency x recency, and of a customer just won."""
    theta, covariance = found.theta, found.covariance()
    middle = _cells(grid, found.purchasing.phi, theta, horizon)
    with np.errstate(invalid="ignore", divide="ignore"):
        slopes = [
            (np.log(_cells(grid, found.purchasing.phi, theta + _STEP * row, horizon)) - np.log(middle)) / _STEP
            for row in np.eye(len(theta))
        ]
    stacked = np.stack(slopes)
    half = setting.z * np.sqrt(np.maximum(np.einsum("ick,ij,jck->ck", stacked, covariance, stacked), 0.0))
    keys = [(days, when) for days in _days(grid) for when in _recencies(grid)] + [(NEW, "")]
    tables = []
    for place, (name, what, unit) in enumerate(
        (("purchases", "Days of purchase", "days of purchase"), ("value", "Value", "typical purchases"))
    ):
        rows = [
            _interval(key, float(value), float(width), said=found.settled)
            for key, value, width in zip(keys, middle[:, place], half[:, place], strict=True)
        ]
        title = f"{what} that one customer is expected to have in the horizon; intervals hold noise and population"
        tables.append(
            AnswerTable(name=name, title=title, unit=unit, key=("days of purchase", "recency"), rows=tuple(rows))
        )
    return tables[0], tables[1]


def _interval(key: tuple[str, ...], value: float, half: float, *, said: bool) -> Row:
    if not (said and np.isfinite([value, half]).all() and half < _WIDEST):
        return Row(key=key, value=None)
    return Row(key=key, value=value, low=value * float(np.exp(-half)), high=value * float(np.exp(half)))


def _cells(grid: Grid, phi: Floats, theta: Floats, horizon: float) -> Floats:
    """Return expected purchases and value, [cells + 1, 2], by frequency x recency and of a newcomer; NaN for a cell that holds nobody.

    A cell's mean is over the customers that the model expects there, by tenure (a cell's middle), x and the interval's third.
    """
    model, worth = purchasing_of(theta[:4]), spending_of(theta[4:]).mean
    times, present = grid.times[0].mean(axis=1), np.maximum(phi, 0.0)
    fine = np.interp(np.arange(3 * (len(grid.edges) - 1) + 1) / 3.0, np.arange(len(grid.edges)), grid.edges)
    low, high = fine[:-1, None], fine[1:, None]
    late, early = np.clip(times - low, 0.0, times), np.clip(times - high, 0.0, times)
    result = []
    for numbers, stands_for in grid.repeats:
        x = numbers[:, None, None]
        single = ((times >= low) & (times < high)) * chance_of_none(model, times)
        mass = np.where(x > 0, chances(model, np.maximum(x, 1.0), early, late, times), single)
        mass = mass * stands_for[:, None, None] * present
        last = np.where(x > 0, (early + late) / 2.0, 0.0)
        coming = expected_purchases(model, x, last, times, horizon)
        parts = [item.reshape(len(numbers), -1, 3, len(times)).sum(axis=(0, 2, 3)) for item in (mass, mass * coming)]
        result.append(np.where(parts[0] > _TINY, parts[1] / np.maximum(parts[0], _TINY), np.nan))
    means = np.append(np.concatenate(result), float(expected_purchases(model, 0, 0, 0, horizon)))
    return np.stack([means, means * worth], axis=1)


def _days(grid: Grid) -> list[str]:
    edges = [1, *(int(np.ceil(cut)) for cut in grid.frequency)]
    upper = [edge - 1 for edge in edges[1:]]
    closed = [str(low) if low == high else f"{low} to {high}" for low, high in zip(edges, upper, strict=False)]
    return [*closed, f"{edges[-1]} or more"]


def _recencies(grid: Grid) -> list[str]:
    edges = grid.edges
    return [f"{low:g} to {high:g}" for low, high in zip(edges, edges[1:], strict=False)]


def _amounts(grid: Grid) -> list[str]:
    cuts = grid.monetary
    middle = [f"{low:g} to {high:g}" for low, high in zip(cuts, cuts[1:], strict=False)]
    return [f"below {cuts[0]:g}", *middle, f"{cuts[-1]:g} or more"]


def _fit_table(grid: Grid, counts: Counts, found: Fits, setting: Setting) -> AnswerTable:
    chance = purchase_chances(purchasing_of(found.purchasing.theta), grid)
    expected = (chance @ np.maximum(found.purchasing.phi, 0.0)).sum(axis=1)
    sd = counts.sds[0] * np.sqrt(counts.table.shape[1])
    rows = _beside(_days(grid), counts.table.sum(axis=1), expected, setting.z * sd)
    return AnswerTable(
        name="fit",
        title="Customers by days of purchase: counted with noise, and as the model has it; intervals hold the noise alone",
        unit="customers",
        key=("days of purchase", "what"),
        rows=rows,
    )


def _spend_table(grid: Grid, counts: Counts, found: Fits, setting: Setting) -> AnswerTable:
    model = purchasing_of(found.purchasing.theta)
    shares = shares_within(model, grid, np.maximum(found.purchasing.phi, 0.0))
    chance = spend_chances(spending_of(found.spending.theta), grid, shares)
    expected = np.maximum(found.spending.phi, 0.0) @ chance
    sd = counts.sds[2] * np.sqrt(counts.amounts.shape[0])
    rows = _beside(_amounts(grid), counts.amounts.sum(axis=0), expected, setting.z * sd)
    return AnswerTable(
        name="fit_spend",
        title="Customers by mean amount: counted with noise, and as the model has it; intervals hold the noise alone",
        unit="customers",
        key=("typical purchases", "what"),
        rows=rows,
    )


def _beside(names: list[str], counted: Floats, expected: Floats, half: float) -> tuple[Row, ...]:
    rows: list[Row] = []
    for name, count, model in zip(names, counted, expected, strict=True):
        shown = max(float(count), 0.0)
        rows.append(
            Row(
                key=(name, "counted"),
                value=shown,
                low=max(float(count) - half, 0.0),
                high=max(float(count) + half, shown),
            )
        )
        rows.append(Row(key=(name, "model"), value=float(model)))
    return tuple(rows)


def _notes(
    found: Fits, counts: Counts, tables: tuple[AnswerTable, AnswerTable], setting: Setting, horizon: float, grid: Grid
) -> tuple[str, ...]:
    blind = setting.z * counts.sds[0] * float(np.sqrt(counts.table.shape[1]))
    notes = [
        "Times are shares of each institution's own window, amounts multiples of its own typical purchase. A day with purchases counts "
        "once.",
        "The model takes the first day of purchase in the window for a customer's first; of those who bought before, it knows less.",
        f"Fewer than {blind:.0f} customers with some number of days of purchase cannot be told from none (noise alone).",
    ]
    if not found.settled:
        return (*notes, "The fit did not come to rest: the noise leaves no parameters to be told.")
    _, slope = total_slope(found.purchasing, grid, horizon)
    parts = [float(slope @ item @ slope) for item in (found.purchasing.joint_noise, found.purchasing.joint)]
    if parts[1] > 0:
        notes.append(
            f"Of the squared width of the interval of all expected purchases the noise makes {100 * parts[0] / parts[1]:.0f}%; "
            "the rest is the chance of who became a customer, and of when they buy."
        )
    sds = np.sqrt(np.diag(found.covariance()))
    unclear = [name for name, sd in zip(NAMES, sds, strict=True) if sd > _UNCLEAR]
    if unclear:
        notes.append(f"Hardly told, beyond a weak pull towards usual values: {', '.join(unclear)}.")
    for table, what in zip(tables, ("days of purchase", "mean amounts in typical purchases"), strict=True):
        poor = _misfit(table, setting.z)
        if poor:
            notes.append(
                f"The model misses by more than noise and chance how many customers have these {what}: {', '.join(poor)}. "
                "The intervals take the model for right."
            )
    return tuple(notes)


def _misfit(table: AnswerTable, z: float) -> list[str]:
    """Return where the model's count lies outside what noise and chance explain."""
    poor = []
    for counted, model in zip(table.rows[::2], table.rows[1::2], strict=True):
        if counted.value is None or counted.low is None or counted.high is None or model.value is None:
            continue
        half = float(np.hypot((counted.high - counted.low) / 2.0, z * np.sqrt(model.value)))
        if abs(counted.value - model.value) > 1.5 * half:
            poor.append(counted.key[0])
    return poor
