"""The Ray engine: every institution a virtual node of Flower's simulation runtime, which spreads them over Ray's worker processes.

Flower's runtime runs a ServerApp until it returns. Here the ServerApp hands out its grid and waits until the session is closed: rounds
go through the grid in the thread that asks for them, so that errors rise there.

Ray serialises what passes between its own processes by pickle. They listen on the loopback interface alone, and answer only those who
know a token that is drawn anew in every process, so that nobody else on this machine can hand them anything.
"""

import importlib
import importlib.util
import os
import queue
import secrets
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from types import ModuleType

from flwr.app import Message
from flwr.serverapp import Grid

from federation.errors import ConsilienceError, FederationError
from federation.flower.simulation import run_simulation, silence
from simulations.engines.apps import FlowerSession, client_app, server_app
from simulations.engines.shelf import office_at, write_job
from simulations.engines.work import Job

START_SECONDS = 300.0
PATIENCE_SECONDS = 600.0
_POLL_SECONDS = 0.02
_END_SECONDS = 30.0
_STORE_BYTES = 256 << 20
_LOOPBACK = "127.0.0.1"
_FAILURES = (OSError, RuntimeError, ValueError, TimeoutError)  # of Ray's start
_VARIABLES = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # on any system: without it Ray listens on every interface of the machine
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_AUTH_MODE": "token",
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "OMP_NUM_THREADS": "1",
}


@dataclass(frozen=True)
class Ray:
    """Runs institutions in processes that Ray starts on this machine, and ends with the session.

    Attributes
    ----------
    cpus:
        How many processes compute; None for one a core, and never more than institutions.
    patience:
        Seconds without any reply after which a round is given up.

    Raises
    ------
    ConsilienceError
        CSL-M215 when Ray is not installed.
    """

    cpus: int | None = None
    patience: float = PATIENCE_SECONDS

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
        """`ray`."""
        return "ray"

    @contextmanager
    def open(self, job: Job) -> Iterator[FlowerSession]:
        """Start on a job: write its rows to a temporary folder, start Ray and Flower's runtime; end and remove all of it with the session.

        Raises
        ------
        ConsilienceError
            CSL-M219 when Ray runs in this process already, was imported before the engine set its variables, or does not start.
        StorageError
            CSL-M218 when the rows cannot be written.
        FederationError
            CSL-M216 and CSL-M217 as `FlowerSession`.
        """
        count = job.rows.institutions
        cpus = min(self.cpus or os.cpu_count() or 1, count)
        with tempfile.TemporaryDirectory(prefix="consilience-") as folder:
            write_job(job, Path(folder))
            with _environment(), silence(), _cluster(cpus), _Runtime(Path(folder), count) as runtime:
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


@contextmanager
def _cluster(cpus: int) -> Iterator[None]:
    """Start Ray on this machine alone, and end it and what it wrote."""
    ray = importlib.import_module("ray")
    if ray.is_initialized():
        raise ConsilienceError(
            "CSL-M219",
            "Ray runs in this process already, and would be ended with the simulation.",
            "Close it first: one Ray simulation at a time, in a process of its own.",
        )
    if not _guarded():
        raise ConsilienceError(
            "CSL-M219",
            "Ray was imported in this process before the simulation could set that it answers only its own processes.",
            "Start the simulation in a process that has not imported Ray before.",
        )
    # Ray's sockets lie in its folder, and their paths must be short.
    short = "/tmp" if os.path.isdir("/tmp") else None
    with tempfile.TemporaryDirectory(prefix="csl-", dir=short, ignore_cleanup_errors=True) as folder:
        try:
            _start(ray, cpus, folder)
            yield
        finally:
            ray.shutdown()


def _guarded() -> bool:
    """Return whether Ray read this engine's variables: it does so once, when it is first imported."""
    constants, core = importlib.import_module("ray._private.ray_constants"), importlib.import_module("ray._raylet")
    return not constants.ENABLE_RAY_CLUSTER and core.get_authentication_mode() == core.AuthenticationMode.TOKEN


def _start(ray: ModuleType, cpus: int, folder: str) -> None:
    try:
        ray.init(
            address="local",
            num_cpus=cpus,
            num_gpus=0,
            include_dashboard=False,
            log_to_driver=False,
            configure_logging=False,
            object_store_memory=_STORE_BYTES,
            _temp_dir=folder,
        )
    except _FAILURES as error:
        raise ConsilienceError(
            "CSL-M219", f"Ray does not start: {error}", "Free memory and space in /tmp, or take the local engine."
        ) from error
    heard = {node["NodeManagerAddress"] for node in ray.nodes()}
    if heard != {_LOOPBACK}:
        raise ConsilienceError(
            "CSL-M219",
            f"Ray would listen on {', '.join(sorted(heard))}, not on this machine's loopback interface alone.",
            "Start the simulation in a process that has not imported Ray before.",
        )


@contextmanager
def _environment() -> Iterator[None]:
    """Set the variables that Ray and Flower read, here and in the processes that they start; then set them back, and what Ray set."""
    before = dict(os.environ)
    os.environ.update(_VARIABLES | {"RAY_AUTH_TOKEN": _token()})
    try:
        yield
    finally:
        for name in filter(_of_ray, {*before, *os.environ}):
            if name in before:
                os.environ[name] = before[name]
            else:
                del os.environ[name]


def _of_ray(name: str) -> bool:
    return name.startswith("RAY_") or name in _VARIABLES or name == "PYTHONBREAKPOINT"


@cache
def _token() -> str:
    """Return this process's secret, the same as long as it lives: Ray reads it once."""
    return secrets.token_hex(32)
