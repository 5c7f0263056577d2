"""The journal of a study: every event as one line of JSON, on the disk before the study goes on.

A line is `{"ts": UTC time by the coordinator's clock, "event": the event's name, ...its fields}`. Lines are appended whole; one that a
power cut tore apart is taken off by the next writer and passed over by readers. Fields and events are only ever added, so that old journals
stay readable; an event that this release does not know is passed over.
"""

import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, get_args

from pydantic import TypeAdapter

from federation.errors import IntegrityError, StorageError
from federation.files import sync_folder
from server.events import Event

SUFFIX = ".events.jsonl"
_BLOCK = 65_536
_PAUSE_SECONDS = 0.2


@dataclass(frozen=True)
class JournalLine:
    """An event, and when it came by the coordinator's clock (UTC)."""

    ts: datetime
    event: Event

    def as_json(self) -> str:
        """Return the line as it stands in the journal, without its line end."""
        moment = self.ts.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        return json.dumps({"ts": moment, "event": type(self.event).__name__} | asdict(self.event), default=_path)


def _path(value: object) -> str:
    """Return a path as text; what is no text in it shows as question marks."""
    if not isinstance(value, Path):
        raise TypeError(f"an event has no field of type {type(value).__name__}")
    return str(value).encode("utf-8", "replace").decode()


def _now() -> datetime:
    return datetime.now(UTC)


class Journal:
    """Writes a study's events down; it is an `OnEvent`."""

    def __init__(self, path: Path, now: Callable[[], datetime] = _now) -> None:
        self._path = path
        self._now = now

    def __call__(self, event: Event) -> None:
        """Append an event, durably.

        Raises
        ------
        StorageError
            CSL-S840 when it cannot be written; the journal stays as it was.
        """
        line = JournalLine(self._now(), event).as_json().encode() + b"\n"
        try:
            fresh = not self._path.exists()
            descriptor = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                _append(descriptor, line)
            finally:
                os.close(descriptor)
            if fresh:
                sync_folder(self._path.parent)
        except OSError as error:
            raise StorageError(
                "CSL-S840",
                f"{self._path} cannot be written: {error.strerror}.",
                "Free space or correct the rights, and start the study again: it goes on from its checkpoint.",
            ) from error


def _append(descriptor: int, line: bytes) -> None:
    """Append a line whole or not at all, after what is left of one that was torn apart was taken off."""
    size = _whole(descriptor, os.fstat(descriptor).st_size)
    os.ftruncate(descriptor, size)
    try:
        left = memoryview(line)
        while left:
            left = left[os.write(descriptor, left) :]
        os.fsync(descriptor)
    except OSError:
        os.ftruncate(descriptor, size)
        raise


def _whole(descriptor: int, size: int) -> int:
    """Return how many of a file's bytes are whole lines."""
    while size:
        start = max(0, size - _BLOCK)
        found = os.pread(descriptor, size - start, start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        size = start
    return 0


class Tail:
    """Reads a journal from where it stopped reading; a journal that was put in another's place is read from its beginning."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = (0, 0)
        self._offset = 0
        self._number = 0

    def read(self) -> list[JournalLine]:
        """Return the lines that came since; none while there is no journal.

        Raises
        ------
        StorageError
            CSL-S842 when the journal cannot be read.
        IntegrityError
            CSL-S841 for a line that is no event.
        """
        try:
            with self._path.open("rb") as handle:
                found = os.fstat(handle.fileno())
                if (found.st_dev, found.st_ino) != self._file or found.st_size < self._offset:
                    self._file, self._offset, self._number = (found.st_dev, found.st_ino), 0, 0
                handle.seek(self._offset)
                content = handle.read()
        except FileNotFoundError:
            return []
        except OSError as error:
            raise _unreadable(self._path, error) from error
        whole = content[: content.rfind(b"\n") + 1].split(b"\n")[:-1]
        lines = [self._decode(line, self._number + place) for place, line in enumerate(whole, start=1)]
        self._offset += sum(len(line) + 1 for line in whole)
        self._number += len(whole)
        return [line for line in lines if line is not None]

    def _decode(self, line: bytes, number: int) -> JournalLine | None:
        try:
            return decode(line)
        except (ValueError, TypeError, KeyError) as error:
            raise IntegrityError(
                "CSL-S841",
                f"{self._path}, line {number}: this is no event of a study.",
                "The journal was altered or damaged; studies and models do not depend on it. Move it away.",
            ) from error


def decode(line: bytes | str) -> JournalLine | None:
    """Read one line; None for an event that this release does not know.

    Raises
    ------
    ValueError, TypeError, KeyError
        When it is not a line of a journal.
    """
    fields = json.loads(line)
    if not isinstance(fields, dict):
        raise TypeError("a line is one object")
    moment = datetime.fromisoformat(fields.pop("ts")).astimezone(UTC)
    kind = _kinds().get(fields.pop("event"))
    return None if kind is None else JournalLine(moment, kind.validate_json(json.dumps(fields), strict=True))


@cache
def _kinds() -> dict[str, TypeAdapter[Any]]:
    return {kind.__name__: TypeAdapter(kind) for kind in get_args(Event)}


def read_journal(path: Path) -> list[JournalLine]:
    """Return all events of a journal.

    Raises
    ------
    StorageError
        CSL-S842 when there is no journal or it cannot be read.
    IntegrityError
        CSL-S841 for a line that is no event; a last line that was torn apart is passed over.
    """
    try:
        path.stat()
    except OSError as error:
        raise _unreadable(path, error) from error
    return Tail(path).read()


def follow(
    path: Path,
    stop: Callable[[], bool],
    *,
    pause: float = _PAUSE_SECONDS,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[JournalLine]:
    """Yield a journal's events as they come, from the first, until `stop` says so; what came before that is still yielded.

    There may be no journal yet. `stop` is asked at every look, `pause` seconds apart.

    Raises
    ------
    StorageError, IntegrityError
        CSL-S842, CSL-S841 as `Tail.read`.
    """
    tail = Tail(path)
    while True:
        over = stop()
        yield from tail.read()
        if over:
            return
        sleep(pause)


def _unreadable(path: Path, error: OSError) -> StorageError:
    return StorageError(
        "CSL-S842", f"{path} cannot be read: {error.strerror}.", "Check the study's name and the file's rights."
    )
