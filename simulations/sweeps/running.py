"""Running a sweep: what is there already is skipped, the rest is computed side by side and kept cell by cell."""

import os
import signal
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from federation.errors import DataError
from simulations.sweeps.document import Cell, Sweep, cells
from simulations.sweeps.outcome import Run
from simulations.sweeps.schedule import Pace, Schedule
from simulations.sweeps.store import Store, Stored
from simulations.sweeps.tables import rebuild
from simulations.sweeps.worker import compute
from simulations.sweeps.workers import COMMAND, Answer, Failure, Workers, answer_of, task_of

_PARALLEL_BY_ITSELF = frozenset({"ray", "ray:cluster", "vectorized:cuda"})


@dataclass(frozen=True)
class Begun:
    """A sweep begins: how many cells it has, how many are there already, and which files were damaged and moved aside."""

    cells: int
    present: int
    moved: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Computed:
    """A cell was computed and kept, or failed; `left` is the expected number of seconds until the end, None where not yet known."""

    answer: Answer
    done: int
    left: float | None


Event = Begun | Computed
Progress = Callable[[Event], None]


@dataclass
class Summary:
    """What a run of a sweep did."""

    cells: int
    present: int
    computed: int = 0
    failed: list[tuple[Cell, Failure]] = field(default_factory=list)
    seconds: float = 0.0

    def raise_failures(self) -> None:
        """Say that cells failed, if any did.

        Raises
        ------
        DataError
            CSL-M242.
        """
        if self.failed:
            cell, failure = self.failed[0]
            raise DataError(
                "CSL-M242",
                f"{len(self.failed)} of {self.cells} cells have no result; the first (seed {cell.seed}): {failure.code} {failure.cause}",
                f"{failure.action} Then run the same command again: what is there is kept.",
            )


def default_workers(engine: str) -> int:
    """Return how many workers suit an engine: one where it uses all cores, or the accelerator, by itself; else one a core."""
    return 1 if engine in _PARALLEL_BY_ITSELF else len(os.sched_getaffinity(0))


def run_sweep(
    sweep: Sweep,
    out: Path,
    *,
    workers: int | None = None,
    cache: Path | None = None,
    repair: bool = False,
    progress: Progress = lambda event: None,
    run: Run | None = None,
    command: Sequence[str] = COMMAND,
    limit: float | None = None,
) -> Summary:
    """Compute the cells of a sweep that are not in its folder yet, and make the folder's tables anew.

    Cells that fail are in the summary and not in the folder: the next run tries them again. SIGINT and SIGTERM end the
    workers and come out as KeyboardInterrupt; what was computed is kept.

    Parameters
    ----------
    out:
        The results folder.
    workers:
        How many processes compute at once; as many as suit the engine where None.
    repair:
        Move damaged files aside and compute their cells again.
    run:
        Given, it runs every cell in this process, one after the other; else worker processes do.
    command:
        How a worker process is started.
    limit:
        Seconds that a worker process may be at one cell; then the cell has failed. No limit where None.

    Raises
    ------
    DocumentError, DataError, StorageError, IntegrityError, ConsilienceError
        As `document.cells`, `Store`, `Workers` and `tables.rebuild` raise them. Failed cells raise nothing.
    """
    start = time.perf_counter()
    wanted = cells(sweep)
    store = Store(out)
    with _interruptible(), store.opened(sweep):
        whole, moved = store.check(repair)
        present = {one.digest for one in whole}
        waiting = [cell for cell in wanted if cell.digest not in present]
        summary = Summary(len(wanted), len(wanted) - len(waiting))
        progress(Begun(summary.cells, summary.present, tuple(moved)))
        count = default_workers(sweep.engine) if workers is None else workers
        schedule, pace = Schedule(waiting), measured_pace(whole)
        with closing(_answers(schedule, count, cache, run, command, limit)) as answers:
            for answer in answers:
                _keep(store, summary, answer, pace)
                left = pace.left(schedule.waiting(), count)
                progress(Computed(answer, summary.present + summary.computed + len(summary.failed), left))
        rebuild(store, {cell.digest for cell in wanted}, sweep.varied())
    summary.seconds = time.perf_counter() - start
    return summary


def measured_pace(stored: Sequence[Stored]) -> Pace:
    """Return the pace of the cells in a folder."""
    pace = Pace()
    for one in stored:
        pace.note(one.value("algorithm"), one.value("seconds_in_all"))
    return pace


def time_one(cell: Cell, cache: Path | None, run: Run) -> float:
    """Compute one cell in this process, keep nothing, and return how many seconds it took. Raises what the cell does."""
    start = time.perf_counter()
    run(cell.simulation, cell.seed, cell.engine, cache)
    return time.perf_counter() - start


def _keep(store: Store, summary: Summary, answer: Answer, pace: Pace) -> None:
    if isinstance(answer.what, Failure):
        summary.failed.append((answer.cell, answer.what))
        return
    store.write(answer.cell, answer.what, answer.seconds)
    summary.computed += 1
    pace.note(answer.cell.simulation.algorithm.kind, answer.seconds)


def _answers(
    schedule: Schedule, count: int, cache: Path | None, run: Run | None, command: Sequence[str], limit: float | None
) -> Generator[Answer, None, None]:
    if run is None:
        with Workers(count, cache, command, limit) as workers:
            yield from workers.compute(schedule)
        return
    while (cell := schedule.next(0)) is not None:
        yield answer_of(cell, compute(run, task_of(cell), cache))


@contextmanager
def _interruptible() -> Iterator[None]:
    """Let SIGTERM end the block as Ctrl-C does; only a process's main thread may say what a signal does."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
