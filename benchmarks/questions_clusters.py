"""Segments by noisy k-means: how tight they are beside scikit-learn's, whether runs call them the same, how often their intervals hold,
and how often the number of groups is found.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import questions_sets as sets
from questions_sets import LOCAL, SHARED, TWELFTH, Floats, Table, Way
from sklearn.cluster import KMeans

from client.cohort import Cohort
from federation.answers import Answer
from federation.contract import FeatureContract, Label, NumericColumn
from federation.measures import Factor
from federation.queries import Clusters
from server.statistics.clusters import ClustersAsker
from server.statistics.first_look import raw, scaled

CORE = ("recency", "frequency", "monetary")
ROWS = (
    (CORE, 4),
    (CORE, 6),
    (CORE, None),
    ((*CORE, "tenure"), 4),
    ((*CORE, "tenure"), 6),
    ((*CORE, "tenure", "gap_mean"), 4),
    ((*CORE, "tenure", "gap_mean"), 6),
)
WAYS = (LOCAL, SHARED, TWELFTH)
NAMED = (4, 5)
TARGET, COVERED = 1.15, (0.93, 0.97)
COVERAGE_K, COVERAGE_STEPS = 5, 3
WIDTH, APARTS, GROUPS, CUSTOMERS = 0.06, (0.4, 0.25), (3, 4, 5, 6, 7), 20_000
MARGIN = 0.15
CUBE = FeatureContract(
    name="cube",
    version=1,
    title="A cube",
    source="table",
    columns=tuple(
        NumericColumn(kind="numeric", name=name, meaning=name, unit="units", low=0.0, high=1.0, knots=(0.0, 0.5, 1.0))
        for name in ("x", "y", "z")
    ),
    label=Label(name="left", meaning="Left"),
)


def query(of: Sequence[str], k: int | None, steps: int = 5) -> Clusters:
    """Return the query."""
    return Clusters(id="q", kind="clusters", of=tuple(of), k=k, steps=steps)


def points_of(cohort: Cohort, factors: Sequence[Factor]) -> Floats:
    """Return the customers for whom all columns are known, in the factors' [-1, 1]."""
    points = np.stack([scaled(cohort.columns[factor.column], factor) for factor in factors], axis=1)
    return points[np.isfinite(points).all(axis=1)]


def inertia(points: Floats, centres: Floats) -> float:
    """Return the squared distances to the nearest centre, added up."""
    return float(((points[:, None, :] - centres[None, :, :]) ** 2).sum(axis=2).min(axis=1).sum())


class Free:
    """scikit-learn's k-means without privacy; what was asked before is kept."""

    def __init__(self, cohort: Cohort) -> None:
        self._cohort = cohort
        self._kept: dict[tuple[tuple[Factor, ...], int], float] = {}

    def inertia(self, factors: tuple[Factor, ...], k: int) -> float:
        """Return the inertia of the best of 10 starts."""
        if (factors, k) not in self._kept:
            points = points_of(self._cohort, factors)
            self._kept[factors, k] = float(KMeans(k, n_init=10, random_state=0).fit(points).inertia_)
        return self._kept[factors, k]


def tight(cohorts: Mapping[str, Cohort], seeds: int) -> list[Table]:
    """Compare inertia with that of k-means without privacy; then the names."""
    rows, missed, figures = [], [], {}
    worst = []
    for name, cohort in cohorts.items():
        free = Free(cohort)
        for of, k in ROWS:
            title = f"{name}, {_customers(cohort, of):,}: {', '.join(of)}; k {k or 'chosen'}"
            shown = [title]
            for way in WAYS:
                ratios, found = _runs(cohort, of, k, way, seeds, free)
                shown.append(f"{np.mean(ratios):.3f} ({max(ratios):.3f})" + ("" if k else f", k {_span(found)}"))
                figures[f"{title}; {way.name}"] = ratios
                if way is not TWELFTH and np.mean(ratios) > TARGET:
                    missed.append(f"{title}; {way.name}: {np.mean(ratios):.3f}, target {TARGET}")
                if way is not TWELFTH and k:
                    worst.append(max(ratios))
            rows.append(shown)
    above = sum(item > TARGET for item in worst)
    notes = [f"Of {len(worst)} cells for a given k with the whole budget, {above} have a run above {TARGET}."]
    head = ["set, columns, k", *(way.name for way in WAYS)]
    title = f"Inertia over that of scikit-learn's k-means, {seeds} seeds: mean (largest)"
    return [Table(title, head, rows, notes, missed, figures), _called(cohorts, seeds)]


def _runs(
    cohort: Cohort, of: Sequence[str], k: int | None, way: Way, seeds: int, free: Free
) -> tuple[list[float], list[int]]:
    """Return each run's ratio and number of segments."""
    ratios, found = [], []
    for seed in range(seeds):
        asker = ClustersAsker(query(of, k), sets.setting(sets.RFM, len(cohort)))
        sets.ask(asker, sets.RFM, cohort, way, seed)
        own = inertia(points_of(cohort, asker.factors), asker.centres)
        ratios.append(own / free.inertia(asker.factors, len(asker.centres)))
        found.append(len(asker.centres))
    return ratios, found


def _called(cohorts: Mapping[str, Cohort], seeds: int) -> Table:
    """Count the different sets of names that runs with different noise give."""
    rows, figures = [], {}
    for name, cohort in cohorts.items():
        for k in NAMED:
            called = []
            for seed in range(seeds):
                asker = ClustersAsker(query(CORE, k), sets.setting(sets.RFM, len(cohort)))
                answer = sets.ask(asker, sets.RFM, cohort, LOCAL, seed)
                called.append("; ".join(row.key[0] for row in answer.table("segments").rows))
            rows.append([f"{name}, k {k}", f"{len(set(called))}", called[0]])
            figures[f"{name}, k {k}"] = [float(len(set(called)))]
    title = f"Different sets of names, {', '.join(CORE)}, local, {seeds} runs"
    return Table(title, ["set", "different", "the first run's"], rows, figures=figures)


def _customers(cohort: Cohort, of: Sequence[str]) -> int:
    return int(np.isfinite(np.stack([cohort.columns[name] for name in of])).all(axis=0).sum())


def _span(found: Sequence[int]) -> str:
    least, most = min(found), max(found)
    return f"{least}" if least == most else f"{least} {'or' if most == least + 1 else 'to'} {most}"


def coverage(cohorts: Mapping[str, Cohort], runs: int) -> list[Table]:
    """Say how often the intervals of sizes and means hold the exact ones, for the points of that run."""
    rows, missed, figures = [], [], {}
    for number, (name, cohort) in enumerate(cohorts.items()):
        held: dict[str, list[bool]] = {"sizes": [], "means": []}
        for seed in range(number * runs, (number + 1) * runs):
            asker = ClustersAsker(query(CORE, COVERAGE_K, COVERAGE_STEPS), sets.setting(sets.RFM, len(cohort)))
            answer = sets.ask(asker, sets.RFM, cohort, LOCAL, seed)
            for kind, found in _held(answer, asker, cohort).items():
                held[kind] += found
        for kind, found in held.items():
            share = float(np.mean(found))
            rows.append([f"{name}, {kind}", f"{share:.1%}", f"{len(found):,}"])
            figures[f"{name}, {kind}"] = [share, len(found)]
            if not COVERED[0] <= share <= COVERED[1]:
                missed.append(
                    f"{name}, {kind}: {share:.1%} of intervals hold, target {COVERED[0]:.0%} to {COVERED[1]:.0%}"
                )
    title = f"Share of 95% intervals that hold, {runs:,} runs ({COVERAGE_STEPS} steps, k = {COVERAGE_K}, local)"
    return [Table(title, ["set", "hold", "intervals"], rows, missed=missed, figures=figures)]


def _held(answer: Answer, asker: ClustersAsker, cohort: Cohort) -> dict[str, list[bool]]:
    """Compare with the exact customers of the published points; a mean without an interval is not judged."""
    points, factors = points_of(cohort, asker.factors), asker.factors
    at, names = answer.table("points"), [row.key[0] for row in answer.table("segments").rows]
    centres = np.array([[at.value(name, factor.column) for factor in factors] for name in names], dtype=np.float64)
    place = ((points[:, None, :] - centres[None, :, :]) ** 2).sum(axis=2).argmin(axis=1)
    true: dict[tuple[str, ...], float] = {}
    for number, name in enumerate(names):
        mine = points[place == number]
        true[(name,)] = float(len(mine))
        for j, factor in enumerate(factors):
            true[name, factor.column] = float(raw(mine[:, j].mean(keepdims=True), factor)[0]) if len(mine) else np.nan
    return {
        kind: [
            row.low <= true[row.key] <= row.high
            for row in answer.table(table).rows
            if row.key in true and row.low is not None and row.high is not None
        ]
        for kind, table in (("sizes", "segments"), ("means", "centres"))
    }


def groups(draws: int) -> list[Table]:
    """Say how often the number of groups that customers were made in is found, where k is not given."""
    rows, figures = [], {}
    for apart in APARTS:
        found = [(count, _found(count, apart, seed)) for count in GROUPS for seed in range(draws)]
        hits = sum(count == number for count, number in found)
        misses = [number - count for count, number in found if number != count]
        name = f"middles {apart / WIDTH:.1f} standard deviations apart or more"
        rows.append([name, f"{hits} of {len(found)}", ", ".join(f"{miss:+d}" for miss in sorted(misses)) or "none"])
        figures[name] = [float(number - count) for count, number in found]
    title = f"Number of groups, k not given, {CUSTOMERS:,} customers in {GROUPS[0]} to {GROUPS[-1]} groups, {draws} draws each"
    return [Table(title, ["groups", "found", "misses"], rows, figures=figures)]


def _found(count: int, apart: float, seed: int) -> int:
    generator = np.random.default_rng([count, seed])
    middles = _middles(count, apart, generator)
    points = middles[generator.integers(0, count, CUSTOMERS)] + generator.normal(0.0, WIDTH, (CUSTOMERS, 3))
    ids = np.array([f"c{number}" for number in range(CUSTOMERS)], dtype=object)
    cohort = Cohort(ids, {column.name: points[:, j] for j, column in enumerate(CUBE.columns)})
    asker = ClustersAsker(query([column.name for column in CUBE.columns], None), sets.setting(CUBE, CUSTOMERS))
    sets.ask(asker, CUBE, cohort, LOCAL, seed)
    return len(asker.centres)


def _middles(count: int, apart: float, generator: np.random.Generator) -> Floats:
    """Draw middles evenly in the cube, and all anew until no two are nearer than `apart`."""
    while True:
        middles = generator.uniform(MARGIN, 1.0 - MARGIN, (count, 3))
        gaps = np.sqrt(((middles[:, None] - middles[None]) ** 2).sum(axis=2))[np.triu_indices(count, 1)]
        if gaps.min() >= apart:
            return middles
