"""Aggregation against the formulas written out, and state that survives a checkpoint."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from server.optimizer import (
    FEDADAM_FIRST,
    FEDADAM_RATE,
    FEDADAM_SECOND,
    FEDADAM_TAU,
    ServerState,
    mean_change,
    mean_gradient,
    step,
)

VALUES = hnp.arrays(np.float32, (3, 2), elements=st.floats(-100, 100, width=32))


@given(first=VALUES, second=VALUES, weight=st.floats(0.1, 10.0))
def test_the_mean_gradient_weighs_by_public_numbers_only(first: np.ndarray, second: np.ndarray, weight: float) -> None:
    found = mean_gradient(
        {"b": {"w": second}, "a": {"w": first}}, {"a": 1.0, "b": weight, "c": 9.0}, {"a": 30.0, "b": 50.0, "c": 1.0}
    )
    expected = (first.astype(float) + weight * second.astype(float)) / (30.0 + weight * 50.0)
    np.testing.assert_allclose(found["w"], expected, rtol=1e-9, atol=1e-9)


@given(first=VALUES, second=VALUES)
def test_equal_changes_are_unchanged_and_order_does_not_matter(first: np.ndarray, second: np.ndarray) -> None:
    weights = {"a": 2.0, "b": 3.0}
    np.testing.assert_allclose(mean_change({"a": {"w": first}, "b": {"w": first}}, weights)["w"], first, rtol=1e-6)
    one, other = {"a": {"w": first}, "b": {"w": second}}, {"b": {"w": second}, "a": {"w": first}}
    assert (mean_change(one, weights)["w"] == mean_change(other, weights)["w"]).all()


def rounds(kind: str, momentum: float = 0.5, count: int = 3, average_from: int = 2) -> ServerState:
    state = ServerState.start({"w": np.array([1.0, -2.0], np.float32)})
    for number in range(1, count + 1):
        state = step(state, {"w": np.array([0.1, 0.4]) * number}, kind, momentum, number >= average_from)
    return state


@pytest.mark.parametrize(("kind", "keep"), [("recipe", 0.5), ("fedavgm", 0.9)])
def test_momentum_is_hsus(kind: str, keep: float) -> None:
    velocity, weights, seen = np.zeros(2), np.array([1.0, -2.0]), []
    for number in range(1, 4):
        velocity = keep * velocity + np.array([0.1, 0.4]) * number
        weights = weights + velocity
        seen.append(weights)
    state = rounds(kind)
    np.testing.assert_allclose(state.weights["w"], weights)
    np.testing.assert_allclose(state.model()["w"], (seen[1] + seen[2]) / 2, rtol=1e-6)


def test_fedadam_is_reddis_algorithm_2() -> None:
    first, second, weights = np.zeros(2), np.full(2, FEDADAM_TAU**2), np.array([1.0, -2.0])
    for number in range(1, 4):
        change = np.array([0.1, 0.4]) * number
        first = FEDADAM_FIRST * first + (1 - FEDADAM_FIRST) * change
        second = FEDADAM_SECOND * second + (1 - FEDADAM_SECOND) * change**2
        weights = weights + FEDADAM_RATE * first / (np.sqrt(second) + FEDADAM_TAU)
    np.testing.assert_allclose(rounds("fedadam").weights["w"], weights)


@pytest.mark.parametrize("kind", ["recipe", "fedavgm", "fedadam"])
def test_a_restored_state_goes_on_to_the_same_bits(kind: str) -> None:
    halfway = rounds(kind, count=2)
    restored = ServerState.from_tensors(halfway.tensors(), halfway.averaged)
    change = {"w": np.array([0.1, 0.4]) * 3}
    assert (
        step(restored, change, kind, 0.5, True).tensors()["average/w"].tobytes()
        == rounds(kind).tensors()["average/w"].tobytes()
    )


def test_without_an_averaged_round_the_model_is_the_weights() -> None:
    state = rounds("recipe", count=1)
    assert (state.model()["w"] == state.broadcast()["w"]).all()
    with pytest.raises(KeyError):
        ServerState.from_tensors({"elsewhere/w": np.zeros(2)}, 0)
