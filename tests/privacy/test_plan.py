"""Plans: events of slots, one price for all, and which studies a slot holds."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from privacy.accounting import epsilon
from privacy.distributions import composed_distribution
from privacy.events import DiscreteGaussianHistogram, DiscreteLaplaceHistogram, SubsampledGaussian
from privacy.plan import SMOOTH_SIGMA, Slot, dominated, plan_epsilon, plan_events, slot_events

SLOTS = st.builds(
    Slot,
    id=st.just("one"),
    purpose=st.just("churn"),
    contract=st.just("shop"),
    noise_multiplier=st.floats(0.8, 8.0),
    sampling_rate=st.sampled_from([0.01, 0.1, 0.5, 1.0]),
    steps=st.integers(1, 60),
    histogram_sigma=st.floats(1.0, 50.0),
)


def slot(**change: object) -> Slot:
    good = {
        "id": "spring",
        "purpose": "churn",
        "contract": "shop",
        "noise_multiplier": 4.0,
        "sampling_rate": 0.1,
        "steps": 150,
        "histogram_sigma": 12.0,
    }
    return Slot.model_validate(good | change)


def run(noise_multiplier: float = 4.0, sampling_rate: float = 0.1, steps: int = 150) -> SubsampledGaussian:
    return SubsampledGaussian(noise_multiplier=noise_multiplier, sampling_rate=sampling_rate, steps=steps)


def counts(sigma: float = 12.0, count: int = 1, scale: int = 1) -> DiscreteGaussianHistogram:
    return DiscreteGaussianHistogram(sigma=sigma, count=count, scale=scale)


def test_a_plan_is_all_its_slots_on_each_account() -> None:
    slots = [slot(), slot(id="summer", noise_multiplier=6.0, histogram_sigma=20.0)]
    assert slot_events(slots[0], "training") == (run(),)
    assert slot_events(slots[0], "holdout") == (counts(),)
    assert plan_events(slots, "training") == (run(), run(6.0))
    assert plan_events(slots, "holdout") == (counts(), counts(20.0))
    assert plan_epsilon(slots, "training", 1e-6) == epsilon([run(), run(6.0)], 1e-6)
    assert plan_epsilon(slots, "holdout", 1e-6) == epsilon([counts(), counts(20.0)], 1e-6)
    assert plan_epsilon([], "training", 1e-6) == 0.0


@pytest.mark.parametrize(
    ("charges", "within"),
    [
        ({"training": (run(),), "holdout": (counts(),)}, True),
        ({"training": (run(5.0, 0.05, 10),), "holdout": (counts(30.0),)}, True),
        ({"training": (run(),)}, True),
        ({"training": (), "holdout": ()}, True),
        ({}, True),
        ({"training": (run(3.99),)}, False),
        ({"training": (run(4.0, 0.11),)}, False),
        ({"training": (run(4.0, 0.1, 151),)}, False),
        ({"training": (run(100.0, 0.01, 1), run(100.0, 0.01, 1))}, False),  # no splitting
        ({"training": (counts(100.0),)}, False),
        ({"training": (DiscreteLaplaceHistogram(scale=1e4, count=1),)}, False),
        ({"holdout": (counts(11.9),)}, False),
        ({"holdout": (counts(100.0, count=2),)}, False),
        ({"holdout": (counts(100.0, scale=2),)}, False),
        ({"holdout": (run(),)}, False),
    ],
)
def test_what_a_slot_holds(charges: dict, within: bool) -> None:
    assert dominated(slot(), charges) is within


@pytest.mark.parametrize(("sigma", "within"), [(1.0, True), (1.1, False), (50.0, False), (0.9, False)])
def test_little_discrete_noise_must_be_the_slot_s_own(sigma: float, within: bool) -> None:
    assert dominated(slot(histogram_sigma=1.0), {"holdout": (counts(sigma),)}) is within


def excess(sigma: float, louder: float) -> float:
    """By how much tests on the louder discrete Gaussian beat those on the other, at the same false alarms."""

    def tails(parameter: float) -> np.ndarray:
        x = np.arange(-math.ceil(40 * parameter) - 40, math.ceil(40 * parameter) + 41)
        law = np.exp(-(x.astype(float) ** 2) / (2 * parameter**2))
        return np.append(np.cumsum(law[::-1] / law.sum()), 1.0)

    quiet, loud = tails(sigma), tails(louder)
    best = np.interp(loud[:-1], np.append(0.0, quiet[:-1]), np.append(0.0, quiet[1:]))
    return float(np.max(loud[1:] - best))


@given(st.floats(SMOOTH_SIGMA, 200.0), st.floats(1.0, 1.5) | st.floats(1.0, 1.001))
@settings(max_examples=60)
def test_more_discrete_noise_discloses_no_more_from_four_on(sigma: float, more: float) -> None:
    assert excess(sigma, sigma * more) < 1e-12


def test_and_does_disclose_more_below() -> None:
    assert excess(0.4, 0.56) > 0.07
    assert excess(1.0, 1.04) > 5e-4
    assert excess(2.0, 2.02) > 1e-7


@given(SLOTS, st.floats(1.0, 3.0), st.floats(0.2, 1.0), st.floats(0.1, 1.0), st.floats(0.0, 3.0))
@settings(max_examples=15)
def test_a_study_that_a_slot_holds_discloses_no_more(
    held: Slot, louder: float, rarer: float, fewer: float, eps: float
) -> None:
    study = run(held.noise_multiplier * louder, max(held.sampling_rate * rarer, 1e-6), max(1, int(held.steps * fewer)))
    assert dominated(held, {"training": (study,)})
    whole = composed_distribution(slot_events(held, "training")).get_delta_for_epsilon(eps)
    assert composed_distribution([study]).get_delta_for_epsilon(eps) <= whole * (1 + 2e-3) + 1e-9


@pytest.mark.parametrize("change", [{"noise_multiplier": 0.0}, {"steps": 0}, {"sampling_rate": 1.1}, {"more": 1}])
def test_bad_slots(change: dict) -> None:
    with pytest.raises(ValidationError):
        slot(**change)
