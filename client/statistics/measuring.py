"""A vault's exact answer to measures: integers that must never leave without noise.

What one customer adds is computed from her own record alone, coordinate by coordinate: were it the product of matrices, another customer's
presence could move the last bits of hers, and with a centre put there, her cell. Sums are of integers below 2^53 in float64, so exact.
"""

import math
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from client.statistics.people import People
from federation.contract import FeatureContract
from federation.measures import (
    At,
    BinsAxis,
    Cells,
    Centres,
    Condition,
    Factor,
    GroupsAxis,
    RulesAxis,
    columns_of,
    groups_of,
    shape_of,
)


def measure_all(measures: Iterable[Cells | Centres], people: People, contract: FeatureContract) -> NDArray[np.int64]:
    """Return the vector of all measures over these customers, int64 [federation.measures.dimension_of]: exact, and without noise."""
    return np.concatenate([_measure(item, people, contract).ravel() for item in measures])


def _measure(item: Cells | Centres, people: People, contract: FeatureContract) -> NDArray[np.int64]:
    taken = _taken(item, people, contract)
    if isinstance(item, Cells):
        return _cells(item, taken, people, contract)
    return _centres(item, taken, people, contract)


def _taken(item: Cells | Centres, people: People, contract: FeatureContract) -> NDArray[np.bool_]:
    """Return who is counted: there at a time that the measure looks at, fulfilling its conditions, with every factor known."""
    times: set[At] = {at for _, at in columns_of([item])} or {"start"}
    taken = np.zeros(people.size, dtype=bool)
    for at in times:
        taken |= people.here(at)
    taken &= _fulfil(item.where, people, contract)
    factors = item.factors if isinstance(item, Centres) else [factor for term in item.terms for factor in term.factors]
    for factor in factors:
        taken &= ~np.isnan(people.number(factor.column, factor.at))
    return taken


def _fulfil(where: Sequence[Condition], people: People, contract: FeatureContract) -> NDArray[np.bool_]:
    result = np.ones(people.size, dtype=bool)
    for item in where:
        result &= _holds(item, people, contract)
    return result


def _holds(item: Condition, people: People, contract: FeatureContract) -> NDArray[np.bool_]:
    if item.any_of is not None:
        groups = groups_of(item.column, contract)
        return np.isin(people.code(item.column, item.at), [groups.index(name) for name in item.any_of])
    numbers = people.number(item.column, item.at)
    if item.missing:
        return np.isnan(numbers) & (people.code(item.column, item.at) < 0)
    with np.errstate(invalid="ignore"):
        at_least = numbers >= (-math.inf if item.ge is None else item.ge)
        return at_least & (numbers < (math.inf if item.lt is None else item.lt))


def cell_of(axis: BinsAxis | GroupsAxis | RulesAxis, people: People, contract: FeatureContract) -> NDArray[np.int64]:
    """Return each customer's cell on an axis, int64 [n]."""
    if isinstance(axis, BinsAxis):
        numbers = people.number(axis.column, axis.at)
        places = np.searchsorted(np.asarray(axis.cuts), numbers, side="right")
        return np.where(np.isnan(numbers), len(axis.cuts) + 1, places).astype(np.int64)
    if isinstance(axis, GroupsAxis):
        codes = people.code(axis.column, axis.at)
        return np.where(codes < 0, len(groups_of(axis.column, contract)), codes)
    result = np.full(people.size, len(axis.rules), dtype=np.int64)
    for place in range(len(axis.rules) - 1, -1, -1):
        result[_fulfil(axis.rules[place].where, people, contract)] = place
    return result


def _scaled(factor: Factor, people: People) -> NDArray[np.float64]:
    """Return a factor in [-1, 1], NaN where it is unknown, float64 [n].

    Logarithms are taken one by one: a vectorised one may differ in its last bit with the value's place in the array.
    """
    numbers = np.clip(people.number(factor.column, factor.at), factor.low, factor.high)
    if factor.scale == "log":
        logs = np.fromiter(map(math.log1p, (numbers - factor.low).tolist()), np.float64, people.size)
        return np.clip(2.0 * (logs / math.log1p(factor.high - factor.low)) - 1.0, -1.0, 1.0)
    return np.clip((2.0 * numbers - factor.low - factor.high) / (factor.high - factor.low), -1.0, 1.0)


def _cells(item: Cells, taken: NDArray[np.bool_], people: People, contract: FeatureContract) -> NDArray[np.int64]:
    shape = shape_of(item, contract)
    total = math.prod(shape[1:])
    if item.axes:
        places = [cell_of(axis, people, contract)[taken] for axis in item.axes]
        index = np.ravel_multi_index(places, shape[1:])
    else:
        index = np.zeros(int(np.count_nonzero(taken)), dtype=np.int64)
    rows = []
    for term in item.terms:
        part = np.ones(len(index))
        for factor in term.factors:
            part = part * _scaled(factor, people)[taken]
        rows.append(np.bincount(index, weights=np.rint(part * term.cap), minlength=total))
    return np.rint(np.stack(rows)).astype(np.int64).reshape(shape)


def _centres(item: Centres, taken: NDArray[np.bool_], people: People, contract: FeatureContract) -> NDArray[np.int64]:
    points = [_scaled(factor, people)[taken] for factor in item.factors]
    size, count = int(np.count_nonzero(taken)), len(item.centres)
    nearest, least = np.zeros(size, dtype=np.int64), np.full(size, np.inf)
    for place, centre in enumerate(item.centres):
        distance = np.zeros(size)
        for point, coordinate in zip(points, centre, strict=True):
            distance += (point - coordinate) ** 2
        closer = distance < least
        nearest[closer], least[closer] = place, distance[closer]
    moves = [
        (point - np.asarray([centre[j] for centre in item.centres])[nearest]) / item.radius
        for j, point in enumerate(points)
    ]
    norm = np.zeros(size)
    for move in moves:
        norm += move**2
    reach = item.reach / np.maximum(np.sqrt(norm), 1.0)
    columns = [np.bincount(nearest, minlength=count) * float(item.cap)]
    # An integer vector no larger in any coordinate than one of norm reach (1 + 1e-14) has norm <= reach, as reach^2 <= 1e12.
    shifts = [np.bincount(nearest, weights=np.trunc(move * reach), minlength=count) for move in moves]
    return np.rint(np.stack([*columns, *shifts], axis=1)).astype(np.int64).reshape(shape_of(item, contract))
