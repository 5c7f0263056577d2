"""A policy in plain words: what it allows, and the common mistakes."""

from federation.charter import Charter
from privacy.filter import limits_of
from privacy.policy import CUSTOMERS_PER_DELTA, Policy, describe_holdout
from privacy.token import FEMTO

LARGE_EPSILON = 10
HEADROOM = 1.1


def explain(policy: Policy, charter: Charter | None = None) -> list[str]:
    """Return in plain words what a policy allows, then one line beginning with `Warning:` for each common mistake.

    With a charter, delta and smallest cohort are compared with what the institution declares there.
    """
    return [
        *_allowed(policy),
        *[f"Warning: {text}" for text in (*_budget_warnings(policy), *_size_warnings(policy, charter))],
    ]


def _allowed(policy: Policy) -> list[str]:
    period, life = policy.budget.period, policy.budget.life
    lines = [
        f"{policy.institution}, version {policy.version}, in force from {policy.issued} until before {policy.expires}."
    ]
    lines += [f"{rule.id}: {rule.meaning}; only customers who agreed to {rule.consent}." for rule in policy.purposes]
    for rule in policy.studies:
        lines.append(
            f"On {rule.contract}, for {', '.join(rule.purposes)}: models {', '.join(rule.models)} by "
            f"{', '.join(rule.modes)}; "
            f"epsilon at most {rule.max_epsilon:g} and delta {rule.max_delta:g} a study; "
            f"held out: {describe_holdout(rule.holdout)}."
        )
    lines += [
        f"Everything that leaves within any {period.days} days on end keeps, for each customer, to epsilon "
        f"{period.epsilon:g} and "
        f"delta {period.delta:g}; everything for good, to epsilon {life.epsilon:g} and delta {life.delta:g}. "
        "Customers who train "
        "and customers who are held out each have this whole budget.",
        _room(policy),
        f"A study needs {policy.smallest_cohort} declared customers here and {policy.smallest_partners} partners in "
        "all.",
        f"Name lists hold only customers who agreed to {policy.contact_consent}; they never leave.",
        f"Replies leave on a grid of {policy.reply_grid_seconds:g} seconds.",
        "Refused: every other purpose, contract, model, mode and hold-out, and any request beyond these figures.",
    ]
    return lines


def _budget_warnings(policy: Policy) -> list[str]:
    period, life = policy.budget.period, policy.budget.life
    warnings = []
    if life.epsilon > LARGE_EPSILON:
        warnings.append(f"a life budget of epsilon {life.epsilon:g} promises a single customer next to nothing.")
    if life.epsilon > period.epsilon:
        warnings.append(
            f"the period's budget comes back every {period.days} days: over the years the total grows from epsilon "
            f"{period.epsilon:g} to {life.epsilon:g}, where it stops for good."
        )
    for rule in policy.studies:
        if rule.max_epsilon * HEADROOM > period.epsilon:
            warnings.append(
                f"one study on {rule.contract} at epsilon {rule.max_epsilon:g} may not fit into a period's budget of "
                f"{period.epsilon:g}: the filter counts a few percent more than the study itself states."
            )
    return warnings


def _size_warnings(policy: Policy, charter: Charter | None) -> list[str]:
    if charter is None:
        return []
    warnings = []
    for rule in policy.studies:
        declaration = charter.member(policy.institution).declaration(rule.contract)
        if declaration is None:
            warnings.append(f"the charter has no declaration for {rule.contract}: every study on it would be refused.")
            continue
        largest = 1.0 / (CUSTOMERS_PER_DELTA * declaration.size)
        deltas = {
            "a study": rule.max_delta,
            "the period": policy.budget.period.delta,
            "life": policy.budget.life.delta,
        }
        warnings += [
            f"delta {delta:g} for {what} is above 1/({CUSTOMERS_PER_DELTA} x {declaration.size} declared customers) "
            f"= {largest:.3g}."
            for what, delta in deltas.items()
            if delta > largest
        ]
        if declaration.size < policy.smallest_cohort:
            warnings.append(f"{declaration.size} declared customers on {rule.contract} are below the smallest cohort.")
    return warnings


def _room(policy: Policy) -> str:
    limits = limits_of(policy)
    each = limits.run_delta * FEMTO
    period, life = (round(limit.delta_femto / each) for limit in (limits.period, limits.life))
    return f"However small they are: at most {period} studies within that time, and {life} for good."
