"""Who is drawn, and streams of noise: functions of the seed, the round and the step alone, so that every engine draws the same customers.

Customer j of the whole job is drawn in a step when the j-th output of a counter-based generator (Philox: Salmon, Moraes, Dror, Shaw 2011),
keyed by seed, round and step, lies below the rate: an independent Bernoulli draw for each customer, which is Poisson sampling. The
counter can be moved to any place, so that one institution finds its own part without the others'.
"""

import numpy as np
from numpy.typing import NDArray

_WORDS = 4  # 64-bit outputs of one Philox counter
DRAWS, NOISE, FAULTS, PARTITION = 1, 2, 3, 4


def stream(seed: int, *path: int) -> np.random.Generator:
    """Return a generator for one use, told apart by its path: the first number is one of the constants above."""
    return np.random.Generator(np.random.SFC64(np.random.SeedSequence(seed, spawn_key=path)))


def drawn(seed: int, round_: int, step: int, start: int, stop: int, rate: float) -> NDArray[np.bool_]:
    """Return which customers from `start` to `stop` are drawn, bool [stop - start].

    Parameters
    ----------
    rate:
        Probability of each; 1 draws everybody.
    """
    if rate >= 1.0:
        return np.ones(stop - start, dtype=np.bool_)
    key = np.random.SeedSequence(seed, spawn_key=(DRAWS, round_, step)).generate_state(2, np.uint64)
    philox = np.random.Philox(key=key)
    start, stop = int(start), int(stop)  # numpy's own integers overflow in `advance`
    skip = start % _WORDS
    philox.advance(start // _WORDS)
    uniform = np.random.Generator(philox).random(skip + stop - start)
    found: NDArray[np.bool_] = uniform[skip:] < rate
    return found
