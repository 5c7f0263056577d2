"""Ways to deal rows out: by chance, by shares from a Dirichlet distribution within strata, and by putting small groups together."""

import heapq
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]


def heldout_count(size: int, share: float) -> int:
    """Return how many of an institution's customers are held out: the share, rounded, at least one, and never all."""
    return min(max(1, math.floor(share * size + 0.5)), size - 1) if size else 0


def least_size(smallest: int, share: float) -> int:
    """Return the smallest institution that has `smallest` customers to train on once its share is held out."""
    size = max(smallest, math.floor(smallest / (1.0 - share)) - 2)
    while size - heldout_count(size, share) < smallest:
        size += 1
    return size


def dealt(rows: int, count: int, draw: np.random.Generator) -> Integers:
    """Return who gets each row, int64 [rows]: sizes differ by one at most."""
    owner = np.arange(rows, dtype=np.int64) % count
    draw.shuffle(owner)
    return owner


def dirichlet(strata: Integers, alpha: float, count: int, draw: np.random.Generator) -> Integers:
    """Return who gets each row, int64 [n]: every stratum is dealt out by shares of its own from Dirichlet(alpha, ..., alpha).

    Hsu, Qi and Brown 2019, section 3, deal classes so; here each row goes to exactly one institution, and shares become counts by rounding
    their running sum.

    Parameters
    ----------
    strata:
        int64 [n], from 0.
    """
    owner = np.empty(len(strata), dtype=np.int64)
    for stratum in range(int(strata.max()) + 1):
        rows = draw.permutation(np.flatnonzero(strata == stratum))
        ends = np.floor(np.cumsum(draw.dirichlet(np.full(count, alpha))) * len(rows) + 0.5).astype(np.int64)
        ends[-1] = len(rows)
        owner[rows] = np.repeat(np.arange(count, dtype=np.int64), np.diff(ends, prepend=0))
    return owner


def topped_up(owner: Integers, count: int, least: int, draw: np.random.Generator) -> Integers:
    """Return who gets each row once the small are topped up to `least` rows, the smallest first, each from who is largest by then.

    Rows that move are drawn at random from those of who gives. Nothing moves where there are too few rows for all.
    """
    sizes = np.bincount(owner, minlength=count)
    if len(owner) < count * least or sizes.min() >= least:
        return owner
    found = owner.copy()
    order = draw.permutation(len(owner))
    grouped = order[np.argsort(owner[order], kind="stable")]
    ends = np.cumsum(sizes)
    givers = [(-int(size), place) for place, size in enumerate(sizes) if size > least]
    heapq.heapify(givers)
    for place in np.argsort(sizes, kind="stable")[: int(np.count_nonzero(sizes < least))]:
        wanted = least - int(sizes[place])
        while wanted:
            negative, giver = givers[0]
            given = min(wanted, -negative - least)
            found[grouped[ends[giver] - given : ends[giver]]] = place
            ends[giver] -= given
            wanted -= given
            if -negative - given > least:
                heapq.heapreplace(givers, (negative + given, giver))
            else:
                heapq.heappop(givers)
    return found


def tenths(values: NDArray[np.float64]) -> Integers:
    """Return each value's tenth, int64 [n]: 0 to 9 by the values' own deciles, equal values in one, and 10 for those that are missing."""
    known = ~np.isnan(values)
    if not known.any():
        return np.full(len(values), 10, dtype=np.int64)
    edges = np.quantile(values[known], np.arange(1, 10) / 10)
    return np.where(known, np.searchsorted(edges, values, side="left"), 10).astype(np.int64)


def together(sizes: Sequence[int], count: int) -> list[list[int]]:
    """Return which groups are put together so that `count` are left: again and again the two smallest.

    Each is a list of places in `sizes`, the largest first.
    """
    heap = [(size, place, [place]) for place, size in enumerate(sizes)]
    heapq.heapify(heap)
    while len(heap) > count:
        (small, first, some), (large, second, more) = heapq.heappop(heap), heapq.heappop(heap)
        heapq.heappush(heap, (small + large, min(first, second), some + more))
    groups = [sorted(places, key=lambda place: (-sizes[place], place)) for _, _, places in heap]
    return sorted(groups, key=min)
