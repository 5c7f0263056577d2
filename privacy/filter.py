"""The budget filter: whether one more run fits, in integers, in time that does not grow with what was spent.

A policy's budgets become capacities once, when the policy is activated, under the one filter that it fixes for the
budget's life: approximate-GDP tokens (`privacy.token`) or Renyi divergence at one order (`privacy.rdp`). After that a
decision adds and compares whole numbers. Period, life and each purpose's own budget are filters over the same costs; a
run must pass all of them.
"""

from datetime import date
from functools import lru_cache

from pydantic import Field

from federation.document import Document
from federation.errors import PolicyError
from federation.study import Purpose
from privacy import accounting
from privacy.cost import Bound, Cost, Filter, TokenFilter
from privacy.events import PrivacyEvent
from privacy.policy import Policy
from privacy.rdp import rdp_bound, rdp_epsilon, rdp_price
from privacy.token import MIN_FEMTO, token_bound, token_epsilon, token_nano, token_price


class Limits(Document):
    """A policy's budgets as the filter enforces them.

    `period` holds within any `period_days` consecutive days, and so does each purpose's own budget; `life` holds for good.
    """

    issued: date
    expires: date
    filter: Filter
    period_days: int
    period: Bound
    life: Bound
    purposes: dict[Purpose, Bound] = Field(default_factory=dict)


def limits_of(policy: Policy) -> Limits:
    """Return the limits of a policy; deterministic (50 digits), so that a verifier gets the same integers.

    Raises
    ------
    PolicyError
        CSL-P104, CSL-P105 when a budget cannot be enforced; CSL-P112 when nothing fits into one at the policy's order.
    """
    budget = policy.budget
    return Limits(
        issued=policy.issued,
        expires=policy.expires,
        filter=budget.filter,
        period_days=budget.period.days,
        period=bound_of(budget.filter, budget.period.epsilon, budget.period.delta),
        life=bound_of(budget.filter, budget.life.epsilon, budget.life.delta),
        purposes={
            rule.id: bound_of(budget.filter, rule.budget.epsilon, rule.budget.delta)
            for rule in policy.purposes
            if rule.budget is not None
        },
    )


def bound_of(filter_: Filter, epsilon: float, delta: float) -> Bound:
    """Return one budget as `filter_` enforces it.

    Raises
    ------
    PolicyError
        CSL-P104, CSL-P105, CSL-P112 as `limits_of`.
    """
    if isinstance(filter_, TokenFilter):
        return token_bound(epsilon, delta)
    return rdp_bound(epsilon, delta, filter_.order)


def price(events: tuple[PrivacyEvent, ...], limits: Limits, purpose: str | None = None) -> Cost:
    """Return what one run of `events` costs; remembered, since institutions with equal terms ask for the same.

    Under tokens, delta0 follows from the part of the tightest budget that the run takes (`privacy.token.disclosure_share`):
    of period, life and the own budget of `purpose`, where it has one.

    Raises
    ------
    PolicyError
        CSL-P106, CSL-P109, CSL-P110 when no cost describes the run.
    """
    own = limits.purposes.get(purpose) if purpose is not None else None
    bounds = (limits.period, limits.life) if own is None else (limits.period, limits.life, own)
    return _price(events, limits.filter, bounds)


@lru_cache(maxsize=1024)
def _price(events: tuple[PrivacyEvent, ...], filter_: Filter, bounds: tuple[Bound, ...]) -> Cost:
    if isinstance(filter_, TokenFilter):
        return token_price(events, bounds)
    return rdp_price(events, filter_.order)


@lru_cache(maxsize=1024)
def recompute(events: tuple[PrivacyEvent, ...], cost: Cost, filter_: Filter) -> Cost:
    """Return what a verifier finds for a run of `events` that was charged `cost`; remembered.

    Under tokens it is the token at the recorded delta0: whatever delta0 was chosen, it is sound once it is charged.

    Raises
    ------
    PolicyError
        CSL-P106, CSL-P109, CSL-P110 when no cost describes the run at the recorded delta0.
    """
    if isinstance(filter_, TokenFilter):
        return Cost(nano=token_nano(events, cost.femto), femto=cost.femto)
    return rdp_price(events, filter_.order)


@lru_cache(maxsize=1024)
def run_epsilon(events: tuple[PrivacyEvent, ...], delta: float) -> float:
    """Return the tight epsilon of a run of `events` at `delta`, by privacy loss distributions; remembered."""
    return accounting.epsilon(events, delta)


@lru_cache(maxsize=1024)
def cost_epsilon(filter_: Filter, cost: Cost, delta: float) -> float:
    """Return the epsilon that costs adding up to `cost` enforce at `delta`, rounded up.

    Raises
    ------
    PolicyError
        CSL-P104 for a bad `delta`; CSL-P111 when `cost.femto` is not below it; CSL-P106 when epsilon is above 100.
    """
    if isinstance(filter_, TokenFilter):
        return token_epsilon(cost.nano, cost.femto, delta)
    return rdp_epsilon(cost, filter_.order, delta)


def left_epsilon(filter_: Filter, bound: Bound, spent: Cost) -> float:
    """Return the epsilon, at the bound's delta, of the largest single study that still fits after `spent`; 0 for none.

    It is that of a Gaussian mechanism; other runs of the same epsilon cost a few percent more, and may just not fit.
    """
    nano = max(bound.capacity.nano - spent.nano, 0)
    if isinstance(filter_, TokenFilter):
        return token_epsilon(nano, 0, bound.delta) if bound.capacity.femto - spent.femto >= MIN_FEMTO else 0.0
    return token_epsilon(2 * nano // filter_.order, 0, bound.delta)  # rho = alpha mu^2 / 2


def fits(bound: Bound, spent: Cost, cost: Cost) -> bool:
    """Return whether a run that costs `cost` may start after runs that cost `spent`: integers only."""
    return spent.nano + cost.nano <= bound.capacity.nano and spent.femto + cost.femto <= bound.capacity.femto


def check_fit(
    limits: Limits,
    account: str,
    purpose: str,
    period_spent: Cost,
    life_spent: Cost,
    purpose_spent: Cost,
    cost: Cost,
) -> None:
    """Refuse a run whose cost does not fit into what is left of the life's, the period's or its purpose's budget.

    Raises
    ------
    PolicyError
        CSL-P404 for the life, CSL-P403 for the period, CSL-P412 for the purpose.
    """
    if not fits(limits.life, life_spent, cost):
        raise _refusal("CSL-P404", "life budget", account, limits.life, life_spent, cost)
    if not fits(limits.period, period_spent, cost):
        what = f"budget of {limits.period_days} days"
        raise _refusal("CSL-P403", what, account, limits.period, period_spent, cost)
    own = limits.purposes.get(purpose)
    if own is not None and not fits(own, purpose_spent, cost):
        what = f"budget of {limits.period_days} days for {purpose}"
        raise _refusal("CSL-P412", what, account, own, purpose_spent, cost)


def _refusal(code: str, what: str, account: str, bound: Bound, spent: Cost, cost: Cost) -> PolicyError:
    what = f"{what} (epsilon {bound.epsilon:g})"
    if spent.nano + cost.nano > bound.capacity.nano:
        most = max(bound.capacity.nano, 1)
        left = max(bound.capacity.nano - spent.nano, 0) / most
        cause = f"The study would take {cost.nano / most:.2%} of the {account} account's {what}; {left:.2%} is left."
    else:
        cause = f"The {account} account's {what} has no share of delta left for another study."
    return PolicyError(code, cause, "Decline the study, ask for a smaller epsilon, or wait until the period moves on.")
