"""What a sweep showed: utility against privacy, what dropouts cost, algorithms beside each other; with intervals over seeds.

All is read from a `reading.Results`: two frames, one row a cell and one row an institution and cell. Cells that failed or are missing stay
in the frames without figures, so that every count says how many seeds it should have had.
"""

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from federation.errors import DocumentError
from simulations.sweeps.estimates import Estimate, difference, mean
from simulations.sweeps.metrics import Metric
from simulations.sweeps.reading import ALONE, EPSILON, POOLED, POOLED_DP, Results

DROPOUT = "faults.dropout"
NO_NOISE = "no noise"
NOBODY = frozenset({ALONE, POOLED})
TRUSTED = "pooled, with the budget"
_GROUND = ("data", "partners", "model")


@dataclass(frozen=True)
class Point:
    """One group of settings, over its seeds.

    Attributes
    ----------
    group, ground:
        Digests: of the simulation and its engine, whatever the seed; of its data, partners and model.
    settings:
        What tells it from the others: path to text.
    epsilon:
        Everybody's epsilon; None without noise, or where it differs by institution.
    budget:
        The same in words: a number, several, or "no noise".
    value:
        The metric.
    to_alone, to_pooled:
        The metric less that of the reference, by seed; None where there is no such reference.
    troubled, finished:
        Runs in which rounds failed, among those finished; some of these may have left no model, and are no seeds of the value.
    """

    group: str
    ground: str
    settings: Mapping[str, str]
    epsilon: float | None
    budget: str
    value: Estimate
    to_alone: Estimate | None
    to_pooled: Estimate | None
    troubled: int = 0
    finished: int = 0


@dataclass(frozen=True)
class Line:
    """Points that differ in epsilon alone, rising; `alone` and `pooled` are the references' own figures."""

    title: str
    ground: str
    points: tuple[Point, ...]
    alone: Estimate | None
    pooled: Estimate | None

    @property
    def failures(self) -> int:
        """Runs of all its points in which rounds failed."""
        return sum(point.troubled for point in self.points)


@dataclass(frozen=True)
class Dropouts:
    """A metric by the chance that an institution misses a round; `costs` are differences to none, by seed.

    `troubled` and `finished` are as in `Point`, for each share.
    """

    title: str
    epsilon: float | None
    shares: tuple[float, ...]
    values: tuple[Estimate, ...]
    costs: tuple[Estimate | None, ...]
    troubled: tuple[int, ...]
    finished: tuple[int, ...]

    @property
    def failures(self) -> int:
        """Runs at all shares in which rounds failed."""
        return sum(self.troubled)


def frontier(results: Results, metric: Metric, by: str | None = None) -> list[Line]:
    """Return the metric against epsilon, one line for each of the other settings.

    Parameters
    ----------
    by:
        Path of the setting that lines are named by first. Settings that differ too still tell lines apart: nothing is averaged but seeds.

    Raises
    ------
    DocumentError
        CSL-M250 when no cell has a setting `by`.
    """
    cells, varied = results.own(), _order(results, by)
    lines = []
    names = [path for path in varied if path != EPSILON]
    for key, group in cells.groupby([*names, "ground"], sort=False):
        title = titled(dict(zip(names, _texts(key), strict=False)))
        points = [_point(results, part, metric, varied) for _, part in group.groupby("group", sort=False)]
        ground = str(group["ground"].iloc[0])
        lines.append(
            Line(
                title,
                ground,
                tuple(sorted(points, key=_rising)),
                _reference(results, ground, ALONE, metric),
                _reference(results, ground, POOLED, metric),
            )
        )
    return lines


def pooled_private(results: Results, metric: Metric) -> list[Line]:
    """Return the metric against epsilon of one party that everybody trusts, one line for each ground, named by what tells it apart."""
    cells = results.cells[results.cells["kind"] == POOLED_DP]
    names, found = grounds(results), []
    for ground, group in cells.groupby("ground", sort=False):
        points = [_point(results, part, metric, ()) for _, part in group.groupby("group", sort=False)]
        alone, pooled = (_reference(results, str(ground), kind, metric) for kind in (ALONE, POOLED))
        found.append(
            Line(on_ground(TRUSTED, names[str(ground)]), str(ground), tuple(sorted(points, key=_rising)), alone, pooled)
        )
    return found


def grounds(results: Results) -> dict[str, str]:
    """Return each ground's name by its digest: the settings of data, partners and model that differ; empty where none do."""
    paths = [path for path in results.varied() if path.partition(".")[0] in _GROUND]
    each = results.cells.drop_duplicates("ground").set_index("ground")
    texts = {str(ground): {path: str(row[path]) for path in paths} for ground, row in each.iterrows()}
    return {ground: titled(settings) if settings else "" for ground, settings in texts.items()}


def on_ground(name: str, ground: str) -> str:
    """Write what a reference is, and on which ground where there are several."""
    return f"{name}, {ground}" if ground else name


def cost_of_dropouts(results: Results, metric: Metric, by: str | None = None) -> list[Dropouts]:
    """Return the metric by the share of missed rounds, one for each of the other settings; empty where dropouts were not varied."""
    varied = _order(results, by)
    if DROPOUT not in varied:
        return []
    others = [path for path in varied if path != DROPOUT]
    found = []
    for key, cells in results.own().groupby([*others, "ground"], sort=False):
        parts = {float(part["dropout"].iloc[0]): part for _, part in cells.groupby("dropout")}
        if len(parts) < 2:
            continue
        title = titled(dict(zip(others, _texts(key), strict=False)))
        found.append(_dropouts(title, epsilon_of(cells), parts, metric))
    return found


def _dropouts(title: str, epsilon: float | None, parts: Mapping[float, pd.DataFrame], metric: Metric) -> Dropouts:
    base = parts.get(0.0)
    shares = tuple(sorted(parts))
    none = {} if base is None else by_seed(base, metric)
    costs = tuple(
        None if base is None or share == 0 else difference(by_seed(parts[share], metric), none, len(parts[share]))
        for share in shares
    )
    values = tuple(over_seeds(parts[share], metric) for share in shares)
    failed, done = (tuple(count(parts[share]) for share in shares) for count in (troubled, finished))
    return Dropouts(title, epsilon, shares, values, costs, failed, done)


@dataclass(frozen=True)
class Panel:
    """Algorithms under the same other settings, the best first; `alone` and `pooled` are the references on the same data."""

    title: str
    rows: tuple[tuple[str, Point], ...]
    alone: Estimate | None
    pooled: Estimate | None


def side_by_side(results: Results, metric: Metric) -> list[Panel]:
    """Return algorithms beside each other, one panel for each of the other settings; empty where the algorithm was not varied."""
    if "algorithm" not in results.varied():
        return []
    lines = frontier(results, metric)
    trusted = [point for line in pooled_private(results, metric) for point in line.points]
    parts: dict[str, list[tuple[str, Point]]] = {}
    for point in (point for line in lines for point in line.points):
        others = {path: text for path, text in point.settings.items() if path != "algorithm"}
        parts.setdefault(titled(others), []).append((point.settings["algorithm"], point))
    references = {line.ground: line for line in lines}
    panels = []
    for title, rows in parts.items():
        ground, budget = rows[0][1].ground, rows[0][1].budget
        rows += [(TRUSTED, p) for p in trusted if p.ground == ground and p.budget == budget]
        ordered = tuple(
            sorted(rows, key=lambda row: -metric.sign * row[1].value.value if row[1].value.have else math.inf)
        )
        panels.append(Panel(title, ordered, references[ground].alone, references[ground].pooled))
    return panels


def middle(lines: Sequence[Line], near: float = 1.0) -> list[Point]:
    """Return one point of each line: whose epsilon is nearest to `near` by its logarithm; then several budgets; no noise last."""

    def far(point: Point) -> tuple[bool, float]:
        return point.budget == NO_NOISE, distance(point.epsilon, near)

    return [min(line.points, key=far) for line in lines if line.points]


def distance(epsilon: float | None, near: float = 1.0) -> float:
    """Return how far an epsilon is from another by its logarithm; infinite without noise, and for several."""
    return math.inf if epsilon is None else abs(math.log(epsilon / near))


def _order(results: Results, by: str | None) -> tuple[str, ...]:
    varied = results.varied()
    if by is None:
        return varied
    if by not in results.settings:
        known = ", ".join(results.settings) or "none"
        raise DocumentError("CSL-M250", f'No cell has a setting "{by}".', f"Name one of these by --by: {known}.")
    return (by, *(path for path in varied if path != by))


def _texts(key: Hashable) -> tuple[str, ...]:
    return tuple(str(part) for part in key) if isinstance(key, tuple) else (str(key),)


def titled(settings: Mapping[str, str]) -> str:
    """Write settings in a line, or "federated" where none differ."""
    return ", ".join(_worded(path, text) for path, text in settings.items()) or "federated"


def _worded(path: str, text: str) -> str:
    """Write a setting shortly: the last word of its path, unless the text speaks for itself."""
    if path in ("algorithm", "engine", "data"):
        return text
    if path == EPSILON and text == "none":
        return NO_NOISE
    words = {EPSILON: "ε", "partners.count": "partners", DROPOUT: "dropout"}
    known = words.get(path, path.rsplit(".", 1)[-1].replace("_", " "))
    return f"{text} {known}" if path == "partners.count" else f"{known} {text}"


def _rising(point: Point) -> tuple[bool, float, str]:
    """Order by epsilon, then several budgets, then no noise."""
    return point.budget == NO_NOISE, math.inf if point.epsilon is None else point.epsilon, point.budget


def epsilon_of(cells: pd.DataFrame) -> float | None:
    """Return everybody's epsilon in cells of one group of settings; None without noise, or where it differs by institution."""
    value = float(cells["epsilon"].iloc[0])
    return None if math.isnan(value) else value


def _budget(cells: pd.DataFrame) -> str:
    text = str(cells[EPSILON].iloc[0])
    return NO_NOISE if text == "none" else text


def values_by_seed(rows: pd.DataFrame, column: str) -> dict[int, float]:
    """Return what a column holds in rows whose index is the seed, but for seeds without a figure."""
    values = zip(rows.index.tolist(), rows[column].tolist(), strict=True)
    return {int(seed): float(value) for seed, value in values if not pd.isna(value)}


def by_seed(cells: pd.DataFrame, metric: Metric) -> dict[int, float]:
    """Return the metric by seed; a seed that is there from several engines counts once, as the first."""
    finished = cells[cells["done"]].drop_duplicates("seed").set_index("seed")
    return values_by_seed(finished, metric.column)


def over_seeds(cells: pd.DataFrame, metric: Metric) -> Estimate:
    """Return the metric's mean over the seeds of cells, of as many as were asked for."""
    return mean(by_seed(cells, metric).values(), cells["seed"].nunique(), within=(metric.low, metric.high))


def references(results: Results, ground: str, kind: str) -> pd.DataFrame:
    """Return the cells of one kind of reference (alone, pooled) on the same data, partners and model."""
    return results.cells[(results.cells["ground"] == ground) & (results.cells["kind"] == kind)]


def _reference(results: Results, ground: str, kind: str, metric: Metric) -> Estimate | None:
    cells = references(results, ground, kind)
    return None if cells.empty else over_seeds(cells, metric)


def _point(results: Results, cells: pd.DataFrame, metric: Metric, varied: Sequence[str]) -> Point:
    ground, mine = str(cells["ground"].iloc[0]), by_seed(cells, metric)
    of = cells["seed"].nunique()

    def to(kind: str) -> Estimate | None:
        reference = references(results, ground, kind)
        return None if reference.empty else difference(mine, by_seed(reference, metric), of)

    settings = {path: str(cells[path].iloc[0]) for path in varied}
    return Point(
        str(cells["group"].iloc[0]),
        ground,
        settings,
        epsilon_of(cells),
        _budget(cells),
        over_seeds(cells, metric),
        to(ALONE),
        to(POOLED),
        troubled(cells),
        finished(cells),
    )


def finished(cells: pd.DataFrame) -> int:
    """Return how many cells finished, with a model or without."""
    return int(cells["done"].sum())


def troubled(cells: pd.DataFrame) -> int:
    """Return how many cells finished although rounds failed in them."""
    return int((cells["rounds_failed"] > 0).sum()) if "rounds_failed" in cells else 0
