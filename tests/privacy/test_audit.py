from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import beta, binom, norm

from client.training import gradient_sum, local_steps
from federation.errors import ConsilienceError
from privacy.accounting import calibrate_noise
from privacy.audit import (
    AuditResult,
    audit_one_run,
    canary_scores,
    epsilon_lower_bound,
    one_run_p_value,
    two_sample_lower_bound,
)
from simulations.seeded import SeededSource

DELTA = 1e-5
RATE, STEPS = 0.5, 10
CANARIES, GUESSES = 2000, 200
REAL = 400


def real_customers():
    rng = np.random.default_rng(1)
    return rng.normal(size=(REAL, 5)).astype(np.float32), (rng.random(REAL) < 0.3).astype(np.float64)


def by_local_steps(noise, source):
    """The `fedavg` release: learning rate so small that canaries stay above the clip."""
    return partial(
        local_steps,
        clip=1.0,
        noise_multiplier=noise,
        sampling_rate=RATE,
        steps=STEPS,
        declared_size=1000,
        learning_rate=0.1,
        momentum=0.0,
        source=source,
    )


def by_gradient_sums(noise, source, clip=1.0):
    """The `fedsgd` releases of as many rounds, added up; a canary's weight moves against its gradient."""

    def train(network, inputs, labels):
        total = 0.0
        for _ in range(STEPS):
            total -= gradient_sum(
                network, inputs, labels, clip=clip, noise_multiplier=noise, sampling_rate=RATE, source=source
            )["linear.weight"]
        return {"linear.weight": total}

    return train


def audit(path, noise, seed):
    source = SeededSource(seed)
    return audit_one_run(
        path(noise, source),
        *real_customers(),
        canaries=CANARIES,
        guesses=GUESSES,
        claimed_epsilon=1.0,
        delta=DELTA,
        source=source,
    )


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Many small products: a second thread costs more than it brings, most of all beside other tests."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def claimed_noise():
    return calibrate_noise(1.0, DELTA, RATE, STEPS)


@pytest.mark.parametrize("path", [by_local_steps, by_gradient_sums])
def test_nothing_is_found_at_the_claimed_epsilon(path, claimed_noise):
    result = audit(path, claimed_noise, 11)
    assert not result.violation and 0.0 <= result.lower_bound < 1.0
    assert result.words.startswith("no violation found") and "verified" not in result.words


@pytest.mark.parametrize("path", [by_local_steps, by_gradient_sums])
@pytest.mark.parametrize("seed", [21, 22])
def test_a_quarter_of_the_noise_is_flagged(path, seed, claimed_noise):
    result = audit(path, claimed_noise / 4.0, seed)
    assert result.violation and result.words.startswith("violation found")


@pytest.mark.parametrize("path", [by_local_steps, by_gradient_sums])
def test_no_noise_is_flagged(path):
    result = audit(path, 0.0, 31)
    assert result.correct >= GUESSES - 2 and result.lower_bound > 3.0


def test_a_forgotten_clip_is_flagged(claimed_noise):
    """Noise for clip 1, clip 10: the canary's gradient, of norm 5, is not cut."""
    assert audit(lambda noise, source: by_gradient_sums(noise / 10.0, source, clip=10.0), claimed_noise, 41).violation


def test_without_real_customers_and_other_columns_the_score_is_the_canarys_alone():
    train = by_gradient_sums(0.0, SeededSource(0))
    scores = canary_scores(train, np.empty((0, 0), np.float32), np.empty(0), np.array([True, False, True]))
    assert scores[0] > 0.9 and scores[1] == 0.0 and scores[2] > 0.9


@settings(max_examples=100)
@given(st.integers(1, 30), st.integers(0, 30), st.floats(0, 6), st.floats(0, 0.01), st.integers(0, 30))
def test_p_value_is_the_theorem_word_for_word(guesses, correct, epsilon, delta, abstained):
    correct, canaries = min(correct, guesses), guesses + abstained
    accuracy = np.exp(epsilon) / (1 + np.exp(epsilon))

    def f(v):
        return sum(binom.pmf(k, guesses, accuracy) for k in range(max(v, 0), guesses + 1))

    slopes = [(f(correct - i) - f(correct)) / i for i in range(1, correct + 1)]
    expected = f(correct) + 2 * canaries * delta * max(slopes, default=0.0)
    assert one_run_p_value(canaries, guesses, correct, epsilon, delta) == pytest.approx(min(1.0, expected), abs=1e-9)


@settings(max_examples=40)
@given(st.integers(1, 200), st.data())
def test_bound_grows_with_right_guesses_and_shrinks_with_delta(guesses, data):
    correct = data.draw(st.integers(0, guesses - 1))
    bound = epsilon_lower_bound(500, guesses, correct, 1e-5)
    assert bound <= epsilon_lower_bound(500, guesses, correct + 1, 1e-5) + 1e-3
    assert bound >= epsilon_lower_bound(500, guesses, correct, 1e-3) - 1e-3


def test_false_alarms_stay_within_the_confidence():
    """Randomised response at epsilon 1 is the hardest true claim: its guesses are right as often as the theorem allows."""
    counts = binom.pmf(np.arange(201), 200, 1 / (1 + np.exp(-1.0)))
    alarms = sum(counts[v] for v in range(201) if epsilon_lower_bound(200, 200, v, 0.0) > 1.0)
    assert 0.01 < alarms <= 0.05


def test_chance_refutes_nothing():
    assert epsilon_lower_bound(1000, 100, 50, 1e-5) == 0.0
    assert epsilon_lower_bound(1000, 100, 0, 1e-5) == 0.0


@pytest.mark.parametrize("guesses", [0, 3, 12])
def test_guesses_must_fit(guesses):
    with pytest.raises(ConsilienceError, match="CSL-P710"):
        audit_one_run(
            by_local_steps(1.0, SeededSource(0)),
            *real_customers(),
            canaries=10,
            guesses=guesses,
            claimed_epsilon=1.0,
            delta=DELTA,
            source=SeededSource(0),
        )


def samples(noise, seed, runs=20, canaries=1000):
    """Scores of 20,000 canaries that were in, and of as many that were out, one round at rate 1."""
    source = SeededSource(seed)

    def train(*given):
        released = gradient_sum(*given, clip=1.0, noise_multiplier=noise, sampling_rate=1.0, source=source)
        return {"linear.weight": -released["linear.weight"]}

    none = np.empty((0, 0), np.float32), np.empty(0)
    return tuple(
        np.concatenate([canary_scores(train, *none, np.full(canaries, inside)) for _ in range(runs)])
        for inside in (True, False)
    )


@pytest.mark.parametrize(("share", "flagged"), [(1.0, False), (0.7, True)])
def test_two_samples_find_a_cut_in_noise_by_comparison_with_the_expected_bound(share, flagged):
    """A cut by 30% stays below the claim: what betrays it is that the bound is not the one that the right noise gives."""
    noise = calibrate_noise(1.0, DELTA, 1.0, 1)
    hits, false_hits = (20_000 * norm.sf([1.5 - 1.0 / noise, 1.5])).round()
    expected = np.log(
        (beta.ppf(0.025, hits, 20_001 - hits) - DELTA) / beta.ppf(0.975, false_hits + 1, 20_000 - false_hits)
    )
    bound = two_sample_lower_bound(*samples(noise * share, 51), 1.5 * noise, DELTA)
    assert bound < 1.0
    assert (bound > expected + 0.15) == flagged


def test_two_sample_bound_of_equal_and_of_disjoint_samples():
    zeros, ones = np.zeros(1000), np.ones(1000)
    assert two_sample_lower_bound(zeros, zeros, 0.5, DELTA) == 0.0
    assert two_sample_lower_bound(ones, ones, 0.5, DELTA) == 0.0
    assert two_sample_lower_bound(zeros, ones, 0.5, DELTA) == 0.0
    assert two_sample_lower_bound(ones, zeros, 0.5, DELTA) > 5.0


def test_two_sample_bound_is_the_formula_at_a_delta_that_counts():
    present, absent, delta = np.arange(1000) < 900, np.arange(1000) < 100, 0.05
    expected = np.log((beta.ppf(0.025, 900, 101) - delta) / beta.ppf(0.975, 101, 900))
    assert two_sample_lower_bound(present * 1.0, absent * 1.0, 0.5, delta) == pytest.approx(expected, rel=1e-12)


def test_words_name_a_violation():
    assert AuditResult(1.0, DELTA, 0.95, 100, 95, 1.5).words == (
        "violation found: 95 of 100 guesses right, so epsilon is at least 1.50 (95% confidence, delta 1e-05); claimed 1"
    )
