"""Scores that depend on each customer's own row alone, to the last bit.

A product of matrices is summed in an order that depends on how many rows there are and where a row stands, so that one
customer's presence can move the last bits of others' scores. Where a score decides which cell of a released histogram a
customer falls into, and another party chose the edges, that would be more than one customer's change.
"""

import numpy as np
import torch
from numpy.typing import NDArray

from federation.networks import Inputs, LinearNetwork, MlpNetwork, Network

_ROWS = 4096
Floats = NDArray[np.float64]


def rowwise_logits(network: Network, inputs: Inputs) -> Floats:
    """Return the network's logits, float64 [n]: multiplied and added one input column after the other, in float64.

    Parameters
    ----------
    network:
        With the weights loaded; a `LinearNetwork` or an `MlpNetwork`.
    inputs:
        n customers.
    """
    parts = [
        _forward(network, inputs.take(np.arange(start, min(start + _ROWS, len(inputs)))))
        for start in range(0, len(inputs), _ROWS)
    ]
    return np.concatenate(parts) if parts else np.empty(0)


def _forward(network: Network, inputs: Inputs) -> Floats:
    state = inputs.dense.numpy().astype(np.float64)
    if isinstance(network, LinearNetwork):
        return _layer(network.linear, state)[:, 0]
    assert isinstance(network, MlpNetwork)
    codes = inputs.codes.numpy()
    tables = [_float64(table.weight) for table in network.embeddings.values()]
    state = np.concatenate([state, *(table[codes[:, place]] for place, table in enumerate(tables))], axis=1)
    for layer in network.hidden:
        state = np.tanh(_layer(layer, state))
    return _layer(network.head, state)[:, 0]


def _layer(layer: torch.nn.Module, state: Floats) -> Floats:
    weight, bias = _float64(layer.weight), _float64(layer.bias)
    total = np.tile(bias, (len(state), 1))
    for place in range(weight.shape[1]):
        total += state[:, place, None] * weight[:, place]
    return total


def _float64(parameter: torch.Tensor | torch.nn.Module) -> Floats:
    assert isinstance(parameter, torch.Tensor)
    return parameter.detach().numpy().astype(np.float64)
