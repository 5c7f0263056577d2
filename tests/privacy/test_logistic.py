import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from federation.networks import Inputs
from privacy import logistic
from privacy.logistic import IntegerSums, LogisticSums


def by_hand(dense, labels, weights, clip):
    """One customer at a time, float64."""
    total = np.zeros(len(weights))
    for x, y in zip(np.c_[dense.astype(np.float64), np.ones(len(dense))], labels, strict=True):
        gradient = (1.0 / (1.0 + np.exp(-x @ weights)) - y) * x
        norm = np.linalg.norm(gradient)
        total += gradient * min(1.0, clip / norm) if norm else gradient
    return total


@settings(max_examples=60)
@given(st.integers(0, 10**6), st.integers(0, 300), st.integers(1, 20), st.floats(1e-3, 20.0), st.booleans())
def test_sums_equal_one_customer_at_a_time_across_blocks(seed, n, width, clip, small_blocks):
    with pytest.MonkeyPatch.context() as patch:
        if small_blocks:
            patch.setattr(logistic, "_BLOCK_VALUES", 1)  # blocks of 64 rows
        rng = np.random.default_rng(seed)
        dense = rng.normal(size=(n, width)).astype(np.float32)
        labels = rng.integers(0, 2, n).astype(np.float64)
        weights = rng.normal(size=width + 1).astype(np.float32)
        rows = np.flatnonzero(rng.random(n) < 0.7)
        inputs = Inputs(torch.from_numpy(dense), torch.empty((n, 0), dtype=torch.int64))
        sums = LogisticSums(inputs.dense, inputs.inverse_norms, torch.from_numpy(labels), clip)
        found = sums.over(torch.from_numpy(rows), torch.from_numpy(weights)).numpy()
    expected = by_hand(dense[rows], labels[rows], weights.astype(np.float64), clip)
    assert np.allclose(found, expected, rtol=1e-7, atol=1e-7 * clip * max(1, n))


def test_nobody_passes_the_clip():
    rng = np.random.default_rng(0)
    inputs = Inputs(torch.from_numpy((100 * rng.normal(size=(500, 30))).astype(np.float32)), torch.empty((500, 0)))
    sums = LogisticSums(inputs.dense, inputs.inverse_norms, torch.ones(500, dtype=torch.float64), 0.7)
    norms = [float(torch.linalg.vector_norm(sums.over(torch.tensor([row]), torch.zeros(31)))) for row in range(500)]
    assert max(norms) <= 0.7 and min(norms) > 0.69


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", ["input", "label"])
def test_a_customer_with_what_is_no_number_contributes_zero(bad, place):
    rng = np.random.default_rng(1)
    dense, labels = rng.normal(size=(20, 4)).astype(np.float32), rng.integers(0, 2, 20).astype(np.float64)
    weights = rng.normal(size=5).astype(np.float32)
    expected = by_hand(np.delete(dense, 7, 0), np.delete(labels, 7), weights.astype(np.float64), 0.9)
    if place == "input":
        dense[7, 2] = bad
    else:
        labels[7] = bad
    inputs = Inputs(torch.from_numpy(dense), torch.empty((20, 0), dtype=torch.int64))
    sums = LogisticSums(inputs.dense, inputs.inverse_norms, torch.from_numpy(labels), 0.9)
    found = sums.over(torch.arange(20), torch.from_numpy(weights)).numpy()
    assert np.allclose(found, expected, rtol=1e-7, atol=1e-7)


def on_grid(values):
    """Inputs that the integers hold exactly."""
    return (np.rint(values * 2.0**20) / 2.0**20).astype(np.float32)


@settings(max_examples=60)
@given(st.integers(0, 10**6), st.integers(0, 300), st.integers(1, 20), st.floats(1e-3, 20.0), st.booleans())
def test_integer_sums_equal_one_customer_at_a_time_but_for_their_grid(seed, n, width, clip, small_blocks):
    with pytest.MonkeyPatch.context() as patch:
        if small_blocks:
            patch.setattr(logistic, "_EXACT_ROWS", 7)
        rng = np.random.default_rng(seed)
        dense = on_grid(rng.uniform(-1.0, 1.0, (n, width)))
        labels = rng.integers(0, 2, n).astype(np.float64)
        weights = rng.normal(size=width + 1)
        rows = np.flatnonzero(rng.random(n) < 0.7)
        found = IntegerSums(dense, labels, clip).over(rows, weights)
    expected = by_hand(dense[rows], labels[rows], weights, clip)
    assert np.abs(found - expected).max() <= clip * (2.0**-22 + 1e-9) * max(1, n)


@settings(max_examples=40)
@given(st.integers(0, 10**6), st.integers(1, 200), st.integers(1, 30), st.integers(-19, 19), st.booleans())
def test_a_customers_part_depends_on_her_own_row_alone(seed, n, width, power, wild):
    """Exactly: in any order and in any company the sum is that of the parts."""
    rng = np.random.default_rng(seed)
    clip = 2.0**power
    dense = rng.uniform(-1.0, 1.0, (n, width)).astype(np.float32)
    labels = rng.integers(0, 2, n).astype(np.float64)
    weights = rng.normal(size=width + 1) * (1e6 if wild else 1.0)
    sums = IntegerSums(dense, labels, clip)
    parts = np.array([sums.over(np.array([row]), weights) for row in range(n)])
    assert np.all(parts * 2.0**42 / clip == np.rint(parts * 2.0**42 / clip))
    assert np.linalg.norm(parts, axis=1).max() <= clip
    order = rng.permutation(n)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(logistic, "_EXACT_ROWS", int(rng.integers(1, 60)))
        assert np.array_equal(sums.over(order, weights), parts.sum(axis=0))
        assert np.array_equal(sums.over(order[1:], weights), parts.sum(axis=0) - parts[order[0]])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 9.0, 3e38])
def test_rows_that_are_no_numbers_or_too_long_contribute_zero(bad):
    rng = np.random.default_rng(1)
    dense, labels = on_grid(rng.uniform(-1, 1, (20, 4))), rng.integers(0, 2, 20).astype(np.float64)
    weights = rng.normal(size=5)
    expected = IntegerSums(dense, labels, 0.9).over(np.delete(np.arange(20), 7), weights)
    dense[7, 2] = bad
    sums = IntegerSums(dense, labels, 0.9)
    assert np.array_equal(sums.over(np.arange(20), weights), expected)
    assert not sums.over(np.array([7]), weights).any()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_integer_sums_survive_labels_and_weights_that_are_no_numbers(bad):
    dense, labels = np.ones((3, 2), dtype=np.float32), np.array([0.0, np.nan, 1.0])
    sums = IntegerSums(dense, labels, 1.0)
    assert np.array_equal(sums.over(np.arange(3), np.ones(3)), sums.over(np.array([0, 2]), np.ones(3)))
    assert np.isfinite(sums.over(np.arange(3), np.array([1.0, bad, -bad]))).all()


def test_integer_sums_of_large_batches_do_not_overflow():
    """Three million rows of the largest part: 2^63 in units of the grid, which one int64 could not hold."""
    dense, labels = np.zeros((1, 1), dtype=np.float32), np.zeros(1)
    rows = np.zeros(3 * 2**20, dtype=np.int64)
    total = IntegerSums(dense, labels, 0.5).over(rows, np.array([0.0, 50.0]))
    assert total[0] == 0.0
    assert total[1] == pytest.approx(0.5 * len(rows), rel=1e-6)


def test_no_rows_give_zero():
    sums = IntegerSums(np.zeros((4, 3), dtype=np.float32), np.zeros(4), 1.0)
    assert sums.over(np.empty(0, dtype=np.int64), np.ones(4)).tolist() == [0.0] * 4
