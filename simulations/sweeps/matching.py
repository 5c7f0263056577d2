"""Two folders of results, compared seed by seed where both ran the same simulation."""

from dataclasses import dataclass

from simulations.sweeps.comparing import NOBODY, by_seed, grounds, on_ground, over_seeds, titled
from simulations.sweeps.estimates import Estimate, difference
from simulations.sweeps.metrics import Metric
from simulations.sweeps.reading import Results


@dataclass(frozen=True)
class Matched:
    """One group of settings that two folders share: both figures, and the second less the first by seed."""

    title: str
    first: Estimate
    second: Estimate
    change: Estimate


def between(first: Results, second: Results, metric: Metric) -> list[Matched]:
    """Return what two folders say of the same simulations, references included; engines may differ."""
    varied = dict.fromkeys((*first.varied(), *second.varied()))
    found, names = [], grounds(first)
    others = {str(key): part for key, part in second.cells.groupby("simulation", sort=False)}
    for key, part in first.cells.groupby("simulation", sort=False):
        other = others.get(str(key))
        if other is None:
            continue
        kind = str(part["kind"].iloc[0])
        settings = {path: str(part[path].iloc[0]) for path in varied if path in part and path != "engine"}
        ground = names[str(part["ground"].iloc[0])]
        title = titled(settings) if kind not in NOBODY else on_ground(kind, ground)
        change = difference(by_seed(other, metric), by_seed(part, metric), max(len(part), len(other)))
        found.append(Matched(title, over_seeds(part, metric), over_seeds(other, metric), change))
    return found
