"""How fast a vault answers: a bucket of tokens, one for each request.

Who asks too often waits; nothing is lost, and nothing is refused for it. Every request costs the same, whatever became of it: a refusal
takes no more work than an answer, the ledger has a limit of its own for refusals, and a reply's delay must not tell what happened to
earlier requests. A study never comes near the limit, since a round over a network takes longer than a twentieth of a second.
"""

import threading
import time
from collections.abc import Callable

BURST = 200
PER_SECOND = 20.0


class Throttle:
    """A bucket that holds `burst` tokens and gains `per_second`; safe for threads.

    Parameters
    ----------
    burst, per_second:
        How many requests are answered at once, and how many a second for as long as it lasts.
    clock:
        Seconds that never go back.
    sleep:
        Waits for so many seconds.
    """

    def __init__(
        self,
        burst: int = BURST,
        per_second: float = PER_SECOND,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._burst = burst
        self._rate = per_second
        self._clock = clock
        self._sleep = sleep
        self._tokens = float(burst)  # below zero: so many requests are promised a token that is not there yet
        self._seen = clock()
        self._lock = threading.Lock()

    def wait(self) -> float:
        """Take a token, and wait until it is there; return how many seconds that took."""
        with self._lock:
            now = self._clock()
            self._tokens = min(self._burst, self._tokens + max(0.0, now - self._seen) * self._rate) - 1.0
            self._seen = now
            seconds = max(0.0, -self._tokens / self._rate)
        if seconds > 0:
            self._sleep(seconds)
        return seconds
