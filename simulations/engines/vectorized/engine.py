"""The engine and its session: rounds cut into tasks, tasks into groups or blocks, and results added up in a fixed order.

Gradient sums at common weights do not care whose row is whose: rows of all institutions go through in blocks, each row weighed by its
institution's factor. Local steps part the institutions' weights: groups of institutions whose models and batches fit into the cache
take all their steps before the next group starts.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from simulations.engines.draws import NOISE, drawn, stream
from simulations.engines.threads import torch_threads
from simulations.engines.vectorized.grouping import Costs, Draws, Lottery, groups, regions
from simulations.engines.vectorized.held import Held
from simulations.engines.vectorized.kernels import kernel_of
from simulations.engines.vectorized.place import Buffers, Place, Workers, find_place
from simulations.engines.vectorized.steps import GroupSums, Task, changes, gradient_sums
from simulations.engines.work import Floats, Integers, Job, Work

Result = TypeVar("Result")

_MODELS = 6  # vectors [P] that one institution's local steps hold
_WORTH_THREADS = 1 << 17  # customers to draw from in a step, at least, before threads share the steps
_STRIPES = 8  # at least so many, where there are rows enough: for as many threads
_STRIPE_ROWS = (1 << 12, 1 << 16)


@dataclass(frozen=True)
class Vectorized:
    """Computes all institutions together, by one device and a few threads.

    The same seed gives the same results with any number of threads, on the same kind of device. Another engine makes the same draws, but
    other noise.

    Attributes
    ----------
    device:
        `cpu`, `cuda`, or `cuda:1` and so on.
    threads:
        Tasks at the same time on the CPU; None for as many as torch would use.
    """

    device: str = "cpu"
    threads: int | None = None

    @property
    def name(self) -> str:
        """`vectorized`, with the device where that is not the CPU."""
        return "vectorized" if self.device == "cpu" else f"vectorized:{self.device}"

    @contextmanager
    def open(self, job: Job) -> "Iterator[VectorizedSession]":
        """Start on a job. Meanwhile torch computes with one thread in each of the engine's.

        Raises
        ------
        ConsilienceError
            CSL-M210 where the GPU is not there, CSL-M211 for an unknown device or fewer threads than 1, CSL-M212 for a category code
            that the model does not know.
        """
        place = find_place(self.device, self.threads)
        with torch_threads(1), closing(Workers(place.threads)) as workers:
            yield VectorizedSession(job, place, workers)


class VectorizedSession:
    """An engine at work on one job.

    Local steps with a SCAFFOLD control move the institutions' own controls, so that each round is asked for once. Nor are a round's
    gradient sums the same releases when they are asked for one by one and combined: the draws are, the noise is not.
    """

    def __init__(self, job: Job, place: Place, workers: Workers) -> None:
        self._job, self._place, self._workers = job, place, workers
        self._kernel = kernel_of(job)
        self._held = Held(job.rows, self._kernel, place)
        self._width = job.layout.width
        count = job.rows.institutions
        self._sizes = np.diff(job.rows.offsets)
        self._owner = np.repeat(np.arange(count, dtype=np.int32), self._sizes)
        self._controls: Tensor | None = None
        self._costs = Costs(self._kernel.row_values, _MODELS * self._width, place.values)
        self._own = threading.local()

    def combine(self, work: Work, factors: Floats) -> Floats:
        """Return the sum over present institutions of factors[i] times release i: float64 [P].

        Gradient sums: independent normal noises add up to one normal noise, of variance sum_i (factors[i] noise[i])^2, so that one
        vector of it is drawn.
        """
        there = np.asarray(np.where(work.present, factors, 0.0), dtype=np.float64)
        if work.local is not None:
            return self._total(self._each_group(work, lambda task: self._weighed(task, there)))
        total = self._total(self._workers.each(lambda stripe: self._stripe(work, stripe, there), self._stripes()))
        deviation = float(np.sqrt(np.sum((there * np.where(work.present, work.noise, 0.0)) ** 2)))
        if deviation > 0.0:
            total += deviation * stream(self._job.seed, NOISE, work.number).standard_normal(self._width)
        return total

    def releases(self, work: Work) -> Floats:
        """Return every institution's release, float64 [K, P]; zero for who is absent."""
        found = np.zeros((len(self._sizes), self._width))
        for members, release in self._each_group(work, lambda task: (task.members, self._alone(task))):
            found[members] = release
        return found

    def _total(self, parts: Iterator[Floats]) -> Floats:
        total = np.zeros(self._width)
        for part in parts:
            total += part
        return total

    def _buffers(self) -> Buffers:
        """This thread's memory."""
        if not hasattr(self._own, "buffers"):
            self._own.buffers = Buffers(self._place.device)
        found: Buffers = self._own.buffers
        return found

    def _start(self, work: Work) -> Tensor:
        return self._place.put(work.weights.astype(np.float32))

    def _stripes(self) -> list[slice]:
        """Consecutive rows, one task each."""
        count, (least, most) = len(self._owner), _STRIPE_ROWS
        size = min(max(least, -(-count // _STRIPES)), max(most, self._place.values // self._kernel.row_values))
        return [slice(start, min(start + size, count)) for start in range(0, count, size)]

    @torch.inference_mode()
    def _stripe(self, work: Work, stripe: slice, factors: Floats) -> Floats:
        """Return the weighed clipped sums over the draw from a stripe, float64 [P]; float32 within one block."""
        hits = drawn(self._job.seed, work.number, 0, stripe.start, stripe.stop, work.rate)
        owner = self._owner[stripe]
        if not work.present.all():
            hits &= work.present[owner]
        places = np.flatnonzero(hits)
        owner, rows, buffers = owner[places], places + stripe.start, self._buffers()
        clip, factor = work.clip.astype(np.float32), factors.astype(np.float32)
        start, sums = self._start(work).unsqueeze(0), buffers.take("sums", 1, self._width)
        total = torch.zeros(1, self._width, dtype=torch.float64, device=self._place.device)
        size = max(1, self._place.values // self._kernel.row_values)
        for first in range(0, len(rows), size):
            here = slice(first, first + size)
            index, whose = self._place.put(rows[None, None, here]), owner[None, here]
            chosen = self._held.choose(index, self._place.put(clip[whose][None]))
            batch = self._held.batch(chosen, 0, slice(None), buffers, self._place.put(factor[whose]))
            self._kernel.add(start, batch, sums.zero_(), buffers, False)
            total.add_(sums)
        return np.asarray(total[0].cpu().numpy())

    def _each_group(self, work: Work, function: Callable[[Task], Result]) -> Iterator[Result]:
        """Yield what `function` makes of each group's task, in a fixed order."""
        job, local, offsets = self._job, work.local, self._job.rows.offsets
        full = local is not None and local.full
        rate = 1.0 if full else work.rate
        lottery = Lottery(job.seed, work.number, 1 if local is None or rate >= 1.0 else local.steps, rate)
        if self._controls is None and local is not None and local.control is not None:
            self._controls = torch.zeros(len(self._sizes), self._width, device=self._place.device)
        for region in regions(offsets, np.flatnonzero(work.present), lottery.steps):
            draws = Draws(lottery, offsets, region)
            draws.prepare(self._workers.each if _span(offsets, region) >= _WORTH_THREADS else map)
            sizes = self._sizes[region]
            means = (np.maximum(sizes, 1) if full else rate * job.declared[region]).astype(np.float32)
            yield from self._workers.each(
                function,
                [
                    Task(work, region[among], among, draws, means[among], rate * float(sizes[among].sum()))
                    for among in groups(sizes, rate, self._costs)
                ],
            )

    @torch.inference_mode()
    def _weighed(self, task: Task, factors: Floats) -> Floats:
        release = self._released(task).to(torch.float64)
        return np.asarray((self._place.put(factors[task.members]) @ release).cpu().numpy())

    @torch.inference_mode()
    def _alone(self, task: Task) -> Floats:
        return np.asarray(self._released(task).to(torch.float64).cpu().numpy())

    def _released(self, task: Task) -> Tensor:
        """Return a group's releases, float32 [G, P], until this thread's next."""
        local, buffers, start = task.work.local, self._buffers(), self._start(task.work)
        sums = GroupSums(task, self._kernel, self._held, self._place, self._job.seed, buffers)
        if local is None:
            return gradient_sums(start, sums, len(task.members))
        moving = self._kernel.head if local.head else slice(0, self._width)
        if local.control is None or self._controls is None:
            return changes(start, sums, task, local, moving, None, self._place, buffers)
        members = self._place.put(task.members)
        correction = self._place.put(local.control.astype(np.float32)) - self._controls[members]
        change = changes(start, sums, task, local, moving, correction, self._place, buffers)
        # Option II of SCAFFOLD (Karimireddy et al. 2020): what is kept follows from what is released, so that it costs no privacy.
        self._controls[members] = change.mul(-1.0 / (local.steps * local.rate)).sub_(correction)
        return change


def _span(offsets: Integers, region: Integers) -> int:
    return int(offsets[region[-1] + 1] - offsets[region[0]])
