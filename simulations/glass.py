"""Federated runs of any linear model that a study may name, monotone curves and pairs among them: `simulations.quality` knows kinds."""

from federation.messages import Grant
from federation.networks import build, encode
from federation.study import AdditiveModel, LogisticModel, StudySpec
from privacy.accounting import calibrate_noise
from server.course import LinearCourse, start_course
from server.derivation import derive_training
from simulations.quality import Desk, Run, Trial, plain

_NOWHERE = "0" * 64


def seat(trial: Trial, model: AdditiveModel | LogisticModel) -> list[Desk]:
    """Encode every institution's customers for one model."""
    desks = []
    for party in trial.parties:
        learning, heldout = party.training, party.heldout
        assert learning.label is not None and heldout.label is not None
        inputs, outputs = (encode(model, trial.contract, cohort.columns) for cohort in (learning, heldout))
        desks.append(Desk(party, inputs, learning.label, outputs, heldout.label))
    return desks


def prepare(trial: Trial, model: AdditiveModel | LogisticModel, epsilon: float) -> Run:
    """Plan a `fedsgd` run as the coordinator does, with every institution's noise for this epsilon at its delta."""
    draft = plain(trial.draft).model_copy(update={"model": model, "mode": "fedsgd", "epsilon": epsilon})
    sizes = {party.member: party.declared for party in trial.parties}
    training = derive_training(draft, sizes, trial.contract)
    spec = StudySpec(
        draft=draft,
        federation="glass",
        charter=_NOWHERE,
        contract_digest=trial.contract.digest(),
        training=training,
        nonce=_NOWHERE[:32],
    )
    noise = {
        party.member: calibrate_noise(epsilon, party.delta, training.sampling_rate, training.steps)
        for party in trial.parties
    }
    grants = {
        party.member: Grant(
            study=spec.digest(),
            member=party.member,
            declared_size=party.declared,
            epsilon=epsilon,
            delta=party.delta,
            noise_multiplier=noise[party.member],
            sampling_rate=training.sampling_rate,
            steps=training.steps,
            histogram_sigma=1.0,
        )
        for party in trial.parties
    }
    course = start_course(spec, grants, trial.contract)
    assert isinstance(course, LinearCourse)
    return Run(build(model, trial.contract), training, noise, course)
