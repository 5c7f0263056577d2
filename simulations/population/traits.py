"""What people are like: standard normal traits with a fixed correlation, and what a person is like at one institution.

Two traits, `attachment` and `persuadability`, show in no column: columns that depend on them do so with noise. That is why no
model reaches an AUC of 1.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaincinv, ndtr

Floats = NDArray[np.float64]
Traits = Mapping[str, Floats]

TRAITS = (
    "age",
    "affluence",
    "engagement",
    "price_sensitivity",
    "digital",
    "tenure",
    "attachment",
    "persuadability",
)
HIDDEN = ("attachment", "persuadability")
LOCAL = ("engagement", "price_sensitivity", "attachment", "tenure")
"""Traits that differ, for one person, from institution to institution."""

_PAIRS = {
    ("age", "affluence"): 0.25,
    ("age", "digital"): -0.50,
    ("age", "tenure"): 0.45,
    ("age", "price_sensitivity"): -0.10,
    ("affluence", "price_sensitivity"): -0.40,
    ("affluence", "engagement"): 0.15,
    ("affluence", "digital"): 0.15,
    ("engagement", "digital"): 0.20,
    ("engagement", "attachment"): 0.20,
    ("price_sensitivity", "attachment"): -0.20,
    ("price_sensitivity", "persuadability"): 0.25,
    ("digital", "persuadability"): 0.10,
}

YOUNGEST, OLDEST = 18.0, 95.0
_AGE_SHAPE, _AGE_SCALE = 4.67, 4.91
_TABLE = np.linspace(-6.0, 6.0, 2001)


def correlation() -> Floats:
    """Return the traits' correlation matrix, float64 [8, 8] in the order of `TRAITS`; pairs that are not listed are independent."""
    matrix = np.eye(len(TRAITS))
    for (one, other), value in _PAIRS.items():
        i, j = TRAITS.index(one), TRAITS.index(other)
        matrix[i, j] = matrix[j, i] = value
    return matrix


def draw_traits(n: int, rng: np.random.Generator) -> dict[str, Floats]:
    """Draw n people's traits: by name, each float64 [n], standard normal, correlated as `correlation` says."""
    free = rng.standard_normal((len(TRAITS), n))
    mixed: Floats = np.linalg.cholesky(correlation()) @ free
    return {name: mixed[place] for place, name in enumerate(TRAITS)}


def at_institution(traits: Traits, person: NDArray[np.int64], consistency: float, rng: np.random.Generator) -> Traits:
    """Return the traits of n customers, each float64 [n], as they show at their institution.

    What is `LOCAL` has correlation `consistency` between two institutions of one person; all else is the person's alone.
    """
    shared = np.sqrt(consistency)
    local = {}
    for name in TRAITS:
        values = traits[name][person]
        if name in LOCAL:
            values = shared * values + np.sqrt(1.0 - consistency) * rng.standard_normal(len(person))
        local[name] = values
    return local


def blend(traits: Traits, weights: Mapping[str, float], rng: np.random.Generator) -> Floats:
    """Return a weighted sum of traits and noise, float64 [n]; standard normal for whoever has the population's correlation.

    The weights' own variance must be at most 1; noise makes up the rest.
    """
    vector = np.array([weights.get(name, 0.0) for name in TRAITS])
    told = float(vector @ correlation() @ vector)
    assert told <= 1.0, "the weights leave no room for noise"
    n = len(traits["age"])
    total: Floats = np.sqrt(1.0 - told) * rng.standard_normal(n)
    for name, weight in weights.items():
        total = total + weight * traits[name]
    return total


def age_of(score: Floats) -> Floats:
    """Return whole years of age, float64 [n], from the trait: 18 plus a gamma variable with the mean and spread of UCI bank-full."""
    table = _AGE_SCALE * gammaincinv(_AGE_SHAPE, ndtr(_TABLE))
    years: Floats = np.floor(YOUNGEST + np.interp(score, _TABLE, table))
    capped: Floats = np.minimum(years, OLDEST)
    return capped


def standing(score: Floats) -> Floats:
    """Return the share of people below a standard normal score, float64 [n] in (0, 1)."""
    share: Floats = ndtr(score)
    return share
