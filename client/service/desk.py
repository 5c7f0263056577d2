"""Where the vault's worker gets its requests: the SuperNode's Runtime API on this machine."""

from pathlib import Path
from typing import Protocol

from flwr.app import Message

from federation.flower.tasks import ClientTask, TaskDesk

LOOPBACK = "127.0.0.1"


class Task(Protocol):
    """One request (`federation.flower.tasks.ClientTask`): `app` is the digest of the bundle that came with it, "" for one resumed."""

    message: Message
    run_id: int
    app: str

    def save(self, path: Path) -> None: ...  # noqa: D102
    def reply(self, message: Message) -> None: ...  # noqa: D102
    def finish(self, ok: bool) -> None: ...  # noqa: D102
    def close(self) -> None: ...  # noqa: D102


class Desk(Protocol):
    """Hands out requests one by one."""

    def take(self) -> Task | None: ...  # noqa: D102
    def resume(self, path: Path) -> Task | None: ...  # noqa: D102
    def close(self) -> None: ...  # noqa: D102


class SuperNodeDesk:
    """The Runtime API of the SuperNode at 127.0.0.1:port; plain HTTP, since it never leaves this machine, and a shared secret."""

    def __init__(self, port: int, secret: bytes) -> None:
        self._address = f"{LOOPBACK}:{port}"
        self._desk = TaskDesk(self._address, None, secret, "client")

    def take(self) -> Task | None:
        """Return the oldest waiting request, or None. Raises LINK_ERRORS."""
        claim = self._desk.acquire()
        return None if claim is None else ClientTask.open(self._address, None, claim.token)

    def resume(self, path: Path) -> Task | None:
        """Return the request that was saved before a kill, or None. Raises StorageError CSL-F333."""
        return ClientTask.resume(self._address, None, path)

    def close(self) -> None:
        """Close the connection."""
        self._desk.close()
