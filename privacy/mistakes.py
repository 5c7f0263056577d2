"""The common mistakes in a policy, each in plain words."""

import math
from collections.abc import Callable, Sequence
from datetime import date

from federation.charter import Charter
from federation.errors import PolicyError
from privacy.accounting import gaussian_epsilon, gaussian_mu
from privacy.cost import RdpFilter
from privacy.explanation import plan_epsilons, studies_within
from privacy.filter import limits_of
from privacy.policy import CUSTOMERS_PER_DELTA, Policy, SecureRule, StatisticsRule, StudyRule
from privacy.rdp import LARGEST_ORDER, SMALLEST_ORDER

LARGE_EPSILON = 10
LONG_YEARS = 3
FEW_CUSTOMERS = 100
_YEAR = 366
_POOR_ORDER = 0.8


def mistakes(policy: Policy, charter: Charter | None = None, today: date | None = None) -> list[str]:
    """Return what is probably not meant, one line each; none for a sound policy.

    Parameters
    ----------
    charter:
        With it, deltas and the smallest cohort are compared with what the institution declares there.
    today:
        With it, the dates are compared with it.

    Raises
    ------
    PolicyError
        CSL-P112 when nothing fits into a budget at the policy's order.
    """
    checks: tuple[Callable[[Policy], list[str]], ...] = (
        _large,
        _growth,
        _delta,
        _fit,
        _order,
        _plan,
        _people,
        _secrecy,
        _kept,
    )
    found = [text for check in checks for text in check(policy)]
    if charter is not None:
        found += _declared(policy, charter)
    return found + _dates(policy, today)


def _rules(policy: Policy) -> tuple[StudyRule | StatisticsRule, ...]:
    """Return the rules for training and for statistics."""
    return (*policy.studies, *policy.statistics)


def _kind(rule: StudyRule | StatisticsRule) -> str:
    return "statistics study" if isinstance(rule, StatisticsRule) else "study"


def _large(policy: Policy) -> list[str]:
    period, life = policy.budget.period, policy.budget.life
    text = "promises a single customer next to nothing."
    found = [
        f"a {name} budget of epsilon {epsilon:g} {text}"
        for name, epsilon in (("life", life.epsilon), (f"{period.days} days", period.epsilon))
        if epsilon > LARGE_EPSILON
    ]
    return found + [
        f"one {_kind(rule)} on {rule.contract} at epsilon {rule.max_epsilon:g} {text}"
        for rule in _rules(policy)
        if rule.max_epsilon > LARGE_EPSILON
    ]


def _growth(policy: Policy) -> list[str]:
    period, life = policy.budget.period, policy.budget.life
    if life.epsilon <= period.epsilon:
        return []
    return [
        f"the period's budget comes back every {period.days} days: over the years the total grows from epsilon "
        f"{period.epsilon:g} to {life.epsilon:g}, where it stops for good."
    ]


def _delta(policy: Policy) -> list[str]:
    largest = max(policy.budget.life.delta, *(rule.max_delta for rule in _rules(policy)))
    most = math.floor(1.0 / (CUSTOMERS_PER_DELTA * largest))
    if most >= policy.smallest_cohort:
        return []
    return [
        f"every study would be refused: delta {largest:g} is sound for at most {most} declared customers, and the smallest "
        f"cohort is {policy.smallest_cohort}."
    ]


def _fit(policy: Policy) -> list[str]:
    if policy.budget.mode == "plan":
        return []
    limits = limits_of(policy)
    found = []
    for rule in _rules(policy):
        bounds = {f"the budget of {limits.period_days} days": limits.period}
        bounds |= {f"the budget of {name}": limits.purposes[name] for name in rule.purposes if name in limits.purposes}
        found += [
            f"one {_kind(rule)} on {rule.contract} at epsilon {rule.max_epsilon:g} may not fit into {what}, epsilon "
            f"{bound.epsilon:g}: the filter counts a few percent more than the study itself states."
            for what, bound in bounds.items()
            if studies_within(bound, rule.max_epsilon, rule.max_delta, limits.filter) < 1.0
        ]
    return found


def best_order(budgets: Sequence[tuple[float, float]]) -> int:
    """Return the order at which Renyi divergence makes the most of several budgets, each (epsilon, delta).

    It is the order whose worst use of any of them is best (`order_use`).
    """
    orders = range(SMALLEST_ORDER, LARGEST_ORDER + 1)
    return max(orders, key=lambda order: min(order_use(*budget, order) for budget in budgets))


def order_use(epsilon: float, delta: float, order: int) -> float:
    """Return the part of a budget that one order makes use of: 1 is all that Gaussian mechanisms could spend.

    At order alpha they may have alpha mu^2 / 2 <= epsilon + (ln delta + ln alpha)/(alpha - 1) - ln((alpha - 1)/alpha)
    (Mironov 2017, Corollary 3; Canonne, Kamath and Steinke 2020, Proposition 12); exactly, mu of `gaussian_mu`.
    """
    slack = (math.log(delta) + math.log(order)) / (order - 1) - math.log((order - 1) / order)
    return max(2.0 * (epsilon + slack) / order, 0.0) / gaussian_mu(epsilon, delta) ** 2


def _order(policy: Policy) -> list[str]:
    budget = policy.budget
    if not isinstance(budget.filter, RdpFilter):
        return []
    budgets = [(budget.period.epsilon, budget.period.delta), (budget.life.epsilon, budget.life.delta)]
    best, order = best_order(budgets), budget.filter.order
    now, could = ([order_use(*item, choice) for item in budgets] for choice in (order, best))
    if min(now) >= _POOR_ORDER * min(could):
        return []
    return [
        f"order {order} makes use of {now[0]:.0%} of the period's budget and {now[1]:.0%} of the life's; order {best} would "
        f"of {could[0]:.0%} and {could[1]:.0%}. It is fixed for good."
    ]


def _plan(policy: Policy) -> list[str]:
    if policy.budget.mode != "plan":
        return []
    period, life = policy.budget.period, policy.budget.life
    budgets: list[tuple[str, float, float, str | None]] = [
        (f"{period.days} days", period.epsilon, period.delta, None),
        ("life", life.epsilon, life.delta, None),
    ]
    budgets += [
        (rule.id, rule.budget.epsilon, rule.budget.delta, rule.id)
        for rule in policy.purposes
        if rule.budget is not None and any(slot.purpose == rule.id for slot in policy.budget.slots)
    ]
    return [text for budget in budgets for text in _plan_within(policy, *budget)]


def _plan_within(policy: Policy, what: str, epsilon: float, delta: float, purpose: str | None) -> list[str]:
    try:
        most = max(plan_epsilons(policy, delta, purpose))
    except PolicyError as error:
        return [f"the plan has no price at delta {delta:g}: {error.cause}"]
    if most <= epsilon:
        return []
    return [f"the plan spends epsilon {most:.4g} at delta {delta:g}: more than the budget for {what}, {epsilon:g}."]


def _people(policy: Policy) -> list[str]:
    found = []
    if len(policy.officers) == 1:
        found.append(
            "only one officer is named: nobody can take her place, a backup can never be restored, and whomever she names as "
            "second signs what grows."
        )
    if all(rule.automatic_epsilon == rule.max_epsilon for rule in _rules(policy)):
        found.append("everything is automatic: no person sees a study before it starts.")
    else:
        found += [
            f"every statistics study on {rule.contract} is automatic: no person reads its questions before they are answered."
            for rule in policy.statistics
            if rule.automatic_epsilon == rule.max_epsilon
        ]
    used = {name for rule in _rules(policy) for name in rule.purposes}
    found += [f"purpose {rule.id} is in no rule for studies." for rule in policy.purposes if rule.id not in used]
    if policy.smallest_partners == 1:
        found.append(
            "a study may run with 1 partner: then its model is this institution's alone, protected by its own noise only."
        )
    if policy.smallest_cohort < FEW_CUSTOMERS:
        found.append(f"a cohort of {policy.smallest_cohort} would need so much noise that its answers are of no use.")
    return found


def _secrecy(policy: Policy) -> list[str]:
    rule = policy.secure
    if rule is None:
        return []
    found = []
    if policy.budget.mode == "plan":
        found.append("the rule for sums in secret is idle: the budget is a plan, whose slots describe plain studies.")
    if rule.c == 0:
        found.append(
            "secure: c = 0 trusts every other institution: one that works together with the coordinator is not reckoned with."
        )
    if policy.aggregation == "secure":
        found += [
            f"every study on {item.contract} would be refused: sums in secret need mode fedsgd and an additive or logistic model."
            for item in policy.studies
            if "fedsgd" not in item.modes or set(item.models) == {"mlp"}
        ]
    if rule.local_noise_floor is not None and rule.local_noise_floor > LARGE_EPSILON:
        found.append(
            f"secure: a local_noise_floor of epsilon {rule.local_noise_floor:g} promises a single customer next to nothing."
        )
    return found + (_shared(policy, rule) if "shared" in rule.noise else [])


def _shared(policy: Policy, rule: SecureRule) -> list[str]:
    """Say what shared noise is worth by itself, or that a floor leaves nothing of it."""
    floor = rule.local_noise_floor
    if floor is None:
        largest = max(_rules(policy), key=lambda item: item.max_epsilon)
        bearers = rule.n_min - max(rule.c, 1)
        alone = gaussian_epsilon(
            gaussian_mu(largest.max_epsilon, largest.max_delta) * math.sqrt(bearers), largest.max_delta
        )
        return [
            f"secure: shared noise without a local_noise_floor. Should the protocol fail, a study of epsilon {largest.max_epsilon:g} would "
            f"be worth epsilon {alone:.2g} or so with {bearers} honest members' noise, and more with more members; nothing bounds it."
        ]
    smallest = min(item.max_epsilon for item in _rules(policy))
    if floor > smallest:
        return []
    return [
        f"secure: a local_noise_floor of {floor:g} is not above the epsilon of a study ({smallest:g}): one's own noise must be enough "
        "then, so that sharing it gains nothing."
    ]


def _kept(policy: Policy) -> list[str]:
    found = []
    if policy.reply_grid_seconds == 0:
        found.append("replies leave as soon as they are ready (grid of 0 seconds): their delay tells about the data.")
    if policy.retention.participation_days < policy.budget.period.days:
        found.append(
            f"who took part is forgotten after {policy.retention.participation_days} days, before the budget's "
            f"{policy.budget.period.days} days are over: a customer who withdraws cannot be told which models saw her."
        )
    if policy.retention.replies_days > policy.budget.period.days:
        found.append(f"replies are kept for {policy.retention.replies_days} days, longer than the budget's period.")
    return found


def _dates(policy: Policy, today: date | None) -> list[str]:
    found = []
    if (policy.expires - policy.issued).days > LONG_YEARS * _YEAR:
        found.append(f"it holds until {policy.expires}: more than {LONG_YEARS} years without another look at it.")
    if today is not None and today >= policy.expires:
        found.append(f"it expired on {policy.expires}: every study would be refused.")
    if today is not None and today < policy.issued:
        found.append(f"it is in force only from {policy.issued} on: until then every study would be refused.")
    return found


def _declared(policy: Policy, charter: Charter) -> list[str]:
    found = []
    for contract in dict.fromkeys(rule.contract for rule in _rules(policy)):
        declaration = charter.member(policy.institution).declaration(contract)
        if declaration is None:
            found.append(f"the charter has no declaration for {contract}: every study on it would be refused.")
            continue
        largest = 1.0 / (CUSTOMERS_PER_DELTA * declaration.size)
        deltas = {f"a {_kind(rule)}": rule.max_delta for rule in _rules(policy) if rule.contract == contract}
        deltas |= {"the period": policy.budget.period.delta, "life": policy.budget.life.delta}
        found += [
            f"delta {delta:g} for {what} is above 1/({CUSTOMERS_PER_DELTA} x {declaration.size} declared customers) "
            f"= {largest:.3g}."
            for what, delta in deltas.items()
            if delta > largest
        ]
        if declaration.size < policy.smallest_cohort:
            found.append(f"{declaration.size} declared customers on {contract} are below the smallest cohort.")
        found += _enough(policy, contract, charter)
    return found


def _enough(policy: Policy, contract: str, charter: Charter) -> list[str]:
    """Compare the least number of members in a sum with how many there are."""
    if policy.secure is None:
        return []
    least, able = policy.secure.n_min, sum(member.declaration(contract) is not None for member in charter.members)
    if least > able:
        return [f"secure: n_min is {least}, and {able} institutions declare {contract}: no sum would ever be opened."]
    if least == able:
        return [
            f"secure: n_min is {least}, as many as declare {contract}: nobody may drop out of a sum, or it is not opened."
        ]
    return []
