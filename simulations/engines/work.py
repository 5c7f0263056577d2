"""What an engine is given and gives back: rows by institution, one round's work, and releases as flat vectors.

A model's tensors lie in one vector, in the order of `Layout`. Everything that leaves an institution in a round is one such vector, so that
all that coordinators here do with releases is a weighted sum, and an engine may form that sum in any way it likes.
"""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from federation.contract import FeatureContract
from federation.networks import Inputs, build, load_weights, weights_of
from federation.study import Model

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Tensors = dict[str, NDArray[np.float32]]


@dataclass(frozen=True)
class Layout:
    """Names and shapes of a model's tensors, in the order in which they lie in a flat vector."""

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, tensors: Mapping[str, NDArray[np.generic]]) -> "Layout":
        """Return the layout of these tensors, in their order."""
        return cls(tuple(tensors), tuple(tuple(value.shape) for value in tensors.values()))

    @property
    def width(self) -> int:
        """Length P of the flat vector."""
        return sum(int(np.prod(shape)) for shape in self.shapes)

    def places(self) -> dict[str, slice]:
        """Return where each tensor lies in the flat vector."""
        found, start = {}, 0
        for name, shape in zip(self.names, self.shapes, strict=True):
            end = start + int(np.prod(shape))
            found[name] = slice(start, end)
            start = end
        return found

    def flat(self, tensors: Mapping[str, NDArray[np.generic]]) -> Floats:
        """Return tensors as one vector, float64 [P]."""
        return np.concatenate([np.ravel(tensors[name]) for name in self.names]).astype(np.float64)

    def split(self, vector: Floats) -> dict[str, Floats]:
        """Return a vector's parts by name, as views."""
        places = self.places()
        return {name: vector[places[name]].reshape(shape) for name, shape in zip(self.names, self.shapes, strict=True)}

    def tensors(self, vector: Floats) -> Tensors:
        """Return a vector as tensors, float32."""
        return {name: value.astype(np.float32) for name, value in self.split(vector).items()}


@dataclass(frozen=True, eq=False)
class Rows:
    """Customers of K institutions, one institution after the other.

    Attributes
    ----------
    dense:
        float32 [N, d], as `federation.networks.encode` makes them; contiguous.
    codes:
        int64 [N, k]; k = 0 for linear models.
    labels:
        float32 [N], 0 or 1.
    offsets:
        int64 [K + 1]: institution i holds the rows offsets[i] to offsets[i + 1].
    """

    dense: torch.Tensor
    codes: torch.Tensor
    labels: torch.Tensor
    offsets: Integers

    def __len__(self) -> int:
        return self.dense.shape[0]

    @property
    def institutions(self) -> int:
        """Number of institutions K."""
        return len(self.offsets) - 1

    def of(self, place: int) -> "Rows":
        """Return one institution's rows, as views."""
        here = slice(int(self.offsets[place]), int(self.offsets[place + 1]))
        count = here.stop - here.start
        return Rows(self.dense[here], self.codes[here], self.labels[here], np.array([0, count], dtype=np.int64))

    def together(self) -> "Rows":
        """Return the same rows as one institution's."""
        return Rows(self.dense, self.codes, self.labels, np.array([0, len(self)], dtype=np.int64))

    def inputs(self) -> Inputs:
        """Return the rows as a network reads them."""
        return Inputs(self.dense, self.codes)


@dataclass(frozen=True)
class Local:
    """Local DP-SGD steps: w <- w - rate (velocity + mu (w - w0) + correction), with mean gradients over q times the declared size.

    Attributes
    ----------
    steps, rate, momentum, proximal:
        Number of steps, step length on the mean gradient, momentum of the noisy gradient, FedProx's mu.
    tail:
        Release the average of the second half of the steps' weights less the start; else the last weights less the start.
    control:
        SCAFFOLD's server control c, float64 [P]; None without. The engine keeps each institution's own c_i, zero at first: the correction
        is c - c_i, and after an institution's round c_i <- c_i - c - change / (steps * rate) (option II).
    full:
        Every customer in every step, divided by how many there are, neither clipped nor noised: for what never leaves an institution.
    head:
        Move the last layer alone.
    """

    steps: int
    rate: float
    momentum: float = 0.0
    proximal: float = 0.0
    tail: bool = True
    control: Floats | None = None
    full: bool = False
    head: bool = False


@dataclass(frozen=True, eq=False)
class Work:
    """One round: what every present institution does.

    Attributes
    ----------
    number:
        The round, from 0: draws and noise are made from (seed, number).
    weights:
        Where everybody starts, float64 [P]; used in float32.
    clip, noise:
        By institution [K]: L2 bound of one customer's gradient, and the standard deviation of the noise that the institution adds to every
        coordinate of every clipped sum; 0 for none.
    present:
        bool [K]: whose release counts. Who is absent may be skipped.
    rate:
        Poisson rate q of every draw.
    local:
        None: the release is the noisy clipped gradient sum. Else local steps, and the release is the change.
    """

    number: int
    weights: Floats
    clip: Floats
    noise: Floats
    present: NDArray[np.bool_]
    rate: float
    local: Local | None = None


@dataclass(frozen=True, eq=False)
class Job:
    """Everything an engine needs before the first round: model, everybody's training rows, declared sizes int64 [K], and the seed."""

    model: Model
    contract: FeatureContract
    rows: Rows
    declared: Integers
    seed: int

    @cached_property
    def layout(self) -> Layout:
        """Where tensors lie in flat vectors: in the order of the network's own. Found once: every round and institution asks for it."""
        return Layout.of(weights_of(build(self.model, self.contract)))

    def start(self) -> Floats:
        """Return the network's public starting weights, float64 [P]."""
        return self.layout.flat(weights_of(build(self.model, self.contract)))


class Session(Protocol):
    """An engine at work on one job."""

    def combine(self, work: Work, factors: Floats) -> Floats:
        """Return the sum over present institutions of factors[i] times release i: float64 [P]."""
        ...

    def releases(self, work: Work) -> Floats:
        """Return every institution's release, float64 [K, P]; zero for who is absent."""
        ...


class Engine(Protocol):
    """A way to compute rounds; `name` is what a result says it was made by."""

    @property
    def name(self) -> str:
        """Return its name, with the device where that is not the CPU."""
        ...

    def open(self, job: Job) -> AbstractContextManager[Session]:
        """Start on a job."""
        ...


def scores(job: Job, weights: Floats, rows: Rows) -> Floats:
    """Return logits of rows under one model, float64 [N]."""
    network = build(job.model, job.contract)
    load_weights(network, job.layout.tensors(weights))
    with torch.no_grad():
        found: Floats = network(rows.dense, rows.codes).to(torch.float64).numpy()
    return found
