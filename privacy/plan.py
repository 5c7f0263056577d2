"""The plan mode: slots that are fixed and signed before the first study, and enforced together by their privacy loss
distribution.

Each study in a slot, whatever it was made to depend on, is a post-processing of one draw from the slot's dominating pair;
these pairs are fixed beforehand, so that the plan is their product, in any order, in part, or stopped early.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Literal

from pydantic import Field

from federation.contract import Name
from federation.document import Document
from federation.study import Purpose
from privacy import accounting
from privacy.events import (
    LARGEST_NOISE,
    MAX_STEPS,
    SMALLEST_NOISE,
    DiscreteGaussianHistogram,
    PrivacyEvent,
    SubsampledGaussian,
)

Account = Literal["training", "holdout"]
SMOOTH_SIGMA = 4.0


class Slot(Document):
    """Room for one study: at most `steps` steps at `sampling_rate`, with at least this noise, and one evaluation."""

    id: Name
    purpose: Purpose
    contract: Name
    noise_multiplier: Annotated[float, Field(ge=SMALLEST_NOISE, le=LARGEST_NOISE)]
    sampling_rate: Annotated[float, Field(ge=1e-6, le=1.0)]
    steps: Annotated[int, Field(ge=1, le=MAX_STEPS)]
    histogram_sigma: Annotated[float, Field(ge=SMALLEST_NOISE, le=65536.0)]


def slot_events(slot: Slot, account: Account) -> tuple[PrivacyEvent, ...]:
    """Return what a study that fills the whole slot costs one account."""
    if account == "holdout":
        return (DiscreteGaussianHistogram(sigma=slot.histogram_sigma, count=1),)
    return (
        SubsampledGaussian(noise_multiplier=slot.noise_multiplier, sampling_rate=slot.sampling_rate, steps=slot.steps),
    )


def plan_events(slots: Iterable[Slot], account: Account) -> tuple[PrivacyEvent, ...]:
    """Return what the whole plan costs one account: the events of all slots, as one run."""
    return tuple(event for slot in slots for event in slot_events(slot, account))


def plan_epsilon(slots: Iterable[Slot], account: Account, delta: float) -> float:
    """Return the epsilon of the whole plan at `delta`, by privacy loss distributions, rounded up; valid whatever of the plan
    is used, and in whatever order.

    Raises
    ------
    PolicyError
        CSL-P104 for a bad `delta`; CSL-P106 when no epsilon describes the plan.
    """
    return accounting.epsilon(plan_events(slots, account), delta)


def dominated(slot: Slot, charges: Mapping[Account, Sequence[PrivacyEvent]]) -> bool:
    """Return whether a study with these `charges` fits into the slot: on each account at most one event, of the slot's
    kind, with no less noise, no larger sampling rate and no more steps.

    With a smaller rate q', the pair ((1-q')P + q'Q, P) is dominated by that with q, in both directions; with more noise
    or fewer steps, by post-processing. A histogram must not be scaled. Its noise must be the slot's, or from 4 on more:
    below, a discrete Gaussian of larger sigma may disclose more at some epsilon (0.56 beats 0.4 by 0.08 in power).
    """
    return all(
        len(events) <= 1 and all(_within(slot, name, event) for event in events) for name, events in charges.items()
    )


def _within(slot: Slot, account: Account, event: PrivacyEvent) -> bool:
    if account == "training":
        return (
            isinstance(event, SubsampledGaussian)
            and event.noise_multiplier >= slot.noise_multiplier
            and event.sampling_rate <= slot.sampling_rate
            and event.steps <= slot.steps
        )
    return (
        isinstance(event, DiscreteGaussianHistogram)
        and (event.sigma == slot.histogram_sigma or event.sigma >= slot.histogram_sigma >= SMOOTH_SIGMA)
        and event.count == 1
        and event.scale == 1
    )
