"""The noise in a published curve: what is claimed of it is what the descent does to it, and what the public surrogate says is near."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from federation.basis import Basis
from federation.contract import FeatureContract
from federation.document import load_yaml
from federation.study import AdditiveModel, LogisticModel
from server.course import LinearCourse, Terms, start_course
from server.descent import BIAS, WEIGHT, Descent, Moments
from server.planning import sign_study
from server.recipe import PROBES, plan_training, tune
from server.uncertainty import Sources, Surrogate, propagate, shape_noise, surrogate_of
from tests.server.fakes import FakeFederation, contract, draft, key_of, short

Floats = NDArray[np.float64]
BANK = load_yaml(Path(__file__).parents[2] / "configs" / "contracts" / "bank_campaign.yaml", FeatureContract)
FEDERATION = FakeFederation.make(Path("unused"))


def terms_of(sigma: float, size: int = 4000) -> Terms:
    plan = plan_training([size], 1.0, 6, "fedsgd")
    tuning = tune(plan, [size], [sigma])
    one = {"everybody": 1.0}
    return Terms(plan, tuning, one, one, one, {"everybody": plan.sampling_rate * size})


def descended(
    terms: Terms, moments: Moments, hessian: Floats, draws: np.random.Generator, sources: Sources
) -> tuple[Floats, float]:
    """One descent on a quadratic loss with Gaussian noise, from probes that are exact; returns weights and the bias."""
    plan, tuning = terms.plan, replace(terms.tuning, probe_noise=0.0)
    state, width = Descent.start(len(moments.mean)), len(moments.mean)
    for chance in (0.25, 0.75):
        state = state.after(probe(moments, chance), plan, tuning)
    optimum = np.linspace(-0.3, 0.3, width + 1)
    for _ in range(plan.rounds - PROBES):
        sent = state.broadcast(tuning)
        own = np.append(sent[WEIGHT][0], sent[BIAS]).astype(np.float64)
        gradient = hessian @ (own - optimum) + sources.noise * draws.standard_normal(width + 1)
        state = state.after({WEIGHT: gradient[None, :-1], BIAS: gradient[-1:]}, plan, tuning)
    model = state.model(tuning)
    return model[WEIGHT][0].astype(np.float64), float(model[BIAS][0])


def probe(moments: Moments, chance: float) -> dict[str, Floats]:
    return {WEIGHT: chance * moments.mean[None, :], BIAS: np.array([chance - moments.rate])}


def test_given_the_curvature_the_covariance_is_what_repeated_descents_show() -> None:
    """300 descents: a variance's relative error is sqrt(2 / 300) = 8%; 30% is 3.7 of these, for each of 4 (error rate 1e-3; seeded)."""
    rng = np.random.default_rng(0)
    root = rng.normal(size=(4, 4)) * np.array([1.5, 1.0, 0.4, 0.05])
    spread, mean = root @ root.T, np.array([0.5, -0.8, 0.2, 0.0])
    moments, terms = Moments(mean, 0.2), terms_of(20.0)
    surrogate = Surrogate(spread, 0.12, 0.1)
    second = np.block([[spread + np.outer(mean, mean), mean[:, None]], [mean[None, :], np.ones((1, 1))]])
    sources = Sources(terms.tuning.noise, 0.0, 0.0)
    found = np.array([descended(terms, moments, 0.12 * second, rng, sources)[0] for _ in range(300)])
    claimed = propagate(terms, moments, surrogate, sources)
    seen = np.cov(found.T)
    np.testing.assert_allclose(np.diag(claimed) / np.diag(seen), 1.0, atol=0.3)
    scale = np.sqrt(np.outer(np.diag(seen), np.diag(seen)))
    np.testing.assert_allclose(claimed / scale, seen / scale, atol=0.3)


def test_the_random_draw_adds_what_the_second_moment_says() -> None:
    """A draw's noise whose covariance is the identity is noise in every coordinate: both ways must agree."""
    terms, moments = terms_of(20.0), Moments(np.zeros(3), 0.3)
    surrogate = Surrogate(np.eye(3), 0.1, 0.5)
    as_noise = propagate(terms, moments, surrogate, Sources(math.sqrt(0.5) * 0.01, 0.0, 0.0))
    as_draw = propagate(terms, moments, surrogate, Sources(0.0, 0.01, 0.0))
    np.testing.assert_allclose(as_draw, as_noise, rtol=1e-9)


@settings(max_examples=25)
@given(st.integers(0, 2**32 - 1), st.floats(2.0, 200.0), st.floats(0.02, 0.98))
def test_without_curvature_no_direction_is_quieter(seed: int, sigma: float, rate: float) -> None:
    """The bound that the module speaks of: for every stable step the response is greatest where the loss is flat."""
    rng = np.random.default_rng(seed)
    terms, moments = terms_of(sigma), Moments(np.zeros(3), rate)
    curved = rng.uniform(0.0, 0.15 * 16.0, 3)  # up to where the recipe's step is 1 / curvature
    sources = Sources(terms.tuning.noise, 0.0, 0.0)
    bent = propagate(terms, moments, Surrogate(np.diag(curved), moments.curvature, 0.1), sources)
    flat = propagate(terms, moments, Surrogate(np.zeros((3, 3)), 0.0, 0.1), sources)
    assert (np.diag(bent) <= np.diag(flat) * (1 + 1e-9)).all()


def test_noise_grows_with_its_source_and_with_rounds_that_members_missed() -> None:
    terms = terms_of(20.0)
    whole, half = Sources.of(terms, {}), Sources.of(terms, {"everybody": 0.5})
    assert whole.noise == terms.tuning.noise and whole.probe == terms.tuning.probe_noise
    assert half.noise == pytest.approx(math.sqrt(2.0) * whole.noise)
    assert whole.draw == pytest.approx(math.sqrt(0.7 / (0.3 * 4000)))


def independent(seed: int, count: int) -> tuple[Basis, NDArray[np.float32], Floats]:
    """A bank whose columns go not together, unevenly distributed."""
    rng, columns = np.random.default_rng(seed), {}
    for column in BANK.columns:
        if column.kind == "numeric":
            drawn = column.low + (column.high - column.low) * rng.beta(1.2, 4.0, count)
            columns[column.name] = np.where(rng.random(count) < 0.2, np.nan, drawn)
        elif column.kind == "categorical":
            size = len(column.categories) + 1
            columns[column.name] = rng.choice(size, count, p=rng.dirichlet(np.ones(size))) - 1
        else:
            columns[column.name] = (rng.random(count) < 0.1).astype(np.float64)
    basis = Basis.of(BANK, "additive")
    encoded = basis.encode(columns)
    return basis, encoded, encoded.astype(np.float64).mean(axis=0)


def test_for_independent_columns_the_surrogate_finds_the_covariance_from_the_mean_alone() -> None:
    basis, encoded, mean = independent(1, 20_000)
    found = surrogate_of(basis, BANK, Moments(mean, 0.1), 2.4)
    true = np.cov(encoded.astype(np.float64).T)
    assert np.trace(found.spread) == pytest.approx(np.trace(true), rel=0.1)
    for place in basis.blocks.values():
        ours, theirs = np.linalg.eigvalsh(found.spread[place, place])[-1], np.linalg.eigvalsh(true[place, place])[-1]
        assert ours == pytest.approx(theirs, rel=0.35, abs=0.02)
    values = np.linalg.eigvalsh(found.spread)
    assert values.min() > -1e-9


def test_whose_gradient_is_clipped_adds_no_curvature() -> None:
    basis, _, mean = independent(1, 500)
    wide, narrow = (surrogate_of(basis, BANK, Moments(mean, 0.1), clip) for clip in (99.0, 2.4))
    assert wide.curvature == pytest.approx(0.09) and wide.residual == pytest.approx(0.09)
    assert narrow.curvature == pytest.approx(0.9 * 0.09) and narrow.residual < wide.residual


def finished(model: AdditiveModel | LogisticModel) -> tuple[LinearCourse, object]:
    study = draft(model=model)
    training = short(8)(study, {}, contract())
    spec = sign_study(study, FEDERATION.charter, contract(), training, "0" * 32, key_of("coordinator")).spec
    course = start_course(spec, {name: vault.grant(spec) for name, vault in FEDERATION.vaults.items()}, contract())
    for number in range(1, 9):
        course = course.after(
            {name: vault.gradient(number, course.broadcast()) for name, vault in FEDERATION.vaults.items()}
        )
    assert isinstance(course, LinearCourse)
    return course, spec


def test_a_finished_study_has_a_band_for_every_term_and_only_an_additive_one() -> None:
    course, spec = finished(AdditiveModel())
    found = shape_noise(spec, course, contract())
    basis = Basis.of(contract(), "additive")
    assert [item.term for item in found] == list(basis.blocks)
    for item in found:
        assert len(item.deviations) == len(basis.table(item.term))
        assert min(item.deviations) > 0 and item.missing > 0
    logistic, other = finished(LogisticModel(kind="logistic"))
    assert shape_noise(other, logistic, contract()) == ()


def test_the_curvature_is_held_to_what_a_descent_could_have_met() -> None:
    """A surrogate with absurd curvature would diverge, and claim bands of astronomic width."""
    course, spec = finished(AdditiveModel())
    quiet = replace(course.terms.tuning, noise=1e-6, probe_noise=1e-6)
    loud = LinearCourse(replace(course.terms, tuning=quiet), course.state)
    assert max(max(item.deviations) for item in shape_noise(spec, loud, contract())) < 1.0
