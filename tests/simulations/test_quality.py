import importlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from statistics import fmean, median
from types import ModuleType

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from client.cohort import Cohort
from federation.contract import CategoricalColumn, FeatureContract, FlagColumn, Label, NumericColumn
from federation.document import load_yaml
from federation.study import HashHoldout, StudyDraft
from privacy.accounting import epsilon as epsilon_of
from privacy.events import SubsampledGaussian
from server.recipe import PROBES, plan_training
from simulations.quality import (
    Desk,
    Party,
    Trial,
    alone_aucs,
    federated_aucs,
    plain,
    pooled_aucs,
    prepare,
    seat,
    two_digits,
)

SIZES = (2_000, 3_000, 4_000)
TESTED = 1_500
EPSILON = 1.0
DELTA = 1e-6
CONTRACT = FeatureContract(
    name="easy",
    version=1,
    title="An easy problem",
    source="table",
    columns=(
        NumericColumn(
            kind="numeric", name="age", meaning="Age", unit="years", low=0.0, high=80.0, knots=(0.0, 20.0, 40.0, 80.0)
        ),
        NumericColumn(
            kind="numeric", name="spend", meaning="Spend", unit="euro", low=0.0, high=4.0, knots=(0.0, 1.0, 2.0, 4.0)
        ),
        CategoricalColumn(kind="categorical", name="area", meaning="Area", categories=("north", "south")),
        FlagColumn(kind="flag", name="member", meaning="Is a member", required=False),
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
    torch.set_num_threads(1)  # many small sums: more threads only wait for each other
    yield
    torch.set_num_threads(threads)


def cohort(draw: np.random.Generator, size: int, shift: float, flag: bool) -> Cohort:
    age, spend = draw.uniform(0.0, 80.0, size), draw.uniform(0.0, 4.0, size)
    area, member = draw.integers(-1, 2, size), draw.integers(0, 2, size).astype(np.float64)
    logit = 2.5 * np.sin(age / 16.0) + 0.9 * (spend - 2.0) + 0.8 * area + 0.7 * member - 1.5 + shift
    label = (draw.random(size) < 1.0 / (1.0 + np.exp(-logit))).astype(np.float64)
    columns = {"age": age, "spend": spend, "area": area}
    ids = np.array([f"c{number}" for number in range(size)], dtype=object)
    return Cohort(ids, columns | ({"member": member} if flag else {}), label)


@pytest.fixture(scope="module")
def trial() -> Trial:
    draw = np.random.default_rng(3)
    parties = tuple(
        Party(
            member=f"house_{place}",
            declared=size,
            delta=DELTA,
            training=cohort(draw, size + 37 * place, 0.3 * place, place != 1),
            heldout=cohort(draw, TESTED, 0.3 * place, place != 1),
        )
        for place, size in enumerate(SIZES)
    )
    return Trial("easy", "an easy problem", DRAFT, CONTRACT, parties)


@pytest.fixture(scope="module")
def desks(trial: Trial) -> list[Desk]:
    return seat(trial, "additive")


def share_of_pooled(desks, run, seeds) -> float:
    found = median(fmean(federated_aucs(desks, run, str(seed))) for seed in range(seeds))
    return found / fmean(pooled_aucs(desks))


@pytest.mark.parametrize("mode", ["fedsgd", "fedavg"])
def test_privacy_costs_little_on_an_easy_problem(trial, desks, mode) -> None:
    assert share_of_pooled(desks, prepare(trial, "additive", mode, EPSILON), 3) >= 0.97


@pytest.mark.parametrize("mode", ["fedsgd", "fedavg"])
@pytest.mark.parametrize("epsilon", [20.0, None])
def test_with_next_to_no_noise_the_pooled_model_is_reached(trial, desks, mode, epsilon) -> None:
    assert share_of_pooled(desks, prepare(trial, "additive", mode, epsilon), 1) >= 0.99


def test_the_curve_that_a_line_cannot_follow_is_found(trial, desks) -> None:
    lines = seat(trial, "logistic")
    additive = fmean(federated_aucs(desks, prepare(trial, "additive", "fedsgd", EPSILON), "1"))
    assert additive > fmean(federated_aucs(lines, prepare(trial, "logistic", "fedsgd", EPSILON), "1")) + 0.02


def test_too_much_noise_is_seen(trial, desks) -> None:
    run = prepare(trial, "additive", "fedsgd", EPSILON)
    drowned = replace(run, noise={member: 200.0 * sigma for member, sigma in run.noise.items()})
    assert share_of_pooled(desks, drowned, 1) < 0.95


def test_a_seed_repeats_a_run_and_another_does_not(trial, desks) -> None:
    run = prepare(trial, "additive", "fedsgd", EPSILON)
    first = federated_aucs(desks, run, "a")
    assert first == federated_aucs(desks, run, "a")
    assert first != federated_aucs(desks, run, "b")


@pytest.mark.parametrize("mode", ["fedsgd", "fedavg"])
@pytest.mark.parametrize("descent", [None, 12])
def test_every_institution_stays_within_its_budget(trial, mode, descent) -> None:
    run = prepare(trial, "additive", mode, EPSILON, descent=descent)
    for party in trial.parties:
        event = SubsampledGaussian(
            noise_multiplier=run.noise[party.member],
            sampling_rate=run.training.sampling_rate,
            steps=run.training.steps,
        )
        assert 0.98 * EPSILON < epsilon_of([event], party.delta) <= EPSILON


def test_without_privacy_there_is_no_noise_and_more_rounds(trial) -> None:
    run = prepare(trial, "logistic", "fedsgd", None)
    assert set(run.noise.values()) == {0.0}
    assert run.training.rounds == plan_training(SIZES, None, 1, "fedsgd").rounds
    assert run.course.terms.tuning.noise < 1e-9


def test_length_and_stride_move_what_they_name(trial) -> None:
    rule = prepare(trial, "additive", "fedsgd", EPSILON)
    other = prepare(trial, "additive", "fedsgd", EPSILON, descent=12, stride=2.0)
    assert other.training.rounds == 12 + PROBES
    same_length = prepare(trial, "additive", "fedsgd", EPSILON, stride=2.0)
    assert same_length.course.terms.tuning.noise == pytest.approx(rule.course.terms.tuning.noise / 2.0)
    assert same_length.noise == rule.noise


def test_references_are_fitted_on_what_they_say(desks) -> None:
    one = desks[0]
    assert alone_aucs([one]) == pooled_aucs([one])
    assert len(alone_aucs(desks)) == len(pooled_aucs(desks)) == len(SIZES)
    assert all(0.7 < auc < 1.0 for auc in [*alone_aucs(desks), *pooled_aucs(desks)])


@given(st.integers(min_value=1, max_value=10_000_000))
def test_declared_sizes_have_two_digits_and_are_near(size: int) -> None:
    declared = two_digits(size)
    assert len(str(declared).rstrip("0")) <= 2
    assert abs(declared - size) <= 0.05 * size


@pytest.fixture
def report(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    return importlib.import_module("quality_report")


def result(report: ModuleType, additive: float, logistic: float):
    cells = tuple(
        report.Cell(model, "fedsgd", 1.0, 32, ((auc, auc), (auc - 0.2, auc - 0.2), (auc + 0.1, auc)))
        for model, auc in (("additive", additive), ("logistic", logistic))
    )
    references = tuple(report.References(model, (0.6, 0.7), (0.7, 0.7)) for model in ("additive", "logistic"))
    return report.SetResult("propensity", "a title", ("a", "b"), (100, 200), (90, 210), (20, 50), references, cells)


@pytest.mark.parametrize(
    ("additive", "logistic", "met"),
    [(0.70, 0.70, [True, True, True]), (0.68, 0.70, [False, True, False]), (0.75, 0.69, [True, False, True])],
)
def test_targets_are_judged_on_the_median_seed(report, additive, logistic, met) -> None:
    found = result(report, additive, logistic)
    assert [verdict.met for verdict in report.verdicts([found])] == met
    assert report.verdicts([replace(found, name="another")]) == []


def test_tables_show_what_was_run_and_who_gains(report) -> None:
    found = result(report, 0.7, 0.7)
    text = "\n".join([*report.table(found), *report.gains([found])])
    assert "| additive | fedsgd | 0.7000 | 0.7000 (0.5000 to 0.7500) = 1.000 x |" in text
    assert "fedavg" not in text
    assert "1 of 2 institutions gain" in text


def test_regret_is_the_distance_to_the_best_of_the_grid(report) -> None:
    grid = tuple((step, rounds, 0.70) for step in (0.5, 1.0, 2.0) for rounds in (15, 30, 60))
    inside = report.Regret("easy", 0.70, (*grid, (1.0, 30, 0.71), (0.5, 15, 0.69)))
    assert inside.best == (1.0, 30, 0.71)
    assert inside.worst == (0.5, 15, 0.69)
    row = "| easy | 0.7000 | 0.7100 (step x 1, 30 rounds) | 0.0100 | 0.6900 (step x 0.5, 15 rounds) |"
    assert row in report.regret_table([inside])
    assert report.Regret("easy", 0.70, (*grid, (2.0, 30, 0.72))).text == "at least 0.0200"
    assert report.Regret("easy", 0.71, (*grid, (1.0, 30, 0.70))).text.endswith("0.0000")
    assert report.regret_table([]) == []


def test_a_study_that_is_added_up_in_secret_is_measured_with_noise_of_its_own():
    draft = load_yaml(Path(__file__).parents[2] / "configs" / "studies" / "churn.yaml", StudyDraft)
    assert draft.aggregation == "secure"
    own = plain(draft)
    assert (own.aggregation, own.noise, own.n_min, own.c) == ("plain", "local", None, None)
