"""The public numbers of a simulated study: rounds, noise, clips and weights, found as the product finds them.

Noise is priced for each institution by its own epsilon and delta (`privacy.accounting.calibrate_noise`: add or remove one customer; PLD
of the Poisson-subsampled Gaussian, composed over all steps). Everything else is `server.recipe`, with more freedom: other numbers of
local steps, other weights, other servers. With shared noise every institution adds the share that, summed over those that surely count,
is what one customer needs; rounding to the grid of secure sums, which adds under 1% to the noise, is left out.
"""

import math
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from federation.errors import DocumentError
from privacy.accounting import calibrate_noise
from server.recipe import (
    Family,
    RunTuning,
    TrainingPlan,
    member_weights,
    mlp_step,
    plan_training,
    tail_coefficients,
    tune,
)
from simulations.engines.simulation import FedAvg, FedSGD, Scaffold, Simulation
from simulations.engines.work import Floats, Integers

_STEPS_A_DECADE = 8
_LEAST_MEMBERS = 4
_SHARED_MEMBERS = 0.8
_STABLE = 1.9
Trained = FedSGD | FedAvg | Scaffold


@dataclass(frozen=True, eq=False)
class Terms:
    """What all rounds share; arrays are by institution [K].

    Attributes
    ----------
    plan, tuning:
        As `server.recipe` has them; the tuning's own tuples are not used.
    sigma:
        Noise multiplier that each institution's customers need; 0 without privacy.
    clip, probe_clip:
        L2 bound of one customer's gradient in the descent and in the probes.
    noise, probe_noise:
        Standard deviation of what each institution adds to every coordinate of a clipped sum.
    weight, probe_weight:
        a_i: the mean gradient is sum a_i S_i / sum a_i q n_i over those who answered (`fedsgd`); the mean change sum a_i D_i / sum a_i.
    declared:
        Public sizes n_i.
    quorum:
        A round with fewer answers than this fails.
    """

    plan: TrainingPlan
    tuning: RunTuning
    sigma: Floats
    clip: Floats
    probe_clip: Floats
    noise: Floats
    probe_noise: Floats
    weight: Floats
    probe_weight: Floats
    declared: Integers
    quorum: int

    def factors(self, probing: bool, present: Floats) -> Floats:
        """Return by what each release is multiplied to give the mean gradient or the mean change; zero where `present` is."""
        weight = (self.probe_weight if probing else self.weight) * present
        if self.plan.mode == "fedsgd":
            return np.asarray(weight / (self.plan.sampling_rate * float(weight @ self.declared)))
        return np.asarray(weight / weight.sum())


@lru_cache(maxsize=4096)
def noise_multiplier(epsilon: float, delta: float, rate: float, steps: int) -> float:
    """Return the noise multiplier for (epsilon, delta); delta is rounded down to one of eight values a decade, so that few are priced."""
    coarse = 10.0 ** (math.floor(math.log10(delta) * _STEPS_A_DECADE) / _STEPS_A_DECADE)
    return calibrate_noise(epsilon, coarse, rate, steps)


def find_terms(simulation: Simulation, algorithm: Trained, declared: Integers, delta: Floats, width: int) -> Terms:
    """Return the terms of a study among institutions of these sizes.

    Parameters
    ----------
    declared, delta:
        int64 [K] and float64 [K].
    width:
        Length of the model's flat vector.

    Raises
    ------
    DocumentError
        CSL-M260 when rounds, noise and partners do not fit together.
    PolicyError
        As `privacy.accounting.calibrate_noise`.
    """
    plan = _plan(simulation, algorithm, declared, width)
    budgets = [simulation.privacy.of(place) for place in range(len(declared))]
    sigma = np.array(
        [
            0.0 if budget is None else noise_multiplier(budget, float(small), plan.sampling_rate, plan.steps)
            for budget, small in zip(budgets, delta, strict=True)
        ]
    )
    tuning = tune(plan, declared.tolist(), sigma.tolist())
    clip = simulation.clip or tuning.clips[0]
    probe_clip = tuning.probe_clips[0] if simulation.clip is None else max(clip, tuning.probe_clips[0])
    if isinstance(algorithm, FedSGD) and algorithm.noise == "shared":
        found = _shared(algorithm, plan, sigma, clip, probe_clip, declared)
    else:
        found = _local(algorithm, plan, sigma, clip, probe_clip, declared, width)
    return replace(found, tuning=_tuned(tuning, found, algorithm))


def _plan(simulation: Simulation, algorithm: Trained, declared: Integers, width: int) -> TrainingPlan:
    family: Family = "mlp" if simulation.model.kind == "mlp" else "linear"
    nominal = simulation.privacy.epsilon
    priced = max(nominal) if isinstance(nominal, tuple) else nominal
    ruled = plan_training(declared.tolist(), priced, width, "fedsgd", family)
    server = "average" if isinstance(algorithm, Scaffold) else algorithm.server
    probes = ruled.probes if server == "recipe" else 0
    local = 1 if isinstance(algorithm, FedSGD) else algorithm.steps
    rounds = simulation.rounds or max(1, ruled.descent_rounds // local) + probes
    if rounds <= probes:
        raise DocumentError(
            "CSL-M260",
            f"{rounds} rounds leave none after the {probes} in which the recipe measures.",
            f"Ask for more than {probes} rounds, or another server.",
        )
    rate = simulation.sampling_rate or ruled.sampling_rate
    return TrainingPlan(
        mode="fedsgd" if isinstance(algorithm, FedSGD) else "fedavg",
        family=ruled.family,
        rounds=rounds,
        steps=rounds * local,
        sampling_rate=rate,
        local_steps=local,
        probes=probes,
    )


def _local(
    algorithm: Trained,
    plan: TrainingPlan,
    sigma: Floats,
    clip: float,
    probe_clip: float,
    declared: Integers,
    width: int,
) -> Terms:
    """Every institution adds all the noise that its own customers need."""
    kind = "size" if isinstance(algorithm, Scaffold) else algorithm.weights
    weight = _weights(kind, plan, sigma, clip, declared, width)
    ones = np.ones(len(sigma))
    return Terms(
        plan=plan,
        tuning=_nothing(),
        sigma=sigma,
        clip=clip * ones,
        probe_clip=probe_clip * ones,
        noise=sigma * clip,
        probe_noise=sigma * probe_clip,
        weight=weight,
        probe_weight=weight,
        declared=declared,
        quorum=1,
    )


def _weights(kind: str, plan: TrainingPlan, sigma: Floats, clip: float, declared: Integers, width: int) -> Floats:
    """Return a_i: by the recipe, by size alone, or by the inverse variance of each institution's mean gradient.

    A mean gradient over q n_i expected customers has in each of P coordinates the noise's variance (sigma_i C / q n_i)^2, and, as one
    gradient's squared norm is at most C^2, a sampling variance of at most C^2 / (P q n_i) on average. Inverse variances give the least
    variance of a weighted mean (Cochran 1954).
    """
    expected = plan.sampling_rate * declared.astype(np.float64)
    if kind == "precision":
        variance = (sigma * clip / expected) ** 2 + clip**2 / (width * expected)
        precise: Floats = 1.0 / variance if plan.mode == "fedavg" else 1.0 / (variance * expected)
        return precise / float(precise.max())
    shares = np.array(member_weights(sigma.tolist())) if kind == "recipe" else np.ones(len(sigma))
    return shares if plan.mode == "fedsgd" else shares * declared.astype(np.float64)


def _shared(
    algorithm: FedSGD, plan: TrainingPlan, sigma: Floats, clip: float, probe_clip: float, declared: Integers
) -> Terms:
    """All add the same noise, in units of the largest part that a customer may have in the sum (`server.pooling`).

    Institution i's customers may change the sum by C sigma_min / sigma_i: by their clip in the descent, by a weight in the probes.
    """
    members, needed = len(sigma), max(algorithm.colluders + 3, math.ceil(_SHARED_MEMBERS * len(sigma)))
    if members < max(needed, _LEAST_MEMBERS):
        raise DocumentError(
            "CSL-M260",
            f"Shared noise against {algorithm.colluders} colluders needs {max(needed, _LEAST_MEMBERS)} institutions, not {members}.",
            "Take more partners, fewer colluders, or local noise.",
        )
    bearers = needed - max(algorithm.colluders, 1)
    least = float(sigma.min())
    part = np.ones(members) if least == 0.0 else least / sigma
    share = least / math.sqrt(bearers)
    ones = np.ones(members)
    return Terms(
        plan=plan,
        tuning=_nothing(),
        sigma=sigma,
        clip=clip * part,
        probe_clip=probe_clip * ones,
        noise=share * clip * ones,
        probe_noise=share * probe_clip / part,
        weight=ones,
        probe_weight=part,
        declared=declared,
        quorum=needed,
    )


def _tuned(tuning: RunTuning, terms: Terms, algorithm: Trained) -> RunTuning:
    """Return the recipe's tuning for the noise that these terms' mean gradients have."""
    expected = terms.plan.sampling_rate * terms.declared
    if terms.plan.mode == "fedsgd":
        noise = float(np.linalg.norm(terms.weight * terms.noise) / (terms.weight @ expected))
        probe = float(np.linalg.norm(terms.probe_weight * terms.probe_noise) / (terms.probe_weight @ expected))
        changed = replace(tuning, noise=noise, probe_noise=probe)
    else:
        parts = tail_coefficients(terms.plan.local_steps)
        several = math.sqrt(math.fsum(c * c for c in parts)) / math.fsum(parts)
        share = terms.weight / terms.weight.sum()
        noise = several * float(np.linalg.norm(share * terms.noise / expected))
        probe = several * float(np.linalg.norm(share * terms.probe_noise / expected))
        length = _local_rate(algorithm, terms.plan, tuning)
        changed = replace(tuning, noise=noise, probe_noise=probe, local_learning_rate=length)
    rate, momentum = mlp_step(terms.plan, noise)
    half = terms.plan.descent_rounds // 2
    return replace(changed, average_from=terms.plan.probes + half + 1, learning_rate=rate, momentum=momentum)


def _local_rate(algorithm: Trained, plan: TrainingPlan, tuning: RunTuning) -> float:
    """Return the step of a local round: what the study asks for, else the recipe's, or a longer one that plain averaging needs.

    Descent on a convex loss converges for steps below twice one over its largest curvature, which the recipe's step is.
    """
    assert not isinstance(algorithm, FedSGD)
    if algorithm.rate is not None:
        return algorithm.rate
    plain = isinstance(algorithm, Scaffold) or algorithm.server == "average"
    return tuning.local_learning_rate * (_STABLE if plain and plan.family == "linear" else 1.0)


def _nothing() -> RunTuning:
    return RunTuning((), (), (), 0.0, 0.0, 1.0, 1, 0.0, 0.0)
