"""Whether the bands of published curves hold, and what monotone curves and pairs do to a model.

Bands: the demo's two studies are trained again and again on the same customers with fresh noise and draws; a 95% band should hold the mean
curve of all runs in 90 to 98 of 100 cases. Then bank-full by random splits at epsilon 1, pooled: `additive` as it is, with three
curves held monotone, with one pair and with five; median AUC, which has no target. Noise and draws are seeded: these were no private runs.
Exit code 1 when a target is missed.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import glass_box
import numpy as np
import quality_sets as sets
import torch

from federation.errors import ConsilienceError
from federation.study import AdditiveModel
from simulations.bands import coverage, repeat
from simulations.fetch import default_cache, fetch
from simulations.glass import prepare, seat
from simulations.quality import federated_aucs

LEAST, MOST = 0.90, 0.98
POINTS = ((0, 0.5), (0, 1.0), (0, 4.0), (1, 0.5), (1, 1.0), (1, 4.0))
QUICK_POINTS = ((0, 1.0), (1, 1.0))
RUNS, QUICK_RUNS = 60, 20
SEEDS, QUICK_SEEDS = 10, 3
PAIRS = (("contact", "month"), ("age", "balance"), ("housing", "loan"), ("loan", "pdays"), ("age", "marital"))
MODELS = {
    "as it is": AdditiveModel(),
    "campaign falls, previous and balance rise": AdditiveModel(
        monotone={"campaign": "decreasing", "previous": "increasing", "balance": "increasing"}
    ),
    "contact with month": AdditiveModel(pairs=PAIRS[:1]),
    "five pairs": AdditiveModel(pairs=PAIRS),
}


@dataclass(frozen=True)
class Coverage:
    """One study at one budget: share of bands that hold, least of a term's, and the claimed deviation over the observed, in the median."""

    study: str
    epsilon: float
    runs: int
    covered: float
    least: float
    ratio: float

    @property
    def met(self) -> bool:
        """Whether the target is met."""
        return LEAST <= self.covered <= MOST


@dataclass(frozen=True)
class Shaped:
    """AUC by seed of one model."""

    model: str
    aucs: tuple[float, ...]

    @property
    def median(self) -> float:
        """Median over the seeds."""
        return statistics.median(self.aucs)


def cover(cache: Path, place: int, epsilon: float, runs: int) -> Coverage:
    """Repeat one study's training."""
    trial, model = sets.load(sets.STUDIES[place], cache), AdditiveModel()
    found = repeat(seat(trial, model), prepare(trial, model, epsilon), trial.contract, runs, "bands")
    ratios = np.concatenate([item.claimed.mean(axis=0) / item.spread for item in found])
    least = min(float(item.covered.mean()) for item in found)
    return Coverage(trial.name, epsilon, runs, coverage(found), least, float(np.median(ratios)))


def shape(cache: Path, seeds: int) -> list[Shaped]:
    """Train every model on the same splits, with noise of the same seeds."""
    records, *_ = glass_box.bank(cache, seeds)
    found: dict[str, list[float]] = {name: [] for name in MODELS}
    for seed, held in enumerate(records.splits):
        trial = glass_box.trial_of(records, held)
        for name, model in MODELS.items():
            found[name] += federated_aucs(seat(trial, model), prepare(trial, model, 1.0), f"shaped/{seed}")
    return [Shaped(name, tuple(aucs)) for name, aucs in found.items()]


def lines_of(covered: Sequence[Coverage], shaped: Sequence[Shaped]) -> list[str]:
    """Return everything as Markdown, then the verdicts."""
    lines = ["| study | ε | runs | bands that hold | least, by curve | claimed / observed |", "|" + " --- |" * 6]
    for item in covered:
        lines.append(
            f"| {item.study} | {item.epsilon:g} | {item.runs} | {item.covered:.3f} | {item.least:.3f} | {item.ratio:.2f} |"
        )
    lines += ["", "| bank-full, ε = 1 | AUC | against as it is |", "|" + " --- |" * 3]
    for item in shaped:
        difference = statistics.median(a - b for a, b in zip(item.aucs, shaped[0].aucs, strict=True))
        lines.append(
            f"| {item.model} | {item.median:.4f} ({min(item.aucs):.4f} to {max(item.aucs):.4f}) | {difference:+.4f} |"
        )
    lines.append("")
    for item in covered:
        verdict = "met   " if item.met else "MISSED"
        lines.append(f"{verdict}  {item.study}, epsilon {item.epsilon:g}: {item.covered:.3f}; {LEAST} to {MOST}")
    return lines


def main() -> int:
    """Run the benchmark; return 1 when a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="epsilon 1 alone, fewer runs")
    parser.add_argument("--cache", type=Path, default=default_cache(), help="where fetched data lie")
    parser.add_argument("--json", action="store_true", help="print the result for a machine")
    given = parser.parse_args()
    torch.set_num_threads(1)  # many small sums: more threads only wait for each other
    try:
        fetch(given.cache, say=lambda line: print(line, file=sys.stderr, flush=True))
    except ConsilienceError as error:
        print(error, file=sys.stderr)
        return int(error.exit_code)
    runs, seeds = (QUICK_RUNS, QUICK_SEEDS) if given.quick else (RUNS, SEEDS)
    covered = [cover(given.cache, place, value, runs) for place, value in (QUICK_POINTS if given.quick else POINTS)]
    shaped = shape(given.cache, seeds)
    if given.json:
        told = {"bands": [asdict(item) | {"met": item.met} for item in covered], "shaped": [asdict(s) for s in shaped]}
        print(json.dumps(told, indent=1))
    else:
        print("\n".join(lines_of(covered, shaped)))
    return 0 if all(item.met for item in covered) else 1


if __name__ == "__main__":
    sys.exit(main())
