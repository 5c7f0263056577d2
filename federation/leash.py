"""Processes that do not outlive who started them, also when that one is killed outright.

Two lines of defence. *run*: the kernel kills the process when the thread that started it is gone (PR_SET_PDEATHSIG of Linux's prctl(2);
elsewhere nothing happens). *keep*: one small process holds the other end of a pipe and kills whole process groups when the pipe closes, on
every system; it reaches what the first cannot, the processes that a child started in turn.

This file is run by its path, apart from any folder or variable that could put other code in its way: it imports Python's own only.
"""

import ctypes
import os
import re
import signal
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress

PR_SET_PDEATHSIG = 1
CANNOT_START = 127
_ORDER = re.compile(rb"([+-])([1-9][0-9]{0,9})\n")


def leashed(command: Sequence[str]) -> tuple[str, ...]:
    """Return the command that runs `command`, with the same process number, until the calling thread's process is gone.

    Call it in the process, and start it from the thread, on which the command's life is to depend: a thread that ends takes it along.
    """
    return (*_script("run"), str(os.getpid()), "--", *command)


def keeper_command() -> tuple[str, ...]:
    """Return the command that reads orders `+GROUP` and `-GROUP`, a line each, and kills the groups that remain at the end of its input."""
    return _script("keep")


def kill_group(group: int) -> None:
    """Kill every process of a group; none that is left is none to kill."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)


def keep(orders: Iterable[bytes]) -> None:
    """Read orders to their end, then kill the groups that were named and not taken back. A line that was cut short says nothing."""
    groups: set[int] = set()
    for line in orders:
        order = _ORDER.fullmatch(line)
        if order is not None:
            (groups.add if order[1] == b"+" else groups.discard)(int(order[2]))
    for group in groups:
        kill_group(group)


def run(parent: int, command: Sequence[str]) -> None:
    """Become `command`, to be killed when `parent` is gone. Ends with 127 when it cannot be started."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # it was gone before the kernel was told
            os._exit(CANNOT_START)
    try:
        os.execvp(command[0], tuple(command))
    except OSError as error:
        print(f"{command[0]} cannot be started: {error.strerror}.", file=sys.stderr, flush=True)
        os._exit(CANNOT_START)


def _script(mode: str) -> tuple[str, ...]:
    return (sys.executable, "-I", "-S", os.path.abspath(__file__), mode)


def _main() -> None:
    if sys.argv[1] == "keep":
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        keep(sys.stdin.buffer)
    else:
        run(int(sys.argv[2]), sys.argv[4:])


if __name__ == "__main__":
    _main()
