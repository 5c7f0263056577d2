"""Worker processes that compute cells side by side. One that dies takes its cell with it, and nothing else."""

import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from federation.errors import ConsilienceError
from simulations.sweeps.document import Cell
from simulations.sweeps.outcome import Outcome
from simulations.sweeps.schedule import Schedule
from simulations.sweeps.worker import READY

COMMAND = (sys.executable, "-m", "simulations.sweeps.worker")
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
_LAST_WORDS = 2000
_LAST_LINES = 5
_GRACE_SECONDS = 3.0
_BLOCK = 1 << 16


@dataclass(frozen=True)
class Failure:
    """Why a cell has no result."""

    code: str
    cause: str
    action: str

    def as_tree(self) -> dict[str, str]:
        """Return it as errors are printed with --json."""
        return {"code": self.code, "cause": self.cause, "action": self.action}


@dataclass(frozen=True, eq=False)
class Answer:
    """What became of a cell, and in how many seconds."""

    cell: Cell
    seconds: float
    what: Outcome | Failure


def task_of(cell: Cell) -> dict[str, Any]:
    """Return what a worker is told of a cell."""
    return {
        "digest": cell.digest,
        "simulation": cell.simulation.model_dump(mode="json"),
        "seed": cell.seed,
        "engine": cell.engine,
    }


def answer_of(cell: Cell, tree: Mapping[str, Any]) -> Answer:
    """Return a worker's answer, read."""
    if "error" in tree:
        return Answer(cell, tree["seconds"], Failure(**tree["error"]))
    return Answer(cell, tree["seconds"], Outcome.from_tree(tree["outcome"]))


class _Worker:
    """One process, in a session of its own: a terminal's Ctrl-C reaches the parent alone, and what the worker starts ends with it."""

    def __init__(self, number: int, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self.number = number
        self.cell: Cell | None = None
        self.ready = False
        self.late = False
        self._since = 0.0
        self._words: IO[bytes] = tempfile.TemporaryFile()
        self._rest = b""
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._words,
            env=dict(environment),
            start_new_session=True,
        )
        assert self.process.stdout is not None and self.process.stdin is not None
        self.answers = self.process.stdout
        self._tasks = self.process.stdin

    def give(self, cell: Cell) -> None:
        """Hand over a cell; a pipe that broke is noticed when answers are read."""
        self.cell, self._since = cell, time.perf_counter()
        os.ftruncate(self._words.fileno(), 0)  # last words are this cell's
        os.lseek(self._words.fileno(), 0, os.SEEK_SET)
        with suppress(BrokenPipeError):
            self._tasks.write(json.dumps(task_of(cell)).encode() + b"\n")
            self._tasks.flush()

    def lines(self) -> list[bytes] | None:
        """Return the whole lines that have come, or None when the process has closed its end."""
        block = os.read(self.answers.fileno(), _BLOCK)
        if not block:
            return None
        *whole, self._rest = (self._rest + block).split(b"\n")
        return whole

    def seconds(self) -> float:
        """Return how long it has been at its cell."""
        return time.perf_counter() - self._since

    def last_words(self) -> tuple[int, str]:
        """Return its exit code (negative: a signal), and how it ended with the last lines of its error output."""
        try:
            code = self.process.wait(_GRACE_SECONDS)
        except subprocess.TimeoutExpired:  # it closed its end and lives on
            self.stop(signal.SIGKILL)
            code = self.process.wait()
        size = os.fstat(self._words.fileno()).st_size
        text = os.pread(self._words.fileno(), _LAST_WORDS, max(0, size - _LAST_WORDS)).decode(errors="replace")
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        return code, "\n  ".join([how, *text.strip().splitlines()[-_LAST_LINES:]])

    def stop(self, sign: signal.Signals) -> None:
        """Send a signal to the process and to what it started."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, sign)

    def finish(self) -> None:
        """Tell an idle process to end by itself."""
        with suppress(BrokenPipeError):
            self._tasks.close()

    def close(self) -> None:
        """Give the pipes and the file back."""
        self.finish()
        self.answers.close()
        self._words.close()


class Workers:
    """A number of workers; a context manager, which leaves no process behind.

    Parameters
    ----------
    count:
        How many at most; each gets one thread where there are several.
    cache:
        Folder of fetched data sets.
    command:
        How a worker is started, without its options.
    limit:
        Seconds after which a process that is still at its cell is killed, and another takes its place; none if None.
    """

    def __init__(
        self, count: int, cache: Path | None = None, command: Sequence[str] = COMMAND, limit: float | None = None
    ) -> None:
        self._count, self._limit = count, limit
        self._command = [*command, *(() if cache is None else ("--cache", str(cache)))]
        self._environment = dict(os.environ)
        if count > 1:
            self._command += ["--threads", "1"]
            self._environment |= dict.fromkeys(_THREADS, "1")
        self._living: dict[int, _Worker] = {}
        self._retired: list[_Worker] = []
        self._selector = selectors.DefaultSelector()

    def __enter__(self) -> Self:
        """Begin; processes start when there is work."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End every process: those at work are told to, and killed if they do not."""
        every = [*self._retired, *self._living.values()]
        for worker in self._living.values():
            worker.stop(signal.SIGTERM)
        until = time.monotonic() + _GRACE_SECONDS
        for worker in every:
            with suppress(subprocess.TimeoutExpired):
                worker.process.wait(max(0.0, until - time.monotonic()))
            worker.stop(signal.SIGKILL)
            worker.process.wait()
            worker.close()
        self._living.clear()
        self._retired.clear()
        self._selector.close()

    def compute(self, schedule: Schedule) -> Iterator[Answer]:
        """Compute all cells that wait; yield each answer as it comes.

        Raises
        ------
        ConsilienceError
            CSL-M240 when a worker cannot even start.
        """
        for number in range(min(self._count, len(schedule))):
            self._start(number)
        while self._living:
            for key, _ in self._selector.select(self._end_late()):
                worker: _Worker = key.data
                lines = worker.lines()
                if lines is None:
                    yield from self._died(worker, schedule)
                    continue
                for line in lines:
                    yield from self._heard(worker, json.loads(line), schedule)

    def _end_late(self) -> float | None:
        """Kill who is at its cell for longer than the limit; return in how many seconds the next one would be, None without a limit."""
        if self._limit is None:
            return None
        soonest = self._limit
        for worker in self._living.values():
            if worker.cell is None or worker.late:
                continue
            left = self._limit - worker.seconds()
            if left <= 0:
                worker.late = True
                worker.stop(signal.SIGKILL)
            else:
                soonest = min(soonest, left)
        return soonest

    def _start(self, number: int) -> None:
        worker = _Worker(number, self._command, self._environment)
        self._living[number] = worker
        self._selector.register(worker.answers, selectors.EVENT_READ, worker)

    def _heard(self, worker: _Worker, tree: Mapping[str, Any], schedule: Schedule) -> Iterator[Answer]:
        cell = worker.cell
        if READY in tree:
            worker.ready = True
        next_ = schedule.next(worker.number)
        if next_ is None:
            self._retire(worker)
        else:
            worker.give(next_)
        if cell is not None:
            yield answer_of(cell, tree)

    def _died(self, worker: _Worker, schedule: Schedule) -> Iterator[Answer]:
        (code, words), cell, seconds = worker.last_words(), worker.cell, worker.seconds()
        self._retire(worker)
        if not worker.ready:
            raise ConsilienceError(
                "CSL-M240",
                f"A worker process cannot start: {words}",
                "Correct what it says, and run the command again.",
            )
        if len(schedule):
            self._start(worker.number)
        if cell is not None:
            yield Answer(cell, seconds, self._failure(worker, code, words))

    def _failure(self, worker: _Worker, code: int, words: str) -> Failure:
        """Say why a process died with its cell."""
        if worker.late:
            return Failure(
                "CSL-M241",
                f"The process that computed this cell was ended: it took longer than the limit of {self._limit:g} seconds.",
                "Raise the limit, or take a smaller study.",
            )
        advice = "Look at its last words."
        if code == -signal.SIGKILL:
            advice = "Memory probably ran out, unless somebody ended it: take fewer workers or fewer customers."
        return Failure("CSL-M241", f"The process that computed this cell died: {words}", advice)

    def _retire(self, worker: _Worker) -> None:
        self._selector.unregister(worker.answers)
        self._retired.append(self._living.pop(worker.number))
        worker.finish()
