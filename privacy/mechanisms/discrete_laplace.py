"""The discrete Laplace law of scale b: P(x) = (1 - a) / (1 + a) a^|x| on the integers, with a = e^(-1/b).

It is the law of G - G', two independent geometric draws with P(G = k) = (1 - a) a^k. And a geometric draw is m Q + R with Q and R
independent: Q geometric with a^m in place of a, and R on 0, ..., m - 1 with probability proportional to a^r. So two short tables serve
every scale: with m near the root of 90 b each has about 9.5 sqrt(b) entries, where one table of x would have 180 b.
"""

import math
from functools import lru_cache

import mpmath
import numpy as np
from numpy.typing import NDArray

from federation.errors import PolicyError
from privacy.mechanisms.table import TABLE_BITS, TableSampler
from privacy.randomness import RandomSource

MIN_SCALE = 0.05
MAX_SCALE = 1e5
_FRACTION_BITS = 512  # of the fixed-point weights: k multiplications lose fewer than log2(k) + 1 of them
_REACH = TABLE_BITS * math.log(2.0) * (1.0 + 1e-9)  # e^-reach is below 2^-128


class DiscreteLaplace:
    """Table sampler of the discrete Laplace law.

    Parameters
    ----------
    scale:
        b, 0.05 to 100,000; the exact value of the float is used.

    Attributes
    ----------
    bound:
        Largest absolute value that can be drawn.
    error:
        Bound of the total variation distance of one draw from the law: k draws add at most k * (1 + e^epsilon) * error to delta.

    Raises
    ------
    PolicyError
        CSL-P114 when the scale is out of range.
    """

    def __init__(self, scale: float) -> None:
        if not MIN_SCALE <= scale <= MAX_SCALE:
            raise PolicyError(
                "CSL-P114",
                f"Discrete Laplace noise needs a scale from {MIN_SCALE} to {MAX_SCALE:.0f}, not {scale}.",
                "Choose another noise level, or a coarser grid.",
            )
        self._step, quotients, remainders = tables(scale)
        self.bound = self._step * len(quotients) + self._step - 1
        # Each table is off by one unit an entry, and the quotient's tail that is cut off weighs less than one.
        self.error = math.ldexp(2 * (len(quotients) + 1 + len(remainders)), -TABLE_BITS)
        self._quotients = TableSampler(quotients)
        self._remainders = TableSampler(remainders)

    def sample(self, n: int, source: RandomSource) -> NDArray[np.int64]:
        """Return `n` independent draws, shape (n,), int64."""
        values = self._geometric(2 * n, source)
        return values[:n] - values[n:]

    def _geometric(self, n: int, source: RandomSource) -> NDArray[np.int64]:
        return self._quotients.draw(n, source) * self._step + self._remainders.draw(n, source)


@lru_cache(maxsize=16)
def discrete_laplace(scale: float) -> DiscreteLaplace:
    """Return the sampler of a scale, built once a process. Raises PolicyError CSL-P114 when it is out of range."""
    return DiscreteLaplace(scale)


def tables(scale: float) -> tuple[int, list[int], list[int]]:
    """Return m, and the cumulative tables of Q and R: 2^128 P(Q <= k) for all but the last k, and the same of R.

    Q is cut where its tail is below 2^-128. Weights are powers in 512-bit fixed point, so that every entry is within one unit of the exact
    value.
    """
    step = math.ceil(math.sqrt(_REACH * scale))
    last = math.ceil(_REACH * scale / step)
    return step, _cumulative(scale, step, last + 1), _cumulative(scale, 1, step)


def _cumulative(scale: float, step: int, count: int) -> list[int]:
    """The cumulative table of weights e^(-k step / scale), k = 0, ..., count - 1, without the last entry, which is 2^128."""
    context = mpmath.MPContext()
    context.prec = _FRACTION_BITS + 64
    ratio = int(context.ldexp(context.exp(-step / context.mpf(scale)), _FRACTION_BITS))
    weights = [1 << _FRACTION_BITS]
    for _ in range(count - 1):
        weights.append(weights[-1] * ratio >> _FRACTION_BITS)
    total, running, table = sum(weights), 0, []
    for weight in weights[:-1]:
        running += weight
        table.append((running << TABLE_BITS) // total)
    return table
