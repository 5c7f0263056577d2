"""Draws are Poisson samples that depend on seed, round and step alone."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chi2

from simulations.engines.draws import DRAWS, NOISE, drawn, stream

N = 40_000


@given(st.integers(0, 500), st.integers(0, 500), st.integers(0, 2**32), st.floats(0.01, 1.0))
def test_a_part_is_drawn_as_within_the_whole(start, length, seed, rate):
    whole = drawn(seed, 3, 1, 0, 1_000, rate)
    assert (drawn(seed, 3, 1, start, start + length, rate) == whole[start : start + length]).all()


def test_numpy_integers_are_places_too():
    assert (drawn(1, 0, 0, np.int64(6), np.int64(9), 0.5) == drawn(1, 0, 0, 6, 9, 0.5)).all()  # type: ignore[arg-type]


@pytest.mark.parametrize("rate", [0.003, 0.3, 0.9])
def test_every_customer_is_drawn_with_the_rate_whatever_happens_to_others(rate):
    draws = np.stack([drawn(7, round_, 0, 0, 2_000, rate) for round_ in range(200)]).astype(np.float64)
    spread = np.sqrt(rate * (1.0 - rate) / draws.size)
    assert abs(draws.mean() - rate) < 5.0 * spread
    both = (draws[:, :-1] * draws[:, 1:]).mean()
    assert abs(both - rate**2) < 5.0 * np.sqrt(rate**2 / draws.size)
    counts = draws.sum(axis=1)  # binomial: their variance would be smaller in shuffled batches
    statistic = float(((counts - 2_000 * rate) ** 2).sum() / (2_000 * rate * (1.0 - rate)))
    assert chi2.ppf(1e-6, 200) < statistic < chi2.ppf(1.0 - 1e-6, 200)


def test_rounds_steps_and_seeds_draw_apart():
    base = drawn(1, 2, 3, 0, N, 0.5)
    for other in (drawn(2, 2, 3, 0, N, 0.5), drawn(1, 3, 3, 0, N, 0.5), drawn(1, 2, 4, 0, N, 0.5)):
        assert abs((base == other).mean() - 0.5) < 5.0 * 0.5 / np.sqrt(N)


def test_a_rate_of_one_draws_everybody():
    assert drawn(1, 0, 0, 5, 25, 1.0).all()


def test_streams_repeat_and_differ_by_their_path():
    assert (stream(1, NOISE, 2).random(5) == stream(1, NOISE, 2).random(5)).all()
    assert (stream(1, NOISE, 2).random(5) != stream(1, NOISE, 3).random(5)).all()
    assert (stream(1, NOISE, 2).random(5) != stream(1, DRAWS, 2).random(5)).all()
