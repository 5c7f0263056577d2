"""From a finished study to its model card."""

import numpy as np

from federation.charter import Charter
from federation.contract import FeatureContract
from federation.shape_noise import ShapeNoise
from federation.study import SecurePlan
from server.card import MemberMetrics, ModelCard, Participant, Protection
from server.checkpoint import Progress, Scores
from server.course import Course
from server.evaluation import Histogram, add, measure
from server.grants import SignedGrant
from server.registry import model_name
from server.uncertainty import shape_noise


def make_card(progress: Progress, charter: Charter, model: str, noise: tuple[ShapeNoise, ...] = ()) -> ModelCard:
    """Return the card of a study that is evaluated.

    Parameters
    ----------
    model:
        SHA-256 of the weights' bytes.
    noise:
        How far noise may have moved an additive model's curves: see `noise_of`.
    """
    spec = progress.spec
    rounds = {item.member: item.rounds for item in progress.attendance}
    evaluated = set(counted_members(progress))
    return ModelCard(
        name=model_name(spec.draft.name, spec.digest()),
        spec=spec,
        study=spec.digest(),
        charter=spec.charter,
        federation=spec.federation,
        model=model,
        rounds=progress.round,
        fewest_partners=progress.fewest,
        participants=tuple(_participant(item, charter, rounds, evaluated) for item in progress.grants),
        edges=progress.edges,
        protection=_protection(spec.secure),
        overall=measure(_together(progress), progress.edges),
        members=tuple(
            MemberMetrics(member=item.member, metrics=measure(_histogram(item), progress.edges))
            for item in progress.scores
        ),
        shape_noise=noise,
    )


def noise_of(progress: Progress, course: Course, contract: FeatureContract) -> tuple[ShapeNoise, ...]:
    """Return how far noise may have moved the curves of a finished study's model; nothing for models without curves."""
    rounds = max(1, progress.round)
    taken = {item.member: item.rounds / rounds for item in progress.attendance}
    return shape_noise(progress.spec, course, contract, taken)


def counted_members(progress: Progress) -> tuple[str, ...]:
    """Return whose held-out customers were counted."""
    if progress.score_sum is not None:
        return progress.score_sum.members
    return tuple(item.member for item in progress.scores)


def _together(progress: Progress) -> Histogram:
    """Return the histogram of all held-out customers: the sum that was opened, or the sum of the members' own."""
    found = progress.score_sum
    if found is None:
        return add([_histogram(item) for item in progress.scores])
    return Histogram(counts=np.asarray(found.total, dtype=np.float64) / found.scale, sigma=found.sigma)


def _protection(plan: SecurePlan | None) -> Protection:
    if plan is None:
        return "local noise"
    return "secure sums with local noise" if plan.noise == "local" else "secure sums with shared noise"


def _histogram(scores: Scores) -> Histogram:
    return Histogram(counts=np.asarray(scores.counts, dtype=np.float64), sigma=scores.sigma)


def _participant(signed: SignedGrant, charter: Charter, rounds: dict[str, int], evaluated: set[str]) -> Participant:
    grant = signed.grant
    return Participant(
        member=grant.member,
        title=charter.member(grant.member).title,
        declared_size=grant.declared_size,
        rounds=rounds[grant.member],
        evaluated=grant.member in evaluated,
        epsilon=grant.epsilon,
        delta=grant.delta,
        noise_multiplier=grant.noise_multiplier,
        histogram_sigma=grant.histogram_sigma,
    )
