"""What a study will cost under the terms that the policy grants it: the noise, as a grant, and the events to pay for."""

from federation.charter import Declaration
from federation.messages import Grant
from federation.study import StudySpec
from privacy.accounting import calibrate_histogram, calibrate_noise
from privacy.decision import Terms
from privacy.events import DiscreteGaussianHistogram, PrivacyEvent, SubsampledGaussian
from privacy.ledger import Account


def price_study(spec: StudySpec, member: str, declaration: Declaration, terms: Terms) -> Grant:
    """Find the noise that keeps a study within its terms; a study that fills a plan's slot has at least the slot's noise.

    Raises PolicyError as `privacy.accounting.calibrate_noise`.
    """
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


def events_of(grant: Grant) -> dict[Account, tuple[PrivacyEvent, ...]]:
    """Return what a grant costs each account; the vault computes with the grant's numbers, so these are the ones to pay for."""
    run = SubsampledGaussian(
        noise_multiplier=grant.noise_multiplier, sampling_rate=grant.sampling_rate, steps=grant.steps
    )
    counts = DiscreteGaussianHistogram(sigma=grant.histogram_sigma, count=1)
    return {"training": (run,), "holdout": (counts,)}
