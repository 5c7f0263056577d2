"""One study's process: `python -m server.service.study_process --home H --study NAME`, with the token of its task on standard input.

It runs the study loop that is installed here over the task's grid, and writes down how it went. It can be killed at any time: the
checkpoint is the only thing that counts.
"""

import argparse
import fcntl
import logging
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from flwr.serverapp import Grid

from federation.drafts import AnyDraft
from federation.errors import ConsilienceError, DocumentError, ExitCode, FederationError, OfflineError
from federation.flower.errors import LINK_ERRORS, explain
from federation.flower.runs import ServerTask
from federation.logs import log_event, setup_logs
from server.events import Delivered, Event, OnEvent, Published, Reported
from server.exchange import Clock
from server.home import CoordinatorHome
from server.journal import Journal
from server.office import Office
from server.running import run_any
from server.service.reading import read_bytes
from server.service.reconciler import TOO_FEW
from server.service.studies import State, StudyBook, StudyRecord
from server.unlock import find_opener

LOCK_SECONDS = 15.0
logger = logging.getLogger("consilience.study")


class Interrupted(Exception):
    """The process was told to stop."""


class Task(Protocol):
    """An open task (`federation.flower.runs.ServerTask`)."""

    grid: Grid
    run_config: dict[str, object]

    def finish(self, ok: bool, details: str) -> None: ...  # noqa: D102
    def close(self) -> None: ...  # noqa: D102


@dataclass
class Stop:
    """Told by a signal; whoever waits looks at it, and leaves by `Interrupted` between two steps."""

    _told: threading.Event = field(default_factory=threading.Event)

    def tell(self) -> None:
        """Ask for the end."""
        self._told.set()

    def asked(self) -> bool:
        """Return whether the end was asked for."""
        return self._told.is_set()

    def now(self) -> float:
        """Return the monotonic time, unless the end was asked for."""
        self._check()
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Sleep, or leave as soon as the end is asked for."""
        self._told.wait(seconds)
        self._check()

    def _check(self) -> None:
        if self.asked():
            raise Interrupted


@dataclass(frozen=True)
class Outcome:
    """How a study's process ended, as its record will say."""

    state: State
    reason: str = ""
    code: str = ""


class StudyProcess:
    """Runs one study of a home and keeps its record.

    Parameters
    ----------
    open_task:
        Opens the claimed task; its second argument says whether the end was asked for.
    """

    def __init__(
        self,
        home: CoordinatorHome,
        name: str,
        open_task: Callable[[Callable[[], bool]], Task],
        *,
        stop: Stop | None = None,
        address: str = "",
        run: Callable[..., object] = run_any,
    ) -> None:
        self._home = home
        self._name = name
        self._open_task = open_task
        self._stop = stop or Stop()
        self._address = address
        self._run = run
        self._book = StudyBook(home.root)
        self._published: str | None = None

    def run(self) -> Outcome:
        """Run the study to an outcome, write that down, and tell the link."""
        task: Task | None = None
        try:
            task = self._open_task(self._stop.asked)
            self._work(task)
            outcome = Outcome(
                "finished", "what came of it is published, and was delivered to every member that answered"
            )
        except Interrupted:
            outcome = self._interrupted()
        except LINK_ERRORS as error:
            outcome = self._interrupted() if self._stop.asked() else self._lost(explain(error, self._address))
        except ConsilienceError as error:
            outcome = self._failed(error)
        self._settle(outcome)
        if task is not None:
            self._tell(task, outcome)
        return outcome

    def _work(self, task: Task) -> None:
        record = self._record()
        if task.run_config.get("study") != self._name:
            raise DocumentError(
                "CSL-S811",
                "The link's task is for another study than this process.",
                "Stop the study and start it again.",
            )
        checkpoint = self._home.root / "checkpoints" / f"{self._name}.checkpoint"
        if record.delivered is not None and not checkpoint.exists():
            return  # what was interrupted was the exchange of ledger heads; to begin anew would cost every vault its budget again
        office, draft = self._open_office()
        self._run(
            task.grid,
            draft,
            office,
            on_event=self._on_event(),
            roster_seconds=record.roster_seconds,
            grant_seconds=record.grant_seconds,
            clock=Clock(self._stop.now, self._stop.sleep),
        )

    def _open_office(self) -> tuple[Office, AnyDraft]:
        opener = find_opener(self._home)
        draft = self._home.draft(self._name)
        return self._home.office(draft.contract, opener.passphrase, opener.allow_plain), draft

    def _on_event(self) -> OnEvent:
        journal = Journal(self._book.journal(self._name))

        def on_event(event: Event) -> None:
            journal(event)
            log_event(logger, type(event).__name__, study=self._name)
            if isinstance(event, Published | Reported):
                self._published = event.name
            elif isinstance(event, Delivered):
                delivered = self._published or self._name
                self._book.change(self._name, lambda record: record.model_copy(update={"delivered": delivered}))

        return on_event

    def _record(self) -> StudyRecord:
        return self._book.change(self._name, lambda record: record)

    def _interrupted(self) -> Outcome:
        if self._record().wanted == "stopped":
            return Outcome("stopped", "stopped by the coordinator")
        return Outcome("waiting", "the service was stopped")

    def _lost(self, error: ConsilienceError) -> Outcome:
        return Outcome("waiting", "the link ended its run; it goes on in another", error.code)

    def _failed(self, error: ConsilienceError) -> Outcome:
        """Sort an error: what others may put right stops the study or lets it wait, what needs a person's hand ends it."""
        log_event(logger, "study ended", study=self._name, code=error.code)
        if error.code in TOO_FEW:
            return Outcome(
                "waiting" if self._record().keep_trying else "stopped", f"{error.cause} {error.action}", error.code
            )
        if isinstance(error, OfflineError):
            return self._lost(error)
        return Outcome("failed", f"{error.cause} {error.action}", error.code)

    def _settle(self, outcome: Outcome) -> None:
        self._book.settle(self._name, outcome.state, outcome.reason, outcome.code)

    def _tell(self, task: Task, outcome: Outcome) -> None:
        """End the run at the link; where that fails, the executor stops it."""
        try:
            task.finish(outcome.state == "finished", outcome.code)
        except LINK_ERRORS as error:
            log_event(logger, "the link was not told", study=self._name, error=type(error).__name__)
        finally:
            task.close()


@contextmanager
def only_one(path: Path, seconds: float = LOCK_SECONDS) -> Iterator[None]:
    """Make sure that no other process runs this study, after waiting a while for one that is leaving.

    Raises
    ------
    FederationError
        CSL-S812.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with path.open("ab") as handle:
        end = time.monotonic() + seconds
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= end:
                    raise FederationError(
                        "CSL-S812", "Another process runs this study.", "See `coordinator status`; end that process."
                    ) from None
                time.sleep(0.1)
        yield


def main(arguments: list[str] | None = None) -> int:
    """Run the process of the command line; return 0 once the outcome is written down, whatever it is."""
    parser = argparse.ArgumentParser(description="Run one study over a task of the link; the executor starts this.")
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--study", required=True)
    given = parser.parse_args(arguments)
    token = sys.stdin.readline().strip()
    home, stop = CoordinatorHome(given.home), Stop()
    signal.signal(signal.SIGTERM, lambda number, frame: stop.tell())
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    book = StudyBook(home.root)
    with setup_logs("study", book.log(given.study), causes=True):
        try:
            address, authority = f"127.0.0.1:{home.config().link_port}", read_bytes(home.authority_file)
            with only_one(book.file(given.study).with_suffix(".lock")):
                process = StudyProcess(
                    home,
                    given.study,
                    lambda asked: ServerTask.open(address, authority, token, asked),
                    stop=stop,
                    address=address,
                )
                outcome = process.run()
            log_event(logger, "study process ends", study=given.study, state=outcome.state, code=outcome.code)
        except ConsilienceError as error:
            logger.error("study process ends: %s", error)
            _note(book, given.study, error)
            return int(error.exit_code)
        except Exception:  # the process's boundary: type and place are logged, never a text
            logger.exception("study process ends by an error that nobody foresaw")
            return int(ExitCode.INTERNAL)
    return int(ExitCode.OK)


def _note(book: StudyBook, study: str, error: ConsilienceError) -> None:
    """Write down what kept the process from beginning. Another process that still runs the study is no failure: it is tried again."""
    if error.code == "CSL-S812":
        return
    with suppress(ConsilienceError):
        book.settle(study, "failed", f"{error.cause} {error.action}", error.code)


if __name__ == "__main__":
    sys.exit(main())
