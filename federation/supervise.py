"""Keeps the processes of one party running: starts them, starts them again when they end, and ends them together.

One thread does everything, so that the children hang on a thread that lives as long as the supervisor, and no output waits for another.
"""

import os
import random
import selectors
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Protocol

from federation.child import Child, Pace, Runner
from federation.errors import StorageError
from federation.files import atomic_write
from federation.keeper import Keeper
from federation.service_state import STATE_FILE, ServiceLock, ServiceState, read_service, stop_service

__all__ = ["Child", "OnEvent", "Pace", "Supervisor", "read_service", "stop_service"]

_LONGEST_WAIT = 0.5
_WRITE_AGAIN = 5.0


class OnEvent(Protocol):
    """Is told what happens: the event's name and plain values."""

    def __call__(self, event: str, **fields: int | float | str | bool | None) -> None:
        """Note the event."""


def _untold(event: str, **fields: int | float | str | bool | None) -> None:
    """Note nothing."""


class Supervisor:
    """Runs the children of a folder until it is told to stop.

    Parameters
    ----------
    folder:
        Where the service says how it fares (`service.json`) and holds its lock; made when missing.
    children:
        What is to run. They are started in this order and ended in the opposite one, each when the one after it is gone.
    pace:
        Seconds between starts, and for an end.
    clock, now:
        Seconds that only go forward, and POSIX seconds.
    chance:
        Draws from [0, 1): lengthens pauses.
    on_event:
        Is told `child_started`, `child_ended`, `service_stopping`, `service_stopped` and `state_not_written`.
    """

    def __init__(
        self,
        folder: Path,
        children: Sequence[Child],
        *,
        pace: Pace | None = None,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
        chance: Callable[[], float] | None = None,
        on_event: OnEvent = _untold,
    ) -> None:
        if not children or len({child.name for child in children}) < len(children):
            raise ValueError("A service has one child at least, each with a name of its own.")
        self._folder = folder
        self._children = tuple(children)
        self._pace = pace or Pace()
        self._clock = clock
        self._now = now
        self._chance = chance or random.SystemRandom().random
        self._on_event = on_event
        self._stopping = threading.Event()
        self._wake: int | None = None
        self._started = 0
        self._write_at: float | None = None

    def stop(self) -> None:
        """Tell it to stop, from a signal's handler or another thread; `run` returns when everything has ended."""
        self._stopping.set()
        if self._wake is not None:
            with suppress(OSError):
                os.write(self._wake, b".")

    def run(self) -> int:
        """Keep the children running until SIGTERM, SIGINT, SIGHUP or `stop`, end them, and return 0.

        Signals are only heard on the main thread. Called once.

        Raises
        ------
        FederationError
            CSL-F310 when the service of this folder runs already.
        StorageError
            CSL-F313 when the folder cannot be written.
        """
        with ServiceLock(self._folder), self._alarm() as alarm, self._signals(), Keeper() as keeper:
            self._started = int(self._now())
            runners = tuple(
                Runner(child, keeper, self._pace, clock=self._clock, chance=self._chance, now=self._now)
                for child in self._children
            )
            try:
                self._write(runners)
                while not self._stopping.is_set():
                    keeper.check()
                    self._turn(runners)
                    self._wait(runners, alarm, self._patience(runners))
            finally:
                self._end(runners, alarm)
        return 0

    def _turn(self, runners: Sequence[Runner]) -> None:
        """Note who ended and start who is due."""
        changed = self._write_at is not None and self._clock() >= self._write_at
        for runner in runners:
            if runner.look():
                self._tell_end(runner)
                changed = True
            if not runner.is_up and self._clock() >= runner.due and not self._stopping.is_set():
                runner.start()
                (self._tell_start if runner.is_up else self._tell_end)(runner)
                changed = True
        if changed:
            self._write(runners)

    def _patience(self, runners: Sequence[Runner]) -> float:
        """Return how long nothing is due; an end shows at once by the end of the output, and else after half a second."""
        due = [runner.due - self._clock() for runner in runners if not runner.is_up]
        return max(0.0, min([_LONGEST_WAIT, *due]))

    def _wait(self, runners: Sequence[Runner], alarm: int, seconds: float) -> None:
        """Wait for output or the alarm, and take the output into the logs."""
        with selectors.DefaultSelector() as selector:
            selector.register(alarm, selectors.EVENT_READ)
            for runner in runners:
                if runner.output is not None:
                    selector.register(runner.output, selectors.EVENT_READ, runner)
            for key, _ in selector.select(seconds):
                if isinstance(key.data, Runner):
                    key.data.read()
                else:
                    os.read(alarm, 4096)

    def _end(self, runners: Sequence[Runner], alarm: int) -> None:
        self._on_event("service_stopping")
        each = min(self._pace.each, self._pace.stop / len(runners))
        for runner in reversed(runners):
            runner.tell_to_stop()
            until = self._clock() + each
            while runner.is_up and self._clock() < until:
                self._note_ends(runners)
                if runner.is_up:
                    self._wait(runners, alarm, min(_LONGEST_WAIT, max(0.0, until - self._clock())))
            if runner.is_up:
                runner.kill()
                self._tell_end(runner)
        for runner in runners:
            runner.close()
        self._write(runners)
        self._on_event("service_stopped")

    def _note_ends(self, runners: Sequence[Runner]) -> None:
        for runner in runners:
            if runner.look():
                self._tell_end(runner)

    def _tell_start(self, runner: Runner) -> None:
        state = runner.state()
        self._on_event("child_started", child=state.name, pid=state.pid, restarts=state.restarts)

    def _tell_end(self, runner: Runner) -> None:
        state = runner.state()
        wait = round(max(0.0, runner.due - self._clock()), 1)
        self._on_event("child_ended", child=state.name, exit=state.last_exit, reason=state.reason, again_in=wait)

    def _write(self, runners: Sequence[Runner]) -> None:
        """Write the state; a disk that is full stops no service, which tries again later."""
        children = tuple(runner.state() for runner in runners)
        state = ServiceState(pid=os.getpid(), started=self._started, children=children)
        self._write_at = None
        try:
            atomic_write(self._folder / STATE_FILE, state.canonical() + b"\n", 0o600)
        except StorageError as error:
            self._write_at = self._clock() + _WRITE_AGAIN
            self._on_event("state_not_written", code=error.code)

    @contextmanager
    def _alarm(self) -> Iterator[int]:
        """Open a pipe by which a signal or another thread ends a wait."""
        reader, self._wake = os.pipe()
        for descriptor in (reader, self._wake):
            os.set_blocking(descriptor, False)
        try:
            yield reader
        finally:
            writer, self._wake = self._wake, None
            os.close(writer)
            os.close(reader)

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """Stop at signals, while it runs on the main thread."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
        for number in before:
            signal.signal(number, self._heard)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _heard(self, number: int, frame: FrameType | None) -> None:
        self.stop()
