"""Small sweeps, and a simulation that is made up and quick."""

from dataclasses import dataclass
from pathlib import Path

from federation.document import parse_yaml
from federation.errors import DataError
from simulations.engines.simulation import Simulation
from simulations.sweeps.document import Sweep

DIES, REFUSES, FAULTY, LEAVES, HANGS = 13.0, 14.0, 15.0, 16.0, 17.0
"""Clips at which the made-up simulation kills its process, raises an error for a person or any other error, ends its process, hangs."""

SMALL = """
name: small
study: {name: study, data: {kind: population}}
over:
  privacy.epsilon: [0.5, 1.0, 2.0]
  partners.count: [2, 3]
seeds: 2
references: false
"""


@dataclass(frozen=True)
class MadeUp:
    engine: str
    seed: int
    overall: dict[str, float]
    institutions: tuple[dict[str, object], ...]
    warnings: tuple[str, ...] = ()


def parse(text: str) -> Sweep:
    return parse_yaml(text.encode(), Sweep, "sweep.yaml")


def made_up(simulation: Simulation, seed: int, engine: str, cache: Path | None) -> MadeUp:
    """Figures that follow from the settings: nothing is simulated."""
    if simulation.clip == REFUSES:
        raise DataError("CSL-M221", "Too few customers.", "Take fewer partners.")
    if simulation.clip == FAULTY:
        raise RuntimeError("made-up fault")
    count = simulation.partners.count or 2
    epsilon = simulation.privacy.epsilon
    budget = epsilon if isinstance(epsilon, float) else 100.0
    places = tuple(
        {
            "name": f"bank_{place}",
            "declared": 100 * place,
            "epsilon": epsilon,
            "missed": 0,
            "poisoner": place == 1,
            "auc": float("nan") if place == count else 0.5 + place / 100,
            "lift": 2.0,
        }
        for place in range(1, count + 1)
    )
    overall = {
        "auc": 0.7,
        "auc_mean": 1 - 0.3 / (1 + budget) + seed / 1000,
        "auc_worst": 0.5,
        "lift": 2.0,
        "epsilon_max": float("nan"),
    }
    return MadeUp(f"{engine} (made up)", seed, overall, places, ("made up",))
