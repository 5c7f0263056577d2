"""Run one simulation with one seed on one engine, and say how good its model is."""

import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from federation.errors import DocumentError
from simulations import analysis
from simulations.engines.draws import PARTITION, stream
from simulations.engines.drive import OnRound, drive, nothing
from simulations.engines.faults import Attendance, attendance
from simulations.engines.judging import Judged, judge, log_loss
from simulations.engines.simulation import Alone, Faults, Pooled, PooledDP, Simulation
from simulations.engines.terms import Terms, Trained, find_terms, rule_rounds
from simulations.engines.work import Engine, Floats, Integers, Job, Local, Rows, Work, scores
from simulations.partners.seating import Seated, seat
from simulations.partners.source import load

_REFERENCE_STEPS = (20, 50, 100, 200, 300)
_REFERENCE_RATE = 0.5
_REFERENCE_MOMENTUM = 0.9
_INNER = 9  # a stream beside those of `simulations.partners.seating`
_INNER_SHARE = 0.2
_FEW = 0.5
_FEW_DESCENTS = 10
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
    """Held-out logits [N], NaN without a model, and what a training left beside them; `learned` rounds moved the weights."""

    logits: Floats
    terms: Terms | None
    there: Attendance | None
    failed: int
    steps: int
    seconds: float
    learned: int = 1


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
        warnings=(*_idle(simulation), *_warnings(simulation, job, judged, found), *_twice(seats, found)),
    )


def _federated(
    engine: Engine, job: Job, simulation: Simulation, algorithm: Trained | PooledDP, seats: Seated, on: OnRound
) -> _Found:
    terms = find_terms(simulation, algorithm, seats.declared, seats.delta, job.layout.width)
    there = attendance(simulation.faults, len(seats.names), terms.plan.rounds, job.seed)
    start = time.perf_counter()
    trail = drive(engine, job, simulation, algorithm, terms, there, on)
    seconds = time.perf_counter() - start
    if not trail.learned:
        logits = np.full(len(seats.heldout), np.nan)
    elif trail.own is None:
        logits = scores(job, trail.model, seats.heldout)
    else:
        parts = [scores(job, own, seats.heldout.of(place)) for place, own in enumerate(trail.own)]
        logits = np.concatenate(parts)
    logits[~np.isfinite(logits)] = np.nan
    return _Found(logits, terms, there, trail.failed, trail.steps, seconds, trail.learned)


def _together(engine: Engine, job: Job, simulation: Simulation, seats: Seated, on: OnRound) -> _Found:
    """Train on everybody's records in one place: shared noise that is there once, and every institution's customers by their own budget."""
    one = simulation.model_copy(update={"faults": Faults(), "personal": None})
    found = _federated(engine, job, one, PooledDP(kind="pooled_dp"), seats, on)
    assert found.terms is not None
    return replace(found, steps=found.terms.plan.rounds)  # one party forms one sum a round


def _without_noise(engine: Engine, job: Job, seats: Seated, pooled: bool) -> _Found:
    """Train each institution's own model, or one on all records, without noise: ridge-penalised regression, or full steps of an mlp.

    The penalty, or the number of steps, is chosen on training rows alone, by each for itself.
    """
    rows, start = job.rows.together() if pooled else job.rows, time.perf_counter()
    heldout = seats.heldout.together() if pooled else seats.heldout
    if job.model.kind == "mlp":
        found = _networks(engine, _job_of(job, rows), heldout)
    else:
        parts = [_fitted(rows.of(at), heldout.of(at), job.seed, at) for at in range(rows.institutions)]
        found = np.concatenate(parts)
    return _Found(found, None, None, 0, 0, time.perf_counter() - start)


def _job_of(job: Job, rows: Rows) -> Job:
    return replace(job, rows=rows, declared=np.diff(rows.offsets))


def _fitted(rows: Rows, heldout: Rows, seed: int, place: int) -> Floats:
    """Return held-out logits by logistic regression; the base rate's where there is one class only."""
    labels = rows.labels.numpy().astype(np.float64)
    if labels.min() == labels.max():
        rate = (labels.sum() + 0.5) / (len(labels) + 1.0)
        return np.full(len(heldout), np.log(rate / (1.0 - rate)))
    dense = rows.dense.numpy()
    strength = analysis.choose_strength(dense, labels, stream(seed, PARTITION, _INNER, place))
    return analysis.logits(analysis.fit_rows(dense, labels, strength), heldout.dense.numpy())


def _networks(engine: Engine, job: Job, heldout: Rows) -> Floats:
    """Return held-out logits of each institution's own network, trained on all its rows for the number of steps that it chose."""
    chosen = _chosen_steps(engine, job)
    own = np.zeros((job.rows.institutions, job.layout.width))
    for steps in np.unique(chosen).tolist():
        own += _full_steps(engine, job, steps, chosen == steps)
    return np.concatenate([scores(job, weights, heldout.of(place)) for place, weights in enumerate(own)])


def _chosen_steps(engine: Engine, job: Job) -> Integers:
    """Return after how many steps each institution stops, int64 [K]: where the log loss of a fifth of its rows, unseen, was least.

    Who has one class alone on either side stops first.
    """
    inside = np.ones(len(job.rows), dtype=np.bool_)
    for place, (first, last) in enumerate(zip(job.rows.offsets[:-1], job.rows.offsets[1:], strict=True)):
        aside = round(_INNER_SHARE * int(last - first))
        inside[first + stream(job.seed, PARTITION, _INNER, place).permutation(last - first)[:aside]] = False
    learned, judged = _chosen(job.rows, inside), _chosen(job.rows, ~inside)
    everybody = range(job.rows.institutions)
    able = np.array([_both(learned.of(place)) and _both(judged.of(place)) for place in everybody])
    losses = np.full((len(_REFERENCE_STEPS), len(able)), np.inf)
    for at, count in enumerate(_REFERENCE_STEPS):
        own = _full_steps(engine, _job_of(job, learned), count, able)
        for place in np.flatnonzero(able).tolist():
            part = judged.of(place)
            losses[at, place] = log_loss(part.labels.numpy().astype(np.float64), scores(job, own[place], part))
    best: Integers = np.array(_REFERENCE_STEPS, dtype=np.int64)[losses.argmin(axis=0)]
    return best


def _chosen(rows: Rows, which: NDArray[np.bool_]) -> Rows:
    """Return the rows that are marked, bool [N], in the same order."""
    offsets = np.concatenate([[0], np.cumsum(which)])[rows.offsets].astype(np.int64)
    marked = torch.from_numpy(which)
    return Rows(rows.dense[marked].contiguous(), rows.codes[marked], rows.labels[marked], offsets)


def _both(rows: Rows) -> bool:
    return len(rows) > 0 and float(rows.labels.min()) < float(rows.labels.max())


def _full_steps(engine: Engine, job: Job, steps: int, who: NDArray[np.bool_]) -> Floats:
    """Return weights after so many steps on all rows, float64 [K, P]; zero for all but `who`, bool [K]."""
    count = job.rows.institutions
    work = Work(
        number=0,
        weights=job.start(),
        clip=np.ones(count),
        noise=np.zeros(count),
        present=who,
        rate=1.0,
        local=Local(steps, _REFERENCE_RATE, momentum=_REFERENCE_MOMENTUM, tail=False, full=True),
    )
    if not who.any():
        return np.zeros((count, job.layout.width))
    with engine.open(job) as session:
        return np.where(who[:, None], job.start() + session.releases(work), 0.0)


def _counts(found: _Found, simulation: Simulation) -> dict[str, float]:
    if found.terms is None:
        return {"rounds": 0.0, "rounds_failed": 0.0, "client_steps": 0.0, "duration": 0.0, "epsilon_max": float("nan")}
    budgets = [simulation.privacy.of(place) for place in range(len(found.terms.declared))]
    rounds = found.terms.plan.rounds
    return {
        "rounds": float(rounds),
        "rounds_failed": float(found.failed),
        "client_steps": float(found.steps),
        "duration": float(rounds if found.there is None else found.there.duration.sum()),
        "epsilon_max": max(float("nan") if budget is None else budget for budget in budgets),
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


def _idle(simulation: Simulation) -> list[str]:
    """Return a sentence on settings that were given and that the algorithm does not read."""
    algorithm = simulation.algorithm
    if not isinstance(algorithm, Alone | Pooled | PooledDP):
        return []
    given = {"personal": simulation.personal is not None, "faults": simulation.faults != Faults()}
    if not isinstance(algorithm, PooledDP):
        given |= {name: getattr(simulation, name) is not None for name in ("rounds", "sampling_rate", "clip")}
    names = [name for name, is_given in given.items() if is_given]
    return [f"{algorithm.kind} does not read {', '.join(names)}: what was set there changed nothing."] if names else []


def _warnings(simulation: Simulation, job: Job, judged: Judged, found: _Found) -> list[str]:
    said = []
    if not found.learned:
        said.append("No round in which weights move succeeded: there is no model, and figures of one are missing.")
    algorithm = simulation.algorithm
    if found.learned and np.isnan(found.logits).any():
        said.append("Weights overflowed: the study diverged, and figures are missing. Take shorter steps.")
    if found.terms is not None and found.terms.plan.probes and found.terms.plan.descent_rounds < _FEW_DESCENTS:
        said.append(
            f"{found.terms.plan.descent_rounds} rounds of descent follow the recipe's probes, too few to learn by: take fewer local steps, "
            "or server: average."
        )
    if simulation.rounds is not None and not isinstance(algorithm, Alone | Pooled):
        ruled = rule_rounds(simulation, algorithm, job.declared, job.layout.width)
        if simulation.rounds < _FEW * ruled:
            said.append(
                f"{simulation.rounds} rounds are fewer than half of the {ruled} that the rule takes for this algorithm: "
                "it may not have learned all that it can."
            )
    blind = sum(0.0 in (part["base_rate"], 1.0 - part["base_rate"]) for part in judged.by_institution)
    if blind:
        said.append(f"{blind} institutions hold out one class only: they have no AUC of their own.")
    if found.failed:
        said.append(f"{found.failed} rounds failed for want of answers; everybody paid for them.")
    return said


def _twice(seats: Seated, found: _Found) -> list[str]:
    """Say that a budget is for one customer at one institution, where some are customers of several."""
    if found.terms is None or seats.shared_people == 0.0:
        return []
    return [
        f"{seats.shared_people:.0%} of the people are customers of several institutions: each of them spends every one's epsilon (with "
        "local noise the budgets compose; in a sum with shared noise it is group privacy)."
    ]
