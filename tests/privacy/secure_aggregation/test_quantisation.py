"""What one customer changes in a quantised sum, by data that are chosen to change the most; and the formulas around it."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from federation.errors import ConsilienceError, DocumentError, IntegrityError
from privacy.logistic import IntegerSums
from privacy.secure_aggregation.quantisation import (
    LARGEST_COORDINATE,
    add_noise,
    bound_for,
    quantise,
    rounding_of,
    scale_for,
    sensitivity_of,
    width_for,
)
from simulations.seeded import SeededSource

SHARE = 64.0


def noiseless(vector, scale, x_max=2.0**44):
    """The difference of two vectors that got the very same noise is that of their integers."""
    noise = add_noise(np.zeros(len(vector), dtype=np.int64), SHARE, SeededSource("same"))
    return quantise(vector, scale=scale, x_max=x_max, share=SHARE, source=SeededSource("same")) - noise


def aligned(rng, n, width):
    """Everybody's gradient points the same way and is clipped: the sum is as long as it can be."""
    return np.full((n, width), 0.37, dtype=np.float32), np.zeros(n), np.full(width + 1, 5.0)


def cancelling(rng, n, width):
    """Huge weights that nearly cancel in every logit: another order of summation would give other answers."""
    dense = rng.uniform(0.1, 1.0, (n, width)).astype(np.float32)
    weights = 1e6 * rng.choice([-1.0, 1.0], width + 1)
    weights[-1] = -float(np.mean(dense.astype(np.float64) @ weights[:-1]))
    return dense, rng.integers(0, 2, n).astype(np.float64), weights


def ordinary(rng, n, width):
    dense = (rng.normal(size=(n, width)) / math.sqrt(width)).astype(np.float32)
    return dense, rng.integers(0, 2, n).astype(np.float64), rng.normal(size=width + 1)


@pytest.mark.parametrize("data", [aligned, cancelling, ordinary])
@pytest.mark.parametrize("clip", [1e-6, 0.05, 1.0, 1e6])
@pytest.mark.parametrize(("n", "width", "sensitivity"), [(3, 1, 40.0), (2500, 7, 4096.0), (2500, 90, 1e6)])
def test_one_customer_changes_a_sum_by_no_more_than_its_sensitivity(data, clip, n, width, sensitivity):
    rng = np.random.default_rng(n + width)
    dense, labels, weights = data(rng, n, width)
    sums = IntegerSums(dense, labels, clip)
    scale = scale_for(sensitivity, clip, 1.0, width + 1)
    everybody = np.arange(n)
    whole = noiseless(sums.over(everybody, weights), scale)
    bound = sensitivity_of(scale, clip, 1.0, width + 1)
    assert bound <= sensitivity
    for gone in (0, n // 2, n - 1):
        less = noiseless(sums.over(np.delete(everybody, gone), weights), scale)
        assert np.linalg.norm((whole - less).astype(np.float64)) <= bound


def test_the_bound_is_reached_nearly():
    """A gradient at the clip in one coordinate: a bound that were lower by one part in ten thousand would be passed."""
    scale = scale_for(5000.0, 0.5, 1.0, 2)
    sums = IntegerSums(np.zeros((1, 1), dtype=np.float32), np.zeros(1), 0.5)
    part = noiseless(sums.over(np.array([0]), np.array([0.0, 50.0])), scale)
    assert np.linalg.norm(part) > sensitivity_of(scale, 0.5, 1.0, 2) - rounding_of(2) - 1.0


@given(st.floats(1.0, 1e6), st.floats(1e-6, 1e6), st.floats(1e-3, 1.0), st.integers(1, 10_000))
def test_scale_and_sensitivity_are_inverse(sensitivity, clip, weight, dimension):
    if sensitivity < 2.0 * rounding_of(dimension):
        with pytest.raises(DocumentError) as caught:
            scale_for(sensitivity, clip, weight, dimension)
        assert caught.value.code == "CSL-P820"
        return
    scale = scale_for(sensitivity, clip, weight, dimension)
    assert sensitivity * (1.0 - 1e-9) <= sensitivity_of(scale, clip, weight, dimension) <= sensitivity


@given(
    st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=30),
    st.floats(1e-3, 1e6),
    st.floats(1.0, 1e18),
    st.integers(0, 10**6),
)
@settings(max_examples=200)
def test_integers_are_the_rounded_clamped_values(values, scale, x_max, shift):
    vector = np.array(values)
    found = noiseless(vector, scale, x_max)
    bound = min(math.floor(x_max), LARGEST_COORDINATE)
    assert found.dtype == np.int64
    assert found.tolist() == [round(min(max(value * scale, -bound), bound)) for value in values]
    other = noiseless(
        vector + shift / scale, scale, x_max
    )  # clamping and rounding move nothing further apart than 1 more
    assert np.all(np.abs(other - found) <= np.abs((vector + shift / scale) * scale - vector * scale) + 1.0)


def test_coordinates_end_where_floats_grow_coarse():
    assert noiseless(np.array([1e300, -1e300]), 1.0).tolist() == [2**44, -(2**44)]
    assert 4.0 * 2.0**-53 * LARGEST_COORDINATE < 0.01


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_is_refused(bad):
    with pytest.raises(IntegrityError) as caught:
        noiseless(np.array([1.0, bad, 2.0]), 10.0)
    assert caught.value.code == "CSL-P821"


@pytest.mark.parametrize(
    "change",
    [
        {"scale": 0.0},
        {"scale": -1.0},
        {"scale": math.nan},
        {"scale": 2e12},
        {"x_max": 0.5},
        {"x_max": math.nan},
        {"share": 3.9},
        {"share": math.nan},
        {"share": 1e6},
    ],
)
def test_values_out_of_range_are_refused(change):
    given_ = {"scale": 10.0, "x_max": 100.0, "share": SHARE} | change
    with pytest.raises(ConsilienceError) as caught:
        quantise(np.zeros(3), **given_, source=SeededSource(1))
    assert caught.value.code == ("CSL-P103" if change == {"share": 1e6} else "CSL-P822")


def test_the_noise_is_that_of_the_share():
    values = quantise(np.full(40_000, 0.5), scale=100.0, x_max=1e6, share=300.0, source=SeededSource("noise"))
    assert abs(values.mean() - 50.0) < 5 * 300.0 / 200.0
    assert abs(values.var() / 300.0**2 - 1.0) < 5 * math.sqrt(2.0 / 40_000)


@given(st.integers(1, 200), st.floats(4.0, 65_536.0), st.sampled_from([32, 64]))
def test_sums_within_the_bound_do_not_wrap(members, share, w):
    bound = bound_for(w, members, share)
    assert bound == math.floor(bound) and 1.0 <= bound <= LARGEST_COORDINATE
    noise = 12.0 * math.sqrt(members) * share
    assert members * int(bound) + noise <= 2 ** (w - 1) - 1
    if bound < LARGEST_COORDINATE:
        assert members * (int(bound) + 1) + noise > 2 ** (w - 1) - 1


def test_the_bound_of_ordinary_sums():
    assert bound_for(32, 5, 16_384.0) == (2**31 - 1 - 12 * 5**0.5 * 16_384.0) // 5
    assert bound_for(64, 5, 16_384.0) == 2.0**44


def test_noise_that_fills_the_words_leaves_no_bound():
    with pytest.raises(DocumentError) as caught:
        bound_for(32, 10**8, 65_536.0)
    assert caught.value.code == "CSL-P824"


@given(st.integers(1, 1000), st.floats(1.0, 2.0**44), st.floats(4.0, 65_536.0))
def test_the_width_is_the_least_that_holds_the_sum(members, x_max, share):
    needed = 2.0 * (members * x_max + 12.0 * math.sqrt(members) * share)
    width = width_for(members, x_max, share)
    assert needed <= 2.0**width
    assert width == 32 or needed > 2.0**32


def test_sums_beyond_all_words_are_refused():
    with pytest.raises(DocumentError) as caught:
        width_for(1000, 2.0**60, 4.0)
    assert caught.value.code == "CSL-P823"
