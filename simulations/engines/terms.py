"""The public numbers of a simulated study: rounds, noise, clips and weights, found as the product finds them.

Noise is priced for each institution by its own epsilon and delta (`privacy.accounting.calibrate_noise`: add or remove one customer; PLD
of the Poisson-subsampled Gaussian, composed over all steps). Everything else is `server.recipe`, with more freedom: other numbers of
local steps, other weights, and other servers, which have a pace of their own (`plain_rounds`, `plain_rate`). With shared noise every
institution adds the share that, summed over those that surely count, is what one customer needs; rounding to the grid of secure sums,
which adds under 1% to the noise, is left out.
"""

import math
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from federation.basis import ROW_NORM
from federation.errors import DocumentError
from privacy.accounting import calibrate_noise
from privacy.dp_optimizer import SMALLEST_CLIP
from server.optimizer import FEDADAM_RATE, FEDAVGM_MOMENTUM
from server.recipe import (
    NOISE_IN_WEIGHTS,
    Family,
    RunTuning,
    TrainingPlan,
    member_weights,
    mlp_step,
    plan_training,
    tail_coefficients,
    tune,
)
from simulations.engines.courses import Kind
from simulations.engines.simulation import FedAvg, FedSGD, PooledDP, Scaffold, Simulation
from simulations.engines.work import Floats, Integers

_STEPS_A_DECADE = 8
_LEAST_MEMBERS = 4
_SHARED_MEMBERS = 0.8
_ROUNDS, _ROUNDS_WITHOUT_NOISE = 60, 120
_WITHOUT_MOMENTUM = 2
_STABLE = 1.9
_CURVATURE = (ROW_NORM**2 + 1.0) / 4.0
_MLP_LONGEST = 2.0
_ADAM = {"linear": 1.0, "mlp": 0.1}
_NOISE = {"linear": NOISE_IN_WEIGHTS, "mlp": 0.15}
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
    server_rate:
        By what the server shortens its moves (`simulations.engines.courses`).
    probe_rate:
        Length of a local step in the probes of `fedavg`, which read a change as a gradient at the weights that it began at: local steps
        together lead no farther than the product's two.
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
    server_rate: float = 1.0
    probe_rate: float = 1.0

    def factors(self, probing: bool, present: Floats) -> Floats:
        """Return by what each release is multiplied to give the mean gradient or the mean change; zero where `present` is."""
        weight = (self.probe_weight if probing else self.weight) * present
        if self.plan.mode == "fedsgd":
            return np.asarray(weight / (self.plan.sampling_rate * float(weight @ self.declared)))
        return np.asarray(weight / weight.sum())


def noise_multiplier(epsilon: float, delta: float, rate: float, steps: int) -> float:
    """Return the noise multiplier for (epsilon, delta); delta is rounded down to one of eight values a decade, so that few are priced."""
    coarse = 10.0 ** (math.floor(math.log10(delta) * _STEPS_A_DECADE) / _STEPS_A_DECADE)
    return _calibrated(epsilon, coarse, rate, steps)


@lru_cache(maxsize=4096)
def _calibrated(epsilon: float, delta: float, rate: float, steps: int) -> float:
    return calibrate_noise(epsilon, delta, rate, steps)


def find_terms(
    simulation: Simulation, algorithm: Trained | PooledDP, declared: Integers, delta: Floats, width: int
) -> Terms:
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
    if plan.sampling_rate * float(declared.max()) < 1.0:
        raise DocumentError(
            "CSL-M260",
            f"A sampling rate of {plan.sampling_rate:g} draws less than one customer a step, even at the largest institution.",
            f"Ask for a sampling_rate of {1.0 / float(declared.max()):.2g} or more.",
        )
    budgets = [simulation.privacy.of(place) for place in range(len(declared))]
    sigma = np.array(
        [
            0.0 if budget is None else noise_multiplier(budget, float(small), plan.sampling_rate, plan.steps)
            for budget, small in zip(budgets, delta, strict=True)
        ]
    )
    plain = _plain(simulation, plan, sigma, declared)
    if isinstance(algorithm, PooledDP):
        found = _shared(plain, quorum=1, bearers=len(declared))
    elif isinstance(algorithm, FedSGD) and algorithm.noise == "shared":
        needed = _enough(algorithm, len(declared))
        found = _shared(plain, needed, needed - max(algorithm.colluders, 1))
    else:
        weight = _weights("size" if isinstance(algorithm, Scaffold) else algorithm.weights, plain, width)
        found = replace(plain, weight=weight, probe_weight=weight)
    _check_clips(found)
    return _tuned(found, algorithm)


def _check_clips(terms: Terms) -> None:
    least = float(terms.clip.min())
    if least < SMALLEST_CLIP:
        raise DocumentError(
            "CSL-M260",
            f"The least clip is {least:.2g}, where neither clipping nor noise would be what is accounted.",
            f"Ask for a larger clip: none may be below {SMALLEST_CLIP:g}, that of the strictest budget under shared noise neither.",
        )


def rule_rounds(simulation: Simulation, algorithm: Trained | PooledDP, declared: Integers, width: int) -> int:
    """Return how many rounds the rule takes where a simulation asks for no number; parameters as for `find_terms`."""
    ruled = _ruled(simulation, declared, width)
    local, server = _local_steps(algorithm), server_of(algorithm)
    if server == "recipe":
        return max(1, ruled.descent_rounds // local) + ruled.probes
    return plain_rounds(server, simulation.privacy.epsilon is not None)


def plain_rounds(kind: str, noisy: bool) -> int:
    """Return the rounds of a server that is not the recipe's: it begins at zero and knows no direction, and so needs more than the recipe.

    Plain averaging takes twice as many as servers with momentum.

    At a given budget the length of the way that noise allows hardly depends on the number of steps (`server.recipe`); more of them let each
    be short enough to be stable.
    """
    return (_ROUNDS if noisy else _ROUNDS_WITHOUT_NOISE) * (_WITHOUT_MOMENTUM if kind == "average" else 1)


def impulse(local_steps: int, momentum: float, tail: bool) -> Floats:
    """Return by what each local step's mean gradient moves a round's change, in units of the step: float64 [local_steps], all positive.

    With momentum m, step j's gradient has moved the weights after step t by 1 + m + ... + m^(t - j). `tail` averages the weights after the
    second half of the steps; else the last ones count.
    """
    after = np.arange(local_steps // 2 if tail else local_steps - 1, local_steps)[:, None]
    lag = np.maximum(after - np.arange(local_steps) + 1, 0)
    moved = lag > 0 if momentum == 0.0 else (1.0 - momentum**lag) / (1.0 - momentum)
    return np.asarray(moved.mean(axis=0), dtype=np.float64)


def plain_rate(
    family: Family, kind: str, rounds: int, noise: float, parts: Floats, proximal: float = 0.0
) -> tuple[float, float]:
    """Return the step on mean gradients, and by what the server shortens its moves, where the server is not the recipe's.

    Noise of the mean gradients is balanced as in `server.recipe`: over T rounds it leaves noise of eta s sqrt(T sum c_j^2) in a weight, ten
    times as much with a momentum of .9, and eta is such that this is the size that weights may be expected to have. It is never longer than
    is stable: below 2 / (L + mu) for a local step (L the largest curvature, mu FedProx's pull), and below 2 (1 + .9) / L for a round by
    momentum, in which gradients count sum c_j times (Polyak 1964). Adam moves every coordinate by its rate whatever the noise is: there it
    is the server's rate that is at most as long, and a tenth of the product's for an mlp, whose layers multiply what moves. Constants were
    set on a made-up problem, a bent surface in five columns; but for the tenth, which was put in once runs without noise on the synthetic
    population and on bank-full had hardly learned by the product's rate.

    Parameters
    ----------
    kind:
        `average`, `fedavgm` or `fedadam`.
    noise:
        Standard deviation, in each coordinate, of one local step's weighted mean gradient; 0 without privacy.
    parts:
        As `impulse` returns them.
    proximal:
        FedProx's mu.
    """
    total = float(parts.sum())
    heavy = kind == "fedavgm"
    curvature = _STABLE / _MLP_LONGEST if family == "mlp" else _CURVATURE
    longest = _STABLE / (curvature + proximal)
    if heavy:
        longest = min(longest, longest * (1.0 + FEDAVGM_MOMENTUM) / total)
    if kind == "fedadam":
        allowed = _NOISE[family] / (FEDADAM_RATE * math.sqrt(rounds)) if noise else math.inf
        return longest / 2.0, min(_ADAM[family], allowed)
    left = noise * math.sqrt(rounds * float(parts @ parts)) / ((1.0 - FEDAVGM_MOMENTUM) if heavy else 1.0)
    return min(longest, _NOISE[family] / left) if left else longest, 1.0


def _ruled(simulation: Simulation, declared: Integers, width: int) -> TrainingPlan:
    family: Family = "mlp" if simulation.model.kind == "mlp" else "linear"
    nominal = simulation.privacy.epsilon
    priced = max(nominal) if isinstance(nominal, tuple) else nominal
    return plan_training(declared.tolist(), priced, width, "fedsgd", family)


def _local_steps(algorithm: Trained | PooledDP) -> int:
    return algorithm.steps if isinstance(algorithm, FedAvg | Scaffold) else 1


def server_of(algorithm: Trained | PooledDP) -> Kind:
    """Return how the server moves the weights."""
    if isinstance(algorithm, Scaffold):
        return "average"
    return "recipe" if isinstance(algorithm, PooledDP) else algorithm.server


def _plan(simulation: Simulation, algorithm: Trained | PooledDP, declared: Integers, width: int) -> TrainingPlan:
    ruled = _ruled(simulation, declared, width)
    probes = ruled.probes if server_of(algorithm) == "recipe" else 0
    local = _local_steps(algorithm)
    rounds = simulation.rounds or rule_rounds(simulation, algorithm, declared, width)
    if rounds <= probes:
        raise DocumentError(
            "CSL-M260",
            f"{rounds} rounds leave none after the {probes} in which the recipe measures.",
            f"Ask for more than {probes} rounds, or another server.",
        )
    rate = simulation.sampling_rate or ruled.sampling_rate
    return TrainingPlan(
        mode="fedavg" if isinstance(algorithm, FedAvg | Scaffold) else "fedsgd",
        family=ruled.family,
        rounds=rounds,
        steps=rounds * local,
        sampling_rate=rate,
        local_steps=local,
        probes=probes,
    )


def _plain(simulation: Simulation, plan: TrainingPlan, sigma: Floats, declared: Integers) -> Terms:
    """Return terms by which every institution adds all the noise that its own customers need, and all weigh the same."""
    tuning, ones = tune(plan, declared.tolist(), sigma.tolist()), np.ones(len(sigma))
    clip, probe_clip = simulation.clip or tuning.clips[0], tuning.probe_clips[0]
    if simulation.clip is not None:
        probe_clip = max(clip, probe_clip)
    return Terms(
        plan=plan,
        tuning=tuning,
        sigma=sigma,
        clip=clip * ones,
        probe_clip=probe_clip * ones,
        noise=sigma * clip,
        probe_noise=sigma * probe_clip,
        weight=ones,
        probe_weight=ones,
        declared=declared,
        quorum=1,
    )


def _weights(kind: str, plain: Terms, width: int) -> Floats:
    """Return a_i: by the recipe, by size alone, or by the inverse variance of each institution's mean gradient.

    A mean gradient over q n_i expected customers has in each of P coordinates the noise's variance (sigma_i C / q n_i)^2, and, as one
    gradient's squared norm is at most C^2, a sampling variance of at most C^2 / (P q n_i) on average. Inverse variances give the least
    variance of a weighted mean (Cochran 1954).
    """
    plan, declared = plain.plan, plain.declared.astype(np.float64)
    if kind == "precision":
        expected = plan.sampling_rate * declared
        variance = (plain.noise / expected) ** 2 + plain.clip**2 / (width * expected)
        precise: Floats = 1.0 / variance if plan.mode == "fedavg" else 1.0 / (variance * expected)
        return precise / float(precise.max())
    shares = np.array(member_weights(plain.sigma.tolist())) if kind == "recipe" else plain.weight
    return shares if plan.mode == "fedsgd" else shares * declared


def _enough(algorithm: FedSGD, members: int) -> int:
    """Return how many must answer for a sum under shared noise to be opened; DocumentError CSL-M260 where there are too few at all."""
    needed = max(algorithm.colluders + 3, math.ceil(_SHARED_MEMBERS * members))
    if members < max(needed, _LEAST_MEMBERS):
        raise DocumentError(
            "CSL-M260",
            f"Shared noise against {algorithm.colluders} colluders needs {max(needed, _LEAST_MEMBERS)} institutions, not {members}.",
            "Take more partners, fewer colluders, or local noise.",
        )
    return needed


def _shared(plain: Terms, quorum: int, bearers: int) -> Terms:
    """All add the same noise, in units of the largest part that a customer may have in the sum (`server.pooling`).

    Institution i's customers may change the sum by C sigma_min / sigma_i: by their clip in the descent, by a weight in the probes. The
    noise of `bearers` institutions together is what one customer needs; with records in one place it is that of all, and is there once.
    """
    least = float(plain.sigma.min())
    part = plain.weight if least == 0.0 else least / plain.sigma
    share = least / math.sqrt(bearers)
    return replace(
        plain,
        clip=plain.clip * part,
        noise=share * plain.clip,
        probe_noise=share * plain.probe_clip / part,
        probe_weight=part,
        quorum=quorum,
    )


def _tuned(terms: Terms, algorithm: Trained | PooledDP) -> Terms:
    """Return the terms with the recipe's tuning for the noise that their mean gradients have, or the pace of another server."""
    plan, tuning, server = terms.plan, terms.tuning, server_of(algorithm)
    one, probe = _spread(terms, terms.weight, terms.noise), _spread(terms, terms.probe_weight, terms.probe_noise)
    parts = tail_coefficients(plan.local_steps)
    several = math.sqrt(math.fsum(c * c for c in parts)) / math.fsum(parts)
    found = replace(tuning, noise=several * one, probe_noise=several * probe)
    half = plan.descent_rounds // 2
    rate, momentum = mlp_step(plan, found.noise)
    local, server_rate = tuning.local_learning_rate, 1.0
    if server != "recipe":
        pull = algorithm.proximal if isinstance(algorithm, FedAvg) else 0.0
        rate, server_rate = plain_rate(plan.family, server, plan.rounds, one, _parts(algorithm, plan), pull)
        local = rate
    if isinstance(algorithm, FedAvg | Scaffold) and algorithm.rate is not None:
        local = algorithm.rate
    found = replace(
        found,
        local_learning_rate=1.0 if plan.mode == "fedsgd" else local,
        average_from=plan.probes + half + 1,
        learning_rate=rate,
        momentum=momentum,
    )
    probe_rate = min(local, 2.0 * tuning.local_learning_rate / plan.local_steps)
    return replace(terms, tuning=found, server_rate=server_rate, probe_rate=probe_rate)


def _spread(terms: Terms, weight: Floats, noise: Floats) -> float:
    """Return the standard deviation of one step's weighted mean gradient, in each coordinate."""
    expected = terms.plan.sampling_rate * terms.declared
    if terms.plan.mode == "fedsgd":
        return float(np.linalg.norm(weight * noise) / (weight @ expected))
    return float(np.linalg.norm(weight / weight.sum() * noise / expected))


def _parts(algorithm: Trained | PooledDP, plan: TrainingPlan) -> Floats:
    momentum = algorithm.momentum if isinstance(algorithm, FedAvg) else 0.0
    return impulse(plan.local_steps, momentum, tail=not isinstance(algorithm, Scaffold))
