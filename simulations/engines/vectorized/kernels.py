"""Clipped gradient sums of many models at once, by matrix products: no autograd, and nobody's own gradient is ever held.

`LogisticKernel` clips as `privacy.logistic` does, by clamping the loss's derivative by the logit; `MlpKernel` by book-keeping, as
`privacy.bookkeeping`. Both work on G models [G, P] with a batch [G, b] each; where all have one model, that is G = 1 with everybody's
rows. A customer whose limit is 0 contributes zero: padding, and rows with NaN or infinity, which hold zeros here.
"""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from federation.study import MlpModel
from simulations.engines.vectorized.place import Buffers
from simulations.engines.work import Job, Layout

_UNIT = 2.0**-24  # unit roundoff of float32
_ROUNDINGS = 8


@dataclass(frozen=True, eq=False)
class Batch:
    """Rows of G models, b each.

    Attributes
    ----------
    dense:
        float32 [G, b, d].
    codes:
        int64 [G, b * k], rows of all embedding tables one below the other; None without tables.
    labels, limits:
        float32 [G, b]: labels, and what a customer's contribution is cut to, in the kernel's own measure.
    scale:
        float32 [G, b]: factor of each customer's clipped gradient; None for 1.
    """

    dense: Tensor
    codes: Tensor | None
    labels: Tensor
    limits: Tensor
    scale: Tensor | None


class Kernel(Protocol):
    """How one kind of model is computed."""

    @property
    def row_values(self) -> int:
        """How many float32 values are held for one row."""
        ...

    @property
    def entries(self) -> tuple[int, ...]:
        """Number of rows of each embedding table."""
        ...

    @property
    def head(self) -> slice:
        """Where the last layer lies in the flat vector: at its end."""
        ...

    def reach(self, inverse_norms: Tensor) -> Tensor:
        """Return what a clip of 1 limits each customer to, float32 [N]; 0 for a row that must not count."""
        ...

    def add(self, at: Tensor, batch: Batch, sums: Tensor, buffers: Buffers, head_only: bool) -> None:
        """Add each model's clipped gradient sum to `sums` [G, P]. `head_only` leaves all but the last layer out."""
        ...


class LogisticKernel:
    """One linear layer: the flat vector is its weights, then its bias."""

    def __init__(self, width: int) -> None:
        self._width = width

    @property
    def row_values(self) -> int:
        """Length of a row and what is found of it."""
        return self._width + 4

    @property
    def entries(self) -> tuple[int, ...]:
        """There are no tables."""
        return ()

    @property
    def head(self) -> slice:
        """Everything: the only layer is the last."""
        return slice(0, self._width + 1)

    def reach(self, inverse_norms: Tensor) -> Tensor:
        """Return 1 / sqrt(|x|^2 + 1)."""
        return inverse_norms.to(torch.float32)

    def add(self, at: Tensor, batch: Batch, sums: Tensor, buffers: Buffers, head_only: bool) -> None:
        """Add sum_j g_j (x_j, 1), with g_j clamped to the limit."""
        x, width = batch.dense, self._width
        count, rows = x.shape[:2]
        # Row vectors from the left: torch is several times faster so than with columns from the right, or adding to a part of `sums`.
        logits, sum_ = buffers.take("logits", count, 1, rows), buffers.take("sum", count, 1, width)
        torch.bmm(at[:, :width].contiguous().unsqueeze(1), x.transpose(1, 2), out=logits)
        g = logits.squeeze(1).add_(at[:, width:]).sigmoid_().sub_(batch.labels).clamp_(-batch.limits, batch.limits)
        g.nan_to_num_(nan=0.0)  # clamping keeps the NaN of weights that have overflowed
        if batch.scale is not None:
            g.mul_(batch.scale)
        sums[:, :width].add_(torch.bmm(g.unsqueeze(1), x, out=sum_).squeeze(1))
        sums[:, width].add_(g.sum(1))


@dataclass(frozen=True)
class _Layer:
    """Where a layer's weight [out, in] and bias [out] lie in a flat vector."""

    weight: slice
    bias: slice
    shape: tuple[int, int]

    def of(self, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """Return views of G flat vectors: weight [G, out, in], bias [G, 1, out]."""
        return vectors[:, self.weight].view(-1, *self.shape), vectors[:, self.bias].unsqueeze(1)


class MlpKernel:
    """Embedding tables, tanh layers and a linear head, as `MlpNetwork` has them.

    The flat vector begins with the tables, which have one width and follow each other: they are read and written as one table.
    """

    def __init__(self, layout: Layout, dense_width: int) -> None:
        shapes, places = dict(zip(layout.names, layout.shapes, strict=True)), layout.places()
        tables = [name for name in layout.names if name.startswith("embeddings.")]
        assert tables == list(layout.names[: len(tables)]) and layout.names[-2:] == ("head.weight", "head.bias")
        self._dense = dense_width
        self._entries = tuple(shapes[name][0] for name in tables)
        self._all = sum(self._entries)
        self._each = shapes[tables[0]][1] if tables else 0
        stems = [name.removesuffix(".weight") for name in layout.names[len(tables) :] if name.endswith(".weight")]
        self._layers = [
            _Layer(
                places[f"{stem}.weight"],
                places[f"{stem}.bias"],
                (shapes[f"{stem}.weight"][0], shapes[f"{stem}.weight"][1]),
            )
            for stem in stems
        ]
        self._margin = (max(size for shape in layout.shapes for size in shape) + _ROUNDINGS) * _UNIT

    @property
    def row_values(self) -> int:
        """Activations and their gradients."""
        return 2 * sum(layer.shape[1] for layer in self._layers)

    @property
    def entries(self) -> tuple[int, ...]:
        """Number of rows of each embedding table."""
        return self._entries

    @property
    def head(self) -> slice:
        """The last layer's weights and bias."""
        return slice(self._layers[-1].weight.start, self._layers[-1].bias.stop)

    def reach(self, inverse_norms: Tensor) -> Tensor:
        """Return 1, lowered by the margin that `privacy.bookkeeping` keeps for the rounding of float32 norms."""
        return (inverse_norms > 0.0).to(torch.float32) * (1.0 - self._margin)

    def add(self, at: Tensor, batch: Batch, sums: Tensor, buffers: Buffers, head_only: bool) -> None:
        """Add sum_j c_j (gradient of customer j), with c_j = min(1, limit / norm), layer by layer.

        A layer's weight gradient is the outer product of its output's gradient and its input; the norm of that is the product of
        their norms (Goodfellow 2015; Bu, Wang, Zha, Karypis 2023).
        """
        states, derivative = self._forward(at, batch, buffers)
        first = len(self._layers) - 1 if head_only else 0
        deltas, squares = self._backward(at, states, derivative, first, buffers)
        if not bool(torch.isfinite(squares).all()):
            # Zero times NaN is NaN: the values themselves have to go. Only weights that have overflowed come here.
            bad = ~torch.isfinite(squares).unsqueeze(2)
            for tensor in (*states[first:], *deltas.values()):
                tensor.masked_fill_(bad, 0.0)
        factor = (batch.limits / squares.sqrt_()).clamp_(max=1.0).nan_to_num_(nan=0.0)
        if batch.scale is not None:
            factor.mul_(batch.scale)
        for delta in deltas.values():
            delta.mul_(factor.unsqueeze(2))
        for place in range(first, len(self._layers)):
            weight, bias = self._layers[place].of(sums)
            weight.baddbmm_(deltas[place].transpose(1, 2), states[place])
            bias.add_(deltas[place].sum(1, keepdim=True))
        if batch.codes is not None and not head_only:
            index = batch.codes.unsqueeze(2).expand(-1, -1, self._each)
            self._tables(sums).scatter_add_(1, index, deltas[-1].reshape(*batch.codes.shape, self._each))

    def _tables(self, vectors: Tensor) -> Tensor:
        return vectors[:, : self._all * self._each].view(-1, self._all, self._each)

    def _forward(self, at: Tensor, batch: Batch, buffers: Buffers) -> tuple[list[Tensor], Tensor]:
        """Return what enters each layer [G, b, in], and the loss's derivative by the logit [G, b, 1]."""
        state = batch.dense
        if batch.codes is not None:
            state = buffers.take("inputs", *state.shape[:2], self._layers[0].shape[1])
            state[:, :, : self._dense] = batch.dense
            index = batch.codes.unsqueeze(2).expand(-1, -1, self._each)
            state[:, :, self._dense :] = torch.gather(self._tables(at), 1, index).view(*state.shape[:2], -1)
        states = [state]
        for place, layer in enumerate(self._layers):
            weight, bias = layer.of(at)
            out = buffers.take(f"states {place}", *state.shape[:2], layer.shape[0])
            state = torch.baddbmm(bias, state, weight.transpose(1, 2), out=out)
            if place < len(self._layers) - 1:
                states.append(state.tanh_())
        return states, state.sigmoid_().sub_(batch.labels.unsqueeze(2))

    def _backward(
        self, at: Tensor, states: list[Tensor], derivative: Tensor, first: int, buffers: Buffers
    ) -> tuple[dict[int, Tensor], Tensor]:
        """Return the output gradients of the layers from `first` on, and squared norms of customers' whole gradients [G, b].

        Under -1: the gradient of what the embedding tables gave.
        """
        last = len(self._layers) - 1
        deltas, delta = {last: derivative}, derivative
        squares = derivative.squeeze(2).square().mul_(_squares(states[last]).add_(1.0))
        for place in range(last, first, -1):
            state, weight = states[place], self._layers[place].of(at)[0]
            out = buffers.take(f"deltas {place}", *state.shape)
            delta = torch.mul(delta, weight, out=out) if place == last else torch.bmm(delta, weight, out=out)
            torch.ops.aten.tanh_backward.grad_input(delta, state, grad_input=delta)
            deltas[place - 1] = delta
            squares.addcmul_(_squares(delta), _squares(states[place - 1]).add_(1.0))
        if first == 0 and self._entries:
            weight = self._layers[0].of(at)[0][:, :, self._dense :]
            deltas[-1] = torch.bmm(delta, weight)
            squares.add_(_squares(deltas[-1]))
        return deltas, squares


def _squares(rows: Tensor) -> Tensor:
    """Squared norms over the last axis."""
    found: Tensor = torch.linalg.vector_norm(rows, dim=2).square_()
    return found


def kernel_of(job: Job) -> Kernel:
    """Return the kernel of a job's model."""
    width = job.rows.dense.shape[1]
    return MlpKernel(job.layout, width) if isinstance(job.model, MlpModel) else LogisticKernel(width)
