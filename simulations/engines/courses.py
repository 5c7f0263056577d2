"""How a simulated coordinator moves the weights: the product's descent and optimizers on flat vectors."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol

from federation.basis import ROW_NORM
from server.descent import Descent, gradient_of_change
from server.monotone import Cone, cones_of, held
from server.optimizer import ServerState, step
from server.recipe import RunTuning, TrainingPlan
from simulations.engines.work import Floats, Job, Layout

_SAFE_STEP = 4.0 / (ROW_NORM**2 + 1.0)
"""One over the largest curvature of the logistic loss on rows of norm up to ROW_NORM beside an intercept."""
Kind = Literal["recipe", "average", "fedavgm", "fedadam"]


class Course(Protocol):
    """Where a study's weights are, and how a round's mean moves them."""

    @property
    def probing(self) -> bool:
        """Whether the next round measures instead of learning."""
        ...

    def weights(self) -> Floats:
        """Return what the next round starts from, float64 [P]."""
        ...

    def after(self, mean: Floats) -> "Course":
        """Return the course after a round with this mean gradient (`fedsgd`) or mean change (`fedavg`)."""
        ...

    def model(self) -> Floats:
        """Return the average over the second half of the rounds, or the weights where none was averaged yet."""
        ...


@dataclass(frozen=True)
class RecipeCourse:
    """Linear models by `server.descent`: two probes, a start, and steps along and across the average row.

    `probe_rate` is the length of a local step in the probes of a `fedavg` course; `cones` are what monotone columns must satisfy.
    """

    layout: Layout
    plan: TrainingPlan
    tuning: RunTuning
    state: Descent
    probe_rate: float = 1.0
    cones: tuple[Cone, ...] = ()

    @property
    def probing(self) -> bool:
        """Whether the next round is a probe."""
        return self.state.round < self.plan.probes

    def weights(self) -> Floats:
        """Return what the next round starts from."""
        return self.layout.flat(self.state.broadcast(self.tuning))

    def after(self, mean: Floats) -> "RecipeCourse":
        """Return the course after a round."""
        parts = self.layout.split(mean)
        if self.plan.mode == "fedavg":
            tuning = replace(self.tuning, local_learning_rate=self.probe_rate) if self.probing else self.tuning
            parts = gradient_of_change(parts, self.plan, tuning)
        return replace(self, state=self.state.after(parts, self.plan, self.tuning))

    def model(self) -> Floats:
        """Return the model, with curves held monotone where it says so."""
        found = self.layout.flat(self.state.model(self.tuning))
        mean = None if self.probing or not self.cones else self.state.moments(self.tuning).mean
        return held_flat(self.layout, found, self.cones, mean)


@dataclass(frozen=True)
class OptimizerCourse:
    """Any model by plain averaging, momentum or Adam on the mean change, or an mlp by the recipe's own step; `round` rounds are done.

    The state's weights are those of the product's optimizer; where `rate` is not 1, the model is `rate` times as far from `origin` [P]:
    every move and every average is then that much smaller, as by another step of the server's own.
    """

    layout: Layout
    plan: TrainingPlan
    tuning: RunTuning
    kind: Kind
    state: ServerState
    round: int
    origin: Floats
    rate: float
    cones: tuple[Cone, ...] = ()

    @property
    def probing(self) -> bool:
        """False: nothing is measured first."""
        return False

    def weights(self) -> Floats:
        """Return what the next round starts from."""
        return self._scaled(self.layout.flat(self.state.weights))

    def after(self, mean: Floats) -> "OptimizerCourse":
        """Return the course after a round."""
        done, momentum = self.round + 1, 0.0 if self.kind == "average" else self.tuning.momentum
        kind = "recipe" if self.kind == "average" else self.kind
        moved = step(self.state, self._change(mean), kind, momentum, done >= self.tuning.average_from)
        return replace(self, state=moved, round=done)

    def model(self) -> Floats:
        """Return the model, with curves held monotone where it says so."""
        return held_flat(self.layout, self._scaled(self.layout.flat(self.state.model())), self.cones)

    def _scaled(self, weights: Floats) -> Floats:
        return weights if self.rate == 1.0 else self.origin + self.rate * (weights - self.origin)

    def _change(self, mean: Floats) -> dict[str, Floats]:
        parts = self.layout.split(mean)
        if self.plan.mode == "fedavg":
            if self.kind != "recipe":
                return parts
            parts = gradient_of_change(parts, self.plan, self.tuning)
        length = self.tuning.learning_rate or _SAFE_STEP
        return {name: -length * value for name, value in parts.items()}


def held_flat(layout: Layout, weights: Floats, cones: Sequence[Cone], mean: Floats | None = None) -> Floats:
    """Return a model's weights, float64 [P], with its curves held monotone; `mean` as `server.monotone.held` has it."""
    return layout.flat(held(layout.tensors(weights), cones, mean)) if cones else weights


def start_course(
    job: Job, plan: TrainingPlan, tuning: RunTuning, kind: Kind, rate: float = 1.0, probe_rate: float = 1.0
) -> Course:
    """Return the course before the first round, at the network's public starting weights; linear models by the recipe begin at zero.

    `rate` is by what a server that is not the recipe's shortens its moves; `probe_rate` as `RecipeCourse` has it.
    """
    layout, cones = job.layout, cones_of(job.model, job.contract)
    if kind == "recipe" and plan.family == "linear":
        return RecipeCourse(layout, plan, tuning, Descent.start(layout.width - 1), probe_rate, cones)
    start = job.start()
    return OptimizerCourse(layout, plan, tuning, kind, ServerState.start(layout.split(start)), 0, start, rate, cones)
