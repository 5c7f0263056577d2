"""A results folder as comparisons read it: every cell that was asked for, finished or not, with its settings as text."""

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pandas as pd

from federation.document import Document
from federation.encoding import digest
from federation.errors import StorageError
from simulations.engines.simulation import Simulation
from simulations.sweeps.document import cells, load_sweep
from simulations.sweeps.store import SWEEP, Store, Stored

ALONE, POOLED, POOLED_DP = "alone", "pooled", "pooled_dp"
REFERENCES = (ALONE, POOLED, POOLED_DP)
EPSILON = "privacy.epsilon"
_GROUND = ("data", "partners", "model")
_NOT_SAID = ("name", "title")


@dataclass(frozen=True)
class Row:
    """One cell: what was asked for, and what came of it.

    Attributes
    ----------
    overall, institutions:
        Figures; both None where the cell failed or was not run yet.
    warnings:
        What the run said of itself.
    """

    digest: str
    simulation: Simulation
    seed: int
    engine: str
    overall: Mapping[str, float] | None
    institutions: Sequence[Mapping[str, object]] | None
    warnings: Sequence[str] = ()


@dataclass(frozen=True, eq=False)
class Results:
    """A sweep's results.

    Attributes
    ----------
    name, title:
        Of the sweep.
    cells:
        One row a cell: `digest`, `seed`, `engine`, `done`; `simulation`, `ground` (data, partners and model) and `group` (simulation and
        engine) as digests; `kind` of its algorithm, `reference` whether it is one; `epsilon` and `dropout` as numbers (NaN for none, or
        for several); one column of text for each of `settings`; and every overall figure.
    institutions:
        One row an institution and finished cell: `digest`, `name`, `declared`, and its figures.
    settings:
        Paths of the settings that the sweep varies.
    repeat:
        The command that makes these results again.
    warnings:
        What runs said of themselves, each once, with the number of cells that said it.
    folder:
        Where they were read from; None where they were not.
    """

    name: str
    title: str
    cells: pd.DataFrame
    institutions: pd.DataFrame
    settings: tuple[str, ...]
    repeat: str
    warnings: Mapping[str, int] = field(default_factory=dict)
    folder: Path | None = None

    def own(self) -> pd.DataFrame:
        """Return the cells that are no references; where there are none else, all."""
        found = self.cells[~self.cells["reference"]]
        return self.cells if found.empty else found

    def varied(self) -> tuple[str, ...]:
        """Return the settings in which cells that are no references differ, the engine too where there are several."""
        cells = self.own()
        found = tuple(path for path in self.settings if cells[path].nunique() > 1)
        return (*found, "engine") if cells["engine"].nunique() > 1 else found

    def finished(self) -> tuple[int, int]:
        """Return how many cells are finished, and how many were asked for."""
        return int(self.cells["done"].sum()), len(self.cells)


def read(folder: Path) -> Results:
    """Read a results folder: the cells that its sweep asks for, finished or not. Cells of earlier sweeps in the folder are left out.

    Raises
    ------
    StorageError
        CSL-M251 when the folder holds no sweep.
    IntegrityError
        CSL-M237 when a cell's file is damaged.
    DocumentError, DataError
        As `simulations.sweeps.document`.
    """
    if not (folder / SWEEP).is_file():
        raise StorageError(
            "CSL-M251",
            f"{folder} holds no sweep's results.",
            "Name the folder that `consilience simulate sweep` wrote to.",
        )
    sweep, store = load_sweep(folder / SWEEP), Store(folder)
    present = set(store.present())
    rows = []
    for cell in cells(sweep):
        found = _read(store.read(cell.digest)) if cell.digest in present else (None, None, ())
        rows.append(Row(cell.digest, cell.simulation, cell.seed, cell.engine, *found))
    repeat = f"consilience simulate sweep {folder / SWEEP} --out {folder}"
    return replace(gather(sweep.name, sweep.title, rows, sweep.varied(), repeat), folder=folder)


def _read(stored: Stored) -> tuple[dict[str, float], list[dict[str, object]], tuple[str, ...]]:
    """Return a cell's figures, those over everybody and those of each institution, and its warnings."""
    rows = stored.table.to_pylist()
    overall = next(row for row in rows if row["row"] == "overall")
    figures = {name: _number(overall[name]) for name in stored.overall}
    places = [
        {"name" if name == "institution" else name: row[name] for name in stored.institutions}
        for row in rows
        if row["row"] == "institution"
    ]
    return figures, places, tuple(json.loads(stored.value("warnings")))


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else math.nan


def gather(name: str, title: str, rows: Iterable[Row], settings: Sequence[str], repeat: str) -> Results:
    """Lay out cells as frames.

    Parameters
    ----------
    settings:
        Paths such as `partners.count`; the algorithm and the budget are always among them.
    """
    paths = tuple(dict.fromkeys((*settings, "algorithm", EPSILON)))
    paths = tuple(path for path in paths if not path.startswith("algorithm."))
    kept = list(rows)
    cells = pd.DataFrame([_cell(row, paths) for row in kept])
    places = [
        {"digest": row.digest, **dict(place)}
        for row in kept
        if row.institutions is not None
        for place in row.institutions
    ]
    institutions = pd.DataFrame(places) if places else pd.DataFrame(columns=["digest", "name", "declared"])
    said = Counter(line for row in kept for line in dict.fromkeys(row.warnings))
    return Results(name, title, cells, institutions, paths, repeat, said)


def _cell(row: Row, paths: Sequence[str]) -> dict[str, object]:
    tree = row.simulation.model_dump(mode="json", exclude=set(_NOT_SAID))
    kind, epsilon = row.simulation.algorithm.kind, row.simulation.privacy.epsilon
    return {
        "digest": row.digest,
        "seed": row.seed,
        "engine": row.engine,
        "done": row.overall is not None,
        "simulation": digest(tree),
        "ground": digest({part: tree[part] for part in _GROUND}),
        "group": digest([tree, row.engine]),
        "kind": kind,
        "reference": kind in REFERENCES,
        "epsilon": epsilon if isinstance(epsilon, float) else math.nan,
        "dropout": row.simulation.faults.dropout,
        **{path: _text(_at(row.simulation, path)) for path in paths},
        **(row.overall or {}),
    }


def _at(simulation: Simulation, path: str) -> object:
    """Return a setting; None where this simulation has no such part."""
    found: object = simulation
    for part in path.split("."):
        found = getattr(found, part, None)
    return found


def _text(value: object) -> str:
    """Write a setting as people read it: a document by its kind and what differs from its defaults."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        short = f"{value:g}"
        return short if float(short) == value else repr(value)  # settings that differ never read the same
    if isinstance(value, Document):
        tree = value.model_dump(mode="json", exclude_defaults=True)
        head = str(getattr(value, "kind", "")) or type(value).__name__.lower()
        others = [f"{key} {_text(part)}" for key, part in tree.items() if key != "kind"]
        return ", ".join([head, *others])
    if isinstance(value, list | tuple):
        return " / ".join(_text(part) for part in value)
    return value if isinstance(value, str) else json.dumps(value)
