"""Adoption: a model that harms is refused, one that cannot be told apart from a good one is not."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from client.adoption import MARGIN, MIN_EACH, check_model, delong
from federation.errors import DataError

Floats = NDArray[np.float64]
WEIGHTS = {"linear.weight": np.ones((1, 3), dtype=np.float32)}


def customers(count: int, seed: int = 2) -> tuple[Floats, Floats]:
    """A signal and outcomes that follow it."""
    rng = np.random.default_rng(seed)
    labels = (rng.random(count) < 0.3).astype(np.float64)
    return labels + rng.normal(0.0, 1.0, count), labels


@settings(max_examples=60)
@given(data=st.data(), yes=st.integers(2, 25), no=st.integers(2, 25))
def test_auc_equals_the_pair_count_even_with_ties(data: st.DataObject, yes: int, no: int) -> None:
    scores = np.array(data.draw(st.lists(st.integers(0, 6), min_size=yes + no, max_size=yes + no)), dtype=np.float64)
    labels = np.r_[np.ones(yes), np.zeros(no)]
    found = delong(scores, labels)
    assert found.auc[0] == pytest.approx(roc_auc_score(labels, scores))
    kernel = (scores[:yes, None] > scores[yes:]) + 0.5 * (scores[:yes, None] == scores[yes:])
    by_definition = kernel.mean(axis=1).var(ddof=1) / yes + kernel.mean(axis=0).var(ddof=1) / no
    assert found.covariance[0, 0] == pytest.approx(by_definition, abs=1e-12)


def test_delong_variance_matches_repeated_samples_for_one_and_for_a_pair() -> None:
    rng = np.random.default_rng(5)
    aucs, claimed, differences, claimed_difference = [], [], [], []
    for _ in range(400):
        labels = np.r_[np.ones(60), np.zeros(140)]
        signal = labels + rng.normal(0.0, 1.0, 200)
        found = delong(np.stack([signal, signal + rng.normal(0.0, 0.7, 200)]), labels)
        aucs.append(found.auc[0])
        claimed.append(found.covariance[0, 0])
        differences.append(found.auc[0] - found.auc[1])
        claimed_difference.append(found.covariance[0, 0] + found.covariance[1, 1] - 2 * found.covariance[0, 1])
    assert np.mean(claimed) == pytest.approx(np.var(aucs), rel=0.2)
    assert np.mean(claimed_difference) == pytest.approx(np.var(differences), rel=0.2)


def test_a_good_first_model_is_adopted_with_its_interval() -> None:
    scores, labels = customers(800)
    found = check_model(WEIGHTS, scores, labels)
    assert found.adopted
    assert found.auc == pytest.approx(roc_auc_score(labels, scores))
    assert found.auc_interval is not None and found.auc is not None
    assert found.auc_interval[0] < found.auc < found.auc_interval[1]
    assert found.auc_current is None and found.difference_interval is None


def test_a_model_the_wrong_way_round_is_refused_and_one_like_chance_is_not() -> None:
    scores, labels = customers(800)
    refused = check_model(WEIGHTS, -scores, labels)
    assert not refused.adopted and "wrong way round" in refused.reasons[0]
    chance = np.random.default_rng(3).normal(size=800)
    assert check_model(WEIGHTS, chance, labels).adopted


def test_chance_is_refused_about_one_time_in_twenty() -> None:
    rng = np.random.default_rng(8)
    labels = np.r_[np.ones(50), np.zeros(150)]
    refused = sum(not check_model(WEIGHTS, rng.normal(size=200), labels).adopted for _ in range(600))
    assert 10 <= refused <= 55


def test_clearly_worse_than_the_model_in_use_is_refused() -> None:
    scores, labels = customers(2_000)
    worse = scores + np.random.default_rng(1).normal(0.0, 2.0, 2_000)
    found = check_model(WEIGHTS, worse, labels, current=scores)
    assert not found.adopted and "model in use" in found.reasons[0]
    assert found.difference_interval is not None and found.difference_interval[1] < -MARGIN
    assert check_model(WEIGHTS, scores, labels, current=worse).adopted


def test_an_equal_or_hardly_worse_model_is_adopted() -> None:
    scores, labels = customers(2_000)
    same = check_model(WEIGHTS, scores, labels, current=scores)
    assert same.adopted and same.difference_interval == (0.0, 0.0)
    assert check_model(WEIGHTS, 3.0 * scores - 1.0, labels, current=scores).adopted
    hardly = scores + np.random.default_rng(1).normal(0.0, 0.05, 2_000)
    assert check_model(WEIGHTS, hardly, labels, current=scores).adopted


def test_two_faults_are_both_named() -> None:
    scores, labels = customers(800)
    assert len(check_model(WEIGHTS, -scores, labels, current=scores).reasons) == 2


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_broken_tensor_is_refused_by_name(bad: float) -> None:
    scores, labels = customers(100)
    weights = {"a": np.ones(2, dtype=np.float32), "b": np.array([1.0, bad], dtype=np.float32)}
    found = check_model(weights, np.full(100, np.nan), labels)
    assert not found.adopted and found.reasons == ("Tensor b holds NaN or infinity.",)
    assert not check_model(WEIGHTS, np.r_[scores[:-1], bad], labels).adopted


def test_the_same_score_for_everybody_is_refused() -> None:
    assert not check_model(WEIGHTS, np.full(100, 0.3), customers(100)[1]).adopted


@pytest.mark.parametrize("events", [0, MIN_EACH - 1])
def test_too_few_events_cannot_refuse_and_say_so(events: int) -> None:
    labels = np.r_[np.ones(events), np.zeros(50)]
    found = check_model(WEIGHTS, -labels + np.arange(len(labels)) * 1e-3, labels)
    assert found.adopted and found.auc is None and "Too few" in found.reasons[0]


def test_scores_of_other_customers_are_refused() -> None:
    scores, labels = customers(100)
    with pytest.raises(DataError, match="CSL-C701"):
        check_model(WEIGHTS, scores, labels, current=scores[:-1])
    with pytest.raises(DataError, match="CSL-C701"):
        check_model(WEIGHTS, scores, np.full(100, np.nan))
