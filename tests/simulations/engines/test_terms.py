"""The numbers of a simulated study are the product's: noise that a customer needs, and what follows for clips, weights and steps."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from federation.errors import DocumentError
from federation.study import HashHoldout, StudyDraft
from privacy.accounting import epsilon as epsilon_of
from privacy.events import SubsampledGaussian
from server.recipe import NOISE_IN_WEIGHTS, tail_coefficients
from simulations import shared
from simulations.engines.simulation import FedAvg, FedSGD, PooledDP, Privacy, Scaffold, Simulation
from simulations.engines.terms import (
    _calibrated,
    find_terms,
    impulse,
    noise_multiplier,
    plain_rate,
    plain_rounds,
    rule_rounds,
)
from simulations.quality import Party, prepare
from simulations.quality import Trial as Studied
from tests.simulations.engines.problems import ADDITIVE, CONTRACT, MLP, job

SIZES = np.array([3_000, 2_000, 1_000, 4_000], dtype=np.int64)
DELTA = 1.0 / (100.0 * SIZES)
BASE = Simulation(name="terms")
WIDTH = job().layout.width


def found(algorithm, epsilon=1.0, model=ADDITIVE, **changes):
    simulation = BASE.model_copy(
        update={"algorithm": algorithm, "privacy": Privacy(epsilon=epsilon), "model": model, **changes}
    )
    return find_terms(simulation, algorithm, SIZES, DELTA, job(model).layout.width)


def trial(sizes=SIZES):
    draft = StudyDraft(
        name="terms",
        title="Terms",
        purpose="marketing.test",
        contract="engines",
        holdout=HashHoldout(kind="hash", share=0.2),
        intended_use="None",
        limits="None",
    )
    parties = tuple(
        Party(f"m{place}", int(size), 1.0 / (100.0 * size), None, None)  # type: ignore[arg-type]
        for place, size in enumerate(sizes)
    )
    return Studied("terms", "Terms", draft, CONTRACT, parties)


@pytest.mark.parametrize("epsilon", [0.5, 1.0, 3.0])
def test_noise_is_what_the_accountant_asks_for_and_not_much_more(epsilon):
    terms = found(FedSGD(), epsilon)
    for sigma, delta in zip(terms.sigma, DELTA, strict=True):
        event = SubsampledGaussian(
            noise_multiplier=float(sigma), sampling_rate=terms.plan.sampling_rate, steps=terms.plan.steps
        )
        assert 0.94 * epsilon <= epsilon_of([event], float(delta)) <= epsilon


@pytest.mark.parametrize(("algorithm", "mode"), [(FedSGD(), "fedsgd"), (FedAvg(kind="fedavg"), "fedavg")])
@pytest.mark.parametrize("epsilon", [None, 1.0])
def test_a_plain_study_is_planned_as_the_coordinator_plans_it(algorithm, mode, epsilon):
    ours, theirs = found(algorithm, epsilon), prepare(trial(), "additive", mode, epsilon).course.terms
    assert ours.plan == theirs.plan
    names = sorted(theirs.clips)
    # delta is rounded down to one of eight values a decade, which costs up to 3% of noise
    assert ours.tuning.noise == pytest.approx(theirs.tuning.noise, rel=0.03, abs=1e-8)
    assert ours.tuning.probe_noise == pytest.approx(theirs.tuning.probe_noise, rel=0.03, abs=1e-8)
    assert ours.tuning.average_from == theirs.tuning.average_from
    assert ours.tuning.local_learning_rate == theirs.tuning.local_learning_rate
    assert ours.clip == pytest.approx([theirs.clips[name] for name in names])
    assert ours.probe_clip == pytest.approx([theirs.probe_clips[name] for name in names])
    weights = np.array([theirs.weights[name] for name in names])
    assert ours.weight / ours.weight.sum() == pytest.approx(weights / weights.sum(), rel=0.02)


def test_a_shared_study_has_the_noise_and_the_clips_of_the_product():
    """Beside the product's own pricing of exact sums: its rounding, margins and delta differ by a few percent at most."""
    members, epsilon = 6, 1.0
    sizes = np.full(members, 2_000, dtype=np.int64)
    simulation = BASE.model_copy(update={"algorithm": FedSGD(noise="shared")})
    ours = find_terms(simulation, FedSGD(noise="shared"), sizes, 1.0 / (100.0 * sizes), WIDTH)
    studied = trial(sizes)
    local = prepare(studied, "additive", "fedsgd", epsilon)
    theirs = shared._shared(studied, local, epsilon)
    assert ours.quorum == shared.threshold(members)
    assert ours.tuning.noise == pytest.approx(theirs.pooled.tuning.noise, rel=0.03)
    assert ours.tuning.probe_noise == pytest.approx(theirs.pooled.tuning.probe_noise, rel=0.03)
    assert ours.clip == pytest.approx(theirs.pooled.tuning.clips, rel=0.02)


@settings(max_examples=30)
@given(
    epsilons=st.lists(st.sampled_from([0.3, 0.5, 1.0, 2.0, 4.0, 8.0]), min_size=1, max_size=4),
    colluders=st.integers(0, 3),
    members=st.integers(6, 40),
)
def test_shared_noise_of_those_that_surely_count_is_enough_for_every_customer(epsilons, colluders, members):
    sizes = np.full(members, 1_500, dtype=np.int64)
    algorithm = FedSGD(noise="shared", colluders=colluders)
    simulation = BASE.model_copy(update={"privacy": Privacy(epsilon=tuple(epsilons)), "algorithm": algorithm})
    terms = find_terms(simulation, algorithm, sizes, 1.0 / (100.0 * sizes), WIDTH)
    surely = terms.quorum - max(colluders, 1)
    descent = terms.weight * terms.noise
    probing = terms.probe_weight * terms.probe_noise
    for noise, part in ((descent, terms.weight * terms.clip), (probing, terms.probe_weight * terms.probe_clip)):
        least = math.sqrt(float(np.sort(noise**2)[:surely].sum()))
        assert np.all(least >= terms.sigma * part * (1.0 - 1e-9))


def test_precision_weights_have_the_least_variance():
    """Against a thousand other weightings; size alone wastes a strict budget's institution on its noise."""
    terms = found(FedSGD(weights="precision"), (0.3, 1.0, 3.0, 8.0))
    expected = terms.plan.sampling_rate * terms.declared
    each = (terms.noise / expected) ** 2 + terms.clip**2 / (WIDTH * expected)

    def variance(weight):
        share = weight * expected / (weight @ expected)
        return float(share**2 @ each)

    draw, best = np.random.default_rng(3), variance(terms.weight)
    assert all(best <= variance(draw.random(4) + 1e-3) for _ in range(1_000))
    assert best < 0.8 * variance(np.ones(4))


def test_factors_give_means_over_those_who_answered():
    terms = found(FedSGD(), None)
    present = np.array([1.0, 0.0, 1.0, 1.0])
    sums = 0.25 * terms.plan.sampling_rate * terms.declared  # every customer's gradient is a quarter
    assert terms.factors(False, present) @ sums == pytest.approx(0.25)
    changes = found(FedAvg(kind="fedavg"), None).factors(False, present)
    assert changes.sum() == pytest.approx(1.0) and changes[1] == 0.0


def test_local_steps_share_the_budget_of_all_steps():
    several = found(FedAvg(kind="fedavg", steps=5))
    assert (several.plan.rounds, several.plan.steps) == (8, 40)  # two probes, and thirty steps in rounds of five
    assert several.sigma[0] == pytest.approx(noise_multiplier(1.0, float(DELTA[0]), 0.3, 40))
    assert found(Scaffold(kind="scaffold")).plan.probes == 0
    assert found(FedSGD(), model=MLP).plan.probes == 0


def test_rounds_and_rates_that_are_asked_for_are_taken_and_priced():
    terms = found(FedSGD(), rounds=12, sampling_rate=0.05)
    assert (terms.plan.rounds, terms.plan.steps, terms.plan.sampling_rate) == (12, 12, 0.05)
    assert terms.sigma[0] == pytest.approx(noise_multiplier(1.0, float(DELTA[0]), 0.05, 12))
    assert terms.sigma[0] < found(FedSGD()).sigma[0]


@pytest.mark.parametrize(
    ("algorithm", "changes", "said"),
    [(FedSGD(), {"rounds": 2}, "leave none"), (FedSGD(noise="shared", colluders=4), {}, "at least|needs")],
)
def test_what_does_not_fit_together_is_refused(algorithm, changes, said):
    with pytest.raises(DocumentError, match=said) as caught:
        found(algorithm, **changes)
    assert caught.value.code == "CSL-M260"


def test_records_in_one_place_have_the_noise_of_one_institution_that_holds_them_all():
    """Equal sizes and budgets: nothing but where the records lie differs, in the descent as in the probes."""
    sizes = np.full(4, 2_500, dtype=np.int64)
    delta = 1.0 / (100.0 * sizes)
    ours = find_terms(BASE, PooledDP(kind="pooled_dp"), sizes, delta, WIDTH)
    one = find_terms(BASE, FedSGD(), np.array([10_000]), delta[:1], WIDTH)
    assert ours.plan == one.plan and ours.quorum == 1
    assert ours.tuning.noise == pytest.approx(one.tuning.noise, rel=1e-12)
    assert ours.tuning.probe_noise == pytest.approx(one.tuning.probe_noise, rel=1e-12)
    assert ours.clip == pytest.approx(np.full(4, one.clip[0]))


def test_records_in_one_place_keep_every_customers_own_budget():
    """The noise of all together is sigma_i times what a customer of institution i may add to the sum, for each of them."""
    terms = found(PooledDP(kind="pooled_dp"), (0.5, 1.0, 4.0))
    for noise, part in (
        (terms.weight * terms.noise, terms.weight * terms.clip),
        (terms.probe_weight * terms.probe_noise, terms.probe_weight * terms.probe_clip),
    ):
        assert terms.sigma * part == pytest.approx(np.full(4, np.linalg.norm(noise)))
    assert terms.clip[0] < 0.5 * terms.clip[2]


def test_deltas_that_are_rounded_alike_are_priced_once():
    _calibrated.cache_clear()
    for delta in np.linspace(1.01e-6, 1.3e-6, 20):
        noise_multiplier(1.0, float(delta), 0.3, 32)
    assert _calibrated.cache_info().misses == 1


@given(st.integers(1, 12), st.sampled_from([0.0, 0.5, 0.9]), st.booleans())
def test_an_impulse_is_what_local_steps_do(steps, momentum, tail):
    change = np.zeros(steps)
    for place in range(steps):
        velocity = weight = 0.0
        path = []
        for step in range(steps):
            velocity = momentum * velocity + (step == place)
            weight += velocity
            path.append(weight)
        change[place] = np.mean(path[steps // 2 :]) if tail else weight
    assert impulse(steps, momentum, tail) == pytest.approx(change)


def test_an_impulse_without_momentum_is_the_products():
    assert impulse(5, 0.0, True) == pytest.approx(tail_coefficients(5))


@pytest.mark.parametrize("kind", ["average", "fedavgm"])
@pytest.mark.parametrize("noise", [0.05, 0.2, 1.0])
def test_a_plain_servers_noise_in_weights_is_bounded(kind, noise):
    """Played: rounds of noise alone, through the momentum of the server; it may not exceed the bound, and reaches it once it decides."""
    parts, rounds = impulse(3, 0.0, True), plain_rounds(kind, True)
    rate, _ = plain_rate("linear", kind, rounds, noise, parts)
    draw = np.random.default_rng(1)
    keep, velocity, weights = (0.9 if kind == "fedavgm" else 0.0), np.zeros(2_000), np.zeros(2_000)
    for _ in range(rounds):
        velocity = keep * velocity + rate * noise * (draw.standard_normal((2_000, 3)) @ parts)
        weights += velocity
    assert weights.std() < 1.1 * NOISE_IN_WEIGHTS
    longest, _ = plain_rate("linear", kind, rounds, 0.0, parts)
    assert rate < longest and weights.std() > 0.6 * NOISE_IN_WEIGHTS


def test_adams_own_rate_falls_where_there_is_noise():
    parts = impulse(2, 0.0, True)
    assert plain_rate("linear", "fedadam", 120, 0.0, parts)[1] == 1.0
    assert plain_rate("linear", "fedadam", 60, 0.01, parts)[1] == pytest.approx(NOISE_IN_WEIGHTS / (0.1 * 60**0.5))


def test_the_rule_takes_more_rounds_for_servers_that_measure_nothing():
    average = FedAvg(kind="fedavg", server="average")
    assert rule_rounds(BASE, FedSGD(), SIZES, WIDTH) == 32
    assert rule_rounds(BASE, average, SIZES, WIDTH) == found(average).plan.rounds >= 60
    assert found(average, None).plan.rounds >= 100
    assert found(Scaffold(kind="scaffold"), None).plan.rounds >= 100
