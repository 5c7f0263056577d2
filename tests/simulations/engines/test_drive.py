"""Whole simulated studies: what each algorithm must do whatever computes its rounds."""

from dataclasses import replace

import numpy as np
import pytest

from federation.study import AdditiveModel
from server.descent import Descent
from server.monotone import cones_of
from server.optimizer import mean_gradient
from simulations import analysis
from simulations.engines.courses import RecipeCourse, start_course
from simulations.engines.drive import drive, nothing
from simulations.engines.faults import attendance
from simulations.engines.judging import judge
from simulations.engines.simulation import (
    Faults,
    FedAvg,
    FedSGD,
    Personal,
    Poisoners,
    Privacy,
    Scaffold,
    Simulation,
)
from simulations.engines.terms import find_terms
from simulations.engines.vectorized import Vectorized
from simulations.engines.work import Local, Work, scores
from simulations.quality import prepare
from tests.simulations.engines.closed import Closed
from tests.simulations.engines.problems import ADDITIVE, MLP, job, rows
from tests.simulations.engines.test_terms import trial

SIZES = (900, 700, 500, 1_100)
JOB = job(sizes=SIZES, seed=11)
HELDOUT = rows(ADDITIVE, (6_000,), 12)
ALGORITHMS = [
    FedSGD(),
    FedSGD(noise="shared"),
    FedSGD(weights="precision"),
    FedSGD(server="fedavgm"),
    FedSGD(server="fedadam"),
    FedAvg(kind="fedavg"),
    FedAvg(kind="fedavg", server="average", proximal=0.05, momentum=0.5),
    FedAvg(kind="fedavg", server="fedavgm"),
    FedAvg(kind="fedavg", server="fedadam"),
    Scaffold(kind="scaffold"),
]


def study(algorithm, epsilon=None, on=nothing, engine=None, given=JOB, **changes):
    simulation = Simulation(name="driven").model_copy(
        update={"algorithm": algorithm, "privacy": Privacy(epsilon=epsilon), **changes}
    )
    sizes = given.declared
    terms = find_terms(simulation, algorithm, sizes, 1.0 / (100.0 * sizes), given.layout.width)
    there = attendance(simulation.faults, len(sizes), terms.plan.rounds, given.seed)
    return drive(engine or Closed(), given, simulation, algorithm, terms, there, on)


def auc(weights):
    return judge(HELDOUT, scores(JOB, weights, HELDOUT)).overall["auc"]


def ceiling():
    model = analysis.fit_rows(JOB.rows.dense.numpy(), JOB.rows.labels.numpy().astype(np.float64))
    return analysis.auc(HELDOUT.labels.numpy(), analysis.logits(model, HELDOUT.dense.numpy()))


@pytest.mark.parametrize("algorithm", ALGORITHMS, ids=str)
def test_every_algorithm_learns_without_noise_nearly_what_pooling_would(algorithm):
    assert auc(study(algorithm, rounds=40).model) > ceiling() - 0.02


def test_less_budget_costs_more_and_shared_noise_costs_less_than_local():
    local = [auc(study(FedSGD(), epsilon).model) for epsilon in (0.3, 8.0)]
    shared = auc(study(FedSGD(noise="shared"), 0.3).model)
    assert local[0] < shared < local[1] + 0.01
    assert local[1] - local[0] > 0.02


def test_the_descent_is_the_products_step_for_step():
    """The same mean gradients move the product's own course to the same weights, to the last bit."""
    run = prepare(trial(np.array(SIZES)), "additive", "fedsgd", 1.0)
    served = run.course
    ours = RecipeCourse(JOB.layout, served.terms.plan, served.terms.tuning, Descent.start(JOB.layout.width - 1))
    draw = np.random.default_rng(4)
    for _ in range(served.terms.plan.rounds):
        assert (ours.weights() == JOB.layout.flat(served.broadcast())).all()
        sums = {
            f"m{place}": JOB.layout.tensors(draw.standard_normal(JOB.layout.width) * size)
            for place, size in enumerate(SIZES)
        }
        terms = served.terms
        mean = JOB.layout.flat(mean_gradient(sums, terms.weights, terms.expected))
        served, ours = served.after(sums), ours.after(mean)
    assert (ours.model() == JOB.layout.flat(served.model())).all()


def test_scaffolds_control_is_the_mean_of_the_institutions_own():
    engine = Closed()
    study(Scaffold(kind="scaffold"), engine=engine, rounds=6, faults=Faults(dropout=0.3))
    (session,) = engine.sessions
    work, _ = session.works[-1]
    # After the last round the server's control would be what the next round sends; the last but one is checked by what was sent.
    engine = Closed()
    study(Scaffold(kind="scaffold"), engine=engine, rounds=5, faults=Faults(dropout=0.3))
    weights = np.array(SIZES) / sum(SIZES)
    assert work.local.control == pytest.approx(weights @ engine.sessions[0].controls, abs=1e-9)


def test_scaffold_meets_the_optimum_that_averaging_misses_among_unlike_institutions():
    """Institutions with opposite slopes: many local steps drift apart, and control variates take the drift out."""
    given = job(sizes=(500, 500, 500, 500), seed=21)
    flipped = given.rows.labels.clone()
    flipped[:500] = 1.0 - flipped[:500]
    given = replace(given, rows=replace(given.rows, labels=flipped))
    pooled = analysis.fit_rows(given.rows.dense.numpy(), flipped.numpy().astype(np.float64))
    best = np.append(pooled.coef_[0], pooled.intercept_[0])
    distance = {}
    for algorithm in (FedAvg(kind="fedavg", steps=20, server="average"), Scaffold(kind="scaffold", steps=20)):
        model = study(algorithm, given=given, rounds=60, sampling_rate=1.0, clip=1e3).model
        distance[algorithm.kind] = float(np.linalg.norm(model - best))
    assert distance["scaffold"] < 0.5 * distance["fedavg"]


def test_a_strong_proximal_pull_keeps_local_steps_near_the_start():
    def first_change(mu):
        engine = Closed()
        study(FedAvg(kind="fedavg", steps=10, server="average", proximal=mu), engine=engine, rounds=1)
        work, factors = engine.sessions[0].works[0]
        return np.linalg.norm(factors @ engine.sessions[0].releases(work))

    assert first_change(2.0) < 0.6 * first_change(0.0)


def test_liars_do_harm_and_who_reverses_is_not_weighed_differently():
    def lying(attack):
        return auc(study(FedSGD(), faults=Faults(poisoners=Poisoners(count=1, attack=attack, strength=3.0))).model)

    assert lying("reverse") < ceiling() - 0.05
    engine = Closed()
    study(FedSGD(), engine=engine, faults=Faults(poisoners=Poisoners(count=2, strength=1.5)))
    for work, factors in engine.sessions[0].works:
        honest = np.abs(np.where(factors < 0, factors / 1.5, factors))
        assert (factors < 0).sum() == 2
        assert honest @ (work.rate * np.array(SIZES)) == pytest.approx(1.0)


def test_rounds_without_a_quorum_change_nothing_and_are_counted():
    done = []
    trail = study(
        FedSGD(noise="shared"), 1.0, lambda number, count: done.append((number, count)), faults=Faults(dropout=0.9)
    )
    assert trail.failed > 25 and trail.learned < 8
    assert done == [(number, 32) for number in range(1, 33)]
    assert trail.steps < 0.2 * 32 * len(SIZES)


def test_nobody_ever_answering_leaves_the_start():
    trail = study(FedSGD(server="fedadam"), 1.0, faults=Faults(stragglers=0.1, deadline=1e-3))
    assert trail.failed == 60 and trail.learned == 0
    assert trail.steps == 60 * len(SIZES)  # all were late, and had computed
    assert (trail.model == JOB.start()).all()


def test_personal_steps_help_an_unlike_institution_and_leave_the_common_model():
    given = job(sizes=(900, 900, 900, 900), seed=31)
    flipped = given.rows.labels.clone()
    flipped[:900] = 1.0 - flipped[:900]
    given = replace(given, rows=replace(given.rows, labels=flipped))
    plain = study(FedSGD(), given=given)
    personal = study(FedSGD(), given=given, personal=Personal(steps=200, rate=0.3))
    assert (plain.model == personal.model).all() and plain.own is None
    first = given.rows.of(0)
    before = judge(first, scores(given, personal.model, first)).overall["auc"]
    after = judge(first, scores(given, personal.own[0], first)).overall["auc"]
    assert before < 0.5 < 0.65 < after


def test_a_seed_repeats_and_another_differs():
    first, again = study(FedSGD(), 1.0).model, study(FedSGD(), 1.0).model
    assert (first == again).all()
    assert (study(FedSGD(), 1.0, given=replace(JOB, seed=12)).model != first).any()


LARGE = (2_700, 2_100, 1_500, 3_300)


def figures(algorithm, epsilon, model=ADDITIVE, seeds=(1, 2), **changes):
    held = rows(model, (6_000,), 99)
    found = []
    for seed in seeds:
        given = job(model, LARGE, seed)
        trained = study(algorithm, epsilon, engine=Vectorized(), given=given, model=model, **changes).model
        found.append(judge(held, scores(given, trained, held)).overall["auc"])
    return float(np.mean(found))


@pytest.fixture(scope="module")
def recipes():
    return {epsilon: figures(FedSGD(), epsilon) for epsilon in (1.0, None)}


@pytest.mark.parametrize("epsilon", [1.0, None])
@pytest.mark.parametrize("algorithm", ALGORITHMS, ids=str)
def test_every_algorithm_by_its_rule_learns_nearly_what_the_recipe_does(recipes, algorithm, epsilon):
    assert figures(algorithm, epsilon) > recipes[epsilon] - 0.02


@pytest.mark.parametrize("algorithm", ALGORITHMS, ids=str)
def test_networks_learn_without_noise_by_every_algorithm(algorithm):
    assert figures(algorithm, None, MLP, seeds=(1,)) > 0.7


def test_who_is_late_has_computed_and_who_dropped_out_has_not():
    late = study(FedSGD(), 1.0, faults=Faults(stragglers=1.0, deadline=1.0))
    assert late.steps == 32 * len(SIZES)
    assert study(FedSGD(), 1.0, faults=Faults(dropout=0.5)).steps < 0.7 * 32 * len(SIZES)


def test_who_swaps_labels_goes_on_by_the_true_ones():
    """All swap: the common model is upside down, and own steps on true labels turn it."""
    lies = Faults(poisoners=Poisoners(count=4, attack="labels"))
    trail = study(FedSGD(), faults=lies, personal=Personal(steps=200, rate=0.3))
    first = JOB.rows.of(0)
    assert auc(trail.model) < 0.4
    assert judge(first, scores(JOB, trail.own[0], first)).overall["auc"] > 0.6


def test_adam_by_a_shorter_rate_moves_that_much_less():
    weights = JOB.start()
    width, moved = JOB.layout.width, {}
    terms = find_terms(Simulation(name="driven"), FedSGD(server="fedadam"), JOB.declared, np.full(4, 1e-6), width)
    for rate in (1.0, 0.25):
        course = start_course(JOB, terms.plan, terms.tuning, "fedadam", rate)
        for number in range(terms.plan.rounds):
            course = course.after(np.linspace(-1.0, 1.0, JOB.layout.width) * (1.0 + number % 3))
        moved[rate] = (course.weights() - weights, course.model() - weights)
    for short, long in zip(moved[0.25], moved[1.0], strict=True):
        assert np.abs(long).max() > 1.0
        assert short == pytest.approx(0.25 * long, abs=1e-5)


@pytest.mark.parametrize(("steps", "rate"), [(2, None), (20, None), (200, None), (4, 5.0)])
def test_probes_of_many_local_steps_read_the_same_as_those_of_one_sum(steps, rate):
    """The base rate and the mean row are read from gradients at fixed weights: local steps must not lead away from them."""

    def moments(algorithm):
        terms = find_terms(
            Simulation(name="driven", privacy=Privacy(epsilon=None), rounds=3, sampling_rate=1.0),
            algorithm,
            JOB.declared,
            np.full(4, 1e-6),
            JOB.layout.width,
        )
        course = start_course(JOB, terms.plan, terms.tuning, "recipe", probe_rate=terms.probe_rate)
        with Closed().open(JOB) as session:
            for number in range(2):
                local = None
                if algorithm.kind == "fedavg":
                    local = Local(steps, terms.probe_rate)
                work = Work(number, course.weights(), terms.probe_clip, np.zeros(4), np.ones(4, dtype=bool), 1.0, local)
                course = course.after(session.combine(work, terms.factors(True, np.ones(4))))
        return course.state.moments(terms.tuning)

    plain, several = moments(FedSGD()), moments(FedAvg(kind="fedavg", steps=steps, rate=rate, weights="size"))
    assert several.rate == pytest.approx(plain.rate, abs=0.03)
    assert np.linalg.norm(several.mean - plain.mean) < 0.1 * np.linalg.norm(plain.mean)


@pytest.mark.parametrize(
    ("algorithm", "personal"),
    [
        (FedSGD(), None),
        (FedSGD(server="fedadam"), None),
        (FedAvg(kind="fedavg", server="average"), Personal(steps=5)),
    ],
)
def test_monotone_columns_are_held(algorithm, personal):
    """Both ways at once, so that one of them is against the data."""
    rises = {}
    for way in ("increasing", "decreasing"):
        model = AdditiveModel(kind="additive", monotone={"first": way})
        told = replace(JOB, model=model)
        trail = study(algorithm, 1.0, given=told, model=model, personal=personal)
        (cone,) = cones_of(model, told.contract)
        found = [trail.model] if trail.own is None else [trail.model, *trail.own]
        for weights in found:
            bent = told.layout.tensors(weights)["linear.weight"][0][cone.place].astype(np.float64)
            assert (cone.rises @ bent).min() >= 0.0
            rises[way] = np.abs(cone.rises @ bent).max()
    assert rises["increasing"] > max(0.1, 1.5 * rises["decreasing"])
    free = study(algorithm, 1.0).model
    bent = JOB.layout.tensors(free)["linear.weight"][0][cone.place].astype(np.float64)
    assert (cone.rises @ bent).min() < 0.0
