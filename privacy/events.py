"""What costs privacy, as documents: an event says what was done, not how it is accounted.

Events stand in ledgers for ever. A class, its `kind`, its fields and its defaults are never renamed, removed or given
another meaning; a field is never added to a class that exists. What is new gets a new class and a new `kind`.

Neighbours, for every event: data sets that differ by one customer, added or removed.
"""

import math
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from federation.document import Document

SMALLEST_NOISE = 0.1
LARGEST_NOISE = 1e6
MAX_STEPS = 1_000_000
SMALLEST_SHARED_NOISE = 200.0
LARGEST_SHARED_NOISE = 2e6
MAX_MEMBERS = 1000
MAX_DIMENSION = 100_000_000
SMOOTHING = 4.0  # variance that turns a continuous Gaussian into a discrete one, within 2.1e-34


class SubsampledGaussian(Document):
    """Steps that each add Gaussian noise to a sum over a fresh Poisson sample of the customers (DP-SGD).

    Attributes
    ----------
    noise_multiplier:
        Standard deviation of the noise in units of the clip: the sum changes by at most 1 clip in L2 norm when one
        customer is added or removed.
    sampling_rate:
        Probability with which each customer enters each step's sample, independently.
    steps:
        Number of steps.
    """

    kind: Literal["subsampled_gaussian"] = "subsampled_gaussian"
    noise_multiplier: float = Field(ge=SMALLEST_NOISE, le=LARGEST_NOISE)
    sampling_rate: float = Field(gt=0.0, le=1.0)
    steps: int = Field(ge=1, le=MAX_STEPS)


class DiscreteGaussianHistogram(Document):
    """Histograms of counts, each count with discrete Gaussian noise; one customer changes one cell of each by one.

    Attributes
    ----------
    sigma:
        Parameter of the noise N_Z(0, sigma^2) that each released integer holds.
    count:
        Number of histograms released.
    scale:
        Public integer that counts are multiplied by before the noise is added; the cell of one customer changes by it.
    """

    kind: Literal["discrete_gaussian_histogram"] = "discrete_gaussian_histogram"
    sigma: float = Field(ge=SMALLEST_NOISE, le=1e5)
    count: int = Field(ge=1, le=MAX_STEPS)
    scale: int = Field(default=1, ge=1, le=1_000_000)


class DiscreteLaplaceHistogram(Document):
    """Histograms of counts, each count with discrete Laplace noise; one customer changes one cell of each by one.

    Attributes
    ----------
    scale:
        Parameter b of the noise, P(x) proportional to exp(-|x| / b) on the integers, in counts; one histogram is
        (1/b, 0)-DP.
    count:
        Number of histograms released.
    """

    kind: Literal["discrete_laplace_histogram"] = "discrete_laplace_histogram"
    scale: float = Field(ge=0.05, le=1e5)
    count: int = Field(ge=1, le=MAX_STEPS)


class SecureSum(Document):
    """Steps that each release, by secure aggregation, an integer sum over a fresh Poisson sample of the customers, with noise
    that several members share.

    Attributes
    ----------
    sigma:
        Parameter of the honest members' noise together, in grid units: the root of the sum of their sigma_i^2, without
        those who may collude.
    members:
        Number of honest members whose noise this is; each adds discrete Gaussian noise N_Z(0, sigma_i^2) with sigma_i
        of at least 4 to every coordinate.
    sensitivity:
        Bound of the L2 norm, in grid units, by which one customer changes the sum, rounding included.
    sampling_rate:
        Probability with which each customer enters each step's sample, independently and in secret.
    steps, dimension:
        Number of steps, and of integers released in each.
    """

    kind: Literal["secure_sum"] = "secure_sum"
    sigma: float = Field(ge=SMALLEST_SHARED_NOISE, le=LARGEST_SHARED_NOISE)
    members: int = Field(ge=1, le=MAX_MEMBERS)
    sensitivity: float = Field(gt=0.0, le=1e12)
    sampling_rate: float = Field(gt=0.0, le=1.0)
    steps: int = Field(ge=1, le=MAX_STEPS)
    dimension: int = Field(ge=1, le=MAX_DIMENSION)

    @model_validator(mode="after")
    def _noise_in_proportion(self) -> Self:
        if not SMALLEST_NOISE <= self.noise_multiplier <= LARGEST_NOISE:
            raise ValueError(
                f"sqrt(sigma^2 - 4) / sensitivity must be from {SMALLEST_NOISE:g} to {LARGEST_NOISE:g}, "
                f"not {self.noise_multiplier:g}"
            )
        return self

    @property
    def noise_multiplier(self) -> float:
        """The noise multiplier of the continuous Gaussian mechanism that dominates a step: sqrt(sigma^2 - 4) / sensitivity,
        rounded down."""
        return math.sqrt(self.sigma * self.sigma - SMOOTHING) / self.sensitivity * (1.0 - 1e-15)


PrivacyEvent = Annotated[
    SubsampledGaussian | DiscreteGaussianHistogram | DiscreteLaplaceHistogram | SecureSum, Field(discriminator="kind")
]


def releases(event: PrivacyEvent) -> int:
    """Return how many mechanisms run one after another in an event."""
    return event.steps if isinstance(event, SubsampledGaussian | SecureSum) else event.count
