"""A repeatable random source, for simulations and tests; a vault refuses it."""

import hashlib
import threading

from privacy.randomness import ByteSource, Keystream

_LABEL = b"consilience seeded source 1\0"


class SeededSource(ByteSource):
    """AES-256-CTR keyed by the SHA-256 of a seed: the same seed gives the same draws, on every machine.

    Threads that share one source get disjoint parts of its stream, in no particular order.

    Parameters
    ----------
    seed:
        Any integer or text; `SeededSource(1)` and `SeededSource("1")` are the same stream.
    """

    def __init__(self, seed: int | str) -> None:
        self._lock = threading.Lock()
        self._keystream = Keystream(hashlib.sha256(_LABEL + str(seed).encode()).digest())

    @property
    def seeded(self) -> bool:
        """True: whoever knows the seed can repeat the draws."""
        return True

    def fill(self, out: memoryview) -> None:
        """Overwrite `out` (writable, format "B") with the next bytes of the stream."""
        with self._lock:
            self._keystream.fill(out)
