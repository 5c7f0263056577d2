import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.evaluation import Histogram, measure
from simulations import analysis
from simulations.cards import estimate_of, released_roc

EDGES = (-2.0, -1.0, 0.0, 1.0, 2.0)


def outcomes(seed: int, n: int = 400) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(seed)
    score = draw.normal(size=n)
    return (draw.random(n) < analysis.probability(score)).astype(np.float64), score


@settings(max_examples=20)
@given(seed=st.integers(0, 10**6))
def test_curves_are_consistent_with_the_figures(seed: int) -> None:
    labels, score = outcomes(seed)
    roc = analysis.roc("federated", labels, score)
    assert np.trapezoid(roc.y, roc.x) == pytest.approx(analysis.auc(labels, score), abs=0.01)
    assert all(a <= b for a, b in zip(roc.y, roc.y[1:], strict=False))
    lift = analysis.lift_curve("federated", labels, score)
    assert lift.y[-1] == pytest.approx(1.0)
    assert dict(zip(np.round(lift.x, 3), lift.y, strict=True))[0.1] == pytest.approx(analysis.lift(labels, score))


def test_lift_of_a_perfect_order() -> None:
    labels = np.array([1.0] * 10 + [0.0] * 90)
    assert analysis.lift(labels, -np.arange(100.0)) == pytest.approx(10.0)
    assert analysis.lift(labels, np.arange(100.0)) == 0.0


def test_calibration_curve_holds_everybody_once() -> None:
    labels, score = outcomes(3, 403)
    probabilities = analysis.probability(score)
    curve = analysis.calibration_curve("federated", labels, probabilities)
    assert len(curve.x) == 10
    assert list(curve.x) == sorted(curve.x)
    assert np.mean(curve.x) == pytest.approx(probabilities.mean(), abs=0.01)
    assert np.mean(curve.y) == pytest.approx(labels.mean(), abs=0.01)


def test_home_calibration_judges_nobody_by_herself() -> None:
    labels, score = outcomes(5, 2000)
    shifted = analysis.calibrated_at_home(score - 3.0, labels)
    assert shifted.mean() == pytest.approx(labels.mean(), abs=0.02)
    changed = labels.copy()
    changed[::2] = 1 - changed[::2]
    before, after = analysis.calibrated_at_home(score, labels), analysis.calibrated_at_home(score, changed)
    np.testing.assert_allclose(after[::2], before[::2])
    assert not np.allclose(after[1::2], before[1::2])


def test_released_points_lie_on_the_curve_when_there_is_no_noise() -> None:
    labels, score = outcomes(8, 5000)
    cells = np.searchsorted(EDGES, score, side="right")
    counts = np.stack([np.bincount(cells[labels == kind], minlength=len(EDGES) + 1) for kind in (0, 1)]).astype(
        np.float64
    )
    metrics = measure(Histogram(counts, 0.0), EDGES)
    curve = released_roc(metrics)
    assert (curve.x[0], curve.y[0]) == (0.0, 0.0)
    assert (curve.x[-1], curve.y[-1]) == pytest.approx((1.0, 1.0))
    exact = analysis.roc("federated", labels, score)
    np.testing.assert_allclose(np.interp(curve.x[1:], exact.x, exact.y), curve.y[1:], atol=0.02)
    assert (exact.x[0], exact.y[0]) == (0.0, 0.0)
    found = estimate_of(metrics.auc)
    assert found.value == pytest.approx(analysis.auc(labels, score), abs=0.02)
    assert found.low is not None and found.high is not None and found.low < found.value < found.high


def test_equal_scores_are_chosen_at_random():
    """The order of customers, which is that of time, must not decide among equals."""
    labels = np.repeat([0.0, 1.0], 50)
    for ordered in (labels, labels[::-1]):
        assert analysis.lift(ordered, np.zeros(100)) == pytest.approx(1.0)
        assert np.allclose(analysis.lift_curve("model", ordered, np.zeros(100)).y, 1.0)
    scores = np.array([3.0, 2.0, 2.0, 2.0, 1.0])
    labels = np.array([1.0, 0.0, 0.0, 1.0, 0.0])
    # The best two: the first, and one of three of whom a third is positive.
    assert analysis.lift(labels, scores, 0.4) == pytest.approx((1.0 + 1.0 / 3.0) / 2.0 / 0.4)
