"""The simulator of shared noise: everybody's customers once, the price that the vault asks, the noise that is said, and honest verdicts."""

import importlib
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from client.cohort import Cohort
from client.pricing import events_of
from federation.contract import CategoricalColumn, FeatureContract, FlagColumn, Label, NumericColumn
from federation.networks import Inputs
from federation.study import HashHoldout, StudyDraft
from privacy.accounting import epsilon as epsilon_of
from server.descent import BIAS, WEIGHT
from simulations.quality import Desk, Party, Trial, seat
from simulations.shared import (
    COLLUDERS,
    WAYS,
    Question,
    answer,
    ask,
    auc_of,
    ceiling,
    deal,
    federate_shared,
    gather,
    threshold,
)

EPSILON = 1.0
SIZES = (2_100, 3_000, 2_900)
CONTRACT = FeatureContract(
    name="easy",
    version=1,
    title="An easy problem",
    source="table",
    columns=(
        NumericColumn(
            kind="numeric", name="age", meaning="Age", unit="years", low=0.0, high=80.0, knots=(0.0, 20.0, 40.0, 80.0)
        ),
        CategoricalColumn(kind="categorical", name="area", meaning="Area", categories=("north", "south")),
        FlagColumn(kind="flag", name="member", meaning="Is a member", required=False),
        CategoricalColumn(
            kind="categorical", name="card", meaning="Card", categories=("debit", "credit"), required=False
        ),
    ),
    label=Label(name="bought", meaning="Bought"),
)
DRAFT = StudyDraft(
    name="easy",
    title="An easy problem",
    purpose="marketing.test",
    contract="easy",
    holdout=HashHoldout(kind="hash", share=0.2),
    intended_use="A test.",
    limits="A test.",
)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def cohort(draw: np.random.Generator, size: int, lacks: frozenset[str]) -> Cohort:
    age, area = draw.uniform(0.0, 80.0, size), draw.integers(-1, 2, size)
    member, card = draw.integers(0, 2, size).astype(np.float64), draw.integers(-1, 2, size)
    logit = 2.5 * np.sin(age / 16.0) + 0.8 * area + 0.7 * member - 1.5
    label = (draw.random(size) < 1.0 / (1.0 + np.exp(-logit))).astype(np.float64)
    columns = {"age": age, "area": area, "member": member, "card": card}
    ids = np.array([f"c{number}" for number in range(size)], dtype=object)
    return Cohort(ids, {name: values for name, values in columns.items() if name not in lacks}, label)


@pytest.fixture(scope="module")
def trial() -> Trial:
    draw = np.random.default_rng(3)
    lacking = (frozenset[str](), frozenset({"member"}), frozenset({"card"}))
    parties = tuple(
        Party(f"house_{place}", size, 1e-6, cohort(draw, size, lacks), cohort(draw, size // 2, lacks))
        for place, (size, lacks) in enumerate(zip(SIZES, lacking, strict=True))
    )
    return Trial("easy", "an easy problem", DRAFT, CONTRACT, parties)


@pytest.fixture(scope="module")
def whole(trial: Trial) -> Trial:
    return gather(trial)


@pytest.fixture(scope="module")
def question(whole: Trial) -> Question:
    return ask(whole, 5, EPSILON)


def rows(desks: list[Desk]) -> np.ndarray:
    return np.vstack([desk.training.dense.numpy() for desk in desks])


def in_order(table: np.ndarray) -> np.ndarray:
    return table[np.lexsort(table.T)]


def test_what_one_institution_lacks_is_missing_and_nothing_else_changes(trial: Trial, whole: Trial) -> None:
    apart, together = seat(trial, "additive"), seat(whole, "additive")
    np.testing.assert_array_equal(rows(together), rows(apart))
    labels = np.concatenate([desk.training_labels for desk in apart])
    np.testing.assert_array_equal(together[0].training_labels, labels)
    assert len(set(whole.parties[0].training.ids)) == sum(SIZES)


def test_a_study_that_is_secure_already_is_asked_in_every_way(trial: Trial) -> None:
    terms = {"aggregation": "secure", "noise": "local", "n_min": 3, "c": 0}
    draft = StudyDraft.model_validate({**DRAFT.model_dump(), **terms})
    question = ask(gather(replace(trial, draft=draft)), 4, EPSILON)
    assert (question.shared.secure.noise, question.shared.secure.n_min) == ("shared", threshold(4))


@pytest.mark.parametrize("members", [1, 5, 20])
def test_every_customer_is_dealt_once(whole: Trial, members: int) -> None:
    dealt = deal(whole, members, "a")
    for part in ("training", "heldout"):
        sizes = [len(getattr(party, part)) for party in dealt.parties]
        ids = [name for party in dealt.parties for name in getattr(party, part).ids]
        assert max(sizes) - min(sizes) <= 1
        assert sorted(ids) == sorted(getattr(whole.parties[0], part).ids)
    np.testing.assert_array_equal(in_order(rows(seat(dealt, "additive"))), in_order(rows(seat(whole, "additive"))))
    assert {party.delta * 100.0 * party.declared for party in dealt.parties} == {1.0}


def test_a_seed_deals_again_and_another_otherwise(whole: Trial) -> None:
    first, same, other = (deal(whole, 5, seed).parties[0].training.ids.tolist() for seed in ("a", "a", "b"))
    assert first == same and first != other


@given(st.integers(4, 200))
def test_a_sum_is_opened_over_most_members_and_some_may_drop_out(members: int) -> None:
    least = threshold(members)
    assert COLLUDERS + 3 <= least <= members
    assert 10 * least >= 8 * members
    assert members < 5 or least < members


def test_shared_noise_costs_what_was_granted_and_not_much_less(question: Question) -> None:
    grant = question.shared.grant
    (event,) = events_of(grant, question.shared.secure)["training"]
    assert 0.98 * EPSILON < epsilon_of([event], grant.delta) <= EPSILON
    assert question.shared.secure.bearers == threshold(5) - COLLUDERS


def test_shared_noise_is_little_more_than_central_and_far_less_than_local(question: Question) -> None:
    noise = question.shared.course.terms.tuning.noise
    members, bearers = 5, question.shared.secure.bearers
    # Rounding and two digits of declared sizes move these by a few per cent.
    assert noise / question.central.course.terms.tuning.noise == pytest.approx(math.sqrt(members / bearers), rel=0.05)
    assert noise / question.local.course.terms.tuning.noise == pytest.approx(1.0 / math.sqrt(bearers), rel=0.05)


def test_the_noise_that_is_added_is_the_noise_that_steps_are_matched_to(
    question: Question, whole: Trial, monkeypatch: pytest.MonkeyPatch
) -> None:
    gradients: list[np.ndarray] = []
    desks = [
        replace(desk, training=Inputs(desk.training.dense[:0], desk.training.codes[:0]), training_labels=np.empty(0))
        for desk in seat(deal(whole, 5, "a"), "additive")
    ]
    after = type(question.local.course.state).after

    def watched(state, gradient, plan, tuning):
        gradients.append(np.append(gradient[WEIGHT].ravel(), gradient[BIAS]))
        return after(state, gradient, plan, tuning)

    monkeypatch.setattr(type(question.local.course.state), "after", watched)
    federate_shared(desks, question.shared, "a")
    tuning, probes = question.shared.course.terms.tuning, question.shared.course.terms.plan.probes
    assert np.std(gradients[:probes]) == pytest.approx(tuning.probe_noise, rel=0.3)
    assert np.std(gradients[probes:]) == pytest.approx(tuning.noise, rel=0.1)


def test_ways_stand_in_their_order_on_an_easy_problem(question: Question, whole: Trial) -> None:
    desks, everybody = seat(deal(whole, 5, "a"), "additive"), seat(whole, "additive")
    found = {way: answer(question, way, desks, everybody, "0") for way in WAYS}
    assert found["shared"] == pytest.approx(found["central"], abs=0.02)
    assert found["alone"] < found["local"] < found["shared"] <= ceiling(everybody) + 0.01
    assert len(set(found.values())) == len(WAYS)


def test_central_training_is_given_the_noise_of_the_shared_way(question: Question) -> None:
    louder, central, shared = question.louder, question.central, question.shared
    factor = shared.course.terms.tuning.noise / central.course.terms.tuning.noise
    assert louder.noise["everybody"] == pytest.approx(factor * central.noise["everybody"])
    assert louder.course.terms.tuning.noise == shared.course.terms.tuning.noise
    assert louder.course.terms.tuning.probe_noise == pytest.approx(shared.course.terms.tuning.probe_noise, rel=0.02)


def test_with_next_to_no_noise_the_model_without_privacy_is_reached(whole: Trial) -> None:
    question = ask(whole, 4, 20.0)
    desks = seat(deal(whole, 4, "a"), "additive")
    shared = question.shared
    assert auc_of(shared.network, federate_shared(desks, shared, "a"), desks) >= 0.99 * ceiling(desks)


def test_too_much_noise_is_seen(question: Question, whole: Trial) -> None:
    desks, run = seat(deal(whole, 5, "a"), "additive"), question.shared
    terms, pooled = run.course.terms, run.pooled
    loud = [replace(pool, scale=pool.scale / 300.0) for pool in (pooled.probe, pooled.descent)]
    pooled = replace(pooled, probe=loud[0], descent=loud[1])
    drowned = replace(run, course=replace(run.course, terms=replace(terms, pooled=pooled)))
    assert auc_of(run.network, federate_shared(desks, drowned, "a"), desks) < 0.9 * ceiling(desks)


def test_a_seed_repeats_a_run_and_another_does_not(question: Question, whole: Trial) -> None:
    desks = seat(deal(whole, 5, "a"), "additive")
    first, same, other = (federate_shared(desks, question.shared, seed) for seed in ("a", "a", "b"))
    np.testing.assert_array_equal(first[WEIGHT], same[WEIGHT])
    assert not np.array_equal(first[WEIGHT], other[WEIGHT])


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    return importlib.import_module("shared_noise")


def cell(benchmark: ModuleType, study: str, members: int, epsilon: float, **medians: float):
    aucs = {way: (medians.get(way, 0.7) - 0.3, medians.get(way, 0.7), medians.get(way, 0.7) + 0.1) for way in WAYS}
    return benchmark.Cell(study, members, epsilon, aucs, {"local": 4.0, "shared": 1.2, "central": 1.0}, 2.0)


@pytest.mark.parametrize(
    ("shared", "central", "local", "met"),
    [
        (0.7, 0.7049, 0.67, [True, True]),
        (0.7, 0.7051, 0.67, [False, True]),
        (0.7, 0.69, 0.6801, [True, False]),
        (0.7, 0.71, 0.69, [False, False]),
    ],
)
def test_targets_are_judged_on_the_median_seed(benchmark, shared, central, local, met) -> None:
    found = cell(benchmark, "churn", 20, 0.3, shared=shared, central=central, local=local)
    assert [verdict.met for verdict in benchmark.verdicts([found])] == met
    elsewhere = [replace(found, members=5), replace(found, epsilon=1.0)]
    assert [verdict.met for verdict in benchmark.verdicts(elsewhere)] == [met[0]] * 2
    assert benchmark.verdicts([replace(found, study="propensity_random")]) == []


def test_a_verdict_says_what_the_noise_alone_takes(benchmark) -> None:
    found = cell(benchmark, "churn", 5, 0.3, shared=0.70, louder=0.703, central=0.71)
    (verdict,) = benchmark.verdicts([found])
    assert verdict.text.startswith("churn, 5 institutions, epsilon 0.3: shared less central -0.0100 (±")
    assert "the noise alone takes -0.0070" in verdict.text


def test_the_table_shows_every_way_and_the_noise_beside_central(benchmark, whole) -> None:
    lines = benchmark.table(whole, 0.8, [cell(benchmark, "easy", 20, 0.3, shared=0.75)])
    assert "Without privacy, all records in one place: 0.8000." in lines[2]
    assert lines[-2].startswith("| 20 | 0.3 | 0.7000 (0.400 to 0.800) |")
    assert "| 0.7500 (0.450 to 0.850) |" in lines[-2]
    assert lines[-2].endswith("| 4.00 / 1.20 / 1.00 | 2.00 |")


def test_the_figure_names_every_way_and_has_a_panel_for_each_size(benchmark, tmp_path) -> None:
    cells = [cell(benchmark, "easy", members, epsilon) for members in (5, 20) for epsilon in (0.3, 1.0, 3.0)]
    png, svg = benchmark.draw(tmp_path, [("easy", 0.8, cells)])
    assert png.read_bytes().startswith(b"\x89PNG")
    text = svg.read_text()
    for words in ("easy, 5 institutions", "easy, 20 institutions", "shared noise", "local noise", "alone", "central"):
        assert words in text
