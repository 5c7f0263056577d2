"""Events: one canonical form, parsed by kind, nothing else accepted."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from federation.errors import DocumentError
from privacy.events import (
    DiscreteGaussianHistogram,
    DiscreteLaplaceHistogram,
    PrivacyEvent,
    SecureSum,
    SubsampledGaussian,
    releases,
)

ADAPTER: TypeAdapter[PrivacyEvent] = TypeAdapter(PrivacyEvent)
GAUSSIANS = st.builds(
    SubsampledGaussian,
    noise_multiplier=st.floats(0.1, 1e6),
    sampling_rate=st.floats(0.0, 1.0, exclude_min=True),
    steps=st.integers(1, 10**6),
)
HISTOGRAMS = st.builds(
    DiscreteGaussianHistogram, sigma=st.floats(0.1, 1e5), count=st.integers(1, 10**6), scale=st.integers(1, 10**6)
)
LAPLACE = st.builds(DiscreteLaplaceHistogram, scale=st.floats(0.05, 1e5), count=st.integers(1, 10**6))
SUMS = st.builds(
    SecureSum,
    sigma=st.floats(200.0, 2e6),
    members=st.integers(1, 1000),
    sensitivity=st.floats(2.0, 1500.0),
    sampling_rate=st.floats(0.0, 1.0, exclude_min=True),
    steps=st.integers(1, 10**6),
    dimension=st.integers(1, 10**8),
)


@given(GAUSSIANS | HISTOGRAMS | LAPLACE | SUMS)
def test_round_trip_by_kind(event: PrivacyEvent) -> None:
    content = event.canonical()
    assert type(event).from_canonical(content) == event
    assert ADAPTER.validate_json(content) == event
    assert hash(ADAPTER.validate_json(content)) == hash(event)


def test_canonical_bytes_stay_what_they_are() -> None:
    """Old ledgers hold exactly these bytes."""
    assert SubsampledGaussian(noise_multiplier=1.5, sampling_rate=0.1, steps=150).canonical() == (
        b'{"kind":"subsampled_gaussian","noise_multiplier":1.5,"sampling_rate":0.1,"steps":150}'
    )
    assert DiscreteGaussianHistogram(sigma=8, count=2).canonical() == (
        b'{"count":2,"kind":"discrete_gaussian_histogram","scale":1,"sigma":8}'
    )
    assert DiscreteLaplaceHistogram(scale=20.0, count=3).canonical() == (
        b'{"count":3,"kind":"discrete_laplace_histogram","scale":20}'
    )
    assert shared().canonical() == (
        b'{"dimension":50,"kind":"secure_sum","members":4,"sampling_rate":0.1,"sensitivity":100,"sigma":400,"steps":150}'
    )


def shared(**change: Any) -> SecureSum:
    good = {"sigma": 400.0, "members": 4, "sensitivity": 100.0, "sampling_rate": 0.1, "steps": 150, "dimension": 50}
    return SecureSum(**(good | change))


@pytest.mark.parametrize(
    "change",
    [
        {"sigma": 199.0},
        {"members": 0},
        {"members": 1001},
        {"sigma": 200.0, "members": 1000, "sensitivity": 0.0},
        {"sigma": 200.0, "sensitivity": 2001.0},
        {"sensitivity": 1e-4},
        {"sensitivity": -1.0},
        {"dimension": 0},
        {"sampling_rate": 0.0},
    ],
)
def test_secure_sums_that_no_theorem_covers_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        shared(**change)


@given(SUMS)
def test_a_secure_sum_has_less_noise_than_its_own_sigma(event: SecureSum) -> None:
    assert event.noise_multiplier < event.sigma / event.sensitivity
    assert (event.noise_multiplier * event.sensitivity) ** 2 <= event.sigma**2 - 4.0


def test_releases() -> None:
    assert releases(shared()) == 150
    assert releases(DiscreteLaplaceHistogram(scale=1.0, count=7)) == 7


@pytest.mark.parametrize(
    "change",
    [
        {"noise_multiplier": 0.0},
        {"noise_multiplier": "1"},
        {"sampling_rate": 0.0},
        {"sampling_rate": 1.01},
        {"steps": 0},
        {"steps": 1.5},
        {"steps": True},
        {"steps": 10**7},
        {"kind": "laplace"},
        {"clip": 1.0},
        {"noise_multiplier": None},
    ],
)
def test_refusals(change: dict[str, Any]) -> None:
    good = {"kind": "subsampled_gaussian", "noise_multiplier": 1.0, "sampling_rate": 0.5, "steps": 10}
    ADAPTER.validate_json(json.dumps(good))
    with pytest.raises(ValidationError):
        ADAPTER.validate_json(json.dumps(good | change))


def test_not_a_number_and_other_spellings_are_refused() -> None:
    with pytest.raises(ValidationError):
        SubsampledGaussian(noise_multiplier=float("inf"), sampling_rate=0.5, steps=1)
    with pytest.raises(DocumentError):
        DiscreteGaussianHistogram.from_canonical(
            b'{"count":2,"kind":"discrete_gaussian_histogram","scale":1,"sigma":8.0}'
        )


def test_frozen() -> None:
    event = DiscreteGaussianHistogram(sigma=8.0, count=2)
    with pytest.raises(ValidationError):
        event.sigma = 9.0  # type: ignore[misc]
