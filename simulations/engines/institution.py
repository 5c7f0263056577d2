"""What one institution computes in a simulated round: the product's own noisy sums, over draws that every engine makes alike."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from client.training import noisy_sums
from federation.document import Document
from federation.networks import Inputs, MlpNetwork, Network, build, load_weights
from privacy.bookkeeping import BookKeeper
from privacy.dp_optimizer import LARGEST_CLIP
from simulations.engines.draws import drawn
from simulations.engines.work import Floats, Job, Layout, Local, Work
from simulations.seeded import SeededSource

Release = NDArray[np.float32]
_LARGEST = float(np.finfo(np.float32).max)
_HEAD = "head."  # of `MlpNetwork`


class Steps(Document):
    """The plain values of `simulations.engines.work.Local`; `controlled` says that the server's control comes with the weights."""

    steps: int
    rate: float
    momentum: float
    proximal: float
    tail: bool
    full: bool
    head: bool
    controlled: bool


class Order(Document):
    """One institution's part of a `Work`, but for the vectors that all share."""

    number: int
    clip: float
    noise: float
    rate: float
    local: Steps | None

    @classmethod
    def of(cls, work: Work, place: int) -> "Order":
        """Return what a round asks of the institution in this place."""
        return cls(
            number=work.number,
            clip=float(work.clip[place]),
            noise=float(work.noise[place]),
            rate=float(work.rate),
            local=None if work.local is None else _plain(work.local),
        )


def _plain(local: Local) -> Steps:
    return Steps(
        steps=int(local.steps),
        rate=float(local.rate),
        momentum=float(local.momentum),
        proximal=float(local.proximal),
        tail=bool(local.tail),
        full=bool(local.full),
        head=bool(local.head),
        controlled=local.control is not None,
    )


@dataclass(frozen=True, eq=False)
class Desk:
    """One institution: its customers, where they lie in the whole job's rows, and its declared size.

    Labels are float64 [n], 0 or 1.
    """

    place: int
    rows: slice
    inputs: Inputs
    labels: Floats
    declared: int


class Office:
    """Computes releases of a job's institutions; several threads may do so at once, each for another institution.

    Desks are kept from round to round, since what a network needs of a row's norm is found once. So are networks, one for each thread
    that works at the same time.
    """

    def __init__(self, job: Job) -> None:
        self.job = job
        self._layout = job.layout
        self._desks: dict[int, Desk] = {}
        self._idle: list[Network] = []

    def release(self, place: int, order: Order, weights: Floats, correction: Floats | None) -> Release:
        """Return one institution's release, float32 [P].

        Parameters
        ----------
        place:
            Which institution, from 0.
        weights:
            Where the round starts, float64 [P]; used in float32.
        correction:
            SCAFFOLD's c - c_i, float64 [P]; None for none. Local steps alone read it.
        """
        desk = self._desk(place)
        with self._network() as network:
            load_weights(network, self._layout.tensors(weights))
            with closing(BookKeeper(network)) as keeper:
                assert Layout.of(_shaped(keeper)).names == self._layout.names
                sums = self._sums(desk, order, network, keeper)
                if order.local is None:
                    return np.asarray(next(sums).numpy(), dtype=np.float32)
                full = order.local.full
                mean = max(1, len(desk.inputs)) if full else order.rate * desk.declared
                return _change(keeper, sums, order.local, mean, correction, _moving(keeper, network, order.local.head))

    def _sums(self, desk: Desk, order: Order, network: Network, keeper: BookKeeper) -> Iterator[Tensor]:
        full = order.local is not None and order.local.full
        return noisy_sums(
            network,
            keeper,
            desk.inputs,
            desk.labels,
            _draws(self.job.seed, desk, order),
            # Not clipped: no gradient of a logistic loss comes near the largest clip unless weights have long overflowed.
            clip=LARGEST_CLIP if full else order.clip,
            noise_multiplier=0.0 if full else order.noise / order.clip,
            steps=1 if order.local is None else order.local.steps,
            source=SeededSource(f"{self.job.seed}/{order.number}/{desk.place}"),
        )

    def _desk(self, place: int) -> Desk:
        if place not in self._desks:
            offsets, rows = self.job.rows.offsets, self.job.rows.of(place)
            self._desks[place] = Desk(
                place,
                slice(int(offsets[place]), int(offsets[place + 1])),
                rows.inputs(),
                rows.labels.numpy().astype(np.float64),
                int(self.job.declared[place]),
            )
        return self._desks[place]

    @contextmanager
    def _network(self) -> Iterator[Network]:
        """Lend a network that nobody else has."""
        network = self._idle.pop() if self._idle else build(self.job.model, self.job.contract)
        try:
            yield network
        finally:
            self._idle.append(network)


def _draws(seed: int, desk: Desk, order: Order) -> Iterator[Tensor]:
    """Yield the rows of each step's draw, int64, counted from the institution's first."""
    for step in range(1 if order.local is None else order.local.steps):
        if order.local is not None and order.local.full:
            yield torch.arange(len(desk.inputs))
        else:
            hits = drawn(seed, order.number, step, desk.rows.start, desk.rows.stop, order.rate)
            yield torch.from_numpy(np.flatnonzero(hits))


def _change(
    keeper: BookKeeper,
    sums: Iterator[Tensor],
    local: Steps,
    mean: float,
    correction: Floats | None,
    moving: Tensor | None,
) -> Release:
    """Take the local steps and return the change, float32 [P]; `simulations.engines.work.Local` says what a step is.

    `mean` is what a sum is divided by; `moving` is 1 where weights may move and 0 elsewhere, None for everywhere.
    """
    flat = keeper.flat.detach()
    start = flat.to(torch.float64)
    pull = torch.zeros_like(start) if correction is None else torch.from_numpy(correction)
    weights, velocity, tail = start.clone(), torch.zeros_like(start), torch.zeros_like(start)
    first = local.steps // 2 if local.tail else local.steps - 1
    for step, noisy in enumerate(sums):
        velocity.mul_(local.momentum).add_(noisy, alpha=1.0 / mean)
        direction = velocity + local.proximal * (weights - start) + pull
        weights.sub_(direction if moving is None else direction * moving, alpha=local.rate)
        flat.copy_(weights)
        if step >= first:
            tail += weights
    change = (tail / (local.steps - first) - start).clamp(-_LARGEST, _LARGEST)
    return np.asarray(change.to(torch.float32).numpy(), dtype=np.float32)


def _moving(keeper: BookKeeper, network: Network, head: bool) -> Tensor | None:
    """Return 1 for coordinates of the last layer and 0 for all others, float64 [P]; None where all may move."""
    if not head or not isinstance(network, MlpNetwork):
        return None
    found = torch.zeros(keeper.flat.shape, dtype=torch.float64)
    for name, part in keeper.split(found).items():
        if name.startswith(_HEAD):
            part.fill_(1.0)
    return found


def _shaped(keeper: BookKeeper) -> dict[str, NDArray[np.float32]]:
    return {name: part.detach().numpy() for name, part in keeper.split(keeper.flat).items()}
