"""A peer of the simulation benchmark: all institutions at once in torch, as the literature and a first good design have it.

Usage: `python benchmarks/simulation_peers/batched.py [--institutions 50] [--rounds 50] [--model logistic|mlp] ...`.
Prints one line of JSON.

One table holds the customers of all, the parameters are a matrix [institutions, parameters], and a step gathers a batch [institutions,
largest batch, features] with a mask for what pads it. Products are batched matrix products, and each customer's gradient norm is found
without its gradient: the squared norm of a linear layer's gradient is (|a|^2 + 1) |g|^2 for the activation a that enters the layer and the
gradient g at what leaves it (Goodfellow 2015; with the clipped sums as one more product it is called book-keeping, Bu et al. 2023).
"""

import time
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from price import epsilon_of
from torch import Tensor
from torch.linalg import vector_norm
from work import DRAWS, Floats, Outcome, Work, command, initial_layers, institution, outcome, process_age, show, work_of

PEER = "batched book-keeping"
WARM_UP_ROUNDS = 1


class Layer:
    """Where one layer lies in the parameter matrix: a weight [in, out], and a bias [out] after it."""

    def __init__(self, start: int, into: int, out: int) -> None:
        self.start, self.into, self.out = start, into, out
        self.middle = start + into * out
        self.end = self.middle + out

    def weight(self, parameters: Tensor) -> Tensor:
        """Return the part that is the weight: [institutions, in, out]."""
        return parameters[:, self.start : self.middle].view(-1, self.into, self.out)

    def bias(self, parameters: Tensor) -> Tensor:
        """Return the part that is the bias: [institutions, 1, out]."""
        return parameters[:, None, self.middle : self.end]


class Institutions:
    """The customers of all institutions, institution after institution: values [N, features], labels [N]."""

    def __init__(self, work: Work) -> None:
        tables = [institution(work, number) for number in range(work.institutions)]
        self.values = torch.from_numpy(np.concatenate([values for values, _ in tables]))
        self.labels = torch.from_numpy(np.concatenate([labels for _, labels in tables]))
        self.offsets = np.concatenate([[0], np.cumsum([len(labels) for _, labels in tables])])

    def batch(self, drawn: NDArray[np.int64]) -> tuple[Tensor, Tensor, Tensor]:
        """Gather drawn customers: values [K, B, features], labels [K, B], and a mask [K, B] of 1 for a customer, 0 for padding."""
        bounds = np.searchsorted(drawn, self.offsets)
        counts = np.diff(bounds)
        index = np.zeros((len(counts), max(1, int(counts.max()))), dtype=np.int64)
        mask = np.arange(index.shape[1]) < counts[:, None]
        index[mask] = drawn  # both go institution by institution
        places = torch.from_numpy(index)
        values = self.values.index_select(0, places.view(-1)).view(*places.shape, -1)
        return values, self.labels[places], torch.from_numpy(mask.astype(np.float32))


class Trainer:
    """DP-FedAvg of all institutions at once."""

    def __init__(self, work: Work) -> None:
        self.work = work
        self.data = Institutions(work)
        self.layers: list[Layer] = []
        for into, out in zip(work.widths, work.widths[1:], strict=False):
            self.layers.append(Layer(self.layers[-1].end if self.layers else 0, into, out))
        parts = [torch.from_numpy(part.T.ravel()) for pair in initial_layers(work) for part in pair]
        self.start = torch.cat(parts)

    def train(self, rounds: int, stream: int) -> Tensor:
        """Return the model after `rounds` from the start: float32 [parameters]. `stream` picks the random numbers."""
        work, model = self.work, self.start
        rng = work.generator(DRAWS, stream)
        noise = torch.Generator().manual_seed(int(rng.integers(2**63)))
        with torch.no_grad():
            for _ in range(rounds):
                parameters = model.repeat(work.institutions, 1)
                for _ in range(work.local_steps):
                    self._step(parameters, poisson(rng, len(self.data.labels), work.rate), noise)
                model = parameters.mean(0)
        return model

    def clipped_sums(self, parameters: Tensor, values: Tensor, labels: Tensor, mask: Tensor) -> Tensor:
        """Return the sum of each institution's clipped gradients: [institutions, parameters]."""
        activations = [values]
        for layer in self.layers[:-1]:
            last = activations[-1]
            activations.append(torch.baddbmm(layer.bias(parameters), last, layer.weight(parameters)).tanh_())
        head = self.layers[-1]
        logits = torch.baddbmm(head.bias(parameters), activations[-1], head.weight(parameters))
        gradient = (logits.sigmoid_() - labels[:, :, None]) * mask[:, :, None]
        gradients = [gradient]
        for layer, activation in zip(reversed(self.layers[1:]), reversed(activations[1:]), strict=True):
            gradient = torch.bmm(gradient, layer.weight(parameters).transpose(1, 2))
            gradient = torch.ops.aten.tanh_backward(gradient, activation)
            gradients.insert(0, gradient)
        squares = torch.zeros_like(mask)
        for activation, gradient in zip(activations, gradients, strict=True):
            squares += (vector_norm(activation, dim=2).square_() + 1.0) * vector_norm(gradient, dim=2).square_()
        scale = (self.work.clip / squares.sqrt()).clamp_(max=1.0)[
            :, :, None
        ]  # a gradient of 0 makes it infinite, then 1
        sums = torch.empty_like(parameters)
        for layer, activation, gradient in zip(self.layers, activations, gradients, strict=True):
            clipped = gradient * scale
            layer.weight(sums).copy_(torch.bmm(activation.transpose(1, 2), clipped))
            layer.bias(sums).copy_(clipped.sum(1, keepdim=True))
        return sums

    def _step(self, parameters: Tensor, drawn: NDArray[np.int64], noise: torch.Generator) -> None:
        """Take one DP-SGD step of every institution, in place."""
        work = self.work
        sums = self.clipped_sums(parameters, *self.data.batch(drawn))
        sums += torch.normal(0.0, work.noise * work.clip, sums.shape, generator=noise)
        parameters.sub_(sums, alpha=work.lr / work.batch)

    def unpacked(self, model: Tensor) -> list[tuple[Floats, Floats]]:
        """Return a model's weights [out, in] and biases [out]."""
        row = model[None]
        return [(layer.weight(row)[0].T.numpy(), layer.bias(row)[0, 0].numpy()) for layer in self.layers]


def poisson(rng: np.random.Generator, rows: int, rate: float) -> NDArray[np.int64]:
    """Draw each of `rows` with probability `rate`, by the geometric gaps between those drawn; ascending."""
    parts = list(_parts(rng, rows, rate))
    drawn = np.concatenate(parts) if len(parts) > 1 else parts[0]
    return drawn[: np.searchsorted(drawn, rows)]


def _parts(rng: np.random.Generator, rows: int, rate: float) -> Iterator[NDArray[np.int64]]:
    """Yield ascending places until they pass `rows`; one part nearly always does."""
    last = -1
    while last < rows:
        left = rate * (rows - last)
        part = last + np.cumsum(rng.geometric(rate, int(left + 6.0 * left**0.5) + 8))
        last = int(part[-1])
        yield part


def run(work: Work, before: float = 0.0) -> Outcome:
    """Train in this process. `before` are seconds that passed already, for `startup_seconds`."""
    begun = time.perf_counter()
    trainer = Trainer(work)
    trainer.train(WARM_UP_ROUNDS, 1)
    start = time.perf_counter()
    model = trainer.train(work.rounds, 0)
    seconds = time.perf_counter() - start
    return outcome(
        PEER,
        work,
        trainer.unpacked(model),
        seconds=seconds,
        startup=before + start - begun,
        epsilon=epsilon_of(work),
        not_equal=[],
    )


def main() -> None:
    """Train, and print the outcome."""
    work = work_of(command(__doc__).parse_args())
    show(run(work, process_age()))


if __name__ == "__main__":
    main()
