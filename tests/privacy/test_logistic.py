import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from federation.networks import Inputs
from privacy import logistic
from privacy.logistic import LogisticSums


def by_hand(dense, labels, weights, clip):
    """One customer at a time, float64."""
    total = np.zeros(len(weights))
    for x, y in zip(np.c_[dense.astype(np.float64), np.ones(len(dense))], labels, strict=True):
        gradient = (1.0 / (1.0 + np.exp(-x @ weights)) - y) * x
        norm = np.linalg.norm(gradient)
        total += gradient * min(1.0, clip / norm) if norm else gradient
    return total


@settings(max_examples=60, deadline=None)
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
