"""What is charged: a study as one run of its events, a plan as one run of all its slots."""

from collections.abc import Mapping, Sequence
from importlib.metadata import version

from federation.errors import PolicyError
from privacy.cost import NOTHING
from privacy.decision import Terms
from privacy.events import PrivacyEvent
from privacy.filter import Limits, price, run_epsilon
from privacy.ledger.entries import (
    ACCOUNTS,
    Account,
    AccountCharge,
    PlanCharge,
    ReserveData,
)
from privacy.ledger.plans import plan_lines
from privacy.ledger.secrecy import check_floor, check_terms, claims_of
from privacy.plan import plan_events
from privacy.policy import Policy

EPSILON_SLACK = 1e-9


def plan_charges(policy: Policy, limits: Limits) -> tuple[PlanCharge, ...]:
    """Return what a policy's plan costs: each account, and each purpose in it, as one run of all its slots."""
    return tuple(
        PlanCharge(account=account, purpose=purpose, cost=price(plan_events(slots, account), limits, purpose))
        for account, purpose, slots in plan_lines(policy.budget.slots)
    )


def priced(
    study: str,
    charges: Mapping[Account, Sequence[PrivacyEvent]],
    releases: Mapping[Account, int],
    terms: Terms,
    limits: Limits,
    if_broken: Mapping[Account, float] | None = None,
) -> ReserveData:
    """Return what a reservation writes down: each account's events priced as one run, nothing for a plan's slot.

    Raises
    ------
    PolicyError
        CSL-P411 for events that cost more than the terms grant; CSL-P216, CSL-P217 as `Ledger.reserve`.
    """
    check_terms(charges, terms.secure)
    for account, events in charges.items():
        cost = run_epsilon(tuple(events), terms.delta)
        if cost > terms.epsilon * (1 + EPSILON_SLACK):
            raise PolicyError(
                "CSL-P411",
                f"The study's events cost epsilon {cost:.4g} on the {account} account; {terms.epsilon:.4g} is granted.",
                "Use more noise or fewer steps.",
            )
    lines = tuple(
        AccountCharge(
            account=name,
            events=tuple(charges[name]),
            releases=releases[name],
            cost=NOTHING if terms.slot is not None else price(tuple(charges[name]), limits, terms.purpose),
        )
        for name in ACCOUNTS
        if name in charges
    )
    claims = claims_of(lines, if_broken, terms.delta)
    check_floor(claims, terms.floor)
    return ReserveData(
        study=study,
        purpose=terms.purpose,
        contract=terms.contract,
        policy=terms.policy,
        work=terms.work,
        epsilon=terms.epsilon,
        delta=terms.delta,
        library=f"dp-accounting {version('dp-accounting')}",
        slot=None if terms.slot is None else terms.slot.id,
        charges=lines,
        if_broken=claims,
    )
