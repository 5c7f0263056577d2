"""How the noise of privacy ends up in a published curve: the covariance of the tail-averaged weights, from public numbers alone.

*The descent is linear in the noise.* A round's mean gradient is the gradient of the clipped loss, plus noise of standard
deviation s in every coordinate, plus what the random draw of customers does. Near the path that the descent would take
without either, the gradient is H times the weights. So a round's noise reaches the model through a matrix R_t, found
backwards from the average over the last rounds (the adjoint of `server.descent`, with its projection, momentum and
shrinking Newton steps), and the covariance is the sum of R_t (s^2 I + D) R_t'. Given H and D that is all, but for the
probes' noise in the direction of the projection.

*H is the customers', and not known.* Known are the probes: the mean encoded row m and the base rate r. For every column
m says how often each knot or category is met; within a column the second moments follow, with values spread evenly
between neighbouring knots. A customer whose gradient is clipped adds no curvature, and nearly all of the rarer outcome's
are. D is (1 - q) / (q n) times the second moment of the clipped gradients, from the same numbers.

*Between columns* nothing public tells how they go together. Independence would be the bold guess: of columns that go
together, such as recency and frequency, some directions have hardly any curvature, and there the noise stays. No
curvature at all would be the bound: the response of a stable heavy-ball step to an impulse after k rounds is a Chebyshev
polynomial of the second kind, greatest at the end of its interval, where the curvature is zero. The rule lies between:
every column is taken to have one twin that says the same. Of the two, the sum has twice the curvature and the difference
none, so that a column's covariance is half of what 2H gives and half of what 0 gives.

The rule is checked, not proved: `simulations.bands` repeats trainings and counts how often a band holds. Sampling error,
of which customers there are at all, is not in it: no public number tells it.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from federation.basis import Basis
from federation.contract import FeatureContract, NumericColumn
from federation.shape_noise import ShapeNoise
from federation.study import AdditiveModel, StudySpec
from server.course import Course, LinearCourse, Terms
from server.descent import Moments, rate_along, step_size
from server.recipe import PROBES

Floats = NDArray[np.float64]

_APART = 0.5
_SUM_TO_ONE = 100.0  # weight of the equation that shares add up to 1
_DIGITS = 4
_WIDEST = 1000  # encoded columns: beyond, the covariance takes minutes and a card would hold a book
_MOST_OF_STABLE = 0.9


@dataclass(frozen=True)
class Surrogate:
    """Public stand-ins for what only the customers tell.

    Attributes
    ----------
    spread:
        Covariance of the encoded rows, float64 [d, d], zero between terms.
    curvature:
        Mean curvature of the clipped loss in the logit.
    residual:
        Mean square of the clipped residual.
    """

    spread: Floats
    curvature: float
    residual: float


@dataclass(frozen=True)
class Sources:
    """Standard deviations of a round's mean gradient: `noise` in each coordinate; `draw`, per root of the gradients' second moment; and
    `probe`, of a probe's in each coordinate."""

    noise: float
    draw: float
    probe: float

    @classmethod
    def of(cls, terms: Terms, attendance: Mapping[str, float]) -> "Sources":
        """Derive them from a study's public numbers.

        Parameters
        ----------
        attendance:
            By member the share of rounds that it took part in; who is not named took part in all. Where members missed rounds the noise is
            that of the mean round, as if each of them were as loud as the others.
        """
        weights = terms.weights
        whole = math.fsum(weights[name] * size for name, size in terms.expected.items())
        there = math.fsum(weights[name] * size * attendance.get(name, 1.0) for name, size in terms.expected.items())
        louder = math.sqrt(whole / there) if there > 0 else 1.0
        drawn = math.fsum(weights[name] ** 2 * size for name, size in terms.expected.items())
        draw = math.sqrt((1.0 - terms.plan.sampling_rate) * drawn) / whole
        return cls(louder * terms.tuning.noise, louder * draw, louder * terms.tuning.probe_noise)


def shape_noise(
    spec: StudySpec, course: Course, contract: FeatureContract, attendance: Mapping[str, float] | None = None
) -> tuple[ShapeNoise, ...]:
    """Return the deviations of every curve and surface of a finished study.

    None for other models, for another descent than the recipe's, and for so many encoded columns that a card could not hold them.

    Parameters
    ----------
    attendance:
        As `Sources.of` takes it.
    """
    model = spec.draft.model
    if not isinstance(model, AdditiveModel) or not isinstance(course, LinearCourse) or not course.averaged:
        return ()
    basis = Basis.of_model(contract, model)
    if basis.width > _WIDEST:
        return ()
    covariance = weight_covariance(course, basis, contract, Sources.of(course.terms, attendance or {}))
    return tuple(_of_term(basis, term, covariance[place, place]) for term, place in basis.blocks.items())


def weight_covariance(course: LinearCourse, basis: Basis, contract: FeatureContract, sources: Sources) -> Floats:
    """Return the covariance of the model's weights, without the intercept, float64 [d, d]."""
    moments = course.state.moments(course.terms.tuning)
    clip = max(course.terms.tuning.clips)
    found = surrogate_of(basis, contract, moments, clip)
    with_twin, against_it = (
        propagate(course.terms, moments, replace(found, spread=_stable(share * found.spread, found, course)), sources)
        for share in (2.0, 0.0)
    )
    return np.asarray(0.5 * (with_twin + against_it))


def _stable(spread: Floats, found: Surrogate, course: LinearCourse) -> Floats:
    """Return the spread without what no stable descent could have met: a heavy-ball step diverges from 2 (1 + momentum) on."""
    step, momentum = step_size(course.terms.plan, course.terms.tuning, course.state.moments(course.terms.tuning))
    return _between(spread, _MOST_OF_STABLE * 2.0 * (1.0 + momentum) / max(step * found.curvature, 1e-12))


def surrogate_of(basis: Basis, contract: FeatureContract, moments: Moments, clip: float) -> Surrogate:
    """Return what the probes' answer says about curvature, when columns are taken to be independent of each other.

    Parameters
    ----------
    clip:
        The descent's largest clip.
    """
    spread = np.zeros((basis.width, basis.width))
    numeric = {column.name for column in contract.columns if isinstance(column, NumericColumn)}
    for term, place in basis.blocks.items():
        rows = np.vstack([basis.table(term), basis.absent_row(term)])
        mean = moments.mean[place]
        seconds = _seconds(_shares(rows, mean), chained=term in numeric)
        found = rows.T @ seconds @ rows - np.outer(mean, mean)
        spread[place, place] = _between(found, math.inf)
    rate, longest = moments.rate, clip / math.sqrt(float(np.trace(spread)) + moments.power)
    outcomes = ((rate, 1.0 - rate), (1.0 - rate, rate))  # how frequent, and the residual of the average customer
    curvature = math.fsum(share * moments.curvature for share, residual in outcomes if residual <= longest)
    residual = math.fsum(share * min(residual, longest) ** 2 for share, residual in outcomes)
    return Surrogate(spread, curvature, residual)


def propagate(terms: Terms, moments: Moments, surrogate: Surrogate, sources: Sources) -> Floats:
    """Return the covariance of the tail-averaged weights, float64 [d, d]: the adjoint of the descent, from its last round to its first."""
    mean, power, width = moments.mean, moments.power, len(moments.mean)
    step, momentum = step_size(terms.plan, terms.tuning, moments)
    averaged = terms.plan.rounds - terms.tuning.average_from + 1
    # how the average depends on weights, velocity and intercept after a round
    on_weights, on_velocity, on_intercept = np.zeros((width, width)), np.zeros((width, width)), np.zeros(width)
    covariance = np.zeros((width, width))
    drawn = sources.draw**2 * surrogate.residual
    second = surrogate.spread + np.outer(mean, mean)
    for done in range(terms.plan.rounds - 1, PROBES - 1, -1):
        if done + 1 >= terms.tuning.average_from:
            on_weights[np.diag_indices(width)] += 1.0 / averaged
        across = on_velocity - step * on_weights
        lowered = -(on_weights @ mean / power + on_intercept) * rate_along(done, terms.plan, terms.tuning, moments)
        towards_mean = (lowered - across @ mean) / power
        by_weights = across + np.outer(towards_mean, mean)
        covariance += sources.noise**2 * (by_weights @ by_weights.T + np.outer(towards_mean, towards_mean))
        cross = np.outer(by_weights @ mean, towards_mean)
        covariance += drawn * (
            by_weights @ second @ by_weights.T + cross + cross.T + np.outer(towards_mean, towards_mean)
        )
        on_weights = on_weights + surrogate.curvature * by_weights @ surrogate.spread
        on_velocity = momentum * across
        on_intercept = on_intercept + surrogate.curvature * lowered
    return covariance + _of_start(moments, sources.probe, on_weights, on_intercept)


def _of_start(moments: Moments, noise: float, on_weights: Floats, on_intercept: Floats) -> Floats:
    """What the probes' noise does through the start, (w, b) = L (m, 1) / (|m|^2 + 1): by the mean row, and by the base rate."""
    mean, power = moments.mean, moments.power
    shared = on_weights @ mean
    by_mean = moments.logit / power * (on_weights - np.outer(shared, mean) * 2.0 / power)
    by_rate = shared / power + on_intercept
    of_mean, of_logit = math.sqrt(2.0) * noise / _APART, math.sqrt(0.5) * noise / moments.curvature
    return np.asarray(of_mean**2 * by_mean @ by_mean.T + of_logit**2 * np.outer(by_rate, by_rate))


def _shares(rows: Floats, mean: Floats) -> Floats:
    """How often each row is met, float64 [rows]: the shares, none below 0 and all together 1, whose mean row is nearest to `mean`."""
    found, _ = nnls(
        np.vstack([rows.T, np.full((1, len(rows)), _SUM_TO_ONE)]), np.append(mean, _SUM_TO_ONE), maxiter=100 * len(rows)
    )
    return np.asarray(found / found.sum())


def _seconds(shares: Floats, *, chained: bool) -> Floats:
    """Mean products of the rows' weights: a number lies between two knots, so that neighbours are met together; the last row is "missing".

    Rows of the result add up to `shares`, and neighbours share a third of what they would if all lay half-way: values spread evenly.
    """
    seconds = np.diag(shares)
    if chained:
        left, right = shares[:-2], shares[1:-1]
        beside = left * right / np.maximum(left + right, 1e-12) / 3.0
        near = np.diag(beside, 1)[: len(beside) + 1, : len(beside) + 1]
        near = near + near.T
        seconds[:-1, :-1] += near - np.diag(near.sum(axis=1))
    return seconds


def _between(matrix: Floats, most: float) -> Floats:
    """Return the symmetric matrix with its eigenvalues held between 0 and `most`."""
    values, vectors = np.linalg.eigh(matrix)
    return np.asarray((vectors * np.clip(values, 0.0, most)) @ vectors.T)


def _of_term(basis: Basis, term: str, covariance: Floats) -> ShapeNoise:
    rows, absent = basis.table(term), basis.absent_row(term)
    centre = np.zeros_like(absent) if term in basis.pairs else rows.mean(axis=0)
    missing = 0.0 if term in basis.pairs else _deviation(absent - centre, covariance)
    return ShapeNoise(
        term=term, deviations=tuple(_deviation(row - centre, covariance) for row in rows), missing=missing
    )


def _deviation(row: Floats, covariance: Floats) -> float:
    """Rounded to four digits: a card is for people too."""
    return float(f"{math.sqrt(max(0.0, float(row @ covariance @ row))):.{_DIGITS}g}")
