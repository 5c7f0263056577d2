"""Descent: the probes recover the moments, the start gives the base rate, the steps learn, and a checkpoint loses nothing."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from federation.basis import ROW_NORM
from server.descent import BIAS, WEIGHT, Descent, gradient_of_change, read_probes, step_size
from server.recipe import MOMENTUM, NOISE_IN_WEIGHTS, Mode, RunTuning, TrainingPlan, plan_training, tune

Vector = NDArray[np.float64]


class Population:
    """Customers with rows of norm below 4 and a logistic answer; gradients as vaults would send them."""

    def __init__(self, seed: int, n: int = 4000, width: int = 6, shift: float = -2.0) -> None:
        rng = np.random.default_rng(seed)
        x = rng.normal(size=(n, width)) + rng.normal(size=width)
        self.x = 4.0 * x / np.linalg.norm(x, axis=1).max()
        self.truth = rng.normal(size=width)
        self.y = (rng.random(n) < 1 / (1 + np.exp(-(self.x @ self.truth + shift)))).astype(np.float64)
        self.rng = rng

    def gradient(
        self, weights: Vector, bias: float, clip: float, noise: float, share: float = 1.0
    ) -> dict[str, Vector]:
        rows = np.hstack([self.x, np.ones((len(self.x), 1))])
        residual = 1 / (1 + np.exp(-(self.x @ weights + bias))) - self.y
        norms = np.abs(residual) * np.linalg.norm(rows, axis=1)
        total = (residual * np.minimum(1.0, clip / np.maximum(norms, 1e-12))) @ rows / len(rows) * share
        total = total + noise * self.rng.standard_normal(len(total))
        return {WEIGHT: total[None, :-1], BIAS: total[-1:]}


def trained(
    people: Population, plan: TrainingPlan, tuning: RunTuning, share: float = 1.0
) -> tuple[Descent, dict[str, NDArray[np.float32]]]:
    state = Descent.start(people.x.shape[1])
    for done in range(plan.rounds):
        sent = state.broadcast(tuning)
        probing = done < plan.probes
        clip, noise = (tuning.probe_clips[0], tuning.probe_noise) if probing else (tuning.clips[0], tuning.noise)
        gradient = people.gradient(sent[WEIGHT][0].astype(np.float64), float(sent[BIAS][0]), clip, noise, share)
        state = state.after(gradient, plan, tuning)
    return state, state.model(tuning)


def settings_for(
    epsilon: float | None, sigma: float, size: int = 4000, mode: Mode = "fedsgd"
) -> tuple[TrainingPlan, RunTuning]:
    plan = plan_training([size], epsilon, 6, mode)
    return plan, tune(plan, [size], [sigma])


@settings(max_examples=20)
@given(st.integers(0, 1000), st.sampled_from([-3.0, -1.0, 0.0, 2.0]), st.sampled_from([0.7, 1.0, 1.2]))
def test_probes_recover_mean_and_rate_whatever_was_declared(seed: int, shift: float, share: float) -> None:
    people = Population(seed, shift=shift)
    plan, tuning = settings_for(None, 0.0)
    state = Descent.start(6)
    for _ in range(plan.probes):
        sent = state.broadcast(tuning)
        assert not sent[WEIGHT].any()
        state = state.after(
            people.gradient(np.zeros(6), float(sent[BIAS][0]), tuning.probe_clips[0], 0.0, share), plan, tuning
        )
    moments = state.moments(tuning)
    np.testing.assert_allclose(moments.mean, people.x.mean(axis=0), atol=1e-6)
    assert moments.rate == pytest.approx(min(max(people.y.mean(), 0.01), 0.99), abs=1e-6)


def test_the_start_gives_the_average_customer_the_base_rate() -> None:
    people = Population(3)
    plan, tuning = settings_for(None, 0.0)
    state = Descent.start(6)
    for _ in range(plan.probes):
        state = state.after(
            people.gradient(np.zeros(6), float(state.broadcast(tuning)[BIAS][0]), 99.0, 0.0), plan, tuning
        )
    sent = state.broadcast(tuning)
    logit = people.x.mean(axis=0) @ sent[WEIGHT][0] + sent[BIAS][0]
    assert 1 / (1 + math.exp(-logit)) == pytest.approx(people.y.mean(), abs=1e-4)


@settings(max_examples=30)
@given(st.integers(0, 2**32 - 1), st.floats(0.0, 10.0), st.integers(1, 50))
def test_pure_noise_never_gives_an_impossible_moment(seed: int, noise: float, width: int) -> None:
    low, high = np.random.default_rng(seed).normal(scale=noise, size=(2, width + 1))
    moments = read_probes(low, high, noise)
    assert np.isfinite(moments.mean).all() and 0 < moments.rate < 1
    assert moments.curvature >= 0.0099


@pytest.mark.parametrize("shift", [-3.0, 0.0, 2.0])
def test_without_noise_it_comes_to_the_logistic_regression(shift: float) -> None:
    people = Population(5, shift=shift)
    plan, tuning = settings_for(None, 0.0)
    _, model = trained(people, plan, tuning)
    reference = LogisticRegression(C=1e6, max_iter=1000).fit(people.x, people.y)
    ours = people.x @ model[WEIGHT][0] + model[BIAS][0]
    assert roc_auc_score(people.y, ours) == pytest.approx(
        roc_auc_score(people.y, reference.decision_function(people.x)), abs=2e-3
    )


@pytest.mark.parametrize("seed", range(3))
def test_with_noise_it_still_learns(seed: int) -> None:
    people = Population(seed)
    plan, tuning = settings_for(1.0, 10.0)
    _, model = trained(people, plan, tuning)
    best = roc_auc_score(people.y, people.x @ people.truth)
    assert roc_auc_score(people.y, people.x @ model[WEIGHT][0]) > 0.5 + 0.7 * (best - 0.5)


def test_overwhelming_noise_stays_finite() -> None:
    plan, tuning = settings_for(0.5, 5000.0, size=500)
    _, model = trained(Population(1, n=500), plan, tuning)
    assert all(np.isfinite(value).all() for value in model.values())
    assert np.abs(model[WEIGHT]).max() < 20


@given(st.floats(1e-3, 1e4), st.floats(0.01, 0.99))
def test_steps_leave_the_noise_that_the_rule_says_or_are_stable(sigma: float, rate: float) -> None:
    plan, tuning = settings_for(1.0, sigma)
    moments = read_probes(np.array([0.0, 0.25 - rate]), np.array([0.0, 0.75 - rate]), 0.0)
    step, momentum = step_size(plan, tuning, moments)
    stable = 1 / (0.15 * 16 * rate * (1 - rate))
    reach = step / (1 - momentum) * tuning.noise * math.sqrt(plan.descent_rounds)
    assert 0 <= momentum <= MOMENTUM and 0 < step <= stable * (1 + 1e-6)
    assert reach <= NOISE_IN_WEIGHTS * (1 + 1e-6)
    if momentum < MOMENTUM:
        assert reach == pytest.approx(NOISE_IN_WEIGHTS, rel=1e-6)


def begun(mean: Vector, rate: float, plan: TrainingPlan, tuning: RunTuning) -> Descent:
    """After probes without noise that measured this mean and rate."""
    state = Descent.start(len(mean))
    for chance in (0.25, 0.75):
        state = state.after({WEIGHT: (chance * mean)[None, :], BIAS: np.array([chance - rate])}, plan, tuning)
    return state


MEANS = st.lists(st.floats(-1.0, 1.0), min_size=3, max_size=3).map(np.array)


@given(MEANS, st.floats(0.05, 0.95), st.integers(0, 2**32 - 1))
def test_a_step_across_leaves_the_average_customer_where_it_is(mean: Vector, rate: float, seed: int) -> None:
    plan, tuning = settings_for(None, 0.0)
    state = begun(mean, rate, plan, tuning)
    gradient, along = np.random.default_rng(seed).normal(size=4), np.append(mean, 1.0)
    gradient -= (gradient @ along) / (along @ along) * along
    moved = state.after({WEIGHT: gradient[None, :-1], BIAS: gradient[-1:]}, plan, tuning)
    step, _ = step_size(plan, tuning, state.moments(tuning))
    assert moved.intercept == pytest.approx(state.intercept)
    np.testing.assert_allclose(moved.weights, state.weights - step * gradient[:-1], atol=1e-6)


@given(MEANS, st.floats(0.05, 0.95), st.floats(-1.0, 1.0))
def test_a_step_along_moves_the_average_customer_by_the_shortest_way(mean: Vector, rate: float, size: float) -> None:
    plan, tuning = settings_for(None, 0.0)
    state = begun(mean, rate, plan, tuning)
    moved = state.after({WEIGHT: size * mean[None, :], BIAS: np.array([size])}, plan, tuning)
    change = moved.intercept - state.intercept
    assert change == pytest.approx(-size / (rate * (1 - rate)), abs=1e-6)
    np.testing.assert_allclose(moved.velocity, 0.0, atol=1e-9)
    np.testing.assert_allclose(moved.weights - state.weights, change * mean / (mean @ mean + 1.0), atol=1e-6)


@given(MEANS, st.floats(0.05, 0.95), st.floats(1.0, 100.0))
def test_noise_is_nowhere_louder_than_the_rule_says(mean: Vector, rate: float, sigma: float) -> None:
    plan, tuning = settings_for(1.0, sigma)
    state = begun(mean, rate, plan, tuning)
    step, _ = step_size(plan, tuning, state.moments(tuning))
    still = state.after({WEIGHT: np.zeros((1, 3)), BIAS: np.zeros(1)}, plan, tuning)
    ends = [state.after({WEIGHT: row[None, :-1], BIAS: row[-1:]}, plan, tuning) for row in np.eye(4)]
    weights = np.array([end.weights - still.weights for end in ends])
    intercept = np.array([end.intercept - still.intercept for end in ends])
    across = weights - np.outer(intercept, state.moments(tuning).lift)
    assert np.linalg.norm(across, 2) <= step * (1 + 1e-9)
    assert np.linalg.norm(intercept) * tuning.noise * math.sqrt(plan.descent_rounds) <= 0.25 * (1 + 1e-9)


def test_a_change_of_local_steps_stands_for_their_mean_gradient() -> None:
    plan, tuning = settings_for(1.0, 5.0, mode="fedavg")
    gradient = {WEIGHT: np.array([[1.0, -2.0]]), BIAS: np.array([0.5])}
    change = {name: -tuning.local_learning_rate * plan.local_steps * value for name, value in gradient.items()}
    for name, value in gradient_of_change(change, plan, tuning).items():
        np.testing.assert_allclose(value, gradient[name])


@pytest.mark.parametrize("stop", [1, 2, 10, 25])
def test_a_checkpoint_resumes_to_the_same_bits(stop: int) -> None:
    plan, tuning = settings_for(1.0, 5.0)
    gradients = [{WEIGHT: g[None, :-1], BIAS: g[-1:]} for g in np.random.default_rng(0).normal(size=(plan.rounds, 7))]
    straight = resumed = Descent.start(6)
    for place, gradient in enumerate(gradients):
        straight = straight.after(gradient, plan, tuning)
        resumed = resumed.after(gradient, plan, tuning)
        if place + 1 == stop:
            resumed = Descent.from_tensors(resumed.tensors(), resumed.round, resumed.averaged)
    for name, value in straight.model(tuning).items():
        np.testing.assert_array_equal(value, resumed.model(tuning)[name])


def test_the_mean_row_is_shrunk_by_the_noise_in_it_and_held_to_a_rows_norm() -> None:
    """By James and Stein: 1 - (variance that noise alone gives) / (what was found), never below 0."""
    direction, noise = np.array([0.6, 0.0, -0.8, 0.0]), 0.05
    expected = 4 * 2 * (noise / 0.5) ** 2
    for power, kept in ((2.0 * expected, 0.5), (0.9 * expected, 0.0), (400.0, ROW_NORM / 20.0)):
        mean = math.sqrt(power) * direction
        moments = read_probes(np.zeros(5), np.append(0.5 * mean, 0.5), noise)
        np.testing.assert_allclose(moments.mean, kept * mean, atol=1e-12)
