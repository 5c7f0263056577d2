"""The discrete Gaussian N_Z(0, sigma^2): P(x) proportional to exp(-x^2 / (2 sigma^2)) on the integers.

`DiscreteGaussian` draws from a cumulative table of 128 bits, fast; `rejection_sample` is the exact sampler of
Canonne, Kamath and Steinke (2020, The Discrete Gaussian for Differential Privacy), slow, on integers alone, to check
it against.
"""

import math
from fractions import Fraction
from functools import lru_cache

import mpmath
import numpy as np
from numpy.typing import NDArray

from federation.errors import PolicyError
from privacy.mechanisms.table import TABLE_BITS, TableSampler
from privacy.randomness import RandomSource

MIN_SIGMA = 0.1
MAX_SIGMA = float(1 << 16)
_FRACTION_BITS = 512  # of the fixed-point weights: the recurrence loses about 3 log2(table length) of them


class DiscreteGaussian:
    """Table sampler of N_Z(0, sigma^2).

    A uniform integer of 128 bits is looked up in the cumulative probabilities, each rounded to a multiple of 2^-128
    (`privacy.mechanisms.table`).

    Parameters
    ----------
    sigma:
        Parameter of the law, 0.1 to 65536; the exact value of the float is used.

    Attributes
    ----------
    bound:
        Largest absolute value that can be drawn.
    error:
        Bound of the total variation distance of one draw from N_Z(0, sigma^2): k draws add at most k * (1 +
        e^epsilon) * error to delta.

    Raises
    ------
    PolicyError
        CSL-P103 when sigma is out of range.
    """

    def __init__(self, sigma: float) -> None:
        if not MIN_SIGMA <= sigma <= MAX_SIGMA:
            raise PolicyError(
                "CSL-P103",
                f"Discrete Gaussian noise needs a sigma from {MIN_SIGMA} to {MAX_SIGMA:.0f}, not {sigma}.",
                "Choose another noise level, or a coarser grid.",
            )
        cumulative = cumulative_table(sigma)
        self.bound = len(cumulative) // 2
        self.error = math.ldexp(len(cumulative) + 1, -TABLE_BITS)
        self._table = TableSampler(cumulative)

    def sample(self, n: int, source: RandomSource) -> NDArray[np.int64]:
        """Return `n` independent draws, shape (n,), int64."""
        return self._table.draw(n, source) - self.bound


@lru_cache(maxsize=4)
def discrete_gaussian(sigma: float) -> DiscreteGaussian:
    """Return the sampler of N_Z(0, sigma^2), built once a process: a table for sigma = 16384 takes longer than all its draws.

    Raises PolicyError CSL-P103 when sigma is out of range.
    """
    return DiscreteGaussian(sigma)


def table_bound(sigma: float) -> int:
    """Return a B with P(|x| > B) <= 2^-128.

    The law is sub-Gaussian (Canonne, Kamath and Steinke 2020): P(|x| >= m) <= 2 exp(-m^2 / (2 sigma^2)).
    """
    return math.ceil(sigma * math.sqrt(2.0 * math.log(2.0) * (TABLE_BITS + 1.01)))


def cumulative_table(sigma: float) -> list[int]:
    """Return floor(2^128 P(X <= x)) for x = -B, ..., B - 1, where X is N_Z(0, sigma^2) cut to [-B, B].

    The weights follow w(x+1) = w(x) r(x), r(x+1) = r(x) e^(-1/sigma^2) in 512-bit fixed point, so that every entry is
    within one unit of the exact value.
    """
    bound = table_bound(sigma)
    weights = _weights(sigma, bound)
    total = 2 * sum(weights) - weights[0]
    table: list[int] = []
    running = 0
    for x in range(-bound, bound):
        running += weights[abs(x)]
        table.append((running << TABLE_BITS) // total)
    return table


def _weights(sigma: float, bound: int) -> list[int]:
    """Fixed-point exp(-x^2 / (2 sigma^2)) for x = 0, ..., bound."""
    context = mpmath.MPContext()
    context.prec = _FRACTION_BITS + 64
    half = -1 / (2 * context.mpf(sigma) ** 2)
    ratio = int(context.ldexp(context.exp(half), _FRACTION_BITS))
    factor = int(context.ldexp(context.exp(2 * half), _FRACTION_BITS))
    weights = [1 << _FRACTION_BITS]
    for _ in range(bound):
        weights.append(weights[-1] * ratio >> _FRACTION_BITS)
        ratio = ratio * factor >> _FRACTION_BITS
    return weights


def rejection_sample(sigma_squared: Fraction, n: int, source: RandomSource) -> list[int]:
    """Return `n` exact draws of N_Z(0, sigma^2): Algorithm 3 of Canonne, Kamath and Steinke (2020); about 10^4 a
    second.

    Parameters
    ----------
    sigma_squared:
        The square of the parameter, an exact positive fraction.
    """
    scale = math.isqrt(sigma_squared.numerator // sigma_squared.denominator) + 1
    draws: list[int] = []
    while len(draws) < n:
        candidate = _discrete_laplace(scale, source)
        distance = abs(candidate) - sigma_squared / scale
        if _bernoulli_exp(distance * distance / (2 * sigma_squared), source):
            draws.append(candidate)
    return draws


def _discrete_laplace(scale: int, source: RandomSource) -> int:
    """P(x) proportional to exp(-|x| / scale): Algorithm 2 of the same paper, with s = 1."""
    while True:
        remainder = _below(scale, source)
        if not _bernoulli_exp(Fraction(remainder, scale), source):
            continue
        quotient = 0
        while _bernoulli_exp(Fraction(1), source):
            quotient += 1
        magnitude = remainder + scale * quotient
        negative = _below(2, source) == 1
        if not (negative and magnitude == 0):
            return -magnitude if negative else magnitude


def _bernoulli_exp(gamma: Fraction, source: RandomSource) -> bool:
    """True with probability exp(-gamma), gamma >= 0: Algorithm 1 of the same paper."""
    while gamma > 1:
        if not _bernoulli_exp(Fraction(1), source):
            return False
        gamma -= 1
    k = 1
    while _below(k * gamma.denominator, source) < gamma.numerator:
        k += 1
    return k % 2 == 1


def _below(limit: int, source: RandomSource) -> int:
    """A uniform integer on [0, limit), by rejection."""
    bits = (limit - 1).bit_length()
    size = (bits + 7) // 8
    while True:
        value = int.from_bytes(source.bytes(size), "little") >> (8 * size - bits)
        if value < limit:
            return value
