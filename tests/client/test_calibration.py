"""Calibration: finds known distortions, never turns the order round, and says what it could not learn."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from client.calibration import (
    MIN_EACH_FOR_SLOPE,
    Calibration,
    calibrate,
    calibration_report,
    reliability,
)
from federation.errors import DataError

Floats = NDArray[np.float64]


def drawn(count: int, intercept: float, slope: float, seed: int = 1) -> tuple[Floats, Floats]:
    """Logits whose outcomes truly follow sigmoid(intercept + slope * logit)."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(-1.5, 1.2, count)
    return logits, (rng.random(count) < expit(intercept + slope * logits)).astype(np.float64)


@pytest.mark.parametrize(("intercept", "slope"), [(0.0, 1.0), (1.8, 0.5), (-1.0, 2.0)])
def test_finds_the_true_distortion(intercept: float, slope: float) -> None:
    found = calibrate(*drawn(40_000, intercept, slope))
    assert found.method == "slope and intercept"
    assert found.slope == pytest.approx(slope, abs=0.06)
    assert found.intercept == pytest.approx(intercept, abs=0.1)


def test_is_the_mode_of_the_posterior() -> None:
    """The fit is where the gradient of the penalised likelihood vanishes, nearer to slope 1 than the free fit is."""
    logits, labels = drawn(300, 0.3, 0.6, seed=4)
    found = calibrate(logits, labels)
    eta = found.intercept + found.slope * logits
    residual = expit(eta) - labels
    assert residual.sum() + found.intercept / 9.0 == pytest.approx(0.0, abs=1e-3)
    assert residual @ logits + (found.slope - 1.0) / 0.25 == pytest.approx(0.0, abs=1e-3)
    free = LogisticRegression(C=1e6, tol=1e-8).fit(logits[:, None], labels)
    assert abs(found.slope - 1.0) < abs(free.coef_[0, 0] - 1.0)


def test_the_prior_pulls_a_small_sample_towards_no_change() -> None:
    logits, labels = drawn(40_000, 0.0, 3.0, seed=7)
    few = np.concatenate([np.flatnonzero(labels == 1.0)[:40], np.flatnonzero(labels == 0.0)[:200]])
    assert 1.0 < calibrate(logits[few], labels[few]).slope < calibrate(logits, labels).slope


def test_few_events_leave_the_slope_alone_and_say_so() -> None:
    logits, labels = drawn(2_000, 1.0, 0.3, seed=3)
    positive = np.flatnonzero(labels == 1.0)[: MIN_EACH_FOR_SLOPE - 1]
    keep = np.sort(np.concatenate([positive, np.flatnonzero(labels == 0.0)[:400]]))
    found = calibrate(logits[keep], labels[keep])
    assert (found.slope, found.method) == (1.0, "intercept only")
    assert f"{MIN_EACH_FOR_SLOPE - 1} had the outcome" in found.note
    assert found.probability(logits[keep]).mean() == pytest.approx(labels[keep].mean(), rel=0.02)


@pytest.mark.parametrize("outcome", [0.0, 1.0])
def test_one_outcome_only_stays_finite_and_warns(outcome: float) -> None:
    found = calibrate(np.linspace(-3.0, 3.0, 50), np.full(50, outcome))
    assert abs(found.intercept) < 15.0
    assert found.slope == 1.0
    assert "hardly the institution's own" in found.note


def test_nobody_held_out_changes_nothing() -> None:
    found = calibrate(np.empty(0), np.empty(0))
    assert (found.intercept, found.slope, found.method) == (0.0, 1.0, "none")
    assert calibration_report(np.empty(0), np.empty(0)) is None


@settings(max_examples=60)
@given(data=st.data(), count=st.integers(0, 120))
def test_order_is_never_turned_round_and_probabilities_stay_probabilities(data: st.DataObject, count: int) -> None:
    logits = data.draw(arrays(np.float64, count, elements=st.floats(-60.0, 60.0)))
    labels = data.draw(arrays(np.float64, count, elements=st.sampled_from([0.0, 1.0])))
    found = calibrate(logits, labels)
    assert found.slope >= 0.05
    probability = found.probability(logits)
    assert ((probability >= 0.0) & (probability <= 1.0)).all()
    order = np.argsort(logits, kind="stable")
    assert (np.diff(probability[order]) >= 0.0).all()


def test_an_inverted_model_is_flattened_not_inverted() -> None:
    logits, labels = drawn(20_000, 0.0, -1.0)
    assert calibrate(logits, labels).slope == pytest.approx(0.05)


def test_survives_its_canonical_form() -> None:
    found = calibrate(*drawn(500, 0.2, 0.9))
    assert Calibration.from_canonical(found.canonical()) == found


@pytest.mark.parametrize(
    ("logits", "labels"),
    [
        (np.array([0.1, np.nan]), np.array([0.0, 1.0])),
        (np.array([0.1, np.inf]), np.array([0.0, 1.0])),
        (np.array([0.1, 0.2]), np.array([0.0, 2.0])),
        (np.array([0.1, 0.2]), np.array([0.0, np.nan])),
        (np.array([0.1, 0.2, 0.3]), np.array([0.0, 1.0])),
    ],
)
def test_what_does_not_fit_is_refused(logits: Floats, labels: Floats) -> None:
    with pytest.raises(DataError, match="CSL-C701"):
        calibrate(logits, labels)


def test_report_shows_the_repair_and_the_curve_covers_everybody() -> None:
    report = calibration_report(*drawn(6_000, 1.8, 0.5))
    assert report is not None
    assert report.after.calibration_error < 0.03 < 0.1 < report.before.calibration_error
    assert report.after.log_loss < report.before.log_loss
    assert abs(report.after.bias) < 0.005
    for side in (report.before, report.after):
        assert sum(item.customers for item in side.curve) == 6_000
        assert all(item.low <= item.observed <= item.high for item in side.curve)


def test_report_does_not_flatter_a_model_that_was_right_already() -> None:
    report = calibration_report(*drawn(150, 0.0, 1.0, seed=11))
    assert report is not None
    assert report.after.log_loss > calibrated_in_sample(150, seed=11)


def calibrated_in_sample(count: int, seed: int) -> float:
    logits, labels = drawn(count, 0.0, 1.0, seed)
    return reliability(calibrate(logits, labels).probability(logits), labels).log_loss


def test_report_is_the_same_whatever_the_order_of_rows() -> None:
    logits, labels = drawn(400, 0.5, 1.0)
    turned = np.random.default_rng(0).permutation(400)
    first, second = calibration_report(logits, labels), calibration_report(logits[turned], labels[turned])
    assert first is not None and second is not None
    assert first.after.log_loss == pytest.approx(second.after.log_loss, abs=1e-9)


def test_reliability_against_hand_figures() -> None:
    found = reliability(np.array([0.2] * 10 + [0.6] * 10), np.array([0.0] * 9 + [1.0] + [1.0] * 6 + [0.0] * 4), bins=2)
    assert found.calibration_error == pytest.approx((0.1 + 0.0) / 2)
    assert found.brier == pytest.approx((9 * 0.04 + 0.64 + 6 * 0.16 + 4 * 0.36) / 20)
    assert found.bias == pytest.approx(0.4 - 7 / 20)
    assert (found.curve[0].low, found.curve[0].high) == (
        pytest.approx(0.01788, abs=1e-4),
        pytest.approx(0.4042, abs=1e-4),
    )
