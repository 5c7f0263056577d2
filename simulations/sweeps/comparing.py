"""What a sweep showed: utility against privacy, who gains by federating, what dropouts cost; each with its interval over seeds.

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
class Gain:
    """What one institution gains by federating, over training alone without noise.

    Attributes
    ----------
    gain:
        Federated less alone, by seed, so turned that above zero is better.
    federated, alone:
        The two figures.
    declared:
        Its declared size, the median over seeds.
    poisoner:
        It lied in these runs.
    """

    name: str
    declared: int
    gain: Estimate
    federated: Estimate
    alone: Estimate
    poisoner: bool


@dataclass(frozen=True)
class Gains:
    """Every institution's gain under one group of settings, the largest first."""

    title: str
    group: str
    epsilon: float | None
    rows: tuple[Gain, ...]

    @property
    def judged(self) -> tuple[Gain, ...]:
        """The rows that have a gain in some seed: who holds out one class only has none."""
        return tuple(row for row in self.rows if row.gain.have)

    def counted(self) -> tuple[int, int, int]:
        """Return how many of the judged gain, how many lose, and of how many neither can be said: by their intervals."""
        signs = [row.gain.certain for row in self.judged]
        return signs.count(1), signs.count(-1), signs.count(0)


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
        title = ", ".join(filter(None, (TRUSTED, names[str(ground)])))
        found.append(Line(title, str(ground), tuple(sorted(points, key=_rising)), alone, pooled))
    return found


def grounds(results: Results) -> dict[str, str]:
    """Return each ground's name by its digest: the settings of data, partners and model that differ; empty where none do."""
    paths = [path for path in results.varied() if path.partition(".")[0] in _GROUND]
    each = results.cells.drop_duplicates("ground").set_index("ground")
    texts = {str(ground): {path: str(row[path]) for path in paths} for ground, row in each.iterrows()}
    return {ground: titled(settings) if settings else "" for ground, settings in texts.items()}


def gain_by_institution(results: Results, metric: Metric, group: str) -> Gains:
    """Return what each institution gains under one group of settings; without references no row has a gain.

    Parameters
    ----------
    metric:
        One that institutions have figures of their own for.
    group:
        As in `Point.group`. Its references have the same data, partners and model, and so the same institutions under the same names.
    """
    cells = results.cells[results.cells["group"] == group]
    alone = _by_name(results, _references(results, str(cells["ground"].iloc[0]), ALONE), metric)
    federated = _by_name(results, cells, metric)
    of = len(cells)
    rows = [_gain(name, rows, alone.get(name), metric, of) for name, rows in federated.items()]
    varied = results.varied()
    settings = dict(zip(varied, (str(cells[path].iloc[0]) for path in varied), strict=True))
    ordered = tuple(sorted(rows, key=lambda row: -row.gain.value if row.gain.have else math.inf))
    return Gains(titled(settings), group, _epsilon(cells), ordered)


def _by_name(results: Results, cells: pd.DataFrame, metric: Metric) -> dict[str, pd.DataFrame]:
    """Return each institution's rows by seed."""
    if metric.own not in results.institutions:
        return {}
    rows = results.institutions.merge(cells[["digest", "seed"]], on="digest")
    return {str(name): part.set_index("seed") for name, part in rows.groupby("name", sort=False)}


def _gain(name: str, rows: pd.DataFrame, alone: pd.DataFrame | None, metric: Metric, of: int) -> Gain:
    column = str(metric.own)
    mine = _values(rows, column)
    theirs = {} if alone is None else _values(alone, column)
    turned = [{seed: metric.sign * value for seed, value in part.items()} for part in (mine, theirs)]
    return Gain(
        name,
        int(rows["declared"].median()),
        difference(turned[0], turned[1], of),
        mean(mine.values(), of, within=(metric.low, metric.high)),
        mean(theirs.values(), of, within=(metric.low, metric.high)),
        bool(rows["poisoner"].any()) if "poisoner" in rows else False,
    )


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
        found.append(_dropouts(title, _epsilon(cells), parts, metric))
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


def _epsilon(cells: pd.DataFrame) -> float | None:
    value = float(cells["epsilon"].iloc[0])
    return None if math.isnan(value) else value


def _budget(cells: pd.DataFrame) -> str:
    text = str(cells[EPSILON].iloc[0])
    return NO_NOISE if text == "none" else text


def _values(rows: pd.DataFrame, column: str) -> dict[int, float]:
    values = zip(rows.index.tolist(), rows[column].tolist(), strict=True)
    return {int(seed): float(value) for seed, value in values if not pd.isna(value)}


def by_seed(cells: pd.DataFrame, metric: Metric) -> dict[int, float]:
    """Return the metric by seed; a seed that is there from several engines counts once, as the first."""
    finished = cells[cells["done"]].drop_duplicates("seed").set_index("seed")
    return _values(finished, metric.column)


def over_seeds(cells: pd.DataFrame, metric: Metric) -> Estimate:
    """Return the metric's mean over the seeds of cells, of as many as were asked for."""
    return mean(by_seed(cells, metric).values(), cells["seed"].nunique(), within=(metric.low, metric.high))


def _references(results: Results, ground: str, kind: str) -> pd.DataFrame:
    return results.cells[(results.cells["ground"] == ground) & (results.cells["kind"] == kind)]


def _reference(results: Results, ground: str, kind: str, metric: Metric) -> Estimate | None:
    cells = _references(results, ground, kind)
    return None if cells.empty else over_seeds(cells, metric)


def _point(results: Results, cells: pd.DataFrame, metric: Metric, varied: Sequence[str]) -> Point:
    ground, mine = str(cells["ground"].iloc[0]), by_seed(cells, metric)
    of = cells["seed"].nunique()

    def to(kind: str) -> Estimate | None:
        reference = _references(results, ground, kind)
        return None if reference.empty else difference(mine, by_seed(reference, metric), of)

    settings = {path: str(cells[path].iloc[0]) for path in varied}
    return Point(
        str(cells["group"].iloc[0]),
        ground,
        settings,
        _epsilon(cells),
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
