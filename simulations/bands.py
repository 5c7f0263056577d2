"""Whether a published curve's band holds what it says: the same training repeated, on the same customers, with fresh noise and draws.

The spread of the curves over these runs is what a band claims to know. Draws and noise are seeded, so that a figure can
be repeated: nothing here is a private run.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from client.training import gradient_sum
from federation.basis import Basis, Pair
from federation.contract import FeatureContract
from federation.networks import load_weights
from federation.shape_noise import BAND
from server.course import LinearCourse
from server.uncertainty import Sources, weight_covariance
from simulations.quality import Desk, Run
from simulations.seeded import SeededSource

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Repeats:
    """One term's curve in every run and the deviations `claimed` for it, float64 [runs, points]; a column's last point is "missing"."""

    term: str
    curves: Floats
    claimed: Floats

    @property
    def spread(self) -> Floats:
        """Standard deviation of the curves over the runs, float64 [points]."""
        return np.asarray(self.curves.std(axis=0, ddof=1))

    @property
    def covered(self) -> Floats:
        """Share of runs whose band holds the mean curve of all runs, float64 [points]."""
        return np.asarray((np.abs(self.curves - self.curves.mean(axis=0)) <= BAND * self.claimed).mean(axis=0))


def finished(desks: Sequence[Desk], run: Run, seed: str) -> LinearCourse:
    """Run every round of a `fedsgd` study and return its course; each institution draws from a seeded source of its own."""
    sources = {desk.party.member: SeededSource(f"{seed}/{desk.party.member}") for desk in desks}
    course: LinearCourse = run.course
    for _ in range(run.training.rounds):
        load_weights(run.network, course.broadcast())
        clips = course.clips()
        course = course.after(
            {
                desk.party.member: gradient_sum(
                    run.network,
                    desk.training,
                    desk.training_labels,
                    clip=clips[desk.party.member],
                    noise_multiplier=run.noise[desk.party.member],
                    sampling_rate=run.training.sampling_rate,
                    source=sources[desk.party.member],
                )
                for desk in desks
            }
        )
    return course


def repeat(
    desks: Sequence[Desk], run: Run, contract: FeatureContract, runs: int, seed: str, pairs: tuple[Pair, ...] = ()
) -> list[Repeats]:
    """Train `runs` times and return every term's curves with what was claimed of each.

    Curves are centred on the plain mean over their points, and a pair's surface stands as it is, as a card's deviations are.
    """
    basis = Basis.of(contract, "additive", pairs)
    rows = {name: _centred(basis, name) for name in basis.blocks}
    curves: dict[str, list[Floats]] = {name: [] for name in rows}
    claimed: dict[str, list[Floats]] = {name: [] for name in rows}
    for number in range(runs):
        course = finished(desks, run, f"{seed}/{number}")
        weights = course.model()["linear.weight"][0].astype(np.float64)
        covariance = weight_covariance(course, basis, contract, Sources.of(course.terms, {}))
        for name, place in basis.blocks.items():
            variances = np.einsum("pd,de,pe->p", rows[name], covariance[place, place], rows[name])
            curves[name].append(rows[name] @ weights[place])
            claimed[name].append(np.sqrt(np.maximum(variances, 0.0)))
    return [Repeats(name, np.array(curves[name]), np.array(claimed[name])) for name in rows]


def coverage(found: Sequence[Repeats]) -> float:
    """Return the share of all runs and points whose band holds."""
    return float(np.concatenate([item.covered for item in found]).mean())


def _centred(basis: Basis, term: str) -> Floats:
    rows = basis.table(term)
    if term in basis.pairs:
        return rows
    return np.asarray(np.vstack([rows, basis.absent_row(term)]) - rows.mean(axis=0))
