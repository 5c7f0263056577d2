"""Descent for linear models at the coordinator: two probes, a start, and steps along and across the average row.

All of it is post-processing of protected sums.

*Probes.* With all weights zero and the bias at -ln 3, then +ln 3, every customer's predicted chance is 1/4, then
3/4, so the mean gradients are (1/4)m - E[yx] and (3/4)m - E[yx]: their difference gives the mean encoded row m,
their average the base rate r. Their clip is so wide that it does not bend them.

*Start.* Of all weights that give the average customer the base rate, those of least norm: (w, b) = L (m, 1) /
(|m|^2 + 1), L = ln(r / (1 - r)). Plain descent from zero passes there first, after some oscillation. Customers
unlike any seen before keep a chance near one half.

*Steps.* Every gradient is split into its part along that same direction (m, 1) and the rest, which leaves the average
customer's logit as it is. Along it the loss bends most: Newton steps that shrink, within a limit on noise. Across it
the covariance of the rows limits the step, and their mean no longer does (LeCun, Bottou, Orr, Mueller 1998, section
4.3): the step is the longest that the noise allows (`server.recipe`), or the longest that is stable, 1 / (CURVATURE
r(1-r)); then heavy-ball momentum makes up for the difference (Polyak 1964). The second half is averaged (Jain,
Kakade, Kidambi, Netrapalli, Sidford 2018).

*Why a projection, and not centred features.* Both free the weights from the intercept. But the gradient with respect
to centred features, g_w - m g_b, carries the intercept's noise along m: there it is sqrt(|m|^2 + 1) times that of any
other direction, 1.7 to 3.3 times on six data sets; and along m customers of a later period may spread more than those
of the training period (1.4 to 1.6 times on bank-full). A projection makes noise nowhere larger, and what is known
along m, the start, stays: single runs at epsilon 1 spread a quarter to a half less there.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from federation.basis import ROW_NORM
from server.recipe import MOMENTUM, NOISE_IN_WEIGHTS, PROBES, RunTuning, TrainingPlan, tail_coefficients

Vector = NDArray[np.float64]

WEIGHT, BIAS = "linear.weight", "linear.bias"
PROBE_LOGIT = math.log(3.0)  # odds of 1/4 and 3/4
_APART = 0.5  # 3/4 - 1/4
# Largest eigenvalue of the covariance of rows with norm up to ROW_NORM, as a share of the squared norm: .07 to .25
# on six data sets, by the encoding.
_CURVATURE = 0.15 * ROW_NORM**2
_LEAST_RATE = 0.01
_NOISE_IN_INTERCEPT = 0.25


@dataclass(frozen=True)
class Moments:
    """What the probes measured: the mean encoded row, float64 [d], and the base rate, inside (0, 1)."""

    mean: Vector
    rate: float

    @property
    def logit(self) -> float:
        """ln(rate / (1 - rate))."""
        return math.log(self.rate / (1.0 - self.rate))

    @property
    def curvature(self) -> float:
        """rate (1 - rate): the curvature of the logistic loss in the logit."""
        return self.rate * (1.0 - self.rate)

    @property
    def lift(self) -> Vector:
        """Weights of the least change (w, b) = (m, 1) / (|m|^2 + 1) that raises the average customer's logit by 1."""
        return self.mean / self.power

    @property
    def power(self) -> float:
        """|m|^2 + 1: the squared length of the average row with its intercept."""
        return float(self.mean @ self.mean) + 1.0


@dataclass(frozen=True)
class Descent:
    """Everything that the next round depends on; `after` returns the next state, `broadcast` what vaults are sent.

    Attributes
    ----------
    round:
        Rounds done.
    probes:
        Mean gradients of the probes so far, float64 [2, d + 1], the intercept last; rows of rounds to come are zero.
    weights, velocity:
        float64 [d].
    intercept:
        Logit of the average customer; the bias is `intercept` - m . `weights`.
    total:
        Sum of (weights, bias) over the averaged rounds, float64 [d + 1].
    averaged:
        How many rounds are in `total`.
    """

    round: int
    probes: Vector
    weights: Vector
    velocity: Vector
    intercept: float
    total: Vector
    averaged: int

    @classmethod
    def start(cls, width: int) -> "Descent":
        """Begin before the first probe."""
        nothing = np.zeros(width)
        return cls(0, np.zeros((PROBES, width + 1)), nothing, nothing, 0.0, np.zeros(width + 1), 0)

    def broadcast(self, tuning: RunTuning) -> dict[str, NDArray[np.float32]]:
        """Return the tensors that the next round starts from, float32: `linear.weight` [1, d] and `linear.bias` [1]."""
        if self.round < PROBES:
            return _tensors(np.zeros_like(self.weights), PROBE_LOGIT * (-1.0) ** (self.round + 1))
        return _tensors(self.weights, self._bias(self.moments(tuning)))

    def after(self, gradient: Mapping[str, Vector], plan: TrainingPlan, tuning: RunTuning) -> "Descent":
        """Return the state after a round.

        Parameters
        ----------
        gradient:
            The round's weighted mean gradient at what was broadcast, by tensor name; see `gradient_of_change` for
            `fedavg`.
        """
        flat = np.append(np.ravel(gradient[WEIGHT]), np.ravel(gradient[BIAS])).astype(np.float64)
        done = self.round + 1
        if self.round < PROBES:
            probes = self.probes.copy()
            probes[self.round] = flat
            probed = replace(self, round=done, probes=probes)
            return probed if done < PROBES else probed._at_start(tuning)
        return self._stepped(flat, plan, tuning)

    def model(self, tuning: RunTuning) -> dict[str, NDArray[np.float32]]:
        """Return the model, float32.

        The average of the last rounds, or the present weights where none was averaged yet.
        """
        if not self.averaged:
            return self.broadcast(tuning)
        mean = self.total / self.averaged
        return _tensors(mean[:-1], float(mean[-1]))

    def moments(self, tuning: RunTuning) -> Moments:
        """Return what the probes say; call it after both."""
        return read_probes(self.probes[0], self.probes[1], tuning.probe_noise)

    def tensors(self) -> dict[str, Vector]:
        """Return all arrays by name, as a checkpoint keeps them beside `round` and `averaged`."""
        own = {"probes": self.probes, "weights": self.weights, "velocity": self.velocity, "total": self.total}
        return {**own, "intercept": np.array([self.intercept])}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Vector], done: int, averaged: int) -> "Descent":
        """Rebuild a state from a checkpoint; KeyError where a tensor is missing."""
        names = ("probes", "weights", "velocity", "total")
        probes, weights, velocity, total = (np.asarray(tensors[name], dtype=np.float64) for name in names)
        return cls(done, probes, weights, velocity, float(tensors["intercept"][0]), total, averaged)

    def _at_start(self, tuning: RunTuning) -> "Descent":
        moments = self.moments(tuning)
        return replace(self, weights=moments.logit * moments.lift, intercept=moments.logit)

    def _stepped(self, gradient: Vector, plan: TrainingPlan, tuning: RunTuning) -> "Descent":
        moments = self.moments(tuning)
        step, momentum = step_size(plan, tuning, moments)
        along = (float(moments.mean @ gradient[:-1]) + float(gradient[-1])) / moments.power
        velocity = momentum * self.velocity + gradient[:-1] - along * moments.mean
        lowered = rate_along(self.round, plan, tuning, moments) * along
        moved = replace(
            self,
            round=self.round + 1,
            weights=self.weights - step * velocity - lowered * moments.lift,
            velocity=velocity,
            intercept=self.intercept - lowered,
        )
        if moved.round < tuning.average_from:
            return moved
        total = moved.total + np.append(moved.weights, moved._bias(moments))
        return replace(moved, total=total, averaged=moved.averaged + 1)

    def _bias(self, moments: Moments) -> float:
        return self.intercept - float(self.weights @ moments.mean)


def read_probes(low: Vector, high: Vector, noise: float) -> Moments:
    """Return mean row and base rate from the mean gradients at chance 1/4 and 3/4.

    The true number of customers may differ from the declared one; the intercept's two answers tell by how much, and
    where noise leaves that readable it is divided out. The mean is shrunk by the noise that is expected in it
    (James and Stein 1961), the rate kept where noise cannot make it extreme.

    Parameters
    ----------
    low, high:
        float64 [d + 1], the intercept last.
    noise:
        Standard deviation in each coordinate of both.
    """
    spread = noise * math.sqrt(2.0) / _APART
    answered = min(2.0, max(0.5, float(high[-1] - low[-1]) / _APART)) if spread < 0.125 else 1.0
    mean = (high - low)[:-1] / (_APART * answered)
    power = float(mean @ mean)
    expected = len(mean) * (spread / answered) ** 2
    if power > 0:
        # Rows have norm up to ROW_NORM, hence so has their mean.
        mean = mean * min(max(0.0, 1.0 - expected / power), ROW_NORM / math.sqrt(power))
    least = min(0.25, max(_LEAST_RATE, 2.0 * noise))
    rate = 0.5 - 0.5 * float(low[-1] + high[-1]) / answered
    return Moments(mean, min(max(rate, least), 1.0 - least))


def step_size(plan: TrainingPlan, tuning: RunTuning, moments: Moments) -> tuple[float, float]:
    """Return (step, momentum).

    What the noise allows where that is stable, else what is stable with momentum up to .9.
    """
    stable = 1.0 / (_CURVATURE * moments.curvature)
    allowed = _allowed(NOISE_IN_WEIGHTS, plan, tuning)
    return min(stable, allowed), min(MOMENTUM, max(0.0, 1.0 - stable / allowed))


def rate_along(done: int, plan: TrainingPlan, tuning: RunTuning, moments: Moments) -> float:
    """Return the step along the average row after `done` rounds: Newton's, which shrinks, within a limit on noise."""
    newton = min(1.0, 2.0 / (done - PROBES + 2.0)) / moments.curvature
    # The noise of `along` is that of one coordinate, over the length of (m, 1).
    return min(newton, _allowed(_NOISE_IN_INTERCEPT, plan, tuning) * math.sqrt(moments.power))


def _allowed(limit: float, plan: TrainingPlan, tuning: RunTuning) -> float:
    """Return the step with which a coordinate without curvature ends with noise of standard deviation `limit`."""
    if tuning.noise == 0.0:
        return math.inf
    return limit / (tuning.noise * math.sqrt(plan.descent_rounds))


def gradient_of_change(change: Mapping[str, Vector], plan: TrainingPlan, tuning: RunTuning) -> dict[str, Vector]:
    """Return the mean gradient that a `fedavg` round's mean change stands for.

    That is minus the change, divided by the local step and by the number of gradients that the change holds.

    The coordinator then takes its own, longer step: FedAvg as a pseudo-gradient (Reddi et al. 2021, algorithm 1).
    """
    scale = -1.0 / (tuning.local_learning_rate * math.fsum(tail_coefficients(plan.local_steps)))
    return {name: scale * np.asarray(value, dtype=np.float64) for name, value in change.items()}


def _tensors(weights: Vector, bias: float) -> dict[str, NDArray[np.float32]]:
    return {WEIGHT: weights.astype(np.float32)[None, :], BIAS: np.array([bias], dtype=np.float32)}
