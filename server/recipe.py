"""The rule that sets a training run's numbers from public quantities alone: the plan before the grants, the tuning
after them.

Users cannot tune, because every trial costs budget. So each number is a function of declared sizes, granted noise
and the kind of model, with one set of constants for all data; `server.descent` holds the steps themselves for
linear models.

*Noise sets the length of the way.* Where the loss is flat, T steps of size eta on mean gradients with noise s leave
noise eta s sqrt(T) in a weight. The rule stops where that reaches NOISE_IN_WEIGHTS, the size that weights may be
expected to have beside rows of norm 4: eta = NOISE_IN_WEIGHTS / (s sqrt(T)). Stopping descent early is ridge
regression with penalty 1 / (eta T) (Yao, Rosasco, Caponnetto 2007; Ali, Kolter, Tibshirani 2019); here the noise
that decides is that of privacy. At a given budget s grows like sqrt(T) / N and hardly depends on q (the sampled
Gaussian mechanism at large noise is the Gaussian mechanism: Dong, Roth, Su 2022, section 5), so T and q are settled
by compute and by how far a stable step carries.

*Weights.* A member with a strict budget has louder noise; inverse variance would nearly mute it. Weights go with 1
/ sigma, and never below a quarter of the largest.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from federation.basis import ROW_NORM

Mode = Literal["fedsgd", "fedavg"]
Family = Literal["linear", "mlp"]

PROBES = 2
NOISE_IN_WEIGHTS = 0.2
MOMENTUM = 0.9

# At the same budget .1 to .5 give the same noise: below, more depends on who is drawn; above, rounds only take longer.
_SAMPLING_RATE = 0.3
_DESCENT_STEPS = 30
_STEPS_WITHOUT_NOISE = 60
# Both steps enter the vault's tail average in full: no noisy gradient is paid for and then discounted.
_LOCAL_STEPS = 2
_MLP_STEPS = 60

# Rows have norm up to ROW_NORM. Residuals beyond 0.6 are those of the rare class: clipping them costs little and saves noise.
_CLIP = 0.6 * ROW_NORM
# In a probe |p - y| <= 3/4, and a row with its intercept has norm <= sqrt(ROW_NORM^2 + 1): nothing is clipped or biased
# (of `logistic` rows, whose norm the contract does not bound as tightly, the few longest are).
_PROBE_CLIP = 0.75 * math.sqrt(ROW_NORM**2 + 1.0)
_LEAST_WEIGHT = 0.25

_MLP_CLIP = 1.0
_MLP_NOISE_IN_WEIGHTS = 0.15
_MLP_LARGEST_STEP = 2.0
_MLP_LOCAL_STEP = 0.1


@dataclass(frozen=True)
class TrainingPlan:
    """What is asked of vaults before they grant anything; all public.

    Attributes
    ----------
    rounds:
        Rounds in all, probes included.
    steps:
        Noisy gradient sums in all, which with `sampling_rate` price the run: rounds times `local_steps`.
    sampling_rate:
        Poisson rate q of every draw.
    local_steps:
        Draws a vault makes in one round: 1 for `fedsgd`.
    probes:
        The first rounds that measure instead of learn: 2 for linear models, 0 for `mlp`.
    """

    mode: Mode
    family: Family
    rounds: int
    steps: int
    sampling_rate: float
    local_steps: int
    probes: int

    @property
    def descent_rounds(self) -> int:
        """Rounds that move the weights."""
        return self.rounds - self.probes


@dataclass(frozen=True)
class RunTuning:
    """What follows from the grants; by institution in the order of the declared sizes.

    Attributes
    ----------
    clips, probe_clips:
        L2 bound of one customer's gradient in the descent and in the probes.
    weights:
        Public weights w_i of the releases: the mean gradient is sum_i w_i S_i / sum_i w_i q n_i for `fedsgd`; for
        `fedavg` they hold n_i already, and the mean change is sum_i w_i D_i / sum_i w_i.
    noise, probe_noise:
        Standard deviation, in each coordinate, of a round's mean gradient.
    local_learning_rate:
        A vault's own step (`fedavg`); 1 for `fedsgd`, where it is not used.
    average_from:
        The first round, counted from 1, whose weights enter the average.
    learning_rate, momentum:
        For `mlp`, the coordinator's step on the mean gradient, and its momentum. Linear models find theirs after
        the probes (`server.descent.step_size`).
    """

    clips: tuple[float, ...]
    probe_clips: tuple[float, ...]
    weights: tuple[float, ...]
    noise: float
    probe_noise: float
    local_learning_rate: float
    average_from: int
    learning_rate: float
    momentum: float


def plan_training(
    declared_sizes: Sequence[int],
    epsilon: float | None,
    width: int,
    mode: Mode,
    family: Family = "linear",
    rounds: int | None = None,
) -> TrainingPlan:
    """Return rounds, steps and sampling rate.

    Thirty steps of descent carry as far as any budget up to epsilon 4 reaches; without noise twice as many are taken.

    Parameters
    ----------
    declared_sizes:
        Customers that each institution declares, all at least 1.
    epsilon:
        The nominal budget; None without privacy.
    width:
        Number of encoded columns, at least 1.
    mode, family:
        Study mode, and `linear` for `additive` and `logistic` models or `mlp`.
    rounds:
        Take so many rounds in all, probes among them, and not the rule's number.

    Raises
    ------
    ValueError
        For no institution, a size or a width below 1, a budget that is not positive, or no round after the probes.
    """
    if not declared_sizes or min(declared_sizes) < 1 or width < 1:
        raise ValueError("a plan needs institutions of at least one customer, and a column")
    if epsilon is not None and not epsilon > 0:
        raise ValueError("epsilon must be positive")
    local = 1 if mode == "fedsgd" else _LOCAL_STEPS
    probes = 0 if family == "mlp" else PROBES
    if rounds is None:
        rounds = _descent_steps(epsilon, family) // local + probes
    if rounds <= probes:
        raise ValueError("a plan needs a round after the probes")
    return TrainingPlan(mode, family, rounds, rounds * local, _SAMPLING_RATE, local, probes)


def _descent_steps(epsilon: float | None, family: Family) -> int:
    if family == "mlp":
        return _MLP_STEPS
    return _STEPS_WITHOUT_NOISE if epsilon is None or math.isinf(epsilon) else _DESCENT_STEPS


def tune(plan: TrainingPlan, declared_sizes: Sequence[int], noise_multipliers: Sequence[float]) -> RunTuning:
    """Return clips, weights and the noise that the steps are matched to.

    Parameters
    ----------
    declared_sizes, noise_multipliers:
        Of those who granted, in the same order; a noise multiplier of 0 means no noise.

    Raises
    ------
    ValueError
        When the two differ in length, or are empty, or hold a size below 1, or noise below 0.
    """
    if len(declared_sizes) != len(noise_multipliers) or not declared_sizes:
        raise ValueError("one declared size and one noise multiplier for each institution")
    if min(declared_sizes) < 1 or min(noise_multipliers) < 0:
        raise ValueError("sizes must be at least 1 and noise at least 0")
    shares = member_weights(noise_multipliers)
    clip, probe_clip = (_MLP_CLIP, _MLP_CLIP) if plan.family == "mlp" else (_CLIP, _PROBE_CLIP)
    unit = _noise_per_clip(plan, declared_sizes, noise_multipliers, shares)
    average_from = plan.probes + plan.descent_rounds // 2 + 1
    count = len(declared_sizes)
    learning_rate, momentum = mlp_step(plan, unit * clip)
    return RunTuning(
        clips=(clip,) * count,
        probe_clips=(probe_clip,) * count,
        weights=shares if plan.mode == "fedsgd" else tuple(w * n for w, n in zip(shares, declared_sizes, strict=True)),
        noise=unit * clip,
        probe_noise=unit * probe_clip,
        local_learning_rate=_local_step(plan),
        average_from=average_from,
        learning_rate=learning_rate,
        momentum=momentum,
    )


def member_weights(noise_multipliers: Sequence[float]) -> tuple[float, ...]:
    """Return each institution's weight for a sum of gradients: sigma_min / sigma_i, at least a quarter.

    With weights w the mean gradient has noise proportional to sqrt(sum (w_i sigma_i)^2) / sum w_i n_i, least at w_i
    = n_i / sigma_i^2. For equal sizes and budgets of 1, 2, 3 and 4, weights of 1 / sigma_i reach nine tenths of the
    best signal to noise, equal weights six; and they leave everybody a say.
    """
    least = min(noise_multipliers)
    return tuple(1.0 if sigma <= least else max(_LEAST_WEIGHT, least / sigma) for sigma in noise_multipliers)


def tail_coefficients(local_steps: int) -> tuple[float, ...]:
    """Return the share of each local step's gradient in a vault's change, which averages its second half of steps."""
    first = local_steps // 2
    return tuple((local_steps - max(step, first)) / (local_steps - first) for step in range(local_steps))


def _noise_per_clip(
    plan: TrainingPlan, sizes: Sequence[int], sigmas: Sequence[float], shares: Sequence[float]
) -> float:
    total = math.sqrt(math.fsum((w * sigma) ** 2 for w, sigma in zip(shares, sigmas, strict=True)))
    one = total / (plan.sampling_rate * math.fsum(w * n for w, n in zip(shares, sizes, strict=True)))
    parts = tail_coefficients(plan.local_steps)
    return one * math.sqrt(math.fsum(c * c for c in parts)) / math.fsum(parts)


def _local_step(plan: TrainingPlan) -> float:
    """Return a vault's step.

    For linear models 1 / L, where L = (|x|^2 + 1) / 4 bounds the curvature of the logistic loss.
    """
    if plan.mode == "fedsgd":
        return 1.0
    return _MLP_LOCAL_STEP if plan.family == "mlp" else 4.0 / (ROW_NORM**2 + 1.0)


def mlp_step(plan: TrainingPlan, noise: float) -> tuple[float, float]:
    """Return step and momentum for an mlp by the same balance, for mean gradients with this noise; zeros for linear models.

    Its curvature is unknown beforehand, so steps are capped low.
    """
    if plan.family != "mlp":
        return 0.0, 0.0
    reach = math.inf if noise == 0 else _MLP_NOISE_IN_WEIGHTS / (noise * math.sqrt(plan.rounds))
    return min(_MLP_LARGEST_STEP, reach * (1.0 - MOMENTUM)), MOMENTUM
