"""What a statistics study will cost under the terms that the policy grants it.

A round's vector is a sum of integers, one customer's part of L2 norm at most `sensitivity` (`federation.measures`), with discrete Gaussian
noise N_Z(0, share^2) on each. The noise is the plan's; what a vault grants is the sensitivity. Added up in secret, the events are
`SecureSum`s. Released by the vault itself, a round is a post-processing of the continuous Gaussian of variance share^2 - 4, but for
2.1e-34 in total variation an integer (see `privacy.events.SecureSum`; at 10^7 integers this is within what accounting allows for rounding):
it is paid for as `SubsampledGaussian` with sampling rate 1. Neighbours: one customer more or less. Every round counts all customers, those
who train and those who are held out, so that both accounts pay for it.
"""

import math

from client.pricing import largest_part
from federation.charter import Declaration
from federation.messages import StatisticsGrant
from federation.statistics import StatisticsSpec
from privacy.accounting import calibrate_sensitivity
from privacy.decision import Terms
from privacy.events import SMOOTHING, PrivacyEvent, SecureSum, SubsampledGaussian
from privacy.ledger import Account
from privacy.ledger.secrecy import own_epsilon


def price_statistics(spec: StatisticsSpec, member: str, declaration: Declaration, terms: Terms) -> StatisticsGrant:
    """Return the largest sensitivity that keeps a study within its terms.

    Raises
    ------
    PolicyError, DocumentError
        As `privacy.accounting.calibrate_sensitivity`.
    """
    plan = spec.plan
    if spec.secure is not None:
        sensitivity = largest_part(spec.secure, terms, 1.0, plan.rounds, plan.dimension)
    else:
        sensitivity = calibrate_sensitivity(
            terms.epsilon, terms.delta, 1.0, plan.rounds, sigma=plan.share, dimension=plan.dimension, members=1
        )
    return StatisticsGrant(
        study=spec.digest(),
        member=member,
        declared_size=declaration.size,
        epsilon=terms.epsilon,
        delta=terms.delta,
        share=plan.share,
        sensitivity=sensitivity,
    )


def statistics_events(spec: StatisticsSpec, grant: StatisticsGrant) -> dict[Account, tuple[PrivacyEvent, ...]]:
    """Return what a grant costs each account; the vault computes with the grant's numbers, so these are the ones to pay for."""
    plan, secure = spec.plan, spec.secure
    event: PrivacyEvent
    if secure is not None:
        event = SecureSum(
            sigma=secure.sigma,
            members=secure.bearers,
            sensitivity=grant.sensitivity,
            sampling_rate=1.0,
            steps=plan.rounds,
            dimension=plan.dimension,
        )
    else:
        clear = math.sqrt(grant.share * grant.share - SMOOTHING)
        event = SubsampledGaussian(
            noise_multiplier=clear / grant.sensitivity * (1.0 - 1e-15), sampling_rate=1.0, steps=plan.rounds
        )
    return {"training": (event,), "holdout": (event,)}


def statistics_broken(spec: StatisticsSpec, grant: StatisticsGrant) -> dict[Account, float] | None:
    """Return the epsilon of each account by the member's own noise alone, should sums in secret fail; None where nothing is secret."""
    if spec.secure is None:
        return None
    return {account: own_epsilon(events, grant.delta) for account, events in statistics_events(spec, grant).items()}
