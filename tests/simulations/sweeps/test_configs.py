"""The example files are what they say."""

from pathlib import Path

import pytest

from federation.document import load_yaml
from simulations.engines.simulation import Simulation
from simulations.sweeps.document import Sweep, cells, load_sweep
from simulations.sweeps.outcome import Outcome, measure
from simulations.sweeps.running import run_sweep

CONFIGS = Path(__file__).parents[3] / "configs" / "simulations"


def kinds(sweep: Sweep) -> dict[str, int]:
    found = [cell.simulation.algorithm.kind for cell in cells(sweep)]
    return {kind: found.count(kind) for kind in sorted(set(found))}


def test_the_frontier_is_twenty_settings_and_five_seeds():
    assert kinds(load_sweep(CONFIGS / "frontier.yaml")) == {"fedsgd": 100, "alone": 20, "pooled": 20, "pooled_dp": 100}


def test_every_algorithm_is_in_the_comparison():
    found = kinds(load_sweep(CONFIGS / "algorithms.yaml"))
    assert found == {"alone": 3, "fedavg": 30, "fedsgd": 21, "pooled": 3, "pooled_dp": 3, "scaffold": 6}


def test_dropouts():
    assert kinds(load_sweep(CONFIGS / "dropouts.yaml")) == {"alone": 5, "fedsgd": 50, "pooled": 5}


def test_one_study_is_a_simulation():
    assert load_yaml(CONFIGS / "propensity.yaml", Simulation).data.kind == "public"


def test_the_small_sweep_runs_and_says_the_same_twice(tmp_path):
    sweep = load_sweep(CONFIGS / "small.yaml")
    cell = cells(sweep)[0]
    first, second = (Outcome.of(measure(cell.simulation, cell.seed, cell.engine, None)) for _ in range(2))
    timed = {"seconds", "prepare_seconds"}
    assert {k: v for k, v in first.overall.items() if k not in timed} == {
        k: v for k, v in second.overall.items() if k not in timed
    }
    assert first.institutions == second.institutions and 0.5 < first.overall["auc"] < 1


@pytest.mark.e2e
def test_the_small_sweep_runs_in_processes(tmp_path):
    summary = run_sweep(load_sweep(CONFIGS / "small.yaml"), tmp_path, workers=2)
    assert (summary.computed, summary.failed) == (15, [])
