from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from federation.contract import FeatureContract
from federation.errors import DocumentError, IntegrityError
from federation.networks import (
    Inputs,
    LinearNetwork,
    MlpNetwork,
    build,
    encode,
    load_weights,
    tensor_shapes,
    weights_of,
)
from federation.study import AdditiveModel, LogisticModel, MlpModel

MLP = MlpModel(kind="mlp", hidden=(5, 3), embedding=2)
MODELS = (AdditiveModel(), LogisticModel(kind="logistic"), MLP)


def contract() -> FeatureContract:
    numeric = {"kind": "numeric", "meaning": "m", "unit": "u"}
    columns: list[dict[str, Any]] = [
        {**numeric, "name": "age", "low": 20.0, "high": 80.0, "knots": (20.0, 40.0, 80.0)},
        {
            **numeric,
            "name": "spent",
            "low": 0.0,
            "high": 99.0,
            "scale": "log",
            "knots": (0.0, 9.0, 99.0),
            "required": False,
        },
        {"kind": "categorical", "name": "type", "meaning": "m", "categories": ("a", "b", "c")},
        {"kind": "flag", "name": "loan", "meaning": "m"},
        {"kind": "categorical", "name": "keys", "meaning": "m", "categories": ("x",), "required": False},
    ]
    label = {"name": "left", "meaning": "m"}
    return FeatureContract.model_validate(
        {"name": "c", "version": 1, "title": "t", "source": "table", "columns": tuple(columns), "label": label}
    )


def columns(n: int = 4) -> dict[str, np.ndarray]:
    return {
        "age": np.resize([20.0, 50.0, 80.0, np.nan], n),
        "spent": np.resize([0.0, 9.0, 99.0, 1e9], n),
        "type": np.resize(np.array([0, 1, 2, -1]), n),
        "loan": np.resize([0.0, 1.0, np.nan, 1.0], n),
    }


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.kind)
def test_a_fresh_network_answers_zero_and_is_always_the_same(model):
    state = torch.get_rng_state()
    network, inputs = build(model, contract()), encode(model, contract(), columns())
    assert torch.equal(network(inputs.dense, inputs.codes), torch.zeros(4))
    again = build(model, contract())
    assert all(
        np.array_equal(a, b) for a, b in zip(weights_of(network).values(), weights_of(again).values(), strict=True)
    )
    assert torch.equal(state, torch.get_rng_state()), "torch's global generator was used"


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.kind)
def test_shapes_name_every_tensor(model):
    weights = weights_of(build(model, contract()))
    assert tensor_shapes(model, contract()) == {name: (w.shape, w.dtype.name) for name, w in weights.items()}


def test_linear_models_have_the_agreed_names():
    for model in MODELS[:2]:
        shapes = tensor_shapes(model, contract())
        assert list(shapes) == ["linear.weight", "linear.bias"]
        assert shapes["linear.bias"] == ((1,), "float32")


def test_mlp_encoding_by_hand():
    inputs = encode(MLP, contract(), columns())
    expected = [[-1, 0, -1, 0, -1, 0], [0, 0, 0, 0, 1, 0], [1, 0, 1, 0, 0, 1], [0, 1, 1, 0, 1, 0]]
    assert np.allclose(inputs.dense.numpy(), expected, atol=1e-6)
    assert inputs.codes.tolist() == [[0, 1], [1, 1], [2, 1], [3, 1]]  # "keys" is lacking: unknown throughout
    assert inputs.dense.dtype == torch.float32 and inputs.codes.dtype == torch.int64


@settings(max_examples=50)
@given(
    st.lists(st.floats(allow_nan=True, allow_infinity=True), min_size=1, max_size=8),
    st.lists(st.integers(-(2**40), 2**40), min_size=1, max_size=8),
    st.sampled_from(MODELS),
)
def test_whatever_enters_the_encoding_is_finite_and_the_codes_fit_their_tables(numbers, codes, model):
    n = min(len(numbers), len(codes))
    given_columns = {name: np.array(numbers[:n]) for name in ("age", "spent")}
    given_columns |= {"loan": np.zeros(n), "type": np.clip(np.array(codes[:n]), -1, 2)}
    if model is MLP:
        given_columns["type"] = np.array(codes[:n])
    inputs = encode(model, contract(), given_columns)
    assert torch.isfinite(inputs.dense).all() and len(inputs) == n
    if model is MLP:
        assert inputs.dense.abs().max() <= 1.0
        assert ((inputs.codes >= 0) & (inputs.codes < torch.tensor([4, 2]))).all()


def test_mlp_encoding_refuses_what_does_not_fit():
    without = columns()
    del without["age"]
    with pytest.raises(DocumentError, match="CSL-F603.*age"):
        encode(MLP, contract(), without)
    with pytest.raises(DocumentError, match="CSL-F604"):
        encode(MLP, contract(), {**columns(), "loan": np.zeros(3)})


def test_every_embedding_and_column_matters():
    network = build(MLP, contract())
    assert isinstance(network, MlpNetwork)
    with torch.no_grad():
        network.head.weight.fill_(1.0)
    base = encode(MLP, contract(), columns())
    for name, other in {"age": 33.0, "spent": 3.0, "type": 1, "loan": 0.5, "keys": 0}.items():
        changed = columns()
        changed[name] = np.full(4, other)
        inputs = encode(MLP, contract(), changed)
        assert not torch.equal(network(inputs.dense, inputs.codes), network(base.dense, base.codes)), name


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.kind)
def test_weights_travel_by_name(model):
    rng = np.random.default_rng(0)
    tensors = {n: rng.normal(size=w.shape).astype(np.float32) for n, w in weights_of(build(model, contract())).items()}
    network = build(model, contract())
    load_weights(network, dict(reversed(tensors.items())))
    assert all(np.array_equal(tensors[name], weight) for name, weight in weights_of(network).items())
    weights_of(network)["linear.bias" if "linear.bias" in tensors else "head.bias"][:] = 9.0
    assert all(np.array_equal(tensors[name], weight) for name, weight in weights_of(network).items()), "not a copy"


def test_wrong_tensors_change_nothing():
    network = LinearNetwork(3)
    good = weights_of(network)
    for tensors, code in (
        ({"linear.weight": np.ones((1, 3), np.float32)}, "CSL-F601"),
        ({**good, "more": np.ones(1, np.float32)}, "CSL-F601.*more"),
        (
            {"linear.bias": np.ones(1, np.float32), "linear.weight": np.ones((3, 1), np.float32)},
            "CSL-F602.*linear.weight",
        ),
    ):
        with pytest.raises(IntegrityError, match=code):
            load_weights(network, tensors)
    assert all(not weight.any() for weight in weights_of(network).values())


def test_rows_can_be_taken():
    inputs = encode(MLP, contract(), columns(6))
    part = inputs.take(np.array([5, 0]))
    assert torch.equal(part.dense, inputs.dense[[5, 0]]) and torch.equal(part.codes, inputs.codes[[5, 0]])
    assert len(inputs.take(np.array([], dtype=np.int64))) == 0


def test_inverse_norms_are_zero_for_rows_that_are_not_numbers():
    dense = torch.tensor([[3.0, 4.0], [float("nan"), 1.0], [float("inf"), 1.0], [0.0, 0.0]])
    inputs = Inputs(dense, torch.empty((4, 0), dtype=torch.int64))
    assert np.allclose(inputs.inverse_norms.numpy(), [1 / np.sqrt(26), 0.0, 0.0, 1.0], rtol=1e-12)
