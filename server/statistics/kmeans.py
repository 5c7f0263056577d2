"""k-means by noisy steps: where to start, how far to follow a noisy move, where to put an empty centre, and how many centres to keep.

Sources: D. Su, J. Cao, N. Li, E. Bertino, H. Jin, CODASPY 2016 (differentially private Lloyd with few steps); T. Su, J. G. Dy, Intelligent
Data Analysis 11 (2007) 319-338 (Var-Part, a start without randomness); W. James, C. Stein, Fourth Berkeley Symposium 1 (1961) 361-379
(shrinking); J. H. Ward, JASA 58 (1963) 236-244 (merging); T. Calinski, J. Harabasz, Communications in Statistics 3 (1974) 1-27.
"""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Places = NDArray[np.int64]
_STEPS = 50


def nearest(points: Floats, centres: Floats) -> tuple[Places, Floats]:
    """Return the index of the nearest centre and the squared distance to it, by point [n]."""
    place, least = np.zeros(len(points), dtype=np.int64), np.full(len(points), np.inf)
    for number, centre in enumerate(centres):
        distance = ((points - centre) ** 2).sum(axis=1)
        closer = distance < least
        place[closer], least[closer] = number, distance[closer]
    return place, least


def start(points: Floats, k: int) -> Floats:
    """Return k centres of public points [n, d], the same for the same points: Var-Part, then Lloyd's steps."""
    group = np.zeros(len(points), dtype=np.int64)
    for number in range(1, k):
        parts = [points[group == old] for old in range(number)]
        spread = np.stack([part.var(axis=0) * len(part) if len(part) else np.zeros(points.shape[1]) for part in parts])
        old = int(spread.sum(axis=1).argmax())
        column = int(spread[old].argmax())
        inside = group == old
        group[inside & (points[:, column] > points[inside, column].mean())] = number
    parts = [points[group == number] for number in range(k)]
    centres = np.stack([part.mean(axis=0) if len(part) else points.mean(axis=0) for part in parts])
    return settle(points, centres)


def settle(points: Floats, centres: Floats) -> Floats:
    """Return the centres after Lloyd's steps over public points, until they stay; one without points stays where it is."""
    for _ in range(_STEPS):
        place, _ = nearest(points, centres)
        size = np.bincount(place, minlength=len(centres))
        sums = np.stack([np.bincount(place, weights=column, minlength=len(centres)) for column in points.T], axis=1)
        moved = np.where(size[:, None] > 0, sums / np.maximum(size, 1)[:, None], centres)
        if np.allclose(moved, centres):
            break
        centres = moved
    return centres


def follow(move: Floats, variance: Floats) -> Floats:
    """Return noisy moves [k, d] shrunk towards none, by the positive part of James and Stein: what noise explains is not followed.

    `variance` [k] is that of the noise of each coordinate.
    """
    length = (move**2).sum(axis=1)
    gain = np.maximum(0.0, 1.0 - move.shape[1] * variance / np.maximum(length, 1e-300))
    return np.asarray(move * gain[:, None])


def reseed(centres: Floats, empty: NDArray[np.bool_], points: Floats) -> Floats:
    """Return the centres with each empty one put among those public points that the others serve worst."""
    result = centres.copy()
    kept = [number for number in range(len(centres)) if not empty[number]]
    for number in np.flatnonzero(empty):
        if not kept:
            return start(points, len(centres))
        place, distance = nearest(points, result[kept])
        worst = place == int(np.bincount(place, weights=distance).argmax())
        far = worst & (distance >= np.median(distance[worst]))
        result[number] = points[far].mean(axis=0)
        kept.append(int(number))
    return result


def merge(sizes: Floats, centres: Floats, least: int) -> dict[int, tuple[Floats, Floats, float]]:
    """Merge groups by Ward's rule, nearest first, down to `least`: by number of groups, sizes [k], centres [k, d], and the loss so far.

    The loss is by how much the squared distances to the centres have grown. Sizes are above 0.
    """
    loss = 0.0
    found = {len(sizes): (sizes, centres, 0.0)}
    while len(sizes) > least:
        apart = ((centres[:, None, :] - centres[None, :, :]) ** 2).sum(axis=2)
        cost = apart * sizes[:, None] * sizes[None, :] / (sizes[:, None] + sizes[None, :])
        cost[np.tril_indices(len(sizes))] = np.inf
        i, j = (int(number) for number in np.unravel_index(int(cost.argmin()), cost.shape))
        loss += float(cost[i, j])
        sizes, centres = sizes.copy(), centres.copy()
        both = sizes[i] + sizes[j]
        centres[i] = (sizes[i] * centres[i] + sizes[j] * centres[j]) / both
        sizes[i] = both
        sizes, centres = np.delete(sizes, j), np.delete(centres, j, axis=0)
        found[len(sizes)] = (sizes, centres, loss)
    return found


def choose(sizes: Floats, centres: Floats, inside: float, between: tuple[int, int]) -> Floats:
    """Return the centres of the groups to keep, as many within `between` as make Calinski and Harabasz's ratio largest.

    `inside` is the squared distance of all customers to the centres [k, d] that there are; `sizes` [k] are above 0.
    """
    total = float(sizes.sum())
    mean = sizes @ centres / total
    outside = float((sizes * ((centres - mean) ** 2).sum(axis=1)).sum())
    found = merge(sizes, centres, min(between[0], len(sizes)))
    scores: dict[int, float] = {}
    for k, (_, _, loss) in found.items():
        if between[0] <= k <= between[1]:
            scores[k] = (outside - loss) / (k - 1) * max(total - k, 1.0) / max(inside + loss, 1e-9 * total)
    best = max(sorted(scores), key=lambda k: scores[k]) if scores else len(sizes)
    return found[best][1]
