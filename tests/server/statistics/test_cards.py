"""Segment cards: intervals hold what they should, names and order do not depend on how the centres are numbered."""

from dataclasses import replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from federation.measures import Factor
from server.statistics.cards import Segments, cards_of
from server.statistics.intervals import amount

Z = 1.959963984540054
DRAWS = 2000
TOLERANCE = 0.02
"""Four standard errors of a share of 0.95 over so many draws: a false alarm once in 16,000 intervals."""

FACTORS = tuple(Factor(column=name, low=0.0, high=1.0) for name in ("age", "spend"))


def segments(points, sizes, means, size_sd=0.0, way_sd=0.0) -> Segments:
    points, sizes = np.asarray(points, dtype=float), np.asarray(sizes, dtype=float)
    ways = (np.asarray(means, dtype=float) - points) * sizes[:, None]
    return Segments(("age", "spend"), FACTORS, points, sizes, size_sd, ways, way_sd)


POINTS = ((-0.5, -0.4), (0.5, 0.6), (0.1, 0.0))
EXACT = segments(POINTS, (3000, 800, 150), ((-0.52, -0.35), (0.45, 0.55), (0.2, -0.1)), 30.0, 25.0)


def noisy(generator: np.random.Generator) -> Segments:
    return replace(
        EXACT,
        sizes=EXACT.sizes + generator.normal(0, EXACT.size_sd, EXACT.sizes.shape),
        ways=EXACT.ways + generator.normal(0, EXACT.way_sd, EXACT.ways.shape),
    )


def test_intervals_of_sizes_and_means_hold_the_truth_as_often_as_they_say():
    generator = np.random.default_rng(11)
    truth = np.array([[EXACT.mean(i, j, Z).value for j in range(2)] for i in range(3)])
    every = [EXACT.overall(j, Z).value for j in range(2)]
    sizes, means, overall = np.zeros(3), np.zeros((3, 2)), np.zeros(2)
    for _ in range(DRAWS):
        drawn = noisy(generator)
        for j in range(2):
            span = drawn.overall(j, Z)
            overall[j] += span.low <= every[j] <= span.high
        for i in range(3):
            size = amount(float(drawn.sizes[i]), drawn.size_sd, Z)
            sizes[i] += size.low <= EXACT.sizes[i] <= size.high
            for j in range(2):
                span = drawn.mean(i, j, Z)
                # a size that cannot be told from zero says nothing, which is no false statement
                means[i, j] += span.value is None or span.low <= truth[i, j] <= span.high
    for share in (sizes / DRAWS, means / DRAWS, overall / DRAWS):
        assert np.all(np.abs(share - 0.95) <= TOLERANCE), share


@given(st.permutations(range(3)))
def test_cards_do_not_depend_on_the_numbers_of_the_centres(order):
    order = list(order)
    turned = replace(EXACT, points=EXACT.points[order], sizes=EXACT.sizes[order], ways=EXACT.ways[order])
    spread = np.array([0.4, 0.4])
    first, second = cards_of(EXACT, spread, Z), cards_of(turned, spread, Z)
    assert [(card.name, card.size) for card in first] == [(card.name, card.size) for card in second]
    assert [order[card.number] for card in second] == [card.number for card in first]


def test_noise_seldom_changes_the_names():
    generator = np.random.default_rng(12)
    spread = np.array([0.4, 0.4])
    clear = replace(EXACT, size_sd=10.0, way_sd=8.0)
    names = [card.name for card in cards_of(clear, spread, Z)]
    assert names == ["high age, high spend", "low age, low spend", "near the average"] or len(set(names)) == 3
    same = 0
    for _ in range(100):
        drawn = replace(
            clear,
            sizes=clear.sizes + generator.normal(0, 10.0, 3),
            ways=clear.ways + generator.normal(0, 8.0, (3, 2)),
        )
        same += [card.name for card in cards_of(drawn, spread, Z)] == names
    assert same >= 90


def test_alike_segments_get_more_words_or_numbers_and_empty_ones_none():
    near = segments(
        ((0.5, 0.5), (0.45, 0.5), (-0.9, -0.9), (0, 0)),
        (500, 400, 2000, 3),
        ((0.5, 0.5), (0.45, 0.5), (-0.9, -0.9), (0, 0)),
        5.0,
        5.0,
    )
    names = [card.name for card in cards_of(near, np.array([0.4, 0.4]), Z)]
    assert len(set(names)) == 4 and "too small to describe" in names
    alike = [name for name in names if name.startswith(("high", "very high"))]
    assert len(alike) == 2 and alike[1] == f"{alike[0]} (2)"
