"""Customers made by the models of lifetime value, for benchmarks and tests: BG/NBD for purchases, Gamma-Gamma for their worth."""

import numpy as np
from numpy.typing import NDArray

from client.cohort import Cohort
from federation.lifetime import Purchasing, Spending

_MOST_REPEATS = 364


def made_customers(
    tenure: NDArray[np.float64], purchasing: Purchasing, spending: Spending, generator: np.random.Generator
) -> Cohort:
    """Return customers first seen so long ago who buy, drop out and pay as the models say.

    Parameters
    ----------
    tenure:
        Shares of the window from the first purchase to its end, float64 [n].
    """
    size = len(tenure)
    rate = generator.gamma(purchasing.r, 1 / purchasing.alpha, size)
    leaving = generator.beta(purchasing.a, purchasing.b, size)
    now, x, last, going = np.zeros(size), np.zeros(size), np.zeros(size), np.ones(size, dtype=bool)
    while going.any():
        now = now + generator.exponential(1.0, size) / np.maximum(rate, 1e-12)
        going &= (now <= tenure) & (x < _MOST_REPEATS)
        x, last = x + going, np.where(going, now, last)
        going &= generator.random(size) >= leaving
    scale = generator.gamma(spending.q, 1 / spending.v, size)
    amounts = generator.gamma(spending.p * (x + 1), 1 / scale) / (x + 1)
    columns = {"frequency": x + 1, "recency": tenure - last, "tenure": tenure, "monetary": amounts}
    return Cohort(np.array([f"c{number}" for number in range(size)], dtype=object), columns)
