"""What is wanted of each study and how far it is: one small file for each, which commands, executor and study processes share.

Every change is made under one lock and replaces the file as a whole, so that none of them overwrites what another has just written.
"""

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from federation.contract import Name
from federation.document import Document
from federation.errors import FederationError, StorageError
from federation.files import atomic_write
from server.office import ROSTER_SECONDS

State = Literal["waiting", "starting", "running", "finished", "stopped", "failed"]
OVER: frozenset[State] = frozenset({"finished", "stopped", "failed"})
Seconds = Annotated[float, Field(ge=0)]
RUN_FOLDER = Path("run") / "studies"


class StudyRecord(Document):
    """One study as the service sees it.

    Attributes
    ----------
    wanted:
        What the coordinator asked for.
    state, since:
        What it is, and since when (seconds of the epoch): waiting for the link or the next try, starting (no process took it yet),
        running, or over: finished, stopped (goes on at the next start), failed (something has to be put right first).
    code, reason:
        Why it is not running, in plain words.
    run_id:
        The link's run, while there is one.
    keep_trying:
        Whether too few partners are a reason to wait, and not to stop.
    roster_seconds, grant_seconds:
        How long to wait for the members, and to ask those again who declined.
    tries:
        Tries in a row that came to nothing.
    retry_at:
        Not before this time (seconds of the epoch).
    delivered:
        The published model, once every member was offered it: from then on the study has nothing left to ask, until another draft
        takes its place.
    """

    format: Literal["consilience-study-state-1"] = "consilience-study-state-1"
    study: Name
    wanted: Literal["running", "stopped"]
    state: State
    since: Seconds
    code: str = ""
    reason: str = ""
    run_id: int | None = None
    keep_trying: bool = False
    roster_seconds: Seconds = ROSTER_SECONDS
    grant_seconds: Seconds = 0.0
    tries: Annotated[int, Field(ge=0)] = 0
    retry_at: Seconds = 0.0
    delivered: str | None = None

    @property
    def over(self) -> bool:
        """Whether nothing is left to do until somebody starts it again."""
        return self.state in OVER


Change = Callable[[StudyRecord], StudyRecord]


class StudyBook:
    """The records under `run/studies` of a coordinator's home."""

    def __init__(self, home: Path, now: Callable[[], float] = time.time) -> None:
        self._folder = home / RUN_FOLDER
        self._logs = home / "logs"
        self._now = now

    def file(self, name: str) -> Path:
        """Return where a study's record lies."""
        return self._folder / f"{name}.json"

    def journal(self, name: str) -> Path:
        """Return where a study's events are written, one JSON line each."""
        return self._folder / f"{name}.events.jsonl"

    def log(self, name: str) -> Path:
        """Return where a study's process writes its log."""
        return self._logs / f"study-{name}.log"

    def names(self) -> tuple[str, ...]:
        """Return the studies that were ever started, sorted."""
        return tuple(sorted(path.stem for path in self._folder.glob("*.json"))) if self._folder.is_dir() else ()

    def read(self, name: str) -> StudyRecord | None:
        """Return a study's record, or None where it was never started.

        Raises
        ------
        StorageError
            CSL-S801 when the file is damaged or cannot be read.
        """
        path = self.file(name)
        try:
            return StudyRecord.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValidationError) as error:
            raise StorageError(
                "CSL-S801",
                f"{path} does not say how the study {name} stands.",
                f"Delete it and run `study start {name}`: an unfinished study goes on from its checkpoint; "
                "one that was delivered is not run again without --again, which costs every institution budget anew.",
            ) from error

    def all(self) -> list[StudyRecord]:
        """Return every record. Raises as `read`."""
        found = (self.read(name) for name in self.names())
        return [record for record in found if record is not None]

    def want(
        self,
        name: str,
        *,
        keep_trying: bool = False,
        roster_seconds: float = ROSTER_SECONDS,
        grant_seconds: float = 0.0,
    ) -> StudyRecord:
        """Write down that a study is to run, from now on. Raises as `read`, and CSL-F301."""
        with self._locked():
            known = self.read(name)
            if known is not None and known.wanted == "running" and not known.over:
                changes = {
                    "keep_trying": keep_trying,
                    "roster_seconds": roster_seconds,
                    "grant_seconds": grant_seconds,
                    "retry_at": 0.0,
                }
                return self._write(known.model_copy(update=changes))
            return self._write(
                StudyRecord(
                    study=name,
                    wanted="running",
                    state="waiting",
                    since=self._now(),
                    reason="not started yet",
                    keep_trying=keep_trying,
                    roster_seconds=roster_seconds,
                    grant_seconds=grant_seconds,
                    delivered=None if known is None or known.state == "finished" else known.delivered,
                )
            )

    def forget_delivered(self, name: str) -> None:
        """Let the next start run a study whose draft was replaced; a finished one keeps its model. Raises as `read`, and CSL-F301."""
        with self._locked():
            known = self.read(name)
            if known is not None and known.delivered is not None and known.state != "finished":
                self._write(known.model_copy(update={"delivered": None}))

    def unwant(self, name: str) -> StudyRecord:
        """Write down that a study is to stop.

        Raises
        ------
        FederationError
            CSL-S802 when it was never started.
        """
        return self.change(name, lambda record: record.model_copy(update={"wanted": "stopped"}))

    def change(self, name: str, change: Change) -> StudyRecord:
        """Replace a study's record by what `change` makes of it, and return that.

        Raises
        ------
        FederationError
            CSL-S802 when it was never started.
        StorageError
            CSL-S801, CSL-F301.
        """
        with self._locked():
            record = self.read(name)
            if record is None:
                raise FederationError(
                    "CSL-S802", f"The study {name} was never started.", "See `coordinator study list` for its name."
                )
            changed = change(record)
            return record if changed == record else self._write(changed)

    def settle(self, name: str, state: State, reason: str = "", code: str = "", **others: object) -> StudyRecord:
        """Change a study's state, its reason and other fields. A study that is over is wanted no more. Raises as `change`."""

        def change(record: StudyRecord) -> StudyRecord:
            since = record.since if record.state == state else self._now()
            ended: dict[str, object] = {"wanted": "stopped", "run_id": None, "retry_at": 0.0} if state in OVER else {}
            told = {"state": state, "since": since, "reason": reason, "code": code}
            return record.model_copy(update={**told, **ended, **others})

        return self.change(name, change)

    def _write(self, record: StudyRecord) -> StudyRecord:
        atomic_write(self.file(record.study), record.model_dump_json(indent=1).encode() + b"\n", mode=0o600)
        return record

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with hold(self._folder / ".lock"):
            yield


@contextmanager
def hold(path: Path) -> Iterator[None]:
    """Hold a file's lock, after whoever has it lets go; it is let go when this process dies, whatever kills it."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
