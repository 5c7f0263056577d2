"""What groups of institutions release: clipped sums at common weights, or the changes that local DP-SGD steps make."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from privacy.dp_optimizer import LARGEST_CLIP
from simulations.engines.vectorized.grouping import Draws
from simulations.engines.vectorized.held import Chosen, Held
from simulations.engines.vectorized.kernels import Batch, Kernel
from simulations.engines.vectorized.normals import Normals
from simulations.engines.vectorized.place import Buffers, Place
from simulations.engines.work import Integers, Local, Work

_LARGEST = float(np.finfo(np.float32).max)
_FEWEST = 64  # rows of each institution that are worked on at once, at least
_AHEAD = 1 << 16  # numbers of noise, and of rows, that are found for several steps at once
Singles = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Task:
    """One group's part of a round.

    Attributes
    ----------
    members:
        Institutions, int64 [G]; `among` are their places in the region that was drawn from.
    means:
        float32 [G]: what a sum is divided by before it is a mean.
    expected:
        How many rows a step is likely to take.
    """

    work: Work
    members: Integers
    among: Integers
    draws: Draws
    means: Singles
    expected: float

    @property
    def steps(self) -> int:
        """Number of sums that are formed."""
        return 1 if self.work.local is None else self.work.local.steps

    @property
    def full(self) -> bool:
        """Whether every customer is in every step, neither clipped nor noised."""
        return self.work.local is not None and self.work.local.full

    @property
    def same(self) -> bool:
        """Whether every step takes the same rows."""
        return self.full or self.work.rate >= 1.0


class GroupSums:
    """Noisy clipped sums of one group's own models over its own draws, asked for step by step."""

    def __init__(self, task: Task, kernel: Kernel, held: Held, place: Place, seed: int, buffers: Buffers) -> None:
        work, count = task.work, len(task.members)
        self._task, self._kernel, self._held, self._place, self._buffers = task, kernel, held, place, buffers
        # Not clipped: no gradient of a logistic loss comes near the largest clip unless weights have long overflowed.
        clip = np.full(count, LARGEST_CLIP) if task.full else work.clip[task.members]
        noise = np.zeros(count) if task.full else work.noise[task.members]
        self._clip = clip.astype(np.float32)[:, None]
        self._scale = place.put(noise.astype(np.float32)[:, None]) if noise.any() else None
        self._normals = Normals(place.device, seed, work.number, int(task.members[0]))
        # Where nothing is clipped, nobody needs the other layers' norms.
        self._head_only = task.full and work.local is not None and work.local.head
        self._shape = count, len(work.weights)
        self._noise = buffers.take("noise", 0, *self._shape)
        self._window = range(0)
        self._chosen: Chosen | None = None

    def at(self, weights: Tensor, step: int) -> Tensor:
        """Return the sums of a step at weights [G, P]: float32 [G, P], until the next step's are asked for. Steps come in order."""
        out = self._noise_of(step)
        for batch in self._batches(step):
            self._kernel.add(weights, batch, out, self._buffers, self._head_only)
        return out

    def _noise_of(self, step: int) -> Tensor:
        if self._scale is None:
            return self._buffers.take("sums", *self._shape).zero_()
        ahead = max(1, _AHEAD // (self._shape[0] * self._shape[1]))
        if step % ahead == 0:
            count = min(ahead, self._task.steps - step)
            self._noise = self._buffers.take("noise", count, *self._shape)
            self._normals.scaled(self._scale, self._noise, self._buffers)
        return self._noise[step % ahead]

    def _batches(self, step: int) -> Iterator[Batch]:
        """Yield a step's rows, as many at once as stay in the cache."""
        if self._task.same:
            step = 0
        if step not in self._window or self._chosen is None:
            self._window, self._chosen = self._choose(step)
        place, (count, rows) = step - self._window.start, self._chosen.rows.shape[1:]
        size = max(_FEWEST, self._place.values // (count * self._kernel.row_values))
        for start in range(0, rows, size):
            yield self._held.batch(self._chosen, place, slice(start, min(start + size, rows)), self._buffers)

    def _choose(self, step: int) -> tuple[range, Chosen]:
        """Find the rows of this step, and those of the next few where they are not many."""
        ahead = 1 if self._task.same else max(1, int(_AHEAD / max(1.0, self._task.expected)))
        last = min(step + ahead, self._task.steps)
        rows, real = self._task.draws.part(step, last).of(self._task.among)
        return range(step, last), self._held.choose(self._place.put(rows), self._place.put(real * self._clip))


def gradient_sums(start: Tensor, sums: GroupSums, count: int) -> Tensor:
    """Return each member's noisy clipped sum at common weights `start` [P]: float32 [G, P], until the buffers are used again."""
    return sums.at(start.expand(count, -1).contiguous(), 0)


def changes(
    start: Tensor,
    sums: GroupSums,
    task: Task,
    local: Local,
    moving: slice,
    correction: Tensor | None,
    place: Place,
    buffers: Buffers,
) -> Tensor:
    """Take the local steps of `simulations.engines.work.Local` and return the changes: float32 [G, P], until the buffers are used again.

    What is kept is the change, not the weights: it is small, so that float32 holds it well.

    Parameters
    ----------
    start:
        Weights at which all start, float32 [P].
    moving:
        Part of the flat vector that may move.
    correction:
        SCAFFOLD's c - c_i, float32 [G, P]; None without.
    """
    shape = (len(task.members), len(start))
    change, at = buffers.take("change", *shape).zero_(), buffers.take("weights", *shape)
    at.copy_(start.expand(shape))
    velocity = buffers.take("velocity", *shape).zero_() if local.momentum else None
    first = local.steps // 2 if local.tail else local.steps - 1
    tail = buffers.take("tail", *shape).zero_() if first < local.steps - 1 else change
    lengths = place.put((local.rate / task.means)[:, None])
    for step in range(local.steps):
        gradient = sums.at(at, step)
        if velocity is not None:
            gradient = velocity.mul_(local.momentum).add_(gradient)
        if local.proximal:
            change.mul_(1.0 - local.rate * local.proximal)
        change[:, moving].addcmul_(gradient[:, moving], lengths, value=-1.0)
        if correction is not None:
            change[:, moving].sub_(correction[:, moving], alpha=local.rate)
        if step < local.steps - 1:
            torch.add(change, start, out=at)
        if tail is not change and step >= first:
            tail.add_(change)
    if tail is not change:
        tail.div_(local.steps - first)
    return tail.clamp_(-_LARGEST, _LARGEST)
