"""Curves held monotone: exactly, no further than needed, and refused where it makes no sense."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.isotonic import IsotonicRegression

from federation.basis import Basis, model_problems
from federation.contract import FeatureContract, NumericColumn
from federation.document import load_yaml
from federation.errors import FederationError
from federation.study import AdditiveModel, LogisticModel, Model
from server.course import GeneralCourse, LinearCourse, restore_course, start_course
from server.descent import BIAS, WEIGHT
from server.monotone import Cone, cones_of, held
from server.planning import sign_study
from tests.server.fakes import FakeFederation, contract, draft, key_of, short

Floats = NDArray[np.float64]
CONTRACTS = Path(__file__).parents[2] / "configs" / "contracts"
BANK = load_yaml(CONTRACTS / "bank_campaign.yaml", FeatureContract)
RFM = load_yaml(CONTRACTS / "rfm.yaml", FeatureContract)
BOTH = AdditiveModel(monotone={"age": "increasing", "campaign": "decreasing"})
BASIS = Basis.of(BANK, "additive")
FEDERATION = FakeFederation.make(Path("unused"))


def drawn(seed: int, size: float, basis: Basis = BASIS) -> dict[str, NDArray[np.float32]]:
    weights = np.random.default_rng(seed).normal(0.0, size, basis.width).astype(np.float32)
    return {WEIGHT: weights[None, :], BIAS: np.array([0.3], dtype=np.float32)}


@settings(max_examples=40)
@given(st.integers(0, 2**32 - 1), st.floats(1e-6, 30.0))
def test_published_curves_are_monotone_to_the_last_bit_and_others_are_untouched(seed: int, size: float) -> None:
    before = drawn(seed, size)
    after = held(before, cones_of(BOTH, BANK), None)
    assert after[WEIGHT].dtype == np.float32 and after[BIAS].dtype == np.float32
    for name, sign in (("age", 1.0), ("campaign", -1.0)):
        _, effect = BASIS.shape(after[WEIGHT], name)
        assert (sign * np.diff(effect) >= 0.0).all()
        column = BANK.column(name)
        assert isinstance(column, NumericColumn)
        told = BASIS.contribution(name, np.asarray(column.knots), after[WEIGHT])
        assert (sign * np.diff(told) >= 0.0).all()
    for name, place in BASIS.blocks.items():
        if name not in BOTH.monotone:
            np.testing.assert_array_equal(after[WEIGHT][0, place], before[WEIGHT][0, place])
    again = held(after, cones_of(BOTH, BANK), None)
    np.testing.assert_array_equal(again[WEIGHT], after[WEIGHT])


@settings(max_examples=30)
@given(st.integers(0, 2**32 - 1))
def test_no_monotone_curve_is_nearer_and_every_one_comes_nearer(seed: int) -> None:
    """What makes it a projection onto a convex set: distances to all of the set's points shrink."""
    (cone, *_), rng = cones_of(BOTH, BANK), np.random.default_rng(seed)
    before = drawn(seed, 0.5)[WEIGHT][0, cone.place].astype(np.float64)
    after = held(drawn(seed, 0.5), (cone,), None)[WEIGHT][0, cone.place].astype(np.float64)
    for _ in range(10):
        rises = np.abs(rng.normal(size=len(cone.rises) // 2))
        other = np.linalg.pinv(cone.rises[: len(rises)]) @ rises
        assert (cone.rises @ other > -1e-6).all()
        assert np.linalg.norm(after - before) <= np.linalg.norm(other - before) + 1e-5
        assert np.linalg.norm(after - other) <= np.linalg.norm(before - other) + 1e-5


def test_in_plain_hats_it_is_isotonic_regression() -> None:
    place, values = slice(0, 6), np.array([0.0, 2.0, 1.0, 1.5, 3.0, -1.0])
    cone = Cone("x", place, np.diff(np.eye(6), axis=0))
    found = held({WEIGHT: values[None, :].astype(np.float32), BIAS: np.zeros(1, dtype=np.float32)}, (cone,), None)
    np.testing.assert_allclose(found[WEIGHT][0], IsotonicRegression().fit_transform(np.arange(6.0), values), atol=1e-5)


def test_the_average_customers_score_stays() -> None:
    mean = np.random.default_rng(3).normal(0.0, 0.3, BASIS.width)
    before, after = drawn(3, 0.7), held(drawn(3, 0.7), cones_of(BOTH, BANK), mean)
    assert not np.array_equal(before[WEIGHT], after[WEIGHT])
    logits = [float(mean @ item[WEIGHT][0].astype(np.float64) + item[BIAS][0]) for item in (before, after)]
    assert logits[0] == pytest.approx(logits[1], abs=1e-5)


def test_what_has_no_direction_is_refused_by_name() -> None:
    wrong = AdditiveModel(monotone={"age": "increasing", "job": "increasing", "wealth": "decreasing"})
    problems = model_problems(BANK, wrong)
    assert len(problems) == 2
    assert "job is no number" in problems[0] and "age" in problems[0]
    assert "no column wealth" in problems[1] and "poutcome" in problems[1]
    pairs = AdditiveModel(pairs=(("age", "wealth"), ("job", "month"), ("age", "job")))
    found = model_problems(BANK, pairs)
    assert len(found) == 2 and "no column wealth" in found[0] and "11 x 12 cells" in found[1]
    assert model_problems(BANK, BOTH) == [] and model_problems(BANK, LogisticModel(kind="logistic")) == []
    with pytest.raises(FederationError, match="CSL-S707"):
        cones_of(wrong, BANK)


def numeric_of(found: FeatureContract) -> str:
    return next(column.name for column in found.columns if isinstance(column, NumericColumn))


@pytest.mark.parametrize("optimizer", ["recipe", "fedavgm"])
def test_a_course_ends_with_monotone_curves_whether_it_was_interrupted_or_not(optimizer: str) -> None:
    name = numeric_of(contract())
    ways = ("increasing", "decreasing")
    for way in ways:
        model: Model = AdditiveModel(monotone={name: way})
        study = draft(model=model, server_optimizer=optimizer)
        training = short(8)(study, {}, contract())
        spec = sign_study(study, FEDERATION.charter, contract(), training, "0" * 32, key_of("coordinator")).spec
        grants = {member: vault.grant(spec) for member, vault in FEDERATION.vaults.items()}
        course = start_course(spec, grants, contract())
        for number in range(1, 9):
            releases = {who: vault.gradient(number, course.broadcast()) for who, vault in FEDERATION.vaults.items()}
            course = course.after(releases)
        assert isinstance(course, LinearCourse | GeneralCourse) and course.cones
        _, effect = Basis.of(contract(), "additive").shape(course.model()[WEIGHT], name)
        assert ((1.0 if way == "increasing" else -1.0) * np.diff(effect) >= 0.0).all()
        again = restore_course(spec, grants, course.tensors(), 8, course.averaged, contract())
        np.testing.assert_array_equal(again.model()[WEIGHT], course.model()[WEIGHT])
        with pytest.raises(ValueError, match="contract"):
            restore_course(spec, grants, course.tensors(), 8, course.averaged)


def test_a_flat_model_stays_flat() -> None:
    zero = {WEIGHT: np.zeros((1, Basis.of(RFM, "additive").width), np.float32), BIAS: np.zeros(1, np.float32)}
    model = AdditiveModel(monotone={"recency": "increasing"})
    assert not held(zero, cones_of(model, RFM), None)[WEIGHT].any()
