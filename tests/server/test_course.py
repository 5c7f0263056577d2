"""The course: what a round's releases ask for, by mode and optimizer, and which rounds the model is the average of."""

from pathlib import Path

import numpy as np
import pytest

from federation.messages import SecureGrant
from federation.study import LogisticModel, MlpModel, Model
from server.course import Course, LinearCourse, restore_course, start_course
from server.derivation import derive_training, dimension_of
from server.descent import gradient_of_change
from server.optimizer import Weights, mean_change, mean_gradient
from server.planning import sign_study
from server.recipe import PROBES
from tests.server.fakes import FakeFederation, contract, draft, key_of, short

LOGISTIC, MLP = LogisticModel(kind="logistic"), MlpModel(kind="mlp", hidden=(4,), embedding=2)
FEDERATION = FakeFederation.make(Path("unused"))
SAFE = 4.0 / 17.0  # one over the largest curvature on rows of norm up to 4 beside an intercept of 1


def begun(model: Model, mode: str, optimizer: str, rounds: int = 8) -> Course:
    study = draft(model=model, mode=mode, server_optimizer=optimizer)
    training = short(rounds)(study, {}, contract())
    spec = sign_study(study, FEDERATION.charter, contract(), training, "0" * 32, key_of("coordinator")).spec
    return start_course(spec, {name: vault.grant(spec) for name, vault in FEDERATION.vaults.items()}, contract())


def releases(course: Course, number: int) -> dict[str, dict[str, np.ndarray]]:
    return {name: vault.gradient(number, course.broadcast()) for name, vault in FEDERATION.vaults.items()}


@pytest.mark.parametrize(
    ("model", "mode", "optimizer"),
    [
        (MLP, "fedsgd", "recipe"),
        (MLP, "fedavg", "recipe"),
        (MLP, "fedsgd", "fedavgm"),
        (MLP, "fedavg", "fedavgm"),
        (LOGISTIC, "fedsgd", "fedavgm"),
        (LOGISTIC, "fedavg", "fedavgm"),
    ],
)
def test_the_first_round_moves_the_weights_by_what_mode_and_optimizer_say(
    model: Model, mode: str, optimizer: str
) -> None:
    course = begun(model, mode, optimizer)
    terms, found = course.terms, releases(course, 1)
    length = terms.tuning.learning_rate if model is MLP else SAFE
    assert length > 0 and (model is LOGISTIC or length != pytest.approx(SAFE))
    wanted: Weights
    if mode == "fedavg" and optimizer == "fedavgm":
        wanted = mean_change(found, terms.weights)
    else:
        gradient = mean_gradient(found, terms.weights, terms.expected)
        if mode == "fedavg":
            gradient = gradient_of_change(mean_change(found, terms.weights), terms.plan, terms.tuning)
        wanted = {name: -length * value for name, value in gradient.items()}
    after = course.after(found).broadcast()
    for name, start in course.broadcast().items():
        np.testing.assert_allclose(after[name], start + wanted[name], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("model", "optimizer"), [(LOGISTIC, "recipe"), (MLP, "recipe"), (LOGISTIC, "fedadam")])
def test_the_model_is_the_average_from_the_planned_round_on(model: Model, optimizer: str) -> None:
    course, sent = begun(model, "fedsgd", optimizer), []
    first = course.terms.tuning.average_from
    assert 1 < first <= 8
    for number in range(1, 9):
        course = course.after(releases(course, number))
        sent.append(course.broadcast())
        assert course.averaged == max(0, number - first + 1)
    for name, value in course.model().items():
        mean = np.mean([weights[name].astype(np.float64) for weights in sent[first - 1 :]], axis=0)
        np.testing.assert_allclose(value, mean, rtol=1e-4, atol=1e-6)


def test_clips_are_wide_for_the_probes_alone() -> None:
    course = begun(LOGISTIC, "fedsgd", "recipe")
    terms = course.terms
    assert all(terms.probe_clips[name] != terms.clips[name] for name in FEDERATION.vaults)
    for number in range(1, 5):
        assert course.clips() == (terms.probe_clips if number <= PROBES else terms.clips)
        course = course.after(releases(course, number))


@pytest.mark.parametrize(("model", "optimizer"), [(LOGISTIC, "recipe"), (MLP, "recipe")])
def test_a_course_goes_on_from_its_tensors(model: Model, optimizer: str) -> None:
    study = draft(model=model, server_optimizer=optimizer)
    training = short(8)(study, {}, contract())
    spec = sign_study(study, FEDERATION.charter, contract(), training, "0" * 32, key_of("coordinator")).spec
    grants = {name: vault.grant(spec) for name, vault in FEDERATION.vaults.items()}
    course = start_course(spec, grants, contract())
    for number in range(1, 7):
        course = course.after(releases(course, number))
    again = restore_course(spec, grants, course.tensors(), 6, course.averaged)
    whole, resumed = (one.after(releases(one, 7)).tensors() for one in (course, again))
    assert all(whole[name].tobytes() == resumed[name].tobytes() for name in whole)
    for part in ("weights", "velocity"):
        rest = {name: value for name, value in course.tensors().items() if not name.startswith(part)}
        with pytest.raises(KeyError):
            restore_course(spec, grants, rest, 6, 0)


def test_ten_rounds_in_all_are_two_probes_and_eight_steps_the_last_four_averaged() -> None:
    study = draft(model=LOGISTIC, rounds=10)
    training = derive_training(study, {"alpha": 1000, "beta": 2000}, contract())
    spec = sign_study(study, FEDERATION.charter, contract(), training, "0" * 32, key_of("coordinator")).spec
    grants = {name: vault.grant(spec) for name, vault in FEDERATION.vaults.items()}
    assert all(grant.steps == 10 for grant in grants.values())
    course = start_course(spec, grants, contract())
    for number in range(1, 11):
        course = course.after(releases(course, number))
    assert (course.terms.plan.probes, course.terms.plan.descent_rounds, course.averaged) == (2, 8, 4)
    assert all(np.isfinite(value).all() for value in course.model().values())


def test_a_secure_course_asks_by_the_pool_of_its_round_and_moves_by_the_mean_of_the_sum() -> None:
    study = draft(model=LOGISTIC, aggregation="secure", noise="shared", n_min=3, c=0)
    spec = sign_study(
        study, FEDERATION.charter, contract(), short(4)(study, {}, contract()), "0" * 32, key_of("coordinator")
    ).spec
    dimension = dimension_of(LOGISTIC, contract())
    grants = {
        name: vault.grant(
            spec, secure=SecureGrant(sensitivity=1000.0 + vault.size, dimension=dimension, histogram_scale=50)
        )
        for name, vault in FEDERATION.vaults.items()
    }
    course = start_course(spec, grants, contract())
    assert isinstance(course, LinearCourse) and course.terms.pooled is not None
    pooled, names = course.terms.pooled, sorted(grants)
    expected_pools = [pooled.probe, pooled.probe, pooled.descent, pooled.descent]
    for number, expected in enumerate(expected_pools):
        pool = course.pool(pooled)
        assert (pool.scale, pool.x_max) == (expected.scale, expected.x_max)
        assert pool.clips == dict(zip(names, expected.clips, strict=True))
        assert pool.weights == dict(zip(names, expected.weights, strict=True))
        total = np.arange(dimension, dtype=np.int64) * 1000 * (number + 1)
        members = names[: 3 + number % 2]
        mean = pool.mean(total, members, course.terms.expected)
        counted = sum(pool.weights[name] * 0.5 * FEDERATION.vaults[name].size for name in members)
        np.testing.assert_allclose(mean * pool.scale * counted, total, rtol=1e-12)
        moved = course.moved({"linear.bias": mean[:1], "linear.weight": mean[1:].reshape(1, -1)})
        again = restore_course(spec, grants, moved.tensors(), number + 1, moved.averaged)
        for name, value in moved.broadcast().items():
            np.testing.assert_array_equal(again.broadcast()[name], value)
        course = moved
