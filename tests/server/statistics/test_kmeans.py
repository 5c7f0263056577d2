"""The parts of noisy k-means that need no federation."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from server.statistics import kmeans


@given(st.integers(0, 2**32 - 1), st.integers(1, 12), st.integers(1, 4), st.integers(1, 60))
def test_a_start_has_k_finite_centres_within_the_points(seed, k, width, size):
    points = np.random.default_rng(seed).integers(-3, 4, (size, width)).astype(float)
    centres = kmeans.start(points, k)
    assert centres.shape == (k, width)
    assert np.all(centres >= points.min(axis=0) - 1e-9) and np.all(centres <= points.max(axis=0) + 1e-9)


def test_a_move_that_noise_explains_is_not_followed_and_a_clear_one_is():
    generator = np.random.default_rng(4)
    noise = generator.normal(0, 0.1, (4000, 3))
    followed = kmeans.follow(noise, np.full(4000, 0.01))
    assert (followed**2).sum() < 0.35 * (noise**2).sum()
    far = np.array([[3.0, -2.0, 1.0]])
    np.testing.assert_allclose(kmeans.follow(far, np.array([1e-4])), far, rtol=1e-3)
    np.testing.assert_array_equal(kmeans.follow(far, np.array([0.0])), far)
    # it shrinks a little more than James and Stein's least, which errs less where there is no move, and hardly more where there is one
    for length in (0.0, 0.1, 0.2, 0.3, 0.5):
        true = np.full(3, length / 3**0.5)
        seen = true + noise
        assert ((kmeans.follow(seen, np.full(4000, 0.01)) - true) ** 2).sum() < ((seen - true) ** 2).sum() * 1.1


def test_empty_centres_go_where_points_are_served_worst():
    points = np.concatenate([np.full((50, 2), -1.0), np.full((50, 2), 1.0) + np.arange(50)[:, None] * 1e-3])
    centres = kmeans.reseed(np.array([[-1.0, -1.0], [0.0, -9.0]]), np.array([False, True]), points)
    assert np.all(centres[1] > 0.9)
    assert kmeans.reseed(np.zeros((2, 2)), np.array([True, True]), points).shape == (2, 2)


@given(st.integers(0, 2**32 - 1), st.integers(3, 9))
def test_merging_keeps_customers_and_their_mean_and_loses_what_it_says(seed, k):
    generator = np.random.default_rng(seed)
    sizes, centres = generator.uniform(1, 100, k), generator.uniform(-1, 1, (k, 2))
    mean = sizes @ centres / sizes.sum()
    outside = (sizes * ((centres - mean) ** 2).sum(axis=1)).sum()
    for count, (merged, at, loss) in kmeans.merge(sizes, centres, 1).items():
        assert len(merged) == count
        np.testing.assert_allclose(merged.sum(), sizes.sum())
        np.testing.assert_allclose(merged @ at / merged.sum(), mean, atol=1e-9)
        left = (merged * ((at - mean) ** 2).sum(axis=1)).sum()
        np.testing.assert_allclose(left + loss, outside, rtol=1e-9, atol=1e-9)


def test_the_number_of_groups_follows_the_distances_inside():
    pairs = np.array([[-1.0, -1.0], [-0.9, -1.0], [1.0, 1.0], [0.9, 1.0], [-1.0, 1.0], [-0.9, 1.0]])
    assert len(kmeans.choose(np.full(6, 100.0), pairs, 6.0, (2, 6))) == 3
    assert len(kmeans.choose(np.full(6, 100.0), pairs, 6.0, (4, 6))) >= 4
