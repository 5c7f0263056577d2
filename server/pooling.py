"""The rule for studies whose gradients are added up in secret: clips, weights and scales that make every member's part of the sum as
large as its own budget allows, under noise that is common to all.

Every member adds noise of the same parameter `share`, in grid units; the one whose grant lets a customer change the sum by more may count
more. In the descent member i clips at C_i = C (B_i / B_max), where B_i is its granted sensitivity less what rounding takes; in the probes,
which a clip would bend, everybody clips at the same wide bound and weighs its sum by B_i / B_max instead.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from federation.messages import SecureGrant
from privacy.secure_aggregation.quantisation import rounding_of, scale_for, sensitivity_of
from server.recipe import RunTuning, TrainingPlan, tune

_DOWN = 1.0 - 1e-9
_BATCH_DEVIATIONS = 12.0


@dataclass(frozen=True)
class Pool:
    """What one kind of round (probe or descent) is asked for by; by member in the order of the declared sizes.

    `scale` is the number of grid units in 1; the mean gradient is sum / (scale * sum of weight_i q n_i over those in the sum). `x_max` is
    what a coordinate of one member's vector is expected to stay below, in grid units: it decides the width of the words.
    """

    scale: float
    clips: tuple[float, ...]
    weights: tuple[float, ...]
    x_max: float

    def noise(self, share: float, expected: Sequence[float]) -> float:
        """Return the standard deviation of the mean gradient in each coordinate; `expected` is q n_i of each member in the sum."""
        return (
            share
            * math.sqrt(len(expected))
            / (self.scale * math.fsum(w * n for w, n in zip(self.weights, expected, strict=True)))
        )


@dataclass(frozen=True)
class MemberPool:
    """A pool with clips and weights by member's name."""

    scale: float
    x_max: float
    clips: Mapping[str, float]
    weights: Mapping[str, float]

    @classmethod
    def of(cls, pool: Pool, members: Sequence[str]) -> Self:
        """Name the members of a pool, in its order."""
        return cls(
            scale=pool.scale,
            x_max=pool.x_max,
            clips=dict(zip(members, pool.clips, strict=True)),
            weights=dict(zip(members, pool.weights, strict=True)),
        )

    def mean(
        self, total: NDArray[np.int64], members: Collection[str], expected: Mapping[str, float]
    ) -> NDArray[np.float64]:
        """Return the mean gradient that a sum stands for: sum / (scale * sum of a_i q n_i over those in it).

        Parameters
        ----------
        total:
            The opened sum, int64 [d], in grid units.
        members:
            Those whose vectors are in it.
        expected:
            q n_i by member.
        """
        counted = math.fsum(self.weights[name] * expected[name] for name in members)
        mean: NDArray[np.float64] = total.astype(np.float64) / (self.scale * counted)
        return mean


@dataclass(frozen=True)
class PooledTuning:
    """The tuning of a study by secure sums: `tuning` as `server.recipe.tune` gives it, with the clips and noise of the pools."""

    tuning: RunTuning
    probe: Pool
    descent: Pool


def tune_pooled(plan: TrainingPlan, sizes: Sequence[int], grants: Sequence[SecureGrant], share: float) -> PooledTuning:
    """Return clips, weights and scales from what was granted.

    Parameters
    ----------
    sizes, grants:
        Declared sizes and grants of the members, in the same order.
    share:
        Parameter of every member's noise, in grid units.

    Raises
    ------
    DocumentError
        CSL-P820 when any grant is too small for the number of coordinates.
    """
    base = tune(plan, sizes, [0.0] * len(sizes))
    dimension = grants[0].dimension
    most = max(item.sensitivity for item in grants)
    rounding = rounding_of(dimension)
    ratios = tuple((item.sensitivity - rounding) / (most - rounding) for item in grants)
    expected = [plan.sampling_rate * size for size in sizes]
    clip, probe_clip = base.clips[0], base.probe_clips[0]
    scale_for(min(item.sensitivity for item in grants), clip, 1.0, dimension)  # refuses a grant that rounding eats
    ones = (1.0,) * len(sizes)
    descent = _pool(most, clip, dimension, tuple(clip * ratio * _DOWN for ratio in ratios), ones, expected)
    probe = _pool(most, probe_clip, dimension, (probe_clip,) * len(sizes), tuple(r * _DOWN for r in ratios), expected)
    for pool in (descent, probe):
        assert all(
            sensitivity_of(pool.scale, c, w, dimension) <= item.sensitivity
            for c, w, item in zip(pool.clips, pool.weights, grants, strict=True)
        )
    tuning = RunTuning(
        clips=descent.clips,
        probe_clips=probe.clips,
        weights=ones,
        noise=descent.noise(share, expected),
        probe_noise=probe.noise(share, expected),
        local_learning_rate=base.local_learning_rate,
        average_from=base.average_from,
        learning_rate=base.learning_rate,
        momentum=base.momentum,
    )
    return PooledTuning(tuning=tuning, probe=probe, descent=descent)


def _pool(
    sensitivity: float,
    clip: float,
    dimension: int,
    clips: tuple[float, ...],
    weights: tuple[float, ...],
    expected: Sequence[float],
) -> Pool:
    scale = scale_for(sensitivity, clip, 1.0, dimension)
    largest = max(batch + _BATCH_DEVIATIONS * math.sqrt(batch) + _BATCH_DEVIATIONS for batch in expected)
    return Pool(scale=scale, clips=clips, weights=weights, x_max=math.ceil(2.0 * largest * scale * clip))
