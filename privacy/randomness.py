"""Randomness is injected: what draws noise or samples customers is given a `RandomSource`.

The vault uses `SystemSource`, keyed by the operating system. Seeded sources live in `simulations/`; `require_system`
refuses them.
"""

import builtins
import os
import threading
from abc import ABC, abstractmethod
from typing import Protocol

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR
from numpy.typing import NDArray
from scipy.special import ndtri

from federation.errors import PolicyError

KEY_BYTES = 32
REKEY_BYTES = 1 << 30  # 2^26 blocks under one key: distinguishing advantage at most 2^52 / 2^129
_ZEROS = builtins.bytes(1 << 16)
_SHORT = np.uint64(1 << 40)
_BELOW_ONE = 1.0 - 2.0**-53


class RandomSource(Protocol):
    """Where noise and sampling draws come from."""

    @property
    def seeded(self) -> bool:
        """Whether somebody who knows a seed can repeat the draws."""
        ...

    def bytes(self, n: int) -> builtins.bytes:
        """Return `n` uniform bytes."""
        ...

    def integers64(self, n: int) -> NDArray[np.uint64]:
        """Return `n` integers, uniform on [0, 2^64)."""
        ...

    def uniform(self, n: int) -> NDArray[np.float64]:
        """Return `n` floats, uniform on {1, ..., 2^53 - 1} / 2^53: never 0, never 1."""
        ...

    def normal(self, n: int) -> NDArray[np.float64]:
        """Return `n` standard normal floats (float64)."""
        ...


class Keystream:
    """AES-256 in counter mode from a zero counter, as a stream of bytes; for one thread.

    Parameters
    ----------
    key:
        32 secret bytes, used for this stream alone.
    """

    def __init__(self, key: builtins.bytes) -> None:
        self._cipher: CipherContext = Cipher(AES(key), CTR(builtins.bytes(16))).encryptor()
        self.used = 0

    def fill(self, out: memoryview) -> None:
        """Overwrite `out` (writable, format "B") with the next bytes of the stream."""
        for start in range(0, len(out), len(_ZEROS)):
            part = out[start : start + len(_ZEROS)]
            self._cipher.update_into(_ZEROS[: len(part)], part)
        self.used += len(out)


class ByteSource(ABC):
    """A `RandomSource` made of its bytes alone."""

    @property
    @abstractmethod
    def seeded(self) -> bool:
        """Whether somebody who knows a seed can repeat the draws."""

    @abstractmethod
    def fill(self, out: memoryview) -> None:
        """Overwrite `out` (writable, format "B") with uniform bytes."""

    def bytes(self, n: int) -> builtins.bytes:
        """Return `n` uniform bytes."""
        out = bytearray(n)
        self.fill(memoryview(out))
        return builtins.bytes(out)

    def integers64(self, n: int) -> NDArray[np.uint64]:
        """Return `n` integers, uniform on [0, 2^64)."""
        out = bytearray(8 * n)
        self.fill(memoryview(out))
        return np.frombuffer(out, dtype="<u8").astype(np.uint64, copy=False)

    def uniform(self, n: int) -> NDArray[np.float64]:
        """Return `n` floats, uniform on {1, ..., 2^53 - 1} / 2^53: never 0, never 1, symmetric about 1/2."""
        high = self.integers64(n) >> np.uint64(11)
        while (missing := np.flatnonzero(high == 0)).size:
            high[missing] = self.integers64(missing.size) >> np.uint64(11)
        return high.astype(np.float64) * 2.0**-53

    def normal(self, n: int) -> NDArray[np.float64]:
        """Return `n` standard normal floats (float64): a random sign, and the inverse distribution function below 1/2.

        The uniform below 1/2 has 53 significant bits however small it is (63 bits, and where they are fewer than 40
        the next 64 as well), so that the tail is as fine as the middle: neighbours are nowhere further apart than
        2^-50, to 12 standard deviations. With uniforms on a grid of 2^-53 they are 0.08 apart at 8, and which values
        can occur would tell what the noise was added to (Mironov 2012). The law differs from the normal one by less
        than 2^-120 in total variation before the rounding of floats.
        """
        words = self.integers64(n)
        magnitude, negative = words >> np.uint64(1), (words & np.uint64(1)).astype(bool)
        share = magnitude.astype(np.float64) + 0.5
        short = np.flatnonzero(magnitude < _SHORT)
        if short.size:
            more = (self.integers64(short.size).astype(np.float64) + 0.5) * 2.0**-64
            share[short] = magnitude[short].astype(np.float64) + np.minimum(more, _BELOW_ONE)
        values = np.asarray(ndtri(share * 2.0**-64), dtype=np.float64)
        return np.where(negative, values, -values)


class SystemSource(ByteSource):
    """AES-256-CTR keyed by `os.urandom`: the only source that a vault accepts.

    Every thread of every process has a key of its own (so neither a lock nor a fork can make two of them share a
    stream), and takes a new one after `rekey_bytes` bytes.
    """

    def __init__(self, rekey_bytes: int = REKEY_BYTES) -> None:
        self._rekey_bytes = rekey_bytes
        self._local = threading.local()

    @property
    def seeded(self) -> bool:
        """False: nobody can repeat these draws."""
        return False

    def fill(self, out: memoryview) -> None:
        """Overwrite `out` (writable, format "B") with uniform bytes."""
        for start in range(0, len(out), self._rekey_bytes):
            self._keystream().fill(out[start : start + self._rekey_bytes])

    def _keystream(self) -> Keystream:
        """This thread's stream; a forked child inherits its parent's and must never use it."""
        current: tuple[int, Keystream] | None = getattr(self._local, "current", None)
        process = os.getpid()
        if current is None or current[0] != process or current[1].used >= self._rekey_bytes:
            current = (process, Keystream(os.urandom(KEY_BYTES)))
            self._local.current = current
        return current[1]


def require_system(source: RandomSource) -> None:
    """Refuse a source whose draws can be repeated.

    Raises
    ------
    PolicyError
        CSL-P101 when `source.seeded`.
    """
    if source.seeded:
        raise PolicyError(
            "CSL-P101",
            "A seeded random source was offered to protect customers: whoever knows its seed can remove the noise.",
            "Use the system source; seeded ones are for simulations.",
        )
