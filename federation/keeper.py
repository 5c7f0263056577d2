"""The keeper of a supervisor: kills the process groups of its children should it be killed itself."""

import subprocess
from contextlib import suppress
from typing import Self

from federation.leash import keeper_command


class Keeper:
    """Holds the pipe to the keeper's process, and starts another one when that was killed.

    The groups of processes whose leaders have not been waited for yet may be named; their numbers are nobody else's.
    """

    def __init__(self) -> None:
        self._groups: set[int] = set()
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.check()
        return self

    def __exit__(self, *unused: object) -> None:
        self._close()

    @property
    def pid(self) -> int | None:
        """The process number of the keeper, None when there is none."""
        return None if self._process is None else self._process.pid

    def hold(self, group: int) -> None:
        """Have a group killed with this process."""
        self._groups.add(group)
        self._tell(f"+{group}\n")

    def release(self, group: int) -> None:
        """Take a group back: it has ended."""
        self._groups.discard(group)
        self._tell(f"-{group}\n")

    def check(self) -> None:
        """Start the keeper's process when there is none, or none any more."""
        if self._process is not None and self._process.poll() is None:
            return
        self._close()
        with suppress(OSError):  # no process can be had just now: the next look tries again
            self._process = subprocess.Popen(
                keeper_command(),
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
                bufsize=0,
            )
        for group in tuple(self._groups):
            self._tell(f"+{group}\n")

    def _tell(self, order: str) -> None:
        if self._process is not None and self._process.stdin is not None:
            with suppress(OSError):  # it was killed: the next look starts another, which is told everything
                self._process.stdin.write(order.encode())

    def _close(self) -> None:
        process, self._process = self._process, None
        if process is None or process.stdin is None:
            return
        with suppress(OSError):
            process.stdin.close()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
