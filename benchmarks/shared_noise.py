"""Whether noise that institutions share pays: AUC alone, federated with local noise, with shared noise, and trained centrally.

Everybody's customers are dealt out at random to 5 or 20 institutions of equal size. Each has the epsilon of the column and
delta = 1 / (100 x declared size), and so has central training, on all records in one place. Prints the exact AUC on everybody's held-out
customers, median over seeds (least to greatest), and the targets, with exit code 1 when one is missed; ± is one standard error over seeds.
Draws a figure into --out.
"""

import argparse
import json
import math
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import quality_sets as sets
import torch
from shared_noise_figure import draw

from client.pricing import broken_epsilon
from federation.errors import ConsilienceError
from simulations.fetch import default_cache, fetch
from simulations.quality import Desk, Trial, seat
from simulations.shared import COLLUDERS, WAYS, Question, Way, answer, ask, ceiling, deal, gather, threshold

EPSILONS = (0.3, 1.0, 3.0)
MEMBERS = (5, 20)
SEEDS, QUICK_SEEDS = 5, 1
MORE: tuple[Way, ...] = ("shared", "louder", "central")
MANY = 5
"""Ways that a target of .005 compares are run `MANY` times for each seed: single runs on drifting data spread by .01 and more."""
OUT = sets.ROOT / "out" / "shared_noise"
TITLES: dict[Way, str] = {
    "alone": "alone",
    "fedavg": "fedavg, local noise",
    "local": "fedsgd, local noise",
    "shared": "fedsgd, shared noise",
    "louder": "central, noise as shared",
    "central": "central",
}
WITHIN_CENTRAL = 0.005
ABOVE_LOCAL = 0.02
HARDEST = (20, 0.3)
"""Where shared noise has to show what it is worth: many institutions, little budget."""


@dataclass(frozen=True)
class Cell:
    """One study, number of institutions and budget.

    AUC of each way by seed; standard deviation of the noise in a mean gradient; the epsilon that one's own noise alone would give.
    """

    study: str
    members: int
    epsilon: float
    aucs: dict[Way, tuple[float, ...]]
    noise: dict[Way, float]
    broken: float

    def median(self, way: Way) -> float:
        """Median over seeds."""
        return statistics.median(self.aucs[way])

    def less(self, one: Way, other: Way) -> tuple[float, float]:
        """Return the median of `one` less that of `other`, and its standard error as if AUCs were normal and independent."""
        return self.median(one) - self.median(other), math.hypot(_error(self.aucs[one]), _error(self.aucs[other]))


@dataclass(frozen=True)
class Verdict:
    """One target and what was measured."""

    met: bool
    text: str


def _error(values: Sequence[float]) -> float:
    """Standard error of a median: sqrt(pi / 2) s / sqrt(n); NaN for one seed."""
    return math.sqrt(math.pi / 2.0 / len(values)) * statistics.stdev(values) if len(values) > 1 else math.nan


class Progress:
    """Says on standard error what is done."""

    def __init__(self, total: int) -> None:
        self._start, self._total, self._done = time.monotonic(), total, 0

    def say(self, line: str) -> None:
        """Print a line with the seconds so far."""
        print(f"[{time.monotonic() - self._start:5.0f} s] {line}", file=sys.stderr, flush=True)

    def done(self, what: str) -> None:
        """Count one seed of one number of institutions."""
        self._done += 1
        self.say(f"{self._done} of {self._total}: {what}")


def measure(whole: Trial, everybody: list[Desk], members: int, seeds: int, progress: Progress) -> list[Cell]:
    """Run every way with every seed and budget."""
    questions = [ask(whole, members, epsilon) for epsilon in EPSILONS]
    found: list[dict[Way, list[float]]] = [{way: [] for way in WAYS} for _ in questions]
    for seed in range(seeds):
        desks = seat(deal(whole, members, str(seed)), "additive")
        for question, epsilon, aucs in zip(questions, EPSILONS, found, strict=True):
            for way in WAYS:
                marks = [f"{members}/{epsilon}/{seed}/{run}" for run in range(MANY if way in MORE else 1)]
                aucs[way] += [answer(question, way, desks, everybody, mark) for mark in marks]
        progress.done(f"{whole.name}, {members} institutions, seed {seed}")
    return [
        _cell(whole.name, members, epsilon, question, aucs)
        for epsilon, question, aucs in zip(EPSILONS, questions, found, strict=True)
    ]


def _cell(study: str, members: int, epsilon: float, question: Question, aucs: dict[Way, list[float]]) -> Cell:
    shared, plain = question.shared, {"local": question.local, "central": question.central}
    noise = {way: run.course.terms.tuning.noise for way, run in plain.items()}
    return Cell(
        study=study,
        members=members,
        epsilon=epsilon,
        aucs={way: tuple(values) for way, values in aucs.items()},
        noise={**noise, "shared": shared.course.terms.tuning.noise},
        broken=broken_epsilon(shared.grant, shared.secure, shared.grant.delta)["training"],
    )


def verdicts(cells: Sequence[Cell]) -> list[Verdict]:
    """Judge every cell of the studies that have targets."""
    judged = []
    for cell in cells:
        if cell.study not in {source.name for source in sets.STUDIES}:
            continue
        where = f"{cell.study}, {cell.members} institutions, epsilon {cell.epsilon:g}"
        less, error = cell.less("shared", "central")
        louder, _ = cell.less("louder", "central")
        text = (
            f"{where}: shared less central {less:+.4f} (±{error:.4f}; the noise alone takes {louder:+.4f}); "
            f"at least {-WITHIN_CENTRAL:+}"
        )
        judged.append(Verdict(less >= -WITHIN_CENTRAL, text))
        if (cell.members, cell.epsilon) == HARDEST:
            more, error = cell.less("shared", "local")
            text = f"{where}: shared less local {more:+.4f} (±{error:.4f}); at least {ABOVE_LOCAL:+}"
            judged.append(Verdict(more >= ABOVE_LOCAL, text))
    return judged


def table(whole: Trial, limit: float, cells: Sequence[Cell]) -> list[str]:
    """Return one study's table, as Markdown."""
    everybody = whole.parties[0]
    lines = [
        f"## {whole.name}",
        "",
        f"{whole.title}. {len(everybody.training):,} customers train, {len(everybody.heldout):,} are held out. "
        f"Without privacy, all records in one place: {limit:.4f}.",
        "",
        f"| institutions | ε | {' | '.join(TITLES[way] for way in WAYS)} | noise, local / shared / central | ε if the masks broke |",
        f"|{' --- |' * (len(WAYS) + 4)}",
    ]
    for cell in cells:
        aucs = " | ".join(_shown(cell.aucs[way]) for way in WAYS)
        noise = " / ".join(f"{cell.noise[way] / cell.noise['central']:.2f}" for way in ("local", "shared", "central"))
        lines.append(f"| {cell.members} | {cell.epsilon:g} | {aucs} | {noise} | {cell.broken:.2f} |")
    return [*lines, ""]


def _shown(values: Sequence[float]) -> str:
    median = f"{statistics.median(values):.4f}"
    return median if len(values) == 1 else f"{median} ({min(values):.3f} to {max(values):.3f})"


def load(source: sets.Source, cache: Path, progress: Progress) -> Trial:
    """Read a data set, with everybody's customers at one party."""
    whole = gather(sets.load(source, cache))
    progress.say(f"{source.name}: read")
    return whole


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="1 seed")
    parser.add_argument("--seeds", type=int, metavar="N", help=f"runs of each configuration (default {SEEDS})")
    parser.add_argument(
        "--data",
        type=Path,
        default=default_cache(),
        metavar="FOLDER",
        help="where fetched data lie (default: %(default)s)",
    )
    parser.add_argument("--out", type=Path, default=OUT, help="where the figure goes (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print the result for a machine")
    found = parser.parse_args()
    if found.seeds is not None and found.seeds < 1:
        parser.error("--seeds must be at least 1")
    return found


def main() -> int:
    """Run the benchmark; return 1 when a target is missed."""
    given = arguments()
    seeds: int = given.seeds or (QUICK_SEEDS if given.quick else SEEDS)
    sources = (*sets.STUDIES, sets.NO_DRIFT)
    progress = Progress(len(sources) * len(MEMBERS) * seeds)
    torch.set_num_threads(1)
    try:
        fetch(given.data, say=progress.say)
        trials = [load(source, given.data, progress) for source in sources]
    except ConsilienceError as error:
        print(error, file=sys.stderr)
        return int(error.exit_code)
    gathered = [seat(whole, "additive") for whole in trials]
    limits = [ceiling(everybody) for everybody in gathered]
    found = [
        [cell for members in MEMBERS for cell in measure(whole, everybody, members, seeds, progress)]
        for whole, everybody in zip(trials, gathered, strict=True)
    ]
    judged = verdicts([cell for cells in found for cell in cells])
    drawn = draw(
        given.out, [(whole.name, limit, cells) for whole, limit, cells in zip(trials, limits, found, strict=True)]
    )
    progress.say(f"drawn: {', '.join(str(path) for path in drawn)}")
    if given.json:
        cells = [asdict(cell) for cells in found for cell in cells]
        print(json.dumps({"seeds": seeds, "cells": cells, "verdicts": [asdict(item) for item in judged]}, indent=1))
    else:
        print(f"{NOTE} {seeds} {'seed' if seeds == 1 else 'seeds'}; {MANY} runs for each seed of {', '.join(MORE)}.\n")
        print("\n".join(line for item in zip(trials, limits, found, strict=True) for line in table(*item)))
        print("\n".join(f"{'met   ' if verdict.met else 'MISSED'}  {verdict.text}" for verdict in judged))
    return 0 if all(verdict.met for verdict in judged) else 1


NOTE = (
    "Noise and draws were seeded, so that figures can be repeated: this was not a private run. Shared: sums of at least "
    + " and ".join(f"{threshold(n)} of {n}" for n in MEMBERS)
    + f" institutions, {COLLUDERS} of whom may collude."
)


if __name__ == "__main__":
    sys.exit(main())
