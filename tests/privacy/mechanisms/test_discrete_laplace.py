"""The sampler of the discrete Laplace law against exact probabilities, and its tables against fractions."""

import math
from fractions import Fraction

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from federation.errors import PolicyError
from privacy.mechanisms.discrete_laplace import DiscreteLaplace, discrete_laplace, tables
from privacy.randomness import SystemSource
from simulations.seeded import SeededSource


def shares(table):
    """The probabilities that a table gives, as fractions of 2^128."""
    whole = [0, *table, 1 << 128]
    return [Fraction(after - before, 1 << 128) for before, after in zip(whole, whole[1:], strict=False)]


def law_of_tables(scale):
    """The exact law of the sampler: the difference of two draws m Q + R, by convolution of fractions."""
    step, quotients, remainders = tables(scale)
    geometric = [
        one * other for one in shares(quotients) for other in shares(remainders)
    ]  # m Q + R runs through the integers in this order
    size = len(geometric)
    assert size == step * (len(quotients) + 1)
    law = {x: Fraction(0) for x in range(-size + 1, size)}
    for k, p in enumerate(geometric):
        for other, q in enumerate(geometric):
            law[k - other] += p * q
    return law


@pytest.mark.parametrize("scale", [0.05, 0.3, 1.0, 2.7])
def test_the_law_is_within_its_stated_error_of_the_exact_one(scale):
    law, sampler = law_of_tables(scale), DiscreteLaplace(scale)
    assert sum(law.values()) == 1 and max(law) == sampler.bound
    with mpmath.workdps(80):
        a = mpmath.exp(-1 / mpmath.mpf(scale))
        exact = {x: (1 - a) / (1 + a) * a ** abs(x) for x in law}
        missing = 1 - sum(exact.values())
        distance = sum(abs(mpmath.mpf(p.numerator) / p.denominator - exact[x]) for x, p in law.items())
        assert (distance + missing) / 2 < sampler.error < 2.0**-115


@given(st.floats(0.05, 1e5))
@settings(max_examples=20)
def test_tables_are_short_rising_and_reach_far_enough(scale):
    step, quotients, remainders = tables(scale)
    for table in (quotients, remainders):
        assert all(0 < before <= after < 1 << 128 for before, after in zip(table, table[1:], strict=False))
        assert len(table) <= 10.0 * math.sqrt(scale) + 4
    assert len(remainders) == step - 1
    assert step * (len(quotients) + 1) / scale > 128 * math.log(2)  # what is cut off weighs less than 2^-128
    first = -math.expm1(-step / scale)
    assert quotients[0] / 2.0**128 == pytest.approx(first, rel=1e-12)


@pytest.mark.parametrize("scale", [0.05, 0.5, 1.0, 3.3, 20.0, 777.0, 30_000.0, 100_000.0])
def test_samples_have_the_law(scale):
    n = 200_000
    values = DiscreteLaplace(scale).sample(n, SeededSource(f"law {scale}"))
    assert values.dtype == np.int64 and values.shape == (n,)
    a = math.exp(-1.0 / scale)
    law = stats.dlaplace(1.0 / scale)
    edges = np.unique(law.ppf(np.linspace(0.02, 0.98, 49)))
    observed = np.bincount(np.searchsorted(edges, values, side="left"), minlength=len(edges) + 1)
    expected = np.diff(np.concatenate([[0.0], law.cdf(edges), [1.0]])) * n
    keep = expected > 5
    assert observed[~keep].sum() <= 20
    if keep.sum() > 1:
        assert (
            stats.chisquare(observed[keep], expected[keep] * observed[keep].sum() / expected[keep].sum()).pvalue > 1e-4
        )
    variance = 2.0 * a / (1.0 - a) ** 2
    assert abs(values.mean()) < 5.0 * math.sqrt(variance / n) + 1e-9
    fourth = variance * (1.0 + 10.0 * a + a * a) / (1.0 - a) ** 2
    assert abs((values.astype(float) ** 2).mean() - variance) < 5.0 * math.sqrt((fourth - variance**2) / n) + 1e-9


def test_small_values_have_exact_probabilities():
    """Each value by itself, signs and zero among them: what a sign drawn apart would get wrong at zero."""
    n, scale = 400_000, 1.5
    values = DiscreteLaplace(scale).sample(n, SeededSource("each"))
    a = math.exp(-1.0 / scale)
    reach = range(-6, 7)
    exact = [(1 - a) / (1 + a) * a ** abs(x) for x in reach]
    observed = [int(np.count_nonzero(values == x)) for x in reach]
    assert (
        stats.chisquare([*observed, n - sum(observed)], [*(n * p for p in exact), n * (1 - sum(exact))]).pvalue > 1e-4
    )


def test_no_draws_and_one_sampler_a_scale():
    assert discrete_laplace(12.5) is discrete_laplace(12.5)
    assert discrete_laplace(12.5).sample(0, SystemSource()).shape == (0,)


@pytest.mark.parametrize("scale", [0.0, -1.0, 0.04, 1e6, math.nan, math.inf])
def test_refusals(scale):
    with pytest.raises(PolicyError) as caught:
        DiscreteLaplace(scale)
    assert caught.value.code == "CSL-P114"
