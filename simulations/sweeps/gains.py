"""Who gains by federating, and who loses: each institution's figure less the one it reaches alone, with intervals over seeds."""

import math
from dataclasses import dataclass

import pandas as pd

from simulations.sweeps.comparing import epsilon_of, references, titled, values_by_seed
from simulations.sweeps.estimates import Estimate, difference, mean
from simulations.sweeps.metrics import Metric
from simulations.sweeps.reading import ALONE, Results


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
    alone = _by_name(results, references(results, str(cells["ground"].iloc[0]), ALONE), metric)
    federated = _by_name(results, cells, metric)
    of = len(cells)
    rows = [_gain(name, rows, alone.get(name), metric, of) for name, rows in federated.items()]
    varied = results.varied()
    settings = dict(zip(varied, (str(cells[path].iloc[0]) for path in varied), strict=True))
    ordered = tuple(sorted(rows, key=lambda row: -row.gain.value if row.gain.have else math.inf))
    return Gains(titled(settings), group, epsilon_of(cells), ordered)


def _by_name(results: Results, cells: pd.DataFrame, metric: Metric) -> dict[str, pd.DataFrame]:
    """Return each institution's rows by seed."""
    if metric.own not in results.institutions:
        return {}
    rows = results.institutions.merge(cells[["digest", "seed"]], on="digest")
    return {str(name): part.set_index("seed") for name, part in rows.groupby("name", sort=False)}


def _gain(name: str, rows: pd.DataFrame, alone: pd.DataFrame | None, metric: Metric, of: int) -> Gain:
    column = str(metric.own)
    mine = values_by_seed(rows, column)
    theirs = {} if alone is None else values_by_seed(alone, column)
    turned = [{seed: metric.sign * value for seed, value in part.items()} for part in (mine, theirs)]
    return Gain(
        name,
        int(rows["declared"].median()),
        difference(turned[0], turned[1], of),
        mean(mine.values(), of, within=(metric.low, metric.high)),
        mean(theirs.values(), of, within=(metric.low, metric.high)),
        bool(rows["poisoner"].any()) if "poisoner" in rows else False,
    )
