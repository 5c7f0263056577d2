"""Scores an institution's own customers with a model that it adopted, and says why.

For `additive` and `logistic` models the reasons are exact: the logit is a sum with one term a column (a pair's term
counts by halves for its two columns), and a column's movement is its term less the institution's average of that term;
the movements add up to the customer's logit less the average logit. For `mlp` they are approximate: by occlusion
(Zeiler and Fergus 2014), the change of the logit when one column is set to what is typical at this institution and the
others stay; they need not add up, and every sentence says "approximate".
"""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from client.calibration import Calibration, Floats
from client.cohort import Cohort, Columns
from client.reasons import typical_value
from client.scores import Scores
from federation.basis import Basis
from federation.contract import FeatureContract
from federation.networks import Network, encode, weights_of
from federation.study import AdditiveModel, LogisticModel, MlpModel, Model

# Rows encoded at once: bounds memory whatever the number of customers.
CHUNK = 65_536


def logits_of(model: Model, contract: FeatureContract, network: Network, columns: Columns) -> Floats:
    """Return the network's logits, float64 [n], for a cohort's columns: for calibration, adoption and scoring alike."""
    parts = [_forward(model, contract, network, part) for part in _chunks(columns)]
    return np.concatenate(parts) if parts else np.empty(0)


def score(
    model: Model, contract: FeatureContract, network: Network, calibration: Calibration, cohort: Cohort
) -> Scores:
    """Score a cohort: logit, calibrated probability, and each column's movement against the average customer.

    Parameters
    ----------
    model, contract, network:
        What was adopted, with the weights loaded.
    calibration:
        As fitted on this institution's held-out customers.
    cohort:
        The customers to score; their labels, if any, are not looked at.
    """
    logits = logits_of(model, contract, network, cohort.columns)
    typical = tuple(_typical(contract, cohort.columns))
    average: tuple[float, ...] = ()
    if isinstance(model, MlpModel):
        movement = _occlusion(model, contract, network, cohort.columns, logits, typical)
    else:
        movement, average = _centred_terms(model, contract, network, cohort.columns, len(logits))
    exact = not isinstance(model, MlpModel)
    probability = calibration.probability(logits)
    return Scores(contract, cohort, logits, probability, movement, typical, exact, average, calibration)


def _chunks(columns: Columns) -> Iterator[Columns]:
    count = len(next(iter(columns.values()))) if columns else 0
    for start in range(0, count, CHUNK):
        yield {name: values[start : start + CHUNK] for name, values in columns.items()}


def _forward(model: Model, contract: FeatureContract, network: Network, columns: Columns) -> Floats:
    inputs = encode(model, contract, columns)
    with torch.no_grad():
        logits: Floats = network(inputs.dense, inputs.codes).numpy().astype(np.float64)
    return logits


def _typical(contract: FeatureContract, columns: Columns) -> Iterator[float]:
    for column in contract.columns:
        values = columns.get(column.name)
        absent = -1.0 if column.kind == "categorical" else float("nan")
        yield absent if values is None else typical_value(column, values)


def _centred_terms(
    model: AdditiveModel | LogisticModel, contract: FeatureContract, network: Network, columns: Columns, count: int
) -> tuple[NDArray[np.float32], tuple[float, ...]]:
    """Return each column's term less its average, float32 [n, columns], and the averages."""
    basis = Basis.of_model(contract, model)
    weights = weights_of(network)["linear.weight"][0]
    movement = np.zeros((count, len(contract.columns)), dtype=np.float32)
    start = 0
    for part in _chunks(columns):
        terms = basis.by_column(basis.contributions(basis.encode(part), weights))
        movement[start : start + len(terms)] = terms
        start += len(terms)
    if not count:
        return movement, ()
    average = movement.mean(axis=0, dtype=np.float64).astype(np.float32)
    return movement - average, tuple(float(term) for term in average)


def _occlusion(
    model: Model,
    contract: FeatureContract,
    network: Network,
    columns: Columns,
    logits: Floats,
    typical: tuple[float, ...],
) -> NDArray[np.float32]:
    movement = np.zeros((len(logits), len(contract.columns)), dtype=np.float32)
    for place, column in enumerate(contract.columns):
        if column.name in columns:
            values = columns[column.name]
            covered = {**columns, column.name: np.full_like(values, typical[place])}
            movement[:, place] = logits - logits_of(model, contract, network, covered)
    return movement
