"""The price of events by privacy loss distributions (PLD), rounded up, and the noise for a wanted price.

These functions are for a list of events that is fixed beforehand; where later parameters depend on earlier answers,
`privacy.filter` decides.
"""

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from scipy.optimize import brentq
from scipy.special import log_ndtr

from federation.errors import DocumentError, PolicyError
from privacy.distributions import (
    MAX_DISCLOSURE,
    composed_distribution,
    expected_disclosure,
    numerical_delta,
    too_much,
)
from privacy.events import (
    LARGEST_NOISE,
    LARGEST_SHARED_NOISE,
    MAX_DIMENSION,
    MAX_MEMBERS,
    MAX_STEPS,
    SMALLEST_NOISE,
    SMALLEST_SHARED_NOISE,
    SMOOTHING,
    DiscreteGaussianHistogram,
    DiscreteLaplaceHistogram,
    PrivacyEvent,
    SecureSum,
    SubsampledGaussian,
)

if TYPE_CHECKING:
    from dp_accounting.pld import privacy_loss_distribution as pld

MIN_DELTA = 1e-10
MAX_DELTA = 0.1
MAX_EPSILON = 100.0
MAX_HISTOGRAM_SIGMA = float(1 << 16)
RELATIVE_TOLERANCE = 1e-3
MIN_RATE = 1e-6  # below, the grid of 2^-53 of uniform draws would show in who is drawn
MIN_SCALE = 0.05
MAX_SCALE = 1e5
MAX_SENSITIVITY = 1e6  # grid units: what `SecureGrant` holds
_AIM = 2e-4  # how far, in log sigma, a trial is put to the safe side
_CAP = 50.0
_STEEPEST = 20.0


def check_delta(delta: float) -> None:
    """Refuse a delta that is not from 1e-10 to 0.1.

    Raises
    ------
    PolicyError
        CSL-P104.
    """
    if not MIN_DELTA <= delta <= MAX_DELTA:
        raise PolicyError(
            "CSL-P104",
            f"delta must be from {MIN_DELTA} to {MAX_DELTA}, not {delta}.",
            "Set it to at most 1 / (100 x declared cohort size).",
        )


def check_epsilon(epsilon: float) -> None:
    """Refuse an epsilon that is not above 0 and at most 100; "no privacy" has no number.

    Raises
    ------
    PolicyError
        CSL-P105.
    """
    if not 0.0 < epsilon <= MAX_EPSILON:
        raise PolicyError(
            "CSL-P105",
            f"epsilon must be above 0 and at most {MAX_EPSILON:.0f}, not {epsilon}.",
            "Set a finite budget: releases without differential privacy do not exist here.",
        )


def epsilon(events: Sequence[PrivacyEvent], delta: float) -> float:
    """Return an epsilon such that `events` together are (epsilon, delta)-DP, rounded up within the grid; 0 for no
    events.

    Raises
    ------
    PolicyError
        CSL-P104 for a bad `delta`; CSL-P106 when no epsilon is large enough at this `delta`.
    """
    check_delta(delta)
    if not events:
        return 0.0
    value = _epsilon(composed_distribution(events), delta - numerical_delta(events))
    if not math.isfinite(value):
        raise too_much(f"delta {delta}")
    return value


def _epsilon(distribution: "pld.PrivacyLossDistribution", delta: float) -> float:
    return max(0.0, float(distribution.get_epsilon_for_delta(delta)))


def delta(events: Sequence[PrivacyEvent], epsilon: float) -> float:
    """Return a delta such that `events` together are (epsilon, delta)-DP, rounded up; 0 for no events.

    Raises
    ------
    PolicyError
        CSL-P105 for a bad `epsilon`.
    """
    check_epsilon(epsilon)
    if not events:
        return 0.0
    return min(1.0, float(composed_distribution(events).get_delta_for_epsilon(epsilon)) + numerical_delta(events))


def gaussian_log_delta(mu: float, epsilon: float) -> float:
    """Return ln delta(epsilon) of the Gaussian mechanism with sensitivity / sigma = `mu`.

    delta = Phi(mu/2 - epsilon/mu) - e^epsilon Phi(-mu/2 - epsilon/mu) (Balle and Wang 2018, Theorem 8).
    """
    first = float(log_ndtr(mu / 2 - epsilon / mu))
    second = epsilon + float(log_ndtr(-mu / 2 - epsilon / mu))
    return first + math.log(-math.expm1(second - first)) if second < first else -math.inf


def gaussian_mu(epsilon: float, delta: float) -> float:
    """Return the largest mu whose Gaussian mechanism is (epsilon, delta)-DP; floating point, for estimates."""
    low, high = 1e-6, 2.0
    while gaussian_log_delta(high, epsilon) < math.log(delta):
        high *= 2.0
    return float(brentq(lambda mu: max(gaussian_log_delta(mu, epsilon), -1e9) - math.log(delta), low, high, xtol=1e-9))


def gaussian_epsilon(mu: float, delta: float) -> float:
    """Return an epsilon at which the Gaussian mechanism with sensitivity / sigma = `mu` is (epsilon, delta)-DP, rounded up; 0 where delta
    alone is enough.

    Parameters
    ----------
    mu:
        1e-6 to 1e6.
    delta:
        1e-12 to 0.1.
    """

    def excess(value: float) -> float:
        return max(gaussian_log_delta(mu, value), -1e9) - math.log(delta)

    if excess(0.0) <= 0.0:
        return 0.0
    largest = mu * mu / 2.0 + 10.0 * mu  # there delta is below Phi(-10) = 8e-24
    return float(brentq(excess, 0.0, largest, xtol=1e-12, rtol=1e-12)) * (1.0 + 1e-9) + 1e-9


def epsilon_alone(event: SecureSum, delta: float) -> float:
    """Return an epsilon such that secure sums are (epsilon, delta)-DP by one member's own noise alone, an equal share of the event's:
    what holds if the masks broke, or everybody else colluded. Rounded up, and always finite.

    The Gaussian mechanism with mu = sqrt(T) sensitivity / sigma, which sampling can only improve on, bounds T steps (Dong, Roth, Su 2022,
    Corollary 3.3). Where a privacy loss distribution describes the sums, the lesser of the two is taken.

    Raises
    ------
    PolicyError
        CSL-P104 for a bad `delta`; CSL-P106 when rounding takes all of it.
    """
    check_delta(delta)
    left = delta - numerical_delta([event])
    if left <= 0.0:
        raise too_much(f"delta {delta}")
    share = event.sigma / math.sqrt(event.members)
    multiplier = math.sqrt(share * share - SMOOTHING) / event.sensitivity * (1.0 - 1e-12)
    bound = gaussian_epsilon(math.sqrt(event.steps) / multiplier, left)
    if share < SMALLEST_SHARED_NOISE or not SMALLEST_NOISE * 1.001 <= multiplier <= LARGEST_NOISE:
        return bound
    alone = event.model_copy(update={"sigma": share, "members": 1})
    if expected_disclosure(alone) > MAX_DISCLOSURE:
        return bound
    return min(bound, epsilon([alone], delta))


def calibrate_noise(epsilon: float, delta: float, sampling_rate: float, steps: int) -> float:
    """Return the noise multiplier for DP-SGD: the smallest within 1e-3, never below what (epsilon, delta) needs.

    The returned value itself has been priced: `epsilon([SubsampledGaussian(noise_multiplier=..., ...)], delta)` is at
    most `epsilon`.

    Raises
    ------
    PolicyError
        CSL-P104, CSL-P105 for a bad target; CSL-P107 when no noise from 0.1 to 10^6 hits it.
    DocumentError
        CSL-P108 for a sampling rate outside [1e-6, 1], or steps outside 1 to 10^6.
    """
    check_epsilon(epsilon)
    check_delta(delta)
    _check_plan(sampling_rate, steps)

    def build(sigma: float) -> PrivacyEvent:
        return SubsampledGaussian(noise_multiplier=sigma, sampling_rate=sampling_rate, steps=steps)

    start = _first_noise(epsilon, delta, sampling_rate, steps)
    return _smallest_sigma(build, epsilon, delta, start, SMALLEST_NOISE, LARGEST_NOISE)


def calibrate_histogram(epsilon: float, delta: float, count: int) -> float:
    """Return sigma for `count` histograms of discrete Gaussian counts: the smallest within 1e-3, never too small.

    Raises
    ------
    PolicyError
        CSL-P104, CSL-P105 for a bad target; CSL-P107 when no sigma from 0.1 to 65536 hits it.
    DocumentError
        CSL-P108 for a count outside 1 to 10^6.
    """
    check_epsilon(epsilon)
    check_delta(delta)
    _check_plan(1.0, count)

    def build(sigma: float) -> PrivacyEvent:
        return DiscreteGaussianHistogram(sigma=sigma, count=count)

    start = math.sqrt(count) / gaussian_mu(epsilon, delta)
    return _smallest_sigma(build, epsilon, delta, start, SMALLEST_NOISE, MAX_HISTOGRAM_SIGMA)


def calibrate_laplace(epsilon: float, delta: float, count: int) -> float:
    """Return the scale b for `count` histograms of discrete Laplace counts: the smallest within 1e-3, never too small.

    Raises
    ------
    PolicyError
        CSL-P104, CSL-P105 for a bad target; CSL-P107 when no b from 0.05 to 10^5 hits it.
    DocumentError
        CSL-P108 for a count outside 1 to 10^6.
    """
    check_epsilon(epsilon)
    check_delta(delta)
    _check_plan(1.0, count)

    def build(scale: float) -> PrivacyEvent:
        return DiscreteLaplaceHistogram(scale=scale, count=count)

    start = min(math.sqrt(count) / gaussian_mu(epsilon, delta), count / epsilon)
    return _smallest_sigma(build, epsilon, delta, start, MIN_SCALE, MAX_SCALE)


def calibrate_secure_sum(
    epsilon: float,
    delta: float,
    sampling_rate: float,
    steps: int,
    *,
    sensitivity: float,
    dimension: int,
    members: int,
) -> float:
    """Return the honest members' sigma together, in grid units, for secure sums: the smallest within 1e-3, at least 200,
    never too small.

    Parameters
    ----------
    epsilon, delta, sampling_rate, steps:
        As for `calibrate_noise`.
    sensitivity, dimension, members:
        As in `SecureSum`.

    Raises
    ------
    PolicyError
        CSL-P104, CSL-P105 for a bad target; CSL-P107 when no sigma up to 2 x 10^6 hits it.
    DocumentError
        CSL-P108 for a sampling rate outside [1e-6, 1], steps outside 1 to 10^6, or a sum that no `SecureSum` describes.
    """
    check_epsilon(epsilon)
    check_delta(delta)
    _check_plan(sampling_rate, steps)
    if not (0.0 < sensitivity <= MAX_SENSITIVITY and 1 <= dimension <= MAX_DIMENSION and 1 <= members <= MAX_MEMBERS):
        raise DocumentError(
            "CSL-P108",
            f"A secure sum has a sensitivity above 0 and up to 10^6 grid units, 1 to {MAX_DIMENSION} coordinates and 1 to "
            f"{MAX_MEMBERS} members, not {sensitivity}, {dimension} and {members}.",
            "Correct the study's privacy terms.",
        )

    def build(sigma: float) -> PrivacyEvent:
        return SecureSum(
            sigma=sigma,
            members=members,
            sensitivity=sensitivity,
            sampling_rate=sampling_rate,
            steps=steps,
            dimension=dimension,
        )

    least = max(
        SMALLEST_SHARED_NOISE,
        math.hypot(1.001 * SMALLEST_NOISE * sensitivity, math.sqrt(SMOOTHING)),
    )
    start = _first_noise(epsilon, delta, sampling_rate, steps) * sensitivity
    most = min(LARGEST_SHARED_NOISE, LARGEST_NOISE * sensitivity)
    if least > most:
        raise _out_of_reach(most, epsilon, delta)
    return _smallest_sigma(build, epsilon, delta, start, least, most)


def calibrate_sensitivity(
    epsilon: float,
    delta: float,
    sampling_rate: float,
    steps: int,
    *,
    sigma: float,
    dimension: int,
    members: int,
) -> float:
    """Return by how much one customer may change secure sums under a given noise: the largest within 1e-3, at most 10^6 grid
    units, never too large.

    The returned value itself has been priced: the `SecureSum` with this sensitivity costs at most `epsilon` at `delta`.

    Parameters
    ----------
    epsilon, delta, sampling_rate, steps:
        As for `calibrate_noise`.
    sigma, dimension, members:
        As in `SecureSum`.

    Raises
    ------
    PolicyError
        CSL-P104, CSL-P105 for a bad target; CSL-P107 when not even a millionth of sigma meets it.
    DocumentError
        CSL-P108 for a sampling rate outside [1e-6, 1], steps outside 1 to 10^6, or a sum that no `SecureSum` describes.
    """
    check_epsilon(epsilon)
    check_delta(delta)
    _check_plan(sampling_rate, steps)
    if not (
        SMALLEST_SHARED_NOISE <= sigma <= LARGEST_SHARED_NOISE
        and 1 <= dimension <= MAX_DIMENSION
        and 1 <= members <= MAX_MEMBERS
    ):
        raise DocumentError(
            "CSL-P108",
            f"A secure sum has noise from {SMALLEST_SHARED_NOISE:.0f} to {LARGEST_SHARED_NOISE:.0f} grid units, 1 to "
            f"{MAX_DIMENSION} coordinates and 1 to {MAX_MEMBERS} members, not {sigma}, {dimension} and {members}.",
            "Correct the study's privacy terms.",
        )
    clear = math.sqrt(sigma * sigma - SMOOTHING)

    def build(multiplier: float) -> SecureSum:
        return SecureSum(
            sigma=sigma,
            members=members,
            sensitivity=clear / multiplier,
            sampling_rate=sampling_rate,
            steps=steps,
            dimension=dimension,
        )

    least = max(1.001 * SMALLEST_NOISE, clear / MAX_SENSITIVITY)
    start = _first_noise(epsilon, delta, sampling_rate, steps)
    return build(_smallest_sigma(build, epsilon, delta, start, least, 0.999 * LARGEST_NOISE)).sensitivity


def _first_noise(epsilon: float, delta: float, sampling_rate: float, steps: int) -> float:
    """The central limit of Bu, Dong, Long, Su 2020: mu = q sqrt(T (e^(1/sigma^2) - 1)); a first guess, no more."""
    mu = gaussian_mu(epsilon, delta)
    if sampling_rate == 1.0:
        return math.sqrt(steps) / mu
    return float(math.log1p(mu**2 / (steps * sampling_rate**2)) ** -0.5)


def _check_plan(sampling_rate: float, steps: int) -> None:
    if not MIN_RATE <= sampling_rate <= 1.0 or not 1 <= steps <= MAX_STEPS:
        raise DocumentError(
            "CSL-P108",
            f"A plan has a sampling rate from {MIN_RATE:g} to 1 and 1 to {MAX_STEPS} steps, not {sampling_rate} and {steps}.",
            "Correct the study's privacy terms.",
        )


def _smallest_sigma(
    build: Callable[[float], PrivacyEvent], target: float, delta: float, start: float, smallest: float, largest: float
) -> float:
    """Secant on (ln sigma, ln epsilon) in a bracket; every sigma that is returned has been priced at most `target`."""

    def excess(log_sigma: float) -> float:
        event = build(math.exp(log_sigma))
        if expected_disclosure(event) > MAX_DISCLOSURE:
            return _CAP
        value = _epsilon(composed_distribution([event]), delta - numerical_delta([event]))
        return min(max(math.log(value / target), -_CAP), _CAP) if value > 0.0 else -_CAP

    floor, limit = math.log(smallest * (1.0 + 1e-12)), math.log(largest * (1.0 - 1e-12))
    unsafe, safe = -math.inf, math.inf
    trial = min(max(math.log(start), floor), limit)
    value, slope = excess(trial), -1.0
    while safe - unsafe > RELATIVE_TOLERANCE:
        if value <= 0.0:
            safe = trial
        else:
            unsafe = trial
        if trial == (floor if value <= 0.0 else limit):
            break
        following = min(max(trial - value / slope + _AIM, floor), limit)
        if not unsafe < following < safe:
            following = (max(unsafe, floor) + min(safe, limit)) / 2.0
        last, last_value, trial = trial, value, following
        value = excess(trial)
        slope = min(max((value - last_value) / (trial - last), -_STEEPEST), -1.0 / _STEEPEST)
        if 0.0 <= -value <= -slope * RELATIVE_TOLERANCE / 2.0:
            return math.exp(trial)
    if math.isfinite(safe):
        return math.exp(safe)
    raise _out_of_reach(largest, target, delta)


def _out_of_reach(largest: float, target: float, delta: float) -> PolicyError:
    return PolicyError(
        "CSL-P107",
        f"No noise up to {largest:.0f} brings these releases to epsilon {target} at delta {delta}.",
        "Ask for fewer steps or a larger budget.",
    )
