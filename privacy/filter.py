"""The budget filter: whether one more run fits, in integers, in time that does not grow with what was spent.

The open mode of `privacy.token`: a policy's budgets become capacities for tokens once, when the policy is activated;
after that a decision adds and compares whole numbers. Period and life are two filters over the same tokens; a run must
pass both.
"""

from datetime import date
from functools import lru_cache

from federation.document import Document
from federation.errors import PolicyError
from privacy import accounting
from privacy.events import PrivacyEvent
from privacy.policy import Policy
from privacy.token import Token, admits, capacity, delta_budget, price, run_delta


class Limits(Document):
    """A policy's budgets as the filter enforces them.

    `period` and `life` are the most that tokens may add up to; `run_delta` is the delta0 at which every run is priced.
    """

    issued: date
    expires: date
    period_days: int
    period_epsilon: float
    period_delta: float
    period: Token
    life_epsilon: float
    life_delta: float
    life: Token
    run_delta: float


def limits_of(policy: Policy) -> Limits:
    """Return the limits of a policy; deterministic (50 digits), so that a verifier gets the same integers.

    Raises
    ------
    PolicyError
        CSL-P104, CSL-P105, CSL-P109 when a budget cannot be enforced.
    """
    period, life = policy.budget.period, policy.budget.life
    return Limits(
        issued=policy.issued,
        expires=policy.expires,
        period_days=period.days,
        period_epsilon=period.epsilon,
        period_delta=period.delta,
        period=_capacity(period.epsilon, period.delta),
        life_epsilon=life.epsilon,
        life_delta=life.delta,
        life=_capacity(life.epsilon, life.delta),
        run_delta=run_delta(period.delta),
    )


def _capacity(epsilon: float, delta: float) -> Token:
    disclosed = delta_budget(delta)
    return Token(mu_squared_nano=capacity(epsilon, delta, disclosed), delta_femto=disclosed)


@lru_cache(maxsize=1024)
def run_price(events: tuple[PrivacyEvent, ...], delta0: float) -> Token:
    """Return the token of a run of `events` at `delta0`; remembered, since institutions with equal terms ask for the same."""
    return price(events, delta0)


@lru_cache(maxsize=1024)
def run_epsilon(events: tuple[PrivacyEvent, ...], delta: float) -> float:
    """Return the tight epsilon of a run of `events` at `delta`, by privacy loss distributions; remembered."""
    return accounting.epsilon(events, delta)


def check_fit(limits: Limits, account: str, period_spent: Token, life_spent: Token, cost: Token) -> None:
    """Refuse a run whose cost does not fit into what is left of the period's and the life's budget.

    Raises
    ------
    PolicyError
        CSL-P403 for the period, CSL-P404 for the life.
    """
    if not admits(life_spent, cost, limits.life.mu_squared_nano, limits.life.delta_femto):
        raise _refusal(
            "CSL-P404", f"life budget (epsilon {limits.life_epsilon:g})", account, life_spent, cost, limits.life
        )
    if not admits(period_spent, cost, limits.period.mu_squared_nano, limits.period.delta_femto):
        what = f"budget of {limits.period_days} days (epsilon {limits.period_epsilon:g})"
        raise _refusal("CSL-P403", what, account, period_spent, cost, limits.period)


def _refusal(code: str, what: str, account: str, spent: Token, cost: Token, limit: Token) -> PolicyError:
    if spent.mu_squared_nano + cost.mu_squared_nano > limit.mu_squared_nano:
        share = cost.mu_squared_nano / max(limit.mu_squared_nano, 1)
        left = max(limit.mu_squared_nano - spent.mu_squared_nano, 0) / max(limit.mu_squared_nano, 1)
        cause = f"The study would take {share:.2%} of the {account} account's {what}; {left:.2%} is left."
    else:
        cause = f"The {account} account's {what} has no share of delta left for another study."
    return PolicyError(code, cause, "Decline the study, ask for a smaller epsilon, or wait until the period moves on.")
