"""How well institutions rank their customers alone, federated with differential privacy, and with all records pooled.

Prints for the demo's two studies, both modes and both linear models: the exact AUC of held-out customers, mean over
institutions; for federated runs the median over seeds (least to greatest) and its share of the pooled reference. Then
the targets, with exit code 1 when one is missed; ± is one standard error over seeds, which says whether a verdict means much.

References are scikit-learn's logistic regression with C = 1 on the same encoding, without privacy; "alone" takes for
each institution the better of its two own models. Every institution trains with the epsilon of the column; delta is
1 / (100 x declared size), rounded down.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import quality_report as report
import quality_sets as sets
import torch
from quality_report import SHOWN, TARGET_EPSILON, Cell, References, Regret, SetResult

from federation.errors import ConsilienceError
from simulations.fetch import default_cache, fetch
from simulations.quality import KINDS, MODES, Kind, Mode, Trial, alone_aucs, federated_aucs, pooled_aucs, prepare, seat

EPSILONS = (0.5, 1.0, 2.0, 4.0, None)
SEEDS, QUICK_SEEDS = 5, 2
STRIDES = (1 / 3, 2 / 3, 1.0, 1.5, 7 / 3, 3.5)
LENGTHS = (15, 30, 60)
PROCESSES = 2


@dataclass(frozen=True)
class Point:
    """A federated configuration to run on one data set, with every seed."""

    model: Kind
    mode: Mode
    epsilon: float | None
    seeds: int
    descent: int | None = None
    stride: float = 1.0


def run_point(trial: Trial, point: Point) -> Cell:
    """Run one configuration with every seed."""
    desks = seat(trial, point.model)
    run = prepare(trial, point.model, point.mode, point.epsilon, descent=point.descent, stride=point.stride)
    label = f"{trial.name}/{point.model}/{point.mode}/{point.epsilon}"
    aucs = tuple(tuple(federated_aucs(desks, run, f"{label}/{seed}")) for seed in range(point.seeds))
    return Cell(point.model, point.mode, point.epsilon, run.training.rounds, aucs)


def run_references(trial: Trial, model: Kind) -> References:
    """Fit what needs no federation."""
    desks = seat(trial, model)
    return References(model, tuple(alone_aucs(desks)), tuple(pooled_aucs(desks)))


class Progress:
    """Says on standard error what is done."""

    def __init__(self) -> None:
        self._start = time.monotonic()

    def say(self, line: str) -> None:
        """Print a line with the seconds so far."""
        print(f"[{time.monotonic() - self._start:5.0f} s] {line}", file=sys.stderr, flush=True)

    def watch(self, futures: Sequence["Future[Cell] | Future[References]"], what: str) -> None:
        """Wait for all, and say now and then how many are done."""
        every = max(1, len(futures) // 8)
        for done, future in enumerate(as_completed(futures), start=1):
            future.result()
            if done % every == 0 or done == len(futures):
                self.say(f"{what}: {done} of {len(futures)}")


@contextmanager
def two_processes() -> Iterator[ProcessPoolExecutor]:
    """Start workers with one thread each; they are spawned, since threads of a database engine do not survive a fork."""
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = "1"
    with ProcessPoolExecutor(PROCESSES, get_context("spawn"), torch.set_num_threads, (1,)) as pool:
        yield pool


def measure(pool: ProcessPoolExecutor, trial: Trial, points: Sequence[Point]) -> Callable[[Progress], SetResult]:
    """Start everything on one data set; what is returned waits for it."""
    references = [pool.submit(run_references, trial, model) for model in KINDS]
    cells = [pool.submit(run_point, trial, point) for point in points]

    def gather(progress: Progress) -> SetResult:
        progress.watch([*references, *cells], trial.name)
        return SetResult(
            name=trial.name,
            title=trial.title,
            members=tuple(party.member for party in trial.parties),
            declared=tuple(party.declared for party in trial.parties),
            trained=tuple(len(party.training) for party in trial.parties),
            tested=tuple(len(party.heldout) for party in trial.parties),
            references=tuple(item.result() for item in references),
            cells=tuple(item.result() for item in cells),
        )

    return gather


def measure_regret(pool: ProcessPoolExecutor, trial: Trial, seeds: int, progress: Progress) -> Regret:
    """Run the rule's neighbours on one data set."""
    places = [(stride, length) for stride in STRIDES for length in LENGTHS]
    rule = pool.submit(run_point, trial, Point(*SHOWN, TARGET_EPSILON, seeds))
    around = [
        pool.submit(run_point, trial, Point(*SHOWN, TARGET_EPSILON, seeds, length, stride)) for stride, length in places
    ]
    progress.watch([rule, *around], f"{trial.name}, regret")
    grid = tuple((*place, future.result().median) for place, future in zip(places, around, strict=True))
    return Regret(trial.name, rule.result().median, grid)


def load_all(cache: Path, data: Path | None, quick: bool, progress: Progress) -> tuple[list[Trial], list[str]]:
    """Read the data sets, and say which were left out and why."""
    fetch(cache, say=progress.say)
    trials = []
    for source in sets.STUDIES if quick else (*sets.STUDIES, sets.NO_DRIFT):
        trials.append(sets.load(source, cache))
        progress.say(f"{source.name}: read")
    skipped = []
    for source in sets.MORE:
        if data is None:
            skipped.append(f"{source.name}: not run; name the folder that holds its file with --data.")
            continue
        try:
            trials.append(sets.load(source, data))
            progress.say(f"{source.name}: read")
        except ConsilienceError as error:
            skipped.append(f"{source.name}: not run; {error}")
    return trials, skipped


def points_of(quick: bool, seeds: int) -> list[Point]:
    """What is run on every data set."""
    epsilons = (TARGET_EPSILON,) if quick else EPSILONS
    modes = MODES[:1] if quick else MODES
    return [Point(model, mode, epsilon, seeds) for model in KINDS for mode in modes for epsilon in epsilons]


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="epsilon 1, fedsgd, 2 seeds, the two studies")
    parser.add_argument(
        "--regret", action="store_true", help="show the rule beside a grid of steps and rounds, epsilon 1"
    )
    parser.add_argument("--data", type=Path, metavar="FOLDER", help="adds the data sets whose files lie there")
    parser.add_argument(
        "--cache", type=Path, default=default_cache(), help="where fetched data lie (default: %(default)s)"
    )
    parser.add_argument("--seeds", type=int, metavar="N", help=f"runs of each configuration (default {SEEDS})")
    parser.add_argument("--json", action="store_true", help="print the result for a machine")
    found = parser.parse_args()
    if found.seeds is not None and found.seeds < 1:
        parser.error("--seeds must be at least 1")
    return found


def main() -> int:
    """Run the benchmark; return 1 when a target is missed."""
    given, progress = arguments(), Progress()
    seeds: int = given.seeds or (QUICK_SEEDS if given.quick else SEEDS)
    try:
        trials, skipped = load_all(given.cache, given.data, given.quick, progress)
    except ConsilienceError as error:
        print(error, file=sys.stderr)
        return int(error.exit_code)
    with two_processes() as pool:
        started = [measure(pool, trial, points_of(given.quick, seeds)) for trial in trials]
        results = [gather(progress) for gather in started]
        regrets = [measure_regret(pool, trial, seeds, progress) for trial in trials] if given.regret else []
    judged = report.verdicts(results)
    if given.json:
        print(json.dumps(report.as_json(results, judged, regrets, skipped), indent=1))
    else:
        print(f"{report.NOISE_NOTE} {seeds} seeds.\n")
        lines = [line for result in results for line in report.table(result)]
        lines += [*report.regret_table(regrets), *skipped, *report.gains(results), ""]
        lines += [f"{'met   ' if verdict.met else 'MISSED'}  {verdict.text}" for verdict in judged]
        print("\n".join(lines))
    return 0 if all(verdict.met for verdict in judged) else 1


if __name__ == "__main__":
    sys.exit(main())
