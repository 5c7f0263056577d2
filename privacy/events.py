"""What costs privacy, as documents: an event says what was done, not how it is accounted.

Events stand in ledgers for ever. A class, its `kind`, its fields and its defaults are never renamed, removed or given
another meaning; a field is never added to a class that exists. What is new gets a new class and a new `kind`.

Neighbours, for every event: data sets that differ by one customer, added or removed.
"""

from typing import Annotated, Literal

from pydantic import Field

from federation.document import Document

SMALLEST_NOISE = 0.1
LARGEST_NOISE = 1e6
MAX_STEPS = 1_000_000


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


PrivacyEvent = Annotated[SubsampledGaussian | DiscreteGaussianHistogram, Field(discriminator="kind")]
