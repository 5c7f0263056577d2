"""Which institutions are worked on together, and which of their rows: numbers alone, no customer's row is read here.

A *region* is a run of institutions whose customers are drawn in one piece. Its *groups*, each one task, are institutions of similar
sizes whose rows lie side by side in one padded array that stays in the cache. Neither depends on how many threads there are.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simulations.engines.draws import drawn
from simulations.engines.work import Integers

_GROUPS = 2  # at least so many, where there is work enough; more would feed more threads, and cost every one of them more calls
_WORTH, _SMALLEST = (
    1 << 18,
    3,
)  # float32 values and institutions in a group at least, for that aim: every operation has its price
_DRAWN = 1 << 23  # customers times steps that are drawn in one piece
_PADDING = 1 << 16  # float32 values of padding in a group: about what one more group costs


@dataclass(frozen=True)
class Costs:
    """What work takes, in float32 values: a customer `row` and an institution's `model`; a task should take `most`."""

    row: int
    model: int
    most: int

    def capacity(self, batch: float) -> int:
        """Return how many institutions with batches of this size are worked on at once, at least 1."""
        return max(1, int(self.most / (batch * self.row + self.model)))


@dataclass(frozen=True)
class Lottery:
    """How a round draws: seed, number of the round, number of different draws, and rate."""

    seed: int
    number: int
    steps: int
    rate: float


@dataclass(frozen=True, eq=False)
class Drawn:
    """Draws of some steps from a region.

    Attributes
    ----------
    rows:
        Rows of the whole job, int64 [m], step by step and in order.
    bounds:
        int64 [steps, k, 2]: where in `rows` each institution's part of a step begins and ends.
    """

    rows: Integers
    bounds: Integers

    def of(self, members: Integers) -> tuple[Integers, NDArray[np.bool_]]:
        """Return members' rows side by side, int64 [steps, G, B], and which of them are no padding, bool of the same shape.

        B is the largest draw's size; it may be 0.
        """
        bounds = np.take(self.bounds, members, axis=1)
        starts = bounds[:, :, :1]
        counts = bounds[:, :, 1:] - starts
        places = np.arange(counts.max(initial=0), dtype=np.int64)
        found = np.minimum(starts + places, max(0, len(self.rows) - 1))
        return self.rows[found], places < counts


class Draws:
    """All draws of a region in a round.

    Parameters
    ----------
    offsets:
        int64 [K + 1], as `Rows` has them.
    region:
        Institutions, int64 [k], in order; customers of others between them are drawn as well, and lead nowhere.
    """

    def __init__(self, lottery: Lottery, offsets: Integers, region: Integers) -> None:
        self._lottery = lottery
        self._ends = np.stack([offsets[region], offsets[region + 1]], axis=1)
        self._span = int(self._ends[0, 0]), int(self._ends[-1, 1])
        self._kept: Drawn | None = None

    def prepare(self, each: Callable[[Callable[[int], Integers], Iterable[int]], Iterable[Integers]]) -> None:
        """Draw all steps now, unless that takes too much memory; `each` applies a function, perhaps in several threads."""
        start, stop = self._span
        if (stop - start) * self._lottery.steps <= _DRAWN:
            self._kept = self._joined(each(self._step, range(self._lottery.steps)))

    def part(self, first: int, last: int) -> Drawn:
        """Return the draws of the steps from `first` to before `last`."""
        if self._kept is not None:
            return Drawn(self._kept.rows, self._kept.bounds[first:last])
        return self._joined(map(self._step, range(first, last)))

    def _step(self, step: int) -> Integers:
        start, stop = self._span
        rows: Integers = np.flatnonzero(
            drawn(self._lottery.seed, self._lottery.number, step, start, stop, self._lottery.rate)
        )
        rows += start
        return rows

    def _joined(self, steps: Iterable[Integers]) -> Drawn:
        found, bounds, before = [], [], 0
        for rows in steps:
            bounds.append(np.searchsorted(rows, self._ends) + before)
            found.append(rows)
            before += len(rows)
        return Drawn(np.concatenate(found), np.stack(bounds))


def regions(offsets: Integers, present: Integers, steps: int) -> Iterator[Integers]:
    """Yield runs of the present institutions (int64, in order) that together are all of them.

    One institution may be too large to draw all steps from at once; it is a region by itself.
    """
    start = 0
    for place in range(1, len(present) + 1):
        ended = place == len(present)
        if ended or (offsets[present[place] + 1] - offsets[present[start]]) * steps > _DRAWN:
            yield present[start:place]
            start = place


def groups(sizes: Integers, rate: float, costs: Costs) -> list[Integers]:
    """Return places of a region's institutions, int64, in groups: similar sizes together, the largest first.

    Parameters
    ----------
    sizes:
        Customers of each, int64 [k].
    rate:
        Probability that a customer is in a draw.
    """
    order = np.argsort(-sizes, kind="stable")
    work = costs.row * rate * float(sizes.sum()) + costs.model * len(sizes)
    count = max(1, min(_GROUPS, int(work / _WORTH), len(sizes) // _SMALLEST))
    count -= count % 2 if count > 1 else 0  # an odd one out keeps every other thread waiting
    found: list[Integers] = []
    start, padding = 0, 0.0
    for place in range(1, len(order)):
        largest = rate * float(sizes[order[start]])
        padding += (largest - rate * float(sizes[order[place]])) * costs.row
        share = -(-(len(order) - start) // max(1, count - len(found)))
        if place - start >= min(share, costs.capacity(largest)) or padding > _PADDING:
            found.append(order[start:place])
            start, padding = place, 0.0
    found.append(order[start:])
    return found
