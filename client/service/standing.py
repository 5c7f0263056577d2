"""Where the vault's worker stands, as it writes it down for its own institution: `run/vault.json`. Nothing in it is about customers."""

import logging
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from federation.document import Document
from federation.errors import ConsilienceError, StorageError
from federation.files import atomic_write

logger = logging.getLogger("consilience.vault.worker")
Phase = Literal["starting", "waiting", "answering", "away", "refused", "stopped", "failed"]
PHASES: dict[Phase, str] = {
    "starting": "opens keys, ledger and charter",
    "waiting": "waits for requests",
    "answering": "answers a request",
    "away": "waits for the SuperNode, which does not answer",
    "refused": "is refused at the SuperNode's port: another process has it, or another secret",
    "stopped": "was stopped",
    "failed": "could not open the vault",
}
Short = Annotated[str, Field(max_length=1000)]


class Failure(Document):
    """Why the vault could not be opened: as the error says it."""

    code: Short
    cause: Short
    action: Short


class Standing(Document):
    """What the worker does, since when (ISO 8601, UTC), when the last request came and of which type, and how many it answered."""

    phase: Phase
    since: str
    pid: int
    answered: int = 0
    last_request: str | None = None
    last_type: str | None = None
    charter: str | None = None
    failure: Failure | None = None


def now() -> str:
    """Return the time as `Standing` writes it."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def failure_of(error: ConsilienceError) -> Failure:
    """Return an error as it is written down."""
    return Failure(code=error.code, cause=error.cause[:1000], action=error.action[:1000])


def write_standing(path: Path, standing: Standing) -> None:
    """Write it down; where the disk is full the worker goes on without."""
    try:
        atomic_write(path, standing.model_dump_json().encode() + b"\n", mode=0o600)
    except StorageError as error:
        logger.warning("its standing could not be written down: %s", error)


def read_standing(path: Path) -> Standing | None:
    """Return what the worker wrote down last; None where it never did, or where that cannot be read."""
    try:
        return Standing.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None
