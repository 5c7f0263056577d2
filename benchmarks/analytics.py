"""What marketing asks of customer data, answered with differential privacy by five institutions: how far from the exact answers.

Customers are dealt out at random to five institutions; each grants epsilon with delta = 1 / (100 x declared size); sums alone are opened,
and the honest members share the noise (n_min 4, c 1). Prints, against stated targets: RFM thresholds and segment sizes on CDNOW; the
inertia of k-means segments against k-means without privacy, on CDNOW and with --data on Online Retail II; expected purchases by BG/NBD
with noise against the fit to exact counts; how often intervals of every statistic hold the exact answer; and with --data, whether
intervals of the uplift of Hillstrom's two e-mails hold the difference in the whole set. Exit code 1 when a target is missed.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import analytics_sets as sets
import numpy as np
from sklearn.cluster import KMeans

from client.cohort import Cohort
from client.segments import place
from federation.answers import Answer, AnswerTable
from federation.drafts import load_statistics
from federation.errors import ConsilienceError
from federation.measures import At, Factor
from federation.statistics import StatisticsDraft
from server.statistics.first_look import scaled
from simulations.counting import count_together
from simulations.fetch import default_cache, fetch
from simulations.seeded import SeededSource
from simulations.statistics_play import Played

SECURE = {"aggregation": "secure", "noise": "shared", "n_min": 4, "c": 1}
REPORT = sets.ROOT / "configs" / "queries" / "value.yaml"
THRESHOLD_POINTS, SIZE_SHARE, INERTIA, UPLIFT_HELD = 2.0, 0.02, 1.15, 0.9
COVERED = (0.93, 0.97)
ROUNDS, SECONDS = 3, 20.0
SEEDS, QUICK_SEEDS = 5, 1


@dataclass(frozen=True)
class Figure:
    """One figure, and whether it meets its target; None where there is none."""

    name: str
    value: float
    target: str
    met: bool | None
    detail: str = ""


def draft(contract: str, *queries: Mapping[str, object], secure: bool = True) -> StatisticsDraft:
    """Return a draft of these queries."""
    tree = {
        "kind": "statistics",
        "name": "benchmark",
        "title": "Benchmark",
        "purpose": "marketing.analytics",
        "contract": contract,
        "queries": list(queries),
    }
    return StatisticsDraft.model_validate_json(json.dumps(tree | (SECURE if secure else {})))


def rank_error(values: np.ndarray, threshold: float, level: float) -> float:
    """Return by how many percentile points a threshold ("from here on") misses its level.

    Equal values are an interval of ranks: those of the value just below the threshold, which is left on the other side, and of its own.
    """
    left = values[values < threshold]
    below = float(np.mean(values < left.max())) if len(left) else 0.0
    return 100.0 * max(below - level, level - float(np.mean(values <= threshold)), 0.0)


def rfm(cohorts: Mapping[At, Cohort], epsilon: float, seeds: int) -> list[Figure]:
    """Thresholds in percentile points, and segment sizes as a share of all customers, the largest error of each run."""
    cohort = cohorts["start"]
    asked = draft(
        "rfm", {"id": "q", "kind": "rfm", "recency": "recency", "frequency": "frequency", "monetary": "monetary"}
    )
    points, sizes = [], []
    for seed in range(seeds):
        table = sets.table_of(sets.RFM, sets.without_end(cohorts), seed)
        played = table.play(asked, epsilon, SeededSource(f"rfm {seed}"))
        points.append(_worst_threshold(cohort, played.answers[0].table("thresholds")))
        sizes.append(_worst_segment(cohort, played))
    return [
        Figure(
            "rfm: worst threshold, percentile points (median of runs)",
            statistics.median(points),
            f"<= {THRESHOLD_POINTS}",
            statistics.median(points) <= THRESHOLD_POINTS,
            f"runs {_listed(points)}",
        ),
        Figure(
            "rfm: worst segment size, share of all customers (median of runs)",
            statistics.median(sizes),
            f"<= {SIZE_SHARE}",
            statistics.median(sizes) <= SIZE_SHARE,
            f"runs {_listed(sizes)}",
        ),
    ]


def _worst_threshold(cohort: Cohort, table: AnswerTable) -> float:
    found = []
    for row in table.rows:
        _, column, level = row.key
        values = cohort.columns[column]
        assert row.value is not None
        found.append(rank_error(values[np.isfinite(values)], row.value, float(level)))
    return max(found)


def _worst_segment(cohort: Cohort, played: Played) -> float:
    """Compare the counted sizes with the exact ones under the very same thresholds and rules, as an institution applies them."""
    exact = place(cohort, sets.RFM, played.report).segment
    return max(
        abs((row.value or 0.0) - float(np.count_nonzero(exact == row.key[0]))) / len(cohort)
        for row in played.answers[0].table("segments").rows
    )


def inertia(name: str, cohorts: Mapping[At, Cohort], epsilon: float, seeds: int) -> list[Figure]:
    """Inertia of the noisy segments over that of k-means without privacy, in the very scaling of the answer."""
    cohort, columns = cohorts["start"], ["recency", "frequency", "monetary"]
    asked = draft("rfm", {"id": "q", "kind": "clusters", "of": columns, "k": 4, "steps": 3})
    ratios = []
    for seed in range(seeds):
        table = sets.table_of(sets.RFM, sets.without_end(cohorts), seed)
        answer = table.play(asked, epsilon, SeededSource(f"clusters {seed}")).answers[0]
        scaling, centres = answer.table("scaling"), answer.table("points")
        points = np.stack([_in_units(cohort.columns[name], name, scaling) for name in columns], axis=1)
        points = points[np.isfinite(points).all(axis=1)]
        names = list(dict.fromkeys(row.key[0] for row in centres.rows))
        placed = np.array([[centres.value(segment, column) for column in columns] for segment in names], dtype=float)
        free = KMeans(4, n_init=10, random_state=seed).fit(points).inertia_
        own = float(((points[:, None, :] - placed[None]) ** 2).sum(axis=2).min(axis=1).sum())
        ratios.append(own / free)
    worst = statistics.median(ratios)
    return [
        Figure(
            f"k-means on {name}: inertia over that without privacy (median of runs)",
            worst,
            f"<= {INERTIA}",
            worst <= INERTIA,
            f"runs {_listed(ratios)}",
        )
    ]


def _in_units(values: np.ndarray, name: str, scaling: AnswerTable) -> np.ndarray:
    column = sets.RFM.column(name)
    low, high = scaling.value(name, "-1"), scaling.value(name, "1")
    assert low is not None and high is not None and column.kind == "numeric"
    return scaled(values, Factor(column=name, low=low, high=high, scale=column.scale))


def lifetime(cohorts: Mapping[At, Cohort], epsilon: float, seeds: int) -> list[Figure]:
    """Expected days of purchase of all customers in the horizon: with noise over without, and over what came."""
    asked = draft(
        "rfm",
        {
            "id": "q",
            "kind": "lifetime",
            "recency": "recency",
            "frequency": "frequency",
            "tenure": "tenure",
            "monetary": "monetary",
        },
    )
    ratios = []
    for seed in range(seeds):
        table = sets.table_of(sets.RFM, sets.without_end(cohorts), seed)
        exact = table.play(asked, epsilon, None).answers[0].table("total").rows[0].value
        noisy = table.play(asked, epsilon, SeededSource(f"lifetime {seed}")).answers[0].table("total").rows[0].value
        assert exact is not None and noisy is not None
        ratios.append(noisy / exact)
    value = statistics.median(ratios)
    return [
        Figure(
            "lifetime: all expected purchases, noisy over exact counts (median)",
            value,
            "",
            None,
            f"runs {_listed(ratios)}",
        )
    ]


def uplift(cohort: Cohort, epsilon: float, runs: int) -> list[Figure]:
    """How often the intervals of both e-mails' uplift in visits hold the difference in the whole set."""
    asked = draft("mailing", {"id": "q", "kind": "campaign", "arm": "arm", "outcomes": ["visit"], "segment": "segment"})
    visits, arm = cohort.label, cohort.columns["arm"]
    assert visits is not None
    control = float(visits[arm == 0].mean())
    true = {name: float(visits[arm == place].mean()) - control for name, place in (("mens", 1), ("womens", 2))}
    table = sets.table_of(sets.MAILING, {"start": cohort}, 0)
    held, widths = 0, []
    for run in range(runs):
        answer = table.play(asked, epsilon, SeededSource(f"uplift {run}")).answers[0]
        rows = {row.key: row for row in answer.table("uplift").rows}
        mine = [next(row for key, row in rows.items() if name in key) for name in true]
        held += all(
            row.low is not None and row.high is not None and row.low <= true[name] <= row.high
            for name, row in zip(true, mine, strict=True)
        )
        widths += [row.high - row.low for row in mine if row.low is not None and row.high is not None]
    share = held / runs
    detail = f"true {true}; median width {statistics.median(widths):.4f}"
    return [
        Figure(
            "hillstrom: runs whose intervals hold both true differences",
            share,
            f">= {UPLIFT_HELD}",
            share >= UPLIFT_HELD,
            detail,
        )
    ]


def coverage(cohorts: Mapping[At, Cohort], epsilon: float, runs: int) -> list[Figure]:
    """How often intervals hold the exact answer, by kind of query. The noise alone is redrawn. Where the noise leaves nothing to say, no
    interval is given, and that counts as holding: else only draws that luck let speak would be judged."""
    asked = draft("rfm", *COVERAGE_QUERIES)
    table = sets.table_of(sets.RFM, sets.without_end(cohorts), 0)
    exact = {answer.id: answer for answer in table.play(asked, epsilon, None).answers}
    held: dict[str, list[bool]] = {}
    for run in range(runs):
        for answer in table.play(asked, epsilon, SeededSource(f"coverage {run}")).answers:
            held.setdefault(answer.id, []).extend(_held(answer, exact[answer.id]))
    low, high = COVERED
    return [
        Figure(
            f"coverage of 95% intervals: {name}",
            float(np.mean(values)),
            f"{low} to {high}",
            low <= float(np.mean(values)) <= high,
            f"{len(values)} intervals",
        )
        for name, values in sorted(held.items())
    ]


COVERAGE_QUERIES: tuple[Mapping[str, object], ...] = (
    {"id": "count", "kind": "count", "by": [{"column": "frequency", "cuts": [2.0, 3.0]}]},
    {"id": "sum", "kind": "sum", "of": "monetary", "by": [{"column": "frequency", "cuts": [2.0]}]},
    {"id": "mean", "kind": "mean", "of": "monetary", "by": [{"column": "frequency", "cuts": [2.0]}]},
    {"id": "histogram", "kind": "histogram", "of": "recency", "cuts": [0.2, 0.4, 0.6, 0.8]},
    {"id": "quantiles", "kind": "quantiles", "of": "monetary"},
    {
        "id": "crosstab",
        "kind": "crosstab",
        "rows": {"column": "recency", "cuts": [0.5]},
        "across": {"column": "tenure", "cuts": [0.5]},
    },
    {"id": "correlation", "kind": "correlation", "of": ["recency", "tenure"]},
)


def _held(answer: Answer, exact: Answer) -> list[bool]:
    found = []
    for table in answer.tables:
        truth = {row.key: row.value for row in exact.table(table.name).rows}
        for row in table.rows:
            value = truth.get(row.key)
            if value is None or value == 0.0:  # at the edge of what is possible an interval holds more than it says
                continue
            found.append(row.low is None or row.high is None or row.low <= value <= row.high)
    return found


def report_time(cohorts: Mapping[At, Cohort], cache: Path, epsilon: float) -> list[Figure]:
    """Seconds and rounds of the twelve-query report: by five real vaults in the in-process grid, masks and ledgers included, against the
    same questions and sums in memory, without messages."""
    asked = load_statistics(REPORT)
    table = sets.table_of(sets.RFM, cohorts, 0)
    start = time.monotonic()
    played = table.play(asked, epsilon, SeededSource("report"))
    memory = time.monotonic() - start
    with tempfile.TemporaryDirectory(prefix="analytics-") as folder:
        federation = sets.founded(Path(folder) / "federation", cache, epsilon)
        done = count_together(federation, asked, sets.MEMBERS, lambda event: None)
    rounds, members = float(played.rounds), len(done.published.report.members)
    detail = f"{members} vaults, {done.seconds / memory:.1f} x the {memory:.1f} s in memory"
    return [
        Figure("report of 12 queries: rounds", rounds, f"<= {ROUNDS}", rounds <= ROUNDS),
        Figure(
            "report of 12 queries: seconds in the grid", done.seconds, f"< {SECONDS}", done.seconds < SECONDS, detail
        ),
    ]


def main() -> int:
    """Run what the arguments ask for, print it, and say by the exit code whether every target is met."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="Folder with hillstrom.csv and online_retail_II_rebuilt.parquet.")
    parser.add_argument("--cache", type=Path, default=None, help="Folder of fetched data sets.")
    parser.add_argument("--epsilon", type=float, default=1.0)
    parser.add_argument("--quick", action="store_true", help="One seed, few runs: shows that it works, judges nothing.")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    cache, seeds = given.cache or default_cache(), QUICK_SEEDS if given.quick else SEEDS
    try:
        fetch(cache, say=lambda line: print(line, file=sys.stderr))
        parts = _parts(cache, given.data, given.epsilon, seeds, given.quick)
        figures = []
        for name, part in parts:
            start = time.monotonic()
            found = part()
            figures += found
            if not given.json:
                for figure in found:
                    print(_line(figure, given.quick))
                print(f"  ({name}: {time.monotonic() - start:.0f} s)", flush=True)
    except ConsilienceError as error:
        print(error, file=sys.stderr)
        return int(error.exit_code)
    if given.json:
        print(json.dumps([asdict(figure) for figure in figures], indent=2))
    missed = [figure for figure in figures if figure.met is False]
    return 1 if missed and not given.quick else 0


def _parts(
    cache: Path, data: Path | None, epsilon: float, seeds: int, quick: bool
) -> list[tuple[str, Callable[[], list[Figure]]]]:
    cohorts = sets.cdnow(cache)
    runs = 5 if quick else 100
    parts: list[tuple[str, Callable[[], list[Figure]]]] = [
        ("rfm", lambda: rfm(cohorts, epsilon, seeds)),
        ("clusters", lambda: inertia("CDNOW", cohorts, epsilon, seeds)),
        ("lifetime", lambda: lifetime(cohorts, epsilon, seeds)),
        ("report", lambda: report_time(cohorts, cache, epsilon)),
        ("coverage", lambda: coverage(cohorts, epsilon, 3 if quick else 1000)),
    ]
    if data is not None:
        parts += [
            ("clusters", lambda: inertia("Online Retail II", sets.retail(data), epsilon, seeds)),
            ("uplift", lambda: uplift(sets.hillstrom(data), epsilon, runs)),
        ]
    return parts


def _line(figure: Figure, quick: bool) -> str:
    verdict = {True: "met", False: "MISSED", None: ""}[None if quick else figure.met]
    return f"{figure.name:<72} {figure.value:9.4f}  {figure.target:<14} {verdict:<7} {figure.detail}"


def _listed(values: list[float]) -> str:
    return ", ".join(f"{value:.3f}" for value in values)


if __name__ == "__main__":
    sys.exit(main())
