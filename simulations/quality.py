"""How good a federated model is beside what nobody may train: federated runs by the product's own steps, and their references.

A trial plays all parties in one process: each institution's releases come from `client.training`, the coordinator's
steps from `server.course`, and the noise from the declared sizes and `privacy.accounting`. Only transport, signatures and
ledgers are left out, none of which changes a number. Draws and noise are seeded, so that a figure can be repeated:
nothing here is a private run.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from client.cohort import Cohort
from client.training import gradient_sum, local_steps
from federation.contract import FeatureContract
from federation.messages import Grant
from federation.networks import Inputs, Network, build, encode, load_weights
from federation.study import AdditiveModel, LogisticModel, Model, StudyDraft, StudySpec, Training
from privacy.accounting import calibrate_noise
from server.course import LinearCourse, start_course
from server.derivation import derive_training
from server.recipe import PROBES, plan_training
from simulations import analysis
from simulations.analysis import Floats, Truth
from simulations.seeded import SeededSource

Kind = Literal["additive", "logistic"]
Mode = Literal["fedsgd", "fedavg"]

KINDS: tuple[Kind, ...] = ("additive", "logistic")
MODES: tuple[Mode, ...] = ("fedsgd", "fedavg")
_MODELS: dict[Kind, Model] = {"additive": AdditiveModel(), "logistic": LogisticModel(kind="logistic")}

# A grant always has noise. Where a run without privacy is asked for, the coordinator is told of this much, and none is added.
_NEXT_TO_NOTHING = 1e-9
_LARGEST_EPSILON = 100.0
_NOWHERE = "0" * 64


@dataclass(frozen=True)
class Party:
    """One institution: its member id, public declared size and delta, and its customers to train on and held out."""

    member: str
    declared: int
    delta: float
    training: Cohort
    heldout: Cohort


@dataclass(frozen=True)
class Trial:
    """A data set split into institutions, with the study and the contract that they would agree on."""

    name: str
    title: str
    draft: StudyDraft
    contract: FeatureContract
    parties: tuple[Party, ...]


@dataclass(frozen=True, eq=False)
class Desk:
    """One institution's customers as a network reads them, with labels float64 [n]."""

    party: Party
    training: Inputs
    training_labels: Floats
    heldout: Inputs
    heldout_labels: Floats

    def truth(self) -> Truth:
        """Return the same customers as the references read them."""
        return Truth(
            self.training.dense.numpy(),
            self.training_labels,
            self.heldout.dense.numpy(),
            self.heldout_labels,
            self.party.heldout,
        )


@dataclass(frozen=True)
class Run:
    """A federated run before its first round: the plan, each member's noise multiplier (0 for none), and the course."""

    network: Network
    training: Training
    noise: Mapping[str, float]
    course: LinearCourse


def seat(trial: Trial, kind: Kind) -> list[Desk]:
    """Encode every institution's customers for one kind of model."""
    model, contract = _MODELS[kind], trial.contract
    desks = []
    for party in trial.parties:
        learning, heldout = party.training, party.heldout
        assert learning.label is not None and heldout.label is not None
        inputs, outputs = encode(model, contract, learning.columns), encode(model, contract, heldout.columns)
        desks.append(Desk(party, inputs, learning.label, outputs, heldout.label))
    return desks


def plain(draft: StudyDraft) -> StudyDraft:
    """Return a draft whose releases are seen one by one, each with noise of its own."""
    return draft.model_copy(update={"aggregation": "plain", "noise": "local", "n_min": None, "c": None})


def prepare(
    trial: Trial, kind: Kind, mode: Mode, epsilon: float | None, *, descent: int | None = None, stride: float = 1.0
) -> Run:
    """Plan a run as the coordinator does, and find each institution's noise as its vault does.

    Parameters
    ----------
    epsilon:
        Every institution's budget for training; None for no privacy.
    descent:
        Rounds that move the weights, instead of the rule's number; for looking at what else could have been chosen.
    stride:
        Factor on the step that the rule finds as long as noise decides it, by telling it of that much less noise.
    """
    draft = plain(trial.draft).model_copy(update={"model": _MODELS[kind], "mode": mode, "epsilon": epsilon})
    sizes = {party.member: party.declared for party in trial.parties}
    training = derive_training(draft, sizes, trial.contract)
    local = training.steps // training.rounds
    if epsilon is None:
        width = sum(tensor.numel() for tensor in build(draft.model, trial.contract).parameters()) - 1
        training = _of_length(training, plan_training(list(sizes.values()), None, width, mode).rounds, local)
    elif descent is not None:
        training = _of_length(training, descent + PROBES, local)
    spec = StudySpec(
        draft=draft,
        federation="quality",
        charter=_NOWHERE,
        contract_digest=trial.contract.digest(),
        training=training,
        nonce=_NOWHERE[:32],
    )
    noise = {party.member: _noise(party, training, epsilon) for party in trial.parties}
    grants = {party.member: _grant(spec, party, epsilon, noise[party.member]) for party in trial.parties}
    course = start_course(spec, grants, trial.contract)
    assert isinstance(course, LinearCourse)
    tuning = replace(course.terms.tuning, noise=course.terms.tuning.noise / stride)
    course = replace(course, terms=replace(course.terms, tuning=tuning))
    return Run(build(draft.model, trial.contract), training, noise, course)


def _of_length(training: Training, rounds: int, local: int) -> Training:
    return training.model_copy(update={"rounds": rounds, "steps": rounds * local})


def _noise(party: Party, training: Training, epsilon: float | None) -> float:
    if epsilon is None:
        return 0.0
    return calibrate_noise(epsilon, party.delta, training.sampling_rate, training.steps)


def _grant(spec: StudySpec, party: Party, epsilon: float | None, noise: float) -> Grant:
    return Grant(
        study=spec.digest(),
        member=party.member,
        declared_size=party.declared,
        epsilon=epsilon or _LARGEST_EPSILON,
        delta=party.delta,
        noise_multiplier=noise or _NEXT_TO_NOTHING,
        sampling_rate=spec.training.sampling_rate,
        steps=spec.training.steps,
        histogram_sigma=1.0,
    )


def federate(desks: Sequence[Desk], run: Run, seed: str) -> dict[str, NDArray[np.float32]]:
    """Run every round and return the model's tensors; each institution draws from a seeded source of its own."""
    sources = {desk.party.member: SeededSource(f"{seed}/{desk.party.member}") for desk in desks}
    course: LinearCourse = run.course
    for _ in range(run.training.rounds):
        weights, clips = course.broadcast(), course.clips()
        releases = {}
        for desk in desks:
            load_weights(run.network, weights)
            member = desk.party.member
            releases[member] = _release(desk, run, clips[member], sources[member])
        course = course.after(releases)
    return course.model()


def _release(desk: Desk, run: Run, clip: float, source: SeededSource) -> dict[str, NDArray[np.float32]]:
    training, noise = run.training, run.noise[desk.party.member]
    if training.mode == "fedsgd":
        return gradient_sum(
            run.network,
            desk.training,
            desk.training_labels,
            clip=clip,
            noise_multiplier=noise,
            sampling_rate=training.sampling_rate,
            source=source,
        )
    return local_steps(
        run.network,
        desk.training,
        desk.training_labels,
        clip=clip,
        noise_multiplier=noise,
        sampling_rate=training.sampling_rate,
        steps=training.steps // training.rounds,
        declared_size=desk.party.declared,
        learning_rate=run.course.terms.tuning.local_learning_rate,
        momentum=0.0,
        source=source,
    )


def federated_aucs(desks: Sequence[Desk], run: Run, seed: str) -> list[float]:
    """Run once and return the exact AUC of each institution's held-out customers, in the order of `desks`."""
    load_weights(run.network, federate(desks, run, seed))
    with torch.no_grad():
        scores = [run.network(desk.heldout.dense, desk.heldout.codes).numpy() for desk in desks]
    return [analysis.auc(desk.heldout_labels, score) for desk, score in zip(desks, scores, strict=True)]


def pooled_aucs(desks: Sequence[Desk]) -> list[float]:
    """Return each institution's AUC under logistic regression (C = 1, no privacy) on everybody's records together."""
    truths = [desk.truth() for desk in desks]
    model = analysis.fit(truths)
    return [analysis.auc(truth.heldout_labels, analysis.logits(model, truth.heldout)) for truth in truths]


def alone_aucs(desks: Sequence[Desk]) -> list[float]:
    """Return each institution's AUC under logistic regression (C = 1, no privacy) on its own records."""
    truths = [desk.truth() for desk in desks]
    return [
        analysis.auc(truth.heldout_labels, analysis.logits(analysis.fit([truth]), truth.heldout)) for truth in truths
    ]


def two_digits(size: float) -> int:
    """Return a size as an institution would publish it: rounded to two significant digits."""
    return int(float(f"{size:.1e}"))
