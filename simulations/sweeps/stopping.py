"""Ctrl-C is answered at once: workers take seconds to end, and a silent program is pressed again."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

_SAID = "\nStopping …\n".encode()
_ERRORS = 2


@contextmanager
def announced() -> Iterator[None]:
    """Say "Stopping …" on the error output when Ctrl-C is pressed in the block; KeyboardInterrupt follows as always.

    Only a process's main thread may say what a signal does, and where Ctrl-C is ignored it stays so.
    """
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    signal.signal(signal.SIGINT, _stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _stop(number: int, frame: FrameType | None) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # said once
    with suppress(OSError):
        os.write(_ERRORS, _SAID)  # no stream: the signal may have come in the middle of a write to one
    raise KeyboardInterrupt
