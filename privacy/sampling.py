"""True Poisson sampling: each customer enters a batch independently, with the rate that is accounted."""

import math

import numpy as np
from numpy.typing import NDArray

from federation.errors import PolicyError
from privacy.randomness import RandomSource

MAX_CUSTOMERS = 1 << 31  # so that a sum of gaps stays below 2^63


def poisson_sample(n: int, rate: float, source: RandomSource) -> NDArray[np.int64]:
    """Return the rows of one Poisson-sampled batch in O(rate * n).

    The distance from one success of Bernoulli(q) to the next is geometric, floor(ln(1-u) / ln(1-q)) + 1 for uniform u
    (Devroye 1986, Non-Uniform Random Variate Generation, section X.2); running sums of such distances are the rows.
    Uniforms on a grid of 2^-53 change a row's probability by about 2^-53 / q of itself: 10^-10 at the smallest q that is
    accounted (10^-6).

    Parameters
    ----------
    n:
        Rows to choose from, 0 to 2^31.
    rate:
        Probability q of each row, 0 to 1.
    source:
        Where the draws come from; the number of draws depends on the batch, so that it is as private as the batch size.

    Returns
    -------
    Row numbers, shape (batch,), int64, strictly increasing; often empty for small `n * rate`.

    Raises
    ------
    PolicyError
        CSL-P102 when `n` or `rate` is out of range.
    """
    if not 0 <= n <= MAX_CUSTOMERS or not 0.0 <= rate <= 1.0:
        raise PolicyError(
            "CSL-P102",
            f"Poisson sampling needs 0 to {MAX_CUSTOMERS} rows and a rate from 0 to 1, not {n} and {rate}.",
            "Correct the study's sampling rate.",
        )
    if n == 0 or rate == 0.0:
        return np.empty(0, dtype=np.int64)
    if rate == 1.0:
        return np.arange(n, dtype=np.int64)
    parts: list[NDArray[np.int64]] = []
    last = -1
    while last < n:
        left = (n - last) * rate
        part = last + np.cumsum(_gaps(int(left + 4.0 * math.sqrt(left)) + 8, n, rate, source))
        parts.append(part)
        last = int(part[-1])
    rows = np.concatenate(parts)
    return rows[: np.searchsorted(rows, n)]


def _gaps(count: int, n: int, rate: float, source: RandomSource) -> NDArray[np.int64]:
    """Geometric(rate) distances, cut at n + 1: whatever is longer leaves the table all the same."""
    with np.errstate(over="ignore"):  # a rate near the smallest float: the quotient is infinite, and cut
        gaps = np.floor(np.log1p(-source.uniform(count)) / math.log1p(-rate)) + 1.0
    return np.minimum(gaps, n + 1.0).astype(np.int64)
