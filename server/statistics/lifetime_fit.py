"""BG/NBD and Gamma-Gamma from noisy counts: the probability of every cell is known exactly, so nothing is put at a cell's middle.

Both fits have one form. The counts of a table are expected to be M(theta) phi: theta the logarithms of the model's parameters, phi how many
customers there are of each kind that the model takes as given (by tenure, by days of purchase). The estimate solves
J' V^-1 (counts - M phi) = 0, where V is the counts' covariance *at the estimate*: chance and noise, both known. The counts enter
linearly and as they are, also below zero, so that noise moves the estimate but does not draw it to one side; a cell in which there is
nothing but noise weighs nothing. Without noise this is maximum likelihood over the cells.

A weak pull (`PULL_SD` in the logarithm, towards round numbers) keeps the estimate finite where the counts say nothing.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from federation.lifetime import Purchasing, Spending, chance_below, chance_of_none, chances

Floats = NDArray[np.float64]
PULL_SD = 2.0
START = (-0.7, -1.6, 0.0, 1.1)
"""log r, alpha (windows), a, b: where the search starts and where the pull draws to."""
SPEND_START = (0.7, 0.7, 0.3)
"""log p, q - 1, v (typical purchases)."""
_POINTS = 3
_SINGLY = 20
_GROWTH = 1.25
_STEP = 1e-4
_LONGEST = 0.7
_TURNS = 200
_SETTLED = 1e-5
_WIDEST = 8.0
_LEAST_VARIANCE = 0.25


@dataclass(frozen=True)
class Grid:
    """The public cells. Cuts increase and lie inside the columns' bounds; tenure's hold recency's, both shares of the window.

    Attributes
    ----------
    frequency, recency, tenure, monetary:
        Cuts; a cell holds its lower edge. The first of frequency is 2, so that single days of purchase stand alone.
    most:
        The highest number of days of purchase.
    """

    frequency: tuple[float, ...]
    recency: tuple[float, ...]
    tenure: tuple[float, ...]
    monetary: tuple[float, ...]
    most: int = 365

    @cached_property
    def repeats(self) -> tuple[tuple[Floats, Floats], ...]:
        """By cell of frequency: repeat days x, and how many whole numbers each stands for (more than one for large x)."""
        edges = [1, *(int(np.ceil(cut)) for cut in self.frequency), self.most + 1]
        return tuple(_whole(low - 1, high - 1) for low, high in zip(edges, edges[1:], strict=False))

    @cached_property
    def times(self) -> tuple[Floats, Floats]:
        """Tenures at which a cell of tenure is taken, [cells, points], and their weights, [points]: even within the cell."""
        points, weights = np.polynomial.legendre.leggauss(_POINTS)
        edges = np.array([0.0, *self.tenure, 1.0])
        return edges[:-1, None] + np.diff(edges)[:, None] * (0.5 + 0.5 * points), 0.5 * weights

    @cached_property
    def edges(self) -> Floats:
        """Edges of recency's cells."""
        return np.array([0.0, *self.recency, 1.0])


def _whole(low: int, high: int) -> tuple[Floats, Floats]:
    """Return whole numbers in [low, high) and weights by which a sum over a few of them stands for the sum over all (linear between)."""
    chosen = [number for number in range(low, min(high, _SINGLY))]
    number = max(low, _SINGLY)
    while number < high:
        chosen.append(number)
        number = high - 1 if number < high - 1 < number * _GROWTH else max(number + 1, int(number * _GROWTH))
    if chosen[-1] != high - 1:
        chosen.append(high - 1)
    weights = np.ones(len(chosen))
    for place, (left, right) in enumerate(zip(chosen, chosen[1:], strict=False)):
        between = right - left - 1
        weights[place] += between / 2.0
        weights[place + 1] += between / 2.0
    return np.array(chosen, dtype=np.float64), weights


def purchase_chances(model: Purchasing, grid: Grid) -> Floats:
    """Return the probability of each cell of frequency x recency by cell of tenure, float64 [frequency, recency, tenure]."""
    times, weights = grid.times
    low, high = grid.edges[:-1, None, None], grid.edges[1:, None, None]
    until = np.clip(times - grid.edges[:, None, None], 0.0, times)
    result = np.zeros((len(grid.repeats), len(grid.recency) + 1, len(times)))
    for place, (numbers, stands_for) in enumerate(grid.repeats):
        some = numbers > 0
        if not some.all():
            here = (times >= low) & (times < high)
            result[place] += (here * chance_of_none(model, times)) @ weights
        if some.any():
            each = chances(model, numbers[some, None, None, None], 0.0, until, times)
            below = np.einsum("xetq,x,q->et", each, stands_for[some], weights)
            result[place] += below[:-1] - below[1:]
    return result


def spend_chances(model: Spending, grid: Grid, shares: Sequence[Floats]) -> Floats:
    """Return the probability of each cell of monetary by cell of frequency, float64 [frequency, monetary].

    `shares` [numbers of the cell] says how a cell's customers are spread over its days of purchase.
    """
    edges = np.array([0.0, *grid.monetary, np.inf])
    rows = [
        share @ np.diff(chance_below(model, numbers[:, None] + 1.0, edges), axis=1)
        for (numbers, _), share in zip(grid.repeats, shares, strict=True)
    ]
    return np.array(rows)


def shares_within(model: Purchasing, grid: Grid, present: Floats) -> list[Floats]:
    """Return how a frequency cell's customers are spread over its days of purchase by the model; `present` [tenure], not negative."""
    times, weights = grid.times
    mass = (present[:, None] * weights).ravel()
    flat = times.ravel()
    result = []
    for numbers, stands_for in grid.repeats:
        chance = np.where(
            numbers[:, None] > 0,
            chances(model, np.maximum(numbers, 1.0)[:, None], 0.0, flat, flat),
            chance_of_none(model, flat),
        )
        parts = (chance @ mass) * stands_for
        result.append(parts / parts.sum() if parts.sum() > 0 else np.full(len(parts), 1.0 / len(parts)))
    return result


@dataclass(frozen=True)
class Fitted:
    """An estimate.

    Attributes
    ----------
    theta, phi:
        Logarithms of the parameters [k]; customers of each kind [m], which may be below 0.
    joint, joint_noise:
        Covariance of theta and phi together [k + m, k + m]: chance and noise; noise alone.
    settled:
        Whether the search came to rest.
    """

    theta: Floats
    phi: Floats
    joint: Floats
    joint_noise: Floats
    settled: bool

    @property
    def covariance(self) -> Floats:
        """Covariance of theta, [k, k]: chance and noise."""
        return self.joint[: len(self.theta), : len(self.theta)]

    @property
    def noise(self) -> Floats:
        """Covariance of theta, [k, k], by the noise alone."""
        return self.joint_noise[: len(self.theta), : len(self.theta)]


def purchasing_of(theta: Floats) -> Purchasing:
    """Return BG/NBD's parameters from their logarithms."""
    r, alpha, a, b = (float(item) for item in np.exp(theta))
    return Purchasing(r, alpha, a, b)


def spending_of(theta: Floats) -> Spending:
    """Return Gamma-Gamma's parameters from log p, log(q - 1), log v."""
    p, above, v = (float(item) for item in np.exp(theta))
    return Spending(p, 1.0 + above, v)


def fit_purchasing(grid: Grid, table: Floats, tenure: Floats, sds: tuple[float, float]) -> Fitted:
    """Fit BG/NBD to counts by frequency x recency and by tenure, in customers; `sds` of their noise; phi is by cell of tenure."""
    return _solve(_purchase_task(grid, table, tenure, sds), tenure)


def _purchase_task(grid: Grid, table: Floats, tenure: Floats, sds: tuple[float, float]) -> "_Task":
    kinds = tenure.size
    noise = np.concatenate([np.full(table.size, sds[0] ** 2), np.full(kinds, sds[1] ** 2)])

    def design(theta: Floats) -> Floats:
        cells = purchase_chances(purchasing_of(theta), grid).reshape(-1, kinds)
        return np.concatenate([cells, np.eye(kinds)])

    def variance(matrix: Floats, phi: Floats) -> Floats:
        present = np.maximum(phi, 0.0)
        both = matrix[:-kinds] * present
        chance = np.block([[np.diag(both.sum(axis=1)), both], [both.T, np.diag(present)]])
        return chance + np.diag(noise + _LEAST_VARIANCE)

    return _Task(np.concatenate([table.ravel(), tenure]), design, variance, noise, np.array(START))


def fit_spending(grid: Grid, table: Floats, sd: float, shares: Sequence[Floats]) -> Fitted:
    """Fit Gamma-Gamma to counts by frequency x monetary, in customers; phi is by cell of frequency."""
    kinds, cells = table.shape
    noise = np.full(table.size, sd**2)

    def design(theta: Floats) -> Floats:
        chance = spend_chances(spending_of(theta), grid, shares)
        matrix = np.zeros((kinds, cells, kinds))
        matrix[np.arange(kinds), :, np.arange(kinds)] = chance
        return matrix.reshape(-1, kinds)

    def variance(matrix: Floats, phi: Floats) -> Floats:
        return np.diag(matrix @ np.maximum(phi, 0.0) + noise + _LEAST_VARIANCE)

    return _solve(_Task(table.ravel(), design, variance, noise, np.array(SPEND_START)), table.sum(axis=1))


@dataclass(frozen=True)
class _Task:
    counts: Floats
    design: Callable[[Floats], Floats]
    variance: Callable[[Floats, Floats], Floats]
    noise: Floats
    start: Floats


def _solve(task: _Task, phi: Floats) -> Fitted:
    """Take Gauss-Newton steps with V renewed at every one, until none is longer than `_SETTLED` in any logarithm."""
    theta, phi, damping = task.start.copy(), np.asarray(phi, dtype=np.float64), 1.0
    pull = np.concatenate([np.full(len(theta), PULL_SD**-2), np.full(len(phi), 1e-12)])
    last = np.inf
    settled = False
    for _ in range(_TURNS):
        jacobian, matrix = _jacobian(task.design, theta, phi)
        weighted = np.linalg.solve(task.variance(matrix, phi), jacobian)
        gradient = weighted.T @ (task.counts - matrix @ phi)
        gradient[: len(theta)] -= (theta - task.start) / PULL_SD**2
        step = np.linalg.solve(jacobian.T @ weighted + np.diag(pull), gradient)
        length = float(np.max(np.abs(step[: len(theta)])))
        # V moves with the estimate, so that no sum of squares falls steadily: steps that do not shrink are halved instead.
        damping = max(damping * 0.5, 0.05) if length > 0.9 * last else min(damping * 1.5, 1.0)
        last = length
        scale = damping * min(1.0, _LONGEST / max(length * damping, 1e-300))
        theta = np.clip(theta + scale * step[: len(theta)], task.start - _WIDEST, task.start + _WIDEST)
        phi = phi + min(1.0, 2.0 * scale) * step[len(theta) :]
        if length < _SETTLED:
            settled = True
            break
    return _described(task, theta, phi, pull, settled)


def _described(task: _Task, theta: Floats, phi: Floats, pull: Floats, settled: bool) -> Fitted:
    jacobian, matrix = _jacobian(task.design, theta, phi)
    weighted = np.linalg.solve(task.variance(matrix, phi), jacobian)
    inverse = np.linalg.inv(jacobian.T @ weighted + np.diag(pull))
    answers = inverse @ weighted.T
    return Fitted(theta, phi, inverse, (answers * task.noise) @ answers.T, settled)


def _jacobian(design: Callable[[Floats], Floats], theta: Floats, phi: Floats) -> tuple[Floats, Floats]:
    """Return the derivatives of M phi by theta and phi, [counts, theta + phi], and M [counts, phi]."""
    matrix = design(theta)
    columns = []
    for place in range(len(theta)):
        moved = theta.copy()
        moved[place] += _STEP
        columns.append((design(moved) @ phi - matrix @ phi) / _STEP)
    return np.concatenate([np.stack(columns, axis=1), matrix], axis=1), matrix


def foreseen(grid: Grid, customers: float, sds: tuple[float, float]) -> Fitted:
    """Return how well a fit would tell a usual shop's purchases: so many customers, tenures even over the window, `START` its truth."""
    kinds = len(grid.tenure) + 1
    phi = customers * np.diff(np.array([0.0, *grid.tenure, 1.0]))
    task = _purchase_task(grid, np.zeros((len(grid.repeats), len(grid.recency) + 1)), np.zeros(kinds), sds)
    pull = np.concatenate([np.full(len(START), PULL_SD**-2), np.full(kinds, 1e-12)])
    return _described(task, np.array(START), phi, pull, True)
