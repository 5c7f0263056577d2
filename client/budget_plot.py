"""Spending over time as a picture: what counts against the budgets of both accounts, since the ledger began."""

import io
import math
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from matplotlib.typing import RcKeyType
from scipy.optimize import brentq

from federation.errors import PolicyError
from privacy.accounting import MAX_EPSILON, gaussian_log_delta
from privacy.cost import FEMTO, NANO, NOTHING, Bound, Cost, Filter, TokenFilter, less
from privacy.filter import Limits, cost_epsilon
from privacy.ledger import Account, LedgerReader
from privacy.ledger.entries import ACCOUNTS, MILLISECONDS_A_DAY, Body, Close, PolicyEntry, Reserve, ReserveData
from privacy.ledger.plans import PlanState, retire_plan
from privacy.ledger.totals import AccountState
from privacy.plan import plan_epsilon

MOST_POINTS = 400
TITLES: dict[Account, str] = {"training": "Customers who train", "holdout": "Customers held out"}
_INK, _SOFT, _RULE = "#1c2733", "#68737f", "#d5dade"
_BLUE, _PALE, _OCHRE = "#17406d", "#c3d2e2", "#b8720b"
_STYLE: dict[RcKeyType, Any] = {
    "font.family": ["DejaVu Sans"],
    "font.size": 8.0,
    "text.color": _INK,
    "axes.edgecolor": _RULE,
    "axes.labelcolor": _SOFT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "xtick.color": _SOFT,
    "ytick.color": _SOFT,
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
    "hatch.linewidth": 0.7,
    "legend.frameon": False,
    "legend.fontsize": 7.5,
    "svg.fonttype": "none",
    "svg.hashsalt": "consilience",
}


@dataclass(frozen=True)
class Point:
    """Both accounts (by name) from a time on (milliseconds since 1970), under the limits and the plan in force then."""

    ts: int
    accounts: dict[str, AccountState]
    limits: Limits | None = None
    plan: PlanState | None = None
    version: int = 0


def history(reader: LedgerReader, now: int) -> list[Point]:
    """Return what counted over time, from the ledger's first entry until `now` (milliseconds since 1970).

    Of changes that lie close together the last stands for all, so that memory does not grow with the ledger.
    """
    first = reader.entry(0).body.ts
    end = max(now, reader.state().ts, first + 1)
    point = Point(first, {name: AccountState() for name in ACCOUNTS})
    found, held = {0: point}, dict[str, ReserveData]()
    for entry in reader.entries(kinds=("policy", "reserve", "close")):
        point = _after(point, entry.body, held)
        found[(point.ts - first) * MOST_POINTS // (end - first)] = point
    points = list(found.values())
    return sorted([*points, *_expiries(points, end), replace(point, ts=end)], key=lambda item: item.ts)


def _after(point: Point, body: Body, held: dict[str, ReserveData]) -> Point:
    """Return the accounts after an entry; `held` keeps the reservations that are open."""
    if isinstance(body, PolicyEntry):
        return _under_policy(point, body)
    accounts = dict(point.accounts)
    if isinstance(body, Reserve):
        held[body.rid] = body.data
        for charge in body.data.charges:
            accounts[charge.account] = accounts[charge.account].opened(None, charge.cost)
        return replace(point, ts=body.ts, accounts=accounts, plan=_reserved(point.plan, body.data))
    if isinstance(body, Close) and body.rid in held:
        for charge in held.pop(body.rid).charges:
            back = charge.account in body.data.returned
            accounts[charge.account] = accounts[charge.account].closed(None, body.day, charge.cost, back)
    return replace(point, ts=body.ts, accounts=accounts)


def _under_policy(point: Point, body: PolicyEntry) -> Point:
    whole = [charge for charge in body.data.plan if charge.purpose is None]
    accounts = retire_plan(point.plan, point.accounts, body.day)
    for charge in whole:
        accounts[charge.account] = accounts[charge.account].opened(None, charge.cost)
    slots = body.data.policy.budget.slots
    plan = PlanState(policy=body.data.sha256, slots=slots, charges=tuple(whole)) if slots else None
    return Point(body.ts, accounts, body.data.limits, plan, body.data.policy.version)


def _reserved(plan: PlanState | None, data: ReserveData) -> PlanState | None:
    """Note the accounts that a study in a slot uses: what they were charged for the plan never comes back."""
    if plan is None or data.slot is None:
        return plan
    used = {*plan.reserved, *(charge.account for charge in data.charges)}
    return plan.model_copy(update={"reserved": tuple(name for name in ACCOUNTS if name in used)})


def _expiries(points: list[Point], end: int) -> list[Point]:
    """Return a point for each day on which something stops counting against the period's budget."""
    found = []
    for point, until in zip(points, [*(later.ts for later in points[1:]), end], strict=True):
        days = {item.day for account in point.accounts.values() for item in account.all.days}
        length = point.limits.period_days if point.limits is not None else 0
        times = {(day + length) * MILLISECONDS_A_DAY for day in days}
        found += [replace(point, ts=ts) for ts in sorted(times) if point.ts < ts < until]
    return found


@dataclass(frozen=True)
class Reading:
    """What one account has used at one time, as epsilon at the budget's delta: for life by closed studies, for life in all,
    within the period; and the two budgets."""

    spent: float
    used: float
    period: float
    life_budget: float
    period_budget: float


def readings(points: list[Point], account: Account) -> list[Reading]:
    """Return one account's figures at each point; before a policy is in force nothing is spent."""
    return [_reading(point, account) for point in points]


def _reading(point: Point, account: Account) -> Reading:
    limits, totals = point.limits, point.accounts[account]
    if limits is None:
        return Reading(0.0, 0.0, 0.0, math.nan, math.nan)
    period = totals.all.spent(point.ts // MILLISECONDS_A_DAY, limits.period_days)
    return Reading(
        spent=_drawn(limits.filter, less(totals.life, totals.all.open), limits.life, None, account),
        used=_drawn(limits.filter, totals.life, limits.life, point.plan, account),
        period=_drawn(limits.filter, period, limits.period, point.plan, account),
        life_budget=limits.life.epsilon,
        period_budget=limits.period.epsilon,
    )


def _drawn(filter_: Filter, cost: Cost, bound: Bound, plan: PlanState | None, account: Account) -> float:
    """Return the epsilon of a cost; of a plan that alone counts, its privacy loss distribution's, which is below."""
    value = drawn_epsilon(filter_, cost, bound.delta)
    charge = next((item for item in plan.charges if item.account == account), None) if plan is not None else None
    if plan is None or charge is None or charge.cost != cost:
        return value
    return min(value, plan_epsilon(plan.slots, account, bound.delta))


@lru_cache(maxsize=4096)
def drawn_epsilon(filter_: Filter, cost: Cost, delta: float) -> float:
    """Return the epsilon that a cost enforces at `delta`, in floating point, for a picture; at most 100.

    The inverse of the Gaussian mechanism's delta (Balle and Wang 2018, Theorem 8), as `privacy.token` has it in 50 digits.
    """
    if cost == NOTHING:
        return 0.0
    if not isinstance(filter_, TokenFilter):
        try:
            return cost_epsilon(filter_, cost, delta)
        except PolicyError:
            return MAX_EPSILON
    disclosed, mu = cost.femto / FEMTO, math.sqrt(cost.nano / NANO)
    left = (delta - disclosed) / (1.0 - disclosed)
    if left <= 0.0 or (mu > 0.0 and gaussian_log_delta(mu, MAX_EPSILON) > math.log(left)):
        return MAX_EPSILON
    if mu == 0.0 or gaussian_log_delta(mu, 0.0) <= math.log(left):
        return 0.0
    return float(
        brentq(lambda value: max(gaussian_log_delta(mu, value), -1e9) - math.log(left), 0.0, MAX_EPSILON, xtol=1e-6)
    )


def draw_history(points: list[Point], kind: str, member: str) -> bytes:
    """Draw both accounts' spending over time against their budgets; the same history gives the same bytes.

    Parameters
    ----------
    points:
        As `history` returns them.
    kind:
        `svg` or `png`.
    member:
        Whose ledger it is.
    """
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(7.4, 5.6), layout=ConstrainedLayoutEngine(h_pad=0.08, hspace=0.06))
        panels = figure.subplots(2, 1, sharex=True)
        for panel, account in zip(panels, ACCOUNTS, strict=True):
            _panel(panel, points, account)
        panels[0].tick_params(axis="x", length=0)
        _times(panels[1], points)
        title = f"Privacy budget of {member} until {_day(points[-1].ts):%d %B %Y}"
        figure.suptitle(title, x=0.012, ha="left", fontsize=10.5, fontweight="bold")
        figure.legend(handles=_legend(points[-1].limits), loc="outside lower left", ncols=5, handlelength=2.2)
        sink = io.BytesIO()
        metadata: dict[str, Any] = {"Date": None, "Creator": None} if kind == "svg" else {"Software": None}
        figure.savefig(sink, format=kind, dpi=160, metadata=metadata)
    return sink.getvalue()


def _panel(axis: Axes, points: list[Point], account: Account) -> None:
    times = [_x(point) for point in points]
    rows = readings(points, account)
    spent, used = [row.spent for row in rows], [row.used for row in rows]
    axis.fill_between(times, spent, step="post", color=_PALE, linewidth=0)
    axis.fill_between(
        times, spent, used, step="post", facecolor="white", hatch="/////", edgecolor=_BLUE, linewidth=0, alpha=0.75
    )
    axis.step(times, used, where="post", color=_BLUE, linewidth=2.6, solid_capstyle="butt")
    axis.step(times, [row.period for row in rows], where="post", color=_OCHRE, linewidth=1.1, solid_capstyle="butt")
    axis.step(times, [row.life_budget for row in rows], where="post", color=_BLUE, linewidth=1.0, linestyle=(0, (5, 2)))
    axis.step(
        times, [row.period_budget for row in rows], where="post", color=_OCHRE, linewidth=1.0, linestyle=(0, (5, 2))
    )
    last = rows[-1]
    top = max(
        [last.life_budget, *used, *(row.period_budget for row in rows)],
        key=lambda value: -1.0 if math.isnan(value) else value,
    )
    axis.set_ylim(0, 1.1 * top if top > 0 else 1.0)
    axis.yaxis.set_major_locator(MaxNLocator(5))
    axis.grid(axis="y", color=_RULE, linewidth=0.5, alpha=0.7)
    axis.set_axisbelow(True)
    axis.set_ylabel("epsilon")
    axis.set_title(TITLES[account], loc="left", fontsize=9)
    axis.set_title(_summary(last), loc="right", fontsize=8, color=_SOFT)
    _label_budgets(axis, last)
    _mark_policies(axis, points)


def _summary(last: Reading) -> str:
    if math.isnan(last.life_budget):
        return "no policy is in force"
    return f"life {last.used:.2f} of {last.life_budget:g}   period {last.period:.2f} of {last.period_budget:g}"


def _label_budgets(axis: Axes, last: Reading) -> None:
    if math.isnan(last.life_budget):
        return
    lines = [("life", last.life_budget, _BLUE), ("period", last.period_budget, _OCHRE)]
    if last.life_budget - last.period_budget < 0.08 * axis.get_ylim()[1]:
        lines = [("life and period", last.life_budget, _INK)] if last.life_budget == last.period_budget else lines[:1]
    for text, height, colour in lines:
        place = (1.0, height)
        axis.annotate(
            text,
            place,
            (5, 0),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            va="center",
            color=colour,
        )


def _mark_policies(axis: Axes, points: list[Point]) -> None:
    """Mark where a later version of the policy came into force."""
    before = 0
    for point in points:
        if point.version > before and before:
            axis.axvline(_x(point), color=_SOFT, linewidth=0.6, linestyle=(0, (1, 2)))
            place = (_x(point), 1.0)
            axis.annotate(
                f"policy {point.version}",
                place,
                (2, -2),
                xycoords=("data", "axes fraction"),
                textcoords="offset points",
                va="top",
                fontsize=6.5,
                color=_SOFT,
            )
        before = point.version


def _times(axis: Axes, points: list[Point]) -> None:
    locator = AutoDateLocator(tz=UTC, minticks=3, maxticks=8)  # type: ignore[no-untyped-call]
    axis.xaxis.set_major_locator(locator)
    axis.xaxis.set_major_formatter(ConciseDateFormatter(locator, tz=UTC))  # type: ignore[no-untyped-call]
    axis.set_xlim(_x(points[0]), _x(points[-1]))


def _legend(limits: Limits | None) -> list[Patch | Line2D]:
    days = "the period" if limits is None else f"any {limits.period_days} days"
    return [
        Patch(facecolor=_PALE, label="spent"),
        Patch(facecolor="white", edgecolor=_BLUE, hatch="/////", linewidth=0, label="reserved, open"),
        Line2D([], [], color=_BLUE, linewidth=2.6, label="counts for life"),
        Line2D([], [], color=_OCHRE, linewidth=1.1, label=f"counts within {days}"),
        Line2D([], [], color=_SOFT, linewidth=1.0, linestyle=(0, (5, 2)), label="budget"),
    ]


def _x(point: Point) -> float:
    """Return a point's place on matplotlib's axis of time: days since 1970."""
    return point.ts / MILLISECONDS_A_DAY


def _day(ts: int) -> datetime:
    return datetime.fromtimestamp(ts / 1000, UTC)
