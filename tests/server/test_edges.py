"""Bins of scores: from public quantities, increasing, and fine where the customers are."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from federation.messages import EvaluateRequest
from federation.networks import build, weights_of
from federation.study import AdditiveModel, LogisticModel, MlpModel, Model
from server.edges import reference_customers, score_edges
from tests.server.fakes import contract


@pytest.mark.parametrize("model", [AdditiveModel(), LogisticModel(kind="logistic"), MlpModel(kind="mlp", hidden=(4,))])
@pytest.mark.parametrize("bins", [4, 12, 64])
def test_edges_fit_the_request_and_are_always_the_same(model: Model, bins: int) -> None:
    weights = weights_of(build(model, contract()))
    edges = score_edges(model, contract(), weights, bins)
    assert edges == score_edges(model, contract(), weights, bins) and len(edges) == bins - 1
    assert all(left < right for left, right in zip(edges, edges[1:], strict=False))
    EvaluateRequest(study="0" * 64, edges=edges, payload="0" * 64)


@settings(max_examples=25)
@given(scale=st.floats(0.0, 1e6), bias=st.floats(-1e6, 1e6))
def test_edges_increase_for_every_model(scale: float, bias: float) -> None:
    weights = weights_of(build(LogisticModel(kind="logistic"), contract()))
    weights["linear.weight"][:] = scale
    weights["linear.bias"][:] = bias
    edges = score_edges(LogisticModel(kind="logistic"), contract(), weights, 12)
    assert np.isfinite(edges).all() and (np.diff(edges) > 0).all()


@pytest.mark.parametrize("rate", [0.05, 0.3])
def test_little_auc_is_lost_at_rare_and_at_common_labels(rate: float) -> None:
    """Customers need not look like the reference: here they are older and their scores lie lower or higher than the reference's."""
    model, agreed = AdditiveModel(), contract()
    generator = np.random.default_rng(2)
    weights = weights_of(build(model, agreed))
    weights["linear.weight"][:] = generator.normal(0, 0.6, weights["linear.weight"].shape)
    weights["linear.bias"][:] = math.log(rate / (1 - rate))
    edges = score_edges(model, agreed, weights, 12)
    scores = generator.normal(math.log(rate / (1 - rate)) - 0.4, 1.0, 20_000)
    labels = generator.random(20_000) < 1 / (1 + np.exp(-scores))
    lost = roc_auc_score(labels, scores) - roc_auc_score(labels, np.searchsorted(edges, scores, side="right"))
    assert -0.001 < lost < 0.015


def test_reference_customers_fill_the_contract_evenly() -> None:
    columns = reference_customers(contract(), 3000)
    assert set(np.unique(columns["job"])) == {0, 1, 2}
    assert np.bincount(columns["job"]).min() > 900
    assert columns["age"].min() >= 18.0 and columns["age"].max() <= 90.0
    assert abs((columns["spent"] < 10.0).mean() - 0.5) < 0.02
    assert abs(columns["member"].mean() - 0.5) < 0.02
