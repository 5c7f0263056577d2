"""What a vault computes for a round of training: a noisy gradient sum, or the change that some local DP-SGD steps make.

Every number that shapes a release comes from the plan or the declared size; the true number of customers enters only through who is drawn.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from federation.networks import Inputs, LinearNetwork, Network, weights_of
from privacy.bookkeeping import BookKeeper
from privacy.dp_optimizer import BookKeepingOptimizer
from privacy.randomness import RandomSource
from privacy.sampling import poisson_sample

Update = dict[str, NDArray[np.float32]]


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
    keeper = BookKeeper(network)
    try:
        optimizer = BookKeepingOptimizer(
            torch.optim.SGD(network.parameters(), lr=1.0),
            keeper,
            noise_multiplier=noise_multiplier,
            max_grad_norm=clip,
            expected_batch_size=None,
            source=source,
            loss_reduction="sum",
        )
        _observe(network, keeper, optimizer, *_draw(inputs, _as_tensor(labels), sampling_rate, source))
        optimizer.pre_step()
        released = {name: _gradient(parameter) for name, parameter in network.named_parameters()}
        optimizer.zero_grad()
        return released
    finally:
        keeper.close()


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
    and takes a step of SGD with momentum. The weights returned are the average over the second half of the steps (tail averaging: part of the
    noise of single steps cancels, at no cost in privacy) less those at the start. The network ends at the last step's weights.

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
    keeper = BookKeeper(network)
    try:
        optimizer = BookKeepingOptimizer(
            torch.optim.SGD(network.parameters(), lr=learning_rate, momentum=momentum),
            keeper,
            noise_multiplier=noise_multiplier,
            max_grad_norm=clip,
            expected_batch_size=sampling_rate * declared_size,
            source=source,
            loss_reduction="sum_over_expected",
        )
        return {}
    finally:
        keeper.close()
