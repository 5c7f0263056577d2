"""Who is drawn, and streams of noise: functions of the seed, the round and the step alone, so that every engine draws the same customers.

Customer j of the whole job is drawn in a step when the j-th 32-bit output of a generator (PCG64 DXSM: O'Neill 2014), seeded by seed,
round and step, lies below the rate: an independent Bernoulli draw for each customer, which is Poisson sampling. The generator can be
moved to any place, so that one institution finds its own part without the others'.
"""

import numpy as np
from numpy.typing import NDArray

_HALVES = 2  # 32-bit numbers in one 64-bit output
_ALL = 1 << 32
DRAWS, NOISE, FAULTS, PARTITION = 1, 2, 3, 4


def stream(seed: int, *path: int) -> np.random.Generator:
    """Return a generator for one use, told apart by its path: the first number is one of the constants above."""
    return np.random.Generator(np.random.SFC64(np.random.SeedSequence(seed, spawn_key=path)))


def drawn(seed: int, round_: int, step: int, start: int, stop: int, rate: float) -> NDArray[np.bool_]:
    """Return which customers from `start` to `stop` are drawn, bool [stop - start].

    Parameters
    ----------
    rate:
        Probability of each, rounded to a multiple of 2^-32; 1 draws everybody.
    """
    limit = round(rate * _ALL)
    if limit >= _ALL:
        return np.ones(stop - start, dtype=np.bool_)
    generator = np.random.PCG64DXSM(np.random.SeedSequence(seed, spawn_key=(DRAWS, round_, step)))
    start, stop = int(start), int(stop)  # numpy's own integers overflow in `advance`
    skip, end = start % _HALVES, start % _HALVES + stop - start
    generator.advance(start // _HALVES)
    uniform = generator.random_raw(-(-end // _HALVES)).astype("<u8", copy=False).view("<u4")
    found: NDArray[np.bool_] = uniform[skip:end] < np.uint32(limit)
    return found
