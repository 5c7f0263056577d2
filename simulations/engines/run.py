"""Run one simulation with one seed on one engine, and say how good its model is."""

import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from federation.errors import DocumentError
from simulations import analysis
from simulations.engines.drive import OnRound, drive, nothing
from simulations.engines.faults import Attendance, attendance
from simulations.engines.judging import Judged, judge
from simulations.engines.simulation import Alone, Faults, FedSGD, Pooled, PooledDP, Privacy, Simulation
from simulations.engines.terms import Terms, Trained, find_terms
from simulations.engines.work import Engine, Floats, Job, Local, Rows, Work, scores
from simulations.partners.seating import Seated, seat
from simulations.partners.source import load

_REFERENCE_STEPS = 300
_REFERENCE_RATE = 0.5
_REFERENCE_MOMENTUM = 0.9
Cell = dict[str, object]


@dataclass(frozen=True)
class Result:
    """What a simulation found.

    Attributes
    ----------
    engine, seed:
        By what, and from which seed all draws and noise were made: nothing here protects anybody.
    overall:
        Figures over everybody's held-out customers, by name.
    institutions:
        The same by institution, with its name, declared size, epsilon (None for no noise), missed rounds, and whether it lies.
    warnings:
        What a reader should know before the figures.
    """

    engine: str
    seed: int
    overall: dict[str, float]
    institutions: tuple[Cell, ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class _Found:
    """Held-out logits [N], and what a training left beside them."""

    logits: Floats
    terms: Terms | None
    there: Attendance | None
    failed: int
    steps: int
    seconds: float


def run(
    simulation: Simulation, seed: int, engine: Engine, cache: Path | None = None, on_round: OnRound = nothing
) -> Result:
    """Run a simulation.

    Parameters
    ----------
    seed:
        Of partitions, draws, noise and faults.
    cache:
        Folder of fetched data sets; the default one where None.

    Raises
    ------
    DataError, DocumentError
        As data and partitions raise them; CSL-M260 and CSL-M261 when parts of the simulation do not fit together.
    """
    start = time.perf_counter()
    customers = load(simulation.data, cache)
    seats = seat(customers, simulation.partners, simulation.model, seed)
    prepared = time.perf_counter() - start
    if simulation.faults.poisoners.count >= len(seats.names):
        raise DocumentError(
            "CSL-M261",
            f"{simulation.faults.poisoners.count} poisoners among {len(seats.names)} institutions leave nobody honest.",
            "Lower faults.poisoners.count, or take more partners.",
        )
    job = Job(simulation.model, customers.contract, seats.training, seats.declared, seed)
    algorithm = simulation.algorithm
    if isinstance(algorithm, Alone | Pooled):
        found = _without_noise(engine, job, seats, isinstance(algorithm, Pooled))
    elif isinstance(algorithm, PooledDP):
        found = _together(engine, job, simulation, seats, on_round)
    else:
        found = _federated(engine, job, simulation, algorithm, seats, on_round)
    judged = judge(seats.heldout, found.logits)
    overall = judged.overall | _counts(found, simulation) | {"seconds": found.seconds, "prepare_seconds": prepared}
    return Result(
        engine=engine.name,
        seed=seed,
        overall=overall,
        institutions=_by_institution(simulation, seats, judged, found),
        warnings=_warnings(judged, found),
    )


def _federated(
    engine: Engine, job: Job, simulation: Simulation, algorithm: Trained, seats: Seated, on: OnRound
) -> _Found:
    width = job.layout.width
    terms = find_terms(simulation, algorithm, seats.declared, seats.delta, width)
    there = attendance(simulation.faults, len(seats.names), terms.plan.rounds, job.seed)
    if simulation.faults.poisoners.attack == "labels":
        job = replace(job, rows=_swapped(job.rows, there))
    start = time.perf_counter()
    trail = drive(engine, job, simulation, algorithm, terms, there, on)
    seconds = time.perf_counter() - start
    if trail.own is None:
        logits = scores(job, trail.model, seats.heldout)
    else:
        parts = [scores(job, own, seats.heldout.of(place)) for place, own in enumerate(trail.own)]
        logits = np.concatenate(parts)
    return _Found(logits, terms, there, trail.failed, trail.steps, seconds)


def _swapped(rows: Rows, there: Attendance) -> Rows:
    """Return the rows with the labels of those who lie swapped."""
    sizes = np.diff(rows.offsets)
    lies = torch.from_numpy(np.repeat(there.poisoner, sizes))
    return replace(rows, labels=torch.where(lies, 1.0 - rows.labels, rows.labels))


def _together(engine: Engine, job: Job, simulation: Simulation, seats: Seated, on: OnRound) -> _Found:
    """Train on everybody's records in one place, with the strictest of the budgets and the smallest delta."""
    budgets = [simulation.privacy.of(place) for place in range(len(seats.names))]
    strictest = None if None in budgets else min(budget for budget in budgets if budget is not None)
    one = simulation.model_copy(
        update={
            "algorithm": FedSGD(),
            "privacy": Privacy(epsilon=strictest),
            "faults": Faults(),
            "personal": None,
        }
    )
    declared = np.array([int(seats.declared.sum())])
    whole = replace(job, rows=job.rows.together(), declared=declared)
    terms = find_terms(one, FedSGD(), declared, np.array([seats.delta.min()]), job.layout.width)
    there = attendance(Faults(), 1, terms.plan.rounds, job.seed)
    start = time.perf_counter()
    trail = drive(engine, whole, one, FedSGD(), terms, there, on)
    return _Found(scores(job, trail.model, seats.heldout), terms, None, 0, trail.steps, time.perf_counter() - start)


def _without_noise(engine: Engine, job: Job, seats: Seated, pooled: bool) -> _Found:
    """Train each institution's own model, or one on all records, without noise: ridge-penalised regression, or full steps of an mlp."""
    rows, start = job.rows.together() if pooled else job.rows, time.perf_counter()
    heldout = seats.heldout.together() if pooled else seats.heldout
    if job.model.kind == "mlp":
        declared = np.diff(rows.offsets)
        found = _full_steps(engine, replace(job, rows=rows, declared=declared), heldout)
    else:
        found = np.concatenate([_fitted(rows.of(place), heldout.of(place)) for place in range(rows.institutions)])
    return _Found(found, None, None, 0, 0, time.perf_counter() - start)


def _fitted(rows: Rows, heldout: Rows) -> Floats:
    """Return held-out logits by logistic regression (C = 1); the base rate's where there is one class only."""
    labels = rows.labels.numpy().astype(np.float64)
    if labels.min() == labels.max():
        rate = (labels.sum() + 0.5) / (len(labels) + 1.0)
        return np.full(len(heldout), np.log(rate / (1.0 - rate)))
    model = analysis.fit_rows(rows.dense.numpy(), labels)
    return analysis.logits(model, heldout.dense.numpy())


def _full_steps(engine: Engine, job: Job, heldout: Rows) -> Floats:
    count = job.rows.institutions
    work = Work(
        number=0,
        weights=job.start(),
        clip=np.ones(count),
        noise=np.zeros(count),
        present=np.ones(count, dtype=np.bool_),
        rate=1.0,
        local=Local(_REFERENCE_STEPS, _REFERENCE_RATE, momentum=_REFERENCE_MOMENTUM, tail=False, full=True),
    )
    with engine.open(job) as session:
        own = job.start() + session.releases(work)
    return np.concatenate([scores(job, weights, heldout.of(place)) for place, weights in enumerate(own)])


def _counts(found: _Found, simulation: Simulation) -> dict[str, float]:
    if found.terms is None:
        return {"rounds": 0.0, "rounds_failed": 0.0, "client_steps": 0.0, "duration": 0.0, "epsilon_max": float("nan")}
    epsilon = simulation.privacy.epsilon
    largest = max(epsilon) if isinstance(epsilon, tuple) else epsilon
    rounds = found.terms.plan.rounds
    return {
        "rounds": float(rounds),
        "rounds_failed": float(found.failed),
        "client_steps": float(found.steps),
        "duration": float(rounds if found.there is None else found.there.duration.sum()),
        "epsilon_max": float("nan") if largest is None else largest,
    }


def _by_institution(simulation: Simulation, seats: Seated, judged: Judged, found: _Found) -> tuple[Cell, ...]:
    there = found.there
    rows: list[Cell] = []
    for place, (name, figures) in enumerate(zip(seats.names, judged.by_institution, strict=True)):
        own: Cell = {
            "name": name,
            "declared": int(seats.declared[place]),
            "epsilon": simulation.privacy.of(place) if found.terms is not None else None,
            "missed": 0 if there is None else int((~there.present[:, place]).sum()),
            "poisoner": False if there is None else bool(there.poisoner[place]),
        }
        rows.append(own | {"lift": figures["lift_10"]} | figures)
    return tuple(rows)


def _warnings(judged: Judged, found: _Found) -> tuple[str, ...]:
    said = []
    blind = sum(np.isnan(part["auc"]) for part in judged.by_institution)
    if blind:
        said.append(f"{blind} institutions hold out one class only: they have no AUC of their own.")
    if found.failed:
        said.append(f"{found.failed} rounds failed for want of answers; everybody paid for them.")
    return tuple(said)
