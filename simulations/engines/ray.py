"""The Ray engine: every institution a virtual node of Flower's simulation runtime, which spreads them over Ray's worker processes.

Flower's runtime runs a ServerApp until it returns. Here the ServerApp hands out its grid and waits until the session is closed: rounds
go through the grid in the thread that asks for them, so that errors rise there.

Ray's processes are started on this machine for one session (`ray`), or are those of a cluster that runs already (`ray:cluster`).
"""

import importlib.util
import os
import queue
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from flwr.app import Message
from flwr.serverapp import Grid

from federation.errors import ConsilienceError, FederationError
from federation.flower.simulation import run_simulation, silence
from simulations.engines.apps import FlowerSession, client_app, server_app
from simulations.engines.raylets import joined_cluster, own_cluster
from simulations.engines.shelf import office_at, write_job
from simulations.engines.work import Job

START_SECONDS = 300.0
PATIENCE_SECONDS = 600.0
_POLL_SECONDS = 0.02
_END_SECONDS = 30.0


@dataclass(frozen=True)
class Ray:
    """Runs institutions in Ray's processes: on this machine, ended with the session, or in a cluster that is left as it was.

    Attributes
    ----------
    cpus:
        How many processes compute on this machine; None for one a core, and never more than institutions. A cluster has its own number.
    patience:
        Seconds without any reply after which a round is given up.
    cluster:
        Whether to join the running cluster that the variable RAY_ADDRESS names. Its nodes must have this version of Consilience, and
        see the folder for temporary files (TMPDIR) under the same path: rows lie there as long as the session lasts.

    Raises
    ------
    ConsilienceError
        CSL-M215 when Ray is not installed.
    """

    cpus: int | None = None
    patience: float = PATIENCE_SECONDS
    cluster: bool = False

    def __post_init__(self) -> None:
        if importlib.util.find_spec("ray") is None:
            raise ConsilienceError(
                "CSL-M215",
                "The Ray engine needs Ray, which is not installed.",
                "Add it: pip install 'consilience[ray]', or in a checkout .venv/bin/python -m pip install -c constraints.txt "
                "ray==2.55.1. The other engines work without it.",
            )

    @property
    def name(self) -> str:
        """`ray` or `ray:cluster`."""
        return "ray:cluster" if self.cluster else "ray"

    @contextmanager
    def open(self, job: Job) -> Iterator[FlowerSession]:
        """Start on a job: write its rows to a temporary folder, start or join Ray, start Flower's runtime; end all of it with the session.

        Raises
        ------
        ConsilienceError
            CSL-M219 when Ray runs in this process already, was imported before the engine set its variables, or does not start;
            CSL-M213 when there is no cluster to join.
        StorageError
            CSL-M218 when the rows cannot be written.
        FederationError
            CSL-M216 and CSL-M217 as `FlowerSession`.
        """
        count = job.rows.institutions
        cpus = min(self.cpus or os.cpu_count() or 1, count)
        with tempfile.TemporaryDirectory(prefix="consilience-") as folder:
            write_job(job, Path(folder))
            cluster = joined_cluster() if self.cluster else own_cluster(cpus)
            with cluster, silence(), _Runtime(Path(folder), count) as runtime:
                yield FlowerSession(job, runtime.grid, partial(runtime.exchange, self.patience))


class _Runtime:
    """Flower's simulation runtime in a thread of its own, as long as the context lasts; `grid` leads to its nodes."""

    def __init__(self, folder: Path, count: int) -> None:
        self._folder, self._count = folder, count
        self._finished = threading.Event()
        self._handed: queue.SimpleQueue[Grid] = queue.SimpleQueue()
        self._pool = ThreadPoolExecutor(1, "simulation")

    def __enter__(self) -> "_Runtime":
        self._running: Future[None] = self._pool.submit(
            run_simulation,
            server_app(self._wait),
            client_app(partial(office_at, self._folder)),
            self._count,
            backend_config={"client_resources": {"num_cpus": 1, "num_gpus": 0.0}},
        )
        try:
            self.grid = self._find_grid()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def _wait(self, grid: Grid) -> None:
        """Hand the grid to the thread of the session, and let the runtime live until that has finished, or is gone."""
        self._handed.put(grid)
        while not self._finished.wait(1.0):
            if not threading.main_thread().is_alive():
                return

    def _end(self) -> None:
        self._finished.set()
        # Not for ever: a process that hangs is ended with the cluster, which is closed next.
        self._pool.shutdown(wait=False)
        deadline = time.monotonic() + _END_SECONDS
        while not self._running.done() and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)

    def _find_grid(self) -> Grid:
        """Return the grid once every node is there."""
        deadline, grid = time.monotonic() + START_SECONDS, None
        while grid is None or len(list(grid.get_node_ids())) < self._count:
            self._check(deadline, "does not start")
            if grid is None and not self._handed.empty():
                grid = self._handed.get()
            time.sleep(_POLL_SECONDS)
        return grid

    def exchange(self, patience: float, messages: Sequence[Message]) -> Iterable[Message]:
        """Send messages and return their replies; fail when none comes for `patience` seconds, or the runtime has ended."""
        waiting = set(self.grid.push_messages(messages))
        found: list[Message] = []
        deadline = time.monotonic() + patience
        while waiting:
            replies = list(self.grid.pull_messages(waiting))
            if replies:
                waiting.difference_update(reply.metadata.reply_to_message_id for reply in replies)
                found += replies
                deadline = time.monotonic() + patience
                continue
            self._check(deadline, "does not answer any more")
            time.sleep(_POLL_SECONDS)
        return found

    def _check(self, deadline: float, what: str) -> None:
        ended = self._running.done()
        if not ended and time.monotonic() < deadline:
            return
        error = self._running.exception() if ended else None
        raise FederationError(
            "CSL-M217",
            f"Flower's simulation runtime {'has ended' if ended else what}{f': {error}' if error else ''}.",
            "See whether memory ran out; take fewer processes, or the local engine.",
        ) from error
