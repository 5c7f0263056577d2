"""What a study will cost under the terms that the policy grants it: the noise, as a grant, and the events to pay for.

Where vectors are added up in secret, the noise is the plan's and common to all members; what a vault grants is by how much one of its
customers may change a sum. `events_of` is the one place that says which noise surely counts: the plan's `bearers`, without those who may
collude. `broken_epsilon` says what its own noise alone would be worth.
"""

import math

from federation.basis import Basis
from federation.charter import Declaration
from federation.contract import FeatureContract
from federation.errors import IntegrityError, PolicyError
from federation.messages import Grant, SecureGrant
from federation.study import AdditiveModel, MlpModel, SecurePlan, StudySpec
from privacy.accounting import (
    calibrate_histogram,
    calibrate_noise,
    calibrate_sensitivity,
    epsilon,
    epsilon_alone,
)
from privacy.decision import Terms
from privacy.events import DiscreteGaussianHistogram, PrivacyEvent, SubsampledGaussian
from privacy.ledger import Account
from privacy.ledger.secrecy import own_epsilon
from privacy.secure_aggregation.prices import MOST_COUNTS, counts_of, sums_of
from privacy.secure_aggregation.quantisation import rounding_of

_BELOW = 1.0 - 1e-9  # the share that `epsilon_alone` finds again from sigma may lie a bit below the plan's


def price_study(
    spec: StudySpec, member: str, declaration: Declaration, terms: Terms, contract: FeatureContract
) -> Grant:
    """Find the noise that keeps a study within its terms; a study that fills a plan's slot has at least the slot's noise.

    Parameters
    ----------
    spec, terms:
        The study, and what the policy grants it.
    member, declaration:
        Who grants, and what it declares.
    contract:
        The study's feature contract: how many integers a secure sum has follows from it.

    Raises
    ------
    PolicyError
        As `privacy.accounting.calibrate_noise`; CSL-C490 when rounding would take most of what one customer may change in a secure sum.
    DocumentError
        CSL-P108 for a secure plan that has too little noise to be priced; CSL-F420 or CSL-F421 for pairs that the contract cannot have.
    """
    if isinstance(spec.draft.model, AdditiveModel):
        Basis.of_model(contract, spec.draft.model)  # after the grant nothing may be refused that shows
    if spec.secure is not None:
        return _price_secure(spec, spec.secure, member, declaration, terms, contract)
    training, slot = spec.training, terms.slot
    noise = calibrate_noise(terms.epsilon, terms.delta, training.sampling_rate, training.steps)
    sigma = calibrate_histogram(terms.epsilon, terms.delta, 1)
    return Grant(
        study=spec.digest(),
        member=member,
        declared_size=declaration.size,
        epsilon=terms.epsilon,
        delta=terms.delta,
        noise_multiplier=noise if slot is None else max(noise, slot.noise_multiplier),
        sampling_rate=training.sampling_rate,
        steps=training.steps,
        histogram_sigma=sigma if slot is None else max(sigma, slot.histogram_sigma),
    )


def dimension_of(spec: StudySpec, contract: FeatureContract) -> int:
    """Return how many integers a round of a secure study adds up: the weights of its linear model, the intercept among them.

    Only linear models can be added up in secret, which `StudyDraft` holds.
    """
    model = spec.draft.model
    assert not isinstance(model, MlpModel)
    return Basis.of_model(contract, model).width + 1


def events_of(grant: Grant, plan: SecurePlan | None) -> dict[Account, tuple[PrivacyEvent, ...]]:
    """Return what a grant costs each account; the vault computes with the grant's numbers, so these are the ones to pay for.

    Parameters
    ----------
    plan:
        The study's `secure`: None exactly where the grant has no `secure` either.

    Raises
    ------
    IntegrityError
        CSL-C491 where only one of the two is secure.
    """
    if (grant.secure is None) != (plan is None):
        raise IntegrityError(
            "CSL-C491",
            "Of a study and its grant, only one says that vectors are added up in secret.",
            "Do not use this grant: ask for the study to be offered anew.",
        )
    if grant.secure is not None and plan is not None:
        rounds, evaluation = sums_of(grant.secure, plan, grant.sampling_rate, grant.steps)
        return {"training": (rounds,), "holdout": (evaluation,)}
    run = SubsampledGaussian(
        noise_multiplier=grant.noise_multiplier, sampling_rate=grant.sampling_rate, steps=grant.steps
    )
    counts = DiscreteGaussianHistogram(sigma=grant.histogram_sigma, count=1)
    return {"training": (run,), "holdout": (counts,)}


def broken_epsilon(grant: Grant, plan: SecurePlan, delta: float) -> dict[Account, float]:
    """Return the epsilon at `delta` that holds for each account by the member's own noise alone: if the masks broke, or everybody
    else colluded.

    It is never below the epsilon of `events_of` at the same delta; with `local` noise it is that epsilon. It is always finite.

    Raises
    ------
    PolicyError
        CSL-P104 for a bad delta.
    IntegrityError
        CSL-C491 for a grant that is not secure.
    """
    return {account: own_epsilon(events, delta) for account, events in events_of(grant, plan).items()}


def _price_secure(
    spec: StudySpec,
    plan: SecurePlan,
    member: str,
    declaration: Declaration,
    terms: Terms,
    contract: FeatureContract,
) -> Grant:
    training, dimension = spec.training, dimension_of(spec, contract)
    sensitivity = largest_part(plan, terms, training.sampling_rate, training.steps, dimension)
    if sensitivity < 2.0 * rounding_of(dimension):
        raise _too_coarse(f"rounding {dimension} integers would take half of what one customer may change in a sum")
    secure = SecureGrant(sensitivity=sensitivity, dimension=dimension, histogram_scale=_largest_scale(plan, terms))
    rounds, _ = sums_of(secure, plan, training.sampling_rate, training.steps)
    return Grant(
        study=spec.digest(),
        member=member,
        declared_size=declaration.size,
        epsilon=terms.epsilon,
        delta=terms.delta,
        noise_multiplier=rounds.noise_multiplier,
        sampling_rate=training.sampling_rate,
        steps=training.steps,
        histogram_sigma=plan.sigma / secure.histogram_scale,
        secure=secure,
    )


def largest_part(plan: SecurePlan, terms: Terms, sampling_rate: float, steps: int, dimension: int) -> float:
    """Return by how much one customer may change sums, in grid units: within the terms by the noise that surely counts, and within the
    policy's floor, where it has one, by the own noise alone."""

    def within(target: float, sigma: float, members: int) -> float:
        return calibrate_sensitivity(
            target, terms.delta, sampling_rate, steps, sigma=sigma, dimension=dimension, members=members
        )

    floor = math.inf if terms.floor is None else terms.floor * _BELOW
    if plan.bearers == 1:
        return within(min(terms.epsilon, floor), plan.sigma, 1)
    part = within(terms.epsilon, plan.sigma, plan.bearers)
    return part if terms.floor is None else min(part, within(floor, plan.share, 1))


def _largest_scale(plan: SecurePlan, terms: Terms) -> int:
    """Return by which integer counts are multiplied at most. A smaller one has a price of its own, which the grid of the accounting may put
    a hair higher: it is looked at too."""
    scale = math.floor(largest_part(plan, terms, 1.0, 1, MOST_COUNTS))
    while scale >= 1:
        event = counts_of(plan, scale)
        floor_holds = terms.floor is None or epsilon_alone(event, terms.delta) <= terms.floor
        if floor_holds and epsilon([event], terms.delta) <= terms.epsilon:
            return scale
        scale -= 1
    raise _too_coarse("one customer would change a count by less than one grid unit")


def _too_coarse(why: str) -> PolicyError:
    return PolicyError(
        "CSL-C490",
        f"Under this budget the study's sums would say next to nothing: {why}.",
        "Ask the coordinator for fewer rounds or a smaller model, or your compliance officer to allow more epsilon.",
    )
