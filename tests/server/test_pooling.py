"""Clips, weights and scales of secure sums: nobody's part exceeds a grant, nobody's grant is left unused, and the noise is what is said."""

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from federation.errors import DocumentError
from federation.messages import SecureGrant, TrainRequest
from privacy.secure_aggregation.quantisation import add_noise, rounding_of, sensitivity_of
from server.pooling import MemberPool, Pool, tune_pooled
from server.recipe import RunTuning, TrainingPlan, plan_training, tune
from simulations.seeded import SeededSource

SHARE = 16_384.0
DIMENSION = 100


def plan_for(rounds: int | None = None) -> TrainingPlan:
    return plan_training([1000, 2000], 1.0, DIMENSION - 1, "fedsgd", rounds=rounds)


def grant(sensitivity: float, dimension: int = DIMENSION) -> SecureGrant:
    return SecureGrant(sensitivity=sensitivity, dimension=dimension, histogram_scale=100)


@st.composite
def federations(draw: st.DrawFn) -> tuple[list[int], list[SecureGrant]]:
    dimension = draw(st.integers(1, 100_000))
    least = 2.0 * rounding_of(dimension)
    members = draw(st.lists(st.tuples(st.integers(1, 1_000_000), st.floats(1.0, 300.0)), min_size=2, max_size=50))
    return [size for size, _ in members], [grant(factor * least, dimension) for _, factor in members]


def pools(sizes: list[int], grants: list[SecureGrant], share: float = SHARE) -> tuple[RunTuning, Pool, Pool]:
    found = tune_pooled(plan_for(), sizes, grants, share)
    return found.tuning, found.probe, found.descent


@given(federations())
def test_every_member_uses_its_grant_and_no_more(federation: tuple[list[int], list[SecureGrant]]) -> None:
    sizes, grants = federation
    _, *both = pools(sizes, grants)
    for pool in both:
        for clip, weight, item in zip(pool.clips, pool.weights, grants, strict=True):
            part = sensitivity_of(pool.scale, clip, weight, item.dimension)
            assert item.sensitivity * (1.0 - 1e-6) <= part <= item.sensitivity


@given(federations())
def test_what_is_asked_is_a_request_that_a_vault_can_read(federation: tuple[list[int], list[SecureGrant]]) -> None:
    sizes, grants = federation
    _, *both = pools(sizes, grants)
    for pool in both:
        assert math.isfinite(pool.scale) and pool.scale > 0.0 and pool.x_max >= 1.0
        for clip, weight in zip(pool.clips, pool.weights, strict=True):
            request = TrainRequest(
                study="0" * 64, round=1, clip=clip, learning_rate=1.0, weight=weight, payload="0" * 64
            )
            assert request.weight is not None and 0.0 < request.weight <= 1.0


@given(st.lists(st.integers(500, 1_000_000), min_size=2, max_size=50), st.floats(50.0, 1e5))
def test_with_equal_grants_clips_and_weights_are_those_of_plain_studies(sizes: list[int], sensitivity: float) -> None:
    plain = tune(plan_for(), sizes, [1.0] * len(sizes))
    _, probe, descent = pools(sizes, [grant(sensitivity)] * len(sizes))
    assert descent.clips == pytest.approx(plain.clips, rel=1e-8)
    assert probe.clips == plain.probe_clips
    assert descent.weights == plain.weights
    assert probe.weights == pytest.approx(plain.weights, rel=1e-8)


def test_clips_go_with_what_a_grant_leaves_beside_rounding() -> None:
    edge = rounding_of(DIMENSION)
    _, probe, descent = pools([1000, 1000, 1000], [grant(edge + part) for part in (100.0, 200.0, 400.0)])
    assert np.array(descent.clips) / descent.clips[2] == pytest.approx([0.25, 0.5, 1.0])
    assert descent.weights == (1.0, 1.0, 1.0)
    assert len(set(probe.clips)) == 1
    assert probe.weights == pytest.approx([0.25, 0.5, 1.0])


@given(
    st.lists(st.tuples(st.integers(10, 100_000), st.floats(30.0, 5000.0)), min_size=2, max_size=20),
    st.integers(0, 2**32 - 1),
)
def test_probes_are_not_bent_by_unequal_grants(members: list[tuple[int, float]], seed: int) -> None:
    sizes, grants = [size for size, _ in members], [grant(sensitivity) for _, sensitivity in members]
    _, probe, _ = pools(sizes, grants)
    mean = np.random.default_rng(seed).normal(size=5)
    sums = [0.3 * size * mean for size in sizes]  # every member's customers are alike, and none is clipped
    expected = [0.3 * size for size in sizes]
    total = np.sum([probe.scale * w * part for w, part in zip(probe.weights, sums, strict=True)], axis=0)
    divisor = probe.scale * math.fsum(w * n for w, n in zip(probe.weights, expected, strict=True))
    np.testing.assert_allclose(total / divisor, mean)


@given(st.sets(st.sampled_from("abcd"), min_size=1))
def test_who_drops_out_is_in_neither_part_of_the_mean(survivors: set[str]) -> None:
    names, sizes = "abcd", [700, 1500, 900, 200]
    _, probe, _ = pools(sizes, [grant(item) for item in (100.0, 300.0, 900.0, 500.0)])
    pool = MemberPool.of(probe, list(names))
    expected = {name: 0.3 * size for name, size in zip(names, sizes, strict=True)}
    gradient = np.array([1.0, -2.0, 0.5])
    total = np.sum([pool.scale * pool.weights[name] * expected[name] * gradient for name in survivors], axis=0)
    found = pool.mean(np.rint(total).astype(np.int64), sorted(survivors), expected)
    np.testing.assert_allclose(found, gradient, atol=0.05)


@pytest.mark.parametrize("sensitivities", [(500.0, 500.0, 500.0), (100.0, 300.0, 900.0)])
def test_the_noise_is_what_the_mean_gradient_has(sensitivities: tuple[float, ...]) -> None:
    share, sizes = 200.0, [700, 1500, 900]
    tuning, probe, descent = pools(sizes, [grant(item) for item in sensitivities], share)
    expected = [0.3 * size for size in sizes]
    for pool, claimed in ((probe, tuning.probe_noise), (descent, tuning.noise)):
        nothing = np.zeros(40_000, dtype=np.int64)
        total = sum(add_noise(nothing, share, SeededSource(place)) for place in range(len(sizes)))
        divisor = pool.scale * math.fsum(w * n for w, n in zip(pool.weights, expected, strict=True))
        assert float(np.std(total / divisor)) == pytest.approx(claimed, rel=0.02)


@given(federations(), st.floats(1.01, 3.0))
def test_a_larger_grant_for_everybody_means_less_noise(
    federation: tuple[list[int], list[SecureGrant]], factor: float
) -> None:
    sizes, grants = federation
    larger = [grant(item.sensitivity * factor, item.dimension) for item in grants]
    before, *_ = pools(sizes, grants)
    after, *_ = pools(sizes, larger)
    # One grant's rounding shrinks beside the other's, which moves their ratio; the largest grant's scale grows all the same.
    assert after.noise < before.noise and after.probe_noise < before.probe_noise


def test_more_noise_from_everybody_is_more_noise() -> None:
    sizes, grants = [1000, 2000], [grant(400.0), grant(400.0)]
    one, *_ = pools(sizes, grants, SHARE)
    two, *_ = pools(sizes, grants, 2.0 * SHARE)
    assert (two.noise, two.probe_noise) == pytest.approx((2.0 * one.noise, 2.0 * one.probe_noise))


@settings(max_examples=50)
@given(st.lists(st.integers(100, 1_000_000), min_size=2, max_size=20), st.floats(30.0, 1e5), st.integers(1, 1000))
def test_a_batch_stays_below_its_bound(sizes: list[int], sensitivity: float, seed: int) -> None:
    _, probe, descent = pools(sizes, [grant(sensitivity)] * len(sizes))
    largest = int(np.random.default_rng(seed).binomial(max(sizes), 0.3))
    for pool in (probe, descent):
        assert largest * pool.scale * max(pool.clips) < pool.x_max


@given(st.floats(0.1, 1.99), st.integers(1, 10_000), st.integers(0, 2))
def test_a_grant_that_rounding_eats_is_refused_whoever_gave_it(part: float, dimension: int, who: int) -> None:
    sensitivities = [10.0 * rounding_of(dimension)] * 3
    sensitivities[who] = part * rounding_of(dimension)
    assume(sensitivities[who] > 0.0)
    with pytest.raises(DocumentError) as caught:
        pools([1000] * 3, [grant(item, dimension) for item in sensitivities])
    assert caught.value.code == "CSL-P820"


def test_the_length_and_the_average_are_those_of_the_recipe() -> None:
    plan = plan_for(rounds=20)
    base = tune(plan, [1000, 2000], [1.0, 1.0])
    found = tune_pooled(plan, [1000, 2000], [grant(400.0), grant(500.0)], SHARE).tuning
    assert (found.average_from, found.momentum, found.learning_rate) == (
        base.average_from,
        base.momentum,
        base.learning_rate,
    )
    assert found.clips[1] == pytest.approx(base.clips[1])
