"""How the coordinator moves the weights by what the vaults released, and averages the last of them.

Sources: momentum on the averaged change, Hsu, Qi and Brown 2019 (FedAvgM, algorithm in section 3); Adam on the averaged change, Reddi et
al. 2021 (FedAdam, algorithm 2, with their defaults beta1 = .9, beta2 = .99, tau = 1e-3); tail averaging, Jain et al. 2018.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]
Weights = dict[str, Vector]
Kind = Literal["recipe", "fedavgm", "fedadam"]

FEDAVGM_MOMENTUM = 0.9
FEDADAM_RATE = 0.1
FEDADAM_FIRST = 0.9
FEDADAM_SECOND = 0.99
FEDADAM_TAU = 1e-3


@dataclass(frozen=True)
class ServerState:
    """Everything that the next round depends on, float64 by tensor name; `averaged` counts the rounds in `average`."""

    weights: Weights
    velocity: Weights
    second: Weights
    average: Weights
    averaged: int = 0

    @classmethod
    def start(cls, weights: Mapping[str, NDArray[np.floating]]) -> "ServerState":
        """Begin at the given weights with no momentum and no average."""
        own = {name: value.astype(np.float64) for name, value in weights.items()}
        nothing = {name: np.zeros_like(value) for name, value in own.items()}
        second = {name: np.full_like(value, FEDADAM_TAU**2) for name, value in own.items()}
        return cls(weights=own, velocity=nothing, second=second, average=nothing)

    def broadcast(self) -> dict[str, NDArray[np.float32]]:
        """Return the weights as they are sent to vaults, float32."""
        return {name: value.astype(np.float32) for name, value in self.weights.items()}

    def model(self) -> dict[str, NDArray[np.float32]]:
        """Return the study's model, float32: the average of the last rounds, or the weights where none was averaged yet."""
        if not self.averaged:
            return self.broadcast()
        return {name: (value / self.averaged).astype(np.float32) for name, value in self.average.items()}

    def tensors(self) -> dict[str, Vector]:
        """Return all tensors with a prefix for each part, as a checkpoint keeps them."""
        parts = {"weights": self.weights, "velocity": self.velocity, "second": self.second, "average": self.average}
        return {f"{part}/{name}": value for part, values in parts.items() for name, value in values.items()}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Vector], averaged: int) -> "ServerState":
        """Rebuild a state from a checkpoint's tensors; KeyError where a part is missing."""
        parts: dict[str, Weights] = {"weights": {}, "velocity": {}, "second": {}, "average": {}}
        for name, value in tensors.items():
            part, _, tensor = name.partition("/")
            parts[part][tensor] = value
        names = parts["weights"].keys()
        for part, values in parts.items():
            if not names or values.keys() != names:
                raise KeyError(part)
        return cls(**parts, averaged=averaged)


def step(state: ServerState, change: Mapping[str, Vector], kind: Kind, momentum: float, average: bool) -> ServerState:
    """Return the state after one round.

    Parameters
    ----------
    change:
        The averaged change that this round asks for: of the weights (`fedavg`), or minus the step size times the mean gradient (`fedsgd`).
    kind:
        `recipe` uses `momentum` (v <- momentum v + change; w <- w + v); `fedavgm` the same with .9; `fedadam` rescales each coordinate.
    average:
        Whether the new weights enter the tail average.
    """
    velocity: Weights = {}
    second = state.second
    if kind == "fedadam":
        velocity = _mix(state.velocity, change, FEDADAM_FIRST)
        second = _mix(state.second, {name: value**2 for name, value in change.items()}, FEDADAM_SECOND)
        move = {name: FEDADAM_RATE * velocity[name] / (np.sqrt(second[name]) + FEDADAM_TAU) for name in velocity}
    else:
        keep = FEDAVGM_MOMENTUM if kind == "fedavgm" else momentum
        velocity = {name: keep * state.velocity[name] + value for name, value in change.items()}
        move = velocity
    weights = {name: value + move[name] for name, value in state.weights.items()}
    after = replace(state, weights=weights, velocity=velocity, second=second)
    if not average:
        return after
    total = {name: state.average[name] + value for name, value in weights.items()}
    return replace(after, average=total, averaged=state.averaged + 1)


def _mix(old: Mapping[str, Vector], new: Mapping[str, Vector], keep: float) -> Weights:
    return {name: keep * old[name] + (1.0 - keep) * value for name, value in new.items()}


def mean_gradient(
    sums: Mapping[str, Mapping[str, NDArray[Any]]], weights: Mapping[str, float], expected: Mapping[str, float]
) -> Weights:
    """Return the weighted mean gradient of those who answered: sum_i w_i S_i / sum_i w_i q n_i.

    Parameters
    ----------
    sums:
        Member -> tensor name -> noisy sum of clipped gradients over its Poisson draw.
    weights, expected:
        Member -> public weight w_i, and expected number of customers in its draw q n_i, from the *declared* size n_i.
    """
    denominator = sum(weights[member] * expected[member] for member in sums)
    return _weighted(sums, {member: weights[member] / denominator for member in sums})


def mean_change(changes: Mapping[str, Mapping[str, NDArray[Any]]], weights: Mapping[str, float]) -> Weights:
    """Return the weighted mean of the members' changes of the weights: sum_i w_i D_i / sum_i w_i."""
    denominator = sum(weights[member] for member in changes)
    return _weighted(changes, {member: weights[member] / denominator for member in changes})


def _weighted(values: Mapping[str, Mapping[str, NDArray[Any]]], factors: Mapping[str, float]) -> Weights:
    # Members in the order of their names: floating-point sums then do not depend on who answered first.
    total: Weights = {}
    for member in sorted(values):
        for name, value in values[member].items():
            part = factors[member] * value.astype(np.float64)
            total[name] = total[name] + part if name in total else part
    return total
