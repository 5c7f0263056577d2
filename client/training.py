"""What a vault computes for a round of training: a noisy gradient sum, or the change that some local DP-SGD steps make.

Every number that shapes a release comes from the plan or the declared size; the true number of customers enters only through who is drawn.
"""

from collections.abc import Iterator
from contextlib import closing

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from federation.networks import Inputs, LinearNetwork, Network, weights_of
from privacy.bookkeeping import BookKeeper
from privacy.dp_optimizer import BookKeepingOptimizer
from privacy.logistic import IntegerSums, LogisticSums
from privacy.randomness import RandomSource
from privacy.sampling import MAX_CUSTOMERS, poisson_sample

Update = dict[str, NDArray[np.float32]]
WEIGHT, BIAS = "linear.weight", "linear.bias"  # of `LinearNetwork`
_LARGEST = float(np.finfo(np.float32).max)
_DRAWN_TOGETHER = 1 << 15  # rows of several draws that are found at once


def gradient_sum(
    network: Network,
    inputs: Inputs,
    labels: NDArray[np.float64],
    *,
    clip: float,
    noise_multiplier: float,
    sampling_rate: float,
    source: RandomSource,
) -> Update:
    """Return one round's release of `fedsgd`: the clipped gradient sum over a Poisson draw of customers, plus noise.

    The network is left as it was. An empty draw, or a vault without customers, returns noise.

    Parameters
    ----------
    network:
        With the round's weights.
    inputs:
        n customers.
    labels:
        float64 [n], 0 or 1; a customer with NaN or infinity in label or inputs contributes zero.
    clip:
        L2 norm to which each customer's gradient of her logistic loss is clipped.
    noise_multiplier:
        Each coordinate gets N(0, (noise_multiplier * clip)^2).
    sampling_rate:
        Probability that a customer is drawn.
    source:
        Where draw and noise come from.

    Returns
    -------
    float32 tensors, named and shaped as the weights, on the grid of `privacy.dp_optimizer.grid_of`.
    """
    with closing(BookKeeper(network)) as keeper:
        draws = _draws(len(inputs), sampling_rate, 1, source)
        sums = noisy_sums(
            network,
            keeper,
            inputs,
            labels,
            draws,
            clip=clip,
            noise_multiplier=noise_multiplier,
            steps=1,
            source=source,
        )
        return _arrays(keeper, next(sums))


def clipped_sum(
    network: LinearNetwork,
    inputs: Inputs,
    labels: NDArray[np.float64],
    *,
    clip: float,
    sampling_rate: float,
    source: RandomSource,
) -> dict[str, NDArray[np.float64]]:
    """Return the clipped gradient sum over a Poisson draw of customers, exact but for two roundings (`privacy.logistic.IntegerSums`), and
    without noise: the caller adds it, and nothing may leave before.

    Parameters
    ----------
    network, inputs, labels, clip, sampling_rate, source:
        As in `gradient_sum`; the network has one linear layer.

    Returns
    -------
    float64 tensors, named and shaped as the weights.
    """
    weights = weights_of(network)
    at = np.concatenate([weights[WEIGHT].ravel(), weights[BIAS]]).astype(np.float64)
    rows = poisson_sample(len(inputs), sampling_rate, source)
    sums = IntegerSums(inputs.dense.numpy(), np.asarray(labels, dtype=np.float64), clip).over(rows, at)
    return {WEIGHT: sums[:-1].reshape(weights[WEIGHT].shape), BIAS: sums[-1:]}


def local_steps(
    network: Network,
    inputs: Inputs,
    labels: NDArray[np.float64],
    *,
    clip: float,
    noise_multiplier: float,
    sampling_rate: float,
    steps: int,
    declared_size: int,
    learning_rate: float,
    momentum: float,
    source: RandomSource,
) -> Update:
    """Return one round's release of `fedavg`: the change of the weights over local DP-SGD steps.

    Each step draws customers anew, divides the noisy clipped sum by `sampling_rate * declared_size` (never by the true batch)
    and takes a step of SGD with momentum. The weights returned are the average over the second half of the steps (tail averaging:
    part of the noise of single steps cancels, at no cost in privacy) less those at the start. The network ends at the last step's weights.

    Parameters
    ----------
    network, inputs, labels, clip, noise_multiplier, sampling_rate, source:
        As in `gradient_sum`.
    steps:
        Number of steps, at least 1.
    declared_size:
        The cohort size that the charter declares, at least 1.
    learning_rate, momentum:
        Of SGD, on the mean gradient.

    Returns
    -------
    float32 tensors, named and shaped as the weights.
    """
    with closing(BookKeeper(network)) as keeper:
        # The public denominator sits in the step size: no mean over the true batch is ever formed.
        step_size = learning_rate / (sampling_rate * declared_size)
        flat = keeper.flat.detach()
        start = flat.to(torch.float64)
        weights, velocity, tail = start.clone(), torch.zeros_like(start), torch.zeros_like(start)
        first = steps // 2
        draws = _draws(len(inputs), sampling_rate, steps, source)
        sums = noisy_sums(
            network,
            keeper,
            inputs,
            labels,
            draws,
            clip=clip,
            noise_multiplier=noise_multiplier,
            steps=steps,
            source=source,
        )
        for step, noisy in enumerate(sums):
            velocity.mul_(momentum).add_(noisy)
            weights.sub_(velocity, alpha=step_size)
            flat.copy_(weights)
            if step >= first:
                tail += weights
        return _arrays(keeper, tail / (steps - first) - start)


def noisy_sums(
    network: Network,
    keeper: BookKeeper,
    inputs: Inputs,
    labels: NDArray[np.float64],
    draws: Iterator[Tensor],
    *,
    clip: float,
    noise_multiplier: float,
    steps: int,
    source: RandomSource,
) -> Iterator[Tensor]:
    """Yield a noisy clipped gradient sum for each draw, at the weights that `keeper.flat` has when it is asked for.

    Who is drawn is the caller's to say, and so is whether that is private: the noise alone is made here.

    Parameters
    ----------
    network, inputs, labels, clip, noise_multiplier:
        As in `gradient_sum`.
    keeper:
        Watches the network; the caller closes it.
    draws:
        Rows of each draw, int64 [batch]; read one at a time, before the noise of that sum is drawn.
    steps:
        How many draws are expected: noise of several is drawn together, which is faster.
    source:
        Where the noise comes from.

    Yields
    ------
    float32, like `keeper.flat`.
    """
    optimizer = BookKeepingOptimizer(
        torch.optim.SGD([keeper.flat], lr=1.0),  # holds the parameters; the caller takes the step
        keeper,
        noise_multiplier=noise_multiplier,
        max_grad_norm=clip,
        expected_batch_size=None,
        source=source,
        loss_reduction="sum",
        steps=steps,
    )
    cohort = _Cohort(network, keeper, inputs, torch.tensor(np.asarray(labels, dtype=np.float64)), clip)
    for rows in draws:
        optimizer.zero_grad()
        cohort.show(rows)
        optimizer.pre_step()
        yield optimizer.released


class _Cohort:
    """Customers as a keeper sees them: drawn rows in, clipped sums or a forward and backward pass out."""

    def __init__(self, network: Network, keeper: BookKeeper, inputs: Inputs, labels: Tensor, clip: float) -> None:
        self._network, self._keeper, self._inputs, self._labels = network, keeper, inputs, labels
        self._closed = (
            LogisticSums(inputs.dense, inputs.inverse_norms, labels, clip)
            if isinstance(network, LinearNetwork)
            else None
        )

    def show(self, rows: Tensor) -> None:
        """Let the keeper see the summed loss of `rows`; an empty draw shows it nothing. One layer needs no autograd."""
        if not len(rows):
            return
        if self._closed is not None:
            self._keeper.supply(self._closed.over(rows, self._keeper.flat.detach()))
            return
        batch = self._inputs.take(rows)
        logits = self._network(batch.dense, batch.codes)
        answers = self._labels.index_select(0, rows).to(logits.dtype)
        self._keeper.backward(binary_cross_entropy_with_logits(logits, answers, reduction="sum"))


def _draws(n: int, rate: float, steps: int, source: RandomSource) -> Iterator[Tensor]:
    """Yield `steps` independent Poisson draws of n rows, int64, several from one stream of gaps.

    A draw over n * k rows is k independent draws of n rows, one after the other, at the price of one call.
    """
    together = max(1, min(steps, int(_DRAWN_TOGETHER / max(1.0, rate * n)), MAX_CUSTOMERS // max(1, n)))
    for start in range(0, steps, together):
        count = min(together, steps - start)
        rows = poisson_sample(n * count, rate, source)
        ends = np.searchsorted(rows, n * np.arange(count + 1))
        for place in range(count):
            yield torch.from_numpy(rows[ends[place] : ends[place + 1]] - n * place)


def _arrays(keeper: BookKeeper, vector: Tensor) -> Update:
    """Return a vector's parts in float32, cut at its largest number: a step size that drives weights beyond it gives no infinity."""
    vector = vector.clamp(-_LARGEST, _LARGEST)
    return {name: part.to(torch.float32).numpy().copy() for name, part in keeper.split(vector).items()}
