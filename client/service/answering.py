"""Takes requests from the SuperNode and lets the vault that is installed here answer them, one at a time.

A request is kept on the disk before it is answered. A worker that was killed answers the kept one first when it is started again: the
vault gives the same bytes to the same request and spends nothing twice, so nothing is lost and nothing released twice.
"""

import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from flwr.app import Context, Message, RecordDict

from client.app import respond
from client.service.desk import Desk, Task
from client.service.standing import Phase, Standing, now, write_standing
from federation.errors import ConsilienceError
from federation.files import atomic_write
from federation.flower.errors import LINK_ERRORS, is_gone
from federation.flower.tasks import LostTaskError
from federation.logs import log_event

logger = logging.getLogger("consilience.vault.worker")
IDLE_SECONDS = 2.0
MOST_TRIES = 5
TRIES = ".tries"
AWAY_SECONDS = (0.2, 5.0)
DELIVER_SECONDS = 120.0
_SHARE = 0.05


class VaultDoor(Protocol):
    """The vault, as the worker needs it (`client.vault.Vault`)."""

    @property
    def app(self) -> str | None: ...  # noqa: D102
    def answer(self, message_type: str, request: RecordDict) -> RecordDict: ...  # noqa: D102
    def refuse_app(self, digest: str) -> RecordDict: ...  # noqa: D102
    def tidy(self) -> None: ...  # noqa: D102


class Meter(Protocol):
    """Counts requests (`client.service.meter.VaultMeter`); `done` returns the type of the one that was answered last."""

    def done(self, seconds: float) -> str: ...  # noqa: D102


@dataclass(frozen=True)
class Places:
    """Where the worker writes: the request at hand (0600), and where it stands, for `node status`."""

    saved: Path
    standing: Path


@dataclass(frozen=True)
class _AnotherApp:
    """Answers, in the place of the vault, every message that came with another app than the charter's."""

    vault: VaultDoor
    digest: str

    def answer(self, message_type: str, request: RecordDict) -> RecordDict:
        """Refuse, whatever is asked."""
        return self.vault.refuse_app(self.digest)


class Worker:
    """Answers requests until it is told to stop.

    Parameters
    ----------
    vault, desk, meter:
        Who answers, where requests come from, and who counts.
    places:
        Where the worker writes.
    charter:
        Digest of the charter that the vault was opened with.
    poll_seconds:
        The shortest pause between two questions for a request; it grows with the time since the last one, to two seconds.
    stop:
        Set by whoever wants the worker to leave: it finishes the answer at hand first.
    clock:
        Seconds that never go back.
    """

    def __init__(
        self,
        vault: VaultDoor,
        desk: Desk,
        meter: Meter,
        places: Places,
        *,
        charter: str,
        poll_seconds: float,
        stop: threading.Event,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._vault = vault
        self._desk = desk
        self._meter = meter
        self._places = places
        self._poll = poll_seconds
        self._stop = stop
        self._clock = clock
        self._last = clock()
        self._away_since: float | None = None
        self._away_pause = AWAY_SECONDS[0]
        self._standing = Standing(phase="starting", since=now(), pid=os.getpid(), charter=charter)

    def run(self) -> None:
        """Answer until `stop` is set."""
        self._resume()
        self._stand("waiting")
        while not self._stop.is_set():
            try:
                task = self._desk.take(self._places.saved)
            except LINK_ERRORS as error:
                self._away(error)
                continue
            except LostTaskError:
                logger.warning("a request cannot be read")
                self._renew()
                continue
            self._back()
            if task is None:
                self._vault.tidy()
                self._stop.wait(self._pause())
            else:
                self._handle(task)
        self._stand("stopped")

    def _resume(self) -> None:
        """Answer the request that a killed worker left, as far as it can be; one that cannot be read, or kills every time, is dropped."""
        if self._given_up():
            return
        task = None
        while not self._stop.is_set():
            try:
                task = self._desk.resume(self._places.saved)
            except LINK_ERRORS as error:
                self._away(error)
                continue
            except ConsilienceError as error:
                logger.warning("the kept request cannot be read, and is dropped: %s", error)
            except LostTaskError:
                logger.warning("the SuperNode waits for what is lost")
                self._renew()
            break
        else:
            return
        self._back()
        if task is None:
            self._drop()
        else:
            log_event(logger, "answers the request that was kept", run=str(task.run_id))
            self._handle(task)

    def _given_up(self) -> bool:
        """Count a start with a kept request; drop the request that the vault has died of, whatever the cause, so often in a row."""
        saved = self._places.saved
        if not saved.exists():
            return False
        try:
            count = int(saved.with_suffix(TRIES).read_text()) + 1
        except (OSError, ValueError):
            count = 1
        if count <= MOST_TRIES:
            try:
                atomic_write(saved.with_suffix(TRIES), str(count).encode(), mode=0o600)
            except ConsilienceError as error:
                logger.warning("the starts with a kept request cannot be counted: %s", error)
            return False
        log_event(logger, "a request is given up, of which the vault died at each start", starts=count)
        self._renew()
        return True

    def _renew(self) -> None:
        """Have the SuperNode started again, which then waits for nothing; the coordinator asks again, and gets the kept reply."""
        self._drop()
        log_event(logger, "the SuperNode begins anew", severity=logging.WARNING, told=self._desk.renew())
        self._stop.wait(AWAY_SECONDS[0])

    def _handle(self, task: Task) -> None:
        started = self._clock()
        self._stand("answering")
        with contextlib.closing(task):
            reply = self._answer(task)
            seconds = round(self._clock() - started, 3)
            about = self._meter.done(seconds)
            if self._deliver(task, reply):
                self._drop()
        self._last = self._clock()
        changes = {"answered": self._standing.answered + 1, "last_request": now(), "last_type": about}
        self._standing = self._standing.model_copy(update=changes)
        self._stand("waiting")
        log_event(logger, "answered", type=about, seconds=seconds, run=str(task.run_id))

    def _answer(self, task: Task) -> Message:
        """Let the vault answer what came with the charter's app; a request that was kept was looked at before it was."""
        context = Context(run_id=task.run_id, node_id=0, node_config={}, state=RecordDict(), run_config={})
        if task.app and task.app != self._vault.app:
            return respond(lambda _: _AnotherApp(self._vault, task.app), task.message, context)
        try:
            task.save(self._places.saved)
        except ConsilienceError as error:  # a full disk: the vault answers as far as its ledger lets it
            logger.warning("the request could not be kept: %s", error)
        return respond(lambda _: self._vault, task.message, context)

    def _deliver(self, task: Task, reply: Message) -> bool:
        """Hand the reply over; return False where a worker that is started again has to do it."""
        replied, pause, until = False, AWAY_SECONDS[0], self._clock() + DELIVER_SECONDS
        while True:
            try:
                if not replied:
                    self._note(task, "replying")
                    task.reply(reply)
                    replied = True
                    self._note(task, "replied")
                task.finish(True)
                return True
            except LostTaskError:
                logger.warning("the reply may have arrived or not")
                self._renew()
                return True
            except LINK_ERRORS as error:
                if is_gone(error) or self._clock() >= until:
                    log_event(logger, "nobody waits for this reply any more", error=type(error).__name__)
                    return True
                logger.warning("the reply could not be handed over: %s", type(error).__name__)
            if self._stop.wait(pause):
                return replied
            pause = min(2 * pause, AWAY_SECONDS[1])

    def _note(self, task: Task, stage: Literal["replying", "replied"]) -> None:
        try:
            task.note(self._places.saved, stage)
        except ConsilienceError as error:
            logger.warning("how far the reply is could not be kept: %s", error)

    def _away(self, error: BaseException) -> None:
        """Wait for a SuperNode that does not answer, longer each time, and say so once."""
        if self._away_since is None:
            self._away_since = self._clock()
            what = "the SuperNode does not answer"
            if is_gone(error):
                what = "another process answers at the SuperNode's port, or it has another secret"
            log_event(logger, what, severity=logging.WARNING, error=type(error).__name__)
            self._stand("refused" if is_gone(error) else "away")
        self._stop.wait(self._away_pause)
        self._away_pause = min(2 * self._away_pause, AWAY_SECONDS[1])

    def _back(self) -> None:
        if self._away_since is not None:
            log_event(logger, "the SuperNode answers", seconds=round(self._clock() - self._away_since, 3))
            self._away_since, self._away_pause = None, AWAY_SECONDS[0]
            self._stand("waiting")

    def _pause(self) -> float:
        """A twentieth of the time since the last request: a round loses little by it, and an idle vault costs nothing."""
        return min(max(_SHARE * (self._clock() - self._last), self._poll), IDLE_SECONDS)

    def _stand(self, phase: Phase) -> None:
        self._standing = self._standing.model_copy(update={"phase": phase, "since": now()})
        write_standing(self._places.standing, self._standing)

    def _drop(self) -> None:
        try:
            self._places.saved.unlink(missing_ok=True)
            self._places.saved.with_suffix(TRIES).unlink(missing_ok=True)
        except OSError as error:
            logger.warning("the kept request could not be deleted: %s", type(error).__name__)
