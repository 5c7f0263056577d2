"""An independent way to the privacy loss of a fixed list of events: no dominating grid, no bound, just the numbers.

Each event's loss is split onto a grid so that its mean is kept, the characteristic functions of all are multiplied by one
FFT, and epsilon is found on the sum (Koskela, Jaelkoe, Honkela 2020, arXiv 1906.03049, is the idea). Nothing of dp-accounting
is used. The result is not rounded up: it is the true value to about 1e-4, which the accountant must not be below.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import ndtr

from privacy.events import (
    DiscreteGaussianHistogram,
    DiscreteLaplaceHistogram,
    PrivacyEvent,
    SecureSum,
    SubsampledGaussian,
)

Array = NDArray[np.float64]


def reference_epsilon(events: Sequence[PrivacyEvent], delta: float, step: float = 5e-5, reach: float = 40.0) -> float:
    """Return epsilon of `events` at `delta`; `reach` must hold all losses that matter, `step` be small beside each one's
    spread."""
    return max(_epsilon(events, delta, step, reach, remove) for remove in (True, False))


def _epsilon(events: Sequence[PrivacyEvent], delta: float, step: float, reach: float, remove: bool) -> float:
    size = 1 << math.ceil(math.log2(2.0 * reach / step))
    transform = np.ones(size // 2 + 1, dtype=np.complex128)
    for event in set(events):
        losses, masses = _losses(event, remove)
        once = np.fft.rfft(_on_grid(losses, masses, step, size))
        transform *= once ** (list(events).count(event) * _times(event))
    whole = np.fft.irfft(transform, size)
    values = np.arange(size) * step
    values[size // 2 :] -= size * step
    order = np.argsort(values)
    loss, mass = values[order], whole[order]

    def excess(epsilon: float) -> float:
        above = loss > epsilon
        return float(np.sum(mass[above] * -np.expm1(epsilon - loss[above]))) - delta

    return float(brentq(excess, 0.0, reach / 2.0, xtol=1e-7)) if excess(0.0) > 0.0 else 0.0


def _times(event: PrivacyEvent) -> int:
    return event.steps if isinstance(event, SubsampledGaussian | SecureSum) else event.count


def _on_grid(losses: Array, masses: Array, step: float, size: int) -> Array:
    """Masses at multiples of `step`, circular; a loss between two points is split so that its mean stays."""
    place = losses / step
    low = np.floor(place).astype(np.int64)
    upper = place - low
    grid = np.zeros(size)
    np.add.at(grid, low % size, masses * (1.0 - upper))
    np.add.at(grid, (low + 1) % size, masses * upper)
    return grid


def _losses(event: PrivacyEvent, remove: bool) -> tuple[Array, Array]:
    """The privacy losses ln(P/Q) of one release and their probabilities under P."""
    if isinstance(event, DiscreteLaplaceHistogram):
        epsilon = 1.0 / event.scale
        likely = 1.0 / (1.0 + math.exp(-epsilon))
        return np.array([epsilon, -epsilon]), np.array([likely, 1.0 - likely])
    if isinstance(event, DiscreteGaussianHistogram):
        reach = math.ceil(13.0 * event.sigma) + event.scale
        x = np.arange(-reach, reach + 1, dtype=np.float64)
        law = np.exp(-(x**2) / (2.0 * event.sigma**2))
        return event.scale * (event.scale - 2.0 * x) / (2.0 * event.sigma**2), law / law.sum()
    sigma, rate = _noise(event), event.sampling_rate
    edges = np.linspace(-10.0 * sigma, 10.0 * sigma + 1.0, 400_001)
    middle = (edges[1:] + edges[:-1]) / 2.0
    plain = np.diff(ndtr(edges / sigma))
    moved = np.diff(ndtr((edges - 1.0) / sigma))
    loss = np.log1p(rate * np.expm1((2.0 * middle - 1.0) / (2.0 * sigma**2)))
    return (loss, (1.0 - rate) * plain + rate * moved) if remove else (-loss, plain)


def _noise(event: SubsampledGaussian | SecureSum) -> float:
    if isinstance(event, SubsampledGaussian):
        return event.noise_multiplier
    return math.sqrt(event.sigma**2 - 4.0) / event.sensitivity
