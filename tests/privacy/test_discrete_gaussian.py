"""The table sampler against exact probabilities, and against the sampler that needs no table."""

from fractions import Fraction

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from federation.errors import PolicyError
from privacy.mechanisms.discrete_gaussian import (
    DiscreteGaussian,
    cumulative_table,
    discrete_gaussian,
    rejection_sample,
    table_bound,
)
from privacy.randomness import ByteSource, SystemSource
from simulations.seeded import SeededSource


class Words(ByteSource):
    """Words of 64 bits that a test wrote down; the low one is read only when the high one does not decide."""

    seeded = True

    def __init__(self, words: list[int]) -> None:
        self._content = b"".join(word.to_bytes(8, "little") for word in words)

    def fill(self, out: memoryview) -> None:
        out[:] = self._content[: len(out)]
        self._content = self._content[len(out) :]


def exact_probabilities(sigma: float, reach: int) -> dict[int, mpmath.mpf]:
    """Probabilities of N_Z(0, sigma^2), by the Jacobi theta function."""
    nome = mpmath.exp(-1 / (2 * mpmath.mpf(sigma) ** 2))
    total = mpmath.jtheta(3, 0, nome)
    return {x: nome ** (x * x) / total for x in range(-reach, reach + 1)}


@pytest.mark.parametrize("sigma", [0.1, 0.5, 1.0, 2.5])
def test_table_is_within_its_stated_error_of_the_exact_law(sigma: float) -> None:
    sampler = DiscreteGaussian(sigma)
    table = cumulative_table(sigma)
    bound = sampler.bound
    with mpmath.workdps(80):
        exact = exact_probabilities(sigma, bound)
        cumulative = [0, *table, 1 << 128]
        mine = [mpmath.mpf(after - before) / 2**128 for before, after in zip(cumulative, cumulative[1:], strict=False)]
        tail = 1 - sum(exact.values())
        distance = (sum(abs(p - exact[x]) for x, p in zip(range(-bound, bound + 1), mine, strict=True)) + tail) / 2
        assert 0 <= tail < mpmath.mpf(2) ** -128
        assert distance < sampler.error
        assert sampler.error <= (2 * bound + 1) * 2.0**-128


@given(st.floats(0.1, 300.0))
@settings(max_examples=30)
def test_table_is_monotone_symmetric_and_long_enough(sigma: float) -> None:
    table = cumulative_table(sigma)
    assert len(table) == 2 * table_bound(sigma)
    assert all(before <= after for before, after in zip(table, table[1:], strict=False))
    assert 0 <= table[0] and table[-1] < 1 << 128
    assert all(abs(low + high - (1 << 128)) <= 1 for low, high in zip(table, reversed(table), strict=True))


@given(st.sampled_from([0.1, 0.3, 1.0, 7.0]), st.data())
@settings(max_examples=60)
def test_lookup_counts_the_entries_not_above_the_draw(sigma: float, data: st.DataObject) -> None:
    sampler, table = DiscreteGaussian(sigma), cumulative_table(sigma)
    near = st.sampled_from(table).flatmap(lambda entry: st.integers(max(entry - 2, 0), min(entry + 2, (1 << 128) - 1)))
    draw = data.draw(near | st.integers(0, (1 << 128) - 1))
    assert sampler.sample(1, Words([draw >> 64, draw & ((1 << 64) - 1)])).tolist() == [
        sum(entry <= draw for entry in table) - sampler.bound
    ]


@pytest.mark.parametrize("sigma", [0.3, 0.5, 1.0, 4.0, 30.0, 1000.0, 16_384.0, 30_000.0])
def test_samples_have_the_law(sigma: float) -> None:
    n = 200_000
    sampler = DiscreteGaussian(sigma)
    values = sampler.sample(n, SeededSource(f"law {sigma}"))
    assert values.dtype == np.int64 and values.shape == (n,)
    x = np.arange(-sampler.bound, sampler.bound + 1)
    weights = np.exp(-(x.astype(float) ** 2) / (2 * sigma**2))
    weights /= weights.sum()
    cells = np.clip(np.floor(np.cumsum(weights) * 50).astype(int), 0, 49)  # whole integers, about 2% of the law a cell
    observed = np.bincount(cells[values + sampler.bound], minlength=50)
    expected = np.bincount(cells, weights * n, minlength=50)
    keep = expected > 5
    assert observed[~keep].sum() <= 20
    assert stats.chisquare(observed[keep], expected[keep] * observed[keep].sum() / expected[keep].sum()).pvalue > 1e-4
    variance = float((weights * x.astype(float) ** 2).sum())
    assert abs(values.mean()) < 5 * np.sqrt(variance / n)
    assert abs((values.astype(float) ** 2).mean() / variance - 1) < 5 * np.sqrt(max(2.0, 1 / variance) / n)


@pytest.mark.parametrize("sigma", [Fraction(1, 2), Fraction(3), Fraction(37, 2)])
def test_table_and_rejection_agree(sigma: Fraction) -> None:
    exact = np.array(rejection_sample(sigma * sigma, 6000, SeededSource(f"rejection {sigma}")))
    table = DiscreteGaussian(float(sigma)).sample(60_000, SeededSource(f"table {sigma}"))
    edges = np.unique(np.quantile(table, np.linspace(0, 1, 16)[1:-1]))
    counts = np.array([np.bincount(np.digitize(values, edges), minlength=edges.size + 1) for values in (exact, table)])
    counts = counts[:, counts.sum(axis=0) > 0]
    assert stats.chi2_contingency(counts).pvalue > 1e-4


def test_rejection_has_exact_probabilities_at_small_sigma() -> None:
    n, sigma = 8000, Fraction(1)
    values = np.array(rejection_sample(sigma, n, SeededSource("exact")))
    exact = {x: float(p) for x, p in exact_probabilities(1.0, 3).items()}
    observed = [np.count_nonzero(values == x) for x in exact]
    rest = 1 - sum(exact.values())
    assert stats.chisquare([*observed, n - sum(observed)], [*(n * p for p in exact.values()), n * rest]).pvalue > 1e-4


def test_no_draws() -> None:
    assert DiscreteGaussian(12.5).sample(0, SystemSource()).shape == (0,)


@pytest.mark.parametrize("sigma", [0.0, -1.0, 0.05, 1e6, float("nan"), float("inf")])
def test_refusals(sigma: float) -> None:
    with pytest.raises(PolicyError) as caught:
        DiscreteGaussian(sigma)
    assert caught.value.code == "CSL-P103"


def test_one_table_a_process() -> None:
    assert discrete_gaussian(12.5) is discrete_gaussian(12.5)
    assert discrete_gaussian(12.5) is not discrete_gaussian(13.0)
