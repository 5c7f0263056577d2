"""Poisson sampling: every subset has exactly its probability."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from federation.errors import PolicyError
from privacy.randomness import SystemSource
from privacy.sampling import MAX_CUSTOMERS, poisson_sample
from simulations.seeded import SeededSource


@pytest.mark.parametrize("rate", [0.03, 0.3, 0.5, 0.9])
def test_every_subset_of_a_tiny_table_has_its_probability(rate: float) -> None:
    n, trials = 4, 20_000
    source = SeededSource(f"subsets {rate}")
    seen = np.zeros(1 << n)
    for _ in range(trials):
        seen[sum(1 << int(row) for row in poisson_sample(n, rate, source))] += 1
    sizes = np.array([sum(bits) for bits in itertools.product((0, 1), repeat=n)])
    expected = trials * rate**sizes * (1 - rate) ** (n - sizes)
    rare = expected < 5
    observed = np.append(seen[~rare], seen[rare].sum())
    expected = np.append(expected[~rare], expected[rare].sum())
    keep = expected > 0
    assert stats.chisquare(observed[keep], expected[keep]).pvalue > 1e-4


def test_batch_sizes_are_binomial_and_rows_are_independent_of_their_neighbours() -> None:
    n, rate, trials = 500, 0.07, 4000
    source = SeededSource("sizes")
    batches = [poisson_sample(n, rate, source) for _ in range(trials)]
    sizes = np.array([batch.size for batch in batches])
    deviation = np.sqrt(n * rate * (1 - rate))
    assert abs(sizes.mean() - n * rate) < 4.5 * deviation / np.sqrt(trials)
    assert abs(sizes.var() / deviation**2 - 1) < 4.5 * np.sqrt(2 / trials)
    table = np.zeros((trials, n), dtype=bool)
    for line, batch in zip(table, batches, strict=True):
        line[batch] = True
    hits = table.sum(axis=0)
    spread = np.sqrt(trials * rate * (1 - rate))
    assert np.abs(hits - trials * rate).max() < 5.5 * spread
    for lag in (1, 2, 17):
        pairs, both = trials * (n - lag), int((table[:, lag:] & table[:, :-lag]).sum())
        assert abs(both - pairs * rate**2) < 5 * np.sqrt(pairs * rate**2)
    again = table[1:] & table[:-1]
    assert abs(int(again.sum()) - again.size * rate**2) < 5 * np.sqrt(again.size * rate**2)


def test_edges() -> None:
    source = SystemSource()
    assert poisson_sample(5, 1.0, source).tolist() == [0, 1, 2, 3, 4]
    assert poisson_sample(5, 0.0, source).size == 0
    assert poisson_sample(0, 0.5, source).size == 0
    assert poisson_sample(MAX_CUSTOMERS, 5e-324, source).size == 0
    assert poisson_sample(1000, 1.0 - 2.0**-53, source).size > 990
    assert 0 < poisson_sample(MAX_CUSTOMERS, 1e-7, source).size < 1000


@given(st.integers(0, 3000), st.floats(0.0, 1.0), st.integers(0, 1 << 30))
def test_rows_are_increasing_and_within_the_table(n: int, rate: float, seed: int) -> None:
    rows = poisson_sample(n, rate, SeededSource(seed))
    assert rows.dtype == np.int64 and rows.ndim == 1
    assert np.all(np.diff(rows) > 0)
    assert rows.size == 0 or (rows[0] >= 0 and rows[-1] < n)


@pytest.mark.parametrize(("n", "rate"), [(-1, 0.5), (MAX_CUSTOMERS + 1, 0.5), (5, -0.1), (5, 1.1), (5, float("nan"))])
def test_refusals(n: int, rate: float) -> None:
    with pytest.raises(PolicyError) as caught:
        poisson_sample(n, rate, SystemSource())
    assert caught.value.code == "CSL-P102"
