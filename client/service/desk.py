"""Where the vault's worker gets its requests: the SuperNode's Runtime API on this machine."""

import logging
import os
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import Literal, Protocol

from flwr.app import Message

from client.service.paths import RENEWED, SUPERNODE
from federation.errors import StorageError
from federation.files import atomic_write
from federation.flower.errors import LINK_ERRORS, is_gone
from federation.flower.tasks import ClientTask, LostTaskError, TaskDesk, note_task
from federation.supervise import read_service

logger = logging.getLogger("consilience.vault.worker")

LOOPBACK = "127.0.0.1"
RENEW_SECONDS = 12.0
_PAUSE = 0.05


class Task(Protocol):
    """One request (`federation.flower.tasks.ClientTask`): `app` is the digest of the bundle that came with it, "" for one resumed."""

    message: Message
    run_id: int
    app: str

    def save(self, path: Path) -> None: ...  # noqa: D102
    def note(self, path: Path, stage: Literal["replying", "replied"]) -> None: ...  # noqa: D102
    def reply(self, message: Message) -> None: ...  # noqa: D102
    def finish(self, ok: bool) -> None: ...  # noqa: D102
    def close(self) -> None: ...  # noqa: D102


class Desk(Protocol):
    """Hands out requests one by one."""

    def take(self, saved: Path) -> Task | None: ...  # noqa: D102
    def resume(self, saved: Path) -> Task | None: ...  # noqa: D102
    def renew(self) -> bool: ...  # noqa: D102
    def close(self) -> None: ...  # noqa: D102


class SuperNodeDesk:
    """The Runtime API of the SuperNode at 127.0.0.1:port; plain HTTP, since it never leaves this machine, and a shared secret."""

    def __init__(self, port: int, secret: bytes, run: Path) -> None:
        """Connect lazily; `run` is the folder in which the supervisor says how SuperNode and worker fare."""
        self._run = run
        self._address = f"{LOOPBACK}:{port}"
        self._desk = TaskDesk(self._address, None, secret, "client")

    def take(self, saved: Path) -> Task | None:
        """Return the oldest waiting request, or None; that it was taken is kept in `saved` before it is read.

        Raises
        ------
        LINK_ERRORS
            When the SuperNode is away.
        LostTaskError
            When it has handed over a request that cannot be read: it would wait for the answer for ever.
        """
        claim = self._desk.acquire()
        if claim is None:
            return None
        try:
            note_task(saved, "taken", claim.token)
        except StorageError as error:
            logger.warning("that a request was taken could not be kept: %s", error)
        try:
            return ClientTask.open(self._address, None, claim.token)
        except LINK_ERRORS as error:
            if is_gone(error):  # the SuperNode was started anew: nobody waits
                raise
            raise LostTaskError from error

    def resume(self, saved: Path) -> Task | None:
        """Return the request that a killed worker had, or None. Raises StorageError CSL-F333, LostTaskError and LINK_ERRORS."""
        return ClientTask.resume(self._address, None, saved)

    def renew(self) -> bool:
        """Have the SuperNode started again by the supervisor of both, which loses what it waits for; False where there is none.

        It signs off from the link, and is let in again at once. Returns when it is gone: nothing more is taken from it.
        """
        service = read_service(self._run)
        pids = [child.pid for child in service.children if child.name == SUPERNODE] if service is not None else []
        if service is None or service.pid != os.getppid() or not pids or pids[0] is None:
            return False
        with suppress(StorageError):
            atomic_write(self._run / RENEWED, b"", mode=0o600)
        with suppress(ProcessLookupError):
            os.kill(pids[0], signal.SIGTERM)
            for _ in range(round(RENEW_SECONDS / _PAUSE)):
                time.sleep(_PAUSE)
                os.kill(pids[0], 0)
            os.kill(pids[0], signal.SIGKILL)
        return True

    def close(self) -> None:
        """Close the connection."""
        self._desk.close()
