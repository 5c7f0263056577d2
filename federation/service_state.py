"""What a running service says of itself to other processes: whether it runs, how its parts fare; and how it is told to stop.

A lock that the kernel holds for the supervisor says whether it runs; the files beside it only say more. What a killed supervisor left
behind is so never taken for a running one.
"""

import fcntl
import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, ValidationError

from federation.document import Document
from federation.errors import FederationError, StorageError

STATE_FILE = "service.json"
LOCK_FILE = "service.lock"
_TRIES = 20
_PAUSE = 0.05
_LAST_SECONDS = 2.0

Life = Literal["up", "waiting", "stopped"]
Natural = Annotated[int, Field(ge=0)]


class ChildState(Document):
    """One process of a service. `waiting` is for its next start; `since` is when the present state began (POSIX seconds).

    `last_exit` is the exit code of its last end, negative for a signal, and `reason` why it ended; None before the first.
    """

    name: str
    pid: Natural | None
    state: Life
    restarts: Natural
    last_exit: int | None
    reason: str | None
    since: Natural


class ServiceState(Document):
    """A service that runs: the supervisor's process number, when it began (POSIX seconds), and its processes."""

    format: Literal["consilience-service-1"] = "consilience-service-1"
    pid: Natural
    started: Natural
    children: tuple[ChildState, ...]

    @property
    def up(self) -> bool:
        """Whether every process is up."""
        return bool(self.children) and all(child.state == "up" for child in self.children)


class ServiceLock:
    """The right to run the service of a folder; the kernel takes it back when the process ends, however it ends."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / LOCK_FILE
        self._descriptor: int | None = None

    def __enter__(self) -> Self:
        """Take the lock.

        Raises
        ------
        FederationError
            CSL-F310 when another process has it.
        StorageError
            CSL-F313 when the folder cannot be written.
        """
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise _unusable(self._path, error) from error
        try:
            self._take(descriptor)
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor = descriptor
        return self

    def __exit__(self, *unused: object) -> None:
        if self._descriptor is not None:
            with suppress(OSError):
                os.ftruncate(self._descriptor, 0)
            os.close(self._descriptor)
            self._descriptor = None

    def _take(self, descriptor: int) -> None:
        for _ in range(_TRIES):  # who only looks whether the lock is held holds it for an instant
            if _locks(descriptor, fcntl.LOCK_EX):
                break
            time.sleep(_PAUSE)
        else:
            pid = _named(self._path)[0]
            raise FederationError(
                "CSL-F310",
                f"The service of {self._path.parent} runs already" + (f" (process {pid})." if pid else "."),
                "Stop that one first, or leave it running.",
            )
        try:
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()} {born(os.getpid())}\n".encode(), 0)
        except OSError as error:
            raise _unusable(self._path, error) from error


def born(pid: int) -> str:
    """Return a mark that two processes with one number do not share: the start in ticks since boot, "-" where it is not known."""
    try:
        content = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace")
    except OSError:
        return "-"
    # The name stands in brackets and may hold anything; the start is the 22nd field, the 20th after it (proc(5)).
    return content.rpartition(")")[2].split()[19]


def is_running(folder: Path) -> bool:
    """Return whether a supervisor holds the lock of this folder. Raises StorageError CSL-F313 when it cannot be looked at."""
    path = folder / LOCK_FILE
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise _unusable(path, error) from error
    try:
        return not _locks(descriptor, fcntl.LOCK_SH)
    finally:
        os.close(descriptor)


def read_service(folder: Path) -> ServiceState | None:
    """Return what the running service of a folder says of itself, None when none runs, whatever files an earlier one left.

    A service that has not said anything yet, or cannot for want of disk, has no children here. Raises StorageError CSL-F313.
    """
    pid: int | None = None
    for _ in range(_TRIES):
        if not is_running(folder):
            return None
        pid = _named(folder / LOCK_FILE)[0]
        state = _state(folder / STATE_FILE)
        if state is not None and state.pid == pid:
            return state
        time.sleep(_PAUSE)
    return ServiceState(pid=pid or 0, started=0, children=())


def stop_service(
    folder: Path,
    seconds: float = 30.0,
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> bool:
    """Tell the service of a folder to stop and wait until it has; kill it two seconds before the time is over.

    Returns
    -------
    bool
        Whether there was one.

    Raises
    ------
    FederationError
        CSL-F314 when it cannot be told: another user's, or in another container; CSL-F315 when it still runs after `seconds`.
    StorageError
        CSL-F313 when the folder cannot be read.
    """
    end = clock() + seconds
    for number, until in ((signal.SIGTERM, end - _LAST_SECONDS), (signal.SIGKILL, end)):
        if not _tell(folder, number, sleep):
            return number != signal.SIGTERM
        while clock() < until:
            if not is_running(folder):
                return True
            sleep(_PAUSE)
    raise FederationError(
        "CSL-F315",
        f"The service of {folder} still runs after {seconds:g} seconds.",
        "Look at the process by `ps`; one that waits for a dead disk cannot be stopped before the disk is back.",
    )


def _tell(folder: Path, number: signal.Signals, sleep: Callable[[float], None]) -> bool:
    """Send a signal to the holder of the lock; False when there is none."""
    for _ in range(_TRIES):  # a holder that has just begun has not named itself yet
        pid, mark = _named(folder / LOCK_FILE)
        if not is_running(folder):
            return False
        if pid and born(pid) == mark:
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                continue
            except PermissionError:
                break
            return True
        sleep(_PAUSE)
    raise FederationError(
        "CSL-F314",
        f"The service of {folder} is not a process that this user can stop here.",
        "Stop it as the user, and in the container or by the service manager, that started it.",
    )


def _named(path: Path) -> tuple[int, str]:
    """Return the process number and mark in a lock file, 0 where there is none."""
    with suppress(OSError, ValueError):
        number, mark = path.read_text("ascii").split()
        return int(number), mark
    return 0, ""


def _state(path: Path) -> ServiceState | None:
    with suppress(OSError, ValidationError):
        return ServiceState.model_validate_json(path.read_bytes())
    return None


def _locks(descriptor: int, how: int) -> bool:
    try:
        fcntl.flock(descriptor, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _unusable(path: Path, error: OSError) -> StorageError:
    return StorageError(
        "CSL-F313",
        f"{path} cannot be read or written: {error.strerror or type(error).__name__}.",
        "Check the folder, its rights and the free space.",
    )
