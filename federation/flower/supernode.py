"""Flower's SuperNode with shorter pauses: `python -m federation.flower.supernode --poll-seconds 0.1 ...` takes the stock flags after that.

Stock, an idle SuperNode asks the link every 3 seconds and looks for its worker's reply every half second, which is most of a round. Here
the pause grows with the time since the last message, so that a round loses about a tenth of its length to it and an idle node asks as
seldom as a stock one. Nothing else is changed.
"""

import sys
import time
from collections.abc import Callable

from flwr.supernode import start_client_internal
from flwr.supernode.cli.flower_supernode import flower_supernode

from federation.flower.backoff import shorten_backoff
from federation.flower.version import check_version

IDLE_SECONDS = 3.0
REPLY_SECONDS = 0.5
_SHARE = 0.1
_REPLY_LEAST = 0.01
_REPLY_MOST = 0.25


class Pauses:
    """Stands in for the module `time` in Flower's loop: knows its two pauses by their lengths, and gives any other as it is."""

    def __init__(
        self,
        poll_seconds: float,
        now: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._poll = poll_seconds
        self._now = now
        self._sleep = sleep
        self._last = now()
        self._waiting_since: float | None = None

    def sleep(self, seconds: float) -> None:
        """Sleep for Flower's pause, or for a shorter one."""
        if seconds == IDLE_SECONDS:
            self._waiting_since = None
            self._sleep(min(max(_SHARE * (self._now() - self._last), self._poll), IDLE_SECONDS))
        elif seconds == REPLY_SECONDS:
            self._last = self._now()
            self._waiting_since = self._waiting_since if self._waiting_since is not None else self._last
            waited = self._last - self._waiting_since
            self._sleep(min(max(_SHARE * waited, _REPLY_LEAST), _REPLY_MOST))
        else:
            self._sleep(seconds)

    def __getattr__(self, name: str) -> object:
        return getattr(time, name)


def quicken(poll_seconds: float) -> None:
    """Put the shorter pauses into Flower's loop."""
    vars(start_client_internal)["time"] = Pauses(poll_seconds)
    shorten_backoff()


def main() -> None:
    """Run the SuperNode of the command line."""
    check_version()
    if len(sys.argv) < 3 or sys.argv[1] != "--poll-seconds":
        sys.exit("The first option is --poll-seconds SECONDS.")
    quicken(float(sys.argv[2]))
    sys.argv = ["flower-supernode", *sys.argv[3:]]
    flower_supernode()


if __name__ == "__main__":
    main()
