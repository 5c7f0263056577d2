"""Audits: does a training run leak more than it claims? They can find a violation; they can never show that there is none.

*One run* (Steinke, Nasr, Jagielski 2023, "Privacy auditing with one (1) training run", arXiv:2305.08846). Canary
customers are added, each by a fair coin; afterwards the auditor guesses the coins. If training is (epsilon, delta)-DP, few
guesses can be right.

*Canary features*: a canary's real features are 0 and it has a column of its own, so that its whole clipped gradient points where nobody
else's does; the score is the released weight of that column. This needs a one-layer model that is one column wider for each canary.

*Two samples*: released canary columns with all canaries in, and with all out, compared at one threshold fixed beforehand.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import beta as beta_distribution
from scipy.stats import binom

from federation.errors import ConsilienceError
from federation.networks import Inputs, LinearNetwork
from privacy.randomness import RandomSource

CANARY_VALUE = 10.0
_WEIGHT = "linear.weight"
_LARGEST_EPSILON = 50.0

Released = Mapping[str, NDArray[np.float32]]
Train = Callable[[LinearNetwork, Inputs, NDArray[np.float64]], Released]


@dataclass(frozen=True)
class AuditResult:
    """What an audit found: with probability `confidence`, the run's true epsilon (at `delta`) is at least `lower_bound`."""

    claimed_epsilon: float
    delta: float
    confidence: float
    guesses: int
    correct: int
    lower_bound: float

    @property
    def violation(self) -> bool:
        """Whether the claim is refuted; a true claim is refuted with probability at most 1 - confidence."""
        return self.lower_bound > self.claimed_epsilon

    @property
    def words(self) -> str:
        """The result as a sentence."""
        finding = "violation found" if self.violation else "no violation found"
        return (
            f"{finding}: {self.correct} of {self.guesses} guesses right, so epsilon is at least {self.lower_bound:.2f} "
            f"({self.confidence:.0%} confidence, delta {self.delta:g}); claimed {self.claimed_epsilon:g}"
        )


def audit_one_run(
    train: Train,
    dense: NDArray[np.float32],
    labels: NDArray[np.float64],
    *,
    canaries: int,
    guesses: int,
    claimed_epsilon: float,
    delta: float,
    source: RandomSource,
    confidence: float = 0.95,
) -> AuditResult:
    """Train once among canaries and bound epsilon from below.

    Parameters
    ----------
    train:
        The real training path: gets a fresh `LinearNetwork`, inputs and labels; returns the change of the weights that it releases.
    dense, labels:
        Real customers, float32 [n, d] and float64 [n]; n may be 0.
    canaries:
        Number m of canaries; 2,000 tell a fourfold cut in noise from the claim.
    guesses:
        How many coins are guessed, even, fixed beforehand: the half with the highest scores "in", the half with the lowest "out".
    claimed_epsilon, delta:
        What the run claims.
    source:
        Where the coins come from.

    Raises
    ------
    ConsilienceError
        CSL-P710 when `guesses` is not even or not between 2 and `canaries`.
    """
    if guesses % 2 or not 2 <= guesses <= canaries:
        raise ConsilienceError(
            "CSL-P710",
            f"{guesses} guesses do not fit {canaries} canaries.",
            "Choose an even number up to the number of canaries.",
        )
    included = source.uniform(canaries) < 0.5
    scores = canary_scores(train, dense, labels, included)
    order = np.argsort(scores, kind="stable")
    correct = int(included[order[canaries - guesses // 2 :]].sum() + (~included[order[: guesses // 2]]).sum())
    bound = epsilon_lower_bound(canaries, guesses, correct, delta, confidence)
    return AuditResult(claimed_epsilon, delta, confidence, guesses, correct, bound)


def canary_scores(
    train: Train, dense: NDArray[np.float32], labels: NDArray[np.float64], included: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Train once on the real customers and the included canaries (label 1), and return every canary column's released weight.

    Parameters
    ----------
    included:
        bool [m]: which canaries take part; the score is float64 [m] either way.
    """
    n, width = dense.shape
    places = np.flatnonzero(included)
    table = torch.zeros((n + len(places), width + len(included)), dtype=torch.float32)
    table[:n, :width] = torch.from_numpy(dense)
    table[n + torch.arange(len(places)), width + torch.from_numpy(places)] = CANARY_VALUE
    inputs = Inputs(table, torch.empty((len(table), 0), dtype=torch.int64))
    released = train(LinearNetwork(table.shape[1]), inputs, np.concatenate([labels, np.ones(len(places))]))
    return released[_WEIGHT][0, width:].astype(np.float64)


def one_run_p_value(canaries: int, guesses: int, correct: int, epsilon: float, delta: float) -> float:
    """Return an upper bound on P(at least `correct` of `guesses` right) if the run is (epsilon, delta)-DP.

    Theorem 5.2 of Steinke, Nasr, Jagielski 2023: with f(v) = P(Binomial(r, e^eps / (1 + e^eps)) >= v), the probability is at most
    f(v) + 2 m delta max_{1 <= i <= v} (f(v - i) - f(v)) / i. Here m = `canaries`, r = `guesses`, v = `correct`.
    """
    accuracy = 1.0 / (1.0 + math.exp(-epsilon))
    dominated = float(binom.sf(correct - 1, guesses, accuracy))
    below = np.cumsum(binom.pmf(np.arange(correct - 1, -1, -1), guesses, accuracy))
    slope = float((below / np.arange(1, correct + 1)).max()) if correct else 0.0
    return min(1.0, dominated + 2.0 * canaries * delta * slope)


def epsilon_lower_bound(canaries: int, guesses: int, correct: int, delta: float, confidence: float = 0.95) -> float:
    """Return the largest epsilon that so many right guesses refute at this confidence; 0 when they refute none."""
    low, high = 0.0, _LARGEST_EPSILON
    if one_run_p_value(canaries, guesses, correct, low, delta) > 1.0 - confidence:
        return 0.0
    while high - low > 1e-4:  # the p-value increases with epsilon
        middle = (low + high) / 2.0
        refuted = one_run_p_value(canaries, guesses, correct, middle, delta) <= 1.0 - confidence
        low, high = (middle, high) if refuted else (low, middle)
    return low


def two_sample_lower_bound(
    present: NDArray[np.float64], absent: NDArray[np.float64], threshold: float, delta: float, confidence: float = 0.95
) -> float:
    """Return a lower bound on epsilon from independent scores with the canary present and absent.

    (epsilon, delta)-DP asks P(score > t | present) <= e^epsilon P(score > t | absent) + delta; each probability is bounded by Clopper
    and Pearson 1934, one-sided, with half of the error. `threshold` must be fixed before the scores are seen.
    """
    error = (1.0 - confidence) / 2.0
    hits, false_hits = int((present > threshold).sum()), int((absent > threshold).sum())
    lower = float(beta_distribution.ppf(error, hits, len(present) - hits + 1)) if hits else 0.0
    upper = (
        float(beta_distribution.ppf(1.0 - error, false_hits + 1, len(absent) - false_hits))
        if false_hits < len(absent)
        else 1.0
    )
    return max(0.0, math.log((lower - delta) / upper)) if lower > delta else 0.0
