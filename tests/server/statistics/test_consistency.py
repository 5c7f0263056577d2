"""Noisy tables that add up afterwards, whatever they were."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy.optimize import minimize

from server.statistics.consistency import Nested, counts, increasing, non_negative, table

TABLES = arrays.arrays(np.float64, st.tuples(st.integers(1, 5), st.integers(1, 5)), elements=st.floats(-1e4, 1e5))
ROWS = arrays.arrays(np.float64, st.integers(1, 40), elements=st.floats(-1e5, 1e5))


@given(ROWS, st.floats(0, 1e6))
def test_non_negative_adds_up(values: np.ndarray, total: float) -> None:
    found = non_negative(values, total)
    assert np.all(found >= 0)
    assert found.sum() == pytest.approx(total, rel=1e-9, abs=1e-6)


@given(ROWS)
def test_counts_keep_their_total_and_their_order(values: np.ndarray) -> None:
    found = counts(values)
    assert found.sum() == pytest.approx(max(values.sum(), 0.0), rel=1e-9, abs=1e-6)
    order = np.argsort(values)
    assert np.all(np.diff(found[order]) >= -1e-9)


def test_non_negative_is_the_nearest() -> None:
    values = np.random.default_rng(1).normal(3.0, 5.0, 8)
    found = non_negative(values, 20.0)
    nearest = minimize(
        lambda x: ((x - values) ** 2).sum(),
        np.full(8, 2.5),
        bounds=[(0, None)] * 8,
        constraints={"type": "eq", "fun": lambda x: x.sum() - 20.0},
        tol=1e-12,
    )
    assert np.allclose(found, nearest.x, atol=1e-4)


@settings(max_examples=60)
@given(TABLES)
def test_a_table_keeps_its_margins(values: np.ndarray) -> None:
    found = table(values)
    total = max(values.sum(), 0.0)
    assert np.all(found >= 0)
    assert found.sum() == pytest.approx(total, rel=1e-3, abs=1e-3)
    scale = max(total, 1.0)
    assert np.allclose(found.sum(axis=1), non_negative(values.sum(axis=1), total), atol=1e-2 * scale)
    assert np.allclose(found.sum(axis=0), non_negative(values.sum(axis=0), total), atol=1e-2 * scale)


def test_a_table_that_is_possible_stays_as_it_is() -> None:
    values = np.array([[3.0, 0.0, 5.0], [1.0, 2.0, 0.0]])
    assert np.allclose(table(values), values)


@given(ROWS)
def test_increasing_never_decreases_and_keeps_the_mean(values: np.ndarray) -> None:
    found = increasing(values)
    assert np.all(np.diff(found) >= -1e-9)
    assert found.mean() == pytest.approx(values.mean(), rel=1e-9, abs=1e-6)


def test_nested_counts_without_noise_are_solved_exactly() -> None:
    finest = np.arange(16, dtype=np.float64)
    solution = Nested.of((4, 16), (3.0, 1.0))
    told = np.concatenate([finest.reshape(4, 4).sum(axis=1), finest])
    assert np.allclose(solution.solve @ told, finest)


def test_nested_counts_have_the_covariance_that_they_say() -> None:
    generator = np.random.default_rng(2)
    solution = Nested.of((4, 16), (2.0, 1.0))
    noise = np.hstack([generator.normal(0, np.sqrt(2.0), (20_000, 4)), generator.normal(0, 1.0, (20_000, 16))])
    found = np.cov((noise @ solution.solve.T).T)
    # The standard error of a covariance of 20,000 draws is at most sqrt(2 / 20,000) = 0.01 times the variance; five of them.
    assert np.abs(found - solution.covariance).max() < 0.05
