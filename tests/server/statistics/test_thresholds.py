"""Thresholds from noisy histograms: how exact, how their intervals cover, and what ties do."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from federation.contract import NumericColumn
from federation.segments import LEVELS
from server.statistics.thresholds import cells_for, counts_things, find, public_cuts, rank_sd

SHARE = NumericColumn(
    kind="numeric", name="x", meaning="A share", unit="share", low=0, high=1, knots=(0, 0.1, 0.3, 0.6, 1)
)
DAYS = NumericColumn(
    kind="numeric", name="n", meaning="Days", unit="days", low=1, high=365, scale="log", knots=(1, 2, 5, 20, 365)
)
Z = 1.959963984540054


def counted(cuts, values):
    return np.bincount(np.searchsorted(cuts, values, side="right"), minlength=len(cuts) + 1).astype(float)


def test_cells_lie_between_the_contracts_knots_and_whole_numbers_stay_whole():
    cuts = public_cuts(SHARE, 40)
    assert len(cuts) == 39 and all(a < b for a, b in zip(cuts, cuts[1:], strict=False)) and 0 < cuts[0] < cuts[-1] < 1
    assert sum(cut < 0.1 for cut in cuts) == 9
    assert counts_things(DAYS) and not counts_things(SHARE)
    whole = public_cuts(DAYS, 64)
    assert all(cut.is_integer() for cut in whole) and whole[:4] == (2.0, 3.0, 4.0, 5.0) and whole[-1] < 365


def test_less_noise_pays_for_more_cells():
    found = [cells_for(20_000, sd) for sd in (0.0, 5.0, 20.0, 80.0, 1e6)]
    assert found == sorted(found, reverse=True) and found[0] == 256 and found[-1] == 16
    # the sum of both errors is near its smallest, which calculus finds
    sd, n = 20.0, 20_000

    def error(cells):
        return rank_sd(cells, sd) + n / (2.0 * cells)

    assert error(cells_for(n, sd)) <= 1.001 * min(error(cells) for cells in range(16, 257))


@given(st.integers(0, 2**32 - 1), st.sampled_from([SHARE, DAYS]), st.floats(0.0, 1000.0))
def test_thresholds_rise_within_the_bounds_and_their_intervals_whatever_the_counts(seed, column, sd):
    generator = np.random.default_rng(seed)
    cuts = public_cuts(column, 32)
    found = find(column, cuts, generator.normal(0.0, 300.0, len(cuts) + 1), sd, Z)
    assert list(found.at) == sorted(found.at)
    assert all(
        column.low <= low <= at <= high <= column.high
        for low, at, high in zip(found.low, found.at, found.high, strict=True)
    )


@pytest.mark.parametrize("draw", ["even", "early", "tied"])
def test_without_noise_a_threshold_is_off_by_half_a_cell_at_most(draw):
    generator = np.random.default_rng(5)
    values = {
        "even": generator.random(20_000),
        "early": generator.beta(1.0, 6.0, 20_000),
        "tied": np.where(generator.random(20_000) < 0.3, 0.2, generator.random(20_000)),
    }[draw]
    cuts = public_cuts(SHARE, 256)
    counts = counted(cuts, values)
    found = find(SHARE, cuts, counts, 0.0, Z)
    for level, at in zip(LEVELS, found.at, strict=True):
        ranks = np.mean(values < at), np.mean(values <= at)
        beside = counts[np.searchsorted(cuts, at, side="right") - 1 :][:2].max() / len(values)
        assert min(abs(ranks[0] - level), abs(ranks[1] - level)) <= max(0.01, beside / 2.0 + 1e-9)


def test_counting_columns_are_cut_where_the_rank_is_nearest_and_never_below_everybody():
    values = np.repeat([1.0, 2.0, 3.0, 4.0, 9.0], [599, 189, 87, 60, 65])
    cuts = public_cuts(DAYS, 64)
    found = find(DAYS, cuts, counted(cuts, values), 0.0, Z)
    # .599 lie below 2, .788 below 3, .875 below 4
    assert found.at == (2.0, 2.0, 2.0, 3.0)
    assert found.low == found.at and found.high == found.at


def test_intervals_of_thresholds_cover_at_the_confidence_and_widen_with_noise():
    """600 repetitions, 4 thresholds: at 95% the share covered is at least 93% (the binomial's 3 sd of one threshold: 2.7 points)."""
    generator = np.random.default_rng(11)
    values = generator.beta(2.0, 3.0, 20_000)
    cuts = public_cuts(SHARE, 128)
    counts = counted(cuts, values)
    truth = np.quantile(values, LEVELS)
    covered, widths = np.zeros(4), np.zeros(4)
    for _ in range(600):
        found = find(SHARE, cuts, counts + generator.normal(0.0, 20.0, len(counts)), 20.0, Z)
        covered += (np.asarray(found.low) <= truth) & (truth <= np.asarray(found.high))
        widths += np.asarray(found.high) - np.asarray(found.low)
    assert np.all(covered / 600 >= 0.93)
    assert np.all(widths / 600 < 0.05)


def test_intervals_cover_ties_of_a_counting_column():
    generator = np.random.default_rng(12)
    values = generator.geometric(0.12, 20_000).astype(float)
    cuts = public_cuts(DAYS, 128)
    counts = counted(cuts, values)
    truth = find(DAYS, cuts, counts, 0.0, Z).at
    covered = np.zeros(4)
    for _ in range(600):
        found = find(DAYS, cuts, counts + generator.normal(0.0, 60.0, len(counts)), 60.0, Z)
        covered += (np.asarray(found.low) <= truth) & (truth <= np.asarray(found.high))
    assert np.all(covered / 600 >= 0.93)


def test_nobody_is_cut_by_the_public_cells():
    cuts = public_cuts(SHARE, 40)
    found = find(SHARE, cuts, np.full(40, -3.0), 10.0, Z)
    assert found.at == (0.08, 0.22, 0.42, 0.68)
    assert found.low == (0.0,) * 4 and found.high == (1.0,) * 4
