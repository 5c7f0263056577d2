"""Chances with the average that was asked for, and categories by cumulative shares."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import expit

from simulations.population.traits import Floats

Codes = NDArray[np.int8]

_FAR = 60.0


def intercept(logit: Floats, rate: float) -> float:
    """Return what must be added to these logits, float64 [n], for their mean probability to be `rate`.

    It stops at 60 on either side, so that 0 and 1 may be asked for; with nobody it is 0.
    """
    if not len(logit):
        return 0.0

    def excess(shift: float) -> float:
        return float(expit(logit + shift).mean()) - rate

    if excess(-_FAR) >= 0.0:
        return -_FAR
    if excess(_FAR) <= 0.0:
        return _FAR
    return float(brentq(excess, -_FAR, _FAR, xtol=1e-6))


def at_rate(logit: Floats, rate: float) -> Floats:
    """Return probabilities, float64 [n], that rise with these logits and have mean `rate`."""
    probability: Floats = expit(logit + intercept(logit, rate))
    return probability


def happens(probability: Floats, rng: np.random.Generator) -> Codes:
    """Draw 0 or 1, int8 [n], with these probabilities."""
    return (rng.random(len(probability)) < probability).astype(np.int8)


def choose(logits: Sequence[Floats], rng: np.random.Generator) -> Codes:
    """Draw one of several categories, int8 [n], by a multinomial logit: each category's logits are float64 [n]."""
    noisy = [logit + rng.gumbel(size=len(logit)) for logit in logits]
    chosen: Codes = np.argmax(noisy, axis=0).astype(np.int8)
    return chosen


def forget(codes: Codes, share: float, rng: np.random.Generator) -> Codes:
    """Return codes of which a share at random is unknown (-1)."""
    return np.where(rng.random(len(codes)) < share, np.int8(-1), codes)
