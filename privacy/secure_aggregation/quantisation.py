"""Integers for secure sums: scale, round, add noise; and by how much one customer then changes the sum.

*Sensitivity.* A round's vector is x = rint(clamp(s a G)) + noise, where G is the sum over a member's drawn customers of their
gradients, each of L2 norm at most C, a the member's public weight and s the number of grid units in 1. `privacy.logistic.IntegerSums` forms
G exactly, whatever the batch: a customer more changes it by her own part, of norm at most C, and s a G by at most s a C. On the way to x
there are two places where floats round.

1. G leaves as the exact sum rounded twice, and takes two more roundings when a and s are multiplied in, each by at most u = 2^-53 of
   the value. Every coordinate is clamped to at most 2^44 grid units, so that it is within 4 u 2^44 (1 + 4 u) < e = 0.01
   (`ABSOLUTE_ERROR`) of the clamped exact one: where the exact one lies beyond the bound, what is computed lies beyond it too, or within
   as much below.
2. Rounding to integers moves two vectors apart by at most 1 in each coordinate more than they were: |rint(u) - rint(v)| <= |u - v| + 1.

Clamping brings no two vectors further apart. With the triangle inequality, for d coordinates,

    sensitivity = s a C (1 + eta) + sqrt(d) (1 + 2 e);

eta (`RELATIVE_ERROR`) covers the rounding of this very formula. Counts times an integer are exact: one customer changes one cell by it.

*Noise.* Each member adds an independent discrete Gaussian of parameter `share` to every coordinate, at least 4, so that sums of several are
discrete Gaussians but for 3e-68 (Kairouz, Liu, Steinke 2021); `privacy.events.SecureSum` prices what remains when up to c collude.
"""

import math

import numpy as np
from numpy.typing import NDArray

from federation.errors import DocumentError, IntegrityError
from privacy.mechanisms.discrete_gaussian import discrete_gaussian
from privacy.randomness import RandomSource

RELATIVE_ERROR = 1e-9
ABSOLUTE_ERROR = 0.01
LARGEST_COORDINATE = 2.0**44
"""Every coordinate is clamped to this at most: beyond, float64 would be too coarse for `ABSOLUTE_ERROR`."""
LEAST_SHARE = 4.0
LARGEST_SCALE = 1e12
_DEVIATIONS = 12.0
_WIDTHS = (32, 64)


def sensitivity_of(scale: float, clip: float, weight: float, dimension: int) -> float:
    """Return by how much one customer changes a quantised sum, L2 norm in grid units.

    Parameters
    ----------
    scale, clip, weight:
        s, C and a, all above 0.
    dimension:
        d, at least 1.
    """
    return scale * weight * clip * (1.0 + RELATIVE_ERROR) + rounding_of(dimension)


def rounding_of(dimension: int) -> float:
    """Return the part of the sensitivity that rounding has, in grid units: sqrt(d) (1 + 2 e)."""
    return math.sqrt(dimension) * (1.0 + 2.0 * ABSOLUTE_ERROR)


def scale_for(sensitivity: float, clip: float, weight: float, dimension: int) -> float:
    """Return the largest s under which one customer changes the sum by at most `sensitivity`, rounded down.

    Raises
    ------
    DocumentError
        CSL-P820 when rounding alone takes half of the sensitivity or more.
    """
    left = sensitivity - rounding_of(dimension)
    if not left >= sensitivity / 2:
        raise DocumentError(
            "CSL-P820",
            f"A sensitivity of {sensitivity:.4g} grid units is too small for {dimension} integers: rounding alone takes "
            f"{rounding_of(dimension):.4g} of them.",
            "Grant more epsilon, or plan a smaller model.",
        )
    return left / (weight * clip * (1.0 + RELATIVE_ERROR)) * (1.0 - 1e-12)


def quantise(
    vector: NDArray[np.float64], *, scale: float, x_max: float, share: float, source: RandomSource
) -> NDArray[np.int64]:
    """Return rint(scale * vector), clamped, plus discrete Gaussian noise: int64 [d].

    Parameters
    ----------
    vector:
        float64 [d], the clipped sum by `privacy.logistic.IntegerSums`, times the member's weight.
    scale:
        Grid units in 1, above 0 and at most 1e12.
    x_max:
        Bound of each coordinate before noise, in grid units, at least 1; 2^44 where it is more.
    share:
        Parameter of the noise, 4 to 65536.

    Raises
    ------
    IntegrityError
        CSL-P821 for NaN or infinity in the vector: what is summed up was not checked.
    DocumentError
        CSL-P822 for a scale, bound or share out of range.
    """
    if not (0.0 < scale <= LARGEST_SCALE and x_max >= 1.0 and share >= LEAST_SHARE):
        raise DocumentError(
            "CSL-P822",
            f"A secure sum has a scale above 0 and up to {LARGEST_SCALE:g}, a bound of at least 1 and noise of at least "
            f"{LEAST_SHARE:g} grid units, not {scale:g}, {x_max:g} and {share:g}.",
            "Correct the study's plan.",
        )
    if not np.isfinite(vector).all():
        raise IntegrityError(
            "CSL-P821", "A vector to be added up holds NaN or infinity.", "Report it with the vault's log."
        )
    bound = min(math.floor(x_max), LARGEST_COORDINATE)
    return add_noise(np.rint(np.clip(vector * scale, -bound, bound)).astype(np.int64), share, source)


def add_noise(values: NDArray[np.int64], share: float, source: RandomSource) -> NDArray[np.int64]:
    """Return integers plus discrete Gaussian noise of parameter `share`, int64 [d]. Raises PolicyError CSL-P103."""
    return values + discrete_gaussian(share).sample(values.size, source)


def bound_for(w: int, members: int, share: float) -> float:
    """Return the largest x_max with which sums over an epoch's members do not wrap around in words of `w` bits, rounded down; 2^44 at most.

    x_max = (2^(w-1) - 1 - 12 sqrt(n) share) / n. Wrapping around would harm accuracy, never privacy.

    Parameters
    ----------
    w:
        32 or 64.
    members:
        n, at least 1.
    share:
        Parameter of each member's noise, in grid units.

    Raises
    ------
    DocumentError
        CSL-P824 when the noise alone fills the words.
    """
    bound = math.floor((2.0 ** (w - 1) - 1.0 - _DEVIATIONS * math.sqrt(members) * share) / members)
    if bound < 1:
        raise DocumentError(
            "CSL-P824",
            f"The noise of {members} members, {share:g} each, fills words of {w} bits: nothing is left for their vectors.",
            "Plan wider words, or less noise.",
        )
    return min(float(bound), LARGEST_COORDINATE)


def width_for(members: int, x_max: float, share: float) -> int:
    """Return 32 or 64: the least width of words in which the sum does not wrap around.

    w >= log2(2 (n x_max + 12 sqrt(n) share)): a sum of n vectors within x_max, and 12 standard deviations of their noise. Wrapping around
    would harm accuracy, never privacy.

    Raises
    ------
    DocumentError
        CSL-P823 when 64 bits do not suffice.
    """
    needed = 2.0 * (members * x_max + _DEVIATIONS * math.sqrt(members) * share)
    for width in _WIDTHS:
        if needed <= 2.0**width:
            return width
    raise DocumentError(
        "CSL-P823",
        f"A sum of {members} vectors up to {x_max:g} does not fit into 64 bits.",
        "Declare smaller cohorts, or grant less sensitivity.",
    )
