"""A whole simulation from its description to its figures, on a small table, by the engine that researchers use."""

import math

import numpy as np
import pandas as pd
import pytest

from federation.errors import DocumentError
from simulations import analysis
from simulations.engines.drive import Trail
from simulations.engines.judging import log_loss
from simulations.engines.registry import NAMES, engine_of
from simulations.engines.run import run
from simulations.engines.simulation import (
    Alone,
    Dealt,
    Faults,
    FedAvg,
    FedSGD,
    LabelSkew,
    Partners,
    Personal,
    Poisoners,
    Pooled,
    PooledDP,
    PopulationData,
    Privacy,
    Scaffold,
    Simulation,
    TableData,
)
from simulations.engines.vectorized import Vectorized
from tests.simulations.engines.problems import ADDITIVE, CONTRACT, MLP, rows


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """3,000 customers whose label follows from two columns."""
    folder, draw, n = tmp_path_factory.mktemp("table"), np.random.default_rng(2), 3_000
    first, second, third = draw.standard_normal((3, n)).clip(-3.0, 3.0)
    area = draw.choice(["north", "south", "west"], n)
    logit = 1.4 * first - 1.2 * np.abs(second) + 0.8 * (area == "south")
    frame = pd.DataFrame(
        {
            "first": first,
            "second": second,
            "third": third,
            "area": area,
            "member": (draw.random(n) < 0.5).astype(int),
            "bought": (draw.random(n) < 1.0 / (1.0 + np.exp(-logit))).astype(int),
        }
    )
    frame.to_parquet(folder / "customers.parquet")
    (folder / "contract.yaml").write_text(CONTRACT.model_dump_json())
    return TableData(kind="table", path=str(folder / "customers.parquet"), contract=str(folder / "contract.yaml"))


def simulated(table, algorithm, seed=1, **changes):
    partners = Partners(by=Dealt(kind="dealt"), count=5)
    told = {"data": table, "partners": partners, "algorithm": algorithm, **changes}
    return run(Simulation(name="run").model_copy(update=told), seed, Vectorized())


def test_a_result_says_by_what_from_which_seed_and_for_whom(table):
    result = simulated(table, FedSGD(), privacy=Privacy(epsilon=(1.0, 4.0)), faults=Faults(dropout=0.2))
    assert (result.engine, result.seed, len(result.institutions)) == ("vectorized", 1, 5)
    assert [row["epsilon"] for row in result.institutions] == [1.0, 4.0, 1.0, 4.0, 1.0]
    assert result.overall["epsilon_max"] == 4.0
    assert result.overall["rounds"] == 32.0
    missed = sum(int(str(row["missed"])) for row in result.institutions)
    assert result.overall["client_steps"] == 5 * 32 - missed and missed > 10
    assert 0.7 < result.overall["auc"] < 1.0
    assert len({row["name"] for row in result.institutions}) == 5
    assert sum(float(str(row["heldout"])) for row in result.institutions) == result.overall["heldout"]


def test_a_seed_repeats_every_figure_but_time(table):
    def figures(seed):
        overall = dict(simulated(table, FedSGD(), seed).overall)
        return {name: value for name, value in overall.items() if "seconds" not in name}

    assert figures(3) == figures(3)
    assert figures(3)["auc"] != figures(4)["auc"]


def test_baselines_stand_in_the_order_that_they_should(table):
    strict = Privacy(epsilon=0.5)
    found = {
        algorithm.kind: simulated(table, algorithm, privacy=strict).overall
        for algorithm in (FedSGD(), Alone(kind="alone"), Pooled(kind="pooled"), PooledDP(kind="pooled_dp"))
    }
    aucs = {kind: overall["auc_mean"] for kind, overall in found.items()}
    assert aucs["fedsgd"] < aucs["pooled_dp"] < aucs["pooled"] + 0.01
    assert aucs["alone"] < aucs["pooled"]
    for kind in ("alone", "pooled"):
        assert math.isnan(found[kind]["epsilon_max"]) and found[kind]["rounds"] == 0.0
    assert found["pooled_dp"]["epsilon_max"] == 0.5


@pytest.mark.parametrize("algorithm", [Alone(kind="alone"), Pooled(kind="pooled")], ids=["alone", "pooled"])
def test_networks_have_baselines_too(table, algorithm):
    assert simulated(table, algorithm, model=MLP).overall["auc"] > 0.7


@pytest.mark.parametrize("algorithm", [FedAvg(kind="fedavg", server="average"), Scaffold(kind="scaffold")])
def test_networks_learn_by_local_steps(table, algorithm):
    result = simulated(table, algorithm, model=MLP, rounds=60, privacy=Privacy(epsilon=None))
    assert result.overall["auc"] > 0.7


def test_personal_heads_judge_every_institution_by_its_own_model(table):
    partners = Partners(by=LabelSkew(kind="labels", alpha=0.3), count=5)
    common = simulated(table, FedSGD(), model=MLP, partners=partners, rounds=30)
    own = simulated(table, FedSGD(), model=MLP, partners=partners, rounds=30, personal=Personal(part="head", steps=100))
    assert own.overall["log_loss"] < common.overall["log_loss"]


def test_swapped_labels_do_harm_and_the_liars_are_named(table):
    lies = Faults(poisoners=Poisoners(count=2, attack="labels"))
    result = simulated(table, FedSGD(), faults=lies, privacy=Privacy(epsilon=None))
    assert result.overall["auc"] < simulated(table, FedSGD(), privacy=Privacy(epsilon=None)).overall["auc"]
    assert sum(row["poisoner"] is True for row in result.institutions) == 2


def test_one_class_alone_is_said_and_does_not_stop_anybody(table):
    partners = Partners(by=LabelSkew(kind="labels", alpha=0.02), count=4, smallest=10)
    result = simulated(table, Alone(kind="alone"), partners=partners)
    assert any("one class only" in said for said in result.warnings)
    assert math.isfinite(result.overall["auc"])


def test_nobody_honest_is_refused(table):
    with pytest.raises(DocumentError) as caught:
        simulated(table, FedSGD(), faults=Faults(poisoners=Poisoners(count=5)))
    assert caught.value.code == "CSL-M261"


def test_failed_rounds_are_said(table):
    partners = Partners(by=Dealt(kind="dealt"), count=6)
    result = simulated(table, FedSGD(noise="shared"), partners=partners, faults=Faults(dropout=0.5))
    assert result.overall["rounds_failed"] > 0
    assert any("failed for want of answers" in said for said in result.warnings)


def test_engines_go_by_their_names():
    assert engine_of("vectorized").name == "vectorized"
    assert engine_of("local").name == "local"
    assert {"vectorized", "local", "ray", "ray:cluster"} <= set(NAMES)
    with pytest.raises(DocumentError, match="vectorized") as caught:
        engine_of("fast")
    assert caught.value.code == "CSL-M262"


def test_one_place_reports_everybodys_own_epsilon(table):
    result = simulated(table, PooledDP(kind="pooled_dp"), privacy=Privacy(epsilon=(0.5, 4.0)))
    strict = simulated(table, PooledDP(kind="pooled_dp"), privacy=Privacy(epsilon=0.5))
    assert [row["epsilon"] for row in result.institutions] == [0.5, 4.0, 0.5, 4.0, 0.5]
    assert result.overall["rounds"] == result.overall["client_steps"] == 32.0
    assert result.overall["auc"] != strict.overall["auc"]


@pytest.mark.parametrize("personal", [None, Personal(steps=5)])
def test_no_descent_round_is_no_model_and_is_said(table, personal):
    late = Faults(stragglers=0.1, deadline=1e-3)
    result = simulated(table, FedSGD(), faults=late, personal=personal)
    assert all(math.isnan(result.overall[name]) for name in ("auc", "lift", "log_loss", "auc_mean"))
    assert all(math.isnan(float(str(row["auc"]))) for row in result.institutions)
    assert any("there is no model" in said for said in result.warnings)
    assert not any("one class" in said for said in result.warnings)
    assert result.overall["client_steps"] == 5 * 32


@pytest.mark.parametrize(
    ("algorithm", "changes", "said"),
    [
        (Alone(kind="alone"), {"rounds": 9, "personal": Personal()}, "alone does not read personal, rounds:"),
        (Pooled(kind="pooled"), {"clip": 1.0, "faults": Faults(dropout=0.1)}, "pooled does not read faults, clip:"),
        (PooledDP(kind="pooled_dp"), {"personal": Personal()}, "pooled_dp does not read personal:"),
        (PooledDP(kind="pooled_dp"), {"rounds": 12}, "12 rounds are fewer than half of the 32"),
        (FedAvg(kind="fedavg", server="fedadam"), {"rounds": 29}, "29 rounds are fewer than half of the 60"),
    ],
)
def test_settings_that_do_nothing_or_too_little_are_said(table, algorithm, changes, said):
    assert sum(said in warning for warning in simulated(table, algorithm, **changes).warnings) == 1


@pytest.mark.parametrize(
    ("algorithm", "changes"),
    [
        (Alone(kind="alone"), {}),
        (PooledDP(kind="pooled_dp"), {"rounds": 20, "clip": 1.0}),
        (FedAvg(kind="fedavg", server="fedadam"), {"rounds": 30}),
    ],
)
def test_settings_that_do_something_are_not_warned_of(table, algorithm, changes):
    assert simulated(table, algorithm, **changes).warnings == ()


def _noisy(size, seed):
    """Rows of a small institution, with three labels in ten swapped."""
    given = rows(ADDITIVE, (size,), seed)
    labels = given.labels.numpy().astype(np.float64)
    return given.dense.numpy(), np.where(np.random.default_rng(seed).random(size) < 0.3, 1.0 - labels, labels)


def test_a_chosen_penalty_is_better_than_a_fixed_one_on_noisy_rows():
    held, labels = _noisy(6_000, 99)

    def loss(x, y, strength):
        return log_loss(labels, analysis.logits(analysis.fit_rows(x, y, strength), held))

    gains = []
    for seed in range(10):
        x, y = _noisy(100, seed + 10)
        chosen = analysis.choose_strength(x, y, np.random.default_rng(seed))
        gains.append(loss(x, y, 1.0) - loss(x, y, chosen))
    assert np.mean(gains) > 0.0 and min(gains) > -0.03


def test_a_penalty_is_the_strongest_where_nothing_can_be_chosen_and_weak_where_much_is_known():
    x, y = _noisy(30, 1)
    few = np.zeros(30)
    few[3] = 1.0
    assert analysis.choose_strength(x, few, np.random.default_rng(1)) == 0.01
    given = rows(ADDITIVE, (6_000,), 3)
    many = given.labels.numpy().astype(np.float64)
    assert analysis.choose_strength(given.dense.numpy(), many, np.random.default_rng(1)) > 0.01


def test_networks_stop_before_they_learn_noise_by_heart(table):
    """Against three hundred steps for all, as the longest on offer, on the same rows."""
    partners = Partners(by=Dealt(kind="dealt"), count=20)
    chosen = simulated(table, Alone(kind="alone"), model=MLP, partners=partners).overall
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("simulations.engines.run._REFERENCE_STEPS", (300,))
        longest = simulated(table, Alone(kind="alone"), model=MLP, partners=partners).overall
    assert chosen["log_loss"] < longest["log_loss"]
    assert chosen["auc_mean"] > longest["auc_mean"] - 0.01


def test_people_at_several_institutions_are_said_to_spend_more_than_once():
    data = PopulationData(kind="population", customers=3_000, institutions=4, overlap=0.4)
    simulation = Simulation(name="twice", data=data)
    assert any("customers of several institutions" in said for said in run(simulation, 1, Vectorized()).warnings)
    apart = simulation.model_copy(update={"data": data.model_copy(update={"overlap": 0.0})})
    assert not any("several institutions" in said for said in run(apart, 1, Vectorized()).warnings)
    noiseless = simulation.model_copy(update={"algorithm": Pooled(kind="pooled")})
    assert not any("several institutions" in said for said in run(noiseless, 1, Vectorized()).warnings)


def test_the_largest_budget_is_that_of_somebody_who_takes_part(table):
    result = simulated(table, FedSGD(), privacy=Privacy(epsilon=(0.5, 1.0, 2.0, 3.0, 4.0, 9.0)))
    assert result.overall["epsilon_max"] == max(cell["epsilon"] for cell in result.institutions) == 4.0


def test_a_study_that_diverges_says_so(table, monkeypatch):
    def diverged(engine, job, *_rest):
        return Trail(np.full(job.layout.width, np.inf), None, failed=0, learned=1, steps=1)

    monkeypatch.setattr("simulations.engines.run.drive", diverged)
    result = simulated(table, FedSGD())
    assert math.isnan(result.overall["auc_mean"]) and math.isnan(result.overall["lift_mean"])
    assert any("diverged" in said for said in result.warnings)


def test_a_recipe_that_has_next_to_no_descent_left_says_so(table):
    assert any("too few" in said for said in simulated(table, FedAvg(kind="fedavg", steps=50)).warnings)
    assert not any("too few" in said for said in simulated(table, FedAvg(kind="fedavg")).warnings)


@pytest.mark.parametrize(
    ("changes", "cause"),
    [
        ({"sampling_rate": 1e-4}, "less than one customer"),
        ({"clip": 2e-6, "privacy": Privacy(epsilon=(0.2, 8.0)), "algorithm": FedSGD(noise="shared")}, "least clip"),
    ],
)
def test_settings_that_no_accounting_covers_are_refused_before_they_are_priced(table, changes, cause):
    algorithm = changes.get("algorithm", FedSGD())
    with pytest.raises(DocumentError, match=f"CSL-M260.*{cause}"):
        simulated(table, **{"algorithm": algorithm, **changes})


def test_steps_that_pull_beyond_where_they_began_are_refused():
    with pytest.raises(ValueError, match="below 2"):
        FedAvg(kind="fedavg", server="average", proximal=4.0, rate=0.5)
    with pytest.raises(ValueError, match="clip"):
        Simulation(name="small", clip=1e-7)


@pytest.mark.parametrize("proximal", [5.0, 100.0, 1000.0])
def test_a_strong_pull_holds_back_and_never_throws(table, proximal):
    """Its own step stays stable whatever the pull is."""
    for kind in ("average", "fedavgm"):
        result = simulated(
            table, FedAvg(kind="fedavg", server=kind, steps=10, proximal=proximal), privacy=Privacy(epsilon=None)
        )
        assert result.overall["auc_mean"] > 0.6 and result.overall["log_loss"] < 0.75
