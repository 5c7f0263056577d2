"""A simulated study from its first round to its last: the same steps whichever engine computes the rounds."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch

from server.monotone import cones_of
from simulations.engines.courses import Course, held_flat, start_course
from simulations.engines.faults import Attendance
from simulations.engines.simulation import FedAvg, FedSGD, PooledDP, Scaffold, Simulation
from simulations.engines.terms import Terms, Trained, server_of
from simulations.engines.work import Engine, Floats, Job, Local, Session, Work

OnRound = Callable[[int, int], None]
"""Called after every round with how many are done, and how many there are."""


def nothing(_done: int, _all: int) -> None:
    """Take no notice of a round."""


@dataclass(frozen=True, eq=False)
class Trail:
    """What a run leaves: the model float64 [P], each institution's own where they were personalised [K, P], and counts.

    `failed` rounds had fewer answers than the quorum: nothing was opened, everybody has paid. `learned` rounds moved the weights: after
    none there is no model, whatever `model` holds. `steps` are client-steps: noisy clipped sums that were computed, late ones among them.
    """

    model: Floats
    own: Floats | None
    failed: int
    learned: int
    steps: int


def drive(
    engine: Engine,
    job: Job,
    simulation: Simulation,
    algorithm: Trained | PooledDP,
    terms: Terms,
    there: Attendance,
    on: OnRound,
) -> Trail:
    """Run every round on an engine, and each institution's own steps after the last.

    Who swaps labels trains on the swapped ones while the others listen; its own steps, which nobody else sees, are on the true ones.
    """
    layout = job.layout
    told = _swapped(job, there) if simulation.faults.poisoners.attack == "labels" and there.poisoner.any() else job
    course = start_course(job, terms.plan, terms.tuning, server_of(algorithm), terms.server_rate, terms.probe_rate)
    failed = learned = 0
    with engine.open(told) as session:
        control = np.zeros(layout.width) if isinstance(algorithm, Scaffold) else None
        for number in range(terms.plan.rounds):
            work = _work(number, course, algorithm, terms, there, control)
            if int(work.present.sum()) < terms.quorum:
                failed += 1
            else:
                learned += not course.probing
                mean = session.combine(work, _factors(course, simulation, terms, there, work))
                course = course.after(mean)
                if control is not None and work.local is not None:
                    control = _next_control(control, mean, work, terms)
            on(number + 1, terms.plan.rounds)
        model = course.model()
        own = _personal(session, simulation, job, terms, model) if told is job else None
    if told is not job and simulation.personal is not None:
        with engine.open(job) as session:
            own = _personal(session, simulation, job, terms, model)
    steps = int(there.computed.sum()) * terms.plan.local_steps
    return Trail(model, own, failed, learned, steps)


def _swapped(job: Job, there: Attendance) -> Job:
    """Return the job with the labels of those who lie swapped."""
    lies = torch.from_numpy(np.repeat(there.poisoner, np.diff(job.rows.offsets)))
    return replace(job, rows=replace(job.rows, labels=torch.where(lies, 1.0 - job.rows.labels, job.rows.labels)))


def _work(
    number: int, course: Course, algorithm: Trained | PooledDP, terms: Terms, there: Attendance, control: Floats | None
) -> Work:
    probing = course.probing
    work = Work(
        number=number,
        weights=course.weights(),
        clip=terms.probe_clip if probing else terms.clip,
        noise=terms.probe_noise if probing else terms.noise,
        present=there.present[number],
        rate=terms.plan.sampling_rate,
    )
    if isinstance(algorithm, FedSGD | PooledDP):
        return work
    rate = terms.probe_rate if probing else terms.tuning.local_learning_rate
    if isinstance(algorithm, FedAvg):
        return replace(
            work, local=Local(algorithm.steps, rate, momentum=algorithm.momentum, proximal=algorithm.proximal)
        )
    return replace(work, local=Local(algorithm.steps, rate, tail=False, control=control))


def _factors(course: Course, simulation: Simulation, terms: Terms, there: Attendance, work: Work) -> Floats:
    """Return what each release is multiplied by; an institution that sends the reverse does so before it is weighed."""
    factors = terms.factors(course.probing, work.present.astype(np.float64))
    lies = simulation.faults.poisoners
    if lies.attack == "reverse":
        factors = np.where(there.poisoner, -lies.strength * factors, factors)
    return factors


def _next_control(control: Floats, mean: Floats, work: Work, terms: Terms) -> Floats:
    """Return SCAFFOLD's c after a round: c + sum over those who answered of p_i (c_i' - c_i), with p_i the weights over all.

    By option II, c_i' - c_i = -c - change_i / (steps * rate) (Karimireddy et al. 2020, algorithm 1): it follows from the mean change alone,
    so that nothing but the noisy changes ever leaves (DP-SCAFFOLD: Noble, Bellet, Dieuleveut 2022).
    """
    assert work.local is not None
    answered = float(terms.weight[work.present].sum() / terms.weight.sum())
    return control - answered * (control + mean / (work.local.steps * work.local.rate))


def _personal(session: Session, simulation: Simulation, job: Job, terms: Terms, model: Floats) -> Floats | None:
    personal = simulation.personal
    if personal is None:
        return None
    count = job.rows.institutions
    work = Work(
        number=terms.plan.rounds,
        weights=model,
        clip=terms.clip,
        noise=np.zeros(count),
        present=np.ones(count, dtype=np.bool_),
        rate=1.0,
        local=Local(personal.steps, personal.rate, tail=False, full=True, head=personal.part == "head"),
    )
    cones = cones_of(job.model, job.contract)
    return np.array([held_flat(job.layout, weights, cones) for weights in model + session.releases(work)])
