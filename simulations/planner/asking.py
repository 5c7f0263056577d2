"""What a plan is asked: the study by name or file, its epsilons, and that no institution's own table is read."""

import math
from pathlib import Path

from federation.document import load_yaml
from federation.errors import DocumentError, PolicyError
from simulations.engines.simulation import Alone, Pooled, Simulation, TableData

STUDIES = Path("configs/simulations")
GRID = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
_LARGEST = 100.0
_MOST = 60


def find_study(named: str, folder: Path = STUDIES) -> Simulation:
    """Return a study simulation by the path of its YAML file, or by its name in a folder.

    Raises
    ------
    DocumentError
        CSL-M255 when there is no such study; as `federation.document.load_yaml`.
    """
    path = Path(named)
    if not path.is_file():
        path = folder / f"{named}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in folder.glob("*.yaml"))) or "none"
        raise DocumentError(
            "CSL-M255",
            f'There is no study simulation "{named}".',
            f"Name a YAML file, or one of those in {folder}: {known}.",
        )
    return load_yaml(path, Simulation)


def check_study(study: Simulation, public: bool) -> None:
    """Refuse what cannot be planned: a study without a budget, and a table that nobody says is public.

    A planner that saw an institution's own customers would leak through the epsilon that it advises, whatever noise the study has.

    Raises
    ------
    DocumentError
        CSL-M253 when the study's algorithm has no budget.
    PolicyError
        CSL-M254 when it reads a table, unless `public`.
    """
    if isinstance(study.algorithm, Alone | Pooled):
        raise DocumentError(
            "CSL-M253",
            f"The study {study.name} is of kind {study.algorithm.kind}, which has no budget to plan.",
            "Name a federated algorithm in it; alone and pooled are run beside it as references.",
        )
    if isinstance(study.data, TableData) and not public:
        raise PolicyError(
            "CSL-M254",
            f"The study {study.name} reads the table {study.data.path}. A budget planned on private customers would tell of them.",
            "Plan on public or synthetic data; if the table is, say so by --public.",
        )


def parse_grid(text: str) -> tuple[float, ...]:
    """Read epsilons such as `0.1,0.5,2`; they come out rising, each once.

    Raises
    ------
    DocumentError
        CSL-M256 when they are no numbers above 0 and at most 100, or fewer than two, or more than 60.
    """
    parts = [part for part in text.replace(",", " ").split() if part]
    try:
        found = tuple(sorted({float(part) for part in parts}))
    except ValueError:
        found = ()
    fits = all(math.isfinite(value) and 0 < value <= _LARGEST for value in found)
    if not (2 <= len(found) <= _MOST and fits):
        raise DocumentError(
            "CSL-M256",
            f'"{text}" is no grid of epsilons: from 2 to {_MOST} numbers above 0 and at most {_LARGEST:g} are.',
            "Write them with commas, such as 0.1,0.5,2,10.",
        )
    return found
