"""Brings the link's runs in line with the studies that are wanted, and looks after one process for each that runs.

It decides by what is written down (`run/studies`), what the link says, and which of its children live; it remembers nothing else, so
that it can be killed and started again at any time. A study that is interrupted in any way goes on from its checkpoint, in a new run.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from federation.charter import Charter
from federation.errors import ConsilienceError, FederationError, OfflineError, StorageError
from federation.flower.control import NodeRow, RunRow
from federation.flower.errors import LINK_ERRORS, explain
from federation.flower.tasks import Claim
from server.service.studies import StudyBook, StudyRecord

TICK_SECONDS = 0.25
SYNC_SECONDS = 5.0
REFUSED_SECONDS = 600.0
STEADY_SECONDS = 60.0
HALT_SECONDS = 5.0
MOST_DEATHS = 5
LINK_PAUSES = (0.5, 30.0)
TRY_PAUSES = (1.0, 60.0)
PARTNER_PAUSES = (30.0, 600.0)
TOO_FEW = frozenset({"CSL-S501", "CSL-S502", "CSL-S503", "CSL-S221", "CSL-S222", "CSL-S223"})
"""Errors that other members can put right: too few answered, are there, granted, hold keys, or gave those of their masks."""

Say = Callable[..., None]


class ControlDoor(Protocol):
    """What the executor asks of the link's Control API (`federation.flower.control.Control`)."""

    def nodes(self) -> list[NodeRow]: ...  # noqa: D102
    def register_node(self, node_key: str) -> int: ...  # noqa: D102
    def unregister_node(self, node_id: int) -> None: ...  # noqa: D102
    def runs(self) -> list[RunRow]: ...  # noqa: D102
    def start_run(self, bundle: bytes, config: Mapping[str, str]) -> int: ...  # noqa: D102
    def stop_run(self, run_id: int) -> None: ...  # noqa: D102
    def close(self) -> None: ...  # noqa: D102


class DeskDoor(Protocol):
    """Where tasks are taken (`federation.flower.tasks.TaskDesk`)."""

    def acquire(self) -> Claim | None: ...  # noqa: D102
    def close(self) -> None: ...  # noqa: D102


class Process(Protocol):
    """A child process (`subprocess.Popen`)."""

    def poll(self) -> int | None: ...  # noqa: D102
    def terminate(self) -> None: ...  # noqa: D102
    def kill(self) -> None: ...  # noqa: D102


@dataclass(frozen=True)
class Doors:
    """An open connection to the link: its control, and its tasks."""

    control: ControlDoor
    desk: DeskDoor

    def close(self) -> None:
        """Close both."""
        self.control.close()
        self.desk.close()


@dataclass
class _Child:
    process: Process
    run_id: int
    since: float
    told: float | None = None


class Reconciler:
    """The executor's decisions for one home; `step` does what is due, and is called again and again.

    Parameters
    ----------
    book:
        What is wanted of each study.
    address:
        The link's, for messages.
    connect:
        Opens the doors to the link; raises as they do.
    spawn:
        Starts a study's process, from the study's name, the run and the task's token.
    bundle, app:
        The app's bundle that is pushed with every run, and its digest.
    charter:
        Reads the pinned charter.
    say:
        Logs an event: its name, and fields that are public.
    """

    def __init__(
        self,
        book: StudyBook,
        *,
        address: str,
        connect: Callable[[], Doors],
        spawn: Callable[[str, int, str], Process],
        bundle: bytes,
        app: str,
        charter: Callable[[], Charter],
        say: Say,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._book = book
        self._address = address
        self._connect = connect
        self._spawn = spawn
        self._bundle = bundle
        self._app = app
        self._charter = charter
        self._say = say
        self._clock = clock
        self._now = now
        self._children: dict[str, _Child] = {}
        self._doors: Doors | None = None
        self._lost = 0
        self._link_at = 0.0
        self._sync_at = 0.0
        self._refused: dict[str, float] = {}
        self._damaged: set[str] = set()
        self._barred = ""

    def recover(self) -> None:
        """Take up what an earlier executor left: its children died with it, and its runs are stopped at the first look at the link."""
        for record in self._records():
            if not record.over:
                self._book.settle(
                    record.study, "waiting", "the service was started again", run_id=None, tries=0, retry_at=0.0
                )

    def step(self) -> float:
        """Do what is due, and return how many seconds to wait before the next step."""
        self._reap()
        self._halt_unwanted()
        if self._clock() >= self._link_at:
            try:
                self._serve()
                self._answered()
            except LINK_ERRORS as error:
                self._away(explain(error, self._address))
            except (OfflineError, FederationError) as error:
                self._away(error)
        return TICK_SECONDS

    def close(self, sleep: Callable[[float], None] = time.sleep) -> None:
        """Ask every child to leave, and kill those that have not after a few seconds; their checkpoints stay."""
        for child in self._children.values():
            child.process.terminate()
        end = self._clock() + HALT_SECONDS
        while self._clock() < end and any(child.process.poll() is None for child in self._children.values()):
            sleep(0.05)
        for name, child in self._children.items():
            if child.process.poll() is None:
                child.process.kill()
            self._left(name)
        self._children.clear()
        self._close_doors()

    def _left(self, name: str) -> None:
        record = self._record(name)
        if record is not None and record.state == "running":
            self._book.settle(name, "waiting", "the service was stopped", run_id=None)

    # --- children ---

    def _reap(self) -> None:
        for name, child in list(self._children.items()):
            code = child.process.poll()
            if code is None:
                continue
            del self._children[name]
            self._sync_at = 0.0
            self._say("study_process_ended", study=name, run=str(child.run_id), status=code)
            record = self._record(name)
            if record is not None and not record.over:
                self._after(record, child, code)

    def _after(self, record: StudyRecord, child: _Child, code: int) -> None:
        """Decide what becomes of a study whose process is gone and that is not over: another try, later and later, or none."""
        if record.wanted == "stopped":
            self._book.settle(record.study, "stopped", "stopped by the coordinator")
            return
        died = record.state == "running"
        tries = 1 if self._clock() - child.since >= STEADY_SECONDS else record.tries + 1
        why, said = record.reason, record.code
        if died:
            death = died_of(code, tries, self._book.log(record.study))
            why, said = death.cause, death.code
            if tries > MOST_DEATHS:
                self._book.settle(record.study, "failed", f"{why} {death.action}", said, tries=tries)
                return
        pause = backoff(tries, PARTNER_PAUSES if said in TOO_FEW else TRY_PAUSES)
        self._book.settle(
            record.study, "waiting", why, said, run_id=None, tries=tries, retry_at=round(self._now() + pause, 3)
        )
        self._say("study_waits", study=record.study, code=said, seconds=pause, tries=tries)

    def _halt_unwanted(self) -> None:
        for record in self._records():
            if record.wanted == "running" or record.over:
                continue
            child = self._children.get(record.study)
            if child is None:
                self._book.settle(record.study, "stopped", "stopped by the coordinator")
                self._sync_at = 0.0
            elif child.told is None:
                child.told = self._clock()
                child.process.terminate()
            elif self._clock() - child.told >= HALT_SECONDS:
                child.process.kill()

    # --- the link ---

    def _serve(self) -> None:
        if self._doors is None:
            self._doors = self._connect()
        if self._clock() >= self._sync_at:
            self._sync_nodes(self._doors.control)
            self._sync_runs(self._doors.control)
            self._sync_at = self._clock() + SYNC_SECONDS
        self._launch(self._doors.control)
        self._take(self._doors)

    def _sync_nodes(self, control: ControlDoor) -> None:
        """Let in the nodes that the charter names, and nobody else."""
        charter = self._read_charter()
        if charter is None:
            return
        wanted = {member.node_key: member.id for member in charter.members if member.node_key is not None}
        there = {row.key: row.node_id for row in control.nodes()}
        for key in sorted(there.keys() - wanted.keys()):
            control.unregister_node(there[key])
            self._say("node_let_out", node=str(there[key]))
        for key in sorted(wanted.keys() - there.keys()):
            if self._clock() >= self._refused.get(key, 0.0):
                self._let_in(control, wanted[key], key)

    def _let_in(self, control: ControlDoor, member: str, key: str) -> None:
        try:
            node_id = control.register_node(key)
            self._say("node_let_in", member=member, node=str(node_id))
        except FederationError as error:
            # The link keeps every key it ever let out, and takes none of them again.
            self._refused[key] = self._clock() + REFUSED_SECONDS
            self._say("node_refused", member=member, code=error.code)

    def _read_charter(self) -> Charter | None:
        """Read the charter; None while it is being replaced, or when it cannot be used."""
        try:
            charter = self._charter()
        except ConsilienceError as error:
            self._bar(f"the charter cannot be used ({error.code}): see `coordinator doctor`")
            return None
        fits = charter.link is not None and charter.link.app == self._app
        self._bar("" if fits else "the charter names another app than the one that is installed (CSL-S806)")
        return charter

    def _bar(self, why: str) -> None:
        if why != self._barred:
            self._say("studies_barred" if why else "studies_allowed", why=why)
        self._barred = why

    def _sync_runs(self, control: ControlDoor) -> None:
        """Stop the link's runs that are nobody's, and notice the runs that it has lost."""
        live = {row.run_id for row in control.runs() if row.live}
        starting = [record for record in self._records() if record.state == "starting"]
        ours = {child.run_id for child in self._children.values()} | {record.run_id for record in starting}
        for run_id in sorted(live - ours):
            self._stop_run(control, run_id)
        for record in starting:
            if record.run_id not in live:
                self._book.settle(record.study, "waiting", "the link lost its run", run_id=None)

    def _stop_run(self, control: ControlDoor, run_id: int) -> None:
        try:
            control.stop_run(run_id)
            self._say("run_stopped", run=str(run_id))
        except FederationError as error:
            self._say("run_not_stopped", run=str(run_id), code=error.code)

    def _launch(self, control: ControlDoor) -> None:
        for record in self._records():
            due = record.wanted == "running" and record.state == "waiting" and record.retry_at <= self._now()
            if not due or record.study in self._children:
                continue
            if self._barred:
                self._hold(record, self._barred)
                continue
            run_id = control.start_run(self._bundle, {"study": record.study})
            self._book.settle(record.study, "starting", run_id=run_id)
            self._say("run_started", study=record.study, run=str(run_id))

    def _hold(self, record: StudyRecord, why: str, code: str = "") -> None:
        """Write down why a study waits, unless that is what its record says."""
        if record.reason != why:
            self._book.settle(record.study, "waiting", why, code)

    def _take(self, doors: Doors) -> None:
        """Take tasks off the link while a run of ours is waiting for one, and start their processes."""
        while starting := {record.run_id: record for record in self._records() if record.state == "starting"}:
            claim = doors.desk.acquire()
            if claim is None:
                return
            record = starting.get(claim.run_id)
            if record is None or record.study in self._children:
                self._stop_run(doors.control, claim.run_id)
                continue
            self._book.settle(record.study, "running")
            process = self._spawn(record.study, claim.run_id, claim.token)
            self._children[record.study] = _Child(process, claim.run_id, self._clock())
            self._say("study_process_started", study=record.study, run=str(claim.run_id))

    def _answered(self) -> None:
        if self._lost:
            self._say("link_back", tries=self._lost)
        self._lost = 0

    def _away(self, error: ConsilienceError) -> None:
        """Drop the connection and try again later and later; a running study waits by itself."""
        self._close_doors()
        self._lost += 1
        pause = backoff(self._lost, LINK_PAUSES)
        self._link_at, self._sync_at = self._clock() + pause, 0.0
        self._say("link_away", code=error.code, seconds=pause, tries=self._lost)
        for record in self._records():
            if record.wanted == "running" and record.state == "waiting" and record.code not in TOO_FEW:
                self._hold(record, "the link does not answer; it is asked again and again", error.code)

    def _close_doors(self) -> None:
        if self._doors is not None:
            self._doors.close()
        self._doors = None

    # --- records ---

    def _records(self) -> Iterator[StudyRecord]:
        for name in self._book.names():
            record = self._record(name)
            if record is not None:
                yield record

    def _record(self, name: str) -> StudyRecord | None:
        """Return a record; one that is damaged is named once, and left to a person."""
        try:
            record = self._book.read(name)
        except StorageError as error:
            if name not in self._damaged:
                self._say("record_damaged", study=name, code=error.code)
            self._damaged.add(name)
            return None
        self._damaged.discard(name)
        return record


def died_of(code: int, tries: int, log: Path) -> FederationError:
    """Return what is said of a study's process that ended without a word: CSL-S813."""
    how = f"signal {-code}" if code < 0 else f"status {code}"
    return FederationError(
        "CSL-S813",
        f"The study's process died ({how}){'' if tries == 1 else f', {tries} times in a row'}.",
        f"See {log}, put right what it says, and start the study again.",
    )


def backoff(tries: int, bounds: tuple[float, float]) -> float:
    """Return the pause before another try, in seconds: the first of `bounds`, doubled for each try, up to the second."""
    least, most = bounds
    return float(min(most, least * 2.0 ** min(tries - 1, 30)))
