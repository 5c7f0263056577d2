"""Studies whose vectors are added up in secret: what would hold by one's own noise alone, and what a policy asks of them.

A charge says what holds while the protocol does. Beside it, and never added to it, a reservation says what would hold if every
vector were seen by itself (`privacy.accounting.epsilon_alone`).
"""

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache

from federation.errors import PolicyError
from federation.study import SecurePlan
from privacy.accounting import epsilon_alone
from privacy.events import PrivacyEvent, SecureSum
from privacy.filter import run_epsilon
from privacy.ledger.entries import Account, AccountCharge, BrokenClaim, ReserveData
from privacy.policy import Policy, SecureRule

SLACK = 1e-6


@lru_cache(maxsize=1024)
def own_epsilon(events: tuple[PrivacyEvent, ...], delta: float) -> float:
    """Return the epsilon of an account's secret sum by one's own noise alone, never below that of the events themselves;
    infinite where they are no secret sum; remembered.

    Raises
    ------
    PolicyError
        As `privacy.accounting.epsilon_alone`.
    """
    if len(events) != 1 or not isinstance(events[0], SecureSum):
        return math.inf
    return max(epsilon_alone(events[0], delta), run_epsilon(events, delta))


def claims_of(
    charges: Sequence[AccountCharge], if_broken: Mapping[Account, float] | None, delta: float
) -> tuple[BrokenClaim, ...] | None:
    """Return what a reservation states of the protocol's failure, checked against its events; None for a plain study.

    Raises
    ------
    PolicyError
        CSL-P216 when it is missing, given for a plain study, or below what the events give.
    """
    if if_broken is None:
        if any(isinstance(event, SecureSum) for charge in charges for event in charge.events):
            raise _unstated()
        return None
    if set(if_broken) != {charge.account for charge in charges} or not all(map(math.isfinite, if_broken.values())):
        raise _unstated()
    for charge in charges:
        if is_understated(charge, if_broken[charge.account], delta, SLACK):
            raise PolicyError(
                "CSL-P216",
                f"Epsilon {if_broken[charge.account]:.4g} is stated for the {charge.account} account should the protocol fail; by one's "
                "own noise alone its events cost more.",
                "State what `client.pricing.broken_epsilon` says.",
            )
    return tuple(BrokenClaim(account=charge.account, epsilon=if_broken[charge.account]) for charge in charges)


def is_understated(charge: AccountCharge, claimed: float, delta: float, slack: float) -> bool:
    """Return whether an epsilon is below what one's own noise alone gives, by more than a relative `slack`."""
    return not claimed * (1 + slack) >= own_epsilon(charge.events, delta)


def check_terms(charges: Mapping[Account, Sequence[PrivacyEvent]], plan: SecurePlan | None) -> None:
    """Refuse events that are not those of the aggregation that was granted.

    Raises
    ------
    PolicyError
        CSL-P216.
    """
    for event in (event for events in charges.values() for event in events):
        if not (_is_of(plan, event) if isinstance(event, SecureSum) else plan is None):
            raise PolicyError(
                "CSL-P216",
                "The events to be charged are not those of the aggregation that the policy granted.",
                "Price the study anew from its terms.",
            )


def check_floor(claims: Sequence[BrokenClaim] | None, floor: float | None) -> None:
    """Refuse a study of which more than `floor` would be disclosed by one's own noise alone.

    Raises
    ------
    PolicyError
        CSL-P217.
    """
    for claim in claims or ():
        if floor is not None and claim.epsilon > floor * (1 + SLACK):
            raise PolicyError(
                "CSL-P217",
                f"If the protocol failed, the {claim.account} account would have epsilon {claim.epsilon:.4g}; the policy's "
                f"local_noise_floor is {floor:g}.",
                "Price the study anew from its terms, or let the officers move the floor.",
            )


def check_secrecy(policy: Policy, data: ReserveData) -> None:
    """Refuse a reservation whose vectors are added up otherwise than the policy in force allows.

    Raises
    ------
    PolicyError
        CSL-P216 when what holds on failure is missing or out of place, CSL-P217 when it is above the policy's floor,
        CSL-P401 for an aggregation or a noise that the policy does not allow.
    """
    events = [event for charge in data.charges for event in charge.events]
    secret = [event for event in events if isinstance(event, SecureSum)]
    expected = len(data.charges) if data.if_broken is not None else 0
    if len(secret) != expected or (secret and len(events) != expected):
        raise _unstated()
    if not (_allows(policy.secure, secret) if secret else policy.aggregation == "plain"):
        raise PolicyError(
            "CSL-P401", "The policy in force does not allow this aggregation, or this noise.", "Decide again."
        )
    if secret and policy.secure is not None:
        check_floor(data.if_broken, policy.secure.local_noise_floor)


def _is_of(plan: SecurePlan | None, event: SecureSum) -> bool:
    return plan is not None and event.members == plan.bearers and math.isclose(event.sigma, plan.sigma, rel_tol=1e-9)


def _allows(rule: SecureRule | None, events: Sequence[SecureSum]) -> bool:
    return rule is not None and all(("local" if event.members == 1 else "shared") in rule.noise for event in events)


def _unstated() -> PolicyError:
    return PolicyError(
        "CSL-P216",
        "What holds if the protocol fails is stated for sums that are added up in secret, for each account, and for them only.",
        "Reserve such a study with what `client.pricing.broken_epsilon` says, a plain one without.",
    )
