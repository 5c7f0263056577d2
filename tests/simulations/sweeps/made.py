"""Results with known truths: what a sweep would give if utility followed a known curve of epsilon, the partners and the dropouts."""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from simulations.engines.simulation import PopulationData, Simulation
from simulations.sweeps.document import Sweep, cells
from simulations.sweeps.reading import Results, Row, gather

INSTITUTIONS = 12
_NAMES = tuple(f"house_{place:02d}" for place in range(INSTITUTIONS))
_BY_KIND = {"fedsgd": 0.0, "fedavg": -0.012, "scaffold": -0.02, "pooled_dp": 0.02}


@dataclass(frozen=True)
class Found:
    engine: str
    seed: int
    overall: dict[str, float]
    institutions: tuple[dict[str, object], ...]
    warnings: tuple[str, ...] = ()


def truth(simulation: Simulation) -> float:
    """The AUC that these results have on average."""
    kind, epsilon = simulation.algorithm.kind, simulation.privacy.epsilon
    partners = simulation.partners.count or 8
    if kind == "pooled":
        return 0.80
    if kind == "alone":
        return 0.70 - 0.01 * math.log2(partners / 8)
    if epsilon is None:
        return 0.795 + _BY_KIND[kind]
    epsilon = epsilon if isinstance(epsilon, float) else sum(epsilon) / len(epsilon)
    private = 0.79 - 0.08 / (1 + epsilon * partners / 8) + _BY_KIND[kind]
    return private - 0.05 * simulation.faults.dropout


def found(simulation: Simulation, seed: int, engine: str = "vectorized", spread: float = 0.004) -> Found:
    """One cell: a part of the chance is the seed's, whatever the settings."""
    shared = np.random.default_rng([seed, 1]).normal()
    path = [seed, len(simulation.algorithm.kind), int(1000 * float(truth(simulation)))]
    own = np.random.default_rng(path)
    auc = truth(simulation) + spread * (0.9 * shared + 0.45 * own.normal())
    rows = []
    for place, name in enumerate(_NAMES):
        gain = 0.0 if simulation.algorithm.kind == "alone" else 0.09 - 0.012 * place
        base = 0.7 + 0.004 * place
        rows.append(
            {
                "name": name,
                "declared": 500 * (1 + place % 5),
                "epsilon": None,
                "auc": base + gain + 0.01 * own.normal(),
                "lift": 2.0 + 8 * gain + 0.2 * own.normal(),
                "poisoner": False,
            }
        )
    overall = {
        "auc": auc,
        "lift": 1.0 + 5 * (auc - 0.5),
        "lift_mean": 1.0 + 5 * (auc - 0.5),
        "log_loss": 1.0 - auc,
        "auc_mean": auc,
        "auc_worst": auc - 0.1,
        "seconds": 1.0,
    }
    return Found(engine, seed, overall, tuple(rows))


def run(simulation: Simulation, seed: int, engine: str, cache: Path | None) -> Found:
    return found(simulation, seed, engine)


def results(sweep: Sweep, lost: Callable[[Simulation, int], bool] = lambda simulation, seed: False) -> Results:
    """The results of a sweep without files; `lost` tells which cells are missing."""
    rows = []
    for cell in cells(sweep):
        one = found(cell.simulation, cell.seed, cell.engine)
        gone = lost(cell.simulation, cell.seed)
        parts = (None, None) if gone else (one.overall, one.institutions)
        rows.append(Row(cell.digest, cell.simulation, cell.seed, cell.engine, *parts))
    return gather(sweep.name, sweep.title, rows, sweep.varied(), "consilience simulate sweep x.yaml --out x")


def study(**changes: object) -> Simulation:
    return Simulation(name="made", data=PopulationData(kind="population")).model_copy(update=changes)


def sweep(over: dict[str, list[object]], seeds: int = 5, **others: object) -> Sweep:
    tree = {"name": "made", "title": "Results made for tests", "study": study().model_dump(mode="json")}
    return Sweep.model_validate_json(json.dumps({**tree, "over": over, "seeds": seeds, **others}))
