"""How a study's weights move from round to round: the recipe's descent for linear models, or a server optimizer.

A course is a frozen value: what one round leads to, the next begins with, and a checkpoint keeps. Everything it uses is public or
was released by the vaults.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from federation.basis import ROW_NORM
from federation.contract import FeatureContract
from federation.messages import Grant
from federation.networks import build, weights_of
from federation.study import AdditiveModel, StudySpec
from server.derivation import family_of
from server.descent import Descent, gradient_of_change
from server.monotone import Cone, cones_of, held
from server.optimizer import ServerState, Weights, mean_change, mean_gradient, step
from server.pooling import MemberPool, PooledTuning, tune_pooled
from server.recipe import PROBES, RunTuning, TrainingPlan, tune

Tensors32 = dict[str, NDArray[np.float32]]
Releases = Mapping[str, Mapping[str, NDArray[Any]]]

# One over the largest curvature of the logistic loss on rows of norm up to ROW_NORM beside an intercept of 1: no data make it diverge.
_SAFE_STEP = 4.0 / (ROW_NORM**2 + 1.0)


@dataclass(frozen=True)
class Terms:
    """The public numbers that all rounds share; clips and weights by member, `expected` is q times the declared size.

    `pooled` is there where vectors are added up in secret.
    """

    plan: TrainingPlan
    tuning: RunTuning
    clips: Mapping[str, float]
    probe_clips: Mapping[str, float]
    weights: Mapping[str, float]
    expected: Mapping[str, float]
    pooled: PooledTuning | None = None

    @classmethod
    def of(cls, spec: StudySpec, grants: Mapping[str, Grant]) -> Self:
        """Derive them from the spec and what was granted."""
        members, training, family = sorted(grants), spec.training, family_of(spec.draft.model)
        plan = TrainingPlan(
            mode=training.mode,
            family=family,
            rounds=training.rounds,
            steps=training.steps,
            sampling_rate=training.sampling_rate,
            local_steps=training.steps // training.rounds,
            probes=0 if family == "mlp" else PROBES,
        )
        sizes = [grants[member].declared_size for member in members]
        pooled = _pooled(spec, plan, sizes, [grants[member] for member in members])
        if pooled is None:
            tuning = tune(plan, sizes, [grants[member].noise_multiplier for member in members])
        else:
            tuning = pooled.tuning
        return cls(
            plan=plan,
            tuning=tuning,
            clips=dict(zip(members, tuning.clips, strict=True)),
            probe_clips=dict(zip(members, tuning.probe_clips, strict=True)),
            weights=dict(zip(members, tuning.weights, strict=True)),
            expected={member: training.sampling_rate * size for member, size in zip(members, sizes, strict=True)},
            pooled=pooled,
        )

    def gradient(self, releases: Releases) -> Weights:
        """Return the weighted mean gradient that the releases of those who answered stand for."""
        if self.plan.mode == "fedsgd":
            return mean_gradient(releases, self.weights, self.expected)
        return gradient_of_change(mean_change(releases, self.weights), self.plan, self.tuning)


class Course(Protocol):
    """Where a study's weights are, and how the next round's releases move them."""

    @property
    def terms(self) -> Terms:
        """The public numbers of all rounds."""
        ...

    @property
    def averaged(self) -> int:
        """Rounds in the tail average."""
        ...

    def clips(self) -> Mapping[str, float]:
        """Return the clips of the next round, by member."""
        ...

    def broadcast(self) -> Tensors32:
        """Return the weights that the next round starts from."""
        ...

    def after(self, releases: Releases) -> "Course":
        """Return the course after a round; releases by member and tensor name, each already checked."""
        ...

    def model(self) -> Tensors32:
        """Return the study's model: the average of the last rounds."""
        ...

    def tensors(self) -> Weights:
        """Return what a checkpoint keeps."""
        ...


@dataclass(frozen=True)
class LinearCourse:
    """The recipe for `additive` and `logistic`: two probes, a start, and a descent in centred coordinates."""

    terms: Terms
    state: Descent
    cones: tuple[Cone, ...] = ()

    @property
    def averaged(self) -> int:
        """Rounds in the tail average."""
        return self.state.averaged

    def clips(self) -> Mapping[str, float]:
        """Return the clips of the next round; probes are not clipped by these."""
        return self.terms.probe_clips if self.state.round < self.terms.plan.probes else self.terms.clips

    def broadcast(self) -> Tensors32:
        """Return the weights that the next round starts from."""
        return self.state.broadcast(self.terms.tuning)

    def after(self, releases: Releases) -> "LinearCourse":
        """Return the course after a round."""
        return self.moved(self.terms.gradient(releases))

    def moved(self, gradient: Weights) -> "LinearCourse":
        """Return the course after a round with this mean gradient."""
        terms = self.terms
        return replace(self, state=self.state.after(gradient, terms.plan, terms.tuning))

    def pool(self, pooled: PooledTuning) -> MemberPool:
        """Return what the next round's sum is asked for by, where vectors are added up in secret."""
        pool = pooled.probe if self.state.round < self.terms.plan.probes else pooled.descent
        return MemberPool.of(pool, sorted(self.terms.expected))

    def model(self) -> Tensors32:
        """Return the average of the last rounds, with curves held monotone where the study says so."""
        found = self.state.model(self.terms.tuning)
        if not self.cones:
            return found
        probed = self.state.round >= self.terms.plan.probes
        return held(found, self.cones, self.state.moments(self.terms.tuning).mean if probed else None)

    def tensors(self) -> Weights:
        """Return what a checkpoint keeps."""
        return self.state.tensors()


@dataclass(frozen=True)
class GeneralCourse:
    """An mlp by the recipe's step, or any model by `fedavgm` or `fedadam`; `round` rounds are done."""

    spec: StudySpec
    terms: Terms
    state: ServerState
    round: int
    cones: tuple[Cone, ...] = ()

    @property
    def averaged(self) -> int:
        """Rounds in the tail average."""
        return self.state.averaged

    def clips(self) -> Mapping[str, float]:
        """Return the clips of the next round."""
        return self.terms.clips

    def broadcast(self) -> Tensors32:
        """Return the weights that the next round starts from."""
        return self.state.broadcast()

    def after(self, releases: Releases) -> "GeneralCourse":
        """Return the course after a round."""
        done, tuning = self.round + 1, self.terms.tuning
        average = done >= tuning.average_from
        moved = step(self.state, self._change(releases), self.spec.training.server_optimizer, tuning.momentum, average)
        return replace(self, state=moved, round=done)

    def _change(self, releases: Releases) -> Weights:
        """Return the change that a round asks for: FedAvgM and FedAdam take a `fedavg` round's mean change as it is."""
        terms = self.terms
        if terms.plan.mode == "fedavg" and self.spec.training.server_optimizer != "recipe":
            return mean_change(releases, terms.weights)
        length = terms.tuning.learning_rate or _SAFE_STEP
        return {name: -length * value for name, value in terms.gradient(releases).items()}

    def model(self) -> Tensors32:
        """Return the average of the last rounds, with curves held monotone where the study says so."""
        found = self.state.model()
        return held(found, self.cones, None) if self.cones else found

    def tensors(self) -> Weights:
        """Return what a checkpoint keeps."""
        return self.state.tensors()


def start_course(spec: StudySpec, grants: Mapping[str, Grant], contract: FeatureContract) -> Course:
    """Return the course before the first round, at the network's public starting weights."""
    terms = Terms.of(spec, grants)
    weights = weights_of(build(spec.draft.model, contract))
    cones = cones_of(spec.draft.model, contract)
    if _by_recipe(spec):
        return LinearCourse(terms, Descent.start(weights["linear.weight"].size), cones)
    return GeneralCourse(spec, terms, ServerState.start(weights), 0, cones)


def restore_course(
    spec: StudySpec,
    grants: Mapping[str, Grant],
    tensors: Mapping[str, NDArray[np.float64]],
    done: int,
    averaged: int,
    contract: FeatureContract | None = None,
) -> Course:
    """Return the course that a checkpoint holds after `done` rounds; KeyError where a tensor is missing.

    Parameters
    ----------
    contract:
        The study's; ValueError where it is not given and the model is to be monotone, since its columns say where.
    """
    terms, model = Terms.of(spec, grants), spec.draft.model
    if contract is None and isinstance(model, AdditiveModel) and model.monotone:
        raise ValueError("a course with monotone curves needs its contract")
    cones = () if contract is None else cones_of(model, contract)
    if _by_recipe(spec):
        return LinearCourse(terms, Descent.from_tensors(tensors, done, averaged), cones)
    return GeneralCourse(spec, terms, ServerState.from_tensors(tensors, averaged), done, cones)


def _pooled(spec: StudySpec, plan: TrainingPlan, sizes: Sequence[int], grants: Sequence[Grant]) -> PooledTuning | None:
    """Return the tuning of a study whose vectors are added up in secret; None for any other."""
    if spec.secure is None:
        return None
    granted = [grant.secure for grant in grants if grant.secure is not None]
    return tune_pooled(plan, sizes, granted, spec.secure.share)


def _by_recipe(spec: StudySpec) -> bool:
    return spec.training.server_optimizer == "recipe" and family_of(spec.draft.model) == "linear"
