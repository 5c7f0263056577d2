"""What shared noise is worth: one study run six ways on the same customers, with the same budget for everybody.

The customers of a trial are dealt out at random to institutions of equal size, so that nothing but the noise tells the ways apart:

- `alone`: each institution trains a private model of its own; the figure is the mean over them.
- `fedavg`, `local`: federated (`local` by `fedsgd`); each institution adds all the noise that its customers need.
- `shared`: `fedsgd` by secure sums; the institutions together add the noise that a customer needs, and some more, since some may drop out
  and up to `COLLUDERS` may collude. Vectors are quantised and the noise is discrete, as in the product.
- `central`: everybody's records in one place, trained with the same budget. It needs one party that everybody trusts.
- `louder`: central again, with as much noise as the shared way: what shared loses to it, the noise did not take.

The plain ways run by `simulations.quality`. Of secure aggregation only masks, signatures and messages are left out: they change no number,
since the sum that is opened is the sum of the vectors, exactly. Draws and noise are seeded: nothing here is a private run.
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from client.cohort import Cohort
from client.pricing import price_study
from client.training import clipped_sum
from federation.charter import Declaration
from federation.contract import CategoricalColumn, FeatureContract
from federation.messages import Grant
from federation.networks import LinearNetwork, Network, load_weights
from federation.study import SecurePlan, StudySpec, Training
from federation.vectors import flatten, unflatten
from privacy.decision import Terms
from privacy.secure_aggregation.quantisation import bound_for, quantise, width_for
from server.course import LinearCourse, start_course
from server.pooling import MemberPool, PooledTuning
from simulations import analysis
from simulations.quality import Desk, Mode, Party, Run, Trial, federate, plain, prepare, two_digits
from simulations.seeded import SeededSource

Way = Literal["alone", "fedavg", "local", "shared", "louder", "central"]
Weights = dict[str, NDArray[np.float32]]

WAYS: tuple[Way, ...] = ("alone", "fedavg", "local", "shared", "louder", "central")
COLLUDERS = 1
SHARE = 16_384.0
"""Every member's noise in grid units, as studies are planned."""

_EVERYBODY = "everybody"
_ALONE = "alone"
_NOWHERE = "0" * 64


@dataclass(frozen=True)
class SharedRun:
    """A study by secure sums before its first round: what each institution grants (all the same, but for the name), and the course."""

    network: LinearNetwork
    training: Training
    secure: SecurePlan
    grant: Grant
    course: LinearCourse

    @property
    def pooled(self) -> PooledTuning:
        """Clips, weights and scales."""
        pooled = self.course.terms.pooled
        assert pooled is not None
        return pooled


@dataclass(frozen=True)
class Question:
    """One number of institutions and one budget: how each way runs, whatever the seed."""

    alone: Run
    fedavg: Run
    local: Run
    shared: SharedRun
    louder: Run
    central: Run


def gather(trial: Trial) -> Trial:
    """Return the trial with everybody's customers at one party, called `everybody`, and a plain study: each way says how it adds up.

    A column that only some institutions have is missing for the customers of the others.
    """
    training = _together([party.training for party in trial.parties], trial.contract)
    heldout = _together([party.heldout for party in trial.parties], trial.contract)
    return replace(trial, draft=plain(trial.draft), parties=(_party(_EVERYBODY, training, heldout),))


def deal(whole: Trial, members: int, seed: str) -> Trial:
    """Deal the customers of a gathered trial out at random, training and held-out alike, to `members` institutions of equal size.

    All declare the same size, rounded to two digits, and have delta = 1 / (100 x declared).
    """
    (everybody,) = whole.parties
    draw = np.random.default_rng(int.from_bytes(hashlib.sha256(f"deal/{whole.name}/{seed}".encode()).digest(), "big"))
    learning = np.array_split(draw.permutation(len(everybody.training)), members)
    heldout = np.array_split(draw.permutation(len(everybody.heldout)), members)
    declared = two_digits(len(everybody.training) / members)
    parties = tuple(
        replace(
            _party(f"house_{place:02d}", everybody.training.take(mine), everybody.heldout.take(judged)),
            declared=declared,
            delta=_delta(declared),
        )
        for place, (mine, judged) in enumerate(zip(learning, heldout, strict=True))
    )
    return replace(whole, parties=parties)


def _party(member: str, training: Cohort, heldout: Cohort) -> Party:
    declared = two_digits(len(training))
    return Party(member, declared, _delta(declared), training, heldout)


def _delta(declared: int) -> float:
    return 1.0 / (100.0 * declared)


def _together(cohorts: Sequence[Cohort], contract: FeatureContract) -> Cohort:
    ids = np.concatenate([np.array([f"{place}/{name}" for name in c.ids], object) for place, c in enumerate(cohorts)])
    columns = {}
    for column in contract.columns:
        missing: float = -1 if isinstance(column, CategoricalColumn) else math.nan
        parts = [cohort.columns.get(column.name, np.full(len(cohort), missing)) for cohort in cohorts]
        columns[column.name] = np.concatenate(parts).astype(np.int64 if missing == -1 else np.float64)
    labels = [cohort.label for cohort in cohorts if cohort.label is not None]
    return Cohort(ids=ids, columns=columns, label=np.concatenate(labels))


def threshold(members: int) -> int:
    """Return how many members a sum is opened over at least: four fifths of them, and never fewer than `COLLUDERS` + 3."""
    return max(COLLUDERS + 3, -(-4 * members // 5))


def ask(whole: Trial, members: int, epsilon: float) -> Question:
    """Plan every way for one number of institutions and one budget.

    Parameters
    ----------
    whole:
        As `gather` returns it.
    members:
        At least 4.
    epsilon:
        Everybody's budget, above 0. Central training has it too, at the institutions' delta: its own would be smaller.
    """
    dealt = deal(whole, members, "plan")
    first = dealt.parties[0]
    alone = replace(dealt, parties=(replace(first, member=_ALONE),))
    central = replace(whole, parties=(replace(whole.parties[0], delta=first.delta),))
    local, together = _plain(dealt, "fedsgd", epsilon), _plain(central, "fedsgd", epsilon)
    shared = _shared(dealt, local, epsilon)
    return Question(
        alone=_plain(alone, "fedsgd", epsilon),
        fedavg=_plain(dealt, "fedavg", epsilon),
        local=local,
        shared=shared,
        louder=_with_noise(together, shared.course.terms.tuning.noise),
        central=together,
    )


def _plain(trial: Trial, mode: Mode, epsilon: float) -> Run:
    return prepare(trial, "additive", mode, epsilon)


def _with_noise(run: Run, noise: float) -> Run:
    """Return a run whose mean gradients in the descent have noise of standard deviation `noise`, and which expects it."""
    terms = run.course.terms
    factor = noise / terms.tuning.noise
    tuning = replace(terms.tuning, noise=noise, probe_noise=terms.tuning.probe_noise * factor)
    course = replace(run.course, terms=replace(terms, tuning=tuning))
    return replace(run, noise={member: factor * sigma for member, sigma in run.noise.items()}, course=course)


def _shared(trial: Trial, local: Run, epsilon: float) -> SharedRun:
    spec, secure = _secure_spec(trial, local.training, epsilon)
    # All declare the same, so that one price is everybody's.
    grant = _price(spec, trial, trial.parties[0], epsilon)
    grants = {party.member: grant.model_copy(update={"member": party.member}) for party in trial.parties}
    course = start_course(spec, grants, trial.contract)
    assert isinstance(course, LinearCourse) and isinstance(local.network, LinearNetwork)
    return SharedRun(local.network, local.training, secure, grant, course)


def _secure_spec(trial: Trial, training: Training, epsilon: float) -> tuple[StudySpec, SecurePlan]:
    n_min = threshold(len(trial.parties))
    secure = SecurePlan(noise="shared", n_min=n_min, c=COLLUDERS, share=SHARE)
    asked = {"aggregation": "secure", "noise": "shared", "n_min": n_min, "c": COLLUDERS, "epsilon": epsilon}
    spec = StudySpec(
        draft=trial.draft.model_copy(update=asked),
        federation="quality",
        charter=_NOWHERE,
        contract_digest=trial.contract.digest(),
        training=training,
        nonce=_NOWHERE[:32],
        secure=secure,
    )
    return spec, secure


def _price(spec: StudySpec, trial: Trial, party: Party, epsilon: float) -> Grant:
    """Price the study as this institution's vault does."""
    terms = Terms(
        policy=_NOWHERE,
        epsilon=epsilon,
        delta=party.delta,
        purpose=trial.draft.purpose,
        consent="consent",
        contract=trial.contract.name,
        holdout=trial.draft.holdout,
        declared_size=party.declared,
        secure=spec.secure,
    )
    declaration = Declaration(contract=trial.contract.name, size=party.declared)
    return price_study(spec, party.member, declaration, terms, trial.contract)


def federate_shared(desks: Sequence[Desk], run: SharedRun, seed: str) -> Weights:
    """Run every round by secure sums and return the model's tensors; nobody drops out."""
    vaults = {desk.party.member: _Vault(desk, SeededSource(f"{seed}/{desk.party.member}")) for desk in desks}
    course = run.course
    for _ in range(run.training.rounds):
        pool, sent = course.pool(run.pooled), course.broadcast()
        total = np.sum([vault.vector(sent, pool, run) for vault in vaults.values()], axis=0)
        mean = pool.mean(total, vaults.keys(), course.terms.expected)
        course = course.moved(unflatten(mean, {name: array.shape for name, array in sent.items()}))
    return course.model()


class _Vault:
    """One institution: fresh draws and noise from a source of its own."""

    def __init__(self, desk: Desk, source: SeededSource) -> None:
        self._desk, self._source = desk, source

    def vector(self, sent: Weights, pool: MemberPool, run: SharedRun) -> NDArray[np.int64]:
        """Return a round's vector before it is masked, int64 [d]: the clipped sum over a fresh draw on the grid, and the noise."""
        share, member, members = run.secure.share, self._desk.party.member, len(pool.clips)
        load_weights(run.network, sent)
        sums = clipped_sum(
            run.network,
            self._desk.training,
            self._desk.training_labels,
            clip=pool.clips[member],
            sampling_rate=run.training.sampling_rate,
            source=self._source,
        )
        x_max = bound_for(width_for(members, pool.x_max, share), members, share)
        weighted = pool.weights[member] * flatten(sums)
        return quantise(weighted, scale=pool.scale, x_max=x_max, share=share, source=self._source)


def auc_of(network: Network, weights: Weights, desks: Sequence[Desk]) -> float:
    """Return the exact AUC of one model on everybody's held-out customers together."""
    load_weights(network, weights)
    with torch.no_grad():
        scores = [network(desk.heldout.dense, desk.heldout.codes).numpy() for desk in desks]
    return analysis.auc(np.concatenate([desk.heldout_labels for desk in desks]), np.concatenate(scores))


def answer(question: Question, way: Way, desks: Sequence[Desk], everybody: Sequence[Desk], seed: str) -> float:
    """Run one way once, and return its AUC on everybody's held-out customers.

    Parameters
    ----------
    desks, everybody:
        The customers as they were dealt, and as they were gathered, each at its desk (`simulations.quality.seat`).
    """
    mark = f"{seed}/{way}"
    if way == "shared":
        shared = question.shared
        return auc_of(shared.network, federate_shared(desks, shared, mark), desks)
    if way == "alone":
        return _alone(question.alone, desks, mark)
    plain = {"fedavg": question.fedavg, "local": question.local, "louder": question.louder, "central": question.central}
    run, seats = plain[way], everybody if way in ("louder", "central") else desks
    return auc_of(run.network, federate(seats, run, mark), seats)


def _alone(run: Run, desks: Sequence[Desk], mark: str) -> float:
    """Mean over institutions of the AUC of each one's own model, on everybody's held-out customers."""
    found = []
    for desk in desks:
        own = replace(desk, party=replace(desk.party, member=_ALONE))
        found.append(auc_of(run.network, federate([own], run, f"{mark}/{desk.party.member}"), desks))
    return float(np.mean(found))


def ceiling(everybody: Sequence[Desk]) -> float:
    """Return the AUC of logistic regression (C = 1) on everybody's records, without privacy."""
    truths = [desk.truth() for desk in everybody]
    model = analysis.fit(truths)
    scores = [analysis.logits(model, truth.heldout) for truth in truths]
    return analysis.auc(np.concatenate([truth.heldout_labels for truth in truths]), np.concatenate(scores))
