"""One process that a supervisor keeps running: how it is started, what it prints, when it is started again."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from federation.capped_log import CappedLog
from federation.exit_reason import plain_reason
from federation.keeper import Keeper
from federation.leash import kill_group, leashed
from federation.service_state import ChildState, Life

_READ_BYTES = 64 << 10
_MOST_READS = 64
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True)
class Child:
    """What is to run: a name of its own, the command, where its output goes.

    `environment` is added to the supervisor's. `explain` gives the reason of an end from the exit code (negative: a signal) and the last
    lines of the log; it passes on no text that it does not know.
    """

    name: str
    command: tuple[str, ...]
    log: Path
    environment: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    explain: Callable[[int, str], str] = plain_reason


@dataclass(frozen=True)
class Pace:
    """Seconds: the first and the longest pause before a new start, how long up counts as well again, how long an end may take.

    A pause doubles with every end in a row and is lengthened by chance, a quarter at most, so that the nodes of a federation do not all
    come back in the same instant. `stop` is for all processes together and `each` for one, before it is killed.
    """

    first: float = 1.0
    longest: float = 30.0
    calm: float = 60.0
    stop: float = 24.0
    each: float = 10.0

    def pause(self, ends: int, chance: float) -> float:
        """Return the seconds before the next start after `ends` (1, 2, ...) in a row, with `chance` drawn from [0, 1)."""
        doubled = self.first * 2.0 ** min(ends - 1, 32)
        return min(self.longest, doubled) * (1.0 + 0.25 * chance)


def child_environment(own: Mapping[str, str], added: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of a child: ours, what is added, output line by line, and never a proxy between processes of one machine."""
    result = {**own, "PYTHONUNBUFFERED": "1", **added}
    for name in ("NO_PROXY", "no_proxy"):
        known = [part.strip() for part in result.get(name, "").split(",") if part.strip()]
        result[name] = ",".join([*known, *(host for host in _LOOPBACK if host not in known)])
    return result


class Runner:
    """Runs a child through its lives. Not for several threads: the thread that starts a child is the one on which its life hangs."""

    def __init__(
        self,
        child: Child,
        keeper: Keeper,
        pace: Pace,
        *,
        clock: Callable[[], float],
        chance: Callable[[], float],
        now: Callable[[], float] = time.time,
    ) -> None:
        self.child = child
        self.due = clock()
        self._keeper = keeper
        self._pace = pace
        self._clock = clock
        self._chance = chance
        self._now = now
        self._log = CappedLog(child.log)
        self._process: subprocess.Popen[bytes] | None = None
        self._output: int | None = None
        self._life: Life = "waiting"
        self._since = int(now())
        self._began = 0.0
        self._in_a_row = 0
        self._starts = 0
        self._last_exit: int | None = None
        self._reason: str | None = None

    @property
    def output(self) -> int | None:
        """The descriptor from which its output is read; None when there is none to read."""
        return self._output

    @property
    def is_up(self) -> bool:
        """Whether there is a process that has not been seen to end."""
        return self._process is not None

    def state(self) -> ChildState:
        """Return what is told about it."""
        return ChildState(
            name=self.child.name,
            pid=None if self._process is None else self._process.pid,
            state=self._life,
            restarts=max(self._starts - 1, 0),
            last_exit=self._last_exit,
            reason=self._reason,
            since=self._since,
        )

    def start(self) -> None:
        """Start it; one that cannot be started has ended."""
        self._starts += 1
        self._began = self._clock()
        self._log.begin()
        try:
            self._process = subprocess.Popen(
                leashed(self.child.command),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=child_environment(os.environ, self.child.environment),
                start_new_session=True,
            )
        except OSError as error:
            self._end(None, f"It cannot be started: {error.strerror}.")
            return
        self._keeper.hold(self._process.pid)
        assert self._process.stdout is not None
        self._output = self._process.stdout.fileno()
        os.set_blocking(self._output, False)
        self._become("up")

    def read(self) -> None:
        """Take one piece of what it printed into the log. At the end of its output it is most likely about to end."""
        if self._take() or self._output is not None:
            return
        if self._process is not None:
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(0.05)

    def look(self) -> bool:
        """Return whether it was seen to end just now. What it started in turn ends with it."""
        process = self._process
        if process is None or process.poll() is None:
            return False
        kill_group(process.pid)
        self._keeper.release(process.pid)
        for _ in range(_MOST_READS):
            if not self._take():
                break
        code = process.returncode
        self._drop()
        self._end(code, self.child.explain(code, self._log.tail()))
        return True

    def tell_to_stop(self) -> None:
        """Ask it to end, by SIGTERM; it tells those that it started."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it and everything that it started, by SIGKILL."""
        if self._process is not None:
            kill_group(self._process.pid)
            with suppress(subprocess.TimeoutExpired):  # one that waits for a dead disk ends when the disk is back
                self._process.wait(2)
            self.look()

    def close(self) -> None:
        """Say that it is not to be started again, and close its log."""
        self._become("stopped")
        self._log.close()

    def _take(self) -> bool:
        if self._output is None:
            return False
        try:
            piece = os.read(self._output, _READ_BYTES)
        except BlockingIOError:
            return False
        if piece:
            self._log.write(piece)
            return True
        self._shut()
        return False

    def _shut(self) -> None:
        self._output = None
        if self._process is not None and self._process.stdout is not None:
            self._process.stdout.close()

    def _drop(self) -> None:
        self._shut()
        self._process = None

    def _end(self, code: int | None, reason: str) -> None:
        lasted = self._clock() - self._began
        self._in_a_row = 1 if lasted >= self._pace.calm else self._in_a_row + 1
        self._last_exit = code
        self._reason = reason
        self.due = self._clock() + self._pace.pause(self._in_a_row, self._chance())
        self._become("waiting")

    def _become(self, life: Life) -> None:
        self._life = life
        self._since = int(self._now())
