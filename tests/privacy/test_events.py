"""Events: one canonical form, parsed by kind, nothing else accepted."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from federation.errors import DocumentError
from privacy.events import DiscreteGaussianHistogram, PrivacyEvent, SubsampledGaussian

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


@given(GAUSSIANS | HISTOGRAMS)
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
